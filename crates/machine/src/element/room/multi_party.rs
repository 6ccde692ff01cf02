//! `MultiPartyCall`: its attributes and callbacks (docs/reference/xml.md#multipartycall,
//! docs/reference/callbacks.md#multi-party-call).

use super::ai_agent::AgentStream;
use super::attributes::Attributes;
use super::sounds::{Events, Sounds};
use super::{Element, Membership, Rules, Told, start, whole_room};
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

/// Defaults of `maxDuration` and `maxParticipants`.
const LASTS_SECS: u64 = 14_400;
const PARTICIPANTS_MAX: u8 = 10;

impl Instruction for MultiPartyCall {
    fn start(&self, env: &mut Env<'_>, _: At) -> Flow {
        let ctx = &mut *env.ctx;
        let (element, rules, mut entry, sounds) = MultiPartyElement::read(self);
        entry.needs_company =
            ctx.setup.outbound.as_ref().is_some_and(|placed| placed.needs_company);
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
    pub(super) coaches: bool,
    status: Option<Target>,
    events: Vec<EventGroup>,
    on_exit: Option<Target>,
    /// This participant is recorded separately as well.
    track: bool,
    /// Whether the file is MP3, and whether the call is recorded while only one participant is in
    /// it. `None` if the element does not request a recording.
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

/// The groups with their names. Without the attribute, the first two are reported.
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
        let coaches = role == Role::Supervisor && a.flag("coachMode", true);
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
            coaches,
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
            report_speech: element.tells(EventGroup::Speech),
            report_audio: element.tells(EventGroup::Audio),
            end_callback: element.status.clone().filter(|_| element.tells(EventGroup::Mpc)),
            exit_callback: element
                .status
                .clone()
                .filter(|_| element.tells(EventGroup::Participant)),
            role: Some(role),
            coaching: coaches,
            record_coach: a.flag("recordCoachVoice", false),
            track: element.track,
            max_duration_ms: Some(
                a.number("maxDuration").unwrap_or(LASTS_SECS).saturating_mul(1_000),
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
        .of_recording(
            a.target("startRecordingAudio", "startRecordingAudioMethod", Method::Get),
            a.target("stopRecordingAudio", "stopRecordingAudioMethod", Method::Get),
        );
        (element, rules, entry, sounds)
    }

    /// Returns the order for the recording of the multi-party call.
    pub(super) fn record(
        &self,
        ctx: &mut CallContext,
        inside: &Membership,
    ) -> Option<(Box<RecordingOrder>, bool)> {
        let (mp3, when_alone) = self.record?;
        let callback = self.recorded.as_ref().map(|target| self.recorded_to(target, ctx, inside));
        let transcript = record::transcript_if_able(ctx, self.transcript.clone());
        Some((Box::new(whole_room(mp3, callback, transcript)), when_alone))
    }

    /// Returns the order for the recording of this participant.
    pub(super) fn track(&self, ctx: &CallContext, inside: &Membership) -> Option<RecordingOrder> {
        let (mp3, _) = self.record.filter(|_| self.track)?;
        let callback = self.recorded.as_ref().map(|target| self.recorded_to(target, ctx, inside));
        Some(RecordingOrder { peer_only: true, ..whole_room(mp3, callback, None) })
    }

    /// Returns the callback that reports a recording to `target`.
    pub(super) fn recorded_to(
        &self,
        target: &Target,
        ctx: &CallContext,
        inside: &Membership,
    ) -> CallbackRequest {
        let mut notice = record::callback(ctx, target);
        notice.params.insert("MPCUUID".into(), Param::Plain(inside.room.to_string().into()));
        notice.params.insert("MPCName".into(), Param::Plain(self.name.clone().into()));
        notice
    }

    fn tells(&self, group: EventGroup) -> bool {
        self.status.is_some() && self.events.contains(&group)
    }

    /// Whether the digits of the participant are reported.
    pub(super) fn reports_digits(&self) -> bool {
        self.tells(EventGroup::Digits)
    }

    /// Returns the callbacks for an event, in order.
    pub(super) fn told(
        &self,
        ctx: &CallContext,
        inside: &Membership,
        what: Told<'_>,
    ) -> Vec<CallbackRequest> {
        let one = |group, name| self.notice(ctx, inside, group, name).into_iter().collect();
        let on = |on: bool, began, ended| if on { began } else { ended };
        match what {
            Told::Entered { starts } => {
                let made = inside
                    .first
                    .then(|| self.notice(ctx, inside, EventGroup::Mpc, "MPCInitialized"))
                    .flatten();
                let started =
                    starts.then(|| self.notice(ctx, inside, EventGroup::Mpc, "MPCStart")).flatten();
                let joined = self.notice(ctx, inside, EventGroup::Participant, "ParticipantJoin");
                made.into_iter().chain(joined).chain(started).collect()
            }
            Told::Started => one(EventGroup::Mpc, "MPCStart"),
            Told::Key(digit) => {
                let mut notice =
                    self.notice(ctx, inside, EventGroup::Digits, "ParticipantDigitInput");
                if let Some(notice) = &mut notice {
                    notice
                        .params
                        .insert("Digits".into(), Param::Plain(digit.as_char().to_string().into()));
                }
                notice.into_iter().collect()
            }
            Told::Speech { on: is } => {
                one(EventGroup::Speech, on(is, "ParticipantSpeakStart", "ParticipantSpeakStop"))
            }
            Told::Audio { on: is } => {
                one(EventGroup::Audio, on(is, "ParticipantAudioStart", "ParticipantAudioStop"))
            }
            Told::Muted { on: is } => {
                one(EventGroup::Participant, on(is, "ParticipantMute", "ParticipantUnmute"))
            }
            Told::Held { on: is } => {
                one(EventGroup::Participant, on(is, "ParticipantHold", "ParticipantUnhold"))
            }
            Told::Digits(_) | Told::Floor { .. } => Vec::new(),
        }
    }

    /// Returns the callback for the exit.
    pub(super) fn left(&self, ctx: &CallContext, inside: &Membership) -> Option<CallbackRequest> {
        self.notice(ctx, inside, EventGroup::Participant, EXIT)
    }

    /// Returns the parameters of the end of the multi-party call, for the case that this
    /// participant is the last one. The room knows the URL, which another participant may have set.
    pub(super) fn over(&self, ctx: &CallContext, inside: &Membership) -> Params {
        over(ctx, &self.seat(inside))
    }

    fn seat(&self, inside: &Membership) -> ParticipantInfo<'_> {
        let Membership { room, member, .. } = *inside;
        ParticipantInfo { room, name: &self.name, member, role: self.role, coaching: self.coaches }
    }

