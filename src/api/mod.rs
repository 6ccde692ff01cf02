//! The HTTP APIs and the public listener.
//!
//! [`server`] is the listener; [`auth`] and [`session`] authenticate requests. `plivo` and `number`
//! are the two APIs, a module per resource. Their routes are rows of tables. Requests are
//! dispatched from these rows, and [`openapi`] generates the OpenAPI document from them.
//!
//! The APIs read ended calls from the store and live calls from [`LiveCalls`], and place calls with
//! [`CallPlacer`]; they never access a call's own state. Every query takes the [`Scope`] of the
//! principal, so that an account never sees another's resources
//! (`docs/reference/reliability.md#r16`).

mod apis;
pub mod audit;
pub mod auth;
mod body;
mod connection;
pub(crate) mod csv;
mod error;
pub(crate) mod fields;
mod heads;
mod http2_frames;
pub mod https;
mod idempotency;
mod limited_body;
mod live;
mod media;
mod number;
pub mod openapi;
mod operator;
mod pause;
mod placement;
mod plivo;
mod recordings;
mod refusals;
mod routes;
pub mod server;
pub mod session;
pub(crate) mod turns;
mod unread_body;

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};

pub use apis::{ApiResponse, Apis, Caller};
pub use body::BodyError;
pub use error::{TOO_MANY_IN_PROGRESS, listener_error};
pub use live::{
    CallSummary, CommandError, LiveCall, LiveCalls, LiveFilter, LiveList, LiveStatus, name_silent,
    newest_page,
};
pub use number::voices::SAMPLE_CHARS_MAX;
pub(crate) use number::waterfall::{evaluate_log, read_log};
pub use operator::{
    ConfigFinding, FleetStatus, NodeState, NodeStatus, Operator, ReloadOutcome, ReloadSummary,
    RequestCount, Units,
};
pub use placement::CallPlacer;
pub use recordings::FileElsewhere;

use audit::Audit;
pub(crate) use audit::finish;
use auth::{Credentials, RateLimits};
use engine::admission::Gate;
use engine::admission::book::Keeper;
use engine::agents::Agents;
use engine::call::phones::Phones;
use engine::call::rooms::Rooms;
use engine::call::{PermissionService, Recordings};
use engine::disk_space::DiskSpace;
use engine::erasure::Eraser;
use engine::feed::Feed;
use engine::inbox::Inbox;
use engine::limiter::Offenders;
use engine::numbers::Numbers;
use engine::people::People;
use error::ApiError;
use idempotency::Idempotency;
use model::AuthId;
use model::Clock;
use refusals::Owner;
use speech::model_manager::ModelManager;
use store::{Passwords, Scope, Store};

/// The services of the node that the APIs use.
pub struct Api {
    pub clock: Clock,
    /// The feed to which changes are published.
    pub feed: Feed,
    /// Business numbers: connecting them, and their settings at Meta.
    pub numbers: Numbers,
    /// Conversations and messages.
    pub inbox: Inbox,
    pub credentials: Credentials,
    pub store: Store,
    pub live: Arc<dyn LiveCalls>,
    pub placer: Arc<dyn CallPlacer>,
    pub operator: Arc<dyn Operator>,
    pub gate: Arc<Gate>,
    /// The host of `public.base_url`, which is part of the SIP addresses of endpoints.
    pub host: String,
    /// `public.base_url`: how the node is reached from outside.
    pub base_url: String,
    /// Accounts, numbers and applications, as the configuration and the APIs set them.
    pub keeper: Keeper,
    pub permissions: PermissionService,
    pub passwords: Passwords,
    /// The people of the console, and API keys that were created over the API.
    pub people: People,
    /// Registered endpoints.
    pub phones: Phones,
    /// Conferences and multi-party calls.
    pub rooms: Rooms,
    /// Speech models, and the languages and voices that documents may use.
    pub models: ModelManager,
    pub recordings: Recordings,
    /// The disk space that changes may use.
    pub space: Arc<DiskSpace>,
    pub agents: Agents,
    pub eraser: Eraser,
    /// Counts requests with wrong credentials.
    pub offenders: Option<Offenders>,
}

impl Api {
    /// Removes findings that do not apply at this node: W311 if it requests URLs without encryption,
    /// and W403 for addresses of its own endpoints.
    pub(crate) fn without_own_findings(&self, parsed: xml::ParseOutcome) -> xml::ParseOutcome {
        let parsed = parsed.allow_sip_host(&self.host);
        if self.placer.allows_http() { parsed.allow_plain_urls() } else { parsed }
    }
}

/// State shared by all handlers.
struct ApiState {
    api: Api,
    rate_limits: RateLimits,
    audit: Audit,
    number_idempotency: Idempotency,
    plivo_idempotency: Idempotency,
    /// Held while a person creates their own endpoint, so that each person has at most one.
    own_endpoints: tokio::sync::Mutex<()>,
}

