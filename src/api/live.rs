//! What the APIs need to know of calls that are up; `call::registry` knows it, `node` brings the two together.

use std::sync::Arc;

use futures_util::stream::BoxStream;

use crate::call::machine::Command;
use crate::model::{AuthId, CallUuid, Direction, Timestamp};
use crate::store::Scope;

/// A call that is up, as the APIs show it.
#[derive(Clone, Debug)]
pub struct LiveCall {
    pub call: CallUuid,
    /// The owner, and its main account.
    pub account: AuthId,
    pub main_account: AuthId,
    pub direction: Direction,
    pub from: String,
    pub to: String,
    pub caller_name: String,
    pub status: LiveStatus,
    pub started: Timestamp,
    pub parent_call: Option<CallUuid>,
    /// A leg that a `Dial` made, while it is connected.
    pub b_leg: Option<CallUuid>,
}

/// Whether a call could be told something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Yes,
    /// It is behind with what it was told.
    Full,
    /// It is not up, or nobody's of the scope.
    NotUp,
}

/// How far a live call is (`plivo-call-api.md` §2.4, §2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LiveStatus {
    /// Waiting for the account's calls per second; outbound only.
    Queued,
    Ringing,
    InProgress,
}

impl LiveStatus {
    /// `call_status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Ringing => "ringing",
            Self::InProgress => "in-progress",
        }
    }
}

/// The calls that are up. A call outside the scope is as good as none.
pub trait LiveCalls: Send + Sync + 'static {
    /// All of a scope's, newest first.
    fn list(&self, scope: &Scope) -> Vec<LiveCall>;

    /// One of them.
    fn get(&self, scope: &Scope, call: CallUuid) -> Option<LiveCall>;

    /// Asks it to hang up; `false` if it is not up.
    fn hang_up(&self, scope: &Scope, call: CallUuid) -> bool;

    /// Asks it for something.
    fn command(&self, scope: &Scope, call: CallUuid, command: Command) -> Told;

    /// Its event log: the lines so far (without their ends), and with `follow` those to come, until it is over.
    fn events(&self, scope: &Scope, call: CallUuid, follow: bool) -> Option<BoxStream<'static, Arc<str>>>;
}
