//! The page of people and API keys, for owners. The number API creates them (`users`, `api-keys`).
//! Invitation links and secrets are shown once, on the page after the form (`once`).

use askama::Template;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::account::{AccountName, account_names};
use super::auth::{SubmittedForm, Visitor};
use super::page::{Page, bad_form, bad_query, forbidden, respond};
use super::{App, Console, once};

/// A user in the number API.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct User {
    id: String,
    name: String,
    full_name: String,
    role: String,
    invited: bool,
    in_configuration: bool,
    account: String,
    #[serde(skip)]
    is_self: bool,
}

#[derive(Deserialize)]
struct Key {
    id: String,
    name: String,
    role: String,
    ending: String,
    account: String,
}

#[derive(Template)]
#[template(path = "people.html")]
struct PeoplePage {
    page: Page,
    users: Vec<User>,
    keys: Vec<Key>,
    /// The accounts that people and keys can belong to. Empty if there is only one.
    accounts: Vec<AccountName>,
    result: FormResult,
}

impl PeoplePage {
    /// The name of an account, if there are several. A subaccount that was deleted has only its id.
    fn account<'a>(&'a self, id: &'a str) -> Option<&'a str> {
        let found = self.accounts.iter().find(|one| one.id == id).map_or(id, |one| &*one.name);
        (!self.accounts.is_empty()).then_some(found)
    }
}

/// The fields of the form that invites a person.
#[derive(Default)]
struct Invitation {
    full_name: String,
    name: String,
    role: String,
    account: String,
}

/// Results of a form that are shown above the lists.
#[derive(Default, Deserialize, Serialize)]
struct FormResult {
    /// Link of a new invitation, and the person's name.
    link: String,
    link_for: String,
    /// Whether the link replaces an earlier one.
    again: bool,
    /// Secret of a new API key.
    secret: String,
    wrong: String,
    /// The fields of a refused invitation.
    #[serde(skip)]
    invited: Invitation,
}

/// Number of people, and of keys, from which on the page shows no more.
const LISTED_MAX: usize = 1_000;

async fn render_page(
    console: &Console,
    visitor: &Visitor,
    status: StatusCode,
    result: FormResult,
) -> Response {
    if !visitor.is_owner() {
        return forbidden(console, visitor);
    }
    let users = visitor.items_of_pages(console, "/api/v1/users/?limit=200", LISTED_MAX, |_| ());
    let mut users: Vec<User> = users.await;
    for user in &mut users {
        user.is_self = user.id == visitor.person.user.id.to_string();
    }
    let keys = visitor.items_of_pages(console, "/api/v1/api-keys/?limit=200", LISTED_MAX, |_| ());
    let keys = keys.await;
    let page = visitor.page(console, visitor.lang().t("nav.people"), "people").listening("people");
    // A live update would remove what is shown once.
    let once = !result.link.is_empty() || !result.secret.is_empty() || !result.wrong.is_empty();
    let page = if once { page.listening("") } else { page };
    let mut accounts = account_names(console, visitor);
    // A subaccount has only its own people, and a main account without subaccounts, too.
    if visitor.person.user.account != visitor.person.user.main_account || accounts.len() < 2 {
        accounts.clear();
    }
    respond(status, &PeoplePage { page, users, keys, accounts, result })
}

pub(super) async fn page(State(console): App, headers: HeaderMap, visitor: Visitor) -> Response {
    if let Err(unreadable) = visitor.query.check_names(&[]) {
        return bad_query(&console, &visitor, &unreadable);
    }
    match once::take(&console, &visitor, &headers) {
        Some(result) => {
            let page = render_page(&console, &visitor, StatusCode::OK, result).await;
            once::taken(&console, page)
        }
        None => render_page(&console, &visitor, StatusCode::OK, FormResult::default()).await,
    }
}

