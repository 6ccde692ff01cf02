//! Parameters of the requests that a call makes to the customer's server
//! (docs/reference/callbacks.md#common-parameters).
//!
//! Choosing the URL, signing and sending happen elsewhere.

use std::borrow::Cow;

use uuid::Uuid;

use super::context::CallContext;
use crate::contract::{CallTime, Param, Params};
use model::{CallUuid, Direction, HangupCause};

/// The parameter `Event`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The answer and fallback URLs.
    StartApp,
    /// Action, redirect and transfer URLs.
    Redirect,
    /// The ring URL.
    Ring,
    /// The hangup URL.
    Hangup,
    /// `callbackUrl` of `Dial`.
    DialAnswer,
    DialConnected,
    DialDigitsMatch,
    DialHangup,
    /// `confirmSound` and `dialMusic` of `Dial`.
    DialConfirm,
    DialMusic,
    /// `interimSpeechResultsCallback` of `GetInput`.
    InterimSpeech,
    /// `callbackUrl` of `Conference`.
    ConferenceEnter,
    ConferenceExit,
    ConferenceDigitsMatch,
    ConferenceFloor,
    ConferenceRecord,
    /// `waitSound`, `enterSound` and `exitSound` of `Conference`.
    ConferenceWait,
    ConferenceEnterSound,
    ConferenceExitSound,
    /// `statusCallbackUrl` of `MultiPartyCall`. `EventName` names the event.
    MultiPartyCall,
    /// The music and sounds of `MultiPartyCall`.
    MpcWait,
    MpcHold,
    MpcEnterSound,
    MpcExitSound,
    MpcRecordSound,
    /// `statusCallbackUrl` of `Stream`.
    StartStream,
    StopStream,
    DroppedStream,
    DegradedStream,
    PlayedStream,
    ClearedAudio,
    /// `callbackUrl` of `Record`.
    RecordStop,
}

impl Event {
    /// Returns the value of the parameter.
    fn as_str(self) -> &'static str {
        match self {
            Self::Redirect => "Redirect",
            Self::Ring => "Ring",
            Self::DialAnswer => "DialAnswer",
            Self::DialConnected => "DialConnected",
            Self::DialDigitsMatch => "DialDigitsMatch",
            Self::DialHangup => "DialHangup",
            Self::DialConfirm => "DialConfirm",
            Self::DialMusic => "DialMusic",
            Self::InterimSpeech => "InterimSpeech",
            Self::ConferenceEnter => "ConferenceEnter",
            Self::ConferenceExit => "ConferenceExit",
            Self::ConferenceDigitsMatch => "ConferenceDigitsMatch",
            Self::ConferenceFloor => "ConferenceFloor",
            Self::ConferenceRecord => "ConferenceRecord",
            Self::ConferenceWait => "ConferenceWait",
            Self::ConferenceEnterSound => "ConferenceEnterSound",
            Self::ConferenceExitSound => "ConferenceExitSound",
            Self::MultiPartyCall => "MultiPartyCall",
            Self::MpcWait => "MPCWait",
            Self::MpcHold => "MPCHold",
            Self::MpcEnterSound => "MPCEnterSound",
            Self::MpcExitSound => "MPCExitSound",
            Self::MpcRecordSound => "MPCRecordSound",
            Self::StartStream => "StartStream",
            Self::StopStream => "StopStream",
            Self::DroppedStream => "DroppedStream",
            Self::DegradedStream => "DegradedStream",
            Self::PlayedStream => "PlayedStream",
            Self::ClearedAudio => "ClearedAudio",
            Self::RecordStop => "RecordStop",
            Self::StartApp => "StartApp",
            Self::Hangup => "Hangup",
        }
    }
}

/// The end of a call, as its parameters report it.
pub(super) struct Ending {
    pub(super) cause: HangupCause,
    pub(super) at: CallTime,
    pub(super) duration_secs: u64,
    pub(super) bill_secs: u64,
}

/// The cost of a call. Offhook does not bill, but Plivo sends this parameter.
const NO_COST: &str = "0.00000";

/// Returns the parameters of every request. After the answer they include those of answered calls.
pub(super) fn common(ctx: &CallContext, event: Event) -> Params {
    request_params(ctx, event, None)
}

/// Formats the id like `Display`, without the cost of a formatter.
fn hyphenated(call: CallUuid) -> String {
    call.0.as_hyphenated().encode_lower(&mut Uuid::encode_buffer()).to_owned()
}

/// Returns the parameters of the hangup request.
pub(super) fn hangup(ctx: &CallContext, ending: &Ending) -> Params {
    request_params(ctx, Event::Hangup, Some(ending))
}

/// `CallStatus` of a call that was answered and has ended.
pub(super) const COMPLETED: &str = "completed";

/// Returns the `CallStatus` of a call that ended with `cause`
/// (docs/reference/callbacks.md#callstatus).
pub(super) fn final_status(ctx: &CallContext, cause: HangupCause) -> &'static str {
    match (ctx.setup.direction, ctx.answered) {
        (Direction::Outbound, None) => cause.wire(Direction::Outbound).unanswered_status(),
        (Direction::Outbound, Some(_)) | (Direction::Inbound, _) => COMPLETED,
    }
}

