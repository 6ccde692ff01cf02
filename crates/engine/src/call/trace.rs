//! Where a call's time went, as far as its machine does not see it: lines of the event log that a replay passes over.
//!
//! Written by `shell` through `Journal` as things come to their end, so not in the order of their beginning; read by
//! `waterfall`. All times are microseconds since the call's zero, the moment its webhook had been read; what lies
//! before it is negative. Callbacks may come long after the call, out of another process: they carry wall-clock time.

use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::course::Course;
use super::live::LiveLog;
use crate::answer::Hop;
use crate::meta::Try;
use machine::log::{self, LogError};
use machine::{FetchId, FetchKind, GraphAction};
use model::{CallQuality, CallUuid, SpanId, Timestamp};
use store::EventLog;

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "trace", rename_all = "snake_case")]
pub enum Trace {
    /// The call's beginning.
    Begun {
        /// The webhook's request came: before its body was read and its signature checked.
        received_us: i64,
        /// It had its number, slot and permit, and its offer had been read.
        admitted_us: i64,
        /// Its task ran.
        running_us: i64,
        /// Our SDP answer was made and a media port found.
        media_us: i64,
    },
    /// The two sides' session descriptions, as far as they are known by then; without passwords, and bounded (`media::sdp::shown`).
    Sdp {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        offer: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        answer: Option<String>,
    },
    /// A request to Graph came to its end, retries included.
    Graph { action: GraphAction, from_us: i64, to_us: i64, tries: Vec<GraphTry> },
    /// A fetch came to its end or was broken off.
    Fetch {
        fetch: FetchId,
        kind: FetchKind,
        from_us: i64,
        to_us: i64,
        tries: Vec<Request>,
        /// Spent on reading and checking the document.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parse_us: Option<i64>,
    },
    /// The first packet of ours went out, silence included.
    FirstSent { at_us: i64 },
    /// What somebody should know of the call, and what to do about it; the machine's own remarks are among its wishes.
    Remark { at_us: i64, text: String },
    /// How its sound got through; when it was over.
    Quality {
        at_us: i64,
        #[serde(flatten)]
        quality: CallQuality,
    },
    /// How its sound went, stretch by stretch; when it was over.
    Course {
        at_us: i64,
        #[serde(flatten)]
        course: Course,
    },
    /// A callback went out, or one of its retries.
    Callback {
        kind: String,
        /// Its row of the outbox.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        event_id: Option<uuid::Uuid>,
        /// When it was its turn; times of `tries` count from here.
        began: Timestamp,
        took_us: i64,
        /// Attempts made so far, these included.
        attempts: u32,
        /// `delivered`, `retry`, `failed`.
        outcome: String,
        tries: Vec<Request>,
    },
    /// What a later version writes.
    #[serde(other)]
    Unknown,
}

/// One try of a request to Graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GraphTry {
    pub from_us: i64,
    /// It left its queue; absent where it never did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_us: Option<i64>,
    pub to_us: i64,
    #[serde(flatten)]
    pub end: Ended,
}

/// One request to a customer's URL.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    pub attempt: u32,
    pub span: SpanId,
    pub from_us: i64,
    /// Addresses found, connected: only where a connection was made for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looked_up_us: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected_us: Option<i64>,
    /// A connection was at hand, TLS included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_us: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_us: Option<i64>,
    pub to_us: i64,
    #[serde(flatten)]
    pub end: Ended,
}

/// How a request ended: one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// A word of the metrics: `timeout`, `unreachable`, `error`, …; `cut`: it was broken off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

impl From<Result<u16, &str>> for Ended {
    fn from(how: Result<u16, &str>) -> Self {
        match how {
            Ok(status) => Self { status: Some(status), failure: None },
            Err(failure) => Self { status: None, failure: Some(failure.to_owned()) },
        }
    }
}

/// What is left for whoever exports traces.
#[derive(Clone, Debug)]
pub enum Traced {
    /// The lines of a call that is over, or of which this process sees no more; all but its callbacks' are there.
    Call(Vec<Arc<str>>),
    Callback {
        call: CallUuid,
        trace: Trace,
    },
}

