//! The HTTP client for Graph, with queues, time limits and retries.
//!
//! Connections are kept alive. Each phone number has at most 64 requests in flight and a bounded
//! queue, and each attempt has a time limit. Tokens are sent in one header, which is marked as
//! sensitive, and never logged.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dashmap::DashMap;
use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

use super::date::http_date;
use super::error::{Retryable, TemporaryFailure, Verdict, classify, is_alarm, is_token_refused};
use super::retry::{Budget, Fault, Policy};
use super::retry_state::{NextStep, RetryState};
use super::status_label;
use super::types::{CallRequest, SdpType, Session};
use egress::client_tls;
use machine::{GraphAction, GraphOutcome};
use model::Clock;
use model::Secret;
use model::metric;
use model::{PhoneNumberId, Timestamp, Wacid, WaitMeter, WaitToken};

/// The streamed body of an upload.
pub(super) type FileBody = UnsyncBoxBody<Bytes, std::io::Error>;

/// The address and the limits of Graph. The defaults are documented in
/// `docs/reference/meta.md#graph-requests`.
#[derive(Clone, Debug)]
pub struct GraphConfig {
    /// `[meta].graph_url`, with the version and without a trailing slash.
    pub base_url: String,
    /// The token for numbers whose WABA has none.
    pub token: Secret,
    /// The `User-Agent`, `offhook/<version>`.
    pub user_agent: String,
    /// Whether refusals that need an operator are logged. Commands print them instead.
    pub logs_refusals: bool,
    /// The time limit for the TCP connection.
    pub connect_timeout: Duration,
    /// The time limit of an attempt, from the connection to the last byte.
    pub request_timeout: Duration,
    /// The largest number of requests in flight per phone number.
    pub under_way_max: usize,
    /// The largest number of waiting requests per phone number. Further ones fail immediately.
    pub waiting_max: usize,
    pub policy: Policy,
    /// The interval at which the end of a call is requested again.
    pub ending_again: Duration,
    /// How long the end of a call is requested again.
    pub ending_max: Duration,
    /// Returns a random number between 0 and 1, which varies the pauses.
    pub jitter: fn() -> f64,
}

impl GraphConfig {
    /// The default configuration for Graph at `base_url`.
    pub fn new(base_url: impl Into<String>, token: Secret) -> Self {
        Self {
            base_url: base_url.into(),
            token,
            user_agent: concat!("offhook/", env!("CARGO_PKG_VERSION")).to_owned(),
            logs_refusals: true,
            connect_timeout: Duration::from_secs(2),
            request_timeout: Duration::from_secs(5),
            under_way_max: 64,
            waiting_max: 4_096,
            policy: Policy::default(),
            ending_again: Duration::from_secs(15),
            ending_max: Duration::from_secs(60),
            jitter: rand::random::<f64>,
        }
    }
}

/// The reason why a client could not be created.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("could not use {0:?} as graph_url: it must be an absolute http or https URL")]
    BaseUrl(String),
    #[error("could not set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// A request for an action on a call.
#[derive(Clone)]
pub struct ActionRequest {
    pub phone_number_id: PhoneNumberId,
    /// The access token. `None` for the node's default token.
    pub token: Option<Secret>,
    pub about: CallTarget,
    pub action: GraphAction,
    /// The SDP: the node's offer for `connect`, and its answer for `pre_accept` and `accept`, which
    /// must be identical in both.
    pub sdp: Option<Arc<str>>,
    /// The `biz_opaque_callback_data` of `connect` and `accept`.
    pub opaque: Option<String>,
    /// The end of the answer window. No attempt begins or lasts past it.
    pub deadline: Option<Instant>,
    /// Cancelled when the user has hung up, or when a later request about the call supersedes this
    /// one. No attempt begins after that, and a running one is the last.
    pub overtaken: CancellationToken,
}

/// The call that a request is about.
#[derive(Clone)]
pub enum CallTarget {
    /// An existing call, by Meta's id.
    Call(Wacid),
    /// A new call to the user with these digits (`connect`).
    User(String),
}

