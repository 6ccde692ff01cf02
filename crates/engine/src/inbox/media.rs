//! Files that users send: fetched from Meta with the token, kept on the disk, and given to whoever has a link of ours that
//! is good for an hour. What was not fetched yet is fetched when it is asked for: users decide how many files there are, so
//! few are fetched at a time, and none before it is asked for once the folder holds [`QUOTA`].

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::hmac;
use dashmap::DashMap;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{Mutex, Semaphore};
use uuid::Uuid;

use super::{Inbox, words};
use crate::admission::NumberEntry;
use model::Timestamp;
use model::metric;
use store::{Message, NewMessage, Pair, Scope, StoreError};

/// How long a link is good.
const LINK: Duration = Duration::from_secs(3_600);
/// Messages looked at when a conversation's files go.
const PAGE: u32 = 1_000;
/// A message and what reports it are stamped one after the other, by two clocks: never that far apart.
const LATE: Duration = Duration::from_secs(1);
/// Files fetched at a time; one place is left to those that somebody asks for.
const AT_ONCE: usize = 4;
/// Files that wait to be fetched before anybody asks for them; a further one waits until somebody does.
const WAITING_MAX: usize = 256;
/// The folder may fill to this by itself, in bytes; past it files are fetched for those who ask.
const QUOTA: u64 = 20 << 30;

/// A file that may be given away.
#[derive(Debug)]
pub struct MediaFile {
    pub path: PathBuf,
    /// As Meta says; plain ASCII.
    pub content_type: String,
    pub filename: String,
}

/// The folder of users' files.
#[derive(Debug)]
pub struct Shelf {
    folder: PathBuf,
    key: hmac::Key,
    /// Files being fetched.
    fetching: DashMap<Uuid, Arc<Mutex<()>>>,
    places: Semaphore,
    /// Of these, for files that nobody asked for yet; and the line in front of it.
    ahead: Semaphore,
    waiting: Arc<Semaphore>,
    /// Bytes in the folder.
    used: AtomicU64,
    quota: u64,
    /// Files on their way to Meta.
    pub(super) uploads: Semaphore,
}

impl Shelf {
    /// Files in `folder`; links are signed with `key`.
    pub fn new(folder: PathBuf, key: hmac::Key) -> Self {
        Self {
            folder,
            key,
            fetching: DashMap::new(),
            places: Semaphore::new(AT_ONCE),
            ahead: Semaphore::new(AT_ONCE - 1),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
            used: AtomicU64::new(0),
            quota: QUOTA,
            uploads: Semaphore::new(super::files::UPLOADS),
        }
    }

    /// The query of a link that is good until then.
    fn sign(&self, id: Uuid, until: i64) -> String {
        let tag = hmac::sign(&self.key, format!("media {id} {until}").as_bytes());
        hex::encode(tag.as_ref().get(..20).unwrap_or_default())
    }

    /// A link to a message's file that is good for an hour.
    pub(super) fn link(&self, base_url: &str, id: Uuid, now: Timestamp) -> String {
        let until = now.plus(LINK).secs();
        format!("{base_url}/media/{id}?until={until}&tag={}", self.sign(id, until))
    }

    fn is_good(&self, id: Uuid, until: i64, tag: &str, now: Timestamp) -> bool {
        let right = self.sign(id, until);
        now.secs() <= until
            && right.len() == tag.len()
            && aws_lc_rs::constant_time::verify_slices_are_equal(right.as_bytes(), tag.as_bytes())
                .is_ok()
    }

    fn path(&self, id: Uuid) -> PathBuf {
        self.folder.join(id.to_string())
    }

    /// As if it held all that it may.
    #[cfg(test)]
    pub(super) fn fill(&self) {
        self.used.store(self.quota, Ordering::Relaxed);
    }

    fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Removes files.
    pub(super) async fn remove(&self, ids: Vec<Uuid>) {
        for id in ids {
            let path = self.path(id);
            let bytes = tokio::fs::metadata(&path).await.map_or(0, |meta| meta.len());
            match tokio::fs::remove_file(path).await {
                Ok(()) => self.freed(bytes),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(%error, message = %id, "a user's file could not be removed")
                }
            }
        }
    }

    fn freed(&self, bytes: u64) {
        let less = |used: u64| Some(used.saturating_sub(bytes));
        let _ = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Counts what is in the folder, without what is older than that and goes now. What an earlier process was fetching when
    /// it ended is old too: nothing is fetched before this was done once.
    async fn sweep(&self, oldest: Option<std::time::SystemTime>) {
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

    /// An empty file without a name: with its handle it is gone.
    pub(super) async fn nameless(&self) -> std::io::Result<tokio::fs::File> {
        self.make_folder().await?;
        let path = self.folder.join(format!("{}.part", Uuid::new_v4()));
        let mut options = tokio::fs::OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path).await?;
        tokio::fs::remove_file(&path).await?;
        Ok(file)
    }

    /// An empty file that is none yet, beside where it will be.
    async fn part(&self, id: Uuid) -> std::io::Result<(PathBuf, tokio::fs::File)> {
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

    /// Puts a file under its name, now that it is complete.
    async fn keep(
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

impl Inbox {
    /// A link to a message's file.
    pub fn media_url(&self, message: Uuid) -> String {
        self.0.shelf.link(&self.parts().base_url, message, self.parts().clock.wall())
    }

    /// The file that a link names; fetched now, if it was not yet. `None`: the link is none or over, or there is no file.
    ///
    /// # Errors
    /// The store's.
    pub async fn media_file(
        &self,
        message: Uuid,
        until: i64,
        tag: &str,
    ) -> Result<Option<MediaFile>, StoreError> {
        if !self.0.shelf.is_good(message, until, tag, self.parts().clock.wall()) {
            return Ok(None);
        }
        let found = self.parts().store.messages().get(message).await?;
        let Some((pair, found)) = found else { return Ok(None) };
        Ok(self.file_of(message, &pair, &found).await)
    }

    async fn file_of(&self, message: Uuid, pair: &Pair, found: &Message) -> Option<MediaFile> {
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
        let path = self.0.shelf.path(message);
        if tokio::fs::metadata(&path).await.is_err() {
            let number = self.number_of(pair)?;
            self.fetch(&number, &found.message).await;
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

    /// Fetches a message's file, if it has one, behind whatever goes on; unless there are too many, or too much is there.
    pub(super) fn prefetch(&self, number: &Arc<NumberEntry>, message: &NewMessage) {
        let shelf = &self.0.shelf;
        if words::media_id(&message.content, &message.kind).is_none() || shelf.used() >= shelf.quota
        {
            return;
        }
        let Ok(line) = shelf.waiting.clone().try_acquire_owned() else {
            crate::count_refused(metric::queue::MEDIA);
            return;
        };
        let (inbox, number, message) = (self.clone(), number.clone(), message.clone());
        self.parts().tasks.spawn(async move {
            let (_line, shelf) = (line, &inbox.0.shelf);
            let Ok(_turn) = shelf.ahead.acquire().await else { return };
            // Those before it may have filled the folder.
            if shelf.used() < shelf.quota {
                inbox.fetch(&number, &message).await;
            }
        });
    }

    async fn fetch(&self, number: &NumberEntry, message: &NewMessage) {
        let Some(media) = words::media_id(&message.content, &message.kind) else { return };
        let shelf = &self.0.shelf;
        // One at a time of each; who waited finds it there.
        let turn = shelf.fetching.entry(message.id).or_default().clone();
        let held = turn.lock().await;
        if tokio::fs::metadata(shelf.path(message.id)).await.is_err()
            && let Err(why) = self.download(number, message.id, media).await
        {
            tracing::warn!(message = %message.id, why, "a user's file could not be fetched; it is tried again when asked for");
        }
        drop(held);
        // Who waits has it still: the next must wait for the same.
        shelf.fetching.remove_if(&message.id, |_, turn| Arc::strong_count(turn) <= 2);
    }

    async fn download(&self, number: &NumberEntry, id: Uuid, media: &str) -> Result<(), String> {
        let shelf = &self.0.shelf;
        let _place = shelf.places.acquire().await.map_err(|e| e.to_string())?;
        let (part, mut file) = shelf.part(id).await.map_err(|e| e.to_string())?;
        let fetched =
            self.parts().graph.media(number.spec.access_token.as_ref(), media, &mut file).await;
        let kept = match fetched {
            Ok(bytes) => shelf.keep(id, &part, file, bytes).await.map_err(|e| e.to_string()),
            Err(why) => Err(why),
        };
        if kept.is_err() {
            let _ = tokio::fs::remove_file(part).await;
        } else if matches!(self.parts().store.messages().get(id).await, Ok(None)) {
            // Its conversation was deleted meanwhile, and its files before this one was there.
            shelf.remove(vec![id]).await;
        }
        kept
    }

    /// Counts what is on the disk; before anything is fetched.
    pub(super) async fn count_files(&self) {
        self.0.shelf.sweep(None).await;
    }

    /// Messages of a conversation that have files, of those that came until then; and all that came within the second before.
    pub(super) async fn files_of(
        &self,
        scope: &Scope,
        conversation: Uuid,
        until: Timestamp,
    ) -> Result<(Vec<Uuid>, Vec<Uuid>), StoreError> {
        let (mut found, mut late) = (Vec::new(), Vec::new());
        let mut before = Some((until.micros().saturating_add(1), Uuid::nil()));
        loop {
            let page =
                self.parts().store.messages().list(scope, conversation, before, PAGE).await?;
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

    /// Forgets messages that came before then, and their files.
    ///
    /// # Errors
    /// The store takes nothing now.
    pub async fn forget(&self, before: Timestamp) -> Result<(), StoreError> {
        while self.parts().store.messages().delete_older(before, PAGE).await? {}
        let oldest = std::time::UNIX_EPOCH
            + Duration::from_secs(u64::try_from(before.secs()).unwrap_or_default());
        self.0.shelf.sweep(Some(oldest)).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_good_for_an_hour_and_for_their_file() {
        let shelf = Shelf::new(PathBuf::new(), hmac::Key::new(hmac::HMAC_SHA256, b"key"));
        let (id, until) = (Uuid::from_u128(7), 1_790_003_600);
        let tag = shelf.sign(id, until);
        let at = Timestamp::from_secs;
        assert!(shelf.is_good(id, until, &tag, at(1_790_000_000)));
        assert!(shelf.is_good(id, until, &tag, at(until)));
        assert!(!shelf.is_good(id, until, &tag, at(until + 1)));
        assert!(!shelf.is_good(id, until + 1, &tag, at(1_790_000_000)), "the time is signed too");
        assert!(!shelf.is_good(Uuid::from_u128(8), until, &tag, at(1_790_000_000)));
        assert!(!shelf.is_good(id, until, "", at(1_790_000_000)));
    }
}
