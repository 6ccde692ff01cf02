//! The Graph API on loopback: `POST /v23.0/{phone_number_id}/calls` (`meta-calling.md` §4.1, §4.6; M7, M8, M21).
//!
//! Reads and answers; the call itself (`life`) decides.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use http::{HeaderMap, Method, StatusCode, Uri, header};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::life::outgoing::Connect;
use super::life::{CallMsg, GraphAsk};
use super::{messages, numbers, settings, uploads};
use crate::World;
use crate::faults::{CallFaults, GraphBody, GraphDeed, GraphHow};
use crate::log::Logged;
use crate::wire::Cut;

/// The base path: the version that `interface.md` §2 names.
pub(crate) const BASE: &str = "/v23.0";
/// Largest request.
const BODY_BYTES_MAX: usize = 262_144;
/// Simultaneous calls of a number (§6.1).
const CALLS_MAX: usize = 1_000;
/// §4.1.5.
const OPAQUE_CHARS_MAX: usize = 512;

/// An error as Graph tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GraphFault {
    pub(crate) status: u16,
    pub(crate) code: i64,
    pub(crate) subcode: Option<u32>,
    pub(crate) details: String,
}

impl GraphFault {
    /// Code 100: a parameter is wrong.
    pub(crate) fn parameter(details: impl Into<String>) -> Self {
        Self { status: 400, code: 100, subcode: None, details: details.into() }
    }

    /// A limit that is used up.
    pub(super) fn limit(code: i64, details: &str) -> Self {
        Self { status: 429, code, subcode: None, details: details.into() }
    }

    /// Code 100 for a call that is not there (M8).
    pub(crate) fn no_call() -> Self {
        Self::parameter("Call not found or ended")
    }

    fn message(&self) -> String {
        let what = match (self.code, self.subcode) {
            (190, _) => "Invalid OAuth access token",
            (613, _) => "Calls to this api have exceeded the rate limit",
            (131_000, _) => "Something went wrong",
            (131_009, _) => "Parameter value is not valid",
            (131_047, _) => "Re-engagement message",
            (133_005, _) => "Two step verification PIN mismatch",
            (138_000, _) => "Calling not enabled",
            (138_002, _) => "Concurrent calls limit hit",
            (138_003, _) => "Duplicate call",
            (138_006, _) => "Call permission not found",
            (138_009, _) => "Call permission request limit hit",
            (138_012, _) => "Business initiated calls limit hit",
            (_, Some(33)) => return "Unsupported post request. Object does not exist".into(),
            _ => "Invalid parameter",
        };
        format!("(#{}) {what}", self.code)
    }

    pub(super) fn body(&self, trace: &str) -> Value {
        let mut error = json!({
            "message": self.message(),
            "type": if self.subcode == Some(33) { "GraphMethodException" } else { "OAuthException" },
            "code": self.code,
            "fbtrace_id": trace,
        });
        if let Some(members) = error.as_object_mut() {
            if let Some(subcode) = self.subcode {
                members.insert("error_subcode".into(), json!(subcode));
            }
            if !self.details.is_empty() {
                members.insert(
                    "error_data".into(),
                    json!({"messaging_product": "whatsapp", "details": self.details}),
                );
            }
        }
        json!({ "error": error })
    }
}

/// What `/calls` can be asked for a call that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Connect,
    PreAccept,
    Accept,
    Reject,
    Terminate,
}

impl Action {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::PreAccept => "pre_accept",
            Self::Accept => "accept",
            Self::Reject => "reject",
            Self::Terminate => "terminate",
        }
    }

    fn of(word: &str) -> Option<Self> {
        [Self::Connect, Self::PreAccept, Self::Accept, Self::Reject, Self::Terminate]
            .into_iter()
            .find(|a| a.as_str() == word)
    }
}

