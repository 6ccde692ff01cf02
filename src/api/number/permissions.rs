//! `/api/v1/permissions/{number}/{waId}/`: what a user allows a number, and asking them (`number-api.md` §4).

use std::sync::Arc;

use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::super::error::{self, MetaWord, Trouble};
use super::super::routes::{Answer, Body, Content, Kind, Query, Route, Schemas, of};
use super::super::{decoded, fields};
use super::Timestamp3339;
use super::ask::{self, Asked, Fault, digits};
use super::bodies::Taken;
use crate::admission::NumberEntry;
use crate::admission::permission::{State, View};
use crate::call::consent::{NotSent, Sent};
use crate::meta::code;
use crate::meta::permissions::Request;
use machine::GraphOutcome;
use model::Timestamp;

/// What is read of bodies.
pub(super) const BODIES: &[Taken] = &[Taken::looked_at(
    "requestPermission",
    schema,
    #[cfg(test)]
    |body| read(body.to_string().as_bytes()).map(drop).map_err(|no| no.status().to_string()),
)];

fn schema(into: &mut Schemas) -> Value {
    let schema = json!({
        "type": "object",
        "description": "Words of our own, or a template; without either words of Meta's",
        "properties": {
            "text": {"type": ["string", "null"], "minLength": 1, "maxLength": TEXT_MAX},
            "template": {
                "type": ["object", "null"],
                "required": ["name", "language"],
                "properties": {
                    "name": {"type": "string", "minLength": 1},
                    "language": {"type": "object", "properties": {"code": {"type": "string"}}},
                    "components": {"type": "array", "items": {"type": "object"}},
                },
            },
        },
        "examples": [{"text": "May we call you about your order?"}],
    });
    into.insert("NewPermissionRequest".to_owned(), schema);
    json!({"$ref": "#/components/schemas/NewPermissionRequest"})
}

