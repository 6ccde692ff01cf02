//! Numbers: the table, what is done with one from its row, and the page on which one is configured. Doing is the number API's.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::agents::{Choice, choices};
use super::door::{Posted, Visitor};
use super::form::Form;
use super::page::{Page, failed, missing, respond};
use super::view;
use super::{App, Console};
use crate::api::Answered;

/// A number as the API has it.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Number {
    number: String,
    country_name: String,
    alias: String,
    whatsapp_phone_number_id: String,
    whatsapp_business_account: Option<String>,
    verified_name: String,
    platform_type: String,
    quality_rating: String,
    registration: Registration,
    token_invalid: bool,
    configuration_type: String,
    webhook_url: Option<String>,
    calling_enabled: bool,
    answer_url: Option<String>,
    answer_method: String,
    fallback_url: Option<String>,
    fallback_method: String,
    hangup_url: Option<String>,
    hangup_method: String,
    active_agent: Option<String>,
    connected: bool,
}

#[derive(Clone, Deserialize)]
struct Registration {
    state: String,
    reason: Option<String>,
}

impl Number {
    fn shown(&self) -> String {
        view::party(&self.number)
    }

    fn is_cloud(&self) -> bool {
        self.platform_type == "CLOUD_API"
    }

    fn has_agent(&self, id: &str) -> bool {
        self.active_agent.as_deref() == Some(id)
    }

    /// How its quality looks.
    fn tone(&self) -> &'static str {
        match self.quality_rating.to_ascii_lowercase().as_str() {
            "green" | "high" => "good",
            "yellow" | "medium" => "waiting",
            "red" | "low" => "bad",
            _ => "",
        }
    }
}

#[derive(Deserialize)]
struct List {
    items: Vec<Number>,
    next: Option<String>,
}

#[derive(Template)]
#[template(path = "numbers.html")]
struct Numbers {
    page: Page,
    numbers: Vec<Number>,
    agents: Vec<Choice>,
    next: String,
    q: String,
    admin: bool,
    owner: bool,
    done: String,
    wrong: String,
}

impl Numbers {
    fn agent_of(&self, number: &Number) -> String {
        let found = self.agents.iter().find(|agent| number.has_agent(&agent.id));
        found.map(|agent| agent.name.clone()).unwrap_or_default()
    }
}

pub(super) async fn page(State(console): App, visitor: Visitor) -> Response {
    list(&console, &visitor, StatusCode::OK, String::new()).await
}

async fn list(console: &Console, visitor: &Visitor, status: StatusCode, wrong: String) -> Response {
    let path = format!("/api/v1/phone-numbers/{}", visitor.query.only(&["q", "cursor"]));
    let answer = visitor.ask(console, Method::GET, &path, None).await;
    let Ok(list) = serde_json::from_value::<List>(answer.body.clone()) else {
        return failed(console, visitor, answer.status, answer.message());
    };
    let agents = choices(console, visitor).await;
    let live = if wrong.is_empty() { "number agent" } else { "" };
    let done = match visitor.query.get("done") {
        "sync" => "numbers.synced",
        "register" => "numbers.registering",
        _ => "",
    };
    let numbers = Numbers {
        page: visitor.page(console, visitor.lang().t("nav.numbers"), "numbers").listening(live),
        next: list.next.map(|cursor| visitor.query.with("cursor", Some(&cursor))).unwrap_or_default(),
        numbers: list.items,
        agents: agents.into_iter().filter(|agent| agent.whatsapp).collect(),
        q: visitor.query.get("q").to_owned(),
        admin: visitor.is_admin(),
        owner: visitor.is_owner(),
        done: if done.is_empty() { String::new() } else { visitor.lang().t(done).to_owned() },
        wrong,
    };
    respond(status, &numbers)
}

