//! µ-law coding (ITU-T G.711): eight bits per sample.

/// Bias that is added before the segment search, so that each segment has its own leading bit.
const BIAS: i32 = 0x84;
/// Louder samples are clipped to this value.
const CLIP: i32 = 32_635;

/// Encodes a sample.
pub(super) fn encode(sample: i16) -> u8 {
    let wide = i32::from(sample);
    let sign = if wide < 0 { 0x80 } else { 0 };
    let biased = wide.abs().min(CLIP) + BIAS;
    // The value is in 0x84..=0x7fff, so the leading bit is one of 7 to 14.
    let segment = (31 - biased.leading_zeros() as i32) - 7;
    let step = (biased >> (segment + 3)) & 0x0f;
    let coded = sign | (segment << 4) | step;
    !(coded as u8)
}

/// Decodes a sample.
pub(super) const fn decode(coded: u8) -> i16 {
    let coded = !coded;
    let segment = (coded >> 4) & 0x07;
    let step = (coded & 0x0f) as i16;
    let size = (((step << 3) + 0x84) << segment) - 0x84;
    if coded & 0x80 != 0 { -size } else { size }
}

#[cfg(test)]
mod tests {
    use super::{decode, encode};

    #[test]
    fn matches_the_values_of_g711() {
        // Table 2a of G.711, scaled to 16 bits.
        for (coded, sample) in [
            (0xff, 0),
            (0x7f, 0),
            (0x80, 32_124),
            (0x00, -32_124),
            (0xf0, 120),
            (0x70, -120),
            (0xef, 132),
            (0x9f, 8_316),
        ] {
            assert_eq!(decode(coded), sample, "{coded:#x}");
        }
        assert_eq!([0, 1, -1, i16::MAX, i16::MIN].map(encode), [0xff, 0xff, 0x7f, 0x80, 0x00]);
    }

    #[test]
    fn codes_round_trip_and_samples_stay_within_a_step() {
        for coded in 0..=255u8 {
            let again = encode(decode(coded));
            // Zero has two codes.
            assert!(again == coded || decode(coded) == 0, "{coded:#x}");
        }
        for sample in i16::MIN..=i16::MAX {
            let off = (i32::from(sample) - i32::from(decode(encode(sample)))).abs();
            let step = (i32::from(sample).abs() / 16).max(8);
            assert!(
                off <= step.max(if sample.unsigned_abs() > 32_124 { 644 } else { 0 }),
                "{sample} {off}"
            );
        }
    }
}
