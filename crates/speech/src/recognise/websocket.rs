//! Streaming speech recognition over a WebSocket, with the protocol of [Vosk's
//! server](https://alphacephei.com/vosk/server), which can be self-hosted for about twenty
//! languages.
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

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::header::AUTHORIZATION;
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig as Limits;
use tokio_tungstenite::tungstenite::{Message, handshake::client::Request};
use url::Url;

use super::{
    OnPartial, RATE, Recogniser, RecognitionError, RecognitionOptions, Transcript, UtteranceAudio,
};
use crate::config::WebSocketConfig;
use crate::http::{CONNECT_TIMEOUT, EndpointError, INVALID_KEY, bearer, error_chain};
use crate::language::primary;
use crate::provider::BoxFuture;
use egress::client_tls;

/// The configuration table.
const TABLE: &str = "websocket";
/// Maximum size of a message. A result takes a few hundred bytes per second of speech.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Size of one read, allocated for each connection.
const READ_BYTES: usize = 4 << 10;
/// Number of samples per message: 100 ms.
const MESSAGE_SAMPLES: usize = RATE as usize / 10;
/// Maximum size of a transcript in bytes. All utterances are shorter, and results are truncated
/// below this length.
const TEXT_BYTES_MAX: usize = 16 * 1024;
/// Maximum time for which a server may accept no audio before the recognition fails.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// Timeout for the server to close the connection after the last result.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(300);

/// A stream with or without TLS.
trait AsyncStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> AsyncStream for T {}

type Socket = WebSocketStream<Box<dyn AsyncStream>>;

/// A server with Vosk's protocol as a [`Recogniser`].
pub(super) struct WebSocket {
    config: WebSocketConfig,
    tls: tokio_rustls::TlsConnector,
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

/// The transcript so far.
#[derive(Default)]
struct PartialTranscript {
    completed: String,
    confidence_sum: f32,
    word_count: f32,
}

impl PartialTranscript {
    /// Applies a message. Returns `true` if a section of speech is complete.
    ///
    /// # Errors
    ///
    /// Fails if the message is not valid JSON of the protocol.
    fn apply(
        &mut self,
        message: &str,
        on_partial: &mut (dyn FnMut(&str) + Send),
    ) -> Result<bool, RecognitionError> {
        let message: ServerMessage =
            serde_json::from_str(message).map_err(|e| RecognitionError::Response(e.to_string()))?;
        if let Some(text) = message.text {
            for confidence in message.result.iter().filter_map(|word| word.conf) {
                self.confidence_sum += confidence;
                self.word_count += 1.0;
            }
            if !text.is_empty() {
                self.add(&text);
                on_partial(&self.completed);
            }
            return Ok(true);
        }
        if let Some(now) = message.partial.filter(|now| !now.is_empty()) {
            on_partial(&format!("{} {now}", self.completed));
        }
        Ok(false)
    }

    fn add(&mut self, text: &str) {
        if !self.completed.is_empty() {
            self.completed.push(' ');
        }
        let room = TEXT_BYTES_MAX.saturating_sub(self.completed.len()).min(text.len());
        let prefix = (0..=room).rev().find_map(|end| text.get(..end)).unwrap_or_default();
        self.completed.push_str(prefix);
    }

    fn finish(self) -> Transcript {
        let confidence = (self.word_count > 0.0).then(|| self.confidence_sum / self.word_count);
        Transcript { text: self.completed, confidence }
    }
}

/// Returns the transcript of a sequence of messages.
pub(super) fn read_transcript<'a>(
    messages: impl Iterator<Item = &'a str>,
    on_partial: OnPartial<'_>,
) -> Result<Transcript, RecognitionError> {
    let mut transcript = PartialTranscript::default();
    for message in messages {
        transcript.apply(message, on_partial)?;
    }
    Ok(transcript.finish())
}

impl WebSocket {
    pub(super) fn new(config: WebSocketConfig) -> Result<Self, EndpointError> {
        for url in config.url.iter().chain(config.languages.values()) {
            let usable = Url::parse(url)
                .is_ok_and(|u| matches!(u.scheme(), "ws" | "wss") && u.host().is_some());
            if !usable {
                return Err(EndpointError::Url {
                    table: TABLE,
                    url: url.clone(),
                    schemes: "ws or wss",
                });
            }
        }
        let tls = client_tls().map_err(|source| EndpointError::Tls { table: TABLE, source })?;
        Ok(Self { config, tls: std::sync::Arc::new(tls).into() })
    }

    fn server_url(&self, language: &str) -> Option<&str> {
        let languages = &self.config.languages;
        let found = languages.get(language).or_else(|| languages.get(&primary(language)));
        found.or(self.config.url.as_ref()).map(String::as_str)
    }

