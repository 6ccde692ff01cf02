//! People and API keys: for owners. What is made here is made by the number API (`users`, `api-keys`); links and secrets are
//! shown once, in the answer to the form that made them.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::door::{Posted, Visitor};
use super::page::{Page, failed, forbidden, respond};
use super::{App, Console};

/// A user as the API has them.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct User {
    id: String,
    name: String,
    full_name: String,
    role: String,
    invited: bool,
    in_configuration: bool,
    #[serde(skip)]
    oneself: bool,
}

#[derive(Deserialize)]
struct Key {
    id: String,
    name: String,
    role: String,
    ending: String,
}

#[derive(Template)]
#[template(path = "people.html")]
struct People {
    page: Page,
    users: Vec<User>,
    keys: Vec<Key>,
    /// What was made just now: an invitation's link, a key's secret.
    link: String,
    link_for: String,
    secret: String,
    wrong: String,
}

/// What the answer to a form has beside the lists.
#[derive(Default)]
struct News {
    link: String,
    link_for: String,
    secret: String,
    wrong: String,
}

async fn items<T: serde::de::DeserializeOwned>(
    console: &Console,
    visitor: &Visitor,
    path: &str,
) -> Vec<T> {
    let mut answer = visitor.ask(console, Method::GET, path, None).await;
    let items = answer.body.get_mut("items").map(Value::take).unwrap_or_default();
    serde_json::from_value(items).unwrap_or_default()
}

async fn shown(console: &Console, visitor: &Visitor, status: StatusCode, news: News) -> Response {
    if !visitor.is_owner() {
        return forbidden(console, visitor);
    }
    let mut users: Vec<User> = items(console, visitor, "/api/v1/users/?limit=200").await;
    for user in &mut users {
        user.oneself = user.id == visitor.person.user.id.to_string();
    }
    let keys = items(console, visitor, "/api/v1/api-keys/?limit=200").await;
    let page = visitor.page(console, visitor.lang().t("nav.people"), "people").listening("people");
    // What is shown once must not go when the page asks for itself again.
    let once = !news.link.is_empty() || !news.secret.is_empty() || !news.wrong.is_empty();
    let page = if once { page.listening("") } else { page };
    let News { link, link_for, secret, wrong } = news;
    respond(status, &People { page, users, keys, link, link_for, secret, wrong })
}

pub(super) async fn page(State(console): App, visitor: Visitor) -> Response {
    shown(&console, &visitor, StatusCode::OK, News::default()).await
}

pub(super) async fn make_user(State(console): App, posted: Posted) -> Response {
    let Posted { visitor, form } = posted;
    let body = json!({"name": form.get("name"), "fullName": form.get("full_name"), "role": form.get("role")});
    let answer = visitor.ask(&console, Method::POST, "/api/v1/users/", Some(&body)).await;
    told(&console, &visitor, &answer, |body| News {
        link: text(body, "invitation"),
        link_for: text(body, "fullName"),
        ..News::default()
    })
    .await
}

/// What is done with one: `do` is `role`, `invite`, `sign-out` or `remove`.
pub(super) async fn change_user(
    State(console): App,
    Path(id): Path<String>,
    posted: Posted,
) -> Response {
    let Posted { visitor, form } = posted;
    let Ok(id) = id.parse::<uuid::Uuid>() else { return super::page::missing(&console, &visitor) };
    let one = format!("/api/v1/users/{id}/");
    let answer = match form.get("do") {
        "role" => {
            let body = json!({"role": form.get("role")});
            visitor.ask(&console, Method::PATCH, &one, Some(&body)).await
        }
        "invite" => visitor.ask(&console, Method::POST, &format!("{one}invite/"), None).await,
        "sign-out" => visitor.ask(&console, Method::POST, &format!("{one}sign-out/"), None).await,
        "remove" => visitor.ask(&console, Method::DELETE, &one, None).await,
        _ => return failed(&console, &visitor, StatusCode::BAD_REQUEST, ""),
    };
    if form.get("do") == "invite" {
        return told(&console, &visitor, &answer, |body| News {
            link: text(body, "invitation"),
            link_for: text(body, "fullName"),
            ..News::default()
        })
        .await;
    }
    told(&console, &visitor, &answer, |_| News::default()).await
}

pub(super) async fn make_key(State(console): App, posted: Posted) -> Response {
    let Posted { visitor, form } = posted;
    let body = json!({"name": form.get("name"), "role": form.get("role")});
    let answer = visitor.ask(&console, Method::POST, "/api/v1/api-keys/", Some(&body)).await;
    told(&console, &visitor, &answer, |body| News {
        secret: text(body, "secret"),
        ..News::default()
    })
    .await
}

pub(super) async fn remove_key(
    State(console): App,
    Path(id): Path<String>,
    posted: Posted,
) -> Response {
    let visitor = posted.visitor;
    let Ok(id) = id.parse::<uuid::Uuid>() else { return super::page::missing(&console, &visitor) };
    let answer =
        visitor.ask(&console, Method::DELETE, &format!("/api/v1/api-keys/{id}/"), None).await;
    told(&console, &visitor, &answer, |_| News::default()).await
}

/// Back to the page; with what is shown once, or with what was wrong, the page itself.
async fn told(
    console: &Console,
    visitor: &Visitor,
    answer: &crate::api::ApiResponse,
    news: impl FnOnce(&Value) -> News,
) -> Response {
    if !answer.is_ok() {
        let wrong = News { wrong: answer.message().to_owned(), ..News::default() };
        return shown(console, visitor, answer.status, wrong).await;
    }
    let news = news(&answer.body);
    match news.link.is_empty() && news.secret.is_empty() {
        true => Redirect::to("/console/people/").into_response(),
        false => shown(console, visitor, StatusCode::OK, news).await,
    }
}

fn text(body: &Value, name: &str) -> String {
    body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}
