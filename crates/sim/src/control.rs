//! The simulator's own doors, under `/_sim/`: place a call or a load from another process, read the log.
//!
//! For tools on the same machine. A page from elsewhere must not use them from somebody's browser, so that names other
//! than `localhost` (DNS rebinding) and cross-site requests are refused.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use futures_util::{Stream, StreamExt as _};
use http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::caller::{CallEvents, CallScript, HangupRule, KeysStart, parse_keys};
use super::load::{Load, LoadOrder};
use super::meta::chat::MessageOrder;
use super::meta::life::CallMsg;
use super::meta::permissions::AnswerOrder;
use super::world::SimNumber;
use super::{World, sound};

/// A WAV file of ten minutes at 48 kHz stereo, in Base64, fits.
const BODY_BYTES_MAX: usize = 160 << 20;
/// Longest call that may be asked for, in seconds.
pub const HOLD_MAX: f64 = 86_400.0;
/// Lines of a load's report that may wait for their reader.
const LOAD_LINES_MAX: usize = 64;

/// `POST /_sim/calls`: what a call is to be. Everything may be left out.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct CallOrder {
    /// The business number; with the two ids, one that the simulator does not know yet.
    pub to: Option<String>,
    pub phone_number_id: Option<String>,
    pub waba: Option<String>,
    pub from: Option<String>,
    pub name: Option<String>,
    /// Base URL of the node.
    pub node: Option<String>,
    pub api_key: Option<String>,
    pub app_secret: Option<String>,
    pub verify_token: Option<String>,
    pub dtmf: Option<String>,
    pub keys_start: KeysStart,
    /// A WAV file in Base64.
    pub say: Option<String>,
    pub record: bool,
    /// Hang up so many seconds after the answer; absent: when all is quiet.
    pub hold_s: Option<f64>,
    /// Never hang up by itself.
    pub stay: bool,
}

pub(crate) fn router() -> Router<Arc<World>> {
    Router::new()
        .route("/_sim/calls", post(place).layer(DefaultBodyLimit::max(BODY_BYTES_MAX)))
        .route("/_sim/hangup", post(hangup))
        .route("/_sim/load", post(load))
        .route("/_sim/load/stop", post(stop_load))
        .route("/_sim/log", get(log))
        .route("/_sim/numbers", post(order_number))
        .route("/_sim/failures", post(order_failures))
        .route("/_sim/app", post(order_app))
        .route("/_sim/messages", get(messages).post(write_message))
        .route("/_sim/messages/failures", post(order_failure))
        .route("/_sim/media/{id}", get(media))
        .route("/_sim/permissions", get(permissions))
        .route("/_sim/permissions/answer", post(answer_request))
        .layer(from_fn(only_from_here))
}

async fn place(State(world): State<Arc<World>>, body: Bytes) -> Response {
    let order: CallOrder = match serde_json::from_slice(&body) {
        Ok(order) => order,
        Err(e) => return refuse(format!("the body is no order of a call: {e}")),
    };
    match script_of(&world, order) {
        Ok(script) => lines(world.place(script, None)),
        Err(why) => refuse(why),
    }
}

/// The script that an order asks for.
fn script_of(world: &World, order: CallOrder) -> Result<CallScript, String> {
    let to = order.to.unwrap_or_else(|| super::world::NUMBER.to_owned());
    let to = model::digits_of(&to);
    let to = match (order.phone_number_id, order.waba) {
        (Some(phone_number_id), waba) => SimNumber {
            number: to,
            phone_number_id,
            waba: waba.unwrap_or_else(|| super::world::WABA.to_owned()),
            name: String::new(),
        },
        (None, _) => world.number(&to).ok_or_else(|| {
            format!("the simulated Meta has no business number {to}: give phone_number_id and waba with it")
        })?,
    };
    let say = match order.say {
        Some(wav) => {
            let wav = base64::engine::general_purpose::STANDARD.decode(wav);
            sound::frames_of_wav(&wav.map_err(|e| format!("say is not Base64: {e}"))?)
                .map_err(|e| format!("say: {e}"))?
        }
        None => Vec::new(),
    };
    let hangup = match order.hold_s {
        _ if order.stay => HangupRule::Never,
        Some(s) if (0.0..=HOLD_MAX).contains(&s) => {
            HangupRule::AfterAnswer(Duration::from_secs_f64(s))
        }
        Some(s) => return Err(format!("hold_s {s} is not between 0 and {HOLD_MAX}")),
        None => HangupRule::default(),
    };
    let usual = CallScript::default();
    Ok(CallScript {
        from: order.from.map_or(usual.from.clone(), |f| model::digits_of(&f)),
        name: order.name.unwrap_or(usual.name.clone()),
        to,
        node_url: order.node,
        api_key: order.api_key,
        app_secret: order.app_secret,
        verify_token: order.verify_token,
        keys: parse_keys(order.dtmf.as_deref().unwrap_or_default())
            .map_err(|e| format!("dtmf: {e}"))?,
        keys_start: order.keys_start,
        say,
        record: order.record,
        hangup,
        ..usual
    })
}

