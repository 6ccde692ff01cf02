//! Webhook bodies as Meta writes them (`meta-calling.md` §3), and their bytes on the wire (M2). Pure.

use serde_json::{Value, json};

use crate::world::SimNumber;

/// What stays the same in all webhooks of one call.
#[derive(Clone, Debug)]
pub(crate) struct CallFacts {
    pub(crate) call_id: String,
    pub(crate) number: SimNumber,
    /// The business placed it.
    pub(crate) by_business: bool,
    /// The user's digits and profile name.
    pub(crate) user: String,
    pub(crate) user_name: String,
    pub(crate) cta_payload: Option<String>,
    pub(crate) deeplink_payload: Option<String>,
}

/// How a call ended, for the terminate webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    NotPickedUp,
    /// Unix seconds.
    PickedUp {
        start: i64,
        end: i64,
        duration_secs: i64,
    },
}

/// `calls[]` with event `connect` (§3.2): with Meta's offer, or its answer to the business's.
pub(crate) fn connect(facts: &CallFacts, at_secs: i64, sdp: &str) -> Value {
    let mut call = call(facts, "connect", at_secs, None);
    let kind = if facts.by_business { "answer" } else { "offer" };
    set(&mut call, "session", json!({"sdp_type": kind, "sdp": sdp}));
    envelope(facts, "calls", call)
}

/// `statuses[]` of a call that the business placed (§3.4).
pub(crate) fn status(facts: &CallFacts, at_secs: i64, word: &str, opaque: Option<&str>) -> Value {
    let mut status = json!({
        "id": facts.call_id,
        "timestamp": at_secs.to_string(),
        "type": "call",
        "status": word,
        "recipient_id": facts.user,
    });
    if let Some(opaque) = opaque {
        set(&mut status, "biz_opaque_callback_data", json!(opaque));
    }
    envelope(facts, "statuses", status)
}

/// `calls[]` with event `terminate` (§3.3).
pub(crate) fn terminate(
    facts: &CallFacts,
    at_secs: i64,
    ending: Ending,
    opaque: Option<&str>,
) -> Value {
    let mut call = call(facts, "terminate", at_secs, opaque);
    match ending {
        Ending::NotPickedUp => set(&mut call, "status", json!("FAILED")),
        Ending::PickedUp { start, end, duration_secs } => {
            set(&mut call, "status", json!("COMPLETED"));
            set(&mut call, "start_time", json!(start.to_string()));
            set(&mut call, "end_time", json!(end.to_string()));
            set(&mut call, "duration", json!(duration_secs));
        }
    }
    envelope(facts, "calls", call)
}

fn call(facts: &CallFacts, event: &str, at_secs: i64, opaque: Option<&str>) -> Value {
    let (user, number) = (&facts.user, &facts.number.number);
    let (from, to, direction) = match facts.by_business {
        true => (number, user, "BUSINESS_INITIATED"),
        false => (user, number, "USER_INITIATED"),
    };
    let mut call = json!({
        "id": facts.call_id,
        "from": from,
        "to": to,
        "event": event,
        "timestamp": at_secs.to_string(),
        "direction": direction,
    });
    let echoes = [
        ("biz_opaque_callback_data", opaque),
        ("cta_payload", facts.cta_payload.as_deref()),
        ("deeplink_payload", facts.deeplink_payload.as_deref()),
    ];
    for (name, value) in echoes {
        if let Some(value) = value {
            set(&mut call, name, json!(value));
        }
    }
    call
}

fn set(object: &mut Value, name: &str, value: Value) {
    if let Some(members) = object.as_object_mut() {
        members.insert(name.to_owned(), value);
    }
}

fn envelope(facts: &CallFacts, member: &str, item: Value) -> Value {
    let number = &facts.number;
    let mut value = json!({
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": number.number, "phone_number_id": number.phone_number_id},
        "contacts": [{"profile": {"name": facts.user_name}, "wa_id": facts.user}],
    });
    set(&mut value, member, json!([item]));
    of_field(number, "calls", value)
}

