//! Timeline of a call: converts its event log to bars that show the duration of each operation.
//!
//! This module has no I/O: it converts lines to a [`Waterfall`], which `cli` and the console
//! display. Inputs are logged in whole milliseconds, trace lines in microseconds (`trace`).
//! Operations that are in neither have no bar.

mod attach;
mod bar;
mod bodies;

use std::collections::BTreeMap;
use std::fmt;
use std::io::BufRead;

use uuid::Uuid;

pub use bar::Bar;
pub(super) use bar::fetch_name;
use bar::{fetch_bar, graph_bar, graph_name, verdict};
pub use bodies::{BODY_MAX, Body, Fidelity, Flow, Kind};

use super::course::Course;
use super::trace::Trace;
use machine::log::{Header, Line, LogError, Reader};
use machine::{
    CallSetup, CallState, CallTime, CallbackRequest, FetchResponse, GraphAction, Input,
    InstructionOutcome, MediaCommand, MediaEvent, Output, PlayId, RecognitionId, SpeechEvent,
    StreamCommand,
};
use model::{
    CallQuality, CallType, CallUuid, Direction, PromptVoice, Timestamp, TraceId, Wacid, last_four,
};
use xml::ast::Finding;

/// Maximum number of bars of a call. An hour in a menu has fewer, and an untrusted log is bounded.
const BARS_MAX: usize = 2_000;

/// Maximum number of findings and of remarks of a call.
const NOTES_MAX: usize = 200;

/// Maximum number of different voices and of recognisers of a call.
const SPEECH_MAX: usize = 50;

/// The timeline of a call. Bars are ordered by their beginning.
#[derive(Clone, Debug, PartialEq)]
pub struct Waterfall {
    pub call: CallUuid,
    pub trace_id: Option<TraceId>,
    /// The caller. Of a person's phone number, only the last four digits: see [`person`].
    pub from: String,
    pub to: String,
    pub direction: Option<Direction>,
    pub started: Option<Timestamp>,
    /// Time of the answer in microseconds since the call's zero, like all times here.
    pub answered_us: Option<i64>,
    /// Time and cause of the call's end.
    pub ended_us: Option<i64>,
    pub cause: Option<&'static str>,
    pub bars: Vec<Bar>,
    /// Number of omitted bars.
    pub left_out: usize,
    /// Linter findings with their times, without duplicates.
    pub findings: Vec<(i64, Finding)>,
    /// Remarks with their times in microseconds since the call's zero.
    pub remarks: Vec<(i64, String)>,
    /// The voices of the call's prompts, each with the number of playlists that it spoke in.
    pub voices: Vec<(PromptVoice, u32)>,
    /// The recognisers of the caller's speech, each with the number of utterances.
    pub recognisers: Vec<(RecogniserUse, u32)>,
    /// Audio quality of the call, after its end.
    pub quality: Option<CallQuality>,
    /// Audio quality over time.
    pub course: Option<Course>,
}

/// A recogniser and the language in which it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecogniserUse {
    pub recogniser: String,
    pub language: String,
}

impl fmt::Display for RecogniserUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.recogniser, self.language)
    }
}

/// A party of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    From,
    To,
}

/// The party that is a person with a phone number, which lists and logs shorten. `None` if neither
/// has a phone number, or if the person's was erased and is empty. Names of endpoints and the
/// business's own number are not shortened.
pub fn person(direction: Direction, from: &str, to: &str) -> Option<Party> {
    let is_phone = |text: &str| text.len() > 4 && text.bytes().all(|b| b.is_ascii_digit());
    match (is_phone(from), is_phone(to)) {
        (true, true) if direction == Direction::Outbound => Some(Party::To),
        (true, _) if !to.is_empty() => Some(Party::From),
        (false, true) if !from.is_empty() => Some(Party::To),
        _ => None,
    }
}

