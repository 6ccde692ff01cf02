//! Conferences over REST (`plivo-call-api.md` §3): the rooms that are there now, and what is asked of their members.

use std::borrow::Cow;

use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::routes::{Answer, Body, Content, Route, of};
use super::super::{Api, decoded, error};
use super::recording::{self, Started};
use super::{Ask, CONFLICT, No, control, customer_url};
use crate::call::rooms::{Asked, MemberAsk, Members};
use machine::{RoomKind, Sound, SoundItem};
use media::SoundKind;
use xml::ast::Speak;

const NO_ROOM: No = No::NotFound("conference not found");
const NO_MEMBER: No = No::NotFound("member not found");
const KIND: RoomKind = RoomKind::Conference;

const GONE: &[Answer] = &[Answer { status: 204, what: "They are told", content: Content::Nothing }];
const DONE: &[Answer] = &[Answer {
    status: 202,
    what: "Whom it concerns",
    content: Content::Plivo(&[of::<Done<'static>>]),
}];

const fn route(
    method: &'static str,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
) -> Route {
    let answers = if method.len() == "DELETE".len() { GONE } else { DONE };
    Route { method, path, id, summary, query: &[], body: None, answers }
}

const fn with_body(route: Route, what: &'static str) -> Route {
    Route { body: Some(Body { content_type: "application/json", what }), ..route }
}

const RECORD: &str = "/v1/Account/{auth_id}/Conference/{name}/Record/";
const MUTE: &str = "/v1/Account/{auth_id}/Conference/{name}/Member/{member_ids}/Mute/";
const DEAF: &str = "/v1/Account/{auth_id}/Conference/{name}/Member/{member_ids}/Deaf/";
const KICK: &str = "/v1/Account/{auth_id}/Conference/{name}/Member/{member_ids}/Kick/";
const MEMBER: &str = "/v1/Account/{auth_id}/Conference/{name}/Member/{member_ids}/";
const PLAY: &str = "/v1/Account/{auth_id}/Conference/{name}/Member/{member_ids}/Play/";
const SPEAK: &str = "/v1/Account/{auth_id}/Conference/{name}/Member/{member_ids}/Speak/";

pub(super) const ROUTES: &[Route] = &[
    Route {
        answers: &[Answer {
            status: 200,
            what: "The names",
            content: Content::Plivo(&[of::<Conferences>]),
        }],
        ..route(
            "GET",
            "/v1/Account/{auth_id}/Conference/",
            "listConferences",
            "The names of the account's conferences",
        )
    },
    route(
        "DELETE",
        "/v1/Account/{auth_id}/Conference/",
        "endConferences",
        "Hangs up all members of all conferences",
    ),
    Route {
        answers: &[Answer {
            status: 200,
            what: "It and its members",
            content: Content::Plivo(&[of::<Conference>]),
        }],
        ..route(
            "GET",
            "/v1/Account/{auth_id}/Conference/{name}/",
            "conference",
            "One conference that somebody is in",
        )
    },
    route(
        "DELETE",
        "/v1/Account/{auth_id}/Conference/{name}/",
        "endConference",
        "Hangs up all its members",
    ),
    Route {
        answers: &[
            Answer {
                status: 202,
                what: "What the recording will be called",
                content: Content::Plivo(&[of::<Started>]),
            },
            CONFLICT,
        ],
        ..with_body(
            route(
                "POST",
                RECORD,
                "recordConference",
                "Records all that is said there until it is over",
            ),
            "file_format (mp3 or wav), callback_url, callback_method. A form is taken too",
        )
    },
    route("DELETE", RECORD, "stopRecordingConference", "Records it no longer"),
    route(
        "POST",
        MUTE,
        "muteMembers",
        "They are heard no longer; ids with commas between them, or all",
    ),
    route("DELETE", MUTE, "unmuteMembers", "They are heard again"),
    route("POST", DEAF, "deafenMembers", "They hear the others no longer"),
    route("DELETE", DEAF, "undeafenMembers", "They hear the others again"),
    route("POST", KICK, "kickMembers", "They leave the conference, and their documents go on"),
    route("DELETE", MEMBER, "hangUpMembers", "They are hung up"),
    with_body(
        route(
            "POST",
            PLAY,
            "playToMembers",
            "Plays a file to them, after what was so ordered before",
        ),
        "url. A form is taken too",
    ),
    route("DELETE", PLAY, "stopPlayingToMembers", "Plays it no longer"),
    with_body(
        route(
            "POST",
            SPEAK,
            "speakToMembers",
            "Says a text to them, after what was so ordered before",
        ),
        "text, voice, language, type (text or ssml). A form is taken too",
    ),
    route("DELETE", SPEAK, "stopSpeakingToMembers", "Says it no longer"),
];

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoConferences)]
pub(super) struct Conferences {
    conferences: Vec<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoConference)]
pub(super) struct Conference {
    conference_name: String,
    /// Seconds, as digits; likewise the others.
    conference_run_time: String,
    conference_member_count: String,
    members: Vec<Member>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoConferenceMember)]
pub(super) struct Member {
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
pub(super) struct Done<'a> {
    message: Cow<'a, str>,
    #[schema(value_type = Vec<String>)]
    member_id: Ids,
}

/// One by itself, several as a list (§3).
#[derive(Serialize)]
#[serde(untagged)]
enum Ids {
    One(String),
    Several(Vec<String>),
}

