//! Connections to the database and their options.

use std::path::Path;
use std::str::FromStr as _;
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use crate::database::Database;
use crate::error::StoreError;
use crate::sql::Pool;

/// Time that a statement waits for the lock of another process.
pub(crate) const BUSY: Duration = Duration::from_secs(5);

/// Time that a migration waits for another node's migration.
const MIGRATION_LOCK_TIMEOUT: Duration = Duration::from_secs(60);

/// Number of pages in the write-ahead log from which SQLite checkpoints it: 16 MiB.
const WAL_PAGES: &str = "4000";

/// Size of the writer's page cache: 8 MiB. SQLite reads a negative number as KiB.
const CACHE_KIB: &str = "-8192";

/// Capacity of the writer's cache of prepared statements. The frequent texts occur in several
/// variants, one for each number of rows or statements.
const STATEMENT_CACHE: usize = 256;

/// Number of connections for reading.
pub(crate) const READERS: u32 = 4;

/// Opens the writer's connection. A SQLite file is created if it does not exist, a PostgreSQL
/// database is not.
pub(crate) async fn writer(at: &Database, busy: Duration) -> Result<Pool, StoreError> {
    let connect = |source| StoreError::Connect { at: at.clone(), source };
    match at {
        Database::File(file) => {
            let writing = sqlite_options(file, busy)
                .pragma("wal_autocheckpoint", WAL_PAGES)
                .pragma("cache_size", CACHE_KIB);
            // Overwrites deleted data, so that no messages remain in free pages.
            let writing = writing.pragma("secure_delete", "ON");
            // Keeps SQLite's statement journals in memory. They move to a file above 64 KiB per
            // transaction, which would be half of all disk writes. Their size is bounded by what
            // one statement changes.
            let writing =
                writing.pragma("temp_store", "MEMORY").statement_cache_capacity(STATEMENT_CACHE);
            let pool = SqlitePoolOptions::new()
                .max_connections(1)
                .connect_with(writing)
                .await
                .map_err(connect)?;
            Ok(Pool::Sqlite(pool))
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

/// Opens the connections for reading. The schema must be up to date.
pub(crate) async fn readers(at: &Database, busy: Duration) -> Result<Pool, StoreError> {
    let connect = |source| StoreError::Connect { at: at.clone(), source };
    match at {
        Database::File(file) => {
            let read = SqlitePoolOptions::new().max_connections(READERS).acquire_timeout(BUSY);
            let read = read
                .connect_with(sqlite_options(file, busy).read_only(true))
                .await
                .map_err(connect)?;
            Ok(Pool::Sqlite(read))
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
            let options =
                SqliteConnectOptions::new().filename(file).read_only(read_only).busy_timeout(BUSY);
            let options = options.disable_statement_logging();
            let pool = SqlitePoolOptions::new()
                .max_connections(1)
                .connect_with(options)
                .await
                .map_err(connect)?;
            Ok(Pool::Sqlite(pool))
        }
        Database::Postgres(_) => postgres(at, 1, BUSY).await.map_err(connect),
    }
}

fn sqlite_options(file: &Path, busy: Duration) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(false)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .busy_timeout(busy)
        // A slow statement is normal for a batch. The caller logs failed ones.
        .disable_statement_logging()
}

/// The connection options for PostgreSQL.
pub(crate) fn options(at: &Database, busy: Duration) -> Result<PgConnectOptions, sqlx::Error> {
    let Database::Postgres(url) = at else { return Err(sqlx::Error::WorkerCrashed) };
    Ok(PgConnectOptions::from_str(url.reveal())?
        .application_name("offhook")
        // Suppresses notices such as "relation already exists".
        .options([
            ("lock_timeout", format!("{}ms", busy.as_millis())),
            ("client_min_messages", "warning".to_owned()),
        ])
        .disable_statement_logging())
}

async fn postgres(at: &Database, most: u32, busy: Duration) -> Result<Pool, sqlx::Error> {
    let options = options(at, busy)?;
    let pool = PgPoolOptions::new()
        .max_connections(most)
        .acquire_timeout(BUSY)
        .connect_with(options)
        .await?;
    Ok(Pool::Postgres(pool))
}
