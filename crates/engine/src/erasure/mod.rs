//! Erases the personal data of users on request (`DELETE /users/{waId}/`): conversations,
//! recordings, event logs, permissions and notifications. A request is stored before it is
//! acknowledged, so that the next process completes it after a crash. Live calls are erased after
//! their end. Call records are kept without personal data. Data that arrives after the request is
//! kept, because it counts as that of a new user.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::admission::book::{Keeper, Number};
use crate::admission::permission::{Consents, PairKey};
use crate::call::Recordings;
use crate::inbox::{CallReports, Inbox};
use model::Clock;
use model::{AuthId, CallUuid, PhoneNumberId, Timestamp};
use speech::library::Library;
use store::{CallRecord, Erasure, ErasureCutoff, Store, StoreError};

/// Calls or conversations per read from the store.
const BATCH: u32 = 100;
/// Pause before retrying erasures that failed or wait for the end of a call.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// How long after the end of its call a prompt may still be written to the cache.
const PROMPT_MARGIN: Duration = Duration::from_secs(60);

/// Interval at which the nodes of a fleet look for erasures that wait.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// How far an erasure has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Complete,
    /// A call of the user is live or still being recorded.
    CallIsLive,
    /// Other nodes have files to remove from their disks, or the user's data is to be erased again.
    Waits,
}

/// The dependencies of [`Eraser`].
pub struct ErasureParts {
    pub store: Store,
    pub recordings: Recordings,
    pub prompts: Library,
    pub inbox: Inbox,
    pub consents: Arc<Consents>,
    pub keeper: Keeper,
    pub clock: Clock,
}

/// Erases personal data; cheap to clone.
#[derive(Clone)]
pub struct Eraser(Arc<Inner>);

struct Inner {
    parts: ErasureParts,
    asked: Notify,
    /// Whether the store's write-ahead log may still contain erased data. Initially true, because
    /// of an earlier process's data.
    scrub: AtomicBool,
}

impl Eraser {
    pub fn new(parts: ErasureParts) -> Self {
        Self(Arc::new(Inner { parts, asked: Notify::new(), scrub: AtomicBool::new(true) }))
    }

    /// Accepts a request. The request is stored when this returns, and will be carried out.
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails. Then nothing has changed.
    pub async fn ask(
        &self,
        account: AuthId,
        main_account: AuthId,
        wa_id: &str,
    ) -> Result<Erasure, StoreError> {
        let asked = self.0.parts.clock.wall();
        let request = Erasure {
            id: Uuid::new_v4(),
            account,
            main_account,
            wa_id: wa_id.to_owned(),
            known_as: Vec::new(),
            asked,
        };
        let erasure = self.0.parts.store.erasures().request(request).await?;
        self.0.asked.notify_one();
        Ok(erasure)
    }

