//! The helper behind in-memory pipes: the same protocol, no process.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream as Socket;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rstest::rstest;
use tokio::net::UnixStream;

use super::{Builtin, Helper, PIECE, Start, frame};
use crate::helper;
use crate::language::{Embedded, Speaker};
use crate::provider::{Provider, Sink, SpeechError};
use crate::script::{Part, Say, Script};
use model::Clock;
use model::Timestamp;
use xml::ast::{Speech, SpeechNode};

fn say(text: &str, language: &str, man: bool) -> Say {
    let speech = Speech(vec![SpeechNode::Text(text.to_owned())]);
    let speaker = Speaker { language: language.to_owned(), man, polly: None };
    match Script::of(&speech, &speaker).0.into_iter().next() {
        Some(Part::Say(say)) => say,
        other => panic!("{other:?}"),
    }
}

/// A helper that is a thread at the other end of a socket pair.
fn on_a_thread(life: impl FnOnce(Socket, Socket) + Send + 'static) -> io::Result<Helper> {
    let (ours, theirs) = Socket::pair()?;
    ours.set_nonblocking(true)?;
    let input = theirs.try_clone()?;
    std::thread::spawn(move || life(input, theirs));
    let (output, input) = UnixStream::from_std(ours)?.into_split();
    Ok(Helper { input: Box::new(input), output: Box::new(output), child: None })
}

/// Runs [`helper::serve`].
struct Threads;

impl Start for Threads {
    fn start(&self) -> io::Result<Helper> {
        on_a_thread(|input, output| {
            let _ = helper::serve(input, output, |_| {});
        })
    }
}

async fn spoken(builtin: &Builtin, say: &Say) -> Result<Vec<i16>, SpeechError> {
    let (mut sink, mut pieces) = Sink::new(4);
    let (said, pcm) =
        tokio::join!(async move { builtin.synthesise(say, &mut sink).await }, async {
            let mut pcm = Vec::new();
            while let Some(piece) = pieces.recv().await {
                assert_eq!(piece.rate, 16_000);
                pcm.extend(piece.pcm);
            }
            pcm
        });
    said.map(|()| pcm)
}

fn builtin(start: impl Start + 'static, folder: &Path) -> Builtin {
    Builtin::with(Box::new(start), folder.to_owned(), Clock::stepped(Timestamp::from_micros(0)))
}

fn seconds(pcm: &[i16]) -> f64 {
    pcm.len() as f64 / 16_000.0
}

fn loudness(pcm: &[i16]) -> f64 {
    (pcm.iter().map(|&s| f64::from(s).powi(2)).sum::<f64>() / pcm.len().max(1) as f64).sqrt()
}

#[rstest]
#[case(Embedded::EnUs, "Welcome. For sales, press one.")]
#[case(Embedded::EnGb, "Welcome. For sales, press one.")]
#[case(Embedded::DeDe, "Willkommen. Für den Verkauf drücken Sie die Eins.")]
#[case(Embedded::EsEs, "Bienvenido. Para ventas, pulse uno.")]
#[case(Embedded::FrFr, "Bienvenue. Pour les ventes, tapez un.")]
#[case(Embedded::ItIt, "Benvenuto. Per le vendite, premi uno.")]
#[tokio::test]
async fn every_embedded_language_speaks(#[case] voice: Embedded, #[case] text: &str) {
    let dir = tempfile::tempdir().unwrap();
    let builtin = builtin(Threads, dir.path());
    let pcm = spoken(&builtin, &say(text, voice.tag(), false)).await.unwrap();
    assert!((1.5..6.0).contains(&seconds(&pcm)), "{} s", seconds(&pcm));
    assert!(loudness(&pcm) > 300.0, "{}", loudness(&pcm));
}

