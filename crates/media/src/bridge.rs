//! A bridge: what the peer of one leg says goes out to the peer of another, packet by packet, and the other way round.
//!
//! Opus stays as it is; sequence numbers and timestamps are the sending leg's own (`leg`), so that its stream has no break
//! where a bridge begins or ends. Each way has a bounded queue without a lock, for the two legs may live in different
//! shards, and a few packets of patience, since what comes over a network does not come every 20 ms. Keys are no sound:
//! they are told to the call and do not cross.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::inlet::{Heard, Inlet, Passed};

/// Packets on their way from one shard to the other: more than half a second.
const ON_THE_WAY: usize = 32;

/// One leg's end. Dropping it ends the bridge; the other leg falls silent.
pub struct BridgeEnd {
    to: SyncSender<Heard>,
    from: Receiver<Heard>,
    inlet: Inlet,
}

impl std::fmt::Debug for BridgeEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BridgeEnd")
    }
}

/// Both ends of a new bridge.
pub fn bridge() -> (BridgeEnd, BridgeEnd) {
    let (to_b, from_a) = sync_channel(ON_THE_WAY);
    let (to_a, from_b) = sync_channel(ON_THE_WAY);
    let end = |to, from| BridgeEnd { to, from, inlet: Inlet::default() };
    (end(to_b, from_b), end(to_a, from_a))
}

impl BridgeEnd {
    /// This leg's peer said that. It is left out where the other leg is behind, or gone.
    pub(super) fn pass(&self, heard: Heard) {
        let _ = self.to.try_send(heard);
    }

    /// A step of the sending leg's begins: takes in what the other peer said.
    pub(super) fn take_in(&mut self) {
        while let Ok(heard) = self.from.try_recv() {
            self.inlet.add(heard);
        }
        self.inlet.step();
    }

    /// The next packet to be sent; none: nothing is there, or not enough to begin with.
    pub(super) fn next(&mut self) -> Option<Passed> {
        self.inlet.next()
    }
}

#[cfg(test)]
mod tests {
    use super::super::inlet::Heard;
    use super::bridge;

    /// A 20 ms packet (wideband SILK) with its number in it.
    fn packet(sequence: u64) -> Heard {
        let number = u8::try_from(sequence % 256).unwrap();
        let timestamp = u32::try_from(sequence * 960 % (1 << 32)).unwrap();
        Heard { ssrc: 7, sequence, timestamp, payload: [9 << 3, number].into() }
    }

    #[test]
    fn a_bridge_goes_both_ways_and_ends_with_either_end() {
        let (mut a, mut b) = bridge();
        for n in 1..=2 {
            a.pass(packet(n));
            b.pass(packet(100 + n));
        }
        a.take_in();
        b.take_in();
        assert_eq!(a.next().map(|p| p.payload[1]), Some(101));
        assert_eq!(b.next().map(|p| p.payload[1]), Some(1));
        drop(b);
        a.pass(packet(3));
        a.take_in();
        assert_eq!(a.next().map(|p| p.payload[1]), Some(102), "what was said is heard");
        a.take_in();
        assert_eq!(a.next(), None);
        // Nobody takes anything in: it is bounded all the same.
        let (a, _b) = bridge();
        (0..1_000).for_each(|n| a.pass(packet(n)));
    }
}
