//! `Message`: an SMS in Plivo's world, nothing here (`plivo-xml.md` §5.12, W404).

use super::{At, Flow, Instruction};
use crate::activity::{Completion, Env, Readiness};
use xml::ast::Message;

const UNSUPPORTED: &str = "there is no SMS on this platform";

impl Instruction for Message {
    fn start(&self, _: &mut Env<'_>, _: At) -> Flow {
        Flow::Finished(Completion::failed(UNSUPPORTED))
    }

    fn needs_media(&self) -> bool {
        false
    }

    fn takes_time(&self) -> bool {
        false
    }

    fn skip_reason(&self, _: Readiness, _within_pre_answer: bool) -> Option<&'static str> {
        Some(UNSUPPORTED)
    }
}
