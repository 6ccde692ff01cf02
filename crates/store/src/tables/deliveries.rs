//! The delivery log of a webhook: the outbox rows that go to it.

use uuid::Uuid;

use crate::error::{RowError, StoreError, failed};
use crate::rows::callback::CallbackState;
use crate::rows::message::InboxResult;
use crate::sql::{self, Conn, Pool, Row};
use crate::tables::webhooks::Webhooks;
use crate::write::InboxWrite;
use model::Timestamp;

impl Webhooks<'_> {
    /// Redelivers an event to its webhook. Returns `false` if the event does not exist.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn redeliver(
        self,
        webhook: Uuid,
        event_id: Uuid,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        // The search through the webhook's history uses a read connection. The writer gets the row
        // id.
        let select = "SELECT id FROM callbacks WHERE webhook = $1 AND event_id = $2 ORDER BY id DESC LIMIT 1";
        let select = sql::query_scalar(select).bind(webhook.to_string()).bind(event_id.to_string());
        let row = select.fetch_optional(&self.0.read).await.map_err(failed("find an event"))?;
        let Some(row) = row else { return Ok(false) };
        Ok(self.0.queue.inbox(InboxWrite::Redeliver { row, now }).await?.into_done()?.0)
    }

    /// Returns the deliveries of a webhook with a row id below `before`, newest first.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn deliveries(
        self,
        webhook: Uuid,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<DeliveryView>, StoreError> {
        list(&self.0.read, webhook, before, limit).await
    }
}

/// An event that was or will be delivered.
#[derive(Clone, Debug, PartialEq)]
pub struct DeliveryView {
    /// Row id, used as the cursor of the next page.
    pub row: i64,
    pub event_id: String,
    /// The event type, such as `message.received`.
    pub event: String,
    pub created: Timestamp,
    pub attempts: u32,
    pub state: CallbackState,
    /// Result of the last attempt, for people.
    pub last: String,
}

/// Returns the deliveries of a webhook, newest first.
pub(crate) async fn list(
    pool: &Pool,
    webhook: Uuid,
    before: Option<i64>,
    limit: u32,
) -> Result<Vec<DeliveryView>, StoreError> {
    const WHAT: &str = "list a webhook's deliveries";
    let select = "SELECT id, event_id, event, created_us, attempts, next_us, done_us, delivered, last FROM callbacks \
        WHERE webhook = $1 AND id < $2 ORDER BY id DESC LIMIT $3";
    let rows = sql::query(select)
        .bind(webhook.to_string())
        .bind(before.unwrap_or(i64::MAX))
        .bind(i64::from(limit))
        .fetch_all(pool)
        .await
        .map_err(failed(WHAT))?;
    let view = |row: &Row| -> Result<DeliveryView, RowError> {
        let time = |column: &str| {
            row.try_get::<Option<i64>, _>(column).map(|at| at.map(Timestamp::from_micros))
        };
        let done = time("done_us")?.unwrap_or_default();
        Ok(DeliveryView {
            row: row.try_get("id")?,
            event_id: row.try_get("event_id")?,
            event: row.try_get::<Option<String>, _>("event")?.unwrap_or_default(),
            created: time("created_us")?.unwrap_or_default(),
            attempts: u32::try_from(row.try_get::<i64, _>("attempts")?).unwrap_or(u32::MAX),
            state: match (time("next_us")?, row.try_get::<i64, _>("delivered")? != 0) {
                (Some(due), _) => CallbackState::Waiting { due },
                (None, true) => CallbackState::Delivered { at: done },
                (None, false) => CallbackState::Failed { at: done },
            },
            last: row.try_get("last")?,
        })
    };
    rows.iter()
        .map(|row| {
            view(row).map_err(|e| StoreError::Unreadable { what: WHAT, detail: e.to_string() })
        })
        .collect()
}

pub(crate) async fn redeliver(
    to: &mut Conn,
    row: i64,
    now: Timestamp,
) -> Result<InboxResult, sqlx::Error> {
    let update = "UPDATE callbacks SET next_us = 0, done_us = NULL, delivered = 0, since_us = $2, retries = 0 \
        WHERE id = $1";
    let update = sql::query(update).bind(row).bind(now.micros());
    Ok(InboxResult::Done(update.execute(to).await?.rows_affected() > 0, Vec::new()))
}
