//! HTTP endpoints under `/_sim/`, with which other processes place calls and loads, inject failures
//! and read the log.
//!
//! They are for tools on the same machine. Requests with a host name other than `localhost` (DNS
//! rebinding) and cross-site requests are refused, so that no foreign web page can use them through
//! a developer's browser.

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
use model::is_local_host;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::call_message::CallMsg;
pub use super::call_request::CallRequest;
use super::caller::{CallEvent, CallEventKind, CallEvents, CallOutcome, CallScript, HangupRule};
use super::keys::parse_keys;
use super::load::{Load, LoadRequest};
use super::meta::chat::MessageRequest;
use super::meta::permissions::AnswerRequest;
use super::world::SimNumber;
use super::{World, sound};

/// Room for a Base64-encoded WAV file of ten minutes at 48 kHz stereo.
const BODY_BYTES_MAX: usize = 160 << 20;
/// Maximum length of a call, in seconds.
pub const HOLD_MAX: f64 = 86_400.0;
/// Report lines of a load that are buffered for a slow reader.
const LOAD_LINES_MAX: usize = 64;

pub(crate) fn router() -> Router<Arc<World>> {
    Router::new()
        .route("/_sim/calls", post(place).layer(DefaultBodyLimit::max(BODY_BYTES_MAX)))
        .route("/_sim/hangup", post(hangup))
        .route("/_sim/load", post(load))
        .route("/_sim/load/stop", post(stop_load))
        .route("/_sim/log", get(log))
        .route("/_sim/numbers", post(update_number))
        .route("/_sim/failures", post(add_failures))
        .route("/_sim/app", post(update_app))
        .route("/_sim/messages", get(messages).post(send_message))
        .route("/_sim/messages/failures", post(add_failure))
        .route("/_sim/media/{id}", get(media))
        .route("/_sim/permissions", get(permissions))
        .route("/_sim/permissions/answer", post(answer_request))
        .layer(from_fn(only_local))
}

async fn place(State(world): State<Arc<World>>, body: Bytes) -> Response {
    let request: CallRequest = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(e) => return refuse(format!("invalid call request: {e}")),
    };
    match script_from(&world, request) {
        Ok(script) => match check_signature(&world, &script).await {
            Ok(()) => event_lines(world.place(script, None)),
            Err(cause) => {
                let ended = CallOutcome { cause, ..CallOutcome::default() };
                let event = CallEvent::new(Duration::ZERO, CallEventKind::Ended(ended));
                json_lines(futures_util::stream::iter([event]))
            }
        },
        Err(message) => refuse(message),
    }
}

/// Checks that the node of a request accepts the signature of the request's app secret. The node
/// that the simulator itself was set up with has the same secret.
async fn check_signature(world: &World, script: &CallScript) -> Result<(), String> {
    match world.webhook_target(script).filter(|_| script.node_url.is_some()) {
        Some(target) => world.webhooks.check_signature(&target).await,
        None => Ok(()),
    }
}

/// Converts a request into a script.
fn script_from(world: &World, request: CallRequest) -> Result<CallScript, String> {
    let to = request.to.unwrap_or_else(|| super::world::NUMBER.to_owned());
    let to = model::digits_of(&to);
    let to = match (request.phone_number_id, request.waba) {
        (Some(phone_number_id), waba) => SimNumber {
            number: to,
            phone_number_id,
            waba: waba.unwrap_or_else(|| super::world::WABA.to_owned()),
            name: String::new(),
        },
        (None, _) => world.number(&to).ok_or_else(|| {
            format!(
                "{to} is not a number of the simulated Meta: use {} or another of its numbers. A \
                     request to /_sim/calls can also add a number with phone_number_id and \
                     waba",
                super::world::NUMBER
            )
        })?,
    };
    let say = match request.say {
        Some(wav) => {
            let wav = base64::engine::general_purpose::STANDARD.decode(wav);
            sound::frames_of_wav(&wav.map_err(|e| format!("say is not Base64: {e}"))?)
                .map_err(|e| format!("say: {e}"))?
        }
        None => Vec::new(),
    };
    let hangup = match request.hold_s {
        _ if request.stay => HangupRule::Never,
        Some(s) if (0.0..=HOLD_MAX).contains(&s) => {
            HangupRule::AfterAnswer(Duration::from_secs_f64(s))
        }
        Some(s) => return Err(format!("hold_s {s} is out of range: 0 to {HOLD_MAX}")),
        None => HangupRule::default(),
    };
    let defaults = CallScript::default();
    Ok(CallScript {
        from: request.from.map_or(defaults.from.clone(), |f| model::digits_of(&f)),
        name: request.name.unwrap_or(defaults.name.clone()),
        to,
        node_url: request.node,
        api_key: request.api_key,
        app_secret: request.app_secret,
        verify_token: request.verify_token,
        keys: parse_keys(request.dtmf.as_deref().unwrap_or_default())
            .map_err(|e| format!("dtmf: {e}"))?,
        keys_start: request.keys_start,
        say,
        record: request.record,
        hangup,
        ..defaults
    })
}

