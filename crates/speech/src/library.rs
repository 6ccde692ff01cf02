//! The library of prompts: returns a prompt for any sound that a call plays and fills it in the
//! background.
//!
//! Text is spoken by the providers in order, files are fetched and decoded, and tones and silence
//! are generated. Calls that play the same sound share one prompt, even before it is complete.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::ops::RangeInclusive;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::runtime::Handle;

use super::builtin::Builtin;
use super::cache::{Cache, Lookup, Validity};
use super::config::{ProviderName, SpeechConfig};
use super::disk_cache::{CachedSpeech, DiskCache};
use super::espeak::Espeak;
use super::file;
use super::http::EndpointError;
use super::kokoro_provider::KokoroVoice;
use super::language::{Speaker, is_known_polly_voice, primary};
use super::memory::PromptMemory;
use super::models::{KNOWN, ModelStore};
use super::neural_provider::Neural;
use super::openai::OpenAi;
use super::prompt_builder::{NOT_NEEDED, Pace, PromptBuilder, PromptError};
use super::provider::{AudioChunk, BoxFuture, Owner, Provider, Sink, SpeechError};
use super::resample::RATE;
use super::script::{Part, Script, Segment};
use super::writing_system;
use egress::{Egress, FairPermit, FairPermits, FetchedFile, FileResponse, FileSink};
use machine::Sound;
use media::prompt::{Frame, FrameState, Prompt, Writer};
use model::{AuthId, Clock, Timestamp};
use xml::ast::{DocUrl, Voice};

/// Maximum size of a file in bytes.
const FILE_BYTES_MAX: usize = 10 << 20;
/// Number of characters of a file's URL shown in a call's record.
const FILE_CHARS_SHOWN: usize = 150;
/// Time for which a file is cached if its server sends no `Cache-Control`.
const FILE_TTL: Duration = Duration::from_secs(60);
/// Maximum time for which a file is cached, regardless of its `Cache-Control`.
const FILE_TTL_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Time after which the preferred provider is tried again for a prompt that a fallback provider has
/// spoken.
const FALLBACK_TTL: Duration = Duration::from_secs(60);
/// Number of concurrent syntheses and file fetches. They are limited separately, so that slow file
/// servers do not delay speech. One account uses at most its share, so that some are left for others.
const SYNTHESES_MAX: usize = 64;
const SYNTHESES_SHARE: usize = 48;
const FETCHES_MAX: usize = 256;
const FETCHES_SHARE: usize = 192;
/// Size in MiB of the files that are received or wait to be decoded, and the share of one account.
const FETCHED_MIB_MAX: usize = 128;
const FETCHED_MIB_SHARE: usize = 96;
/// Maximum number of files that are decoded in turns, and the share of one account.
const DECODES_MAX: usize = 64;
const DECODES_SHARE: usize = 4;
/// Interval at which a file's calls are looked for.
const ABANDONED_INTERVAL: Duration = Duration::from_millis(500);
/// Number of chunks buffered between a provider and the encoder.
const BUFFERED_CHUNKS: usize = 8;
/// Length of the fade at both ends of a tone, which would click without it.
const FADE_MS: u32 = 5;
/// Amplitude of a tone: 12 dB below full scale, about as loud as speech.
const TONE_PEAK: f32 = 8_000.0;
/// Number of files that are decoded while they are received, and the share of one account.
const STREAMING_MAX: usize = 4;
const STREAMING_SHARE: usize = 2;

/// Fetches files for `Play`. [`Egress`] implements it.
pub trait FileFetch: Send + Sync {
    /// Fetches `url` for an owner, with retries, at most `max` bytes. `etag` is the tag of a cached
    /// copy. Either all bytes or none are passed to `sink` as they arrive.
    fn fetch<'a>(
        &'a self,
        owner: Option<&'a AuthId>,
        url: &'a DocUrl,
        max: usize,
        etag: Option<&'a str>,
        sink: &'a mut dyn FileSink,
    ) -> BoxFuture<'a, Result<FileResponse, String>>;
}

impl FileFetch for Egress {
    fn fetch<'a>(
        &'a self,
        owner: Option<&'a AuthId>,
        url: &'a DocUrl,
        max: usize,
        etag: Option<&'a str>,
        sink: &'a mut dyn FileSink,
    ) -> BoxFuture<'a, Result<FileResponse, String>> {
        Box::pin(async move {
            let egress = self.of(owner.map_or("", AuthId::as_str));
            egress.fetch_file(&url.0, max, etag, sink).await.map_err(|e| e.to_string())
        })
    }
}

