//! The neural voice with helpers that run as threads. Tests with the real voice need
//! `OFFHOOK_TEST_MODELS`, a folder with the wheel of `hibari-tts`.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Neural;
use crate::builtin::tests::{Threads, helper_thread, segment, speak};
use crate::builtin::{Builtin, Helper, StartHelper};
use crate::helper::{AUDIO_AT, DONE, frame};
use crate::models::tests::known_wheel;
use crate::models::{ModelStore, read, read_file};
use crate::neural::Voice;
use crate::provider::{AudioChunk, Provider as _, Sink};
use media::prompt::Prompt;
use model::{Clock, Timestamp};

/// Installs the voice below `data_dir`. Returns its folder, or `None` if the wheel is absent.
fn install(data_dir: &Path) -> Option<PathBuf> {
    let file = known_wheel("hibari")?;
    let candidate = read(&file, &read_file(&file).unwrap(), None).unwrap();
    let store = ModelStore::new(data_dir);
    store.install(&candidate).unwrap();
    Some(store.folder_of(&store.english_voice().unwrap()))
}

fn neural(start: impl StartHelper + 'static, data_dir: &Path, folder: PathBuf) -> Neural {
    let clock = Clock::stepped(Timestamp::from_micros(0));
    let voices = data_dir.join("voices");
    let helpers = Builtin::with_start(Box::new(start), voices, None, clock);
    Neural::new(Arc::new(helpers), "hibari".to_owned(), folder)
}

fn seconds(chunks: &[AudioChunk]) -> f64 {
    chunks.iter().map(|chunk| chunk.pcm.len() as f64 / f64::from(chunk.rate)).sum()
}

#[tokio::test]
async fn sentences_are_spoken_by_a_woman_and_a_man() {
    let dir = tempfile::tempdir().unwrap();
    let Some(folder) = install(dir.path()) else { return };
    let voice = neural(Threads, dir.path(), folder);
    let text = "Welcome to the support line. For sales, press 1. Is it the 24/12/2026?";
    let woman = speak(&voice, &segment(text, "en-US", false)).await.unwrap();
    let man = speak(&voice, &segment(text, "en-GB", true)).await.unwrap();
    for spoken in [&woman, &man] {
        assert!((4.0..12.0).contains(&seconds(spoken)), "{} s", seconds(spoken));
        let samples: Vec<f64> = spoken.iter().flat_map(|c| &c.pcm).map(|s| f64::from(*s)).collect();
        let loudness = (samples.iter().map(|s| s * s).sum::<f64>() / samples.len() as f64).sqrt();
        assert!((800.0..6_000.0).contains(&loudness), "{loudness}");
    }
    assert!(woman.iter().all(|c| c.rate == 24_000) && man.iter().all(|c| c.rate < 24_000));
}

#[tokio::test]
async fn unusual_text_is_spoken() {
    let dir = tempfile::tempdir().unwrap();
    let Some(folder) = install(dir.path()) else { return };
    let voice = neural(Threads, dir.path(), folder);
    for text in ["\u{1F600} 漢字 नमस्ते hello", "x", &"9".repeat(60), &"word".repeat(90), "a-b/c_d'e"]
    {
        speak(&voice, &segment(text, "en-US", false)).await.unwrap();
    }
    let long = segment(&"One more word. ".repeat(30), "en-US", false);
    assert!(seconds(&speak(&voice, &long).await.unwrap()) > 15.0);
}

