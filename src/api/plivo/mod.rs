//! The Plivo-compatible REST API, `/v1/Account/{auth_id}/…`: a module per resource. Resources of
//! Plivo that this server lacks are 404. See `docs/reference/rest.md#plivo-compatible-api`.
//!
//! A new resource is a module with a table of [`Route`]s and its line in [`TABLES`].

mod account;
mod add_participant;
mod application;
mod call;
mod call_control;
mod conference;
mod endpoint;
pub(in crate::api) mod error;
mod field_values;
mod make_call;
mod multi_party;
mod multi_party_record;
mod number;
mod paging;
mod query;
mod random;
mod recording;
mod request;
mod response;
mod rooms;
pub(in crate::api) mod route;
mod speech;
mod stream;
mod subaccount;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Method, header};
use serde_json::Value;

use super::audit::{self, Actor, Change};
use super::error::NO_SPACE;
use super::fields::Fields;
use super::idempotency::Rules;
use super::routes::{self, Match, PathParameters};
use super::turns;
use super::{ApiState, App, TOO_MANY_IN_PROGRESS, body, peer, query_pairs, segments};
use engine::limiter::RequestClaims;
use error::{NOT_AVAILABLE, PlivoError};
pub(in crate::api) use field_values::IGNORED;
use model::AuthId;
use request::PlivoRequest;
use route::Route;
use store::Scope;

/// The idempotency rules: responses to POSTs with an `Idempotency-Key` are kept for ten minutes.
pub(super) const IDEMPOTENCY: Rules = Rules {
    kept: Duration::from_secs(600),
    key_bytes_max: 64,
    internal_error: || PlivoError::Internal.into_response(),
};

/// All routes: one table per resource.
pub(super) const TABLES: &[&[Route]] = &[
    call::ROUTES,
    make_call::ROUTES,
    call_control::ROUTES,
    stream::ROUTES,
    account::ROUTES,
    subaccount::ROUTES,
    number::ROUTES,
    application::ROUTES,
    endpoint::ROUTES,
    recording::ROUTES,
    conference::ROUTES,
    multi_party::ROUTES,
    add_participant::ROUTES,
    multi_party_record::ROUTES,
];

/// Serves every path below `/v1/`.
pub(super) async fn handle(State(state): App, request: Request) -> Response {
    answer(&state, request).await.unwrap_or_else(PlivoError::into_response)
}

async fn answer(state: &Arc<ApiState>, request: Request) -> Result<Response, PlivoError> {
    let path = request.uri().path().to_owned();
    let segments = segments(&path);
    let ["v1", "Account", auth_id, ..] = segments.as_slice() else {
        return Err(NOT_AVAILABLE);
    };
    let found = routes::find(TABLES, request.method(), &segments);
    // Placing calls does not count as a request, since it has its own limits.
    let is_counted = !matches!(found, Match::Found(route) if make_call::places_calls(route));
    let scope = authenticate(state, &request, auth_id, is_counted)?;
    let from = peer(&request);
    let route = match found {
        Match::Found(route) => route,
        Match::WrongMethod(allow) => return Err(PlivoError::MethodNotAllowed(allow)),
        Match::NotFound if matches!(*request.method(), Method::HEAD | Method::OPTIONS) => {
            return Err(PlivoError::MethodNotAllowed("GET".to_owned()));
        }
        Match::NotFound => return Err(NOT_AVAILABLE),
    };
    let parameters = PathParameters::read(route.operation.path, &segments);
    let query = query_pairs(&request);
    let (head, body) = request.into_parts();
    let is_post = head.method == Method::POST;
    let body = match is_post {
        true => body::read(&head.headers, body).await?,
        // Other methods have no body, except for a flag. A body that can't be read counts as empty.
        false if route.operation.query.iter().any(|p| p.name == route::CASCADE.name) => {
            body::read(&head.headers, body).await.unwrap_or_default()
        }
        false => Bytes::new(),
    };
    let key = match is_post {
        true => {
            let main = state.main_account_of(&scope);
            let key = state.plivo_idempotency.key(&scope, &main, &head.headers, &path);
            key.map_err(PlivoError::BadRequest)?
        }
        false => None,
    };
    let state_of_request = state.clone();
    let headers = head.headers;
    let request = PlivoRequest {
        state: state_of_request,
        scope,
        operation: &route.operation,
        parameters,
        query,
        headers,
        body,
    };
    let actor = Actor { name: "auth-token".to_owned(), from };
    let work = serve(route, request, path, actor);
    let Some(key) = key else { return work.await };
    let work = async { work.await.unwrap_or_else(PlivoError::into_response) };
    Ok(state.plivo_idempotency.run(key, work).await)
}

