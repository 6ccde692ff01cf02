//! The number API, `/api/v1/…`: a module per resource. Requests authenticate with `X-API-Key` or
//! the console's session. See `docs/reference/rest.md#number-api`.
//!
//! A new resource is a module with a table of [`Route`]s and its line in [`TABLES`].

mod account;
mod agents;
mod api_keys;
mod audit_trail;
mod call_events;
mod call_quality;
mod calls;
mod canned_replies;
mod conversations;
mod erasure;
mod error;
mod failed_requests;
mod field_errors;
mod insights;
mod labels;
mod messages;
mod models;
mod nodes;
mod notes;
mod notifications;
mod numbers;
mod permissions;
mod place_call;
mod presets;
mod reload;
mod request;
mod response;
pub(in crate::api) mod route;
mod routing;
mod schema;
mod templates;
mod tokens;
mod uploads;
mod users;
pub(super) mod voices;
mod wabas;
pub(super) mod waterfall;
mod webhooks;
mod xml_check;

use engine::limiter::RequestClaims;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method};
use serde_json::Value;

use super::audit::{self, Change};
use super::auth::{Principal, given_api_key};
use super::error::{ApiError, TOO_MANY_IN_PROGRESS};
use super::idempotency::{NotKept, Rules};
use super::routes::{self, Match, Operation, PathParameters};
use super::turns;
use super::{ApiState, App, fields, peer, query_pairs, segments, session};
use request::{ApiRequest, FieldNames};
use route::Route;

/// The idempotency rules: responses to POSTs with an `Idempotency-Key` are kept for a day.
pub(super) const IDEMPOTENCY: Rules = Rules {
    kept: Duration::from_secs(86_400),
    key_bytes_max: 255,
    internal_error: || ApiError::Internal.into_response(),
};

/// All routes: one table per resource.
pub(super) const TABLES: &[&[Route]] = &[
    xml_check::ROUTES,
    calls::ROUTES,
    call_quality::ROUTES,
    waterfall::ROUTES,
    place_call::ROUTES,
    call_events::ROUTES,
    failed_requests::ROUTES,
    permissions::ROUTES,
    voices::ROUTES,
    models::ROUTES,
    nodes::ROUTES,
    reload::ROUTES,
    notifications::ROUTES,
    numbers::ROUTES,
    templates::ROUTES,
    wabas::ROUTES,
    agents::ROUTES,
    erasure::ROUTES,
    insights::ROUTES,
    conversations::ROUTES,
    messages::ROUTES,
    notes::ROUTES,
    labels::ROUTES,
    canned_replies::ROUTES,
    uploads::ROUTES,
    routing::ROUTES,
    webhooks::ROUTES,
    users::ROUTES,
    api_keys::ROUTES,
    audit_trail::ROUTES,
    account::ROUTES,
    tokens::ROUTES,
];

/// Serves every path below `/api/v1/`.
pub(super) async fn handle(State(state): App, request: Request) -> Response {
    let from = peer(&request);
    match authenticate(&state, request.headers(), request.method(), from).await {
        Ok(principal) => {
            let main_account = state.main_account_of(&principal.scope);
            let claims = request.extensions().get::<RequestClaims>();
            if claims.is_some_and(|claims| !claims.authenticate_caller(&main_account)) {
                return too_many_in_progress().into_response();
            }
            dispatch(state, principal, request).await
        }
        Err(error) => error.into_response(),
    }
}

fn too_many_in_progress() -> ApiError {
    ApiError::TooManyRequests {
        code: "in_progress",
        message: TOO_MANY_IN_PROGRESS.into(),
        field: None,
        retry_after: Some(1),
    }
}

/// Serves a request of an authenticated principal.
pub(super) async fn dispatch(
    state: Arc<ApiState>,
    principal: Principal,
    request: Request,
) -> Response {
    answer(state, principal, request).await.unwrap_or_else(ApiError::into_response)
}