/// The library of prompts. Cheap to clone.
#[derive(Clone)]
pub struct Library {
    /// Replaced when a voice is installed or removed. Prompts in progress keep the old one.
    inner: Arc<ArcSwap<Inner>>,
}

struct Inner {
    /// The providers in the order in which they are tried. One of them is always the embedded
    /// voice.
    providers: Vec<Arc<dyn Provider>>,
    builtin: Arc<dyn Provider>,
    /// Languages and voices that have been logged as unsupported.
    reported: Mutex<BTreeSet<String>>,
    cache: Mutex<Cache>,
    /// A cache of speech, which also contains prompts of previous processes.
    disk_cache: Option<Arc<DiskCache>>,
    clock: Clock,
    runtime: Handle,
    fetch: Arc<dyn FileFetch>,
    synthesis_permits: FairPermits<Owner>,
    fetch_permits: FairPermits<Owner>,
    /// Permits for a MiB of a file each.
    fetched_mib: FairPermits<Owner>,
    decodes: FairPermits<Owner>,
    memory: Arc<PromptMemory>,
    /// Permits that limit concurrent CPU work, because the media shards need the processors too.
    /// Encoding and decoding have separate limits, so that speech does not wait for long files.
    encode_permits: FairPermits<Owner>,
    decode_permits: FairPermits<Owner>,
    /// Permits for threads that decode files while they are received. Each of them waits for a
    /// server. If none is free, a file is received completely first.
    stream_permits: FairPermits<Owner>,
}

impl Library {
    /// Creates a library that builds its prompts on `runtime`.
    ///
    /// # Errors
    ///
    /// Fails if `[speech.openai]` cannot be used.
    pub fn new(
        config: SpeechConfig,
        clock: Clock,
        runtime: Handle,
        fetch: Arc<dyn FileFetch>,
    ) -> Result<Self, EndpointError> {
        let memory = PromptMemory::new(config.free_memory, clock.clone());
        Ok(Self::with_inner(Inner::new(config, clock, runtime, fetch, memory)?))
    }

    fn with_inner(inner: Inner) -> Self {
        Self { inner: Arc::new(ArcSwap::from_pointee(inner)) }
    }

    /// Uses the voices that are installed now for later prompts.
    ///
    /// # Errors
    ///
    /// Fails if `[speech.openai]` cannot be used. Nothing changes then.
    pub(super) fn reload(&self, config: SpeechConfig) -> Result<(), EndpointError> {
        let old = self.inner.load();
        let (clock, runtime, fetch) = (old.clock.clone(), old.runtime.clone(), old.fetch.clone());
        let memory = old.memory.clone();
        self.inner.store(Arc::new(Inner::new(config, clock, runtime, fetch, memory)?));
        Ok(())
    }

    /// Like [`Library::prompt_for`], for a sound of the node.
    pub fn prompt(&self, sound: &Sound) -> Arc<Prompt> {
        self.prompt_of(sound, None)
    }

    /// Returns the prompt for `sound`, which may still be incomplete. Never waits. To preload a
    /// sound, keep the returned prompt until it plays: otherwise a file may expire in between and
    /// be fetched again, and an incomplete prompt is given up when the last reference to it is
    /// dropped.
    ///
    /// If there is more to do than the node can do at once, `account` and others take turns.
    pub fn prompt_for(&self, account: &AuthId, sound: &Sound) -> Arc<Prompt> {
        self.prompt_of(sound, Some(account.clone()))
    }

    fn prompt_of(&self, sound: &Sound, owner: Owner) -> Arc<Prompt> {
        let inner = self.inner.load_full();
        let now = inner.clock.now();
        let mut cache = inner.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let stale = match cache.lookup(sound, now) {
            Lookup::Prompt(prompt) => return prompt,
            Lookup::Stale { prompt, etag } => etag.map(|etag| (prompt, etag)),
            Lookup::Missing => None,
        };
        let (prompt, writer) = Prompt::new();
        cache.insert(sound, &prompt);
        drop(cache);
        let job = PromptJob {
            inner: Arc::clone(&inner),
            sound: sound.clone(),
            prompt: Arc::clone(&prompt),
            owner,
        };
        inner.runtime.spawn(job.run(writer, stale));
        prompt
    }

    /// Removes the prompts that were last used in one of these periods from the disk. Those in
    /// memory stay until they are evicted.
    pub async fn forget_used_within(&self, periods: Vec<RangeInclusive<Timestamp>>) {
        let Some(disk_cache) = self.inner.load().disk_cache.clone() else { return };
        let remove = move || disk_cache.remove_used_within(&periods);
        let _ = tokio::task::spawn_blocking(remove).await;
    }
}

