//! `GET /api/v1/calls/`: the scope's calls, newest first: on the first page those that are up, then those that ended.
//! `GET /api/v1/calls/{call_uuid}/`: one of them, with what was found in its documents.

use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::routes::{Answer, Content, Kind, Query, Route, of};
use super::super::{Glance, LiveCall, LiveFilter, LiveStatus};
use super::Timestamp3339;
use super::ask::{self, Asked, Fault};
use model::{AuthId, CallQuality, CallUuid, Direction, Timestamp};
use store::{CallFilter, CallRecord, Compare};
use xml::ast::Finding;

/// What is served.
pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "GET",
        path: "/api/v1/calls/",
        id: "calls",
        summary: "Calls, newest first: those that are up, then those that ended",
        query: &[
            Query { name: "limit", what: "Items of a page (50)", kind: Kind::Integer(1, 200) },
            Query {
                name: "cursor",
                what: "Where the page before ended: its `next`",
                kind: Kind::Text,
            },
            Query {
                name: "direction",
                what: "Who began them",
                kind: Kind::Words(&["inbound", "outbound"]),
            },
            Query {
                name: "from",
                what: "Who calls: a number, or an endpoint's address",
                kind: Kind::Text,
            },
            Query { name: "to", what: "Who is called", kind: Kind::Text },
            Query {
                name: "status",
                what: "How far they are",
                kind: Kind::Words(&["queued", "ringing", "in-progress", "ended", "live"]),
            },
            Query { name: "account", what: "A subaccount's only", kind: Kind::Text },
            Query {
                name: "endedAfter",
                what: "Ended then or later (RFC 3339); none that are up",
                kind: Kind::Text,
            },
            Query {
                name: "endedBefore",
                what: "Ended before then (RFC 3339); none that are up",
                kind: Kind::Text,
            },
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
        answers: &[Answer {
            status: 200,
            what: "The call",
            content: Content::Json(of::<Detailed<'static>>),
        }],
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
    /// Whose call it is.
    #[schema(value_type = String)]
    account: AuthId,
    /// The call that dialled it, or that its order named.
    #[schema(value_type = Option<String>, format = Uuid)]
    parent_call_uuid: Option<CallUuid>,
    /// `queued`, `ringing`, `in-progress` or `ended`.
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
    /// Who ended it, in Plivo's word.
    hangup_source: Option<String>,
}

/// A call with what is only of interest of one.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
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
    /// Meta's id of it; when the call has ended.
    whatsapp_call_id: Option<String>,
}

/// Where a page begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behind {
    /// Behind this one of those that are up.
    Live((Timestamp, CallUuid)),
    /// Behind this one of those that ended.
    Ended((Timestamp, CallUuid)),
}

/// Which calls are asked for.
struct Wanted {
    /// None: none that are up.
    live: Option<LiveWanted>,
    /// None: none that ended.
    ended: Option<CallFilter>,
}

/// Which of those that are up.
struct LiveWanted {
    filter: LiveFilter,
    /// Only those that are that far.
    status: Option<LiveStatus>,
}

impl LiveWanted {
    fn holds(&self, call: &LiveCall) -> bool {
        let LiveCall { call: id, account, direction, from, to, started, .. } = call;
        let glance =
            Glance { call: *id, account, direction: *direction, from, to, started: *started };
        self.status.is_none_or(|status| status == call.status) && self.filter.holds(&glance)
    }
}

impl Wanted {
    fn read(asked: &Asked) -> Result<Self, Fault> {
        let text = |name: &str| asked.value(name).filter(|text| !text.is_empty());
        let party = |name: &str| {
            text(name).map(|party| ask::digits(party).map_or(party.to_owned(), String::from))
        };
        let (from, to) = (party("from"), party("to"));
        let subaccount = text("account").map(AuthId::from);
        let direction = match text("direction") {
            None => None,
            Some("inbound") => Some(Direction::Inbound),
            Some("outbound") => Some(Direction::Outbound),
            Some(_) => return Err(ask::bad("direction", "direction must be inbound or outbound")),
        };
        let mut ended = Vec::new();
        for (name, compare) in
            [("endedAfter", Compare::GreaterEqual), ("endedBefore", Compare::Less)]
        {
            if let Some(text) = text(name) {
                let at = text
                    .parse::<jiff::Timestamp>()
                    .map_err(|_| ask::bad(name, &format!("{name} must be RFC 3339")))?;
                ended.push((compare, Timestamp::from_micros(at.as_microsecond())));
            }
        }
        let (up, status, over) = match text("status") {
            None => (ended.is_empty(), None, true),
            Some("ended") => (false, None, true),
            Some("live") => (true, None, false),
            Some("queued") => (true, Some(LiveStatus::Queued), false),
            Some("ringing") => (true, Some(LiveStatus::Ringing), false),
            Some("in-progress") => (true, Some(LiveStatus::InProgress), false),
            Some(_) => {
                return Err(ask::bad(
                    "status",
                    "status must be queued, ringing, in-progress, ended or live",
                ));
            }
        };
        let live = LiveFilter {
            queued: false,
            direction,
            from: from.clone(),
            to: to.clone(),
            subaccount: subaccount.clone(),
        };
        Ok(Self {
            live: (up && ended.is_empty()).then_some(LiveWanted { filter: live, status }),
            ended: over.then(|| CallFilter {
                from,
                to,
                direction,
                subaccount,
                ended,
                ..CallFilter::default()
            }),
        })
    }
}

