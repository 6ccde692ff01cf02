//! A customer's stream server: accepts sockets, keeps received messages, and sends what a test
//! requires.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::HeaderMap;
use base64::Engine as _;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};

/// A listening server.
pub struct BotServer {
    pub url: String,
    sockets: mpsc::Receiver<Bot>,
    tries: Arc<Mutex<u32>>,
}

/// An accepted socket.
pub struct Bot {
    socket: WebSocketStream<TcpStream>,
    pub path: String,
    pub headers: HeaderMap,
    /// Messages received while waiting for another one.
    early: Vec<Value>,
}

impl BotServer {
    pub async fn start() -> Self {
        Self::refusing(0).await
    }

    /// Starts a server that answers the first `first` attempts with 503.
    pub async fn refusing(first: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port for the bot");
        let url = format!("ws://{}/bot?lang=hi", listener.local_addr().expect("its address"));
        let (taken, sockets) = mpsc::channel(16);
        let tries = Arc::new(Mutex::new(0));
        let counted = tries.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let nr = {
                    let mut tries = counted.lock().expect("tries");
                    *tries += 1;
                    *tries
                };
                let (mut path, mut headers) = (String::new(), HeaderMap::new());
                #[allow(clippy::result_large_err, reason = "the library's own shape")]
                let look =
                    |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
                        path = request.uri().to_string();
                        headers = request.headers().clone();
                        if nr > first {
                            return Ok(response);
                        }
                        let mut no = ErrorResponse::new(None);
                        *no.status_mut() = axum::http::StatusCode::SERVICE_UNAVAILABLE;
                        Err(no)
                    };
                if let Ok(socket) = accept_hdr_async(stream, look).await {
                    let _ = taken.send(Bot { socket, path, headers, early: Vec::new() }).await;
                }
            }
        });
        Self { url, sockets, tries }
    }

    /// Waits for the next socket.
    pub async fn accept(&mut self) -> Bot {
        let taken = tokio::time::timeout(Duration::from_secs(20), self.sockets.recv());
        taken.await.expect("a socket within 20 s").expect("the server is there")
    }

    /// Returns the number of connection attempts.
    pub fn tries(&self) -> u32 {
        *self.tries.lock().expect("tries")
    }
}

impl Bot {
    pub async fn say(&mut self, message: Value) {
        self.send(Message::text(message.to_string())).await;
    }

    pub async fn send(&mut self, message: Message) {
        self.socket.send(message).await.expect("the socket takes it");
    }

    /// Plays 16-bit samples.
    pub async fn play(&mut self, hz: u32, pcm: &[i16]) {
        for piece in pcm.chunks(4_000) {
            let bytes: Vec<u8> = piece.iter().flat_map(|sample| sample.to_le_bytes()).collect();
            let payload = base64::engine::general_purpose::STANDARD.encode(bytes);
            self.say(json!({"event": "playAudio", "media":
                {"contentType": "audio/x-l16", "sampleRate": hz, "payload": payload}}))
                .await;
        }
    }

    /// Returns the next message of this event and keeps earlier ones of other events.
    pub async fn receive(&mut self, event: &str) -> Value {
        if let Some(at) = self.early.iter().position(|message| message["event"] == event) {
            return self.early.remove(at);
        }
        // Media messages arrive continuously.
        for _ in 0..2_000 {
            match self.next().await {
                Ok(message) if message["event"] == event => return message,
                Ok(message) => self.early.push(message),
                Err(close) => panic!("closed by {close:?} while {event} was waited for"),
            }
        }
        panic!("no {event} among 2,000 messages; the last: {:?}", self.early.last());
    }

    /// Returns the next message, kept ones first, or the close code if the socket is closed.
    pub async fn next_message(&mut self) -> Result<Value, Option<u16>> {
        if self.early.is_empty() { self.next().await } else { Ok(self.early.remove(0)) }
    }

    async fn next(&mut self) -> Result<Value, Option<u16>> {
        let next = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Text(text))) => {
                        return Ok(serde_json::from_str(&text).expect("JSON"));
                    }
                    Some(Ok(Message::Close(frame))) => {
                        return Err(frame.map(|frame| frame.code.into()));
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return Err(None),
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), next).await.expect("a message within 20 s")
    }

    /// Waits for the next ping. The pong is sent with the next read.
    pub async fn receive_ping(&mut self) {
        let pinged = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Ping(_))) => return,
                    Some(Ok(_)) => {}
                    other => panic!("{other:?} while a ping was waited for"),
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), pinged).await.expect("a ping within 30 s");
    }

    /// Waits until the socket is closed. Returns the close code.
    pub async fn closed(&mut self) -> Option<u16> {
        loop {
            match self.next().await {
                Ok(message) => self.early.push(message),
                Err(code) => return code,
            }
        }
    }

    pub async fn close(mut self) {
        let _ = self.socket.close(None).await;
    }

    /// Drops the connection without a close frame.
    pub fn disconnect(self) {
        drop(self.socket.into_inner());
    }

    /// Stops reading. The connection stays open while the returned value lives.
    pub fn stop_reading(self) -> TcpStream {
        self.socket.into_inner()
    }
}
