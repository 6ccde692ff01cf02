//! Multi-party calls: live and ended ones, and commands for their participants. See
//! `docs/reference/rest.md#multi-party-calls`.

use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::live::name_silent;
use super::super::routes::{
    Field, FieldKind, Operation, QueryParameter, RequestBody, ResponseSpec,
};
use super::error::PlivoError;
use super::field_values::{SOUND_FIELDS, SPEECH_FIELDS};
use super::paging::{PageMeta, page_of};
use super::query::{self, Pairs, value};
use super::request::PlivoRequest;
use super::response::{accepted, no_content, ok, resource_uri, seconds_rounded_up};
use super::rooms::{parse_members, play_command, speak_command};
use super::route::{LIMIT, OFFSET, Route, TIME, handler, object};
use engine::call::rooms::{CommandResult, MemberCommand, MemberView, RoomList, RoomView};
use machine::RoomKind;
use media::SoundKind;
use model::{AuthId, Direction, HangupCause, Timestamp, WireCause};
use store::Scope;

pub(super) const NO_ROOM: PlivoError = PlivoError::NotFound("multiparty call not found");
pub(super) const NO_MEMBER: PlivoError = PlivoError::NotFound("participant not found");
pub(super) const KIND: RoomKind = RoomKind::MultiParty;
const NO_COST: &str = "0.00000";

const COLLECTION: &str = "/v1/Account/{auth_id}/MultiPartyCall/";
const ITEM: &str = "/v1/Account/{auth_id}/MultiPartyCall/{mpc}/";
const PARTICIPANT: &str = "/v1/Account/{auth_id}/MultiPartyCall/{mpc}/Participant/{member_id}/";
const PLAY: &str = "/v1/Account/{auth_id}/MultiPartyCall/{mpc}/Member/{member_id}/Play/";
const SPEAK: &str = "/v1/Account/{auth_id}/MultiPartyCall/{mpc}/Member/{member_id}/Speak/";

const NO_CONTENT: &[ResponseSpec] = &[ResponseSpec::empty(204, "The command is carried out")];
const QUEUED: &[ResponseSpec] =
    &[object::<QueuedSound>(202, "The participants that the sound is queued for")];

