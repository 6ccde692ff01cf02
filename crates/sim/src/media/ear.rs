//! What a simulated phone hears: decodes Opus, measures how much of it is sound, keeps it where asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use media::opus::{Decoder, Rate};

/// Sound kept at most: 30 minutes.
const RECORD_SAMPLES_MAX: usize = 30 * 60 * 16_000;
/// −50 dBFS: below it is silence. A codec's own noise lies far under it, the softest speech above.
const LOUD_RMS: f64 = 100.0;
/// More than 100 ms missing is a gap that people hear (`meta-calling.md` §5.3).
const GAP_SAMPLES: u32 = 4_800 + 960;
/// The same between two arrivals, in milliseconds: 100 and a packet's own 20.
const LATE_MS: u64 = 120;
/// An Opus packet of 20 ms up to this size is silence or comfort noise; speech at 16 kbit/s has 40 bytes.
const QUIET_BYTES_MAX: usize = 16;
/// A jump of timestamps that is no gap but a new beginning (5 s).
const JUMP_SAMPLES: u32 = 240_000;

/// What can be asked of a leg while it lives.
#[derive(Debug, Default)]
pub(crate) struct LegStats {
    /// Milliseconds of sound that was not silence.
    pub(crate) heard_ms: AtomicU64,
    /// When sound was heard last, in milliseconds of the call; 0: never.
    pub(crate) loud_at_ms: AtomicU64,
    pub(crate) gaps: AtomicU64,
    pub(crate) clipped: AtomicU64,
    /// Since when nothing is left to say or press, in milliseconds of the call; 0: something is.
    pub(crate) said_at_ms: AtomicU64,
}

/// How closely a phone listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hearing {
    /// Decodes each packet; `record` keeps the sound.
    Decoding { record: bool },
    /// Looks at sizes and times only: decoding costs more than all the rest of a leg.
    Counting,
}

#[derive(Debug)]
struct Decoding {
    decoder: Decoder,
    pcm: Vec<i16>,
    record: Option<Vec<i16>>,
}

/// The receiving half of a phone.
#[derive(Debug)]
pub(crate) struct Ear {
    /// None: only counting.
    decoding: Option<Decoding>,
    next_time: Option<u32>,
    heard_at_ms: Option<u64>,
    stats: Arc<LegStats>,
    heard_first: bool,
}

impl Ear {
    pub(crate) fn new(hearing: Hearing, stats: Arc<LegStats>) -> Self {
        let decoding = match hearing {
            Hearing::Decoding { record } => Some(Decoding {
                decoder: Decoder::new(Rate::Hz16000),
                pcm: Vec::with_capacity(Rate::Hz16000.frame()),
                record: record.then(Vec::new),
            }),
            Hearing::Counting => None,
        };
        Self { decoding, next_time: None, heard_at_ms: None, stats, heard_first: false }
    }

    /// Hears one packet, `at_ms` into the call. True for the first one that is not silence.
    pub(crate) fn hear(&mut self, time: u32, payload: &[u8], at_ms: u64) -> bool {
        let ahead = self.next_time.map_or(0, |expected| time.wrapping_sub(expected));
        if ahead > u32::MAX / 2 {
            return false; // late: its place was filled already
        }
        // What is missing on the wire, or came too late to be played in time.
        let waited_ms = at_ms.saturating_sub(self.heard_at_ms.replace(at_ms).unwrap_or(at_ms));
        let late = self.decoding.is_none() && waited_ms >= LATE_MS;
        if (GAP_SAMPLES..JUMP_SAMPLES).contains(&ahead) || late {
            self.stats.gaps.fetch_add(1, Ordering::Relaxed);
        }
        let (samples, loud) = match &mut self.decoding {
            Some(decoding) => {
                if ahead < JUMP_SAMPLES {
                    // 48 kHz clock, 16 kHz recording.
                    decoding.keep_silence(usize::try_from(ahead / 3).unwrap_or(0));
                }
                decoding.hear(payload)
            }
            None => (Rate::Hz16000.frame(), payload.len() > QUIET_BYTES_MAX),
        };
        self.next_time =
            Some(time.wrapping_add(u32::try_from(samples * 3).unwrap_or(960).max(960)));
        if !loud {
            return false;
        }
        self.stats.heard_ms.fetch_add(u64::try_from(samples / 16).unwrap_or(0), Ordering::Relaxed);
        self.stats.loud_at_ms.store(at_ms.max(1), Ordering::Relaxed);
        !std::mem::replace(&mut self.heard_first, true)
    }

