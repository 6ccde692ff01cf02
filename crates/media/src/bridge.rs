//! A bridge forwards the packets of one leg's peer to the peer of another leg, in both directions.
//!
//! Opus payloads pass unchanged. The sending leg assigns its own sequence numbers and timestamps,
//! so that its stream continues when a bridge starts or ends. The two legs may be on different
//! shards, so each direction has a bounded queue. A jitter buffer restores the 20 ms rhythm. DTMF
//! events do not cross the bridge; they are reported to the call.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use serde::{Deserialize, Serialize};

use super::jitter_buffer::{InboundPacket, JitterBuffer, PlayoutPacket};

/// Packets queued between the shards: more than half a second.
const QUEUE_MAX: usize = 32;

/// The number of bridges of this process.
static BRIDGES: AtomicU64 = AtomicU64::new(0);

/// One leg's end of a bridge. Dropping it ends the bridge; the other leg then sends silence.
pub struct BridgeEnd {
    /// Identifies the bridge in this process.
    id: u64,
    to: SyncSender<InboundPacket>,
    from: Receiver<InboundPacket>,
    buffer: JitterBuffer,
}

impl std::fmt::Debug for BridgeEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BridgeEnd")
    }
}

/// Creates a bridge and returns both ends.
pub fn bridge() -> (BridgeEnd, BridgeEnd) {
    let (to_b, from_a) = sync_channel(QUEUE_MAX);
    let (to_a, from_b) = sync_channel(QUEUE_MAX);
    let id = BRIDGES.fetch_add(1, Ordering::Relaxed);
    let end = |to, from| BridgeEnd { id, to, from, buffer: JitterBuffer::default() };
    (end(to_b, from_b), end(to_a, from_a))
}

/// The state of one end in the snapshot of its leg.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct BridgeState {
    id: u64,
    buffer: JitterBuffer,
}

/// Bridges of another process, of which one end was continued here.
#[derive(Debug, Default)]
pub(super) struct ContinuedBridges(HashMap<u64, BridgeEnd>);

impl ContinuedBridges {
    /// Continues an end of a bridge. It is connected with the other one when that is continued, too.
    /// Returns `None` if the state is inconsistent.
    pub(super) fn continue_end(
        &mut self,
        BridgeState { id, buffer }: BridgeState,
    ) -> Option<BridgeEnd> {
        if !buffer.is_consistent() {
            return None;
        }
        let end = self.0.remove(&id).unwrap_or_else(|| {
            let (ours, theirs) = bridge();
            self.0.insert(id, theirs);
            ours
        });
        Some(BridgeEnd { buffer, ..end })
    }

    /// Drops the ends that no leg has.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

impl BridgeEnd {
    /// Sends a packet of this leg's peer to the other leg. It is dropped if the queue is full or
    /// the other end no longer exists.
    pub(super) fn send(&self, packet: InboundPacket) {
        let _ = self.to.try_send(packet);
    }

    /// Starts a 20 ms step: moves the packets that have arrived into the jitter buffer.
    pub(super) fn receive(&mut self) {
        self.take_arrived();
        self.buffer.step();
    }

    fn take_arrived(&mut self) {
        while let Ok(packet) = self.from.try_recv() {
            self.buffer.push(packet);
        }
    }

    /// Returns the state, with the packets that have arrived. The end can still continue here.
    pub(super) fn snapshot(&mut self) -> BridgeState {
        self.take_arrived();
        BridgeState { id: self.id, buffer: self.buffer.clone() }
    }

    /// Returns the next packet to send, or `None` if none is available or the jitter buffer is
    /// still filling.
    pub(super) fn next_packet(&mut self) -> Option<PlayoutPacket> {
        self.buffer.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::super::jitter_buffer::InboundPacket;
    use super::{ContinuedBridges, bridge};

    /// A 20 ms packet (wideband SILK) with its number in the payload.
    fn packet(sequence: u64) -> InboundPacket {
        let number = u8::try_from(sequence % 256).unwrap();
        let timestamp = u32::try_from(sequence * 960 % (1 << 32)).unwrap();
        InboundPacket { ssrc: 7, sequence, timestamp, payload: [9 << 3, number].into() }
    }

    #[test]
    fn forwards_both_ways_until_either_end_is_dropped() {
        let (mut a, mut b) = bridge();
        for n in 1..=2 {
            a.send(packet(n));
            b.send(packet(100 + n));
        }
        a.receive();
        b.receive();
        assert_eq!(a.next_packet().map(|p| p.payload[1]), Some(101));
        assert_eq!(b.next_packet().map(|p| p.payload[1]), Some(1));
        drop(b);
        a.send(packet(3));
        a.receive();
        assert_eq!(
            a.next_packet().map(|p| p.payload[1]),
            Some(102),
            "queued packets are still returned"
        );
        a.receive();
        assert_eq!(a.next_packet(), None);
        // The queue is bounded without a reader.
        let (a, _b) = bridge();
        (0..1_000).for_each(|n| a.send(packet(n)));
    }

    #[test]
    fn both_ends_continue_with_the_packets_that_have_arrived() {
        let (mut a, mut b) = bridge();
        let (_, mut other) = bridge();
        (1..=3).for_each(|n| a.send(packet(n)));
        b.receive();
        assert_eq!(b.next_packet().map(|p| p.payload[1]), Some(1));
        a.send(packet(4));
        let mut bridges = ContinuedBridges::default();
        let [mut a, mut b, mut other] = [&mut a, &mut b, &mut other].map(|end| {
            let json = serde_json::to_string(&end.snapshot()).expect("JSON");
            bridges.continue_end(serde_json::from_str(&json).expect("a state")).expect("consistent")
        });
        assert_eq!(bridges.0.len(), 1, "the end that is alone");
        bridges.clear();
        a.send(packet(5));
        for n in 2..=5 {
            b.receive();
            assert_eq!(b.next_packet().map(|p| p.payload[1]), Some(n));
        }
        b.send(packet(9));
        b.send(packet(10));
        a.receive();
        assert_eq!(a.next_packet().map(|p| p.payload[1]), Some(9));
        other.send(packet(1));
        other.receive();
        assert_eq!(other.next_packet(), None);
    }
}
