//! Calls: retrieve, list, live, hang up (`plivo-call-api.md` §2.2–2.6).

use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::{Api, LiveCall, LiveFilter, LiveStatus, error};
use super::No;
use super::paging::{self, Meta};
use super::query::{self, Pairs};
use model::{CallUuid, Direction, Timestamp};
use store::{CallEnd, CallFilter, CallRecord, CallStart, Scope};

const NOT_FOUND: &str = "call not found";

/// An ended call, as Plivo describes one; the last two fields are ours.
#[derive(Serialize, ToSchema)]
#[schema(as = PlivoCall)]
pub(super) struct Cdr<'a> {
    answer_time: Option<String>,
    bill_duration: u64,
    billed_duration: u64,
    call_direction: &'static str,
    call_duration: u64,
    call_state: &'static str,
    #[schema(value_type = String, format = Uuid)]
    call_uuid: CallUuid,
    #[schema(value_type = Option<String>, format = Uuid)]
    conference_uuid: Option<uuid::Uuid>,
    end_time: String,
    from_number: &'a str,
    hangup_cause_code: u16,
    hangup_cause_name: &'a str,
    hangup_source: &'a str,
    initiation_time: String,
    #[schema(value_type = Option<String>, format = Uuid)]
    parent_call_uuid: Option<CallUuid>,
    resource_uri: String,
    to_number: &'a str,
    total_amount: &'static str,
    total_rate: &'static str,
    stir_verification: &'static str,
    stir_attestation: &'static str,
    voice_network_group: &'static str,
    source_ip: &'static str,
    cnam_lookup: &'static str,
    call_type: &'static str,
    whatsapp_call_id: Option<&'a str>,
}

impl<'a> Cdr<'a> {
    fn of(scope: &Scope, start: &'a CallStart, end: &'a CallEnd) -> Self {
        Self {
            answer_time: end.answered.map(Timestamp::plivo_cdr),
            bill_duration: end.bill_secs,
            billed_duration: end.bill_secs,
            call_direction: start.direction.as_str(),
            call_duration: end.answered.map_or(0, |_| end.duration_secs),
            call_state: state(end),
            call_uuid: start.call,
            conference_uuid: end.conference,
            end_time: end.ended.plivo_cdr(),
            from_number: &start.from,
            hangup_cause_code: end.hangup_code,
            hangup_cause_name: &end.hangup_name,
            hangup_source: &end.hangup_source,
            initiation_time: start.started.plivo_cdr(),
            parent_call_uuid: start.parent_call,
            resource_uri: format!("{}{}/", list_uri(scope), start.call),
            to_number: &start.to,
            total_amount: "0.00000",
            total_rate: "0.00000",
            stir_verification: "Not Applicable",
            stir_attestation: "",
            voice_network_group: "WhatsApp",
            source_ip: "",
            cnam_lookup: "",
            call_type: start.call_type.as_str(),
            whatsapp_call_id: start.wacid.as_ref().map(|w| w.as_str()),
        }
    }
}

/// `call_state` (§2.2), in the words of `CallStatus` (`plivo-callbacks.md` §1.3).
fn state(end: &CallEnd) -> &'static str {
    match end.hangup_code {
        _ if end.answered.is_some() => "ANSWER",
        1000..=1999 => "CANCEL",
        3010 | 3020 => "BUSY",
        3000 | 6010 => "NOANSWER",
        3070 => "TIMEOUT",
        _ => "FAILED",
    }
}

/// A call that is up (§2.4).
#[derive(Serialize, ToSchema)]
#[schema(as = PlivoLiveCall)]
pub(super) struct Live<'a> {
    call_status: &'static str,
    #[schema(value_type = String, format = Uuid)]
    call_uuid: CallUuid,
    caller_name: &'a str,
    direction: &'static str,
    from: &'a str,
    to: &'a str,
    #[schema(value_type = String, format = Uuid)]
    request_uuid: CallUuid,
    #[schema(value_type = Option<String>, format = Uuid)]
    parent_call_uuid: Option<CallUuid>,
    session_start: String,
    stir_verification: &'static str,
    stir_attestation: &'static str,
}

impl<'a> Live<'a> {
    fn of(call: &'a LiveCall) -> Self {
        Self {
            call_status: call.status.as_str(),
            call_uuid: call.call,
            caller_name: &call.caller_name,
            direction: call.direction.as_str(),
            from: &call.from,
            to: &call.to,
            request_uuid: call.call,
            parent_call_uuid: call.parent_call,
            session_start: call.started.plivo_micros(),
            stir_verification: "Not Applicable",
            stir_attestation: "",
        }
    }
}

/// What `status=` asks for; `None`: ended calls.
enum Status {
    Live,
    Queued,
}

