//! Reads a tap as PCM, 20 ms at a time, both directions aligned to the leg's clock.
//!
//! Packets pass a jitter buffer and are decoded. A lost packet is recovered from the redundancy of
//! the next one if there is any (RFC 6716 §2.1.7), otherwise it is concealed; after 80 ms there is
//! silence. A fast or slow clock of the peer is compensated (`drift`), so that both directions stay
//! aligned. Readers run on threads of their own, never on a shard.

use super::drift::{self, Drift, Owed};
use super::inlet::{Inlet, PACKET_TICKS, Passed};
use super::tap::{Tap, Tapped};
use crate::opus::{Decoder, Rate};
use crate::prompt::Frame;

/// Maximum number of consecutive concealed frames.
const GUESSED_MAX: u32 = 4;
/// Maximum buffered audio per direction in frames of 20 ms. The audio of a peer that sends more
/// than real time is cut.
const BEHIND_MAX: usize = 12;

/// How received packets are buffered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// No buffering: a packet is returned when it arrives, at its own length. The lowest delay.
    None,
    /// A jitter buffer: packets are ordered and returned in frames of 20 ms, one per tick. Two
    /// packets of delay.
    Network,
}

/// The next piece of audio, mono at the reader's rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Twenty<'a> {
    /// Audio from the peer: 20 ms, silence if nothing arrived. With [`Buffering::Immediate`], one
    /// packet (20 ms usually), or empty.
    pub heard: &'a [i16],
    /// Audio to the peer: 20 ms. Empty if the frame only returns a received packet.
    pub sent: &'a [i16],
    /// Whether `received` holds received audio and not silence for missing packets.
    pub voiced: bool,
}

/// Reads a tap as PCM.
#[derive(Debug)]
pub struct Line {
    tap: Tap,
    rate: Rate,
    patience: Patience,
    inlet: Inlet,
    drift: Drift,
    heard: Side,
    sent: Side,
    /// Frames concealed since the last packet.
    guessed: u32,
    /// Buffers of the frame returned last: received, sent.
    piece: (Vec<i16>, Vec<i16>),
}

/// One direction: its decoder, created on first use, and audio that has not been returned yet.
#[derive(Debug, Default)]
struct Side {
    decoder: Option<Decoder>,
    pcm: Vec<i16>,
}

impl Line {
    /// Creates a reader that decodes to `rate`.
    pub fn new(tap: Tap, rate: Rate, patience: Patience) -> Self {
        Self {
            tap,
            rate,
            patience,
            inlet: Inlet::default(),
            drift: Drift::default(),
            heard: Side::default(),
            sent: Side::default(),
            guessed: GUESSED_MAX,
            piece: (Vec::new(), Vec::new()),
        }
    }

