//! Every sound a call may play, as a prompt: asked for at any time, given at once, filled in behind.
//!
//! Text goes to the providers in turn, files are fetched and decoded, tones and silence are made here. Calls
//! that want the same sound share one prompt, also while it is still being made.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::builtin::Builtin;
use super::cache::{Cache, Found, Kept};
use super::config::{ProviderName, SpeechConfig};
use super::espeak::Espeak;
use super::file;
use super::frames::FrameMaker;
use super::http::EndpointError;
use super::language::{Speaker, knows_polly};
use super::openai::OpenAi;
use super::provider::{BoxFuture, Piece, Provider, Sink, SpeechError};
use super::resample::RATE;
use super::script::{Part, Say, Script};
use super::shelf::Shelf;
use super::writing;
use egress::{Egress, FetchedFile, FileResponse, OnChunk};
use machine::Sound;
use media::prompt::{Frame, Prompt, Slot, Writer};
use model::Clock;
use xml::ast::{DocUrl, Voice};

/// A file's bytes (`plivo-xml.md` §5.3).
const FILE_BYTES_MAX: usize = 10 << 20;
/// Characters of its name in a call's record.
const FILE_SHOWN: usize = 150;
/// A file whose server says nothing about keeping it (§5.3).
const FILE_KEPT: Duration = Duration::from_secs(60);
/// However long a server says.
const FILE_KEPT_MAX: Duration = Duration::from_secs(24 * 3_600);
/// What only a second choice could say, until the first is asked again.
const FALLBACK_KEPT: Duration = Duration::from_secs(60);
/// Texts being spoken and files being fetched at a time; more wait, and a slow server keeps no text waiting.
const SPEAKING_MAX: usize = 64;
const FETCHING_MAX: usize = 256;
/// Pieces between a provider and the encoder.
const PIECES: usize = 8;
/// A fade at either end of a tone: without one it clicks.
const FADE_MS: u32 = 5;
/// A tone's height; 12 dB below full scale, about as loud as speech.
const TONE_PEAK: f32 = 8_000.0;
/// Files that are played while they come.
const STREAMING_MAX: usize = 4;

/// Who gets a file for `<Play>`; [`Egress`] in a node.
pub trait FileFetch: Send + Sync {
    /// `url` with all its tries; at most `max` bytes. `etag`: of the copy that we have.
    fn fetch<'a>(
        &'a self,
        url: &'a DocUrl,
        max: usize,
        etag: Option<&'a str>,
    ) -> BoxFuture<'a, Result<FileResponse, String>>;

    /// The same; its bytes are given in order as they come, where they can be. Either all of them are, or none.
    fn fetch_in_pieces<'a>(
        &'a self,
        url: &'a DocUrl,
        max: usize,
        etag: Option<&'a str>,
        _: OnChunk<'a>,
    ) -> BoxFuture<'a, Result<FileResponse, String>> {
        self.fetch(url, max, etag)
    }
}

impl FileFetch for Egress {
    fn fetch<'a>(
        &'a self,
        url: &'a DocUrl,
        max: usize,
        etag: Option<&'a str>,
    ) -> BoxFuture<'a, Result<FileResponse, String>> {
        Box::pin(async move { self.fetch_file(&url.0, max, etag).await.map_err(|e| e.to_string()) })
    }

    fn fetch_in_pieces<'a>(
        &'a self,
        url: &'a DocUrl,
        max: usize,
        etag: Option<&'a str>,
        on_piece: OnChunk<'a>,
    ) -> BoxFuture<'a, Result<FileResponse, String>> {
        let fetch = self.fetch_file_streaming(&url.0, max, etag, on_piece);
        Box::pin(async move { fetch.await.map_err(|e| e.to_string()) })
    }
}

/// The prompts of a node; cheap to clone.
#[derive(Clone)]
pub struct Library {
    inner: Arc<Inner>,
}