impl Inner {
    fn new(
        config: SpeechConfig,
        clock: Clock,
        runtime: Handle,
        fetch: Arc<dyn FileFetch>,
        memory: Arc<PromptMemory>,
    ) -> Result<Self, EndpointError> {
        let disk_cache = DiskCache::new(&config, clock.clone()).map(Arc::new);
        let models = ModelStore::new(&config.data_dir);
        let voice = models.english_voice();
        let kokoro = models.multilingual_voice().map(|voice| {
            tracing::info!(voice = voice.name, version = voice.version, "neural voice in use");
            let helpers = Builtin::for_large_models(&config, &models);
            KokoroVoice::new(helpers, models.folder_of(&voice), voice.kokoro_languages())
        });
        let helpers = Arc::new(Builtin::new(
            config.helper,
            config.data_dir.join("voices"),
            voice.is_some().then(|| models.folder().to_owned()),
            clock.clone(),
        ));
        let builtin: Arc<dyn Provider> = Arc::clone(&helpers) as Arc<dyn Provider>;
        let mut named = Vec::new();
        if let Some(voice) = voice {
            tracing::info!(voice = voice.name, version = voice.version, "neural voice in use");
            let folder = models.folder_of(&voice);
            let neural = Neural::new(helpers, voice.name, folder);
            named.push((ProviderName::Builtin, Arc::new(neural) as Arc<dyn Provider>));
        }
        if let Some(kokoro) = kokoro {
            named.push((ProviderName::Builtin, Arc::new(kokoro)));
        }
        named.push((ProviderName::Builtin, Arc::clone(&builtin)));
        if let Some(espeak) =
            Espeak::find(config.espeak.as_deref(), std::env::var_os("PATH").as_deref())
        {
            named.push((ProviderName::Espeak, Arc::new(espeak)));
        }
        if let Some(openai) = config.openai {
            named.push((ProviderName::OpenAi, Arc::new(OpenAi::new(openai)?)));
        }
        // The sort is stable: the configured provider comes first, the others keep their order.
        named.sort_by_key(|(name, _)| *name != config.provider);
        let providers = named.into_iter().map(|(_, provider)| provider).collect();
        let bytes_max = (config.cache_mb as usize) << 20;
        let parts = (disk_cache, memory);
        Ok(Self::with_providers(providers, builtin, bytes_max, parts, clock, runtime, fetch))
    }

    fn with_providers(
        providers: Vec<Arc<dyn Provider>>,
        builtin: Arc<dyn Provider>,
        bytes_max: usize,
        (disk_cache, memory): (Option<Arc<DiskCache>>, Arc<PromptMemory>),
        clock: Clock,
        runtime: Handle,
        fetch: Arc<dyn FileFetch>,
    ) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            providers,
            builtin,
            reported: Mutex::default(),
            cache: Mutex::new(Cache::new(bytes_max)),
            disk_cache,
            clock,
            runtime,
            fetch,
            synthesis_permits: FairPermits::new(SYNTHESES_MAX, SYNTHESES_SHARE),
            fetch_permits: FairPermits::new(FETCHES_MAX, FETCHES_SHARE),
            fetched_mib: FairPermits::new(FETCHED_MIB_MAX, FETCHED_MIB_SHARE),
            decodes: FairPermits::new(DECODES_MAX, DECODES_SHARE),
            memory,
            encode_permits: FairPermits::new(cores, cores),
            decode_permits: FairPermits::new(cores, cores),
            stream_permits: FairPermits::new(STREAMING_MAX, STREAMING_SHARE),
        }
    }

    /// Whether no caller has the incomplete prompt any more, of which its job has up to `own`
    /// references. If so, it is removed from the cache.
    fn is_abandoned(&self, sound: &Sound, prompt: &Arc<Prompt>, own: usize) -> bool {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.remove_unused(sound, prompt, own)
    }
}

fn unsupported_text(writing: &str) -> String {
    format!("no voice reads {writing}: install espeak-ng or configure [speech.openai]")
}

/// Builds one prompt. If dropped early, it removes the prompt from the cache.
struct PromptJob {
    inner: Arc<Inner>,
    sound: Sound,
    prompt: Arc<Prompt>,
    /// The account that asked for it first.
    owner: Owner,
}

