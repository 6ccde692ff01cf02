//! The console's session as a way into the number API: a cookie, and for whatever changes something a token and the word
//! of the browser that the request comes from our own pages (R20).

use axum::response::Response;
use http::{HeaderMap, Method, StatusCode};
use subtle::ConstantTimeEq as _;

use super::Shared;
use super::auth::Member;
use super::error;
use crate::people::Person;
pub use crate::people::cookie::{COOKIE, COOKIE_SECURE, cookie, is_from_here, token};

/// Where a script gives the token that a form has in a field.
const CSRF: &str = "x-csrf-token";

/// Whether a form's or a script's token is the session's.
pub fn is_csrf(person: &Person, given: &str) -> bool {
    bool::from(person.csrf.as_bytes().ct_eq(given.as_bytes()))
}

/// Who a request's session is of; `None`: it shows none that holds.
pub(super) async fn member(
    shared: &Shared,
    headers: &HeaderMap,
    method: &Method,
) -> Result<Option<Member>, Box<Response>> {
    let secure = shared.api.base_url.starts_with("https:");
    let Some(token) = token(headers, secure) else { return Ok(None) };
    let ours = |error: store::StoreError| {
        tracing::warn!(%error, "a session could not be read");
        Box::new(error::store(&error))
    };
    let Some(person) = shared.api.people.who(&token).await.map_err(ours)? else { return Ok(None) };
    if !shared.is_enabled(&person.user.account) {
        return Ok(None);
    }
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let given = headers.get(CSRF).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !is_from_here(headers) || (!reads && !is_csrf(&person, given)) {
        let why = "a request with a session comes from the console, with X-CSRF-Token";
        return Err(Box::new(error::json(StatusCode::FORBIDDEN, "csrf", why, None)));
    }
    Ok(Some(Member::person(&person)))
}
