//! `GET /api/v1/calls/{call_uuid}/events`: a call's event log as JSON lines, what `offhook replay` reads. A live
//! call's comes from memory, with `?follow=1` until it is over; an ended one's from the store.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, Stream};
use http::{HeaderValue, header};

use super::super::Api;
use super::{internal, not_found};
use crate::model::CallUuid;
use crate::store::{Scope, Store, StoreError};

/// Lines read from the store at once.
const PAGE: u32 = 1_000;

pub(super) async fn log(api: &Api, scope: &Scope, uuid: &str, pairs: &[(String, String)]) -> Response {
    const NONE: &str = "there is no such call";
    let Ok(call) = uuid.parse::<CallUuid>() else { return not_found(NONE) };
    let follow = pairs.iter().any(|(name, value)| name == "follow" && matches!(value.as_str(), "1" | "true"));
    if let Some(lines) = api.live.events(scope, call, follow) {
        return answer(Body::from_stream(lines.map(|line| Ok::<_, StoreError>(whole(&line)))));
    }
    // A call that just ended: its last lines may still be on their way.
    api.store.settled().await;
    match api.store.call(scope, call).await {
        Ok(Some(_)) => answer(Body::from_stream(stored(api.store.clone(), scope.clone(), call))),
        Ok(None) => not_found(NONE),
        Err(e) => {
            tracing::warn!(error = %e, "an event log could not be read");
            internal()
        }
    }
}

fn stored(store: Store, scope: Scope, call: CallUuid) -> impl Stream<Item = Result<Bytes, StoreError>> {
    stream::try_unfold((store, scope, Some(None)), move |(store, scope, from)| async move {
        let Some(after) = from else { return Ok(None) };
        let lines = store.events(&scope, call, after, PAGE).await?;
        let next = lines.last().map(|(seq, _)| Some(*seq));
        let text: Vec<u8> = lines.iter().flat_map(|(_, line)| line.bytes().chain([b'\n'])).collect();
        Ok(next.is_some().then(|| (Bytes::from(text), (store, scope, next))))
    })
}

fn whole(line: &str) -> Bytes {
    Bytes::from(format!("{line}\n"))
}

fn answer(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
