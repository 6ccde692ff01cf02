//! `POST /{phone_number_id}/messages` and `GET …/call_permissions` (`meta-calling.md` §4.2, §4.3; M18, M19, M22). Requests for
//! permission reach the simulated user, other messages too (`chat`).

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, StatusCode, header};
use serde_json::{Value, json};

use super::graph::{self, GraphFault};
use super::permissions::Asked;
use crate::World;
use model::digits_of;

/// Types of §4.3 beside `interactive`.
const TYPES: &[&str] = &[
    "text", "image", "audio", "video", "document", "sticker", "template", "location", "contacts",
    "reaction",
];
/// Types of `interactive` that this stand-in takes.
const INTERACTIVE: &[&str] = &["button", "list", "cta_url", "voice_call"];
const REQUEST: &str = "call_permission_request";
/// Longest text of a request that is shown, in characters.
const TEXT_MAX: usize = 1_024;

pub(super) async fn post(
    State(world): State<Arc<World>>,
    Path(number): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let taken = graph::authorised(&world, &headers).and_then(|()| take(&world, &number, &body));
    answer(&world, &Method::POST, &number, "messages", taken)
}

fn take(world: &World, number: &str, body: &[u8]) -> Result<Value, GraphFault> {
    known(world, number)?;
    let body: Value = serde_json::from_slice(body)
        .map_err(|_| GraphFault::parameter("The request body is not JSON"))?;
    if body["messaging_product"] != "whatsapp" {
        return Err(GraphFault::parameter("messaging_product must be whatsapp"));
    }
    if body["status"] == "read" {
        return Ok(json!({"success": true}));
    }
    let user = body["to"]
        .as_str()
        .or(body["recipient"].as_str())
        .filter(|user| (1..=140).contains(&user.len()));
    let given = user.ok_or_else(|| GraphFault::parameter("to is missing"))?;
    let user = &user_of(given);
    let id = format!("wamid.{}", world.dice.text(40));
    let request = request_of(&body)?;
    // A request is no word of ours: M18 has it reach whoever may be asked.
    if request.is_none() && body["type"] != "template" {
        world.may_write(number, user)?;
    }
    if let Some(text) = request {
        let text = text.chars().take(TEXT_MAX).collect();
        world.permissions.request(
            number,
            user,
            Asked { id: id.clone(), text, sent: world.clock.wall().secs() },
        )?;
    }
    world.business_writes(number, user, &id, &body)?;
    Ok(json!({
        "messaging_product": "whatsapp",
        "contacts": [{"input": given, "wa_id": user}],
        "messages": [{"id": id}],
    }))
}

/// A user as everything here names them: digits without the plus, or a business-scoped id as it is.
pub(super) fn user_of(given: &str) -> String {
    let is_number = given.starts_with(|c: char| c == '+' || c.is_ascii_digit());
    if is_number { digits_of(given) } else { given.to_owned() }
}

/// The text of a request for permission; none: the message is another one.
fn request_of(body: &Value) -> Result<Option<String>, GraphFault> {
    let wrong = |details: String| GraphFault { status: 400, code: 131_009, subcode: None, details };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match body["type"].as_str() {
        Some("interactive") => match body["interactive"]["type"].as_str() {
            Some(REQUEST) if body["interactive"]["action"]["name"] == REQUEST => {
                Ok(Some(text(&body["interactive"]["body"]["text"])))
            }
            Some(REQUEST) => Err(wrong(format!("interactive.action.name must be {REQUEST}"))),
            Some(kind) if INTERACTIVE.contains(&kind) => Ok(None),
            other => {
                Err(wrong(format!("interactive.type {:?} is not valid", other.unwrap_or_default())))
            }
        },
        // A template says what it is by its components, which it was made with; here its name must.
        Some("template") if text(&body["template"]["name"]).contains("permission") => {
            Ok(Some(format!("(template {})", text(&body["template"]["name"]))))
        }
        Some(kind) if TYPES.contains(&kind) => Ok(None),
        None if body["text"].is_object() => Ok(None),
        other => {
            Err(GraphFault::parameter(format!("type {:?} is not valid", other.unwrap_or_default())))
        }
    }
}

pub(super) async fn permissions(
    State(world): State<Arc<World>>,
    Path(number): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Response {
    let told = graph::authorised(&world, &headers).and_then(|()| {
        known(&world, &number)?;
        let given =
            |name: &str| query.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
        let user = given("user_wa_id").or(given("recipient")).filter(|user| !user.is_empty());
        let user = user_of(user.ok_or_else(|| GraphFault::parameter("user_wa_id is missing"))?);
        let told =
            world.permissions.read(&number, &user, world.clock.wall().secs(), world.clock.now());
        told.ok_or_else(|| GraphFault::limit(613, ""))
    });
    answer(&world, &Method::GET, &number, "call_permissions", told)
}

pub(super) fn known(world: &World, number: &str) -> Result<(), GraphFault> {
    let no_number = || GraphFault { subcode: Some(33), ..GraphFault::parameter("") };
    world.has_number(number).then_some(()).ok_or_else(no_number)
}

pub(super) fn answer(
    world: &World,
    method: &Method,
    number: &str,
    what: &str,
    outcome: Result<Value, GraphFault>,
) -> Response {
    let (status, body, details) = match outcome {
        Ok(body) => (200, body, String::new()),
        Err(fault) => (fault.status, fault.body(&world.dice.text(22)), fault.details),
    };
    graph::log(world, method, &format!("/{number}/{what}"), what, "", status, details);
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, "application/json; charset=UTF-8")], body.to_string())
        .into_response()
}
