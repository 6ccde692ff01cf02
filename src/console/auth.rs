//! Authenticates requests. Extractors yield the session of a request; for forms they also check the
//! CSRF token and that the browser reports the same origin.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Redirect, Response};

use super::Console;
use super::form::Form;
use super::i18n::Lang;
use super::page::{self, Page};
use crate::api::session;
use crate::api::{ApiResponse, TOO_MANY_IN_PROGRESS, read_body, server};
use engine::limiter::RequestClaims;
use engine::people::Person;
use model::Role;
use store::Scope;

/// Language and theme of a browser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Preferences {
    pub(super) lang: Lang,
    /// `light`, `dark`, or empty for the system setting.
    pub(super) theme: &'static str,
}

impl Preferences {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let accepted = headers
            .get(header::ACCEPT_LANGUAGE)
            .and_then(|line| line.to_str().ok())
            .unwrap_or_default();
        let lang = session::cookie(headers, LANG)
            .and_then(Lang::parse)
            .unwrap_or_else(|| Lang::accepted(accepted));
        let theme = match session::cookie(headers, THEME) {
            Some("light") => "light",
            Some("dark") => "dark",
            _ => "",
        };
        Self { lang, theme }
    }
}

/// The language cookie. It does not identify anyone.
pub(super) const LANG: &str = "offhook-lang";
/// The theme cookie. It does not identify anyone.
pub(super) const THEME: &str = "offhook-theme";

/// Maximum number of conversations with unread messages that are counted.
pub(super) const UNREAD_CHATS_MAX: u32 = 100;

/// A signed-in person and their request.
#[derive(Clone, Debug)]
pub(super) struct Visitor {
    pub(super) person: Person,
    pub(super) preferences: Preferences,
    /// Query of the URL.
    pub(super) query: Form,
    /// Path of the URL.
    pub(super) path: String,
    /// Number of unread notifications.
    pub(super) unread: u64,
    /// Number of conversations with unread messages, at most [`UNREAD_CHATS_MAX`].
    pub(super) unread_chats: u64,
    /// State of the endpoint with the person's name: `on` if it is registered, `off` if not, `none`
    /// if it does not exist.
    pub(super) phone: &'static str,
    /// Number of the latest event of the feed at the time of the request. The page is at least as
    /// recent.
    pub(super) at: u64,
    /// Network address of the client.
    pub(super) from: IpAddr,
}

impl Visitor {
    /// The common part of a page.
    pub(super) fn page(&self, console: &Console, title: &str, here: &'static str) -> Page {
        Page::of(console, self, title, here)
    }

    pub(super) fn lang(&self) -> Lang {
        self.preferences.lang
    }

    pub(super) fn is_admin(&self) -> bool {
        self.person.user.role >= Role::Admin
    }

    pub(super) fn is_owner(&self) -> bool {
        self.person.user.role == Role::Owner
    }

    /// Whether the person operates the node: an owner of its only main account.
    pub(super) fn is_operator(&self, console: &Console) -> bool {
        let is_main = matches!(self.person.scope(), Scope::Main(_));
        self.is_owner() && is_main && !console.apis.api().operator.is_shared()
    }

    /// Sends a request to the number API as this person.
    pub(super) async fn ask(
        &self,
        console: &Console,
        method: Method,
        path: &str,
        body: Option<&serde_json::Value>,
    ) -> ApiResponse {
        console.apis.request((&self.person, self.from), method, path, body).await
    }

    /// Lists `path` of the number API as this person. Returns no items if the API refuses.
    pub(super) async fn items<T: serde::de::DeserializeOwned>(
        &self,
        console: &Console,
        path: &str,
    ) -> Vec<T> {
        self.page_of(console, path).await.0
    }

    /// Requests the pages of the list at `path` until there are `limit` items. A page may have fewer
    /// items than requested. `shorten` clears the large fields of an item that the caller does
    /// not need, so that they are not in memory all at once.
    pub(super) async fn items_of_pages<T: serde::de::DeserializeOwned>(
        &self,
        console: &Console,
        path: &str,
        limit: usize,
        shorten: impl Fn(&mut T),
    ) -> Vec<T> {
        let (mut all, mut next) = (Vec::new(), Some(path.to_owned()));
        while let Some(page) = next.filter(|_| all.len() < limit) {
            let (mut items, cursor) = self.page_of(console, &page).await;
            items.iter_mut().for_each(&shorten);
            all.extend(items);
            next = cursor.map(|cursor| {
                let cursor = url::form_urlencoded::byte_serialize(cursor.as_bytes());
                format!("{path}&cursor={}", cursor.collect::<String>())
            });
        }
        all
    }

    /// Returns the items of a page of a list and the cursor of the next page.
    async fn page_of<T: serde::de::DeserializeOwned>(
        &self,
        console: &Console,
        path: &str,
    ) -> (Vec<T>, Option<String>) {
        let mut answer = self.ask(console, Method::GET, path, None).await;
        let mut take = |name| answer.body.get_mut(name).map(serde_json::Value::take);
        let items = take("items").unwrap_or_default();
        let next = take("next").and_then(|next| next.as_str().map(str::to_owned));
        (serde_json::from_value(items).unwrap_or_default(), next)
    }
}

/// Why a page is refused.
const TOO_MANY_PAGES: &str = "you have requested too many pages; try again in a few seconds";

/// Returns the network address of the client. It is unspecified for pages that the node renders by
/// itself.
pub(super) fn client(extensions: &Extensions) -> IpAddr {
    extensions.get::<server::Peer>().map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.0)
}

