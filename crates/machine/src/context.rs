//! What every part of a machine may touch: the time, the timers, the facts of the call, the wishes made.
//!
//! States and instructions decide; whatever they wish for passes here, so that the rules which bind all of
//! them (no order to a closed leg, never both a reject and an accept) are kept in one place.

mod snapshot;

use std::collections::VecDeque;
use std::time::Duration;

use super::timers::{Timer, Timers};
use crate::contract::{
    BLegEvent, CallSetup, CallState, CallTime, CallbackKind, CallbackRequest, FetchId, FetchKind,
    GraphAction, InstructionOutcome, MediaCommand, MediaEvent, MediaFault, Output, Params, PlayId,
    RecognitionId, RecordingId, RecordingOrder, SoundItem, StreamOrder, Termination,
};
use model::{CallUuid, Direction, HangupCause, Leg, StreamId, Timestamp};
use xml::ast::{Finding, Position, Severity, Target};

/// How long a terminate webhook may take to explain a DTLS close: Meta's comes 50–500 ms after (§8 M11).
const PATH_CLOSED_MS: u64 = 1_500;
/// Beyond a fetch's own deadline: whoever fetches has forgotten us.
const FETCH_GRACE_MS: u64 = 1_000;
/// Findings of one document that are passed on.
const FINDINGS_MAX: usize = 100;
/// What tells the names of streams from those of legs.
const STREAMS: u64 = 1 << 32;

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

/// How far it is.
#[derive(Debug, Default)]
pub(super) struct RoomRingback {
    pub(super) fetch: Option<FetchId>,
    /// The room has been told.
    pub(super) heard: bool,
}

/// A stream that is being opened, or is open.
pub(super) struct OpenStream {
    pub(super) id: StreamId,
    pub(super) order: Box<StreamOrder>,
    pub(super) began: bool,
}

