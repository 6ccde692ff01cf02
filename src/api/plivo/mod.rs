//! The Plivo-compatible REST API, `/v1/Account/{auth_id}/…` (`plivo-call-api.md`). This version serves calls:
//! place, retrieve, list, live and queued, hang up, cancel. What is not there answers 404, as Plivo does.

mod call;
mod idempotency;
mod place;
mod query;

pub(super) use idempotency::Repeated;

use axum::extract::{Request, State};
use axum::response::Response;
use http::{Method, StatusCode, header};

use super::auth::Denied;
use super::routes::{self, Answer, Body, Content, Found, Kind, Query, Route, of};
use super::{Api, App, Shared, error, peer, segments, with_header};
use crate::store::Scope;

/// What Plivo has and we have not.
const NOT_HERE: &str = "not available on this server";

const STATUS: Query = Query {
    name: "status",
    what: "Calls that are up, or that wait for the account's calls per second; without it: those that ended",
    kind: Kind::Words(&["live", "queued"]),
};
const LIMIT: Query = Query { name: "limit", what: "Objects of a page (20)", kind: Kind::Integer(1, 20) };
const OFFSET: Query = Query { name: "offset", what: "Objects passed over (0)", kind: Kind::Integer(0, u32::MAX) };

/// What is served.
pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "GET",
        path: "/v1/Account/{auth_id}/Call/",
        id: "listCalls",
        summary: "The account's calls",
        query: &[
            STATUS,
            LIMIT,
            OFFSET,
            Query { name: "from_number", what: "Only from this number", kind: Kind::Text },
            Query { name: "to_number", what: "Only to this number", kind: Kind::Text },
            Query {
                name: "call_direction",
                what: "Only of this direction",
                kind: Kind::Words(&["inbound", "outbound"]),
            },
            Query { name: "subaccount", what: "Only of this subaccount", kind: Kind::Text },
            Query { name: "parent_call_uuid", what: "Only of this parent call", kind: Kind::Uuid },
            Query { name: "hangup_cause_code", what: "Only with this code", kind: Kind::Integer(0, 65_535) },
            Query { name: "hangup_source", what: "Only from this source", kind: Kind::Text },
            Query {
                name: "bill_duration",
                what: "Seconds; also __gt, __gte, __lt, __lte",
                kind: Kind::Integer(0, u32::MAX),
            },
            Query {
                name: "end_time",
                what: "YYYY-MM-DD[ HH:MM[:SS[.ffffff]]], UTC; also __gt, __gte, __lt, __lte",
                kind: Kind::Text,
            },
        ],
        body: None,
        answers: &[Answer {
            status: 200,
            what: "A page of ended calls; with status, the UUIDs of those that are up",
            content: Content::Plivo(&[of::<call::List<'static>>, of::<call::Uuids>]),
        }],
    },
    Route {
        method: "POST",
        path: "/v1/Account/{auth_id}/Call/",
        id: "makeCalls",
        summary: "Calls one WhatsApp user or many; with the header Idempotency-Key once, however often it is sent",
        query: &[],
        body: Some(Body {
            content_type: "application/json",
            what: "from, to (numbers between <) and answer_url; the other fields are Plivo's. A form is taken too",
        }),
        answers: &[Answer {
            status: 201,
            what: "They ring, or wait for the account's calls per second",
            content: Content::Plivo(&[of::<place::Fired>]),
        }],
    },
    Route {
        method: "DELETE",
        path: "/v1/Account/{auth_id}/Request/{request_uuid}/",
        id: "cancelCall",
        summary: "Cancels a call that waits or rings",
        query: &[],
        body: None,
        answers: &[Answer { status: 204, what: "It is told", content: Content::Nothing }],
    },
    Route {
        method: "DELETE",
        path: "/v1/Account/{auth_id}/Call/",
        id: "hangUpCalls",
        summary: "Hangs up all calls of the account",
        query: &[],
        body: None,
        answers: &[Answer { status: 204, what: "They are told", content: Content::Nothing }],
    },
    Route {
        method: "GET",
        path: "/v1/Account/{auth_id}/Call/{call_uuid}/",
        id: "retrieveCall",
        summary: "One call",
        query: &[STATUS],
        body: None,
        answers: &[Answer {
            status: 200,
            what: "The record of an ended call; with status, one that is up",
            content: Content::Plivo(&[of::<call::Cdr<'static>>, of::<call::Live<'static>>]),
        }],
    },
    Route {
        method: "DELETE",
        path: "/v1/Account/{auth_id}/Call/{call_uuid}/",
        id: "hangUpCall",
        summary: "Hangs a call up",
        query: &[],
        body: None,
        answers: &[Answer { status: 204, what: "It is told", content: Content::Nothing }],
    },
];

