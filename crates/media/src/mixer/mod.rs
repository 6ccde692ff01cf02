//! Mixing for rooms: each member hears all others but not itself
//! (docs/reference/media.md#conference-mixing).
//!
//! `speech_level` detects the speaking members, `sum` adds samples, and `groups` assigns encoders
//! to members with the same audio. [`room_mix::RoomMix`] combines them for 20 ms of a room.
//! [`Mixer`] is the handle to a room's job on the media workers, which reads the members' taps and
//! fills their feeds. The mixer knows nothing about calls; the room sets which members may speak.

mod groups;
mod job;
mod room_mix;
mod speech_level;
mod sum;

pub use job::{MixSink, Mixer, RoomAudio};
use serde::{Deserialize, Serialize};

/// The audio that a member contributes and hears.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberAudio {
    #[serde(rename = "heard_by")]
    pub listeners: Listeners,
    /// Whether the member hears the others. Prompts for it are audible in any case.
    pub hears_room: bool,
    /// Whether the member also hears members that only agents hear.
    pub agent: bool,
    /// Whether the member's audio is part of [`RoomAudio`].
    pub recorded: bool,
}

/// The audience of a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Listeners {
    /// The member is muted and not decoded.
    #[default]
    Nobody,
    Everyone,
    Agents,
}

/// An event of a room's audio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MixEvent {
    /// The floor has passed from one member to another.
    Floor { from: Option<u64>, to: Option<u64> },
    /// A member has started or stopped speaking.
    Speech { member: u64, on: bool },
    /// Playback that was started over an API begins or ends.
    Playback { to: Audience, on: bool },
}

/// The audience of a playback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    All,
    Member(u64),
}

/// The kind of a playback. Playbacks of the same kind and audience are played one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SoundKind {
    /// Sounds for members who enter and leave.
    Cue,
    /// The ringing tone while another participant is being called.
    Ring,
    Play,
    Speak,
}
