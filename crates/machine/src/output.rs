//! Wishes of a call's machine, which `call::shell` carries out.

use serde::{Deserialize, Serialize};

use super::CallTime;
use super::dial::{DialOrder, LegNews, LegWish};
use super::param::Params;
use super::recognition::{RecognitionId, SpeechOrder};
use super::recording::{RecordEnd, RecordId, RecordOrder};
use super::room::RoomWish;
use super::stream::StreamWish;
use model::{CallUuid, Digit, Direction, HangupCause, Leg, Method, StreamId};
use xml::ast::{Beep, DocUrl, Finding, Repeat, Speech, Voice};

/// A wish. None asks for an answer by return: what comes of it is a later [`super::Input`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "wish", rename_all = "snake_case")]
pub enum Output {
    /// Send this to Graph. Comes back as `Input::Graph` with the same action, once.
    Graph { action: GraphAction },
    /// Ask a customer's URL. Comes back as `Input::Fetched` with the same id, once, unless cancelled.
    Fetch {
        fetch: FetchId,
        kind: FetchKind,
        url: DocUrl,
        method: Method,
        params: Params,
        /// Milliseconds it may take in all.
        deadline_ms: u64,
    },
    /// A running fetch is not wanted any more; no answer comes.
    CancelFetch { fetch: FetchId },
    /// Have these sounds ready: they will be played soon.
    Prepare { sounds: Vec<Sound> },
    /// Tell a leg's media what to do.
    Media { leg: Leg, order: MediaOrder },
    /// Tell a recogniser of speech what to do. What it hears comes back as `Input::Speech`.
    Speech { recognition: RecognitionId, order: SpeechOrder },
    /// Begin this leg, or say by `Input::Dialled` why not.
    Dial { order: Box<DialOrder> },
    /// Tell a leg that this call dialled; with `LegWish::Join` the two hear each other from now on.
    Order { call: CallUuid, leg: LegWish },
    /// Tell the leg that dialled this one.
    News { news: LegNews },
    /// Something of the room that the call is in, or enters.
    Room { room: RoomWish },
    /// Open a stream, let its sound flow, or close it. What becomes of it is `Input::Stream`.
    Stream {
        stream: StreamId,
        #[serde(rename = "order")]
        wish: StreamWish,
    },
    /// Send a callback that nothing waits for.
    Notify { notice: Notice },
    /// An instruction began or ended: for the log, the metrics and whoever watches.
    Instruction { element: String, line: u32, outcome: InstructionOutcome, note: String },
    /// The call's state changed.
    State { state: CallState },
    /// One plain line for the log and the call's record: what happened and what to do about it.
    Remark { text: String },
    /// A document that came in has these findings.
    Findings { findings: Vec<Finding> },
    /// The call is terminal: write its record and put its hangup notice into the outbox, in one transaction.
    /// Exactly once.
    Concluded { summary: Box<Summary> },
    /// Give the slot back now: the call has ended, and whether Meta holds anything of it is not known.
    FreeSlot,
    /// The machine is over: give the slot back, if it is still held. The last output, exactly once, after `Concluded`.
    Over,
}

/// What became of an instruction; `started` is not a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstructionOutcome {
    Started,
    Done,
    Skipped,
    Failed,
    /// Ended by a hang-up, a barge-in of control or a transfer.
    Cut,
}

/// States of `meta-calling.md` §7, in the order in which a call comes by them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallState {
    /// Graph's `connect` is under way.
    Dialing,
    /// Meta has the call; the user's phone does not ring yet.
    Proceeding,
    /// The user's phone rings.
    Ringing,
    Preparing,
    Accepting,
    Live,
    Closing,
    Over,
}

impl CallState {
    /// The word in the event log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dialing => "dialing",
            Self::Proceeding => "proceeding",
            Self::Ringing => "ringing",
            Self::Preparing => "preparing",
            Self::Accepting => "accepting",
            Self::Live => "live",
            Self::Closing => "closing",
            Self::Over => "over",
        }
    }
}

/// Actions of `POST /{phone_number_id}/calls`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GraphAction {
    Connect,
    PreAccept,
    Accept,
    Reject,
    Terminate,
}

