//! A request of the number API, as passed to its handlers.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method, header};
use serde::de::DeserializeOwned;

use super::super::auth::Principal;
use super::super::body::BodyError;
use super::super::error::ApiError;
use super::super::routes::{BodyContent, Operation, PathParameters};
use super::super::{Api, ApiState, body, fields, query_pairs, segments};
use super::field_errors;
use engine::admission::NumberEntry;
use model::{AuthId, E164, Timestamp, stable_id};
use store::Scope;

/// Names of the fields of a JSON body. Empty until the body has been read.
pub(super) type FieldNames = Arc<OnceLock<Vec<String>>>;

/// Default and maximum number of items on a page (`docs/reference/rest.md#paging`).
const LIMIT: u32 = 50;
const LIMIT_MAX: u32 = 200;

/// Size at which a body without `Content-Length` is counted, in bytes.
const UNKNOWN_SIZE: usize = 64 << 10;

/// A request that matches a row, from an authorized principal.
pub(in crate::api) struct ApiRequest {
    pub(super) state: Arc<ApiState>,
    pub(super) principal: Principal,
    pub(super) head: Parts,
    operation: &'static Operation,
    parameters: PathParameters,
    /// The query, decoded.
    query: Vec<(String, String)>,
    /// The body. It is never locked: the mutex makes the request `Sync`, so that handlers can
    /// borrow it across an await.
    body: Mutex<Body>,
    pub(super) field_names: FieldNames,
}

impl ApiRequest {
    pub(super) fn new(
        state: Arc<ApiState>,
        principal: Principal,
        operation: &'static Operation,
        parameters: PathParameters,
        request: Request,
    ) -> Self {
        let query = query_pairs(&request);
        let (head, body) = request.into_parts();
        let (body, field_names) = (Mutex::new(body), Arc::default());
        Self { state, principal, head, operation, parameters, query, body, field_names }
    }

    pub(super) fn api(&self) -> &Api {
        &self.state.api
    }

    /// The size of the body in bytes, or a large one if it is not known in advance.
    pub(super) fn body_size(&self) -> usize {
        let body = self.body.lock().unwrap_or_else(PoisonError::into_inner);
        let exact = body.size_hint().exact().and_then(|exact| usize::try_from(exact).ok());
        exact.unwrap_or(UNKNOWN_SIZE)
    }

    pub(super) fn scope(&self) -> &Scope {
        &self.principal.scope
    }

    /// Refuses the request unless it is from an owner of the node's only main account. `if_shared` says
    /// who may do this on a node of several main accounts.
    pub(super) fn check_operator(&self, if_shared: &'static str) -> Result<(), ApiError> {
        if !matches!(self.scope(), Scope::Main(_)) {
            return Err(ApiError::forbidden("only an owner of a main account may do this"));
        }
        match self.api().operator.is_shared() {
            true => Err(ApiError::forbidden(if_shared)),
            false => Ok(()),
        }
    }

    /// Whether the credentials of the request are still valid, for the same account and at least the
    /// same role.
    ///
    /// # Errors
    /// Fails if a session can't be read.
    pub(super) async fn is_still_authorized(&self) -> Result<bool, ApiError> {
        let (headers, method, from) =
            (&self.head.headers, &self.head.method, self.principal.actor.from);
        let principal = super::principal(&self.state, headers, method, from).await?;
        let before = &self.principal;
        Ok(principal.is_some_and(|now| now.scope == before.scope && now.role >= before.role))
    }

    /// The main account of the principal.
    pub(super) fn main_account(&self) -> AuthId {
        self.state.main_account_of(self.scope())
    }

    /// A path parameter, decoded, by its name in the row's path.
    pub(super) fn parameter(&self, name: &str) -> &str {
        self.parameters.get(name)
    }

    /// Returns a path parameter that is an id. An id that can't be parsed counts as one that does
    /// not exist.
    ///
    /// # Errors
    /// Returns `NotFound` with the message if the parameter can't be read.
    pub(super) fn id<T: std::str::FromStr>(
        &self,
        name: &str,
        not_found: &'static str,
    ) -> Result<T, ApiError> {
        self.parameter(name).parse().map_err(|_| ApiError::NotFound(not_found))
    }

