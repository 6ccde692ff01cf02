//! Streaming speech recognition over a WebSocket: audio is sent while the caller speaks, and words
//! come back at once.
//!
//! This module connects, sends audio and enforces the limits. A [`Protocol`] knows the messages of
//! one kind of server.

mod assemblyai;
mod deepgram;
mod vosk;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::HeaderValue;
use http::header::AUTHORIZATION;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig as Limits};
use tokio_tungstenite::tungstenite::{self, Message, handshake::client::Request};
use url::Url;

use super::{
    OnPartial, RATE, Recogniser, RecognitionError, RecognitionOptions, Transcript, UtteranceAudio,
    recognise_silence,
};
use crate::config::{SpeechConfig, WebSocketConfig, WebSocketProtocol};
use crate::http::{CONNECT_TIMEOUT, EndpointError, INVALID_KEY, error_chain, shown_url};
use crate::language::primary;
use crate::provider::BoxFuture;
use egress::client_tls;
use model::Secret;

/// The configuration table.
const TABLE: &str = "websocket";
/// Maximum size of a message. A result takes a few hundred bytes per second of speech.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Maximum number of messages that are read for an utterance, a hundred per second of the longest
/// one, and their total size in bytes. A server that sends more would keep the audio from being sent.
const MESSAGES_MAX: usize = 6_500;
const BYTES_MAX: usize = 32 << 20;
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
/// Without audio for this time, the caller pauses: the words so far are requested, so that they are
/// there if the pause ends the speech. Audio arrives every 20 ms.
const PAUSE: Duration = Duration::from_millis(120);
/// Time without audio after which a message keeps the connection open.
const KEEP_ALIVE: Duration = Duration::from_secs(4);
/// Maximum number of hints that are passed on in a URL, and their total length in characters.
const HINTS_MAX: usize = 100;
const HINT_CHARS_MAX: usize = 1_500;
/// Maximum number of characters of a server's error message in logs.
const REASON_CHARS_MAX: usize = 160;

/// A stream with or without TLS.
trait AsyncStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> AsyncStream for T {}

type Socket = WebSocketStream<Box<dyn AsyncStream>>;

/// The messages of one kind of server.
trait Protocol: Send + Sync {
    /// The name used in logs.
    fn name(&self) -> &'static str;

    /// Returns `true` if the servers support the language of this BCP 47 tag.
    fn can_recognise(&self, _language: &str) -> bool {
        true
    }

    /// Returns the value of the `Authorization` header for an API key.
    fn authorization(&self, key: &Secret) -> String;

    /// Returns the query parameters of the URL. Those that the URL has already take precedence.
    fn parameters(&self, _: &RecognitionOptions) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// How far the audio may be ahead of real time. `None` if the servers accept any speed.
    fn lead_max(&self) -> Option<Duration> {
        None
    }

    /// Returns the first message, if there is one.
    fn first_message(&self, _: &RecognitionOptions) -> Option<String> {
        None
    }

    /// Starts to read the results of an utterance.
    fn results(&self) -> Box<dyn Results>;
}

/// Reads the results of one utterance.
trait Results: Send {
    /// Notes that audio was sent.
    fn sent_audio(&mut self) {}

    /// Returns a message that requests the words so far, if there are further ones to request.
    fn request_words(&mut self) -> Option<&'static str> {
        None
    }

    /// Returns a message that keeps the connection open while no audio is sent.
    fn keep_alive(&self) -> Option<&'static str> {
        None
    }

    /// Returns the messages that end the audio.
    fn finish(&mut self) -> Vec<&'static str>;

    /// Applies a message.
    ///
    /// # Errors
    ///
    /// Fails if the message is not one of the protocol or reports an error.
    fn apply(
        &mut self,
        message: &str,
        on_partial: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), RecognitionError>;

    /// Returns how far the results are, after [`finish`](Self::finish).
    fn progress(&self) -> Progress;

    /// Returns whether there are words so far.
    fn has_words(&self) -> bool;

    /// Returns the words so far.
    fn transcript(&self) -> Transcript;
}

/// How far the results of an utterance are, after its audio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// Further results follow.
    Awaited,
    /// The last result has probably arrived; the server closes the connection.
    Closing,
    /// All results have arrived.
    Complete,
}

/// Finished sections of speech.
#[derive(Default)]
struct Sections {
    text: String,
    confidence_sum: f32,
    word_count: f32,
}

impl Sections {
    /// Adds a finished section and the confidence of each of its words.
    fn add(&mut self, text: &str, confidences: impl Iterator<Item = f32>) {
        for confidence in confidences {
            self.confidence_sum += confidence;
            self.word_count += 1.0;
        }
        if text.is_empty() {
            return;
        }
        if !self.text.is_empty() {
            self.text.push(' ');
        }
        let room = TEXT_BYTES_MAX.saturating_sub(self.text.len()).min(text.len());
        self.text.push_str(text.get(..text.floor_char_boundary(room)).unwrap_or_default());
    }

