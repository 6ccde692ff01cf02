//! Multi-party calls over REST (`plivo-call-api.md` §4): those that are there, those that are over, and what is asked of their
//! participants; how they are added is `multi_party_add`'s.

use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::routes::{Answer, Body, Content, Route, of};
use super::super::{Api, decoded, error};
use super::conference::{played, spoken, whom};
use super::paging::{Meta, paged};
use super::query::{self, Pairs, value};
use super::{
    Ask, BARRED, CONFLICT, LIMIT, NOT_ALLOWED, No, OFFSET, begun_seconds, multi_party_add,
    multi_party_record, uri,
};
use crate::call::rooms::{Asked, MemberAsk, MemberView, Members, RoomView};
use machine::RoomKind;
use media::SoundKind;
use model::{AuthId, Direction, HangupCause, Timestamp, WireCause};

pub(super) const NO_ROOM: No = No::NotFound("multiparty call not found");
pub(super) const NO_MEMBER: No = No::NotFound("participant not found");
pub(super) const KIND: RoomKind = RoomKind::MultiParty;
const NO_COST: &str = "0.00000";

const GONE: &[Answer] = &[Answer { status: 204, what: "It is told", content: Content::Nothing }];
const DONE: &[Answer] =
    &[Answer { status: 202, what: "Whom it concerns", content: Content::Plivo(&[of::<Done>]) }];
const QUEUED: &[Answer] =
    &[Answer { status: 202, what: "Whom it concerns", content: Content::Plivo(&[of::<Queued>]) }];

const fn route(
    method: &'static str,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
) -> Route {
    Route { method, path, id, summary, query: &[], body: None, answers: GONE }
}

const fn json(route: Route, what: &'static str, answers: &'static [Answer]) -> Route {
    Route { body: Some(Body { content_type: "application/json", what }), answers, ..route }
}

const TIMES: &str = "YYYY-MM-DD[ HH:MM[:SS[.ffffff]]], UTC; also __gt, __gte, __lt, __lte";
const ALL: &str = "/v1/Account/{auth_id}/MultiPartyCall/";
const ONE: &str = "/v1/Account/{auth_id}/MultiPartyCall/{mpc}/";
const PARTICIPANTS: &str = "/v1/Account/{auth_id}/MultiPartyCall/{mpc}/Participant/";
const PARTICIPANT: &str = "/v1/Account/{auth_id}/MultiPartyCall/{mpc}/Participant/{member_id}/";
const PLAY: &str = "/v1/Account/{auth_id}/MultiPartyCall/{mpc}/Member/{member_id}/Play/";
const SPEAK: &str = "/v1/Account/{auth_id}/MultiPartyCall/{mpc}/Member/{member_id}/Speak/";

pub(super) const ROUTES: &[Route] = &[
    Route {
        query: &[
            LIMIT,
            OFFSET,
            super::Query {
                name: "friendly_name",
                what: "Only of this name",
                kind: super::Kind::Text,
            },
            super::Query {
                name: "status",
                what: "Only those",
                kind: super::Kind::Words(&["initialized", "active", "ended"]),
            },
            super::Query {
                name: "sub_account",
                what: "Only of this subaccount",
                kind: super::Kind::Text,
            },
            super::Query { name: "creation_time", what: TIMES, kind: super::Kind::Text },
            super::Query { name: "end_time", what: TIMES, kind: super::Kind::Text },
        ],
        answers: &[Answer { status: 200, what: "A page", content: Content::Plivo(&[of::<List>]) }],
        ..route(
            "GET",
            ALL,
            "listMultiPartyCalls",
            "Multi-party calls that somebody is in, and the latest that are over",
        )
    },
    Route {
        answers: &[Answer {
            status: 200,
            what: "It",
            content: Content::Plivo(&[of::<MultiParty>]),
        }],
        ..route("GET", ONE, "multiPartyCall", "One multi-party call, by name_NAME or uuid_UUID")
    },
    json(
        route("POST", ONE, "startMultiPartyCall", "Starts one whose participants wait"),
        "status: active",
        GONE,
    ),
    route("DELETE", ONE, "stopMultiPartyCall", "Ends it: its participants leave"),
    Route {
        answers: &[Answer {
            status: 200,
            what: "They",
            content: Content::Plivo(&[of::<Participants>]),
        }],
        ..route("GET", PARTICIPANTS, "listParticipants", "Its participants")
    },
    json(
        route(
            "POST",
            PARTICIPANTS,
            "addParticipant",
            "Calls a user, or takes a call that is up, into it",
        ),
        "role, and from and to or call_uuid; the element's attributes in small letters with underscores; of who is called also \
         send_digits, ring_timeout and delay_dial (one number, or several with < between them), caller_name, sip_headers, \
         confirm_key, confirm_key_sound_url, dial_music, create_mpc_with_single_participant. A form is taken too",
        &[
            Answer {
                status: 201,
                what: "It is on its way",
                content: Content::Plivo(&[of::<multi_party_add::Added>]),
            },
            BARRED,
            CONFLICT,
            NOT_ALLOWED,
        ],
    ),
    Route {
        answers: &[Answer {
            status: 200,
            what: "It",
            content: Content::Plivo(&[of::<Participant>]),
        }],
        ..route("GET", PARTICIPANT, "participant", "One participant")
    },
    json(
        route("POST", PARTICIPANT, "changeParticipant", "Mutes, holds or coaches"),
        "mute, hold, coach_mode",
        DONE,
    ),
    route("DELETE", PARTICIPANT, "kickParticipant", "It leaves, and its document goes on"),
    json(
        route("POST", PLAY, "playToParticipant", "Plays a file to it, or to all"),
        "url. A form is taken too",
        QUEUED,
    ),
    route("DELETE", PLAY, "stopPlayingToParticipant", "Plays it no longer"),
    json(
        route("POST", SPEAK, "speakToParticipant", "Says a text to it, or to all"),
        "text, voice, language, type (text or ssml). A form is taken too",
        QUEUED,
    ),
    route("DELETE", SPEAK, "stopSpeakingToParticipant", "Says it no longer"),
];

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoMultiPartyCall)]
pub(super) struct MultiParty {
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
pub(super) struct List {
    meta: Meta,
    objects: Vec<MultiParty>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoParticipant)]
