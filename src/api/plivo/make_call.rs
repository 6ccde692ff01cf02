//! `POST Call/`: places calls to WhatsApp users. See `docs/reference/rest.md#make-a-call`.

use std::time::Duration;

use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::Api;
use super::super::fields::Fields;
use super::super::placement::{self, RING_TIMEOUT, TIME_LIMIT};
use super::super::routes::{Field, FieldKind, Operation, RequestBody};
use super::error::PlivoError;
use super::field_values::{
    CALLER_NAME_CHARS_MAX, RING_TIMEOUT_MAX, SIP_HEADERS, caller_and_targets, send_digits,
    sip_headers, unused, url,
};
use super::request::PlivoRequest;
use super::response::created;
use super::route::{BARRED_COUNTRY, CONFLICT, NOT_ALLOWED, Route, handler, object};
use engine::admission::Reason;
use engine::call::dialer::CallOrder;
use engine::call::queues::NotPlaced;
use machine::Outbound;
use model::{CallUuid, E164, Method, is_line};
use store::Scope;
use xml::ast::DocUrl;

/// Maximum value of `time_limit`, in seconds.
const TIME_LIMIT_MAX: u64 = 86_400;

const FIELDS: &[Field] = &[
    Field::required(
        "from",
        FieldKind::Text(32),
        "A phone number of the account with calling enabled",
    ),
    Field::required(
        "to",
        FieldKind::Text(u32::MAX),
        "Numbers of users, at most 1,000, separated by <",
    ),
    Field::required("answer_url", FieldKind::Url, "URL of the document for the answered call"),
    Field::optional("answer_method", FieldKind::Method, "Default POST").in_example(),
    Field::optional("ring_url", FieldKind::Url, "Receives a callback when the call rings"),
    Field::optional("ring_method", FieldKind::Method, "Default POST"),
    Field::optional(
        "hangup_url",
        FieldKind::Url,
        "Receives a callback when the call has ended; default: the answer URL",
    ),
    Field::optional("hangup_method", FieldKind::Method, "Default POST"),
    Field::optional("fallback_url", FieldKind::Url, "Requested if the answer URL fails"),
    Field::optional("fallback_method", FieldKind::Method, "Default POST"),
    Field::optional(
        "call_type",
        FieldKind::OneOf(&["whatsapp_voice", "whatsapp"]),
        "Only WhatsApp users can be called",
    ),
    Field::optional("caller_name", FieldKind::Text(50), "Passed to callbacks"),
    Field::optional(
        "send_digits",
        FieldKind::Text(70),
        "0-9, *, #, and w and W for pauses: sent after the answer",
    ),
    Field::optional("send_on_preanswer", FieldKind::Flag, "Ignored"),
    Field::optional(
        "time_limit",
        FieldKind::Integer(1, 86_400),
        "Longest duration in seconds (default 14400)",
    ),
    Field::optional(
        "hangup_on_ring",
        FieldKind::Integer(0, 600),
        "Hang up this many seconds after ringing began",
    ),
    Field::optional(
        "ring_timeout",
        FieldKind::Integer(0, 600),
        "Longest ringing in seconds (default 120, also for 0)",
    ),
    SIP_HEADERS,
    Field::optional("parent_call_uuid", FieldKind::Uuid, "Stored with the call"),
    Field::optional(
        "error_if_parent_not_found",
        FieldKind::Flag,
        "true: 404 if the parent call is not known (default false)",
    ),
    Field::optional("machine_detection", FieldKind::OneOf(&["false"]), "Not available on WhatsApp"),
    unused("machine_detection_time"),
    unused("machine_detection_url"),
    unused("machine_detection_method"),
    unused("machine_detection_maximum_speech_length"),
    unused("machine_detection_initial_silence"),
    unused("machine_detection_maximum_words"),
    unused("machine_detection_initial_greeting"),
    unused("machine_detection_silence"),
    unused("machine_detection_answer_time"),
];

pub(super) const ROUTES: &[Route] = &[Route {
    handler: handler!(make),
    operation: Operation::post(
        "/v1/Account/{auth_id}/Call/",
        "makeCalls",
        "Call one or many WhatsApp users. With the header Idempotency-Key a repeated request does \
         nothing more",
    )
    .body(RequestBody::fields(
        "from, to (numbers separated by <) and answer_url; the other fields are Plivo's. A form is \
         accepted too",
        &[FIELDS],
    ))
    .responses(&[
        object::<FiredCalls>(
            201,
            "The calls ring, or are queued for the account's calls per second",
        ),
        BARRED_COUNTRY,
        CONFLICT,
        NOT_ALLOWED,
    ]),
}];

/// Whether a route is the one that places calls.
pub(super) fn places_calls(route: &Route) -> bool {
    ROUTES.iter().any(|own| own.operation.id == route.operation.id)
}

#[derive(Serialize, ToSchema)]
#[schema(as = Fired)]
struct FiredCalls {
    message: &'static str,
    request_uuid: RequestUuids,
}

/// A single UUID, or one for each target.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = Requests)]
enum RequestUuids {
    One(String),
    Many(Vec<String>),
}

