//! `MultiPartyCall`: its attributes, and what it tells the application (`plivo-xml.md` §5.10, `plivo-callbacks.md` §3.6).

use super::ai_agent::AiAgent;
use super::attributes::Attributes;
use super::sounds::{Events, Sounds};
use super::{Element, Inside, Rules, Told, start, whole_room};
use crate::activity::Turn;
use crate::contract::{
    MPC_END, Notice, NoticeKind, Param, Params, RecordOrder, Role, RoomEntry, RoomKind, Seat,
    TranscriptOrder,
};
use crate::desk::Desk;
use crate::element::{At, Flow, Instruction, record};
use crate::params::{self, Event};
use model::Method;
use xml::ast::{MultiPartyCall, Target};

/// What says that a participant is out.
const EXIT: &str = "ParticipantExit";

/// Where nothing else is said (§5.10).
const LASTS_SECS: u64 = 14_400;
const PARTICIPANTS_MAX: u8 = 10;

impl Instruction for MultiPartyCall {
    fn start(&self, turn: &mut Turn<'_>, _: At) -> Flow {
        let desk = &mut *turn.desk;
        let (element, rules, mut entry, sounds) = OfMultiParty::read(self);
        entry.needs_company =
            desk.setup.outbound.as_ref().is_some_and(|placed| placed.needs_company);
        start(Element::MultiParty(Box::new(element)), rules, entry, sounds, desk)
    }

    fn needs_media(&self) -> bool {
        true
    }

    fn takes_time(&self) -> bool {
        true
    }
}

/// What it knows of itself.
pub(super) struct OfMultiParty {
    name: String,
    role: Role,
    pub(super) coaches: bool,
    status: Option<Target>,
    events: Vec<Group>,
    on_exit: Option<Target>,
    /// What this one says is recorded by itself, too.
    track: bool,
    /// MP3, and whether one alone is recorded too; none: this one does not ask for it.
    record: Option<(bool, bool)>,
    recorded: Option<Target>,
    pub(super) agent: AiAgent,
    transcript: Option<TranscriptOrder>,
}

/// What `statusCallbackEvents` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    Mpc,
    Participant,
    Speech,
    Digits,
    AddParticipant,
    Audio,
}

/// In the order of the names; the first two where the attribute is not there.
const GROUPS: [(&str, Group); 6] = [
    ("mpc-state-changes", Group::Mpc),
    ("participant-state-changes", Group::Participant),
    ("participant-speak-events", Group::Speech),
    ("participant-digit-input-events", Group::Digits),
    ("add-participant-api-events", Group::AddParticipant),
    ("participant-audio-events", Group::Audio),
];

