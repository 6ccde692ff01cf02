//! Files that users send. They are downloaded from Meta with the number's access token, cached on
//! disk, and served under signed links that are valid for an hour.
//!
//! Users decide how many files arrive, so few are downloaded at a time, and main accounts take turns.
//! Files are downloaded ahead of the first request only until the cache holds 20 GiB, and then those of
//! accounts that have had few. All others are downloaded on request. None is downloaded without disk
//! space; see [`DiskSpace`].

use std::collections::HashMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use dashmap::DashMap;
use tokio::io::AsyncWrite;
use tokio::sync::Mutex;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::media_cache::MediaCache;
use super::media_links::MediaLinks;
use super::numbers::ServedNumbers;
use super::{InboxParts, words};
use crate::admission::NumberEntry;
use crate::disk_space::{Content, DiskSpace, GrowingFile};
use crate::limiter::Shares;
use crate::meta::Graph;
use egress::FairPermits;
use model::{AuthId, Timestamp, metric};
use store::{Message, NewMessage, Pair, Scope, Store, StoreError};

/// Maximum number of concurrent downloads, and the share of one main account. Prefetching leaves one of
/// each to requests.
const DOWNLOADS_MAX: usize = 6;
const DOWNLOADS_SHARE: usize = 4;
/// Maximum number of files that wait to be prefetched, and of those of one main account. Further files
/// are downloaded on request.
const PREFETCH_MAX: usize = 512;
const PREFETCH_SHARE: usize = 128;
/// Number of bytes that this process prefetches for a main account although the cache is full.
const PREFETCHED_BYTES_MIN: u64 = 1 << 30;
/// Number of messages whose accounts are read in one query.
const LOOKED_UP: usize = 500;
/// Messages per page when a conversation's files are collected.
const PAGE: u32 = 1_000;
/// Maximum difference between the timestamps of a message and of its event, which come from two
/// clocks.
const LATE: Duration = Duration::from_secs(1);

/// A cached file.
#[derive(Debug)]
pub struct MediaFile {
    pub path: PathBuf,
    /// Meta's media type, reduced to plain ASCII.
    pub content_type: String,
    pub filename: String,
}

/// The files of all conversations.
pub struct UserFiles {
    store: Store,
    graph: Arc<Graph>,
    node_id: String,
    tasks: TaskTracker,
    numbers: Arc<ServedNumbers>,
    links: Arc<MediaLinks>,
    pub(super) cache: MediaCache,
    space: Arc<DiskSpace>,
    /// The main accounts of cached files, for [`UserFiles::used_space`].
    owners: Mutex<HashMap<Uuid, AuthId>>,
    /// A lock per file that is being downloaded.
    fetching: DashMap<Uuid, Arc<Mutex<()>>>,
    downloads: FairPermits<AuthId>,
    /// The permits for prefetching.
    prefetching: FairPermits<AuthId>,
    /// The files that wait to be prefetched.
    prefetch_queue: Shares<AuthId>,
    /// Number of bytes that were downloaded for each main account.
    downloaded: DashMap<AuthId, u64>,
}

impl UserFiles {
    pub(super) fn new(
        parts: &InboxParts,
        numbers: Arc<ServedNumbers>,
        links: Arc<MediaLinks>,
        cache: MediaCache,
    ) -> Self {
        Self {
            store: parts.store.clone(),
            graph: parts.graph.clone(),
            node_id: parts.node_id.clone(),
            tasks: parts.tasks.clone(),
            numbers,
            links,
            cache,
            space: parts.space.clone(),
            owners: Mutex::default(),
            fetching: DashMap::new(),
            downloads: FairPermits::new(DOWNLOADS_MAX, DOWNLOADS_SHARE),
            prefetching: FairPermits::new(DOWNLOADS_MAX - 1, DOWNLOADS_SHARE - 1),
            prefetch_queue: Shares::new(PREFETCH_SHARE, PREFETCH_MAX),
            downloaded: DashMap::new(),
        }
    }

    /// A link to a message's file.
    pub fn link(&self, message: Uuid) -> String {
        self.links.link(message)
    }

    /// Deletes the files of messages, on the disks of all nodes.
    ///
    /// # Errors
    /// Fails if the store does not take the files of other nodes, or if a file on this disk can't be
    /// deleted. The rows of the messages must be kept then, because they name the files.
    pub(super) async fn remove(&self, messages: Vec<Uuid>) -> Result<(), StoreError> {
        self.store.files_to_remove().add_media(&self.node_id, &messages).await?;
        match self.remove_own(messages).await {
            true => Ok(()),
            false => Err(StoreError::NotTaken),
        }
    }