struct Inner {
    /// In the order they are asked; the embedded voice is always among them.
    providers: Vec<Arc<dyn Provider>>,
    builtin: Arc<dyn Provider>,
    /// Languages and voices that were already complained about.
    complained: Mutex<BTreeSet<String>>,
    cache: Mutex<Cache>,
    /// What was said before, also by an earlier process.
    shelf: Option<Arc<Shelf>>,
    clock: Clock,
    runtime: Handle,
    fetch: Arc<dyn FileFetch>,
    speaking: Semaphore,
    fetching: Semaphore,
    /// Turns at the processor: the shards want it too. A file may take long, and speech must not wait for that.
    encoding: Arc<Semaphore>,
    decoding: Arc<Semaphore>,
    /// Threads that play files while they come: each waits for one server. Where none is free, a file is waited for.
    streaming: Arc<Semaphore>,
}

impl Library {
    /// A library that makes its prompts on `runtime`.
    ///
    /// # Errors
    /// `[speech.openai]` can't be used.
    pub fn new(
        config: SpeechConfig,
        clock: Clock,
        runtime: Handle,
        fetch: Arc<dyn FileFetch>,
    ) -> Result<Self, EndpointError> {
        let shelf = Shelf::new(&config, clock.clone()).map(Arc::new);
        let builtin: Arc<dyn Provider> =
            Arc::new(Builtin::new(config.helper, config.data_dir.join("voices"), clock.clone()));
        let mut named = vec![(ProviderName::Builtin, Arc::clone(&builtin))];
        if let Some(espeak) =
            Espeak::find(config.espeak.as_deref(), std::env::var_os("PATH").as_deref())
        {
            named.push((ProviderName::Espeak, Arc::new(espeak)));
        }
        if let Some(openai) = config.openai {
            named.push((ProviderName::OpenAi, Arc::new(OpenAi::new(openai)?)));
        }
        // Stable: the one that was chosen comes first, the others keep their order.
        named.sort_by_key(|(name, _)| *name != config.provider);
        let providers = named.into_iter().map(|(_, provider)| provider).collect();
        let bytes_max = (config.cache_mb as usize) << 20;
        Ok(Self::with(providers, builtin, bytes_max, shelf, clock, runtime, fetch))
    }

    fn with(
        providers: Vec<Arc<dyn Provider>>,
        builtin: Arc<dyn Provider>,
        bytes_max: usize,
        shelf: Option<Arc<Shelf>>,
        clock: Clock,
        runtime: Handle,
        fetch: Arc<dyn FileFetch>,
    ) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let inner = Inner {
            providers,
            builtin,
            complained: Mutex::default(),
            cache: Mutex::new(Cache::new(bytes_max)),
            shelf,
            clock,
            runtime,
            fetch,
            speaking: Semaphore::new(SPEAKING_MAX),
            fetching: Semaphore::new(FETCHING_MAX),
            encoding: Arc::new(Semaphore::new(cores)),
            decoding: Arc::new(Semaphore::new(cores)),
            streaming: Arc::new(Semaphore::new(STREAMING_MAX)),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The prompt for `sound`: ready, or being made from now on. Never waits. Whoever asks early (to have it ready)
    /// and plays later should hold on to it: a file may be stale by then and be fetched again.
    pub fn prompt(&self, sound: &Sound) -> Arc<Prompt> {
        let now = self.inner.clock.now();
        let mut cache = self.inner.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let stale = match cache.find(sound, now) {
            Found::Prompt(prompt) => return prompt,
            Found::Stale { prompt, etag } => etag.map(|etag| (prompt, etag)),
            Found::Nothing => None,
        };
        let (prompt, writer) = Prompt::new();
        cache.begin(sound, &prompt);
        drop(cache);
        let making = Making {
            inner: Arc::clone(&self.inner),
            sound: sound.clone(),
            prompt: Arc::clone(&prompt),
        };
        self.inner.runtime.spawn(making.run(writer, stale));
        prompt
    }
}

fn unread_words(writing: &str) -> String {
    format!(
        "no voice here reads {writing}: install espeak-ng, or configure [speech.openai]; that text is left out"
    )
}

/// One prompt in the making. Dropped before its end, it takes the prompt out of the cache.
struct Making {
    inner: Arc<Inner>,
    sound: Sound,
    prompt: Arc<Prompt>,
}

impl Making {
    async fn run(self, writer: Writer, stale: Option<(Arc<Prompt>, String)>) {
        let mut shelved = false;
        let made = match &self.sound {
            Sound::Speak { speech, voice, language } => {
                let _turn = self.inner.speaking.acquire().await;
                self.complain_of_unknown(voice);
                match self.kept_frames().await {
                    Some(frames) => {
                        shelved = true;
                        shared(frames, FrameMaker::new(writer)).map(|maker| (maker, Kept::Forever))
                    }
                    None => {
                        let script = Script::of(speech, &Speaker::of(voice, language.as_deref()));
                        self.speak(script, FrameMaker::new(writer)).await
                    }
                }
            }
            Sound::File { url } => {
                let _turn = self.inner.fetching.acquire().await;
                self.file(url, FrameMaker::new(writer).for_loops(), stale).await
            }
            Sound::Silence { ms } => self
                .silence(*ms, FrameMaker::silent(writer))
                .await
                .map(|maker| (maker, Kept::Forever)),
            Sound::Tone { hz, ms } => {
                let pcm = tone(u32::from(*hz), u32::from(*ms));
                self.encode(FrameMaker::new(writer), Piece { rate: RATE, pcm })
                    .await
                    .map(|maker| (maker, Kept::Forever))
            }
        };
        let end = match made {
            Ok((maker, kept)) => {
                maker.finish().map(|bytes| (bytes, kept)).map_err(|e| e.to_string())
            }
            Err(Failure { maker, reason }) => {
                if let Some(maker) = maker {
                    maker.fail(of_file(&self.sound, &reason));
                }
                Err(reason)
            }
        };
        match end {
            Ok((bytes, kept)) => {
                if kept == Kept::Forever && !shelved {
                    self.keep_frames();
                }
                self.cache(|cache| cache.ready(&self.sound, &self.prompt, bytes, kept));
            }
            Err(reason) => {
                let file = file_of(&self.sound);
                tracing::warn!(reason, file, "a prompt could not be made; it is left out");
            }
        }
    }

