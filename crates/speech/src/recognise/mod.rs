//! Speech to text: the trait of all recognisers, and the selection of one.
//!
//! A recognition processes one utterance. Audio arrives while the caller speaks. The utterance ends
//! with its audio. Other modules detect when the caller speaks. A recogniser returns words as soon
//! as it recognises them. This module normalises, truncates and masks them, and determines which
//! words are stable.

mod pocketsphinx;
mod profanity;
mod stability;
mod transcribe;
mod websocket;
mod whisper;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use super::config::{RecogniserName, SpeechConfig, WebSocketProtocol};
use super::http::{EndpointError, shown_url};
use super::provider::{BoxFuture, SpeechError};
use super::turn_estimator::TurnEstimator;
use egress::FairPermits;
use model::AuthId;
use model::metric::{self, recognition};
use stability::StabilityTracker;

/// Sample rate of the audio in Hz (16 bit, mono).
pub const RATE: u32 = 16_000;
/// Maximum length of an utterance: `executionTimeout` is at most 60 s, and audio from before the
/// start of the speech is included.
pub const UTTERANCE_SECONDS_MAX: usize = 65;
/// Maximum number of characters in a result: two minutes of fast speech.
const TEXT_MAX: usize = 4_096;
/// Maximum time for which a recognition waits while the limit is reached.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Languages offered for selection if a recogniser supports them: the languages of the widely used
/// services. Other languages can be requested as well.
const OFFERED_LANGUAGES: &[&str] = &[
    "af-ZA", "ar-AE", "ar-EG", "ar-SA", "bg-BG", "bn-BD", "bn-IN", "ca-ES", "cs-CZ", "da-DK",
    "de-AT", "de-CH", "de-DE", "el-GR", "en-AU", "en-CA", "en-GB", "en-IE", "en-IN", "en-NG",
    "en-NZ", "en-PH", "en-SG", "en-US", "en-ZA", "es-AR", "es-CL", "es-CO", "es-ES", "es-MX",
    "es-US", "et-EE", "fa-IR", "fi-FI", "fil-PH", "fr-BE", "fr-CA", "fr-CH", "fr-FR", "gu-IN",
    "he-IL", "hi-IN", "hr-HR", "hu-HU", "id-ID", "it-IT", "ja-JP", "kn-IN", "ko-KR", "lt-LT",
    "lv-LV", "ml-IN", "mr-IN", "ms-MY", "nb-NO", "ne-NP", "nl-BE", "nl-NL", "pa-IN", "pl-PL",
    "pt-BR", "pt-PT", "ro-RO", "ru-RU", "si-LK", "sk-SK", "sl-SI", "sq-AL", "sr-RS", "sv-SE",
    "sw-KE", "sw-TZ", "ta-IN", "te-IN", "th-TH", "tr-TR", "uk-UA", "ur-IN", "ur-PK", "vi-VN",
    "zh-CN", "zh-HK", "zh-TW", "zu-ZA",
];

/// Settings of a recognition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecognitionOptions {
    /// A BCP 47 tag.
    pub language: String,
    /// Phrases that are likely to be spoken.
    pub hints: Vec<String>,
    /// The document's `speechModel`.
    pub model: String,
    /// Whether interim results are needed.
    pub interim: bool,
    /// Whether profanities are masked.
    pub profanity_filter: bool,
    /// Whether a person waits for the result. If so, the next recogniser is used when a service fails,
    /// and `whisper` decodes greedily, which is faster. If not, the caller of this module repeats a
    /// request that failed.
    pub is_live: bool,
    /// The main account that the recognition counts for. `None` for the node's own.
    pub account: Option<AuthId>,
}

/// The result of a recogniser.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transcript {
    pub text: String,
    /// Confidence from 0 to 1, if the recogniser provides it.
    pub confidence: Option<f32>,
}

/// The result of a recognition: one line of trimmed text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecognisedSpeech {
    /// The text. Empty if no words were recognised.
    pub text: String,
    /// Confidence in per cent. 100 if the recogniser does not provide it.
    pub confidence: u8,
    /// The name of the recogniser.
    pub recogniser: &'static str,
}

/// An interim result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterimResult {
    /// The leading words that did not change since the previous result.
    pub stable: String,
    pub unstable: String,
    /// The share of stable words among all words, in per cent.
    pub stability: u8,
}