async fn order_number(State(world): State<Arc<World>>, body: Bytes) -> Response {
    let order = serde_json::from_slice(&body).map_err(|e| format!("the body is no number: {e}"));
    settled(order.and_then(|order| world.order_number(order)))
}

async fn order_failures(State(world): State<Arc<World>>, body: Bytes) -> Response {
    let order =
        serde_json::from_slice(&body).map_err(|e| format!("the body is no list of failures: {e}"));
    settled(order.map(|order| world.order_failures(order)))
}

async fn order_app(State(world): State<Arc<World>>, body: Bytes) -> Response {
    let order =
        serde_json::from_slice(&body).map_err(|e| format!("the body says nothing of the app: {e}"));
    settled(order.map(|order| world.order_app(order)))
}

fn settled(done: Result<(), String>) -> Response {
    match done {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(why) => refuse(why),
    }
}

/// A call's events. Whoever closes the connection hangs up.
fn lines(events: CallEvents) -> Response {
    json_lines(futures_util::stream::unfold(events, |mut events| async move {
        let event = events.next().await?;
        Some((event, events))
    }))
}

/// Objects as JSON lines.
fn json_lines<T: Serialize + 'static>(objects: impl Stream<Item = T> + Send + 'static) -> Response {
    let lines = objects.map(|object| {
        let mut line = serde_json::to_vec(&object).unwrap_or_default();
        line.push(b'\n');
        Ok::<_, std::convert::Infallible>(Bytes::from(line))
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

/// Runs a load; its report comes as it goes on. Whoever closes the connection ends it.
async fn load(State(world): State<Arc<World>>, body: Bytes) -> Response {
    let order: LoadOrder = match serde_json::from_slice(&body) {
        Ok(order) => order,
        Err(e) => return refuse(format!("the body is no order of a load: {e}")),
    };
    let script = order.check().and_then(|()| script_of(&world, order.call.clone()));
    let script = match script {
        Ok(script) => script,
        Err(why) => return refuse(why),
    };
    // Once for all calls, so that none of them waits for it.
    let Some(door) = world.door(&script) else {
        return refuse("the simulator was not told where the node is".to_owned());
    };
    if let Err(why) = world.webhooks.verify(&door).await {
        return refuse(why);
    }
    let Some(stop) = world.begin_load(&order.id) else {
        return refuse(format!("a load {:?} is under way already, or too many are", order.id));
    };
    let (report, reader) = mpsc::channel(LOAD_LINES_MAX);
    tokio::spawn(async move {
        let id = order.id.clone();
        Load::new(order, script).run(world.clone(), stop, report).await;
        world.end_load(&id);
    });
    json_lines(futures_util::stream::unfold(reader, |mut reader| async move {
        let event = reader.recv().await?;
        Some((event, reader))
    }))
}

/// `POST /_sim/load/stop`: this load places no further call, and ends those that live.
#[derive(Deserialize, Serialize)]
pub struct StopOrder {
    pub id: String,
}

async fn stop_load(State(world): State<Arc<World>>, body: Bytes) -> Response {
    match serde_json::from_slice::<StopOrder>(&body) {
        Ok(order) if world.stop_load(&order.id) => StatusCode::NO_CONTENT.into_response(),
        Ok(_) => StatusCode::NOT_FOUND.into_response(),
        Err(e) => refuse(format!("the body names no load: {e}")),
    }
}

/// `POST /_sim/hangup`: the user of this call hangs up.
#[derive(Deserialize, Serialize)]
pub struct HangupOrder {
    pub phone_number_id: String,
    pub call_id: String,
}

async fn hangup(State(world): State<Arc<World>>, body: Bytes) -> Response {
    let order: HangupOrder = match serde_json::from_slice(&body) {
        Ok(order) => order,
        Err(e) => return refuse(format!("the body names no call: {e}")),
    };
    match world.call(&order.phone_number_id, &order.call_id) {
        Some(call) => {
            let _ = call.send(CallMsg::Hangup).await;
            StatusCode::NO_CONTENT.into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

#[derive(Deserialize)]
struct LogQuery {
    #[serde(default)]
    since: u64,
}

async fn log(State(world): State<Arc<World>>, Query(query): Query<LogQuery>) -> Response {
    axum::Json(world.log.since(query.since)).into_response()
}

/// What users and businesses wrote to each other.
async fn messages(State(world): State<Arc<World>>) -> Response {
    axum::Json(world.chat.shown()).into_response()
}

/// `POST /_sim/messages`: a user writes.
async fn write_message(State(world): State<Arc<World>>, body: Bytes) -> Response {
    let order: MessageOrder = match serde_json::from_slice(&body) {
        Ok(order) => order,
        Err(e) => return refuse(format!("the body is no message: {e}")),
    };
    match world.user_writes(order).await {
        Ok(id) => axum::Json(serde_json::json!({ "id": id })).into_response(),
        Err(why) => refuse(why),
    }
}

/// `POST /_sim/messages/failures`: what becomes of the next messages.
async fn order_failure(State(world): State<Arc<World>>, body: Bytes) -> Response {
    let ordered = serde_json::from_slice(&body)
        .map_err(|e| format!("the body is no order of a failure: {e}"));
    match ordered.and_then(|order| world.chat.order_failure(order)) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(why) => refuse(why),
    }
}

/// A user's file, for who has the token.
async fn media(
    State(world): State<Arc<World>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let token = headers
        .get(header::AUTHORIZATION)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.strip_prefix("Bearer "));
    match world.chat.bytes(&id).filter(|_| token == Some(world.access_token.as_str())) {
        Some((mime, bytes)) => ([(header::CONTENT_TYPE, mime)], bytes).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn permissions(State(world): State<Arc<World>>) -> Response {
    axum::Json(world.permissions_shown()).into_response()
}

/// `POST /_sim/permissions/answer`: the simulated user accepts or rejects a request to be called.
async fn answer_request(State(world): State<Arc<World>>, body: Bytes) -> Response {
    let order: AnswerOrder = match serde_json::from_slice(&body) {
        Ok(order) => order,
        Err(e) => return refuse(format!("the body is no answer: {e}")),
    };
    match world.answer_request(&order).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(why) => {
            (StatusCode::CONFLICT, axum::Json(serde_json::json!({ "error": why }))).into_response()
        }
    }
}

/// 400 with the reason as `error`.
pub(crate) fn refuse(why: String) -> Response {
    (StatusCode::BAD_REQUEST, axum::Json(serde_json::json!({ "error": why }))).into_response()
}

/// Lets in what this machine asks, and pages of our own.
pub(crate) async fn only_from_here(request: Request, next: Next) -> Response {
    if is_from_here(request.headers()) {
        next.run(request).await
    } else {
        (StatusCode::FORBIDDEN, "this door is for the machine the simulator runs on\n")
            .into_response()
    }
}

/// [`only_from_here`] for a page that another of this machine's pages leads to: its form is its own again.
pub(crate) async fn only_from_here_or_elsewhere(request: Request, next: Next) -> Response {
    let reads = request.method() == http::Method::GET;
    let named = is_named_here(request.headers());
    if named && (reads || is_from_here(request.headers())) {
        next.run(request).await
    } else {
        (StatusCode::FORBIDDEN, "this door is for the machine the simulator runs on\n")
            .into_response()
    }
}

fn is_from_here(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").and_then(|v| v.to_str().ok());
    is_named_here(headers) && matches!(site, None | Some("same-origin" | "none"))
}

/// Whether the simulator was asked by an address of its own, or as `localhost`: any other name may lead anywhere.
fn is_named_here(headers: &HeaderMap) -> bool {
    let host = headers.get("host").and_then(|v| v.to_str().ok()).unwrap_or_default();
    let name = host
        .rsplit_once(':')
        .map_or(host, |(name, port)| if port.contains(']') { host } else { name });
    let literal =
        name.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>().is_ok();
    literal || name == "localhost"
}

#[cfg(test)]
mod tests {
    use super::is_from_here;
    use http::HeaderMap;

    #[test]
    fn only_this_machine_and_our_own_page_may() {
        let from = |host: &'static str, site: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.insert("host", host.parse().expect("host"));
            if let Some(site) = site {
                headers.insert("sec-fetch-site", site.parse().expect("site"));
            }
            is_from_here(&headers)
        };
        assert!(from("127.0.0.1:8081", None));
        assert!(from("localhost:8081", Some("same-origin")));
        assert!(from("[::1]:8081", Some("none")));
        assert!(from("[::1]", None));
        assert!(!from("rebound.example.com:8081", None));
        assert!(!from("127.0.0.1:8081", Some("cross-site")));
    }
}