impl GraphAction {
    /// The word on the wire and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::PreAccept => "pre_accept",
            Self::Accept => "accept",
            Self::Reject => "reject",
            Self::Terminate => "terminate",
        }
    }
}

/// Names one fetch of a call, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FetchId(pub u32);

/// Names one play order (or digits order) of a call, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PlayId(pub u32);

/// What a fetch is for: `kind` of `offhook_answer_fetch_seconds`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FetchKind {
    Answer,
    Fallback,
    /// An action whose document runs next.
    Action,
    Redirect,
    Transfer,
    /// A document of sounds: `confirmSound`, `dialMusic`.
    Sound,
}

impl FetchKind {
    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answer => "answer",
            Self::Fallback => "fallback",
            Self::Action => "action",
            Self::Redirect => "redirect",
            Self::Transfer => "transfer",
            Self::Sound => "sound",
        }
    }
}

/// The parameter of an event's notice that is its JSON.
pub const EVENT_BODY: &str = "body";
/// And the one that is its type.
pub const EVENT_TYPE: &str = "event";
/// `EventName` of what says that a multi-party call is over: who was in has left by then.
pub const MPC_END: &str = "MPCEnd";

/// Something to be heard. Also the key of the prompt cache.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "sound", rename_all = "snake_case")]
pub enum Sound {
    Speak {
        speech: Speech,
        voice: Voice,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        language: Option<String>,
    },
    File {
        url: DocUrl,
    },
    Silence {
        ms: u32,
    },
    Tone {
        hz: u16,
        ms: u16,
    },
}

/// One entry of a playlist.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SoundItem {
    pub sound: Sound,
    pub repeat: Repeat,
}

impl SoundItem {
    /// A sound that is heard once.
    pub fn once(sound: Sound) -> Self {
        Self { sound, repeat: Repeat::Times(1) }
    }
}

/// What REST plays beside the document (`plivo-call-api.md` §2.10, §2.11): each kind has one at a time on a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AsideKind {
    Play,
    Speak,
}

/// Sounds beside those of the document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Aside {
    pub kind: AsideKind,
    /// One after another without a gap.
    pub items: Vec<SoundItem>,
    /// All of them again and again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
    /// Over what is heard; else instead of that, which goes on unheard.
    pub mix: bool,
    /// At most so long, from the first sound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length_ms: Option<u64>,
}

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

/// A callback that nothing waits for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    pub kind: NoticeKind,
    pub url: DocUrl,
    pub method: Method,
    pub params: Params,
}

/// `kind` of `offhook_callback_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeKind {
    Hangup,
    Ring,
    /// An action with `redirect="false"`.
    Action,
    Dial,
    /// What a caller's speech sounds like so far: stale the moment that the action is asked for.
    Interim,
    Conference,
    #[serde(rename = "mpc")]
    MultiParty,
    Stream,
    /// `callbackUrl` of a recording.
    Recording,
    /// `transcriptionUrl` of a recording.
    Transcription,
    /// A message or its status, to its number's webhook URL.
    Message,
    /// Anything, as JSON, to a webhook.
    Event,
}

impl NoticeKind {
    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hangup => "hangup",
            Self::Ring => "ring",
            Self::Action => "action",
            Self::Dial => "dial",
            Self::Interim => "interim",
            Self::Conference => "conference",
            Self::MultiParty => "mpc",
            Self::Stream => "stream",
            Self::Recording => "recording",
            Self::Transcription => "transcription",
            Self::Message => "message",
            Self::Event => "event",
        }
    }
}

/// A call's end: what its record and its hangup callback say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub cause: HangupCause,
    pub direction: Direction,
    /// When it was answered, if ever.
    pub answered: Option<CallTime>,
    pub ended: CallTime,
    /// Seconds from the start, rounded up.
    pub duration_secs: u64,
    /// Seconds from the answer, rounded up; 0 if never answered.
    pub bill_secs: u64,
    /// What Meta's terminate webhook said about the duration, if it came first.
    pub meta_duration_secs: Option<u64>,
    /// The conference that it was in last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conference: Option<uuid::Uuid>,
    /// The callback to the hangup URL.
    pub hangup: Notice,
}
