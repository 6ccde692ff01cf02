//! `/api/v1/failed-requests/`: requests to the account's URLs that failed, across calls.

use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::error::ApiError;
use super::super::routes::{Operation, QueryParameter, ResponseSpec};
use super::super::turns;
use super::request::{ApiRequest, parse_position, position};
use super::response::{Page, Timestamp3339, ok};
use super::route::{CURSOR, LIMIT, Route, handler};
use engine::call::FETCH_FILE;
use machine::{CallbackKind, FetchKind};
use model::{AuthId, CallUuid, Role, Timestamp};
use store::{FailedRequest, FailedRequestFilter, FailedRequestGroup};

const SINCE: QueryParameter =
    QueryParameter::text("since", "Only requests from this time on (RFC 3339)");

pub(super) const ROUTES: &[Route] = &[
    Route {
        role: Role::Agent,
        handler: handler!(list),
        operation: Operation::get(
            "/api/v1/failed-requests/",
            "failedRequests",
            "List requests to your URLs that failed, newest first",
        )
        .query(&[
            QueryParameter::text("url", "Only requests to this URL, without its query"),
            QueryParameter::text("kind", "Only this kind, for example `fetch answer`"),
            SINCE,
            LIMIT,
            CURSOR,
        ])
        .responses(&[ResponseSpec::json::<FailedRequestPage>(200, "A page of requests")]),
    },
    Route {
        role: Role::Agent,
        handler: handler!(groups),
        operation: Operation::get(
            "/api/v1/failed-requests/groups/",
            "failedRequestGroups",
            "Count failed requests by URL and kind, those that failed last first; the latest \
             10,000 requests and 200 groups at most",
        )
        .query(&[SINCE])
        .responses(&[ResponseSpec::json::<FailedRequestGroups>(200, "The groups")]),
    },
];

/// A request to one of your URLs that failed. The waterfall of the call contains the request
/// itself.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = FailedRequest, examples(json!({"id": "0d2c1a52-13b5-4b7e-8a3c-5b7f9b0c6e11", "at": "2026-11-21T22:50:00.000Z", "account": "MAXXXXXXXXXXXXXXXXXX", "callUuid": "3f0c2f1a-6a1e-4f0e-9a2b-5d7f3f0a9b11", "kind": "fetch answer", "method": "POST", "url": "https://app.example.com/answer", "outcome": "the response status was 503", "attempts": 2, "response": "Service Unavailable"})))]
struct FailedRequestView {
    id: Uuid,
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp3339,
    #[schema(value_type = String)]
    account: AuthId,
    #[schema(value_type = String, format = Uuid)]
    call_uuid: CallUuid,
    /// `fetch` or `callback` with its kind, as in the waterfall of the call, or `fetch file`: an
    /// audio file that could not be played.
    kind: String,
    method: String,
    /// The URL without query and credentials.
    url: String,
    outcome: String,
    /// The number of attempts. Always 1 for an audio file, because calls share its downloads.
    attempts: u32,
    /// The beginning of the response, at most 2,000 characters, if it is text, and its status is an
    /// error or it is a refused document.
    response: Option<String>,
}

impl From<FailedRequest> for FailedRequestView {
    fn from(request: FailedRequest) -> Self {
        let at = Timestamp3339(request.at);
        let FailedRequest {
            id, account, call, kind, method, url, outcome, attempts, response, ..
        } = request;
        Self { id, at, account, call_uuid: call, kind, method, url, outcome, attempts, response }
    }
}

/// A page of failed requests.
#[derive(Serialize, ToSchema)]
struct FailedRequestPage {
    items: Vec<FailedRequestView>,
    next: Option<String>,
}

/// Failed requests with the same URL and kind.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = FailedRequestGroup)]
struct GroupView {
    kind: String,
    url: String,
    requests: u64,
    calls: u64,
    #[schema(value_type = String, format = DateTime)]
    last_at: Timestamp3339,
}

/// Groups of failed requests.
#[derive(Serialize, ToSchema)]
struct FailedRequestGroups {
    items: Vec<GroupView>,
}

fn since(request: &ApiRequest) -> Result<Option<Timestamp>, ApiError> {
    let Some(text) = request.query_text("since") else { return Ok(None) };
    let at: jiff::Timestamp = text.parse().map_err(|_| {
        ApiError::bad_value(
            "since",
            "since must be a time in RFC 3339, such as 2026-03-01T00:00:00Z",
        )
    })?;
    Ok(Some(Timestamp::from_micros(at.as_microsecond())))
}

fn kind(request: &ApiRequest) -> Result<Option<String>, ApiError> {
    let Some(kind) = request.query_text("kind") else { return Ok(None) };
    let is_known = match kind.split_once(' ') {
        Some(_) if kind == FETCH_FILE => true,
        Some(("fetch", of)) => FetchKind::ALL.iter().any(|known| known.as_str() == of),
        Some(("callback", of)) => CallbackKind::ALL.iter().any(|known| known.as_str() == of),
        _ => false,
    };
    let error = || {
        let [fetches, callbacks] = [
            FetchKind::ALL.map(FetchKind::as_str).join(", "),
            CallbackKind::ALL.map(CallbackKind::as_str).join(", "),
        ];
        let message = format!(
            "kind must be `fetch` and one of {fetches} or file, or `callback` and one of {callbacks}, such as `fetch answer`"
        );
        ApiError::bad_value("kind", message)
    };
    if is_known { Ok(Some(kind.to_owned())) } else { Err(error()) }
}

async fn list(request: ApiRequest) -> Result<Response, ApiError> {
    let filter = FailedRequestFilter {
        kind: kind(&request)?,
        url: request.query_text("url").map(str::to_owned),
        since: since(&request)?,
        before: request.cursor(parse_position)?,
    };
    let limit = request.limit()?;
    let store = &request.api().store;
    // The latest request may still be on its way to the store.
    store.flush().await;
    // Such a list reads the requests that the filter leaves out, too.
    let is_search = filter.url.is_some() || filter.kind.is_some();
    let turn = turns::next_if(is_search, &request.main_account()).await;
    let found = store.failed_requests().list(request.scope(), &filter, limit + 1).await;
    drop(turn);
    let found = found.map_err(ApiError::store("list failed requests"))?;
    let page = Page::new(found, limit, |last| position(last.at, last.id));
    let next = request.next_cursor(page.next);
    Ok(ok(&FailedRequestPage { items: page.items.into_iter().map(Into::into).collect(), next }))
}

async fn groups(request: ApiRequest) -> Result<Response, ApiError> {
    let since = since(&request)?.unwrap_or_default();
    request.api().store.flush().await;
    // All failed requests of the account are read.
    let turn = turns::next(&request.main_account()).await;
    let found = request.api().store.failed_requests().groups(request.scope(), since).await;
    drop(turn);
    let found = found.map_err(ApiError::store("count failed requests"))?;
    let view = |group: FailedRequestGroup| {
        let FailedRequestGroup { kind, url, requests, calls, last } = group;
        GroupView { kind, url, requests, calls, last_at: Timestamp3339(last) }
    };
    Ok(ok(&FailedRequestGroups { items: found.into_iter().map(view).collect() }))
}
