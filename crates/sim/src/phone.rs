//! The browser phone: a web page that acts as a simulated WhatsApp user. Its WebRTC connection ends
//! here. Opus packets are forwarded to and from Meta's side of the call, and keys are turned into
//! RFC 4733 events there.
//!
//! The page reads the events of its call as server-sent events. Closing that stream hangs up.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::middleware::from_fn;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use futures_util::Stream;
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;

use super::call_message::CallMsg;
use super::caller::{CallControl, CallEvents, CallScript, HangupRule};
use super::control::{local_or_navigation, refuse};
use super::keys::parse_keys;
use super::media::LegEvent;
use super::meta::call;
use super::world::SimNumber;
use super::{World, locked};

/// Maximum number of browser calls at the same time.
const CALLS_MAX: usize = 64;
/// A page that has not requested its events within this time is considered closed.
const FETCH_DEADLINE: Duration = Duration::from_secs(30);
const BODY_BYTES_MAX: usize = 65_536;
/// Content security policy: nothing inline and nothing from other hosts.
const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                   media-src 'self' blob:; img-src 'self' data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// Calls of browser phones by id.
pub(crate) type BrowserCalls = Mutex<HashMap<String, BrowserCall>>;

#[derive(Debug)]
pub(crate) struct BrowserCall {
    control: CallControl,
    /// The events of the call. The page takes them by requesting them.
    events: Option<CallEvents>,
}

pub(crate) fn router() -> Router<Arc<World>> {
    let page = |content_type: &'static str, text: &'static str| {
        get(move || async move { asset(content_type, text) })
    };
    Router::new()
        .route("/", get(|| async { Redirect::temporary("/_sim/phone") }))
        .route("/_sim/phone", page("text/html; charset=utf-8", include_str!("../phone/phone.html")))
        .route(
            "/_sim/phone.css",
            page("text/css; charset=utf-8", include_str!("../phone/phone.css")),
        )
        .route(
            "/_sim/phone.js",
            page("text/javascript; charset=utf-8", include_str!("../phone/phone.js")),
        )
        .route(
            "/_sim/words.js",
            page("text/javascript; charset=utf-8", include_str!("../phone/words.js")),
        )
        .route("/_sim/phone/world", get(page_info))
        .route("/_sim/phone/calls", post(call))
        .route("/_sim/phone/calls/{id}/events", get(events))
        .route("/_sim/phone/calls/{id}/keys", post(keys))
        .route("/_sim/phone/calls/{id}/hangup", post(hangup))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn(local_or_navigation))
}

fn asset(content_type: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CSP)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (
            HeaderName::from_static("permissions-policy"),
            HeaderValue::from_static("microphone=(self), camera=()"),
        ),
    ];
    (headers, text).into_response()
}

/// Business number and user, shown by the page before a call.
async fn page_info(State(world): State<Arc<World>>, Query(query): Query<PageQuery>) -> Response {
    let script = CallScript::default();
    let number = number_to_call(&world, query.to.as_deref());
    let node = locked(&world.node_url).clone();
    axum::Json(json!({"number": number.number, "business": number.name, "user": script.name, "from": script.from, "phone_number_id": number.phone_number_id, "node": node}))
        .into_response()
}

/// Query of the page: the number to call.
#[derive(Deserialize)]
struct PageQuery {
    to: Option<String>,
}

/// The number with these digits, or the default number if it does not exist.
fn number_to_call(world: &World, to: Option<&str>) -> SimNumber {
    let default = CallScript::default().to;
    let known = to.and_then(|to| world.number(&model::digits_of(to)));
    known.or_else(|| world.number(&default.number)).unwrap_or(default)
}

#[derive(Deserialize)]
struct CallRequest {
    sdp: String,
    #[serde(default)]
    to: Option<String>,
}

async fn call(State(world): State<Arc<World>>, body: Bytes) -> Response {
    let Ok(CallRequest { sdp, to }) = serde_json::from_slice(&body) else {
        return refuse("invalid call request: send {\"sdp\": \"an SDP offer\"}".into());
    };
    if locked(&world.phones).len() >= CALLS_MAX {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            axum::Json(json!({"error": "too many browser phones are in a call"})),
        )
            .into_response();
    }
    let (mailbox_tx, mailbox) = mpsc::channel(call::MAILBOX);
    let hangup_tx = mailbox_tx.clone();
    let sink = Box::new(move |event: LegEvent| {
        // The page has been closed.
        if let LegEvent::Closed | LegEvent::Failed(_) = event {
            let _ = hangup_tx.try_send(CallMsg::Hangup);
        }
    });
    let (leg, answer) = match world.relay.open_browser(sdp, sink).await {
        Ok(opened) => opened,
        Err(e) => return refuse(format!("failed to {e}")),
    };
    let defaults = CallScript::default();
    let to = number_to_call(&world, to.as_deref());
    let script = CallScript { hangup: HangupRule::Never, to, ..defaults };
    let events = world.place_with_channels(script, Some(leg), mailbox_tx, mailbox);
    let id = world.rng.uuid().to_string();
    locked(&world.phones)
        .insert(id.clone(), BrowserCall { control: events.control(), events: Some(events) });
    drop_unless_fetched(&world, &id);
    axum::Json(json!({"id": id, "sdp": answer})).into_response()
}

/// Hangs up if the page does not request its events in time.
fn drop_unless_fetched(world: &Arc<World>, id: &str) {
    let (world, id) = (world.clone(), id.to_owned());
    tokio::spawn(async move {
        tokio::select! {
            () = world.stop.cancelled() => {}
            () = tokio::time::sleep(FETCH_DEADLINE) => {
                let unfetched = locked(&world.phones).get(&id).is_some_and(|p| p.events.is_some());
                if unfetched {
                    locked(&world.phones).remove(&id);
                }
            }
        }
    });
}

/// The event stream of a page. Dropping it removes the call.
struct EventStream {
    world: Arc<World>,
    id: String,
    events: CallEvents,
}

impl Drop for EventStream {
    fn drop(&mut self) {
        locked(&self.world.phones).remove(&self.id);
    }
}

async fn events(State(world): State<Arc<World>>, Path(id): Path<String>) -> Response {
    let events = locked(&world.phones).get_mut(&id).and_then(|p| p.events.take());
    match events {
        Some(events) => Sse::new(stream(EventStream { world, id, events }))
            .keep_alive(KeepAlive::default())
            .into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn stream(page: EventStream) -> impl Stream<Item = Result<Event, Infallible>> {
    futures_util::stream::unfold(page, |mut page| async move {
        let event = page.events.next().await?;
        let data = serde_json::to_string(&event).unwrap_or_default();
        Some((Ok(Event::default().data(data)), page))
    })
}

#[derive(Deserialize)]
struct KeysRequest {
    keys: String,
}

async fn keys(State(world): State<Arc<World>>, Path(id): Path<String>, body: Bytes) -> Response {
    let keys = serde_json::from_slice::<KeysRequest>(&body)
        .map_err(|e| e.to_string())
        .and_then(|k| parse_keys(&k.keys));
    match (keys, control_of(&world, &id)) {
        (Ok(keys), Some(control)) => {
            control.press(keys).await;
            StatusCode::NO_CONTENT.into_response()
        }
        (Err(message), _) => refuse(message),
        (_, None) => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn hangup(State(world): State<Arc<World>>, Path(id): Path<String>) -> Response {
    match control_of(&world, &id) {
        Some(control) => {
            control.hangup().await;
            StatusCode::NO_CONTENT.into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn control_of(world: &World, id: &str) -> Option<CallControl> {
    locked(&world.phones).get(id).map(|p| p.control.clone())
}
