//! Agents: the list with their outbound numbers, and the page on which one is made, changed and removed. Doing is the number API's.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::door::{Posted, Visitor};
use super::form::Form;
use super::page::{Page, failed, forbidden, missing, respond};
use super::view;
use super::{App, Console};

/// An agent as the API has it.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Agent {
    id: String,
    name: String,
    kind: String,
    channels: Vec<String>,
    endpoint: Option<String>,
    model: Option<String>,
    instructions: String,
    greeting: String,
    voice: Option<String>,
    language: String,
    outbound_number: Option<String>,
    inbound_numbers: Vec<String>,
    enabled: bool,
    has_api_key: bool,
    has_signing_secret: bool,
}

impl Agent {
    fn new() -> Self {
        Self {
            id: String::new(),
            name: String::new(),
            kind: "http".to_owned(),
            channels: vec!["whatsapp".to_owned()],
            endpoint: None,
            model: None,
            instructions: String::new(),
            greeting: String::new(),
            voice: None,
            language: "en-US".to_owned(),
            outbound_number: None,
            inbound_numbers: Vec::new(),
            enabled: true,
            has_api_key: false,
            has_signing_secret: false,
        }
    }

    fn is_on(&self, channel: &str) -> bool {
        self.channels.iter().any(|on| on == channel)
    }

    fn calls_from(&self, number: &str) -> bool {
        self.outbound_number.as_deref() == Some(number)
    }

    fn answers(&self) -> String {
        self.inbound_numbers.iter().map(|number| view::party(number)).collect::<Vec<_>>().join(", ")
    }
}

/// An agent to choose from.
pub(super) struct Choice {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) whatsapp: bool,
    pub(super) voice: bool,
}

/// The account's agents, for a choice.
pub(super) async fn choices(console: &Console, visitor: &Visitor) -> Vec<Choice> {
    let all = all(console, visitor).await;
    all.into_iter()
        .map(|agent| Choice {
            whatsapp: agent.is_on("whatsapp"),
            voice: agent.is_on("voice"),
            id: agent.id,
            name: agent.name,
        })
        .collect()
}

async fn all(console: &Console, visitor: &Visitor) -> Vec<Agent> {
    items(console, visitor, "/api/v1/agents/?limit=200").await
}

async fn items<T: serde::de::DeserializeOwned>(
    console: &Console,
    visitor: &Visitor,
    path: &str,
) -> Vec<T> {
    let mut answer = visitor.ask(console, Method::GET, path, None).await;
    let items = answer.body.get_mut("items").map(Value::take).unwrap_or_default();
    serde_json::from_value(items).unwrap_or_default()
}

/// A number to choose.
struct Outbound {
    number: String,
    /// With its alias.
    named: String,
}

