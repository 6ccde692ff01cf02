//! A bridge forwards the packets of one leg's peer to the peer of another leg, in both directions.
//!
//! Opus payloads pass unchanged. The sending leg assigns its own sequence numbers and timestamps,
//! so that its stream continues when a bridge starts or ends. The two legs may live on different
//! shards, so each direction has a bounded queue. A jitter buffer restores the 20 ms rhythm. DTMF
//! events do not cross the bridge; they are reported to the call.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::inlet::{Heard, Inlet, Passed};

/// Packets queued between the shards: more than half a second.
const ON_THE_WAY: usize = 32;

/// One leg's end of a bridge. Dropping it ends the bridge; the other leg then sends silence.
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

/// Creates a bridge and returns both ends.
pub fn bridge() -> (BridgeEnd, BridgeEnd) {
    let (to_b, from_a) = sync_channel(ON_THE_WAY);
    let (to_a, from_b) = sync_channel(ON_THE_WAY);
    let end = |to, from| BridgeEnd { to, from, inlet: Inlet::default() };
    (end(to_b, from_b), end(to_a, from_a))
}

impl BridgeEnd {
    /// Sends a packet of this leg's peer to the other leg. It is dropped if the queue is full or
    /// the other end is gone.
    pub(super) fn pass(&self, heard: Heard) {
        let _ = self.to.try_send(heard);
    }

    /// Starts a 20 ms step: moves the packets that have arrived into the jitter buffer.
    pub(super) fn take_in(&mut self) {
        while let Ok(heard) = self.from.try_recv() {
            self.inlet.add(heard);
        }
        self.inlet.step();
    }

    /// Returns the next packet to send, or `None` if none is available or the jitter buffer is
    /// still filling.
    pub(super) fn next(&mut self) -> Option<Passed> {
        self.inlet.next()
    }
}

#[cfg(test)]
mod tests {
    use super::super::inlet::Heard;
    use super::bridge;

    /// A 20 ms packet (wideband SILK) with its number in the payload.
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
        // The queue is bounded even if nobody reads.
        let (a, _b) = bridge();
        (0..1_000).for_each(|n| a.pass(packet(n)));
    }
}
