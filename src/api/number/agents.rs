//! `/api/v1/agents/`: AI agents, which answer messages and calls. Their secrets are write-only.

use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa::openapi::schema::{Array, ArrayBuilder, Object, ObjectBuilder, SchemaType, Type};
use uuid::Uuid;

use super::super::Api;
use super::super::error::ApiError;
use super::super::routes::{Operation, QueryParameter, RequestBody, ResponseSpec, Schemas, of};
use super::super::turns;
use super::request::{ApiRequest, parse_number, parse_position, position};
use super::response::{
    Page, Timestamp3339, created, etag, no_content, ok, ok_with_etag, with_etag,
};
use super::route::{CHANGED, NOT_FOUND, PAGING, Route, error, handler};
use super::schema::{nullable, one_of};
use engine::agents::contract::{Action, Reply};
use engine::feed::{Audience, FeedChange};
use model::{E164, Role, Secret, Timestamp, is_line};
use store::{AGENTS_MAX, Agent, AgentChannel, AgentKind, AgentSecrets, AgentSpec, Scope};

const COLLECTION: &str = "/api/v1/agents/";
const ITEM: &str = "/api/v1/agents/{agent_id}/";
const TRY: &str = "/api/v1/agents/{agent_id}/try/";
const NO_AGENT: &str = "no such agent";
const FIELDS: &str = "name, kind (http or llm), channels, endpoint, model, instructions, greeting, \
    voice, language, historyTurns, maxReplyChars, timeoutMs, outboundNumber, enabled; write-only: \
    apiKey, signingSecret";
const AGENT: ResponseSpec = ResponseSpec::json::<AgentView>(200, "The agent with its ETag");

pub(super) const ROUTES: &[Route] = &[
    Route {
        role: Role::Agent,
        handler: handler!(list),
        operation: Operation::get(COLLECTION, "agents", "List agents, newest first")
            .query(PAGING)
            .responses(&[ResponseSpec::json::<AgentList>(200, "A page of agents")]),
    },
    Route {
        role: Role::Admin,
        handler: handler!(create),
        operation: Operation::post(COLLECTION, "createAgent", "Create an agent")
            .body(RequestBody::json_with_schema::<AgentFields>(FIELDS, new_agent))
            .responses(&[
                ResponseSpec::json::<AgentView>(201, "The agent with its ETag"),
                error(409, "`name_taken`: an agent of the account has this name; `too_many`: the account has 1,000 agents"),
            ]),
    },
    Route {
        role: Role::Agent,
        handler: handler!(get),
        operation: Operation::get(ITEM, "agent", "Retrieve an agent")
            .responses(&[AGENT, NOT_FOUND]),
    },
    Route {
        role: Role::Admin,
        handler: handler!(change),
        operation: Operation::patch(ITEM, "changeAgent", "Change an agent, from its next turn on; another scheme, host or port of its endpoint removes its secrets")
            .body(RequestBody::json::<AgentFields>(FIELDS))
            .responses(&[
                AGENT,
                NOT_FOUND,
                error(409, "`name_taken`: an agent of the account has this name; `changed`: changed by another request at the same moment"),
                CHANGED,
            ]),
    },
    Route {
        role: Role::Admin,
        handler: handler!(delete),
        operation: Operation::delete(ITEM, "deleteAgent", "Delete an agent")
            .query(&[QueryParameter::flag(
                "force",
                "true: delete it even if it answers numbers, which then have no agent",
            )])
            .responses(&[
                ResponseSpec::empty(204, "Deleted"),
                NOT_FOUND,
                error(409, "It answers numbers or conversations"),
                CHANGED,
            ]),
    },
    Route {
        role: Role::Admin,
        handler: handler!(try_turn),
        operation: Operation::post(TRY, "tryAgent", "Send an agent one message as a trial, and show its reply or the error; no user gets it")
            .body(RequestBody::json::<TrialMessage>("text"))
            .responses(&[ResponseSpec::json::<TrialView>(200, "The reply or the error"), NOT_FOUND]),
    },
];

