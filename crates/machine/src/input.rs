//! Facts that a call's machine is told.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::added::RoomMusic;
use super::dial::{Confirm, DialledBy, LegNews, LegWish};
use super::output::{Aside, AsideKind, FetchId, GraphAction, PlayId};
use super::recognition::{RecognitionId, SpeechFact};
use super::recording::{RecordFact, RecordId, RecordOrder};
use super::room::RoomNews;
use super::stream::{StreamFact, StreamOrder};
use model::{
    AuthId, CallType, CallUuid, Digit, Direction, HangupCause, Leg, Method, PhoneNumberId,
    StreamId, Timestamp, Wacid,
};
pub use xml::FirstFault;
use xml::ast::{DocUrl, Finding, Target};

/// A fact. The first one a machine is given is [`Input::Offered`] or [`Input::Placed`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "snake_case")]
pub enum Input {
    /// An admitted, user-initiated call: the user's phone rings. Our SDP answer is ready to be sent.
    Offered { setup: Box<CallSetup> },
    /// A business-initiated call that may start: our SDP offer is ready to be sent.
    Placed { setup: Box<CallSetup> },
    /// Meta's id of the call that was placed: from Graph's answer, or from a webhook that came before it and names our
    /// call (`meta-calling.md` §7.3). Comes before every other fact of Meta's about the call; once.
    Bound { wacid: Wacid },
    /// Meta's SDP answer to our offer came by webhook; unusable ones are told too.
    SdpAnswer { usable: bool },
    /// How far the user's phone is, by webhook. In any order.
    Status { status: PhoneStatus },
    /// The Graph request wished for by [`super::Output::Graph`] came to its end, retries included.
    Graph { action: GraphAction, outcome: GraphOutcome },
    /// The fetch wished for by [`super::Output::Fetch`] came to its end.
    Fetched { fetch: FetchId, result: Result<Fetched, FetchFailure> },
    /// Something about a leg's media path.
    Media { leg: Leg, what: MediaFact },
    /// The first packet of a play went out.
    PlayStarted { leg: Leg, play: PlayId },
    /// A playlist has been played to its end (not: was stopped).
    Played { leg: Leg, play: PlayId },
    /// One item of a playlist could not be had and was skipped (`plivo-xml.md` §4 rule 10).
    PlayFailed { leg: Leg, play: PlayId, item: u16, reason: String },
    /// A key counts: at its end packet (`meta-calling.md` §5.4).
    Digit { leg: Leg, digit: Digit },
    /// The peer's voice, told while [`super::MediaOrder::Listen`] or [`super::MediaOrder::Beep`] has somebody listen.
    Voice { leg: Leg, what: Voice },
    /// What the caller says, told while [`super::Output::Speech`] has somebody recognise it.
    Speech { recognition: RecognitionId, what: SpeechFact },
    /// A recording of the A-leg has a name, or has come to its end.
    Recorded { record: RecordId, what: RecordFact },
    /// Digits ordered by [`super::MediaOrder::SendDigits`] have gone out.
    DigitsSent { leg: Leg, play: PlayId },
    /// Meta's terminate webhook.
    Terminated { termination: Termination },
    /// A leg that this call dialled tells something; `call` is that leg's.
    Dialled { call: CallUuid, news: LegNews },
    /// The leg that dialled this one wants something of it.
    Ordered { leg: LegWish },
    /// The room that the call is in tells something.
    Room { news: RoomNews },
    /// Something about a stream that [`super::Output::Stream`] had opened.
    Stream { stream: StreamId, what: StreamFact },
    /// Somebody asked over an API.
    Command { command: Command },
    /// The node ends the call: drained, or a fault of ours.
    Cut { cause: HangupCause },
    /// The moment `Machine::poll_timeout` named has come. Coming early is harmless.
    Timer,
}

/// What is fixed when a call begins. Its `Debug` names the call and nobody's number (R22).
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct CallSetup {
    pub call: CallUuid,
    pub direction: Direction,
    pub call_type: CallType,
    /// Meta's id; none on a web leg.
    pub wacid: Option<Wacid>,
    pub phone_number_id: PhoneNumberId,
    /// `From` as callbacks give it: digits, a BSUID, or `anonymous` (`meta-calling.md` §1.2).
    pub from: String,
    /// `To` as callbacks give it.
    pub to: String,
    /// The user's WhatsApp profile name; empty where Meta sent none.
    pub caller_name: String,
    pub cta_payload: Option<String>,
    pub deeplink_payload: Option<String>,
    /// The account that owns the call (a subaccount, maybe) and its main account.
    pub account: AuthId,
    pub parent_account: AuthId,
    pub urls: CallUrls,
    /// Wall-clock time of the first input; every printed time is this plus [`super::CallTime`].
    pub started: Timestamp,
    pub limits: MachineLimits,
    /// `X-PH-*` parameters of outbound calls, without the prefix.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// What an outbound call has besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outbound: Option<Box<Outbound>>,
}

