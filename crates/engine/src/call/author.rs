//! Documents that this node writes itself, for calls that an agent answers instead of a customer's application. Their
//! URLs are below a host that is nobody's (RFC 6761), so that the machine, the log and a replay see a document like any
//! other; only the shell knows that nothing is fetched. Who writes them is above this room.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use crate::admission::{Directory, NumberSpec};
use machine::{FetchFailure, Params};
use media::prompt::Prompt;
use model::{AuthId, CallUuid, Method};
use store::CallLine;
use xml::ast::DocUrl;

/// What these URLs begin with.
const BELOW: &str = "https://agent.invalid/";

/// A document that is wished for.
#[derive(Clone, Debug)]
pub struct Wish {
    pub call: CallUuid,
    /// Whose call it is: nobody else's agent may answer it.
    pub account: AuthId,
    pub main_account: AuthId,
    /// Behind the host.
    pub path: String,
    pub params: Params,
    /// The call waits no longer.
    pub within: Duration,
}

/// A line of what was said in a call. Its `Debug` does not show it (R22).
#[derive(Clone, PartialEq, Eq)]
pub struct SaidLine {
    /// `user` or `assistant`.
    pub role: &'static str,
    pub text: String,
    /// RFC 3339.
    pub at: String,
}

impl SaidLine {
    /// One that the store kept.
    pub(super) fn kept(line: CallLine) -> Option<Self> {
        let role = ["user", "assistant"].into_iter().find(|role| *role == line.role)?;
        Some(Self { role, text: line.text, at: line.at })
    }
}

impl std::fmt::Debug for SaidLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SaidLine({} {})", self.role, self.at)
    }
}

/// Who writes them.
pub trait Author: Send + Sync + 'static {
    /// The document, as XML.
    fn document(&self, wish: Wish) -> BoxFuture<'static, Result<String, FetchFailure>>;

    /// A sound that one of a call's documents plays from below the host; none: there is no such.
    fn sound(&self, call: CallUuid, path: &str) -> Option<Arc<Prompt>>;

    /// What the caller was hearing of a call's documents was cut short after so long: they have spoken, pressed a key, or gone.
    fn cut(&self, call: CallUuid, after: Duration);

    /// What was said in a call so far, oldest first; empty where it is nobody's here.
    fn said(&self, call: CallUuid) -> Vec<SaidLine>;

    /// The call is over.
    fn over(&self, call: CallUuid);
}

/// Nobody.
pub struct NoAuthor;

impl Author for NoAuthor {
    fn document(&self, _: Wish) -> BoxFuture<'static, Result<String, FetchFailure>> {
        futures_util::future::ready(Err(FetchFailure::Unreachable {
            detail: "no agent answers here".to_owned(),
        }))
        .boxed()
    }
    fn sound(&self, _: CallUuid, _: &str) -> Option<Arc<Prompt>> {
        None
    }
    fn cut(&self, _: CallUuid, _: Duration) {}
    fn said(&self, _: CallUuid) -> Vec<SaidLine> {
        Vec::new()
    }
    fn over(&self, _: CallUuid) {}
}

/// The URL of something below the host.
pub fn url_of(path: &str) -> String {
    format!("{BELOW}{path}")
}

/// Where a call with this agent begins.
pub fn agent_url(agent: uuid::Uuid) -> (DocUrl, Method) {
    (DocUrl(url_of(&format!("{agent}/answer")).into()), Method::Post)
}

/// Where the documents of a number's calls are: at its answer URL, or, without an application, with its agent.
pub fn answer_of(directory: &Directory, number: &NumberSpec) -> Option<(DocUrl, Method)> {
    let agent = || directory.mail().routing(&number.mail_id)?.agent().map(agent_url);
    number.answer.clone().or_else(|| agent().filter(|_| !number.silent))
}

/// What is behind the host of a URL that this node writes the documents of.
pub(super) fn path_of(url: &str) -> Option<&str> {
    Some(url.strip_prefix(BELOW)?.split(['?', '#']).next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_our_own_urls_are_ours() {
        assert_eq!(super::path_of(&super::url_of("7/turn?x=1#y")), Some("7/turn"));
        for url in [
            "https://agent.invalid.example/7",
            "http://agent.invalid/7",
            "https://example.com/agent.invalid/",
        ] {
            assert_eq!(super::path_of(url), None, "{url}");
        }
    }
}
