//! Recordings: recording a live call, and the recordings of the account. See
//! `docs/reference/rest.md#record-a-call` and `#recordings`.

use std::time::Duration;

use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::fields::Fields;
use super::super::routes::{
    Field, FieldKind, Operation, QueryParameter, RequestBody, ResponseSpec,
};
use super::super::{Api, turns};
use super::call_control::{answered_call, command};
use super::error::PlivoError;
use super::field_values::{is_mp3, target};
use super::paging::{PageMeta, PageRequest};
use super::query;
use super::request::PlivoRequest;
use super::response::{accepted, no_content, ok, resource_uri};
use super::route::{CONFLICT, LIMIT, OFFSET, Route, TIME, handler, object};
use machine::{Command, RecordingOrder, TranscriptOrder};
use media::record::Format;
use model::Timestamp;
use store::{Compare, Recording, RecordingFilter, RoomFilter, Scope};
use xml::ast::Target;

/// Maximum length of a room's recording, in milliseconds.
pub(super) const ROOM_MAX_MS: u64 = 14_400_000;
/// Maximum and default length of a call's recording, in seconds.
const TIME_LIMIT_MAX: u64 = 14_400;
const TIME_LIMIT: u64 = 60;
const NOT_FOUND: PlivoError = PlivoError::NotFound("recording not found");

const RECORD: &str = "/v1/Account/{auth_id}/Call/{call_uuid}/Record/";
const ITEM: &str = "/v1/Account/{auth_id}/Recording/{recording_id}/";

pub(super) const FILE_FORMAT: Field =
    Field::optional("file_format", FieldKind::OneOf(&["mp3", "wav"]), "Default mp3");
const FIELDS: &[Field] = &[
    FILE_FORMAT,
    Field::optional("time_limit", FieldKind::Integer(1, 14_400), "Seconds (default 60)"),
    Field::optional("record_channel_type", FieldKind::OneOf(&["mono", "stereo"]), "Default stereo"),
    Field::optional(
        "callback_url",
        FieldKind::Url,
        "Receives a callback when the recording is complete",
    ),
    Field::optional("callback_method", FieldKind::Method, "Default POST"),
];
pub(super) const TRANSCRIPTION_FIELDS: &[Field] = &[
    Field::optional("transcription_url", FieldKind::Url, "Receives the transcript"),
    Field::optional("transcription_method", FieldKind::Method, "Default POST"),
    Field::optional("transcription_type", FieldKind::OneOf(&["auto", "hybrid", "manual"]), ""),
    Field::optional(
        "transcription_report_type",
        FieldKind::OneOf(&["full", "compact"]),
        "Default compact",
    ),
];

pub(super) const ROUTES: &[Route] = &[
    Route {
        handler: handler!(start),
        operation: Operation::post(
            RECORD,
            "recordCall",
            "Start recording a live call, beside its document; one recording at a time",
        )
        .body(RequestBody::fields(
            "time_limit (seconds), file_format (mp3 or wav), record_channel_type (mono or stereo), \
             callback_url, callback_method, transcription_url, transcription_method, \
             transcription_type (auto, hybrid or manual), transcription_report_type (full or \
             compact). A form is accepted too",
            &[FIELDS, TRANSCRIPTION_FIELDS],
        ))
        .responses(&[
            object::<StartedRecording>(202, "The id and the URL of the recording"),
            CONFLICT,
        ]),
    },
    Route {
        handler: handler!(stop),
        operation: Operation::delete(RECORD, "stopRecordingCall", "Stop recording a call")
            .responses(&[ResponseSpec::empty(204, "The recording stops")]),
    },
    Route {
        handler: handler!(list),
        operation: Operation::get(
            "/v1/Account/{auth_id}/Recording/",
            "listRecordings",
            "List complete recordings, newest first",
        )
        .query(&[
            LIMIT,
            OFFSET,
            QueryParameter::uuid("call_uuid", "Only recordings of this call"),
            QueryParameter::text(
                "conference_name",
                "Only recordings of conferences with this name",
            ),
            QueryParameter::uuid("conference_uuid", "Only recordings of this conference"),
            QueryParameter::text("mpc_name", "Only recordings of multi-party calls with this name"),
            QueryParameter::uuid("mpc_uuid", "Only recordings of this multi-party call"),
            QueryParameter::text("from_number", "Only recordings of calls from this number"),
            QueryParameter::text("to_number", "Only recordings of calls to this number"),
            QueryParameter::text(
                "recording_storage_duration",
                "Whole days since the recording was added; also __gt, __gte, __lt, __lte",
            ),
            QueryParameter::text("subaccount", "Only recordings of this subaccount"),
            QueryParameter::text("add_time", TIME),
        ])
        .responses(&[object::<Recordings>(200, "A page of recordings")]),
    },
    Route {
        handler: handler!(get),
        operation: Operation::get(ITEM, "recording", "Retrieve a recording")
            .responses(&[object::<RecordingView>(200, "The recording")]),
    },
    Route {
        handler: handler!(delete),
        operation: Operation::delete(ITEM, "removeRecording", "Delete a recording and its file")
            .responses(&[ResponseSpec::empty(204, "Deleted")]),
    },
];

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoRecordingStarted)]
pub(super) struct StartedRecording {
    pub(super) message: &'static str,
    pub(super) recording_id: String,
    pub(super) url: String,
}

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoRecordings)]
struct Recordings {
    meta: PageMeta,
    objects: Vec<RecordingView>,
}

