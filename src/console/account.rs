//! The page with the access data of the APIs: the account's id, its auth token, and the base URLs,
//! with examples. Owners reveal and replace the token.

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::auth::{SubmittedForm, Visitor};
use super::page::{Page, bad_form, forbidden, respond};
use super::view::When;
use super::{App, Console, once};
use model::Secret;

#[derive(Template)]
#[template(path = "account.html")]
struct AccountPage {
    page: Page,
    base_url: String,
    auth_id: String,
    /// The sign-in page of this account. Empty if the node has only one main account.
    sign_in_url: String,
    /// A number of the account for the examples, with calling enabled if one has it.
    number: String,
    answer_url: &'static str,
    is_owner: bool,
    result: FormResult,
    /// The end of the time in which the previous token is valid, if it was replaced.
    previous_until: Option<When>,
}

/// Result of a form.
#[derive(Default, Deserialize, Serialize)]
struct FormResult {
    /// The auth token. Empty unless the person has revealed it.
    token: String,
    /// The end of the time in which the previous token is valid. Empty unless it was replaced.
    previous_until: String,
    wrong: String,
}

/// A main account or subaccount, for choices and lists.
pub(super) struct AccountName {
    pub(super) id: String,
    pub(super) name: String,
}

/// Returns the main account of the visitor and its subaccounts. The names differ.
pub(super) fn account_names(console: &Console, visitor: &Visitor) -> Vec<AccountName> {
    let book = console.apis.api().keeper.book();
    let main = &visitor.person.user.main_account;
    let accounts = book.account(main).into_iter().chain(book.subaccounts(main));
    let named = accounts.map(|account| AccountName {
        id: account.auth_id.to_string(),
        name: match account.auth_id == *main {
            true => visitor.lang().t("numbers.main_account").to_owned(),
            false => account.details.name.clone(),
        },
    });
    let mut named: Vec<AccountName> = named.collect();
    let names: Vec<String> = named.iter().map(|one| one.name.clone()).collect();
    for one in &mut named {
        match names.iter().filter(|name| **name == one.name).count() {
            _ if one.name.is_empty() => one.name.clone_from(&one.id),
            1 => {}
            _ => one.name = format!("{} · {}", one.name, one.id),
        }
    }
    named
}

/// The path of the page.
const PATH: &str = "/console/account/";

pub(super) async fn page(State(console): App, headers: HeaderMap, visitor: Visitor) -> Response {
    match once::take(&console, &visitor, &headers) {
        Some(result) => {
            once::taken(&console, render_page(&console, &visitor, StatusCode::OK, result))
        }
        None => render_page(&console, &visitor, StatusCode::OK, FormResult::default()),
    }
}

fn render_page(
    console: &Console,
    visitor: &Visitor,
    status: StatusCode,
    result: FormResult,
) -> Response {
    if !visitor.is_admin() {
        return forbidden(console, visitor);
    }
    let api = console.apis.api();
    let book = api.keeper.book();
    let numbers = book.numbers(&visitor.person.scope());
    let calling = numbers.iter().find(|number| number.set.calling_enabled);
    let number = calling.or(numbers.first()).map(|number| number.number.to_string());
    let account = &visitor.person.user.account;
    let sign_in_url = if book.has_several_main_accounts() {
        format!("{}/console/sign-in?account={account}", api.base_url)
    } else {
        String::new()
    };
    let page = AccountPage {
        page: visitor.page(console, visitor.lang().t("nav.account"), "account"),
        base_url: api.base_url.clone(),
        auth_id: account.to_string(),
        sign_in_url,
        number: number.unwrap_or_else(|| "918000000000".to_owned()),
        answer_url: "https://app.example.com/answer",
        is_owner: visitor.is_owner(),
        previous_until: Some(&*result.previous_until)
            .filter(|until| !until.is_empty())
            .map(When::read),
        result,
    };
    respond(status, &page)
}

/// Handles an action on the auth token. The field `do` is `reveal`, `rotate` or `end`.
pub(super) async fn act(State(console): App, submitted: SubmittedForm) -> Response {
    let SubmittedForm { visitor, form } = submitted;
    if !visitor.is_owner() {
        return forbidden(&console, &visitor);
    }
    let answer = match form.get("do") {
        "reveal" => {
            let token = token(&console, &visitor);
            if !token.is_empty() {
                let actor = (&visitor.person.user, visitor.from);
                let nothing = (Value::Null, Value::Null);
                console.apis.record(actor, "revealAuthToken", "account/token", nothing).await;
            }
            let unreadable = || visitor.lang().t("account.token_unreadable").to_owned();
            let wrong = if token.is_empty() { unreadable() } else { String::new() };
            let result = FormResult { token, wrong, ..FormResult::default() };
            return once::redirect(&console, &visitor, PATH, &result);
        }
        "rotate" => {
            visitor.ask(&console, Method::POST, "/api/v1/account/token/", Some(&json!({}))).await
        }
        "end" => {
            visitor.ask(&console, Method::DELETE, "/api/v1/account/token/previous/", None).await
        }
        _ => return bad_form(&console, &visitor, "do"),
    };
    if !answer.is_ok() {
        let result = FormResult { wrong: answer.message().to_owned(), ..FormResult::default() };
        return render_page(&console, &visitor, answer.status, result);
    }
    let text =
        |name: &str| answer.body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (token, previous_until) = (text("authToken"), text("previousUntil"));
    if token.is_empty() {
        return Redirect::to(PATH).into_response();
    }
    let result = FormResult { token, previous_until, wrong: String::new() };
    once::redirect(&console, &visitor, PATH, &result)
}

/// The auth token of the visitor's account.
fn token(console: &Console, visitor: &Visitor) -> String {
    let book = console.apis.api().keeper.book();
    let account = book.account(&visitor.person.user.account);
    account
        .and_then(|account| account.accepted_tokens().first())
        .map_or("", Secret::reveal)
        .to_owned()
}
