//! Subaccounts, which only their main account can see and change. See
//! `docs/reference/rest.md#subaccounts`.
//!
//! A disabled subaccount cannot authenticate; calls of its numbers continue. The main account sees
//! the auth token, which is encrypted in the store.

use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::routes::{Field, FieldKind, Operation, RequestBody, ResponseSpec};
use super::account::TEXT_CHARS_MAX;
use super::error::{NOT_AVAILABLE, PlivoError};
use super::paging::{PageMeta, page_of};
use super::random;
use super::request::PlivoRequest;
use super::response::{Changed, account_uri, changed, created, no_content, ok, resource_uri};
use super::route::{CASCADE, CONFLICT, LIMIT, OFFSET, Route, handler, object};
use engine::admission::book::{Account, Details, TooMany};
use model::AuthId;
use model::Secret;
use store::Scope;

const NOT_FOUND: PlivoError = PlivoError::NotFound("subaccount not found");

const COLLECTION: &str = "/v1/Account/{auth_id}/Subaccount/";
const ITEM: &str = "/v1/Account/{auth_id}/Subaccount/{subauth_id}/";

pub(super) const ROUTES: &[Route] = &[
    Route {
        handler: handler!(list),
        operation: Operation::get(
            COLLECTION,
            "listSubaccounts",
            "List the subaccounts of a main account",
        )
        .query(&[LIMIT, OFFSET])
        .responses(&[object::<SubaccountList<'static>>(200, "A page of subaccounts")]),
    },
    Route {
        handler: handler!(create),
        operation: Operation::post(COLLECTION, "makeSubaccount", "Create a subaccount")
            .body(RequestBody::fields(
                "name; enabled (true)",
                &[&[
                    Field::required("name", FieldKind::Text(200), ""),
                    Field::optional(
                        "enabled",
                        FieldKind::Flag,
                        "true: its auth token is valid (default)",
                    ),
                ]],
            ))
            .responses(&[object::<CreatedSubaccount>(201, "The subaccount"), CONFLICT]),
    },
    Route {
        handler: handler!(get),
        operation: Operation::get(ITEM, "subaccount", "Retrieve a subaccount")
            .responses(&[object::<SubaccountView<'static>>(200, "The subaccount")]),
    },
    Route {
        handler: handler!(change),
        operation: Operation::post(
            ITEM,
            "changeSubaccount",
            "Rename a subaccount, or enable or disable it",
        )
        .body(RequestBody::fields(
            "name, enabled",
            &[&[
                Field::optional("name", FieldKind::Text(200), "This or enabled is required"),
                Field::optional("enabled", FieldKind::Flag, ""),
            ]],
        ))
        .responses(&[object::<Changed>(202, "Changed")]),
    },
    Route {
        handler: handler!(delete),
        operation: Operation::delete(
            ITEM,
            "removeSubaccount",
            "Delete a subaccount; the main account gets its numbers and applications",
        )
        .query(&[CASCADE])
        .responses(&[ResponseSpec::empty(204, "Deleted"), CONFLICT]),
    },
];

/// A subaccount.
#[derive(Serialize, ToSchema)]
#[schema(as = PlivoSubaccount)]
struct SubaccountView<'a> {
    account: String,
    auth_id: &'a str,
    auth_token: &'a str,
    created: String,
    enabled: bool,
    modified: Option<String>,
    name: &'a str,
    new_auth_token: &'a str,
    resource_uri: String,
}

impl<'a> SubaccountView<'a> {
    fn new(scope: &Scope, account: &'a Account) -> Self {
        let Account { auth_id, tokens, details, .. } = account;
        let token = tokens.first().map_or("", Secret::reveal);
        Self {
            account: account_uri(scope.auth_id()),
            auth_id: auth_id.as_str(),
            auth_token: token,
            created: details.created.plivo_day(),
            enabled: details.enabled,
            modified: details.modified.map(|at| at.plivo_day()),
            name: &details.name,
            new_auth_token: token,
            resource_uri: resource_uri(scope, &format!("Subaccount/{auth_id}/")),
        }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoSubaccounts)]
struct SubaccountList<'a> {
    meta: PageMeta,
    objects: Vec<SubaccountView<'a>>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoSubaccountMade)]
struct CreatedSubaccount {
    auth_id: String,
    auth_token: String,
    message: &'static str,
}

/// The main account that makes the request. For subaccounts the resource does not exist.
fn main_account(request: &PlivoRequest) -> Result<&AuthId, PlivoError> {
    match &request.scope {
        Scope::Main(id) => Ok(id),
        Scope::Sub(_) => Err(NOT_AVAILABLE),
    }
}

fn subaccount_id(request: &PlivoRequest) -> AuthId {
    AuthId::from(request.parameter("subauth_id"))
}

async fn list(request: PlivoRequest) -> Result<Response, PlivoError> {
    let scope = &request.scope;
    let book = request.api().keeper.book();
    let accounts = book.subaccounts(main_account(&request)?);
    let list_uri = resource_uri(scope, "Subaccount/");
    let (meta, accounts) = page_of(accounts, &list_uri, request.query())?;
    let objects = accounts.into_iter().map(|account| SubaccountView::new(scope, account)).collect();
    Ok(ok(&SubaccountList { meta, objects }))
}

async fn get(request: PlivoRequest) -> Result<Response, PlivoError> {
    let book = request.api().keeper.book();
    let account = book.subaccount(main_account(&request)?, &subaccount_id(&request));
    Ok(ok(&SubaccountView::new(&request.scope, account.ok_or(NOT_FOUND)?)))
}

async fn create(request: PlivoRequest) -> Result<Response, PlivoError> {
    let (api, main, fields) = (request.api(), main_account(&request)?, request.fields()?);
    let name = fields.bounded("name", TEXT_CHARS_MAX).map_err(PlivoError::BadRequest)?;
    let missing = || PlivoError::BadRequest("name parameter is missing".to_owned());
    let name = name.filter(|name| !name.is_empty()).ok_or_else(missing)?;
    let enabled = fields.flag("enabled").map_err(PlivoError::BadRequest)?.unwrap_or(true);
    let (auth_id, auth_token) = random::credentials()?;
    let now = api.clock.wall();
    let change = api.keeper.change(now, |book| {
        let credentials = (AuthId::from(auth_id.as_str()), Secret::new(auth_token.as_str()));
        let made =
            book.create_subaccount(main, credentials, Details::new(name.clone(), enabled, now));
        made.map(|keys| ((), keys)).map_err(|TooMany(most)| {
            PlivoError::Conflict(format!("an account can have at most {most} subaccounts"))
        })
    });
    change.await?;
    Ok(created(&CreatedSubaccount { auth_id, auth_token, message: "created" }))
}

async fn change(request: PlivoRequest) -> Result<Response, PlivoError> {
    let (api, main, id) = (request.api(), main_account(&request)?, subaccount_id(&request));
    if api.keeper.book().subaccount(main, &id).is_none() {
        return Err(NOT_FOUND);
    }
    let fields = request.fields()?;
    let name = fields.bounded("name", TEXT_CHARS_MAX).map_err(PlivoError::BadRequest)?;
    let enabled = fields.flag("enabled").map_err(PlivoError::BadRequest)?;
    if name.as_ref().is_some_and(String::is_empty) || (name.is_none() && enabled.is_none()) {
        return Err(PlivoError::BadRequest("name parameter is missing".to_owned()));
    }
    let now = api.clock.wall();
    let change = api.keeper.change(now, |book| {
        let keys = book.edit_account(&id, now, |details| {
            if let Some(name) = &name {
                details.name.clone_from(name);
            }
            details.enabled = enabled.unwrap_or(details.enabled);
        });
        Ok::<_, PlivoError>(((), keys))
    });
    change.await?;
    if enabled == Some(false) {
        api.phones.unregister_account(&id);
    }
    Ok(changed())
}

async fn delete(request: PlivoRequest) -> Result<Response, PlivoError> {
    let (api, main, id) = (request.api(), main_account(&request)?, subaccount_id(&request));
    let is_in_file = api.keeper.book().subaccount(main, &id).ok_or(NOT_FOUND)?.in_file;
    let in_file = || {
        PlivoError::Conflict(format!(
            "subaccount {id} is defined in the configuration file: remove it there"
        ))
    };
    if is_in_file {
        return Err(in_file());
    }
    let cascade = request.delete_flag("cascade")?;
    // Before its numbers pass to the main account, which keeps their routing to webhooks of its own
    // only.
    if let Err(error) = api.inbox.webhooks().inherit(&id, main).await {
        tracing::warn!(account = %id, %error, "webhooks of a deleted subaccount not moved to its main account");
    }
    let change = api.keeper.change(api.clock.wall(), |book| {
        book.remove_subaccount(&id, cascade).map(|keys| ((), keys)).map_err(|_in_file| in_file())
    });
    change.await?;
    if let Err(error) = api.people.remove_all_of(&id).await {
        tracing::warn!(account = %id, %error, "users and API keys of a deleted subaccount not deleted");
    }
    api.phones.unregister_account(&id);
    let endpoints = api.store.endpoints();
    let done = match cascade {
        true => endpoints.delete_all_of_account(&id).await,
        false => endpoints.inherit(&id, main).await,
    };
    if let Err(error) = done {
        tracing::warn!(account = %id, %error, "endpoints of a deleted subaccount not deleted or moved to its main account");
    }
    Ok(no_content())
}
