//! Recordings: of a live call, begun and ended (`plivo-call-api.md` §2.9), and those that are there (§5).

use std::time::Duration;

use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::fields::Fields;
use super::super::routes::{Answer, Body, Content, Kind, Query, Route, of};
use super::super::{Api, Told, error};
use super::control::{answered, tell};
use super::paging::{Meta, page};
use super::place::url;
use super::{Ask, CONFLICT, LIMIT, No, OFFSET, query, uri};
use machine::{Command, RecordingOrder, RoomKind, TranscriptOrder};
use media::record::Format;
use model::Timestamp;
use store::{Compare, Recording, RecordingFilter, RoomFilter};
use xml::ast::Target;

/// Of a room, in milliseconds: as long as a recording may be.
pub(super) const ROOM_MAX_MS: u64 = 14_400_000;
/// §2.9.
const LIMIT_SECONDS_MAX: u64 = 14_400;
const LIMIT_SECONDS: u64 = 60;
const NOT_FOUND: No = No::NotFound("recording not found");

/// What is served.
pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "POST",
        path: "/v1/Account/{auth_id}/Call/{call_uuid}/Record/",
        id: "recordCall",
        summary: "Records a live call, beside its document; once at a time",
        query: &[],
        body: Some(Body {
            content_type: "application/json",
            what: "time_limit (seconds), file_format (mp3 or wav), record_channel_type (mono or stereo), callback_url, \
                   callback_method, transcription_url, transcription_method, transcription_type (auto, hybrid or manual), \
                   transcription_report_type (full or compact). A form is taken too",
        }),
        answers: &[
            Answer {
                status: 202,
                what: "It is recorded",
                content: Content::Plivo(&[of::<Started>]),
            },
            CONFLICT,
        ],
    },
    Route {
        method: "DELETE",
        path: "/v1/Account/{auth_id}/Call/{call_uuid}/Record/",
        id: "stopRecordingCall",
        summary: "Records it no longer",
        query: &[],
        body: None,
        answers: &[Answer { status: 204, what: "It is told", content: Content::Nothing }],
    },
    Route {
        method: "GET",
        path: "/v1/Account/{auth_id}/Recording/",
        id: "listRecordings",
        summary: "The account's recordings that are complete, newest first",
        query: &[
            LIMIT,
            OFFSET,
            Query { name: "call_uuid", what: "Only of this call", kind: Kind::Uuid },
            Query { name: "conference_name", what: "Only of this conference", kind: Kind::Text },
            Query { name: "conference_uuid", what: "Only of this conference", kind: Kind::Uuid },
            Query {
                name: "mpc_name",
                what: "Only of multi-party calls of this name",
                kind: Kind::Text,
            },
            Query { name: "mpc_uuid", what: "Only of this multi-party call", kind: Kind::Uuid },
            Query { name: "from_number", what: "Only of calls from this number", kind: Kind::Text },
            Query { name: "to_number", what: "Only of calls to this number", kind: Kind::Text },
            Query {
                name: "recording_storage_duration",
                what: "Whole days that it has been there; also __gt, __gte, __lt, __lte",
                kind: Kind::Text,
            },
            Query { name: "subaccount", what: "Only of this subaccount", kind: Kind::Text },
            Query {
                name: "add_time",
                what: "YYYY-MM-DD[ HH:MM[:SS[.ffffff]]], UTC; also __gt, __gte, __lt, __lte",
                kind: Kind::Text,
            },
        ],
        body: None,
        answers: &[Answer {
            status: 200,
            what: "A page",
            content: Content::Plivo(&[of::<Recordings>]),
        }],
    },
    Route {
        method: "GET",
        path: "/v1/Account/{auth_id}/Recording/{recording_id}/",
        id: "recording",
        summary: "One recording",
        query: &[],
        body: None,
        answers: &[Answer { status: 200, what: "It", content: Content::Plivo(&[of::<Object>]) }],
    },
    Route {
        method: "DELETE",
        path: "/v1/Account/{auth_id}/Recording/{recording_id}/",
        id: "removeRecording",
        summary: "Takes a recording away, and its file",
        query: &[],
        body: None,
        answers: &[Answer {
            status: 204,
            what: "There is none any more",
            content: Content::Nothing,
        }],
    },
];

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoRecordingStarted)]
pub(super) struct Started {
    pub(super) message: &'static str,
    pub(super) recording_id: String,
    pub(super) url: String,
}

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoRecordings)]
pub(super) struct Recordings {
    meta: Meta,
    objects: Vec<Object>,
}

