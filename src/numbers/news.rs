//! What of a number is another one than before, whoever changed it: people over an API, the configuration, Meta. Pure;
//! webhooks are told of it (`number.changed`).

use serde_json::{Map, Value, json};

use crate::admission::book::{Book, Link, Number, Registration};
use crate::model::E164;

/// Numbers that serve and are not as they were, each with its event's `data`: `changed` names the fields of its resource,
/// `number` has them all; `has_agent` tells whether an agent answers a number. One that went out of service tells nobody
/// any more.
pub fn changes(before: &Book, after: &Book, has_agent: impl Fn(&E164) -> bool) -> Vec<(E164, Value)> {
    let mut told = Vec::new();
    for number in after.all_numbers().filter(|number| !number.set.disconnected) {
        let Some(was) = before.any_number(&number.number).filter(|was| !is_same((before, was), (after, number))) else {
            continue;
        };
        let agent = has_agent(&number.number);
        let (was, is) = (shown(before, was, agent), shown(after, number, agent));
        let changed: Vec<&String> =
            is.iter().filter(|(name, value)| was.get(*name) != Some(value)).map(|(name, _)| name).collect();
        if !changed.is_empty() {
            told.push((number.number.clone(), json!({"changed": changed, "number": is})));
        }
    }
    told
}

/// Whether there is nothing to look for: most changes are of one number among many. What Meta tells of a number for the
/// first time is no change of it.
fn is_same((before, was): (&Book, &Number), (after, is): (&Book, &Number)) -> bool {
    let first = was.set.told.synced.is_none() && is.set.told.synced.is_some();
    (first || was.set == is.set) && before.owner(was) == after.owner(is) && before.answer_of(was) == after.answer_of(is)
}

/// A number's fields that somebody changes, as its resource has them.
fn shown(book: &Book, number: &Number, has_agent: bool) -> Map<String, Value> {
    let set = &number.set;
    let url = |link: &Link| link.url.as_ref().map(|url| url.0.to_string());
    let registration = match &set.registration {
        Registration::None if set.is_cloud() => "registered",
        Registration::None => "none",
        Registration::Running => "running",
        Registration::Registered => "registered",
        Registration::Failed { .. } => "failed",
    };
    let at_meta = set.told.calling.callback_permission;
    let fields = json!({
        "id": number.number.resource_id(),
        "number": number.number.as_str(),
        "whatsappPhoneNumberId": number.phone_number_id.as_str(),
        "whatsappBusinessAccount": number.waba.as_ref().map(ToString::to_string),
        "account": book.owner(number).as_str(),
        "alias": set.alias,
        "verifiedName": set.told.verified_name,
        "platformType": set.told.platform_type,
        "qualityRating": set.told.quality_rating,
        "status": set.told.status,
        "tokenInvalid": set.told.token_invalid,
        "registration": registration,
        "configurationType": set.configuration.as_str(),
        "webhookUrl": set.webhook_url.as_ref().map(|url| url.0.to_string()),
        "callingEnabled": set.calling_enabled,
        "callingDrift": set.drift().is_some(),
        "answerUrl": url(&book.answer_of(number)),
        "fallbackUrl": url(&set.fallback),
        "hangupUrl": url(&set.hangup),
        "callsPerNumber": set.calls_per_number.unwrap_or_else(|| book.usual_slots()),
        "callbackPermission": set.callback_permission.or(at_meta).unwrap_or_default(),
        "connected": !set.disconnected,
        "active": has_agent && !set.inactive,
    });
    match fields {
        Value::Object(fields) => fields,
        // It is one.
        _ => Map::new(),
    }
}
