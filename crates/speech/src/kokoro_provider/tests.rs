//! The voices for Hindi and Portuguese in helper threads, with the installed model where a test needs it.

use std::path::{Path, PathBuf};

use super::KokoroVoice;
use crate::builtin::tests::Threads;
use crate::builtin::{self, Builtin};
use crate::kokoro::Language;
use crate::language::Speaker;
use crate::models::tests::known_files;
use crate::models::{ModelStore, read_parts};
use crate::provider::{AudioChunk, Provider as _, SpeechError};
use crate::script::Segment;
use model::{Clock, Timestamp};
use rstest::rstest;
use xml::ast::Voice;

const LANGUAGES: [Language; 2] = [Language::Hindi, Language::Portuguese];

/// Installs the model below `data_dir`. Returns its folder, or `None` if its files are absent.
fn install(data_dir: &Path) -> Option<PathBuf> {
    let files = known_files("kokoro")?;
    let files: Vec<(&Path, &[u8])> =
        files.iter().map(|(path, bytes)| (path.as_path(), bytes.as_slice())).collect();
    let store = ModelStore::new(data_dir);
    store.install(&read_parts(&files).unwrap()).unwrap();
    Some(store.folder_of(&store.multilingual_voice().unwrap()))
}

async fn speak(
    data_dir: &Path,
    folder: &Path,
    segment: &Segment,
) -> Result<Vec<AudioChunk>, SpeechError> {
    let clock = Clock::stepped(Timestamp::from_micros(0));
    let helpers = Builtin::with_start(Box::new(Threads), data_dir.join("voices"), None, clock);
    let voice = KokoroVoice::new(helpers, folder.to_owned(), LANGUAGES.to_vec());
    builtin::tests::speak(&voice, segment).await
}

// Two sentences, short because the networks are slow in debug builds.
#[rstest]
#[case("hi-IN", "नमस्ते। एक दबाएँ।", true)]
#[case("pt-BR", "Olá. Tecle 1, por favor.", true)]
#[case("pt-BR", "Olá. Tecle 1, por favor.", false)]
#[tokio::test]
async fn words_are_spoken_as_long_and_loud_as_speech(
    #[case] language: &str,
    #[case] text: &str,
    #[case] male: bool,
) {
    let dir = tempfile::tempdir().unwrap();
    let Some(folder) = install(dir.path()) else { return };
    let mut segment = Segment::unstyled(language, text);
    segment.speaker.male = male;
    let spoken = speak(dir.path(), &folder, &segment).await.unwrap();
    let samples: Vec<f64> = spoken.iter().flat_map(|c| &c.pcm).map(|s| f64::from(*s)).collect();
    let seconds = samples.len() as f64 / 24_000.0;
    assert!((1.5..6.0).contains(&seconds), "{seconds} s");
    let loudness = (samples.iter().map(|s| s * s).sum::<f64>() / samples.len() as f64).sqrt();
    assert!((800.0..6_000.0).contains(&loudness), "{loudness}");
    assert!(spoken.iter().all(|chunk| chunk.rate == 24_000));
    // The pause before it is removed but for 30 ms. A soft first sound is later louder than this.
    let peak = samples.iter().fold(0.0_f64, |peak, sample| peak.max(sample.abs()));
    let start = samples.iter().position(|sample| sample.abs() > peak / 150.0).unwrap();
    assert!((700..1_400).contains(&start), "{start}");
}

#[tokio::test]
async fn a_model_that_cannot_be_loaded_fails_before_any_sound() {
    let dir = tempfile::tempdir().unwrap();
    let segment = Segment::unstyled("hi-IN", "नमस्ते");
    let error = speak(dir.path(), &dir.path().join("nowhere"), &segment).await.unwrap_err();
    assert!(error.to_string().contains("kokoro.onnx"), "{error}");
}

#[tokio::test]
async fn text_without_sounds_needs_no_helper() {
    let dir = tempfile::tempdir().unwrap();
    let segment = Segment::unstyled("hi-IN", "\u{1F600} -");
    assert!(speak(dir.path(), &dir.path().join("nowhere"), &segment).await.unwrap().is_empty());
}

#[rstest]
#[case("hi-IN", Voice::Woman, "hf_alpha")]
#[case("hi-IN", Voice::Man, "hm_omega")]
#[case("hi-IN", Voice::Polly("Aditi".to_owned()), "hf_alpha")]
#[case("hi-IN", Voice::Polly("Kajal-Neural".to_owned()), "hf_beta")]
#[case("pt-BR", Voice::Woman, "pf_dora")]
#[case("pt-BR", Voice::Man, "pm_alex")]
#[case("pt-BR", Voice::Polly("Camila-Neural".to_owned()), "pf_dora")]
#[case("pt-BR", Voice::Polly("Vitoria".to_owned()), "pf_dora")]
#[case("pt-BR", Voice::Polly("Ricardo".to_owned()), "pm_alex")]
#[case("pt-PT", Voice::Polly("Cristiano".to_owned()), "pm_alex")]
fn voices_of_documents_are_mapped_to_the_nearest_one(
    #[case] tag: &str,
    #[case] voice: Voice,
    #[case] name: &str,
) {
    let language = Language::of(tag).unwrap();
    assert_eq!(super::voice_for(language, &Speaker::new(&voice, Some(tag))).name(), name);
}

#[test]
fn only_installed_languages_are_spoken() {
    let clock = Clock::stepped(Timestamp::from_micros(0));
    let helpers = Builtin::with_start(Box::new(Threads), PathBuf::new(), None, clock);
    let voice = KokoroVoice::new(helpers, PathBuf::new(), vec![Language::Hindi]);
    assert!(voice.can_speak("hi") && !voice.can_speak("pt-BR") && !voice.can_speak("mr-IN"));
    assert!(!voice.can_read_latin("hi-IN") && voice.can_read_latin("pt-BR"));
}
