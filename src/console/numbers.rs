//! The table of numbers and the actions of a row. Each action is a page, which the script opens as
//! a dialog. Changes go through the number API; the module `number` has the configuration page.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::agents::{Choice, choices};
use super::auth::{SubmittedForm, Visitor};
use super::form::Form;
use super::number_view::Number;
use super::page::{Page, bad_form, bad_query, failed, forbidden, missing, object, respond};
use super::view;
use super::{App, Console};
use crate::api::ApiResponse;
use model::E164;

#[derive(Deserialize)]
struct List {
    items: Vec<Number>,
    next: Option<String>,
}

#[derive(Template)]
#[template(path = "numbers.html")]
struct NumbersPage {
    page: Page,
    numbers: Vec<Number>,
    agents: Vec<Choice>,
    next: String,
    q: String,
    /// Whether to list the hidden numbers.
    hidden: bool,
    /// Whether there are hidden numbers.
    has_hidden: bool,
    admin: bool,
    owner: bool,
    /// Whether Meta's sign-up dialog is available.
    can_sign_up: bool,
    /// Whether numbers were just added by sign-up.
    signed_up: bool,
    done: String,
    wrong: String,
}

impl NumbersPage {
    /// The name of the number's agent. Empty if it has none.
    fn agent_of(&self, number: &Number) -> &str {
        match self.agents.iter().find(|agent| number.has_agent(&agent.id)) {
            Some(agent) => &agent.name,
            None if number.active_agent.is_some() => self.page.t("numbers.unlisted_agent"),
            None => "",
        }
    }
}

/// The parameters of the list.
const FIELDS: &[&str] = &["q", "cursor", "hidden"];

pub(super) async fn page(State(console): App, visitor: Visitor) -> Response {
    if let Err(unreadable) = visitor.query.check_names(&[FIELDS, &["done"]]) {
        return bad_query(&console, &visitor, &unreadable);
    }
    list(&console, &visitor, StatusCode::OK, String::new()).await
}

async fn list(console: &Console, visitor: &Visitor, status: StatusCode, wrong: String) -> Response {
    let path = format!("/api/v1/phone-numbers/{}", visitor.query.only(FIELDS));
    let answer = visitor.ask(console, Method::GET, &path, None).await;
    let Ok(list) = serde_json::from_value::<List>(answer.body.clone()) else {
        return failed(console, visitor, answer.status, answer.message());
    };
    let agents = choices(console, visitor).await;
    let live = if wrong.is_empty() { "number agent" } else { "" };
    let done = match visitor.query.get("done") {
        "sync" => "numbers.synced",
        "register" => "numbers.registering",
        "agent" => "numbers.agent_done",
        "active" => "numbers.active_done",
        "inactive" => "numbers.inactive_done",
        "connect" => "numbers.connect_done",
        "hide" => "numbers.hide_done",
        "sign-up" => "numbers.sign_up_done",
        _ => "",
    };
    let numbers = NumbersPage {
        page: visitor.page(console, visitor.lang().t("nav.numbers"), "numbers").listening(live),
        next: list
            .next
            .map(|cursor| visitor.query.with("cursor", Some(&cursor)))
            .unwrap_or_default(),
        numbers: list.items,
        agents,
        can_sign_up: console.sign_up.is_some(),
        signed_up: done == "numbers.sign_up_done",
        q: visitor.query.get("q").to_owned(),
        hidden: visitor.query.get("hidden") == "true",
        has_hidden: has_hidden(console, visitor),
        admin: visitor.is_admin(),
        owner: visitor.is_owner(),
        done: if done.is_empty() { String::new() } else { visitor.lang().t(done).to_owned() },
        wrong,
    };
    respond(status, &numbers)
}

fn has_hidden(console: &Console, visitor: &Visitor) -> bool {
    let book = console.apis.api().keeper.book();
    book.numbers(&visitor.person.scope()).iter().any(|number| number.set.hidden)
}

#[derive(Template)]
#[template(path = "number_new.html")]
struct ConnectPage {
    page: Page,
    form: Form,
    agents: Vec<Choice>,
    wrong: String,
}

