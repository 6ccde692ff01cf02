//! Graph requests that are not about a call, such as reading an object or sending a message. They
//! get only a part of their number's capacity, and have their own retry rules
//! (`docs/reference/meta.md#retries`).

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri};
use http_body_util::Full;

use super::error::{Verdict, classify_request, is_ambiguous};
use super::graph::{ANSWER_MAX, Graph, GraphResponse, Kind};
use super::retry::Fault;
use super::retry_state::outcome;
use super::status_label;
use machine::GraphOutcome;
use model::PhoneNumberId;
use model::Secret;
use model::metric;

/// A request, which is the same in each attempt.
pub(super) struct GraphRequest<'a> {
    number: &'a PhoneNumberId,
    /// `None` for the node's default token.
    token: Option<&'a Secret>,
    /// The path below the number, with the query.
    path: String,
    /// The `action` label in metrics.
    label: &'static str,
    /// Makes the request a POST, which may have a side effect.
    body: Option<Bytes>,
    /// The largest body of an answer, in bytes.
    answer_max: usize,
}

impl<'a> GraphRequest<'a> {
    pub(super) fn get(
        number: &'a PhoneNumberId,
        token: Option<&'a Secret>,
        path: String,
        label: &'static str,
    ) -> Self {
        Self { number, token, path, label, body: None, answer_max: ANSWER_MAX }
    }

    pub(super) fn post(
        number: &'a PhoneNumberId,
        token: Option<&'a Secret>,
        path: String,
        label: &'static str,
        body: Vec<u8>,
    ) -> Self {
        Self { number, token, path, label, body: Some(body.into()), answer_max: ANSWER_MAX }
    }

    /// Sets the largest body of an answer, in bytes.
    pub(super) fn answer_max(self, answer_max: usize) -> Self {
        Self { answer_max, ..self }
    }
}

impl Graph {
    /// Sends the request with retries, and returns the body of a successful answer. Dropping the
    /// future cancels it.
    pub(super) async fn send_request(
        &self,
        graph_request: &GraphRequest<'_>,
    ) -> Result<Bytes, GraphOutcome> {
        let Some(head) = self.head(graph_request.number, &graph_request.path, graph_request.token)
        else {
            return Err(GraphOutcome::Unreachable);
        };
        self.with_budget(|budget, now| budget.request(now));
        for tries in 1.. {
            let fault = match self.attempt_request(graph_request, &head).await {
                Ok((Verdict::Done, body)) => return Ok(body),
                // Treated as if no answer had arrived: the effect may have taken place and must not
                // be repeated.
                Ok((Verdict::Retryable(again), said))
                    if graph_request.body.is_some() && is_ambiguous(again.trouble, &said) =>
                {
                    Fault::Broken
                }
                Ok((Verdict::Retryable(again), _)) => Fault::Answered(again),
                Ok((Verdict::Refused { status, code, details }, _)) => {
                    self.report_refusal(
                        graph_request.number,
                        graph_request.token,
                        (status, code),
                        &details,
                    );
                    return Err(GraphOutcome::Refused { status, code, details });
                }
                // These verdicts only occur for calls.
                Ok((_, _)) => return Err(GraphOutcome::Gone),
                Err(fault) => fault,
            };
            let pause = self.config.policy.pause_of_request(
                graph_request.body.is_some(),
                tries,
                fault,
                (self.config.jitter)(),
            );
            let Some(pause) =
                pause.filter(|pause| self.with_budget(|budget, now| budget.has_room(now + *pause)))
            else {
                return Err(outcome(fault));
            };
            tracing::debug!(action = graph_request.label, tries, ?pause, "retrying graph request");
            tokio::time::sleep(pause).await;
            // A retry counts when it is sent.
            if !self.with_budget(|budget, now| budget.retry(now)) {
                return Err(outcome(fault));
            }
        }
        Err(GraphOutcome::Timeout)
    }

    /// Makes one attempt: waits in the queue, sends within the time limit, and records the metric.
    async fn attempt_request(
        &self,
        graph_request: &GraphRequest<'_>,
        head: &(Uri, HeaderMap),
    ) -> Result<(Verdict, Bytes), Fault> {
        let lane = self.lane(graph_request.number);
        let place = lane.enter(Kind::Other, self.clock.now()).await;
        // The time limit starts after the queue. A message that timed out while waiting was
        // certainly not sent.
        let begun = self.clock.now();
        let exchange = async {
            let _place = place?;
            self.exchange_request(graph_request, head).await
        };
        let answered = tokio::time::timeout(self.config.request_timeout, exchange)
            .await
            .unwrap_or(Err(Fault::Timeout));
        let status = match &answered {
            Ok((status, ..)) => status_label::of(*status),
            Err(Fault::Timeout) => status_label::TIMEOUT.to_owned(),
            Err(_) => status_label::ERROR.to_owned(),
        };
        let took = self.clock.now().saturating_duration_since(begun).as_secs_f64();
        metrics::histogram!(metric::GRAPH_REQUEST_SECONDS, "action" => graph_request.label, "status" => status).record(took);
        answered.map(|(_, verdict, body)| (verdict, body))
    }

    async fn exchange_request(
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
            self.send(&self.http, request, headers, graph_request.answer_max).await?;
        Ok((status, classify_request(status, retry_after, &body), body))
    }
}
