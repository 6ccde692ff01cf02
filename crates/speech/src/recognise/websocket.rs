//! A recogniser that hears as the caller speaks, over a WebSocket: the protocol of Vosk's server, which runs on one's own
//! machine in some twenty languages.
//!
//! | to the server | |
//! |---|---|
//! | `{"config":{"sample_rate":16000,"words":1,"language":"en-US","hints":["…"],"model":"default"}}` | first; Vosk knows the first two keys |
//! | binary | 16-bit little-endian samples, mono, 100 ms a message |
//! | `{"eof":1}` | the caller has ended |
//!
//! | from the server | |
//! |---|---|
//! | `{"partial":"book a"}` | of the stretch that is being said |
//! | `{"text":"book a table","result":[{"word":"book","conf":0.98},…]}` | a stretch is done; after `eof` the last one, then it closes |

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

use super::{Ask, Partial, RATE, RecogniseError, Recogniser, Sound, Transcript};
use crate::config::WebSocketConfig;
use crate::http::{CONNECT, EndpointError, KEY_UNUSABLE, bearer, error_chain};
use crate::language::primary;
use crate::provider::BoxFuture;
use egress::client_tls;

/// The table of the configuration.
const TABLE: &str = "websocket";
/// A result is a few hundred bytes a second of speech.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Samples of a message: 100 ms.
const PIECE: usize = RATE as usize / 10;
/// Of what it says, so much is kept: nobody says more in an utterance, and no more would be told.
const TEXT_BYTES_MAX: usize = 16 * 1024;
/// A server that takes no sound for so long has gone.
const STALLED: Duration = Duration::from_secs(5);
/// After the last result: a server that closes does so at once, others are not waited for.
const CLOSES: Duration = Duration::from_millis(300);

/// Plain or TLS.
trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

type Socket = WebSocketStream<Box<dyn Wire>>;

/// The recogniser.
pub(super) struct WebSocket {
    config: WebSocketConfig,
    tls: tokio_rustls::TlsConnector,
}

/// What comes.
#[derive(Deserialize)]
struct Heard {
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

/// What was said so far.
#[derive(Default)]
struct SoFar {
    done: String,
    sure: f32,
    words: f32,
}

impl SoFar {
    /// `true`: a stretch is done.
    fn take(
        &mut self,
        message: &str,
        partial: &mut (dyn FnMut(&str) + Send),
    ) -> Result<bool, RecogniseError> {
        let heard: Heard =
            serde_json::from_str(message).map_err(|e| RecogniseError::Answer(e.to_string()))?;
        if let Some(text) = heard.text {
            for sure in heard.result.iter().filter_map(|word| word.conf) {
                self.sure += sure;
                self.words += 1.0;
            }
            if !text.is_empty() {
                self.add(&text);
                partial(&self.done);
            }
            return Ok(true);
        }
        if let Some(now) = heard.partial.filter(|now| !now.is_empty()) {
            partial(&format!("{} {now}", self.done));
        }
        Ok(false)
    }

    fn add(&mut self, text: &str) {
        if !self.done.is_empty() {
            self.done.push(' ');
        }
        let left = TEXT_BYTES_MAX.saturating_sub(self.done.len()).min(text.len());
        let fits = (0..=left).rev().find_map(|end| text.get(..end)).unwrap_or_default();
        self.done.push_str(fits);
    }