async fn make(request: PlivoRequest) -> Result<Response, PlivoError> {
    let api = request.api();
    let order = CallRequest::parse(api, &request.fields()?).map_err(PlivoError::BadRequest)?;
    if let Some(parent) = order.required_parent {
        let is_known = api.live.get(&request.scope, parent).is_some()
            || api.store.calls().get(&request.scope, parent).await?.is_some();
        if !is_known {
            return Err(PlivoError::NotFound("parent call not found"));
        }
    }
    let from = order.from.clone();
    let order = order
        .into_order(api, &request.scope)
        .ok_or_else(|| PlivoError::NotAllowed(not_own_number(&from)))?;
    let calls = place(api, &order).await?;
    let fired = match calls.as_slice() {
        [one] if order.to.len() == 1 => {
            FiredCalls { message: "call fired", request_uuid: RequestUuids::One(one.to_string()) }
        }
        _ => FiredCalls {
            message: "calls fired",
            request_uuid: RequestUuids::Many(calls.iter().map(CallUuid::to_string).collect()),
        },
    };
    Ok(created(&fired))
}

/// Places the calls of an order, all of them or none.
pub(super) async fn place(api: &Api, order: &CallOrder) -> Result<Vec<CallUuid>, PlivoError> {
    placement::place(api, order).await.map_err(|error| match error {
        NotPlaced::Denied { denied, .. } if denied.reason == Reason::CallingDisabled => {
            PlivoError::NotAllowed(not_own_number(&order.number.spec.number))
        }
        error => error.into(),
    })
}

/// The error text for a `from` that does not belong to the account, or from which it can't call.
pub(super) fn not_own_number(from: &E164) -> String {
    format!(
        "from parameter is invalid. {from} is not a calling-enabled WhatsApp number of your account"
    )
}

/// The fields of a request, each validated on its own.
struct CallRequest {
    from: E164,
    to: Vec<E164>,
    answer: (DocUrl, Method),
    ring: Option<(DocUrl, Method)>,
    hangup: Option<(DocUrl, Method)>,
    fallback: Option<(DocUrl, Method)>,
    caller_name: String,
    send_digits: Option<String>,
    headers: Vec<(String, String)>,
    time_limit_s: u64,
    ring_timeout_s: u64,
    hangup_on_ring_s: Option<u64>,
    parent: Option<CallUuid>,
    /// The parent call. Set if the request must fail unless the parent is known.
    required_parent: Option<CallUuid>,
}

impl CallRequest {
    fn parse(api: &Api, fields: &Fields) -> Result<Self, String> {
        let (from, to) = caller_and_targets(fields)?;
        let answer = url(api, fields, "answer")?.ok_or("answer_url parameter is missing")?;
        let (ring, hangup, fallback) =
            (url(api, fields, "ring")?, url(api, fields, "hangup")?, url(api, fields, "fallback")?);
        check_call_type(fields)?;
        let caller_name = fields.text("caller_name")?.unwrap_or_default();
        if !is_line(&caller_name, 0..=CALLER_NAME_CHARS_MAX) {
            return Err(format!("caller_name must be at most {CALLER_NAME_CHARS_MAX} characters"));
        }
        let send_digits = send_digits(fields)?;
        fields.flag("send_on_preanswer")?;
        let time_limit_s = fields.integer("time_limit", 1, TIME_LIMIT_MAX)?.unwrap_or(TIME_LIMIT);
        let hangup_on_ring_s = fields.integer("hangup_on_ring", 0, RING_TIMEOUT_MAX)?;
        let ring_timeout_s = match fields.text("ring_timeout")?.as_deref() {
            // Plivo's value for the default.
            Some("0") => RING_TIMEOUT,
            _ => fields.integer("ring_timeout", 1, RING_TIMEOUT_MAX)?.unwrap_or(RING_TIMEOUT),
        };
        let headers = sip_headers(fields)?;
        let parent = fields.text("parent_call_uuid")?.map(|uuid| uuid.parse::<CallUuid>());
        let parent = parent.transpose().map_err(|_| "parent_call_uuid must be a UUID")?;
        let is_parent_required = fields.flag("error_if_parent_not_found")?.unwrap_or(false);
        if fields.text("machine_detection")?.is_some_and(|word| !word.eq_ignore_ascii_case("false"))
        {
            return Err("machine_detection is not available on WhatsApp".to_owned());
        }
        Ok(Self {
            from,
            to,
            answer,
            ring,
            hangup,
            fallback,
            caller_name,
            send_digits,
            headers,
            time_limit_s,
            ring_timeout_s,
            hangup_on_ring_s,
            parent,
            required_parent: parent.filter(|_| is_parent_required),
        })
    }

    /// The order for the dialer; `None` if the account does not have the number.
    fn into_order(self, api: &Api, scope: &Scope) -> Option<CallOrder> {
        let millis = |seconds: u64| seconds.saturating_mul(1_000);
        Some(CallOrder {
            number: api.placer.number(scope, &self.from)?,
            to: self.to,
            hangup: self.hangup.unwrap_or_else(|| self.answer.clone()),
            answer: self.answer,
            fallback: self.fallback,
            caller_name: self.caller_name,
            headers: self.headers,
            time_limit: Duration::from_secs(self.time_limit_s),
            outbound: Outbound {
                ring: self.ring,
                ring_timeout_ms: millis(self.ring_timeout_s),
                hangup_on_ring_ms: self.hangup_on_ring_s.map(millis),
                send_digits: self.send_digits,
                parent_call: self.parent,
                b_leg: None,
                document: None,
                confirm: None,
                room: None,
                room_music: None,
                needs_company: false,
                is_queued: false,
            },
            each: Vec::new(),
        })
    }
}

fn check_call_type(fields: &Fields) -> Result<(), String> {
    match fields.text("call_type")?.as_deref() {
        None | Some("whatsapp_voice" | "whatsapp") => Ok(()),
        Some("voice") => {
            Err("call_type voice is not available: only WhatsApp users can be called".to_owned())
        }
        Some(_) => Err("call_type must be whatsapp_voice or whatsapp".to_owned()),
    }
}
