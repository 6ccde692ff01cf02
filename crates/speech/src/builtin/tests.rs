//! The provider with helpers that run as threads behind socket pairs.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream as Socket;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rstest::rstest;
use tokio::net::UnixStream;

use super::{Builtin, Helper, PIECE_BYTES, StartHelper, pieces, remove_onset};
use crate::helper;
use crate::helper::{AUDIO, frame};
use crate::language::{EmbeddedVoice, Speaker};
use crate::provider::{AudioChunk, Provider, Sink, SpeechError};
use crate::script::{Part, Script, Segment};
use model::Clock;
use model::Timestamp;
use xml::ast::{Speech, SpeechNode};

/// Speaks a segment. Returns all of its audio.
pub(crate) async fn speak(
    voice: &impl Provider,
    segment: &Segment,
) -> Result<Vec<AudioChunk>, SpeechError> {
    let (mut sink, mut chunks) = Sink::new(4);
    let (outcome, all) =
        tokio::join!(async move { voice.synthesise(segment, &mut sink).await }, async {
            let mut all = Vec::new();
            while let Some(chunk) = chunks.recv().await {
                all.push(chunk);
            }
            all
        });
    outcome.map(|()| all)
}

pub(crate) fn segment(text: &str, language: &str, male: bool) -> Segment {
    let speech = Speech(vec![SpeechNode::Text(text.to_owned())]);
    let speaker = Speaker { language: language.to_owned(), male, polly: None };
    match Script::new(&speech, &speaker).0.into_iter().next() {
        Some(Part::Speech(segment)) => segment,
        other => panic!("{other:?}"),
    }
}

/// Starts a helper as a thread at the other end of a socket pair.
pub(crate) fn helper_thread(
    run: impl FnOnce(Socket, Socket) + Send + 'static,
) -> io::Result<Helper> {
    let (ours, theirs) = Socket::pair()?;
    ours.set_nonblocking(true)?;
    let input = theirs.try_clone()?;
    std::thread::spawn(move || run(input, theirs));
    let (output, input) = UnixStream::from_std(ours)?.into_split();
    Ok(Helper { input: Box::new(input), output: Box::new(output), child: None })
}

/// Starts helpers that run [`helper::serve`].
pub(crate) struct Threads;

impl StartHelper for Threads {
    fn start(&self) -> io::Result<Helper> {
        helper_thread(|input, output| {
            let _ = helper::serve(input, output, |_| {}, |_, _| Ok(()));
        })
    }
}

async fn synthesise(builtin: &Builtin, segment: &Segment) -> Result<Vec<i16>, SpeechError> {
    let (mut sink, mut chunks) = Sink::new(4);
    let (outcome, pcm) =
        tokio::join!(async move { builtin.synthesise(segment, &mut sink).await }, async {
            let mut pcm = Vec::new();
            while let Some(chunk) = chunks.recv().await {
                assert_eq!(chunk.rate, 16_000);
                pcm.extend(chunk.pcm);
            }
            pcm
        });
    outcome.map(|()| pcm)
}

fn builtin(start: impl StartHelper + 'static, folder: &Path) -> Builtin {
    Builtin::with_start(
        Box::new(start),
        folder.to_owned(),
        None,
        Clock::stepped(Timestamp::from_micros(0)),
    )
}

fn seconds(pcm: &[i16]) -> f64 {
    pcm.len() as f64 / 16_000.0
}

fn loudness(pcm: &[i16]) -> f64 {
    (pcm.iter().map(|&s| f64::from(s).powi(2)).sum::<f64>() / pcm.len().max(1) as f64).sqrt()
}

