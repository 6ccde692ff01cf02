//! The pages of AI agents: the list with outbound numbers, and the form that creates, changes and
//! deletes an agent. Changes go through the number API.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use askama::Template;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::auth::{SubmittedForm, Visitor};
use super::form::Form;
use super::i18n::Lang;
use super::number_view::Number;
use super::page::{Page, bad_form, bad_query, forbidden, missing, respond};
use super::view;
use super::{App, Console};
use crate::api::ApiResponse;
use store::AGENTS_MAX;

/// An agent in the number API.
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
    /// Identifies the stored values of the form's fields.
    #[serde(skip)]
    version: String,
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
            version: String::new(),
        }
    }

    fn is_on(&self, channel: &str) -> bool {
        self.channels.iter().any(|on| on == channel)
    }

    fn calls_from(&self, number: &str) -> bool {
        self.outbound_number.as_deref() == Some(number)
    }

    /// The agent's outbound number if it is none of `numbers`. A form must contain it, too, because
    /// saving the form would remove it otherwise.
    fn other_number(&self, numbers: &[Outbound]) -> Option<&str> {
        let number = self.outbound_number.as_deref()?;
        (!numbers.iter().any(|listed| listed.number == number)).then_some(number)
    }

    /// Opens a chat with one of the agent's numbers in the WhatsApp of the visitor.
    fn whatsapp_link(&self, number: &str) -> String {
        format!("https://wa.me/{number}")
    }

    fn answers(&self) -> String {
        self.inbound_numbers.iter().map(|number| view::party(number)).collect::<Vec<_>>().join(", ")
    }
}

/// An agent in a selection list.
pub(super) struct Choice {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) whatsapp: bool,
    pub(super) voice: bool,
}

/// The agents of the account, for a selection list.
pub(super) async fn choices(console: &Console, visitor: &Visitor) -> Vec<Choice> {
    let all = newest(console, visitor, usize::try_from(AGENTS_MAX).unwrap_or(usize::MAX)).await;
    all.into_iter()
        .map(|agent| Choice {
            whatsapp: agent.is_on("whatsapp"),
            voice: agent.is_on("voice"),
            id: agent.id,
            name: agent.name,
        })
        .collect()
}

async fn newest(console: &Console, visitor: &Visitor, limit: usize) -> Vec<Agent> {
    let shorten = |agent: &mut Agent| agent.instructions = String::new();
    visitor.items_of_pages(console, "/api/v1/agents/?limit=200", limit, shorten).await
}

/// A number in a selection list.
struct Outbound {
    number: String,
    /// The number, with its alias.
    named: String,
}

/// Numbers that an agent may call and write from, those of the Cloud API, and the others.
async fn numbers(console: &Console, visitor: &Visitor) -> (Vec<Outbound>, Vec<Outbound>) {
    let all: Vec<Number> = visitor.items(console, "/api/v1/phone-numbers/?limit=200").await;
    let (selectable, others): (Vec<Number>, Vec<Number>) =
        all.into_iter().partition(Number::is_cloud);
    let outbound = |number: Number| Outbound { named: number.named(), number: number.number };
    (selectable.into_iter().map(outbound).collect(), others.into_iter().map(outbound).collect())
}

#[derive(Template)]
#[template(path = "agents.html")]
struct AgentsPage {
    page: Page,
    agents: Vec<Agent>,
    numbers: Vec<Outbound>,
    /// Numbers that can't be selected because they are not registered.
    unregistered: Vec<Outbound>,
    admin: bool,
    /// What was done. Empty if nothing was.
    done: &'static str,
    wrong: String,
}

pub(super) async fn page(State(console): App, visitor: Visitor) -> Response {
    if let Err(unreadable) = visitor.query.check_names(&[&["done"]]) {
        return bad_query(&console, &visitor, &unreadable);
    }
    list(&console, &visitor, StatusCode::OK, String::new()).await
}

async fn list(console: &Console, visitor: &Visitor, status: StatusCode, wrong: String) -> Response {
    let live = if wrong.is_empty() { "agent number" } else { "" };
    let (numbers, unregistered) = numbers(console, visitor).await;
    let agents = AgentsPage {
        page: visitor.page(console, visitor.lang().t("nav.agents"), "agents").listening(live),
        agents: newest(console, visitor, 200).await,
        numbers,
        unregistered,
        admin: visitor.is_admin(),
        done: match visitor.query.get("done") {
            "save" => visitor.lang().t("agents.saved"),
            "remove" => visitor.lang().t("agents.removed"),
            _ => "",
        },
        wrong,
    };
    respond(status, &agents)
}

#[derive(Template)]
#[template(path = "agent.html")]
struct AgentPage {
    page: Page,
    agent: Agent,
    numbers: Vec<Outbound>,
    /// Numbers that can't be selected because they are not registered.
    unregistered: Vec<Outbound>,
    /// The models that an agent without an endpoint may use, the default first. Empty if the node
    /// has none.
    models: Vec<String>,
    /// Whether http URLs are allowed.
    insecure: bool,
    wrong: String,
    field: String,
    trial: Option<TrialView>,
}

