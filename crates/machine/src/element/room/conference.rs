//! `Conference`: its attributes, and what it tells the application (`plivo-xml.md` §5.9, `plivo-callbacks.md` §3.5).

use super::sounds::{Events, Sounds};
use super::{Element, Inside, Rules, Told, start, whole_room};
use crate::activity::Turn;
use crate::contract::time::millis;
use crate::contract::{Notice, NoticeKind, Param, Params, RecordOrder, RoomEntry, RoomKind};
use crate::desk::Desk;
use crate::element::{At, Flow, Instruction, record};
use crate::params::{self, Event};
use model::Method;
use xml::ast::{Conference, Target, Transcription};

impl Instruction for Conference {
    fn start(&self, turn: &mut Turn<'_>, _: At) -> Flow {
        let (element, rules, entry, sounds) = OfConference::read(self);
        start(Element::Conference(Box::new(element)), rules, entry, sounds, turn.desk)
    }

    fn needs_media(&self) -> bool {
        true
    }

    fn takes_time(&self) -> bool {
        true
    }
}

/// What it knows of itself.
pub(super) struct OfConference {
    name: String,
    callback: Option<Target>,
    action: Option<Target>,
    redirect: bool,
    floor: bool,
    /// MP3, and whether one alone is recorded too; none: this one does not ask for it.
    record: Option<(bool, bool)>,
    transcription: Option<Transcription>,
}

impl OfConference {
    pub(super) fn read(conference: &Conference) -> (Self, Rules, RoomEntry, Sounds) {
        let element = Self {
            name: conference.name.clone(),
            callback: conference.callback.clone(),
            action: conference.action.clone(),
            redirect: conference.redirect,
            floor: conference.floor_event,
            record: conference
                .record
                .then_some((conference.record_mp3, conference.record_when_alone)),
            transcription: conference.transcription.clone(),
        };
        let rules = Rules {
            hangup_on_star: conference.hangup_on_star,
            digits_match: conference.digits_match.clone(),
            limit_ms: Some(millis(conference.time_limit)),
            wait_ms: None,
            send_digits: conference.send_digits.clone(),
            relays_keys: conference.relay_dtmf,
        };
        let entry = RoomEntry {
            kind: RoomKind::Conference,
            name: conference.name.clone(),
            muted: conference.muted,
            held: false,
            starts: conference.start_on_enter,
            needs_company: false,
            ends: conference.end_on_exit,
            stays_alone: conference.stay_alone,
            members_max: conference.max_members,
            waits_for_agent: false,
            tells_floor: conference.floor_event && conference.callback.is_some(),
            tells_speech: false,
            tells_audio: false,
            told_end: None,
            told_exit: None,
            role: None,
            coaches: false,
            records_coaches: false,
            track: false,
            lasts_ms: None,
        };
        let events = Events {
            wait: Event::ConferenceWait,
            hold: Event::ConferenceWait,
            enter: Event::ConferenceEnterSound,
            exit: Event::ConferenceExitSound,
            // It has no sounds of that.
            record: Event::ConferenceEnterSound,
        };
        let wait = conference.wait_sound.clone().map(|url| Target { url, method: Method::Post });
        let sounds = Sounds::new(
            wait,
            None,
            conference.enter_sound.clone(),
            conference.exit_sound.clone(),
            events,
        );
        (element, rules, entry, sounds)
    }

    /// The callback about it, if it has one.
    pub(super) fn told(&self, desk: &Desk, inside: &Inside, what: Told<'_>) -> Option<Notice> {
        match what {
            Told::Entered { .. } => {
                self.notice(desk, inside, Event::ConferenceEnter, "enter", false, None)
            }
            Told::Digits(pattern) => self.notice(
                desk,
                inside,
                Event::ConferenceDigitsMatch,
                "digits",
                false,
                Some(pattern),
            ),
            Told::Floor { has: true } if self.floor => {
                self.notice(desk, inside, Event::ConferenceFloor, "floor", false, None)
            }
            Told::Started
            | Told::Key(_)
            | Told::Floor { .. }
            | Told::Speech { .. }
            | Told::Audio { .. }
            | Told::Muted { .. }
            | Told::Held { .. } => None,
        }
    }

    /// How it wants the room recorded.
    pub(super) fn record(
        &self,
        desk: &mut Desk,
        inside: &Inside,
    ) -> Option<(Box<RecordOrder>, bool)> {
        let (mp3, when_alone) = self.record?;
        let callback = self.notice(desk, inside, Event::ConferenceRecord, "record", false, None);
        let transcript = record::transcript(desk, self.transcription.as_ref());
        Some((Box::new(whole_room(mp3, callback, transcript)), when_alone))
    }

    /// It has left; `last`: nobody else is in.
    pub(super) fn left(&self, desk: &Desk, inside: &Inside, last: bool) -> Option<Notice> {
        self.notice(desk, inside, Event::ConferenceExit, "exit", last, None)
    }

    fn notice(
        &self,
        desk: &Desk,
        inside: &Inside,
        event: Event,
        action: &str,
        last: bool,
        pattern: Option<&str>,
    ) -> Option<Notice> {
        let target = self.callback.as_ref()?;
        Some(self.notice_to(target, desk, inside, (event, action), last, pattern))
    }

    /// `event`: its `Event` and `ConferenceAction`.
    pub(super) fn notice_to(
        &self,
        target: &Target,
        desk: &Desk,
        inside: &Inside,
        (event, action): (Event, &str),
        last: bool,
        pattern: Option<&str>,
    ) -> Notice {
        let Target { url, method } = target.clone();
        let mut params = params::common(desk, event);
        let word = |is: bool| if is { "true" } else { "false" }.to_owned();
        let mut put = |name: &'static str, value: String| {
            params.insert(name.into(), Param::Plain(value.into()));
        };
        put("ConferenceAction", action.to_owned());
        put("ConferenceName", self.name.clone());
        put("ConferenceUUID", inside.room.to_string());
        put("ConferenceMemberID", inside.member.to_string());
        put("ConferenceFirstMember", word(inside.first));
        put("ConferenceLastMember", word(last));
        if let Some(pattern) = pattern {
            put("ConferenceDigitsMatch", pattern.to_owned());
        }
        Notice { kind: NoticeKind::Conference, url, method, params }
    }

    /// A member that never was in has no id.
    pub(super) fn action(
        &self,
        room: Option<uuid::Uuid>,
        inside: Option<&Inside>,
        recorded: Option<&(uuid::Uuid, String)>,
    ) -> Option<(Target, bool, Params)> {
        let plain = |text: String| Param::Plain(text.into());
        let mut params = Params::from([
            ("ConferenceName".into(), plain(self.name.clone())),
            ("ConferenceUUID".into(), plain(room.map(|room| room.to_string()).unwrap_or_default())),
            (
                "ConferenceMemberID".into(),
                plain(inside.map(|in_it| in_it.member.to_string()).unwrap_or_default()),
            ),
        ]);
        if let Some((id, url)) = recorded {
            params.insert("RecordUrl".into(), plain(url.clone()));
            params.insert("RecordingID".into(), plain(id.to_string()));
        }
        Some((self.action.clone()?, self.redirect, params))
    }
}
