//! Requests one turn from an agent: from a customer's server with Offhook's contract, or from a
//! model. It makes up to three attempts through `egress` and passes the reply on piece by piece. It
//! does not depend on conversations or calls.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, USER_AGENT as USER_AGENT_HEADER,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::contract::{self, Piece, Question};
use super::events::Events;
use super::llm::{self, ActionParser};
use super::settings::{ModelSettings, SharedModel};
use crate::answer::{EVENT_SIGNATURE, sign_event};
use egress::{BodyPolicy, Egress, EgressError, EgressRequest, EgressStream, USER_AGENT};
use model::{AuthId, Clock, Secret};
use store::{Agent, AgentKind};

const EVENT_ID: HeaderName = HeaderName::from_static("x-offhook-event-id");
const ATTEMPT: HeaderName = HeaderName::from_static("x-offhook-attempt");
/// The largest number of attempts per turn.
const ATTEMPTS_MAX: u32 = 3;
/// The pause before the second attempt. It doubles before the third.
const PAUSE: Duration = Duration::from_millis(300);
/// The time limit for establishing a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The time limit of the check of the operator's model.
const CHECK_TIMEOUT: Duration = Duration::from_secs(20);
/// The number of models in [`LimitNames`]. Requests to further ones are sent twice.
const LIMIT_NAMES_MAX: usize = 10_000;
/// How much of an error response is read, in bytes, and for how long.
const ERROR_MAX: usize = 4 * 1024;
const ERROR_TIMEOUT: Duration = Duration::from_secs(1);
/// The maximum size of a reply in bytes.
const REPLY_MAX: usize = 256 * 1024;

/// The reason why an agent did not reply.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("the agent has no endpoint, and this node has no model of its own ([model])")]
    NoEndpoint,
    #[error("agents of this node may not use the model that the agent names ([model] allowed)")]
    Model,
    #[error(
        "the account has used all of its requests to the node's model ([model] requests_per_day)"
    )]
    Budget,
    #[error("too many trials and insights of the account are in progress; try again later")]
    Busy,
    #[error("request to the agent failed: {0}")]
    Unreachable(#[from] EgressError),
    #[error("the node's model can't be reached")]
    NodeModel,
    #[error("the agent answered with status {status}{}{text}", if .text.is_empty() { "" } else { ": " })]
    Status {
        status: u16,
        /// The beginning of the server's explanation. Empty if there is none.
        text: String,
    },
    #[error("the agent did not answer completely within {0:?}")]
    Late(Duration),
    #[error("the agent's answer is invalid: {0}")]
    Unreadable(String),
    #[error(
        "the agent's secrets can't be read: if they were sealed with another store.secret_key, restore that key or set them again"
    )]
    Secrets,
    #[error("the agent's key contains a character that is not allowed in an HTTP header")]
    Key,
}

/// Receives a reply piece by piece.
pub(super) trait ReplySink: Send {
    /// Takes the next piece.
    ///
    /// # Errors
    /// Fails if the reply exceeds a limit.
    fn receive(&mut self, piece: Piece) -> Result<(), String>;
    /// Discards the pieces of a failed attempt. Returns `false` if some of them were already passed
    /// on and would be repeated by another attempt.
    fn retract(&mut self) -> bool;
    /// Takes notice of an empty reply that has this unknown key instead of `reply`.
    ///
    /// # Errors
    /// Fails if that counts as an error.
    fn receive_unknown(&mut self, _key: &str) -> Result<(), String> {
        Ok(())
    }
}

/// A client for agents. Clones are cheap and share their state.
#[derive(Clone)]
pub struct AgentClient {
    /// The HTTP client for customers' servers.
    pub(super) egress: Egress,
    /// The HTTP client for the operator's own model, which may have a private address.
    pub(super) model_egress: Egress,
    pub(super) model: Option<Arc<SharedModel>>,
    pub(super) clock: Clock,
    pub(super) limit_names: LimitNames,
}

