//! Audio streams of a live call: start, list, retrieve, stop. Streams are known as long as their call is
//! live. See `docs/reference/rest.md#streams`.

use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::fields::Fields;
use super::super::placement::URL_BYTES_MAX;
use super::super::routes::{Field, FieldKind, Operation, RequestBody, ResponseSpec};
use super::super::{Api, LiveCall};
use super::call_control::{answered_call, command};
use super::error::PlivoError;
use super::field_values::{unused, url};
use super::paging::{PageMeta, page_of};
use super::random;
use super::request::PlivoRequest;
use super::response::{accepted, no_content, ok, resource_uri, seconds_rounded_up};
use super::route::{CONFLICT, LIMIT, OFFSET, Route, handler, object};
use engine::call::streams::StreamView;
use machine::{Command, StreamFormat, StreamOrder, StreamTrack};
use model::StreamId;

/// Maximum value of `stream_timeout`, in seconds (`docs/reference/limits.md#l37`).
const TIMEOUT_MAX: u64 = 86_400;
/// The default `noise_cancellation_level`, in percent.
const NOISE_LEVEL: u8 = 85;
/// Maximum size of `extra_headers`, in bytes (`docs/reference/limits.md#l37`).
const EXTRA_HEADERS_MAX: usize = 512;
const NOT_FOUND: PlivoError = PlivoError::NotFound("stream not found");

const COLLECTION: &str = "/v1/Account/{auth_id}/Call/{call_uuid}/Stream/";
const ITEM: &str = "/v1/Account/{auth_id}/Call/{call_uuid}/Stream/{stream_id}/";
const STOPPED: &[ResponseSpec] = &[ResponseSpec::empty(204, "The stream stops")];

const FIELDS: &[Field] = &[
    Field::required("service_url", FieldKind::Text(2_048), "ws:// or wss:// URL"),
    Field::optional(
        "bidirectional",
        FieldKind::Flag,
        "true: audio from the server is played (default false)",
    ),
    Field::optional(
        "audio_track",
        FieldKind::OneOf(&["inbound", "outbound", "both"]),
        "Default inbound; bidirectional streams accept no other track",
    ),
    Field::optional("stream_timeout", FieldKind::Integer(1, 86_400), "Seconds (default 86400)"),
    Field::optional("status_callback_url", FieldKind::Url, "Receives callbacks about the stream"),
    Field::optional("status_callback_method", FieldKind::Method, "Default POST"),
    Field::optional(
        "content_type",
        FieldKind::OneOf(&[
            "audio/x-l16;rate=8000",
            "audio/x-l16;rate=16000",
            "audio/x-l16;rate=24000",
            "audio/x-mulaw;rate=8000",
        ]),
        "Default audio/x-l16;rate=8000",
    ),
    Field::optional(
        "extra_headers",
        FieldKind::Text(512),
        "name=value pairs separated by commas, passed in the messages of the stream",
    ),
    Field::optional("noise_cancellation", FieldKind::Flag, "Suppress noise around the user"),
    Field::optional(
        "noise_cancellation_level",
        FieldKind::Integer(60, 100),
        "How much noise is suppressed, in percent (default 85)",
    ),
    unused("cx_bot"),
];

pub(super) const ROUTES: &[Route] = &[
    Route {
        handler: handler!(start),
        operation: Operation::post(
            COLLECTION,
            "beginStream",
            "Stream the audio of a call to a WebSocket; one stream at a time",
        )
        .body(RequestBody::fields(
            "service_url, bidirectional, audio_track, stream_timeout, status_callback_url, \
             status_callback_method, content_type, extra_headers. A form is accepted too",
            &[FIELDS],
        ))
        .responses(&[object::<StartedStream>(202, "The WebSocket is being opened"), CONFLICT]),
    },
    Route {
        handler: handler!(list),
        operation: Operation::get(
            COLLECTION,
            "listStreams",
            "List the streams of a call, newest first",
        )
        .query(&[LIMIT, OFFSET])
        .responses(&[object::<StreamList>(200, "A page of streams")]),
    },
    Route {
        handler: handler!(stop_all),
        operation: Operation::delete(COLLECTION, "endStreams", "Stop the stream of a call, if any")
            .responses(STOPPED),
    },
    Route {
        handler: handler!(get),
        operation: Operation::get(ITEM, "stream", "Retrieve a stream of a call")
            .responses(&[object::<StreamObject>(200, "The stream")]),
    },
    Route {
        handler: handler!(stop),
        operation: Operation::delete(ITEM, "endStream", "Stop a stream of a call")
            .responses(STOPPED),
    },
];

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoStreamStarted)]
struct StartedStream {
    message: &'static str,
    #[schema(value_type = String, format = "uuid")]
    stream_id: StreamId,
}

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoStreams)]
struct StreamList {
    meta: StreamMeta,
    objects: Vec<StreamObject>,
}

