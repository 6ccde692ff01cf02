//! Assigns UDP ports, and with them shards, to new legs. The table is shared by the callers of
//! [`Media`](super::Media) and the shards.
//!
//! It is used when a leg is created, connected and closed, never per packet. A port may serve any
//! number of legs, but no two with the same peer address, because one socket cannot tell their
//! packets apart (docs/reference/media.md#ports).

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};

use super::LegId;
use crate::sockets;

/// Requested size of each socket buffer in bytes: half a second of a thousand legs.
const SOCKET_BUFFER: usize = 8 * 1024 * 1024;

/// Legs assigned to one shard before the next shard gets any. A shard with a leg wakes 200 times a
/// second, whether it has one leg or a hundred, and its batches are fuller with more legs. A
/// hundred legs take a tenth of a core.
const TOGETHER: usize = 100;
/// Maximum number of earlier legs in [`PortTable::conflicts`].
const RIVALS_MAX: usize = 8;

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

struct Place {
    port: Port,
    legs: usize,
    /// Legs whose peers are not known yet and may be anyone.
    open_legs: usize,
}

struct LegPlace {
    port: PortId,
    /// Whether its peers are not known yet.
    open: bool,
    /// Peer addresses: the offer's candidates at first, then the one that was selected.
    peers: Vec<SocketAddr>,
}

/// The table of ports and legs.
pub(super) struct Ports {
    listen: SocketAddr,
    max: u16,
    /// Number of legs per shard.
    shard_legs: Vec<usize>,
    /// By port id. Extra ports that were closed leave their entry empty.
    places: Vec<Option<Place>>,
    legs: HashMap<LegId, LegPlace>,
    /// Peer addresses in use, and the ports on which they are used.
    taken: HashMap<SocketAddr, Vec<PortId>>,
}

impl Ports {
    /// Opens the first port of each shard, starting at `listen`.
    ///
    /// # Errors
    ///
    /// Returns an error if a port cannot be bound.
    pub(super) fn open(listen: SocketAddr, max: u16, shards: usize) -> io::Result<Self> {
        let max = max.max(1);
        let shards = shards.clamp(1, usize::from(max));
        let mut ports = Self {
            listen,
            max,
            shard_legs: vec![0; shards],
            places: Vec::new(),
            legs: HashMap::new(),
            taken: HashMap::new(),
        };
        for shard in 0..shards {
            let id = PortId(u16::try_from(shard).unwrap_or(u16::MAX));
            let port = ports.bind(id, shard)?;
            ports.places.push(Some(Place { port, legs: 0, open_legs: 0 }));
        }
        Ok(ports)
    }

    /// The open ports.
    pub(super) fn ports(&self) -> impl Iterator<Item = &Port> {
        self.places.iter().flatten().map(|p| &p.port)
    }

    /// Number of legs that have a port.
    pub(super) fn legs(&self) -> usize {
        self.legs.len()
    }

    /// Assigns a port to a leg whose peer offers these addresses. Prefers a port of the shard whose
    /// turn it is on which none of the addresses is in use, then a new port, then a free port of
    /// any shard, and finally the first port of the shard with the fewest legs.
    pub(super) fn take(&mut self, leg: LegId, peers: Vec<SocketAddr>) -> Port {
        let taken = |id: PortId| {
            peers.iter().any(|p| self.taken.get(p).is_some_and(|ids| ids.contains(&id)))
        };
        let collides = |p: &&Place| (p.open_legs > 0 && !peers.is_empty()) || taken(p.port.id);
        let turn = self.next_shard();
        let here = self.best(|p| p.port.shard == turn && !collides(p));
        let elsewhere = self.best(|p| !collides(p));
        let free = here.or_else(|| self.open_another()).or(elsewhere);
        self.seat(leg, free, peers, false)
    }

    /// Assigns a port to a leg whose peer is not known yet, because the offer is ours. The port
    /// serves no other leg until [`PortTable::set_candidates`], because the peer may have any
    /// address. If there is no unused port, opens a new one, and finally shares one.
    pub(super) fn take_unknown(&mut self, leg: LegId) -> Port {
        let free = self.best(|p| p.legs == 0);
        self.seat(leg, free, Vec::new(), true)
    }

    /// Sets the peer addresses of a leg that was assigned by [`PortTable::allocate_unknown`].
    pub(super) fn learn(&mut self, leg: LegId, peers: Vec<SocketAddr>) {
        let Some(seat) = self.legs.get_mut(&leg).filter(|seat| seat.open) else { return };
        seat.open = false;
        seat.peers.clone_from(&peers);
        let port = seat.port;
        if let Some(place) = self.places.get_mut(usize::from(port.0)).and_then(Option::as_mut) {
            place.open_legs = place.open_legs.saturating_sub(1);
        }
        self.occupy(port, &peers);
    }