/// Connects a number by its credentials.
pub(super) async fn connect(State(console): App, posted: Posted) -> Response {
    let Posted { visitor, form } = posted;
    let mut body = json!({
        "displayName": form.get("display_name"),
        "whatsappPhoneNumberId": form.get("phone_number_id"),
        "accessToken": form.get("token"),
    });
    put(&mut body, "whatsappBusinessAccount", form.some("waba"));
    put(&mut body, "number", form.some("number"));
    put(&mut body, "assignedAgent", form.some("agent"));
    let answer = visitor.ask(&console, Method::POST, "/api/v1/phone-numbers/", Some(&body)).await;
    match answer.is_ok() {
        true => Redirect::to("/console/numbers/").into_response(),
        false => list(&console, &visitor, answer.status, answer.message().to_owned()).await,
    }
}

fn put(body: &mut Value, name: &str, value: Option<&str>) {
    if let (Some(members), Some(value)) = (body.as_object_mut(), value) {
        members.insert(name.to_owned(), value.into());
    }
}

/// A number of a path; digits, so that it is one part of the API's.
fn digits(number: &str) -> Option<&str> {
    let fits = (5..=15).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit());
    fits.then_some(number)
}

async fn assign(console: &Console, visitor: &Visitor, number: &str, agent: &str) -> Answered {
    let one = format!("/api/v1/phone-numbers/{number}/");
    let (what, body) = match agent {
        "" => ("disconnect-agent", json!({})),
        agent => ("connect-agent", json!({"agent": agent})),
    };
    visitor.ask(console, Method::POST, &format!("{one}{what}/"), Some(&body)).await
}

/// What is done with one from the table: `do` is `agent`, `register` or `sync`.
pub(super) async fn act(State(console): App, Path(number): Path<String>, posted: Posted) -> Response {
    let Posted { visitor, form } = posted;
    let Some(number) = digits(&number) else { return missing(&console, &visitor) };
    let one = format!("/api/v1/phone-numbers/{number}/");
    let what = form.get("do");
    let answer = match what {
        "agent" => assign(&console, &visitor, number, form.get("agent")).await,
        "register" => {
            let body = json!({"pin": form.get("pin")});
            visitor.ask(&console, Method::POST, &format!("{one}register/"), Some(&body)).await
        }
        "sync" => visitor.ask(&console, Method::POST, &format!("{one}sync/"), None).await,
        _ => return failed(&console, &visitor, StatusCode::BAD_REQUEST, ""),
    };
    match answer.is_ok() {
        true => Redirect::to(&format!("/console/numbers/?done={what}")).into_response(),
        false => list(&console, &visitor, answer.status, answer.message().to_owned()).await,
    }
}

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
    /// Other numbers that a change of the mapping is about.
    affected: Vec<String>,
    breaks: Breaks,
    admin: bool,
    saved: bool,
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

pub(super) async fn one(State(console): App, Path(number): Path<String>, visitor: Visitor) -> Response {
    let Some(number) = digits(&number) else { return missing(&console, &visitor) };
    configure(&console, &visitor, number, None).await
}

async fn configure(console: &Console, visitor: &Visitor, number: &str, refused: Option<Refused>) -> Response {
    let one = format!("/api/v1/phone-numbers/{number}/");
    let answer = visitor.ask(console, Method::GET, &one, None).await;
    let Ok(was) = serde_json::from_value::<Number>(answer.body.clone()) else {
        return match answer.status {
            StatusCode::NOT_FOUND => missing(console, visitor),
            status => failed(console, visitor, status, answer.message()),
        };
    };
    let breaks = visitor.ask(console, Method::GET, &format!("{one}disconnect/"), None).await;
    let (owners, affected) = mapping(console, visitor, &was).await;
    let (status, wrong, field, now) = match refused {
        None => (StatusCode::OK, String::new(), String::new(), was.clone()),
        Some(refused) => (refused.status, refused.wrong, refused.field, over(&was, &refused.form)),
    };
    let page = Configure {
        page: visitor.page(console, &was.shown(), "numbers"),
        agents: choices(console, visitor).await.into_iter().filter(|agent| agent.whatsapp).collect(),
        owners,
        affected,
        breaks: serde_json::from_value(breaks.body).unwrap_or_default(),
        admin: visitor.is_admin(),
        saved: visitor.query.some("saved").is_some(),
        number: now,
        was,
        wrong,
        field,
    };
    respond(status, &page)
}