    /// Returns the business number in the path. A number outside the scope does not exist.
    ///
    /// # Errors
    /// Returns `NotFound`, or `Conflict` if the number is disconnected.
    pub(super) fn number(&self) -> Result<Arc<NumberEntry>, ApiError> {
        let not_found = || ApiError::NotFound(NO_NUMBER);
        let number = parse_number(self.parameter("number")).ok_or_else(not_found)?;
        let found = self.api().gate.directory().tables().by_number(&number).cloned();
        let found =
            found.filter(|n| self.scope().holds(&n.account.auth_id, &n.account.main().auth_id));
        found.ok_or_else(|| self.disconnected(&number).unwrap_or_else(not_found))
    }

    /// The error for a number of the scope that is disconnected. `None` if it is not.
    pub(super) fn disconnected(&self, number: &E164) -> Option<ApiError> {
        let book = self.api().keeper.book();
        let is_disconnected =
            book.number(self.scope(), number).is_some_and(|entry| entry.set.disconnected);
        is_disconnected.then(|| {
            ApiError::conflict("disconnected", "this number is disconnected: reconnect it")
        })
    }

    /// Returns a query parameter.
    pub(super) fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// A query parameter that is not empty.
    pub(super) fn query_text(&self, name: &str) -> Option<&str> {
        self.query(name).filter(|text| !text.is_empty())
    }

    /// A boolean query parameter.
    ///
    /// # Errors
    /// Returns `BadRequest` if the value is not a boolean.
    pub(super) fn query_flag(&self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.query(name) {
            None | Some("") => Ok(None),
            Some("true" | "1") => Ok(Some(true)),
            Some("false" | "0") => Ok(Some(false)),
            Some(_) => {
                Err(ApiError::bad_value(name.to_owned(), format!("{name} must be true or false")))
            }
        }
    }

    /// The number of items on a page.
    ///
    /// # Errors
    /// Returns `BadRequest` if it is out of range.
    pub(super) fn limit(&self) -> Result<u32, ApiError> {
        match self.query("limit").map(str::parse) {
            None => Ok(LIMIT),
            Some(Ok(limit @ 1..=LIMIT_MAX)) => Ok(limit),
            Some(_) => Err(ApiError::bad_value("limit", "limit must be between 1 and 200")),
        }
    }

    /// Returns the position at which the previous page ended, parsed from the cursor of that page.
    ///
    /// # Errors
    /// Returns `BadRequest` if the cursor is of another list or can't be parsed.
    pub(super) fn cursor<T>(
        &self,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(cursor) = self.query_text("cursor") else { return Ok(None) };
        let position = cursor.strip_prefix(&self.list_mark()).and_then(parse);
        let error = || ApiError::bad_value("cursor", "cursor must be the `next` of this list");
        position.map(Some).ok_or_else(error)
    }

    /// Returns the cursor of the next page, marked as belonging to this list.
    pub(super) fn next_cursor(&self, position: Option<String>) -> Option<String> {
        position.map(|position| self.list_mark() + &position)
    }

    /// A prefix that distinguishes this list's cursors from those of other lists.
    fn list_mark(&self) -> String {
        let path = segments(self.head.uri.path());
        let mut mark = stable_id("list", path.get(2..).unwrap_or_default()).simple().to_string();
        mark.truncate(6);
        mark
    }

    /// Waits for the whole body, unless it is a file. The handler then gets it at once.
    ///
    /// # Errors
    /// Fails as [`ApiRequest::bytes`] does.
    pub(super) async fn receive(&mut self) -> Result<(), ApiError> {
        let content = self.operation.body.as_ref().map(|body| &body.content);
        if let Some(BodyContent::Json { .. } | BodyContent::Fields(_)) = content {
            self.body = Mutex::new(self.bytes().await?.into());
        }
        Ok(())
    }

    /// The whole body.
    ///
    /// # Errors
    /// Fails if the body is too large, too slow, compressed or can't be read.
    pub(super) async fn bytes(&mut self) -> Result<Bytes, ApiError> {
        let body = self.body();
        Ok(body::read(&self.head.headers, body).await?)
    }

