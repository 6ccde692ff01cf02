//! Getting at the database: which one it is, what must hold before anything is read from it, and its connections.

use std::path::Path;
use std::str::FromStr as _;
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use crate::database::Database;
use crate::error::StoreError;
use crate::sql::Pool;

/// How long a statement waits for another process's lock.
pub(crate) const BUSY: Duration = Duration::from_secs(5);

/// How long a migration waits for another node's.
const MIGRATING: Duration = Duration::from_secs(60);

/// Pages of the write-ahead log past which they are copied into the file: 16 MiB.
const WAL_PAGES: &str = "4000";

/// What the writer keeps of the file in memory at most: 8 MiB (SQLite counts KiB below zero).
const CACHE_KIB: &str = "-8192";

/// Texts that the writer keeps prepared: a dozen in some numbers of rows or statements each, and what is seldom.
const PREPARED: usize = 256;

/// Connections that only read.
pub(crate) const READERS: u32 = 4;

/// The writer's connection. The file is made where it is not there, a PostgreSQL database is not.
pub(crate) async fn writer(at: &Database, busy: Duration) -> Result<Pool, StoreError> {
    let connect = |source| StoreError::Connect { at: at.clone(), source };
    match at {
        Database::File(file) => {
            let writing = lite(file, busy)
                .pragma("wal_autocheckpoint", WAL_PAGES)
                .pragma("cache_size", CACHE_KIB);
            // What is deleted is overwritten: nobody's messages are left in pages that are free.
            let writing = writing.pragma("secure_delete", "ON");
            // What a statement changes is first put aside, and past 64 KiB in one transaction that is a file: half of all
            // writes. It is bounded by what one statement touches.
            let writing = writing.pragma("temp_store", "MEMORY").statement_cache_capacity(PREPARED);
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

/// What brings the schema up to date. PostgreSQL's migrations wait for each other, longer than a batch may wait for a lock.
pub(crate) async fn migrator(at: &Database, write: &Pool) -> Result<Pool, StoreError> {
    match at {
        Database::File(_) => Ok(write.clone()),
        Database::Postgres(_) => postgres(at, 1, MIGRATING)
            .await
            .map_err(|source| StoreError::Connect { at: at.clone(), source }),
    }
}

/// The readers' connections. The schema is up to date.
pub(crate) async fn readers(at: &Database, busy: Duration) -> Result<Pool, StoreError> {
    let connect = |source| StoreError::Connect { at: at.clone(), source };
    match at {
        Database::File(file) => {
            let read = SqlitePoolOptions::new().max_connections(READERS).acquire_timeout(BUSY);
            let read =
                read.connect_with(lite(file, busy).read_only(true)).await.map_err(connect)?;
            Ok(Pool::Sqlite(read))
        }
        Database::Postgres(_) => postgres(at, READERS, busy).await.map_err(connect),
    }
}

/// A connection or two that look or change something beside a node's own, in another process or in the node's. The file is
/// not opened but by SQLite: whoever closes it elsewhere in a process drops all locks that SQLite has on it there, and the
/// next stranger takes the write-ahead log away (<https://www.sqlite.org/howtocorrupt.html> §2.2).
///
/// # Errors
/// The file is not there, or the database does not answer.
pub(crate) async fn beside_a_node(at: &Database, read_only: bool) -> Result<Pool, StoreError> {
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

fn lite(file: &Path, busy: Duration) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(false)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .busy_timeout(busy)
        // A batch is a long statement; what fails is logged by who asked for it.
        .disable_statement_logging()
}

/// How PostgreSQL is connected with.
pub(crate) fn options(at: &Database, busy: Duration) -> Result<PgConnectOptions, sqlx::Error> {
    let Database::Postgres(url) = at else { return Err(sqlx::Error::WorkerCrashed) };
    Ok(PgConnectOptions::from_str(url.reveal())?
        .application_name("offhook")
        // Without words on tables that are there already.
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
