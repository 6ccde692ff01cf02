//! `GetDigits`, the predecessor of `GetInput`: collects digits (docs/reference/xml.md#getdigits).

use super::collect::{Action, InputCollector, Timeouts};
use super::prompt::{self, PromptPart, parts};
use super::{At, Flow, Instruction, pre_answer};
use crate::activity::{Env, Readiness};
use crate::contract::time::millis;
use crate::contract::{Sound, SoundItem};
use crate::digits::{DigitSet, Rules};
use crate::params;
use crate::sounds;
use xml::ast::GetDigits;

/// The sound of `playBeep`.
pub(super) const BEEP: Sound = Sound::Tone { hz: 800, ms: 400 };

impl Instruction for GetDigits {
    fn start(&self, env: &mut Env<'_>, _: At) -> Flow {
        let mut prompt = parts(&self.prompts);
        if self.play_beep {
            match prompt.last_mut() {
                Some(PromptPart::Sounds(items)) => items.push(SoundItem::once(BEEP)),
                Some(PromptPart::Wait { .. }) | None => {
                    prompt.push(PromptPart::Sounds(vec![SoundItem::once(BEEP)]))
                }
            }
        }
        let collection = InputCollector::new(
            rules(self),
            Timeouts {
                inter_digit_ms: millis(self.digit_timeout),
                execution_ms: None,
                start_input_ms: Some(millis(self.timeout)),
            },
            self.retries,
            prompt,
            self.invalid_digits_sound.as_ref().map(|url| SoundItem::once(sounds::file_sound(url))),
            self.action.clone().map(|target| Action {
                target,
                redirect: self.redirect,
                params: params::get_digits_digits,
            }),
        );
        collection.start(env)
    }

    fn needs_media(&self) -> bool {
        true
    }

    fn takes_time(&self) -> bool {
        true
    }

    fn skip_reason(&self, _: Readiness, within_pre_answer: bool) -> Option<&'static str> {
        within_pre_answer.then_some(pre_answer::NO_AUDIO)
    }

    fn sounds(&self) -> Vec<Sound> {
        let mut all = prompt::sounds(&self.prompts);
        all.extend(self.invalid_digits_sound.as_ref().map(sounds::file_sound));
        all
    }

    fn digit_rules(&self) -> Option<Rules> {
        Some(rules(self))
    }
}

fn rules(get: &GetDigits) -> Rules {
    Rules {
        accepts_digits: true,
        finish: get.finish_on_key,
        count: usize::from(get.num_digits),
        valid: DigitSet::of(&get.valid_digits),
        hidden: !get.log,
    }
}
