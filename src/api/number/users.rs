//! `/api/v1/users/`: who signs in to the console (`number-api.md` §4). For owners.
//!
//! A new user gets an invitation, a link that is shown this once, unless a password comes along. The row of DELETE is `erasure`'s, which shares its path.

use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::error::OurBody;
use super::super::routes::{Answer, Body, Content, Kind, Query, Route, of};
use super::super::{decoded, error};
use super::Timestamp3339;
use super::ask::{self, Asked, CHANGED, Fault, Page, given};
use super::bodies::Taken;
use crate::people::{Change, NewUser, NotDone, Token};
use model::AuthId;
use model::{Role, Secret};
use store::User;

const ONE: &str = "/api/v1/users/{user_id}/";
const JSON: &str = "application/json";
const CONFLICT: Answer = Answer {
    status: 409,
    what: "The name is taken, it is oneself, or they stand in the configuration",
    content: Content::Json(of::<OurBody<'static>>),
};

/// What is read of bodies.
pub(super) const BODIES: &[Taken] =
    &[Taken::of::<Wanted>("createUser"), Taken::of::<Changed>("changeUser")];

/// What is served.
pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "GET",
        path: "/api/v1/users/",
        id: "users",
        summary: "The people who sign in to the console, newest first",
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
        path: "/api/v1/users/",
        id: "createUser",
        summary: "Makes a user; without a password with an invitation, a link that is shown this once",
        query: &[],
        body: Some(Body {
            content_type: JSON,
            what: "name, role; fullName, waId, password, account (a subaccount)",
        }),
        answers: &[
            Answer { status: 201, what: "Made", content: Content::Json(of::<Made>) },
            CONFLICT,
        ],
    },
    Route {
        method: "GET",
        path: ONE,
        id: "user",
        summary: "One of them",
        query: &[],
        body: None,
        answers: &[Answer { status: 200, what: "The user", content: Content::Json(of::<Shown>) }],
    },
    Route {
        method: "PATCH",
        path: ONE,
        id: "changeUser",
        summary: "Changes a user; another password ends their sessions",
        query: &[],
        body: Some(Body {
            content_type: JSON,
            what: "fullName, role, waId (null: none), password",
        }),
        answers: &[
            Answer { status: 200, what: "As it is now", content: Content::Json(of::<Shown>) },
            CONFLICT,
            CHANGED,
        ],
    },
    Route {
        method: "POST",
        path: "/api/v1/users/{user_id}/invite/",
        id: "inviteUser",
        summary: "Another invitation instead of the last: also for who has forgotten their password",
        query: &[],
        body: None,
        answers: &[
            Answer { status: 200, what: "The link", content: Content::Json(of::<Made>) },
            CONFLICT,
        ],
    },
    Route {
        method: "POST",
        path: "/api/v1/users/{user_id}/sign-out/",
        id: "signOutUser",
        summary: "Ends all of a user's sessions",
        query: &[],
        body: None,
        answers: &[Answer { status: 204, what: "Ended", content: Content::Nothing }],
    },
];

/// Parameters of a list.
pub(super) const PAGING: &[Query] = &[
    Query { name: "limit", what: "Items of a page (50)", kind: Kind::Integer(1, 200) },
    Query { name: "cursor", what: "Where the page before ended", kind: Kind::Text },
];

/// A role on the wire.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = Role)]
pub(super) enum RoleWord {
    Agent,
    Admin,
    Owner,
}

impl From<Role> for RoleWord {
    fn from(role: Role) -> Self {
        match role {
            Role::Agent => Self::Agent,
            Role::Admin => Self::Admin,
            Role::Owner => Self::Owner,
        }
    }
}

impl From<RoleWord> for Role {
    fn from(word: RoleWord) -> Self {
        match word {
            RoleWord::Agent => Self::Agent,
            RoleWord::Admin => Self::Admin,
            RoleWord::Owner => Self::Owner,
        }
    }
}

