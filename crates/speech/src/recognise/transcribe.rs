//! Speech recognition with an OpenAI-compatible `POST /v1/audio/transcriptions` endpoint, which
//! takes a WAV file.
//!
//! The utterance is sent when it ends. For interim results, the audio so far is also sent every
//! `interim_ms` milliseconds, one request at a time, because these endpoints do not stream.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use serde::Deserialize;

use super::{
    OnPartial, RATE, Recogniser, RecognitionError, RecognitionOptions, Transcript, UtteranceAudio,
    encode_wav,
};
use crate::config::{TranscribeConfig, TranscriptFormat};
use crate::http::{self as client, EndpointError, HttpClient, INVALID_KEY, error_chain};
use crate::language::primary;
use crate::provider::BoxFuture;

/// Maximum size of a response: the words and their statistics for a minute of speech.
const RESPONSE_BYTES_MAX: usize = 1 << 20;
/// Maximum number of characters in the prompt that is built from hints. The models use a few
/// hundred tokens of it.
const PROMPT_MAX: usize = 600;
/// Multipart boundary. A random UUID cannot occur in the audio by chance.
const BOUNDARY: &str = "offhook-7d1f0c52-9a1e-4c0b-b3f6-2e8f5a64d0c7";
/// A segment counts as silence if `no_speech_prob` is above [`NO_SPEECH`] and `avg_logprob` below
/// [`UNLIKELY`]. These are the thresholds of Whisper's reference code (`no_speech_threshold`,
/// `logprob_threshold`).
const NO_SPEECH: f32 = 0.6;
const UNLIKELY: f32 = -1.0;

/// An OpenAI-compatible transcription endpoint as a [`Recogniser`].
pub(super) struct Transcribe {
    client: HttpClient,
    endpoint: Uri,
    config: TranscribeConfig,
}

/// A response in either format. Not all endpoints provide confidence values.
#[derive(Debug, Deserialize)]
struct TranscriptionResponse {
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

    async fn recognise_utterance(
        &self,
        options: &RecognitionOptions,
        utterance: &mut UtteranceAudio,
        on_partial: OnPartial<'_>,
    ) -> Result<Transcript, RecognitionError> {
        // The interval is measured in audio, which arrives in real time.
        let interval = usize::try_from(self.config.interim_ms)
            .unwrap_or(usize::MAX)
            .saturating_mul(RATE as usize / 1_000);
        let mut pcm = Vec::new();
        if !options.interim || interval == 0 {
            pcm = super::collect_samples(utterance).await;
            return self.transcribe(options, &pcm).await;
        }
        let mut due = interval;
        let mut pending: Option<BoxFuture<'_, Result<Transcript, RecognitionError>>> = None;
        loop {
            let interim = async {
                match pending.as_mut() {
                    Some(request) => request.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                chunk = utterance.next() => match chunk {
                    Some(chunk) => pcm.extend_from_slice(&chunk),
                    // A pending interim request is obsolete now.
                    None => break,
                },
                result = interim => {
                    pending = None;
                    due = pcm.len() + interval;
                    match result {
                        Ok(transcript) => on_partial(&transcript.text),
                        Err(e) => tracing::debug!(error = %e, "interim transcription failed"),
                    }
                }
            }
            if pending.is_none() && pcm.len() >= due {
                let so_far = pcm.clone();
                pending = Some(Box::pin(async move { self.transcribe(options, &so_far).await }));
            }
        }
        drop(pending);
        self.transcribe(options, &pcm).await
    }

    async fn transcribe(
        &self,
        options: &RecognitionOptions,
        pcm: &[i16],
    ) -> Result<Transcript, RecognitionError> {
        let deadline = Duration::from_millis(self.config.timeout_ms);
        let outcome = tokio::time::timeout(deadline, self.send_request(options, pcm)).await;
        outcome.unwrap_or(Err(RecognitionError::Deadline(deadline)))
    }

    async fn send_request(
        &self,
        options: &RecognitionOptions,
        pcm: &[i16],
    ) -> Result<Transcript, RecognitionError> {
        let failed = |e: &dyn std::error::Error| RecognitionError::Request(error_chain(e));
        let kind = format!("multipart/form-data; boundary={BOUNDARY}");
        let mut request = Request::post(self.endpoint.clone()).header(header::CONTENT_TYPE, kind);
        if let Some(key) = &self.config.api_key {
            let bearer = client::bearer(key)
                .ok_or_else(|| RecognitionError::Request(INVALID_KEY.to_owned()))?;
            request = request.header(header::AUTHORIZATION, bearer);
        }
        let request = request.body(Full::from(self.body(options, pcm))).map_err(|e| failed(&e))?;
        let response = self.client.request(request).await.map_err(|e| failed(&e))?;
        // The body of an error may quote the API key, so it is not reported.
        if !response.status().is_success() {
            return Err(RecognitionError::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), RESPONSE_BYTES_MAX).collect().await;
        let body =
            body.map_err(|e| RecognitionError::Response(error_chain(e.as_ref())))?.to_bytes();
        parse_response(&body)
    }

    /// Encodes the multipart form, with the audio last.
    fn body(&self, options: &RecognitionOptions, pcm: &[i16]) -> Bytes {
        let mut form = Vec::with_capacity(pcm.len() * 2 + 2_048);
        let mut field = |name: &str, value: &str| {
            let part = format!(
                "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{}\r\n",
                value.replace(['\r', '\n'], " ")
            );
            form.extend_from_slice(part.as_bytes());
        };
        field("model", self.config.models.get(&options.model).unwrap_or(&self.config.model));
        field("language", &primary(&options.language));
        field(
            "response_format",
            match self.config.format {
                TranscriptFormat::VerboseJson => "verbose_json",
                TranscriptFormat::Json => "json",
            },
        );
        field("temperature", "0");
        if !options.hints.is_empty() {
            field("prompt", &hints_prompt(&options.hints));
        }
        let head = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"speech.wav\"\r\n\
             Content-Type: audio/wav\r\n\r\n"
        );
        form.extend_from_slice(head.as_bytes());
        form.extend_from_slice(&encode_wav(pcm));
        form.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
        form.into()
    }
}

