//! Files that users send: fetched from Meta with the token, kept on the disk, and given to whoever has a link of ours that
//! is good for an hour. What was not fetched yet is fetched when it is asked for.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use dashmap::DashMap;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Mutex;
use uuid::Uuid;

use super::{Inbox, words};
use crate::admission::NumberEntry;
use crate::model::Timestamp;
use crate::store::{NewMessage, Scope, StoreError};

/// How long a link is good.
const LINK: Duration = Duration::from_secs(3_600);
/// Messages looked at when a conversation's files go.
const PAGE: u32 = 1_000;

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
}

impl Shelf {
    /// Files in `folder`; links are signed with `key`.
    pub fn new(folder: PathBuf, key: hmac::Key) -> Self {
        Self { folder, key, fetching: DashMap::new() }
    }

    /// The query of a link that is good until then.
    fn sign(&self, id: Uuid, until: i64) -> String {
        let tag = hmac::sign(&self.key, format!("media {id} {until}").as_bytes());
        hex::encode(tag.as_ref().get(..20).unwrap_or_default())
    }

    fn is_good(&self, id: Uuid, until: i64, tag: &str, now: Timestamp) -> bool {
        let right = self.sign(id, until);
        now.secs() <= until
            && right.len() == tag.len()
            && aws_lc_rs::constant_time::verify_slices_are_equal(right.as_bytes(), tag.as_bytes()).is_ok()
    }

    fn path(&self, id: Uuid) -> PathBuf {
        self.folder.join(id.to_string())
    }

    /// Removes files.
    pub(super) async fn remove(&self, ids: Vec<Uuid>) {
        for id in ids {
            if let Err(error) = tokio::fs::remove_file(self.path(id)).await
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(%error, message = %id, "a user's file could not be removed");
            }
        }
    }

    /// Puts a file under its name once it is complete.
    async fn keep(&self, id: Uuid, bytes: &[u8]) -> std::io::Result<()> {
        let folder = self.folder.clone();
        tokio::task::spawn_blocking(move || {
            use std::os::unix::fs::DirBuilderExt as _;
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
        })
        .await
        .map_err(std::io::Error::other)??;
        let part = self.folder.join(format!("{id}.part"));
        let mut file =
            tokio::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part).await?;
        file.write_all(bytes).await?;
        file.sync_all().await?;
        tokio::fs::rename(part, self.path(id)).await
    }
}

impl Inbox {
    /// A link to a message's file.
    pub fn media_url(&self, message: Uuid) -> String {
        let until = self.parts().clock.wall().plus(LINK).secs();
        let tag = self.0.shelf.sign(message, until);
        format!("{}/media/{message}?until={until}&tag={tag}", self.parts().base_url)
    }

    /// The file that a link names; fetched now, if it was not yet. `None`: the link is none or over, or there is no file.
    pub async fn media_file(&self, message: Uuid, until: i64, tag: &str) -> Option<MediaFile> {
        if !self.0.shelf.is_good(message, until, tag, self.parts().clock.wall()) {
            return None;
        }
        let (pair, found) = self.parts().store.message(message).await.ok()??;
        let file = words::media(&found.message.content, &found.message.kind)?;
        let text = |name: &str| file.get(name).and_then(serde_json::Value::as_str);
        let plain = |c: &char| c.is_ascii_alphanumeric() || "/.+-".contains(*c);
        let content_type: String = text("mime_type").unwrap_or_default().chars().take_while(plain).take(100).collect();
        let named: String =
            text("filename").unwrap_or_default().chars().filter(|c| plain(c) && *c != '/').take(100).collect();
        let path = self.0.shelf.path(message);
        if tokio::fs::metadata(&path).await.is_err() {
            let number = self.number(&pair.number)?;
            self.fetch(&number, &found.message).await;
        }
        tokio::fs::metadata(&path).await.ok()?;
        let content_type =
            if content_type.contains('/') { content_type } else { "application/octet-stream".to_owned() };
        Some(MediaFile { path, content_type, filename: if named.is_empty() { message.to_string() } else { named } })
    }

    /// Fetches a message's file, if it has one, behind whatever goes on.
    pub(super) fn prefetch(&self, number: &Arc<NumberEntry>, message: &NewMessage) {
        if words::media_id(&message.content, &message.kind).is_some() {
            let (inbox, number, message) = (self.clone(), number.clone(), message.clone());
            self.parts().tasks.spawn(async move { inbox.fetch(&number, &message).await });
        }
    }

    async fn fetch(&self, number: &NumberEntry, message: &NewMessage) {
        let Some(media) = words::media_id(&message.content, &message.kind) else { return };
        let shelf = &self.0.shelf;
        // One at a time of each; who waited finds it there.
        let turn = shelf.fetching.entry(message.id).or_default().clone();
        let held = turn.lock().await;
        if tokio::fs::metadata(shelf.path(message.id)).await.is_err() {
            let fetched = self.parts().graph.media(number.spec.access_token.as_ref(), media).await;
            let kept = match fetched {
                Ok(bytes) => shelf.keep(message.id, &bytes).await.map_err(|e| e.to_string()),
                Err(why) => Err(why),
            };
            if let Err(why) = kept {
                tracing::warn!(message = %message.id, why, "a user's file could not be fetched; it is tried again when asked for");
            }
        }
        drop(held);
        shelf.fetching.remove(&message.id);
    }

    /// Messages of a conversation that have files.
    pub(super) async fn files_of(&self, scope: &Scope, conversation: Uuid) -> Result<Vec<Uuid>, StoreError> {
        let (mut found, mut before) = (Vec::new(), None);
        loop {
            let page = self.parts().store.messages(scope, conversation, before, PAGE).await?;
            let Some(last) = page.last() else { return Ok(found) };
            before = Some((last.message.at.micros(), last.message.id));
            found.extend(page.iter().filter(|m| words::MEDIA.contains(&m.message.kind.as_str())).map(|m| m.message.id));
        }
    }

    /// Forgets messages that came before then, and their files.
    ///
    /// # Errors
    /// The store takes nothing now.
    pub async fn forget(&self, before: Timestamp) -> Result<(), StoreError> {
        while self.parts().store.forget_messages(before, PAGE).await? {}
        let folder = self.0.shelf.folder.clone();
        let oldest = std::time::UNIX_EPOCH + Duration::from_secs(u64::try_from(before.secs()).unwrap_or_default());
        let swept = tokio::task::spawn_blocking(move || {
            let Ok(entries) = std::fs::read_dir(folder) else { return };
            for entry in entries.flatten() {
                let old = entry.metadata().and_then(|meta| meta.modified()).is_ok_and(|at| at < oldest);
                if old {
                    let _ = std::fs::remove_file(entry.path());
                }
            }
        });
        let _ = swept.await;
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
