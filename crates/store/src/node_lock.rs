//! The lock that keeps two processes from running as the same node. Each would end the other's
//! calls as orphans of a crash.
//!
//! On PostgreSQL it is an advisory lock of a session, which the server releases when the process
//! ends in any way. For SQLite it is a locked file next to the database.

use std::fs::File;
use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::database::Database;
use crate::error::StoreError;
use crate::files::naming;
use crate::sql::connect::{CONNECT_TIMEOUT, connect_within, options};

/// Interval and number of attempts to lock a database that another process holds. The server
/// detects a dead client by TCP keepalives ([`KEEPALIVE`]).
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

const ATTEMPTS: u32 = 200;

/// TCP keepalive settings of the session: idle time and interval in seconds, and the number of
/// unanswered probes.
const KEEPALIVE: [(&str, &str); 3] = [
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
];

/// Interval of the checks that the session still exists, and their timeout.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// Proof that this process holds the node's lock. Dropping it releases the lock.
#[derive(Debug)]
pub struct NodeLock {
    _file: Option<File>,
    /// Task that checks the database session and renews the lock.
    keeper: Option<JoinHandle<()>>,
    lost: CancellationToken,
}

impl NodeLock {
    /// Cancelled once another process has taken the lock, which can happen only after the database
    /// was unreachable. This process must end then.
    pub fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }
}

impl Drop for NodeLock {
    fn drop(&mut self) {
        if let Some(keeper) = &self.keeper {
            keeper.abort();
        }
    }
}

impl NodeLock {
    /// Takes the lock of the node with this name. On PostgreSQL it waits up to 40 s for a holder
    /// that died without closing its connection.
    ///
    /// # Errors
    /// Fails if another process holds the lock, or if the database does not answer.
    pub async fn acquire(at: &Database, node_id: &str) -> Result<NodeLock, StoreError> {
        let in_use = || StoreError::HeldAs { at: at.clone(), node_id: node_id.to_owned() };
        match at {
            Database::File(file) => {
                let beside = file.with_extension("lock");
                let open = |source| StoreError::Open { at: at.clone(), source };
                // The folder does not exist before the first start.
                crate::files::create_file(file).map_err(open)?;
                let file = File::options().create(true).append(true).open(&beside);
                let file = file.map_err(|error| open(naming(&beside, error)))?;
                // Some file systems, such as network shares, don't support locks. The node runs
                // without one there.
                match file.try_lock() {
                    Err(std::fs::TryLockError::WouldBlock) => Err(in_use()),
                    Ok(()) | Err(std::fs::TryLockError::Error(_)) => Ok(NodeLock {
                        _file: Some(file),
                        keeper: None,
                        lost: CancellationToken::new(),
                    }),
                }
            }
            Database::Postgres(_) => {
                let session = lock(at, node_id)
                    .await
                    .map_err(|source| StoreError::Connect { at: at.clone(), source })?;
                let (session, lost) = (session.ok_or_else(in_use)?, CancellationToken::new());
                let keeper =
                    tokio::spawn(renew(session, at.clone(), node_id.to_owned(), lost.clone()));
                Ok(NodeLock { _file: None, keeper: Some(keeper), lost })
            }
        }
    }
}

/// Opens a session that holds the lock. Returns `None` if another session held it for 40 s.
async fn lock(at: &Database, node_id: &str) -> Result<Option<PgConnection>, sqlx::Error> {
    let options = options(at, RETRY_INTERVAL)?.options(KEEPALIVE);
    let mut session = connect_within(&options, CONNECT_TIMEOUT).await?;
    for tried in 0..ATTEMPTS {
        let lock =
            "SELECT pg_try_advisory_lock(hashtextextended(current_schema() || ' node ' || $1, 0))";
        if sqlx::query_scalar(lock).bind(node_id).fetch_one(&mut session).await? {
            return Ok(Some(session));
        }
        if tried == 0 {
            tracing::warn!(node_id, "node lock held by another process, waiting for its release");
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
    Ok(None)
}

/// Takes the lock again after a restart of the database, which forgets advisory locks. Cancels
/// `lost` if another process has taken it first.
async fn renew(mut session: PgConnection, at: Database, node_id: String, lost: CancellationToken) {
    loop {
        tokio::time::sleep(CHECK_INTERVAL).await;
        if tokio::time::timeout(CHECK_TIMEOUT, session.ping())
            .await
            .is_ok_and(|answer| answer.is_ok())
        {
            continue;
        }
        tracing::warn!(node_id, "node lock lost with the database session, taking it again");
        session = loop {
            match lock(&at, &node_id).await {
                Ok(Some(session)) => break session,
                Ok(None) => {
                    tracing::error!(node_id, "node lock taken by another process");
                    return lost.cancel();
                }
                // The database is still unreachable.
                Err(_) => tokio::time::sleep(CHECK_INTERVAL).await,
            }
        };
        tracing::warn!(node_id, "node lock taken again");
    }
}

#[cfg(test)]
mod tests {
    use crate::database::Database;
    use crate::node_lock::NodeLock;
    use crate::sql;
    use crate::testing::VARIABLE;

    #[tokio::test]
    async fn r03_a_lost_node_lock_is_taken_again() {
        let Ok(url) = std::env::var(VARIABLE) else { return };
        let at = Database::Postgres(model::Secret::new(url));
        let name = uuid::Uuid::new_v4().to_string();
        let hold = NodeLock::acquire(&at, &name).await.unwrap();
        let pool = crate::sql::connect::open_beside_node(&at, false).await.unwrap();
        let holder = async || -> Option<i64> {
            // `pg_locks` shows a 64-bit key as two halves.
            let holder = "SELECT pid::bigint FROM pg_locks, hashtextextended(current_schema() || ' node ' || $1, 0) AS key \
                WHERE locktype = 'advisory' AND granted AND (classid::bigint << 32 | objid::bigint) = key";
            sql::query_scalar(holder).bind(name.clone()).fetch_optional(&pool).await.unwrap()
        };
        let before = holder().await.expect("locked");
        let end = sql::query("SELECT pg_terminate_backend($1::int)").bind(before);
        end.execute(&pool).await.unwrap();
        let again = tokio::time::timeout(std::time::Duration::from_secs(30), async {
            loop {
                if let Some(again) = holder().await.filter(|again| *again != before) {
                    return again;
                }
            }
        });
        assert_ne!(again.await.expect("locked again"), before);
        assert!(!hold.lost().is_cancelled());
    }
}
