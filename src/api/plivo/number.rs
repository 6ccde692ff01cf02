//! Numbers (`plivo-call-api.md` §5): the account's WhatsApp numbers; their alias and application can be set, and their
//! whole WABA given to a subaccount.

use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::routes::{Answer, Body, Content, Kind, Query, Route, of};
use super::super::{Api, error};
use super::paging::{Meta, paged};
use super::query::{self, Pairs};
use super::{Ask, LIMIT, No, OFFSET, decoded, own_uri, settle, uri};
use crate::admission::book::{Book, Number};
use model::{AppId, AuthId, E164, Origin};
use store::Scope;

const NOT_FOUND: &str = "number not found";
/// Longest alias, in characters.
const ALIAS_CHARS_MAX: usize = 100;

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "GET",
        path: "/v1/Account/{auth_id}/Number/",
        id: "listNumbers",
        summary: "The account's numbers",
        query: &[
            LIMIT,
            OFFSET,
            Query { name: "number_startswith", what: "Only those that begin so", kind: Kind::Text },
            Query { name: "subaccount", what: "Only of this subaccount", kind: Kind::Text },
            Query { name: "alias", what: "Only with this alias", kind: Kind::Text },
        ],
        body: None,
        answers: &[Answer {
            status: 200,
            what: "A page",
            content: Content::Plivo(&[of::<List<'static>>]),
        }],
    },
    Route {
        method: "GET",
        path: "/v1/Account/{auth_id}/Number/{number}/",
        id: "number",
        summary: "One number",
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
        path: "/v1/Account/{auth_id}/Number/{number}/",
        id: "changeNumber",
        summary: "Changes a number's alias or application, or gives its whole WABA to a subaccount",
        query: &[],
        body: Some(Body {
            content_type: "application/json",
            what: "alias, app_id, subaccount; an empty text takes what was set away",
        }),
        answers: &[Answer {
            status: 202,
            what: "Changed",
            content: Content::Plivo(&[of::<Given>]),
        }],
    },
];

/// A number, as Plivo describes one; the fields from `phone_number_id` on are ours.
#[derive(Serialize, ToSchema)]
#[schema(as = PlivoNumber)]
pub(super) struct Shown<'a> {
    added_on: String,
    alias: &'a str,
    application: Option<String>,
    carrier: &'static str,
    monthly_rental_rate: &'static str,
    number: &'a str,
    number_type: &'static str,
    /// The country's code.
    region: String,
    resource_uri: String,
    sms_enabled: bool,
    sms_rate: &'static str,
    sub_account: Option<String>,
    voice_enabled: bool,
    voice_rate: &'static str,
    phone_number_id: &'a str,
    waba_id: &'a str,
    answer_url: Option<String>,
    hangup_url: Option<String>,
    fallback_url: Option<String>,
    calling_enabled: bool,
}

impl<'a> Shown<'a> {
    fn of(api: &Api, scope: &Scope, book: &Book, number: &'a Number) -> Self {
        let set = &number.set;
        // What is in force, whoever it comes from.
        let entry = api.gate.directory().tables().by_number(&number.number).cloned();
        let spec = entry.as_ref().map(|entry| &entry.spec);
        let url =
            |url: Option<&(xml::ast::DocUrl, model::Method)>| url.map(|(url, _)| url.0.to_string());
        let owner = book.owner(number);
        let calling_enabled = spec.is_some_and(|spec| spec.calling_enabled);
        Self {
            added_on: set.added.plivo_day(),
            alias: &set.alias,
            application: set.app.as_ref().map(|app| uri(scope, &format!("Application/{app}/"))),
            carrier: "Meta",
            monthly_rental_rate: "0.00000",
            number: number.number.as_str(),
            number_type: "whatsapp",
            region: region(&number.number),
            resource_uri: uri(scope, &format!("Number/{}/", number.number)),
            sms_enabled: false,
            sms_rate: "0.00000",
            sub_account: (owner != book.main_of(owner)).then(|| own_uri(owner)),
            voice_enabled: calling_enabled,
            voice_rate: "0.00000",
            phone_number_id: number.phone_number_id.as_str(),
            waba_id: number.waba.as_ref().map_or("", |waba| waba.as_str()),
            answer_url: url(spec.and_then(|spec| spec.answer.as_ref())),
            hangup_url: url(spec.and_then(|spec| spec.hangup.as_ref())),
            fallback_url: url(spec.and_then(|spec| spec.fallback.as_ref())),
            calling_enabled,
        }
    }
}

