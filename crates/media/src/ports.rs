//! Assigns UDP ports, and with them shards, to new legs. The table is shared by the callers of
//! [`Media`](super::Media) and the shards.
//!
//! The table is used when a leg is created, connected or closed, never per packet. A port may serve
//! any number of legs, but no two with the same peer address, because their packets could not be
//! distinguished (docs/reference/media.md#ports).

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};

use super::LegId;
use crate::sockets;

/// Requested size of each socket buffer in bytes: half a second of a thousand legs.
const SOCKET_BUFFER: usize = 8 * 1024 * 1024;

/// Number of legs assigned to one shard before the next shard gets any. A shard with a leg wakes
/// 200 times a second, whether it has one leg or a hundred, and its batches contain more datagrams
/// with more legs. A hundred legs take a tenth of a core.
const LEGS_PER_ROUND: usize = 100;
/// A quarter of the ports is kept for legs with known peers: calls that ring for a long time must not
/// delay those that are answered.
const KEPT_PART: u16 = 4;
/// Maximum number of earlier legs in [`PortTable::conflicts`].
const CONFLICTS_MAX: usize = 8;

/// A UDP port. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Port {
    /// Index in the table. Not reused while the port is open.
    pub(super) id: PortId,
    pub(super) socket: Arc<UdpSocket>,
    /// The bound address, with the actual port number.
    pub(super) bound: SocketAddr,
    pub(super) shard: usize,
}

/// Identifies a port by its distance from the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct PortId(pub(super) u16);

struct PortEntry {
    port: Port,
    legs: usize,
    /// The number of legs with unknown peers, which may have any address.
    unknown_peer_legs: usize,
}

struct LegEntry {
    port: PortId,
    /// Whether the peers of the leg are not known yet.
    peers_unknown: bool,
    /// The peer addresses: the candidates of the offer at first, later the selected one.
    peers: Vec<SocketAddr>,
}

/// The table of ports and legs.
pub(super) struct PortTable {
    listen: SocketAddr,
    max: u16,
    /// Bound sockets of an earlier process, used instead of binding their addresses. Those that are
    /// not used yet belong to extra ports.
    inherited: Vec<Arc<UdpSocket>>,
    /// The number of legs of each shard.
    shard_legs: Vec<usize>,
    /// The ports by id. The entry of an extra port that was closed is `None`.
    entries: Vec<Option<PortEntry>>,
    legs: HashMap<LegId, LegEntry>,
    /// Peer addresses in use, and the ports on which they are used.
    ports_by_peer: HashMap<SocketAddr, Vec<PortId>>,
}

impl PortTable {
    /// Opens the first port of each shard, starting at `listen`. A port of `inherited` is not
    /// bound again.
    ///
    /// # Errors
    ///
    /// Returns an error if a port cannot be bound.
    pub(super) fn open(
        listen: SocketAddr,
        max: u16,
        shards: usize,
        inherited: Vec<Arc<UdpSocket>>,
    ) -> io::Result<Self> {
        let max = max.max(1);
        let shards = shards.clamp(1, usize::from(max));
        let mut ports = Self {
            listen,
            max,
            inherited,
            shard_legs: vec![0; shards],
            entries: Vec::new(),
            legs: HashMap::new(),
            ports_by_peer: HashMap::new(),
        };
        for shard in 0..shards {
            let id = PortId(u16::try_from(shard).unwrap_or(u16::MAX));
            let port = ports.bind(id, shard)?;
            ports.entries.push(Some(PortEntry { port, legs: 0, unknown_peer_legs: 0 }));
        }
        Ok(ports)
    }

    /// Assigns the port with this bound address, which is open or inherited, to a leg. Returns
    /// `None` if there is none.
    pub(super) fn allocate_at(
        &mut self,
        leg: LegId,
        bound: SocketAddr,
        peers: Vec<SocketAddr>,
    ) -> Option<Port> {
        let id = self.open_or_inherited(bound)?;
        Some(self.assign(leg, Some(id), peers, false))
    }

