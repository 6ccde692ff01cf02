//! Files that are sent to users: the types WhatsApp accepts, and the upload to Meta. A file is
//! buffered on disk as an unlinked file, so that nothing remains after a crash. The number of
//! concurrent uploads is limited.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use tokio::fs::File;
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};

use super::media_cache::MediaFolder;
use super::numbers::ServedNumbers;
use super::{Outgoing, words};
use crate::disk_space::{Content, DiskSpace};
use crate::limiter::Shares;
use crate::meta::{Graph, Upload};
use machine::GraphOutcome;
use model::{AuthId, Clock};
use store::{Conversation, Pair, Store, StoreError, UploadRow};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// The time limit for receiving one file from the client.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(120);
/// How long Meta keeps an uploaded file.
const META_RETENTION: Duration = Duration::from_secs(30 * 86_400);
/// How long an upload waits for the store to record the file's type.
const RECORD_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum number of concurrent uploads of a main account.
const ACCOUNT_UPLOADS_MAX: usize = 4;
/// Maximum number of concurrent uploads of the node.
const UPLOADS_MAX: usize = 16;

/// A media type and its limits.
#[derive(Debug, PartialEq, Eq)]
pub struct FileKind {
    pub mime: &'static str,
    /// The type of message that carries such files.
    pub kind: &'static str,
    pub bytes_max: u64,
}

const fn file_kind(mime: &'static str, kind: &'static str, bytes_max: u64) -> FileKind {
    FileKind { mime, kind, bytes_max }
}

/// The media types that Meta's Cloud API supports, with their maximum sizes.
pub const FILES: &[FileKind] = &[
    file_kind("image/jpeg", "image", 5 * MIB),
    file_kind("image/png", "image", 5 * MIB),
    file_kind("image/webp", "sticker", 500 * KIB),
    file_kind("audio/aac", "audio", 16 * MIB),
    file_kind("audio/amr", "audio", 16 * MIB),
    file_kind("audio/mpeg", "audio", 16 * MIB),
    file_kind("audio/mp4", "audio", 16 * MIB),
    file_kind("audio/ogg", "audio", 16 * MIB),
    file_kind("video/mp4", "video", 16 * MIB),
    file_kind("video/3gpp", "video", 16 * MIB),
    file_kind("text/plain", "document", 100 * MIB),
    file_kind("application/pdf", "document", 100 * MIB),
    file_kind("application/msword", "document", 100 * MIB),
    file_kind("application/vnd.ms-excel", "document", 100 * MIB),
    file_kind("application/vnd.ms-powerpoint", "document", 100 * MIB),
    file_kind(
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "document",
        100 * MIB,
    ),
    file_kind(
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "document",
        100 * MIB,
    ),
    file_kind(
        "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        "document",
        100 * MIB,
    ),
];

impl FileKind {
    /// Looks up the value of a `Content-Type` header. Parameters are ignored.
    pub fn of(content_type: &str) -> Option<&'static Self> {
        let bare = content_type.split(';').next().unwrap_or_default().trim();
        FILES.iter().find(|file| file.mime.eq_ignore_ascii_case(bare))
    }
}

/// The reason why a file was not uploaded.
#[derive(Debug)]
pub enum UploadError {
    /// The conversation's number is no longer served.
    NoNumber,
    /// The limit of concurrent uploads is reached.
    TooMany,
    TooLarge,
    Empty,
    /// The client's body broke off.
    Broken,
    Slow,
    Disk(std::io::Error),
    Meta(GraphOutcome),
}

/// Uploads files to Meta.
pub struct Uploads {
    pub(super) store: Store,
    pub(super) graph: Arc<Graph>,
    pub(super) clock: Clock,
    pub(super) numbers: Arc<ServedNumbers>,
    pub(super) folder: MediaFolder,
    pub(super) space: Arc<DiskSpace>,
    /// Uploads in progress, by main account.
    pub(super) shares: Shares<AuthId>,
}

impl Uploads {
    /// The limits of concurrent uploads.
    pub(super) fn limits() -> Shares<AuthId> {
        Shares::new(ACCOUNT_UPLOADS_MAX, UPLOADS_MAX)
    }

