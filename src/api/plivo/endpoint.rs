//! Endpoints: named phones of an account. See `docs/reference/rest.md#endpoints`.

use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::Api;
use super::super::fields::Fields;
use super::super::routes::{Field, FieldKind, Operation, RequestBody, ResponseSpec};
use super::error::PlivoError;
use super::paging::{PageMeta, PageRequest};
use super::random;
use super::request::PlivoRequest;
use super::response::{Changed, account_uri, changed, created, no_content, ok, resource_uri};
use super::route::{LIMIT, OFFSET, Route, error, handler, object};
use engine::feed::{Audience, FeedChange};
use model::{AppId, EndpointId, EndpointName, Secret, is_line};
use store::{Endpoint, EndpointChange, PasswordError, Scope};

const NOT_FOUND: PlivoError = PlivoError::NotFound("endpoint not found");
const ALIAS_CHARS_MAX: usize = 100;
const PASSWORD_CHARS_MIN: usize = 5;
const PASSWORD_CHARS_MAX: usize = 128;
/// Maximum length of a name, in characters.
const NAME_CHARS_MAX: usize = 64;
/// Number of digits that are appended to a name that another account uses. Plivo appends 12 to
/// every name.
const APPENDED_DIGITS: u32 = 12;
/// Number of digits of an id.
const ID_DIGITS: u32 = 14;
/// Maximum number of endpoints of an account and its subaccounts.
const ENDPOINTS_MAX: u64 = 10_000;
/// Maximum number of names and ids that are tried until an unused one is found.
const ATTEMPTS: usize = 4;

const COLLECTION: &str = "/v1/Account/{auth_id}/Endpoint/";
const ITEM: &str = "/v1/Account/{auth_id}/Endpoint/{endpoint_id}/";

pub(super) const ROUTES: &[Route] = &[
    Route {
        handler: handler!(list),
        operation: Operation::get(COLLECTION, "listEndpoints", "List endpoints")
            .query(&[LIMIT, OFFSET])
            .responses(&[object::<EndpointList>(200, "A page of endpoints")]),
    },
    Route {
        handler: handler!(create),
        operation: Operation::post(
            COLLECTION,
            "makeEndpoint",
            "Create an endpoint: a phone that registers at /phone with its username and password",
        )
        .body(RequestBody::fields(
            "username, password, alias, app_id",
            &[&[
                Field::required(
                    "username",
                    FieldKind::Text(64),
                    "Letters, digits, dots, dashes and underscores",
                ),
                Field::required("password", FieldKind::Text(128), "At least 5 characters"),
                Field::optional("alias", FieldKind::Text(100), "Default: the username"),
                Field::optional(
                    "app_id",
                    FieldKind::Text(64),
                    "The application of its calls; empty: the account's default for endpoints",
                ),
            ]],
        ))
        .responses(&[
            object::<CreatedEndpoint>(
                201,
                "The endpoint; its username has digits appended if another account uses the name",
            ),
            error(409, "The account has an endpoint of that name, or too many endpoints"),
        ]),
    },
    Route {
        handler: handler!(get),
        operation: Operation::get(
            ITEM,
            "endpoint",
            "Retrieve an endpoint, and whether it is registered",
        )
        .responses(&[object::<EndpointView>(200, "The endpoint")]),
    },
    Route {
        handler: handler!(change),
        operation: Operation::post(
            ITEM,
            "changeEndpoint",
            "Change an endpoint; after a change of the password its phones must register again",
        )
        .body(RequestBody::fields(
            "alias, password, app_id (empty to remove)",
            &[&[
                Field::optional("alias", FieldKind::Text(100), ""),
                Field::optional(
                    "password",
                    FieldKind::Text(128),
                    "At least 5 characters; its phones must register again",
                ),
                Field::optional(
                    "app_id",
                    FieldKind::Text(64),
                    "Empty: the account's default for endpoints",
                ),
                Field::optional("username", FieldKind::Text(0), "Can't be changed"),
            ]],
        ))
        .responses(&[object::<Changed>(202, "Changed")]),
    },
    Route {
        handler: handler!(delete),
        operation: Operation::delete(
            ITEM,
            "removeEndpoint",
            "Delete an endpoint; its phones are unregistered",
        )
        .responses(&[ResponseSpec::empty(204, "Deleted")]),
    },
];

/// An endpoint, without its password.
#[derive(Serialize, ToSchema)]
#[schema(as = PlivoEndpoint)]
struct EndpointView {
    alias: String,
    application: Option<String>,
    endpoint_id: String,
    password: &'static str,
    resource_uri: String,
    /// `true` or `false`, as a string.
    sip_registered: &'static str,
    sip_uri: String,
    sub_account: Option<String>,
    username: String,
}

