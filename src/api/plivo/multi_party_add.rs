//! Participants that REST adds to a multi-party call (`plivo-call-api.md` §4): users who are called, and calls that are up.
//!
//! Each runs a document of the one element, which is made of the request's fields and checked as any.

use std::time::Duration;

use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::fields::Fields;
use super::super::placing::{self, RING_TIMEOUT, TIME_LIMIT, customer_url};
use super::super::{Api, LiveStatus, Told, error};
use super::multi_party::{NO_ROOM, room};
use super::place::{CALLER_NAME_CHARS_MAX, RING_MAX, digits, refused, sip_headers, targets, url};
use super::{Ask, No};
use crate::call::dialer::{CallOrder, Each};
use machine::{Command, Confirmation, Outbound, RoomMusic};
use model::{CallUuid, Digit, E164, Method};
use xml::Document;
use xml::ast::DocUrl;

/// The key is waited for so long, as a `Dial`'s is.
const CONFIRM_MS: u64 = 120_000;
/// `delay_dial`, in seconds.
const DELAY_MAX: u64 = 120;

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoParticipantAdded)]
pub(super) struct Added {
    calls: Vec<AddedCall>,
    message: &'static str,
    request_uuid: String,
}

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoParticipantCall)]
struct AddedCall {
    to: String,
    from: String,
    call_uuid: String,
}

/// Attributes that a request may give, in the element's own spelling.
const ATTRIBUTES: &[(&str, &str)] = &[
    ("role", "role"),
    ("max_duration", "maxDuration"),
    ("max_participants", "maxParticipants"),
    ("record_min_member_count", "recordMinMemberCount"),
    ("wait_time", "waitTime"),
    ("wait_music_url", "waitMusicUrl"),
    ("wait_music_method", "waitMusicMethod"),
    ("agent_hold_music_url", "agentHoldMusicUrl"),
    ("agent_hold_music_method", "agentHoldMusicMethod"),
    ("customer_hold_music_url", "customerHoldMusicUrl"),
    ("customer_hold_music_method", "customerHoldMusicMethod"),
    ("status_callback_url", "statusCallbackUrl"),
    ("status_callback_method", "statusCallbackMethod"),
    ("status_callback_events", "statusCallbackEvents"),
    ("on_exit_action_url", "onExitActionUrl"),
    ("on_exit_action_method", "onExitActionMethod"),
    ("enter_sound", "enterSound"),
    ("enter_sound_method", "enterSoundMethod"),
    ("exit_sound", "exitSound"),
    ("exit_sound_method", "exitSoundMethod"),
    ("stay_alone", "stayAlone"),
    ("coach_mode", "coachMode"),
    ("mute", "mute"),
    ("hold", "hold"),
    ("start_mpc_on_enter", "startMpcOnEnter"),
    ("end_mpc_on_exit", "endMpcOnExit"),
    ("relay_dtmf_inputs", "relayDTMFInputs"),
    ("record", "record"),
    ("record_participant_track", "recordParticipantTrack"),
    ("record_coach_voice", "recordCoachVoice"),
    ("start_recording_audio", "startRecordingAudio"),
    ("start_recording_audio_method", "startRecordingAudioMethod"),
    ("stop_recording_audio", "stopRecordingAudio"),
    ("stop_recording_audio_method", "stopRecordingAudioMethod"),
    ("transcript", "transcript"),
    ("transcription_url", "transcriptionUrl"),
    ("record_file_format", "recordFileFormat"),
    ("recording_callback_url", "recordingCallbackUrl"),
    ("recording_callback_method", "recordingCallbackMethod"),
    ("ai_agent_stream_service_url", "aiAgentStreamServiceUrl"),
    ("ai_agent_stream_content_type", "aiAgentStreamContentType"),
    ("ai_agent_stream_sampling_rate", "aiAgentStreamSamplingRate"),
    ("ai_agent_stream_extra_headers", "aiAgentStreamExtraHeaders"),
    ("ai_agent_stream_status_callback_url", "aiAgentStreamStatusCallbackUrl"),
    ("ai_agent_stream_status_callback_method", "aiAgentStreamStatusCallbackMethod"),
];

/// The document of the one element.
fn document(fields: &Fields, name: &str) -> Result<std::sync::Arc<Document>, String> {
    let escaped =
        |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
    fields.required("role")?;
    let mut xml = "<Response><MultiPartyCall".to_owned();
    for (field, attribute) in ATTRIBUTES {
        if let Some(text) = fields.text(field)? {
            xml += &format!(" {attribute}=\"{}\"", escaped(&text));
        }
    }
    xml += &format!(">{}</MultiPartyCall></Response>", escaped(name));
    let parsed = xml::parse(xml.as_bytes(), None);
    parsed.document.ok_or_else(|| {
        let error = parsed.findings.iter().find(|f| f.severity == xml::ast::Severity::Error);
        let message = error.map_or("it is no multi-party call", |finding| finding.message.as_str());
        // The field's own spelling.
        let field = {
            let named =
                message.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
            ATTRIBUTES
                .iter()
                .find(|(_, attribute)| *attribute == named)
                .map_or("role", |(field, _)| field)
        };
        format!("{field} is invalid: {message}")
    })
}

