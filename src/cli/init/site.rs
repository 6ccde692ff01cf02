//! The host at which the node is reachable from outside.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use url::Host;

/// A host name or IP address, with an optional port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Site {
    host: Host,
    port: Option<u16>,
    /// Whether a certificate authority can issue a certificate for the host.
    pub(super) is_public: bool,
}

/// Names that are never in the public DNS (RFC 6761, RFC 6762, RFC 8375, RFC 9476 and habit).
const PRIVATE_NAMES: &[&str] =
    &["localhost", "local", "internal", "lan", "home.arpa", "test", "invalid"];

impl Site {
    /// Parses a host name, or `https://HOST`. Hosts without a public name are only allowed with a
    /// simulated Meta.
    pub(super) fn parse(text: &str, simulated: bool) -> Result<Self, String> {
        let bare = text.trim().trim_end_matches('/');
        let bare = bare.strip_prefix("https://").unwrap_or(bare);
        let url = url::Url::parse(&format!("http://{bare}/"))
            .map_err(|e| format!("{bare:?} is not a host name: {e}"))?;
        let host = url.host().map(|host| host.to_owned());
        let is_bare = url.path() == "/" && url.query().is_none() && url.username().is_empty();
        let Some(host) = host.filter(|_| is_bare && !bare.contains('/')) else {
            return Err(format!("{bare:?} is not a host name; write it like calls.example.com"));
        };
        let is_public = matches!(&host, Host::Domain(name) if is_public_name(name));
        if !is_public && !simulated {
            return Err(format!(
                "{bare} has no certificate that Meta trusts; write a public host name like calls.example.com"
            ));
        }
        // The parser drops the port 80.
        let port = if bare.ends_with(":80") { Some(80) } else { url.port() };
        Ok(Self { host, port, is_public })
    }

    pub(super) fn name(&self) -> String {
        self.host.to_string()
    }

    /// The URL of the node, without a trailing slash.
    pub(super) fn base_url(&self, is_https: bool) -> String {
        let (host, scheme) = (&self.host, if is_https { "https" } else { "http" });
        match self.port.or((!is_https).then_some(8080)) {
            Some(port) => format!("{scheme}://{host}:{port}"),
            None => format!("{scheme}://{host}"),
        }
    }

    /// The port of the listener with TLS.
    pub(super) fn https_port(&self) -> u16 {
        self.port.unwrap_or(443)
    }

    /// The address of the listener without TLS, for a host that is not public.
    pub(super) fn plain(&self) -> SocketAddr {
        let ip = match self.host {
            Host::Ipv4(ip) => IpAddr::V4(ip),
            Host::Ipv6(ip) => ip.into(),
            Host::Domain(_) => Ipv4Addr::LOCALHOST.into(),
        };
        (ip, self.port.unwrap_or(8080)).into()
    }
}

fn is_public_name(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    let is_below = |zone: &str| {
        name.strip_suffix(zone).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    name.contains('.') && !PRIVATE_NAMES.iter().any(|zone| is_below(zone))
}

#[cfg(test)]
mod tests {
    use super::Site;

    #[test]
    fn public_names_are_told_from_others() {
        for text in ["calls.example.com", "https://calls.example.com/", "CALLS.example.com"] {
            let site = Site::parse(text, false).expect(text);
            assert!(site.is_public);
            assert_eq!(site.base_url(true), "https://calls.example.com");
            assert_eq!(site.https_port(), 443);
        }
        let site = Site::parse("calls.example.com:8443", false).expect("with a port");
        assert_eq!(site.base_url(true), "https://calls.example.com:8443");
        assert_eq!(site.https_port(), 8443);
        for text in ["127.0.0.1", "localhost", "calls", "calls.local", "[::1]:90", "203.0.113.7"] {
            let error = Site::parse(text, false).expect_err(text);
            assert!(error.contains("like calls.example.com"), "{error}");
            assert!(!Site::parse(text, true).expect(text).is_public, "{text}");
        }
        for text in ["", "calls.example.com/path", "a b.example.com", "calls.example.com:x"] {
            assert!(Site::parse(text, true).is_err(), "{text}");
        }
        let site = Site::parse("127.0.0.1:20001", true).expect("with a port");
        assert_eq!(site.base_url(false), "http://127.0.0.1:20001");
        assert_eq!(site.plain().to_string(), "127.0.0.1:20001");
    }
}