    /// Returns the words, followed by those of an unfinished section.
    fn with(&self, unfinished: &str) -> String {
        format!("{} {unfinished}", self.text)
    }

    fn transcript(&self) -> Transcript {
        let confidence = (self.word_count > 0.0).then(|| self.confidence_sum / self.word_count);
        Transcript { text: self.text.clone(), confidence }
    }
}

/// A server as a [`Recogniser`].
pub(super) struct WebSocket {
    config: WebSocketConfig,
    protocol: Box<dyn Protocol>,
    tls: tokio_rustls::TlsConnector,
}

/// Returns the transcript of a sequence of messages. For fuzzing.
pub(super) fn read_transcript<'a>(
    protocol: WebSocketProtocol,
    messages: impl Iterator<Item = &'a str>,
    on_partial: OnPartial<'_>,
) -> Result<Transcript, RecognitionError> {
    let mut results = protocol_of(protocol, None, BTreeMap::new()).results();
    for message in messages {
        results.apply(message, on_partial)?;
    }
    Ok(results.transcript())
}

fn protocol_of(
    protocol: WebSocketProtocol,
    model: Option<String>,
    models: BTreeMap<String, String>,
) -> Box<dyn Protocol> {
    match protocol {
        WebSocketProtocol::Vosk => Box::new(vosk::Vosk),
        WebSocketProtocol::Deepgram => Box::new(deepgram::Deepgram::new(model, models)),
        WebSocketProtocol::AssemblyAi => Box::new(assemblyai::AssemblyAi::new(model, models)),
    }
}

/// Returns the hints that fit into a URL, without repetitions.
fn bounded_hints(options: &RecognitionOptions) -> Vec<&str> {
    let mut hints: Vec<&str> = Vec::new();
    let mut chars = 0;
    for hint in options.hints.iter().map(|hint| hint.trim()).filter(|hint| !hint.is_empty()) {
        chars += hint.chars().count();
        if hints.len() >= HINTS_MAX || chars > HINT_CHARS_MAX {
            break;
        }
        if !hints.contains(&hint) {
            hints.push(hint);
        }
    }
    hints
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
        let (model, models) = (config.model.clone(), config.models.clone());
        let protocol = protocol_of(config.protocol, model, models);
        Ok(Self { config, protocol, tls: Arc::new(tls).into() })
    }

    fn server_url(&self, language: &str) -> Option<&str> {
        let languages = &self.config.languages;
        let found = languages.get(language).or_else(|| languages.get(&primary(language)));
        found.or(self.config.url.as_ref()).map(String::as_str)
    }

    /// Returns the URL with the parameters of a recognition.
    fn request_url(&self, options: &RecognitionOptions) -> Result<Url, RecognitionError> {
        let url = self
            .server_url(&options.language)
            .ok_or_else(|| RecognitionError::Language(options.language.clone()))?;
        let mut url =
            Url::parse(url).map_err(|error| RecognitionError::Request(error_chain(&error)))?;
        let set: Vec<String> = url.query_pairs().map(|(name, _)| name.into_owned()).collect();
        let mut parameters = self.protocol.parameters(options);
        parameters.retain(|(name, _)| !set.iter().any(|set| set == name));
        if !parameters.is_empty() {
            url.query_pairs_mut().extend_pairs(parameters);
        }
        Ok(url)
    }

    async fn recognise_utterance(
        &self,
        options: &RecognitionOptions,
        utterance: &mut UtteranceAudio,
        on_partial: OnPartial<'_>,
    ) -> Result<Transcript, RecognitionError> {
        let url = self.request_url(options)?;
        let socket = tokio::time::timeout(CONNECT_TIMEOUT, self.connect(&url))
            .await
            .unwrap_or(Err(RecognitionError::Deadline(CONNECT_TIMEOUT)))?;
        let started = now();
        let mut session = Session {
            socket,
            results: self.protocol.results(),
            messages: 0,
            bytes: 0,
            pending: Vec::with_capacity(MESSAGE_SAMPLES * 2),
            began: started,
            sent: Duration::ZERO,
            last_sent: started,
        };
        if let Some(first) = self.protocol.first_message(options) {
            session.send(Message::text(first)).await?;
        }
        if session.stream(utterance, self.protocol.lead_max(), on_partial).await? {
            let deadline = Duration::from_millis(self.config.timeout_ms);
            tokio::time::timeout(deadline, session.finish(on_partial))
                .await
                .unwrap_or(Err(RecognitionError::Deadline(deadline)))?;
        }
        Ok(session.results.transcript())
    }

    async fn connect(&self, url: &Url) -> Result<Socket, RecognitionError> {
        let failed = |e: &dyn std::error::Error| RecognitionError::Request(error_chain(e));
        let secure = url.scheme() == "wss";
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = url.port_or_known_default().unwrap_or(if secure { 443 } else { 80 });
        #[allow(clippy::disallowed_methods, reason = "the operator's own recogniser")]
        let tcp = TcpStream::connect((host.as_str(), port)).await.map_err(|e| failed(&e))?;
        let _ = tcp.set_nodelay(true);
        let stream: Box<dyn AsyncStream> = if secure {
            let name = rustls::pki_types::ServerName::try_from(host).map_err(|e| failed(&e))?;
            Box::new(self.tls.connect(name, tcp).await.map_err(|e| failed(&e))?)
        } else {
            Box::new(tcp)
        };
        let mut request: Request = url.as_str().into_client_request().map_err(|e| failed(&e))?;
        if let Some(key) = &self.config.api_key {
            let mut value = HeaderValue::try_from(self.protocol.authorization(key))
                .map_err(|_| RecognitionError::Request(INVALID_KEY.to_owned()))?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        let limits = Limits::default()
            .read_buffer_size(READ_BYTES)
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let connected =
            tokio_tungstenite::client_async_with_config(request, stream, Some(limits)).await;
        match connected {
            Ok((socket, _)) => Ok(socket),
            // A server refuses an API key this way. The body may quote it.
            Err(tungstenite::Error::Http(response)) => {
                Err(RecognitionError::Status(response.status()))
            }
            Err(error) => Err(failed(&error)),
        }
    }
}

