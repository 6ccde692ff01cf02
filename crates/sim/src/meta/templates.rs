//! `GET /{waba_id}/message_templates` of the Graph API: every WABA has the same templates. `POST
//! /_sim/failures` with `message_templates` makes the requests fail.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::Response;
use http::{HeaderMap, Method};
use serde_json::{Value, json};

use super::error::GraphError;
use super::graph;
use super::numbers::{not_found, respond};
use crate::World;

/// Page size if the request names none.
const PAGE_SIZE: usize = 25;

/// The templates: with and without variables, with numbers and names, and one that Meta rejected.
fn templates() -> Vec<Value> {
    let body = |text: &str, examples: &[&str]| match examples {
        [] => json!({"type": "BODY", "text": text}),
        examples => json!({"type": "BODY", "text": text, "example": {"body_text": [examples]}}),
    };
    vec![
        json!({"name": "hello", "language": "en", "status": "APPROVED", "category": "UTILITY", "parameter_format": "POSITIONAL",
            "components": [body("Hello! How can we help you today?", &[])]}),
        json!({"name": "hello", "language": "de", "status": "APPROVED", "category": "UTILITY", "parameter_format": "POSITIONAL",
            "components": [body("Hallo! Wie können wir Ihnen heute helfen?", &[])]}),
        json!({"name": "order_update", "language": "en", "status": "APPROVED", "category": "UTILITY", "parameter_format": "POSITIONAL",
        "components": [
            {"type": "HEADER", "format": "TEXT", "text": "Order {{1}}", "example": {"header_text": ["4711"]}},
            body("Hello {{1}}, your order arrives on {{2}}.", &["Asha", "Tuesday"]),
            {"type": "FOOTER", "text": "Acme Stationery"},
            {"type": "BUTTONS", "buttons": [
                {"type": "QUICK_REPLY", "text": "Thank you"},
                {"type": "URL", "text": "Track order", "url": "https://shop.example.com/orders/{{1}}",
                    "example": ["https://shop.example.com/orders/4711"]},
            ]},
        ]}),
        json!({"name": "appointment_reminder", "language": "en", "status": "APPROVED", "category": "UTILITY", "parameter_format": "NAMED",
        "components": [
            {"type": "BODY", "text": "Hello {{first_name}}, we expect you at {{time}}.", "example": {"body_text_named_params": [
                {"param_name": "first_name", "example": "Asha"}, {"param_name": "time", "example": "10:30"}]}},
            {"type": "BUTTONS", "buttons": [{"type": "PHONE_NUMBER", "text": "Call us", "phone_number": "+918035737458"}]},
        ]}),
        json!({"name": "invoice", "language": "en", "status": "APPROVED", "category": "UTILITY", "parameter_format": "POSITIONAL",
        "components": [
            {"type": "HEADER", "format": "DOCUMENT", "example": {"header_handle": ["4::aW"]}},
            body("Your invoice {{1}} is attached.", &["2026-118"]),
        ]}),
        json!({"name": "our_shop", "language": "en", "status": "APPROVED", "category": "MARKETING", "parameter_format": "POSITIONAL",
            "components": [{"type": "HEADER", "format": "LOCATION"}, body("Visit us!", &[])]}),
        json!({"name": "free_money", "language": "en", "status": "REJECTED", "category": "MARKETING", "parameter_format": "POSITIONAL",
            "components": [body("Free money for everybody!", &[])]}),
    ]
}

pub(super) async fn list(
    State(world): State<Arc<World>>,
    Path(waba): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    let outcome = graph::authorise(&world, &headers)
        .and_then(|()| world.accounts.take_failure("message_templates"))
        .and_then(|()| match world.numbers_of_waba(&waba).is_empty() {
            true => Err(not_found()),
            false => {
                Ok(page(&query, &format!("{}{}/{waba}", graph::own_url(&headers), graph::BASE)))
            }
        });
    let path = format!("/{waba}/message_templates");
    respond(&world, &Method::GET, &path, "message_templates", outcome)
}

/// A page of the templates with the wanted status. `url` is that of the WABA.
fn page(query: &BTreeMap<String, String>, url: &str) -> Value {
    let mut all = templates();
    if let Some(status) = query.get("status") {
        all.retain(|template| template["status"] == status.as_str());
    }
    let limit = query.get("limit").and_then(|n| n.parse().ok()).unwrap_or(PAGE_SIZE).clamp(1, 100);
    let after = query.get("after").and_then(|n| n.parse::<usize>().ok()).unwrap_or(0);
    let page: Vec<&Value> = all.iter().skip(after).take(limit).collect();
    let end = (after + page.len()).to_string();
    let mut paging = json!({"cursors": {"before": after.to_string(), "after": end}});
    if after + page.len() < all.len() {
        paging["next"] = json!(format!("{url}/message_templates?limit={limit}&after={end}"));
    }
    json!({"data": page, "paging": paging})
}

/// Refuses a message if its template is known here and the number of its parameters is wrong. Others
/// are delivered, because the templates of a real WABA can't be known here.
pub(super) fn check(template: &Value) -> Result<(), GraphError> {
    let is_it = |known: &&Value| {
        known["name"] == template["name"] && known["language"] == template["language"]["code"]
    };
    let all = templates();
    let Some(known) = all.iter().find(is_it) else {
        let (name, language) = (&template["name"], &template["language"]["code"]);
        tracing::warn!(%name, %language, "the simulated Meta delivers a template that it does not have; Meta would refuse it with 132001");
        return Ok(());
    };
    let components = |of: &Value| of["components"].as_array().cloned().unwrap_or_default();
    let given = components(template);
    for component in components(known) {
        let variables = |text: &Value| text.as_str().unwrap_or_default().matches("{{").count();
        let (kind, expected) = match component["type"].as_str() {
            Some("HEADER") if component["format"] != "TEXT" => ("header", 1),
            Some("HEADER") => ("header", variables(&component["text"])),
            Some("BODY") => ("body", variables(&component["text"])),
            Some("BUTTONS") => {
                let buttons = component["buttons"].as_array().cloned().unwrap_or_default();
                ("button", buttons.iter().map(|button| variables(&button["url"])).sum())
            }
            _ => continue,
        };
        let is_counted =
            |one: &&Value| one["type"] == kind && (kind != "button" || one["sub_type"] == "url");
        let parameters = |one: &Value| one["parameters"].as_array().map_or(0, Vec::len);
        let sent: usize = given.iter().filter(is_counted).map(parameters).sum();
        if sent != expected {
            let details = format!(
                "{kind}: number of localizable_params ({sent}) does not match the expected number of params ({expected})"
            );
            return Err(GraphError { status: 400, code: 132_000, subcode: None, details });
        }
    }
    Ok(())
}
