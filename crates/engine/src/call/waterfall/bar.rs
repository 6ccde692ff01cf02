//! One bar of a waterfall: an operation with its parts and its result.

use super::super::trace::{GraphTry, Request, RequestEnd};
use super::Actor;
use super::bodies::Body;
use machine::{FetchKind, GraphAction};
use model::SpanId;

/// Minimum duration of a part. Shorter parts are omitted.
const PART_MIN_US: i64 = 50;

/// An operation, or an instant if `to_us` equals `from_us`.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    pub what: Actor,
    pub name: String,
    pub from_us: i64,
    /// The end. `None` if the operation never ended.
    pub to_us: Option<i64>,
    /// The result, such as a status or an outcome. May be empty.
    pub note: String,
    /// Whether the operation failed.
    pub failed: bool,
    /// The span id that a request to a customer sent in `traceparent`.
    pub span: Option<SpanId>,
    /// The parts, in order.
    pub parts: Vec<Bar>,
    /// The bodies that were sent and received, in order.
    pub bodies: Vec<Body>,
}

impl Bar {
    pub(super) fn new(
        what: Actor,
        name: impl Into<String>,
        from_us: i64,
        to_us: Option<i64>,
    ) -> Self {
        let name = name.into();
        Self {
            what,
            name,
            from_us,
            to_us,
            note: String::new(),
            failed: false,
            span: None,
            parts: Vec::new(),
            bodies: Vec::new(),
        }
    }

    pub(super) fn moment(what: Actor, name: impl Into<String>, at_us: i64) -> Self {
        Self::new(what, name, at_us, Some(at_us))
    }

    pub(super) fn noted(mut self, note: impl Into<String>, failed: bool) -> Self {
        (self.note, self.failed) = (note.into(), failed);
        self
    }

    pub(super) fn with(mut self, body: Option<Body>) -> Self {
        self.bodies.extend(body);
        self
    }

    /// Adds a part, unless it is negligible.
    pub(super) fn part(&mut self, name: &str, from_us: i64, to_us: i64) {
        if to_us.saturating_sub(from_us) >= PART_MIN_US {
            self.parts.push(Self::new(self.what, name, from_us, Some(to_us)));
        }
    }

    /// Adds the requests to a customer's URL as parts, with times relative to `zero`.
    pub(super) fn requests(&mut self, tries: &[Request], zero: i64) {
        let at = |us: i64| us.saturating_add(zero);
        if let [only] = tries {
            self.span = Some(only.span);
        }
        for (number, t) in tries.iter().enumerate() {
            let (from, to) = (at(t.from_us), at(t.to_us));
            if tries.len() > 1 {
                let (note, failed) = verdict(Some(&t.end), 1, "");
                let name = format!("request {}", number + 1);
                let part = Self::new(self.what, name, from, Some(to)).noted(note, failed);
                self.parts.push(Self { span: Some(t.span), ..part });
            }
            let (looked_up, connected) = (t.looked_up_us.map(at), t.connected_us.map(at));
            if let Some(looked_up) = looked_up {
                self.part("look-up", from, looked_up);
                self.part("connect", looked_up, connected.unwrap_or(looked_up));
            }
            let ready = t.ready_us.map(at);
            if let (Some(connected), Some(ready)) = (connected, ready) {
                // The TLS handshake of an https URL.
                self.part("handshake", connected, ready);
            }
            let asked = ready.or(connected).or(looked_up).unwrap_or(from);
            match t.head_us.map(at) {
                Some(head) => {
                    self.part("first byte", asked, head);
                    self.part("body", head, to);
                }
                None if ready.is_some() => self.part("no answer", asked, to),
                None => self.part("no connection", asked, to),
            }
        }
    }

    /// Duration in microseconds. `None` if the operation never ended.
    pub fn took_us(&self) -> Option<i64> {
        self.to_us.map(|to| to.saturating_sub(self.from_us))
    }
}

pub(super) fn graph_name(action: GraphAction) -> String {
    format!("graph {}", action.as_str())
}

pub(in crate::call) fn fetch_name(kind: FetchKind) -> String {
    format!("fetch {}", kind.as_str())
}

pub(super) fn graph_bar(action: GraphAction, from_us: i64, to_us: i64, tries: &[GraphTry]) -> Bar {
    let mut bar = Bar::new(Actor::Graph, graph_name(action), from_us, Some(to_us));
    let last = tries.last().map(|t| &t.end);
    (bar.note, bar.failed) = verdict(last, tries.len(), "not sent");
    if let Some(first) = tries.first() {
        bar.part("waits its turn", from_us, first.from_us);
    }
    for (number, t) in tries.iter().enumerate() {
        bar.part("queue", t.from_us, t.sent_us.unwrap_or(t.to_us));
        if let Some(sent) = t.sent_us.filter(|_| tries.len() > 1) {
            let (note, failed) = verdict(Some(&t.end), 1, "");
            let name = format!("try {}", number + 1);
            bar.parts.push(Bar::new(Actor::Graph, name, sent, Some(t.to_us)).noted(note, failed));
        }
    }
    bar
}

pub(super) fn fetch_bar(
    kind: FetchKind,
    from_us: i64,
    to_us: i64,
    tries: &[Request],
    parse_us: Option<i64>,
) -> Bar {
    let mut bar = Bar::new(Actor::Customer, fetch_name(kind), from_us, Some(to_us));
    (bar.note, bar.failed) = verdict(tries.last().map(|t| &t.end), tries.len(), "not sent");
    bar.requests(tries, 0);
    if let Some(took) = parse_us {
        let end = tries.last().map_or(from_us, |t| t.to_us);
        bar.part("parse", end, end.saturating_add(took));
    }
    bar
}

/// Returns the result of a request and whether it failed.
pub(super) fn verdict(last: Option<&RequestEnd>, tries: usize, otherwise: &str) -> (String, bool) {
    let (note, failed) = match last {
        Some(RequestEnd { status: Some(status), .. }) => {
            (status.to_string(), !(200..300).contains(status))
        }
        Some(RequestEnd { failure: Some(failure), .. }) => (failure.clone(), true),
        Some(RequestEnd { status: None, failure: None }) | None => (otherwise.to_owned(), true),
    };
    (if tries > 1 { format!("{note} ({tries} requests)") } else { note }, failed)
}