/// The person of the request's session. `None` without a valid session, or if the account is
/// disabled.
pub(super) async fn person(
    console: &Console,
    headers: &HeaderMap,
) -> Result<Option<Person>, Box<Response>> {
    let person = session_person(console, headers).await?;
    Ok(person.filter(|person| console.apis.is_enabled(&person.user.account)))
}

/// Like [`person`], also if the account is disabled or was deleted.
pub(super) async fn session_person(
    console: &Console,
    headers: &HeaderMap,
) -> Result<Option<Person>, Box<Response>> {
    let Some(token) = session::token(headers, console.is_secure()) else { return Ok(None) };
    console.apis.api().people.who(&token).await.map_err(|error| {
        tracing::warn!(%error, "session not read");
        Box::new(StatusCode::SERVICE_UNAVAILABLE.into_response())
    })
}

/// Returns the state of the person's own endpoint. See [`Visitor::phone`].
async fn phone(console: &Console, person: &Person) -> &'static str {
    let api = console.apis.api();
    match api.store.endpoints().of_user(&person.user).await.ok().flatten() {
        Some(endpoint) if api.phones.is_registered(&endpoint.name) => "on",
        Some(_) => "off",
        None => "none",
    }
}

impl FromRequestParts<Arc<Console>> for Visitor {
    type Rejection = Response;

    async fn from_request_parts(
        parts: &mut Parts,
        console: &Arc<Console>,
    ) -> Result<Self, Response> {
        let preferences = Preferences::of(&parts.headers);
        let path =
            parts.uri.path_and_query().map_or_else(|| "/console/".to_owned(), ToString::to_string);
        match person(console, &parts.headers).await.map_err(|no| *no)? {
            Some(person) => {
                // Before the page reads anything: later changes have higher numbers.
                let at =
                    console.apis.api().feed.last(&person.user.account, &person.user.main_account);
                let claims = parts.extensions.get::<RequestClaims>();
                let account = &person.user.main_account;
                if claims.is_some_and(|claims| !claims.authenticate_caller(account)) {
                    let status = StatusCode::TOO_MANY_REQUESTS;
                    let retry = [(header::RETRY_AFTER, "1")];
                    return Err((status, retry, TOO_MANY_IN_PROGRESS).into_response());
                }
                if let Some(wait) = console.apis.record_page(person.user.id) {
                    let retry = [(header::RETRY_AFTER, (wait.as_secs() + 1).to_string())];
                    let status = StatusCode::TOO_MANY_REQUESTS;
                    return Err((status, retry, TOO_MANY_PAGES).into_response());
                }
                let query = Form::read(parts.uri.query().unwrap_or_default().as_bytes());
                let unread = console
                    .apis
                    .api()
                    .store
                    .notifications()
                    .count_unread(&person.scope())
                    .await
                    .unwrap_or_default();
                let conversations = console.apis.api().store.conversations();
                let unread_chats =
                    conversations.count_unread(&person.scope(), UNREAD_CHATS_MAX).await;
                let phone = phone(console, &person).await;
                Ok(Self {
                    person,
                    preferences,
                    query,
                    path: parts.uri.path().to_owned(),
                    unread,
                    unread_chats: unread_chats.unwrap_or_default(),
                    phone,
                    at,
                    from: client(&parts.extensions),
                })
            }
            // The addresses of forms redirect to their pages.
            None => {
                let back =
                    url::form_urlencoded::byte_serialize(path.as_bytes()).collect::<String>();
                Err(Redirect::to(&format!("/console/sign-in?to={back}")).into_response())
            }
        }
    }
}

/// A form that a signed-in person submitted from a page of the console, and confirmed if the page
/// asks for that.
pub(super) struct SubmittedForm {
    pub(super) visitor: Visitor,
    pub(super) form: Form,
}

impl FromRequest<Arc<Console>> for SubmittedForm {
    type Rejection = Response;

    async fn from_request(request: Request, console: &Arc<Console>) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let visitor = Visitor::from_request_parts(&mut parts, console).await?;
        let form = read(&parts.headers, body).await.map_err(|no| *no)?;
        if !session::is_same_origin(&parts.headers)
            || !session::is_csrf_token(&visitor.person, form.raw("csrf"))
        {
            return Err(page::refused(console, Some(&visitor), visitor.preferences, "error.csrf"));
        }
        if let Some(wait) = console.apis.record_form(visitor.person.user.id) {
            let seconds = (wait.as_secs() + 1).to_string();
            let text = visitor.lang().with("error.too_many", &[&seconds]);
            return Err(page::failed(console, &visitor, StatusCode::TOO_MANY_REQUESTS, &text));
        }
        match page::sure(console, &visitor, &form) {
            Some(question) => Err(question),
            None => Ok(Self { visitor, form }),
        }
    }
}

/// A form submitted from a page of the console without a session.
pub(super) struct AnonymousForm {
    pub(super) preferences: Preferences,
    pub(super) from: IpAddr,
    pub(super) form: Form,
}

impl FromRequest<Arc<Console>> for AnonymousForm {
    type Rejection = Response;

    async fn from_request(request: Request, console: &Arc<Console>) -> Result<Self, Response> {
        let from = client(request.extensions());
        let (parts, body) = request.into_parts();
        let preferences = Preferences::of(&parts.headers);
        if !session::is_same_origin(&parts.headers) {
            return Err(page::refused(console, None, preferences, "error.csrf"));
        }
        Ok(Self { preferences, from, form: read(&parts.headers, body).await.map_err(|no| *no)? })
    }
}

async fn read(headers: &HeaderMap, body: axum::body::Body) -> Result<Form, Box<Response>> {
    match read_body(headers, body).await {
        Ok(bytes) => Ok(Form::read(&bytes)),
        Err(error) => Err(Box::new((error.status(), error.message()).into_response())),
    }
}
