//! The queues of messages that wait to be sent, one per conversation, and the rate limits of
//! numbers.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};

use governor::{DefaultKeyedRateLimiter, Quota};
use tokio::sync::oneshot;
use uuid::Uuid;

use model::PhoneNumberId;
use store::{NewMessage, Pair};

/// Messages per second of one number, which is Meta's default throughput.
const PER_SECOND: NonZeroU32 = NonZeroU32::new(80).expect("not 0");
/// Maximum number of waiting messages per conversation.
const LANE_MAX: usize = 64;
/// Maximum number of waiting messages of the node.
const WAITING_MAX: usize = 8_192;

/// A queued message.
pub(super) struct QueuedMessage {
    pub(super) pair: Pair,
    pub(super) message: NewMessage,
    /// The epoch of the conversation. Set for an agent's message.
    pub(super) epoch: Option<u64>,
}

/// An entry of a lane.
enum LaneEntry {
    Message(QueuedMessage),
    /// Notifies a task once the entries before it are done.
    Notify(oneshot::Sender<()>),
}

/// The queues of messages by conversation. A queue that exists has a task that empties it.
pub(super) struct Lanes {
    lanes: Mutex<(HashMap<Uuid, VecDeque<LaneEntry>>, usize)>,
    pub(super) limits: DefaultKeyedRateLimiter<PhoneNumberId>,
}

impl Default for Lanes {
    fn default() -> Self {
        Self {
            lanes: Mutex::default(),
            limits: DefaultKeyedRateLimiter::keyed(Quota::per_second(PER_SECOND)),
        }
    }
}

impl Lanes {
    /// Returns whether another message may wait in a conversation.
    pub(super) fn has_room(&self, conversation: Uuid) -> bool {
        let lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.1 < WAITING_MAX && lanes.0.get(&conversation).is_none_or(|lane| lane.len() < LANE_MAX)
    }

    /// Queues a message. Returns `true` if the caller has to start the task that empties the lane.
    pub(super) fn push(&self, queued: QueuedMessage) -> bool {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.1 += 1;
        let fresh = !lanes.0.contains_key(&queued.pair.conversation);
        lanes.0.entry(queued.pair.conversation).or_default().push_back(LaneEntry::Message(queued));
        fresh
    }

    /// Returns a receiver that completes once the lane's current entries are done. `None` if the
    /// lane is empty.
    pub(super) fn drained(&self, conversation: Uuid) -> Option<oneshot::Receiver<()>> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let lane = lanes.0.get_mut(&conversation)?;
        let (sender, receiver) = oneshot::channel();
        lane.push_back(LaneEntry::Notify(sender));
        Some(receiver)
    }

    /// Takes the next message of a lane. `None` ends the lane.
    pub(super) fn next(&self, conversation: Uuid) -> Option<QueuedMessage> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match lanes.0.get_mut(&conversation).and_then(VecDeque::pop_front) {
                Some(LaneEntry::Message(queued)) => {
                    lanes.1 = lanes.1.saturating_sub(1);
                    return Some(queued);
                }
                Some(LaneEntry::Notify(sender)) => {
                    // The waiting task may have ended.
                    let _ = sender.send(());
                }
                None => {
                    lanes.0.remove(&conversation);
                    return None;
                }
            }
        }
    }
}