    /// Returns the next frame, or `None` if there is none yet or ever again
    /// ([`TapReader::is_over`]).
    #[expect(clippy::should_implement_trait, reason = "a piece is lent until the next one")]
    pub fn next(&mut self) -> Option<Twenty<'_>> {
        loop {
            match self.tap.next()? {
                Tapped::Heard(heard) => {
                    self.inlet.add(heard);
                    if self.patience == Patience::None {
                        self.take_at_once();
                        if !self.heard.pcm.is_empty() {
                            self.piece.0.clear();
                            self.piece.0.append(&mut self.heard.pcm);
                            self.piece.1.clear();
                            return Some(Twenty { heard: &self.piece.0, sent: &[], voiced: true });
                        }
                    }
                }
                Tapped::Sent(frame) => self.sent.decode(self.rate, &frame),
                Tapped::Tick => {
                    let voiced = match self.patience {
                        Patience::None => {
                            self.piece.0.clear();
                            false
                        }
                        Patience::Network => self.tick(),
                    };
                    self.sent.give(self.rate.frame(), &mut self.piece.1);
                    return Some(Twenty { heard: &self.piece.0, sent: &self.piece.1, voiced });
                }
            }
        }
    }

    /// Discards everything that has arrived without decoding it. The next audio starts with fresh
    /// decoders.
    pub fn pass_over(&mut self) {
        let mut came = false;
        while self.tap.next().is_some() {
            came = true;
        }
        if came {
            (self.inlet, self.drift) = (Inlet::default(), Drift::default());
            (self.heard, self.sent) = (Side::default(), Side::default());
            self.guessed = GUESSED_MAX;
        }
    }

    /// Returns whether the leg is gone and all of its audio has been returned.
    pub fn is_over(&self) -> bool {
        self.tap.is_over()
    }

    /// Number of entries that were dropped because they were not read in time.
    pub fn missed(&self) -> u64 {
        self.tap.missed()
    }

    /// The sample rate of the frames.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Decodes all packets that have arrived, in order.
    fn take_at_once(&mut self) {
        self.inlet.begin();
        while let Some(passed) = self.inlet.next() {
            self.take(&passed);
        }
    }

    /// Prepares 20 ms of received audio. Returns whether it contains any.
    fn tick(&mut self) -> bool {
        let frame = self.rate.frame();
        self.inlet.step();
        let owed = self.owed();
        let mut voiced = !self.heard.pcm.is_empty();
        // Audio that is removed must be available in addition to the frame.
        let spare = if matches!(owed, Owed::TakeOut(_)) { drift::longest(self.rate) } else { 0 };
        while self.heard.pcm.len() < frame
            || (self.heard.pcm.len() < frame + spare
                && self.inlet.waiting().is_some_and(|ticks| ticks > 0))
        {
            let Some(passed) = self.inlet.next() else { break };
            self.take(&passed);
            voiced = true;
        }
        let there = self.heard.pcm.len();
        match owed {
            Owed::TakeOut(most) if there > frame => {
                let most = most.min(there - frame);
                self.drift.done(drift::shorten(&mut self.heard.pcm, self.rate, most));
            }
            Owed::PutIn(most) if there >= frame => {
                self.drift.done(drift::lengthen(&mut self.heard.pcm, self.rate, most));
            }
            Owed::Nothing | Owed::TakeOut(_) | Owed::PutIn(_) => {}
        }
        if self.heard.pcm.len() < frame && self.guessed < GUESSED_MAX {
            self.guessed += 1;
            self.heard.guess(self.rate);
        }
        self.heard.give(frame, &mut self.piece.0);
        voiced
    }

    /// Determines the drift correction from the fill level.
    fn owed(&mut self) -> Owed {
        let Some(ticks) = self.inlet.waiting() else {
            self.drift = Drift::default();
            return Owed::Nothing;
        };
        let frame = self.rate.frame();
        let samples = |ticks| {
            usize::try_from(ticks).unwrap_or_default() * frame
                / usize::try_from(PACKET_TICKS).unwrap_or(1)
        };
        self.drift.step(
            samples(ticks) + self.heard.pcm.len(),
            frame,
            samples(self.inlet.patience()),
        )
    }

    /// Decodes a packet and conceals the losses before it.
    fn take(&mut self, passed: &Passed) {
        // Losses that were concealed in time are not concealed again.
        let lost = (passed.lost.0 / PACKET_TICKS).saturating_sub(self.guessed);
        for n in (0..lost).rev() {
            if n == 0 {
                self.heard.recover(self.rate, &passed.payload);
            } else {
                self.heard.guess(self.rate);
            }
        }
        self.guessed = 0;
        if passed.lost.1 > 0 {
            self.drift.disturbed();
        }
        self.heard.decode(self.rate, &passed.payload);
    }
}

impl Side {
    fn decoder(&mut self, rate: Rate) -> (&mut Decoder, &mut Vec<i16>) {
        let newest = BEHIND_MAX * rate.frame();
        if self.pcm.len() > newest {
            self.pcm.drain(..self.pcm.len() - newest);
        }
        (self.decoder.get_or_insert_with(|| Decoder::new(rate)), &mut self.pcm)
    }

    /// Decodes a packet. An invalid one is concealed.
    fn decode(&mut self, rate: Rate, packet: &Frame) {
        let (decoder, pcm) = self.decoder(rate);
        if decoder.decode(Some(packet), false, pcm).is_err() {
            self.guess(rate);
        }
    }

    /// Recovers 20 ms that were lost from the packet after them.
    fn recover(&mut self, rate: Rate, after: &Frame) {
        let (decoder, pcm) = self.decoder(rate);
        if decoder.decode(Some(after), true, pcm).is_err() {
            self.guess(rate);
        }
    }

    /// Conceals 20 ms.
    fn guess(&mut self, rate: Rate) {
        let (decoder, pcm) = self.decoder(rate);
        // Without a guess there is silence.
        let _ = decoder.decode(None, false, pcm);
    }