fn of_field(number: &SimNumber, field: &str, value: Value) -> Value {
    json!({
        "object": "whatsapp_business_account",
        "entry": [{"id": number.waba, "changes": [{"value": value, "field": field}]}],
    })
}

/// The permission to call back that a user's call brings with it (§6.2, M17).
pub(crate) fn callback_permission(
    facts: &CallFacts,
    message_id: &str,
    at_secs: i64,
    until_secs: i64,
) -> Value {
    let reply = json!({
        "response": "accept",
        "response_source": "automatic",
        "is_permanent": false,
        "expiration_timestamp": until_secs,
    });
    let said = Message {
        number: &facts.number,
        user: &facts.user,
        user_name: &facts.user_name,
        id: message_id,
        at_secs,
    };
    permission_reply(&said, Some(&facts.call_id), reply)
}

/// Who writes to whom, and when.
pub(crate) struct Message<'a> {
    pub(crate) number: &'a SimNumber,
    pub(crate) user: &'a str,
    pub(crate) user_name: &'a str,
    pub(crate) id: &'a str,
    pub(crate) at_secs: i64,
}

/// `call_permission_reply` (§6.2); `context` is the request's id, or the user's call's.
pub(crate) fn permission_reply(said: &Message<'_>, context: Option<&str>, reply: Value) -> Value {
    let number = said.number;
    let mut message = json!({
        "from": said.user,
        "id": said.id,
        "timestamp": said.at_secs.to_string(),
        "type": "interactive",
        "interactive": {"type": "call_permission_reply", "call_permission_reply": reply},
    });
    if let Some(context) = context {
        set(&mut message, "context", json!({"from": number.number, "id": context}));
    }
    let value = json!({
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": number.number, "phone_number_id": number.phone_number_id},
        "contacts": [{"profile": {"name": said.user_name}, "wa_id": said.user}],
        "messages": [message],
    });
    of_field(number, "messages", value)
}

/// A user's message of any type (§3.5).
pub(crate) fn message(said: &Message<'_>, mut message: Value) -> Value {
    let number = said.number;
    set(&mut message, "from", json!(said.user));
    set(&mut message, "id", json!(said.id));
    set(&mut message, "timestamp", json!(said.at_secs.to_string()));
    let value = json!({
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": number.number, "phone_number_id": number.phone_number_id},
        "contacts": [{"profile": {"name": said.user_name}, "wa_id": said.user}],
        "messages": [message],
    });
    of_field(number, "messages", value)
}

/// How far a message of the business is (§3.5).
pub(crate) fn message_status(number: &SimNumber, status: Value) -> Value {
    let value = json!({
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": number.number, "phone_number_id": number.phone_number_id},
        "statuses": [status],
    });
    of_field(number, "messages", value)
}

/// `account_settings_update` (§3.7).
pub(crate) fn settings_update(number: &SimNumber, at_secs: i64, calling: &Value) -> Value {
    let settings = json!({"phone_number_id": number.phone_number_id, "calling": calling});
    let value = json!({
        "messaging_product": "whatsapp",
        "timestamp": at_secs.to_string(),
        "type": "phone_number_settings",
        "phone_number_settings": settings,
    });
    of_field(number, "account_settings_update", value)
}

/// Compact JSON, non-ASCII as `\uXXXX`, `/` as `\/` where `escape_slashes` (M2). Both stand in strings only.
pub(crate) fn on_the_wire(body: &Value, escape_slashes: bool) -> Vec<u8> {
    use std::fmt::Write as _;
    let text = body.to_string();
    let mut wire = String::with_capacity(text.len() + 64);
    for c in text.chars() {
        match c {
            '/' if escape_slashes => wire.push_str("\\/"),
            c if c.is_ascii() => wire.push(c),
            c => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| {
                let _ = write!(wire, "\\u{unit:04x}");
            }),
        }
    }
    wire.into_bytes()
}

/// `X-Hub-Signature-256` over the bytes as sent.
pub(crate) fn signature(app_secret: &str, body: &[u8]) -> String {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, app_secret.as_bytes());
    format!("sha256={}", hex::encode(aws_lc_rs::hmac::sign(&key, body)))
}

