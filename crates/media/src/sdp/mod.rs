//! Parses the offer of Meta or a phone, writes our answer or offer, and checks answers
//! (docs/reference/meta.md#sdp).
//!
//! [`Offer::parse`] decides whether an offer is usable and keeps what media needs.
//! [`Offer::answer`] writes the answer line by line, so that it contains nothing unintended.
//! [`check_answer`] applies Meta's rules for answers. The module has no I/O. Complete SDPs contain
//! credentials and are never logged. The event log of a call contains them in the form of
//! [`redacted`].

mod answer;
mod check;
mod parse;

pub use answer::LocalDescription;
pub use check::{AnswerError, Rule, check_answer};

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Maximum size of an offer in bytes (docs/reference/meta.md#bounds).
pub const OFFER_BYTES_MAX: usize = 16 * 1024;
/// Maximum number of media sections in an offer.
pub const SECTIONS_MAX: usize = 16;
/// Maximum length of a peer's ufrag. The USERNAME of a check consists of both ufrags and a colon,
/// and str0m writes at most 128 characters.
pub const UFRAG_MAX: usize = 128 - 1 - crate::UFRAG_CHARS;
/// Maximum number of candidates of an offer that are used. Further candidates are ignored.
pub const CANDIDATES_MAX: usize = 16;

/// A usable offer: its first usable audio section, together with the session-level attributes.
///
/// Answers are parsed with the same type, because their lines are the same.
#[derive(Clone, PartialEq, Eq)]
pub struct Offer {
    /// Whether the peer is ICE-lite. It then sends no ICE checks, and this side is the full,
    /// controlling agent.
    pub ice_lite: bool,
    pub ufrag: String,
    pub pwd: String,
    /// SHA-256 fingerprint of the peer's certificate.
    pub fingerprint: [u8; 32],
    pub setup: Setup,
    /// Addresses to send checks to, in the offer's order and without duplicates. Empty only if an
    /// offer without `a=ice-lite` contains no candidates except mDNS names. The peer then sends the
    /// checks.
    pub candidates: Vec<RemoteCandidate>,
    pub opus_pt: u8,
    /// Offered `telephone-event` payload types in the offer's order. If empty, the peer cannot send
    /// DTMF events.
    pub telephone_events: Vec<TelephoneEvent>,
    /// The first announced SSRC. `None` if none is announced.
    pub ssrc: Option<u32>,
    /// Milliseconds of audio per packet, 20 by default.
    pub ptime: u32,
    pub mid: Option<String>,
    pub direction: Direction,
    /// Index of the audio section in `sections`.
    audio: usize,
    sections: Vec<Section>,
    /// The text of the offer, [`redacted`].
    pub redacted: Arc<str>,
}

/// DTLS role (RFC 8842).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    Actpass,
    Active,
    Passive,
}

impl Setup {
    /// Returns the role with which this side answers: the DTLS client if allowed.
    pub fn answer_role(self) -> Self {
        match self {
            Self::Actpass | Self::Passive => Self::Active,
            Self::Active => Self::Passive,
        }
    }

    /// Returns the value in SDP.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Actpass => "actpass",
            Self::Active => "active",
            Self::Passive => "passive",
        }
    }
}

/// Direction of media, from the perspective of the side that states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

impl Direction {
    /// Returns the direction for the answer (RFC 3264 §6.1).
    pub fn mirrored(self) -> Self {
        match self {
            Self::SendOnly => Self::RecvOnly,
            Self::RecvOnly => Self::SendOnly,
            Self::SendRecv | Self::Inactive => self,
        }
    }

    /// Returns the attribute in SDP.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }
}

/// A candidate of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteCandidate {
    pub addr: SocketAddr,
    pub priority: u32,
}

/// An offered RFC 4733 payload type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TelephoneEvent {
    pub pt: u8,
    /// Clock rate of event durations: 8000 or 48000.
    pub clock: u32,
}

/// The parts of a media section that the answer must repeat, even if the section is rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Section {
    media: String,
    proto: String,
    /// The payload types. Only the first one if the section is rejected.
    formats: Vec<String>,
    mid: Option<String>,
}