/// Numbers that an agent may call and write from: those at the Cloud API.
async fn numbers(console: &Console, visitor: &Visitor) -> Vec<Outbound> {
    let all: Vec<Value> =
        items(console, visitor, "/api/v1/phone-numbers/?platformType=CLOUD_API&limit=200").await;
    let text = |number: &Value, name: &str| {
        number.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let each = all.iter().map(|number| (text(number, "number"), text(number, "alias")));
    each.map(|(number, alias)| Outbound { named: view::aliased(&alias, &number), number }).collect()
}

#[derive(Template)]
#[template(path = "agents.html")]
struct Agents {
    page: Page,
    agents: Vec<Agent>,
    numbers: Vec<Outbound>,
    admin: bool,
    wrong: String,
}

pub(super) async fn page(State(console): App, visitor: Visitor) -> Response {
    list(&console, &visitor, StatusCode::OK, String::new()).await
}

async fn list(console: &Console, visitor: &Visitor, status: StatusCode, wrong: String) -> Response {
    let live = if wrong.is_empty() { "agent number" } else { "" };
    let agents = Agents {
        page: visitor.page(console, visitor.lang().t("nav.agents"), "agents").listening(live),
        agents: all(console, visitor).await,
        numbers: numbers(console, visitor).await,
        admin: visitor.is_admin(),
        wrong,
    };
    respond(status, &agents)
}

#[derive(Template)]
#[template(path = "agent.html")]
struct One {
    page: Page,
    agent: Agent,
    numbers: Vec<Outbound>,
    wrong: String,
    field: String,
}

impl One {
    fn is_wrong(&self, field: &str) -> bool {
        self.field == field
    }
}

/// What was wrong, and with which field.
type Wrong = (StatusCode, String, String);

async fn shown(
    console: &Console,
    visitor: &Visitor,
    agent: Agent,
    wrong: Option<Wrong>,
) -> Response {
    if !visitor.is_admin() {
        return forbidden(console, visitor);
    }
    let name = if agent.id.is_empty() {
        visitor.lang().t("agents.new").to_owned()
    } else {
        agent.name.clone()
    };
    let page = visitor.page(console, &name, "agents");
    let (status, wrong, field) = wrong.unwrap_or_default();
    respond(status, &One { page, agent, numbers: numbers(console, visitor).await, wrong, field })
}

pub(super) async fn blank(State(console): App, visitor: Visitor) -> Response {
    shown(&console, &visitor, Agent::new(), None).await
}

async fn found(console: &Console, visitor: &Visitor, id: Uuid) -> Option<Agent> {
    let answer = visitor.ask(console, Method::GET, &format!("/api/v1/agents/{id}/"), None).await;
    serde_json::from_value(answer.body).ok()
}

pub(super) async fn one(State(console): App, Path(id): Path<String>, visitor: Visitor) -> Response {
    let Ok(id) = id.parse::<Uuid>() else { return missing(&console, &visitor) };
    match found(&console, &visitor, id).await {
        Some(agent) => shown(&console, &visitor, agent, None).await,
        None => missing(&console, &visitor),
    }
}

/// A form laid over an agent; secrets apart.
fn over(agent: Agent, form: &Form) -> Agent {
    let some = |name: &str| form.some(name).map(str::to_owned);
    let chosen = |channel: &&str| form.some(&format!("channel.{channel}")).is_some();
    let channels = ["whatsapp", "voice"].into_iter().filter(chosen);
    Agent {
        name: form.get("name").to_owned(),
        kind: form.get("kind").to_owned(),
        channels: channels.map(str::to_owned).collect(),
        endpoint: some("endpoint"),
        model: some("model"),
        instructions: form.get("instructions").to_owned(),
        greeting: form.get("greeting").to_owned(),
        voice: some("voice"),
        language: form.get("language").to_owned(),
        outbound_number: some("outboundNumber"),
        enabled: form.some("enabled").is_some(),
        ..agent
    }
}

/// What the API is asked for; a secret that is left empty stays as it is.
fn body(agent: &Agent, form: &Form) -> Value {
    let mut body = json!({
        "name": agent.name, "kind": agent.kind, "channels": agent.channels, "endpoint": agent.endpoint,
        "model": agent.model, "instructions": agent.instructions, "greeting": agent.greeting, "voice": agent.voice,
        "language": agent.language, "outboundNumber": agent.outbound_number, "enabled": agent.enabled,
    });
    for name in ["apiKey", "signingSecret"] {
        if let (Some(members), Some(secret)) = (body.as_object_mut(), form.some(name)) {
            members.insert(name.to_owned(), secret.into());
        }
    }
    body
}

pub(super) async fn make(State(console): App, posted: Posted) -> Response {
    let Posted { visitor, form } = posted;
    let agent = over(Agent::new(), &form);
    let answer =
        visitor.ask(&console, Method::POST, "/api/v1/agents/", Some(&body(&agent, &form))).await;
    told(&console, &visitor, agent, &answer).await
}

async fn told(
    console: &Console,
    visitor: &Visitor,
    agent: Agent,
    answer: &crate::api::ApiResponse,
) -> Response {
    match answer.is_ok() {
        true => Redirect::to("/console/agents/").into_response(),
        false => {
            let field = answer.field().unwrap_or_default().to_owned();
            shown(
                console,
                visitor,
                agent,
                Some((answer.status, answer.message().to_owned(), field)),
            )
            .await
        }
    }
}

/// `do` is `save`, `outbound` or `remove`.
pub(super) async fn change(
    State(console): App,
    Path(id): Path<String>,
    posted: Posted,
) -> Response {
    let Posted { visitor, form } = posted;
    let Ok(id) = id.parse::<Uuid>() else { return missing(&console, &visitor) };
    let path = format!("/api/v1/agents/{id}/");
    match form.get("do") {
        "save" => {
            let Some(agent) = found(&console, &visitor, id).await else {
                return missing(&console, &visitor);
            };
            let agent = over(agent, &form);
            let answer =
                visitor.ask(&console, Method::PATCH, &path, Some(&body(&agent, &form))).await;
            told(&console, &visitor, agent, &answer).await
        }
        "outbound" => {
            let body = json!({"outboundNumber": form.some("outboundNumber")});
            let answer = visitor.ask(&console, Method::PATCH, &path, Some(&body)).await;
            match answer.is_ok() {
                true => Redirect::to("/console/agents/").into_response(),
                false => list(&console, &visitor, answer.status, answer.message().to_owned()).await,
            }
        }
        "remove" => {
            let force = if form.some("force").is_some() { "?force=true" } else { "" };
            let answer =
                visitor.ask(&console, Method::DELETE, &format!("{path}{force}"), None).await;
            match answer.is_ok() {
                true => Redirect::to("/console/agents/").into_response(),
                false => match found(&console, &visitor, id).await {
                    Some(agent) => told(&console, &visitor, agent, &answer).await,
                    None => missing(&console, &visitor),
                },
            }
        }
        _ => failed(&console, &visitor, StatusCode::BAD_REQUEST, ""),
    }
}
