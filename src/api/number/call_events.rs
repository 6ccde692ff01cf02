//! `GET /api/v1/calls/{call_uuid}/events/`: the event log of a call as JSON lines, as `offhook
//! replay` reads it. The log of a live call comes from memory, that of an ended call from the
//! store.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, Stream};
use http::{HeaderValue, header};

use super::super::error::ApiError;
use super::super::routes::{Operation, QueryParameter, ResponseSpec};
use super::super::turns;
use super::request::{ApiRequest, NO_CALL};
use super::route::{Route, handler};
use model::{AuthId, CallUuid, Role};
use store::{Scope, Store, StoreError};

const CONTENT_TYPE: &str = "application/x-ndjson; charset=utf-8";

pub(super) const ROUTES: &[Route] = &[Route {
    role: Role::Agent,
    handler: handler!(get),
    operation: Operation::get(
        "/api/v1/calls/{call_uuid}/events/",
        "callEvents",
        "Retrieve the event log of a call, as `offhook replay` reads it",
    )
    .query(&[QueryParameter::one_of(
        "follow",
        &["0", "1", "true", "false"],
        "1: continue with new lines until the call has ended, or the key or session",
    )])
    .responses(&[ResponseSpec::raw(200, "JSON, one object per line", &[CONTENT_TYPE])]),
}];

/// Number of lines per read from the store.
const PAGE: u32 = 1_000;

/// Interval at which the credentials of a client that follows a log are checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

async fn get(request: ApiRequest) -> Result<Response, ApiError> {
    let (api, scope) = (request.api(), request.scope());
    let call: CallUuid = request.id("call_uuid", NO_CALL)?;
    let follow = request.query_flag("follow")?.unwrap_or_default();
    if let Some(lines) = api.live.events(scope, call, follow) {
        let lines = lines.map(|line| Ok::<_, StoreError>(Bytes::from(format!("{line}\n"))));
        return Ok(response(Body::from_stream(lines.take_until(revoked(request)))));
    }
    // The last lines of a call that has just ended may still be on their way to the store.
    api.store.flush().await;
    let record =
        api.store.calls().get(scope, call).await.map_err(ApiError::store("read an event log"))?;
    record.ok_or(ApiError::NotFound(NO_CALL))?;
    let (store, owner) = (api.store.clone(), (scope.clone(), request.main_account()));
    Ok(response(Body::from_stream(stored(store, owner, call))))
}

/// Waits until the key or session of a request is no longer valid, or its role is reduced. A store
/// that can't be read does not end the wait.
async fn revoked(request: ApiRequest) {
    loop {
        tokio::time::sleep(CHECK_INTERVAL).await;
        if request.is_still_authorized().await.is_ok_and(|is_authorized| !is_authorized) {
            return;
        }
    }
}

fn stored(
    store: Store,
    owner: (Scope, AuthId),
    call: CallUuid,
) -> impl Stream<Item = Result<Bytes, StoreError>> {
    stream::try_unfold((store, owner, Some(None)), move |(store, owner, from)| async move {
        let Some(after) = from else { return Ok(None) };
        let turn = turns::next(&owner.1).await;
        let lines = store.calls().events(&owner.0, call, after, PAGE).await?;
        drop(turn);
        let next = lines.last().map(|(seq, _)| Some(*seq));
        let text: Vec<u8> =
            lines.iter().flat_map(|(_, line)| line.bytes().chain([b'\n'])).collect();
        Ok(next.is_some().then(|| (Bytes::from(text), (store, owner, next))))
    })
}

fn response(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
