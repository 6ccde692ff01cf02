//! Finds free ports on loopback for processes that are started later and may be restarted.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Mutex, PoisonError};

/// The range of ports. It is below the ports that systems use for outgoing connections (from 32,768
/// on Linux, from 49,152 by RFC 6335), so that no connection takes a port before its process
/// listens on it.
const PORTS: std::ops::Range<u16> = 10_000..20_000;
/// Maximum number of ranges that are tried.
const TRIES: usize = 1_000;

/// Returns a TCP address at which no process listens.
///
/// # Errors
/// Returns an error if there is none.
pub(super) fn free_address() -> io::Result<SocketAddr> {
    let port = first_free(1, |at| TcpListener::bind(at).is_ok())?;
    Ok((Ipv4Addr::LOCALHOST, port).into())
}

/// Returns the first of `count` consecutive free UDP ports.
///
/// # Errors
/// Returns an error if there are none.
pub(super) fn free_media_ports(count: u16) -> io::Result<u16> {
    first_free(count, |at| UdpSocket::bind(at).is_ok())
}

/// Returns the first port of a free range. A process gets each port once before any again, beginning
/// at random, so that fleets that start at the same time are unlikely to choose the same ports.
fn first_free(count: u16, is_free: impl Fn(SocketAddr) -> bool) -> io::Result<u16> {
    static NEXT: Mutex<Option<u16>> = Mutex::new(None);
    let mut next = NEXT.lock().unwrap_or_else(PoisonError::into_inner);
    let mut first = next.unwrap_or_else(|| rand::random_range(PORTS));
    for _ in 0..TRIES {
        if first > PORTS.end - count {
            first = PORTS.start;
        }
        let mut range = first..first + count;
        let taken = range.find(|port| !is_free((Ipv4Addr::LOCALHOST, *port).into()));
        let Some(taken) = taken else {
            *next = Some(first + count);
            return Ok(first);
        };
        first = taken + 1;
    }
    Err(io::ErrorKind::AddrInUse.into())
}

#[cfg(test)]
mod tests {
    use super::{PORTS, first_free, free_address, free_media_ports};

    #[test]
    fn free_ports_are_below_those_of_outgoing_connections() {
        for _ in 0..100 {
            assert!(PORTS.contains(&free_address().unwrap().port()));
        }
        let first = free_media_ports(16).unwrap();
        assert!(PORTS.contains(&first) && PORTS.contains(&(first + 15)));
    }

    #[test]
    fn no_port_of_a_range_is_in_use() {
        let first = first_free(4, |at| at.port() % 7 != 0).unwrap();
        assert!((first..first + 4).all(|port| port % 7 != 0));
        assert!(first_free(1, |_| false).is_err());
    }

    #[test]
    fn ranges_of_different_lengths_do_not_overlap() {
        let mut taken = std::collections::HashSet::new();
        let lap = (0..100).map(|n| if n % 2 == 0 { 1 } else { 90 });
        for count in lap {
            let first = first_free(count, |_| true).unwrap();
            assert!((first..first + count).all(|port| taken.insert(port)), "{first}, {count}");
        }
    }
}