    fn cache(&self, f: impl FnOnce(&mut Cache)) {
        f(&mut self.inner.cache.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The frames of the sound, where an earlier process left them on the disk.
    async fn kept_frames(&self) -> Option<Vec<Frame>> {
        let (shelf, sound) = (self.inner.shelf.clone()?, self.sound.clone());
        self.inner.runtime.spawn_blocking(move || shelf.take(&sound)).await.ok()?
    }

    /// Leaves them there; nobody waits for that.
    fn keep_frames(&self) {
        let Some(shelf) =
            self.inner.shelf.clone().filter(|_| matches!(self.sound, Sound::Speak { .. }))
        else {
            return;
        };
        let (sound, prompt) = (self.sound.clone(), self.prompt.clone());
        self.inner.runtime.spawn_blocking(move || shelf.keep(&sound, &frames_of(&prompt)));
    }

    async fn silence(&self, ms: u32, maker: FrameMaker) -> Result<FrameMaker, Failure> {
        self.work(&self.inner.encoding, maker, move |maker| maker.silence(ms)).await
    }

    async fn speak(
        &self,
        script: Script,
        mut maker: FrameMaker,
    ) -> Result<(FrameMaker, Kept), Failure> {
        let mut kept = Kept::Forever;
        let (mut said, mut unread) = (false, None);
        for part in script.0 {
            maker = match part {
                Part::Pause { ms } => self.silence(ms, maker).await?,
                Part::Say(say) => {
                    for say in self.readable(say) {
                        if let Some(writing) = self.unreadable(&say) {
                            unread = Some(writing);
                            continue;
                        }
                        let first_choice;
                        (maker, first_choice) = self.say(&say, maker).await?;
                        said = true;
                        if !first_choice {
                            kept = Kept::Until {
                                at: self.inner.clock.now() + FALLBACK_KEPT,
                                etag: None,
                            };
                        }
                    }
                    maker
                }
            };
        }
        match unread {
            Some(writing) if !said => Err(Failure::of(maker, unread_words(writing))),
            // Whoever installs a voice for it wants to hear it.
            Some(_) => {
                Ok((maker, Kept::Until { at: self.inner.clock.now() + FALLBACK_KEPT, etag: None }))
            }
            None => Ok((maker, kept)),
        }
    }

    /// What is written as the voice's language is not goes to a voice that reads it.
    fn readable(&self, say: Say) -> Vec<Say> {
        let first = self.inner.providers.iter().find(|p| p.speaks(&say.speaker.language));
        if first.is_some_and(|provider| provider.reads_all()) {
            vec![say]
        } else {
            writing::apart(say)
        }
    }

    /// The writing of this, where no voice here reads it; the log says so.
    fn unreadable(&self, say: &Say) -> Option<&'static str> {
        let language = &say.speaker.language;
        if self.inner.providers.iter().any(|provider| provider.speaks(language)) {
            return None;
        }
        let writing = writing::of(say)?.name;
        if self.complain_once(writing) {
            tracing::warn!(language, "{}", unread_words(writing));
        }
        Some(writing)
    }

    /// Asks one provider after the other, until one of them says it; was that the first?
    async fn say(&self, say: &Say, mut maker: FrameMaker) -> Result<(FrameMaker, bool), Failure> {
        let language = &say.speaker.language;
        let mut able: Vec<_> = self.inner.providers.iter().filter(|p| p.speaks(language)).collect();
        if able.is_empty() {
            if self.complain_once(language) {
                tracing::warn!(language, "nothing here speaks it: the nearest embedded voice does");
            }
            able.push(&self.inner.builtin);
        }
        let mut reasons = Vec::new();
        for provider in able {
            let (said, kept_maker) = self.say_by(provider.as_ref(), say, maker).await;
            maker = kept_maker?;
            match said {
                Ok(()) => return Ok((maker, reasons.is_empty())),
                // What was said can't be taken back: another voice would begin anew.
                Err((e, true)) => return Err(Failure::of(maker, e)),
                Err((e, false)) => {
                    tracing::warn!(provider = provider.name(), language, error = %e, "a voice failed");
                    reasons.push(format!("{}: could not {e}", provider.name()));
                }
            }
        }
        Err(Failure::of(maker, reasons.join("; ")))
    }

    fn complain_of_unknown(&self, voice: &Voice) {
        if let Voice::Polly(name) = voice
            && !knows_polly(name)
            && self.complain_once(name)
        {
            tracing::warn!(
                voice = name,
                "no such Polly voice is known here: the default voice speaks"
            );
        }
    }

    /// Whether to say of this language or voice that it isn't there. They come from documents: what is remembered
    /// is bounded.
    fn complain_once(&self, about: &str) -> bool {
        let mut complained = self.inner.complained.lock().unwrap_or_else(PoisonError::into_inner);
        complained.len() < 1_000 && complained.insert(about.to_owned())
    }

    /// What `provider` says goes through the encoder while it still speaks. The error says whether it had begun.
    async fn say_by(
        &self,
        provider: &dyn Provider,
        say: &Say,
        maker: FrameMaker,
    ) -> (Result<(), (SpeechError, bool)>, Result<FrameMaker, Failure>) {
        let (mut sink, mut pieces) = Sink::new(PIECES);
        let speak = async move {
            match provider.synthesise(say, &mut sink).await {
                // A voice of another script may read over every word of it.
                Ok(()) if !sink.begun() && say.plain().contains(char::is_alphanumeric) => {
                    Err((SpeechError::Silent, false))
                }
                said => said.map_err(|e| (e, sink.begun())),
            }
        };
        let encode = async move {
            let mut maker = maker;
            while let Some(piece) = pieces.recv().await {
                maker = self.encode(maker, piece).await?;
            }
            Ok(maker)
        };
        tokio::join!(speak, encode)
    }

    async fn encode(&self, maker: FrameMaker, piece: Piece) -> Result<FrameMaker, Failure> {
        self.work(&self.inner.encoding, maker, move |maker| maker.push(piece.rate, &piece.pcm))
            .await
    }

    /// Runs `work` on a worker thread, when one of the few `turns` is free.
    async fn work<E: ToString>(
        &self,
        turns: &Arc<Semaphore>,
        mut maker: FrameMaker,
        work: impl FnOnce(&mut FrameMaker) -> Result<(), E> + Send + 'static,
    ) -> Result<FrameMaker, Failure> {
        let turn = Arc::clone(turns).acquire_owned().await;
        let worked = self.inner.runtime.spawn_blocking(move || {
            let _turn = turn;
            match work(&mut maker) {
                Ok(()) => Ok(maker),
                Err(e) => Err(Failure::of(maker, e)),
            }
        });
        worked.await.unwrap_or_else(|e| Err(lost(&e)))
    }

    async fn file(
        &self,
        url: &DocUrl,
        maker: FrameMaker,
        stale: Option<(Arc<Prompt>, String)>,
    ) -> Result<(FrameMaker, Kept), Failure> {
        let asked = stale.as_ref().map(|(_, etag)| etag.as_str());
        let (fetched, played) = self.fetch_and_play(url, asked, maker).await;
        let fetched = match fetched {
            Ok(FileResponse::File(file)) => file,
            Ok(FileResponse::NotModified) => {
                let maker = played.unplayed()?;
                let Some((old, etag)) = stale else {
                    return Err(Failure::of(
                        maker,
                        "fetch the file: its server answered 304 to a plain question",
                    ));
                };
                let at = self.inner.clock.now() + FILE_KEPT;
                return Ok((copied(&old, maker)?, Kept::Until { at, etag: Some(etag) }));
            }
            Err(reason) => {
                let maker = played.maker();
                return Err(Failure { maker, reason: format!("fetch the file: {reason}") });
            }
        };
        let FetchedFile { bytes, etag, cache_control } = fetched;
        let kept =
            Kept::Until { at: self.inner.clock.now() + kept_for(cache_control.as_deref()), etag };
        let maker = match played {
            Played::Not(maker) => {
                self.work(&self.inner.decoding, *maker, move |maker| file::decode(&bytes, maker))
                    .await?
            }
            Played::Whole(done) => done?,
        };
        let join = |maker: &mut FrameMaker| -> Result<(), Infallible> {
            maker.join();
            Ok(())
        };
        let maker = self.work(&self.inner.encoding, maker, join).await?;
        Ok((maker, kept))
    }

    /// Fetches a file, and decodes it while it comes, if somebody is free for that and it comes in pieces.
    async fn fetch_and_play(
        &self,
        url: &DocUrl,
        etag: Option<&str>,
        mut maker: FrameMaker,
    ) -> (Result<FileResponse, String>, Played) {
        let fetch = &self.inner.fetch;
        let Ok(turn) = Arc::clone(&self.inner.streaming).try_acquire_owned() else {
            return (fetch.fetch(url, FILE_BYTES_MAX, etag).await, Played::Not(Box::new(maker)));
        };
        #[allow(
            clippy::disallowed_methods,
            reason = "the fetch ends at `FILE_BYTES_MAX`: no more can wait there"
        )]
        let (to, pieces) = std::sync::mpsc::channel();
        let decoding = self.inner.runtime.spawn_blocking(move || {
            let _turn = turn;
            let mut pieces = file::Pieces::new(pieces);
            match pieces.has_begun() {
                false => Played::Not(Box::new(maker)),
                true => Played::Whole(match file::decode_pieces(pieces, &mut maker) {
                    Ok(()) => Ok(maker),
                    Err(e) => Err(Failure::of(maker, e)),
                }),
            }
        });
        let mut give = |piece| drop(to.send(piece));
        let fetched = fetch.fetch_in_pieces(url, FILE_BYTES_MAX, etag, &mut give).await;
        drop(to);
        (fetched, decoding.await.unwrap_or_else(|e| Played::Whole(Err(lost(&e)))))
    }
}

