//! Fields that several requests have: their parsing, and their specification for the OpenAPI
//! document.

use std::collections::BTreeSet;

use super::super::Api;
use super::super::fields::Fields;
use super::super::placement::customer_url;
use super::super::routes::{Field, FieldKind};
use machine::sip_header_name;
use model::{E164, Method, is_line};
use xml::ast::{DocUrl, Target};

/// Maximum number of DTMF keys and pauses in a request.
pub(super) const KEYS_MAX: usize = 64;
/// Maximum number of targets of a request (`docs/reference/limits.md#l7`).
const TARGETS_MAX: usize = 1_000;
pub(super) const CALLER_NAME_CHARS_MAX: usize = 50;
const SIP_HEADERS_MAX: usize = 32;
/// Maximum value of `ring_timeout`, in seconds.
pub(super) const RING_TIMEOUT_MAX: u64 = 600;

/// The error text for identical caller and callee.
const SELF_CALL: &str = "to parameter is invalid: it is the calling number";

pub(super) const LEGS: FieldKind = FieldKind::OneOf(&["aleg", "bleg", "both"]);
pub(super) const SIP_HEADERS: Field = Field::optional(
    "sip_headers",
    FieldKind::Text(u32::MAX),
    "At most 32 name=value pairs separated by commas: X-PH- parameters",
);
/// The fields of a text that is spoken.
pub(super) const SPEECH_FIELDS: &[Field] = &[
    Field::required("text", FieldKind::Text(3_000), "The text to speak"),
    Field::optional("voice", FieldKind::Text(64), "WOMAN, MAN, or the name of a voice"),
    Field::optional("language", FieldKind::Text(64), "Default en-US"),
    Field::optional("type", FieldKind::OneOf(&["text", "ssml"]), "Default text"),
    Field::optional("length", FieldKind::Text(64), "The voice, under the name plivo-go gives it"),
];
/// The field of a sound that is played.
pub(super) const SOUND_FIELDS: &[Field] =
    &[Field::required("url", FieldKind::Url, "URL of a sound")];

/// Names that Plivo's SDKs send with any request: the parameters of asynchronous requests, and
/// parts of the path. A request that uses one of these names has its own field for it.
pub(in crate::api) const IGNORED: &[Field] = &[
    unused("callback_url"),
    unused("callback_method"),
    unused("auth_id"),
    unused("app_id"),
    unused("call_uuid"),
    unused("conference_name"),
    unused("endpoint_id"),
    unused("friendly_name"),
    unused("member_id"),
    unused("number"),
    unused("participant_id"),
    unused("uuid"),
];

/// A field of Plivo's that is accepted and has no effect here.
pub(super) const fn unused(name: &'static str) -> Field {
    Field::optional(name, FieldKind::Unused, "Accepted, without effect")
}

/// Whether a text is 1 to [`KEYS_MAX`] DTMF keys and pauses.
pub(super) fn is_keys(text: &str) -> bool {
    (1..=KEYS_MAX).contains(&text.len()) && text.chars().all(|c| "0123456789*#wW".contains(c))
}

/// Parses the method of requests to a URL.
pub(super) fn method(fields: &Fields, name: &str) -> Result<Option<Method>, String> {
    match fields.text(name)?.map(|word| word.to_ascii_uppercase()).as_deref() {
        None => Ok(None),
        Some("POST") => Ok(Some(Method::Post)),
        Some("GET") => Ok(Some(Method::Get)),
        Some(_) => Err(format!("{name} must be GET or POST")),
    }
}

/// Parses `{name}_url` and `{name}_method`.
pub(super) fn url(
    api: &Api,
    fields: &Fields,
    name: &str,
) -> Result<Option<(DocUrl, Method)>, String> {
    let method = method(fields, &format!("{name}_method"))?.unwrap_or_default();
    let url_name = format!("{name}_url");
    let Some(text) = fields.text(&url_name)? else { return Ok(None) };
    Ok(Some((customer_url(api, &url_name, &text)?, method)))
}

