//! The audit trail: a record of every change made over the APIs or in the console, and of every
//! refused sign-in. See `docs/operations.md#audit-trail`.
//!
//! Both APIs dispatch requests in one place, which adds the records: the object is read with the GET
//! operation of the same path before and after the change. Each record is a row of the store and a
//! log line with the target `audit`.

use std::net::IpAddr;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Method, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::refusals::{Owner, Refusal, Refusals};
use super::routes::Operation;
use super::{number, plivo, segments};
use model::Clock;
use store::{AuditRow, Store, User};

/// The sender of a change, which is a person, an API key or an auth token, and the address of the
/// client.
#[derive(Clone, Debug)]
pub struct Actor {
    /// `user:NAME`, `api-key:ID`, `api-key:configuration/NAME` or `auth-token`.
    pub name: String,
    pub from: IpAddr,
}

impl Actor {
    pub(super) fn of_user(user: &User, from: IpAddr) -> Self {
        Self { name: format!("user:{}", user.name), from }
    }
}

/// A change.
#[derive(Debug)]
pub struct Change<'a> {
    pub owner: Owner,
    pub actor: &'a Actor,
    /// The `operationId` of the request, or the name of an action of the console.
    pub action: &'a str,
    /// The path of the changed object below that of the account.
    pub object: &'a str,
    pub before: Value,
    pub after: Value,
}

/// Maximum size of `before` and `after` in a record, in bytes.
const DETAIL_BYTES_MAX: usize = 8 << 10;
/// Maximum number of characters of a value in a record. Longer ones are cut, so that the records of
/// one tenant do not fill the disk.
const VALUE_CHARS_MAX: usize = 300;
/// Maximum number of characters of a name or an object in a record.
pub(super) const TEXT_CHARS_MAX: usize = 200;

/// Adds records to the audit trail.
pub struct Audit {
    store: Store,
    clock: Clock,
    refusals: Refusals,
}

impl Audit {
    pub(super) fn new(store: Store, clock: Clock) -> Self {
        let refusals = Refusals::new(store.clone(), clock.clone());
        Self { store, clock, refusals }
    }