/// The message of a trial.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"text": "What are your opening hours?"})))]
struct TrialMessage {
    /// 1 to 4,096 characters.
    text: String,
}

/// The outcome of a trial.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AgentTrial)]
struct TrialView {
    /// Messages in the format of `POST …/messages/`.
    reply: Vec<Value>,
    /// The action that the agent asks for besides its reply: `escalate`, `close`, `hangup` or `transfer`.
    action: Option<&'static str>,
    /// Why there is no reply; null if there is one.
    error: Option<String>,
    /// Time until the reply was complete or had failed.
    milliseconds: u64,
}

/// A page of agents.
#[derive(Serialize, ToSchema)]
#[schema(as = Agents)]
struct AgentList {
    items: Vec<AgentView>,
    next: Option<String>,
}

/// An agent, without its secrets.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Agent)]
struct AgentView {
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
    /// The business numbers for which the agent answers messages.
    inbound_numbers: Vec<String>,
    enabled: bool,
    has_api_key: bool,
    has_signing_secret: bool,
    /// Whether secrets are set but sealed with another `store.secret_key`. The agent is not asked
    /// until that key is restored or they are set again.
    secrets_unreadable: bool,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp3339,
}

/// The fields of a new agent, or the changed fields of an existing one. The outer `None` is an
/// absent field, the inner one `null`.
#[derive(Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schema(as = AgentFields, examples(json!({"name": "Asha", "kind": "http", "channels": ["whatsapp"], "endpoint": "https://agent.example.com/turn"})))]
struct AgentFields {
    /// 1 to 100 characters.
    #[serde(deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    name: Option<Option<String>>,
    #[serde(deserialize_with = "nullable")]
    #[schema(schema_with = kinds)]
    kind: Option<Option<AgentKind>>,
    #[serde(deserialize_with = "nullable")]
    #[schema(schema_with = channels)]
    channels: Option<Option<Vec<AgentChannel>>>,
    /// URL of the agent's server (kind http) or of a model (kind llm); null: the operator's model.
    #[serde(deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    endpoint: Option<Option<String>>,
    #[serde(deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    model: Option<Option<String>>,
    #[serde(deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    instructions: Option<Option<String>>,
    /// The text that is spoken when the agent takes a call.
    #[serde(deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    greeting: Option<Option<String>>,
    /// WOMAN, MAN or the name of a voice; null: the default of the node.
    #[serde(deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    voice: Option<Option<String>>,
    #[serde(deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    language: Option<Option<String>>,
    #[serde(deserialize_with = "nullable")]
    #[schema(value_type = Option<u16>)]
    history_turns: Option<Option<u16>>,
    #[serde(deserialize_with = "nullable")]
    #[schema(value_type = Option<u16>)]
    max_reply_chars: Option<Option<u16>>,
    #[serde(deserialize_with = "nullable")]
    #[schema(value_type = Option<u32>)]
    timeout_ms: Option<Option<u32>>,
    /// A phone number of the account that is registered with the Cloud API.
    #[serde(deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    outbound_number: Option<Option<String>>,
    #[serde(deserialize_with = "nullable")]
    #[schema(value_type = Option<bool>)]
    enabled: Option<Option<bool>>,
    /// API key that is sent to the endpoint; write-only. Removed when the endpoint moves to another
    /// origin.
    #[serde(deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    api_key: Option<Option<String>>,
    /// Secret that signs requests to the endpoint; write-only. Removed when the endpoint moves to
    /// another origin.
    #[serde(deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    signing_secret: Option<Option<String>>,
}

/// The schema of a new agent.
fn new_agent(schemas: &mut Schemas) -> Value {
    json!({"allOf": [of::<AgentFields>(schemas), {"type": "object", "required": ["name", "kind"]}]})
}

fn kinds() -> Object {
    one_of(&["http", "llm"], "http: a server of the customer; llm: an OpenAI-compatible model")
}

fn channels() -> Array {
    let words = [AgentChannel::Whatsapp, AgentChannel::Voice].map(AgentChannel::as_str);
    let item = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words));
    ArrayBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Array, Type::Null]))
        .items(item)
        .description(Some(
            "What the agent answers: messages (whatsapp), calls (voice); default whatsapp",
        ))
        .build()
}

