//! Jitter buffer: restores the order of received packets, delays them a little, drops late ones and
//! reports losses.
//!
//! The delay adapts to the network. A late packet increases it. Several seconds without one
//! decrease it. If packets pile up beyond the delay, because the peer's clock is fast or a burst
//! followed a stall, one packet is dropped, preferably a quiet one. The buffer is advanced every 20
//! ms. `tap_reader` decodes the packets, `bridge` forwards them.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::prompt::Frame;

/// Packets to buffer before the first one is released: 40 ms on a good network, 160 ms on the
/// worst.
const DELAY_MIN: usize = 2;
const DELAY_MAX: usize = 8;
/// Number of steps after the target delay at which packets are released even if fewer than the
/// target number have arrived.
const EXTRA_STEPS: usize = 1;
/// Capacity in packets. Beyond it the oldest are dropped, because a full buffer is delay.
const CAPACITY: usize = 12;
/// Steps (4 s) over which the delay is evaluated.
const WINDOW: u16 = 200;
/// Packets of at most this many bytes count as quiet.
const QUIET_BYTES: usize = 16;
/// Duration of 20 ms on the RTP clock of Opus, 48 kHz (RFC 7587), which is the length of most
/// packets.
pub(super) const PACKET_TICKS: u32 = 960;
/// Longest gap that is reported as a loss, in RTP ticks: 100 ms. A longer gap is a pause.
const LOSS_MAX: u32 = 4_800;
/// Duration of the longest Opus packet in RTP ticks: 120 ms (RFC 6716 §3.2.5).
const PACKET_TICKS_MAX: u32 = 5_760;

/// End of the extended sequence numbers, which have 48 bits (RFC 3711 §3.3.1).
const SEQUENCE_END: u64 = 1 << 48;

/// A packet received from the peer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct InboundPacket {
    pub(super) ssrc: u32,
    /// Extended sequence number; it does not wrap.
    pub(super) sequence: u64,
    pub(super) timestamp: u32,
    pub(super) payload: Frame,
}

/// A packet released by the jitter buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PlayoutPacket {
    pub(super) payload: Frame,
    /// Duration in RTP ticks.
    pub(super) ticks: u32,
    /// Loss before this packet, in RTP ticks and in packets.
    pub(super) lost: (u32, u64),
}

/// A jitter buffer. See the [module documentation](self).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct JitterBuffer {
    packets: VecDeque<(InboundPacket, u32)>,
    /// Whether packets are being released. Otherwise the buffer is filling.
    releasing: bool,
    /// Steps since the first packet of this filling phase.
    filling_steps: usize,
    last: Option<LastPacket>,
    /// Current delay in packets.
    delay: usize,
    /// Whether the buffer ran dry since it last started to fill.
    underrun: bool,
    /// Whether the delay has been increased since the last late packet.
    delay_grown: bool,
    observed: Observation,
}

/// Observations for the adaptation of the delay.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Observation {
    steps: u16,
    /// Lowest fill level in packets.
    lowest: usize,
    late: bool,
    /// If one packet is to be dropped, the number of steps left in which to wait for a quiet one.
    shed_in: Option<u16>,
}

impl Observation {
    const NEW: Self = Self { steps: 0, lowest: usize::MAX, late: false, shed_in: None };
}

impl Default for JitterBuffer {
    fn default() -> Self {
        Self {
            packets: VecDeque::new(),
            releasing: false,
            filling_steps: 0,
            last: None,
            delay: DELAY_MIN,
            underrun: false,
            delay_grown: false,
            observed: Observation::NEW,
        }
    }
}

/// The packet released last.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct LastPacket {
    ssrc: u32,
    sequence: u64,
    /// The RTP timestamp at its end.
    end: u32,
    ticks: u32,
}

impl JitterBuffer {
    /// Whether a buffer that was read from a snapshot is within the bounds of a buffer.
    pub(super) fn is_consistent(&self) -> bool {
        let is_valid = |(packet, ticks): &(InboundPacket, u32)| {
            packet.sequence < SEQUENCE_END && opus_ticks(&packet.payload) == Some(*ticks)
        };
        let is_last = |last: LastPacket| {
            last.sequence < SEQUENCE_END && (1..=PACKET_TICKS_MAX).contains(&last.ticks)
        };
        self.packets.len() <= CAPACITY
            && self.packets.iter().all(is_valid)
            && self.last.is_none_or(is_last)
            && (DELAY_MIN..=DELAY_MAX).contains(&self.delay)
            && self.filling_steps <= DELAY_MAX + EXTRA_STEPS
            && self.observed.steps < WINDOW
    }