    /// Like [`PortTable::allocate_at`] for a leg with an unknown peer.
    pub(super) fn allocate_unknown_at(&mut self, leg: LegId, bound: SocketAddr) -> Option<Port> {
        let id = self.open_or_inherited(bound)?;
        Some(self.assign(leg, Some(id), Vec::new(), true))
    }

    fn open_or_inherited(&mut self, bound: SocketAddr) -> Option<PortId> {
        let open = self.ports().find(|port| port.bound == bound).map(|port| port.id);
        open.or_else(|| self.open_inherited(bound))
    }

    /// Opens an inherited extra port for the least loaded shard.
    fn open_inherited(&mut self, bound: SocketAddr) -> Option<PortId> {
        let has_address = |socket: &Arc<UdpSocket>| socket.local_addr().is_ok_and(|at| at == bound);
        let at = self.inherited.iter().position(has_address)?;
        let id = match self.listen.port() {
            0 => self.entries.len().try_into().ok()?,
            first => bound.port().checked_sub(first)?,
        };
        let index = usize::from(id);
        if self.entries.get(index).is_some_and(Option::is_some) {
            return None;
        }
        let socket = self.inherited.swap_remove(at);
        let port = Port { id: PortId(id), socket, bound, shard: self.next_shard() };
        self.set_entry(port);
        Some(PortId(id))
    }

    fn set_entry(&mut self, port: Port) {
        let index = usize::from(port.id.0);
        if index >= self.entries.len() {
            self.entries.resize_with(index + 1, || None);
        }
        if let Some(free) = self.entries.get_mut(index) {
            *free = Some(PortEntry { port, legs: 0, unknown_peer_legs: 0 });
        }
    }

    /// Returns the shard of a leg. `None` if the leg has ended.
    pub(super) fn shard_of(&self, leg: LegId) -> Option<usize> {
        let port = self.legs.get(&leg)?.port;
        self.entries.get(usize::from(port.0))?.as_ref().map(|entry| entry.port.shard)
    }

    /// Iterates over the open ports.
    pub(super) fn ports(&self) -> impl Iterator<Item = &Port> {
        self.entries.iter().flatten().map(|p| &p.port)
    }

    /// Returns the number of legs that have a port.
    pub(super) fn legs(&self) -> usize {
        self.legs.len()
    }

    /// Assigns a port to a leg with these peer addresses. Prefers a port of the next shard on which
    /// none of the addresses is in use, then a new port, then a free port of any shard, and finally
    /// the port with the fewest legs.
    pub(super) fn allocate(&mut self, leg: LegId, peers: Vec<SocketAddr>) -> Port {
        let is_taken = |id: PortId| {
            peers.iter().any(|p| self.ports_by_peer.get(p).is_some_and(|ids| ids.contains(&id)))
        };
        let conflicts_with =
            |p: &&PortEntry| (p.unknown_peer_legs > 0 && !peers.is_empty()) || is_taken(p.port.id);
        let next_shard_id = self.next_shard();
        let here = self.best_port(|p| p.port.shard == next_shard_id && !conflicts_with(p));
        let elsewhere = self.best_port(|p| !conflicts_with(p));
        let free = here.or_else(|| self.open_another()).or(elsewhere);
        self.assign(leg, free, peers, false)
    }

    /// Assigns a port to a leg with an unknown peer, because this side makes the offer. The port
    /// serves no other leg until [`PortTable::set_candidates`], because the peer may have any
    /// address. If all ports are in use, a new one is opened. If that fails, or if such legs have all
    /// ports but those that are kept for legs with known peers, a port is shared.
    pub(super) fn allocate_unknown(&mut self, leg: LegId) -> Port {
        let with_unknown = self.entries.iter().flatten().filter(|p| p.unknown_peer_legs > 0);
        let may_open = with_unknown.clone().count() < usize::from(self.max - self.max / KEPT_PART);
        let free = match may_open {
            true => self.best_port(|p| p.legs == 0),
            false => with_unknown
                .min_by_key(|p| (p.unknown_peer_legs, p.legs, p.port.id))
                .map(|p| p.port.id),
        };
        self.assign(leg, free, Vec::new(), true)
    }