/// Graph's paths.
pub(crate) fn router() -> Router<Arc<World>> {
    Router::new()
        .route(&format!("{BASE}/{{phone_number_id}}/calls"), post(calls))
        .route(&format!("{BASE}/{{phone_number_id}}/call_permissions"), get(messages::permissions))
        .route(&format!("{BASE}/{{phone_number_id}}/messages"), post(messages::post))
        .route(
            &format!("{BASE}/{{phone_number_id}}/media"),
            post(uploads::post).layer(DefaultBodyLimit::max(uploads::BODY_BYTES_MAX)),
        )
        .route(
            &format!("{BASE}/{{phone_number_id}}/settings"),
            get(settings::get).post(settings::post),
        )
        .route(&format!("{BASE}/oauth/access_token"), post(numbers::exchange))
        .route(&format!("{BASE}/debug_token"), post(numbers::debug_token))
        .route(&format!("{BASE}/{{phone_number_id}}"), get(numbers::number))
        .route(&format!("{BASE}/{{phone_number_id}}/phone_numbers"), get(numbers::of_waba))
        .route(&format!("{BASE}/{{phone_number_id}}/register"), post(numbers::register))
        .route(&format!("{BASE}/{{phone_number_id}}/deregister"), post(numbers::deregister))
        .route(&format!("{BASE}/{{phone_number_id}}/subscribed_apps"), any(numbers::apps))
        .route(&format!("{BASE}/{{phone_number_id}}/subscriptions"), get(numbers::subscriptions))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}

/// This stand-in, as whoever asks reaches it.
pub(super) fn own_url(headers: &HeaderMap) -> String {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    format!("http://{host}")
}

/// Any other path: Graph's answer to what it does not know.
pub(crate) async fn unknown(
    State(world): State<Arc<World>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let outcome = authorised(&world, &headers).and(Err(GraphFault {
        subcode: Some(33),
        ..GraphFault::parameter("No such path in the simulated Graph API")
    }));
    answer(&world, &method, uri.path(), "", "", outcome)
}

