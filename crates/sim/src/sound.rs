//! Reads and writes the WAV files that simulated phones play and record.

use std::io::Cursor;
use std::sync::Arc;

use base64::Engine as _;

use media::opus::{Encoder, Rate};

/// Sample rate of recordings and encoded audio, in Hz.
const RATE: u32 = 16_000;
/// Maximum length of played audio: ten minutes. The rest is cut off.
const SECONDS_MAX: u32 = 600;

/// Encodes a WAV file (16-bit PCM, any channel count, 4 to 192 kHz) into Opus frames of 20 ms.
///
/// # Errors
///
/// Returns a message if the file is not a readable 16-bit PCM WAV file.
pub fn frames_of_wav(wav: &[u8]) -> Result<Vec<Arc<[u8]>>, String> {
    let pcm = pcm_of_wav(wav)?;
    let mut encoder = Encoder::new(Rate::Hz16000, 5, 24_000);
    Ok(pcm.chunks(Rate::Hz16000.frame()).map(|frame| encoder.encode(frame)).collect())
}

fn pcm_of_wav(wav: &[u8]) -> Result<Vec<i16>, String> {
    let invalid = |e: hound::Error| format!("not a readable WAV file: {e}");
    let mut reader = hound::WavReader::new(Cursor::new(wav)).map_err(invalid)?;
    let spec = reader.spec();
    if spec.sample_format != hound::SampleFormat::Int || spec.bits_per_sample != 16 {
        return Err(format!(
            "the file has {} bits per sample: use 16-bit PCM",
            spec.bits_per_sample
        ));
    }
    if spec.sample_rate < 4_000 || spec.sample_rate > 192_000 || spec.channels == 0 {
        return Err(format!(
            "{} Hz and {} channels are not supported: use 4000 to 192000 Hz and at least one channel",
            spec.sample_rate, spec.channels
        ));
    }
    let channels = usize::from(spec.channels);
    // The length in the header cannot be trusted.
    let samples_max = (spec.sample_rate * SECONDS_MAX) as usize * channels;
    let samples: Vec<i16> =
        reader.samples::<i16>().take(samples_max).collect::<Result<_, _>>().map_err(invalid)?;
    let mono: Vec<i16> = samples
        .chunks(channels)
        .map(|frame| {
            let sum: i32 = frame.iter().map(|s| i32::from(*s)).sum();
            i16::try_from(sum / i32::from(spec.channels)).unwrap_or(0)
        })
        .collect();
    Ok(resample(&mono, spec.sample_rate))
}

/// Resamples to 16 kHz by linear interpolation, or by averaging if the source has a higher rate.
/// Good enough for a test phone.
fn resample(pcm: &[i16], from: u32) -> Vec<i16> {
    if from == RATE {
        return pcm.to_vec();
    }
    let step = f64::from(from) / f64::from(RATE);
    let length = (pcm.len() as f64 / step) as usize;
    let at = |n: usize| f64::from(pcm.get(n).or(pcm.last()).copied().unwrap_or(0));
    (0..length)
        .map(|n| {
            let start = n as f64 * step;
            let value = if step > 1.0 {
                let (first, last) =
                    (start as usize, ((start + step) as usize).max(start as usize + 1));
                (first..last).map(at).sum::<f64>() / (last - first) as f64
            } else {
                let whole = start as usize;
                at(whole) + (at(whole + 1) - at(whole)) * (start - whole as f64)
            };
            value as i16
        })
        .collect()
}

/// Creates a WAV file from 16 kHz mono PCM.
pub fn wav_of(pcm: &[i16]) -> Vec<u8> {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: RATE,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut bytes = Cursor::new(Vec::with_capacity(pcm.len() * 2 + 44));
    let write = |bytes: &mut Cursor<Vec<u8>>| -> Result<(), hound::Error> {
        let mut writer = hound::WavWriter::new(bytes, spec)?;
        for sample in pcm {
            writer.write_sample(*sample)?;
        }
        writer.finalize()
    };
    // Fails only beyond 4 GiB; recordings are much smaller.
    let _ = write(&mut bytes);
    bytes.into_inner()
}

pub(crate) fn wav_base64(pcm: &[i16]) -> String {
    base64::engine::general_purpose::STANDARD.encode(wav_of(pcm))
}

#[cfg(test)]
mod tests {
    use super::{frames_of_wav, pcm_of_wav, wav_of};

    #[test]
    fn encodes_a_second_into_fifty_frames_at_any_rate() {
        for rate in [8_000u32, 16_000, 44_100, 48_000] {
            let spec = hound::WavSpec {
                channels: 2,
                sample_rate: rate,
                bits_per_sample: 16,
                sample_format: hound::SampleFormat::Int,
            };
            let mut bytes = std::io::Cursor::new(Vec::new());
            let mut writer = hound::WavWriter::new(&mut bytes, spec).expect("writer");
            for n in 0..rate * 2 {
                writer.write_sample((f64::from(n) * 0.05).sin() as i16 * 9_000).expect("sample");
            }
            writer.finalize().expect("file");
            assert_eq!(frames_of_wav(bytes.get_ref()).expect("frames").len(), 50, "{rate}");
        }
    }

    #[test]
    fn reads_back_written_wav_files() {
        let pcm: Vec<i16> = (0..16_000).map(|n| (n % 300) as i16).collect();
        assert_eq!(pcm_of_wav(&wav_of(&pcm)).expect("pcm"), pcm);
        assert!(frames_of_wav(b"RIFF").is_err());
        let mut lie = wav_of(&pcm);
        lie[40..44].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(frames_of_wav(&lie).is_err() || frames_of_wav(&lie).is_ok_and(|f| f.len() <= 51));
    }
}
