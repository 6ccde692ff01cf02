//! Customer URLs: the text as written, which signatures cover, together with its parsed form
//! (WHATWG URL standard).
//!
//! Everything that can be checked without a lookup is checked here: scheme, user info, port, and IP
//! addresses in any notation. Host names are judged by their addresses when a connection is opened;
//! see `connect`.

use std::sync::Arc;

use url::{Host, Url};

use super::guard::{Guard, Refusal};

/// Largest length of a URL, in bytes.
pub const URL_BYTES_MAX: usize = 8_192;

/// Largest length of a host name and of one label, in ASCII (RFC 1035 §2.3.4, RFC 1123 §2.1).
const HOST_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// Maximum number of characters of an unsupported scheme that messages quote.
const SCHEME_CHARS_SHOWN: usize = 40;

/// A scheme as messages quote it. It is truncated, because it appears in log lines.
fn shown_scheme(scheme: &str) -> String {
    scheme.chars().take(SCHEME_CHARS_SHOWN).collect()
}

/// Whether two URLs have the same scheme, host and port. `false` if either is not a URL.
pub fn is_same_origin(one: &str, other: &str) -> bool {
    match (Url::parse(one), Url::parse(other)) {
        (Ok(one), Ok(other)) => one.origin() == other.origin(),
        _ => false,
    }
}

/// A customer URL whose text has passed all checks.
#[derive(Clone, Debug)]
pub struct CustomerUrl {
    written: Arc<str>,
    fragment_at: usize,
    parsed: Url,
}

