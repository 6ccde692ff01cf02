//! Whose an address is: as far as limits by address are concerned, whether it is this machine's own, and whether it leads to a socket.

use std::net::{IpAddr, Ipv6Addr};

/// An IPv4 address, or the /64 of an IPv6 one: what one person, or one attacker, has.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Whether packets to this address may reach a socket that is bound there: an IPv6 wildcard takes both families.
pub fn leads_to(ip: IpAddr, bound: IpAddr) -> bool {
    let family = match bound {
        IpAddr::V4(_) => ip.is_ipv4(),
        IpAddr::V6(v6) => ip.is_ipv6() || v6.is_unspecified(),
    };
    family && !ip.is_unspecified() && !ip.is_multicast()
}

/// Whether the URL leads to this machine, as it is written: no name is looked up.
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
    fn this_machine_is_known_by_its_addresses_and_its_name() {
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