    /// What was kept: 16 kHz mono.
    pub(crate) fn into_recording(self) -> Option<Vec<i16>> {
        self.decoding?.record
    }
}

impl Decoding {
    /// Samples of a packet, and whether they are more than silence.
    fn hear(&mut self, payload: &[u8]) -> (usize, bool) {
        self.pcm.clear();
        let samples = self.decoder.decode(Some(payload), false, &mut self.pcm).unwrap_or(0);
        if let Some(kept) = &mut self.record {
            let room = RECORD_SAMPLES_MAX.saturating_sub(kept.len());
            kept.extend(self.pcm.iter().take(room));
        }
        (samples, rms(&self.pcm) >= LOUD_RMS)
    }

    fn keep_silence(&mut self, samples: usize) {
        if let Some(kept) = &mut self.record {
            let room = RECORD_SAMPLES_MAX.saturating_sub(kept.len());
            kept.resize(kept.len() + samples.min(room), 0);
        }
    }
}

fn rms(pcm: &[i16]) -> f64 {
    if pcm.is_empty() {
        return 0.0;
    }
    let energy: f64 = pcm.iter().map(|s| f64::from(*s).powi(2)).sum();
    (energy / pcm.len() as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::{Ear, Hearing, LegStats};
    use media::opus::{Encoder, Rate};
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    fn tone(frames: usize, level: f64) -> Vec<Vec<i16>> {
        let wave: Vec<i16> =
            (0..frames * 320).map(|n| ((n as f64 * 0.17).sin() * level) as i16).collect();
        wave.chunks(320).map(<[i16]>::to_vec).collect()
    }

    #[test]
    fn silence_is_not_heard_and_sound_is_counted_and_kept_in_place() {
        let stats = Arc::new(LegStats::default());
        let mut ear = Ear::new(Hearing::Decoding { record: true }, stats.clone());
        let mut encoder = Encoder::new(Rate::Hz16000, 5, 24_000);
        let mut time = 0u32;
        for frame in tone(10, 0.0) {
            assert!(!ear.hear(time, &encoder.encode(&frame), 1));
            time += 960;
        }
        let mut firsts = 0;
        for frame in tone(50, 8_000.0) {
            firsts += usize::from(ear.hear(time, &encoder.encode(&frame), 2));
            time += 960;
        }
        assert_eq!(firsts, 1);
        let heard = stats.heard_ms.load(Ordering::Relaxed);
        assert!((900..=1_000).contains(&heard), "{heard}");
        // 200 ms missing: one gap, and the recording keeps its length.
        time += 9_600;
        ear.hear(time, &encoder.encode(&[0; 320]), 3);
        assert_eq!(stats.gaps.load(Ordering::Relaxed), 1);
        assert_eq!(ear.into_recording().map(|r| r.len()), Some(61 * 320 + 3_200));
    }

    #[test]
    fn counting_looks_at_sizes_and_arrivals() {
        let stats = Arc::new(LegStats::default());
        let mut ear = Ear::new(Hearing::Counting, stats.clone());
        let heard = |ear: &mut Ear, nr: u32, bytes: usize, at_ms| {
            ear.hear(nr * 960, &vec![0; bytes], at_ms)
        };
        assert!(!heard(&mut ear, 0, 3, 1_000), "silence");
        assert!(heard(&mut ear, 1, 60, 1_020), "the first sound");
        assert!(
            !heard(&mut ear, 2, 60, 1_040) && !heard(&mut ear, 2, 60, 1_041),
            "later ones, and one that came twice"
        );
        assert_eq!(
            (stats.gaps.load(Ordering::Relaxed), stats.heard_ms.load(Ordering::Relaxed)),
            (0, 40)
        );
        heard(&mut ear, 3, 60, 1_200);
        assert_eq!(stats.gaps.load(Ordering::Relaxed), 1, "160 ms between two arrivals");
        heard(&mut ear, 20, 60, 1_220);
        assert_eq!(stats.gaps.load(Ordering::Relaxed), 2, "16 packets are missing");
    }
}