async fn answer(
    state: Arc<ApiState>,
    principal: Principal,
    request: Request,
) -> Result<Response, ApiError> {
    let path = request.uri().path().to_owned();
    let segments = segments(&path);
    let route = match routes::find(TABLES, request.method(), &segments) {
        Match::Found(route) => route,
        Match::WrongMethod(allow) => {
            let message = wrong_method_message(request.method(), &segments);
            return Err(ApiError::MethodNotAllowed {
                code: "method",
                allow: allow.into(),
                message,
            });
        }
        Match::NotFound => return Err(ApiError::NotFound("no such path")),
    };
    if principal.role < route.role {
        return Err(ApiError::forbidden("your role does not permit this operation"));
    }
    check_query(&route.operation, &request)?;
    let key = match *request.method() {
        Method::POST => state
            .number_idempotency
            .key(
                &principal.scope,
                &state.main_account_of(&principal.scope),
                request.headers(),
                &path,
            )
            .map_err(|why| ApiError::bad_value("Idempotency-Key", why))?,
        _ => None,
    };
    let parameters = PathParameters::read(route.operation.path, &segments);
    let operation = &route.operation;
    let mut request =
        ApiRequest::new(state.clone(), principal.clone(), operation, parameters, request);
    request.check_has_no_fields().await?;
    let is_recorded =
        audit::is_recorded(operation) && !matches!(request.query("dryRun"), Some("true" | "1"));
    if is_recorded
        && operation.method != "DELETE"
        && !state.take_space(&principal.scope, request.body_size())
    {
        return Err(error::NO_DISK_SPACE);
    }
    if is_recorded || key.is_some() {
        // A change receives its body before its turn, which others of the account wait for, and before
        // the object is read, so that the record compares the states around this change only. With a
        // key, the work is done once, and must not depend on whether this request's body arrives.
        request.receive().await?;
    }
    let fields = request.field_names.clone();
    let work = (route.handler)(request);
    let work = match is_recorded {
        true => recorded(state.clone(), principal, operation, path, work, fields).boxed(),
        false if operation.method == "GET" => work,
        // A message may be stored already, and must be sent then.
        false => audit::complete(work, ApiError::Internal).boxed(),
    };
    let Some(key) = key else { return work.await };
    let work = async {
        work.await.unwrap_or_else(|error| {
            let is_incomplete = error.is_of_incomplete_body();
            let mut response = error.into_response();
            if is_incomplete {
                response.extensions_mut().insert(NotKept);
            }
            response
        })
    };
    Ok(state.number_idempotency.run(key, work).await)
}

/// Refuses unknown query parameters, because they may be misspelled filters, those that are given
/// twice, because only one of their values would count, and values that a parameter can't have.
fn check_query(operation: &Operation, request: &Request) -> Result<(), ApiError> {
    let known = operation.query.iter().map(|parameter| parameter.name);
    let pairs = query_pairs(request);
    for (at, (name, _)) in pairs.iter().enumerate() {
        if !known.clone().any(|k| k == name) {
            let message = fields::unknown_parameter(name, known);
            return Err(ApiError::bad_value(fields::printable(name), message));
        }
        if pairs.iter().take(at).any(|(before, _)| before == name) {
            let message = format!("{name} is given twice");
            return Err(ApiError::bad_value(name.clone(), message));
        }
    }
    for parameter in operation.query {
        let given = pairs.iter().find(|(name, _)| name == parameter.name);
        if let Some(why) = given.and_then(|(_, value)| parameter.refusal(value)) {
            return Err(ApiError::bad_value(parameter.name, why));
        }
    }
    Ok(())
}

/// Serves a request that changes something, and adds it to the audit trail if it succeeds.
async fn recorded(
    state: Arc<ApiState>,
    principal: Principal,
    operation: &'static Operation,
    path: String,
    work: BoxFuture<'static, Result<Response, ApiError>>,
    fields: FieldNames,
) -> Result<Response, ApiError> {
    let work = async move {
        let main_account = state.main_account_of(&principal.scope);
        let _turn = turns::change(operation.path, &main_account).await;
        let object = audit::object_path(operation, &path);
        let before = match object {
            Some(path) => current(&state, &principal, path).await,
            None => Value::Null,
        };
        let (response, body) = audit::json_body(work.await?).await;
        let status = response.status();
        let after = match object {
            Some(path) => current(&state, &principal, path).await,
            None => Value::Null,
        };
        let object = audit::object_of(operation, &path, status, &body);
        let states = audit::States { before, after, response: body };
        let (before, after) = states.recorded(operation, status);
        let fields = fields.get();
        if fields.is_some_and(|names| audit::is_unchanged(operation, names, (&before, &after))) {
            return Ok(response);
        }
        let recorded = state.audit.record(Change {
            owner: state.owner_of(&principal.scope),
            actor: &principal.actor,
            action: audit::action_of(operation, &path),
            object: &object,
            before,
            after,
        });
        recorded.await;
        Ok(response)
    };
    audit::complete(work, ApiError::Internal).await
}

