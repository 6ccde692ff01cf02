//! The Graph API: routing, authorisation, and `POST /v23.0/{phone_number_id}/calls`.
//!
//! The handlers parse requests and build responses. The call itself (`call`) decides.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{ConnectInfo, Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, StatusCode, Uri, header};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::action::Action;
use super::call::outgoing::Connect;
use super::error::GraphError;
use crate::World;
use crate::call_message::{CallMsg, GraphRequest};
use crate::faults::{CallFaults, GraphBody, GraphFault, GraphFaultKind};
use crate::listener::ResetHandle;
use crate::log::LogEvent;

/// Base path, with the API version.
pub(crate) const BASE: &str = "/v23.0";
/// Maximum number of simultaneous calls of a number.
const CALLS_PER_NUMBER_MAX: usize = 1_000;
/// Maximum length of `biz_opaque_callback_data`, in characters.
const OPAQUE_CHARS_MAX: usize = 512;

/// The base URL of the simulator as the client addressed it.
pub(super) fn own_url(headers: &HeaderMap) -> String {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    format!("http://{host}")
}

/// Graph's response to an unknown path.
pub(crate) async fn unknown(
    State(world): State<Arc<World>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let outcome = authorise(&world, &headers).and(Err(GraphError {
        subcode: Some(33),
        ..GraphError::parameter("No such path in the simulated Graph API")
    }));
    respond(&world, &method, uri.path(), "", "", outcome)
}

