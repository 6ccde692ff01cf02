//! Recordings of multi-party calls: of the whole call, and of a single participant.

use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::Api;
use super::super::fields::Fields;
use super::super::routes::{Field, FieldKind, Operation, RequestBody, ResponseSpec};
use super::error::PlivoError;
use super::field_values::{is_mp3, target, unused};
use super::multi_party::{KIND, NO_MEMBER, NO_ROOM, room_id};
use super::recording::{FILE_FORMAT, ROOM_MAX_MS};
use super::request::PlivoRequest;
use super::response::{accepted, no_content};
use super::rooms::{NOT_RECORDED, already_recorded};
use super::route::{CONFLICT, Route, handler, object};
use engine::call::rooms::TrackResult;
use machine::{MemberId, RecordingOrder, TrackCommand, TranscriptOrder};
use media::record::Format;
use xml::ast::Target;

const CALL: &str = "/v1/Account/{auth_id}/MultiPartyCall/{mpc}/Record/";
const PARTICIPANT: &str =
    "/v1/Account/{auth_id}/MultiPartyCall/{mpc}/Participant/{member_id}/Record/";

const FIELDS: &[&[Field]] = &[
    &[FILE_FORMAT],
    &[
        Field::optional(
            "recording_callback_url",
            FieldKind::Url,
            "Receives a callback when the recording is complete",
        ),
        Field::optional("recording_callback_method", FieldKind::Method, "Default POST"),
        Field::optional("transcription_url", FieldKind::Url, "Receives the transcript"),
        Field::optional("transcription_method", FieldKind::Method, "Default POST"),
        Field::optional("transcript", FieldKind::Flag, "false: no transcript in spite of the URL"),
        unused("record_track_type"),
    ],
];
const BODY: RequestBody = RequestBody::fields(
    "file_format (mp3 or wav), recording_callback_url, recording_callback_method, \
     transcription_url. A form is accepted too",
    FIELDS,
);
const STARTED: &[ResponseSpec] =
    &[object::<StartedRecording>(202, "The id and the URL of the recording"), CONFLICT];
const DONE: &[ResponseSpec] = &[ResponseSpec::empty(204, "The command is carried out")];

pub(super) const ROUTES: &[Route] = &[
    Route {
        handler: handler!(record_call),
        operation: Operation::post(
            CALL,
            "recordMultiPartyCall",
            "Start recording a multi-party call; one recording at a time",
        )
        .body(BODY)
        .responses(STARTED),
    },
    Route {
        handler: handler!(stop_call),
        operation: Operation::delete(
            CALL,
            "stopRecordingMultiPartyCall",
            "Stop recording a multi-party call",
        )
        .responses(DONE),
    },
    Route {
        handler: handler!(pause_call),
        operation: Operation::post(
            "/v1/Account/{auth_id}/MultiPartyCall/{mpc}/Record/Pause/",
            "pauseRecordingMultiPartyCall",
            "Pause the recording of a multi-party call",
        )
        .responses(DONE),
    },
    Route {
        handler: handler!(resume_call),
        operation: Operation::post(
            "/v1/Account/{auth_id}/MultiPartyCall/{mpc}/Record/Resume/",
            "resumeRecordingMultiPartyCall",
            "Resume the recording of a multi-party call",
        )
        .responses(DONE),
    },
    Route {
        handler: handler!(record_participant),
        operation: Operation::post(
            PARTICIPANT,
            "recordParticipant",
            "Start recording a participant; one recording at a time",
        )
        .body(BODY)
        .responses(STARTED),
    },
    Route {
        handler: handler!(stop_participant),
        operation: Operation::delete(
            PARTICIPANT,
            "stopRecordingParticipant",
            "Stop recording a participant",
        )
        .responses(DONE),
    },
    Route {
        handler: handler!(pause_participant),
        operation: Operation::post(
            "/v1/Account/{auth_id}/MultiPartyCall/{mpc}/Participant/{member_id}/Record/Pause/",
            "pauseRecordingParticipant",
            "Pause the recording of a participant",
        )
        .responses(DONE),
    },
    Route {
        handler: handler!(resume_participant),
        operation: Operation::post(
            "/v1/Account/{auth_id}/MultiPartyCall/{mpc}/Participant/{member_id}/Record/Resume/",
            "resumeRecordingParticipant",
            "Resume the recording of a participant",
        )
        .responses(DONE),
    },
];

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoMpcRecordingStarted)]
struct StartedRecording {
    message: &'static str,
    recording_id: String,
    recording_url: String,
}

