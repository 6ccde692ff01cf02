//! Parameters of the requests a call makes to its customer (`plivo-callbacks.md` §1–§3), as pure values.
//!
//! Which URL they go to and how they are signed is the business of `answer`.

use super::desk::Desk;
use super::{CallTime, Param, Params};
use crate::model::{Direction, HangupCause};

/// `Event` of a request.
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
    /// `waitSound`, `enterSound` and `exitSound` of it.
    ConferenceWait,
    ConferenceEnterSound,
    ConferenceExitSound,
    /// `statusCallbackUrl` of `MultiPartyCall`: `EventName` says what happened.
    MultiPartyCall,
    /// Its music and sounds.
    MpcWait,
    MpcHold,
    MpcEnterSound,
    MpcExitSound,
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

/// How a call ended, as far as parameters tell it.
pub(super) struct Ending {
    pub(super) cause: HangupCause,
    pub(super) at: CallTime,
    pub(super) duration_secs: u64,
    pub(super) bill_secs: u64,
}

/// Offhook does not bill; Plivo's names are there all the same.
const NO_COST: &str = "0.00000";

/// The parameters every request carries (§1.1), and those an answered call adds (§1.2).
pub(super) fn common(desk: &Desk, event: Event) -> Params {
    let setup = &desk.setup;
    let mut params = Params::new();
    let mut put = |name: &'static str, value: &str| {
        params.insert(name.into(), Param::Plain(value.to_owned()));
    };
    put("BillRate", NO_COST);
    put("CallStatus", if desk.answered.is_some() { "in-progress" } else { "ringing" });
    put("CallType", setup.call_type.as_str());
    put("CallUUID", &setup.call.to_string());
    put("CallerName", &setup.caller_name);
    put("Direction", setup.direction.as_str());
    put("From", &setup.from);
    put("ParentAuthID", setup.parent_account.as_str());
    put("SessionStart", &setup.started.plivo_micros());
    put("To", &setup.to);
    match event {
        Event::StartApp => {
            put("Event", "StartApp");
            put("STIRVerification", "Not Applicable");
        }
        Event::Redirect => put("Event", "Redirect"),
        Event::Ring => put("Event", "Ring"),
        Event::DialAnswer => put("Event", "DialAnswer"),
        Event::DialConnected => put("Event", "DialConnected"),
        Event::DialDigitsMatch => put("Event", "DialDigitsMatch"),
        Event::DialHangup => put("Event", "DialHangup"),
        Event::DialConfirm => put("Event", "DialConfirm"),
        Event::DialMusic => put("Event", "DialMusic"),
        Event::InterimSpeech => put("Event", "InterimSpeech"),
        Event::ConferenceEnter => put("Event", "ConferenceEnter"),
        Event::ConferenceExit => put("Event", "ConferenceExit"),
        Event::ConferenceDigitsMatch => put("Event", "ConferenceDigitsMatch"),
        Event::ConferenceFloor => put("Event", "ConferenceFloor"),
        Event::ConferenceRecord => put("Event", "ConferenceRecord"),
        Event::ConferenceWait => put("Event", "ConferenceWait"),
        Event::ConferenceEnterSound => put("Event", "ConferenceEnterSound"),
        Event::ConferenceExitSound => put("Event", "ConferenceExitSound"),
        Event::MultiPartyCall => put("Event", "MultiPartyCall"),
        Event::MpcWait => put("Event", "MPCWait"),
        Event::MpcHold => put("Event", "MPCHold"),
        Event::MpcEnterSound => put("Event", "MPCEnterSound"),
        Event::MpcExitSound => put("Event", "MPCExitSound"),
        Event::StartStream => put("Event", "StartStream"),
        Event::StopStream => put("Event", "StopStream"),
        Event::DroppedStream => put("Event", "DroppedStream"),
        Event::DegradedStream => put("Event", "DegradedStream"),
        Event::PlayedStream => put("Event", "PlayedStream"),
        Event::ClearedAudio => put("Event", "ClearedAudio"),
        Event::RecordStop => put("Event", "RecordStop"),
        Event::Hangup => {
            put("Event", "Hangup");
            put("STIRVerification", "Not Applicable");
        }
    }
    if let Some(dialled) = setup.dialled() {
        put("ALegUUID", &dialled.a_leg.to_string());
        if let Some(request) = dialled.a_request {
            put("ALegRequestUUID", &request.to_string());
        }
    } else if setup.direction == Direction::Outbound {
        // The request's UUID is the call's (`plivo-call-api.md` §2.1).
        for name in ["ALegUUID", "ALegRequestUUID", "RequestUUID"] {
            put(name, &setup.call.to_string());
        }
    }
    if let Some(wacid) = &setup.wacid {
        put("WhatsAppCallID", wacid.as_str());
    }
    if let Some(payload) = &setup.cta_payload {
        put("WhatsAppCtaPayload", payload);
    }
    if let Some(payload) = &setup.deeplink_payload {
        put("WhatsAppDeeplinkPayload", payload);
    }
    if desk.document_in {
        put("StartTime", &setup.started.plivo_secs());
    }
    if let Some(answered) = desk.answered {
        put("AnswerTime", &desk.wall(answered).plivo_secs());
    }
    for (name, value) in &setup.headers {
        params.insert(format!("X-PH-{name}").into(), Param::Plain(value.clone()));
    }
    params
}

