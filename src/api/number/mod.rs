//! Our own API, `/api/v1/…` (`number-api.md`), by `X-API-Key`. This version serves the linter and calls' event logs.

mod events;
mod xml;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use http::{Method, StatusCode, header};

use super::auth::{self, Member};
use super::{App, Shared, error, peer, segments, with_header};

/// Anything under `/api/v1/`.
pub(super) async fn handle(State(shared): App, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let segments = segments(&path);
    let member = match authenticate(&shared, &request) {
        Ok(member) => member,
        Err(answer) => return answer,
    };
    let pairs = super::pairs(&request);
    let (get, post) = (request.method() == Method::GET, request.method() == Method::POST);
    match segments.get(2..).unwrap_or_default() {
        ["xml", "check"] if post => xml::check(request).await,
        ["xml", "check"] => wrong_method("POST"),
        ["calls", uuid, "events"] if get => events::log(&shared.api, &member.scope, uuid, &pairs).await,
        ["calls", _, "events"] => wrong_method("GET"),
        _ => not_found("there is nothing at this path"),
    }
}

fn authenticate(shared: &Arc<Shared>, request: &Request) -> Result<Member, Response> {
    let Some(member) = shared.api.accounts.key(request.headers()) else {
        let (status, retry) = auth::refusal(shared.guard.failed(peer(request)));
        let answer = error::json(status, "unauthorized", "a valid X-API-Key is wanted", None);
        return Err(match retry {
            Some(seconds) => with_header(answer, header::RETRY_AFTER, &seconds.to_string()),
            None => answer,
        });
    };
    if let Some(wait) = shared.guard.asked(member.scope.auth_id()) {
        let message = "more than 300 requests in 5 seconds";
        let answer = error::json(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", message, None);
        return Err(with_header(answer, header::RETRY_AFTER, &(wait.as_secs() + 1).to_string()));
    }
    Ok(member)
}

fn wrong_method(allow: &str) -> Response {
    let message = "this method is not for this resource";
    with_header(error::json(StatusCode::METHOD_NOT_ALLOWED, "method", message, None), header::ALLOW, allow)
}

fn not_found(message: &str) -> Response {
    error::json(StatusCode::NOT_FOUND, "not_found", message, None)
}