    /// Carries out requests, including those of earlier processes, until the node stops.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            let left = stop.run_until_cancelled(self.run_all()).await;
            let Some(left) = left else { return };
            // Other nodes may have left some, or have removed their files.
            let look = self.0.parts.store.is_shared().then_some(LOOK_INTERVAL);
            let next = async {
                match if left { Some(RETRY_PAUSE) } else { look } {
                    Some(pause) => {
                        let _ = tokio::time::timeout(pause, self.0.asked.notified()).await;
                    }
                    None => self.0.asked.notified().await,
                }
            };
            if stop.run_until_cancelled(next).await.is_none() {
                return;
            }
        }
    }

    /// Carries out all requests. Returns whether some work is left for later.
    async fn run_all(&self) -> bool {
        // The list is limited, so completed requests make room for others.
        let left = loop {
            let erasures = match self.0.parts.store.erasures().list().await {
                Ok(erasures) => erasures,
                Err(error) => {
                    tracing::warn!(%error, "erasure requests could not be read; trying again");
                    return true;
                }
            };
            let (mut left, mut completed) = (false, 0);
            for erasure in erasures {
                match self.erase(&erasure).await {
                    Ok(Progress::Complete) => {
                        self.0.scrub.store(true, Ordering::Relaxed);
                        completed += 1;
                        tracing::info!(erasure = %erasure.id, "erasure completed");
                    }
                    Ok(Progress::CallIsLive) => left = true,
                    Ok(Progress::Waits) => {
                        tracing::info!(erasure = %erasure.id, "erasure waits until the other nodes have removed their files, or was requested again");
                    }
                    Err(error) => {
                        tracing::warn!(erasure = %erasure.id, %error, "erasure failed; trying again");
                        left = true;
                    }
                }
            }
            if completed == 0 {
                break left;
            }
        };
        let scrub_log = self.scrub_log().await;
        left || !scrub_log
    }

    /// Removes erased data from the write-ahead log. Returns `false` if readers prevent it.
    async fn scrub_log(&self) -> bool {
        if !self.0.scrub.load(Ordering::Relaxed) {
            return true;
        }
        let done = match self.0.parts.store.erasures().scrub().await {
            Ok(done) => done,
            Err(error) => {
                tracing::warn!(%error, "write-ahead log could not be scrubbed; trying again");
                false
            }
        };
        self.0.scrub.store(!done, Ordering::Relaxed);
        done
    }

    /// Carries out a request.
    async fn erase(&self, erasure: &Erasure) -> Result<Progress, StoreError> {
        let parts = &self.0.parts;
        // So that recent writes are found.
        parts.store.flush().await;
        let erasure = &parts.store.erasures().resolve(erasure.clone()).await?;
        let until = self.until(erasure);
        // Checked first: a call that ends in the meantime is then found either here or among the
        // ended ones.
        let mut left = !parts.store.erasures().calls(erasure, false, None, 1).await?.is_empty();
        let mut after = None;
        loop {
            let calls = parts.store.erasures().calls(erasure, true, after, BATCH).await?;
            let Some(last) = calls.last() else { break };
            after = Some(*last);
            self.prompts(erasure, &calls).await?;
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
        // Webhooks may have received events of a user without a conversation.
        for (number, id) in
            numbers.iter().flat_map(|number| erasure.ids().into_iter().map(move |id| (number, id)))
        {
            if let Some(conversation) = parts.inbox.numbers().conversation_with(number, &id) {
                parts.store.erasures().erase_events(conversation, until.steady).await?;
            }
        }
        parts.store.erasures().erase_remaining(erasure, until, numbers).await?;
        if left {
            return Ok(Progress::CallIsLive);
        }
        Ok(match parts.store.erasures().finish(erasure).await? {
            true => Progress::Complete,
            false => Progress::Waits,
        })
    }

    /// Removes the cached prompts that were last used during these calls, because their text may be
    /// about the user. Those of others that are among them are spoken again when they are needed.
    async fn prompts(&self, erasure: &Erasure, calls: &[CallUuid]) -> Result<(), StoreError> {
        let mut periods = Vec::with_capacity(calls.len());
        for call in calls {
            let record = self.0.parts.store.calls().get(&erasure.scope(), *call).await?;
            if let Some(CallRecord { start, end: Some(end) }) = record {
                periods.push(start.started..=end.ended.plus(PROMPT_MARGIN));
            }
        }
        self.0.parts.prompts.forget_used_within(periods).await;
        Ok(())
    }

    /// Erases a call, files before rows, so that an interrupted erasure finds the rows again.
    /// Returns `false` if the call is still being recorded or continues in the call that dialled
    /// it.
    async fn call(&self, erasure: &Erasure, call: CallUuid) -> Result<bool, StoreError> {
        let (parts, scope) = (&self.0.parts, erasure.scope());
        loop {
            let found = parts.store.erasures().call_recordings(&scope, call).await?;
            if !found.is_over {
                return Ok(false);
            }
            if found.recordings.is_empty() {
                break;
            }
            for id in found.recordings {
                parts.recordings.remove(&scope, id).await?;
            }
        }
        // The call may just have ended. Write the queued lines of its log before erasing it.
        parts.store.flush().await;
        // Before the record is erased, which names the events' owner.
        if let Some(record) = parts.store.calls().get(&scope, call).await?
            && let Some((conversation, events)) = parts.inbox.calls().webhook_events(&record.start)
        {
            parts.store.erasures().erase_events_by_id(conversation, &events).await?;
        }
        parts.store.erasures().erase_call(call, CallReports::timeline_id(call)).await?;
        Ok(true)
    }

    /// Returns the time of the request, on both clocks.
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
            let some = parts.store.erasures().conversations(erasure, after, BATCH).await?;
            let Some(last) = some.last() else { return Ok(()) };
            after = last.pair.conversation;
            for conversation in &some {
                parts
                    .inbox
                    .conversations()
                    .delete_until(&erasure.scope(), &conversation.pair, until)
                    .await?;
            }
        }
    }

    /// The numbers in the request's scope, including disconnected ones.
    fn numbers(&self, erasure: &Erasure) -> Vec<PhoneNumberId> {
        let book = self.0.parts.keeper.book();
        let numbers = book.numbers(&erasure.scope()).into_iter();
        // Data may also be stored under the first id of a number.
        let former = |number: &Number| {
            Some(number.first_id().clone()).filter(|id| *id != number.phone_number_id)
        };
        numbers
            .flat_map(|number| {
                std::iter::once(number.phone_number_id.clone()).chain(former(number))
            })
            .collect()
    }
}
