//! Files that are sent to users: the types WhatsApp accepts, and the upload to Meta. A file is
//! buffered on disk as an unlinked file, so that nothing remains after a crash. The number of
//! concurrent uploads is limited.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use tokio::fs::File;
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};

use super::{Inbox, Outgoing, words};
use crate::meta::Upload;
use machine::GraphOutcome;
use store::{Conversation, Pair, StoreError, UploadRow};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// The time limit for receiving one file from the client.
const COMING: Duration = Duration::from_secs(120);
/// How long Meta keeps an uploaded file.
const AT_META: Duration = Duration::from_secs(30 * 86_400);
/// How long an upload waits for the store to record the file's type.
const NOTING: Duration = Duration::from_secs(2);
/// The largest number of concurrent uploads.
pub(super) const UPLOADS: usize = 4;

/// A media type and its limits.
#[derive(Debug, PartialEq, Eq)]
pub struct FileKind {
    pub mime: &'static str,
    /// The type of message that carries such files.
    pub kind: &'static str,
    pub bytes_max: u64,
}

const fn of(mime: &'static str, kind: &'static str, bytes_max: u64) -> FileKind {
    FileKind { mime, kind, bytes_max }
}

/// The media types that Meta's Cloud API supports, with their maximum sizes.
pub const FILES: &[FileKind] = &[
    of("image/jpeg", "image", 5 * MIB),
    of("image/png", "image", 5 * MIB),
    of("image/webp", "sticker", 500 * KIB),
    of("audio/aac", "audio", 16 * MIB),
    of("audio/amr", "audio", 16 * MIB),
    of("audio/mpeg", "audio", 16 * MIB),
    of("audio/mp4", "audio", 16 * MIB),
    of("audio/ogg", "audio", 16 * MIB),
    of("video/mp4", "video", 16 * MIB),
    of("video/3gpp", "video", 16 * MIB),
    of("text/plain", "document", 100 * MIB),
    of("application/pdf", "document", 100 * MIB),
    of("application/msword", "document", 100 * MIB),
    of("application/vnd.ms-excel", "document", 100 * MIB),
    of("application/vnd.ms-powerpoint", "document", 100 * MIB),
    of(
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "document",
        100 * MIB,
    ),
    of("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", "document", 100 * MIB),
    of(
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
pub enum NotUploaded {
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

impl Inbox {
    /// Uploads a file to Meta for messages of this conversation's number. Returns Meta's media id
    /// and the size in bytes.
    ///
    /// # Errors
    /// See [`NotUploaded`]. Nothing of the file is kept.
    pub async fn upload<E>(
        &self,
        conversation: &Conversation,
        kind: &FileKind,
        filename: &str,
        pieces: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> Result<(String, u64), NotUploaded> {
        let number = self.number_of(&conversation.pair).ok_or(NotUploaded::NoNumber)?;
        let _place = self.0.shelf.uploads.try_acquire().map_err(|_| NotUploaded::TooMany)?;
        let mut file = self.0.shelf.nameless().await.map_err(NotUploaded::Disk)?;
        let came = tokio::time::timeout(COMING, take_in(pieces, &mut file, kind.bytes_max)).await;
        let bytes = came.map_err(|_| NotUploaded::Slow)??;
        file.rewind().await.map_err(NotUploaded::Disk)?;
        let upload = Upload { file, bytes, mime: kind.mime, filename };
        let (id, token) = (&number.spec.phone_number_id, number.spec.access_token.as_ref());
        let media =
            self.parts().graph.upload(id, token, upload).await.map_err(NotUploaded::Meta)?;
        self.note_upload(&conversation.pair, &media, kind).await;
        Ok((media, bytes))
    }

    /// Records the type of an uploaded file, so that messages that name only its media id can show
    /// it. The upload has succeeded already: if the store fails, such messages lack the type.
    async fn note_upload(&self, pair: &Pair, media: &str, kind: &FileKind) {
        let (account, made) = (pair.account.clone(), self.parts().clock.wall());
        let row = UploadRow { account, media: media.to_owned(), mime: kind.mime.to_owned(), made };
        let Some(noted) = self.parts().store.uploads().put(row) else { return };
        if !matches!(tokio::time::timeout(NOTING, noted).await, Ok(Ok(_))) {
            tracing::warn!("type of an uploaded file not recorded; messages will lack it");
        }
    }

    /// Adds the media type to a message that names an uploaded file by its media id.
    pub(super) async fn tell_type(
        &self,
        pair: &Pair,
        outgoing: &mut Outgoing,
    ) -> Result<(), StoreError> {
        let Some(media) = words::media_id(&outgoing.content, &outgoing.kind) else { return Ok(()) };
        let found = self.parts().store.uploads().media_type(&pair.account, media).await?;
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
    pub async fn forget_uploads(&self) -> Result<(), StoreError> {
        self.parts().store.uploads().delete_older(self.parts().clock.wall().minus(AT_META)).await
    }
}

/// Writes a body to `file`, and returns its size in bytes.
async fn take_in<E>(
    mut pieces: impl Stream<Item = Result<Bytes, E>> + Unpin,
    file: &mut File,
    bytes_max: u64,
) -> Result<u64, NotUploaded> {
    let mut bytes = 0;
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|_| NotUploaded::Broken)?;
        bytes += u64::try_from(piece.len()).unwrap_or(u64::MAX);
        if bytes > bytes_max {
            return Err(NotUploaded::TooLarge);
        }
        file.write_all(&piece).await.map_err(NotUploaded::Disk)?;
    }
    file.flush().await.map_err(NotUploaded::Disk)?;
    if bytes == 0 { Err(NotUploaded::Empty) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_files_type_says_which_message_holds_it() {
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
    async fn r14_a_file_is_counted_while_it_comes() {
        let pieces = |sizes: &'static [usize]| {
            futures_util::stream::iter(
                sizes.iter().map(|size| Ok::<_, ()>(Bytes::from(vec![7; *size]))),
            )
        };
        let dir = tempfile::tempdir().unwrap();
        let mut file = File::create(dir.path().join("f")).await.unwrap();
        assert!(matches!(take_in(pieces(&[3, 4]), &mut file, 7).await, Ok(7)));
        assert!(matches!(take_in(pieces(&[3, 5]), &mut file, 7).await, Err(NotUploaded::TooLarge)));
        assert!(matches!(take_in(pieces(&[]), &mut file, 7).await, Err(NotUploaded::Empty)));
        let broken = futures_util::stream::iter([Ok(Bytes::from_static(b"x")), Err(())]);
        assert!(matches!(take_in(broken, &mut file, 7).await, Err(NotUploaded::Broken)));
    }
}
