//! `POST MultiPartyCall/{mpc}/Participant/`: calls users into a multi-party call, or moves a live
//! call into it.
//!
//! A participant runs a document with the element `MultiPartyCall`, which is generated from the
//! fields of the request and validated like any document.

use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::fields::Fields;
use super::super::placement::{RING_TIMEOUT, TIME_LIMIT, customer_url};
use super::super::routes::{Field, FieldKind, Operation, RequestBody};
use super::super::{Api, LiveStatus};
use super::error::{CALL_NOT_FOUND, PlivoError};
use super::field_values::{
    CALLER_NAME_CHARS_MAX, RING_TIMEOUT_MAX, SIP_HEADERS, caller_and_targets, send_digits,
    sip_headers, unused, url,
};
use super::make_call::{self, not_own_number};
use super::multi_party::{KIND, NO_ROOM, live_room, room_id};
use super::request::PlivoRequest;
use super::response::created;
use super::route::{BARRED_COUNTRY, CONFLICT, NOT_ALLOWED, Route, handler, object};
use engine::call::dialer::{CallOrder, TargetSettings};
use machine::{Command, Confirmation, Outbound, RoomMusic};
use model::{AuthId, CallUuid, Digit, E164, Method};
use store::Scope;
use uuid::Uuid;
use xml::Document;
use xml::ast::{DocUrl, Element, ElementKind};

/// Time to wait for a confirm key, as in a `Dial`.
const CONFIRM_MS: u64 = 120_000;
/// Maximum value of `delay_dial`, in seconds.
const DELAY_MAX: u64 = 120;

const ROLES: &[&str] = &["agent", "supervisor", "customer", "ai-agent"];

const FIELDS: &[Field] = &[
    Field::required("role", FieldKind::OneOf(ROLES), ""),
    Field::optional("call_uuid", FieldKind::Uuid, "A live call; otherwise from and to"),
    Field::optional(
        "from",
        FieldKind::Text(32),
        "A phone number of the account with calling enabled",
    ),
    Field::optional("to", FieldKind::Text(u32::MAX), "Numbers of users, separated by <"),
    Field::optional("caller_name", FieldKind::Text(50), "Passed to callbacks"),
    Field::optional(
        "ring_timeout",
        FieldKind::Integer(1, 600),
        "Longest ringing in seconds (default 120)",
    ),
    SIP_HEADERS,
    Field::optional(
        "call_status_callback_url",
        FieldKind::Url,
        "Receives callbacks when the call rings and when it has ended",
    ),
    Field::optional("call_status_callback_method", FieldKind::Method, "Default POST"),
    Field::optional(
        "confirm_key",
        FieldKind::Text(1),
        "0-9, * or #: the key that a user who has answered must press to enter",
    ),
    Field::optional(
        "confirm_key_sound_url",
        FieldKind::Url,
        "URL of a document of Speak, Play and Wait for a user who has answered, before entering",
    ),
    Field::optional("confirm_key_sound_method", FieldKind::Method, "Default GET"),
    Field::optional(
        "dial_music",
        FieldKind::Text(2_048),
        "What the participants hear until the user answers: real (a ring-back tone, the default), \
         none, or the URL of a document of Speak, Play and Wait",
    ),
    Field::optional(
        "delay_dial",
        FieldKind::Text(u32::MAX),
        "Seconds before the call is placed (default 0): one number, or several separated by <",
    ),
    Field::optional(
        "send_digits",
        FieldKind::Text(70),
        "0-9, *, #, and w and W for pauses: sent after the answer",
    ),
    unused("send_on_preanswer"),
    Field::optional(
        "create_mpc_with_single_participant",
        FieldKind::Flag,
        "false: respond with 404 if the multi-party call has no other participant (default true)",
    ),
];

/// The fields that set attributes of the element.
#[expect(clippy::indexing_slicing, reason = "evaluated at compile time")]
const ELEMENT_FIELDS: &[Field] = &{
    const DESCRIPTION: &str =
        "As the attribute of MultiPartyCall, which has this name in camel case";
    let mut fields =
        [const { Field::optional("", FieldKind::Text(u32::MAX), DESCRIPTION) }; ATTRIBUTES.len()];
    let mut at = 0;
    while at < ATTRIBUTES.len() {
        fields[at].name = ATTRIBUTES[at].0;
        at += 1;
    }
    fields
};

