//! Calls: list, retrieve, hang up, cancel. See `docs/reference/rest.md#calls`.

use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::live::name_silent;
use super::super::routes::{Operation, QueryParameter, ResponseSpec, of};
use super::super::{LiveCall, LiveFilter, LiveStatus, turns};
use super::error::{CALL_NOT_FOUND, PlivoError};
use super::paging::{PageMeta, PageRequest};
use super::query::{self, Pairs};
use super::request::PlivoRequest;
use super::response::{no_content, ok, resource_uri};
use super::route::{LIMIT, OFFSET, Route, TIME, handler, one_of};
use model::{CallUuid, Timestamp};
use store::{CallEnd, CallFilter, CallRecord, CallStart, Scope};

const COLLECTION: &str = "/v1/Account/{auth_id}/Call/";
const ITEM: &str = "/v1/Account/{auth_id}/Call/{call_uuid}/";
const STATUS: QueryParameter = QueryParameter::one_of(
    "status",
    &["live", "queued"],
    "Live calls, or calls queued for the account's calls per second; by default ended calls",
);

pub(super) const ROUTES: &[Route] = &[
    Route {
        handler: handler!(list),
        operation: Operation::get(COLLECTION, "listCalls", "List calls")
            .query(&[
                STATUS,
                LIMIT,
                OFFSET,
                QueryParameter::text("from_number", "Only calls from this number"),
                QueryParameter::text("to_number", "Only calls to this number"),
                QueryParameter::one_of(
                    "call_direction",
                    &["inbound", "outbound"],
                    "Only calls in this direction",
                ),
                QueryParameter::text("subaccount", "Only calls of this subaccount"),
                QueryParameter::uuid("parent_call_uuid", "Only calls with this parent call"),
                QueryParameter::integer(
                    "hangup_cause_code",
                    0,
                    65_535,
                    "Only calls with this hangup cause code",
                ),
                QueryParameter::text("hangup_source", "Only calls with this hangup source"),
                QueryParameter::integer(
                    "bill_duration",
                    0,
                    u32::MAX,
                    "Seconds; also __gt, __gte, __lt, __lte",
                ),
                QueryParameter::text("end_time", TIME),
            ])
            .responses(&[one_of(
                200,
                "A page of ended calls; with status, the UUIDs of live or queued calls",
                &[of::<EndedCalls<'static>>, of::<ActiveCalls>],
            )]),
    },
    Route {
        handler: handler!(cancel),
        operation: Operation::delete(
            "/v1/Account/{auth_id}/Request/{request_uuid}/",
            "cancelCall",
            "Cancel a queued or ringing call",
        )
        .responses(&[ResponseSpec::empty(204, "Cancelled")]),
    },
    Route {
        handler: handler!(hang_up_all),
        operation: Operation::delete(COLLECTION, "hangUpCalls", "Hang up all calls of the account")
            .responses(&[ResponseSpec::empty(204, "The calls are being hung up")]),
    },
    Route {
        handler: handler!(retrieve),
        operation: Operation::get(ITEM, "retrieveCall", "Retrieve a call")
            .query(&[STATUS])
            .responses(&[one_of(
                200,
                "The ended call; with status, the live or queued call",
                &[of::<EndedCall<'static>>, of::<ActiveCall<'static>>],
            )]),
    },
    Route {
        handler: handler!(hang_up),
        operation: Operation::delete(ITEM, "hangUpCall", "Hang up a call")
            .responses(&[ResponseSpec::empty(204, "The call is being hung up")]),
    },
];

/// An ended call. `call_type` and `whatsapp_call_id` are extensions of Plivo's object.
#[derive(Serialize, ToSchema)]
#[schema(as = PlivoCall)]
struct EndedCall<'a> {
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

impl<'a> EndedCall<'a> {
    fn new(scope: &Scope, start: &'a CallStart, end: &'a CallEnd) -> Self {
        Self {
            answer_time: end.answered.map(Timestamp::plivo_cdr),
            bill_duration: end.bill_secs,
            billed_duration: end.bill_secs,
            call_direction: start.direction.as_str(),
            call_duration: end.answered.map_or(0, |_| end.duration_secs),
            call_state: call_state(end),
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

/// The `call_state` of an ended call.
fn call_state(end: &CallEnd) -> &'static str {
    match end.hangup_code {
        _ if end.answered.is_some() => "ANSWER",
        1000..=1999 | 9000 => "CANCEL",
        3010 | 3020 => "BUSY",
        3000 | 6010 => "NOANSWER",
        3070 => "TIMEOUT",
        _ => "FAILED",
    }
}

/// A live or queued call.
#[derive(Serialize, ToSchema)]
#[schema(as = PlivoLiveCall)]
struct ActiveCall<'a> {
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

impl<'a> ActiveCall<'a> {
    fn new(call: &'a LiveCall) -> Self {
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

/// The value of `status`.
enum Status {
    Live,
    Queued,
}

impl Status {
    /// Parses `status`. `None` if the request is about ended calls.
    fn parse(pairs: &Pairs) -> Result<Option<Self>, PlivoError> {
        match query::value(pairs, "status") {
            None => Ok(None),
            Some("live") => Ok(Some(Self::Live)),
            Some("queued") => Ok(Some(Self::Queued)),
            Some(_) => Err(PlivoError::BadRequest("status must be live or queued".to_owned())),
        }
    }

    fn matches(&self, call: &LiveCall) -> bool {
        match self {
            Self::Live => call.status != LiveStatus::Queued,
            Self::Queued => call.status == LiveStatus::Queued,
        }
    }
}

async fn retrieve(request: PlivoRequest) -> Result<Response, PlivoError> {
    let (api, scope) = (request.api(), &request.scope);
    let status = Status::parse(request.query())?;
    let uuid: CallUuid = request.id("call_uuid", CALL_NOT_FOUND)?;
    let live = api.live.get(scope, uuid);
    if let Some(status) = status {
        let call = live.filter(|call| status.matches(call)).ok_or(CALL_NOT_FOUND)?;
        return Ok(ok(&ActiveCall::new(&call)));
    }
    if live.is_none() {
        api.store.flush().await;
    }
    match api.store.calls().get(scope, uuid).await? {
        Some(CallRecord { start, end: Some(end) }) => Ok(ok(&EndedCall::new(scope, &start, &end))),
        _ if live.is_some() => {
            Err(PlivoError::NotFound("not found; the call is live, use status=live"))
        }
        _ => Err(CALL_NOT_FOUND),
    }
}

/// A page of ended calls, newest first.
#[derive(Serialize, ToSchema)]
#[schema(as = PlivoCalls)]
struct EndedCalls<'a> {
    meta: PageMeta,
    objects: Vec<EndedCall<'a>>,
}

/// The UUIDs of live or queued calls.
#[derive(Serialize, ToSchema)]
#[schema(as = PlivoLiveCalls)]
struct ActiveCalls {
    #[schema(value_type = Vec<String>)]
    calls: Vec<CallUuid>,
}

async fn list(request: PlivoRequest) -> Result<Response, PlivoError> {
    let (api, scope, query) = (request.api(), &request.scope, request.query());
    let page = PageRequest::parse(query)?;
    let filter = query::call_filter(query)?;
    if let Some(status) = Status::parse(query)? {
        let CallFilter { direction, from, to, subaccount, .. } = filter;
        let queued = matches!(status, Status::Queued);
        let filter = LiveFilter { queued, direction, from, to, subaccount };
        let skip = usize::try_from(page.offset).unwrap_or(usize::MAX);
        let live = api.live.page_all(scope, &filter, skip, page.limit_of_uuids(query)).await;
        let mut response = ok(&ActiveCalls { calls: live.calls });
        name_silent(&mut response, &live.silent);
        return Ok(response);
    }
    // The record of a call that has just ended may still be on its way to the store.
    api.store.flush().await;
    let turn = turns::next_if(filter.takes_long(), &request.main_account()).await;
    let (records, total_count) =
        api.store.calls().list(scope, &filter, page.limit, page.offset).await?;
    drop(turn);
    let objects = records
        .iter()
        .filter_map(|r| Some(EndedCall::new(scope, &r.start, r.end.as_ref()?)))
        .collect();
    let meta = PageMeta::new(&list_uri(scope), query, page, total_count);
    Ok(ok(&EndedCalls { meta, objects }))
}

fn list_uri(scope: &Scope) -> String {
    resource_uri(scope, "Call/")
}

async fn hang_up(request: PlivoRequest) -> Result<Response, PlivoError> {
    let uuid = request.id("call_uuid", CALL_NOT_FOUND)?;
    match request.api().live.hang_up(&request.scope, uuid) {
        true => Ok(no_content()),
        false => Err(CALL_NOT_FOUND),
    }
}

async fn cancel(request: PlivoRequest) -> Result<Response, PlivoError> {
    const NOT_FOUND: PlivoError =
        PlivoError::NotFound("request not found, or its call is answered or has ended");
    let uuid: CallUuid = request.id("request_uuid", NOT_FOUND)?;
    match request.api().live.cancel(&request.scope, uuid).await {
        true => Ok(no_content()),
        false => Err(NOT_FOUND),
    }
}

async fn hang_up_all(request: PlivoRequest) -> Result<Response, PlivoError> {
    let (live, scope) = (&request.api().live, &request.scope);
    for call in live.list(scope) {
        live.hang_up(scope, call.call);
    }
    Ok(no_content())
}