    /// Records a change. The future completes when the record is stored. The record is stored even
    /// if the future is dropped.
    #[must_use = "a change is reported when its record is stored"]
    pub fn record(&self, change: Change<'_>) -> impl Future<Output = ()> + Send + 'static + use<> {
        let Change { owner, actor, action, object, before, after } = change;
        debug_assert!(actions().any(|known| known == action), "not in OTHER_ACTIONS: {action}");
        debug_assert!(
            collections().any(|known| object.split('/').next() == Some(known)),
            "not in collections: {object}"
        );
        let (name, object) = (truncated(&actor.name), truncated(object));
        tracing::info!(
            target: "audit",
            account = %owner.account, actor = name, action, object, source = %actor.from,
            "changed"
        );
        let mut detail = changes(redacted(before), redacted(after));
        shorten(&mut detail);
        let detail = detail.to_string();
        let detail = match detail.len() <= DETAIL_BYTES_MAX {
            true => detail,
            false => json!({"truncated": true}).to_string(),
        };
        let id = Uuid::new_v4();
        let row = AuditRow {
            id,
            account: owner.account,
            main_account: owner.main_account,
            at: self.clock.steady(),
            actor: name,
            action: action.to_owned(),
            object,
            source: actor.from.to_string(),
            detail,
        };
        let stored = self.store.audit().insert(row);
        let stored = finish(async move {
            if let Err(error) = stored.await {
                tracing::error!(target: "audit", %id, %error, "audit record not stored");
            }
        });
        stored.map(drop)
    }

    /// Records a refused sign-in. `by` is the kind of credentials: `password`, `provider`,
    /// `api-key`, `auth-token`, `endpoint-password` or `set-up-link`. Without an `owner`, the
    /// refusal is only logged. Without a `name`, the actor is `unknown`, because a name that does
    /// not exist may be a password in the wrong field.
    pub(super) fn record_refusal(
        &self,
        by: &'static str,
        from: IpAddr,
        owner: Option<Owner>,
        name: Option<&str>,
    ) {
        debug_assert!(CREDENTIALS.contains(&by), "not in CREDENTIALS: {by}");
        let actor = truncated(name.unwrap_or("unknown"));
        let account = owner.as_ref().map(|owner| owner.account.as_str());
        tracing::warn!(
            target: "audit",
            account, actor, action = AuditRow::SIGN_IN_REFUSED, object = by, source = %from,
            "sign-in refused"
        );
        if let Some(owner) = owner {
            self.refusals.add(Refusal { owner, actor, by, from: Some(from) });
        }
    }

    /// Stores the refused sign-ins that are not stored yet, and waits until all records are stored.
    pub(super) async fn flush(&self) {
        self.refusals.flush().await;
    }
}

/// Paths of requests that control calls or read state, and are not recorded: calls have a record and
/// an event log of their own.
const UNRECORDED_PATHS: &[&str] = &[
    "/v1/Account/{auth_id}/Call/",
    "/v1/Account/{auth_id}/Conference/",
    "/v1/Account/{auth_id}/MultiPartyCall/",
    "/api/v1/calls/",
    "/api/v1/notifications/",
    "/api/v1/permissions/",
    "/api/v1/xml/",
];

/// Operations that are not recorded: those of daily work, which appear in the timeline of a
/// conversation, and checks that change nothing.
const UNRECORDED: &[&str] = &[
    "archiveConversation",
    "assessConversation",
    "checkUrls",
    "closeConversation",
    "createNote",
    "discardModel",
    "readConversation",
    "reopenConversation",
    "sendMessage",
    "speakSample",
    "tryAgent",
    "uploadMedia",
    "uploadModel",
];

/// Actions that are no operation of an API, and those whose record has another name.
const OTHER_ACTIONS: &[&str] = &[
    "acceptInvitation",
    "changeWebhook",
    "createWebhook",
    "deleteUser",
    "deleteWebhook",
    "endWebhookRotation",
    "modelInstalled",
    "revealAuthToken",
    "rotateWebhookSecret",
    "setUp",
    "signInWithProvider",
    AuditRow::SIGN_IN_REFUSED,
];

/// The objects of refused sign-ins: kinds of credentials.
const CREDENTIALS: &[&str] =
    &["api-key", "auth-token", "endpoint-password", "password", "provider", "set-up-link"];

/// All operations of both APIs.
fn operations() -> impl Iterator<Item = &'static Operation> + Clone {
    let number = number::TABLES.iter().copied().flatten().map(|route| &route.operation);
    let plivo = plivo::TABLES.iter().copied().flatten().map(|route| &route.operation);
    number.chain(plivo)
}

/// The actions of records.
pub(super) fn actions() -> impl Iterator<Item = &'static str> + Clone {
    let recorded = operations().filter(|operation| is_recorded(operation));
    recorded.map(|operation| operation.id).chain(OTHER_ACTIONS.iter().copied())
}

/// The first segments of the objects of records.
pub(super) fn collections() -> impl Iterator<Item = &'static str> + Clone {
    let of = |operation: &'static Operation| {
        let segments = segments(operation.path);
        let place = if operation.path.starts_with("/api/") { 2 } else { 3 };
        segments.get(place).copied().unwrap_or("account")
    };
    let recorded = operations().filter(|operation| is_recorded(operation));
    recorded.map(of).chain(CREDENTIALS.iter().copied()).chain(["webhooks"])
}

/// Whether requests of an operation are recorded.
pub(super) fn is_recorded(operation: &Operation) -> bool {
    operation.method != "GET"
        && !UNRECORDED_PATHS.iter().any(|path| operation.path.starts_with(path))
        && !UNRECORDED.contains(&operation.id)
}

