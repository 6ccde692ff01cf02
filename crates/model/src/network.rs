//! Classifies network addresses.

use std::net::{IpAddr, Ipv6Addr};

/// The part of an address that identifies one client for rate limits: an IPv4 address, or the /64
/// prefix of an IPv6 address, since a single host commonly owns a whole /64.
pub fn network_prefix(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Whether packets to `ip` can reach a socket bound to `bound`. A socket bound to the IPv6 wildcard
/// address receives both families.
pub fn can_reach(ip: IpAddr, bound: IpAddr) -> bool {
    let family = match bound {
        IpAddr::V4(_) => ip.is_ipv4(),
        IpAddr::V6(v6) => ip.is_ipv6() || v6.is_unspecified(),
    };
    family && !ip.is_unspecified() && !ip.is_multicast()
}

/// Whether the host of a URL is a loopback address or `localhost`. Does not resolve names.
pub fn is_loopback(url: &url::Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// Whether a `Host` is an IP address or `localhost`, with or without a port. A browser that sends
/// another name to a server of this machine may be under a DNS rebinding attack.
pub fn is_local_host(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    };
    let literal = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    literal.parse::<IpAddr>().is_ok() || name.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::{is_local_host, is_loopback};

    #[test]
    fn recognises_local_hosts() {
        for host in ["127.0.0.1", "127.0.0.1:8080", "localhost", "LOCALHOST:1", "[::1]", "[::1]:80"]
        {
            assert!(is_local_host(host), "{host}");
        }
        for host in ["", "rebound.example.com:8080", "localhost.example.com", "127.0.0.1.example"] {
            assert!(!is_local_host(host), "{host}");
        }
    }

    #[test]
    fn recognises_loopback_hosts() {
        for (url, here) in [
            ("http://localhost:8080/", true),
            ("https://LOCALHOST", true),
            ("http://127.9.9.9/", true),
            ("http://[::1]/", true),
            ("http://localhost.example/", false),
            ("http://10.0.0.1/", false),
            ("http://[2001:db8::1]/", false),
            ("data:text/plain,localhost", false),
        ] {
            assert_eq!(is_loopback(&url.parse().expect(url)), here, "{url}");
        }
    }
}