impl PromptJob {
    async fn run(self, writer: Writer, stale: Option<(Arc<Prompt>, String)>) {
        let memory = Arc::new(self.inner.memory.prompt(self.owner.clone()));
        let builder = match &self.sound {
            Sound::Silence { .. } => PromptBuilder::for_silence(writer),
            Sound::File { .. } => PromptBuilder::new(writer).for_loops(),
            Sound::Speak { .. } | Sound::Tone { .. } => PromptBuilder::new(writer),
        };
        let builder = builder.with_memory(memory.clone());
        let mut from_disk = false;
        let result = match &self.sound {
            Sound::Speak { speech, voice, language } => {
                let _permit = self.inner.synthesis_permits.acquire(&self.owner).await;
                if self.is_abandoned() {
                    return;
                }
                self.report_unknown_voice(voice);
                match self.cached_speech().await {
                    Some(CachedSpeech { frames, voices }) => {
                        from_disk = true;
                        voices.into_iter().for_each(|voice| self.prompt.add_voice(voice));
                        add_frames(frames, builder).map(|builder| (builder, Validity::Forever))
                    }
                    None => {
                        let script = Script::new(speech, &Speaker::new(voice, language.as_deref()));
                        self.speak(script, builder).await
                    }
                }
            }
            Sound::File { url } => {
                let fetched = async {
                    let _permit = self.inner.fetch_permits.acquire(&self.owner).await;
                    self.file(url, builder, stale).await
                };
                tokio::select! {
                    fetched = fetched => fetched,
                    () = self.abandoned() => Err(Failure::without_builder(NOT_NEEDED)),
                }
            }
            Sound::Silence { ms } => {
                self.silence(*ms, builder).await.map(|builder| (builder, Validity::Forever))
            }
            Sound::Tone { hz, ms } => {
                let pcm = tone(u32::from(*hz), u32::from(*ms));
                self.encode(builder, AudioChunk { rate: RATE, pcm })
                    .await
                    .map(|builder| (builder, Validity::Forever))
            }
        };
        let outcome = match result {
            Ok((builder, validity)) => {
                builder.finish().map(|bytes| (bytes, validity)).map_err(|e| e.to_string())
            }
            Err(Failure { builder, reason }) => {
                if let Some(builder) = builder {
                    builder.fail(describe_failure(&self.sound, &reason));
                }
                Err(reason)
            }
        };
        match outcome {
            Ok((bytes, validity)) => {
                if validity == Validity::Forever && !from_disk {
                    self.store_speech();
                }
                self.cache(|cache| cache.complete(&self.sound, &self.prompt, bytes, validity));
            }
            Err(reason) if reason == NOT_NEEDED => tracing::debug!(reason, "prompt not completed"),
            Err(reason) => {
                let file = file_url(&self.sound);
                tracing::warn!(reason, file, "prompt failed");
                if memory.is_refused() {
                    self.cache(Cache::free);
                }
            }
        }
    }

