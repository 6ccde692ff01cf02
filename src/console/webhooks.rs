//! The pages of webhooks: create one with a secret that is shown once, change, test and delete it,
//! and list its deliveries. Lists and deliveries come from the number API. Changes are commands of
//! the inbox, so this module checks the role itself.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::auth::{SubmittedForm, Visitor};
use super::deliveries::{self, DeliveryLog};
use super::form::Form;
use super::number_view::Number;
use super::numbers::{digits, find_number};
use super::page::{Page, bad_form, bad_query, forbidden, missing, respond};
use super::{App, Console, once};
use engine::admission::Webhook as StoredWebhook;
use engine::inbox::{RoutingError, WebhookSpec};
use model::is_line;

/// Maximum length of a name, in characters.
const NAME_MAX: usize = 64;

/// A webhook in the number API.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Webhook {
    id: Uuid,
    name: String,
    url: String,
    secrets: usize,
    in_configuration: bool,
}

#[derive(Deserialize)]
struct List {
    items: Vec<Webhook>,
}

/// Results of a form that are shown on the page.
#[derive(Default)]
struct FormResult {
    secret: String,
    wrong: String,
    /// The field that is wrong. Empty if none is.
    field: &'static str,
    name: String,
    url: String,
}

impl FormResult {
    fn of(wrong: FormError, form: &Form) -> Self {
        Self {
            wrong: wrong.text,
            field: wrong.field,
            name: form.get("name").to_owned(),
            url: form.get("url").to_owned(),
            ..Self::default()
        }
    }

    fn is_wrong(&self, field: &str) -> bool {
        self.field == field
    }

    /// The error of a field. Empty if it is valid.
    fn error_of(&self, field: &str) -> &str {
        if self.is_wrong(field) { &self.wrong } else { "" }
    }
}

/// The error of a form.
struct FormError {
    status: StatusCode,
    text: String,
    /// The field that is wrong. Empty if none is.
    field: &'static str,
}

#[derive(Template)]
#[template(path = "webhooks.html")]
struct WebhooksPage {
    page: Page,
    webhooks: Vec<Webhook>,
    result: FormResult,
}

async fn all(console: &Console, visitor: &Visitor) -> Vec<Webhook> {
    let answer = visitor.ask(console, Method::GET, "/api/v1/webhooks/", None).await;
    serde_json::from_value::<List>(answer.body).map(|list| list.items).unwrap_or_default()
}

/// Kinds of events that update the page. None while the page shows something once, because an
/// update would remove it.
fn live(result: &FormResult) -> &'static str {
    if result.secret.is_empty() && result.wrong.is_empty() { "webhook" } else { "" }
}

async fn list(
    console: &Console,
    visitor: &Visitor,
    status: StatusCode,
    result: FormResult,
) -> Response {
    if !visitor.is_admin() {
        return forbidden(console, visitor);
    }
    let page = visitor
        .page(console, visitor.lang().t("nav.webhooks"), "webhooks")
        .listening(live(&result));
    respond(status, &WebhooksPage { page, webhooks: all(console, visitor).await, result })
}

pub(super) async fn page(State(console): App, visitor: Visitor) -> Response {
    if let Err(unreadable) = visitor.query.check_names(&[]) {
        return bad_query(&console, &visitor, &unreadable);
    }
    list(&console, &visitor, StatusCode::OK, FormResult::default()).await
}

/// Validates name and URL of a form.
fn order(console: &Console, visitor: &Visitor, form: &Form) -> Result<WebhookSpec, FormError> {
    let wrong = |field, text| FormError { status: StatusCode::BAD_REQUEST, text, field };
    let name = form.get("name");
    if !is_line(name, 1..=NAME_MAX) {
        return Err(wrong("name", visitor.lang().t("webhooks.invalid_name").to_owned()));
    }
    let url = console.apis.api().placer.check_url(form.get("url"));
    let url = url.map_err(|refusal| {
        wrong("url", visitor.lang().with("webhooks.invalid_url", &[&refusal]))
    })?;
    Ok(WebhookSpec { name: name.to_owned(), url })
}

