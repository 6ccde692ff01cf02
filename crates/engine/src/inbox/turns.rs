//! Messages of users that AI agents have to answer.

use std::sync::PoisonError;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use uuid::Uuid;

use super::Inbox;
use model::metric;
use store::{NewMessage, Pair, run_of_owner};

/// The capacity of the channel of turns. A turn that does not fit stays pending in the store and is
/// answered later.
pub(super) const TURNS: usize = 4_096;

/// A user's message that an AI agent has to answer.
#[derive(Clone, Debug)]
pub struct Turn {
    pub pair: Pair,
    pub agent: Uuid,
    /// The conversation's epoch when the message arrived. An answer is sent only while the epoch is
    /// the same.
    pub epoch: u64,
    pub message: NewMessage,
}

/// Notifies another process of the fleet that a turn waits for it in the store. It must not block
/// or wait.
pub type TurnTeller = Box<dyn Fn(Uuid) + Send + Sync>;

impl Inbox {
    /// Takes the receiving end of the turns. `None` if it is taken already.
    pub fn take_turns(&self) -> Option<mpsc::Receiver<Turn>> {
        self.0.turns_receiver.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Starts to share the turns of conversations with the other nodes of a fleet: a node with
    /// pending turns of a conversation also gets the next ones. Only the first call has an effect.
    pub fn share_turns(&self, teller: TurnTeller) {
        let _ = self.0.other_nodes.set(teller);
    }

    /// Handles the notification that another node has stored a turn for this one.
    pub fn look_for_turns(&self) {
        self.0.turns_elsewhere.notify_one();
    }

    /// Completes after [`Inbox::look_for_turns`].
    pub async fn turns_elsewhere(&self) {
        self.0.turns_elsewhere.notified().await;
    }

    /// Queues a stored turn, or notifies the node of the fleet that handles the turns of the
    /// conversation.
    pub(super) async fn give_turn(&self, turn: Turn) {
        let Some(tell) = self.0.other_nodes.get() else { return self.queue_turn(turn) };
        match self.parts().store.turns().owner(turn.message.id).await {
            Ok(Some(run)) if Some(run) != run_of_owner(&self.parts().node_id) => tell(run),
            Ok(Some(_)) => self.queue_turn(turn),
            // It is answered already.
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "owner of an agent turn not read; turn deferred");
            }
        }
    }

    pub(super) fn queue_turn(&self, turn: Turn) {
        if let Err(TrySendError::Full(turn) | TrySendError::Closed(turn)) =
            self.0.turns.try_send(turn)
        {
            crate::count_refused(metric::queue::TURNS);
            // The store keeps the turn as pending, and the agents read it from there.
            tracing::debug!(conversation = %turn.pair.conversation, "agent turn queue full; turn deferred");
        }
    }
}
