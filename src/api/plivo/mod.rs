//! The Plivo-compatible REST API, `/v1/Account/{auth_id}/…` (`plivo-call-api.md`): a file a resource. What is not there
//! answers 404, as Plivo does.

mod account;
mod application;
pub(super) mod bodies;
mod call;
mod conference;
mod control;
mod endpoint;
mod multi_party;
mod multi_party_add;
mod multi_party_record;
mod number;
mod paging;
mod place;
mod query;
mod recording;
mod stream;
mod subaccount;

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::auth::Denied;
use super::fields::Fields;
use super::once::Rules;
use super::placing::{URL_BYTES_MAX, customer_url};
use super::routes::{self, Answer, Body, Content, Found, Kind, Query, Route, of};
use super::{Api, App, Shared, decoded, error, peer, segments, with_header};
use crate::admission::book::NotChanged;
use machine::OverlayKind;
use model::AuthId;
use store::Scope;

/// What Plivo has and we have not.
const NOT_HERE: &str = "not available on this server";

const STATUS: Query = Query {
    name: "status",
    what: "Calls that are up, or that wait for the account's calls per second; without it: those that ended",
    kind: Kind::Words(&["live", "queued"]),
};
const LIMIT: Query =
    Query { name: "limit", what: "Objects of a page (20)", kind: Kind::Integer(1, 20) };
