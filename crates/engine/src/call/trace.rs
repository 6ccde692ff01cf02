//! Timing of a call outside of its machine: trace lines of the event log, which a replay ignores.
//!
//! The shell writes a line through `EventLogWriter` when an operation ends, so lines are not in the
//! order of their beginning. `waterfall` reads them. Times are microseconds since the call's zero, which
//! is when its webhook had been parsed; earlier times are negative. Callbacks can be delivered long
//! after the call and by another process, so their lines carry wall-clock time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::course::Course;
use super::live::LiveLog;
use crate::answer::Hop;
use crate::disk_space::GrowingFile;
use crate::meta::Try;
use machine::log::{self, LogError};
use machine::{FetchId, FetchKind, GraphAction, PlayId, RecognitionId};
use model::{CallQuality, CallUuid, Clock, PromptVoice, SpanId, Timestamp};
use store::EventLog;

/// A trace line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "trace", rename_all = "snake_case")]
pub enum Trace {
    /// The start of the call.
    Begun {
        /// When the webhook request arrived, before its body was read and its signature checked.
        received_us: i64,
        /// When the call had its number, slot and permit, and the offer was parsed.
        admitted_us: i64,
        /// When the call's task started.
        running_us: i64,
        /// When the node's SDP answer was created and a media port assigned.
        media_us: i64,
    },
    /// The session descriptions known so far, without passwords and bounded in size
    /// (`media::sdp::shown`).
    Sdp {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        offer: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        answer: Option<String>,
    },
    /// A request to Graph, with its retries.
    Graph { action: GraphAction, from_us: i64, to_us: i64, tries: Vec<GraphTry> },
    /// A fetch that ended or was aborted.
    Fetch {
        fetch: FetchId,
        kind: FetchKind,
        from_us: i64,
        to_us: i64,
        tries: Vec<Request>,
        /// Time spent on parsing and validating the document.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parse_us: Option<i64>,
    },
    /// The first outbound packet, silence included.
    FirstSent { at_us: i64 },
    /// The first audible frame of a stream's server was sent to the caller.
    StreamSounds { at_us: i64 },
    /// The voices of a playlist that contained speech. Written when they are known: at its start if
    /// its prompts are complete, otherwise at its end.
    Spoken { play: PlayId, voices: Vec<PromptVoice> },
    /// The recogniser that recognised the caller's words.
    Recognised { recognition: RecognitionId, recogniser: String, language: String },
    /// A remark about the call with a remedy. Remarks of the machine are in its outputs.
    Remark { at_us: i64, text: String },
    /// Audio quality of the whole call.
    Quality {
        at_us: i64,
        #[serde(flatten)]
        quality: CallQuality,
    },
    /// Audio quality over time.
    Course {
        at_us: i64,
        #[serde(flatten)]
        course: Course,
    },
    /// One delivery attempt of a callback.
    Callback {
        kind: String,
        /// Its id in the outbox.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        event_id: Option<uuid::Uuid>,
        /// When the attempt began. The times of `tries` are relative to this.
        began: Timestamp,
        took_us: i64,
        /// Attempts so far, including this one.
        attempts: u32,
        /// `delivered`, `retry` or `failed`.
        outcome: String,
        tries: Vec<Request>,
    },
    /// A trace line written by a later version.
    #[serde(other)]
    Unknown,
}

/// One try of a request to Graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GraphTry {
    pub from_us: i64,
    /// When the request left its queue. `None` if it was never sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_us: Option<i64>,
    pub to_us: i64,
    #[serde(flatten)]
    pub end: RequestEnd,
}

/// One HTTP request to a customer's URL.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    pub attempt: u32,
    pub span: SpanId,
    pub from_us: i64,
    /// When the address was resolved and connected. `None` if an existing connection was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looked_up_us: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected_us: Option<i64>,
    /// When a connection was ready, TLS included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_us: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_us: Option<i64>,
    pub to_us: i64,
    #[serde(flatten)]
    pub end: RequestEnd,
}

/// How a request ended: with a status or a failure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestEnd {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// A label of the metrics: `timeout`, `unreachable`, `error` and so on, or `cut` if the request
    /// was aborted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

impl From<Result<u16, &str>> for RequestEnd {
    fn from(how: Result<u16, &str>) -> Self {
        match how {
            Ok(status) => Self { status: Some(status), failure: None },
            Err(failure) => Self { status: None, failure: Some(failure.to_owned()) },
        }
    }
}

/// Parses the line of an event log that contains the audio quality of the call over time. Returns
/// `None` for any other line.
pub fn course_of_line(line: &str) -> Option<Course> {
    if !line.starts_with("{\"trace\":\"course\"") {
        return None;
    }
    match serde_json::from_str(line) {
        Ok(Trace::Course { course, .. }) => Some(course),
        _ => None,
    }
}

