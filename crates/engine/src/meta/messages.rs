//! Sends messages through Graph. The caller builds the messages.

use std::sync::Arc;

use serde_json::{Value, json};

use super::graph::{Graph, InFlight, Kind, Lane, UNREADABLE};
use super::request::{Node, message_id};
use super::retry_state::outcome;
use machine::GraphOutcome;
use model::{PhoneNumberId, Secret};

/// The messages of a number, with [`Graph::messages`](super::Graph::messages).
pub struct Messages<'a> {
    node: Node<'a>,
    lane: Arc<Lane>,
}

/// A place among the requests of a number that are in progress.
pub struct RequestPlace<'a>(InFlight<'a>);

impl Graph {
    /// The messages of a number.
    pub fn messages(&self, number: &PhoneNumberId, token: Option<&Secret>) -> Messages<'_> {
        Messages { node: Node::new(self, number.as_str(), token), lane: self.lane(number) }
    }
}

impl Messages<'_> {
    /// Waits for a place for [`Messages::send`]. Nothing is sent before.
    ///
    /// # Errors
    /// Returns a rate limit if too many requests are waiting.
    pub async fn place(&self) -> Result<RequestPlace<'_>, GraphOutcome> {
        let place = self.lane.enter(Kind::Other, self.node.graph.clock.now()).await;
        place.map(RequestPlace).map_err(outcome)
    }

    /// Sends a message with `POST /{phone_number_id}/messages`. Returns its id. The first attempt
    /// uses `place`, further ones wait for another.
    ///
    /// # Errors
    /// Returns the outcome of the last attempt. After a timeout, the message may have been sent.
    pub async fn send(
        &self,
        message: &Value,
        RequestPlace(place): RequestPlace<'_>,
    ) -> Result<String, GraphOutcome> {
        let sent = self.node.post_in(Some(place), "messages", "message", message).await?;
        let id = message_id(&sent);
        if id.is_empty() { Err(UNREADABLE) } else { Ok(id) }
    }

    /// Marks a user's message as read.
    ///
    /// # Errors
    /// Returns the outcome of the last attempt.
    pub async fn mark_read(&self, wamid: &str) -> Result<(), GraphOutcome> {
        let body = json!({"messaging_product": "whatsapp", "status": "read", "message_id": wamid});
        self.node.post("messages", "message", &body).await.map(drop)
    }
}
