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

    pub(crate) fn apply(self, body: &mut Value) {
        let value = &mut body["entry"][0]["changes"][0]["value"];
        match self {
            Self::NoContacts => remove(value, "contacts"),
            Self::NoDirection => remove(&mut value["calls"][0], "direction"),
            Self::Case => {
                for name in ["event", "direction", "status"] {
                    let member = &mut value["calls"][0][name];
                    let flipped = member.as_str().map(|word| {
                        if word.starts_with(char::is_uppercase) {
                            word.to_lowercase()
                        } else {
                            word.to_uppercase()
                        }
                    });
                    match flipped {
                        Some(word) => *member = json!(word),
                        // Indexing has inserted a null.
                        None => remove(&mut value["calls"][0], name),
                    }
                }
            }
            Self::Bsuid => {
                value["contacts"] = json!([{"profile": {"name": "Asha"}, "user_id": BSUID}]);
                let call = &mut value["calls"][0];
                remove(call, "from");
                call["from_user_id"] = json!(BSUID);
            }
            Self::Numbers => numbers(value),
            Self::Future => future(body),
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
    let id = entry["changes"][0]["value"]["calls"][0]["id"].clone();
    if let Some(changes) = entry["changes"].as_array_mut() {
        if let Some(change) = changes.first_mut() {
            change["priority"] = json!(9);
            let value = &mut change["value"];
            value["calls"][0]["media_kinds"] = json!(["audio", "video"]);
            value["calls"][0]["session"]["e2ee"] = json!({"version": 2});
            value["metadata"]["region"] = json!("ap-south-1");
            if let Some(calls) = value["calls"].as_array_mut() {
                // Unknown events of the same call before and after the known one.
                calls.insert(0, json!({"id": id, "event": "screen_share", "timestamp": "1", "direction": "SIDEWAYS"}));
                calls.push(json!({"id": id, "event": "hold", "timestamp": "1"}));
            }
            value["statuses"] =
                json!([{"id": id, "timestamp": "1", "type": "call", "status": "PONDERING"}]);
        }
        changes.insert(0, json!({"field": "call_summaries", "value": {"calls": [{"id": id, "event": "connect"}]}}));
    }
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

/// Adds `seconds` to the timestamps of all calls.
pub(crate) fn skew(body: &mut Value, seconds: i64) {
    for call in
        body["entry"][0]["changes"][0]["value"]["calls"].as_array_mut().into_iter().flatten()
    {
        for name in ["timestamp", "start_time", "end_time"] {
            let moved = call[name]
                .as_str()
                .and_then(|t| t.parse::<i64>().ok())
                .map(|t| t.saturating_add(seconds));
            match moved {
                Some(moved) => call[name] = json!(moved.to_string()),
                None => remove(call, name),
            }
        }
    }
}
