//! The delivery log of a webhook, and that of a number's own webhook URL.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::Method;
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::auth::{SubmittedForm, Visitor};
use super::form::Form;
use super::number_view::Number;
use super::numbers::{digits, find_number};
use super::page::{Page, bad_query, failed, html, missing};
use super::view::When;
use super::{App, Console};

/// A delivery in the number API, done or waiting.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Delivery {
    pub(super) id: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) state: String,
    pub(super) attempts: u32,
    pub(super) last: String,
    pub(super) created_at: String,
    next_attempt_at: Option<String>,
}

impl Delivery {
    /// When a waiting delivery that has failed is tried again.
    pub(super) fn next_attempt(&self) -> Option<When> {
        self.next_attempt_at.as_deref().filter(|_| self.attempts > 0).map(When::read)
    }

    pub(super) fn at(&self) -> When {
        When::read(&self.created_at)
    }

    pub(super) fn tone(&self) -> &'static str {
        match self.state.as_str() {
            "delivered" => "good",
            "failed" => "bad",
            _ => "waiting",
        }
    }
}

/// A page of deliveries, for the template `deliveries.html`.
#[derive(Deserialize)]
pub(super) struct DeliveryLog {
    pub(super) items: Vec<Delivery>,
    /// Query of the page with older deliveries. Empty on the last page.
    #[serde(deserialize_with = "null_as_default")]
    pub(super) next: String,
    /// Path of the console page that shows the log and accepts its form.
    #[serde(skip)]
    pub(super) path: String,
    /// Key of the text shown for an empty log.
    #[serde(skip)]
    pub(super) empty: &'static str,
    /// Whether the visitor may redeliver.
    #[serde(skip)]
    pub(super) admin: bool,
}

fn null_as_default<'de, D: serde::Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Option::<String>::deserialize(from).map(Option::unwrap_or_default)
}

impl DeliveryLog {
    /// Reads the log of `of`, a path below `/api/v1/` such as `webhooks/ID/`. Returns the error
    /// page if that fails.
    pub(super) async fn read(
        console: &Console,
        visitor: &Visitor,
        of: &str,
    ) -> Result<Self, Box<Response>> {
        visitor
            .query
            .check_names(&[&["cursor", "saved", "tested", "added"]])
            .map_err(|unreadable| Box::new(bad_query(console, visitor, &unreadable)))?;
        let path = format!("/api/v1/{of}deliveries/{}", visitor.query.only(&["cursor"]));
        let answer = visitor.ask(console, Method::GET, &path, None).await;
        let mut log: Self = serde_json::from_value(answer.body.clone())
            .map_err(|_| Box::new(failed(console, visitor, answer.status, answer.message())))?;
        if !log.next.is_empty() {
            log.next = visitor.query.with("cursor", Some(&log.next));
        }
        Ok(Self { empty: "webhooks.no_deliveries", admin: visitor.is_admin(), ..log })
    }

    /// Whether a delivery is waiting.
    pub(super) fn is_under_way(&self) -> bool {
        self.items.iter().any(|delivery| delivery.tone() == "waiting")
    }
}

/// Redelivers the event in the form, and redirects to the page `to`.
pub(super) async fn redeliver(
    console: &Console,
    visitor: &Visitor,
    form: &Form,
    of: &str,
    to: &str,
) -> Response {
    let Ok(event) = form.get("event").parse::<Uuid>() else { return missing(console, visitor) };
    let path = format!("/api/v1/{of}deliveries/{event}/redeliver/");
    let body = Value::Object(Map::new());
    let answer = visitor.ask(console, Method::POST, &path, Some(&body)).await;
    match answer.is_ok() {
        true => Redirect::to(to).into_response(),
        false => failed(console, visitor, answer.status, answer.message()),
    }
}

#[derive(Template)]
#[template(path = "number_deliveries.html")]
struct NumberDeliveries {
    page: Page,
    number: Number,
    log: DeliveryLog,
}

/// The log of a number's own webhook URL.
pub(super) async fn of_number(
    State(console): App,
    Path(number): Path<String>,
    visitor: Visitor,
) -> Response {
    let Some(digits) = digits(&number) else { return missing(&console, &visitor) };
    let number = match find_number(&console, &visitor, digits).await {
        Ok(number) => number,
        Err(answer) => return *answer,
    };
    let log = match DeliveryLog::read(&console, &visitor, &format!("phone-numbers/{digits}/")).await
    {
        Ok(log) => DeliveryLog {
            path: format!("/console/numbers/{digits}/deliveries/"),
            empty: "numbers.no_deliveries",
            ..log
        },
        Err(answer) => return *answer,
    };
    let title = format!("{} · {}", number.formatted(), visitor.lang().t("webhooks.deliveries"));
    // Deliveries change with the messages of the number's conversations.
    let page = visitor.page(&console, &title, "numbers").listening("conversation");
    html(&NumberDeliveries { page, number, log })
}

pub(super) async fn redeliver_to_number(
    State(console): App,
    Path(number): Path<String>,
    submitted: SubmittedForm,
) -> Response {
    let SubmittedForm { visitor, form } = submitted;
    let Some(digits) = digits(&number) else { return missing(&console, &visitor) };
    let to = format!("/console/numbers/{digits}/deliveries/");
    redeliver(&console, &visitor, &form, &format!("phone-numbers/{digits}/"), &to).await
}
