//! The JSON and form encodings of messages, for webhooks, agents, lists and Plivo-compatible
//! callbacks. Pure.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::meta::text_or_digits;
use model::{AuthId, Direction, E164, Timestamp};
use store::{NOTE, NewMessage, UserName};

/// The maximum length of a message's text in lists, in characters.
const SHORT: usize = 200;

/// An event in the form that webhooks get.
pub fn event(
    id: Uuid,
    kind: &str,
    at: Timestamp,
    account: &AuthId,
    number: Option<&E164>,
    data: Value,
) -> Value {
    json!({
        "id": id,
        "type": kind,
        "createdAt": at.to_string(),
        "account": account.as_str(),
        "number": number.map(E164::as_str),
        "data": data,
    })
}

/// A message as JSON: the common members, the text, the file, and the content under the name of its
/// type. `media_url` is the URL of a file at this node; a file that was sent by a link has its link.
pub fn message(message: &NewMessage, media_url: Option<&str>) -> Value {
    let mut shown = json!({
        "id": message.id,
        "wamid": message.wamid,
        "type": message.kind,
        "direction": message.direction,
        "text": text_of(&message.kind, &message.content),
        "status": message.status,
        "at": message.at.to_string(),
    });
    let Some(members) = shown.as_object_mut() else { return shown };
    if let Some(file) = media(&message.content, &message.kind) {
        let is_ours = message.direction == Direction::Outbound;
        // An agent can reply with any text as a link.
        let link = file.get("link").and_then(Value::as_str).filter(|_| is_ours);
        let link = link.filter(|link| is_web_link(link));
        members.insert(
            "media".to_owned(),
            json!({
                "url": link.or(media_url),
                "mimeType": file.get("mime_type"),
                "sha256": file.get("sha256"),
                "caption": file.get("caption"),
                "filename": file.get("filename"),
            }),
        );
    } else if message.kind == NOTE {
        // A note goes nowhere.
        members.retain(|name, _| !["wamid", "direction", "status"].contains(&&**name));
    } else if message.kind != "text"
        && let Some(held) = message.content.get(&message.kind)
    {
        members.insert(message.kind.clone(), held.clone());
    }
    for also in ["context", "referral", "errors"] {
        if let Some(held) = message.content.get(also) {
            members.insert(also.to_owned(), held.clone());
        }
    }
    shown
}

/// The message types that carry a file.
pub const MEDIA: &[&str] = &["image", "audio", "video", "document", "sticker"];

/// Whether a file's link is an http or https URL.
pub fn is_web_link(link: &str) -> bool {
    link.starts_with("https://") || link.starts_with("http://")
}

/// The description of a message's file.
pub fn media<'a>(content: &'a Value, kind: &str) -> Option<&'a Value> {
    MEDIA.contains(&kind).then(|| content.get(kind)).flatten()
}

/// Meta's media id of a message's file.
pub fn media_id<'a>(content: &'a Value, kind: &str) -> Option<&'a str> {
    media(content, kind)?.get("id")?.as_str()
}

fn at<'a>(content: &'a Value, pointer: &str) -> Option<&'a str> {
    content.pointer(pointer).and_then(Value::as_str)
}

/// The full text of a message. `None` if it has none.
pub fn text_of(kind: &str, content: &Value) -> Option<String> {
    let of = |pointer: &str| at(content, pointer).map(str::to_owned);
    match kind {
        "text" => of("/text/body"),
        "button" => of("/button/text"),
        "interactive" => [
            "/interactive/button_reply/title",
            "/interactive/list_reply/title",
            "/interactive/nfm_reply/body",
            "/interactive/body/text",
        ]
        .into_iter()
        .find_map(of),
        "reaction" => of("/reaction/emoji"),
        NOTE => of("/note/text"),
        "system" => of("/system/body"),
        // The name, if the template could not be read when the message was sent.
        "template" => of("/rendered/text").or_else(|| of("/template/name")),
        kind if MEDIA.contains(&kind) => of(&format!("/{kind}/caption")),
        _ => None,
    }
}