async fn connect_page(
    console: &Console,
    visitor: &Visitor,
    status: StatusCode,
    form: Form,
    wrong: String,
) -> Response {
    if !visitor.is_owner() {
        return forbidden(console, visitor);
    }
    let page = visitor.page(console, visitor.lang().t("numbers.connect"), "numbers");
    respond(status, &ConnectPage { page, form, agents: whatsapp(console, visitor).await, wrong })
}

/// The agents for messages.
async fn whatsapp(console: &Console, visitor: &Visitor) -> Vec<Choice> {
    choices(console, visitor).await.into_iter().filter(|agent| agent.whatsapp).collect()
}

/// The agents for the messages of a number, and the number's agent if it is none of them: it may be
/// an agent of the main account, or for calls only. Saving an unchanged form would disconnect it
/// otherwise.
pub(super) async fn agents_of(
    console: &Console,
    visitor: &Visitor,
    number: &Number,
) -> Vec<Choice> {
    let mut agents = choices(console, visitor).await;
    agents.retain(|agent| agent.whatsapp || number.has_agent(&agent.id));
    if let Some(id) = &number.active_agent
        && !agents.iter().any(|agent| agent.id == *id)
    {
        let name = visitor.lang().t("numbers.unlisted_agent").to_owned();
        agents.push(Choice { id: id.clone(), name, whatsapp: true, voice: false });
    }
    agents
}

pub(super) async fn new_number(State(console): App, visitor: Visitor) -> Response {
    connect_page(&console, &visitor, StatusCode::OK, Form::default(), String::new()).await
}

/// Connects a number with its credentials.
pub(super) async fn connect(State(console): App, submitted: SubmittedForm) -> Response {
    let SubmittedForm { visitor, form } = submitted;
    let mut body = json!({
        "displayName": form.get("display_name"),
        "whatsappPhoneNumberId": form.get("phone_number_id"),
        "accessToken": form.get("token"),
        "active": form.some("active").is_some(),
    });
    put(&mut body, "whatsappBusinessAccount", form.some("waba"));
    put(&mut body, "number", form.some("number"));
    put(&mut body, "assignedAgent", form.some("agent"));
    let answer = visitor.ask(&console, Method::POST, "/api/v1/phone-numbers/", Some(&body)).await;
    match answer.is_ok() {
        true => Redirect::to("/console/numbers/?done=connect").into_response(),
        false => {
            let wrong = visitor.lang().refusal(&answer);
            connect_page(&console, &visitor, answer.status, form, wrong).await
        }
    }
}

fn put(body: &mut Value, name: &str, value: Option<&str>) {
    if let (Some(members), Some(value)) = (body.as_object_mut(), value) {
        members.insert(name.to_owned(), value.into());
    }
}

/// Alias and state of a number that other pages mention.
#[derive(Default)]
pub(super) struct NumberLabel {
    pub(super) alias: String,
    /// Whether the agent is paused for this number.
    pub(super) inactive: bool,
}

pub(super) fn number_label(console: &Console, visitor: &Visitor, number: &str) -> NumberLabel {
    let book = console.apis.api().keeper.book();
    let number = E164::parse(number).ok();
    let entry = number.and_then(|number| book.number(&visitor.person.scope(), &number));
    entry
        .map(|entry| NumberLabel { alias: entry.set.alias.clone(), inactive: entry.set.inactive })
        .unwrap_or_default()
}

/// A number with its alias.
pub(super) fn number_with_alias(console: &Console, visitor: &Visitor, number: &str) -> String {
    view::with_alias(&number_label(console, visitor, number).alias, number)
}

/// Validates a number in a path. It must consist of digits, so that it is one segment of the API
/// path.
pub(super) fn digits(number: &str) -> Option<&str> {
    let fits = (5..=15).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit());
    fits.then_some(number)
}

pub(super) async fn assign(
    console: &Console,
    visitor: &Visitor,
    number: &str,
    form: &Form,
) -> ApiResponse {
    let one = format!("/api/v1/phone-numbers/{number}/");
    let existing = form.some("existing").is_some();
    // Saving the dialog unchanged must not take the conversations from a webhook.
    if form.get("agent").is_empty() && form.get("was") == "none" && !existing {
        return visitor.ask(console, Method::GET, &one, None).await;
    }
    let (what, body) = match form.get("agent") {
        "" => ("disconnect-agent", json!({"applyToExisting": existing})),
        agent => ("connect-agent", json!({"agent": agent, "applyToExisting": existing})),
    };
    visitor.ask(console, Method::POST, &format!("{one}{what}/"), Some(&body)).await
}