pub(super) async fn list(asked: &Asked) -> Result<Response, Fault> {
    let (api, scope) = (asked.api(), asked.scope());
    let limit = asked.limit()?;
    let behind = asked.cursor(cursor)?;
    let wanted = Wanted::read(asked)?;
    let mut up = match (&wanted.live, &behind) {
        (Some(wanted), None | Some(Behind::Live(_))) => {
            let mut up = api.live.list(scope);
            up.retain(|call| wanted.holds(call));
            up
        }
        (None, _) | (_, Some(Behind::Ended(_))) => Vec::new(),
    };
    if let Some(Behind::Live(last)) = behind {
        up.retain(|call| (call.started, call.call) < last);
    }
    up.sort_by_key(|call| std::cmp::Reverse((call.started, call.call)));
    let more_up = up.len() > limit as usize;
    up.truncate(limit as usize);
    let mut items: Vec<Shown> = up.iter().map(Shown::live).collect();
    let last_up = up.last().map(|call| format!("up.{}", ask::place(call.started, call.call)));
    let filter = match wanted.ended {
        Some(filter) if !more_up => filter,
        _ => return Ok(ask::ok(&Page { items, next: asked.next(last_up.filter(|_| more_up)) })),
    };
    // A call that just ended: its record may still be on its way.
    api.store.flush().await;
    let before = match behind {
        Some(Behind::Ended(last)) => Some(last),
        None | Some(Behind::Live(_)) => None,
    };
    let filter = CallFilter { before, ..filter };
    // One more than is shown tells whether there are more.
    let room = limit - u32::try_from(items.len()).unwrap_or(limit);
    let ended = api.store.calls().newest(scope, &filter, room + 1).await;
    let mut ended = ended.map_err(ask::store("list calls"))?;
    let more = ended.len() > room as usize;
    ended.truncate(room as usize);
    let last_ended = ended.last().map(|call| ask::place(call.start.started, call.start.call));
    items.extend(ended.iter().map(Shown::ended));
    // A page full of calls that are up leads to the first that ended.
    Ok(ask::ok(&Page { items, next: asked.next(last_ended.or(last_up).filter(|_| more)) }))
}

/// One call: a live one as far as it is known, an ended one with its record's remarks and findings.
pub(super) async fn get(asked: &Asked, uuid: &str) -> Result<Response, Fault> {
    const NONE: &str = "there is no such call";
    let (api, scope) = (asked.api(), asked.scope());
    let call = uuid.parse::<CallUuid>().map_err(|_| ask::missing(NONE))?;
    if let Some(live) = api.live.get(scope, call) {
        let detailed = Detailed {
            call: Shown::live(&live),
            remarks: &[],
            findings: &[],
            quality: None,
            whatsapp_call_id: None,
        };
        return Ok(ask::ok(&detailed));
    }
    // A call that just ended: its record may still be on its way.
    api.store.flush().await;
    let record = api.store.calls().get(scope, call).await.map_err(ask::store("read a call"))?;
    let record = record.ok_or_else(|| ask::missing(NONE))?;
    let (remarks, findings): (&[String], &[Finding]) =
        record.end.as_ref().map_or((&[], &[]), |end| (&end.remarks, &end.findings));
    let quality = record.end.as_ref().and_then(|end| end.quality);
    let whatsapp_call_id = record.start.wacid.as_ref().map(ToString::to_string);
    Ok(ask::ok(&Detailed {
        call: Shown::ended(&record),
        remarks,
        findings,
        quality,
        whatsapp_call_id,
    }))
}

/// Where the page before ended: its last call's beginning and UUID.
fn cursor(text: &str) -> Option<Behind> {
    match text.strip_prefix("up.") {
        Some(text) => ask::placed(text).map(Behind::Live),
        None => ask::placed(text).map(Behind::Ended),
    }
}

impl Shown {
    fn live(call: &LiveCall) -> Self {
        Self {
            call_uuid: call.call,
            direction: call.direction.as_str(),
            from: call.from.clone(),
            to: call.to.clone(),
            caller_name: call.caller_name.clone(),
            account: call.account.clone(),
            parent_call_uuid: call.parent_call,
            status: call.status.as_str(),
            started_at: Timestamp3339(call.started),
            answered_at: call.answered.map(Timestamp3339),
            ended_at: None,
            duration_seconds: None,
            bill_seconds: None,
            cause: None,
            hangup_source: None,
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
            account: start.account.clone(),
            parent_call_uuid: start.parent_call,
            status: "ended",
            started_at: Timestamp3339(start.started),
            answered_at: end.and_then(|e| e.answered).map(Timestamp3339),
            ended_at: end.map(|e| Timestamp3339(e.ended)),
            duration_seconds: end.map(|e| e.duration_secs),
            bill_seconds: end.map(|e| e.bill_secs),
            cause: end.map(|e| e.cause.clone()),
            hangup_source: end.map(|e| e.hangup_source.clone()),
        }
    }
}