    /// Returns the callback for the progress of a call that will enter. It has no member id yet,
    /// and the room may not exist.
    pub(super) fn added(
        &self,
        ctx: &CallContext,
        room: Option<uuid::Uuid>,
        name: &str,
    ) -> Option<CallbackRequest> {
        let mut notice = self.event(ctx, EventGroup::AddParticipant, name)?;
        let room = room.map(|room| room.to_string()).unwrap_or_default();
        notice.params.insert("MPCUUID".into(), Param::Plain(room.into()));
        notice.params.insert("MemberID".into(), Param::Plain("".into()));
        notice.params.extend(participant(ctx, self.role, self.coaches));
        Some(notice)
    }

    fn notice(
        &self,
        ctx: &CallContext,
        inside: &Membership,
        group: EventGroup,
        name: &str,
    ) -> Option<CallbackRequest> {
        let mut notice = self.event(ctx, group, name)?;
        notice.params.extend(match group {
            EventGroup::Mpc => {
                Params::from([("MPCUUID".into(), Param::Plain(inside.room.to_string().into()))])
            }
            _ => seated(ctx, &self.seat(inside)),
        });
        Some(notice)
    }

    fn event(&self, ctx: &CallContext, group: EventGroup, name: &str) -> Option<CallbackRequest> {
        let Target { url, method } =
            self.status.clone().filter(|_| self.events.contains(&group))?;
        Some(CallbackRequest {
            kind: CallbackKind::MultiParty,
            url,
            method,
            params: happened(ctx, &self.name, name),
        })
    }

    /// Returns the action. The member id and the times are empty if the call did not enter the
    /// room.
    pub(super) fn action(
        &self,
        ctx: &CallContext,
        room: Option<uuid::Uuid>,
        inside: Option<&Membership>,
    ) -> Option<(Target, bool, Params)> {
        let plain = |text: String| Param::Plain(text.into());
        let of = |what: &dyn Fn(&Membership) -> String| plain(inside.map(what).unwrap_or_default());
        let params = Params::from([
            ("MPCUUID".into(), plain(room.map(|room| room.to_string()).unwrap_or_default())),
            ("MPCFriendlyName".into(), plain(self.name.clone())),
            ("MemberID".into(), of(&|inside| inside.member.to_string())),
            ("ParticipantCallUUID".into(), plain(ctx.setup.call.to_string())),
            ("ParticipantJoinTime".into(), of(&|inside| ctx.wall(inside.since).plivo_secs())),
            ("ParticipantEndTime".into(), of(&|_| ctx.wall(ctx.now).plivo_secs())),
            ("ParticipantRole".into(), plain(self.role.as_str().to_owned())),
        ]);
        Some((self.on_exit.clone()?, true, params))
    }
}

/// Returns the parameters of the exit, and those of the end of the multi-party call, for a
/// participant that was lost with its process.
pub(crate) fn cut_off(ctx: &CallContext, seat: &ParticipantInfo<'_>) -> (Params, Params) {
    let mut exit = happened(ctx, seat.name, EXIT);
    exit.extend(seated(ctx, seat));
    (exit, over(ctx, seat))
}

/// Returns the parameters of an event of the multi-party call with this name.
fn happened(ctx: &CallContext, call: &str, event: &str) -> Params {
    let mut params = params::common(ctx, Event::MultiPartyCall);
    let mut put = |name: &'static str, value: String| {
        params.insert(name.into(), Param::Plain(value.into()));
    };
    put("EventName", event.to_owned());
    put("EventTimestamp", ctx.wall(ctx.now).plivo_micros());
    put("MPCName", call.to_owned());
    params
}

/// Returns the parameters of the end. The room adds its duration.
fn over(ctx: &CallContext, seat: &ParticipantInfo<'_>) -> Params {
    let mut end = happened(ctx, seat.name, MPC_END);
    end.insert("MPCUUID".into(), Param::Plain(seat.room.to_string().into()));
    end.insert("MPCBilledAmount".into(), Param::Plain("0.00000".into()));
    end
}

/// Returns the parameters about a participant.
fn seated(ctx: &CallContext, seat: &ParticipantInfo<'_>) -> Params {
    let mut params = participant(ctx, seat.role, seat.coaching);
    params.insert("MPCUUID".into(), Param::Plain(seat.room.to_string().into()));
    params.insert("MemberID".into(), Param::Plain(seat.member.to_string().into()));
    params
}

fn participant(ctx: &CallContext, role: Role, coaches: bool) -> Params {
    Params::from([
        ("ParticipantRole".into(), Param::Plain(role.as_str().into())),
        ("ParticipantCallUUID".into(), Param::Plain(ctx.setup.call.to_string().into())),
        (
            "ParticipantCoachMode".into(),
            Param::Plain(if coaches { "true" } else { "false" }.into()),
        ),
    ])
}
