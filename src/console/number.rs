//! One number: the page on which it is configured, which the script opens at the side of the table. Doing is the number API's.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::agents::Choice;
use super::door::{Posted, Visitor};
use super::form::Form;
use super::numbers::{Number, assign, digits, found, whatsapp};
use super::page::{Page, failed, missing, respond};
use super::view;
use super::{App, Console};
use crate::api::ApiResponse;

/// An account that a WABA may be mapped to.
struct Owner {
    id: String,
    name: String,
    chosen: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Breaks {
    open_conversations: u64,
    live_calls: u32,
}

#[derive(Template)]
#[template(path = "number.html")]
struct Configure {
    page: Page,
    number: Number,
    /// As it is stored, where the form says something else.
    was: Number,
    agents: Vec<Choice>,
    owners: Vec<Owner>,
    /// Whose the number's WABA is.
    account: String,
    /// Other numbers that a change of the mapping is about.
    affected: Vec<String>,
    breaks: Breaks,
    /// URLs without TLS may be set: a node for development.
    insecure: bool,
    admin: bool,
    owner: bool,
    saved: bool,
    /// It was saved with agents to answer, and without one.
    nobody: bool,
    wrong: String,
    field: String,
}

impl Configure {
    fn is_wrong(&self, field: &str) -> bool {
        self.field == field
    }
}

/// What was wrong with a form, and what it said.
struct Refused {
    status: StatusCode,
    wrong: String,
    field: String,
    form: Form,
}

pub(super) async fn one(
    State(console): App,
    Path(number): Path<String>,
    visitor: Visitor,
) -> Response {
    let Some(number) = digits(&number) else { return missing(&console, &visitor) };
    configure(&console, &visitor, number, None).await
}

async fn configure(
    console: &Console,
    visitor: &Visitor,
    number: &str,
    refused: Option<Refused>,
) -> Response {
    let one = format!("/api/v1/phone-numbers/{number}/");
    let mut was = match found(console, visitor, number).await {
        Ok(number) => number,
        Err(answer) => return *answer,
    };
    // Its messages go to the agent, also where its calls go by a document still.
    if was.active_agent.is_some() {
        "agent".clone_into(&mut was.configuration_type);
    }
    let breaks = visitor.ask(console, Method::GET, &format!("{one}disconnect/"), None).await;
    let (owners, affected) = mapping(console, visitor, &was).await;
    let (status, wrong, field, now) = match refused {
        None => (StatusCode::OK, String::new(), String::new(), was.clone()),
        Some(refused) => (refused.status, refused.wrong, refused.field, over(&was, &refused.form)),
    };
    let account =
        owners.iter().find(|owner| owner.chosen).map(|owner| owner.id.clone()).unwrap_or_default();
    let page = Configure {
        page: visitor.page(console, &was.shown(), "numbers"),
        agents: whatsapp(console, visitor).await,
        insecure: console.apis.api().placer.check_url("http://example.com/").is_ok(),
        owners,
        account,
        affected,
        breaks: serde_json::from_value(breaks.body).unwrap_or_default(),
        admin: visitor.is_admin(),
        owner: visitor.is_owner(),
        saved: visitor.query.some("saved").is_some(),
        nobody: visitor.query.get("saved") == "nobody",
        number: now,
        was,
        wrong,
        field,
    };
    respond(status, &page)
}

/// Whom the number's WABA may be given to, and what else goes with it; nothing where somebody may not.
async fn mapping(
    console: &Console,
    visitor: &Visitor,
    number: &Number,
) -> (Vec<Owner>, Vec<String>) {
    let waba = number.whatsapp_business_account.as_deref().and_then(digits_of_id);
    let (Some(waba), true) = (waba, visitor.is_owner()) else { return (Vec::new(), Vec::new()) };
    let answer = visitor.ask(console, Method::GET, &format!("/api/v1/wabas/{waba}/"), None).await;
    let account = answer.body.get("account").and_then(Value::as_str).unwrap_or_default();
    let all = answer
        .body
        .get("affectedNumbers")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let others = all
        .iter()
        .filter_map(Value::as_str)
        .filter(|other| *other != number.number)
        .map(view::party);
    let book = console.apis.api().keeper.book();
    let main = &visitor.person.user.main_account;
    let subaccounts = book.subaccounts(main);
    let ids = book.account(main).into_iter().chain(subaccounts);
    let owners = ids.map(|owner| {
        let id = owner.auth_id.to_string();
        let name = match owner.auth_id == *main {
            true => visitor.lang().t("numbers.main_account").to_owned(),
            false => owner.details.name.clone(),
        };
        Owner { name, chosen: id == account, id }
    });
    let mut owners: Vec<Owner> = owners.collect();
    // By its id where it has no name, or shares it.
    let names: Vec<String> = owners.iter().map(|owner| owner.name.clone()).collect();
    for owner in &mut owners {
        match names.iter().filter(|name| **name == owner.name).count() {
            _ if owner.name.is_empty() => owner.name.clone_from(&owner.id),
            1 => {}
            _ => owner.name = format!("{} · {}", owner.name, owner.id),
        }
    }
    (owners, others.collect())
}

fn digits_of_id(id: &str) -> Option<&str> {
    Some(id).filter(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// A number as a form has it.
fn over(was: &Number, form: &Form) -> Number {
    let text = |name: &str| form.get(name).to_owned();
    let url = |name: &str| Some(text(name));
    Number {
        alias: text("alias"),
        configuration_type: text("configurationType"),
        webhook_url: url("webhookUrl"),
        calling_enabled: form.some("callingEnabled").is_some(),
        answer_url: url("answerUrl"),
        answer_method: text("answerMethod"),
        fallback_url: url("fallbackUrl"),
        fallback_method: text("fallbackMethod"),
        hangup_url: url("hangupUrl"),
        hangup_method: text("hangupMethod"),
        active_agent: Some(text("agent")),
        ..was.clone()
    }
}

/// What a person has changed on the page: each field comes with what it was when they saw it.
fn changes(form: &Form) -> Map<String, Value> {
    const TEXTS: &[&str] =
        &["alias", "configurationType", "answerMethod", "fallbackMethod", "hangupMethod"];
    const URLS: &[&str] = &["webhookUrl", "answerUrl", "fallbackUrl", "hangupUrl"];
    let differs = |name: &str| form.get(name) != form.get(&format!("was.{name}"));
    let mut change = Map::new();
    for name in TEXTS.iter().filter(|name| differs(name)) {
        change.insert((*name).to_owned(), form.get(name).into());
    }
    for name in URLS.iter().filter(|name| differs(name)) {
        change.insert((*name).to_owned(), form.some(name).map_or(Value::Null, Value::from));
    }
    if differs("callingEnabled") {
        change.insert("callingEnabled".to_owned(), form.some("callingEnabled").is_some().into());
    }
    change
}

/// The form is judged as a whole (S0.8), also where neither the type nor the URL was changed: the API judges changes.
fn lacks_webhook(form: &Form) -> bool {
    form.get("configurationType") == "webhook" && form.some("webhookUrl").is_none()
}

/// Agents are to answer, and none is chosen.
fn is_nobodys(form: &Form) -> bool {
    form.get("configurationType") == "agent" && form.some("agent").is_none()
}

/// `do` is `save`, `disconnect` or `reconnect`.
pub(super) async fn change(
    State(console): App,
    Path(number): Path<String>,
    posted: Posted,
) -> Response {
    let Posted { visitor, form } = posted;
    let Some(number) = digits(&number) else { return missing(&console, &visitor) };
    let one = format!("/api/v1/phone-numbers/{number}/");
    let what = form.get("do").to_owned();
    if what == "save" && visitor.is_admin() && lacks_webhook(&form) {
        let wrong = visitor.lang().t("numbers.webhook_missing").to_owned();
        let refused = Refused {
            status: StatusCode::BAD_REQUEST,
            wrong,
            field: "webhookUrl".to_owned(),
            form,
        };
        return configure(&console, &visitor, number, Some(refused)).await;
    }
    let answer = match what.as_str() {
        "save" => save(&console, &visitor, number, &form).await,
        "disconnect" | "reconnect" => {
            visitor.ask(&console, Method::POST, &format!("{one}{what}/"), None).await
        }
        _ => return failed(&console, &visitor, StatusCode::BAD_REQUEST, ""),
    };
    if answer.is_ok() {
        let to = match what.as_str() {
            "disconnect" => "/console/numbers/".to_owned(),
            _ if is_nobodys(&form) => format!("/console/numbers/{number}/?saved=nobody"),
            _ => format!("/console/numbers/{number}/?saved=1"),
        };
        return Redirect::to(&to).into_response();
    }
    let (wrong, field) =
        (answer.message().to_owned(), answer.field().unwrap_or_default().to_owned());
    if what != "save" {
        return failed(&console, &visitor, answer.status, &wrong);
    }
    configure(
        &console,
        &visitor,
        number,
        Some(Refused { status: answer.status, wrong, field, form }),
    )
    .await
}

/// Settings first, then who answers, at last whose the number is: after that the settings may be another account's to change.
async fn save(console: &Console, visitor: &Visitor, number: &str, form: &Form) -> ApiResponse {
    let differs = |name: &str| form.get(name) != form.get(&format!("was.{name}"));
    let body = Value::Object(changes(form));
    let path = format!("/api/v1/phone-numbers/{number}/");
    let mut answer = visitor.ask(console, Method::PATCH, &path, Some(&body)).await;
    if answer.is_ok() && differs("agent") {
        answer = assign(console, visitor, number, form.get("agent")).await;
    }
    let waba = digits_of_id(form.get("waba"));
    if let (true, Some(waba), true) = (answer.is_ok(), waba, differs("account")) {
        let body = json!({"account": form.get("account")});
        answer = visitor
            .ask(console, Method::PATCH, &format!("/api/v1/wabas/{waba}/"), Some(&body))
            .await;
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_person_changed_is_asked_for() {
        let form = Form::read(
            b"alias=New&was.alias=Old&webhookUrl=&was.webhookUrl=https%3A%2F%2Fa.example&answerMethod=POST&was.answerMethod=POST\
              &callingEnabled=on&was.callingEnabled=&answerUrl=https%3A%2F%2Fb.example&was.answerUrl=https%3A%2F%2Fb.example",
        );
        let change = Value::Object(changes(&form));
        assert_eq!(change, json!({"alias": "New", "webhookUrl": null, "callingEnabled": true}));
        for (form, lacks, nobodys) in [
            ("configurationType=webhook&webhookUrl=&was.webhookUrl=", true, false),
            ("configurationType=webhook&webhookUrl=https%3A%2F%2Fa.example", false, false),
            ("configurationType=agent&webhookUrl=&agent=", false, true),
            ("configurationType=agent&agent=3f0c2f1a-6a1e-4f0e-9a2b-5d7f3f0a9b11", false, false),
        ] {
            let form = Form::read(form.as_bytes());
            assert_eq!((lacks_webhook(&form), is_nobodys(&form)), (lacks, nobodys));
        }
        assert_eq!(
            (digits("918035737458"), digits("../users"), digits("")),
            (Some("918035737458"), None, None)
        );
    }
}
