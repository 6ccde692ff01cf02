//! An OpenAI-compatible `POST /v1/audio/speech`: text out, WAV or PCM streaming in.

use std::time::Duration;

use http::{Request, Uri, header};
use http_body_util::{BodyExt as _, Full};
use serde::Serialize;

use super::config::{OpenAiConfig, ResponseFormat};
use super::http::{self as client, EndpointError, HttpClient, KEY_UNUSABLE, error_chain};
use super::language::{Speaker, primary};
use super::provider::{BoxFuture, Provider, Sink, SpeechError};
use super::script::Say;
use super::wav::WavReader;
use model::Secret;

/// No answer to 3,000 characters is longer (half an hour at 48 kHz).
const BODY_BYTES_MAX: usize = 176 << 20;

/// The provider.
pub struct OpenAi {
    client: HttpClient,
    endpoint: Uri,
    config: OpenAiConfig,
}

#[derive(Serialize)]
struct Ask<'a> {
    model: &'a str,
    input: &'a str,
    voice: &'a str,
    response_format: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    speed: Option<f32>,
}

impl OpenAi {
    /// Sets the client up; nothing is sent yet.
    ///
    /// # Errors
    /// The URL, or the system's certificates.
    pub fn new(config: OpenAiConfig) -> Result<Self, EndpointError> {
        let endpoint = client::endpoint("openai", &config.url, "/audio/speech")?;
        let client = client::client("openai")?;
        Ok(Self { client, endpoint, config })
    }

    async fn say(&self, say: &Say, sink: &mut Sink) -> Result<(), SpeechError> {
        let deadline = Duration::from_millis(self.config.timeout_ms);
        let asked = tokio::time::timeout(deadline, self.ask(say, sink)).await;
        asked.unwrap_or(Err(SpeechError::Deadline(deadline)))
    }

    async fn ask(&self, say: &Say, sink: &mut Sink) -> Result<(), SpeechError> {
        let failed = |e: &dyn std::error::Error| SpeechError::Http(error_chain(e));
        let text = say.plain();
        let rate = say.style().rate / 100.0;
        let ask = Ask {
            model: &self.config.model,
            input: &text,
            voice: voice_of(&self.config, &say.speaker),
            response_format: match self.config.format {
                ResponseFormat::Wav => "wav",
                ResponseFormat::Pcm => "pcm",
            },
            // Its range is 0.25 to 4; most other implementations want nothing there at all.
            speed: ((rate - 1.0).abs() > 0.01).then_some(rate.clamp(0.25, 4.0)),
        };
        let body = serde_json::to_vec(&ask).map_err(|e| failed(&e))?;
        let mut request =
            Request::post(self.endpoint.clone()).header(header::CONTENT_TYPE, "application/json");
        if let Some(key) = &self.config.api_key {
            request = request.header(header::AUTHORIZATION, bearer(key)?);
        }
        let request = request.body(Full::from(body)).map_err(|e| failed(&e))?;
        let response = self.client.request(request).await.map_err(|e| failed(&e))?;
        // What stands in the body of an error may quote the key: it is not shown.
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
                return Err(SpeechError::Http("the answer has no end".to_owned()));
            }
            let mut pcm = Vec::new();
            let rate = decoder.push(bytes, &self.config, &mut pcm)?;
            sink.push(rate, pcm).await?;
        }
        match decoder {
            // A cut-off answer was said as far as it goes; to say so is all that is left.
            Decoder::Wav(wav) => wav.finish().map_err(SpeechError::from),
            Decoder::Pcm { .. } | Decoder::Unknown(_) => Ok(()),
        }
    }
}

/// The endpoint's voice: by the voice's name, then the language, then the default.
pub(super) fn voice_of<'a>(config: &'a OpenAiConfig, speaker: &Speaker) -> &'a str {
    let (language, gender) =
        (primary(&speaker.language), if speaker.man { "MAN" } else { "WOMAN" });
    [speaker.polly.as_deref().unwrap_or_default(), &speaker.language, &language, gender]
        .iter()
        .find_map(|name| config.voices.get(*name))
        .unwrap_or(&config.voice)
}

impl Provider for OpenAi {
    fn name(&self) -> &'static str {
        "openai"
    }

    /// The models hear the language from the text.
    fn speaks(&self, _language: &str) -> bool {
        true
    }

    fn reads_all(&self) -> bool {
        true
    }

    fn synthesise<'a>(
        &'a self,
        say: &'a Say,
        sink: &'a mut Sink,
    ) -> BoxFuture<'a, Result<(), SpeechError>> {
        Box::pin(self.say(say, sink))
    }
}

/// What comes: some endpoints answer WAV whatever was asked for.
enum Decoder {
    /// Less than four bytes so far.
    Unknown(Vec<u8>),
    Wav(WavReader),
    Pcm {
        odd: Option<u8>,
    },
}

impl Decoder {
    fn push(
        &mut self,
        bytes: &[u8],
        config: &OpenAiConfig,
        pcm: &mut Vec<i16>,
    ) -> Result<u32, SpeechError> {
        if let Self::Unknown(begin) = self {
            begin.extend_from_slice(bytes);
            if begin.len() < 4 {
                return Ok(config.pcm_rate);
            }
            let begin = std::mem::take(begin);
            let wav = begin.starts_with(b"RIFF") || config.format == ResponseFormat::Wav;
            *self = if wav { Self::Wav(WavReader::default()) } else { Self::Pcm { odd: None } };
            return self.push(&begin, config, pcm);
        }
        match self {
            Self::Unknown(_) => Ok(config.pcm_rate),
            Self::Wav(wav) => {
                wav.push(bytes, pcm)?;
                Ok(wav.rate().unwrap_or(config.pcm_rate))
            }
            Self::Pcm { odd } => {
                let bytes: Vec<u8> = odd.take().into_iter().chain(bytes.iter().copied()).collect();
                let (samples, rest) = bytes.as_chunks::<2>();
                *odd = rest.first().copied();
                pcm.extend(samples.iter().map(|&s| i16::from_le_bytes(s)));
                Ok(config.pcm_rate)
            }
        }
    }
}

fn bearer(key: &Secret) -> Result<http::HeaderValue, SpeechError> {
    client::bearer(key).ok_or_else(|| SpeechError::Http(KEY_UNUSABLE.to_owned()))
}

#[cfg(test)]
mod tests;
