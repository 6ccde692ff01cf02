//! The dialog that sends a message template: the list of approved templates, then the values and a
//! preview of one.

use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::auth::{SubmittedForm, Visitor};
use super::form::Form;
use super::i18n::Lang;
use super::inbox::{Conversation, error_text, find_conversation, path_of};
use super::numbers::number_with_alias;
use super::page::{Page, respond};
use super::{App, Console};
use engine::meta::templates::{
    HeaderFormat, OtherPart, ParameterType, Piece, Template, TemplateComponent, TemplateParameter,
    pieces,
};

/// Maximum number of templates in the list. A search finds further ones.
const ROWS_MAX: u32 = 200;
/// Maximum length of a search text in characters.
const SEARCH_CHARS_MAX: usize = 100;

#[derive(Deserialize)]
struct TemplateList {
    items: Vec<Template>,
    next: Option<String>,
}

/// A part of a preview. Parts with a field change while its value is entered.
struct PreviewPart {
    text: String,
    /// The placeholder, which is shown until a value is entered.
    empty: String,
    field: Option<usize>,
}

/// A value to enter.
struct ValueField {
    label: String,
    example: String,
    value: String,
    is_url: bool,
}

/// A template that can't be filled in on this page.
struct OtherTemplate {
    name: String,
    language: String,
    /// Why the template can't be sent from this page.
    why: String,
}

impl OtherTemplate {
    fn of(lang: Lang, template: Template) -> Self {
        let part = |part: &OtherPart| lang.t(part_key(*part));
        let parts: Vec<&str> = template.other_parts.iter().map(part).collect();
        let why = lang.with("inbox.template_has", &[&parts.join(", ")]);
        Self { name: template.name, language: template.language, why }
    }
}

fn part_key(part: OtherPart) -> &'static str {
    match part {
        OtherPart::Carousel => "inbox.template_carousel",
        OtherPart::Location => "inbox.template_location",
        OtherPart::LimitedTimeOffer => "inbox.template_offer",
        OtherPart::OneTimePassword => "inbox.template_password",
        OtherPart::Flow => "inbox.template_flow",
        OtherPart::Catalog => "inbox.template_catalog",
        OtherPart::Unknown => "inbox.template_unknown",
    }
}

/// The template that was chosen.
#[derive(Default)]
struct ChosenTemplate {
    name: String,
    language: String,
    fields: Vec<ValueField>,
    /// The kind of file in the header. Empty if the header is not a file.
    file: &'static str,
    header: Vec<PreviewPart>,
    body: Vec<PreviewPart>,
    footer: String,
    buttons: Vec<String>,
}

#[derive(askama::Template)]
#[template(path = "chat_template.html")]
struct TemplateDialog {
    page: Page,
    id: Uuid,
    name: String,
    number: String,
    wrong: String,
    q: String,
    rows: Vec<Template>,
    /// Templates that can't be filled in on this page.
    others: Vec<OtherTemplate>,
    has_more: bool,
    chosen: Option<ChosenTemplate>,
}

pub(super) async fn page(
    State(console): App,
    Path(id): Path<String>,
    visitor: Visitor,
) -> Response {
    match find_conversation(&console, &visitor, &id).await {
        Ok(conversation) => list(&console, &visitor, &conversation, "").await,
        Err(answer) => *answer,
    }
}

/// Searches, chooses or sends a template, named by the field `do`.
pub(super) async fn act(
    State(console): App,
    Path(id): Path<String>,
    submitted: SubmittedForm,
) -> Response {
    let SubmittedForm { visitor, form } = submitted;
    let conversation = match find_conversation(&console, &visitor, &id).await {
        Ok(conversation) => conversation,
        Err(answer) => return *answer,
    };
    // The button of a template has its language and its name.
    let chosen = form.get("choose").split_once(' ');
    let is_sending = form.get("do") == "send";
    let chosen = chosen.or(is_sending.then(|| (form.get("language"), form.get("name"))));
    let Some((language, name)) = chosen else {
        return list(&console, &visitor, &conversation, form.get("q")).await;
    };
    let only = [("name", name), ("language", language), ("limit", "1")];
    let mut found = match templates(&console, &visitor, &conversation, &only).await {
        Ok(found) => found,
        Err((status, wrong)) => {
            return dialog(&console, &visitor, &conversation, status, wrong, None);
        }
    };
    let Some(template) = found.items.pop() else {
        let wrong = visitor.lang().t("inbox.template_gone").to_owned();
        return dialog(&console, &visitor, &conversation, StatusCode::NOT_FOUND, wrong, None);
    };
    let values = values(&template, &form);
    if !is_sending {
        let chosen = Some(view(visitor.lang(), &template, &values));
        return dialog(&console, &visitor, &conversation, StatusCode::OK, String::new(), chosen);
    }
    let (status, wrong) = if values.iter().any(String::is_empty) {
        (StatusCode::BAD_REQUEST, visitor.lang().t("inbox.template_missing").to_owned())
    } else {
        let path = format!("{}messages/", path_of(conversation.id));
        let message = json!({"type": "template", "template": template.content(&values)});
        let answer = visitor.ask(&console, Method::POST, &path, Some(&message)).await;
        if answer.is_ok() {
            let chat = format!("/console/inbox/{}/", conversation.id);
            return Redirect::to(&chat).into_response();
        }
        (answer.status, error_text(visitor.lang(), &answer))
    };
    let chosen = Some(view(visitor.lang(), &template, &values));
    dialog(&console, &visitor, &conversation, status, wrong, chosen)
}

