//! Subaccounts (`plivo-call-api.md` §5): made, listed, changed and taken away by their main account alone.
//!
//! A disabled one's token is refused; calls of its numbers go on. The token is shown where Plivo shows it, to the main
//! account, and is sealed in the store.

use aws_lc_rs::rand;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::routes::{Answer, Body, Content, Route, of};
use super::super::{Api, error};
use super::account::TEXT_CHARS_MAX;
use super::paging::{Meta, paged};
use super::{Ask, CONFLICT, LIMIT, No, OFFSET, changed, own_uri, settle, uri};
use crate::admission::book::{Account, Details, TooMany};
use model::AuthId;
use model::Secret;
use store::Scope;

const NOT_FOUND: &str = "subaccount not found";
/// Characters of an auth_id behind its two letters, and what they are (1.2).
const ID_CHARS: usize = 18;
const ID_ALPHABET: &[u8; 36] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
/// Random bytes of a token: 40 characters.
const TOKEN_BYTES: usize = 30;

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "GET",
        path: "/v1/Account/{auth_id}/Subaccount/",
        id: "listSubaccounts",
        summary: "The subaccounts of a main account",
        query: &[LIMIT, OFFSET],
        body: None,
        answers: &[Answer {
            status: 200,
            what: "A page",
            content: Content::Plivo(&[of::<List<'static>>]),
        }],
    },
    Route {
        method: "POST",
        path: "/v1/Account/{auth_id}/Subaccount/",
        id: "makeSubaccount",
        summary: "Makes a subaccount",
        query: &[],
        body: Some(Body { content_type: "application/json", what: "name; enabled (true)" }),
        answers: &[
            Answer { status: 201, what: "Made", content: Content::Plivo(&[of::<Made>]) },
            CONFLICT,
        ],
    },
    Route {
        method: "GET",
        path: "/v1/Account/{auth_id}/Subaccount/{subauth_id}/",
        id: "subaccount",
        summary: "One subaccount",
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
        path: "/v1/Account/{auth_id}/Subaccount/{subauth_id}/",
        id: "changeSubaccount",
        summary: "Changes a subaccount's name, and whether its token is taken",
        query: &[],
        body: Some(Body { content_type: "application/json", what: "name, enabled" }),
        answers: &[Answer {
            status: 202,
            what: "Changed",
            content: Content::Plivo(&[of::<super::Changed>]),
        }],
    },
    Route {
        method: "DELETE",
        path: "/v1/Account/{auth_id}/Subaccount/{subauth_id}/",
        id: "removeSubaccount",
        summary: "Takes a subaccount away; its numbers and applications are the main account's then",
        query: &[super::CASCADE],
        body: None,
        answers: &[Answer { status: 204, what: "It is gone", content: Content::Nothing }, CONFLICT],
    },
];

/// A subaccount, as Plivo describes one.
#[derive(Serialize, ToSchema)]
#[schema(as = PlivoSubaccount)]
pub(super) struct Shown<'a> {
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

impl<'a> Shown<'a> {
    fn of(scope: &Scope, account: &'a Account) -> Self {
        let Account { auth_id, tokens, details, .. } = account;
        let token = tokens.first().map_or("", Secret::reveal);
        Self {
            account: own_uri(scope.auth_id()),
            auth_id: auth_id.as_str(),
            auth_token: token,
            created: details.created.plivo_day(),
            enabled: details.enabled,
            modified: details.modified.map(|at| at.plivo_day()),
            name: &details.name,
            new_auth_token: token,
            resource_uri: uri(scope, &format!("Subaccount/{auth_id}/")),
        }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoSubaccounts)]
pub(super) struct List<'a> {
    meta: Meta,
    objects: Vec<Shown<'a>>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoSubaccountMade)]
pub(super) struct Made {
    auth_id: String,
    auth_token: String,
    message: &'static str,
}

/// Of a main account only.
fn main(scope: &Scope) -> Result<&AuthId, No> {
    match scope {
        Scope::Main(id) => Ok(id),
        Scope::Sub(_) => Err(No::NotFound(super::NOT_HERE)),
    }
}

pub(super) fn list(api: &Api, ask: &Ask) -> Result<Response, No> {
    let book = api.keeper.book();
    let all = book.subaccounts(main(&ask.scope)?);
    let (meta, accounts) = paged(all, &uri(&ask.scope, "Subaccount/"), &ask.pairs)?;
    let objects = accounts.into_iter().map(|account| Shown::of(&ask.scope, account)).collect();
    Ok(error::plivo_body(StatusCode::OK, &List { meta, objects }))
}