/// The reason why speech could not be recognised.
#[derive(Debug, thiserror::Error)]
pub enum RecognitionError {
    #[error("could not recognise {0}: no recogniser is configured for this language")]
    Language(String),
    #[error("could not start: too many recognitions are in progress")]
    Busy,
    #[error("could not reach the recogniser: {0}")]
    Request(String),
    #[error("could not get a transcript: the response status was {0}")]
    Status(http::StatusCode),
    #[error("could not read the recogniser's response: {0}")]
    Response(String),
    #[error("there was no result within {0:?}")]
    Deadline(Duration),
    #[error("could not run pocketsphinx: {0}")]
    Program(String),
    #[error("could not run whisper: {0}")]
    Helper(#[from] SpeechError),
}

impl RecognitionError {
    /// Whether a process of this node failed. Requests to services can be repeated.
    fn is_of_helper(&self) -> bool {
        matches!(self, Self::Helper(_))
    }
}

/// The audio of one utterance, in chunks of 20 ms or more. The channel closes at the end of the
/// utterance.
#[derive(Debug)]
pub struct UtteranceAudio {
    chunks: mpsc::Receiver<Vec<i16>>,
    /// Chunks that were received and are returned next.
    next: VecDeque<Vec<i16>>,
    /// Chunks that were returned. They are kept in case another recogniser needs them.
    returned: Option<VecDeque<Vec<i16>>>,
}

impl UtteranceAudio {
    /// Creates a channel for the audio, with room for the longest utterance.
    pub fn new() -> (mpsc::Sender<Vec<i16>>, Self) {
        let (sender, chunks) = mpsc::channel(UTTERANCE_SECONDS_MAX * 50);
        (sender, Self { chunks, next: VecDeque::new(), returned: None })
    }

    /// Waits for the first chunk. Returns `false` if the channel closes without one.
    pub async fn wait_for_speech(&mut self) -> bool {
        if self.next.is_empty() {
            self.next.extend(self.chunks.recv().await);
        }
        !self.next.is_empty()
    }

    /// Returns the next chunk, or `None` at the end of the utterance.
    pub async fn next(&mut self) -> Option<Vec<i16>> {
        let chunk = match self.next.pop_front() {
            Some(chunk) => Some(chunk),
            None => self.chunks.recv().await,
        };
        if let (Some(returned), Some(chunk)) = (&mut self.returned, &chunk) {
            returned.push_back(chunk.clone());
        }
        chunk
    }

    /// Starts to keep returned chunks for [`rewind`](Self::rewind).
    fn keep(&mut self) {
        self.returned = Some(VecDeque::new());
    }

    /// Returns to the first chunk since [`keep`](Self::keep), and stops keeping chunks.
    fn rewind(&mut self) {
        let mut chunks = self.returned.take().unwrap_or_default();
        chunks.append(&mut self.next);
        self.next = chunks;
    }
}

/// Called with the whole text recognised so far.
pub type OnPartial<'a> = &'a mut (dyn FnMut(&str) + Send);

/// A speech recogniser.
pub trait Recogniser: Send + Sync {
    /// The name used in logs.
    fn name(&self) -> &'static str;

    /// Returns `true` if the recogniser supports the language of this BCP 47 tag.
    fn can_recognise(&self, language: &str) -> bool;

    /// Returns `true` if the recogniser is of no use without hints.
    fn needs_hints(&self) -> bool {
        false
    }

    /// Recognises an utterance to its end. Dropping the future cancels the recognition.
    ///
    /// # Errors
    ///
    /// Fails if the utterance cannot be recognised.
    fn recognise<'a>(
        &'a self,
        options: &'a RecognitionOptions,
        utterance: &'a mut UtteranceAudio,
        on_partial: OnPartial<'a>,
    ) -> BoxFuture<'a, Result<Transcript, RecognitionError>>;
}

/// The available recognisers. Cheap to clone.
#[derive(Clone)]
pub struct Recognisers(Arc<Inner>);

struct Inner {
    engines: ArcSwap<Engines>,
    permits: FairPermits<Option<AuthId>>,
    concurrent_max: usize,
    /// Maximum time for which a recognition waits while the limit is reached.
    wait_max: Duration,
    transcript_language: String,
}

/// The engines, which are replaced when a model is installed or removed.
struct Engines {
    /// The recognisers in the order in which they are considered for a language.
    all: Vec<Arc<dyn Recogniser>>,
    turn_estimator: Option<TurnEstimator>,
}

