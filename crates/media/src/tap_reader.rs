//! Reads a tap as PCM, 20 ms at a time, both directions aligned to the leg's clock.
//!
//! Packets pass a jitter buffer and are decoded. A lost packet is recovered from the redundancy of
//! the next one if there is any (RFC 6716 §2.1.7), otherwise it is concealed; after 80 ms there is
//! silence. A fast or slow clock of the peer is compensated (`drift`), so that both directions stay
//! aligned. Readers run on threads of their own, never on a shard.

use super::drift::{self, Correction, DriftEstimator};
use super::jitter_buffer::{JitterBuffer, PACKET_TICKS, PlayoutPacket};
use super::tap::{Tap, TapEntry};
use crate::opus::{Decoder, Rate};
use crate::prompt::Frame;

/// Maximum number of consecutive concealed frames.
const CONCEALED_FRAMES_MAX: u32 = 4;
/// Maximum buffered audio per direction in frames of 20 ms. The audio of a peer that sends more
/// than real time is cut.
const BUFFERED_FRAMES_MAX: usize = 12;

/// How received packets are buffered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buffering {
    /// Packets are not buffered. Each is returned when it arrives, at its own length, which gives
    /// the lowest delay.
    Immediate,
    /// Packets pass a jitter buffer. They are ordered and returned in frames of 20 ms, one per
    /// tick, with a delay of two packets.
    Jitter,
}

/// The next piece of audio, mono at the reader's rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AudioFrame<'a> {
    /// Audio from the peer: 20 ms, which are silence if nothing arrived. With
    /// [`Buffering::Immediate`], one packet (usually 20 ms), or empty.
    pub received: &'a [i16],
    /// Audio to the peer: 20 ms. Empty if the frame only returns a received packet.
    pub sent: &'a [i16],
    /// Whether `received` holds received audio and not silence for missing packets.
    pub has_audio: bool,
}

/// Reads a tap as PCM.
#[derive(Debug)]
pub struct TapReader {
    tap: Tap,
    rate: Rate,
    buffering: Buffering,
    buffer: JitterBuffer,
    drift: DriftEstimator,
    received: DirectionDecoder,
    sent: DirectionDecoder,
    /// The number of frames concealed since the last packet.
    concealed: u32,
    /// The number of silent frames that are returned next, in place of ticks that were left out.
    gap: u32,
    /// Buffers of the frame returned last: received, sent.
    current: (Vec<i16>, Vec<i16>),
}

/// One direction: its decoder, which is created on first use, and audio that has not been returned
/// yet.
#[derive(Debug, Default)]
struct DirectionDecoder {
    decoder: Option<Decoder>,
    pcm: Vec<i16>,
}

impl TapReader {
    /// Creates a reader that decodes to `rate`.
    pub fn new(tap: Tap, rate: Rate, buffering: Buffering) -> Self {
        Self {
            tap,
            rate,
            buffering,
            buffer: JitterBuffer::default(),
            drift: DriftEstimator::default(),
            received: DirectionDecoder::default(),
            sent: DirectionDecoder::default(),
            concealed: CONCEALED_FRAMES_MAX,
            gap: 0,
            current: (Vec::new(), Vec::new()),
        }
    }

