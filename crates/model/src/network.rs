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

#[cfg(test)]
mod tests {
    use super::is_loopback;

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