/// A user as our API shows them.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = User, examples(json!({"id": "3e0f5c6a-7c55-4c0b-8d7e-2f1a9b8c7d60", "name": "asha", "fullName": "Asha Verma", "role": "admin", "waId": null, "account": "MAXXXXXXXXXXXXXXXXXX", "invited": false, "inConfiguration": false, "createdAt": "2026-11-21T22:50:00.000Z"})))]
pub(super) struct Shown {
    #[schema(value_type = String, format = Uuid)]
    id: Uuid,
    name: String,
    full_name: String,
    role: RoleWord,
    wa_id: Option<String>,
    #[schema(value_type = String)]
    account: AuthId,
    /// Invited, and no password yet.
    invited: bool,
    /// Stands in the configuration: role and password are changed there.
    in_configuration: bool,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp3339,
}

/// A user with their invitation.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = UserMade)]
pub(super) struct Made {
    #[serde(flatten)]
    user: Shown,
    /// The link by which they set a password, good once and for seven days; none where one was given.
    invitation: Option<String>,
}

/// A page of them.
#[derive(Serialize, ToSchema)]
#[schema(as = Users)]
pub(super) struct Listed {
    items: Vec<Shown>,
    next: Option<String>,
}

impl From<User> for Shown {
    fn from(user: User) -> Self {
        Self {
            id: user.id,
            name: user.name,
            full_name: user.full_name,
            role: user.role.into(),
            wa_id: user.wa_id,
            account: user.account,
            invited: user.password.is_none(),
            in_configuration: user.in_file,
            created_at: Timestamp3339(user.created),
        }
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = NewUser, examples(json!({"name": "ravi", "role": "agent", "fullName": "Ravi Iyer", "waId": "919812345678"})))]
struct Wanted {
    name: String,
    role: RoleWord,
    #[serde(default)]
    full_name: String,
    /// Their own WhatsApp number.
    wa_id: Option<String>,
    /// Absent: they are invited by a link, which the answer has.
    password: Option<String>,
    /// A subaccount.
    account: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = UserChange, examples(json!({"role": "admin"})))]
struct Changed {
    full_name: Option<String>,
    role: Option<RoleWord>,
    password: Option<String>,
    /// null: none.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    wa_id: Option<Option<String>>,
}

/// Anything under `users/`.
pub(super) async fn serve(asked: Asked, path: &[&str]) -> Result<Response, Fault> {
    match (asked.method().as_str(), path) {
        ("GET", []) => list(&asked).await,
        ("POST", []) => create(asked).await,
        ("GET", [id]) => get(&asked, id).await,
        ("PATCH", [id]) => change(asked, id).await,
        ("DELETE", [id]) => delete(&asked, id).await,
        ("POST", [id, "invite"]) => invite(&asked, id).await,
        ("POST", [id, "sign-out"]) => sign_out(&asked, id).await,
        _ => Err(ask::missing("there is nothing at this path")),
    }
}

async fn list(asked: &Asked) -> Result<Response, Fault> {
    let limit = asked.limit()?;
    let users =
        asked.api().people.users(asked.scope(), asked.cursor(ask::placed)?, limit + 1).await;
    let users = users.map_err(ask::store("list the users"))?;
    let page = Page::of(users, limit, |user| ask::place(user.created, user.id));
    let items: Vec<Shown> = page.items.into_iter().map(Shown::from).collect();
    Ok(ask::ok(&Listed { items, next: asked.next(page.next) }))
}

async fn create(asked: Asked) -> Result<Response, Fault> {
    let (asked, wanted) = asked.json::<Wanted>().await?;
    let (account, main_account) = account_of(&asked, wanted.account.as_deref())?;
    let new = NewUser {
        account,
        main_account,
        name: wanted.name,
        full_name: wanted.full_name,
        role: wanted.role.into(),
        wa_id: wanted.wa_id,
        password: wanted.password.map(Secret::new),
    };
    let (user, token) = asked.api().people.make_user(new).await.map_err(not_done)?;
    let invitation = token.map(|token| link(&asked, &token));
    Ok(error::body(StatusCode::CREATED, &Made { user: user.into(), invitation }))
}

