//! Loop detection: a conversation with more than ten turns in a minute is taken for one between two
//! automated systems. Pure, with bounded memory.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use uuid::Uuid;

/// The maximum number of turns of a conversation [`WITHIN`] the window.
pub(super) const TURNS: usize = 10;
const WITHIN: Duration = Duration::from_secs(60);
/// The number of conversations at which idle ones are removed.
const SWEEP_AT: usize = 4_096;

/// The times of recent turns, by conversation.
#[derive(Debug, Default)]
pub(super) struct Pace {
    turns: HashMap<Uuid, VecDeque<Instant>>,
    sweep_at: usize,
}

impl Pace {
    /// Records a turn. Returns whether there are too many.
    pub(super) fn is_too_fast(&mut self, conversation: Uuid, now: Instant) -> bool {
        let recent = |at: &Instant| now.saturating_duration_since(*at) < WITHIN;
        if self.turns.len() >= self.sweep_at.max(SWEEP_AT) {
            self.turns.retain(|_, turns| turns.back().is_some_and(recent));
            self.sweep_at = self.turns.len() * 2;
        }
        let turns = self.turns.entry(conversation).or_default();
        while turns.front().is_some_and(|at| !recent(at)) {
            turns.pop_front();
        }
        if turns.len() > TURNS {
            turns.pop_front();
        }
        turns.push_back(now);
        turns.len() > TURNS
    }

    /// Resets a conversation, because people have taken over.
    pub(super) fn forget(&mut self, conversation: Uuid) {
        self.turns.remove(&conversation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_ten_turns_in_a_minute_are_too_many() {
        let (mut pace, begin) = (Pace::default(), model::Clock::real().now());
        let at = |secs: u64| begin + Duration::from_secs(secs);
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        for n in 0..10 {
            assert!(!pace.is_too_fast(one, at(n)), "{n}");
        }
        assert!(!pace.is_too_fast(other, at(10)));
        assert!(pace.is_too_fast(one, at(59)) && pace.is_too_fast(one, at(59)));
        assert!(!pace.is_too_fast(one, at(69)), "the first ten are a minute ago");
        for n in 0..100_000_u64 {
            pace.is_too_fast(Uuid::from_u64_pair(9, n), at(n));
        }
        assert!(pace.turns.len() <= 2 * SWEEP_AT, "{}", pace.turns.len());
    }
}