    /// Moves `samples` samples into `piece`, padded with silence.
    fn give(&mut self, samples: usize, piece: &mut Vec<i16>) {
        piece.clear();
        piece.extend(self.pcm.drain(..samples.min(self.pcm.len())));
        piece.resize(samples, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::inlet::Heard;
    use super::super::tap::{Sides, TapEnd, Tapped, tap};
    use super::{Line, Patience};
    use crate::opus::{Encoder, Rate};
    use crate::prompt::Frame;

    const FRAME: usize = Rate::Hz16000.frame();

    /// Packets of a tone, 20 ms each.
    fn tone(hz: f32, packets: usize) -> Vec<Frame> {
        let mut encoder = Encoder::for_prompts();
        let sample = |at: usize| {
            ((at as f32 * hz * std::f32::consts::TAU / 16_000.0).sin() * 8_000.0) as i16
        };
        (0..packets)
            .map(|n| {
                encoder.encode(&std::array::from_fn::<i16, FRAME, _>(|i| sample(n * FRAME + i)))
            })
            .collect()
    }

    fn heard(end: &TapEnd, n: usize, payload: &Frame) {
        let sequence = 1_000 + n as u64;
        let heard =
            Heard { ssrc: 7, sequence, timestamp: n as u32 * 960, payload: payload.clone() };
        assert!(end.pass(&Tapped::Heard(heard)));
    }

    /// Root mean square of the last 20 ms.
    fn level(pcm: &[i16]) -> f32 {
        let last = &pcm[pcm.len().saturating_sub(FRAME)..];
        (last.iter().map(|s| f32::from(*s).powi(2)).sum::<f32>() / last.len().max(1) as f32).sqrt()
    }

    #[test]
    fn both_sides_are_given_by_the_tick_and_a_loss_is_made_up_for() {
        let (end, tap) = tap(Sides::Both);
        let mut line = Line::new(tap, Rate::Hz16000, Patience::Network);
        let packets = tone(400.0, 50);
        let mut quiet = 0;
        for (n, packet) in packets.iter().enumerate() {
            if n % 7 != 6 {
                heard(&end, n, packet);
            }
            if n >= 25 {
                assert!(end.pass(&Tapped::Sent(packet.clone())));
            }
            assert!(end.pass(&Tapped::Tick));
            let twenty = line.next().expect("a tick is a piece");
            assert_eq!((twenty.heard.len(), twenty.sent.len()), (FRAME, FRAME));
            quiet += usize::from(n > 5 && level(twenty.heard) < 2_000.0);
            if n != 25 {
                assert_eq!(level(twenty.sent) > 1_000.0, n > 25, "packet {n}");
            }
            assert!(line.next().is_none());
        }
        assert!(quiet <= 2, "{quiet} frames of a tone with losses were quiet");
        assert!(!line.is_over());
        drop(end);
        assert!(line.next().is_none());
        assert!(line.is_over());
    }

    #[test]
    fn a_third_of_the_packets_may_be_lost() {
        let (end, tap) = tap(Sides::Heard);
        let mut line = Line::new(tap, Rate::Hz16000, Patience::Network);
        let (mut quiet, mut jumps, mut before) = (0, 0, 0);
        for (n, packet) in tone(400.0, 500).iter().enumerate() {
            if n.wrapping_mul(0x9e37_79b9) >> 5 & 15 > 4 {
                heard(&end, n, packet);
            }
            assert!(end.pass(&Tapped::Tick));
            let twenty = line.next().expect("a tick");
            quiet += usize::from(level(twenty.heard) < 1_500.0);
            // A tone of that pitch and level changes by 1,300 per sample at most.
            for sample in twenty.heard {
                jumps += usize::from((i32::from(*sample) - before).abs() > 4_000);
                before = i32::from(*sample);
            }
        }
        assert!(quiet < 25, "{quiet} of 500 frames were quiet");
        assert!(jumps < 10, "{jumps} clicks in ten seconds");
    }

    /// Receives a minute from a peer whose clock is off (20 ms of it take `every_ms`): one second
    /// of voice, one of silence, alternating. Returns the delay of each voice section in
    /// milliseconds, and the largest step between two samples.
    fn drifting(every_ms: f64, jitter_ms: u64) -> (Vec<f64>, i32) {
        let voice = |at: usize| {
            let t = at as f32 / 16_000.0 * std::f32::consts::TAU;
            let loud = if at / 16_000 % 2 == 1 { 3_000.0 } else { 0.0 };
            ((1..7).map(|k| (t * 137.0 * k as f32).sin() / k as f32).sum::<f32>() * loud) as i16
        };
        let packets = (60_000.0 / every_ms) as usize;
        let mut encoder = Encoder::for_prompts();
        let packets: Vec<Frame> = (0..packets)
            .map(|n| {
                encoder.encode(&std::array::from_fn::<i16, FRAME, _>(|i| voice(n * FRAME + i)))
            })
            .collect();
        let comes_ms = |n: usize| {
            let late = (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
            n as f64 * every_ms + 3.0 + (late % (jitter_ms + 1)) as f64
        };
        let mut coming: Vec<usize> = (0..packets.len()).collect();
        coming.sort_by(|a, b| comes_ms(*a).total_cmp(&comes_ms(*b)));
        let (end, tap) = tap(Sides::Heard);
        let mut line = Line::new(tap, Rate::Hz16000, Patience::Network);
        let (mut said, mut coming) = (Vec::new(), coming.into_iter().peekable());
        for tick in 0..3_000_u32 {
            while let Some(n) = coming.next_if(|n| comes_ms(*n) <= f64::from(tick * 20)) {
                heard(&end, n, &packets[n]);
            }
            assert!(end.pass(&Tapped::Tick));
            said.extend_from_slice(line.next().expect("a tick is a piece").heard);
        }
        let mut waits = Vec::new();
        let (mut quiet, mut second) = (16_000, 0);
        for (at, sample) in said.iter().enumerate() {
            let is_loud = sample.unsigned_abs() > 1_000;
            if is_loud && quiet > 8_000 {
                // Opus itself delays by 6.5 ms.
                let begun_ms = (f64::from(second) * 2.0 + 1.0) * 50.0 * every_ms + 6.5;
                waits.push(at as f64 / 16.0 - begun_ms);
                second += 1;
            }
            quiet = if is_loud { 0 } else { quiet + 1 };
        }
        let steps = said.windows(2).map(|w| (i32::from(w[1]) - i32::from(w[0])).abs());
        (waits, steps.max().unwrap_or_default())
    }

    #[test]
    fn a_clock_that_is_not_ours_makes_nothing_lag_and_nothing_click() {
        let (even, largest) = drifting(20.0, 0);
        let mut faults = Vec::new();
        for (every_ms, jitter_ms) in
            [(20.0 / 1.01, 0), (20.0 / 0.99, 0), (20.0 / 1.01, 12), (20.0 / 0.99, 12)]
        {
            let (waits, step) = drifting(every_ms, jitter_ms);
            let most = waits.iter().fold(0.0_f64, |most, ms| most.max(*ms));
            // The network's jitter adds to the delay.
            if waits.len() < 29 || most > 60.0 + jitter_ms as f64 || step > largest * 5 / 4 {
                faults.push(format!(
                    "20 ms in {every_ms:.1} ± {jitter_ms}: {waits:.0?}, steps of {step}"
                ));
            }
        }
        assert!(faults.is_empty(), "{faults:#?}; an even clock: {even:.0?}, steps of {largest}");
    }

    #[test]
    fn without_patience_a_packet_is_given_as_it_comes() {
        let (end, tap) = tap(Sides::Heard);
        let mut line = Line::new(tap, Rate::Hz8000, Patience::None);
        for (n, packet) in tone(400.0, 10).iter().enumerate() {
            heard(&end, n, packet);
            let twenty = line.next().expect("at once");
            assert_eq!((twenty.heard.len(), twenty.sent.len(), twenty.voiced), (160, 0, true));
        }
        end.pass(&Tapped::Tick);
        let twenty = line.next().expect("the tick");
        assert_eq!((twenty.heard.len(), twenty.voiced), (0, false));
    }

    #[test]
    fn silence_and_garbage_are_silence_and_a_slow_reader_loses_the_newest() {
        let (end, tap) = tap(Sides::Heard);
        let mut line = Line::new(tap, Rate::Hz16000, Patience::Network);
        for n in 0..20 {
            heard(&end, n, &Frame::from([0xff, 0xff, 0xff].as_slice()));
            heard(&end, n, &Frame::from([].as_slice()));
            assert!(end.pass(&Tapped::Tick));
            let twenty = line.next().expect("a tick");
            assert!(twenty.heard.len() == FRAME && level(twenty.heard) < 1.0);
        }
        (0..1_000).for_each(|_| assert!(end.pass(&Tapped::Tick)));
        assert_eq!(std::iter::from_fn(|| line.next().map(|_| ())).count(), 320);
        assert_eq!(line.missed(), 680);
        drop(line);
        assert!(!end.pass(&Tapped::Tick), "nobody reads");
    }
}
