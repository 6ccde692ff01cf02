//! Detection of the peer's voice, or of a beep, on one leg. A detector exists only while it is
//! needed.
//!
//! `voice` and `beep` classify 20 ms frames of decoded audio. The results are events about whole
//! utterances, not about frames.

use std::time::{Duration, Instant};

use super::beep::BeepDetector;
use super::voice::VoiceDetector;
use crate::opus::{Decoder, Rate};
use crate::snapshot::{Offset, TimeBase};
use machine::VoiceEvent;
use serde::{Deserialize, Serialize};
use xml::ast::Beep;

/// Maximum length of a pause within speech.
const PAUSE: Duration = Duration::from_millis(300);

/// Time without a packet after which the peer counts as silent.
const SILENCE_AFTER: Duration = Duration::from_millis(60);
const FRAME: Duration = Duration::from_millis(20);

/// Decodes a leg's audio and detects voice and beeps in it.
pub(super) struct AudioDetector {
    decoder: Decoder,
    pcm: Vec<i16>,
    /// The state of voice detection. `None` while it is off.
    voice: Option<VoiceState>,
    beep: Option<BeepDetector>,
    /// End of the audio processed so far.
    processed_until: Option<Instant>,
}

#[derive(Default)]
struct VoiceState {
    detector: VoiceDetector,
    /// Time of the last voice, while the peer is speaking.
    last_voice: Option<Instant>,
}

/// The state of an [`AudioDetector`] in the snapshot of a leg. Decoder and detectors are made anew.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct AudioDetectorState {
    voice: bool,
    /// Time of the last voice, if its start was reported and its end was not.
    last_voice: Option<Offset>,
    beep: Option<Beep>,
    processed_until: Option<Offset>,
}

impl AudioDetector {
    pub(super) fn snapshot(&self, base: TimeBase) -> AudioDetectorState {
        let last_voice = self.voice.as_ref().and_then(|voice| voice.last_voice);
        AudioDetectorState {
            voice: self.voice.is_some(),
            last_voice: last_voice.map(|at| base.offset(at)),
            beep: self.beep.as_ref().map(BeepDetector::settings),
            processed_until: self.processed_until.map(|at| base.offset(at)),
        }
    }

    pub(super) fn restore(state: AudioDetectorState, base: TimeBase) -> Self {
        let last_voice = state.last_voice.map(|at| base.at(at));
        Self {
            voice: state.voice.then(|| VoiceState { last_voice, ..VoiceState::default() }),
            beep: state.beep.map(BeepDetector::new),
            processed_until: state.processed_until.map(|at| base.at(at)),
            ..Self::new()
        }
    }

    pub(super) fn new() -> Self {
        Self {
            decoder: Decoder::new(Rate::Hz16000),
            pcm: Vec::new(),
            voice: None,
            beep: None,
            processed_until: None,
        }
    }

    /// Turns voice detection on or off.
    pub(super) fn detect_voice(&mut self, on: bool) {
        match on {
            true => drop(self.voice.get_or_insert_default()),
            false => self.voice = None,
        }
    }

    /// Starts or stops waiting for a beep. It is reported once.
    pub(super) fn detect_beep(&mut self, settings: Option<Beep>) {
        self.beep = settings.map(BeepDetector::new);
    }

    /// Returns whether anything is being detected.
    pub(super) fn is_active(&self) -> bool {
        self.voice.is_some() || self.beep.is_some()
    }

    /// Processes an Opus packet. An invalid packet is ignored.
    pub(super) fn push_packet(&mut self, now: Instant, data: &[u8]) -> [Option<VoiceEvent>; 2] {
        self.pcm.clear();
        if self.decoder.decode(Some(data), false, &mut self.pcm).is_err() {
            return [None; 2];
        }
        self.processed_until = Some(now);
        let (mut voiced, mut beeped) = (false, false);
        for frame in self.pcm.chunks(Rate::Hz16000.frame()) {
            voiced = self.voice.as_mut().is_some_and(|voice| voice.detector.push(frame));
            beeped |= self.beep.as_mut().is_some_and(|beep| beep.push(frame));
        }
        let voice = self.voice.as_mut().filter(|_| voiced);
        let began = voice.is_some_and(|voice| voice.last_voice.replace(now).is_none());
        [began.then_some(VoiceEvent::Began), self.take_beep(beeped)]
    }

