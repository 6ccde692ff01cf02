//! The notifications page, with buttons to mark one or all as read.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::Method;
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;

use super::App;
use super::auth::{SubmittedForm, Visitor};
use super::numbers::number_with_alias;
use super::page::{Page, bad_query, failed, html, missing};
use super::view::When;

/// A notification in the number API.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Notice {
    id: String,
    #[serde(rename = "type")]
    topic: String,
    text: String,
    number: Option<String>,
    call_uuid: Option<String>,
    conversation: Option<uuid::Uuid>,
    created_at: String,
    read: bool,
}

struct NotificationRow {
    id: String,
    topic: String,
    text: String,
    /// Target of the text's link: the conversation, else the call, else the number, and the operations
    /// page for an alert. Empty if there is none.
    link: String,
    /// Link to the call, if the text links to the conversation.
    call_link: String,
    number: String,
    number_link: String,
    when: When,
    read: bool,
}

#[derive(Deserialize)]
struct List {
    items: Vec<Notice>,
    next: Option<String>,
    unread: u64,
}

#[derive(Template)]
#[template(path = "notifications.html")]
struct NotificationsPage {
    page: Page,
    notices: Vec<NotificationRow>,
    unread: u64,
    only_unread: bool,
    next: String,
}

pub(super) async fn page(State(console): App, visitor: Visitor) -> Response {
    if let Err(unreadable) = visitor.query.check_names(&[&["cursor", "unread"]]) {
        return bad_query(&console, &visitor, &unreadable);
    }
    let path = format!("/api/v1/notifications/{}", visitor.query.only(&["cursor", "unread"]));
    let answer = visitor.ask(&console, Method::GET, &path, None).await;
    let Ok(list) = serde_json::from_value::<List>(answer.body.clone()) else {
        return failed(&console, &visitor, answer.status, answer.message());
    };
    let rows = list.items.into_iter().map(|notice| {
        let conversation = notice.conversation.map(|id| format!("/console/inbox/{id}/"));
        let call = notice.call_uuid.map(|call| format!("/console/calls/{call}/"));
        let number = notice.number.as_deref();
        let number_link = number.map(|number| match notice.topic.as_str() {
            "delivery" => format!("/console/numbers/{number}/deliveries/"),
            _ => format!("/console/numbers/{number}/"),
        });
        NotificationRow {
            call_link: conversation.as_ref().and(call.as_ref()).cloned().unwrap_or_default(),
            link: conversation
                .or(call)
                .or_else(|| number_link.clone())
                .or_else(|| (notice.topic == "alert").then(|| "/console/operations/".to_owned()))
                .unwrap_or_default(),
            number: number
                .map(|number| number_with_alias(&console, &visitor, number))
                .unwrap_or_default(),
            number_link: number_link.unwrap_or_default(),
            when: When::read(&notice.created_at),
            id: notice.id,
            topic: notice.topic,
            text: notice.text,
            read: notice.read,
        }
    });
    html(&NotificationsPage {
        notices: rows.collect(),
        unread: list.unread,
        only_unread: visitor.query.some("unread").is_some(),
        next: list
            .next
            .map(|cursor| visitor.query.with("cursor", Some(&cursor)))
            .unwrap_or_default(),
        page: visitor
            .page(&console, visitor.lang().t("nav.notifications"), "notifications")
            // Pages without live parts listen to this one, for both counts of the navigation.
            .listening("notification conversation"),
    })
}

/// Marks a notification as read.
pub(super) async fn read(
    State(console): App,
    Path(id): Path<String>,
    submitted: SubmittedForm,
) -> Response {
    let visitor = submitted.visitor;
    let Ok(id) = id.parse::<uuid::Uuid>() else { return missing(&console, &visitor) };
    let answer = visitor
        .ask(&console, Method::POST, &format!("/api/v1/notifications/{id}/read/"), None)
        .await;
    if !answer.is_ok() {
        return failed(&console, &visitor, answer.status, answer.message());
    }
    Redirect::to("/console/notifications/").into_response()
}

pub(super) async fn read_all(State(console): App, submitted: SubmittedForm) -> Response {
    let visitor = submitted.visitor;
    let answer = visitor.ask(&console, Method::POST, "/api/v1/notifications/read-all/", None).await;
    match answer.is_ok() {
        true => Redirect::to("/console/notifications/").into_response(),
        false => failed(&console, &visitor, answer.status, answer.message()),
    }
}
