//! `POST /api/v1/conversations/{conversation_id}/messages/`: a message to a user, as Graph's `messages` has it (`number-api.md` §4).

use axum::response::Response;
use http::{StatusCode, header};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::error::{self, Trouble};
use super::super::routes::{Answer, Body, Content, Route, Schemas, of};
use super::super::with_header;
use super::ask::{self, Asked, Fault};
use super::bodies::Taken;
use super::conversations;
use crate::inbox::{NotSent, Outgoing, words};

/// What is read of bodies.
pub(super) const BODIES: &[Taken] = &[Taken::looked_at(
    "sendMessage",
    schema,
    #[cfg(test)]
    |body| {
        read(body.as_object().cloned().unwrap_or_default())
            .map(drop)
            .map_err(|no| no.status().to_string())
    },
)];

/// Types beside those that hold a file.
const KINDS: &[&str] = &["text", "location", "contacts", "template", "interactive", "reaction"];

fn kinds() -> impl Iterator<Item = &'static str> {
    words::MEDIA.iter().chain(KINDS).copied()
}

/// What [`check`] wants of each type, with what Meta knows besides.
fn schema(into: &mut Schemas) -> Value {
    let text = |most: usize| json!({"type": "string", "minLength": 1, "maxLength": most});
    let object = |required: &[&str], properties: Value| json!({"type": "object", "required": required, "properties": properties});
    let file = || {
        let properties = json!({
            "link": {"type": "string", "pattern": "^https?://", "description": "Where Meta fetches it; or `id`"},
            "id": {"type": "string", "description": "Of one that was uploaded"},
            "caption": {"type": "string"},
            "filename": {"type": "string"},
        });
        object(&[], properties)
    };
    let held = |kind: &str| match kind {
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
            let emoji = json!({"type": "string", "description": "Empty: takes it away"});
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
        kinds().map(|kind| (kind.to_owned(), held(kind))).collect();
    let words: Vec<&str> = kinds().collect();
    properties.insert("type".to_owned(), json!({"type": "string", "enum": words}));
    let context = object(&["message_id"], json!({"message_id": text(512)}));
    properties.insert(
        "context".to_owned(),
        json!({"anyOf": [context, {"type": "null"}], "description": "Quotes a message"}),
    );
    let schema = json!({
        "type": "object",
        "description": "A message: its type, and what the type holds under its name",
        "required": ["type"],
        "properties": properties,
        "examples": [
            {"type": "text", "text": {"body": "Good morning!"}},
            {"type": "template", "template": {"name": "hello", "language": {"code": "en"}}},
            {"type": "image", "image": {"link": "https://example.com/a.png", "caption": "A"}},
        ],
    });
    into.insert("NewMessage".to_owned(), schema);
    json!({"$ref": "#/components/schemas/NewMessage"})
}

/// What is served.
pub(super) const ROUTES: &[Route] = &[Route {
    method: "POST",
    path: "/api/v1/conversations/{conversation_id}/messages/",
    id: "sendMessage",
    summary: "Sends a message: text, image, audio, video, document, sticker, location, contacts, template, interactive, reaction",
    query: &[],
    body: Some(Body {
        content_type: "application/json",
        what: "{\"type\", and what the type holds under its name, as Graph's messages has it; text may be plain text; \
            a file has a link, or the id of one that was uploaded; \
            \"context\": {\"message_id\"} quotes a message}",
    }),
    answers: &[
        Answer {
            status: 202,
            what: "It is on its way; its statuses follow",
            content: Content::Json(of::<Sent>),
        },
        Answer {
            status: 409,
            what: "`disconnected`: its number is to be reconnected first; `no_number`: it is not there any more; \
                `request_under_way`: the user is being asked for permission this moment",
            content: Content::Json(of::<error::OurBody<'static>>),
        },
        Answer {
            status: 422,
            what: "`window_closed`: the user has not written or called for 24 hours; send a template. \
                `permission_request_too_soon`: it asks for permission to call, and nextRequestAt says when that is allowed again",
            content: Content::Json(of::<error::OurBody<'static>>),
        },
        Answer {
            status: 429,
            what: "Too many at once; see Retry-After",
            content: Content::Json(of::<error::OurBody<'static>>),
        },
    ],
}];

/// A message that was taken.
#[derive(Serialize, ToSchema)]
#[schema(as = SentMessage)]
pub(super) struct Sent {
    id: Uuid,
    status: &'static str,
}

/// Meta's bound of a text, in characters.
const TEXT_MAX: usize = 4_096;
/// Largest of what a type holds, in bytes of JSON.
const CONTENT_MAX: usize = 64 << 10;

pub(super) async fn send(asked: Asked, id: &str) -> Result<Response, Fault> {
    let conversation = conversations::found(&asked, id).await?;
    let (asked, body) = asked.json::<Map<String, Value>>().await?;
    let outgoing = read(body)?;
    // Beside the answers that are kept: of what a user gets, none is doubled either where its process ended before it answered.
    let once = asked.head.headers.get("idempotency-key").and_then(|key| key.to_str().ok());
    let once = once.map(|key| format!("{} {key}", asked.scope().auth_id()));
    let sent = asked.api().inbox.send(&conversation, outgoing, "api", once.as_deref()).await;
    let refused = |why| match why {
        NotSent::NoNumber => {
            ask::out_of_service(&asked, &conversation.pair.number).unwrap_or_else(|| not_sent(why))
        }
        why => not_sent(why),
    };
    Ok(error::body(StatusCode::ACCEPTED, &Sent { id: sent.map_err(refused)?, status: "queued" }))
}

fn not_sent(why: NotSent) -> Fault {
    match why {
        NotSent::Gone => ask::missing("there is no such conversation"),
        NotSent::NoNumber => ask::conflict("no_number", "its number is not there any more"),
        NotSent::Stale => ask::conflict("stale", "somebody else answers in this conversation now"),
        NotSent::WindowClosed => {
            let why = "the user has not written or called for 24 hours: only a template can be sent, \
                {\"type\": \"template\", \"template\": {\"name\", \"language\": {\"code\"}}}";
            ask::rule("window_closed", why, None)
        }
        NotSent::TooSoon(refusal) => Box::new(error::trouble(&Trouble {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            code: "permission_request_too_soon",
            message: refusal.to_string(),
            field: None,
            meta: None,
            next_request: Some(refusal.again),
            next_call: None,
        })),
        NotSent::Asking => {
            ask::conflict("request_under_way", "a request to this user is being sent")
        }
        NotSent::TooMany(seconds) => {
            let why = "too many messages at once";
            let answer = error::json(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", why, None);
            Box::new(with_header(answer, header::RETRY_AFTER, &seconds.to_string()))
        }
        NotSent::Store(error) => ask::store("send a message")(error),
    }
}

/// Reads and checks what a message holds; what Meta alone can judge is left to Meta.
fn read(mut body: Map<String, Value>) -> Result<Outgoing, Fault> {
    let Some(Value::String(kind)) = body.remove("type") else {
        return Err(ask::bad("type", "type is missing: text, image, template, …"));
    };
    if !kinds().any(|known| known == kind) {
        let why = "type must be text, image, audio, video, document, sticker, location, contacts, template, interactive or reaction";
        return Err(ask::bad("type", why));
    }
    let held = match body.remove(&kind).filter(|held| !held.is_null()) {
        Some(Value::String(text)) if kind == "text" => json!({ "body": text }),
        Some(held) => held,
        None => return Err(ask::bad(&kind, &format!("{kind} is missing: what the message holds"))),
    };
    if held.to_string().len() > CONTENT_MAX {
        return Err(ask::bad(&kind, "it is larger than 64 KiB"));
    }
    check(&kind, &held)?;
    let mut content = Map::new();
    content.insert(kind.clone(), held);
    if let Some(context) = body.remove("context").filter(|context| !context.is_null()) {
        let named = context
            .get("message_id")
            .and_then(Value::as_str)
            .filter(|id| (1..=512).contains(&id.len()));
        let named = named.ok_or_else(|| {
            ask::bad("context", "context must be {\"message_id\"}: Meta's id of a message")
        })?;
        content.insert("context".to_owned(), json!({ "message_id": named }));
    }
    Ok(Outgoing { kind, content: content.into() })
}

fn check(kind: &str, held: &Value) -> Result<(), Fault> {
    let text = |name: &str| held.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let need = |field: &str, fine: bool, why: &str| match fine {
        true => Ok(()),
        false => Err(ask::bad(&format!("{kind}.{field}"), why)),
    };
    match kind {
        "text" => {
            let fits = text("body").is_some_and(|text| text.chars().count() <= TEXT_MAX);
            need("body", fits, "a text has 1 to 4,096 characters")
        }
        "template" => {
            need("name", text("name").is_some(), "a template has a name")?;
            let spoken = held
                .pointer("/language/code")
                .and_then(Value::as_str)
                .is_some_and(|code| !code.is_empty());
            need("language", spoken, "a template has a language: {\"code\": \"en\"}")
        }
        "reaction" => {
            need(
                "message_id",
                text("message_id").is_some(),
                "a reaction names a message: Meta's id of it",
            )?;
            need(
                "emoji",
                held.get("emoji").is_none_or(Value::is_string),
                "an emoji, or an empty text to remove it",
            )
        }
        "location" => {
            let number = |name: &str, most: f64| {
                held.get(name).and_then(Value::as_f64).is_some_and(|n| n.abs() <= most)
            };
            need("latitude", number("latitude", 90.0), "from -90 to 90")?;
            need("longitude", number("longitude", 180.0), "from -180 to 180")
        }
        "contacts" => match held.as_array().is_some_and(|contacts| !contacts.is_empty()) {
            true => Ok(()),
            false => Err(ask::bad("contacts", "contacts must be a list")),
        },
        "interactive" => {
            need("type", text("type").is_some(), "button, list, cta_url, voice_call, …")
        }
        _ => {
            let one = text("id").is_some() != text("link").is_some();
            need("link", one, "a file has a link or Meta's id of it, and not both")?;
            let linked = text("link")
                .is_none_or(|link| link.starts_with("https://") || link.starts_with("http://"));
            need("link", linked, "a link begins with https://")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_message_may_hold() {
        let of = |body: Value| read(body.as_object().unwrap().clone());
        let text = of(json!({"type": "text", "text": "Hello"})).unwrap();
        assert_eq!(text, Outgoing::text("Hello"));
        assert_eq!(of(json!({"type": "text", "text": {"body": "Hello"}})).unwrap(), text);
        let quoting = of(
            json!({"type": "text", "text": "x", "context": {"message_id": "wamid.1"}, "other": 1}),
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
        ] {
            assert_eq!(of(wrong.clone()).unwrap_err().status(), StatusCode::BAD_REQUEST, "{wrong}");
        }
    }
}