/// `POST …/Participant/`.
pub(super) async fn add(api: &Api, ask: &Ask, mpc: &str) -> Result<Response, No> {
    let fields = ask.fields()?;
    let (name, there) = match mpc.strip_prefix("name_") {
        Some(name) => (name.to_owned(), room(api, ask, mpc).ok().map(|room| room.id)),
        None => room(api, ask, mpc).map(|room| (room.name, Some(room.id)))?,
    };
    let document = document(&fields, &name).map_err(No::Bad)?;
    let may_be_alone =
        fields.flag("create_mpc_with_single_participant").map_err(No::Bad)?.unwrap_or(true);
    let calls = match fields.text("call_uuid").map_err(No::Bad)? {
        // It would be alone at once.
        Some(_) if !may_be_alone && there.is_none() => return Err(NO_ROOM),
        Some(uuid) => vec![taken(api, ask, &uuid, document, there)?],
        None => called(api, ask, &fields, document, there).await?,
    };
    let request_uuid = calls.first().map(|call| call.call_uuid.clone()).unwrap_or_default();
    let added = Added { calls, message: "add participant action initiated", request_uuid };
    Ok(error::plivo_body(StatusCode::CREATED, &added))
}

/// A call that is up goes on in it.
fn taken(
    api: &Api,
    ask: &Ask,
    uuid: &str,
    document: std::sync::Arc<Document>,
    room: Option<uuid::Uuid>,
) -> Result<AddedCall, No> {
    const NO_CALL: No = No::NotFound("call not found");
    let uuid: CallUuid =
        uuid.parse().map_err(|_| No::Bad("call_uuid must be a UUID".to_owned()))?;
    let call = api
        .live
        .get(&ask.scope, uuid)
        .filter(|call| call.status == LiveStatus::InProgress)
        .ok_or(NO_CALL)?;
    match api.live.command(&ask.scope, uuid, Command::Run { document, room }) {
        Told::Yes => Ok(AddedCall { to: call.to, from: call.from, call_uuid: uuid.to_string() }),
        Told::Full => Err(No::TooMany {
            why: "too much is asked of this call at once".to_owned(),
            seconds: 1,
        }),
        Told::NotUp => Err(NO_CALL),
    }
}

/// Users are called, by the checks of any call (§2.1).
async fn called(
    api: &Api,
    ask: &Ask,
    fields: &Fields,
    document: std::sync::Arc<Document>,
    room: Option<uuid::Uuid>,
) -> Result<Vec<AddedCall>, No> {
    let mut order = order(api, ask, fields, document).map_err(No::Bad)??;
    order.outbound.room = room;
    let calls = placing::place(api, &order).await.map_err(refused)?;
    let from = order.number.spec.number.to_string();
    let added = calls.iter().zip(&order.to).map(|(call, to)| AddedCall {
        to: to.to_string(),
        from: from.clone(),
        call_uuid: call.to_string(),
    });
    Ok(added.collect())
}

fn order(
    api: &Api,
    ask: &Ask,
    fields: &Fields,
    document: std::sync::Arc<Document>,
) -> Result<Result<CallOrder, No>, String> {
    let from = E164::parse(&fields.required("from")?)
        .map_err(|why| format!("from parameter is invalid: {why}"))?;
    let to = targets(&fields.required("to")?)?;
    if to.contains(&from) {
        return Err("to parameter is invalid: it is the number that calls".to_owned());
    }
    let caller_name = fields.bounded("caller_name", CALLER_NAME_CHARS_MAX)?.unwrap_or_default();
    let ring_timeouts = listed(fields, "ring_timeout", (1, RING_MAX), to.len())?;
    let delays = listed(fields, "delay_dial", (0, DELAY_MAX), to.len())?;
    let each = (0..to.len()).map(|n| Each {
        ring_timeout_ms: of(&ring_timeouts, n).map(|secs| secs.saturating_mul(1_000)),
        after: Duration::from_secs(of(&delays, n).unwrap_or(0)),
    });
    let each = each.collect();
    let send_digits = digits(fields)?;
    let (confirm, room_music) = (confirm(api, fields)?, room_music(api, fields)?);
    let may_be_alone = fields.flag("create_mpc_with_single_participant")?.unwrap_or(true);
    let headers = sip_headers(fields)?;
    let told = url(api, fields, "call_status_callback")?;
    let Some(number) = api.placing.number(&ask.scope, &from) else {
        let why = "is not a calling-enabled WhatsApp number of your account";
        return Ok(Err(No::NotAllowed(format!("from parameter is invalid. {from} {why}"))));
    };
    // It has no answer URL: its document is here. Without a URL for its status, nobody is told of it.
    let nowhere = (DocUrl("".into()), Method::Post);
    Ok(Ok(CallOrder {
        number,
        to,
        answer: nowhere.clone(),
        fallback: None,
        hangup: told.clone().unwrap_or(nowhere),
        caller_name,
        headers,
        time_limit: Duration::from_secs(TIME_LIMIT),
        outbound: Outbound {
            ring: told,
            ring_timeout_ms: RING_TIMEOUT.saturating_mul(1_000),
            send_digits,
            document: Some(document),
            confirm,
            room_music,
            needs_company: !may_be_alone,
            ..Outbound::default()
        },
        each,
    }))
}

