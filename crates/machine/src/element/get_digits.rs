//! `GetDigits`: keys, the older form (`plivo-xml.md` §5.6).

use super::collect::{Action, Clocks, Collection};
use super::prompt::{self, Stretch, stretches};
use super::{At, Flow, Instruction, pre_answer};
use crate::activity::{Gate, Turn};
use crate::contract::time::millis;
use crate::contract::{Sound, SoundItem};
use crate::keys::{KeySet, Rules};
use crate::params;
use crate::sounds;
use xml::ast::GetDigits;

/// `playBeep`.
pub(super) const BEEP: Sound = Sound::Tone { hz: 800, ms: 400 };

impl Instruction for GetDigits {
    fn start(&self, turn: &mut Turn<'_>, _: At) -> Flow {
        let mut prompt = stretches(&self.prompts);
        if self.play_beep {
            match prompt.last_mut() {
                Some(Stretch::Sounds(items)) => items.push(SoundItem::once(BEEP)),
                Some(Stretch::Quiet { .. }) | None => {
                    prompt.push(Stretch::Sounds(vec![SoundItem::once(BEEP)]))
                }
            }
        }
        let collection = Collection::new(
            rules(self),
            Clocks {
                inter_digit_ms: millis(self.digit_timeout),
                execution_ms: None,
                start_input_ms: Some(millis(self.timeout)),
            },
            self.retries,
            prompt,
            self.invalid_digits_sound.as_ref().map(|url| SoundItem::once(sounds::of_file(url))),
            self.action.clone().map(|target| Action {
                target,
                redirect: self.redirect,
                params: params::keys_of_get_digits,
            }),
        );
        collection.start(turn)
    }

    fn needs_media(&self) -> bool {
        true
    }

    fn takes_time(&self) -> bool {
        true
    }

    fn skip_reason(&self, _: Gate, within_pre_answer: bool) -> Option<&'static str> {
        within_pre_answer.then_some(pre_answer::UNHEARD)
    }

    fn sounds(&self) -> Vec<Sound> {
        let mut all = prompt::sounds(&self.prompts);
        all.extend(self.invalid_digits_sound.as_ref().map(sounds::of_file));
        all
    }

    fn digit_rules(&self) -> Option<Rules> {
        Some(rules(self))
    }
}

fn rules(get: &GetDigits) -> Rules {
    Rules {
        hears_keys: true,
        finish: get.finish_on_key,
        count: usize::from(get.num_digits),
        valid: KeySet::of(&get.valid_digits),
        hidden: !get.log,
    }
}
