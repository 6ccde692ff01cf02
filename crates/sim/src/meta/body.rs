//! Builds webhook bodies as Meta does (`docs/reference/meta.md#webhook-bodies`) and serializes and
//! signs them. Pure.

use serde_json::{Value, json};

use crate::world::SimNumber;

/// Properties of a call that all its webhooks share.
#[derive(Clone, Debug)]
pub(crate) struct CallInfo {
    pub(crate) call_id: String,
    pub(crate) number: SimNumber,
    /// Whether the business placed the call.
    pub(crate) business_initiated: bool,
    /// Digits and profile name of the user.
    pub(crate) user: String,
    pub(crate) user_name: String,
    pub(crate) cta_payload: Option<String>,
    pub(crate) deeplink_payload: Option<String>,
}

/// The `status` of a terminate webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TerminateStatus {
    Failed,
    /// The call was answered. Times are in Unix seconds.
    Completed {
        start: i64,
        end: i64,
        duration_secs: i64,
    },
}

/// A `connect` event, with Meta's SDP offer or, for a business-initiated call, its SDP answer.
pub(crate) fn connect(info: &CallInfo, at_secs: i64, sdp: &str) -> Value {
    let mut call = call(info, "connect", at_secs, None);
    let kind = if info.business_initiated { "answer" } else { "offer" };
    set(&mut call, "session", json!({"sdp_type": kind, "sdp": sdp}));
    envelope(info, "calls", call)
}

/// A status (RINGING, ACCEPTED, REJECTED) of a business-initiated call.
pub(crate) fn status(info: &CallInfo, at_secs: i64, word: &str, opaque: Option<&str>) -> Value {
    let mut status = json!({
        "id": info.call_id,
        "timestamp": at_secs.to_string(),
        "type": "call",
        "status": word,
        "recipient_id": info.user,
    });
    if let Some(opaque) = opaque {
        set(&mut status, "biz_opaque_callback_data", json!(opaque));
    }
    envelope(info, "statuses", status)
}

/// A `terminate` event.
pub(crate) fn terminate(
    info: &CallInfo,
    at_secs: i64,
    status: TerminateStatus,
    opaque: Option<&str>,
) -> Value {
    let mut call = call(info, "terminate", at_secs, opaque);
    match status {
        TerminateStatus::Failed => set(&mut call, "status", json!("FAILED")),
        TerminateStatus::Completed { start, end, duration_secs } => {
            set(&mut call, "status", json!("COMPLETED"));
            set(&mut call, "start_time", json!(start.to_string()));
            set(&mut call, "end_time", json!(end.to_string()));
            set(&mut call, "duration", json!(duration_secs));
        }
    }
    envelope(info, "calls", call)
}