impl Offer {
    /// Parses an offer. Accepts LF line ends, attributes at session or media level, and unknown
    /// lines. `allow_loopback` accepts loopback candidates, for a `[meta].graph_url` on loopback.
    ///
    /// # Errors
    ///
    /// Returns why the offer is not usable (docs/reference/meta.md#usable-offer). The call is
    /// rejected as `bad_offer`.
    pub fn parse(sdp: &str, allow_loopback: bool) -> Result<Self, OfferError> {
        parse::offer(sdp, parse::Sender::Meta { allow_loopback })
    }

    /// Parses the offer of an endpoint's phone: a browser, which sends the checks itself and may
    /// not know its own addresses yet.
    ///
    /// # Errors
    ///
    /// Returns why the offer is not usable.
    pub fn parse_phone(sdp: &str) -> Result<Self, OfferError> {
        parse::offer(sdp, parse::Sender::Phone)
    }

    /// Returns the payload type for digits that this side sends. 8000 Hz is preferred, because Meta
    /// supports no other rate. `None` if none was offered.
    pub fn telephone_event_out(&self) -> Option<TelephoneEvent> {
        self.telephone_events
            .iter()
            .find(|t| t.clock == 8000)
            .or(self.telephone_events.first())
            .copied()
    }

    /// Writes our answer, which both `pre_accept` and `accept` contain.
    pub fn answer(&self, ours: &LocalDescription<'_>) -> String {
        answer::answer(self, ours)
    }
}

/// Maximum size of a redacted SDP in bytes. Meta's are half as long.
pub const REDACTED_MAX: usize = 4 * 1024;

/// Returns an SDP without the lines that would give access to the call (`a=ice-pwd`, `a=crypto`),
/// truncated to [`REDACTED_MAX`].
pub fn redacted(sdp: &str) -> String {
    let mut redacted = String::with_capacity(sdp.len().min(REDACTED_MAX));
    for line in sdp.lines() {
        let secret = ["a=ice-pwd:", "a=crypto:"].into_iter().find(|name| {
            line.trim_start()
                .get(..name.len())
                .is_some_and(|begin| begin.eq_ignore_ascii_case(name))
        });
        let (line, end) = secret.map_or((line, "\n"), |name| (name, "…\n"));
        if redacted.len() + line.len() + end.len() > REDACTED_MAX {
            redacted.push('…');
            break;
        }
        redacted.push_str(line);
        redacted.push_str(end);
    }
    redacted
}

/// Writes our offer of one audio section, for a call that this side places: actpass, never
/// ICE-lite.
pub fn offer(ours: &LocalDescription<'_>) -> String {
    answer::offer(ours)
}

/// Omits credentials and addresses.
impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offer")
            .field("ice_lite", &self.ice_lite)
            .field("setup", &self.setup)
            .field("candidates", &self.candidates.len())
            .field("opus_pt", &self.opus_pt)
            .field("telephone_events", &self.telephone_events)
            .finish_non_exhaustive()
    }
}

/// The reason why an offer or an answer is not usable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    #[error("it is empty")]
    Empty,
    #[error("it is longer than {OFFER_BYTES_MAX} bytes")]
    TooLong,
    #[error("it has a control character")]
    ControlCharacter,
    #[error("it does not begin with v=0")]
    NotSdp,
    #[error("it has more than {SECTIONS_MAX} media sections")]
    TooManySections,
    #[error("it has no audio section")]
    NoAudio,
    #[error("its audio section has port 0")]
    PortZero,
    #[error("its audio section does not run over RTP and UDP")]
    Transport,
    #[error("its mid, media or protocol token is longer than 64 characters")]
    OverlongToken,
    #[error("it has no ice-ufrag of 4 to 256 characters")]
    Ufrag,
    /// Valid in SDP (RFC 8839 §5.4), but the USERNAME of str0m's checks has 128 characters for both
    /// ufrags and a colon.
    #[error(
        "its ice-ufrag is longer than {UFRAG_MAX} characters, more than our ICE checks can carry"
    )]
    OverlongUfrag,
    #[error("it has no ice-pwd of 22 to 256 characters")]
    Pwd,
    #[error("it has no DTLS fingerprint, only SDES keys")]
    NoDtls,
    #[error("it has no sha-256 fingerprint of 32 bytes")]
    Fingerprint,
    #[error("its setup is not actpass, active or passive")]
    Setup,
    #[error("it has no rtcp-mux")]
    RtcpMux,
    #[error("it has no opus/48000")]
    NoOpus,
    #[error("it has no UDP candidate with a usable address")]
    NoCandidate,
}

#[cfg(test)]
mod tests;
