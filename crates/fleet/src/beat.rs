//! The messages between a run and the database.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The name of a limit: `n:` and a phone number id, or `a:` and an account's or subaccount's id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LimitKey(Arc<str>);

/// The kind of a limit, which determines its units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitKind {
    /// A slot of a number, in use for the duration of a call.
    Slots,
    /// A permit of an account, in use for the second after a call was admitted with it.
    Permits,
}

impl LimitKey {
    /// Returns the key of the slots of a number.
    pub fn number(phone_number_id: &str) -> Self {
        Self(format!("n:{phone_number_id}").into())
    }

    /// Returns the key of the calls per second of an account or subaccount.
    pub fn account(auth_id: &str) -> Self {
        Self(format!("a:{auth_id}").into())
    }

    /// Returns the key as it is stored in the database.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn kind(&self) -> LimitKind {
        match self.0.starts_with("n:") {
            true => LimitKind::Slots,
            false => LimitKind::Permits,
        }
    }
}

impl From<&str> for LimitKey {
    fn from(key: &str) -> Self {
        Self(key.into())
    }
}

/// The state of a run in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    Up,
    /// The run admits no further calls.
    Draining,
    /// The run has ended in an orderly way and holds nothing.
    Left,
    /// Another run has declared the run dead. Its calls are being ended. It still holds its units.
    Dead,
    /// The calls of the dead run have ended, and its units have been given back.
    Reaped,
}

impl RunState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Draining => "draining",
            Self::Left => "left",
            Self::Dead => "dead",
            Self::Reaped => "reaped",
        }
    }

    /// Parses the text of [`RunState::as_str`]. Returns `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let all = [Self::Up, Self::Draining, Self::Left, Self::Dead, Self::Reaped];
        all.into_iter().find(|state| state.as_str() == text)
    }

    /// Returns whether the run is a member of the fleet, so that it may send beats.
    pub fn is_member(self) -> bool {
        matches!(self, Self::Up | Self::Draining)
    }
}

/// A transaction that a run requests from the database.
#[derive(Clone, Debug)]
pub enum Request {
    Register(Register),
    Beat(Beat),
}

impl Request {
    /// Returns when the request was sent, by the sender's clock.
    pub fn sent(&self) -> Duration {
        match self {
            Self::Register(register) => register.sent,
            Self::Beat(beat) => beat.sent,
        }
    }
}

/// A request that writes the row of a run.
#[derive(Clone, Debug)]
pub struct Register {
    pub sent: Duration,
    /// Whether the database has lost the row. Such a row is written only in a closed term, because
    /// in an open term the units of the run may already belong to another run.
    pub again: bool,
}

/// A message that proves that a run is alive, and requests units or gives them back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Beat {
    /// By the clock of the run, which is of no use to others.
    #[serde(skip)]
    pub sent: Duration,
    pub run: Uuid,
    /// The term in which the run holds its units.
    pub term: Uuid,
    /// A term that the run can't join: the run has left this term, or the term lacks an
    /// acknowledged beat. The database begins a further term.
    pub refused: Option<Uuid>,
    /// The sequence number of the beat. The database ignores a beat if it has received a later one.
    pub seq: i64,
    /// The sequence number of the newest answered beat. A database without this beat has lost data.
    pub acked: i64,
    /// Whether the beat states all units that the run holds. The database then discards its earlier
    /// figures for this run. The claims of live calls are written again before such a beat is sent.
    pub whole: bool,
    /// Whether the run has seen the term closed for long enough to open it.
    pub may_open: bool,
    pub asks: Vec<Ask>,
}

/// The units of one limit that a run wants to hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    pub key: LimitKey,
    pub want: u32,
}

/// The response of the database to a beat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub verdict: Verdict,
    pub term: TermState,
    /// One grant for each [`Ask`], in the same order, if the verdict is [`Verdict::Ok`].
    pub grants: Vec<Grant>,
}

/// The database's current term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TermState {
    pub id: Uuid,
    /// Whether all runs have stated the units that they hold, so that further units may be granted.
    pub open: bool,
    /// The number of changes to the settings so far.
    pub book: i64,
    /// The number of changes to the table of runs so far.
    pub members: i64,
}

/// The units of one limit that the database has granted to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    pub held: u32,
    /// The maximum number of units. `None` if the limit does not exist.
    pub cap: Option<u32>,
    /// The units that other runs hold.
    pub others: u32,
    /// The units that other runs have requested and not received.
    #[serde(rename = "wishes")]
    pub requested: u32,
}

/// The verdict of the database on a beat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// The beat is accepted, and the grants apply.
    Ok,
    /// The beat proves that the run is alive. No unit moves until the run sends a whole beat in the
    /// current term.
    Term,
    /// The database has already received a later beat.
    Old,
    /// The database lacks a beat that it has acknowledged earlier.
    Lost,
    /// The database has no row of this run, and the term is closed, so the run may register again.
    Unknown,
    /// The run was declared dead. Another run ends its calls.
    Dead,
}

impl Verdict {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Term => "TERM",
            Self::Old => "OLD",
            Self::Lost => "LOST",
            Self::Unknown => "UNKNOWN",
            Self::Dead => "DEAD",
        }
    }

    /// Parses the text of [`Verdict::as_str`]. Returns `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let all = [Self::Ok, Self::Term, Self::Old, Self::Lost, Self::Unknown, Self::Dead];
        all.into_iter().find(|verdict| verdict.as_str() == text)
    }
}
