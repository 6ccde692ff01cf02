//! Graph requests that are not about a call, such as reading an object or sending a message. They
//! get only a part of their number's capacity, and have their own retry rules
//! (`docs/reference/meta.md#retries`).

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri};
use http_body_util::Full;
use serde_json::Value;

use super::error::{Verdict, classify_request, is_ambiguous};
use super::graph::{ANSWER_MAX, Graph, GraphResponse, InFlight, Kind, UNREADABLE};
use super::retry::Fault;
use super::retry_state::outcome;
use super::status_label;
use machine::GraphOutcome;
use model::PhoneNumberId;
use model::Secret;
use model::metric;

/// The `action` label of requests that have none of their own.
pub(super) const OTHER: &str = "other";

/// The largest number of pages of a list that are read.
const PAGES_MAX: usize = 20;

/// An object at Graph, such as a number or a WABA, and the token for requests about it.
pub(super) struct Node<'a> {
    pub(super) graph: &'a Graph,
    pub(super) id: PhoneNumberId,
    /// The access token. `None` for the node's default token.
    pub(super) token: Option<Secret>,
}

/// A request, which is the same in each attempt.
struct GraphRequest<'a> {
    /// The path below the object, with the query.
    path: &'a str,
    /// The `action` label in metrics.
    label: &'static str,
    /// The JSON body. It makes the request a POST, which may have a side effect.
    body: Option<Bytes>,
    /// The largest body of an answer, in bytes.
    answer_max: usize,
}

impl<'a> Node<'a> {
    pub(super) fn new(graph: &'a Graph, id: &str, token: Option<&Secret>) -> Self {
        Self { graph, id: PhoneNumberId::from(id), token: token.cloned() }
    }

    /// Reads the JSON at a path below the object.
    pub(super) async fn get(&self, path: &str, label: &'static str) -> Result<Value, GraphOutcome> {
        self.get_up_to(ANSWER_MAX, path, label).await
    }

    async fn get_up_to(
        &self,
        answer_max: usize,
        path: &str,
        label: &'static str,
    ) -> Result<Value, GraphOutcome> {
        let request = GraphRequest { path, label, body: None, answer_max };
        read(&self.send(&request, None).await?)
    }

    /// Reads all pages of a list below the object, except for items that `read` can't read. `query`
    /// limits a page to `page` items.
    pub(super) async fn list<T>(
        &self,
        (edge, query, page): (&str, &[(&str, &str)], usize),
        answer_max: usize,
        label: &'static str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Vec<T>, GraphOutcome> {
        let (mut found, mut after) = (Vec::new(), String::new());
        for _ in 0..PAGES_MAX {
            let path = page_path(edge, query, &after);
            let answer = self.get_up_to(answer_max, &path, label).await?;
            let items = answer.get("data").and_then(Value::as_array).ok_or(UNREADABLE)?;
            found.extend(items.iter().take(page).filter_map(&read));
            let next = answer.pointer("/paging/next").is_some();
            match answer.pointer("/paging/cursors/after").and_then(Value::as_str) {
                Some(cursor) if next && cursor != after => after = cursor.to_owned(),
                _ => break,
            }
        }
        Ok(found)
    }

    /// Sends JSON to a path below the object. Returns the body of the answer.
    pub(super) async fn post(
        &self,
        path: &str,
        label: &'static str,
        body: &Value,
    ) -> Result<Bytes, GraphOutcome> {
        self.post_in(None, path, label, body).await
    }

    /// Like [`Node::post`]. The first attempt uses `place`, if there is one.
    pub(super) async fn post_in(
        &self,
        place: Option<InFlight<'_>>,
        path: &str,
        label: &'static str,
        body: &Value,
    ) -> Result<Bytes, GraphOutcome> {
        let body = Some(body.to_string().into());
        self.send(&GraphRequest { path, label, body, answer_max: ANSWER_MAX }, place).await
    }

