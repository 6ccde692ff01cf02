//! Calling settings of the business numbers (`meta-calling.md` §4.4, M20): kept, told, and obeyed by the users' phones.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Map, Value, json};

use super::body;
use super::graph::{self, GraphFault};
use super::hours;
use crate::{World, locked};

/// What words a member may be.
const WORDS: &[(&str, &[&str])] = &[
    ("status", SWITCH),
    ("call_icon_visibility", &["DEFAULT", "DISABLE_ALL"]),
    ("callback_permission_status", SWITCH),
    ("srtp_key_exchange_protocol", &["DTLS", "SDES"]),
];
const SWITCH: &[&str] = &["ENABLED", "DISABLED"];
/// Members whose change Meta tells of (§3.7).
const TOLD: &[&str] =
    &["status", "call_icon_visibility", "callback_permission_status", "srtp_key_exchange_protocol"];

/// By phone number id; those that were never changed are not in it.
#[derive(Debug, Default)]
pub(crate) struct Settings(Mutex<BTreeMap<String, Map<String, Value>>>);

impl Settings {
    fn of(&self, phone_number_id: &str) -> Map<String, Value> {
        locked(&self.0).get(phone_number_id).cloned().unwrap_or_else(|| {
            let usual = [
                ("status", "ENABLED"),
                ("call_icon_visibility", "DEFAULT"),
                ("callback_permission_status", "DISABLED"),
                ("srtp_key_exchange_protocol", "DTLS"),
            ];
            usual.into_iter().map(|(name, word)| (name.to_owned(), json!(word))).collect()
        })
    }

    fn is(&self, phone_number_id: &str, member: &str, word: &str) -> bool {
        self.of(phone_number_id).get(member).is_some_and(|is| is == word)
    }

    /// Whether users can call the number.
    pub(crate) fn can_be_called(&self, phone_number_id: &str) -> bool {
        self.is(phone_number_id, "status", "ENABLED")
    }

    /// Whether a user's call allows the business to call back (M17).
    pub(crate) fn calls_back(&self, phone_number_id: &str) -> bool {
        self.is(phone_number_id, "callback_permission_status", "ENABLED")
    }

    /// Takes over the members given. True where Meta would tell of the change.
    fn change(
        &self,
        phone_number_id: &str,
        members: &Map<String, Value>,
    ) -> Result<bool, GraphFault> {
        for (name, words) in WORDS {
            let known = |word: &Value| word.as_str().is_some_and(|word| words.contains(&word));
            if members.get(*name).is_some_and(|word| !known(word)) {
                return Err(GraphFault::parameter(format!(
                    "calling.{name} must be one of {}",
                    words.join(", ")
                )));
            }
        }
        if let Some(call_hours) = members.get("call_hours").filter(|hours| !hours.is_null()) {
            hours::check(call_hours).map_err(GraphFault::parameter)?;
        }
        let (before, mut now) = (self.of(phone_number_id), self.of(phone_number_id));
        now.extend(members.clone());
        let told = TOLD.iter().any(|name| before.get(*name) != now.get(*name));
        locked(&self.0).insert(phone_number_id.to_owned(), now);
        Ok(told)
    }
}

pub(super) async fn get(
    State(world): State<Arc<World>>,
    Path(phone_number_id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let known = graph::authorised(&world, &headers)
        .and_then(|()| world.accounts.failure("settings"))
        .and_then(|()| known(&world, &phone_number_id));
    let told = known.map(|()| json!({"calling": world.settings.of(&phone_number_id)}));
    answer(&world, &Method::GET, &phone_number_id, told)
}

pub(super) async fn post(
    State(world): State<Arc<World>>,
    Path(phone_number_id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let changed = graph::authorised(&world, &headers).and_then(|()| {
        world.accounts.failure("change_settings")?;
        known(&world, &phone_number_id)?;
        let body: Value = serde_json::from_slice(&body)
            .map_err(|_| GraphFault::parameter("The request body is not JSON"))?;
        let members = body["calling"]
            .as_object()
            .ok_or_else(|| GraphFault::parameter("calling must be an object"))?;
        world.settings.change(&phone_number_id, members)
    });
    if changed == Ok(true) {
        tell(&world, &phone_number_id).await;
    }
    answer(&world, &Method::POST, &phone_number_id, changed.map(|_| json!({"success": true})))
}

fn known(world: &World, phone_number_id: &str) -> Result<(), GraphFault> {
    let no_number = || GraphFault { subcode: Some(33), ..GraphFault::parameter("") };
    world.has_number(phone_number_id).then_some(()).ok_or_else(no_number)
}

/// Tells the node of a change, if there is one that takes webhooks.
async fn tell(world: &Arc<World>, phone_number_id: &str) {
    let Some(door) = world.usual_door() else { return };
    let Some(number) = world.number_of_id(phone_number_id) else { return };
    if world.webhooks.verify(&door).await.is_ok() {
        let body = body::settings_update(
            &number,
            world.clock.wall().secs(),
            &Value::Object(world.settings.of(phone_number_id)),
        );
        let parcel = world.webhooks.parcel(&door, "account_settings_update", "", &body, None);
        world.webhooks.deliver(&door, parcel, std::time::Duration::ZERO, |_| {});
    }
}

fn answer(
    world: &World,
    method: &Method,
    phone_number_id: &str,
    outcome: Result<Value, GraphFault>,
) -> Response {
    let (status, body, details) = match outcome {
        Ok(body) => (200, body, String::new()),
        Err(fault) => (fault.status, fault.body(&world.dice.text(22)), fault.details),
    };
    graph::log(
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
