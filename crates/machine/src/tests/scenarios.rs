//! Runs the scenarios in `fixtures/scenarios/*.scn`.
//!
//! A scenario has documents and timed inputs. The outputs that follow an input are indented:
//!
//! ```text
//! # A comment.
//! doc menu
//!   <Response>…</Response>
//!
//! @0      offered accept_wait_ms=0
//!           graph pre_accept
//! @120    fetched menu
//! ```
//!
//! The runner fires timers itself: `@T  timer` lines are written, but not read. It replays the
//! event log of every call and compares the whole file. `UPDATE=1 cargo test scenarios` rewrites
//! the files.
//!
//! | input | words |
//! |---|---|
//! | `offered` | `from= to= name= cta= deeplink= fallback= answer_method= wa_bridge=1 transcribes=1 plain_urls=1 web=1` and each `*_ms` of the limits |
//! | `placed` | the same, and `ring=1 ring_timeout_ms= hangup_on_ring_ms= send_digits=`; for a B-leg `dialled=1 confirm=1 key= tells_keys=1`; for a room `room=ROOM events=1 confirm=1\|no-sound key= music=ring\|document` |
//! | `bound`, `sdp-answer`, `sdp-answer unusable` | |
//! | `status` | `ringing accepted rejected` |
//! | `graph ACTION` | `done gone refused rate_limited server_error timeout unreachable`; `code=` is Graph's error code |
//! | `fetched DOC`, `refused REASON`, `fetch-failed REASON`, `fetched-nothing` | ends the latest fetch, or `fetch=N` |
//! | `media A` | `ice-up connected first-packet flowing lost silent\|fingerprint\|dtls-closed\|dtls-failed\|broken` |
//! | `play-started A`, `played A`, `play-failed A item=0 REASON` | about the latest playlist, or `play=N` |
//! | `digit A 5`, `digits-sent A` | |
//! | `voice A` | `began`, `ended 300 ms ago`, `beep` |
//! | `speech` | `began`, `lasting`, `ended 300 ms ago`, `turn 98 MODEL`, `interim 50 STABLE / UNSTABLE`, `understood 87 WORDS`, `failed REASON`, `unavailable`; about the latest recognition, or `recognition=N` |
//! | `terminated STATUS` | `duration=5` |
//! | `leg 1` | about the latest B-leg at this position: `placed ringing answered ready`, `key 5`, `ended CAUSE`, `refused ERROR` |
//! | `stream` | about the latest stream: `opened closed cleared`, `failed REASON`, `lost REASON`, `degraded 30`, `played NAME`, `send-digits 12` |
//! | `ordered` | a command of the A-leg: `proceed join`, `hang-up CAUSE`, `ask` with an API request |
//! | `room entered 7` | enters as this member: `first starts waits`, `left_ms=` |
//! | `room` | `full begins waits recorded`, `recorded begun`, `record-ended`, `record-failed REASON`, `floor speech audio muted held coaches` with `on off`, `track`, `track stop\|pause\|resume`, `out kicked ended stopped alone` |
//! | `command hangup`, `cut CAUSE` | |
//! | `command transfer A URL` | also `command transfer B URL` and `command transfer A URL B URL` |
//! | `command run ROOM` | moves to a document with this multi-party call; `events=1` |
//! | `command play over\|instead URL…`, `command speak over\|instead TEXT`, `command stop play\|speak` | `legs= length_ms= again=1` |
//! | `command send-digits 12` | `legs=` |
//! | `command stream URL`, `command stop stream` | reports to `…/rest`; `noise=1` |
//! | `recording` | about the latest recording, or `record=N`: `ready`, `ended REASON 3200` |
//! | `command record`, `command stop record` | `callback=1` |
//! | `wait` | no input: time passes |

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{digit, setup, url};
use crate::Machine;
use crate::contract::{
    BLegCommand, BLegEvent, BLegSetup, CallSetup, CallTime, Command, Confirmation, FetchFailure,
    FetchId, FetchResponse, FirstFault, GraphAction, GraphOutcome, Input, Legs, MediaCommand,
    MediaEvent, MediaFault, Outbound, Output, Overlay, OverlayKind, PhoneStatus, PlayId,
    RecognitionId, RecordingEndReason, RecordingEvent, RecordingId, RecordingOrder, Refusal,
    RoomEvent, RoomMusic, Sound, SoundItem, SpeechEvent, StreamCommand, StreamEvent, StreamFormat,
    StreamOrder, StreamTrack, Termination, TrackCommand, VoiceEvent,
};
use crate::log;
use crate::replay::{self, UnredactedInputs};
use crate::snapshot::Field;
use crate::timers::Timer;
use model::{CallType, CallUuid, Digit, Direction, HangupCause, Leg, Method, StreamId};
use xml::ast::{Finding, Position, Repeat, Severity, Speech, SpeechNode, Target};
use xml::{self, Document};