pub(super) struct Participant {
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
pub(super) struct Participants {
    meta: Meta,
    objects: Vec<Participant>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoParticipantChanged)]
pub(super) struct Done {
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
pub(super) struct Queued {
    message: &'static str,
    mpc_member_id: Vec<String>,
    mpc_name: String,
}

/// Anything below `MultiPartyCall/`.
pub(super) async fn route_of(api: &Api, ask: &Ask, path: &[&str]) -> Result<Response, No> {
    let mpc = path.first().map(|mpc| decoded(mpc)).unwrap_or_default();
    match (ask.method.as_str(), path.get(1..).unwrap_or_default()) {
        ("GET", []) if path.is_empty() => list(api, ask),
        ("GET", []) => one(api, ask, &mpc),
        ("POST", []) => start(api, ask, &mpc),
        ("DELETE", []) => match api.rooms.stop(&ask.scope, KIND, &mpc) {
            true => Ok(error::plivo_no_content()),
            false => Err(NO_ROOM),
        },
        ("GET", ["Participant"]) => participants(api, ask, &mpc),
        ("POST", ["Participant"]) => multi_party_add::add(api, ask, &mpc).await,
        ("GET", ["Participant", id]) => participant(api, ask, &mpc, id),
        ("POST", ["Participant", id]) => change(api, ask, &mpc, id),
        ("DELETE", ["Participant", id]) => told(api, ask, &mpc, id, &MemberAsk::Kick),
        (_, ["Record", rest @ ..]) => multi_party_record::route_of(api, ask, &mpc, None, rest),
        (_, ["Participant", id, "Record", rest @ ..]) => {
            multi_party_record::route_of(api, ask, &mpc, Some(id), rest)
        }
        ("POST", ["Member", id, "Play"]) => {
            queued(api, ask, &mpc, id, &played(api, ask)?, "play queued into MPC")
        }
        ("POST", ["Member", id, "Speak"]) => {
            queued(api, ask, &mpc, id, &spoken(ask)?, "speak queued into MPC")
        }
        ("DELETE", ["Member", id, "Play"]) => {
            told(api, ask, &mpc, id, &MemberAsk::Stop(SoundKind::Play))
        }
        ("DELETE", ["Member", id, "Speak"]) => {
            told(api, ask, &mpc, id, &MemberAsk::Stop(SoundKind::Speak))
        }
        _ => Err(No::NotFound(super::NOT_HERE)),
    }
}

pub(super) fn room(api: &Api, ask: &Ask, mpc: &str) -> Result<RoomView, No> {
    api.rooms.find(&ask.scope, KIND, mpc).ok_or(NO_ROOM)
}

/// With those that are over, the latest of a name.
fn any_room(api: &Api, ask: &Ask, mpc: &str) -> Result<RoomView, No> {
    room(api, ask, mpc).or_else(|no| {
        let is_it = |room: &RoomView| match (mpc.strip_prefix("name_"), mpc.strip_prefix("uuid_")) {
            (Some(name), _) => room.name == name,
            (None, Some(id)) => room.id.to_string() == id,
            (None, None) => false,
        };
        api.rooms.ended(&ask.scope).into_iter().find(is_it).ok_or(no)
    })
}

fn list(api: &Api, ask: &Ask) -> Result<Response, No> {
    let mut rooms = api.rooms.list(&ask.scope, KIND);
    rooms.sort_by_key(|room| std::cmp::Reverse(room.made));
    rooms.extend(api.rooms.ended(&ask.scope));
    let wanted = Wanted::read(&ask.pairs)?;
    rooms.retain(|room| wanted.has(room));
    for (name, value) in ask.pairs.iter().filter(|(_, value)| !value.is_empty()) {
        let (field, compare) = query::compared(name);
        if let "creation_time" | "end_time" = field {
            let at = query::time_of(name, value)?;
            let of =
                |room: &RoomView| if field == "end_time" { room.ended } else { Some(room.made) };
            rooms.retain(|room| of(room).is_some_and(|of| compare.holds(&of, &at)));
        }
    }
    // Plivo's list and its single object write this word differently.
    let in_list = |object: MultiParty| match object.status {
        "Ended" => MultiParty { status: "ended", ..object },
        _ => object,
    };
    let objects = rooms.into_iter().map(|room| in_list(shown(ask, room))).collect();
    let (meta, objects) = paged(objects, &uri(&ask.scope, "MultiPartyCall/"), &ask.pairs)?;
    Ok(error::plivo_body(StatusCode::OK, &List { meta, objects }))
}

/// The list's filters, without those of times.
struct Wanted<'q> {
    name: Option<&'q str>,
    status: Option<&'static str>,
    account: Option<&'q str>,
    ended_by: Option<u16>,
}

