//! `GET /api/v1/phone-numbers/{number}/templates/`: the approved message templates of a number.

use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::error::ApiError;
use super::super::routes::{Operation, QueryParameter, ResponseSpec};
use super::request::ApiRequest;
use super::response::{Page, ok};
use super::route::{CURSOR, LIMIT, META_FAILED, Route, error, handler};
use engine::inbox::TemplatesError;
use engine::meta::templates::Template;
use model::Role;

pub(super) const ROUTES: &[Route] = &[Route {
    role: Role::Agent,
    handler: handler!(list),
    operation: Operation::get(
        "/api/v1/phone-numbers/{number}/templates/",
        "messageTemplates",
        "List the approved message templates of a number's WABA, in the order of their names",
    )
    .query(&[
        QueryParameter::text("q", "Part of the name or of the text"),
        QueryParameter::text("name", "Only templates with this name"),
        QueryParameter::text("language", "Only templates in this language"),
        LIMIT,
        CURSOR,
    ])
    .responses(&[
        ResponseSpec::json::<TemplatePage>(200, "A page of templates, at most a minute old"),
        error(
            409,
            "`disconnected`: the phone number must be reconnected first; `no_waba`: its WhatsApp \
             Business Account is not known",
        ),
        META_FAILED,
    ]),
}];

/// A page of message templates.
#[derive(Serialize, ToSchema)]
struct TemplatePage {
    items: Vec<Template>,
    next: Option<String>,
}

impl From<TemplatesError> for ApiError {
    fn from(error: TemplatesError) -> Self {
        match error {
            TemplatesError::NoWaba => Self::conflict(
                "no_waba",
                "the WhatsApp Business Account of this number is not known: reconnect the number",
            ),
            TemplatesError::Meta(outcome) => outcome.into(),
        }
    }
}

/// Maximum length of a template's name at Meta.
const NAME_MAX: usize = 512;

/// Refuses a name that no template can have at Meta.
fn check_name(name: &str) -> Result<(), ApiError> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let message = "name must be the name of a template: up to 512 lower-case letters, digits and _";
    match name.len() <= NAME_MAX && name.bytes().all(is_plain) {
        true => Ok(()),
        false => Err(ApiError::bad_value("name", message)),
    }
}

/// Refuses a language that no template can have at Meta.
fn check_language(code: &str) -> Result<(), ApiError> {
    let (language, region) = code.split_once('_').unwrap_or((code, ""));
    let is_language = language.len() <= 3 && language.bytes().all(|b| b.is_ascii_lowercase());
    let is_region = region.len() <= 4 && region.bytes().all(|b| b.is_ascii_alphabetic());
    let message = "language must be a code of Meta's, such as en or en_US";
    match is_language && is_region {
        true => Ok(()),
        false => Err(ApiError::bad_value("language", message)),
    }
}

async fn list(request: ApiRequest) -> Result<Response, ApiError> {
    let number = request.number()?;
    let limit = request.limit()?;
    let after = request.cursor(|position| {
        position.split_once('.').map(|(name, language)| (name.to_owned(), language.to_owned()))
    })?;
    check_name(request.query_text("name").unwrap_or_default())?;
    check_language(request.query_text("language").unwrap_or_default())?;
    let templates = request.api().inbox.templates().of(&number).await?;
    let search = request.query_text("q").unwrap_or_default().to_lowercase();
    let is_wanted = |template: &&Template| {
        let key = (&template.name, &template.language);
        after.as_ref().is_none_or(|(name, language)| key > (name, language))
            && request.query_text("name").is_none_or(|name| template.name == name)
            && request.query_text("language").is_none_or(|code| template.language == code)
            && (template.name.contains(&search) || template.body.to_lowercase().contains(&search))
    };
    let found = templates.iter().filter(is_wanted).take(limit as usize + 1).cloned().collect();
    let page =
        Page::new(found, limit, |last: &Template| format!("{}.{}", last.name, last.language));
    Ok(ok(&TemplatePage { items: page.items, next: request.next_cursor(page.next) }))
}
