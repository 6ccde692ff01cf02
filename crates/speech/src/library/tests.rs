//! The library with providers and a file server of the test's own.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rstest::rstest;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::{FileFetch, Library, kept_for, tone};
use crate::provider::{BoxFuture, Provider, Sink, SpeechError};
use crate::script::Say;
use egress::{FetchedFile, FileResponse, OnChunk};
use machine::Sound;
use media::opus::{Decoder, Rate};
use media::prompt::{Prompt, Slot};
use model::Clock;
use model::Timestamp;
use xml::ast::{DocUrl, Speech, SpeechNode, Voice};

/// Says as many frames as the text has bytes, when it is let.
struct Parrot {
    name: &'static str,
    language: &'static str,
    said: AtomicUsize,
    gate: Option<Notify>,
    fault: Option<Fault>,
}

#[derive(Clone, Copy)]
enum Fault {
    AtOnce,
    Mute,
    Midway,
}

impl Parrot {
    fn new(name: &'static str, language: &'static str) -> Self {
        Self { name, language, said: AtomicUsize::new(0), gate: None, fault: None }
    }
}

impl Provider for Parrot {
    fn name(&self) -> &'static str {
        self.name
    }

    fn speaks(&self, language: &str) -> bool {
        language.starts_with(self.language)
    }

    fn synthesise<'a>(
        &'a self,
        say: &'a Say,
        sink: &'a mut Sink,
    ) -> BoxFuture<'a, Result<(), SpeechError>> {
        Box::pin(async move {
            self.said.fetch_add(1, Ordering::SeqCst);
            match self.fault {
                Some(Fault::AtOnce) => return Err(SpeechError::Engine("no voice".to_owned())),
                Some(Fault::Mute) => return Ok(()),
                Some(Fault::Midway) | None => {}
            }
            for (n, _) in say.plain().bytes().enumerate() {
                sink.push(16_000, vec![1_000; 320]).await?;
                if n == 0 {
                    if matches!(self.fault, Some(Fault::Midway)) {
                        return Err(SpeechError::Engine("hoarse".to_owned()));
                    }
                    if let Some(gate) = &self.gate {
                        gate.notified().await;
                    }
                }
            }
            Ok(())
        })
    }
}

/// Gives what is laid out, one answer a fetch; keeps the tags that it was asked with.
#[derive(Default)]
struct Shelf {
    answers: Mutex<VecDeque<Result<FileResponse, String>>>,
    asked: Mutex<Vec<Option<String>>>,
}

impl FileFetch for Shelf {
    fn fetch<'a>(
        &'a self,
        _: &'a DocUrl,
        _: usize,
        etag: Option<&'a str>,
    ) -> BoxFuture<'a, Result<FileResponse, String>> {
        self.asked.lock().unwrap().push(etag.map(str::to_owned));
        let answer =
            self.answers.lock().unwrap().pop_front().unwrap_or(Err("nothing there".to_owned()));
        Box::pin(std::future::ready(answer))
    }
}

struct House {
    library: Library,
    clock: Clock,
    shelf: Arc<Shelf>,
}

fn house(providers: &[&Arc<Parrot>]) -> House {
    let clock = Clock::stepped(Timestamp::from_micros(0));
    let shelf = Arc::new(Shelf::default());
    let providers: Vec<Arc<dyn Provider>> =
        providers.iter().map(|&p| Arc::clone(p) as Arc<dyn Provider>).collect();
    let last = providers.last().cloned().unwrap_or_else(|| Arc::new(Parrot::new("none", "en")));
    let library = Library::with(
        providers,
        last,
        1 << 20,
        None,
        clock.clone(),
        Handle::current(),
        shelf.clone(),
    );
    House { library, clock, shelf }
}

fn speak(text: &str, language: &str) -> Sound {
    let speech = Speech(vec![SpeechNode::Text(text.to_owned())]);
    Sound::Speak { speech, voice: Voice::Woman, language: Some(language.to_owned()) }
}

fn file() -> Sound {
    Sound::File { url: DocUrl("https://example.com/a.wav".into()) }
}

fn answer(
    name: &str,
    etag: Option<&str>,
    cache_control: Option<&str>,
) -> Result<FileResponse, String> {
    let path = format!("{}/../../fixtures/audio/{name}", env!("CARGO_MANIFEST_DIR"));
    Ok(FileResponse::File(FetchedFile {
        bytes: Bytes::from(std::fs::read(path).unwrap()),
        etag: etag.map(str::to_owned),
        cache_control: cache_control.map(str::to_owned),
    }))
}

