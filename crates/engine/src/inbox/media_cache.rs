//! The files of messages on the disk of this node.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::AsyncWriteExt as _;
use uuid::Uuid;

/// The size of the cache, in bytes, at which prefetching stops. Requests may exceed it.
const QUOTA: u64 = 20 << 30;

/// The folder of the files. Clones name the same folder.
#[derive(Clone, Debug)]
pub(super) struct MediaFolder(pub(super) PathBuf);

impl MediaFolder {
    async fn create(&self) -> std::io::Result<()> {
        let folder = self.0.clone();
        tokio::task::spawn_blocking(move || {
            use std::os::unix::fs::DirBuilderExt as _;
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
        })
        .await
        .map_err(std::io::Error::other)?
    }

    /// Creates an unlinked temporary file, which is deleted when its handle is closed.
    pub(super) async fn unlinked_file(&self) -> std::io::Result<tokio::fs::File> {
        self.create().await?;
        let path = self.0.join(format!("{}.part", Uuid::new_v4()));
        let mut options = tokio::fs::OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path).await?;
        tokio::fs::remove_file(&path).await?;
        Ok(file)
    }

    fn part(&self, id: Uuid) -> PathBuf {
        self.0.join(format!("{id}.part"))
    }

    /// Creates the partial file of a download, next to its final path.
    pub(super) async fn create_part(
        &self,
        id: Uuid,
    ) -> std::io::Result<(PathBuf, tokio::fs::File)> {
        self.create().await?;
        let part = self.part(id);
        let file = tokio::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&part)
            .await?;
        Ok((part, file))
    }
}

/// The cache of users' files.
#[derive(Debug)]
pub(super) struct MediaCache {
    pub(super) folder: MediaFolder,
    /// Number of bytes in the folder.
    used: AtomicU64,
    quota: u64,
}

impl MediaCache {
    /// Keeps files in `folder`.
    pub(super) fn new(folder: MediaFolder) -> Self {
        Self { folder, used: AtomicU64::new(0), quota: QUOTA }
    }

    /// The path of a message's file.
    pub(super) fn path(&self, id: Uuid) -> PathBuf {
        self.folder.0.join(id.to_string())
    }

    /// Makes the cache behave as if the quota were used up. For tests.
    #[cfg(test)]
    pub(super) fn fill(&self) {
        self.used.store(self.quota, Ordering::Relaxed);
    }

    /// Returns whether no file is downloaded ahead of a request.
    pub(super) fn is_full(&self) -> bool {
        self.used.load(Ordering::Relaxed) >= self.quota
    }

    /// Deletes files. Returns `false` if one of them is still there.
    pub(super) async fn remove(&self, ids: Vec<Uuid>) -> bool {
        let mut is_done = true;
        for id in ids {
            // A download in progress fails without it.
            let _ = tokio::fs::remove_file(self.folder.part(id)).await;
            let path = self.path(id);
            let bytes = tokio::fs::metadata(&path).await.map_or(0, |meta| meta.len());
            match tokio::fs::remove_file(path).await {
                Ok(()) => self.release(bytes),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(%error, message_id = %id, "media file not deleted");
                    is_done = false;
                }
            }
        }
        is_done
    }

    fn release(&self, bytes: u64) {
        let less = |used: u64| Some(used.saturating_sub(bytes));
        let _ = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Deletes files older than `oldest`, and counts the bytes of the others. Without `oldest`,
    /// which is the case at start-up before any download, it deletes the partial downloads of the
    /// previous process.
    pub(super) async fn sweep(&self, oldest: Option<std::time::SystemTime>) {
        let folder = self.folder.0.clone();
        let swept = tokio::task::spawn_blocking(move || {
            let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
            let mut used = 0;
            for entry in entries.flatten() {
                let Ok(meta) = entry.metadata() else { continue };
                let left =
                    oldest.is_none() && entry.path().extension().is_some_and(|end| end == "part");
                if left || oldest.is_some_and(|oldest| meta.modified().is_ok_and(|at| at < oldest))
                {
                    let _ = std::fs::remove_file(entry.path());
                } else {
                    used += meta.len();
                }
            }
            used
        });
        if let Ok(used) = swept.await {
            self.used.store(used, Ordering::Relaxed);
        }
    }

    /// Returns the sizes of the complete files.
    pub(super) async fn sizes(&self) -> HashMap<Uuid, u64> {
        let folder = self.folder.0.clone();
        let read = tokio::task::spawn_blocking(move || {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            let size = |entry: std::fs::DirEntry| {
                let id = entry.file_name().to_str()?.parse().ok()?;
                Some((id, entry.metadata().ok()?.len()))
            };
            entries.filter_map(size).collect()
        });
        read.await.unwrap_or_default()
    }

    /// Renames a complete download to its final path.
    pub(super) async fn finish(
        &self,
        id: Uuid,
        part: &PathBuf,
        mut file: tokio::fs::File,
        bytes: u64,
    ) -> std::io::Result<()> {
        file.flush().await?;
        file.sync_all().await?;
        tokio::fs::rename(part, self.path(id)).await?;
        self.used.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }
}