/// The error of a refused command.
fn refusal(visitor: &Visitor, error: &RoutingError) -> FormError {
    let field = if matches!(error, RoutingError::NameTaken) { "name" } else { "" };
    let (status, key) = match error {
        RoutingError::NoWebhook | RoutingError::WhichWebhook | RoutingError::NoAgent => {
            (StatusCode::NOT_FOUND, "error.not_found")
        }
        RoutingError::InvalidState(_) | RoutingError::InFile => {
            (StatusCode::CONFLICT, "webhooks.in_configuration")
        }
        RoutingError::InUse | RoutingError::AgentInUse(_) => {
            (StatusCode::CONFLICT, "webhooks.in_use")
        }
        RoutingError::TooMany => (StatusCode::CONFLICT, "webhooks.too_many"),
        RoutingError::NameTaken => (StatusCode::CONFLICT, "webhooks.name_taken"),
        RoutingError::Store(error) => {
            tracing::warn!(%error, "webhook not changed");
            (StatusCode::SERVICE_UNAVAILABLE, "error.internal")
        }
    };
    FormError { status, text: visitor.lang().t(key).to_owned(), field }
}

fn secret(webhook: &StoredWebhook) -> String {
    webhook.secrets.first().map(|secret| secret.reveal().to_owned()).unwrap_or_default()
}

/// Adds a change to the audit trail: the console changes webhooks without the APIs.
async fn record(
    console: &Console,
    visitor: &Visitor,
    action: &str,
    before: Option<&StoredWebhook>,
    after: Option<&StoredWebhook>,
) {
    let Some(id) = after.or(before).map(|webhook| webhook.id) else { return };
    let state = |webhook: Option<&StoredWebhook>| {
        webhook.map_or(Value::Null, |webhook| {
            json!({
                "name": webhook.name, "url": webhook.url.0, "activeKeys": webhook.secrets.len(),
            })
        })
    };
    let states = (state(before), state(after));
    if action == "changeWebhook" && states.0 == states.1 {
        return;
    }
    let actor = (&visitor.person.user, visitor.from);
    console.apis.record(actor, action, &format!("webhooks/{id}"), states).await;
}

pub(super) async fn create(State(console): App, submitted: SubmittedForm) -> Response {
    let SubmittedForm { visitor, form } = submitted;
    if !visitor.is_admin() {
        return forbidden(&console, &visitor);
    }
    let order = match order(&console, &visitor, &form) {
        Ok(order) => order,
        Err(wrong) => {
            return list(&console, &visitor, wrong.status, FormResult::of(wrong, &form)).await;
        }
    };
    match console.apis.api().inbox.webhooks().create(&visitor.person.user.account, order).await {
        Ok(made) => {
            record(&console, &visitor, "createWebhook", None, Some(&made)).await;
            let to = format!("/console/webhooks/{}/", made.id);
            once::redirect(&console, &visitor, &to, &secret(&made))
        }
        Err(error) => {
            let wrong = refusal(&visitor, &error);
            list(&console, &visitor, wrong.status, FormResult::of(wrong, &form)).await
        }
    }
}

#[derive(Template)]
#[template(path = "webhook.html")]
struct WebhookPage {
    page: Page,
    webhook: Webhook,
    log: DeliveryLog,
    /// The numbers whose messages are sent to the webhook.
    routed: Vec<Number>,
    /// The other connected numbers.
    others: Vec<Number>,
    saved: bool,
    tested: bool,
    added: bool,
    result: FormResult,
}

pub(super) async fn webhook(
    State(console): App,
    Path(id): Path<String>,
    headers: HeaderMap,
    visitor: Visitor,
) -> Response {
    let Ok(id) = id.parse::<Uuid>() else { return missing(&console, &visitor) };
    let secret = once::take(&console, &visitor, &headers);
    let is_once = secret.is_some();
    let result = FormResult { secret: secret.unwrap_or_default(), ..FormResult::default() };
    let page = render_page(&console, &visitor, id, StatusCode::OK, result).await;
    if is_once { once::taken(&console, page) } else { page }
}

async fn render_page(
    console: &Console,
    visitor: &Visitor,
    id: Uuid,
    status: StatusCode,
    result: FormResult,
) -> Response {
    if !visitor.is_admin() {
        return forbidden(console, visitor);
    }
    let webhook = all(console, visitor).await.into_iter().find(|webhook| webhook.id == id);
    let Some(webhook) = webhook else { return missing(console, visitor) };
    // The entered values, if there are any.
    let result = match result.name.is_empty() && result.url.is_empty() {
        true => FormResult { name: webhook.name.clone(), url: webhook.url.clone(), ..result },
        false => result,
    };
    let log = match DeliveryLog::read(console, visitor, &format!("webhooks/{id}/")).await {
        Ok(log) => DeliveryLog { path: format!("/console/webhooks/{id}/"), ..log },
        Err(answer) => return *answer,
    };
    let numbers: Vec<Number> = visitor.items(console, "/api/v1/phone-numbers/?limit=200").await;
    let (routed, others): (Vec<_>, Vec<_>) = numbers
        .into_iter()
        .filter(|number| number.connected)
        .partition(|number| number.default_webhook == Some(id));
    let page = WebhookPage {
        page: visitor.page(console, &webhook.name, "webhooks").listening(live(&result)),
        log,
        saved: visitor.query.some("saved").is_some(),
        tested: visitor.query.some("tested").is_some(),
        added: visitor.query.some("added").is_some(),
        routed,
        others,
        webhook,
        result,
    };
    respond(status, &page)
}

