//! Observers of calls: conversations and customer webhooks, which are notified in addition to the
//! call's own callbacks. Set once when the node starts.

use super::author::DialogueLine;
use machine::{CallSetup, Summary};
use model::Timestamp;
use store::NewCallback;
use uuid::Uuid;

/// Receives the events of calls. No method may block or wait.
pub trait CallNews: Send + Sync {
    /// The conversation that a call belongs to, if it has a user.
    fn conversation(&self, setup: &CallSetup) -> Option<Uuid>;
    /// A call has begun.
    fn started(&self, setup: &CallSetup);
    /// The call was answered.
    fn answered(&self, setup: &CallSetup, at: Timestamp);
    /// The call has ended. `said` is the agent's conversation with the user. The returned callbacks
    /// are written to the outbox in the transaction that closes the call's record.
    fn ended(
        &self,
        setup: &CallSetup,
        summary: &Summary,
        said: &[DialogueLine],
    ) -> Vec<NewCallback>;
}