/// Scenarios that have a golden event log in `fixtures/calls`.
const GOLDEN: [&str; 6] = [
    "menu_by_keys",
    "log_false_hides_keys",
    "fallback_after_a_refused_answer",
    "terminate_while_accepting",
    "closing_when_terminate_fails",
    "retries_of_get_digits",
];

fn fixtures(what: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(what)
}

#[test]
fn every_scenario_matches_its_file() {
    let update = std::env::var_os("UPDATE").is_some();
    let mut files: Vec<PathBuf> = std::fs::read_dir(fixtures("scenarios"))
        .expect("the folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "scn"))
        .collect();
    files.sort();
    assert!(files.len() >= 40, "{} scenarios only", files.len());
    let mut failures = String::new();
    for path in files {
        let name = path.file_stem().and_then(|s| s.to_str()).expect("a name").to_owned();
        let text = std::fs::read_to_string(&path).expect("a scenario");
        let result = Scenario::read(&name, &text).run();
        if update {
            std::fs::write(&path, &result.text).expect("written");
        } else if let Some((line, expected, actual)) = first_difference(&text, &result.text) {
            let _ = writeln!(
                failures,
                "{name}.scn line {line}\n  expected {expected}\n  actual   {actual}"
            );
        }
        let replayed = replay::replay(result.log.as_bytes(), |_| {}).expect("the log reads");
        if let Some(difference) = replayed.difference {
            let _ = writeln!(failures, "{name}.scn replays differently: {difference:?}");
        }
        if GOLDEN.contains(&name.as_str()) {
            let golden = fixtures("calls").join(format!("{name}.jsonl"));
            if update {
                std::fs::write(&golden, &result.log).expect("written");
            } else if std::fs::read_to_string(&golden).ok().as_ref() != Some(&result.log) {
                let _ =
                    writeln!(failures, "fixtures/calls/{name}.jsonl is not the log of this run");
            }
        }
    }
    assert!(failures.is_empty(), "{failures}UPDATE=1 rewrites the files");
}

/// At each step of each scenario, a machine that is rebuilt from the log has the same state and
/// makes the same decisions from there on, secret digits included.
#[test]
fn a_machine_can_be_rebuilt_at_each_step() {
    let mut rebuilds = 0;
    for entry in std::fs::read_dir(fixtures("scenarios")).expect("the folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().and_then(|s| s.to_str()).expect("a name").to_owned();
        let text = std::fs::read_to_string(&path).expect("a scenario");
        let result = Scenario::read(&name, &text).run();
        let mut unredacted = UnredactedInputs::default();
        let mut end = result.log.find('\n').expect("a header") + 1;
        for (index, step) in result.steps.iter().enumerate() {
            let rest = result.log.get(end..).expect("a line");
            end += rest.find('\n').expect("a line break") + 1;
            unredacted.note(index as u64 + 2, step.input.clone(), &step.logged);
            let log = result.log.get(..end).expect("lines").as_bytes();
            // The inputs cross to the other process as JSON.
            let json = serde_json::to_string(&unredacted).expect("JSON");
            let crossed = serde_json::from_str(&json).expect("inputs");
            let mut rebuilt = replay::rebuild(log, &crossed, |_| {})
                .unwrap_or_else(|error| panic!("{name}, step {index}: {error}"));
            assert_eq!(rebuilt.snapshot(), step.snapshot, "{name}, step {index}");
            assert_eq!(rebuilt.poll_timeout(), step.timeout, "{name}, step {index}");
            for (later, next) in result.steps.iter().enumerate().skip(index + 1) {
                rebuilt.handle(next.at, next.input.clone());
                let outputs: Vec<Output> = std::iter::from_fn(|| rebuilt.poll()).collect();
                assert_eq!(outputs, next.outputs, "{name}, rebuilt at {index}, step {later}");
                assert_eq!(rebuilt.snapshot(), next.snapshot, "{name}, step {later}");
            }
            rebuilds += 1;
        }
    }
    assert!(rebuilds > 1_000, "{rebuilds} only");
}

#[test]
fn every_golden_log_replays() {
    let mut logs = 0;
    for entry in std::fs::read_dir(fixtures("calls")).expect("the folder") {
        let path = entry.expect("an entry").path();
        let log = std::fs::read(&path).expect("a log");
        let mut steps = 0;
        let replayed = replay::replay(log.as_slice(), |_| steps += 1).expect("the log reads");
        assert_eq!(replayed.difference, None, "{}", path.display());
        assert!(steps > 3, "{}", path.display());
        logs += 1;
    }
    assert_eq!(logs, GOLDEN.len());
}

fn first_difference(expected: &str, actual: &str) -> Option<(usize, String, String)> {
    let (mut expected, mut actual) = (expected.lines(), actual.lines());
    let mut line = 0;
    loop {
        line += 1;
        match (expected.next(), actual.next()) {
            (None, None) => return None,
            (a, b) if a == b => {}
            (a, b) => {
                return Some((
                    line,
                    a.unwrap_or("the end").to_owned(),
                    b.unwrap_or("the end").to_owned(),
                ));
            }
        }
    }
}

struct TimedInput {
    /// The comment lines before the input.
    comments: Vec<String>,
    at: u64,
    words: String,
}

struct Scenario {
    name: String,
    /// The text before the first input, verbatim.
    head: String,
    documents: BTreeMap<String, Arc<Document>>,
    inputs: Vec<TimedInput>,
}

struct RunResult {
    text: String,
    log: String,
    steps: Vec<RecordedStep>,
}

/// An input, and what followed.
struct RecordedStep {
    at: CallTime,
    input: Input,
    logged: Input,
    outputs: Vec<Output>,
    snapshot: Vec<Field>,
    timeout: Option<(CallTime, Timer)>,
}

impl Scenario {
    fn read(name: &str, text: &str) -> Self {
        let (mut head, mut sources) = (String::new(), BTreeMap::<String, String>::new());
        let (mut inputs, mut comments, mut open) = (Vec::new(), Vec::new(), None::<String>);
        for line in text.lines() {
            if let Some(input) = line.strip_prefix('@') {
                let (at, words) = input.split_once(char::is_whitespace).unwrap_or((input, ""));
                let words = words.trim().to_owned();
                if words != "timer" {
                    let at = at.parse().unwrap_or_else(|_| panic!("{name}: a time in {line:?}"));
                    inputs.push(TimedInput { comments: std::mem::take(&mut comments), at, words });
                }
            } else if !inputs.is_empty() || !comments.is_empty() {
                if line.starts_with('#') {
                    comments.push(line.to_owned());
                }
            } else {
                head.push_str(line);
                head.push('\n');
                if let Some(doc) = line.strip_prefix("doc ") {
                    open = Some(doc.trim().to_owned());
                    sources.insert(doc.trim().to_owned(), String::new());
                } else if let (Some(xml), Some(doc)) = (line.strip_prefix("  "), &open) {
                    let source = sources.get_mut(doc).expect("it was opened");
                    source.push_str(xml);
                    source.push('\n');
                } else {
                    open = None;
                }
            }
        }
        let documents = sources
            .into_iter()
            .map(|(doc, xml)| {
                let parsed = xml::parse(xml.as_bytes(), None);
                let document = parsed
                    .document
                    .unwrap_or_else(|| panic!("{name}: {doc}: {:?}", parsed.findings));
                (doc, document)
            })
            .collect();
        Self { name: name.to_owned(), head, documents, inputs }
    }

    fn run(&self) -> RunResult {
        let mut run = Run {
            scenario: self,
            machine: Machine::new(),
            text: self.head.clone(),
            log: String::new(),
            steps: Vec::new(),
            fetch: FetchId(0),
            play: PlayId(0),
            recognition: RecognitionId(0),
            stream: StreamId(uuid::Uuid::nil()),
            record: RecordingId(0),
            legs: BTreeMap::new(),
        };
        for timed in &self.inputs {
            while let Some(due) =
                run.machine.poll_timeout().map(|(due, _)| due).filter(|due| due.0 < timed.at)
            {
                run.give(due.0, "timer", Input::Timer);
            }
            for comment in &timed.comments {
                let _ = writeln!(run.text, "{comment}");
            }
            match run.input(&timed.words) {
                Some(input) => run.give(timed.at, &timed.words, input),
                None => {
                    let _ = writeln!(run.text, "{:<8}{}", format!("@{}", timed.at), timed.words);
                }
            }
        }
        RunResult { text: run.text, log: run.log, steps: run.steps }
    }
}

struct Run<'a> {
    scenario: &'a Scenario,
    machine: Machine,
    text: String,
    log: String,
    steps: Vec<RecordedStep>,
    /// The latest fetch, and the latest playlist or sequence of digits.
    fetch: FetchId,
    play: PlayId,
    recognition: RecognitionId,
    /// The latest stream.
    stream: StreamId,
    /// The latest recording.
    record: RecordingId,
    /// The latest B-leg at each position.
    legs: BTreeMap<u8, CallUuid>,
}

