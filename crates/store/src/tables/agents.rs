//! AI agents: named configurations that answer messages and calls. Their secrets are encrypted.

use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{StoreError, failed};
use crate::page::NewestFirst;
use crate::scope::{Scope, push_scope};
use crate::seal::Seal;
use crate::shared::Shared;
use crate::sql::{self, Conn, Pool, QueryBuilder, Row};
use crate::tables::numbers::{NUMBER_JOIN, OWN_ROUTING};
use crate::write::WriteTask;
use model::{AuthId, E164, Secret, Timestamp};

/// Handle to the AI agents. See [`Store::agents`](crate::Store::agents).
#[derive(Clone, Copy, Debug)]
pub struct Agents<'a>(pub(crate) &'a Shared);

impl Agents<'_> {
    /// Creates an agent. Returns `false` if the account already has [`AGENTS_MAX`] agents. The
    /// agent is on disk when this returns.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn create(self, agent: Agent) -> Result<bool, StoreError> {
        Ok(self.0.queue.run(AgentWrite::Create(agent)).await? > 0)
    }

    /// Replaces an agent. Returns `false` if it does not exist or its current configuration is not
    /// `before`.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects the write. Nothing has changed
    /// then.
    pub async fn change(self, agent: Agent, before: AgentSpec) -> Result<bool, StoreError> {
        Ok(self.0.queue.run(AgentWrite::Change(agent, before)).await? > 0)
    }

    /// Returns whether conversations are routed to an agent, by their own routing or by their
    /// number's.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn is_in_use(self, id: Uuid) -> Result<bool, StoreError> {
        let select = format!(
            "SELECT (SELECT count(*) FROM number_tenures t WHERE t.agent = $1) + (SELECT count(*) FROM \
             (SELECT 1 AS one FROM conversations c {NUMBER_JOIN} WHERE c.agent IS NOT NULL AND c.agent = $1 AND {OWN_ROUTING} LIMIT 1) AS found)"
        );
        let found: i64 = sql::query_scalar(select)
            .bind(id.to_string())
            .fetch_one(&self.0.read)
            .await
            .map_err(failed(WHAT))?;
        Ok(found > 0)
    }

    /// Deletes an agent and every routing to it. The affected conversations have no agent then.
    /// Returns `false` if the scope has no such agent.
    ///
    /// # Errors
    /// Fails with [`StoreError::NotTaken`] if the database rejects a write. The agent still exists
    /// then.
    pub async fn delete(self, scope: &Scope, id: Uuid) -> Result<bool, StoreError> {
        if self.get(scope, id).await?.is_none() {
            return Ok(false);
        }
        // In batches, so that the writes of calls don't have to wait.
        while self.0.queue.run(AgentWrite::Unroute(id, UNROUTE_BATCH)).await?
            >= u64::from(UNROUTE_BATCH)
        {}
        Ok(self.0.queue.run(AgentWrite::Delete(scope.clone(), id)).await? > 0)
    }

    /// Returns whether any account has an agent with this id.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn exists(self, id: Uuid) -> Result<bool, StoreError> {
        let count = sql::query_scalar("SELECT count(*) FROM agents WHERE agent_id = $1")
            .bind(id.to_string());
        let count: i64 = count.fetch_one(&self.0.read).await.map_err(failed(WHAT))?;
        Ok(count > 0)
    }

    /// Returns an agent, or `None` if the scope has no such agent.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn get(self, scope: &Scope, id: Uuid) -> Result<Option<Agent>, StoreError> {
        let mut select = select(scope);
        select.push(" AND agent_id = ").push_bind(id.to_string());
        let row = select.build().fetch_optional(&self.0.read).await.map_err(failed(WHAT))?;
        row.as_ref().map(|row| self.agent_of(row)).transpose()
    }

    /// Returns agents of the scope after `before`, newest first.
    ///
    /// # Errors
    /// Fails if the database query fails.
    pub async fn list(
        self,
        scope: &Scope,
        before: Option<(Timestamp, Uuid)>,
        limit: u32,
    ) -> Result<Vec<Agent>, StoreError> {
        let mut select = select(scope);
        ORDER.push(&mut select, before, limit);
        let rows = select.build().fetch_all(&self.0.read).await.map_err(failed(WHAT))?;
        rows.iter().map(|row| self.agent_of(row)).collect()
    }

    fn agent_of(self, row: &Row) -> Result<Agent, StoreError> {
        let unreadable = |detail: String| StoreError::Unreadable { what: WHAT, detail };
        let text = |column: &str| row.try_get::<String, _>(column).map_err(failed(WHAT));
        let id: Uuid =
            text("agent_id")?.parse().map_err(|e: uuid::Error| unreadable(e.to_string()))?;
        Ok(Agent {
            id,
            account: text("auth_id")?.into(),
            main_account: text("main_auth_id")?.into(),
            spec: serde_json::from_str(&text("body")?).map_err(|e| unreadable(e.to_string()))?,
            secrets: AgentSecrets::opened(
                id,
                row.try_get("sealed").map_err(failed(WHAT))?,
                &self.0.seal,
            ),
            created: Timestamp::from_micros(row.try_get("created_us").map_err(failed(WHAT))?),
        })
    }
}

