//! Datagrams on their way out of one port: bytes in one place, so that a packet costs no allocation of its own.

use std::net::SocketAddr;

/// Datagrams to be sent, with their destinations, in order.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    /// Where each goes, and where it ends in `bytes`; it begins where the one before it ends.
    datagrams: Vec<(SocketAddr, usize)>,
}

impl Outbox {
    /// Adds a copy of this datagram.
    pub fn push(&mut self, to: SocketAddr, datagram: &[u8]) {
        self.bytes.extend_from_slice(datagram);
        self.datagrams.push((to, self.bytes.len()));
    }

    /// Adds a datagram that `write` appends to the bytes it is given, from the place it is told; where it says `false`,
    /// none is added, whatever it wrote.
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

    pub fn len(&self) -> usize {
        self.datagrams.len()
    }

    pub fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (SocketAddr, &[u8])> {
        self.iter_from(0)
    }

    /// Those after the first `skip`.
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

    /// Empty again, with the room it had.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.datagrams.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_in_comes_out_in_order() {
        let to = |n: u8| SocketAddr::from(([10, 0, 0, n], 9));
        let mut out = Outbox::default();
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
