//! Properties of inbound calls: whatever the order of inputs, a call ends once and outputs nothing
//! afterwards.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::{Bench, digit, document, fetched, setup};
use crate::Machine;
use crate::contract::{
    BLegCommand, BLegEvent, CallSetup, CallState, CallTime, Command, DialError, FetchFailure,
    FetchId, FetchKind, FetchResponse, FirstFault, GraphAction, GraphOutcome, Input, LeaveReason,
    MachineLimits, MediaCommand, MediaEvent, MediaFault, Output, PlayId, RecognitionId,
    RecordingEndReason, RecordingEvent, RecordingId, Refusal, RoomCommand, RoomEvent,
    SpeechCommand, SpeechEvent, StreamCommand, StreamEvent, Termination, TrackCommand, VoiceEvent,
};
use crate::log;
use crate::replay::replay;
use model::{CallUuid, Digit, HangupCause, Leg, StreamId};
use xml::Document;

/// The text that speech recognition returns.
const SPOKEN: &str = "book a table";

const DOCUMENTS: [&str; 16] = [
    "<Response><Speak>Hello</Speak></Response>",
    "<Response/>",
    "<Response><Wait length='3' silence='true' minSilence='1000'/><Speak loop='0'>Hello</Speak></Response>",
    "<Response><GetInput action='https://a.example.com/x' numDigits='2' retries='3'><Speak>Keys</Speak></GetInput></Response>",
    "<Response><GetDigits action='https://a.example.com/x' validDigits='12' retries='2' log='false' playBeep='true' \
     invalidDigitsSound='https://a.example.com/no.wav'><Play>https://a.example.com/p.wav</Play></GetDigits>\
     <GetInput action='https://a.example.com/y' redirect='false'/><Wait/></Response>",
    "<Response><Redirect>https://a.example.com/next</Redirect></Response>",
    "<Response><PreAnswer><Wait length='2'/><GetDigits/></PreAnswer><Hangup schedule='4'/><Play loop='0'>https://a.example.com/p.wav</Play></Response>",
    "<Response><DTMF>12</DTMF><DTMF async='false'>3</DTMF><Hangup/></Response>",
    "<Response><Hangup reason='busy'/></Response>",
    "<Response><Speak>Hello</Speak><Record action='https://a.example.com/x' callbackUrl='https://a.example.com/r' \
     timeout='2' maxLength='5'/></Response>",
    "<Response><Record recordSession='true' action='https://a.example.com/x' redirect='false'/>\
     <Record startOnDialAnswer='true' action='https://a.example.com/x'/><Record playBeep='false' finishOnKey='12'/>\
     <GetDigits action='https://a.example.com/y' log='false'/></Response>",
    "<Response><Dial callType='whatsapp' callerId='918035737458' dialMusic='https://a.example.com/music' hangupOnStar='true' \
     timeout='5' timeLimit='7' digitsMatch='1,2#' digitsMatchBLeg='9' action='https://a.example.com/x' \
     callbackUrl='https://a.example.com/events'><User>919412341234</User><User>919412341235</User></Dial>\
     <GetDigits action='https://a.example.com/y' validDigits='19' log='false'/></Response>",
    "<Response><GetInput action='https://a.example.com/x' inputType='dtmf speech' retries='3' startInputTimeout='4' \
     interimSpeechResultsCallback='https://a.example.com/so-far'><Speak>Say it</Speak><Wait length='3' silence='true' minSilence='500'/><Wait/></GetInput>\
     <GetInput action='https://a.example.com/y' inputType='speech' redirect='false' log='false'/></Response>",
    "<Response><Conference digitsMatch='1,2#' hangupOnStar='true' waitSound='https://a.example.com/music' enterSound='beep:1' \
     exitSound='https://a.example.com/out' callbackUrl='https://a.example.com/events' timeLimit='5' \
     action='https://a.example.com/x'>room</Conference></Response>",
    "<Response><MultiPartyCall role='customer' waitTime='3' waitMusicUrl='https://a.example.com/music' \
     customerHoldMusicUrl='https://a.example.com/hold' statusCallbackUrl='https://a.example.com/events'>room</MultiPartyCall>\
     <Speak>Hello</Speak></Response>",
    "<Response><Stream statusCallbackUrl='https://a.example.com/s'>wss://a.example.com/one</Stream><Stream keepCallAlive='true' \
     bidirectional='true' streamTimeout='3' statusCallbackUrl='https://a.example.com/s'>wss://a.example.com/two</Stream></Response>",
];