impl ActionRequest {
    /// A `reject` or `terminate`.
    pub fn ending(
        phone_number_id: PhoneNumberId,
        token: Option<Secret>,
        wacid: Wacid,
        action: GraphAction,
    ) -> Self {
        Self {
            phone_number_id,
            token,
            about: CallTarget::Call(wacid),
            action,
            sdp: None,
            opaque: None,
            deadline: None,
            overtaken: CancellationToken::new(),
        }
    }

    fn body(&self) -> Bytes {
        let sdp = || self.sdp.as_ref().map(|sdp| sdp.as_ref().to_owned());
        let mut body = match &self.about {
            CallTarget::User(user) => CallRequest::connect(user, sdp().unwrap_or_default()),
            CallTarget::Call(wacid) => {
                let mut body = CallRequest::about(wacid.clone(), self.action);
                let answers = matches!(self.action, GraphAction::PreAccept | GraphAction::Accept);
                body.session =
                    sdp().filter(|_| answers).map(|sdp| Session { sdp_type: SdpType::Answer, sdp });
                body
            }
        };
        if matches!(self.action, GraphAction::Connect | GraphAction::Accept) {
            body.biz_opaque_callback_data.clone_from(&self.opaque);
        }
        // The body contains only strings, so it always serializes.
        serde_json::to_vec(&body).unwrap_or_default().into()
    }
}

/// An attempt, for the trace of a slow call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Try {
    pub begun: Instant,
    /// When the attempt left its number's queue. `None` if it never did.
    pub sent: Option<Instant>,
    pub ended: Instant,
    /// The HTTP status, or a word of `status_label`.
    pub how: Result<u16, &'static str>,
}

/// The result of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    pub outcome: GraphOutcome,
    /// The call that a `connect` created.
    pub made: Option<Wacid>,
}

type Http<B = Full<Bytes>> = Client<HttpsConnector<HttpConnector>, B>;

/// The Graph client. A node has one.
pub struct Graph {
    pub(super) http: Http,
    /// A separate client for the rejects of calls that were not admitted. They may be sent from
    /// another runtime, and a connection belongs to the runtime that opened it.
    reject_http: Http,
    pub(super) upload_http: Http<FileBody>,
    pub(super) config: GraphConfig,
    pub(super) clock: Clock,
    lanes: DashMap<PhoneNumberId, Arc<Lane>>,
    budget: Mutex<Budget>,
    token_listener: OnceLock<TokenListener>,
}

/// A listener for requests whose token Graph refused. Its arguments are the node of the request and
/// the token, which is `None` for the node's default.
pub type TokenListener = Box<dyn Fn(&PhoneNumberId, Option<&Secret>) + Send + Sync>;

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Graph({})", self.config.base_url)
    }
}

/// The outcome of a 200 whose body can't be read.
pub(super) const UNREADABLE: GraphOutcome = GraphOutcome::ServerError { status: 200, code: 0 };
/// The maximum size of an answer in bytes. Typical answers have a few hundred.
pub(super) const ANSWER_MAX: usize = 64 * 1024;
/// The minimum length of a token. A shorter string could occur in any text by chance.
const TOKEN_MIN: usize = 8;
/// Maximum idle time of a connection; slightly less than load balancers allow.
const IDLE_MAX: Duration = Duration::from_secs(55);

/// The number of waiting requests of one number at which no further call is admitted. All calls
/// that a number may have (1,000 by default) can arrive simultaneously with a request each, and
/// admitted calls still need room for later requests.
const CALLS_WAITING_MAX: usize = 1_024;
/// The waiting time at which no further call is admitted, however few requests wait. Callers would
/// notice a longer delay.
const CALL_WAIT_MAX: Duration = Duration::from_millis(250);
/// The waiting time at which calls are no longer rejected. The target is half a second, but a late
/// reject causes less work than a repeated webhook. Beyond this limit Graph is slower than the
/// rejects arrive, and the queue would only grow.
const REJECT_WAIT_MAX: Duration = Duration::from_secs(10);

