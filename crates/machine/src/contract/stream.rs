//! Streams: what they are, orders to them, and what they report.

use serde::{Deserialize, Serialize};

use xml::ast::{DocUrl, Target};

/// What a stream is asked to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StreamOrder {
    /// `ws` or `wss`.
    pub url: DocUrl,
    /// Sound of the other side is played.
    pub bidirectional: bool,
    pub track: StreamTrack,
    /// Seconds from its beginning, 1 to 86,400.
    pub timeout_s: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<(DocUrl, model::Method)>,
    pub format: StreamFormat,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra_headers: Vec<(String, String)>,
    /// The document waits for its end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keep_call_alive: bool,
    /// How much of the noise around the user is taken away, 60 to 100 per cent; none: their sound is sent as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noise_level: Option<u8>,
    /// Its server hears and speaks in the room that the call is in, beside the call's own peer, and not on the leg.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_room: bool,
}

impl StreamOrder {
    /// Where its status is told.
    pub fn status_target(&self) -> Option<Target> {
        self.status.as_ref().map(|(url, method)| Target { url: url.clone(), method: *method })
    }

    /// `k=v,…` as it came.
    pub fn extra_headers_text(&self) -> String {
        let pairs: Vec<String> =
            self.extra_headers.iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join(",")
    }
}

/// Whose sound is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamTrack {
    /// What the leg's peer says.
    Inbound,
    /// What the peer hears.
    Outbound,
    Both,
}

impl StreamTrack {
    /// `audioTrack`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
            Self::Both => "both",
        }
    }

    /// The track of this name.
    pub fn of(word: &str) -> Option<Self> {
        [Self::Inbound, Self::Outbound, Self::Both].into_iter().find(|track| track.as_str() == word)
    }
}

/// How sound is written on the socket: mono, µ-law (G.711) or 16 bits, little-endian.
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

    /// `contentType`, to the letter.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mulaw8000 => "audio/x-mulaw;rate=8000",
            Self::L16At8000 => "audio/x-l16;rate=8000",
            Self::L16At16000 => "audio/x-l16;rate=16000",
            Self::L16At24000 => "audio/x-l16;rate=24000",
        }
    }

    /// The format of this `contentType`.
    pub fn of(content_type: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.as_str() == content_type)
    }

    /// The same without the rate.
    pub fn encoding(self) -> &'static str {
        match self {
            Self::Mulaw8000 => "audio/x-mulaw",
            Self::L16At8000 | Self::L16At16000 | Self::L16At24000 => "audio/x-l16",
        }
    }

    /// Samples a second.
    pub fn hz(self) -> u32 {
        match self {
            Self::Mulaw8000 | Self::L16At8000 => 8_000,
            Self::L16At16000 => 16_000,
            Self::L16At24000 => 24_000,
        }
    }
}

/// What the machine wishes of a stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamWish {
    /// Connect to its server. Comes back as [`StreamFact::Opened`] or [`StreamFact::Failed`].
    Open(Box<StreamOrder>),
    /// The sound flows from now on.
    Begin,
    /// It is over: where its socket is open, its server is told so and it is closed.
    Close {
        /// It never was, or was lost.
        dropped: bool,
    },
}

/// What the `stream` room tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamFact {
    /// The server has taken the socket.
    Opened,
    /// Every try to connect was in vain.
    Failed { why: String },
    /// The socket broke, or nobody answers its pings.
    Lost { why: String },
    /// The server closed it: that is its way to end it.
    Closed,
    /// What waits to be played has come to this part of its room: 30, 60 or 90.
    Degraded { percent: u8 },
    /// All that was queued before this checkpoint has been played.
    Played { name: String },
    /// The server had what waits to be played thrown away.
    Cleared,
    /// The server wants these keys sent to the caller.
    SendDigits { digits: String },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_and_tracks_are_found_by_their_words() {
        for format in StreamFormat::ALL {
            assert_eq!(StreamFormat::of(format.as_str()), Some(format));
            assert_eq!(format.as_str(), format!("{};rate={}", format.encoding(), format.hz()));
        }
        assert_eq!(StreamFormat::of("audio/x-mulaw;rate=16000"), None);
        assert_eq!(StreamTrack::of("both"), Some(StreamTrack::Both));
        assert_eq!(StreamTrack::of("Both"), None);
    }
}
