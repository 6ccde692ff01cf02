//! SQLite: statements that run on the calling thread, and a pool of connections.
//!
//! The store's writer has a thread and a connection of its own, so its statements are plain
//! function calls. Readers run on the runtime's blocking threads, at most one per connection.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OpenFlags, ToSql};
use sqlx::error::{DatabaseError, ErrorKind};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::sql::errors::is_damaged;
use crate::sql::{Arg, Outcome, Row};
use crate::wake::Wake;

/// How the connections of a pool are opened.
#[derive(Clone, Debug)]
pub(crate) struct SqliteOptions {
    pub(crate) file: PathBuf,
    pub(crate) flags: OpenFlags,
    /// Time that a statement waits for the lock of another process.
    pub(crate) busy: Duration,
    /// Executed when a connection is opened.
    pub(crate) pragmas: &'static str,
    /// Capacity of the cache of prepared statements.
    pub(crate) statements: usize,
}

impl SqliteOptions {
    /// Opens a connection.
    pub(crate) fn open(&self) -> Result<Connection, sqlx::Error> {
        let open = || {
            let connection = Connection::open_with_flags(&self.file, self.flags)?;
            connection.busy_timeout(self.busy)?;
            connection.set_prepared_statement_cache_capacity(self.statements);
            connection.execute_batch(self.pragmas)?;
            Ok(connection)
        };
        open().map_err(error)
    }
}

/// A pool of connections to a file. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct SqlitePool {
    state: Arc<PoolState>,
    /// The writer. A connection for reading waits until it has caught up.
    writer: Option<Arc<Wake>>,
}

#[derive(Debug)]
struct PoolState {
    options: SqliteOptions,
    size: u32,
    /// Limit on the time to wait for a connection.
    timeout: Duration,
    /// A permit for each connection. Closed with the pool.
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Connection>>,
}

impl PoolState {
    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SqlitePool {
    /// Creates a pool of up to `size` connections and opens the first.
    pub(crate) fn open(
        options: SqliteOptions,
        size: u32,
        timeout: Duration,
    ) -> Result<Self, sqlx::Error> {
        let first = options.open()?;
        let permits = Arc::new(Semaphore::new(usize::try_from(size).unwrap_or(1)));
        let idle = Mutex::new(vec![first]);
        let state = Arc::new(PoolState { options, size, timeout, permits, idle });
        Ok(Self { state, writer: None })
    }

    /// Makes each connection wait until the writer has caught up.
    pub(crate) fn behind(self, writer: Arc<Wake>) -> Self {
        Self { writer: Some(writer), ..self }
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, sqlx::Error> {
        if let Some(writer) = &self.writer {
            writer.caught_up().await;
        }
        let permit = self.state.permits.clone().acquire_owned();
        match tokio::time::timeout(self.state.timeout, permit).await {
            Ok(permit) => permit.map_err(|_| sqlx::Error::PoolClosed),
            Err(_) => Err(sqlx::Error::PoolTimedOut),
        }
    }

    fn connect(&self, permit: OwnedSemaphorePermit) -> Result<SqliteConn, sqlx::Error> {
        let idle = self.state.idle().pop();
        let connection = idle.map_or_else(|| self.state.options.open(), Ok)?;
        let pool = self.state.clone();
        Ok(SqliteConn { connection: Some(connection), synced: None, pool, _permit: permit })
    }

    /// Takes an idle connection, or opens one. Waits while all are in use.
    ///
    /// # Errors
    /// Fails with [`sqlx::Error::PoolTimedOut`] or [`sqlx::Error::PoolClosed`], or if the file
    /// can't be opened.
    pub(crate) async fn acquire(&self) -> Result<SqliteConn, sqlx::Error> {
        let permit = self.permit().await?;
        self.connect(permit)
    }

    /// Runs a statement on a blocking thread.
    pub(crate) async fn run(
        &self,
        text: std::borrow::Cow<'static, str>,
        args: Vec<Arg>,
        is_cached: bool,
    ) -> Result<Outcome<Row>, sqlx::Error> {
        let permit = self.permit().await?;
        let pool = self.clone();
        let ran =
            tokio::task::spawn_blocking(move || pool.connect(permit)?.run(&text, &args, is_cached));
        ran.await.map_err(|_| sqlx::Error::WorkerCrashed)?
    }

    /// Runs SQLite's `quick_check` on a connection of its own, for at most `within`. Returns the
    /// first damage. `None` if there is none, or the check did not end in time.
    ///
    /// # Errors
    /// Fails if the file can't be opened or read.
    pub(crate) async fn damage(&self, within: Duration) -> Result<Option<String>, sqlx::Error> {
        let connection = self.state.options.open()?;
        let interrupt = connection.get_interrupt_handle();
        let mut check = tokio::task::spawn_blocking(move || {
            connection.query_row("PRAGMA quick_check(1)", (), |row| row.get::<_, String>(0))
        });
        let checked = match tokio::time::timeout(within, &mut check).await {
            Ok(checked) => checked,
            Err(_) => {
                interrupt.interrupt();
                check.await
            }
        };
        match checked.map_err(|_| sqlx::Error::WorkerCrashed)?.map_err(error) {
            Ok(found) => Ok((found != "ok").then_some(found)),
            Err(e) if is_damaged(&e) => Ok(Some(e.to_string())),
            Err(e) => {
                let sqlite = e.as_database_error();
                let code = sqlite.and_then(|e| e.try_downcast_ref::<SqliteError>()).map(|e| e.code);
                if code == Some(rusqlite::ffi::SQLITE_INTERRUPT) { Ok(None) } else { Err(e) }
            }
        }
    }

    /// Closes all connections once they are idle.
    pub(crate) async fn close(&self) {
        let all = self.state.permits.acquire_many(self.state.size).await;
        self.state.permits.close();
        self.state.idle().clear();
        drop(all);
    }
}

/// A connection of a pool. Returned to the pool when dropped, unless a transaction is open.
pub(crate) struct SqliteConn {
    /// The connection. `None` once it is closed.
    connection: Option<Connection>,
    /// The current value of `PRAGMA synchronous`: whether commits are synced. `None` if not set
    /// yet.
    synced: Option<bool>,
    pool: Arc<PoolState>,
    _permit: OwnedSemaphorePermit,
}

/// Omits the statements, which contain data.
impl std::fmt::Debug for SqliteConn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteConn").field("synced", &self.synced).finish_non_exhaustive()
    }
}

