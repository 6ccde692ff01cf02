//! Orders to a leg's media, and what it reports.

use serde::{Deserialize, Serialize};

use super::recording::{RecordEnd, RecordId, RecordOrder};
use super::sound::{Aside, SoundItem};
use model::Digit;
use xml::ast::Beep;

/// Names one play order (or digits order) of a call, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PlayId(pub u32);

/// Orders to a leg's media.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum MediaOrder {
    /// ICE checks begin: `pre_accept` is being sent, or the SDP answer to our offer has come.
    Begin,
    /// `accept` got its 200: from now on a packet goes out every 20 ms, silence included.
    Open,
    /// Play these one after another without a gap; replaces whatever plays. Starts with its first packet once
    /// the path is connected and open.
    Play { play: PlayId, items: Vec<SoundItem> },
    /// Play this beside what `Play` plays; replaces what plays of its kind.
    Aside { play: PlayId, aside: Aside },
    /// Stop within 60 ms; no `Played` follows.
    Stop { play: PlayId },
    /// RFC 4733 towards the peer, after what was ordered before: `0-9 * #`, `w` 0.5 s, `W` 1 s; behind `@` how many
    /// milliseconds each key lasts. Ends in `Input::DigitsSent`.
    SendDigits { play: PlayId, digits: String },
    /// Tell the peer's voice by `Input::Voice`, or no longer.
    Listen { on: bool },
    /// Tell by `Input::Voice` once a voicemail has beeped, or no longer.
    Beep {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        how: Option<Beep>,
    },
    /// Record what is heard of the peer, and what it hears. Its name and its end come as `Input::Recorded`.
    Record { record: RecordId, how: Box<RecordOrder> },
    /// A recording that was held begins now.
    RecordGo { record: RecordId },
    /// A recording leaves out what is heard from now on, or no longer.
    RecordPause { record: RecordId, on: bool },
    /// A recording ends; one that never began is forgotten, and nothing comes of it.
    RecordStop {
        record: RecordId,
        end: RecordEnd,
        /// The key that ended it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<Digit>,
    },
    /// From now on this leg's peer hears the leg that dialled this one, and is heard there.
    Join,
    /// No longer: silence, or what is played.
    Part,
    /// RTCP BYE, DTLS close, gone.
    Close,
}

/// A change of what is heard of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "voice", rename_all = "snake_case")]
pub enum Voice {
    /// The peer speaks.
    Began,
    /// The peer has said nothing for so long; shorter pauses are part of speech.
    Ended { ago_ms: u64 },
    /// The peer is a voicemail that has beeped, and listens now.
    Beep,
}

/// A change of a leg's media path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "media", rename_all = "snake_case")]
pub enum MediaFact {
    /// ICE found a pair.
    IceUp,
    /// ICE and DTLS are up: audio can flow.
    Connected,
    /// The first valid SRTP packet of the peer.
    FirstPacket,
    /// Half a second of the peer's sound has come: told once, of a leg that offered (`meta-calling.md` §7.2).
    Flowing,
    /// The path is gone for good.
    Lost { fault: MediaFault },
}

/// Why a media path is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MediaFault {
    /// Nothing valid for T_media_dead, or consent lost as long.
    Silent,
    /// The peer's certificate is not the one of its SDP.
    Fingerprint,
    /// DTLS alert or close_notify.
    DtlsClosed,
    /// DTLS handshake failed.
    DtlsFailed,
    /// The leg's agent panicked: a fault of ours.
    Broken,
}