/// Joins whole hints up to the length limit.
fn hints_prompt(hints: &[String]) -> String {
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

/// Parses the body of a response.
pub(super) fn parse_response(body: &[u8]) -> Result<Transcript, RecognitionError> {
    let response: TranscriptionResponse =
        serde_json::from_slice(body).map_err(|e| RecognitionError::Response(e.to_string()))?;
    let mut text = response.text;
    let mut mean = LogProbMean::default();
    if let Some(segments) = response.segments.filter(|segments| !segments.is_empty()) {
        let is_silence = |s: &Segment| {
            s.no_speech_prob.is_some_and(|p| p > NO_SPEECH)
                && s.avg_logprob.is_some_and(|p| p < UNLIKELY)
        };
        let (silent, spoken): (Vec<_>, Vec<_>) = segments.into_iter().partition(is_silence);
        if !silent.is_empty() {
            text = spoken.iter().map(|s| s.text.as_str()).collect();
        }
        for segment in spoken {
            if let Some(logprob) = segment.avg_logprob {
                mean.add(logprob, (segment.end - segment.start).max(0.02));
            }
        }
    }
    response.logprobs.unwrap_or_default().iter().for_each(|token| mean.add(token.logprob, 1.0));
    Ok(Transcript { text, confidence: response.confidence.or_else(|| mean.mean()) })
}

/// A weighted mean of log probabilities.
#[derive(Default)]
struct LogProbMean {
    sum: f32,
    weight: f32,
}

impl LogProbMean {
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

    /// Returns `true`, because the models support about a hundred languages. The endpoint rejects
    /// others.
    fn can_recognise(&self, _language: &str) -> bool {
        true
    }

    fn recognise<'a>(
        &'a self,
        options: &'a RecognitionOptions,
        utterance: &'a mut UtteranceAudio,
        on_partial: OnPartial<'a>,
    ) -> BoxFuture<'a, Result<Transcript, RecognitionError>> {
        Box::pin(self.recognise_utterance(options, utterance, on_partial))
    }
}

#[cfg(test)]
mod tests;