#[rstest]
#[case(EmbeddedVoice::EnUs, "Welcome. For sales, press one.")]
#[case(EmbeddedVoice::EnGb, "Welcome. For sales, press one.")]
#[case(EmbeddedVoice::DeDe, "Willkommen. Für den Verkauf drücken Sie die Eins.")]
#[case(EmbeddedVoice::EsEs, "Bienvenido. Para ventas, pulse uno.")]
#[case(EmbeddedVoice::FrFr, "Bienvenue. Pour les ventes, tapez un.")]
#[case(EmbeddedVoice::ItIt, "Benvenuto. Per le vendite, premi uno.")]
#[tokio::test]
async fn every_embedded_language_speaks(#[case] voice: EmbeddedVoice, #[case] text: &str) {
    let dir = tempfile::tempdir().unwrap();
    let builtin = builtin(Threads, dir.path());
    let pcm = synthesise(&builtin, &segment(text, voice.tag(), false)).await.unwrap();
    assert!((1.5..6.0).contains(&seconds(&pcm)), "{} s", seconds(&pcm));
    assert!(loudness(&pcm) > 300.0, "{}", loudness(&pcm));
}

#[tokio::test]
async fn styles_are_applied_and_unusual_text_is_spoken() {
    let dir = tempfile::tempdir().unwrap();
    let builtin = builtin(Threads, dir.path());
    let normal =
        synthesise(&builtin, &segment("One two three four five", "en-US", false)).await.unwrap();
    let mut slow = segment("One two three four five", "en-US", true);
    slow.runs[0].style.rate = 50.0;
    slow.runs[0].style.volume = 20.0;
    let slow = synthesise(&builtin, &slow).await.unwrap();
    assert!(
        seconds(&slow) > seconds(&normal) * 1.5,
        "{} against {}",
        seconds(&slow),
        seconds(&normal)
    );
    assert!(
        loudness(&slow) < loudness(&normal) / 2.0,
        "{} against {}",
        loudness(&slow),
        loudness(&normal)
    );
    // As loud as possible without clipping.
    let mut loud = segment("One two three four five", "en-US", false);
    loud.runs[0].style.volume = 220.0;
    let loud = synthesise(&builtin, &loud).await.unwrap();
    assert!(
        loudness(&loud) > loudness(&normal) * 1.5,
        "{} against {}",
        loudness(&loud),
        loudness(&normal)
    );
    let peak = |pcm: &[i16]| pcm.iter().map(|sample| i32::from(*sample).abs()).max().unwrap();
    assert!(
        peak(&loud) < 30_000 && peak(&normal) < 30_000,
        "{} and {}",
        peak(&loud),
        peak(&normal)
    );
    // The next prompt starts with the default style.
    let again =
        synthesise(&builtin, &segment("One two three four five", "en-US", false)).await.unwrap();
    assert!((seconds(&again) - seconds(&normal)).abs() < 0.2);

    let file = dir.path().join("written.wav");
    let unusual = format!(
        "<genfile file=\"{}\">a</genfile> \u{1F600} & 漢字 {}",
        file.display(),
        "9".repeat(100)
    );
    synthesise(&builtin, &segment(&unusual, "en-US", false)).await.unwrap();
    assert!(!file.exists());
}

#[tokio::test]
async fn the_longest_document_is_spoken() {
    let dir = tempfile::tempdir().unwrap();
    let builtin = builtin(Threads, dir.path());
    let text = "The quick brown fox jumps over the lazy dog. ".repeat(67);
    let pcm = synthesise(&builtin, &segment(&text, "en-US", false)).await.unwrap();
    assert!(seconds(&pcm) > 120.0, "{} s", seconds(&pcm));
}

#[test]
fn long_text_is_spoken_in_pieces() {
    let sentence = "The quick brown fox jumps over the lazy dog. ";
    let short = segment(sentence.repeat(4).trim_end(), "en-US", false);
    assert_eq!(pieces(&short), std::slice::from_ref(&short));
    for text in [sentence.repeat(60), "A-4711 ".repeat(400), "x".repeat(2_000)] {
        let whole = segment(&text, "en-US", false);
        let pieces = pieces(&whole);
        assert!(pieces.iter().all(|piece| piece.plain().len() <= PIECE_BYTES), "{pieces:?}");
        let joined: String = pieces.iter().flat_map(|p| &p.runs).map(|r| r.text.as_str()).collect();
        assert_eq!(joined.trim_end(), whole.runs[0].text.trim_end());
    }
}

