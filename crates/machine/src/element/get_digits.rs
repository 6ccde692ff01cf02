//! `GetDigits`: keys, the older form (`plivo-xml.md` §5.6).

use super::collect::{Action, Clocks, Collection, KeySet, Rules};
use super::{Flow, Stretch, millis, play, stretches};
use crate::contract::{Sound, SoundItem};
use crate::params;
use xml::ast::GetDigits;

/// `playBeep`.
pub(super) const BEEP: Sound = Sound::Tone { hz: 800, ms: 400 };

pub(super) fn start(get: &GetDigits) -> Flow {
    let mut prompt = stretches(&get.prompts);
    if get.play_beep {
        match prompt.last_mut() {
            Some(Stretch::Sounds(items)) => items.push(SoundItem::once(BEEP)),
            Some(Stretch::Quiet { .. }) | None => {
                prompt.push(Stretch::Sounds(vec![SoundItem::once(BEEP)]))
            }
        }
    }
    Flow::Collect(Box::new(Collection::new(
        rules(get),
        Clocks {
            inter_digit_ms: millis(get.digit_timeout),
            execution_ms: None,
            start_input_ms: Some(millis(get.timeout)),
        },
        get.retries,
        prompt,
        get.invalid_digits_sound.as_ref().map(|url| SoundItem::once(play::sound(url))),
        get.action.clone().map(|target| Action {
            target,
            redirect: get.redirect,
            params: params::keys_of_get_digits,
        }),
    )))
}

pub(super) fn rules(get: &GetDigits) -> Rules {
    Rules {
        hears_keys: true,
        finish: get.finish_on_key,
        count: usize::from(get.num_digits),
        valid: KeySet::of(&get.valid_digits),
        hidden: !get.log,
    }
}
