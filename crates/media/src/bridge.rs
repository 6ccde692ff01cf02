//! A bridge forwards the packets of one leg's peer to the peer of another leg, in both directions.
//!
//! Opus payloads pass unchanged. The sending leg assigns its own sequence numbers and timestamps,
//! so that its stream continues when a bridge starts or ends. The two legs may be on different
//! shards, so each direction has a bounded queue. A jitter buffer restores the 20 ms rhythm. DTMF
//! events do not cross the bridge; they are reported to the call.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::jitter_buffer::{InboundPacket, JitterBuffer, PlayoutPacket};

/// Packets queued between the shards: more than half a second.
const QUEUE_MAX: usize = 32;

/// One leg's end of a bridge. Dropping it ends the bridge; the other leg then sends silence.
pub struct BridgeEnd {
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
    let end = |to, from| BridgeEnd { to, from, buffer: JitterBuffer::default() };
    (end(to_b, from_b), end(to_a, from_a))
}

impl BridgeEnd {
    /// Sends a packet of this leg's peer to the other leg. It is dropped if the queue is full or
    /// the other end no longer exists.
    pub(super) fn send(&self, packet: InboundPacket) {
        let _ = self.to.try_send(packet);
    }

    /// Starts a 20 ms step: moves the packets that have arrived into the jitter buffer.
    pub(super) fn receive(&mut self) {
        while let Ok(packet) = self.from.try_recv() {
            self.buffer.push(packet);
        }
        self.buffer.step();
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
    use super::bridge;

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
}
