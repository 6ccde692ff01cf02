//! `PreAnswer`: what may happen while the phone rings (`plivo-xml.md` §5.12, §6).
//!
//! Meta lets no audio through before `accept`: of its children `Wait`, `Redirect` and `Message` do what they do
//! anywhere, the others are skipped.

use super::{At, Flow, Instruction};
use crate::activity::{Env, Readiness};
use xml::ast::PreAnswer;

/// Of a child that nobody could hear or answer.
pub(super) const UNHEARD: &str = "WhatsApp carries no audio before the call is answered";

/// Of a `PreAnswer` on an answered call (W309).
const LATE: &str = "the call is answered already";

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
        readiness.is_answered().then_some(LATE)
    }
}
