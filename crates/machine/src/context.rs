//! State that all parts of a machine share: the time, the timers, the data of the call and its
//! outputs.
//!
//! Every output passes through here. Rules for all states and instructions are therefore enforced
//! in one place: a closed leg gets no further command, and a call never sends both a reject and an
//! accept.

mod snapshot;

use std::collections::VecDeque;
use std::time::Duration;

use super::timers::{DocumentTimer, Timer, Timers};
use crate::contract::{
    BLegEvent, CallSetup, CallState, CallTime, CallbackKind, CallbackRequest, FetchId, FetchKind,
    GraphAction, InstructionOutcome, MediaCommand, MediaEvent, MediaFault, Output, Params, PlayId,
    RecognitionId, RecordingId, RecordingOrder, SoundItem, StreamOrder, Termination,
};
use model::{CallUuid, Direction, HangupCause, Leg, StreamId, Timestamp};
use xml::ast::{Document, Finding, Position, Severity, Target};

/// Timeout of Meta's terminate webhook after the relay has closed DTLS. It usually arrives within
/// 50–500 ms.
const PATH_CLOSED_MS: u64 = 1_500;
/// Time by which a fetch may exceed its deadline before the machine treats it as failed.
const FETCH_GRACE_MS: u64 = 1_000;
/// Bit that distinguishes the derived ids of streams from those of legs.
const STREAM_IDS: u64 = 1 << 32;

/// The place of an instruction in its document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) element: &'static str,
    pub(super) at: Position,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at line {}", self.element, self.at.line)
    }
}

/// The ring-back that a room plays while a call is placed for it.
#[derive(Debug, Default)]
pub(super) struct RoomRingback {
    pub(super) fetch: Option<FetchId>,
    /// Whether the room plays the ring-back.
    pub(super) is_playing: bool,
}

/// A stream that is being opened, or is open.
pub(super) struct OpenStream {
    pub(super) id: StreamId,
    pub(super) order: Box<StreamOrder>,
    pub(super) began: bool,
}

/// The shared state of a call. See the [module documentation](self).
pub(super) struct CallContext {
    pub(super) now: CallTime,
    pub(super) timers: Timers,
    pub(super) setup: Box<CallSetup>,
    pub(super) answered: Option<CallTime>,
    /// Whether the document of the answer URL or the fallback URL has been received.
    pub(super) document_received: bool,
    /// Whether ICE and DTLS were completed at any time.
    pub(super) connected: bool,
    /// Whether the media path is lost. `accept` is then no longer sent.
    pub(super) path_lost: bool,
    /// The terminate webhook of Meta, if it has been received.
    pub(super) termination: Option<Termination>,
    /// The conference that the call is in or has last been in.
    pub(super) conference: Option<uuid::Uuid>,
    /// The ring-back in the room that this call is placed for.
    pub(super) room_ringback: RoomRingback,
    /// The stream of the call.
    pub(super) stream: Option<OpenStream>,
    began: CallTime,
    outputs: VecDeque<Output>,
    fetches: u32,
    plays: u32,
    recognitions: u32,
    legs: u32,
    streams: u32,
    recordings: u32,
    /// The requests to Graph, at most one for each action, and whether Graph has responded.
    graph_requests: Vec<(GraphAction, bool)>,
    closed: bool,
    /// The cause with which the call has ended. `None` while it continues.
    concluded: Option<HangupCause>,
    over: bool,
}

impl CallContext {
    pub(super) fn new(now: CallTime, setup: Box<CallSetup>) -> Self {
        Self {
            now,
            timers: Timers::default(),
            setup,
            answered: None,
            document_received: false,
            connected: false,
            path_lost: false,
            termination: None,
            conference: None,
            room_ringback: RoomRingback::default(),
            stream: None,
            began: now,
            outputs: VecDeque::with_capacity(16),
            fetches: 0,
            plays: 0,
            recognitions: 0,
            legs: 0,
            streams: 0,
            recordings: 0,
            graph_requests: Vec::new(),
            closed: false,
            concluded: None,
            over: false,
        }
    }

    /// Removes and returns the oldest output, or returns `None` if there is none.
    pub(super) fn next_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Shrinks the output queue to the usual size of a step.
    pub(super) fn shrink(&mut self) {
        self.outputs.shrink_to(4);
    }

    /// Converts a time of the call to wall-clock time, for display only.
    pub(super) fn wall_clock(&self, at: CallTime) -> Timestamp {
        self.setup.started.plus(Duration::from_millis(at.0.saturating_sub(self.began.0)))
    }

