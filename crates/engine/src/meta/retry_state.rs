//! The retries of one request about a call, without I/O: what to do after each attempt.
//!
//! [`super::Graph`] carries the decisions out over HTTP, `tests/simulation` in simulated time.
//! Randomness and time are parameters.

use std::time::{Duration, Instant};

use super::error::{Retryable, TemporaryFailure, Verdict};
use super::retry::{Budget, Fault, Policy};
use machine::{GraphAction, GraphOutcome};

/// A request in progress.
#[derive(Debug)]
pub struct RetryState {
    action: GraphAction,
    deadline: Option<Instant>,
    tries: usize,
    /// Whether at least one attempt was sent.
    sent: bool,
    /// The outcome if no further attempt is sent.
    fallback: GraphOutcome,
    /// Whether an earlier attempt may have succeeded without an answer.
    may_have_succeeded: bool,
}

/// The step after an attempt.
#[derive(Clone, Debug, PartialEq)]
pub enum NextStep {
    /// Make another attempt after `pause`. `or_else` is the outcome if the request is superseded
    /// before that.
    Retry { pause: Duration, or_else: GraphOutcome },
    /// The outcome is final.
    Done(GraphOutcome),
    /// The outcome is final, because too many recent requests were retries.
    OutOfBudget(GraphOutcome),
}

impl RetryState {
    /// Begins a request. No attempt begins or lasts past `deadline`, and none begins after the
    /// request is `overtaken`: the user has hung up, or a later request about the call supersedes
    /// this one.
    ///
    /// # Errors
    /// Returns the outcome if it is already too late. Nothing was sent then.
    pub fn begin(
        action: GraphAction,
        deadline: Option<Instant>,
        overtaken: bool,
        now: Instant,
    ) -> Result<Self, GraphOutcome> {
        let fallback = GraphOutcome::Gone;
        let state =
            Self { action, deadline, tries: 0, sent: false, fallback, may_have_succeeded: false };
        if !state.may_wait(Duration::ZERO, now) {
            return Err(GraphOutcome::Timeout);
        }
        if overtaken {
            return Err(GraphOutcome::Gone);
        }
        Ok(state)
    }

    /// Accounts for an attempt that is about to be sent, after it may have waited in the queue.
    /// Returns `Some` if it must not be sent.
    pub fn begin_attempt(
        &mut self,
        overtaken: bool,
        now: Instant,
        budget: &mut Budget,
    ) -> Option<NextStep> {
        if overtaken {
            return Some(NextStep::Done(self.fallback.clone()));
        }
        if !self.sent {
            budget.request(now);
            self.sent = true;
        } else if !budget.retry(now) {
            return Some(NextStep::OutOfBudget(self.fallback.clone()));
        }
        None
    }

    /// The time limit of an attempt that begins now, at most `request_timeout`.
    pub fn time(&self, now: Instant, request_timeout: Duration) -> Duration {
        let left =
            self.deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(now));
        request_timeout.min(left)
    }

    /// The number of attempts so far.
    pub fn tries(&self) -> usize {
        self.tries
    }

    /// Handles the end of an attempt, or its failure to leave the queue. `jitter`, between 0 and 1,
    /// varies the pause.
    pub fn finish_attempt(
        &mut self,
        result: Result<Verdict, Fault>,
        policy: &Policy,
        jitter: f64,
        overtaken: bool,
        now: Instant,
        budget: &mut Budget,
    ) -> NextStep {
        self.tries += 1;
        let fault = match result {
            Ok(Verdict::Done | Verdict::Connected { .. }) => {
                return NextStep::Done(GraphOutcome::Done);
            }
            Ok(Verdict::Gone) => return NextStep::Done(GraphOutcome::Gone),
            // An earlier attempt most likely accepted it.
            Ok(Verdict::AlreadyAccepted { .. }) if self.may_have_succeeded => {
                return NextStep::Done(GraphOutcome::Done);
            }
            Ok(Verdict::AlreadyAccepted { details }) => {
                return NextStep::Done(GraphOutcome::Refused { status: 400, code: 100, details });
            }
            Ok(Verdict::Refused { status, code, details }) => {
                return NextStep::Done(GraphOutcome::Refused { status, code, details });
            }
            Ok(Verdict::Retryable(again)) => Fault::Answered(again),
            Err(fault) => fault,
        };
        self.may_have_succeeded |= !matches!(
            fault,
            Fault::Unreachable
                | Fault::Answered(Retryable { trouble: TemporaryFailure::Rate { .. }, .. })
        );
        let pause = policy.pause(self.action, self.tries, fault, jitter);
        match pause.filter(|pause| self.may_wait(*pause, now)) {
            None => NextStep::Done(outcome(fault)),
            Some(_) if overtaken => NextStep::Done(outcome(fault)),
            // Fails now rather than after the pause, so that the caller can react.
            Some(pause) if self.sent && !budget.has_room(now + pause) => {
                NextStep::OutOfBudget(outcome(fault))
            }
            Some(pause) => {
                self.fallback = outcome(fault);
                NextStep::Retry { pause, or_else: outcome(fault) }
            }
        }
    }

    /// Returns whether an attempt after this pause would begin before the deadline.
    fn may_wait(&self, pause: Duration, now: Instant) -> bool {
        self.deadline.is_none_or(|deadline| now + pause < deadline)
    }
}