/// What generates an agent's replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AgentKind {
    /// A customer's server that speaks Offhook's agent protocol.
    Http,
    /// A language model with an OpenAI-compatible API.
    Llm,
}

/// A channel on which an agent answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AgentChannel {
    Whatsapp,
    Voice,
}

impl AgentChannel {
    /// The name in API and database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Whatsapp => "whatsapp",
            Self::Voice => "voice",
        }
    }
}

/// The configuration of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentSpec {
    pub name: String,
    pub kind: AgentKind,
    pub channels: Vec<AgentChannel>,
    /// URL of the server or model. `None` for the model that the operator has configured.
    pub endpoint: Option<String>,
    /// Name of the model. `None` for the operator's model.
    pub model: Option<String>,
    pub instructions: String,
    /// The text that is spoken when a call is answered.
    pub greeting: String,
    /// `WOMAN`, `MAN` or the name of a Polly voice. `None` for the node's default voice.
    pub voice: Option<String>,
    pub language: String,
    pub history_turns: u16,
    pub max_reply_chars: u16,
    pub timeout_ms: u32,
    pub outbound_number: Option<E164>,
    pub enabled: bool,
}

impl AgentSpec {
    /// The default configuration, without a name.
    pub fn blank() -> Self {
        Self {
            name: String::new(),
            kind: AgentKind::Http,
            channels: vec![AgentChannel::Whatsapp],
            endpoint: None,
            model: None,
            instructions: String::new(),
            greeting: String::new(),
            voice: None,
            language: "en-US".to_owned(),
            history_turns: 20,
            max_reply_chars: 4096,
            timeout_ms: 20_000,
            outbound_number: None,
            enabled: true,
        }
    }

    /// Returns whether the agent is enabled and answers on this channel.
    pub fn serves(&self, channel: AgentChannel) -> bool {
        self.enabled && self.channels.contains(&channel)
    }

    /// Maximum duration of a turn.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms.into())
    }
}

/// Secrets that are sent only to the agent's server.
#[derive(Clone, Debug, Default)]
pub struct AgentSecrets {
    /// The API key, sent as a bearer token.
    pub api_key: Option<Secret>,
    /// Key that signs the requests. `None` for the account's auth token.
    pub signing_secret: Option<Secret>,
    /// The encrypted secrets, if they were encrypted with another `store.secret_key`. They are kept
    /// until others are set or that key is restored.
    pub unreadable: Option<Vec<u8>>,
}

/// An AI agent. Its serialized form has no secrets: they count as unreadable until the agent is read
/// from the store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Agent {
    pub id: Uuid,
    /// The owner and its main account, which may be the same.
    pub account: AuthId,
    pub main_account: AuthId,
    pub spec: AgentSpec,
    #[serde(skip, default = "AgentSecrets::not_read")]
    pub secrets: AgentSecrets,
    pub created: Timestamp,
}

/// Maximum number of agents of an account.
pub const AGENTS_MAX: u32 = 1_000;

const ORDER: NewestFirst = NewestFirst { time: "created_us", id: "agent_id" };

/// Number of conversations to reroute in one write.
const UNROUTE_BATCH: u32 = 500;

const COLUMNS: &str = "agent_id, auth_id, main_auth_id, body, sealed, created_us";

const WHAT: &str = "read agents";

