//! The voice of a prompt, as the event log of a call names it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The engine and the voice that spoke a prompt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PromptVoice {
    /// `neural`, `builtin`, `espeak` or `openai`.
    pub engine: String,
    /// The engine's own name of the voice.
    pub voice: String,
    /// The language of the text, a BCP 47 tag.
    pub language: String,
}

impl fmt::Display for PromptVoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { engine, voice, language } = self;
        match voice == language {
            true => write!(f, "{engine} {language}"),
            false => write!(f, "{engine} {voice}, {language}"),
        }
    }
}
