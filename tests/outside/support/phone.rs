//! An endpoint's phone without audio. It speaks the protocol of `docs/phone.md`; its offers contain
//! no reachable address.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

/// A browser's offer without a reachable address.
pub const OFFER: &str = "v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
    a=extmap-allow-mixed\r\na=msid-semantic: WMS\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126\r\nc=IN IP4 0.0.0.0\r\n\
    a=rtcp:9 IN IP4 0.0.0.0\r\na=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\na=ice-options:trickle\r\n\
    a=fingerprint:sha-256 D2:FA:0E:C3:22:59:5E:14:95:69:92:3D:13:B4:84:24:2C:C2:A2:C0:3E:FD:34:8E:5E:EA:6F:AF:52:CE:E6:0F\r\n\
    a=setup:actpass\r\na=mid:0\r\na=sendrecv\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\n\
    a=rtpmap:63 red/48000/2\r\na=rtpmap:110 telephone-event/48000\r\na=rtpmap:126 telephone-event/8000\r\n\
    a=ssrc:2439645138 cname:LP9mJPPKgJIJEBnJ\r\n";

/// A socket to `/phone`.
pub struct Phone {
    socket: WebSocketStream<TcpStream>,
    /// Messages received while waiting for another one.
    early: Vec<Value>,
}

impl Phone {
    /// Opens a socket to the node at `public`.
    pub async fn open(public: &str) -> Self {
        Self::open_with(public, &[]).await
    }

    /// Opens a socket with these headers.
    pub async fn open_with(public: &str, headers: &[(&'static str, &str)]) -> Self {
        let host = public.trim_start_matches("http://");
        #[allow(clippy::disallowed_methods, reason = "a test's own peer")]
        let stream = TcpStream::connect(host).await.expect("connect to the node");
        let mut request = format!("ws://{host}/phone").into_client_request().expect("a request");
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().expect("a header's value"));
        }
        let (socket, _) = tokio_tungstenite::client_async(request, stream).await.expect("upgrade");
        Self { socket, early: Vec::new() }
    }

    /// Opens a socket and registers. Also returns the session's secret.
    pub async fn registered(public: &str, endpoint: &str, password: &str) -> (Self, String) {
        let mut phone = Self::open(public).await;
        phone.say(json!({"type": "register", "endpoint": endpoint, "password": password})).await;
        let message = phone.receive("registered").await;
        (phone, message["session"].as_str().expect("a session").to_owned())
    }

    pub async fn say(&mut self, message: Value) {
        self.send(&message.to_string()).await;
    }

    pub async fn send(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.expect("the socket takes it");
    }

    /// Returns the next message of this type and keeps earlier ones of other types.
    pub async fn receive(&mut self, kind: &str) -> Value {
        if let Some(at) = self.early.iter().position(|message| message["type"] == kind) {
            return self.early.remove(at);
        }
        loop {
            match self.next().await {
                Ok(message) if message["type"] == kind => return message,
                Ok(message) => self.early.push(message),
                Err(close) => panic!(
                    "closed by {close:?} while {kind} was waited for; there was {:#?}",
                    self.early
                ),
            }
        }
    }

    /// Returns the next message.
    pub async fn receive_any(&mut self) -> Value {
        self.next().await.unwrap_or_else(|close| panic!("closed by {close:?}"))
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

    /// Sends the text repeatedly, each time after a response, until the socket is closed. Returns
    /// the close code.
    pub async fn say_until_closed(&mut self, text: &str) -> Option<u16> {
        loop {
            // Data in flight when the node closes would reset the connection and lose the close
            // frame.
            self.send(text).await;
            if let Err(code) = self.next().await {
                return code;
            }
        }
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
        let next = tokio::time::timeout(Duration::from_secs(40), next).await;
        next.unwrap_or_else(|_| panic!("no message within 40 s; before: {:#?}", self.early))
    }

    /// Answers pings until the node closes the socket.
    pub async fn stay(mut self) {
        while let Some(Ok(_)) = self.socket.next().await {}
    }

    /// Drops the connection without a close frame.
    pub fn disconnect(self) {
        drop(self.socket.into_inner());
    }

    /// Closes the socket like a page that is left.
    pub async fn leave(mut self) {
        let _ = self.socket.close(None).await;
    }
}