    /// A shard's load in units of [`LEGS_PER_ROUND`].
    fn load(&self, shard: usize) -> usize {
        self.shard_legs.get(shard).map_or(usize::MAX, |legs| legs / TOGETHER)
    }

    /// The shard that gets the next leg.
    fn next_shard(&self) -> usize {
        (0..self.shard_legs.len()).min_by_key(|shard| self.load(*shard)).unwrap_or_default()
    }

    /// Returns a suitable port of the least loaded shard.
    fn best(&self, will_do: impl Fn(&&Place) -> bool) -> Option<PortId> {
        let places = self.places.iter().flatten().filter(will_do);
        places.min_by_key(|p| (self.load(p.port.shard), p.port.shard, p.port.id)).map(|p| p.port.id)
    }

    #[allow(
        clippy::expect_used,
        reason = "an id is of an open port; when a call begins, never for a packet"
    )]
    fn seat(
        &mut self,
        leg: LegId,
        free: Option<PortId>,
        peers: Vec<SocketAddr>,
        open: bool,
    ) -> Port {
        let id = free.or_else(|| self.open_another()).unwrap_or_else(|| self.least_loaded_first());
        let place = self
            .places
            .get_mut(usize::from(id.0))
            .and_then(Option::as_mut)
            .expect("the id is of an open port");
        place.legs += 1;
        place.open_legs += usize::from(open);
        let port = place.port.clone();
        if let Some(load) = self.shard_legs.get_mut(port.shard) {
            *load += 1;
        }
        self.occupy(id, &peers);
        self.legs.insert(leg, LegPlace { port: id, open, peers });
        port
    }

    /// Returns the latest legs that share a port and a peer address with this one. Empty unless no
    /// further port could be opened.
    pub(super) fn rivals(&self, leg: LegId) -> Vec<LegId> {
        let Some(place) = self.legs.get(&leg) else { return Vec::new() };
        let here = |peer: &SocketAddr| {
            self.taken
                .get(peer)
                .is_some_and(|ids| ids.iter().filter(|id| **id == place.port).count() > 1)
        };
        if !place.peers.iter().any(here) {
            return Vec::new();
        }
        let shares = |other: &LegPlace| {
            other.port == place.port && other.peers.iter().any(|p| place.peers.contains(p))
        };
        let mut rivals: Vec<LegId> = self
            .legs
            .iter()
            .filter(|(id, other)| **id != leg && shares(other))
            .map(|(id, _)| *id)
            .collect();
        rivals.sort_unstable();
        rivals.split_off(rivals.len().saturating_sub(RIVALS_MAX))
    }

    /// Replaces the candidates of a connected leg by its selected peer address.
    pub(super) fn settle(&mut self, leg: LegId, peer: SocketAddr) {
        let Some(place) = self.legs.get_mut(&leg) else { return };
        let (port, before) = (place.port, std::mem::replace(&mut place.peers, vec![peer]));
        self.vacate(port, &before);
        self.occupy(port, &[peer]);
    }

    /// Removes a leg that has ended.
    pub(super) fn release(&mut self, leg: LegId) {
        let Some(place) = self.legs.remove(&leg) else { return };
        self.vacate(place.port, &place.peers);
        if let Some(Some(p)) = self.places.get_mut(usize::from(place.port.0)) {
            p.legs = p.legs.saturating_sub(1);
            p.open_legs = p.open_legs.saturating_sub(usize::from(place.open));
            if let Some(load) = self.shard_legs.get_mut(p.port.shard) {
                *load = load.saturating_sub(1);
            }
        }
    }

    /// Closes an extra port that has no legs. Returns whether the shard should drop it too. The
    /// first port of each shard stays open.
    pub(super) fn close_if_idle(&mut self, id: PortId) -> bool {
        let first = usize::from(id.0) < self.shard_legs.len();
        match self.places.get_mut(usize::from(id.0)) {
            Some(place) if !first && place.as_ref().is_none_or(|p| p.legs == 0) => {
                *place = None;
                true
            }
            _ => false,
        }
    }

    /// Opens the next free port upward, for the least loaded shard.
    fn open_another(&mut self) -> Option<PortId> {
        let shard = self.next_shard();
        for n in 0..self.max {
            let place = usize::from(n);
            if self.places.get(place).is_some_and(Option::is_some) {
                continue;
            }
            // Another program may use this number; try the next one.
            let Ok(port) = self.bind(PortId(n), shard) else { continue };
            if place >= self.places.len() {
                self.places.resize_with(place + 1, || None);
            }
            if let Some(free) = self.places.get_mut(place) {
                *free = Some(Place { port, legs: 0, open_legs: 0 });
            }
            return Some(PortId(n));
        }
        None
    }

    fn least_loaded_first(&self) -> PortId {
        PortId(u16::try_from(self.next_shard()).unwrap_or_default())
    }

    fn occupy(&mut self, port: PortId, peers: &[SocketAddr]) {
        for peer in peers {
            self.taken.entry(*peer).or_default().push(port);
        }
    }

    fn vacate(&mut self, port: PortId, peers: &[SocketAddr]) {
        for peer in peers {
            if let Some(ids) = self.taken.get_mut(peer) {
                if let Some(at) = ids.iter().position(|id| *id == port) {
                    ids.swap_remove(at);
                }
                if ids.is_empty() {
                    self.taken.remove(peer);
                }
            }
        }
    }

    /// Binds the `id`th port, or any free port if the first is 0 (tests).
    fn bind(&self, id: PortId, shard: usize) -> io::Result<Port> {
        let number = match self.listen.port() {
            0 => 0,
            first => first
                .checked_add(id.0)
                .ok_or_else(|| io::Error::other("port numbers end at 65535"))?,
        };
        let at = SocketAddr::new(self.listen.ip(), number);
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

    use super::{PortId, Ports, TOGETHER};
    use crate::LegId;

    fn open(max: u16, shards: usize) -> Ports {
        Ports::open("127.0.0.1:0".parse().expect("address"), max, shards).expect("ports")
    }

    fn peer(n: u16) -> SocketAddr {
        SocketAddr::from(([198, 51, 100, 1], n))
    }

    #[test]
    fn legs_share_a_port_unless_they_share_a_peer() {
        let mut ports = open(4, 1);
        assert_eq!(ports.take(LegId(1), vec![peer(1)]).id, PortId(0));
        assert_eq!(ports.take(LegId(2), vec![peer(2)]).id, PortId(0));
        assert_eq!(ports.take(LegId(3), vec![peer(3), peer(1)]).id, PortId(1), "1 is on port 0");
        assert_eq!(ports.take(LegId(4), vec![peer(1)]).id, PortId(2));
        ports.settle(LegId(3), peer(3));
        assert_eq!(ports.take(LegId(5), vec![peer(1)]).id, PortId(1), "leg 3 came up elsewhere");
        assert_eq!(ports.take(LegId(6), vec![peer(1)]).id, PortId(3));
        assert!([1, 2, 3, 6].map(LegId).iter().all(|leg| ports.rivals(*leg).is_empty()));
        assert_eq!(
            ports.take(LegId(7), vec![peer(1)]).id,
            PortId(0),
            "none free: the first all the same"
        );
        assert_eq!(ports.rivals(LegId(7)), [LegId(1)]);
        assert_eq!(
            ports.take(LegId(8), vec![]).id,
            PortId(0),
            "a browser hides its addresses: any port"
        );
    }

    #[test]
    fn extra_ports_close_when_idle_and_their_number_is_used_again() {
        let mut ports = open(3, 1);
        for leg in 1..=3 {
            ports.take(LegId(leg), vec![peer(1)]);
        }
        assert!(!ports.close_if_idle(PortId(1)), "in use");
        ports.release(LegId(2));
        ports.release(LegId(2));
        assert!(ports.close_if_idle(PortId(1)));
        assert!(!ports.close_if_idle(PortId(0)), "the first stays");
        assert_eq!(ports.ports().count(), 2);
        assert_eq!(ports.take(LegId(4), vec![peer(1)]).id, PortId(1));
    }

    #[test]
    fn shards_are_loaded_evenly_but_for_a_hundred_legs() {
        let mut ports = open(10, 2);
        let mut shard = |n: u16| ports.take(LegId(n.into()), vec![peer(n)]).shard;
        let shards: Vec<usize> = (0..500).map(&mut shard).collect();
        let expected: Vec<usize> = (0..500).map(|n| n / TOGETHER % 2).collect();
        assert_eq!(shards, expected);
        (100..199).for_each(|n| ports.release(LegId(n)));
        assert_eq!(ports.take(LegId(1_000), vec![peer(1_000)]).shard, 1, "it has room again");
        // If each leg needs a port of its own, it is opened for the shard whose turn it is, while
        // possible.
        let mut ports = open(7, 2);
        let ids: Vec<u16> = (0..7).map(|n| ports.take(LegId(n), vec![peer(100)]).id.0).collect();
        assert_eq!(ids, [0, 2, 3, 4, 5, 6, 1]);
        assert_eq!(open(1, 8).ports().count(), 1, "no more shards than ports");
    }

    proptest! {
        /// No two live legs share a port and a peer while a port is available, and nothing is left
        /// at the end.
        #[test]
        fn no_collision_and_no_leak(orders in proptest::collection::vec((0u8..3, 0u64..12, 0u16..4), 0..60)) {
            let mut ports = open(40, 2);
            let mut live: std::collections::BTreeMap<u64, (PortId, SocketAddr)> = Default::default();
            for (order, leg, at) in orders {
                match order {
                    0 if !live.contains_key(&leg) => {
                        let port = ports.take(LegId(leg), vec![peer(at)]).id;
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
            prop_assert!(ports.taken.is_empty() && ports.legs.is_empty());
            prop_assert_eq!(&ports.shard_legs, &[0, 0]);
        }
    }
}
