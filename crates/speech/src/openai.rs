//! Speech synthesis with an OpenAI-compatible `POST /v1/audio/speech` endpoint, which streams WAV
//! or PCM.

use std::time::Duration;

use http::{Request, Uri, header};
use http_body_util::{BodyExt as _, Full};
use serde::Serialize;

use super::config::{OpenAiConfig, ResponseFormat};
use super::http::{self as client, EndpointError, HttpClient, INVALID_KEY, error_chain};
use super::language::{Speaker, primary};
use super::provider::{BoxFuture, Provider, Sink, SpeechError};
use super::script::Segment;
use super::wav::WavReader;
use model::Secret;

/// Maximum size of a response: half an hour at 48 kHz, which exceeds the duration of 3,000
/// characters.
const BODY_BYTES_MAX: usize = 176 << 20;

/// An OpenAI-compatible speech endpoint as a [`Provider`].
pub struct OpenAi {
    client: HttpClient,
    endpoint: Uri,
    config: OpenAiConfig,
}

#[derive(Serialize)]
struct SpeechRequest<'a> {
    model: &'a str,
    input: &'a str,
    voice: &'a str,
    response_format: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    speed: Option<f32>,
}

impl OpenAi {
    /// Creates the client. Nothing is sent yet.
    ///
    /// # Errors
    ///
    /// Fails if the URL is invalid or TLS cannot be set up.
    pub fn new(config: OpenAiConfig) -> Result<Self, EndpointError> {
        let endpoint = Self::endpoint(&config)?;
        let client = client::client("openai")?;
        Ok(Self { client, endpoint, config })
    }

    /// Returns the URL of requests.
    ///
    /// # Errors
    ///
    /// Fails if the configured URL is invalid.
    pub(super) fn endpoint(config: &OpenAiConfig) -> Result<Uri, EndpointError> {
        client::endpoint("openai", &config.url, "/audio/speech")
    }

    /// Requests a word, to check the endpoint. Returns when the first audio comes.
    ///
    /// # Errors
    ///
    /// Fails if the endpoint does not respond with audio.
    pub async fn check(&self) -> Result<(), SpeechError> {
        let (mut sink, mut audio) = Sink::new(1);
        let segment = Segment::unstyled("en-US", "Hello.");
        tokio::select! {
            spoken = self.speak(&segment, &mut sink) => spoken,
            Some(_) = audio.recv() => Ok(()),
        }
    }

    async fn speak(&self, segment: &Segment, sink: &mut Sink) -> Result<(), SpeechError> {
        let deadline = Duration::from_millis(self.config.timeout_ms);
        let outcome = tokio::time::timeout(deadline, self.request_speech(segment, sink)).await;
        outcome.unwrap_or(Err(SpeechError::Deadline(deadline)))
    }

    async fn request_speech(&self, segment: &Segment, sink: &mut Sink) -> Result<(), SpeechError> {
        let failed = |e: &dyn std::error::Error| SpeechError::Http(error_chain(e));
        let text = segment.plain();
        let rate = segment.style().rate / 100.0;
        let speech_request = SpeechRequest {
            model: &self.config.model,
            input: &text,
            voice: voice_for(&self.config, &segment.speaker),
            response_format: match self.config.format {
                ResponseFormat::Wav => "wav",
                ResponseFormat::Pcm => "pcm",
            },
            // OpenAI accepts 0.25 to 4. Many other implementations reject the field, so it is sent
            // only if needed.
            speed: ((rate - 1.0).abs() > 0.01).then_some(rate.clamp(0.25, 4.0)),
        };
        let body = serde_json::to_vec(&speech_request).map_err(|e| failed(&e))?;
        let mut request =
            Request::post(self.endpoint.clone()).header(header::CONTENT_TYPE, "application/json");
        if let Some(key) = &self.config.api_key {
            request = request.header(header::AUTHORIZATION, bearer(key)?);
        }
        let request = request.body(Full::from(body)).map_err(|e| failed(&e))?;
        let response = self.client.request(request).await.map_err(|e| failed(&e))?;
        // The body of an error may quote the API key, so it is not reported.
        if !response.status().is_success() {
            return Err(SpeechError::Status(response.status()));
        }
        let mut body = response.into_body();
        let mut decoder = Decoder::Unknown(Vec::new());
        let mut total = 0;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| failed(&e))?;
            let Some(bytes) = frame.data_ref() else { continue };
            total += bytes.len();
            if total > BODY_BYTES_MAX {
                return Err(SpeechError::Http("the response is too large".to_owned()));
            }
            let mut pcm = Vec::new();
            let rate = decoder.push(bytes, &self.config, &mut pcm)?;
            sink.push(rate, pcm).await?;
        }
        match decoder {
            // Report a truncated response, although the audio so far has been played.
            Decoder::Wav(wav) => wav.finish().map_err(SpeechError::from),
            Decoder::Pcm { .. } | Decoder::Unknown(_) => Ok(()),
        }
    }
}

