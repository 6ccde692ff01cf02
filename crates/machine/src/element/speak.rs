//! `Speak`: text to be said (`plivo-xml.md` §5.2).

use super::{Flow, play_item};
use crate::contract::{Sound, SoundItem};
use crate::desk::Desk;
use xml::ast::{Speak, Speech, SpeechNode};

pub(super) fn start(speak: &Speak, desk: &mut Desk) -> Flow {
    if is_heard(speak) { play_item(desk, item(speak)) } else { Flow::Next }
}

/// Whether anything is to be said at all: without text and SSML it says nothing (W306), and answers no call.
pub(super) fn is_heard(speak: &Speak) -> bool {
    !speak.speech.0.is_empty()
}

/// Whether saying it lasts: text does, and a pause.
pub(super) fn takes_time(speak: &Speak) -> bool {
    lasts(&speak.speech)
}

fn lasts(speech: &Speech) -> bool {
    speech.0.iter().any(|node| match node {
        SpeechNode::Text(text) => !text.trim().is_empty(),
        SpeechNode::Break { millis } => *millis > 0,
        // The parser bounds the depth of a document (E105).
        SpeechNode::Tag { content, .. } => lasts(content),
    })
}

pub(super) fn sound(speak: &Speak) -> Sound {
    Sound::Speak {
        speech: speak.speech.clone(),
        voice: speak.voice.clone(),
        language: speak.language.clone(),
    }
}

pub(super) fn item(speak: &Speak) -> SoundItem {
    SoundItem { sound: sound(speak), repeat: speak.repeat }
}