/// A recording. Its times are texts, as Plivo has them.
#[derive(Serialize, ToSchema)]
#[schema(as = PlivoRecording)]
pub(super) struct Object {
    add_time: String,
    call_uuid: String,
    conference_name: Option<String>,
    recording_duration_ms: String,
    recording_end_ms: String,
    recording_format: String,
    recording_id: String,
    recording_start_ms: String,
    /// `normal` or `conference`.
    #[schema(value_type = String)]
    recording_type: &'static str,
    recording_url: String,
    resource_uri: String,
}

fn object(api: &Api, ask: &Ask, recording: Recording) -> Object {
    let id = recording.id.as_hyphenated().to_string();
    let millis = |number: i64| format!("{number}.00000");
    Object {
        add_time: recording.ended.plivo_cdr(),
        call_uuid: recording.call.to_string(),
        recording_duration_ms: format!("{}.00000", recording.duration_ms),
        recording_end_ms: millis(recording.ended.micros().div_euclid(1_000)),
        recording_start_ms: millis(recording.started.micros().div_euclid(1_000)),
        recording_type: if recording.conference.is_some() { "conference" } else { "normal" },
        recording_url: api.recordings.url(recording.id, &recording.format),
        resource_uri: uri(&ask.scope, &format!("Recording/{id}/")),
        conference_name: recording.conference,
        recording_format: recording.format,
        recording_id: id,
    }
}

/// `POST Call/{uuid}/Record/`.
pub(super) fn begin(api: &Api, ask: &Ask, uuid: &str) -> Result<Response, No> {
    let call = answered(api, &ask.scope, uuid)?;
    let (order, callback) = order(api, &ask.fields()?).map_err(No::Bad)?;
    let (id, format) = (order.id.unwrap_or_default(), Format::of(order.mp3));
    match api.live.record(&ask.scope, call.call, order, callback) {
        Ok(true) => {}
        Ok(false) => return Err(No::Conflict("the call is being recorded already".to_owned())),
        Err(Told::Full) => {
            return Err(No::TooMany {
                why: "too much is asked of this call at once".to_owned(),
                seconds: 1,
            });
        }
        Err(Told::NotUp | Told::Yes) => return Err(No::NotFound("call not found")),
    }
    let started = Started {
        message: "call recording started",
        recording_id: id.as_hyphenated().to_string(),
        url: api.recordings.url(id, format.as_str()),
    };
    Ok(error::plivo_body(StatusCode::ACCEPTED, &started))
}

/// `POST …/Record/` of a room: its id and URL; none: there is no room.
pub(super) fn begin_room(
    api: &Api,
    ask: &Ask,
    kind: RoomKind,
    name: &str,
) -> Result<Option<(String, String)>, No> {
    let (order, callback) = order(api, &ask.fields()?).map_err(No::Bad)?;
    let order = RecordingOrder { stereo: false, max_ms: ROOM_MAX_MS, ..order };
    let (id, format) = (order.id.unwrap_or_default(), Format::of(order.mp3));
    match api.rooms.begin_recording(&ask.scope, kind, name, order, callback) {
        Some(true) => {
            Ok(Some((id.as_hyphenated().to_string(), api.recordings.url(id, format.as_str()))))
        }
        Some(false) => Err(No::Conflict("it is being recorded already".to_owned())),
        None => Ok(None),
    }
}