impl Graph {
    /// Creates a client without connections. The first client of a process blocks while it loads
    /// the system's root certificates.
    ///
    /// # Errors
    /// Fails if the base URL is invalid, or if the TLS library rejects its defaults.
    pub fn new(mut config: GraphConfig, clock: Clock) -> Result<Self, SetupError> {
        config.base_url.truncate(config.base_url.trim_end_matches('/').len());
        let base = config.base_url.parse::<Uri>().ok();
        if !base.is_some_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some()
        }) {
            return Err(SetupError::BaseUrl(config.base_url));
        }
        let tls = client_tls()?;
        let http = client(&config, tls.clone());
        let reject_http = client(&config, tls.clone());
        let upload_http = client(&config, tls);
        let budget = Mutex::new(Budget::new(clock.now()));
        let (lanes, token_listener) = (DashMap::new(), OnceLock::new());
        Ok(Self { http, reject_http, upload_http, config, clock, lanes, budget, token_listener })
    }

    /// Sets the listener for refused tokens. Only the first call has an effect.
    pub fn on_refused_token(&self, listener: TokenListener) {
        let _ = self.token_listener.set(listener);
    }

    /// Logs a permanent refusal that needs an operator, and notifies the listener if it concerns
    /// the token.
    pub(super) fn report_refusal(
        &self,
        node: &PhoneNumberId,
        token: Option<&Secret>,
        (status, code): (u16, i64),
        details: &str,
    ) {
        if !is_alarm(status, code) {
            return;
        }
        if self.config.logs_refusals {
            tracing::error!(phone_number_id = %node, code, details, "graph refused the request; check the token, the account and its payment");
        }
        if let Some(listener) = self.token_listener.get().filter(|_| is_token_refused(status, code))
        {
            listener(node, token);
        }
    }

    /// Graph's clock, from the `Date` header of an answer.
    ///
    /// # Errors
    /// Fails if Graph is unreachable or sends no valid date.
    pub async fn date(&self) -> Result<Timestamp, GraphOutcome> {
        let request = Request::get(format!("{}/", self.config.base_url)).body(Full::default());
        let request = request.map_err(|_| GraphOutcome::Unreachable)?;
        let asked =
            tokio::time::timeout(self.config.request_timeout, self.http.request(request)).await;
        let answer =
            asked.map_err(|_| GraphOutcome::Timeout)?.map_err(|_| GraphOutcome::Unreachable)?;
        let date = answer.headers().get(http::header::DATE).and_then(|date| date.to_str().ok());
        date.and_then(http_date).ok_or(UNREADABLE)
    }

    /// Returns whether the queue for a number's calls is too long to admit further calls.
    pub fn is_behind(&self, number: &PhoneNumberId) -> bool {
        self.lanes.get(number).is_some_and(|lane| {
            lane.calls.waiting() >= CALLS_WAITING_MAX
                || lane.calls.age(self.clock.now()) > CALL_WAIT_MAX
        })
    }

    /// Returns whether the queue of a number's rejects is so slow that a further one would be too
    /// late.
    pub fn is_behind_with_rejects(&self, number: &PhoneNumberId) -> bool {
        self.lanes
            .get(number)
            .is_some_and(|lane| lane.rejects.age(self.clock.now()) > REJECT_WAIT_MAX)
    }

    /// Sends an action on a call, with retries. Dropping the future cancels it.
    pub async fn call_action(&self, request: ActionRequest) -> GraphOutcome {
        self.call_action_watched(request, |_| {}).await.outcome
    }

    /// Like [`Graph::call_action`], and calls `on_try` at the end of each attempt.
    pub async fn call_action_watched(
        &self,
        request: ActionRequest,
        on_try: impl FnMut(Try),
    ) -> Answered {
        let mut made = None;
        let outcome = self.carry_out(request, on_try, &mut made).await;
        Answered { outcome, made }
    }

    async fn carry_out(
        &self,
        request: ActionRequest,
        mut on_try: impl FnMut(Try),
        made: &mut Option<Wacid>,
    ) -> GraphOutcome {
        let Some(sending) = self.prepare(&request) else {
            return GraphOutcome::Unreachable;
        };
        let action = request.action;
        let overtaken = &request.overtaken;
        let begun =
            RetryState::begin(action, request.deadline, overtaken.is_cancelled(), self.clock.now());
        let mut state = match begun {
            Ok(state) => state,
            Err(too_late) => return too_late,
        };
        loop {
            let came = self.attempt(&sending, &mut state, overtaken, &mut on_try).await;
            if let Ok(Ok(Verdict::Connected { wacid })) = &came {
                *made = Some(wacid.clone());
            }
            let (policy, jitter) = (&self.config.policy, (self.config.jitter)());
            let action = action.as_str();
            let next = match came {
                Ok(came) => self.with_budget(|budget, now| {
                    state.finish_attempt(
                        came,
                        policy,
                        jitter,
                        overtaken.is_cancelled(),
                        now,
                        budget,
                    )
                }),
                Err(held_back) => held_back,
            };
            match next {
                NextStep::Retry { pause, or_else } => {
                    tracing::debug!(
                        action,
                        tries = state.tries(),
                        ?pause,
                        "retrying graph request"
                    );
                    if overtaken.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                        return or_else;
                    }
                }
                NextStep::Done(outcome) => {
                    if let GraphOutcome::Refused { status, code, details } = &outcome {
                        self.report_refusal(
                            &request.phone_number_id,
                            request.token.as_ref(),
                            (*status, *code),
                            details,
                        );
                    }
                    return outcome;
                }
                NextStep::OutOfBudget(outcome) => {
                    tracing::warn!(
                        action,
                        "graph request not retried: a tenth of all requests are retries"
                    );
                    return outcome;
                }
            }
        }
    }

    /// Like [`Graph::call_action`], but repeats a failed request every 15 s for a minute. Use it to
    /// end a call that has no machine any more and must not keep ringing at Meta.
    pub async fn call_action_to_the_end(&self, request: ActionRequest) -> GraphOutcome {
        let begun = self.clock.now();
        loop {
            let outcome = self.call_action(request.clone()).await;
            let asked_for = self.clock.now().saturating_duration_since(begun);
            if outcome.is_settled()
                || request.overtaken.is_cancelled()
                || asked_for >= self.config.ending_max
            {
                return outcome;
            }
            tokio::time::sleep(self.config.ending_again).await;
        }
    }

    pub(super) fn with_budget<R>(&self, ask: impl FnOnce(&mut Budget, Instant) -> R) -> R {
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        ask(&mut budget, self.clock.now())
    }

    fn prepare(&self, request: &ActionRequest) -> Option<PreparedRequest> {
        let (uri, headers) =
            self.head(&request.phone_number_id, "calls", request.token.as_ref())?;
        Some(PreparedRequest {
            action: request.action,
            // Admitted calls have opaque data.
            is_reject: request.action == GraphAction::Reject && request.opaque.is_none(),
            uri,
            headers,
            body: request.body(),
            lane: self.lane(&request.phone_number_id),
        })
    }

    /// Returns the URL and headers of a request about a number or another Graph object. If they
    /// can't be encoded, this is logged, and the result is `None`.
    pub(super) fn head(
        &self,
        number: &PhoneNumberId,
        path: &str,
        token: Option<&Secret>,
    ) -> Option<(Uri, HeaderMap)> {
        // A query on the object itself follows without a slash.
        let slash = if path.is_empty() || path.starts_with('?') { "" } else { "/" };
        let uri = format!("{}/{number}{slash}{path}", self.config.base_url).parse();
        let token = token.unwrap_or(&self.config.token);
        let bearer = HeaderValue::try_from(format!("Bearer {}", token.reveal()));
        let agent = HeaderValue::try_from(&self.config.user_agent);
        let (Ok(uri), Ok(mut bearer), Ok(agent)) = (uri, bearer, agent) else {
            tracing::error!(phone_number_id = %number, "graph request not sent: invalid id or token");
            return None;
        };
        bearer.set_sensitive(true);
        let json = HeaderValue::from_static("application/json");
        Some((
            uri,
            HeaderMap::from_iter([
                (AUTHORIZATION, bearer),
                (CONTENT_TYPE, json),
                (USER_AGENT, agent),
            ]),
        ))
    }

    /// The lane of a number's requests.
    pub(super) fn lane(&self, number: &PhoneNumberId) -> Arc<Lane> {
        self.lanes
            .entry(number.clone())
            .or_insert_with(|| Lane::new(&self.config, self.clock.now()))
            .clone()
    }

    /// Makes one attempt: waits in the lane, sends within the time limit, and records the metric.
    /// Fails with the next step if the attempt must not be sent.
    async fn attempt(
        &self,
        sending: &PreparedRequest,
        state: &mut RetryState,
        overtaken: &CancellationToken,
        on_try: &mut impl FnMut(Try),
    ) -> Result<Result<Verdict, Fault>, NextStep> {
        let begun = self.clock.now();
        let time = state.time(begun, self.config.request_timeout);
        let mut sent = None;
        let mut held_back = None;
        let exchange = async {
            let _place = sending
                .lane
                .enter(if sending.is_reject { Kind::Reject } else { Kind::Call }, begun)
                .await?;
            held_back = self.with_budget(|budget, now| {
                sent = Some(now);
                state.begin_attempt(overtaken.is_cancelled(), now, budget)
            });
            match held_back {
                Some(_) => Err(Fault::Unreachable),
                None => self.exchange(sending).await,
            }
        };
        let answered = tokio::time::timeout(time, exchange).await.unwrap_or(Err(Fault::Timeout));
        if let Some(held_back) = held_back {
            return Err(held_back);
        }
        let how = match &answered {
            Ok((status, _)) => Ok(*status),
            Err(Fault::Timeout) => Err(status_label::TIMEOUT),
            Err(_) => Err(status_label::ERROR),
        };
        let ended = self.clock.now();
        on_try(Try { begun, sent, ended, how });
        let took = ended.saturating_duration_since(begun).as_secs_f64();
        let action = sending.action.as_str();
        let is_ending = matches!(sending.action, GraphAction::Reject | GraphAction::Terminate);
        let status = match &answered {
            Ok((_, Verdict::Gone)) if is_ending => metric::graph::GONE.to_owned(),
            _ => how.map_or_else(str::to_owned, status_label::of),
        };
        metrics::histogram!(metric::GRAPH_REQUEST_SECONDS, "action" => action, "status" => status)
            .record(took);
        Ok(answered.map(|(_, verdict)| verdict))
    }

    async fn exchange(&self, sending: &PreparedRequest) -> Result<(u16, Verdict), Fault> {
        let mut request = Request::new(Full::new(sending.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = sending.uri.clone();
        *request.headers_mut() = sending.headers.clone();
        let http = if sending.is_reject { &self.reject_http } else { &self.http };
        let GraphResponse { status, retry_after, body } =
            self.send(http, request, &sending.headers, ANSWER_MAX).await?;
        Ok((status, classify(sending.action, status, retry_after, &body)))
    }

    /// Sends `request` and reads the response, whose body has at most `answer_max` bytes. `headers`
    /// are those of the request.
    pub(super) async fn send(
        &self,
        http: &Http<Full<Bytes>>,
        request: Request<Full<Bytes>>,
        headers: &HeaderMap,
        answer_max: usize,
    ) -> Result<GraphResponse, Fault> {
        let response = http.request(request).await.map_err(|error| {
            tracing::debug!(%error, "no answer from graph");
            if error.is_connect() { Fault::Unreachable } else { Fault::Broken }
        })?;
        let status = response.status().as_u16();
        let retry_after = retry_after(response.headers());
        let body = Limited::new(response.into_body(), answer_max)
            .collect()
            .await
            .map_err(|_| Fault::Broken)?
            .to_bytes();
        let body = match self.redact_tokens(&body, headers) {
            Cow::Owned(redacted) => redacted.into(),
            Cow::Borrowed(_) => body,
        };
        Ok(GraphResponse { status, retry_after, body })
    }

    /// Removes the node's tokens from Graph's answer. Graph quotes a malformed token, and its
    /// answers are logged.
    pub(super) fn redact_tokens<'a>(&self, body: &'a [u8], headers: &HeaderMap) -> Cow<'a, [u8]> {
        let sent = headers.get(AUTHORIZATION).and_then(|h| std::str::from_utf8(h.as_bytes()).ok());
        let sent = sent.and_then(|h| h.strip_prefix("Bearer ")).unwrap_or_default();
        let mut redacted = Cow::Borrowed(body);
        for token in
            [sent, self.config.token.reveal()].into_iter().filter(|token| token.len() >= TOKEN_MIN)
        {
            if memchr::memmem::find(&redacted, token.as_bytes()).is_some() {
                redacted = Cow::Owned(
                    String::from_utf8_lossy(&redacted).replace(token, "(token)").into_bytes(),
                );
            }
        }
        redacted
    }
}

