//! The softphone page: a phone for an endpoint in the browser, over `/phone` (`docs/phone.md`), and
//! the endpoints of the account. The custom element `<offhook-phone>` implements the phone.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde_json::{Value, json};

use super::auth::{SubmittedForm, Visitor};
use super::page::{Page, missing, respond};
use super::view;
use super::{App, Console};
use crate::api::ApiResponse;
use engine::people::Token;
use model::Role;

/// An endpoint.
pub(super) struct EndpointRow {
    pub(super) id: String,
    pub(super) name: String,
    /// Alias of the endpoint.
    pub(super) alias: String,
    /// SIP address in documents.
    pub(super) address: String,
    /// Whether the endpoint belongs to the visitor.
    pub(super) here: bool,
    /// Whether the visitor may register it. Agents may only register their own.
    pub(super) can_register: bool,
    /// Whether a phone is registered, so that the endpoint can be called.
    pub(super) ready: bool,
    /// Id of the application that answers its calls. Empty if there is none.
    application: String,
}

/// An application for calls from an endpoint.
struct ApplicationChoice {
    id: String,
    name: String,
}

#[derive(Template)]
#[template(path = "phone.html")]
struct PhonePage {
    page: Page,
    endpoints: Vec<EndpointRow>,
    applications: Vec<ApplicationChoice>,
    /// Sign-in name, under which the browser stores settings.
    person: String,
    /// Whether the visitor has an endpoint of their own.
    has_own: bool,
    /// Whether the visitor may create endpoints.
    can_create: bool,
    /// Numbers from which users can be called, with their labels.
    numbers: Vec<CallingNumber>,
    wrong: String,
    /// Name, alias and answer URL of a rejected form.
    typed: [String; 3],
}

impl PhonePage {
    /// Name of the application that answers calls of an endpoint. Empty if it is not known.
    fn answered_by(&self, endpoint: &EndpointRow) -> &str {
        let found = self.applications.iter().find(|one| one.id == endpoint.application);
        found.map_or("", |application| &application.name)
    }
}

/// Maximum number of endpoints on the page.
const ENDPOINTS_MAX: u32 = 200;

/// The endpoints of the account.
pub(super) async fn endpoints(console: &Console, visitor: &Visitor) -> Vec<EndpointRow> {
    let api = console.apis.api();
    let found = api.store.endpoints().list(&visitor.person.scope(), ENDPOINTS_MAX, 0).await;
    let all = found.map(|(list, _)| list).unwrap_or_default().into_iter();
    let tables = api.gate.directory().tables();
    let named = all.map(|one| EndpointRow {
        id: one.id.to_string(),
        here: one.is_of(&visitor.person.user),
        can_register: visitor.is_admin() || one.is_of(&visitor.person.user),
        ready: api.phones.is_registered(&one.name),
        address: one.name.sip_address(&api.host),
        name: one.name.to_string(),
        application: tables
            .application_of_endpoint(one.app_id.as_ref(), &one.account)
            .map(|application| application.id.to_string())
            .unwrap_or_default(),
        alias: one.alias,
    });
    named.collect()
}

pub(super) async fn page(State(console): App, visitor: Visitor) -> Response {
    render_page(&console, &visitor, StatusCode::OK, String::new(), Default::default()).await
}

async fn render_page(
    console: &Console,
    visitor: &Visitor,
    status: StatusCode,
    wrong: String,
    typed: [String; 3],
) -> Response {
    let can_create = visitor.person.user.role >= Role::Admin;
    let endpoints = endpoints(console, visitor).await;
    let page = PhonePage {
        page: visitor.page(console, visitor.lang().t("nav.phone"), "phone").listening("endpoint"),
        has_own: endpoints.iter().any(|endpoint| endpoint.here),
        endpoints,
        applications: applications(console, visitor),
        numbers: calling_numbers(console, visitor),
        person: visitor.person.user.name.clone(),
        can_create,
        wrong,
        typed,
    };
    respond(status, &page)
}

/// Maximum number of numbers in the list.
const NUMBERS_MAX: usize = 500;

/// A number of the account with calling enabled.
struct CallingNumber {
    digits: String,
    label: String,
    /// Whether the node checks call permissions, in addition to Meta.
    checks_permission: bool,
}