/// Returns the object at a path, as visible to the principal. Null if it can't be read.
async fn current(state: &Arc<ApiState>, principal: &Principal, path: &str) -> Value {
    let segments = segments(path);
    let Match::Found(route) = routes::find(TABLES, &Method::GET, &segments) else {
        return Value::Null;
    };
    let Ok(request) = Request::builder().uri(path).body(Body::empty()) else { return Value::Null };
    if principal.role < route.role {
        return Value::Null;
    }
    let parameters = PathParameters::read(route.operation.path, &segments);
    let request =
        ApiRequest::new(state.clone(), principal.clone(), &route.operation, parameters, request);
    match (route.handler)(request).await {
        Ok(response) => audit::json_body(response).await.1,
        Err(_) => Value::Null,
    }
}

/// Whether the API serves this method and path.
pub(super) fn serves(method: &Method, path: &str) -> bool {
    matches!(routes::find(TABLES, method, &segments(path)), Match::Found(_))
}

/// Authenticates a request, by API key or by the console's session.
async fn authenticate(
    state: &ApiState,
    headers: &HeaderMap,
    method: &Method,
    from: IpAddr,
) -> Result<Principal, ApiError> {
    let principal = principal(state, headers, method, from).await?;
    if principal.is_none() && headers.contains_key("x-api-key") {
        state.record_refusal("api-key", from, None, None);
    }
    let principal = principal.ok_or_else(|| state.rate_limits.record_failure(from))?;
    state.record_request(&principal.scope)?;
    Ok(principal)
}

/// The principal of a request's API key or session. `None` if it is not valid.
async fn principal(
    state: &ApiState,
    headers: &HeaderMap,
    method: &Method,
    from: IpAddr,
) -> Result<Option<Principal>, ApiError> {
    if headers.contains_key("x-api-key") {
        let key = state.api.credentials.api_key(headers, from);
        return Ok(key.or_else(|| created_key(state, headers, from)));
    }
    session::authenticate(state, headers, method, from).await
}

/// The holder of a key that was created over the API, unless the account is disabled.
fn created_key(state: &ApiState, headers: &HeaderMap, from: IpAddr) -> Option<Principal> {
    let holder = state.api.people.key(given_api_key(headers)?)?;
    state.is_enabled(&holder.account).then(|| Principal::from_key(holder, from))
}

/// The message of a 405, with an alternative if there is one.
fn wrong_method_message(method: &Method, segments: &[&str]) -> &'static str {
    match segments {
        ["api", "v1", "phone-numbers", _] if *method == Method::DELETE => {
            "phone numbers can't be deleted: POST …/disconnect/ takes one out of service, and \
             Meta's console deletes it"
        }
        ["api", "v1", "webhooks", ..] => {
            "webhooks are created, changed and removed in the console; the API only lists them"
        }
        _ => "method not allowed",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::TABLES;
    use model::Role;

    /// Operations by the rule: GET requires an agent, everything else an admin. This lists the
    /// exceptions, so that a changed role does not go unnoticed.
    #[test]
    fn lists_the_roles_that_differ_from_the_rule() {
        let mut exceptions = BTreeSet::new();
        for route in TABLES.iter().copied().flatten() {
            let rule = if route.operation.method == "GET" { Role::Agent } else { Role::Admin };
            if route.role != rule {
                exceptions.insert((route.role, route.operation.id));
            }
        }
        let agent = [
            "archiveConversation",
            "assessConversation",
            "changeConversation",
            "checkXml",
            "closeConversation",
            "createNote",
            "deleteNote",
            "hangUp",
            "placeCall",
            "readAllNotifications",
            "readConversation",
            "readNotification",
            "reopenConversation",
            "requestPermission",
            "sendMessage",
            "uploadMedia",
        ];
        let owner = [
            "apiKeys",
            "audit",
            "changeApiKey",
            "changeUser",
            "changeWaba",
            "connectPhoneNumber",
            "createApiKey",
            "createUser",
            "deleteApiKey",
            "discardModel",
            "drainNode",
            "endTokenOverlap",
            "exportAudit",
            "forgetNode",
            "forgetUser",
            "installModel",
            "inviteUser",
            "listModels",
            "listNodes",
            "model",
            "reload",
            "removeModel",
            "rotateToken",
            "signOutUser",
            "signUpPhoneNumbers",
            "speakSample",
            "uploadModel",
            "user",
            "users",
        ];
        let expected = agent.map(|id| (Role::Agent, id)).into_iter();
        let expected: BTreeSet<_> = expected.chain(owner.map(|id| (Role::Owner, id))).collect();
        assert_eq!(exceptions, expected);
    }
}
