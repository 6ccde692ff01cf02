//! Results of forms that a page shows once, such as a new secret. The response to the form
//! redirects to the page, so that reloading it does not submit the form again. The result travels
//! in a cookie, because another node of a fleet may render the page.

use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Redirect, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Console;
use super::auth::Visitor;
use super::cookie::{cookie, with_cookie};
use crate::api::session;

/// Lifetime of the cookie in seconds: the browser follows the redirect at once.
const MAX_AGE: u32 = 60;

fn cookie_name(is_secure: bool) -> &'static str {
    if is_secure { "__Host-offhook-once" } else { "offhook-once" }
}

/// The cookie's value, bound to a session by its CSRF token, and to a page by its path.
fn encode(csrf: &str, path: &str, result: &impl Serialize) -> String {
    let text = serde_json::to_vec(&(csrf, path, result)).unwrap_or_default();
    URL_SAFE_NO_PAD.encode(text)
}

/// CSRF token, path and result of a cookie.
fn decode<T: DeserializeOwned>(value: &str) -> Option<(String, String, T)> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(value).ok()?).ok()
}

/// Redirects to the page at `path`, which shows the result.
pub(super) fn redirect(
    console: &Console,
    visitor: &Visitor,
    path: &str,
    result: &impl Serialize,
) -> Response {
    let value = encode(&visitor.person.csrf, path, result);
    let name = cookie_name(console.is_secure());
    with_cookie(Redirect::to(path).into_response(), &cookie(console, name, &value, Some(MAX_AGE)))
}

/// Returns the result for the page that the visitor requested.
pub(super) fn take<T: DeserializeOwned>(
    console: &Console,
    visitor: &Visitor,
    headers: &HeaderMap,
) -> Option<T> {
    let value = session::cookie(headers, cookie_name(console.is_secure()))?;
    let (csrf, path, result) = decode(value)?;
    let is_meant = session::is_csrf_token(&visitor.person, &csrf) && path == visitor.path;
    is_meant.then_some(result)
}

/// Deletes the result from the browser.
pub(super) fn taken(console: &Console, response: Response) -> Response {
    with_cookie(response, &cookie(console, cookie_name(console.is_secure()), "", Some(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_comes_back_with_its_session_and_page() {
        let value = encode("token", "/console/people/", &("Mira <ü>", "secret; Path=/"));
        assert!(value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)), "{value}");
        let (csrf, path, result) = decode::<(String, String)>(&value).expect("a result");
        assert_eq!((csrf.as_str(), path.as_str()), ("token", "/console/people/"));
        assert_eq!(result, ("Mira <ü>".to_owned(), "secret; Path=/".to_owned()));
        for broken in ["", "=", &value[..value.len() / 2], "bnVsbA"] {
            assert!(decode::<(String, String)>(broken).is_none(), "{broken}");
        }
    }
}
