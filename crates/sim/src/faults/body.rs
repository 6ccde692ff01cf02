//! Faults of webhook bodies: batches, unknown members and words, alternative spellings, wrong
//! clocks. Pure functions from body to body.

use serde_json::{Value, json};

/// A variant of a webhook body that describes the same call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyVariant {
    /// Unknown members, items, fields and words around the known ones.
    Future,
    NoContacts,
    /// The user hides the phone number: only the business-scoped user id is present.
    Bsuid,
    /// Numbers instead of strings.
    Numbers,
    /// No `direction`, as in older examples of Meta's documentation.
    NoDirection,
    /// Event, direction and status in upper case instead of lower case, or the reverse.
    Case,
}

impl BodyVariant {
    pub(super) const ALL: &[(&str, Self)] = &[
        ("future", Self::Future),
        ("no_contacts", Self::NoContacts),
        ("bsuid", Self::Bsuid),
        ("numbers", Self::Numbers),
        ("no_direction", Self::NoDirection),
        ("case", Self::Case),
    ];

    /// Changes a body that reports a call or a call's status. `no_direction` and `bsuid` leave
    /// statuses as they are.
    pub(crate) fn apply(self, body: &mut Value) {
        let value = &mut body["entry"][0]["changes"][0]["value"];
        match self {
            Self::NoContacts => remove(value, "contacts"),
            Self::NoDirection => {
                if let Some(call) = first(value, "calls") {
                    remove(call, "direction");
                }
            }
            Self::Case => {
                for list in LISTS {
                    if let Some(item) = first(value, list) {
                        flip_words(item);
                    }
                }
            }
            Self::Bsuid => {
                if let Some(call) = first(value, "calls") {
                    remove(call, "from");
                    call["from_user_id"] = json!(BSUID);
                    value["contacts"] = json!([{"profile": {"name": "Asha"}, "user_id": BSUID}]);
                }
            }
            Self::Numbers => numbers(value),
            Self::Future => future(body),
        }
    }
}

/// The lists of a webhook's value that report calls.
const LISTS: [&str; 2] = ["calls", "statuses"];

/// The first item of a list. `None` if there is no such list.
fn first<'v>(value: &'v mut Value, list: &str) -> Option<&'v mut Value> {
    value.get_mut(list)?.get_mut(0)
}

/// Changes the case of the words that say what has happened.
fn flip_words(item: &mut Value) {
    for name in ["event", "direction", "status"] {
        if let Some(Value::String(word)) = item.get_mut(name) {
            *word = match word.starts_with(char::is_uppercase) {
                true => word.to_lowercase(),
                false => word.to_uppercase(),
            };
        }
    }
}

/// A business-scoped user id.
const BSUID: &str = "IN.21300411725500934";

fn remove(object: &mut Value, name: &str) {
    if let Some(members) = object.as_object_mut() {
        members.remove(name);
    }
}

/// Converts every string of digits, ids and phone numbers included, into a number.
fn numbers(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Some(number) = text.parse::<u64>().ok().filter(|n| n.to_string() == *text) {
                *value = json!(number);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(numbers),
        Value::Object(members) => members.values_mut().for_each(numbers),
        _ => {}
    }
}

fn future(body: &mut Value) {
    let nested = (0..40).fold(json!("deep"), |inner, _| json!([inner]));
    body["api_generation"] =
        json!({"major": 31, "features": ["video", null, 1.5], "nested": nested});
    let entry = &mut body["entry"][0];
    entry["uid"] = json!(true);
    let Some(changes) = entry["changes"].as_array_mut() else { return };
    let Some(change) = changes.first_mut() else { return };
    change["priority"] = json!(9);
    let value = &mut change["value"];
    value["metadata"]["region"] = json!("ap-south-1");
    let id = LISTS.into_iter().find_map(|list| Some(first(value, list)?["id"].clone()));
    if let Some(call) = first(value, "calls") {
        call["media_kinds"] = json!(["audio", "video"]);
        call["session"]["e2ee"] = json!({"version": 2});
    }
    // Unknown events and statuses of the same call before and after the known one.
    if let Some(calls) = value.get_mut("calls").and_then(Value::as_array_mut) {
        calls.insert(
            0,
            json!({"id": id, "event": "screen_share", "timestamp": "1", "direction": "SIDEWAYS"}),
        );
        calls.push(json!({"id": id, "event": "hold", "timestamp": "1"}));
    }
    let unknown = json!({"id": id, "timestamp": "1", "type": "call", "status": "PONDERING"});
    match value.get_mut("statuses").and_then(Value::as_array_mut) {
        Some(statuses) => {
            statuses.insert(0, unknown.clone());
            statuses.push(unknown);
        }
        None => value["statuses"] = json!([unknown]),
    }
    let summary =
        json!({"field": "call_summaries", "value": {"calls": [{"id": id, "event": "connect"}]}});
    changes.insert(0, summary);
}

