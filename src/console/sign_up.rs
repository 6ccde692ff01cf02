//! Meta's Embedded Signup without Meta's script: the browser opens the sign-up dialog with a state
//! token, which is also stored in a cookie, and returns with that token and a code. The number API
//! exchanges the code.

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde_json::json;
use url::Url;

use super::auth::{self, Preferences, SubmittedForm, Visitor};
use super::cookie::{cookie, with_cookie};
use super::form::Form;
use super::page::{Page, failed, forbidden, respond};
use super::{App, Console};
use crate::api::session;
use engine::people::Token;

/// Meta's sign-up dialog and its parameters.
#[derive(Clone, Debug)]
pub struct SignUpWindow {
    pub url: Url,
    pub app_id: String,
    /// The Facebook Login configuration. A simulated Meta needs none.
    pub config_id: Option<String>,
}

/// Cookie with the state token until the browser returns.
const COOKIE: &str = "offhook-sign-up";
/// The cookie with https. Its prefix keeps other hosts of the domain from setting it.
const COOKIE_SECURE: &str = "__Host-offhook-sign-up";

fn cookie_name(is_secure: bool) -> &'static str {
    if is_secure { COOKIE_SECURE } else { COOKIE }
}

/// Maximum duration of a sign-up, in seconds.
const COOKIE_AGE: u32 = 3_600;

fn back_to(console: &Console) -> String {
    format!("{}/console/numbers/sign-up/back", console.apis.api().base_url)
}

/// Redirects to Meta.
pub(super) async fn start(State(console): App, visitor: Visitor) -> Response {
    let Some(window) = console.sign_up.clone().filter(|_| visitor.is_owner()) else {
        return forbidden(&console, &visitor);
    };
    let state = Token::fresh();
    let mut url = window.url;
    url.query_pairs_mut()
        .append_pair("client_id", &window.app_id)
        .append_pair("redirect_uri", &back_to(&console))
        .append_pair("response_type", "code")
        .append_pair("override_default_response_type", "true")
        .append_pair("state", state.reveal());
    if let Some(config) = &window.config_id {
        url.query_pairs_mut().append_pair("config_id", config);
    }
    with_cookie(
        Redirect::to(url.as_str()).into_response(),
        &cookie(&console, cookie_name(console.is_secure()), state.reveal(), Some(COOKIE_AGE)),
    )
}

#[derive(Template)]
#[template(path = "sign_up.html")]
struct SignUpPage {
    page: Page,
    code: String,
    state: String,
    wrong: String,
    /// URL of this page, which it reloads so that the browser sends its session cookie. Empty if the
    /// cookie came with this request.
    again: String,
}

/// Handles the return from Meta. On a navigation from another site the browser does not send the
/// session cookie (`SameSite=Strict`); in that case the page requests itself again.
pub(super) async fn back(State(console): App, headers: HeaderMap, uri: Uri) -> Response {
    let query = Form::read(uri.query().unwrap_or_default().as_bytes());
    let preferences = Preferences::of(&headers);
    let title = preferences.lang.t("numbers.add");
    let person = match auth::person(&console, &headers).await {
        Ok(person) => person,
        Err(answer) => return *answer,
    };
    let Some(person) = person else {
        if query.some("again").is_some() {
            return Redirect::to("/console/sign-in").into_response();
        }
        let again = format!("/console/numbers/sign-up/back{}", query.with("again", Some("1")));
        let page = Page::bare(preferences, title);
        return respond(
            StatusCode::OK,
            &SignUpPage {
                page,
                again,
                code: String::new(),
                state: String::new(),
                wrong: String::new(),
            },
        );
    };
    let at = console.apis.api().feed.last(&person.user.account, &person.user.main_account);
    let path = "/console/numbers/".to_owned();
    let visitor = Visitor {
        person,
        preferences,
        query: Form::default(),
        path,
        unread: 0,
        unread_chats: 0,
        phone: "none",
        at,
        from: std::net::IpAddr::from([0, 0, 0, 0]),
    };
    let wrong = match query.get("code") {
        "" => preferences.lang.t("numbers.sign_up_cancelled"),
        _ => "",
    };
    let page = SignUpPage {
        page: visitor.page(&console, title, "numbers"),
        code: query.get("code").to_owned(),
        state: query.get("state").to_owned(),
        wrong: wrong.to_owned(),
        again: String::new(),
    };
    respond(StatusCode::OK, &page)
}

/// Adds the numbers.
pub(super) async fn add_numbers(
    State(console): App,
    headers: HeaderMap,
    submitted: SubmittedForm,
) -> Response {
    let SubmittedForm { visitor, form } = submitted;
    if !visitor.is_owner() {
        return forbidden(&console, &visitor);
    }
    // A code without the state token of this browser may be an attack (login CSRF).
    let state = session::cookie(&headers, cookie_name(console.is_secure()))
        .filter(|state| !state.is_empty() && *state == form.get("state"));
    if state.is_none() {
        let text = visitor.lang().t("numbers.sign_up_stale");
        return failed(&console, &visitor, StatusCode::BAD_REQUEST, text);
    }
    let body = json!({"code": form.get("code"), "redirectUri": back_to(&console)});
    let answer =
        visitor.ask(&console, Method::POST, "/api/v1/phone-numbers/signup/", Some(&body)).await;
    match answer.is_ok() {
        true => {
            let to = Redirect::to("/console/numbers/?done=sign-up").into_response();
            with_cookie(to, &cookie(&console, cookie_name(console.is_secure()), "", Some(0)))
        }
        false => failed(&console, &visitor, answer.status, answer.message()),
    }
}

#[cfg(test)]
mod tests {
    use super::cookie_name;

    #[test]
    fn the_cookie_belongs_to_the_host_with_https() {
        assert_eq!(cookie_name(true), "__Host-offhook-sign-up");
        // Browsers refuse the prefix without https.
        assert_eq!(cookie_name(false), "offhook-sign-up");
    }
}