/// An input as the generator chooses it. Its ids are relative to those of the latest outputs.
#[derive(Clone, Debug)]
enum Pick {
    Graph(u8, u8),
    Fetched(u8, u8),
    FetchFailed(u8),
    Refused(u8),
    Media(u8),
    Played(u8),
    PlayFailed,
    Digit(char),
    DigitsSent(u8),
    Voice(Option<u8>),
    Speech(u8, u8),
    Recorded(u8, bool),
    Terminated,
    Hangup,
    Command(u8),
    Cut,
    Timer,
    Offered,
    /// An event of one of the latest B-legs.
    Leg(u8, u8),
    /// An event of the room.
    Room(u8),
    /// An event of the latest stream.
    Stream(u8),
}

fn pick() -> impl Strategy<Value = Pick> {
    prop_oneof![
        6 => (0..4u8, 0..7u8).prop_map(|(action, outcome)| Pick::Graph(action, outcome)),
        6 => (0..16u8, 0..4u8).prop_map(|(doc, back)| Pick::Fetched(doc, back)),
        12 => (0..4u8, 0..9u8).prop_map(|(leg, event)| Pick::Leg(leg, event)),
        8 => (0..17u8).prop_map(Pick::Room),
        2 => (0..6u8).prop_map(Pick::FetchFailed),
        1 => (0..5u8).prop_map(Pick::Refused),
        4 => (0..7u8).prop_map(Pick::Media),
        8 => (0..3u8).prop_map(Pick::Played),
        2 => Just(Pick::PlayFailed),
        10 => prop::sample::select(vec!['0', '1', '2', '9', '#', '*', 'A']).prop_map(Pick::Digit),
        2 => (0..2u8).prop_map(Pick::DigitsSent),
        2 => prop::option::of(0..9u8).prop_map(Pick::Voice),
        8 => (0..9u8, 0..2u8).prop_map(|(what, back)| Pick::Speech(what, back)),
        6 => (0..2u8, any::<bool>()).prop_map(|(back, ended)| Pick::Recorded(back, ended)),
        1 => Just(Pick::Terminated),
        1 => Just(Pick::Hangup),
        4 => (0..11u8).prop_map(Pick::Command),
        4 => (0..8u8).prop_map(Pick::Stream),
        1 => Just(Pick::Cut),
        6 => Just(Pick::Timer),
        1 => Just(Pick::Offered),
    ]
}

/// A machine with the state that an observer derives from its inputs and outputs.
struct Observer {
    machine: Machine,
    documents: Vec<Arc<Document>>,
    at: u64,
    log: String,
    fetch: u32,
    play: u32,
    recognition: u32,
    /// The recognition that is in progress.
    open_recognition: Option<u32>,
    /// The recognition that returns its result in this step. A timer that is overdue may fire
    /// before it.
    finished_recognition: Option<u32>,
    open_fetch: Option<FetchId>,
    /// The open fetch that returns its response in this step. A timer that is overdue may fire
    /// before it.
    answered_fetch: Option<FetchId>,
    document_given: bool,
    accept_sent: bool,
    reject_sent: bool,
    accepted: bool,
    connected: bool,
    closed: bool,
    concluded: u32,
    over: bool,
    /// The legs that were dialled, in order, and those that have not ended.
    legs: Vec<CallUuid>,
    up: BTreeSet<CallUuid>,
    /// The leg that ends in this step. A timer that is overdue may fire before it.
    ended: Option<CallUuid>,
    joined: bool,
    /// The call has entered a room, or has asked to, and has not left it.
    in_room: bool,
    /// The latest stream, and whether it is open.
    stream: StreamId,
    streaming: bool,
    /// The number of streams that API requests have opened.
    api_streams: u128,
    /// The latest recording, and all that have started.
    record: u32,
    recordings: BTreeSet<RecordingId>,
}