pub(super) async fn create_user(State(console): App, submitted: SubmittedForm) -> Response {
    let SubmittedForm { visitor, form } = submitted;
    let body = json!({
        "name": form.get("name"),
        "fullName": form.get("full_name"),
        "role": form.get("role"),
        "account": form.some("account"),
    });
    let answer = visitor.ask(&console, Method::POST, "/api/v1/users/", Some(&body)).await;
    if !answer.is_ok() {
        let field = |name: &str| form.get(name).to_owned();
        let invited = Invitation {
            full_name: field("full_name"),
            name: field("name"),
            role: field("role"),
            account: field("account"),
        };
        let result = FormResult { invited, ..refused(&visitor, &answer) };
        return render_page(&console, &visitor, answer.status, result).await;
    }
    redirect_or_render(&console, &visitor, &answer, |body| FormResult {
        link: text(body, "invitation"),
        link_for: text(body, "fullName"),
        ..FormResult::default()
    })
    .await
}

/// Handles an action on a user. The field `do` is `role`, `invite`, `sign-out` or `remove`.
pub(super) async fn change_user(
    State(console): App,
    Path(id): Path<String>,
    submitted: SubmittedForm,
) -> Response {
    let SubmittedForm { visitor, form } = submitted;
    let Ok(id) = id.parse::<uuid::Uuid>() else { return super::page::missing(&console, &visitor) };
    let one = format!("/api/v1/users/{id}/");
    let answer = match form.get("do") {
        "role" => {
            let body = json!({"role": form.get("role")});
            visitor.ask(&console, Method::PATCH, &one, Some(&body)).await
        }
        "invite" => visitor.ask(&console, Method::POST, &format!("{one}invite/"), None).await,
        "sign-out" => visitor.ask(&console, Method::POST, &format!("{one}sign-out/"), None).await,
        "remove" => visitor.ask(&console, Method::DELETE, &one, None).await,
        _ => return bad_form(&console, &visitor, "do"),
    };
    if form.get("do") == "invite" {
        return redirect_or_render(&console, &visitor, &answer, |body| FormResult {
            link: text(body, "invitation"),
            link_for: text(body, "fullName"),
            again: true,
            ..FormResult::default()
        })
        .await;
    }
    redirect_or_render(&console, &visitor, &answer, |_| FormResult::default()).await
}

pub(super) async fn create_key(State(console): App, submitted: SubmittedForm) -> Response {
    let SubmittedForm { visitor, form } = submitted;
    let (name, role) = (form.get("name"), form.get("role"));
    let body = json!({"name": name, "role": role, "account": form.some("account")});
    let answer = visitor.ask(&console, Method::POST, "/api/v1/api-keys/", Some(&body)).await;
    redirect_or_render(&console, &visitor, &answer, |body| FormResult {
        secret: text(body, "secret"),
        ..FormResult::default()
    })
    .await
}

pub(super) async fn delete_key(
    State(console): App,
    Path(id): Path<String>,
    submitted: SubmittedForm,
) -> Response {
    let visitor = submitted.visitor;
    let Ok(id) = id.parse::<uuid::Uuid>() else { return super::page::missing(&console, &visitor) };
    let answer =
        visitor.ask(&console, Method::DELETE, &format!("/api/v1/api-keys/{id}/"), None).await;
    redirect_or_render(&console, &visitor, &answer, |_| FormResult::default()).await
}

/// Redirects to the page, which shows the result once. Renders it directly if there is an error.
async fn redirect_or_render(
    console: &Console,
    visitor: &Visitor,
    answer: &crate::api::ApiResponse,
    result: impl FnOnce(&Value) -> FormResult,
) -> Response {
    if !answer.is_ok() {
        return render_page(console, visitor, answer.status, refused(visitor, answer)).await;
    }
    let result = result(&answer.body);
    match result.link.is_empty() && result.secret.is_empty() {
        true => Redirect::to("/console/people/").into_response(),
        false => once::redirect(console, visitor, "/console/people/", &result),
    }
}

fn refused(visitor: &Visitor, answer: &crate::api::ApiResponse) -> FormResult {
    FormResult { wrong: visitor.lang().refusal(answer), ..FormResult::default() }
}

fn text(body: &Value, name: &str) -> String {
    body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}