impl AgentFields {
    /// Applies the fields to an agent. `null` sets the default of a new agent.
    fn apply(
        self,
        request: &ApiRequest,
        spec: &mut AgentSpec,
        secrets: &mut AgentSecrets,
    ) -> Result<(), ApiError> {
        let new = AgentSpec::blank();
        if let Some(name) = self.name {
            spec.name = line("name", &name.unwrap_or_default())?;
        }
        if let Some(kind) = self.kind {
            spec.kind =
                kind.ok_or_else(|| ApiError::bad_value("kind", "kind must be http or llm"))?;
        }
        if let Some(channels) = self.channels {
            spec.channels = parse_channels(channels.unwrap_or(new.channels))?;
        }
        if let Some(endpoint) = self.endpoint {
            let endpoint = endpoint
                .filter(|url| !url.is_empty())
                .map(|url| parse_endpoint(request, url))
                .transpose()?;
            // Secrets were given for one server. The next one may belong to someone else.
            if !is_same_server(spec.endpoint.as_deref(), endpoint.as_deref()) {
                *secrets = AgentSecrets::default();
            }
            spec.endpoint = endpoint;
        }
        if let Some(model) = self.model {
            spec.model = model.filter(|m| !m.is_empty()).map(|m| line("model", &m)).transpose()?;
        }
        if let Some(instructions) = self.instructions {
            spec.instructions = bounded("instructions", instructions.unwrap_or_default(), 20_000)?;
        }
        if let Some(greeting) = self.greeting {
            spec.greeting = bounded("greeting", greeting.unwrap_or_default(), 1_000)?;
        }
        if let Some(voice) = self.voice {
            spec.voice = voice.filter(|voice| !voice.is_empty()).map(parse_voice).transpose()?;
        }
        if let Some(language) = self.language {
            spec.language = language.map_or(Ok(new.language), parse_language)?;
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
            spec.outbound_number =
                number.map(|number| parse_outbound_number(request, &number)).transpose()?;
        }
        if let Some(enabled) = self.enabled {
            spec.enabled = enabled.unwrap_or(true);
        }
        if let Some(key) = self.api_key {
            secrets.api_key = parse_secret("apiKey", key)?;
            secrets.unreadable = None;
        }
        if let Some(key) = self.signing_secret {
            secrets.signing_secret = parse_secret("signingSecret", key)?;
            secrets.unreadable = None;
        }
        Ok(())
    }
}

