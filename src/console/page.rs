//! The frame around every page: who is here, where one can go, and in which words.

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Redirect, Response};

use super::door::{self, Taste, Visitor};
use super::i18n::Lang;
use super::{App, Console};
use crate::api::Apis;
use model::Role;

/// A place in the navigation.
pub(super) struct Place {
    pub(super) key: &'static str,
    pub(super) path: &'static str,
    /// The key of its name.
    pub(super) name: &'static str,
}

/// Places with the least role, and what the API must serve for them to be there.
const PLACES: &[(&str, &str, &str, Role, Option<&str>)] = &[
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
    ("phone", "/console/phone/", "nav.phone", Role::Agent, None),
    ("numbers", "/console/numbers/", "nav.numbers", Role::Agent, Some("/api/v1/phone-numbers/")),
    ("agents", "/console/agents/", "nav.agents", Role::Agent, Some("/api/v1/agents/")),
    ("webhooks", "/console/webhooks/", "nav.webhooks", Role::Admin, Some("/api/v1/webhooks/")),
    ("playground", "/console/playground/", "nav.playground", Role::Agent, None),
    ("operations", "/console/operations/", "nav.operations", Role::Agent, None),
    ("people", "/console/people/", "nav.people", Role::Owner, None),
];

/// What every template has.
pub(super) struct Page {
    pub(super) title: String,
    pub(super) lang: Lang,
    pub(super) theme: &'static str,
    pub(super) here: &'static str,
    pub(super) places: Vec<Place>,
    /// Notifications that nobody has read.
    pub(super) unread: u64,
    /// Whether the endpoint with their name is registered: `on` or `off`; `none`: there is none.
    pub(super) phone: &'static str,
    /// What they sign in with: what the browser keeps is theirs.
    pub(super) person: String,
    /// Their name and role; empty where nobody is signed in.
    pub(super) name: String,
    pub(super) role: &'static str,
    pub(super) initials: String,
    pub(super) csrf: String,
    /// What makes the page ask for itself again, as `/console/events` names it; empty: nothing.
    pub(super) live: String,
    pub(super) path: String,
    /// The latest news when the page was made.
    pub(super) at: u64,
    pub(super) version: &'static str,
    /// A node for development.
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
        let places = PLACES.iter().filter(|(_, _, _, least, api)| {
            user.role >= *least && api.is_none_or(|path| Apis::serves(&Method::GET, path))
        });
        Self {
            places: places.map(|(key, path, name, ..)| Place { key, path, name }).collect(),
            here,
            unread: visitor.unread,
            phone: visitor.phone,
            person: user.name.clone(),
            name: user.full_name.clone(),
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
            ..Self::bare(visitor.taste, title)
        }
    }

    /// Of somebody who is not signed in.
    pub(super) fn bare(taste: Taste, title: &str) -> Self {
        Self {
            title: title.to_owned(),
            lang: taste.lang,
            theme: taste.theme,
            here: "",
            places: Vec::new(),
            unread: 0,
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

    /// A page that asks for itself again when one of these has changed.
    pub(super) fn listening(mut self, live: impl Into<String>) -> Self {
        self.live = live.into();
        self
    }

    /// A text of the catalogue.
    pub(super) fn t<'k>(&self, key: &'k str) -> &'k str {
        self.lang.t(key)
    }

    /// One with a value in it.
    pub(super) fn t1(&self, key: &str, value: impl ToString) -> String {
        self.lang.with(key, &[&value.to_string()])
    }

    /// One with two.
    pub(super) fn t2(&self, key: &str, one: impl ToString, other: impl ToString) -> String {
        self.lang.with(key, &[&one.to_string(), &other.to_string()])
    }

    /// A count, as the language writes it.
    pub(super) fn n(&self, count: impl ToString) -> String {
        self.lang.count(count)
    }

    /// One whose key is made of two.
    pub(super) fn word(&self, kind: &str, key: &str) -> String {
        let known = self.lang.find(&format!("{kind}.{key}"));
        known.map_or_else(|| key.replace('_', " "), str::to_owned)
    }

    /// A picture of the sprite, which says nothing that the text beside it does not.
    pub(super) fn icon(&self, name: &str) -> String {
        format!(
            "<svg class=\"icon\" aria-hidden=\"true\" focusable=\"false\"><use href=\"#i-{name}\"/></svg>"
        )
    }

    /// The words that the softphone's script says, as JSON.
    pub(super) fn phone_texts(&self) -> String {
        let texts = self
            .lang
            .words()
            .iter()
            .filter_map(|(key, text)| Some((key.strip_prefix("phone.say.")?, text)));
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

/// A page's answer.
pub(super) fn html(template: &impl Template) -> Response {
    respond(StatusCode::OK, template)
}

pub(super) fn respond(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(text) => {
            (status, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], text).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "a page could not be made");
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

/// A form that did not come from one of our pages, or of another session.
pub(super) fn refused(
    console: &Console,
    visitor: Option<&Visitor>,
    taste: Taste,
    key: &'static str,
) -> Response {
    let title = taste.lang.t("error.title");
    let page = visitor
        .map_or_else(|| Page::bare(taste, title), |visitor| visitor.page(console, title, ""));
    notice(StatusCode::FORBIDDEN, page, taste.lang.t(key).to_owned())
}

/// 404: it is not there, or another account's.
pub(super) fn missing(console: &Console, visitor: &Visitor) -> Response {
    let page = visitor.page(console, visitor.lang().t("error.not_found.title"), "");
    notice(StatusCode::NOT_FOUND, page, visitor.lang().t("error.not_found").to_owned())
}

/// What went wrong in words.
pub(super) fn failed(
    console: &Console,
    visitor: &Visitor,
    status: StatusCode,
    text: &str,
) -> Response {
    let page = visitor.page(console, visitor.lang().t("error.title"), "");
    let text = if text.is_empty() { visitor.lang().t("error.internal") } else { text };
    notice(status, page, text.to_owned())
}

/// 403 with the role that is missing.
pub(super) fn forbidden(console: &Console, visitor: &Visitor) -> Response {
    failed(console, visitor, StatusCode::FORBIDDEN, visitor.lang().t("error.role"))
}

/// A path that nobody has.
pub(super) async fn nothing(
    State(console): App,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    if method == Method::GET && !uri.path().ends_with('/') {
        let query = uri.query().map_or_else(String::new, |query| format!("?{query}"));
        return Redirect::to(&format!("{}/{query}", uri.path())).into_response();
    }
    let taste = Taste::of(&headers);
    let title = taste.lang.t("error.not_found.title");
    let page = match door::person(&console, &headers).await {
        Ok(Some(person)) => {
            let (query, path) = (super::form::Form::default(), "/console/".to_owned());
            Visitor {
                person,
                taste,
                query,
                path,
                unread: 0,
                phone: "none",
                at: console.apis.api().feed.last(),
            }
            .page(&console, title, "")
        }
        _ => Page::bare(taste, title),
    };
    notice(StatusCode::NOT_FOUND, page, taste.lang.t("error.not_found").to_owned())
}