    /// Deletes the files of messages on the disk of this node. Returns `false` if one of them is still
    /// there.
    pub async fn remove_own(&self, messages: Vec<Uuid>) -> bool {
        self.cache.remove(messages).await
    }

    /// Returns whether a link to a file is valid now.
    pub fn is_valid_link(&self, message: Uuid, until: i64, tag: &str) -> bool {
        self.links.is_valid(message, until, tag)
    }

    /// Returns the file of a link. It is downloaded now if it is not cached. `None` if the link is
    /// invalid or expired, or if the message has no file.
    ///
    /// # Errors
    /// Returns an error if the store fails.
    pub async fn get(
        self: &Arc<Self>,
        message: Uuid,
        until: i64,
        tag: &str,
    ) -> Result<Option<MediaFile>, StoreError> {
        if !self.links.is_valid(message, until, tag) {
            return Ok(None);
        }
        let found = self.store.messages().get(message).await?;
        let Some((pair, found)) = found else { return Ok(None) };
        Ok(self.file_of(message, &pair, &found).await)
    }

    async fn file_of(
        self: &Arc<Self>,
        message: Uuid,
        pair: &Pair,
        found: &Message,
    ) -> Option<MediaFile> {
        let file = words::media(&found.message.content, &found.message.kind)?;
        let text = |name: &str| file.get(name).and_then(serde_json::Value::as_str);
        let plain = |c: &char| c.is_ascii_alphanumeric() || "/.+-".contains(*c);
        let content_type: String =
            text("mime_type").unwrap_or_default().chars().take_while(plain).take(100).collect();
        let named: String = text("filename")
            .unwrap_or_default()
            .chars()
            .filter(|c| plain(c) && *c != '/')
            .take(100)
            .collect();
        let path = self.cache.path(message);
        if tokio::fs::metadata(&path).await.is_err() {
            let number = self.numbers.number_of(pair)?;
            let (files, message) = (self.clone(), found.message.clone());
            // Not given up with the request: a part of the file would stay.
            let fetching = self.tasks.spawn(async move { files.fetch(&number, &message).await });
            let _ = fetching.await;
        }
        tokio::fs::metadata(&path).await.ok()?;
        let content_type = if content_type.contains('/') {
            content_type
        } else {
            "application/octet-stream".to_owned()
        };
        Some(MediaFile {
            path,
            content_type,
            filename: if named.is_empty() { message.to_string() } else { named },
        })
    }

    /// Downloads a message's file in the background, if it has one. Does nothing if too many files
    /// wait or the cache is full.
    pub(super) fn prefetch(self: &Arc<Self>, number: &Arc<NumberEntry>, message: &NewMessage) {
        let account = number.account.main().auth_id.clone();
        if words::media_id(&message.content, &message.kind).is_none() || !self.prefetches(&account)
        {
            return;
        }
        let Some(waiting) = self.prefetch_queue.take(account.clone()) else {
            crate::count_refused(metric::queue::MEDIA);
            return;
        };
        let (files, number, message) = (self.clone(), number.clone(), message.clone());
        self.tasks.spawn(async move {
            let _waiting = waiting;
            let _permit = files.prefetching.acquire(&account).await;
            // Earlier downloads may have filled the cache.
            if files.prefetches(&account) {
                files.fetch(&number, &message).await;
            }
        });
    }

    /// Makes the cache behave as if it was full of files of this main account.
    #[cfg(test)]
    pub(super) fn fill(&self, account: &AuthId) {
        self.cache.fill();
        self.downloaded.insert(account.clone(), PREFETCHED_BYTES_MIN);
    }

    /// Whether files of this main account are downloaded before anyone requests them.
    fn prefetches(&self, account: &AuthId) -> bool {
        let downloaded = || self.downloaded.get(account).map_or(0, |bytes| *bytes);
        !self.cache.is_full() || downloaded() < PREFETCHED_BYTES_MIN
    }

    async fn fetch(&self, number: &NumberEntry, message: &NewMessage) {
        let Some(media) = words::media_id(&message.content, &message.kind) else { return };
        // One download per file. Others wait for it and then find the file.
        let turn = self.fetching.entry(message.id).or_default().clone();
        let held = turn.lock().await;
        if tokio::fs::metadata(self.cache.path(message.id)).await.is_err()
            && let Err(why) = self.download(number, message.id, media).await
        {
            tracing::warn!(message_id = %message.id, why, "media download failed; will retry on request");
        }
        drop(held);
        // Others that wait for the lock hold a reference; a later download must wait for the same
        // lock.
        self.fetching.remove_if(&message.id, |_, turn| Arc::strong_count(turn) <= 2);
    }