/// Cross-field validation.
fn validate(api: &Api, spec: &AgentSpec) -> Result<(), ApiError> {
    if spec.name.is_empty() {
        return Err(ApiError::bad_value("name", "name must not be empty"));
    }
    match (spec.kind, &spec.endpoint) {
        (AgentKind::Http, None) => {
            Err(ApiError::bad_value("endpoint", "endpoint is required for an agent of kind http"))
        }
        (AgentKind::Llm, None) if !api.agents.has_model() => Err(ApiError::bad_value(
            "endpoint",
            "endpoint is required: this node has no model of its own ([model])",
        )),
        (AgentKind::Llm, None) => match &spec.model {
            Some(named) if !api.agents.model_names().contains(&named.as_str()) => {
                let known = api.agents.model_names().join(", ");
                let message = format!(
                    "model must be one of those of this node: {known}. An agent with an endpoint may name any"
                );
                Err(ApiError::bad_value("model", message))
            }
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Trims a line of at most 100 characters.
fn line(field: &'static str, text: &str) -> Result<String, ApiError> {
    let text = text.trim();
    match is_line(text, 0..=100) {
        true => Ok(text.to_owned()),
        false => {
            let message = format!("{field} must be at most 100 characters on one line");
            Err(ApiError::bad_value(field, message))
        }
    }
}

fn bounded(field: &'static str, text: String, max: usize) -> Result<String, ApiError> {
    match text.chars().count() <= max {
        true => Ok(text),
        false => {
            Err(ApiError::bad_value(field, format!("{field} must be at most {max} characters")))
        }
    }
}

fn within<T: PartialOrd + Copy + std::fmt::Display>(
    field: &'static str,
    value: T,
    least: T,
    most: T,
) -> Result<T, ApiError> {
    match (least..=most).contains(&value) {
        true => Ok(value),
        false => {
            Err(ApiError::bad_value(field, format!("{field} must be between {least} and {most}")))
        }
    }
}

fn parse_channels(mut channels: Vec<AgentChannel>) -> Result<Vec<AgentChannel>, ApiError> {
    channels.sort_unstable();
    channels.dedup();
    match channels.is_empty() {
        true => Err(ApiError::bad_value("channels", "channels must name whatsapp, voice or both")),
        false => Ok(channels),
    }
}

/// Validates the URL like every customer URL (`docs/reference/reliability.md#r17`).
fn parse_endpoint(request: &ApiRequest, url: String) -> Result<String, ApiError> {
    match request.api().placer.check_url(&url).err() {
        Some(why) => Err(ApiError::bad_value("endpoint", format!("endpoint is invalid: {why}"))),
        None if url.contains('#') => {
            Err(ApiError::bad_value("endpoint", "endpoint must not have a fragment"))
        }
        None => Ok(url),
    }
}

/// Whether two endpoints are on the same server, so that the secrets of one may be sent to the other.
fn is_same_server(one: Option<&str>, other: Option<&str>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => egress::is_same_origin(one, other),
        (one, other) => one == other,
    }
}

/// Parses `WOMAN`, `MAN` or the name of an Amazon Polly voice.
fn parse_voice(voice: String) -> Result<String, ApiError> {
    let named = voice.strip_prefix("Polly.").is_some_and(|name| {
        (1..=40).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    });
    match named || matches!(voice.as_str(), "WOMAN" | "MAN") {
        true => Ok(voice),
        false => Err(ApiError::bad_value("voice", "voice must be WOMAN, MAN or Polly.NAME")),
    }
}

fn parse_language(language: String) -> Result<String, ApiError> {
    let mut parts = language.split('-');
    let first = parts
        .next()
        .is_some_and(|p| (2..=3).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_alphabetic()));
    let rest =
        parts.all(|p| (2..=8).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_alphanumeric()));
    match first && rest && language.len() <= 35 {
        true => Ok(language),
        false => Err(ApiError::bad_value("language", "language must be a tag like en-US")),
    }
}

fn parse_secret(field: &'static str, secret: Option<String>) -> Result<Option<Secret>, ApiError> {
    match secret.filter(|secret| !secret.is_empty()) {
        None => Ok(None),
        Some(secret)
            if secret.len() <= 512 && secret.bytes().all(|b| (0x21..0x7f).contains(&b)) =>
        {
            Ok(Some(Secret::new(secret)))
        }
        Some(_) => Err(ApiError::bad_value(
            field,
            format!("{field} must be at most 512 visible ASCII characters"),
        )),
    }
}

/// Whether Meta has reported that a number is not registered with its Cloud API. `false` if Meta
/// has not been queried about the number.
pub(super) fn is_not_on_cloud_api(api: &Api, scope: &Scope, number: &E164) -> bool {
    let book = api.keeper.book();
    book.number(scope, number)
        .is_some_and(|n| !n.set.at_meta.platform_type.is_empty() && !n.set.is_cloud())
}

/// Parses a business number of the scope from which an agent may send messages and call.
fn parse_outbound_number(request: &ApiRequest, text: &str) -> Result<E164, ApiError> {
    let number = parse_number(text)
        .and_then(|n| request.api().gate.directory().tables().by_number(&n).cloned());
    let number =
        number.filter(|n| request.scope().holds(&n.account.auth_id, &n.account.main().auth_id));
    let number = number.ok_or_else(|| {
        ApiError::bad_value(
            "outboundNumber",
            "outboundNumber is not a phone number of this account",
        )
    })?;
    if is_not_on_cloud_api(request.api(), request.scope(), &number.spec.number) {
        return Err(ApiError::bad_value(
            "outboundNumber",
            "outboundNumber is not registered with Meta's Cloud API: register it first",
        ));
    }
    Ok(number.spec.number.clone())
}

