//! Connections to the database and their options.

use std::path::Path;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::OpenFlags;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _};

use crate::database::Database;
use crate::error::StoreError;
use crate::sql::sqlite::{SqliteOptions, SqlitePool};
use crate::sql::{self, Dialect, Pool};
use crate::wake::Wake;

/// Time that a statement waits for the lock of another process.
pub(crate) const BUSY: Duration = Duration::from_secs(5);

/// Time after which PostgreSQL rolls back a transaction whose node has stopped in the middle of it,
/// for example because its machine is paused. The other nodes wait a little longer for its locks.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// Time that a migration waits for another node's migration.
const MIGRATION_LOCK_TIMEOUT: Duration = Duration::from_secs(60);

/// Settings of the writer's connection:
///
/// - A checkpoint of the write-ahead log from 16 MiB on (4,000 pages), and a page cache of 8 MiB (in
///   KiB, negative).
/// - Deleted data is overwritten, so that no messages remain in free pages.
/// - Statement journals stay in memory. They move to a file above 64 KiB per transaction, which
///   would be half of all disk writes. Their size is bounded by what one statement changes.
const WRITER: &str = "PRAGMA foreign_keys = ON; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; \
    PRAGMA wal_autocheckpoint = 4000; PRAGMA cache_size = -8192; PRAGMA secure_delete = ON; \
    PRAGMA temp_store = MEMORY";

/// Settings of all other connections.
const OTHER: &str = "PRAGMA foreign_keys = ON; PRAGMA synchronous = NORMAL";

/// Capacity of the writer's cache of prepared statements. The frequent texts occur in several
/// variants, one for each number of rows.
const WRITER_STATEMENTS: usize = 256;

/// Capacity of a reader's cache of prepared statements.
const READER_STATEMENTS: usize = 100;

/// Number of connections for reading.
pub(crate) const READERS: u32 = 4;

/// Number of them that requests use at a time which may not be authenticated.
pub(crate) const UNAUTHENTICATED_LOOKUPS: usize = 2;

/// Opens the writer's connection. A SQLite file is created if it does not exist, a PostgreSQL
/// database is not.
pub(crate) async fn writer(at: &Database, busy: Duration) -> Result<Pool, StoreError> {
    let connect = |source| StoreError::Connect { at: at.clone(), source };
    match at {
        Database::File(file) => {
            let options = SqliteOptions {
                pragmas: WRITER,
                statements: WRITER_STATEMENTS,
                ..sqlite_options(file, busy, false)
            };
            SqlitePool::open(options, 1, BUSY).map(Pool::Sqlite).map_err(connect)
        }
        Database::Postgres(_) => postgres(at, 1, busy).await.map_err(connect),
    }
}

/// Opens the connection that runs the migrations. Migrations on PostgreSQL wait for each other,
/// longer than a batch may wait for a lock.
pub(crate) async fn migrator(at: &Database, write: &Pool) -> Result<Pool, StoreError> {
    match at {
        Database::File(_) => Ok(write.clone()),
        Database::Postgres(_) => postgres(at, 1, MIGRATION_LOCK_TIMEOUT)
            .await
            .map_err(|source| StoreError::Connect { at: at.clone(), source }),
    }
}

/// Opens the connections for reading. The schema must be up to date. On SQLite, each query first
/// waits until the writer has caught up.
pub(crate) async fn readers(
    at: &Database,
    busy: Duration,
    writer: Arc<Wake>,
) -> Result<Pool, StoreError> {
    let connect = |source| StoreError::Connect { at: at.clone(), source };
    match at {
        Database::File(file) => {
            let options = sqlite_options(file, busy, true);
            let pool = SqlitePool::open(options, READERS, BUSY);
            pool.map(|pool| Pool::Sqlite(pool.behind(writer))).map_err(connect)
        }
        Database::Postgres(_) => postgres(at, READERS, busy).await.map_err(connect),
    }
}

/// Opens a connection beside those of a running node, in the same or another process.
///
/// The SQLite file is opened only by SQLite itself. If any other code in a process closes the file,
/// the process loses all locks that SQLite holds on it, and another process may then delete the
/// write-ahead log (<https://www.sqlite.org/howtocorrupt.html> §2.2).
///
/// # Errors
/// Fails if the file does not exist, or if the database does not answer.
pub(crate) async fn open_beside_node(at: &Database, read_only: bool) -> Result<Pool, StoreError> {
    let connect = |source| StoreError::Connect { at: at.clone(), source };
    match at {
        Database::File(file) => {
            std::fs::metadata(file)
                .map_err(|source| StoreError::Open { at: at.clone(), source })?;
            sqlite(file, read_only).map_err(connect)
        }
        Database::Postgres(_) => postgres(at, 1, BUSY).await.map_err(connect),
    }
}

