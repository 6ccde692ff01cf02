//! The session cookie of the console, and the same-origin check of requests. The APIs, the console
//! and the phone socket share this code.

use http::{HeaderMap, header};

use super::Token;

/// The cookie's name. Over https the `__Host-` prefix makes the browser bind it to this host.
pub const COOKIE: &str = "offhook";
pub const COOKIE_SECURE: &str = "__Host-offhook";
/// The cookie by which a browser is recognised at the next sign-in.
pub const BROWSER: &str = "offhook-browser";
pub const BROWSER_SECURE: &str = "__Host-offhook-browser";

/// The session token of a request, if it has one.
pub fn token(headers: &HeaderMap, secure: bool) -> Option<Token> {
    cookie(headers, if secure { COOKIE_SECURE } else { COOKIE }).and_then(Token::read)
}

/// The value of the cookie [`BROWSER`], if the request has one.
pub fn browser(headers: &HeaderMap, secure: bool) -> Option<&str> {
    cookie(headers, if secure { BROWSER_SECURE } else { BROWSER })
}

/// The value of a cookie.
pub fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs =
        lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(known, _)| *known == name).map(|(_, value)| value)
}

/// Whether a request is from the node's own pages, by the `Sec-Fetch-Site` header or else `Origin`.
/// Without either it is not from a current browser, and is allowed.
pub fn is_same_origin(headers: &HeaderMap) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r20_only_same_origin_requests_pass() {
        let from = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, value.parse().unwrap());
            }
            is_same_origin(&headers)
        };
        assert!(
            from(&[])
                && from(&[("sec-fetch-site", "same-origin")])
                && from(&[("sec-fetch-site", "none")])
        );
        assert!(
            !from(&[("sec-fetch-site", "same-site")]) && !from(&[("sec-fetch-site", "cross-site")])
        );
        assert!(from(&[("origin", "http://a:1"), ("host", "a:1")]));
        assert!(
            !from(&[("origin", "http://b:1"), ("host", "a:1")])
                && !from(&[("origin", "null"), ("host", "a")])
        );
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