/// The current time, for pacing and keep-alives. Tests pause it with tokio's clock.
#[allow(clippy::disallowed_methods, reason = "intervals on a connection, which nothing records")]
fn now() -> Instant {
    Instant::now()
}

/// The recognition of one utterance.
struct Session {
    socket: Socket,
    results: Box<dyn Results>,
    /// The number of messages that were read, and their total size.
    messages: usize,
    bytes: usize,
    /// Samples that do not fill a message yet.
    pending: Vec<i16>,
    began: Instant,
    /// Length of the audio that was sent.
    sent: Duration,
    /// When the last message was sent.
    last_sent: Instant,
}

impl Session {
    /// Sends the utterance while results arrive. Returns `false` if the server ended the recognition
    /// before the caller finished.
    async fn stream(
        &mut self,
        utterance: &mut UtteranceAudio,
        lead_max: Option<Duration>,
        on_partial: OnPartial<'_>,
    ) -> Result<bool, RecognitionError> {
        let mut last_audio = now();
        // Whether the words of the latest audio still have to be requested.
        let mut is_unrequested = false;
        loop {
            let idle_until = match is_unrequested {
                true => last_audio + PAUSE,
                false => self.last_sent + KEEP_ALIVE,
            };
            tokio::select! {
                biased;
                message = self.socket.next() => if !self.receive(message, on_partial)? {
                    // Otherwise another recogniser can still process the utterance.
                    return match self.results.has_words() {
                        true => Ok(false),
                        false => Err(RecognitionError::Response(
                            "the connection was closed before the end of the speech".to_owned(),
                        )),
                    };
                },
                chunk = utterance.next() => {
                    let Some(chunk) = chunk else { return Ok(true) };
                    self.pending.extend_from_slice(&chunk);
                    (last_audio, is_unrequested) = (now(), true);
                    if self.pending.len() >= MESSAGE_SAMPLES {
                        if let Some(lead) = lead_max {
                            tokio::time::sleep_until(self.began + self.sent.saturating_sub(lead)).await;
                        }
                        self.send_audio().await?;
                    }
                }
                () = tokio::time::sleep_until(idle_until) => {
                    if is_unrequested {
                        is_unrequested = false;
                        self.send_rest().await?;
                        if let Some(message) = self.results.request_words() {
                            self.send(Message::text(message)).await?;
                        }
                    } else if let Some(message) = self.results.keep_alive() {
                        self.send(Message::text(message)).await?;
                    } else {
                        self.last_sent = now();
                    }
                }
            }
        }
    }

    /// Ends the audio and waits for the last result.
    async fn finish(&mut self, on_partial: OnPartial<'_>) -> Result<(), RecognitionError> {
        self.send_rest().await?;
        for message in self.results.finish() {
            self.send(Message::text(message)).await?;
        }
        loop {
            let message = match self.results.progress() {
                Progress::Complete => return Ok(()),
                Progress::Awaited => self.socket.next().await,
                Progress::Closing => {
                    match tokio::time::timeout(CLOSE_TIMEOUT, self.socket.next()).await {
                        Ok(message) => message,
                        Err(_) => return Ok(()),
                    }
                }
            };
            if !self.receive(message, on_partial)? {
                return Ok(());
            }
        }
    }

