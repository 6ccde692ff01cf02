//! The receiving half of a simulated phone: decodes Opus, detects audio and gaps, and records.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::arrivals::Arrivals;
use media::opus::{Decoder, Rate};

/// Maximum length of a recording: 30 minutes.
const RECORD_SAMPLES_MAX: usize = 30 * 60 * 16_000;
/// Samples below −50 dBFS count as silence. Codec noise is far below it, the softest speech above.
const AUDIO_RMS_MIN: f64 = 100.0;
/// Gap that counts as audible: more than 100 ms between the timestamps of two packets.
const GAP_SAMPLES: u32 = 4_800 + 960;
/// Gap that counts as audible: time between two arrivals in milliseconds, 100 plus the packet's own
/// 20.
const LATE_MS: u64 = 120;
/// An Opus packet of 20 ms up to this size is silence or comfort noise. Speech at 16 kbit/s has 40
/// bytes.
const SILENCE_BYTES_MAX: usize = 16;
/// A larger step of the timestamp (5 s) is a restart of the clock and not a gap.
const JUMP_SAMPLES: u32 = 240_000;

/// Statistics of a leg that its call can read at any time.
#[derive(Debug, Default)]
pub(crate) struct LegStats {
    /// Milliseconds of audio that was not silence.
    pub(crate) heard_ms: AtomicU64,
    /// When audio was received last, in milliseconds since the call began. 0 means never.
    pub(crate) last_audio_at_ms: AtomicU64,
    pub(crate) gaps: AtomicU64,
    pub(crate) clipped: AtomicU64,
    /// Start of the time in which nothing is left to play or press, in milliseconds since the call
    /// began. 0 while something is left.
    pub(crate) idle_since_ms: AtomicU64,
    pub(crate) arrivals: Option<Arc<Arrivals>>,
}

/// How a phone processes received packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReceiveMode {
    /// Decodes each packet. `record` keeps the audio.
    Decode { record: bool },
    /// Looks only at sizes and arrival times. Decoding would cost more than everything else in a
    /// leg.
    Count,
}

#[derive(Debug)]
struct DecodeState {
    decoder: Decoder,
    pcm: Vec<i16>,
    record: Option<Vec<i16>>,
}

/// The receiving half of a phone.
#[derive(Debug)]
pub(crate) struct AudioReceiver {
    /// Decoder and recording. `None` in mode `Count`.
    decode: Option<DecodeState>,
    next_timestamp: Option<u32>,
    last_arrival_ms: Option<u64>,
    stats: Arc<LegStats>,
    first_audio_seen: bool,
}

impl AudioReceiver {
    pub(crate) fn new(mode: ReceiveMode, stats: Arc<LegStats>) -> Self {
        let decode = match mode {
            ReceiveMode::Decode { record } => Some(DecodeState {
                decoder: Decoder::new(Rate::Hz16000),
                pcm: Vec::with_capacity(Rate::Hz16000.frame()),
                record: record.then(Vec::new),
            }),
            ReceiveMode::Count => None,
        };
        Self { decode, next_timestamp: None, last_arrival_ms: None, stats, first_audio_seen: false }
    }

    /// Processes a packet that arrived `at_ms` after the call began. Returns true for the first one
    /// that is not silence.
    pub(crate) fn receive(&mut self, timestamp: u32, payload: &[u8], at_ms: u64) -> bool {
        let ahead = self.next_timestamp.map_or(0, |expected| timestamp.wrapping_sub(expected));
        if ahead > u32::MAX / 2 {
            return false; // late: already replaced by silence
        }
        // Packets that were lost, or that came too late to be played.
        let since_last_ms =
            at_ms.saturating_sub(self.last_arrival_ms.replace(at_ms).unwrap_or(at_ms));
        let late = self.decode.is_none() && since_last_ms >= LATE_MS;
        if (GAP_SAMPLES..JUMP_SAMPLES).contains(&ahead) || late {
            self.stats.gaps.fetch_add(1, Ordering::Relaxed);
        }
        let (samples, is_audio) = match &mut self.decode {
            Some(decode) => {
                if ahead < JUMP_SAMPLES {
                    // From the 48 kHz RTP clock to the 16 kHz recording.
                    decode.record_silence(usize::try_from(ahead / 3).unwrap_or(0));
                }
                decode.receive(payload)
            }
            None => (Rate::Hz16000.frame(), payload.len() > SILENCE_BYTES_MAX),
        };
        self.next_timestamp =
            Some(timestamp.wrapping_add(u32::try_from(samples * 3).unwrap_or(960).max(960)));
        if !is_audio {
            return false;
        }
        self.stats.heard_ms.fetch_add(u64::try_from(samples / 16).unwrap_or(0), Ordering::Relaxed);
        self.stats.last_audio_at_ms.store(at_ms.max(1), Ordering::Relaxed);
        !std::mem::replace(&mut self.first_audio_seen, true)
    }