/// The party that an operation waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// This node.
    Node,
    /// Meta's Graph API.
    Graph,
    /// The customer's server.
    Customer,
    /// The media path.
    Media,
    /// An instruction of the document.
    Instruction,
    /// The user, or a client of the API.
    Person,
}

impl Actor {
    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Graph => "graph",
            Self::Customer => "customer",
            Self::Media => "media",
            Self::Instruction => "instruction",
            Self::Person => "person",
        }
    }
}

impl Waterfall {
    /// Reads an event log.
    ///
    /// # Errors
    /// Returns an error if the log cannot be read.
    pub fn of(log: impl BufRead) -> Result<Self, LogError> {
        Self::with(log, &BTreeMap::new())
    }

    /// Reads an event log together with the call's outbox rows by event id. The rows contain the
    /// bodies of callbacks.
    ///
    /// # Errors
    /// Returns an error if the log cannot be read.
    pub fn with(
        log: impl BufRead,
        outbox: &BTreeMap<Uuid, CallbackRequest>,
    ) -> Result<Self, LogError> {
        let (header, mut reader) = Reader::open(log)?;
        let mut drawing = Builder::new(header);
        while let Some(line) = reader.next_line()? {
            match line {
                Line::Entry(entry) => {
                    // Skip outputs with an unknown form, which other versions write.
                    let outputs =
                        entry.outputs.into_iter().filter_map(|o| serde_json::from_value(o).ok());
                    drawing.entry(entry.at, &entry.input, &outputs.collect::<Vec<Output>>());
                }
                Line::Trace(trace) => drawing.trace(trace),
            }
        }
        drawing.attach_callbacks(outbox);
        drawing.attach_sdp();
        Ok(drawing.done())
    }

    /// Returns the bar of a callback's trace line, with times relative to `zero`. `None` for other
    /// lines.
    pub fn callback(trace: &Trace, zero: Timestamp) -> Option<Bar> {
        let Trace::Callback { kind, event_id: _, began, took_us, attempts, outcome, tries } = trace
        else {
            return None;
        };
        let from = began.micros().saturating_sub(zero.micros());
        let status =
            tries.last().map_or_else(String::new, |t| verdict(Some(&t.end), 1, "").0 + " ");
        let attempt = if *attempts > 1 { format!("attempt {attempts}: ") } else { String::new() };
        let to = from.saturating_add(*took_us);
        let mut bar = Bar::new(Actor::Customer, format!("callback {kind}"), from, Some(to))
            .noted(format!("{attempt}{status}{outcome}"), outcome != "delivered");
        if let Some(first) = tries.first() {
            bar.part("waits for its host", from, from.saturating_add(first.from_us));
        }
        bar.requests(tries, from);
        Some(bar)
    }

    /// Returns when the set-up was complete: at the first outbound audio of a prompt that followed
    /// the answer, or else at the answer. The server of a stream may be silent for any time. `None`
    /// if there was neither.
    pub fn set_up_us(&self) -> Option<i64> {
        let latest = self.answered_us.map(|answered| answered.saturating_add(PROMPT_FOLLOWS_US));
        let is_first = |bar: &&Bar| {
            bar.name == FIRST_SOUND
                && bar.note != OF_STREAM
                && latest.is_none_or(|latest| bar.from_us <= latest)
        };
        let sound = self.bars.iter().filter(is_first).filter_map(|bar| bar.to_us).min();
        sound.or(self.answered_us)
    }

    /// The time of the first packet of the first prompt or of a stream's server. `None` if nothing
    /// was played.
    pub fn first_sound_us(&self) -> Option<i64> {
        self.bars.iter().filter(|b| b.name == FIRST_SOUND).filter_map(|b| b.to_us).min()
    }
}

/// Name of the bar from the play command, or the start of a stream, to its first packet.
const FIRST_SOUND: &str = "first sound";
/// Note of that bar for a stream.
const OF_STREAM: &str = "of the stream's server";
/// Longest time from the answer to the command of a prompt that is part of the set-up.
const PROMPT_FOLLOWS_US: i64 = 1_000_000;
/// Name of the first bar, until the first input provides a better one.
const WEBHOOK: &str = "webhook";