impl CustomerUrl {
    /// Parses an absolute `http` or `https` URL.
    ///
    /// # Errors
    ///
    /// Fails if the text is not such a URL or `guard` refuses a part of it.
    pub fn parse(text: &str, guard: &Guard) -> Result<Self, Refusal> {
        let written = text.trim_matches([' ', '\t', '\r', '\n']);
        if written.len() > URL_BYTES_MAX {
            return Err(Refusal::Malformed(format!("it is longer than {URL_BYTES_MAX} bytes")));
        }
        // The parser would silently drop these characters, and the signed text would then differ
        // from the requested URL.
        if written.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(Refusal::Malformed("it contains a space or control character".to_owned()));
        }
        let (scheme, authority) = written
            .split_once("://")
            .map(|(scheme, rest)| {
                (scheme, rest.split(['/', '\\', '?', '#']).next().unwrap_or_default())
            })
            .filter(|(_, authority)| !authority.is_empty())
            .ok_or_else(|| {
                Refusal::Malformed("it is not of the form https://host/path".to_owned())
            })?;
        match scheme.to_ascii_lowercase().as_str() {
            "https" => {}
            "http" if guard.allows_insecure() => {}
            _ => {
                return Err(Refusal::Scheme {
                    scheme: shown_scheme(scheme),
                    required: if guard.allows_insecure() { "http or https" } else { "https" },
                });
            }
        }
        if authority.contains('@') {
            return Err(Refusal::UserInfo);
        }
        let mut parsed = Url::parse(written).map_err(|e| Refusal::Malformed(e.to_string()))?;
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(Refusal::UserInfo);
        }
        guard.check_port(parsed.port_or_known_default().unwrap_or(0))?;
        match parsed.host() {
            Some(Host::Domain(name)) => {
                check_dns_length(name)?;
                guard.check_name(name)?;
            }
            Some(Host::Ipv4(ip)) => guard.check_ip(ip.into())?,
            Some(Host::Ipv6(ip)) => guard.check_ip(ip.into())?,
            None => return Err(Refusal::Malformed("it has no host".to_owned())),
        }
        parsed.set_fragment(None);
        let fragment_at = written.find('#').unwrap_or(written.len());
        Ok(Self { written: written.into(), fragment_at, parsed })
    }

    /// Parses an absolute `ws` or `wss` URL. It is checked like the corresponding `http` or `https`
    /// URL and signed as written.
    ///
    /// # Errors
    ///
    /// See [`CustomerUrl::parse`].
    pub fn socket(text: &str, guard: &Guard) -> Result<Self, Refusal> {
        let written = text.trim_matches([' ', '\t', '\r', '\n']);
        let (scheme, rest) = written.split_once("://").ok_or_else(|| {
            Refusal::Malformed("it is not of the form wss://host/path".to_owned())
        })?;
        let http_scheme = match scheme.to_ascii_lowercase().as_str() {
            "wss" => "https",
            "ws" if guard.allows_insecure() => "http",
            _ => {
                return Err(Refusal::SocketScheme {
                    scheme: shown_scheme(scheme),
                    required: if guard.allows_insecure() { "ws or wss" } else { "wss" },
                });
            }
        };
        let checked = Self::parse(&format!("{http_scheme}://{rest}"), guard)?;
        let fragment_at = written.find('#').unwrap_or(written.len());
        Ok(Self { written: written.into(), fragment_at, parsed: checked.parsed })
    }

    /// Resolves a redirect target. An absolute URL keeps its text; a relative one gets the joined
    /// form.
    ///
    /// # Errors
    ///
    /// See [`CustomerUrl::parse`]. Also fails if the redirect leads from `https` to `http`.
    pub fn join(&self, location: &str, guard: &Guard) -> Result<Self, Refusal> {
        let joined = self.parsed.join(location).map_err(|e| Refusal::Malformed(e.to_string()))?;
        if self.is_https() && joined.scheme() != "https" {
            return Err(Refusal::Downgrade);
        }
        match Self::parse(location, guard) {
            Err(Refusal::Malformed(_)) => Self::parse(joined.as_str(), guard),
            checked => checked,
        }
    }

    /// Returns the text as written without its fragment. Signatures cover this text.
    pub fn text(&self) -> &str {
        self.written.get(..self.fragment_at).unwrap_or(&self.written)
    }

    /// Returns the fragment, or `None` if there is none. It contains settings for the request
    /// (`docs/reference/callbacks.md#url-settings`) and is never sent.
    pub fn fragment(&self) -> Option<&str> {
        self.written.get(self.fragment_at..)?.strip_prefix('#')
    }

    /// Returns the parsed URL without its fragment.
    pub fn parsed(&self) -> &Url {
        &self.parsed
    }

    /// Returns `true` if requests use TLS.
    pub fn is_https(&self) -> bool {
        self.parsed.scheme() == "https"
    }

    /// Returns scheme, host and port as text, the key of connection pools and queues.
    pub fn origin(&self) -> String {
        self.parsed.origin().ascii_serialization()
    }

    /// Returns the host and port as written if they name the requested host in plain ASCII, so that
    /// a receiver that rebuilds the URL from `Host` obtains the signed text.
    pub(super) fn authority(&self) -> String {
        let written =
            self.text().split_once("://").and_then(|(_, rest)| rest.split(['/', '?']).next());
        let host = self.parsed.host_str().unwrap_or_default();
        let plain = written.filter(|w| {
            let name = w
                .rsplit_once(':')
                .filter(|(_, p)| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()));
            name.map_or(*w, |(name, _)| name).eq_ignore_ascii_case(host)
        });
        match (plain, self.parsed.port()) {
            (Some(written), _) => written.to_owned(),
            (None, Some(port)) => format!("{host}:{port}"),
            (None, None) => host.to_owned(),
        }
    }
}

