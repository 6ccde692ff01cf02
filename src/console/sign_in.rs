//! Sign-in, invitations, sign-out here and everywhere, and preferences.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Redirect, Response};

use super::auth::{
    AnonymousForm, LANG, Preferences, SubmittedForm, THEME, Visitor, session_person,
};
use super::cookie::{browser_cookie, cookie, session_cookie, session_name, with_cookie};
use super::form::Form;
use super::i18n::Lang;
use super::page::{Page, respond};
use super::{App, Console};
use crate::api::session::token;
use engine::people::cookie as cookies;
use engine::people::{Credentials, PASSWORD_MIN, PeopleError, SignInError, SignedIn, Token};

use model::{AuthId, Secret};

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignIn {
    page: Page,
    /// Name of the sign-in provider. Empty if absent.
    provider: String,
    to: String,
    /// Whether to ask for the account: users of several accounts may have the same name.
    asks_account: bool,
    account: String,
    name: String,
    password: String,
    wrong: String,
    guest: bool,
    /// Whether no owner exists, so that the node's log contains a link for the first one.
    is_set_up_open: bool,
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

/// Validates the path to open after sign-in. Only console paths are accepted, so that no link
/// redirects to another site.
pub(super) fn safe_path(to: &str) -> &str {
    let ours = to.starts_with("/console/")
        && !to.contains(['\\', '\r', '\n'])
        && !to.starts_with("/console/sign-");
    if ours { to } else { "/console/" }
}

/// The values entered in the sign-in form, without the password.
#[derive(Clone, Copy, Default)]
pub(super) struct SignInInput<'a> {
    /// The path to open after sign-in.
    pub(super) to: &'a str,
    /// Auth ID of the person's account. Empty to search all accounts.
    pub(super) account: &'a str,
    pub(super) name: &'a str,
}

pub(super) async fn form(
    console: &Console,
    preferences: Preferences,
    status: StatusCode,
    entered: &SignInInput<'_>,
    wrong: String,
) -> Response {
    let page = Page::bare(preferences, preferences.lang.t("sign_in.title"));
    let SignInInput { to, account, name } = *entered;
    let asks_account =
        !account.is_empty() || console.apis.api().keeper.book().has_several_main_accounts();
    let (guest, password) = console.guest.clone().unwrap_or_default();
    let is_guest = !guest.is_empty();
    let name = if name.is_empty() { guest } else { name.to_owned() };
    let provider = console
        .provider
        .as_ref()
        .map(|provider| provider.settings().name.clone())
        .unwrap_or_default();
    let (to, account) = (safe_path(to).to_owned(), account.to_owned());
    let is_set_up_open = super::set_up::is_open(console).await;
    let page = SignIn {
        page,
        provider,
        to,
        asks_account,
        account,
        name,
        password,
        wrong,
        guest: is_guest,
        is_set_up_open,
    };
    respond(status, &page)
}

pub(super) async fn page(
    State(console): App,
    headers: HeaderMap,
    uri: axum::http::Uri,
) -> Response {
    let query = Form::read(uri.query().unwrap_or_default().as_bytes());
    let preferences = Preferences::of(&headers);
    let wrong = match session_person(&console, &headers).await {
        Ok(Some(person)) if console.apis.is_enabled(&person.user.account) => {
            return Redirect::to(safe_path(query.get("to"))).into_response();
        }
        Ok(Some(_)) => preferences.lang.t("sign_in.disabled").to_owned(),
        Ok(None) | Err(_) => String::new(),
    };
    let entered = SignInInput { to: query.get("to"), account: query.get("account"), name: "" };
    form(&console, preferences, StatusCode::OK, &entered, wrong).await
}

pub(super) async fn sign_in(
    State(console): App,
    headers: HeaderMap,
    submitted: AnonymousForm,
) -> Response {
    let AnonymousForm { preferences, from, form: fields } = submitted;
    let browser = cookies::browser(&headers, console.is_secure());
    let people = &console.apis.api().people;
    let (to, name) = (fields.get("to"), fields.get("name"));
    let entered = SignInInput { to, account: fields.get("account"), name };
    let account = fields.some("account").map(AuthId::from);
    let password = Secret::new(fields.raw("password"));
    let several_accounts = console.apis.api().keeper.book().has_several_main_accounts();
    let credentials = Credentials { account: account.as_ref(), name, password, several_accounts };
    let signed_in = people.sign_in(credentials, from, browser).await;
    if let Err(SignInError::Unknown | SignInError::Wait(_)) = &signed_in {
        // Of several users with this name it is unknown which one was meant. The trail of each
        // would show where the others sign in from.
        let known = console.apis.api().store.people().by_name(account.as_ref(), name).await;
        let meant = match known.as_deref() {
            Ok([only]) => Some(only),
            _ => None,
        };
        console.apis.record_refusal("password", from, account.as_ref(), meant);
    }
    match signed_in {
        Ok(SignedIn { token, user }) => {
            let answer = Redirect::to(safe_path(to)).into_response();
            let answer = with_cookie(answer, &session_cookie(&console, &token));
            match people.browser(user, browser) {
                Some(value) => with_cookie(answer, &browser_cookie(&console, &value)),
                None => answer,
            }
        }
        Err(SignInError::Unknown) => {
            form(
                &console,
                preferences,
                StatusCode::UNAUTHORIZED,
                &entered,
                preferences.lang.t("sign_in.wrong").to_owned(),
            )
            .await
        }
        Err(SignInError::Wait(wait)) => {
            let seconds = wait.as_secs() + 1;
            let text = preferences.lang.with("sign_in.wait", &[&seconds.to_string()]);
            let mut answer =
                form(&console, preferences, StatusCode::TOO_MANY_REQUESTS, &entered, text).await;
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            answer
        }
        Err(SignInError::Busy) => {
            form(
                &console,
                preferences,
                StatusCode::TOO_MANY_REQUESTS,
                &entered,
                preferences.lang.t("sign_in.busy").to_owned(),
            )
            .await
        }
        Err(SignInError::Store(error)) => {
            tracing::warn!(%error, "sign-in failed");
            form(
                &console,
                preferences,
                StatusCode::SERVICE_UNAVAILABLE,
                &entered,
                preferences.lang.t("error.internal").to_owned(),
            )
            .await
        }
    }
}

