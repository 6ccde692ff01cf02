//! `POST /api/v1/conversations/{conversation_id}/messages/`: sends a message in the format of
//! Graph's `messages`.

use axum::response::Response;
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::error::ApiError;
use super::super::fields::unknown;
use super::super::routes::{Operation, RequestBody, ResponseSpec, Schemas};
use super::conversations;
use super::request::ApiRequest;
use super::response::accepted;
use super::route::{Route, error, handler};
use engine::inbox::{Outgoing, SendError, words};
use model::Role;

pub(super) const ROUTES: &[Route] = &[Route {
    role: Role::Agent,
    handler: handler!(send),
    operation: Operation::post(
        "/api/v1/conversations/{conversation_id}/messages/",
        "sendMessage",
        "Send a message: text, image, audio, video, document, sticker, location, contacts, template, \
         interactive or reaction",
    )
    .body(RequestBody::json_object(
        "`type`, and under the name of the type what it holds, as in Graph's `messages`. `text` may \
         be a string. A file has a `link`, or the `id` of an uploaded file. \
         `context`: {\"message_id\"} quotes a message",
        schema,
        #[cfg(test)]
        |body| {
            let body = body.as_object().cloned().unwrap_or_default();
            parse(body).map(drop).map_err(|e| format!("{e:?}"))
        },
    ))
    .responses(&[
        ResponseSpec::json::<SentMessage>(202, "Queued; its statuses follow"),
        error(
            409,
            "`disconnected`: the phone number must be reconnected first; `no_number`: it is no \
             longer connected to this node, or belongs to another account now; \
             `request_under_way`: a permission request to the user is being sent",
        ),
        error(
            422,
            "`window_closed`: the user has not written or called for 24 hours, send a template; \
             `permission_request_too_soon`: the message asks for permission to call, and \
             nextRequestAt says when that is allowed again",
        ),
        error(429, "Too many messages at once; see Retry-After"),
    ]),
}];

/// The types of messages without a file.
const KINDS: &[&str] = &["text", "location", "contacts", "template", "interactive", "reaction"];

/// Members of a message for Graph that are ignored, because they are the same for every message.
const IGNORED: [&str; 2] = ["messaging_product", "recipient_type"];

fn kinds() -> impl Iterator<Item = &'static str> {
    words::MEDIA.iter().chain(KINDS).copied()
}

/// The schema of a message: the members that [`validate`] requires for each type, and further ones
/// that Meta accepts.
fn schema(schemas: &mut Schemas) -> Value {
    let text = |most: usize| json!({"type": "string", "minLength": 1, "maxLength": most});
    let object = |required: &[&str], properties: Value| json!({"type": "object", "required": required, "properties": properties});
    let file = || {
        let properties = json!({
            "link": {"type": "string", "pattern": "^https?://", "description": "URL from which Meta fetches the file; or `id`"},
            "id": {"type": "string", "description": "Id of an uploaded file"},
            "caption": {"type": "string"},
            "filename": {"type": "string"},
        });
        object(&[], properties)
    };
    let content = |kind: &str| match kind {
        "text" => {
            let long = object(
                &["body"],
                json!({"body": text(TEXT_MAX), "preview_url": {"type": "boolean"}}),
            );
            json!({"anyOf": [text(TEXT_MAX), long]})
        }
        "template" => {
            let language = object(&["code"], json!({"code": {"type": "string", "minLength": 1}}));
            let parts = json!({"type": "array", "items": {"type": "object"}});
            let properties = json!({"name": {"type": "string", "minLength": 1}, "language": language, "components": parts});
            object(&["name", "language"], properties)
        }
        "reaction" => {
            let emoji = json!({"type": "string", "description": "Empty: remove the reaction"});
            object(
                &["message_id"],
                json!({"message_id": {"type": "string", "minLength": 1}, "emoji": emoji}),
            )
        }
        "location" => {
            let degrees =
                |most: u16| json!({"type": "number", "minimum": -i32::from(most), "maximum": most});
            let properties = json!({
                "latitude": degrees(90),
                "longitude": degrees(180),
                "name": {"type": "string"},
                "address": {"type": "string"},
            });
            object(&["latitude", "longitude"], properties)
        }
        "contacts" => json!({"type": "array", "minItems": 1, "items": {"type": "object"}}),
        "interactive" => {
            let word = json!({"type": "string", "minLength": 1, "description": "button, list, cta_url, voice_call, …"});
            object(&["type"], json!({ "type": word }))
        }
        _ => file(),
    };
    let mut properties: Map<String, Value> =
        kinds().map(|kind| (kind.to_owned(), content(kind))).collect();
    let words: Vec<&str> = kinds().collect();
    properties.insert("type".to_owned(), json!({"type": "string", "enum": words}));
    let context = object(&["message_id"], json!({"message_id": text(512)}));
    properties.insert(
        "context".to_owned(),
        json!({"anyOf": [context, {"type": "null"}], "description": "Quotes a message"}),
    );
    for name in IGNORED {
        let schema = json!({"type": "string", "description": "As for Graph; ignored"});
        properties.insert(name.to_owned(), schema);
    }
    let schema = json!({
        "type": "object",
        "additionalProperties": false,
        "description": "A message: its type, and what it holds under the name of the type",
        "required": ["type"],
        "properties": properties,
        "examples": [
            {"type": "text", "text": {"body": "Good morning!"}},
            {"type": "template", "template": {"name": "hello", "language": {"code": "en"}}},
            {"type": "image", "image": {"link": "https://example.com/a.png", "caption": "A"}},
        ],
    });
    schemas.insert("NewMessage".to_owned(), schema);
    json!({"$ref": "#/components/schemas/NewMessage"})
}