/// Parses `{name}_url` and `{name}_method` as the target of requests.
pub(super) fn target(api: &Api, fields: &Fields, name: &str) -> Result<Option<Target>, String> {
    Ok(url(api, fields, name)?.map(|(url, method)| Target { url, method }))
}

/// Parses `from` and `to`, which must differ.
pub(super) fn caller_and_targets(fields: &Fields) -> Result<(E164, Vec<E164>), String> {
    let from = E164::parse(&fields.required("from")?)
        .map_err(|why| format!("from parameter is invalid: {why}"))?;
    let to = targets(&fields.required("to")?)?;
    if to.contains(&from) {
        return Err(SELF_CALL.to_owned());
    }
    Ok((from, to))
}

/// Parses numbers separated by `<`.
fn targets(to: &str) -> Result<Vec<E164>, String> {
    let mut targets = Vec::new();
    for one in to.split('<') {
        if targets.len() == TARGETS_MAX {
            return Err(format!("to parameter is invalid: more than {TARGETS_MAX} numbers"));
        }
        if one.trim().to_ascii_lowercase().starts_with("sip:") {
            let message = "to parameter is invalid: only WhatsApp users can be called, not SIP \
                addresses";
            return Err(message.to_owned());
        }
        let number =
            E164::parse_user(one).map_err(|why| format!("to parameter is invalid: {why}"))?;
        targets.push(number);
    }
    let different: BTreeSet<&E164> = targets.iter().collect();
    if different.len() < targets.len() {
        return Err("to parameter is invalid: a number is given twice".to_owned());
    }
    Ok(targets)
}

/// Parses `send_digits`: keys and pauses, optionally followed by `@` and the length of a tone in
/// milliseconds.
pub(super) fn send_digits(fields: &Fields) -> Result<Option<String>, String> {
    let Some(text) = fields.text("send_digits")? else { return Ok(None) };
    let (keys, millis) = text.split_once('@').unwrap_or((&text, "40"));
    if is_keys(keys) && millis.parse().is_ok_and(|millis: u32| (40..=2_000).contains(&millis)) {
        Ok(Some(text))
    } else {
        Err(format!(
            "send_digits must be 1 to {KEYS_MAX} of 0-9, *, #, w and W, optionally followed by @ \
             and 40 to 2000 ms"
        ))
    }
}

/// Parses `sip_headers`: `name=value` pairs separated by commas. Reserved names are dropped.
pub(super) fn sip_headers(fields: &Fields) -> Result<Vec<(String, String)>, String> {
    let error = || {
        format!(
            "sip_headers must be at most {SIP_HEADERS_MAX} name=value pairs separated by commas, \
             names of at most 100 letters, digits, - and _, values of at most 1000 characters"
        )
    };
    let text = fields.text("sip_headers")?.unwrap_or_default();
    let mut headers = Vec::new();
    for pair in text.split(',').filter(|pair| !pair.trim().is_empty()) {
        let (name, value) = pair.split_once('=').ok_or_else(error)?;
        let (name, value) = (name.trim(), value.trim());
        let is_name = (1..=100).contains(&name.len())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        let is_value = is_line(value, 0..=1_000);
        if !is_name || !is_value || headers.len() == SIP_HEADERS_MAX {
            return Err(error());
        }
        if let Some(bare) = sip_header_name(name) {
            headers.push((bare.to_owned(), value.to_owned()));
        }
    }
    Ok(headers)
}

/// Parses `file_format`: whether it is MP3.
pub(super) fn is_mp3(fields: &Fields) -> Result<bool, String> {
    match fields.text("file_format")?.map(|word| word.to_ascii_lowercase()).as_deref() {
        None | Some("mp3") => Ok(true),
        Some("wav") => Ok(false),
        Some(_) => Err("file_format must be mp3 or wav".to_owned()),
    }
}
