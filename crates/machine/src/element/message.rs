//! `Message`: sends an SMS on Plivo. It is skipped here (docs/reference/xml.md#message).

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
