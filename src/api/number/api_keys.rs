//! `/api/v1/api-keys/`: keys of the number API that are created at run time. A key's secret is
//! shown once, when it is created.

use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::error::ApiError;
use super::super::routes::{Operation, RequestBody, ResponseSpec};
use super::request::{ApiRequest, parse_position, position};
use super::response::{
    Page, Timestamp3339, created, etag, no_content, ok, ok_with_etag, with_etag,
};
use super::route::{CHANGED, PAGING, Route, error, handler};
use super::users::{RoleWord, account_of};
use model::{AuthId, Role};
use store::ApiKeyRow;

const COLLECTION: &str = "/api/v1/api-keys/";
const ITEM: &str = "/api/v1/api-keys/{key_id}/";
const NOT_FOUND: &str = "no such API key";

pub(super) const ROUTES: &[Route] = &[
    Route {
        role: Role::Owner,
        handler: handler!(list),
        operation: Operation::get(
            COLLECTION,
            "apiKeys",
            "List API keys, newest first, without those of the configuration file",
        )
        .query(PAGING)
        .responses(&[ResponseSpec::json::<ApiKeyList>(200, "A page of API keys")]),
    },
    Route {
        role: Role::Owner,
        handler: handler!(create),
        operation: Operation::post(
            COLLECTION,
            "createApiKey",
            "Create an API key; its secret is shown only here",
        )
        .body(RequestBody::json::<NewApiKey>(
            "name, role; optionally waId (whose sandbox the key changes) and account (a subaccount)",
        ))
        .responses(&[
            ResponseSpec::json::<CreatedApiKey>(201, "The key with its secret and its ETag"),
            error(409, "The account has the maximum number of keys"),
        ]),
    },
    Route {
        role: Role::Owner,
        handler: handler!(change),
        operation: Operation::patch(
            ITEM,
            "changeApiKey",
            "Rename an API key or change its role, from the next request on",
        )
        .body(RequestBody::json::<ApiKeyChange>("name, role"))
        .responses(&[
            ResponseSpec::json::<ApiKeyView>(200, "The changed key with its ETag"),
            CHANGED,
        ]),
    },
    Route {
        role: Role::Owner,
        handler: handler!(delete),
        operation: Operation::delete(
            ITEM,
            "deleteApiKey",
            "Delete an API key; it is refused from the next request on",
        )
        .responses(&[ResponseSpec::empty(204, "Deleted")]),
    },
];

/// An API key, without its secret.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ApiKey, examples(json!({"id": "a87ff679-a2f3-471d-9181-a67b7542122c", "name": "crm", "role": "agent", "ending": "9f3c", "waId": null, "account": "MAXXXXXXXXXXXXXXXXXX", "createdAt": "2026-11-21T22:50:00.000Z"})))]
struct ApiKeyView {
    #[schema(value_type = String, format = Uuid)]
    id: Uuid,
    name: String,
    role: RoleWord,
    /// The last four characters of the secret.
    ending: String,
    wa_id: Option<String>,
    #[schema(value_type = String)]
    account: AuthId,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp3339,
}

/// An API key with its secret.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ApiKeyMade)]
struct CreatedApiKey {
    #[serde(flatten)]
    key: ApiKeyView,
    /// The value of `X-API-Key`; not shown again.
    secret: String,
}

/// A page of API keys.
#[derive(Serialize, ToSchema)]
#[schema(as = ApiKeys)]
struct ApiKeyList {
    items: Vec<ApiKeyView>,
    next: Option<String>,
}

impl From<ApiKeyRow> for ApiKeyView {
    fn from(key: ApiKeyRow) -> Self {
        Self {
            id: key.id,
            name: key.name,
            role: key.role.into(),
            ending: key.ending,
            wa_id: key.wa_id,
            account: key.account,
            created_at: Timestamp3339(key.created),
        }
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = NewApiKey, examples(json!({"name": "crm", "role": "agent"})))]
struct NewApiKey {
    name: String,
    role: RoleWord,
    /// The WhatsApp number to which the key's changes of sandbox numbers apply.
    wa_id: Option<String>,
    /// A subaccount. The default is the account of the request.
    account: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ApiKeyChange, examples(json!({"name": "crm of the shop"})))]
struct ApiKeyChange {
    name: Option<String>,
    role: Option<RoleWord>,
}

async fn list(request: ApiRequest) -> Result<Response, ApiError> {
    let limit = request.limit()?;
    let before = request.cursor(parse_position)?;
    let keys = request.api().people.keys(request.scope(), before, limit + 1).await;
    let keys = keys.map_err(ApiError::store("list API keys"))?;
    let page = Page::new(keys, limit, |key| position(key.created, key.id));
    let items = page.items.into_iter().map(ApiKeyView::from).collect();
    Ok(ok(&ApiKeyList { items, next: request.next_cursor(page.next) }))
}

async fn create(mut request: ApiRequest) -> Result<Response, ApiError> {
    let new: NewApiKey = request.json().await?;
    let accounts = account_of(&request, new.account.as_deref())?;
    let people = &request.api().people;
    let (key, token) = people.make_key(accounts, &new.name, new.role.into(), new.wa_id).await?;
    let created_key = CreatedApiKey { key: key.into(), secret: token.reveal().to_owned() };
    let tag = etag(&created_key.key);
    Ok(with_etag(created(&created_key), &tag))
}

async fn change(mut request: ApiRequest) -> Result<Response, ApiError> {
    let change: ApiKeyChange = request.json().await?;
    let id: Uuid = request.id("key_id", NOT_FOUND)?;
    let (api, scope) = (request.api(), request.scope());
    if request.is_conditional() {
        let known = api.store.api_keys().get(scope, id).await;
        let known = known.map_err(ApiError::store("read an API key"))?;
        let known = known.ok_or(ApiError::NotFound(NOT_FOUND))?;
        request.check_if_match(&etag(&ApiKeyView::from(known)))?;
    }
    let role = change.role.map(Into::into);
    let changed = api.people.change_key(scope, id, change.name.as_deref(), role).await?;
    Ok(ok_with_etag(&ApiKeyView::from(changed)))
}

async fn delete(request: ApiRequest) -> Result<Response, ApiError> {
    let (api, scope) = (request.api(), request.scope());
    api.people.remove_key(scope, request.id("key_id", NOT_FOUND)?).await?;
    Ok(no_content())
}
