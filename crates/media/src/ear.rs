//! Detection of the peer's voice, or of a beep, on one leg. A detector exists only while it is
//! needed.
//!
//! `voice` and `beep` classify 20 ms frames of decoded audio. The results are events, so that a
//! call logs sentences and not frames.

use std::time::{Duration, Instant};

use super::beep::BeepEar;
use super::voice::Judge;
use crate::opus::{Decoder, Rate};
use machine::Voice;
use xml::ast::Beep;

/// Shorter pauses are part of speech.
const PAUSE: Duration = Duration::from_millis(300);

/// Without a packet for this long, the peer is taken to be silent.
const LATE: Duration = Duration::from_millis(60);
const FRAME: Duration = Duration::from_millis(20);

/// Decodes a leg's audio and detects voice and beeps in it.
pub(super) struct Ear {
    decoder: Decoder,
    pcm: Vec<i16>,
    /// Present while voice detection is on.
    voice: Option<VoiceEar>,
    beep: Option<BeepEar>,
    /// End of the audio processed so far.
    until: Option<Instant>,
}

#[derive(Default)]
struct VoiceEar {
    judge: Judge,
    /// Time of the last voice, while the peer is speaking.
    heard: Option<Instant>,
}

impl Ear {
    pub(super) fn new() -> Self {
        Self {
            decoder: Decoder::new(Rate::Hz16000),
            pcm: Vec::new(),
            voice: None,
            beep: None,
            until: None,
        }
    }

    /// Turns voice detection on or off.
    pub(super) fn listen(&mut self, on: bool) {
        match on {
            true => drop(self.voice.get_or_insert_default()),
            false => self.voice = None,
        }
    }

    /// Starts or stops waiting for a beep. It is reported once.
    pub(super) fn await_beep(&mut self, how: Option<Beep>) {
        self.beep = how.map(BeepEar::new);
    }

    /// Returns whether anything is being detected.
    pub(super) fn is_of_use(&self) -> bool {
        self.voice.is_some() || self.beep.is_some()
    }

    /// Processes an Opus packet. An invalid packet is ignored.
    pub(super) fn packet(&mut self, now: Instant, packet: &[u8]) -> [Option<Voice>; 2] {
        self.pcm.clear();
        if self.decoder.decode(Some(packet), false, &mut self.pcm).is_err() {
            return [None; 2];
        }
        self.until = Some(now);
        let (mut speaks, mut beeped) = (false, false);
        for frame in self.pcm.chunks(Rate::Hz16000.frame()) {
            speaks = self.voice.as_mut().is_some_and(|voice| voice.judge.hear(frame));
            beeped |= self.beep.as_mut().is_some_and(|beep| beep.hear(frame));
        }
        let voice = self.voice.as_mut().filter(|_| speaks);
        let began = voice.is_some_and(|voice| voice.heard.replace(now).is_none());
        [began.then_some(Voice::Began), self.beeped(beeped)]
    }

    /// Advances time. Reports the end of speech, or a beep that ended with the packets.
    pub(super) fn tick(&mut self, now: Instant) -> [Option<Voice>; 2] {
        let mut beeped = false;
        if let (Some(until), Some(beep)) = (&mut self.until, &mut self.beep) {
            // A silent peer may send nothing at all, so missing packets count as silence.
            while now.saturating_duration_since(*until) >= LATE {
                beeped |= beep.hear(&[]);
                *until += FRAME;
            }
        }
        [self.voice.as_mut().and_then(|voice| voice.tick(now)), self.beeped(beeped)]
    }

    fn beeped(&mut self, beeped: bool) -> Option<Voice> {
        self.beep.take_if(|_| beeped).map(|_| Voice::Beep)
    }
}

