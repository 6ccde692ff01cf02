//! People who are to be forgotten (`number-api.md` §4): a row each, until nothing of theirs is left. What others keep beside
//! the store (recordings' files, conversations) is `erasure`'s business.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use uuid::Uuid;

use super::calls::within;
use super::deed::Deed;
use super::seal::Seal;
use super::sql::{self, Conn, QueryBuilder, Row};
use super::{Scope, Store, StoreError, failed};
use crate::model::{AuthId, CallUuid, PhoneNumberId, Timestamp};

/// A person who is to be forgotten, and where.
#[derive(Clone, PartialEq, Eq)]
pub struct Erasure {
    pub id: Uuid,
    /// Who asked, and its main account.
    pub account: AuthId,
    pub main_account: AuthId,
    /// Digits, or a business-scoped id.
    pub wa_id: String,
    pub asked: Timestamp,
}

/// Without the person (R22).
impl std::fmt::Debug for Erasure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Erasure({})", self.id)
    }
}

impl Erasure {
    /// Whose data it is about: the asker's.
    pub fn scope(&self) -> Scope {
        Scope::of(self.account.clone())
    }
}

const WHAT: &str = "look for what is to be forgotten";
/// Longest that a callback of a call may have been on its way.
const CALLBACKS_US: i64 = 26 * 3_600 * 1_000_000;

enum ErasureWrite {
    Ask(Erasure),
    Call(CallUuid),
    /// Notifications and permissions.
    Rest(Erasure, Vec<PhoneNumberId>),
    Done(Uuid),
}

impl Deed for ErasureWrite {
    fn carry_out<'a>(&'a self, to: &'a mut Conn, _: &'a Seal) -> BoxFuture<'a, Result<u64, sqlx::Error>> {
        async move {
            match self {
                Self::Ask(erasure) => ask(to, erasure).await,
                Self::Call(call) => forget_call(to, *call).await,
                Self::Rest(erasure, numbers) => forget_rest(to, erasure, numbers).await,
                Self::Done(id) => {
                    let delete = sql::query("DELETE FROM erasures WHERE erasure_id = $1").bind(id.to_string());
                    Ok(delete.execute(to).await?.rows_affected())
                }
            }
        }
        .boxed()
    }
}

async fn ask(to: &mut Conn, erasure: &Erasure) -> Result<u64, sqlx::Error> {
    let insert =
        "INSERT INTO erasures (erasure_id, auth_id, main_auth_id, wa_id, asked_us) VALUES ($1, $2, $3, $4, $5)";
    let insert = sql::query(insert).bind(erasure.id.to_string()).bind(erasure.account.as_str());
    let insert = insert.bind(erasure.main_account.as_str()).bind(&erasure.wa_id).bind(erasure.asked.micros());
    Ok(insert.execute(to).await?.rows_affected())
}

/// An ended call keeps its record, for the bill, and nobody is in it.
async fn forget_call(to: &mut Conn, call: CallUuid) -> Result<u64, sqlx::Error> {
    let id = call.to_string();
    // A leg that dialled the person names them in its log.
    let events = "DELETE FROM call_events WHERE call_uuid = $1 OR call_uuid = \
        (SELECT parent_call_uuid FROM calls WHERE call_uuid = $1)";
    sql::query(events).bind(&id).execute(&mut *to).await?;
    sql::query("DELETE FROM callbacks WHERE call_uuid = $1 AND next_us IS NOT NULL")
        .bind(&id)
        .execute(&mut *to)
        .await?;
    // By the index of those that are done: within the time that a callback may have been on its way.
    let done = "DELETE FROM callbacks WHERE call_uuid = $1 AND done_us >= (SELECT started_us FROM calls WHERE \
        call_uuid = $1) AND done_us <= (SELECT ended_us FROM calls WHERE call_uuid = $1) + $2";
    sql::query(done).bind(&id).bind(CALLBACKS_US).execute(&mut *to).await?;
    let scrub = "UPDATE calls SET from_number = '', to_number = '', caller_name = '', wacid = NULL, remarks = '[]', \
        findings = '[]' WHERE call_uuid = $1 AND ended_us IS NOT NULL";
    Ok(sql::query(scrub).bind(&id).execute(to).await?.rows_affected())
}

