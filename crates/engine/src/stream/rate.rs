//! Converts between 8 and 16 kHz, for servers that send audio at the other one of the two rates.
//!
//! Both directions use a half-band low-pass filter with 31 taps (flat to 3.2 kHz, 60 dB down from
//! 4.8 kHz). The filter keeps its state between calls, so consecutive pieces join without clicks.
//! The delay is 15 samples at 16 kHz.

/// Number of filter taps. Must be odd.
const TAPS: usize = 31;
const MIDDLE: usize = TAPS / 2;

/// Direction of the conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Conversion {
    /// Converts from 8 kHz to 16 kHz.
    Double,
    /// Converts from 16 kHz to 8 kHz.
    Halve,
}

/// Converts the rate of audio that arrives in pieces.
pub(super) struct RateConverter {
    way: Conversion,
    taps: [f32; TAPS],
    /// The latest samples at 16 kHz, oldest first.
    past: [f32; TAPS],
    /// Whether `Halve` omits the next sample.
    skip: bool,
}

impl RateConverter {
    pub(super) fn new(way: Conversion) -> Self {
        Self { way, taps: taps(), past: [0.0; TAPS], skip: false }
    }

    pub(super) fn way(&self) -> Conversion {
        self.way
    }

    /// Appends the converted samples: twice or half as many.
    pub(super) fn push(&mut self, pcm: &[i16], out: &mut Vec<i16>) {
        for sample in pcm {
            let sample = f32::from(*sample);
            match self.way {
                Conversion::Double => {
                    // The inserted sample is zero, which halves the amplitude.
                    for with in [sample * 2.0, 0.0] {
                        self.take(with);
                        out.push(self.filtered());
                    }
                }
                Conversion::Halve => {
                    self.take(sample);
                    if !self.skip {
                        out.push(self.filtered());
                    }
                    self.skip = !self.skip;
                }
            }
        }
    }

    fn take(&mut self, sample: f32) {
        self.past.copy_within(1.., 0);
        self.past[TAPS - 1] = sample;
    }

    fn filtered(&self) -> i16 {
        let sum: f32 = self.past.iter().zip(&self.taps).map(|(sample, tap)| sample * tap).sum();
        sum.round().clamp(f32::from(i16::MIN), f32::from(i16::MAX)) as i16
    }
}

/// The filter taps: a sinc with a cut-off at a quarter of the rate and a Blackman window. Their sum
/// is one.
fn taps() -> [f32; TAPS] {
    let at = |n: usize| {
        let from_middle = n as f64 - MIDDLE as f64;
        let sinc = match n == MIDDLE {
            true => 0.5,
            false => {
                (std::f64::consts::FRAC_PI_2 * from_middle).sin()
                    / (std::f64::consts::PI * from_middle)
            }
        };
        let turn = std::f64::consts::TAU * (n + 1) as f64 / (TAPS + 1) as f64;
        sinc * (0.42 - 0.5 * turn.cos() + 0.08 * (2.0 * turn).cos())
    };
    let sum: f64 = (0..TAPS).map(at).sum();
    std::array::from_fn(|n| (at(n) / sum) as f32)
}

#[cfg(test)]
mod tests {
    use super::{Conversion, RateConverter};

    fn tone(rate: f64, hz: f64, samples: usize) -> Vec<i16> {
        (0..samples)
            .map(|n| ((n as f64 * hz * std::f64::consts::TAU / rate).sin() * 10_000.0) as i16)
            .collect()
    }

    /// Amplitude of a tone in `pcm` (Goertzel), in units of a sample.
    fn level(pcm: &[i16], rate: f64, hz: f64) -> f64 {
        let (mut re, mut im) = (0.0, 0.0);
        for (n, sample) in pcm.iter().enumerate() {
            let phase = n as f64 * hz * std::f64::consts::TAU / rate;
            re += f64::from(*sample) * phase.cos();
            im += f64::from(*sample) * phase.sin();
        }
        (re * re + im * im).sqrt() * 2.0 / pcm.len() as f64
    }

    fn through(way: Conversion, pcm: &[i16], piece: usize) -> Vec<i16> {
        let (mut rates, mut out) = (RateConverter::new(way), Vec::new());
        pcm.chunks(piece).for_each(|piece| rates.push(piece, &mut out));
        out
    }

    #[test]
    fn a_tone_keeps_its_pitch_and_loudness_both_ways() {
        for hz in [200.0, 1_000.0, 3_000.0] {
            let up = through(Conversion::Double, &tone(8_000.0, hz, 8_000), 160);
            assert_eq!(up.len(), 16_000);
            let kept = level(&up, 16_000.0, hz);
            assert!((9_500.0..10_500.0).contains(&kept), "{hz}: {kept}");
            let image = level(&up, 16_000.0, 8_000.0 - hz);
            assert!(image < 100.0 || hz > 2_900.0, "{hz}: an image of {image}");
            let down = through(Conversion::Halve, &tone(16_000.0, hz, 16_000), 320);
            assert_eq!(down.len(), 8_000);
            let kept = level(&down, 8_000.0, hz);
            assert!((9_500.0..10_500.0).contains(&kept), "{hz}: {kept}");
        }
        let folded = level(
            &through(Conversion::Halve, &tone(16_000.0, 5_500.0, 16_000), 320),
            8_000.0,
            2_500.0,
        );
        assert!(folded < 50.0, "{folded}");
    }

    #[test]
    fn pieces_join_seamlessly() {
        for way in [Conversion::Double, Conversion::Halve] {
            let sound = tone(8_000.0, 440.0, 4_001);
            let whole = through(way, &sound, sound.len());
            for piece in [1, 7, 160] {
                assert_eq!(through(way, &sound, piece), whole, "{way:?} {piece}");
            }
        }
    }

    #[test]
    fn loud_audio_is_clipped_and_never_wraps() {
        let loud: Vec<i16> =
            (0..800).map(|n| if n / 8 % 2 == 0 { i16::MAX } else { i16::MIN }).collect();
        let out = through(Conversion::Double, &loud, 160);
        let worst =
            out.windows(2).map(|pair| (i32::from(pair[0]) - i32::from(pair[1])).abs()).max();
        assert!(worst < Some(60_000), "{worst:?}");
    }
}
