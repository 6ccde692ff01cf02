//! `GET /api/v1/calls/` and `GET /api/v1/calls/{call_uuid}/`: live and ended calls.

use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::error::ApiError;
use super::super::live::name_silent;
use super::super::routes::{Operation, QueryParameter, ResponseSpec};
use super::super::{CallSummary, LiveCall, LiveFilter, LiveList, LiveStatus, turns};
use super::request::{ApiRequest, NO_CALL, parse_number, parse_position, position};
use super::response::{Timestamp3339, ok};
use super::route::{CURSOR, LIMIT, Route, handler};
use model::{AuthId, CallQuality, CallUuid, Direction, Role, Timestamp};
use store::{CallFilter, CallRecord, Compare, node_of_owner};
use xml::ast::Finding;

pub(super) const ROUTES: &[Route] = &[
    Route {
        role: Role::Agent,
        handler: handler!(list),
        operation: Operation::get(
            "/api/v1/calls/",
            "calls",
            "List calls, newest first: live calls, then ended calls",
        )
        .query(&[
            LIMIT,
            CURSOR,
            QueryParameter::one_of("direction", &["inbound", "outbound"], "Direction of the calls"),
            QueryParameter::text("from", "Caller: a number or the address of an endpoint"),
            QueryParameter::text("to", "Callee"),
            QueryParameter::one_of(
                "status",
                &["queued", "ringing", "in-progress", "ended", "live"],
                "Status; live stands for queued, ringing and in-progress",
            ),
            QueryParameter::text("account", "Only calls of this subaccount"),
            QueryParameter::text(
                "endedAfter",
                "Only calls that ended at this time or later (RFC 3339)",
            ),
            QueryParameter::text(
                "endedBefore",
                "Only calls that ended before this time (RFC 3339)",
            ),
        ])
        .responses(&[ResponseSpec::json::<CallList>(200, "A page of calls")]),
    },
    Route {
        role: Role::Agent,
        handler: handler!(get),
        operation: Operation::get(
            "/api/v1/calls/{call_uuid}/",
            "call",
            "Retrieve a call with its remarks and the findings about its documents",
        )
        .responses(&[ResponseSpec::json::<CallDetail<'static>>(200, "The call")]),
    },
];

/// A page of calls.
#[derive(Serialize, ToSchema)]
#[schema(as = Calls)]
struct CallList {
    items: Vec<CallView>,
    next: Option<String>,
}

/// A call.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Call)]
struct CallView {
    #[schema(value_type = String, format = Uuid)]
    call_uuid: CallUuid,
    direction: &'static str,
    from: String,
    to: String,
    caller_name: String,
    /// The account that the call belongs to.
    #[schema(value_type = String)]
    account: AuthId,
    /// The call whose `Dial` placed this one, or the parent given in the request.
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
    /// Seconds from the start, rounded up. Those of an unanswered call are the ones in which it rang;
    /// Plivo's `call_duration` is 0 then.
    duration_seconds: Option<u64>,
    /// Seconds from the answer, rounded up. 0 if the call was not answered.
    bill_seconds: Option<u64>,
    cause: Option<String>,
    /// Who ended the call, in Plivo's words.
    hangup_source: Option<String>,
}

/// A call with the details that lists leave out.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CallDetail)]
struct CallDetail<'a> {
    #[serde(flatten)]
    call: CallView,
    /// The node of the call, by its `cluster.node_id`. For an ended call, the node at its end.
    node: &'a str,
    /// Faults and their remedies; empty until the call has ended.
    #[schema(value_type = Vec<String>)]
    remarks: &'a [String],
    /// Findings of the linter about the call's documents; empty until the call has ended.
    #[schema(value_type = Vec<Finding>)]
    findings: &'a [Finding],
    /// Quality of the audio: loss, jitter, round trip, estimated MOS; null until the call has
    /// ended. A direction with fewer than 50 packets is null, because these are too few to measure.
    quality: Option<CallQuality>,
    /// Meta's id of the call; null until the call has ended.
    whatsapp_call_id: Option<String>,
}

/// The last call of the previous page: its start and its UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Live((Timestamp, CallUuid)),
    Ended((Timestamp, CallUuid)),
}

