//! Forgets people on request (`DELETE /users/{waId}/`): their conversations, recordings, calls' logs, permissions and
//! notifications, wherever they stand. A request is a row before it is answered, so that the next process goes on where
//! this one ends; a call that is up is waited for. Calls keep records that name nobody. What comes after the request stays:
//! whoever writes or calls again is a new user to us.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::admission::book::{Keeper, Number};
use crate::admission::permission::{Consents, PairKey};
use crate::call::Recordings;
use crate::inbox::Inbox;
use model::Clock;
use model::{AuthId, CallUuid, PhoneNumberId, Timestamp};
use store::{Erasure, ErasureCutoff, Store, StoreError};

/// Calls, or recordings of one, looked at together.
const AT_ONCE: u32 = 100;
/// Between two looks at what could not be done yet: a call was up, or the store took nothing.
const AGAIN: Duration = Duration::from_secs(5);

/// What it needs.
pub struct ErasureParts {
    pub store: Store,
    pub recordings: Recordings,
    pub inbox: Inbox,
    pub consents: Arc<Consents>,
    pub keeper: Keeper,
    pub clock: Clock,
}

/// Who forgets people; cheap to clone.
#[derive(Clone)]
pub struct Eraser(Arc<Inner>);

struct Inner {
    parts: ErasureParts,
    asked: Notify,
    /// Something of somebody's may still be in the store's write-ahead log; also what an earlier process left there.
    scrub: AtomicBool,
}

impl Eraser {
    pub fn new(parts: ErasureParts) -> Self {
        Self(Arc::new(Inner { parts, asked: Notify::new(), scrub: AtomicBool::new(true) }))
    }

    /// Takes a request on. It is in the store when this returns, and is carried out whatever happens then.
    ///
    /// # Errors
    /// The store takes nothing now; nothing has changed.
    pub async fn ask(
        &self,
        account: AuthId,
        main_account: AuthId,
        wa_id: &str,
    ) -> Result<Erasure, StoreError> {
        let asked = self.0.parts.clock.wall();
        let erasure = Erasure {
            id: Uuid::new_v4(),
            account,
            main_account,
            wa_id: wa_id.to_owned(),
            known_as: Vec::new(),
            asked,
        };
        self.0.parts.store.erasures().request(erasure.clone()).await?;
        self.0.asked.notify_one();
        Ok(erasure)
    }

