//! Phone numbers, registering, subscriptions and sign-up at Graph (`meta-calling.md` §4.5, M22), and what a test has go
//! wrong there: failures are ordered at `/_sim/failures`, numbers made and changed at `/_sim/numbers`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::graph::{self, GraphFault};
use crate::world::SimNumber;
use crate::{World, locked};

/// Failures that wait to happen, at most.
const FAILURES_MAX: usize = 1_000;
/// Numbers of a page where nobody says.
const PAGE: usize = 25;

/// What Meta has on its side beside numbers and settings.
#[derive(Debug, Default)]
pub(crate) struct Accounts(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// By phone number id; those that were never changed are not in it.
    facts: BTreeMap<String, Facts>,
    /// WABAs that our app was taken off from; all others have it.
    unsubscribed: BTreeSet<String>,
    /// Fields that our app is not subscribed to.
    fields_off: BTreeSet<String>,
    /// Tokens beside the world's own.
    tokens: BTreeSet<String>,
    /// Codes that the sign-up window gave, until they are exchanged.
    codes: BTreeMap<String, Grant>,
    /// Tokens that are good for one WABA alone.
    granted: BTreeMap<String, String>,
    /// When the tokens end, in seconds since the epoch; 0: never.
    tokens_end: i64,
    failures: Vec<Failure>,
}

/// What somebody granted in the sign-up window.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    pub(super) waba: String,
    pub(super) redirect_uri: String,
}

/// What Meta knows of a number beside its ids.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
struct Facts {
    platform_type: String,
    quality_rating: String,
    status: String,
    account_mode: String,
    pin: String,
    /// Used in the WhatsApp Business app too.
    is_on_biz_app: bool,
}

impl Default for Facts {
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

/// One request that fails: the first so many of this kind.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Failure {
    /// `number`, `phone_numbers`, `settings`, `register`, `subscribed_apps`, `access_token`, …
    what: String,
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

/// `POST /_sim/numbers`: a number that is new, or is changed.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct NumberOrder {
    number: String,
    phone_number_id: String,
    waba: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    facts: Option<Value>,
}

/// `POST /_sim/app`: what our app has at Meta.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AppOrder {
    /// WABAs that the app is taken off from.
    unsubscribed: Vec<String>,
    /// Fields that it is not subscribed to.
    fields_off: Vec<String>,
    tokens_end: i64,
}

impl Accounts {
    /// Whether a token was given out here.
    pub(crate) fn knows(&self, token: &str) -> bool {
        locked(&self.0).tokens.contains(token)
    }

    /// What was ordered to go wrong with a request of this kind.
    pub(crate) fn failure(&self, what: &str) -> Result<(), GraphFault> {
        let mut inner = locked(&self.0);
        let Some(failure) = inner.failures.iter_mut().find(|f| f.what == what && f.times > 0)
        else {
            return Ok(());
        };
        failure.times -= 1;
        let Failure { status, code, details, .. } = failure.clone();
        inner.failures.retain(|failure| failure.times > 0);
        Err(GraphFault { status, code, subcode: None, details })
    }

    fn facts(&self, id: &str) -> Facts {
        locked(&self.0).facts.get(id).cloned().unwrap_or_default()
    }

    /// Keeps a code; the oldest go where there are too many.
    pub(super) fn grant(&self, code: String, grant: Grant) {
        let mut inner = locked(&self.0);
        if inner.codes.len() >= FAILURES_MAX {
            inner.codes.pop_first();
        }
        inner.codes.insert(code, grant);
    }

    fn register(&self, id: &str, pin: &str) -> Result<(), GraphFault> {
        let mut inner = locked(&self.0);
        let facts = inner.facts.entry(id.to_owned()).or_default();
        // The first one that a number is registered with is its PIN from then on.
        if facts.pin.is_empty() {
            pin.clone_into(&mut facts.pin);
        }
        if facts.pin != pin {
            let details = "The PIN does not match".to_owned();
            return Err(GraphFault { status: 400, code: 133_005, subcode: None, details });
        }
        (facts.platform_type, facts.status) = ("CLOUD_API".into(), "CONNECTED".into());
        Ok(())
    }
}

impl World {
    /// Orders failures.
    pub(crate) fn order_failures(&self, failures: Vec<Failure>) {
        let mut inner = locked(&self.accounts.0);
        inner.failures.extend(failures);
        inner.failures.truncate(FAILURES_MAX);
    }

