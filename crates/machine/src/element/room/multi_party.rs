//! `MultiPartyCall`: its attributes and callbacks (docs/reference/xml.md#multipartycall,
//! docs/reference/callbacks.md#multi-party-call).

use super::ai_agent::AgentStream;
use super::attributes::Attributes;
use super::sounds::{Events, Sounds};
use super::{Element, MemberEvent, Membership, Rules, room_recording, start};
use crate::activity::Env;
use crate::context::CallContext;
use crate::contract::{
    CallbackKind, CallbackRequest, MPC_END, Param, Params, ParticipantInfo, RecordingOrder, Role,
    RoomEntry, RoomKind, TranscriptOrder,
};
use crate::element::{At, Flow, Instruction, record};
use crate::params::{self, Event};
use model::Method;
use xml::ast::{MultiPartyCall, Target};

/// `EventName` of a participant's exit.
const EXIT: &str = "ParticipantExit";

/// Defaults of `maxDuration`, in seconds, and `maxParticipants`.
const MAX_DURATION_SECS: u64 = 14_400;
const PARTICIPANTS_MAX: u8 = 10;

impl Instruction for MultiPartyCall {
    fn start(&self, env: &mut Env<'_>, _: At) -> Flow {
        let ctx = &mut *env.ctx;
        let (element, rules, mut entry, sounds) = MultiPartyElement::read(self);
        entry.needs_company =
            ctx.setup.outbound.as_ref().is_some_and(|outbound| outbound.needs_company);
        start(Element::MultiParty(Box::new(element)), rules, entry, sounds, ctx)
    }

    fn needs_media(&self) -> bool {
        true
    }

    fn takes_time(&self) -> bool {
        true
    }
}

/// The attributes of a `MultiPartyCall` that its callbacks need.
pub(super) struct MultiPartyElement {
    name: String,
    role: Role,
    pub(super) coaching: bool,
    status: Option<Target>,
    events: Vec<EventGroup>,
    on_exit: Option<Target>,
    /// Whether this participant is also recorded separately.
    track: bool,
    /// Whether the file is MP3, and whether recording continues while the call has only one
    /// participant. `None` if the element does not request a recording.
    record: Option<(bool, bool)>,
    recorded: Option<Target>,
    pub(super) agent: AgentStream,
    transcript: Option<TranscriptOrder>,
}

/// A group of events that `statusCallbackEvents` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EventGroup {
    Mpc,
    Participant,
    Speech,
    Digits,
    AddParticipant,
    Audio,
}

/// The groups with their names. Without the attribute, the first two groups are reported.
const GROUPS: [(&str, EventGroup); 6] = [
    ("mpc-state-changes", EventGroup::Mpc),
    ("participant-state-changes", EventGroup::Participant),
    ("participant-speak-events", EventGroup::Speech),
    ("participant-digit-input-events", EventGroup::Digits),
    ("add-participant-api-events", EventGroup::AddParticipant),
    ("participant-audio-events", EventGroup::Audio),
];