/// Anything below `Conference/`.
pub(super) fn route_of(api: &Api, ask: &Ask, path: &[&str]) -> Result<Response, No> {
    match (ask.method.as_str(), path) {
        ("GET", []) => Ok(list(api, ask)),
        ("DELETE", []) => Ok(hang_up_all(api, ask)),
        ("GET", [name]) => one(api, ask, name),
        ("DELETE", [name]) => hang_up(api, ask, name),
        ("POST", [name, "Record"]) => {
            let (recording_id, url) =
                recording::begin_room(api, ask, KIND, &decoded(name))?.ok_or(NO_ROOM)?;
            let started = Started { message: "conference recording started", recording_id, url };
            Ok(error::plivo_body(StatusCode::ACCEPTED, &started))
        }
        ("DELETE", [name, "Record"]) => {
            recording::end_room(api, ask, KIND, &decoded(name))?.ok_or(NO_ROOM)
        }
        ("POST", [name, "Member", ids, "Mute"]) => {
            members(api, ask, name, ids, &MemberAsk::Mute(true), Some("muted"))
        }
        ("DELETE", [name, "Member", ids, "Mute"]) => {
            members(api, ask, name, ids, &MemberAsk::Mute(false), None)
        }
        ("POST", [name, "Member", ids, "Deaf"]) => {
            members(api, ask, name, ids, &MemberAsk::Deaf(true), Some("deaf"))
        }
        ("DELETE", [name, "Member", ids, "Deaf"]) => {
            members(api, ask, name, ids, &MemberAsk::Deaf(false), None)
        }
        ("POST", [name, "Member", ids, "Kick"]) => {
            members(api, ask, name, ids, &MemberAsk::Kick, Some("kicked"))
        }
        ("DELETE", [name, "Member", ids]) => members(api, ask, name, ids, &MemberAsk::HangUp, None),
        ("POST", [name, "Member", ids, "Play"]) => {
            let what = played(api, ask)?;
            members(api, ask, name, ids, &what, Some("play queued into conference"))
        }
        ("DELETE", [name, "Member", ids, "Play"]) => {
            members(api, ask, name, ids, &MemberAsk::Stop(SoundKind::Play), None)
        }
        ("POST", [name, "Member", ids, "Speak"]) => {
            let what = spoken(ask)?;
            members(api, ask, name, ids, &what, Some("speak queued into conference"))
        }
        ("DELETE", [name, "Member", ids, "Speak"]) => {
            members(api, ask, name, ids, &MemberAsk::Stop(SoundKind::Speak), None)
        }
        _ => Err(No::NotFound(super::NOT_HERE)),
    }
}

fn list(api: &Api, ask: &Ask) -> Response {
    let conferences = api.rooms.list(&ask.scope, KIND).into_iter().map(|room| room.name).collect();
    error::plivo_body(StatusCode::OK, &Conferences { conferences })
}

fn hang_up_all(api: &Api, ask: &Ask) -> Response {
    for room in api.rooms.list(&ask.scope, KIND) {
        api.rooms.ask(&ask.scope, KIND, &room.name, &Members::All, &MemberAsk::HangUp);
    }
    error::plivo_no_content()
}

fn one(api: &Api, ask: &Ask, name: &str) -> Result<Response, No> {
    let room = api.rooms.find(&ask.scope, KIND, &decoded(name)).ok_or(NO_ROOM)?;
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
    let conference = Conference {
        conference_name: room.name,
        conference_run_time: room.age.as_secs().to_string(),
        conference_member_count: members.len().to_string(),
        members,
    };
    Ok(error::plivo_body(StatusCode::OK, &conference))
}

fn hang_up(api: &Api, ask: &Ask, name: &str) -> Result<Response, No> {
    match api.rooms.ask(&ask.scope, KIND, &decoded(name), &Members::All, &MemberAsk::HangUp) {
        Asked::Done(_) => Ok(error::plivo_no_content()),
        Asked::NoRoom | Asked::NoMember => Err(NO_ROOM),
    }
}

/// Asks something of members; without a message it is a 204.
fn members(
    api: &Api,
    ask: &Ask,
    name: &str,
    ids: &str,
    what: &MemberAsk,
    message: Option<&'static str>,
) -> Result<Response, No> {
    let whom = whom(&decoded(ids)).ok_or(NO_MEMBER)?;
    let asked = match api.rooms.ask(&ask.scope, KIND, &decoded(name), &whom, what) {
        Asked::Done(asked) => asked,
        Asked::NoRoom => return Err(NO_ROOM),
        Asked::NoMember => return Err(NO_MEMBER),
    };
    let Some(message) = message else { return Ok(error::plivo_no_content()) };
    let member_id = match (whom, asked.as_slice()) {
        (Members::These(_), [one]) => Ids::One(one.to_string()),
        (Members::These(_) | Members::All, several) => {
            Ids::Several(several.iter().map(u64::to_string).collect())
        }
    };
    Ok(error::plivo_body(StatusCode::ACCEPTED, &Done { message: message.into(), member_id }))
}

/// One id, several between commas, or `all`.
pub(super) fn whom(ids: &str) -> Option<Members> {
    if ids == "all" {
        return Some(Members::All);
    }
    ids.split(',').map(|id| id.trim().parse().ok()).collect::<Option<Vec<_>>>().map(Members::These)
}

/// `url`: a file.
pub(super) fn played(api: &Api, ask: &Ask) -> Result<MemberAsk, No> {
    let url = ask.fields()?.required("url").map_err(No::Bad)?;
    let url = customer_url(api, "url", &url).map_err(No::Bad)?;
    Ok(MemberAsk::Play(SoundKind::Play, vec![SoundItem::once(Sound::File { url })]))
}

/// `text` and how it is said.
pub(super) fn spoken(ask: &Ask) -> Result<MemberAsk, No> {
    let Speak { speech, voice, language, .. } = control::said(&ask.fields()?).map_err(No::Bad)?;
    Ok(MemberAsk::Play(
        SoundKind::Speak,
        vec![SoundItem::once(Sound::Speak { speech, voice, language })],
    ))
}