impl Drop for Making {
    /// However it ended: what did not become ready is not kept.
    fn drop(&mut self) {
        if self.prompt.failure().is_some() || !self.prompt.is_settled() {
            let now = self.inner.clock.now();
            self.cache(|cache| cache.failed(&self.sound, &self.prompt, now));
        }
    }
}

/// What became of a file while it came.
enum Played {
    /// Nothing: it is to be decoded when it is there.
    Not(Box<FrameMaker>),
    Whole(Result<FrameMaker, Failure>),
}

impl Played {
    fn unplayed(self) -> Result<FrameMaker, Failure> {
        match self {
            Self::Not(maker) => Ok(*maker),
            Self::Whole(done) => done,
        }
    }

    fn maker(self) -> Option<Box<FrameMaker>> {
        match self {
            Self::Not(maker) => Some(maker),
            Self::Whole(Ok(maker)) => Some(Box::new(maker)),
            Self::Whole(Err(failure)) => failure.maker,
        }
    }
}

/// A worker's thread has ended without its result.
fn lost(error: &tokio::task::JoinError) -> Failure {
    let reason = if error.is_panic() { "its maker faulted" } else { "the node is stopping" };
    Failure { maker: None, reason: reason.to_owned() }
}

/// Why a prompt can't be made, and its maker, unless that was lost with it.
struct Failure {
    maker: Option<Box<FrameMaker>>,
    reason: String,
}