/// The description of a page, with the number of its objects.
#[derive(Serialize, ToSchema)]
#[schema(as = PlivoStreamPage)]
struct StreamMeta {
    #[serde(flatten)]
    page: PageMeta,
    count: usize,
}

/// A stream. Streams are free of charge.
#[derive(Serialize, ToSchema)]
#[schema(as = PlivoStream)]
struct StreamObject {
    audio_track: &'static str,
    bidirectional: bool,
    billed_amount: &'static str,
    /// Duration so far, in seconds.
    bill_duration: u64,
    call_uuid: String,
    created_at: String,
    end_time: Option<String>,
    plivo_auth_id: String,
    resource_uri: String,
    /// The duration as a string, which SDKs read.
    rounded_bill_duration: String,
    service_url: String,
    start_time: Option<String>,
    #[schema(value_type = String)]
    status: &'static str,
    status_callback_url: Option<String>,
    stream_id: String,
}

fn stream_object(request: &PlivoRequest, call: &LiveCall, view: StreamView) -> StreamObject {
    let until = view.ended.unwrap_or_else(|| request.api().clock.wall());
    let bill_duration = view.started.map_or(0, |started| seconds_rounded_up(until.since(started)));
    StreamObject {
        audio_track: view.order.track.as_str(),
        bidirectional: view.order.bidirectional,
        billed_amount: "0.00000",
        bill_duration,
        call_uuid: call.call.to_string(),
        created_at: view.created.plivo_cdr(),
        end_time: view.ended.map(model::Timestamp::plivo_cdr),
        plivo_auth_id: call.account.to_string(),
        resource_uri: resource_uri(
            &request.scope,
            &format!("Call/{}/Stream/{}/", call.call, view.stream),
        ),
        rounded_bill_duration: bill_duration.to_string(),
        service_url: view.order.url.0.to_string(),
        start_time: view.started.map(model::Timestamp::plivo_cdr),
        status: view.status.as_str(),
        status_callback_url: view.order.status.as_ref().map(|(url, _)| url.0.to_string()),
        stream_id: view.stream.to_string(),
    }
}

async fn start(request: PlivoRequest) -> Result<Response, PlivoError> {
    let api = request.api();
    let call = answered_call(&request)?;
    let order = parse_order(api, &request.fields()?).map_err(PlivoError::BadRequest)?;
    let stream_id = StreamId(random::uuid()?);
    if !api.live.start_stream(&request.scope, call.call, stream_id, order)? {
        let message = "the call already has a stream: stop that one first".to_owned();
        return Err(PlivoError::Conflict(message));
    }
    Ok(accepted(&StartedStream { message: "audio streaming started", stream_id }))
}

async fn list(request: PlivoRequest) -> Result<Response, PlivoError> {
    let call = answered_call(&request)?;
    let views = request.api().live.streams(&request.scope, call.call);
    let list_uri = resource_uri(&request.scope, &format!("Call/{}/Stream/", call.call));
    let (page, views) = page_of(views, &list_uri, request.query())?;
    let objects: Vec<StreamObject> =
        views.into_iter().map(|view| stream_object(&request, &call, view)).collect();
    let meta = StreamMeta { page, count: objects.len() };
    Ok(ok(&StreamList { meta, objects }))
}

async fn get(request: PlivoRequest) -> Result<Response, PlivoError> {
    let call = answered_call(&request)?;
    let view = find(&request, &call)?;
    Ok(ok(&stream_object(&request, &call, view)))
}

async fn stop(request: PlivoRequest) -> Result<Response, PlivoError> {
    let call = answered_call(&request)?;
    let stream = Some(find(&request, &call)?.stream);
    command(&request, &call, Command::StopStream { stream })?;
    Ok(no_content())
}

