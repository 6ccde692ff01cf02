//! Who may be a node: two processes of one name would each end the other's calls as what a crash left behind.
//!
//! A PostgreSQL database is held by a session's advisory lock, which goes with its process however that ends; a SQLite file
//! by a file beside it that is locked.

use std::fs::File;
use std::time::Duration;

use sqlx::{ConnectOptions as _, PgConnection};

use super::open::options;
use super::{Store, StoreError};
use crate::config::Database;

/// How often a database is asked again that another process holds, and how long: one that died without a word is noticed by
/// its silence ([`SILENCE`]).
const AGAIN: Duration = Duration::from_millis(200);
const WAITS: u32 = 200;
/// After how many seconds PostgreSQL asks a silent session, how often, and how many answers may be missing.
const SILENCE: [(&str, &str); 3] =
    [("tcp_keepalives_idle", "10"), ("tcp_keepalives_interval", "5"), ("tcp_keepalives_count", "3")];

/// This process is a node, as long as this is kept.
#[derive(Debug)]
pub struct Hold {
    _file: Option<File>,
    _session: Option<PgConnection>,
}

impl Store {
    /// This process is the node of that name from now on, and no other is. A database waits for one that died without a word
    /// for up to 40 s.
    ///
    /// # Errors
    /// Another process is, or the database does not answer.
    pub async fn hold(at: &Database, node_id: &str) -> Result<Hold, StoreError> {
        let in_use = || StoreError::HeldAs { at: at.clone(), node_id: node_id.to_owned() };
        match at {
            Database::File(file) => {
                let beside = file.with_extension("lock");
                let open = |source| StoreError::Open { at: at.clone(), source };
                // At the first start there is no folder yet.
                super::prepare(file).map_err(open)?;
                let file = File::options().create(true).append(true).open(&beside).map_err(open)?;
                // What cannot be locked at all (a network's folder) is not held: it was not before, either.
                match file.try_lock() {
                    Err(std::fs::TryLockError::WouldBlock) => Err(in_use()),
                    Ok(()) | Err(std::fs::TryLockError::Error(_)) => Ok(Hold { _file: Some(file), _session: None }),
                }
            }
            Database::Postgres(_) => {
                let connect = |source| StoreError::Connect { at: at.clone(), source };
                let options = options(at, AGAIN).map_err(connect)?.options(SILENCE);
                let mut session = options.connect().await.map_err(connect)?;
                for tried in 0..WAITS {
                    let lock = "SELECT pg_try_advisory_lock(hashtextextended(current_schema() || ' node ' || $1, 0))";
                    let held = sqlx::query_scalar(lock).bind(node_id).fetch_one(&mut session).await;
                    if held.map_err(connect)? {
                        return Ok(Hold { _file: None, _session: Some(session) });
                    }
                    if tried == 0 {
                        tracing::warn!(
                            node_id,
                            "another process works as this node, or died a moment ago: waiting for it"
                        );
                    }
                    tokio::time::sleep(AGAIN).await;
                }
                Err(in_use())
            }
        }
    }
}
