//! Copies of recordings in an S3 bucket. Each complete file is uploaded once, with retries until it
//! succeeds or the recording is deleted. Deleting a recording deletes its copy. If the local file
//! need not be kept, it is deleted after the name of the copy is stored.

use std::time::Duration;

use tokio::fs::File;

use super::Inner;
use crate::answer::next_pause;
use crate::objects::S3Settings;
use crate::objects::{Bucket, BucketError};
use media::record::{self, Format};
use model::Timestamp;
use model::metric::{self, recording_copy};
use store::{CopyWrite, Recording};

/// Pause when the retry schedule has no further entry.
const PAUSE: Duration = Duration::from_secs(60);

/// The bucket for copies and the handling of local files.
pub struct Copies {
    bucket: Bucket,
    prefix: String,
    keep_local: bool,
    /// Whether downloads are redirected to the bucket.
    redirect: bool,
}

impl Copies {
    /// Creates the value from the configuration.
    pub fn new(bucket: Bucket, config: &S3Settings) -> Self {
        Self {
            bucket,
            prefix: config.prefix.clone(),
            keep_local: config.keep_local,
            redirect: config.redirect,
        }
    }

    /// Whether the local file is kept when its copy is complete.
    pub(super) fn keeps_local(&self) -> bool {
        self.keep_local
    }

    /// Returns the bucket, and whether downloads are redirected to it.
    pub fn bucket(&self) -> (&Bucket, bool) {
        (&self.bucket, self.redirect)
    }
}

impl Inner {
    /// Uploads one recording to the bucket.
    pub(super) async fn copy(&self, copies: &Copies, recording: Recording) {
        let format = Format::from_name(&recording.format).unwrap_or(Format::Wav);
        let object = format!("{}{}", copies.prefix, record::file_name(recording.id, format));
        let (outcome, write) = match self.send(copies, &recording, format, &object).await {
            Ok(()) => (recording_copy::STORED, CopyWrite::Copied { id: recording.id, object }),
            Err(UploadError::NoFile(error)) => {
                tracing::warn!(recording = %recording.id, %error, "recording file missing, not copied");
                (recording_copy::LOST, CopyWrite::CopyFailed { id: recording.id, again: None })
            }
            Err(UploadError::Bucket(error)) => {
                let again = self.again(recording.copy_tries);
                tracing::warn!(recording = %recording.id, %error, again = %again.rfc3339(), "recording upload failed");
                (
                    recording_copy::RETRY,
                    CopyWrite::CopyFailed { id: recording.id, again: Some(again) },
                )
            }
        };
        metrics::counter!(metric::RECORDING_COPIES_TOTAL, "outcome" => outcome).increment(1);
        if self.write(write).await && outcome == recording_copy::STORED && !copies.keep_local {
            self.unlink(recording.id, format);
        }
    }

    async fn send(
        &self,
        copies: &Copies,
        recording: &Recording,
        format: Format,
        object: &str,
    ) -> Result<(), UploadError> {
        let path = self.recorder.folder().join(record::file_name(recording.id, format));
        let file = File::open(path).await.map_err(UploadError::NoFile)?;
        let len = file.metadata().await.map_err(UploadError::NoFile)?.len();
        let uploaded = async {
            copies.bucket.put(object, file, len, format.content_type()).await?;
            // A proxy in between may have accepted it. Without the local file, it would be lost.
            if copies.keep_local {
                return Ok(());
            }
            copies.bucket.check_stored(object, len).await
        };
        uploaded.await.map_err(UploadError::Bucket)
    }

    /// Deletes the copy of a deleted recording.
    pub(super) async fn delete_copy(&self, copies: &Copies, object: String, tries: u32) {
        let write = match copies.bucket.remove(&object).await {
            Ok(()) => CopyWrite::Removed { object },
            Err(error) => {
                let again = self.again(tries);
                tracing::warn!(object, %error, again = %again.rfc3339(), "deleting a recording copy failed");
                CopyWrite::RemovalFailed { object, again }
            }
        };
        self.write(write).await;
    }

    /// Stores the result. Returns `false` after a pause if the store failed; the work is then
    /// repeated.
    async fn write(&self, write: CopyWrite) -> bool {
        match self.store.recordings().write_copy(write).await {
            Ok(()) => true,
            Err(error) => {
                self.not_written(&error).await;
                false
            }
        }
    }

    /// Returns the time of the next try. Pauses grow to one hour, and tries are unlimited.
    fn again(&self, tries: u32) -> Timestamp {
        let pause = next_pause(tries.saturating_add(1), Duration::ZERO, None, &self.random);
        self.clock.wall().plus(pause.unwrap_or(PAUSE))
    }
}

enum UploadError {
    NoFile(std::io::Error),
    Bucket(BucketError),
}
