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

async fn list(request: ApiRequest) -> Result<Response, ApiError> {
    let number = request.number()?;
    let limit = request.limit()?;
    let after = request.cursor(|position| {
        position.split_once('.').map(|(name, language)| (name.to_owned(), language.to_owned()))
    })?;
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
