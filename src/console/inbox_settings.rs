//! The labels and canned replies of the inbox. Admins create, change and delete them over the number API.

use askama::Template;
use axum::extract::State;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde_json::json;
use uuid::Uuid;

use super::auth::{SubmittedForm, Visitor};
use super::form::Form;
use super::inbox::{CannedReply, LABELS, Label, REPLIES};
use super::page::{Page, bad_form, respond};
use super::{App, Console};

/// The colours of labels, as in the API.
const COLOURS: &[&str] = &["gray", "red", "orange", "green", "blue", "purple"];

#[derive(Template)]
#[template(path = "inbox_settings.html")]
struct InboxSettings {
    page: Page,
    labels: Vec<Label>,
    replies: Vec<CannedReply>,
    colours: &'static [&'static str],
    may_change: bool,
    wrong: String,
    /// The rejected input: the name of a label, or the shortcut and text of a canned reply.
    name: String,
    shortcut: String,
    text: String,
}

pub(super) async fn page(State(console): App, visitor: Visitor) -> Response {
    render(&console, &visitor, StatusCode::OK, String::new(), &Form::default()).await
}

async fn render(
    console: &Console,
    visitor: &Visitor,
    status: StatusCode,
    wrong: String,
    refused: &Form,
) -> Response {
    let page = InboxSettings {
        page: visitor.page(console, visitor.lang().t("inbox.settings"), "inbox"),
        labels: visitor.items(console, LABELS).await,
        replies: visitor.items(console, REPLIES).await,
        colours: COLOURS,
        may_change: visitor.is_admin(),
        wrong,
        name: refused.get("name").to_owned(),
        shortcut: refused.get("shortcut").to_owned(),
        text: refused.get("text").to_owned(),
    };
    respond(status, &page)
}

/// Handles an action on a label or a canned reply, named by the field `do`.
pub(super) async fn act(State(console): App, submitted: SubmittedForm) -> Response {
    let SubmittedForm { visitor, form } = submitted;
    let one = |of: &str, id: &str| id.parse::<Uuid>().ok().map(|id| format!("{of}{id}/"));
    let label = json!({"name": form.get("name"), "colour": form.get("colour")});
    let reply = json!({"shortcut": form.get("shortcut"), "text": form.get("text")});
    let request = match form.get("do") {
        "create" => Some((Method::POST, LABELS.to_owned(), Some(label))),
        "change" => one(LABELS, form.get("label")).map(|path| (Method::PATCH, path, Some(label))),
        "delete" => one(LABELS, form.get("label")).map(|path| (Method::DELETE, path, None)),
        "create-reply" => Some((Method::POST, REPLIES.to_owned(), Some(reply))),
        "change-reply" => {
            one(REPLIES, form.get("reply")).map(|path| (Method::PATCH, path, Some(reply)))
        }
        "delete-reply" => one(REPLIES, form.get("reply")).map(|path| (Method::DELETE, path, None)),
        _ => None,
    };
    let Some((method, path, body)) = request else {
        return bad_form(&console, &visitor, "do");
    };
    let answer = visitor.ask(&console, method, &path, body.as_ref()).await;
    if answer.is_ok() {
        return Redirect::to("/console/inbox/settings/").into_response();
    }
    // A refused change is shown without its input, since the forms show what is stored.
    let empty = Form::default();
    let refused = if form.get("do").starts_with("create") { &form } else { &empty };
    render(&console, &visitor, answer.status, answer.message().to_owned(), refused).await
}
