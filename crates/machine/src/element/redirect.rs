//! `Redirect`: replaces the document (docs/reference/xml.md#redirect).

use super::{At, Flow, Instruction};
use crate::activity::Env;
use crate::contract::FetchKind;
use xml::ast::Redirect;

impl Instruction for Redirect {
    fn start(&self, _: &mut Env<'_>, _: At) -> Flow {
        Flow::Transfer { kind: FetchKind::Redirect, target: self.target.clone() }
    }

    fn needs_media(&self) -> bool {
        false
    }

    fn takes_time(&self) -> bool {
        false
    }
}
