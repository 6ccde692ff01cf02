//! `POST Call/`: the fields of an order, the checks in their order, and what each refusal is answered with
//! (`plivo-call-api.md` §2.1).

use std::time::Duration;

use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::fields::Fields;
use super::super::placing::{self, RING_TIMEOUT, TIME_LIMIT};
use super::super::{Api, error};
use super::{KEYS_MAX, No, are_keys, customer_url, method};
use crate::admission::{Denied, Reason};
use crate::call::dialer::{CallOrder, NotPlaced};
use machine::{Outbound, sip_header_name};
use model::{CallUuid, E164, Method};
use store::Scope;
use xml::ast::DocUrl;

/// L7.
const TARGETS_MAX: usize = 1_000;
pub(super) const CALLER_NAME_CHARS_MAX: usize = 50;
const SIP_HEADERS_MAX: usize = 32;
/// Seconds of a call at most.
const TIME_LIMIT_MAX: u64 = 86_400;
pub(super) const RING_MAX: u64 = 600;

#[derive(Serialize, ToSchema)]
pub(super) struct Fired {
    message: &'static str,
    request_uuid: Requests,
}

/// A single UUID, or one for each target.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum Requests {
    One(String),
    Many(Vec<String>),
}

/// Places the call, or the calls.
pub(super) async fn place(api: &Api, scope: &Scope, fields: &Fields) -> Result<Response, No> {
    let wanted = Wanted::read(api, fields).map_err(No::Bad)?;
    if let Some(parent) = wanted.parent_wanted {
        let known = api.live.get(scope, parent).is_some()
            || api.store.calls().get(scope, parent).await?.is_some();
        if !known {
            return Err(No::NotFound("parent call not found"));
        }
    }
    let from = wanted.from.clone();
    let order = wanted.order(api, scope).ok_or_else(|| {
        No::NotAllowed(format!(
            "from parameter is invalid. {from} is not a calling-enabled WhatsApp number of your account"
        ))
    })?;
    let calls = placing::place(api, &order).await.map_err(refused)?;
    let fired = match calls.as_slice() {
        [one] if order.to.len() == 1 => {
            Fired { message: "call fired", request_uuid: Requests::One(one.to_string()) }
        }
        _ => Fired {
            message: "calls fired",
            request_uuid: Requests::Many(calls.iter().map(CallUuid::to_string).collect()),
        },
    };
    Ok(error::plivo_body(StatusCode::CREATED, &fired))
}

/// What the body asks for, each field by itself sound.
struct Wanted {
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
    /// The parent, where it must be known.
    parent_wanted: Option<CallUuid>,
}

impl Wanted {
    fn read(api: &Api, fields: &Fields) -> Result<Self, String> {
        let from = E164::parse(&fields.required("from")?)
            .map_err(|why| format!("from parameter is invalid: {why}"))?;
        let to = targets(&fields.required("to")?)?;
        if to.contains(&from) {
            return Err("to parameter is invalid: it is the number that calls".to_owned());
        }
        let answer = url(api, fields, "answer")?.ok_or("answer_url parameter is missing")?;
        let (ring, hangup, fallback) =
            (url(api, fields, "ring")?, url(api, fields, "hangup")?, url(api, fields, "fallback")?);
        call_type(fields)?;
        let caller_name = fields.text("caller_name")?.unwrap_or_default();
        if caller_name.chars().count() > CALLER_NAME_CHARS_MAX
            || caller_name.chars().any(char::is_control)
        {
            return Err(format!("caller_name must be at most {CALLER_NAME_CHARS_MAX} characters"));
        }
        let send_digits = digits(fields)?;
        fields.flag("send_on_preanswer")?;
        let time_limit_s = fields.integer("time_limit", 1, TIME_LIMIT_MAX)?.unwrap_or(TIME_LIMIT);
        let hangup_on_ring_s = fields.integer("hangup_on_ring", 0, RING_MAX)?;
        let ring_timeout_s = match fields.text("ring_timeout")?.as_deref() {
            // Plivo's own word for the usual.
            Some("0") => RING_TIMEOUT,
            _ => fields.integer("ring_timeout", 1, RING_MAX)?.unwrap_or(RING_TIMEOUT),
        };
        let headers = sip_headers(fields)?;
        let parent = fields.text("parent_call_uuid")?.map(|uuid| uuid.parse::<CallUuid>());
        let parent = parent.transpose().map_err(|_| "parent_call_uuid must be a UUID")?;
        let must_be_known = fields.flag("error_if_parent_not_found")?.unwrap_or(false);
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
            parent_wanted: parent.filter(|_| must_be_known),
        })
    }

    /// The order; none where the number is not the account's.
    fn order(self, api: &Api, scope: &Scope) -> Option<CallOrder> {
        let millis = |seconds: u64| seconds.saturating_mul(1_000);
        Some(CallOrder {
            number: api.placing.number(scope, &self.from)?,
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
            },
            each: Vec::new(),
        })
    }
}

