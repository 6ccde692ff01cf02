//! Asks an agent one turn: its server by our contract, or a model; through `egress`, with two further tries, and what it
//! replies piece by piece as it comes. Knows no conversation and no call.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, USER_AGENT as USER_AGENT_HEADER};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::contract::{self, Piece, Question};
use super::events::Events;
use super::llm::{self, Tail};
use crate::answer::{EVENT_SIGNATURE, sign_event};
use crate::clock::Clock;
use crate::config::{Model, Secret};
use crate::egress::{Egress, EgressError, EgressRequest, EgressStream, USER_AGENT, Want};
use crate::store::{Agent, AgentKind};

const EVENT_ID: HeaderName = HeaderName::from_static("x-offhook-event-id");
const ATTEMPT: HeaderName = HeaderName::from_static("x-offhook-attempt");
/// Tries of a turn.
const TRIES: u32 = 3;
/// Before the second try; the third waits twice as long.
const PAUSE: Duration = Duration::from_millis(300);
/// Until there is a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Bytes of a reply at most.
const REPLY_MAX: usize = 256 * 1024;

/// Why an agent did not reply. The texts read well after "could not …".
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("ask the agent: it names no endpoint, and this node has no [model]")]
    NoEndpoint,
    #[error("ask the agent: {0}")]
    Unreachable(#[from] EgressError),
    #[error("ask the agent: its answer was {0}")]
    Status(u16),
    #[error("ask the agent: no whole answer came within {0:?}")]
    Late(Duration),
    #[error("read the agent's answer: {0}")]
    Unreadable(String),
    #[error("ask the agent: its key has a character that no header may have")]
    Key,
}

/// Who asks agents; cheap to clone.
#[derive(Clone)]
pub struct Asking {
    /// To customers' servers.
    pub(super) egress: Egress,
    /// To the operator's own model, wherever it is.
    pub(super) house: Egress,
    pub(super) model: Option<Model>,
    pub(super) clock: Clock,
}

/// Where a request goes.
struct Target<'a> {
    egress: &'a Egress,
    url: String,
    key: Option<&'a Secret>,
    model: &'a str,
}

impl Asking {
    /// Asks one turn, in up to three tries; `on` gets the pieces of the reply. Once it got one, there is no further try.
    /// `sign_with`: the account's own keys, where the agent has none; two while one takes the other's
    /// place.
    ///
    /// # Errors
    /// Why the last try failed.
    pub(super) async fn turn(
        &self,
        agent: &Agent,
        sign_with: &[Secret],
        (event, question): (Uuid, &Question),
        on: &mut (dyn FnMut(Piece) + Send),
    ) -> Result<(), AgentError> {
        let mut pause = PAUSE;
        for attempt in 1.. {
            let mut begun = false;
            let mut heard = |piece| {
                begun = true;
                on(piece);
            };
            let work = self.once(agent, sign_with, question, (event, attempt), &mut heard);
            let within = agent.spec.timeout();
            let done = timeout(within, work).await.unwrap_or(Err(AgentError::Late(within)));
            match done {
                Err(error) if !begun && attempt < TRIES => {
                    tracing::info!(agent = %agent.id, attempt, %error, "an agent did not reply; it is asked again");
                    sleep(pause).await;
                    pause *= 2;
                }
                done => return done,
            }
        }
        Ok(())
    }

    async fn once(
        &self,
        agent: &Agent,
        sign_with: &[Secret],
        question: &Question,
        event: (Uuid, u32),
        on: &mut (dyn FnMut(Piece) + Send),
    ) -> Result<(), AgentError> {
        let target = self.target(agent)?;
        let unreadable = |e: serde_json::Error| AgentError::Unreadable(e.to_string());
        let body = match agent.spec.kind {
            AgentKind::Http => serde_json::to_vec(question),
            AgentKind::Llm => serde_json::to_vec(&llm::completion(&agent.spec, target.model, question)),
        };
        let body = body.map_err(unreadable)?;
        let mut headers = headers(target.key)?;
        if agent.spec.kind == AgentKind::Http {
            headers.insert(EVENT_ID, header(&event.0.to_string())?);
            headers.insert(ATTEMPT, HeaderValue::from(event.1));
            let secrets = agent.secrets.signing_secret.as_ref().map_or(sign_with, std::slice::from_ref);
            let signature = sign_event(&body, secrets, self.clock.wall().secs());
            headers.insert(EVENT_SIGNATURE, header(&signature)?);
        }
        let answer = post(&target, headers, body.into(), agent.spec.timeout()).await?;
        match agent.spec.kind {
            AgentKind::Http => http_reply(answer, on).await,
            AgentKind::Llm => llm_reply(answer, on).await,
        }
    }