/// The parameters of the hangup request (§1.2, §2).
pub(super) fn hangup(desk: &Desk, ending: &Ending) -> Params {
    let mut params = common(desk, Event::Hangup);
    let wire = ending.cause.wire(desk.setup.direction);
    let status = match (desk.setup.direction, desk.answered) {
        (Direction::Outbound, None) => wire.unanswered_status(),
        (Direction::Outbound, Some(_)) | (Direction::Inbound, _) => "completed",
    };
    let answered = desk.answered.map(|at| desk.wall(at).plivo_secs()).unwrap_or_default();
    for (name, value) in [
        ("AnswerTime", answered),
        ("BillDuration", ending.bill_secs.to_string()),
        ("CallStatus", status.to_owned()),
        ("Duration", ending.duration_secs.to_string()),
        ("EndTime", desk.wall(ending.at).plivo_secs()),
        ("HangupCause", wire.word.to_owned()),
        ("HangupCauseCode", wire.code.to_string()),
        ("HangupCauseName", wire.name.to_owned()),
        ("HangupSource", wire.source.as_str().to_owned()),
        ("StartTime", desk.setup.started.plivo_secs()),
        ("TotalCost", NO_COST.to_owned()),
    ] {
        params.insert(name.into(), Param::Plain(value));
    }
    params
}

/// What a `GetInput` action adds to keys (§3.1).
pub(super) fn keys_of_get_input(digits: Param) -> Params {
    of_get_input("dtmf", digits, plain(""), plain(""))
}

/// What a `GetInput` action adds to speech (§3.1); `confidence` in per cent.
pub(super) fn speech_of_get_input(text: Param, confidence: u8) -> Params {
    of_get_input("speech", plain(""), text, plain(&share(confidence)))
}

fn of_get_input(kind: &str, digits: Param, speech: Param, confidence: Param) -> Params {
    Params::from([
        ("BilledAmount".into(), plain(NO_COST)),
        ("Digits".into(), digits),
        ("InputType".into(), plain(kind)),
        ("Speech".into(), speech),
        ("SpeechConfidenceScore".into(), confidence),
    ])
}

/// What an interim result adds (§3.1); `stability` in per cent, `sequence` from 1.
pub(super) fn interim(stable: Param, unstable: Param, stability: u8, sequence: u32) -> Params {
    Params::from([
        ("SequenceNumber".into(), plain(&sequence.to_string())),
        ("Stability".into(), plain(&share(stability))),
        ("StableSpeech".into(), stable),
        ("UnstableSpeech".into(), unstable),
    ])
}

fn plain(text: &str) -> Param {
    Param::Plain(text.to_owned())
}

/// Per cent as `0.00` to `1.00`.
fn share(percent: u8) -> String {
    let percent = percent.min(100);
    format!("{}.{:02}", percent / 100, percent % 100)
}

/// What a `GetDigits` action adds (§3.2).
pub(super) fn keys_of_get_digits(digits: Param) -> Params {
    Params::from([("Digits".into(), digits)])
}