/// What is served.
pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "GET",
        path: "/api/v1/permissions/{number}/{wa_id}/",
        id: "permission",
        summary: "What a user allows a number, and what remains of Meta's limits",
        query: &[Query {
            name: "refresh",
            what: "true: asks Meta",
            kind: Kind::Words(&["true", "false"]),
        }],
        body: None,
        answers: &[
            Answer { status: 200, what: "As it is known", content: Content::Json(of::<Shown>) },
            Answer {
                status: 409,
                what: "`disconnected`",
                content: Content::Json(of::<error::OurBody<'static>>),
            },
        ],
    },
    Route {
        method: "POST",
        path: "/api/v1/permissions/{number}/{wa_id}/request/",
        id: "requestPermission",
        summary: "Asks a user to allow calls, with a text, a template, or words of Meta's",
        query: &[],
        body: Some(Body {
            content_type: "application/json",
            what: "Nothing, {\"text\"} of 1 to 1,024 characters, or {\"template\"}",
        }),
        answers: &[
            Answer { status: 202, what: "Sent", content: Content::Json(of::<Requested>) },
            Answer {
                status: 409,
                what: "One is being sent",
                content: Content::Json(of::<error::OurBody<'static>>),
            },
            Answer {
                status: 422,
                what: "A rule of WhatsApp forbids it; nextRequestAt says when it is allowed again",
                content: Content::Json(of::<error::OurBody<'static>>),
            },
            Answer {
                status: 502,
                what: "Meta refused or failed",
                content: Content::Json(of::<error::OurBody<'static>>),
            },
        ],
    },
];

/// Longest text of a request, in characters: Meta's bound of an interactive message's body.
const TEXT_MAX: usize = 1_024;
/// Longest business-scoped id.
const USER_MAX: usize = 128;
/// Largest template, in bytes.
const TEMPLATE_MAX: usize = 16 * 1024;

/// A pair as our API shows it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Permission)]
pub(super) struct Shown {
    status: &'static str,
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp3339>,
    missed: u32,
    warned: bool,
    calls_left: u32,
    #[schema(value_type = Option<String>, format = DateTime)]
    next_call_at: Option<Timestamp3339>,
    requests_left: u32,
    #[schema(value_type = Option<String>, format = DateTime)]
    next_request_at: Option<Timestamp3339>,
    source: &'static str,
    #[schema(value_type = Option<String>, format = DateTime)]
    checked_at: Option<Timestamp3339>,
}

/// A request that was sent.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PermissionRequest)]
pub(super) struct Requested {
    message_id: String,
    #[serde(flatten)]
    permission: Shown,
}

impl From<&View> for Shown {
    fn from(view: &View) -> Self {
        let time = |at: Option<Timestamp>| at.map(Timestamp3339);
        Self {
            status: view.state.as_str(),
            expires_at: match view.state {
                State::Temporary { until } => Some(Timestamp3339(until)),
                State::None | State::Requested | State::Permanent => None,
            },
            missed: view.missed,
            warned: view.warned,
            calls_left: view.calls_left,
            next_call_at: time(view.next_call),
            requests_left: view.requests_left,
            next_request_at: time(view.next_request),
            source: if view.by_meta { "meta" } else { "local" },
            checked_at: time(view.checked),
        }
    }
}

/// `GET …/permissions/{number}/{wa_id}/`.
pub(super) async fn view(asked: &Asked, [number, user]: [&str; 2]) -> Result<Response, Fault> {
    let (number, user) = found(asked, number, user)?;
    let view = asked
        .api()
        .permissions
        .view(&number, &user, asked.flag("refresh")?.unwrap_or_default())
        .await;
    Ok(ask::ok(&Shown::from(&view)))
}

/// `POST …/permissions/{number}/{wa_id}/request/`.
pub(super) async fn request(asked: Asked, [number, user]: [&str; 2]) -> Result<Response, Fault> {
    let (number, user) = found(&asked, number, user)?;
    let shared = asked.shared.clone();
    let request = read(&asked.bytes().await?)?;
    let sent = shared.api.permissions.request(&number, &user, &request).await;
    if let Ok(sent) = &sent {
        let text = match &request {
            Request::Text(text) => text.as_deref(),
            Request::Template(_) => None,
        };
        shared.api.inbox.permission_requested(&number, &user, &sent.message, text);
    }
    Ok(answer(sent))
}

/// The pair that a path names.
fn found(asked: &Asked, number: &str, user: &str) -> Result<(Arc<NumberEntry>, String), Fault> {
    let number = ask::number_of(asked, number)?;
    let why = "this is no user: digits with country code, or a business-scoped id like IN.123";
    Ok((number, user_of(user).ok_or_else(|| ask::bad("waId", why))?))
}

/// A user: digits, however they are written, or a business-scoped id.
pub(super) fn user_of(text: &str) -> Option<String> {
    let text = decoded(text);
    let scoped = text.split_once('.').is_some_and(|(country, digits)| {
        country.len() == 2
            && country.bytes().all(|b| b.is_ascii_uppercase())
            && (1..=USER_MAX).contains(&digits.len())
            && digits.bytes().all(|b| b.is_ascii_digit())
    });
    if scoped { Some(text) } else { digits(&text).map(String::from) }
}

fn read(bytes: &[u8]) -> Result<Request, Fault> {
    let bad = |field, message: &str| {
        Box::new(error::json(StatusCode::BAD_REQUEST, "bad_value", message, field))
    };
    let body = match bytes {
        [] => serde_json::Map::new(),
        bytes => fields::object(bytes).map_err(|why| bad(None, &why))?,
    };
    let given = |name: &str| body.get(name).filter(|value| !value.is_null());
    let text = match given("text") {
        None => None,
        Some(Value::String(text)) if (1..=TEXT_MAX).contains(&text.chars().count()) => {
            Some(text.clone())
        }
        Some(_) => return Err(bad(Some("text"), "text must have 1 to 1,024 characters")),
    };
    match given("template") {
        None => Ok(Request::Text(text)),
        Some(_) if text.is_some() => Err(bad(Some("template"), "give text or template, not both")),
        Some(template) => {
            let named =
                template.get("name").and_then(Value::as_str).is_some_and(|name| !name.is_empty());
            let spoken = template.get("language").is_some_and(Value::is_object);
            if named && spoken && template.to_string().len() <= TEMPLATE_MAX {
                Ok(Request::Template(template.clone()))
            } else {
                let message = "template must be an object with name, language {\"code\"} and perhaps components";
                Err(bad(Some("template"), message))
            }
        }
    }
}

fn answer(sent: Result<Sent, NotSent>) -> Response {
    let refused = match sent {
        Ok(sent) => {
            let asked = Requested { message_id: sent.message, permission: Shown::from(&sent.view) };
            return error::body(StatusCode::ACCEPTED, &asked);
        }
        Err(refused) => refused,
    };
    let trouble = |status, code, message: String| Trouble {
        status,
        code,
        message,
        field: None,
        meta: None,
        next_request: None,
        next_call: None,
    };
    error::trouble(&match refused {
        NotSent::TooSoon(refusal) => Trouble {
            next_request: Some(refusal.again),
            ..trouble(
                StatusCode::UNPROCESSABLE_ENTITY,
                "permission_request_too_soon",
                refusal.to_string(),
            )
        },
        NotSent::UnderWay => trouble(
            StatusCode::CONFLICT,
            "request_under_way",
            "a request to this user is being sent".to_owned(),
        ),
        NotSent::Graph(GraphOutcome::Refused { code, details, .. }) => {
            let (status, word, message) = match code {
                code::WINDOW_CLOSED => (
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "window_closed",
                    "the user has not written or called for 24 hours: send a template",
                ),
                code::UNDELIVERABLE => (
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "undeliverable",
                    "the user can't be reached on WhatsApp",
                ),
                _ => (StatusCode::BAD_GATEWAY, "meta_refused", "Meta refused the request"),
            };
            let meta = Some(MetaWord { code, message: details });
            Trouble { meta, ..trouble(status, word, message.to_owned()) }
        }
        NotSent::Graph(GraphOutcome::RateLimited { code }) => {
            let meta = Some(MetaWord { code, message: "asked too often".to_owned() });
            let message = "Meta is asked too often; try again later".to_owned();
            Trouble { meta, ..trouble(StatusCode::BAD_GATEWAY, "meta_busy", message) }
        }
        NotSent::Graph(
            GraphOutcome::Done
            | GraphOutcome::Gone
            | GraphOutcome::ServerError { .. }
            | GraphOutcome::Timeout
            | GraphOutcome::Unreachable,
        ) => {
            let message =
                "Meta did not answer as it should; whether the user was asked is not known"
                    .to_owned();
            trouble(StatusCode::BAD_GATEWAY, "meta_failed", message)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::{decoded, digits, user_of};

    #[test]
    fn users_and_numbers_however_they_are_written() {
        for text in
            ["919412341234", "+919412341234", "%2B91%2094123%2041234", "whatsapp:+919412341234"]
        {
            assert_eq!(user_of(text).as_deref(), Some("919412341234"), "{text}");
        }
        assert_eq!(user_of("IN.30155408211934477").as_deref(), Some("IN.30155408211934477"));
        for text in ["", "me", "in.301", "IN.", "I.3", "IN.3x", "123"] {
            assert_eq!(user_of(text), None, "{text}");
        }
        assert_eq!(digits("WhatsApp:918035737458").unwrap().as_str(), "918035737458");
        assert_eq!(decoded("a%2Fb"), "a/b");
    }
}
