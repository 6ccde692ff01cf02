//! What a walk tells: events as JSON has them, and how it ended.

use std::time::Duration;

use serde::Serialize;

use machine::{CallbackKind, FetchKind, InstructionOutcome, Params};
use model::{HangupCause, Method};
use xml::ast::Finding;

/// Something happened, at that time of the call.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// Milliseconds of the call's own time since it began.
    pub at_ms: u64,
    #[serde(flatten)]
    pub event: Event,
}

/// What happened.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A document is asked for. Parameters with `log="false"` are shown as `x`.
    Request {
        kind: FetchKind,
        method: Method,
        url: String,
        params: Params,
    },
    /// The answer document is a file.
    File {
        bytes: usize,
    },
    /// One request of it went out and came back: redirects and further attempts have one each.
    Answer {
        attempt: u32,
        method: Method,
        url: String,
        /// Names of the headers that sign it.
        signed_by: Vec<String>,
        status: Option<u16>,
        /// `outcome` of `offhook_answer_fetch_seconds`, where there was no answer.
        failure: Option<&'static str>,
        took_ms: u64,
    },
    /// No document came.
    NoDocument {
        kind: FetchKind,
        why: String,
    },
    /// A document came; `ok`: it runs.
    Document {
        kind: FetchKind,
        ok: bool,
        bytes: usize,
        source: Option<String>,
    },
    /// The linter has something to say about it.
    Finding {
        #[serde(flatten)]
        finding: Finding,
    },
    /// The call is answered.
    Answered,
    /// An element of the document begins or ends.
    Instruction {
        element: String,
        line: u32,
        outcome: InstructionOutcome,
        note: String,
    },
    /// What the caller hears, and about how long.
    Prompt {
        heard: Vec<Heard>,
        ms: u64,
        endless: bool,
    },
    /// Tones that are sent to the caller.
    Tones {
        digits: String,
        ms: u64,
    },
    /// The sound goes to a server, and the document waits for its end or not.
    Stream {
        url: String,
        keeps_call: bool,
    },
    /// Somebody is dialled.
    Calls {
        to: String,
        /// Among the targets of its `Dial`, from 1.
        position: u8,
    },
    /// The caller presses a key; `x` where the document wants it out of logs.
    Key {
        key: char,
    },
    /// A line of the call's record.
    Remark {
        text: String,
    },
    CallerHangsUp {
        why: &'static str,
    },
    /// The call ends, as its record and its hangup callback have it.
    Hangup {
        cause: &'static str,
        code: u16,
        name: &'static str,
        source: &'static str,
        answered: bool,
        duration_s: u64,
    },
    /// A callback; `sent` is false where it was only to be shown.
    Callback {
        kind: CallbackKind,
        method: Method,
        url: String,
        params: Params,
        sent: bool,
        status: Option<u16>,
        failure: Option<String>,
    },
}

/// A piece of a prompt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "sound", rename_all = "snake_case")]
pub enum Heard {
    /// `times` 0: without end; so with each.
    Speak {
        text: String,
        voice: String,
        language: Option<String>,
        times: u16,
    },
    Play {
        url: String,
        times: u16,
    },
    Silence {
        ms: u64,
    },
    Tone {
        ms: u64,
    },
}

/// How a walk ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Walked {
    /// Always there.
    pub cause: Option<HangupCause>,
    /// Documents that came, refused ones included.
    pub documents: u32,
    pub errors: usize,
    pub warnings: usize,
    /// What was not as it should be, in order; none: all was.
    pub faults: Vec<String>,
    /// Real time.
    pub took_ms: u64,
}

impl Walked {
    /// Whether it went as a call should; with `strict`, warnings count too.
    pub fn ok(&self, strict: bool) -> bool {
        self.faults.is_empty() && self.errors == 0 && !(strict && self.warnings > 0)
    }
}

/// Whether an application means a call to end so.
pub(super) fn is_good_end(cause: HangupCause) -> bool {
    matches!(
        cause,
        HangupCause::CallerCancelled
            | HangupCause::CallerHangup
            | HangupCause::XmlHangup
            | HangupCause::XmlRejected
            | HangupCause::XmlBusy
            | HangupCause::EndOfInstructions
            | HangupCause::ScheduledHangup
            | HangupCause::TimeLimit
    )
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