    /// Returns the next frame, or `None` if none is available or the tap has ended
    /// ([`TapReader::is_over`]).
    #[expect(clippy::should_implement_trait, reason = "the frame borrows from the reader")]
    pub fn next(&mut self) -> Option<AudioFrame<'_>> {
        loop {
            if self.gap > 0 {
                self.gap -= 1;
                for silence in [&mut self.current.0, &mut self.current.1] {
                    silence.clear();
                    silence.resize(self.rate.frame(), 0);
                }
                return Some(AudioFrame {
                    received: &self.current.0,
                    sent: &self.current.1,
                    has_audio: false,
                });
            }
            match self.tap.next()? {
                TapEntry::Gap(ticks) => {
                    self.restart();
                    self.gap = ticks;
                }
                TapEntry::Received(received) => {
                    self.buffer.push(received);
                    if self.buffering == Buffering::Immediate {
                        self.drain_packets();
                        if !self.received.pcm.is_empty() {
                            self.current.0.clear();
                            self.current.0.append(&mut self.received.pcm);
                            self.current.1.clear();
                            return Some(AudioFrame {
                                received: &self.current.0,
                                sent: &[],
                                has_audio: true,
                            });
                        }
                    }
                }
                TapEntry::Sent(frame) => self.sent.decode(self.rate, &frame),
                TapEntry::Tick => {
                    let has_audio = match self.buffering {
                        Buffering::Immediate => {
                            self.current.0.clear();
                            false
                        }
                        Buffering::Jitter => self.tick(),
                    };
                    self.sent.take(self.rate.frame(), &mut self.current.1);
                    return Some(AudioFrame {
                        received: &self.current.0,
                        sent: &self.current.1,
                        has_audio,
                    });
                }
            }
        }
    }

    /// Discards all audio that has arrived, without decoding it. The next audio starts with new
    /// decoders.
    pub fn skip(&mut self) {
        let mut any = self.gap > 0;
        while self.tap.next().is_some() {
            any = true;
        }
        if any {
            self.restart();
        }
    }

    /// Continues with new decoders.
    fn restart(&mut self) {
        (self.buffer, self.drift) = (JitterBuffer::default(), DriftEstimator::default());
        (self.received, self.sent) = (DirectionDecoder::default(), DirectionDecoder::default());
        (self.concealed, self.gap) = (CONCEALED_FRAMES_MAX, 0);
    }

    /// Returns this number of silent frames before the audio.
    pub fn begin_with_silence(&mut self, frames: u32) {
        self.gap = frames;
    }

    /// Returns whether the leg has ended and all of its audio has been returned.
    pub fn is_over(&self) -> bool {
        self.tap.is_over()
    }

    /// Returns the number of entries that were dropped because they were not read in time.
    pub fn dropped(&self) -> u64 {
        self.tap.dropped()
    }

    /// Returns the sample rate of the frames.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Decodes all packets that have arrived, in order.
    fn drain_packets(&mut self) {
        self.buffer.start();
        while let Some(packet) = self.buffer.pop() {
            self.decode_packet(&packet);
        }
    }

    /// Prepares 20 ms of received audio. Returns whether any was received.
    fn tick(&mut self) -> bool {
        let frame = self.rate.frame();
        self.buffer.step();
        let correction = self.drift_correction();
        let mut has_audio = !self.received.pcm.is_empty();
        // Audio that is removed must be available in addition to the frame.
        let extra = if matches!(correction, Correction::Remove(_)) {
            drift::correction_max(self.rate)
        } else {
            0
        };
        while self.received.pcm.len() < frame
            || (self.received.pcm.len() < frame + extra
                && self.buffer.buffered_ticks().is_some_and(|ticks| ticks > 0))
        {
            let Some(packet) = self.buffer.pop() else { break };
            self.decode_packet(&packet);
            has_audio = true;
        }
        let available = self.received.pcm.len();
        match correction {
            Correction::Remove(most) if available > frame => {
                let most = most.min(available - frame);
                self.drift.apply(drift::shorten(&mut self.received.pcm, self.rate, most));
            }
            Correction::Insert(most) if available >= frame => {
                self.drift.apply(drift::lengthen(&mut self.received.pcm, self.rate, most));
            }
            Correction::None | Correction::Remove(_) | Correction::Insert(_) => {}
        }
        if self.received.pcm.len() < frame && self.concealed < CONCEALED_FRAMES_MAX {
            self.concealed += 1;
            self.received.conceal(self.rate);
        }
        self.received.take(frame, &mut self.current.0);
        has_audio
    }

    /// Determines the drift correction from the fill level.
    fn drift_correction(&mut self) -> Correction {
        let Some(ticks) = self.buffer.buffered_ticks() else {
            self.drift = DriftEstimator::default();
            return Correction::None;
        };
        let frame = self.rate.frame();
        let samples = |ticks| {
            usize::try_from(ticks).unwrap_or_default() * frame
                / usize::try_from(PACKET_TICKS).unwrap_or(1)
        };
        self.drift.observe(
            samples(ticks) + self.received.pcm.len(),
            frame,
            samples(self.buffer.delay_ticks()),
        )
    }

    /// Decodes a packet and conceals the losses before it.
    fn decode_packet(&mut self, packet: &PlayoutPacket) {
        // Losses that were concealed in time are not concealed again.
        let lost = (packet.lost.0 / PACKET_TICKS).saturating_sub(self.concealed);
        for n in (0..lost).rev() {
            if n == 0 {
                self.received.recover(self.rate, &packet.payload);
            } else {
                self.received.conceal(self.rate);
            }
        }
        self.concealed = 0;
        if packet.lost.1 > 0 {
            self.drift.note_loss();
        }
        self.received.decode(self.rate, &packet.payload);
    }
}

