//! Asks Graph about calls, tries again where that helps, and says in one small fact how it ended.
//!
//! Connections are kept alive. At most 64 requests are under way per phone number, a bounded number wait, and each
//! try ends within its time (R6). Tokens travel in one header, marked sensitive, and stand in no log.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dashmap::DashMap;
use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

use super::asking::{Asking, Next};
use super::error::{Again, Trouble, Verdict, classify, is_alarm, is_token_refused};
use super::retry::{Budget, Fault, Policy};
use super::status_label;
use super::types::{Action, CallRequest, SdpType, Session};
use super::upload::FileBody;
use egress::client_tls;
use machine::{GraphAction, GraphOutcome};
use model::Clock;
use model::Secret;
use model::metric;
use model::{PhoneNumberId, Wacid, WaitMeter, WaitToken};

/// Where Graph is and how it is asked; the defaults are those of `meta-calling.md` §4.
#[derive(Clone, Debug)]
pub struct GraphConfig {
    /// `[meta].graph_url`: version included, no slash at the end.
    pub base_url: String,
    /// For numbers whose WABA has no token of its own.
    pub token: Secret,
    /// `offhook/<version>`.
    pub user_agent: String,
    /// TCP connection.
    pub connect_timeout: Duration,
    /// One try, from the connection to the last byte.
    pub request_timeout: Duration,
    /// Requests under way per phone number.
    pub under_way_max: usize,
    /// Requests waiting behind those, per phone number; further ones fail at once.
    pub waiting_max: usize,
    pub policy: Policy,
    /// How often the end of a call that is over is asked for anew, and for how long.
    pub ending_again: Duration,
    pub ending_max: Duration,
    /// The dice for the pauses: 0 … 1.
    pub roll: fn() -> f64,
}

impl GraphConfig {
    /// Graph at `base_url`, asked as the spec says.
    pub fn new(base_url: impl Into<String>, token: Secret) -> Self {
        Self {
            base_url: base_url.into(),
            token,
            user_agent: concat!("offhook/", env!("CARGO_PKG_VERSION")).to_owned(),
            connect_timeout: Duration::from_secs(2),
            request_timeout: Duration::from_secs(5),
            under_way_max: 64,
            waiting_max: 4_096,
            policy: Policy::default(),
            ending_again: Duration::from_secs(15),
            ending_max: Duration::from_secs(60),
            roll: rand::random::<f64>,
        }
    }
}

/// Why a client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("use {0:?} as graph_url: it must be an absolute http or https URL")]
    BaseUrl(String),
    #[error("set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// One action on one call.
#[derive(Clone)]
pub struct ActionRequest {
    pub phone_number_id: PhoneNumberId,
    /// None: the node's default.
    pub token: Option<Secret>,
    pub about: About,
    pub action: GraphAction,
    /// Our offer, of `connect`; our answer, of `pre_accept` and `accept`: byte for byte the same in both.
    pub sdp: Option<Arc<str>>,
    /// `biz_opaque_callback_data`, of `connect` and `accept`.
    pub opaque: Option<String>,
    /// No try begins or lasts past this instant: the end of the answer window (`meta-calling.md` §7).
    pub deadline: Option<Instant>,
    /// Once cancelled no try begins any more, and one under way is the last: the user has gone, or a later request
    /// about the call has taken this one's place (R6).
    pub overtaken: CancellationToken,
}

/// Which call a request is about.
#[derive(Clone)]
pub enum About {
    /// Meta's id of it.
    Call(Wacid),
    /// One to be made, to the user with these digits (`connect`).
    User(String),
}

impl ActionRequest {
    /// That a call is to end: `reject` or `terminate`.
    pub fn ending(
        phone_number_id: PhoneNumberId,
        token: Option<Secret>,
        wacid: Wacid,
        action: GraphAction,
    ) -> Self {
        Self {
            phone_number_id,
            token,
            about: About::Call(wacid),
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
            About::User(user) => CallRequest::connect(user, sdp().unwrap_or_default()),
            About::Call(wacid) => {
                let mut body = CallRequest::about(wacid.clone(), self.action.into());
                let answers = matches!(self.action, GraphAction::PreAccept | GraphAction::Accept);
                body.session =
                    sdp().filter(|_| answers).map(|sdp| Session { sdp_type: SdpType::Answer, sdp });
                body
            }
        };
        if matches!(self.action, GraphAction::Connect | GraphAction::Accept) {
            body.biz_opaque_callback_data.clone_from(&self.opaque);
        }
        // Strings and words only: there is nothing in it that JSON could not say.
        serde_json::to_vec(&body).unwrap_or_default().into()
    }
}