    /// Returns the announced length of a body that is a file, so that one that is too large can be
    /// refused before it arrives. Refuses a compressed one.
    pub(super) fn file_length(&self) -> Result<Option<u64>, ApiError> {
        let headers = &self.head.headers;
        if headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
            return Err(BodyError::Compressed.into());
        }
        let length = headers.get(header::CONTENT_LENGTH);
        Ok(length.and_then(|length| length.to_str().ok()?.parse().ok()))
    }

    /// The body as it arrives, for a resource with its own limits.
    pub(super) fn body(&mut self) -> Body {
        let body = std::mem::replace(&mut self.body, Mutex::new(Body::empty()));
        body.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Parses the body as JSON. An empty body counts as an empty object, and read-only fields are
    /// ignored.
    ///
    /// # Errors
    /// Fails as [`ApiRequest::bytes`] does, or with `BadRequest` if the body is not a JSON object
    /// or a field is wrong; the error names the field by its path.
    pub(super) async fn json<T: DeserializeOwned>(&mut self) -> Result<T, ApiError> {
        let bytes = self.bytes().await?;
        let mut object = match bytes.iter().all(u8::is_ascii_whitespace) {
            true => serde_json::Map::new(),
            false => fields::object(&bytes).map_err(ApiError::bad_body)?,
        };
        self.operation.remove_read_only(&mut object);
        let _ = self.field_names.set(object.keys().cloned().collect());
        let read = serde_path_to_error::deserialize(serde_json::Value::Object(object));
        read.map_err(|e| {
            let path = e.path().to_string();
            field_errors::error(&path, &e.into_inner().to_string())
        })
    }

    /// Refuses a JSON object with fields if the operation has none. Any other body is ignored, such as
    /// the `null` of some clients.
    ///
    /// # Errors
    /// Fails as [`ApiRequest::bytes`] does, or with `BadRequest` if the body has a field.
    pub(super) async fn check_has_no_fields(&mut self) -> Result<(), ApiError> {
        if self.operation.body.is_some() || self.head.method != Method::POST {
            return Ok(());
        }
        let bytes = self.bytes().await?;
        match fields::object(&bytes).unwrap_or_default().into_iter().next() {
            Some((name, _)) => {
                let message = fields::unknown(&name, std::iter::empty());
                Err(ApiError::bad_value(name, message))
            }
            None => Ok(()),
        }
    }

    /// Checks `If-Match` against the current ETag (RFC 9110 §13.1.1).
    ///
    /// # Errors
    /// Returns `Changed` if the request has an `If-Match` that does not contain the tag.
    pub(super) fn check_if_match(&self, tag: &str) -> Result<(), ApiError> {
        match !self.is_conditional() || contains_tag(&self.head.headers, tag) {
            true => Ok(()),
            false => Err(ApiError::Changed),
        }
    }

    /// Whether the request has an `If-Match`.
    pub(super) fn is_conditional(&self) -> bool {
        self.head.headers.contains_key(header::IF_MATCH)
    }
}

/// Whether `If-Match`, which may have several lines, contains a tag.
fn contains_tag(headers: &HeaderMap, tag: &str) -> bool {
    let lines = headers.get_all(header::IF_MATCH).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).any(|one| one == "*" || one == tag)
}

pub(super) const NO_NUMBER: &str = "no such phone number";
pub(super) const NO_CALL: &str = "no such call";

/// Parses a number with or without a plus, spaces or `whatsapp:`.
pub(super) fn parse_number(text: &str) -> Option<E164> {
    E164::parse(without_scheme(text)).ok()
}

/// Parses the number of a user like [`parse_number`]. It must have a country code.
pub(super) fn parse_user_number(text: &str) -> Option<E164> {
    E164::parse_user(without_scheme(text)).ok()
}

fn without_scheme(text: &str) -> &str {
    let text = text.trim();
    let scheme = text.get(..9).filter(|scheme| scheme.eq_ignore_ascii_case("whatsapp:"));
    scheme.and_then(|_| text.get(9..)).unwrap_or(text)
}

/// The position of an item in a list that is ordered by time: its time and its id.
pub(super) fn position(at: Timestamp, id: impl std::fmt::Display) -> String {
    format!("{}.{id}", at.micros())
}

/// Parses a [`position`].
pub(super) fn parse_position<T: std::str::FromStr>(text: &str) -> Option<(Timestamp, T)> {
    let (micros, id) = text.split_once('.')?;
    Some((Timestamp::from_micros(micros.parse().ok()?), id.parse().ok()?))
}