/// Returns the enabled agents of all accounts that answer calls.
pub(crate) async fn voice_agents(pool: &Pool) -> Result<Vec<AgentSpec>, StoreError> {
    let select = sql::query_scalar("SELECT body FROM agents ORDER BY created_us, agent_id");
    let bodies: Vec<String> = select.fetch_all(pool).await.map_err(failed(WHAT))?;
    let specs = bodies.iter().filter_map(|body| serde_json::from_str::<AgentSpec>(body).ok());
    Ok(specs.filter(|spec| spec.serves(AgentChannel::Voice)).collect())
}

/// The encrypted form of [`AgentSecrets`].
#[derive(Default, Serialize, Deserialize)]
struct PlainSecrets {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    api_key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signing_secret: Option<String>,
}

impl AgentSecrets {
    fn not_read() -> Self {
        Self { unreadable: Some(Vec::new()), ..Self::default() }
    }

    /// Whether there are secrets, but none that can be used.
    pub fn are_unreadable(&self) -> bool {
        self.unreadable.is_some()
    }

    fn sealed(&self, id: Uuid, seal: &Seal) -> Option<Vec<u8>> {
        if self.api_key.is_none() && self.signing_secret.is_none() {
            return self.unreadable.clone();
        }
        let shown =
            |secret: &Option<Secret>| secret.as_ref().map(|secret| secret.reveal().to_owned());
        let plain = PlainSecrets {
            api_key: shown(&self.api_key),
            signing_secret: shown(&self.signing_secret),
        };
        Some(seal.seal(&purpose(&id.to_string()), serde_json::to_vec(&plain).unwrap_or_default()))
    }

    fn opened(id: Uuid, sealed: Option<Vec<u8>>, seal: &Seal) -> Self {
        let Some(sealed) = sealed else { return Self::default() };
        let plain = seal.open(&purpose(&id.to_string()), &sealed);
        let plain = plain.and_then(|plain| serde_json::from_slice::<PlainSecrets>(&plain).ok());
        match plain {
            Some(plain) => Self {
                api_key: plain.api_key.map(Secret::new),
                signing_secret: plain.signing_secret.map(Secret::new),
                unreadable: None,
            },
            None => Self { unreadable: Some(sealed), ..Self::default() },
        }
    }
}

pub(crate) fn purpose(id: &str) -> Vec<u8> {
    format!("agent {id}").into_bytes()
}

enum AgentWrite {
    /// Creates an agent. Changes nothing if the account has [`AGENTS_MAX`] agents.
    Create(Agent),
    /// Replaces the agent. Changes nothing if its configuration is no longer the given one.
    Change(Agent, AgentSpec),
    /// Deletes the agent and every routing to it.
    Delete(Scope, Uuid),
    /// Resets the routing of up to this number of conversations that are routed to the agent.
    Unroute(Uuid, u32),
}

impl WriteTask for AgentWrite {
    fn execute<'a>(
        &'a self,
        to: &'a mut Conn,
        seal: &'a Seal,
    ) -> BoxFuture<'a, Result<u64, sqlx::Error>> {
        async move {
            match self {
                Self::Create(agent) => create(to, seal, agent).await,
                Self::Change(agent, before) => change(to, seal, agent, before).await,
                Self::Delete(scope, id) => {
                    let mut delete = QueryBuilder::new("DELETE FROM agents WHERE ");
                    push_scope(&mut delete, scope);
                    delete.push(" AND agent_id = ").push_bind(id.to_string());
                    let gone = delete.build().execute(&mut *to).await?.rows_affected();
                    if gone > 0 {
                        for table in ["number_routing", "number_tenures"] {
                            let reset = format!(
                                "UPDATE {table} SET routing = 'none', agent = NULL WHERE agent = $1"
                            );
                            sql::query(reset).bind(id.to_string()).execute(&mut *to).await?;
                        }
                        unroute(to, *id, u32::MAX).await?;
                    }
                    Ok(gone)
                }
                Self::Unroute(id, limit) => unroute(to, *id, *limit).await,
            }
        }
        .boxed()
    }
}

async fn unroute(to: &mut Conn, agent: Uuid, limit: u32) -> Result<u64, sqlx::Error> {
    let update = "UPDATE conversations SET routing = 'none', agent = NULL, epoch = epoch + 1 WHERE conversation_id IN \
        (SELECT conversation_id FROM conversations WHERE agent IS NOT NULL AND agent = $1 LIMIT $2)";
    let update = sql::query(update).bind(agent.to_string()).bind(i64::from(limit));
    Ok(update.execute(to).await?.rows_affected())
}