    /// Returns how much time is left for the answer URL and the fallback URL together, in
    /// milliseconds.
    ///
    /// Only inbound calls have such a limit, since the caller's phone rings in the meantime.
    pub(super) fn answer_budget_ms(&self) -> u64 {
        match self.setup.direction {
            Direction::Inbound => {
                let elapsed_ms = self.now.0.saturating_sub(self.began.0);
                self.setup.limits.answer_budget_ms.saturating_sub(elapsed_ms)
            }
            Direction::Outbound => u64::MAX,
        }
    }

    /// Sets a timer `millis` from now.
    pub(super) fn set_timer(&mut self, timer: impl Into<Timer>, millis: u64) {
        self.timers.set(timer, self.now.plus(millis));
    }

    /// Sets the timer that ends the call after T_reap, even if nothing else happens.
    pub(super) fn set_reap_timer(&mut self) {
        self.set_timer(Timer::Reap, self.setup.limits.reap_ms);
    }

    pub(super) fn emit(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(super) fn report_state(&mut self, state: CallState) {
        self.emit(Output::State { state });
    }

    pub(super) fn remark(&mut self, text: String) {
        self.emit(Output::Remark { text });
    }

    pub(super) fn instruction(&mut self, place: Place, outcome: InstructionOutcome, note: &str) {
        self.emit(Output::Instruction {
            element: place.element.to_owned(),
            line: place.at.line,
            outcome,
            note: note.to_owned(),
        });
    }

    /// Skips an instruction and logs the reason.
    pub(super) fn skip(&mut self, place: Place, reason: &str) {
        self.remark(format!("{place} is skipped: {reason}"));
        self.instruction(place, InstructionOutcome::Skipped, reason);
    }

    pub(super) fn findings(&mut self, findings: &[Finding]) {
        let mut findings = limit_findings(findings);
        if self.setup.limits.allow_plain_urls {
            findings.retain(|finding| !finding.is_plain_url());
        }
        if !findings.is_empty() {
            self.emit(Output::Findings { findings });
        }
    }

    /// Sends a request to Graph. A call never sends both a reject and an accept.
    pub(super) fn graph(&mut self, action: GraphAction) {
        self.graph_requests.retain(|(requested, _)| *requested != action);
        self.graph_requests.push((action, false));
        self.emit(Output::Graph { action });
    }

    /// Marks a request as answered by Graph.
    pub(super) fn graph_answered(&mut self, action: GraphAction) {
        for (_, answered) in
            self.graph_requests.iter_mut().filter(|(requested, _)| *requested == action)
        {
            *answered = true;
        }
    }

    /// Sends a command to the media of the A-leg. Does nothing after `Close`.
    pub(super) fn media(&mut self, command: MediaCommand) {
        if self.closed {
            return;
        }
        self.closed = command == MediaCommand::Close;
        self.emit(Output::Media { leg: Leg::A, command });
    }

    /// Plays a playlist.
    pub(super) fn play(&mut self, items: Vec<SoundItem>) -> PlayId {
        let play = self.next_play();
        self.media(MediaCommand::Play { play, items });
        play
    }

    /// Returns a new id for a playlist or a sequence of digits.
    pub(super) fn next_play(&mut self) -> PlayId {
        self.plays = self.plays.saturating_add(1);
        PlayId(self.plays)
    }

    /// Returns a new id for a recognition.
    pub(super) fn next_recognition(&mut self) -> RecognitionId {
        self.recognitions = self.recognitions.saturating_add(1);
        RecognitionId(self.recognitions)
    }

    /// Records the A-leg.
    pub(super) fn record(&mut self, order: RecordingOrder) -> RecordingId {
        self.recordings = self.recordings.saturating_add(1);
        let recording = RecordingId(self.recordings);
        self.media(MediaCommand::Record { recording, order: Box::new(order) });
        recording
    }

    /// Returns the id of a new B-leg.
    ///
    /// The id is derived from that of the call, so that a replay of the event log yields the same
    /// one.
    pub(super) fn next_leg(&mut self) -> CallUuid {
        self.legs = self.legs.saturating_add(1);
        CallUuid(self.derived(u64::from(self.legs)))
    }

    /// Returns the id of a new stream, derived like that of a B-leg.
    pub(super) fn next_stream(&mut self) -> StreamId {
        self.streams = self.streams.saturating_add(1);
        StreamId(self.derived(u64::from(self.streams) | STREAM_IDS))
    }

    /// Derives the `nth` id from the id of the call.
    fn derived(&self, nth: u64) -> uuid::Uuid {
        let (high, low) = self.setup.call.0.as_u64_pair();
        let mixed = |of: u64, with: u64| scramble(of ^ scramble(with ^ nth));
        let bits = (u128::from(mixed(high, low)) << 64) | u128::from(mixed(low, !high));
        uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid()
    }

    /// Returns the time of the call's first input.
    pub(super) fn began(&self) -> CallTime {
        self.began
    }

    /// Stores the cause with which the call ended. Returns `false` if it had ended already.
    pub(super) fn set_concluded(&mut self, cause: HangupCause) -> bool {
        let first = self.concluded.is_none();
        self.concluded.get_or_insert(cause);
        first
    }

    /// Returns the seconds since `from`, rounded up.
    pub(super) fn seconds_since(&self, from: CallTime) -> u64 {
        self.now.0.saturating_sub(from.0).div_ceil(1_000)
    }

    /// Fetches a document.
    pub(super) fn fetch(
        &mut self,
        kind: FetchKind,
        target: Target,
        params: Params,
        deadline_ms: u64,
    ) -> FetchId {
        self.fetches = self.fetches.saturating_add(1);
        let fetch = FetchId(self.fetches);
        self.set_timer(DocumentTimer::Fetch, deadline_ms.saturating_add(FETCH_GRACE_MS));
        self.emit(Output::Fetch {
            fetch,
            kind,
            url: target.url,
            method: target.method,
            params,
            deadline_ms,
        });
        fetch
    }

    /// Cancels the fetch of a document.
    pub(super) fn cancel_fetch(&mut self, fetch: FetchId) {
        self.timers.clear(DocumentTimer::Fetch);
        self.emit(Output::CancelFetch { fetch });
    }

    /// Sends an action as a callback and ignores its response.
    pub(super) fn notify_action(&mut self, target: Target, params: Params) {
        let callback = CallbackRequest {
            kind: CallbackKind::Action,
            url: target.url,
            method: target.method,
            params,
        };
        self.emit(Output::Callback { callback });
    }

    /// Reports an event to the leg that dialled this one, if there is one.
    pub(super) fn report_to_a_leg(&mut self, event: BLegEvent) {
        if self.setup.b_leg().is_some() {
            self.emit(Output::ALeg { event });
        }
    }

    /// Handles a change of the media path. Returns the cause if the call must end now.
    pub(super) fn handle_media(&mut self, event: &MediaEvent) -> Option<HangupCause> {
        match event {
            MediaEvent::IceUp | MediaEvent::FirstPacket | MediaEvent::Flowing => None,
            MediaEvent::Connected => {
                self.connected = true;
                self.timers.clear(Timer::MediaSetup);
                None
            }
            MediaEvent::Lost { fault } => {
                self.path_lost = true;
                match fault {
                    // Meta's relay closes DTLS when the user hangs up. The terminate webhook
                    // follows.
                    MediaFault::DtlsClosed => {
                        self.set_timer(Timer::PathClosed, PATH_CLOSED_MS);
                        None
                    }
                    MediaFault::Silent | MediaFault::Fingerprint | MediaFault::DtlsFailed => {
                        Some(self.path_cause())
                    }
                    MediaFault::Broken => Some(HangupCause::InternalError),
                }
            }
        }
    }

    /// Returns the cause for a lost path, which depends on whether it was ever up.
    pub(super) fn path_cause(&self) -> HangupCause {
        if self.connected { HangupCause::MediaTimeout } else { HangupCause::MediaSetupTimeout }
    }

    /// Ends the machine with its last output.
    pub(super) fn finish(&mut self) {
        self.timers.clear_all();
        self.report_state(CallState::Over);
        self.over = true;
        self.emit(Output::Over);
    }

    /// Asserts the invariants that hold after each step, whatever the inputs were.
    pub(super) fn assert_invariants(&self) {
        let sent = |action| self.graph_requests.iter().any(|(requested, _)| *requested == action);
        let both = sent(GraphAction::Accept) && sent(GraphAction::Reject);
        assert!(!both, "both an accept and a reject were sent");
        assert!(
            !self.over || (self.concluded.is_some() && self.closed),
            "the machine ended before its call and media did"
        );
        assert!(!self.over || self.timers.next().is_none(), "a timer outlives the call");
        assert!(
            self.timers.next().is_none_or(|(at, _)| at >= self.now),
            "a timer was not fired: {:?}",
            self.timers
        );
    }
}

/// The output function of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number
/// generators", 2014).
fn scramble(bits: u64) -> u64 {
    let bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Returns the findings that are output and logged: the first 100, and the first error if it is not
/// among them.
///
/// The function is idempotent.
pub(super) fn limit_findings(findings: &[Finding]) -> Vec<Finding> {
    let mut shown: Vec<_> = findings.iter().take(Document::MAX_WARNINGS).cloned().collect();
    let first_error = findings.iter().position(|f| f.severity == Severity::Error);
    if let Some(error) =
        first_error.filter(|at| *at >= Document::MAX_WARNINGS).and_then(|at| findings.get(at))
    {
        shown.truncate(Document::MAX_WARNINGS - 1);
        shown.push(error.clone());
    }
    shown
}
