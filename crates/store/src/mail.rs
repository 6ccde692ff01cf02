//! The store's side of messages and conversations: what the inbox asks of it.

use crate::error::StoreError;
use std::collections::BTreeMap;

use uuid::Uuid;

use crate::error::failed;
use crate::rows::callback::{NewCallback, Written};
use crate::rows::conversation::{Conversation, ConversationChange, ConversationFilter, Pair};
use crate::rows::message::{
    Came, Draft, Going, Gone, InboxFound, LeftMessage, Message, StatusCame,
};
use crate::rows::number::{Claim, Reroute, Tenure};
use crate::rows::webhook::{WebhookRow, WebhookWrite};
use crate::scope::Scope;
use crate::sql;
use crate::store::Store;
use crate::tables::conversation_lists::{self, Listed};
use crate::tables::deliveries::{self, DeliveryView};
use crate::tables::webhooks::{self, WebhookUse};
use crate::tables::{conversations, messages, numbers};
use crate::write::InboxWrite;
use model::{E164, PhoneNumberId, Routing, Timestamp};

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

    /// Writes messages that are to go out; refused where there is no such conversation, or its epoch is another.
    ///
    /// # Errors
    /// The store takes nothing now; nothing has changed.
    pub async fn message_going(&self, going: Going) -> Result<Gone, StoreError> {
        match self.log.inbox(InboxWrite::Going(going)).await? {
            InboxFound::Gone(gone) => Ok(gone),
            InboxFound::Came(..)
            | InboxFound::Status(..)
            | InboxFound::Done(..)
            | InboxFound::Journalled => Err(StoreError::NotTaken),
        }
    }

    /// Meta is about to be asked to take a message, which it may have from then on; `false`: it was asked before, or is not
    /// to go out any more.
    ///
    /// # Errors
    /// The store takes nothing now; nothing has changed.
    pub async fn message_asking(&self, message: Uuid, at: Timestamp) -> Result<bool, StoreError> {
        done(self.log.inbox(InboxWrite::Asking { message, at }).await).map(|(done, _)| done)
    }

    /// Meta has a message under this id. Queued when this returns.
    pub fn message_posted(
        &self,
        message: Uuid,
        wamid: String,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send + 'static + use<> {
        let written = self.log.inbox(InboxWrite::Posted { message, wamid });
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
    /// The store takes nothing now; some of its messages may be gone.
    pub async fn delete_conversation(
        &self,
        scope: &Scope,
        conversation: Uuid,
    ) -> Result<bool, StoreError> {
        if self.conversation(scope, conversation).await?.is_none() {
            return Ok(false);
        }
        self.erase_within(conversation).await?;
        let written = self.log.inbox(InboxWrite::Delete { scope: scope.clone(), conversation });
        done(written.await).map(|(done, _)| done)
    }

    /// An event is sent to its webhook once more; `false`: there is none of that id.
    ///
    /// # Errors
    /// The store takes nothing now; nothing has changed.
    pub async fn redeliver(
        &self,
        webhook: Uuid,
        event_id: Uuid,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        // The writer goes to the row: whoever looks through a webhook's history for it is a reader.
        let select = "SELECT id FROM callbacks WHERE webhook = $1 AND event_id = $2 ORDER BY id DESC LIMIT 1";
        let select = sql::query_scalar(select).bind(webhook.to_string()).bind(event_id.to_string());
        let row = select.fetch_optional(&self.read).await.map_err(failed("look for an event"))?;
        let Some(row) = row else { return Ok(false) };
        done(self.log.inbox(InboxWrite::Redeliver { row, now }).await).map(|(done, _)| done)
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

    /// A number is another account's from now on; `false`: it was before.
    ///
    /// # Errors
    /// The store takes nothing now; nothing has changed.
    pub async fn claim_number(&self, claim: Claim) -> Result<bool, StoreError> {
        done(self.log.inbox(InboxWrite::Claim(claim)).await).map(|(done, _)| done)
    }

    /// Whose conversations the numbers have.
    ///
    /// # Errors
    /// The store's.
    pub async fn tenures(&self) -> Result<Vec<(PhoneNumberId, Tenure)>, StoreError> {
        numbers::all(&self.read).await
    }

    /// Makes a conversation with this routing, or gives it that routing.
    ///
    /// # Errors
    /// The store takes nothing now; nothing has changed.
    pub async fn open_conversation(
        &self,
        pair: Pair,
        routing: Routing,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        done(self.log.inbox(InboxWrite::Open { pair, routing, at }).await).map(drop)
    }

    /// What was set of numbers' routing.
    ///
    /// # Errors
    /// The store's.
    pub async fn routings(&self) -> Result<Vec<(PhoneNumberId, Routing)>, StoreError> {
        numbers::routings(&self.read).await
    }

    /// Makes, changes or takes away a webhook; `false`: numbers or conversations go to the one that was to be taken away.
    ///
    /// # Errors
    /// The store takes nothing now; nothing has changed.
    pub async fn webhook(&self, write: WebhookWrite) -> Result<bool, StoreError> {
        done(self.log.inbox(InboxWrite::Webhook(write)).await).map(|(done, _)| done)
    }

    /// What goes to webhooks, those included that are not there any more. Reads all conversations that have one of their own:
    /// for rare questions.
    ///
    /// # Errors
    /// The store's.
    pub async fn webhook_uses(&self) -> Result<Vec<WebhookUse>, StoreError> {
        webhooks::uses(&self.read).await
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
    ) -> Result<Listed, StoreError> {
        conversation_lists::list(&self.read, scope, filter, limit).await
    }

    /// One of a scope's conversations.
    ///
    /// # Errors
    /// The store's.
    pub async fn conversation(
        &self,
        scope: &Scope,
        id: Uuid,
    ) -> Result<Option<Conversation>, StoreError> {
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
        messages::messages(&self.read, scope, conversation, before, limit).await
    }

    /// One message, whosever it is: for what is named by our own signature.
    ///
    /// # Errors
    /// The store's.
    pub async fn message(&self, id: Uuid) -> Result<Option<(Pair, Message)>, StoreError> {
        messages::message_of(&self.read, id).await
    }

    /// Messages that an earlier process of this node had taken for sending when it ended, the oldest first, behind that one.
    ///
    /// # Errors
    /// The store's.
    pub async fn messages_left(
        &self,
        node: &str,
        after: (i64, Uuid),
        limit: u32,
    ) -> Result<Vec<LeftMessage>, StoreError> {
        messages::left(&self.read, node, after, limit).await
    }

    /// How many messages a user had written in a conversation when this one came, itself among them.
    ///
    /// # Errors
    /// The store's.
    pub async fn messages_until(
        &self,
        conversation: Uuid,
        at: Timestamp,
        id: Uuid,
    ) -> Result<u64, StoreError> {
        messages::until(&self.read, conversation, at, id).await
    }

    /// How many conversations are open of each of these numbers, as far as the scope sees them; none of a number that is
    /// not among the answers.
    ///
    /// # Errors
    /// The store's.
    pub async fn open_conversations(
        &self,
        scope: &Scope,
        numbers: &[E164],
    ) -> Result<BTreeMap<E164, u64>, StoreError> {
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
        InboxFound::Came(..)
        | InboxFound::Status(..)
        | InboxFound::Gone(..)
        | InboxFound::Journalled => Err(StoreError::NotTaken),
    }
}
