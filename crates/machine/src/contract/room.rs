//! What a call and the room that it is in say to each other (`plivo-xml.md` §5.9, §5.10).
//!
//! A room is where several calls hear each other: a conference, or a multi-party call. It is nobody's part: `call::rooms` has
//! it, and each member's machine orders and hears as its element (`element::room`) says. What a room decides for all of its
//! members, such as its end, comes here as news.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::notice::Notice;
use super::param::{Param, Params};
use super::recording::RecordOrder;
use super::sound::SoundItem;
use model::Digit;
use xml::ast::Target;

/// Names a member; unique in the node, from 1.
pub type MemberId = u64;

/// Which element makes a room. A conference and a multi-party call of one name are two rooms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoomKind {
    Conference,
    MultiParty,
}

/// What a participant of a multi-party call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Agent,
    Supervisor,
    Customer,
    AiAgent,
}

impl Role {
    /// The word on the wire, in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Supervisor => "supervisor",
            Self::Customer => "customer",
            Self::AiAgent => "ai-agent",
        }
    }

    /// By its word, in any case.
    pub fn parse(word: &str) -> Option<Self> {
        let all = [Self::Agent, Self::Supervisor, Self::Customer, Self::AiAgent];
        all.into_iter().find(|role| role.as_str().eq_ignore_ascii_case(word))
    }
}

/// A participant's place in a multi-party call, as its application is told of it.
#[derive(Clone, Copy, Debug)]
pub struct Seat<'a> {
    pub room: Uuid,
    pub name: &'a str,
    pub member: MemberId,
    pub role: Role,
    pub coaches: bool,
}

/// How a call enters a room.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoomEntry {
    pub kind: RoomKind,
    pub name: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub muted: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
    /// The room starts with this member, if it has not.
    pub starts: bool,
    /// But not with it alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub needs_company: bool,
    /// The room ends when this member leaves.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ends: bool,
    /// It may be left alone; else it leaves then.
    pub stays_alone: bool,
    /// It does not enter where so many are in.
    pub members_max: u8,
    /// It waits until an agent is in.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub waits_for_agent: bool,
    /// It is told who has the floor, and when its own voice is heard.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tells_floor: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tells_speech: bool,
    /// It is told when something is played to it over an API.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tells_audio: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// It is heard by agents only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub coaches: bool,
    /// What is said to agents only is heard in the room's recording.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub records_coaches: bool,
    /// What it says is recorded by itself from the beginning.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub track: bool,
    /// Where its application is told that the room is over, whoever leaves last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told_end: Option<Target>,
    /// Where it is told that this member has left: its machine says so, or the next process, should this one die.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told_exit: Option<Target>,
    /// The room ends so long after it was made, in milliseconds; what the first one says counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lasts_ms: Option<u64>,
}

/// What a call wants of a room.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "room", rename_all = "snake_case")]
pub enum RoomWish {
    /// Comes back as [`RoomNews::Entered`] or [`RoomNews::Full`], once.
    Enter { entry: Box<RoomEntry> },
    /// It is out of the room from now on, whether it was in or not.
    Leave {
        /// For those who stay.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        sounds: Vec<SoundItem>,
        /// Callbacks to be sent where others stay in, and those where it was the last.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        others_stay: Vec<Notice>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        was_last: Vec<Notice>,
        /// What says, where it was the last, that the room is over: sent to each of [`RoomEntry::told_end`] of those who were in,
        /// with how long it was there ([`lasted`](super::lasted)), which only the room knows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        over: Option<Box<Params>>,
    },
    /// For all members.
    Sound { items: Vec<SoundItem> },
    /// A key of this one's, for the others.
    Key { digit: Digit },
    /// While this call, which is not in yet, is being placed for the multi-party call of this name: who is in hears these,
    /// again and again. Where there is none, nobody does.
    Ring { name: String, items: Vec<SoundItem> },
    /// No longer.
    RingOver,
    /// The whole room is recorded until it is over, unless it is already; comes back as [`RoomNews::Recorded`].
    Record {
        how: Box<RecordOrder>,
        /// Also while only one is in.
        when_alone: bool,
    },
}

/// What a room tells a member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "news", rename_all = "snake_case")]
pub enum RoomNews {
    /// It is in.
    Entered {
        room: Uuid,
        member: MemberId,
        /// Nobody else was.
        first: bool,
        /// It takes part at once; else it waits for [`RoomNews::Begins`].
        begins: bool,
        /// The room starts with it.
        starts: bool,
        /// How long it may still be there, if that is bounded.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        room_left_ms: Option<u64>,
    },
    /// It is not: too many are in.
    Full {
        room: Uuid,
    },
    /// It takes part from now on. `starts`: the room starts now, and this member is the one to say so.
    Begins {
        starts: bool,
    },
    /// It waits again: the last agent has gone.
    Waits,
    /// It has the floor, or has it no longer.
    Floor {
        has: bool,
    },
    /// It is heard to speak, or no longer.
    Speech {
        on: bool,
    },
    /// Something is played to it over an API, or no longer.
    Audio {
        on: bool,
    },
    /// Somebody asked for it over an API.
    Muted {
        on: bool,
    },
    Held {
        on: bool,
    },
    Coaches {
        on: bool,
    },
    /// Over an API: it is to have the room recorded, and to say so there.
    Record {
        how: Box<RecordOrder>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        callback: Option<Target>,
    },
    /// Over an API: about the recording of what this one says.
    Track {
        what: TrackNews,
    },
    /// The room is recorded. `begun`: just now, and as this member wanted it.
    Recorded {
        id: Uuid,
        url: String,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        begun: bool,
    },
    /// The recording that this member had wanted has been ended over an API.
    RecordEnded,
    /// The recording has failed: what was written before is there.
    RecordFailed {
        why: String,
    },
    /// It is to leave.
    Out {
        why: RoomOut,
    },
}

/// What is wanted of the recording of one participant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "track", rename_all = "snake_case")]
pub enum TrackNews {
    Begin {
        how: Box<RecordOrder>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        callback: Option<Target>,
    },
    Stop,
    /// What is said is left out, or no longer.
    Pause {
        on: bool,
    },
}

/// Why a member is to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoomOut {
    /// Asked for over an API.
    Kicked,
    /// One has left without whom the room ends.
    Ended,
    /// The room was ended over an API.
    Stopped,
    /// The room has lasted as long as it may.
    TimeUp,
    /// Nobody else is in.
    Alone,
}

impl RoomOut {
    /// The word for the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kicked => "kicked",
            Self::Ended => "ended",
            Self::Stopped => "stopped",
            Self::TimeUp => "time up",
            Self::Alone => "alone",
        }
    }
}

/// Adds to what says that a multi-party call is over how long it was there: in seconds, rounded up, as a call's own.
pub fn lasted(over: &mut Params, time: std::time::Duration) {
    let secs = time.as_millis().div_ceil(1_000).to_string();
    for name in ["MPCDuration", "MPCBilledDuration"] {
        over.insert(name.into(), Param::Plain(secs.clone().into()));
    }
}