async fn get(asked: &Asked, id: &str) -> Result<Response, Fault> {
    let user = asked
        .api()
        .people
        .user(asked.scope(), id_of(id)?)
        .await
        .map_err(ask::store("read a user"))?;
    Ok(ask::tagged(&Shown::from(user.ok_or_else(none)?)))
}

async fn change(asked: Asked, id: &str) -> Result<Response, Fault> {
    let (asked, wanted) = asked.json::<Changed>().await?;
    let id = id_of(id)?;
    let known =
        asked.api().people.user(asked.scope(), id).await.map_err(ask::store("read a user"))?;
    let known = known.ok_or_else(none)?;
    asked.matches(&ask::tag_of(&Shown::from(known.clone())))?;
    let is_conditional = asked.is_conditional();
    let change = Change {
        full_name: wanted.full_name,
        role: wanted.role.map(Role::from),
        password: wanted.password.map(Secret::new),
        wa_id: wanted.wa_id,
        seen: is_conditional.then(|| Box::new(known)),
    };
    let changed = asked
        .api()
        .people
        .change(asked.scope(), id, asked.member.user, change)
        .await
        .map_err(not_done)?;
    Ok(ask::tagged(&Shown::from(changed)))
}

async fn delete(asked: &Asked, id: &str) -> Result<Response, Fault> {
    asked
        .api()
        .people
        .remove(asked.scope(), id_of(id)?, asked.member.user)
        .await
        .map_err(not_done)?;
    Ok(ask::gone())
}

async fn invite(asked: &Asked, id: &str) -> Result<Response, Fault> {
    let (user, token) =
        asked.api().people.invite(asked.scope(), id_of(id)?).await.map_err(not_done)?;
    let invitation = Some(link(asked, &token));
    Ok(ask::ok(&Made { user: user.into(), invitation }))
}

async fn sign_out(asked: &Asked, id: &str) -> Result<Response, Fault> {
    let user = asked
        .api()
        .people
        .user(asked.scope(), id_of(id)?)
        .await
        .map_err(ask::store("read a user"))?;
    let user = user.ok_or_else(none)?;
    asked.api().people.sign_out_everywhere(user.id).await.map_err(ask::store("end sessions"))?;
    Ok(ask::gone())
}

fn link(asked: &Asked, token: &Token) -> String {
    format!("{}/console/invitation/{}", asked.api().base_url.trim_end_matches('/'), token.reveal())
}

/// The account that something new is to be of: the asker's, or one of their subaccounts.
pub(super) fn account_of(asked: &Asked, named: Option<&str>) -> Result<(AuthId, AuthId), Fault> {
    let book = asked.api().keeper.book();
    let account = named.map_or_else(|| asked.scope().auth_id().clone(), AuthId::from);
    let known = book.account(&account).is_some() && book.is_within(asked.scope(), &account);
    if !known {
        return Err(ask::bad("account", "there is no such account"));
    }
    let main = book.main_of(&account).clone();
    Ok((account, main))
}

/// Whether a path names one of the console's people.
pub(super) fn is_id(text: &str) -> bool {
    decoded(text).parse::<Uuid>().is_ok()
}

fn id_of(text: &str) -> Result<Uuid, Fault> {
    decoded(text).parse().map_err(|_| none())
}

fn none() -> Fault {
    ask::missing("there is no such user")
}

pub(super) fn not_done(why: NotDone) -> Fault {
    match why {
        NotDone::Missing => ask::missing("there is none of that id"),
        NotDone::Changed => ask::changed(),
        NotDone::Bad(field, why) => ask::bad(field, &why),
        NotDone::Conflict(code, why) => ask::conflict(code, why),
        NotDone::Busy => {
            let why = "too many passwords are being checked: try again in a second";
            Box::new(error::json(StatusCode::TOO_MANY_REQUESTS, "busy", why, None))
        }
        NotDone::Store(error) => ask::store("write about people")(error),
    }
}