/// The calls that a request selects.
struct Filter {
    /// The filter for live calls. `None` omits them.
    live: Option<LiveCallFilter>,
    /// The filter for ended calls. `None` omits them.
    ended: Option<CallFilter>,
}

struct LiveCallFilter {
    filter: LiveFilter,
    status: Option<LiveStatus>,
}

impl LiveCallFilter {
    fn matches(&self, call: &LiveCall) -> bool {
        let LiveCall { call: id, account, direction, from, to, started, .. } = call;
        let summary =
            CallSummary { call: *id, account, direction: *direction, from, to, started: *started };
        self.status.is_none_or(|status| status == call.status) && self.filter.matches(&summary)
    }
}

impl Filter {
    fn parse(request: &ApiRequest) -> Result<Self, ApiError> {
        let text = |name: &str| request.query_text(name);
        let (from, to) = (party(request, "from")?, party(request, "to")?);
        let subaccount = match text("account") {
            None => None,
            Some(text) => {
                let message = "account must be an auth id: SA and 18 of A-Z and 0-9";
                let error = || ApiError::bad_value("account", message);
                Some(AuthId::parse(text).ok_or_else(error)?)
            }
        };
        let direction = match text("direction") {
            None => None,
            Some("inbound") => Some(Direction::Inbound),
            Some("outbound") => Some(Direction::Outbound),
            Some(_) => {
                return Err(ApiError::bad_value(
                    "direction",
                    "direction must be inbound or outbound",
                ));
            }
        };
        let mut ended = Vec::new();
        for (name, compare) in
            [("endedAfter", Compare::GreaterEqual), ("endedBefore", Compare::Less)]
        {
            if let Some(text) = text(name) {
                let at = text.parse::<jiff::Timestamp>().map_err(|_| {
                    ApiError::bad_value(
                        name,
                        format!("{name} must be a time in RFC 3339, such as 2026-03-01T00:00:00Z"),
                    )
                })?;
                ended.push((compare, Timestamp::from_micros(at.as_microsecond())));
            }
        }
        let (has_live, status, has_ended) = match text("status") {
            None => (ended.is_empty(), None, true),
            Some("ended") => (false, None, true),
            Some("live") => (true, None, false),
            Some("queued") => (true, Some(LiveStatus::Queued), false),
            Some("ringing") => (true, Some(LiveStatus::Ringing), false),
            Some("in-progress") => (true, Some(LiveStatus::InProgress), false),
            Some(_) => {
                return Err(ApiError::bad_value(
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
            live: (has_live && ended.is_empty()).then_some(LiveCallFilter { filter: live, status }),
            ended: has_ended.then(|| CallFilter {
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

/// Parses a filter for a caller or callee.
fn party(request: &ApiRequest, name: &'static str) -> Result<Option<String>, ApiError> {
    let Some(text) = request.query_text(name) else { return Ok(None) };
    if let Some(number) = parse_number(text) {
        return Ok(Some(number.into()));
    }
    // The address of an endpoint, or a caller without a number: a BSUID like `IN.2130`, or none.
    if text.contains(['@', '.', ':']) || text == "anonymous" {
        return Ok(Some(text.to_owned()));
    }
    let message = format!(
        "{name} must be a phone number with its country code, or the address of an endpoint"
    );
    Err(ApiError::bad_value(name, message))
}

async fn list(request: ApiRequest) -> Result<Response, ApiError> {
    let (api, scope) = (request.api(), request.scope());
    let limit = request.limit()?;
    let after = request.cursor(parse_cursor)?;
    let filter = Filter::parse(&request)?;
    let (mut live, silent) = match (&filter.live, &after) {
        (Some(filter), None | Some(After::Live(_))) => {
            let LiveList { mut calls, silent } = api.live.list_all(scope).await;
            calls.retain(|call| filter.matches(call));
            (calls, silent)
        }
        (None, _) | (_, Some(After::Ended(_))) => Default::default(),
    };
    if let Some(After::Live(last)) = after {
        live.retain(|call| (call.started, call.call) < last);
    }
    live.sort_by_key(|call| std::cmp::Reverse((call.started, call.call)));
    let has_more_live = live.len() > limit as usize;
    live.truncate(limit as usize);
    let mut items: Vec<CallView> = live.iter().map(CallView::live).collect();
    let last_live = live.last().map(|call| format!("up.{}", position(call.started, call.call)));
    let ended = match filter.ended {
        Some(filter) if !has_more_live => filter,
        _ => {
            let next = request.next_cursor(last_live.filter(|_| has_more_live));
            return Ok(answer(CallList { items, next }, &silent));
        }
    };
    // The record of a call that has just ended may still be on its way to the store.
    api.store.flush().await;
    let before = match after {
        Some(After::Ended((started, call))) => Some((started.micros(), call)),
        None | Some(After::Live(_)) => None,
    };
    let filter = CallFilter { before, ..ended };
    // One extra call is read to detect whether another page follows.
    let room = limit - u32::try_from(items.len()).unwrap_or(limit);
    let turn = turns::next_if(filter.takes_long(), &request.main_account()).await;
    let ended = api.store.calls().first(scope, &filter, room + 1).await;
    drop(turn);
    let mut ended = ended.map_err(ApiError::store("list calls"))?;
    let has_more = ended.len() > room as usize;
    ended.truncate(room as usize);
    let last_ended = ended.last().map(|call| position(call.start.started, call.start.call));
    items.extend(ended.iter().map(CallView::ended));
    // After a page that live calls fill, the next one starts with the first ended call.
    let next = request.next_cursor(last_ended.or(last_live).filter(|_| has_more));
    Ok(answer(CallList { items, next }, &silent))
}

/// Builds the response. `silent` are the nodes whose live calls are missing.
fn answer(list: CallList, silent: &[String]) -> Response {
    let mut response = ok(&list);
    name_silent(&mut response, silent);
    response
}

async fn get(request: ApiRequest) -> Result<Response, ApiError> {
    let (api, scope) = (request.api(), request.scope());
    let call: CallUuid = request.id("call_uuid", NO_CALL)?;
    if let Some(live) = api.live.get(scope, call) {
        let detail = CallDetail {
            call: CallView::live(&live),
            node: api.operator.node_id(),
            remarks: &[],
            findings: &[],
            quality: None,
            whatsapp_call_id: None,
        };
        return Ok(ok(&detail));
    }
    // The record of a call that has just ended may still be on its way to the store.
    api.store.flush().await;
    let record =
        api.store.calls().get(scope, call).await.map_err(ApiError::store("read a call"))?;
    let record = record.ok_or(ApiError::NotFound(NO_CALL))?;
    let (remarks, findings): (&[String], &[Finding]) =
        record.end.as_ref().map_or((&[], &[]), |end| (&end.remarks, &end.findings));
    let quality = record.end.as_ref().and_then(|end| end.quality).map(CallQuality::conclusive);
    let whatsapp_call_id = record.start.wacid.as_ref().map(ToString::to_string);
    Ok(ok(&CallDetail {
        call: CallView::ended(&record),
        node: node_of_owner(&record.start.node_id),
        remarks,
        findings,
        quality,
        whatsapp_call_id,
    }))
}

fn parse_cursor(text: &str) -> Option<After> {
    match text.strip_prefix("up.") {
        Some(text) => parse_position(text).map(After::Live),
        None => parse_position(text).map(After::Ended),
    }
}

impl CallView {
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
