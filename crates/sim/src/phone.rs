//! The browser phone: a simulated WhatsApp user at a page (`console/phone`). The browser's connection ends here; Opus
//! passes through to Meta's side of the call, keys become RFC 4733 events there.
//!
//! The page reads a call's events as SSE; closing them (or the page) hangs up.

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

use super::caller::{CallControl, CallEvents, CallScript, HangupRule, parse_keys};
use super::control::{only_from_here, refuse};
use super::media::LegTold;
use super::meta::life::{self, CallMsg};
use super::world::SimNumber;
use super::{World, locked};

/// Browser calls at a time.
const PHONES_MAX: usize = 64;
/// A page that does not fetch its events has gone.
const FETCH_WITHIN: Duration = Duration::from_secs(30);
const BODY_BYTES_MAX: usize = 65_536;
/// R20, and nothing from anywhere else.
const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                   media-src 'self' blob:; img-src 'self' data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// The browser phones in a call.
pub(crate) type Phones = Mutex<HashMap<String, Phone>>;

#[derive(Debug)]
pub(crate) struct Phone {
    control: CallControl,
    /// Until the page fetches them.
    events: Option<CallEvents>,
}

pub(crate) fn router() -> Router<Arc<World>> {
    let page =
        |kind: &'static str, text: &'static str| get(move || async move { asset(kind, text) });
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
        .route("/_sim/phone/world", get(who))
        .route("/_sim/phone/calls", post(call))
        .route("/_sim/phone/calls/{id}/events", get(events))
        .route("/_sim/phone/calls/{id}/keys", post(keys))
        .route("/_sim/phone/calls/{id}/hangup", post(hangup))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn(only_from_here))
}

fn asset(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
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

/// Who calls whom: what the page shows before the call.
async fn who(State(world): State<Arc<World>>, Query(wanted): Query<Wanted>) -> Response {
    let script = CallScript::default();
    let number = called(&world, wanted.to.as_deref());
    let node = locked(&world.node_url).clone();
    axum::Json(json!({"number": number.number, "business": number.name, "user": script.name, "from": script.from, "phone_number_id": number.phone_number_id, "node": node}))
        .into_response()
}

/// Whom the page was opened to call.
#[derive(Deserialize)]
struct Wanted {
    to: Option<String>,
}

/// The number that is meant; the usual one where there is no such.
fn called(world: &World, to: Option<&str>) -> SimNumber {
    let usual = CallScript::default().to;
    let wanted = to.and_then(|to| world.number(&model::digits_of(to)));
    wanted.or_else(|| world.number(&usual.number)).unwrap_or(usual)
}

#[derive(Deserialize)]
struct NewCall {
    sdp: String,
    #[serde(default)]
    to: Option<String>,
}

async fn call(State(world): State<Arc<World>>, body: Bytes) -> Response {
    let Ok(NewCall { sdp, to }) = serde_json::from_slice(&body) else {
        return refuse("an offer is needed: {\"sdp\": …}".into());
    };
    if locked(&world.phones).len() >= PHONES_MAX {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            axum::Json(json!({"error": "too many phones are in a call"})),
        )
            .into_response();
    }
    let (own, mailbox) = mpsc::channel(life::MAILBOX);
    let told = own.clone();
    let sink = Box::new(move |news: LegTold| {
        // The page has gone: so has the user.
        if let LegTold::Closed | LegTold::Gone(_) = news {
            let _ = told.try_send(CallMsg::Hangup);
        }
    });
    let (leg, answer) = match world.relay.open_browser(sdp, sink).await {
        Ok(opened) => opened,
        Err(e) => return refuse(format!("could not {e}")),
    };
    let usual = CallScript::default();
    let to = called(&world, to.as_deref());
    let script = CallScript { hangup: HangupRule::Never, to, ..usual };
    let events = world.place_wired(script, Some(leg), own, mailbox);
    let id = world.dice.uuid().to_string();
    locked(&world.phones)
        .insert(id.clone(), Phone { control: events.control(), events: Some(events) });
    forget_unfetched(&world, &id);
    axum::Json(json!({"id": id, "sdp": answer})).into_response()
}

/// A page that never asked for its events hangs up.
fn forget_unfetched(world: &Arc<World>, id: &str) {
    let (world, id) = (world.clone(), id.to_owned());
    tokio::spawn(async move {
        tokio::select! {
            () = world.stop.cancelled() => {}
            () = tokio::time::sleep(FETCH_WITHIN) => {
                let unfetched = locked(&world.phones).get(&id).is_some_and(|p| p.events.is_some());
                if unfetched {
                    locked(&world.phones).remove(&id);
                }
            }
        }
    });
}

/// Takes the phone off the list when its page is done.
struct Watching {
    world: Arc<World>,
    id: String,
    events: CallEvents,
}

impl Drop for Watching {
    fn drop(&mut self) {
        locked(&self.world.phones).remove(&self.id);
    }
}

async fn events(State(world): State<Arc<World>>, Path(id): Path<String>) -> Response {
    let events = locked(&world.phones).get_mut(&id).and_then(|p| p.events.take());
    match events {
        Some(events) => Sse::new(stream(Watching { world, id, events }))
            .keep_alive(KeepAlive::default())
            .into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn stream(watching: Watching) -> impl Stream<Item = Result<Event, Infallible>> {
    futures_util::stream::unfold(watching, |mut watching| async move {
        let event = watching.events.next().await?;
        let data = serde_json::to_string(&event).unwrap_or_default();
        Some((Ok(Event::default().data(data)), watching))
    })
}

#[derive(Deserialize)]
struct Keys {
    keys: String,
}

async fn keys(State(world): State<Arc<World>>, Path(id): Path<String>, body: Bytes) -> Response {
    let keys = serde_json::from_slice::<Keys>(&body)
        .map_err(|e| e.to_string())
        .and_then(|k| parse_keys(&k.keys));
    match (keys, control_of(&world, &id)) {
        (Ok(keys), Some(control)) => {
            control.press(keys).await;
            StatusCode::NO_CONTENT.into_response()
        }
        (Err(why), _) => refuse(why),
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