/// The models that take the limit of the answer as `max_completion_tokens`, by URL and name.
#[derive(Clone, Default)]
pub(super) struct LimitNames(Arc<Mutex<HashSet<(String, String)>>>);

impl LimitNames {
    fn models(&self) -> MutexGuard<'_, HashSet<(String, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AgentError {
    /// Returns an error of the operator's model as tenants may see it: without the server's address and
    /// without its own words, which are logged. Some servers repeat the key, which is not.
    fn of_operators_model(self, key: Option<&Secret>) -> Self {
        match self {
            Self::Status { status, text } if !text.is_empty() => {
                let text = without_key(text, key);
                tracing::warn!(status, text, "the node's model refused a request");
                Self::Status { status, text: String::new() }
            }
            Self::Unreachable(error) => {
                tracing::warn!(%error, "request to the node's model failed");
                Self::NodeModel
            }
            Self::Unreadable(error) => {
                let error = without_key(error, key);
                tracing::warn!(error, "invalid answer of the node's model");
                Self::Unreadable("the node's log says why".to_owned())
            }
            error => error,
        }
    }

    /// Whether a model does not take the limit of the answer under the name that it was given.
    fn is_about_limit(&self) -> bool {
        matches!(self, Self::Status { status: 400, text } if text.contains("max_completion_tokens"))
    }
}

/// Returns a text of a server without the key that the request had.
fn without_key(text: String, key: Option<&Secret>) -> String {
    match key.map(Secret::reveal).filter(|key| !key.is_empty()) {
        Some(key) => text.replace(key, "…"),
        None => text,
    }
}

/// The destination of a request.
struct Target<'a> {
    egress: Egress,
    url: String,
    key: Option<&'a Secret>,
    model: &'a str,
}

impl AgentClient {
    /// Requests one turn, in up to three attempts, and passes the reply to `on`. Once a part of the
    /// reply has been used, no further attempt is made. `sign_with` are the account's signing keys,
    /// used if the agent has none; there are two during a rotation.
    ///
    /// # Errors
    /// Returns the error of the last attempt.
    pub(super) async fn turn(
        &self,
        agent: &Agent,
        sign_with: &[Secret],
        (event, question): (Uuid, &Question),
        on: &mut dyn ReplySink,
    ) -> Result<(), AgentError> {
        let mut pause = PAUSE;
        for attempt in 1.. {
            let work = self.attempt(agent, sign_with, question, (event, attempt), on);
            let within = agent.spec.timeout();
            let done = timeout(within, work).await.unwrap_or(Err(AgentError::Late(within)));
            let done = match agent.spec.endpoint {
                Some(_) => done,
                None => {
                    let key = self.model.as_ref().and_then(|model| model.settings.api_key.as_ref());
                    done.map_err(|error| error.of_operators_model(key))
                }
            };
            match done {
                Err(error) if attempt < ATTEMPTS_MAX && on.retract() => {
                    tracing::info!(agent = %agent.id, attempt, %error, "agent request failed; retrying");
                    sleep(pause).await;
                    pause *= 2;
                }
                done => return done,
            }
        }
        Ok(())
    }

    async fn attempt(
        &self,
        agent: &Agent,
        sign_with: &[Secret],
        question: &Question,
        event: (Uuid, u32),
        on: &mut dyn ReplySink,
    ) -> Result<(), AgentError> {
        if agent.secrets.are_unreadable() {
            return Err(AgentError::Secrets);
        }
        let target = self.target(agent)?;
        if agent.spec.endpoint.is_none()
            && let Some(model) = &self.model
            && !model.take_request(&agent.main_account).await
        {
            return Err(AgentError::Budget);
        }
        let within = agent.spec.timeout();
        if agent.spec.kind == AgentKind::Llm {
            let asked = llm::completion(&agent.spec, target.model, question);
            return llm_reply(complete(&self.limit_names, &target, asked, within).await?, on).await;
        }
        let body = serde_json::to_vec(question);
        let body = body.map_err(|e| AgentError::Unreadable(e.to_string()))?;
        let mut headers = headers(target.key)?;
        headers.insert(EVENT_ID, header(&event.0.to_string())?);
        headers.insert(ATTEMPT, HeaderValue::from(event.1));
        let secrets = agent.secrets.signing_secret.as_ref().map_or(sign_with, std::slice::from_ref);
        let signature = sign_event(&body, secrets, self.clock.wall().secs());
        headers.insert(EVENT_SIGNATURE, header(&signature)?);
        http_reply(agent.id, post(&target, headers, body.into(), within).await?, on).await
    }