async fn update_number(State(world): State<Arc<World>>, body: Bytes) -> Response {
    let request = serde_json::from_slice(&body).map_err(|e| format!("invalid number: {e}"));
    no_content(request.and_then(|request| world.update_number(request)))
}

async fn add_failures(State(world): State<Arc<World>>, body: Bytes) -> Response {
    let request =
        serde_json::from_slice(&body).map_err(|e| format!("invalid list of failures: {e}"));
    no_content(request.map(|request| world.add_failures(request)))
}

async fn update_app(State(world): State<Arc<World>>, body: Bytes) -> Response {
    let request = serde_json::from_slice(&body).map_err(|e| format!("invalid app update: {e}"));
    no_content(request.map(|request| world.update_app(request)))
}

fn no_content(done: Result<(), String>) -> Response {
    match done {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(message) => refuse(message),
    }
}

/// Streams a call's events. Closing the connection hangs up.
fn event_lines(events: CallEvents) -> Response {
    json_lines(futures_util::stream::unfold(events, |mut events| async move {
        let event = events.next().await?;
        Some((event, events))
    }))
}

/// A response with one JSON object per line.
fn json_lines<T: Serialize + 'static>(objects: impl Stream<Item = T> + Send + 'static) -> Response {
    let lines = objects.map(|object| {
        let mut line = serde_json::to_vec(&object).unwrap_or_default();
        line.push(b'\n');
        Ok::<_, std::convert::Infallible>(Bytes::from(line))
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

/// Runs a load and streams its report. Closing the connection ends the load.
async fn load(State(world): State<Arc<World>>, body: Bytes) -> Response {
    let request: LoadRequest = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(e) => return refuse(format!("invalid load request: {e}")),
    };
    let script = request.check().and_then(|()| script_from(&world, request.call.clone()));
    let script = match script {
        Ok(script) => script,
        Err(message) => return refuse(message),
    };
    // Verified once for all calls, so that none of them waits for it.
    let Some(target) = world.webhook_target(&script) else {
        return refuse("no node is configured: set the node URL".to_owned());
    };
    if let Err(message) = world.webhooks.verify(&target).await {
        return refuse(message);
    }
    if let Err(message) = check_signature(&world, &script).await {
        return refuse(message);
    }
    let Some(stop) = world.register_load(&request.id) else {
        return refuse(format!(
            "the load {:?} is already running, or too many loads are",
            request.id
        ));
    };
    let (report, reader) = mpsc::channel(LOAD_LINES_MAX);
    tokio::spawn(async move {
        let id = request.id.clone();
        Load::new(request, script).run(world.clone(), stop, report).await;
        world.unregister_load(&id);
    });
    json_lines(futures_util::stream::unfold(reader, |mut reader| async move {
        let event = reader.recv().await?;
        Some((event, reader))
    }))
}

/// Body of `POST /_sim/load/stop`, which ends a load and its live calls.
#[derive(Deserialize, Serialize)]
pub struct StopLoadRequest {
    pub id: String,
}

async fn stop_load(State(world): State<Arc<World>>, body: Bytes) -> Response {
    match serde_json::from_slice::<StopLoadRequest>(&body) {
        Ok(request) if world.stop_load(&request.id) => StatusCode::NO_CONTENT.into_response(),
        Ok(_) => StatusCode::NOT_FOUND.into_response(),
        Err(e) => refuse(format!("invalid stop request: {e}")),
    }
}

/// Body of `POST /_sim/hangup`: the user of this call hangs up.
#[derive(Deserialize, Serialize)]
pub struct HangupRequest {
    pub phone_number_id: String,
    pub call_id: String,
}

async fn hangup(State(world): State<Arc<World>>, body: Bytes) -> Response {
    let request: HangupRequest = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(e) => return refuse(format!("invalid hangup request: {e}")),
    };
    match world.call(&request.phone_number_id, &request.call_id) {
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

/// All messages between users and business numbers.
async fn messages(State(world): State<Arc<World>>) -> Response {
    axum::Json(world.chat.messages()).into_response()
}

/// `POST /_sim/messages`: a user sends a message.
async fn send_message(State(world): State<Arc<World>>, body: Bytes) -> Response {
    let request: MessageRequest = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(e) => return refuse(format!("invalid message: {e}")),
    };
    match world.send_user_message(request).await {
        Ok(id) => axum::Json(serde_json::json!({ "id": id })).into_response(),
        Err(message) => refuse(message),
    }
}

/// `POST /_sim/messages/failures`: makes later messages of the business fail.
async fn add_failure(State(world): State<Arc<World>>, body: Bytes) -> Response {
    let request = serde_json::from_slice(&body).map_err(|e| format!("invalid failure: {e}"));
    match request.and_then(|request| world.chat.add_failure(request)) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(message) => refuse(message),
    }
}

/// `GET` of a media file's content. Needs the Graph access token.
async fn media(
    State(world): State<Arc<World>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let token = headers
        .get(header::AUTHORIZATION)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.strip_prefix("Bearer "));
    match world.chat.file(&id).filter(|_| token == Some(world.access_token.as_str())) {
        Some((mime, bytes)) => ([(header::CONTENT_TYPE, mime)], bytes).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn permissions(State(world): State<Arc<World>>) -> Response {
    axum::Json(world.permissions_json()).into_response()
}

/// `POST /_sim/permissions/answer`: the user answers a permission request.
async fn answer_request(State(world): State<Arc<World>>, body: Bytes) -> Response {
    let request: AnswerRequest = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(e) => return refuse(format!("invalid answer: {e}")),
    };
    match world.answer_request(&request).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(message) => (StatusCode::CONFLICT, axum::Json(serde_json::json!({ "error": message })))
            .into_response(),
    }
}

