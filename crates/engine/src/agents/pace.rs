//! Loop detection: a conversation with more than ten messages in a minute is taken for one between
//! two automated systems. Pure, with bounded memory.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use model::Timestamp;
use uuid::Uuid;

/// The maximum number of messages of a conversation [`WITHIN`] the window.
const MESSAGES: usize = 10;
const WITHIN: Duration = Duration::from_secs(60);
/// The number of messages of a conversation that are remembered. More than [`MESSAGES`], because a
/// message may come again after others: its turn failed, or was read from the store.
const REMEMBERED: usize = 4 * MESSAGES;
/// The number of conversations at which idle ones are removed.
const SWEEP_AT: usize = 4_096;

/// The recent messages, by conversation.
#[derive(Debug, Default)]
pub(super) struct Pace {
    messages: HashMap<Uuid, VecDeque<Counted>>,
    sweep_at: usize,
    /// The latest time of a message.
    latest: Timestamp,
}

#[derive(Clone, Copy, Debug)]
struct Counted {
    id: Uuid,
    /// The time of the message, not of its turn: an outage of the store delays turns, which then
    /// come all at once.
    at: Timestamp,
    too_fast: bool,
}

impl Pace {
    /// Records a message. Returns whether it is one too many. A message counts once.
    pub(super) fn is_too_fast(&mut self, conversation: Uuid, id: Uuid, at: Timestamp) -> bool {
        self.latest = self.latest.max(at);
        let near = |other: &Counted| at.since(other.at).max(other.at.since(at)) < WITHIN;
        if self.messages.len() >= self.sweep_at.max(SWEEP_AT) {
            let latest = self.latest;
            let is_recent = |last: &Counted| latest.since(last.at) < WITHIN;
            self.messages.retain(|_, messages| messages.back().is_some_and(is_recent));
            self.sweep_at = self.messages.len() * 2;
        }
        let messages = self.messages.entry(conversation).or_default();
        if let Some(known) = messages.iter().find(|known| known.id == id) {
            return known.too_fast;
        }
        let too_fast = messages.iter().filter(|other| near(other)).count() >= MESSAGES;
        if messages.len() >= REMEMBERED {
            messages.pop_front();
        }
        messages.push_back(Counted { id, at, too_fast });
        too_fast
    }

    /// Resets a conversation, because people have taken over.
    pub(super) fn forget(&mut self, conversation: Uuid) {
        self.messages.remove(&conversation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_ten_messages_in_a_minute_are_too_many() {
        let mut pace = Pace::default();
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let mut ids = 0..;
        let mut come = |conversation, secs| {
            let id = Uuid::from_u64_pair(1, ids.next().unwrap());
            pace.is_too_fast(conversation, id, Timestamp::from_secs(secs))
        };
        for n in 0..10 {
            assert!(!come(one, n), "{n}");
        }
        assert!(!come(other, 10));
        assert!(come(one, 59) && come(one, 59));
        assert!(!come(one, 69), "the first ten are a minute ago");
        for n in 0..100_000 {
            pace.is_too_fast(
                Uuid::from_u64_pair(9, n),
                Uuid::from_u64_pair(9, n),
                Timestamp::from_secs(n as i64),
            );
        }
        assert!(pace.messages.len() <= 2 * SWEEP_AT, "{}", pace.messages.len());
    }

    #[test]
    fn messages_count_by_their_own_time_and_once() {
        let mut pace = Pace::default();
        let conversation = Uuid::from_u128(1);
        let mut come = |id, secs| {
            pace.is_too_fast(conversation, Uuid::from_u128(id), Timestamp::from_secs(secs))
        };
        // Sent in three minutes, and taken all at once after an outage.
        for n in 0..20 {
            assert!(!come(n as u128, n * 10), "{n}");
        }
        for _ in 0..20 {
            assert!(!come(19, 190), "a turn that is repeated is the same message");
        }
        for n in 20..24 {
            assert!(!come(n as u128, 191));
        }
        assert!(come(24, 191) && come(24, 191));
    }
}
