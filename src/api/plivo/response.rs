//! Responses of the Plivo-compatible API.

use std::time::Duration;

use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::error::json_response;
use model::AuthId;
use store::Scope;

/// A response with the fields of an object and an `api_id`, which is also in the header `X-Api-Id`.
pub(super) fn object<T: Serialize>(status: StatusCode, object: &T) -> Response {
    #[derive(Serialize)]
    struct WithId<'a, T> {
        api_id: Uuid,
        #[serde(flatten)]
        object: &'a T,
    }
    let api_id = Uuid::new_v4();
    with_api_id(json_response(status, &WithId { api_id, object }), api_id)
}

/// 200 with an object.
pub(super) fn ok<T: Serialize>(body: &T) -> Response {
    object(StatusCode::OK, body)
}

/// 201 with an object.
pub(super) fn created<T: Serialize>(body: &T) -> Response {
    object(StatusCode::CREATED, body)
}

/// 202 with an object.
pub(super) fn accepted<T: Serialize>(body: &T) -> Response {
    object(StatusCode::ACCEPTED, body)
}

/// A response with status 202 to a change, as Plivo sends it. The change has been made.
pub(super) fn changed() -> Response {
    accepted(&Changed { message: "changed" })
}

/// 204.
pub(super) fn no_content() -> Response {
    with_api_id(StatusCode::NO_CONTENT.into_response(), Uuid::new_v4())
}

fn with_api_id(mut response: Response, id: Uuid) -> Response {
    if let Ok(id) = HeaderValue::from_str(&id.to_string()) {
        response.headers_mut().insert("x-api-id", id);
    }
    response
}

/// The response to a change.
#[derive(Serialize, ToSchema)]
#[schema(as = PlivoChanged)]
pub(super) struct Changed {
    message: &'static str,
}

/// A duration in seconds, rounded up, as in callbacks.
pub(super) fn seconds_rounded_up(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX)
}

/// The `resource_uri` of an account.
pub(super) fn account_uri(account: &AuthId) -> String {
    format!("/v1/Account/{account}/")
}

/// The `resource_uri` of a resource; `path` is the part after the account.
pub(super) fn resource_uri(scope: &Scope, path: &str) -> String {
    account_uri(scope.auth_id()) + path
}
