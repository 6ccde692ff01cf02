//! The rows of the number API's route tables.

use axum::response::Response;
use futures_util::future::BoxFuture;

use super::super::error::{ApiError, ErrorBody};
use super::super::routes::{Operation, QueryParameter, ResponseSpec};
use super::request::ApiRequest;
use model::Role;

/// An operation with the role that it requires and the function that serves it.
pub(in crate::api) struct Route {
    /// The minimum role for the operation.
    pub(in crate::api) role: Role,
    pub(in crate::api) handler: Handler,
    pub(in crate::api) operation: Operation,
}

impl AsRef<Operation> for Route {
    fn as_ref(&self) -> &Operation {
        &self.operation
    }
}

/// Serves a request. Created with [`handler`]. The future is boxed here, so that its state machine
/// is compiled once and not into every caller.
pub(in crate::api) type Handler = fn(ApiRequest) -> BoxFuture<'static, Result<Response, ApiError>>;

/// Creates a [`Handler`] from an `async fn(ApiRequest) -> Result<Response, ApiError>`.
macro_rules! handler {
    ($function:path) => {
        |request| Box::pin($function(request))
    };
}
pub(super) use handler;

/// An error response that is particular to an operation.
pub(super) const fn error(status: u16, description: &'static str) -> ResponseSpec {
    ResponseSpec::json::<ErrorBody<'static>>(status, description)
}

pub(super) const NOT_FOUND: ResponseSpec = error(404, "Not found");
pub(super) const CHANGED: ResponseSpec = error(412, "Changed since it was read");
pub(super) const META_FAILED: ResponseSpec = error(502, "Meta refused or failed");

pub(super) const LIMIT: QueryParameter =
    QueryParameter::integer("limit", 1, 200, "Items per page (default 50)");
pub(super) const CURSOR: QueryParameter =
    QueryParameter::text("cursor", "The `next` of the previous page");
/// The parameters of a list that can't be filtered.
pub(super) const PAGING: &[QueryParameter] = &[LIMIT, CURSOR];

pub(super) const DRY_RUN: &[QueryParameter] = &[QueryParameter::flag(
    "dryRun",
    "true: only validate the change; nothing changes and Meta is not asked",
)];