pub(super) async fn calls(
    State(world): State<Arc<World>>,
    ConnectInfo(reset): ConnectInfo<ResetHandle>,
    Path(phone_number_id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = format!("/{phone_number_id}/calls");
    let parsed =
        authorise(&world, &headers).and_then(|()| parse_request(&world, &phone_number_id, &body));
    let (action, call_id, outcome) = match parsed {
        Ok(request) => {
            let faults = match request.action {
                // The call begins with this request, so its faults are selected here.
                Action::Connect => {
                    let number = world.number_by_id(&phone_number_id).unwrap_or_default().number;
                    Some(Arc::new(world.faults.call(&number, &request.to)))
                }
                _ => world.faults_of(&phone_number_id, &request.call_id),
            };
            if let Some(fault) = faults.as_ref().and_then(|faults| faults.graph(request.action)) {
                return inject_fault(&world, &reset, &phone_number_id, &request, faults, fault)
                    .await;
            }
            let outcome = execute(&world, &phone_number_id, &request, faults).await;
            (request.action.as_str(), request.call_id, outcome)
        }
        Err(error) => ("", String::new(), Err(error)),
    };
    respond(&world, &Method::POST, &path, action, &call_id, outcome)
}

/// Applies a fault instead of, or after, carrying out the request.
async fn inject_fault(
    world: &Arc<World>,
    reset: &ResetHandle,
    phone_number_id: &str,
    request: &CallsRequest,
    faults: Option<Arc<CallFaults>>,
    fault: GraphFault,
) -> Response {
    let path = format!("/{phone_number_id}/calls");
    let done = |faults| execute(world, phone_number_id, request, faults);
    let outcome = if fault.carried_out { Some(done(faults.clone()).await) } else { None };
    let action = request.action.as_str();
    let details = format!(
        "{action}: {:?}{}",
        fault.kind,
        if fault.carried_out { ", after it was carried out" } else { "" }
    );
    world.log.add(LogEvent::Fault { call_id: request.call_id.clone(), details });
    match fault.kind {
        GraphFaultKind::Answer { status, body, retry_after } => {
            faulty_response(world, &path, request, status, body, retry_after)
        }
        GraphFaultKind::Silence(length) => {
            tokio::time::sleep(length).await;
            let outcome = match outcome {
                Some(outcome) => outcome,
                None => done(faults).await,
            };
            respond(world, &Method::POST, &path, action, &request.call_id, outcome)
        }
        GraphFaultKind::Reset { after_bytes } => {
            reset.after(after_bytes);
            respond(
                world,
                &Method::POST,
                &path,
                action,
                &request.call_id,
                outcome.unwrap_or(Ok(None)),
            )
        }
    }
}

/// A response given by a fault rule.
fn faulty_response(
    world: &World,
    path: &str,
    request: &CallsRequest,
    status: u16,
    body: GraphBody,
    retry_after: Option<u32>,
) -> Response {
    let (kind, body) = match body {
        GraphBody::Error(code) => {
            let error = GraphError {
                status,
                code,
                subcode: None,
                details: "injected by a fault rule".into(),
            };
            ("application/json; charset=UTF-8", error.body(&world.rng.text(22)).to_string())
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
    let details = "injected by a fault rule".to_owned();
    log_request(
        world,
        &Method::POST,
        path,
        request.action.as_str(),
        &request.call_id,
        status,
        details,
    );
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, [(header::CONTENT_TYPE, kind)], body).into_response();
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

pub(super) fn authorise(world: &World, headers: &HeaderMap) -> Result<(), GraphError> {
    let given = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    match given.and_then(|v| v.strip_prefix("Bearer ")) {
        Some(token) if token == world.access_token || world.accounts.has_token(token) => Ok(()),
        _ => Err(GraphError { status: 401, code: 190, subcode: None, details: String::new() }),
    }
}

/// A parsed request to `/calls`.
struct CallsRequest {
    action: Action,
    /// The call's id. Empty for `connect`.
    call_id: String,
    /// Digits of the user to call, for `connect`.
    to: String,
    sdp: Option<String>,
    opaque: Option<String>,
}

fn parse_request(
    world: &World,
    phone_number_id: &str,
    body: &[u8],
) -> Result<CallsRequest, GraphError> {
    if !world.has_number(phone_number_id) {
        return Err(GraphError { subcode: Some(33), ..GraphError::parameter("") });
    }
    let body: Value = serde_json::from_slice(body)
        .map_err(|_| GraphError::parameter("The request body is not JSON"))?;
    if body["messaging_product"] != "whatsapp" {
        return Err(GraphError::parameter("messaging_product must be whatsapp"));
    }
    let word = body["action"].as_str().ok_or_else(|| GraphError::parameter("action is missing"))?;
    let action = Action::parse(word).ok_or_else(|| {
        GraphError::parameter(format!(
            "action {word:?} is not one of connect, pre_accept, accept, reject, terminate"
        ))
    })?;
    let call_id = match body["call_id"].as_str() {
        Some(call_id) => call_id,
        None if action == Action::Connect => "",
        None => return Err(GraphError::parameter("call_id is missing")),
    };
    let to: String =
        body["to"].as_str().unwrap_or_default().chars().filter(char::is_ascii_digit).collect();
    if action == Action::Connect && to.is_empty() {
        return Err(GraphError::parameter("to is missing"));
    }
    let opaque = body["biz_opaque_callback_data"].as_str();
    if opaque.is_some_and(|o| o.chars().count() > OPAQUE_CHARS_MAX) {
        return Err(GraphError::parameter(
            "biz_opaque_callback_data is longer than 512 characters",
        ));
    }
    let sdp = match action {
        Action::Connect => Some(sdp(&body, "offer")?),
        Action::PreAccept | Action::Accept => Some(sdp(&body, "answer")?),
        Action::Reject | Action::Terminate => None,
    };
    Ok(CallsRequest {
        action,
        call_id: call_id.to_owned(),
        to,
        sdp,
        opaque: opaque.map(str::to_owned),
    })
}

fn sdp(body: &Value, kind: &str) -> Result<String, GraphError> {
    let session = &body["session"];
    match session["sdp_type"].as_str() {
        Some(is) if is == kind => {}
        Some(other) => {
            return Err(GraphError::parameter(format!(
                "session.sdp_type {other:?} must be {kind}"
            )));
        }
        None => return Err(GraphError::parameter("session.sdp_type is missing")),
    }
    session["sdp"]
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| GraphError::parameter("session.sdp is missing"))
}

/// Executes a request. Returns the id of the new call for `connect`.
async fn execute(
    world: &Arc<World>,
    phone_number_id: &str,
    request: &CallsRequest,
    faults: Option<Arc<CallFaults>>,
) -> Result<Option<String>, GraphError> {
    if let (Action::Connect, Some(faults)) = (request.action, faults) {
        return connect(world, phone_number_id, request, faults).await.map(Some);
    }
    let call = world.call(phone_number_id, &request.call_id).ok_or_else(GraphError::no_call)?;
    let (reply, outcome) = oneshot::channel();
    let message = GraphRequest {
        action: request.action,
        sdp: request.sdp.clone(),
        opaque: request.opaque.clone(),
        reply,
    };
    call.send(CallMsg::Graph(message)).await.map_err(|_| GraphError::no_call())?;
    // A call that has ended in the meantime drops the reply.
    outcome.await.unwrap_or_else(|_| Err(GraphError::no_call())).map(|()| None)
}

/// Places a business-initiated call if permission and limits allow it.
async fn connect(
    world: &Arc<World>,
    phone_number_id: &str,
    request: &CallsRequest,
    faults: Arc<CallFaults>,
) -> Result<String, GraphError> {
    let error = |status, code, details: &str| GraphError {
        status,
        code,
        subcode: None,
        details: details.to_owned(),
    };
    let number = world.number_by_id(phone_number_id).ok_or_else(GraphError::no_call)?;
    if !world.settings.is_calling_enabled(phone_number_id) {
        return Err(error(401, 138_000, "Calling is not enabled for this phone number"));
    }
    world.permissions.check_call(&number, &request.to, world.clock.wall().secs())?;
    if world.has_call_with(phone_number_id, &request.to) {
        return Err(error(400, 138_003, "A call with this user is in progress"));
    }
    if world.call_count(phone_number_id) >= CALLS_PER_NUMBER_MAX {
        return Err(error(429, 138_002, "The number has reached its limit of simultaneous calls"));
    }
    let (reply, call_id) = oneshot::channel();
    let connect = Connect {
        sdp: request.sdp.clone().unwrap_or_default(),
        opaque: request.opaque.clone(),
        reply,
    };
    world.call_user(number, &request.to, connect, faults);
    call_id.await.unwrap_or_else(|_| Err(GraphError::no_call()))
}

fn respond(
    world: &World,
    method: &Method,
    path: &str,
    action: &str,
    call_id: &str,
    outcome: Result<Option<String>, GraphError>,
) -> Response {
    let (status, body, details) = match outcome {
        Ok(None) => (200, json!({"messaging_product": "whatsapp", "success": true}), String::new()),
        Ok(Some(new_call_id)) => {
            let body = json!({"messaging_product": "whatsapp", "calls": [{"id": new_call_id}], "success": true});
            (200, body, String::new())
        }
        Err(error) => (error.status, error.body(&world.rng.text(22)), error.details),
    };
    log_request(world, method, path, action, call_id, status, details);
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, "application/json; charset=UTF-8")], body.to_string())
        .into_response()
}

/// Adds a request and its response to the log.
pub(super) fn log_request(
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
    world.log.add(LogEvent::Graph { method, path, action, call_id, status, details });
}
