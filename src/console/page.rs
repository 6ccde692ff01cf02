//! The common part of all pages: visitor, navigation and texts.

use std::net::IpAddr;

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::de::DeserializeOwned;

use super::auth::{self, Preferences, UNREAD_CHATS_MAX, Visitor};
use super::form::{Form, Unreadable};
use super::i18n::Lang;
use super::{App, Console};
use crate::api::{ApiResponse, Apis};
use model::Role;

/// An entry of the navigation.
pub(super) struct NavEntry {
    pub(super) key: &'static str,
    pub(super) path: &'static str,
    /// Text key of the name.
    pub(super) name: &'static str,
    /// Keys that open it, separated by spaces. Empty if it has no shortcut.
    pub(super) shortcut: &'static str,
}

/// A command of the palette that is not in the navigation.
pub(super) struct Command {
    pub(super) path: &'static str,
    /// Text key of the name.
    pub(super) name: &'static str,
}

/// Path, text key and minimum role of the commands.
const COMMANDS: &[(&str, &str, Role)] = &[
    ("/console/numbers/new/", "numbers.add", Role::Owner),
    ("/console/agents/new/", "agents.new", Role::Admin),
    ("/console/playground/debugger/", "debugger.title", Role::Admin),
    ("/console/people/audit/", "audit.title", Role::Owner),
];

/// The keys that open a place of the navigation.
fn shortcut(place: &str) -> &'static str {
    match place {
        "home" => "g h",
        "inbox" => "g i",
        "notifications" => "g b",
        "calls" => "g c",
        "recordings" => "g r",
        "phone" => "g p",
        "numbers" => "g n",
        "agents" => "g a",
        "webhooks" => "g w",
        "errors" => "g e",
        "operations" => "g o",
        "speech" => "g s",
        _ => "",
    }
}

/// Entries of the navigation: key, path, text key, minimum role, and the API path that must exist.
const NAV_ENTRIES: &[(&str, &str, &str, Role, Option<&str>)] = &[
    ("home", "/console/", "nav.home", Role::Agent, None),
    ("inbox", "/console/inbox/", "nav.inbox", Role::Agent, Some("/api/v1/conversations/")),
    (
        "notifications",
        "/console/notifications/",
        "nav.notifications",
        Role::Agent,
        Some("/api/v1/notifications/"),
    ),
    ("calls", "/console/calls/", "nav.calls", Role::Agent, None),
    ("recordings", "/console/recordings/", "nav.recordings", Role::Agent, None),
    ("phone", "/console/phone/", "nav.phone", Role::Agent, None),
    ("numbers", "/console/numbers/", "nav.numbers", Role::Agent, Some("/api/v1/phone-numbers/")),
    ("agents", "/console/agents/", "nav.agents", Role::Agent, Some("/api/v1/agents/")),
    ("webhooks", "/console/webhooks/", "nav.webhooks", Role::Admin, Some("/api/v1/webhooks/")),
    ("playground", "/console/playground/", "nav.playground", Role::Agent, None),
    ("errors", "/console/errors/", "nav.errors", Role::Agent, Some("/api/v1/failed-requests/")),
    ("operations", "/console/operations/", "nav.operations", Role::Agent, None),
    ("speech", "/console/speech/", "nav.speech", Role::Owner, Some("/api/v1/models/")),
    ("reference", "/console/reference/", "nav.reference", Role::Agent, None),
    ("account", "/console/account/", "nav.account", Role::Admin, None),
    ("people", "/console/people/", "nav.people", Role::Owner, None),
];

/// Data that every template uses.
pub(super) struct Page {
    pub(super) title: String,
    pub(super) lang: Lang,
    pub(super) theme: &'static str,
    pub(super) here: &'static str,
    pub(super) nav_entries: Vec<NavEntry>,
    commands: Vec<&'static (&'static str, &'static str, Role)>,
    /// Number of unread notifications.
    pub(super) unread: u64,
    /// Number of conversations with unread messages. Empty if there are none.
    pub(super) unread_chats: String,
    /// State of the endpoint with the person's name: `on` if it is registered, `off` if not, `none`
    /// if it does not exist.
    pub(super) phone: &'static str,
    /// Sign-in name, under which the browser stores settings.
    pub(super) person: String,
    /// Name of the person and text key of the role. Empty without a session.
    pub(super) name: String,
    pub(super) role: &'static str,
    pub(super) initials: String,
    pub(super) csrf: String,
    /// Kinds of events that update the page, as in `/console/events`. Empty if there are none.
    pub(super) live: String,
    pub(super) path: String,
    /// Number of the latest event when the page was rendered.
    pub(super) at: u64,
    pub(super) version: &'static str,
    /// URL of the browser phone of a development node.
    pub(super) simulated_phone: Option<String>,
}