impl Failure {
    fn of(maker: FrameMaker, reason: impl ToString) -> Self {
        Self { maker: Some(Box::new(maker)), reason: reason.to_string() }
    }
}

/// Which file a sound is. A query may have a secret in it.
fn file_of(sound: &Sound) -> Option<&str> {
    match sound {
        Sound::File { url } => url.0.split(['?', '#']).next(),
        Sound::Speak { .. } | Sound::Silence { .. } | Sound::Tone { .. } => None,
    }
}

/// Why a sound can't be had, for whoever reads a call's record: with the file's name, where it is one.
fn of_file(sound: &Sound, reason: &str) -> String {
    match file_of(sound) {
        Some(file) => format!("{}: {reason}", file.chars().take(FILE_SHOWN).collect::<String>()),
        None => reason.to_owned(),
    }
}

/// The frames of a prompt that is still right, in a new one: frames are shared, so this copies pointers.
fn copied(old: &Arc<Prompt>, maker: FrameMaker) -> Result<FrameMaker, Failure> {
    let mut maker = shared(frames_of(old), maker)?;
    maker.share_join(old.join().cloned());
    Ok(maker)
}

/// The frames of a prompt that is ready.
fn frames_of(prompt: &Arc<Prompt>) -> Vec<Frame> {
    let mut cursor = prompt.cursor();
    std::iter::from_fn(|| match cursor.next() {
        Slot::Ready(frame) => Some(frame),
        Slot::Pending | Slot::End | Slot::Failed => None,
    })
    .collect()
}

