//! What comes over a network, put into order: a few packets of patience, late ones left out, losses told.
//!
//! Pure: packets in, packets out, a step every 20 ms. Decoding is `line`'s, sending on is `bridge`'s.

use std::collections::VecDeque;

use super::prompt::Frame;

/// Packets that wait before the first is sent, and again after a pause: 40 ms.
const PATIENCE: usize = 2;
/// Steps after which one is sent though it is alone.
const ALONE: u8 = 2;
/// Packets that may wait; past it the oldest are left out, for what waits is delay.
const WAITING_MAX: usize = 10;
/// The longest loss that is passed on as one, in RTP ticks (48 kHz): 100 ms. Anything longer was a pause.
const LOSS_MAX: u32 = 4_800;
/// RTP ticks of the longest packet that Opus knows (RFC 6716 §3.2.5): 120 ms.
const PACKET_MAX: u32 = 5_760;

/// A packet of the peer's.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    pub(super) ssrc: u32,
    /// Extended: it does not turn over.
    pub(super) sequence: u64,
    pub(super) timestamp: u32,
    pub(super) payload: Frame,
}

/// A packet to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Passed {
    pub(super) payload: Frame,
    /// RTP ticks that it lasts.
    pub(super) ticks: u32,
    /// RTP ticks that were lost before it, and the packets that held them.
    pub(super) lost: (u32, u64),
}

/// Puts packets into their order, and waits a little for them.
#[derive(Debug, Default)]
pub(super) struct Inlet {
    waiting: VecDeque<(Heard, u32)>,
    /// Packets are being sent; else the next ones are waited for.
    flowing: bool,
    /// Steps for which something has waited.
    waited: u8,
    last: Option<Last>,
}

/// The packet sent last.
#[derive(Clone, Copy, Debug)]
struct Last {
    ssrc: u32,
    sequence: u64,
    /// Where the one after it begins.
    end: u32,
    ticks: u32,
}

impl Inlet {
    pub(super) fn add(&mut self, heard: Heard) {
        let Some(ticks) = ticks_of(&heard.payload) else { return };
        let late = self.last.is_some_and(|last| last.ssrc == heard.ssrc && heard.sequence <= last.sequence);
        if late {
            return;
        }
        // From the back: packets come in order, as a rule.
        let behind = |other: &Heard| other.ssrc == heard.ssrc && other.sequence > heard.sequence;
        let at = self.waiting.iter().rposition(|(other, _)| !behind(other)).map_or(0, |at| at + 1);
        self.waiting.insert(at, (heard, ticks));
        while self.waiting.len() > WAITING_MAX {
            self.waiting.pop_front();
        }
    }

    /// A step of whoever takes from it begins.
    pub(super) fn step(&mut self) {
        if self.flowing || self.waiting.is_empty() {
            self.waited = 0;
            return;
        }
        self.waited = self.waited.saturating_add(1);
        self.flowing = self.waiting.len() >= PATIENCE || self.waited > ALONE;
    }

    /// Nothing more is waited for: what is there can be taken.
    pub(super) fn begin(&mut self) {
        self.flowing = !self.waiting.is_empty();
    }

    /// The next packet; none: nothing is there, or not enough to begin with.
    pub(super) fn next(&mut self) -> Option<Passed> {
        if !self.flowing {
            return None;
        }
        let Some((heard, ticks)) = self.waiting.pop_front() else {
            self.flowing = false;
            return None;
        };
        let lost = self.last.filter(|last| last.ssrc == heard.ssrc).map_or((0, 0), |last| {
            let gap = heard.timestamp.wrapping_sub(last.end);
            let packets = heard.sequence.saturating_sub(last.sequence).saturating_sub(1);
            let is_loss = packets > 0 && gap > 0 && gap <= LOSS_MAX && gap.is_multiple_of(last.ticks);
            if is_loss { (gap, u64::from(gap / last.ticks)) } else { (0, 0) }
        });
        let end = heard.timestamp.wrapping_add(ticks);
        self.last = Some(Last { ssrc: heard.ssrc, sequence: heard.sequence, end, ticks });
        Some(Passed { payload: heard.payload, ticks, lost })
    }
}

/// How long an Opus packet lasts, in RTP ticks, by its first bytes (RFC 6716 §3.1, §3.2); none: it is no such packet.
fn ticks_of(payload: &[u8]) -> Option<u32> {
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
    Some(frame * frames).filter(|ticks| (1..=PACKET_MAX).contains(ticks))
}

#[cfg(test)]
mod tests {
    use super::{Heard, Inlet, Passed, WAITING_MAX, ticks_of};

    /// A 20 ms packet (wideband SILK) with its number in it.
    fn packet(sequence: u64) -> Heard {
        let number = u8::try_from(sequence % 256).unwrap();
        let timestamp = u32::try_from(sequence * 960 % (1 << 32)).unwrap();
        Heard { ssrc: 7, sequence, timestamp, payload: [9 << 3, number].into() }
    }

    /// What one step sends: the number of each packet, and what was lost before it.
    fn step(inlet: &mut Inlet, comes: &[u64]) -> Option<(u8, u64)> {
        comes.iter().for_each(|sequence| inlet.add(packet(*sequence)));
        inlet.step();
        inlet.next().map(|Passed { payload, lost, .. }| (payload[1], lost.1))
    }

    #[test]
    fn packets_go_out_in_order_after_a_little_patience() {
        let mut inlet = Inlet::default();
        assert_eq!(step(&mut inlet, &[10]), None, "a second one is waited for");
        assert_eq!(step(&mut inlet, &[11]), Some((10, 0)));
        assert_eq!(step(&mut inlet, &[]), Some((11, 0)), "one was late, and there is one in store");
        assert_eq!(step(&mut inlet, &[13, 12]), Some((12, 0)), "in their order");
        assert_eq!(step(&mut inlet, &[12, 11]), Some((13, 0)), "those were sent already");
        assert_eq!(step(&mut inlet, &[]), None);
        assert_eq!(step(&mut inlet, &[14]), None, "patience again");
        assert_eq!(step(&mut inlet, &[]), None);
        assert_eq!(step(&mut inlet, &[]), Some((14, 0)), "a single one is not kept for ever");
    }

    #[test]
    fn a_short_loss_is_passed_on_and_a_pause_is_not() {
        let mut inlet = Inlet::default();
        assert_eq!(step(&mut inlet, &[1, 2]), Some((1, 0)));
        assert_eq!(step(&mut inlet, &[5]), Some((2, 0)));
        assert_eq!(step(&mut inlet, &[6]), Some((5, 2)));
        assert_eq!(step(&mut inlet, &[60]), Some((6, 0)));
        assert_eq!(step(&mut inlet, &[61]), Some((60, 0)), "a second of nothing");
        let mut other = packet(3);
        other.ssrc = 8;
        inlet.add(other);
        assert_eq!(step(&mut inlet, &[]), Some((61, 0)));
        assert_eq!(step(&mut inlet, &[]), Some((3, 0)), "another stream begins where it likes");
    }

    #[test]
    fn what_waits_is_bounded_and_the_newest() {
        let mut inlet = Inlet::default();
        let all: Vec<u64> = (1..=30).collect();
        let (first, _) = step(&mut inlet, &all).expect("one");
        assert_eq!(usize::from(first), 30 - WAITING_MAX + 1);
    }

    #[test]
    fn the_length_of_a_packet_is_in_its_first_bytes() {
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
            assert_eq!(ticks_of(bytes), expected, "{bytes:?}");
        }
    }
}
