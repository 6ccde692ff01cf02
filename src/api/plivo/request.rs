//! A request of the Plivo-compatible API, as passed to its handlers.

use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;

use super::super::fields::Fields;
use super::super::routes::{BodyContent, Operation, PathParameters};
use super::super::{Api, ApiState};
use super::error::PlivoError;
use super::field_values::IGNORED;
use super::query::{self, Pairs};
use model::AuthId;
use store::Scope;

/// An authenticated request that matches a row.
pub(in crate::api) struct PlivoRequest {
    pub(super) state: Arc<ApiState>,
    pub(super) scope: Scope,
    pub(super) operation: &'static Operation,
    pub(super) parameters: PathParameters,
    /// The query, decoded.
    pub(super) query: Vec<(String, String)>,
    pub(super) headers: HeaderMap,
    /// The whole body; empty if the operation ignores it.
    pub(super) body: Bytes,
}

impl PlivoRequest {
    pub(super) fn api(&self) -> &Api {
        &self.state.api
    }

    /// The main account of the caller.
    pub(super) fn main_account(&self) -> AuthId {
        self.state.main_account_of(&self.scope)
    }

    pub(super) fn query(&self) -> &Pairs {
        &self.query
    }

    /// A query parameter that is not empty.
    pub(super) fn query_text(&self, name: &str) -> Option<&str> {
        query::value(&self.query, name).filter(|value| !value.is_empty())
    }

    /// A path parameter, decoded, by its name in the row's path.
    pub(super) fn parameter(&self, name: &str) -> &str {
        self.parameters.get(name)
    }

    /// Returns a path parameter that is an id. An id that can't be parsed counts as one that does
    /// not exist.
    ///
    /// # Errors
    /// Returns the given error if the parameter can't be read.
    pub(super) fn id<T: FromStr>(
        &self,
        name: &str,
        not_found: PlivoError,
    ) -> Result<T, PlivoError> {
        self.parameter(name).parse().map_err(|_| not_found)
    }

    /// The fields of the body.
    ///
    /// # Errors
    /// Returns `BadRequest` if the body is neither a JSON object nor a form, or if it has a field
    /// that the operation does not have.
    pub(super) fn fields(&self) -> Result<Fields, PlivoError> {
        let groups: &[_] = match self.operation.body.as_ref().map(|body| &body.content) {
            Some(BodyContent::Fields(groups)) => groups,
            Some(BodyContent::Json { .. } | BodyContent::Raw(_)) | None => &[],
        };
        let known = groups.iter().copied().flatten().chain(IGNORED);
        let fields = Fields::read(&self.headers, &self.body);
        let checked = fields.and_then(|fields| fields.check_names(known).map(|()| fields));
        checked.map_err(PlivoError::BadRequest)
    }

    /// Returns a flag of a DELETE, from the query or the body, in which the Python and Node SDKs
    /// send it.
    ///
    /// # Errors
    /// Returns `BadRequest` if the value is not a boolean.
    pub(super) fn delete_flag(&self, name: &str) -> Result<bool, PlivoError> {
        match self.query_text(name) {
            Some(value) if value.eq_ignore_ascii_case("true") => Ok(true),
            Some(value) if value.eq_ignore_ascii_case("false") => Ok(false),
            Some(_) => Err(query::bad(name, "true or false")),
            None => {
                let body = Fields::read(&self.headers, &self.body).unwrap_or_default();
                Ok(body.flag(name).map_err(PlivoError::BadRequest)?.unwrap_or(false))
            }
        }
    }

    /// Returns a text of a DELETE, from the query or the body, if it is not empty.
    pub(super) fn delete_text(&self, name: &str) -> Option<String> {
        let in_body = || Fields::read(&self.headers, &self.body).ok()?.text(name).ok()?;
        let text = self.query_text(name).map(|text| text.to_owned()).or_else(in_body);
        text.filter(|text| !text.is_empty())
    }
}