/// `DELETE …/Record/` of a room; none: there is no room.
pub(super) fn end_room(
    api: &Api,
    ask: &Ask,
    kind: RoomKind,
    name: &str,
) -> Result<Option<Response>, No> {
    match api.rooms.end_recording(&ask.scope, kind, name) {
        Some(true) => Ok(Some(error::plivo_no_content())),
        Some(false) => Err(No::NotFound("it is not being recorded")),
        None => Ok(None),
    }
}

/// `file_format`.
pub(super) fn is_mp3(fields: &Fields) -> Result<bool, String> {
    match fields.text("file_format")?.map(|word| word.to_ascii_lowercase()).as_deref() {
        None | Some("mp3") => Ok(true),
        Some("wav") => Ok(false),
        Some(_) => Err("file_format must be mp3 or wav".to_owned()),
    }
}

fn order(api: &Api, fields: &Fields) -> Result<(RecordingOrder, Option<Target>), String> {
    let seconds = fields.integer("time_limit", 1, LIMIT_SECONDS_MAX)?.unwrap_or(LIMIT_SECONDS);
    let word =
        |name: &str| fields.text(name).map(|word| word.map(|word| word.to_ascii_lowercase()));
    let mp3 = is_mp3(fields)?;
    let stereo = match word("record_channel_type")?.as_deref() {
        None | Some("stereo") => true,
        Some("mono") => false,
        Some(_) => return Err("record_channel_type must be mono or stereo".to_owned()),
    };
    let callback = url(api, fields, "callback")?.map(|(url, method)| Target { url, method });
    let order = RecordingOrder {
        id: Some(Uuid::new_v4()),
        held: false,
        mp3,
        stereo,
        peer_only: false,
        max_ms: seconds.saturating_mul(1_000),
        silence_ms: None,
        callback: None,
        action: None,
        transcript: transcript(api, fields)?,
    };
    Ok((order, callback))
}

/// `transcription_*`, as the elements' attributes; whether somebody can do it, the call says.
fn transcript(api: &Api, fields: &Fields) -> Result<Option<TranscriptOrder>, String> {
    let word =
        |name: &str| fields.text(name).map(|word| word.map(|word| word.to_ascii_lowercase()));
    if !matches!(word("transcription_type")?.as_deref(), None | Some("auto" | "hybrid" | "manual"))
    {
        return Err("transcription_type must be auto, hybrid or manual".to_owned());
    }
    let full = match word("transcription_report_type")?.as_deref() {
        None | Some("compact") => false,
        Some("full") => true,
        Some(_) => return Err("transcription_report_type must be full or compact".to_owned()),
    };
    let to = url(api, fields, "transcription")?.map(|(url, method)| Target { url, method });
    Ok(to.map(|to| TranscriptOrder { to, full }))
}

/// `DELETE Call/{uuid}/Record/`.
pub(super) fn stop(api: &Api, ask: &Ask, uuid: &str) -> Result<Response, No> {
    let call = answered(api, &ask.scope, uuid)?;
    if !api.live.is_recorded(&ask.scope, call.call) {
        return Err(No::NotFound("the call is not being recorded"));
    }
    tell(api, &ask.scope, &call, Command::StopRecord)?;
    Ok(error::plivo_no_content())
}

