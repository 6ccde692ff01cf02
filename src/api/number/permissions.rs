//! `/api/v1/permissions/{number}/{wa_id}/`: a user's permission for calls from a business number,
//! and requesting it.

use std::sync::Arc;

use axum::response::Response;
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::super::error::ApiError;
use super::super::fields;
use super::super::routes::{Operation, QueryParameter, RequestBody, ResponseSpec, Schemas};
use super::request::{ApiRequest, parse_user_number};
use super::response::{Timestamp3339, accepted, ok};
use super::route::{META_FAILED, Route, error, handler};
use engine::admission::NumberEntry;
use engine::admission::permission::{State, View};
use engine::meta::permissions::Request;
use model::{Role, Timestamp};

pub(super) const ROUTES: &[Route] = &[
    Route {
        role: Role::Agent,
        handler: handler!(get),
        operation: Operation::get(
            "/api/v1/permissions/{number}/{wa_id}/",
            "permission",
            "Retrieve a user's call permission, and what remains of Meta's limits",
        )
        .query(&[QueryParameter::flag("refresh", "true: ask Meta")])
        .responses(&[
            ResponseSpec::json::<Permission>(200, "The permission as the node knows it"),
            error(409, "`disconnected`: the phone number must be reconnected first"),
        ]),
    },
    Route {
        role: Role::Agent,
        handler: handler!(request_permission),
        operation: Operation::post(
            "/api/v1/permissions/{number}/{wa_id}/request/",
            "requestPermission",
            "Ask a user for permission to call, with a text, a template, or Meta's default text",
        )
        .body(RequestBody::json_object(
            "Empty, {\"text\"} of 1 to 1,024 characters, or {\"template\"}",
            schema,
            #[cfg(test)]
            |body| {
                parse_request(body.to_string().as_bytes()).map(drop).map_err(|e| format!("{e:?}"))
            },
        ))
        .responses(&[
            ResponseSpec::json::<PermissionRequest>(202, "Sent"),
            error(409, "A request to this user is being sent"),
            error(
                422,
                "A rule of WhatsApp forbids it; nextRequestAt says when it is allowed again",
            ),
            META_FAILED,
        ]),
    },
];

fn schema(schemas: &mut Schemas) -> Value {
    let schema = json!({
        "type": "object",
        "additionalProperties": false,
        "description": "A text or a template; by default Meta's text",
        "properties": {
            "text": {"type": ["string", "null"], "minLength": 1, "maxLength": TEXT_CHARS_MAX},
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
    schemas.insert("NewPermissionRequest".to_owned(), schema);
    json!({"$ref": "#/components/schemas/NewPermissionRequest"})
}

/// Maximum length of a request's text in characters, which is Meta's limit for the body of an
/// interactive message.
const TEXT_CHARS_MAX: usize = 1_024;
/// Maximum length of a business-scoped user id, in digits.
const BSUID_DIGITS_MAX: usize = 128;
/// Maximum size of a template, in bytes.
const TEMPLATE_BYTES_MAX: usize = 16 * 1024;

/// A user's permission for calls from a business number.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Permission {
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
    /// When the user last answered a request or changed the permission.
    #[schema(value_type = Option<String>, format = DateTime)]
    replied_at: Option<Timestamp3339>,
}

/// A permission request that was sent.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct PermissionRequest {
    message_id: String,
    #[serde(flatten)]
    permission: Permission,
}

impl From<&View> for Permission {
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
            replied_at: time(view.replied),
        }
    }
}

async fn get(request: ApiRequest) -> Result<Response, ApiError> {
    let (number, user) = pair(&request)?;
    let refresh = request.query_flag("refresh")?.unwrap_or_default();
    let view = request.api().permissions.view(&number, &user, refresh).await;
    Ok(ok(&Permission::from(&view)))
}

async fn request_permission(mut request: ApiRequest) -> Result<Response, ApiError> {
    let (number, user) = pair(&request)?;
    let message = parse_request(&request.bytes().await?)?;
    let api = request.api();
    let sent = api.permissions.request(&number, &user, &message).await?;
    let text = match &message {
        Request::Text(text) => text.as_deref(),
        Request::Template(_) => None,
    };
    api.inbox.timeline().permission_requested(&number, &user, &sent.message, text);
    let permission = Permission::from(&sent.view);
    Ok(accepted(&PermissionRequest { message_id: sent.message, permission }))
}

/// Returns the business number and the user in the path.
fn pair(request: &ApiRequest) -> Result<(Arc<NumberEntry>, String), ApiError> {
    let number = request.number()?;
    let user = parse_user(request.parameter("wa_id")).ok_or_else(|| {
        let message = "waId must be a number with its country code, or a business-scoped id like \
            IN.123";
        ApiError::bad_value("waId", message)
    })?;
    Ok((number, user))
}

/// Parses a user: a number in any notation, or a business-scoped user id.
pub(super) fn parse_user(text: &str) -> Option<String> {
    let is_bsuid = text.split_once('.').is_some_and(|(country, digits)| {
        country.len() == 2
            && country.bytes().all(|b| b.is_ascii_uppercase())
            && (1..=BSUID_DIGITS_MAX).contains(&digits.len())
            && digits.bytes().all(|b| b.is_ascii_digit())
    });
    if is_bsuid { Some(text.to_owned()) } else { parse_user_number(text).map(String::from) }
}

/// Parses the body of a permission request.
fn parse_request(bytes: &[u8]) -> Result<Request, ApiError> {
    let body = match bytes {
        [] => Map::new(),
        bytes => fields::object(bytes).map_err(ApiError::bad_body)?,
    };
    let known = ["text", "template"];
    if let Some(name) = body.keys().find(|name| !known.contains(&name.as_str())) {
        return Err(ApiError::bad_value(name.clone(), fields::unknown(name, known.into_iter())));
    }
    let given = |name: &str| body.get(name).filter(|value| !value.is_null());
    let text = match given("text") {
        None => None,
        Some(Value::String(text)) if (1..=TEXT_CHARS_MAX).contains(&text.chars().count()) => {
            Some(text.clone())
        }
        Some(_) => {
            return Err(ApiError::bad_value("text", "text must be 1 to 1,024 characters"));
        }
    };
    match given("template") {
        None => Ok(Request::Text(text)),
        Some(_) if text.is_some() => {
            Err(ApiError::bad_value("template", "give text or template, not both"))
        }
        Some(template) => {
            let has_name =
                template.get("name").and_then(Value::as_str).is_some_and(|name| !name.is_empty());
            let has_language = template.get("language").is_some_and(Value::is_object);
            if has_name && has_language && template.to_string().len() <= TEMPLATE_BYTES_MAX {
                Ok(Request::Template(template.clone()))
            } else {
                let message = "template must be an object with name, language {\"code\"} and \
                    optionally components";
                Err(ApiError::bad_value("template", message))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::request::parse_number;
    use super::parse_user;

    #[test]
    fn parses_users_and_numbers_in_any_notation() {
        for text in ["919412341234", "+919412341234", "+91 94123 41234", "whatsapp:+919412341234"] {
            assert_eq!(parse_user(text).as_deref(), Some("919412341234"), "{text}");
        }
        assert_eq!(parse_user("IN.30155408211934477").as_deref(), Some("IN.30155408211934477"));
        for text in ["", "me", "in.301", "IN.", "I.3", "IN.3x", "123"] {
            assert_eq!(parse_user(text), None, "{text}");
        }
        assert_eq!(parse_number("WhatsApp:918035737458").unwrap().as_str(), "918035737458");
    }
}