impl OfMultiParty {
    pub(super) fn read(call: &MultiPartyCall) -> (Self, Rules, RoomEntry, Sounds) {
        let a = Attributes::of(call);
        let role = Role::parse(&call.role).unwrap_or(Role::Customer);
        let coaches = role == Role::Supervisor && a.flag("coachMode", true);
        let events = match a.text("statusCallbackEvents") {
            None => vec![Group::Mpc, Group::Participant],
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
            agent: AiAgent::read(&a, role),
            recorded: a.target("recordingCallbackUrl", "recordingCallbackMethod", Method::Post),
            // `transcript="false"` beside it is somebody who does not want it.
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
            starts: a.flag("startMpcOnEnter", true),
            needs_company: false,
            ends: a.flag("endMpcOnExit", false),
            stays_alone: a.flag("stayAlone", false),
            members_max: a
                .number("maxParticipants")
                .and_then(|n| u8::try_from(n).ok())
                .unwrap_or(PARTICIPANTS_MAX),
            waits_for_agent: role == Role::Customer && a.flag("waitForAgent", false),
            tells_floor: false,
            tells_speech: element.tells(Group::Speech),
            tells_audio: element.tells(Group::Audio),
            told_end: element.status.clone().filter(|_| element.tells(Group::Mpc)),
            told_exit: element.status.clone().filter(|_| element.tells(Group::Participant)),
            role: Some(role),
            coaches,
            records_coaches: a.flag("recordCoachVoice", false),
            track: element.track,
            lasts_ms: Some(a.number("maxDuration").unwrap_or(LASTS_SECS).saturating_mul(1_000)),
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

    /// How it wants the call recorded.
    pub(super) fn record(
        &self,
        desk: &mut Desk,
        inside: &Inside,
    ) -> Option<(Box<RecordOrder>, bool)> {
        let (mp3, when_alone) = self.record?;
        let callback = self.recorded.as_ref().map(|target| self.recorded_to(target, desk, inside));
        let transcript = record::transcript_if_able(desk, self.transcript.clone());
        Some((Box::new(whole_room(mp3, callback, transcript)), when_alone))
    }

    /// How it wants what this one says recorded.
    pub(super) fn track(&self, desk: &Desk, inside: &Inside) -> Option<RecordOrder> {
        let (mp3, _) = self.record.filter(|_| self.track)?;
        let callback = self.recorded.as_ref().map(|target| self.recorded_to(target, desk, inside));
        Some(RecordOrder { own: true, ..whole_room(mp3, callback, None) })
    }

    /// What says there that the recording is done.
    pub(super) fn recorded_to(&self, target: &Target, desk: &Desk, inside: &Inside) -> Notice {
        let mut notice = record::callback(desk, target);
        notice.params.insert("MPCUUID".into(), Param::Plain(inside.room.to_string().into()));
        notice.params.insert("MPCName".into(), Param::Plain(self.name.clone().into()));
        notice
    }

    fn tells(&self, group: Group) -> bool {
        self.status.is_some() && self.events.contains(&group)
    }

    /// Whether its keys are somebody's business.
    pub(super) fn tells_keys(&self) -> bool {
        self.tells(Group::Digits)
    }

    /// The callbacks about it, in order.
    pub(super) fn told(&self, desk: &Desk, inside: &Inside, what: Told<'_>) -> Vec<Notice> {
        let one = |group, name| self.notice(desk, inside, group, name).into_iter().collect();
        let on = |on: bool, began, ended| if on { began } else { ended };
        match what {
            Told::Entered { starts } => {
                let made = inside
                    .first
                    .then(|| self.notice(desk, inside, Group::Mpc, "MPCInitialized"))
                    .flatten();
                let started =
                    starts.then(|| self.notice(desk, inside, Group::Mpc, "MPCStart")).flatten();
                let joined = self.notice(desk, inside, Group::Participant, "ParticipantJoin");
                made.into_iter().chain(joined).chain(started).collect()
            }
            Told::Started => one(Group::Mpc, "MPCStart"),
            Told::Key(digit) => {
                let mut notice = self.notice(desk, inside, Group::Digits, "ParticipantDigitInput");
                if let Some(notice) = &mut notice {
                    notice
                        .params
                        .insert("Digits".into(), Param::Plain(digit.as_char().to_string().into()));
                }
                notice.into_iter().collect()
            }
            Told::Speech { on: is } => {
                one(Group::Speech, on(is, "ParticipantSpeakStart", "ParticipantSpeakStop"))
            }
            Told::Audio { on: is } => {
                one(Group::Audio, on(is, "ParticipantAudioStart", "ParticipantAudioStop"))
            }
            Told::Muted { on: is } => {
                one(Group::Participant, on(is, "ParticipantMute", "ParticipantUnmute"))
            }
            Told::Held { on: is } => {
                one(Group::Participant, on(is, "ParticipantHold", "ParticipantUnhold"))
            }
            Told::Digits(_) | Told::Floor { .. } => Vec::new(),
        }
    }

    /// It has left.
    pub(super) fn left(&self, desk: &Desk, inside: &Inside) -> Option<Notice> {
        self.notice(desk, inside, Group::Participant, EXIT)
    }

    /// Should nobody else be in, the call is over. Who asked to be told of that need not be the one who leaves last, so the
    /// address is not this one's to say.
    pub(super) fn over(&self, desk: &Desk, inside: &Inside) -> Params {
        over(desk, &self.seat(inside))
    }

    fn seat(&self, inside: &Inside) -> Seat<'_> {
        let Inside { room, member, .. } = *inside;
        Seat { room, name: &self.name, member, role: self.role, coaches: self.coaches }
    }

    /// A call that is to enter one has come so far; there may be no room yet, and this one is no member.
    pub(super) fn added(
        &self,
        desk: &Desk,
        room: Option<uuid::Uuid>,
        name: &str,
    ) -> Option<Notice> {
        let mut notice = self.event(desk, Group::AddParticipant, name)?;
        let room = room.map(|room| room.to_string()).unwrap_or_default();
        notice.params.insert("MPCUUID".into(), Param::Plain(room.into()));
        notice.params.insert("MemberID".into(), Param::Plain("".into()));
        notice.params.extend(participant(desk, self.role, self.coaches));
        Some(notice)
    }

    fn notice(&self, desk: &Desk, inside: &Inside, group: Group, name: &str) -> Option<Notice> {
        let mut notice = self.event(desk, group, name)?;
        notice.params.extend(match group {
            Group::Mpc => {
                Params::from([("MPCUUID".into(), Param::Plain(inside.room.to_string().into()))])
            }
            _ => seated(desk, &self.seat(inside)),
        });
        Some(notice)
    }

    fn event(&self, desk: &Desk, group: Group, name: &str) -> Option<Notice> {
        let Target { url, method } =
            self.status.clone().filter(|_| self.events.contains(&group))?;
        Some(Notice {
            kind: NoticeKind::MultiParty,
            url,
            method,
            params: happened(desk, &self.name, name),
        })
    }

    /// A participant that never was in has no id and no times.
    pub(super) fn action(
        &self,
        desk: &Desk,
        room: Option<uuid::Uuid>,
        inside: Option<&Inside>,
    ) -> Option<(Target, bool, Params)> {
        let plain = |text: String| Param::Plain(text.into());
        let of = |what: &dyn Fn(&Inside) -> String| plain(inside.map(what).unwrap_or_default());
        let params = Params::from([
            ("MPCUUID".into(), plain(room.map(|room| room.to_string()).unwrap_or_default())),
            ("MPCFriendlyName".into(), plain(self.name.clone())),
            ("MemberID".into(), of(&|inside| inside.member.to_string())),
            ("ParticipantCallUUID".into(), plain(desk.setup.call.to_string())),
            ("ParticipantJoinTime".into(), of(&|inside| desk.wall(inside.since).plivo_secs())),
            ("ParticipantEndTime".into(), of(&|_| desk.wall(desk.now).plivo_secs())),
            ("ParticipantRole".into(), plain(self.role.as_str().to_owned())),
        ]);
        Some((self.on_exit.clone()?, true, params))
    }
}

/// What is told of a participant whose process died: that it is out, and that the call is over.
pub(crate) fn cut_off(desk: &Desk, seat: &Seat<'_>) -> (Params, Params) {
    let mut exit = happened(desk, seat.name, EXIT);
    exit.extend(seated(desk, seat));
    (exit, over(desk, seat))
}

/// Something has happened in the call of this name.
fn happened(desk: &Desk, call: &str, event: &str) -> Params {
    let mut params = params::common(desk, Event::MultiPartyCall);
    let mut put = |name: &'static str, value: String| {
        params.insert(name.into(), Param::Plain(value.into()));
    };
    put("EventName", event.to_owned());
    put("EventTimestamp", desk.wall(desk.now).plivo_micros());
    put("MPCName", call.to_owned());
    params
}

/// It is over; how long it was there, the room adds.
fn over(desk: &Desk, seat: &Seat<'_>) -> Params {
    let mut end = happened(desk, seat.name, MPC_END);
    end.insert("MPCUUID".into(), Param::Plain(seat.room.to_string().into()));
    end.insert("MPCBilledAmount".into(), Param::Plain("0.00000".into()));
    end
}

/// Whom it is about.
fn seated(desk: &Desk, seat: &Seat<'_>) -> Params {
    let mut params = participant(desk, seat.role, seat.coaches);
    params.insert("MPCUUID".into(), Param::Plain(seat.room.to_string().into()));
    params.insert("MemberID".into(), Param::Plain(seat.member.to_string().into()));
    params
}

fn participant(desk: &Desk, role: Role, coaches: bool) -> Params {
    Params::from([
        ("ParticipantRole".into(), Param::Plain(role.as_str().into())),
        ("ParticipantCallUUID".into(), Param::Plain(desk.setup.call.to_string().into())),
        (
            "ParticipantCoachMode".into(),
            Param::Plain(if coaches { "true" } else { "false" }.into()),
        ),
    ])
}