/// A prompt of frames that there are already.
fn shared(frames: Vec<Frame>, mut maker: FrameMaker) -> Result<FrameMaker, Failure> {
    for frame in frames {
        if let Err(e) = maker.share(frame) {
            return Err(Failure::of(maker, e));
        }
    }
    Ok(maker)
}

/// How long a file is good without asking again.
fn kept_for(cache_control: Option<&str>) -> Duration {
    let Some(header) = cache_control else { return FILE_KEPT };
    let words = || header.split(',').map(|word| word.trim().to_ascii_lowercase());
    if words().any(|word| word == "no-store" || word == "no-cache" || word.starts_with("no-cache="))
    {
        return Duration::ZERO;
    }
    let age = words()
        .find_map(|word| word.strip_prefix("max-age=").map(|n| n.trim_matches('"').parse::<u64>()));
    match age {
        Some(Ok(seconds)) => Duration::from_secs(seconds).min(FILE_KEPT_MAX),
        Some(Err(_)) | None => FILE_KEPT,
    }
}

/// A sine at 16 kHz, faded in and out.
fn tone(hz: u32, ms: u32) -> Vec<i16> {
    let samples = ms * (RATE / 1_000);
    let fade = (FADE_MS * (RATE / 1_000)) as f32;
    let step = std::f64::consts::TAU * f64::from(hz.min(RATE / 2)) / f64::from(RATE);
    let at = |n: u32| {
        let from_end = (samples - 1 - n).min(n) as f32;
        (f64::from(n) * step).sin() as f32 * TONE_PEAK * (from_end / fade).min(1.0)
    };
    (0..samples).map(|n| at(n) as i16).collect()
}

#[cfg(test)]
mod tests;
