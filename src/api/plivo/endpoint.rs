//! Endpoints (`plivo-call-api.md` §5, `plivo-xml.md` §6): named phones of an account's people.

use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::fields::Fields;
use super::super::routes::{Answer, Body, Content, Route, of};
use super::super::{Api, error};
use super::paging::{Meta, page};
use super::{Ask, LIMIT, No, OFFSET, not_stored, random_digits};
use model::Secret;
use model::{AppId, EndpointId, EndpointName};
use store::{Endpoint, EndpointChange, PasswordError, Scope};

const NOT_FOUND: &str = "endpoint not found";
const ALIAS_CHARS_MAX: usize = 100;
/// Characters of a password.
const PASSWORD_MIN: usize = 5;
const PASSWORD_MAX: usize = 128;
/// What Plivo puts behind every name: so many digits. Here a name keeps as it is where nobody has it.
const APPENDED: u32 = 12;
/// Endpoints of an account with its subaccounts.
const ENDPOINTS_MAX: u64 = 10_000;

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "GET",
        path: "/v1/Account/{auth_id}/Endpoint/",
        id: "listEndpoints",
        summary: "The account's endpoints",
        query: &[LIMIT, OFFSET],
        body: None,
        answers: &[Answer { status: 200, what: "A page", content: Content::Plivo(&[of::<List>]) }],
    },
    Route {
        method: "POST",
        path: "/v1/Account/{auth_id}/Endpoint/",
        id: "makeEndpoint",
        summary: "Makes an endpoint: a phone that registers at /phone by its username and password",
        query: &[],
        body: Some(Body {
            content_type: "application/json",
            what: "username, password, alias, app_id",
        }),
        answers: &[
            Answer {
                status: 201,
                what: "Made; its username has digits behind it where another's endpoint has that name",
                content: Content::Plivo(&[of::<Made>]),
            },
            Answer {
                status: 409,
                what: "An endpoint of this account has that name, or there are too many",
                content: Content::Plivo(&[of::<error::PlivoError<'static>>]),
            },
        ],
    },
    Route {
        method: "GET",
        path: "/v1/Account/{auth_id}/Endpoint/{endpoint_id}/",
        id: "endpoint",
        summary: "One endpoint, and whether it is registered",
        query: &[],
        body: None,
        answers: &[Answer { status: 200, what: "It", content: Content::Plivo(&[of::<Shown>]) }],
    },
    Route {
        method: "POST",
        path: "/v1/Account/{auth_id}/Endpoint/{endpoint_id}/",
        id: "changeEndpoint",
        summary: "Changes an endpoint; with another password its phones have to register again",
        query: &[],
        body: Some(Body {
            content_type: "application/json",
            what: "alias, password, app_id (empty: none)",
        }),
        answers: &[Answer {
            status: 202,
            what: "Changed",
            content: Content::Plivo(&[of::<super::Changed>]),
        }],
    },
    Route {
        method: "DELETE",
        path: "/v1/Account/{auth_id}/Endpoint/{endpoint_id}/",
        id: "removeEndpoint",
        summary: "Takes an endpoint away; its phones are registered no longer",
        query: &[],
        body: None,
        answers: &[Answer { status: 204, what: "It is gone", content: Content::Nothing }],
    },
];

/// An endpoint, as Plivo describes one. A password is never given back.
#[derive(Serialize, ToSchema)]
#[schema(as = PlivoEndpoint)]
pub(super) struct Shown {
    alias: String,
    application: Option<String>,
    endpoint_id: String,
    password: &'static str,
    resource_uri: String,
    /// `true` or `false`, as text.
    sip_registered: &'static str,
    sip_uri: String,
    sub_account: Option<String>,
    username: String,
}

impl Shown {
    fn of(api: &Api, scope: &Scope, endpoint: Endpoint) -> Self {
        let Endpoint { id, account, main_account, name, alias, app_id, .. } = endpoint;
        Self {
            alias,
            application: app_id.map(|app| super::uri(scope, &format!("Application/{app}/"))),
            resource_uri: super::uri(scope, &format!("Endpoint/{id}/")),
            endpoint_id: id.to_string(),
            password: "",
            sip_registered: if api.phones.is_registered(&name) { "true" } else { "false" },
            sip_uri: name.sip_address(&api.host),
            sub_account: (account != main_account).then(|| super::own_uri(&account)),
            username: name.to_string(),
        }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoEndpoints)]
pub(super) struct List {
    meta: Meta,
    objects: Vec<Shown>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoEndpointMade)]