/// Returns the parameters of a request. They are inserted in sorted order, which is the fastest for
/// [`Params`].
fn request_params(ctx: &CallContext, event: Event, ending: Option<&Ending>) -> Params {
    let setup = &ctx.setup;
    let mut params = Params::with_capacity(32);
    let mut put = |name: &'static str, value: Cow<'static, str>| {
        params.insert(name.into(), Param::Plain(value));
    };
    let call = hyphenated(setup.call);
    let b_leg = setup.b_leg();
    // The id of the request is the id of the call (docs/reference/rest.md#make-a-call).
    let ordered = b_leg.is_none() && setup.direction == Direction::Outbound;
    if let Some(b_leg) = &b_leg {
        if let Some(request) = b_leg.a_request {
            put("ALegRequestUUID", hyphenated(request).into());
        }
        put("ALegUUID", hyphenated(b_leg.a_leg).into());
    } else if ordered {
        put("ALegRequestUUID", call.clone().into());
        put("ALegUUID", call.clone().into());
    }
    if setup.account != setup.parent_account {
        put("AccountID", setup.account.as_str().to_owned().into());
    }
    match (ctx.answered, ending) {
        (Some(answered), _) => put("AnswerTime", ctx.wall_clock(answered).plivo_secs().into()),
        (None, Some(_)) => put("AnswerTime", "".into()),
        (None, None) => {}
    }
    if let Some(ending) = ending {
        put("BillDuration", ending.bill_secs.to_string().into());
    }
    put("BillRate", NO_COST.into());
    let wire = ending.map(|ending| ending.cause.wire(setup.direction));
    let status = match (ending, ctx.answered) {
        (None, Some(_)) => "in-progress",
        (None, None) => "ringing",
        (Some(ending), _) => final_status(ctx, ending.cause),
    };
    put("CallStatus", status.into());
    put("CallType", setup.call_type.as_str().into());
    if ordered {
        put("CallUUID", call.clone().into());
        put("RequestUUID", call.into());
    } else {
        put("CallUUID", call.into());
    }
    put("CallerName", setup.caller_name.clone().into());
    put("Direction", setup.direction.as_str().into());
    if let Some(ending) = ending {
        put("Duration", ending.duration_secs.to_string().into());
        put("EndTime", ctx.wall_clock(ending.at).plivo_secs().into());
    }
    put("Event", event.as_str().into());
    put("From", setup.from.clone().into());
    if let Some(wire) = wire {
        put("HangupCause", wire.word.into());
        put("HangupCauseCode", wire.code.to_string().into());
        put("HangupCauseName", wire.name.into());
        put("HangupSource", wire.source.as_str().into());
    }
    put("ParentAuthID", setup.parent_account.as_str().to_owned().into());
    if matches!(event, Event::StartApp | Event::Hangup) {
        put("STIRVerification", "Not Applicable".into());
    }
    put("SessionStart", setup.started.plivo_micros().into());
    if ctx.document_received || ending.is_some() {
        put("StartTime", setup.started.plivo_secs().into());
    }
    put("To", setup.to.clone().into());
    if ending.is_some() {
        put("TotalCost", NO_COST.into());
    }
    if let Some(wacid) = &setup.wacid {
        put("WhatsAppCallID", wacid.as_str().to_owned().into());
    }
    if let Some(payload) = &setup.cta_payload {
        put("WhatsAppCtaPayload", payload.clone().into());
    }
    if let Some(payload) = &setup.deeplink_payload {
        put("WhatsAppDeeplinkPayload", payload.clone().into());
    }
    for (name, value) in &setup.headers {
        params.insert(format!("X-PH-{name}").into(), Param::Plain(value.clone().into()));
    }
    params
}

/// Returns the additional parameters of a `GetInput` action after digits
/// (docs/reference/callbacks.md#getinput-action).
pub(super) fn get_input_digits(digits: Param) -> Params {
    get_input_params("dtmf", digits, word(""), word(""))
}

/// Returns the additional parameters of a `GetInput` action after speech. `confidence` is in per
/// cent.
pub(super) fn get_input_speech(text: Param, confidence: u8) -> Params {
    get_input_params("speech", word(""), text, plain(share(confidence)))
}

fn get_input_params(kind: &'static str, digits: Param, speech: Param, confidence: Param) -> Params {
    Params::from([
        ("BilledAmount".into(), word(NO_COST)),
        ("Digits".into(), digits),
        ("InputType".into(), word(kind)),
        ("Speech".into(), speech),
        ("SpeechConfidenceScore".into(), confidence),
    ])
}

/// Returns the parameters of an interim result. `stability` is in per cent, `sequence` counts from
/// 1.
pub(super) fn interim(stable: Param, unstable: Param, stability: u8, sequence: u32) -> Params {
    Params::from([
        ("SequenceNumber".into(), plain(sequence.to_string())),
        ("Stability".into(), plain(share(stability))),
        ("StableSpeech".into(), stable),
        ("UnstableSpeech".into(), unstable),
    ])
}

fn plain(text: String) -> Param {
    Param::Plain(text.into())
}

fn word(text: &'static str) -> Param {
    Param::Plain(text.into())
}

/// Formats a percentage as `0.00` to `1.00`.
fn share(percent: u8) -> String {
    let percent = percent.min(100);
    format!("{}.{:02}", percent / 100, percent % 100)
}

/// Returns the additional parameters of a `GetDigits` action
/// (docs/reference/callbacks.md#getdigits-action).
pub(super) fn get_digits_digits(digits: Param) -> Params {
    Params::from([("Digits".into(), digits)])
}