/// A one-line summary of a message, for lists.
pub fn short(kind: &str, content: &Value) -> String {
    let text = text_of(kind, content).filter(|text| !text.is_empty());
    let text = match kind {
        "location" => at(content, "/location/name")
            .map_or_else(|| "Location".to_owned(), |name| format!("Location: {name}")),
        "contacts" => "Contacts".to_owned(),
        "template" if at(content, "/rendered/text").is_none() => {
            format!("Template {}", text.unwrap_or_default())
        }
        "reaction" => {
            text.map_or_else(|| "Reaction removed".to_owned(), |emoji| format!("Reacted {emoji}"))
        }
        "interactive" => match at(content, "/interactive/call_permission_reply/response") {
            Some(response) => format!("Call permission: {response}"),
            None if at(content, "/interactive/type") == Some("call_permission_request") => {
                "Asked for permission to call".to_owned()
            }
            None => text.unwrap_or_else(|| "Interactive message".to_owned()),
        },
        "call" => at(content, "/call/text").unwrap_or("Call").to_owned(),
        kind if MEDIA.contains(&kind) => {
            let mut name = kind.to_owned();
            if let Some(first) = name.get_mut(..1) {
                first.make_ascii_uppercase();
            }
            text.map_or(name.clone(), |caption| format!("{name}: {caption}"))
        }
        "unsupported" | "unknown" => "A message of a kind that is not supported".to_owned(),
        _ => text.unwrap_or_default(),
    };
    text.chars().take(SHORT).collect()
}

/// A user's message as Plivo-compatible callback parameters, without those that all callbacks
/// share.
pub fn form(
    number: &E164,
    user: &UserName,
    message: &NewMessage,
    media_url: Option<&str>,
) -> Vec<(String, String)> {
    let content = &message.content;
    let mut form = vec![
        ("From".to_owned(), user.id.clone()),
        ("To".to_owned(), number.to_string()),
        ("MessageUUID".to_owned(), message.id.to_string()),
    ];
    let mut put = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            form.push((name.to_owned(), value.to_owned()));
        }
    };
    put("WhatsappMessageID", message.wamid.as_deref());
    put("ProfileName", Some(user.name.as_str()).filter(|name| !name.is_empty()));
    let of_context = |pointer: &str| content.pointer(pointer).and_then(text_or_digits);
    put("ContextWhatsappMessageID", of_context("/context/id").as_deref());
    put("ContextWhatsappNumber", of_context("/context/from").as_deref());
    let kind = message.kind.as_str();
    put("ContentType", Some(content_type(kind)));
    match kind {
        "text" => put("Body", at(content, "/text/body")),
        "button" => {
            put("ButtonText", at(content, "/button/text"));
            put("ButtonPayload", at(content, "/button/payload"));
        }
        "interactive" => {
            put("ButtonText", at(content, "/interactive/button_reply/title"));
            put("ButtonPayload", at(content, "/interactive/button_reply/id"));
            put("ListTitle", at(content, "/interactive/list_reply/title"));
            put("ListDescription", at(content, "/interactive/list_reply/description"));
            put("ButtonPayload", at(content, "/interactive/list_reply/id"));
            put("Body", at(content, "/interactive/nfm_reply/response_json"));
        }
        "reaction" => {
            put("Reaction", Some(at(content, "/reaction/emoji").unwrap_or_default()));
            let target = content.pointer("/reaction/message_id").and_then(text_or_digits);
            put("ContextWhatsappMessageID", target.as_deref());
        }
        "location" => {
            // Meta sends them as numbers or as strings.
            let number = |name: &str| match content.pointer(&format!("/location/{name}"))? {
                Value::String(text) => Some(text.clone()),
                held => Some(held.to_string()),
            };
            put("Latitude", number("latitude").as_deref());
            put("Longitude", number("longitude").as_deref());
            put("LocationName", at(content, "/location/name"));
            put("LocationAddress", at(content, "/location/address"));
        }
        "contacts" => put("Body", content.get("contacts").map(ToString::to_string).as_deref()),
        kind if MEDIA.contains(&kind) => {
            put("MediaCount", Some("1"));
            put("Media0", media_url);
            put("Caption0", at(content, &format!("/{kind}/caption")));
        }
        _ => {}
    }
    form
}

/// The Plivo-compatible `ContentType`.
fn content_type(kind: &str) -> &'static str {
    match kind {
        "text" => "text",
        "button" | "interactive" => "button",
        "reaction" => "reaction",
        "location" => "location",
        "contacts" => "contact",
        kind if MEDIA.contains(&kind) => "media",
        _ => "unsupported",
    }
}

