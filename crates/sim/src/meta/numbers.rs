//! Phone numbers, registration, subscriptions and token exchange of the Graph API. `POST
//! /_sim/failures` makes these requests fail; `POST /_sim/numbers` and `POST /_sim/app` change what
//! they return.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::GraphError;
use super::graph;
use crate::world::SimNumber;
use crate::{World, locked, without_trailing_slash};

/// Maximum number of pending failures, and of sign-up codes.
const FAILURES_MAX: usize = 1_000;
/// Page size if the request names none.
const PAGE_SIZE: usize = 25;

/// Meta's state besides numbers and calling settings.
#[derive(Debug, Default)]
pub(crate) struct Accounts(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// The attributes by phone number id. Numbers without an entry have the default attributes.
    attributes: BTreeMap<String, NumberAttributes>,
    /// WABAs that the app is not subscribed to. It is subscribed to all others.
    unsubscribed: BTreeSet<String>,
    /// Webhook fields that the app is not subscribed to.
    disabled_fields: BTreeSet<String>,
    /// Access tokens issued here, besides the configured one.
    tokens: BTreeSet<String>,
    /// Unused sign-up codes, with the grant of each.
    codes: BTreeMap<String, SignUpGrant>,
    /// The WABA of each token that is restricted to one.
    wabas_by_token: BTreeMap<String, String>,
    /// Expiry of all tokens in Unix seconds. 0 means never.
    tokens_expire_at: i64,
    failures: Vec<GraphFailure>,
}

/// A person's consent in the sign-up dialog.
#[derive(Clone, Debug)]
pub(super) struct SignUpGrant {
    pub(super) waba: String,
    pub(super) redirect_uri: String,
}

/// Attributes of a number, as Graph returns them.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
struct NumberAttributes {
    platform_type: String,
    quality_rating: String,
    status: String,
    account_mode: String,
    pin: String,
    /// Whether the number is also used in the WhatsApp Business app.
    is_on_biz_app: bool,
}

impl Default for NumberAttributes {
    fn default() -> Self {
        Self {
            platform_type: "CLOUD_API".into(),
            quality_rating: "GREEN".into(),
            status: "CONNECTED".into(),
            account_mode: "LIVE".into(),
            pin: "123456".into(),
            is_on_biz_app: false,
        }
    }
}

/// Makes the next `times` requests of one kind fail.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GraphFailure {
    /// Kind of request: `number`, `phone_numbers`, `settings`, `register`, `subscribed_apps`,
    /// `access_token`, and so on.
    #[serde(rename = "what")]
    action: String,
    #[serde(default = "once")]
    times: u32,
    status: u16,
    code: i64,
    #[serde(default)]
    details: String,
}

fn once() -> u32 {
    1
}

/// Body of `POST /_sim/numbers`: adds or changes a number.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct NumberUpdate {
    number: String,
    phone_number_id: String,
    waba: String,
    #[serde(default)]
    name: String,
    #[serde(default, rename = "facts")]
    attributes: Option<Value>,
}

/// Body of `POST /_sim/app`: replaces the state of the app.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AppUpdate {
    /// WABAs that the app is not subscribed to.
    unsubscribed: Vec<String>,
    /// Webhook fields that the app is not subscribed to.
    #[serde(rename = "fields_off")]
    disabled_fields: Vec<String>,
    #[serde(rename = "tokens_end")]
    tokens_expire_at: i64,
    /// Base URL of the node that receives the webhooks from now on. `None` leaves it unchanged.
    node: Option<String>,
    /// Verify token of that node. `None` leaves it unchanged.
    verify_token: Option<String>,
}

impl Accounts {
    /// Whether the token was issued here.
    pub(crate) fn has_token(&self, token: &str) -> bool {
        locked(&self.0).tokens.contains(token)
    }

    /// Returns the next pending failure of a kind of request as an error.
    pub(crate) fn take_failure(&self, action: &str) -> Result<(), GraphError> {
        let mut inner = locked(&self.0);
        let Some(failure) = inner.failures.iter_mut().find(|f| f.action == action && f.times > 0)
        else {
            return Ok(());
        };
        failure.times -= 1;
        let GraphFailure { status, code, details, .. } = failure.clone();
        inner.failures.retain(|failure| failure.times > 0);
        Err(GraphError { status, code, subcode: None, details })
    }

