//! Phone numbers: their alias and application, and the subaccount that their WABA belongs to. See
//! `docs/reference/rest.md#numbers`.

use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::Api;
use super::super::routes::{Field, FieldKind, Operation, QueryParameter, RequestBody};
use super::error::PlivoError;
use super::field_values::unused;
use super::paging::{PageMeta, page_of};
use super::query;
use super::request::PlivoRequest;
use super::response::{accepted, account_uri, ok, resource_uri};
use super::route::{CONFLICT, LIMIT, OFFSET, Route, handler, object};
use engine::admission::book::{Book, Number};
use model::{AppId, AuthId, E164, Origin};
use store::Scope;

const NOT_FOUND: PlivoError = PlivoError::NotFound("number not found");
/// Maximum length of an alias, in characters.
const ALIAS_CHARS_MAX: usize = 100;

const ITEM: &str = "/v1/Account/{auth_id}/Number/{number}/";

pub(super) const ROUTES: &[Route] = &[
    Route {
        handler: handler!(list),
        operation: Operation::get("/v1/Account/{auth_id}/Number/", "listNumbers", "List numbers")
            .query(&[
                LIMIT,
                OFFSET,
                QueryParameter::text(
                    "number_startswith",
                    "Only numbers that begin with these digits",
                ),
                QueryParameter::text("subaccount", "Only numbers of this subaccount"),
                QueryParameter::text("alias", "Only numbers with this alias"),
            ])
            .responses(&[object::<NumberList<'static>>(200, "A page of numbers")]),
    },
    Route {
        handler: handler!(get),
        operation: Operation::get(ITEM, "number", "Retrieve a number").responses(&[object::<
            NumberView<'static>,
        >(
            200,
            "The number",
        )]),
    },
    Route {
        handler: handler!(change),
        operation: Operation::post(
            ITEM,
            "changeNumber",
            "Change the alias or application of a number, or assign its whole WABA to a subaccount",
        )
        .body(RequestBody::fields(
            "alias, app_id, subaccount; an empty string removes a value",
            &[&[
                Field::optional("alias", FieldKind::Text(100), ""),
                Field::optional(
                    "app_id",
                    FieldKind::Text(64),
                    "An application of the account; empty to remove",
                ),
                Field::optional(
                    "subaccount",
                    FieldKind::Text(20),
                    "The subaccount that gets the whole WABA; empty: the main account",
                ),
                unused("verification_info"),
                unused("cnam_lookup"),
                unused("ha_enable"),
                unused("compliance_application_id"),
            ]],
        ))
        .responses(&[object::<ChangedNumber>(202, "Changed"), CONFLICT]),
    },
];

/// A phone number. The fields from `phone_number_id` on are extensions of Plivo's object.
#[derive(Serialize, ToSchema)]
#[schema(as = PlivoNumber)]
struct NumberView<'a> {
    added_on: String,
    alias: &'a str,
    application: Option<String>,
    carrier: &'static str,
    monthly_rental_rate: &'static str,
    number: &'a str,
    number_type: &'static str,
    /// The ISO 3166 code of the country.
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

impl<'a> NumberView<'a> {
    fn new(api: &Api, scope: &Scope, book: &Book, number: &'a Number) -> Self {
        let set = &number.set;
        // The URLs in force, be they those of the number or of its application.
        let entry = api.gate.directory().tables().by_number(&number.number).cloned();
        let spec = entry.as_ref().map(|entry| &entry.spec);
        let url =
            |url: Option<&(xml::ast::DocUrl, model::Method)>| url.map(|(url, _)| url.0.to_string());
        let owner = book.owner(number);
        let calling_enabled = spec.is_some_and(|spec| spec.calling_enabled);
        Self {
            added_on: set.added.plivo_day(),
            alias: &set.alias,
            application: set
                .app
                .as_ref()
                .map(|app| resource_uri(scope, &format!("Application/{app}/"))),
            carrier: "Meta",
            monthly_rental_rate: "0.00000",
            number: number.number.as_str(),
            number_type: "whatsapp",
            region: region(&number.number),
            resource_uri: resource_uri(scope, &format!("Number/{}/", number.number)),
            sms_enabled: false,
            sms_rate: "0.00000",
            sub_account: (owner != book.main_of(owner)).then(|| account_uri(owner)),
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

/// The country of a number. Empty if it can't be derived from the digits.
fn region(number: &E164) -> String {
    match Origin::of(number) {
        Origin::Country(country) => country.to_string(),
        Origin::NorthAmerica | Origin::Unassigned => String::new(),
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoNumbers)]
struct NumberList<'a> {
    meta: PageMeta,
    objects: Vec<NumberView<'a>>,
}

/// The response to a change. If the account changed, it contains the numbers that moved with it.
#[derive(Serialize, ToSchema)]
#[schema(as = PlivoNumberChanged)]
struct ChangedNumber {
    message: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    affected_numbers: Option<Vec<String>>,
}

async fn list(request: PlivoRequest) -> Result<Response, PlivoError> {
    let (api, scope) = (request.api(), &request.scope);
    let given = |name: &str| request.query_text(name);
    let filter = NumberFilter {
        start: given("number_startswith").map(query::number),
        owner: given("subaccount").map(|id| query::account("subaccount", id)).transpose()?,
        alias: given("alias"),
    };
    if filter.start.as_ref().is_some_and(|text| !text.bytes().all(|b| b.is_ascii_digit())) {
        return Err(query::bad("number_startswith", "digits"));
    }
    let book = api.keeper.book();
    let mut numbers = book.numbers(scope);
    numbers.retain(|number| !number.set.hidden && filter.matches(&book, number));
    let list_uri = resource_uri(scope, "Number/");
    let (meta, numbers) = page_of(numbers, &list_uri, request.query())?;
    let objects = numbers.into_iter();
    let objects = objects.map(|number| NumberView::new(api, scope, &book, number)).collect();
    Ok(ok(&NumberList { meta, objects }))
}

/// The filters of a list.
struct NumberFilter<'a> {
    start: Option<String>,
    owner: Option<AuthId>,
    alias: Option<&'a str>,
}

impl NumberFilter<'_> {
    fn matches(&self, book: &Book, number: &Number) -> bool {
        let Self { start, owner, alias } = self;
        start.as_ref().is_none_or(|digits| number.number.as_str().starts_with(digits.as_str()))
            && owner.as_ref().is_none_or(|owner| book.owner(number) == owner)
            && alias.is_none_or(|alias| number.set.alias == alias)
    }
}

async fn get(request: PlivoRequest) -> Result<Response, PlivoError> {
    let (api, scope) = (request.api(), &request.scope);
    let book = api.keeper.book();
    let number = E164::parse(request.parameter("number")).ok();
    let number = number.and_then(|number| book.number(scope, &number)).ok_or(NOT_FOUND)?;
    Ok(ok(&NumberView::new(api, scope, &book, number)))
}

async fn change(request: PlivoRequest) -> Result<Response, PlivoError> {
    let (api, scope) = (request.api(), &request.scope);
    let number = E164::parse(request.parameter("number")).map_err(|_| NOT_FOUND)?;
    if api.keeper.book().number(scope, &number).is_none() {
        return Err(NOT_FOUND);
    }
    let fields = request.fields()?;
    let alias = fields.bounded("alias", ALIAS_CHARS_MAX).map_err(PlivoError::BadRequest)?;
    let app = fields.given("app_id").map_err(PlivoError::BadRequest)?;
    let owner = fields.given("subaccount").map_err(PlivoError::BadRequest)?;
    if alias.is_none() && app.is_none() && owner.is_none() {
        return Err(PlivoError::BadRequest(
            "one parameter of alias, app_id and subaccount is required".to_owned(),
        ));
    }
    let change = api.keeper.change(api.clock.wall(), |book| {
        let app = app.as_ref().map(|app| parse_application(book, scope, app)).transpose()?;
        let owner = owner.as_ref().map(|owner| parse_owner(book, scope, owner)).transpose()?;
        let there = book.any_number(&number).ok_or(NOT_FOUND)?;
        let account = owner.as_ref().unwrap_or_else(|| book.owner(there));
        let named = app.iter().flatten().find_map(|app| book.application(scope, app));
        if let Some(app) = named.filter(|app| !book.trusts(account, &app.account)) {
            return Err(PlivoError::BadRequest(format!(
                "app_id is invalid: application {} belongs to {}, the number to {account}",
                app.id, app.account
            )));
        }
        if let Some(app) = &app
            && book.depends_on_application(&number, app.as_ref())
        {
            return Err(PlivoError::Conflict(format!(
                "number {number} has no answer URL of its own: name an application that has one, or \
                 disable calling first"
            )));
        }
        let mut keys = book.edit_number(&number, |set| {
            if let Some(alias) = &alias {
                set.alias.clone_from(alias);
            }
            set.app = app.unwrap_or_else(|| set.app.take());
        });
        let affected = owner.map(|owner| {
            let (waba, affected) = book.give(&number, &owner);
            keys.extend(waba);
            affected.iter().map(E164::to_string).collect()
        });
        Ok::<_, PlivoError>((affected, keys))
    });
    let affected_numbers = change.await?;
    Ok(accepted(&ChangedNumber { message: "changed", affected_numbers }))
}

/// Parses an application; `None` if the text is empty.
fn parse_application(book: &Book, scope: &Scope, text: &str) -> Result<Option<AppId>, PlivoError> {
    if text.is_empty() {
        return Ok(None);
    }
    let app = book.application(scope, &text.into());
    let missing =
        || PlivoError::BadRequest(format!("app_id is invalid: no such application: {text}"));
    app.map(|app| Some(app.id.clone())).ok_or_else(missing)
}

/// Parses an owner: a subaccount, or the main account if the text is empty or its id.
pub(super) fn parse_owner(book: &Book, scope: &Scope, text: &str) -> Result<AuthId, PlivoError> {
    let Scope::Main(main) = scope else {
        let message = "subaccount can be changed by the main account only".to_owned();
        return Err(PlivoError::BadRequest(message));
    };
    if text.is_empty() || text == main.as_str() {
        return Ok(main.clone());
    }
    let missing =
        || PlivoError::BadRequest(format!("subaccount is invalid: no such subaccount: {text}"));
    book.subaccount(main, &text.into()).map(|sub| sub.auth_id.clone()).ok_or_else(missing)
}
