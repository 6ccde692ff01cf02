//! What the database refuses for what it is (a value too long for an index, a row that breaks a rule) and not for the state that
//! the database is in: tried again it would be refused for ever, and hold up all behind it. It is set aside, in a file
//! beside the journal that people can look into, and counted. Which is which is told here; `writer` finds the entry.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::Serialize;

use super::births::Notes;
use super::calls::{self, CallStart};
use super::entry::Entry;
use super::sql::Pool;
use model::metric;

/// The file's name in `store.data_dir`.
pub(super) const NAME: &str = "store.refused";
/// The most that it holds, in bytes; past it the log line alone tells.
const BYTES_MAX: u64 = 64 << 20;

/// SQLite's primary result codes that are about a row or its statement (sqlite.org/rescode.html): ERROR, TOOBIG, CONSTRAINT,
/// MISMATCH, RANGE. The others are about the file, a lock or memory.
const SQLITE_OF_ENTRY: [i32; 5] = [1, 18, 19, 20, 25];
/// PostgreSQL's classes that are (PostgreSQL's Appendix A): cardinality, data, integrity, and limits of the program, among them
/// what an index can hold.
const POSTGRES_OF_ENTRY: [&str; 4] = ["21", "22", "23", "54"];

/// Whether it was what was written that the database did not take, whatever its state.
pub(super) fn is_of_entry(error: &sqlx::Error) -> bool {
    let error = match error {
        sqlx::Error::Database(error) => error,
        sqlx::Error::Encode(_)
        | sqlx::Error::Decode(_)
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::RowNotFound => return true,
        _ => return false,
    };
    let code = error.code().unwrap_or_default();
    if error.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() {
        // A table that is gone is the file's fault.
        let of_schema = error.message().starts_with("no such ");
        return code.parse::<i32>().is_ok_and(|code| SQLITE_OF_ENTRY.contains(&(code & 0xff)))
            && !of_schema;
    }
    POSTGRES_OF_ENTRY.iter().any(|class| code.starts_with(class))
}

/// Whether it is the database that can't be reached or takes nothing now (gone, locked, full, read-only), and neither what was
/// asked of it nor how its answer was read.
pub(super) fn is_of_state(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        // PostgreSQL's class 42 is about the statement: a fault of ours.
        sqlx::Error::Database(told) => {
            !is_of_entry(error) && !told.code().unwrap_or_default().starts_with("42")
        }
        _ => false,
    }
}

/// Takes in what an earlier process noted of calls that began; one that the database refuses for what it is holds up no start.
///
/// # Errors
/// The database's, or the file can't be written.
pub(super) async fn insert_left(
    pool: &Pool,
    left: Notes,
    folder: &Path,
) -> Result<(), sqlx::Error> {
    match calls::insert_left(pool, &left).await {
        Err(error) if is_of_entry(&error) => {}
        done => return done,
    }
    for one in left.one_by_one() {
        match calls::insert_left(pool, &one).await {
            Err(error) if is_of_entry(&error) => {
                let begun = one.beginnings.first().map(|begun| Entry::Born {
                    start: CallStart::of(&begun.setup, &begun.node_id),
                    setup: serde_json::to_string(&begun.setup).unwrap_or_default(),
                    born: begun.born,
                });
                set_aside(folder, begun.as_ref(), &error).map_err(sqlx::Error::Io)?;
            }
            done => done?,
        }
    }
    Ok(())
}

#[derive(Serialize)]
struct Line<'a> {
    refused: String,
    /// None: who asked was told that it was not done.
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<&'a Entry>,
}

/// Writes it down, on the disk when it is done. Blocks.
///
/// # Errors
/// The system's.
pub(super) fn set_aside(
    folder: &Path,
    entry: Option<&Entry>,
    error: &sqlx::Error,
) -> std::io::Result<()> {
    let path = folder.join(NAME);
    std::fs::create_dir_all(folder)?;
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
    if file.metadata()?.len() < BYTES_MAX {
        let mut line = serde_json::to_vec(&Line { refused: error.to_string(), entry })?;
        line.push(b'\n');
        file.write_all(&line)?;
        file.sync_data()?;
    }
    metrics::counter!(metric::STORE_ERRORS_TOTAL).increment(1);
    tracing::error!(
        %error,
        file = %path.display(),
        "the database refuses an entry for what it is; it is set aside, and what comes behind it goes on"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
    use sqlx::{ConnectOptions as _, Connection as _};

    use super::*;

    #[tokio::test]
    async fn what_the_file_is_in_the_way_of_and_what_the_statement_is_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let options = SqliteConnectOptions::new()
            .filename(folder.path().join("o.db"))
            .create_if_missing(true);
        let options = options.busy_timeout(std::time::Duration::ZERO);
        let mut one: SqliteConnection = options.connect().await.unwrap();
        let mut other = options.connect().await.unwrap();
        sqlx::query("CREATE TABLE a (b INTEGER NOT NULL)").execute(&mut one).await.unwrap();
        sqlx::query("BEGIN EXCLUSIVE").execute(&mut one).await.unwrap();
        let locked = sqlx::query("INSERT INTO a VALUES (1)").execute(&mut other).await.unwrap_err();
        assert!(is_of_state(&locked) && !is_of_entry(&locked), "{locked}");
        sqlx::query("COMMIT").execute(&mut one).await.unwrap();
        for ours in ["INSERT INTO a VALUES (NULL)", "SELEC 1"] {
            let wrong = sqlx::query(ours).execute(&mut other).await.unwrap_err();
            assert!(!is_of_state(&wrong) && is_of_entry(&wrong), "{wrong}");
        }
        assert!(
            is_of_state(&sqlx::Error::PoolTimedOut)
                && !is_of_state(&sqlx::Error::ColumnNotFound("a".to_owned()))
        );
        one.close().await.unwrap();
    }
}
