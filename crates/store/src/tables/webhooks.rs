//! Webhooks of customers. All are loaded at the start, and changes are written one at a time.

use uuid::Uuid;

use crate::error::{StoreError, failed};
use crate::rows::webhook::{WebhookRow, WebhookWrite};
use crate::seal::Seal;
use crate::shared::Shared;
use crate::sql::{self, Conn, Pool};
use crate::tables::numbers::{NUMBER_JOIN, OWN_ROUTING};
use crate::write::InboxWrite;
use model::{PhoneNumberId, Secret, Timestamp};

/// Handle to the webhooks. See [`Store::webhooks`](crate::Store::webhooks).
#[derive(Clone, Copy, Debug)]
pub struct Webhooks<'a>(pub(crate) &'a Shared);

impl Webhooks<'_> {
    /// Creates, changes or removes a webhook. Returns `false` if the webhook to be changed has
    /// another version now, or if the one to be removed is still the target of a number or
    /// conversation.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn write(self, write: WebhookWrite) -> Result<bool, StoreError> {
        Ok(self.0.queue.inbox(InboxWrite::Webhook(write)).await?.into_done()?.0)
    }

    /// Returns all uses of webhooks by numbers and conversations, including uses of webhooks that
    /// no longer exist. This scans all conversations with a webhook of their own.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn uses(self) -> Result<Vec<WebhookUse>, StoreError> {
        uses(&self.0.read).await
    }

    /// Returns all webhooks.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn list(self) -> Result<Vec<WebhookRow>, StoreError> {
        all(&self.0.read, &self.0.seal).await
    }
}

pub(crate) fn purpose(id: &str) -> Vec<u8> {
    format!("webhook {id}").into_bytes()
}

/// Writes a change of a webhook. See [`Webhooks::write`].
pub(crate) async fn write(
    to: &mut Conn,
    seal: &Seal,
    write: &WebhookWrite,
) -> Result<bool, sqlx::Error> {
    match write {
        WebhookWrite::Put(row) => {
            let id = row.id.to_string();
            let secrets: Vec<&str> = row.secrets.iter().map(Secret::reveal).collect();
            let sealed = seal.seal(&purpose(&id), serde_json::to_vec(&secrets).unwrap_or_default());
            // Unreadable secrets are kept until there are others.
            let sealed = (!secrets.is_empty() || row.version == 0).then_some(sealed);
            // A change never inserts the row: the webhook may have been removed.
            let put = match row.version {
                0 => {
                    "INSERT INTO webhooks (auth_id, name, url, sealed, webhook_id, created_us) \
                    VALUES ($1, $2, $3, $4, $5, $6)"
                }
                _ => {
                    "UPDATE webhooks SET auth_id = $1, name = $2, url = $3, sealed = COALESCE($4, sealed), \
                    version = version + 1 \
                    WHERE webhook_id = $5 AND version = $6"
                }
            };
            let put = sql::query(put).bind(row.account.as_str()).bind(&row.name).bind(&row.url);
            let put = put.bind(sealed).bind(id).bind(match row.version {
                0 => row.created.micros(),
                seen => seen,
            });
            Ok(put.execute(to).await?.rows_affected() > 0)
        }
        WebhookWrite::Remove(id) => {
            let delete = format!(
                "DELETE FROM webhooks WHERE webhook_id = $1 \
                 AND NOT EXISTS (SELECT 1 FROM number_routing r WHERE r.webhook = $1) \
                 AND NOT EXISTS (SELECT 1 FROM number_tenures t WHERE t.webhook = $1) \
                 AND NOT EXISTS (SELECT 1 FROM conversations c {NUMBER_JOIN} WHERE c.webhook IS NOT NULL AND c.webhook = $1 \
                 AND {OWN_ROUTING})"
            );
            let done = sql::query(delete).bind(id.to_string()).execute(to).await?;
            Ok(done.rows_affected() > 0)
        }
    }
}

/// Returns all webhooks.
pub(crate) async fn all(pool: &Pool, seal: &Seal) -> Result<Vec<WebhookRow>, StoreError> {
    let select = "SELECT webhook_id, auth_id, name, url, sealed, created_us, version FROM webhooks ORDER BY webhook_id";
    type Row = (String, String, String, String, Vec<u8>, i64, i64);
    let rows: Vec<Row> =
        sql::query_as(select).fetch_all(pool).await.map_err(failed("read the webhooks"))?;
    let read = |(id, account, name, url, sealed, created, version): Row| {
        let opened = seal.open(&purpose(&id), &sealed);
        let secrets: Vec<String> =
            opened.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        Some(WebhookRow {
            id: id.parse().ok()?,
            account: account.into(),
            name,
            url,
            secrets: secrets.into_iter().map(Secret::new).collect(),
            created: Timestamp::from_micros(created),
            version,
        })
    };
    Ok(rows.into_iter().filter_map(read).collect())
}

/// The use of a webhook by a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookUse {
    pub webhook: Uuid,
    pub number: PhoneNumberId,
    /// Whether it applies to new conversations of the number, as opposed to existing ones.
    pub default: bool,
}

/// Returns all uses of webhooks, including those that no longer exist.
pub(crate) async fn uses(pool: &Pool) -> Result<Vec<WebhookUse>, StoreError> {
    let select = format!(
        "SELECT r.webhook, r.phone_number_id, 1 FROM number_routing r WHERE r.webhook IS NOT NULL \
         UNION SELECT t.webhook, t.phone_number_id, 0 FROM number_tenures t WHERE t.webhook IS NOT NULL \
         UNION SELECT c.webhook, c.phone_number_id, 0 FROM conversations c {NUMBER_JOIN} WHERE c.webhook IS NOT NULL AND {OWN_ROUTING}"
    );
    let rows: Vec<(String, String, i64)> =
        sql::query_as(select).fetch_all(pool).await.map_err(failed("read the uses of webhooks"))?;
    let read = |(webhook, number, default): (String, String, i64)| {
        Some(WebhookUse {
            webhook: webhook.parse().ok()?,
            number: number.into(),
            default: default != 0,
        })
    };
    Ok(rows.into_iter().filter_map(read).collect())
}

/// Returns the ids of the webhooks created at run time.
pub(crate) async fn ids(pool: &Pool) -> Result<Vec<Uuid>, StoreError> {
    let ids = sql::query_scalar::<String>("SELECT webhook_id FROM webhooks").fetch_all(pool).await;
    Ok(ids.map_err(failed("read the webhooks"))?.iter().filter_map(|id| id.parse().ok()).collect())
}
