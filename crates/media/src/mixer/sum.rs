//! Adds samples of several members without audible clipping.
//!
//! Up to three quarters of full scale the sum is unchanged. Above that it is compressed smoothly
//! towards full scale, which it never exceeds. The curve is smooth, so that a sum slightly above
//! the threshold is not distorted audibly. Each output sample depends only on its input sample.

/// Level up to which samples are unchanged.
const KNEE: i32 = 24_576;
/// Range above the knee.
const HEADROOM: i32 = 32_767 - KNEE;

/// Compresses a sum into a sample.
pub(super) fn soft_limit(sum: i32) -> i16 {
    let magnitude = sum.unsigned_abs().min(i32::MAX.unsigned_abs()).cast_signed();
    let magnitude = match magnitude - KNEE {
        ..=0 => magnitude,
        // x / (1 + x) in units of the headroom. Its slope at the knee is 1.
        over => {
            KNEE + i32::try_from(
                i64::from(HEADROOM) * i64::from(over) / (i64::from(HEADROOM) + i64::from(over)),
            )
            .unwrap_or(HEADROOM)
        }
    };
    i16::try_from(if sum < 0 { -magnitude } else { magnitude }).unwrap_or(if sum < 0 {
        i16::MIN
    } else {
        i16::MAX
    })
}

/// Adds samples to a sum. If the lengths differ, the remaining samples of the longer one are
/// ignored.
pub(super) fn add(sum: &mut [i32], samples: &[i16]) {
    sum.iter_mut()
        .zip(samples)
        .for_each(|(sum, sample)| *sum = sum.saturating_add(i32::from(*sample)));
}

/// Converts a sum to samples.
pub(super) fn to_samples(sum: &[i32], out: &mut Vec<i16>) {
    out.clear();
    out.extend(sum.iter().map(|sum| soft_limit(*sum)));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{KNEE, add, soft_limit, to_samples};

    #[test]
    fn keeps_samples_below_the_knee() {
        for sample in [0, 1, -1, 1_000, -24_576, KNEE] {
            assert_eq!(i32::from(soft_limit(sample)), sample);
        }
        assert_eq!((soft_limit(KNEE + 1), soft_limit(-KNEE - 1)), (24_576, -24_576));
        assert_eq!(
            (soft_limit(40_000), soft_limit(i32::MAX), soft_limit(i32::MIN)),
            (29_925, 32_766, -32_766)
        );
    }

    #[test]
    fn adds_sample_by_sample() {
        let mut sum = [0; 4];
        add(&mut sum, &[1, 2, 3]);
        add(&mut sum, &[10, -20, 30_000, 7, 9]);
        let mut out = vec![5; 9];
        to_samples(&sum, &mut out);
        assert_eq!(out[..2], [11, -18]);
        assert!((24_577..30_003).contains(&out[2]), "{out:?}");
        assert_eq!(out[3..], [7]);
    }

    proptest! {
        /// The curve is monotonic and has no steps.
        #[test]
        fn the_curve_is_monotonic_without_steps(sum in -700_000..700_000_i32, more in 0..2_000_i32) {
            let (a, b) = (i32::from(soft_limit(sum)), i32::from(soft_limit(sum + more)));
            prop_assert!(b >= a && b - a <= more + 1, "{a} {b}");
            prop_assert_eq!(soft_limit(-sum), -soft_limit(sum));
        }
    }
}
