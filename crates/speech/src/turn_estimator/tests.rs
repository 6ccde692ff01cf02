//! Estimates with helpers that run as threads. The real model needs `OFFHOOK_TEST_MODELS`, a folder
//! with the wheel of `pipecat-ai`.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::{EstimateError, TurnEstimator};
use crate::builtin::tests::{Threads, helper_thread};
use crate::builtin::{Builtin, Helper, StartHelper};
use crate::models::tests::known_wheel;
use crate::models::{ModelStore, read, read_file};
use crate::provider::SpeechError;
use model::{Clock, Timestamp};

/// Installs the model below `data_dir`. Returns its folder, or `None` if the wheel is absent.
fn install(data_dir: &Path) -> Option<PathBuf> {
    let file = known_wheel("smart-turn")?;
    let candidate = read(&file, &read_file(&file).unwrap(), None).unwrap();
    let store = ModelStore::new(data_dir);
    store.install(&candidate).unwrap();
    Some(store.folder_of(&store.turn_estimator().unwrap()))
}

fn estimator(start: impl StartHelper + 'static, data_dir: &Path, folder: PathBuf) -> TurnEstimator {
    let clock = Clock::stepped(Timestamp::from_micros(0));
    let helpers = Builtin::with_start(Box::new(start), data_dir.join("voices"), None, clock);
    let (wait_max, deadline) = (Duration::from_millis(20), Duration::from_secs(2));
    TurnEstimator::new(helpers, folder, "smart-turn".to_owned(), wait_max, deadline)
}

/// A buzz that ends with a short silence.
fn buzz(seconds: f32, level: f32) -> Vec<i16> {
    let samples = (seconds * 16_000.0) as usize;
    let sound = (0..samples).map(|n| {
        let phase = n as f32 * 140.0 * std::f32::consts::TAU / 16_000.0;
        ((1..6).map(|k| (phase * k as f32).sin() / k as f32).sum::<f32>() * level) as i16
    });
    sound.chain([0; 3_200]).collect()
}

#[tokio::test]
async fn the_model_returns_the_same_probability_for_the_same_sound() {
    let dir = tempfile::tempdir().unwrap();
    let Some(folder) = install(dir.path()) else { return };
    let estimator = estimator(Threads, dir.path(), folder);
    estimator.prepare().await;
    let first = estimator.estimate(None, &buzz(1.5, 3_000.0)).await.unwrap();
    let again = estimator.estimate(None, &buzz(1.5, 3_000.0)).await.unwrap();
    assert!((0.0..=1.0).contains(&first) && first == again, "{first} {again}");
    // The level does not matter, because samples are normalised.
    let louder = estimator.estimate(None, &buzz(1.5, 6_000.0)).await.unwrap();
    assert!((first - louder).abs() < 0.05, "{first} {louder}");
    // Any length is accepted.
    for seconds in [0.0, 0.1, 8.0, 20.0] {
        estimator.estimate(None, &buzz(seconds, 3_000.0)).await.unwrap();
    }
}

/// The first helper exits during the request; the next ones work.
struct FirstExits(Arc<AtomicUsize>);

impl StartHelper for FirstExits {
    fn start(&self) -> io::Result<Helper> {
        if self.0.fetch_add(1, Ordering::SeqCst) > 0 {
            return Threads.start();
        }
        helper_thread(|mut input, _output| {
            let _ = input.read(&mut [0; 4_096]);
        })
    }
}

#[tokio::test]
async fn an_estimate_survives_the_death_of_its_helper() {
    let dir = tempfile::tempdir().unwrap();
    let starts = Arc::new(AtomicUsize::new(0));
    let folder = install(dir.path()).unwrap_or_else(|| dir.path().to_owned());
    let has_model = folder != dir.path();
    let estimator = estimator(FirstExits(starts.clone()), dir.path(), folder);
    let outcome = estimator.estimate(None, &buzz(1.0, 3_000.0)).await;
    // Without the model, the second helper answers that it cannot be read.
    assert_eq!(outcome.is_ok(), has_model, "{outcome:?}");
    assert!(!matches!(outcome, Err(EstimateError::Helper(SpeechError::Helper(_)))), "{outcome:?}");
    assert_eq!(starts.load(Ordering::SeqCst), 2);
}

/// Helpers that never answer.
struct Silent;

impl StartHelper for Silent {
    fn start(&self) -> io::Result<Helper> {
        helper_thread(|mut input, _output| {
            let mut request = [0; 65_536];
            while input.read(&mut request).is_ok_and(|count| count > 0) {}
        })
    }
}

#[tokio::test]
async fn estimates_are_bounded_in_number_and_time() {
    let dir = tempfile::tempdir().unwrap();
    let estimator = estimator(Silent, dir.path(), dir.path().to_owned());
    let sound = buzz(1.0, 3_000.0);
    let (first, second, third) = tokio::join!(
        estimator.estimate(None, &sound),
        estimator.estimate(None, &sound),
        estimator.estimate(None, &sound)
    );
    assert!(matches!(first, Err(EstimateError::Deadline(_))), "{first:?}");
    assert!(matches!(second, Err(EstimateError::Deadline(_))), "{second:?}");
    assert!(matches!(third, Err(EstimateError::Busy)), "{third:?}");
}

#[test]
fn languages_are_those_of_the_model() {
    let dir = tempfile::tempdir().unwrap();
    let estimator = estimator(Threads, dir.path(), dir.path().to_owned());
    for (language, supported) in [("en-IN", true), ("HI", true), ("cs-CZ", false), ("", false)] {
        assert_eq!(estimator.supports(language), supported, "{language}");
    }
}