    fn cache<T>(&self, f: impl FnOnce(&mut Cache) -> T) -> T {
        f(&mut self.inner.cache.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns this speech from the disk cache, or `None` if it is not cached.
    async fn cached_speech(&self) -> Option<CachedSpeech> {
        let (disk_cache, sound) = (self.inner.disk_cache.clone()?, self.sound.clone());
        self.inner.runtime.spawn_blocking(move || disk_cache.get(&sound)).await.ok()?
    }

    /// Stores the speech in the disk cache, in the background.
    fn store_speech(&self) {
        let Some(disk_cache) =
            self.inner.disk_cache.clone().filter(|_| matches!(self.sound, Sound::Speak { .. }))
        else {
            return;
        };
        let (sound, prompt) = (self.sound.clone(), self.prompt.clone());
        self.inner.runtime.spawn_blocking(move || {
            let speech = CachedSpeech { frames: prompt_frames(&prompt), voices: prompt.voices() };
            disk_cache.insert(&sound, &speech);
        });
    }

    async fn silence(&self, ms: u32, builder: PromptBuilder) -> Result<PromptBuilder, Failure> {
        self.work(&self.inner.encode_permits, builder, move |builder| builder.silence(ms)).await
    }

    async fn speak(
        &self,
        script: Script,
        mut builder: PromptBuilder,
    ) -> Result<(PromptBuilder, Validity), Failure> {
        let mut validity = Validity::Forever;
        let (mut spoken, mut unsupported) = (false, None);
        for part in script.0 {
            builder = match part {
                Part::Pause { ms } => self.silence(ms, builder).await?,
                Part::Speech(segment) => {
                    for segment in self.split_segment(segment) {
                        if let Some(writing) = self.unsupported_writing(&segment) {
                            unsupported = Some(writing);
                            continue;
                        }
                        let first_choice;
                        (builder, first_choice) = self.speak_segment(&segment, builder).await?;
                        spoken = true;
                        if !first_choice {
                            validity = Validity::Until {
                                at: self.inner.clock.now() + FALLBACK_TTL,
                                etag: None,
                            };
                        }
                    }
                    builder
                }
            };
        }
        match unsupported {
            Some(writing) if !spoken => Err(Failure::new(builder, unsupported_text(writing))),
            // The incomplete prompt is not cached for long, because a voice for the missing text
            // may be installed.
            Some(_) => Ok((
                builder,
                Validity::Until { at: self.inner.clock.now() + FALLBACK_TTL, etag: None },
            )),
            None => Ok((builder, validity)),
        }
    }

    /// Splits off text in other writing systems, so that voices that support them speak it.
    fn split_segment(&self, segment: Segment) -> Vec<Segment> {
        let first = self.inner.providers.iter().find(|p| p.can_speak(&segment.speaker.language));
        if first.is_some_and(|provider| provider.can_read_all()) {
            vec![segment]
        } else {
            let segments = writing_system::split(segment).into_iter();
            segments.flat_map(|segment| self.split_latin(segment)).collect()
        }
    }

    /// Splits off words in Latin letters if the voice of a segment cannot read them.
    fn split_latin(&self, segment: Segment) -> Vec<Segment> {
        let language = &segment.speaker.language;
        match self.inner.providers.iter().find(|provider| provider.can_speak(language)) {
            Some(provider) if !provider.can_read_latin(language) => {
                writing_system::split_latin(segment)
            }
            _ => vec![segment],
        }
    }

    /// Returns and logs the writing system of a segment that no voice supports. `None` if a voice
    /// supports it.
    fn unsupported_writing(&self, segment: &Segment) -> Option<&'static str> {
        let language = &segment.speaker.language;
        if self.inner.providers.iter().any(|provider| provider.can_speak(language)) {
            return None;
        }
        let writing = writing_system::find_first(segment)?.name;
        if self.is_first_report(writing) {
            tracing::warn!(
                language,
                writing_system = writing,
                "text skipped, no voice supports its writing system; install espeak-ng or configure [speech.openai]"
            );
        }
        Some(writing)
    }

    /// Tries the providers in order until one speaks the segment. Returns whether that was the
    /// first one.
    async fn speak_segment(
        &self,
        segment: &Segment,
        mut builder: PromptBuilder,
    ) -> Result<(PromptBuilder, bool), Failure> {
        let language = &segment.speaker.language;
        let mut candidates: Vec<_> =
            self.inner.providers.iter().filter(|p| p.can_speak(language)).collect();
        if candidates.is_empty() {
            if self.is_first_report(language) {
                tracing::warn!(
                    language,
                    "language not supported, using the nearest embedded voice"
                );
            }
            candidates.push(&self.inner.builtin);
        }
        self.suggest_better_voice(language, candidates.first());
        let mut reasons = Vec::new();
        for provider in candidates {
            let (outcome, returned) = self.speak_with(provider.as_ref(), segment, builder).await;
            builder = returned?;
            match outcome {
                Ok(()) => return Ok((builder, reasons.is_empty())),
                // Audio that was already streamed cannot be taken back, so another voice must not
                // start over.
                Err((e, true)) => return Err(Failure::new(builder, e)),
                Err((e, false)) => {
                    tracing::warn!(provider = provider.name(), language, error = %e, "speech provider failed");
                    reasons.push(format!("{}: {e}", provider.name()));
                }
            }
        }
        Err(Failure::new(builder, reasons.join("; ")))
    }

    /// If the embedded voice speaks English, logs once how to install a better voice.
    fn suggest_better_voice(&self, language: &str, first: Option<&&Arc<dyn Provider>>) {
        let embedded = first.is_some_and(|provider| Arc::ptr_eq(provider, &self.inner.builtin));
        if embedded
            && primary(language) == "en"
            && self.is_first_report("better voice")
            && let Some(voice) = KNOWN.first()
        {
            tracing::info!(
                "the embedded voice speaks English; `offhook models fetch {}` installs a better one",
                voice.name
            );
        }
    }

    fn report_unknown_voice(&self, voice: &Voice) {
        if let Voice::Polly(name) = voice
            && !is_known_polly_voice(name)
            && self.is_first_report(name)
        {
            tracing::warn!(voice = name, "unknown Polly voice, using the default voice");
        }
    }

    /// Returns `true` the first time a language or voice is unsupported. The names come from
    /// documents, so their number is limited.
    fn is_first_report(&self, about: &str) -> bool {
        let mut reported = self.inner.reported.lock().unwrap_or_else(PoisonError::into_inner);
        reported.len() < 1_000 && reported.insert(about.to_owned())
    }

    /// Encodes the audio of `provider` while it is produced. An error includes whether audio had
    /// been produced before it.
    async fn speak_with(
        &self,
        provider: &dyn Provider,
        segment: &Segment,
        builder: PromptBuilder,
    ) -> (Result<(), (SpeechError, bool)>, Result<PromptBuilder, Failure>) {
        let (sink, mut chunks) = Sink::new(BUFFERED_CHUNKS);
        let mut sink = sink.with_voices_of(&self.prompt).with_owner(&self.owner);
        sink.set_voice(provider.prompt_voice(&segment.speaker));
        let speak = async move {
            match provider.synthesise(segment, &mut sink).await {
                // A voice without support for the writing system may skip every directive.
                Ok(()) if !sink.has_audio() && segment.plain().contains(char::is_alphanumeric) => {
                    Err((SpeechError::NoAudio, false))
                }
                result => result.map_err(|e| (e, sink.has_audio())),
            }
        };
        let encode = async move {
            let mut builder = builder;
            while let Some(chunk) = chunks.recv().await {
                if self.is_abandoned() {
                    return Err(Failure::new(builder, NOT_NEEDED));
                }
                builder = self.encode(builder, chunk).await?;
            }
            Ok(builder)
        };
        tokio::join!(speak, encode)
    }

    /// Whether no caller has the incomplete prompt any more. If so, it is removed from the cache.
    fn is_abandoned(&self) -> bool {
        // This job and its writer refer to the prompt.
        self.inner.is_abandoned(&self.sound, &self.prompt, 2)
    }

    /// Waits until no caller has the incomplete prompt any more.
    async fn abandoned(&self) {
        while !self.is_abandoned() {
            tokio::time::sleep(ABANDONED_INTERVAL).await;
        }
    }

    /// Returns a pace that fails once no caller has the prompt any more.
    fn stop_if_abandoned(&self) -> impl Fn() -> Result<(), PromptError> + Send + 'static {
        let (inner, sound) = (self.inner.clone(), self.sound.clone());
        let prompt = Arc::downgrade(&self.prompt);
        move || match prompt.upgrade() {
            // This job, its writer and this function refer to the prompt.
            Some(prompt) if !inner.is_abandoned(&sound, &prompt, 3) => Ok(()),
            Some(_) | None => Err(PromptError::NotNeeded),
        }
    }

