//! What a call says to recorders and hears from them (`plivo-xml.md` §5.8, `plivo-call-api.md` §2.9), and what its
//! customer is told of a recording (`plivo-callbacks.md` §3.4).
//!
//! A recording is asked for, gets its id and URL by return ([`RecordFact::Ready`]), begins at once or when it is told to,
//! and comes to its end once ([`RecordFact::Ended`]). What has to be told of its end whatever becomes of the call goes
//! along with the order, since neither the call nor the node may live to see it.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::notice::{Notice, NoticeKind};
use super::param::{Param, Params};
use model::CallUuid;
use xml::ast::Target;

/// Names one recording of a call, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RecordId(pub u32);

/// A recording to be made of a leg: what is heard of its peer, and what the peer hears.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordOrder {
    /// Its id, where REST has promised one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
    /// It begins with `MediaOrder::RecordGo`; else at once.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
    /// MP3; else WAV.
    pub mp3: bool,
    /// Each side in a channel of its own.
    pub stereo: bool,
    /// Only what is heard of the peer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own: bool,
    pub max_ms: u64,
    /// The peer has said nothing for so long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silence_ms: Option<u64>,
    /// Sent when it can be downloaded, with [`recorded`] added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback: Option<Notice>,
    /// Sent like that where the call ended before the recording did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<Notice>,
    /// What is said in it is to be written down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transcript: Option<TranscriptOrder>,
}

/// What is said in a recording is to be written down when it is complete, and told there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TranscriptOrder {
    pub to: Target,
    /// With who said what when; else the words alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub full: bool,
}

/// What became of a recording.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "recording", rename_all = "snake_case")]
pub enum RecordFact {
    /// What it is, or will be, called.
    Ready { id: Uuid, url: String },
    /// Its file is complete.
    Ended {
        end: RecordEnd,
        duration_ms: u64,
        /// Of its first and last moment: milliseconds since 1970.
        start_ms: i64,
        end_ms: i64,
        /// Why it failed, if it did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
}

/// Why a recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordEnd {
    Silence,
    FinishedOnKey,
    MaxLength,
    /// The call or the leg is over.
    HungUp,
    /// By REST, or since another document took over.
    Stopped,
    /// It could not be written, or not any further.
    Failed,
}

impl RecordEnd {
    const ALL: [Self; 6] = [
        Self::Silence,
        Self::FinishedOnKey,
        Self::MaxLength,
        Self::HungUp,
        Self::Stopped,
        Self::Failed,
    ];

    /// `RecordingEndReason`. The last two are ours: Plivo has no words for them.
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

    /// The one of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|end| end.as_str() == word)
    }

    /// Small, and the same in every run of a process.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The one with that number.
    pub fn of_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|end| end.number() == number)
    }
}

/// What is told of a recording that is over: all of it but `Digits`.
pub fn recorded(
    id: Uuid,
    url: &str,
    end: RecordEnd,
    duration_ms: u64,
    start_ms: i64,
    end_ms: i64,
) -> Params {
    let mut params = named(id, url);
    for (name, value) in [
        ("RecordingDuration", duration_ms.div_ceil(1_000).to_string()),
        ("RecordingDurationMs", duration_ms.to_string()),
        ("RecordingEndMs", end_ms.to_string()),
        ("RecordingEndReason", end.as_str().to_owned()),
        ("RecordingStartMs", start_ms.to_string()),
    ] {
        params.insert(name.into(), Param::Plain(value.into()));
    }
    params
}

/// What is told of what was said in a recording (`plivo-callbacks.md` §3.4). `error`: why nothing, or not all of it, could be
/// written down; empty.
pub fn transcribed(
    order: &TranscriptOrder,
    call: CallUuid,
    id: Uuid,
    duration_ms: u64,
    text: &str,
    error: &str,
) -> Notice {
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
    Notice { kind: NoticeKind::Transcription, url, method, params: Params::from(params) }
}

/// What an action is told of a recording that has only begun: times it has none.
pub(crate) fn begun(id: Uuid, url: &str) -> Params {
    let mut params = named(id, url);
    for name in ["RecordingDuration", "RecordingDurationMs", "RecordingEndMs", "RecordingStartMs"] {
        params.insert(name.into(), Param::Plain("-1".into()));
    }
    params.insert("Digits".into(), Param::Plain("".into()));
    params
}

fn named(id: Uuid, url: &str) -> Params {
    let plain = |text: &str| Param::Plain(text.to_owned().into());
    Params::from([
        ("RecordFile".into(), plain(url)),
        ("RecordUrl".into(), plain(url)),
        ("RecordingID".into(), plain(&id.as_hyphenated().to_string())),
    ])
}

#[cfg(test)]
mod tests {
    use super::RecordEnd;

    #[test]
    fn every_end_is_found_by_its_word_and_by_its_number() {
        for end in RecordEnd::ALL {
            assert_eq!(RecordEnd::from_word(end.as_str()), Some(end));
            assert_eq!(RecordEnd::of_number(end.number()), Some(end));
        }
        assert_eq!((RecordEnd::from_word("Bored"), RecordEnd::of_number(u8::MAX)), (None, None));
    }
}