    fn attributes(&self, id: &str) -> NumberAttributes {
        locked(&self.0).attributes.get(id).cloned().unwrap_or_default()
    }

    /// Stores a sign-up code. If there are too many, the first in order is dropped.
    pub(super) fn grant(&self, code: String, grant: SignUpGrant) {
        let mut inner = locked(&self.0);
        if inner.codes.len() >= FAILURES_MAX {
            inner.codes.pop_first();
        }
        inner.codes.insert(code, grant);
    }

    fn register(&self, id: &str, pin: &str) -> Result<(), GraphError> {
        let mut inner = locked(&self.0);
        let attributes = inner.attributes.entry(id.to_owned()).or_default();
        // The first registration sets the PIN.
        if attributes.pin.is_empty() {
            pin.clone_into(&mut attributes.pin);
        }
        if attributes.pin != pin {
            let details = "The PIN does not match".to_owned();
            return Err(GraphError { status: 400, code: 133_005, subcode: None, details });
        }
        (attributes.platform_type, attributes.status) = ("CLOUD_API".into(), "CONNECTED".into());
        Ok(())
    }
}

impl World {
    /// Adds pending failures.
    pub(crate) fn add_failures(&self, failures: Vec<GraphFailure>) {
        let mut inner = locked(&self.accounts.0);
        inner.failures.extend(failures);
        inner.failures.truncate(FAILURES_MAX);
    }

    /// Adds or changes a number. No webhook is sent.
    pub(crate) fn update_number(&self, update: NumberUpdate) -> Result<(), String> {
        let NumberUpdate { number, phone_number_id, waba, name, attributes } = update;
        if let Some(attributes) = attributes {
            let attributes: NumberAttributes =
                serde_json::from_value(attributes).map_err(|e| format!("facts: {e}"))?;
            self.permissions
                .set_test_number(&phone_number_id, attributes.account_mode == "SANDBOX");
            locked(&self.accounts.0).attributes.insert(phone_number_id.clone(), attributes);
        }
        self.add_number(&SimNumber { number, phone_number_id, waba, name });
        Ok(())
    }

    /// Replaces the state of the app.
    pub(crate) fn update_app(&self, update: AppUpdate) {
        let mut inner = locked(&self.accounts.0);
        inner.unsubscribed = update.unsubscribed.into_iter().collect();
        inner.disabled_fields = update.disabled_fields.into_iter().collect();
        inner.tokens_expire_at = update.tokens_expire_at;
        if let Some(node) = update.node {
            *locked(&self.node_url) = Some(without_trailing_slash(node));
        }
        if let Some(token) = update.verify_token {
            *locked(&self.verify_token) = token;
        }
    }

    fn object(&self, number: &SimNumber) -> Value {
        let attributes = self.accounts.attributes(&number.phone_number_id);
        json!({
            "id": number.phone_number_id,
            "display_phone_number": format!("+{}", number.number),
            "verified_name": number.name,
            "quality_rating": attributes.quality_rating,
            "platform_type": attributes.platform_type,
            "status": attributes.status,
            "account_mode": attributes.account_mode,
            "is_on_biz_app": attributes.is_on_biz_app,
            "code_verification_status": "VERIFIED",
            "name_status": "APPROVED",
            "messaging_limit_tier": "TIER_10K",
            "throughput": {"level": "STANDARD"},
        })
    }
}

pub(super) fn not_found() -> GraphError {
    GraphError { subcode: Some(33), ..GraphError::parameter("") }
}

type IdPath = Path<String>;
type SharedWorld = State<Arc<World>>;

pub(super) async fn number(
    State(world): SharedWorld,
    Path(id): IdPath,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    // Media files share the path of phone numbers.
    let of = query.get("phone_number_id").map(String::as_str);
    if graph::authorise(&world, &headers).is_ok()
        && let Some(file) = world.chat.file_info(&id, &graph::own_url(&headers), of)
    {
        return axum::Json(file).into_response();
    }
    let outcome = graph::authorise(&world, &headers)
        .and_then(|()| world.accounts.take_failure("number"))
        .and_then(|()| world.number_by_id(&id).ok_or_else(not_found))
        .map(|number| world.object(&number));
    respond(&world, &Method::GET, &format!("/{id}"), "number", outcome)
}

