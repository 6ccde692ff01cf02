//! Recordings: orders, reports, and the parameters of their callbacks.
//!
//! A recording gets an id when it is ordered ([`RecordingEvent::Ready`]), starts immediately or on
//! command, and ends once ([`RecordingEvent::Ended`]). Its order contains the callbacks that report
//! its end. They are sent even if the call or the node ends first.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::callback::{CallbackKind, CallbackRequest};
use super::param::{Param, Params};
use model::CallUuid;
use xml::ast::Target;

/// Identifies a recording of a call. The first one is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RecordingId(pub u32);

/// An order for a recording of a leg or of a room.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordingOrder {
    /// The id that the REST API has returned, if the recording was ordered there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
    /// Whether the recording waits for
    /// [`MediaCommand::RecordStart`](super::MediaCommand::RecordStart) before it starts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
    /// Whether the file is MP3. Otherwise it is WAV.
    pub mp3: bool,
    /// Whether each side has its own channel.
    pub stereo: bool,
    /// Whether only the audio from the peer is recorded, without the audio to the peer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not", rename = "own")]
    pub peer_only: bool,
    /// Maximum duration, in milliseconds.
    pub max_ms: u64,
    /// Silence of the peer that ends the recording, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silence_ms: Option<u64>,
    /// The callback that is sent when the file can be downloaded, with [`recording_params`] added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback: Option<CallbackRequest>,
    /// A callback that is sent like `callback`, but only if the call ended before the recording.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<CallbackRequest>,
    /// The order for a transcript, which is made when the file is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transcript: Option<TranscriptOrder>,
}

/// An order for the transcript of a recording.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TranscriptOrder {
    /// The URL to which the transcript is sent.
    pub to: Target,
    /// Whether the transcript includes speakers and times. Otherwise it is plain text.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub full: bool,
}

/// A report about a recording.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "recording", rename_all = "snake_case")]
pub enum RecordingEvent {
    /// The recording has an id and a URL. Its file may not exist yet.
    Ready { id: Uuid, url: String },
    /// The file is complete.
    Ended {
        #[serde(rename = "end")]
        reason: RecordingEndReason,
        duration_ms: u64,
        /// The times of the first and the last sample, in milliseconds since 1970.
        start_ms: i64,
        end_ms: i64,
        /// The reason why the recording failed. `None` if it did not fail.
        #[serde(default, skip_serializing_if = "Option::is_none", rename = "why")]
        error: Option<String>,
    },
}

/// The reason why a recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordingEndReason {
    /// The peer was silent for the time specified in the order.
    Silence,
    /// A digit of `finishOnKey` was pressed.
    FinishedOnKey,
    /// The maximum duration was reached.
    MaxLength,
    /// The leg or the call ended.
    HungUp,
    /// The REST API stopped the recording, or another document replaced the one that ordered it.
    Stopped,
    /// The recording could not be written completely.
    Failed,
}

impl RecordingEndReason {
    const ALL: [Self; 6] = [
        Self::Silence,
        Self::FinishedOnKey,
        Self::MaxLength,
        Self::HungUp,
        Self::Stopped,
        Self::Failed,
    ];

    /// Returns the parameter `RecordingEndReason`. Plivo defines no value for the last two variants.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Silence => "Silence",
            Self::FinishedOnKey => "FinishedOnKey",
            Self::MaxLength => "MaxLength",
            Self::HungUp => "HungUp",
            Self::Stopped => "Stopped",
            Self::Failed => "Failed",
        }
    }

    /// Returns the reason with this [`as_str`](Self::as_str), or `None` if there is none.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word)
    }

    /// Returns a small number that identifies the reason, for example in an atomic variable.
    #[allow(clippy::as_conversions, reason = "the discriminant of a fieldless enum")]
    pub fn number(self) -> u8 {
        self as u8
    }

    /// Returns the reason with this [`number`](Self::number), or `None` if there is none.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.number() == number)
    }
}

/// Returns the parameters that report the end of a recording, except `Digits`
/// (docs/reference/callbacks.md#record).
pub fn recording_params(
    id: Uuid,
    url: &str,
    reason: RecordingEndReason,
    duration_ms: u64,
    start_ms: i64,
    end_ms: i64,
) -> Params {
    let mut params = names(id, url);
    for (name, value) in [
        ("RecordingDuration", duration_ms.div_ceil(1_000).to_string()),
        ("RecordingDurationMs", duration_ms.to_string()),
        ("RecordingEndMs", end_ms.to_string()),
        ("RecordingEndReason", reason.as_str().to_owned()),
        ("RecordingStartMs", start_ms.to_string()),
    ] {
        params.insert(name.into(), Param::Plain(value.into()));
    }
    params
}

/// Returns the callback with a transcript (docs/reference/callbacks.md#transcription).
///
/// `error` is the reason why the transcript is missing or incomplete. It is empty otherwise.
pub fn transcription_callback(
    order: &TranscriptOrder,
    call: CallUuid,
    id: Uuid,
    duration_ms: u64,
    text: &str,
    error: &str,
) -> CallbackRequest {
    let params = [
        ("transcription", text.to_owned()),
        ("transcription_charge", "0".to_owned()),
        ("transcription_rate", "0".to_owned()),
        ("duration", duration_ms.div_ceil(1_000).to_string()),
        ("call_uuid", call.to_string()),
        ("recording_id", id.as_hyphenated().to_string()),
        ("error", error.to_owned()),
    ];
    let params = params.map(|(name, value)| (name.into(), Param::Plain(value.into())));
    let Target { url, method } = order.to.clone();
    CallbackRequest { kind: CallbackKind::Transcription, url, method, params: Params::from(params) }
}

/// Returns the parameters that report the start of a recording. Its times and durations are -1.
pub(crate) fn started_params(id: Uuid, url: &str) -> Params {
    let mut params = names(id, url);
    for name in ["RecordingDuration", "RecordingDurationMs", "RecordingEndMs", "RecordingStartMs"] {
        params.insert(name.into(), Param::Plain("-1".into()));
    }
    params.insert("Digits".into(), Param::Plain("".into()));
    params
}

fn names(id: Uuid, url: &str) -> Params {
    let plain = |text: &str| Param::Plain(text.to_owned().into());
    Params::from([
        ("RecordFile".into(), plain(url)),
        ("RecordUrl".into(), plain(url)),
        ("RecordingID".into(), plain(&id.as_hyphenated().to_string())),
    ])
}

#[cfg(test)]
mod tests {
    use super::RecordingEndReason;

    #[test]
    fn parses_every_end_reason_by_its_word_and_by_its_number() {
        for reason in RecordingEndReason::ALL {
            assert_eq!(RecordingEndReason::parse(reason.as_str()), Some(reason));
            assert_eq!(RecordingEndReason::from_number(reason.number()), Some(reason));
        }
        assert_eq!(RecordingEndReason::parse("Bored"), None);
        assert_eq!(RecordingEndReason::from_number(u8::MAX), None);
    }
}