pub(super) async fn sign_out(
    State(console): App,
    headers: HeaderMap,
    submitted: SubmittedForm,
) -> Response {
    let people = &console.apis.api().people;
    let done = match (submitted.form.get("everywhere"), token(&headers, console.is_secure())) {
        ("", Some(token)) => people.sign_out(&token).await,
        _ => people.sign_out_everywhere(submitted.visitor.person.user.id).await,
    };
    let Visitor { person, from, .. } = &submitted.visitor;
    if submitted.form.some("everywhere").is_some() && done.is_ok() {
        let object = format!("users/{}", person.user.id);
        let changed = (serde_json::Value::Null, serde_json::Value::Null);
        console.apis.record((&person.user, *from), "signOutUser", &object, changed).await;
    }
    if let Err(error) = done {
        tracing::warn!(%error, "session not ended");
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    with_cookie(
        Redirect::to("/console/sign-in").into_response(),
        &cookie(&console, session_name(&console), "", Some(0)),
    )
}

/// Sets theme and language, as cookies of this browser.
pub(super) async fn preferences(State(console): App, submitted: AnonymousForm) -> Response {
    let mut answer = Redirect::to(safe_path(submitted.form.get("to"))).into_response();
    let year = Some(31_536_000);
    if let Some(lang) = Lang::parse(submitted.form.get("lang")) {
        answer = with_cookie(answer, &cookie(&console, LANG, lang.tag(), year));
    }
    if let Some(theme) =
        ["light", "dark", "auto"].into_iter().find(|known| *known == submitted.form.get("theme"))
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
    invitation_page(&console, Preferences::of(&headers), &link, StatusCode::OK, String::new()).await
}

async fn invitation_page(
    console: &Console,
    preferences: Preferences,
    link: &str,
    status: StatusCode,
    wrong: String,
) -> Response {
    let found = match Token::read(link) {
        Some(token) => console.apis.api().people.invited(&token).await.unwrap_or_default(),
        None => None,
    };
    let page = Page::bare(preferences, preferences.lang.t("invitation.title"));
    let status = if found.is_some() { status } else { StatusCode::NOT_FOUND };
    let (who, name) = found.map_or_else(Default::default, |user| (user.full_name, user.name));
    respond(status, &Invitation { page, who, name, wrong, least: PASSWORD_MIN })
}

pub(super) async fn accept(
    State(console): App,
    Path(link): Path<String>,
    submitted: AnonymousForm,
) -> Response {
    let AnonymousForm { preferences, from, form: fields } = submitted;
    let people = &console.apis.api().people;
    let Some(token) = Token::read(&link) else {
        return invitation_page(&console, preferences, &link, StatusCode::NOT_FOUND, String::new())
            .await;
    };
    let user = people.invited(&token).await.unwrap_or_default();
    let wrong = match (fields.raw("password") == fields.raw("again"), user) {
        (_, None) => {
            return invitation_page(
                &console,
                preferences,
                &link,
                StatusCode::NOT_FOUND,
                String::new(),
            )
            .await;
        }
        (false, _) => "invitation.differ",
        (true, Some(user)) => {
            match people.accept(&token, Secret::new(fields.raw("password"))).await {
                Ok(()) => {
                    let object = format!("users/{}", user.id);
                    let changed = (serde_json::Value::Null, serde_json::Value::Null);
                    console.apis.record((&user, from), "acceptInvitation", &object, changed).await;
                    let password = Secret::new(fields.raw("password"));
                    let (account, name) = (Some(&user.account), user.name.as_str());
                    let credentials =
                        Credentials { account, name, password, several_accounts: false };
                    let Ok(session) = people.sign_in(credentials, from, None).await else {
                        return Redirect::to("/console/sign-in").into_response();
                    };
                    let answer = Redirect::to("/console/").into_response();
                    return with_cookie(answer, &session_cookie(&console, &session.token));
                }
                Err(PeopleError::Bad(..)) => "invitation.short",
                Err(PeopleError::Missing | PeopleError::Changed | PeopleError::Conflict(..)) => {
                    "invitation.over"
                }
                Err(PeopleError::Busy | PeopleError::Store(_)) => "error.internal",
            }
        }
    };
    invitation_page(
        &console,
        preferences,
        &link,
        StatusCode::BAD_REQUEST,
        preferences.lang.t(wrong).to_owned(),
    )
    .await
}
