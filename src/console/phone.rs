//! The softphone: an endpoint's phone in the browser, by `/phone` (`docs/phone.md`), and the account's endpoints. The page is the
//! frame; the element `<offhook-phone>` does the rest.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde_json::{Value, json};

use super::door::{Posted, Visitor};
use super::page::{Page, missing, respond};
use super::{App, Console};
use crate::api::ApiResponse;
use engine::people::Token;
use model::Role;

/// An endpoint.
pub(super) struct Named {
    pub(super) id: String,
    pub(super) name: String,
    /// What people call it.
    pub(super) alias: String,
    /// What a document rings it by.
    pub(super) address: String,
    /// It bears the visitor's own name.
    pub(super) here: bool,
    /// A phone of it is registered: it can be rung.
    pub(super) ready: bool,
}

/// An application that an endpoint's own calls may run.
struct Choice {
    id: String,
    name: String,
}

#[derive(Template)]
#[template(path = "phone.html")]
struct Phone {
    page: Page,
    endpoints: Vec<Named>,
    applications: Vec<Choice>,
    /// Whose choices the browser keeps.
    person: String,
    /// They may make endpoints.
    makes: bool,
    wrong: String,
    /// What was typed and not taken: name, alias, answer URL.
    typed: [String; 3],
}

/// Endpoints that are offered.
const MOST: u32 = 200;

/// The account's endpoints.
pub(super) async fn endpoints(console: &Console, visitor: &Visitor) -> Vec<Named> {
    let api = console.apis.api();
    let found = api.store.endpoints().list(&visitor.person.scope(), MOST, 0).await;
    let all = found.map(|(list, _)| list).unwrap_or_default().into_iter();
    let named = all.map(|one| Named {
        id: one.id.to_string(),
        here: one.name.as_str() == visitor.person.user.name,
        ready: api.phones.is_registered(&one.name),
        address: one.name.sip_address(&api.host),
        name: one.name.to_string(),
        alias: one.alias,
    });
    named.collect()
}

pub(super) async fn page(State(console): App, visitor: Visitor) -> Response {
    shown(&console, &visitor, StatusCode::OK, String::new(), Default::default()).await
}

async fn shown(
    console: &Console,
    visitor: &Visitor,
    status: StatusCode,
    wrong: String,
    typed: [String; 3],
) -> Response {
    let makes = visitor.person.user.role >= Role::Admin;
    let page = Phone {
        page: visitor.page(console, visitor.lang().t("nav.phone"), "phone"),
        endpoints: endpoints(console, visitor).await,
        applications: if makes { applications(console, visitor).await } else { Vec::new() },
        person: visitor.person.user.name.clone(),
        makes,
        wrong,
        typed,
    };
    respond(status, &page)
}

async fn applications(console: &Console, visitor: &Visitor) -> Vec<Choice> {
    let answer = console
        .apis
        .plivo_request(&visitor.person, Method::GET, "Application/?limit=20", None)
        .await;
    let all = answer.body.get("objects").and_then(Value::as_array).cloned().unwrap_or_default();
    let of = |one: &Value| Choice { id: text(one, "app_id"), name: text(one, "app_name") };
    all.iter().map(of).collect()
}

/// Makes an endpoint. Without a password it has one that nobody knows: it is registered by whoever is signed in.
/// With an answer URL it has an application of its own.
pub(super) async fn make(State(console): App, posted: Posted) -> Response {
    let Posted { visitor, form } = posted;
    if form.get("do") == "own" {
        return match make_own(&console, &visitor).await {
            Ok(()) => Redirect::to("/console/phone/").into_response(),
            Err(why) => {
                shown(&console, &visitor, StatusCode::BAD_REQUEST, why, Default::default()).await
            }
        };
    }
    let (name, alias, url) = (form.get("name"), form.get("alias"), form.get("answer_url"));
    let again = |answer: &ApiResponse| {
        let (wrong, typed) = (answer.message().to_owned(), [name, alias, url].map(str::to_owned));
        (answer.status, wrong, typed)
    };
    let asked = |path: &'static str, body: Value| {
        let (console, visitor) = (console.clone(), &visitor);
        async move { console.apis.plivo_request(&visitor.person, Method::POST, path, Some(&body)).await }
    };
    let mut application = form.get("app_id").to_owned();
    if !url.is_empty() {
        let made =
            asked("Application/", json!({"app_name": format!("phone {name}"), "answer_url": url}))
                .await;
        if !made.is_ok() {
            let (status, wrong, typed) = again(&made);
            return shown(&console, &visitor, status, wrong, typed).await;
        }
        application = text(&made.body, "app_id");
    }
    let password = match form.raw("password") {
        "" => Token::fresh().reveal().to_owned(),
        given => given.to_owned(),
    };
    let body =
        json!({"username": name, "alias": alias, "password": password, "app_id": application});
    let made = asked("Endpoint/", body).await;
    if made.is_ok() {
        return Redirect::to("/console/phone/").into_response();
    }
    if !url.is_empty() {
        // Nobody would have it.
        let path = format!("Application/{application}/");
        console.apis.plivo_request(&visitor.person, Method::DELETE, &path, None).await;
    }
    let (status, wrong, typed) = again(&made);
    shown(&console, &visitor, status, wrong, typed).await
}

/// Makes an endpoint that bears the visitor's name, as far as an endpoint's may, for them to register here.
pub(super) async fn make_own(console: &Console, visitor: &Visitor) -> Result<(), String> {
    let user = &visitor.person.user;
    let fits = |c: char| if c.is_ascii_alphanumeric() || ".-_".contains(c) { c } else { '-' };
    let name: String =
        user.name.split('@').next().unwrap_or_default().chars().take(50).map(fits).collect();
    let password = Token::fresh();
    let body = json!({"username": name, "alias": user.full_name, "password": password.reveal()});
    let made =
        console.apis.plivo_request(&visitor.person, Method::POST, "Endpoint/", Some(&body)).await;
    if made.is_ok() { Ok(()) } else { Err(made.message().to_owned()) }
}

/// Takes an endpoint away.
pub(super) async fn remove(
    State(console): App,
    Path(id): Path<String>,
    posted: Posted,
) -> Response {
    let visitor = posted.visitor;
    if id.is_empty() || !id.bytes().all(|b| b.is_ascii_digit()) {
        return missing(&console, &visitor);
    }
    let path = format!("Endpoint/{id}/");
    let answer = console.apis.plivo_request(&visitor.person, Method::DELETE, &path, None).await;
    match answer.status {
        status if status.is_success() => Redirect::to("/console/phone/").into_response(),
        StatusCode::NOT_FOUND => missing(&console, &visitor),
        status => {
            shown(&console, &visitor, status, answer.message().to_owned(), Default::default()).await
        }
    }
}

fn text(body: &Value, name: &str) -> String {
    body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}