    /// Makes a number, or changes one; nothing is told of it.
    pub(crate) fn order_number(&self, order: NumberOrder) -> Result<(), String> {
        let NumberOrder { number, phone_number_id, waba, name, facts } = order;
        if let Some(facts) = facts {
            let facts: Facts = serde_json::from_value(facts).map_err(|e| format!("facts: {e}"))?;
            self.permissions.is_of_test(&phone_number_id, facts.account_mode == "SANDBOX");
            locked(&self.accounts.0).facts.insert(phone_number_id.clone(), facts);
        }
        self.learn_number(&SimNumber { number, phone_number_id, waba, name });
        Ok(())
    }

    /// Changes what our app has.
    pub(crate) fn order_app(&self, order: AppOrder) {
        let mut inner = locked(&self.accounts.0);
        inner.unsubscribed = order.unsubscribed.into_iter().collect();
        inner.fields_off = order.fields_off.into_iter().collect();
        inner.tokens_end = order.tokens_end;
    }

    fn object(&self, number: &SimNumber) -> Value {
        let facts = self.accounts.facts(&number.phone_number_id);
        json!({
            "id": number.phone_number_id,
            "display_phone_number": format!("+{}", number.number),
            "verified_name": number.name,
            "quality_rating": facts.quality_rating,
            "platform_type": facts.platform_type,
            "status": facts.status,
            "account_mode": facts.account_mode,
            "is_on_biz_app": facts.is_on_biz_app,
            "code_verification_status": "VERIFIED",
            "name_status": "APPROVED",
            "messaging_limit_tier": "TIER_10K",
            "throughput": {"level": "STANDARD"},
        })
    }
}

fn gone() -> GraphFault {
    GraphFault { subcode: Some(33), ..GraphFault::parameter("") }
}

type Paths = Path<String>;
type Worlds = State<Arc<World>>;

pub(super) async fn number(State(world): Worlds, Path(id): Paths, headers: HeaderMap) -> Response {
    // A user's file has an id like a number's.
    if graph::authorised(&world, &headers).is_ok()
        && let Some(file) = world.chat.file(&id, &graph::own_url(&headers))
    {
        return axum::Json(file).into_response();
    }
    let told = graph::authorised(&world, &headers)
        .and_then(|()| world.accounts.failure("number"))
        .and_then(|()| world.number_of_id(&id).ok_or_else(gone))
        .map(|number| world.object(&number));
    answer(&world, &Method::GET, &format!("/{id}"), "number", told)
}

