//! Our own API, `/api/v1/…` (`number-api.md`), by `X-API-Key`. This version serves the linter, calls, calls' event
//! logs, users' permissions and the reload of the configuration.

mod calls;
mod events;
mod once;
mod permissions;
mod reload;
mod xml;

pub(super) use once::Once;

use axum::extract::{Request, State};
use axum::response::Response;
use http::{Method, StatusCode, header};
use serde::Serialize;

use super::auth::{Denied, Member};
use super::{App, Shared, error, peer, segments, with_header};
use crate::model::Timestamp;

/// Anything under `/api/v1/`.
pub(super) async fn handle(State(shared): App, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let segments = segments(&path);
    let member = match authenticate(&shared, &request) {
        Ok(member) => member,
        Err(why) => return denied(why),
    };
    let pairs = super::pairs(&request);
    let (get, post) = (request.method() == Method::GET, request.method() == Method::POST);
    match segments.get(2..).unwrap_or_default() {
        ["xml", "check"] if post => xml::check(request).await,
        ["xml", "check"] => wrong_method("POST"),
        ["calls"] if get => calls::list(&shared.api, &member.scope, &pairs).await,
        ["calls"] => wrong_method("GET"),
        ["calls", uuid] if get => calls::get(&shared.api, &member.scope, uuid).await,
        ["calls", _] => wrong_method("GET"),
        ["calls", uuid, "events"] if get => events::log(&shared.api, &member.scope, uuid, &pairs).await,
        ["calls", _, "events"] => wrong_method("GET"),
        ["permissions", path @ ..] => {
            let method = request.method().clone();
            let (head, body) = request.into_parts();
            let key = once::Key::of(&member.scope, &head);
            let work = permissions::handle(&shared, &member.scope, path, &method, &pairs, (head.headers, body));
            shared.once.run(key.filter(|_| method == Method::POST), work).await
        }
        ["reload"] if post => reload::reload(&shared.api, &member).await,
        ["reload"] => wrong_method("POST"),
        _ => not_found("there is nothing at this path"),
    }
}

fn authenticate(shared: &Shared, request: &Request) -> Result<Member, Denied> {
    let member = shared.api.accounts.key(request.headers()).ok_or_else(|| shared.guard.failed(peer(request)))?;
    shared.guard.asked(member.scope.auth_id())?;
    Ok(member)
}

fn denied(denied: Denied) -> Response {
    match denied {
        Denied::Unknown => error::json(StatusCode::UNAUTHORIZED, "unauthorized", "a valid X-API-Key is wanted", None),
        Denied::Wait { why, seconds } => {
            let answer = error::json(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", why, None);
            with_header(answer, header::RETRY_AFTER, &seconds.to_string())
        }
    }
}

fn wrong_method(allow: &str) -> Response {
    let message = "this method is not for this resource";
    with_header(error::json(StatusCode::METHOD_NOT_ALLOWED, "method", message, None), header::ALLOW, allow)
}

fn internal() -> Response {
    error::json(StatusCode::INTERNAL_SERVER_ERROR, "internal", "something is wrong on this server", None)
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