pub(super) const ROUTES: &[Route] = &[
    Route {
        handler: handler!(list),
        operation: Operation::get(
            COLLECTION,
            "listMultiPartyCalls",
            "List multi-party calls: those with participants, and the latest that have ended",
        )
        .query(&[
            LIMIT,
            OFFSET,
            QueryParameter::text("friendly_name", "Only calls with this name"),
            QueryParameter::one_of(
                "status",
                &["initialized", "active", "ended"],
                "Only calls with this status",
            ),
            QueryParameter::text("sub_account", "Only calls of this subaccount"),
            QueryParameter::integer(
                "termination_cause_code",
                0,
                65_535,
                "Only calls with this termination cause code",
            ),
            QueryParameter::text("creation_time", TIME),
            QueryParameter::text("end_time", TIME),
        ])
        .responses(&[object::<MultiPartyCalls>(200, "A page of multi-party calls")]),
    },
    Route {
        handler: handler!(get),
        operation: Operation::get(
            ITEM,
            "multiPartyCall",
            "Retrieve a multi-party call, by name_NAME or uuid_UUID",
        )
        .responses(&[object::<MultiPartyCall>(200, "The multi-party call")]),
    },
    Route {
        handler: handler!(start),
        operation: Operation::post(
            ITEM,
            "startMultiPartyCall",
            "Start a multi-party call whose participants wait",
        )
        .body(RequestBody::fields(
            "status: active",
            &[&[Field::required("status", FieldKind::OneOf(&["active"]), "")]],
        ))
        .responses(NO_CONTENT),
    },
    Route {
        handler: handler!(stop),
        operation: Operation::delete(
            ITEM,
            "stopMultiPartyCall",
            "End a multi-party call; its participants leave",
        )
        .responses(NO_CONTENT),
    },
    Route {
        handler: handler!(participants),
        operation: Operation::get(
            "/v1/Account/{auth_id}/MultiPartyCall/{mpc}/Participant/",
            "listParticipants",
            "List the participants of a multi-party call",
        )
        .responses(&[object::<Participants>(200, "The participants")]),
    },
    Route {
        handler: handler!(participant),
        operation: Operation::get(PARTICIPANT, "participant", "Retrieve a participant")
            .responses(&[object::<Participant>(200, "The participant")]),
    },
    Route {
        handler: handler!(change),
        operation: Operation::post(
            PARTICIPANT,
            "changeParticipant",
            "Mute or hold a participant, or set the coach mode",
        )
        .body(RequestBody::fields(
            "mute, hold, coach_mode",
            &[&[
                Field::optional("mute", FieldKind::Flag, "One of the three is required"),
                Field::optional("hold", FieldKind::Flag, ""),
                Field::optional("coach_mode", FieldKind::Flag, "true: only agents hear it"),
            ]],
        ))
        .responses(&[object::<ChangedParticipant>(202, "What changed")]),
    },
    Route {
        handler: handler!(kick),
        operation: Operation::delete(
            PARTICIPANT,
            "kickParticipant",
            "Remove a participant; its document goes on",
        )
        .responses(NO_CONTENT),
    },
    Route {
        handler: handler!(play),
        operation: Operation::post(
            PLAY,
            "playToParticipant",
            "Play a sound to a participant, or to all",
        )
        .body(RequestBody::fields("url. A form is accepted too", &[SOUND_FIELDS]))
        .responses(QUEUED),
    },
    Route {
        handler: handler!(stop_playing),
        operation: Operation::delete(
            PLAY,
            "stopPlayingToParticipant",
            "Stop playing to a participant, or to all",
        )
        .responses(NO_CONTENT),
    },
    Route {
        handler: handler!(speak),
        operation: Operation::post(
            SPEAK,
            "speakToParticipant",
            "Speak a text to a participant, or to all",
        )
        .body(RequestBody::fields(
            "text, voice, language, type (text or ssml). A form is accepted too",
            &[SPEECH_FIELDS],
        ))
        .responses(QUEUED),
    },
    Route {
        handler: handler!(stop_speaking),
        operation: Operation::delete(
            SPEAK,
            "stopSpeakingToParticipant",
            "Stop speaking to a participant, or to all",
        )
        .responses(NO_CONTENT),
    },
];

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoMultiPartyCall)]
struct MultiPartyCall {
    billed_amount: &'static str,
    billed_duration: u64,
    creation_time: String,
    duration: u64,
    end_time: Option<String>,
    friendly_name: String,
    mpc_uuid: String,
    participants: String,
    recording: Option<String>,
    resource_uri: String,
    start_time: Option<String>,
    status: &'static str,
    stay_alone: bool,
    #[schema(value_type = Option<String>)]
    sub_account: Option<AuthId>,
    termination_cause: Option<&'static str>,
    termination_cause_code: Option<u16>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoMultiPartyCalls)]
struct MultiPartyCalls {
    meta: PageMeta,
    objects: Vec<MultiPartyCall>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoParticipant)]
struct Participant {
    billed_amount: &'static str,
    billed_duration: u64,
    call_uuid: String,
    coach_mode: bool,
    duration: u64,
    end_mpc_on_exit: bool,
    exit_cause: Option<String>,
    exit_time: Option<String>,
    hold: bool,
    join_time: String,
    member_id: String,
    mpc_uuid: String,
    mute: bool,
    resource_uri: String,
    role: &'static str,
    start_mpc_on_enter: bool,
}

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoParticipants)]
struct Participants {
    meta: PageMeta,
    objects: Vec<Participant>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoParticipantChanged)]
struct ChangedParticipant {
    message: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mute: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hold: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    coach_mode: Option<bool>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoQueuedIntoMpc)]
#[serde(rename_all = "camelCase")]
struct QueuedSound {
    message: &'static str,
    mpc_member_id: Vec<String>,
    mpc_name: String,
}

/// The `{mpc}` of the path: `name_NAME` or `uuid_UUID`.
pub(super) fn room_id(request: &PlivoRequest) -> &str {
    request.parameter("mpc")
}