/// Where that goes. Called on a worker: must not block.
pub type Sink = Arc<dyn Fn(Traced) + Send + Sync>;

/// Where a call's lines go, from whatever task has one; cheap to clone.
#[derive(Clone)]
pub(super) struct Journal(Arc<Inner>);

struct Inner {
    call: CallUuid,
    zero: Instant,
    live: Arc<LiveLog>,
    written: EventLog,
    sink: Option<Sink>,
}

impl Drop for Inner {
    /// The call and all its errands are over.
    fn drop(&mut self) {
        if let Some(sink) = &self.sink
            && let Some(lines) = self.live.export()
        {
            sink(Traced::Call(lines));
        }
    }
}

impl Journal {
    /// Of a call whose time begins at `zero`; `sink` gets the lines when the last clone is gone.
    pub(super) fn new(
        call: CallUuid,
        zero: Instant,
        live: Arc<LiveLog>,
        written: EventLog,
        sink: Option<Sink>,
    ) -> Self {
        Self(Arc::new(Inner { call, zero, live, written, sink }))
    }

    /// Keeps a line in memory and in the store, while the log has room.
    pub(super) fn keep(&self, line: Result<String, LogError>) {
        let mut line = match line {
            Ok(line) => line,
            Err(e) => return warn!(error = %e, "could not write a line of the event log"),
        };
        line.truncate(line.trim_end().len());
        if let Some(number) = self.0.live.push(line.as_str().into()) {
            self.0.written.append(self.0.call, number, line);
        }
    }

    /// Keeps a line of the trace.
    pub(super) fn trace(&self, trace: &Trace) {
        self.keep(log::trace_line(trace));
    }

    /// Microseconds since the call's zero.
    pub(super) fn us(&self, at: Instant) -> i64 {
        since(self.0.zero, at)
    }

    /// The call's zero.
    pub(super) fn zero(&self) -> Instant {
        self.0.zero
    }

    /// No more facts will come; what is still under way may add to the trace.
    pub(super) fn close(&self) {
        self.0.live.close();
    }

    /// A try of a request to Graph, as a line has it.
    pub(super) fn graph_try(&self, t: &Try) -> GraphTry {
        GraphTry {
            from_us: self.us(t.begun),
            sent_us: t.sent.map(|at| self.us(at)),
            to_us: self.us(t.ended),
            end: t.how.into(),
        }
    }
}

impl Request {
    /// As a line has it, times since `zero`; `now` is the end of one that was broken off.
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

/// Microseconds from `zero` to `at`; negative where that lies before.
pub(super) fn since(zero: Instant, at: Instant) -> i64 {
    let micros = |d: std::time::Duration| i64::try_from(d.as_micros()).unwrap_or(i64::MAX);
    match at.checked_duration_since(zero) {
        Some(after) => micros(after),
        None => -micros(zero.saturating_duration_since(at)),
    }
}

#[cfg(test)]
mod tests {
    use super::{Ended, GraphTry, Request, Trace};
    use machine::{FetchId, FetchKind, GraphAction};
    use model::SpanId;

    #[test]
    fn lines_of_a_trace_are_what_they_are() {
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
                        end: Ended { status: Some(200), failure: None },
                    }],
                    parse_us: Some(1),
                },
                r#"{"trace":"fetch","fetch":1,"kind":"answer","from_us":1,"to_us":9,"tries":[{"attempt":1,"span":"0000000000000007","from_us":1,"ready_us":2,"head_us":5,"to_us":8,"status":200}],"parse_us":1}"#,
            ),
        ];
        for (trace, line) in lines {
            assert_eq!(serde_json::to_string(&trace).expect("JSON"), line);
            assert_eq!(serde_json::from_str::<Trace>(line).expect("read back"), trace);
        }
        let later: Trace =
            serde_json::from_str(r#"{"trace":"video","from_us":1}"#).expect("passed over");
        assert_eq!(later, Trace::Unknown);
    }
}
