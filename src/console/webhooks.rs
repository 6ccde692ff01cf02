//! Webhooks: made here with a secret that is shown once, tried, changed, and what was posted to each. Lists and deliveries are
//! the number API's; making is a command of the inbox's, which is why the role is asked about here.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::door::{Posted, Visitor};
use super::form::Form;
use super::page::{Page, failed, forbidden, missing, respond};
use super::view::When;
use super::{App, Console};
use engine::admission::Webhook as Made;
use engine::inbox::{RoutingError, WebhookSpec};

/// Longest name, in characters.
const NAME_MAX: usize = 64;

/// A webhook as the API has it.
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

/// What was posted, or waits.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Delivery {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    state: String,
    attempts: u32,
    last: String,
    created_at: String,
}

impl Delivery {
    fn at(&self) -> When {
        When::read(&self.created_at)
    }

    fn tone(&self) -> &'static str {
        match self.state.as_str() {
            "delivered" => "good",
            "failed" => "bad",
            _ => "waiting",
        }
    }
}

#[derive(Deserialize)]
struct Deliveries {
    items: Vec<Delivery>,
    next: Option<String>,
}

/// What the answer to a form has beside the page.
#[derive(Default)]
struct News {
    secret: String,
    wrong: String,
    name: String,
    url: String,
}

#[derive(Template)]
#[template(path = "webhooks.html")]
struct Webhooks {
    page: Page,
    webhooks: Vec<Webhook>,
    news: News,
}

async fn all(console: &Console, visitor: &Visitor) -> Vec<Webhook> {
    let answer = visitor.ask(console, Method::GET, "/api/v1/webhooks/", None).await;
    serde_json::from_value::<List>(answer.body).map(|list| list.items).unwrap_or_default()
}

/// What is shown once must not go when the page asks for itself again.
fn live(news: &News) -> &'static str {
    if news.secret.is_empty() && news.wrong.is_empty() { "webhook" } else { "" }
}

async fn list(console: &Console, visitor: &Visitor, status: StatusCode, news: News) -> Response {
    if !visitor.is_admin() {
        return forbidden(console, visitor);
    }
    let page =
        visitor.page(console, visitor.lang().t("nav.webhooks"), "webhooks").listening(live(&news));
    respond(status, &Webhooks { page, webhooks: all(console, visitor).await, news })
}

pub(super) async fn page(State(console): App, visitor: Visitor) -> Response {
    list(&console, &visitor, StatusCode::OK, News::default()).await
}

/// A name and a URL as they may be; or what is wrong with them.
fn order(console: &Console, visitor: &Visitor, form: &Form) -> Result<WebhookSpec, String> {
    let name = form.get("name");
    if !(1..=NAME_MAX).contains(&name.chars().count()) || name.chars().any(char::is_control) {
        return Err(visitor.lang().t("webhooks.invalid_name").to_owned());
    }
    let url = console.apis.api().placer.check_url(form.get("url"));
    let url = url.map_err(|why| visitor.lang().with("webhooks.invalid_url", &[&why]))?;
    Ok(WebhookSpec { name: name.to_owned(), url })
}

/// Why not, in words, and as which status.
fn why(visitor: &Visitor, no: &RoutingError) -> (StatusCode, String) {
    let (status, key) = match no {
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
        RoutingError::Store(error) => {
            tracing::warn!(%error, "a webhook could not be changed");
            (StatusCode::SERVICE_UNAVAILABLE, "error.internal")
        }
    };
    (status, visitor.lang().t(key).to_owned())
}

fn secret(webhook: &Made) -> String {
    webhook.secrets.first().map(|secret| secret.reveal().to_owned()).unwrap_or_default()
}

pub(super) async fn make(State(console): App, posted: Posted) -> Response {
    let Posted { visitor, form } = posted;
    if !visitor.is_admin() {
        return forbidden(&console, &visitor);
    }
    let news = |wrong| News {
        wrong,
        name: form.get("name").to_owned(),
        url: form.get("url").to_owned(),
        ..News::default()
    };
    let order = match order(&console, &visitor, &form) {
        Ok(order) => order,
        Err(wrong) => return list(&console, &visitor, StatusCode::BAD_REQUEST, news(wrong)).await,
    };
    match console.apis.api().inbox.make_webhook(&visitor.person.user.account, order).await {
        Ok(made) => {
            let news = News { secret: secret(&made), ..News::default() };
            shown(&console, &visitor, made.id, StatusCode::OK, news).await
        }
        Err(no) => {
            let (status, wrong) = why(&visitor, &no);
            list(&console, &visitor, status, news(wrong)).await
        }
    }
}

