//! The labels of the inbox. Admins create, change and delete them over the number API.

use askama::Template;
use axum::extract::State;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde_json::json;
use uuid::Uuid;

use super::auth::{SubmittedForm, Visitor};
use super::inbox::{LABELS, Label};
use super::page::{Page, failed, respond};
use super::{App, Console};

/// The colours of labels, as in the API.
const COLOURS: &[&str] = &["gray", "red", "orange", "green", "blue", "purple"];

#[derive(Template)]
#[template(path = "inbox_settings.html")]
struct InboxSettings {
    page: Page,
    labels: Vec<Label>,
    colours: &'static [&'static str],
    may_change: bool,
    wrong: String,
    /// The name of a label that was refused.
    name: String,
}

pub(super) async fn page(State(console): App, visitor: Visitor) -> Response {
    render(&console, &visitor, StatusCode::OK, String::new(), String::new()).await
}

async fn render(
    console: &Console,
    visitor: &Visitor,
    status: StatusCode,
    wrong: String,
    name: String,
) -> Response {
    let page = InboxSettings {
        page: visitor.page(console, visitor.lang().t("inbox.labels"), "inbox"),
        labels: visitor.items(console, LABELS).await,
        colours: COLOURS,
        may_change: visitor.is_admin(),
        wrong,
        name,
    };
    respond(status, &page)
}

/// Handles an action on a label, named by the field `do`.
pub(super) async fn act(State(console): App, submitted: SubmittedForm) -> Response {
    let SubmittedForm { visitor, form } = submitted;
    let one = |id: &str| id.parse::<Uuid>().ok().map(|id| format!("{LABELS}{id}/"));
    let label = json!({"name": form.get("name"), "colour": form.get("colour")});
    let request = match form.get("do") {
        "create" => Some((Method::POST, LABELS.to_owned(), Some(label))),
        "change" => one(form.get("label")).map(|path| (Method::PATCH, path, Some(label))),
        "delete" => one(form.get("label")).map(|path| (Method::DELETE, path, None)),
        _ => None,
    };
    let Some((method, path, body)) = request else {
        return failed(&console, &visitor, StatusCode::BAD_REQUEST, "");
    };
    let answer = visitor.ask(&console, method, &path, body.as_ref()).await;
    if answer.is_ok() {
        return Redirect::to("/console/inbox/settings/").into_response();
    }
    let (wrong, name) = (answer.message().to_owned(), form.get("name").to_owned());
    render(&console, &visitor, answer.status, wrong, name).await
}
