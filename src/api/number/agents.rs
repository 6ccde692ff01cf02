//! `/api/v1/agents/`: who answers messages and calls without a person (`number-api.md` §3). Secrets go in and never out.

use axum::response::Response;
use http::StatusCode;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa::openapi::schema::{Array, ArrayBuilder, Object, ObjectBuilder, SchemaType, Type};
use uuid::Uuid;

use super::super::routes::{Answer, Body, Content, Kind, Query, Route, Schemas, of};
use super::super::{Api, error, with_header};
use super::Timestamp3339;
use super::ask::{self, Asked, CHANGED, Fault, given};
use super::bodies::{Taken, one_of};
use super::conversations::not_routed;
use crate::feed::What;
use model::E164;
use model::Secret;
use store::{AGENTS_MAX, Agent, AgentChannel, AgentKind, AgentSecrets, AgentSpec, Scope};

const MISSING: Answer = Answer {
    status: 404,
    what: "There is none",
    content: Content::Json(of::<error::OurBody<'static>>),
};
const CONFLICT: Answer = Answer {
    status: 409,
    what: "Not as it stands",
    content: Content::Json(of::<error::OurBody<'static>>),
};
const BODY: Option<Body> = Some(Body {
    content_type: "application/json",
    what: "name, kind (http or llm), channels, endpoint, model, instructions, greeting, voice, language, historyTurns, \
        maxReplyChars, timeoutMs, outboundNumber, enabled; write-only: apiKey, signingSecret",
});

/// What is read of bodies.
pub(super) const BODIES: &[Taken] =
    &[Taken::with::<Given>("createAgent", wanted), Taken::of::<Given>("changeAgent")];

/// What is served.
pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "GET",
        path: "/api/v1/agents/",
        id: "agents",
        summary: "Agents, newest first",
        query: &[
            Query { name: "limit", what: "Items of a page (50)", kind: Kind::Integer(1, 200) },
            Query {
                name: "cursor",
                what: "Where the page before ended: its `next`",
                kind: Kind::Text,
            },
        ],
        body: None,
        answers: &[Answer { status: 200, what: "A page", content: Content::Json(of::<List>) }],
    },
    Route {
        method: "POST",
        path: "/api/v1/agents/",
        id: "createAgent",
        summary: "Makes an agent",
        query: &[],
        body: BODY,
        answers: &[
            Answer { status: 201, what: "The agent", content: Content::Json(of::<Shown>) },
            CONFLICT,
        ],
    },
    Route {
        method: "GET",
        path: "/api/v1/agents/{agent_id}/",
        id: "agent",
        summary: "An agent",
        query: &[],
        body: None,
        answers: &[
            Answer { status: 200, what: "The agent", content: Content::Json(of::<Shown>) },
            MISSING,
        ],
    },
    Route {
        method: "PATCH",
        path: "/api/v1/agents/{agent_id}/",
        id: "changeAgent",
        summary: "Changes an agent, from its next turn on",
        query: &[],
        body: BODY,
        answers: &[
            Answer { status: 200, what: "The agent", content: Content::Json(of::<Shown>) },
            MISSING,
            CONFLICT,
            CHANGED,
        ],
    },
    Route {
        method: "DELETE",
        path: "/api/v1/agents/{agent_id}/",
        id: "deleteAgent",
        summary: "Removes an agent",
        query: &[Query {
            name: "force",
            what: "true: also one that answers numbers; nobody answers them then",
            kind: Kind::Words(&["true", "false"]),
        }],
        body: None,
        answers: &[
            Answer { status: 204, what: "It is gone", content: Content::Nothing },
            MISSING,
            CONFLICT,
            CHANGED,
        ],
    },
];

/// A page of agents.
#[derive(Serialize, ToSchema)]
#[schema(as = Agents)]
pub(super) struct List {
    items: Vec<Shown>,
    next: Option<String>,
}

/// An agent as our API shows it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Agent)]
pub(super) struct Shown {
    id: Uuid,
    name: String,
    #[schema(value_type = String)]
    kind: AgentKind,
    #[schema(value_type = Vec<String>)]
    channels: Vec<AgentChannel>,
    endpoint: Option<String>,
    model: Option<String>,
    instructions: String,
    greeting: String,
    voice: Option<String>,
    language: String,
    history_turns: u16,
    max_reply_chars: u16,
    timeout_ms: u32,
    outbound_number: Option<String>,
    /// Numbers whose messages it answers.
    inbound_numbers: Vec<String>,
    enabled: bool,
    has_api_key: bool,
    has_signing_secret: bool,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp3339,
}