pub(super) async fn phone_numbers(
    State(world): SharedWorld,
    Path(waba): IdPath,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    let outcome = graph::authorise(&world, &headers)
        .and_then(|()| world.accounts.take_failure("phone_numbers"))
        .and_then(|()| {
            let all: Vec<SimNumber> = world.numbers_of_waba(&waba);
            if all.is_empty() {
                return Err(not_found());
            }
            let limit =
                query.get("limit").and_then(|n| n.parse().ok()).unwrap_or(PAGE_SIZE).clamp(1, 100);
            let after = query.get("after").and_then(|n| n.parse::<usize>().ok()).unwrap_or(0);
            let page: Vec<Value> =
                all.iter().skip(after).take(limit).map(|number| world.object(number)).collect();
            let end = (after + page.len()).to_string();
            let mut paging = json!({"cursors": {"before": after.to_string(), "after": end}});
            if after + page.len() < all.len() {
                let (own, base) = (graph::own_url(&headers), graph::BASE);
                paging["next"] =
                    json!(format!("{own}{base}/{waba}/phone_numbers?limit={limit}&after={end}"));
            }
            Ok(json!({"data": page, "paging": paging}))
        });
    respond(&world, &Method::GET, &format!("/{waba}/phone_numbers"), "phone_numbers", outcome)
}

pub(super) async fn register(
    State(world): SharedWorld,
    Path(id): IdPath,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let outcome = graph::authorise(&world, &headers)
        .and_then(|()| world.accounts.take_failure("register"))
        .and_then(|()| {
            world.number_by_id(&id).ok_or_else(not_found)?;
            let body: Value = serde_json::from_slice(&body)
                .map_err(|_| GraphError::parameter("The request body is not JSON"))?;
            if body["messaging_product"] != "whatsapp" {
                return Err(GraphError::parameter("messaging_product must be whatsapp"));
            }
            world.accounts.register(&id, body["pin"].as_str().unwrap_or_default())
        });
    respond(
        &world,
        &Method::POST,
        &format!("/{id}/register"),
        "register",
        outcome.map(|()| json!({"success": true})),
    )
}

pub(super) async fn deregister(
    State(world): SharedWorld,
    Path(id): IdPath,
    headers: HeaderMap,
) -> Response {
    let outcome = graph::authorise(&world, &headers).and_then(|()| {
        world.number_by_id(&id).ok_or_else(not_found)?;
        let mut inner = locked(&world.accounts.0);
        inner.attributes.entry(id.clone()).or_default().platform_type = "NOT_APPLICABLE".into();
        Ok(json!({"success": true}))
    });
    respond(&world, &Method::POST, &format!("/{id}/deregister"), "deregister", outcome)
}

/// `GET`, `POST` and `DELETE` of `subscribed_apps`.
pub(super) async fn apps(
    State(world): SharedWorld,
    Path(waba): IdPath,
    method: Method,
    headers: HeaderMap,
) -> Response {
    let outcome = graph::authorise(&world, &headers)
        .and_then(|()| world.accounts.take_failure("subscribed_apps"))
        .map(|()| {
            let mut inner = locked(&world.accounts.0);
            match method {
                Method::POST => {
                    inner.unsubscribed.remove(&waba);
                    json!({"success": true})
                }
                Method::DELETE => {
                    inner.unsubscribed.insert(waba.clone());
                    json!({"success": true})
                }
                _ if inner.unsubscribed.contains(&waba) => json!({"data": []}),
                _ => json!({"data": [{"whatsapp_business_api_data":
                {"id": world.app_id, "name": "Offhook", "link": "https://app.example.com/"}}]}),
            }
        });
    respond(&world, &method, &format!("/{waba}/subscribed_apps"), "subscribed_apps", outcome)
}