    fn target<'a>(&'a self, agent: &'a Agent) -> Result<Target<'a>, AgentError> {
        let named = agent.spec.model.as_deref();
        match (&agent.spec.endpoint, agent.spec.kind, &self.model) {
            (Some(endpoint), kind, _) => Ok(Target {
                egress: &self.egress,
                url: match kind {
                    AgentKind::Http => endpoint.clone(),
                    AgentKind::Llm => completions(endpoint),
                },
                key: agent.secrets.api_key.as_ref(),
                model: named.unwrap_or("default"),
            }),
            (None, AgentKind::Llm, Some(model)) => Ok(Target {
                egress: &self.house,
                url: completions(model.url.as_str()),
                key: model.api_key.as_ref(),
                model: named.unwrap_or(&model.name),
            }),
            (None, _, _) => Err(AgentError::NoEndpoint),
        }
    }

    /// Asks the operator's model for one answer, whole.
    ///
    /// # Errors
    /// There is none, or it did not answer.
    pub(super) async fn house_model(&self, system: &str, user: &str, within: Duration) -> Result<String, AgentError> {
        let model = self.model.as_ref().ok_or(AgentError::NoEndpoint)?;
        let url = completions(model.url.as_str());
        let target = Target { egress: &self.house, url, key: model.api_key.as_ref(), model: &model.name };
        let asked = llm::Completion {
            model: target.model,
            messages: vec![llm::Message::new("system", system), llm::Message::new("user", user)],
            stream: true,
            max_tokens: 500,
        };
        let body = serde_json::to_vec(&asked).map_err(|e| AgentError::Unreadable(e.to_string()))?;
        let work = async {
            let answer = post(&target, headers(target.key)?, body.into(), within).await?;
            let mut text = String::new();
            completed(answer, &mut |piece| text.push_str(&piece)).await?;
            Ok(text)
        };
        timeout(within, work).await.unwrap_or(Err(AgentError::Late(within)))
    }
}

/// `…/chat/completions` below a base URL, or that URL itself.
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

async fn post(
    target: &Target<'_>,
    headers: HeaderMap,
    body: Bytes,
    read: Duration,
) -> Result<EgressStream, AgentError> {
    let url = target.egress.url(&target.url).map_err(EgressError::Refused)?;
    let want = Want::Body { max: REPLY_MAX };
    let ask = EgressRequest { method: Method::POST, url: &url, headers, body, connect: CONNECT, read, want };
    let answer = target.egress.stream(ask).await?;
    match answer.status.is_success() {
        true => Ok(answer),
        false => Err(AgentError::Status(answer.status.as_u16())),
    }
}

fn is_stream(answer: &EgressStream) -> bool {
    let kind = answer.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("text/event-stream")
}

async fn whole(mut answer: EgressStream) -> Result<Vec<u8>, AgentError> {
    let mut bytes = Vec::new();
    while let Some(piece) = answer.next().await? {
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// Each event's data, as it comes; `[DONE]` is the end.
async fn each_event(
    mut answer: EgressStream,
    mut on: impl FnMut(&[u8]) -> Result<(), String> + Send,
) -> Result<(), AgentError> {
    let mut events = Events::default();
    while let Some(piece) = answer.next().await? {
        for data in events.push(&piece).map_err(AgentError::Unreadable)? {
            if data == b"[DONE]" {
                return Ok(());
            }
            on(&data).map_err(AgentError::Unreadable)?;
        }
    }
    match events.finish().filter(|data| data != b"[DONE]") {
        Some(data) => on(&data).map_err(AgentError::Unreadable),
        None => Ok(()),
    }
}

async fn http_reply(answer: EgressStream, on: &mut (dyn FnMut(Piece) + Send)) -> Result<(), AgentError> {
    if is_stream(&answer) {
        return each_event(answer, |data| contract::read(data).map(|pieces| pieces.into_iter().for_each(&mut *on)))
            .await;
    }
    let bytes = whole(answer).await?;
    // An agent that has nothing to say may say nothing.
    let pieces = if bytes.is_empty() { Vec::new() } else { contract::read(&bytes).map_err(AgentError::Unreadable)? };
    pieces.into_iter().for_each(on);
    Ok(())
}

async fn llm_reply(answer: EgressStream, on: &mut (dyn FnMut(Piece) + Send)) -> Result<(), AgentError> {
    let mut tail = Tail::default();
    completed(answer, &mut |text| {
        let said = tail.push(&text);
        if !said.is_empty() {
            on(Piece::Text(said));
        }
    })
    .await?;
    let (rest, action) = tail.finish();
    if !rest.is_empty() {
        on(Piece::Text(rest));
    }
    action.into_iter().for_each(|action| on(Piece::Act(action)));
    Ok(())
}

/// What a model says, as it comes.
async fn completed(answer: EgressStream, on: &mut (dyn FnMut(String) + Send)) -> Result<(), AgentError> {
    if is_stream(&answer) {
        return each_event(answer, |data| {
            on(llm::text_of(data)?);
            Ok(())
        })
        .await;
    }
    on(llm::text_of(&whole(answer).await?).map_err(AgentError::Unreadable)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn where_completions_are() {
        for (base, want) in [
            ("https://m.example", "https://m.example/v1/chat/completions"),
            ("https://m.example/v1/", "https://m.example/v1/chat/completions"),
            ("https://m.example/x/chat/completions", "https://m.example/x/chat/completions"),
        ] {
            assert_eq!(super::completions(base), want);
        }
    }
}
