//! Decides which addresses customer URLs may reach (`docs/reference/reliability.md#r17`). This
//! module does no I/O.
//!
//! An IPv6 address that embeds an IPv4 address (mapped, NAT64, 6to4 and two deprecated forms) is
//! judged by the embedded one. `allow_insecure` permits loopback and private ranges; link-local and
//! cloud metadata addresses remain blocked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{Ipv4Net, Ipv6Net};

/// The reason why a customer URL is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("could not read the URL: {0}")]
    Malformed(String),
    #[error("the scheme {scheme} is not allowed: {required} is required")]
    Scheme { scheme: String, required: &'static str },
    #[error("the scheme {scheme} is not allowed for a WebSocket: {required} is required")]
    SocketScheme { scheme: String, required: &'static str },
    #[error("a URL must not contain a user name or password")]
    UserInfo,
    #[error("the port {port} is not allowed: use {low} or a port from 1024 up")]
    Port { port: u16, low: &'static str },
    #[error("could not connect to {0}, which is not a public address")]
    Address(IpAddr),
    /// The address is left out: it may be that of a host that only the operator's name server knows.
    #[error("could not connect to {0}: its address is not a public one")]
    AddressOf(String),
    #[error("could not connect to {0}, a cloud metadata service")]
    Metadata(String),
    #[error("could not connect to {0}, which is this machine: use a public host name")]
    LocalName(String),
    #[error("could not connect to {0}, a listener of this node")]
    OwnListener(SocketAddr),
    #[error("could not follow a redirect from https to http")]
    Downgrade,
}

/// The rules that decide which customer URLs are accepted and which addresses may be connected to.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    allow_insecure: bool,
    own: Vec<SocketAddr>,
}

impl Guard {
    /// Creates the rules. `own` lists the node's listeners; an unspecified address (`0.0.0.0`)
    /// stands for every address of this machine.
    pub fn new(allow_insecure: bool, own: Vec<SocketAddr>) -> Self {
        Self { allow_insecure, own }
    }

    /// Returns `true` if `http`, loopback and private ranges are allowed (`answer.allow_insecure`).
    pub fn allows_insecure(&self) -> bool {
        self.allow_insecure
    }

    /// Checks a port. Of the ports below 1024 only 443 is allowed, and 80 with `allow_insecure`.
    ///
    /// # Errors
    ///
    /// Fails with [`Refusal::Port`].
    pub fn check_port(&self, port: u16) -> Result<(), Refusal> {
        match port {
            443 | 1024.. => Ok(()),
            80 if self.allow_insecure => Ok(()),
            _ if self.allow_insecure => Err(Refusal::Port { port, low: "80, 443" }),
            _ => Err(Refusal::Port { port, low: "443" }),
        }
    }

    /// Checks a host name before it is resolved. Only metadata services and `localhost` (RFC 6761
    /// §6.3) are known by name; everything else is judged by its addresses.
    ///
    /// # Errors
    ///
    /// Fails with [`Refusal::Metadata`] or [`Refusal::LocalName`].
    pub fn check_name(&self, name: &str) -> Result<(), Refusal> {
        let bare = name.trim_end_matches('.').to_ascii_lowercase();
        match bare.as_str() {
            "metadata.google.internal" => Err(Refusal::Metadata(name.to_owned())),
            "localhost" if !self.allow_insecure => Err(Refusal::LocalName(name.to_owned())),
            _ if bare.ends_with(".localhost") && !self.allow_insecure => {
                Err(Refusal::LocalName(name.to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// Checks an address, without regard to the node's own listeners.
    ///
    /// # Errors
    ///
    /// Fails with [`Refusal::Address`].
    pub fn check_ip(&self, ip: IpAddr) -> Result<(), Refusal> {
        match is_public(ip) || (self.allow_insecure && is_private(ip)) {
            true => Ok(()),
            false => Err(Refusal::Address(ip)),
        }
    }

    /// Checks an address before connecting to it.
    ///
    /// # Errors
    ///
    /// Fails with [`Refusal::Address`] or [`Refusal::OwnListener`].
    pub fn check(&self, to: SocketAddr) -> Result<(), Refusal> {
        self.check_ip(to.ip())?;
        let ip = to.ip().to_canonical();
        let is_own = |own: &&SocketAddr| {
            own.port() == to.port()
                && (own.ip().to_canonical() == ip
                    || (own.ip().is_unspecified() && ip.is_loopback()))
        };
        match self.own.iter().find(is_own) {
            Some(_) => Err(Refusal::OwnListener(to)),
            None => Ok(()),
        }
    }

    /// Checks an established connection before anything is sent. If both ends have the same
    /// address, the connection leads to this machine, whichever of its addresses was used.
    ///
    /// # Errors
    ///
    /// Fails with [`Refusal::OwnListener`].
    pub fn check_connected(&self, local: SocketAddr, peer: SocketAddr) -> Result<(), Refusal> {
        let same_host = local.ip().to_canonical() == peer.ip().to_canonical();
        match same_host
            && self.own.iter().any(|own| own.port() == peer.port() && own.ip().is_unspecified())
        {
            true => Err(Refusal::OwnListener(peer)),
            false => Ok(()),
        }
    }
}

/// The blocked IPv4 ranges of `docs/reference/reliability.md#r17-ranges`.
const BLOCKED_V4: [Ipv4Net; 15] = [
    v4(0, 0, 0, 0, 8),
    v4(10, 0, 0, 0, 8),
    v4(100, 64, 0, 0, 10),
    v4(127, 0, 0, 0, 8),
    v4(169, 254, 0, 0, 16),
    v4(172, 16, 0, 0, 12),
    v4(192, 0, 0, 0, 24),
    v4(192, 0, 2, 0, 24),
    v4(192, 88, 99, 0, 24),
    v4(192, 168, 0, 0, 16),
    v4(198, 18, 0, 0, 15),
    v4(198, 51, 100, 0, 24),
    v4(203, 0, 113, 0, 24),
    v4(224, 0, 0, 0, 4),
    v4(240, 0, 0, 0, 4),
];

/// The IPv4 ranges that `allow_insecure` permits. 100.64.0.0/10 is not among them because Alibaba
/// Cloud serves metadata at 100.100.100.200.
const PRIVATE_V4: [Ipv4Net; 4] =
    [v4(127, 0, 0, 0, 8), v4(10, 0, 0, 0, 8), v4(172, 16, 0, 0, 12), v4(192, 168, 0, 0, 16)];

/// The blocked IPv6 ranges of `docs/reference/reliability.md#r17-ranges`, except those judged by
/// the embedded IPv4 address (which include `::` and `::1`).
const BLOCKED_V6: [Ipv6Net; 10] = [
    v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48),
    v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64),
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23),
    v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32),
    v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20),
    v6([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16),
    UNIQUE_LOCAL,
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10),
    v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10),
    v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8),
];
const UNIQUE_LOCAL: Ipv6Net = v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7);
/// The AWS metadata service, inside the unique-local range.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(s: [u16; 8], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]), prefix)
}

