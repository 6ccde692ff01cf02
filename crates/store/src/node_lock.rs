//! Who may be a node: two processes of one name would each end the other's calls as what a crash left behind.
//!
//! A PostgreSQL database is held by a session's advisory lock, which goes with its process however that ends; a SQLite file
//! by a file beside it that is locked.

use std::fs::File;
use std::time::Duration;

use sqlx::{ConnectOptions as _, Connection as _, PgConnection};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::database::Database;
use crate::error::StoreError;
use crate::sql::connect::options;

/// How often a database is asked again that another process holds, and how long: one that died without a word is noticed by
/// its silence ([`SILENCE`]).
const AGAIN: Duration = Duration::from_millis(200);

const WAITS: u32 = 200;

/// After how many seconds PostgreSQL asks a silent session, how often, and how many answers may be missing.
const SILENCE: [(&str, &str); 3] = [
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
];

/// How often the session that holds a database is looked at, and how long an answer may take.
const LOOK: Duration = Duration::from_secs(1);

const ANSWER: Duration = Duration::from_secs(5);

/// This process is a node, as long as this is kept.
#[derive(Debug)]
pub struct Hold {
    _file: Option<File>,
    /// Sees to it that the database's session is there.
    keeper: Option<JoinHandle<()>>,
    lost: CancellationToken,
}

impl Hold {
    /// Cancelled once another process is this node, which can only be after the database was away: this one must end.
    pub fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(keeper) = &self.keeper {
            keeper.abort();
        }
    }
}

impl Hold {
    /// This process is the node of that name from now on, and no other is. A database waits for one that died without a word
    /// for up to 40 s.
    ///
    /// # Errors
    /// Another process is, or the database does not answer.
    pub async fn acquire(at: &Database, node_id: &str) -> Result<Hold, StoreError> {
        let in_use = || StoreError::HeldAs { at: at.clone(), node_id: node_id.to_owned() };
        match at {
            Database::File(file) => {
                let beside = file.with_extension("lock");
                let open = |source| StoreError::Open { at: at.clone(), source };
                // At the first start there is no folder yet.
                crate::files::prepare(file).map_err(open)?;
                let file = File::options().create(true).append(true).open(&beside).map_err(open)?;
                // What cannot be locked at all (a network's folder) is not held: it was not before, either.
                match file.try_lock() {
                    Err(std::fs::TryLockError::WouldBlock) => Err(in_use()),
                    Ok(()) | Err(std::fs::TryLockError::Error(_)) => {
                        Ok(Hold { _file: Some(file), keeper: None, lost: CancellationToken::new() })
                    }
                }
            }
            Database::Postgres(_) => {
                let session = held(at, node_id)
                    .await
                    .map_err(|source| StoreError::Connect { at: at.clone(), source })?;
                let (session, lost) = (session.ok_or_else(in_use)?, CancellationToken::new());
                let keeper =
                    tokio::spawn(keep(session, at.clone(), node_id.to_owned(), lost.clone()));
                Ok(Hold { _file: None, keeper: Some(keeper), lost })
            }
        }
    }
}

/// A session that holds the database for a node of that name; none: for 40 s another one did.
async fn held(at: &Database, node_id: &str) -> Result<Option<PgConnection>, sqlx::Error> {
    let mut session = options(at, AGAIN)?.options(SILENCE).connect().await?;
    for tried in 0..WAITS {
        let lock =
            "SELECT pg_try_advisory_lock(hashtextextended(current_schema() || ' node ' || $1, 0))";
        if sqlx::query_scalar(lock).bind(node_id).fetch_one(&mut session).await? {
            return Ok(Some(session));
        }
        if tried == 0 {
            tracing::warn!(
                node_id,
                "another process works as this node, or died a moment ago: waiting for it"
            );
        }
        tokio::time::sleep(AGAIN).await;
    }
    Ok(None)
}

/// A database that is started anew has forgotten who held it: it is held again as soon as it answers, unless another process
/// was sooner.
async fn keep(mut session: PgConnection, at: Database, node_id: String, lost: CancellationToken) {
    loop {
        tokio::time::sleep(LOOK).await;
        if tokio::time::timeout(ANSWER, session.ping()).await.is_ok_and(|answer| answer.is_ok()) {
            continue;
        }
        tracing::warn!(
            node_id,
            "the database has forgotten that this process is this node; it is told again"
        );
        session = loop {
            match held(&at, &node_id).await {
                Ok(Some(session)) => break session,
                Ok(None) => {
                    tracing::error!(
                        node_id,
                        "another process has become this node while the database was away"
                    );
                    return lost.cancel();
                }
                // It is away.
                Err(_) => tokio::time::sleep(LOOK).await,
            }
        };
        tracing::warn!(node_id, "this process is this node for the database again");
    }
}

#[cfg(test)]
mod tests {
    use crate::database::Database;
    use crate::node_lock::Hold;
    use crate::sql;
    use crate::testing::VARIABLE;

    #[tokio::test]
    async fn r03_a_database_that_forgot_its_node_is_held_again() {
        let Ok(url) = std::env::var(VARIABLE) else { return };
        let at = Database::Postgres(model::Secret::new(url));
        let name = uuid::Uuid::new_v4().to_string();
        let hold = Hold::acquire(&at, &name).await.unwrap();
        let pool = crate::sql::connect::beside_a_node(&at, false).await.unwrap();
        let holder = async || -> Option<i64> {
            // A key of 64 bits is told in two halves.
            let holder = "SELECT pid::bigint FROM pg_locks, hashtextextended(current_schema() || ' node ' || $1, 0) AS key \
                WHERE locktype = 'advisory' AND granted AND (classid::bigint << 32 | objid::bigint) = key";
            sql::query_scalar(holder).bind(name.clone()).fetch_optional(&pool).await.unwrap()
        };
        let before = holder().await.expect("it is held");
        let end = sql::query("SELECT pg_terminate_backend($1::int)").bind(before);
        end.execute(&pool).await.unwrap();
        let again = tokio::time::timeout(std::time::Duration::from_secs(30), async {
            loop {
                if let Some(again) = holder().await.filter(|again| *again != before) {
                    return again;
                }
            }
        });
        assert_ne!(again.await.expect("it is held again"), before);
        assert!(!hold.lost().is_cancelled());
    }
}