impl Run<'_> {
    fn give(&mut self, at: u64, words: &str, input: Input) {
        let _ = writeln!(self.text, "{:<8}{words}", format!("@{at}"));
        if let (true, Input::Offered { setup } | Input::Placed { setup }) =
            (self.log.is_empty(), &input)
        {
            self.log = log::header_line(&log::Header {
                offhook: "0.1.0".to_owned(),
                call: setup.call,
                trace_id: None,
            })
            .expect("JSON");
        }
        let logged = self.machine.loggable(CallTime(at), &input).into_owned();
        self.machine.handle(CallTime(at), input.clone());
        let outputs: Vec<Output> = std::iter::from_fn(|| self.machine.poll()).collect();
        for output in &outputs {
            let _ = writeln!(self.text, "          {output}");
            match output {
                Output::Fetch { fetch, .. } => self.fetch = *fetch,
                Output::Speech { recognition, .. } => self.recognition = *recognition,
                Output::Stream { stream, command: StreamCommand::Open(_) } => self.stream = *stream,
                Output::Media {
                    command: MediaCommand::Record { recording: record, .. }, ..
                } => self.record = *record,
                Output::Dial { order } => {
                    self.legs.insert(order.position, order.call);
                }
                Output::Media {
                    command:
                        MediaCommand::Play { play, .. }
                        | MediaCommand::SendDigits { play, .. }
                        | MediaCommand::Overlay { play, .. },
                    ..
                } => {
                    self.play = *play;
                }
                _ => {}
            }
        }
        self.log.push_str(&log::entry_line(CallTime(at), &logged, &outputs).expect("JSON"));
        self.steps.push(RecordedStep {
            at: CallTime(at),
            input,
            logged,
            outputs,
            snapshot: self.machine.snapshot(),
            timeout: self.machine.poll_timeout(),
        });
    }

    fn input(&self, words: &str) -> Option<Input> {
        let plain: Vec<&str> = words.split_whitespace().filter(|w| !w.contains('=')).collect();
        let options: BTreeMap<&str, &str> =
            words.split_whitespace().filter_map(|w| w.split_once('=')).collect();
        let number = |name: &str| options.get(name).map(|n| n.parse::<u32>().expect("a number"));
        let fetch = number("fetch").map_or(self.fetch, FetchId);
        let play = number("play").map_or(self.play, PlayId);
        let leg = Leg::A;
        Some(match plain.as_slice() {
            ["wait"] => return None,
            ["recording", words @ ..] => Input::Recording {
                recording: number("record").map_or(self.record, RecordingId),
                event: recording(words),
            },
            ["offered"] => Input::Offered { setup: Box::new(inbound_setup(&options)) },
            ["placed"] => Input::Placed { setup: Box::new(outbound_setup(&options)) },
            ["bound"] => Input::Bound { wacid: "wacid.bound".into() },
            ["sdp-answer"] => Input::SdpAnswer { usable: true },
            ["sdp-answer", "unusable"] => Input::SdpAnswer { usable: false },
            ["status", "ringing"] => Input::Status { status: PhoneStatus::Ringing },
            ["status", "accepted"] => Input::Status { status: PhoneStatus::Accepted },
            ["status", "rejected"] => Input::Status { status: PhoneStatus::Rejected },
            ["graph", action, outcome] => {
                let outcome = with_code(outcome_of(outcome), number("code"));
                Input::Graph { action: graph_action(action), outcome }
            }
            ["fetched", doc] => {
                let document = self.scenario.documents.get(*doc).cloned();
                let document =
                    document.unwrap_or_else(|| panic!("{}: no doc {doc}", self.scenario.name));
                Input::Fetched { fetch, result: Ok(FetchResponse::Document { document }) }
            }
            ["fetched-nothing"] => Input::Fetched { fetch, result: Ok(FetchResponse::Ignored) },
            ["refused", what] => Input::Fetched {
                fetch,
                result: Ok(FetchResponse::Refused { refusal: refusal(what) }),
            },
            ["fetch-failed", how] => Input::Fetched { fetch, result: Err(failure(how)) },
            ["media", "A", what @ ..] => Input::Media { leg, event: media_event(what) },
            ["play-started", "A"] => Input::PlayStarted { leg, play },
            ["played", "A"] => Input::Played { leg, play },
            ["play-failed", "A", reason @ ..] => {
                let item = u16::try_from(number("item").unwrap_or(0)).expect("an item");
                Input::PlayFailed { leg, play, item, reason: reason.join(" ") }
            }
            ["digit", "A", key] => digit(key.chars().next().expect("a key")),
            ["voice", "A", "beep"] => Input::Voice { leg, event: VoiceEvent::Beep },
            ["voice", "A", "began"] => Input::Voice { leg, event: VoiceEvent::Began },
            ["voice", "A", "ended", ago_ms, "ms", "ago"] => Input::Voice {
                leg,
                event: VoiceEvent::Ended { ago_ms: ago_ms.parse().expect("milliseconds") },
            },
            ["speech", what @ ..] => {
                let recognition = number("recognition").map_or(self.recognition, RecognitionId);
                Input::Speech { recognition, event: speech_event(what) }
            }
            ["digits-sent", "A"] => Input::DigitsSent { leg, play },
            ["terminated", status] => Input::Terminated {
                termination: Termination {
                    status: Some((*status).to_owned()),
                    duration_secs: number("duration").map(u64::from),
                    ..Termination::default()
                },
            },
            ["leg", place, news @ ..] => {
                let call = self
                    .legs
                    .get(&place.parse().expect("a place"))
                    .copied()
                    .expect("it was dialled");
                Input::BLeg { call, event: leg_event(news) }
            }
            ["stream", what @ ..] => {
                Input::Stream { stream: self.stream, event: stream_event(what) }
            }
            ["ordered", "proceed"] => Input::ALeg { command: BLegCommand::Proceed },
            ["ordered", "join"] => Input::ALeg { command: BLegCommand::Join },
            ["ordered", "hang-up", reason] => {
                Input::ALeg { command: BLegCommand::HangUp { cause: cause(reason) } }
            }
            ["ordered", "ask", words @ ..] => Input::ALeg {
                command: BLegCommand::Forward { command: Box::new(command(words, &options)) },
            },
            ["room", words @ ..] => Input::Room { event: room_event(words, &options) },
            ["command", words @ ..] => Input::Command { command: command(words, &options) },
            ["cut", "drained"] => Input::HangUp { cause: HangupCause::Drained },
            ["cut", "internal_error"] => Input::HangUp { cause: HangupCause::InternalError },
            other => panic!("{}: no such input: {other:?}", self.scenario.name),
        })
    }
}

