//! Delivery statuses of messages. Each is stored, together with the event that reports it, before
//! Meta gets its 200.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::early_statuses::{EarlyStatus, EarlyStatuses};
use super::events::{EventSource, WebhookEvents};
use super::timeline::{QueueFull, StoredFuture};
use crate::admission::NumberEntry;
use crate::feed::{Audience, Feed, FeedChange};
use model::{AuthId, Clock, MessageStatus};
use store::{InboxResult, StatusUpdate, Store, StoreError};

/// A delivery status of an outgoing message, parsed from the webhook.
#[derive(Clone, Debug)]
pub struct ReceivedStatus {
    pub wamid: String,
    pub status: MessageStatus,
    /// Meta's error code and text.
    pub error: Option<(i64, String)>,
    /// The `biz_opaque_callback_data` of the message.
    pub opaque: Option<String>,
    pub timestamp: Option<i64>,
}

/// The prefix of Offhook's opaque data. The message's id follows.
const OPAQUE: &str = "ohm1.";

/// The `biz_opaque_callback_data` of a message.
pub(super) fn opaque_data(message: Uuid) -> String {
    format!("{OPAQUE}{message}")
}

fn message_of(opaque: &str) -> Option<Uuid> {
    opaque.strip_prefix(OPAQUE)?.parse().ok()
}

/// The number of waits before a status is given up. Together they outlast a Graph request with all
/// its retries.
const WAITS_MAX: u32 = 32;
/// The length of one wait, after which the task checks whether the node is stopping.
const WAIT: Duration = Duration::from_secs(1);

/// Stores statuses and reports them.
pub struct DeliveryStatuses {
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) feed: Feed,
    pub(super) tasks: TaskTracker,
    pub(super) events: Arc<WebhookEvents>,
    pub(super) early: Arc<EarlyStatuses>,
}

impl DeliveryStatuses {
    /// Stores a delivery status. The webhook's 200 waits for the returned future.
    ///
    /// # Errors
    /// Fails if the store's queue is full.
    pub fn receive(
        self: &Arc<Self>,
        number: &Arc<NumberEntry>,
        received: ReceivedStatus,
    ) -> Result<StoredFuture, QueueFull> {
        let came = self.update(
            &EventSource::number(number),
            Some(received.wamid),
            received.opaque.as_deref().and_then(message_of),
            received.status,
            received.error,
        );
        // Register before writing, so that a message id that Graph returns in between is not
        // missed.
        let waiting = self.register_early(&came);
        let written = self.store.messages().update_status(came.clone()).ok_or(QueueFull)?;
        let (statuses, account) = (self.clone(), number.account.auth_id.clone());
        let main = number.account.main().auth_id.clone();
        let handed = self.tasks.spawn(async move {
            let found = written.await;
            if let (Ok(InboxResult::Status(None, _)), Some(waiting)) = (&found, waiting) {
                statuses.retry((account.clone(), main.clone()), came, waiting);
            }
            statuses.finish(Audience::of(&account, &main), found)
        });
        Ok(Box::pin(async move { handed.await.unwrap_or(false) }))
    }

    /// Registers a status that only its message id identifies. Call it before the status is
    /// written, so that an id that arrives in between is not missed.
    fn register_early(&self, came: &StatusUpdate) -> Option<EarlyStatus> {
        let wamid = came.wamid.clone().filter(|_| came.named.is_none())?;
        self.early.register((came.phone_number_id.clone(), wamid))
    }

    /// Retries a status whose message was unknown when it was first written.
    fn retry(
        self: &Arc<Self>,
        (account, main): (AuthId, AuthId),
        came: StatusUpdate,
        mut waiting: EarlyStatus,
    ) {
        let statuses = self.clone();
        self.tasks.spawn(async move {
            for wait in 1..=WAITS_MAX {
                let named = tokio::time::timeout(WAIT, &mut waiting.named).await.is_ok();
                let stops = statuses.tasks.is_closed();
                if named || stops || wait.is_power_of_two() {
                    let Some(written) = statuses.store.messages().update_status(came.clone())
                    else {
                        return;
                    };
                    let found = written.await;
                    let known = matches!(found, Ok(InboxResult::Status(Some(_), _)));
                    statuses.finish(Audience::of(&account, &main), found);
                    if known || named || stops {
                        return;
                    }
                }
            }
        });
    }

    /// Reports a status that was written. Returns `false` if it could not be written.
    pub(super) fn finish(&self, to: Audience<'_>, found: Result<InboxResult, StoreError>) -> bool {
        let taken = matches!(found, Ok(InboxResult::Status(..) | InboxResult::Journalled));
        if let Ok(InboxResult::Status(Some((conversation, message)), written)) = found {
            self.events.send_callbacks(written);
            self.feed.publish(to, FeedChange::Message { conversation, message });
        }
        taken
    }

    /// Builds the status update for the store.
    pub(super) fn update(
        &self,
        about: &EventSource<'_>,
        wamid: Option<String>,
        named: Option<Uuid>,
        status: MessageStatus,
        error: Option<(i64, String)>,
    ) -> StatusUpdate {
        let at = self.clock.wall();
        let key = named.map_or_else(|| wamid.clone().unwrap_or_default(), |id| id.to_string());
        let data = json!({
            "conversation": null,
            "message": {
                "id": null,
                "wamid": wamid,
                "status": status,
                "at": at.to_string(),
                "error": error.as_ref().map(|(code, text)| json!({"code": code, "message": text})),
            },
        });
        let mut form = vec![
            ("From".to_owned(), about.number.to_string()),
            ("Status".to_owned(), status.as_str().to_owned()),
        ];
        if matches!(status, MessageStatus::Delivered | MessageStatus::Read) {
            form.push(("DeliveryReportTime".to_owned(), at.plivo_secs()));
        }
        if let Some(wamid) = &wamid {
            form.push(("WhatsappMessageID".to_owned(), wamid.clone()));
        }
        if let Some((code, text)) = &error {
            form.push(("ErrorCode".to_owned(), code.to_string()));
            form.push(("ErrorMessage".to_owned(), text.clone()));
        }
        // A failure that we record before Meta assigned a message id, and Meta's later status, are
        // two events.
        let by = if wamid.is_some() { "" } else { " here" };
        let of = ["status", status.as_str(), &format!("{key}{by}")];
        let draft = self.events.draft_about(about, "message.status", &of, data, form);
        StatusUpdate {
            phone_number_id: about.phone_number_id.clone(),
            wamid,
            named,
            status,
            error,
            at,
            draft,
        }
    }
}