/// Opens a connection like [`open_beside_node`] to a store whose tables exist.
///
/// # Errors
/// Fails with [`StoreError::Empty`] if no node has created them yet.
pub(crate) async fn open_store_beside_node(
    at: &Database,
    read_only: bool,
) -> Result<Pool, StoreError> {
    let pool = open_beside_node(at, read_only).await?;
    let count = match pool.dialect() {
        Dialect::Sqlite => "SELECT count(*) FROM sqlite_master WHERE name = 'store_versions'",
        Dialect::Postgres => "SELECT count(to_regclass('store_versions'))",
    };
    let count = sql::query_scalar::<i64>(count).fetch_one(&pool).await;
    let count = count.map_err(|source| StoreError::Connect { at: at.clone(), source })?;
    match count {
        0 => Err(StoreError::Empty { at: at.clone() }),
        _ => Ok(pool),
    }
}

/// Opens one connection to a SQLite file, which must exist.
pub(crate) fn sqlite(file: &Path, read_only: bool) -> Result<Pool, sqlx::Error> {
    SqlitePool::open(sqlite_options(file, BUSY, read_only), 1, BUSY).map(Pool::Sqlite)
}

/// Opens one connection for reading a SQLite file that no process writes to. SQLite creates no
/// files beside it.
pub(crate) fn sqlite_copy(file: &Path) -> Result<Pool, sqlx::Error> {
    let file = file.canonicalize().map_err(sqlx::Error::Io)?;
    let mut uri = url::Url::from_file_path(&file)
        .map_err(|()| sqlx::Error::Configuration("the path has no URI".into()))?;
    uri.set_query(Some("immutable=1"));
    let options = sqlite_options(Path::new(uri.as_str()), BUSY, true);
    let flags = options.flags | OpenFlags::SQLITE_OPEN_URI;
    SqlitePool::open(SqliteOptions { flags, ..options }, 1, BUSY).map(Pool::Sqlite)
}

/// The options of a connection that does not create the file.
fn sqlite_options(file: &Path, busy: Duration, read_only: bool) -> SqliteOptions {
    let mode = match read_only {
        true => OpenFlags::SQLITE_OPEN_READ_ONLY,
        false => OpenFlags::SQLITE_OPEN_READ_WRITE,
    };
    SqliteOptions {
        file: file.to_owned(),
        // A connection is never used by two threads at the same time.
        flags: mode | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        busy,
        pragmas: OTHER,
        statements: READER_STATEMENTS,
    }
}

/// The connection options for PostgreSQL.
pub(crate) fn options(at: &Database, busy: Duration) -> Result<PgConnectOptions, sqlx::Error> {
    let Database::Postgres(url) = at else { return Err(sqlx::Error::WorkerCrashed) };
    Ok(PgConnectOptions::from_str(url.reveal())?
        .application_name("offhook")
        // Suppresses notices such as "relation already exists".
        .options([
            ("lock_timeout", format!("{}ms", busy.as_millis())),
            ("idle_in_transaction_session_timeout", format!("{}ms", IDLE_TIMEOUT.as_millis())),
            ("client_min_messages", "warning".to_owned()),
            // A statement that follows a lock must see what the other transaction has committed.
            ("default_transaction_isolation", "read committed".to_owned()),
        ])
        .disable_statement_logging())
}

async fn postgres(at: &Database, most: u32, busy: Duration) -> Result<Pool, sqlx::Error> {
    let options = options(at, busy)?;
    let pool = PgPoolOptions::new().max_connections(most).acquire_timeout(BUSY);
    let pool = pool.connect_with(options.clone()).await;
    if matches!(pool, Err(sqlx::Error::PoolTimedOut)) {
        // A pool repeats refused connections until its timeout. One more tells why they fail.
        connect_within(&options, CONNECT_TIMEOUT).await?.close().await?;
    }
    Ok(Pool::Postgres(pool?))
}

/// Maximum time to connect to a server.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens a connection. A server behind a firewall, or one that is frozen, may not answer at all.
///
/// # Errors
/// Fails with the error [`TimedOut`](std::io::ErrorKind::TimedOut) if it does not answer in time.
pub(crate) async fn connect_within(
    options: &PgConnectOptions,
    within: Duration,
) -> Result<PgConnection, sqlx::Error> {
    let connected = tokio::time::timeout(within, PgConnection::connect_with(options)).await;
    let silent = || {
        std::io::Error::new(std::io::ErrorKind::TimedOut, format!("no answer within {within:?}"))
    };
    connected.unwrap_or_else(|_| Err(sqlx::Error::Io(silent())))
}