fn calling_numbers(console: &Console, visitor: &Visitor) -> Vec<CallingNumber> {
    let (api, scope) = (console.apis.api(), visitor.person.scope());
    let tables = api.gate.directory().tables();
    let own = tables.numbers().filter(|number| {
        let owner = &number.account;
        number.spec.calling_enabled && scope.holds(&owner.auth_id, &owner.main().auth_id)
    });
    let named = own.take(NUMBERS_MAX).map(|number| {
        let digits = number.spec.number.as_str();
        CallingNumber {
            digits: digits.to_owned(),
            label: view::with_alias(&number.spec.alias, digits),
            checks_permission: number.spec.permissions.enforce,
        }
    });
    named.collect()
}

/// Number of applications that the page knows, the newest ones.
const APPLICATIONS_MAX: usize = 1_000;

fn applications(console: &Console, visitor: &Visitor) -> Vec<ApplicationChoice> {
    let book = console.apis.api().keeper.book();
    let all = book.applications(&visitor.person.scope());
    all.iter()
        .take(APPLICATIONS_MAX)
        .map(|app| ApplicationChoice { id: app.id.as_str().to_owned(), name: app.name.clone() })
        .collect()
}

/// Creates an endpoint. Without a password it gets a random one, so that only signed-in people can
/// register it. With an answer URL it gets a new application.
pub(super) async fn create(State(console): App, submitted: SubmittedForm) -> Response {
    let SubmittedForm { visitor, form } = submitted;
    if form.get("do") == "own" {
        return match create_own(&console, &visitor).await {
            Ok(()) => Redirect::to("/console/phone/").into_response(),
            Err(why) => {
                render_page(&console, &visitor, StatusCode::BAD_REQUEST, why, Default::default())
                    .await
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
        async move {
            console
                .apis
                .plivo_request((&visitor.person, visitor.from), Method::POST, path, Some(&body))
                .await
        }
    };
    let mut application = form.get("app_id").to_owned();
    if !url.is_empty() {
        let made =
            asked("Application/", json!({"app_name": format!("phone {name}"), "answer_url": url}))
                .await;
        if !made.is_ok() {
            let (status, wrong, typed) = again(&made);
            return render_page(&console, &visitor, status, wrong, typed).await;
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
        // The application would be unused.
        let path = format!("Application/{application}/");
        console
            .apis
            .plivo_request((&visitor.person, visitor.from), Method::DELETE, &path, None)
            .await;
    }
    let (status, wrong, typed) = again(&made);
    render_page(&console, &visitor, status, wrong, typed).await
}

/// Creates an endpoint for the visitor. Its name is the sign-in name, with characters replaced that
/// endpoint names do not allow.
pub(super) async fn create_own(console: &Console, visitor: &Visitor) -> Result<(), String> {
    let user = &visitor.person.user;
    let fits = |c: char| if c.is_ascii_alphanumeric() || ".-_".contains(c) { c } else { '-' };
    let name: String =
        user.name.split('@').next().unwrap_or_default().chars().take(50).map(fits).collect();
    let made = console.apis.create_own_endpoint((&visitor.person, visitor.from), &name).await;
    if made.is_ok() { Ok(()) } else { Err(made.message().to_owned()) }
}

/// Deletes an endpoint.
pub(super) async fn delete(
    State(console): App,
    Path(id): Path<String>,
    submitted: SubmittedForm,
) -> Response {
    let visitor = submitted.visitor;
    if id.is_empty() || !id.bytes().all(|b| b.is_ascii_digit()) {
        return missing(&console, &visitor);
    }
    let path = format!("Endpoint/{id}/");
    let answer = console
        .apis
        .plivo_request((&visitor.person, visitor.from), Method::DELETE, &path, None)
        .await;
    match answer.status {
        status if status.is_success() => Redirect::to("/console/phone/").into_response(),
        StatusCode::NOT_FOUND => missing(&console, &visitor),
        status => {
            render_page(&console, &visitor, status, answer.message().to_owned(), Default::default())
                .await
        }
    }
}

fn text(body: &Value, name: &str) -> String {
    body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}
