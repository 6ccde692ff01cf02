//! Properties of outbound calls: whatever the order of inputs, a call ends once and outputs nothing
//! afterwards.

use proptest::prelude::*;

use super::{document, fetched, setup};
use crate::contract::{
    CallSetup, CallState, CallTime, Command, Confirmation, FetchFailure, FetchId, FetchKind,
    GraphAction, GraphOutcome, Input, MediaCommand, MediaEvent, MediaFault, Outbound, Output,
    Param, PhoneStatus, PlayId, RoomCommand, RoomMusic, Termination,
};
use crate::{Machine, add_participant_failed};
use model::{Digit, Direction, HangupCause, Leg, Method};

fn placed() -> CallSetup {
    let outbound = Outbound {
        ring_timeout_ms: 20_000,
        hangup_on_ring_ms: Some(15_000),
        send_digits: Some("1w2".to_owned()),
        ..Outbound::default()
    };
    CallSetup {
        direction: Direction::Outbound,
        wacid: None,
        outbound: Some(Box::new(outbound)),
        ..setup()
    }
}

/// Returns a call that enters a multi-party call after a confirmation and plays a ring-back there.
fn placed_for_a_room(music: bool, key: bool) -> CallSetup {
    let setup = placed();
    let url = || xml::ast::DocUrl("https://a.example.com/".into());
    let outbound = Outbound {
        document: Some(document(
            "<Response><MultiPartyCall role='agent'>Care</MultiPartyCall></Response>",
        )),
        confirm: Some(Confirmation {
            sound: music.then(url),
            method: Method::Get,
            key: key.then(|| Digit::try_from('1').expect("a key")),
            timeout_ms: 5_000,
        }),
        room_music: Some(if music {
            RoomMusic::Document { url: url() }
        } else {
            RoomMusic::RingBack
        }),
        ..*setup.outbound.expect("an outbound call")
    };
    CallSetup { outbound: Some(Box::new(outbound)), ..setup }
}

fn inputs() -> impl Strategy<Value = Input> {
    let status = |status| Just(Input::Status { status });
    let graph = |action, outcome| Just(Input::Graph { action, outcome });
    let media = |event| Just(Input::Media { leg: Leg::A, event });
    prop_oneof![
        6 => Just(Input::Bound { wacid: "wacid.a".into() }),
        3 => graph(GraphAction::Connect, GraphOutcome::Done),
        1 => graph(GraphAction::Connect, GraphOutcome::Timeout),
        1 => graph(GraphAction::Connect, GraphOutcome::ServerError { status: 500, code: 0 }),
        1 => graph(GraphAction::Connect, GraphOutcome::Unreachable),
        2 => graph(GraphAction::Terminate, GraphOutcome::Done),
        1 => graph(GraphAction::Terminate, GraphOutcome::Timeout),
        4 => Just(Input::SdpAnswer { usable: true }),
        1 => Just(Input::SdpAnswer { usable: false }),
        4 => status(PhoneStatus::Ringing),
        6 => status(PhoneStatus::Accepted),
        1 => status(PhoneStatus::Rejected),
        4 => media(MediaEvent::Connected),
        1 => media(MediaEvent::Flowing),
        1 => media(MediaEvent::Lost { fault: MediaFault::DtlsClosed }),
        4 => Just(fetched(FetchId(1), document("<Response><Speak>Hello</Speak><Wait length=\"3\"/></Response>"))),
        1 => Just(Input::Fetched { fetch: FetchId(1), result: Err(FetchFailure::Timeout) }),
        3 => Just(Input::Played { leg: Leg::A, play: PlayId(2) }),
        2 => Just(Input::DigitsSent { leg: Leg::A, play: PlayId(1) }),
        1 => Just(Input::Terminated { termination: Termination::default() }),
        1 => Just(Input::Command { command: Command::Hangup }),
        2 => (0..7u8).prop_map(|number| Input::Command { command: super::api_command(number) }),
        1 => Just(Input::HangUp { cause: HangupCause::Drained }),
        2 => Just(super::digit('1')),
        6 => Just(Input::Timer),
    ]
}

#[derive(Default)]
struct Observer {
    connects: u32,
    concluded: u32,
    freed: u32,
    rang: u32,
    begun: bool,
    open: bool,
    over: bool,
    /// A room plays the ring-back.
    room_rings: bool,
    /// The ring-back comes from a document.
    has_music: bool,
}