/// The path whose `GET` returns the object that a request changes, if there is one. An action like
/// `…/disconnect/` changes the object above it. Recordings contain data of WhatsApp users, which
/// the audit trail must not keep, because it outlasts an erasure.
pub(super) fn object_path<'a>(operation: &Operation, path: &'a str) -> Option<&'a str> {
    if operation.path.starts_with("/v1/Account/{auth_id}/Recording/") {
        return None;
    }
    let path = path.trim_end_matches('/');
    if operation.path.ends_with("}/") {
        return Some(path);
    }
    // Below an account of the Plivo-compatible API are collections.
    let (object, _action) = operation.path.trim_end_matches('/').rsplit_once('/')?;
    let is_action = operation.path.starts_with("/api/") && object.ends_with('}');
    is_action.then(|| path.rsplit_once('/').map(|(object, _)| object)).flatten()
}

/// Whether a request that succeeded has changed nothing: it sets fields of an object to the values
/// that they had, or no field. `fields` are the names in its body. A field that the object does not
/// show, such as a secret, counts as changed.
pub(super) fn is_unchanged(
    operation: &Operation,
    fields: &[String],
    (before, after): (&Value, &Value),
) -> bool {
    let is_shown = |name: &String| !is_sensitive(name) && before.get(name).is_some();
    let sets_fields = *operation.method != *Method::DELETE.as_str()
        && operation.path.ends_with("}/")
        && fields.iter().all(is_shown);
    let nothing = json!({"before": {}, "after": {}});
    sets_fields && (fields.is_empty() || changes(before.clone(), after.clone()) == nothing)
}

/// The states of an object before and after a request.
pub(super) struct States {
    /// The state before the request. Null if there was none.
    pub before: Value,
    /// The state after the request. Null if it can't be read.
    pub after: Value,
    /// The response, which describes a new object.
    pub response: Value,
}

impl States {
    /// Returns the values to record as `before` and `after`.
    pub(super) fn recorded(self, operation: &Operation, status: StatusCode) -> (Value, Value) {
        let Self { before, after, response } = self;
        let is_deleted = *operation.method == *Method::DELETE.as_str();
        if operation.path.starts_with("/api/v1/conversations/") {
            let after = if is_deleted { Value::Null } else { settings_of_conversation(&after) };
            return (settings_of_conversation(&before), after);
        }
        match (status, after) {
            _ if is_deleted => (before, Value::Null),
            (StatusCode::CREATED, Value::Null) => (Value::Null, response),
            (StatusCode::CREATED, after) => (Value::Null, after),
            (_, Value::Null) => (before, response),
            (_, after) => (before, after),
        }
    }
}

/// Returns the fields of a conversation that people set. The others are data of a WhatsApp user.
fn settings_of_conversation(state: &Value) -> Value {
    let fields = ["activeAgent", "aiEnabled", "assignee", "labels", "routing", "webhook"];
    let set = fields.iter().filter_map(|name| Some(((*name).to_owned(), state.get(name)?.clone())));
    match state {
        Value::Object(_) => Value::Object(set.collect()),
        _ => Value::Null,
    }
}

