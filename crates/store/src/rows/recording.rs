use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::rows::call::Compare;
use crate::rows::callback::NewCallback;
use machine::{CallbackRequest, RecordingEndReason, TranscriptOrder};
use model::{AuthId, CallUuid, Timestamp};

/// A recording that has started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordingStart {
    pub id: Uuid,
    /// The owner and its main account, which may be the same.
    pub account: AuthId,
    pub main_account: AuthId,
    pub call: CallUuid,
    /// Name of the conference, for a recording of a room.
    pub conference: Option<String>,
    /// Id of the room, and whether it is a multi-party call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<Uuid>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub multi_party: bool,
    /// `wav` or `mp3`.
    pub format: String,
    pub stereo: bool,
    pub node_id: String,
    pub started: Timestamp,
    /// Callbacks to be sent when the recording has ended, completed with its results. They contain
    /// no secrets.
    pub notices: Vec<CallbackRequest>,
    /// The order to transcribe the recording. `None` if it is not transcribed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transcript: Option<TranscriptOrder>,
}

/// How a recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordingEnd {
    pub ended: Timestamp,
    pub duration_ms: u64,
    pub end: RecordingEndReason,
    /// Time at which to copy it to the bucket, if it is to be copied.
    pub upload: Option<Timestamp>,
    /// Time at which to transcribe it, if it is to be transcribed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transcribe: Option<Timestamp>,
}

impl RecordingEnd {
    /// Whether nothing of the recording was kept.
    pub fn is_empty(&self) -> bool {
        self.end == RecordingEndReason::Failed && self.duration_ms == 0
    }
}

/// The end of a recording and the callbacks that report it, written in one transaction.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordingConclusion {
    pub start: RecordingStart,
    pub end: RecordingEnd,
    pub callbacks: Vec<NewCallback>,
}

/// A complete recording.
#[derive(Clone, Debug, PartialEq)]
pub struct Recording {
    pub id: Uuid,
    pub call: CallUuid,
    pub conference: Option<String>,
    pub room: Option<Uuid>,
    pub multi_party: bool,
    pub format: String,
    pub started: Timestamp,
    pub ended: Timestamp,
    pub duration_ms: u64,
    /// Name of the object in the bucket, if it was copied.
    pub object: Option<String>,
    /// Number of failed copy attempts.
    pub copy_tries: u32,
}

/// The result of a request to the bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyWrite {
    /// The recording was copied to this object. The object is deleted again if the recording was
    /// deleted during the copy.
    Copied { id: Uuid, object: String },
    /// The copy failed. It is retried at `again`, or never if that is `None`.
    CopyFailed { id: Uuid, again: Option<Timestamp> },
    /// The object was deleted.
    Removed { object: String },
    /// The deletion failed and is retried at `again`.
    RemovalFailed { object: String, again: Timestamp },
}

/// The result of an attempt to transcribe a recording.
#[derive(Clone, Debug, PartialEq)]
pub enum TranscriptWrite {
    /// The transcription has ended, successfully or not. The callback is sent once.
    Done { id: Uuid, callback: Box<NewCallback> },
    /// The transcription is retried at `at`.
    Retry { id: Uuid, at: Timestamp },
}

/// A recording to be transcribed.
#[derive(Clone, Debug, PartialEq)]
pub struct TranscriptionJob {
    pub start: RecordingStart,
    pub duration_ms: u64,
    /// Number of failed transcription attempts.
    pub tries: u32,
}

/// Pending work on complete recordings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RecordingWork {
    /// Recordings to be copied to the bucket. Any requested transcription of them is done.
    pub copies: Vec<Recording>,
    /// Objects to be deleted from the bucket, each with its number of failed attempts.
    pub objects: Vec<(String, u32)>,
    pub transcripts: Vec<TranscriptionJob>,
    /// Time of the next pending work, if known.
    pub next: Option<Timestamp>,
}

/// Selects recordings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RecordingFilter {
    pub call: Option<CallUuid>,
    pub conference: Option<String>,
    /// Only recordings of a room that matches one of these.
    pub rooms: Vec<RoomFilter>,
    /// Only recordings of calls from and to these numbers.
    pub from: Option<String>,
    pub to: Option<String>,
    pub subaccount: Option<AuthId>,
    /// Conditions on the time when the recording became available.
    pub added: Vec<(Compare, Timestamp)>,
}

/// Selects the recordings of a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoomFilter {
    MultiPartyName(String),
    MultiParty(Uuid),
    Conference(Uuid),
}