/// A waterfall under construction.
struct Builder {
    fall: Waterfall,
    /// Indices of bars that wait for their end.
    ice: Option<usize>,
    dtls: Option<usize>,
    play: Option<(PlayId, usize)>,
    /// The bars of all playlists.
    plays: BTreeMap<PlayId, usize>,
    /// When the audio of a stream began, until its server's first sound.
    stream_begun: Option<i64>,
    /// The recognisers of utterances whose words have not been reported yet.
    recognised: BTreeMap<RecognitionId, RecogniserUse>,
    instruction: Option<usize>,
    /// Bars of Graph requests and fetches without a trace line yet. Old logs have none.
    untraced: Vec<(RequestKey, usize)>,
    /// Requests that wait for their response body.
    unanswered: Vec<(RequestKey, usize)>,
    /// The call's setup and Meta's id.
    setup: Option<Box<CallSetup>>,
    wacid: Option<Wacid>,
    /// Indices of the bars for the start of the call, the SDP offer and the SDP answer.
    webhook: Option<usize>,
    offer_at: Vec<usize>,
    answer_at: Vec<usize>,
    offer: Option<String>,
    answer: Option<String>,
    /// Callbacks in the machine's outputs, and the bars of callbacks.
    notices: Vec<(&'static str, Body)>,
    callbacks: Vec<(usize, String, Option<Uuid>)>,
}

#[derive(Clone, Copy, PartialEq)]
enum RequestKey {
    Graph(GraphAction),
    Fetch(u32),
}

impl Builder {
    fn new(header: Header) -> Self {
        let fall = Waterfall {
            call: header.call,
            trace_id: header.trace_id,
            from: String::new(),
            to: String::new(),
            direction: None,
            started: None,
            answered_us: None,
            ended_us: None,
            cause: None,
            bars: Vec::new(),
            left_out: 0,
            findings: Vec::new(),
            remarks: Vec::new(),
            voices: Vec::new(),
            recognisers: Vec::new(),
            quality: None,
            course: None,
        };
        Self {
            fall,
            ice: None,
            dtls: None,
            play: None,
            plays: BTreeMap::new(),
            stream_begun: None,
            recognised: BTreeMap::new(),
            instruction: None,
            untraced: Vec::new(),
            unanswered: Vec::new(),
            setup: None,
            wacid: None,
            webhook: None,
            offer_at: Vec::new(),
            answer_at: Vec::new(),
            offer: None,
            answer: None,
            notices: Vec::new(),
            callbacks: Vec::new(),
        }
    }

    fn done(mut self) -> Waterfall {
        self.fall.bars.sort_by_key(|bar| bar.from_us);
        self.fall
    }

    /// Adds a bar and returns its index. `None` if there are too many.
    fn add(&mut self, bar: Bar) -> Option<usize> {
        if self.fall.bars.len() >= BARS_MAX {
            self.fall.left_out += 1;
            return None;
        }
        self.fall.bars.push(bar);
        Some(self.fall.bars.len() - 1)
    }

    fn end(&mut self, place: Option<usize>, at: i64) {
        if let Some(bar) = place.and_then(|place| self.fall.bars.get_mut(place)) {
            bar.to_us.get_or_insert(at);
        }
    }

    fn entry(&mut self, at: CallTime, input: &Input, outputs: &[Output]) {
        let at = us(at);
        self.input(at, input);
        for output in outputs {
            self.output(at, output);
        }
    }