/// A response of Graph without the node's tokens.
pub(super) struct GraphResponse {
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Bytes,
}

fn client<B>(config: &GraphConfig, tls: rustls::ClientConfig) -> Http<B>
where
    B: hyper::body::Body<Data: Send> + Send,
{
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(config.connect_timeout));
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_all_versions()
        .wrap_connector(tcp);
    Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_MAX)
        .pool_max_idle_per_host(config.under_way_max)
        .build(connector)
}

/// A request, which is the same in each attempt.
struct PreparedRequest {
    action: GraphAction,
    /// Whether the request rejects a call that was not admitted.
    is_reject: bool,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
    lane: Arc<Lane>,
}

/// The requests of one phone number: those in flight, and bounded queues. Rejects get at most three
/// quarters of the places and requests that are not about calls at most half, each with its own
/// queue, so that a flood of them does not delay the requests of admitted calls.
pub(super) struct Lane {
    places: Semaphore,
    reject_places: Semaphore,
    /// The places for requests that are not about calls.
    other_places: Semaphore,
    calls: WaitMeter,
    rejects: WaitMeter,
    other: WaitMeter,
    waiting_max: usize,
}

/// A place among the requests in flight.
pub(super) struct InFlight<'a> {
    _turn: Option<SemaphorePermit<'a>>,
    _place: SemaphorePermit<'a>,
}