/// Checks the credentials of a request: the account in the path must be that of the credentials.
fn authenticate(
    state: &ApiState,
    request: &Request,
    auth_id: &str,
    is_counted: bool,
) -> Result<Scope, PlivoError> {
    let account = state.api.credentials.basic(request.headers());
    let account = account.filter(|account| account.as_str() == auth_id);
    let account = account.ok_or_else(|| {
        let from = peer(request);
        if request.headers().contains_key(header::AUTHORIZATION) {
            let named = AuthId::from(auth_id);
            let known = state.is_enabled(&named).then_some(&named);
            state.record_refusal("auth-token", from, known, known.map(|_| "auth-token"));
        }
        state.rate_limits.record_failure(from)
    })?;
    let scope = Scope::of(account);
    if is_counted {
        state.record_request(&scope)?;
    }
    let main_account = state.main_account_of(&scope);
    let claims = request.extensions().get::<RequestClaims>();
    if claims.is_some_and(|claims| !claims.authenticate_caller(&main_account)) {
        return Err(PlivoError::too_many_requests(TOO_MANY_IN_PROGRESS, 1));
    }
    Ok(scope)
}

/// Serves a request from inside the node ([`Apis`](super::Apis)). `path` is the part after the
/// account, with the query.
pub(super) async fn dispatch(
    state: &Arc<ApiState>,
    (scope, actor): (Scope, Actor),
    method: &Method,
    path: &str,
    body: Option<&Value>,
) -> Response {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let path = format!("/v1/Account/{}/{path}", scope.auth_id());
    let segments = segments(&path);
    let route = match routes::find(TABLES, method, &segments) {
        Match::Found(route) => route,
        Match::WrongMethod(allow) => return PlivoError::MethodNotAllowed(allow).into_response(),
        Match::NotFound => return NOT_AVAILABLE.into_response(),
    };
    let json = HeaderValue::from_static("application/json");
    let request = PlivoRequest {
        state: state.clone(),
        scope,
        operation: &route.operation,
        parameters: PathParameters::read(route.operation.path, &segments),
        query: url::form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
        headers: HeaderMap::from_iter([(header::CONTENT_TYPE, json)]),
        body: body.map_or_else(Bytes::new, |body| body.to_string().into()),
    };
    serve(route, request, path, actor).await.unwrap_or_else(PlivoError::into_response)
}

/// Serves a request, and adds it to the audit trail if it changes something.
fn serve(
    route: &Route,
    request: PlivoRequest,
    path: String,
    actor: Actor,
) -> BoxFuture<'static, Result<Response, PlivoError>> {
    let (state, scope, operation) =
        (request.state.clone(), request.scope.clone(), request.operation);
    if !audit::is_recorded(operation) {
        let work = (route.handler)(request);
        return match operation.method {
            "GET" => work,
            _ => audit::complete(work, PlivoError::Internal).boxed(),
        };
    }
    if operation.method != "DELETE" && !state.take_space(&scope, request.body.len()) {
        return std::future::ready(Err(PlivoError::Unavailable(NO_SPACE.1))).boxed();
    }
    let fields = Fields::read(&request.headers, &request.body).map(|fields| fields.names());
    let work = (route.handler)(request);
    let work = async move {
        let _turn = turns::change(operation.path, &state.main_account_of(&scope)).await;
        let object = audit::object_path(operation, &path);
        let before = match object {
            Some(path) => current(&state, &scope, path).await,
            None => Value::Null,
        };
        let (response, body) = audit::json_body(work.await?).await;
        let status = response.status();
        // The response to a creation has only the id.
        let created = audit::created_path(&path, status, &body);
        let after = match created.as_deref().or(object) {
            Some(path) => current(&state, &scope, path).await,
            None => Value::Null,
        };
        let object = audit::object_of(operation, &path, status, &body);
        let states = audit::States { before, after, response: body };
        let (before, after) = states.recorded(operation, status);
        if fields.is_ok_and(|names| audit::is_unchanged(operation, &names, (&before, &after))) {
            return Ok(response);
        }
        let recorded = state.audit.record(Change {
            owner: state.owner_of(&scope),
            actor: &actor,
            action: audit::action_of(operation, &path),
            object: &object,
            before,
            after,
        });
        recorded.await;
        Ok(response)
    };
    audit::complete(work, PlivoError::Internal).boxed()
}

/// The object at a path; null if it can't be read.
async fn current(state: &Arc<ApiState>, scope: &Scope, path: &str) -> Value {
    let segments = segments(path);
    let Match::Found(route) = routes::find(TABLES, &Method::GET, &segments) else {
        return Value::Null;
    };
    let request = PlivoRequest {
        state: state.clone(),
        scope: scope.clone(),
        operation: &route.operation,
        parameters: PathParameters::read(route.operation.path, &segments),
        query: Vec::new(),
        headers: HeaderMap::new(),
        body: Bytes::new(),
    };
    match (route.handler)(request).await {
        Ok(response) => audit::json_body(response).await.1,
        Err(_) => Value::Null,
    }
}
