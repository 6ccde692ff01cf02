//! Recordings of multi-party calls over REST (`plivo-call-api.md` §4): of all that is said, and of what one participant says;
//! begun, held up, taken up again and ended.

use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::fields::Fields;
use super::super::routes::{Answer, Body, Content, Route, of};
use super::super::{Api, decoded, error};
use super::multi_party::{KIND, NO_MEMBER, NO_ROOM};
use super::place::url;
use super::recording::{ROOM_MAX_MS, is_mp3};
use super::{Ask, CONFLICT, No};
use crate::call::rooms::Tracked;
use machine::{MemberId, RecordingOrder, TrackCommand, TranscriptOrder};
use media::record::Format;
use xml::ast::Target;

const NOT_RECORDED: No = No::NotFound("it is not being recorded");
const GONE: &[Answer] = &[Answer { status: 204, what: "It is told", content: Content::Nothing }];
const STARTED: &[Answer] = &[
    Answer { status: 202, what: "It is recorded", content: Content::Plivo(&[of::<Started>]) },
    CONFLICT,
];
const HOW: Body = Body {
    content_type: "application/json",
    what: "file_format (mp3 or wav), recording_callback_url, recording_callback_method, transcription_url. A form is taken too",
};

const ALL: &str = "/v1/Account/{auth_id}/MultiPartyCall/{mpc}/Record/";
const PAUSE: &str = "/v1/Account/{auth_id}/MultiPartyCall/{mpc}/Record/Pause/";
const RESUME: &str = "/v1/Account/{auth_id}/MultiPartyCall/{mpc}/Record/Resume/";
const ONE: &str = "/v1/Account/{auth_id}/MultiPartyCall/{mpc}/Participant/{member_id}/Record/";
const PAUSE_ONE: &str =
    "/v1/Account/{auth_id}/MultiPartyCall/{mpc}/Participant/{member_id}/Record/Pause/";
const RESUME_ONE: &str =
    "/v1/Account/{auth_id}/MultiPartyCall/{mpc}/Participant/{member_id}/Record/Resume/";

const fn begin(path: &'static str, id: &'static str, summary: &'static str) -> Route {
    Route { method: "POST", path, id, summary, query: &[], body: Some(HOW), answers: STARTED }
}

const fn tell(
    method: &'static str,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
) -> Route {
    Route { method, path, id, summary, query: &[], body: None, answers: GONE }
}

pub(super) const ROUTES: &[Route] = &[
    begin(ALL, "recordMultiPartyCall", "Records all that is said in it; once at a time"),
    tell("DELETE", ALL, "stopRecordingMultiPartyCall", "Records it no longer"),
    tell("POST", PAUSE, "pauseRecordingMultiPartyCall", "Leaves out what is said from now on"),
    tell("POST", RESUME, "resumeRecordingMultiPartyCall", "Records what is said again"),
    begin(ONE, "recordParticipant", "Records what one participant says; once at a time"),
    tell("DELETE", ONE, "stopRecordingParticipant", "Records it no longer"),
    tell("POST", PAUSE_ONE, "pauseRecordingParticipant", "Leaves out what it says from now on"),
    tell("POST", RESUME_ONE, "resumeRecordingParticipant", "Records what it says again"),
];

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoMpcRecordingStarted)]
pub(super) struct Started {
    message: &'static str,
    recording_id: String,
    recording_url: String,
}

/// What stands behind `Record` of a multi-party call (`member`: of one of its participants).
pub(super) fn route_of(
    api: &Api,
    ask: &Ask,
    mpc: &str,
    member: Option<&str>,
    rest: &[&str],
) -> Result<Response, No> {
    match (ask.method.as_str(), rest, member) {
        ("POST", [], None) => {
            let (order, callback) = order(api, &ask.fields()?, false).map_err(No::Bad)?;
            let started = started(api, &order, "MPC recording started");
            done(api.rooms.begin_recording(&ask.scope, KIND, mpc, order, callback), taken())?;
            Ok(error::plivo_body(StatusCode::ACCEPTED, &started))
        }
        ("DELETE", [], None) => {
            done(api.rooms.end_recording(&ask.scope, KIND, mpc), NOT_RECORDED)?;
            Ok(error::plivo_no_content())
        }
        ("POST", [word @ ("Pause" | "Resume")], None) => {
            done(api.rooms.pause_recording(&ask.scope, KIND, mpc, *word == "Pause"), NOT_RECORDED)?;
            Ok(error::plivo_no_content())
        }
        ("POST", [], Some(member)) => {
            let (order, callback) = order(api, &ask.fields()?, true).map_err(No::Bad)?;
            let started = started(api, &order, "participant recording started");
            let what = TrackCommand::Begin { order: Box::new(order), callback };
            track(api, ask, mpc, member, what, taken())?;
            Ok(error::plivo_body(StatusCode::ACCEPTED, &started))
        }
        ("DELETE", [], Some(member)) => {
            track(api, ask, mpc, member, TrackCommand::Stop, NOT_RECORDED)?;
            Ok(error::plivo_no_content())
        }
        ("POST", [word @ ("Pause" | "Resume")], Some(member)) => {
            track(
                api,
                ask,
                mpc,
                member,
                TrackCommand::Pause { on: *word == "Pause" },
                NOT_RECORDED,
            )?;
            Ok(error::plivo_no_content())
        }
        _ => Err(No::NotFound(super::NOT_HERE)),
    }
}

fn taken() -> No {
    No::Conflict("it is being recorded already".to_owned())
}

fn done(asked: Option<bool>, otherwise: No) -> Result<(), No> {
    match asked {
        Some(true) => Ok(()),
        Some(false) => Err(otherwise),
        None => Err(NO_ROOM),
    }
}

fn track(
    api: &Api,
    ask: &Ask,
    mpc: &str,
    member: &str,
    what: TrackCommand,
    otherwise: No,
) -> Result<(), No> {
    let member: MemberId = decoded(member).parse().map_err(|_| NO_MEMBER)?;
    match api.rooms.track(&ask.scope, mpc, member, what) {
        Tracked::Done => Ok(()),
        Tracked::NoRoom => Err(NO_ROOM),
        Tracked::NoMember => Err(NO_MEMBER),
        Tracked::Otherwise => Err(otherwise),
        Tracked::Full => Err(No::TooMany {
            why: "too much is asked of this call at once".to_owned(),
            seconds: 1,
        }),
    }
}

fn started(api: &Api, order: &RecordingOrder, message: &'static str) -> Started {
    let id = order.id.unwrap_or_default();
    let recording_url = api.recordings.url(id, Format::of(order.mp3).as_str());
    Started { message, recording_id: id.as_hyphenated().to_string(), recording_url }
}

fn order(
    api: &Api,
    fields: &Fields,
    own: bool,
) -> Result<(RecordingOrder, Option<Target>), String> {
    let target = |name: &str| {
        url(api, fields, name).map(|to| to.map(|(url, method)| Target { url, method }))
    };
    let transcript =
        target("transcription")?.filter(|_| !matches!(fields.flag("transcript"), Ok(Some(false))));
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
    Ok((order, target("recording_callback")?))
}