/// A waiting request. Dropping it leaves the queue.
struct Waiting<'a> {
    line: &'a WaitMeter,
    place: WaitToken,
    served: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.served { self.line.serve(self.place) } else { self.line.leave() }
    }
}

impl Lane {
    fn new(config: &GraphConfig, now: Instant) -> Arc<Self> {
        Arc::new(Self {
            places: Semaphore::new(config.under_way_max),
            reject_places: Semaphore::new((config.under_way_max * 3).div_ceil(4)),
            other_places: Semaphore::new((config.under_way_max / OTHER_SHARE).max(1)),
            calls: WaitMeter::new(now),
            rejects: WaitMeter::new(now),
            other: WaitMeter::new(now),
            waiting_max: config.waiting_max,
        })
    }

    pub(super) async fn enter(&self, kind: Kind, now: Instant) -> Result<InFlight<'_>, Fault> {
        let (turns, line) = match kind {
            Kind::Call => (None, &self.calls),
            Kind::Reject => (Some(&self.reject_places), &self.rejects),
            Kind::Other => (Some(&self.other_places), &self.other),
        };
        let mut turn = turns.and_then(|turns| turns.try_acquire().ok());
        if turn.is_some() == turns.is_some()
            && let Ok(place) = self.places.try_acquire()
        {
            return Ok(InFlight { _turn: turn, _place: place });
        }
        let (place, ahead) = line.enter(now);
        let mut waiting = Waiting { line, place, served: false };
        if ahead >= self.waiting_max {
            crate::count_refused(metric::queue::GRAPH);
            return Err(LANE_FULL);
        }
        if let (None, Some(turns)) = (&turn, turns) {
            turn = Some(turns.acquire().await.map_err(|_| LANE_FULL)?);
        }
        let place = self.places.acquire().await.map_err(|_| LANE_FULL)?;
        waiting.served = true;
        Ok(InFlight { _turn: turn, _place: place })
    }
}

/// The kind of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Call,
    /// The reject of a call that was not admitted.
    Reject,
    /// A request that is not about a call.
    Other,
}

/// The reciprocal of the share of a number's places that requests not about calls may use.
const OTHER_SHARE: usize = 2;

/// The fault for a full lane. It counts as a rate limit.
const LANE_FULL: Fault = Fault::Answered(Retryable {
    trouble: TemporaryFailure::Rate { code: 0 },
    once: false,
    after: None,
});

/// The value of `Retry-After` in seconds. Dates are not supported; Graph sends none.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
#[path = "graph_tests.rs"]
mod tests;
