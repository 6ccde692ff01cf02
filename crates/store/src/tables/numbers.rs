//! Whose conversations a number has, and what all of them go by at once. A change of all conversations, by `applyToExisting`
//! or with the owner, is one row: each conversation keeps the generation that its own routing was set in, and the newer of
//! the two counts.

use crate::error::{StoreError, failed};
use crate::rows::conversation::{Pair, Standing};
use crate::rows::number::{Claim, Reroute, Tenure};
use crate::shared::Shared;
use crate::sql::{self, Conn, Pool, Row};
use crate::write::InboxWrite;
use model::{PhoneNumberId, Routing};

/// Handle.
#[derive(Clone, Copy, Debug)]
pub struct Numbers<'a>(pub(crate) &'a Shared);

impl Numbers<'_> {
    /// Changes a number's routing, and that of all its conversations where it is to be so: one transaction.
    ///
    /// # Errors
    /// The store takes nothing now; nothing has changed.
    pub async fn set_routing(self, reroute: Reroute) -> Result<(), StoreError> {
        self.0.queue.inbox(InboxWrite::Reroute(reroute)).await?.into_done().map(drop)
    }

    /// A number is another account's from now on; `false`: it was before.
    ///
    /// # Errors
    /// The store takes nothing now; nothing has changed.
    pub async fn transfer(self, claim: Claim) -> Result<bool, StoreError> {
        Ok(self.0.queue.inbox(InboxWrite::Claim(claim)).await?.into_done()?.0)
    }

    /// Whose conversations the numbers have.
    ///
    /// # Errors
    /// The store's.
    pub async fn owners(self) -> Result<Vec<(PhoneNumberId, Tenure)>, StoreError> {
        all(&self.0.read).await
    }

    /// What was set of numbers' routing.
    ///
    /// # Errors
    /// The store's.
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

/// What joins a conversation `c` with its number's row.
pub(crate) const JOIN: &str = "LEFT JOIN number_tenures n ON n.phone_number_id = c.phone_number_id";

/// A conversation's standing as it counts, by the names that [`standing`] reads.
pub(crate) const STANDING: &str = "\
    CASE WHEN n.owner <> '' AND n.owner <> c.auth_id THEN 'none' WHEN n.generation > c.generation THEN n.routing \
        ELSE c.routing END AS routing, \
    CASE WHEN n.owner <> '' AND n.owner <> c.auth_id THEN NULL WHEN n.generation > c.generation THEN n.webhook \
        ELSE c.webhook END AS webhook, \
    CASE WHEN n.owner <> '' AND n.owner <> c.auth_id THEN NULL WHEN n.generation > c.generation THEN n.agent \
        ELSE c.agent END AS agent, \
    c.epoch + coalesce(n.generation, 0) AS epoch, c.ai_enabled AS ai_enabled";

/// A conversation's own routing counts.
pub(crate) const OWN: &str = "(n.generation IS NULL OR n.generation <= c.generation) \
    AND (n.owner IS NULL OR n.owner = '' OR n.owner = c.auth_id)";

/// Its number's does.
pub(crate) const BY_NUMBER: &str =
    "n.generation > c.generation AND (n.owner = '' OR n.owner = c.auth_id)";

/// The generation that an update of `conversations` sets routing in.
pub(crate) const GENERATION: &str = "(SELECT coalesce(max(t.generation), 0) FROM number_tenures t \
    WHERE t.phone_number_id = conversations.phone_number_id)";

/// Reads [`STANDING`].
pub(crate) fn standing(row: &Row) -> Result<Standing, sqlx::Error> {
    Ok(Standing {
        routing: routing(row)?,
        epoch: u64::try_from(row.try_get::<i64, _>("epoch")?).unwrap_or_default(),
        ai_enabled: row.try_get::<i64, _>("ai_enabled")? != 0,
    })
}

/// A number's row as a message finds it.
pub(crate) struct Held {
    pub(crate) owner: String,
    pub(crate) generation: i64,
    pub(crate) routing: Routing,
}

/// What a conversation's upsert found of its number, by the names that begin with `held_`; none: it has no row.
pub(crate) fn held(row: &Row) -> Result<Option<Held>, sqlx::Error> {
    let Some(owner) = row.try_get("held_owner")? else { return Ok(None) };
    let text = |column: &str| row.try_get::<Option<String>, _>(column);
    let id = |column: &str| Ok::<_, sqlx::Error>(text(column)?.and_then(|id| id.parse().ok()));
    let routing = Routing::from_columns(
        &text("held_routing")?.unwrap_or_default(),
        id("held_webhook")?,
        id("held_agent")?,
    );
    Ok(Some(Held { owner, generation: row.try_get("held_generation")?, routing }))
}

/// Makes the row of a pair's number: the first who is written to has it.
pub(crate) async fn begin(to: &mut Conn, pair: &Pair) -> Result<(), sqlx::Error> {
    let insert = "INSERT INTO number_tenures (phone_number_id, owner, first_owner) VALUES ($1, $2, $2) \
        ON CONFLICT (phone_number_id) DO NOTHING";
    let insert = sql::query(insert).bind(pair.phone_number_id.as_str()).bind(pair.account.as_str());
    insert.execute(to).await.map(drop)
}

/// Another account has a number: what was set of its routing is over, for itself and for each conversation, unless the
/// new owner may have it too.
pub(crate) async fn claim(to: &mut Conn, claim: &Claim) -> Result<bool, sqlx::Error> {
    let Claim { phone_number_id, owner, before, kept, routing } = claim;
    let (id, owner) = (phone_number_id.as_str(), owner.as_str());
    // Made by an Offhook that did not note whose it is: what is set is the owner's, for all that is known.
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

/// A number's routing, and that of all its conversations where it is to be so.
pub(crate) async fn reroute(to: &mut Conn, reroute: &Reroute) -> Result<(), sqlx::Error> {
    let Reroute { phone_number_id, account, routing, all } = reroute;
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
    // Whose routing this is has to be known, should the number be another's one day.
    let note = "INSERT INTO number_tenures (phone_number_id, owner, first_owner) VALUES ($1, $2, $2) \
        ON CONFLICT (phone_number_id) DO NOTHING";
    sql::query(note)
        .bind(phone_number_id.as_str())
        .bind(account.as_str())
        .execute(to)
        .await
        .map(drop)
}

/// All numbers'.
pub(crate) async fn all(pool: &Pool) -> Result<Vec<(PhoneNumberId, Tenure)>, StoreError> {
    const WHAT: &str = "read whose conversations the numbers have";
    let select = "SELECT phone_number_id, owner, first_owner FROM number_tenures";
    let rows = sql::query(select).fetch_all(pool).await.map_err(failed(WHAT))?;
    let read = |row: &Row| {
        let text = |column: &str| row.try_get::<String, _>(column);
        let tenure = Tenure { owner: text("owner")?.into(), first: text("first_owner")?.into() };
        Ok((text("phone_number_id")?.into(), tenure))
    };
    rows.iter().map(|row| read(row).map_err(failed(WHAT))).collect()
}

/// What was set of numbers' routing.
pub(crate) async fn routings(pool: &Pool) -> Result<Vec<(PhoneNumberId, Routing)>, StoreError> {
    const WHAT: &str = "read the numbers' routing";
    let select = "SELECT phone_number_id, routing, webhook, agent FROM number_routing";
    let rows = sql::query(select).fetch_all(pool).await.map_err(failed(WHAT))?;
    let read = |row: &Row| Ok((row.try_get::<String, _>("phone_number_id")?.into(), routing(row)?));
    rows.iter().map(|row| read(row).map_err(failed(WHAT))).collect()
}
