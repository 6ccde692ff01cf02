//! What the database refuses for what it is (a value too long for an index, a row that breaks a rule) and not for the state that
//! the database is in: tried again it would be refused for ever, and hold up all behind it. It is set aside, in a file
//! beside the journal that people can look into, and counted. Which is which is told here; `writer` finds the entry.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::Serialize;

use crate::rows::call::CallStart;
use crate::sql::Pool;
use crate::sql::fault::is_of_entry;
use crate::start_log::Notes;
use crate::tables::calls;
use crate::writer::journal_entry::Entry;
use model::metric;

/// The file's name in `store.data_dir`.
pub(crate) const NAME: &str = "store.refused";

/// The most that it holds, in bytes; past it the log line alone tells.
const BYTES_MAX: u64 = 64 << 20;

/// Takes in what an earlier process noted of calls that began; one that the database refuses for what it is holds up no start.
///
/// # Errors
/// The database's, or the file can't be written.
pub(crate) async fn insert_left(
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
pub(crate) fn set_aside(
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
    use crate::sql::fault::is_of_state;
    use sqlx::ConnectOptions as _;
    use sqlx::Connection as _;
    use sqlx::sqlite::SqliteConnectOptions;
    use sqlx::sqlite::SqliteConnection;

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
