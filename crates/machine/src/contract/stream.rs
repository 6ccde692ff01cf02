//! Streams of audio to and from a customer's WebSocket (docs/stream.md): orders, instructions and
//! reports.

use serde::{Deserialize, Serialize};

use xml::ast::{DocUrl, Target};

/// An order for a stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StreamOrder {
    /// The URL of the server, with the scheme `ws` or `wss`.
    pub url: DocUrl,
    /// Whether the server also sends audio, which is played.
    pub bidirectional: bool,
    pub track: StreamTrack,
    /// Maximum duration in seconds, 1 to 86,400.
    pub timeout_s: u32,
    /// The URL to which the status of the stream is reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<(DocUrl, model::Method)>,
    pub format: StreamFormat,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra_headers: Vec<(String, String)>,
    /// Whether the document waits for the end of the stream.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keep_call_alive: bool,
    /// The strength with which background noise of the peer is suppressed, 60 to 100 per cent.
    /// `None` disables the suppression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noise_level: Option<u8>,
    /// Whether the stream is connected to the room that the call is in, and not to the leg.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_room: bool,
}

impl StreamOrder {
    /// Returns the URL to which the status of the stream is reported. `None` if it is not set.
    pub fn status_target(&self) -> Option<Target> {
        self.status.as_ref().map(|(url, method)| Target { url: url.clone(), method: *method })
    }

    /// Returns the attribute `extraHeaders`: `name=value,…`.
    pub fn extra_headers_text(&self) -> String {
        let pairs: Vec<String> =
            self.extra_headers.iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join(",")
    }
}

/// The audio that is sent to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamTrack {
    /// The audio from the peer.
    Inbound,
    /// The audio to the peer.
    Outbound,
    Both,
}

impl StreamTrack {
    /// Returns the attribute `audioTrack`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
            Self::Both => "both",
        }
    }

    /// Returns the track with this [`as_str`](Self::as_str), or `None` if there is none.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Inbound, Self::Outbound, Self::Both].into_iter().find(|track| track.as_str() == word)
    }
}

/// The format of the audio on the socket. It is mono, in µ-law (G.711) or in 16-bit little-endian
/// samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamFormat {
    Mulaw8000,
    L16At8000,
    L16At16000,
    L16At24000,
}

impl StreamFormat {
    const ALL: [Self; 4] = [Self::Mulaw8000, Self::L16At8000, Self::L16At16000, Self::L16At24000];

    /// Returns the attribute `contentType`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mulaw8000 => "audio/x-mulaw;rate=8000",
            Self::L16At8000 => "audio/x-l16;rate=8000",
            Self::L16At16000 => "audio/x-l16;rate=16000",
            Self::L16At24000 => "audio/x-l16;rate=24000",
        }
    }

    /// Returns the format with this [`as_str`](Self::as_str), or `None` if there is none.
    pub fn parse(content_type: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.as_str() == content_type)
    }

    /// Returns the `contentType` without its rate.
    pub fn encoding(self) -> &'static str {
        match self {
            Self::Mulaw8000 => "audio/x-mulaw",
            Self::L16At8000 | Self::L16At16000 | Self::L16At24000 => "audio/x-l16",
        }
    }

    /// Returns the sample rate in hertz.
    pub fn hz(self) -> u32 {
        match self {
            Self::Mulaw8000 | Self::L16At8000 => 8_000,
            Self::L16At16000 => 16_000,
            Self::L16At24000 => 24_000,
        }
    }
}

/// An instruction to a stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamCommand {
    /// Connects to the server. [`StreamEvent::Opened`] or [`StreamEvent::Failed`] is reported.
    Open(Box<StreamOrder>),
    /// Starts to send and play audio.
    Begin,
    /// Ends the stream. If its socket is open, the server is notified and the socket is closed.
    Close {
        /// Whether the stream was refused, could not connect, or was lost.
        dropped: bool,
    },
}

/// A report of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamEvent {
    /// The socket is connected.
    Opened,
    /// All connection attempts have failed.
    Failed {
        #[serde(rename = "why")]
        reason: String,
    },
    /// The socket failed, or its pings were not answered.
    Lost {
        #[serde(rename = "why")]
        reason: String,
    },
    /// The server closed the socket, which ends the stream.
    Closed,
    /// The audio that waits to be played fills this share of its buffer: 30, 60 or 90 per cent.
    Degraded { percent: u8 },
    /// All audio before this checkpoint has been played.
    Played { name: String },
    /// The server discarded the audio that was waiting to be played.
    Cleared,
    /// The server requested that these digits be sent to the caller.
    SendDigits { digits: String },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_formats_and_tracks() {
        for format in StreamFormat::ALL {
            assert_eq!(StreamFormat::parse(format.as_str()), Some(format));
            assert_eq!(format.as_str(), format!("{};rate={}", format.encoding(), format.hz()));
        }
        assert_eq!(StreamFormat::parse("audio/x-mulaw;rate=16000"), None);
        assert_eq!(StreamTrack::parse("both"), Some(StreamTrack::Both));
        assert_eq!(StreamTrack::parse("Both"), None);
    }
}
