//! A request of the number API as its resources see it, and the answers that say no: what all of them need.

use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

use super::super::auth::Member;
use super::super::routes::{Answer, Content, Kind, Query, of};
use super::super::{Api, Shared, body, decoded, error, fields};
use super::plain;
use crate::admission::NumberEntry;
use model::{AuthId, E164, Timestamp, stable_id};
use store::{Scope, StoreError};

/// `number-api.md` §1.
const LIMIT: u32 = 50;
const LIMIT_MAX: u32 = 200;

/// The answer to a change of what another has changed since it was read.
pub(super) const CHANGED: Answer = Answer {
    status: 412,
    what: "Changed by somebody else meanwhile",
    content: Content::Json(of::<error::OurBody<'static>>),
};

/// Of a change that may be looked at first.
pub(super) const DRY_RUN: &[Query] = &[Query {
    name: "dryRun",
    what: "true: only says whether it would be taken here; Meta is not asked, and nothing changes",
    kind: Kind::Words(&["true", "false"]),
}];

/// Reads a field that is there, `null` or not; one that is absent is `None` by its `default`.
pub(super) fn given<'de, T, D>(from: D) -> Result<Option<Option<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::deserialize(from).map(Some)
}

/// An answer that says no.
pub(super) type Fault = Box<Response>;

/// A request whose row is known and whose sender may ask it.
pub(super) struct Asked {
    pub(super) shared: Arc<Shared>,
    pub(super) member: Member,
    /// The path behind `/api/v1/`, as it was written.
    pub(super) path: Vec<String>,
    pub(super) head: Parts,
    /// The query, decoded.
    pairs: Vec<(String, String)>,
    /// Taken once and never locked: it makes a request something that can be lent across an await.
    body: Mutex<Body>,
}

impl Asked {
    pub(super) fn new(
        shared: Arc<Shared>,
        member: Member,
        path: Vec<String>,
        request: Request,
    ) -> Self {
        let pairs = super::super::pairs(&request);
        let (head, body) = request.into_parts();
        Self { shared, member, path, head, pairs, body: Mutex::new(body) }
    }

    pub(super) fn api(&self) -> &Api {
        &self.shared.api
    }

    pub(super) fn scope(&self) -> &Scope {
        &self.member.scope
    }

    /// The main account of who asks: whose news these are.
    pub(super) fn main_account(&self) -> AuthId {
        let own = self.scope().auth_id();
        let tables = self.api().gate.directory().tables();
        tables.account(own).map_or_else(|| own.clone(), |account| account.main().auth_id.clone())
    }

    pub(super) fn method(&self) -> &Method {
        &self.head.method
    }

    /// A parameter of the query; of several the last.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.pairs.iter().rev().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// A parameter that is true or false.
    ///
    /// # Errors
    /// It is neither.
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, Fault> {
        match self.value(name) {
            None | Some("") => Ok(None),
            Some("true" | "1") => Ok(Some(true)),
            Some("false" | "0") => Ok(Some(false)),
            Some(_) => Err(bad(name, &format!("{name} must be true or false"))),
        }
    }

    /// How many items a page may have.
    ///
    /// # Errors
    /// It is not from 1 to 200.
    pub(super) fn limit(&self) -> Result<u32, Fault> {
        match self.value("limit").map(str::parse) {
            None => Ok(LIMIT),
            Some(Ok(limit @ 1..=LIMIT_MAX)) => Ok(limit),
            Some(_) => Err(bad("limit", "limit must be an integer from 1 to 200")),
        }
    }

