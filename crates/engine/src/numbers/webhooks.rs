//! Parses webhooks about numbers and WABAs (`docs/reference/meta.md#account-updates`). Pure.

use serde_json::Value;

use crate::meta::numbers::CallingSettings;
use crate::meta::text_or_digits;
use model::{E164, PhoneNumberId, WabaId};

/// Maximum length of a word from a webhook, in characters; the rest is cut off.
const WORD_MAX: usize = 100;

/// An event in a webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetaEvent {
    /// The calling settings of a number, possibly incomplete.
    Settings { waba: WabaId, id: PhoneNumberId, calling: CallingSettings },
    /// A changed quality, limit or name of a number.
    Number { waba: WabaId, number: E164, event: String },
    /// Graph rejected the token of a number.
    TokenRefused { number: E164 },
    /// An event of a WABA, or of one of its numbers.
    Waba { waba: WabaId, number: Option<E164>, event: String, details: String },
}

/// Parses a `change` of a webhook. Returns `None` if its field is not about numbers or its value is
/// malformed.
pub fn parse_change(waba: &str, field: &str, value: &Value) -> Option<MetaEvent> {
    let word = |at: &str| value.pointer(at).and_then(Value::as_str).map(bounded);
    let number = |at: &str| E164::parse(&text_or_digits(value.pointer(at)?)?).ok();
    let waba = WabaId::from(bounded(waba));
    match field {
        "account_settings_update" => {
            if !word("/type")?.eq_ignore_ascii_case("phone_number_settings") {
                return None;
            }
            let settings = value.get("phone_number_settings")?;
            let id = settings.get("phone_number_id").and_then(text_or_digits)?;
            let id = PhoneNumberId::from(bounded(&id));
            // A missing or null `calling` has no settings.
            let nothing = Value::Null;
            let calling = settings.get("calling").unwrap_or(&nothing);
            (calling.is_object() || calling.is_null()).then(|| MetaEvent::Settings {
                waba,
                id,
                calling: CallingSettings::read(calling),
            })
        }
        "phone_number_quality_update" | "phone_number_name_update" => {
            let event = word("/event").or_else(|| word("/decision")).unwrap_or_default();
            Some(MetaEvent::Number { waba, number: number("/display_phone_number")?, event })
        }
        "account_update" | "account_review_update" | "account_alerts" => {
            let event =
                word("/event").or_else(|| word("/decision")).or_else(|| word("/alert_type"))?;
            let kinds = [
                "/violation_info/violation_type",
                "/restriction_info/0/restriction_type",
                "/ban_info/waba_ban_state",
            ];
            let details = kinds.into_iter().find_map(word).unwrap_or_default();
            Some(MetaEvent::Waba { waba, number: number("/phone_number"), event, details })
        }
        _ => None,
    }
}

fn bounded(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(WORD_MAX).collect()
}
