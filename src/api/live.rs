//! The interface between the APIs and live calls. `call::registry` provides the calls, and `node`
//! implements the interface.

use std::collections::HashMap;
use std::sync::Arc;

use axum::response::Response;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};

use engine::call::course::Course;
use engine::call::streams::StreamView;
use machine::{Command, RecordingOrder, StreamOrder};
use model::{AuthId, CallType, CallUuid, Direction, StreamId, Timestamp};
use store::Scope;
use xml::ast::Target;

/// A live or queued call.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LiveCall {
    pub call: CallUuid,
    /// The account that the call belongs to.
    pub account: AuthId,
    /// The main account of that account.
    pub main_account: AuthId,
    pub direction: Direction,
    /// Calls of [`CallType::Whatsapp`] use a slot of their number.
    #[serde(default = "whatsapp")]
    pub call_type: CallType,
    pub from: String,
    pub to: String,
    pub caller_name: String,
    pub status: LiveStatus,
    pub started: Timestamp,
    pub answered: Option<Timestamp>,
    pub parent_call: Option<CallUuid>,
    /// The call that a `Dial` of this call made, while the two are connected.
    pub b_leg: Option<CallUuid>,
}

/// The type of a call that an earlier version describes.
fn whatsapp() -> CallType {
    CallType::Whatsapp
}

impl LiveCall {
    /// Returns the number that the call uses a slot of, if it does.
    pub fn slot_of(&self) -> Option<&str> {
        let number = match self.direction {
            Direction::Inbound => &self.to,
            Direction::Outbound => &self.from,
        };
        let uses_slot = self.call_type == CallType::Whatsapp && self.status != LiveStatus::Queued;
        uses_slot.then_some(number)
    }

    /// Counts the slots that these calls use, by number.
    pub fn slots<'a>(calls: impl IntoIterator<Item = &'a Self>) -> HashMap<&'a str, u32> {
        let mut slots = HashMap::new();
        for number in calls.into_iter().filter_map(Self::slot_of) {
            *slots.entry(number).or_default() += 1;
        }
        slots
    }

    /// Returns the properties that a [`LiveFilter`] checks.
    pub fn summary(&self) -> CallSummary<'_> {
        CallSummary {
            call: self.call,
            account: &self.account,
            direction: self.direction,
            from: &self.from,
            to: &self.to,
            started: self.started,
        }
    }
}

/// Why a command was not passed to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// The call has too many commands that it has not processed yet.
    MailboxFull,
    /// The call is not live, or not in the scope.
    NotLive,
}

/// The status of a live call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LiveStatus {
    /// An outbound call that waits for the account's calls per second.
    Queued,
    Ringing,
    InProgress,
}

impl LiveStatus {
    /// The value of `call_status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Ringing => "ringing",
            Self::InProgress => "in-progress",
        }
    }
}

/// A filter for live and queued calls.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LiveFilter {
    /// Whether to select queued calls instead of live ones. [`LiveFilter::matches`] leaves this to
    /// the caller.
    pub queued: bool,
    pub direction: Option<Direction>,
    pub from: Option<String>,
    pub to: Option<String>,
    pub subaccount: Option<AuthId>,
}

/// The properties of a call that a [`LiveFilter`] checks.
#[derive(Clone, Copy, Debug)]
pub struct CallSummary<'a> {
    pub call: CallUuid,
    pub account: &'a AuthId,
    pub direction: Direction,
    pub from: &'a str,
    pub to: &'a str,
    pub started: Timestamp,
}

impl LiveFilter {
    /// Whether the filter selects a call, apart from its status.
    pub fn matches(&self, call: &CallSummary<'_>) -> bool {
        self.direction.is_none_or(|direction| direction == call.direction)
            && self.from.as_ref().is_none_or(|from| from == call.from)
            && self.to.as_ref().is_none_or(|to| to == call.to)
            && self.subaccount.as_ref().is_none_or(|sub| sub == call.account)
    }
}

/// A page of calls, newest first.
pub fn newest_page(
    mut calls: Vec<(Timestamp, CallUuid)>,
    skip: usize,
    take: usize,
) -> Vec<CallUuid> {
    let newest = |(started, call): &(Timestamp, CallUuid)| std::cmp::Reverse((*started, *call));
    // Only the calls up to the end of the page are sorted.
    let until = skip.saturating_add(take);
    if let Some(last) = until.checked_sub(1).filter(|last| *last < calls.len()) {
        calls.select_nth_unstable_by_key(last, newest);
        calls.truncate(until);
    }
    calls.sort_unstable_by_key(newest);
    calls.into_iter().map(|(_, call)| call).skip(skip).take(take).collect()
}

