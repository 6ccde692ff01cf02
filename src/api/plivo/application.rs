//! Applications (`plivo-call-api.md` §5): URLs under a name, for numbers that have none of their own, and for endpoints.

use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::fields::Fields;
use super::super::routes::{Answer, Body, Content, Kind, Query, Route, of};
use super::super::{Api, error};
use super::number::owner_of;
use super::paging::{Meta, paged};
use super::query;
use super::{
    Ask, CONFLICT, LIMIT, No, OFFSET, changed, customer_url, method, own_uri, random_digits,
    settle, uri,
};
use crate::admission::book::{Application, Book, Link, TooMany, Used};
use model::{AppId, Method};
use store::Scope;
use xml::ast::DocUrl;

const NOT_FOUND: &str = "application not found";
/// Longest name, in characters.
const NAME_CHARS_MAX: usize = 100;
/// Digits of an id, as Plivo's have.
const ID_DIGITS: u32 = 17;
/// The links, by what their parameters begin with: `answer_url` and `answer_method`; the fallback's URL has a name of
/// its own.
const LINKS: [(&str, &str); 4] = [
    ("answer_url", "answer_method"),
    ("fallback_answer_url", "fallback_method"),
    ("hangup_url", "hangup_method"),
    ("message_url", "message_method"),
];
const FIELDS: &str = "app_name, answer_url, hangup_url, fallback_answer_url, message_url, each with its method, \
    default_number_app, default_endpoint_app, subaccount, public_uri, log_incoming_messages";

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "GET",
        path: "/v1/Account/{auth_id}/Application/",
        id: "listApplications",
        summary: "The account's applications",
        query: &[
            LIMIT,
            OFFSET,
            Query { name: "subaccount", what: "Only of this subaccount", kind: Kind::Text },
            Query { name: "app_name", what: "Only with this name", kind: Kind::Text },
        ],
        body: None,
        answers: &[Answer {
            status: 200,
            what: "A page",
            content: Content::Plivo(&[of::<List<'static>>]),
        }],
    },
    Route {
        method: "POST",
        path: "/v1/Account/{auth_id}/Application/",
        id: "makeApplication",
        summary: "Makes an application",
        query: &[],
        body: Some(Body { content_type: "application/json", what: FIELDS }),
        answers: &[
            Answer { status: 201, what: "Made", content: Content::Plivo(&[of::<Made>]) },
            CONFLICT,
        ],
    },
    Route {
        method: "GET",
        path: "/v1/Account/{auth_id}/Application/{app_id}/",
        id: "application",
        summary: "One application",
        query: &[],
        body: None,
        answers: &[Answer {
            status: 200,
            what: "It",
            content: Content::Plivo(&[of::<Shown<'static>>]),
        }],
    },
    Route {
        method: "POST",
        path: "/v1/Account/{auth_id}/Application/{app_id}/",
        id: "changeApplication",
        summary: "Changes an application; in force for the next call",
        query: &[],
        body: Some(Body { content_type: "application/json", what: FIELDS }),
        answers: &[
            Answer {
                status: 202,
                what: "Changed",
                content: Content::Plivo(&[of::<super::Changed>]),
            },
            CONFLICT,
        ],
    },
    Route {
        method: "DELETE",
        path: "/v1/Account/{auth_id}/Application/{app_id}/",
        id: "removeApplication",
        summary: "Takes an application away, unless a number takes calls by it alone",
        query: &[],
        body: None,
        answers: &[Answer { status: 204, what: "It is gone", content: Content::Nothing }, CONFLICT],
    },
];

/// An application, as Plivo describes one.
#[derive(Serialize, ToSchema)]
#[schema(as = PlivoApplication)]
pub(super) struct Shown<'a> {
    answer_method: &'static str,
    answer_url: Option<&'a str>,
    app_id: &'a str,
    app_name: &'a str,
    application_type: &'static str,
    default_app: bool,
    default_endpoint_app: bool,
    enabled: bool,
    fallback_answer_url: Option<&'a str>,
    fallback_method: &'static str,
    hangup_method: &'static str,
    hangup_url: Option<&'a str>,
    log_incoming_message: bool,
    message_method: &'static str,
    message_url: Option<&'a str>,
    public_uri: bool,
    resource_uri: String,
    sip_uri: String,
    sub_account: Option<String>,
}

impl<'a> Shown<'a> {
    fn of(api: &Api, scope: &Scope, book: &Book, app: &'a Application) -> Self {
        let url = |link: &'a Link| link.url.as_ref().map(|url| &*url.0);
        Self {
            answer_method: app.answer.method.as_str(),
            answer_url: url(&app.answer),
            app_id: app.id.as_str(),
            app_name: &app.name,
            application_type: "XML",
            default_app: app.default_for_numbers,
            default_endpoint_app: app.default_for_endpoints,
            enabled: true,
            fallback_answer_url: url(&app.fallback),
            fallback_method: app.fallback.method.as_str(),
            hangup_method: app.hangup.method.as_str(),
            hangup_url: url(&app.hangup),
            log_incoming_message: app.log_incoming_messages,
            message_method: app.message.method.as_str(),
            message_url: url(&app.message),
            public_uri: app.public_uri,
            resource_uri: uri(scope, &format!("Application/{}/", app.id)),
            sip_uri: format!("sip:{}@{}", app.id, api.host),
            sub_account: (app.account != *book.main_of(&app.account))
                .then(|| own_uri(&app.account)),
        }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoApplications)]
pub(super) struct List<'a> {
    meta: Meta,
    objects: Vec<Shown<'a>>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoApplicationMade)]
pub(super) struct Made {
    app_id: String,
    message: &'static str,
}

pub(super) fn list(api: &Api, ask: &Ask) -> Result<Response, No> {
    let book = api.keeper.book();
    let mut all = book.applications(&ask.scope);
    let given = |name: &str| query::value(&ask.pairs, name).filter(|value| !value.is_empty());
    all.retain(|app| {
        given("subaccount").is_none_or(|owner| app.account.as_str() == owner)
            && given("app_name").is_none_or(|name| app.name == name)
    });
    let (meta, apps) = paged(all, &uri(&ask.scope, "Application/"), &ask.pairs)?;
    let objects = apps.into_iter().map(|app| Shown::of(api, &ask.scope, &book, app)).collect();
    Ok(error::plivo_body(StatusCode::OK, &List { meta, objects }))
}

pub(super) fn get(api: &Api, ask: &Ask, id: &str) -> Result<Response, No> {
    let book = api.keeper.book();
    let app = book.application(&ask.scope, &id.into()).ok_or(No::NotFound(NOT_FOUND))?;
    Ok(error::plivo_body(StatusCode::OK, &Shown::of(api, &ask.scope, &book, app)))
}

pub(super) async fn make(api: &Api, ask: &Ask) -> Result<Response, No> {
    let edit = Edit::read(api, &ask.fields()?).map_err(No::Bad)?;
    let name =
        edit.name.clone().ok_or_else(|| No::Bad("app_name parameter is missing".to_owned()))?;
    let id = AppId::from(random_digits(ID_DIGITS).ok_or(No::Ours)?);
    let now = api.clock.wall();
    let made = Made { app_id: id.to_string(), message: "created" };
    let change = api.keeper.change(now, |book| {
        let app = Application {
            id,
            account: ask.scope.auth_id().clone(),
            name,
            answer: Link::default(),
            fallback: Link::default(),
            hangup: Link::default(),
            message: Link::default(),
            default_for_numbers: false,
            default_for_endpoints: false,
            public_uri: false,
            log_incoming_messages: true,
            created: now,
        };
        let app = edit.apply(book, &ask.scope, app)?;
        book.put_application(app).map(|keys| ((), keys)).map_err(too_many)
    });
    settle(change.await)?;
    Ok(error::plivo_body(StatusCode::CREATED, &made))
}

pub(super) async fn edit(api: &Api, ask: &Ask, id: &str) -> Result<Response, No> {
    let id = AppId::from(id);
    if api.keeper.book().application(&ask.scope, &id).is_none() {
        return Err(No::NotFound(NOT_FOUND));
    }
    let edit = Edit::read(api, &ask.fields()?).map_err(No::Bad)?;
    let change = api.keeper.change(api.clock.wall(), |book| {
        let app = book.application(&ask.scope, &id).cloned().ok_or(No::NotFound(NOT_FOUND))?;
        let app = edit.apply(book, &ask.scope, app)?;
        if app.answer.url.is_none()
            && let Some(number) = book.needing(&app.id)
        {
            return Err(used(number.number.as_str()));
        }
        book.put_application(app).map(|keys| ((), keys)).map_err(too_many)
    });
    settle(change.await)?;
    Ok(changed())
}

pub(super) async fn remove(api: &Api, ask: &Ask, id: &str) -> Result<Response, No> {
    let id = AppId::from(id);
    let change = api.keeper.change(api.clock.wall(), |book| {
        if book.application(&ask.scope, &id).is_none() {
            return Err(No::NotFound(NOT_FOUND));
        }
        book.remove_application(&id).map(|keys| ((), keys)).map_err(|Used { by }| used(by.as_str()))
    });
    settle(change.await)?;
    Ok(error::plivo_no_content())
}

fn used(number: &str) -> No {
    No::Conflict(format!(
        "number {number} takes calls by this application alone: give it another one first"
    ))
}

fn too_many(TooMany(most): TooMany) -> No {
    No::Conflict(format!("an account has at most {most} applications"))
}

/// What a request wants of an application, each field by itself sound.
struct Edit {
    name: Option<String>,
    /// In the order of [`LINKS`].
    links: [LinkEdit; 4],
    owner: Option<String>,
    default_for_numbers: Option<bool>,
    default_for_endpoints: Option<bool>,
    public_uri: Option<bool>,
    log_incoming_messages: Option<bool>,
}

/// What it wants of a link; an inner none takes the URL away.
struct LinkEdit {
    url: Option<Option<DocUrl>>,
    method: Option<Method>,
}

impl Edit {
    fn read(api: &Api, fields: &Fields) -> Result<Self, String> {
        let name = fields.bounded("app_name", NAME_CHARS_MAX)?;
        if name.as_ref().is_some_and(String::is_empty) {
            return Err("app_name parameter is missing".to_owned());
        }
        let link = |(url, how): (&str, &str)| -> Result<LinkEdit, String> {
            // An empty text: none.
            let read = |text: String| {
                if text.is_empty() { Ok(None) } else { customer_url(api, url, &text).map(Some) }
            };
            Ok(LinkEdit {
                url: fields.given(url)?.map(read).transpose()?,
                method: method(fields, how)?,
            })
        };
        let [answer, fallback, hangup, message] = LINKS.map(link);
        Ok(Self {
            name,
            links: [answer?, fallback?, hangup?, message?],
            owner: fields.given("subaccount")?,
            default_for_numbers: fields.flag("default_number_app")?,
            default_for_endpoints: fields.flag("default_endpoint_app")?,
            public_uri: fields.flag("public_uri")?,
            log_incoming_messages: fields.flag("log_incoming_messages")?,
        })
    }

    fn apply(self, book: &Book, scope: &Scope, mut app: Application) -> Result<Application, No> {
        if let Some(owner) = self.owner {
            app.account = owner_of(book, scope, &owner)?;
        }
        app.name = self.name.unwrap_or(app.name);
        let links = [&mut app.answer, &mut app.fallback, &mut app.hangup, &mut app.message];
        for (link, edit) in links.into_iter().zip(self.links) {
            link.url = edit.url.unwrap_or_else(|| link.url.take());
            link.method = edit.method.unwrap_or(link.method);
        }
        app.default_for_numbers = self.default_for_numbers.unwrap_or(app.default_for_numbers);
        app.default_for_endpoints = self.default_for_endpoints.unwrap_or(app.default_for_endpoints);
        app.public_uri = self.public_uri.unwrap_or(app.public_uri);
        app.log_incoming_messages = self.log_incoming_messages.unwrap_or(app.log_incoming_messages);
        Ok(app)
    }
}
