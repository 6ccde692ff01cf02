//! The files of users on disk, and the signed links to them, which are valid for an hour.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;

use dashmap::DashMap;
use tokio::sync::{Mutex, Semaphore};
use uuid::Uuid;

use super::uploads::{ACCOUNT_UPLOADS_MAX, UPLOADS_MAX};
use crate::limiter::Shares;
use crate::links::LinkSigner;
use model::{AuthId, Timestamp};

/// Lifetime of a link.
const LINK_LIFETIME: Duration = Duration::from_secs(3_600);

/// Maximum number of concurrent downloads. Prefetching leaves one of them to requests.
const DOWNLOADS_MAX: usize = 4;

/// Maximum number of files that wait to be prefetched. Further files are downloaded on request.
const PREFETCH_MAX: usize = 256;

/// The size of the cache, in bytes, at which prefetching stops. Requests may exceed it.
const QUOTA: u64 = 20 << 30;

/// The cache of users' files.
#[derive(Debug)]
pub(super) struct MediaCache {
    folder: PathBuf,
    links: LinkSigner,
    /// A lock per file that is being downloaded.
    pub(super) fetching: DashMap<Uuid, Arc<Mutex<()>>>,
    pub(super) downloads: Semaphore,
    /// The permits for prefetching.
    pub(super) prefetching: Semaphore,
    pub(super) prefetch_queue: Arc<Semaphore>,
    /// Number of bytes in the folder.
    used: AtomicU64,
    pub(super) quota: u64,
    /// Uploads to Meta, by main account.
    pub(super) uploads: Shares<AuthId>,
}

impl MediaCache {
    /// Keeps files in `folder` and signs links with `links`.
    pub(super) fn new(folder: PathBuf, links: LinkSigner) -> Self {
        Self {
            folder,
            links,
            fetching: DashMap::new(),
            downloads: Semaphore::new(DOWNLOADS_MAX),
            prefetching: Semaphore::new(DOWNLOADS_MAX - 1),
            prefetch_queue: Arc::new(Semaphore::new(PREFETCH_MAX)),
            used: AtomicU64::new(0),
            quota: QUOTA,
            uploads: Shares::new(ACCOUNT_UPLOADS_MAX, UPLOADS_MAX),
        }
    }

    /// A link to a message's file that is valid for an hour.
    pub(super) fn link(&self, base_url: &str, id: Uuid, now: Timestamp) -> String {
        let query = self.links.query(&format!("media {id}"), now.plus(LINK_LIFETIME));
        format!("{base_url}/media/{id}?{query}")
    }

    pub(super) fn is_valid(&self, id: Uuid, until: i64, tag: &str, now: Timestamp) -> bool {
        self.links.is_valid(&format!("media {id}"), until, tag, now)
    }

    pub(super) fn path(&self, id: Uuid) -> PathBuf {
        self.folder.join(id.to_string())
    }

    /// Makes the cache behave as if the quota were used up. For tests.
    #[cfg(test)]
    pub(super) fn fill(&self) {
        self.used.store(self.quota, Ordering::Relaxed);
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Deletes files.
    pub(super) async fn remove(&self, ids: Vec<Uuid>) {
        for id in ids {
            let path = self.path(id);
            let bytes = tokio::fs::metadata(&path).await.map_or(0, |meta| meta.len());
            match tokio::fs::remove_file(path).await {
                Ok(()) => self.release(bytes),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(%error, message = %id, "media file not deleted")
                }
            }
        }
    }

    fn release(&self, bytes: u64) {
        let less = |used: u64| Some(used.saturating_sub(bytes));
        let _ = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Deletes files older than `oldest`, and counts the bytes of the others. Without `oldest`,
    /// which is the case at start-up before any download, it deletes the partial downloads of the
    /// previous process.
    pub(super) async fn sweep(&self, oldest: Option<std::time::SystemTime>) {
        let folder = self.folder.clone();
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

    async fn make_folder(&self) -> std::io::Result<()> {
        let folder = self.folder.clone();
        tokio::task::spawn_blocking(move || {
            use std::os::unix::fs::DirBuilderExt as _;
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
        })
        .await
        .map_err(std::io::Error::other)?
    }

    /// Creates an unlinked temporary file, which is deleted when its handle is closed.
    pub(super) async fn unlinked_file(&self) -> std::io::Result<tokio::fs::File> {
        self.make_folder().await?;
        let path = self.folder.join(format!("{}.part", Uuid::new_v4()));
        let mut options = tokio::fs::OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path).await?;
        tokio::fs::remove_file(&path).await?;
        Ok(file)
    }

    /// Creates the partial file of a download, next to its final path.
    pub(super) async fn create_part(
        &self,
        id: Uuid,
    ) -> std::io::Result<(PathBuf, tokio::fs::File)> {
        self.make_folder().await?;
        let part = self.folder.join(format!("{id}.part"));
        let file = tokio::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&part)
            .await?;
        Ok((part, file))
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