async fn forget_rest(to: &mut Conn, erasure: &Erasure, numbers: &[PhoneNumberId]) -> Result<u64, sqlx::Error> {
    let mut notices = QueryBuilder::new("DELETE FROM notices WHERE ");
    within(&mut notices, &erasure.scope());
    notices.push(" AND wa_id = ").push_bind(erasure.wa_id.clone());
    let mut rows = notices.build().execute(&mut *to).await?.rows_affected();
    for number in numbers {
        for table in ["permissions", "permission_replies"] {
            let mut delete = QueryBuilder::new(format!("DELETE FROM {table} WHERE phone_number_id = "));
            delete.push_bind(number.as_str().to_owned()).push(" AND \"user\" = ").push_bind(erasure.wa_id.clone());
            rows += delete.build().execute(&mut *to).await?.rows_affected();
        }
    }
    Ok(rows)
}

impl Store {
    /// Notes that a person is to be forgotten; from then on it will be done.
    ///
    /// # Errors
    /// The store takes nothing now; nothing has changed.
    pub async fn ask_erasure(&self, erasure: Erasure) -> Result<(), StoreError> {
        self.log.deed(ErasureWrite::Ask(erasure)).await.map(drop)
    }

    /// Nothing of the person's is left.
    ///
    /// # Errors
    /// The store takes nothing now; nothing has changed.
    pub async fn erasure_done(&self, id: Uuid) -> Result<(), StoreError> {
        self.log.deed(ErasureWrite::Done(id)).await.map(drop)
    }

    /// Takes the person out of an ended call: its event log and callbacks are gone, its record names nobody.
    ///
    /// # Errors
    /// The store takes nothing now; nothing has changed.
    pub async fn erase_call(&self, call: CallUuid) -> Result<(), StoreError> {
        self.log.deed(ErasureWrite::Call(call)).await.map(drop)
    }

    /// Forgets the person's notifications, and what they allowed these numbers.
    ///
    /// # Errors
    /// The store takes nothing now; nothing has changed.
    pub async fn erase_rest(&self, erasure: &Erasure, numbers: Vec<PhoneNumberId>) -> Result<(), StoreError> {
        self.log.deed(ErasureWrite::Rest(erasure.clone(), numbers)).await.map(drop)
    }

    /// Who is to be forgotten, the oldest first.
    ///
    /// # Errors
    /// The store's.
    pub async fn erasures(&self) -> Result<Vec<Erasure>, StoreError> {
        let select =
            "SELECT erasure_id, auth_id, main_auth_id, wa_id, asked_us FROM erasures ORDER BY asked_us LIMIT 1000";
        let rows = sql::query(select).fetch_all(&self.read).await.map_err(failed(WHAT))?;
        let erasure = |row: &Row| {
            let text = |column: &str| row.try_get::<String, _>(column).map_err(failed(WHAT));
            let unreadable = |e: uuid::Error| StoreError::Unreadable { what: WHAT, detail: e.to_string() };
            Ok(Erasure {
                id: text("erasure_id")?.parse().map_err(unreadable)?,
                account: text("auth_id")?.into(),
                main_account: text("main_auth_id")?.into(),
                wa_id: text("wa_id")?,
                asked: Timestamp::from_micros(row.try_get("asked_us").map_err(failed(WHAT))?),
            })
        };
        rows.iter().map(erasure).collect()
    }

    /// Some of a person's calls: those that have ended, or those that have not.
    ///
    /// # Errors
    /// The store's.
    pub async fn calls_of_person(
        &self,
        scope: &Scope,
        wa_id: &str,
        ended: bool,
        limit: u32,
    ) -> Result<Vec<CallUuid>, StoreError> {
        // Each half by an index of its own.
        let mut select = QueryBuilder::new("");
        for (at, column) in ["from_number", "to_number"].into_iter().enumerate() {
            select.push(if at == 0 {
                "SELECT call_uuid FROM calls WHERE "
            } else {
                " UNION SELECT call_uuid FROM calls WHERE "
            });
            select.push(if ended { "ended_us IS NOT NULL AND " } else { "ended_us IS NULL AND " });
            within(&mut select, scope);
            select.push(" AND ").push(column).push(" = ").push_bind(wa_id.to_owned());
        }
        select.push(" LIMIT ").push_bind(limit);
        let ids: Vec<String> = select.build_query_scalar().fetch_all(&self.read).await.map_err(failed(WHAT))?;
        Ok(ids.iter().filter_map(|id| id.parse().ok()).collect())
    }
}