impl Engines {
    /// Creates the configured recognisers and those found on this machine.
    fn new(config: &SpeechConfig) -> Result<Self, EndpointError> {
        let mut named: Vec<(RecogniserName, Arc<dyn Recogniser>)> = Vec::new();
        if let Some(transcribe) = &config.transcribe {
            named.push((
                RecogniserName::Transcribe,
                Arc::new(transcribe::Transcribe::new(transcribe.clone())?),
            ));
        }
        if let Some(websocket) = &config.websocket {
            named.push((
                RecogniserName::WebSocket,
                Arc::new(websocket::WebSocket::new(websocket.clone())?),
            ));
        }
        if let Some(whisper) = whisper::Whisper::find(config) {
            named.push((RecogniserName::Whisper, Arc::new(whisper)));
        } else if config.recogniser == Some(RecogniserName::Whisper) {
            return Err(EndpointError::Whisper);
        }
        let path = std::env::var_os("PATH");
        let is_chosen = config.recogniser == Some(RecogniserName::Pocketsphinx);
        if let Some(sphinx) = pocketsphinx::Pocketsphinx::find(
            config.pocketsphinx.as_deref(),
            path.as_deref(),
            is_chosen,
        ) {
            named.push((RecogniserName::Pocketsphinx, Arc::new(sphinx)));
        } else if is_chosen {
            return Err(EndpointError::Pocketsphinx(
                "the program pocketsphinx_continuous is not on PATH (Debian: pocketsphinx, pocketsphinx-en-us)"
                    .to_owned(),
            ));
        }
        match config.recogniser {
            Some(RecogniserName::None) => named.clear(),
            // The sort is stable: the configured recogniser comes first, the others keep their
            // order.
            Some(chosen) => named.sort_by_key(|(name, _)| *name != chosen),
            None => {}
        }
        let all = named.into_iter().map(|(_, recogniser)| recogniser).collect();
        Ok(Self { all, turn_estimator: TurnEstimator::find(config) })
    }
}

impl Recognisers {
    /// Creates the configured recognisers and those found on this machine. Nothing is contacted
    /// yet.
    ///
    /// # Errors
    ///
    /// Fails if a configured recogniser cannot be used.
    pub fn new(config: &SpeechConfig) -> Result<Self, EndpointError> {
        Ok(Self::with_engines(
            Engines::new(config)?,
            config.recognitions_at_once,
            WAIT_MAX,
            &config.transcript_language,
        ))
    }

    fn with_engines(
        engines: Engines,
        concurrent_max: u16,
        wait_max: Duration,
        transcript_language: &str,
    ) -> Self {
        let concurrent_max = usize::from(concurrent_max);
        Self(Arc::new(Inner {
            engines: ArcSwap::from_pointee(engines),
            permits: FairPermits::new(concurrent_max, concurrent_max - reserve(concurrent_max)),
            concurrent_max,
            wait_max,
            transcript_language: transcript_language.to_owned(),
        }))
    }

    /// Uses the models that are installed now for later recognitions.
    ///
    /// # Errors
    ///
    /// Fails if a configured recogniser cannot be used. Nothing changes then.
    pub(super) fn reload(&self, config: &SpeechConfig) -> Result<(), EndpointError> {
        self.0.engines.store(Arc::new(Engines::new(config)?));
        Ok(())
    }

    /// Returns the language of recordings that are transcribed.
    pub fn transcript_language(&self) -> &str {
        &self.0.transcript_language
    }

    /// Returns the model that estimates whether a caller has finished, if one is installed that
    /// supports this language, otherwise `None`.
    pub fn turn_estimator(&self, language: &str) -> Option<TurnEstimator> {
        let estimator = self.0.engines.load().turn_estimator.clone();
        estimator.filter(|estimator| estimator.supports(language))
    }

    /// Returns `true` if a recogniser supports this language without hints.
    pub fn can_recognise(&self, language: &str) -> bool {
        self.can_recognise_with(language, &[])
    }

    /// Returns `true` if a recogniser supports this language with these hints.
    pub fn can_recognise_with(&self, language: &str, hints: &[String]) -> bool {
        !self.recognisers_of(language, hints).is_empty()
    }

    /// Returns the recognisers that support this language with these hints, in their order.
    fn recognisers_of(&self, language: &str, hints: &[String]) -> VecDeque<Arc<dyn Recogniser>> {
        let has_hints = !hints.is_empty();
        let is_of_use = |recogniser: &&Arc<dyn Recogniser>| {
            recogniser.can_recognise(language) && (has_hints || !recogniser.needs_hints())
        };
        self.0.engines.load().all.iter().filter(is_of_use).cloned().collect()
    }

