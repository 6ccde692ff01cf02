//! One request about a call with its further tries, decided without IO: what to do after each try (R6).
//!
//! [`super::Graph`] carries it out over HTTP and timers, `tests/simulation` in simulated time. The dice and the time
//! come in.

use std::time::{Duration, Instant};

use super::error::{Again, Trouble, Verdict};
use super::retry::{Budget, Fault, Policy};
use super::types::Action;
use crate::call::machine::GraphOutcome;

/// A request under way.
#[derive(Debug)]
pub struct Asking {
    action: Action,
    deadline: Option<Instant>,
    tries: usize,
    /// An earlier try may have done it without our hearing of it.
    unsure: bool,
}

/// What follows from a try.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Another try after this pause; `or_else` if it is overtaken meanwhile.
    Again { pause: Duration, or_else: GraphOutcome },
    /// It stays at that.
    Done(GraphOutcome),
    /// It stays at that, since too many requests of late were retries.
    OutOfBudget(GraphOutcome),
}

impl Asking {
    /// A request that has not been tried; no try begins or lasts past `deadline`, and none begins once the request is
    /// `overtaken`: the user has gone, or a later request about the call has taken this one's place.
    ///
    /// # Errors
    /// It is too late for it; nothing was sent.
    pub fn begin(
        action: Action,
        deadline: Option<Instant>,
        overtaken: bool,
        now: Instant,
        budget: &mut Budget,
    ) -> Result<Self, GraphOutcome> {
        let asking = Self { action, deadline, tries: 0, unsure: false };
        if !asking.may_wait(Duration::ZERO, now) {
            return Err(GraphOutcome::Timeout);
        }
        if overtaken {
            return Err(GraphOutcome::Gone);
        }
        budget.request(now);
        Ok(asking)
    }

    /// How long a try that begins now may take, `request_timeout` at most.
    pub fn time(&self, now: Instant, request_timeout: Duration) -> Duration {
        let left = self.deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(now));
        request_timeout.min(left)
    }

    /// How many tries there have been.
    pub fn tries(&self) -> usize {
        self.tries
    }

    /// A try came to its end. `roll` in 0 … 1 spreads the pause.
    pub fn tried(
        &mut self,
        came: Result<Verdict, Fault>,
        policy: &Policy,
        roll: f64,
        overtaken: bool,
        now: Instant,
        budget: &mut Budget,
    ) -> Next {
        self.tries += 1;
        let fault = match came {
            Ok(Verdict::Done) => return Next::Done(GraphOutcome::Done),
            Ok(Verdict::Gone) => return Next::Done(GraphOutcome::Gone),
            // Ours, in all likelihood.
            Ok(Verdict::AlreadyAccepted { .. }) if self.unsure => return Next::Done(GraphOutcome::Done),
            Ok(Verdict::AlreadyAccepted { details }) => {
                return Next::Done(GraphOutcome::Refused { status: 400, code: 100, details });
            }
            Ok(Verdict::Refused { status, code, details }) => {
                return Next::Done(GraphOutcome::Refused { status, code, details });
            }
            Ok(Verdict::Again(again)) => Fault::Answered(again),
            Err(fault) => fault,
        };
        self.unsure |=
            !matches!(fault, Fault::Unreachable | Fault::Answered(Again { trouble: Trouble::Rate { .. }, .. }));
        let pause = policy.pause(self.action, self.tries, fault, roll);
        match pause.filter(|pause| self.may_wait(*pause, now)) {
            None => Next::Done(outcome(fault)),
            Some(_) if overtaken => Next::Done(outcome(fault)),
            Some(_) if !budget.retry(now) => Next::OutOfBudget(outcome(fault)),
            Some(pause) => Next::Again { pause, or_else: outcome(fault) },
        }
    }

    /// Whether a try after this pause would still begin in time.
    fn may_wait(&self, pause: Duration, now: Instant) -> bool {
        self.deadline.is_none_or(|deadline| now + pause < deadline)
    }
}

/// What the call's machine is told of a request that stays at this fault.
pub(super) fn outcome(fault: Fault) -> GraphOutcome {
    match fault {
        Fault::Unreachable => GraphOutcome::Unreachable,
        Fault::Timeout => GraphOutcome::Timeout,
        // A broken answer is a fault of Meta's side; there is no status to name.
        Fault::Broken => GraphOutcome::ServerError { status: 0 },
        Fault::Answered(Again { trouble: Trouble::Server { status }, .. }) => GraphOutcome::ServerError { status },
        Fault::Answered(Again { trouble: Trouble::Rate { code }, .. }) => GraphOutcome::RateLimited { code },
    }
}
