//! The page of a set-up link, on which the first owner chooses a name and a password.

use std::net::IpAddr;

use askama::Template;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde_json::Value;

use super::auth::{AnonymousForm, Preferences, client};
use super::cookie::{session_cookie, with_cookie};
use super::page::{Page, respond};
use super::{App, Console};
use engine::people::{Credentials, NAME_MAX, PASSWORD_MIN, PeopleError, SetUpError};
use model::Secret;

/// The path before the token.
pub const PATH: &str = "/console/set-up/";

#[derive(Template)]
#[template(path = "set_up.html")]
struct SetUpPage {
    page: Page,
    /// Whether the link is valid.
    is_valid: bool,
    account: String,
    name: String,
    wrong: String,
    least: usize,
    most: usize,
}

/// Whether the sign-in page should mention the set-up link.
pub(super) async fn is_open(console: &Console) -> bool {
    console.apis.api().people.is_set_up_open().await.unwrap_or_default()
}

pub(super) async fn page(
    State(console): App,
    Path(token): Path<String>,
    request: Request,
) -> Response {
    let from = client(request.extensions());
    let preferences = Preferences::of(request.headers());
    match check(&console, &token, from).await {
        Ok(()) => form(&console, preferences, StatusCode::OK, "", ""),
        Err(error) => refusal(preferences, &error),
    }
}

async fn check(console: &Console, token: &str, from: IpAddr) -> Result<(), SetUpError> {
    let checked = console.apis.api().people.check_set_up(token, from).await;
    if let Err(SetUpError::Invalid | SetUpError::Wait(_)) = &checked {
        console.apis.record_refusal("set-up-link", from, None, None);
    }
    checked
}

pub(super) async fn create(
    State(console): App,
    Path(token): Path<String>,
    submitted: AnonymousForm,
) -> Response {
    let AnonymousForm { preferences, from, form: fields } = submitted;
    if let Err(error) = check(&console, &token, from).await {
        return refusal(preferences, &error);
    }
    let Some(account) = &console.first_account else {
        return refusal(preferences, &SetUpError::Invalid);
    };
    let (name, password) = (fields.get("name"), Secret::new(fields.raw("password")));
    let again = |key| {
        let text = preferences.lang.t(key);
        form(&console, preferences, StatusCode::BAD_REQUEST, name, text)
    };
    if fields.raw("password") != fields.raw("again") {
        return again("invitation.differ");
    }
    let people = &console.apis.api().people;
    match people.set_up((account, &token), (name, password.clone()), from).await {
        Ok(user) => {
            let made = serde_json::json!({"name": user.name, "role": "owner"});
            let object = format!("users/{}", user.id);
            console.apis.record((&user, from), "setUp", &object, (Value::Null, made)).await;
            let (account, name) = (Some(&user.account), user.name.as_str());
            let credentials = Credentials { account, name, password, several_accounts: false };
            let Ok(session) = people.sign_in(credentials, from, None).await else {
                return Redirect::to("/console/sign-in").into_response();
            };
            with_cookie(
                Redirect::to("/console/").into_response(),
                &session_cookie(&console, &session.token),
            )
        }
        Err(SetUpError::People(PeopleError::Bad("name", _))) => again("set_up.name_wrong"),
        Err(SetUpError::People(PeopleError::Bad(..))) => again("invitation.short"),
        Err(SetUpError::People(PeopleError::Conflict(..))) => again("set_up.name_taken"),
        Err(error) => refusal(preferences, &error),
    }
}

fn form(
    console: &Console,
    preferences: Preferences,
    status: StatusCode,
    name: &str,
    wrong: &str,
) -> Response {
    let account = console.first_account.as_ref().map(ToString::to_string);
    let page = Page::bare(preferences, preferences.lang.t("set_up.title"));
    let page = SetUpPage {
        page,
        is_valid: true,
        account: account.unwrap_or_default(),
        name: name.to_owned(),
        wrong: wrong.to_owned(),
        least: PASSWORD_MIN,
        most: NAME_MAX,
    };
    respond(status, &page)
}

/// A page without a form.
fn refusal(preferences: Preferences, error: &SetUpError) -> Response {
    let (status, text, wait) = match error {
        SetUpError::Invalid => {
            (StatusCode::NOT_FOUND, preferences.lang.t("set_up.over").to_owned(), None)
        }
        SetUpError::Wait(wait) => {
            let seconds = wait.as_secs() + 1;
            let text = preferences.lang.with("sign_in.wait", &[&seconds.to_string()]);
            (StatusCode::TOO_MANY_REQUESTS, text, Some(seconds))
        }
        SetUpError::People(error) => {
            tracing::warn!(%error, "set-up failed");
            let text = preferences.lang.t("error.internal").to_owned();
            (StatusCode::SERVICE_UNAVAILABLE, text, None)
        }
    };
    let page = Page::bare(preferences, preferences.lang.t("set_up.title"));
    let (account, name) = Default::default();
    let page = SetUpPage { page, is_valid: false, account, name, wrong: text, least: 0, most: 0 };
    let mut response = respond(status, &page);
    if let Some(seconds) = wait {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