    /// Sets the peer addresses of a leg that got its port from [`PortTable::allocate_unknown`].
    pub(super) fn set_candidates(&mut self, leg: LegId, peers: Vec<SocketAddr>) {
        let Some(leg_entry) = self.legs.get_mut(&leg).filter(|leg_entry| leg_entry.peers_unknown)
        else {
            return;
        };
        leg_entry.peers_unknown = false;
        leg_entry.peers.clone_from(&peers);
        let port = leg_entry.port;
        if let Some(entry) = self.entries.get_mut(usize::from(port.0)).and_then(Option::as_mut) {
            entry.unknown_peer_legs = entry.unknown_peer_legs.saturating_sub(1);
        }
        self.add_peers(port, &peers);
    }

    /// Returns a shard's load in units of [`LEGS_PER_ROUND`].
    fn load(&self, shard: usize) -> usize {
        self.shard_legs.get(shard).map_or(usize::MAX, |legs| legs / LEGS_PER_ROUND)
    }

    /// Returns the shard that gets the next leg.
    fn next_shard(&self) -> usize {
        (0..self.shard_legs.len()).min_by_key(|shard| self.load(*shard)).unwrap_or_default()
    }

    /// Returns a suitable port of the least loaded shard, or `None` if there is none.
    fn best_port(&self, is_suitable: impl Fn(&&PortEntry) -> bool) -> Option<PortId> {
        let entries = self.entries.iter().flatten().filter(is_suitable);
        entries
            .min_by_key(|p| (self.load(p.port.shard), p.port.shard, p.port.id))
            .map(|p| p.port.id)
    }