    fn input(&mut self, at: i64, input: &Input) {
        match input {
            Input::Offered { setup } | Input::Placed { setup } => {
                let cut = |text: &str| format!("…{}", last_four(text));
                let (from, to) = (&*setup.from, &*setup.to);
                (self.fall.from, self.fall.to) = match person(setup.direction, from, to) {
                    Some(Party::From) => (cut(from), to.to_owned()),
                    Some(Party::To) => (from.to_owned(), cut(to)),
                    None => (from.to_owned(), to.to_owned()),
                };
                self.fall.direction = Some(setup.direction);
                self.fall.started = Some(setup.started);
                self.begin(setup);
            }
            Input::Graph { action, outcome } => {
                self.settle(RequestKey::Graph(*action), at, outcome.to_string());
                let body = bodies::answer(*action, outcome, self.wacid.as_ref());
                self.answered(RequestKey::Graph(*action), body);
            }
            Input::Fetched { fetch, result } => {
                let note = match result {
                    Ok(FetchResponse::Document { .. } | FetchResponse::Ignored) => "ok",
                    Ok(FetchResponse::Refused { .. }) => "not valid",
                    Err(failure) => failure.outcome(),
                };
                self.settle(RequestKey::Fetch(fetch.0), at, note.to_owned());
                self.answered(RequestKey::Fetch(fetch.0), Body::fetched(result));
            }
            Input::Media { event: MediaEvent::IceUp, .. } => {
                let ice = self.ice.take();
                self.end(ice, at);
                self.dtls = self.add(Bar::new(Actor::Media, "DTLS", at, None));
            }
            Input::Media { event: MediaEvent::Connected, .. } => {
                let (ice, dtls) = (self.ice.take(), self.dtls.take());
                self.end(ice, at);
                self.end(dtls, at);
            }
            Input::Media { event: MediaEvent::FirstPacket, .. } => {
                self.add(Bar::moment(Actor::Media, "first packet in", at));
            }
            Input::Media { event: what @ MediaEvent::Lost { .. }, .. } => {
                self.add(Bar::moment(Actor::Media, "media", at).noted(what.to_string(), true));
            }
            Input::PlayStarted { play, .. } => {
                if let Some((_, place)) = self.play.take_if(|(waiting, _)| waiting == play) {
                    self.end(Some(place), at);
                }
            }
            Input::PlayFailed { reason, .. } => {
                self.add(
                    Bar::moment(Actor::Media, "a sound failed", at).noted(reason.clone(), true),
                );
            }
            Input::Digit { .. } => {
                self.add(
                    Bar::moment(Actor::Person, "digit", at)
                        .noted(describe(input, "digit A "), false),
                );
            }
            Input::Voice { .. } => {
                self.add(
                    Bar::moment(Actor::Person, "voice", at)
                        .noted(describe(input, "voice A "), false),
                );
            }
            // The caller's words are omitted.
            Input::Speech { recognition, event: what } => {
                let note = match what {
                    SpeechEvent::Interim { .. } => "words so far".to_owned(),
                    SpeechEvent::Understood { .. } => match self.recognised.remove(recognition) {
                        Some(by) => format!("understood by {by}"),
                        None => "understood".to_owned(),
                    },
                    other => other.to_string(),
                };
                self.add(
                    Bar::moment(Actor::Person, "speech", at)
                        .noted(note, matches!(what, SpeechEvent::Failed { .. })),
                );
            }
            Input::Recording { .. } => {
                self.add(
                    Bar::moment(Actor::Media, "recording", at)
                        .noted(describe(input, "recording "), false),
                );
            }
            Input::Terminated { .. } => {
                let Input::Terminated { termination } = input else { return };
                let is_web = self.setup.as_deref().is_some_and(|s| s.call_type == CallType::Web);
                let name = if is_web { "hung up" } else { "terminate webhook" };
                let bar = Bar::moment(Actor::Person, name, at)
                    .noted(describe(input, "terminated "), false);
                let setup = self.setup.as_deref().filter(|s| s.call_type == CallType::Whatsapp);
                let body = setup.map(|s| bodies::terminated(s, self.wacid.as_ref(), termination));
                self.add(bar.with(body));
            }
            Input::Command { .. } => {
                self.add(
                    Bar::moment(Actor::Person, "over the API", at)
                        .noted(describe(input, "command "), false),
                );
            }
            Input::HangUp { cause } => {
                self.add(Bar::moment(Actor::Node, "cut", at).noted(cause.as_str(), true));
            }
            Input::SdpAnswer { usable } => {
                let bar = Bar::moment(Actor::Node, "SDP answer", at)
                    .noted(if *usable { "" } else { "unusable" }, !usable);
                let body = self.setup.as_deref().filter(|s| s.call_type == CallType::Whatsapp);
                let body = body.map(|s| bodies::answered(s, self.wacid.as_ref()));
                let place = self.add(bar.with(body));
                self.answer_at.extend(place);
            }
            Input::Status { status } => {
                let body = self.setup.as_deref().filter(|s| s.call_type == CallType::Whatsapp);
                let body = body.map(|s| bodies::status(s, self.wacid.as_ref(), *status));
                self.add(Bar::moment(Actor::Person, status.as_str(), at).with(body));
            }
            Input::BLeg { .. } => {
                self.add(
                    Bar::moment(Actor::Person, "B-leg", at).noted(describe(input, "leg "), false),
                );
            }
            Input::ALeg { .. } => {
                self.add(
                    Bar::moment(Actor::Person, "by the A-leg", at)
                        .noted(describe(input, "ordered "), false),
                );
            }
            Input::Room { .. } => {
                self.add(
                    Bar::moment(Actor::Person, "in a room", at)
                        .noted(describe(input, "room "), false),
                );
            }
            Input::Stream { .. } => {
                self.add(
                    Bar::moment(Actor::Media, "stream", at)
                        .noted(describe(input, "stream "), false),
                );
            }
            Input::Bound { wacid } => self.wacid = Some(wacid.clone()),
            Input::Media { event: MediaEvent::Flowing, .. }
            | Input::Played { .. }
            | Input::DigitsSent { .. }
            | Input::Timer => {}
        }
    }

