//! Limits a log message that would repeat with each call.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use model::Clock;

/// The least time between two messages.
const INTERVAL: Duration = Duration::from_secs(60);

/// Counts the repetitions of an event and says when to log them.
#[derive(Debug, Default)]
pub(crate) struct Repeats {
    clock: Clock,
    /// The time of the last message, and the number of events since then.
    last: Mutex<(Option<Instant>, u64)>,
}

impl Repeats {
    /// Counts an event. Returns the number of events since the last message if one is due.
    pub(crate) fn count(&self) -> Option<u64> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (logged, events) = *last;
        let (now, events) = (self.clock.now(), events + 1);
        let is_due = logged.is_none_or(|at| now.saturating_duration_since(at) >= INTERVAL);
        *last = if is_due { (Some(now), 0) } else { (logged, events) };
        is_due.then_some(events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_due_at_once_and_then_once_a_minute_with_the_count() {
        let clock = Clock::stepped(model::Timestamp::default());
        let repeats = Repeats { clock: clock.clone(), last: Mutex::default() };
        assert_eq!([(); 3].map(|()| repeats.count()), [Some(1), None, None]);
        clock.step(INTERVAL);
        assert_eq!([(); 2].map(|()| repeats.count()), [Some(3), None]);
    }
}