/// What only a business-initiated call begins with (`plivo-call-api.md` §2.1). Its request's UUID is the call's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outbound {
    pub ring: Option<(DocUrl, Method)>,
    /// `ring_timeout`, cut to T_ring (L26).
    pub ring_timeout_ms: u64,
    /// `hangup_on_ring`, from RINGING on.
    pub hangup_on_ring_ms: Option<u64>,
    /// Keys sent once the call is answered: `0-9 * #`, `w` and `W` wait.
    pub send_digits: Option<String>,
    /// `parent_call_uuid`: stored, and nothing more. On a B-leg the A-leg.
    pub parent_call: Option<CallUuid>,
    /// Of a B-leg.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dialled: Option<Box<DialledBy>>,
    /// What it runs once answered, in place of the answer URL's document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<Arc<xml::Document>>,
    /// Before that, somebody has to confirm that they are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm: Option<Confirm>,
    /// The multi-party call that it enters, if there was one when it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<uuid::Uuid>,
    /// What those in the multi-party call that it enters hear until it is answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room_music: Option<RoomMusic>,
    /// The multi-party call that it enters does not start with it alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub needs_company: bool,
}

/// Statuses of a business-initiated call (`meta-calling.md` §3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PhoneStatus {
    Ringing,
    Accepted,
    Rejected,
}

impl PhoneStatus {
    /// The word in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ringing => "ringing",
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
        }
    }
}

impl CallSetup {
    /// Who dialled it, if it is a B-leg.
    pub fn dialled(&self) -> Option<&DialledBy> {
        self.outbound.as_ref()?.dialled.as_deref()
    }
}

impl std::fmt::Debug for CallSetup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CallSetup")
            .field("call", &self.call)
            .field("direction", &self.direction)
            .finish_non_exhaustive()
    }
}

/// The number's URLs, as they stood when the call began (S0.25: a call keeps what it began with).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallUrls {
    pub answer: DocUrl,
    pub answer_method: Method,
    pub fallback: Option<(DocUrl, Method)>,
    /// Already the answer URL where none was set (`interface.md` §2).
    pub hangup: (DocUrl, Method),
}

/// Times that bound a call, in milliseconds (`meta-calling.md` §7), and whom it may dial; the defaults are the spec's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MachineLimits {
    /// `[media].accept_wait_ms`.
    pub accept_wait_ms: u64,
    /// T_accept: our own deadline to have `accept` sent.
    pub accept_deadline_ms: u64,
    /// T_media: ICE and DTLS up, from `accept`'s 200.
    pub media_setup_ms: u64,
    /// Wait for `accept`'s outcome after a terminate webhook overtook it.
    pub accept_outcome_ms: u64,
    /// `closing` after terminate's 200, if no webhook comes.
    pub close_ms: u64,
    /// T_reap: `closing` ends whatever happens.
    pub reap_ms: u64,
    /// `[limits].max_call_seconds`, from the answer.
    pub max_call_ms: u64,
    /// `[answer].timeout_ms`: one document.
    pub fetch_ms: u64,
    /// Answer and fallback together on an inbound call.
    pub answer_budget_ms: u64,
    /// `[limits].allow_wa_bridge`: a WhatsApp leg may dial a WhatsApp user.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_wa_bridge: bool,
    /// The host of this platform's SIP addresses: that of `[public].base_url`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sip_host: String,
    /// Somebody on this node writes down what is said in recordings.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub transcribes: bool,
}

impl Default for MachineLimits {
    fn default() -> Self {
        Self {
            accept_wait_ms: 3_000,
            accept_deadline_ms: 20_000,
            media_setup_ms: 15_000,
            accept_outcome_ms: 2_000,
            close_ms: 5_000,
            reap_ms: 90_000,
            max_call_ms: 14_400_000,
            fetch_ms: 10_000,
            answer_budget_ms: 20_000,
            allow_wa_bridge: false,
            sip_host: String::new(),
            transcribes: false,
        }
    }
}

/// How a Graph request ended for good.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum GraphOutcome {
    /// Success as `meta-calling.md` 4.1.6 has it.
    Done,
    /// Code 100 with the call unknown or over.
    Gone,
    /// A 4xx or an error object that is not worth another try.
    Refused { status: u16, code: i64, details: String },
    /// 429 or a rate code to the last try.
    RateLimited { code: i64 },
    /// 5xx to the last try.
    ServerError { status: u16 },
    /// No answer in time, to the last try.
    Timeout,
    /// No connection, to the last try.
    Unreachable,
}

