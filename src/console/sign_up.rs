//! Numbers that come by Meta's sign-up window (S2.13): it is opened from here with a word that this browser keeps, and comes back
//! to here with that word and a code, which the number API exchanges. No script of Meta's is in our pages.

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde_json::json;
use url::Url;

use super::door::{self, Posted, Taste, Visitor};
use super::form::Form;
use super::page::{Page, failed, forbidden, respond};
use super::sign_in::{cookie, with_cookie};
use super::{App, Console};
use crate::api::session;
use engine::people::Token;

/// Meta's window, and as what it is opened.
#[derive(Clone, Debug)]
pub struct SignUpWindow {
    pub url: Url,
    pub app_id: String,
    /// The login configuration; a simulated Meta asks for none.
    pub config_id: Option<String>,
}

/// Holds the word until the window comes back.
const COOKIE: &str = "offhook-sign-up";
/// As long as somebody may take for it, in seconds.
const COOKIE_AGE: u32 = 3_600;

fn back_to(console: &Console) -> String {
    format!("{}/console/numbers/sign-up/back", console.apis.api().base_url)
}

/// Off to Meta.
pub(super) async fn start(State(console): App, visitor: Visitor) -> Response {
    let Some(window) = console.sign_up.clone().filter(|_| visitor.is_owner()) else {
        return forbidden(&console, &visitor);
    };
    let word = Token::fresh();
    let mut url = window.url;
    url.query_pairs_mut()
        .append_pair("client_id", &window.app_id)
        .append_pair("redirect_uri", &back_to(&console))
        .append_pair("response_type", "code")
        .append_pair("override_default_response_type", "true")
        .append_pair("state", word.reveal());
    if let Some(config) = &window.config_id {
        url.query_pairs_mut().append_pair("config_id", config);
    }
    with_cookie(
        Redirect::to(url.as_str()).into_response(),
        &cookie(&console, COOKIE, word.reveal(), Some(COOKIE_AGE)),
    )
}

#[derive(Template)]
#[template(path = "sign_up.html")]
struct Back {
    page: Page,
    code: String,
    state: String,
    wrong: String,
    /// Where to look again; empty: this is the place.
    again: String,
}

/// The window came back. From elsewhere the browser shows no session (`SameSite=Strict`): then the page asks for itself once
/// more, from here.
pub(super) async fn back(State(console): App, headers: HeaderMap, uri: Uri) -> Response {
    let query = Form::read(uri.query().unwrap_or_default().as_bytes());
    let taste = Taste::of(&headers);
    let title = taste.lang.t("numbers.add");
    let person = match door::person(&console, &headers).await {
        Ok(person) => person,
        Err(answer) => return *answer,
    };
    let Some(person) = person else {
        if query.some("again").is_some() {
            return Redirect::to("/console/sign-in").into_response();
        }
        let again = format!("/console/numbers/sign-up/back{}", query.with("again", Some("1")));
        let page = Page::bare(taste, title);
        return respond(
            StatusCode::OK,
            &Back { page, again, code: String::new(), state: String::new(), wrong: String::new() },
        );
    };
    let (path, at) = ("/console/numbers/".to_owned(), console.apis.api().feed.last());
    let visitor =
        Visitor { person, taste, query: Form::default(), path, unread: 0, phone: "none", at };
    let wrong = match query.get("code") {
        "" => taste.lang.t("numbers.sign_up_cancelled"),
        _ => "",
    };
    let page = Back {
        page: visitor.page(&console, title, "numbers"),
        code: query.get("code").to_owned(),
        state: query.get("state").to_owned(),
        wrong: wrong.to_owned(),
        again: String::new(),
    };
    respond(StatusCode::OK, &page)
}

/// Takes the numbers in.
pub(super) async fn take(State(console): App, headers: HeaderMap, posted: Posted) -> Response {
    let Posted { visitor, form } = posted;
    if !visitor.is_owner() {
        return forbidden(&console, &visitor);
    }
    // A code that was not asked for from this browser is somebody else's.
    let word = session::cookie(&headers, COOKIE)
        .filter(|word| !word.is_empty() && *word == form.get("state"));
    if word.is_none() {
        let text = visitor.lang().t("numbers.sign_up_stale");
        return failed(&console, &visitor, StatusCode::BAD_REQUEST, text);
    }
    let body = json!({"code": form.get("code"), "redirectUri": back_to(&console)});
    let answer =
        visitor.ask(&console, Method::POST, "/api/v1/phone-numbers/signup/", Some(&body)).await;
    match answer.is_ok() {
        true => {
            let to = Redirect::to("/console/numbers/?done=sign-up").into_response();
            with_cookie(to, &cookie(&console, COOKIE, "", Some(0)))
        }
        false => failed(&console, &visitor, answer.status, answer.message()),
    }
}
