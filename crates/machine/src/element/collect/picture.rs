//! A collection, drawn. Keys that must stay out of logs are `x`.

use super::{Collection, Phase};
use crate::picture::{Sketch, text, word};

impl Collection {
    pub(crate) fn draw(&self, sketch: &mut Sketch) {
        let line = match self.phase {
            Phase::Prompt(play) => [word("prompt_or_key"), text(play.0)],
            Phase::Quiet { .. } => [word("prompts_pause"), text("")],
            Phase::Listening => [word("input"), text("")],
            Phase::Transcribing => [word("what_was_said"), text("")],
            Phase::Invalid(play) => [word("invalid_sound"), text(play.0)],
        };
        sketch.say("waits_for", line);
        if !self.digits.is_empty() {
            let digits =
                if self.secret { "x".repeat(self.digits.len()) } else { self.digits.clone() };
            sketch.say("digits", [text(digits)]);
        }
        if self.hearing.as_ref().is_some_and(super::Hearing::has_begun) {
            sketch.say("digits", [word("speech_heard")]);
        }
        sketch.say("digits", [word("attempts_left"), text(self.attempts_left)]);
    }
}