/// Waits until it is complete or failed, and gives its frames.
async fn frames(prompt: &Arc<Prompt>) -> Vec<media::prompt::Frame> {
    while !prompt.is_settled() {
        tokio::task::yield_now().await;
    }
    let (mut cursor, mut frames) = (prompt.cursor(), Vec::new());
    while let Slot::Ready(frame) = cursor.next() {
        frames.push(frame);
    }
    frames
}

#[tokio::test]
async fn calls_share_one_prompt_made_once_and_may_begin_before_it_is_whole() {
    let mut parrot = Parrot::new("parrot", "en");
    parrot.gate = Some(Notify::new());
    let parrot = Arc::new(parrot);
    let house = house(&[&parrot]);
    let first = house.library.prompt(&speak("hello", "en-US"));
    let second = house.library.prompt(&speak("hello", "en-US"));
    assert!(Arc::ptr_eq(&first, &second));
    let mut cursor = first.cursor();
    while cursor.next() == Slot::Pending {
        tokio::task::yield_now().await;
    }
    assert_eq!(cursor.next(), Slot::Pending, "the first frame is there, the second is not");
    parrot.gate.as_ref().unwrap().notify_one();
    assert_eq!(frames(&first).await.len(), 5);
    assert!(Arc::ptr_eq(&first, &house.library.prompt(&speak("hello", "en-US"))));
    assert!(!Arc::ptr_eq(&first, &house.library.prompt(&speak("hello", "en-GB"))));
    assert_eq!(parrot.said.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn the_next_provider_takes_over_and_a_failed_prompt_is_made_again() {
    let mut broken = Parrot::new("broken", "en");
    broken.fault = Some(Fault::AtOnce);
    let (broken, sound) = (Arc::new(broken), Arc::new(Parrot::new("sound", "en")));
    let with_help = house(&[&broken, &sound]);
    let prompt = with_help.library.prompt(&speak("abc", "en-US"));
    assert_eq!(frames(&prompt).await.len(), 3);
    assert_eq!(prompt.failure(), None);
    assert!(Arc::ptr_eq(&prompt, &with_help.library.prompt(&speak("abc", "en-US"))));
    // A second choice is kept for a minute: the first may be back by then.
    while Arc::ptr_eq(&prompt, &with_help.library.prompt(&speak("abc", "en-US"))) {
        with_help.clock.step(Duration::from_secs(60));
        tokio::task::yield_now().await;
    }

    let alone = house(&[&broken]);
    let prompt = alone.library.prompt(&speak("abc", "en-US"));
    assert!(frames(&prompt).await.is_empty());
    assert_eq!(prompt.failure(), Some("broken: could not speak: no voice"));
    assert!(!Arc::ptr_eq(&prompt, &alone.library.prompt(&speak("abc", "en-US"))));
}

#[tokio::test]
async fn words_that_make_no_sound_are_a_failure_and_signs_are_not() {
    let mut mute = Parrot::new("mute", "en");
    mute.fault = Some(Fault::Mute);
    let house = house(&[&Arc::new(mute)]);
    let words = house.library.prompt(&speak("abc", "en-US"));
    frames(&words).await;
    assert_eq!(words.failure(), Some("mute: could not speak: no sound came"));
    let signs = house.library.prompt(&speak("...", "en-US"));
    frames(&signs).await;
    assert_eq!(signs.failure(), None);
}

#[tokio::test]
async fn what_failed_midway_is_not_begun_again_in_another_voice() {
    let mut hoarse = Parrot::new("hoarse", "en");
    hoarse.fault = Some(Fault::Midway);
    let (hoarse, sound) = (Arc::new(hoarse), Arc::new(Parrot::new("sound", "en")));
    let house = house(&[&hoarse, &sound]);
    let prompt = house.library.prompt(&speak("abc", "en-US"));
    assert_eq!(frames(&prompt).await.len(), 1);
    assert_eq!(prompt.failure(), Some("speak: hoarse"));
    assert_eq!(sound.said.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_language_goes_to_whom_it_can_and_else_to_the_nearest() {
    let (english, russian) =
        (Arc::new(Parrot::new("english", "en")), Arc::new(Parrot::new("russian", "ru")));
    let house = house(&[&english, &russian, &english]);
    frames(&house.library.prompt(&speak("a", "ru-RU"))).await;
    assert_eq!(russian.said.load(Ordering::SeqCst), 1);
    assert_eq!(frames(&house.library.prompt(&speak("ab", "hi-IN"))).await.len(), 2);
    assert_eq!((english.said.load(Ordering::SeqCst), russian.said.load(Ordering::SeqCst)), (1, 1));
}

#[tokio::test]
async fn breaks_are_silence_between_pieces() {
    let parrot = Arc::new(Parrot::new("parrot", "en"));
    let house = house(&[&parrot]);
    let speech = Speech(vec![
        SpeechNode::Text("ab".to_owned()),
        SpeechNode::Break { millis: 110 },
        SpeechNode::Text("c".to_owned()),
    ]);
    let prompt = house.library.prompt(&Sound::Speak { speech, voice: Voice::Man, language: None });
    assert_eq!(frames(&prompt).await.len(), 2 + 6 + 1);
    let nothing = house.library.prompt(&Sound::Speak {
        speech: Speech::default(),
        voice: Voice::Man,
        language: None,
    });
    assert!(frames(&nothing).await.is_empty());
    assert_eq!(nothing.failure(), None);
}

#[rstest]
#[case(20, 1)]
#[case(30, 2)]
#[case(1_000, 50)]
#[case(14_400_000, 720_000)]
#[tokio::test]
async fn silence_is_as_long_as_asked(#[case] ms: u32, #[case] count: usize) {
    let prompt = house(&[]).library.prompt(&Sound::Silence { ms });
    assert_eq!(frames(&prompt).await.len(), count);
}

#[tokio::test]
async fn endless_silence_is_refused() {
    let prompt = house(&[]).library.prompt(&Sound::Silence { ms: u32::MAX });
    frames(&prompt).await;
    assert_eq!(prompt.failure(), Some("play more than 14400 s"));
}

#[tokio::test]
async fn a_tone_has_its_pitch_and_length_and_no_click() {
    let prompt = house(&[]).library.prompt(&Sound::Tone { hz: 800, ms: 400 });
    let (mut decoder, mut pcm) = (Decoder::new(Rate::Hz16000), Vec::new());
    let frames = frames(&prompt).await;
    assert_eq!(frames.len(), 20);
    for frame in frames {
        decoder.decode(Some(&frame), false, &mut pcm).unwrap();
    }
    let middle = &pcm[1_600..4_800];
    let crossings = middle.windows(2).filter(|w| w[0] < 0 && w[1] >= 0).count();
    assert!(crossings.abs_diff(160) <= 2, "{crossings}");

    let made = tone(800, 400);
    assert_eq!((made.len(), made[0], made[6_399]), (6_400, 0, 0));
    assert!(made[..16].iter().chain(&made[6_384..]).all(|s| s.abs() < 3_000));
    assert!(tone(0, 0).is_empty());
}

#[tokio::test]
async fn a_file_is_fetched_once_a_minute_and_asked_by_its_tag_after_that() {
    let house = house(&[]);
    house.shelf.answers.lock().unwrap().extend([
        answer("tone-pcm16.wav", Some("\"v1\""), None),
        Ok(FileResponse::NotModified),
        answer("tone-mono.mp3", None, Some("public, max-age=5")),
    ]);
    let first = house.library.prompt(&file());
    let heard = frames(&first).await;
    assert_eq!((heard.len(), first.failure()), (25, None));
    house.clock.step(Duration::from_secs(59));
    assert!(Arc::ptr_eq(&first, &house.library.prompt(&file())));
    house.clock.step(Duration::from_secs(1));
    let second = house.library.prompt(&file());
    assert!(!Arc::ptr_eq(&first, &second));
    assert_eq!(frames(&second).await, heard);
    assert!(Arc::ptr_eq(&second, &house.library.prompt(&file())));
    house.clock.step(Duration::from_secs(60));
    assert_ne!(frames(&house.library.prompt(&file())).await, heard);
    house.clock.step(Duration::from_secs(5));
    let gone = house.library.prompt(&file());
    frames(&gone).await;
    assert_eq!(gone.failure(), Some("https://example.com/a.wav: fetch the file: nothing there"));
    let asked = house.shelf.asked.lock().unwrap().clone();
    assert_eq!(asked, [None, Some("\"v1\"".to_owned()), Some("\"v1\"".to_owned()), None]);
}

/// Gives a file in two pieces, the second when it is told to; and what comes of it in the end.
struct Dripping {
    pieces: [Bytes; 2],
    go: Notify,
    breaks: bool,
}

impl FileFetch for Dripping {
    fn fetch<'a>(
        &'a self,
        _: &'a DocUrl,
        _: usize,
        _: Option<&'a str>,
    ) -> BoxFuture<'a, Result<FileResponse, String>> {
        panic!("it comes in pieces")
    }

    fn fetch_in_pieces<'a>(
        &'a self,
        _: &'a DocUrl,
        _: usize,
        _: Option<&'a str>,
        on_piece: OnChunk<'a>,
    ) -> BoxFuture<'a, Result<FileResponse, String>> {
        Box::pin(async move {
            on_piece(self.pieces[0].clone());
            self.go.notified().await;
            if self.breaks {
                return Err("it broke off".to_owned());
            }
            on_piece(self.pieces[1].clone());
            let bytes = Bytes::from(self.pieces.concat());
            Ok(FileResponse::File(FetchedFile { bytes, etag: None, cache_control: None }))
        })
    }
}

