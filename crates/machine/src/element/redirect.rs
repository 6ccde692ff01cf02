//! `Redirect`: another document takes over (`plivo-xml.md` §5.12, §4 rule 4).

use super::Flow;
use crate::contract::FetchKind;
use xml::ast::Redirect;

pub(super) fn start(redirect: &Redirect) -> Flow {
    Flow::Transfer { kind: FetchKind::Redirect, target: redirect.target.clone() }
}
