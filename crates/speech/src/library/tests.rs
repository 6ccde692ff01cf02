//! The library with fake providers and a fake file server.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rstest::rstest;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::{FETCHED_MIB_SHARE, FileFetch, Inner, Library, file_lifetime, tone};
use crate::language::Speaker;
use crate::memory::{FreeMemory, PromptMemory};
use crate::provider::{BoxFuture, Provider, Sink, SpeechError};
use crate::script::Segment;
use egress::{FetchedFile, FileResponse, FileSink};
use machine::Sound;
use media::opus::{Decoder, Rate};
use media::prompt::{FrameState, Prompt};
use model::{AuthId, Clock, Timestamp};
use xml::ast::{DocUrl, Speech, SpeechNode, Voice};

/// Speaks one frame per byte of the text. The gate holds it after the first frame.
struct FakeProvider {
    name: &'static str,
    language: &'static str,
    spoken: AtomicUsize,
    gate: Option<Notify>,
    fault: Option<Fault>,
}

#[derive(Clone, Copy)]
enum Fault {
    Immediately,
    NoAudio,
    Midway,
}

impl FakeProvider {
    fn new(name: &'static str, language: &'static str) -> Self {
        Self { name, language, spoken: AtomicUsize::new(0), gate: None, fault: None }
    }
}

