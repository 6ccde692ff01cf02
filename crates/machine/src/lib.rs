//! One call, from the offer to the last callback, as a pure state machine.
//!
//! [`Input`]s are facts that have happened; [`Output`]s are wishes, which `call::shell` carries out; `xml`
//! supplies the document walked. No clock, socket, lock or dice here: `call::replay` depends on it.
//!
//! `state` has the call's states, `document` walks a document, `element` has a file an element, `timers` what
//! is waited for, `params` what requests carry (as `param` has it), and `desk` what all of them share.

// Bytes from outside must not make the process panic: where one of these is needed, an `allow` gives the reason.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::todo,
        clippy::unimplemented,
        clippy::indexing_slicing,
        clippy::string_slice,
        clippy::as_conversions
    )
)]
#![forbid(unsafe_code)]

mod added;
mod aside;
mod callee;
mod contract;
mod desk;
mod document;
mod element;
mod keys;
pub mod log;
mod params;
mod picture;
pub mod replay;
mod state;
mod stream;
#[cfg(test)]
mod tests;
mod timers;

use std::borrow::Cow;

pub use contract::{
    Aside, AsideKind, CallSetup, CallState, CallTime, CallUrls, Command, Confirm, Destination,
    DialError, DialOrder, DialledBy, EVENT_BODY, EVENT_TYPE, FetchFailure, FetchId, FetchKind,
    Fetched, FirstFault, GraphAction, GraphOutcome, Input, InstructionOutcome, LegNews, LegWish,
    Legs, Listening, MPC_END, MachineLimits, MediaFact, MediaFault, MediaOrder, MemberId, Notice,
    NoticeKind, Outbound, Output, Param, Params, PhoneStatus, PlayId, RING_MAX_MS, RecognitionId,
    RecordEnd, RecordFact, RecordId, RecordOrder, Refusal, Role, RoomEntry, RoomKind, RoomMusic,
    RoomNews, RoomOut, RoomWish, Seat, Sound, SoundItem, SpeechFact, SpeechOrder, StreamFact,
    StreamFormat, StreamOrder, StreamTrack, StreamWish, Summary, Termination, TrackNews,
    TranscriptOrder, Voice, header_name, lasted, placed_for, recorded, transcribed,
};
pub use picture::{FIELDS, Field, Line, Said};

use desk::Desk;
use model::{CallUuid, Digit, HangupCause};
use state::State;

/// The end of a call whose machine is gone, with the process it ran in or by a fault of ours: what its record and its
/// hangup callback say. Times are from its beginning.
pub fn abandoned(
    setup: CallSetup,
    answered: Option<CallTime>,
    ended: CallTime,
    cause: HangupCause,
) -> Summary {
    let mut desk = Desk::new(CallTime(0), Box::new(setup));
    desk.answered = answered;
    desk.now = ended.max(answered.unwrap_or_default());
    desk.summary(cause)
}

/// What is told where a call that was to enter a multi-party call is not placed after all (`plivo-callbacks.md` §3.6).
pub fn not_added(setup: &CallSetup, cause: HangupCause) -> Option<Notice> {
    let placed = setup.outbound.as_ref()?;
    let document = placed.document.clone()?;
    let desk = Desk::new(CallTime(0), Box::new(setup.clone()));
    let status = params::final_status(&desk, cause);
    element::added(&desk, &document, placed.room, "AddParticipantFailed", Some(status))
}

/// What is told of one who was in a multi-party call when its process died (`plivo-callbacks.md` §3.6): that it is out, and
/// that the call is over, should this one be the last. Times are from its own call's beginning.
pub fn cut_off(
    setup: &CallSetup,
    answered: Option<CallTime>,
    at: CallTime,
    seat: &Seat<'_>,
) -> (Params, Params) {
    let mut desk = Desk::new(CallTime(0), Box::new(setup.clone()));
    desk.answered = answered;
    desk.document_in = true;
    desk.now = at;
    element::cut_off(&desk, seat)
}

/// One call's whole behaviour.
#[derive(Default)]
pub struct Machine {
    /// None until the first input.
    call: Option<Call>,
}

struct Call {
    desk: Desk,
    /// Always there but while a fact is taken in.
    state: Option<State>,
}

impl Machine {
    /// A machine that waits for its [`Input::Offered`] or [`Input::Placed`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in one fact. Afterwards call [`Machine::poll`] until it is empty.
    ///
    /// A time before the last one counts as the last one. Facts before the first and after `Over` are allowed
    /// and do nothing, as do facts about a fetch, play or request that nothing waits for any more.
    pub fn handle(&mut self, at: CallTime, input: Input) {
        match (&mut self.call, input) {
            (Some(call), input) => call.take(at, input),
            (None, Input::Offered { setup }) => self.begin(at, setup, State::offered),
            (None, Input::Placed { setup }) => self.begin(at, setup, State::placed),
            (None, _) => {}
        }
        #[cfg(debug_assertions)]
        self.check_invariants();
    }

    fn begin(&mut self, at: CallTime, setup: Box<CallSetup>, first: fn(&mut Desk) -> State) {
        let mut desk = Desk::new(at, setup);
        let state = first(&mut desk);
        self.call = Some(Call { desk, state: Some(state) });
    }

    /// The next wish, oldest first.
    pub fn poll(&mut self) -> Option<Output> {
        self.call.as_mut()?.desk.take_wish()
    }

