//! Differences of numbers between two books, as the payload of the `number.changed` webhook. The
//! change may come from people, the configuration or Meta. Pure.

use serde_json::{Map, Value, json};

use super::NumberRouting;
use crate::admission::book::{Book, Link, Number, NumberSet, Registration};
use model::E164;

/// The connected numbers that differ between two books, each with its event's `data`: `changed`
/// lists the fields of the resource that differ, `number` has all fields. `routed` looks up the
/// routing of a number.
pub fn changes(
    before: &Book,
    after: &Book,
    routed: impl Fn(&E164) -> NumberRouting,
) -> Vec<(E164, Value)> {
    let mut changes = Vec::new();
    for number in after.all_numbers().filter(|number| !number.set.disconnected) {
        let Some(was) = before
            .any_number(&number.number)
            .filter(|was| !is_same((before, was), (after, number)))
        else {
            continue;
        };
        let routed = routed(&number.number);
        let data = between(&fields_of(before, was, &routed), fields_of(after, number, &routed));
        changes.extend(data.map(|data| (number.number.clone(), data)));
    }
    changes
}

/// Returns the `data` of a number whose routing has changed, or `None` if no visible field has
/// changed.
pub fn rerouted(
    book: &Book,
    number: &E164,
    was: &NumberRouting,
    is: &NumberRouting,
) -> Option<Value> {
    let number = book.any_number(number).filter(|number| !number.set.disconnected)?;
    between(&fields_of(book, number, was), fields_of(book, number, is))
}

fn between(was: &Map<String, Value>, is: Map<String, Value>) -> Option<Value> {
    let changed = is.iter().filter(|(name, value)| was.get(*name) != Some(value));
    let changed: Vec<&String> = changed.map(|(name, _)| name).collect();
    (!changed.is_empty()).then(|| json!({"changed": changed, "number": is}))
}

/// Cheap test for numbers without differences, since most changes concern one number of many. The
/// first state fetched from Meta does not count as a change.
fn is_same((before, was): (&Book, &Number), (after, is): (&Book, &Number)) -> bool {
    let first = was.set.at_meta.synced.is_none() && is.set.at_meta.synced.is_some();
    (first || was.set == is.set)
        && before.owner(was) == after.owner(is)
        && before.answer_of(was) == after.answer_of(is)
}

/// Where a number is registered, in Meta's words.
pub fn platform_of(set: &NumberSet) -> &str {
    match set.at_meta.platform_type.as_str() {
        known @ ("CLOUD_API" | "ON_PREMISE") => known,
        _ => "NOT_APPLICABLE",
    }
}

/// The quality rating of a number, in Meta's words.
pub fn quality_of(set: &NumberSet) -> &str {
    match set.at_meta.quality_rating.as_str() {
        known @ ("GREEN" | "YELLOW" | "RED") => known,
        _ => "UNKNOWN",
    }
}

/// The mutable fields of a number's resource.
fn fields_of(book: &Book, number: &Number, routed: &NumberRouting) -> Map<String, Value> {
    let set = &number.set;
    let url = |link: &Link| link.url.as_ref().map(|url| url.0.to_string());
    let (reason, again) = match &set.registration {
        Registration::Failed { reason, again } => (Some(reason), Some(again.to_string())),
        Registration::None | Registration::Running | Registration::Registered => (None, None),
    };
    let drift = set.drift();
    let parts = [
        ("callingEnabled", drift.calling_enabled),
        ("callbackPermission", drift.callback_permission),
        ("sip", drift.sip),
        ("sdes", drift.sdes),
    ];
    let parts: Map<_, _> =
        parts.into_iter().filter_map(|(name, is)| Some((name.to_owned(), is?.into()))).collect();
    let at_meta = set.at_meta.calling.callback_permission;
    let fields = json!({
        "id": number.number.resource_id(),
        "number": number.number.as_str(),
        "whatsappPhoneNumberId": number.phone_number_id.as_str(),
        "whatsappBusinessAccount": number.waba.as_ref().map(ToString::to_string),
        "account": book.owner(number).as_str(),
        "alias": set.alias,
        "verifiedName": set.at_meta.verified_name,
        "platformType": platform_of(set),
        "qualityRating": quality_of(set),
        "status": set.at_meta.status,
        "tokenInvalid": set.at_meta.token_invalid,
        "subscriptionError": set.at_meta.unsubscribed,
        "registration": {"state": set.registered(), "reason": reason, "retryAfter": again},
        "configurationType": set.configuration.as_str(),
        "webhookUrl": set.webhook_url.as_ref().map(|url| url.0.to_string()),
        "callingEnabled": set.calling_enabled,
        "callingDrift": drift.is_some().then_some(parts),
        "answerUrl": url(&book.answer_of(number)),
        "answerMethod": book.answer_of(number).method.as_str(),
        "fallbackUrl": url(&set.fallback),
        "fallbackMethod": set.fallback.method.as_str(),
        "hangupUrl": url(&set.hangup),
        "hangupMethod": set.hangup.method.as_str(),
        "callsPerNumber": set.calls_per_number.unwrap_or_else(|| book.default_slots()),
        "callbackPermission": set.callback_permission.or(at_meta).unwrap_or_default(),
        "activeAgent": routed.agent,
        "defaultRouting": routed.word(),
        "defaultWebhook": routed.webhook,
        "connected": !set.disconnected,
        "active": routed.agent.is_some() && !set.inactive,
    });
    match fields {
        Value::Object(fields) => fields,
        // Unreachable: `json!({…})` is an object.
        _ => Map::new(),
    }
}