/// Parses an event of a recognition.
fn speech_event(words: &[&str]) -> SpeechEvent {
    let per_cent = |word: &str| word.parse().expect("per cent");
    match words {
        ["began"] => SpeechEvent::Began,
        ["lasting"] => SpeechEvent::Lasting,
        ["ended", ago_ms, "ms", "ago"] => {
            SpeechEvent::Ended { ago_ms: ago_ms.parse().expect("milliseconds") }
        }
        ["turn", finished, model] => {
            SpeechEvent::Turn { finished: per_cent(finished), model: (*model).to_owned() }
        }
        ["interim", stability, text @ ..] => {
            let text = text.join(" ");
            let (stable, unstable) = text.split_once('/').expect("a / between");
            let (stable, unstable) = (stable.trim().to_owned(), unstable.trim().to_owned());
            SpeechEvent::Interim { stable, unstable, stability: per_cent(stability) }
        }
        ["understood", confidence, text @ ..] => {
            SpeechEvent::Understood { text: text.join(" "), confidence: per_cent(confidence) }
        }
        ["failed", reason @ ..] => SpeechEvent::Failed { reason: reason.join(" ") },
        ["unavailable"] => SpeechEvent::Unavailable,
        other => panic!("no such event of a recognition: {other:?}"),
    }
}