/// What somebody hears and presses who picks up, before they are in.
fn confirm(api: &Api, fields: &Fields) -> Result<Option<Confirmation>, String> {
    const WHAT: &str = "confirm_key must be one of 0-9, * and #";
    let key = fields.text("confirm_key")?.map(|text| {
        let mut keys = text.chars().map(Digit::try_from);
        match (keys.next(), keys.next()) {
            (Some(Ok(key)), None) if !key.is_letter() => Ok(key),
            _ => Err(WHAT),
        }
    });
    let key = key.transpose()?;
    let sound = url(api, fields, "confirm_key_sound")?;
    let method = match fields.has("confirm_key_sound_method") {
        true => sound.as_ref().map_or(Method::Get, |(_, method)| *method),
        false => Method::Get,
    };
    let sound = sound.map(|(url, _)| url);
    let timeout_ms = CONFIRM_MS;
    Ok((key.is_some() || sound.is_some()).then_some(Confirmation {
        sound,
        method,
        key,
        timeout_ms,
    }))
}

/// What those who are in hear until whoever is called picks up.
fn room_music(api: &Api, fields: &Fields) -> Result<Option<RoomMusic>, String> {
    let Some(text) = fields.text("dial_music")? else { return Ok(Some(RoomMusic::RingBack)) };
    match text.to_ascii_lowercase().as_str() {
        "real" => Ok(Some(RoomMusic::RingBack)),
        "none" => Ok(None),
        _ => Ok(Some(RoomMusic::Document { url: customer_url(api, "dial_music", &text)? })),
    }
}

/// Whole numbers between `<`, for the targets in their order; one alone is for all of them.
fn listed(
    fields: &Fields,
    name: &str,
    (least, most): (u64, u64),
    targets: usize,
) -> Result<Vec<u64>, String> {
    let Some(text) = fields.text(name)? else { return Ok(Vec::new()) };
    let wrong = || {
        format!(
            "{name} must be an integer between {least} and {most}, or several with < between them"
        )
    };
    let number = |one: &str| {
        one.trim().parse().ok().filter(|n| (least..=most).contains(n)).ok_or_else(wrong)
    };
    let numbers: Vec<u64> = text.split('<').map(number).collect::<Result<_, _>>()?;
    match numbers.len() <= targets {
        true => Ok(numbers),
        false => Err(format!("{name} has more values than to has numbers")),
    }
}

/// What one target has of them.
fn of(numbers: &[u64], target: usize) -> Option<u64> {
    match numbers {
        [all] => Some(*all),
        several => several.get(target).copied(),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, header};
    use serde_json::json;

    use super::*;

    fn fields(body: &serde_json::Value) -> Fields {
        let json = HeaderValue::from_static("application/json");
        Fields::read(
            &HeaderMap::from_iter([(header::CONTENT_TYPE, json)]),
            body.to_string().as_bytes(),
        )
        .expect("reads")
    }

    #[test]
    fn numbers_are_for_all_or_for_each_in_turn() {
        let read = |value: serde_json::Value, targets| {
            listed(&fields(&json!({"ring_timeout": value})), "ring_timeout", (1, RING_MAX), targets)
        };
        assert_eq!(read(json!(45), 3), Ok(vec![45]));
        let two = read(json!("30<45"), 3).expect("two of three");
        assert_eq!([0, 1, 2].map(|n| of(&two, n)), [Some(30), Some(45), None]);
        assert_eq!([0, 2].map(|n| of(&[45], n)), [Some(45); 2]);
        for (bad, why) in [
            ("30<45", "more values"),
            ("0", "between 1 and 600"),
            ("x<3", "between"),
            ("3<", "between"),
        ] {
            assert!(read(json!(bad), 1).is_err_and(|said| said.contains(why)), "{bad}");
        }
        assert_eq!(read(json!(null), 1), Ok(Vec::new()));
    }

    #[test]
    fn a_document_says_what_the_fields_say() {
        let body = json!({"role": "agent", "record_coach_voice": true, "start_recording_audio": "https://a.example.com/on"});
        let made = document(&fields(&body), "A & B").expect("a document");
        let xml::ast::ElementKind::MultiPartyCall(call) = &made.elements[0].kind else { panic!() };
        assert_eq!((call.name.as_str(), call.role.as_str()), ("A & B", "agent"));
        for (name, value) in
            [("recordCoachVoice", "true"), ("startRecordingAudio", "https://a.example.com/on")]
        {
            assert!(call.attributes.contains(&(name.to_owned(), value.to_owned())), "{name}");
        }
        let wrong =
            document(&fields(&json!({"role": "agent", "record_coach_voice": "maybe"})), "A");
        assert!(wrong.is_err_and(|why| why.starts_with("record_coach_voice is invalid")));
    }
}