impl EndpointView {
    fn new(api: &Api, scope: &Scope, endpoint: Endpoint) -> Self {
        let Endpoint { id, account, main_account, name, alias, app_id, .. } = endpoint;
        let (book, of_main) = (api.keeper.book(), Scope::of(main_account.clone()));
        let app_id = app_id.filter(|id| book.application(&of_main, id).is_some());
        Self {
            alias,
            application: app_id.map(|app| resource_uri(scope, &format!("Application/{app}/"))),
            resource_uri: resource_uri(scope, &format!("Endpoint/{id}/")),
            endpoint_id: id.to_string(),
            password: "",
            sip_registered: if api.phones.is_registered(&name) { "true" } else { "false" },
            sip_uri: name.sip_address(&api.host),
            sub_account: (account != main_account).then(|| account_uri(&account)),
            username: name.to_string(),
        }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoEndpoints)]
struct EndpointList {
    meta: PageMeta,
    objects: Vec<EndpointView>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoEndpointMade)]
struct CreatedEndpoint {
    alias: String,
    endpoint_id: String,
    message: &'static str,
    username: String,
}

async fn list(request: PlivoRequest) -> Result<Response, PlivoError> {
    let (api, scope) = (request.api(), &request.scope);
    let page = PageRequest::parse(request.query())?;
    let (endpoints, total) = api.store.endpoints().list(scope, page.limit, page.offset).await?;
    let list_uri = resource_uri(scope, "Endpoint/");
    let meta = PageMeta::new(&list_uri, request.query(), page, total);
    let objects = endpoints.into_iter();
    let objects = objects.map(|endpoint| EndpointView::new(api, scope, endpoint)).collect();
    Ok(ok(&EndpointList { meta, objects }))
}

async fn get(request: PlivoRequest) -> Result<Response, PlivoError> {
    let (api, scope) = (request.api(), &request.scope);
    let endpoint =
        api.store.endpoints().get(scope, &endpoint_id(&request)).await?.ok_or(NOT_FOUND)?;
    Ok(ok(&EndpointView::new(api, scope, endpoint)))
}

fn endpoint_id(request: &PlivoRequest) -> EndpointId {
    EndpointId::from(request.parameter("endpoint_id"))
}

async fn create(request: PlivoRequest) -> Result<Response, PlivoError> {
    let (api, scope, fields) = (request.api(), &request.scope, request.fields()?);
    let requested = fields.required("username").map_err(PlivoError::BadRequest)?;
    let requested = EndpointName::parse(&requested)
        .map_err(|why| PlivoError::BadRequest(format!("username {why}")))?;
    let password = parse_password(&fields)?;
    let password = password
        .ok_or_else(|| PlivoError::BadRequest("password parameter is missing".to_owned()))?;
    let alias = parse_alias(&fields)?.unwrap_or_else(|| requested.to_string());
    let app_id = parse_application(api, scope, &fields)?.flatten();
    let account = scope.auth_id().clone();
    let main_account = api.keeper.book().main_of(&account).clone();
    refuse_used(api, scope, &requested).await?;
    if api.store.endpoints().list(&Scope::of(main_account.clone()), 1, 0).await?.1 >= ENDPOINTS_MAX
    {
        let message = format!("an account can have at most {ENDPOINTS_MAX} endpoints");
        return Err(PlivoError::Conflict(message));
    }
    let password = hash(api, password).await?;
    let mut name = requested.clone();
    // If another account uses the name, digits are appended, so that no account learns the names of
    // another.
    for _ in 0..ATTEMPTS {
        let id = EndpointId::from(random::digits(ID_DIGITS)?);
        let endpoint = Endpoint {
            id: id.clone(),
            account: account.clone(),
            main_account: main_account.clone(),
            name: name.clone(),
            alias: alias.clone(),
            password: password.clone(),
            app_id: app_id.clone(),
            user: None,
            created: api.clock.wall(),
        };
        let is_created = api.store.endpoints().create(endpoint).await;
        if is_created.map_err(PlivoError::not_stored)? {
            let to = Audience::of(&account, &main_account);
            api.feed.publish(to, FeedChange::Endpoint(id.clone()));
            return Ok(created(&CreatedEndpoint {
                alias,
                endpoint_id: id.to_string(),
                message: "created",
                username: name.to_string(),
            }));
        }
        // The account may have created it at the same moment.
        refuse_used(api, scope, &requested).await?;
        let kept = NAME_CHARS_MAX - APPENDED_DIGITS as usize;
        let kept: String = requested.as_str().chars().take(kept).collect();
        let longer = format!("{kept}{}", random::digits(APPENDED_DIGITS)?);
        name = EndpointName::parse(&longer).map_err(|_| PlivoError::Internal)?;
    }
    Err(PlivoError::Internal)
}

/// Refuses a username that an endpoint of the account has.
async fn refuse_used(api: &Api, scope: &Scope, name: &EndpointName) -> Result<(), PlivoError> {
    match api.store.endpoints().by_name(name).await? {
        Some(known) if scope.holds(&known.account, &known.main_account) => {
            let message = format!("username {name} is used by your endpoint {}", known.id);
            Err(PlivoError::Conflict(message))
        }
        Some(_) | None => Ok(()),
    }
}