/// Parses an API request, such as `transfer A URL`, `play over URL…` or `speak instead TEXT`, with
/// the options `length_ms=`, `again=` and `legs=`.
fn command(words: &[&str], options: &BTreeMap<&str, &str>) -> Command {
    let legs = match options.get("legs") {
        None | Some(&"aleg") => Legs::A,
        Some(&"bleg") => Legs::B,
        Some(_) => Legs::Both,
    };
    let item = |sound| SoundItem { sound, repeat: Repeat::Times(1) };
    let overlay = |kind, how: &str, items| Overlay {
        kind,
        items,
        repeat: options.contains_key("again"),
        mix: how == "over",
        length_ms: options.get("length_ms").map(|ms| ms.parse().expect("milliseconds")),
    };
    let target = |at: &str| Target { url: url(at), method: Method::Post };
    match words {
        ["hangup"] => Command::Hangup,
        ["transfer", "A", at] => Command::Transfer { aleg: Some(target(at)), bleg: None },
        ["transfer", "B", at] => Command::Transfer { aleg: None, bleg: Some(target(at)) },
        ["run", name] => Command::Run {
            document: super::document(&room_xml(name, options.contains_key("events"))),
            room: Some(uuid::Uuid::from_u128(0x700)),
        },
        ["transfer", "A", a, "B", b] => {
            Command::Transfer { aleg: Some(target(a)), bleg: Some(target(b)) }
        }
        ["play", how, urls @ ..] => {
            let items = urls.iter().map(|at| item(Sound::File { url: url(at) })).collect();
            Command::Play { legs, overlay: overlay(OverlayKind::Play, how, items) }
        }
        ["speak", how, text @ ..] => {
            let speech = Speech(vec![SpeechNode::Text(text.join(" "))]);
            let sound = Sound::Speak { speech, voice: xml::ast::Voice::Woman, language: None };
            Command::Play { legs, overlay: overlay(OverlayKind::Speak, how, vec![item(sound)]) }
        }
        ["stream", at] => Command::Stream {
            stream: StreamId(uuid::Uuid::from_u128(0x20)),
            order: Box::new(StreamOrder {
                url: url(at),
                bidirectional: true,
                track: StreamTrack::Inbound,
                timeout_s: 60,
                status: Some((url("https://app.example.com/rest"), Method::Post)),
                format: StreamFormat::Mulaw8000,
                extra_headers: Vec::new(),
                keep_call_alive: false,
                noise_level: options.get("noise").map(|_| 85),
                in_room: false,
            }),
        },
        ["stop", "stream"] => Command::StopStream { stream: None },
        ["stop", "play"] => Command::StopPlay { kind: OverlayKind::Play },
        ["stop", "speak"] => Command::StopPlay { kind: OverlayKind::Speak },
        ["record"] => Command::Record {
            order: Box::new(super::api_recording()),
            callback: options.get("callback").map(|_| target("https://app.example.com/recorded")),
        },
        ["stop", "record"] => Command::StopRecord,
        ["send-digits", digits] => Command::SendDigits { legs, digits: (*digits).to_owned() },
        other => panic!("no such command: {other:?}"),
    }
}