/// Keys and pauses of one order.
const KEYS_MAX: usize = 64;
const CASCADE: Query = Query {
    name: "cascade",
    what: "true: its applications go with it; also taken from a JSON body",
    kind: Kind::Words(&["true", "false"]),
};
const CONFLICT: Answer = Answer {
    status: 409,
    what: "Something stands in the way; the error says what",
    content: Content::Plivo(&[of::<error::PlivoError<'static>>]),
};
/// Why the business may not call somebody: their country, Meta's rules.
const BARRED: Answer = Answer {
    status: 403,
    what: "Businesses with a number of this country may not call",
    content: Content::Plivo(&[of::<error::PlivoError<'static>>]),
};
const NOT_ALLOWED: Answer = Answer {
    status: 422,
    what: "The number may not call, or the user may not be called; the error says why",
    content: Content::Plivo(&[of::<error::PlivoError<'static>>]),
};
const OFFSET: Query =
    Query { name: "offset", what: "Objects passed over (0)", kind: Kind::Integer(0, u32::MAX) };

/// Answers to POSTs are given again for ten minutes (§1.9).
pub(super) const ONCE: Rules =
    Rules { kept: Duration::from_secs(600), key_max: 64, fault: || No::Ours.answer() };

/// What is served: a table a resource.
pub(super) const ROUTES: &[&[Route]] = &[
    CALLS,
    control::ROUTES,
    stream::ROUTES,
    account::ROUTES,
    subaccount::ROUTES,
    number::ROUTES,
    application::ROUTES,
    endpoint::ROUTES,
    recording::ROUTES,
    conference::ROUTES,
    multi_party::ROUTES,
    multi_party_record::ROUTES,
];

const CALLS: &[Route] = &[
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
            Query {
                name: "hangup_cause_code",
                what: "Only with this code",
                kind: Kind::Integer(0, 65_535),
            },
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
        answers: &[
            Answer {
                status: 201,
                what: "They ring, or wait for the account's calls per second",
                content: Content::Plivo(&[of::<place::Fired>]),
            },
            BARRED,
            CONFLICT,
            NOT_ALLOWED,
        ],
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
    /// 503: the store is away, or takes nothing now.
    Away(&'static str),
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
            Self::Unavailable => {
                let what = "this server is stopping; try again";
                error::in_a_moment(error::plivo(StatusCode::SERVICE_UNAVAILABLE, what))
            }
            Self::Away(what) => {
                error::in_a_moment(error::plivo(StatusCode::SERVICE_UNAVAILABLE, what))
            }
            Self::Body(status, what) => error::plivo(status, what),
            Self::NotFound(what) => error::plivo(StatusCode::NOT_FOUND, what),
            Self::Method(allow) => {
                let answer = error::plivo(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "this method is not for this resource",
                );
                with_header(answer, header::ALLOW, &allow)
            }
            Self::Ours => {
                error::plivo(StatusCode::INTERNAL_SERVER_ERROR, "something is wrong on this server")
            }
        }
    }
}

impl From<store::StoreError> for No {
    fn from(e: store::StoreError) -> Self {
        tracing::warn!(error = %e, "an API request could not be answered");
        error::away(&e).map_or(Self::Ours, |(_, what)| Self::Away(what))
    }
}

/// A request that is served, read whole.
pub(super) struct Ask {
    scope: Scope,
    method: Method,
    /// What follows the account.
    path: Vec<String>,
    pairs: Vec<(String, String)>,
    headers: HeaderMap,
    /// Of a POST; with the other methods it is ignored (1.4), but for [`Ask::flag_of_delete`].
    body: Bytes,
}

impl Ask {
    /// The body's fields.
    fn fields(&self) -> Result<Fields, No> {
        Fields::read(&self.headers, &self.body).map_err(No::Bad)
    }

    /// A flag beside a DELETE: in the query, or in the body as python and node send it. What is no flag is none.
    fn flag_of_delete(&self, name: &str) -> bool {
        let in_query =
            query::value(&self.pairs, name).is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let in_body = || Fields::read(&self.headers, &self.body).ok()?.flag(name).ok()?;
        in_query || in_body().unwrap_or(false)
    }
}

/// That something was changed.
#[derive(Serialize, ToSchema)]
#[schema(as = PlivoChanged)]
struct Changed {
    message: &'static str,
}

fn changed() -> Response {
    error::plivo_body(StatusCode::ACCEPTED, &Changed { message: "changed" })
}

/// What came of a change.
fn settle<T>(changed: Result<T, NotChanged<No>>) -> Result<T, No> {
    changed.map_err(|why| match why {
        NotChanged::Refused(no) => no,
        NotChanged::Store(error) => not_stored(error),
    })
}

/// The store did not take what was set.
fn not_stored(error: store::StoreError) -> No {
    tracing::warn!(%error, "what an API request set could not be stored");
    No::Away(error::away(&error).unwrap_or(error::NOT_STORED).1)
}

/// Begun seconds, as durations and callbacks have them.
fn begun_seconds(age: Duration) -> u64 {
    u64::try_from(age.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX)
}

/// An account's own `resource_uri`.
fn own_uri(account: &AuthId) -> String {
    format!("/v1/Account/{account}/")
}

/// The `resource_uri` of something of the caller's.
fn uri(scope: &Scope, rest: &str) -> String {
    own_uri(scope.auth_id()) + rest
}

/// How a URL is to be asked.
fn method(fields: &Fields, name: &str) -> Result<Option<model::Method>, String> {
    match fields.text(name)?.map(|word| word.to_ascii_uppercase()).as_deref() {
        None => Ok(None),
        Some("POST") => Ok(Some(model::Method::Post)),
        Some("GET") => Ok(Some(model::Method::Get)),
        Some(_) => Err(format!("{name} must be GET or POST")),
    }
}

/// Whether these are keys and pauses to be sent, and no more of them than [`KEYS_MAX`].
fn are_keys(text: &str) -> bool {
    (1..=KEYS_MAX).contains(&text.len()) && text.chars().all(|c| "0123456789*#wW".contains(c))
}

/// Random decimal digits, 19 at most, the first of them no zero; none: the system has no random bytes.
fn random_digits(count: u32) -> Option<String> {
    let mut bytes = [0; 8];
    rand::fill(&mut bytes).ok()?;
    let least = 10_u64.checked_pow(count.checked_sub(1)?)?;
    Some((least + u64::from_be_bytes(bytes) % (least * 9)).to_string())
}

/// Anything under `/v1/`.
pub(super) async fn handle(State(shared): App, request: Request) -> Response {
    answered(&shared, request).await.unwrap_or_else(No::answer)
}

async fn answered(shared: &Arc<Shared>, request: Request) -> Result<Response, No> {
    let path = request.uri().path().to_owned();
    let segments = segments(&path);
    let ["v1", "Account", auth_id, rest @ ..] = segments.as_slice() else {
        return Err(No::NotFound(NOT_HERE));
    };
    let placing = *rest == ["Call"] && request.method() == Method::POST;
    let scope = authenticate(shared, &request, auth_id, !placing).map_err(No::Denied)?;
    match routes::find(ROUTES, request.method(), &segments) {
        Found::Served => {}
        Found::Method(allow) => return Err(No::Method(allow)),
        Found::Nothing if matches!(*request.method(), Method::HEAD | Method::OPTIONS) => {
            return Err(No::Method("GET".to_owned()));
        }
        Found::Nothing => return Err(No::NotFound(NOT_HERE)),
    }
    let (path, pairs) =
        (rest.iter().map(|part| (*part).to_owned()).collect(), super::pairs(&request));
    let (head, body) = request.into_parts();
    if head.method != Method::POST {
        let flagged =
            head.method == Method::DELETE && matches!(rest, ["Subaccount" | "Application", _]);
        // What can't be read is ignored too.
        let body = match flagged {
            true => super::body::read(&head.headers, body).await.unwrap_or_default(),
            false => Bytes::new(),
        };
        let (method, headers) = (head.method, head.headers);
        return route(&shared.api, &Ask { scope, method, path, pairs, headers, body }).await;
    }
    let body = super::body::read(&head.headers, body)
        .await
        .map_err(|(status, _, what)| No::Body(status, what))?;
    let main = shared.main_of(&scope);
    let key =
        shared.once_plivo.key(&scope, &main, &head.headers, head.uri.path()).map_err(No::Bad)?;
    let ask = Ask { scope, method: head.method, path, pairs, headers: head.headers, body };
    let with = shared.clone();
    let work = async move { route(&with.api, &ask).await.unwrap_or_else(No::answer) };
    Ok(shared.once_plivo.run(key, work).await)
}

/// 1.1: the path's id is the caller's own; wrong, missing and unknown are one answer.
///
/// `counted`: the request counts towards L21. Placing calls has its own limits (L5, L6).
fn authenticate(
    shared: &Shared,
    request: &Request,
    auth_id: &str,
    counted: bool,
) -> Result<Scope, Denied> {
    let caller = shared.api.accounts.basic(request.headers()).filter(|id| id.as_str() == auth_id);
    let caller = caller.ok_or_else(|| shared.guard.failed(peer(request)))?;
    if counted {
        shared.guard.asked(shared.api.clock.now(), &caller)?;
    }
    Ok(Scope::of(caller))
}

/// A request of somebody inside, whom [`super::Desk`] let in: `path` is what follows the account.
pub(super) async fn dispatch(
    api: &Api,
    scope: Scope,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Response {
    let headers = HeaderMap::from_iter([(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    )]);
    let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let path = path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
    let pairs = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    route(api, &Ask { scope, method, path, pairs, headers, body }).await.unwrap_or_else(No::answer)
}

/// Each request to its resource, by method and path.
async fn route(api: &Api, ask: &Ask) -> Result<Response, No> {
    let Ask { scope, pairs, .. } = ask;
    let path: Vec<&str> = ask.path.iter().map(String::as_str).collect();
    match (ask.method.as_str(), path.as_slice()) {
        ("GET", ["Call"]) => call::list(api, scope, pairs).await,
        ("POST", ["Call"]) => place::place(api, scope, &ask.fields()?).await,
        ("DELETE", ["Call"]) => Ok(call::hang_up_all(api, scope)),
        ("GET", ["Call", uuid]) => call::retrieve(api, scope, uuid, pairs).await,
        ("POST", ["Call", uuid]) => control::transfer(api, scope, uuid, &ask.fields()?),
        ("POST", ["Call", uuid, "Play"]) => control::play(api, scope, uuid, &ask.fields()?),
        ("DELETE", ["Call", uuid, "Play"]) => control::stop(api, scope, uuid, OverlayKind::Play),
        ("POST", ["Call", uuid, "Speak"]) => control::speak(api, scope, uuid, &ask.fields()?),
        ("DELETE", ["Call", uuid, "Speak"]) => control::stop(api, scope, uuid, OverlayKind::Speak),
        ("POST", ["Call", uuid, "DTMF"]) => control::send_digits(api, scope, uuid, &ask.fields()?),
        ("POST", ["Call", uuid, "Stream"]) => stream::begin(api, ask, uuid),
        ("GET", ["Call", uuid, "Stream"]) => stream::list(api, ask, uuid),
        ("DELETE", ["Call", uuid, "Stream"]) => stream::end(api, ask, uuid, None),
        ("GET", ["Call", uuid, "Stream", id]) => stream::get(api, ask, uuid, id),
        ("DELETE", ["Call", uuid, "Stream", id]) => stream::end(api, ask, uuid, Some(id)),
        ("DELETE", ["Call", uuid]) => call::hang_up(api, scope, uuid),
        ("DELETE", ["Request", uuid]) => call::cancel(api, scope, uuid),
        ("GET", []) => account::get(api, ask),
        ("POST", []) => account::edit(api, ask).await,
        ("GET", ["Subaccount"]) => subaccount::list(api, ask),
        ("POST", ["Subaccount"]) => subaccount::make(api, ask).await,
        ("GET", ["Subaccount", id]) => subaccount::get(api, ask, id),
        ("POST", ["Subaccount", id]) => subaccount::edit(api, ask, id).await,
        ("DELETE", ["Subaccount", id]) => subaccount::remove(api, ask, id).await,
        ("GET", ["Number"]) => number::list(api, ask),
        ("GET", ["Number", number]) => number::get(api, ask, number),
        ("POST", ["Number", number]) => number::edit(api, ask, number).await,
        ("GET", ["Application"]) => application::list(api, ask),
        ("POST", ["Application"]) => application::make(api, ask).await,
        ("GET", ["Application", id]) => application::get(api, ask, id),
        ("POST", ["Application", id]) => application::edit(api, ask, id).await,
        ("GET", ["Endpoint"]) => endpoint::list(api, ask).await,
        ("POST", ["Endpoint"]) => endpoint::make(api, ask).await,
        ("GET", ["Endpoint", id]) => endpoint::get(api, ask, id).await,
        ("POST", ["Endpoint", id]) => endpoint::edit(api, ask, id).await,
        ("DELETE", ["Endpoint", id]) => endpoint::remove(api, ask, id).await,
        ("DELETE", ["Application", id]) => application::remove(api, ask, id).await,
        ("POST", ["Call", uuid, "Record"]) => recording::begin(api, ask, uuid),
        ("DELETE", ["Call", uuid, "Record"]) => recording::stop(api, ask, uuid),
        ("GET", ["Recording"]) => recording::list(api, ask).await,
        ("GET", ["Recording", id]) => recording::get(api, ask, id).await,
        ("DELETE", ["Recording", id]) => recording::remove(api, ask, id).await,
        (_, ["MultiPartyCall", rest @ ..]) => multi_party::route_of(api, ask, rest).await,
        (_, ["Conference", rest @ ..]) => conference::route_of(api, ask, rest),
        _ => Err(No::NotFound(NOT_HERE)),
    }
}

#[cfg(test)]
mod tests {
    use super::random_digits;

    #[test]
    fn random_digits_are_as_many_as_asked_for() {
        for count in [1, 12, 14, 17] {
            let made = random_digits(count).unwrap();
            assert_eq!((made.len(), made.parse::<u64>().is_ok()), (count as usize, true), "{made}");
        }
        assert_ne!(random_digits(14), random_digits(14));
    }
}
