//! Our own API, `/api/v1/…` (`number-api.md`), by `X-API-Key` or the console's session. This version serves the
//! linter, calls with their event logs, business numbers and WABAs, conversations, agents, people and their keys, and the reload of the
//! configuration.

mod account;
mod agents;
mod api_keys;
mod ask;
pub(in crate::api) mod bodies;
mod calls;
mod conversations;
mod course;
mod erasure;
mod events;
mod insights;
mod messages;
mod nodes;
mod notifications;
mod numbers;
mod permissions;
mod place;
mod plain;
mod reload;
pub(super) mod roles;
mod routing;
mod tokens;
mod uploads;
mod users;
mod voices;
mod wabas;
pub(super) mod waterfall;
mod webhooks;
mod xml;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderMap, Method, StatusCode, header};
use serde::Serialize;

use super::auth::{Denied, Member};
use super::once::Rules;
use super::routes::{self, Found, Route};
use super::{App, Shared, error, peer, segments, session, with_header};
use ask::{Asked, Fault};
use model::Timestamp;

/// Answers to POSTs are given again for a day (§1).
pub(super) const ONCE: Rules =
    Rules { kept: Duration::from_secs(86_400), key_max: 255, fault: internal };

/// What is served, a table a resource.
pub(super) const TABLES: &[&[Route]] = &[
    xml::ROUTES,
    calls::ROUTES,
    course::ROUTES,
    waterfall::ROUTES,
    place::ROUTES,
    events::ROUTES,
    permissions::ROUTES,
    voices::ROUTES,
    nodes::ROUTES,
    reload::ROUTES,
    notifications::ROUTES,
    numbers::ROUTES,
    wabas::ROUTES,
    agents::ROUTES,
    erasure::ROUTES,
    insights::ROUTES,
    conversations::ROUTES,
    messages::ROUTES,
    uploads::ROUTES,
    routing::ROUTES,
    webhooks::ROUTES,
    users::ROUTES,
    api_keys::ROUTES,
    account::ROUTES,
    tokens::ROUTES,
];

/// Anything under `/api/v1/`.
pub(super) async fn handle(State(shared): App, request: Request) -> Response {
    let from = peer(&request);
    match authenticate(&shared, request.headers(), request.method(), from).await {
        Ok(member) => dispatch(shared, member, request).await,
        Err(no) => *no,
    }
}

/// A request of somebody who is known.
pub(super) async fn dispatch(shared: Arc<Shared>, member: Member, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let segments = segments(&path);
    match routes::find(TABLES, request.method(), &segments) {
        Found::Served => {}
        Found::Method(allow) => return wrong_method(&allow, request.method(), &segments),
        Found::Nothing => return not_found("there is nothing at this path"),
    }
    let path: Vec<String> = segments.iter().skip(2).map(|part| (*part).to_owned()).collect();
    if member.role < roles::least(request.method(), &path) {
        return *ask::forbidden("your role does not allow this");
    }
    let once = match *request.method() {
        Method::POST => {
            let main = shared.main_of(&member.scope);
            shared.once_number.key(&member.scope, &main, request.headers(), request.uri().path())
        }
        _ => Ok(None),
    };
    let key = match once {
        Ok(key) => key,
        Err(why) => return *ask::bad("Idempotency-Key", &why),
    };
    let asked = Asked::new(shared.clone(), member, path, request);
    match key {
        // Events are told as they come, and are no answer to keep.
        None => serve(asked).await,
        key => shared.once_number.run(key, serve(asked)).await,
    }
}