pub(super) struct Made {
    alias: String,
    endpoint_id: String,
    message: &'static str,
    username: String,
}

pub(super) async fn list(api: &Api, ask: &Ask) -> Result<Response, No> {
    let page = page(&ask.pairs)?;
    let (endpoints, total) =
        api.store.endpoints().list(&ask.scope, page.limit, page.offset).await?;
    let meta = Meta::of(&super::uri(&ask.scope, "Endpoint/"), &ask.pairs, page, total);
    let objects =
        endpoints.into_iter().map(|endpoint| Shown::of(api, &ask.scope, endpoint)).collect();
    Ok(error::plivo_body(StatusCode::OK, &List { meta, objects }))
}

pub(super) async fn get(api: &Api, ask: &Ask, id: &str) -> Result<Response, No> {
    let endpoint =
        api.store.endpoints().get(&ask.scope, &id.into()).await?.ok_or(No::NotFound(NOT_FOUND))?;
    Ok(error::plivo_body(StatusCode::OK, &Shown::of(api, &ask.scope, endpoint)))
}

pub(super) async fn make(api: &Api, ask: &Ask) -> Result<Response, No> {
    let fields = ask.fields()?;
    let wished = fields.required("username").map_err(No::Bad)?;
    let wished = EndpointName::parse(&wished).map_err(|why| No::Bad(format!("username {why}")))?;
    let password =
        password(&fields)?.ok_or_else(|| No::Bad("password parameter is missing".to_owned()))?;
    let alias = alias(&fields)?.unwrap_or_else(|| wished.to_string());
    let app_id = application(api, &ask.scope, &fields)?.flatten();
    let account = ask.scope.auth_id().clone();
    let main_account = api.keeper.book().main_of(&account).clone();
    if let Some(taken) = api.store.endpoints().by_name(&wished).await?
        && ask.scope.holds(&taken.account, &taken.main_account)
    {
        return Err(No::Conflict(format!(
            "username {wished} is taken by your endpoint {}",
            taken.id
        )));
    }
    if api.store.endpoints().list(&Scope::of(main_account.clone()), 1, 0).await?.1 >= ENDPOINTS_MAX
    {
        return Err(No::Conflict(format!("an account has at most {ENDPOINTS_MAX} endpoints")));
    }
    let password = hash(api, password).await?;
    let mut name = wished.clone();
    // The names of others are not told: who wishes for one of them gets digits behind it, as everybody does at Plivo.
    for _ in 0..4 {
        let id = EndpointId::from(random_digits(14).ok_or(No::Ours)?);
        let endpoint = Endpoint {
            id: id.clone(),
            account: account.clone(),
            main_account: main_account.clone(),
            name: name.clone(),
            alias: alias.clone(),
            password: password.clone(),
            app_id: app_id.clone(),
            created: api.clock.wall(),
        };
        if api.store.endpoints().create(endpoint).await.map_err(not_stored)? {
            let made = Made {
                alias,
                endpoint_id: id.to_string(),
                message: "created",
                username: name.to_string(),
            };
            return Ok(error::plivo_body(StatusCode::CREATED, &made));
        }
        let room = 64 - APPENDED as usize;
        let kept: String = wished.as_str().chars().take(room).collect();
        let longer = format!("{kept}{}", random_digits(APPENDED).ok_or(No::Ours)?);
        name = EndpointName::parse(&longer).map_err(|_| No::Ours)?;
    }
    Err(No::Ours)
}