/// A number of the API, or the error page if it does not exist.
pub(super) async fn find_number(
    console: &Console,
    visitor: &Visitor,
    number: &str,
) -> Result<Number, Box<Response>> {
    let answer =
        visitor.ask(console, Method::GET, &format!("/api/v1/phone-numbers/{number}/"), None).await;
    object(console, visitor, &answer)
}

#[derive(Template)]
#[template(path = "number_agent.html")]
struct AgentDialog {
    page: Page,
    number: Number,
    agents: Vec<Choice>,
    wrong: String,
}

/// The dialog for selecting the agent of a number.
pub(super) async fn agent(
    State(console): App,
    Path(number): Path<String>,
    visitor: Visitor,
) -> Response {
    let Some(number) = digits(&number) else { return missing(&console, &visitor) };
    if !visitor.is_admin() {
        return forbidden(&console, &visitor);
    }
    match find_number(&console, &visitor, number).await {
        Ok(number) => {
            let page = visitor.page(&console, visitor.lang().t("numbers.agent"), "numbers");
            let agents = agents_of(&console, &visitor, &number).await;
            respond(StatusCode::OK, &AgentDialog { page, number, agents, wrong: String::new() })
        }
        Err(answer) => *answer,
    }
}

#[derive(Template)]
#[template(path = "number_register.html")]
struct RegisterDialog {
    page: Page,
    number: Number,
    wrong: String,
}

/// The dialog for entering the PIN of a registration.
pub(super) async fn register(
    State(console): App,
    Path(number): Path<String>,
    visitor: Visitor,
) -> Response {
    let Some(number) = digits(&number) else { return missing(&console, &visitor) };
    register_dialog(&console, &visitor, number, StatusCode::OK, String::new()).await
}

async fn register_dialog(
    console: &Console,
    visitor: &Visitor,
    number: &str,
    status: StatusCode,
    wrong: String,
) -> Response {
    if !visitor.is_admin() {
        return forbidden(console, visitor);
    }
    match find_number(console, visitor, number).await {
        Ok(number) => {
            let page = visitor.page(console, visitor.lang().t("numbers.register"), "numbers");
            let last = number.registration.reason.clone().unwrap_or_default();
            respond(
                status,
                &RegisterDialog {
                    page,
                    wrong: if wrong.is_empty() { last } else { wrong },
                    number,
                },
            )
        }
        Err(answer) => *answer,
    }
}

/// Handles an action of the table. The field `do` is `agent`, `active`, `inactive`, `register` or
/// `sync`.
pub(super) async fn act(
    State(console): App,
    Path(number): Path<String>,
    submitted: SubmittedForm,
) -> Response {
    let SubmittedForm { visitor, form } = submitted;
    let Some(number) = digits(&number) else { return missing(&console, &visitor) };
    let one = format!("/api/v1/phone-numbers/{number}/");
    let what = form.get("do");
    let answer = match what {
        "agent" => assign(&console, &visitor, number, &form).await,
        "register" => {
            let body = json!({"pin": form.get("pin")});
            visitor.ask(&console, Method::POST, &format!("{one}register/"), Some(&body)).await
        }
        "active" | "inactive" => {
            let body = json!({"active": what == "active"});
            visitor.ask(&console, Method::PATCH, &one, Some(&body)).await
        }
        "sync" => visitor.ask(&console, Method::POST, &format!("{one}sync/"), None).await,
        _ => return bad_form(&console, &visitor, "do"),
    };
    match answer.is_ok() {
        true => Redirect::to(&format!("/console/numbers/?done={what}")).into_response(),
        // The message of the API is for programs and not translated.
        false if what == "active" && answer.field() == Some("active") => {
            let wrong = visitor.lang().t("numbers.active_needs_agent").to_owned();
            list(&console, &visitor, answer.status, wrong).await
        }
        false if what == "register" => {
            register_dialog(&console, &visitor, number, answer.status, answer.message().to_owned())
                .await
        }
        false => list(&console, &visitor, answer.status, answer.message().to_owned()).await,
    }
}