/// The templates of the conversation's number. The error is the status and the text of the page.
async fn templates(
    console: &Console,
    visitor: &Visitor,
    conversation: &Conversation,
    query: &[(&str, &str)],
) -> Result<TemplateList, (StatusCode, String)> {
    let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    let path = format!("/api/v1/phone-numbers/{}/templates/?{query}", conversation.number);
    let answer = visitor.ask(console, Method::GET, &path, None).await;
    let wrong = || {
        let why = error_text(visitor.lang(), &answer);
        (answer.status, visitor.lang().with("inbox.templates_failed", &[&why]))
    };
    if !answer.is_ok() {
        return Err(wrong());
    }
    serde_json::from_value(answer.body.clone()).map_err(|_| wrong())
}

async fn list(
    console: &Console,
    visitor: &Visitor,
    conversation: &Conversation,
    search: &str,
) -> Response {
    let search: String = search.chars().take(SEARCH_CHARS_MAX).collect();
    let limit = ROWS_MAX.to_string();
    let query = [("q", search.as_str()), ("limit", limit.as_str())];
    let found = match templates(console, visitor, conversation, &query).await {
        Ok(found) => found,
        Err((status, wrong)) => return dialog(console, visitor, conversation, status, wrong, None),
    };
    let (others, rows): (Vec<_>, Vec<_>) =
        found.items.into_iter().partition(|template| !template.other_parts.is_empty());
    let others = others.into_iter().map(|template| OtherTemplate::of(visitor.lang(), template));
    let page = TemplateDialog {
        q: search,
        rows,
        others: others.collect(),
        has_more: found.next.is_some(),
        ..empty(console, visitor, conversation)
    };
    respond(StatusCode::OK, &page)
}

fn dialog(
    console: &Console,
    visitor: &Visitor,
    conversation: &Conversation,
    status: StatusCode,
    wrong: String,
    chosen: Option<ChosenTemplate>,
) -> Response {
    respond(status, &TemplateDialog { wrong, chosen, ..empty(console, visitor, conversation) })
}

fn empty(console: &Console, visitor: &Visitor, conversation: &Conversation) -> TemplateDialog {
    TemplateDialog {
        page: visitor.page(console, visitor.lang().t("inbox.template_send"), "inbox"),
        id: conversation.id,
        name: conversation.user.display_name(),
        number: number_with_alias(console, visitor, &conversation.number),
        wrong: String::new(),
        q: String::new(),
        rows: Vec::new(),
        others: Vec::new(),
        has_more: false,
        chosen: None,
    }
}

/// The entered value of each parameter.
fn values(template: &Template, form: &Form) -> Vec<String> {
    let value = |at: usize| form.get(&format!("v{at}")).to_owned();
    (0..template.parameters.len()).map(value).collect()
}

fn view(lang: Lang, template: &Template, values: &[String]) -> ChosenTemplate {
    let parts = |component: TemplateComponent, text: &str| {
        let part = |piece: Piece<'_>| match piece {
            Piece::Text(text) => {
                PreviewPart { text: text.to_owned(), empty: String::new(), field: None }
            }
            Piece::Placeholder(name) => {
                let is_it = |one: &TemplateParameter| {
                    one.component == component && one.button.is_none() && one.name == name
                };
                let field = template.parameters.iter().position(is_it);
                let value = field.and_then(|at| values.get(at)).filter(|value| !value.is_empty());
                let empty = format!("{{{{{name}}}}}");
                PreviewPart { text: value.unwrap_or(&empty).clone(), empty, field }
            }
        };
        pieces(text).into_iter().map(part).collect()
    };
    let header = template.header.as_ref();
    let fields = template.parameters.iter().zip(values).map(|(parameter, value)| ValueField {
        label: label(lang, template, parameter),
        example: parameter.example.clone(),
        value: value.clone(),
        is_url: matches!(
            parameter.kind,
            ParameterType::Image | ParameterType::Video | ParameterType::Document
        ),
    });
    ChosenTemplate {
        name: template.name.clone(),
        language: template.language.clone(),
        fields: fields.collect(),
        file: match header.map(|header| header.format) {
            Some(HeaderFormat::Image) => "image",
            Some(HeaderFormat::Video) => "video",
            Some(HeaderFormat::Document) => "document",
            Some(HeaderFormat::Text) | None => "",
        },
        header: header
            .map(|header| parts(TemplateComponent::Header, &header.text))
            .unwrap_or_default(),
        body: parts(TemplateComponent::Body, &template.body),
        footer: template.footer.clone(),
        buttons: template.buttons.iter().map(|button| button.text.clone()).collect(),
    }
}

fn label(lang: Lang, template: &Template, parameter: &TemplateParameter) -> String {
    let button = parameter.button.and_then(|at| template.buttons.get(at));
    let button = button.map(|button| button.text.as_str()).unwrap_or_default();
    match (parameter.kind, parameter.component) {
        (ParameterType::Image, _) => lang.t("inbox.template_image").to_owned(),
        (ParameterType::Video, _) => lang.t("inbox.template_video").to_owned(),
        (ParameterType::Document, _) => lang.t("inbox.template_document").to_owned(),
        (ParameterType::CouponCode, _) => lang.with("inbox.template_code", &[button]),
        (ParameterType::Text, TemplateComponent::Header) => {
            lang.with("inbox.template_header", &[&parameter.name])
        }
        (ParameterType::Text, TemplateComponent::Body) => {
            lang.with("inbox.template_body", &[&parameter.name])
        }
        (ParameterType::Text, TemplateComponent::Button) => {
            lang.with("inbox.template_link", &[button])
        }
    }
}