    /// Returns the supported languages among those offered for selection, including the configured
    /// language of recordings if it is supported.
    pub fn offered_languages(&self) -> Vec<&str> {
        let own = self.transcript_language();
        let known = OFFERED_LANGUAGES.iter().copied().filter(|tag| *tag != own).chain([own]);
        let mut known: Vec<&str> = known.filter(|tag| self.can_recognise(tag)).collect();
        known.sort_unstable();
        known
    }

    /// Returns `true` if a recognition that is not part of a call may start.
    pub fn has_spare_capacity(&self) -> bool {
        let free = self.0.permits.free();
        free > 0 && free >= reserve(self.0.concurrent_max)
    }

    /// Recognises an utterance to its end. `on_interim` is called with interim results. Two
    /// successive ones always differ.
    ///
    /// # Errors
    ///
    /// Fails if the utterance cannot be recognised.
    pub async fn recognise(
        &self,
        options: &RecognitionOptions,
        utterance: &mut UtteranceAudio,
        on_interim: impl FnMut(InterimResult) + Send,
    ) -> Result<RecognisedSpeech, RecognitionError> {
        let result = self.recognise_utterance(options, utterance, on_interim).await;
        let outcome = match &result {
            Ok(speech) if speech.text.is_empty() => recognition::NOTHING,
            Ok(_) => recognition::WORDS,
            Err(RecognitionError::Busy) => recognition::BUSY,
            Err(_) => recognition::FAILED,
        };
        metrics::counter!(metric::RECOGNITIONS_TOTAL, "outcome" => outcome).increment(1);
        result
    }

    async fn recognise_utterance(
        &self,
        options: &RecognitionOptions,
        utterance: &mut UtteranceAudio,
        mut on_interim: impl FnMut(InterimResult) + Send,
    ) -> Result<RecognisedSpeech, RecognitionError> {
        let mut rest = self.recognisers_of(&options.language, &options.hints);
        if rest.is_empty() {
            return Err(RecognitionError::Language(options.language.clone()));
        }
        let permit = self.0.permits.acquire(&options.account);
        let permit = tokio::time::timeout(self.0.wait_max, permit).await;
        let _permit = permit.map_err(|_| RecognitionError::Busy)?;
        let mut tracker = StabilityTracker::default();
        let mut on_partial = |text: &str| {
            if let Some(result) = tracker.next(&normalise(text, options)) {
                on_interim(result);
            }
        };
        let mut outcome = Err(RecognitionError::Language(options.language.clone()));
        let mut name = "";
        while let Some(recogniser) = rest.pop_front() {
            name = recogniser.name();
            if !rest.is_empty() {
                utterance.keep();
            }
            outcome = recogniser.recognise(options, utterance, &mut on_partial).await;
            match &outcome {
                Err(error) if !rest.is_empty() && (options.is_live || error.is_of_helper()) => {
                    tracing::warn!(%error, recogniser = name, "recogniser failed, using the next one");
                    utterance.rewind();
                }
                Ok(_) | Err(_) => break,
            }
        }
        outcome.map(|transcript| recognised_speech(&transcript, options, name))
    }
}

/// The number of recognitions that are kept free for calls and for other accounts.
fn reserve(concurrent_max: usize) -> usize {
    concurrent_max / 4
}

fn recognised_speech(
    transcript: &Transcript,
    options: &RecognitionOptions,
    recogniser: &'static str,
) -> RecognisedSpeech {
    let confidence = transcript.confidence.unwrap_or(1.0).clamp(0.0, 1.0);
    // `as` converts NaN to 0.
    RecognisedSpeech {
        text: normalise(&transcript.text, options),
        confidence: (confidence * 100.0).round() as u8,
        recogniser,
    }
}

/// Checks that the configured recognisers can be used. Sends nothing.
///
/// # Errors
///
/// Fails if one is not installed, or if the URL of an endpoint is invalid.
pub fn check_recognisers(config: &SpeechConfig) -> Result<(), EndpointError> {
    Engines::new(config).map(drop)
}

