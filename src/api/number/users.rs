//! `/api/v1/users/`: the people who sign in to the console. Deleting one is implemented in
//! [`erasure`](super::erasure), which shares its path.
//!
//! A new person is invited by a link, which is shown once, unless the request has a password.

use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::error::ApiError;
use super::super::routes::{Operation, RequestBody, ResponseSpec};
use super::request::{ApiRequest, parse_position, position};
use super::response::{Page, Timestamp3339, created, etag, no_content, ok, ok_with_etag};
use super::route::{CHANGED, PAGING, Route, error, handler};
use super::schema::nullable;
use engine::people::{Change, Token};
use model::AuthId;
use model::{Role, Secret};
use store::User;

const COLLECTION: &str = "/api/v1/users/";
const ITEM: &str = "/api/v1/users/{user_id}/";
pub(super) const NO_USER: &str = "no such user";
const CONFLICT: ResponseSpec = error(
    409,
    "The name is taken, the person is the one who asks, or is defined in the configuration file",
);

pub(super) const ROUTES: &[Route] = &[
    Route {
        role: Role::Owner,
        handler: handler!(list),
        operation: Operation::get(
            COLLECTION,
            "users",
            "List the people who sign in to the console, newest first",
        )
        .query(PAGING)
        .responses(&[ResponseSpec::json::<UserList>(200, "A page of people")]),
    },
    Route {
        role: Role::Owner,
        handler: handler!(create),
        operation: Operation::post(
            COLLECTION,
            "createUser",
            "Create a person; without a password with an invitation link, shown only here",
        )
        .body(RequestBody::json::<NewUser>(
            "name, role; optionally fullName, waId, password, account (a subaccount)",
        ))
        .responses(&[
            ResponseSpec::json::<InvitedUser>(201, "The person, and the invitation link"),
            CONFLICT,
        ]),
    },
    Route {
        role: Role::Owner,
        handler: handler!(get),
        operation: Operation::get(ITEM, "user", "Retrieve a person of the console")
            .responses(&[ResponseSpec::json::<UserView>(200, "The person")]),
    },
    Route {
        role: Role::Owner,
        handler: handler!(change),
        operation: Operation::patch(
            ITEM,
            "changeUser",
            "Change a person; a new password ends their sessions",
        )
        .body(RequestBody::json::<UserChange>("fullName, role, waId (null to remove), password"))
        .responses(&[
            ResponseSpec::json::<UserView>(200, "The changed person"),
            CONFLICT,
            CHANGED,
        ]),
    },
    Route {
        role: Role::Owner,
        handler: handler!(invite),
        operation: Operation::post(
            "/api/v1/users/{user_id}/invite/",
            "inviteUser",
            "Replace the invitation of a person, also to reset a forgotten password",
        )
        .responses(&[ResponseSpec::json::<InvitedUser>(200, "The invitation link"), CONFLICT]),
    },
    Route {
        role: Role::Owner,
        handler: handler!(sign_out),
        operation: Operation::post(
            "/api/v1/users/{user_id}/sign-out/",
            "signOutUser",
            "End all sessions of a person",
        )
        .responses(&[ResponseSpec::empty(204, "The sessions are ended")]),
    },
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

/// A person who can sign in to the console.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = User, examples(json!({"id": "3e0f5c6a-7c55-4c0b-8d7e-2f1a9b8c7d60", "name": "asha", "fullName": "Asha Verma", "role": "admin", "waId": null, "account": "MAXXXXXXXXXXXXXXXXXX", "invited": false, "inConfiguration": false, "createdAt": "2026-11-21T22:50:00.000Z"})))]
struct UserView {
    #[schema(value_type = String, format = Uuid)]
    id: Uuid,
    name: String,
    full_name: String,
    role: RoleWord,
    wa_id: Option<String>,
    #[schema(value_type = String)]
    account: AuthId,
    /// Whether the person was invited and has neither set a password nor signed in with a provider.
    invited: bool,
    /// Whether the person is defined in the configuration file, where role and password are
    /// changed.
    in_configuration: bool,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp3339,
}

/// A person with their invitation.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = UserMade)]
struct InvitedUser {
    #[serde(flatten)]
    user: UserView,
    /// The link to set a password, valid once and for seven days; null if a password was given.
    invitation: Option<String>,
}

/// A page of people.
#[derive(Serialize, ToSchema)]
#[schema(as = Users)]
struct UserList {
    items: Vec<UserView>,
    next: Option<String>,
}

impl From<User> for UserView {
    fn from(user: User) -> Self {
        Self {
            id: user.id,
            name: user.name,
            full_name: user.full_name,
            role: user.role.into(),
            wa_id: user.wa_id,
            account: user.account,
            invited: user.password.is_none() && !user.is_linked,
            in_configuration: user.in_file,
            created_at: Timestamp3339(user.created),
        }
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = NewUser, examples(json!({"name": "ravi", "role": "agent", "fullName": "Ravi Iyer", "waId": "919812345678"})))]
struct NewUser {
    name: String,
    role: RoleWord,
    #[serde(default)]
    full_name: String,
    /// The person's own WhatsApp number.
    wa_id: Option<String>,
    /// The password. If absent, the response contains an invitation link.
    password: Option<String>,
    /// A subaccount. The default is the account of the request.
    account: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = UserChange, examples(json!({"role": "admin"})))]