/// Returns the multi-party call in the path, if it has not ended.
pub(super) fn live_room(request: &PlivoRequest) -> Result<RoomView, PlivoError> {
    request.api().rooms.find(&request.scope, KIND, room_id(request)).ok_or(NO_ROOM)
}

/// Returns the multi-party call in the path: the live one, or else the latest that has ended.
async fn any_room(request: &PlivoRequest) -> Result<RoomView, PlivoError> {
    let error = match live_room(request) {
        Ok(room) => return Ok(room),
        Err(error) => error,
    };
    let id = room_id(request);
    let is_it = |room: &RoomView| match (id.strip_prefix("name_"), id.strip_prefix("uuid_")) {
        (Some(name), _) => room.name == name,
        (None, Some(id)) => room.id.to_string() == id,
        (None, None) => false,
    };
    request.api().rooms.ended_all(&request.scope).await.into_iter().find(is_it).ok_or(error)
}

async fn list(request: PlivoRequest) -> Result<Response, PlivoError> {
    let (api, scope) = (request.api(), &request.scope);
    let RoomList { mut rooms, silent } = api.rooms.list_all(scope, KIND).await;
    rooms.sort_by_key(|room| std::cmp::Reverse(room.made));
    rooms.extend(api.rooms.ended_all(scope).await);
    let filter = Filter::parse(request.query())?;
    rooms.retain(|room| filter.matches(room));
    for (name, value) in request.query().iter().filter(|(_, value)| !value.is_empty()) {
        let (field, compare) = query::compared(name);
        if let "creation_time" | "end_time" = field {
            let bounds = query::time_bounds(name, compare, value)?;
            let time =
                |room: &RoomView| if field == "end_time" { room.ended } else { Some(room.made) };
            let holds = |time| bounds.iter().all(|(compare, bound)| compare.holds(&time, bound));
            rooms.retain(|room| time(room).is_some_and(holds));
        }
    }
    // Plivo writes this status differently in a list and in a single object.
    let in_list = |object: MultiPartyCall| match object.status {
        "Ended" => MultiPartyCall { status: "ended", ..object },
        _ => object,
    };
    let objects = rooms.into_iter().map(|room| in_list(view(scope, room))).collect();
    let list_uri = resource_uri(scope, "MultiPartyCall/");
    let (meta, objects) = page_of(objects, &list_uri, request.query())?;
    let mut response = ok(&MultiPartyCalls { meta, objects });
    name_silent(&mut response, &silent);
    Ok(response)
}

/// The filters of the list, except for those by time.
struct Filter<'q> {
    name: Option<&'q str>,
    status: Option<&'static str>,
    account: Option<&'q str>,
    termination_cause_code: Option<u16>,
}

impl<'q> Filter<'q> {
    fn parse(pairs: &'q Pairs) -> Result<Self, PlivoError> {
        let value = |name| value(pairs, name).filter(|value| !value.is_empty());
        let status = |word: &str| {
            let known = STATUSES.into_iter().find(|known| known.eq_ignore_ascii_case(word));
            known.ok_or_else(|| query::bad("status", "initialized, active or ended"))
        };
        let code = |code: &str| {
            code.parse().map_err(|_| query::bad("termination_cause_code", "an integer"))
        };
        Ok(Self {
            name: value("friendly_name"),
            status: value("status").map(status).transpose()?,
            account: value("sub_account"),
            termination_cause_code: value("termination_cause_code").map(code).transpose()?,
        })
    }

    fn matches(&self, room: &RoomView) -> bool {
        let has_cause = |code| termination_cause(room).is_some_and(|cause| cause.code == code);
        self.name.is_none_or(|name| name == room.name)
            && self.status.is_none_or(|wanted| wanted == status(room))
            && self.account.is_none_or(|account| account == room.account.as_str())
            && self.termination_cause_code.is_none_or(has_cause)
    }
}

/// The termination cause of a multi-party call that has ended.
fn termination_cause(room: &RoomView) -> Option<WireCause> {
    let cause = if room.failed { HangupCause::NodeFailure } else { HangupCause::MpcEnded };
    // Neither cause depends on the direction.
    room.ended.map(|_| cause.wire(Direction::Inbound))
}

