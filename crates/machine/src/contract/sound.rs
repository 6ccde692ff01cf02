//! Sounds that are played to a caller.

use serde::{Deserialize, Serialize};

use xml::ast::{DocUrl, Repeat, Speech, Voice};

/// Something to be heard. Also the key of the prompt cache.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "sound", rename_all = "snake_case")]
pub enum Sound {
    Speak {
        speech: Speech,
        voice: Voice,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        language: Option<String>,
    },
    File {
        url: DocUrl,
    },
    Silence {
        ms: u32,
    },
    Tone {
        hz: u16,
        ms: u16,
    },
}

/// One entry of a playlist.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SoundItem {
    pub sound: Sound,
    pub repeat: Repeat,
}

impl SoundItem {
    /// A sound that is heard once.
    pub fn once(sound: Sound) -> Self {
        Self { sound, repeat: Repeat::Times(1) }
    }
}

/// What REST plays beside the document (`plivo-call-api.md` §2.10, §2.11): each kind has one at a time on a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AsideKind {
    Play,
    Speak,
}

/// Sounds beside those of the document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Aside {
    pub kind: AsideKind,
    /// One after another without a gap.
    pub items: Vec<SoundItem>,
    /// All of them again and again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
    /// Over what is heard; else instead of that, which goes on unheard.
    pub mix: bool,
    /// At most so long, from the first sound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length_ms: Option<u64>,
}