struct UserChange {
    full_name: Option<String>,
    role: Option<RoleWord>,
    password: Option<String>,
    /// The person's own WhatsApp number; null removes it.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    wa_id: Option<Option<String>>,
}

async fn list(request: ApiRequest) -> Result<Response, ApiError> {
    let limit = request.limit()?;
    let before = request.cursor(parse_position)?;
    let users = request.api().people.users(request.scope(), before, limit + 1).await;
    let users = users.map_err(ApiError::store("list people"))?;
    let page = Page::new(users, limit, |user| position(user.created, user.id));
    let items = page.items.into_iter().map(UserView::from).collect();
    Ok(ok(&UserList { items, next: request.next_cursor(page.next) }))
}

async fn create(mut request: ApiRequest) -> Result<Response, ApiError> {
    let new: NewUser = request.json().await?;
    let (account, main_account) = account_of(&request, new.account.as_deref())?;
    let new = engine::people::NewUser {
        account,
        main_account,
        name: new.name,
        full_name: new.full_name,
        role: new.role.into(),
        wa_id: new.wa_id,
        password: new.password.map(Secret::new),
    };
    let (user, token) = request.api().people.make_user(new).await?;
    let invitation = token.map(|token| invitation_link(&request, &token));
    Ok(created(&InvitedUser { user: user.into(), invitation }))
}

async fn find(request: &ApiRequest) -> Result<User, ApiError> {
    let id = request.id("user_id", NO_USER)?;
    let user = request.api().people.user(request.scope(), id).await;
    user.map_err(ApiError::store("read a person"))?.ok_or(ApiError::NotFound(NO_USER))
}

async fn get(request: ApiRequest) -> Result<Response, ApiError> {
    Ok(ok_with_etag(&UserView::from(find(&request).await?)))
}

async fn change(mut request: ApiRequest) -> Result<Response, ApiError> {
    let body: UserChange = request.json().await?;
    let known = find(&request).await?;
    let id = known.id;
    request.check_if_match(&etag(&UserView::from(known.clone())))?;
    let change = Change {
        full_name: body.full_name,
        role: body.role.map(Role::from),
        password: body.password.map(Secret::new),
        wa_id: body.wa_id,
        seen: request.is_conditional().then(|| Box::new(known)),
    };
    let (people, asking) = (&request.api().people, request.principal.user);
    let changed = people.change(request.scope(), id, asking, change).await?;
    Ok(ok_with_etag(&UserView::from(changed)))
}

async fn invite(request: ApiRequest) -> Result<Response, ApiError> {
    let id = request.id("user_id", NO_USER)?;
    let (user, token) = request.api().people.invite(request.scope(), id).await?;
    let invitation = Some(invitation_link(&request, &token));
    Ok(ok(&InvitedUser { user: user.into(), invitation }))
}

async fn sign_out(request: ApiRequest) -> Result<Response, ApiError> {
    let user = find(&request).await?;
    let ended = request.api().people.sign_out_everywhere(user.id).await;
    ended.map_err(ApiError::store("end sessions"))?;
    Ok(no_content())
}

fn invitation_link(request: &ApiRequest, token: &Token) -> String {
    let base_url = request.api().base_url.trim_end_matches('/');
    format!("{base_url}/console/invitation/{}", token.reveal())
}

/// Returns the account in a request, with its main account. It must be in the scope. The default is
/// the account of the request.
pub(super) fn account_of(
    request: &ApiRequest,
    named: Option<&str>,
) -> Result<(AuthId, AuthId), ApiError> {
    let book = request.api().keeper.book();
    let account = named.map_or_else(|| request.scope().auth_id().clone(), AuthId::from);
    let is_known = book.account(&account).is_some() && book.is_within(request.scope(), &account);
    if !is_known {
        return Err(ApiError::bad_value("account", "no such account"));
    }
    let main = book.main_of(&account).clone();
    Ok((account, main))
}
