//! The store's side of messages and conversations: what the inbox asks of it.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::conversations::{self, Conversation, ConversationFilter, Message};
use super::deliveries::{self, DeliveryView};
use super::inbox::{Came, ConversationChange, Draft, Going, InboxFound, InboxWrite, Pair, Reroute, StatusCame};
use super::webhooks::{self, WebhookRow, WebhookWrite};
use super::{NewCallback, Scope, Store, StoreError, Written};
use crate::model::{E164, PhoneNumberId, Routing, Timestamp};

impl Store {
    /// Writes a user's message, or a call's line, with its conversation and what reports it. Queued when this returns,
    /// unless the queue is full (`None`).
    pub fn message_came(
        &self,
        came: Came,
    ) -> Option<impl Future<Output = Result<InboxFound, StoreError>> + Send + 'static + use<>> {
        self.log.inbox_now(InboxWrite::Came(came))
    }

    /// Writes how far a message is. Queued when this returns, unless the queue is full (`None`).
    pub fn message_status(
        &self,
        status: StatusCame,
    ) -> Option<impl Future<Output = Result<InboxFound, StoreError>> + Send + 'static + use<>> {
        self.log.inbox_now(InboxWrite::Status(status))
    }

    /// Writes messages that are to go out; `false`: there is no such conversation, or its epoch is another.
    ///
    /// # Errors
    /// The store takes nothing now; nothing has changed.
    pub async fn message_going(&self, going: Going) -> Result<bool, StoreError> {
        done(self.log.inbox(InboxWrite::Going(going)).await).map(|(done, _)| done)
    }

    /// Meta has a message under this id, or refused it. Queued when this returns.
    pub fn message_posted(
        &self,
        message: Uuid,
        outcome: Result<String, (i64, String)>,
        at: Timestamp,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send + 'static + use<> {
        let written = self.log.inbox(InboxWrite::Posted { message, outcome, at });
        async move { done(written.await).map(|(done, _)| done) }
    }

    /// Changes a conversation, and puts what tells webhooks of it into the outbox; `false`: the scope has none of that
    /// id, or it is not in a state for it.
    ///
    /// # Errors
    /// The store takes nothing now; nothing has changed.
    pub async fn change_conversation(
        &self,
        scope: &Scope,
        conversation: Uuid,
        change: ConversationChange,
        tell: Vec<(Uuid, Draft)>,
    ) -> Result<(bool, Vec<Written>), StoreError> {
        let scope = scope.clone();
        done(self.log.inbox(InboxWrite::Change { scope, conversation, change, tell }).await)
    }

    /// Deletes a conversation with its messages; `false`: the scope has none of that id.
    ///
    /// # Errors
    /// The store takes nothing now; nothing has changed.
    pub async fn delete_conversation(&self, scope: &Scope, conversation: Uuid) -> Result<bool, StoreError> {
        let written = self.log.inbox(InboxWrite::Delete { scope: scope.clone(), conversation });
        done(written.await).map(|(done, _)| done)
    }

    /// An event is sent to its webhook once more; `false`: there is none of that id.
    ///
    /// # Errors
    /// The store takes nothing now; nothing has changed.
    pub async fn redeliver(&self, webhook: Uuid, event_id: Uuid, now: Timestamp) -> Result<bool, StoreError> {
        done(self.log.inbox(InboxWrite::Redeliver { webhook, event_id, now }).await).map(|(done, _)| done)
    }

    /// Forgets the oldest messages that came before then, some at a time; whether there may be more.
    ///
    /// # Errors
    /// The store takes nothing now.
    pub async fn forget_messages(&self, before: Timestamp, limit: u32) -> Result<bool, StoreError> {
        done(self.log.inbox(InboxWrite::Forget { before, limit }).await).map(|(done, _)| done)
    }

    /// Changes a number's routing, and that of all its conversations where it is to be so: one transaction.
    ///
    /// # Errors
    /// The store takes nothing now; nothing has changed.
    pub async fn reroute(&self, reroute: Reroute) -> Result<(), StoreError> {
        done(self.log.inbox(InboxWrite::Reroute(reroute)).await).map(drop)
    }

    /// Makes a conversation with this routing, or gives it that routing.
    ///
    /// # Errors
    /// The store takes nothing now; nothing has changed.
    pub async fn open_conversation(&self, pair: Pair, routing: Routing, at: Timestamp) -> Result<(), StoreError> {
        done(self.log.inbox(InboxWrite::Open { pair, routing, at }).await).map(drop)
    }

    /// What was set of numbers' routing.
    ///
    /// # Errors
    /// The store's.
    pub async fn routings(&self) -> Result<Vec<(PhoneNumberId, Routing)>, StoreError> {
        webhooks::routings(&self.read).await
    }

    /// Makes, changes or takes away a webhook.
    ///
    /// # Errors
    /// The store takes nothing now; nothing has changed.
    pub async fn webhook(&self, write: WebhookWrite) -> Result<(), StoreError> {
        done(self.log.inbox(InboxWrite::Webhook(write)).await).map(drop)
    }

    /// All webhooks.
    ///
    /// # Errors
    /// The store's.
    pub async fn webhooks(&self) -> Result<Vec<WebhookRow>, StoreError> {
        webhooks::all(&self.read, &self.seal).await
    }

    /// A scope's conversations, the latest first.
    ///
    /// # Errors
    /// The store's.
    pub async fn conversations(
        &self,
        scope: &Scope,
        filter: &ConversationFilter,
        limit: u32,
    ) -> Result<Vec<Conversation>, StoreError> {
        conversations::list(&self.read, scope, filter, limit).await
    }

    /// One of a scope's conversations.
    ///
    /// # Errors
    /// The store's.
    pub async fn conversation(&self, scope: &Scope, id: Uuid) -> Result<Option<Conversation>, StoreError> {
        conversations::one(&self.read, scope, id).await
    }

    /// A conversation's messages and calls behind `before`, the latest first.
    ///
    /// # Errors
    /// The store's.
    pub async fn messages(
        &self,
        scope: &Scope,
        conversation: Uuid,
        before: Option<(i64, Uuid)>,
        limit: u32,
    ) -> Result<Vec<Message>, StoreError> {
        conversations::messages(&self.read, scope, conversation, before, limit).await
    }

    /// One message, whosever it is: for what is named by our own signature.
    ///
    /// # Errors
    /// The store's.
    pub async fn message(&self, id: Uuid) -> Result<Option<(Pair, Message)>, StoreError> {
        conversations::message_of(&self.read, id).await
    }

    /// Messages of which nobody knows whether Meta has them: an earlier process was sending them when it ended.
    ///
    /// # Errors
    /// The store's.
    pub async fn messages_under_way(&self, limit: u32) -> Result<Vec<Uuid>, StoreError> {
        conversations::under_way(&self.read, limit).await
    }

    /// How many conversations are open of each of these numbers, as far as the scope sees them; none of a number that is
    /// not among the answers.
    ///
    /// # Errors
    /// The store's.
    pub async fn open_conversations(&self, scope: &Scope, numbers: &[E164]) -> Result<BTreeMap<E164, u64>, StoreError> {
        conversations::open_of(&self.read, scope, numbers).await
    }

    /// A webhook's deliveries behind that row, the latest first.
    ///
    /// # Errors
    /// The store's.
    pub async fn deliveries(
        &self,
        webhook: Uuid,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<DeliveryView>, StoreError> {
        deliveries::list(&self.read, webhook, before, limit).await
    }

    /// Puts an event that is no message's into the outbox, and waits until it is there; none: the journal has it.
    ///
    /// # Errors
    /// The store's.
    pub async fn tell_webhook(&self, event: NewCallback) -> Result<Option<Written>, StoreError> {
        match self.notify(event).await {
            Ok(written) => Ok(Some(written)),
            Err(StoreError::Journalled) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Store {
    /// What links that are good for a while are signed with: the same after a restart.
    pub fn link_key(&self) -> aws_lc_rs::hmac::Key {
        self.seal.links()
    }
}

fn done(found: Result<InboxFound, StoreError>) -> Result<(bool, Vec<Written>), StoreError> {
    match found? {
        InboxFound::Done(done, written) => Ok((done, written)),
        // Said of what Meta tells only.
        InboxFound::Came(..) | InboxFound::Status(..) | InboxFound::Journalled => Err(StoreError::NotTaken),
    }
}
