//! `GET /api/v1/calls/{call_uuid}/events`: a call's event log as JSON lines, what `offhook replay` reads. A live
//! call's comes from memory, with `?follow=1` until it is over; an ended one's from the store.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, Stream};
use http::{HeaderValue, header};

use super::super::routes::{Answer, Content, Kind, Query, Route};
use super::ask::{self, Asked, Fault};
use model::CallUuid;
use store::{Scope, Store, StoreError};

/// What is served.
pub(super) const ROUTES: &[Route] = &[Route {
    method: "GET",
    path: "/api/v1/calls/{call_uuid}/events/",
    id: "callEvents",
    summary: "A call's event log, as `offhook replay` reads it",
    query: &[Query {
        name: "follow",
        what: "1: goes on until the call is over",
        kind: Kind::Words(&["0", "1", "true", "false"]),
    }],
    body: None,
    answers: &[Answer {
        status: 200,
        what: "JSON, an object a line",
        content: Content::Text("application/x-ndjson; charset=utf-8"),
    }],
}];

/// Lines read from the store at once.
const PAGE: u32 = 1_000;

pub(super) async fn log(asked: &Asked, uuid: &str) -> Result<Response, Fault> {
    const NONE: &str = "there is no such call";
    let (api, scope) = (asked.api(), asked.scope());
    let call = uuid.parse::<CallUuid>().map_err(|_| ask::missing(NONE))?;
    let follow = asked.flag("follow")?.unwrap_or_default();
    if let Some(lines) = api.live.events(scope, call, follow) {
        return Ok(answer(Body::from_stream(lines.map(|line| Ok::<_, StoreError>(whole(&line))))));
    }
    // A call that just ended: its last lines may still be on their way.
    api.store.flush().await;
    let record =
        api.store.calls().get(scope, call).await.map_err(ask::store("read an event log"))?;
    record.ok_or_else(|| ask::missing(NONE))?;
    Ok(answer(Body::from_stream(stored(api.store.clone(), scope.clone(), call))))
}

fn stored(
    store: Store,
    scope: Scope,
    call: CallUuid,
) -> impl Stream<Item = Result<Bytes, StoreError>> {
    stream::try_unfold((store, scope, Some(None)), move |(store, scope, from)| async move {
        let Some(after) = from else { return Ok(None) };
        let lines = store.calls().events(&scope, call, after, PAGE).await?;
        let next = lines.last().map(|(seq, _)| Some(*seq));
        let text: Vec<u8> =
            lines.iter().flat_map(|(_, line)| line.bytes().chain([b'\n'])).collect();
        Ok(next.is_some().then(|| (Bytes::from(text), (store, scope, next))))
    })
}

fn whole(line: &str) -> Bytes {
    Bytes::from(format!("{line}\n"))
}

fn answer(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/x-ndjson; charset=utf-8"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
