//! The console's session as a way into the number API: a cookie, and for whatever changes something a token and the word
//! of the browser that the request comes from our own pages (R20).

use axum::response::Response;
use http::{HeaderMap, Method, StatusCode, header};
use subtle::ConstantTimeEq as _;

use super::Shared;
use super::auth::Member;
use super::error;
use crate::people::{Person, Token};

/// The cookie's name: over https the browser itself holds it to this host and path.
pub const COOKIE: &str = "offhook";
pub const COOKIE_SECURE: &str = "__Host-offhook";
/// Where a script gives the token that a form has in a field.
const CSRF: &str = "x-csrf-token";

/// The session that a request shows.
pub fn token(headers: &HeaderMap, secure: bool) -> Option<Token> {
    cookie(headers, if secure { COOKIE_SECURE } else { COOKIE }).and_then(Token::read)
}

/// A cookie's value.
pub fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(known, _)| *known == name).map(|(_, value)| value)
}

/// Whether a request comes from our own pages, as far as the browser says: `Sec-Fetch-Site`, else `Origin`. One that says
/// neither is no browser of today.
pub fn is_from_here(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    match (text("sec-fetch-site"), text("origin")) {
        (Some(site), _) => matches!(site, "same-origin" | "none"),
        (None, Some(origin)) => {
            let host = origin.split_once("://").map(|(_, host)| host);
            host.is_some() && host == text("host")
        }
        (None, None) => true,
    }
}

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
    let ours = |error: crate::store::StoreError| {
        tracing::warn!(%error, "a session could not be read");
        Box::new(super::number::internal())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r20_only_our_own_pages_are_from_here() {
        let from = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, value.parse().unwrap());
            }
            is_from_here(&headers)
        };
        assert!(from(&[]) && from(&[("sec-fetch-site", "same-origin")]) && from(&[("sec-fetch-site", "none")]));
        assert!(!from(&[("sec-fetch-site", "same-site")]) && !from(&[("sec-fetch-site", "cross-site")]));
        assert!(from(&[("origin", "http://a:1"), ("host", "a:1")]));
        assert!(!from(&[("origin", "http://b:1"), ("host", "a:1")]) && !from(&[("origin", "null"), ("host", "a")]));
        assert!(!from(&[("origin", "http://b")]));
    }

    #[test]
    fn a_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append("cookie", "a=1; offhook=x".parse().unwrap());
        headers.append("cookie", "b=2".parse().unwrap());
        assert_eq!(
            [cookie(&headers, "a"), cookie(&headers, "offhook"), cookie(&headers, "b")],
            [Some("1"), Some("x"), Some("2")]
        );
        assert_eq!((cookie(&headers, "off"), token(&headers, false).is_some()), (None, false));
    }
}