/// Data for the trace exporter.
#[derive(Clone, Debug)]
pub enum ExportedTrace {
    /// The lines of a call that has ended, or that this process stops tracking. They are complete
    /// except for callbacks.
    Call(Vec<Arc<str>>),
    Callback {
        call: CallUuid,
        trace: Trace,
    },
}

/// Receives the data. Called on a runtime thread, so it must not block.
pub type Sink = Arc<dyn Fn(ExportedTrace) + Send + Sync>;

/// Writes the event log of a call. Cheap to clone.
#[derive(Clone)]
pub(super) struct EventLogWriter(Arc<Inner>);

struct Inner {
    call: CallUuid,
    clock: Clock,
    zero: Instant,
    live: Arc<LiveLog>,
    written: EventLog,
    space: Mutex<LogSpace>,
    sink: Option<Sink>,
}

/// Bytes of a stored log after which its space is checked again.
const CHECK_BYTES: u64 = 16 * 1024;
/// Shorter lines take about a third of their length, because logs are compressed.
const COMPRESSED_BELOW: u64 = 1_024;

/// The disk space of a stored log.
struct LogSpace {
    file: GrowingFile,
    bytes: u64,
    /// The size from which on the space is checked.
    check_at: u64,
    /// Whether the rest of the log is not stored.
    is_cut: bool,
}

impl LogSpace {
    /// Accounts for a line. Returns an error once if there is no space for it.
    fn take(&mut self, line: &str) -> Result<(), &'static str> {
        let bytes = u64::try_from(line.len()).unwrap_or(u64::MAX);
        self.bytes += if bytes < COMPRESSED_BELOW { bytes / 3 } else { bytes };
        if self.bytes < self.check_at {
            return Ok(());
        }
        self.check_at = self.bytes + CHECK_BYTES;
        self.file.grow(self.bytes).inspect_err(|_| self.is_cut = true)
    }
}

impl Drop for LogSpace {
    fn drop(&mut self) {
        self.file.set_size(self.bytes);
    }
}

impl Drop for Inner {
    /// Exports the log after the call and all of its tasks have ended.
    fn drop(&mut self) {
        if let Some(sink) = &self.sink
            && let Some(lines) = self.live.export()
        {
            sink(ExportedTrace::Call(lines));
        }
    }
}

impl EventLogWriter {
    /// Creates the writer of a call's event log. Times in the log are relative to `zero`. The size of
    /// the stored log is accounted for in `file`. `sink` receives the lines when the last clone is
    /// dropped.
    pub(super) fn new(
        call: CallUuid,
        (clock, zero): (Clock, Instant),
        live: Arc<LiveLog>,
        (written, file): (EventLog, GrowingFile),
        sink: Option<Sink>,
    ) -> Self {
        let space = LogSpace { file, bytes: 0, check_at: 0, is_cut: false };
        let space = Mutex::new(space);
        Self(Arc::new(Inner { call, clock, zero, live, written, space, sink }))
    }

    /// Appends a line in memory and in the store, and returns its number, from 0. Returns `None` if
    /// the log is full. Without disk space, a remark takes the line's place in the store, and no
    /// further ones are stored.
    pub(super) fn keep(&self, line: Result<String, LogError>) -> Option<u64> {
        let mut line = written(line)?;
        let number = self.0.live.push(line.as_str().into())?;
        let mut space = self.0.space.lock().unwrap_or_else(PoisonError::into_inner);
        if space.is_cut {
            return Some(number);
        }
        if let Err(why) = space.take(&line) {
            let text = format!("the rest of the event log is not stored: {why}");
            let remark = Trace::Remark { at_us: self.us(self.0.clock.now()), text };
            line = written(log::trace_line(&remark))?;
        }
        self.0.written.append(self.0.call, number, line);
        Some(number)
    }

    /// Appends a trace line.
    pub(super) fn trace(&self, trace: &Trace) {
        self.keep(log::trace_line(trace));
    }

    /// Converts to microseconds since the call's zero.
    pub(super) fn us(&self, at: Instant) -> i64 {
        since(self.0.zero, at)
    }

    /// The zero of the call's time.
    pub(super) fn zero(&self) -> Instant {
        self.0.zero
    }

    /// Marks the log as complete. Running tasks may still append trace lines.
    pub(super) fn close(&self) {
        self.0.live.close();
    }

    /// Converts a try of a Graph request.
    pub(super) fn graph_try(&self, t: &Try) -> GraphTry {
        GraphTry {
            from_us: self.us(t.begun),
            sent_us: t.sent.map(|at| self.us(at)),
            to_us: self.us(t.ended),
            end: t.how.into(),
        }
    }
}

/// The line without its end. `None` if it could not be written, which is logged.
fn written(line: Result<String, LogError>) -> Option<String> {
    match line {
        Ok(mut line) => {
            line.truncate(line.trim_end().len());
            Some(line)
        }
        Err(error) => {
            warn!(%error, "event log line not written");
            None
        }
    }
}