/// `GET Recording/`.
pub(super) async fn list(api: &Api, ask: &Ask) -> Result<Response, No> {
    let mut filter = RecordingFilter::default();
    for (name, value) in ask.pairs.iter().filter(|(_, value)| !value.is_empty()) {
        match query::compared(name) {
            ("call_uuid", Compare::Equal) => {
                filter.call = Some(value.parse().map_err(|_| query::bad("call_uuid", "a UUID"))?);
            }
            ("conference_name", Compare::Equal) => filter.conference = Some(value.clone()),
            ("conference_uuid", Compare::Equal) => {
                filter.rooms.push(RoomFilter::Conference(uuid("conference_uuid", value)?))
            }
            ("mpc_name", Compare::Equal) => {
                filter.rooms.push(RoomFilter::MultiPartyName(value.clone()))
            }
            ("mpc_uuid", Compare::Equal) => {
                filter.rooms.push(RoomFilter::MultiParty(uuid("mpc_uuid", value)?))
            }
            ("from_number", Compare::Equal) => filter.from = Some(digits_of(value)),
            ("to_number", Compare::Equal) => filter.to = Some(digits_of(value)),
            ("recording_storage_duration", compare) => {
                let days =
                    value.parse::<u32>().map_err(|_| query::bad(name, "a whole number of days"))?;
                filter.added.extend(stored_for(api.clock.wall(), compare, days));
            }
            ("subaccount", Compare::Equal) => filter.subaccount = Some(value.as_str().into()),
            ("add_time", compare) => {
                filter.added.push((compare, query::time_of(name, value)?));
            }
            _ => {}
        }
    }
    let page = page(&ask.pairs)?;
    let (recordings, total) =
        api.store.recordings().list(&ask.scope, &filter, page.limit, page.offset).await?;
    let meta = Meta::of(&uri(&ask.scope, "Recording/"), &ask.pairs, page, total);
    let objects = recordings.into_iter().map(|recording| object(api, ask, recording)).collect();
    Ok(error::plivo_body(StatusCode::OK, &Recordings { meta, objects }))
}

fn uuid(name: &str, value: &str) -> Result<Uuid, No> {
    value.parse().map_err(|_| query::bad(name, "a UUID"))
}

/// A number as calls have it: without the plus that may stand before it.
fn digits_of(number: &str) -> String {
    number.trim().trim_start_matches('+').to_owned()
}

/// Which recordings have been there for so many whole days: what that says of when they were there first.
fn stored_for(now: Timestamp, compare: Compare, days: u32) -> Vec<(Compare, Timestamp)> {
    let ago = |days: u32| now.minus(Duration::from_secs(u64::from(days) * 86_400));
    let (since, before) = (ago(days), ago(days.saturating_add(1)));
    match compare {
        Compare::Equal => vec![(Compare::LessEqual, since), (Compare::Greater, before)],
        Compare::Greater => vec![(Compare::LessEqual, before)],
        Compare::GreaterEqual => vec![(Compare::LessEqual, since)],
        Compare::Less => vec![(Compare::Greater, since)],
        Compare::LessEqual => vec![(Compare::Greater, before)],
    }
}

/// `GET Recording/{id}/`.
pub(super) async fn get(api: &Api, ask: &Ask, id: &str) -> Result<Response, No> {
    let id: Uuid = id.parse().map_err(|_| NOT_FOUND)?;
    let recording = api.store.recordings().get(&ask.scope, id).await?.ok_or(NOT_FOUND)?;
    Ok(error::plivo_body(StatusCode::OK, &object(api, ask, recording)))
}

/// `DELETE Recording/{id}/`.
pub(super) async fn remove(api: &Api, ask: &Ask, id: &str) -> Result<Response, No> {
    let id: Uuid = id.parse().map_err(|_| NOT_FOUND)?;
    match api.recordings.remove(&ask.scope, id).await {
        Ok(true) => Ok(error::plivo_no_content()),
        Ok(false) => Err(NOT_FOUND),
        Err(error) => Err(super::not_stored(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_days_are_a_span_of_time() {
        let now = Timestamp::from_secs(100 * 86_400);
        let is_found = |compare, days, seconds_ago: u64| {
            let at = now.minus(Duration::from_secs(seconds_ago));
            stored_for(now, compare, days).iter().all(|(compare, bound)| compare.holds(&at, bound))
        };
        for days in [0, 2] {
            for seconds_ago in [0, 86_399, 86_400, 2 * 86_400, 2 * 86_400 + 1, 3 * 86_400] {
                let stored = u32::try_from(seconds_ago / 86_400).unwrap();
                for compare in [
                    Compare::Equal,
                    Compare::Greater,
                    Compare::GreaterEqual,
                    Compare::Less,
                    Compare::LessEqual,
                ] {
                    let (found, holds) =
                        (is_found(compare, days, seconds_ago), compare.holds(&stored, &days));
                    assert_eq!(found, holds, "{compare:?} {days}, {seconds_ago} s ago");
                }
            }
        }
    }
}
