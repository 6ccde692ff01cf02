//! `Conference`: its attributes and callbacks (docs/reference/xml.md#conference,
//! docs/reference/callbacks.md#conference).

use super::sounds::{Events, Sounds};
use super::{Element, MemberEvent, Membership, Rules, room_recording, start};
use crate::activity::Env;
use crate::context::CallContext;
use crate::contract::time::millis;
use crate::contract::{
    CallbackKind, CallbackRequest, Param, Params, RecordingOrder, RoomEntry, RoomKind,
};
use crate::element::{At, Flow, Instruction, record};
use crate::params::{self, Event};
use model::Method;
use xml::ast::{Conference, Target, Transcription};

impl Instruction for Conference {
    fn start(&self, env: &mut Env<'_>, _: At) -> Flow {
        let (element, rules, entry, sounds) = ConferenceElement::read(self);
        start(Element::Conference(Box::new(element)), rules, entry, sounds, env.ctx)
    }

    fn needs_media(&self) -> bool {
        true
    }

    fn takes_time(&self) -> bool {
        true
    }
}

/// The attributes of a `Conference` that its callbacks need.
pub(super) struct ConferenceElement {
    name: String,
    callback: Option<Target>,
    action: Option<Target>,
    redirect: bool,
    floor: bool,
    /// Whether the file is MP3, and whether recording continues while the room has only one member.
    /// `None` if the element does not request a recording.
    record: Option<(bool, bool)>,
    transcription: Option<Transcription>,
}

impl ConferenceElement {
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
            start_on_enter: conference.start_on_enter,
            needs_company: false,
            end_on_exit: conference.end_on_exit,
            stay_alone: conference.stay_alone,
            max_members: conference.max_members,
            waits_for_agent: false,
            report_floor: conference.floor_event && conference.callback.is_some(),
            report_speech: false,
            report_audio: false,
            end_callback: None,
            exit_callback: None,
            role: None,
            coaching: false,
            record_coach: false,
            track: false,
            max_duration_ms: None,
        };
        let events = Events {
            wait: Event::ConferenceWait,
            hold: Event::ConferenceWait,
            enter: Event::ConferenceEnterSound,
            exit: Event::ConferenceExitSound,
            // A conference has no recording sounds.
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

    /// Returns the callback for an event. `None` if none is requested.
    pub(super) fn event_callback(
        &self,
        ctx: &CallContext,
        membership: &Membership,
        event: MemberEvent<'_>,
    ) -> Option<CallbackRequest> {
        match event {
            MemberEvent::Entered { .. } => {
                self.callback(ctx, membership, Event::ConferenceEnter, "enter", false, None)
            }
            MemberEvent::Digits(pattern) => self.callback(
                ctx,
                membership,
                Event::ConferenceDigitsMatch,
                "digits",
                false,
                Some(pattern),
            ),
            MemberEvent::Floor { has: true } if self.floor => {
                self.callback(ctx, membership, Event::ConferenceFloor, "floor", false, None)
            }
            MemberEvent::Started
            | MemberEvent::Key(_)
            | MemberEvent::Floor { .. }
            | MemberEvent::Speech { .. }
            | MemberEvent::Audio { .. }
            | MemberEvent::Muted { .. }
            | MemberEvent::Held { .. } => None,
        }
    }

    /// Returns the order for the recording of the room, and whether recording continues while the
    /// room has only one member. `None` if the element does not request a recording.
    pub(super) fn record(
        &self,
        ctx: &mut CallContext,
        membership: &Membership,
    ) -> Option<(Box<RecordingOrder>, bool)> {
        let (mp3, when_alone) = self.record?;
        let callback =
            self.callback(ctx, membership, Event::ConferenceRecord, "record", false, None);
        let transcript = record::transcript(ctx, self.transcription.as_ref());
        Some((Box::new(room_recording(mp3, callback, transcript)), when_alone))
    }

    /// Returns the callback for the exit. `last` is true if no other member remains. `None` if no
    /// callback is requested.
    pub(super) fn exit_callback(
        &self,
        ctx: &CallContext,
        membership: &Membership,
        last: bool,
    ) -> Option<CallbackRequest> {
        self.callback(ctx, membership, Event::ConferenceExit, "exit", last, None)
    }

    fn callback(
        &self,
        ctx: &CallContext,
        membership: &Membership,
        event: Event,
        action: &str,
        last: bool,
        pattern: Option<&str>,
    ) -> Option<CallbackRequest> {
        let target = self.callback.as_ref()?;
        Some(self.callback_to(target, ctx, membership, (event, action), last, pattern))
    }

    /// Returns a callback to `target`. `event` consists of the parameters `Event` and
    /// `ConferenceAction`.
    pub(super) fn callback_to(
        &self,
        target: &Target,
        ctx: &CallContext,
        membership: &Membership,
        (event, action): (Event, &str),
        last: bool,
        pattern: Option<&str>,
    ) -> CallbackRequest {
        let Target { url, method } = target.clone();
        let mut params = params::common(ctx, event);
        let word = |is: bool| if is { "true" } else { "false" }.to_owned();
        let mut put = |name: &'static str, value: String| {
            params.insert(name.into(), Param::Plain(value.into()));
        };
        put("ConferenceAction", action.to_owned());
        put("ConferenceName", self.name.clone());
        put("ConferenceUUID", membership.room.to_string());
        put("ConferenceMemberID", membership.member.to_string());
        put("ConferenceFirstMember", word(membership.first));
        put("ConferenceLastMember", word(last));
        if let Some(pattern) = pattern {
            put("ConferenceDigitsMatch", pattern.to_owned());
        }
        CallbackRequest { kind: CallbackKind::Conference, url, method, params }
    }

    /// Returns the action, or `None` if the element has no action. `ConferenceMemberID` is empty if
    /// the call did not enter the room.
    pub(super) fn action(
        &self,
        room: Option<uuid::Uuid>,
        membership: Option<&Membership>,
        recorded: Option<&(uuid::Uuid, String)>,
    ) -> Option<(Target, bool, Params)> {
        let plain = |text: String| Param::Plain(text.into());
        let mut params = Params::from([
            ("ConferenceName".into(), plain(self.name.clone())),
            ("ConferenceUUID".into(), plain(room.map(|room| room.to_string()).unwrap_or_default())),
            (
                "ConferenceMemberID".into(),
                plain(
                    membership.map(|membership| membership.member.to_string()).unwrap_or_default(),
                ),
            ),
        ]);
        if let Some((id, url)) = recorded {
            params.insert("RecordUrl".into(), plain(url.clone()));
            params.insert("RecordingID".into(), plain(id.to_string()));
        }
        Some((self.action.clone()?, self.redirect, params))
    }
}
