//! Our own API, `/api/v1/…` (`number-api.md`), by `X-API-Key`. This version serves the linter, calls, calls' event
//! logs, users' permissions, the voices and the reload of the configuration.

mod calls;
mod events;
mod permissions;
mod reload;
mod voices;
mod xml;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use http::{Method, StatusCode, header};
use serde::Serialize;

use super::auth::{Denied, Member};
use super::once::Rules;
use super::routes::{self, Answer, Body, Content, Found, Kind, Query, Route, of};
use super::{App, Reloaded, Shared, error, peer, segments, with_header};
use crate::model::Timestamp;
use crate::speech::catalogue::Catalogue;
use crate::store::Scope;

/// Answers to POSTs are given again for a day (§1).
pub(super) const ONCE: Rules = Rules { kept: Duration::from_secs(86_400), key_max: 255, fault: internal };

/// What is served.
pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "POST",
        path: "/api/v1/xml/check/",
        id: "checkXml",
        summary: "Lints a document, as `offhook xml check --json` does",
        query: &[],
        body: Some(Body { content_type: "application/xml", what: "The document" }),
        answers: &[
            Answer {
                status: 200,
                what: "What is wrong with it",
                content: Content::Json(of::<crate::xml::Report<'static>>),
            },
            Answer { status: 413, what: "Larger than 256 KiB", content: Content::Json(of::<error::OurBody<'static>>) },
            Answer { status: 415, what: "Compressed", content: Content::Json(of::<error::OurBody<'static>>) },
        ],
    },
    Route {
        method: "GET",
        path: "/api/v1/calls/",
        id: "calls",
        summary: "Calls, newest first: those that are up, then those that ended",
        query: &[
            Query { name: "limit", what: "Items of a page (50)", kind: Kind::Integer(1, 200) },
            Query { name: "cursor", what: "Where the page before ended: its `next`", kind: Kind::Text },
        ],
        body: None,
        answers: &[Answer { status: 200, what: "A page", content: Content::Json(of::<calls::Page>) }],
    },
    Route {
        method: "GET",
        path: "/api/v1/calls/{call_uuid}/",
        id: "call",
        summary: "One call, with its remarks and what the linter found in its documents",
        query: &[],
        body: None,
        answers: &[Answer { status: 200, what: "The call", content: Content::Json(of::<calls::Detailed<'static>>) }],
    },
    Route {
        method: "GET",
        path: "/api/v1/calls/{call_uuid}/events/",
        id: "callEvents",
        summary: "A call's event log, as `offhook replay` reads it",
        query: &[Query {
            name: "follow",
            what: "1: goes on until the call is over",
            kind: Kind::Words(&["0", "1", "true", "false"]),
        }],
        body: None,
        answers: &[Answer {
            status: 200,
            what: "JSON, an object a line",
            content: Content::Text("application/x-ndjson; charset=utf-8"),
        }],
    },
    Route {
        method: "GET",
        path: "/api/v1/permissions/{number}/{wa_id}/",
        id: "permission",
        summary: "What a user allows a number, and what remains of Meta's limits",
        query: &[Query { name: "refresh", what: "true: asks Meta", kind: Kind::Words(&["true", "false"]) }],
        body: None,
        answers: &[Answer { status: 200, what: "As it is known", content: Content::Json(of::<permissions::Shown>) }],
    },
    Route {
        method: "POST",
        path: "/api/v1/permissions/{number}/{wa_id}/request/",
        id: "requestPermission",
        summary: "Asks a user to allow calls, with a text, a template, or words of Meta's",
        query: &[],
        body: Some(Body {
            content_type: "application/json",
            what: "Nothing, {\"text\"} of 1 to 1,024 characters, or {\"template\"}",
        }),
        answers: &[
            Answer { status: 202, what: "Sent", content: Content::Json(of::<permissions::Asked>) },
            Answer { status: 409, what: "One is being sent", content: Content::Json(of::<error::OurBody<'static>>) },
            Answer { status: 413, what: "Larger than 256 KiB", content: Content::Json(of::<error::OurBody<'static>>) },
            Answer { status: 415, what: "Compressed", content: Content::Json(of::<error::OurBody<'static>>) },
            Answer {
                status: 422,
                what: "A rule of WhatsApp forbids it; nextRequestAt says when it is allowed again",
                content: Content::Json(of::<error::OurBody<'static>>),
            },
            Answer {
                status: 502,
                what: "Meta refused or failed",
                content: Content::Json(of::<error::OurBody<'static>>),
            },
        ],
    },
    Route {
        method: "GET",
        path: "/api/v1/voices/",
        id: "voices",
        summary: "The languages and voices that documents may name, and who says them on this node",
        query: &[Query { name: "language", what: "Only this one: en, or en-GB", kind: Kind::Text }],
        body: None,
        answers: &[Answer { status: 200, what: "All of them", content: Content::Json(of::<Catalogue>) }],
    },
    Route {
        method: "POST",
        path: "/api/v1/reload/",
        id: "reload",
        summary: "Reads the configuration again; for an owner of the node's only main account",
        query: &[],
        body: None,
        answers: &[
            Answer { status: 200, what: "What is in force now", content: Content::Json(of::<Reloaded>) },
            Answer {
                status: 409,
                what: "The node was started without a file",
                content: Content::Json(of::<error::OurBody<'static>>),
            },
        ],
    },
];

/// Anything under `/api/v1/`.
pub(super) async fn handle(State(shared): App, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let segments = segments(&path);
    let member = match authenticate(&shared, &request) {
        Ok(member) => member,
        Err(why) => return denied(why),
    };
    match routes::find(&[ROUTES], request.method(), &segments) {
        Found::Served => {}
        Found::Method(allow) => return wrong_method(&allow),
        Found::Nothing => return not_found("there is nothing at this path"),
    }
    let pairs = super::pairs(&request);
    let (get, post) = (request.method() == Method::GET, request.method() == Method::POST);
    match segments.get(2..).unwrap_or_default() {
        ["xml", "check"] if post => xml::check(request).await,
        ["calls"] if get => calls::list(&shared.api, &member.scope, &pairs).await,
        ["calls", uuid] if get => calls::get(&shared.api, &member.scope, uuid).await,
        ["calls", uuid, "events"] if get => events::log(&shared.api, &member.scope, uuid, &pairs).await,
        ["permissions", number, user] if get => {
            permissions::view(&shared.api, &member.scope, [*number, *user], &pairs).await
        }
        ["permissions", number, user, "request"] if post => {
            let pair = [(*number).to_owned(), (*user).to_owned()];
            asked(shared.clone(), member.scope, pair, request).await
        }
        ["voices"] if get => voices::list(&shared.api, &request),
        ["reload"] if post => reload::reload(&shared.api, &member).await,
        _ => not_found("there is nothing at this path"),
    }
}

/// `POST permissions/…/request/`, once for each `Idempotency-Key`.
async fn asked(shared: Arc<Shared>, scope: Scope, pair: [String; 2], request: Request) -> Response {
    let (head, body) = request.into_parts();
    let key = match shared.once_number.key(&scope, &head) {
        Ok(key) => key,
        Err(why) => return error::json(StatusCode::BAD_REQUEST, "bad_value", &why, Some("Idempotency-Key")),
    };
    let body = match super::body::read(&head.headers, body).await {
        Ok(body) => body,
        Err((status, code, message)) => return error::json(status, code, message, None),
    };
    let with = shared.clone();
    let work = async move { permissions::request(&with.api, &scope, pair, &body).await };
    shared.once_number.run(key, work).await
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