    /// Decodes a file on a blocking thread. Other accounts may take their turns between any ten
    /// seconds of its sound, so that a short file does not wait for long ones.
    async fn decode(&self, file: Bytes, builder: PromptBuilder) -> Result<PromptBuilder, Failure> {
        let decode = self.inner.decodes.acquire(&self.owner).await;
        let (permits, owner) = (self.inner.decode_permits.clone(), self.owner.clone());
        let (runtime, stop_if_abandoned) = (self.inner.runtime.clone(), self.stop_if_abandoned());
        let mut turn = Some(permits.acquire(&owner).await);
        let pace: Pace = Box::new(move || {
            drop(turn.take());
            turn = Some(runtime.block_on(permits.acquire(&owner)));
            stop_if_abandoned()
        });
        let work = move |builder: &mut PromptBuilder| {
            let _decode = decode;
            builder.set_pace(Some(pace));
            let decoded = file::decode(&file, builder);
            builder.set_pace(None);
            decoded
        };
        self.block(builder, work).await
    }

    async fn encode(
        &self,
        builder: PromptBuilder,
        chunk: AudioChunk,
    ) -> Result<PromptBuilder, Failure> {
        self.work(&self.inner.encode_permits, builder, move |builder| {
            builder.push(chunk.rate, &chunk.pcm)
        })
        .await
    }

    /// Runs `work` on a blocking thread as soon as a permit is free.
    async fn work<E: ToString>(
        &self,
        permits: &FairPermits<Owner>,
        builder: PromptBuilder,
        work: impl FnOnce(&mut PromptBuilder) -> Result<(), E> + Send + 'static,
    ) -> Result<PromptBuilder, Failure> {
        let permit = permits.acquire(&self.owner).await;
        self.block(builder, move |builder| {
            let _permit = permit;
            work(builder)
        })
        .await
    }

    async fn block<E: ToString>(
        &self,
        mut builder: PromptBuilder,
        work: impl FnOnce(&mut PromptBuilder) -> Result<(), E> + Send + 'static,
    ) -> Result<PromptBuilder, Failure> {
        let task = self.inner.runtime.spawn_blocking(move || match work(&mut builder) {
            Ok(()) => Ok(builder),
            Err(e) => Err(Failure::new(builder, e)),
        });
        task.await.unwrap_or_else(|e| Err(task_failure(&e)))
    }