pub(super) fn get(api: &Api, ask: &Ask, id: &str) -> Result<Response, No> {
    let book = api.keeper.book();
    let account = book.subaccount(main(&ask.scope)?, &id.into()).ok_or(No::NotFound(NOT_FOUND))?;
    Ok(error::plivo_body(StatusCode::OK, &Shown::of(&ask.scope, account)))
}

pub(super) async fn make(api: &Api, ask: &Ask) -> Result<Response, No> {
    let main = main(&ask.scope)?;
    let fields = ask.fields()?;
    let name = fields.bounded("name", TEXT_CHARS_MAX).map_err(No::Bad)?;
    let name = name
        .filter(|name| !name.is_empty())
        .ok_or_else(|| No::Bad("name parameter is missing".to_owned()))?;
    let enabled = fields.flag("enabled").map_err(No::Bad)?.unwrap_or(true);
    let (id, token) = fresh().ok_or(No::Ours)?;
    let now = api.clock.wall();
    let made = Made { auth_id: id.clone(), auth_token: token.clone(), message: "created" };
    let change = api.keeper.change(now, |book| {
        let credentials = (AuthId::from(id), Secret::new(token));
        let made = book.make_subaccount(main, credentials, Details::new(name, enabled, now));
        let too_many =
            |TooMany(most)| No::Conflict(format!("an account has at most {most} subaccounts"));
        made.map(|keys| ((), keys)).map_err(too_many)
    });
    settle(change.await)?;
    Ok(error::plivo_body(StatusCode::CREATED, &made))
}

pub(super) async fn edit(api: &Api, ask: &Ask, id: &str) -> Result<Response, No> {
    let (main, id) = (main(&ask.scope)?, AuthId::from(id));
    if api.keeper.book().subaccount(main, &id).is_none() {
        return Err(No::NotFound(NOT_FOUND));
    }
    let fields = ask.fields()?;
    let name = fields.bounded("name", TEXT_CHARS_MAX).map_err(No::Bad)?;
    let enabled = fields.flag("enabled").map_err(No::Bad)?;
    if name.as_ref().is_some_and(String::is_empty) || (name.is_none() && enabled.is_none()) {
        return Err(No::Bad("name parameter is missing".to_owned()));
    }
    let now = api.clock.wall();
    let change = api.keeper.change(now, |book| {
        let keys = book.edit_account(&id, now, |details| {
            details.name = name.unwrap_or_else(|| std::mem::take(&mut details.name));
            details.enabled = enabled.unwrap_or(details.enabled);
        });
        Ok(((), keys))
    });
    settle(change.await)?;
    Ok(changed())
}

pub(super) async fn remove(api: &Api, ask: &Ask, id: &str) -> Result<Response, No> {
    let (main, id) = (main(&ask.scope)?, AuthId::from(id));
    if api.keeper.book().subaccount(main, &id).is_none() {
        return Err(No::NotFound(NOT_FOUND));
    }
    let cascade = ask.flag_of_delete("cascade");
    let change = api.keeper.change(api.clock.wall(), |book| {
        book.remove_subaccount(&id, cascade).map(|keys| ((), keys)).map_err(|_in_file| {
            No::Conflict(format!(
                "subaccount {id} stands in the configuration file: take it out there"
            ))
        })
    });
    settle(change.await)?;
    if let Err(why) = api.inbox.inherit_webhooks(&id, main).await {
        tracing::warn!(account = %id, ?why, "webhooks of a subaccount that was removed are not its main account's yet");
    }
    Ok(error::plivo_no_content())
}

/// An auth_id and a token that nobody had; none: the system has no random bytes.
fn fresh() -> Option<(String, String)> {
    let (mut id, mut token) = ([0; 2 * ID_CHARS], [0; TOKEN_BYTES]);
    rand::fill(&mut id).ok()?;
    rand::fill(&mut token).ok()?;
    // Of two bytes, so that hardly any letter comes more often than another.
    let letter = |pair: &[u8; 2]| {
        let letter = ID_ALPHABET.get(usize::from(u16::from_be_bytes(*pair)) % ID_ALPHABET.len());
        char::from(letter.copied().unwrap_or(b'X'))
    };
    let id: String = "SA".chars().chain(id.as_chunks::<2>().0.iter().map(letter)).collect();
    Some((id, URL_SAFE_NO_PAD.encode(token)))
}

#[cfg(test)]
mod tests {
    #[test]
    fn ids_are_as_sdks_want_them() {
        let (id, token) = super::fresh().unwrap();
        assert!(id.len() == 20 && id.starts_with("SA"), "{id}");
        assert!(id.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()), "{id}");
        assert_eq!(token.len(), 40);
        assert_ne!(super::fresh().unwrap().0, id);
    }
}