#[tokio::test]
async fn long_texts_of_one_account_do_not_delay_another_one() {
    let dir = tempfile::tempdir().unwrap();
    let builtin = Arc::new(builtin(Threads, dir.path()));
    let started = Arc::new(tokio::sync::Notify::new());
    let speak = |account: &str, text: String| {
        let (builtin, started) = (builtin.clone(), started.clone());
        let (sink, mut chunks) = Sink::new(1);
        let mut sink = sink.with_owner(&Some(account.into()));
        let segment = segment(&text, "en-US", false);
        let listening = tokio::spawn(async move {
            while chunks.recv().await.is_some() {
                started.notify_one();
            }
        });
        tokio::spawn(async move {
            builtin.synthesise(&segment, &mut sink).await.unwrap();
            drop(sink);
            listening.await.unwrap();
        })
    };
    let long: Vec<_> = (0..6).map(|_| speak("a", "A-4711 0815 ".repeat(240))).collect();
    started.notified().await;
    speak("b", "Welcome.".to_owned()).await.unwrap();
    assert!(long.iter().all(|speaking| !speaking.is_finished()));
    long.iter().for_each(tokio::task::JoinHandle::abort);
}

/// Starts helpers that fail after one chunk, `crashes` times, and then working ones.
struct Crashing {
    crashes: usize,
    started: Arc<AtomicUsize>,
}

impl StartHelper for Crashing {
    fn start(&self) -> io::Result<Helper> {
        if self.started.fetch_add(1, Ordering::SeqCst) >= self.crashes {
            return Threads.start();
        }
        helper_thread(|mut input, mut output| {
            // Read the folder and the start of the request, send one chunk, and exit.
            let _ = input.read(&mut [0; 8]);
            let _ = output.write_all(&frame(AUDIO, &[0; 3_200]));
        })
    }
}

#[tokio::test]
async fn a_crashed_helper_fails_its_prompt_and_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let started = Arc::new(AtomicUsize::new(0));
    let builtin = builtin(Crashing { crashes: 1, started: Arc::clone(&started) }, dir.path());
    let text = segment("Hello", "en-US", false);
    assert!(matches!(synthesise(&builtin, &text).await, Err(SpeechError::Helper(_))));
    assert!(!synthesise(&builtin, &text).await.unwrap().is_empty());
    assert!(!synthesise(&builtin, &text).await.unwrap().is_empty());
    assert_eq!(started.load(Ordering::SeqCst), 2, "the working helper is reused");
}

/// Never starts a helper.
struct Broken;

impl StartHelper for Broken {
    fn start(&self) -> io::Result<Helper> {
        Err(io::ErrorKind::NotFound.into())
    }
}

#[tokio::test]
async fn consecutive_failures_increase_the_delay() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::stepped(Timestamp::from_micros(0));
    let builtin = Builtin::with_start(Box::new(Broken), dir.path().to_owned(), None, clock.clone());
    let text = segment("Hello", "en-US", false);
    let mut waits = Vec::new();
    for _ in 0..12 {
        match synthesise(&builtin, &text).await.unwrap_err() {
            SpeechError::Start(_) => {}
            SpeechError::BackOff { wait, .. } => {
                waits.push(wait.as_millis());
                clock.step(wait);
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!(waits, [250, 500, 1_000, 2_000, 4_000]);
}

#[test]
fn silence_before_speech_is_removed_up_to_a_short_part() {
    let chunk = |pcm: Vec<i16>| AudioChunk { rate: 1_000, pcm };
    let mut chunks =
        vec![chunk(vec![1; 100]), chunk(vec![2; 150]), chunk([[0; 10], [400; 10]].concat())];
    remove_onset(&mut chunks);
    let lengths: Vec<_> = chunks.iter().map(|chunk| chunk.pcm.len()).collect();
    assert_eq!(lengths, [20, 20], "30 ms before the first sound");
    let mut at_once = vec![chunk(vec![400; 50])];
    remove_onset(&mut at_once);
    assert_eq!(at_once[0].pcm.len(), 50);
    remove_onset(&mut Vec::new());
}
