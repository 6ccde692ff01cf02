//! The network with sounds that are not speech, and with speech. It needs `OFFHOOK_TEST_MODELS`, a
//! folder with the wheels of `pipecat-ai` and `hibari-tts`.

use std::f32::consts::TAU;
use std::path::PathBuf;

use super::{DetectorError, SpeechDetector, check};
use crate::models::tests::known_wheel;
use crate::models::{ModelStore, read, read_file};
use crate::neural::{Delivery, NeuralError, Voice};

/// Installs a model. Returns its folder, or `None` if its wheel is absent.
fn install(store: &ModelStore, name: &str) -> Option<PathBuf> {
    let file = known_wheel(name)?;
    let candidate = read(&file, &read_file(&file).unwrap(), None).unwrap();
    store.install(&candidate).unwrap();
    Some(store.folder_of(&candidate.manifest))
}

/// A sound of some seconds. `sound` gets the time in seconds.
fn sound(seconds: f32, mut sound: impl FnMut(f32) -> f32) -> Vec<i16> {
    let samples = (seconds * 16_000.0) as usize;
    (0..samples).map(|n| (sound(n as f32 / 16_000.0) * 32_767.0) as i16).collect()
}

/// Noise from -1 to 1 that is the same in every run.
fn noise() -> impl FnMut() -> f32 {
    let mut state = 1_u32;
    move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / u32::MAX as f32 * 2.0 - 1.0
    }
}

#[test]
fn speech_is_told_from_music_and_noise() {
    let dir = tempfile::tempdir().unwrap();
    let store = ModelStore::new(dir.path());
    let Some(folder) = install(&store, "smart-turn") else { return };
    assert_eq!(store.speech_detector(), Some(folder.clone()));
    let detector = SpeechDetector::load(&folder).unwrap();
    let mut noise = noise();
    for level in [0.01, 0.1, 1.0] {
        let chord = [220.0, 261.6, 329.6, 392.0];
        let others = [
            ("silence", sound(2.0, |_| 0.0)),
            ("noise", sound(3.0, |_| noise() * level)),
            ("hum", sound(3.0, |at| (at * 100.0 * TAU).sin().signum() * level * 0.5)),
            (
                "music",
                sound(6.0, |at| {
                    let note = chord[(at * 4.0) as usize % 4];
                    let wave = |k: u8| (at * note * f32::from(k) * TAU).sin() / f32::from(k);
                    (1..6).map(wave).sum::<f32>() * 0.4 * level * (1.0 - (at * 4.0).fract() * 0.6)
                }),
            ),
            ("knocks", sound(3.0, |at| noise() * level * (-(at % 1.0) * 20.0).exp())),
        ];
        for (name, pcm) in others {
            assert!(!detector.has_speech(&pcm).unwrap(), "{name} {level}");
        }
    }
    let Some(folder) = install(&store, "hibari") else { return };
    let voice = Voice::load(&folder).unwrap();
    for text in ["Yes.", "No.", "Sales.", "I would like to speak to somebody about my order."] {
        let mut samples = Vec::new();
        let delivery = Delivery { rate: 1.0, pitch: 1.0, male: false };
        let keep = |_rate, pcm: Vec<f32>| {
            samples.extend(pcm);
            Ok::<_, NeuralError>(())
        };
        voice.speak(text, delivery, keep).unwrap();
        // From 24 kHz.
        for level in [0.05, 0.5] {
            let mut pcm = sound(samples.len() as f32 / 24_000.0, |at| {
                samples[(at * 24_000.0) as usize] * level
            });
            assert!(detector.has_speech(&pcm).unwrap(), "{text} {level}");
            pcm.iter_mut().for_each(|s| *s = s.saturating_add((noise() * level * 2_000.0) as i16));
            assert!(detector.has_speech(&pcm).unwrap(), "{text} {level}, with noise");
        }
    }
}

#[test]
fn networks_that_are_damaged_or_others_are_refused() {
    for file in [&b""[..], b"PK", &[0x0a, 200], &[8, 10, 0x3a, 0], &[8, 10, 0x3a, 2, 0x0a, 0]] {
        assert!(matches!(check(file), Err(DetectorError::Invalid(_))), "{file:?}");
    }
}
