//! Sends messages through Graph. The caller builds the messages.

use serde_json::{Value, json};

use super::graph::{Graph, UNREADABLE};
use super::request::{Node, message_id};
use machine::GraphOutcome;
use model::{PhoneNumberId, Secret};

/// The messages of a number, with [`Graph::messages`](super::Graph::messages).
pub struct Messages<'a>(Node<'a>);

impl Graph {
    /// The messages of a number.
    pub fn messages(&self, number: &PhoneNumberId, token: Option<&Secret>) -> Messages<'_> {
        Messages(Node::new(self, number.as_str(), token))
    }
}

impl Messages<'_> {
    /// Sends a message with `POST /{phone_number_id}/messages`. Returns its id.
    ///
    /// # Errors
    /// Returns the outcome of the last attempt. After a timeout, the message may have been sent.
    pub async fn send(&self, message: &Value) -> Result<String, GraphOutcome> {
        let id = message_id(&self.0.post("messages", "message", message).await?);
        if id.is_empty() { Err(UNREADABLE) } else { Ok(id) }
    }

    /// Marks a user's message as read.
    ///
    /// # Errors
    /// Returns the outcome of the last attempt.
    pub async fn mark_read(&self, wamid: &str) -> Result<(), GraphOutcome> {
        let body = json!({"messaging_product": "whatsapp", "status": "read", "message_id": wamid});
        self.0.post("messages", "message", &body).await.map(drop)
    }
}
