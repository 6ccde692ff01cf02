//! Limits a log message that would repeat with each call.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The least time between two messages.
const INTERVAL: Duration = Duration::from_secs(60);

/// Counts the repetitions of an event and says when to log them: at once, then at most once a minute.
#[derive(Debug, Default)]
pub struct Repeats {
    /// The time of the last message, and the number of events since then.
    last: Mutex<(Option<Instant>, u64)>,
}

impl Repeats {
    /// Counts an event at `now`. Returns the number of events since the last message if one is due.
    pub fn count(&self, now: Instant) -> Option<u64> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (logged, events) = *last;
        let events = events + 1;
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
        let now = crate::Clock::default().now();
        let repeats = Repeats::default();
        assert_eq!([(); 3].map(|()| repeats.count(now)), [Some(1), None, None]);
        assert_eq!([(); 2].map(|()| repeats.count(now + INTERVAL)), [Some(3), None]);
    }
}