async fn change(request: PlivoRequest) -> Result<Response, PlivoError> {
    let (api, scope, id) = (request.api(), &request.scope, endpoint_id(&request));
    let fields = request.fields()?;
    let endpoint = api.store.endpoints().get(scope, &id).await?.ok_or(NOT_FOUND)?;
    if fields.text("username").map_err(PlivoError::BadRequest)?.is_some() {
        let message = "username can't be changed: create another endpoint".to_owned();
        return Err(PlivoError::BadRequest(message));
    }
    let alias = parse_alias(&fields)?;
    let app_id = parse_application(api, scope, &fields)?;
    let password = match parse_password(&fields)? {
        Some(password) => Some(hash(api, password).await?),
        None => None,
    };
    let has_new_password = password.is_some();
    let change = EndpointChange { alias, password, app_id, user: None };
    let is_changed = api.store.endpoints().change(scope, &id, change).await;
    if !is_changed.map_err(PlivoError::not_stored)? {
        return Err(NOT_FOUND);
    }
    if has_new_password {
        api.phones.unregister(&id, "password_changed");
    }
    let to = Audience::of(&endpoint.account, &endpoint.main_account);
    api.feed.publish(to, FeedChange::Endpoint(id));
    Ok(changed())
}

async fn delete(request: PlivoRequest) -> Result<Response, PlivoError> {
    let (api, id) = (request.api(), endpoint_id(&request));
    let endpoint = api.store.endpoints().get(&request.scope, &id).await?.ok_or(NOT_FOUND)?;
    let is_deleted = api.store.endpoints().delete(&request.scope, &id).await;
    if !is_deleted.map_err(PlivoError::not_stored)? {
        return Err(NOT_FOUND);
    }
    api.phones.unregister(&id, "endpoint_removed");
    let to = Audience::of(&endpoint.account, &endpoint.main_account);
    api.feed.publish(to, FeedChange::Endpoint(id));
    Ok(no_content())
}

async fn hash(api: &Api, password: Secret) -> Result<String, PlivoError> {
    api.passwords.hash(password).await.map_err(|why| match why {
        PasswordError::Busy => {
            PlivoError::too_many_requests("too many passwords are being set: try again", 1)
        }
        PasswordError::Hash => PlivoError::Internal,
    })
}

fn parse_password(fields: &Fields) -> Result<Option<Secret>, PlivoError> {
    // Blanks at its ends are part of a password.
    let Some(text) = fields.verbatim("password").map_err(PlivoError::BadRequest)? else {
        return Ok(None);
    };
    if !is_line(&text, PASSWORD_CHARS_MIN..=PASSWORD_CHARS_MAX) {
        return Err(PlivoError::BadRequest(format!(
            "password must be {PASSWORD_CHARS_MIN} to {PASSWORD_CHARS_MAX} characters"
        )));
    }
    Ok(Some(Secret::new(text)))
}

fn parse_alias(fields: &Fields) -> Result<Option<String>, PlivoError> {
    let alias = fields.bounded("alias", ALIAS_CHARS_MAX).map_err(PlivoError::BadRequest)?;
    Ok(alias.filter(|alias| !alias.is_empty()))
}

/// Parses the application of an endpoint: `Some(None)` if the field is empty, which removes it.
fn parse_application(
    api: &Api,
    scope: &Scope,
    fields: &Fields,
) -> Result<Option<Option<AppId>>, PlivoError> {
    let Some(id) = fields.given("app_id").map_err(PlivoError::BadRequest)? else { return Ok(None) };
    if id.is_empty() {
        return Ok(Some(None));
    }
    // SDKs pass the `application` of an endpoint, which is a URI.
    let id = AppId::from(id.trim_end_matches('/').rsplit('/').next().unwrap_or_default());
    match api.keeper.book().application(scope, &id).is_some() {
        true => Ok(Some(Some(id))),
        false => Err(PlivoError::BadRequest("app_id is invalid: no such application".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::{Fields, parse_password};

    #[test]
    fn parses_passwords_verbatim_within_bounds() {
        let read = |json: &str| {
            let kind = http::HeaderValue::from_static("application/json");
            let headers = http::HeaderMap::from_iter([(http::header::CONTENT_TYPE, kind)]);
            parse_password(&Fields::read(&headers, json.as_bytes()).unwrap())
        };
        for (json, taken) in [
            ("{\"password\":\" five \"}", Some(" five ")),
            ("{\"password\":12345}", Some("12345")),
            ("{}", None),
            ("{\"password\":null}", None),
        ] {
            assert_eq!(read(json).ok().flatten().as_ref().map(|p| p.reveal()), taken, "{json}");
        }
        for json in [
            "{\"password\":\"four\"}",
            "{\"password\":\"\"}",
            "{\"password\":\"a\\nbcdef\"}",
            "{\"password\":[1]}",
        ] {
            assert!(read(json).is_err(), "{json}");
        }
    }
}
