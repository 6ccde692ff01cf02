//! `/api/v1/audit/`: the audit trail, as a list and as a file. Records can't be changed.

use std::net::IpAddr;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use http::{HeaderValue, header};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::audit::{self, TEXT_CHARS_MAX};
use super::super::error::ApiError;
use super::super::refusals::SEVERAL;
use super::super::routes::{Operation, QueryParameter, ResponseSpec};
use super::super::turns::{self, RECORDS_PER_TURN};
use super::super::{csv, fields};
use super::request::{ApiRequest, parse_position, position};
use super::response::{Page, Timestamp3339, ok};
use super::route::{CURSOR, LIMIT, Route, handler};
use engine::config::suggestion;
use model::{AuthId, Role, Timestamp};
use store::{AuditFilter, AuditRow, Scope, Store, StoreError};

const ACTOR: QueryParameter = QueryParameter::text(
    "actor",
    "Only records of this actor: user:NAME, endpoint:NAME, api-key:ID, api-key:configuration/NAME, auth-token, unknown \
     or several",
);
const ACTION: QueryParameter =
    QueryParameter::text("action", "Only this operation id, or signInRefused");
const OBJECT: QueryParameter =
    QueryParameter::text("object", "Only records of this object, for example agents/ID");
const SOURCE: QueryParameter =
    QueryParameter::text("source", "Only records of this network address");
const SINCE: QueryParameter =
    QueryParameter::text("since", "Only records from this time on (RFC 3339)");
const UNTIL: QueryParameter =
    QueryParameter::text("until", "Only records from before this time (RFC 3339)");

pub(super) const ROUTES: &[Route] = &[
    Route {
        role: Role::Owner,
        handler: handler!(list),
        operation: Operation::get(
            "/api/v1/audit/",
            "audit",
            "List changes made over the APIs or in the console, and refused sign-ins, newest first",
        )
        .query(&[ACTOR, ACTION, OBJECT, SOURCE, SINCE, UNTIL, LIMIT, CURSOR])
        .responses(&[ResponseSpec::json::<AuditList>(200, "A page of records")]),
    },
    Route {
        role: Role::Owner,
        handler: handler!(export),
        operation: Operation::get(
            "/api/v1/audit/export/",
            "exportAudit",
            "Download the audit trail, newest first",
        )
        .query(&[
            QueryParameter::one_of("format", &["jsonl", "csv"], "Default jsonl"),
            ACTOR,
            ACTION,
            OBJECT,
            SOURCE,
            SINCE,
            UNTIL,
        ])
        .responses(&[ResponseSpec::raw(
            200,
            "JSON, one object per line, or CSV",
            &[JSON_LINES, CSV],
        )]),
    },
];

const JSON_LINES: &str = "application/x-ndjson; charset=utf-8";
const CSV: &str = "text/csv; charset=utf-8";

/// A page of the audit trail.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditRecords)]
struct AuditList {
    items: Vec<AuditView>,
    next: Option<String>,
}

/// A record of the audit trail.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AuditRecord, examples(json!({"id": "0d2c1a52-13b5-4b7e-8a3c-5b7f9b0c6e11", "at": "2026-11-21T22:50:00.000Z", "account": "MAXXXXXXXXXXXXXXXXXX", "actor": "user:asha", "action": "changeAgent", "object": "agents/3e0f5c6a-7c55-4c0b-8d7e-2f1a9b8c7d60", "source": "203.0.113.7", "before": {"enabled": true}, "after": {"enabled": false}})))]
struct AuditView {
    id: Uuid,
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp3339,
    #[schema(value_type = String)]
    account: AuthId,
    /// `user:NAME`, `api-key:ID`, `api-key:configuration/NAME` or `auth-token`.
    actor: String,
    /// The id of the operation, or `signInRefused`.
    action: String,
    object: String,
    /// Network address of the client.
    source: String,
    /// The fields that changed, before and after, without secrets; null if there are none.
    #[schema(value_type = Option<Object>)]
    before: Value,
    #[schema(value_type = Option<Object>)]
    after: Value,
}