#[rstest]
#[case("tone-pcm16.wav", false)]
#[case("tone-mulaw.wav", false)]
#[case("tone-mono.mp3", false)]
#[case("tone-pcm16.wav", true)]
#[tokio::test(flavor = "multi_thread")]
async fn s5_3_a_file_is_played_as_soon_as_200_ms_of_it_are_there(
    #[case] name: &str,
    #[case] breaks: bool,
) {
    let whole = {
        let house = house(&[]);
        house.shelf.answers.lock().unwrap().push_back(answer(name, None, None));
        frames(&house.library.prompt(&file())).await
    };
    let bytes = Bytes::from(
        std::fs::read(format!("{}/../../fixtures/audio/{name}", env!("CARGO_MANIFEST_DIR")))
            .unwrap(),
    );
    let half = bytes.len() * 7 / 10;
    let pieces = [bytes.slice(..half), bytes.slice(half..)];
    let fetch = Arc::new(Dripping { pieces, go: Notify::new(), breaks });
    let last: Arc<dyn Provider> = Arc::new(Parrot::new("none", "en"));
    let clock = Clock::stepped(Timestamp::from_micros(0));
    let library =
        Library::with(Vec::new(), last, 1 << 20, None, clock, Handle::current(), fetch.clone());
    let prompt = library.prompt(&file());
    let mut cursor = prompt.cursor();
    let mut early = Vec::new();
    while early.len() < 8 {
        match cursor.next() {
            Slot::Ready(frame) => early.push(frame),
            Slot::Pending => tokio::task::yield_now().await,
            Slot::End | Slot::Failed => panic!("{:?}", prompt.failure()),
        }
    }
    assert!(!prompt.is_settled(), "the rest is still to come");
    fetch.go.notify_one();
    let all = frames(&prompt).await;
    assert_eq!(early, whole[..8]);
    match breaks {
        false => assert_eq!((all, prompt.failure()), (whole, None)),
        true => assert_eq!(
            prompt.failure(),
            Some("https://example.com/a.wav: fetch the file: it broke off")
        ),
    }
}

