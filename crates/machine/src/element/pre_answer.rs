//! `PreAnswer`: elements that run while the phone rings (docs/reference/xml.md#preanswer).
//!
//! Meta carries no audio before `accept`. The children `Wait`, `Redirect` and `Message` work as
//! usual. All others are skipped.

use super::{At, Flow, Instruction};
use crate::activity::{Env, Readiness};
use xml::ast::PreAnswer;

/// The reason for skipping a child that needs audio.
pub(super) const NO_AUDIO: &str = "WhatsApp carries no audio before the call is answered";

/// The reason for skipping a `PreAnswer` on an answered call (W309).
const ALREADY_ANSWERED: &str = "the call is answered already";

impl Instruction for PreAnswer {
    fn start(&self, _: &mut Env<'_>, _: At) -> Flow {
        Flow::Inside
    }

    fn needs_media(&self) -> bool {
        false
    }

    fn takes_time(&self) -> bool {
        false
    }

    fn skip_reason(&self, readiness: Readiness, _within_pre_answer: bool) -> Option<&'static str> {
        readiness.is_answered().then_some(ALREADY_ANSWERED)
    }
}