/// `X-Hub-Signature`, the older header, which proves nothing any more (H7).
pub(crate) fn signature_sha1(app_secret: &str, body: &[u8]) -> String {
    let key = aws_lc_rs::hmac::Key::new(
        aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        app_secret.as_bytes(),
    );
    format!("sha1={}", hex::encode(aws_lc_rs::hmac::sign(&key, body)))
}

#[cfg(test)]
mod tests {
    use super::{CallFacts, Ending, connect, on_the_wire, signature, terminate};
    use crate::world::SimNumber;
    use serde_json::Value;

    fn facts() -> CallFacts {
        CallFacts {
            call_id:
                "wacid.HBgMOTE5NDEyMzQxMjM0FQIAEhggREJFOUIxNUJBMjdEN0QxRTExODA1RUMzMDExNjEzNzAcGAw5MTgwMzU3Mzc0NTgVAgAA"
                    .into(),
            number: SimNumber::default(),
            by_business: false,
            user: "919412341234".into(),
            user_name: "Asha Verma".into(),
            cta_payload: None,
            deeplink_payload: None,
        }
    }

    fn fixture(name: &str) -> Value {
        let path = format!("{}/../../fixtures/meta/webhooks/{name}", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_slice(&std::fs::read(path).expect("fixture")).expect("JSON")
    }

    /// The one member that depends on the app: the user's business-scoped id.
    fn without_bsuid(body: &mut Value) {
        body["entry"][0]["changes"][0]["value"]["contacts"][0]
            .as_object_mut()
            .expect("contact")
            .remove("user_id");
    }

    #[test]
    fn m2_bodies_have_the_shape_of_the_fixtures() {
        let mut theirs = fixture("connect_user.json");
        let sdp = theirs["entry"][0]["changes"][0]["value"]["calls"][0]["session"]["sdp"]
            .as_str()
            .map(str::to_owned);
        without_bsuid(&mut theirs);
        assert_eq!(connect(&facts(), 1_790_000_000, &sdp.expect("sdp")), theirs);

        let mut theirs = fixture("terminate_completed.json");
        without_bsuid(&mut theirs);
        let ending =
            Ending::PickedUp { start: 1_790_000_004, end: 1_790_000_056, duration_secs: 52 };
        assert_eq!(terminate(&facts(), 1_790_000_060, ending, None), theirs);

        let ours = terminate(&facts(), 1, Ending::NotPickedUp, Some("oh1.x.y"));
        let call = &ours["entry"][0]["changes"][0]["value"]["calls"][0];
        assert_eq!((call["status"].as_str(), call.get("duration")), (Some("FAILED"), None));
        assert_eq!(call["biz_opaque_callback_data"], "oh1.x.y");
    }

    #[test]
    fn m2_bytes_are_ascii_and_read_back_the_same() {
        let body = serde_json::json!({"name": "João 😀 a/b", "sdp": "x\r\n"});
        for escape in [false, true] {
            let wire = on_the_wire(&body, escape);
            assert!(wire.is_ascii());
            let text = String::from_utf8(wire.clone()).expect("ASCII");
            assert!(text.contains("Jo\\u00e3o \\ud83d\\ude00"), "{text}");
            assert_eq!(text.contains("a\\/b"), escape);
            assert_eq!(serde_json::from_slice::<Value>(&wire).expect("JSON"), body);
        }
    }

    #[test]
    fn m2_signature_is_metas() {
        let path = format!("{}/../../fixtures/meta/signatures.json", env!("CARGO_MANIFEST_DIR"));
        let vectors: Value =
            serde_json::from_slice(&std::fs::read(path).expect("fixture")).expect("JSON");
        let mut checked = 0;
        for vector in vectors["vectors"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|v| v["valid"] == true && v["file"].is_string())
        {
            let text = |name: &str| vector[name].as_str().expect(name).to_owned();
            let path =
                format!("{}/../../fixtures/meta/{}", env!("CARGO_MANIFEST_DIR"), text("file"));
            let ours = signature(&text("secret"), &std::fs::read(path).expect("fixture"));
            assert_eq!(ours, text("header").trim());
            checked += 1;
        }
        assert!(checked > 0, "no vector was usable");
    }
}