/// What is given of an agent: outer none: not given; inner none: null.
#[derive(Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
#[schema(as = AgentFields, examples(json!({"name": "Asha", "kind": "http", "channels": ["whatsapp"], "endpoint": "https://agent.example.com/turn"})))]
struct Given {
    /// 1 to 100 characters.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    name: Option<Option<String>>,
    #[serde(deserialize_with = "given")]
    #[schema(schema_with = kinds)]
    kind: Option<Option<AgentKind>>,
    #[serde(deserialize_with = "given")]
    #[schema(schema_with = channels)]
    channels: Option<Option<Vec<AgentChannel>>>,
    /// Of kind http its own server, of kind llm a model's; null: the operator's.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    endpoint: Option<Option<String>>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    model: Option<Option<String>>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    instructions: Option<Option<String>>,
    /// Said when it takes a call.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    greeting: Option<Option<String>>,
    /// WOMAN, MAN or a voice's name; null: the node's.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    voice: Option<Option<String>>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    language: Option<Option<String>>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<u16>)]
    history_turns: Option<Option<u16>>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<u16>)]
    max_reply_chars: Option<Option<u16>>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<u32>)]
    timeout_ms: Option<Option<u32>>,
    /// A number of the account's, registered with the Cloud API.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    outbound_number: Option<Option<String>>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<bool>)]
    enabled: Option<Option<bool>>,
    /// Not shown again.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    api_key: Option<Option<String>>,
    /// Signs its requests; not shown again.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    signing_secret: Option<Option<String>>,
}

/// What makes one: its kind has to be said.
fn wanted(into: &mut Schemas) -> Value {
    json!({"allOf": [of::<Given>(into), {"type": "object", "required": ["name", "kind"]}]})
}

fn kinds() -> Object {
    one_of(&["http", "llm"], "A server of the customer's, or an OpenAI-compatible model")
}

fn channels() -> Array {
    let words = [AgentChannel::Whatsapp, AgentChannel::Voice].map(AgentChannel::as_str);
    let item = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words));
    ArrayBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Array, Type::Null]))
        .items(item)
        .description(Some("Where it can be spoken with (whatsapp)"))
        .build()
}

impl Given {
    /// Lays it over what is there; null is what a new one has.
    fn over(
        self,
        asked: &Asked,
        spec: &mut AgentSpec,
        secrets: &mut AgentSecrets,
    ) -> Result<(), Fault> {
        let new = AgentSpec::blank();
        if let Some(name) = self.name {
            spec.name = text("name", name.unwrap_or_default(), 100)?;
        }
        if let Some(kind) = self.kind {
            spec.kind = kind.ok_or_else(|| ask::bad("kind", "kind must be http or llm"))?;
        }
        if let Some(channels) = self.channels {
            spec.channels = channels_of(channels.unwrap_or(new.channels))?;
        }
        if let Some(endpoint) = self.endpoint {
            spec.endpoint =
                endpoint.filter(|url| !url.is_empty()).map(|url| url_of(asked, url)).transpose()?;
        }
        if let Some(model) = self.model {
            spec.model =
                model.filter(|m| !m.is_empty()).map(|m| text("model", m, 100)).transpose()?;
        }
        if let Some(instructions) = self.instructions {
            spec.instructions = text("instructions", instructions.unwrap_or_default(), 20_000)?;
        }
        if let Some(greeting) = self.greeting {
            spec.greeting = text("greeting", greeting.unwrap_or_default(), 1_000)?;
        }
        if let Some(voice) = self.voice {
            spec.voice = voice.filter(|voice| !voice.is_empty()).map(voice_of).transpose()?;
        }
        if let Some(language) = self.language {
            spec.language = language.map_or(Ok(new.language), language_of)?;
        }
        if let Some(turns) = self.history_turns {
            spec.history_turns =
                within("historyTurns", turns.unwrap_or(new.history_turns), 0, 100)?;
        }
        if let Some(chars) = self.max_reply_chars {
            spec.max_reply_chars =
                within("maxReplyChars", chars.unwrap_or(new.max_reply_chars), 1, 4096)?;
        }
        if let Some(timeout) = self.timeout_ms {
            spec.timeout_ms = within("timeoutMs", timeout.unwrap_or(new.timeout_ms), 500, 60_000)?;
        }
        if let Some(number) = self.outbound_number {
            spec.outbound_number = number.map(|number| outbound(asked, &number)).transpose()?;
        }
        if let Some(enabled) = self.enabled {
            spec.enabled = enabled.unwrap_or(true);
        }
        if let Some(key) = self.api_key {
            secrets.api_key = secret("apiKey", key)?;
        }
        if let Some(key) = self.signing_secret {
            secrets.signing_secret = secret("signingSecret", key)?;
        }
        Ok(())
    }
}