impl From<AuditRow> for AuditView {
    fn from(row: AuditRow) -> Self {
        let mut detail: Value = serde_json::from_str(&row.detail).unwrap_or_default();
        let mut take = |name| detail.get_mut(name).map(Value::take).unwrap_or_default();
        Self {
            id: row.id,
            at: Timestamp3339(row.at),
            account: row.account,
            actor: row.actor,
            action: row.action,
            object: row.object,
            source: row.source,
            before: take("before"),
            after: take("after"),
        }
    }
}

/// Whether a record may have this actor.
fn is_actor(text: &str) -> bool {
    let names = ["user:", "endpoint:", "api-key:"];
    let is_named =
        names.iter().any(|kind| text.strip_prefix(kind).is_some_and(|id| !id.is_empty()));
    (is_named || ["auth-token", "unknown", SEVERAL].contains(&text))
        && text.chars().count() <= TEXT_CHARS_MAX
}

fn filter(request: &ApiRequest) -> Result<AuditFilter, ApiError> {
    let text = |name| request.query_text(name).map(str::to_owned);
    let time =
        |name: &'static str| match request.query_text(name).map(str::parse::<jiff::Timestamp>) {
            None => Ok(None),
            Some(Ok(at)) => Ok(Some(Timestamp::from_micros(at.as_microsecond()))),
            Some(Err(_)) => Err(ApiError::bad_value(
                name,
                format!("{name} must be a time in RFC 3339, such as 2026-03-01T00:00:00Z"),
            )),
        };
    let action = text("action");
    if let Some(action) = &action
        && !audit::actions().any(|known| known == action)
    {
        let action = fields::printable(action);
        let message = format!("no action {action}: {}", suggestion(&action, audit::actions()));
        return Err(ApiError::bad_value("action", message));
    }
    let actor = text("actor");
    if actor.as_ref().is_some_and(|actor| !is_actor(actor)) {
        let message = "actor must be user:NAME, endpoint:NAME, api-key:ID, api-key:configuration/NAME, auth-token, \
                       unknown or several";
        return Err(ApiError::bad_value("actor", message));
    }
    let object = text("object");
    if let Some(object) = &object {
        let collection = object.split('/').next().unwrap_or_default();
        if object.chars().count() > TEXT_CHARS_MAX {
            let message = format!("object has more than {TEXT_CHARS_MAX} characters");
            return Err(ApiError::bad_value("object", message));
        }
        if !audit::collections().any(|known| known == collection) {
            let collection = fields::printable(collection);
            let mut known: Vec<&str> = audit::collections().collect();
            known.sort_unstable();
            known.dedup();
            let message =
                format!("no object {collection}: {}", suggestion(&collection, known.into_iter()));
            return Err(ApiError::bad_value("object", message));
        }
    }
    let source = text("source");
    if source.as_ref().is_some_and(|at| at.parse::<IpAddr>().is_err() && at != SEVERAL) {
        let message = format!("source must be an IP address, or {SEVERAL}");
        return Err(ApiError::bad_value("source", message));
    }
    Ok(AuditFilter {
        actor,
        action,
        object,
        source,
        since: time("since")?,
        until: time("until")?,
        before: None,
    })
}

async fn list(request: ApiRequest) -> Result<Response, ApiError> {
    let limit = request.limit()?;
    let filter = AuditFilter { before: request.cursor(parse_position)?, ..filter(&request)? };
    let store = &request.api().store;
    // The latest record may still be on its way to the store.
    request.state.audit.flush().await;
    let rows = store.audit().list(request.scope(), &filter, limit + 1).await;
    let rows = rows.map_err(ApiError::store("list audit records"))?;
    let page = Page::new(rows, limit, |row| position(row.at, row.id));
    let items = page.items.into_iter().map(AuditView::from).collect();
    Ok(ok(&AuditList { items, next: request.next_cursor(page.next) }))
}

/// The formats of an export.
#[derive(Clone, Copy)]
enum Format {
    JsonLines,
    Csv,
}