#[tokio::test]
async fn style_and_strange_text_pass() {
    let dir = tempfile::tempdir().unwrap();
    let builtin = builtin(Threads, dir.path());
    let usual = spoken(&builtin, &say("One two three four five", "en-US", false)).await.unwrap();
    let mut slow = say("One two three four five", "en-US", true);
    slow.runs[0].style.rate = 50.0;
    slow.runs[0].style.volume = 20.0;
    let slow = spoken(&builtin, &slow).await.unwrap();
    assert!(
        seconds(&slow) > seconds(&usual) * 1.5,
        "{} against {}",
        seconds(&slow),
        seconds(&usual)
    );
    assert!(
        loudness(&slow) < loudness(&usual) / 2.0,
        "{} against {}",
        loudness(&slow),
        loudness(&usual)
    );
    // As loud as it may be, and nothing of it is cut off.
    let mut loud = say("One two three four five", "en-US", false);
    loud.runs[0].style.volume = 220.0;
    let loud = spoken(&builtin, &loud).await.unwrap();
    assert!(
        loudness(&loud) > loudness(&usual) * 1.5,
        "{} against {}",
        loudness(&loud),
        loudness(&usual)
    );
    let most = |pcm: &[i16]| pcm.iter().map(|sample| i32::from(*sample).abs()).max().unwrap();
    assert!(most(&loud) < 30_000 && most(&usual) < 30_000, "{} and {}", most(&loud), most(&usual));
    // The style before does not linger.
    let again = spoken(&builtin, &say("One two three four five", "en-US", false)).await.unwrap();
    assert!((seconds(&again) - seconds(&usual)).abs() < 0.2);

    let file = dir.path().join("written.wav");
    let strange = format!(
        "<genfile file=\"{}\">a</genfile> \u{1F600} & 漢字 {}",
        file.display(),
        "9".repeat(500)
    );
    spoken(&builtin, &say(&strange, "en-US", false)).await.unwrap();
    assert!(!file.exists());
}

#[tokio::test]
async fn the_longest_document_is_spoken() {
    let dir = tempfile::tempdir().unwrap();
    let builtin = builtin(Threads, dir.path());
    let text = "The quick brown fox jumps over the lazy dog. ".repeat(67);
    let pcm = spoken(&builtin, &say(&text, "en-US", false)).await.unwrap();
    assert!(seconds(&pcm) > 120.0, "{} s", seconds(&pcm));
}

/// The first `crashes` helpers give one piece and die; what follows is [`Threads`].
struct Crashing {
    crashes: usize,
    started: Arc<AtomicUsize>,
}

impl Start for Crashing {
    fn start(&self) -> io::Result<Helper> {
        if self.started.fetch_add(1, Ordering::SeqCst) >= self.crashes {
            return Threads.start();
        }
        on_a_thread(|mut input, mut output| {
            // The folder and the beginning of the prompt come in, one piece goes out, and that is all.
            let _ = input.read(&mut [0; 8]);
            let _ = output.write_all(&frame(PIECE, &[0; 3_200]));
        })
    }
}

#[tokio::test]
async fn a_helper_that_dies_fails_its_prompt_and_the_next_one_works() {
    let dir = tempfile::tempdir().unwrap();
    let started = Arc::new(AtomicUsize::new(0));
    let builtin = builtin(Crashing { crashes: 1, started: Arc::clone(&started) }, dir.path());
    let text = say("Hello", "en-US", false);
    assert!(matches!(spoken(&builtin, &text).await, Err(SpeechError::Helper(_))));
    assert!(!spoken(&builtin, &text).await.unwrap().is_empty());
    assert!(!spoken(&builtin, &text).await.unwrap().is_empty());
    assert_eq!(started.load(Ordering::SeqCst), 2, "the healthy one is kept");
}

/// Never starts.
struct Broken;

impl Start for Broken {
    fn start(&self) -> io::Result<Helper> {
        Err(io::ErrorKind::NotFound.into())
    }
}

#[tokio::test]
async fn failures_in_a_row_are_waited_out_longer_and_longer() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::stepped(Timestamp::from_micros(0));
    let builtin = Builtin::with(Box::new(Broken), dir.path().to_owned(), clock.clone());
    let text = say("Hello", "en-US", false);
    let mut waits = Vec::new();
    for _ in 0..12 {
        match spoken(&builtin, &text).await.unwrap_err() {
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