/// Checks the app access token, `<app id>|<app secret>`.
fn authorise_app(world: &World, headers: &HeaderMap) -> Result<(), GraphError> {
    let given =
        headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if given == format!("Bearer {}|{}", world.app_id, world.app_secret) {
        return Ok(());
    }
    Err(GraphError { status: 401, code: 190, subcode: None, details: String::new() })
}

const FIELDS: &[&str] = &[
    "account_settings_update",
    "account_update",
    "calls",
    "messages",
    "phone_number_name_update",
    "phone_number_quality_update",
];

pub(super) async fn subscriptions(
    State(world): SharedWorld,
    Path(app): IdPath,
    headers: HeaderMap,
) -> Response {
    let outcome = authorise_app(&world, &headers).and_then(|()| world.accounts.take_failure("subscriptions")).map(|()| {
        let disabled = locked(&world.accounts.0).disabled_fields.clone();
        let fields: Vec<Value> =
            FIELDS.iter().filter(|f| !disabled.contains(**f)).map(|f| json!({"name": f, "version": "v23.0"})).collect();
        let node = world.default_target().map(|target| format!("{}/webhooks/meta", target.node_url)).unwrap_or_default();
        json!({"data": [{"object": "whatsapp_business_account", "callback_url": node, "active": true, "fields": fields}]})
    });
    respond(&world, &Method::GET, &format!("/{app}/subscriptions"), "subscriptions", outcome)
}

/// Exchanges a sign-up code for an access token. Every code that begins with `code-` is valid.
pub(super) async fn exchange(State(world): SharedWorld, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let outcome = world.accounts.take_failure("access_token").and_then(|()| {
        if body["client_id"] != world.app_id.as_str() || body["client_secret"] != world.app_secret.as_str() {
            return Err(GraphError::parameter("client_id or client_secret is not valid"));
        }
        let code = body["code"].as_str().filter(|code| code.starts_with("code-"));
        let code =
            code.ok_or_else(|| GraphError::parameter("This authorization code has been used or is not valid"))?;
        let token = format!("token-for-{code}");
        let mut inner = locked(&world.accounts.0);
        if let Some(grant) = inner.codes.remove(code) {
            if body["redirect_uri"] != grant.redirect_uri.as_str() {
                let message = "Error validating verification code. Please make sure your redirect_uri is identical to the one you \
                    used in the OAuth dialog request";
                return Err(GraphError::parameter(message));
            }
            inner.wabas_by_token.insert(token.clone(), grant.waba);
        }
        inner.tokens.insert(token.clone());
        Ok(json!({"access_token": token, "token_type": "bearer"}))
    });
    respond(&world, &Method::POST, "/oauth/access_token", "access_token", outcome)
}

pub(super) async fn debug_token(
    State(world): SharedWorld,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let outcome = authorise_app(&world, &headers).and_then(|()| world.accounts.take_failure("debug_token")).map(|()| {
        let token = body["input_token"].as_str().unwrap_or_default();
        let valid = token == world.access_token || world.accounts.has_token(token);
        let expires_at = locked(&world.accounts.0).tokens_expire_at;
        let scopes = ["whatsapp_business_management", "whatsapp_business_messaging"];
        let granted = locked(&world.accounts.0).wabas_by_token.get(token).cloned();
        let wabas = granted.map_or_else(|| world.wabas(), |waba| BTreeSet::from([waba]));
        let granular: Vec<Value> = scopes.iter().map(|scope| json!({"scope": scope, "target_ids": wabas})).collect();
        json!({"data": {"app_id": world.app_id, "type": "SYSTEM_USER", "is_valid": valid, "expires_at": expires_at,
            "scopes": scopes, "granular_scopes": granular}})
    });
    respond(&world, &Method::POST, "/debug_token", "debug_token", outcome)
}

pub(super) fn respond(
    world: &World,
    method: &Method,
    path: &str,
    action: &str,
    outcome: Result<Value, GraphError>,
) -> Response {
    let (status, body, details) = match outcome {
        Ok(body) => (200, body, String::new()),
        Err(error) => (error.status, error.body(&world.rng.text(22)), error.details),
    };
    graph::log_request(world, method, path, action, "", status, details);
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, "application/json; charset=UTF-8")], body.to_string())
        .into_response()
}