/// Live calls of all nodes.
#[derive(Clone, Debug)]
pub struct LiveList<T> {
    /// The calls, newest first.
    pub calls: Vec<T>,
    /// Names of the nodes that did not answer.
    pub silent: Vec<String>,
}

/// Adds the header `X-Offhook-Partial`, which lists the nodes whose objects are missing in a list.
pub fn name_silent(response: &mut Response, silent: &[impl AsRef<str>]) {
    let names: Vec<&str> = silent.iter().map(AsRef::as_ref).collect();
    if !names.is_empty()
        && let Ok(names) = names.join(", ").parse()
    {
        response.headers_mut().insert("x-offhook-partial", names);
    }
}

/// The live calls of the node. A call outside the scope does not exist.
pub trait LiveCalls: Send + Sync + 'static {
    /// All calls of a scope, newest first.
    fn list(&self, scope: &Scope) -> Vec<LiveCall>;

    /// Like [`LiveCalls::list`], with the calls of the other nodes of a fleet.
    fn list_all<'a>(&'a self, scope: &'a Scope) -> BoxFuture<'a, LiveList<LiveCall>> {
        Box::pin(async { LiveList { calls: self.list(scope), silent: Vec::new() } })
    }

    /// The UUIDs of a page of the calls that a filter selects, newest first.
    fn page(&self, scope: &Scope, filter: &LiveFilter, skip: usize, take: usize) -> Vec<CallUuid>;

    /// Like [`LiveCalls::page`], with the calls of the other nodes of a fleet.
    fn page_all<'a>(
        &'a self,
        scope: &'a Scope,
        filter: &'a LiveFilter,
        skip: usize,
        take: usize,
    ) -> BoxFuture<'a, LiveList<CallUuid>> {
        let calls = self.page(scope, filter, skip, take);
        Box::pin(async { LiveList { calls, silent: Vec::new() } })
    }

    fn get(&self, scope: &Scope, call: CallUuid) -> Option<LiveCall>;

    /// Hangs up a call or cancels a queued one; `false` if the call is not live.
    fn hang_up(&self, scope: &Scope, call: CallUuid) -> bool;

    /// Cancels an outbound call that is queued or rings; `false` if it is neither.
    fn cancel<'a>(&'a self, scope: &'a Scope, call: CallUuid) -> BoxFuture<'a, bool>;

    /// Passes a command to a call.
    ///
    /// # Errors
    /// Fails if the call is not live or has too many commands already.
    fn command(&self, scope: &Scope, call: CallUuid, command: Command) -> Result<(), CommandError>;

    /// The streams of a call, newest first.
    fn streams(&self, scope: &Scope, call: CallUuid) -> Vec<StreamView>;

    /// Starts a stream with this id; `false` if the call has a stream already.
    ///
    /// # Errors
    /// Fails if the call is not live or has too many commands already.
    fn start_stream(
        &self,
        scope: &Scope,
        call: CallUuid,
        stream: StreamId,
        order: StreamOrder,
    ) -> Result<bool, CommandError>;

    /// Starts a recording beside the document; `false` if the call is being recorded already.
    ///
    /// # Errors
    /// Fails if the call is not live or has too many commands already.
    fn record(
        &self,
        scope: &Scope,
        call: CallUuid,
        order: RecordingOrder,
        callback: Option<Target>,
    ) -> Result<bool, CommandError>;

    /// Whether a call is being recorded beside its document, or is about to be.
    fn is_recorded(&self, scope: &Scope, call: CallUuid) -> bool;

    /// The audio quality of a call so far; `None` if the call is not live or nothing was measured
    /// yet.
    fn course(&self, scope: &Scope, call: CallUuid) -> Option<Course>;

    /// Returns the lines of the event log of a call, without line ends: the existing ones, and with
    /// `follow` also later ones until the call has ended. `None` if the call is not live.
    fn events(
        &self,
        scope: &Scope,
        call: CallUuid,
        follow: bool,
    ) -> Option<BoxStream<'static, Arc<str>>>;
}