/// A message as text for an agent. Unlike [`text_of`], it describes a location.
pub fn text_for_agent(kind: &str, content: &Value, shown: &str) -> String {
    if kind != "location" {
        return text_of(kind, content).unwrap_or_else(|| shown.to_owned());
    }
    let place = ["/location/name", "/location/address"]
        .map(|pointer| at(content, pointer).unwrap_or_default());
    let place = place.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ");
    let degrees = |name: &str| match content.pointer(&format!("/location/{name}")) {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        Some(_) | None => None,
    };
    let at = degrees("latitude")
        .zip(degrees("longitude"))
        .map(|(latitude, longitude)| format!(" ({latitude}, {longitude})"));
    let colon = if place.is_empty() { "" } else { ": " };
    format!("Location{colon}{place}{}", at.unwrap_or_default())
}

/// The maximum length of a stored string (`docs/reference/meta.md#bounds`), in bytes.
const TEXT_MAX: usize = 4_096;
/// The maximum nesting depth of stored content.
const DEPTH_MAX: usize = 32;

/// Truncates content from Meta to its bounds.
pub fn bounded(value: Value) -> Value {
    fn bound(value: Value, depth: usize) -> Value {
        match value {
            Value::String(mut text) => {
                let mut end = text.len().min(TEXT_MAX);
                while !text.is_char_boundary(end) {
                    end -= 1;
                }
                text.truncate(end);
                Value::String(text)
            }
            Value::Array(_) | Value::Object(_) if depth == 0 => Value::Null,
            Value::Array(items) => items.into_iter().map(|item| bound(item, depth - 1)).collect(),
            Value::Object(members) => Value::Object(
                members
                    .into_iter()
                    .map(|(name, value)| (name, bound(value, depth - 1)))
                    .collect::<Map<_, _>>(),
            ),
            other => other,
        }
    }
    bound(value, DEPTH_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Direction, MessageStatus};

    #[test]
    fn form_accepts_coordinates_as_numbers_and_strings() {
        let number = E164::parse("918035737458").expect("a number");
        let user = UserName { id: "91".to_owned(), bsuid: None, name: String::new() };
        for held in [
            json!({"latitude": 12.5, "longitude": -77}),
            json!({"latitude": "12.5", "longitude": "-77"}),
        ] {
            let message = NewMessage {
                id: Uuid::nil(),
                wamid: None,
                direction: Direction::Inbound,
                kind: "location".to_owned(),
                text: String::new(),
                content: json!({ "location": held }),
                status: MessageStatus::Received,
                sender: None,
                at: Timestamp::from_secs(1),
            };
            let form = form(&number, &user, &message, None);
            let of = |name: &str| {
                form.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
            };
            assert_eq!((of("Latitude"), of("Longitude")), (Some("12.5"), Some("-77")), "{held}");
        }
    }

    #[test]
    fn only_web_links_of_sent_files_are_shown() {
        let url = |direction, link: &str| {
            let message = NewMessage {
                id: Uuid::nil(),
                wamid: None,
                direction,
                kind: "document".to_owned(),
                text: String::new(),
                content: json!({"document": {"link": link}}),
                status: MessageStatus::Sent,
                sender: None,
                at: Timestamp::from_secs(1),
            };
            super::message(&message, Some("at the node"))["media"]["url"].clone()
        };
        let link = "https://cdn.example.com/a.pdf";
        assert_eq!(url(Direction::Outbound, link), link);
        assert_eq!(url(Direction::Inbound, link), "at the node");
        for hostile in ["javascript:alert(1)", "data:text/html,x", "file:///etc/passwd"] {
            assert_eq!(url(Direction::Outbound, hostile), "at the node");
        }
    }

    #[test]
    fn agents_get_the_place_of_a_location() {
        let asked = |location: Value| {
            text_for_agent("location", &serde_json::json!({ "location": location }), "Location")
        };
        let whole = serde_json::json!({"latitude": 12.5, "longitude": "77.25", "name": "Shop", "address": "MG Road"});
        assert_eq!(asked(whole), "Location: Shop, MG Road (12.5, 77.25)");
        assert_eq!(asked(serde_json::json!({"latitude": 1, "longitude": -2})), "Location (1, -2)");
        assert_eq!(asked(serde_json::json!({"latitude": 1})), "Location");
        assert_eq!(text_for_agent("text", &serde_json::json!({"text": {"body": "Hi"}}), "x"), "Hi");
        assert_eq!(text_for_agent("contacts", &serde_json::json!({}), "Contacts"), "Contacts");
    }
}
