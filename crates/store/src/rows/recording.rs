use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::rows::call::Compare;
use crate::rows::callback::NewCallback;
use machine::{CallbackRequest, RecordingEndReason, TranscriptOrder};
use model::{AuthId, CallUuid, Timestamp};

/// A recording that begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordingStart {
    pub id: Uuid,
    /// The owner, and its main account.
    pub account: AuthId,
    pub main_account: AuthId,
    pub call: CallUuid,
    /// Of a room's recording.
    pub conference: Option<String>,
    /// That room, and whether it is a multi-party call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<Uuid>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub multi_party: bool,
    /// `wav` or `mp3`.
    pub format: String,
    pub stereo: bool,
    pub node_id: String,
    pub started: Timestamp,
    /// What is sent when it has ended, with what there is to say of it added. They hold no secret.
    pub notices: Vec<CallbackRequest>,
    /// What is said in it is to be written down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transcript: Option<TranscriptOrder>,
}

/// How a recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordingEnd {
    pub ended: Timestamp,
    pub duration_ms: u64,
    pub end: RecordingEndReason,
    /// When it is to be copied to other storage, if it is.
    pub upload: Option<Timestamp>,
    /// When what is said in it is to be written down, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transcribe: Option<Timestamp>,
}

/// The end of a recording with all that reports it: one transaction.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordingConclusion {
    pub start: RecordingStart,
    pub end: RecordingEnd,
    pub callbacks: Vec<NewCallback>,
}

/// A recording that is complete.
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
    /// What it is called in other storage, if it is there.
    pub object: Option<String>,
    /// How often it could not be copied there.
    pub copy_tries: u32,
}

/// What there is to write of other storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyWrite {
    /// The recording is there, under this name. One that was taken away meanwhile is not to stay.
    Copied { id: Uuid, object: String },
    /// It could not be copied, and is to be then; or never.
    Failed { id: Uuid, again: Option<Timestamp> },
    /// An object that was to be taken away is gone.
    Removed { object: String },
    /// It could not be taken away, and is to be then.
    Kept { object: String, again: Timestamp },
}

/// What became of a try to write down what is said in a recording.
#[derive(Clone, Debug, PartialEq)]
pub enum TranscriptWrite {
    /// It is over, whatever came of it; told once.
    Done { id: Uuid, callback: Box<NewCallback> },
    /// It is to be tried again then.
    Again { id: Uuid, at: Timestamp },
}

/// A recording in which what is said is to be written down.
#[derive(Clone, Debug, PartialEq)]
pub struct ToTranscribe {
    pub start: RecordingStart,
    pub duration_ms: u64,
    /// How often it could not be.
    pub tries: u32,
}

/// What is to be done about complete recordings by now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RecordingWork {
    /// To be copied to other storage. What is said in them has been written down, where that is wanted.
    pub copies: Vec<Recording>,
    /// To be taken away there, and how often that has failed.
    pub objects: Vec<(String, u32)>,
    pub transcripts: Vec<ToTranscribe>,
    /// When there is more, if that is known.
    pub next: Option<Timestamp>,
}

/// Which recordings are asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RecordingFilter {
    pub call: Option<CallUuid>,
    pub conference: Option<String>,
    /// By the room: its name, its id, and whether it is a multi-party call.
    pub rooms: Vec<RoomFilter>,
    /// Of calls from and to these numbers.
    pub from: Option<String>,
    pub to: Option<String>,
    pub subaccount: Option<AuthId>,
    /// When it was there.
    pub added: Vec<(Compare, Timestamp)>,
}

/// Which room's recordings are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoomFilter {
    MultiPartyName(String),
    MultiParty(Uuid),
    Conference(Uuid),
}