impl Drop for SqliteConn {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        if connection.is_autocommit() && !self.pool.permits.is_closed() {
            self.pool.idle().push(connection);
        }
    }
}

impl SqliteConn {
    /// Runs a statement on this thread. `is_cached` keeps it prepared.
    pub(crate) fn run(
        &mut self,
        text: &str,
        args: &[Arg],
        is_cached: bool,
    ) -> Result<Outcome<Row>, sqlx::Error> {
        let connection = self.connection.as_ref().ok_or(sqlx::Error::PoolClosed)?;
        run(connection, text, args, is_cached).map_err(error)
    }

    /// Runs statements without values.
    pub(crate) fn run_batch(&mut self, text: &str) -> Result<(), sqlx::Error> {
        let connection = self.connection.as_ref().ok_or(sqlx::Error::PoolClosed)?;
        connection.execute_batch(text).map_err(error)
    }

    /// Begins a write transaction. See [`Conn::begin`](crate::sql::Conn::begin).
    pub(crate) fn begin(&mut self, synced: bool) -> Result<(), sqlx::Error> {
        // The setting can be changed only outside of a transaction.
        if self.synced.replace(synced) != Some(synced) {
            let how = match synced {
                true => "PRAGMA synchronous = FULL",
                false => "PRAGMA synchronous = NORMAL",
            };
            self.run(how, &[], true)?;
        }
        self.run("BEGIN IMMEDIATE", &[], true).map(drop)
    }

    /// Closes the connection. An open transaction is rolled back.
    pub(crate) fn close(mut self) {
        self.connection = None;
    }
}

fn run(
    connection: &Connection,
    text: &str,
    args: &[Arg],
    is_cached: bool,
) -> rusqlite::Result<Outcome<Row>> {
    let text = numbered(text);
    let (mut cached, mut prepared);
    let statement: &mut rusqlite::Statement<'_> = if is_cached {
        cached = connection.prepare_cached(&text)?;
        &mut cached
    } else {
        prepared = connection.prepare(&text)?;
        &mut prepared
    };
    for (n, arg) in args.iter().enumerate() {
        statement.raw_bind_parameter(n + 1, arg)?;
    }
    let changes_rows = !statement.readonly();
    let names: Arc<[Box<str>]> = statement.column_names().into_iter().map(Box::from).collect();
    let mut rows = Vec::new();
    let mut found = statement.raw_query();
    while let Some(row) = found.next()? {
        let value = |column| row.get_ref(column).map(SqliteValue::from);
        let values = (0..names.len()).map(value).collect::<rusqlite::Result<_>>()?;
        rows.push(Row::Sqlite(SqliteRow { names: names.clone(), values }));
    }
    drop(found);
    // A statement that only reads leaves the count of the one before it.
    let changed = if changes_rows { connection.changes() } else { 0 };
    Ok(Outcome { changed, rows })
}

