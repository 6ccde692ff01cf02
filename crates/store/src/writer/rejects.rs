//! The rejects file: writes whose data the database rejects, such as a value that is too long for
//! an index or a row that violates a constraint.
//!
//! A retry would fail again and block all writes after it. So the write goes to a file next to the
//! journal, for people to look at, and is counted. `sql::errors` distinguishes these errors from
//! failures of the database; `writer` finds the write in its batch.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::Serialize;

use crate::pending_log::PendingEntries;
use crate::rows::call::CallStart;
use crate::seal::Seal;
use crate::sql::Pool;
use crate::sql::errors::is_data_error;
use crate::writer::journal_entry::Entry;
use crate::writer::pending;
use model::metric;

/// Name of the file in `store.data_dir`.
pub(crate) const NAME: &str = "store.refused";

/// Maximum size in bytes. Beyond it, rejected writes are only logged.
const BYTES_MAX: u64 = 64 << 20;

/// Writes the contents of an earlier process's pending log. Entries that the database rejects go to
/// the rejects file, so that they do not prevent the start.
///
/// # Errors
/// Fails if the database fails, or if the rejects file can't be written.
pub(crate) async fn insert_pending(
    pool: &Pool,
    seal: &Seal,
    left: PendingEntries,
    folder: &Path,
) -> Result<(), sqlx::Error> {
    match pending::insert_pending(pool, seal, &left).await {
        Err(error) if is_data_error(&error) => {}
        done => return done,
    }
    for one in left.split() {
        match pending::insert_pending(pool, seal, &one).await {
            Err(error) if is_data_error(&error) => {
                let start = one.starts.first().map(|start| Entry::CallStarted {
                    start: CallStart::of(&start.setup, &start.node_id),
                    setup: serde_json::to_string(&start.setup).unwrap_or_default(),
                    born: start.born,
                });
                let entry = start.as_ref().or(one.ends.first());
                reject(folder, entry, &error).map_err(sqlx::Error::Io)?;
            }
            done => done?,
        }
    }
    Ok(())
}

#[derive(Serialize)]
struct Line<'a> {
    refused: String,
    /// The entry. `None` if the caller was given an error instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<&'a Entry>,
}

/// Appends an entry to the rejects file, logs and counts it. The file is synced. Blocks.
///
/// # Errors
/// Fails on I/O errors.
pub(crate) fn reject(
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
        "write rejected by the database, saved to the rejects file"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::sql;
    use crate::sql::connect;
    use crate::sql::errors::is_unavailable;

    use super::*;

    #[tokio::test]
    async fn distinguishes_data_errors_from_an_unavailable_database() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("o.db");
        std::fs::File::create(&file).unwrap();
        let [one, other] = [(), ()].map(|()| connect::sqlite(&file, false).unwrap());
        let (mut one, mut other) = (one.acquire().await.unwrap(), other.acquire().await.unwrap());
        let no_wait = sql::query("PRAGMA busy_timeout = 0");
        no_wait.execute(&mut other).await.unwrap();
        one.run_batch("CREATE TABLE a (b INTEGER NOT NULL)").await.unwrap();
        one.begin(true).await.unwrap();
        let insert = || sql::query("INSERT INTO a VALUES (1)");
        let locked = insert().execute(&mut other).await.unwrap_err();
        assert!(is_unavailable(&locked) && !is_data_error(&locked), "{locked}");
        one.commit().await.unwrap();
        for ours in ["INSERT INTO a VALUES (NULL)", "SELEC 1"] {
            let wrong = sql::query(ours).execute(&mut other).await.unwrap_err();
            assert!(!is_unavailable(&wrong) && is_data_error(&wrong), "{wrong}");
        }
        assert!(
            is_unavailable(&sqlx::Error::PoolTimedOut)
                && !is_unavailable(&sqlx::Error::ColumnNotFound("a".to_owned()))
        );
    }
}