pub(super) const ROUTES: &[Route] = &[Route {
    handler: handler!(add),
    operation: Operation::post(
        "/v1/Account/{auth_id}/MultiPartyCall/{mpc}/Participant/",
        "addParticipant",
        "Add participants to a multi-party call: call users, or move a live call into it",
    )
    .body(RequestBody::fields(
        "role, and from and to or call_uuid; the attributes of the element in snake case; for called \
         users also send_digits, ring_timeout and delay_dial (one number, or several separated by \
         <), caller_name, sip_headers, confirm_key, confirm_key_sound_url, dial_music, \
         create_mpc_with_single_participant. A form is accepted too",
        &[ELEMENT_FIELDS, FIELDS],
    ))
    .responses(&[
        object::<AddedParticipants>(201, "The participants are being added"),
        BARRED_COUNTRY,
        CONFLICT,
        NOT_ALLOWED,
    ]),
}];

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoParticipantAdded)]
struct AddedParticipants {
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

/// The fields that set attributes of the element, with the names of the attributes.
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
    ("wait_for_agent", "waitForAgent"),
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

/// Builds the document of a participant: the element with the attributes set by the fields.
fn document(fields: &Fields, name: &str) -> Result<Arc<Document>, String> {
    let escaped = |text: &str| {
        [('&', "&amp;"), ('<', "&lt;"), ('>', "&gt;"), ('"', "&quot;")]
            .iter()
            .fold(text.to_owned(), |text, (char, entity)| text.replace(*char, entity))
    };
    let role = fields.required("role")?;
    if !ROLES.iter().any(|known| role.eq_ignore_ascii_case(known)) {
        return Err(format!("role must be one of {}", ROLES.join(", ")));
    }
    let mut xml = "<Response><MultiPartyCall".to_owned();
    for (field, attribute) in ATTRIBUTES {
        if let Some(text) = fields.text(field)? {
            xml += &format!(" {attribute}=\"{}\"", escaped(&text));
        }
    }
    xml += &format!(">{}</MultiPartyCall></Response>", escaped(name));
    let parsed = xml::parse(xml.as_bytes(), None);
    let document = parsed.document.ok_or_else(|| {
        let error = parsed.findings.iter().find(|f| f.severity == xml::ast::Severity::Error);
        let message =
            error.map_or("it is not a multi-party call", |finding| finding.message.as_str());
        // The message names the attribute; the error names the field.
        let field = {
            let named =
                message.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
            ATTRIBUTES.iter().find(|(_, attribute)| *attribute == named)
        };
        match field {
            Some((field, _)) => format!("{field} is invalid: {message}"),
            None => {
                format!("a field or the multi-party call's name {name:?} is invalid: {message}")
            }
        }
    })?;
    let has_name = |element: &Element| matches!(&element.kind, ElementKind::MultiPartyCall(call) if call.name == name);
    match document.elements.iter().any(has_name) {
        true => Ok(document),
        // The call would enter another multi-party call.
        false => Err(format!(
            "the multi-party call's name {name:?} must not begin or end with white space, nor \
             contain a carriage return"
        )),
    }
}

async fn add(request: PlivoRequest) -> Result<Response, PlivoError> {
    let fields = request.fields()?;
    let name = match room_id(&request).strip_prefix("name_") {
        Some(name) => name.to_owned(),
        None => live_room(&request)?.name,
    };
    let document = document(&fields, &name).map_err(PlivoError::BadRequest)?;
    let may_be_alone = fields
        .flag("create_mpc_with_single_participant")
        .map_err(PlivoError::BadRequest)?
        .unwrap_or(true);
    let calls = match fields.text("call_uuid").map_err(PlivoError::BadRequest)? {
        Some(uuid) => vec![move_call(&request, &uuid, document, may_be_alone)?],
        None => call_users(&request, &fields, document).await?,
    };
    let request_uuid = calls.first().map(|call| call.call_uuid.clone()).unwrap_or_default();
    let message = "add participant action initiated";
    Ok(created(&AddedParticipants { calls, message, request_uuid }))
}

/// Returns the multi-party call in the path that a call of this account would enter. `None` if the path
/// has a name and the call would create it.
fn room_for(request: &PlivoRequest, account: &AuthId) -> Result<Option<Uuid>, PlivoError> {
    let (rooms, id) = (&request.api().rooms, room_id(request));
    let room = rooms.find(&Scope::of(account.clone()), KIND, id);
    match room.filter(|room| room.account == *account) {
        None if !id.starts_with("name_") => {
            let owner = live_room(request)?.account;
            Err(PlivoError::NotAllowed(format!(
                "the multiparty call is of account {owner}: a call of {account} can't enter it"
            )))
        }
        room => Ok(room.map(|room| room.id)),
    }
}

/// Moves a live call into the room.
fn move_call(
    request: &PlivoRequest,
    uuid: &str,
    document: Arc<Document>,
    may_be_alone: bool,
) -> Result<AddedCall, PlivoError> {
    let uuid: CallUuid =
        uuid.parse().map_err(|_| PlivoError::BadRequest("call_uuid must be a UUID".to_owned()))?;
    let live = &request.api().live;
    let call = live
        .get(&request.scope, uuid)
        .filter(|call| call.status == LiveStatus::InProgress)
        .ok_or(CALL_NOT_FOUND)?;
    let room = room_for(request, &call.account)?;
    // The call would be the only participant.
    if room.is_none() && !may_be_alone {
        return Err(NO_ROOM);
    }
    live.command(&request.scope, uuid, Command::Run { document, room })?;
    Ok(AddedCall { to: call.to, from: call.from, call_uuid: uuid.to_string() })
}

/// Calls users into the room, by the same rules as for every call.
async fn call_users(
    request: &PlivoRequest,
    fields: &Fields,
    document: Arc<Document>,
) -> Result<Vec<AddedCall>, PlivoError> {
    let mut order = parse_order(request, fields, document)?;
    order.outbound.room = room_for(request, &order.number.account.auth_id)?;
    let calls = make_call::place(request.api(), &order).await?;
    let from = order.number.spec.number.to_string();
    let added = calls.iter().zip(&order.to).map(|(call, to)| AddedCall {
        to: to.to_string(),
        from: from.clone(),
        call_uuid: call.to_string(),
    });
    Ok(added.collect())
}

fn parse_order(
    request: &PlivoRequest,
    fields: &Fields,
    document: Arc<Document>,
) -> Result<CallOrder, PlivoError> {
    let api = request.api();
    let users = CalledUsers::parse(api, fields).map_err(PlivoError::BadRequest)?;
    let CalledUsers { from, to, caller_name, headers, outbound, callback, each } = users;
    let number = api.placer.number(&request.scope, &from);
    let number = number.ok_or_else(|| PlivoError::NotAllowed(not_own_number(&from)))?;
    // The document is given, so the call has no answer URL. Without a callback URL it has no
    // callbacks.
    let nowhere = (DocUrl("".into()), Method::Post);
    Ok(CallOrder {
        number,
        to,
        answer: nowhere.clone(),
        fallback: None,
        hangup: callback.unwrap_or(nowhere),
        caller_name,
        headers,
        time_limit: Duration::from_secs(TIME_LIMIT),
        outbound: Outbound { document: Some(document), ..outbound },
        each,
    })
}

/// The fields about the users to call, each validated on its own.
struct CalledUsers {
    from: E164,
    to: Vec<E164>,
    caller_name: String,
    headers: Vec<(String, String)>,
    outbound: Outbound,
    callback: Option<(DocUrl, Method)>,
    each: Vec<TargetSettings>,
}

impl CalledUsers {
    fn parse(api: &Api, fields: &Fields) -> Result<Self, String> {
        let (from, to) = caller_and_targets(fields)?;
        let caller_name = fields.bounded("caller_name", CALLER_NAME_CHARS_MAX)?.unwrap_or_default();
        let ring_timeouts =
            parse_per_target(fields, "ring_timeout", (1, RING_TIMEOUT_MAX), to.len())?;
        let delays = parse_per_target(fields, "delay_dial", (0, DELAY_MAX), to.len())?;
        let each = (0..to.len()).map(|n| TargetSettings {
            ring_timeout_ms: value_for(&ring_timeouts, n).map(|secs| secs.saturating_mul(1_000)),
            after: Duration::from_secs(value_for(&delays, n).unwrap_or(0)),
        });
        let each = each.collect();
        let send_digits = send_digits(fields)?;
        let (confirm, room_music) = (parse_confirm(api, fields)?, parse_room_music(api, fields)?);
        let may_be_alone = fields.flag("create_mpc_with_single_participant")?.unwrap_or(true);
        let headers = sip_headers(fields)?;
        let callback = url(api, fields, "call_status_callback")?;
        let outbound = Outbound {
            ring: callback.clone(),
            ring_timeout_ms: RING_TIMEOUT.saturating_mul(1_000),
            send_digits,
            confirm,
            room_music,
            needs_company: !may_be_alone,
            is_queued: false,
            ..Outbound::default()
        };
        Ok(Self { from, to, caller_name, headers, outbound, callback, each })
    }
}

/// Parses the confirmation that a user must give between answering and entering.
fn parse_confirm(api: &Api, fields: &Fields) -> Result<Option<Confirmation>, String> {
    const MESSAGE: &str = "confirm_key must be one of 0-9, * and #";
    let key = fields.text("confirm_key")?.map(|text| {
        let mut keys = text.chars().map(Digit::try_from);
        match (keys.next(), keys.next()) {
            (Some(Ok(key)), None) if !key.is_letter() => Ok(key),
            _ => Err(MESSAGE),
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

/// Parses the sound that the participants hear until the user answers.
fn parse_room_music(api: &Api, fields: &Fields) -> Result<Option<RoomMusic>, String> {
    let Some(text) = fields.text("dial_music")? else { return Ok(Some(RoomMusic::RingBack)) };
    match text.to_ascii_lowercase().as_str() {
        "real" => Ok(Some(RoomMusic::RingBack)),
        "none" => Ok(None),
        _ => Ok(Some(RoomMusic::Document { url: customer_url(api, "dial_music", &text)? })),
    }
}

/// Parses integers separated by `<`, one for each target in their order, or one for all of them.
fn parse_per_target(
    fields: &Fields,
    name: &str,
    (least, most): (u64, u64),
    targets: usize,
) -> Result<Vec<u64>, String> {
    let Some(text) = fields.text(name)? else { return Ok(Vec::new()) };
    let wrong = || {
        format!("{name} must be an integer between {least} and {most}, or several separated by <")
    };
    let number = |one: &str| {
        one.trim().parse().ok().filter(|n| (least..=most).contains(n)).ok_or_else(wrong)
    };
    let numbers: Vec<u64> = text.split('<').map(number).collect::<Result<_, _>>()?;
    match numbers.len() <= targets {
        true => Ok(numbers),
        false => Err(format!("{name} must not have more values than `to` has numbers")),
    }
}

/// The value for a target.
fn value_for(numbers: &[u64], target: usize) -> Option<u64> {
    match numbers {
        [all] => Some(*all),
        several => several.get(target).copied(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parses_values_for_all_targets_or_for_each() {
        let read = |value: serde_json::Value, targets| {
            parse_per_target(
                &Fields::of_json(&json!({"ring_timeout": value})),
                "ring_timeout",
                (1, RING_TIMEOUT_MAX),
                targets,
            )
        };
        assert_eq!(read(json!(45), 3), Ok(vec![45]));
        let two = read(json!("30<45"), 3).expect("two of three");
        assert_eq!([0, 1, 2].map(|n| value_for(&two, n)), [Some(30), Some(45), None]);
        assert_eq!([0, 2].map(|n| value_for(&[45], n)), [Some(45); 2]);
        for (bad, why) in [
            ("30<45", "more values"),
            ("0", "between 1 and 600"),
            ("x<3", "between"),
            ("3<", "between"),
        ] {
            assert!(read(json!(bad), 1).is_err_and(|error| error.contains(why)), "{bad}");
        }
        assert_eq!(read(json!(null), 1), Ok(Vec::new()));
    }

    #[test]
    fn makes_a_document_of_the_fields() {
        let body = json!({
            "role": "agent", "record_coach_voice": true, "wait_for_agent": true,
            "start_recording_audio": "https://a.example.com/on"});
        let made = document(&Fields::of_json(&body), "A & B").expect("a document");
        let xml::ast::ElementKind::MultiPartyCall(call) = &made.elements[0].kind else { panic!() };
        assert_eq!((call.name.as_str(), call.role.as_str()), ("A & B", "agent"));
        for (name, value) in [
            ("recordCoachVoice", "true"),
            ("waitForAgent", "true"),
            ("startRecordingAudio", "https://a.example.com/on"),
        ] {
            assert!(call.attributes.contains(&(name.to_owned(), value.to_owned())), "{name}");
        }
        let named = |name: &str| document(&Fields::of_json(&json!({"role": "agent"})), name);
        for name in ["a]]>b", "<\"a\" & 'b'>", "a  b"] {
            let made = named(name).expect("a document");
            assert!(
                made.elements[0].kind
                    == ElementKind::MultiPartyCall(xml::ast::MultiPartyCall {
                        name: name.to_owned(),
                        role: "agent".to_owned(),
                        attributes: Vec::new(),
                    }),
                "{name}"
            );
        }
        for name in [" a", "a\n", "a\r\nb", "a\u{1}", ""] {
            assert!(named(name).is_err_and(|why| why.contains(&format!("{name:?}"))), "{name:?}");
        }
        let wrong = document(&Fields::of_json(&json!({"role": "boss"})), "A");
        assert_eq!(wrong.unwrap_err(), "role must be one of agent, supervisor, customer, ai-agent");
        let wrong = document(
            &Fields::of_json(&json!({"role": "agent", "record_coach_voice": "maybe"})),
            "A",
        );
        assert!(wrong.is_err_and(|why| why.starts_with("record_coach_voice is invalid")));
    }
}