/// One try of a request: for the trace of a slow call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Try {
    pub begun: Instant,
    /// It left its number's queue; none where it never did.
    pub sent: Option<Instant>,
    pub ended: Instant,
    /// Status, or a word of `status_label`.
    pub how: Result<u16, &'static str>,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    pub outcome: GraphOutcome,
    /// The call that a `connect` made.
    pub made: Option<Wacid>,
}

type Http<B = Full<Bytes>> = Client<HttpsConnector<HttpConnector>, B>;

/// The client; one per node.
pub struct Graph {
    pub(super) http: Http,
    /// For the rejects of calls that were not let in: whoever asks for one may do so on another runtime, and a
    /// connection lives on the one that made it.
    http_of_rejects: Http,
    pub(super) http_of_files: Http<FileBody>,
    pub(super) config: GraphConfig,
    pub(super) clock: Clock,
    lanes: DashMap<PhoneNumberId, Arc<Lane>>,
    budget: Mutex<Budget>,
    ear: OnceLock<TokenEar>,
}

/// Hears of each request whose token Graph refused: about what it was, and the token; none: the node's default.
pub type TokenEar = Box<dyn Fn(&PhoneNumberId, Option<&Secret>) + Send + Sync>;

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Graph({})", self.config.base_url)
    }
}

/// Longest answer that is read, in bytes; real ones have a few hundred.
pub(super) const ANSWER_MAX: usize = 64 * 1024;
/// A token that is shorter is none, and would be found in any text.
const TOKEN_MIN: usize = 8;
/// Connections kept without use: a little under what load balancers allow.
const IDLE_MAX: Duration = Duration::from_secs(55);

/// Requests of one number waiting past which no further call is taken (R10). All calls that a number may have (1,000 by
/// default) may come at one instant, with a request each; what those that were let in ask for later still has room.
const BEHIND: usize = 1_024;
/// Waiting for that long forbids a further call too, however few wait: its caller would hear it.
const BEHIND_FOR: Duration = Duration::from_millis(250);
/// Rejects are to be at Graph within half a second (R10). Late is better than a webhook that comes again, which is more
/// work; past this Graph takes fewer than come, and the line would only grow until nobody's phone rings any more.
const REJECTS_BEHIND_FOR: Duration = Duration::from_secs(10);

