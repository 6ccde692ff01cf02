//! A voice bot: a WebSocket server for `<Stream bidirectional="true" keepCallAlive="true">`, see
//! `docs/stream.md`.
//!
//! It greets with a tone and then echoes the caller. Key `1` plays the greeting again, `2` sends
//! the digits 42 into the call, `0` stops the current playback, and `#` closes the stream, so that
//! the call's document continues.
//!
//! Start it with `cargo run --example voice_bot -- 127.0.0.1:9000` and put
//! `<Stream bidirectional="true" keepCallAlive="true">ws://127.0.0.1:9000/</Stream>` into the
//! document. `ws` needs `answer.allow_insecure = true`; in production use `wss`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::{WebSocketStream, accept_async};

#[tokio::main]
#[allow(dead_code, reason = "tests include this file and start `serve` themselves")]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9000".to_owned());
    serve(TcpListener::bind(address).await?).await
}

/// Accepts streams and runs a bot for each in a new task.
pub async fn serve(listener: TcpListener) -> std::io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            // In production, check the signature headers of the request first. They prove that it
            // comes from your Offhook.
            if let Ok(socket) = accept_async(stream).await {
                let _ = Bot { socket, format: json!({}), is_echoing: false }.run().await;
            }
        });
    }
}

struct Bot {
    socket: WebSocketStream<TcpStream>,
    /// `contentType` and `sampleRate` of the stream, which `playAudio` requires.
    format: Value,
    /// Set when the greeting has been played.
    is_echoing: bool,
}

impl Bot {
    async fn run(mut self) -> Result<(), tokio_tungstenite::tungstenite::Error> {
        while let Some(message) = self.socket.next().await {
            let Message::Text(text) = message? else { continue };
            let Ok(event) = serde_json::from_str::<Value>(&text) else { continue };
            match event["event"].as_str() {
                Some("start") => {
                    let format = &event["start"]["mediaFormat"];
                    self.format = json!({"contentType": format["encoding"], "sampleRate": format["sampleRate"]});
                    self.greet().await?;
                }
                Some("playedStream") => self.is_echoing = true,
                Some("media") if self.is_echoing => {
                    let payload = event["media"]["payload"].as_str().unwrap_or_default().to_owned();
                    self.play(payload).await?;
                }
                Some("dtmf") => match event["dtmf"]["digit"].as_str() {
                    Some("0") => self.send(json!({"event": "clearAudio"})).await?,
                    Some("1") => self.greet().await?,
                    Some("2") => self.send(json!({"event": "sendDTMF", "dtmf": "42"})).await?,
                    Some("#") => return self.socket.close(None).await,
                    _ => {}
                },
                Some("stop") => break,
                _ => {}
            }
        }
        Ok(())
    }

    /// Plays 0.8 s of 440 Hz, followed by a checkpoint.
    async fn greet(&mut self) -> Result<(), tokio_tungstenite::tungstenite::Error> {
        self.is_echoing = false;
        let rate = self.format["sampleRate"].as_u64().unwrap_or(8_000) as u32;
        let wave = |n: u32| {
            (f64::from(n) * 440.0 * std::f64::consts::TAU / f64::from(rate)).sin() * 8_000.0
        };
        let pcm: Vec<i16> = (0..rate * 4 / 5).map(|n| wave(n) as i16).collect();
        // 0.2 s per message stays well below the limit of 64 KiB.
        for piece in pcm.chunks((rate / 5) as usize) {
            let bytes: Vec<u8> = match self.format["contentType"].as_str() {
                Some("audio/x-mulaw") => piece.iter().map(|sample| mulaw(*sample)).collect(),
                _ => piece.iter().flat_map(|sample| sample.to_le_bytes()).collect(),
            };
            self.play(STANDARD.encode(bytes)).await?;
        }
        self.send(json!({"event": "checkpoint", "name": "greeting"})).await
    }

    async fn play(&mut self, payload: String) -> Result<(), tokio_tungstenite::tungstenite::Error> {
        let mut media = self.format.clone();
        media["payload"] = payload.into();
        self.send(json!({"event": "playAudio", "media": media})).await
    }

    async fn send(&mut self, message: Value) -> Result<(), tokio_tungstenite::tungstenite::Error> {
        self.socket.send(Message::text(message.to_string())).await
    }
}

/// Encodes a sample as µ-law (ITU-T G.711).
fn mulaw(sample: i16) -> u8 {
    let biased = i32::from(sample).abs().min(32_635) + 0x84;
    let segment = 24 - biased.leading_zeros() as i32;
    let sign = if sample < 0 { 0x80 } else { 0 };
    !(sign | (segment << 4) | ((biased >> (segment + 3)) & 0x0f)) as u8
}