pub(super) async fn edit(api: &Api, ask: &Ask, id: &str) -> Result<Response, No> {
    let id = EndpointId::from(id);
    let fields = ask.fields()?;
    if api.store.endpoints().get(&ask.scope, &id).await?.is_none() {
        return Err(No::NotFound(NOT_FOUND));
    }
    if fields.text("username").map_err(No::Bad)?.is_some() {
        return Err(No::Bad("username can't be changed; make another endpoint".to_owned()));
    }
    let alias = alias(&fields)?;
    let app_id = application(api, &ask.scope, &fields)?;
    let password = match password(&fields)? {
        Some(password) => Some(hash(api, password).await?),
        None => None,
    };
    let is_another = password.is_some();
    let change = EndpointChange { alias, password, app_id };
    if !api.store.endpoints().change(&ask.scope, &id, change).await.map_err(not_stored)? {
        return Err(No::NotFound(NOT_FOUND));
    }
    if is_another {
        api.phones.unregister(&id, "password_changed");
    }
    Ok(super::changed())
}

pub(super) async fn remove(api: &Api, ask: &Ask, id: &str) -> Result<Response, No> {
    let id = EndpointId::from(id);
    if !api.store.endpoints().delete(&ask.scope, &id).await.map_err(not_stored)? {
        return Err(No::NotFound(NOT_FOUND));
    }
    api.phones.unregister(&id, "endpoint_removed");
    Ok(error::plivo_no_content())
}

async fn hash(api: &Api, password: Secret) -> Result<String, No> {
    api.passwords.hash(password).await.map_err(|why| match why {
        PasswordError::Busy => No::TooMany {
            why: "too many passwords are being set at this moment".to_owned(),
            seconds: 1,
        },
        PasswordError::Hash => No::Ours,
    })
}

fn password(fields: &Fields) -> Result<Option<Secret>, No> {
    // As it is: blanks at its ends are part of it.
    let Some(text) = fields.verbatim("password").map_err(No::Bad)? else { return Ok(None) };
    let length = text.chars().count();
    if !(PASSWORD_MIN..=PASSWORD_MAX).contains(&length) || text.chars().any(char::is_control) {
        return Err(No::Bad(format!(
            "password must be {PASSWORD_MIN} to {PASSWORD_MAX} characters"
        )));
    }
    Ok(Some(Secret::new(text)))
}

fn alias(fields: &Fields) -> Result<Option<String>, No> {
    // An empty one says nothing.
    let alias = fields.bounded("alias", ALIAS_CHARS_MAX).map_err(No::Bad)?;
    Ok(alias.filter(|alias| !alias.is_empty()))
}

/// The application that is named; the inner none: an empty name takes it away.
fn application(api: &Api, scope: &Scope, fields: &Fields) -> Result<Option<Option<AppId>>, No> {
    let Some(id) = fields.given("app_id").map_err(No::Bad)? else { return Ok(None) };
    if id.is_empty() {
        return Ok(Some(None));
    }
    // SDKs hand on what an endpoint's `application` says.
    let id = AppId::from(id.trim_end_matches('/').rsplit('/').next().unwrap_or_default());
    match api.keeper.book().application(scope, &id).is_some() {
        true => Ok(Some(Some(id))),
        false => Err(No::Bad("app_id is invalid: you have no such application".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::{Fields, password};

    #[test]
    fn passwords_are_taken_as_they_are_within_bounds() {
        let read = |json: &str| {
            let kind = http::HeaderValue::from_static("application/json");
            let headers = http::HeaderMap::from_iter([(http::header::CONTENT_TYPE, kind)]);
            password(&Fields::read(&headers, json.as_bytes()).unwrap())
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
