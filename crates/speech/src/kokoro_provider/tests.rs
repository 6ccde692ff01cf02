//! The Hindi voice in helper threads, with the installed model where a test needs it.

use std::path::{Path, PathBuf};

use super::KokoroVoice;
use crate::builtin::tests::Threads;
use crate::builtin::{self, Builtin};
use crate::language::Speaker;
use crate::models::tests::known_files;
use crate::models::{ModelStore, read_parts};
use crate::provider::{AudioChunk, SpeechError};
use crate::script::Segment;
use model::{Clock, Timestamp};
use xml::ast::Voice;

/// Installs the model below `data_dir`. Returns its folder, or `None` if its files are absent.
fn install(data_dir: &Path) -> Option<PathBuf> {
    let files = known_files("kokoro")?;
    let files: Vec<(&Path, &[u8])> =
        files.iter().map(|(path, bytes)| (path.as_path(), bytes.as_slice())).collect();
    let store = ModelStore::new(data_dir);
    store.install(&read_parts(&files).unwrap()).unwrap();
    Some(store.folder_of(&store.hindi_voice().unwrap()))
}

async fn speak(
    data_dir: &Path,
    folder: &Path,
    segment: &Segment,
) -> Result<Vec<AudioChunk>, SpeechError> {
    let clock = Clock::stepped(Timestamp::from_micros(0));
    let helpers = Builtin::with_start(Box::new(Threads), data_dir.join("voices"), None, clock);
    let voice = KokoroVoice::new(helpers, folder.to_owned());
    builtin::tests::speak(&voice, segment).await
}

#[tokio::test]
async fn words_are_spoken_as_long_and_loud_as_speech() {
    let dir = tempfile::tempdir().unwrap();
    let Some(folder) = install(dir.path()) else { return };
    // Two sentences, short because the networks are slow in debug builds.
    let mut segment = Segment::unstyled("hi-IN", "नमस्ते। एक दबाएँ।");
    segment.speaker.male = true;
    let spoken = speak(dir.path(), &folder, &segment).await.unwrap();
    let samples: Vec<f64> = spoken.iter().flat_map(|c| &c.pcm).map(|s| f64::from(*s)).collect();
    let seconds = samples.len() as f64 / 24_000.0;
    assert!((1.5..6.0).contains(&seconds), "{seconds} s");
    let loudness = (samples.iter().map(|s| s * s).sum::<f64>() / samples.len() as f64).sqrt();
    assert!((800.0..6_000.0).contains(&loudness), "{loudness}");
    assert!(spoken.iter().all(|chunk| chunk.rate == 24_000));
}

#[tokio::test]
async fn a_model_that_cannot_be_loaded_fails_before_any_sound() {
    let dir = tempfile::tempdir().unwrap();
    let segment = Segment::unstyled("hi-IN", "नमस्ते");
    let error = speak(dir.path(), &dir.path().join("nowhere"), &segment).await.unwrap_err();
    assert!(error.to_string().contains("hf_alpha.bin"), "{error}");
}

#[tokio::test]
async fn text_without_sounds_needs_no_helper() {
    let dir = tempfile::tempdir().unwrap();
    let segment = Segment::unstyled("hi-IN", "\u{1F600} -");
    assert!(speak(dir.path(), &dir.path().join("nowhere"), &segment).await.unwrap().is_empty());
}

#[test]
fn voices_of_documents_are_mapped_to_the_nearest_one() {
    let name = |voice: Voice| super::voice_for(&Speaker::new(&voice, Some("hi-IN"))).name();
    assert_eq!(name(Voice::Woman), "hf_alpha");
    assert_eq!(name(Voice::Man), "hm_omega");
    assert_eq!(name(Voice::Polly("Aditi".to_owned())), "hf_alpha");
    assert_eq!(name(Voice::Polly("Kajal-Neural".to_owned())), "hf_beta");
    assert!(super::can_speak("hi") && !super::can_speak("mr-IN"));
}