/// Reads a request's body, within the limits of the APIs.
///
/// # Errors
/// Fails if the body is compressed, too large or can't be read.
pub async fn read_body(
    headers: &http::HeaderMap,
    body: axum::body::Body,
) -> Result<bytes::Bytes, BodyError> {
    body::read(headers, body).await
}

/// The routes of the APIs and their files, and a 404 for every other path.
fn router(state: Arc<ApiState>) -> Router {
    Router::new()
        .route("/v1/{*path}", any(plivo::handle))
        .route("/api/v1/{*path}", any(number::handle))
        .route("/openapi.json", get(openapi::serve))
        .route("/recordings/{file}", any(recordings::serve))
        .route("/media/{id}", any(media::serve))
        .fallback(fallback)
        .with_state(state)
}

impl ApiState {
    fn new(api: Api) -> Self {
        let [number_idempotency, plivo_idempotency] = [number::IDEMPOTENCY, plivo::IDEMPOTENCY]
            .map(|rules| Idempotency::new(rules, api.store.clone(), api.clock.clone()));
        let rate_limits = RateLimits::new(api.clock.now(), api.offenders.clone());
        let audit = Audit::new(api.store.clone(), api.clock.clone());
        let own_endpoints = tokio::sync::Mutex::default();
        Self { api, rate_limits, audit, number_idempotency, plivo_idempotency, own_endpoints }
    }

    /// Counts an authenticated request of an account.
    ///
    /// # Errors
    /// Returns an error if the account, or a main account's subaccounts together, have made too many.
    fn record_request(&self, scope: &Scope) -> Result<(), auth::AuthError> {
        if let Scope::Sub(_) = scope {
            self.rate_limits.record_of_subaccount(&self.main_account_of(scope))?;
        }
        self.rate_limits.record_request(self.api.clock.now(), scope.auth_id())
    }

    /// Whether the disk has space for a change of this account with a body of this size, in bytes.
    fn take_space(&self, scope: &Scope, bytes: usize) -> bool {
        self.api.space.take_change(&self.main_account_of(scope), bytes).is_ok()
    }

    /// The main account of a scope.
    fn main_account_of(&self, scope: &Scope) -> AuthId {
        self.api.keeper.book().main_of(scope.auth_id()).clone()
    }

    /// The accounts of a scope, in the form for the audit trail.
    fn owner_of(&self, scope: &Scope) -> Owner {
        Owner { account: scope.auth_id().clone(), main_account: self.main_account_of(scope) }
    }

    /// Adds a refused sign-in to the audit trail of `account`. If the credentials contain no
    /// existing account, the refusal is added to that of the only main account; if there are
    /// several, it is only logged. See [`record_refusal`](Audit::record_refusal).
    fn record_refusal(
        &self,
        by: &'static str,
        from: IpAddr,
        account: Option<&AuthId>,
        name: Option<&str>,
    ) {
        let book = self.api.keeper.book();
        let account = account.and_then(|id| book.account(id)).or_else(|| book.only_main_account());
        let owner = account.map(|account| self.owner_of(&Scope::of(account.auth_id.clone())));
        self.audit.record_refusal(by, from, owner, name);
    }

    /// Whether an account exists and is enabled.
    fn is_enabled(&self, account: &AuthId) -> bool {
        self.api.keeper.book().account(account).is_some_and(|account| account.details.enabled)
    }
}

type App = State<Arc<ApiState>>;

/// Serves paths of the APIs that begin with doubled slashes, which the router does not match. Other
/// paths are 404.
async fn fallback(state: App, request: Request) -> Response {
    match segments(request.uri().path()).as_slice() {
        ["v1", ..] => plivo::handle(state, request).await,
        ["api", "v1", ..] => number::handle(state, request).await,
        _ => ApiError::NotFound("no such path").into_response(),
    }
}

/// Returns the non-empty segments of a path. A missing final slash and doubled slashes are ignored.
fn segments(path: &str) -> Vec<&str> {
    path.split('/').filter(|segment| !segment.is_empty()).collect()
}

/// Percent-decodes a segment of a path.
fn decoded(segment: &str) -> String {
    // The segment is decoded as the value of a form. In a path, the special characters of forms
    // stand for themselves (RFC 3986, section 3.3).
    let form = format!("={}", segment.replace('+', "%2B").replace('&', "%26"));
    url::form_urlencoded::parse(form.as_bytes())
        .map(|(_, value)| value.into_owned())
        .next()
        .unwrap_or_default()
}

/// The names and values of the query, decoded.
fn query_pairs(request: &Request) -> Vec<(String, String)> {
    url::form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes())
        .into_owned()
        .collect()
}

/// The client's address, as the listener determined it.
fn peer(request: &Request) -> IpAddr {
    let unknown = server::Peer(std::net::Ipv4Addr::UNSPECIFIED.into());
    request.extensions().get::<server::Peer>().unwrap_or(&unknown).0
}

/// Adds a header, unless its value is not valid.
fn with_header(mut response: Response, name: http::HeaderName, value: &str) -> Response {
    if let Ok(value) = http::HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
    response
}

#[cfg(test)]
mod tests;
