//! Drives a machine with time: a shell's work on an input before it executes outputs.
//!
//! No I/O: `shell` uses it under tokio, and `tests/simulation` in simulated time. The machine's
//! time never runs backwards.

use std::time::{Duration, Instant};

use machine::{CallTime, GraphAction, Input, Machine, Output};

/// Minimum of T_window (`docs/reference/meta.md#t-window`).
const ANSWER_WINDOW: Duration = Duration::from_secs(30);

/// One call's machine. Its time begins when the webhook arrived.
pub struct Stepper {
    machine: Machine,
    arrived: Instant,
    last: CallTime,
}

/// The result of one input.
#[derive(Debug)]
pub struct Step {
    pub at: CallTime,
    /// The input in the form for the event log.
    pub logged: Input,
    /// The outputs, in order.
    pub outputs: Vec<Output>,
    /// Whether the step belongs into the event log. A timer that fired early changes nothing and is
    /// omitted.
    pub worth_a_line: bool,
}

impl Step {
    /// Whether a pending Graph request must not be retried: the user has hung up, or an outbound
    /// call is known at Meta or no longer wanted. Evaluated before the outputs are executed.
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
    /// Creates a machine that waits for `Offered` or `Placed`. `arrived` is the zero of its time.
    pub fn new(arrived: Instant) -> Self {
        Self { machine: Machine::new(), arrived, last: CallTime(0) }
    }

    /// Processes an input that arrived at `at`.
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

    /// When `Input::Timer` is due. Changes with each step.
    pub fn deadline(&self) -> Option<Instant> {
        let (at, _) = self.machine.poll_timeout()?;
        Some(self.arrived + Duration::from_millis(at.0))
    }

    /// When the call's webhook arrived.
    pub fn arrived(&self) -> Instant {
        self.arrived
    }

    /// Returns the time after which `pre_accept` and `accept` are not tried again, since the user's
    /// phone no longer rings.
    pub fn answer_window(&self, action: GraphAction) -> Option<Instant> {
        matches!(action, GraphAction::PreAccept | GraphAction::Accept)
            .then(|| self.arrived + ANSWER_WINDOW)
    }

    /// The machine.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }
}
