//! The protocol of [Deepgram's live transcription](https://developers.deepgram.com/reference/streaming),
//! `/v1/listen`.
//!
//! | to the server | |
//! |---|---|
//! | query parameters | `model`, `language`, `encoding`, `sample_rate`, `channels`, `interim_results`, `punctuate`, and `keyterm` or `keywords` for hints |
//! | binary | 16-bit little-endian samples, mono |
//! | `{"type":"Finalize"}` | requests the final words of the audio so far |
//! | `{"type":"KeepAlive"}` | without audio, the server closes the connection after 10 s |
//! | `{"type":"CloseStream"}` | end of the utterance |
//!
//! | from the server | |
//! |---|---|
//! | `{"type":"Results","is_final":…,"from_finalize":…,"channel":{"alternatives":[{"transcript":…,"confidence":…}]}}` | words of the current section; final ones do not change |
//! | `{"type":"Metadata",…}` | follows the last result |
//! | `{"type":"Error",…}` | the server closes the connection |

use std::collections::BTreeMap;

use serde::Deserialize;

use super::super::{RATE, RecognitionError, RecognitionOptions, Transcript};
use super::{Progress, Protocol, Results, Sections, bounded_hints, parse, server_error};
use crate::language::primary;
use model::Secret;

const DEFAULT_MODEL: &str = "nova-3";
/// Tags with a region or script that the service knows. Other languages are requested without.
const TAGS: &str = "da-DK de-CH en-AU en-GB en-IN en-NZ en-US es-419 fr-CA ko-KR nl-BE pa-IN pt-BR pt-PT sv-SE th-TH \
                    zh-CN zh-HK zh-Hans zh-Hant zh-TW";

pub(super) struct Deepgram {
    model: String,
    models: BTreeMap<String, String>,
}

impl Deepgram {
    pub(super) fn new(model: Option<String>, models: BTreeMap<String, String>) -> Self {
        Self { model: model.unwrap_or_else(|| DEFAULT_MODEL.to_owned()), models }
    }
}

/// Returns the service's tag for a language.
fn language_of(tag: &str) -> String {
    if let Some(known) = TAGS.split_ascii_whitespace().find(|known| known.eq_ignore_ascii_case(tag))
    {
        return known.to_owned();
    }
    match primary(tag).as_str() {
        "nb" | "nn" => "no".to_owned(),
        other => other.to_owned(),
    }
}

impl Protocol for Deepgram {
    fn name(&self) -> &'static str {
        "deepgram"
    }

    fn authorization(&self, key: &Secret) -> String {
        format!("Token {}", key.reveal())
    }

    fn parameters(&self, options: &RecognitionOptions) -> Vec<(&'static str, String)> {
        let model = self.models.get(&options.model).unwrap_or(&self.model);
        let mut parameters = vec![
            ("model", model.clone()),
            ("language", language_of(&options.language)),
            ("encoding", "linear16".to_owned()),
            ("sample_rate", RATE.to_string()),
            ("channels", "1".to_owned()),
            ("interim_results", "true".to_owned()),
            ("punctuate", "true".to_owned()),
        ];
        let hints = bounded_hints(options);
        if model.starts_with("nova-3") || model.starts_with("flux") {
            parameters.extend(hints.iter().map(|hint| ("keyterm", (*hint).to_owned())));
        } else {
            // Older models take single words.
            let words = hints.iter().flat_map(|hint| hint.split_whitespace());
            parameters.extend(words.map(|word| ("keywords", word.to_owned())));
        }
        parameters
    }

    fn results(&self) -> Box<dyn Results> {
        Box::<DeepgramResults>::default()
    }
}

/// A message from the server.
#[derive(Deserialize)]
#[serde(tag = "type")]
enum ServerMessage {
    Results {
        #[serde(default)]
        is_final: bool,
        /// The answer to `Finalize`.
        #[serde(default)]
        from_finalize: bool,
        channel: Channel,
    },
    Metadata {},
    Error {
        #[serde(default)]
        description: String,
        #[serde(default)]
        message: String,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Channel {
    #[serde(default)]
    alternatives: Vec<Alternative>,
}

#[derive(Default, Deserialize)]
struct Alternative {
    #[serde(default)]
    transcript: String,
    #[serde(default)]
    confidence: Option<f32>,
}

#[derive(Default)]
struct DeepgramResults {
    sections: Sections,
    /// The words of the current section, if they are not final.
    current: String,
    /// Whether audio was sent since the last `Finalize`.
    has_new_audio: bool,
    /// The number of `Finalize` messages, and how many of them were answered. The server does not
    /// promise to answer each.
    requested: u32,
    answered: u32,
    is_over: bool,
}

impl DeepgramResults {
    fn request(&mut self) -> Option<&'static str> {
        if !std::mem::take(&mut self.has_new_audio) {
            return None;
        }
        self.requested += 1;
        Some(r#"{"type":"Finalize"}"#)
    }
}

impl Results for DeepgramResults {
    fn sent_audio(&mut self) {
        self.has_new_audio = true;
    }

    fn request_words(&mut self) -> Option<&'static str> {
        self.request()
    }

    fn keep_alive(&self) -> Option<&'static str> {
        Some(r#"{"type":"KeepAlive"}"#)
    }

    fn finish(&mut self) -> Vec<&'static str> {
        self.request().into_iter().chain([r#"{"type":"CloseStream"}"#]).collect()
    }

    fn apply(
        &mut self,
        message: &str,
        on_partial: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), RecognitionError> {
        match parse(message)? {
            ServerMessage::Results { is_final, from_finalize, channel } => {
                let best = channel.alternatives.into_iter().next().unwrap_or_default();
                let words = best.transcript.split_whitespace().count();
                if is_final {
                    self.current.clear();
                    let confidences = std::iter::repeat_n(best.confidence, words).flatten();
                    self.sections.add(&best.transcript, confidences);
                } else {
                    self.current = best.transcript;
                }
                if from_finalize {
                    self.answered = (self.answered + 1).min(self.requested);
                }
                if words > 0 {
                    on_partial(&self.sections.with(&self.current));
                }
            }
            ServerMessage::Metadata {} => self.is_over = true,
            ServerMessage::Error { description, message } => {
                return Err(server_error(&format!("{description} {message}")));
            }
            ServerMessage::Other => {}
        }
        Ok(())
    }

    fn progress(&self) -> Progress {
        let has_all = self.requested > 0 && self.answered == self.requested && !self.has_new_audio;
        if self.is_over || has_all { Progress::Complete } else { Progress::Awaited }
    }

    fn has_words(&self) -> bool {
        !self.sections.text.is_empty() || !self.current.is_empty()
    }

    fn transcript(&self) -> Transcript {
        let Transcript { text, confidence } = self.sections.transcript();
        // The server may end the recognition before the last words are final.
        let text = if self.current.is_empty() { text } else { self.sections.with(&self.current) };
        Transcript { text, confidence }
    }
}