#[derive(Template)]
#[template(path = "webhook.html")]
struct One {
    page: Page,
    webhook: Webhook,
    deliveries: Vec<Delivery>,
    next: String,
    tested: bool,
    news: News,
}

impl One {
    /// Something has still to be posted.
    fn is_under_way(&self) -> bool {
        self.deliveries.iter().any(|delivery| delivery.tone() == "waiting")
    }
}

pub(super) async fn one(State(console): App, Path(id): Path<String>, visitor: Visitor) -> Response {
    let Ok(id) = id.parse::<Uuid>() else { return missing(&console, &visitor) };
    shown(&console, &visitor, id, StatusCode::OK, News::default()).await
}

async fn shown(
    console: &Console,
    visitor: &Visitor,
    id: Uuid,
    status: StatusCode,
    news: News,
) -> Response {
    if !visitor.is_admin() {
        return forbidden(console, visitor);
    }
    let webhook = all(console, visitor).await.into_iter().find(|webhook| webhook.id == id);
    let Some(webhook) = webhook else { return missing(console, visitor) };
    let path = format!("/api/v1/webhooks/{id}/deliveries/{}", visitor.query.only(&["cursor"]));
    let answer = visitor.ask(console, Method::GET, &path, None).await;
    let Ok(deliveries) = serde_json::from_value::<Deliveries>(answer.body.clone()) else {
        return failed(console, visitor, answer.status, answer.message());
    };
    let page = One {
        page: visitor.page(console, &webhook.name, "webhooks").listening(live(&news)),
        deliveries: deliveries.items,
        next: deliveries
            .next
            .map(|cursor| visitor.query.with("cursor", Some(&cursor)))
            .unwrap_or_default(),
        tested: visitor.query.some("tested").is_some(),
        webhook,
        news,
    };
    respond(status, &page)
}

/// `do` is `save`, `rotate`, `end-rotation`, `test`, `redeliver` or `remove`.
pub(super) async fn act(State(console): App, Path(id): Path<String>, posted: Posted) -> Response {
    let Posted { visitor, form } = posted;
    if !visitor.is_admin() {
        return forbidden(&console, &visitor);
    }
    let Ok(id) = id.parse::<Uuid>() else { return missing(&console, &visitor) };
    let (inbox, scope) = (&console.apis.api().inbox, visitor.person.scope());
    let mut to = format!("/console/webhooks/{id}/");
    let done = match form.get("do") {
        "save" => match order(&console, &visitor, &form) {
            Ok(order) => inbox.change_webhook(&scope, id, order).await.map(drop),
            Err(wrong) => {
                return shown(
                    &console,
                    &visitor,
                    id,
                    StatusCode::BAD_REQUEST,
                    News { wrong, ..News::default() },
                )
                .await;
            }
        },
        "rotate" => match inbox.rotate_secret(&scope, id).await {
            Ok(webhook) => {
                let news = News { secret: secret(&webhook), ..News::default() };
                return shown(&console, &visitor, id, StatusCode::OK, news).await;
            }
            Err(no) => Err(no),
        },
        "end-rotation" => inbox.end_rotation(&scope, id).await.map(drop),
        "test" => {
            to.push_str("?tested=1");
            inbox.test_webhook(&scope, id).await.map(drop)
        }
        "remove" => {
            "/console/webhooks/".clone_into(&mut to);
            inbox.remove_webhook(&scope, id).await
        }
        "redeliver" => return redeliver(&console, &visitor, id, &form).await,
        _ => return failed(&console, &visitor, StatusCode::BAD_REQUEST, ""),
    };
    match done {
        Ok(()) => Redirect::to(&to).into_response(),
        Err(RoutingError::NoWebhook) => missing(&console, &visitor),
        Err(no) => {
            let (status, wrong) = why(&visitor, &no);
            shown(&console, &visitor, id, status, News { wrong, ..News::default() }).await
        }
    }
}

async fn redeliver(console: &Console, visitor: &Visitor, id: Uuid, form: &Form) -> Response {
    let Ok(event) = form.get("event").parse::<Uuid>() else { return missing(console, visitor) };
    let path = format!("/api/v1/webhooks/{id}/deliveries/{event}/redeliver/");
    let answer = visitor
        .ask(console, Method::POST, &path, Some(&Value::Object(serde_json::Map::new())))
        .await;
    match answer.is_ok() {
        true => Redirect::to(&format!("/console/webhooks/{id}/")).into_response(),
        false => failed(console, visitor, answer.status, answer.message()),
    }
}
