use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::rows::callback::{NewCallback, QueuedCallback, Settlement};
use machine::{CallSetup, CallTime, GraphAction, Summary};
use model::{
    AuthId, CallQuality, CallType, CallUuid, Direction, HangupCause, PhoneNumberId, Timestamp,
    Wacid,
};
use xml::ast::Finding;

/// The fields of a call that are known when it starts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallStart {
    pub call: CallUuid,
    /// The owner and its main account, which may be the same.
    pub account: AuthId,
    pub main_account: AuthId,
    pub direction: Direction,
    pub call_type: CallType,
    pub from: String,
    pub to: String,
    pub caller_name: String,
    pub wacid: Option<Wacid>,
    pub phone_number_id: PhoneNumberId,
    pub parent_call: Option<CallUuid>,
    pub node_id: String,
    pub started: Timestamp,
}

impl CallStart {
    /// Takes the fields from a call's set-up.
    pub fn of(setup: &CallSetup, node_id: &str) -> Self {
        Self {
            call: setup.call,
            account: setup.account.clone(),
            main_account: setup.parent_account.clone(),
            direction: setup.direction,
            call_type: setup.call_type,
            from: setup.from.clone(),
            to: setup.to.clone(),
            caller_name: setup.caller_name.clone(),
            wacid: setup.wacid.clone(),
            phone_number_id: setup.phone_number_id.clone(),
            parent_call: setup.outbound.as_ref().and_then(|placed| placed.parent_call),
            node_id: node_id.to_owned(),
            started: setup.started,
        }
    }
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallEnd {
    pub ended: Timestamp,
    pub answered: Option<Timestamp>,
    /// Seconds from the start and from the answer, rounded up.
    pub duration_secs: u64,
    pub bill_secs: u64,
    /// Duration in seconds as reported by Meta.
    pub meta_duration_secs: Option<u64>,
    /// Hangup cause as sent in callbacks (see `docs/reference/hangup-causes.md`).
    pub hangup_code: u16,
    pub hangup_name: String,
    pub hangup_source: String,
    pub hangup_word: String,
    /// Offhook's cause: `HangupCause::as_str`.
    pub cause: String,
    /// Explanations for people: what happened and what to do about it, one line each.
    pub remarks: Vec<String>,
    /// Problems found in the call's documents.
    pub findings: Vec<Finding>,
    /// Audio quality. `None` if nothing was measured.
    #[serde(default)]
    pub quality: Option<CallQuality>,
    /// The last conference that the call was in.
    #[serde(default)]
    pub conference: Option<Uuid>,
    /// Time from the first request to the answer URL to its document, in milliseconds. `None` if
    /// nothing was requested or no response came.
    #[serde(default)]
    pub answer_ms: Option<u64>,
    /// The first agent that wrote a document for the call.
    #[serde(default)]
    pub agent: Option<Uuid>,
}

impl CallEnd {
    /// Mean opinion score of the worse direction in hundredths, by which lists are sorted.
    #[allow(clippy::as_conversions, reason = "`as` saturates")]
    pub(crate) fn mos_hundredths(&self) -> Option<i64> {
        Some((self.quality?.mos()? * 100.0).round() as i64)
    }

    /// Takes the end from the machine's summary of a call that began at `started`.
    pub fn of(
        summary: &Summary,
        started: Timestamp,
        remarks: Vec<String>,
        findings: Vec<Finding>,
    ) -> Self {
        let at = |time: CallTime| started.plus(std::time::Duration::from_millis(time.0));
        Self {
            answered: summary.answered.map(at),
            duration_secs: summary.duration_secs,
            bill_secs: summary.bill_secs,
            meta_duration_secs: summary.meta_duration_secs,
            remarks,
            findings,
            conference: summary.conference,
            ..Self::unanswered(summary.cause, summary.direction, at(summary.ended))
        }
    }

    /// The end of a call that was not answered and of which only the cause is known, such as an
    /// orphan with `HangupCause::NodeFailure`.
    pub fn unanswered(cause: HangupCause, direction: Direction, ended: Timestamp) -> Self {
        let wire = cause.wire(direction);
        Self {
            ended,
            answered: None,
            duration_secs: 0,
            bill_secs: 0,
            meta_duration_secs: None,
            hangup_code: wire.code,
            hangup_name: wire.name.to_owned(),
            hangup_source: wire.source.as_str().to_owned(),
            hangup_word: wire.word.to_owned(),
            cause: cause.as_str().to_owned(),
            remarks: Vec::new(),
            findings: Vec::new(),
            quality: None,
            conference: None,
            answer_ms: None,
            agent: None,
        }
    }
}

/// A call's record.
#[derive(Clone, Debug, PartialEq)]
pub struct CallRecord {
    pub start: CallStart,
    /// The end of the call. `None` if the call is in progress or its node died.
    pub end: Option<CallEnd>,
}

/// Comparison of a row's value with a filter's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    Equal,
    Greater,
    GreaterEqual,
    Less,
    LessEqual,
}

impl Compare {
    /// Returns whether `one` compares to `other` this way.
    pub fn holds<T: PartialOrd>(self, one: &T, other: &T) -> bool {
        match self {
            Self::Equal => one == other,
            Self::Greater => one > other,
            Self::GreaterEqual => one >= other,
            Self::Less => one < other,
            Self::LessEqual => one <= other,
        }
    }

    /// The SQL operator, with spaces around it.
    pub(crate) fn sql(self) -> &'static str {
        match self {
            Self::Equal => " = ",
            Self::Greater => " > ",
            Self::GreaterEqual => " >= ",
            Self::Less => " < ",
            Self::LessEqual => " <= ",
        }
    }
}

