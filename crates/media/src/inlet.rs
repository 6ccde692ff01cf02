//! Jitter buffer: restores the order of received packets, delays them a little, drops late ones and
//! reports losses.
//!
//! The delay adapts to the network. A late packet increases it, several seconds without one
//! decrease it. If packets pile up beyond the delay, because the peer's clock is fast or a burst
//! followed a stall, one packet is dropped, preferably a quiet one. The buffer takes packets in,
//! gives packets out, and is advanced every 20 ms. `tap_reader` decodes what comes out, `bridge`
//! forwards it.

use std::collections::VecDeque;

use super::prompt::Frame;

/// Packets to buffer before the first one is released: 40 ms on a good network, 160 ms on the
/// worst.
const PATIENCE: usize = 2;
const PATIENCE_MAX: usize = 8;
/// Extra steps after which packets are released even if there are fewer.
const ALONE: usize = 1;
/// Capacity in packets. Beyond it the oldest are dropped, because a full buffer is delay.
const WAITING_MAX: usize = 12;
/// Steps (4 s) over which the delay is evaluated.
const WINDOW: u16 = 200;
/// Packets of at most this many bytes count as quiet.
const QUIET_BYTES: usize = 16;
/// Duration of 20 ms on the RTP clock of Opus, 48 kHz (RFC 7587). Most packets last that long.
pub(super) const PACKET_TICKS: u32 = 960;
/// Longest gap that is reported as a loss, in RTP ticks: 100 ms. A longer gap is a pause.
const LOSS_MAX: u32 = 4_800;
/// Duration of the longest Opus packet in RTP ticks: 120 ms (RFC 6716 §3.2.5).
const PACKET_MAX: u32 = 5_760;

/// A packet received from the peer.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    pub(super) ssrc: u32,
    /// Extended sequence number; it does not wrap.
    pub(super) sequence: u64,
    pub(super) timestamp: u32,
    pub(super) payload: Frame,
}

/// A packet released by the jitter buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Passed {
    pub(super) payload: Frame,
    /// Duration in RTP ticks.
    pub(super) ticks: u32,
    /// What was lost before it: RTP ticks and packets.
    pub(super) lost: (u32, u64),
}

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Inlet {
    waiting: VecDeque<(Heard, u32)>,
    /// Whether packets are being released. Otherwise the buffer is filling.
    flowing: bool,
    /// Steps since the first packet of this filling phase.
    waited: usize,
    last: Option<Last>,
    /// Current delay in packets.
    patience: usize,
    /// Whether the buffer ran dry since it last started to fill.
    /// Whether the delay was already increased since then.
    dry: bool,
    grown: bool,
    window: Window,
}

/// Observations for the adaptation of the delay.
#[derive(Clone, Copy, Debug)]
struct Window {
    steps: u16,
    /// Lowest fill level in packets.
    fewest: usize,
    late: bool,
    /// Set if one packet is to be dropped: steps left in which to wait for a quiet one.
    shed: Option<u16>,
}

impl Window {
    const NEW: Self = Self { steps: 0, fewest: usize::MAX, late: false, shed: None };
}

impl Default for Inlet {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            flowing: false,
            waited: 0,
            last: None,
            patience: PATIENCE,
            dry: false,
            grown: false,
            window: Window::NEW,
        }
    }
}

/// The packet released last.
#[derive(Clone, Copy, Debug)]
struct Last {
    ssrc: u32,
    sequence: u64,
    /// Timestamp at its end.
    end: u32,
    ticks: u32,
}