/// A trial of an agent: what was asked, and the reply or the error.
struct TrialView {
    text: String,
    reply: Vec<String>,
    action: Option<String>,
    error: String,
    took: String,
}

impl AgentPage {
    fn is_wrong(&self, field: &str) -> bool {
        self.field == field
    }

    /// The error of a field. Empty if it is valid.
    fn error_of(&self, field: &str) -> &str {
        if self.is_wrong(field) { &self.wrong } else { "" }
    }
}

/// Status, message and field of an error.
type FormError = (StatusCode, String, String);

async fn agent_page(
    console: &Console,
    visitor: &Visitor,
    agent: Agent,
    wrong: Option<FormError>,
) -> Response {
    page_with_trial(console, visitor, agent, wrong, None).await
}

async fn page_with_trial(
    console: &Console,
    visitor: &Visitor,
    agent: Agent,
    wrong: Option<FormError>,
    trial: Option<TrialView>,
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
    let api = console.apis.api();
    let models = api.agents.model_names().into_iter().map(str::to_owned).collect();
    let (numbers, unregistered) = numbers(console, visitor).await;
    let insecure = api.placer.allows_http();
    respond(
        status,
        &AgentPage { page, agent, numbers, unregistered, models, insecure, wrong, field, trial },
    )
}

fn code(answer: &ApiResponse) -> &str {
    answer.body.pointer("/error/code").and_then(Value::as_str).unwrap_or_default()
}

/// Rewords the message of a rejected request in terms of the form. The API refers to fields of its
/// JSON, which the form does not show.
fn explain(lang: Lang, agent: &Agent, answer: &ApiResponse) -> String {
    let key = match (answer.field(), &agent.endpoint) {
        (Some("endpoint"), None) if agent.kind == "llm" => "no_model",
        (Some("endpoint"), None) => "no_endpoint",
        (Some("endpoint"), Some(_)) => match answer.message().strip_prefix("endpoint is invalid: ")
        {
            Some(reason) => return lang.with("agents.wrong.endpoint", &[reason]),
            None => "fragment",
        },
        (Some(field), _) => field,
        (None, _) => code(answer),
    };
    lang.find(&format!("agents.wrong.{key}")).unwrap_or(answer.message()).to_owned()
}

pub(super) async fn new_agent(State(console): App, visitor: Visitor) -> Response {
    agent_page(&console, &visitor, Agent::new(), None).await
}

async fn find_agent(console: &Console, visitor: &Visitor, id: Uuid) -> Option<Agent> {
    let answer = visitor.ask(console, Method::GET, &format!("/api/v1/agents/{id}/"), None).await;
    let agent: Agent = serde_json::from_value(answer.body).ok()?;
    let mut hasher = DefaultHasher::new();
    body(&agent, &Form::default()).to_string().hash(&mut hasher);
    Some(Agent { version: hasher.finish().to_string(), ..agent })
}

pub(super) async fn agent(
    State(console): App,
    Path(id): Path<String>,
    visitor: Visitor,
) -> Response {
    let Ok(id) = id.parse::<Uuid>() else { return missing(&console, &visitor) };
    match find_agent(&console, &visitor, id).await {
        Some(agent) => agent_page(&console, &visitor, agent, None).await,
        None => missing(&console, &visitor),
    }
}