    #[allow(
        clippy::expect_used,
        reason = "ids refer to open ports; called per call, not per packet"
    )]
    fn assign(
        &mut self,
        leg: LegId,
        free: Option<PortId>,
        peers: Vec<SocketAddr>,
        peers_unknown: bool,
    ) -> Port {
        let id = free.or_else(|| self.open_another()).unwrap_or_else(|| self.least_used());
        let entry = self
            .entries
            .get_mut(usize::from(id.0))
            .and_then(Option::as_mut)
            .expect("the id refers to an open port");
        entry.legs += 1;
        entry.unknown_peer_legs += usize::from(peers_unknown);
        let port = entry.port.clone();
        if let Some(load) = self.shard_legs.get_mut(port.shard) {
            *load += 1;
        }
        self.add_peers(id, &peers);
        self.legs.insert(leg, LegEntry { port: id, peers_unknown, peers });
        port
    }

    /// Returns the latest legs that share a port and a peer address with this one. Empty unless no
    /// further port could be opened.
    pub(super) fn conflicts(&self, leg: LegId) -> Vec<LegId> {
        let Some(entry) = self.legs.get(&leg) else { return Vec::new() };
        let here = |peer: &SocketAddr| {
            self.ports_by_peer
                .get(peer)
                .is_some_and(|ids| ids.iter().filter(|id| **id == entry.port).count() > 1)
        };
        if !entry.peers.iter().any(here) {
            return Vec::new();
        }
        let shares = |other: &LegEntry| {
            other.port == entry.port && other.peers.iter().any(|p| entry.peers.contains(p))
        };
        let mut conflicts: Vec<LegId> = self
            .legs
            .iter()
            .filter(|(id, other)| **id != leg && shares(other))
            .map(|(id, _)| *id)
            .collect();
        conflicts.sort_unstable();
        conflicts.split_off(conflicts.len().saturating_sub(CONFLICTS_MAX))
    }

    /// Replaces the candidates of a connected leg by its selected peer address.
    pub(super) fn set_peer(&mut self, leg: LegId, peer: SocketAddr) {
        let Some(entry) = self.legs.get_mut(&leg) else { return };
        let (port, before) = (entry.port, std::mem::replace(&mut entry.peers, vec![peer]));
        self.remove_peers(port, &before);
        self.add_peers(port, &[peer]);
    }

    /// Removes a leg that has ended.
    pub(super) fn release(&mut self, leg: LegId) {
        let Some(entry) = self.legs.remove(&leg) else { return };
        self.remove_peers(entry.port, &entry.peers);
        if let Some(Some(p)) = self.entries.get_mut(usize::from(entry.port.0)) {
            p.legs = p.legs.saturating_sub(1);
            p.unknown_peer_legs =
                p.unknown_peer_legs.saturating_sub(usize::from(entry.peers_unknown));
            if let Some(load) = self.shard_legs.get_mut(p.port.shard) {
                *load = load.saturating_sub(1);
            }
        }
    }

    /// Closes an extra port that has no legs. Returns whether the shard should drop it too. The
    /// first port of each shard stays open.
    pub(super) fn close_if_idle(&mut self, id: PortId) -> bool {
        let first = usize::from(id.0) < self.shard_legs.len();
        match self.entries.get_mut(usize::from(id.0)) {
            Some(entry) if !first && entry.as_ref().is_none_or(|p| p.legs == 0) => {
                *entry = None;
                true
            }
            _ => false,
        }
    }

    /// Opens the free port with the lowest number, for the least loaded shard. Returns `None` if no
    /// further port can be opened.
    fn open_another(&mut self) -> Option<PortId> {
        let shard = self.next_shard();
        for n in 0..self.max {
            let index = usize::from(n);
            if self.entries.get(index).is_some_and(Option::is_some) {
                continue;
            }
            // Another program may use this number; try the next one.
            let Ok(port) = self.bind(PortId(n), shard) else { continue };
            self.set_entry(port);
            return Some(PortId(n));
        }
        None
    }

    /// Returns the port with the fewest legs, those with unknown peers first, so that the fewest
    /// peers can have the same address.
    fn least_used(&self) -> PortId {
        let ports = self.entries.iter().flatten();
        let least = ports.min_by_key(|p| (p.unknown_peer_legs, p.legs, p.port.id));
        least.map_or(PortId(0), |p| p.port.id)
    }

    fn add_peers(&mut self, port: PortId, peers: &[SocketAddr]) {
        for peer in peers {
            self.ports_by_peer.entry(*peer).or_default().push(port);
        }
    }

    fn remove_peers(&mut self, port: PortId, peers: &[SocketAddr]) {
        for peer in peers {
            if let Some(ids) = self.ports_by_peer.get_mut(peer) {
                if let Some(at) = ids.iter().position(|id| *id == port) {
                    ids.swap_remove(at);
                }
                if ids.is_empty() {
                    self.ports_by_peer.remove(peer);
                }
            }
        }
    }

    /// Binds the port with this id, or any free port if the first port is 0 (tests).
    fn bind(&mut self, id: PortId, shard: usize) -> io::Result<Port> {
        let number = match self.listen.port() {
            0 => 0,
            first => first
                .checked_add(id.0)
                .ok_or_else(|| io::Error::other("the highest port number is 65535"))?,
        };
        let at = SocketAddr::new(self.listen.ip(), number);
        let is_here = |socket: &Arc<UdpSocket>| {
            let bound = socket.local_addr();
            bound.is_ok_and(|bound| bound.ip() == at.ip() && [0, bound.port()].contains(&number))
        };
        if let Some(index) = self.inherited.iter().position(is_here) {
            let socket = self.inherited.remove(index);
            let bound = socket.local_addr()?;
            return Ok(Port { id, socket, bound, shard });
        }
        let socket = Socket::new(Domain::for_address(at), Type::DGRAM, Some(Protocol::UDP))?;
        if at.ip() == IpAddr::from([0u16; 8]) {
            // The socket also receives IPv4.
            socket.set_only_v6(false)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&at.into())?;
        let socket = UdpSocket::from(socket);
        sockets::enlarge_buffers(&socket, SOCKET_BUFFER);
        let bound = socket.local_addr()?;
        Ok(Port { id, socket: Arc::new(socket), bound, shard })
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::{LEGS_PER_ROUND, PortId, PortTable};
    use crate::LegId;

    fn open(max: u16, shards: usize) -> PortTable {
        let listen = "127.0.0.1:0".parse().expect("address");
        PortTable::open(listen, max, shards, Vec::new()).expect("ports")
    }

    fn peer(n: u16) -> SocketAddr {
        SocketAddr::from(([198, 51, 100, 1], n))
    }

    #[test]
    fn legs_share_a_port_unless_they_share_a_peer() {
        let mut ports = open(4, 1);
        assert_eq!(ports.allocate(LegId(1), vec![peer(1)]).id, PortId(0));
        assert_eq!(ports.allocate(LegId(2), vec![peer(2)]).id, PortId(0));
        assert_eq!(
            ports.allocate(LegId(3), vec![peer(3), peer(1)]).id,
            PortId(1),
            "1 is on port 0"
        );
        assert_eq!(ports.allocate(LegId(4), vec![peer(1)]).id, PortId(2));
        ports.set_peer(LegId(3), peer(3));
        assert_eq!(
            ports.allocate(LegId(5), vec![peer(1)]).id,
            PortId(1),
            "leg 3 selected another address"
        );
        assert_eq!(ports.allocate(LegId(6), vec![peer(1)]).id, PortId(3));
        assert!([1, 2, 3, 6].map(LegId).iter().all(|leg| ports.conflicts(*leg).is_empty()));
        assert_eq!(
            ports.allocate(LegId(7), vec![peer(1)]).id,
            PortId(2),
            "no free port: the one with the fewest legs is shared"
        );
        assert_eq!(ports.conflicts(LegId(7)), [LegId(4)]);
        assert_eq!(ports.allocate(LegId(8), vec![]).id, PortId(0), "no candidates: any port");
    }

    #[test]
    fn legs_with_unknown_peers_spread_over_the_ports_if_none_is_free() {
        let mut ports = open(2, 1);
        let ids = [1, 2, 3, 4].map(|leg| ports.allocate_unknown(LegId(leg)).id);
        assert_eq!(ids, [0, 1, 0, 1].map(PortId));
        // A peer that is known is less likely to have the same address.
        ports.set_candidates(LegId(2), vec![peer(1)]);
        assert_eq!(ports.allocate_unknown(LegId(5)).id, PortId(1));
    }

    #[test]
    fn legs_with_unknown_peers_leave_ports_for_those_with_known_ones() {
        let mut ports = open(8, 1);
        let ids: Vec<_> =
            (1..=9).map(|leg| usize::from(ports.allocate_unknown(LegId(leg)).id.0)).collect();
        assert_eq!(ids, [0, 1, 2, 3, 4, 5, 0, 1, 2]);
        let known = [11, 12].map(|leg| ports.allocate(LegId(leg), vec![peer(1)]).id);
        assert_eq!(known, [6, 7].map(PortId));
        assert!(ports.conflicts(LegId(12)).is_empty());
    }

    #[test]
    fn inherited_ports_are_opened_when_their_legs_come() {
        let mut old = open(4, 1);
        let bound = [1, 2, 3].map(|leg| old.allocate(LegId(leg), vec![peer(1)]).bound);
        let sockets = old.ports().map(|port| port.socket.clone()).collect();
        let listen = "127.0.0.1:0".parse().expect("address");
        let mut new = PortTable::open(listen, 4, 1, sockets).expect("ports");
        assert_eq!(new.ports().map(|port| port.bound).collect::<Vec<_>>(), bound[..1]);
        for (leg, at) in [(7, bound[2]), (8, bound[0]), (9, bound[2])] {
            let port = new.allocate_at(LegId(leg), at, vec![peer(1)]).expect("a port");
            assert_eq!((port.bound, new.shard_of(LegId(leg))), (at, Some(0)));
        }
        assert_eq!(new.ports().count(), 2);
        assert!(new.allocate_at(LegId(10), peer(9), vec![]).is_none());
        // The next extra port is the inherited one that is left.
        assert_eq!(new.allocate(LegId(11), vec![peer(1)]).bound, bound[1]);
        new.release(LegId(7));
        assert_eq!((new.shard_of(LegId(7)), new.legs()), (None, 3));
    }

    #[test]
    fn idle_extra_ports_close_and_their_numbers_are_reused() {
        let mut ports = open(3, 1);
        for leg in 1..=3 {
            ports.allocate(LegId(leg), vec![peer(1)]);
        }
        assert!(!ports.close_if_idle(PortId(1)), "in use");
        ports.release(LegId(2));
        ports.release(LegId(2));
        assert!(ports.close_if_idle(PortId(1)));
        assert!(!ports.close_if_idle(PortId(0)), "the first port stays open");
        assert_eq!(ports.ports().count(), 2);
        assert_eq!(ports.allocate(LegId(4), vec![peer(1)]).id, PortId(1));
    }

    #[test]
    fn shards_are_filled_in_rounds_of_a_hundred_legs() {
        let mut ports = open(10, 2);
        let mut shard = |n: u16| ports.allocate(LegId(n.into()), vec![peer(n)]).shard;
        let shards: Vec<usize> = (0..500).map(&mut shard).collect();
        let expected: Vec<usize> = (0..500).map(|n| n / LEGS_PER_ROUND % 2).collect();
        assert_eq!(shards, expected);
        (100..199).for_each(|n| ports.release(LegId(n)));
        assert_eq!(
            ports.allocate(LegId(1_000), vec![peer(1_000)]).shard,
            1,
            "below the round size again"
        );
        // Each leg needs a separate port, which is opened for the next shard if possible.
        let mut ports = open(7, 2);
        let ids: Vec<u16> =
            (0..7).map(|n| ports.allocate(LegId(n), vec![peer(100)]).id.0).collect();
        assert_eq!(ids, [0, 2, 3, 4, 5, 6, 1]);
        assert_eq!(open(1, 8).ports().count(), 1, "no more shards than ports");
    }

    proptest! {
        /// No two live legs share a port and a peer while a port is available, and nothing is left
        /// at the end.
        #[test]
        fn no_conflict_and_no_leak(orders in proptest::collection::vec((0u8..3, 0u64..12, 0u16..4), 0..60)) {
            let mut ports = open(40, 2);
            let mut live: std::collections::BTreeMap<u64, (PortId, SocketAddr)> = Default::default();
            for (order, leg, at) in orders {
                match order {
                    0 if !live.contains_key(&leg) => {
                        let port = ports.allocate(LegId(leg), vec![peer(at)]).id;
                        prop_assert!(!live.values().any(|l| *l == (port, peer(at))));
                        live.insert(leg, (port, peer(at)));
                    }
                    1 => {
                        live.remove(&leg);
                        ports.release(LegId(leg));
                    }
                    _ => { ports.close_if_idle(PortId(at)); }
                }
            }
            for leg in live.keys() {
                ports.release(LegId(*leg));
            }
            prop_assert!(ports.ports_by_peer.is_empty() && ports.legs.is_empty());
            prop_assert_eq!(&ports.shard_legs, &[0, 0]);
        }
    }
}