impl Observer {
    fn new(setup: CallSetup) -> Self {
        let documents = DOCUMENTS.iter().map(|xml| document(xml)).collect();
        let header = log::header_line(&log::Header::of(setup.call)).expect("JSON");
        let mut observer = Self {
            machine: Machine::new(),
            documents,
            at: 0,
            log: header,
            fetch: 0,
            play: 0,
            recognition: 0,
            open_recognition: None,
            finished_recognition: None,
            open_fetch: None,
            answered_fetch: None,
            document_given: false,
            accept_sent: false,
            reject_sent: false,
            accepted: false,
            connected: false,
            closed: false,
            concluded: 0,
            over: false,
            legs: Vec::new(),
            up: BTreeSet::new(),
            ended: None,
            joined: false,
            in_room: false,
            stream: StreamId(uuid::Uuid::nil()),
            streaming: false,
            api_streams: 0,
            record: 0,
            recordings: BTreeSet::new(),
        };
        observer.give(Input::Offered { setup: Box::new(setup) });
        observer
    }

    fn input(&mut self, pick: &Pick) -> Input {
        let fetch = FetchId(self.fetch);
        let back = |from: u32, by: u8| from.saturating_sub(u32::from(by));
        match pick {
            Pick::Graph(action, outcome) => Input::Graph {
                action: [
                    GraphAction::PreAccept,
                    GraphAction::Accept,
                    GraphAction::Terminate,
                    GraphAction::Accept,
                ][usize::from(*action)],
                outcome: [
                    GraphOutcome::Done,
                    GraphOutcome::Done,
                    GraphOutcome::Done,
                    GraphOutcome::Gone,
                    GraphOutcome::Timeout,
                    GraphOutcome::RateLimited { code: 4 },
                    GraphOutcome::ServerError { status: 500, code: 0 },
                ][usize::from(*outcome)]
                .clone(),
            },
            Pick::Fetched(doc, by) => fetched(
                FetchId(back(self.fetch, by / 3)),
                self.documents[usize::from(*doc)].clone(),
            ),
            Pick::FetchFailed(how) => Input::Fetched {
                fetch,
                result: Err([
                    FetchFailure::Timeout,
                    FetchFailure::Unreachable { detail: "no route".to_owned() },
                    FetchFailure::Status { status: 404 },
                    FetchFailure::UrlRefused { detail: "loopback".to_owned() },
                    FetchFailure::TooLarge,
                    FetchFailure::Invalid { detail: "br".to_owned() },
                ][usize::from(*how)]
                .clone()),
            },
            Pick::Refused(first) => {
                let first = [
                    FirstFault::ActionUrl,
                    FirstFault::RedirectUrl,
                    FirstFault::ActionMethod,
                    FirstFault::RedirectMethod,
                    FirstFault::Other,
                ][usize::from(*first)];
                Input::Fetched {
                    fetch,
                    result: Ok(FetchResponse::Refused {
                        refusal: Refusal { findings: Vec::new(), first },
                    }),
                }
            }
            Pick::Media(what) => Input::Media {
                leg: Leg::A,
                event: [
                    MediaEvent::IceUp,
                    MediaEvent::Connected,
                    MediaEvent::Connected,
                    MediaEvent::Connected,
                    MediaEvent::FirstPacket,
                    MediaEvent::Lost { fault: MediaFault::DtlsClosed },
                    MediaEvent::Lost { fault: MediaFault::Silent },
                ][usize::from(*what)]
                .clone(),
            },
            Pick::Played(by) => {
                Input::Played { leg: Leg::A, play: PlayId(back(self.play, by / 2)) }
            }
            Pick::PlayFailed => Input::PlayFailed {
                leg: Leg::A,
                play: PlayId(self.play),
                item: 0,
                reason: "gone\n".to_owned(),
            },
            Pick::Digit(key) => digit(*key),
            Pick::DigitsSent(by) => {
                Input::DigitsSent { leg: Leg::A, play: PlayId(back(self.play, *by)) }
            }
            Pick::Voice(None) => Input::Voice { leg: Leg::A, event: VoiceEvent::Began },
            Pick::Voice(Some(8)) => Input::Voice { leg: Leg::A, event: VoiceEvent::Beep },
            Pick::Voice(Some(ago)) => Input::Voice {
                leg: Leg::A,
                event: VoiceEvent::Ended { ago_ms: 300 * u64::from(*ago) },
            },
            Pick::Speech(what, by) => Input::Speech {
                recognition: RecognitionId(back(self.recognition, *by)),
                event: match what {
                    0 => SpeechEvent::Began,
                    1 => SpeechEvent::Lasting,
                    2 => SpeechEvent::Ended { ago_ms: 300 },
                    3 => SpeechEvent::Interim {
                        stable: "one".to_owned(),
                        unstable: "two more".to_owned(),
                        stability: 33,
                    },
                    4 => SpeechEvent::Understood { text: String::new(), confidence: 100 },
                    5 => SpeechEvent::Understood { text: SPOKEN.to_owned(), confidence: 87 },
                    6 => SpeechEvent::Failed { reason: "gone".to_owned() },
                    7 => SpeechEvent::Turn { finished: 40 + 60 * by, model: "model".to_owned() },
                    _ => SpeechEvent::Unavailable,
                },
            },
            Pick::Recorded(by, false) => Input::Recording {
                recording: RecordingId(back(self.record, *by)),
                event: RecordingEvent::Ready {
                    id: uuid::Uuid::nil(),
                    url: "https://a.example.com/r.wav".to_owned(),
                },
            },
            Pick::Recorded(by, true) => Input::Recording {
                recording: RecordingId(back(self.record, *by)),
                event: RecordingEvent::Ended {
                    reason: RecordingEndReason::Silence,
                    duration_ms: 1,
                    start_ms: 1,
                    end_ms: 2,
                    error: None,
                },
            },
            Pick::Terminated => Input::Terminated { termination: Termination::default() },
            Pick::Hangup => Input::Command { command: Command::Hangup },
            Pick::Command(what) => {
                let mut command = super::api_command(*what);
                if let Command::Stream { stream, .. } = &mut command {
                    // Every stream has its own id.
                    self.api_streams += 1;
                    *stream = StreamId(uuid::Uuid::from_u128(self.api_streams));
                }
                Input::Command { command }
            }
            Pick::Cut => Input::HangUp { cause: HangupCause::Drained },
            Pick::Timer => Input::Timer,
            Pick::Leg(which, event) => {
                // Sometimes a leg of an earlier `Dial`.
                let call = self.legs.iter().rev().nth(usize::from(*which));
                let event = match event {
                    0 => {
                        BLegEvent::Refused { error: DialError::NoPermission, detail: String::new() }
                    }
                    1 => BLegEvent::Placed,
                    2 => BLegEvent::Ringing,
                    3 | 4 => BLegEvent::Answered,
                    5 | 6 => BLegEvent::Ready,
                    7 => BLegEvent::Digit { digit: Digit::try_from('9').expect("a key") },
                    _ => BLegEvent::Ended { cause: HangupCause::Rejected },
                };
                Input::BLeg { call: call.copied().unwrap_or(CallUuid(uuid::Uuid::nil())), event }
            }
            Pick::Room(event) => {
                let room = uuid::Uuid::nil();
                let entered = |begins| RoomEvent::Entered {
                    room,
                    member: 1,
                    first: begins,
                    active: begins,
                    starts_room: begins,
                    room_left_ms: Some(4_000),
                };
                let event = match event {
                    0 => entered(true),
                    1 | 2 => entered(false),
                    3 => RoomEvent::Full { room },
                    4 => RoomEvent::Active { starts_room: false },
                    5 => RoomEvent::Waiting,
                    6 => RoomEvent::Held { on: true },
                    7 => RoomEvent::Held { on: false },
                    8 => RoomEvent::Floor { has: true },
                    9 => RoomEvent::MustLeave { reason: LeaveReason::Kicked },
                    12 => RoomEvent::Track {
                        command: TrackCommand::Begin {
                            order: Box::new(super::api_recording()),
                            callback: None,
                        },
                    },
                    13 => RoomEvent::Track { command: TrackCommand::Pause { on: true } },
                    14 => RoomEvent::Track { command: TrackCommand::Stop },
                    10 => RoomEvent::MustLeave { reason: LeaveReason::Ended },
                    15 => RoomEvent::Elsewhere,
                    16 => RoomEvent::Lost,
                    _ => RoomEvent::Muted { on: true },
                };
                Input::Room { event }
            }
            Pick::Offered => Input::Offered { setup: Box::new(setup()) },
            Pick::Stream(what) => Input::Stream {
                stream: self.stream,
                event: match what {
                    0..=2 => StreamEvent::Opened,
                    3 => StreamEvent::Failed { reason: "no route\n".to_owned() },
                    4 => StreamEvent::Closed,
                    5 => StreamEvent::Played { name: "x".to_owned() },
                    6 => StreamEvent::SendDigits { digits: "1".to_owned() },
                    _ => StreamEvent::Lost { reason: "gone".to_owned() },
                },
            },
        }
    }

