//! Streams of a call's sound (`plivo-call-api.md` §2.13): one is begun, listed, looked at and ended. They are known as long
//! as their call is up.

use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::fields::Fields;
use super::super::routes::{Answer, Body, Content, Route, of};
use super::super::{Api, LiveCall, Told, error};
use super::control::{answered, tell};
use super::paging::{Meta, paged};
use super::place::url;
use super::{Ask, CONFLICT, LIMIT, No, OFFSET, URL_BYTES_MAX, begun_seconds, uri};
use crate::call::streams::StreamView;
use machine::{Command, StreamFormat, StreamOrder, StreamTrack};
use model::StreamId;
use xml::ast::DocUrl;

/// L37.
const TIMEOUT_MAX: u64 = 86_400;
/// Per cent, where nothing is said (`plivo-xml.md` §5.11).
const NOISE_LEVEL: u8 = 85;
const EXTRA_HEADERS_MAX: usize = 512;
const NOT_FOUND: No = No::NotFound("stream not found");

const STOPPED: &[Answer] =
    &[Answer { status: 204, what: "It is told to stop", content: Content::Nothing }];

/// What is served.
pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "POST",
        path: "/v1/Account/{auth_id}/Call/{call_uuid}/Stream/",
        id: "beginStream",
        summary: "Streams the call's sound to a WebSocket; a call has one stream at a time",
        query: &[],
        body: Some(Body {
            content_type: "application/json",
            what: "service_url, bidirectional, audio_track, stream_timeout, status_callback_url, status_callback_method, \
                   content_type, extra_headers. A form is taken too",
        }),
        answers: &[
            Answer {
                status: 202,
                what: "Its server is being connected to",
                content: Content::Plivo(&[of::<Started>]),
            },
            CONFLICT,
        ],
    },
    Route {
        method: "GET",
        path: "/v1/Account/{auth_id}/Call/{call_uuid}/Stream/",
        id: "listStreams",
        summary: "The call's streams, newest first",
        query: &[LIMIT, OFFSET],
        body: None,
        answers: &[Answer { status: 200, what: "A page", content: Content::Plivo(&[of::<List>]) }],
    },
    Route {
        method: "DELETE",
        path: "/v1/Account/{auth_id}/Call/{call_uuid}/Stream/",
        id: "endStreams",
        summary: "Ends the call's stream, if it has one",
        query: &[],
        body: None,
        answers: STOPPED,
    },
    Route {
        method: "GET",
        path: "/v1/Account/{auth_id}/Call/{call_uuid}/Stream/{stream_id}/",
        id: "stream",
        summary: "One stream of the call",
        query: &[],
        body: None,
        answers: &[Answer { status: 200, what: "It", content: Content::Plivo(&[of::<Object>]) }],
    },
    Route {
        method: "DELETE",
        path: "/v1/Account/{auth_id}/Call/{call_uuid}/Stream/{stream_id}/",
        id: "endStream",
        summary: "Ends a stream of the call",
        query: &[],
        body: None,
        answers: STOPPED,
    },
];

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoStreamStarted)]
pub(super) struct Started {
    message: &'static str,
    #[schema(value_type = String, format = "uuid")]
    stream_id: StreamId,
}

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoStreams)]
pub(super) struct List {
    meta: StreamMeta,
    objects: Vec<Object>,
}

/// `count` beside what every page says.
#[derive(Serialize, ToSchema)]
#[schema(as = PlivoStreamPage)]
struct StreamMeta {
    #[serde(flatten)]
    page: Meta,
    count: usize,
}

/// A stream. Nothing is billed.
#[derive(Serialize, ToSchema)]
#[schema(as = PlivoStream)]
pub(super) struct Object {
    audio_track: &'static str,
    bidirectional: bool,
    billed_amount: &'static str,
    /// Seconds so far.
    bill_duration: u64,
    call_uuid: String,
    created_at: String,
    end_time: Option<String>,
    plivo_auth_id: String,
    resource_uri: String,
    /// The same as text, as SDKs read it.
    rounded_bill_duration: String,
    service_url: String,
    start_time: Option<String>,
    #[schema(value_type = String)]
    status: &'static str,
    status_callback_url: Option<String>,
    stream_id: String,
}

fn object(api: &Api, ask: &Ask, call: &LiveCall, view: StreamView) -> Object {
    let until = view.ended.unwrap_or_else(|| api.clock.wall());
    let bill_duration = view.started.map_or(0, |started| begun_seconds(until.since(started)));
    Object {
        audio_track: view.order.track.as_str(),
        bidirectional: view.order.bidirectional,
        billed_amount: "0.00000",
        bill_duration,
        call_uuid: call.call.to_string(),
        created_at: view.created.plivo_cdr(),
        end_time: view.ended.map(model::Timestamp::plivo_cdr),
        plivo_auth_id: call.account.to_string(),
        resource_uri: uri(&ask.scope, &format!("Call/{}/Stream/{}/", call.call, view.stream)),
        rounded_bill_duration: bill_duration.to_string(),
        service_url: view.order.url.0.to_string(),
        start_time: view.started.map(model::Timestamp::plivo_cdr),
        status: view.status.as_str(),
        status_callback_url: view.order.status.as_ref().map(|(url, _)| url.0.to_string()),
        stream_id: view.stream.to_string(),
    }
}