fn view(api: &Api, agent: &Agent) -> AgentView {
    let spec = agent.spec.clone();
    AgentView {
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
            .numbers()
            .answered_by(agent.id)
            .iter()
            .map(|n| n.spec.number.to_string())
            .collect(),
        enabled: spec.enabled,
        has_api_key: agent.secrets.api_key.is_some(),
        has_signing_secret: agent.secrets.signing_secret.is_some(),
        secrets_unreadable: agent.secrets.are_unreadable(),
        created_at: Timestamp3339(agent.created),
    }
}

/// The agent that the path names.
async fn find(request: &ApiRequest) -> Result<Agent, ApiError> {
    let id = request.id("agent_id", NO_AGENT)?;
    let found = request.api().store.agents().get(request.scope(), id).await;
    found.map_err(ApiError::store("read an agent"))?.ok_or(ApiError::NotFound(NO_AGENT))
}

async fn try_turn(mut request: ApiRequest) -> Result<Response, ApiError> {
    let TrialMessage { text } = request.json().await?;
    let text = bounded("text", text, 4_096)?;
    if text.trim().is_empty() {
        return Err(ApiError::bad_value("text", "text must not be empty"));
    }
    let agent = find(&request).await?;
    let view = view(request.api(), &agent);
    let number = view.inbound_numbers.into_iter().next().or(view.outbound_number);
    let trial = request.api().agents.try_turn(&agent, &number.unwrap_or_default(), &text).await;
    let milliseconds = u64::try_from(trial.took.as_millis()).unwrap_or(u64::MAX);
    Ok(ok(&match trial.reply {
        Ok(Reply { items, action }) => TrialView {
            reply: items.into_iter().map(Value::Object).collect(),
            action: action.map(|action| match action {
                Action::Escalate => "escalate",
                Action::Close => "close",
                Action::Hangup => "hangup",
                Action::Transfer(_) => "transfer",
            }),
            error: None,
            milliseconds,
        },
        Err(error) => TrialView {
            reply: Vec::new(),
            action: None,
            error: Some(error.to_string()),
            milliseconds,
        },
    }))
}

/// Number of agents that are read at a time. The instructions of each have up to 80 kB.
const BATCH: u32 = 20;
/// Size of the instructions on a page in bytes. A page that reaches it ends.
const PAGE_BYTES: usize = 1 << 20;

/// Reads the agents of a request's scope in batches, newest first.
struct Batches<'a> {
    request: &'a ApiRequest,
    /// The position of the last one.
    before: Option<(Timestamp, Uuid)>,
    /// Whether the last ones have been read.
    ended: bool,
}

impl<'a> Batches<'a> {
    fn after(before: Option<(Timestamp, Uuid)>, request: &'a ApiRequest) -> Self {
        Self { request, before, ended: false }
    }

    /// Returns the next agents. `None` after the last ones.
    async fn next(&mut self) -> Result<Option<Vec<Agent>>, ApiError> {
        if self.ended {
            return Ok(None);
        }
        let _turn = turns::next(&self.request.main_account()).await;
        let agents = self.request.api().store.agents();
        let batch = agents.list(self.request.scope(), self.before, BATCH).await;
        let batch = batch.map_err(ApiError::store("list agents"))?;
        self.ended = batch.len() < BATCH as usize;
        self.before = batch.last().map(|last| (last.created, last.id));
        Ok(Some(batch))
    }
}

async fn list(request: ApiRequest) -> Result<Response, ApiError> {
    let limit = request.limit()?;
    let mut rest = Batches::after(request.cursor(parse_position)?, &request);
    let (mut agents, mut bytes) = (Vec::new(), 0);
    while agents.len() <= limit as usize && bytes < PAGE_BYTES {
        let Some(batch) = rest.next().await? else { break };
        bytes += batch.iter().map(|agent| agent.spec.instructions.len()).sum::<usize>();
        agents.extend(batch);
    }
    let limit = match bytes < PAGE_BYTES {
        true => limit,
        // The last one stands for those that follow.
        false => limit.min(u32::try_from(agents.len()).unwrap_or(limit).saturating_sub(1).max(1)),
    };
    let api = request.api();
    let page = Page::new(agents, limit, |agent| position(agent.created, agent.id));
    let items = page.items.iter().map(|agent| view(api, agent)).collect();
    Ok(ok(&AgentList { items, next: request.next_cursor(page.next) }))
}

