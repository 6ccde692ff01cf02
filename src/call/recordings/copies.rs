//! Copies of recordings in a bucket: each complete file goes there once, tried again and again until it is there or the
//! recording is taken away; and what is taken away here is taken away there. A file that need not stay on the disk goes when
//! its copy's name has been written.

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

/// Where the times of callbacks give none.
const PAUSE: Duration = Duration::from_secs(60);

/// Where copies go, and what becomes of the files here.
pub struct Copies {
    bucket: Bucket,
    prefix: String,
    keep_local: bool,
    /// Whoever downloads one is sent to the bucket.
    redirect: bool,
}

impl Copies {
    /// As the configuration has it.
    pub fn new(bucket: Bucket, config: &S3Settings) -> Self {
        Self {
            bucket,
            prefix: config.prefix.clone(),
            keep_local: config.keep_local,
            redirect: config.redirect,
        }
    }

    /// The bucket, and whether whoever downloads is sent there.
    pub fn bucket(&self) -> (&Bucket, bool) {
        (&self.bucket, self.redirect)
    }
}

impl Inner {
    /// One recording goes to the bucket.
    pub(super) async fn copy(&self, copies: &Copies, recording: Recording) {
        let format = Format::from_name(&recording.format).unwrap_or(Format::Wav);
        let object = format!("{}{}", copies.prefix, record::file_name(recording.id, format));
        let (outcome, write) = match self.send(copies, &recording, format, &object).await {
            Ok(()) => (recording_copy::STORED, CopyWrite::Copied { id: recording.id, object }),
            Err(Unsent::NoFile(error)) => {
                tracing::warn!(recording = %recording.id, %error, "a recording's file is gone before it was copied");
                (recording_copy::LOST, CopyWrite::CopyFailed { id: recording.id, again: None })
            }
            Err(Unsent::Bucket(error)) => {
                let again = self.again(recording.copy_tries);
                tracing::warn!(recording = %recording.id, %error, again = %again.rfc3339(), "a recording could not be copied");
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
    ) -> Result<(), Unsent> {
        let path = self.recorder.folder().join(record::file_name(recording.id, format));
        let file = File::open(path).await.map_err(Unsent::NoFile)?;
        let len = file.metadata().await.map_err(Unsent::NoFile)?.len();
        copies.bucket.put(object, file, len, format.content_type()).await.map_err(Unsent::Bucket)
    }

    /// The copy of a recording that is gone.
    pub(super) async fn take_copy_away(&self, copies: &Copies, object: String, tries: u32) {
        let write = match copies.bucket.remove(&object).await {
            Ok(()) => CopyWrite::Removed { object },
            Err(error) => {
                let again = self.again(tries);
                tracing::warn!(object, %error, again = %again.rfc3339(), "a recording's copy could not be taken away");
                CopyWrite::RemovalFailed { object, again }
            }
        };
        self.write(write).await;
    }

    /// Whether it was written; where not, the work is done once more, and not at once.
    async fn write(&self, write: CopyWrite) -> bool {
        match self.store.recordings().write_copy(write).await {
            Ok(()) => true,
            Err(error) => {
                self.not_written(&error).await;
                false
            }
        }
    }

    /// Soon at first, then every hour, as long as there is something to copy.
    fn again(&self, tries: u32) -> Timestamp {
        let pause = next_pause(tries.saturating_add(1), Duration::ZERO, None, &self.dice);
        self.clock.wall().plus(pause.unwrap_or(PAUSE))
    }
}

enum Unsent {
    NoFile(std::io::Error),
    Bucket(BucketError),
}