impl<'q> Wanted<'q> {
    fn read(pairs: &'q Pairs) -> Result<Self, No> {
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
            ended_by: value("termination_cause_code").map(code).transpose()?,
        })
    }

    fn has(&self, room: &RoomView) -> bool {
        self.name.is_none_or(|name| name == room.name)
            && self.status.is_none_or(|status| status == status_of(room))
            && self.account.is_none_or(|account| account == room.account.as_str())
            && self.ended_by.is_none_or(|code| ended_by(room).is_some_and(|by| by.code == code))
    }
}

/// What ended it, if it is over (`plivo-callbacks.md` §6.2).
fn ended_by(room: &RoomView) -> Option<WireCause> {
    let cause = if room.failed { HangupCause::NodeFailure } else { HangupCause::MpcEnded };
    // Neither differs by the direction.
    room.ended.map(|_| cause.wire(Direction::Inbound))
}

/// How far one is.
const STATUSES: [&str; 3] = ["Initialized", "Active", "Ended"];

fn status_of(room: &RoomView) -> &'static str {
    let [initialized, active, ended] = STATUSES;
    match (room.ended, room.started) {
        (Some(_), _) => ended,
        (None, Some(_)) => active,
        (None, None) => initialized,
    }
}

fn shown(ask: &Ask, room: RoomView) -> MultiParty {
    let at = uri(&ask.scope, &format!("MultiPartyCall/uuid_{}/", room.id));
    MultiParty {
        billed_amount: NO_COST,
        billed_duration: begun_seconds(room.age),
        creation_time: room.made.plivo_cdr(),
        duration: begun_seconds(room.age),
        end_time: room.ended.map(Timestamp::plivo_cdr),
        status: status_of(&room),
        termination_cause: ended_by(&room).map(|by| by.name),
        termination_cause_code: ended_by(&room).map(|by| by.code),
        mpc_uuid: room.id.to_string(),
        participants: format!("{at}Participant/"),
        recording: room.recording,
        resource_uri: at,
        start_time: room.started.map(Timestamp::plivo_cdr),
        // Of those who are in; of one that is over, of those who were.
        stay_alone: if room.members.is_empty() { &room.left } else { &room.members }
            .iter()
            .all(|one| one.stays_alone),
        sub_account: Some(room.account).filter(|account| account.as_str().starts_with("SA")),
        friendly_name: room.name,
    }
}

fn one(api: &Api, ask: &Ask, mpc: &str) -> Result<Response, No> {
    let room = any_room(api, ask, mpc)?;
    Ok(error::plivo_body(StatusCode::OK, &shown(ask, room)))
}

fn start(api: &Api, ask: &Ask, mpc: &str) -> Result<Response, No> {
    // Plivo's own Python SDK sends a list of the one word.
    let status = ask.fields()?.texts("status").map_err(No::Bad)?;
    if !matches!(status.as_slice(), [one] if one.eq_ignore_ascii_case("active")) {
        return Err(No::Bad("status must be active".to_owned()));
    }
    match api.rooms.begin(&ask.scope, KIND, mpc) {
        true => Ok(error::plivo_no_content()),
        false => Err(NO_ROOM),
    }
}

