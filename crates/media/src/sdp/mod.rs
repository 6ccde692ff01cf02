//! SDP as this house meets it: Meta's offer read, our answer written (`meta-calling.md` §5).
//!
//! [`Offer::parse`] says whether an offer is usable and keeps what media needs; [`Offer::answer`] writes our text
//! line by line, so that nothing stands in it that we did not mean; [`check_answer`] is the strictness of the
//! other side. Only text here: no socket, no ICE, no clock. Whole SDPs never reach a log (credentials); a call's own event log has
//! them by [`shown`].

mod answer;
mod check;
mod parse;

pub use answer::Ours;
pub use check::{AnswerFault, Rule, check_answer};

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// The longest offer that is looked at (`meta-calling.md` §1.3, R19), in bytes.
pub const OFFER_BYTES_MAX: usize = 16 * 1024;
/// The most media sections an offer may have (R19).
pub const SECTIONS_MAX: usize = 16;
/// Characters of a peer's ufrag: a check's USERNAME is both ufrags with a colon between, and the agent writes 128 characters.
pub const UFRAG_MAX: usize = 128 - 1 - crate::UFRAG_CHARS;
/// The most candidates of an offer that are used; the rest is dropped (§5.2).
pub const CANDIDATES_MAX: usize = 16;

/// A usable offer: its first usable audio section, with what stands at session level brought in.
///
/// The same reader serves answers (Meta's to our offers, and ours in tests): their lines are the same.
#[derive(Clone, PartialEq, Eq)]
pub struct Offer {
    /// The other side never sends checks: we are the full, controlling agent (A2).
    pub ice_lite: bool,
    pub ufrag: String,
    pub pwd: String,
    /// SHA-256 of the peer's certificate.
    pub fingerprint: [u8; 32],
    pub setup: Setup,
    /// Where checks may go, in the offer's order, each address once. Empty only where an offer without
    /// `a=ice-lite` names hosts by name alone (mDNS): then the peer comes to us.
    pub candidates: Vec<RemoteCandidate>,
    pub opus_pt: u8,
    /// Offered `telephone-event` payload types, in the offer's order; empty: digits cannot come.
    pub telephone_events: Vec<TelephoneEvent>,
    /// The first SSRC announced, if any.
    pub ssrc: Option<u32>,
    /// Milliseconds a packet holds; 20 where nothing is said.
    pub ptime: u32,
    pub mid: Option<String>,
    pub direction: Direction,
    /// Which of `sections` is the audio one.
    audio: usize,
    sections: Vec<Section>,
    /// As people may see it: [`shown`].
    pub shown: Arc<str>,
}

/// Who opens DTLS (RFC 8842).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    Actpass,
    Active,
    Passive,
}

impl Setup {
    /// What we answer: the DTLS client wherever we may (A6).
    pub fn answered(self) -> Self {
        match self {
            Self::Actpass | Self::Passive => Self::Active,
            Self::Active => Self::Passive,
        }
    }

    /// The word in SDP.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Actpass => "actpass",
            Self::Active => "active",
            Self::Passive => "passive",
        }
    }
}

/// Which way media flows, seen from who says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

impl Direction {
    /// The answer to it (RFC 3264 §6.1).
    pub fn mirrored(self) -> Self {
        match self {
            Self::SendOnly => Self::RecvOnly,
            Self::RecvOnly => Self::SendOnly,
            Self::SendRecv | Self::Inactive => self,
        }
    }

    /// The attribute's name in SDP.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }
}

/// One of the peer's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteCandidate {
    pub addr: SocketAddr,
    pub priority: u32,
}

/// One offered RFC 4733 payload type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TelephoneEvent {
    pub pt: u8,
    /// Ticks a second in which an event's duration counts: 8000 or 48000.
    pub clock: u32,
}

/// What an answer must repeat of each section, refused or not.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Section {
    media: String,
    proto: String,
    /// The payload types, or the first word only where the section is refused.
    formats: Vec<String>,
    mid: Option<String>,
}

impl Offer {
    /// Reads an offer; tolerant of LF line ends, of attributes at session or media level, and of what it does not
    /// know. `allow_loopback` takes candidates at loopback too (`[meta].graph_url` is loopback itself).
    ///
    /// # Errors
    /// Why it is not usable (`meta-calling.md` §5.2): the call is rejected as `bad_offer`.
    pub fn parse(text: &str, allow_loopback: bool) -> Result<Self, OfferFault> {
        parse::offer(text, parse::From::Meta { allow_loopback })
    }

    /// Reads the offer of an endpoint's phone: a browser, which sends the checks itself and may offer before it knows its
    /// own addresses.
    ///
    /// # Errors
    /// The same.
    pub fn of_phone(text: &str) -> Result<Self, OfferFault> {
        parse::offer(text, parse::From::Phone)
    }

    /// The payload type that our own digits go out with: Meta knows 8000 alone.
    pub fn digits_out(&self) -> Option<TelephoneEvent> {
        self.telephone_events
            .iter()
            .find(|t| t.clock == 8000)
            .or(self.telephone_events.first())
            .copied()
    }

    /// Our answer (A1–A8): the text that `pre_accept` and `accept` both carry.
    pub fn answer(&self, ours: &Ours<'_>) -> String {
        answer::text(self, ours)
    }
}

/// Bytes of a description that people are shown; Meta's have half of that.
pub const SHOWN_MAX: usize = 4 * 1024;

/// A session description without what would let somebody into the call (`a=ice-pwd`, `a=crypto`), one line each, bounded.
pub fn shown(sdp: &str) -> String {
    let mut shown = String::with_capacity(sdp.len().min(SHOWN_MAX));
    for line in sdp.lines() {
        let secret = ["a=ice-pwd:", "a=crypto:"].into_iter().find(|name| {
            line.trim_start()
                .get(..name.len())
                .is_some_and(|begin| begin.eq_ignore_ascii_case(name))
        });
        let line = secret.map_or(line.to_owned(), |name| format!("{name}…"));
        if shown.len() + line.len() >= SHOWN_MAX {
            shown.push('…');
            break;
        }
        shown.push_str(&line);
        shown.push('\n');
    }
    shown
}

/// Our own offer of one audio section, for a call that we place (`meta-calling.md` §5.2): actpass, never lite.
pub fn offer(ours: &Ours<'_>) -> String {
    answer::offer(ours)
}

/// Credentials and addresses stay out.
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

/// Why an offer is not usable, or an answer that is read like one: "it has no …".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OfferFault {
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
    #[error("its mid or protocol is longer than any we know")]
    OverlongToken,
    #[error("it has no ice-ufrag of 4 to 256 characters")]
    Ufrag,
    /// Legal (RFC 8839 §5.4); but the USERNAME of the agent's checks has room for 128 characters, both ufrags and a colon.
    #[error(
        "its ice-ufrag is longer than {UFRAG_MAX} characters, more than our ICE checks can name"
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
    #[error("it has no UDP candidate that we may go to")]
    NoCandidate,
}

#[cfg(test)]
mod tests;
