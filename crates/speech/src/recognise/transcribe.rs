//! An OpenAI-compatible `POST /v1/audio/transcriptions`: a WAV file of 16 kHz out, text in.
//!
//! The utterance goes out when it has ended. Where interim results are wanted, what was said so far goes out as well, every
//! `interim_ms`, one request at a time: these endpoints know no other way.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use serde::Deserialize;

use super::{Ask, Partial, RATE, RecogniseError, Recogniser, Sound, Transcript, wav};
use crate::config::{TranscribeConfig, TranscriptFormat};
use crate::http::{self as client, EndpointError, HttpClient, KEY_UNUSABLE, error_chain};
use crate::language::primary;
use crate::provider::BoxFuture;

/// Words and figures of a minute of speech.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Characters of hints that are sent along: the models take a few hundred tokens of them.
const PROMPT_MAX: usize = 600;
/// Between the parts of a request; the sound can't contain it but by a one-in-2¹²⁸ chance.
const BOUNDARY: &str = "offhook-7d1f0c52-9a1e-4c0b-b3f6-2e8f5a64d0c7";
/// Above it, and with a transcript that is as unlikely, a segment is silence: the rule of the model that these endpoints
/// are named after (`no_speech_threshold` and `logprob_threshold` of its reference code).
const NO_SPEECH: f32 = 0.6;
const UNLIKELY: f32 = -1.0;

/// The recogniser.
pub(super) struct Transcribe {
    client: HttpClient,
    endpoint: Uri,
    config: TranscribeConfig,
}

/// An answer, of either format; some endpoints tell their certainty, others don't.
#[derive(Debug, Deserialize)]
struct Answer {
    text: String,
    #[serde(default)]
    segments: Option<Vec<Segment>>,
    #[serde(default)]
    logprobs: Option<Vec<Token>>,
    #[serde(default)]
    confidence: Option<f32>,
}

#[derive(Debug, Deserialize)]
struct Segment {
    #[serde(default)]
    text: String,
    #[serde(default)]
    start: f32,
    #[serde(default)]
    end: f32,
    #[serde(default)]
    avg_logprob: Option<f32>,
    #[serde(default)]
    no_speech_prob: Option<f32>,
}

#[derive(Debug, Deserialize)]
struct Token {
    logprob: f32,
}

impl Transcribe {
    pub(super) fn new(config: TranscribeConfig) -> Result<Self, EndpointError> {
        let endpoint = client::endpoint("transcribe", &config.url, "/audio/transcriptions")?;
        Ok(Self { client: client::client("transcribe")?, endpoint, config })
    }

