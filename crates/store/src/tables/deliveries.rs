//! The delivery log of a webhook, or of a number's own webhook URL: the outbox rows that go to it.

use uuid::Uuid;

use crate::error::{RowError, StoreError, failed};
use crate::rows::callback::CallbackState;
use crate::rows::message::InboxResult;
use crate::scope::{self, Scope};
use crate::sql::{self, Conn, Dialect, Pool, QueryBuilder, Row};
use crate::tables::outbox::{IS_OWNED, owner_of_due};
use crate::tables::webhooks::Webhooks;
use crate::write::InboxWrite;
use model::{PhoneNumberId, Timestamp};

/// Where events are delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// A webhook of the account.
    Webhook(Uuid),
    /// The webhook URL of a number.
    Number(PhoneNumberId),
}

/// Prefix of the column `webhook` in rows that go to the webhook URL of a number.
pub(crate) const OF_NUMBER: &str = "number:";

impl Receiver {
    /// The value of the column `webhook`.
    pub(crate) fn column(&self) -> String {
        match self {
            Self::Webhook(id) => id.to_string(),
            Self::Number(number) => format!("{OF_NUMBER}{number}"),
        }
    }
}

impl Webhooks<'_> {
    /// Redelivers an event of the scope to its receiver, after the older events of its queue that
    /// still wait. `owner` sends it if no process has the queue. Returns `false` if the event does not
    /// exist.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn redeliver(
        self,
        receiver: &Receiver,
        scope: &Scope,
        event_id: Uuid,
        owner: &str,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        // The search through the receiver's history uses a read connection. The writer gets the
        // row id.
        let mut select = QueryBuilder::new("SELECT id FROM callbacks WHERE webhook = ");
        select.push_bind(receiver.column()).push(" AND event_id = ");
        select.push_bind(event_id.to_string()).push(" AND ");
        scope::push_scope(&mut select, scope);
        select.push(" ORDER BY id DESC LIMIT 1");
        let row = select.build_query_scalar().fetch_optional(&self.0.read).await;
        let Some(row) = row.map_err(failed("find an event"))? else { return Ok(false) };
        Ok(self
            .0
            .queue
            .inbox(InboxWrite::Redeliver { row, owner: owner.to_owned(), now })
            .await?
            .into_done()?
            .0)
    }

    /// Returns the deliveries of the scope to a receiver with a row id below `before`, newest
    /// first.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn deliveries(
        self,
        receiver: &Receiver,
        scope: &Scope,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<DeliveryView>, StoreError> {
        list(&self.0.read, receiver, scope, before, limit).await
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

/// Returns the deliveries of the scope to a receiver, newest first.
pub(crate) async fn list(
    pool: &Pool,
    receiver: &Receiver,
    scope: &Scope,
    before: Option<i64>,
    limit: u32,
) -> Result<Vec<DeliveryView>, StoreError> {
    const WHAT: &str = "list a webhook's deliveries";
    let mut select = QueryBuilder::new(
        "SELECT id, event_id, event, created_us, attempts, next_us, done_us, delivered, last FROM callbacks \
        WHERE webhook = ",
    );
    select.push_bind(receiver.column()).push(" AND id < ").push_bind(before.unwrap_or(i64::MAX));
    select.push(" AND ");
    scope::push_scope(&mut select, scope);
    select.push(" ORDER BY id DESC LIMIT ").push_bind(i64::from(limit));
    let rows = select.build().fetch_all(pool).await.map_err(failed(WHAT))?;
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
    owner: &str,
    now: Timestamp,
) -> Result<InboxResult, sqlx::Error> {
    // Older events of its queue that still wait are sent before it.
    let older = "UPDATE callbacks SET next_us = $2 WHERE next_us > $2 AND id < $1 AND \
        (call_uuid, url) = (SELECT f.call_uuid, f.url FROM callbacks f WHERE f.id = $1)";
    sql::query(older).bind(row).bind(now.micros()).execute(&mut *to).await?;
    let owner_now = match to.dialect() {
        Dialect::Sqlite => "$3".to_owned(),
        Dialect::Postgres => owner_of_due(IS_OWNED, "$3"),
    };
    let update = format!(
        "UPDATE callbacks SET next_us = $2, done_us = NULL, delivered = 0, since_us = $2, retries = 0, \
         node_id = {owner_now} WHERE id = $1"
    );
    let update = sql::query(update).bind(row).bind(now.micros()).bind(owner);
    Ok(InboxResult::Done(update.execute(to).await?.rows_affected() > 0, Vec::new()))
}
