//! Mixing: several members hear each other, each of them all but the own voice (`media-notes` §5, §6).
//!
//! What is added and who hears it is decided by values: `loudness` (who speaks), `sum` (how sounds are added), `groups` (whose
//! ears share an encoder); [`table::Table`] is a room's 20 ms with all of that. [`Mixer`] is a room's hold on its job, which beats on
//! the media workers, reads its members' lines and fills their feeds. It knows nothing of calls: who may speak is told.

mod groups;
mod job;
mod loudness;
mod sum;
mod table;

pub use job::{MixSink, Mixer, RoomSound};

/// What a member says and hears.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MixPart {
    pub says: Says,
    /// Everything that is for it; else nothing of the members.
    pub hears: bool,
    /// It hears also what is for agents only.
    pub agent: bool,
    /// Who hears the whole room hears what it says.
    pub recorded: bool,
}

/// Who hears a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Says {
    /// It is muted, and not decoded.
    #[default]
    Nobody,
    ToAll,
    ToAgents,
}

/// What a room's sound tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MixEvent {
    /// Who has the floor has changed: from whom, to whom.
    Floor { from: Option<u64>, to: Option<u64> },
    /// A member has begun to speak, or is silent now.
    Speech { member: u64, on: bool },
    /// Something begins to be played over an API, or is over.
    Played { to: Audience, on: bool },
}

/// For whom something is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    All,
    Member(u64),
}

/// What plays in a room: each kind for each audience is heard one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Played {
    /// Sounds of coming and going.
    Cue,
    /// What is heard while somebody is called.
    Ring,
    Play,
    Speak,
}