    fn output(&mut self, at: i64, output: &Output) {
        match output {
            Output::Graph { action } => {
                let body =
                    self.setup.as_deref().map(|s| bodies::asked(s, self.wacid.as_ref(), *action));
                let bar = Bar::new(Actor::Graph, graph_name(*action), at, None).with(body);
                let place = self.open(RequestKey::Graph(*action), bar);
                match action {
                    GraphAction::Connect => self.offer_at.extend(place),
                    GraphAction::PreAccept | GraphAction::Accept => self.answer_at.extend(place),
                    GraphAction::Reject | GraphAction::Terminate => {}
                }
            }
            Output::Fetch { fetch, kind, url, method, params, .. } => {
                let body = Body::form(*method, &url.0, params);
                let bar = Bar::new(Actor::Customer, fetch_name(*kind), at, None).with(Some(body));
                self.open(RequestKey::Fetch(fetch.0), bar);
            }
            Output::CancelFetch { fetch } => {
                // The trace line of the fetch follows later.
                let open = self
                    .untraced
                    .iter()
                    .find(|(open, _)| *open == RequestKey::Fetch(fetch.0))
                    .map(|(_, place)| *place);
                if let Some(place) = open {
                    self.note(place, at, "cut", false);
                }
            }
            Output::Media { command: MediaCommand::Begin, .. } => {
                self.ice = self.add(Bar::new(Actor::Media, "ICE", at, None));
            }
            Output::Media { command: MediaCommand::Close, .. } => {
                // The call ended before the step completed, so the bar is not a failure.
                for place in [self.ice.take(), self.dtls.take()].into_iter().flatten() {
                    self.note(place, at, "closed", false);
                }
            }
            Output::Media { command: MediaCommand::Play { play, .. }, .. } => {
                let place = self.add(Bar::new(Actor::Media, FIRST_SOUND, at, None));
                self.play = place.map(|place| (*play, place));
                self.plays.extend(self.play);
            }
            Output::Media { command: MediaCommand::Stop { play }, .. } => {
                // Stopped before its first packet, so the bar does not show a delay.
                if let Some((_, place)) = self.play.take_if(|(waiting, _)| waiting == play) {
                    self.note(place, at, "stopped", false);
                }
            }
            Output::Stream { command: StreamCommand::Begin, .. } => self.stream_begun = Some(at),
            Output::Instruction { element, line, outcome: InstructionOutcome::Started, .. } => {
                let name = format!("<{element}> line {line}");
                self.instruction = self.add(Bar::new(Actor::Instruction, name, at, None));
            }
            Output::Instruction { element, line, outcome, note } => {
                let word = match outcome {
                    InstructionOutcome::Started | InstructionOutcome::Done => "done",
                    InstructionOutcome::Skipped => "skipped",
                    InstructionOutcome::Failed => "failed",
                    InstructionOutcome::Cut => "cut",
                };
                let note =
                    if note.is_empty() { word.to_owned() } else { format!("{word}: {note}") };
                let failed = *outcome == InstructionOutcome::Failed;
                match self.instruction.take() {
                    Some(place) => self.note(place, at, &note, failed),
                    None => {
                        let bar =
                            Bar::moment(Actor::Instruction, format!("<{element}> line {line}"), at);
                        self.add(bar.noted(note, failed));
                    }
                }
            }
            Output::State { state: CallState::Live } => {
                self.fall.answered_us.get_or_insert(at);
            }
            Output::Concluded { summary } => {
                self.fall.ended_us = Some(at);
                self.fall.cause = Some(summary.cause.as_str());
                self.notice(&summary.hangup);
            }
            Output::Remark { text } => {
                if self.fall.remarks.len() < NOTES_MAX {
                    self.fall.remarks.push((at, text.clone()));
                }
            }
            Output::Findings { findings } => {
                for finding in findings {
                    let known = self.fall.findings.iter().any(|(_, known)| known == finding);
                    if !known && self.fall.findings.len() < NOTES_MAX {
                        self.fall.findings.push((at, finding.clone()));
                    }
                }
            }
            Output::Callback { callback: notice } => self.notice(notice),
            Output::Dial { .. }
            | Output::State { .. }
            | Output::Prepare { .. }
            | Output::Media { .. }
            | Output::BLeg { .. }
            | Output::ALeg { .. }
            | Output::Speech { .. }
            | Output::Room { .. }
            | Output::Stream { .. }
            | Output::FreeSlot
            | Output::Over => {}
        }
    }