    /// Carries requests out, those of an earlier process first, until the node stops.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            let left = stop.run_until_cancelled(self.all()).await;
            let Some(left) = left else { return };
            let next = async {
                if left {
                    let _ = tokio::time::timeout(AGAIN, self.0.asked.notified()).await;
                } else {
                    self.0.asked.notified().await;
                }
            };
            if stop.run_until_cancelled(next).await.is_none() {
                return;
            }
        }
    }

    /// Whether something is left to be done later.
    async fn all(&self) -> bool {
        let erasures = match self.0.parts.store.erasures().list().await {
            Ok(erasures) => erasures,
            Err(error) => {
                tracing::warn!(%error, "could not see who is to be forgotten; trying again");
                return true;
            }
        };
        let mut left = false;
        for erasure in erasures {
            match self.one(&erasure).await {
                Ok(true) => {
                    self.0.scrub.store(true, Ordering::Relaxed);
                    tracing::info!(erasure = %erasure.id, "a person is forgotten");
                }
                Ok(false) => left = true,
                Err(error) => {
                    tracing::warn!(erasure = %erasure.id, %error, "a person could not be forgotten yet; trying again");
                    left = true;
                }
            }
        }
        let scrubbed = self.scrubbed().await;
        left || !scrubbed
    }

    /// Whether nothing is left of anybody in the store's file. Readers may be in the way: then it is tried again.
    async fn scrubbed(&self) -> bool {
        if !self.0.scrub.load(Ordering::Relaxed) {
            return true;
        }
        let done = match self.0.parts.store.erasures().scrub().await {
            Ok(done) => done,
            Err(error) => {
                tracing::warn!(%error, "what people who were forgotten left in the store's log is still there; trying again");
                false
            }
        };
        self.0.scrub.store(!done, Ordering::Relaxed);
        done
    }

    /// `false`: a call of theirs is up, or is still being recorded.
    async fn one(&self, erasure: &Erasure) -> Result<bool, StoreError> {
        let parts = &self.0.parts;
        // What was written a moment ago is read by now.
        parts.store.flush().await;
        let erasure = &parts.store.erasures().resolve(erasure.clone()).await?;
        let until = self.until(erasure);
        // First: one that ends while the others are looked at is neither among those that have ended nor, later, among these.
        let mut left = !parts.store.erasures().calls(erasure, false, None, 1).await?.is_empty();
        let mut after = None;
        loop {
            let calls = parts.store.erasures().calls(erasure, true, after, AT_ONCE).await?;
            let Some(last) = calls.last() else { break };
            after = Some(*last);
            for call in calls {
                left |= !self.call(erasure, call).await?;
            }
        }
        self.conversations(erasure, until).await?;
        let numbers = self.numbers(erasure);
        for (number, id) in
            numbers.iter().flat_map(|number| erasure.ids().into_iter().map(move |id| (number, id)))
        {
            parts.consents.forget(&PairKey::new(number, &id));
        }
        // Webhooks may have been told of a person with whom there is no conversation.
        for (number, id) in
            numbers.iter().flat_map(|number| erasure.ids().into_iter().map(move |id| (number, id)))
        {
            if let Some(conversation) = parts.inbox.conversation_with(number, &id) {
                parts.store.erasures().erase_events(conversation, until.steady).await?;
            }
        }
        parts.store.erasures().erase_remaining(erasure, until, numbers).await?;
        if left {
            return Ok(false);
        }
        parts.store.erasures().finish(erasure.id).await?;
        Ok(true)
    }

    /// Files before rows: a row is found again. `false`: it is still being recorded, or goes on in a call that dialled it.
    async fn call(&self, erasure: &Erasure, call: CallUuid) -> Result<bool, StoreError> {
        let (parts, scope) = (&self.0.parts, erasure.scope());
        loop {
            let heard = parts.store.erasures().call_recordings(&scope, call).await?;
            if !heard.is_over {
                return Ok(false);
            }
            if heard.recordings.is_empty() {
                break;
            }
            for id in heard.recordings {
                parts.recordings.remove(&scope, id).await?;
            }
        }
        // It may have ended a moment ago: lines of its log that wait are written before the log goes.
        parts.store.flush().await;
        // Before the record, which says whose they are.
        if let Some(record) = parts.store.calls().get(&scope, call).await?
            && let Some((conversation, events)) = parts.inbox.webhook_events(&record.start)
        {
            parts.store.erasures().erase_events_by_id(conversation, &events).await?;
        }
        parts.store.erasures().erase_call(call, Inbox::timeline_id(call)).await?;
        Ok(true)
    }

    /// The moment of the request, by both clocks.
    fn until(&self, erasure: &Erasure) -> ErasureCutoff {
        let (asked, clock) = (erasure.asked.micros(), &self.0.parts.clock);
        let apart = clock.steady().micros().saturating_sub(clock.wall().micros());
        ErasureCutoff {
            wall: erasure.asked,
            steady: Timestamp::from_micros(asked.saturating_add(apart)),
        }
    }

    async fn conversations(
        &self,
        erasure: &Erasure,
        until: ErasureCutoff,
    ) -> Result<(), StoreError> {
        let (parts, mut after) = (&self.0.parts, Uuid::nil());
        loop {
            let some = parts.store.erasures().conversations(erasure, after, AT_ONCE).await?;
            let Some(last) = some.last() else { return Ok(()) };
            after = last.pair.conversation;
            for conversation in &some {
                parts.inbox.delete_until(&erasure.scope(), &conversation.pair, until).await?;
            }
        }
    }

    /// The asker's numbers, those out of service too.
    fn numbers(&self, erasure: &Erasure) -> Vec<PhoneNumberId> {
        let book = self.0.parts.keeper.book();
        let numbers = book.numbers(&erasure.scope()).into_iter();
        // By an id that Meta gave a number before, something may be kept too.
        let former = |number: &Number| {
            Some(number.mail_id().clone()).filter(|id| *id != number.phone_number_id)
        };
        numbers
            .flat_map(|number| {
                std::iter::once(number.phone_number_id.clone()).chain(former(number))
            })
            .collect()
    }
}
