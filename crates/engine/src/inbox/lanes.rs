//! The queues of messages that wait to be sent, one per conversation, and the rate limits of
//! numbers.

use std::collections::{HashMap, HashSet, VecDeque};
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};

use governor::{DefaultKeyedRateLimiter, Quota};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::limiter::{Share, Shares};
use model::{AuthId, PhoneNumberId};
use store::{NewMessage, Pair};

/// Messages per second of one number, which is Meta's default throughput.
const PER_SECOND: NonZeroU32 = NonZeroU32::new(80).expect("not 0");
/// Maximum number of waiting messages per conversation.
const LANE_MAX: usize = 64;
/// Maximum number of waiting messages of the node, and of one main account.
const WAITING_MAX: usize = 8_192;
const ACCOUNT_WAITING_MAX: usize = WAITING_MAX / 4 * 3;

/// A queued message.
pub(super) struct QueuedMessage {
    pub(super) pair: Pair,
    pub(super) message: NewMessage,
    /// The epoch of the conversation. Set for an agent's message.
    pub(super) epoch: Option<u64>,
    /// Its share of the waiting messages. `None` for a message of the previous process, if there are
    /// too many.
    pub(super) share: Option<Share<AuthId>>,
}

/// An entry of a lane.
enum LaneEntry {
    Message(QueuedMessage),
    /// Notifies a task once the entries before it are done.
    Notify(oneshot::Sender<()>),
}

/// The queues of messages by conversation. A queue that exists has a task that empties it.
pub(super) struct Lanes {
    lanes: Mutex<HashMap<Uuid, VecDeque<LaneEntry>>>,
    /// The messages that were pushed and are not [done](Self::done) yet.
    present: Mutex<HashSet<Uuid>>,
    waiting: Shares<AuthId>,
    pub(super) limits: DefaultKeyedRateLimiter<PhoneNumberId>,
}

impl Default for Lanes {
    fn default() -> Self {
        Self {
            lanes: Mutex::default(),
            present: Mutex::default(),
            waiting: Shares::new(ACCOUNT_WAITING_MAX, WAITING_MAX),
            limits: DefaultKeyedRateLimiter::keyed(Quota::per_second(PER_SECOND)),
        }
    }
}

impl Lanes {
    /// Takes a share for each of `count` further messages of a conversation. Returns `None` if too many
    /// messages wait in the conversation, or of the account or the node.
    pub(super) fn take_shares(&self, pair: &Pair, count: usize) -> Option<Vec<Share<AuthId>>> {
        let is_full = {
            let lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
            lanes.get(&pair.conversation).is_some_and(|lane| lane.len() >= LANE_MAX)
        };
        if is_full {
            return None;
        }
        (0..count).map(|_| self.take_share(pair)).collect()
    }

    /// Takes a share for a message of the previous process.
    pub(super) fn take_share(&self, pair: &Pair) -> Option<Share<AuthId>> {
        self.waiting.take(pair.main_account.clone())
    }

    /// Queues a message, unless it is present. Returns `true` if the caller has to start the task that
    /// empties the lane.
    pub(super) fn push(&self, queued: QueuedMessage) -> bool {
        if !self.present().insert(queued.message.id) {
            return false;
        }
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = !lanes.contains_key(&queued.pair.conversation);
        lanes.entry(queued.pair.conversation).or_default().push_back(LaneEntry::Message(queued));
        fresh
    }

    /// Forgets a message that was sent or has failed.
    pub(super) fn done(&self, message: Uuid) {
        self.present().remove(&message);
    }

    /// Returns `true` if a message waits or is being sent.
    pub(super) fn contains(&self, message: Uuid) -> bool {
        self.present().contains(&message)
    }

    fn present(&self) -> MutexGuard<'_, HashSet<Uuid>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a receiver that completes once the lane's current entries are done. `None` if the
    /// lane is empty.
    pub(super) fn drained(&self, conversation: Uuid) -> Option<oneshot::Receiver<()>> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let lane = lanes.get_mut(&conversation)?;
        let (sender, receiver) = oneshot::channel();
        lane.push_back(LaneEntry::Notify(sender));
        Some(receiver)
    }

    /// Takes the next message of a lane. `None` ends the lane.
    pub(super) fn next(&self, conversation: Uuid) -> Option<QueuedMessage> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match lanes.get_mut(&conversation).and_then(VecDeque::pop_front) {
                Some(LaneEntry::Message(queued)) => return Some(queued),
                Some(LaneEntry::Notify(sender)) => {
                    // The waiting task may have ended.
                    let _ = sender.send(());
                }
                None => {
                    lanes.remove(&conversation);
                    return None;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{message, pair};
    use super::{ACCOUNT_WAITING_MAX, LANE_MAX, Lanes, QueuedMessage, WAITING_MAX};
    use model::{Direction, MessageStatus};

    #[test]
    fn r10_an_account_leaves_room_for_the_messages_of_others() {
        let lanes = Lanes::default();
        let (hers, his) = (pair("MA1"), pair("MA2"));
        let held: Vec<_> = (0..WAITING_MAX).map_while(|_| lanes.take_shares(&hers, 1)).collect();
        assert_eq!(held.len(), ACCOUNT_WAITING_MAX);
        assert!(lanes.take_share(&hers).is_none() && lanes.take_shares(&his, 10).is_some());
        drop(held);
        assert!(lanes.take_shares(&hers, 10).is_some());
    }

    #[test]
    fn a_conversation_has_a_limited_number_of_waiting_messages() {
        let lanes = Lanes::default();
        let (one, other) = (pair("MA1"), pair("MA1"));
        for n in 0..LANE_MAX {
            let mut shares = lanes.take_shares(&one, 1).expect("there is room");
            let message = message(Direction::Outbound, MessageStatus::Queued);
            let (pair, share) = (one.clone(), shares.pop());
            let is_first = lanes.push(QueuedMessage { pair, message, epoch: None, share });
            assert_eq!(is_first, n == 0);
        }
        assert!(lanes.take_shares(&one, 1).is_none() && lanes.take_shares(&other, 1).is_some());
        assert!(lanes.next(one.conversation).is_some());
        assert!(lanes.take_shares(&one, 1).is_some());
    }
}