/// A 400 response with `why` as its `error` member.
pub(crate) fn refuse(message: String) -> Response {
    (StatusCode::BAD_REQUEST, axum::Json(serde_json::json!({ "error": message }))).into_response()
}

/// Middleware that admits requests of this machine and same-origin requests of the simulator's
/// pages.
pub(crate) async fn only_local(request: Request, next: Next) -> Response {
    if is_local_request(request.headers()) {
        next.run(request).await
    } else {
        (StatusCode::FORBIDDEN, "only requests from the simulator's own machine are allowed\n")
            .into_response()
    }
}

/// Like [`only_local`], but also admits navigation with GET from other sites and ports, for pages
/// that the console links to. Requests of such a page then have the same origin.
pub(crate) async fn local_or_navigation(request: Request, next: Next) -> Response {
    let opens = request.method() == http::Method::GET && is_navigation(request.headers());
    if opens || is_local_request(request.headers()) {
        next.run(request).await
    } else {
        (StatusCode::FORBIDDEN, "only requests from the simulator's own machine are allowed\n")
            .into_response()
    }
}

fn is_local_request(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").and_then(|v| v.to_str().ok());
    let is_own = match site {
        Some(site) => matches!(site, "same-origin" | "none"),
        None => !has_foreign_origin(headers),
    };
    has_local_host(headers) && is_own
}

/// Whether the page of another origin sends the request, for browsers without `Sec-Fetch-Site`.
fn has_foreign_origin(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get("origin") else { return false };
    let host = headers.get("host").map(|host| host.as_bytes());
    origin.as_bytes().strip_prefix(b"http://") != host
}

/// Whether a browser opens a page of this machine, in whichever way the user came there.
fn is_navigation(headers: &HeaderMap) -> bool {
    let mode = headers.get("sec-fetch-mode").and_then(|v| v.to_str().ok());
    has_local_host(headers) && mode == Some("navigate")
}

fn has_local_host(headers: &HeaderMap) -> bool {
    headers.get("host").and_then(|v| v.to_str().ok()).is_some_and(is_local_host)
}

#[cfg(test)]
mod tests {
    use super::{is_local_request, is_navigation};
    use http::HeaderMap;

    #[test]
    fn admits_only_local_requests() {
        let from = |host: &'static str, site: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.insert("host", host.parse().expect("host"));
            if let Some(site) = site {
                headers.insert("sec-fetch-site", site.parse().expect("site"));
            }
            is_local_request(&headers)
        };
        assert!(from("127.0.0.1:8081", None));
        assert!(from("localhost:8081", Some("same-origin")));
        assert!(from("[::1]:8081", Some("none")));
        assert!(from("[::1]", None));
        assert!(!from("rebound.example.com:8081", None));
        assert!(!from("127.0.0.1:8081", Some("cross-site")));
        assert!(!from("127.0.0.1:8081", Some("same-site")));
        // Without fetch metadata.
        let of_page = |origin: &'static str| {
            let host = ("host".parse().expect("name"), "127.0.0.1:8081".parse().expect("host"));
            let origin = ("origin".parse().expect("name"), origin.parse().expect("origin"));
            is_local_request(&HeaderMap::from_iter([host, origin]))
        };
        assert!(of_page("http://127.0.0.1:8081"));
        for foreign in ["https://evil.example", "null", "http://127.0.0.1:8080"] {
            assert!(!of_page(foreign), "{foreign}");
        }
    }

    #[test]
    fn admits_navigation_from_the_console() {
        let opens = |host: &'static str, mode: &'static str| {
            let host = ("host".parse().expect("name"), host.parse().expect("host"));
            let mode = ("sec-fetch-mode".parse().expect("name"), mode.parse().expect("mode"));
            is_navigation(&HeaderMap::from_iter([host, mode]))
        };
        assert!(opens("127.0.0.1:8081", "navigate"));
        assert!(!opens("127.0.0.1:8081", "cors") && !opens("127.0.0.1:8081", "websocket"));
        assert!(!opens("rebound.example.com:8081", "navigate"));
    }
}
