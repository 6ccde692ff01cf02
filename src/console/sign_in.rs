//! Coming in and going out: the sign-in page, invitations, sign-out here and everywhere, and how one likes one's pages.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Redirect, Response};

use super::door::{LANG, Posted, Stranger, THEME, Taste, person};
use super::form::Form;
use super::i18n::Lang;
use super::page::{Page, respond};
use super::{App, Console};
use crate::api::session::{COOKIE, COOKIE_SECURE, token};
use crate::people::{PASSWORD_MIN, PeopleError, SignInError, Token};
use model::Secret;

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignIn {
    page: Page,
    /// What the sign-in provider is called; empty: there is none.
    provider: String,
    to: String,
    name: String,
    password: String,
    wrong: String,
    guest: bool,
}

#[derive(Template)]
#[template(path = "invitation.html")]
struct Invitation {
    page: Page,
    who: String,
    name: String,
    wrong: String,
    least: usize,
}

/// Only a path of ours: nobody is sent elsewhere after signing in.
pub(super) fn back(to: &str) -> &str {
    let ours = to.starts_with("/console/")
        && !to.contains(['\\', '\r', '\n'])
        && !to.starts_with("/console/sign-");
    if ours { to } else { "/console/" }
}

pub(super) fn form(
    console: &Console,
    taste: Taste,
    status: StatusCode,
    to: &str,
    name: &str,
    wrong: String,
) -> Response {
    let page = Page::bare(taste, taste.lang.t("sign_in.title"));
    let (guest, password) = console.guest.clone().unwrap_or_default();
    let is_guest = !guest.is_empty();
    let name = if name.is_empty() { guest } else { name.to_owned() };
    let provider = console
        .provider
        .as_ref()
        .map(|provider| provider.settings().name.clone())
        .unwrap_or_default();
    let to = back(to).to_owned();
    respond(status, &SignIn { page, provider, to, name, password, wrong, guest: is_guest })
}

pub(super) async fn page(
    State(console): App,
    headers: HeaderMap,
    uri: axum::http::Uri,
) -> Response {
    let query = Form::read(uri.query().unwrap_or_default().as_bytes());
    if let Ok(Some(_)) = person(&console, &headers).await {
        return Redirect::to(back(query.get("to"))).into_response();
    }
    form(&console, Taste::of(&headers), StatusCode::OK, query.get("to"), "", String::new())
}

pub(super) async fn sign_in(State(console): App, stranger: Stranger) -> Response {
    let Stranger { taste, from, form: said } = stranger;
    let (to, name) = (said.get("to"), said.get("name"));
    let password = Secret::new(said.raw("password"));
    match console.apis.api().people.sign_in(name, password, from).await {
        Ok(token) => {
            with_cookie(Redirect::to(back(to)).into_response(), &session_cookie(&console, &token))
        }
        Err(SignInError::Unknown) => form(
            &console,
            taste,
            StatusCode::UNAUTHORIZED,
            to,
            name,
            taste.lang.t("sign_in.wrong").to_owned(),
        ),
        Err(SignInError::Wait(wait)) => {
            let seconds = wait.as_secs() + 1;
            let text = taste.lang.with("sign_in.wait", &[&seconds.div_ceil(60).to_string()]);
            let mut answer = form(&console, taste, StatusCode::TOO_MANY_REQUESTS, to, name, text);
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            answer
        }
        Err(SignInError::Busy) => form(
            &console,
            taste,
            StatusCode::TOO_MANY_REQUESTS,
            to,
            name,
            taste.lang.t("sign_in.busy").to_owned(),
        ),
        Err(SignInError::Store(error)) => {
            tracing::warn!(%error, "somebody could not be signed in");
            form(
                &console,
                taste,
                StatusCode::SERVICE_UNAVAILABLE,
                to,
                name,
                taste.lang.t("error.internal").to_owned(),
            )
        }
    }
}

