//! `GET /api/v1/calls/`: the scope's calls, newest first: on the first page those that are up, then those that ended.
//! `GET /api/v1/calls/{call_uuid}/`: one of them, with what was found in its documents.

use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::LiveCall;
use super::super::routes::{Answer, Content, Kind, Query, Route, of};
use super::Timestamp3339;
use super::ask::{self, Asked, Fault};
use crate::model::{CallQuality, CallUuid, Timestamp};
use crate::store::{CallFilter, CallRecord};
use crate::xml::ast::Finding;

/// What is served.
pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "GET",
        path: "/api/v1/calls/",
        id: "calls",
        summary: "Calls, newest first: those that are up, then those that ended",
        query: &[
            Query { name: "limit", what: "Items of a page (50)", kind: Kind::Integer(1, 200) },
            Query { name: "cursor", what: "Where the page before ended: its `next`", kind: Kind::Text },
        ],
        body: None,
        answers: &[Answer { status: 200, what: "A page", content: Content::Json(of::<Page>) }],
    },
    Route {
        method: "GET",
        path: "/api/v1/calls/{call_uuid}/",
        id: "call",
        summary: "One call, with its remarks and what the linter found in its documents",
        query: &[],
        body: None,
        answers: &[Answer { status: 200, what: "The call", content: Content::Json(of::<Detailed<'static>>) }],
    },
];

/// A page of calls.
#[derive(Serialize, ToSchema)]
#[schema(as = Calls)]
pub(super) struct Page {
    items: Vec<Shown>,
    next: Option<String>,
}

/// A call as our API shows it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Call)]
struct Shown {
    #[schema(value_type = String, format = Uuid)]
    call_uuid: CallUuid,
    direction: &'static str,
    from: String,
    to: String,
    caller_name: String,
    status: &'static str,
    #[schema(value_type = String, format = DateTime)]
    started_at: Timestamp3339,
    #[schema(value_type = Option<String>, format = DateTime)]
    answered_at: Option<Timestamp3339>,
    #[schema(value_type = Option<String>, format = DateTime)]
    ended_at: Option<Timestamp3339>,
    duration_seconds: Option<u64>,
    bill_seconds: Option<u64>,
    cause: Option<String>,
}

/// A call with what is only of interest of one.
#[derive(Serialize, ToSchema)]
#[schema(as = CallDetail)]
pub(super) struct Detailed<'a> {
    #[serde(flatten)]
    call: Shown,
    /// What happened and what to do about it; when the call has ended.
    #[schema(value_type = Vec<String>)]
    remarks: &'a [String],
    /// The linter's findings about the call's documents; when the call has ended.
    #[schema(value_type = Vec<Finding>)]
    findings: &'a [Finding],
    /// How its sound got through: loss, jitter, round trip, an estimate of what was heard; when the call has ended.
    quality: Option<CallQuality>,
}

pub(super) async fn list(asked: &Asked) -> Result<Response, Fault> {
    let (api, scope) = (asked.api(), asked.scope());
    let limit = asked.limit()?;
    let before = asked.cursor(cursor)?;
    let up = if before.is_none() { api.live.list(scope) } else { Vec::new() };
    let mut items: Vec<Shown> = up.iter().map(Shown::live).collect();
    items.truncate(limit as usize);
    // A call that just ended: its record may still be on its way.
    api.store.settled().await;
    let filter = CallFilter { before, ..CallFilter::default() };
    // One more than is shown tells whether there are more.
    let wanted = limit - u32::try_from(items.len()).unwrap_or(limit);
    let ended = api.store.first_calls(scope, &filter, wanted + 1).await;
    let mut ended = ended.map_err(ask::store("list calls"))?;
    let more = ended.len() > wanted as usize;
    ended.truncate(wanted as usize);
    // A page full of calls that are up leads to the first that ended.
    let next =
        ended.last().map_or((i64::MAX, CallUuid(uuid::Uuid::nil())), |c| (c.start.started.micros(), c.start.call));
    items.extend(ended.iter().map(Shown::ended));
    Ok(ask::ok(&Page { items, next: more.then(|| format!("{}.{}", next.0, next.1)) }))
}

/// One call: a live one as far as it is known, an ended one with its record's remarks and findings.
pub(super) async fn get(asked: &Asked, uuid: &str) -> Result<Response, Fault> {
    const NONE: &str = "there is no such call";
    let (api, scope) = (asked.api(), asked.scope());
    let call = uuid.parse::<CallUuid>().map_err(|_| ask::missing(NONE))?;
    if let Some(live) = api.live.get(scope, call) {
        let detailed = Detailed { call: Shown::live(&live), remarks: &[], findings: &[], quality: None };
        return Ok(ask::ok(&detailed));
    }
    // A call that just ended: its record may still be on its way.
    api.store.settled().await;
    let record = api.store.call(scope, call).await.map_err(ask::store("read a call"))?;
    let record = record.ok_or_else(|| ask::missing(NONE))?;
    let (remarks, findings): (&[String], &[Finding]) =
        record.end.as_ref().map_or((&[], &[]), |end| (&end.remarks, &end.findings));
    let quality = record.end.as_ref().and_then(|end| end.quality);
    Ok(ask::ok(&Detailed { call: Shown::ended(&record), remarks, findings, quality }))
}

/// Where the page before ended: its last call's beginning and UUID.
fn cursor(text: &str) -> Option<(Timestamp, CallUuid)> {
    let (micros, call) = text.split_once('.')?;
    Some((Timestamp::from_micros(micros.parse().ok()?), call.parse().ok()?))
}

impl Shown {
    fn live(call: &LiveCall) -> Self {
        Self {
            call_uuid: call.call,
            direction: call.direction.as_str(),
            from: call.from.clone(),
            to: call.to.clone(),
            caller_name: call.caller_name.clone(),
            status: call.status.as_str(),
            started_at: Timestamp3339(call.started),
            answered_at: None,
            ended_at: None,
            duration_seconds: None,
            bill_seconds: None,
            cause: None,
        }
    }

    fn ended(record: &CallRecord) -> Self {
        let (start, end) = (&record.start, record.end.as_ref());
        Self {
            call_uuid: start.call,
            direction: start.direction.as_str(),
            from: start.from.clone(),
            to: start.to.clone(),
            caller_name: start.caller_name.clone(),
            status: "ended",
            started_at: Timestamp3339(start.started),
            answered_at: end.and_then(|e| e.answered).map(Timestamp3339),
            ended_at: end.map(|e| Timestamp3339(e.ended)),
            duration_seconds: end.map(|e| e.duration_secs),
            bill_seconds: end.map(|e| e.bill_secs),
            cause: end.map(|e| e.cause.clone()),
        }
    }
}