    /// Inserts a packet in order. Drops it if it is late or invalid.
    pub(super) fn push(&mut self, packet: InboundPacket) {
        let Some(ticks) = opus_ticks(&packet.payload) else { return };
        if let Some(last) = self.last.filter(|last| last.ssrc == packet.ssrc) {
            let is_too_late = packet.sequence <= last.sequence;
            // The packet directly follows the last one, which was released long ago.
            let is_next = packet.sequence == last.sequence + 1 && packet.timestamp == last.end;
            if is_too_late || (self.underrun && is_next) {
                self.note_late();
            }
            if is_too_late {
                return;
            }
        }
        // Search from the back, because packets usually arrive in order.
        let is_later =
            |other: &InboundPacket| other.ssrc == packet.ssrc && other.sequence > packet.sequence;
        let at =
            self.packets.iter().rposition(|(other, _)| !is_later(other)).map_or(0, |at| at + 1);
        self.packets.insert(at, (packet, ticks));
        while self.packets.len() > CAPACITY {
            // Not counted as lost. Otherwise no packet would be released while the loss is made up
            // for, the full buffer would overflow again, and so on without end.
            let _ = self.dequeue();
        }
    }

    /// Records that a packet arrived too late.
    fn note_late(&mut self) {
        self.observed.late = true;
        if !std::mem::replace(&mut self.delay_grown, true) {
            self.delay = (self.delay + 1).min(DELAY_MAX);
        }
    }

    /// Advances the buffer by one 20 ms step.
    pub(super) fn step(&mut self) {
        if self.releasing {
            self.adapt();
        } else if self.packets.is_empty() {
            self.filling_steps = 0;
        } else {
            self.filling_steps += 1;
            self.releasing =
                self.packets.len() >= self.delay || self.filling_steps > self.delay + EXTRA_STEPS;
            if self.releasing {
                (self.filling_steps, self.underrun, self.delay_grown) = (0, false, false);
                self.observed = Observation::NEW;
            }
        }
    }

    /// Evaluates the fill level.
    fn adapt(&mut self) {
        self.observed.lowest = self.observed.lowest.min(self.packets.len());
        self.observed.steps += 1;
        if let Some(left) = self.observed.shed_in {
            let quiet =
                self.packets.front().is_some_and(|(packet, _)| packet.payload.len() <= QUIET_BYTES);
            self.observed.shed_in = Some(left.saturating_sub(1));
            if quiet || left == 0 {
                // The packet is treated as if it had been released, so that it does not count as
                // lost.
                let _ = self.dequeue();
                self.observed.shed_in = None;
            }
        }
        if self.observed.steps == WINDOW {
            if !self.observed.late && self.delay > DELAY_MIN {
                self.delay -= 1;
            }
            let shed_in = (self.observed.lowest > self.delay).then_some(WINDOW / 2);
            self.observed = Observation { shed_in, ..Observation::NEW };
            self.delay_grown = false;
        }
    }

    /// Returns the buffered audio in RTP ticks, or `None` while the buffer is filling.
    pub(super) fn buffered_ticks(&self) -> Option<u32> {
        self.releasing.then(|| self.packets.iter().map(|(_, ticks)| ticks).sum())
    }

    /// Returns the current delay in RTP ticks.
    pub(super) fn delay_ticks(&self) -> u32 {
        let ticks = self.last.map_or(0, |last| last.ticks);
        ticks.saturating_mul(u32::try_from(self.delay).unwrap_or(u32::MAX))
    }

    /// Starts to release the buffered packets without further delay.
    pub(super) fn start(&mut self) {
        self.releasing = !self.packets.is_empty();
        self.underrun = false;
    }

    /// Returns the next packet, or `None` if the buffer is empty or filling.
    pub(super) fn pop(&mut self) -> Option<PlayoutPacket> {
        if !self.releasing {
            return None;
        }
        let next = self.dequeue();
        if next.is_none() {
            self.releasing = false;
            self.underrun = true;
        }
        next
    }