    fn give(&mut self, input: Input) {
        match &input {
            Input::Fetched { fetch, result } if self.open_fetch == Some(*fetch) => {
                self.answered_fetch = Some(*fetch);
                self.document_given |= matches!(result, Ok(FetchResponse::Document { .. }));
            }
            // Also before `accept` is sent, since an overdue timer may send it in the same step.
            Input::Graph { action: GraphAction::Accept, outcome: GraphOutcome::Done } => {
                self.accepted = true
            }
            Input::Media { event: MediaEvent::Connected, .. } => self.connected = true,
            Input::Speech {
                recognition,
                event:
                    SpeechEvent::Understood { .. }
                    | SpeechEvent::Failed { .. }
                    | SpeechEvent::Unavailable,
            } => self.finished_recognition = Some(recognition.0),
            Input::BLeg { call, event: BLegEvent::Refused { .. } | BLegEvent::Ended { .. } } => {
                self.ended = Some(*call)
            }
            _ => {}
        }
        let logged = self.machine.loggable(CallTime(self.at), &input).into_owned();
        self.machine.handle(CallTime(self.at), input);
        let outputs: Vec<Output> = std::iter::from_fn(|| self.machine.poll()).collect();
        self.log.push_str(&log::entry_line(CallTime(self.at), &logged, &outputs).expect("JSON"));
        outputs.iter().for_each(|output| self.check(output));
        if let Some(ended) = self.ended.take() {
            self.up.remove(&ended);
        }
        if self.open_recognition == self.finished_recognition.take() {
            self.open_recognition = None;
        }
        self.open_fetch = self.open_fetch.filter(|open| self.answered_fetch != Some(*open));
        assert!(
            self.machine.poll_timeout().is_none_or(|(due, _)| due.0 >= self.at),
            "a timer was not fired"
        );
        assert_eq!(self.over, self.machine.state() == Some(CallState::Over));
    }

