//! Commands to rooms, and their events.
//!
//! A room is a conference or a multi-party call, in which several calls hear each other. Rooms
//! belong to no call. Decisions that affect all members, such as the end of the room, are reported
//! to the machine of each of them.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::callback::CallbackRequest;
use super::param::{Param, Params};
use super::recording::RecordingOrder;
use super::sound::SoundItem;
use model::Digit;
use xml::ast::Target;

/// Identifies a member of a room. It is unique in the node; the first one is 1.
pub type MemberId = u64;

/// The element that a room belongs to. A conference and a multi-party call of the same name are
/// different rooms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoomKind {
    Conference,
    MultiParty,
}

/// The role of a participant in a multi-party call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Agent,
    Supervisor,
    Customer,
    AiAgent,
}

impl Role {
    /// Returns the attribute `role`, in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Supervisor => "supervisor",
            Self::Customer => "customer",
            Self::AiAgent => "ai-agent",
        }
    }

    /// Returns the role with this [`as_str`](Self::as_str), in any letter case, or `None` if there
    /// is none.
    pub fn parse(word: &str) -> Option<Self> {
        let all = [Self::Agent, Self::Supervisor, Self::Customer, Self::AiAgent];
        all.into_iter().find(|role| role.as_str().eq_ignore_ascii_case(word))
    }
}

/// The data about a participant of a multi-party call that callbacks contain.
#[derive(Clone, Copy, Debug)]
pub struct ParticipantInfo<'a> {
    pub room: Uuid,
    /// The name of the multi-party call.
    pub name: &'a str,
    pub member: MemberId,
    pub role: Role,
    pub coaching: bool,
}

/// The settings with which a call enters a room.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoomEntry {
    pub kind: RoomKind,
    pub name: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub muted: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
    /// Whether the entry of this member starts the room, if it has not started.
    #[serde(rename = "starts")]
    pub start_on_enter: bool,
    /// Whether the room does not start while this member is alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub needs_company: bool,
    /// Whether the room ends when this member leaves.
    #[serde(default, skip_serializing_if = "std::ops::Not::not", rename = "ends")]
    pub end_on_exit: bool,
    /// Whether the member stays after all others have left.
    #[serde(rename = "stays_alone")]
    pub stay_alone: bool,
    /// Maximum number of members. The member does not enter a room that has reached it.
    #[serde(rename = "members_max")]
    pub max_members: u8,
    /// Whether the member waits until an agent is in the room.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub waits_for_agent: bool,
    /// Whether to report [`RoomEvent::Floor`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not", rename = "tells_floor")]
    pub report_floor: bool,
    /// Whether to report [`RoomEvent::Speech`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not", rename = "tells_speech")]
    pub report_speech: bool,
    /// Whether to report [`RoomEvent::Audio`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not", rename = "tells_audio")]
    pub report_audio: bool,
    /// The role of the member. `None` in a conference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Whether only agents hear the member.
    #[serde(default, skip_serializing_if = "std::ops::Not::not", rename = "coaches")]
    pub coaching: bool,
    /// Whether the recording of the room contains the audio of coaches for agents.
    #[serde(default, skip_serializing_if = "std::ops::Not::not", rename = "records_coaches")]
    pub record_coach: bool,
    /// Whether the member is recorded separately from the beginning.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub track: bool,
    /// The URL to which the end of the room is reported, even if another member leaves last.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "told_end")]
    pub end_callback: Option<Target>,
    /// The URL to which the exit of this member is reported. The machine of the member sends the
    /// callback. If its process dies, the next one sends it.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "told_exit")]
    pub exit_callback: Option<Target>,
    /// Maximum duration of the room in milliseconds. Only the value of its first member is used.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "lasts_ms")]
    pub max_duration_ms: Option<u64>,
}

/// An instruction to a room.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "room", rename_all = "snake_case")]
pub enum RoomCommand {
    /// Enters the room. [`RoomEvent::Entered`], [`RoomEvent::Full`] or [`RoomEvent::Elsewhere`] is
    /// reported once.
    Enter { entry: Box<RoomEntry> },
    /// Leaves the room, even if the call has not entered it yet.
    Leave {
        /// The sounds that are played to the remaining members.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        sounds: Vec<SoundItem>,
        /// The callbacks that are sent if other members remain.
        #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "others_stay")]
        if_others_stay: Vec<CallbackRequest>,
        /// The callbacks that are sent if this was the last member.
        #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "was_last")]
        if_last: Vec<CallbackRequest>,
        /// The parameters that report the end of the room, if this was the last member. They are
        /// sent to the [`RoomEntry::end_callback`] of every member that the room has had. The room
        /// adds its duration with [`set_mpc_duration`](super::set_mpc_duration).
        #[serde(default, skip_serializing_if = "Option::is_none", rename = "over")]
        end_params: Option<Box<Params>>,
    },
    /// Plays sounds to all members.
    Sound { items: Vec<SoundItem> },
    /// Sends a digit of this member to the others.
    #[serde(rename = "key")]
    Digit { digit: Digit },
    /// Plays sounds in a loop to the members of the multi-party call of this name while this call
    /// is being placed for it. Does nothing if no such multi-party call exists.
    Ring { name: String, items: Vec<SoundItem> },
    /// Stops the sounds of [`RoomCommand::Ring`].
    #[serde(rename = "ring_over")]
    StopRing,
    /// Records the room until it ends, unless it is being recorded. [`RoomEvent::Recording`] is
    /// reported.
    Record {
        #[serde(rename = "how")]
        order: Box<RecordingOrder>,
        /// Whether the room is recorded even while it has only one member.
        when_alone: bool,
    },
    /// The separate recording of this participant has ended by itself. Another one may begin.
    TrackEnded,
}