    fn target<'a>(&'a self, agent: &'a Agent) -> Result<Target<'a>, AgentError> {
        let named = agent.spec.model.as_deref();
        match (&agent.spec.endpoint, agent.spec.kind, &self.model) {
            (Some(endpoint), kind, _) => Ok(Target {
                egress: self.egress.of(agent.main_account.as_str()),
                url: match kind {
                    AgentKind::Http => endpoint.clone(),
                    AgentKind::Llm => completions(endpoint),
                },
                key: agent.secrets.api_key.as_ref(),
                model: named.unwrap_or("default"),
            }),
            (None, AgentKind::Llm, Some(model)) => Ok(Target {
                egress: self.model_egress.clone(),
                url: completions(model.settings.url.as_str()),
                key: model.settings.api_key.as_ref(),
                model: model.choose(named).ok_or(AgentError::Model)?,
            }),
            (None, _, _) => Err(AgentError::NoEndpoint),
        }
    }

    /// Asks the operator's model on behalf of an account, and returns the complete answer.
    ///
    /// # Errors
    /// Fails if no model is configured, if the account has no requests left, or if the model does
    /// not answer.
    pub(super) async fn ask_model(
        &self,
        main_account: &AuthId,
        system: &str,
        user: &str,
        within: Duration,
    ) -> Result<String, AgentError> {
        let shared = self.model.as_ref().ok_or(AgentError::NoEndpoint)?;
        if !shared.take_request(main_account).await {
            return Err(AgentError::Budget);
        }
        let (model, egress) = (&shared.settings, &self.model_egress);
        let asked = ask(&self.limit_names, model, egress, system, user, within).await;
        asked.map_err(|error| error.of_operators_model(model.api_key.as_ref()))
    }
}

/// Asks the operator's model for a word, to check that it answers. Counts for no account.
///
/// # Errors
/// Fails if the model does not answer.
pub async fn check_model(settings: &ModelSettings, egress: &Egress) -> Result<(), AgentError> {
    let names = LimitNames::default();
    ask(&names, settings, egress, "Answer with one word.", "Hello", CHECK_TIMEOUT).await.map(drop)
}

/// Asks the operator's model, and returns the complete answer.
async fn ask(
    names: &LimitNames,
    model: &ModelSettings,
    egress: &Egress,
    system: &str,
    user: &str,
    within: Duration,
) -> Result<String, AgentError> {
    let target = Target {
        egress: egress.clone(),
        url: completions(model.url.as_str()),
        key: model.api_key.as_ref(),
        model: &model.name,
    };
    let messages = vec![llm::Message::new("system", system), llm::Message::new("user", user)];
    let asked = llm::Completion::new(target.model, messages, 500);
    let work = async {
        let answer = complete(names, &target, asked, within).await?;
        let mut text = String::new();
        let mut on = |piece: String| {
            text.push_str(&piece);
            Ok(())
        };
        completed(answer, &mut on).await?;
        Ok(text)
    };
    timeout(within, work).await.unwrap_or(Err(AgentError::Late(within)))
}

/// Returns the URL of `/chat/completions` below a base URL. A base URL that ends with that path is
/// used as it is.
fn completions(base: &str) -> String {
    let base = base.trim_end_matches('/');
    if base.ends_with("/chat/completions") {
        base.to_owned()
    } else if base.ends_with("/v1") {
        format!("{base}/chat/completions")
    } else {
        format!("{base}/v1/chat/completions")
    }
}