/// A message that was accepted for sending.
#[derive(Serialize, ToSchema)]
struct SentMessage {
    id: Uuid,
    status: &'static str,
}

/// Meta's limit for a text, in characters.
const TEXT_MAX: usize = 4_096;
/// Maximum size of a message's content, in bytes of JSON.
const CONTENT_MAX: usize = 64 << 10;

async fn send(mut request: ApiRequest) -> Result<Response, ApiError> {
    let conversation = conversations::find(&request).await?;
    let outgoing = parse(request.json().await?)?;
    // Stored responses prevent most duplicates. This key also prevents them if the process ended
    // before it responded.
    let key = request.head.headers.get("idempotency-key").and_then(|key| key.to_str().ok());
    let key = key.map(|key| format!("{} {key}", request.scope().auth_id()));
    let writer = &request.principal.actor.name;
    let sender = request.api().inbox.sender();
    let sent = sender.send(&conversation, outgoing, writer, key.as_deref()).await;
    let id = sent.map_err(|error| match error {
        SendError::NoNumber => {
            request.disconnected(&conversation.pair.number).unwrap_or_else(|| ApiError::from(error))
        }
        error => error.into(),
    })?;
    Ok(accepted(&SentMessage { id, status: "queued" }))
}

/// Parses a message, and validates what can be checked without Meta.
fn parse(mut body: Map<String, Value>) -> Result<Outgoing, ApiError> {
    let Some(Value::String(kind)) = body.remove("type") else {
        return Err(ApiError::bad_value("type", "type is missing: text, image, template, …"));
    };
    if !kinds().any(|known| known == kind) {
        let message = "type must be text, image, audio, video, document, sticker, location, \
            contacts, template, interactive or reaction";
        return Err(ApiError::bad_value("type", message));
    }
    let held = match body.remove(&kind).filter(|held| !held.is_null()) {
        Some(Value::String(text)) if kind == "text" => json!({ "body": text }),
        Some(held) => held,
        None => {
            let message = format!("{kind} is missing: the content of the message");
            return Err(ApiError::bad_value(kind, message));
        }
    };
    if held.to_string().len() > CONTENT_MAX {
        let message = format!("{kind} must be at most 64 KiB");
        return Err(ApiError::bad_value(kind, message));
    }
    validate(&kind, &held)?;
    let mut content = Map::new();
    content.insert(kind.clone(), held);
    if let Some(context) = body.remove("context").filter(|context| !context.is_null()) {
        let id = context
            .get("message_id")
            .and_then(Value::as_str)
            .filter(|id| (1..=512).contains(&id.len()));
        let id = id.ok_or_else(|| {
            let message = "context must be {\"message_id\"} with Meta's id of a message";
            ApiError::bad_value("context", message)
        })?;
        content.insert("context".to_owned(), json!({ "message_id": id }));
    }
    let known = || kinds().chain(["type", "context"]).chain(IGNORED);
    if let Some(name) = body.keys().find(|name| !known().any(|known| known == name.as_str())) {
        return Err(ApiError::bad_value(
            name.clone(),
            unknown(name, Vec::from_iter(known()).into_iter()),
        ));
    }
    Ok(Outgoing { kind, content: content.into() })
}

