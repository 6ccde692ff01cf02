//! Conferences: the existing rooms, and commands for their members. See
//! `docs/reference/rest.md#conferences`.

use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::live::name_silent;
use super::super::routes::{Field, FieldKind, Operation, RequestBody, ResponseSpec};
use super::error::PlivoError;
use super::field_values::{SOUND_FIELDS, SPEECH_FIELDS};
use super::recording::{FILE_FORMAT, StartedRecording, TRANSCRIPTION_FIELDS};
use super::request::PlivoRequest;
use super::response::{accepted, no_content, ok};
use super::rooms::{parse_members, play_command, speak_command, start_recording, stop_recording};
use super::route::{CONFLICT, Route, handler, object};
use engine::call::rooms::{CommandResult, MemberCommand, Members};
use machine::RoomKind;
use media::SoundKind;

const NO_ROOM: PlivoError = PlivoError::NotFound("conference not found");
const NO_MEMBER: PlivoError = PlivoError::NotFound("member not found");
const KIND: RoomKind = RoomKind::Conference;

const COLLECTION: &str = "/v1/Account/{auth_id}/Conference/";
const ITEM: &str = "/v1/Account/{auth_id}/Conference/{name}/";
const RECORD: &str = "/v1/Account/{auth_id}/Conference/{name}/Record/";
const MEMBER: &str = "/v1/Account/{auth_id}/Conference/{name}/Member/{member_ids}/";
const MUTE: &str = "/v1/Account/{auth_id}/Conference/{name}/Member/{member_ids}/Mute/";
const DEAF: &str = "/v1/Account/{auth_id}/Conference/{name}/Member/{member_ids}/Deaf/";
const KICK: &str = "/v1/Account/{auth_id}/Conference/{name}/Member/{member_ids}/Kick/";
const PLAY: &str = "/v1/Account/{auth_id}/Conference/{name}/Member/{member_ids}/Play/";
const SPEAK: &str = "/v1/Account/{auth_id}/Conference/{name}/Member/{member_ids}/Speak/";

const STOPPED: &[ResponseSpec] =
    &[ResponseSpec::empty(204, "The command is passed to the members")];
const ACCEPTED: &[ResponseSpec] =
    &[object::<MembersCommanded>(202, "The members that the command is passed to")];

