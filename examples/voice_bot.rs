//! A voice bot: the other side of `<Stream bidirectional="true" keepCallAlive="true">` (`docs/stream.md`).
//!
//! It greets with a tone, then says back whatever it hears. Keys: `1` plays the greeting again, `2` has the call send keys,
//! `0` cuts off what is being said, `#` ends the conversation: the call's document goes on.
//!
//! `cargo run --example voice_bot -- 127.0.0.1:9000`, and in the document:
//! `<Stream bidirectional="true" keepCallAlive="true">ws://127.0.0.1:9000/</Stream>` (`answer.allow_insecure = true`;
//! a real one stands behind `wss`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::{WebSocketStream, accept_async};

#[tokio::main]
#[allow(dead_code, reason = "the tests have a runtime of their own")]
async fn main() -> std::io::Result<()> {
    let at = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9000".to_owned());
    serve(TcpListener::bind(at).await?).await
}

/// Takes streams, each in a task of its own.
pub async fn serve(listener: TcpListener) -> std::io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            // A real bot looks at the request first: its signature headers say that it is from your own Offhook.
            if let Ok(socket) = accept_async(stream).await {
                let _ = Bot { socket, format: json!({}), greeted: false }.talk().await;
            }
        });
    }
}

struct Bot {
    socket: WebSocketStream<TcpStream>,
    /// `contentType` and `sampleRate` of the stream, as what is played needs them.
    format: Value,
    /// The greeting has been heard: from now on everything is said back.
    greeted: bool,
}

impl Bot {
    async fn talk(mut self) -> Result<(), tokio_tungstenite::tungstenite::Error> {
        while let Some(message) = self.socket.next().await {
            let Message::Text(text) = message? else { continue };
            let Ok(said) = serde_json::from_str::<Value>(&text) else { continue };
            match said["event"].as_str() {
                Some("start") => {
                    let format = &said["start"]["mediaFormat"];
                    self.format = json!({"contentType": format["encoding"], "sampleRate": format["sampleRate"]});
                    self.greet().await?;
                }
                Some("playedStream") => self.greeted = true,
                Some("media") if self.greeted => {
                    let payload = said["media"]["payload"].as_str().unwrap_or_default().to_owned();
                    self.play(payload).await?;
                }
                Some("dtmf") => match said["dtmf"]["digit"].as_str() {
                    Some("0") => self.say(json!({"event": "clearAudio"})).await?,
                    Some("1") => self.greet().await?,
                    Some("2") => self.say(json!({"event": "sendDTMF", "dtmf": "42"})).await?,
                    Some("#") => return self.socket.close(None).await,
                    _ => {}
                },
                Some("stop") => break,
                _ => {}
            }
        }
        Ok(())
    }

    /// Four fifths of a second at 440 Hz, and a checkpoint behind it.
    async fn greet(&mut self) -> Result<(), tokio_tungstenite::tungstenite::Error> {
        self.greeted = false;
        let rate = self.format["sampleRate"].as_u64().unwrap_or(8_000) as u32;
        let wave = |n: u32| {
            (f64::from(n) * 440.0 * std::f64::consts::TAU / f64::from(rate)).sin() * 8_000.0
        };
        let pcm: Vec<i16> = (0..rate * 4 / 5).map(|n| wave(n) as i16).collect();
        // A message may have 64 KiB: a fifth of a second is far below.
        for piece in pcm.chunks((rate / 5) as usize) {
            let bytes: Vec<u8> = match self.format["contentType"].as_str() {
                Some("audio/x-mulaw") => piece.iter().map(|sample| mulaw(*sample)).collect(),
                _ => piece.iter().flat_map(|sample| sample.to_le_bytes()).collect(),
            };
            self.play(STANDARD.encode(bytes)).await?;
        }
        self.say(json!({"event": "checkpoint", "name": "greeting"})).await
    }

    async fn play(&mut self, payload: String) -> Result<(), tokio_tungstenite::tungstenite::Error> {
        let mut media = self.format.clone();
        media["payload"] = payload.into();
        self.say(json!({"event": "playAudio", "media": media})).await
    }

    async fn say(&mut self, message: Value) -> Result<(), tokio_tungstenite::tungstenite::Error> {
        self.socket.send(Message::text(message.to_string())).await
    }
}

/// A sample as µ-law (ITU-T G.711).
fn mulaw(sample: i16) -> u8 {
    let biased = i32::from(sample).abs().min(32_635) + 0x84;
    let segment = 24 - biased.leading_zeros() as i32;
    let sign = if sample < 0 { 0x80 } else { 0 };
    !(sign | (segment << 4) | ((biased >> (segment + 3)) & 0x0f)) as u8
}