    fn check(&mut self, output: &Output) {
        assert!(!self.over, "after Over: {output}");
        match output {
            Output::Graph { action: GraphAction::Accept } => {
                assert!(!self.accept_sent, "accepted twice");
                assert!(self.document_given, "accepted without a document");
                self.accept_sent = true;
            }
            Output::Graph { action: GraphAction::Reject } => self.reject_sent = true,
            Output::Fetch { fetch, .. } => {
                assert!(
                    self.open_fetch.is_none() || self.open_fetch == self.answered_fetch,
                    "two fetches at once"
                );
                assert!(fetch.0 > self.fetch);
                (self.fetch, self.open_fetch) = (fetch.0, Some(*fetch));
            }
            Output::CancelFetch { fetch } => {
                assert_eq!(
                    self.open_fetch.take(),
                    Some(*fetch),
                    "cancelled a fetch that is not open"
                );
            }
            Output::Media { command, .. } => {
                assert!(!self.closed, "command after Close: {command}");
                match command {
                    MediaCommand::Play { play, .. }
                    | MediaCommand::SendDigits { play, .. }
                    | MediaCommand::Overlay { play, .. } => {
                        assert!(self.accept_sent && self.accepted, "sound before the answer");
                        // Sounds of API requests wait in the leg for the media path.
                        assert!(
                            self.connected || !matches!(command, MediaCommand::Play { .. }),
                            "a prompt without a media path"
                        );
                        assert!(play.0 > self.play);
                        self.play = play.0;
                    }
                    MediaCommand::Close => self.closed = true,
                    MediaCommand::Open => assert!(self.accept_sent && self.accepted),
                    MediaCommand::Begin
                    | MediaCommand::Stop { .. }
                    | MediaCommand::PlayPause { .. }
                    | MediaCommand::DetectVoice { .. }
                    | MediaCommand::DetectBeep { .. } => {}
                    MediaCommand::Record { recording: record, order } => {
                        assert!(record.0 > self.record, "an id was used twice");
                        self.record = record.0;
                        if !order.held {
                            assert!(
                                self.accepted && self.connected,
                                "recorded before the media path is up"
                            );
                            self.recordings.insert(*record);
                        }
                    }
                    MediaCommand::RecordStart { recording: record } => {
                        assert!(
                            self.accepted && self.connected,
                            "recorded before the media path is up"
                        );
                        assert!(self.recordings.insert(*record), "the recording began twice");
                    }
                    MediaCommand::RecordStop { recording: record, .. }
                    | MediaCommand::RecordPause { recording: record, .. } => {
                        assert!(record.0 <= self.record);
                    }
                    MediaCommand::Unjoin => {
                        assert!(std::mem::take(&mut self.joined), "not joined");
                    }
                    MediaCommand::Join => panic!("only a B-leg is joined"),
                }
            }
            Output::Speech { recognition, command } => match command {
                SpeechCommand::Begin { .. } => {
                    assert!(recognition.0 > self.recognition && !self.closed);
                    // A recognition ends with its result.
                    (self.recognition, self.open_recognition) =
                        (recognition.0, Some(recognition.0));
                }
                SpeechCommand::Finish => {
                    assert_eq!(
                        self.open_recognition,
                        Some(recognition.0),
                        "finished a recognition that is not open"
                    )
                }
                SpeechCommand::Stop => {
                    assert_eq!(
                        self.open_recognition.take(),
                        Some(recognition.0),
                        "stopped a recognition that is not open"
                    );
                }
            },
            Output::Stream { stream, command } => match command {
                StreamCommand::Open(_) => {
                    assert!(!self.streaming, "two streams at once");
                    (self.stream, self.streaming) = (*stream, true);
                }
                StreamCommand::Begin => {
                    assert!(self.streaming && self.stream == *stream && self.accepted)
                }
                // A stream that was refused is closed as well.
                StreamCommand::Close { .. } => self.streaming &= self.stream != *stream,
            },
            Output::Concluded { summary } => {
                self.concluded += 1;
                assert!(!self.streaming, "a stream outlives its call");
                let left = self.up.iter().filter(|leg| self.ended != Some(**leg)).count();
                assert!(!self.in_room, "the call ended in a room");
                assert_eq!(left, 0, "a leg outlives the call that dialled it");
                assert!(
                    self.closed
                        && (self.open_fetch.is_none() || self.open_fetch == self.answered_fetch)
                );
                assert!(summary.bill_secs <= summary.duration_secs && summary.ended.0 <= self.at);
                assert_eq!(summary.answered.is_some(), self.machine.answered().is_some());
            }
            Output::Dial { order } => {
                assert!(self.up.insert(order.call), "dialled twice");
                self.legs.push(order.call);
            }
            Output::BLeg { call, command: leg } => {
                assert!(self.up.contains(call), "command to a leg that has ended: {output}");
                match leg {
                    BLegCommand::Proceed => {}
                    BLegCommand::Join => {
                        assert!(self.connected && !self.joined);
                        self.joined = true;
                    }
                    BLegCommand::HangUp { .. } => {
                        self.up.remove(call);
                    }
                    BLegCommand::Forward { command } => {
                        if matches!(**command, Command::Transfer { .. }) {
                            self.up.remove(call);
                        }
                    }
                }
            }
            Output::Room { command: room } => match room {
                RoomCommand::Enter { .. } => {
                    assert!(
                        self.connected && !std::mem::replace(&mut self.in_room, true),
                        "in two rooms"
                    );
                }
                RoomCommand::Leave { .. } => {
                    assert!(std::mem::take(&mut self.in_room), "left a room without being in one")
                }
                RoomCommand::Sound { .. }
                | RoomCommand::Digit { .. }
                | RoomCommand::Record { .. }
                | RoomCommand::TrackEnded => {
                    assert!(self.in_room)
                }
                RoomCommand::Ring { .. } | RoomCommand::StopRing => {
                    panic!("the call was not placed for a room")
                }
            },
            Output::ALeg { .. } => panic!("the call is not a B-leg"),
            Output::Over => self.over = true,
            _ => {}
        }
        assert!(!(self.accept_sent && self.reject_sent), "both an accept and a reject were sent");
        assert!(self.concluded <= 1, "concluded twice");
    }
}

