//! The prompt of `GetInput` and `GetDigits`.

use super::wait::EarlyEnd;
use crate::contract::time::millis;
use crate::contract::{Sound, SoundItem};
use crate::sounds::playlist;
use xml::ast::Prompt;

/// A stretch of the prompt of a prompt-and-keys element.
pub(super) enum PromptPart {
    /// Played without a gap.
    Sounds(Vec<SoundItem>),
    /// A `Wait` that listens: silence for `ms`, or until it has heard what it waits for.
    Quiet { ms: u64, early: EarlyEnd },
}

/// The children of a prompt-and-keys element: one playlist, but for a wait that ends by itself.
pub(super) fn parts(prompts: &[Prompt]) -> Vec<PromptPart> {
    let mut parts = Vec::new();
    for prompts in prompts.chunk_by(|a, b| quiet(a).is_none() && quiet(b).is_none()) {
        match prompts.first().and_then(quiet) {
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

fn quiet(prompt: &Prompt) -> Option<PromptPart> {
    let Prompt::Wait(wait) = prompt else { return None };
    Some(PromptPart::Quiet { ms: millis(wait.length), early: EarlyEnd::of(wait)? })
}

/// The sounds of a prompt that have to be fetched or synthesised.
pub(super) fn sounds(prompts: &[Prompt]) -> Vec<Sound> {
    let items = playlist(prompts).into_iter().map(|item| item.sound);
    items.filter(|sound| matches!(sound, Sound::Speak { .. } | Sound::File { .. })).collect()
}
