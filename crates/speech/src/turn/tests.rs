//! Networks, good and bad. The real one is tested in `turn_estimator` and through the whole program.

use super::{SAMPLES, TurnError, TurnModel, convert, normalise};

#[test]
fn samples_are_normalised_and_follow_silence() {
    let samples = normalise(&[16_384; 800]);
    assert_eq!(samples.len(), SAMPLES + 200);
    let (mean, of) = (samples[0], SAMPLES as f32);
    assert!(mean < 0.0 && samples[SAMPLES - 801] == mean && samples[SAMPLES - 800] > 1.0);
    let power = samples[..SAMPLES].iter().map(|sample| sample * sample).sum::<f32>() / of;
    assert!((power - 1.0).abs() < 1e-3, "{power}");

    let ramp: Vec<i16> = (0..SAMPLES + 5).map(|n| (n % 30_000) as i16).collect();
    let samples = normalise(&ramp);
    // The beginning is left out, and the end is mirrored without its last sample.
    assert_eq!(normalise(&ramp[5..]), samples);
    let (end, margin) = samples.split_at(SAMPLES);
    assert!(end.iter().rev().skip(1).zip(margin).all(|(a, b)| a == b));
    assert!(normalise(&[]).iter().all(|sample| *sample == 0.0));
}

#[test]
fn networks_that_are_damaged_or_others_are_refused() {
    for file in [&b""[..], b"PK", &[0x0a, 200], &[8, 10, 0x3a, 0], &[8, 10, 0x3a, 2, 0x0a, 0]] {
        assert!(matches!(convert(file), Err(TurnError::Invalid(_))), "{file:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(TurnModel::load(dir.path()), Err(TurnError::Read(_))));
}
