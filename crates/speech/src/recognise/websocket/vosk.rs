//! The protocol of [Vosk's server](https://alphacephei.com/vosk/server), which can be self-hosted for
//! about twenty languages.
//!
//! | to the server | |
//! |---|---|
//! | `{"config":{"sample_rate":16000,"words":1,"language":"en-US","hints":["…"],"model":"default"}}` | first message; Vosk uses only the first two keys |
//! | binary | 16-bit little-endian samples, mono, 100 ms per message |
//! | `{"eof":1}` | end of the utterance |
//!
//! | from the server | |
//! |---|---|
//! | `{"partial":"book a"}` | the current section of speech so far |
//! | `{"text":"book a table","result":[{"word":"book","conf":0.98},…]}` | a section is complete; after `eof`, the server sends the last section and closes the connection |

use serde::Deserialize;
use serde_json::json;

use super::super::{RATE, RecognitionError, RecognitionOptions, Transcript};
use super::{Progress, Protocol, Results, Sections, parse};
use model::Secret;

pub(super) struct Vosk;

impl Protocol for Vosk {
    fn name(&self) -> &'static str {
        "websocket"
    }

    fn authorization(&self, key: &Secret) -> String {
        format!("Bearer {}", key.reveal())
    }

    fn first_message(&self, options: &RecognitionOptions) -> Option<String> {
        let config = json!({
            "sample_rate": RATE, "words": 1, "language": options.language, "hints": options.hints, "model": options.model,
        });
        Some(json!({ "config": config }).to_string())
    }

    fn results(&self) -> Box<dyn Results> {
        Box::<VoskResults>::default()
    }
}

/// A message from the server.
#[derive(Deserialize)]
struct ServerMessage {
    #[serde(default)]
    partial: Option<String>,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    result: Vec<Word>,
}

#[derive(Deserialize)]
struct Word {
    #[serde(default)]
    conf: Option<f32>,
}

#[derive(Default)]
struct VoskResults {
    sections: Sections,
    is_finished: bool,
    /// Whether a section was completed after the end of the audio.
    has_last: bool,
}

impl Results for VoskResults {
    fn finish(&mut self) -> Vec<&'static str> {
        self.is_finished = true;
        vec![r#"{"eof":1}"#]
    }

    fn apply(
        &mut self,
        message: &str,
        on_partial: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), RecognitionError> {
        let message: ServerMessage = parse(message)?;
        if let Some(text) = message.text {
            self.sections.add(&text, message.result.iter().filter_map(|word| word.conf));
            self.has_last |= self.is_finished;
            if !text.is_empty() {
                on_partial(&self.sections.text);
            }
        } else if let Some(now) = message.partial.filter(|now| !now.is_empty()) {
            on_partial(&self.sections.with(&now));
        }
        Ok(())
    }

    fn progress(&self) -> Progress {
        if self.has_last { Progress::Closing } else { Progress::Awaited }
    }

    fn has_words(&self) -> bool {
        !self.sections.text.is_empty()
    }

    fn transcript(&self) -> Transcript {
        self.sections.transcript()
    }
}