pub(super) const ROUTES: &[Route] = &[
    Route {
        handler: handler!(list),
        operation: Operation::get(COLLECTION, "listConferences", "List the names of conferences")
            .responses(&[object::<Conferences>(200, "The names")]),
    },
    Route {
        handler: handler!(end_all),
        operation: Operation::delete(
            COLLECTION,
            "endConferences",
            "Hang up all members of all conferences",
        )
        .responses(STOPPED),
    },
    Route {
        handler: handler!(get),
        operation: Operation::get(ITEM, "conference", "Retrieve a conference and its members")
            .responses(&[object::<Conference>(200, "The conference and its members")]),
    },
    Route {
        handler: handler!(end),
        operation: Operation::delete(ITEM, "endConference", "Hang up all members of a conference")
            .responses(STOPPED),
    },
    Route {
        handler: handler!(record),
        operation: Operation::post(
            RECORD,
            "recordConference",
            "Start recording a conference, until it ends",
        )
        .body(RequestBody::fields(
            "file_format (mp3 or wav), callback_url, callback_method. A form is accepted too",
            &[
                &[FILE_FORMAT],
                &[
                    Field::optional(
                        "callback_url",
                        FieldKind::Url,
                        "Receives a callback when the recording is complete",
                    ),
                    Field::optional("callback_method", FieldKind::Method, "Default POST"),
                ],
                TRANSCRIPTION_FIELDS,
            ],
        ))
        .responses(&[
            object::<StartedRecording>(202, "The id and the URL of the recording"),
            CONFLICT,
        ]),
    },
    Route {
        handler: handler!(stop_record),
        operation: Operation::delete(
            RECORD,
            "stopRecordingConference",
            "Stop recording a conference",
        )
        .responses(STOPPED),
    },
    Route {
        handler: handler!(mute),
        operation: Operation::post(
            MUTE,
            "muteMembers",
            "Mute members: ids separated by commas, or all",
        )
        .responses(ACCEPTED),
    },
    Route {
        handler: handler!(unmute),
        operation: Operation::delete(MUTE, "unmuteMembers", "Unmute members").responses(STOPPED),
    },
    Route {
        handler: handler!(deafen),
        operation: Operation::post(
            DEAF,
            "deafenMembers",
            "Deafen members, so that they do not hear the conference",
        )
        .responses(ACCEPTED),
    },
    Route {
        handler: handler!(undeafen),
        operation: Operation::delete(DEAF, "undeafenMembers", "Undeafen members")
            .responses(STOPPED),
    },
    Route {
        handler: handler!(kick),
        operation: Operation::post(
            KICK,
            "kickMembers",
            "Remove members from the conference; their documents go on",
        )
        .responses(ACCEPTED),
    },
    Route {
        handler: handler!(hang_up),
        operation: Operation::delete(MEMBER, "hangUpMembers", "Hang up members").responses(STOPPED),
    },
    Route {
        handler: handler!(play),
        operation: Operation::post(
            PLAY,
            "playToMembers",
            "Play a sound to members, after the sounds that are queued for them",
        )
        .body(RequestBody::fields("url. A form is accepted too", &[SOUND_FIELDS]))
        .responses(ACCEPTED),
    },
    Route {
        handler: handler!(stop_playing),
        operation: Operation::delete(PLAY, "stopPlayingToMembers", "Stop playing to members")
            .responses(STOPPED),
    },
    Route {
        handler: handler!(speak),
        operation: Operation::post(
            SPEAK,
            "speakToMembers",
            "Speak a text to members, after the texts that are queued for them",
        )
        .body(RequestBody::fields(
            "text, voice, language, type (text or ssml). A form is accepted too",
            &[SPEECH_FIELDS],
        ))
        .responses(ACCEPTED),
    },
    Route {
        handler: handler!(stop_speaking),
        operation: Operation::delete(SPEAK, "stopSpeakingToMembers", "Stop speaking to members")
            .responses(STOPPED),
    },
];

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoConferences)]
struct Conferences {
    conferences: Vec<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoConference)]
struct Conference {
    conference_name: String,
    /// Seconds, as a string, like the other numbers.
    conference_run_time: String,
    conference_member_count: String,
    members: Vec<Member>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoConferenceMember)]
struct Member {
    muted: bool,
    member_id: String,
    deaf: bool,
    from: String,
    to: String,
    caller_name: String,
    direction: &'static str,
    call_uuid: String,
    join_time: String,
}

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoMembersAsked)]
struct MembersCommanded {
    message: &'static str,
    #[schema(value_type = Vec<String>)]
    member_id: MemberIds,
}

/// A single id, or a list of several.
#[derive(Serialize)]
#[serde(untagged)]
enum MemberIds {
    One(String),
    Several(Vec<String>),
}

async fn list(request: PlivoRequest) -> Result<Response, PlivoError> {
    let list = request.api().rooms.list_all(&request.scope, KIND).await;
    let conferences = list.rooms.into_iter().map(|room| room.name).collect();
    let mut response = ok(&Conferences { conferences });
    name_silent(&mut response, &list.silent);
    Ok(response)
}

async fn end_all(request: PlivoRequest) -> Result<Response, PlivoError> {
    let (rooms, scope) = (&request.api().rooms, &request.scope);
    for room in rooms.list(scope, KIND) {
        rooms.ask(scope, KIND, &room.name, &Members::All, &MemberCommand::HangUp);
    }
    Ok(no_content())
}

async fn get(request: PlivoRequest) -> Result<Response, PlivoError> {
    let room = request.api().rooms.find(&request.scope, KIND, request.parameter("name"));
    let room = room.ok_or(NO_ROOM)?;
    let members: Vec<Member> = room
        .members
        .into_iter()
        .map(|member| Member {
            muted: member.muted,
            member_id: member.member.to_string(),
            deaf: member.deaf,
            from: member.from,
            to: member.to,
            caller_name: member.caller_name,
            direction: member.direction.as_str(),
            call_uuid: member.call.to_string(),
            join_time: member.since.as_secs().to_string(),
        })
        .collect();
    Ok(ok(&Conference {
        conference_name: room.name,
        conference_run_time: room.age.as_secs().to_string(),
        conference_member_count: members.len().to_string(),
        members,
    }))
}