/// See the module's note.
pub(super) struct CallContext {
    pub(super) now: CallTime,
    pub(super) timers: Timers,
    pub(super) setup: Box<CallSetup>,
    pub(super) answered: Option<CallTime>,
    /// The answer document (or the fallback's) has come in.
    pub(super) document_in: bool,
    /// ICE and DTLS are, or have been, up.
    pub(super) connected: bool,
    /// The path is gone: no use in picking up.
    pub(super) path_lost: bool,
    /// What Meta's terminate webhook said, if it came.
    pub(super) termination: Option<Termination>,
    /// The conference that it is, or was last, in.
    pub(super) conference: Option<uuid::Uuid>,
    /// What those in a room hear while this call is placed for it.
    pub(super) ringing: RoomRingback,
    /// The call's stream.
    pub(super) stream: Option<OpenStream>,
    began: CallTime,
    wishes: VecDeque<Output>,
    fetches: u32,
    plays: u32,
    recognitions: u32,
    legs: u32,
    streams: u32,
    records: u32,
    /// What Graph was asked for, each action once, and whether it has answered.
    asked: Vec<(GraphAction, bool)>,
    closed: bool,
    /// By what the call ended.
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
            document_in: false,
            connected: false,
            path_lost: false,
            termination: None,
            conference: None,
            ringing: RoomRingback::default(),
            stream: None,
            began: now,
            wishes: VecDeque::with_capacity(16),
            fetches: 0,
            plays: 0,
            recognitions: 0,
            legs: 0,
            streams: 0,
            records: 0,
            asked: Vec::new(),
            closed: false,
            concluded: None,
            over: false,
        }
    }

    /// The oldest wish not yet taken.
    pub(super) fn take_wish(&mut self) -> Option<Output> {
        self.wishes.pop_front()
    }

    /// Leaves room for the wishes of a usual step.
    pub(super) fn rest(&mut self) {
        self.wishes.shrink_to(4);
    }

    /// Wall-clock time of a moment of the call, for printing.
    pub(super) fn wall(&self, at: CallTime) -> Timestamp {
        self.setup.started.plus(Duration::from_millis(at.0.saturating_sub(self.began.0)))
    }

    /// What is left for answer and fallback together: a caller whose phone rings waits no longer. Whoever was called
    /// and picked up has each fetch's own deadline.
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
    pub(super) fn set(&mut self, timer: Timer, millis: u64) {
        self.timers.set(timer, self.now.plus(millis));
    }
    /// From now on the call ends after T_reap, whatever comes.
    pub(super) fn reap(&mut self) {
        self.set(Timer::Reap, self.setup.limits.reap_ms);
    }

    pub(super) fn wish(&mut self, wish: Output) {
        self.wishes.push_back(wish);
    }

    pub(super) fn state(&mut self, state: CallState) {
        self.wish(Output::State { state });
    }

    pub(super) fn remark(&mut self, text: String) {
        self.wish(Output::Remark { text });
    }

    pub(super) fn instruction(&mut self, place: Place, outcome: InstructionOutcome, note: &str) {
        self.wish(Output::Instruction {
            element: place.element.to_owned(),
            line: place.at.line,
            outcome,
            note: note.to_owned(),
        });
    }

    /// Skips an instruction and says why.
    pub(super) fn skip(&mut self, place: Place, why: &str) {
        self.remark(format!("{place} is skipped: {why}"));
        self.instruction(place, InstructionOutcome::Skipped, why);
    }

    pub(super) fn findings(&mut self, findings: &[Finding]) {
        if !findings.is_empty() {
            self.wish(Output::Findings { findings: shown(findings) });
        }
    }

    /// Sends to Graph. A call never has both a reject and an accept sent (R6).
    pub(super) fn graph(&mut self, action: GraphAction) {
        self.asked.retain(|(asked, _)| *asked != action);
        self.asked.push((action, false));
        self.wish(Output::Graph { action });
    }

    /// Graph has answered that.
    pub(super) fn graph_answered(&mut self, action: GraphAction) {
        for (_, answered) in self.asked.iter_mut().filter(|(asked, _)| *asked == action) {
            *answered = true;
        }
    }

    /// Orders the A-leg's media; after `Close` nothing more is ordered.
    pub(super) fn media(&mut self, order: MediaCommand) {
        if self.closed {
            return;
        }
        self.closed = order == MediaCommand::Close;
        self.wish(Output::Media { leg: Leg::A, command: order });
    }

    /// Plays a playlist.
    pub(super) fn play(&mut self, items: Vec<SoundItem>) -> PlayId {
        let play = self.next_play();
        self.media(MediaCommand::Play { play, items });
        play
    }

    /// A fresh name for a play or a row of digits.
    pub(super) fn next_play(&mut self) -> PlayId {
        self.plays = self.plays.saturating_add(1);
        PlayId(self.plays)
    }

    /// A fresh name for a recognition.
    pub(super) fn next_recognition(&mut self) -> RecognitionId {
        self.recognitions = self.recognitions.saturating_add(1);
        RecognitionId(self.recognitions)
    }

    /// Has the A-leg recorded.
    pub(super) fn record(&mut self, order: RecordingOrder) -> RecordingId {
        self.records = self.records.saturating_add(1);
        let record = RecordingId(self.records);
        self.media(MediaCommand::Record { recording: record, order: Box::new(order) });
        record
    }

    /// A fresh name for a B-leg: as random as the call's own, and the same in every run of its log.
    pub(super) fn next_leg(&mut self) -> CallUuid {
        self.legs = self.legs.saturating_add(1);
        CallUuid(self.derived(u64::from(self.legs)))
    }

    /// A fresh name for a stream, likewise.
    pub(super) fn next_stream(&mut self) -> StreamId {
        self.streams = self.streams.saturating_add(1);
        StreamId(self.derived(u64::from(self.streams) | STREAMS))
    }

    /// The `nth` name that the call's own leads to.
    fn derived(&self, nth: u64) -> uuid::Uuid {
        let (high, low) = self.setup.call.0.as_u64_pair();
        let mixed = |of: u64, with: u64| scramble(of ^ scramble(with ^ nth));
        let bits = (u128::from(mixed(high, low)) << 64) | u128::from(mixed(low, !high));
        uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid()
    }

    /// The time of the call's first input.
    pub(super) fn began(&self) -> CallTime {
        self.began
    }

    /// Notes the cause that the call ended with. Returns `false` if it has ended already.
    pub(super) fn set_concluded(&mut self, cause: HangupCause) -> bool {
        let first = self.concluded.is_none();
        self.concluded.get_or_insert(cause);
        first
    }

    /// Whole seconds since then, rounded up.
    pub(super) fn seconds_since(&self, from: CallTime) -> u64 {
        self.now.0.saturating_sub(from.0).div_ceil(1_000)
    }

    /// Asks for a document.
    pub(super) fn fetch(
        &mut self,
        kind: FetchKind,
        target: Target,
        params: Params,
        deadline_ms: u64,
    ) -> FetchId {
        self.fetches = self.fetches.saturating_add(1);
        let fetch = FetchId(self.fetches);
        self.set(Timer::Fetch, deadline_ms.saturating_add(FETCH_GRACE_MS));
        self.wish(Output::Fetch {
            fetch,
            kind,
            url: target.url,
            method: target.method,
            params,
            deadline_ms,
        });
        fetch
    }

    /// A document is not wanted any more.
    pub(super) fn cancel_fetch(&mut self, fetch: FetchId) {
        self.timers.clear(Timer::Fetch);
        self.wish(Output::CancelFetch { fetch });
    }

    /// Sends an action whose answer nobody waits for.
    pub(super) fn notify_action(&mut self, target: Target, params: Params) {
        let notice = CallbackRequest {
            kind: CallbackKind::Action,
            url: target.url,
            method: target.method,
            params,
        };
        self.wish(Output::Callback { callback: notice });
    }

    /// Tells the leg that dialled this one, if one did.
    pub(super) fn news(&mut self, news: BLegEvent) {
        if self.setup.b_leg().is_some() {
            self.wish(Output::ALeg { event: news });
        }
    }

    /// Takes in a change of the media path. Gives the cause if the call must end at once.
    pub(super) fn path_changed(&mut self, what: &MediaEvent) -> Option<HangupCause> {
        match what {
            MediaEvent::IceUp | MediaEvent::FirstPacket | MediaEvent::Flowing => None,
            MediaEvent::Connected => {
                self.connected = true;
                self.timers.clear(Timer::MediaSetup);
                None
            }
            MediaEvent::Lost { fault } => {
                self.path_lost = true;
                match fault {
                    // Meta's relay closes its DTLS when the user hangs up; the webhook that says so is on its way.
                    MediaFault::DtlsClosed => {
                        self.set(Timer::PathClosed, PATH_CLOSED_MS);
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

    /// The cause of a lost path: it never came up, or it went away.
    pub(super) fn path_cause(&self) -> HangupCause {
        if self.connected { HangupCause::MediaTimeout } else { HangupCause::MediaSetupTimeout }
    }

    /// The machine's last wish.
    pub(super) fn over(&mut self) {
        self.timers.clear_all();
        self.state(CallState::Over);
        self.over = true;
        self.wish(Output::Over);
    }

    /// What must hold after each step, whatever strangers sent.
    pub(super) fn check(&self) {
        let sent = |action| self.asked.iter().any(|(asked, _)| *asked == action);
        let both = sent(GraphAction::Accept) && sent(GraphAction::Reject);
        assert!(!both, "both an accept and a reject were sent (R6)");
        assert!(
            !self.over || (self.concluded.is_some() && self.closed),
            "over before it was concluded and its media closed"
        );
        assert!(!self.over || self.timers.next().is_none(), "a timer outlives the call");
        assert!(
            self.timers.next().is_none_or(|(at, _)| at >= self.now),
            "a timer was left behind: {:?}",
            self.timers
        );
    }
}

/// The finisher of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
fn scramble(bits: u64) -> u64 {
    let bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// The findings that are passed on and logged: the first hundred, the first error among them in any case.
/// Those of those are the same again.
pub(super) fn shown(findings: &[Finding]) -> Vec<Finding> {
    let mut shown: Vec<_> = findings.iter().take(FINDINGS_MAX).cloned().collect();
    let first_error = findings.iter().position(|f| f.severity == Severity::Error);
    if let Some(error) =
        first_error.filter(|at| *at >= FINDINGS_MAX).and_then(|at| findings.get(at))
    {
        shown.truncate(FINDINGS_MAX - 1);
        shown.push(error.clone());
    }
    shown
}