/// Rejects host names that are too long for DNS. The store keeps hosts in an index, which limits
/// their length.
fn check_dns_length(name: &str) -> Result<(), Refusal> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.len() > HOST_BYTES_MAX || name.split('.').any(|label| label.len() > LABEL_BYTES_MAX) {
        let text = format!(
            "its host has more than {HOST_BYTES_MAX} bytes, or one of its labels more than {LABEL_BYTES_MAX}"
        );
        return Err(Refusal::Malformed(text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use url::Host;

    use super::{CustomerUrl, is_same_origin};
    use crate::guard::{Guard, Refusal, is_public};

    /// Spellings of loopback and other blocked addresses, and other invalid URLs. All are refused
    /// without a lookup.
    const REFUSED: &[&str] = &[
        // loopback
        "https://localhost/",
        "https://LOCALHOST./",
        "https://app.localhost:8443/",
        "https://127.0.0.1/",
        "https://127.1/",
        "https://127.0.1/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0X7F000001/",
        "https://0x7f.1/",
        "https://0x7f.0x0.0x0.0x1/",
        "https://017700000001/",
        "https://0177.0.0.1/",
        "https://0177.0.0.01/",
        "https://00000177.1/",
        "https://127.0.0.1./",
        "https://127.000.000.001/",
        "https://127.255.255.254:8443/",
        "https://①②⑦.0.0.1/",
        "https://127。0。0。1/",
        "https://127．0．0．1/",
        "https://１２７.0.0.1/",
        "https://%31%32%37.0.0.1/",
        "https://0x7f%2e1/",
        "https://[::1]/",
        "https://[0:0:0:0:0:0:0:1]/",
        "https://[0000::0001]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[::ffff:7f00:1]/",
        "https://[0:0:0:0:0:ffff:7f00:0001]/",
        "https://[::127.0.0.1]/",
        "https://[64:ff9b::7f00:1]/",
        "https://[64:ff9b::127.0.0.1]/",
        "https://[2002:7f00:1::]/",
        "HTTPS://127.0.0.1/",
        " https://127.0.0.1/ ",
        // unspecified
        "https://0.0.0.0/",
        "https://0/",
        "https://0x0/",
        "https://[::]/",
        "https://[::ffff:0:0]/",
        // private and shared
        "https://10.0.0.1/",
        "https://167772161/",
        "https://0xa000001/",
        "https://012.1/",
        "https://172.16.0.1/",
        "https://172.31.255.255/",
        "https://192.168.0.1/",
        "https://192.168.257/",
        "https://0xc0a80001/",
        "https://100.64.0.1/",
        "https://[fc00::1]/",
        "https://[fd12:3456::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://[2002:a00:1::]/",
        // metadata services and link-local
        "https://169.254.169.254/latest/meta-data/",
        "https://2852039166/",
        "https://0xa9fea9fe/",
        "https://0251.0376.0251.0376/",
        "https://169.254.43518/",
        "https://[::ffff:169.254.169.254]/",
        "https://[64:ff9b::a9fe:a9fe]/",
        "https://[fe80::1]/",
        "https://[fec0::1]/",
        "https://[fd00:ec2::254]/",
        "https://metadata.google.internal/",
        "https://METADATA.google.internal./",
        // the other blocked ranges
        "https://192.0.0.1/",
        "https://192.0.2.1/",
        "https://192.88.99.1/",
        "https://198.18.0.1/",
        "https://198.51.100.1/",
        "https://203.0.113.1/",
        "https://224.0.0.1/",
        "https://240.0.0.1/",
        "https://255.255.255.255/",
        "https://[ff02::1]/",
        "https://[2001:db8::1]/",
        "https://[2001::1]/",
        "https://[100::1]/",
        "https://[64:ff9b:1::1]/",
        // user info, including forms that parsers disagree about
        "https://user@app.example.com/",
        "https://user:pw@app.example.com/",
        "https://@app.example.com/",
        "https://app.example.com@127.0.0.1/",
        "https://app.example.com:443@127.0.0.1/",
        // schemes
        "http://app.example.com/",
        "ftp://app.example.com/",
        "file:///etc/passwd",
        "gopher://127.0.0.1:70/",
        "javascript:alert(1)",
        "data:text/xml,<Response/>",
        "wss://app.example.com/",
        // ports
        "https://app.example.com:22/",
        "https://app.example.com:80/",
        "https://app.example.com:0/",
        "https://app.example.com:1023/",
        "https://app.example.com:65536/",
        // form
        "",
        "/answer",
        "//app.example.com/",
        "https:app.example.com/",
        "https:/app.example.com/",
        "https:///app.example.com/",
        "https:\\\\app.example.com/",
        "https://",
        "https://?x",
        "https://app.example.com/a b",
        "https://app.exa\tmple.com/",
        "https://app.example.com/\nHost: x",
        "https://app.example.com/\u{85}",
        "https://[::1",
        "https://[fe80::1%25eth0]/",
        "https://256.256.256.256/",
        "https://1.2.3.4.5.6/",
        "https://app_<>.example.com/",
    ];

    #[test]
    fn compares_origins() {
        for (one, other, want) in [
            ("https://a.example/x", "https://A.example:443/y?z", true),
            ("https://a.example/", "http://a.example/", false),
            ("https://a.example/", "https://a.example:8443/", false),
            ("https://a.example/", "https://b.example/", false),
            ("https://a.example/", "https://a.example@b.example/", false),
            ("nonsense", "nonsense", false),
        ] {
            assert_eq!(is_same_origin(one, other), want, "{one} {other}");
        }
    }

    #[test]
    fn r17_every_spelling_of_a_blocked_target_is_refused() {
        assert!(REFUSED.len() >= 60);
        let guard = Guard::default();
        for text in REFUSED {
            assert!(CustomerUrl::parse(text, &guard).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn r17_public_urls_are_accepted_and_keep_their_text() {
        let guard = Guard::default();
        for (text, signed, parsed) in [
            ("https://app.example.com", "https://app.example.com", "https://app.example.com/"),
            (
                "https://App.Example.com:443/x%20y/?q=%2B#rc=2",
                "https://App.Example.com:443/x%20y/?q=%2B",
                "https://app.example.com/x%20y/?q=%2B",
            ),
            ("https://8.8.8.8:8443/a", "https://8.8.8.8:8443/a", "https://8.8.8.8:8443/a"),
            (
                "https://[2606:4700::1111]/",
                "https://[2606:4700::1111]/",
                "https://[2606:4700::1111]/",
            ),
            (
                "https://app.example.com/@me",
                "https://app.example.com/@me",
                "https://app.example.com/@me",
            ),
            (
                "https://bücher.example/",
                "https://bücher.example/",
                "https://xn--bcher-kva.example/",
            ),
        ] {
            let url = CustomerUrl::parse(text, &guard).unwrap();
            assert_eq!((url.text(), url.parsed().as_str()), (signed, parsed));
        }
        let url = CustomerUrl::parse("https://a.example/#rc=2&rp=ct#x", &guard).unwrap();
        assert_eq!(url.fragment(), Some("rc=2&rp=ct#x"));
        assert_eq!(CustomerUrl::parse("https://a.example/", &guard).unwrap().fragment(), None);
    }

    #[test]
    fn a_refused_scheme_is_told_the_allowed_ones() {
        for (allows_insecure, http, socket) in
            [(false, "https is", "wss is"), (true, "http or https is", "ws or wss is")]
        {
            let guard = Guard::new(allows_insecure, Vec::new());
            let why = CustomerUrl::parse("ftp://app.example.com/", &guard).unwrap_err().to_string();
            assert_eq!(why, format!("the scheme ftp is not allowed: {http} required"));
            let why = CustomerUrl::socket("ftp://app.example.com/", &guard).unwrap_err();
            assert!(why.to_string().ends_with(&format!(": {socket} required")), "{why}");
        }
    }

    #[test]
    fn r17_allow_insecure_opens_http_and_loopback_only() {
        let guard = Guard::new(true, Vec::new());
        for good in [
            "http://127.0.0.1:9000/plivo/answer/",
            "http://localhost/",
            "https://10.0.0.1/",
            "http://[::1]:8081/",
        ] {
            assert!(CustomerUrl::parse(good, &guard).is_ok(), "{good}");
        }
        for bad in [
            "http://169.254.169.254/",
            "http://0xa9fea9fe/",
            "http://metadata.google.internal/",
            "http://[fd00:ec2::254]/",
            "http://[fe80::1]/",
            "http://u@127.0.0.1/",
            "http://127.0.0.1:22/",
            "ws://127.0.0.1:9000/",
        ] {
            assert!(CustomerUrl::parse(bad, &guard).is_err(), "{bad}");
        }
    }

    #[test]
    fn r17_websocket_urls_follow_the_same_rules() {
        let (strict, open) = (Guard::default(), Guard::new(true, Vec::new()));
        for bad in REFUSED.iter().filter_map(|text| text.strip_prefix("https://")) {
            assert!(CustomerUrl::socket(&format!("wss://{bad}"), &strict).is_err(), "wss://{bad}");
        }
        for bad in [
            "ws://app.example.com/",
            "https://app.example.com/",
            "wss:app.example.com",
            "wss//a",
            "",
            "file://x/",
        ] {
            assert!(CustomerUrl::socket(bad, &strict).is_err(), "{bad}");
        }
        let url = CustomerUrl::socket("wss://Bot.Example.com:443/x?a=%2B#rt=1", &strict).unwrap();
        assert_eq!((url.text(), url.is_https()), ("wss://Bot.Example.com:443/x?a=%2B", true));
        assert_eq!(
            (url.parsed().as_str(), &*url.authority()),
            ("https://bot.example.com/x?a=%2B", "Bot.Example.com:443")
        );
        let url = CustomerUrl::socket("ws://127.0.0.1:9000/bot", &open).unwrap();
        assert_eq!((url.text(), url.is_https()), ("ws://127.0.0.1:9000/bot", false));
        assert!(CustomerUrl::socket("ws://169.254.169.254/", &open).is_err());
        assert!(CustomerUrl::socket("http://127.0.0.1:9000/", &open).is_err());
    }

    #[test]
    fn the_authority_is_sent_as_written_if_it_names_the_host() {
        let guard = Guard::default();
        for (text, authority) in [
            ("https://App.Example.com:443/x", "App.Example.com:443"),
            ("https://app.example.com?x=1", "app.example.com"),
            ("https://bücher.example:8443/", "xn--bcher-kva.example:8443"),
            ("https://0x08080808/", "8.8.8.8"),
            ("https://app.example.com:/", "app.example.com"),
            ("https://[2606:4700::1111]:8443/", "[2606:4700::1111]:8443"),
        ] {
            assert_eq!(CustomerUrl::parse(text, &guard).unwrap().authority(), authority, "{text}");
        }
    }

    #[test]
    fn r17_host_names_too_long_for_dns_are_refused() {
        let label = "a".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
        for good in [longest.clone(), format!("{longest}.")] {
            assert!(
                CustomerUrl::parse(&format!("https://{good}/"), &Guard::default()).is_ok(),
                "{}",
                good.len()
            );
        }
        for bad in [
            format!("a{longest}"),
            format!("{label}a.example.com"),
            "ü.".repeat(2_000),
            "ü".repeat(3_000),
        ] {
            let result = CustomerUrl::parse(&format!("https://{bad}/"), &Guard::default());
            assert!(matches!(result, Err(Refusal::Malformed(_))), "{}", bad.len());
        }
    }

    #[test]
    fn r17_redirects_stay_on_https_and_are_checked_like_the_first_url() {
        let guard = Guard::default();
        let url = CustomerUrl::parse("https://app.example.com/a/b?x=1", &guard).unwrap();
        for (location, leads_to) in [
            ("/c", "https://app.example.com/c"),
            ("c?y=2", "https://app.example.com/a/c?y=2"),
            ("//other.example/d", "https://other.example/d"),
            ("https://Other.Example:443/d", "https://Other.Example:443/d"),
        ] {
            assert_eq!(url.join(location, &guard).unwrap().text(), leads_to);
        }
        for range in [
            "127.0.0.1",
            "10.0.0.1",
            "169.254.169.254",
            "[::1]",
            "[fd00::1]",
            "0x7f.1",
            "192.168.0.1",
        ] {
            let location = format!("https://{range}/");
            assert!(matches!(url.join(&location, &guard), Err(Refusal::Address(_))), "{location}");
        }
        let open = Guard::new(true, Vec::new());
        assert_eq!(url.join("http://app.example.com/", &open).unwrap_err(), Refusal::Downgrade);
        assert_eq!(url.join("ftp://app.example.com/", &open).unwrap_err(), Refusal::Downgrade);
    }

    proptest! {
        #[test]
        fn r17_no_text_bypasses_the_rules(
            text in "(https?|HTTPS|ws)://([0-9a-fx.\\[\\]:%@\\\\/①②⑦。]{1,24}|\\PC{1,16})(:[0-9]{1,5})?/?\\PC{0,8}"
        ) {
            if let Ok(url) = CustomerUrl::parse(&text, &Guard::default()) {
                prop_assert_eq!(url.parsed().scheme(), "https");
                prop_assert!(url.parsed().username().is_empty() && url.parsed().password().is_none());
                match url.parsed().host() {
                    Some(Host::Ipv4(ip)) => prop_assert!(is_public(ip.into())),
                    Some(Host::Ipv6(ip)) => prop_assert!(is_public(ip.into())),
                    Some(Host::Domain(name)) => prop_assert!(name.parse::<std::net::IpAddr>().is_err()),
                    None => prop_assert!(false, "no host"),
                }
                // The HTTP client parses this text again; it must lead to the same origin.
                let sent = format!("https://{}/", url.authority());
                let again = CustomerUrl::parse(&sent, &Guard::default()).unwrap();
                prop_assert_eq!(again.parsed().origin(), url.parsed().origin());
            }
        }
    }
}
