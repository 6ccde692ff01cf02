//! Owners and routing of business numbers.
//!
//! A change that concerns all conversations of a number, by `applyToExisting` or by a new owner,
//! writes one row. Each conversation stores the generation in which its own routing was set. The
//! newer of the two routings is in effect.

use crate::error::{StoreError, failed};
use crate::rows::conversation::{Pair, RoutingState};
use crate::rows::number::{NumberOwners, NumberTransfer, RoutingChange};
use crate::shared::Shared;
use crate::sql::{self, Conn, Pool, Row};
use crate::write::InboxWrite;
use model::{PhoneNumberId, Routing};

/// Handle to the business numbers. See [`Store::numbers`](crate::Store::numbers).
#[derive(Clone, Copy, Debug)]
pub struct Numbers<'a>(pub(crate) &'a Shared);

impl Numbers<'_> {
    /// Changes the routing of a number, and of all its conversations if `all` is set, in one
    /// transaction.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn set_routing(self, change: RoutingChange) -> Result<(), StoreError> {
        self.0.queue.inbox(InboxWrite::SetRouting(change)).await?.into_done().map(drop)
    }

    /// Transfers a number to another account. Returns `false` if that account has it already.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn transfer(self, transfer: NumberTransfer) -> Result<bool, StoreError> {
        Ok(self.0.queue.inbox(InboxWrite::Transfer(transfer)).await?.into_done()?.0)
    }

    /// Returns the owners of all numbers that have conversations.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn owners(self) -> Result<Vec<(PhoneNumberId, NumberOwners)>, StoreError> {
        owners(&self.0.read).await
    }

    /// Returns the routing of all numbers for which one was set.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn routings(self) -> Result<Vec<(PhoneNumberId, Routing)>, StoreError> {
        routings(&self.0.read).await
    }
}

pub(crate) fn routing(row: &Row) -> Result<Routing, sqlx::Error> {
    let id = |column: &str| {
        Ok::<_, sqlx::Error>(
            row.try_get::<Option<String>, _>(column)?.and_then(|id| id.parse().ok()),
        )
    };
    Ok(Routing::from_columns(&row.try_get::<String, _>("routing")?, id("webhook")?, id("agent")?))
}

/// Joins a conversation `c` with the row `n` of its number.
pub(crate) const NUMBER_JOIN: &str =
    "LEFT JOIN number_tenures n ON n.phone_number_id = c.phone_number_id";

/// The effective routing state of a conversation. [`standing`] reads these columns.
pub(crate) const ROUTING_COLUMNS: &str = "\
    CASE WHEN n.owner <> '' AND n.owner <> c.auth_id THEN 'none' WHEN n.generation > c.generation THEN n.routing \
        ELSE c.routing END AS routing, \
    CASE WHEN n.owner <> '' AND n.owner <> c.auth_id THEN NULL WHEN n.generation > c.generation THEN n.webhook \
        ELSE c.webhook END AS webhook, \
    CASE WHEN n.owner <> '' AND n.owner <> c.auth_id THEN NULL WHEN n.generation > c.generation THEN n.agent \
        ELSE c.agent END AS agent, \
    c.epoch + coalesce(n.generation, 0) AS epoch, c.ai_enabled AS ai_enabled";

/// Condition: the conversation's own routing is in effect.
pub(crate) const OWN_ROUTING: &str = "(n.generation IS NULL OR n.generation <= c.generation) \
    AND (n.owner IS NULL OR n.owner = '' OR n.owner = c.auth_id)";

/// Condition: the number's routing is in effect.
pub(crate) const NUMBER_ROUTING: &str =
    "n.generation > c.generation AND (n.owner = '' OR n.owner = c.auth_id)";

/// The current generation of a conversation's number, for updates of `conversations`.
pub(crate) const CURRENT_GENERATION: &str = "(SELECT coalesce(max(t.generation), 0) FROM number_tenures t \
    WHERE t.phone_number_id = conversations.phone_number_id)";

/// Reads the columns of [`ROUTING_COLUMNS`].
pub(crate) fn routing_state(row: &Row) -> Result<RoutingState, sqlx::Error> {
    Ok(RoutingState {
        routing: routing(row)?,
        epoch: u64::try_from(row.try_get::<i64, _>("epoch")?).unwrap_or_default(),
        ai_enabled: row.try_get::<i64, _>("ai_enabled")? != 0,
    })
}

/// The row of a conversation's number.
pub(crate) struct NumberRow {
    pub(crate) owner: String,
    pub(crate) generation: i64,
    pub(crate) routing: Routing,
}

/// Reads the columns `held_…` of a conversation's upsert. Returns `None` if the number has no row.
pub(crate) fn number_row(row: &Row) -> Result<Option<NumberRow>, sqlx::Error> {
    let Some(owner) = row.try_get("held_owner")? else { return Ok(None) };
    let text = |column: &str| row.try_get::<Option<String>, _>(column);
    let id = |column: &str| Ok::<_, sqlx::Error>(text(column)?.and_then(|id| id.parse().ok()));
    let routing = Routing::from_columns(
        &text("held_routing")?.unwrap_or_default(),
        id("held_webhook")?,
        id("held_agent")?,
    );
    Ok(Some(NumberRow { owner, generation: row.try_get("held_generation")?, routing }))
}