/// Applies a form to an agent, except its secrets.
fn with_form(agent: Agent, form: &Form) -> Agent {
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

/// Builds the body of the API request. Empty secrets are omitted, which keeps the stored ones.
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

pub(super) async fn create(State(console): App, submitted: SubmittedForm) -> Response {
    let SubmittedForm { visitor, form } = submitted;
    let agent = with_form(Agent::new(), &form);
    let answer =
        visitor.ask(&console, Method::POST, "/api/v1/agents/", Some(&body(&agent, &form))).await;
    redirect_or_error(&console, &visitor, agent, &answer).await
}

async fn redirect_or_error(
    console: &Console,
    visitor: &Visitor,
    agent: Agent,
    answer: &ApiResponse,
) -> Response {
    match answer.is_ok() {
        true => Redirect::to("/console/agents/?done=save").into_response(),
        false => {
            let field = if code(answer) == "name_taken" { Some("name") } else { answer.field() };
            let field = field.unwrap_or_default().to_owned();
            let wrong = explain(visitor.lang(), &agent, answer);
            agent_page(console, visitor, agent, Some((answer.status, wrong, field))).await
        }
    }
}

/// Sends an agent one message, and shows its reply or the error.
async fn try_agent(console: &Console, visitor: &Visitor, agent: Agent, text: &str) -> Response {
    #[derive(Deserialize)]
    struct Trial {
        reply: Vec<Value>,
        action: Option<String>,
        error: Option<String>,
        milliseconds: i64,
    }
    let path = format!("/api/v1/agents/{}/try/", agent.id);
    let answer = visitor.ask(console, Method::POST, &path, Some(&json!({"text": text}))).await;
    let Ok(trial) = serde_json::from_value::<Trial>(answer.body.clone()) else {
        let wrong = (answer.status, answer.message().to_owned(), String::new());
        return agent_page(console, visitor, agent, Some(wrong)).await;
    };
    let shown = |item: &Value| match item["text"].as_str() {
        Some(text) => text.to_owned(),
        None => item.to_string(),
    };
    let trial = TrialView {
        text: text.to_owned(),
        reply: trial.reply.iter().map(shown).collect(),
        action: trial.action,
        error: trial.error.unwrap_or_default(),
        took: visitor.lang().duration(trial.milliseconds * 1_000),
    };
    page_with_trial(console, visitor, agent, None, Some(trial)).await
}

/// Handles the form of one agent. Its field `do` is `save`, `outbound`, `try` or `remove`.
pub(super) async fn change(
    State(console): App,
    Path(id): Path<String>,
    submitted: SubmittedForm,
) -> Response {
    let SubmittedForm { visitor, form } = submitted;
    let Ok(id) = id.parse::<Uuid>() else { return missing(&console, &visitor) };
    let path = format!("/api/v1/agents/{id}/");
    match form.get("do") {
        "save" => {
            let Some(agent) = find_agent(&console, &visitor, id).await else {
                return missing(&console, &visitor);
            };
            let is_outdated = form.some("version").is_some_and(|seen| seen != agent.version);
            let agent = with_form(agent, &form);
            if is_outdated {
                let wrong = visitor.lang().t("agents.changed_meanwhile").to_owned();
                let wrong = (StatusCode::CONFLICT, wrong, String::new());
                return agent_page(&console, &visitor, agent, Some(wrong)).await;
            }
            let answer =
                visitor.ask(&console, Method::PATCH, &path, Some(&body(&agent, &form))).await;
            redirect_or_error(&console, &visitor, agent, &answer).await
        }
        "outbound" => {
            let body = json!({"outboundNumber": form.some("outboundNumber")});
            let answer = visitor.ask(&console, Method::PATCH, &path, Some(&body)).await;
            match answer.is_ok() {
                true => Redirect::to("/console/agents/?done=save").into_response(),
                false => {
                    let wrong = explain(visitor.lang(), &Agent::new(), &answer);
                    list(&console, &visitor, answer.status, wrong).await
                }
            }
        }
        "try" => match find_agent(&console, &visitor, id).await {
            Some(agent) => try_agent(&console, &visitor, agent, form.get("text")).await,
            None => missing(&console, &visitor),
        },
        "remove" => {
            let force = if form.some("force").is_some() { "?force=true" } else { "" };
            let answer =
                visitor.ask(&console, Method::DELETE, &format!("{path}{force}"), None).await;
            match answer.is_ok() {
                true => Redirect::to("/console/agents/?done=remove").into_response(),
                false => match find_agent(&console, &visitor, id).await {
                    Some(agent) => redirect_or_error(&console, &visitor, agent, &answer).await,
                    None => missing(&console, &visitor),
                },
            }
        }
        _ => bad_form(&console, &visitor, "do"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_in_the_words_of_the_form() {
        let explain = |kind: &str, endpoint: Option<&str>, error: Value| {
            let kind = kind.to_owned();
            let agent = Agent { kind, endpoint: endpoint.map(str::to_owned), ..Agent::new() };
            let answer =
                ApiResponse { status: StatusCode::BAD_REQUEST, body: json!({"error": error}) };
            explain(Lang::En, &agent, &answer)
        };
        let endpoint = |message: &str| json!({"field": "endpoint", "message": message});
        let http = explain("http", None, endpoint("required"));
        let llm = explain("llm", None, endpoint("required"));
        assert!(http.contains("Endpoint") && llm.contains("API base URL") && http != llm);
        let refused = explain("http", Some("x"), endpoint("endpoint is invalid: no host"));
        assert!(refused.ends_with("no host."), "{refused}");
        let fragment = explain("llm", Some("https://x/#a"), endpoint("a fragment"));
        assert!(fragment.contains('#'), "{fragment}");
        let fields = [
            "name",
            "channels",
            "model",
            "instructions",
            "greeting",
            "voice",
            "language",
            "outboundNumber",
            "apiKey",
            "signingSecret",
        ];
        for field in fields {
            let text = explain("llm", None, json!({"field": field, "message": "raw"}));
            assert!(text != "raw" && text.ends_with('.'), "{field}: {text}");
        }
        let in_use = explain("llm", None, json!({"code": "in_use", "message": "?force=true"}));
        assert!(!in_use.contains("force"), "{in_use}");
        assert_eq!(explain("http", None, json!({"code": "x", "message": "raw"})), "raw");
    }
}