    fn open(&mut self, asked: RequestKey, bar: Bar) -> Option<usize> {
        let place = self.add(bar)?;
        self.untraced.push((asked, place));
        self.unanswered.push((asked, place));
        Some(place)
    }

    fn note(&mut self, place: usize, at: i64, note: &str, failed: bool) {
        self.end(Some(place), at);
        if let Some(bar) = self.fall.bars.get_mut(place) {
            (bar.note, bar.failed) = (note.to_owned(), failed);
        }
    }

    /// Completes the bar of a request from its input.
    fn settle(&mut self, asked: RequestKey, at: i64, note: String) {
        if let Some(index) = self.untraced.iter().position(|(open, _)| *open == asked) {
            let (_, place) = self.untraced.swap_remove(index);
            let failed = !matches!(note.as_str(), "ok" | "done" | "gone");
            self.note(place, at, &note, failed);
        }
    }

    /// Replaces the bar of a request with that of its trace line, which is more precise. If no
    /// request was sent (`unsent`), the following input gives the reason.
    fn replace(&mut self, asked: RequestKey, bar: Bar, unsent: bool) {
        let Some(index) = self.untraced.iter().position(|(open, _)| *open == asked) else {
            self.add(bar);
            return;
        };
        let place = match (unsent, self.untraced.get(index)) {
            (true, Some((_, place))) => *place,
            _ => self.untraced.swap_remove(index).1,
        };
        if let Some(old) = self.fall.bars.get_mut(place) {
            let bodies = std::mem::take(&mut old.bodies);
            *old = Bar { bodies, ..bar };
        }
    }