/// Returns the name of an action in the audit trail, which is the `operationId`. Deleting a person
/// of the console and erasing a WhatsApp user have different names, although they share a path.
pub(super) fn action_of(operation: &'static Operation, path: &str) -> &'static str {
    match (operation.id, segments(path).last().map(|id| id.parse::<Uuid>())) {
        ("forgetUser", Some(Ok(_))) => "deleteUser",
        (id, _) => id,
    }
}

/// The object that a request changes: its path below that of the API or the account, and the id of a
/// new object.
pub(super) fn object_of(
    operation: &Operation,
    path: &str,
    status: StatusCode,
    body: &Value,
) -> String {
    let segments = segments(path);
    let below = match operation.path.starts_with("/api/") {
        true => segments.get(2..),
        false => segments.get(3..),
    };
    let mut object = match (operation.id, below.unwrap_or_default()) {
        // The path of an erasure has the number of the WhatsApp user.
        ("forgetUser", ["users", id]) if id.parse::<Uuid>().is_err() => {
            "users/WhatsApp user".to_owned()
        }
        (_, []) => "account".to_owned(),
        (_, below) => below.join("/"),
    };
    if let Some(id) = id_of_created(status, body) {
        object.push('/');
        object.push_str(id);
    }
    object
}

/// Returns the path of an object that a request created, if its response contains the id.
pub(super) fn created_path(path: &str, status: StatusCode, body: &Value) -> Option<String> {
    id_of_created(status, body).map(|id| format!("{}/{id}/", path.trim_end_matches('/')))
}

fn id_of_created(status: StatusCode, body: &Value) -> Option<&str> {
    let ids = ["id", "app_id", "endpoint_id", "auth_id", "number"];
    let mut found = ids.iter().filter_map(|name| body.get(name)?.as_str());
    found.next().filter(|_| status == StatusCode::CREATED)
}

/// Reads the JSON body of a response. Returns the response as it was, and null for another body.
pub(super) async fn json_body(response: Response) -> (Response, Value) {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if !kind.is_some_and(|kind| kind.starts_with("application/json")) {
        return (response, Value::Null);
    }
    let (head, body) = response.into_parts();
    let bytes = body.collect().await.map_or_else(|_| Bytes::new(), |body| body.to_bytes());
    let value = serde_json::from_slice(&bytes).unwrap_or_default();
    (Response::from_parts(head, Body::from(bytes)), value)
}

/// Starts work and completes it even if the client disconnects, so that no change is done by halves or
/// lacks its record.
pub fn finish<T: Send + 'static, W: Future<Output = T> + Send + 'static>(
    work: W,
) -> impl Future<Output = Option<T>> + Send + 'static + use<T, W> {
    use tracing::Instrument as _;
    let work = tokio::spawn(work.in_current_span());
    async {
        match work.await {
            Ok(done) => Some(done),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => None,
            },
        }
    }
}

/// Completes the work of a request even if the client disconnects. The result is `gone` if the process
/// ends before.
pub(super) async fn complete<T: Send + 'static, E: Send + 'static>(
    work: impl Future<Output = Result<T, E>> + Send + 'static,
    gone: E,
) -> Result<T, E> {
    finish(work).await.unwrap_or(Err(gone))
}

fn truncated(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}

/// Replaces the texts of fields that may be secrets or numbers of people.
fn redacted(mut value: Value) -> Value {
    redact(&mut value);
    value
}

fn redact(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, member) in members.iter_mut() {
                match member {
                    Value::String(_) if is_sensitive(name) => *member = json!("(redacted)"),
                    Value::Array(_) if is_sensitive(name) => *member = json!("(redacted)"),
                    _ => redact(member),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(redact),
        _ => {}
    }
}

