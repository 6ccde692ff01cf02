//! Sound to text: recognisers behind one small trait, and who of them is asked.
//!
//! A recognition is one utterance: sound comes in while the caller speaks, and its end is the end of the utterance. Who
//! speaks when is decided elsewhere (`call::hearing`, `call::machine`); here is only what was said. Recognisers give the
//! words as they hear them; what is told of them (clean, bounded, masked, with what has become steady) is made here.

mod pocketsphinx;
mod profanity;
mod steady;
mod transcribe;
mod websocket;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};

use super::config::{RecogniserName, SpeechConfig};
use super::http::EndpointError;
use super::provider::BoxFuture;
use model::metric::{self, recognition};
use steady::Steady;

/// Samples a second of what recognisers are given: 16 bit, mono.
pub const RATE: u32 = 16_000;
/// The longest utterance: `executionTimeout` is 60 s at most (L29), and some voice goes before it.
pub const UTTERANCE_SECONDS_MAX: usize = 65;
/// Characters of a result that are kept: two minutes of fast speech.
const TEXT_MAX: usize = 4_096;
/// How long a recognition waits for its turn among those under way.
const TURN: Duration = Duration::from_secs(5);

/// Languages that people are offered to choose from, where somebody understands them: what the widely used services know. A
/// tag that is not here can be asked for all the same.
const OFFERED: &[&str] = &[
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

/// What is to be recognised.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// BCP 47.
    pub language: String,
    /// Phrases that are likely.
    pub hints: Vec<String>,
    /// `speechModel` of the document.
    pub model: String,
    /// Results before the end are wanted.
    pub interim: bool,
    /// Words of a list are masked.
    pub profanity_filter: bool,
}

/// What was said, as a recogniser heard it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transcript {
    pub text: String,
    /// How sure it is, 0 to 1, if it tells.
    pub confidence: Option<f32>,
}

/// What was said, as it is told: one line, trimmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Understood {
    /// Empty: there were no words.
    pub text: String,
    /// Per cent; 100 of a recogniser that does not tell.
    pub confidence: u8,
}

/// What it sounds like so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interim {
    /// The words at the beginning that were the same the time before.
    pub stable: String,
    pub unstable: String,
    /// The share of the first among all words, per cent.
    pub stability: u8,
}

/// Why it could not be found out what was said.
#[derive(Debug, thiserror::Error)]
pub enum RecogniseError {
    #[error("understand {0}: no recogniser is configured for it")]
    Language(String),
    #[error("begin: too many recognitions are under way")]
    Busy,
    #[error("ask the recogniser: {0}")]
    Ask(String),
    #[error("get a transcript: the endpoint answered {0}")]
    Status(http::StatusCode),
    #[error("read the recogniser's answer: {0}")]
    Answer(String),
    #[error("get a result within {0:?}")]
    Deadline(Duration),
    #[error("run pocketsphinx: {0}")]
    Program(String),
}

/// An utterance's sound, 20 ms and more at a time; its end is the end of what the caller says.
#[derive(Debug)]
pub struct Sound {
    pieces: mpsc::Receiver<Vec<i16>>,
    first: Option<Vec<i16>>,
}

impl Sound {
    /// A sound and its other end, with room for the longest utterance.
    pub fn new() -> (mpsc::Sender<Vec<i16>>, Self) {
        let (to, pieces) = mpsc::channel(UTTERANCE_SECONDS_MAX * 50);
        (to, Self { pieces, first: None })
    }

    /// Waits until somebody speaks; `false`: nobody ever does.
    pub async fn begun(&mut self) -> bool {
        if self.first.is_none() {
            self.first = self.pieces.recv().await;
        }
        self.first.is_some()
    }

    /// The next piece; none: that was all.
    pub async fn next(&mut self) -> Option<Vec<i16>> {
        match self.first.take() {
            Some(first) => Some(first),
            None => self.pieces.recv().await,
        }
    }
}

/// Told what it sounds like so far, the whole of it each time.
pub type Partial<'a> = &'a mut (dyn FnMut(&str) + Send);

/// Sound to text.
pub trait Recogniser: Send + Sync {
    /// For logs.
    fn name(&self) -> &'static str;

    /// Whether it knows this BCP 47 tag's language.
    fn understands(&self, language: &str) -> bool;

    /// Hears `sound` to its end and says what was said. Dropping the future ends it.
    fn recognise<'a>(
        &'a self,
        ask: &'a Ask,
        sound: &'a mut Sound,
        partial: Partial<'a>,
    ) -> BoxFuture<'a, Result<Transcript, RecogniseError>>;
}

/// The recognisers of a node; cheap to clone.
#[derive(Clone)]
pub struct Recognisers(Arc<Inner>);

struct Inner {
    /// In the order in which they are asked whether they know a language.
    all: Vec<Arc<dyn Recogniser>>,
    turns: Semaphore,
    at_once: usize,
    /// How long one waits for its turn.
    turn: Duration,
    transcript_language: String,
}

impl Recognisers {
    /// Those that `config` names and those found on this machine. Nothing is asked yet.
    ///
    /// # Errors
    /// One that is configured can't be used.
    pub fn new(config: &SpeechConfig) -> Result<Self, EndpointError> {
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
        let path = std::env::var_os("PATH");
        if let Some(sphinx) =
            pocketsphinx::Pocketsphinx::find(config.pocketsphinx.as_deref(), path.as_deref())
        {
            named.push((RecogniserName::Pocketsphinx, Arc::new(sphinx)));
        } else if config.recogniser == Some(RecogniserName::Pocketsphinx) {
            return Err(EndpointError::Pocketsphinx(
                "the program pocketsphinx_continuous is not on PATH (Debian: pocketsphinx, pocketsphinx-en-us)"
                    .to_owned(),
            ));
        }
        match config.recogniser {
            Some(RecogniserName::None) => named.clear(),
            // Stable: the chosen one first, the others keep their order.
            Some(chosen) => named.sort_by_key(|(name, _)| *name != chosen),
            None => {}
        }
        let all = named.into_iter().map(|(_, recogniser)| recogniser).collect();
        Ok(Self::with(all, config.recognitions_at_once, TURN, &config.transcript_language))
    }

