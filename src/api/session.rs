//! Authentication for the number API by the console's session: a cookie. Requests that change
//! something also need a CSRF token, and a header from the browser that confirms this node's
//! origin.

use std::net::IpAddr;

use http::{HeaderMap, Method};
use subtle::ConstantTimeEq as _;

use super::ApiState;
use super::auth::Principal;
use super::error::ApiError;
use engine::people::Person;
pub use engine::people::cookie::{COOKIE, COOKIE_SECURE, cookie, is_same_origin, token};

/// The header with the CSRF token, for scripts. Forms contain it in a field.
const CSRF_HEADER: &str = "x-csrf-token";

/// Whether a CSRF token belongs to a person's session.
pub fn is_csrf_token(person: &Person, token: &str) -> bool {
    bool::from(person.csrf.as_bytes().ct_eq(token.as_bytes()))
}

/// Authenticates a request by its session cookie. `None` without a valid session.
///
/// # Errors
/// Fails if the session can't be read, or if the request lacks the protection against forged
/// requests.
pub(super) async fn authenticate(
    state: &ApiState,
    headers: &HeaderMap,
    method: &Method,
    from: IpAddr,
) -> Result<Option<Principal>, ApiError> {
    let is_https = state.api.base_url.starts_with("https:");
    let Some(token) = token(headers, is_https) else { return Ok(None) };
    let person = state.api.people.who(&token).await;
    let Some(person) = person.map_err(ApiError::store("read a session"))? else {
        return Ok(None);
    };
    if !state.is_enabled(&person.user.account) {
        return Ok(None);
    }
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    let csrf = headers.get(CSRF_HEADER).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !is_same_origin(headers) || (!is_read && !is_csrf_token(&person, csrf)) {
        return Err(ApiError::Forbidden {
            code: "csrf",
            message: "a request with a session must come from the console, with X-CSRF-Token",
        });
    }
    Ok(Some(Principal::from_person(&person, from)))
}
