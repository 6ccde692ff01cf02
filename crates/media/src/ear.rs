//! Whether the peer is speaking, or has beeped: a leg's ear, there only while somebody listens.
//!
//! What is voice `voice` judges, and what a beep `beep`, over 20 ms frames of the decoded sound; told as events, so that a
//! call logs a sentence and not its frames.

use std::time::{Duration, Instant};

use super::beep::BeepEar;
use super::voice::Judge;
use crate::opus::{Decoder, Rate};
use machine::VoiceEvent;
use xml::ast::Beep;

/// Pauses shorter than this are part of speech.
const PAUSE: Duration = Duration::from_millis(300);

/// Packets that come later than this are not waited for: no sound is silence.
const LATE: Duration = Duration::from_millis(60);
const FRAME: Duration = Duration::from_millis(20);

/// Listens.
pub(super) struct Ear {
    decoder: Decoder,
    pcm: Vec<i16>,
    /// There while somebody wants to know of voice.
    voice: Option<VoiceEar>,
    beep: Option<BeepEar>,
    /// Up to when the sound is known.
    until: Option<Instant>,
}

#[derive(Default)]
struct VoiceEar {
    judge: Judge,
    /// When voice was heard last, while there is some.
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

    /// Tells of voice, or no longer.
    pub(super) fn listen(&mut self, on: bool) {
        match on {
            true => drop(self.voice.get_or_insert_default()),
            false => self.voice = None,
        }
    }

    /// Tells of a beep, once, or no longer.
    pub(super) fn await_beep(&mut self, how: Option<Beep>) {
        self.beep = how.map(BeepEar::new);
    }

    /// Whether it listens for anything.
    pub(super) fn is_of_use(&self) -> bool {
        self.voice.is_some() || self.beep.is_some()
    }

    /// Takes in an Opus packet; a broken one is as if it had not come.
    pub(super) fn packet(&mut self, now: Instant, packet: &[u8]) -> [Option<VoiceEvent>; 2] {
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
        [began.then_some(VoiceEvent::Began), self.beeped(beeped)]
    }

    /// Time passes: whether the voice has gone, or a beep is over.
    pub(super) fn tick(&mut self, now: Instant) -> [Option<VoiceEvent>; 2] {
        let mut beeped = false;
        if let (Some(until), Some(beep)) = (&mut self.until, &mut self.beep) {
            // Where nothing comes any more: a peer that is silent may send nothing at all.
            while now.saturating_duration_since(*until) >= LATE {
                beeped |= beep.hear(&[]);
                *until += FRAME;
            }
        }
        [self.voice.as_mut().and_then(|voice| voice.tick(now)), self.beeped(beeped)]
    }

    fn beeped(&mut self, beeped: bool) -> Option<VoiceEvent> {
        self.beep.take_if(|_| beeped).map(|_| VoiceEvent::Beep)
    }
}

impl VoiceEar {
    fn tick(&mut self, now: Instant) -> Option<VoiceEvent> {
        let quiet = now.saturating_duration_since(self.heard?);
        if quiet < PAUSE {
            return None;
        }
        self.heard = None;
        self.judge.rest();
        Some(VoiceEvent::Ended { ago_ms: u64::try_from(quiet.as_millis()).unwrap_or(u64::MAX) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::opus::Encoder;
    use crate::test_peer::now;

    /// What is told of so many 20 ms packets of a sound, with the time of each.
    fn told(
        ear: &mut Ear,
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
        assert!(matches!(said.as_slice(), [(40..=160, VoiceEvent::Began)]), "{said:?}");
        let after = told(&mut ear, start + Duration::from_secs(3), 50, |_| 0.0);
        let [(at, VoiceEvent::Ended { ago_ms })] = after.as_slice() else { panic!("{after:?}") };
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
            [Some(VoiceEvent::Ended { .. }), None]
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
        // A hum that sets in is taken for voice at first, and then for what it is.
        let hum = told(&mut ear, start + Duration::from_secs(2), 600, |at| tone(at, 100.0, 0.02));
        assert!(
            hum.last().is_none_or(|(_, voice)| matches!(voice, VoiceEvent::Ended { .. })),
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
            assert!(matches!(after.as_slice(), [(_, VoiceEvent::Beep)]), "{silence}: {after:?}");
            assert!(!ear.is_of_use(), "told once");
        }
    }
}