    /// The recording, as 16 kHz mono.
    pub(crate) fn into_recording(self) -> Option<Vec<i16>> {
        self.decode?.record
    }
}

impl DecodeState {
    /// Decodes a packet. Returns the number of samples, and whether they are audio.
    fn receive(&mut self, payload: &[u8]) -> (usize, bool) {
        self.pcm.clear();
        let samples = self.decoder.decode(Some(payload), false, &mut self.pcm).unwrap_or(0);
        if let Some(recording) = &mut self.record {
            let space = RECORD_SAMPLES_MAX.saturating_sub(recording.len());
            recording.extend(self.pcm.iter().take(space));
        }
        (samples, rms(&self.pcm) >= AUDIO_RMS_MIN)
    }

    fn record_silence(&mut self, samples: usize) {
        if let Some(recording) = &mut self.record {
            let space = RECORD_SAMPLES_MAX.saturating_sub(recording.len());
            recording.resize(recording.len() + samples.min(space), 0);
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
    use super::{AudioReceiver, LegStats, ReceiveMode};
    use media::opus::{Encoder, Rate};
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    fn tone(frames: usize, level: f64) -> Vec<Vec<i16>> {
        let wave: Vec<i16> =
            (0..frames * 320).map(|n| ((n as f64 * 0.17).sin() * level) as i16).collect();
        wave.chunks(320).map(<[i16]>::to_vec).collect()
    }

    #[test]
    fn decode_mode_counts_audio_and_records_gaps() {
        let stats = Arc::new(LegStats::default());
        let mut receiver = AudioReceiver::new(ReceiveMode::Decode { record: true }, stats.clone());
        let mut encoder = Encoder::new(Rate::Hz16000, 5, 24_000);
        let mut timestamp = 0u32;
        for frame in tone(10, 0.0) {
            assert!(!receiver.receive(timestamp, &encoder.encode(&frame), 1));
            timestamp += 960;
        }
        let mut firsts = 0;
        for frame in tone(50, 8_000.0) {
            firsts += usize::from(receiver.receive(timestamp, &encoder.encode(&frame), 2));
            timestamp += 960;
        }
        assert_eq!(firsts, 1);
        let heard = stats.heard_ms.load(Ordering::Relaxed);
        assert!((900..=1_000).contains(&heard), "{heard}");
        // 200 ms are missing: one gap, and the recording keeps its length.
        timestamp += 9_600;
        receiver.receive(timestamp, &encoder.encode(&[0; 320]), 3);
        assert_eq!(stats.gaps.load(Ordering::Relaxed), 1);
        assert_eq!(receiver.into_recording().map(|r| r.len()), Some(61 * 320 + 3_200));
    }

    #[test]
    fn count_mode_uses_packet_sizes_and_arrival_times() {
        let stats = Arc::new(LegStats::default());
        let mut receiver = AudioReceiver::new(ReceiveMode::Count, stats.clone());
        let receive = |receiver: &mut AudioReceiver, nr: u32, bytes: usize, at_ms| {
            receiver.receive(nr * 960, &vec![0; bytes], at_ms)
        };
        assert!(!receive(&mut receiver, 0, 3, 1_000), "silence");
        assert!(receive(&mut receiver, 1, 60, 1_020), "the first sound");
        assert!(
            !receive(&mut receiver, 2, 60, 1_040) && !receive(&mut receiver, 2, 60, 1_041),
            "later ones, and one that came twice"
        );
        assert_eq!(
            (stats.gaps.load(Ordering::Relaxed), stats.heard_ms.load(Ordering::Relaxed)),
            (0, 40)
        );
        receive(&mut receiver, 3, 60, 1_200);
        assert_eq!(stats.gaps.load(Ordering::Relaxed), 1, "160 ms between two arrivals");
        receive(&mut receiver, 20, 60, 1_220);
        assert_eq!(stats.gaps.load(Ordering::Relaxed), 2, "16 packets are missing");
    }
}
