//! `POST /{phone_number_id}/messages` and `GET /{phone_number_id}/call_permissions` of the Graph
//! API. Permission requests go to `permissions`, all messages to `chat`.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, StatusCode, header};
use serde_json::{Value, json};

use super::error::GraphError;
use super::graph;
use super::permissions::PermissionRequest;
use super::templates;
use crate::World;
use crate::world::user_of;

/// Accepted message types besides `interactive`.
const MESSAGE_TYPES: &[&str] = &[
    "text", "image", "audio", "video", "document", "sticker", "template", "location", "contacts",
    "reaction",
];
/// Accepted types of `interactive` besides permission requests.
const INTERACTIVE_TYPES: &[&str] = &["button", "list", "cta_url", "voice_call"];
const PERMISSION_REQUEST: &str = "call_permission_request";
/// Maximum length of a permission request's text, in characters. Longer texts are cut.
const TEXT_MAX: usize = 1_024;

pub(super) async fn post(
    State(world): State<Arc<World>>,
    Path(number): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let outcome =
        graph::authorise(&world, &headers).and_then(|()| send_message(&world, &number, &body));
    respond(&world, &Method::POST, &number, "messages", outcome)
}

fn send_message(world: &World, number: &str, body: &[u8]) -> Result<Value, GraphError> {
    require_number(world, number)?;
    let body: Value = serde_json::from_slice(body)
        .map_err(|_| GraphError::parameter("The request body is not JSON"))?;
    if body["messaging_product"] != "whatsapp" {
        return Err(GraphError::parameter("messaging_product must be whatsapp"));
    }
    if body["status"] == "read" {
        return Ok(json!({"success": true}));
    }
    let user = body["to"]
        .as_str()
        .or(body["recipient"].as_str())
        .filter(|user| (1..=140).contains(&user.len()));
    let given = user.ok_or_else(|| GraphError::parameter("to is missing"))?;
    let user = &user_of(given);
    let id = format!("wamid.{}", world.rng.text(40));
    let request = permission_request_text(&body)?;
    if body["type"] == "template" {
        templates::check(&body["template"])?;
    }
    // Permission requests and templates may be sent outside of the customer service window.
    if request.is_none() && body["type"] != "template" {
        world.check_window(number, user)?;
    }
    if let Some(text) = request {
        let text = text.chars().take(TEXT_MAX).collect();
        world.permissions.request(
            number,
            user,
            PermissionRequest { id: id.clone(), text, sent: world.clock.wall().secs() },
        )?;
    }
    world.send_business_message(number, user, &id, &body)?;
    Ok(json!({
        "messaging_product": "whatsapp",
        "contacts": [{"input": given, "wa_id": user}],
        "messages": [{"id": id}],
    }))
}

/// Returns the text if the message is a permission request.
fn permission_request_text(body: &Value) -> Result<Option<String>, GraphError> {
    let wrong = |details: String| GraphError { status: 400, code: 131_009, subcode: None, details };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match body["type"].as_str() {
        Some("interactive") => match body["interactive"]["type"].as_str() {
            Some(PERMISSION_REQUEST)
                if body["interactive"]["action"]["name"] == PERMISSION_REQUEST =>
            {
                Ok(Some(text(&body["interactive"]["body"]["text"])))
            }
            Some(PERMISSION_REQUEST) => {
                Err(wrong(format!("interactive.action.name must be {PERMISSION_REQUEST}")))
            }
            Some(kind) if INTERACTIVE_TYPES.contains(&kind) => Ok(None),
            other => {
                Err(wrong(format!("interactive.type {:?} is not valid", other.unwrap_or_default())))
            }
        },
        // At Meta the components of a template decide whether it is a permission request. Here its
        // name does.
        Some("template") if text(&body["template"]["name"]).contains("permission") => {
            Ok(Some(format!("(template {})", text(&body["template"]["name"]))))
        }
        Some(kind) if MESSAGE_TYPES.contains(&kind) => Ok(None),
        None if body["text"].is_object() => Ok(None),
        other => {
            Err(GraphError::parameter(format!("type {:?} is not valid", other.unwrap_or_default())))
        }
    }
}

pub(super) async fn permissions(
    State(world): State<Arc<World>>,
    Path(number): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Response {
    let outcome = graph::authorise(&world, &headers).and_then(|()| {
        require_number(&world, &number)?;
        let given =
            |name: &str| query.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
        let user = given("user_wa_id").or(given("recipient")).filter(|user| !user.is_empty());
        let user = user_of(user.ok_or_else(|| GraphError::parameter("user_wa_id is missing"))?);
        let outcome =
            world.permissions.query(&number, &user, world.clock.wall().secs(), world.clock.now());
        outcome.ok_or_else(|| GraphError::limit(613, ""))
    });
    respond(&world, &Method::GET, &number, "call_permissions", outcome)
}

pub(super) fn require_number(world: &World, number: &str) -> Result<(), GraphError> {
    let no_number = || GraphError { subcode: Some(33), ..GraphError::parameter("") };
    world.has_number(number).then_some(()).ok_or_else(no_number)
}

pub(super) fn respond(
    world: &World,
    method: &Method,
    number: &str,
    resource: &str,
    outcome: Result<Value, GraphError>,
) -> Response {
    let (status, body, details) = match outcome {
        Ok(body) => (200, body, String::new()),
        Err(error) => (error.status, error.body(&world.rng.text(22)), error.details),
    };
    graph::log_request(
        world,
        method,
        &format!("/{number}/{resource}"),
        resource,
        "",
        status,
        details,
    );
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, "application/json; charset=UTF-8")], body.to_string())
        .into_response()
}
