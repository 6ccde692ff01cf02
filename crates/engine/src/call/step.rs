//! A machine and the time it is told: what a shell does with a fact before anything is carried out.
//!
//! No IO: `shell` runs it under tokio, `tests/simulation` in simulated time. Facts come stamped; the machine is
//! given times that never run backwards.

use std::time::{Duration, Instant};

use machine::{CallTime, GraphAction, Input, Machine, Output};

/// T_window at its shortest (`meta-calling.md` §7).
const ANSWER_WINDOW: Duration = Duration::from_secs(30);

/// One call's machine, begun when its webhook came in.
pub struct Stepper {
    machine: Machine,
    arrived: Instant,
    last: CallTime,
}

/// What one fact led to.
#[derive(Debug)]
pub struct Step {
    pub at: CallTime,
    /// The fact as the event log may hold it.
    pub logged: Input,
    /// What was wished for, in order.
    pub outputs: Vec<Output>,
    /// A timer that came early moves nothing and is not worth a line of the event log.
    pub worth_a_line: bool,
}

impl Step {
    /// Whether no further try of this request begins from here on: the user has gone (R6), or a call that was to be made
    /// is known to be there, or wanted no more. Asked before what was wished for is carried out.
    pub fn overtakes(&self, asked: GraphAction) -> bool {
        match self.logged {
            Input::Terminated { .. } => true,
            Input::Bound { .. } => asked == GraphAction::Connect,
            _ => {
                let ended =
                    || self.outputs.iter().any(|output| matches!(output, Output::Concluded { .. }));
                asked == GraphAction::Connect && ended()
            }
        }
    }
}

impl Stepper {
    /// A machine that waits for its `Offered`; `arrived` is the zero of its time.
    pub fn new(arrived: Instant) -> Self {
        Self { machine: Machine::new(), arrived, last: CallTime(0) }
    }

    /// Takes in a fact that came at `at`.
    pub fn step(&mut self, at: Instant, input: Input) -> Step {
        let since = at.saturating_duration_since(self.arrived);
        let at = CallTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)).max(self.last);
        self.last = at;
        let due = self.machine.poll_timeout().is_some_and(|(deadline, _)| deadline <= at);
        let logged = self.machine.loggable(at, &input).into_owned();
        self.machine.handle(at, input);
        let outputs: Vec<_> = std::iter::from_fn(|| self.machine.poll()).collect();
        self.machine.shrink();
        let worth_a_line = due || !outputs.is_empty() || logged != Input::Timer;
        Step { at, logged, outputs, worth_a_line }
    }

    /// When to come back with `Input::Timer`; it moves with each step.
    pub fn deadline(&self) -> Option<Instant> {
        let (at, _) = self.machine.poll_timeout()?;
        Some(self.arrived + Duration::from_millis(at.0))
    }

    /// When the call's webhook came in.
    pub fn arrived(&self) -> Instant {
        self.arrived
    }

    /// No try of `pre_accept` or `accept` begins past the user's ringing (T_window, at most 60 s).
    pub fn answer_window(&self, action: GraphAction) -> Option<Instant> {
        matches!(action, GraphAction::PreAccept | GraphAction::Accept)
            .then(|| self.arrived + ANSWER_WINDOW)
    }

    /// The machine, to be looked at.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }
}
