//! Calling settings of business numbers: stored, announced by webhook, and obeyed by the simulated
//! users.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Map, Value, json};

use super::body;
use super::error::GraphError;
use super::graph;
use super::hours;
use crate::{World, locked};

/// Allowed values of each member.
const ALLOWED_VALUES: &[(&str, &[&str])] = &[
    ("status", SWITCH),
    ("call_icon_visibility", &["DEFAULT", "DISABLE_ALL"]),
    ("callback_permission_status", SWITCH),
    ("srtp_key_exchange_protocol", &["DTLS", "SDES"]),
];
const SWITCH: &[&str] = &["ENABLED", "DISABLED"];
/// Changes of these members are announced with a webhook.
const ANNOUNCED: &[&str] =
    &["status", "call_icon_visibility", "callback_permission_status", "srtp_key_exchange_protocol"];

/// Settings by phone number id. Numbers without an entry have the default settings.
#[derive(Debug, Default)]
pub(crate) struct Settings(Mutex<BTreeMap<String, Map<String, Value>>>);

impl Settings {
    fn get(&self, phone_number_id: &str) -> Map<String, Value> {
        locked(&self.0).get(phone_number_id).cloned().unwrap_or_else(|| {
            let defaults = [
                ("status", "ENABLED"),
                ("call_icon_visibility", "DEFAULT"),
                ("callback_permission_status", "DISABLED"),
                ("srtp_key_exchange_protocol", "DTLS"),
            ];
            defaults.into_iter().map(|(name, word)| (name.to_owned(), json!(word))).collect()
        })
    }

    fn has(&self, phone_number_id: &str, member: &str, word: &str) -> bool {
        self.get(phone_number_id).get(member).is_some_and(|is| is == word)
    }

    /// Whether users can call the number.
    pub(crate) fn is_calling_enabled(&self, phone_number_id: &str) -> bool {
        self.has(phone_number_id, "status", "ENABLED")
    }

    /// Whether a user's call gives the business permission to call back.
    pub(crate) fn grants_callback(&self, phone_number_id: &str) -> bool {
        self.has(phone_number_id, "callback_permission_status", "ENABLED")
    }

    /// Merges members into the settings. Returns whether the change has to be announced.
    fn change(
        &self,
        phone_number_id: &str,
        members: &Map<String, Value>,
    ) -> Result<bool, GraphError> {
        for (name, words) in ALLOWED_VALUES {
            let is_allowed = |word: &Value| word.as_str().is_some_and(|word| words.contains(&word));
            if members.get(*name).is_some_and(|word| !is_allowed(word)) {
                return Err(GraphError::parameter(format!(
                    "calling.{name} must be one of {}",
                    words.join(", ")
                )));
            }
        }
        if let Some(call_hours) = members.get("call_hours").filter(|hours| !hours.is_null()) {
            hours::check(call_hours).map_err(GraphError::parameter)?;
        }
        let (before, mut now) = (self.get(phone_number_id), self.get(phone_number_id));
        now.extend(members.clone());
        let announce = ANNOUNCED.iter().any(|name| before.get(*name) != now.get(*name));
        locked(&self.0).insert(phone_number_id.to_owned(), now);
        Ok(announce)
    }
}

pub(super) async fn get(
    State(world): State<Arc<World>>,
    Path(phone_number_id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let checked = graph::authorise(&world, &headers)
        .and_then(|()| world.accounts.take_failure("settings"))
        .and_then(|()| require_number(&world, &phone_number_id));
    let outcome = checked.map(|()| json!({"calling": world.settings.get(&phone_number_id)}));
    respond(&world, &Method::GET, &phone_number_id, outcome)
}

pub(super) async fn post(
    State(world): State<Arc<World>>,
    Path(phone_number_id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let changed = graph::authorise(&world, &headers).and_then(|()| {
        world.accounts.take_failure("change_settings")?;
        require_number(&world, &phone_number_id)?;
        let body: Value = serde_json::from_slice(&body)
            .map_err(|_| GraphError::parameter("The request body is not JSON"))?;
        let members = body["calling"]
            .as_object()
            .ok_or_else(|| GraphError::parameter("calling must be an object"))?;
        world.settings.change(&phone_number_id, members)
    });
    if changed == Ok(true) {
        announce(&world, &phone_number_id).await;
    }
    respond(&world, &Method::POST, &phone_number_id, changed.map(|_| json!({"success": true})))
}

fn require_number(world: &World, phone_number_id: &str) -> Result<(), GraphError> {
    let no_number = || GraphError { subcode: Some(33), ..GraphError::parameter("") };
    world.has_number(phone_number_id).then_some(()).ok_or_else(no_number)
}

/// Sends the node a webhook about changed settings, if a node is configured.
async fn announce(world: &Arc<World>, phone_number_id: &str) {
    let Some(target) = world.default_target() else { return };
    let Some(number) = world.number_by_id(phone_number_id) else { return };
    if world.webhooks.verify(&target).await.is_ok() {
        let body = body::settings_update(
            &number,
            world.clock.wall().secs(),
            &Value::Object(world.settings.get(phone_number_id)),
        );
        let webhook = world.webhooks.sign(&target, "account_settings_update", "", &body, None);
        world.webhooks.deliver(&target, webhook, std::time::Duration::ZERO, |_| {});
    }
}

fn respond(
    world: &World,
    method: &Method,
    phone_number_id: &str,
    outcome: Result<Value, GraphError>,
) -> Response {
    let (status, body, details) = match outcome {
        Ok(body) => (200, body, String::new()),
        Err(error) => (error.status, error.body(&world.rng.text(22)), error.details),
    };
    graph::log_request(
        world,
        method,
        &format!("/{phone_number_id}/settings"),
        "settings",
        "",
        status,
        details,
    );
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, axum::Json(body)).into_response()
}