async fn create(mut request: ApiRequest) -> Result<Response, ApiError> {
    let fields: AgentFields = request.json().await?;
    if fields.kind.is_none() {
        return Err(ApiError::bad_value("kind", "kind is missing"));
    }
    let (mut spec, mut secrets) = (AgentSpec::blank(), AgentSecrets::default());
    fields.apply(&request, &mut spec, &mut secrets)?;
    let api = request.api();
    validate(api, &spec)?;
    let main_account = request.main_account();
    let agent = Agent {
        id: Uuid::new_v4(),
        account: request.scope().auth_id().clone(),
        main_account: main_account.clone(),
        spec,
        secrets,
        created: api.clock.steady(),
    };
    check_name(&request, &agent).await?;
    let is_created = api.store.agents().create(agent.clone()).await;
    if !is_created.map_err(ApiError::store("create an agent"))? {
        let message = format!("an account can have at most {AGENTS_MAX} agents");
        return Err(ApiError::conflict("too_many", message));
    }
    api.feed.publish(audience(&agent), FeedChange::Agent(agent.id));
    let view = view(api, &agent);
    let tag = etag(&view);
    Ok(with_etag(created(&view), &tag))
}

/// Refuses a name that another agent of the account has: files of `offhook numbers export` refer to
/// agents by name.
async fn check_name(request: &ApiRequest, agent: &Agent) -> Result<(), ApiError> {
    let name = &agent.spec.name;
    let mut rest = Batches::after(None, request);
    while let Some(batch) = rest.next().await? {
        if batch.iter().any(|other| other.account == agent.account && other.spec.name == *name) {
            let message = format!("an agent is named {name} already");
            return Err(ApiError::conflict("name_taken", message));
        }
    }
    Ok(())
}

fn audience(agent: &Agent) -> Audience<'_> {
    Audience::of(&agent.account, &agent.main_account)
}

async fn get(request: ApiRequest) -> Result<Response, ApiError> {
    Ok(ok_with_etag(&view(request.api(), &find(&request).await?)))
}

async fn change(mut request: ApiRequest) -> Result<Response, ApiError> {
    let mut agent = find(&request).await?;
    request.check_if_match(&etag(&view(request.api(), &agent)))?;
    let fields: AgentFields = request.json().await?;
    let before = agent.spec.clone();
    fields.apply(&request, &mut agent.spec, &mut agent.secrets)?;
    let api = request.api();
    validate(api, &agent.spec)?;
    // Earlier versions allowed two agents of one name. Everything else of them can be changed.
    if agent.spec.name != before.name {
        check_name(&request, &agent).await?;
    }
    let is_changed = api.store.agents().change(agent.clone(), before).await;
    if !is_changed.map_err(ApiError::store("change an agent"))? {
        let message = "the agent was changed by another request at the same moment: read it again";
        return Err(ApiError::conflict("changed", message));
    }
    api.feed.publish(audience(&agent), FeedChange::Agent(agent.id));
    Ok(ok_with_etag(&view(api, &agent)))
}

async fn delete(request: ApiRequest) -> Result<Response, ApiError> {
    let agent = find(&request).await?;
    let api = request.api();
    request.check_if_match(&etag(&view(api, &agent)))?;
    let answered = api.inbox.numbers().answered_by(agent.id);
    let force = request.query_flag("force")?.unwrap_or_default();
    if !api.inbox.router().remove_agent(request.scope(), &agent, force).await? {
        return Err(ApiError::NotFound(NO_AGENT));
    }
    for number in &answered {
        api.numbers.panel().release_from_agent(request.scope(), &number.spec.number).await?;
    }
    Ok(no_content())
}
