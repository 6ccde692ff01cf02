//! HTTP in, one typed command or query, HTTP out; a file a resource. Status codes are decided in `error`.
//!
//! `server` is the public listener; `auth` and `session` say who asks; `plivo` and `number` are the two APIs,
//! `routes` says what they serve, `openapi` makes a document of it. They ask the store
//! for ended calls and [`LiveCalls`] for those that are up, and have calls placed by [`Placing`]; they never reach into a call. Tenants meet nowhere: each
//! query takes the caller's [`store::Scope`] (R16).

pub mod auth;
mod body;
mod connection;
mod desk;
pub mod error;
mod fields;
mod heads;
mod leftover;
mod live;
mod media;
mod number;
mod once;
pub mod openapi;
mod operator;
mod placing;
mod plivo;
mod recordings;
mod routes;
pub mod server;
pub mod session;

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{any, get};
use http::StatusCode;

pub use desk::{Answered, Desk};
pub use live::{Glance, LiveCall, LiveCalls, LiveFilter, LiveStatus, Told, newest};
pub(crate) use number::waterfall::{waterfall_of, whole_log};
pub use operator::{Exchange, Finding, NodeState, NodeStatus, Operator, Reload, Reloaded};
pub use placing::Placing;

use crate::admission::Gate;
use crate::admission::book::Keeper;
use crate::agents::Agents;
use crate::call::phones::Phones;
use crate::call::rooms::Rooms;
use crate::call::{PermissionDesk, Recordings};
use crate::erasure::Eraser;
use crate::feed::Feed;
use crate::inbox::Inbox;
use crate::numbers::Numbers;
use crate::people::People;
use auth::{Accounts, Guard};
use model::AuthId;
use model::Clock;
use once::Once;
use speech::catalogue::Catalogue;
use store::{Passwords, Scope, Store};

/// What the APIs answer from.
pub struct Api {
    pub clock: Clock,
    /// What happens, for those who watch.
    pub feed: Feed,
    /// What is done about business numbers.
    pub numbers: Numbers,
    /// Conversations and messages.
    pub inbox: Inbox,
    pub accounts: Accounts,
    pub store: Store,
    pub live: Arc<dyn LiveCalls>,
    pub placing: Arc<dyn Placing>,
    pub operator: Arc<dyn Operator>,
    pub gate: Arc<Gate>,
    /// The host of `public.base_url`: of SIP addresses.
    pub host: String,
    /// As the outside reaches this node.
    pub base_url: String,
    /// What is set while the node runs.
    pub keeper: Keeper,
    pub permissions: PermissionDesk,
    pub passwords: Passwords,
    /// Who signs in, and keys that were made here.
    pub people: People,
    /// Where endpoints are registered.
    pub phones: Phones,
    /// Conferences and multi-party calls.
    pub rooms: Rooms,
    /// What documents may have said, and by whom.
    pub voices: Arc<Catalogue>,
    pub recordings: Recordings,
    pub agents: Agents,
    pub eraser: Eraser,
}

/// What each handler gets.
struct Shared {
    api: Api,
    guard: Guard,
    /// What was answered before, of each API.
    once_number: Once,
    once_plivo: Once,
}

/// Reads a request's body whole, within the APIs' bounds of size and time.
///
/// # Errors
/// Status, word and sentence of what is wrong with it.
pub async fn read_body(
    headers: &http::HeaderMap,
    body: axum::body::Body,
) -> Result<bytes::Bytes, (StatusCode, &'static str, &'static str)> {
    body::read(headers, body).await
}

/// The APIs' paths (`/v1`, `/api/v1`), and 404 in our shape for every path that nobody else has.
pub fn router(api: Api) -> Router {
    Desk::new(api).router()
}

fn served(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/v1/{*path}", any(plivo::handle))
        .route("/api/v1/{*path}", any(number::handle))
        .route("/openapi.json", get(openapi::serve))
        .route("/recordings/{file}", any(recordings::serve))
        .route("/media/{id}", any(media::serve))
        .fallback(elsewhere)
        .with_state(shared)
}

impl Shared {
    fn new(api: Api) -> Self {
        let [once_number, once_plivo] = [number::ONCE, plivo::ONCE]
            .map(|rules| Once::new(rules, api.store.clone(), api.clock.clone()));
        let guard = Guard::new(api.clock.now());
        Self { api, guard, once_number, once_plivo }
    }

    /// The main account of whoever asks.
    fn main_of(&self, scope: &Scope) -> AuthId {
        self.api.keeper.book().main_of(scope.auth_id()).clone()
    }

    /// Whether an account is there and enabled.
    fn is_enabled(&self, account: &AuthId) -> bool {
        self.api.keeper.book().account(account).is_some_and(|account| account.details.enabled)
    }
}

type App = State<Arc<Shared>>;

/// A path that begins with doubled slashes is the one without them (1.3); others are nobody's.
async fn elsewhere(state: App, request: Request) -> Response {
    match segments(request.uri().path()).as_slice() {
        ["v1", ..] => plivo::handle(state, request).await,
        ["api", "v1", ..] => number::handle(state, request).await,
        _ => error::json(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path", None),
    }
}

/// The parts of a path between its slashes; a missing last slash and doubled ones make no difference (1.3).
fn segments(path: &str) -> Vec<&str> {
    path.split('/').filter(|segment| !segment.is_empty()).collect()
}

/// A part of the path without its percent signs.
fn decoded(part: &str) -> String {
    // Read as a form's value; in a path these stand for themselves (RFC 3986, 3.3).
    let form = format!("={}", part.replace('+', "%2B").replace('&', "%26"));
    url::form_urlencoded::parse(form.as_bytes())
        .map(|(_, value)| value.into_owned())
        .next()
        .unwrap_or_default()
}

/// The query's pairs, decoded.
fn pairs(request: &Request) -> Vec<(String, String)> {
    url::form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes())
        .into_owned()
        .collect()
}

/// Who asks, as the listener found out.
fn peer(request: &Request) -> IpAddr {
    let unknown = server::Peer(std::net::Ipv4Addr::UNSPECIFIED.into());
    request.extensions().get::<server::Peer>().unwrap_or(&unknown).0
}

/// Adds a header that is plain text.
fn with_header(mut response: Response, name: http::HeaderName, value: &str) -> Response {
    if let Ok(value) = http::HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
    response
}

#[cfg(test)]
mod tests;
