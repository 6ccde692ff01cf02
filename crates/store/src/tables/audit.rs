//! The audit trail. Rows are added and expire; nothing changes them.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use uuid::Uuid;

use crate::error::{StoreError, failed};
use crate::page::NewestFirst;
use crate::scope::{Scope, push_scope};
use crate::seal::Seal;
use crate::shared::Shared;
use crate::sql::{self, Conn, QueryBuilder, Row};
use crate::tables::expiry::ExpiringTable;
use crate::write::WriteTask;
use model::{AuthId, Timestamp};

/// Handle to the audit trail. See [`Store::audit`](crate::Store::audit).
#[derive(Clone, Copy, Debug)]
pub struct Audit<'a>(pub(crate) &'a Shared);

impl Audit<'_> {
    /// Adds a record. The future waits for space in the queue and completes when the record is
    /// readable.
    pub fn insert(
        self,
        row: AuditRow,
    ) -> impl Future<Output = Result<u64, StoreError>> + Send + 'static + use<> {
        self.0.queue.run(AddRecord(row))
    }

    /// Deletes records from before `before`, and the oldest ones of accounts that have too many.
    /// Refused sign-ins are counted separately, so that password guessing does not delete records
    /// of changes, and so are the changes of each actor, so that nobody can delete those of others
    /// by many of their own.
    ///
    /// # Errors
    /// Fails if a query fails or the database rejects a write. Some records may be deleted then.
    pub async fn delete_older(self, before: Timestamp) -> Result<(), StoreError> {
        BY_ACTOR.delete(self.0, before).await?;
        CHANGES.delete(self.0, before).await?;
        REFUSALS.delete(self.0, before).await
    }

    /// Returns records of the scope, newest first.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn list(
        self,
        scope: &Scope,
        filter: &AuditFilter,
        limit: u32,
    ) -> Result<Vec<AuditRow>, StoreError> {
        let mut select = QueryBuilder::new(format!("SELECT {COLUMNS} FROM audit WHERE "));
        push_scope(&mut select, scope);
        for (column, value) in [
            ("actor", &filter.actor),
            ("action", &filter.action),
            ("object", &filter.object),
            ("source", &filter.source),
        ] {
            if let Some(value) = value {
                select.push(format!(" AND {column} = ")).push_bind(value.clone());
            }
        }
        if let Some(since) = filter.since {
            select.push(" AND at_us >= ").push_bind(since.micros());
        }
        if let Some(until) = filter.until {
            select.push(" AND at_us < ").push_bind(until.micros());
        }
        ORDER.push(&mut select, filter.before, limit);
        let rows = select.build().fetch_all(&self.0.read).await.map_err(failed(WHAT))?;
        rows.iter().map(record).collect()
    }
}

/// A record of the audit trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    pub id: Uuid,
    /// The account and its main account, which may be the same.
    pub account: AuthId,
    pub main_account: AuthId,
    pub at: Timestamp,
    pub actor: String,
    pub action: String,
    pub object: String,
    /// Network address of the client.
    pub source: String,
    /// JSON object with `before` and `after`.
    pub detail: String,
}

impl AuditRow {
    /// The `action` of a refused sign-in.
    pub const SIGN_IN_REFUSED: &str = "signInRefused";
}

/// Selects audit records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    pub actor: Option<String>,
    pub action: Option<String>,
    pub object: Option<String>,
    pub source: Option<String>,
    /// Only records from this time on.
    pub since: Option<Timestamp>,
    /// Only records from before this time.
    pub until: Option<Timestamp>,
    /// Only records after this one in the list, which are older.
    pub before: Option<(Timestamp, Uuid)>,
}

const ORDER: NewestFirst = NewestFirst { time: "at_us", id: "audit_id" };

const CHANGES: ExpiringTable = ExpiringTable {
    name: "audit",
    id: "audit_id",
    time: "at_us",
    rows: "action <> 'signInRefused'",
    group: &["auth_id"],
    max: 200_000,
};
const BY_ACTOR: ExpiringTable =
    ExpiringTable { group: &["auth_id", "actor"], max: 50_000, ..CHANGES };
const REFUSALS: ExpiringTable =
    ExpiringTable { rows: "action = 'signInRefused'", max: 100_000, ..CHANGES };

const COLUMNS: &str =
    "audit_id, auth_id, main_auth_id, at_us, actor, action, object, source, detail";

const WHAT: &str = "read the audit trail";

/// Adds a record.
struct AddRecord(AuditRow);

impl WriteTask for AddRecord {
    fn execute<'a>(
        &'a self,
        to: &'a mut Conn,
        _: &'a Seal,
    ) -> BoxFuture<'a, Result<u64, sqlx::Error>> {
        add(to, &self.0).boxed()
    }
}

