//! `/api/v1/api-keys/`: keys of this API that are made while the node runs (`number-api.md` §4). For owners. A key's
//! secret is shown once, when it is made.

use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::routes::{Answer, Body, Content, Route, of};
use super::super::{decoded, error, with_header};
use super::Timestamp3339;
use super::ask::{self, Asked, CHANGED, Fault, Page};
use super::bodies::Taken;
use super::users::{PAGING, RoleWord, account_of, not_done};
use model::AuthId;
use store::MadeKey;

const ONE: &str = "/api/v1/api-keys/{key_id}/";
const JSON: &str = "application/json";

/// What is read of bodies.
pub(super) const BODIES: &[Taken] =
    &[Taken::of::<Wanted>("createApiKey"), Taken::of::<Changed>("changeApiKey")];

/// What is served.
pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "GET",
        path: "/api/v1/api-keys/",
        id: "apiKeys",
        summary: "The API keys that were made here, newest first; those of the configuration are not among them",
        query: PAGING,
        body: None,
        answers: &[Answer {
            status: 200,
            what: "A page of them",
            content: Content::Json(of::<Listed>),
        }],
    },
    Route {
        method: "POST",
        path: "/api/v1/api-keys/",
        id: "createApiKey",
        summary: "Makes an API key; its secret is shown this once",
        query: &[],
        body: Some(Body {
            content_type: JSON,
            what: "name, role; waId (whose sandbox it is), account (a subaccount)",
        }),
        answers: &[
            Answer { status: 201, what: "Made, with its ETag", content: Content::Json(of::<Made>) },
            Answer {
                status: 409,
                what: "The account has as many as it may",
                content: Content::Json(of::<error::OurBody<'static>>),
            },
        ],
    },
    Route {
        method: "PATCH",
        path: ONE,
        id: "changeApiKey",
        summary: "Renames an API key or gives it another role, from the next request on",
        query: &[],
        body: Some(Body { content_type: JSON, what: "name, role" }),
        answers: &[
            Answer {
                status: 200,
                what: "As it is now, with its ETag",
                content: Content::Json(of::<Shown>),
            },
            CHANGED,
        ],
    },
    Route {
        method: "DELETE",
        path: ONE,
        id: "deleteApiKey",
        summary: "Removes an API key: it opens nothing from now on",
        query: &[],
        body: None,
        answers: &[Answer { status: 204, what: "Gone", content: Content::Nothing }],
    },
];

/// A key as our API shows it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ApiKey, examples(json!({"id": "a87ff679-a2f3-471d-9181-a67b7542122c", "name": "crm", "role": "agent", "ending": "9f3c", "waId": null, "account": "MAXXXXXXXXXXXXXXXXXX", "createdAt": "2026-11-21T22:50:00.000Z"})))]
pub(super) struct Shown {
    #[schema(value_type = String, format = Uuid)]
    id: Uuid,
    name: String,
    role: RoleWord,
    /// Its last four characters.
    ending: String,
    wa_id: Option<String>,
    #[schema(value_type = String)]
    account: AuthId,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp3339,
}

/// A key with its secret.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ApiKeyMade)]
pub(super) struct Made {
    #[serde(flatten)]
    key: Shown,
    /// What goes into `X-API-Key`; not shown again.
    secret: String,
}

/// A page of them.
#[derive(Serialize, ToSchema)]
#[schema(as = ApiKeys)]
pub(super) struct Listed {
    items: Vec<Shown>,
    next: Option<String>,
}

impl From<MadeKey> for Shown {
    fn from(key: MadeKey) -> Self {
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
#[serde(rename_all = "camelCase")]
#[schema(as = NewApiKey, examples(json!({"name": "crm", "role": "agent"})))]
struct Wanted {
    name: String,
    role: RoleWord,
    /// Whose sandbox it changes.
    wa_id: Option<String>,
    /// A subaccount.
    account: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = ApiKeyChange, examples(json!({"name": "crm of the shop"})))]
struct Changed {
    name: Option<String>,
    role: Option<RoleWord>,
}

/// Anything under `api-keys/`.
pub(super) async fn serve(asked: Asked, path: &[&str]) -> Result<Response, Fault> {
    match (asked.method().as_str(), path) {
        ("GET", []) => list(&asked).await,
        ("POST", []) => create(asked).await,
        ("PATCH", [id]) => change(asked, id).await,
        ("DELETE", [id]) => delete(&asked, id).await,
        _ => Err(ask::missing("there is nothing at this path")),
    }
}

async fn list(asked: &Asked) -> Result<Response, Fault> {
    let limit = asked.limit()?;
    let keys = asked.api().people.keys(asked.scope(), asked.cursor(ask::placed)?, limit + 1).await;
    let keys = keys.map_err(ask::store("list the API keys"))?;
    let page = Page::of(keys, limit, |key| ask::place(key.created, key.id));
    let items: Vec<Shown> = page.items.into_iter().map(Shown::from).collect();
    Ok(ask::ok(&Listed { items, next: asked.next(page.next) }))
}

async fn create(asked: Asked) -> Result<Response, Fault> {
    let (asked, wanted) = asked.json::<Wanted>().await?;
    let accounts = account_of(&asked, wanted.account.as_deref())?;
    let made =
        asked.api().people.make_key(accounts, &wanted.name, wanted.role.into(), wanted.wa_id).await;
    let (key, token) = made.map_err(not_done)?;
    let made = Made { key: key.into(), secret: token.reveal().to_owned() };
    let tag = ask::tag_of(&made.key);
    Ok(with_header(error::body(StatusCode::CREATED, &made), http::header::ETAG, &tag))
}

async fn change(asked: Asked, id: &str) -> Result<Response, Fault> {
    let (asked, wanted) = asked.json::<Changed>().await?;
    let id = id_of(id)?;
    if asked.is_conditional() {
        let known = asked
            .api()
            .store
            .api_keys()
            .get(asked.scope(), id)
            .await
            .map_err(ask::store("read an API key"))?;
        let known = known.ok_or_else(|| ask::missing("there is no such API key"))?;
        asked.matches(&ask::tag_of(&Shown::from(known)))?;
    }
    let main = asked.api().keeper.book().main_of(asked.scope().auth_id()).clone();
    let role = wanted.role.map(Into::into);
    let changed =
        asked.api().people.change_key(asked.scope(), &main, id, wanted.name.as_deref(), role).await;
    Ok(ask::tagged(&Shown::from(changed.map_err(not_done)?)))
}

async fn delete(asked: &Asked, id: &str) -> Result<Response, Fault> {
    let main = asked.api().keeper.book().main_of(asked.scope().auth_id()).clone();
    asked.api().people.remove_key(asked.scope(), &main, id_of(id)?).await.map_err(not_done)?;
    Ok(ask::gone())
}

fn id_of(text: &str) -> Result<Uuid, Fault> {
    decoded(text).parse().map_err(|_| ask::missing("there is no such API key"))
}
