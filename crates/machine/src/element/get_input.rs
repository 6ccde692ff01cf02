//! `GetInput`: collects digits, speech, or whichever starts first (docs/reference/xml.md#getinput).

use super::collect::{Action, InputCollector, Timeouts};
use super::prompt::{self, parts};
use super::speech_input::SpeechInput;
use super::{At, Flow, Instruction};
use crate::activity::Env;
use crate::contract::time::millis;
use crate::contract::{RecognitionSettings, Sound};
use crate::digits::{DigitSet, Rules};
use crate::params;
use xml::ast::{GetInput, InputType, Position};

impl Instruction for GetInput {
    fn start(&self, env: &mut Env<'_>, at: At) -> Flow {
        let collection = InputCollector::new(
            rules(self),
            Timeouts {
                inter_digit_ms: millis(self.digit_end_timeout),
                execution_ms: Some(millis(self.execution_timeout)),
                start_input_ms: self.start_input_timeout.map(millis),
            },
            self.retries,
            parts(&self.prompts),
            None,
            Some(Action {
                target: self.action.clone(),
                redirect: self.redirect,
                params: params::get_input_digits,
            }),
        );
        match self.input_type {
            InputType::Dtmf => collection.start(env),
            InputType::Speech | InputType::DtmfSpeech => {
                collection.with_speech(speech_input(self, at.place.at)).start(env)
            }
        }
    }

    fn needs_media(&self) -> bool {
        true
    }

    fn takes_time(&self) -> bool {
        true
    }

    fn sounds(&self) -> Vec<Sound> {
        prompt::sounds(&self.prompts)
    }

    fn digit_rules(&self) -> Option<Rules> {
        Some(rules(self))
    }
}

fn speech_input(get: &GetInput, at: Position) -> SpeechInput {
    let settings = RecognitionSettings {
        language: get.language.clone(),
        hints: get.hints.clone(),
        model: get.speech_model.clone(),
        interim: get.interim.is_some(),
        profanity_filter: get.profanity_filter,
        hidden: !get.log,
        fixed_silence: get.speech_end_timeout.is_some(),
    };
    SpeechInput::new(settings, at, get.speech_end_timeout.map(millis), get.interim.clone())
}

fn rules(get: &GetInput) -> Rules {
    Rules {
        accepts_digits: get.input_type != InputType::Speech,
        finish: get.finish_on_key,
        count: usize::from(get.num_digits),
        valid: DigitSet::all(),
        hidden: !get.log,
    }
}