async fn add(to: &mut Conn, row: &AuditRow) -> Result<u64, sqlx::Error> {
    let insert = format!(
        "INSERT INTO audit ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
         ON CONFLICT DO NOTHING"
    );
    let insert = sql::query(insert)
        .bind(row.id.to_string())
        .bind(row.account.as_str())
        .bind(row.main_account.as_str())
        .bind(row.at.micros())
        .bind(&row.actor);
    let insert = insert.bind(&row.action).bind(&row.object).bind(&row.source).bind(&row.detail);
    Ok(insert.execute(to).await?.rows_affected())
}

fn record(row: &Row) -> Result<AuditRow, StoreError> {
    let text = |column: &str| row.try_get::<String, _>(column).map_err(failed(WHAT));
    let unreadable = |e: uuid::Error| StoreError::Unreadable { what: WHAT, detail: e.to_string() };
    Ok(AuditRow {
        id: text("audit_id")?.parse().map_err(unreadable)?,
        account: text("auth_id")?.into(),
        main_account: text("main_auth_id")?.into(),
        at: Timestamp::from_micros(row.try_get("at_us").map_err(failed(WHAT))?),
        actor: text("actor")?,
        action: text("action")?,
        object: text("object")?,
        source: text("source")?,
        detail: text("detail")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use model::Health;

    fn row(n: u8, account: &str, main: &str, actor: &str) -> AuditRow {
        AuditRow {
            id: Uuid::from_u128(u128::from(n)),
            account: account.into(),
            main_account: main.into(),
            at: Timestamp::from_secs(i64::from(n) / 2),
            actor: actor.to_owned(),
            action: "changeAgent".to_owned(),
            object: format!("agents/{n}"),
            source: "203.0.113.7".to_owned(),
            detail: "{}".to_owned(),
        }
    }

    #[tokio::test]
    async fn r16_audit_records_are_listed_within_their_account_and_expire() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("o.db"), Health::new()).await.unwrap();
        for (n, account, main) in
            [(1, "MA1", "MA1"), (2, "SA1", "MA1"), (3, "MA1", "MA1"), (4, "MA2", "MA2")]
        {
            let actor = if n == 3 { "user:ravi" } else { "user:asha" };
            let written = store.audit().insert(row(n, account, main, actor)).await;
            assert_eq!(written.unwrap(), 1);
        }
        let ids = async |scope: &str, filter: AuditFilter, limit| {
            let rows = store.audit().list(&Scope::of(scope.into()), &filter, limit).await.unwrap();
            rows.iter().map(|row| row.id.as_u128()).collect::<Vec<_>>()
        };
        let secs = Timestamp::from_secs;
        assert_eq!(ids("MA1", AuditFilter::default(), 9).await, [2, 3, 1]);
        assert_eq!(ids("SA1", AuditFilter::default(), 9).await, [2]);
        assert_eq!(ids("MA2", AuditFilter::default(), 9).await, [4]);
        let before = Some((secs(1), Uuid::from_u128(2)));
        assert_eq!(ids("MA1", AuditFilter { before, ..Default::default() }, 1).await, [3]);
        let of_ravi = AuditFilter { actor: Some("user:ravi".to_owned()), ..Default::default() };
        assert_eq!(ids("MA1", of_ravi, 9).await, [3]);
        let first = AuditFilter { until: Some(secs(1)), ..Default::default() };
        assert_eq!(ids("MA1", first, 9).await, [1]);
        let later = AuditFilter { since: Some(secs(1)), ..Default::default() };
        assert_eq!(ids("MA1", later, 9).await, [2, 3]);
        let all = store.audit().list(&Scope::of("MA2".into()), &AuditFilter::default(), 9).await;
        assert_eq!(all.unwrap(), [row(4, "MA2", "MA2", "user:asha")]);
        store.audit().delete_older(secs(1)).await.unwrap();
        assert_eq!(ids("MA1", AuditFilter::default(), 9).await, [2, 3]);
        // Refused sign-ins, however many, delete no changes. Records of one time are listed by id.
        let refused = |n: u8| AuditRow {
            action: AuditRow::SIGN_IN_REFUSED.to_owned(),
            ..row(n, "MA1", "MA1", "user:asha")
        };
        for n in 5..9 {
            store.audit().insert(refused(n)).await.unwrap();
        }
        let few = ExpiringTable { max: 2, ..REFUSALS };
        few.delete(store.audit().0, secs(0)).await.unwrap();
        assert_eq!(ids("MA1", AuditFilter::default(), 9).await, [8, 6, 2, 3]);
        // Nor do many changes of one actor delete those of others.
        for n in 10..14 {
            store.audit().insert(row(n, "MA1", "MA1", "user:asha")).await.unwrap();
        }
        let few = ExpiringTable { max: 2, ..BY_ACTOR };
        few.delete(store.audit().0, secs(0)).await.unwrap();
        assert_eq!(ids("MA1", AuditFilter::default(), 9).await, [12, 13, 8, 6, 2, 3]);
        store.close().await;
    }
}