/// Replaces each `$n` by `?n`. SQLite finds a numbered parameter at once, but looks a named one up
/// in a list.
fn numbered(text: &str) -> String {
    let mut numbered = String::with_capacity(text.len());
    let mut pieces = text.split('$');
    numbered.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        numbered.push(if piece.starts_with(|c: char| c.is_ascii_digit()) { '?' } else { '$' });
        numbered.push_str(piece);
    }
    numbered
}

impl ToSql for Arg {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let value = match self {
            Self::Text(Some(text)) => ValueRef::Text(text.as_bytes()),
            Self::Number(Some(number)) => ValueRef::Integer(*number),
            Self::Bytes(Some(bytes)) => ValueRef::Blob(bytes),
            Self::Real(Some(real)) => ValueRef::Real(*real),
            Self::Text(None) | Self::Number(None) | Self::Bytes(None) | Self::Real(None) => {
                ValueRef::Null
            }
        };
        Ok(ToSqlOutput::Borrowed(value))
    }
}

/// A row.
#[derive(Debug)]
pub(crate) struct SqliteRow {
    /// The names of the columns.
    names: Arc<[Box<str>]>,
    values: Vec<SqliteValue>,
}

impl SqliteRow {
    /// Returns the value of the column with this name. `None` if there is no such column.
    pub(crate) fn named(&self, name: &str) -> Option<&SqliteValue> {
        self.at(self.names.iter().position(|column| **column == *name)?)
    }

    /// Returns the value of the column at this position, from 0.
    pub(crate) fn at(&self, column: usize) -> Option<&SqliteValue> {
        self.values.get(column)
    }
}

/// A value of a row.
#[derive(Debug)]
pub(crate) enum SqliteValue {
    Null,
    Number(i64),
    Real(f64),
    Text(String),
    Bytes(Vec<u8>),
}

impl From<ValueRef<'_>> for SqliteValue {
    fn from(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Null => Self::Null,
            ValueRef::Integer(number) => Self::Number(number),
            ValueRef::Real(real) => Self::Real(real),
            ValueRef::Text(text) => Self::Text(String::from_utf8_lossy(text).into_owned()),
            ValueRef::Blob(bytes) => Self::Bytes(bytes.to_vec()),
        }
    }
}

/// An error of SQLite.
#[derive(Debug)]
pub(crate) struct SqliteError {
    /// The extended result code (<https://www.sqlite.org/rescode.html>).
    pub(crate) code: i32,
    message: String,
}

impl std::fmt::Display for SqliteError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "(code: {}) {}", self.code, self.message)
    }
}

impl std::error::Error for SqliteError {}

impl DatabaseError for SqliteError {
    fn message(&self) -> &str {
        &self.message
    }

    fn kind(&self) -> ErrorKind {
        ErrorKind::Other
    }

    fn as_error(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        self
    }

    fn as_error_mut(&mut self) -> &mut (dyn std::error::Error + Send + Sync + 'static) {
        self
    }

    fn into_error(self: Box<Self>) -> Box<dyn std::error::Error + Send + Sync + 'static> {
        self
    }
}

/// Converts an error of rusqlite to one of sqlx, which the store uses for both databases.
fn error(error: rusqlite::Error) -> sqlx::Error {
    match &error {
        rusqlite::Error::SqliteFailure(failure, message) => {
            let message = message.clone().unwrap_or_else(|| failure.to_string());
            sqlx::Error::Database(Box::new(SqliteError { code: failure.extended_code, message }))
        }
        rusqlite::Error::SqlInputError { error, msg, .. } => {
            let (code, message) = (error.extended_code, msg.clone());
            sqlx::Error::Database(Box::new(SqliteError { code, message }))
        }
        _ => sqlx::Error::Decode(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::numbered;

    #[test]
    fn only_parameters_are_numbered() {
        assert_eq!(
            numbered("SELECT a WHERE b = $1 AND c = $12"),
            "SELECT a WHERE b = ?1 AND c = ?12"
        );
        assert_eq!(numbered("json_extract(a, '$.b') = $2 $"), "json_extract(a, '$.b') = ?2 $");
        assert_eq!(numbered(""), "");
    }
}