/// Routes the messages of a number to a webhook.
async fn route(console: &Console, visitor: &Visitor, id: Uuid, form: &Form) -> Response {
    let Some(number) = digits(form.get("number")) else {
        return bad_form(console, visitor, "number");
    };
    let found = match find_number(console, visitor, number).await {
        Ok(found) => found,
        Err(answer) => return *answer,
    };
    let body = json!({
        "number": number,
        "whatsappPhoneNumberId": found.whatsapp_phone_number_id,
        "webhook": id,
        "applyToExisting": form.some("existing").is_some(),
    });
    let path = format!("/api/v1/phone-numbers/{number}/subscribe/");
    let answer = visitor.ask(console, Method::POST, &path, Some(&body)).await;
    if answer.is_ok() {
        return Redirect::to(&format!("/console/webhooks/{id}/?added=1")).into_response();
    }
    let result = FormResult { wrong: visitor.lang().refusal(&answer), ..FormResult::default() };
    render_page(console, visitor, id, answer.status, result).await
}

/// Handles the form of a webhook. Its field `do` is `save`, `rotate`, `end-rotation`, `test`,
/// `redeliver`, `route` or `remove`.
pub(super) async fn act(
    State(console): App,
    Path(id): Path<String>,
    submitted: SubmittedForm,
) -> Response {
    let SubmittedForm { visitor, form } = submitted;
    if !visitor.is_admin() {
        return forbidden(&console, &visitor);
    }
    let Ok(id) = id.parse::<Uuid>() else { return missing(&console, &visitor) };
    let (inbox, scope) = (&console.apis.api().inbox, visitor.person.scope());
    let mut to = format!("/console/webhooks/{id}/");
    let before = inbox.webhooks().get(&scope, id);
    let action = form.get("do");
    let recorded = async |done: &Result<_, RoutingError>| {
        let name = match action {
            "save" => "changeWebhook",
            "rotate" => "rotateWebhookSecret",
            "end-rotation" => "endWebhookRotation",
            "remove" => "deleteWebhook",
            _ => return,
        };
        if done.is_ok() {
            record(
                &console,
                &visitor,
                name,
                before.as_deref(),
                inbox.webhooks().get(&scope, id).as_deref(),
            )
            .await;
        }
    };
    let done = match action {
        "save" => match order(&console, &visitor, &form) {
            Ok(order) => match inbox.webhooks().change(&scope, id, order).await {
                Ok((webhook, true)) => {
                    recorded(&Ok(())).await;
                    return once::redirect(&console, &visitor, &to, &secret(&webhook));
                }
                changed => {
                    to.push_str("?saved=1");
                    changed.map(drop)
                }
            },
            Err(wrong) => {
                let (status, result) = (wrong.status, FormResult::of(wrong, &form));
                return render_page(&console, &visitor, id, status, result).await;
            }
        },
        "rotate" => match inbox.webhooks().rotate_secret(&scope, id).await {
            Ok(webhook) => {
                recorded(&Ok(())).await;
                return once::redirect(&console, &visitor, &to, &secret(&webhook));
            }
            Err(error) => Err(error),
        },
        "end-rotation" => inbox.webhooks().end_rotation(&scope, id).await.map(drop),
        "test" => {
            to.push_str("?tested=1");
            inbox.webhooks().test(&scope, id).await.map(drop)
        }
        "remove" => {
            "/console/webhooks/".clone_into(&mut to);
            inbox.webhooks().remove(&scope, id).await
        }
        "route" => return route(&console, &visitor, id, &form).await,
        "redeliver" => {
            return deliveries::redeliver(
                &console,
                &visitor,
                &form,
                &format!("webhooks/{id}/"),
                &to,
            )
            .await;
        }
        _ => return bad_form(&console, &visitor, "do"),
    };
    recorded(&done).await;
    match done {
        Ok(()) => Redirect::to(&to).into_response(),
        Err(RoutingError::NoWebhook) => missing(&console, &visitor),
        Err(error) => {
            let wrong = refusal(&visitor, &error);
            let (status, result) = (wrong.status, FormResult::of(wrong, &form));
            render_page(&console, &visitor, id, status, result).await
        }
    }
}