pub(super) async fn of_waba(
    State(world): Worlds,
    Path(waba): Paths,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    let told = graph::authorised(&world, &headers)
        .and_then(|()| world.accounts.failure("phone_numbers"))
        .and_then(|()| {
            let all: Vec<SimNumber> = world.numbers_of(&waba);
            if all.is_empty() {
                return Err(gone());
            }
            let limit =
                query.get("limit").and_then(|n| n.parse().ok()).unwrap_or(PAGE).clamp(1, 100);
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
    answer(&world, &Method::GET, &format!("/{waba}/phone_numbers"), "phone_numbers", told)
}

pub(super) async fn register(
    State(world): Worlds,
    Path(id): Paths,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let done = graph::authorised(&world, &headers)
        .and_then(|()| world.accounts.failure("register"))
        .and_then(|()| {
            world.number_of_id(&id).ok_or_else(gone)?;
            let body: Value = serde_json::from_slice(&body)
                .map_err(|_| GraphFault::parameter("The request body is not JSON"))?;
            if body["messaging_product"] != "whatsapp" {
                return Err(GraphFault::parameter("messaging_product must be whatsapp"));
            }
            world.accounts.register(&id, body["pin"].as_str().unwrap_or_default())
        });
    answer(
        &world,
        &Method::POST,
        &format!("/{id}/register"),
        "register",
        done.map(|()| json!({"success": true})),
    )
}

pub(super) async fn deregister(
    State(world): Worlds,
    Path(id): Paths,
    headers: HeaderMap,
) -> Response {
    let done = graph::authorised(&world, &headers).and_then(|()| {
        world.number_of_id(&id).ok_or_else(gone)?;
        let mut inner = locked(&world.accounts.0);
        inner.facts.entry(id.clone()).or_default().platform_type = "NOT_APPLICABLE".into();
        Ok(json!({"success": true}))
    });
    answer(&world, &Method::POST, &format!("/{id}/deregister"), "deregister", done)
}

/// `GET`, `POST` and `DELETE` of a WABA's apps.
pub(super) async fn apps(
    State(world): Worlds,
    Path(waba): Paths,
    method: Method,
    headers: HeaderMap,
) -> Response {
    let done = graph::authorised(&world, &headers)
        .and_then(|()| world.accounts.failure("subscribed_apps"))
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
    answer(&world, &method, &format!("/{waba}/subscribed_apps"), "subscribed_apps", done)
}

/// Our app speaks for itself.
fn as_app(world: &World, headers: &HeaderMap) -> Result<(), GraphFault> {
    let given =
        headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if given == format!("Bearer {}|{}", world.app_id, world.app_secret) {
        return Ok(());
    }
    Err(GraphFault { status: 401, code: 190, subcode: None, details: String::new() })
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
    State(world): Worlds,
    Path(app): Paths,
    headers: HeaderMap,
) -> Response {
    let told = as_app(&world, &headers).and_then(|()| world.accounts.failure("subscriptions")).map(|()| {
        let off = locked(&world.accounts.0).fields_off.clone();
        let fields: Vec<Value> =
            FIELDS.iter().filter(|f| !off.contains(**f)).map(|f| json!({"name": f, "version": "v23.0"})).collect();
        let node = world.usual_door().map(|door| format!("{}/webhooks/meta", door.node_url)).unwrap_or_default();
        json!({"data": [{"object": "whatsapp_business_account", "callback_url": node, "active": true, "fields": fields}]})
    });
    answer(&world, &Method::GET, &format!("/{app}/subscriptions"), "subscriptions", told)
}

/// A code of the sign-up window: any that begins with `code-`; its token is good from then on.
pub(super) async fn exchange(State(world): Worlds, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let told = world.accounts.failure("access_token").and_then(|()| {
        if body["client_id"] != world.app_id.as_str() || body["client_secret"] != world.app_secret.as_str() {
            return Err(GraphFault::parameter("client_id or client_secret is not valid"));
        }
        let code = body["code"].as_str().filter(|code| code.starts_with("code-"));
        let code =
            code.ok_or_else(|| GraphFault::parameter("This authorization code has been used or is not valid"))?;
        let token = format!("token-for-{code}");
        let mut inner = locked(&world.accounts.0);
        if let Some(grant) = inner.codes.remove(code) {
            if body["redirect_uri"] != grant.redirect_uri.as_str() {
                let why = "Error validating verification code. Please make sure your redirect_uri is identical to the one you \
                    used in the OAuth dialog request";
                return Err(GraphFault::parameter(why));
            }
            inner.granted.insert(token.clone(), grant.waba);
        }
        inner.tokens.insert(token.clone());
        Ok(json!({"access_token": token, "token_type": "bearer"}))
    });
    answer(&world, &Method::POST, "/oauth/access_token", "access_token", told)
}

pub(super) async fn debug_token(State(world): Worlds, headers: HeaderMap, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let told = as_app(&world, &headers).and_then(|()| world.accounts.failure("debug_token")).map(|()| {
        let token = body["input_token"].as_str().unwrap_or_default();
        let valid = token == world.access_token || world.accounts.knows(token);
        let ends = locked(&world.accounts.0).tokens_end;
        let scopes = ["whatsapp_business_management", "whatsapp_business_messaging"];
        let granted = locked(&world.accounts.0).granted.get(token).cloned();
        let wabas = granted.map_or_else(|| world.wabas(), |waba| BTreeSet::from([waba]));
        let granular: Vec<Value> = scopes.iter().map(|scope| json!({"scope": scope, "target_ids": wabas})).collect();
        json!({"data": {"app_id": world.app_id, "type": "SYSTEM_USER", "is_valid": valid, "expires_at": ends,
            "scopes": scopes, "granular_scopes": granular}})
    });
    answer(&world, &Method::POST, "/debug_token", "debug_token", told)
}

fn answer(
    world: &World,
    method: &Method,
    path: &str,
    what: &str,
    outcome: Result<Value, GraphFault>,
) -> Response {
    let (status, body, details) = match outcome {
        Ok(body) => (200, body, String::new()),
        Err(fault) => (fault.status, fault.body(&world.dice.text(22)), fault.details),
    };
    graph::log(world, method, path, what, "", status, details);
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, "application/json; charset=UTF-8")], body.to_string())
        .into_response()
}