    fn trace(&mut self, trace: Trace) {
        match trace {
            Trace::Begun { received_us, admitted_us, running_us, media_us } => {
                for (name, from, to) in [
                    (WEBHOOK, received_us, 0),
                    ("admission", 0, admitted_us),
                    ("queue", admitted_us, running_us),
                    ("media port, SDP", running_us, media_us),
                ] {
                    let place = self.add(Bar::new(Actor::Node, name, from, Some(to.max(from))));
                    if name == WEBHOOK {
                        self.webhook = place;
                    }
                }
            }
            Trace::Graph { action, from_us, to_us, tries } => {
                let bar = graph_bar(action, from_us, to_us, &tries);
                self.replace(RequestKey::Graph(action), bar, tries.is_empty());
            }
            Trace::Fetch { fetch, kind, from_us, to_us, tries, parse_us } => {
                let bar = fetch_bar(kind, from_us, to_us, &tries, parse_us);
                self.replace(RequestKey::Fetch(fetch.0), bar, tries.is_empty());
            }
            Trace::FirstSent { at_us } => {
                self.add(Bar::moment(Actor::Media, "first packet out", at_us));
            }
            Trace::StreamSounds { at_us } => {
                let from = self.stream_begun.take().unwrap_or(at_us);
                let bar = Bar::new(Actor::Media, FIRST_SOUND, from, Some(at_us.max(from)));
                self.add(bar.noted(OF_STREAM, false));
            }
            Trace::Spoken { play, voices } => {
                if let Some(bar) =
                    self.plays.get(&play).and_then(|place| self.fall.bars.get_mut(*place))
                    && bar.note.is_empty()
                {
                    let names: Vec<String> = voices.iter().map(ToString::to_string).collect();
                    bar.note = names.join("; ");
                }
                voices.into_iter().for_each(|voice| count_use(&mut self.fall.voices, voice));
            }
            Trace::Recognised { recognition, recogniser, language } => {
                let by = RecogniserUse { recogniser, language };
                count_use(&mut self.fall.recognisers, by.clone());
                if self.recognised.len() < SPEECH_MAX {
                    self.recognised.insert(recognition, by);
                }
            }
            Trace::Remark { at_us, text } => {
                if self.fall.remarks.len() < NOTES_MAX {
                    self.fall.remarks.push((at_us, text));
                }
            }
            Trace::Quality { quality, .. } => self.fall.quality = Some(quality),
            Trace::Course { course, .. } => self.fall.course = Some(course),
            Trace::Sdp { offer, answer } => {
                self.offer = self.offer.take().or(offer);
                self.answer = self.answer.take().or(answer);
            }
            Trace::Callback { began, ref kind, event_id, .. } => {
                // Wall-clock time compared with the call's time: precise enough for events that can
                // be hours later.
                let zero = self.fall.started.unwrap_or(began);
                let place = Waterfall::callback(&trace, zero).and_then(|bar| self.add(bar));
                self.callbacks.extend(place.map(|place| (place, kind.clone(), event_id)));
            }
            Trace::Unknown => {}
        }
    }
}

/// Counts one more use of `item`.
fn count_use<T: PartialEq>(uses: &mut Vec<(T, u32)>, item: T) {
    if let Some((_, count)) = uses.iter_mut().find(|(known, _)| *known == item) {
        *count = count.saturating_add(1);
    } else if uses.len() < SPEECH_MAX {
        uses.push((item, 1));
    }
}

/// Formats an input without the prefix `without`.
fn describe(input: &Input, without: &str) -> String {
    let text = input.to_string();
    text.strip_prefix(without).map_or(text.clone(), str::to_owned)
}

fn us(at: CallTime) -> i64 {
    i64::try_from(at.0.saturating_mul(1_000)).unwrap_or(i64::MAX)
}