/// Why a request got no for an answer; Plivo's shape is made of it.
#[derive(Debug)]
pub(super) enum No {
    /// 401 or 429.
    Denied(Denied),
    /// 400: the sentence names the first bad field.
    Bad(String),
    /// 403: the business number's country may not call out.
    Barred(String),
    /// 422: understood, and not allowed.
    NotAllowed(String),
    /// 409.
    Conflict(String),
    /// 429.
    TooMany { why: String, seconds: u64 },
    /// 503: starting or draining.
    Unavailable,
    /// A body that is not taken: 413, 415, ….
    Body(StatusCode, &'static str),
    /// 404.
    NotFound(&'static str),
    /// 405.
    Method(String),
    /// 500: our fault, and what it was stays with us.
    Ours,
}

impl No {
    fn answer(self) -> Response {
        match self {
            Self::Denied(Denied::Unknown) => {
                let answer = error::plivo(StatusCode::UNAUTHORIZED, "authentication failed");
                with_header(answer, header::WWW_AUTHENTICATE, "Basic realm=\"Offhook\"")
            }
            Self::Denied(Denied::Wait { why, seconds }) => {
                let answer = error::plivo(StatusCode::TOO_MANY_REQUESTS, why);
                with_header(answer, header::RETRY_AFTER, &seconds.to_string())
            }
            Self::Bad(what) => error::plivo(StatusCode::BAD_REQUEST, &what),
            Self::Barred(what) => error::plivo(StatusCode::FORBIDDEN, &what),
            Self::NotAllowed(what) => error::plivo(StatusCode::UNPROCESSABLE_ENTITY, &what),
            Self::Conflict(what) => error::plivo(StatusCode::CONFLICT, &what),
            Self::TooMany { why, seconds } => {
                let answer = error::plivo(StatusCode::TOO_MANY_REQUESTS, &why);
                with_header(answer, header::RETRY_AFTER, &seconds.to_string())
            }
            Self::Unavailable => error::plivo(StatusCode::SERVICE_UNAVAILABLE, "this server is stopping; try again"),
            Self::Body(status, what) => error::plivo(status, what),
            Self::NotFound(what) => error::plivo(StatusCode::NOT_FOUND, what),
            Self::Method(allow) => {
                let answer = error::plivo(StatusCode::METHOD_NOT_ALLOWED, "this method is not for this resource");
                with_header(answer, header::ALLOW, &allow)
            }
            Self::Ours => error::plivo(StatusCode::INTERNAL_SERVER_ERROR, "something is wrong on this server"),
        }
    }
}

impl From<crate::store::StoreError> for No {
    fn from(e: crate::store::StoreError) -> Self {
        tracing::warn!(error = %e, "an API request could not be answered");
        Self::Ours
    }
}

/// Anything under `/v1/`.
pub(super) async fn handle(State(shared): App, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let segments = segments(&path);
    let ["v1", "Account", auth_id, rest @ ..] = segments.as_slice() else {
        return No::NotFound(NOT_HERE).answer();
    };
    let placing = *rest == ["Call"] && request.method() == Method::POST;
    let scope = match authenticate(&shared, &request, auth_id, !placing) {
        Ok(scope) => scope,
        Err(denied) => return No::Denied(denied).answer(),
    };
    match routes::find(ROUTES, request.method(), &segments) {
        Found::Served => {}
        Found::Method(allow) => return No::Method(allow).answer(),
        Found::Nothing if matches!(*request.method(), Method::HEAD | Method::OPTIONS) => {
            return No::Method("GET".to_owned()).answer();
        }
        Found::Nothing => return No::NotFound(NOT_HERE).answer(),
    }
    if placing {
        return placed(&shared, &scope, request).await.unwrap_or_else(No::answer);
    }
    // Bodies of these methods are ignored (1.4).
    let (method, pairs) = (request.method().clone(), super::pairs(&request));
    drop(request);
    route(&shared.api, &scope, &method, rest, &pairs).await.unwrap_or_else(No::answer)
}

/// `POST Call/`, once for each `Idempotency-Key` (§1.9).
async fn placed(shared: &Shared, scope: &Scope, request: Request) -> Result<Response, No> {
    let (head, body) = request.into_parts();
    let body = super::body::read(&head.headers, body).await.map_err(|(status, _, what)| No::Body(status, what))?;
    let turn = match shared.repeated.turn(scope, &head.headers, shared.api.clock.now()).await? {
        idempotency::Turn::Known(answer) => return Ok(answer),
        idempotency::Turn::Ours(turn) => turn,
    };
    let answer = place::place(&shared.api, scope, &head.headers, &body).await?;
    Ok(turn.keep(answer).await)
}

/// 1.1: the path's id is the caller's own; wrong, missing and unknown are one answer.
///
/// `counted`: the request counts towards L21. Placing calls has its own limits (L5, L6).
fn authenticate(shared: &Shared, request: &Request, auth_id: &str, counted: bool) -> Result<Scope, Denied> {
    let caller = shared.api.accounts.basic(request.headers()).filter(|id| id.as_str() == auth_id);
    let caller = caller.ok_or_else(|| shared.guard.failed(peer(request)))?;
    if counted {
        shared.guard.asked(&caller)?;
    }
    Ok(Scope::of(caller))
}

async fn route(api: &Api, scope: &Scope, method: &Method, rest: &[&str], pairs: &query::Pairs) -> Result<Response, No> {
    let (get, delete) = (method == Method::GET, method == Method::DELETE);
    match rest {
        ["Call"] if get => call::list(api, scope, pairs).await,
        ["Call"] if delete => Ok(call::hang_up_all(api, scope)),
        ["Call", uuid] if get => call::retrieve(api, scope, uuid, pairs).await,
        ["Call", uuid] if delete => call::hang_up(api, scope, uuid),
        ["Request", uuid] if delete => call::cancel(api, scope, uuid),
        _ => Err(No::NotFound(NOT_HERE)),
    }
}