    fn with(
        all: Vec<Arc<dyn Recogniser>>,
        at_once: u16,
        turn: Duration,
        transcript_language: &str,
    ) -> Self {
        let at_once = usize::from(at_once);
        let (turns, transcript_language) =
            (Semaphore::new(at_once), transcript_language.to_owned());
        Self(Arc::new(Inner { all, turns, at_once, turn, transcript_language }))
    }

    /// What is spoken in recordings.
    pub fn transcript_language(&self) -> &str {
        &self.0.transcript_language
    }

    /// Whether one of them knows this language.
    pub fn understand(&self, language: &str) -> bool {
        self.0.all.iter().any(|recogniser| recogniser.understands(language))
    }

    /// Of the languages that people choose from, those that one of them knows, with the configured one in any case it does.
    pub fn offered(&self) -> Vec<&str> {
        let own = self.transcript_language();
        let known = OFFERED.iter().copied().filter(|tag| *tag != own).chain([own]);
        let mut known: Vec<&str> = known.filter(|tag| self.understand(tag)).collect();
        known.sort_unstable();
        known
    }

    /// Whether a recognition that nobody's call depends on may begin: a quarter of the turns is kept for documents.
    pub fn has_spare(&self) -> bool {
        let free = self.0.turns.available_permits();
        free > 0 && free >= self.0.at_once / 4
    }

    /// Hears an utterance to its end. `interim` is told what it sounds like on the way, never the same twice in a row.
    ///
    /// # Errors
    /// It can't be found out what was said.
    pub async fn recognise(
        &self,
        ask: &Ask,
        sound: &mut Sound,
        interim: impl FnMut(Interim) + Send,
    ) -> Result<Understood, RecogniseError> {
        let heard = self.hear(ask, sound, interim).await;
        let outcome = match &heard {
            Ok(heard) if heard.text.is_empty() => recognition::NOTHING,
            Ok(_) => recognition::WORDS,
            Err(RecogniseError::Busy) => recognition::BUSY,
            Err(_) => recognition::FAILED,
        };
        metrics::counter!(metric::RECOGNITIONS_TOTAL, "outcome" => outcome).increment(1);
        heard
    }

    async fn hear(
        &self,
        ask: &Ask,
        sound: &mut Sound,
        mut interim: impl FnMut(Interim) + Send,
    ) -> Result<Understood, RecogniseError> {
        let able = self.0.all.iter().find(|r| r.understands(&ask.language));
        let recogniser = able.ok_or_else(|| RecogniseError::Language(ask.language.clone()))?;
        let turn = tokio::time::timeout(self.0.turn, self.0.turns.acquire()).await;
        let _turn = turn.ok().and_then(Result::ok).ok_or(RecogniseError::Busy)?;
        let mut steady = Steady::default();
        let mut partial = |text: &str| {
            if let Some(news) = steady.next(&shown(text, ask)) {
                interim(news);
            }
        };
        let heard = recogniser.recognise(ask, sound, &mut partial).await?;
        Ok(understood(&heard, ask))
    }
}

fn understood(heard: &Transcript, ask: &Ask) -> Understood {
    let confidence = heard.confidence.unwrap_or(1.0).clamp(0.0, 1.0);
    // `as` takes no number for 0.
    Understood { text: shown(&heard.text, ask), confidence: (confidence * 100.0).round() as u8 }
}

/// What is made of the answer of an endpoint that is asked over HTTP. For fuzzing (R25).
#[doc(hidden)]
pub fn read_answer(body: &[u8]) -> Result<Understood, RecogniseError> {
    let ask = Ask { profanity_filter: true, ..Ask::default() };
    transcribe::transcript(body).map(|heard| understood(&heard, &ask))
}

/// What is made of the messages of a recogniser on a WebSocket: the last word, and what it sounded like on the way. For
/// fuzzing (R25).
#[doc(hidden)]
pub fn read_messages<'a>(
    messages: impl Iterator<Item = &'a str>,
) -> Result<(Understood, Vec<Interim>), RecogniseError> {
    let (ask, mut steady, mut told) = (Ask::default(), Steady::default(), Vec::new());
    let mut partial = |text: &str| told.extend(steady.next(&shown(text, &ask)));
    let heard = websocket::heard_of(messages, &mut partial)?;
    Ok((understood(&heard, &ask), told))
}

/// A result as it is told: one line of bounded length, masked where that is asked for.
fn shown(text: &str, ask: &Ask) -> String {
    let mut line = String::new();
    for word in
        text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty())
    {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    let bounded: String = line.chars().take(TEXT_MAX).collect();
    if ask.profanity_filter {
        profanity::masked(bounded.trim_end())
    } else {
        bounded.trim_end().to_owned()
    }
}

/// An utterance as a WAV file: 16 bit, mono, [`RATE`].
fn wav(pcm: &[i16]) -> Vec<u8> {
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

/// All of a sound, for recognisers that take it whole.
async fn whole(sound: &mut Sound) -> Vec<i16> {
    let mut pcm = Vec::new();
    while let Some(piece) = sound.next().await {
        pcm.extend_from_slice(&piece);
    }
    pcm
}

#[cfg(test)]
mod tests;
