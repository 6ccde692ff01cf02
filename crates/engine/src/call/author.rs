//! Documents that this node writes itself, for calls that an AI agent answers instead of a
//! customer's application.
//!
//! Their URLs use a host below `.invalid` (RFC 6761), which never resolves. The machine, the event
//! log and a replay treat such a document like any other; only the shell knows that it is not
//! fetched over HTTP. The implementations of [`Author`] live in higher modules.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::Value;

use crate::admission::{Directory, NumberSpec};
use machine::{FetchFailure, Params};
use media::prompt::Prompt;
use model::{AuthId, CallUuid, Method};
use store::CallLine;
use xml::ast::DocUrl;

/// Prefix of the URLs of generated documents.
const BELOW: &str = "https://agent.invalid/";

/// A request for a generated document.
#[derive(Clone, Debug)]
pub struct DocumentRequest {
    pub call: CallUuid,
    /// The account of the call. Only an agent of this account may answer it.
    pub account: AuthId,
    pub main_account: AuthId,
    /// The path below the host, without query and fragment.
    pub path: String,
    pub params: Params,
    /// How long the call waits for the document.
    pub within: Duration,
}

/// One utterance of a conversation with an agent. `Debug` redacts the text.
#[derive(Clone, PartialEq, Eq)]
pub struct DialogueLine {
    /// `user` or `assistant`.
    pub role: &'static str,
    pub text: String,
    /// The time in RFC 3339 format.
    pub at: String,
}

impl DialogueLine {
    /// Converts a stored line. Returns `None` if its role is unknown.
    pub(super) fn kept(line: CallLine) -> Option<Self> {
        let role = ["user", "assistant"].into_iter().find(|role| *role == line.role)?;
        Some(Self { role, text: line.text, at: line.at })
    }
}

impl std::fmt::Debug for DialogueLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DialogueLine({} {})", self.role, self.at)
    }
}

/// Writes documents for calls.
pub trait Author: Send + Sync + 'static {
    /// Writes the document as XML.
    fn document(
        &self,
        request: DocumentRequest,
    ) -> BoxFuture<'static, Result<String, FetchFailure>>;

    /// Returns the audio that a document of the call plays from a URL below the host. `None` if the
    /// audio does not exist.
    fn sound(&self, call: CallUuid, path: &str) -> Option<Arc<Prompt>>;

    /// Reports that the audio of the call's document was interrupted after `after`: the caller
    /// spoke, pressed a key or hung up.
    fn cut(&self, call: CallUuid, after: Duration);

    /// Returns the conversation of the call so far, oldest line first. It is empty if this author
    /// does not handle the call.
    fn dialogue(&self, call: CallUuid) -> Vec<DialogueLine>;

    /// Whether the agent has left the caller to people.
    fn needs_person(&self, call: CallUuid) -> bool;

    /// Reports the end of the call.
    fn over(&self, call: CallUuid);

    /// Waits until an agent has completed its answer to the call. `None` if it has, or if this author
    /// does not handle the call.
    fn until_at_rest(&self, call: CallUuid) -> Option<BoxFuture<'static, ()>>;

    /// Lets go of the dialogue of a call [at rest](Author::until_at_rest), so that the author of
    /// another process can [resume](Author::resume) it. `None` if this author does not handle the
    /// call.
    fn detach(&self, call: CallUuid) -> Option<Value>;

    /// Continues the dialogue of a call of another process.
    fn resume(&self, call: CallUuid, dialogue: Value);
}

/// An author without documents: every request fails.
pub struct NoAuthor;

impl Author for NoAuthor {
    fn document(&self, _: DocumentRequest) -> BoxFuture<'static, Result<String, FetchFailure>> {
        futures_util::future::ready(Err(FetchFailure::Unreachable {
            detail: "no agent answers here".to_owned(),
        }))
        .boxed()
    }

    fn sound(&self, _: CallUuid, _: &str) -> Option<Arc<Prompt>> {
        None
    }

    fn cut(&self, _: CallUuid, _: Duration) {}
    fn dialogue(&self, _: CallUuid) -> Vec<DialogueLine> {
        Vec::new()
    }

    fn needs_person(&self, _: CallUuid) -> bool {
        false
    }

    fn over(&self, _: CallUuid) {}

    fn until_at_rest(&self, _: CallUuid) -> Option<BoxFuture<'static, ()>> {
        None
    }

    fn detach(&self, _: CallUuid) -> Option<Value> {
        None
    }

    fn resume(&self, _: CallUuid, _: Value) {}
}

/// Builds the URL of `path` below the host.
pub fn url_of(path: &str) -> String {
    format!("{BELOW}{path}")
}

/// Returns the agent of a path below the host.
pub fn agent_of(path: &str) -> Option<uuid::Uuid> {
    path.split('/').next()?.parse().ok()
}

/// Returns the answer URL of calls that go to this agent.
pub fn agent_url(agent: uuid::Uuid) -> (DocUrl, Method) {
    (DocUrl(url_of(&format!("{agent}/answer")).into()), Method::Post)
}

/// Returns the URL that answers a call of a number: its answer URL or that of its agent. If the one
/// that comes first does not exist, the other one answers. `None` if it is a silent agent's.
pub fn answer_of(directory: &Directory, number: &NumberSpec) -> Option<(DocUrl, Method)> {
    let agent = || directory.message_routes().routing(&number.first_id)?.agent().map(agent_url);
    let agent_first = agent().filter(|_| number.agent_first);
    let may_answer = |_: &_| !number.silent;
    match (agent_first, &number.answer) {
        (Some(agent), _) => Some(agent).filter(may_answer),
        (None, Some(answer)) => Some(answer.clone()),
        (None, None) => agent().filter(may_answer),
    }
}

/// Returns the path of a URL below the host of generated documents. `None` for all other URLs.
pub(super) fn path_of(url: &str) -> Option<&str> {
    Some(url.strip_prefix(BELOW)?.split(['?', '#']).next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_agent_of_a_call_is_in_its_path() {
        let agent = uuid::Uuid::from_u128(7);
        let (url, _) = super::agent_url(agent);
        assert_eq!(super::path_of(&url.0).and_then(super::agent_of), Some(agent));
        assert_eq!(super::agent_of("nobody/answer"), None);
    }

    #[test]
    fn path_of_accepts_only_generated_urls() {
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