fn header(text: &str) -> Result<HeaderValue, AgentError> {
    HeaderValue::from_str(text).map_err(|_| AgentError::Key)
}

fn headers(key: Option<&Secret>) -> Result<HeaderMap, AgentError> {
    let mut headers = HeaderMap::new();
    headers.insert(USER_AGENT_HEADER, HeaderValue::from_static(USER_AGENT));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if let Some(key) = key {
        let mut bearer = header(&format!("Bearer {}", key.reveal()))?;
        bearer.set_sensitive(true);
        headers.insert(AUTHORIZATION, bearer);
    }
    Ok(headers)
}

/// Sends a request for a completion. If the model refuses the name of the limit, tries the other one,
/// and remembers it if that succeeds.
async fn complete(
    names: &LimitNames,
    target: &Target<'_>,
    mut asked: llm::Completion<'_>,
    within: Duration,
) -> Result<EgressStream, AgentError> {
    let headers = headers(target.key)?;
    let post = async |asked: &llm::Completion<'_>| {
        let body = serde_json::to_vec(asked).map_err(|e| AgentError::Unreadable(e.to_string()))?;
        post(target, headers.clone(), body.into(), within).await
    };
    let model = (target.url.clone(), target.model.to_owned());
    let is_completion_limit = names.models().contains(&model);
    asked.set_completion_limit(is_completion_limit);
    let answer = post(&asked).await;
    if !answer.as_ref().is_err_and(AgentError::is_about_limit) {
        return answer;
    }
    asked.set_completion_limit(!is_completion_limit);
    let Ok(other) = post(&asked).await else { return answer };
    let mut models = names.models();
    if is_completion_limit {
        models.remove(&model);
    } else if models.len() < LIMIT_NAMES_MAX {
        models.insert(model);
    }
    Ok(other)
}

async fn post(
    target: &Target<'_>,
    headers: HeaderMap,
    body: Bytes,
    read: Duration,
) -> Result<EgressStream, AgentError> {
    let url = target.egress.url(&target.url).map_err(EgressError::Refused)?;
    let body_policy = BodyPolicy::Always { max: REPLY_MAX };
    let ask = EgressRequest {
        method: Method::POST,
        url: &url,
        headers,
        body,
        connect: CONNECT_TIMEOUT,
        read,
        body_policy,
    };
    let mut answer = target.egress.stream(ask).await?;
    if answer.status.is_success() {
        return Ok(answer);
    }
    let status = answer.status.as_u16();
    let mut body = Vec::new();
    let reading = async {
        while let Ok(Some(piece)) = answer.next().await {
            body.extend_from_slice(piece.get(..ERROR_MAX).unwrap_or(&piece));
            if body.len() >= ERROR_MAX {
                break;
            }
        }
    };
    // The status says enough if the rest does not come.
    let _ = timeout(ERROR_TIMEOUT, reading).await;
    Err(AgentError::Status { status, text: llm::explanation(&body) })
}

fn is_stream(answer: &EgressStream) -> bool {
    let kind =
        answer.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("text/event-stream")
}