/// The values of `status`.
const STATUSES: [&str; 3] = ["Initialized", "Active", "Ended"];

fn status(room: &RoomView) -> &'static str {
    let [initialized, active, ended] = STATUSES;
    match (room.ended, room.started) {
        (Some(_), _) => ended,
        (None, Some(_)) => active,
        (None, None) => initialized,
    }
}

fn view(scope: &Scope, room: RoomView) -> MultiPartyCall {
    let uri = resource_uri(scope, &format!("MultiPartyCall/uuid_{}/", room.id));
    let cause = termination_cause(&room);
    // Of a call that has ended, the members are those that it had.
    let members = if room.members.is_empty() { &room.left } else { &room.members };
    MultiPartyCall {
        billed_amount: NO_COST,
        billed_duration: seconds_rounded_up(room.age),
        creation_time: room.made.plivo_cdr(),
        duration: seconds_rounded_up(room.age),
        end_time: room.ended.map(Timestamp::plivo_cdr),
        status: status(&room),
        termination_cause: cause.as_ref().map(|cause| cause.name),
        termination_cause_code: cause.as_ref().map(|cause| cause.code),
        mpc_uuid: room.id.to_string(),
        participants: format!("{uri}Participant/"),
        resource_uri: uri,
        start_time: room.started.map(Timestamp::plivo_cdr),
        stay_alone: members.iter().all(|member| member.stays_alone),
        recording: room.recording,
        sub_account: Some(room.account).filter(|account| account.as_str().starts_with("SA")),
        friendly_name: room.name,
    }
}

async fn get(request: PlivoRequest) -> Result<Response, PlivoError> {
    Ok(ok(&view(&request.scope, any_room(&request).await?)))
}

async fn start(request: PlivoRequest) -> Result<Response, PlivoError> {
    // The Python SDK sends a list of one word.
    let status = request.fields()?.texts("status").map_err(PlivoError::BadRequest)?;
    if !matches!(status.as_slice(), [one] if one.eq_ignore_ascii_case("active")) {
        return Err(PlivoError::BadRequest("status must be active".to_owned()));
    }
    match request.api().rooms.begin(&request.scope, KIND, room_id(&request)) {
        true => Ok(no_content()),
        false => Err(NO_ROOM),
    }
}

async fn stop(request: PlivoRequest) -> Result<Response, PlivoError> {
    match request.api().rooms.stop(&request.scope, KIND, room_id(&request)) {
        true => Ok(no_content()),
        false => Err(NO_ROOM),
    }
}

fn participant_view(scope: &Scope, room: &RoomView, member: &MemberView) -> Participant {
    let path = format!("MultiPartyCall/uuid_{}/Participant/{}/", room.id, member.member);
    Participant {
        billed_amount: NO_COST,
        billed_duration: seconds_rounded_up(member.since),
        call_uuid: member.call.to_string(),
        coach_mode: member.coaches,
        duration: seconds_rounded_up(member.since),
        end_mpc_on_exit: member.ends,
        exit_cause: member.left.as_ref().map(|left| left.cause.clone()),
        exit_time: member.left.as_ref().map(|left| left.at.plivo_cdr()),
        hold: member.held,
        join_time: member.joined.plivo_cdr(),
        member_id: member.member.to_string(),
        mpc_uuid: room.id.to_string(),
        mute: member.muted,
        resource_uri: resource_uri(scope, &path),
        role: member.role.map_or("", machine::Role::as_str),
        start_mpc_on_enter: member.starts,
    }
}

async fn participants(request: PlivoRequest) -> Result<Response, PlivoError> {
    let (room, scope) = (any_room(&request).await?, &request.scope);
    let objects = room.everybody().into_iter();
    let objects = objects.map(|member| participant_view(scope, &room, member)).collect();
    let list_uri = resource_uri(scope, &format!("MultiPartyCall/uuid_{}/Participant/", room.id));
    let (meta, objects) = page_of(objects, &list_uri, request.query())?;
    Ok(ok(&Participants { meta, objects }))
}