/// Whom the number's WABA may be given to, and what else goes with it; nothing where somebody may not.
async fn mapping(console: &Console, visitor: &Visitor, number: &Number) -> (Vec<Owner>, Vec<String>) {
    let waba = number.whatsapp_business_account.as_deref().and_then(digits_of_id);
    let (Some(waba), true) = (waba, visitor.is_owner()) else { return (Vec::new(), Vec::new()) };
    let answer = visitor.ask(console, Method::GET, &format!("/api/v1/wabas/{waba}/"), None).await;
    let account = answer.body.get("account").and_then(Value::as_str).unwrap_or_default();
    let all = answer.body.get("affectedNumbers").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let others = all.iter().filter_map(Value::as_str).filter(|other| *other != number.number).map(view::party);
    let book = console.desk.api().keeper.book();
    let main = &visitor.person.user.main_account;
    let subaccounts = book.subaccounts(main);
    let ids = book.account(main).into_iter().chain(subaccounts);
    let owners = ids.map(|owner| {
        let id = owner.auth_id.to_string();
        Owner { name: owner.details.name.clone(), chosen: id == account, id }
    });
    (owners.collect(), others.collect())
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
    const TEXTS: &[&str] = &["alias", "configurationType", "answerMethod", "fallbackMethod", "hangupMethod"];
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

/// `do` is `save`, `map`, `disconnect` or `reconnect`.
pub(super) async fn change(State(console): App, Path(number): Path<String>, posted: Posted) -> Response {
    let Posted { visitor, form } = posted;
    let Some(number) = digits(&number) else { return missing(&console, &visitor) };
    let one = format!("/api/v1/phone-numbers/{number}/");
    let what = form.get("do").to_owned();
    let answer = match what.as_str() {
        "save" => save(&console, &visitor, number, &form).await,
        "map" => {
            let Some(waba) = digits_of_id(form.get("waba")) else { return missing(&console, &visitor) };
            let body = json!({"account": form.get("account")});
            visitor.ask(&console, Method::PATCH, &format!("/api/v1/wabas/{waba}/"), Some(&body)).await
        }
        "disconnect" | "reconnect" => visitor.ask(&console, Method::POST, &format!("{one}{what}/"), None).await,
        _ => return failed(&console, &visitor, StatusCode::BAD_REQUEST, ""),
    };
    if answer.is_ok() {
        let to = match what.as_str() {
            "disconnect" => "/console/numbers/".to_owned(),
            _ => format!("/console/numbers/{number}/?saved=1"),
        };
        return Redirect::to(&to).into_response();
    }
    let (wrong, field) = (answer.message().to_owned(), answer.field().unwrap_or_default().to_owned());
    if what != "save" {
        return failed(&console, &visitor, answer.status, &wrong);
    }
    configure(&console, &visitor, number, Some(Refused { status: answer.status, wrong, field, form })).await
}

async fn save(console: &Console, visitor: &Visitor, number: &str, form: &Form) -> Answered {
    let body = Value::Object(changes(form));
    let answer = visitor.ask(console, Method::PATCH, &format!("/api/v1/phone-numbers/{number}/"), Some(&body)).await;
    match answer.is_ok() && form.get("agent") != form.get("was.agent") {
        true => assign(console, visitor, number, form.get("agent")).await,
        false => answer,
    }
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
        assert_eq!((digits("918035737458"), digits("../users"), digits("")), (Some("918035737458"), None, None));
    }
}
