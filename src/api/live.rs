//! What the APIs need to know of calls that are up; `call::registry` knows it, `node` brings the two together.

use std::sync::Arc;

use futures_util::stream::BoxStream;

use crate::call::course::Course;
use crate::call::streams::StreamView;
use machine::{Command, RecordingOrder, StreamOrder};
use model::{AuthId, CallUuid, Direction, StreamId, Timestamp};
use store::Scope;
use xml::ast::Target;

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
    pub answered: Option<Timestamp>,
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

/// Which of the calls that are up, or wait, are asked for (`plivo-call-api.md` §2.4, §2.5).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LiveFilter {
    /// Those that wait; else those that are up.
    pub queued: bool,
    pub direction: Option<Direction>,
    pub from: Option<String>,
    pub to: Option<String>,
    pub subaccount: Option<AuthId>,
}

/// What a [`LiveFilter`] looks at.
#[derive(Clone, Copy, Debug)]
pub struct Glance<'a> {
    pub call: CallUuid,
    pub account: &'a AuthId,
    pub direction: Direction,
    pub from: &'a str,
    pub to: &'a str,
    pub started: Timestamp,
}

impl LiveFilter {
    /// Whether it lets a call through; that it waits or is up is another question.
    pub fn holds(&self, call: &Glance<'_>) -> bool {
        self.direction.is_none_or(|direction| direction == call.direction)
            && self.from.as_ref().is_none_or(|from| from == call.from)
            && self.to.as_ref().is_none_or(|to| to == call.to)
            && self.subaccount.as_ref().is_none_or(|sub| sub == call.account)
    }
}

/// A page of calls that were let through, newest first.
pub fn newest(mut calls: Vec<(Timestamp, CallUuid)>, skip: usize, take: usize) -> Vec<CallUuid> {
    let newest = |(started, call): &(Timestamp, CallUuid)| std::cmp::Reverse((*started, *call));
    // The page alone is put in order: what stands before it need not be.
    let until = skip.saturating_add(take);
    if let Some(last) = until.checked_sub(1).filter(|last| *last < calls.len()) {
        calls.select_nth_unstable_by_key(last, newest);
        calls.truncate(until);
    }
    calls.sort_unstable_by_key(newest);
    calls.into_iter().map(|(_, call)| call).skip(skip).take(take).collect()
}

/// The calls that are up. A call outside the scope is as good as none.
pub trait LiveCalls: Send + Sync + 'static {
    /// All of a scope's, newest first.
    fn list(&self, scope: &Scope) -> Vec<LiveCall>;

    /// Some of a scope's by their names, newest first.
    fn some(&self, scope: &Scope, filter: &LiveFilter, skip: usize, take: usize) -> Vec<CallUuid>;

    /// One of them.
    fn get(&self, scope: &Scope, call: CallUuid) -> Option<LiveCall>;

    /// Asks it to hang up; `false` if it is not up.
    fn hang_up(&self, scope: &Scope, call: CallUuid) -> bool;

    /// Asks it for something.
    fn command(&self, scope: &Scope, call: CallUuid, command: Command) -> Told;

    /// Its streams, newest first.
    fn streams(&self, scope: &Scope, call: CallUuid) -> Vec<StreamView>;

    /// Asks it for a stream under this name; `Ok(false)`: it has one.
    ///
    /// # Errors
    /// It could not be told.
    fn begin_stream(
        &self,
        scope: &Scope,
        call: CallUuid,
        stream: StreamId,
        order: StreamOrder,
    ) -> Result<bool, Told>;

    /// Has it recorded; `false`: it is already.
    ///
    /// # Errors
    /// It can't be told.
    fn record(
        &self,
        scope: &Scope,
        call: CallUuid,
        order: RecordingOrder,
        callback: Option<Target>,
    ) -> Result<bool, Told>;

    /// Whether it is recorded in the background, or will be.
    fn is_recorded(&self, scope: &Scope, call: CallUuid) -> bool;

    /// How its sound has gone so far; none: it is not up, or nothing was measured yet.
    fn course(&self, scope: &Scope, call: CallUuid) -> Option<Course>;

    /// Its event log: the lines so far (without their ends), and with `follow` those to come, until it is over.
    fn events(
        &self,
        scope: &Scope,
        call: CallUuid,
        follow: bool,
    ) -> Option<BoxStream<'static, Arc<str>>>;
}