/// Numbers between `<`.
pub(super) fn targets(to: &str) -> Result<Vec<E164>, String> {
    let mut targets = Vec::new();
    for one in to.split('<') {
        if targets.len() == TARGETS_MAX {
            return Err(format!("to parameter is invalid: more than {TARGETS_MAX} numbers"));
        }
        if one.trim().to_ascii_lowercase().starts_with("sip:") {
            return Err(
                "to parameter is invalid: a SIP address can't be called, only a WhatsApp user's number".to_owned()
            );
        }
        let number = E164::parse(one).map_err(|why| format!("to parameter is invalid: {why}"))?;
        targets.push(number);
    }
    let different: std::collections::BTreeSet<&E164> = targets.iter().collect();
    if different.len() < targets.len() {
        return Err("to parameter is invalid: a number stands in it twice".to_owned());
    }
    Ok(targets)
}

/// `{name}_url` with `{name}_method`.
pub(super) fn url(
    api: &Api,
    fields: &Fields,
    name: &str,
) -> Result<Option<(DocUrl, Method)>, String> {
    let method_name = format!("{name}_method");
    let method = method(fields, &method_name)?.unwrap_or_default();
    let url_name = format!("{name}_url");
    let Some(text) = fields.text(&url_name)? else { return Ok(None) };
    Ok(Some((customer_url(api, &url_name, &text)?, method)))
}

fn call_type(fields: &Fields) -> Result<(), String> {
    match fields.text("call_type")?.as_deref() {
        None | Some("whatsapp_voice" | "whatsapp") => Ok(()),
        Some("voice") => {
            Err("call_type voice is not available: only WhatsApp users can be called here"
                .to_owned())
        }
        Some(_) => Err("call_type must be whatsapp_voice or whatsapp".to_owned()),
    }
}

/// Keys and pauses; how many milliseconds a tone is to last may stand behind `@`.
pub(super) fn digits(fields: &Fields) -> Result<Option<String>, String> {
    let Some(text) = fields.text("send_digits")? else { return Ok(None) };
    let (keys, millis) = text.split_once('@').unwrap_or((&text, "40"));
    if are_keys(keys) && millis.parse().is_ok_and(|millis: u32| (40..=2_000).contains(&millis)) {
        Ok(Some(text))
    } else {
        Err(format!(
            "send_digits must be at most {KEYS_MAX} of 0-9, *, #, w and W, and maybe @ and 40 to 2000 ms"
        ))
    }
}

/// `name=value` pairs between commas; reserved names are dropped.
pub(super) fn sip_headers(fields: &Fields) -> Result<Vec<(String, String)>, String> {
    const WHAT: &str = "sip_headers must be at most 64 name=value pairs separated by commas, names of at most 100 letters, \
        digits, - and _, values of at most 1000 characters";
    let mut headers = Vec::new();
    for pair in fields
        .text("sip_headers")?
        .unwrap_or_default()
        .split(',')
        .filter(|pair| !pair.trim().is_empty())
    {
        let (name, value) = pair.split_once('=').ok_or(WHAT)?;
        let (name, value) = (name.trim(), value.trim());
        let fits = (1..=100).contains(&name.len())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        if !fits
            || value.chars().count() > 1_000
            || value.chars().any(char::is_control)
            || headers.len() == SIP_HEADERS_MAX
        {
            return Err(WHAT.to_owned());
        }
        if let Some(bare) = sip_header_name(name) {
            headers.push((bare.to_owned(), value.to_owned()));
        }
    }
    Ok(headers)
}

pub(super) fn refused(why: NotPlaced) -> No {
    match why {
        NotPlaced::Denied { to, denied } => denied_to(&to, &denied),
        NotPlaced::QueueFull { after } => {
            let why = "too many calls of the account wait for its calls per second".to_owned();
            No::TooMany { why, seconds: after.as_secs().saturating_add(1) }
        }
        NotPlaced::Draining => No::Unavailable,
    }
}

fn denied_to(to: &E164, denied: &Denied) -> No {
    match denied.reason {
        Reason::GeoBlocked => No::Barred(format!("from parameter is invalid. {denied}")),
        Reason::UserBusy => {
            No::Conflict(format!("a call between this number and {to} is under way"))
        }
        Reason::NumberFull => {
            No::TooMany { why: "the number has as many calls up as it may".to_owned(), seconds: 1 }
        }
        Reason::Draining => No::Unavailable,
        _ => No::NotAllowed(format!("{to} can't be called: {denied}")),
    }
}