    /// Uploads a file to Meta for messages of this conversation's number. Returns Meta's media id
    /// and the size in bytes.
    ///
    /// # Errors
    /// See [`UploadError`]. Nothing of the file is kept.
    pub async fn upload<E>(
        &self,
        conversation: &Conversation,
        kind: &FileKind,
        filename: &str,
        chunks: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> Result<(String, u64), UploadError> {
        let number = self.numbers.number_of(&conversation.pair).ok_or(UploadError::NoNumber)?;
        let account = conversation.pair.main_account.clone();
        let _share = self.shares.take(account.clone()).ok_or(UploadError::TooMany)?;
        let mut space = self.space.temporary_file(Content::UserFile, account);
        space.reserve(0).map_err(UploadError::Disk)?;
        let mut file = self.folder.unlinked_file().await.map_err(UploadError::Disk)?;
        let received = receive(chunks, &mut file, kind.bytes_max, |bytes| space.reserve(bytes));
        let received = tokio::time::timeout(RECEIVE_TIMEOUT, received).await;
        let bytes = received.map_err(|_| UploadError::Slow)??;
        file.rewind().await.map_err(UploadError::Disk)?;
        let upload = Upload { file, bytes, mime: kind.mime, filename };
        let (id, token) = (&number.spec.phone_number_id, number.spec.access_token.as_ref());
        let media = self.graph.files(id, token).upload(upload).await.map_err(UploadError::Meta)?;
        self.record_upload(&conversation.pair, &media, kind).await;
        Ok((media, bytes))
    }

    /// Records the type of an uploaded file, so that messages that name only its media id can show
    /// it. The upload has already succeeded, so a failure of the store is only logged. Such
    /// messages then lack the type.
    async fn record_upload(&self, pair: &Pair, media: &str, kind: &FileKind) {
        let (account, made) = (pair.account.clone(), self.clock.wall());
        let row = UploadRow { account, media: media.to_owned(), mime: kind.mime.to_owned(), made };
        let Some(noted) = self.store.uploads().put(row) else { return };
        if !matches!(tokio::time::timeout(RECORD_TIMEOUT, noted).await, Ok(Ok(_))) {
            tracing::warn!("type of an uploaded file not recorded; messages will lack it");
        }
    }

    /// Adds the media type to a message that names an uploaded file by its media id.
    pub(super) async fn add_media_type(
        &self,
        pair: &Pair,
        outgoing: &mut Outgoing,
    ) -> Result<(), StoreError> {
        let Some(media) = words::media_id(&outgoing.content, &outgoing.kind) else { return Ok(()) };
        let found = self.store.uploads().media_type(&pair.account, media).await?;
        let file =
            outgoing.content.get_mut(&outgoing.kind).and_then(serde_json::Value::as_object_mut);
        if let (Some(mime), Some(file)) = (found, file) {
            file.entry("mime_type").or_insert_with(|| mime.into());
        }
        Ok(())
    }

    /// Deletes the records of files that Meta no longer keeps.
    ///
    /// # Errors
    /// Returns an error if the store rejects the write.
    pub async fn forget(&self) -> Result<(), StoreError> {
        let before = self.clock.wall().minus(META_RETENTION);
        self.store.uploads().delete_older(before).await
    }
}

/// Writes a body to `file`, and returns its size in bytes. `reserve` is called with the size before
/// the file grows.
async fn receive<E>(
    mut chunks: impl Stream<Item = Result<Bytes, E>> + Unpin,
    file: &mut File,
    bytes_max: u64,
    mut reserve: impl FnMut(u64) -> std::io::Result<()>,
) -> Result<u64, UploadError> {
    let mut bytes = 0;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| UploadError::Broken)?;
        bytes += u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        if bytes > bytes_max {
            return Err(UploadError::TooLarge);
        }
        reserve(bytes).map_err(UploadError::Disk)?;
        file.write_all(&chunk).await.map_err(UploadError::Disk)?;
    }
    file.flush().await.map_err(UploadError::Disk)?;
    if bytes == 0 { Err(UploadError::Empty) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_media_type_decides_the_message_type() {
        let kind = |mime: &str| FileKind::of(mime).map(|file| (file.kind, file.bytes_max));
        assert_eq!(kind("IMAGE/PNG"), Some(("image", 5 * MIB)));
        assert_eq!(kind("audio/ogg; codecs=opus"), Some(("audio", 16 * MIB)));
        assert_eq!(kind("application/pdf"), Some(("document", 100 * MIB)));
        for no in ["", "text/html", "image/gif", "image/svg+xml", "application/octet-stream", "png"]
        {
            assert_eq!(kind(no), None, "{no}");
        }
        let known = |file: &FileKind| crate::inbox::words::MEDIA.contains(&file.kind);
        assert!(FILES.iter().all(|file| known(file) && FileKind::of(file.mime) == Some(file)));
    }

    #[tokio::test]
    async fn r14_limits_the_size_of_a_file_while_receiving() {
        let pieces = |sizes: &'static [usize]| {
            futures_util::stream::iter(
                sizes.iter().map(|size| Ok::<_, ()>(Bytes::from(vec![7; *size]))),
            )
        };
        let dir = tempfile::tempdir().unwrap();
        let mut file = File::create(dir.path().join("f")).await.unwrap();
        assert!(matches!(receive(pieces(&[3, 4]), &mut file, 7, |_| Ok(())).await, Ok(7)));
        let large = receive(pieces(&[3, 5]), &mut file, 7, |_| Ok(())).await;
        assert!(matches!(large, Err(UploadError::TooLarge)));
        let empty = receive(pieces(&[]), &mut file, 7, |_| Ok(())).await;
        assert!(matches!(empty, Err(UploadError::Empty)));
        let full = |bytes| match bytes {
            7 => Err(std::io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        };
        let refused = receive(pieces(&[3, 4]), &mut file, 7, full).await;
        assert!(matches!(refused, Err(UploadError::Disk(_))));
        let broken = futures_util::stream::iter([Ok(Bytes::from_static(b"x")), Err(())]);
        assert!(matches!(
            receive(broken, &mut file, 7, |_| Ok(())).await,
            Err(UploadError::Broken)
        ));
    }
}
