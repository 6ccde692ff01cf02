//! Commands to a speech recogniser, and its events.
//!
//! A recognition covers one attempt of a `GetInput` and has one result. The machine decides when
//! the caller has finished, based on events about the beginning and end of voice. The recogniser
//! determines the words.

use serde::{Deserialize, Serialize};

/// Identifies a recognition of a call. The first one is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RecognitionId(pub u32);

/// The settings of a recognition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecognitionSettings {
    /// A BCP 47 language tag.
    pub language: String,
    /// Phrases that the caller is likely to use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
    /// The attribute `speechModel`, unchanged.
    pub model: String,
    /// Whether interim results are requested.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub interim: bool,
    /// Whether profane words are masked except for their first letter.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub profanity_filter: bool,
    /// Whether transcripts must stay out of logs (`log="false"`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hidden: bool,
    /// Whether the document sets the silence that ends speech, so that [`SpeechEvent::Turn`] is not
    /// needed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fixed_silence: bool,
}

/// An instruction to a recogniser.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum SpeechCommand {
    /// Starts to recognise the caller's speech.
    Begin {
        #[serde(rename = "how")]
        settings: Box<RecognitionSettings>,
    },
    /// Ends the speech to be recognised. The result is reported once, by
    /// [`SpeechEvent::Understood`] or [`SpeechEvent::Failed`].
    Finish,
    /// Cancels the recognition. No report follows.
    Stop,
}

/// A report of a recogniser.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "speech", rename_all = "snake_case")]
pub enum SpeechEvent {
    /// The caller's voice begins.
    Began,
    /// The voice has lasted for 250 ms. It pauses the prompt (docs/reference/xml.md#barge-in).
    Lasting,
    /// The caller has been silent for `ago_ms`. Shorter pauses count as speech.
    Ended { ago_ms: u64 },
    /// The caller pauses. A model that heard the speech so far estimates that the caller has
    /// finished with the probability `finished`, in per cent. It is reported between `Ended` and
    /// the next `Began`, or not at all.
    Turn { finished: u8, model: String },
    /// An interim result that contains words. Two successive results differ.
    Interim {
        /// The words that were also in the previous result.
        stable: String,
        unstable: String,
        /// The share of `stable` among all words, in per cent.
        stability: u8,
    },
    /// The result. `text` is empty if there were no words; `confidence` is in per cent.
    Understood { text: String, confidence: u8 },
    /// The recognition failed.
    Failed { reason: String },
    /// No recogniser is installed or configured for the language.
    Unavailable,
}

impl SpeechEvent {
    /// Returns the event with every character of the caller's words replaced by `x`. It leads to
    /// the same decisions.
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
            | Self::Turn { .. }
            | Self::Failed { .. }
            | Self::Unavailable) => same.clone(),
        }
    }

    /// Returns the event without the caller's words, for a recognition that has ended.
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
            | Self::Turn { .. }
            | Self::Failed { .. }
            | Self::Unavailable) => same.clone(),
        }
    }
}