/// A call that was open when its process died.
#[derive(Clone, Debug, PartialEq)]
pub struct Orphan {
    pub start: CallStart,
    /// The set-up of the call. `None` if it can't be read.
    pub setup: Option<CallSetup>,
    pub answered: Option<Timestamp>,
    /// Time from the start of the call to its node's last heartbeat.
    pub lived: Duration,
}

/// The request that Graph must still receive for an ended call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Farewell {
    pub action: GraphAction,
    /// Monotonic time of the first attempt by the store. Until then, the process that ended the
    /// call sends the request itself.
    pub due: Timestamp,
}

/// An outbound call, with its id at Meta if that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedCall {
    pub call: CallUuid,
    pub phone_number_id: PhoneNumberId,
    pub wacid: Option<Wacid>,
}

/// A farewell that is due.
#[derive(Clone, Debug, PartialEq)]
pub struct FarewellDue {
    pub call: CallUuid,
    pub wacid: Wacid,
    pub phone_number_id: PhoneNumberId,
    pub action: GraphAction,
    pub ended: Timestamp,
    /// Number of attempts that the store has made so far.
    pub tries: u32,
}

/// Order of a list of calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CallSort {
    /// By start time.
    #[default]
    Newest,
    Oldest,
    /// By billed duration.
    Longest,
    Shortest,
    /// By the MOS of the worse direction. Calls without a measured quality are left out.
    BestQuality,
    WorstQuality,
}

impl CallSort {
    pub(crate) fn column(self) -> &'static str {
        match self {
            Self::Newest | Self::Oldest => "started_us",
            Self::Longest | Self::Shortest => "bill_secs",
            Self::BestQuality | Self::WorstQuality => "mos_hundredths",
        }
    }

    pub fn is_ascending(self) -> bool {
        match self {
            Self::Oldest | Self::Shortest | Self::WorstQuality => true,
            Self::Newest | Self::Longest | Self::BestQuality => false,
        }
    }

    pub(crate) fn is_by_quality(self) -> bool {
        matches!(self, Self::BestQuality | Self::WorstQuality)
    }

    /// Returns the position of a call in the list, for [`CallFilter::before`].
    pub fn position(self, record: &CallRecord) -> (i64, CallUuid) {
        let value = match self {
            Self::Newest | Self::Oldest => record.start.started.micros(),
            Self::Longest | Self::Shortest => {
                let secs = record.end.as_ref().map_or(0, |end| end.bill_secs);
                i64::try_from(secs).unwrap_or(i64::MAX)
            }
            Self::BestQuality | Self::WorstQuality => {
                record.end.as_ref().and_then(CallEnd::mos_hundredths).unwrap_or_default()
            }
        };
        (value, record.start.call)
    }
}

/// Selects calls of a scope. The default selects all of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CallFilter {
    pub from: Option<String>,
    pub to: Option<String>,
    pub direction: Option<Direction>,
    pub subaccount: Option<AuthId>,
    pub parent_call: Option<CallUuid>,
    pub hangup_codes: Option<RangeInclusive<u16>>,
    pub hangup_source: Option<String>,
    /// Billed seconds.
    pub bill_secs: Vec<(Compare, i64)>,
    pub ended: Vec<(Compare, Timestamp)>,
    /// The phone number of the caller or the callee.
    pub party: Option<String>,
    /// The agent that answered the call.
    pub agent: Option<Uuid>,
    /// Leaves out B-legs.
    pub without_legs: bool,
    pub sort: CallSort,
    /// Only calls after this [position](CallSort::position) in the list.
    pub before: Option<(i64, CallUuid)>,
}

impl CallFilter {
    /// Whether a list reads many rows to find a page of calls, or to count them.
    pub fn takes_long(&self) -> bool {
        let Self {
            from,
            to,
            parent_call,
            bill_secs,
            ended,
            party,
            agent,
            without_legs,
            direction: _,
            subaccount: _,
            hangup_codes: _,
            hangup_source: _,
            sort: _,
            before: _,
        } = self;
        from.is_some()
            || to.is_some()
            || parent_call.is_some()
            || !bill_secs.is_empty()
            || !ended.is_empty()
            || party.is_some()
            || agent.is_some()
            || *without_legs
    }
}

/// The end of a call and the callbacks that report it, written in one transaction.
#[derive(Clone, Debug, PartialEq)]
pub struct Conclusion {
    pub start: CallStart,
    pub end: CallEnd,
    pub callbacks: Vec<NewCallback>,
    /// The request that Graph must still receive.
    pub farewell: Option<Farewell>,
}

/// The end of a call whose callbacks are sent before they have rows, and the results that arrived in
/// the meantime.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ReportedEnd {
    pub(crate) conclusion: Conclusion,
    pub(crate) settled: Vec<Settlement>,
}

impl ReportedEnd {
    /// Returns the result of delivering a callback of this end, if it has arrived.
    pub(crate) fn settlement(&self, callback: &NewCallback) -> Option<&Settlement> {
        self.settled.iter().find(|settled| settled.row == callback.pending_row())
    }
}

/// The result of writing a [`Conclusion`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConclusionResult {
    /// `false` if the call had already ended. Nothing was written then.
    pub changed: bool,
    pub callbacks: Vec<QueuedCallback>,
}

/// The row of a call that has just started.
#[derive(Clone, Debug)]
pub(crate) struct StartedCall {
    pub(crate) start: CallStart,
    /// JSON of the [`CallSetup`].
    pub(crate) setup: String,
    pub(crate) born: Timestamp,
}
