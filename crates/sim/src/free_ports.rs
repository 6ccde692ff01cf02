//! Finds free ports on loopback for processes that are started later and may be restarted.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Maximum number of ranges that are tried.
const TRIES: usize = 1_000;

/// Ports for other processes. A port is returned once before any is returned again, because a node
/// opens most of its media ports late: one that is free now may be another node's.
///
/// The ports should be below those that systems use for outgoing connections (from 32,768 on Linux,
/// from 49,152 by RFC 6335), so that no connection takes a port before its process listens on it.
#[derive(Debug)]
pub struct FreePorts {
    ports: Range<u16>,
    /// The port after the last one returned. `None` at first: processes that start at the same time
    /// begin at random, so that they are unlikely to choose the same ports.
    next: Mutex<Option<u16>>,
}

impl FreePorts {
    /// Finds ports among these.
    pub const fn new(ports: Range<u16>) -> Self {
        Self { ports, next: Mutex::new(None) }
    }

    /// Returns a TCP port at which no process listens.
    ///
    /// # Errors
    /// Returns an error if there is none.
    pub fn tcp(&self) -> io::Result<u16> {
        self.first_free(1, |at| TcpListener::bind(at).is_ok())
    }

    /// Returns the first of `count` consecutive free UDP ports.
    ///
    /// # Errors
    /// Returns an error if there are none.
    pub fn udp(&self, count: u16) -> io::Result<u16> {
        self.first_free(count, |at| UdpSocket::bind(at).is_ok())
    }

    fn first_free(&self, count: u16, is_free: impl Fn(SocketAddr) -> bool) -> io::Result<u16> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let mut first = next.unwrap_or_else(|| rand::random_range(self.ports.clone()));
        for _ in 0..TRIES {
            if first > self.ports.end - count {
                first = self.ports.start;
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
}

#[cfg(test)]
mod tests {
    use super::FreePorts;

    const PORTS: std::ops::Range<u16> = 10_000..20_000;

    #[test]
    fn free_ports_are_of_the_given_range() {
        let free = FreePorts::new(PORTS);
        for _ in 0..100 {
            assert!(PORTS.contains(&free.tcp().unwrap()));
        }
        let first = free.udp(16).unwrap();
        assert!(PORTS.contains(&first) && PORTS.contains(&(first + 15)));
    }

    #[test]
    fn no_port_of_a_range_is_in_use() {
        let free = FreePorts::new(PORTS);
        let first = free.first_free(4, |at| at.port() % 7 != 0).unwrap();
        assert!((first..first + 4).all(|port| port % 7 != 0));
        assert!(free.first_free(1, |_| false).is_err());
    }

    #[test]
    fn ranges_of_different_lengths_do_not_overlap() {
        let free = FreePorts::new(PORTS);
        let mut taken = std::collections::HashSet::new();
        let lap = (0..100).map(|n| if n % 2 == 0 { 1 } else { 90 });
        for count in lap {
            let first = free.first_free(count, |_| true).unwrap();
            assert!((first..first + count).all(|port| taken.insert(port)), "{first}, {count}");
        }
    }
}
