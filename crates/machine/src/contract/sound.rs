//! Sounds that are played to a caller.

use serde::{Deserialize, Serialize};

use xml::ast::{DocUrl, Repeat, Speech, Voice};

/// A sound. It is also the key of the prompt cache.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "sound", rename_all = "snake_case")]
pub enum Sound {
    /// Synthesised speech.
    Speak {
        speech: Speech,
        voice: Voice,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        language: Option<String>,
    },
    /// An audio file.
    File {
        url: DocUrl,
    },
    Silence {
        ms: u32,
    },
    /// A sine tone.
    Tone {
        hz: u16,
        ms: u16,
    },
}

/// An item of a playlist.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SoundItem {
    pub sound: Sound,
    pub repeat: Repeat,
}

impl SoundItem {
    /// Returns an item that is played once.
    pub fn once(sound: Sound) -> Self {
        Self { sound, repeat: Repeat::Times(1) }
    }
}

/// The kind of a REST request that plays an overlay. A leg plays one overlay of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OverlayKind {
    Play,
    Speak,
}

/// Sounds that the REST API plays beside those of the document (docs/reference/rest.md#play).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Overlay {
    pub kind: OverlayKind,
    /// The sounds, which are played one after the other without gaps.
    pub items: Vec<SoundItem>,
    /// Whether all items are repeated until the overlay is stopped.
    #[serde(default, skip_serializing_if = "std::ops::Not::not", rename = "again")]
    pub repeat: bool,
    /// Whether the sounds are mixed with those of the document. Otherwise the sounds of the
    /// document continue inaudibly.
    pub mix: bool,
    /// Maximum duration in milliseconds, measured from the first sound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length_ms: Option<u64>,
}