#[test]
fn phonemes_are_those_that_the_voice_was_trained_with() {
    let dir = tempfile::tempdir().unwrap();
    let Some(folder) = install(dir.path()) else { return };
    let voice = Voice::load(&folder).unwrap();
    for (text, phonemes) in [
        ("Thank you for calling Acme support.", "θˈæŋk ju fɔɹ kˈɔlɪŋ ˈækmi səpˈɔɹt."),
        (
            "Please don't hang up; I'll connect you in a moment.",
            "plˈiz dˈOnt hˈæŋ ˌʌp; ˌIl kənˈɛkt ju ɪn ɐ mˈOmᵊnt.",
        ),
        (
            "Welcome back, Mister Jones! Which record would you like to read?",
            "wˈɛlkəm bˈæk, mˈɪstəɹ ʤˈOnz! wˌɪʧ ɹˈɛkəɹd wʊd ju lˈIk tə ɹˈid?",
        ),
        (
            "He used to live near the lead mine; they've read it.",
            "hˌi jˈust tə lˈɪv nˌɪɹ ðə lˈid mˈIn; ðAv ɹˈɛd ɪt.",
        ),
        ("It's an hour's walk to the ATM.", "ˌɪts ɐn ˈWəɹz wˈɔk tə ði ˌAtˌiˈɛm."),
        (
            "An unknown Xylqwertz word, and Zorbification.",
            "ɐn ˌʌnnˈOn zˈɪlkwəɹts wˈɜɹd, ænd zˌɔɹbɪfɪkˈAʃən.",
        ),
    ] {
        let found: Vec<String> = crate::sentences::split(text, 400)
            .iter()
            .map(|sentence| voice.phonemes(sentence))
            .collect();
        assert_eq!(found.join(" "), phonemes, "{text}");
    }
}

/// A helper that speaks one sentence and exits; those after it work.
struct FailsAfterOne(AtomicUsize);

impl StartHelper for FailsAfterOne {
    fn start(&self) -> io::Result<Helper> {
        if self.0.fetch_add(1, Ordering::SeqCst) > 0 {
            return Threads.start();
        }
        helper_thread(|mut input, mut output| {
            let mut request = [0; 65_536];
            // The folder, or the folder and the sentence.
            let mut seen = Vec::new();
            while !seen.ends_with(b"}") {
                let count = input.read(&mut request).unwrap();
                seen.extend_from_slice(request.get(..count).unwrap());
            }
            let mut audio = 24_000u32.to_le_bytes().to_vec();
            audio.extend_from_slice(&[1; 4_800]);
            let _ = output.write_all(&frame(AUDIO_AT, &audio));
            let _ = output.write_all(&frame(DONE, &[]));
        })
    }
}

#[tokio::test]
async fn after_a_failure_the_embedded_voice_speaks_the_other_sentences() {
    let dir = tempfile::tempdir().unwrap();
    let voice = neural(FailsAfterOne(AtomicUsize::new(0)), dir.path(), dir.path().to_owned());
    let text = "The first sentence is over. The second one is not lost.";
    let spoken = speak(&voice, &segment(text, "en-US", false)).await.unwrap();
    let (first, second): (Vec<_>, Vec<_>) = spoken.into_iter().partition(|c| c.rate == 24_000);
    assert!((0.05..0.2).contains(&seconds(&first)), "{} s", seconds(&first));
    assert!((1.0..4.0).contains(&seconds(&second)), "{} s", seconds(&second));
}

#[tokio::test]
async fn a_prompt_names_both_voices_after_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let voice = neural(FailsAfterOne(AtomicUsize::new(0)), dir.path(), dir.path().to_owned());
    let text = "The first sentence is over. The second one is not lost.";
    let segment = segment(text, "en-US", false);
    let (prompt, _writer) = Prompt::new();
    let (sink, _chunks) = Sink::new(1_000);
    let mut sink = sink.with_voices_of(&prompt);
    sink.set_voice(voice.prompt_voice(&segment.speaker));
    voice.synthesise(&segment, &mut sink).await.unwrap();
    let voices: Vec<String> = prompt.voices().iter().map(ToString::to_string).collect();
    assert_eq!(voices, ["neural hibari, en-US", "builtin en-US"]);
}

#[tokio::test]
async fn a_voice_that_cannot_be_loaded_fails_before_any_sound() {
    let dir = tempfile::tempdir().unwrap();
    let voice = neural(Threads, dir.path(), dir.path().join("nowhere"));
    let error = speak(&voice, &segment("Hello", "en-US", false)).await.unwrap_err();
    assert!(error.to_string().contains("voice.onnx"), "{error}");
}