/// Cuts long texts and says how long they were.
fn shorten(value: &mut Value) {
    match value {
        Value::Object(members) => members.values_mut().for_each(shorten),
        Value::Array(items) => items.iter_mut().for_each(shorten),
        Value::String(text) => {
            if let Some((cut, _)) = text.char_indices().nth(VALUE_CHARS_MAX) {
                let chars = text.chars().count();
                text.truncate(cut);
                text.push_str(&format!("… ({chars} characters)"));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn is_sensitive(field: &str) -> bool {
    let field = field.to_ascii_lowercase().replace(['_', '-'], "");
    ["secret", "password", "token", "apikey", "invitation"].iter().any(|word| field.contains(word))
        || matches!(field.as_str(), "pin" | "code" | "waid" | "key")
}

/// Members of objects that no request sets: ids of requests, and counts that change with calls and
/// messages.
const NO_SETTINGS: &[&str] = &["api_id", "liveCalls", "openConversations"];

/// The fields that differ between two states.
fn changes(mut before: Value, mut after: Value) -> Value {
    let mut detail = Map::new();
    for state in [&mut before, &mut after].into_iter().filter_map(Value::as_object_mut) {
        NO_SETTINGS.iter().for_each(|name| drop(state.remove(*name)));
    }
    let (before, after) = match (before, after) {
        (Value::Object(mut before), Value::Object(mut after)) => {
            let same: Vec<String> = before
                .iter()
                .filter(|(name, value)| after.get(*name) == Some(value))
                .map(|(name, _)| name.clone())
                .collect();
            for name in same {
                before.remove(&name);
                after.remove(&name);
            }
            (Value::Object(before), Value::Object(after))
        }
        states => states,
    };
    for (name, state) in [("before", before), ("after", after)] {
        if !state.is_null() {
            detail.insert(name.to_owned(), state);
        }
    }
    Value::Object(detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut() {
        let (short, long) = ("€".repeat(VALUE_CHARS_MAX), "€".repeat(VALUE_CHARS_MAX + 1));
        let mut detail = json!({"after": {"a": short, "b": [long]}});
        shorten(&mut detail);
        let expected = format!("{short}… (301 characters)");
        assert_eq!(detail, json!({"after": {"a": short, "b": [expected]}}));
    }

    #[test]
    fn records_the_fields_that_changed_without_secrets() {
        let before = json!({"api_id": "1", "name": "a", "endpoint": "https://a", "hasApiKey": true,
            "auth_token": "canary", "nested": [{"apiKey": "canary"}]});
        let after = json!({"api_id": "2", "name": "a", "endpoint": "https://b", "hasApiKey": false,
            "auth_token": "canary2", "nested": [{"apiKey": "canary3"}], "waId": "919812345678"});
        assert_eq!(
            changes(redacted(before), redacted(after)),
            json!({
                "before": {"endpoint": "https://a", "hasApiKey": true},
                "after": {"endpoint": "https://b", "hasApiKey": false, "waId": "(redacted)"},
            })
        );
        let number =
            |calls: u32| json!({"alias": "a", "liveCalls": calls, "openConversations": calls});
        assert_eq!(changes(number(0), number(1)), json!({"before": {}, "after": {}}));
        assert_eq!(changes(Value::Null, number(1)), json!({"after": {"alias": "a"}}));
        let made = redacted(json!({"id": "7", "secret": "canary", "invitation": "https://canary"}));
        assert!(!changes(Value::Null, made).to_string().contains("canary"));
    }

    fn operation(id: &str) -> &'static Operation {
        operations().find(|operation| operation.id == id).unwrap()
    }

    #[test]
    fn records_the_object_that_an_action_changes() {
        let number = "/api/v1/phone-numbers/9180";
        let cases = [
            ("disconnectPhoneNumber", format!("{number}/disconnect/"), Some(number)),
            ("reconnectPhoneNumber", format!("{number}/reconnect"), Some(number)),
            ("connectAgent", format!("{number}/connect-agent/"), Some(number)),
            ("disconnectAgent", format!("{number}/disconnect-agent/"), Some(number)),
            ("changePhoneNumber", format!("{number}/"), Some(number)),
            ("createAgent", "/api/v1/agents/".to_owned(), None),
            ("makeApplication", "/v1/Account/MA1/Application/".to_owned(), None),
            ("removeRecording", "/v1/Account/MA1/Recording/7/".to_owned(), None),
        ];
        for (id, path, object) in cases {
            assert_eq!(object_path(operation(id), &path), object, "{id}");
        }
        let state = |agent: Option<&str>| json!({"agent": agent, "number": "9180"});
        let states = |before, after, response| States { before, after, response };
        let connected = states(state(None), state(Some("a")), json!({"agent": "a"}));
        assert_eq!(
            connected.recorded(operation("connectAgent"), StatusCode::OK),
            (state(None), state(Some("a")))
        );
        let made = states(Value::Null, Value::Null, json!({"id": "7"}));
        assert_eq!(
            made.recorded(operation("createAgent"), StatusCode::CREATED),
            (Value::Null, json!({"id": "7"}))
        );
        let gone = states(json!({"id": "7"}), Value::Null, Value::Null);
        assert_eq!(
            gone.recorded(operation("deleteAgent"), StatusCode::NO_CONTENT),
            (json!({"id": "7"}), Value::Null)
        );
    }

    #[test]
    fn a_request_that_changes_nothing_is_none() {
        let agent = |name: &str| json!({"api_id": name, "name": name, "hasApiKey": true});
        let is_unchanged = |id, fields: &[&str], before: Value, after: Value| {
            let fields: Vec<String> = fields.iter().map(|name| (*name).to_owned()).collect();
            super::is_unchanged(operation(id), &fields, (&before, &after))
        };
        for (id, fields, before, after, expected) in [
            ("changeAgent", &[] as &[&str], agent("a"), agent("a"), true),
            ("changeAgent", &["name"], agent("a"), agent("a"), true),
            ("changeAgent", &["name"], agent("a"), agent("b"), false),
            ("changeAgent", &["name", "apiKey"], agent("a"), agent("a"), false),
            ("changeUser", &["password"], agent("a"), agent("a"), false),
            ("changeLabel", &[], Value::Null, json!({"id": "7"}), true),
            ("changeLabel", &["name"], Value::Null, json!({"id": "7"}), false),
            (
                "changeEndpoint",
                &["password"],
                json!({"password": ""}),
                json!({"password": ""}),
                false,
            ),
            ("deleteAgent", &[], agent("a"), Value::Null, false),
            ("inviteUser", &[], agent("a"), agent("a"), false),
        ] {
            assert_eq!(is_unchanged(id, fields, before, after), expected, "{id} {fields:?}");
        }
    }

    #[test]
    fn keeps_what_people_set_in_a_conversation_and_nothing_of_the_user() {
        let state = |assignee: Option<&str>| {
            json!({"assignee": assignee, "aiEnabled": true, "labels": [], "user": {"waId": "9198"},
                "summary": "canary"})
        };
        let states = States {
            before: state(None),
            after: state(Some("asha")),
            response: state(Some("asha")),
        };
        let (before, after) = states.recorded(operation("changeConversation"), StatusCode::OK);
        assert_eq!(
            changes(before, after),
            json!({"before": {"assignee": null}, "after": {"assignee": "asha"}})
        );
    }

    #[test]
    fn names_objects_without_numbers_of_users() {
        let id = "3e0f5c6a-7c55-4c0b-8d7e-2f1a9b8c7d60";
        let (ok, made) = (StatusCode::OK, StatusCode::CREATED);
        let body = json!({"id": id});
        for (name, path, status, want) in [
            ("createAgent", "/api/v1/agents/".to_owned(), made, format!("agents/{id}")),
            ("changeAgent", format!("/api/v1/agents/{id}/"), ok, format!("agents/{id}")),
            ("forgetUser", format!("/api/v1/users/{id}/"), ok, format!("users/{id}")),
            (
                "forgetUser",
                "/api/v1/users/919812345678".to_owned(),
                ok,
                "users/WhatsApp user".to_owned(),
            ),
            (
                "changeNumber",
                "/v1/Account/MA1/Number/9180/".to_owned(),
                ok,
                "Number/9180".to_owned(),
            ),
        ] {
            assert_eq!(object_of(operation(name), &path, status, &body), want, "{path}");
        }
        let action =
            |user: &str| action_of(operation("forgetUser"), &format!("/api/v1/users/{user}/"));
        assert_eq!((action(id), action("919812345678")), ("deleteUser", "forgetUser"));
    }

    /// Operations that are not recorded although they are no GET, so that a new operation does not
    /// go unnoticed.
    #[test]
    fn lists_the_operations_of_the_number_api_that_are_not_recorded() {
        let all = number::TABLES.iter().copied().flatten().map(|route| &route.operation);
        let mut found: Vec<&str> = all
            .filter(|operation| operation.method != "GET" && !is_recorded(operation))
            .map(|operation| operation.id)
            .collect();
        found.sort_unstable();
        let mut expected = UNRECORDED.to_vec();
        expected.extend([
            "checkXml",
            "hangUp",
            "placeCall",
            "readAllNotifications",
            "readNotification",
            "requestPermission",
        ]);
        expected.sort_unstable();
        assert_eq!(found, expected);
    }
}
