//! The messages between a run and the database.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

/// The name of a limit: `n:` and a phone number id, or `a:` and an account's or subaccount's id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LimitKey(Arc<str>);

/// What a unit of a limit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitKind {
    /// A slot of a number, in use for the duration of a call.
    Slots,
    /// A permit of an account, in use for the second after a call was admitted with it.
    Permits,
}

impl LimitKey {
    /// The slots of a number.
    pub fn number(phone_number_id: &str) -> Self {
        Self(format!("n:{phone_number_id}").into())
    }

    /// The calls per second of an account or subaccount.
    pub fn account(auth_id: &str) -> Self {
        Self(format!("a:{auth_id}").into())
    }

    /// The key as the database has it.
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
    /// It admits no more calls.
    Draining,
    /// It ended in order and holds nothing.
    Left,
    /// Another run has declared it dead. Its calls are being ended; it still holds its units.
    Dead,
    /// Its calls have ended and its units are given back.
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

    /// Parses the text of [`RunState::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        let all = [Self::Up, Self::Draining, Self::Left, Self::Dead, Self::Reaped];
        all.into_iter().find(|state| state.as_str() == text)
    }

    /// Returns whether the run takes part: it may beat.
    pub fn is_member(self) -> bool {
        matches!(self, Self::Up | Self::Draining)
    }
}

/// A transaction that a run asks of the database.
#[derive(Clone, Debug)]
pub enum Request {
    Register(Register),
    Beat(Beat),
}

impl Request {
    /// When the request was sent, by the sender's clock.
    pub fn sent(&self) -> Duration {
        match self {
            Self::Register(register) => register.sent,
            Self::Beat(beat) => beat.sent,
        }
    }
}

/// Writes the row of a run.
#[derive(Clone, Debug)]
pub struct Register {
    pub sent: Duration,
    /// The database has lost the row. It is written again only in a closed term, because in an open
    /// term the run's units may already belong to another run.
    pub again: bool,
}

/// Proves that a run lives, and asks for units or gives them back.
#[derive(Clone, Debug)]
pub struct Beat {
    pub sent: Duration,
    pub run: Uuid,
    /// The term in which the run holds its units.
    pub term: Uuid,
    /// A term that the run can't join, because it has left it or because that term's memory lacks
    /// an acknowledged beat. The database begins a further term.
    pub refused: Option<Uuid>,
    /// Number of the beat. The database ignores a beat that a later one has overtaken.
    pub seq: i64,
    /// The newest answered beat. A database that does not have it has forgotten something.
    pub acked: i64,
    /// The beat states everything that the run holds, and the database forgets what it had before.
    /// Before it is sent, the claims of live calls are written again.
    pub whole: bool,
    /// The run has seen the term closed for long enough.
    pub may_open: bool,
    pub asks: Vec<Ask>,
}

/// The units of one limit that a run wants to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    pub key: LimitKey,
    pub want: u32,
}

/// The database's answer to a beat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub verdict: Verdict,
    pub term: TermState,
    /// One for each [`Ask`], in their order, if the verdict is [`Verdict::Ok`].
    pub grants: Vec<Grant>,
}

/// The database's current term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TermState {
    pub id: Uuid,
    /// All runs have stated what they hold: units may be given out.
    pub open: bool,
    /// Number of changes of settings.
    pub book: i64,
    /// Number of changes of the table of runs.
    pub members: i64,
}

/// What a run holds of one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    pub held: u32,
    /// `None` if the limit does not exist.
    pub cap: Option<u32>,
    /// Units that other runs hold.
    pub others: u32,
    /// Units that other runs want and did not get.
    pub wishes: u32,
}

/// How the database judges a beat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The beat counts, and the grants apply.
    Ok,
    /// The beat counts as a sign of life. Units move only after a whole beat in the current term.
    Term,
    /// A later beat has overtaken it.
    Old,
    /// The database lacks a beat that it has acknowledged.
    Lost,
    /// The database has no row of this run, and the term is closed: it may register again.
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

    /// Parses the text of [`Verdict::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        let all = [Self::Ok, Self::Term, Self::Old, Self::Lost, Self::Unknown, Self::Dead];
        all.into_iter().find(|verdict| verdict.as_str() == text)
    }
}
