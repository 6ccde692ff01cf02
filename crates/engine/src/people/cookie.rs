//! The console's session as a request shows it: a cookie, and the browser's word that the request comes from our own pages (R20).
//! The APIs, the console and the phone socket read it alike.

use http::{HeaderMap, header};

use super::Token;

/// The cookie's name: over https the browser itself holds it to this host and path.
pub const COOKIE: &str = "offhook";
pub const COOKIE_SECURE: &str = "__Host-offhook";
/// The session that a request shows.
pub fn token(headers: &HeaderMap, secure: bool) -> Option<Token> {
    cookie(headers, if secure { COOKIE_SECURE } else { COOKIE }).and_then(Token::read)
}

/// A cookie's value.
pub fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs =
        lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
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