impl GraphOutcome {
    /// Whether Graph has decided, so that asking again can change nothing.
    pub fn is_settled(&self) -> bool {
        match self {
            Self::Done | Self::Gone | Self::Refused { .. } => true,
            Self::RateLimited { .. }
            | Self::ServerError { .. }
            | Self::Timeout
            | Self::Unreachable => false,
        }
    }
}

/// A fetched answer. The body of one that expects no document is not kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "body", rename_all = "snake_case")]
pub enum Fetched {
    Document {
        document: Arc<xml::Document>,
    },
    /// The body was refused by the validator: nothing of it runs (`plivo-xml.md` §2).
    Refused {
        refusal: Refusal,
    },
    /// 2xx to a request whose answer is not read (`redirect="false"`).
    Ignored,
}

impl From<xml::ParseOutcome> for Fetched {
    /// What the validator made of a body.
    fn from(parsed: xml::ParseOutcome) -> Self {
        match parsed.document {
            Some(document) => Self::Document { document },
            None => {
                let first = parsed.first_fault.unwrap_or(FirstFault::Other);
                Self::Refused { refusal: Refusal { findings: parsed.findings, first } }
            }
        }
    }
}

/// Why a document was refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// All findings, in document order.
    pub findings: Vec<Finding>,
    /// The first error is E311 on an `action` attribute, on a `Redirect` body, or E312 on a method beside one
    /// (`plivo-xml.md` §2.3).
    pub first: FirstFault,
}

/// Why a fetch failed for good, small enough to log and replay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "failure", rename_all = "snake_case")]
pub enum FetchFailure {
    Timeout,
    /// It is connected, and its side of TLS says nothing in time.
    Handshake,
    /// DNS, connect, TLS or reset.
    Unreachable {
        what: String,
    },
    /// An answer other than 2xx.
    Status {
        status: u16,
    },
    /// The address is not one we go to (R17), or http without `allow_insecure`.
    UrlRefused {
        what: String,
    },
    TooLarge,
    /// Too many redirects, an undecodable body, a broken answer.
    Invalid {
        what: String,
    },
}

impl FetchFailure {
    /// `outcome` of `offhook_answer_fetch_seconds` (`interface.md` §4).
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Timeout | Self::Handshake => "timeout",
            Self::Unreachable { .. } => "unreachable",
            Self::Status { .. } => "status",
            Self::UrlRefused { .. } => "refused",
            Self::TooLarge => "too_large",
            Self::Invalid { .. } => "invalid",
        }
    }
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

/// What Meta's terminate webhook said.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Termination {
    /// `completed`, `failed`, or as it came.
    pub status: Option<String>,
    /// Meta's own times and duration, kept beside ours.
    pub start_time: Option<i64>,
    pub end_time: Option<i64>,
    pub duration_secs: Option<u64>,
    /// First of `errors[]`, of the item or of the value.
    pub error_code: Option<i64>,
}

/// A request over an API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// `DELETE Call/{uuid}/`.
    Hangup,
    /// Another document takes over on these legs; one that is not named is hung up (`plivo-call-api.md` §2.8).
    Transfer {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        aleg: Option<Target>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bleg: Option<Target>,
    },
    /// This document takes over; what is being carried out stops at once.
    Run {
        document: Arc<xml::Document>,
        /// The multi-party call that it takes this one into, if there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        room: Option<uuid::Uuid>,
    },
    /// Sounds beside the document's, in place of those that this kind of request had played (§2.10, §2.11).
    Play { legs: Legs, aside: Aside },
    /// No longer.
    StopPlay { what: AsideKind },
    /// Record the call in the background (§2.9). `callback`: told when the file is there.
    Record {
        order: Box<RecordOrder>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        callback: Option<Target>,
    },
    /// No longer.
    StopRecord,
    /// Keys towards these legs, after those that go out already: `0-9 * #`, `w` 0.5 s, `W` 1 s (§2.12).
    SendDigits { legs: Legs, digits: String },
    /// A stream of this call's sound, under this name (§2.13).
    Stream { stream: StreamId, order: Box<StreamOrder> },
    /// No longer; none named: whichever there is.
    StopStream {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stream: Option<StreamId>,
    },
}

/// Which legs a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Legs {
    A,
    B,
    Both,
}

impl Legs {
    /// Whether the first leg is among them.
    pub fn has_a(self) -> bool {
        self != Self::B
    }
    /// Whether a leg that a `Dial` made is among them.
    pub fn has_b(self) -> bool {
        self != Self::A
    }
}
