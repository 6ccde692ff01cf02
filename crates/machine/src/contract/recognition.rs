//! What a call's machine wishes of a recogniser of speech, and the facts that come back.
//!
//! Who speaks when is decided here by the facts that a voice began and ended; what was said is the recogniser's
//! business. A recognition is one attempt of a `GetInput`: it hears from its beginning to its end, and gives one result.

use serde::{Deserialize, Serialize};

/// Names one recognition of a call, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RecognitionId(pub u32);

/// How to listen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listening {
    /// BCP 47.
    pub language: String,
    /// Phrases that are likely (L35).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
    /// `speechModel`, as written.
    pub model: String,
    /// Results before the end are wanted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub interim: bool,
    /// Words of a list are masked, all but their first letter.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub profanity_filter: bool,
    /// `log="false"`: what is heard stays out of logs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hidden: bool,
}

/// Orders to a recogniser.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum SpeechOrder {
    /// Hear the caller from now on.
    Begin { how: Box<Listening> },
    /// That was all: say what was said, once, by [`SpeechFact::Understood`] or [`SpeechFact::Failed`].
    Finish,
    /// It is not wanted any more; no fact follows.
    Stop,
}

/// Something about what the caller says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "speech", rename_all = "snake_case")]
pub enum SpeechFact {
    /// A voice is heard.
    Began,
    /// It has been heard for 250 ms: nobody coughs that long (`plivo-xml.md` §5.5 step 2).
    Lasting,
    /// Nothing has been said for so long; shorter pauses are part of speech.
    Ended { ago_ms: u64 },
    /// What it sounds like so far; no two in a row are alike, and none is empty.
    Interim {
        /// The words that were the same the time before.
        stable: String,
        unstable: String,
        /// The share of the first among all, per cent.
        stability: u8,
    },
    /// What was said; empty: no words. `confidence` in per cent.
    Understood { text: String, confidence: u8 },
    /// It could not be found out.
    Failed { reason: String },
    /// There is nobody to ask: the configuration names no recogniser, and none is installed.
    Unavailable,
}

impl SpeechFact {
    /// The same for the event log, where the caller's words may not stand: as many characters, which decide alike.
    pub(crate) fn masked(&self) -> Self {
        let mask = |text: &str| text.chars().map(|_| 'x').collect();
        match self {
            Self::Interim { stable, unstable, stability } => Self::Interim {
                stable: mask(stable),
                unstable: mask(unstable),
                stability: *stability,
            },
            Self::Understood { text, confidence } => {
                Self::Understood { text: mask(text), confidence: *confidence }
            }
            same @ (Self::Began
            | Self::Lasting
            | Self::Ended { .. }
            | Self::Failed { .. }
            | Self::Unavailable) => same.clone(),
        }
    }

    /// The same without any words: nobody waits for them any more.
    pub(crate) fn blank(&self) -> Self {
        match self {
            Self::Interim { stability, .. } => Self::Interim {
                stable: String::new(),
                unstable: String::new(),
                stability: *stability,
            },
            Self::Understood { confidence, .. } => {
                Self::Understood { text: String::new(), confidence: *confidence }
            }
            same @ (Self::Began
            | Self::Lasting
            | Self::Ended { .. }
            | Self::Failed { .. }
            | Self::Unavailable) => same.clone(),
        }
    }
}