async fn whole(mut answer: EgressStream) -> Result<Vec<u8>, AgentError> {
    let mut bytes = Vec::new();
    while let Some(piece) = answer.next().await? {
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// Size in bytes of the parts in which streams are parsed.
const PART_BYTES: usize = 8 << 10;

/// The right to parse a part of a stream. One is parsed at a time, so that other work waits for one
/// part only, however many streams there are and however fast they arrive.
static PARTS: Semaphore = Semaphore::const_new(1);

/// Calls `on` with the data of each server-sent event. Returns whether the stream ended with
/// `[DONE]`.
async fn each_event(
    mut answer: EgressStream,
    mut on: impl FnMut(&[u8]) -> Result<(), String> + Send,
) -> Result<bool, AgentError> {
    let mut events = Events::default();
    while let Some(piece) = answer.next().await? {
        for part in piece.chunks(PART_BYTES) {
            let _turn = PARTS.acquire().await;
            for data in events.push(part).map_err(AgentError::Unreadable)? {
                if data == b"[DONE]" {
                    return Ok(true);
                }
                on(&data).map_err(AgentError::Unreadable)?;
            }
        }
    }
    match events.finish() {
        Some(data) if data == b"[DONE]" => Ok(true),
        Some(data) => on(&data).map(|()| false).map_err(AgentError::Unreadable),
        None => Ok(false),
    }
}

async fn http_reply(
    agent: Uuid,
    answer: EgressStream,
    on: &mut dyn ReplySink,
) -> Result<(), AgentError> {
    let mut all = |data: &[u8]| {
        let pieces = contract::read(data)?;
        if pieces.is_empty()
            && let Some(key) = contract::unknown_key(data)
        {
            tracing::warn!(%agent, key, "agent reply is empty: it has an unknown key instead of `reply`");
            on.receive_unknown(&key)?;
        }
        pieces.into_iter().try_for_each(|piece| on.receive(piece))
    };
    if is_stream(&answer) {
        return each_event(answer, all).await.map(drop);
    }
    let bytes = whole(answer).await?;
    // An empty body is a valid, empty reply.
    if bytes.is_empty() { Ok(()) } else { all(&bytes).map_err(AgentError::Unreadable) }
}

async fn llm_reply(answer: EgressStream, on: &mut dyn ReplySink) -> Result<(), AgentError> {
    let (mut parser, mut spoken) = (ActionParser::default(), false);
    let mut say = |text: String, on: &mut dyn ReplySink| {
        // White space before the first word is dropped.
        let text = if spoken { text } else { text.trim_start().to_owned() };
        spoken |= !text.is_empty();
        if text.is_empty() { Ok(()) } else { on.receive(Piece::Text(text)) }
    };
    completed(answer, &mut |text| say(parser.push(&text), on)).await?;
    let (rest, action) = parser.finish();
    say(rest, on).map_err(AgentError::Unreadable)?;
    match action {
        Some(action) => on.receive(Piece::Act(action)).map_err(AgentError::Unreadable),
        None if spoken => Ok(()),
        // The model only called tools, or its text was lost. The user still waits for an answer, so
        // this counts as a failure.
        None => Err(AgentError::Unreadable("the model returned no text".to_owned())),
    }
}

/// Passes on the text of a model as it arrives. A stream must have a proper end.
async fn completed(
    answer: EgressStream,
    on: &mut (dyn FnMut(String) -> Result<(), String> + Send),
) -> Result<(), AgentError> {
    if !is_stream(&answer) {
        let part = llm::read(&whole(answer).await?).map_err(AgentError::Unreadable)?;
        return on(part.text).map_err(AgentError::Unreadable);
    }
    let mut finished = false;
    let done = each_event(answer, |data| {
        let part = llm::read(data)?;
        finished |= part.finished;
        on(part.text)
    })
    .await?;
    if done || finished {
        return Ok(());
    }
    // A proxy may close a broken stream regularly; without this check, half an answer would pass
    // for a whole one.
    Err(AgentError::Unreadable("the model's stream ended early".to_owned()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::json;

    use super::super::contract::{Channel, Reply, User, UserInput};
    use super::*;
    use egress::testing::{self, Server, egress, open_guard};
    use store::{AgentSecrets, AgentSpec};

    #[test]
    fn a_servers_text_is_logged_without_the_key() {
        let key = Secret::new("sk-1");
        assert_eq!(without_key("bad key sk-1 (sk-1)".to_owned(), Some(&key)), "bad key … (…)");
        assert_eq!(without_key("bad".to_owned(), None), "bad");
    }

    #[test]
    fn builds_the_completions_url() {
        for (base, want) in [
            ("https://m.example", "https://m.example/v1/chat/completions"),
            ("https://m.example/v1/", "https://m.example/v1/chat/completions"),
            ("https://m.example/x/chat/completions", "https://m.example/x/chat/completions"),
        ] {
            assert_eq!(super::completions(base), want);
        }
    }

    /// Collects a reply. With `whole`, nothing is used before the reply is complete; otherwise each
    /// piece is used immediately.
    struct TestSink {
        reply: Reply,
        whole: bool,
    }

    impl ReplySink for TestSink {
        fn receive(&mut self, piece: Piece) -> Result<(), String> {
            self.reply.add(piece, 4_096)
        }

        fn retract(&mut self) -> bool {
            let back = self.whole || self.reply == Reply::default();
            if back {
                self.reply = Reply::default();
            }
            back
        }
    }

    /// Asks for one turn at a server that gives these answers and repeats the last one. Returns the
    /// result, the text, and the number of requests.
    async fn asked(
        kind: AgentKind,
        whole: bool,
        answers: Vec<testing::Reply>,
    ) -> (Result<(), String>, String, usize) {
        let (answers, count) =
            (std::sync::Mutex::new(answers.into_iter()), std::sync::Arc::new(AtomicUsize::new(0)));
        let counted = count.clone();
        let server = Server::start(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            answers.lock().unwrap().next().unwrap_or(testing::Reply::status(500))
        })
        .await;
        let spec = AgentSpec {
            name: "Asha".to_owned(),
            kind,
            endpoint: Some(format!("http://{}/", server.address)),
            language: "en".to_owned(),
            ..AgentSpec::blank()
        };
        let agent = Agent {
            id: Uuid::nil(),
            account: "MA1".into(),
            main_account: "MA1".into(),
            spec,
            secrets: AgentSecrets::default(),
            created: model::Timestamp::from_secs(0),
        };
        let question = Question {
            conversation: Uuid::nil(),
            call: None,
            number: "918035737458".to_owned(),
            user: User::default(),
            channel: Channel::Message,
            turn: 1,
            input: UserInput {
                kind: "text".to_owned(),
                text: "Hello".to_owned(),
                ..UserInput::default()
            },
            history: Vec::new(),
        };
        let client = AgentClient {
            egress: egress(open_guard(), Vec::new()),
            model_egress: egress(open_guard(), Vec::new()),
            model: None,
            clock: Clock::real(),
            limit_names: LimitNames::default(),
        };
        let mut sink = TestSink { reply: Reply::default(), whole };
        let done = client.turn(&agent, &[], (Uuid::nil(), &question), &mut sink).await;
        (done.map_err(|e| e.to_string()), sink.reply.text(), count.load(Ordering::SeqCst))
    }

    fn json_of(value: serde_json::Value) -> testing::Reply {
        testing::Reply::ok(value.to_string())
    }

    fn events(events: &[&str]) -> testing::Reply {
        let kind = vec![("content-type", "text/event-stream".to_owned())];
        let body: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
        testing::Reply::Whole(200, kind, body.into())
    }

    fn delta(text: &str) -> String {
        json!({"choices": [{"delta": {"content": text}}]}).to_string()
    }

    #[tokio::test]
    async fn a_model_gets_the_limit_under_the_name_that_it_takes() {
        let refused = json!({"error": {"message": "Unsupported parameter: 'max_tokens' is not supported with this \
            model. Use 'max_completion_tokens' instead."}});
        let good = json!({"choices": [{"message": {"content": "Hi"}}]});
        let (refused, good) = (refused.to_string(), good.to_string());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (wanted, bodies) = (Arc::new(Mutex::new("max_completion_tokens")), seen.clone());
        let wants = wanted.clone();
        let server = Server::start(move |request| {
            let body = String::from_utf8_lossy(&request.body).into_owned();
            let has = body.contains(&format!("\"{}\":", *wants.lock().unwrap()));
            bodies.lock().unwrap().push(has);
            match has {
                true => testing::Reply::ok(good.clone()),
                false => testing::Reply::Whole(400, Vec::new(), refused.clone().into()),
            }
        })
        .await;
        let egress = egress(open_guard(), Vec::new());
        let model = ModelSettings {
            url: server.url("/v1").parse().unwrap(),
            api_key: None,
            name: "small".to_owned(),
            allowed: Vec::new(),
            requests_per_day: std::num::NonZeroU32::MIN,
        };
        let names = LimitNames::default();
        let ask = async || {
            super::ask(&names, &model, &egress, "Be brief.", "Hi", CHECK_TIMEOUT).await.unwrap();
            std::mem::take(&mut *seen.lock().unwrap())
        };
        assert_eq!(ask().await, [false, true]);
        assert_eq!(ask().await, [true], "it is remembered");
        // Another server takes the name over.
        *wanted.lock().unwrap() = "max_tokens";
        assert_eq!(ask().await, [false, true]);
        assert_eq!(ask().await, [true]);
    }

    #[tokio::test]
    async fn retries_after_an_error_in_a_200() {
        let half = delta("Half an ans");
        let error = json!({"error": {"message": "quota"}});
        let tools =
            json!({"choices": [{"message": {"content": null, "tool_calls": [{"id": "1"}]}}]});
        let empty = json!({"choices": [{"message": {"content": " \n"}}]});
        type Make<'a> = Box<dyn Fn() -> testing::Reply + 'a>;
        let wrong: Vec<(Make<'_>, &str)> = vec![
            (Box::new(|| json_of(error.clone())), "quota"),
            (Box::new(|| events(&[&error.to_string(), "[DONE]"])), "quota"),
            (Box::new(|| events(&[&half, &error.to_string()])), "quota"),
            (Box::new(|| events(&[&half])), "ended early"),
            (Box::new(|| events(&["[DONE]"])), "returned no text"),
            (Box::new(|| json_of(tools.clone())), "returned no text"),
            (Box::new(|| json_of(empty.clone())), "returned no text"),
        ];
        let all = wrong
            .iter()
            .map(|(answer, _)| asked(AgentKind::Llm, true, vec![answer(), answer(), answer()]));
        let all = futures_util::future::join_all(all).await;
        for ((done, _, tries), (_, why)) in all.into_iter().zip(&wrong) {
            assert!(done.clone().unwrap_err().contains(why), "{done:?}, not {why}");
            assert_eq!(tries, 3, "{why}");
        }
        let well = events(&[&delta("A whole "), &delta("answer."), "[DONE]"]);
        let again =
            asked(AgentKind::Llm, true, vec![events(&[&half, &error.to_string()]), well]).await;
        assert_eq!(again, (Ok(()), "A whole answer.".to_owned(), 2));
        let ended = r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#;
        let without_done =
            asked(AgentKind::Llm, true, vec![events(&[&delta("\n\nYes."), ended])]).await;
        assert_eq!(without_done, (Ok(()), "Yes.".to_owned(), 1));
        // An action alone is a valid answer.
        assert_eq!(
            asked(AgentKind::Llm, true, vec![events(&[&delta("[escalate]"), "[DONE]"])]).await.0,
            Ok(())
        );
    }

    #[tokio::test]
    async fn retries_a_cut_stream_unless_text_was_used() {
        let cut = || {
            testing::Reply::CutStream(format!(
                "data: {}\n\n",
                json!({"type": "text", "text": "One"})
            ))
        };
        let whole = || json_of(json!({"reply": [{"type": "text", "text": "All of it"}]}));
        let again = asked(AgentKind::Http, true, vec![cut(), whole()]).await;
        assert_eq!(again, (Ok(()), "All of it".to_owned(), 2));
        let out = asked(AgentKind::Http, false, vec![cut(), whole()]).await;
        assert!(out.0.is_err(), "{out:?}");
        assert_eq!((out.1.as_str(), out.2), ("One", 1));
        // So is an empty reply.
        assert_eq!(
            asked(AgentKind::Http, true, vec![testing::Reply::ok("")]).await,
            (Ok(()), String::new(), 1)
        );
    }
}