pub(super) async fn sign_out(State(console): App, headers: HeaderMap, posted: Posted) -> Response {
    let people = &console.apis.api().people;
    let done = match (posted.form.get("everywhere"), token(&headers, console.is_secure())) {
        ("", Some(token)) => people.sign_out(&token).await,
        _ => people.sign_out_everywhere(posted.visitor.person.user.id).await,
    };
    if let Err(error) = done {
        tracing::warn!(%error, "a session could not be ended");
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    with_cookie(
        Redirect::to("/console/sign-in").into_response(),
        &cookie(&console, session_name(&console), "", Some(0)),
    )
}

/// Light or dark, and the language: cookies of this browser.
pub(super) async fn preferences(State(console): App, stranger: Stranger) -> Response {
    let mut answer = Redirect::to(back(stranger.form.get("to"))).into_response();
    let year = Some(31_536_000);
    if let Some(lang) = Lang::parse(stranger.form.get("lang")) {
        answer = with_cookie(answer, &cookie(&console, LANG, lang.tag(), year));
    }
    if let Some(theme) =
        ["light", "dark", "auto"].into_iter().find(|known| *known == stranger.form.get("theme"))
    {
        answer = with_cookie(answer, &cookie(&console, THEME, theme, year));
    }
    answer
}

pub(super) async fn invitation(
    State(console): App,
    Path(link): Path<String>,
    headers: HeaderMap,
) -> Response {
    invited(&console, Taste::of(&headers), &link, StatusCode::OK, String::new()).await
}

async fn invited(
    console: &Console,
    taste: Taste,
    link: &str,
    status: StatusCode,
    wrong: String,
) -> Response {
    let found = match Token::read(link) {
        Some(token) => console.apis.api().people.invited(&token).await.unwrap_or_default(),
        None => None,
    };
    let page = Page::bare(taste, taste.lang.t("invitation.title"));
    let status = if found.is_some() { status } else { StatusCode::NOT_FOUND };
    let (who, name) = found.map_or_else(Default::default, |user| (user.full_name, user.name));
    respond(status, &Invitation { page, who, name, wrong, least: PASSWORD_MIN })
}

pub(super) async fn accept(
    State(console): App,
    Path(link): Path<String>,
    stranger: Stranger,
) -> Response {
    let Stranger { taste, from, form: said } = stranger;
    let people = &console.apis.api().people;
    let Some(token) = Token::read(&link) else {
        return invited(&console, taste, &link, StatusCode::NOT_FOUND, String::new()).await;
    };
    let user = people.invited(&token).await.unwrap_or_default();
    let wrong = match (said.raw("password") == said.raw("again"), user) {
        (_, None) => {
            return invited(&console, taste, &link, StatusCode::NOT_FOUND, String::new()).await;
        }
        (false, _) => "invitation.differ",
        (true, Some(user)) => {
            match people.accept(&token, Secret::new(said.raw("password"))).await {
                Ok(()) => {
                    let Ok(session) =
                        people.sign_in(&user.name, Secret::new(said.raw("password")), from).await
                    else {
                        return Redirect::to("/console/sign-in").into_response();
                    };
                    let answer = Redirect::to("/console/").into_response();
                    return with_cookie(answer, &session_cookie(&console, &session));
                }
                Err(PeopleError::Bad(..)) => "invitation.short",
                Err(PeopleError::Missing | PeopleError::Changed | PeopleError::Conflict(..)) => {
                    "invitation.over"
                }
                Err(PeopleError::Busy | PeopleError::Store(_)) => "error.internal",
            }
        }
    };
    invited(&console, taste, &link, StatusCode::BAD_REQUEST, taste.lang.t(wrong).to_owned()).await
}

fn session_name(console: &Console) -> &'static str {
    if console.is_secure() { COOKIE_SECURE } else { COOKIE }
}

pub(super) fn session_cookie(console: &Console, token: &Token) -> String {
    cookie(console, session_name(console), token.reveal(), None)
}

/// Without an age it ends with the browser; the session itself does so by its own times.
pub(super) fn cookie(console: &Console, name: &str, value: &str, age: Option<u32>) -> String {
    let secure = if console.is_secure() { "; Secure" } else { "" };
    let age = age.map_or_else(String::new, |age| format!("; Max-Age={age}"));
    format!("{name}={value}; Path=/; HttpOnly; SameSite=Strict{secure}{age}")
}

pub(super) fn with_cookie(mut answer: Response, cookie: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(cookie) {
        answer.headers_mut().append(header::SET_COOKIE, value);
    }
    answer
}