/// Returns the endpoint's voice, selected by the name of the Polly voice, by language, or by
/// gender, in this order. If none matches, returns the default voice.
pub(super) fn voice_for<'a>(config: &'a OpenAiConfig, speaker: &Speaker) -> &'a str {
    let (language, gender) =
        (primary(&speaker.language), if speaker.male { "MAN" } else { "WOMAN" });
    [speaker.polly.as_deref().unwrap_or_default(), &speaker.language, &language, gender]
        .iter()
        .find_map(|name| config.voices.get(*name))
        .unwrap_or(&config.voice)
}

impl Provider for OpenAi {
    fn name(&self) -> &'static str {
        "openai"
    }

    /// Returns `true`, because the models detect the language from the text.
    fn can_speak(&self, _language: &str) -> bool {
        true
    }

    fn can_read_all(&self) -> bool {
        true
    }

    fn voice(&self, speaker: &Speaker) -> String {
        voice_for(&self.config, speaker).to_owned()
    }

    fn synthesise<'a>(
        &'a self,
        segment: &'a Segment,
        sink: &'a mut Sink,
    ) -> BoxFuture<'a, Result<(), SpeechError>> {
        Box::pin(self.speak(segment, sink))
    }
}

/// The format of the response. Some endpoints always send WAV.
enum Decoder {
    /// Fewer than four bytes have been received.
    Unknown(Vec<u8>),
    Wav(WavReader),
    Pcm {
        partial: Option<u8>,
    },
}

impl Decoder {
    fn push(
        &mut self,
        bytes: &[u8],
        config: &OpenAiConfig,
        pcm: &mut Vec<i16>,
    ) -> Result<u32, SpeechError> {
        if let Self::Unknown(start) = self {
            start.extend_from_slice(bytes);
            if start.len() < 4 {
                return Ok(config.pcm_rate);
            }
            let start = std::mem::take(start);
            let wav = start.starts_with(b"RIFF") || config.format == ResponseFormat::Wav;
            *self = if wav { Self::Wav(WavReader::default()) } else { Self::Pcm { partial: None } };
            return self.push(&start, config, pcm);
        }
        match self {
            Self::Unknown(_) => Ok(config.pcm_rate),
            Self::Wav(wav) => {
                wav.push(bytes, pcm)?;
                Ok(wav.rate().unwrap_or(config.pcm_rate))
            }
            Self::Pcm { partial } => {
                let bytes: Vec<u8> =
                    partial.take().into_iter().chain(bytes.iter().copied()).collect();
                let (samples, rest) = bytes.as_chunks::<2>();
                *partial = rest.first().copied();
                pcm.extend(samples.iter().map(|&s| i16::from_le_bytes(s)));
                Ok(config.pcm_rate)
            }
        }
    }
}

fn bearer(key: &Secret) -> Result<http::HeaderValue, SpeechError> {
    client::bearer(key).ok_or_else(|| SpeechError::Http(INVALID_KEY.to_owned()))
}

#[cfg(test)]
mod tests;