#[tokio::test]
async fn a_file_that_is_no_sound_fails_with_its_reason() {
    let house = house(&[]);
    let page =
        FetchedFile { bytes: Bytes::from_static(b"<html>"), etag: None, cache_control: None };
    house.shelf.answers.lock().unwrap().push_back(Ok(FileResponse::File(page)));
    let prompt = house.library.prompt(&file());
    assert!(frames(&prompt).await.is_empty());
    assert_eq!(
        prompt.failure(),
        Some(
            "https://example.com/a.wav: play the file: it is neither WAV, MP3 nor Ogg but a page or an XML document"
        )
    );
}

#[rstest]
#[case(None, 60)]
#[case(Some("max-age=300"), 300)]
#[case(Some("Public, Max-Age=\"10\""), 10)]
#[case(Some("no-store"), 0)]
#[case(Some("max-age=300, no-cache"), 0)]
#[case(Some("max-age=soon"), 60)]
#[case(Some("max-age=99999999999"), 86_400)]
#[case(Some("must-revalidate"), 60)]
fn cache_control_says_how_long(#[case] header: Option<&str>, #[case] seconds: u64) {
    assert_eq!(kept_for(header), Duration::from_secs(seconds));
}

#[tokio::test]
async fn text_in_another_writing_goes_to_a_voice_that_reads_it() {
    let (english, hindi) = (Arc::new(Parrot::new("en", "en")), Arc::new(Parrot::new("hi", "hi")));
    let both = house(&[&english, &hindi]);
    let said = |parrot: &Parrot| parrot.said.load(Ordering::SeqCst);
    assert_eq!(
        frames(&both.library.prompt(&speak("one एक two", "en-US"))).await.len(),
        "one".len() + "एक".len() + 3
    );
    assert_eq!((said(&english), said(&hindi)), (2, 1));

    // Nobody does: the rest is said, and what has no rest fails.
    let one = house(&[&english]);
    assert_eq!(frames(&one.library.prompt(&speak("one एक two", "en-US"))).await.len(), 6);
    let nothing = one.library.prompt(&speak("एक", "en-US"));
    assert!(frames(&nothing).await.is_empty());
    let why = nothing.failure().unwrap_or_default();
    assert!(why.contains("no voice here reads Devanagari"), "{why}");
}
