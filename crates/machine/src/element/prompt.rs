//! The prompt of `GetInput` and `GetDigits`.

use super::wait::Early;
use crate::contract::time::millis;
use crate::contract::{Sound, SoundItem};
use crate::sounds::playlist;
use xml::ast::Prompt;

/// A stretch of the prompt of a prompt-and-keys element.
pub(super) enum Stretch {
    /// Played without a gap.
    Sounds(Vec<SoundItem>),
    /// A `Wait` that listens: silence for `ms`, or until it has heard what it waits for.
    Quiet { ms: u64, early: Early },
}

/// The children of a prompt-and-keys element: one playlist, but for a wait that ends by itself.
pub(super) fn stretches(prompts: &[Prompt]) -> Vec<Stretch> {
    let mut stretches = Vec::new();
    for prompts in prompts.chunk_by(|a, b| quiet(a).is_none() && quiet(b).is_none()) {
        match prompts.first().and_then(quiet) {
            Some(wait) => stretches.push(wait),
            None => {
                let items = playlist(prompts);
                if !items.is_empty() {
                    stretches.push(Stretch::Sounds(items));
                }
            }
        }
    }
    stretches
}

fn quiet(prompt: &Prompt) -> Option<Stretch> {
    let Prompt::Wait(wait) = prompt else { return None };
    Some(Stretch::Quiet { ms: millis(wait.length), early: Early::of(wait)? })
}

/// The sounds of a prompt that have to be fetched or synthesised.
pub(super) fn sounds(prompts: &[Prompt]) -> Vec<Sound> {
    let items = playlist(prompts).into_iter().map(|item| item.sound);
    items.filter(|sound| matches!(sound, Sound::Speak { .. } | Sound::File { .. })).collect()
}