/// Returns `true` if an address is routed on the public internet, that is, outside all blocked
/// ranges.
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !BLOCKED_V4.iter().any(|net| net.contains(&ip)),
        IpAddr::V6(ip) => match embedded_ipv4(ip) {
            Some(v4) => is_public(IpAddr::V4(v4)),
            None => !BLOCKED_V6.iter().any(|net| net.contains(&ip)),
        },
    }
}

/// Returns `true` if `allow_insecure` permits an address: loopback or private, but not a metadata
/// service.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => PRIVATE_V4.iter().any(|net| net.contains(&ip)),
        IpAddr::V6(Ipv6Addr::LOCALHOST) => true,
        IpAddr::V6(ip) => match embedded_ipv4(ip) {
            Some(v4) => is_private(IpAddr::V4(v4)),
            None => UNIQUE_LOCAL.contains(&ip) && ip != METADATA_V6,
        },
    }
}

/// Returns the IPv4 address that is embedded in an IPv6 address, or `None` if there is none. The
/// forms are mapped (`::ffff:0:0/96`), NAT64 (`64:ff9b::/96`), 6to4 (`2002::/16`), and the
/// deprecated compatible (`::/96`, which includes `::` and `::1`) and translated
/// (`::ffff:0:0:0/96`) forms.
fn embedded_ipv4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let join = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match ip.segments() {
        [0, 0, 0, 0, 0, 0xffff, h, l]
        | [0, 0, 0, 0, 0, 0, h, l]
        | [0, 0, 0, 0, 0xffff, 0, h, l]
        | [0x64, 0xff9b, 0, 0, 0, 0, h, l]
        | [0x2002, h, l, ..] => Some(join(h, l)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};

    use super::{Guard, Refusal, is_public};

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn r17_blocked_ranges_have_exact_bounds() {
        // (last public address before, first blocked, last blocked, first public address after); ""
        // if the neighbour is not public
        let ranges = [
            ("", "0.0.0.0", "0.255.255.255", "1.0.0.0"),
            ("9.255.255.255", "10.0.0.0", "10.255.255.255", "11.0.0.0"),
            ("100.63.255.255", "100.64.0.0", "100.127.255.255", "100.128.0.0"),
            ("126.255.255.255", "127.0.0.0", "127.255.255.255", "128.0.0.0"),
            ("169.253.255.255", "169.254.0.0", "169.254.255.255", "169.255.0.0"),
            ("172.15.255.255", "172.16.0.0", "172.31.255.255", "172.32.0.0"),
            ("191.255.255.255", "192.0.0.0", "192.0.0.255", "192.0.1.0"),
            ("192.0.1.255", "192.0.2.0", "192.0.2.255", "192.0.3.0"),
            ("192.88.98.255", "192.88.99.0", "192.88.99.255", "192.88.100.0"),
            ("192.167.255.255", "192.168.0.0", "192.168.255.255", "192.169.0.0"),
            ("198.17.255.255", "198.18.0.0", "198.19.255.255", "198.20.0.0"),
            ("198.51.99.255", "198.51.100.0", "198.51.100.255", "198.51.101.0"),
            ("203.0.112.255", "203.0.113.0", "203.0.113.255", "203.0.114.0"),
            ("223.255.255.255", "224.0.0.0", "255.255.255.255", ""),
            (
                "64:ff9b:0:ffff::",
                "64:ff9b:1::",
                "64:ff9b:1:ffff:ffff:ffff:ffff:ffff",
                "64:ff9b:2::",
            ),
            ("ff:ffff::", "100::", "100::ffff:ffff:ffff:ffff", "100:0:0:1::"),
            ("2000:ffff::", "2001::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", "2001:200::"),
            (
                "2001:db7:ffff::",
                "2001:db8::",
                "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
                "2001:db9::",
            ),
            ("3ffe:ffff::", "3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", "3fff:1000::"),
            ("5eff:ffff::", "5f00::", "5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "5f01::"),
            ("fbff:ffff::", "fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "fe00::"),
            ("fe7f:ffff::", "fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", ""),
            ("", "fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", ""),
            ("", "ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", ""),
        ];
        for (before, first, last, after) in ranges {
            for blocked in [first, last] {
                assert!(!is_public(ip(blocked)), "{blocked}");
            }
            for allowed in [before, after].into_iter().filter(|a| !a.is_empty()) {
                assert!(is_public(ip(allowed)), "{allowed}");
            }
        }
    }

    #[test]
    fn r17_embedded_ipv4_addresses_are_judged() {
        for (blocked, public) in [
            ("::ffff:127.0.0.1", "::ffff:8.8.8.8"),
            ("64:ff9b::10.0.0.1", "64:ff9b::8.8.8.8"),
            ("2002:c0a8:0101::1", "2002:808:808::1"),
            ("::ffff:0:169.254.169.254", "::ffff:0:8.8.8.8"),
            ("::7f00:1", "::808:808"),
        ] {
            assert!(!is_public(ip(blocked)), "{blocked}");
            assert!(is_public(ip(public)), "{public}");
        }
        assert!(!is_public(ip("::")) && !is_public(ip("::1")));
    }

    #[test]
    fn r17_allow_insecure_permits_private_ranges_but_not_cloud_metadata() {
        let guard = Guard::new(true, Vec::new());
        for allowed in [
            "127.0.0.1",
            "10.1.2.3",
            "172.31.0.1",
            "192.168.1.1",
            "::1",
            "fd12::1",
            "::ffff:127.0.0.1",
        ] {
            assert_eq!(guard.check_ip(ip(allowed)), Ok(()), "{allowed}");
        }
        for blocked in [
            "169.254.169.254",
            "fe80::1",
            "fd00:ec2::254",
            "::ffff:169.254.1.1",
            "64:ff9b::a9fe:a9fe",
            "0.0.0.0",
            "::",
            "100.100.100.200",
            "224.0.0.1",
            "255.255.255.255",
        ] {
            assert_eq!(
                guard.check_ip(ip(blocked)),
                Err(Refusal::Address(ip(blocked))),
                "{blocked}"
            );
        }
        assert!(guard.check_name("Metadata.Google.Internal.").is_err());
        assert!(guard.check_name("metadata.example.com").is_ok());
    }

    #[test]
    fn r17_own_listeners_are_blocked_on_every_address_of_the_machine() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let guard = Guard::new(true, vec![at("0.0.0.0:8080"), at("127.0.0.1:9090")]);
        for blocked in [
            "127.0.0.1:8080",
            "127.9.9.9:8080",
            "[::1]:8080",
            "[::ffff:127.0.0.1]:8080",
            "127.0.0.1:9090",
        ] {
            assert_eq!(
                guard.check(at(blocked)),
                Err(Refusal::OwnListener(at(blocked))),
                "{blocked}"
            );
        }
        for allowed in ["127.0.0.1:8081", "10.0.0.1:8080", "127.0.0.2:9090"] {
            assert_eq!(guard.check(at(allowed)), Ok(()), "{allowed}");
        }
        assert!(guard.check_connected(at("10.0.0.5:50000"), at("10.0.0.5:8080")).is_err());
        assert!(guard.check_connected(at("10.0.0.5:50000"), at("10.0.0.6:8080")).is_ok());
        assert!(guard.check_connected(at("10.0.0.5:50000"), at("10.0.0.5:8081")).is_ok());
    }

    #[test]
    fn r17_well_known_ports_are_blocked() {
        let (strict, open) = (Guard::default(), Guard::new(true, Vec::new()));
        for (port, in_strict, in_open) in [
            (443, true, true),
            (80, false, true),
            (1024, true, true),
            (65535, true, true),
            (0, false, false),
        ] {
            assert_eq!(strict.check_port(port).is_ok(), in_strict, "{port}");
            assert_eq!(open.check_port(port).is_ok(), in_open, "{port}");
        }
        for port in [22, 25, 1023] {
            assert!(strict.check_port(port).is_err() && open.check_port(port).is_err(), "{port}");
        }
    }
}