    async fn download(&self, number: &NumberEntry, id: Uuid, media: &str) -> Result<(), String> {
        let cache = &self.cache;
        let account = number.account.main().auth_id.clone();
        let _permit = self.downloads.acquire(&account).await;
        let mut space = self.space.temporary_file(Content::UserFile, account.clone());
        space.grow(0)?;
        let (part, file) = cache.folder.create_part(id).await.map_err(|e| e.to_string())?;
        let mut file = LimitedFile { file, space, bytes: 0 };
        let (id_at_meta, token) = (&number.spec.phone_number_id, number.spec.access_token.as_ref());
        let files = self.graph.files(id_at_meta, token);
        let fetched = files.download(media, &mut file).await;
        let kept = match fetched {
            Ok(bytes) => {
                *self.downloaded.entry(account).or_default() += bytes;
                let kept = cache.finish(id, &part, file.file, bytes).await;
                kept.map(|()| file.space.keep()).map_err(|e| e.to_string())
            }
            Err(why) => Err(why),
        };
        if kept.is_err() {
            let _ = tokio::fs::remove_file(part).await;
        } else if matches!(self.store.messages().get(id).await, Ok(None)) {
            // The conversation was deleted during the download.
            cache.remove(vec![id]).await;
        }
        kept
    }

    /// Reads what the cached files of each main account use. `None` if the store fails.
    pub async fn used_space(&self) -> Option<Vec<(AuthId, u64)>> {
        let sizes = self.cache.sizes().await;
        let mut owners = self.owners.lock().await;
        owners.retain(|id, _| sizes.contains_key(id));
        let unknown: Vec<Uuid> =
            sizes.keys().filter(|id| !owners.contains_key(id)).copied().collect();
        for ids in unknown.chunks(LOOKED_UP) {
            let found = self.store.messages().main_accounts(ids).await.inspect_err(|error| {
                tracing::warn!(%error, "counting the space of users' files failed; trying again in a minute");
            });
            owners.extend(found.ok()?);
        }
        let mut used: HashMap<AuthId, u64> = HashMap::new();
        for (id, bytes) in sizes {
            if let Some(owner) = owners.get(&id) {
                *used.entry(owner.clone()).or_default() += bytes;
            }
        }
        Some(used.into_iter().collect())
    }

    /// Counts the cached bytes. Call it before the first download.
    pub(super) async fn count(&self) {
        self.cache.sweep(None).await;
    }

    /// Returns the messages of a conversation until `until` that have files, and all messages of
    /// the last [`LATE`] before that time.
    pub(super) async fn of_conversation(
        &self,
        scope: &Scope,
        conversation: Uuid,
        until: Timestamp,
    ) -> Result<(Vec<Uuid>, Vec<Uuid>), StoreError> {
        let (mut found, mut late) = (Vec::new(), Vec::new());
        let mut before = Some((until.micros().saturating_add(1), Uuid::nil()));
        loop {
            let page = self.store.messages().list(scope, conversation, before, PAGE).await?;
            let Some(last) = page.last() else { return Ok((found, late)) };
            before = Some((last.message.at.micros(), last.message.id));
            found.extend(
                page.iter()
                    .filter(|m| words::MEDIA.contains(&m.message.kind.as_str()))
                    .map(|m| m.message.id),
            );
            let is_late = |m: &&Message| m.message.at > until.minus(LATE);
            late.extend(page.iter().filter(is_late).map(|m| m.message.id));
        }
    }

    /// Deletes the files older than `before` on the disk of this node.
    pub(super) async fn forget(&self, before: Timestamp) {
        let oldest = std::time::UNIX_EPOCH
            + Duration::from_secs(u64::try_from(before.secs()).unwrap_or_default());
        self.cache.sweep(Some(oldest)).await;
    }
}

/// A file that grows only while there is disk space for it.
struct LimitedFile {
    file: tokio::fs::File,
    space: GrowingFile,
    bytes: u64,
}

impl AsyncWrite for LimitedFile {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let more = u64::try_from(from.len()).unwrap_or(u64::MAX);
        let grown = self.bytes.saturating_add(more);
        self.space.reserve(grown)?;
        let written = Pin::new(&mut self.file).poll_write(cx, from);
        if let Poll::Ready(Ok(written)) = written {
            self.bytes += u64::try_from(written).unwrap_or_default();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.file).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.file).poll_shutdown(cx)
    }
}