impl Inlet {
    pub(super) fn add(&mut self, heard: Heard) {
        let Some(ticks) = ticks_of(&heard.payload) else { return };
        if let Some(last) = self.last.filter(|last| last.ssrc == heard.ssrc) {
            let passed_over = heard.sequence <= last.sequence;
            // The packet directly after the last one, which had been released long before.
            let awaited = heard.sequence == last.sequence + 1 && heard.timestamp == last.end;
            if passed_over || (self.dry && awaited) {
                self.was_late();
            }
            if passed_over {
                return;
            }
        }
        // Search from the back, because packets usually arrive in order.
        let behind = |other: &Heard| other.ssrc == heard.ssrc && other.sequence > heard.sequence;
        let at = self.waiting.iter().rposition(|(other, _)| !behind(other)).map_or(0, |at| at + 1);
        self.waiting.insert(at, (heard, ticks));
        while self.waiting.len() > WAITING_MAX {
            self.waiting.pop_front();
        }
    }

    /// Notes that a packet arrived after its time.
    fn was_late(&mut self) {
        self.window.late = true;
        if !std::mem::replace(&mut self.grown, true) {
            self.patience = (self.patience + 1).min(PATIENCE_MAX);
        }
    }

    /// Advances the buffer by one 20 ms step.
    pub(super) fn step(&mut self) {
        if self.flowing {
            self.look_back();
        } else if self.waiting.is_empty() {
            self.waited = 0;
        } else {
            self.waited += 1;
            self.flowing =
                self.waiting.len() >= self.patience || self.waited > self.patience + ALONE;
            if self.flowing {
                (self.waited, self.dry, self.grown) = (0, false, false);
                self.window = Window::NEW;
            }
        }
    }

    /// Evaluates the fill level.
    fn look_back(&mut self) {
        self.window.fewest = self.window.fewest.min(self.waiting.len());
        self.window.steps += 1;
        if let Some(left) = self.window.shed {
            let quiet =
                self.waiting.front().is_some_and(|(heard, _)| heard.payload.len() <= QUIET_BYTES);
            self.window.shed = Some(left.saturating_sub(1));
            if quiet || left == 0 {
                // Dropped as if it had been released, so that it does not count as lost.
                let _ = self.take();
                self.window.shed = None;
            }
        }
        if self.window.steps == WINDOW {
            if !self.window.late && self.patience > PATIENCE {
                self.patience -= 1;
            }
            let shed = (self.window.fewest > self.patience).then_some(WINDOW / 2);
            self.window = Window { shed, ..Window::NEW };
            self.grown = false;
        }
    }

    /// Buffered audio in RTP ticks, or `None` while the buffer is filling.
    pub(super) fn waiting(&self) -> Option<u32> {
        self.flowing.then(|| self.waiting.iter().map(|(_, ticks)| ticks).sum())
    }

    /// Current delay in RTP ticks.
    pub(super) fn patience(&self) -> u32 {
        let packet = self.last.map_or(0, |last| last.ticks);
        packet.saturating_mul(u32::try_from(self.patience).unwrap_or(u32::MAX))
    }

    /// Releases what is buffered without further delay.
    pub(super) fn begin(&mut self) {
        self.flowing = !self.waiting.is_empty();
        self.dry = false;
    }

    /// Returns the next packet, or `None` if the buffer is empty or filling.
    pub(super) fn next(&mut self) -> Option<Passed> {
        if !self.flowing {
            return None;
        }
        let next = self.take();
        if next.is_none() {
            self.flowing = false;
            self.dry = true;
        }
        next
    }

    fn take(&mut self) -> Option<Passed> {
        let (heard, ticks) = self.waiting.pop_front()?;
        let lost = self.last.filter(|last| last.ssrc == heard.ssrc).map_or((0, 0), |last| {
            let gap = heard.timestamp.wrapping_sub(last.end);
            let packets = heard.sequence.saturating_sub(last.sequence).saturating_sub(1);
            let is_loss =
                packets > 0 && gap > 0 && gap <= LOSS_MAX && gap.is_multiple_of(last.ticks);
            if is_loss { (gap, u64::from(gap / last.ticks)) } else { (0, 0) }
        });
        let end = heard.timestamp.wrapping_add(ticks);
        self.last = Some(Last { ssrc: heard.ssrc, sequence: heard.sequence, end, ticks });
        Some(Passed { payload: heard.payload, ticks, lost })
    }
}