    async fn file(
        &self,
        url: &DocUrl,
        builder: PromptBuilder,
        stale: Option<(Arc<Prompt>, String)>,
    ) -> Result<(PromptBuilder, Validity), Failure> {
        let known_etag = stale.as_ref().map(|(_, etag)| etag.as_str());
        let mut received = Received { job: self, room: None, chunks: None };
        let (fetched, streamed) =
            self.fetch_and_decode(url, known_etag, builder, &mut received).await;
        let fetched = match fetched {
            Ok(FileResponse::File(file)) => file,
            Ok(FileResponse::NotModified) => {
                let builder = streamed.into_result()?;
                let Some((old, etag)) = stale else {
                    return Err(Failure::new(
                        builder,
                        "could not fetch the file: the server sent 304 to an unconditional request",
                    ));
                };
                let at = self.inner.clock.now() + FILE_TTL;
                return Ok((copy_prompt(&old, builder)?, Validity::Until { at, etag: Some(etag) }));
            }
            Err(reason) => {
                let builder = streamed.into_builder();
                return Err(Failure { builder, reason });
            }
        };
        let FetchedFile { bytes, etag, cache_control } = fetched;
        let validity = Validity::Until {
            at: self.inner.clock.now() + file_lifetime(cache_control.as_deref()),
            etag,
        };
        let builder = match streamed {
            StreamedFile::NotStarted(builder) => self.decode(bytes, *builder).await?,
            StreamedFile::Finished(done) => done?,
        };
        drop(received);
        let encode_join = |builder: &mut PromptBuilder| -> Result<(), Infallible> {
            builder.encode_join();
            Ok(())
        };
        let builder = self.work(&self.inner.encode_permits, builder, encode_join).await?;
        Ok((builder, validity))
    }

    /// Fetches a file. If a thread is free and the file arrives in chunks, decodes it at the same
    /// time.
    async fn fetch_and_decode(
        &self,
        url: &DocUrl,
        etag: Option<&str>,
        mut builder: PromptBuilder,
        received: &mut Received<'_>,
    ) -> (Result<FileResponse, String>, StreamedFile) {
        let fetch = &self.inner.fetch;
        let Some(permit) = self.inner.stream_permits.acquire(&self.owner).now_or_never() else {
            return (
                fetch.fetch(self.owner.as_ref(), url, FILE_BYTES_MAX, etag, received).await,
                StreamedFile::NotStarted(Box::new(builder)),
            );
        };
        #[allow(
            clippy::disallowed_methods,
            reason = "the fetch ends at `FILE_BYTES_MAX`: no more can wait there"
        )]
        let (sender, chunks) = std::sync::mpsc::channel();
        let stop_if_abandoned = self.stop_if_abandoned();
        let decoding = self.inner.runtime.spawn_blocking(move || {
            let _permit = permit;
            let mut chunks = file::ChunkReader::new(chunks);
            match chunks.wait_for_chunk() {
                false => StreamedFile::NotStarted(Box::new(builder)),
                true => {
                    builder.set_pace(Some(Box::new(stop_if_abandoned)));
                    let decoded = file::decode_stream(chunks, &mut builder);
                    builder.set_pace(None);
                    StreamedFile::Finished(match decoded {
                        Ok(()) => Ok(builder),
                        Err(e) => Err(Failure::new(builder, e)),
                    })
                }
            }
        });
        received.chunks = Some(sender);
        let fetched = fetch.fetch(self.owner.as_ref(), url, FILE_BYTES_MAX, etag, received).await;
        received.chunks = None;
        (fetched, decoding.await.unwrap_or_else(|e| StreamedFile::Finished(Err(task_failure(&e)))))
    }
}

impl Drop for PromptJob {
    /// Removes an incomplete or failed prompt from the cache, however the build ended.
    fn drop(&mut self) {
        if self.prompt.failure().is_some() || !self.prompt.is_finished() {
            let now = self.inner.clock.now();
            self.cache(|cache| cache.remove_failed(&self.sound, &self.prompt, now));
        }
    }
}

/// A file that is received.
struct Received<'a> {
    job: &'a PromptJob,
    /// What it takes of the memory for files. Given back once it is decoded.
    room: Option<FairPermit<Owner>>,
    /// Decodes it meanwhile, if possible.
    chunks: Option<Sender<Bytes>>,
}