fn stream_event(words: &[&str]) -> StreamEvent {
    match words {
        ["opened"] => StreamEvent::Opened,
        ["failed", reason @ ..] => StreamEvent::Failed { reason: reason.join(" ") },
        ["lost", reason @ ..] => StreamEvent::Lost { reason: reason.join(" ") },
        ["closed"] => StreamEvent::Closed,
        ["degraded", percent] => {
            StreamEvent::Degraded { percent: percent.parse().expect("percent") }
        }
        ["played", name] => StreamEvent::Played { name: (*name).to_owned() },
        ["cleared"] => StreamEvent::Cleared,
        ["send-digits", digits] => StreamEvent::SendDigits { digits: (*digits).to_owned() },
        other => panic!("no such event of a stream: {other:?}"),
    }
}

fn inbound_setup(options: &BTreeMap<&str, &str>) -> CallSetup {
    let mut setup = setup();
    for (name, value) in options {
        let text = || (*value).to_owned();
        let ms = || value.parse().unwrap_or_else(|_| panic!("milliseconds in {name}={value}"));
        match *name {
            "from" => setup.from = text(),
            "to" => setup.to = text(),
            "name" => setup.caller_name = text(),
            "cta" => setup.cta_payload = Some(text()),
            "deeplink" => setup.deeplink_payload = Some(text()),
            "fallback" => setup.urls.fallback = Some((url(value), Method::Post)),
            "answer_method" if *value == "GET" => setup.urls.answer_method = Method::Get,
            "accept_wait_ms" => setup.limits.accept_wait_ms = ms(),
            "accept_deadline_ms" => setup.limits.accept_deadline_ms = ms(),
            "media_setup_ms" => setup.limits.media_setup_ms = ms(),
            "max_call_ms" => setup.limits.max_call_ms = ms(),
            "fetch_ms" => setup.limits.fetch_ms = ms(),
            "answer_budget_ms" => setup.limits.answer_budget_ms = ms(),
            "wa_bridge" => setup.limits.allow_wa_bridge = *value == "1",
            "plain_urls" => setup.limits.allow_plain_urls = *value == "1",
            "transcribes" => setup.limits.can_transcribe = *value == "1",
            "web" => {
                setup.call_type = CallType::Web;
                setup.wacid = None;
                setup.phone_number_id = "".into();
            }
            other => panic!("no such option: {other}"),
        }
    }
    setup
}