impl Provider for FakeProvider {
    fn name(&self) -> &'static str {
        self.name
    }

    fn can_speak(&self, language: &str) -> bool {
        language.starts_with(self.language)
    }

    fn voice(&self, speaker: &Speaker) -> String {
        format!("{} {}", self.name, speaker.language)
    }

    fn synthesise<'a>(
        &'a self,
        segment: &'a Segment,
        sink: &'a mut Sink,
    ) -> BoxFuture<'a, Result<(), SpeechError>> {
        Box::pin(async move {
            self.spoken.fetch_add(1, Ordering::SeqCst);
            match self.fault {
                Some(Fault::Immediately) => return Err(SpeechError::Engine("no voice".to_owned())),
                Some(Fault::NoAudio) => return Ok(()),
                Some(Fault::Midway) | None => {}
            }
            for (n, _) in segment.plain().bytes().enumerate() {
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

/// Returns the scripted responses in order and records the requested ETags.
#[derive(Default)]
struct FakeServer {
    responses: Mutex<VecDeque<Result<FileResponse, String>>>,
    etags: Mutex<Vec<Option<String>>>,
}

impl FileFetch for FakeServer {
    fn fetch<'a>(
        &'a self,
        _: Option<&'a AuthId>,
        _: &'a DocUrl,
        _: usize,
        etag: Option<&'a str>,
        _: &'a mut dyn FileSink,
    ) -> BoxFuture<'a, Result<FileResponse, String>> {
        self.etags.lock().unwrap().push(etag.map(str::to_owned));
        let response =
            self.responses.lock().unwrap().pop_front().unwrap_or(Err("not found".to_owned()));
        Box::pin(std::future::ready(response))
    }
}

struct Fixture {
    library: Library,
    clock: Clock,
    server: Arc<FakeServer>,
}

fn fixture(providers: &[&Arc<FakeProvider>]) -> Fixture {
    let clock = Clock::stepped(Timestamp::from_micros(0));
    let server = Arc::new(FakeServer::default());
    let providers: Vec<Arc<dyn Provider>> =
        providers.iter().map(|&p| Arc::clone(p) as Arc<dyn Provider>).collect();
    let last =
        providers.last().cloned().unwrap_or_else(|| Arc::new(FakeProvider::new("none", "en")));
    let memory = PromptMemory::new(None, clock.clone());
    let library = Library::with_inner(Inner::with_providers(
        providers,
        last,
        1 << 20,
        (None, memory),
        clock.clone(),
        Handle::current(),
        server.clone(),
    ));
    Fixture { library, clock, server }
}

fn speak(text: &str, language: &str) -> Sound {
    let speech = Speech(vec![SpeechNode::Text(text.to_owned())]);
    Sound::Speak { speech, voice: Voice::Woman, language: Some(language.to_owned()) }
}

fn file() -> Sound {
    Sound::File { url: DocUrl("https://example.com/a.wav".into()) }
}

fn response(
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

/// Waits until the prompt is complete or failed and returns its frames.
async fn frames(prompt: &Arc<Prompt>) -> Vec<media::prompt::Frame> {
    while !prompt.is_finished() {
        tokio::task::yield_now().await;
    }
    let (mut cursor, mut frames) = (prompt.cursor(), Vec::new());
    while let FrameState::Ready(frame) = cursor.next() {
        frames.push(frame);
    }
    frames
}

#[tokio::test]
async fn speech_that_no_call_needs_any_more_is_not_completed() {
    let mut provider = FakeProvider::new("provider", "en");
    provider.gate = Some(Notify::new());
    let provider = Arc::new(provider);
    let fixture = fixture(&[&provider]);
    let prompt = fixture.library.prompt(&speak("hello", "en-US"));
    let mut cursor = prompt.cursor();
    while !matches!(cursor.next(), FrameState::Ready(_)) {
        tokio::task::yield_now().await;
    }
    let gone = Arc::downgrade(&prompt);
    drop((prompt, cursor));
    provider.gate.as_ref().unwrap().notify_one();
    let freed = async {
        while gone.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), freed).await.expect("it is not kept");
    let again = fixture.library.prompt(&speak("hello", "en-US"));
    provider.gate.as_ref().unwrap().notify_one();
    assert_eq!(frames(&again).await.len(), 5, "it is spoken again");
    assert_eq!(provider.spoken.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn calls_share_one_prompt_and_may_play_it_before_it_is_complete() {
    let mut provider = FakeProvider::new("provider", "en");
    provider.gate = Some(Notify::new());
    let provider = Arc::new(provider);
    let fixture = fixture(&[&provider]);
    let first = fixture.library.prompt(&speak("hello", "en-US"));
    let second = fixture.library.prompt(&speak("hello", "en-US"));
    assert!(Arc::ptr_eq(&first, &second));
    let mut cursor = first.cursor();
    while cursor.next() == FrameState::Pending {
        tokio::task::yield_now().await;
    }
    assert_eq!(cursor.next(), FrameState::Pending, "the first frame is there, the second is not");
    provider.gate.as_ref().unwrap().notify_one();
    assert_eq!(frames(&first).await.len(), 5);
    assert!(Arc::ptr_eq(&first, &fixture.library.prompt(&speak("hello", "en-US"))));
    assert!(!Arc::ptr_eq(&first, &fixture.library.prompt(&speak("hello", "en-GB"))));
    assert_eq!(provider.spoken.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn the_next_provider_is_tried_and_a_failed_prompt_is_built_again() {
    let mut broken = FakeProvider::new("broken", "en");
    broken.fault = Some(Fault::Immediately);
    let (broken, sound) = (Arc::new(broken), Arc::new(FakeProvider::new("sound", "en")));
    let fallback = fixture(&[&broken, &sound]);
    let prompt = fallback.library.prompt(&speak("abc", "en-US"));
    assert_eq!(frames(&prompt).await.len(), 3);
    assert_eq!(prompt.failure(), None);
    let voices: Vec<String> = prompt.voices().iter().map(ToString::to_string).collect();
    assert_eq!(voices, ["sound sound en-US, en-US"], "the voice that was heard");
    assert!(Arc::ptr_eq(&prompt, &fallback.library.prompt(&speak("abc", "en-US"))));
    // A fallback's prompt expires after a minute, because the first provider may work again.
    while Arc::ptr_eq(&prompt, &fallback.library.prompt(&speak("abc", "en-US"))) {
        fallback.clock.step(Duration::from_secs(60));
        tokio::task::yield_now().await;
    }

    let alone = fixture(&[&broken]);
    let prompt = alone.library.prompt(&speak("abc", "en-US"));
    assert!(frames(&prompt).await.is_empty());
    assert_eq!(prompt.failure(), Some("broken: could not speak: no voice"));
    assert!(prompt.voices().is_empty());
    assert!(!Arc::ptr_eq(&prompt, &alone.library.prompt(&speak("abc", "en-US"))));
}

#[tokio::test]
async fn words_without_audio_are_a_failure_but_signs_are_not() {
    let mut mute = FakeProvider::new("mute", "en");
    mute.fault = Some(Fault::NoAudio);
    let fixture = fixture(&[&Arc::new(mute)]);
    let words = fixture.library.prompt(&speak("abc", "en-US"));
    frames(&words).await;
    assert_eq!(words.failure(), Some("mute: could not speak: no audio was produced"));
    let signs = fixture.library.prompt(&speak("...", "en-US"));
    frames(&signs).await;
    assert_eq!(signs.failure(), None);
}

#[tokio::test]
async fn a_failure_midway_is_not_retried_with_another_voice() {
    let mut hoarse = FakeProvider::new("hoarse", "en");
    hoarse.fault = Some(Fault::Midway);
    let (hoarse, sound) = (Arc::new(hoarse), Arc::new(FakeProvider::new("sound", "en")));
    let fixture = fixture(&[&hoarse, &sound]);
    let prompt = fixture.library.prompt(&speak("abc", "en-US"));
    assert_eq!(frames(&prompt).await.len(), 1);
    assert_eq!(prompt.failure(), Some("could not speak: hoarse"));
    assert_eq!(sound.spoken.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_language_goes_to_a_provider_that_supports_it_or_to_the_nearest_voice() {
    let (english, russian) = (
        Arc::new(FakeProvider::new("english", "en")),
        Arc::new(FakeProvider::new("russian", "ru")),
    );
    let fixture = fixture(&[&english, &russian, &english]);
    frames(&fixture.library.prompt(&speak("a", "ru-RU"))).await;
    assert_eq!(russian.spoken.load(Ordering::SeqCst), 1);
    assert_eq!(frames(&fixture.library.prompt(&speak("ab", "hi-IN"))).await.len(), 2);
    assert_eq!(
        (english.spoken.load(Ordering::SeqCst), russian.spoken.load(Ordering::SeqCst)),
        (1, 1)
    );
}

#[tokio::test]
async fn breaks_are_silence_between_segments() {
    let provider = Arc::new(FakeProvider::new("provider", "en"));
    let fixture = fixture(&[&provider]);
    let speech = Speech(vec![
        SpeechNode::Text("ab".to_owned()),
        SpeechNode::Break { millis: 110 },
        SpeechNode::Text("c".to_owned()),
    ]);
    let prompt =
        fixture.library.prompt(&Sound::Speak { speech, voice: Voice::Man, language: None });
    assert_eq!(frames(&prompt).await.len(), 2 + 6 + 1);
    let nothing = fixture.library.prompt(&Sound::Speak {
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
async fn silence_has_the_requested_length(#[case] ms: u32, #[case] count: usize) {
    let prompt = fixture(&[]).library.prompt(&Sound::Silence { ms });
    assert_eq!(frames(&prompt).await.len(), count);
}

#[tokio::test]
async fn too_long_a_silence_is_refused() {
    let prompt = fixture(&[]).library.prompt(&Sound::Silence { ms: u32::MAX });
    frames(&prompt).await;
    assert_eq!(prompt.failure(), Some("the audio is longer than 14400 s"));
}

#[tokio::test]
async fn a_tone_has_the_right_pitch_and_length_and_no_click() {
    let prompt = fixture(&[]).library.prompt(&Sound::Tone { hz: 800, ms: 400 });
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
async fn a_file_is_fetched_once_a_minute_and_revalidated_by_its_etag() {
    let fixture = fixture(&[]);
    fixture.server.responses.lock().unwrap().extend([
        response("tone-pcm16.wav", Some("\"v1\""), None),
        Ok(FileResponse::NotModified),
        response("tone-mono.mp3", None, Some("public, max-age=5")),
    ]);
    let first = fixture.library.prompt(&file());
    let played = frames(&first).await;
    assert_eq!((played.len(), first.failure()), (25, None));
    fixture.clock.step(Duration::from_secs(59));
    assert!(Arc::ptr_eq(&first, &fixture.library.prompt(&file())));
    fixture.clock.step(Duration::from_secs(1));
    let second = fixture.library.prompt(&file());
    assert!(!Arc::ptr_eq(&first, &second));
    assert_eq!(frames(&second).await, played);
    assert!(Arc::ptr_eq(&second, &fixture.library.prompt(&file())));
    fixture.clock.step(Duration::from_secs(60));
    assert_ne!(frames(&fixture.library.prompt(&file())).await, played);
    fixture.clock.step(Duration::from_secs(5));
    let gone = fixture.library.prompt(&file());
    frames(&gone).await;
    assert_eq!(gone.failure(), Some("https://example.com/a.wav: not found"));
    let etags = fixture.server.etags.lock().unwrap().clone();
    assert_eq!(etags, [None, Some("\"v1\"".to_owned()), Some("\"v1\"".to_owned()), None]);
}

/// Delivers a file in two chunks, the second one on notification, and then succeeds or fails.
struct ChunkedFile {
    chunks: [Bytes; 2],
    proceed: Notify,
    fails: bool,
}

impl FileFetch for ChunkedFile {
    fn fetch<'a>(
        &'a self,
        _: Option<&'a AuthId>,
        _: &'a DocUrl,
        _: usize,
        _: Option<&'a str>,
        sink: &'a mut dyn FileSink,
    ) -> BoxFuture<'a, Result<FileResponse, String>> {
        Box::pin(async move {
            sink.chunk(self.chunks[0].clone());
            self.proceed.notified().await;
            if self.fails {
                return Err("connection lost".to_owned());
            }
            sink.chunk(self.chunks[1].clone());
            let bytes = Bytes::from(self.chunks.concat());
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
async fn s5_3_a_file_is_played_as_soon_as_200_ms_are_received(
    #[case] name: &str,
    #[case] fails: bool,
) {
    let whole = {
        let fixture = fixture(&[]);
        fixture.server.responses.lock().unwrap().push_back(response(name, None, None));
        frames(&fixture.library.prompt(&file())).await
    };
    let bytes = Bytes::from(
        std::fs::read(format!("{}/../../fixtures/audio/{name}", env!("CARGO_MANIFEST_DIR")))
            .unwrap(),
    );
    let half = bytes.len() * 7 / 10;
    let chunks = [bytes.slice(..half), bytes.slice(half..)];
    let fetch = Arc::new(ChunkedFile { chunks, proceed: Notify::new(), fails });
    let library = library_of(fetch.clone(), None);
    let prompt = library.prompt(&file());
    let mut cursor = prompt.cursor();
    let mut early = Vec::new();
    while early.len() < 8 {
        match cursor.next() {
            FrameState::Ready(frame) => early.push(frame),
            FrameState::Pending => tokio::task::yield_now().await,
            FrameState::End | FrameState::Failed => panic!("{:?}", prompt.failure()),
        }
    }
    assert!(!prompt.is_finished(), "the rest is still to come");
    fetch.proceed.notify_one();
    let all = frames(&prompt).await;
    assert_eq!(early, whole[..8]);
    match fails {
        false => assert_eq!((all, prompt.failure()), (whole, None)),
        true => assert_eq!(prompt.failure(), Some("https://example.com/a.wav: connection lost")),
    }
}

/// A library without voices.
fn library_of(fetch: Arc<dyn FileFetch>, free_memory: Option<FreeMemory>) -> Library {
    library_at(&Clock::stepped(Timestamp::from_micros(0)), fetch, free_memory)
}

fn library_at(
    clock: &Clock,
    fetch: Arc<dyn FileFetch>,
    free_memory: Option<FreeMemory>,
) -> Library {
    let last: Arc<dyn Provider> = Arc::new(FakeProvider::new("none", "en"));
    let memory = PromptMemory::new(free_memory, clock.clone());
    Library::with_inner(Inner::with_providers(
        Vec::new(),
        last,
        1 << 20,
        (None, memory),
        clock.clone(),
        Handle::current(),
        fetch,
    ))
}

/// A server of files that reserves room for each and then never completes it. The paths name the
/// sizes in MiB.
#[derive(Default)]
struct LargeFiles {
    /// Files that have been requested, that have room, and that were cancelled.
    requested: AtomicUsize,
    reserved: AtomicUsize,
    cancelled: Arc<AtomicUsize>,
}

impl LargeFiles {
    fn counts(&self) -> [usize; 3] {
        [&self.requested, &self.reserved, &*self.cancelled].map(|n| n.load(Ordering::SeqCst))
    }

    async fn wait_for(&self, counts: [usize; 3]) {
        self.wait_until(|now| now == counts).await;
    }

    async fn wait_until(&self, test: impl Fn([usize; 3]) -> bool) {
        while !test(self.counts()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Counts its drop.
struct Cancelled(Arc<AtomicUsize>);

impl Drop for Cancelled {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl FileFetch for LargeFiles {
    fn fetch<'a>(
        &'a self,
        _: Option<&'a AuthId>,
        url: &'a DocUrl,
        _: usize,
        _: Option<&'a str>,
        sink: &'a mut dyn FileSink,
    ) -> BoxFuture<'a, Result<FileResponse, String>> {
        Box::pin(async move {
            let _cancelled = Cancelled(self.cancelled.clone());
            self.requested.fetch_add(1, Ordering::SeqCst);
            let mib: usize = url.0.rsplit('/').next().unwrap().parse().unwrap();
            sink.reserve(mib << 20).await;
            self.reserved.fetch_add(1, Ordering::SeqCst);
            std::future::pending().await
        })
    }
}

fn file_of(n: usize, mib: usize) -> Sound {
    Sound::File { url: DocUrl(format!("https://example.com/{n}/{mib}").into()) }
}

#[tokio::test]
async fn files_wait_for_room_and_are_cancelled_once_no_call_needs_them() {
    let server = Arc::new(LargeFiles::default());
    let library = library_of(server.clone(), None);
    let (a, b): (AuthId, AuthId) = ("MAA".into(), "MAB".into());
    let fits = FETCHED_MIB_SHARE / 10;
    let prompts: Vec<_> = (0..20).map(|n| library.prompt_for(&b, &file_of(n, 10))).collect();
    server.wait_for([20, fits, 0]).await;
    let other = library.prompt_for(&a, &file_of(20, 1));
    server.wait_for([21, fits + 1, 0]).await;
    let mut prompts = prompts.into_iter();
    let first = prompts.next();
    drop(prompts);
    server.wait_until(|[_, _, cancelled]| cancelled == 19).await;
    // Some of them may have had the room of others that were cancelled before them.
    let [_, reserved, _] = server.counts();
    let again = library.prompt_for(&b, &file_of(21, 10));
    server.wait_for([22, reserved + 1, 19]).await;
    drop((first, again, other));
    server.wait_for([22, reserved + 1, 22]).await;
}

/// A WAV file of silence, 8 kHz µ-law.
fn silent_file(seconds: u32) -> Result<FileResponse, String> {
    let samples = 8_000 * seconds;
    let mut bytes = b"RIFF\xff\xff\xff\x7fWAVEfmt \x10\0\0\0\x07\0\x01\0".to_vec();
    bytes.extend([8_000_u32.to_le_bytes(), 8_000_u32.to_le_bytes()].concat());
    bytes.extend(b"\x01\0\x08\0data");
    bytes.extend(samples.to_le_bytes());
    bytes.resize(bytes.len() + samples as usize, 0xff);
    let file = FetchedFile { bytes: bytes.into(), etag: None, cache_control: None };
    Ok(FileResponse::File(file))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_file_does_not_wait_for_the_long_files_of_another_account() {
    let server = Arc::new(FakeServer::default());
    let library = library_of(server.clone(), None);
    // More than there are cores.
    let long = std::thread::available_parallelism().unwrap().get() + 2;
    let (a, b): (AuthId, AuthId) = ("MAA".into(), "MAB".into());
    let mut prompts = Vec::new();
    for n in 0..long {
        server.responses.lock().unwrap().push_back(silent_file(1_200));
        let prompt = library.prompt_for(&b, &file_of(n, 0));
        while server.etags.lock().unwrap().len() == n {
            tokio::task::yield_now().await;
        }
        prompts.push(prompt);
    }
    while !prompts.iter().any(|prompt| prompt.cursor().next() != FrameState::Pending) {
        tokio::task::yield_now().await;
    }
    server.responses.lock().unwrap().push_back(silent_file(1));
    let short = library.prompt_for(&a, &file_of(long, 0));
    assert_eq!(frames(&short).await.len(), 50);
    assert!(!prompts.iter().any(|prompt| prompt.is_finished()), "they are still being decoded");
}

#[tokio::test]
async fn a_file_that_takes_too_much_memory_fails_with_a_reason() {
    let server = Arc::new(FakeServer::default());
    let clock = Clock::stepped(Timestamp::from_micros(0));
    let library = library_at(&clock, server.clone(), Some(|| Some(0)));
    // Silence takes 60 bytes a frame.
    server.responses.lock().unwrap().extend([silent_file(3_000), silent_file(60)]);
    let prompt = library.prompt(&file());
    frames(&prompt).await;
    let failure = prompt.failure().unwrap();
    assert!(failure.contains("the account's calls take too much memory: 4 MiB"), "{failure}");
    drop(prompt);
    // The failure is forgotten.
    clock.step(Duration::from_secs(2));
    let next = library.prompt(&file_of(1, 0));
    assert_eq!((frames(&next).await.len(), next.failure()), (3_000, None), "and is given back");
}

#[tokio::test]
async fn a_file_without_audio_fails_with_a_reason() {
    let fixture = fixture(&[]);
    let page =
        FetchedFile { bytes: Bytes::from_static(b"<html>"), etag: None, cache_control: None };
    fixture.server.responses.lock().unwrap().push_back(Ok(FileResponse::File(page)));
    let prompt = fixture.library.prompt(&file());
    assert!(frames(&prompt).await.is_empty());
    assert_eq!(
        prompt.failure(),
        Some(
            "https://example.com/a.wav: could not play the file: it is an HTML or XML document, not WAV, MP3 or Ogg"
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
fn cache_control_sets_the_lifetime(#[case] header: Option<&str>, #[case] seconds: u64) {
    assert_eq!(file_lifetime(header), Duration::from_secs(seconds));
}

#[tokio::test]
async fn text_in_another_writing_system_is_spoken_by_a_voice_that_supports_it() {
    let (english, hindi) =
        (Arc::new(FakeProvider::new("en", "en")), Arc::new(FakeProvider::new("hi", "hi")));
    let both = fixture(&[&english, &hindi]);
    let spoken = |provider: &FakeProvider| provider.spoken.load(Ordering::SeqCst);
    assert_eq!(
        frames(&both.library.prompt(&speak("one एक two", "en-US"))).await.len(),
        "one".len() + "एक".len() + 3
    );
    assert_eq!((spoken(&english), spoken(&hindi)), (2, 1));

    // Without such a voice the rest is spoken, and a prompt with nothing else fails.
    let one = fixture(&[&english]);
    assert_eq!(frames(&one.library.prompt(&speak("one एक two", "en-US"))).await.len(), 6);
    let nothing = one.library.prompt(&speak("एक", "en-US"));
    assert!(frames(&nothing).await.is_empty());
    let reason = nothing.failure().unwrap_or_default();
    assert!(reason.contains("no voice reads Devanagari"), "{reason}");
}