/// The outcome of a request whose last attempt ended with this fault.
pub(super) fn outcome(fault: Fault) -> GraphOutcome {
    match fault {
        Fault::Unreachable => GraphOutcome::Unreachable,
        Fault::Timeout => GraphOutcome::Timeout,
        // A broken answer counts as a server error without a status.
        Fault::Broken => GraphOutcome::ServerError { status: 0, code: 0 },
        Fault::Answered(Retryable {
            trouble: TemporaryFailure::Server { status, code }, ..
        }) => GraphOutcome::ServerError { status, code },
        Fault::Answered(Retryable { trouble: TemporaryFailure::Rate { code }, .. }) => {
            GraphOutcome::RateLimited { code }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Clock;
    use model::Timestamp;

    const BUSY: Result<Verdict, Fault> = Ok(Verdict::Retryable(Retryable {
        trouble: TemporaryFailure::Server { status: 503, code: 0 },
        once: false,
        after: None,
    }));
    const FAILED: GraphOutcome = GraphOutcome::ServerError { status: 503, code: 0 };

    /// Begins a request whose first attempt fails, and returns the next step.
    fn asked(pause: Duration, now: Instant, budget: &mut Budget) -> (RetryState, NextStep) {
        let policy = Policy { ending: vec![pause; 9], ..Policy::default() };
        let mut state = RetryState::begin(GraphAction::Terminate, None, false, now).unwrap();
        assert_eq!(state.begin_attempt(false, now, budget), None);
        let next = state.finish_attempt(BUSY, &policy, 0.5, false, now, budget);
        (state, next)
    }

    #[test]
    fn r06_a_retry_counts_when_it_goes_out() {
        let clock = Clock::stepped(Timestamp::from_secs(0));
        let mut budget = Budget::new(clock.now());
        let (late, soon) = (Duration::from_secs(10), Duration::from_millis(200));
        // Twelve requests pause for 10 s and twelve for 200 ms, so that all retries fall on the
        // same instant.
        let mut paused: Vec<_> = (0..12).map(|_| asked(late, clock.now(), &mut budget)).collect();
        clock.step(late - soon);
        paused.extend((0..12).map(|_| asked(soon, clock.now(), &mut budget)));
        assert!(
            paused.iter().all(|(_, next)| matches!(next, NextStep::Retry { .. })),
            "no retry was sent yet"
        );
        clock.step(soon);
        let sent: Vec<_> = paused
            .iter_mut()
            .map(|(state, _)| state.begin_attempt(false, clock.now(), &mut budget))
            .collect();
        assert_eq!(sent.iter().filter(|held_back| held_back.is_none()).count(), 10);
        assert!(
            sent[10..].iter().all(|held_back| *held_back == Some(NextStep::OutOfBudget(FAILED))),
            "{sent:?}"
        );
        // If the budget will have no room after the pause, the request fails immediately.
        assert_eq!(asked(soon, clock.now(), &mut budget).1, NextStep::OutOfBudget(FAILED));
        assert!(matches!(asked(late, clock.now(), &mut budget).1, NextStep::Retry { .. }));
    }

    #[test]
    fn r06_an_unsent_attempt_does_not_count() {
        let clock = Clock::stepped(Timestamp::from_secs(0));
        let mut budget = Budget::new(clock.now());
        let now = clock.now();
        let mut unsent = RetryState::begin(GraphAction::Accept, None, false, now).unwrap();
        (0..10).for_each(|_| assert!(budget.retry(now)));
        let full = Err(Fault::Answered(Retryable {
            trouble: TemporaryFailure::Rate { code: 0 },
            once: false,
            after: None,
        }));
        let next = unsent.finish_attempt(full, &Policy::default(), 0.5, false, now, &mut budget);
        assert!(matches!(next, NextStep::Retry { .. }), "{next:?}");
        assert_eq!(
            unsent.begin_attempt(false, now, &mut budget),
            None,
            "the first that goes out is no retry"
        );
        let mut gone = RetryState::begin(GraphAction::Accept, None, false, now).unwrap();
        assert_eq!(
            gone.begin_attempt(true, now, &mut budget),
            Some(NextStep::Done(GraphOutcome::Gone)),
            "superseded in its queue"
        );
    }
}