impl Page {
    pub(super) fn of(
        console: &Console,
        visitor: &Visitor,
        title: &str,
        here: &'static str,
    ) -> Self {
        let user = &visitor.person.user;
        let nav_entries = NAV_ENTRIES.iter().filter(|(key, _, _, min_role, api)| {
            user.role >= *min_role
                && api.is_none_or(|path| Apis::serves(&Method::GET, path))
                && (*key != "speech" || visitor.is_operator(console))
        });
        Self {
            nav_entries: nav_entries
                .map(|(key, path, name, ..)| NavEntry { key, path, name, shortcut: shortcut(key) })
                .collect(),
            here,
            unread: visitor.unread,
            unread_chats: match visitor.unread_chats {
                many if many >= u64::from(UNREAD_CHATS_MAX) => format!("{}+", many - 1),
                0 => String::new(),
                few => few.to_string(),
            },
            phone: visitor.phone,
            person: user.name.clone(),
            name: user.full_name.clone(),
            commands: COMMANDS.iter().filter(|(.., min_role)| user.role >= *min_role).collect(),
            role: match user.role {
                Role::Agent => "role.agent",
                Role::Admin => "role.admin",
                Role::Owner => "role.owner",
            },
            initials: initials(&user.full_name),
            csrf: visitor.person.csrf.clone(),
            path: visitor.path.clone(),
            at: visitor.at,
            simulated_phone: console.simulated_phone.clone(),
            ..Self::bare(visitor.preferences, title)
        }
    }

    /// A page without a session.
    pub(super) fn bare(preferences: Preferences, title: &str) -> Self {
        Self {
            title: title.to_owned(),
            lang: preferences.lang,
            theme: preferences.theme,
            here: "",
            nav_entries: Vec::new(),
            commands: Vec::new(),
            unread: 0,
            unread_chats: String::new(),
            phone: "none",
            person: String::new(),
            name: String::new(),
            role: "",
            initials: String::new(),
            csrf: String::new(),
            live: String::new(),
            path: "/console/".to_owned(),
            at: 0,
            version: env!("CARGO_PKG_VERSION"),
            simulated_phone: None,
        }
    }

    /// Sets the kinds of events that update the page.
    pub(super) fn listening(mut self, live: impl Into<String>) -> Self {
        self.live = live.into();
        self
    }

    /// Commands of the palette that are not in the navigation.
    pub(super) fn commands(&self) -> Vec<Command> {
        self.commands.iter().map(|&&(path, name, _)| Command { path, name }).collect()
    }

    /// The folder of scripts, styles and images.
    pub(super) fn assets(&self) -> &'static str {
        super::assets::PATH
    }

    /// The text of a key.
    pub(super) fn t<'k>(&self, key: &'k str) -> &'k str {
        self.lang.t(key)
    }

    /// A text with one placeholder.
    pub(super) fn t1(&self, key: &str, value: impl ToString) -> String {
        self.lang.with(key, &[&value.to_string()])
    }

    /// A text with two placeholders.
    pub(super) fn t2(&self, key: &str, one: impl ToString, other: impl ToString) -> String {
        self.lang.with(key, &[&one.to_string(), &other.to_string()])
    }

    /// A count with the separators of the language.
    pub(super) fn n(&self, count: impl ToString) -> String {
        self.lang.count(count)
    }

    /// Returns the text of the key `kind.key`, or the key with spaces if there is none.
    pub(super) fn word(&self, kind: &str, key: &str) -> String {
        let known = self.lang.find(&format!("{kind}.{key}"));
        known.map_or_else(|| key.replace('_', " "), str::to_owned)
    }

    /// Renders an icon. It is decorative, because the text beside it has the same meaning.
    pub(super) fn icon(&self, name: &str) -> String {
        format!(
            "<svg class=\"icon\" aria-hidden=\"true\" focusable=\"false\"><use href=\"#i-{name}\"/></svg>"
        )
    }

    /// The texts for the softphone script, as JSON: its own, and the hangup causes.
    pub(super) fn phone_texts(&self) -> String {
        let texts = self.lang.words().iter().filter_map(|(key, text)| {
            let is_cause = key.starts_with("cause.") && !key.ends_with(".do");
            let name = if is_cause { key } else { key.strip_prefix("phone.say.")? };
            Some((name, text))
        });
        serde_json::to_string(&texts.collect::<std::collections::BTreeMap<_, _>>())
            .unwrap_or_default()
    }

    pub(super) fn langs(&self) -> [(&'static str, &'static str, bool); 2] {
        Lang::ALL.map(|lang| (lang.tag(), lang.name(), lang == self.lang))
    }
}

fn initials(name: &str) -> String {
    let words = name.split_whitespace().filter_map(|word| word.chars().next());
    words.take(2).flat_map(char::to_uppercase).collect()
}

/// A page with status 200.
pub(super) fn html(template: &impl Template) -> Response {
    respond(StatusCode::OK, template)
}

pub(super) fn respond(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(text) => {
            (status, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], text).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "page rendering failed");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[derive(Template)]
#[template(path = "notice.html")]
struct Notice {
    page: Page,
    text: String,
}

fn notice(status: StatusCode, page: Page, text: String) -> Response {
    respond(status, &Notice { page, text })
}

