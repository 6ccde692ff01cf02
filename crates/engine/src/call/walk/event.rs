//! The events and the result of a walk, as shown in JSON.

use std::time::Duration;

use serde::Serialize;

use machine::{CallbackKind, FetchKind, InstructionOutcome, Params};
use model::{HangupCause, HangupSource, Method, WireCause};
use xml::ast::Finding;

/// An event with its time.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// Simulated time of the call in milliseconds.
    pub at_ms: u64,
    #[serde(flatten)]
    pub event: Event,
}

/// An event of a walk.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A document is requested. Parameters with `log="false"` are shown as `x`.
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
    /// One HTTP request and its response. Redirects and retries have an event each.
    Answer {
        attempt: u32,
        method: Method,
        url: String,
        /// Names of the signature headers.
        signed_by: Vec<String>,
        status: Option<u16>,
        /// The label `outcome` of `offhook_answer_fetch_seconds`, if there was no response.
        failure: Option<&'static str>,
        took_ms: u64,
    },
    /// No document was received.
    NoDocument {
        kind: FetchKind,
        why: String,
    },
    /// A document was received. `ok` is whether it can be executed.
    Document {
        kind: FetchKind,
        ok: bool,
        bytes: usize,
        source: Option<String>,
    },
    /// A finding of the linter about the document.
    Finding {
        #[serde(flatten)]
        finding: Finding,
    },
    /// The call was answered.
    Answered,
    /// An element of the document begins or ends.
    Instruction {
        element: String,
        line: u32,
        outcome: InstructionOutcome,
        note: String,
    },
    /// Audio for the caller and its estimated duration.
    Prompt {
        #[serde(rename = "heard")]
        pieces: Vec<PromptPiece>,
        ms: u64,
        endless: bool,
    },
    /// Tones that are sent to the caller.
    Tones {
        digits: String,
        ms: u64,
    },
    /// The audio is streamed to a server. `keeps_call` is whether the document waits for the
    /// stream's end.
    Stream {
        url: String,
        keeps_call: bool,
    },
    /// A target is dialled.
    Calls {
        to: String,
        /// Position among the targets of its `Dial`, from 1.
        position: u8,
    },
    /// The caller presses a key. Shown as `x` if the document hides it from logs.
    Key {
        key: char,
    },
    /// A remark in the call's record.
    Remark {
        text: String,
    },
    CallerHangsUp {
        why: &'static str,
    },
    /// The call ends, with the cause as in its record and hangup callback.
    Hangup {
        cause: &'static str,
        code: u16,
        name: &'static str,
        source: &'static str,
        answered: bool,
        duration_s: u64,
    },
    /// A callback. `sent` is `false` if the callback was only displayed.
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
pub enum PromptPiece {
    /// Speech. In all variants, `times` is 0 for endless repetition.
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

/// The result of a walk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WalkResult {
    /// The hangup cause. Set at the end of each walk.
    pub cause: Option<HangupCause>,
    /// Number of documents received, including refused ones.
    pub documents: u32,
    pub errors: usize,
    pub warnings: usize,
    /// The faults that were found, in order. Empty if there were none.
    pub faults: Vec<String>,
    /// Number of entries of [`Caller::keys`](super::Caller) that no collection used.
    pub unused_keys: usize,
    /// Duration in real time, not simulated time.
    pub took_ms: u64,
}

impl WalkResult {
    /// Whether the walk succeeded. With `strict`, warnings count as failures.
    pub fn ok(&self, strict: bool) -> bool {
        self.faults.is_empty() && self.errors == 0 && !(strict && self.warnings > 0)
    }
}

/// Whether an application can end a call this way on purpose: the end is regular, or the caller or
/// the document chose it.
pub(super) fn is_good_end(cause: &WireCause) -> bool {
    matches!(cause.word, "NORMAL_CLEARING" | "ALLOTTED_TIMEOUT")
        || matches!(cause.source, HangupSource::Caller | HangupSource::AnswerXml)
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