    /// Where the page before ended, as `read` understands what [`Page`] gave.
    ///
    /// # Errors
    /// `read` does not.
    pub(super) fn cursor<T>(
        &self,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Fault> {
        let Some(cursor) = self.value("cursor").filter(|cursor| !cursor.is_empty()) else {
            return Ok(None);
        };
        let at = cursor.strip_prefix(&self.mark()).and_then(read);
        at.map(Some).ok_or_else(|| bad("cursor", "this is no cursor that this list gave"))
    }

    /// A page's cursor as it goes out: another list's place would be taken for one of this list.
    pub(super) fn next(&self, cursor: Option<String>) -> Option<String> {
        cursor.map(|cursor| self.mark() + &cursor)
    }

    /// Tells one list's cursors from those of any other.
    fn mark(&self) -> String {
        let path: Vec<&str> =
            self.path.iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
        let mut mark = stable_id("list", &path).simple().to_string();
        mark.truncate(6);
        mark
    }

    /// The body, whole and within its bounds.
    ///
    /// # Errors
    /// It is too long, too slow or compressed.
    pub(super) async fn bytes(self) -> Result<Bytes, Fault> {
        Ok(self.take().await?.1)
    }

    /// The body as it comes, for a resource with bounds of its own.
    pub(super) fn body(&mut self) -> Body {
        let body = std::mem::replace(&mut self.body, Mutex::new(Body::empty()));
        body.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    async fn take(mut self) -> Result<(Self, Bytes), Fault> {
        let body = self.body();
        let read = body::read(&self.head.headers, body).await;
        let bytes = read.map_err(|(status, code, message)| {
            Box::new(error::json(status, code, message, None))
        })?;
        Ok((self, bytes))
    }

    /// The body as JSON; an empty one is an empty object. Gives back what else the request says.
    ///
    /// # Errors
    /// [`Asked::bytes`]'s; or it is none, or not as `T` wants it: the field is named by its path.
    pub(super) async fn json<T: DeserializeOwned>(self) -> Result<(Self, T), Fault> {
        let (asked, bytes) = self.take().await?;
        let object = match bytes.iter().all(u8::is_ascii_whitespace) {
            true => serde_json::Map::new(),
            false => fields::object(&bytes).map_err(|why| Box::new(bad_body(&why)))?,
        };
        let read = serde_path_to_error::deserialize(serde_json::Value::Object(object));
        let read = read.map_err(|e| {
            let path = e.path().to_string();
            let why = e.into_inner().to_string();
            // serde names a missing field in its words only.
            let missing =
                why.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
            match (missing, path.as_str()) {
                (Some(name), "." | "?") => bad(name, &format!("{name} is missing")),
                (Some(name), path) => {
                    bad(&format!("{path}.{name}"), &format!("{path}.{name} is missing"))
                }
                (None, "." | "?") => Box::new(bad_body(&plain::said("the body", &why))),
                (None, path) => bad(path, &plain::said(path, &why)),
            }
        })?;
        Ok((asked, read))
    }

    /// Whether what `If-Match` names, or one of several that it names, is what stands there now, where the request has one
    /// (RFC 9110 §13.1.1).
    ///
    /// # Errors
    /// 412: somebody else changed it meanwhile.
    pub(super) fn matches(&self, tag: &str) -> Result<(), Fault> {
        match !self.is_conditional() || is_one_of(&self.head.headers, tag) {
            true => Ok(()),
            false => Err(changed()),
        }
    }

    /// Whether it has an `If-Match`.
    pub(super) fn is_conditional(&self) -> bool {
        self.head.headers.contains_key(header::IF_MATCH)
    }
}

/// A list may stand in one line or in several.
fn is_one_of(headers: &HeaderMap, tag: &str) -> bool {
    let lines = headers.get_all(header::IF_MATCH).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).any(|one| one == "*" || one == tag)
}

/// 412: somebody else changed it meanwhile.
pub(super) fn changed() -> Fault {
    let message =
        "it was changed meanwhile: read it again, and send the ETag that comes with it as If-Match";
    Box::new(error::json(StatusCode::PRECONDITION_FAILED, "changed", message, None))
}

/// 409 for a number of the asker's that is out of service: it is there, and serves nobody until it is reconnected.
pub(super) fn out_of_service(asked: &Asked, number: &E164) -> Option<Fault> {
    let book = asked.api().keeper.book();
    let out = book.number(asked.scope(), number).is_some_and(|entry| entry.set.disconnected);
    out.then(|| conflict("disconnected", "this number is disconnected: reconnect it"))
}

/// The number that a path names; another account's is none (R16).
///
/// # Errors
/// 404; 409: it is disconnected.
pub(super) fn number_of(asked: &Asked, text: &str) -> Result<Arc<NumberEntry>, Fault> {
    let none = || missing("there is no such number");
    let number = digits(&decoded(text)).ok_or_else(none)?;
    let found = asked.api().gate.directory().tables().by_number(&number).cloned();
    let found =
        found.filter(|n| asked.scope().holds(&n.account.auth_id, &n.account.main().auth_id));
    found.ok_or_else(|| out_of_service(asked, &number).unwrap_or_else(none))
}

/// A number with or without a plus, spaces or `whatsapp:` (`number-api.md` §1).
pub(super) fn digits(text: &str) -> Option<E164> {
    let text = text.trim();
    let bare = text
        .get(..9)
        .filter(|scheme| scheme.eq_ignore_ascii_case("whatsapp:"))
        .and_then(|_| text.get(9..));
    E164::parse(bare.unwrap_or(text)).ok()
}

/// A page of a list.
#[derive(Serialize)]
pub(super) struct Page<T> {
    pub(super) items: Vec<T>,
    /// The cursor of the next page.
    pub(super) next: Option<String>,
}

impl<T> Page<T> {
    /// Of one more item than fits, which tells whether there are more; `cursor` names the last that is shown.
    pub(super) fn of(mut items: Vec<T>, limit: u32, cursor: impl FnOnce(&T) -> String) -> Self {
        let limit = limit as usize;
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(cursor);
        Self { items, next }
    }
}

/// 200 with an object.
pub(super) fn ok<T: Serialize>(object: &T) -> Response {
    error::body(StatusCode::OK, object)
}

/// 200 with what people edit, and its ETag.
pub(super) fn tagged<T: Serialize>(object: &T) -> Response {
    let mut response = ok(object);
    if let Ok(tag) = HeaderValue::from_str(&tag_of(object)) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// Where a page ended: the time and the id of its last item.
pub(super) fn place(at: Timestamp, id: impl std::fmt::Display) -> String {
    format!("{}.{id}", at.micros())
}

/// [`place`], read.
pub(super) fn placed<T: std::str::FromStr>(text: &str) -> Option<(Timestamp, T)> {
    let (micros, id) = text.split_once('.')?;
    Some((Timestamp::from_micros(micros.parse().ok()?), id.parse().ok()?))
}

/// The ETag of what people edit: of what it looks like.
pub(super) fn tag_of<T: Serialize>(object: &T) -> String {
    let text = serde_json::to_vec(object).unwrap_or_default();
    let sum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &text);
    format!("\"{}\"", hex::encode(sum.as_ref().get(..12).unwrap_or_default()))
}

/// 204.
pub(super) fn gone() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// 400: a value of this field.
pub(super) fn bad(field: &str, message: &str) -> Fault {
    Box::new(error::json(StatusCode::BAD_REQUEST, "bad_value", message, Some(field)))
}

fn bad_body(message: &str) -> Response {
    error::json(StatusCode::BAD_REQUEST, "bad_value", message, None)
}

/// 403.
pub(super) fn forbidden(message: &str) -> Fault {
    Box::new(error::json(StatusCode::FORBIDDEN, "forbidden", message, None))
}

/// 404: it is not there, or another account's.
pub(super) fn missing(message: &str) -> Fault {
    Box::new(error::json(StatusCode::NOT_FOUND, "not_found", message, None))
}

/// 409: not in the state that it is in.
pub(super) fn conflict(code: &str, message: &str) -> Fault {
    Box::new(error::json(StatusCode::CONFLICT, code, message, None))
}

/// 422: a rule of WhatsApp.
pub(super) fn rule(code: &str, message: &str, field: Option<&str>) -> Fault {
    Box::new(error::json(StatusCode::UNPROCESSABLE_ENTITY, code, message, field))
}

/// The store failed: what was being done reads well after "could not …".
pub(super) fn store(what: &'static str) -> impl Fn(StoreError) -> Fault {
    move |error| {
        tracing::warn!(%error, "could not {what}");
        Box::new(error::store(&error))
    }
}