/// What holds of all of it together.
fn check(api: &Api, spec: &AgentSpec) -> Result<(), Fault> {
    if spec.name.trim().is_empty() {
        return Err(ask::bad("name", "an agent needs a name"));
    }
    match (spec.kind, &spec.endpoint) {
        (AgentKind::Http, None) => {
            Err(ask::bad("endpoint", "an agent of kind http needs an endpoint"))
        }
        (AgentKind::Llm, None) if !api.agents.has_model() => Err(ask::bad(
            "endpoint",
            "this node has no model of its own ([model]): name an OpenAI-compatible endpoint",
        )),
        _ => Ok(()),
    }
}

fn text(field: &'static str, text: String, max: usize) -> Result<String, Fault> {
    match text.chars().count() <= max {
        true => Ok(text),
        false => Err(ask::bad(field, &format!("{field} must have {max} characters at most"))),
    }
}

fn within<T: PartialOrd + Copy + std::fmt::Display>(
    field: &'static str,
    value: T,
    least: T,
    most: T,
) -> Result<T, Fault> {
    match (least..=most).contains(&value) {
        true => Ok(value),
        false => Err(ask::bad(field, &format!("{field} must be from {least} to {most}"))),
    }
}

fn channels_of(mut channels: Vec<AgentChannel>) -> Result<Vec<AgentChannel>, Fault> {
    channels.sort_unstable();
    channels.dedup();
    match channels.is_empty() {
        true => Err(ask::bad("channels", "channels must name whatsapp, voice or both")),
        false => Ok(channels),
    }
}

/// Judged as any URL of a customer's (R17).
fn url_of(asked: &Asked, url: String) -> Result<String, Fault> {
    match asked.api().placing.url(&url).err() {
        Some(why) => Err(ask::bad("endpoint", &format!("could not {why}"))),
        None if url.contains('#') => Err(ask::bad("endpoint", "endpoint must have no fragment")),
        None => Ok(url),
    }
}

/// `WOMAN`, `MAN` or a voice of Polly's.
fn voice_of(voice: String) -> Result<String, Fault> {
    let named = voice.strip_prefix("Polly.").is_some_and(|name| {
        (1..=40).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    });
    match named || matches!(voice.as_str(), "WOMAN" | "MAN") {
        true => Ok(voice),
        false => Err(ask::bad("voice", "voice must be WOMAN, MAN or Polly.NAME")),
    }
}

fn language_of(language: String) -> Result<String, Fault> {
    let mut parts = language.split('-');
    let first = parts
        .next()
        .is_some_and(|p| (2..=3).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_alphabetic()));
    let rest =
        parts.all(|p| (2..=8).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_alphanumeric()));
    match first && rest && language.len() <= 35 {
        true => Ok(language),
        false => Err(ask::bad("language", "language must be a tag like en-US")),
    }
}

fn secret(field: &'static str, secret: Option<String>) -> Result<Option<Secret>, Fault> {
    match secret.filter(|secret| !secret.is_empty()) {
        None => Ok(None),
        Some(secret)
            if secret.len() <= 512 && secret.bytes().all(|b| (0x21..0x7f).contains(&b)) =>
        {
            Ok(Some(Secret::new(secret)))
        }
        Some(_) => {
            Err(ask::bad(field, &format!("{field} must have 512 visible ASCII characters at most")))
        }
    }
}

/// Whether Meta has said that a number is not at its Cloud API; one that was not asked about yet counts as if it were.
pub(super) fn is_elsewhere(api: &Api, scope: &Scope, number: &E164) -> bool {
    let book = api.keeper.book();
    book.number(scope, number)
        .is_some_and(|n| !n.set.told.platform_type.is_empty() && !n.set.is_cloud())
}

/// One of the account's, by which it may write and call.
fn outbound(asked: &Asked, text: &str) -> Result<E164, Fault> {
    let number = ask::digits(text)
        .and_then(|n| asked.api().gate.directory().tables().by_number(&n).cloned());
    let number =
        number.filter(|n| asked.scope().holds(&n.account.auth_id, &n.account.main().auth_id));
    let number =
        number.ok_or_else(|| ask::bad("outboundNumber", "this account has no such number"))?;
    if is_elsewhere(asked.api(), asked.scope(), &number.spec.number) {
        return Err(ask::bad(
            "outboundNumber",
            "this number is not registered with Meta's Cloud API: register it first",
        ));
    }
    Ok(number.spec.number.clone())
}