    /// Processes a message. Returns `false` if the server closed the connection.
    fn receive(
        &mut self,
        message: Option<Result<Message, tungstenite::Error>>,
        on_partial: OnPartial<'_>,
    ) -> Result<bool, RecognitionError> {
        self.messages += 1;
        if let Some(Ok(message)) = &message {
            self.bytes += message.len();
        }
        if self.messages > MESSAGES_MAX || self.bytes > BYTES_MAX {
            return Err(RecognitionError::Response("the server sent too many messages".to_owned()));
        }
        match message {
            Some(Ok(Message::Text(text))) => {
                self.results.apply(text.as_str(), on_partial)?;
                Ok(true)
            }
            Some(Ok(Message::Close(Some(frame)))) if is_failure(&frame) => {
                let reason = format!("{} {}", u16::from(frame.code), frame.reason.as_str());
                Err(server_error(&reason))
            }
            Some(Ok(Message::Close(_))) | None => Ok(false),
            Some(Ok(_)) => Ok(true),
            Some(Err(e)) => Err(RecognitionError::Request(error_chain(&e))),
        }
    }

    /// Sends the samples that do not fill a message, with silence after them: some servers refuse
    /// short messages.
    async fn send_rest(&mut self) -> Result<(), RecognitionError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.pending.resize(MESSAGE_SAMPLES.max(self.pending.len()), 0);
        self.send_audio().await
    }

    async fn send_audio(&mut self) -> Result<(), RecognitionError> {
        self.sent += Duration::from_secs(1).mul_f64(self.pending.len() as f64 / f64::from(RATE));
        let bytes: Vec<u8> = self.pending.drain(..).flat_map(i16::to_le_bytes).collect();
        self.results.sent_audio();
        self.send(Message::Binary(Bytes::from(bytes))).await
    }

    async fn send(&mut self, message: Message) -> Result<(), RecognitionError> {
        self.last_sent = now();
        let sent = tokio::time::timeout(SEND_TIMEOUT, self.socket.send(message)).await;
        let sent = sent.map_err(|_| {
            RecognitionError::Request(format!("it accepted no audio for {SEND_TIMEOUT:?}"))
        })?;
        sent.map_err(|e| RecognitionError::Request(error_chain(&e)))
    }
}

/// Whether the server closed the connection because of an error.
fn is_failure(frame: &CloseFrame) -> bool {
    !matches!(frame.code, CloseCode::Normal | CloseCode::Away | CloseCode::Status)
}

/// Returns the error for a server's message, in one line of limited length.
fn server_error(message: &str) -> RecognitionError {
    let words = message.split(|c: char| c.is_whitespace() || c.is_control());
    let line = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    let reason: String = line.chars().take(REASON_CHARS_MAX).collect();
    RecognitionError::Response(format!("the server reported an error: {reason}"))
}

/// Parses a message.
fn parse<'m, T: serde::Deserialize<'m>>(message: &'m str) -> Result<T, RecognitionError> {
    serde_json::from_str(message).map_err(|e| RecognitionError::Response(e.to_string()))
}

/// Sends a short silence to each configured server, and returns the outcomes with the servers' URLs.
/// For `offhook doctor`.
pub(super) async fn check_servers(
    config: &SpeechConfig,
) -> Vec<(String, Result<(), RecognitionError>)> {
    let Some(settings) = &config.websocket else { return Vec::new() };
    let socket = match WebSocket::new(settings.clone()) {
        Ok(socket) => socket,
        Err(error) => {
            return vec![(String::new(), Err(RecognitionError::Request(error.to_string())))];
        }
    };
    let languages = settings.languages.iter().map(|(language, url)| (language.as_str(), url));
    let default = settings.url.iter().map(|url| (config.transcript_language.as_str(), url));
    let mut outcomes: Vec<(String, Result<(), RecognitionError>)> = Vec::new();
    for (language, url) in default.chain(languages) {
        let shown = shown_url(url);
        if outcomes.iter().any(|(known, _)| known == shown) {
            continue;
        }
        let outcome = recognise_silence(&socket, language).await;
        outcomes.push((shown.to_owned(), outcome));
    }
    outcomes
}

impl Recogniser for WebSocket {
    fn name(&self) -> &'static str {
        self.protocol.name()
    }

    fn can_recognise(&self, language: &str) -> bool {
        self.server_url(language).is_some() && self.protocol.can_recognise(language)
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