fn validate(kind: &str, held: &Value) -> Result<(), ApiError> {
    let text = |name: &str| held.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let require = |name: &str, is_valid: bool, what: &str| match is_valid {
        true => Ok(()),
        false => {
            let field = format!("{kind}.{name}");
            let message = format!("{field} {what}");
            Err(ApiError::bad_value(field, message))
        }
    };
    match kind {
        "text" => {
            let fits = text("body").is_some_and(|text| text.chars().count() <= TEXT_MAX);
            require("body", fits, "must be 1 to 4,096 characters")
        }
        "template" => {
            require("name", text("name").is_some(), "is missing")?;
            let has_language = held
                .pointer("/language/code")
                .and_then(Value::as_str)
                .is_some_and(|code| !code.is_empty());
            require("language", has_language, "must be like {\"code\": \"en\"}")
        }
        "reaction" => {
            let has_message = text("message_id").is_some();
            require("message_id", has_message, "is missing: Meta's id of a message")?;
            let is_text = held.get("emoji").is_none_or(Value::is_string);
            require("emoji", is_text, "must be an emoji, or empty to remove the reaction")
        }
        "location" => {
            let is_degrees = |name: &str, most: f64| {
                held.get(name).and_then(Value::as_f64).is_some_and(|n| n.abs() <= most)
            };
            require("latitude", is_degrees("latitude", 90.0), "must be between -90 and 90")?;
            require("longitude", is_degrees("longitude", 180.0), "must be between -180 and 180")
        }
        "contacts" => match held.as_array().is_some_and(|contacts| !contacts.is_empty()) {
            true => Ok(()),
            false => Err(ApiError::bad_value("contacts", "contacts must be a list")),
        },
        "interactive" => {
            let has_type = text("type").is_some();
            require("type", has_type, "is missing: button, list, cta_url, voice_call, …")
        }
        _ => {
            let is_one = text("id").is_some() != text("link").is_some();
            require("link", is_one, "or id is required, but not both")?;
            let is_http = text("link").is_none_or(words::is_web_link);
            require("link", is_http, "must be an http or https URL")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_refuses_messages() {
        let of = |body: Value| parse(body.as_object().unwrap().clone());
        let text = of(json!({"type": "text", "text": "Hello"})).unwrap();
        assert_eq!(text, Outgoing::text("Hello"));
        assert_eq!(of(json!({"type": "text", "text": {"body": "Hello"}})).unwrap(), text);
        let quoting = of(
            json!({"type": "text", "text": "x", "context": {"message_id": "wamid.1"}, "messaging_product": "whatsapp"}),
        )
        .unwrap();
        assert_eq!(
            quoting.content,
            json!({"text": {"body": "x"}, "context": {"message_id": "wamid.1"}})
        );
        for fine in [
            json!({"type": "image", "image": {"link": "https://example.com/a.png", "caption": "A"}}),
            json!({"type": "document", "document": {"id": "123"}}),
            json!({"type": "template", "template": {"name": "hello", "language": {"code": "en"}}}),
            json!({"type": "reaction", "reaction": {"message_id": "wamid.1", "emoji": "👍"}}),
            json!({"type": "interactive", "interactive": {"type": "button", "body": {"text": "?"}}}),
            json!({"type": "location", "location": {"latitude": 12.9, "longitude": 77.5}}),
            json!({"type": "contacts", "contacts": [{"name": {"formatted_name": "A"}}]}),
        ] {
            assert!(of(fine.clone()).is_ok(), "{fine}");
        }
        for wrong in [
            json!({}),
            json!({"type": "fax", "fax": {}}),
            json!({"type": "text"}),
            json!({"type": "text", "text": ""}),
            json!({"type": "text", "text": "x".repeat(4_097)}),
            json!({"type": "image", "image": {}}),
            json!({"type": "image", "image": {"id": "1", "link": "https://example.com"}}),
            json!({"type": "image", "image": {"link": "file:///etc/passwd"}}),
            json!({"type": "template", "template": {"name": "hello"}}),
            json!({"type": "location", "location": {"latitude": 91, "longitude": 0}}),
            json!({"type": "text", "text": "x", "context": {}}),
            json!({"type": "text", "text": "x", "other": 1}),
        ] {
            assert!(matches!(of(wrong.clone()), Err(ApiError::BadRequest { .. })), "{wrong}");
        }
    }
}
