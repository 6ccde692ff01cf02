//! The Plivo-compatible REST API, `/v1/Account/{auth_id}/…` (`plivo-call-api.md`). This version serves calls:
//! retrieve, list, live, hang up. What is not there answers 404, as Plivo does.

mod call;
mod query;

use axum::extract::{Request, State};
use axum::response::Response;
use http::{Method, StatusCode, header};

use super::auth::Denied;
use super::routes::{self, Answer, Content, Found, Kind, Query, Route, of};
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
    let scope = match authenticate(&shared, &request, auth_id) {
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
    // Bodies of these methods are ignored (1.4).
    let (method, pairs) = (request.method().clone(), super::pairs(&request));
    drop(request);
    route(&shared.api, &scope, &method, rest, &pairs).await.unwrap_or_else(No::answer)
}

/// 1.1: the path's id is the caller's own; wrong, missing and unknown are one answer.
fn authenticate(shared: &Shared, request: &Request, auth_id: &str) -> Result<Scope, Denied> {
    let caller = shared.api.accounts.basic(request.headers()).filter(|id| id.as_str() == auth_id);
    let caller = caller.ok_or_else(|| shared.guard.failed(peer(request)))?;
    shared.guard.asked(&caller)?;
    Ok(Scope::of(caller))
}

async fn route(api: &Api, scope: &Scope, method: &Method, rest: &[&str], pairs: &query::Pairs) -> Result<Response, No> {
    let (get, delete) = (method == Method::GET, method == Method::DELETE);
    match rest {
        ["Call"] if get => call::list(api, scope, pairs).await,
        ["Call"] if delete => Ok(call::hang_up_all(api, scope)),
        ["Call", uuid] if get => call::retrieve(api, scope, uuid, pairs).await,
        ["Call", uuid] if delete => call::hang_up(api, scope, uuid),
        _ => Err(No::NotFound(NOT_HERE)),
    }
}
