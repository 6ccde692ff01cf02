//! Files of recordings without a row, as they are left after an older backup of the store was
//! restored, and rows without a file, as after a restore of the store alone.
//!
//! No list shows a file without a row, no erasure finds it and no retention deletes it, but its
//! link would still work. So such files are moved to a folder of their own, and deleted with their
//! age. Rows without a file are reported.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::Path;

use tokio::fs::{self, ReadDir};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::work::LOOK_AGAIN;
use super::{AT_ONCE, Recordings};
use media::record::{Format, UNLISTED, file_name, parse_file_name};
use model::Timestamp;
use store::{Store, StoreError};

/// Why the files could not be compared with the rows.
#[derive(Debug, thiserror::Error)]
enum SweepError {
    #[error("the folder of recordings can't be read: {0}")]
    Folder(#[from] std::io::Error),
    #[error("{0}")]
    Store(#[from] StoreError),
}

impl Recordings {
    /// Moves files back that have a row again, as after a restore of a newer backup. Must be done
    /// before anything looks for the file of a row.
    pub(super) async fn move_listed_back(&self) {
        if let Err(error) = move_back(&self.0.store, self.folder(), self.0.started).await {
            tracing::warn!(%error, "looking for recordings that are listed again failed");
        }
    }

    /// Moves files without a row, which are older than this process, to the folder [`UNLISTED`], and
    /// moves those back that have a row again. Repeats this until it succeeds, or until `stop`.
    pub async fn set_unlisted_aside(self, stop: CancellationToken) {
        let (store, folder) = (&self.0.store, self.folder());
        // Earlier processes have written their rows to the store or the journal, which is replayed
        // when the store is opened.
        while let Err(error) = sweep(store, folder, self.0.started).await {
            tracing::warn!(%error, "looking for unlisted recordings failed; trying again in a minute");
            if stop.run_until_cancelled(tokio::time::sleep(LOOK_AGAIN)).await.is_none() {
                return;
            }
        }
        let missing = missing_files(store, folder, &self.0.node_id);
        match stop.run_until_cancelled(missing).await {
            Some(Ok(0)) | None => {}
            Some(Ok(missing)) => tracing::warn!(
                recordings = missing,
                folder = %folder.display(),
                "recordings have no file, as after a restore of the store without the files; copy the files back"
            ),
            Some(Err(error)) => {
                tracing::warn!(%error, "looking for recordings without a file failed")
            }
        }
    }

    /// Deletes unlisted files that were written before `before`.
    pub(super) async fn expire_unlisted(&self, before: Timestamp) -> std::io::Result<()> {
        expire(&self.folder().join(UNLISTED), before).await
    }
}

/// Compares the files in `folder` and in its folder [`UNLISTED`] with the rows, some at a time.
async fn sweep(store: &Store, folder: &Path, before: Timestamp) -> Result<(), SweepError> {
    // Recordings of this process may have rows that are not written yet.
    store.flush().await;
    let unlisted = folder.join(UNLISTED);
    let gone = move_files(store, (folder, &unlisted), false, before).await?;
    if gone > 0 {
        tracing::warn!(
            files = gone,
            folder = %unlisted.display(),
            "recordings that the store does not know moved aside, as after a restore of an older backup; \
             delete them, or restore a newer backup and restart to get them back"
        );
    }
    move_back(store, folder, before).await
}

/// Returns the number of this node's recordings that have neither a file nor a copy in the bucket.
async fn missing_files(store: &Store, folder: &Path, node_id: &str) -> Result<usize, SweepError> {
    let (mut after, mut missing) = (None, 0);
    loop {
        let rows = store.recordings().not_copied(node_id, after, AT_ONCE).await?;
        let Some((last, _)) = rows.last() else { return Ok(missing) };
        after = Some(*last);
        let folder = folder.to_owned();
        let count = move || {
            let has_file = |(id, format): &(Uuid, String)| {
                let format = Format::from_name(format).unwrap_or(Format::Wav);
                folder.join(file_name(*id, format)).exists()
            };
            rows.iter().filter(|row| !has_file(row)).count()
        };
        missing += tokio::task::spawn_blocking(count).await.map_err(std::io::Error::from)?;
    }
}

async fn move_back(store: &Store, folder: &Path, before: Timestamp) -> Result<(), SweepError> {
    let back = move_files(store, (&folder.join(UNLISTED), folder), true, before).await?;
    if back > 0 {
        tracing::info!(files = back, "recordings that the store knows again moved back");
    }
    Ok(())
}

/// Moves files that were written before `before` between folders: those with a row, or those
/// without. Returns their number.
async fn move_files(
    store: &Store,
    (from, to): (&Path, &Path),
    with_row: bool,
    before: Timestamp,
) -> Result<usize, SweepError> {
    let (mut files, mut moved) = (Files::of(from).await?, 0);
    loop {
        let some = files.next().await?;
        if some.is_empty() {
            return Ok(moved);
        }
        let ids: Vec<Uuid> = some.iter().map(|(id, _)| *id).collect();
        let known: HashSet<Uuid> = store.recordings().existing(&ids).await?;
        for (_, name) in some.iter().filter(|(id, _)| known.contains(id) == with_row) {
            let file = from.join(name);
            if !was_written_before(&file, before).await {
                continue;
            }
            if moved == 0 {
                fs::DirBuilder::new().recursive(true).mode(0o700).create(to).await?;
            }
            match fs::rename(file, to.join(name)).await {
                Ok(()) => moved += 1,
                // Deleted in the meantime.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Deletes the files in a folder that were written before `before`.
async fn expire(folder: &Path, before: Timestamp) -> std::io::Result<()> {
    let (mut files, mut deleted, mut failed) = (Files::of(folder).await?, 0, None);
    loop {
        let some = files.next().await?;
        if some.is_empty() {
            break;
        }
        for (_, name) in some {
            let file = folder.join(name);
            if !was_written_before(&file, before).await {
                continue;
            }
            match fs::remove_file(file).await {
                Ok(()) => deleted += 1,
                // Moved back or deleted in the meantime.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => failed = failed.or(Some(error)),
            }
        }
    }
    if deleted > 0 {
        tracing::info!(files = deleted, "expired unlisted recordings deleted");
    }
    failed.map_or(Ok(()), Err)
}

/// The complete files of recordings in a folder.
struct Files {
    /// `None` if the folder does not exist.
    entries: Option<ReadDir>,
}

impl Files {
    async fn of(folder: &Path) -> std::io::Result<Self> {
        match fs::read_dir(folder).await {
            Ok(entries) => Ok(Self { entries: Some(entries) }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self { entries: None }),
            Err(error) => Err(error),
        }
    }

    /// Returns the next files, at most [`AT_ONCE`]. None are left if it is empty.
    async fn next(&mut self) -> std::io::Result<Vec<(Uuid, OsString)>> {
        let mut files = Vec::new();
        let Some(entries) = &mut self.entries else { return Ok(files) };
        while files.len() < usize::try_from(AT_ONCE).unwrap_or(usize::MAX) {
            let Some(entry) = entries.next_entry().await? else { break };
            let name = entry.file_name();
            if let Some((id, _)) = name.to_str().and_then(parse_file_name) {
                files.push((id, name));
            }
        }
        Ok(files)
    }
}

/// Whether a file was written before a time. `false` if it no longer exists.
async fn was_written_before(file: &Path, time: Timestamp) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(about) = fs::metadata(file).await else { return false };
    let micros = about.mtime().saturating_mul(1_000_000).saturating_add(about.mtime_nsec() / 1_000);
    Timestamp::from_micros(micros) < time
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::RecordingEndReason;
    use model::{CallUuid, Health};
    use store::{CopyWrite, RecordingConclusion, RecordingEnd, RecordingStart};

    fn start(id: Uuid) -> RecordingStart {
        RecordingStart {
            id,
            account: "MA1".into(),
            main_account: "MA1".into(),
            call: CallUuid(Uuid::nil()),
            conference: None,
            room: None,
            multi_party: false,
            format: "mp3".to_owned(),
            stereo: false,
            node_id: "another".to_owned(),
            started: Timestamp::from_secs(1),
            notices: Vec::new(),
            transcript: None,
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn files_without_a_row_are_set_aside_until_they_have_one_or_expire() {
        let data = tempfile::tempdir().unwrap();
        let store = Store::open(&data.path().join("o.db"), Health::new()).await.unwrap();
        let folder = data.path().join("recordings");
        std::fs::create_dir(&folder).unwrap();
        let unlisted = folder.join(UNLISTED);
        let [known, unknown] = [1, 2].map(Uuid::from_u128);
        store.recordings().begin(start(known));
        store.flush().await;
        let (kept, lost) = (format!("{known}.mp3"), format!("{unknown}.mp3"));
        let part = format!("{unknown}.wav.part");
        for name in [&kept, &lost, &part, "notes.mp3"] {
            std::fs::write(folder.join(name), "audio").unwrap();
        }
        let [past, future] = [0, 99_999_999_999].map(Timestamp::from_secs);
        sweep(&store, &folder, past).await.unwrap();
        assert_eq!(names(&folder).len(), 4, "files of this process are left alone");
        sweep(&store, &folder, future).await.unwrap();
        assert_eq!(names(&folder), [kept.as_str(), &part, "notes.mp3", UNLISTED]);
        assert_eq!(names(&unlisted), [lost.as_str()]);

        store.recordings().begin(start(unknown));
        store.flush().await;
        move_back(&store, &folder, future).await.unwrap();
        assert_eq!((folder.join(&lost).exists(), names(&unlisted).len()), (true, 0));

        store.recordings().delete(vec![known, unknown]).await.unwrap();
        sweep(&store, &folder, future).await.unwrap();
        assert_eq!(names(&unlisted), [kept.as_str(), &lost]);
        expire(&unlisted, past).await.unwrap();
        assert_eq!(names(&unlisted).len(), 2);
        media::record::remove(&folder, known, media::record::Format::Mp3).unwrap();
        assert_eq!(names(&unlisted), [lost.as_str()], "deleting a recording finds its file");
        expire(&unlisted, future).await.unwrap();
        assert_eq!(names(&unlisted), [""; 0]);
        expire(&folder.join("missing"), future).await.unwrap();
        store.close().await;
    }

    #[tokio::test]
    async fn many_files_are_compared_some_at_a_time() {
        let data = tempfile::tempdir().unwrap();
        let store = Store::open(&data.path().join("o.db"), Health::new()).await.unwrap();
        let count = u128::from(AT_ONCE) * 2 + 1;
        for id in 0..count {
            let name = format!("{}.wav", Uuid::from_u128(id));
            std::fs::write(data.path().join(name), "").unwrap();
            if id % 2 == 0 {
                store.recordings().begin(start(Uuid::from_u128(id)));
            }
        }
        store.flush().await;
        sweep(&store, data.path(), Timestamp::from_secs(99_999_999_999)).await.unwrap();
        assert_eq!(names(&data.path().join(UNLISTED)).len(), usize::try_from(count / 2).unwrap());
        store.close().await;
    }

    #[tokio::test]
    async fn rows_without_a_file_or_a_copy_are_counted() {
        let data = tempfile::tempdir().unwrap();
        let store = Store::open(&data.path().join("o.db"), Health::new()).await.unwrap();
        let end = RecordingEnd {
            ended: Timestamp::from_secs(2),
            duration_ms: 1_000,
            end: RecordingEndReason::Silence,
            upload: Some(Timestamp::from_secs(2)),
            transcribe: None,
        };
        let count = u128::from(AT_ONCE) * 2 + 2;
        for id in 0..count {
            let start =
                RecordingStart { node_id: "here/run".to_owned(), ..start(Uuid::from_u128(id)) };
            let conclusion = RecordingConclusion { start, end, callbacks: Vec::new() };
            drop(store.recordings().conclude(conclusion));
        }
        store.flush().await;
        let missing = async |node: &str| missing_files(&store, data.path(), node).await.unwrap();
        let all = usize::try_from(count).unwrap();
        assert_eq!((missing("here").await, missing("elsewhere").await), (all, 0));
        let [here, copied] = [Uuid::from_u128(AT_ONCE.into()), Uuid::from_u128(1)];
        std::fs::write(data.path().join(file_name(here, Format::Mp3)), "").unwrap();
        let copied = CopyWrite::Copied { id: copied, object: "o".to_owned() };
        store.recordings().write_copy(copied).await.unwrap();
        assert_eq!(missing("here").await, all - 2);
        store.close().await;
    }
}