/// Inserts the row of a number. The account of its first conversation becomes its owner.
pub(crate) async fn insert_owner(to: &mut Conn, pair: &Pair) -> Result<(), sqlx::Error> {
    let insert = "INSERT INTO number_tenures (phone_number_id, owner, first_owner) VALUES ($1, $2, $2) \
        ON CONFLICT (phone_number_id) DO NOTHING";
    let insert = sql::query(insert).bind(pair.phone_number_id.as_str()).bind(pair.account.as_str());
    insert.execute(to).await.map(drop)
}

/// Transfers a number to another account. The routing of the number and its conversations is reset,
/// except for `kept`, which remains valid for the new owner.
pub(crate) async fn transfer(
    to: &mut Conn,
    transfer: &NumberTransfer,
) -> Result<bool, sqlx::Error> {
    let NumberTransfer { phone_number_id, owner, before, kept, routing } = transfer;
    let (id, owner) = (phone_number_id.as_str(), owner.as_str());
    // The row was written by an Offhook version that did not store owners. Its routing is assumed
    // to be the present owner's.
    let first = sql::query(
        "UPDATE number_tenures SET owner = $2 WHERE phone_number_id = $1 AND owner = ''",
    );
    if first.bind(id).bind(owner).execute(&mut *to).await?.rows_affected() > 0 {
        return Ok(true);
    }
    let put = "INSERT INTO number_tenures (phone_number_id, owner, first_owner, generation, routing, webhook, agent) \
        VALUES ($1, $2, $3, 1, $4, $5, $6) ON CONFLICT (phone_number_id) DO UPDATE SET owner = excluded.owner, \
        generation = number_tenures.generation + 1, routing = excluded.routing, webhook = excluded.webhook, \
        agent = excluded.agent WHERE number_tenures.owner <> excluded.owner";
    let put =
        sql::query(put).bind(id).bind(owner).bind(before.first.as_str()).bind(routing.as_str());
    let put = put
        .bind(routing.webhook().map(|id| id.to_string()))
        .bind(routing.agent().map(|id| id.to_string()));
    let changed = put.execute(&mut *to).await?.rows_affected() > 0;
    if changed && kept.is_none() {
        sql::query("DELETE FROM number_routing WHERE phone_number_id = $1")
            .bind(id)
            .execute(to)
            .await?;
    }
    Ok(changed)
}

/// Sets the routing of a number, and of all its conversations if `all` is set.
pub(crate) async fn set_routing(to: &mut Conn, change: &RoutingChange) -> Result<(), sqlx::Error> {
    let RoutingChange { phone_number_id, account, routing, all } = change;
    let put = "INSERT INTO number_routing (phone_number_id, routing, webhook, agent) VALUES ($1, $2, $3, $4) \
        ON CONFLICT (phone_number_id) DO UPDATE SET routing = excluded.routing, webhook = excluded.webhook, \
        agent = excluded.agent";
    let (webhook, agent) =
        (routing.webhook().map(|id| id.to_string()), routing.agent().map(|id| id.to_string()));
    let put = sql::query(put)
        .bind(phone_number_id.as_str())
        .bind(routing.as_str())
        .bind(&webhook)
        .bind(&agent);
    put.execute(&mut *to).await?;
    if *all {
        let put = "INSERT INTO number_tenures (phone_number_id, owner, first_owner, generation, routing, webhook, agent) \
            VALUES ($1, $2, $2, 1, $3, $4, $5) ON CONFLICT (phone_number_id) DO UPDATE \
            SET generation = number_tenures.generation + 1, routing = excluded.routing, webhook = excluded.webhook, \
            agent = excluded.agent";
        let put = sql::query(put)
            .bind(phone_number_id.as_str())
            .bind(account.as_str())
            .bind(routing.as_str());
        return put.bind(&webhook).bind(&agent).execute(to).await.map(drop);
    }
    // Stores the owner of this routing, which is needed if the number is transferred later.
    let note = "INSERT INTO number_tenures (phone_number_id, owner, first_owner) VALUES ($1, $2, $2) \
        ON CONFLICT (phone_number_id) DO NOTHING";
    sql::query(note)
        .bind(phone_number_id.as_str())
        .bind(account.as_str())
        .execute(to)
        .await
        .map(drop)
}

/// Returns the owners of all numbers.
pub(crate) async fn owners(pool: &Pool) -> Result<Vec<(PhoneNumberId, NumberOwners)>, StoreError> {
    const WHAT: &str = "read the numbers' owners";
    let select = "SELECT phone_number_id, owner, first_owner FROM number_tenures";
    let rows = sql::query(select).fetch_all(pool).await.map_err(failed(WHAT))?;
    let read = |row: &Row| {
        let text = |column: &str| row.try_get::<String, _>(column);
        let tenure =
            NumberOwners { owner: text("owner")?.into(), first: text("first_owner")?.into() };
        Ok((text("phone_number_id")?.into(), tenure))
    };
    rows.iter().map(|row| read(row).map_err(failed(WHAT))).collect()
}

/// Returns the routing of all numbers for which one was set.
pub(crate) async fn routings(pool: &Pool) -> Result<Vec<(PhoneNumberId, Routing)>, StoreError> {
    const WHAT: &str = "read the numbers' routing";
    let select = "SELECT phone_number_id, routing, webhook, agent FROM number_routing";
    let rows = sql::query(select).fetch_all(pool).await.map_err(failed(WHAT))?;
    let read = |row: &Row| Ok((row.try_get::<String, _>("phone_number_id")?.into(), routing(row)?));
    rows.iter().map(|row| read(row).map_err(failed(WHAT))).collect()
}