fn call(info: &CallInfo, event: &str, at_secs: i64, opaque: Option<&str>) -> Value {
    let (user, number) = (&info.user, &info.number.number);
    let (from, to, direction) = match info.business_initiated {
        true => (number, user, "BUSINESS_INITIATED"),
        false => (user, number, "USER_INITIATED"),
    };
    let mut call = json!({
        "id": info.call_id,
        "from": from,
        "to": to,
        "event": event,
        "timestamp": at_secs.to_string(),
        "direction": direction,
    });
    let optional_members = [
        ("biz_opaque_callback_data", opaque),
        ("cta_payload", info.cta_payload.as_deref()),
        ("deeplink_payload", info.deeplink_payload.as_deref()),
    ];
    for (name, value) in optional_members {
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

fn envelope(info: &CallInfo, member: &str, item: Value) -> Value {
    let number = &info.number;
    let mut value = json!({
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": number.number, "phone_number_id": number.phone_number_id},
        "contacts": [{"profile": {"name": info.user_name}, "wa_id": info.user}],
    });
    set(&mut value, member, json!([item]));
    webhook_body(number, "calls", value)
}

fn webhook_body(number: &SimNumber, field: &str, value: Value) -> Value {
    json!({
        "object": "whatsapp_business_account",
        "entry": [{"id": number.waba, "changes": [{"value": value, "field": field}]}],
    })
}

/// The automatic permission reply after a user's call, which lets the business call back.
pub(crate) fn callback_permission(
    info: &CallInfo,
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
    let message_info = MessageInfo {
        number: &info.number,
        user: &info.user,
        user_name: &info.user_name,
        id: message_id,
        at_secs,
    };
    permission_reply(&message_info, Some(&info.call_id), reply)
}

/// Parties, id and time of a message.
pub(crate) struct MessageInfo<'a> {
    pub(crate) number: &'a SimNumber,
    pub(crate) user: &'a str,
    pub(crate) user_name: &'a str,
    pub(crate) id: &'a str,
    pub(crate) at_secs: i64,
}

/// A `call_permission_reply`. `context` is the id of the permission request or of the user's call.
pub(crate) fn permission_reply(
    message_info: &MessageInfo<'_>,
    context: Option<&str>,
    reply: Value,
) -> Value {
    let number = message_info.number;
    let mut message = json!({
        "from": message_info.user,
        "id": message_info.id,
        "timestamp": message_info.at_secs.to_string(),
        "type": "interactive",
        "interactive": {"type": "call_permission_reply", "call_permission_reply": reply},
    });
    if let Some(context) = context {
        set(&mut message, "context", json!({"from": number.number, "id": context}));
    }
    let value = json!({
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": number.number, "phone_number_id": number.phone_number_id},
        "contacts": [{"profile": {"name": message_info.user_name}, "wa_id": message_info.user}],
        "messages": [message],
    });
    webhook_body(number, "messages", value)
}

/// A message of any type from a user.
pub(crate) fn message(message_info: &MessageInfo<'_>, mut message: Value) -> Value {
    let number = message_info.number;
    set(&mut message, "from", json!(message_info.user));
    set(&mut message, "id", json!(message_info.id));
    set(&mut message, "timestamp", json!(message_info.at_secs.to_string()));
    let value = json!({
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": number.number, "phone_number_id": number.phone_number_id},
        "contacts": [{"profile": {"name": message_info.user_name}, "wa_id": message_info.user}],
        "messages": [message],
    });
    webhook_body(number, "messages", value)
}

/// A status of a message that the business sent.
pub(crate) fn message_status(number: &SimNumber, status: Value) -> Value {
    let value = json!({
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": number.number, "phone_number_id": number.phone_number_id},
        "statuses": [status],
    });
    webhook_body(number, "messages", value)
}

/// An `account_settings_update`.
pub(crate) fn settings_update(number: &SimNumber, at_secs: i64, calling: &Value) -> Value {
    let settings = json!({"phone_number_id": number.phone_number_id, "calling": calling});
    let value = json!({
        "messaging_product": "whatsapp",
        "timestamp": at_secs.to_string(),
        "type": "phone_number_settings",
        "phone_number_settings": settings,
    });
    webhook_body(number, "account_settings_update", value)
}

/// Serializes to compact JSON with non-ASCII characters as `\uXXXX`. `escape_slashes` also writes
/// `/` as `\/`. Both kinds of character occur only inside of strings.
pub(crate) fn to_wire_bytes(body: &Value, escape_slashes: bool) -> Vec<u8> {
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

/// The value of `X-Hub-Signature-256` for a serialized body.
pub(crate) fn signature(app_secret: &str, body: &[u8]) -> String {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, app_secret.as_bytes());
    format!("sha256={}", hex::encode(aws_lc_rs::hmac::sign(&key, body)))
}

/// The value of `X-Hub-Signature`, the older SHA-1 header, which a node must not trust.
pub(crate) fn signature_sha1(app_secret: &str, body: &[u8]) -> String {
    let key = aws_lc_rs::hmac::Key::new(
        aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        app_secret.as_bytes(),
    );
    format!("sha1={}", hex::encode(aws_lc_rs::hmac::sign(&key, body)))
}

#[cfg(test)]
mod tests {
    use super::{CallInfo, TerminateStatus, connect, signature, terminate, to_wire_bytes};
    use crate::world::SimNumber;
    use serde_json::Value;

    fn info() -> CallInfo {
        CallInfo {
            call_id:
                "wacid.HBgMOTE5NDEyMzQxMjM0FQIAEhggREJFOUIxNUJBMjdEN0QxRTExODA1RUMzMDExNjEzNzAcGAw5MTgwMzU3Mzc0NTgVAgAA"
                    .into(),
            number: SimNumber::default(),
            business_initiated: false,
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

    /// Removes the business-scoped user id, which the simulator does not send.
    fn without_bsuid(body: &mut Value) {
        body["entry"][0]["changes"][0]["value"]["contacts"][0]
            .as_object_mut()
            .expect("contact")
            .remove("user_id");
    }

    #[test]
    fn m2_bodies_match_the_fixtures() {
        let mut expected = fixture("connect_user.json");
        let sdp = expected["entry"][0]["changes"][0]["value"]["calls"][0]["session"]["sdp"]
            .as_str()
            .map(str::to_owned);
        without_bsuid(&mut expected);
        assert_eq!(connect(&info(), 1_790_000_000, &sdp.expect("sdp")), expected);

        let mut expected = fixture("terminate_completed.json");
        without_bsuid(&mut expected);
        let status = TerminateStatus::Completed {
            start: 1_790_000_004,
            end: 1_790_000_056,
            duration_secs: 52,
        };
        assert_eq!(terminate(&info(), 1_790_000_060, status, None), expected);

        let actual = terminate(&info(), 1, TerminateStatus::Failed, Some("oh1.x.y"));
        let call = &actual["entry"][0]["changes"][0]["value"]["calls"][0];
        assert_eq!((call["status"].as_str(), call.get("duration")), (Some("FAILED"), None));
        assert_eq!(call["biz_opaque_callback_data"], "oh1.x.y");
    }

    #[test]
    fn m2_wire_bytes_are_ascii_and_parse_back() {
        let body = serde_json::json!({"name": "João 😀 a/b", "sdp": "x\r\n"});
        for escape in [false, true] {
            let wire = to_wire_bytes(&body, escape);
            assert!(wire.is_ascii());
            let text = String::from_utf8(wire.clone()).expect("ASCII");
            assert!(text.contains("Jo\\u00e3o \\ud83d\\ude00"), "{text}");
            assert_eq!(text.contains("a\\/b"), escape);
            assert_eq!(serde_json::from_slice::<Value>(&wire).expect("JSON"), body);
        }
    }

    #[test]
    fn m2_signature_matches_the_vectors() {
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
            let actual = signature(&text("secret"), &std::fs::read(path).expect("fixture"));
            assert_eq!(actual, text("header").trim());
            checked += 1;
        }
        assert!(checked > 0, "no vector was usable");
    }
}