async fn record_call(request: PlivoRequest) -> Result<Response, PlivoError> {
    let api = request.api();
    let (order, callback) =
        parse_order(api, &request.fields()?, false).map_err(PlivoError::BadRequest)?;
    let started = started(api, &order, "MPC recording started");
    let rooms = &api.rooms;
    let is_started =
        rooms.begin_recording(&request.scope, KIND, room_id(&request), order, callback);
    check(is_started, already_recorded())?;
    Ok(accepted(&started))
}

async fn stop_call(request: PlivoRequest) -> Result<Response, PlivoError> {
    let rooms = &request.api().rooms;
    check(rooms.end_recording(&request.scope, KIND, room_id(&request)), NOT_RECORDED)?;
    Ok(no_content())
}

async fn pause_call(request: PlivoRequest) -> Result<Response, PlivoError> {
    set_call_paused(&request, true)
}

async fn resume_call(request: PlivoRequest) -> Result<Response, PlivoError> {
    set_call_paused(&request, false)
}

fn set_call_paused(request: &PlivoRequest, is_paused: bool) -> Result<Response, PlivoError> {
    let rooms = &request.api().rooms;
    let is_done = rooms.pause_recording(&request.scope, KIND, room_id(request), is_paused);
    check(is_done, NOT_RECORDED)?;
    Ok(no_content())
}

async fn record_participant(request: PlivoRequest) -> Result<Response, PlivoError> {
    let api = request.api();
    let (order, callback) =
        parse_order(api, &request.fields()?, true).map_err(PlivoError::BadRequest)?;
    let started = started(api, &order, "participant recording started");
    let command = TrackCommand::Begin { order: Box::new(order), callback };
    track(&request, command, already_recorded())?;
    Ok(accepted(&started))
}

async fn stop_participant(request: PlivoRequest) -> Result<Response, PlivoError> {
    track(&request, TrackCommand::Stop, NOT_RECORDED)?;
    Ok(no_content())
}

async fn pause_participant(request: PlivoRequest) -> Result<Response, PlivoError> {
    track(&request, TrackCommand::Pause { on: true }, NOT_RECORDED)?;
    Ok(no_content())
}

async fn resume_participant(request: PlivoRequest) -> Result<Response, PlivoError> {
    track(&request, TrackCommand::Pause { on: false }, NOT_RECORDED)?;
    Ok(no_content())
}

/// The result of a command to a room: `None` if the room does not exist, `false` if its state does
/// not allow the command.
fn check(is_done: Option<bool>, otherwise: PlivoError) -> Result<(), PlivoError> {
    match is_done {
        Some(true) => Ok(()),
        Some(false) => Err(otherwise),
        None => Err(NO_ROOM),
    }
}

/// Passes a command about the recording of the participant in the path.
fn track(
    request: &PlivoRequest,
    command: TrackCommand,
    otherwise: PlivoError,
) -> Result<(), PlivoError> {
    let member: MemberId = request.id("member_id", NO_MEMBER)?;
    match request.api().rooms.track(&request.scope, room_id(request), member, command) {
        TrackResult::Done => Ok(()),
        TrackResult::NoRoom => Err(NO_ROOM),
        TrackResult::NoMember => Err(NO_MEMBER),
        TrackResult::Otherwise => Err(otherwise),
        TrackResult::Full => {
            Err(PlivoError::too_many_requests("too many commands for this call at once", 1))
        }
    }
}

fn started(api: &Api, order: &RecordingOrder, message: &'static str) -> StartedRecording {
    let id = order.id.unwrap_or_default();
    let recording_url = api.recordings.url(id, Format::of(order.mp3).as_str());
    StartedRecording { message, recording_id: id.as_hyphenated().to_string(), recording_url }
}

/// Parses the order for a recording and the target of its callback. `own` is whether the recording is
/// of one participant.
fn parse_order(
    api: &Api,
    fields: &Fields,
    own: bool,
) -> Result<(RecordingOrder, Option<Target>), String> {
    let is_unwanted = matches!(fields.flag("transcript"), Ok(Some(false)));
    let transcript = target(api, fields, "transcription")?.filter(|_| !is_unwanted);
    let order = RecordingOrder {
        id: Some(Uuid::new_v4()),
        held: false,
        mp3: is_mp3(fields)?,
        stereo: false,
        peer_only: own,
        max_ms: ROOM_MAX_MS,
        silence_ms: None,
        callback: None,
        action: None,
        transcript: transcript.map(|to| TranscriptOrder { to, full: false }),
    };
    Ok((order, target(api, fields, "recording_callback")?))
}