/// A recording. Its times are strings, as in Plivo's object.
#[derive(Serialize, ToSchema)]
#[schema(as = PlivoRecording)]
struct RecordingView {
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

fn view(api: &Api, scope: &Scope, recording: Recording) -> RecordingView {
    let id = recording.id.as_hyphenated().to_string();
    let millis = |number: i64| format!("{number}.00000");
    RecordingView {
        add_time: recording.ended.plivo_cdr(),
        call_uuid: recording.call.to_string(),
        recording_duration_ms: format!("{}.00000", recording.duration_ms),
        recording_end_ms: millis(recording.ended.micros().div_euclid(1_000)),
        recording_start_ms: millis(recording.started.micros().div_euclid(1_000)),
        recording_type: if recording.conference.is_some() { "conference" } else { "normal" },
        recording_url: api.recordings.url(recording.id, &recording.format),
        resource_uri: resource_uri(scope, &format!("Recording/{id}/")),
        conference_name: recording.conference,
        recording_format: recording.format,
        recording_id: id,
    }
}

async fn start(request: PlivoRequest) -> Result<Response, PlivoError> {
    let api = request.api();
    let call = answered_call(&request)?;
    let (order, callback) = parse_order(api, &request.fields()?).map_err(PlivoError::BadRequest)?;
    let (id, format) = (order.id.unwrap_or_default(), Format::of(order.mp3));
    if !api.live.record(&request.scope, call.call, order, callback)? {
        return Err(PlivoError::Conflict("the call is already being recorded".to_owned()));
    }
    Ok(accepted(&StartedRecording {
        message: "call recording started",
        recording_id: id.as_hyphenated().to_string(),
        url: api.recordings.url(id, format.as_str()),
    }))
}

/// Parses the order for a recording and the target of its callback.
pub(super) fn parse_order(
    api: &Api,
    fields: &Fields,
) -> Result<(RecordingOrder, Option<Target>), String> {
    let seconds = fields.integer("time_limit", 1, TIME_LIMIT_MAX)?.unwrap_or(TIME_LIMIT);
    let word =
        |name: &str| fields.text(name).map(|word| word.map(|word| word.to_ascii_lowercase()));
    let mp3 = is_mp3(fields)?;
    let stereo = match word("record_channel_type")?.as_deref() {
        None | Some("stereo") => true,
        Some("mono") => false,
        Some(_) => return Err("record_channel_type must be mono or stereo".to_owned()),
    };
    let callback = target(api, fields, "callback")?;
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
        transcript: parse_transcript(api, fields)?,
    };
    Ok((order, callback))
}

/// Parses the `transcription_` fields. The call decides whether a speech recogniser is available.
fn parse_transcript(api: &Api, fields: &Fields) -> Result<Option<TranscriptOrder>, String> {
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
    Ok(target(api, fields, "transcription")?.map(|to| TranscriptOrder { to, full }))
}

