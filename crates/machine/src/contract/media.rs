//! Instructions to the media of a leg, and its reports.

use serde::{Deserialize, Serialize};

use super::recording::{RecordingEndReason, RecordingId, RecordingOrder};
use super::sound::{Overlay, SoundItem};
use model::Digit;
use xml::ast::Beep;

/// Identifies a playlist or a sequence of sent digits of a call. The first one is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PlayId(pub u32);

/// An instruction to the media of a leg.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum MediaCommand {
    /// Starts the ICE checks, because `pre_accept` is being sent or the SDP answer has arrived.
    Begin,
    /// Starts to send a packet every 20 ms, even if it contains silence, because the call is
    /// answered.
    Open,
    /// Plays a playlist without gaps, and replaces the current one. It starts when the media path
    /// is connected and open.
    Play { play: PlayId, items: Vec<SoundItem> },
    /// Plays sounds in addition to the playlist, and replaces earlier sounds of the same kind.
    #[serde(rename = "aside")]
    Overlay {
        play: PlayId,
        #[serde(rename = "aside")]
        overlay: Overlay,
    },
    /// Stops a playlist or an overlay within 60 ms. `Input::Played` is not reported.
    Stop { play: PlayId },
    /// Pauses or resumes a playlist, within 60 ms. Playback resumes with the next frame.
    PlayPause { play: PlayId, on: bool },
    /// Sends digits to the peer as RFC 4733 events, after those that are being sent: `0-9 * #`, `w`
    /// waits 0.5 s, `W` waits 1 s. A number after `@` is the length of each digit in milliseconds.
    /// `Input::DigitsSent` reports the end.
    SendDigits { play: PlayId, digits: String },
    /// Turns the detection of the peer's voice on or off. `Input::Voice` reports the events.
    #[serde(rename = "listen")]
    DetectVoice { on: bool },
    /// Detects the beep of a voicemail, which `Input::Voice` reports. Without settings, detection
    /// stops.
    #[serde(rename = "beep")]
    DetectBeep {
        #[serde(default, skip_serializing_if = "Option::is_none", rename = "how")]
        settings: Option<Beep>,
    },
    /// Records both directions of the audio. `Input::Recording` reports the id and the end.
    Record {
        #[serde(rename = "record")]
        recording: RecordingId,
        #[serde(rename = "how")]
        order: Box<RecordingOrder>,
    },
    /// Starts a recording that was prepared with `held`.
    #[serde(rename = "record_go")]
    RecordStart {
        #[serde(rename = "record")]
        recording: RecordingId,
    },
    /// Pauses or resumes a recording. The file does not contain the audio of the pause.
    RecordPause {
        #[serde(rename = "record")]
        recording: RecordingId,
        on: bool,
    },
    /// Ends a recording. One that has not started is dropped without a report.
    RecordStop {
        #[serde(rename = "record")]
        recording: RecordingId,
        #[serde(rename = "end")]
        reason: RecordingEndReason,
        /// The digit that ended the recording.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<Digit>,
    },
    /// Connects the audio of this B-leg with that of its A-leg.
    Join,
    /// Disconnects the audio of the two legs. Afterwards the peer receives silence, or the sounds
    /// that are played.
    #[serde(rename = "part")]
    Unjoin,
    /// Sends RTCP BYE, closes DTLS and drops the leg.
    Close,
}

/// A change in the peer's audio.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "voice", rename_all = "snake_case")]
pub enum VoiceEvent {
    /// The peer speaks.
    Began,
    /// The peer has been silent for `ago_ms`. Shorter pauses count as speech.
    Ended { ago_ms: u64 },
    /// A voicemail has beeped and now records.
    Beep,
}

/// A change of the media path of a leg.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "media", rename_all = "snake_case")]
pub enum MediaEvent {
    /// ICE has found a working candidate pair.
    IceUp,
    /// ICE and DTLS are up. Audio can flow.
    Connected,
    /// The first valid SRTP packet of the peer has arrived.
    FirstPacket,
    /// Half a second of the peer's audio has arrived. Reported once, for legs that sent the SDP
    /// offer.
    Flowing,
    /// The media path is permanently lost.
    Lost { fault: MediaFault },
}

/// The reason why a media path was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MediaFault {
    /// The peer sent no valid packet, or did not renew ICE consent, for T_media_dead
    /// (docs/reference/meta.md#t-media-dead).
    Silent,
    /// The certificate of the peer does not match the fingerprint in its SDP.
    Fingerprint,
    /// The peer sent a DTLS alert or close_notify.
    DtlsClosed,
    /// The DTLS handshake failed.
    DtlsFailed,
    /// The ICE agent of the leg panicked. This is an internal error.
    Broken,
}