impl Observer {
    fn observe(&mut self, output: &Output, answered: bool) {
        assert!(!self.over, "after Over: {output}");
        match output {
            Output::Graph { action: GraphAction::Connect } => self.connects += 1,
            Output::Graph { action } => {
                assert_eq!(
                    *action,
                    GraphAction::Terminate,
                    "the only other request of an outbound call"
                )
            }
            Output::Fetch { kind: FetchKind::Sound, .. } if self.has_music => {}
            Output::Fetch { .. } => assert!(answered, "a document was fetched before the answer"),
            Output::Room { command: RoomCommand::Ring { .. } } => {
                assert!(!std::mem::replace(&mut self.room_rings, true), "the room rings twice");
            }
            Output::Room { command: RoomCommand::StopRing } => {
                assert!(std::mem::take(&mut self.room_rings), "the room did not ring")
            }
            Output::Room { command: RoomCommand::Enter { .. } } => {
                assert!(answered && !self.room_rings, "entered the room before the answer")
            }
            Output::Media { command: MediaCommand::Begin, .. } => self.begun = true,
            Output::Media { command: MediaCommand::Open, .. } => self.open = true,
            Output::Media {
                command:
                    MediaCommand::Play { .. }
                    | MediaCommand::SendDigits { .. }
                    | MediaCommand::Overlay { .. },
                ..
            } => {
                assert!(answered && self.open, "sound before the answer");
            }
            Output::Callback { .. } => self.rang += 1,
            Output::FreeSlot => self.freed += 1,
            Output::Concluded { summary } => {
                self.concluded += 1;
                assert!(!self.room_rings, "the room rings after the end of the call");
                assert_eq!(summary.answered.is_some(), answered);
            }
            Output::Over => self.over = true,
            _ => {}
        }
        assert!(self.connects == 1 && self.concluded <= 1 && self.freed <= 1);
        assert!(self.freed == 0 || self.concluded == 1, "the slot of a live call was released");
    }
}

proptest! {
    #[test]
    fn an_outbound_call_ends_once_in_any_order_of_inputs(
        room in proptest::option::of((any::<bool>(), any::<bool>())),
        inputs in proptest::collection::vec((inputs(), 0u64..6_000), 0..40),
    ) {
        let has_music = room.is_some_and(|(music, _)| music);
        let (mut machine, mut observer, mut at) = (Machine::new(), Observer { has_music, ..Observer::default() }, 0);
        let setup = room.map_or_else(placed, |(music, key)| placed_for_a_room(music, key));
        let mut give = |machine: &mut Machine, at: u64, input: Input| {
            machine.handle(CallTime(at), input);
            while let Some(output) = machine.poll() {
                observer.observe(&output, machine.answered().is_some());
            }
            // Timers that were due before the answer fire in the same step.
            assert!(!observer.room_rings || machine.answered().is_none(), "the room rings after the answer");
        };
        give(&mut machine, 0, Input::Placed { setup: Box::new(setup) });
        for (input, pause) in inputs {
            at += pause;
            give(&mut machine, at, input);
        }
        // Without further inputs, the timers end the call.
        while let Some((due, _)) = machine.poll_timeout() {
            at = at.max(due.0);
            prop_assert!(at < 24 * 3_600_000, "the call does not end");
            give(&mut machine, at, Input::Timer);
        }
        prop_assert_eq!(machine.state(), Some(CallState::Over));
        prop_assert!(observer.over && observer.concluded == 1);
    }
}

/// A call that was to enter a multi-party call and could not be placed
/// (docs/reference/callbacks.md#multi-party-call).
#[test]
fn reports_a_participant_that_cannot_be_added() {
    let with = |events: &str| {
        let document = document(&format!(
            "<Response><MultiPartyCall role='agent' statusCallbackUrl='https://a.example.com/status' \
             statusCallbackEvents='{events}'>Care</MultiPartyCall></Response>"
        ));
        let outbound = Outbound { document: Some(document), ..Outbound::default() };
        add_participant_failed(
            &CallSetup { outbound: Some(Box::new(outbound)), ..placed() },
            HangupCause::CpsExceeded,
        )
    };
    let callback = with("add-participant-api-events").expect("a callback");
    let param = |name: &str| match callback.params.get(name) {
        Some(Param::Plain(text)) => text.to_string(),
        other => panic!("{name}: {other:?}"),
    };
    assert_eq!(&*callback.url.0, "https://a.example.com/status");
    assert_eq!(
        (param("EventName"), param("MPCName")),
        ("AddParticipantFailed".to_owned(), "Care".to_owned())
    );
    assert_eq!(
        (param("MPCUUID"), param("MemberID")),
        (String::new(), String::new()),
        "the room does not exist yet"
    );
    assert_eq!(
        param("CallStatus"),
        HangupCause::CpsExceeded.wire(Direction::Outbound).unanswered_status()
    );
    assert_eq!(param("ParticipantCallUUID"), setup().call.to_string());
    assert!(
        with("mpc-state-changes").is_none()
            && add_participant_failed(&placed(), HangupCause::CpsExceeded).is_none()
    );
}
