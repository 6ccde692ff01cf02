//! Outgoing datagrams of one port in a single buffer, so that a packet needs no allocation.

use std::net::SocketAddr;

/// Datagrams to send with their destinations, in order.
#[derive(Debug, Default)]
pub struct SendBuffer {
    bytes: Vec<u8>,
    /// Destination of each datagram, and its end in `bytes`. A datagram starts at the end of the
    /// previous one.
    datagrams: Vec<(SocketAddr, usize)>,
}

impl SendBuffer {
    /// Appends a copy of a datagram.
    pub fn push(&mut self, to: SocketAddr, datagram: &[u8]) {
        self.bytes.extend_from_slice(datagram);
        self.datagrams.push((to, self.bytes.len()));
    }

    /// Appends a datagram that `write` produces. `write` receives the buffer and the offset at
    /// which the datagram starts. If it returns `false`, its output is removed.
    pub fn write(
        &mut self,
        to: SocketAddr,
        write: impl FnOnce(&mut Vec<u8>, usize) -> bool,
    ) -> bool {
        let from = self.bytes.len();
        let written = write(&mut self.bytes, from);
        if written {
            self.datagrams.push((to, self.bytes.len()));
        } else {
            self.bytes.truncate(from);
        }
        written
    }

    /// Returns the number of datagrams.
    pub fn len(&self) -> usize {
        self.datagrams.len()
    }

    /// Returns whether there are no datagrams.
    pub fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// Iterates over all datagrams.
    pub fn iter(&self) -> impl Iterator<Item = (SocketAddr, &[u8])> {
        self.iter_from(0)
    }

    /// Iterates over the datagrams after the first `skip`.
    pub fn iter_from(&self, skip: usize) -> impl Iterator<Item = (SocketAddr, &[u8])> {
        let first = skip
            .checked_sub(1)
            .and_then(|before| self.datagrams.get(before))
            .map_or(0, |(_, end)| *end);
        let datagrams = self.datagrams.get(skip..).unwrap_or_default();
        datagrams.iter().scan(first, |from, (to, end)| {
            let bytes = self.bytes.get(std::mem::replace(from, *end)..*end).unwrap_or_default();
            Some((*to, bytes))
        })
    }

    /// Removes all datagrams and keeps the capacity.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.datagrams.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_datagrams_in_order() {
        let to = |n: u8| SocketAddr::from(([10, 0, 0, n], 9));
        let mut out = SendBuffer::default();
        out.push(to(1), b"one");
        assert!(!out.write(to(2), |bytes, from| {
            bytes.extend_from_slice(b"never");
            assert_eq!(from, 3);
            false
        }));
        assert!(out.write(to(3), |bytes, _| {
            bytes.extend_from_slice(b"three");
            true
        }));
        out.push(to(4), b"");
        let all: Vec<_> = out.iter().collect();
        assert_eq!(all, [(to(1), &b"one"[..]), (to(3), b"three"), (to(4), b"")]);
        assert_eq!(out.iter_from(1).count(), 2);
        assert_eq!(out.iter_from(1).next(), Some((to(3), &b"three"[..])));
        assert_eq!((out.len(), out.iter_from(9).count()), (3, 0));
        out.clear();
        assert!(out.is_empty() && out.iter().next().is_none());
    }
}