/// Serializes the configuration. This can't fail.
fn body(spec: &AgentSpec) -> String {
    serde_json::to_string(spec).unwrap_or_default()
}

async fn create(to: &mut Conn, seal: &Seal, agent: &Agent) -> Result<u64, sqlx::Error> {
    let insert = "INSERT INTO agents (agent_id, auth_id, main_auth_id, body, sealed, created_us) \
        SELECT $1, $2, $3, $4, $5, $6 FROM (SELECT count(*) AS has FROM agents WHERE main_auth_id = $3) AS counted \
        WHERE has < $7";
    let insert = sql::query(insert)
        .bind(agent.id.to_string())
        .bind(agent.account.as_str())
        .bind(agent.main_account.as_str())
        .bind(body(&agent.spec));
    let insert = insert.bind(agent.secrets.sealed(agent.id, seal)).bind(agent.created.micros());
    Ok(insert.bind(i64::from(AGENTS_MAX)).execute(to).await?.rows_affected())
}

async fn change(
    to: &mut Conn,
    seal: &Seal,
    agent: &Agent,
    before: &AgentSpec,
) -> Result<u64, sqlx::Error> {
    let update = "UPDATE agents SET body = $2, sealed = $3 WHERE agent_id = $1 AND body = $4";
    let update = sql::query(update).bind(agent.id.to_string()).bind(body(&agent.spec));
    let update = update.bind(agent.secrets.sealed(agent.id, seal)).bind(body(before));
    Ok(update.execute(to).await?.rows_affected())
}

fn select(scope: &Scope) -> QueryBuilder {
    let mut select = QueryBuilder::new(format!("SELECT {COLUMNS} FROM agents WHERE "));
    push_scope(&mut select, scope);
    select
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use model::Health;

    fn agent(n: u8, account: &str, main: &str) -> Agent {
        Agent {
            id: Uuid::from_u128(u128::from(n)),
            account: account.into(),
            main_account: main.into(),
            spec: AgentSpec {
                name: format!("Agent {n}"),
                endpoint: Some("https://example.com/agent".to_owned()),
                ..AgentSpec::blank()
            },
            secrets: AgentSecrets {
                api_key: Some(Secret::new("canary-key")),
                ..AgentSecrets::default()
            },
            created: Timestamp::from_secs(n.into()),
        }
    }

    #[tokio::test]
    async fn r16_agents_are_separated_by_account_and_their_secrets_encrypted() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("o.db"), Health::new()).await.unwrap();
        let [main, sub, other] = ["MA1", "SA1", "MA2"].map(|id| Scope::of(id.into()));
        for (n, account) in [(1, "MA1"), (2, "SA1")] {
            assert!(store.agents().create(agent(n, account, "MA1")).await.unwrap());
        }
        let ids = async |scope: &Scope, before| {
            let agents = store.agents().list(scope, before, 9).await.unwrap();
            agents.iter().map(|a| a.id.as_u128()).collect::<Vec<_>>()
        };
        assert_eq!(
            (ids(&main, None).await, ids(&sub, None).await, ids(&other, None).await),
            (vec![2, 1], vec![2], vec![])
        );
        assert_eq!(ids(&main, Some((Timestamp::from_secs(2), Uuid::from_u128(2)))).await, [1]);
        let one = Uuid::from_u128(1);
        let mut found = store.agents().get(&main, one).await.unwrap().unwrap();
        assert_eq!(found.secrets.api_key.as_ref().unwrap().reveal(), "canary-key");
        assert!(store.agents().get(&sub, one).await.unwrap().is_none());
        let before = found.spec.clone();
        found.spec.enabled = false;
        assert!(store.agents().change(found.clone(), before.clone()).await.unwrap());
        found.spec.name = "Late".to_owned();
        assert!(
            !store.agents().change(found, before).await.unwrap(),
            "the agent was changed before"
        );
        assert!(!store.agents().get(&main, one).await.unwrap().unwrap().spec.enabled);
        assert!(!store.agents().delete(&other, one).await.unwrap());
        assert!(store.agents().delete(&main, one).await.unwrap());
        store.close().await;
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            assert!(!bytes.windows(6).any(|w| w == b"canary"), "r22");
        }
    }
}