fn shown(api: &Api, agent: &Agent) -> Shown {
    let spec = agent.spec.clone();
    Shown {
        id: agent.id,
        name: spec.name,
        kind: spec.kind,
        channels: spec.channels,
        endpoint: spec.endpoint,
        model: spec.model,
        instructions: spec.instructions,
        greeting: spec.greeting,
        voice: spec.voice,
        language: spec.language,
        history_turns: spec.history_turns,
        max_reply_chars: spec.max_reply_chars,
        timeout_ms: spec.timeout_ms,
        outbound_number: spec.outbound_number.map(|number| number.as_str().to_owned()),
        inbound_numbers: api
            .inbox
            .answered_by(agent.id)
            .iter()
            .map(|n| n.spec.number.to_string())
            .collect(),
        enabled: spec.enabled,
        has_api_key: agent.secrets.api_key.is_some(),
        has_signing_secret: agent.secrets.signing_secret.is_some(),
        created_at: Timestamp3339(agent.created),
    }
}

/// The agent that a path names.
pub(super) async fn agent_of(asked: &Asked, id: &str) -> Result<Agent, Fault> {
    const NONE: &str = "there is no such agent";
    let id: Uuid = id.parse().map_err(|_| ask::missing(NONE))?;
    let found = asked
        .api()
        .store
        .agents()
        .get(asked.scope(), id)
        .await
        .map_err(ask::store("read an agent"))?;
    found.ok_or_else(|| ask::missing(NONE))
}

/// Everything under `/api/v1/agents/`.
pub(super) async fn serve(asked: Asked, path: &[&str]) -> Result<Response, Fault> {
    match (asked.method().as_str(), path) {
        ("GET", []) => list(&asked).await,
        ("POST", []) => create(asked).await,
        ("GET", [id]) => Ok(ask::tagged(&shown(asked.api(), &agent_of(&asked, id).await?))),
        ("PATCH", [id]) => change(asked, id).await,
        ("DELETE", [id]) => delete(&asked, id).await,
        _ => Err(ask::missing("there is nothing at this path")),
    }
}

async fn list(asked: &Asked) -> Result<Response, Fault> {
    let limit = asked.limit()?;
    let before = asked.cursor(ask::placed)?;
    let agents = asked.api().store.agents().list(asked.scope(), before, limit + 1).await;
    let agents = agents.map_err(ask::store("list agents"))?;
    let page = ask::Page::of(agents, limit, |agent| ask::place(agent.created, agent.id));
    Ok(ask::ok(&List {
        items: page.items.iter().map(|agent| shown(asked.api(), agent)).collect(),
        next: asked.next(page.next),
    }))
}

async fn create(asked: Asked) -> Result<Response, Fault> {
    let (asked, given) = asked.json::<Given>().await?;
    if given.kind.is_none() {
        return Err(ask::bad("kind", "kind is missing"));
    }
    let (mut spec, mut secrets) = (AgentSpec::blank(), AgentSecrets::default());
    given.over(&asked, &mut spec, &mut secrets)?;
    let api = asked.api();
    check(api, &spec)?;
    let main_account = asked.main_account();
    let agent = Agent {
        id: Uuid::new_v4(),
        account: asked.scope().auth_id().clone(),
        main_account: main_account.clone(),
        spec,
        secrets,
        created: api.clock.steady(),
    };
    if !api.store.agents().create(agent.clone()).await.map_err(ask::store("make an agent"))? {
        return Err(ask::conflict(
            "too_many",
            &format!("an account has {AGENTS_MAX} agents at most"),
        ));
    }
    api.feed.tell(&main_account, What::Agent(agent.id));
    let shown = shown(api, &agent);
    let tag = ask::tag_of(&shown);
    Ok(with_header(error::body(StatusCode::CREATED, &shown), http::header::ETAG, &tag))
}

async fn change(asked: Asked, id: &str) -> Result<Response, Fault> {
    let mut agent = agent_of(&asked, id).await?;
    asked.matches(&ask::tag_of(&shown(asked.api(), &agent)))?;
    let (asked, given) = asked.json::<Given>().await?;
    let before = agent.spec.clone();
    given.over(&asked, &mut agent.spec, &mut agent.secrets)?;
    let api = asked.api();
    check(api, &agent.spec)?;
    if !api
        .store
        .agents()
        .change(agent.clone(), before)
        .await
        .map_err(ask::store("change an agent"))?
    {
        return Err(ask::conflict(
            "changed",
            "somebody changed it at the same moment: read it again",
        ));
    }
    api.feed.tell(&agent.main_account, What::Agent(agent.id));
    Ok(ask::tagged(&shown(api, &agent)))
}

async fn delete(asked: &Asked, id: &str) -> Result<Response, Fault> {
    let agent = agent_of(asked, id).await?;
    let api = asked.api();
    asked.matches(&ask::tag_of(&shown(api, &agent)))?;
    let force = asked.flag("force")?.unwrap_or_default();
    if !api.inbox.remove_agent(asked.scope(), &agent, force).await.map_err(not_routed)? {
        return Err(ask::missing("there is no such agent"));
    }
    Ok(ask::gone())
}
