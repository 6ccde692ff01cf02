use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::rows::callback::{NewCallback, Written};
use machine::{CallSetup, CallTime, GraphAction, Summary};
use model::{
    AuthId, CallQuality, CallType, CallUuid, Direction, HangupCause, PhoneNumberId, Timestamp,
    Wacid,
};
use xml::ast::Finding;

/// What is known of a call from its beginning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallStart {
    pub call: CallUuid,
    /// The owner, and its main account.
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
    /// What a call's set-up says.
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
    /// From the start, and from the answer; seconds, rounded up.
    pub duration_secs: u64,
    pub bill_secs: u64,
    /// What Meta says it took.
    pub meta_duration_secs: Option<u64>,
    /// As on the wire (`plivo-callbacks.md` §6).
    pub hangup_code: u16,
    pub hangup_name: String,
    pub hangup_source: String,
    pub hangup_word: String,
    /// Our own word: `HangupCause::as_str`.
    pub cause: String,
    /// What happened and what to do about it, a line each.
    pub remarks: Vec<String>,
    /// What was found in the call's documents.
    pub findings: Vec<Finding>,
    /// How its sound got through; none where nothing was measured.
    #[serde(default)]
    pub quality: Option<CallQuality>,
    /// The conference that it was in last.
    #[serde(default)]
    pub conference: Option<Uuid>,
}

impl CallEnd {
    /// What the machine's summary says of a call that began at `started`.
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

    /// The end of a call of which nothing more is known: an orphan's, with `HangupCause::NodeFailure`.
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
        }
    }
}

/// A call's record.
#[derive(Clone, Debug, PartialEq)]
pub struct CallRecord {
    pub start: CallStart,
    /// `None`: it goes on (or its node died).
    pub end: Option<CallEnd>,
}

/// How a filter's value compares to a row's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    Equal,
    Greater,
    GreaterEqual,
    Less,
    LessEqual,
}

impl Compare {
    /// Whether it holds of these two.
    pub fn holds<T: PartialOrd>(self, one: &T, other: &T) -> bool {
        match self {
            Self::Equal => one == other,
            Self::Greater => one > other,
            Self::GreaterEqual => one >= other,
            Self::Less => one < other,
            Self::LessEqual => one <= other,
        }
    }

    /// The operator, with its spaces.
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

/// A call whose process died before its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Orphan {
    pub start: CallStart,
    /// What it began with; none where that can't be read (any more).
    pub setup: Option<CallSetup>,
    pub answered: Option<Timestamp>,
    /// From its beginning to the last sign of life of its node.
    pub lived: Duration,
}

/// What Graph has still to be told about an ended call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Farewell {
    pub action: GraphAction,
    /// When to try, on the steady clock: while the process that ended the call lives, it asks itself until then.
    pub due: Timestamp,
}

/// A call that was placed, and Meta's name of it, if that ever came.
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
    /// Tries made from the store so far.
    pub tries: u32,
}

/// Which calls to list; the empty filter is all of the scope's (`plivo-call-api.md` §2.3).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CallFilter {
    pub from: Option<String>,
    pub to: Option<String>,
    pub direction: Option<Direction>,
    pub subaccount: Option<AuthId>,
    pub parent_call: Option<CallUuid>,
    pub hangup_code: Option<u16>,
    pub hangup_source: Option<String>,
    /// Seconds billed.
    pub bill_secs: Vec<(Compare, i64)>,
    pub ended: Vec<(Compare, Timestamp)>,
    /// Only what stands behind this call in the list: it began earlier, or at the same time with a greater UUID.
    pub before: Option<(Timestamp, CallUuid)>,
}

/// The end of a call with all that reports it: one transaction (R3).
#[derive(Clone, Debug, PartialEq)]
pub struct Conclusion {
    pub start: CallStart,
    pub end: CallEnd,
    pub callbacks: Vec<NewCallback>,
    /// What Graph has still to be told.
    pub farewell: Option<Farewell>,
}

/// What became of a [`Conclusion`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Concluded {
    /// `false`: the call had its end before, and nothing was written.
    pub changed: bool,
    pub callbacks: Vec<Written>,
}

/// A call that began: what its row holds from now on.
#[derive(Clone, Debug)]
pub(crate) struct Birth {
    pub(crate) start: CallStart,
    /// JSON.
    pub(crate) setup: String,
    pub(crate) born: Timestamp,
}
