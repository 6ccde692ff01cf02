//! The order of a conversation's messages: their times, and the order in which they are handed on
//! once they are stored.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use uuid::Uuid;

use model::{Clock, Timestamp};

/// How far times may be ahead of the clock, in microseconds. If the clock was set back further, times
/// follow it.
const AHEAD_MAX: i64 = 1_000_000;

/// Gives each message another time, so that sorting by time keeps the order of those of a moment.
#[derive(Debug)]
pub(super) struct MessageTimes {
    clock: Clock,
    last: AtomicI64,
}

impl MessageTimes {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, last: AtomicI64::new(i64::MIN) }
    }

    /// Returns the current wall-clock time, or a little later.
    pub(super) fn next(&self) -> Timestamp {
        let now = self.clock.wall().micros();
        let after = |last: i64| match last.saturating_sub(now) {
            0..AHEAD_MAX => last + 1,
            _ => now,
        };
        let next = |last| Some(after(last));
        let before = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        Timestamp::from_micros(after(before.unwrap_or_else(|last| last)))
    }
}

/// Lets tasks that complete in any order hand on the messages of a conversation in the order in which
/// they arrived.
#[derive(Debug, Default)]
pub(super) struct Lines(Mutex<Latest>);

#[derive(Debug, Default)]
struct Latest {
    next: u64,
    /// The last place of each conversation, and when its holder leaves.
    of: HashMap<Uuid, (u64, oneshot::Receiver<()>)>,
}

/// A place in the line of a conversation. It is left when dropped.
#[derive(Debug)]
pub(super) struct Place {
    lines: Arc<Lines>,
    conversation: Uuid,
    number: u64,
    before: Option<oneshot::Receiver<()>>,
    /// Tells the next one by being dropped.
    _leaves: oneshot::Sender<()>,
}

impl Lines {
    /// Takes the last place in the line of a conversation.
    pub(super) fn join(self: &Arc<Self>, conversation: Uuid) -> Place {
        let (leaves, left) = oneshot::channel();
        let mut latest = self.latest();
        let number = latest.next;
        latest.next += 1;
        let before = latest.of.insert(conversation, (number, left)).map(|(_, left)| left);
        Place { lines: self.clone(), conversation, number, before, _leaves: leaves }
    }

    fn latest(&self) -> MutexGuard<'_, Latest> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits until those before have left.
    pub(super) async fn reached(&mut self) {
        if let Some(before) = self.before.take() {
            // Fails when the sender is dropped, which is the signal.
            let _ = before.await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut latest = self.lines.latest();
        if latest.of.get(&self.conversation).is_some_and(|(number, _)| *number == self.number) {
            latest.of.remove(&self.conversation);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_differ_and_follow_the_clock() {
        let clock = Clock::stepped(Timestamp::from_secs(9));
        let times = MessageTimes::new(clock.clone());
        let first = times.next();
        assert_eq!(first, clock.wall());
        assert_eq!(times.next().micros(), first.micros() + 1);
        assert_eq!(times.next().micros(), first.micros() + 2);
        clock.step(std::time::Duration::from_secs(1));
        assert_eq!(times.next(), clock.wall());
    }

    #[tokio::test]
    async fn places_are_reached_in_order_and_forgotten() {
        let lines = Arc::new(Lines::default());
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let (mut first, mut second) = (lines.join(one), lines.join(one));
        let mut elsewhere = lines.join(other);
        first.reached().await;
        elsewhere.reached().await;
        let waits = futures_util::poll!(Box::pin(second.reached()));
        assert!(waits.is_pending());
        drop((first, elsewhere));
        second.reached().await;
        drop(second);
        assert!(lines.latest().of.is_empty());
    }
}
