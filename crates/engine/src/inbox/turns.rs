//! Messages of users that AI agents have to answer.

use std::sync::{Mutex, OnceLock, PoisonError};

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc};
use uuid::Uuid;

use model::{AuthId, metric};
use store::{NewMessage, Pair, PendingReply, Store, StoreError, run_of_owner};

/// The capacity of the channel of turns. A turn that does not fit stays pending in the store and is
/// answered later.
const TURNS: usize = 4_096;

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

/// The turns of this node: in memory, and in its store.
pub struct Turns {
    store: Store,
    node_id: String,
    sender: mpsc::Sender<Turn>,
    /// The receiving end, until [`Turns::take`] takes it.
    receiver: Mutex<Option<mpsc::Receiver<Turn>>>,
    /// Notifies other nodes. Set in a fleet, where another node may have to answer a message.
    other_nodes: OnceLock<TurnTeller>,
    /// Wakes the agents when another node has stored a turn for this one.
    elsewhere: Notify,
}

impl Turns {
    pub(super) fn new(store: Store, node_id: String) -> Self {
        let (sender, receiver) = mpsc::channel(TURNS);
        Self {
            store,
            node_id,
            sender,
            receiver: Mutex::new(Some(receiver)),
            other_nodes: OnceLock::new(),
            elsewhere: Notify::new(),
        }
    }

    /// Takes the receiving end of the turns. `None` if it is taken already.
    pub fn take(&self) -> Option<mpsc::Receiver<Turn>> {
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Starts to share the turns of conversations with the other nodes of a fleet: a node with
    /// pending turns of a conversation also gets the next ones. Only the first call has an effect.
    pub fn share(&self, teller: TurnTeller) {
        let _ = self.other_nodes.set(teller);
    }

    /// Handles the notification that another node has stored a turn for this one.
    pub fn notify_stored(&self) {
        self.elsewhere.notify_one();
    }

    /// Completes after [`Turns::notify_stored`].
    pub async fn stored_elsewhere(&self) {
        self.elsewhere.notified().await;
    }

    /// Turns in the store that wait for this node, oldest first, except those of the main accounts
    /// `without`. Starts after the position `after`, the time and id of a message.
    ///
    /// # Errors
    /// Returns an error if the store fails.
    pub async fn pending(
        &self,
        after: (i64, Uuid),
        without: &[AuthId],
        limit: u32,
    ) -> Result<Vec<PendingReply>, StoreError> {
        self.store.turns().pending(&self.node_id, after, without, limit).await
    }

    /// Queues a stored turn, or notifies the node of the fleet that handles the turns of the
    /// conversation.
    pub(super) async fn give(&self, turn: Turn) {
        let Some(tell) = self.other_nodes.get() else { return self.queue(turn) };
        match self.store.turns().owner(turn.message.id).await {
            Ok(Some(run)) if Some(run) != run_of_owner(&self.node_id) => tell(run),
            Ok(Some(_)) => self.queue(turn),
            // It is answered already.
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "owner of an agent turn not read; turn deferred");
            }
        }
    }

    fn queue(&self, turn: Turn) {
        if let Err(TrySendError::Full(turn) | TrySendError::Closed(turn)) =
            self.sender.try_send(turn)
        {
            crate::count_refused(metric::queue::TURNS);
            // The store keeps the turn as pending, and the agents read it from there.
            tracing::debug!(conversation = %turn.pair.conversation, "agent turn queue full; turn deferred");
        }
    }
}