async fn end(request: PlivoRequest) -> Result<Response, PlivoError> {
    let (rooms, name) = (&request.api().rooms, request.parameter("name"));
    match rooms.ask(&request.scope, KIND, name, &Members::All, &MemberCommand::HangUp) {
        CommandResult::Done(_) => Ok(no_content()),
        CommandResult::NoRoom | CommandResult::NoMember => Err(NO_ROOM),
    }
}

async fn record(request: PlivoRequest) -> Result<Response, PlivoError> {
    let started = start_recording(&request, KIND, request.parameter("name"))?;
    let (recording_id, url) = started.ok_or(NO_ROOM)?;
    let message = "conference recording started";
    Ok(accepted(&StartedRecording { message, recording_id, url }))
}

async fn stop_record(request: PlivoRequest) -> Result<Response, PlivoError> {
    stop_recording(&request, KIND, request.parameter("name"))?.ok_or(NO_ROOM)
}

async fn mute(request: PlivoRequest) -> Result<Response, PlivoError> {
    start(&request, &MemberCommand::Mute(true), "muted")
}

async fn unmute(request: PlivoRequest) -> Result<Response, PlivoError> {
    stop(&request, &MemberCommand::Mute(false))
}

async fn deafen(request: PlivoRequest) -> Result<Response, PlivoError> {
    start(&request, &MemberCommand::Deaf(true), "deaf")
}

async fn undeafen(request: PlivoRequest) -> Result<Response, PlivoError> {
    stop(&request, &MemberCommand::Deaf(false))
}

async fn kick(request: PlivoRequest) -> Result<Response, PlivoError> {
    start(&request, &MemberCommand::Kick, "kicked")
}

async fn hang_up(request: PlivoRequest) -> Result<Response, PlivoError> {
    stop(&request, &MemberCommand::HangUp)
}

async fn play(request: PlivoRequest) -> Result<Response, PlivoError> {
    start(&request, &play_command(&request)?, "play queued into conference")
}

async fn stop_playing(request: PlivoRequest) -> Result<Response, PlivoError> {
    stop(&request, &MemberCommand::Stop(SoundKind::Play))
}

async fn speak(request: PlivoRequest) -> Result<Response, PlivoError> {
    start(&request, &speak_command(&request)?, "speak queued into conference")
}

async fn stop_speaking(request: PlivoRequest) -> Result<Response, PlivoError> {
    stop(&request, &MemberCommand::Stop(SoundKind::Speak))
}

/// Passes a command to the members in the path. The response is 202 with their ids.
fn start(
    request: &PlivoRequest,
    command: &MemberCommand,
    message: &'static str,
) -> Result<Response, PlivoError> {
    let (members, ids) = pass(request, command)?;
    let member_id = match (members, ids.as_slice()) {
        (Members::These(_), [one]) => MemberIds::One(one.to_string()),
        (Members::These(_) | Members::All, several) => {
            MemberIds::Several(several.iter().map(u64::to_string).collect())
        }
    };
    Ok(accepted(&MembersCommanded { message, member_id }))
}

/// Passes a command to the members in the path. The response is 204.
fn stop(request: &PlivoRequest, command: &MemberCommand) -> Result<Response, PlivoError> {
    pass(request, command)?;
    Ok(no_content())
}

fn pass(
    request: &PlivoRequest,
    command: &MemberCommand,
) -> Result<(Members, Vec<u64>), PlivoError> {
    let members = parse_members(request.parameter("member_ids")).ok_or(NO_MEMBER)?;
    let (rooms, name) = (&request.api().rooms, request.parameter("name"));
    match rooms.ask(&request.scope, KIND, name, &members, command) {
        CommandResult::Done(ids) => Ok((members, ids)),
        CommandResult::NoRoom => Err(NO_ROOM),
        CommandResult::NoMember => Err(NO_MEMBER),
    }
}