async fn calls(
    State(world): State<Arc<World>>,
    ConnectInfo(cut): ConnectInfo<Cut>,
    Path(phone_number_id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = format!("/{phone_number_id}/calls");
    let read = authorised(&world, &headers).and_then(|()| read(&world, &phone_number_id, &body));
    let (action, call_id, outcome) = match read {
        Ok(asked) => {
            let faults = match asked.action {
                // A call begins: what goes wrong in it is drawn now.
                Action::Connect => {
                    let number = world.number_of_id(&phone_number_id).unwrap_or_default().number;
                    Some(Arc::new(world.faults.call(&number, &asked.to)))
                }
                _ => world.faults_of(&phone_number_id, &asked.call_id),
            };
            if let Some(deed) = faults.as_ref().and_then(|faults| faults.graph(asked.action)) {
                return fail(&world, &cut, &phone_number_id, &asked, faults, deed).await;
            }
            let outcome = carry_out(&world, &phone_number_id, &asked, faults).await;
            (asked.action.as_str(), asked.call_id, outcome)
        }
        Err(fault) => ("", String::new(), Err(fault)),
    };
    answer(&world, &Method::POST, &path, action, &call_id, outcome)
}

/// Goes wrong as a rule has it (H4).
async fn fail(
    world: &Arc<World>,
    cut: &Cut,
    phone_number_id: &str,
    asked: &Asked,
    faults: Option<Arc<CallFaults>>,
    deed: GraphDeed,
) -> Response {
    let path = format!("/{phone_number_id}/calls");
    let done = |faults| carry_out(world, phone_number_id, asked, faults);
    let outcome = if deed.done { Some(done(faults.clone()).await) } else { None };
    let action = asked.action.as_str();
    let details =
        format!("{action}: {:?}{}", deed.how, if deed.done { ", after it was done" } else { "" });
    world.log.add(Logged::Fault { call_id: asked.call_id.clone(), details });
    match deed.how {
        GraphHow::Answer { status, body, retry_after } => {
            told(world, &path, asked, status, body, retry_after)
        }
        GraphHow::Silence(length) => {
            tokio::time::sleep(length).await;
            let outcome = match outcome {
                Some(outcome) => outcome,
                None => done(faults).await,
            };
            answer(world, &Method::POST, &path, action, &asked.call_id, outcome)
        }
        GraphHow::Reset { after_bytes } => {
            cut.after(after_bytes);
            answer(world, &Method::POST, &path, action, &asked.call_id, outcome.unwrap_or(Ok(None)))
        }
    }
}

/// An answer as no rule of Graph's would have it.
fn told(
    world: &World,
    path: &str,
    asked: &Asked,
    status: u16,
    body: GraphBody,
    retry_after: Option<u32>,
) -> Response {
    let (kind, body) = match body {
        GraphBody::Error(code) => {
            let fault = GraphFault {
                status,
                code,
                subcode: None,
                details: "by a rule of the fault file".into(),
            };
            ("application/json; charset=UTF-8", fault.body(&world.dice.text(22)).to_string())
        }
        GraphBody::Html => (
            "text/html",
            "<!DOCTYPE html><html><body><h1>Bad gateway</h1></body></html>".to_owned(),
        ),
        GraphBody::Empty => ("application/json; charset=UTF-8", String::new()),
        GraphBody::Cut => (
            "application/json; charset=UTF-8",
            r#"{"messaging_product":"whatsapp","succ"#.to_owned(),
        ),
    };
    let details = "by a rule of the fault file".to_owned();
    log(world, &Method::POST, path, asked.action.as_str(), &asked.call_id, status, details);
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, [(header::CONTENT_TYPE, kind)], body).into_response();
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

pub(super) fn authorised(world: &World, headers: &HeaderMap) -> Result<(), GraphFault> {
    let given = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    match given.and_then(|v| v.strip_prefix("Bearer ")) {
        Some(token) if token == world.access_token || world.accounts.knows(token) => Ok(()),
        _ => Err(GraphFault { status: 401, code: 190, subcode: None, details: String::new() }),
    }
}

/// A request to `/calls`, read.
struct Asked {
    action: Action,
    /// Empty where a call is to be made.
    call_id: String,
    /// The user who is called.
    to: String,
    sdp: Option<String>,
    opaque: Option<String>,
}

fn read(world: &World, phone_number_id: &str, body: &[u8]) -> Result<Asked, GraphFault> {
    if !world.has_number(phone_number_id) {
        return Err(GraphFault { subcode: Some(33), ..GraphFault::parameter("") });
    }
    let body: Value = serde_json::from_slice(body)
        .map_err(|_| GraphFault::parameter("The request body is not JSON"))?;
    if body["messaging_product"] != "whatsapp" {
        return Err(GraphFault::parameter("messaging_product must be whatsapp"));
    }
    let word = body["action"].as_str().ok_or_else(|| GraphFault::parameter("action is missing"))?;
    let action = Action::of(word).ok_or_else(|| {
        GraphFault::parameter(format!(
            "action {word:?} is not one of connect, pre_accept, accept, reject, terminate"
        ))
    })?;
    let call_id = match body["call_id"].as_str() {
        Some(call_id) => call_id,
        None if action == Action::Connect => "",
        None => return Err(GraphFault::parameter("call_id is missing")),
    };
    let to: String =
        body["to"].as_str().unwrap_or_default().chars().filter(char::is_ascii_digit).collect();
    if action == Action::Connect && to.is_empty() {
        return Err(GraphFault::parameter("to is missing"));
    }
    let opaque = body["biz_opaque_callback_data"].as_str();
    if opaque.is_some_and(|o| o.chars().count() > OPAQUE_CHARS_MAX) {
        return Err(GraphFault::parameter(
            "biz_opaque_callback_data is longer than 512 characters",
        ));
    }
    let sdp = match action {
        Action::Connect => Some(sdp(&body, "offer")?),
        Action::PreAccept | Action::Accept => Some(sdp(&body, "answer")?),
        Action::Reject | Action::Terminate => None,
    };
    Ok(Asked { action, call_id: call_id.to_owned(), to, sdp, opaque: opaque.map(str::to_owned) })
}

fn sdp(body: &Value, kind: &str) -> Result<String, GraphFault> {
    let session = &body["session"];
    match session["sdp_type"].as_str() {
        Some(is) if is == kind => {}
        Some(other) => {
            return Err(GraphFault::parameter(format!(
                "session.sdp_type {other:?} must be {kind}"
            )));
        }
        None => return Err(GraphFault::parameter("session.sdp_type is missing")),
    }
    session["sdp"]
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| GraphFault::parameter("session.sdp is missing"))
}