fn limits() -> impl Strategy<Value = MachineLimits> {
    (
        prop::sample::select(vec![0u64, 500, 3_000]),
        prop::sample::select(vec![2_000u64, 20_000, 60_000]),
    )
        .prop_map(|(accept_wait_ms, max_call_ms)| MachineLimits {
            accept_wait_ms,
            max_call_ms,
            allow_wa_bridge: true,
            ..MachineLimits::default()
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn r03_r06_every_call_ends_once_whatever_happens(
        limits in limits(),
        with_fallback in any::<bool>(),
        accepted in any::<bool>(),
        picks in prop::collection::vec((prop_oneof![3 => 0..50u64, 2 => 0..4_000u64], pick()), 0..60),
    ) {
        let mut setup = CallSetup { limits, ..setup() };
        if with_fallback {
            setup.urls.fallback = Some((super::url("https://app.example.com/fallback"), model::Method::Get));
        }
        let mut observer = Observer::new(setup);
        if accepted {
            for pick in [Pick::Graph(0, 0), Pick::Media(1), Pick::Fetched(4, 0), Pick::Graph(1, 0)] {
                let input = observer.input(&pick);
                observer.give(input);
            }
        }
        for (passes, pick) in &picks {
            observer.at += passes;
            let input = observer.input(pick);
            observer.give(input);
        }
        // Without further inputs, the timers end every call.
        while let Some((due, _)) = observer.machine.poll_timeout() {
            observer.at = observer.at.max(due.0);
            observer.give(Input::Timer);
        }
        prop_assert!(observer.over, "left in {:?}", observer.machine.state());
        prop_assert_eq!(observer.concluded, 1);
        let replayed = replay(observer.log.as_bytes(), |_| {}).expect("the log reads");
        prop_assert_eq!(replayed.difference, None);
    }

    #[test]
    fn ignores_inputs_before_the_offer(picks in prop::collection::vec(pick(), 0..10)) {
        let mut observer = Observer::new(setup());
        let mut machine = Machine::new();
        for pick in picks.iter().filter(|pick| !matches!(pick, Pick::Offered)) {
            machine.handle(CallTime(1), observer.input(pick));
            prop_assert_eq!(machine.poll(), None);
            prop_assert_eq!(machine.poll_timeout(), None);
        }
    }
}

const AGAIN: &str = "<Response><Redirect>https://app.example.com/again</Redirect></Response>";

/// Returns the cause of the call's end and the number of fetches.
fn run_loop(bench: &mut Bench, mut next: impl FnMut(&mut Bench, FetchId)) -> (HangupCause, usize) {
    loop {
        let last = bench.outputs.iter().rev().find_map(|(_, output)| match output {
            Output::Concluded { summary } => Some(Err(summary.cause)),
            Output::Fetch { fetch, .. } => Some(Ok(*fetch)),
            _ => None,
        });
        match last.expect("a fetch at least") {
            Ok(fetch) => next(bench, fetch),
            Err(cause) => {
                let fetches = bench
                    .outputs
                    .iter()
                    .filter(|(_, output)| matches!(output, Output::Fetch { .. }))
                    .count();
                return (cause, fetches);
            }
        }
    }
}

#[test]
fn r07_ends_the_call_after_100_idle_documents() {
    let mut bench = Bench::new(setup());
    let ended = run_loop(&mut bench, |bench, fetch| bench.give(fetched(fetch, document(AGAIN))));
    assert_eq!(ended, (HangupCause::InstructionLoop, 101));
    assert!(
        bench
            .outputs
            .iter()
            .any(|(_, output)| matches!(output, Output::Graph { action: GraphAction::Reject }))
    );
}

#[test]
fn r07_ends_the_call_after_2000_documents() {
    let waits = "<Response><Wait/><Redirect>https://app.example.com/again</Redirect></Response>";
    let limits = MachineLimits { accept_deadline_ms: u64::MAX, ..MachineLimits::default() };
    let mut bench = Bench::new(CallSetup { limits, ..setup() });
    let waits = document(waits);
    let ended = run_loop(&mut bench, |bench, fetch| {
        bench.give(fetched(fetch, waits.clone()));
        bench.now += 1_000;
        bench.give(Input::Timer);
    });
    assert_eq!(ended, (HangupCause::InstructionLoop, 2_000));
}

#[test]
fn an_instruction_that_takes_time_resets_the_loop_count() {
    let mut bench = Bench::new(setup());
    let mut documents = 0;
    let waits =
        document("<Response><Wait/><Redirect>https://app.example.com/again</Redirect></Response>");
    let ended = run_loop(&mut bench, |bench, fetch| {
        documents += 1;
        let rests = documents == 60;
        bench.give(fetched(fetch, if rests { waits.clone() } else { document(AGAIN) }));
        if rests {
            bench.now += 1_000;
            bench.give(Input::Timer);
        }
    });
    assert_eq!(ended, (HangupCause::InstructionLoop, 161));
    assert!(matches!(bench.outputs[2], (0, Output::Fetch { kind: FetchKind::Answer, .. })));
}

#[test]
fn elements_that_end_immediately_are_executed_at_a_limited_rate() {
    let tones = "<DTMF>1</DTMF>".repeat(1_000);
    let mut bench = Bench::live(setup(), document(&format!("<Response>{tones}</Response>")));
    let sent = |bench: &Bench| {
        let is_sent = |output: &Output| {
            matches!(output, Output::Media { command: MediaCommand::SendDigits { .. }, .. })
        };
        bench.outputs.iter().filter(|(_, output)| is_sent(output)).count()
    };
    assert_eq!(sent(&bench), 200);
    for second in 1..=40 {
        for _ in 0..20 {
            bench.now += 50;
            bench.give(Input::Timer);
        }
        assert_eq!(sent(&bench), 200 + 20 * second);
    }
    let is_remark = |output: &Output| matches!(output, Output::Remark { .. });
    assert_eq!(bench.outputs.iter().filter(|(_, output)| is_remark(output)).count(), 1);
    // The rate is that of the call, not of a document.
    let dials = "<Dial><User>sip:nobody@a.example</User><User>sip:other@a.example</User></Dial>";
    let dials = document(&format!("<Response>{}</Response>", dials.repeat(300)));
    bench.give(Input::Command { command: Command::Run { document: dials, room: None } });
    let is_dial = |(_, output): &&(u64, Output)| matches!(output, Output::Dial { .. });
    assert_eq!(bench.outputs.iter().filter(is_dial).count(), 0);
}

#[test]
fn large_documents_are_executed_at_a_limited_rate() {
    // Each counts as 22 documents.
    let large = format!(
        "<Response><!--{}--><Redirect>https://app.example.com/again</Redirect></Response>",
        "x".repeat(90_000)
    );
    let large = document(&large);
    let mut bench = Bench::live(setup(), large.clone());
    let fetches = |bench: &Bench| -> Vec<FetchId> {
        let fetch = |(_, output): &(u64, Output)| match output {
            Output::Fetch { fetch, kind: FetchKind::Redirect, .. } => Some(*fetch),
            _ => None,
        };
        bench.outputs.iter().filter_map(fetch).collect()
    };
    for executed in 1..=9 {
        assert_eq!(fetches(&bench).len(), executed);
        let latest = fetches(&bench).last().copied().unwrap();
        bench.give(fetched(latest, large.clone()));
    }
    assert_eq!(fetches(&bench).len(), 9, "the tenth waits");
    bench.now += 10_000;
    bench.give(Input::Timer);
    assert_eq!(fetches(&bench).len(), 10);
}

#[test]
fn runs_a_thousand_collections_in_a_row() {
    let many = "<GetDigits action='https://app.example.com/x' redirect='false' numDigits='1'/>"
        .repeat(1_000);
    let xml = format!("<Response><Speak>Hello</Speak>{many}</Response>");
    let mut bench = Bench::live(setup(), document(&xml));
    bench.give(digit('1'));
    bench.give(Input::Played { leg: Leg::A, play: PlayId(1) });
    for _ in 1..1_000 {
        bench.give(digit('1'));
        bench.now += 50;
        bench.give(Input::Timer);
    }
    let notices = bench
        .outputs
        .iter()
        .filter(|(_, output)| matches!(output, Output::Callback { .. }))
        .count();
    assert_eq!(notices, 1_000);
    assert_eq!(bench.machine.state(), Some(CallState::Closing));
}