/// Hands a request to its resource.
async fn serve(asked: Asked) -> Response {
    let path = asked.path.clone();
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let answered = match (asked.method().as_str(), path.as_slice()) {
        (_, ["agents", rest @ ..]) => agents::serve(asked, rest).await,
        // By its form: of the console's people an id, of WhatsApp's a number.
        ("DELETE", ["users", user]) if !users::is_id(user) => erasure::forget(&asked, user).await,
        ("POST", ["xml", "check"]) => xml::check(asked).await,
        ("GET", ["calls"]) => calls::list(&asked).await,
        ("POST", ["calls"]) => place::place(asked).await,
        ("POST", ["calls", uuid, "hangup"]) => place::hang_up(&asked, uuid).await,
        ("GET", ["calls", uuid]) => calls::get(&asked, uuid).await,
        ("GET", ["calls", uuid, "quality"]) => course::get(&asked, uuid).await,
        ("GET", ["calls", uuid, "waterfall"]) => waterfall::get(&asked, uuid).await,
        ("GET", ["calls", uuid, "events"]) => events::log(&asked, uuid).await,
        ("GET", ["permissions", number, user]) => permissions::view(&asked, [number, user]).await,
        ("POST", ["permissions", number, user, "request"]) => {
            permissions::request(asked, [number, user]).await
        }
        ("GET", ["notifications"]) => notifications::list(&asked).await,
        ("POST", ["notifications", "read-all"]) => notifications::read_all(&asked).await,
        ("POST", ["notifications", id, "read"]) => notifications::read(&asked, id).await,
        (_, ["conversations", rest @ ..]) => conversations::serve(asked, rest).await,
        (_, ["webhooks", rest @ ..]) => webhooks::serve(asked, rest).await,
        ("POST", ["phone-numbers", number, "subscribe"]) => routing::subscribe(asked, number).await,
        ("POST", ["phone-numbers", number, "connect-agent"]) => {
            routing::connect_agent(asked, number).await
        }
        ("POST", ["phone-numbers", number, "disconnect-agent"]) => {
            routing::disconnect_agent(asked, number).await
        }
        (_, ["users", rest @ ..]) => users::serve(asked, rest).await,
        (_, ["api-keys", rest @ ..]) => api_keys::serve(asked, rest).await,
        ("GET", ["account"]) => account::get(&asked),
        ("POST", ["account", "token"]) => tokens::rotate(asked).await,
        ("DELETE", ["account", "token", "previous"]) => tokens::end(&asked).await,
        ("GET", ["voices"]) => Ok(voices::list(&asked)),
        ("GET", ["nodes"]) => nodes::list(&asked),
        ("POST", ["nodes", node, "drain"]) => nodes::drain(&asked, node),
        ("POST", ["reload"]) => Ok(reload::reload(&asked).await),
        (_, ["phone-numbers", ..]) => numbers::serve(asked).await,
        (_, ["wabas", ..]) => wabas::serve(asked).await,
        _ => Err(ask::missing("there is nothing at this path")),
    };
    answered.unwrap_or_else(|fault| *fault)
}

/// Whether the API has this method and path.
pub(super) fn serves(method: &Method, path: &str) -> bool {
    routes::find(TABLES, method, &segments(path)) == Found::Served
}

/// By key, or by the console's session.
async fn authenticate(
    shared: &Shared,
    headers: &HeaderMap,
    method: &Method,
    from: IpAddr,
) -> Result<Member, Fault> {
    let member = if headers.contains_key("x-api-key") {
        shared.api.accounts.key(headers).or_else(|| made_key(shared, headers))
    } else {
        session::member(shared, headers, method).await?
    };
    let known = member.ok_or_else(|| Box::new(denied(shared.guard.failed(from))))?;
    let now = shared.api.clock.now();
    shared.guard.asked(now, known.scope.auth_id()).map_err(|why| Box::new(denied(why)))?;
    Ok(known)
}

/// Who a key that was made here is, unless their account is disabled.
fn made_key(shared: &Shared, headers: &HeaderMap) -> Option<Member> {
    let holder = shared.api.people.key(headers.get("x-api-key")?.to_str().ok()?)?;
    shared.is_enabled(&holder.account).then(|| Member::holder(holder))
}

fn denied(denied: Denied) -> Response {
    match denied {
        Denied::Unknown => error::json(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "a valid X-API-Key is wanted",
            None,
        ),
        Denied::Wait { why, seconds } => {
            let answer = error::json(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", why, None);
            with_header(answer, header::RETRY_AFTER, &seconds.to_string())
        }
    }
}

fn wrong_method(allow: &str, method: &Method, segments: &[&str]) -> Response {
    let message = match segments {
        ["api", "v1", "phone-numbers", _] if *method == Method::DELETE => numbers::NO_DELETE,
        ["api", "v1", "webhooks", ..] => {
            "the console makes, changes and removes webhooks; here they are read"
        }
        _ => "this method is not for this resource",
    };
    with_header(
        error::json(StatusCode::METHOD_NOT_ALLOWED, "method", message, None),
        header::ALLOW,
        allow,
    )
}

pub(super) fn internal() -> Response {
    error::json(
        StatusCode::INTERNAL_SERVER_ERROR,
        "internal",
        "something is wrong on this server",
        None,
    )
}

/// A time as `interface.md` §5 has it.
struct Timestamp3339(Timestamp);

impl Serialize for Timestamp3339 {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&self.0)
    }
}

fn not_found(message: &str) -> Response {
    error::json(StatusCode::NOT_FOUND, "not_found", message, None)
}