impl MultiPartyElement {
    pub(super) fn read(call: &MultiPartyCall) -> (Self, Rules, RoomEntry, Sounds) {
        let a = Attributes::of(call);
        let role = Role::parse(&call.role).unwrap_or(Role::Customer);
        let coaching = role == Role::Supervisor && a.flag("coachMode", true);
        let events = match a.text("statusCallbackEvents") {
            None => vec![EventGroup::Mpc, EventGroup::Participant],
            Some(words) => {
                let named = |word: &str| {
                    GROUPS.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(word.trim()))
                };
                words.split(',').filter_map(named).map(|(_, group)| group).collect()
            }
        };
        let element = Self {
            name: call.name.clone(),
            role,
            coaching,
            status: a.target("statusCallbackUrl", "statusCallbackMethod", Method::Post),
            events,
            on_exit: a.target("onExitActionUrl", "onExitActionMethod", Method::Post),
            track: a.flag("record", false) && a.flag("recordParticipantTrack", false),
            record: a.flag("record", false).then(|| {
                let mp3 = a
                    .text("recordFileFormat")
                    .is_none_or(|format| format.eq_ignore_ascii_case("mp3"));
                (mp3, a.number("recordMinMemberCount").is_none_or(|members| members <= 1))
            }),
            agent: AgentStream::read(&a, role),
            recorded: a.target("recordingCallbackUrl", "recordingCallbackMethod", Method::Post),
            // `transcript="false"` disables the transcript although a URL is set.
            transcript: a
                .target("transcriptionUrl", "transcriptionMethod", Method::Post)
                .filter(|_| a.flag("transcript", true))
                .map(|to| TranscriptOrder { to, full: false }),
        };
        let rules = Rules {
            hangup_on_star: false,
            digits_match: Vec::new(),
            limit_ms: None,
            wait_ms: a
                .number("waitTime")
                .filter(|secs| *secs > 0)
                .map(|secs| secs.saturating_mul(1_000)),
            send_digits: None,
            relays_keys: a.flag("relayDTMFInputs", false),
        };
        let entry = RoomEntry {
            kind: RoomKind::MultiParty,
            name: call.name.clone(),
            muted: a.flag("mute", false),
            held: a.flag("hold", false),
            start_on_enter: a.flag("startMpcOnEnter", true),
            needs_company: false,
            end_on_exit: a.flag("endMpcOnExit", false),
            stay_alone: a.flag("stayAlone", false),
            max_members: a
                .number("maxParticipants")
                .and_then(|n| u8::try_from(n).ok())
                .unwrap_or(PARTICIPANTS_MAX),
            waits_for_agent: role == Role::Customer && a.flag("waitForAgent", false),
            report_floor: false,
            report_speech: element.reports(EventGroup::Speech),
            report_audio: element.reports(EventGroup::Audio),
            end_callback: element.status.clone().filter(|_| element.reports(EventGroup::Mpc)),
            exit_callback: element
                .status
                .clone()
                .filter(|_| element.reports(EventGroup::Participant)),
            role: Some(role),
            coaching,
            record_coach: a.flag("recordCoachVoice", false),
            track: element.track,
            max_duration_ms: Some(
                a.number("maxDuration").unwrap_or(MAX_DURATION_SECS).saturating_mul(1_000),
            ),
        };
        let sounds_events = Events {
            wait: Event::MpcWait,
            hold: Event::MpcHold,
            enter: Event::MpcEnterSound,
            exit: Event::MpcExitSound,
            record: Event::MpcRecordSound,
        };
        let hold = match role {
            Role::Agent | Role::Supervisor | Role::AiAgent => {
                ("agentHoldMusicUrl", "agentHoldMusicMethod")
            }
            Role::Customer => ("customerHoldMusicUrl", "customerHoldMusicMethod"),
        };
        let sounds = Sounds::new(
            a.target("waitMusicUrl", "waitMusicMethod", Method::Get),
            a.target(hold.0, hold.1, Method::Get),
            a.sound("enterSound", "enterSoundMethod", 1),
            a.sound("exitSound", "exitSoundMethod", 2),
            sounds_events,
        )
        .with_recording_sounds(
            a.target("startRecordingAudio", "startRecordingAudioMethod", Method::Get),
            a.target("stopRecordingAudio", "stopRecordingAudioMethod", Method::Get),
        );
        (element, rules, entry, sounds)
    }

    /// Returns the order for the recording of the multi-party call, and whether recording continues
    /// while it has only one participant. `None` if the element does not request a recording.
    pub(super) fn record(
        &self,
        ctx: &mut CallContext,
        membership: &Membership,
    ) -> Option<(Box<RecordingOrder>, bool)> {
        let (mp3, when_alone) = self.record?;
        let callback =
            self.recorded.as_ref().map(|target| self.recording_callback(target, ctx, membership));
        let transcript = record::transcript_if_able(ctx, self.transcript.clone());
        Some((Box::new(room_recording(mp3, callback, transcript)), when_alone))
    }

    /// Returns the order for the separate recording of this participant. `None` if the element does
    /// not request one.
    pub(super) fn track(
        &self,
        ctx: &CallContext,
        membership: &Membership,
    ) -> Option<RecordingOrder> {
        let (mp3, _) = self.record.filter(|_| self.track)?;
        let callback =
            self.recorded.as_ref().map(|target| self.recording_callback(target, ctx, membership));
        Some(RecordingOrder { peer_only: true, ..room_recording(mp3, callback, None) })
    }

    /// Returns the callback that reports a recording to `target`.
    pub(super) fn recording_callback(
        &self,
        target: &Target,
        ctx: &CallContext,
        membership: &Membership,
    ) -> CallbackRequest {
        let mut callback = record::callback(ctx, target);
        callback.params.insert("MPCUUID".into(), Param::Plain(membership.room.to_string().into()));
        callback.params.insert("MPCName".into(), Param::Plain(self.name.clone().into()));
        callback
    }

    fn reports(&self, group: EventGroup) -> bool {
        self.status.is_some() && self.events.contains(&group)
    }

    /// Whether the digits of the participant are reported.
    pub(super) fn reports_digits(&self) -> bool {
        self.reports(EventGroup::Digits)
    }

    /// Returns the callbacks for an event, in order.
    pub(super) fn event_callbacks(
        &self,
        ctx: &CallContext,
        membership: &Membership,
        event: MemberEvent<'_>,
    ) -> Vec<CallbackRequest> {
        let one = |group, name| self.callback(ctx, membership, group, name).into_iter().collect();
        let on = |on: bool, began, ended| if on { began } else { ended };
        match event {
            MemberEvent::Entered { starts } => {
                let initialized = membership
                    .first
                    .then(|| self.callback(ctx, membership, EventGroup::Mpc, "MPCInitialized"))
                    .flatten();
                let started = starts
                    .then(|| self.callback(ctx, membership, EventGroup::Mpc, "MPCStart"))
                    .flatten();
                let joined =
                    self.callback(ctx, membership, EventGroup::Participant, "ParticipantJoin");
                initialized.into_iter().chain(joined).chain(started).collect()
            }
            MemberEvent::Started => one(EventGroup::Mpc, "MPCStart"),
            MemberEvent::Key(digit) => {
                let mut callback =
                    self.callback(ctx, membership, EventGroup::Digits, "ParticipantDigitInput");
                if let Some(callback) = &mut callback {
                    callback
                        .params
                        .insert("Digits".into(), Param::Plain(digit.as_char().to_string().into()));
                }
                callback.into_iter().collect()
            }
            MemberEvent::Speech { on: is } => {
                one(EventGroup::Speech, on(is, "ParticipantSpeakStart", "ParticipantSpeakStop"))
            }
            MemberEvent::Audio { on: is } => {
                one(EventGroup::Audio, on(is, "ParticipantAudioStart", "ParticipantAudioStop"))
            }
            MemberEvent::Muted { on: is } => {
                one(EventGroup::Participant, on(is, "ParticipantMute", "ParticipantUnmute"))
            }
            MemberEvent::Held { on: is } => {
                one(EventGroup::Participant, on(is, "ParticipantHold", "ParticipantUnhold"))
            }
            MemberEvent::Digits(_) | MemberEvent::Floor { .. } => Vec::new(),
        }
    }

    /// Returns the callback for the exit. `None` if the element does not request it.
    pub(super) fn exit_callback(
        &self,
        ctx: &CallContext,
        membership: &Membership,
    ) -> Option<CallbackRequest> {
        self.callback(ctx, membership, EventGroup::Participant, EXIT)
    }

    /// Returns the parameters that report the end of the multi-party call, in case this participant
    /// is the last one. The room stores the URL, which another participant may have set.
    pub(super) fn end_params(&self, ctx: &CallContext, membership: &Membership) -> Params {
        end_params(ctx, &self.info(membership))
    }

    fn info(&self, membership: &Membership) -> ParticipantInfo<'_> {
        let Membership { room, member, .. } = *membership;
        ParticipantInfo { room, name: &self.name, member, role: self.role, coaching: self.coaching }
    }

    /// Returns the callback that reports the progress of a call which is to enter. `None` if the
    /// element does not request it. The call has no member id yet, and the room may not exist.
    pub(super) fn progress_callback(
        &self,
        ctx: &CallContext,
        room: Option<uuid::Uuid>,
        name: &str,
    ) -> Option<CallbackRequest> {
        let mut callback = self.base_callback(ctx, EventGroup::AddParticipant, name)?;
        let room = room.map(|room| room.to_string()).unwrap_or_default();
        callback.params.insert("MPCUUID".into(), Param::Plain(room.into()));
        callback.params.insert("MemberID".into(), Param::Plain("".into()));
        callback.params.extend(role_params(ctx, self.role, self.coaching));
        Some(callback)
    }

    fn callback(
        &self,
        ctx: &CallContext,
        membership: &Membership,
        group: EventGroup,
        name: &str,
    ) -> Option<CallbackRequest> {
        let mut callback = self.base_callback(ctx, group, name)?;
        callback.params.extend(match group {
            EventGroup::Mpc => {
                Params::from([("MPCUUID".into(), Param::Plain(membership.room.to_string().into()))])
            }
            EventGroup::Participant
            | EventGroup::Speech
            | EventGroup::Digits
            | EventGroup::AddParticipant
            | EventGroup::Audio => participant_params(ctx, &self.info(membership)),
        });
        Some(callback)
    }

    fn base_callback(
        &self,
        ctx: &CallContext,
        group: EventGroup,
        name: &str,
    ) -> Option<CallbackRequest> {
        let Target { url, method } =
            self.status.clone().filter(|_| self.events.contains(&group))?;
        Some(CallbackRequest {
            kind: CallbackKind::MultiParty,
            url,
            method,
            params: event_params(ctx, &self.name, name),
        })
    }

    /// Returns the action, or `None` if the element has no action. The member id and the times are
    /// empty if the call did not enter the room.
    pub(super) fn action(
        &self,
        ctx: &CallContext,
        room: Option<uuid::Uuid>,
        membership: Option<&Membership>,
    ) -> Option<(Target, bool, Params)> {
        let plain = |text: String| Param::Plain(text.into());
        let of_member = |value: &dyn Fn(&Membership) -> String| {
            plain(membership.map(value).unwrap_or_default())
        };
        let params = Params::from([
            ("MPCUUID".into(), plain(room.map(|room| room.to_string()).unwrap_or_default())),
            ("MPCFriendlyName".into(), plain(self.name.clone())),
            ("MemberID".into(), of_member(&|membership| membership.member.to_string())),
            ("ParticipantCallUUID".into(), plain(ctx.setup.call.to_string())),
            (
                "ParticipantJoinTime".into(),
                of_member(&|membership| ctx.wall_clock(membership.since).plivo_secs()),
            ),
            ("ParticipantEndTime".into(), of_member(&|_| ctx.wall_clock(ctx.now).plivo_secs())),
            ("ParticipantRole".into(), plain(self.role.as_str().to_owned())),
        ]);
        Some((self.on_exit.clone()?, true, params))
    }
}