    fn dequeue(&mut self) -> Option<PlayoutPacket> {
        let (packet, ticks) = self.packets.pop_front()?;
        let lost = self.last.filter(|last| last.ssrc == packet.ssrc).map_or((0, 0), |last| {
            let gap = packet.timestamp.wrapping_sub(last.end);
            let missing = packet.sequence.saturating_sub(last.sequence).saturating_sub(1);
            let is_loss =
                missing > 0 && gap > 0 && gap <= LOSS_MAX && gap.is_multiple_of(last.ticks);
            if is_loss { (gap, u64::from(gap / last.ticks)) } else { (0, 0) }
        });
        let end = packet.timestamp.wrapping_add(ticks);
        self.last = Some(LastPacket { ssrc: packet.ssrc, sequence: packet.sequence, end, ticks });
        Some(PlayoutPacket { payload: packet.payload, ticks, lost })
    }
}

/// Returns the duration of an Opus packet in RTP ticks, from its first bytes (RFC 6716 §3.1, §3.2).
/// `None` if it is not a valid packet.
pub(super) fn opus_ticks(payload: &[u8]) -> Option<u32> {
    let toc = *payload.first()?;
    let config = toc >> 3;
    let frame = match config {
        0..=11 => [480, 960, 1_920, 2_880].get(usize::from(config & 3)).copied()?,
        12..=15 => [480, 960].get(usize::from(config & 1)).copied()?,
        _ => [120, 240, 480, 960].get(usize::from(config & 3)).copied()?,
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(payload.get(1)? & 0x3f),
    };
    Some(frame * frames).filter(|ticks| (1..=PACKET_TICKS_MAX).contains(ticks))
}

#[cfg(test)]
mod tests {
    use super::{CAPACITY, InboundPacket, JitterBuffer, PlayoutPacket, opus_ticks};

    /// A 20 ms packet (wideband SILK) with its number in the payload.
    fn packet(sequence: u64) -> InboundPacket {
        let number = u8::try_from(sequence % 256).unwrap();
        let timestamp = u32::try_from(sequence * 960 % (1 << 32)).unwrap();
        InboundPacket { ssrc: 7, sequence, timestamp, payload: [9 << 3, number].into() }
    }

    /// Runs one step with these arrivals; returns the number of the released packet and the packets
    /// lost before it.
    fn step(buffer: &mut JitterBuffer, comes: &[u64]) -> Option<(u8, u64)> {
        comes.iter().for_each(|sequence| buffer.push(packet(*sequence)));
        buffer.step();
        buffer.pop().map(|PlayoutPacket { payload, lost, .. }| (payload[1], lost.1))
    }

    #[test]
    fn releases_packets_in_order_after_a_delay() {
        let mut buffer = JitterBuffer::default();
        assert_eq!(step(&mut buffer, &[10]), None, "the delay is two packets");
        assert_eq!(step(&mut buffer, &[11]), Some((10, 0)));
        assert_eq!(step(&mut buffer, &[]), Some((11, 0)), "no arrival, one packet buffered");
        assert_eq!(step(&mut buffer, &[13, 12]), Some((12, 0)), "reordered");
        assert_eq!(step(&mut buffer, &[12, 11]), Some((13, 0)), "already released");
        assert_eq!(step(&mut buffer, &[]), None);
        assert_eq!(step(&mut buffer, &[14]), None, "filling again, with a longer delay");
        assert_eq!(
            [(); 4].map(|()| step(&mut buffer, &[])),
            [None, None, None, Some((14, 0))],
            "a single packet is released after a while"
        );
    }

    /// Simulates a network: packet n is sent at n × `every` ms and arrives `delay` later, or is
    /// lost if `delay` is `None`. Returns for each 20 ms step the released packet and the packets
    /// still buffered.
    fn run(
        packets: u64,
        every: f64,
        delay: impl Fn(u64) -> Option<u64>,
    ) -> Vec<(Option<u64>, usize)> {
        let mut buffer = JitterBuffer::default();
        let mut coming: Vec<(u64, u64)> =
            (0..packets).filter_map(|n| Some(((n as f64 * every) as u64 + delay(n)?, n))).collect();
        coming.sort_unstable();
        let mut coming = coming.into_iter().peekable();
        let mut released = Vec::new();
        for now in (0..(packets as f64 * every) as u64).step_by(20) {
            while let Some((_, n)) = coming.next_if(|(at, _)| *at <= now) {
                buffer.push(packet(n));
            }
            buffer.step();
            let next = buffer.pop().is_some();
            let last = buffer.last.filter(|_| next).map(|last| last.sequence);
            released.push((last, buffer.packets.len()));
        }
        released
    }