impl FileSink for Received<'_> {
    fn reserve(&mut self, bytes: usize) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            // A failed attempt holds nothing.
            self.room = None;
            let mib = bytes.div_ceil(1 << 20);
            self.room = Some(self.job.inner.fetched_mib.acquire_many(&self.job.owner, mib).await);
        })
    }

    fn chunk(&mut self, chunk: Bytes) {
        if let Some(chunks) = &self.chunks {
            let _ = chunks.send(chunk);
        }
    }
}

/// The result of decoding a file while it was received.
enum StreamedFile {
    /// Decoding has not started. The whole file is decoded after it was received.
    NotStarted(Box<PromptBuilder>),
    Finished(Result<PromptBuilder, Failure>),
}

impl StreamedFile {
    fn into_result(self) -> Result<PromptBuilder, Failure> {
        match self {
            Self::NotStarted(builder) => Ok(*builder),
            Self::Finished(done) => done,
        }
    }

    fn into_builder(self) -> Option<Box<PromptBuilder>> {
        match self {
            Self::NotStarted(builder) => Some(builder),
            Self::Finished(Ok(builder)) => Some(Box::new(builder)),
            Self::Finished(Err(failure)) => failure.builder,
        }
    }
}

/// Returns the failure of a blocking task that ended without a result.
fn task_failure(error: &tokio::task::JoinError) -> Failure {
    let reason = if error.is_panic() { "internal error" } else { "the node is stopping" };
    Failure::without_builder(reason)
}

/// The reason why a prompt failed, with its builder unless that was lost.
struct Failure {
    builder: Option<Box<PromptBuilder>>,
    reason: String,
}

impl Failure {
    fn new(builder: PromptBuilder, reason: impl ToString) -> Self {
        Self { builder: Some(Box::new(builder)), reason: reason.to_string() }
    }

    /// The builder fails the prompt when it is dropped.
    fn without_builder(reason: &str) -> Self {
        Self { builder: None, reason: reason.to_owned() }
    }
}

/// Returns the URL of a file without its query, which may contain a secret. `None` for other
/// sounds.
fn file_url(sound: &Sound) -> Option<&str> {
    match sound {
        Sound::File { url } => url.0.split(['?', '#']).next(),
        Sound::Speak { .. } | Sound::Silence { .. } | Sound::Tone { .. } => None,
    }
}

/// Adds the file's URL to the reason, for the call's record.
fn describe_failure(sound: &Sound, reason: &str) -> String {
    match file_url(sound) {
        Some(file) => {
            format!("{}: {reason}", file.chars().take(FILE_CHARS_SHOWN).collect::<String>())
        }
        None => reason.to_owned(),
    }
}

/// Copies the frames of a prompt that is still valid. Frames are shared, so only pointers are
/// copied.
fn copy_prompt(old: &Arc<Prompt>, builder: PromptBuilder) -> Result<PromptBuilder, Failure> {
    let mut builder = add_frames(prompt_frames(old), builder)?;
    builder.set_join(old.join().cloned());
    Ok(builder)
}

/// Returns the frames of a complete prompt.
fn prompt_frames(prompt: &Arc<Prompt>) -> Vec<Frame> {
    let mut cursor = prompt.cursor();
    std::iter::from_fn(|| match cursor.next() {
        FrameState::Ready(frame) => Some(frame),
        FrameState::Pending | FrameState::End | FrameState::Failed => None,
    })
    .collect()
}

/// Adds existing frames to a builder.
fn add_frames(frames: Vec<Frame>, mut builder: PromptBuilder) -> Result<PromptBuilder, Failure> {
    for frame in frames {
        if let Err(e) = builder.push_shared(frame) {
            return Err(Failure::new(builder, e));
        }
    }
    Ok(builder)
}

/// Returns the time for which a file may be used without a further request to its server.
fn file_lifetime(cache_control: Option<&str>) -> Duration {
    let Some(header) = cache_control else { return FILE_TTL };
    let directives = || header.split(',').map(|directive| directive.trim().to_ascii_lowercase());
    if directives().any(|directive| {
        directive == "no-store" || directive == "no-cache" || directive.starts_with("no-cache=")
    }) {
        return Duration::ZERO;
    }
    let age = directives().find_map(|directive| {
        directive.strip_prefix("max-age=").map(|n| n.trim_matches('"').parse::<u64>())
    });
    match age {
        Some(Ok(seconds)) => Duration::from_secs(seconds).min(FILE_TTL_MAX),
        Some(Err(_)) | None => FILE_TTL,
    }
}

/// Generates a sine wave at 16 kHz with fades at both ends.
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