/// Returns the parameters that report the exit of a participant that was lost with its process, and
/// those that report the end of the multi-party call.
pub(crate) fn lost_participant_params(
    ctx: &CallContext,
    info: &ParticipantInfo<'_>,
) -> (Params, Params) {
    let mut exit = event_params(ctx, info.name, EXIT);
    exit.extend(participant_params(ctx, info));
    (exit, end_params(ctx, info))
}

/// Returns the parameters of an event of the multi-party call with this name.
fn event_params(ctx: &CallContext, call: &str, event: &str) -> Params {
    let mut params = params::common(ctx, Event::MultiPartyCall);
    let mut put = |name: &'static str, value: String| {
        params.insert(name.into(), Param::Plain(value.into()));
    };
    put("EventName", event.to_owned());
    put("EventTimestamp", ctx.wall_clock(ctx.now).plivo_micros());
    put("MPCName", call.to_owned());
    params
}

/// Returns the parameters that report the end of a multi-party call. The room adds its duration.
fn end_params(ctx: &CallContext, info: &ParticipantInfo<'_>) -> Params {
    let mut end = event_params(ctx, info.name, MPC_END);
    end.insert("MPCUUID".into(), Param::Plain(info.room.to_string().into()));
    end.insert("MPCBilledAmount".into(), Param::Plain("0.00000".into()));
    end
}

/// Returns the parameters about a participant.
fn participant_params(ctx: &CallContext, info: &ParticipantInfo<'_>) -> Params {
    let mut params = role_params(ctx, info.role, info.coaching);
    params.insert("MPCUUID".into(), Param::Plain(info.room.to_string().into()));
    params.insert("MemberID".into(), Param::Plain(info.member.to_string().into()));
    params
}

fn role_params(ctx: &CallContext, role: Role, coaching: bool) -> Params {
    Params::from([
        ("ParticipantRole".into(), Param::Plain(role.as_str().into())),
        ("ParticipantCallUUID".into(), Param::Plain(ctx.setup.call.to_string().into())),
        (
            "ParticipantCoachMode".into(),
            Param::Plain(if coaching { "true" } else { "false" }.into()),
        ),
    ])
}