    /// A deterministic pseudo-random delay.
    fn pseudo_random(n: u64, most: u64) -> u64 {
        (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) % (most + 1)
    }

    fn underruns(released: &[(Option<u64>, usize)]) -> usize {
        released.iter().filter(|(sequence, _)| sequence.is_none()).count()
    }

    #[test]
    fn adapts_the_delay_to_jitter() {
        let restless = run(1_500, 20.0, |n| Some(pseudo_random(n, 90)));
        assert!(
            underruns(&restless[500..]) <= 10,
            "{} of 1,000 steps without a packet",
            underruns(&restless[500..])
        );
        let calm = run(4_000, 20.0, |n| Some(if n < 500 { pseudo_random(n, 90) } else { 5 }));
        assert_eq!(underruns(&calm[600..]), 0);
        assert!(
            calm[3_900..].iter().all(|(_, waiting)| *waiting <= 2),
            "the delay has decreased: {:?}",
            calm.last()
        );
        let steady = run(1_000, 20.0, |n| Some(pseudo_random(n, 15)));
        assert!(underruns(&steady) <= 4 && steady.iter().all(|(_, waiting)| *waiting <= 3));
    }

    #[test]
    fn recovers_from_clock_drift_and_stalls() {
        let faster = run(10_000, 19.98, |_| Some(5));
        assert!(
            faster.iter().all(|(_, waiting)| *waiting <= 4),
            "{:?}",
            faster.iter().map(|p| p.1).max()
        );
        assert!(underruns(&faster) <= 2);
        let slower = run(10_000, 20.02, |_| Some(5));
        assert!(underruns(&slower) <= 40, "{}", underruns(&slower));
        let stalled =
            run(3_000, 20.0, |n| Some(if (100..110).contains(&n) { (110 - n) * 20 } else { 5 }));
        assert!(stalled[2_900..].iter().all(|(_, waiting)| *waiting <= 2), "{:?}", stalled.last());
    }

    #[test]
    fn keeps_order_with_a_third_lost() {
        let released =
            run(1_000, 20.0, |n| (pseudo_random(n, 9) > 2).then_some(pseudo_random(n + 7, 30)));
        let sequences: Vec<u64> = released.iter().filter_map(|(sequence, _)| *sequence).collect();
        assert!(sequences.is_sorted() && sequences.len() > 600, "{}", sequences.len());
    }

    #[test]
    fn reports_losses_but_not_pauses() {
        let mut buffer = JitterBuffer::default();
        assert_eq!(step(&mut buffer, &[1, 2]), Some((1, 0)));
        assert_eq!(step(&mut buffer, &[5]), Some((2, 0)));
        assert_eq!(step(&mut buffer, &[6]), Some((5, 2)));
        assert_eq!(step(&mut buffer, &[60]), Some((6, 0)));
        assert_eq!(step(&mut buffer, &[61]), Some((60, 0)), "a pause of a second");
        let mut other = packet(3);
        other.ssrc = 8;
        buffer.push(other);
        assert_eq!(step(&mut buffer, &[]), Some((61, 0)));
        assert_eq!(step(&mut buffer, &[]), Some((3, 0)), "another stream starts at any timestamp");
    }

    #[test]
    fn bounds_the_buffer_and_keeps_the_newest() {
        let mut buffer = JitterBuffer::default();
        let all: Vec<u64> = (1..=30).collect();
        let (first, _) = step(&mut buffer, &all).expect("one");
        assert_eq!(usize::from(first), 30 - CAPACITY + 1);
        let burst: Vec<u64> = (31..=34).collect();
        assert_eq!(
            step(&mut buffer, &burst),
            Some((first + 4, 0)),
            "the dropped ones are not lost"
        );
    }

    #[test]
    fn computes_the_duration_of_opus_packets() {
        for (bytes, expected) in [
            (&[][..], None),
            (&[9 << 3][..], Some(960)),
            (&[11 << 3][..], Some(2_880)),
            (&[(31 << 3) | 1, 0][..], Some(1_920)),
            (&[16 << 3][..], Some(120)),
            (&[(15 << 3) | 2][..], Some(1_920)),
            (&[(9 << 3) | 3, 3][..], Some(2_880)),
            (&[(9 << 3) | 3][..], None),
            (&[(9 << 3) | 3, 0][..], None),
            (&[(11 << 3) | 3, 48][..], None),
        ] {
            assert_eq!(opus_ticks(bytes), expected, "{bytes:?}");
        }
    }
}