/// Sends a short silence to each server of `[speech.transcribe]` and `[speech.websocket]`, and
/// returns the name of the table and the server's URL with the outcome.
pub async fn check_servers(
    config: &SpeechConfig,
) -> Vec<(&'static str, String, Result<(), RecognitionError>)> {
    let mut checked = Vec::new();
    if let Some(settings) = &config.transcribe {
        let outcome = match transcribe::Transcribe::new(settings.clone()) {
            Ok(server) => recognise_silence(&server, &config.transcript_language).await,
            Err(error) => Err(RecognitionError::Request(error.to_string())),
        };
        checked.push(("transcribe", shown_url(&settings.url).to_owned(), outcome));
    }
    let servers = websocket::check_servers(config).await;
    checked.extend(servers.into_iter().map(|(url, outcome)| ("websocket", url, outcome)));
    checked
}

/// Recognises a tenth of a second of silence, to check a server.
async fn recognise_silence(
    server: &dyn Recogniser,
    language: &str,
) -> Result<(), RecognitionError> {
    let (sender, mut silence) = UtteranceAudio::new();
    let _ = sender.try_send(vec![0; RATE as usize / 10]);
    drop(sender);
    let options = RecognitionOptions {
        language: language.to_owned(),
        model: "default".to_owned(),
        ..RecognitionOptions::default()
    };
    server.recognise(&options, &mut silence, &mut |_: &str| {}).await.map(drop)
}

/// Parses the response of an HTTP endpoint. For fuzzing.
#[doc(hidden)]
pub fn parse_response(body: &[u8]) -> Result<RecognisedSpeech, RecognitionError> {
    let options = RecognitionOptions { profanity_filter: true, ..RecognitionOptions::default() };
    transcribe::parse_response(body)
        .map(|transcript| recognised_speech(&transcript, &options, "transcribe"))
}

/// Parses the messages of a WebSocket recogniser and returns the final and the interim results. For
/// fuzzing.
#[doc(hidden)]
pub fn parse_messages<'a>(
    protocol: WebSocketProtocol,
    messages: impl Iterator<Item = &'a str>,
) -> Result<(RecognisedSpeech, Vec<InterimResult>), RecognitionError> {
    let (options, mut tracker, mut interim) =
        (RecognitionOptions::default(), StabilityTracker::default(), Vec::new());
    let mut on_partial = |text: &str| interim.extend(tracker.next(&normalise(text, &options)));
    let transcript = websocket::read_transcript(protocol, messages, &mut on_partial)?;
    Ok((recognised_speech(&transcript, &options, "websocket"), interim))
}

/// Normalises a result to one line of limited length, masked if requested.
fn normalise(text: &str, options: &RecognitionOptions) -> String {
    // Stops at the limit, because every interim result repeats the text so far.
    let (mut line, mut room) = (String::new(), TEXT_MAX);
    for word in
        text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty())
    {
        if !line.is_empty() && room > 0 {
            line.push(' ');
            room -= 1;
        }
        if room == 0 {
            break;
        }
        for c in word.chars().take(room) {
            line.push(c);
            room -= 1;
        }
    }
    let bounded = line.trim_end();
    if options.profanity_filter { profanity::mask(bounded) } else { bounded.to_owned() }
}

/// Encodes an utterance as a WAV file (16 bit, mono, at [`RATE`]).
pub(crate) fn encode_wav(pcm: &[i16]) -> Vec<u8> {
    let bytes = u32::try_from(pcm.len() * 2).unwrap_or(u32::MAX);
    let mut file = Vec::with_capacity(44 + pcm.len() * 2);
    file.extend_from_slice(b"RIFF");
    file.extend_from_slice(&bytes.saturating_add(36).to_le_bytes());
    file.extend_from_slice(b"WAVEfmt ");
    file.extend_from_slice(&16u32.to_le_bytes());
    // PCM, one channel.
    file.extend_from_slice(&[1, 0, 1, 0]);
    file.extend_from_slice(&RATE.to_le_bytes());
    file.extend_from_slice(&(RATE * 2).to_le_bytes());
    file.extend_from_slice(&[2, 0, 16, 0]);
    file.extend_from_slice(b"data");
    file.extend_from_slice(&bytes.to_le_bytes());
    file.extend(pcm.iter().flat_map(|sample| sample.to_le_bytes()));
    file
}

/// Collects a whole utterance, for recognisers that do not stream.
async fn collect_samples(utterance: &mut UtteranceAudio) -> Vec<i16> {
    let mut pcm = Vec::new();
    while let Some(chunk) = utterance.next().await {
        pcm.extend_from_slice(&chunk);
    }
    pcm
}

#[cfg(test)]
mod tests;