impl Graph {
    /// Makes an empty pool. The first client of a process blocks while the system's certificate authorities are read.
    ///
    /// # Errors
    /// The base URL is none, or the TLS library refuses its own defaults.
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
        let http_of_rejects = client(&config, tls.clone());
        let http_of_files = client(&config, tls);
        let budget = Mutex::new(Budget::new(clock.now()));
        let (lanes, ear) = (DashMap::new(), OnceLock::new());
        Ok(Self { http, http_of_rejects, http_of_files, config, clock, lanes, budget, ear })
    }

    /// From now on, whoever this is hears of tokens that are refused; the first who says so counts.
    pub fn tell_of_tokens(&self, ear: TokenEar) {
        let _ = self.ear.set(ear);
    }

    /// Graph said no for good: whoever has to put it right hears of it.
    pub(super) fn refused(
        &self,
        node: &PhoneNumberId,
        token: Option<&Secret>,
        (status, code): (u16, i64),
        details: &str,
    ) {
        if !is_alarm(status, code) {
            return;
        }
        tracing::error!(phone_number_id = %node, code, details, "Graph refuses: check token, account, payment");
        if let Some(ear) = self.ear.get().filter(|_| is_token_refused(status, code)) {
            ear(node, token);
        }
    }

    /// Whether requests about a number's calls wait for so many before them that a further call had better not begin.
    pub fn is_behind(&self, number: &PhoneNumberId) -> bool {
        self.lanes.get(number).is_some_and(|lane| {
            lane.calls.waiting() >= BEHIND || lane.calls.age(self.clock.now()) > BEHIND_FOR
        })
    }

    /// Whether rejects of a number's calls wait for so long that a further one would come too late.
    pub fn is_behind_with_rejects(&self, number: &PhoneNumberId) -> bool {
        self.lanes
            .get(number)
            .is_some_and(|lane| lane.rejects.age(self.clock.now()) > REJECTS_BEHIND_FOR)
    }

    /// Carries out an action on a call, further tries included. Dropping the future gives it up.
    pub async fn call_action(&self, request: ActionRequest) -> GraphOutcome {
        self.call_action_watched(request, |_| {}).await.outcome
    }

    /// [`Graph::call_action`], and `on_try` is told of each try at its end.
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
        let Some(sending) = self.sending(&request) else {
            return GraphOutcome::Unreachable;
        };
        let action = Action::from(request.action);
        let overtaken = &request.overtaken;
        let begun =
            Asking::begin(action, request.deadline, overtaken.is_cancelled(), self.clock.now());
        let mut asking = match begun {
            Ok(asking) => asking,
            Err(too_late) => return too_late,
        };
        loop {
            let came = self.attempt(&sending, &mut asking, overtaken, &mut on_try).await;
            if let Ok(Ok(Verdict::Connected { wacid })) = &came {
                *made = Some(wacid.clone());
            }
            let (policy, roll) = (&self.config.policy, (self.config.roll)());
            let action = action.as_str();
            let next = match came {
                Ok(came) => self.with_budget(|budget, now| {
                    asking.tried(came, policy, roll, overtaken.is_cancelled(), now, budget)
                }),
                Err(held_back) => held_back,
            };
            match next {
                Next::Again { pause, or_else } => {
                    tracing::debug!(action, tries = asking.tries(), ?pause, "Graph: once more");
                    if overtaken.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                        return or_else;
                    }
                }
                Next::Done(outcome) => {
                    if let GraphOutcome::Refused { status, code, details } = &outcome {
                        self.refused(
                            &request.phone_number_id,
                            request.token.as_ref(),
                            (*status, *code),
                            details,
                        );
                    }
                    return outcome;
                }
                Next::OutOfBudget(outcome) => {
                    tracing::warn!(
                        action,
                        "Graph: no further try, a tenth of all requests are retries"
                    );
                    return outcome;
                }
            }
        }
    }

    /// As [`Graph::call_action`], and where that came to nothing again each 15 s, for a minute (`meta-calling.md` §4.7):
    /// for the end of a call of which nothing is left here to ask, and which must not go on ringing at Meta.
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

    fn sending(&self, request: &ActionRequest) -> Option<Sending> {
        let (uri, headers) =
            self.head(&request.phone_number_id, "calls", request.token.as_ref())?;
        Some(Sending {
            action: request.action.into(),
            // One that was let in has a name of ours to give.
            refused: request.action == GraphAction::Reject && request.opaque.is_none(),
            uri,
            headers,
            body: request.body(),
            lane: self.lane(&request.phone_number_id),
        })
    }

    /// Where a request about a number, or another node of Graph's, goes, and its headers; none, and logged, where they can't be written.
    pub(super) fn head(
        &self,
        number: &PhoneNumberId,
        path: &str,
        token: Option<&Secret>,
    ) -> Option<(Uri, HeaderMap)> {
        // What is asked of a node itself stands in the query.
        let slash = if path.is_empty() || path.starts_with('?') { "" } else { "/" };
        let uri = format!("{}/{number}{slash}{path}", self.config.base_url).parse();
        let token = token.unwrap_or(&self.config.token);
        let bearer = HeaderValue::try_from(format!("Bearer {}", token.reveal()));
        let agent = HeaderValue::try_from(&self.config.user_agent);
        let (Ok(uri), Ok(mut bearer), Ok(agent)) = (uri, bearer, agent) else {
            tracing::error!(phone_number_id = %number, "Graph: id or token can't stand in a request");
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

    /// The queue of a number's requests.
    pub(super) fn lane(&self, number: &PhoneNumberId) -> Arc<Lane> {
        self.lanes
            .entry(number.clone())
            .or_insert_with(|| Lane::new(&self.config, self.clock.now()))
            .clone()
    }

    /// One try: its place in the lane, its time, its metric; or what follows where it may not go out after all.
    async fn attempt(
        &self,
        sending: &Sending,
        asking: &mut Asking,
        overtaken: &CancellationToken,
        on_try: &mut impl FnMut(Try),
    ) -> Result<Result<Verdict, Fault>, Next> {
        let begun = self.clock.now();
        let time = asking.time(begun, self.config.request_timeout);
        let mut sent = None;
        let mut held_back = None;
        let exchange = async {
            let _place = sending
                .lane
                .enter(if sending.refused { Kind::Reject } else { Kind::Call }, begun)
                .await?;
            held_back = self.with_budget(|budget, now| {
                sent = Some(now);
                asking.sends(overtaken.is_cancelled(), now, budget)
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
        let status = how.map_or_else(str::to_owned, status_label::of);
        metrics::histogram!(metric::GRAPH_REQUEST_SECONDS, "action" => action, "status" => status)
            .record(took);
        Ok(answered.map(|(_, verdict)| verdict))
    }

    async fn exchange(&self, sending: &Sending) -> Result<(u16, Verdict), Fault> {
        let mut request = Request::new(Full::new(sending.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = sending.uri.clone();
        *request.headers_mut() = sending.headers.clone();
        let http = if sending.refused { &self.http_of_rejects } else { &self.http };
        let answer = http.request(request).await.map_err(|error| {
            tracing::debug!(%error, "Graph: no answer");
            if error.is_connect() { Fault::Unreachable } else { Fault::Broken }
        })?;
        let status = answer.status().as_u16();
        let after = retry_after(answer.headers());
        let body = Limited::new(answer.into_body(), ANSWER_MAX)
            .collect()
            .await
            .map_err(|_| Fault::Broken)?;
        let body = body.to_bytes();
        let told = self.without_tokens(&body, &sending.headers);
        Ok((status, classify(sending.action, status, after, &told)))
    }

    /// What Graph said, our tokens left out of it: it quotes a malformed one, and what it says is logged (R22).
    pub(super) fn without_tokens<'a>(&self, body: &'a [u8], headers: &HeaderMap) -> Cow<'a, [u8]> {
        let sent = headers.get(AUTHORIZATION).and_then(|h| std::str::from_utf8(h.as_bytes()).ok());
        let sent = sent.and_then(|h| h.strip_prefix("Bearer ")).unwrap_or_default();
        let mut told = Cow::Borrowed(body);
        for token in
            [sent, self.config.token.reveal()].into_iter().filter(|token| token.len() >= TOKEN_MIN)
        {
            if memchr::memmem::find(&told, token.as_bytes()).is_some() {
                told = Cow::Owned(
                    String::from_utf8_lossy(&told).replace(token, "(token)").into_bytes(),
                );
            }
        }
        told
    }
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

/// A request that is the same at each try.
struct Sending {
    action: Action,
    /// The reject of a call that was not let in.
    refused: bool,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
    lane: Arc<Lane>,
}

/// Requests of one phone number: so many under way, so many waiting. Rejects get three quarters of the places at most, what
/// is about no call a half, and each waits in a line of its own, so that a storm of them delays no request about a call that
/// was let in (R10).
pub(super) struct Lane {
    places: Semaphore,
    reject_places: Semaphore,
    /// Of what is about no call: messages, questions.
    aside_places: Semaphore,
    calls: WaitMeter,
    rejects: WaitMeter,
    aside: WaitMeter,
    waiting_max: usize,
}

/// A place among the requests under way.
pub(super) struct UnderWay<'a> {
    _turn: Option<SemaphorePermit<'a>>,
    _place: SemaphorePermit<'a>,
}

/// One that waits; leaves its line however that ends.
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
            aside_places: Semaphore::new((config.under_way_max / ASIDE).max(1)),
            calls: WaitMeter::new(now),
            rejects: WaitMeter::new(now),
            aside: WaitMeter::new(now),
            waiting_max: config.waiting_max,
        })
    }

    pub(super) async fn enter(&self, kind: Kind, now: Instant) -> Result<UnderWay<'_>, Fault> {
        let (turns, line) = match kind {
            Kind::Call => (None, &self.calls),
            Kind::Reject => (Some(&self.reject_places), &self.rejects),
            Kind::Aside => (Some(&self.aside_places), &self.aside),
        };
        let mut turn = turns.and_then(|turns| turns.try_acquire().ok());
        if turn.is_some() == turns.is_some()
            && let Ok(place) = self.places.try_acquire()
        {
            return Ok(UnderWay { _turn: turn, _place: place });
        }
        let (place, ahead) = line.enter(now);
        let mut waiting = Waiting { line, place, served: false };
        if ahead >= self.waiting_max {
            crate::count_refused(metric::queue::GRAPH);
            return Err(OURS_FULL);
        }
        if let (None, Some(turns)) = (&turn, turns) {
            turn = Some(turns.acquire().await.map_err(|_| OURS_FULL)?);
        }
        let place = self.places.acquire().await.map_err(|_| OURS_FULL)?;
        waiting.served = true;
        Ok(UnderWay { _turn: turn, _place: place })
    }
}

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Call,
    /// A call that was not let in.
    Reject,
    /// No call: a message, a question.
    Aside,
}

/// One in so many of a number's places may be taken by requests about no call, so that no flood of messages stands in a
/// call's way.
const ASIDE: usize = 2;

/// Our own lane is full: as if Graph had said that it is asked too often.
const OURS_FULL: Fault =
    Fault::Answered(Again { trouble: Trouble::Rate { code: 0 }, once: false, after: None });

/// `Retry-After` in seconds; a date is not read (Graph sends none).
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
#[path = "graph_tests.rs"]
mod tests;