impl DirectionDecoder {
    fn decoder(&mut self, rate: Rate) -> (&mut Decoder, &mut Vec<i16>) {
        let newest = BUFFERED_FRAMES_MAX * rate.frame();
        if self.pcm.len() > newest {
            self.pcm.drain(..self.pcm.len() - newest);
        }
        (self.decoder.get_or_insert_with(|| Decoder::new(rate)), &mut self.pcm)
    }

    /// Decodes a packet. If it is invalid, conceals it.
    fn decode(&mut self, rate: Rate, packet: &Frame) {
        let (decoder, pcm) = self.decoder(rate);
        if decoder.decode(Some(packet), false, pcm).is_err() {
            self.conceal(rate);
        }
    }

    /// Recovers 20 ms of lost audio from the packet that follows.
    fn recover(&mut self, rate: Rate, after: &Frame) {
        let (decoder, pcm) = self.decoder(rate);
        if decoder.decode(Some(after), true, pcm).is_err() {
            self.conceal(rate);
        }
    }

    /// Conceals 20 ms.
    fn conceal(&mut self, rate: Rate) {
        let (decoder, pcm) = self.decoder(rate);
        // If the codec fails, the audio is silent.
        let _ = decoder.decode(None, false, pcm);
    }

    /// Moves `samples` samples into `current`, padded with silence.
    fn take(&mut self, samples: usize, current: &mut Vec<i16>) {
        current.clear();
        current.extend(self.pcm.drain(..samples.min(self.pcm.len())));
        current.resize(samples, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::jitter_buffer::InboundPacket;
    use super::super::tap::{TapEnd, TapEntry, TapSides, tap};
    use super::{Buffering, TapReader};
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

    fn received(end: &TapEnd, n: usize, payload: &Frame) {
        let sequence = 1_000 + n as u64;
        let received = InboundPacket {
            ssrc: 7,
            sequence,
            timestamp: n as u32 * 960,
            payload: payload.clone(),
        };
        assert!(end.push(&TapEntry::Received(received)));
    }

    /// Root mean square of the last 20 ms.
    fn level(pcm: &[i16]) -> f32 {
        let last = &pcm[pcm.len().saturating_sub(FRAME)..];
        (last.iter().map(|s| f32::from(*s).powi(2)).sum::<f32>() / last.len().max(1) as f32).sqrt()
    }

    #[test]
    fn returns_both_directions_per_tick_and_conceals_losses() {
        let (end, tap) = tap(TapSides::Both);
        let mut line = TapReader::new(tap, Rate::Hz16000, Buffering::Jitter);
        let packets = tone(400.0, 50);
        let mut quiet = 0;
        for (n, packet) in packets.iter().enumerate() {
            if n % 7 != 6 {
                received(&end, n, packet);
            }
            if n >= 25 {
                assert!(end.push(&TapEntry::Sent(packet.clone())));
            }
            assert!(end.push(&TapEntry::Tick));
            let audio = line.next().expect("a frame per tick");
            assert_eq!((audio.received.len(), audio.sent.len()), (FRAME, FRAME));
            quiet += usize::from(n > 5 && level(audio.received) < 2_000.0);
            if n != 25 {
                assert_eq!(level(audio.sent) > 1_000.0, n > 25, "packet {n}");
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
    fn conceals_the_loss_of_a_third() {
        let (end, tap) = tap(TapSides::Received);
        let mut line = TapReader::new(tap, Rate::Hz16000, Buffering::Jitter);
        let (mut quiet, mut jumps, mut before) = (0, 0, 0);
        for (n, packet) in tone(400.0, 500).iter().enumerate() {
            if n.wrapping_mul(0x9e37_79b9) >> 5 & 15 > 4 {
                received(&end, n, packet);
            }
            assert!(end.push(&TapEntry::Tick));
            let audio = line.next().expect("a tick");
            quiet += usize::from(level(audio.received) < 1_500.0);
            // A tone of that pitch and level changes by 1,300 per sample at most.
            for sample in audio.received {
                jumps += usize::from((i32::from(*sample) - before).abs() > 4_000);
                before = i32::from(*sample);
            }
        }
        assert!(quiet < 25, "{quiet} of 500 frames were quiet");
        assert!(jumps < 10, "{jumps} clicks in ten seconds");
    }

    /// Receives a minute of audio from a peer with a drifting clock (its 20 ms take `every_ms`),
    /// alternating between a second of voice and a second of silence. Returns the delay of each
    /// voice section in milliseconds, and the largest step between two samples.
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
        let arrival_ms = |n: usize| {
            let late = (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
            n as f64 * every_ms + 3.0 + (late % (jitter_ms + 1)) as f64
        };
        let mut arrivals: Vec<usize> = (0..packets.len()).collect();
        arrivals.sort_by(|a, b| arrival_ms(*a).total_cmp(&arrival_ms(*b)));
        let (end, tap) = tap(TapSides::Received);
        let mut line = TapReader::new(tap, Rate::Hz16000, Buffering::Jitter);
        let (mut output, mut arrivals) = (Vec::new(), arrivals.into_iter().peekable());
        for tick in 0..3_000_u32 {
            while let Some(n) = arrivals.next_if(|n| arrival_ms(*n) <= f64::from(tick * 20)) {
                received(&end, n, &packets[n]);
            }
            assert!(end.push(&TapEntry::Tick));
            output.extend_from_slice(line.next().expect("a frame per tick").received);
        }
        let mut waits = Vec::new();
        let (mut quiet, mut second) = (16_000, 0);
        for (at, sample) in output.iter().enumerate() {
            let is_loud = sample.unsigned_abs() > 1_000;
            if is_loud && quiet > 8_000 {
                // Opus itself delays by 6.5 ms.
                let begun_ms = (f64::from(second) * 2.0 + 1.0) * 50.0 * every_ms + 6.5;
                waits.push(at as f64 / 16.0 - begun_ms);
                second += 1;
            }
            quiet = if is_loud { 0 } else { quiet + 1 };
        }
        let steps = output.windows(2).map(|w| (i32::from(w[1]) - i32::from(w[0])).abs());
        (waits, steps.max().unwrap_or_default())
    }

    #[test]
    fn compensates_clock_drift_without_delay_or_clicks() {
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
        assert!(
            faults.is_empty(),
            "{faults:#?}; with equal clocks: {even:.0?}, steps of {largest}"
        );
    }

    #[test]
    fn returns_packets_on_arrival_without_buffering() {
        let (end, tap) = tap(TapSides::Received);
        let mut line = TapReader::new(tap, Rate::Hz8000, Buffering::Immediate);
        for (n, packet) in tone(400.0, 10).iter().enumerate() {
            received(&end, n, packet);
            let audio = line.next().expect("a frame on arrival");
            assert_eq!((audio.received.len(), audio.sent.len(), audio.has_audio), (160, 0, true));
        }
        end.push(&TapEntry::Tick);
        let audio = line.next().expect("the tick");
        assert_eq!((audio.received.len(), audio.has_audio), (0, false));
    }

    #[test]
    fn returns_silence_for_garbage_and_drops_the_newest_if_slow() {
        let (end, tap) = tap(TapSides::Received);
        let mut line = TapReader::new(tap, Rate::Hz16000, Buffering::Jitter);
        for n in 0..20 {
            received(&end, n, &Frame::from([0xff, 0xff, 0xff].as_slice()));
            received(&end, n, &Frame::from([].as_slice()));
            assert!(end.push(&TapEntry::Tick));
            let audio = line.next().expect("a tick");
            assert!(audio.received.len() == FRAME && level(audio.received) < 1.0);
        }
        (0..1_000).for_each(|_| assert!(end.push(&TapEntry::Tick)));
        assert_eq!(std::iter::from_fn(|| line.next().map(|_| ())).count(), 320);
        assert_eq!(line.dropped(), 680);
        drop(line);
        assert!(!end.push(&TapEntry::Tick), "the reader is gone");
    }
}
