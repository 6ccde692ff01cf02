//! Whether the peer is speaking: a leg's ear, there only while somebody listens.
//!
//! What is voice `voice` judges, over 20 ms frames of the decoded sound; told as two events, so that a call logs a
//! sentence and not its frames.

use std::time::{Duration, Instant};

use super::voice::Judge;
use crate::call::machine::Voice;
use crate::ffi::opus::{Decoder, Rate};

/// Pauses shorter than this are part of speech.
const PAUSE: Duration = Duration::from_millis(300);

/// Listens.
pub(super) struct Ear {
    decoder: Decoder,
    pcm: Vec<i16>,
    judge: Judge,
    /// When voice was heard last, while there is some.
    voice: Option<Instant>,
}

impl Ear {
    pub(super) fn new() -> Self {
        Self { decoder: Decoder::new(Rate::Hz16000), pcm: Vec::new(), judge: Judge::default(), voice: None }
    }

    /// Takes in an Opus packet; a broken one is as if it had not come.
    pub(super) fn packet(&mut self, now: Instant, packet: &[u8]) -> Option<Voice> {
        self.pcm.clear();
        self.decoder.decode(Some(packet), false, &mut self.pcm).ok()?;
        let mut speaks = false;
        for frame in self.pcm.chunks(Rate::Hz16000.frame()) {
            speaks = self.judge.hear(frame);
        }
        if !speaks {
            return None;
        }
        self.voice.replace(now).is_none().then_some(Voice::Began)
    }

    /// Time passes: whether the voice has gone.
    pub(super) fn tick(&mut self, now: Instant) -> Option<Voice> {
        let quiet = now.saturating_duration_since(self.voice?);
        if quiet < PAUSE {
            return None;
        }
        self.voice = None;
        self.judge.rest();
        Some(Voice::Ended { ago_ms: u64::try_from(quiet.as_millis()).unwrap_or(u64::MAX) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ffi::opus::Encoder;
    use crate::media::test_peer::now;

    /// What is told of so many 20 ms packets of a sound, with the time of each.
    fn told(ear: &mut Ear, start: Instant, packets: u64, sound: impl Fn(usize) -> f32) -> Vec<(u64, Voice)> {
        let mut encoder = Encoder::for_prompts();
        let mut events = Vec::new();
        for n in 0..packets {
            let now = start + Duration::from_millis(n * 20);
            let pcm: [i16; Rate::Hz16000.frame()] =
                std::array::from_fn(|i| (sound(n as usize * Rate::Hz16000.frame() + i) * 32_767.0) as i16);
            let packet = encoder.encode(&pcm);
            events.extend(ear.packet(now, &packet).map(|voice| (n * 20, voice)));
            events.extend(ear.tick(now).map(|voice| (n * 20, voice)));
        }
        events
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
    fn a_sentence_is_one_voice_that_begins_and_ends() {
        let (mut ear, start) = (Ear::new(), now());
        assert!(told(&mut ear, start, 50, |at| tone(at, 50.0, 0.001)).is_empty(), "hum");
        let said = told(&mut ear, start + Duration::from_secs(1), 100, speech);
        assert!(matches!(said.as_slice(), [(40..=160, Voice::Began)]), "{said:?}");
        let after = told(&mut ear, start + Duration::from_secs(3), 50, |_| 0.0);
        let [(at, Voice::Ended { ago_ms })] = after.as_slice() else { panic!("{after:?}") };
        assert!((300..=340).contains(ago_ms) && at.abs_diff(*ago_ms) <= 140, "{after:?}");
    }

    #[test]
    fn a_voice_ends_also_when_packets_do() {
        let (mut ear, start) = (Ear::new(), now());
        assert_eq!(told(&mut ear, start, 50, speech).len(), 1);
        let last = start + Duration::from_millis(980);
        assert_eq!(ear.tick(last + Duration::from_millis(200)), None);
        assert!(matches!(ear.tick(last + Duration::from_millis(400)), Some(Voice::Ended { .. })));
        assert_eq!(ear.tick(last + Duration::from_secs(9)), None, "told once");
    }

    #[test]
    fn clicks_steady_hiss_and_garbage_are_no_voice() {
        let (mut ear, start) = (Ear::new(), now());
        let click = |at: usize| if at % 8_000 < 40 { 0.5 } else { 0.0 };
        assert!(told(&mut ear, start, 100, click).is_empty());
        assert_eq!(ear.packet(start, &[]), None);
        assert_eq!(ear.packet(start, &[0xff; 7]), None);
        // A hum that sets in is taken for voice at first, and then for what it is.
        let hum = told(&mut ear, start + Duration::from_secs(2), 600, |at| tone(at, 100.0, 0.02));
        assert!(hum.last().is_none_or(|(_, voice)| matches!(voice, Voice::Ended { .. })), "{hum:?}");
    }
}
