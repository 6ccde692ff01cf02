//! The trait of whoever makes speech, and where the sound goes.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::mpsc;

use super::script::Say;
use super::wav::WavError;

/// A future behind a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Text to sound.
pub trait Provider: Send + Sync {
    /// For logs.
    fn name(&self) -> &'static str;

    /// Whether it has a voice for this BCP 47 tag that a listener would call the same language.
    fn speaks(&self, language: &str) -> bool;

    /// Whether it reads every writing, whatever the language it speaks.
    fn reads_all(&self) -> bool {
        false
    }

    /// Says one piece of text into `sink`, from the first sample as early as it can. Dropping the future ends it.
    fn synthesise<'a>(
        &'a self,
        say: &'a Say,
        sink: &'a mut Sink,
    ) -> BoxFuture<'a, Result<(), SpeechError>>;
}

/// Why text was not spoken.
#[derive(Debug, thiserror::Error)]
pub enum SpeechError {
    #[error("speak: nobody listens any more")]
    Unheard,
    #[error("speak within {0:?}")]
    Deadline(Duration),
    #[error("unpack the voice: {0}")]
    Voices(#[from] super::voices::VoicesError),
    #[error("start the speech helper: {0}")]
    Start(std::io::Error),
    #[error("start the speech helper again: it failed {failures} times, next try in {wait:?}")]
    BackOff { failures: u32, wait: Duration },
    #[error("hear from the speech helper: {0}")]
    Helper(std::io::Error),
    #[error("speak: {0}")]
    Engine(String),
    #[error("ask the speech endpoint: {0}")]
    Http(String),
    #[error("get speech from the endpoint: it answered {0}")]
    Status(http::StatusCode),
    #[error("read the speech that came: {0}")]
    Wav(#[from] WavError),
    #[error("run espeak-ng: {0}")]
    Espeak(String),
    #[error("speak: no sound came")]
    Silent,
    #[error("speak so much: text of {0} bytes")]
    TooLong(usize),
}

/// Some sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Samples a second.
    pub rate: u32,
    /// Mono.
    pub pcm: Vec<i16>,
}

/// Takes sound from a provider; bounded, so that a provider ahead of the encoder waits.
#[derive(Debug)]
pub struct Sink {
    to: mpsc::Sender<Piece>,
    begun: bool,
}

impl Sink {
    /// A sink and its other end, room for so many pieces.
    pub fn new(room: usize) -> (Self, mpsc::Receiver<Piece>) {
        let (to, from) = mpsc::channel(room);
        (Self { to, begun: false }, from)
    }

    /// Adds sound; waits while the other end is behind.
    ///
    /// # Errors
    /// [`SpeechError::Unheard`]: the other end is gone.
    pub async fn push(&mut self, rate: u32, pcm: Vec<i16>) -> Result<(), SpeechError> {
        if pcm.is_empty() {
            return Ok(());
        }
        self.begun = true;
        self.to.send(Piece { rate, pcm }).await.map_err(|_| SpeechError::Unheard)
    }

    /// Whether any sound went in.
    pub fn begun(&self) -> bool {
        self.begun
    }
}