async fn participant(request: PlivoRequest) -> Result<Response, PlivoError> {
    let (room, id) = (any_room(&request).await?, request.parameter("member_id"));
    let everybody = room.everybody();
    let member = everybody.iter().find(|member| member.member.to_string() == id);
    Ok(ok(&participant_view(&request.scope, &room, member.ok_or(NO_MEMBER)?)))
}

async fn change(request: PlivoRequest) -> Result<Response, PlivoError> {
    let fields = request.fields()?;
    let flag = |name| fields.flag(name).map_err(PlivoError::BadRequest);
    let (mute, hold, coach_mode) = (flag("mute")?, flag("hold")?, flag("coach_mode")?);
    if mute.is_none() && hold.is_none() && coach_mode.is_none() {
        return Err(PlivoError::BadRequest("mute parameter is missing".to_owned()));
    }
    let commands = [
        mute.map(MemberCommand::Mute),
        hold.map(MemberCommand::Hold),
        coach_mode.map(MemberCommand::Coach),
    ];
    for command in commands.into_iter().flatten() {
        pass(&request, &command)?;
    }
    let message = "multiparty call participant updated";
    Ok(accepted(&ChangedParticipant { message, mute, hold, coach_mode }))
}

/// Passes a command to the participants in the path, and returns their ids.
fn pass(request: &PlivoRequest, command: &MemberCommand) -> Result<Vec<u64>, PlivoError> {
    let members = parse_members(request.parameter("member_id")).ok_or(NO_MEMBER)?;
    let rooms = &request.api().rooms;
    match rooms.ask(&request.scope, KIND, room_id(request), &members, command) {
        CommandResult::Done(ids) => Ok(ids),
        CommandResult::NoRoom => Err(NO_ROOM),
        CommandResult::NoMember => Err(NO_MEMBER),
    }
}

async fn kick(request: PlivoRequest) -> Result<Response, PlivoError> {
    pass(&request, &MemberCommand::Kick)?;
    Ok(no_content())
}

async fn play(request: PlivoRequest) -> Result<Response, PlivoError> {
    queue(&request, &play_command(&request)?, "play queued into MPC")
}

async fn stop_playing(request: PlivoRequest) -> Result<Response, PlivoError> {
    pass(&request, &MemberCommand::Stop(SoundKind::Play))?;
    Ok(no_content())
}

async fn speak(request: PlivoRequest) -> Result<Response, PlivoError> {
    queue(&request, &speak_command(&request)?, "speak queued into MPC")
}

async fn stop_speaking(request: PlivoRequest) -> Result<Response, PlivoError> {
    pass(&request, &MemberCommand::Stop(SoundKind::Speak))?;
    Ok(no_content())
}

/// Queues a sound for the participants in the path.
fn queue(
    request: &PlivoRequest,
    command: &MemberCommand,
    message: &'static str,
) -> Result<Response, PlivoError> {
    let mpc_name = live_room(request)?.name;
    let mpc_member_id = pass(request, command)?.iter().map(u64::to_string).collect();
    Ok(accepted(&QueuedSound { message, mpc_member_id, mpc_name }))
}

#[cfg(test)]
mod tests {
    use super::{Filter, PlivoError};

    #[test]
    fn parses_filters_and_names_bad_ones() {
        let pairs = |query: &str| -> Vec<(String, String)> {
            url::form_urlencoded::parse(query.as_bytes()).into_owned().collect()
        };
        let all =
            pairs("status=ACTIVE&termination_cause_code=4020&friendly_name=Care&sub_account=");
        let Ok(filter) = Filter::parse(&all) else { panic!("valid") };
        assert_eq!((filter.status, filter.termination_cause_code), (Some("Active"), Some(4020)));
        assert_eq!((filter.name, filter.account), (Some("Care"), None));
        for (query, why) in [
            ("status=bogus", "status must be initialized, active or ended"),
            ("termination_cause_code=x", "termination_cause_code must be an integer"),
        ] {
            let Err(PlivoError::BadRequest(error)) = Filter::parse(&pairs(query)) else {
                panic!("{query}")
            };
            assert_eq!(error, why);
        }
    }
}
