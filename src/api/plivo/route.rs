//! The rows of the Plivo-compatible API's route tables.

use axum::response::Response;
use futures_util::future::BoxFuture;
use utoipa::ToSchema;

use super::super::routes::{Content, Operation, QueryParameter, ResponseSpec, Schema, of};
use super::error::{PlivoError, PlivoErrorBody};
use super::request::PlivoRequest;

/// An operation with the function that serves it.
pub(in crate::api) struct Route {
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
pub(in crate::api) type Handler =
    fn(PlivoRequest) -> BoxFuture<'static, Result<Response, PlivoError>>;

/// Creates a [`Handler`] from an `async fn(PlivoRequest) -> Result<Response, PlivoError>`.
macro_rules! handler {
    ($function:path) => {
        |request| Box::pin($function(request))
    };
}
pub(super) use handler;

/// A response with an object.
pub(super) const fn object<T: ToSchema>(status: u16, description: &'static str) -> ResponseSpec {
    ResponseSpec { status, description, content: Content::Plivo(&[of::<T>]) }
}

/// A response with one of several objects.
pub(super) const fn one_of(
    status: u16,
    description: &'static str,
    schemas: &'static [Schema],
) -> ResponseSpec {
    ResponseSpec { status, description, content: Content::Plivo(schemas) }
}

/// An error response that is particular to an operation.
pub(super) const fn error(status: u16, description: &'static str) -> ResponseSpec {
    object::<PlivoErrorBody<'static>>(status, description)
}

pub(super) const CONFLICT: ResponseSpec =
    error(409, "Conflict with the current state; the error says which");
pub(super) const BARRED_COUNTRY: ResponseSpec =
    error(403, "Businesses with a number of this country can't call");
pub(super) const NOT_ALLOWED: ResponseSpec =
    error(422, "The number or the user does not permit the call; the error says why");

pub(super) const LIMIT: QueryParameter =
    QueryParameter::integer("limit", 1, 20, "Objects per page (default 20)");
pub(super) const OFFSET: QueryParameter =
    QueryParameter::integer("offset", 0, u32::MAX, "Objects to skip (default 0)");
/// A parameter of a DELETE that may also be in the body.
pub(super) const CASCADE: QueryParameter = QueryParameter::flag(
    "cascade",
    "true: delete its applications too; also accepted in a JSON body",
);
/// The description of parameters that are times.
pub(super) const TIME: &str =
    "YYYY-MM-DD[ HH:MM[:SS[.ffffff]]], UTC; also __gt, __gte, __lt, __lte";