#[derive(Template)]
#[template(path = "sure.html")]
struct Sure<'a> {
    page: Page,
    text: String,
    /// The address that the form was submitted to, without its query.
    action: &'a str,
    fields: Vec<(&'a str, &'a str)>,
}

/// Asks whether a form is meant, because no script has asked: `ask` in the query is the key of the
/// question, and `of` what it is about. `None` if there is no question.
pub(super) fn sure(console: &Console, visitor: &Visitor, form: &Form) -> Option<Response> {
    let key = visitor.query.some("ask")?;
    let lang = visitor.lang();
    lang.find(key)?;
    let page = visitor.page(console, lang.t("frame.confirm"), "");
    let text = page.t1(key, visitor.query.get("of"));
    let fields = form.fields().filter(|(name, _)| *name != "csrf").collect();
    Some(respond(StatusCode::OK, &Sure { page, text, action: &visitor.path, fields }))
}

/// 403 for a form from another origin or session.
pub(super) fn refused(
    console: &Console,
    visitor: Option<&Visitor>,
    preferences: Preferences,
    key: &'static str,
) -> Response {
    let title = preferences.lang.t(error_title(StatusCode::FORBIDDEN));
    let page = visitor
        .map_or_else(|| Page::bare(preferences, title), |visitor| visitor.page(console, title, ""));
    notice(StatusCode::FORBIDDEN, page, preferences.lang.t(key).to_owned())
}

/// 404: the object does not exist, or belongs to another account.
pub(super) fn missing(console: &Console, visitor: &Visitor) -> Response {
    let page = visitor.page(console, visitor.lang().t("error.not_found.title"), "");
    notice(StatusCode::NOT_FOUND, page, visitor.lang().t("error.not_found").to_owned())
}

/// Returns the object in a response of the API. The error is the page to respond with, which is 404
/// if the object does not exist.
pub(super) fn object<T: DeserializeOwned>(
    console: &Console,
    visitor: &Visitor,
    response: &ApiResponse,
) -> Result<T, Box<Response>> {
    T::deserialize(&response.body).map_err(|_| {
        Box::new(match response.status {
            StatusCode::NOT_FOUND => missing(console, visitor),
            status => failed(console, visitor, status, response.message()),
        })
    })
}

fn error_title(status: StatusCode) -> &'static str {
    match status {
        StatusCode::FORBIDDEN => "error.forbidden.title",
        status if status.is_client_error() => "error.refused.title",
        _ => "error.title",
    }
}

/// An error page. An empty text means an internal error.
pub(super) fn failed(
    console: &Console,
    visitor: &Visitor,
    status: StatusCode,
    text: &str,
) -> Response {
    let page = visitor.page(console, visitor.lang().t(error_title(status)), "");
    let text = if text.is_empty() { visitor.lang().t("error.internal") } else { text };
    notice(status, page, text.to_owned())
}

/// Returns a 400 response for a form that lacks a valid value for a field which the console's own
/// pages always send.
pub(super) fn bad_form(console: &Console, visitor: &Visitor, field: &str) -> Response {
    let text = visitor.lang().with("error.form", &[field]);
    failed(console, visitor, StatusCode::BAD_REQUEST, &text)
}

/// Returns a 400 response for a query with a parameter that the page can't read.
pub(super) fn bad_query(console: &Console, visitor: &Visitor, query: &Unreadable) -> Response {
    let shown: String = format!("{}={}", query.name, query.value).chars().take(100).collect();
    let text = visitor.lang().with("error.query", &[&shown]);
    failed(console, visitor, StatusCode::BAD_REQUEST, &text)
}

/// Returns a 403 response, because the visitor's role does not allow the request.
pub(super) fn forbidden(console: &Console, visitor: &Visitor) -> Response {
    failed(console, visitor, StatusCode::FORBIDDEN, visitor.lang().t("error.role"))
}

/// Fallback route: redirects to the path with a trailing slash, or answers 404.
pub(super) async fn fallback(
    State(console): App,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    if method == Method::GET && !uri.path().ends_with('/') {
        let query = uri.query().map_or_else(String::new, |query| format!("?{query}"));
        return Redirect::to(&format!("{}/{query}", uri.path())).into_response();
    }
    let preferences = Preferences::of(&headers);
    let title = preferences.lang.t("error.not_found.title");
    let page = match auth::person(&console, &headers).await {
        Ok(Some(person)) => {
            let (query, path) = (super::form::Form::default(), "/console/".to_owned());
            let at = console.apis.api().feed.last(&person.user.account, &person.user.main_account);
            Visitor {
                person,
                preferences,
                query,
                path,
                unread: 0,
                unread_chats: 0,
                phone: "none",
                at,
                from: IpAddr::from([0, 0, 0, 0]),
            }
            .page(&console, title, "")
        }
        _ => Page::bare(preferences, title),
    };
    notice(StatusCode::NOT_FOUND, page, preferences.lang.t("error.not_found").to_owned())
}
