//! `GetInput`: keys, speech, or whichever comes first (`plivo-xml.md` §5.5).

use super::collect::{Action, Clocks, Collection, KeySet, Rules};
use super::hear::Hearing;
use super::{Flow, millis, stretches};
use crate::contract::Listening;
use crate::params;
use xml::ast::{GetInput, InputType, Position};

pub(super) fn start(get: &GetInput, at: Position) -> Flow {
    let collection = Collection::new(
        rules(get),
        Clocks {
            inter_digit_ms: millis(get.digit_end_timeout),
            execution_ms: Some(millis(get.execution_timeout)),
            start_input_ms: get.start_input_timeout.map(millis),
        },
        get.retries,
        stretches(&get.prompts),
        None,
        Some(Action {
            target: get.action.clone(),
            redirect: get.redirect,
            params: params::keys_of_get_input,
        }),
    );
    Flow::Collect(Box::new(match get.input_type {
        InputType::Dtmf => collection,
        InputType::Speech | InputType::DtmfSpeech => collection.hearing(hearing(get, at)),
    }))
}

fn hearing(get: &GetInput, at: Position) -> Hearing {
    let how = Listening {
        language: get.language.clone(),
        hints: get.hints.clone(),
        model: get.speech_model.clone(),
        interim: get.interim.is_some(),
        profanity_filter: get.profanity_filter,
        hidden: !get.log,
    };
    Hearing::new(how, at, millis(get.speech_end_timeout), get.interim.clone())
}

pub(super) fn rules(get: &GetInput) -> Rules {
    Rules {
        hears_keys: get.input_type != InputType::Speech,
        finish: get.finish_on_key,
        count: usize::from(get.num_digits),
        valid: KeySet::all(),
        hidden: !get.log,
    }
}
