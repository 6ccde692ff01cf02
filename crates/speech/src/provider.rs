//! The interface of speech synthesis engines and the sink for their audio.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::mpsc;

use super::language::Speaker;
use super::script::Segment;
use super::wav::WavError;
use media::prompt::Prompt;
use model::{AuthId, PromptVoice};

/// The account that work is done for. `None` for work of the node, which counts as one more account.
pub(super) type Owner = Option<AuthId>;

/// Maximum number of characters of a language tag in an event log. Tags come from documents.
const LANGUAGE_CHARS_MAX: usize = 35;

/// A boxed future, for methods of trait objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A speech synthesis engine.
pub trait Provider: Send + Sync {
    /// The name used in logs.
    fn name(&self) -> &'static str;

    /// Returns `true` if the engine has a voice for the language of this BCP 47 tag.
    fn can_speak(&self, language: &str) -> bool;

    /// Returns the engine's name of the voice that speaks for `speaker`.
    fn voice(&self, speaker: &Speaker) -> String;

    /// Returns engine, voice and language of a speaker, as event logs name them.
    fn prompt_voice(&self, speaker: &Speaker) -> PromptVoice {
        PromptVoice {
            engine: self.name().to_owned(),
            voice: self.voice(speaker),
            language: speaker.language.chars().take(LANGUAGE_CHARS_MAX).collect(),
        }
    }

    /// Returns `true` if the engine supports every writing system, whatever its language.
    fn can_read_all(&self) -> bool {
        false
    }

    /// Returns `true` if the engine reads words in Latin letters in text of a language.
    fn can_read_latin(&self, _language: &str) -> bool {
        true
    }

    /// Speaks one segment into `sink`, with the first samples as early as possible. Dropping the
    /// future cancels the synthesis.
    ///
    /// # Errors
    ///
    /// Fails if the segment cannot be spoken. Audio produced before the failure stays in `sink`.
    fn synthesise<'a>(
        &'a self,
        segment: &'a Segment,
        sink: &'a mut Sink,
    ) -> BoxFuture<'a, Result<(), SpeechError>>;
}

/// The reason why text could not be spoken.
#[derive(Debug, thiserror::Error)]
pub enum SpeechError {
    #[error("could not speak: the prompt is no longer needed")]
    Cancelled,
    #[error("the speech was not complete within {0:?}")]
    Deadline(Duration),
    #[error("could not unpack the voice: {0}")]
    Voices(#[from] super::voices::VoiceFileError),
    #[error("could not start the speech helper: {0}")]
    Start(std::io::Error),
    #[error(
        "could not restart the speech helper: it failed {failures} times, next attempt in {wait:?}"
    )]
    BackOff { failures: u32, wait: Duration },
    #[error("could not communicate with the speech helper: {0}")]
    Helper(std::io::Error),
    #[error("could not speak: {0}")]
    Engine(String),
    #[error("could not send a request to the speech endpoint: {0}")]
    Http(String),
    #[error("could not get speech from the endpoint: the response status was {0}")]
    Status(http::StatusCode),
    #[error("could not decode the speech: {0}")]
    Wav(#[from] WavError),
    #[error("could not run espeak-ng: {0}")]
    Espeak(String),
    #[error("could not speak: no audio was produced")]
    NoAudio,
    #[error("could not speak a text of {0} bytes: it is too long")]
    TooLong(usize),
}

/// A chunk of audio.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AudioChunk {
    /// Sample rate in Hz.
    pub rate: u32,
    /// Mono samples.
    pub pcm: Vec<i16>,
}

/// Receives audio from a provider. The channel is bounded, so that a provider waits for the
/// encoder.
#[derive(Debug)]
pub struct Sink {
    sender: mpsc::Sender<AudioChunk>,
    has_audio: bool,
    /// The prompt that names its voices. Not kept, so that unused prompts are noticed.
    prompt: Option<Weak<Prompt>>,
    /// The voice of the next audio, if the prompt does not name it yet.
    voice: Option<PromptVoice>,
    owner: Owner,
}

impl Sink {
    /// Creates a sink with room for `capacity` chunks, and its receiver.
    pub fn new(capacity: usize) -> (Self, mpsc::Receiver<AudioChunk>) {
        let (sender, receiver) = mpsc::channel(capacity);
        let (has_audio, prompt, voice, owner) = (false, None, None, None);
        (Self { sender, has_audio, prompt, voice, owner }, receiver)
    }

    /// Adds the voices whose audio arrives to `prompt`.
    pub fn with_voices_of(self, prompt: &Arc<Prompt>) -> Self {
        Self { prompt: Some(Arc::downgrade(prompt)), ..self }
    }

    /// Sets the account that the audio is for.
    pub(super) fn with_owner(self, owner: &Owner) -> Self {
        Self { owner: owner.clone(), ..self }
    }

    /// The account that the audio is for.
    pub(super) fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Names the voice of the following audio.
    pub fn set_voice(&mut self, voice: PromptVoice) {
        self.voice = Some(voice);
    }

    /// Adds audio. Waits while the channel is full.
    ///
    /// # Errors
    ///
    /// Fails with [`SpeechError::Cancelled`] if the receiver was dropped.
    pub async fn push(&mut self, rate: u32, pcm: Vec<i16>) -> Result<(), SpeechError> {
        if pcm.is_empty() {
            return Ok(());
        }
        self.has_audio = true;
        if let Some(voice) = self.voice.take()
            && let Some(prompt) = self.prompt.as_ref().and_then(Weak::upgrade)
        {
            prompt.add_voice(voice);
        }
        self.sender.send(AudioChunk { rate, pcm }).await.map_err(|_| SpeechError::Cancelled)
    }

    /// Returns `true` once audio has been added.
    pub fn has_audio(&self) -> bool {
        self.has_audio
    }
}