async fn export(request: ApiRequest) -> Result<Response, ApiError> {
    let (format, content_type, name) = match request.query_text("format") {
        None | Some("jsonl") => (Format::JsonLines, JSON_LINES, "audit.jsonl"),
        Some("csv") => (Format::Csv, CSV, "audit.csv"),
        Some(_) => return Err(ApiError::bad_value("format", "format must be jsonl or csv")),
    };
    let filter = filter(&request)?;
    let store = request.api().store.clone();
    request.state.audit.flush().await;
    let scope = request.scope().clone();
    // Read before the response begins, so that an unavailable store is answered with 503.
    let main_account = request.main_account();
    let turn = turns::next(&main_account).await;
    let first = store.audit().list(&scope, &filter, RECORDS_PER_TURN).await;
    drop(turn);
    let first = first.map_err(ApiError::store("list audit records"))?;
    let lines = lines(store, (scope, main_account), filter, format, first);
    let mut response = Response::new(Body::from_stream(lines));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(file) = HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")) {
        headers.insert(header::CONTENT_DISPOSITION, file);
    }
    Ok(response)
}

fn lines(
    store: Store,
    (scope, main_account): (Scope, AuthId),
    filter: AuditFilter,
    format: Format,
    first: Vec<AuditRow>,
) -> impl Stream<Item = Result<Bytes, StoreError>> {
    let state = Some((store, (scope, main_account), filter, Some(first)));
    stream::try_unfold(state, move |state| async move {
        let Some((store, (scope, main_account), mut filter, first)) = state else {
            return Ok(None);
        };
        let is_first = first.is_some();
        let _turn = turns::next(&main_account).await;
        let rows = match first {
            Some(rows) => rows,
            None => store.audit().list(&scope, &filter, RECORDS_PER_TURN).await?,
        };
        filter.before = rows.last().map(|row| (row.at, row.id));
        let next = filter.before.is_some();
        let mut text = String::new();
        if let (Format::Csv, true) = (format, is_first) {
            text.push_str("at,account,actor,action,object,source,before,after\r\n");
        }
        for row in rows {
            let view = AuditView::from(row);
            match format {
                Format::JsonLines => {
                    text.push_str(&serde_json::to_string(&view).unwrap_or_default());
                    text.push('\n');
                }
                Format::Csv => text.push_str(&csv_line(&view)),
            }
        }
        let next = next.then_some((store, (scope, main_account), filter, None));
        Ok(Some((Bytes::from(text), next)))
    })
}

/// A line of CSV (RFC 4180).
fn csv_line(view: &AuditView) -> String {
    let json = |value: &Value| if value.is_null() { String::new() } else { value.to_string() };
    let fields = [
        view.at.0.to_string(),
        view.account.to_string(),
        view.actor.clone(),
        view.action.clone(),
        view.object.clone(),
        view.source.clone(),
        json(&view.before),
        json(&view.after),
    ];
    fields.map(|field| csv::cell(&field)).join(",") + "\r\n"
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt as _;

    use super::*;

    #[tokio::test]
    async fn each_of_two_exports_has_all_records_once() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("o.db"), model::Health::new()).await.unwrap();
        let account = AuthId::from("MA1");
        let records = usize::try_from(RECORDS_PER_TURN).unwrap() * 2 + 50;
        for n in 0..records {
            let row = AuditRow {
                id: Uuid::from_u128(n.try_into().unwrap()),
                account: account.clone(),
                main_account: account.clone(),
                // Several records have the same time.
                at: model::Timestamp::from_micros(i64::try_from(n / 7).unwrap()),
                actor: "user:asha".to_owned(),
                action: "changeAgent".to_owned(),
                object: format!("agents/{n}"),
                source: "127.0.0.1".to_owned(),
                detail: "{}".to_owned(),
            };
            store.audit().insert(row).await.unwrap();
        }
        let export = async |format| {
            let (scope, filter) = (Scope::of(account.clone()), AuditFilter::default());
            let first = store.audit().list(&scope, &filter, RECORDS_PER_TURN).await.unwrap();
            let lines = lines(store.clone(), (scope, account.clone()), filter, format, first);
            let text: Vec<Bytes> = lines.try_collect().await.unwrap();
            String::from_utf8(text.concat()).unwrap()
        };
        let (csv, json) = tokio::join!(export(Format::Csv), export(Format::JsonLines));
        assert_eq!(csv.lines().count(), 1 + records);
        for text in [csv, json] {
            let missing =
                (0..records).find(|n| text.matches(&format!("\"agents/{n}\"")).count() != 1);
            assert_eq!(missing, None, "{text}");
        }
    }
}