fn of_room(ask: &Ask, room: &RoomView, member: &MemberView) -> Participant {
    Participant {
        billed_amount: NO_COST,
        billed_duration: begun_seconds(member.since),
        call_uuid: member.call.to_string(),
        coach_mode: member.coaches,
        duration: begun_seconds(member.since),
        end_mpc_on_exit: member.ends,
        exit_cause: member.left.as_ref().map(|left| left.cause.clone()),
        exit_time: member.left.as_ref().map(|left| left.at.plivo_cdr()),
        hold: member.held,
        join_time: member.joined.plivo_cdr(),
        member_id: member.member.to_string(),
        mpc_uuid: room.id.to_string(),
        mute: member.muted,
        resource_uri: uri(
            &ask.scope,
            &format!("MultiPartyCall/uuid_{}/Participant/{}/", room.id, member.member),
        ),
        role: member.role.map_or("", machine::Role::as_str),
        start_mpc_on_enter: member.starts,
    }
}

fn participants(api: &Api, ask: &Ask, mpc: &str) -> Result<Response, No> {
    let room = any_room(api, ask, mpc)?;
    let objects = room.everybody().into_iter().map(|member| of_room(ask, &room, member)).collect();
    let at = uri(&ask.scope, &format!("MultiPartyCall/uuid_{}/Participant/", room.id));
    let (meta, objects) = paged(objects, &at, &ask.pairs)?;
    Ok(error::plivo_body(StatusCode::OK, &Participants { meta, objects }))
}

fn participant(api: &Api, ask: &Ask, mpc: &str, id: &str) -> Result<Response, No> {
    let room = any_room(api, ask, mpc)?;
    let everybody = room.everybody();
    let member =
        everybody.iter().find(|member| member.member.to_string() == id).ok_or(NO_MEMBER)?;
    Ok(error::plivo_body(StatusCode::OK, &of_room(ask, &room, member)))
}

fn change(api: &Api, ask: &Ask, mpc: &str, id: &str) -> Result<Response, No> {
    let fields = ask.fields()?;
    let flag = |name| fields.flag(name).map_err(No::Bad);
    let (mute, hold, coach_mode) = (flag("mute")?, flag("hold")?, flag("coach_mode")?);
    if mute.is_none() && hold.is_none() && coach_mode.is_none() {
        return Err(No::Bad("mute parameter is missing".to_owned()));
    }
    let asks =
        [mute.map(MemberAsk::Mute), hold.map(MemberAsk::Hold), coach_mode.map(MemberAsk::Coach)];
    for what in asks.into_iter().flatten() {
        asked(api, ask, mpc, id, &what)?;
    }
    let message = "multiparty call participant updated";
    Ok(error::plivo_body(StatusCode::ACCEPTED, &Done { message, mute, hold, coach_mode }))
}

fn asked(api: &Api, ask: &Ask, mpc: &str, id: &str, what: &MemberAsk) -> Result<Vec<u64>, No> {
    let whom: Members = whom(&decoded(id)).ok_or(NO_MEMBER)?;
    match api.rooms.ask(&ask.scope, KIND, mpc, &whom, what) {
        Asked::Done(asked) => Ok(asked),
        Asked::NoRoom => Err(NO_ROOM),
        Asked::NoMember => Err(NO_MEMBER),
    }
}

fn told(api: &Api, ask: &Ask, mpc: &str, id: &str, what: &MemberAsk) -> Result<Response, No> {
    asked(api, ask, mpc, id, what)?;
    Ok(error::plivo_no_content())
}

fn queued(
    api: &Api,
    ask: &Ask,
    mpc: &str,
    id: &str,
    what: &MemberAsk,
    message: &'static str,
) -> Result<Response, No> {
    let mpc_member_id = asked(api, ask, mpc, id, what)?.iter().map(u64::to_string).collect();
    let mpc_name = room(api, ask, mpc)?.name;
    Ok(error::plivo_body(StatusCode::ACCEPTED, &Queued { message, mpc_member_id, mpc_name }))
}

#[cfg(test)]
mod tests {
    use super::{No, Wanted};

    #[test]
    fn filters_are_read_or_named() {
        let pairs = |query: &str| -> Vec<(String, String)> {
            url::form_urlencoded::parse(query.as_bytes()).into_owned().collect()
        };
        let all =
            pairs("status=ACTIVE&termination_cause_code=4020&friendly_name=Care&sub_account=");
        let Ok(wanted) = Wanted::read(&all) else { panic!("good") };
        assert_eq!((wanted.status, wanted.ended_by), (Some("Active"), Some(4020)));
        assert_eq!((wanted.name, wanted.account), (Some("Care"), None));
        for (query, why) in [
            ("status=bogus", "status must be initialized, active or ended"),
            ("termination_cause_code=x", "termination_cause_code must be an integer"),
        ] {
            let Err(No::Bad(said)) = Wanted::read(&pairs(query)) else { panic!("{query}") };
            assert_eq!(said, why);
        }
    }
}