/// A number's country, as far as its digits tell it.
fn region(number: &E164) -> String {
    match Origin::of(number) {
        Origin::Country(country) => country.to_string(),
        Origin::NorthAmerica | Origin::Unassigned => String::new(),
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoNumbers)]
pub(super) struct List<'a> {
    meta: Meta,
    objects: Vec<Shown<'a>>,
}

/// That it is changed; with whose calls they are, every number that this is about.
#[derive(Serialize, ToSchema)]
#[schema(as = PlivoNumberChanged)]
pub(super) struct Given {
    message: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    affected_numbers: Option<Vec<String>>,
}

pub(super) fn list(api: &Api, ask: &Ask) -> Result<Response, No> {
    let book = api.keeper.book();
    let mut all = book.numbers(&ask.scope);
    all.retain(|number| passes(&book, number, &ask.pairs));
    let (meta, numbers) = paged(all, &uri(&ask.scope, "Number/"), &ask.pairs)?;
    let objects =
        numbers.into_iter().map(|number| Shown::of(api, &ask.scope, &book, number)).collect();
    Ok(error::plivo_body(StatusCode::OK, &List { meta, objects }))
}

fn passes(book: &Book, number: &Number, pairs: &Pairs) -> bool {
    let given = |name: &str| query::value(pairs, name).filter(|value| !value.is_empty());
    let begins = given("number_startswith").map(query::number);
    begins.is_none_or(|digits| number.number.as_str().starts_with(&digits))
        && given("subaccount").is_none_or(|owner| book.owner(number).as_str() == owner)
        && given("alias").is_none_or(|alias| number.set.alias == alias)
}

pub(super) fn get(api: &Api, ask: &Ask, number: &str) -> Result<Response, No> {
    let book = api.keeper.book();
    let number = E164::parse(&decoded(number)).ok();
    let number = number
        .and_then(|number| book.number(&ask.scope, &number))
        .ok_or(No::NotFound(NOT_FOUND))?;
    Ok(error::plivo_body(StatusCode::OK, &Shown::of(api, &ask.scope, &book, number)))
}

pub(super) async fn edit(api: &Api, ask: &Ask, number: &str) -> Result<Response, No> {
    let number = E164::parse(&decoded(number)).map_err(|_| No::NotFound(NOT_FOUND))?;
    if api.keeper.book().number(&ask.scope, &number).is_none() {
        return Err(No::NotFound(NOT_FOUND));
    }
    let fields = ask.fields()?;
    let alias = fields.bounded("alias", ALIAS_CHARS_MAX).map_err(No::Bad)?;
    let app = fields.given("app_id").map_err(No::Bad)?;
    let owner = fields.given("subaccount").map_err(No::Bad)?;
    let change = api.keeper.change(api.clock.wall(), |book| {
        let app = app.map(|app| application(book, &ask.scope, &app)).transpose()?;
        let owner = owner.map(|owner| owner_of(book, &ask.scope, &owner)).transpose()?;
        let mut keys = book.edit_number(&number, |set| {
            set.alias = alias.unwrap_or_else(|| std::mem::take(&mut set.alias));
            set.app = app.unwrap_or_else(|| set.app.take());
        });
        let affected = owner.map(|owner| {
            let (waba, affected) = book.give(&number, &owner);
            keys.extend(waba);
            affected.iter().map(E164::to_string).collect()
        });
        Ok((affected, keys))
    });
    let affected_numbers = settle(change.await)?;
    Ok(error::plivo_body(StatusCode::ACCEPTED, &Given { message: "changed", affected_numbers }))
}

/// The application that a text names; an empty one: none.
fn application(book: &Book, scope: &Scope, text: &str) -> Result<Option<AppId>, No> {
    if text.is_empty() {
        return Ok(None);
    }
    let app = book.application(scope, &text.into());
    let missing = || No::Bad(format!("app_id is invalid: there is no application {text}"));
    app.map(|app| Some(app.id.clone())).ok_or_else(missing)
}

/// The account that a text names: a subaccount, or by an empty one or its own id the main account.
pub(super) fn owner_of(book: &Book, scope: &Scope, text: &str) -> Result<AuthId, No> {
    let Scope::Main(main) = scope else {
        return Err(No::Bad("subaccount can be changed by the main account only".to_owned()));
    };
    if text.is_empty() || text == main.as_str() {
        return Ok(main.clone());
    }
    let missing = || No::Bad(format!("subaccount is invalid: there is no subaccount {text}"));
    book.subaccount(main, &text.into()).map(|sub| sub.auth_id.clone()).ok_or_else(missing)
}