    async fn recognise_utterance(
        &self,
        options: &RecognitionOptions,
        utterance: &mut UtteranceAudio,
        on_partial: OnPartial<'_>,
    ) -> Result<Transcript, RecognitionError> {
        let url = self
            .server_url(&options.language)
            .ok_or_else(|| RecognitionError::Language(options.language.clone()))?;
        let mut socket = tokio::time::timeout(CONNECT_TIMEOUT, self.connect(url))
            .await
            .unwrap_or(Err(RecognitionError::Deadline(CONNECT_TIMEOUT)))?;
        let config = json!({
            "sample_rate": RATE, "words": 1, "language": options.language, "hints": options.hints, "model": options.model,
        });
        send(&mut socket, Message::text(json!({ "config": config }).to_string())).await?;
        let mut transcript = PartialTranscript::default();
        let mut pending = Vec::with_capacity(MESSAGE_SAMPLES * 2);
        loop {
            tokio::select! {
                biased;
                message = socket.next() => match text_of(message)? {
                    Some(text) => drop(transcript.apply(&text, on_partial)?),
                    // The server ended the recognition early.
                    None => return Ok(transcript.finish()),
                },
                chunk = utterance.next() => {
                    let Some(chunk) = chunk else { break };
                    pending.extend_from_slice(&chunk);
                    if pending.len() >= MESSAGE_SAMPLES {
                        send(&mut socket, audio_message(&mut pending)).await?;
                    }
                }
            }
        }
        if !pending.is_empty() {
            send(&mut socket, audio_message(&mut pending)).await?;
        }
        send(&mut socket, Message::text(r#"{"eof":1}"#)).await?;
        let deadline = Duration::from_millis(self.config.timeout_ms);
        let rest = async {
            let mut is_last = false;
            loop {
                let message = match is_last {
                    false => socket.next().await,
                    true => match tokio::time::timeout(CLOSE_TIMEOUT, socket.next()).await {
                        Ok(message) => message,
                        Err(_) => return Ok(()),
                    },
                };
                match text_of(message)? {
                    Some(text) => is_last |= transcript.apply(&text, on_partial)?,
                    None => return Ok(()),
                }
            }
        };
        tokio::time::timeout(deadline, rest)
            .await
            .unwrap_or(Err(RecognitionError::Deadline(deadline)))?;
        Ok(transcript.finish())
    }

    async fn connect(&self, url: &str) -> Result<Socket, RecognitionError> {
        let failed = |e: &dyn std::error::Error| RecognitionError::Request(error_chain(e));
        let parsed = Url::parse(url).map_err(|e| failed(&e))?;
        let secure = parsed.scheme() == "wss";
        let host = parsed.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = parsed.port_or_known_default().unwrap_or(if secure { 443 } else { 80 });
        #[allow(clippy::disallowed_methods, reason = "the operator's own recogniser")]
        let tcp = TcpStream::connect((host.as_str(), port)).await.map_err(|e| failed(&e))?;
        let _ = tcp.set_nodelay(true);
        let stream: Box<dyn AsyncStream> = if secure {
            let name = rustls::pki_types::ServerName::try_from(host).map_err(|e| failed(&e))?;
            Box::new(self.tls.connect(name, tcp).await.map_err(|e| failed(&e))?)
        } else {
            Box::new(tcp)
        };
        let mut request: Request = url.into_client_request().map_err(|e| failed(&e))?;
        if let Some(key) = &self.config.api_key {
            let bearer =
                bearer(key).ok_or_else(|| RecognitionError::Request(INVALID_KEY.to_owned()))?;
            request.headers_mut().insert(AUTHORIZATION, bearer);
        }
        let limits = Limits::default()
            .read_buffer_size(READ_BYTES)
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let (socket, _) =
            tokio_tungstenite::client_async_with_config(request, stream, Some(limits))
                .await
                .map_err(|e| failed(&e))?;
        Ok(socket)
    }
}

async fn send(socket: &mut Socket, message: Message) -> Result<(), RecognitionError> {
    let sent = tokio::time::timeout(SEND_TIMEOUT, socket.send(message)).await;
    let sent = sent.map_err(|_| {
        RecognitionError::Request(format!("it accepted no audio for {SEND_TIMEOUT:?}"))
    })?;
    sent.map_err(|e| RecognitionError::Request(error_chain(&e)))
}

fn audio_message(pending: &mut Vec<i16>) -> Message {
    let bytes: Vec<u8> = pending.drain(..).flat_map(i16::to_le_bytes).collect();
    Message::Binary(Bytes::from(bytes))
}

/// Returns the text of a message, or an empty JSON object for other kinds of messages. Returns
/// `None` if the connection was closed.
fn text_of(
    message: Option<Result<Message, tokio_tungstenite::tungstenite::Error>>,
) -> Result<Option<String>, RecognitionError> {
    match message {
        Some(Ok(Message::Text(text))) => Ok(Some(text.as_str().to_owned())),
        Some(Ok(Message::Close(_))) | None => Ok(None),
        Some(Ok(_)) => Ok(Some("{}".to_owned())),
        Some(Err(e)) => Err(RecognitionError::Request(error_chain(&e))),
    }
}

impl Recogniser for WebSocket {
    fn name(&self) -> &'static str {
        "websocket"
    }

    fn can_recognise(&self, language: &str) -> bool {
        self.server_url(language).is_some()
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