    fn transcript(self) -> Transcript {
        let confidence = (self.words > 0.0).then(|| self.sure / self.words);
        Transcript { text: self.done, confidence }
    }
}

/// What these messages say together.
pub(super) fn heard_of<'a>(
    messages: impl Iterator<Item = &'a str>,
    partial: Partial<'_>,
) -> Result<Transcript, RecogniseError> {
    let mut so_far = SoFar::default();
    for message in messages {
        so_far.take(message, partial)?;
    }
    Ok(so_far.transcript())
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

    fn server(&self, language: &str) -> Option<&str> {
        let languages = &self.config.languages;
        let found = languages.get(language).or_else(|| languages.get(&primary(language)));
        found.or(self.config.url.as_ref()).map(String::as_str)
    }

    async fn hear(
        &self,
        ask: &Ask,
        sound: &mut Sound,
        partial: Partial<'_>,
    ) -> Result<Transcript, RecogniseError> {
        let url = self
            .server(&ask.language)
            .ok_or_else(|| RecogniseError::Language(ask.language.clone()))?;
        let mut socket = tokio::time::timeout(CONNECT, self.connect(url))
            .await
            .unwrap_or(Err(RecogniseError::Deadline(CONNECT)))?;
        let config = json!({
            "sample_rate": RATE, "words": 1, "language": ask.language, "hints": ask.hints, "model": ask.model,
        });
        send(&mut socket, Message::text(json!({ "config": config }).to_string())).await?;
        let mut so_far = SoFar::default();
        let mut waiting = Vec::with_capacity(PIECE * 2);
        loop {
            tokio::select! {
                biased;
                message = socket.next() => match text_of(message)? {
                    Some(text) => drop(so_far.take(&text, partial)?),
                    // It has heard enough.
                    None => return Ok(so_far.transcript()),
                },
                piece = sound.next() => {
                    let Some(piece) = piece else { break };
                    waiting.extend_from_slice(&piece);
                    if waiting.len() >= PIECE {
                        send(&mut socket, samples(&mut waiting)).await?;
                    }
                }
            }
        }
        if !waiting.is_empty() {
            send(&mut socket, samples(&mut waiting)).await?;
        }
        send(&mut socket, Message::text(r#"{"eof":1}"#)).await?;
        let deadline = Duration::from_millis(self.config.timeout_ms);
        let rest = async {
            let mut last = false;
            loop {
                let message = match last {
                    false => socket.next().await,
                    true => match tokio::time::timeout(CLOSES, socket.next()).await {
                        Ok(message) => message,
                        Err(_) => return Ok(()),
                    },
                };
                match text_of(message)? {
                    Some(text) => last |= so_far.take(&text, partial)?,
                    None => return Ok(()),
                }
            }
        };
        tokio::time::timeout(deadline, rest)
            .await
            .unwrap_or(Err(RecogniseError::Deadline(deadline)))?;
        Ok(so_far.transcript())
    }

    async fn connect(&self, url: &str) -> Result<Socket, RecogniseError> {
        let failed = |e: &dyn std::error::Error| RecogniseError::Ask(error_chain(e));
        let parsed = Url::parse(url).map_err(|e| failed(&e))?;
        let secure = parsed.scheme() == "wss";
        let host = parsed.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = parsed.port_or_known_default().unwrap_or(if secure { 443 } else { 80 });
        #[allow(clippy::disallowed_methods, reason = "the operator's own recogniser")]
        let tcp = TcpStream::connect((host.as_str(), port)).await.map_err(|e| failed(&e))?;
        let _ = tcp.set_nodelay(true);
        let wire: Box<dyn Wire> = if secure {
            let name = rustls::pki_types::ServerName::try_from(host).map_err(|e| failed(&e))?;
            Box::new(self.tls.connect(name, tcp).await.map_err(|e| failed(&e))?)
        } else {
            Box::new(tcp)
        };
        let mut request: Request = url.into_client_request().map_err(|e| failed(&e))?;
        if let Some(key) = &self.config.api_key {
            let bearer = bearer(key).ok_or_else(|| RecogniseError::Ask(KEY_UNUSABLE.to_owned()))?;
            request.headers_mut().insert(AUTHORIZATION, bearer);
        }
        let limits = Limits::default()
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let (socket, _) = tokio_tungstenite::client_async_with_config(request, wire, Some(limits))
            .await
            .map_err(|e| failed(&e))?;
        Ok(socket)
    }
}

async fn send(socket: &mut Socket, message: Message) -> Result<(), RecogniseError> {
    let sent = tokio::time::timeout(STALLED, socket.send(message)).await;
    let sent =
        sent.map_err(|_| RecogniseError::Ask(format!("it took no sound for {STALLED:?}")))?;
    sent.map_err(|e| RecogniseError::Ask(error_chain(&e)))
}

fn samples(waiting: &mut Vec<i16>) -> Message {
    let bytes: Vec<u8> = waiting.drain(..).flat_map(i16::to_le_bytes).collect();
    Message::Binary(Bytes::from(bytes))
}

/// A message's text, empty JSON where it has none for us; none: it has closed.
fn text_of(
    message: Option<Result<Message, tokio_tungstenite::tungstenite::Error>>,
) -> Result<Option<String>, RecogniseError> {
    match message {
        Some(Ok(Message::Text(text))) => Ok(Some(text.as_str().to_owned())),
        Some(Ok(Message::Close(_))) | None => Ok(None),
        Some(Ok(_)) => Ok(Some("{}".to_owned())),
        Some(Err(e)) => Err(RecogniseError::Ask(error_chain(&e))),
    }
}

impl Recogniser for WebSocket {
    fn name(&self) -> &'static str {
        "websocket"
    }

    fn understands(&self, language: &str) -> bool {
        self.server(language).is_some()
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