/// `POST Call/{uuid}/Stream/`.
pub(super) fn begin(api: &Api, ask: &Ask, uuid: &str) -> Result<Response, No> {
    let call = answered(api, &ask.scope, uuid)?;
    let order = order(api, &ask.fields()?).map_err(No::Bad)?;
    let stream = fresh().ok_or(No::Ours)?;
    match api.live.begin_stream(&ask.scope, call.call, stream, order) {
        Ok(true) => {
            let started = Started { message: "audio streaming started", stream_id: stream };
            Ok(error::plivo_body(StatusCode::ACCEPTED, &started))
        }
        Ok(false) => Err(No::Conflict("the call has a stream; end that one first".to_owned())),
        Err(Told::Full) => Err(No::TooMany {
            why: "too much is asked of this call at once".to_owned(),
            seconds: 1,
        }),
        Err(Told::NotUp | Told::Yes) => Err(No::NotFound("call not found")),
    }
}

/// `GET Call/{uuid}/Stream/`.
pub(super) fn list(api: &Api, ask: &Ask, uuid: &str) -> Result<Response, No> {
    let call = answered(api, &ask.scope, uuid)?;
    let views = api.live.streams(&ask.scope, call.call);
    let (page, views) =
        paged(views, &uri(&ask.scope, &format!("Call/{}/Stream/", call.call)), &ask.pairs)?;
    let objects: Vec<Object> =
        views.into_iter().map(|view| object(api, ask, &call, view)).collect();
    let meta = StreamMeta { page, count: objects.len() };
    Ok(error::plivo_body(StatusCode::OK, &List { meta, objects }))
}

/// `GET Call/{uuid}/Stream/{id}/`.
pub(super) fn get(api: &Api, ask: &Ask, uuid: &str, id: &str) -> Result<Response, No> {
    let call = answered(api, &ask.scope, uuid)?;
    let view = find(api, ask, &call, id)?;
    Ok(error::plivo_body(StatusCode::OK, &object(api, ask, &call, view)))
}

/// `DELETE Call/{uuid}/Stream/`, and with `id` of that one.
pub(super) fn end(api: &Api, ask: &Ask, uuid: &str, id: Option<&str>) -> Result<Response, No> {
    let call = answered(api, &ask.scope, uuid)?;
    let stream = id.map(|id| find(api, ask, &call, id)).transpose()?.map(|view| view.stream);
    tell(api, &ask.scope, &call, Command::StopStream { stream })?;
    Ok(error::plivo_no_content())
}

fn find(api: &Api, ask: &Ask, call: &LiveCall, id: &str) -> Result<StreamView, No> {
    let id: StreamId = id.parse().map_err(|_| NOT_FOUND)?;
    api.live
        .streams(&ask.scope, call.call)
        .into_iter()
        .find(|view| view.stream == id)
        .ok_or(NOT_FOUND)
}

fn fresh() -> Option<StreamId> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    Some(StreamId(uuid::Builder::from_random_bytes(bytes).into_uuid()))
}

/// What is asked for, by the rules of `<Stream>` (`plivo-xml.md` §5.11).
fn order(api: &Api, fields: &Fields) -> Result<StreamOrder, String> {
    let service = fields.required("service_url")?;
    if service.len() > URL_BYTES_MAX {
        return Err(format!("service_url must be a URL of at most {URL_BYTES_MAX} bytes"));
    }
    let socket: Result<DocUrl, String> = api.placing.socket_url(&service);
    let socket = socket.map_err(|why| format!("service_url is invalid: could not {why}"))?;
    let bidirectional = fields.flag("bidirectional")?.unwrap_or(false);
    let track = match fields.text("audio_track")?.map(|word| word.to_ascii_lowercase()) {
        None => StreamTrack::Inbound,
        Some(word) => {
            StreamTrack::parse(&word).ok_or("audio_track must be inbound, outbound or both")?
        }
    };
    if bidirectional && track != StreamTrack::Inbound {
        return Err("audio_track must be inbound where bidirectional is true".to_owned());
    }
    let timeout = fields.integer("stream_timeout", 1, TIMEOUT_MAX)?.unwrap_or(TIMEOUT_MAX);
    let format = match fields.text("content_type")? {
        None => StreamFormat::L16At8000,
        Some(word) => StreamFormat::parse(&word)
            .ok_or("content_type must be audio/x-mulaw;rate=8000 or audio/x-l16 with ;rate=8000, 16000 or 24000")?,
    };
    let level = fields.integer("noise_cancellation_level", 60, 100)?;
    let noise_cancellation = fields.flag("noise_cancellation")?.unwrap_or(level.is_some());
    Ok(StreamOrder {
        url: socket,
        bidirectional,
        track,
        timeout_s: u32::try_from(timeout).unwrap_or(u32::MAX),
        status: url(api, fields, "status_callback")?,
        format,
        extra_headers: extra_headers(fields.text("extra_headers")?.as_deref().unwrap_or_default())?,
        keep_call_alive: false,
        noise_level: noise_cancellation
            .then(|| level.and_then(|level| u8::try_from(level).ok()).unwrap_or(NOISE_LEVEL)),
        in_room: false,
    })
}

/// `k=v,…`; the value may be empty.
fn extra_headers(text: &str) -> Result<Vec<(String, String)>, String> {
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
    pairs
        .ok_or_else(|| "extra_headers must be name=value pairs with commas between them".to_owned())
}

#[cfg(test)]
mod tests {
    use super::extra_headers;

    #[test]
    fn extra_headers_are_pairs() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(extra_headers(""), Ok(Vec::new()));
        assert_eq!(
            extra_headers("a=1, b-c=x=y,d="),
            Ok(vec![pair("a", "1"), pair("b-c", "x=y"), pair("d", "")])
        );
        for bad in ["a", "=1", "a b=1", "a=1,b", "a=\u{7}"] {
            assert!(extra_headers(bad).is_err(), "{bad}");
        }
        assert!(extra_headers(&format!("a={}", "x".repeat(511))).is_err());
    }
}