async fn stop_all(request: PlivoRequest) -> Result<Response, PlivoError> {
    let call = answered_call(&request)?;
    command(&request, &call, Command::StopStream { stream: None })?;
    Ok(no_content())
}

/// Returns the stream in the path.
fn find(request: &PlivoRequest, call: &LiveCall) -> Result<StreamView, PlivoError> {
    let id: StreamId = request.id("stream_id", NOT_FOUND)?;
    let streams = request.api().live.streams(&request.scope, call.call);
    streams.into_iter().find(|view| view.stream == id).ok_or(NOT_FOUND)
}

/// Parses the order for a stream by the rules of the element `Stream`.
fn parse_order(api: &Api, fields: &Fields) -> Result<StreamOrder, String> {
    let service = fields.required("service_url")?;
    if service.len() > URL_BYTES_MAX {
        return Err(format!("service_url must be a URL of at most {URL_BYTES_MAX} bytes"));
    }
    let socket = api.placer.check_socket_url(&service);
    let socket = socket.map_err(|why| format!("service_url is invalid: {why}"))?;
    let bidirectional = fields.flag("bidirectional")?.unwrap_or(false);
    let track = match fields.text("audio_track")?.map(|word| word.to_ascii_lowercase()) {
        None => StreamTrack::Inbound,
        Some(word) => {
            StreamTrack::parse(&word).ok_or("audio_track must be inbound, outbound or both")?
        }
    };
    if bidirectional && track != StreamTrack::Inbound {
        return Err("audio_track must be inbound if bidirectional is true".to_owned());
    }
    let timeout = fields.integer("stream_timeout", 1, TIMEOUT_MAX)?.unwrap_or(TIMEOUT_MAX);
    let format = match fields.text("content_type")? {
        None => StreamFormat::L16At8000,
        Some(word) => StreamFormat::parse(&word)
            .ok_or("content_type must be audio/x-mulaw;rate=8000 or audio/x-l16 with ;rate=8000, 16000 or 24000")?,
    };
    let level = fields.integer("noise_cancellation_level", 60, 100)?;
    let noise_cancellation = fields.flag("noise_cancellation")?.unwrap_or(false);
    Ok(StreamOrder {
        url: socket,
        bidirectional,
        track,
        timeout_s: u32::try_from(timeout).unwrap_or(u32::MAX),
        status: url(api, fields, "status_callback")?,
        format,
        extra_headers: parse_extra_headers(
            fields.text("extra_headers")?.as_deref().unwrap_or_default(),
        )?,
        keep_call_alive: false,
        noise_level: noise_cancellation
            .then(|| level.and_then(|level| u8::try_from(level).ok()).unwrap_or(NOISE_LEVEL)),
        in_room: false,
    })
}

/// Parses `name=value` pairs separated by commas. A value may be empty.
fn parse_extra_headers(text: &str) -> Result<Vec<(String, String)>, String> {
    if text.len() > EXTRA_HEADERS_MAX {
        return Err(format!("extra_headers must be at most {EXTRA_HEADERS_MAX} bytes"));
    }
    let pair = |item: &str| -> Option<(String, String)> {
        let (name, value) = item.trim().split_once('=')?;
        let named = !name.is_empty()
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        (named && !value.chars().any(char::is_control)).then(|| (name.to_owned(), value.to_owned()))
    };
    let items = text.split(',').filter(|item| !item.trim().is_empty());
    let pairs: Option<Vec<_>> = items.map(pair).collect();
    pairs.ok_or_else(|| "extra_headers must be name=value pairs separated by commas".to_owned())
}

#[cfg(test)]
mod tests {
    use super::parse_extra_headers;

    #[test]
    fn parses_extra_headers() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(parse_extra_headers(""), Ok(Vec::new()));
        assert_eq!(
            parse_extra_headers("a=1, b-c=x=y,d="),
            Ok(vec![pair("a", "1"), pair("b-c", "x=y"), pair("d", "")])
        );
        for bad in ["a", "=1", "a b=1", "a=1,b", "a=\u{7}"] {
            assert!(parse_extra_headers(bad).is_err(), "{bad}");
        }
        assert!(parse_extra_headers(&format!("a={}", "x".repeat(511))).is_err());
    }
}