/// Gives the id of the call that was made, where one was to be.
async fn carry_out(
    world: &Arc<World>,
    phone_number_id: &str,
    asked: &Asked,
    faults: Option<Arc<CallFaults>>,
) -> Result<Option<String>, GraphFault> {
    if let (Action::Connect, Some(faults)) = (asked.action, faults) {
        return connect(world, phone_number_id, asked, faults).await.map(Some);
    }
    let call = world.call(phone_number_id, &asked.call_id).ok_or_else(GraphFault::no_call)?;
    let (reply, outcome) = oneshot::channel();
    let ask = GraphAsk {
        action: asked.action,
        sdp: asked.sdp.clone(),
        opaque: asked.opaque.clone(),
        reply,
    };
    call.send(CallMsg::Graph(ask)).await.map_err(|_| GraphFault::no_call())?;
    // A call that ended meanwhile drops the reply.
    outcome.await.unwrap_or_else(|_| Err(GraphFault::no_call())).map(|()| None)
}

/// The business calls a user (M14).
async fn connect(
    world: &Arc<World>,
    phone_number_id: &str,
    asked: &Asked,
    faults: Arc<CallFaults>,
) -> Result<String, GraphFault> {
    let refuse = |status, code, details: &str| GraphFault {
        status,
        code,
        subcode: None,
        details: details.to_owned(),
    };
    let number = world.number_of_id(phone_number_id).ok_or_else(GraphFault::no_call)?;
    if !world.settings.can_be_called(phone_number_id) {
        return Err(refuse(401, 138_000, "Calling is not enabled for this phone number"));
    }
    world.permissions.may_call(&number, &asked.to, world.clock.wall().secs())?;
    if world.is_engaged(phone_number_id, &asked.to) {
        return Err(refuse(400, 138_003, "A call with this user is under way"));
    }
    if world.calls_of(phone_number_id) >= CALLS_MAX {
        return Err(refuse(429, 138_002, "The number has as many calls as it may"));
    }
    let (reply, made) = oneshot::channel();
    let connect =
        Connect { sdp: asked.sdp.clone().unwrap_or_default(), opaque: asked.opaque.clone(), reply };
    world.call_user(number, &asked.to, connect, faults);
    made.await.unwrap_or_else(|_| Err(GraphFault::no_call()))
}

fn answer(
    world: &World,
    method: &Method,
    path: &str,
    action: &str,
    call_id: &str,
    outcome: Result<Option<String>, GraphFault>,
) -> Response {
    let (status, body, details) = match outcome {
        Ok(None) => (200, json!({"messaging_product": "whatsapp", "success": true}), String::new()),
        Ok(Some(made)) => {
            let body =
                json!({"messaging_product": "whatsapp", "calls": [{"id": made}], "success": true});
            (200, body, String::new())
        }
        Err(fault) => (fault.status, fault.body(&world.dice.text(22)), fault.details),
    };
    log(world, method, path, action, call_id, status, details);
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, "application/json; charset=UTF-8")], body.to_string())
        .into_response()
}

/// Notes a request and its answer.
pub(super) fn log(
    world: &World,
    method: &Method,
    path: &str,
    action: &str,
    call_id: &str,
    status: u16,
    details: String,
) {
    let (method, path) = (method.to_string(), path.to_owned());
    let (action, call_id) = (action.to_owned(), call_id.to_owned());
    world.log.add(Logged::Graph { method, path, action, call_id, status, details });
}
