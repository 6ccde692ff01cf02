//! The page of the audit trail, for owners. The records come from the number API.

use askama::Template;
use axum::extract::State;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;

use super::App;
use super::auth::Visitor;
use super::page::{Page, bad_query, failed, forbidden, respond};
use super::view::When;

/// A record in the number API.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    at: String,
    actor: String,
    action: String,
    object: String,
    source: String,
    before: Value,
    after: Value,
    /// Name of the API key that made the change. Empty for other actors and deleted keys.
    #[serde(skip)]
    key_name: String,
}

/// An API key in the number API.
#[derive(Deserialize)]
struct Key {
    id: String,
    name: String,
}

/// A field that changed; `before` or `after` is empty if there is no such state.
struct FieldChange {
    name: String,
    before: String,
    after: String,
}

impl Record {
    /// The id of the API key that made the change.
    fn key_id(&self) -> Option<&str> {
        self.actor.strip_prefix("api-key:").filter(|id| !id.starts_with("configuration/"))
    }

    fn at(&self) -> When {
        When::read(&self.at)
    }

    /// The fields that changed, by name.
    fn changes(&self) -> Vec<FieldChange> {
        let members = |state: &Value| state.as_object().cloned().unwrap_or_default();
        let (before, after) = (members(&self.before), members(&self.after));
        let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
        names.sort_unstable();
        names.dedup();
        let text = |value: Option<&Value>| match value {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        let change = |name: &String| FieldChange {
            name: name.clone(),
            before: text(before.get(name)),
            after: text(after.get(name)),
        };
        names.into_iter().map(change).collect()
    }
}

#[derive(Deserialize)]
struct Records {
    items: Vec<Record>,
    next: Option<String>,
}

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPage {
    page: Page,
    records: Vec<Record>,
    /// The error in a filter. Empty if the filters are valid.
    wrong: String,
    actor: String,
    action: String,
    /// The query of the next page. Empty if this is the last one.
    next: String,
    /// The query of an export: the filters of this page.
    filters: String,
}

const FILTERS: &[&str] = &["actor", "action", "object", "source"];

pub(super) async fn page(State(console): App, visitor: Visitor) -> Response {
    if !visitor.is_owner() {
        return forbidden(&console, &visitor);
    }
    if let Err(unreadable) = visitor.query.check_names(&[FILTERS, &["cursor"]]) {
        return bad_query(&console, &visitor, &unreadable);
    }
    let known = [FILTERS, &["cursor"]].concat();
    let path = format!("/api/v1/audit/{}", visitor.query.only(&known));
    let answer = visitor.ask(&console, Method::GET, &path, None).await;
    let (mut records, wrong) = match serde_json::from_value::<Records>(answer.body.clone()) {
        Ok(records) => (records, String::new()),
        // The form stays, so that the filter can be corrected.
        Err(_) if answer.status == StatusCode::BAD_REQUEST => {
            (Records { items: Vec::new(), next: None }, answer.message().to_owned())
        }
        Err(_) => return failed(&console, &visitor, answer.status, answer.message()),
    };
    if records.items.iter().any(|record| record.key_id().is_some()) {
        let keys: Vec<Key> = visitor.items(&console, "/api/v1/api-keys/?limit=200").await;
        for record in &mut records.items {
            let key = record.key_id().and_then(|id| keys.iter().find(|key| key.id == id));
            record.key_name = key.map(|key| key.name.clone()).unwrap_or_default();
        }
    }
    let status = if wrong.is_empty() { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    let page = AuditPage {
        page: visitor.page(&console, visitor.lang().t("audit.title"), "people"),
        records: records.items,
        wrong,
        actor: visitor.query.get("actor").to_owned(),
        action: visitor.query.get("action").to_owned(),
        next: records
            .next
            .map(|cursor| visitor.query.with("cursor", Some(&cursor)))
            .unwrap_or_default(),
        filters: visitor.query.only(FILTERS).trim_start_matches('?').to_owned(),
    };
    respond(status, &page)
}
