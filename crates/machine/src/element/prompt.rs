//! The prompt of `GetInput` and `GetDigits`.

use super::wait::EarlyEnd;
use crate::contract::time::millis;
use crate::contract::{Sound, SoundItem};
use crate::sounds::playlist;
use xml::ast::Prompt;

/// A part of a prompt.
pub(super) enum PromptPart {
    /// Sounds that are played without a gap.
    Sounds(Vec<SoundItem>),
    /// A `Wait` that can end early. Without an early end it lasts `ms` milliseconds.
    Wait { ms: u64, early: EarlyEnd },
}

/// Splits the children of a prompt element into parts: a playlist for each group of sounds, and the
/// waits that can end early.
pub(super) fn parts(prompts: &[Prompt]) -> Vec<PromptPart> {
    let mut parts = Vec::new();
    for prompts in prompts.chunk_by(|a, b| early_wait(a).is_none() && early_wait(b).is_none()) {
        match prompts.first().and_then(early_wait) {
            Some(wait) => parts.push(wait),
            None => {
                let items = playlist(prompts);
                if !items.is_empty() {
                    parts.push(PromptPart::Sounds(items));
                }
            }
        }
    }
    parts
}

fn early_wait(prompt: &Prompt) -> Option<PromptPart> {
    let Prompt::Wait(wait) = prompt else { return None };
    Some(PromptPart::Wait { ms: millis(wait.length), early: EarlyEnd::of(wait)? })
}

/// Returns the sounds of a prompt that must be fetched or synthesized.
pub(super) fn sounds(prompts: &[Prompt]) -> Vec<Sound> {
    let items = playlist(prompts).into_iter().map(|item| item.sound);
    items.filter(|sound| matches!(sound, Sound::Speak { .. } | Sound::File { .. })).collect()
}