/// A report of a room to a member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "news", rename_all = "snake_case")]
pub enum RoomEvent {
    /// The call has entered the room.
    Entered {
        room: Uuid,
        member: MemberId,
        /// Whether the room had no other member.
        first: bool,
        /// Whether the member takes part now. Otherwise it waits for [`RoomEvent::Active`].
        #[serde(rename = "begins")]
        active: bool,
        /// Whether the room starts now, which this member reports.
        #[serde(rename = "starts")]
        starts_room: bool,
        /// The remaining time of the room in milliseconds. `None` if it is unlimited.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        room_left_ms: Option<u64>,
    },
    /// The room is full. The call has not entered it.
    Full { room: Uuid },
    /// The room is hosted by another node, which can't be reached. The call has not entered it.
    Elsewhere,
    /// The node that hosted the room has died, or the connection to it has broken. The room has
    /// ended for this member.
    Lost,
    /// The member takes part now.
    #[serde(rename = "begins")]
    Active {
        /// Whether the room starts now, which this member reports.
        #[serde(rename = "starts")]
        starts_room: bool,
    },
    /// The member waits again, because the last agent has left.
    #[serde(rename = "waits")]
    Waiting,
    /// The member has the floor, or has lost it.
    Floor { has: bool },
    /// The member speaks, or has stopped.
    Speech { on: bool },
    /// The REST API has started or stopped playing audio to the member.
    Audio { on: bool },
    /// The REST API has muted or unmuted the member.
    Muted { on: bool },
    /// The REST API has put the member on hold or taken it off hold.
    Held { on: bool },
    /// The REST API has turned the member's coaching on or off.
    #[serde(rename = "coaches")]
    Coaching { on: bool },
    /// The REST API has requested a recording of the room, which this member must order.
    Record {
        #[serde(rename = "how")]
        order: Box<RecordingOrder>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        callback: Option<Target>,
    },
    /// The REST API has sent a command to the recording of this member.
    Track {
        #[serde(rename = "what")]
        command: TrackCommand,
    },
    /// The room is being recorded.
    #[serde(rename = "recorded")]
    Recording {
        id: Uuid,
        url: String,
        /// Whether the recording has begun now, ordered by this member.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        begun: bool,
    },
    /// The REST API has ended the recording that was ordered by this member.
    #[serde(rename = "record_ended")]
    RecordingEnded,
    /// The recording of the room has failed. The file contains the audio up to this time.
    #[serde(rename = "record_failed")]
    RecordingFailed {
        #[serde(rename = "why")]
        reason: String,
    },
    /// The member must leave the room.
    #[serde(rename = "out")]
    MustLeave {
        #[serde(rename = "why")]
        reason: LeaveReason,
    },
}

/// A command to the recording of one participant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "track", rename_all = "snake_case")]
pub enum TrackCommand {
    Begin {
        #[serde(rename = "how")]
        order: Box<RecordingOrder>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        callback: Option<Target>,
    },
    Stop,
    /// Pauses or resumes the recording.
    Pause {
        on: bool,
    },
}

/// The reason why a member must leave a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaveReason {
    /// The REST API has removed the member.
    Kicked,
    /// A member with `end_on_exit` has left, which ends the room.
    Ended,
    /// The REST API has ended the room.
    Stopped,
    /// The room has reached its maximum duration.
    TimeUp,
    /// All other members have left.
    Alone,
}

impl LeaveReason {
    /// Returns the word for the log.
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

/// Adds the duration of a multi-party call to the parameters that report its end: in seconds,
/// rounded up.
pub fn set_mpc_duration(end_params: &mut Params, duration: Duration) {
    let secs = duration.as_millis().div_ceil(1_000).to_string();
    for name in ["MPCDuration", "MPCBilledDuration"] {
        end_params.insert(name.into(), Param::Plain(secs.clone().into()));
    }
}
