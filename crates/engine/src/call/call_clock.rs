//! The time of a call. No I/O: `shell` uses it under tokio, and `tests/simulation` in simulated
//! time.

use std::time::{Duration, Instant};

use machine::{CallTime, GraphAction, Machine};

/// Minimum of T_window (`docs/reference/meta.md#t-window`).
const ANSWER_WINDOW: Duration = Duration::from_secs(30);

/// Converts between instants and the time of one call, which begins when the webhook arrived and
/// never runs backwards.
pub struct CallClock {
    arrived: Instant,
    last: CallTime,
}

impl CallClock {
    /// Creates the clock. `arrived` is the zero of the call's time.
    pub fn new(arrived: Instant) -> Self {
        Self { arrived, last: CallTime(0) }
    }

    /// Creates the clock of a call that another process has handed over. `last` is the time of its
    /// last input.
    pub fn resumed(arrived: Instant, last: CallTime) -> Self {
        Self { arrived, last }
    }

    /// The time of the last input.
    pub fn last(&self) -> CallTime {
        self.last
    }

    /// The call's time at `at`. Equal to the last one if `at` is before it.
    pub fn time_at(&mut self, at: Instant) -> CallTime {
        self.last = self.last.max(CallTime(0).after(at.saturating_duration_since(self.arrived)));
        self.last
    }

    /// When `Input::Timer` is due. Changes with each input of the machine.
    pub fn deadline(&self, machine: &Machine) -> Option<Instant> {
        let (at, _) = machine.poll_timeout()?;
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
}