/// Duration of an Opus packet in RTP ticks, from its first bytes (RFC 6716 §3.1, §3.2). `None` if
/// it is not a valid packet.
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

    /// A 20 ms packet (wideband SILK) with its number in the payload.
    fn packet(sequence: u64) -> Heard {
        let number = u8::try_from(sequence % 256).unwrap();
        let timestamp = u32::try_from(sequence * 960 % (1 << 32)).unwrap();
        Heard { ssrc: 7, sequence, timestamp, payload: [9 << 3, number].into() }
    }

    /// Runs one step with these arrivals; returns the number of the released packet and the packets
    /// lost before it.
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
        assert_eq!(step(&mut inlet, &[14]), None, "patience again, and more of it");
        assert_eq!(
            [(); 4].map(|()| step(&mut inlet, &[])),
            [None, None, None, Some((14, 0))],
            "it is not kept for ever"
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
        let mut inlet = Inlet::default();
        let mut coming: Vec<(u64, u64)> =
            (0..packets).filter_map(|n| Some(((n as f64 * every) as u64 + delay(n)?, n))).collect();
        coming.sort_unstable();
        let mut coming = coming.into_iter().peekable();
        let mut passed = Vec::new();
        for now in (0..(packets as f64 * every) as u64).step_by(20) {
            while let Some((_, n)) = coming.next_if(|(at, _)| *at <= now) {
                inlet.add(packet(n));
            }
            inlet.step();
            let next = inlet.next().is_some();
            let last = inlet.last.filter(|_| next).map(|last| last.sequence);
            passed.push((last, inlet.waiting.len()));
        }
        passed
    }

    /// A deterministic pseudo-random delay.
    fn varied(n: u64, most: u64) -> u64 {
        (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) % (most + 1)
    }

    fn dry(passed: &[(Option<u64>, usize)]) -> usize {
        passed.iter().filter(|(sequence, _)| sequence.is_none()).count()
    }

    #[test]
    fn patience_grows_with_a_restless_network_and_goes_again() {
        let restless = run(1_500, 20.0, |n| Some(varied(n, 90)));
        assert!(
            dry(&restless[500..]) <= 10,
            "{} of 1,000 steps without a packet",
            dry(&restless[500..])
        );
        let calm = run(4_000, 20.0, |n| Some(if n < 500 { varied(n, 90) } else { 5 }));
        assert_eq!(dry(&calm[600..]), 0);
        assert!(
            calm[3_900..].iter().all(|(_, waiting)| *waiting <= 2),
            "the delay has gone: {:?}",
            calm.last()
        );
        let steady = run(1_000, 20.0, |n| Some(varied(n, 15)));
        assert!(dry(&steady) <= 4 && steady.iter().all(|(_, waiting)| *waiting <= 3));
    }

    #[test]
    fn a_faster_clock_and_a_stall_leave_no_lasting_delay() {
        let faster = run(10_000, 19.98, |_| Some(5));
        assert!(
            faster.iter().all(|(_, waiting)| *waiting <= 4),
            "{:?}",
            faster.iter().map(|p| p.1).max()
        );
        assert!(dry(&faster) <= 2);
        let slower = run(10_000, 20.02, |_| Some(5));
        assert!(dry(&slower) <= 40, "{}", dry(&slower));
        let stalled =
            run(3_000, 20.0, |n| Some(if (100..110).contains(&n) { (110 - n) * 20 } else { 5 }));
        assert!(stalled[2_900..].iter().all(|(_, waiting)| *waiting <= 2), "{:?}", stalled.last());
    }

    #[test]
    fn a_third_lost_is_passed_on_in_order_and_told() {
        let passed = run(1_000, 20.0, |n| (varied(n, 9) > 2).then_some(varied(n + 7, 30)));
        let sequences: Vec<u64> = passed.iter().filter_map(|(sequence, _)| *sequence).collect();
        assert!(sequences.is_sorted() && sequences.len() > 600, "{}", sequences.len());
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