    /// Sends the request with retries, and returns the body of a successful answer. Dropping the
    /// future cancels it. The first attempt uses `place`, if there is one.
    async fn send(
        &self,
        request: &GraphRequest<'_>,
        mut place: Option<InFlight<'_>>,
    ) -> Result<Bytes, GraphOutcome> {
        let (graph, has_effect) = (self.graph, request.body.is_some());
        let Some(head) = graph.head(&self.id, request.path, self.token.as_ref()) else {
            return Err(GraphOutcome::Unreachable);
        };
        graph.with_budget(|budget, now| budget.request(now));
        for tries in 1.. {
            let fault = match self.attempt(request, &head, place.take()).await {
                Ok((Verdict::Done, body)) => return Ok(body),
                // Treated as if no answer had arrived: the effect may have taken place and must not
                // be repeated.
                Ok((Verdict::Retryable(again), body))
                    if has_effect && is_ambiguous(again.trouble, &body) =>
                {
                    Fault::Broken
                }
                Ok((Verdict::Retryable(again), _)) => Fault::Answered(again),
                Ok((Verdict::Refused { status, code, details }, _)) => {
                    let token = self.token.as_ref();
                    graph.report_refusal(&self.id, token, (status, code), &details);
                    return Err(GraphOutcome::Refused { status, code, details });
                }
                // These verdicts only occur for calls.
                Ok((_, _)) => return Err(GraphOutcome::Gone),
                Err(fault) => fault,
            };
            let (policy, jitter) = (&graph.config.policy, (graph.config.jitter)());
            let pause = policy.pause_of_request(has_effect, tries, fault, jitter);
            let Some(pause) = pause
                .filter(|pause| graph.with_budget(|budget, now| budget.has_room(now + *pause)))
            else {
                return Err(outcome(fault));
            };
            tracing::debug!(action = request.label, tries, ?pause, "retrying graph request");
            tokio::time::sleep(pause).await;
            // A retry counts when it is sent.
            if !graph.with_budget(|budget, now| budget.retry(now)) {
                return Err(outcome(fault));
            }
        }
        Err(GraphOutcome::Timeout)
    }

    /// Makes one attempt: waits for a place unless there is one, sends within the time limit, and
    /// records the metric.
    async fn attempt(
        &self,
        graph_request: &GraphRequest<'_>,
        head: &(Uri, HeaderMap),
        place: Option<InFlight<'_>>,
    ) -> Result<(Verdict, Bytes), Fault> {
        let graph = self.graph;
        let lane = graph.lane(&self.id);
        let place = match place {
            Some(place) => Ok(place),
            None => lane.enter(Kind::Other, graph.clock.now()).await,
        };
        // The time limit starts after the queue. A message that timed out while waiting was
        // certainly not sent.
        let begun = graph.clock.now();
        let exchange = async {
            let _place = place?;
            self.exchange(graph_request, head).await
        };
        let answered = tokio::time::timeout(graph.config.request_timeout, exchange)
            .await
            .unwrap_or(Err(Fault::Timeout));
        let status = match &answered {
            Ok((status, ..)) => status_label::of(*status),
            Err(Fault::Timeout) => status_label::TIMEOUT.to_owned(),
            Err(_) => status_label::ERROR.to_owned(),
        };
        let took = graph.clock.now().saturating_duration_since(begun).as_secs_f64();
        metrics::histogram!(metric::GRAPH_REQUEST_SECONDS, "action" => graph_request.label, "status" => status).record(took);
        answered.map(|(_, verdict, body)| (verdict, body))
    }

    async fn exchange(
        &self,
        graph_request: &GraphRequest<'_>,
        (uri, headers): &(Uri, HeaderMap),
    ) -> Result<(u16, Verdict, Bytes), Fault> {
        let mut request = Request::new(Full::new(graph_request.body.clone().unwrap_or_default()));
        *request.method_mut() =
            if graph_request.body.is_some() { Method::POST } else { Method::GET };
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = headers.clone();
        let GraphResponse { status, retry_after, body } =
            self.graph.send(&self.graph.http, request, headers, graph_request.answer_max).await?;
        Ok((status, classify_request(status, retry_after, &body), body))
    }
}

/// The path of the page of a list after this cursor.
fn page_path(edge: &str, query: &[(&str, &str)], after: &str) -> String {
    let cursor = (!after.is_empty()).then_some(("after", after));
    url::form_urlencoded::Serializer::for_suffix(format!("{edge}?"), edge.len() + 1)
        .extend_pairs(query.iter().copied().chain(cursor))
        .finish()
}

/// Reads the body of an answer as JSON.
pub(super) fn read(answer: &Bytes) -> Result<Value, GraphOutcome> {
    serde_json::from_slice(answer).map_err(|_| UNREADABLE)
}

/// The id of a message that was sent. Empty if the answer has none.
pub(super) fn message_id(answer: &Bytes) -> String {
    let answer = read(answer).unwrap_or_default();
    let id = answer.pointer("/messages/0/id").and_then(Value::as_str).unwrap_or_default();
    id.to_owned()
}