    async fn hear(
        &self,
        ask: &Ask,
        sound: &mut Sound,
        partial: Partial<'_>,
    ) -> Result<Transcript, RecogniseError> {
        // By the sound itself: 20 ms of it come in 20 ms.
        let every = usize::try_from(self.config.interim_ms)
            .unwrap_or(usize::MAX)
            .saturating_mul(RATE as usize / 1_000);
        let mut pcm = Vec::new();
        if !ask.interim || every == 0 {
            pcm = super::whole(sound).await;
            return self.ask(ask, &pcm).await;
        }
        let mut due = every;
        let mut asked: Option<BoxFuture<'_, Result<Transcript, RecogniseError>>> = None;
        loop {
            let so_far = async {
                match asked.as_mut() {
                    Some(request) => request.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                piece = sound.next() => match piece {
                    Some(piece) => pcm.extend_from_slice(&piece),
                    // What is under way is stale now.
                    None => break,
                },
                heard = so_far => {
                    asked = None;
                    due = pcm.len() + every;
                    match heard {
                        Ok(heard) => partial(&heard.text),
                        Err(e) => tracing::debug!(error = %e, "no interim result"),
                    }
                }
            }
            if asked.is_none() && pcm.len() >= due {
                let so_far = pcm.clone();
                asked = Some(Box::pin(async move { self.ask(ask, &so_far).await }));
            }
        }
        drop(asked);
        self.ask(ask, &pcm).await
    }

    async fn ask(&self, ask: &Ask, pcm: &[i16]) -> Result<Transcript, RecogniseError> {
        let deadline = Duration::from_millis(self.config.timeout_ms);
        let asked = tokio::time::timeout(deadline, self.request(ask, pcm)).await;
        asked.unwrap_or(Err(RecogniseError::Deadline(deadline)))
    }

    async fn request(&self, ask: &Ask, pcm: &[i16]) -> Result<Transcript, RecogniseError> {
        let failed = |e: &dyn std::error::Error| RecogniseError::Ask(error_chain(e));
        let kind = format!("multipart/form-data; boundary={BOUNDARY}");
        let mut request = Request::post(self.endpoint.clone()).header(header::CONTENT_TYPE, kind);
        if let Some(key) = &self.config.api_key {
            let bearer =
                client::bearer(key).ok_or_else(|| RecogniseError::Ask(KEY_UNUSABLE.to_owned()))?;
            request = request.header(header::AUTHORIZATION, bearer);
        }
        let request = request.body(Full::from(self.body(ask, pcm))).map_err(|e| failed(&e))?;
        let response = self.client.request(request).await.map_err(|e| failed(&e))?;
        // What stands in the body of an error may quote the key: it is not shown.
        if !response.status().is_success() {
            return Err(RecogniseError::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|e| RecogniseError::Answer(error_chain(e.as_ref())))?.to_bytes();
        transcript(&body)
    }

    /// The form: its fields, and last the sound.
    fn body(&self, ask: &Ask, pcm: &[i16]) -> Bytes {
        let mut form = Vec::with_capacity(pcm.len() * 2 + 2_048);
        let mut field = |name: &str, value: &str| {
            let part = format!(
                "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{}\r\n",
                value.replace(['\r', '\n'], " ")
            );
            form.extend_from_slice(part.as_bytes());
        };
        field("model", self.config.models.get(&ask.model).unwrap_or(&self.config.model));
        field("language", &primary(&ask.language));
        field(
            "response_format",
            match self.config.format {
                TranscriptFormat::VerboseJson => "verbose_json",
                TranscriptFormat::Json => "json",
            },
        );
        field("temperature", "0");
        if !ask.hints.is_empty() {
            field("prompt", &hints(&ask.hints));
        }
        let head = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"speech.wav\"\r\n\
             Content-Type: audio/wav\r\n\r\n"
        );
        form.extend_from_slice(head.as_bytes());
        form.extend_from_slice(&wav(pcm));
        form.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
        form.into()
    }
}

/// Likely phrases, whole ones, as many as the models look at.
fn hints(hints: &[String]) -> String {
    let mut prompt = String::new();
    for hint in hints {
        if prompt.chars().count() + hint.chars().count() + 2 > PROMPT_MAX {
            break;
        }
        if !prompt.is_empty() {
            prompt.push_str(", ");
        }
        prompt.push_str(hint);
    }
    prompt
}

/// What the body of an answer says.
pub(super) fn transcript(body: &[u8]) -> Result<Transcript, RecogniseError> {
    let answer: Answer =
        serde_json::from_slice(body).map_err(|e| RecogniseError::Answer(e.to_string()))?;
    let mut text = answer.text;
    let mut likely = Likely::default();
    if let Some(segments) = answer.segments.filter(|segments| !segments.is_empty()) {
        let is_silence = |s: &Segment| {
            s.no_speech_prob.is_some_and(|p| p > NO_SPEECH)
                && s.avg_logprob.is_some_and(|p| p < UNLIKELY)
        };
        let (silent, said): (Vec<_>, Vec<_>) = segments.into_iter().partition(is_silence);
        if !silent.is_empty() {
            text = said.iter().map(|s| s.text.as_str()).collect();
        }
        for segment in said {
            if let Some(logprob) = segment.avg_logprob {
                likely.add(logprob, (segment.end - segment.start).max(0.02));
            }
        }
    }
    answer.logprobs.unwrap_or_default().iter().for_each(|token| likely.add(token.logprob, 1.0));
    Ok(Transcript { text, confidence: answer.confidence.or_else(|| likely.mean()) })
}

/// A mean of log probabilities, by weight.
#[derive(Default)]
struct Likely {
    sum: f32,
    weight: f32,
}

impl Likely {
    fn add(&mut self, logprob: f32, weight: f32) {
        self.sum += logprob * weight;
        self.weight += weight;
    }

    fn mean(&self) -> Option<f32> {
        (self.weight > 0.0).then(|| (self.sum / self.weight).exp())
    }
}

impl Recogniser for Transcribe {
    fn name(&self) -> &'static str {
        "transcribe"
    }

    /// The models know a hundred languages; one that they don't know is refused by the endpoint.
    fn understands(&self, _language: &str) -> bool {
        true
    }

    fn recognise<'a>(
        &'a self,
        ask: &'a Ask,
        sound: &'a mut Sound,
        partial: Partial<'a>,
    ) -> BoxFuture<'a, Result<Transcript, RecogniseError>> {
        Box::pin(self.hear(ask, sound, partial))
    }
}

#[cfg(test)]
mod tests;