    /// Gives room back that wishes took: most calls wait for minutes between two facts. To be called when
    /// [`Machine::poll`] has nothing more; without it all is the same.
    pub fn rest(&mut self) {
        if let Some(call) = &mut self.call {
            call.desk.rest();
        }
    }

    /// When to come back with [`Input::Timer`]. Coming early is harmless; asking again after each
    /// [`Machine::handle`] is needed, since the moment moves. A timer that fires may wish for nothing and decide
    /// something all the same: the event log may leave out only those that came early.
    pub fn poll_timeout(&self) -> Option<CallTime> {
        self.call.as_ref()?.desk.timers.next()
    }

    /// What must hold after each step; only a fault of ours can break it.
    ///
    /// # Panics
    /// When it does not hold.
    pub fn check_invariants(&self) {
        if let Some(call) = &self.call {
            call.desk.check();
        }
    }

    /// The state; none before the first input.
    pub fn state(&self) -> Option<CallState> {
        Some(self.call.as_ref()?.state.as_ref()?.name())
    }

    /// The instruction being carried out: its element and line.
    pub fn current_element(&self) -> Option<(&'static str, u32)> {
        let place = self.call.as_ref()?.state.as_ref()?.script()?.place()?;
        Some((place.element, place.line))
    }

    /// The leg that the call has dialled, once it has answered.
    pub fn b_leg(&self) -> Option<CallUuid> {
        self.script()?.b_leg()
    }

    /// Whether the call is recorded, or will be.
    pub fn is_recorded(&self) -> bool {
        self.script().is_some_and(document::Script::is_recorded)
    }

    /// Whether that recording's action will be asked once its end is told; else it is somebody else's to send.
    pub fn awaits(&self, record: RecordId) -> bool {
        self.script().is_some_and(|script| script.awaits(record))
    }

    /// When the call was answered, if it was.
    pub fn answered(&self) -> Option<CallTime> {
        self.call.as_ref()?.desk.answered
    }

    /// What the call began with.
    pub fn setup(&self) -> Option<&CallSetup> {
        Some(&self.call.as_ref()?.desk.setup)
    }

    /// Whether a key pressed now must stay out of logs, traces and the console (`log="false"`).
    pub fn hides_input(&self) -> bool {
        self.script().is_some_and(document::Script::hides_keys)
    }

    /// A key that leads to the same decisions as `digit` would now, and says nothing about it.
    pub fn redact(&self, digit: Digit) -> Digit {
        self.script().map_or(digit, |script| script.stand_in(digit))
    }

    /// A fact as the event log may hold it, asked just before it is handled, with the same time. Replaying what
    /// this gives leads to the same wishes: a hidden key is replaced by its stand-in, findings past the first
    /// hundred are left out.
    ///
    /// Timers that were due before `at` fire first: they may change which collection takes the key.
    pub fn loggable<'a>(&mut self, at: CallTime, input: &'a Input) -> Cow<'a, Input> {
        if let Some(call) = &mut self.call {
            call.catch_up(at, input);
        }
        match input {
            Input::Digit { leg, digit } if self.hides_input() => {
                Cow::Owned(Input::Digit { leg: *leg, digit: self.redact(*digit) })
            }
            // Words that nobody waits for any more are nobody's to keep.
            Input::Speech { recognition, what } => match self.hides_speech(*recognition) {
                Some(false) => Cow::Borrowed(input),
                Some(true) => {
                    Cow::Owned(Input::Speech { recognition: *recognition, what: what.masked() })
                }
                None => Cow::Owned(Input::Speech { recognition: *recognition, what: what.blank() }),
            },
            Input::Fetched { fetch, result: Ok(Fetched::Refused { refusal }) } => {
                let refusal =
                    Refusal { findings: desk::shown(&refusal.findings), first: refusal.first };
                Cow::Owned(Input::Fetched {
                    fetch: *fetch,
                    result: Ok(Fetched::Refused { refusal }),
                })
            }
            other => Cow::Borrowed(other),
        }
    }

    /// Whether what that recognition hears must stay out of logs; `None`: nobody waits for it.
    fn hides_speech(&self, recognition: RecognitionId) -> Option<bool> {
        self.script()?.hides_speech(recognition)
    }

    fn script(&self) -> Option<&document::Script> {
        self.call.as_ref()?.state.as_ref()?.script()
    }
}

impl Call {
    fn take(&mut self, at: CallTime, input: Input) {
        self.catch_up(at, &input);
        if let Input::Graph { action, .. } = &input {
            self.desk.graph_answered(*action);
        }
        if let Some(state) = self.state.take() {
            self.state = Some(state.take(&mut self.desk, input));
        }
    }

    /// Comes to `at`. What was due before this fact happened comes first, so that a late wake-up changes no
    /// decision; what is due at this very moment fires with `Input::Timer` alone.
    fn catch_up(&mut self, at: CallTime, input: &Input) {
        self.desk.now = self.desk.now.max(at);
        let due = match input {
            Input::Timer => Some(self.desk.now),
            _ => self.desk.now.0.checked_sub(1).map(CallTime),
        };
        while let Some(timer) = due.and_then(|due| self.desk.timers.take_due(due)) {
            self.state = self.state.take().map(|state| state.fired(&mut self.desk, timer));
        }
    }
}