/// Other items in the same body, around the item of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    /// Number of items, that of the call included.
    pub(crate) items: usize,
    /// Puts a malformed item right before that of the call.
    pub(crate) malformed: bool,
}

impl Batch {
    /// Surrounds the item of `body` with filler items for the phone number ids `numbers`. `mark`
    /// makes the ids of the filler items unique.
    pub(crate) fn apply(self, body: &mut Value, mark: &str, numbers: &[String]) {
        let others = self.items.saturating_sub(1);
        let own_at = others / 2;
        let number = body["entry"][0]["changes"][0]["value"]["metadata"]["phone_number_id"].clone();
        let Some(entries) = body["entry"].as_array_mut() else { return };
        let of = |n: usize| {
            numbers.get(n % numbers.len().max(1)).map_or_else(|| number.clone(), |id| json!(id))
        };
        let own = std::mem::take(entries);
        for n in 0..own_at {
            entries.push(if self.malformed && n + 1 == own_at {
                bad(&number)
            } else {
                filler(n, mark, &of(n))
            });
        }
        entries.extend(own);
        entries.extend((own_at..others).map(|n| filler(n, mark, &of(n))));
    }
}

/// Returns a connect item with an unusable id.
fn bad(number: &Value) -> Value {
    entry(
        "calls",
        json!({
            "metadata": {"phone_number_id": number},
            "calls": [{"id": {"not": "an id"}, "event": "connect", "from": [], "timestamp": "yesterday"}],
        }),
    )
}

/// Returns a valid item for another field, number or call. The kind varies with `n`.
fn filler(n: usize, mark: &str, number: &Value) -> Value {
    let id = format!("{mark}.{n}");
    let ours = json!({"phone_number_id": number, "display_phone_number": ""});
    match n % 6 {
        0 => entry(
            "messages",
            json!({
                "messaging_product": "whatsapp", "metadata": ours,
                "messages": [{"id": format!("wamid.{id}"), "from": "919412341234", "timestamp": "1790000000",
                    "type": "text", "text": {"body": "hello"}}],
            }),
        ),
        1 => entry(
            "messages",
            json!({
                "messaging_product": "whatsapp", "metadata": ours,
                "statuses": [{"id": format!("wamid.{id}"), "status": "delivered", "timestamp": "1790000000"}],
            }),
        ),
        2 => entry(
            "calls",
            json!({
                "messaging_product": "whatsapp", "metadata": {"phone_number_id": "999999999999999"},
                "calls": [{"id": format!("wacid.{id}"), "event": "terminate", "timestamp": "1790000000"}],
            }),
        ),
        3 => entry(
            "calls",
            json!({
                "messaging_product": "whatsapp", "metadata": ours,
                "statuses": [{"id": format!("wacid.{id}"), "type": "call", "status": "RINGING", "timestamp": "1790000000"}],
            }),
        ),
        4 => {
            entry("account_update", json!({"event": "PARTNER_ADDED", "waba_info": {"waba_id": id}}))
        }
        _ => entry("template_category_update", json!({"message_template_id": id})),
    }
}

fn entry(field: &str, value: Value) -> Value {
    json!({"id": "1029384756", "changes": [{"field": field, "value": value}]})
}

/// Adds `seconds` to the timestamps of all calls and statuses.
pub(crate) fn skew(body: &mut Value, seconds: i64) {
    let value = &mut body["entry"][0]["changes"][0]["value"];
    for list in LISTS {
        let items = value.get_mut(list).and_then(Value::as_array_mut);
        for item in items.into_iter().flatten() {
            for name in ["timestamp", "start_time", "end_time"] {
                let time = item.get(name).and_then(Value::as_str);
                if let Some(time) = time.and_then(|time| time.parse::<i64>().ok()) {
                    item[name] = json!(time.saturating_add(seconds).to_string());
                }
            }
        }
    }
}
