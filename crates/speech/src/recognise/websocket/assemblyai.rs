//! The protocol of [AssemblyAI's streaming service](https://www.assemblyai.com/docs/streaming),
//! version 3.
//!
//! | to the server | |
//! |---|---|
//! | query parameters | `speech_model`, `sample_rate`, `encoding`, and `keyterms_prompt` for hints |
//! | binary | 16-bit little-endian samples, mono, 50 to 1,000 ms per message, not faster than real time |
//! | `{"type":"ForceEndpoint"}` | ends the current turn |
//! | `{"type":"Terminate"}` | end of the utterance |
//!
//! | from the server | |
//! |---|---|
//! | `{"type":"Begin",…}` | the session has begun |
//! | `{"type":"Turn","turn_order":0,"end_of_turn":…,"transcript":…,"words":[…]}` | a turn so far; a later message about the same turn replaces it |
//! | `{"type":"Termination",…}` | follows the last turn |
//! | `{"type":"Error","error_code":3005,"error":…}` | the server closes the connection |

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::super::{RATE, RecognitionError, RecognitionOptions, Transcript};
use super::{
    Progress, Protocol, Results, Sections, TEXT_BYTES_MAX, bounded_hints, parse, server_error,
};
use crate::language::primary;
use model::Secret;

const ENGLISH_MODEL: &str = "universal-streaming-english";
const MULTILINGUAL_MODEL: &str = "universal-streaming-multilingual";
/// The languages of the multilingual model besides English.
const LANGUAGES: [&str; 5] = ["de", "es", "fr", "it", "pt"];
/// Maximum number of characters of a hint.
const HINT_CHARS_MAX: usize = 50;
/// The service ends sessions whose audio arrives faster than real time. The onset of the speech, which
/// is sent at once, is shorter than this.
const LEAD_MAX: Duration = Duration::from_secs(2);
/// Maximum number of turns of an utterance.
const TURNS_MAX: usize = 100;
/// Maximum number of words of a turn whose confidence counts.
const WORDS_MAX: usize = 500;

pub(super) struct AssemblyAi {
    model: Option<String>,
    models: BTreeMap<String, String>,
}

impl AssemblyAi {
    pub(super) fn new(model: Option<String>, models: BTreeMap<String, String>) -> Self {
        Self { model, models }
    }
}

impl Protocol for AssemblyAi {
    fn name(&self) -> &'static str {
        "assemblyai"
    }

    fn can_recognise(&self, language: &str) -> bool {
        let primary = primary(language);
        // A configured model may know other languages.
        self.model.is_some() || primary == "en" || LANGUAGES.contains(&primary.as_str())
    }

    fn authorization(&self, key: &Secret) -> String {
        key.reveal().to_owned()
    }

    fn parameters(&self, options: &RecognitionOptions) -> Vec<(&'static str, String)> {
        let configured = self.models.get(&options.model).or(self.model.as_ref());
        let default = match primary(&options.language).as_str() {
            "en" => ENGLISH_MODEL,
            _ => MULTILINGUAL_MODEL,
        };
        let mut parameters = vec![
            ("speech_model", configured.map_or(default, String::as_str).to_owned()),
            ("sample_rate", RATE.to_string()),
            ("encoding", "pcm_s16le".to_owned()),
        ];
        let mut hints = bounded_hints(options);
        hints.retain(|hint| hint.chars().count() <= HINT_CHARS_MAX);
        if !hints.is_empty() {
            parameters.push(("keyterms_prompt", serde_json::json!(hints).to_string()));
        }
        parameters
    }

    fn lead_max(&self) -> Option<Duration> {
        Some(LEAD_MAX)
    }

    fn results(&self) -> Box<dyn Results> {
        Box::<AssemblyAiResults>::default()
    }
}

/// A message from the server.
#[derive(Deserialize)]
#[serde(tag = "type")]
enum ServerMessage {
    Turn {
        #[serde(default)]
        turn_order: u32,
        #[serde(default)]
        end_of_turn: bool,
        /// The final words of the turn.
        #[serde(default)]
        transcript: String,
        /// All words of the turn.
        #[serde(default)]
        words: Vec<Word>,
    },
    Termination {},
    Error {
        #[serde(default)]
        error: String,
        #[serde(default)]
        error_code: u32,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Word {
    #[serde(default)]
    text: String,
    #[serde(default)]
    confidence: Option<f32>,
}

/// The latest words of a turn.
struct Turn {
    text: String,
    confidences: Vec<f32>,
}

#[derive(Default)]
struct AssemblyAiResults {
    turns: BTreeMap<u32, Turn>,
    /// Whether audio was sent since the last `ForceEndpoint`.
    has_new_audio: bool,
    is_over: bool,
}

impl AssemblyAiResults {
    fn sections(&self) -> Sections {
        let mut sections = Sections::default();
        for turn in self.turns.values() {
            sections.add(&turn.text, turn.confidences.iter().copied());
        }
        sections
    }
}

impl Results for AssemblyAiResults {
    fn sent_audio(&mut self) {
        self.has_new_audio = true;
    }

    fn request_words(&mut self) -> Option<&'static str> {
        std::mem::take(&mut self.has_new_audio).then_some(r#"{"type":"ForceEndpoint"}"#)
    }

    fn finish(&mut self) -> Vec<&'static str> {
        self.request_words().into_iter().chain([r#"{"type":"Terminate"}"#]).collect()
    }

    fn apply(
        &mut self,
        message: &str,
        on_partial: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), RecognitionError> {
        match parse(message)? {
            ServerMessage::Turn { turn_order, end_of_turn, transcript, words } => {
                let spoken = words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>();
                let mut text = match end_of_turn || words.is_empty() {
                    true => transcript,
                    false => spoken.join(" "),
                };
                text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX.min(text.len())));
                if self.turns.len() < TURNS_MAX || self.turns.contains_key(&turn_order) {
                    let confidences = words.iter().filter_map(|word| word.confidence);
                    let confidences = confidences.take(WORDS_MAX).collect();
                    self.turns.insert(turn_order, Turn { text, confidences });
                }
                if self.has_words() {
                    on_partial(&self.sections().text);
                }
            }
            ServerMessage::Termination {} => self.is_over = true,
            ServerMessage::Error { error, error_code } => {
                return Err(server_error(&format!("{error_code} {error}")));
            }
            ServerMessage::Other => {}
        }
        Ok(())
    }

    fn progress(&self) -> Progress {
        if self.is_over { Progress::Complete } else { Progress::Awaited }
    }

    fn has_words(&self) -> bool {
        self.turns.values().any(|turn| !turn.text.is_empty())
    }

    fn transcript(&self) -> Transcript {
        self.sections().transcript()
    }
}