    /// Advances the time. Reports the end of speech, or a beep that is followed by no packet.
    pub(super) fn tick(&mut self, now: Instant) -> [Option<VoiceEvent>; 2] {
        let mut beeped = false;
        if let (Some(processed_until), Some(beep)) = (&mut self.processed_until, &mut self.beep) {
            // A silent peer may send nothing at all, so missing packets count as silence.
            while now.saturating_duration_since(*processed_until) >= SILENCE_AFTER {
                beeped |= beep.push(&[]);
                *processed_until += FRAME;
            }
        }
        [self.voice.as_mut().and_then(|voice| voice.tick(now)), self.take_beep(beeped)]
    }

    fn take_beep(&mut self, beeped: bool) -> Option<VoiceEvent> {
        self.beep.take_if(|_| beeped).map(|_| VoiceEvent::Beep)
    }
}

impl VoiceState {
    fn tick(&mut self, now: Instant) -> Option<VoiceEvent> {
        let silence = now.saturating_duration_since(self.last_voice?);
        if silence < PAUSE {
            return None;
        }
        self.last_voice = None;
        self.detector.reset();
        Some(VoiceEvent::Ended { ago_ms: u64::try_from(silence.as_millis()).unwrap_or(u64::MAX) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::opus::Encoder;
    use crate::test_peer::now;

    /// Feeds `packets` 20 ms packets of a waveform to the detector; returns the events with their
    /// times in milliseconds.
    fn feed(
        detector: &mut AudioDetector,
        start: Instant,
        packets: u64,
        sound: impl Fn(usize) -> f32,
    ) -> Vec<(u64, VoiceEvent)> {
        let mut encoder = Encoder::for_prompts();
        let mut events = Vec::new();
        for n in 0..packets {
            let now = start + Duration::from_millis(n * 20);
            let pcm: [i16; Rate::Hz16000.frame()] = std::array::from_fn(|i| {
                (sound(n as usize * Rate::Hz16000.frame() + i) * 32_767.0) as i16
            });
            let data = encoder.encode(&pcm);
            events.extend(
                detector.push_packet(now, &data).into_iter().flatten().map(|voice| (n * 20, voice)),
            );
            events.extend(detector.tick(now).into_iter().flatten().map(|voice| (n * 20, voice)));
        }
        events
    }

    fn voice_detector() -> AudioDetector {
        let mut detector = AudioDetector::new();
        detector.detect_voice(true);
        detector
    }

    fn tone(at: usize, hz: f32, level: f32) -> f32 {
        (at as f32 * hz * std::f32::consts::TAU / 16_000.0).sin() * level
    }

    /// Syllables: 160 ms of a buzz, 100 ms of a murmur.
    fn speech(at: usize) -> f32 {
        let level = if at % 4_160 < 2_560 { 0.1 } else { 0.004 };
        (1..6).map(|k| tone(at, 140.0 * k as f32, level / k as f32)).sum()
    }

    #[test]
    fn reports_one_start_and_end_per_sentence() {
        let (mut detector, start) = (voice_detector(), now());
        assert!(feed(&mut detector, start, 50, |at| tone(at, 50.0, 0.001)).is_empty(), "hum");
        let events = feed(&mut detector, start + Duration::from_secs(1), 100, speech);
        assert!(matches!(events.as_slice(), [(40..=160, VoiceEvent::Began)]), "{events:?}");
        let after = feed(&mut detector, start + Duration::from_secs(3), 50, |_| 0.0);
        let [(at, VoiceEvent::Ended { ago_ms })] = after.as_slice() else { panic!("{after:?}") };
        assert!((300..=340).contains(ago_ms) && at.abs_diff(*ago_ms) <= 140, "{after:?}");
    }

    #[test]
    fn speech_ends_when_packets_stop() {
        let (mut detector, start) = (voice_detector(), now());
        assert_eq!(feed(&mut detector, start, 50, speech).len(), 1);
        let last = start + Duration::from_millis(980);
        assert_eq!(detector.tick(last + Duration::from_millis(200)), [None; 2]);
        assert!(matches!(
            detector.tick(last + Duration::from_millis(400)),
            [Some(VoiceEvent::Ended { .. }), None]
        ));
        assert_eq!(detector.tick(last + Duration::from_secs(9)), [None; 2], "reported once");
    }

    #[test]
    fn ignores_clicks_steady_noise_and_garbage() {
        let (mut detector, start) = (voice_detector(), now());
        let click = |at: usize| if at % 8_000 < 40 { 0.5 } else { 0.0 };
        assert!(feed(&mut detector, start, 100, click).is_empty());
        assert_eq!(detector.push_packet(start, &[]), [None; 2]);
        assert_eq!(detector.push_packet(start, &[0xff; 7]), [None; 2]);
        // A hum counts as voice at first, until the noise floor has followed it.
        let hum =
            feed(&mut detector, start + Duration::from_secs(2), 600, |at| tone(at, 100.0, 0.02));
        assert!(
            hum.last().is_none_or(|(_, voice)| matches!(voice, VoiceEvent::Ended { .. })),
            "{hum:?}"
        );
    }

    #[test]
    fn detects_a_beep_through_the_codec_even_if_packets_stop() {
        for trailing in [50, 0] {
            let (mut detector, start) = (AudioDetector::new(), now());
            detector.detect_beep(Some(Beep::default()));
            assert!(feed(&mut detector, start, 100, speech).is_empty(), "words");
            let beep = feed(&mut detector, start + Duration::from_secs(2), 25, |at| {
                tone(at, 1_000.0, 0.3)
            });
            assert!(beep.is_empty(), "the beep has not ended: {beep:?}");
            let mut after =
                feed(&mut detector, start + Duration::from_millis(2_500), trailing, |_| 0.0);
            let over = start + Duration::from_secs(4);
            after.extend(detector.tick(over).into_iter().flatten().map(|voice| (1_500, voice)));
            assert!(matches!(after.as_slice(), [(_, VoiceEvent::Beep)]), "{trailing}: {after:?}");
            assert!(!detector.is_active(), "reported once");
        }
    }

    /// How a sender treats digital silence.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Sender {
        Continuous,
        /// It sends a packet every 400 ms (DTX).
        Dtx,
        /// It sends nothing.
        Quiet,
    }

    /// Whether the detector reports exactly one beep for a tone between stretches of silence, with
    /// white noise of this amplitude all the time.
    fn hears_beep(hz: f32, ms: usize, amplitude: f32, noise: f32, sender: Sender) -> bool {
        let (mut detector, start) = (AudioDetector::new(), now());
        detector.detect_beep(Some(Beep::default()));
        let mut encoder = Encoder::for_prompts();
        let (from, until) = (6_500, 6_500 + ms * 16);
        let (mut random, mut beeps, mut silent) = (1_u32, 0, 0);
        for n in 0..(until + 8_000) / Rate::Hz16000.frame() {
            let at = start + Duration::from_millis(n as u64 * 20);
            let pcm: [i16; Rate::Hz16000.frame()] = std::array::from_fn(|i| {
                let i = n * Rate::Hz16000.frame() + i;
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let noise = (random as f32 / 2.0_f32.powi(31) - 1.0) * noise;
                let tone = if (from..until).contains(&i) { tone(i, hz, amplitude) } else { 0.0 };
                (tone + noise) as i16
            });
            silent = if pcm == [0; Rate::Hz16000.frame()] { silent + 1 } else { 0 };
            let is_sent = match sender {
                Sender::Continuous => true,
                Sender::Dtx => silent < 2 || silent % 20 == 0,
                Sender::Quiet => silent == 0,
            };
            if is_sent {
                beeps += detector.push_packet(at, &encoder.encode(&pcm)).iter().flatten().count();
            }
            beeps += detector.tick(at).iter().flatten().count();
        }
        beeps == 1
    }

    #[test]
    fn detects_clean_beeps_between_digital_silence() {
        let mut missed = Vec::new();
        for hz in [400.0, 440.0, 800.0, 850.0, 1_000.0, 1_004.0, 1_400.0, 2_000.0] {
            for (ms, amplitude) in
                [350, 500, 1_000].into_iter().flat_map(|ms| [(ms, 2_000.0), (ms, 16_000.0)])
            {
                for (noise, sender) in [
                    (0.0, Sender::Continuous),
                    (0.0, Sender::Dtx),
                    (0.0, Sender::Quiet),
                    (30.0, Sender::Continuous),
                ] {
                    if !hears_beep(hz, ms, amplitude, noise, sender) {
                        missed.push((hz, ms, amplitude, noise, sender));
                    }
                }
            }
        }
        assert!(missed.is_empty(), "{missed:?}");
    }

    #[test]
    fn ignores_speech_and_music_through_the_codec() {
        let melody = |at: usize| -> f32 {
            let hz = [262.0, 330.0, 392.0, 523.0][at / 4_000 % 4];
            (1..5).map(|k| tone(at, hz * k as f32, 0.2 / k as f32)).sum()
        };
        for sound in [speech as fn(usize) -> f32, melody] {
            let (mut detector, start) = (AudioDetector::new(), now());
            detector.detect_beep(Some(Beep::default()));
            let until = 16_000 * 5;
            let detected =
                feed(&mut detector, start, 300, |at| if at < until { sound(at) } else { 0.0 });
            assert!(detected.is_empty(), "{detected:?}");
        }
    }
}
