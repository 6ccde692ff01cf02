//! Observers of calls: conversations and customer webhooks, which are notified in addition to the
//! call's own callbacks. Set once when the node starts.

use super::author::DialogueLine;
use machine::{CallSetup, Summary};
use model::Timestamp;
use store::NewCallback;
use uuid::Uuid;

/// A call that has ended.
#[derive(Clone, Copy)]
pub struct EndedCall<'a> {
    pub setup: &'a CallSetup,
    pub summary: &'a Summary,
    /// The agent's conversation with the user.
    pub dialogue: &'a [DialogueLine],
    /// Whether the phones of endpoints were dialled and nobody has answered since.
    pub phones_unanswered: bool,
    /// Whether an agent has left the user to people.
    pub needs_person: bool,
    /// Whether an outbound call was placed at Graph, or tried to be.
    pub was_placed: bool,
}

/// Receives the events of calls. No method may block or wait.
pub trait CallNews: Send + Sync {
    /// The conversation that a call belongs to, if it has a user.
    fn conversation(&self, setup: &CallSetup) -> Option<Uuid>;
    /// A call has begun.
    fn started(&self, setup: &CallSetup);
    /// The call was answered.
    fn answered(&self, setup: &CallSetup, at: Timestamp);
    /// The call has ended. The returned callbacks are written to the outbox in the transaction that
    /// closes the call's record.
    fn ended(&self, call: EndedCall<'_>) -> Vec<NewCallback>;
}
