//! `GET /api/v1/calls/{call_uuid}/waterfall/`: a call as bars over time, with what was sent and received for each; and a
//! call's whole log, which the console reads, too.

use std::fmt::Write as _;

use axum::response::Response;
use futures_util::StreamExt as _;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::Api;
use super::super::routes::{Answer, Content, Route, of};
use super::Timestamp3339;
use super::ask::{self, Asked, Fault};
use crate::call::waterfall::{self, Waterfall};
use model::CallUuid;
use store::{Scope, StoreError};

/// What is served.
pub(super) const ROUTES: &[Route] = &[Route {
    method: "GET",
    path: "/api/v1/calls/{call_uuid}/waterfall/",
    id: "callWaterfall",
    summary: "A call as a waterfall: what took how long, and what was sent and received for it",
    query: &[],
    body: None,
    answers: &[Answer {
        status: 200,
        what: "Its bars in the order of their beginning; none where its event log is gone",
        content: Content::Json(of::<Shown>),
    }],
}];

/// Lines read from the store at once, and bytes of a log that are looked at.
const LINES: u32 = 1_000;
const BYTES_MAX: usize = 8 << 20;

/// A call as bars over time. Times are microseconds of the call, what lies before its webhook had been read is negative.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CallWaterfall)]
struct Shown {
    #[schema(value_type = String, format = Uuid)]
    call_uuid: CallUuid,
    #[schema(value_type = Option<String>, format = DateTime)]
    started: Option<Timestamp3339>,
    answered_us: Option<i64>,
    ended_us: Option<i64>,
    cause: Option<&'static str>,
    bars: Vec<Bar>,
    /// Bars that were too many.
    left_out: usize,
}

/// Something that took time, or a moment.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CallWaterfallBar)]
struct Bar {
    name: String,
    /// Who took the time: `node`, `graph`, `customer`, `media`, `instruction`, `person`.
    who: &'static str,
    from_us: i64,
    /// None: it never came to its end.
    to_us: Option<i64>,
    /// How it ended.
    note: String,
    failed: bool,
    /// Of a part the name of the bar that it is in: the one before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    of: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    bodies: Vec<Body>,
}

/// What was sent or received. Tokens, signatures and passwords are in none.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CallWaterfallBody)]
struct Body {
    /// `sent` or `received`.
    way: &'static str,
    /// The request's line, or the answer's status.
    head: String,
    /// `json`, `form` (a name and its value a line), `xml`, `sdp`, or `none`.
    kind: &'static str,
    /// At most 4 KiB.
    text: String,
    /// Bytes that it had, where it is cut.
    cut_of: Option<usize>,
    /// `whole`; `rebuilt` of what the event log knows; `not_kept`.
    kept: &'static str,
}

impl Body {
    fn of(body: waterfall::Body) -> Self {
        let waterfall::Body { way, head, kind, text, cut_of, kept } = body;
        Self { way: way.as_str(), head, kind: kind.as_str(), text, cut_of, kept: kept.as_str() }
    }
}

impl Bar {
    fn of(bar: waterfall::Bar, within: Option<&str>) -> Vec<Self> {
        let waterfall::Bar { what, name, from_us, to_us, note, failed, span: _, parts, bodies } =
            bar;
        let parts: Vec<Self> =
            parts.into_iter().flat_map(|part| Self::of(part, Some(&name))).collect();
        let bodies = bodies.into_iter().map(Body::of).collect();
        let of = within.map(str::to_owned);
        let whole = Self { name, who: what.as_str(), from_us, to_us, note, failed, of, bodies };
        std::iter::once(whole).chain(parts).collect()
    }
}

pub(super) async fn get(asked: &Asked, uuid: &str) -> Result<Response, Fault> {
    const NONE: &str = "there is no such call";
    let (api, scope) = (asked.api(), asked.scope());
    let call_uuid = uuid.parse::<CallUuid>().map_err(|_| ask::missing(NONE))?;
    if api.live.get(scope, call_uuid).is_none() {
        api.store.flush().await;
        let record =
            api.store.calls().get(scope, call_uuid).await.map_err(ask::store("read a call"))?;
        record.ok_or_else(|| ask::missing(NONE))?;
    }
    let log = whole_log(api, scope, call_uuid).await.map_err(ask::store("read an event log"))?;
    let fall = waterfall_of(api, scope, call_uuid, &log)
        .await
        .map_err(ask::store("read a call's callbacks"))?;
    let shown = match fall {
        Some(fall) => Shown {
            call_uuid,
            started: fall.started.map(Timestamp3339),
            answered_us: fall.answered_us,
            ended_us: fall.ended_us,
            cause: fall.cause,
            bars: fall.bars.into_iter().flat_map(|bar| Bar::of(bar, None)).collect(),
            left_out: fall.left_out,
        },
        None => Shown {
            call_uuid,
            started: None,
            answered_us: None,
            ended_us: None,
            cause: None,
            bars: Vec::new(),
            left_out: 0,
        },
    };
    Ok(ask::ok(&shown))
}

/// A call's log drawn, with what its callbacks carried; `None`: there is none, or it can't be read.
///
/// # Errors
/// The store's.
pub(crate) async fn waterfall_of(
    api: &Api,
    scope: &Scope,
    call: CallUuid,
    log: &str,
) -> Result<Option<Waterfall>, StoreError> {
    let outbox = api.store.outbox().of_call(scope, call).await?;
    Ok(Waterfall::with(log.as_bytes(), &outbox).ok())
}

/// A call's log as it is kept, up to a bound; empty where there is none.
///
/// # Errors
/// The store's.
pub(crate) async fn whole_log(
    api: &Api,
    scope: &Scope,
    call: CallUuid,
) -> Result<String, StoreError> {
    let mut text = String::new();
    if let Some(mut lines) = api.live.events(scope, call, false) {
        while let Some(line) = lines.next().await {
            let _ = writeln!(text, "{}", line.trim_end());
        }
        return Ok(text);
    }
    let mut after = None;
    while text.len() < BYTES_MAX {
        let lines = api.store.calls().events(scope, call, after, LINES).await?;
        let Some((last, _)) = lines.last() else { break };
        after = Some(*last);
        for (_, line) in &lines {
            let _ = writeln!(text, "{}", line.trim_end());
        }
    }
    Ok(text)
}
