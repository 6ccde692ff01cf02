//! `GetInput`: keys or speech (`plivo-xml.md` §5.5). Speech is not recognised in this version.

use super::collect::{Action, Clocks, Collection, KeySet, Rules};
use super::{Flow, millis, playlist};
use crate::call::machine::desk::{Desk, Place};
use crate::call::machine::params;
use crate::xml::ast::{GetInput, InputType};

pub(super) fn start(get: &GetInput, desk: &mut Desk, place: Place) -> Flow {
    match get.input_type {
        InputType::Dtmf => {}
        InputType::Speech => {
            desk.remark(format!("{place}: speech is not recognised in this version; it ends without input"));
        }
        InputType::DtmfSpeech => {
            desk.remark(format!("{place}: speech is not recognised in this version; keys are"));
        }
    }
    Flow::Collect(Box::new(Collection::new(
        rules(get),
        Clocks {
            inter_digit_ms: millis(get.digit_end_timeout),
            execution_ms: Some(millis(get.execution_timeout)),
            start_input_ms: get.start_input_timeout.map(millis),
        },
        get.retries,
        playlist(&get.prompts),
        None,
        Some(Action { target: get.action.clone(), redirect: get.redirect, params: params::keys_of_get_input }),
    )))
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