/// Returns the setup of an outbound call with the options of the scenario.
fn outbound_setup(options: &BTreeMap<&str, &str>) -> CallSetup {
    let outbound_names = [
        "ring",
        "ring_timeout_ms",
        "hangup_on_ring_ms",
        "send_digits",
        "dialled",
        "confirm",
        "key",
        "tells_keys",
        "room",
        "music",
        "events",
    ];
    let (outbound_options, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
        options.iter().partition(|(name, _)| outbound_names.contains(name));
    let mut setup = inbound_setup(&others);
    let ms =
        |name: &str| outbound_options.get(name).map(|value| value.parse().expect("milliseconds"));
    setup.direction = Direction::Outbound;
    setup.wacid = None;
    std::mem::swap(&mut setup.from, &mut setup.to);
    let confirm = outbound_options.get("confirm").map(|sound| Confirmation {
        sound: (*sound != "no-sound").then(|| url("https://app.example.com/confirm")),
        method: if outbound_options.contains_key("room") { Method::Get } else { Method::Post },
        key: outbound_options
            .get("key")
            .map(|key| Digit::try_from(key.chars().next().expect("a key")).expect("a key")),
        timeout_ms: 5_000,
    });
    let is_dialled = outbound_options.contains_key("dialled");
    setup.outbound = Some(Box::new(Outbound {
        ring: outbound_options
            .get("ring")
            .map(|_| (url("https://app.example.com/ring"), Method::Post)),
        ring_timeout_ms: ms("ring_timeout_ms").unwrap_or(60_000),
        hangup_on_ring_ms: ms("hangup_on_ring_ms"),
        send_digits: outbound_options.get("send_digits").map(|digits| (*digits).to_owned()),
        parent_call: None,
        needs_company: false,
        is_queued: false,
        b_leg: outbound_options.get("dialled").map(|_| {
            Box::new(BLegSetup {
                a_leg: CallUuid(uuid::Uuid::from_u128(0xa)),
                a_request: None,
                confirm: confirm.clone(),
                report_digits: outbound_options.contains_key("tells_keys"),
            })
        }),
        document: outbound_options
            .get("room")
            .map(|name| super::document(&room_xml(name, outbound_options.contains_key("events")))),
        confirm: confirm.filter(|_| !is_dialled),
        room: outbound_options.get("room").map(|_| uuid::Uuid::from_u128(0x700)),
        room_music: outbound_options.get("music").map(|music| match *music {
            "ring" => RoomMusic::RingBack,
            _ => RoomMusic::Document { url: url("https://app.example.com/ringing") },
        }),
    }));
    setup
}

/// Returns a document with one multi-party call. With `events`, it has a status callback for added
/// participants.
fn room_xml(name: &str, events: bool) -> String {
    let attributes = "statusCallbackUrl='https://app.example.com/status' statusCallbackEvents='add-participant-api-events'";
    let attributes = if events { attributes } else { "" };
    format!(
        "<Response><MultiPartyCall role='customer' {attributes}>{name}</MultiPartyCall></Response>"
    )
}

/// Parses an event of a recording. Its times begin with the call.
fn recording(words: &[&str]) -> RecordingEvent {
    match words {
        ["ready"] => RecordingEvent::Ready {
            id: uuid::Uuid::from_u128(0x7e57),
            url: "https://calls.example.com/recordings/7e57.mp3".to_owned(),
        },
        ["ended", end, duration_ms] => {
            let duration_ms = duration_ms.parse().expect("milliseconds");
            let end = RecordingEndReason::parse(end).expect("an end");
            let start_ms = setup().started.micros() / 1_000;
            let reason = (end == RecordingEndReason::Failed).then(|| "the disk is full".to_owned());
            RecordingEvent::Ended {
                reason: end,
                duration_ms,
                start_ms,
                end_ms: start_ms.saturating_add_unsigned(duration_ms),
                error: reason,
            }
        }
        other => panic!("no such event of a recording: {other:?}"),
    }
}

fn leg_event(words: &[&str]) -> BLegEvent {
    match words {
        ["placed"] => BLegEvent::Placed,
        ["ringing"] => BLegEvent::Ringing,
        ["answered"] => BLegEvent::Answered,
        ["ready"] => BLegEvent::Ready,
        ["key", key] => BLegEvent::Digit {
            digit: Digit::try_from(key.chars().next().expect("a key")).expect("a key"),
        },
        ["ended", reason] => BLegEvent::Ended { cause: cause(reason) },
        ["refused", error] => BLegEvent::Refused {
            error: serde_json::from_value(serde_json::Value::from(*error)).expect("an error"),
            detail: String::new(),
        },
        other => panic!("no such event: {other:?}"),
    }
}

/// Parses an event of a room.
fn room_event(words: &[&str], options: &BTreeMap<&str, &str>) -> RoomEvent {
    let room = uuid::Uuid::from_u128(0x700);
    let ms = |name: &str| options.get(name).map(|ms| ms.parse().expect("milliseconds"));
    match words {
        ["entered", member, how @ ..] => RoomEvent::Entered {
            room,
            member: member.parse().expect("a member"),
            first: how.contains(&"first"),
            active: !how.contains(&"waits"),
            starts_room: how.contains(&"starts"),
            room_left_ms: ms("left_ms"),
        },
        ["full"] => RoomEvent::Full { room },
        ["elsewhere"] => RoomEvent::Elsewhere,
        ["lost"] => RoomEvent::Lost,
        ["begins", how @ ..] => RoomEvent::Active { starts_room: how.contains(&"starts") },
        ["waits"] => RoomEvent::Waiting,
        ["floor", on] => RoomEvent::Floor { has: *on == "on" },
        ["speech", on] => RoomEvent::Speech { on: *on == "on" },
        ["audio", on] => RoomEvent::Audio { on: *on == "on" },
        ["record-ended"] => RoomEvent::RecordingEnded,
        ["record-failed", reason @ ..] => RoomEvent::RecordingFailed { reason: reason.join(" ") },
        ["muted", on] => RoomEvent::Muted { on: *on == "on" },
        ["held", on] => RoomEvent::Held { on: *on == "on" },
        ["recorded", how @ ..] => RoomEvent::Recording {
            id: uuid::Uuid::from_u128(5),
            url: "https://calls.example.com/recordings/5.mp3".to_owned(),
            begun: how.contains(&"begun"),
        },
        ["track"] => {
            let how = Box::new(RecordingOrder {
                peer_only: true,
                stereo: false,
                ..super::api_recording()
            });
            let callback =
                Some(Target { url: url("https://app.example.com/track"), method: Method::Post });
            RoomEvent::Track { command: TrackCommand::Begin { order: how, callback } }
        }
        ["track", "stop"] => RoomEvent::Track { command: TrackCommand::Stop },
        ["track", word] => {
            RoomEvent::Track { command: TrackCommand::Pause { on: *word == "pause" } }
        }
        ["coaches", on] => RoomEvent::Coaching { on: *on == "on" },
        ["out", reason] => RoomEvent::MustLeave {
            reason: serde_json::from_value(serde_json::Value::from(*reason)).expect("a reason"),
        },
        other => panic!("no such event: {other:?}"),
    }
}

/// Parses a hangup cause without parameters.
fn cause(word: &str) -> HangupCause {
    serde_json::from_value(serde_json::Value::from(word))
        .unwrap_or_else(|_| panic!("no such cause: {word}"))
}

/// Replaces the Graph error code of an outcome.
fn with_code(outcome: GraphOutcome, code: Option<u32>) -> GraphOutcome {
    match (outcome, code) {
        (GraphOutcome::Refused { status, details, .. }, Some(code)) => {
            GraphOutcome::Refused { status, code: code.into(), details }
        }
        (GraphOutcome::RateLimited { .. }, Some(code)) => {
            GraphOutcome::RateLimited { code: code.into() }
        }
        (other, _) => other,
    }
}

fn graph_action(word: &str) -> GraphAction {
    use GraphAction as G;
    let all = [G::Connect, G::PreAccept, G::Accept, G::Reject, G::Terminate];
    all.into_iter()
        .find(|action| action.as_str() == word)
        .unwrap_or_else(|| panic!("no such action: {word}"))
}

fn outcome_of(word: &str) -> GraphOutcome {
    match word {
        "done" => GraphOutcome::Done,
        "gone" => GraphOutcome::Gone,
        "refused" => GraphOutcome::Refused {
            status: 400,
            code: 100,
            details: "Invalid parameter".to_owned(),
        },
        "rate_limited" => GraphOutcome::RateLimited { code: 4 },
        "server_error" => GraphOutcome::ServerError { status: 503, code: 0 },
        "timeout" => GraphOutcome::Timeout,
        "unreachable" => GraphOutcome::Unreachable,
        other => panic!("no such outcome: {other}"),
    }
}

fn failure(word: &str) -> FetchFailure {
    let what = "as the scenario says".to_owned();
    match word {
        "timeout" => FetchFailure::Timeout,
        "unreachable" => FetchFailure::Unreachable { detail: what },
        "status" => FetchFailure::Status { status: 500 },
        "url-refused" => FetchFailure::UrlRefused { detail: what },
        "too-large" => FetchFailure::TooLarge,
        "invalid" => FetchFailure::Invalid { detail: what },
        other => panic!("no such failure: {other}"),
    }
}

fn refusal(word: &str) -> Refusal {
    let (first, rule) = match word {
        "action-url" => (FirstFault::ActionUrl, "E311"),
        "redirect-url" => (FirstFault::RedirectUrl, "E311"),
        "action-method" => (FirstFault::ActionMethod, "E312"),
        "redirect-method" => (FirstFault::RedirectMethod, "E312"),
        "xml" => (FirstFault::Other, "E103"),
        other => panic!("no such refusal: {other}"),
    };
    let finding = Finding {
        rule: rule.into(),
        severity: Severity::Error,
        at: Position { line: 2, column: 3 },
        message: "as the scenario says".to_owned(),
        hint: String::new(),
    };
    Refusal { findings: vec![finding], first }
}

fn media_event(words: &[&str]) -> MediaEvent {
    let lost = |fault| MediaEvent::Lost { fault };
    match words {
        ["ice-up"] => MediaEvent::IceUp,
        ["connected"] => MediaEvent::Connected,
        ["first-packet"] => MediaEvent::FirstPacket,
        ["flowing"] => MediaEvent::Flowing,
        ["lost", "silent"] => lost(MediaFault::Silent),
        ["lost", "fingerprint"] => lost(MediaFault::Fingerprint),
        ["lost", "dtls-closed"] => lost(MediaFault::DtlsClosed),
        ["lost", "dtls-failed"] => lost(MediaFault::DtlsFailed),
        ["lost", "broken"] => lost(MediaFault::Broken),
        other => panic!("no such media event: {other:?}"),
    }
}