async fn stop(request: PlivoRequest) -> Result<Response, PlivoError> {
    let call = answered_call(&request)?;
    if !request.api().live.is_recorded(&request.scope, call.call) {
        return Err(PlivoError::NotFound("the call is not being recorded"));
    }
    command(&request, &call, Command::StopRecord)?;
    Ok(no_content())
}

async fn list(request: PlivoRequest) -> Result<Response, PlivoError> {
    let (api, scope) = (request.api(), &request.scope);
    let mut filter = RecordingFilter::default();
    for (name, value) in request.query().iter().filter(|(_, value)| !value.is_empty()) {
        match query::compared(name) {
            ("call_uuid", Compare::Equal) => {
                filter.call = Some(value.parse().map_err(|_| query::bad("call_uuid", "a UUID"))?);
            }
            ("conference_name", Compare::Equal) => filter.conference = Some(value.clone()),
            ("conference_uuid", Compare::Equal) => {
                filter.rooms.push(RoomFilter::Conference(parse_uuid("conference_uuid", value)?))
            }
            ("mpc_name", Compare::Equal) => {
                filter.rooms.push(RoomFilter::MultiPartyName(value.clone()))
            }
            ("mpc_uuid", Compare::Equal) => {
                filter.rooms.push(RoomFilter::MultiParty(parse_uuid("mpc_uuid", value)?))
            }
            ("from_number", Compare::Equal) => filter.from = Some(without_plus(value)),
            ("to_number", Compare::Equal) => filter.to = Some(without_plus(value)),
            ("recording_storage_duration", compare) => {
                let days =
                    value.parse::<u32>().map_err(|_| query::bad(name, "a whole number of days"))?;
                filter.added.extend(added_filters(api.clock.wall(), compare, days));
            }
            ("subaccount", Compare::Equal) => {
                filter.subaccount = Some(query::account(name, value)?)
            }
            ("add_time", compare) => {
                filter.added.extend(query::time_bounds(name, compare, value)?);
            }
            _ => {}
        }
    }
    let page = PageRequest::parse(request.query())?;
    let turn = turns::next(&request.main_account()).await;
    let (recordings, total) =
        api.store.recordings().list(scope, &filter, page.limit, page.offset).await?;
    drop(turn);
    let list_uri = resource_uri(scope, "Recording/");
    let meta = PageMeta::new(&list_uri, request.query(), page, total);
    let objects = recordings.into_iter().map(|recording| view(api, scope, recording)).collect();
    Ok(ok(&Recordings { meta, objects }))
}

fn parse_uuid(name: &str, value: &str) -> Result<Uuid, PlivoError> {
    value.parse().map_err(|_| query::bad(name, "a UUID"))
}

/// Formats a number as in records of calls, without a plus.
fn without_plus(number: &str) -> String {
    number.trim().trim_start_matches('+').to_owned()
}

/// Turns a filter by storage duration in whole days into filters by the time a recording was added.
fn added_filters(now: Timestamp, compare: Compare, days: u32) -> Vec<(Compare, Timestamp)> {
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

async fn get(request: PlivoRequest) -> Result<Response, PlivoError> {
    let (api, scope) = (request.api(), &request.scope);
    let id: Uuid = request.id("recording_id", NOT_FOUND)?;
    let recording = api.store.recordings().get(scope, id).await?.ok_or(NOT_FOUND)?;
    Ok(ok(&view(api, scope, recording)))
}

async fn delete(request: PlivoRequest) -> Result<Response, PlivoError> {
    let id: Uuid = request.id("recording_id", NOT_FOUND)?;
    let is_removed = request.api().recordings.remove(&request.scope, id).await;
    match is_removed.map_err(PlivoError::not_stored)? {
        true => Ok(no_content()),
        false => Err(NOT_FOUND),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_by_storage_duration_in_whole_days() {
        let now = Timestamp::from_secs(100 * 86_400);
        let is_found = |compare, days, seconds_ago: u64| {
            let at = now.minus(Duration::from_secs(seconds_ago));
            added_filters(now, compare, days)
                .iter()
                .all(|(compare, bound)| compare.holds(&at, bound))
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