impl VoiceEar {
    fn tick(&mut self, now: Instant) -> Option<Voice> {
        let quiet = now.saturating_duration_since(self.heard?);
        if quiet < PAUSE {
            return None;
        }
        self.heard = None;
        self.judge.rest();
        Some(Voice::Ended { ago_ms: u64::try_from(quiet.as_millis()).unwrap_or(u64::MAX) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::opus::Encoder;
    use crate::test_peer::now;

    /// Feeds `packets` 20 ms packets of a waveform to the detector; returns the events with their
    /// times in milliseconds.
    fn told(
        ear: &mut Ear,
        start: Instant,
        packets: u64,
        sound: impl Fn(usize) -> f32,
    ) -> Vec<(u64, Voice)> {
        let mut encoder = Encoder::for_prompts();
        let mut events = Vec::new();
        for n in 0..packets {
            let now = start + Duration::from_millis(n * 20);
            let pcm: [i16; Rate::Hz16000.frame()] = std::array::from_fn(|i| {
                (sound(n as usize * Rate::Hz16000.frame() + i) * 32_767.0) as i16
            });
            let packet = encoder.encode(&pcm);
            events.extend(
                ear.packet(now, &packet).into_iter().flatten().map(|voice| (n * 20, voice)),
            );
            events.extend(ear.tick(now).into_iter().flatten().map(|voice| (n * 20, voice)));
        }
        events
    }

    fn listening() -> Ear {
        let mut ear = Ear::new();
        ear.listen(true);
        ear
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
        let (mut ear, start) = (listening(), now());
        assert!(told(&mut ear, start, 50, |at| tone(at, 50.0, 0.001)).is_empty(), "hum");
        let said = told(&mut ear, start + Duration::from_secs(1), 100, speech);
        assert!(matches!(said.as_slice(), [(40..=160, Voice::Began)]), "{said:?}");
        let after = told(&mut ear, start + Duration::from_secs(3), 50, |_| 0.0);
        let [(at, Voice::Ended { ago_ms })] = after.as_slice() else { panic!("{after:?}") };
        assert!((300..=340).contains(ago_ms) && at.abs_diff(*ago_ms) <= 140, "{after:?}");
    }

    #[test]
    fn a_voice_ends_also_when_packets_do() {
        let (mut ear, start) = (listening(), now());
        assert_eq!(told(&mut ear, start, 50, speech).len(), 1);
        let last = start + Duration::from_millis(980);
        assert_eq!(ear.tick(last + Duration::from_millis(200)), [None; 2]);
        assert!(matches!(
            ear.tick(last + Duration::from_millis(400)),
            [Some(Voice::Ended { .. }), None]
        ));
        assert_eq!(ear.tick(last + Duration::from_secs(9)), [None; 2], "told once");
    }

    #[test]
    fn clicks_steady_hiss_and_garbage_are_no_voice() {
        let (mut ear, start) = (listening(), now());
        let click = |at: usize| if at % 8_000 < 40 { 0.5 } else { 0.0 };
        assert!(told(&mut ear, start, 100, click).is_empty());
        assert_eq!(ear.packet(start, &[]), [None; 2]);
        assert_eq!(ear.packet(start, &[0xff; 7]), [None; 2]);
        // A hum counts as voice at first, until the noise floor has followed it.
        let hum = told(&mut ear, start + Duration::from_secs(2), 600, |at| tone(at, 100.0, 0.02));
        assert!(
            hum.last().is_none_or(|(_, voice)| matches!(voice, Voice::Ended { .. })),
            "{hum:?}"
        );
    }

    #[test]
    fn a_beep_is_told_through_the_codec_and_also_where_packets_end_with_it() {
        for silence in [50, 0] {
            let (mut ear, start) = (Ear::new(), now());
            ear.await_beep(Some(Beep::default()));
            assert!(told(&mut ear, start, 100, speech).is_empty(), "words");
            let beep =
                told(&mut ear, start + Duration::from_secs(2), 25, |at| tone(at, 1_000.0, 0.3));
            assert!(beep.is_empty(), "it is not over: {beep:?}");
            let mut after = told(&mut ear, start + Duration::from_millis(2_500), silence, |_| 0.0);
            let over = start + Duration::from_secs(4);
            after.extend(ear.tick(over).into_iter().flatten().map(|voice| (1_500, voice)));
            assert!(matches!(after.as_slice(), [(_, Voice::Beep)]), "{silence}: {after:?}");
            assert!(!ear.is_of_use(), "told once");
        }
    }
}