impl Request {
    /// Converts a request, with times relative to `zero`. `now` is the end of an aborted one.
    pub(super) fn of(hop: &Hop, zero: Instant, now: Instant) -> Self {
        let us = |at| since(zero, at);
        let (to, how) = hop.ended.unwrap_or((now, Err("cut")));
        Self {
            attempt: hop.attempt,
            span: hop.span,
            from_us: us(hop.begun),
            looked_up_us: hop.dialled.map(|(looked_up, _)| us(looked_up)),
            connected_us: hop.dialled.map(|(_, connected)| us(connected)),
            ready_us: hop.ready.map(us),
            head_us: hop.answered.map(us),
            to_us: us(to),
            end: how.into(),
        }
    }
}

/// Microseconds from `zero` to `at`. Negative if `at` is earlier.
pub(super) fn since(zero: Instant, at: Instant) -> i64 {
    let micros = |d: std::time::Duration| i64::try_from(d.as_micros()).unwrap_or(i64::MAX);
    match at.checked_duration_since(zero) {
        Some(after) => micros(after),
        None => -micros(zero.saturating_duration_since(at)),
    }
}

#[cfg(test)]
mod tests {
    use super::{Course, GraphTry, Request, RequestEnd, Trace, course_of_line};
    use machine::{FetchId, FetchKind, GraphAction, PlayId, RecognitionId};
    use model::{PromptVoice, SpanId};

    #[test]
    fn finds_the_course_in_an_event_log() {
        let course = r#"{"from_ms":1000,"every_ms":5000,"samples":[[5000,250,5,8000,0,0,0,0]]}"#;
        let course: Course = serde_json::from_str(course).expect("a course");
        let line = serde_json::to_string(&Trace::Course { at_us: 1, course: course.clone() });
        assert_eq!(course_of_line(&line.expect("JSON")), Some(course));
        for line in [r#"{"trace":"first_sent","at_us":7}"#, r#"{"trace":"course","at_us":7}"#] {
            assert_eq!(course_of_line(line), None);
        }
    }

    #[test]
    fn trace_lines_keep_their_format() {
        let lines = [
            (
                Trace::Begun {
                    received_us: -850,
                    admitted_us: 120,
                    running_us: 180,
                    media_us: 420,
                },
                r#"{"trace":"begun","received_us":-850,"admitted_us":120,"running_us":180,"media_us":420}"#,
            ),
            (
                Trace::Graph {
                    action: GraphAction::Accept,
                    from_us: 1,
                    to_us: 9,
                    tries: vec![
                        GraphTry { from_us: 1, sent_us: Some(2), to_us: 3, end: Ok(503).into() },
                        GraphTry {
                            from_us: 5,
                            sent_us: None,
                            to_us: 9,
                            end: Err("timeout").into(),
                        },
                    ],
                },
                r#"{"trace":"graph","action":"accept","from_us":1,"to_us":9,"tries":[{"from_us":1,"sent_us":2,"to_us":3,"status":503},{"from_us":5,"to_us":9,"failure":"timeout"}]}"#,
            ),
            (
                Trace::Fetch {
                    fetch: FetchId(1),
                    kind: FetchKind::Answer,
                    from_us: 1,
                    to_us: 9,
                    tries: vec![Request {
                        attempt: 1,
                        span: SpanId::from_u64(7),
                        from_us: 1,
                        looked_up_us: None,
                        connected_us: None,
                        ready_us: Some(2),
                        head_us: Some(5),
                        to_us: 8,
                        end: RequestEnd { status: Some(200), failure: None },
                    }],
                    parse_us: Some(1),
                },
                r#"{"trace":"fetch","fetch":1,"kind":"answer","from_us":1,"to_us":9,"tries":[{"attempt":1,"span":"0000000000000007","from_us":1,"ready_us":2,"head_us":5,"to_us":8,"status":200}],"parse_us":1}"#,
            ),
        ];
        let voice = PromptVoice {
            engine: "neural".to_owned(),
            voice: "hibari".to_owned(),
            language: "en-US".to_owned(),
        };
        let speech = [
            (
                Trace::Spoken { play: PlayId(3), voices: vec![voice] },
                r#"{"trace":"spoken","play":3,"voices":[{"engine":"neural","voice":"hibari","language":"en-US"}]}"#,
            ),
            (
                Trace::Recognised {
                    recognition: RecognitionId(1),
                    recogniser: "whisper".to_owned(),
                    language: "en-US".to_owned(),
                },
                r#"{"trace":"recognised","recognition":1,"recogniser":"whisper","language":"en-US"}"#,
            ),
        ];
        for (trace, line) in lines.into_iter().chain(speech) {
            assert_eq!(serde_json::to_string(&trace).expect("JSON"), line);
            assert_eq!(serde_json::from_str::<Trace>(line).expect("read back"), trace);
        }
        let later: Trace =
            serde_json::from_str(r#"{"trace":"video","from_us":1}"#).expect("passed over");
        assert_eq!(later, Trace::Unknown);
    }
}