impl Status {
    fn asked(pairs: &Pairs) -> Result<Option<Self>, No> {
        match query::value(pairs, "status") {
            None => Ok(None),
            Some("live") => Ok(Some(Self::Live)),
            Some("queued") => Ok(Some(Self::Queued)),
            Some(_) => Err(No::Bad("status must be live or queued".to_owned())),
        }
    }

    fn holds(&self, call: &LiveCall) -> bool {
        match self {
            Self::Live => call.status != LiveStatus::Queued,
            Self::Queued => call.status == LiveStatus::Queued,
        }
    }
}

/// `GET Call/{uuid}/`.
pub(super) async fn retrieve(
    api: &Api,
    scope: &Scope,
    uuid: &str,
    pairs: &Pairs,
) -> Result<Response, No> {
    let status = Status::asked(pairs)?;
    let uuid: CallUuid = uuid.parse().map_err(|_| No::NotFound(NOT_FOUND))?;
    let live = api.live.get(scope, uuid);
    if let Some(status) = status {
        let call = live.filter(|call| status.holds(call)).ok_or(No::NotFound(NOT_FOUND))?;
        return Ok(error::plivo_body(StatusCode::OK, &Live::of(&call)));
    }
    if live.is_none() {
        api.store.flush().await;
    }
    match api.store.calls().get(scope, uuid).await? {
        Some(CallRecord { start, end: Some(end) }) => {
            Ok(error::plivo_body(StatusCode::OK, &Cdr::of(scope, &start, &end)))
        }
        _ if live.is_some() => Err(No::NotFound("not found; the call is live, use status=live")),
        _ => Err(No::NotFound(NOT_FOUND)),
    }
}

/// A page of ended calls, newest first.
#[derive(Serialize, ToSchema)]
#[schema(as = PlivoCalls)]
pub(super) struct List<'a> {
    meta: Meta,
    objects: Vec<Cdr<'a>>,
}

/// The calls that are up, or wait.
#[derive(Serialize, ToSchema)]
#[schema(as = PlivoLiveCalls)]
pub(super) struct Uuids {
    #[schema(value_type = Vec<String>)]
    calls: Vec<CallUuid>,
}

/// `GET Call/`.
pub(super) async fn list(api: &Api, scope: &Scope, pairs: &Pairs) -> Result<Response, No> {
    let page = paging::page(pairs)?;
    let filter = query::filter(pairs)?;
    if let Some(status) = Status::asked(pairs)? {
        let CallFilter { direction, from, to, subaccount, .. } = filter;
        let queued = matches!(status, Status::Queued);
        let filter = LiveFilter { queued, direction, from, to, subaccount };
        let skipped = usize::try_from(page.offset).unwrap_or(usize::MAX);
        let calls = api.live.some(scope, &filter, skipped, page.limit as usize);
        return Ok(error::plivo_body(StatusCode::OK, &Uuids { calls }));
    }
    // A call that just ended: its record may still be on its way.
    api.store.flush().await;
    let (records, total_count) =
        api.store.calls().list(scope, &filter, page.limit, page.offset).await?;
    let objects =
        records.iter().filter_map(|r| Some(Cdr::of(scope, &r.start, r.end.as_ref()?))).collect();
    let meta = Meta::of(&list_uri(scope), pairs, page, total_count);
    Ok(error::plivo_body(StatusCode::OK, &List { meta, objects }))
}

fn list_uri(scope: &Scope) -> String {
    super::uri(scope, "Call/")
}

/// `DELETE Call/{uuid}/`.
pub(super) fn hang_up(api: &Api, scope: &Scope, uuid: &str) -> Result<Response, No> {
    let uuid: CallUuid = uuid.parse().map_err(|_| No::NotFound(NOT_FOUND))?;
    if api.live.hang_up(scope, uuid) {
        Ok(error::plivo_no_content())
    } else {
        Err(No::NotFound(NOT_FOUND))
    }
}

/// `DELETE Request/{uuid}/`: cancels a call that waits or rings (§2.7).
pub(super) fn cancel(api: &Api, scope: &Scope, uuid: &str) -> Result<Response, No> {
    const WHAT: &str = "request not found, or its call is answered or over";
    let uuid: CallUuid = uuid.parse().map_err(|_| No::NotFound(WHAT))?;
    let call = api.live.get(scope, uuid).filter(|call| call.direction == Direction::Outbound);
    let call =
        call.filter(|call| call.status != LiveStatus::InProgress).ok_or(No::NotFound(WHAT))?;
    if api.live.hang_up(scope, call.call) {
        Ok(error::plivo_no_content())
    } else {
        Err(No::NotFound(WHAT))
    }
}

/// `DELETE Call/`: all of the account's.
pub(super) fn hang_up_all(api: &Api, scope: &Scope) -> Response {
    for call in api.live.list(scope) {
        api.live.hang_up(scope, call.call);
    }
    error::plivo_no_content()
}
