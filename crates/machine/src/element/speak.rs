//! `Speak`: synthesized speech (docs/reference/xml.md#speak).

use super::{At, Flow, Instruction, playback, pre_answer};
use crate::activity::{Completion, Env, Readiness};
use crate::contract::Sound;
use crate::sounds;
use xml::ast::{Speak, Speech, SpeechNode};

impl Instruction for Speak {
    fn start(&self, env: &mut Env<'_>, _: At) -> Flow {
        match sounds::has_speech(self) {
            true => playback::start(env, sounds::speak_item(self)),
            false => Flow::Finished(Completion::done("")),
        }
    }

    fn needs_media(&self) -> bool {
        sounds::has_speech(self)
    }

    /// Text and pauses take time.
    fn takes_time(&self) -> bool {
        lasts(&self.speech)
    }

    fn skip_reason(&self, _: Readiness, within_pre_answer: bool) -> Option<&'static str> {
        within_pre_answer.then_some(pre_answer::NO_AUDIO)
    }

    fn sounds(&self) -> Vec<Sound> {
        if sounds::has_speech(self) { vec![sounds::speak_sound(self)] } else { Vec::new() }
    }
}

fn lasts(speech: &Speech) -> bool {
    speech.0.iter().any(|node| match node {
        SpeechNode::Text(text) => !text.trim().is_empty(),
        SpeechNode::Break { millis } => *millis > 0,
        // The parser limits the depth of a document (E105).
        SpeechNode::Tag { content, .. } => lasts(content),
    })
}
