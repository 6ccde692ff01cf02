//! AI agents: programs that answer messages and calls for a number. An agent is either a customer's
//! server with Offhook's JSON contract (`contract`) or an OpenAI-compatible model (`llm`). Both are
//! asked by `client`, one turn at a time, and may stream their replies.
//!
//! `messages` answers messages and `voice` answers calls. The store holds the agents' settings, and
//! `api` edits them.

mod client;
pub mod contract;
mod escalation;
mod events;
mod insights;
mod llm;
mod messages;
mod pace;
mod scheduler;
mod sentences;
mod settings;
mod trial;
mod voice;

use std::sync::Arc;
use std::time::Duration;

pub use client::{AgentClient, AgentError, check_model};
pub use insights::Insight;
pub use messages::answer_messages;
pub use settings::ModelSettings;
use settings::SharedModel;
pub use trial::Trial;
pub use voice::VoiceAgents;

use uuid::Uuid;

use crate::admission::Directory;
use crate::notices::Notices;
use egress::{Egress, FairPermit, FairPermits};
use model::{AuthId, Clock};
use store::{Agent, Store};

/// Maximum number of concurrent trials and insights, which people request: in total, and of one main
/// account. Turns with users need the model, too.
const REQUESTS_OF_PEOPLE_MAX: usize = 32;
const REQUESTS_OF_PEOPLE_SHARE: usize = 4;
/// Maximum time for which one waits while the limit is reached.
const REQUEST_OF_PEOPLE_WAIT: Duration = Duration::from_secs(5);

/// The dependencies of agents.
pub struct AgentsParts {
    pub store: Store,
    pub directory: Arc<Directory>,
    pub notices: Notices,
    /// The HTTP clients: `egress` for customers' servers, `model_egress` for the operator's own
    /// model.
    pub egress: Egress,
    pub model_egress: Egress,
    pub model: Option<ModelSettings>,
    pub clock: Clock,
}

/// The agents of all accounts. Clones are cheap and share their state.
#[derive(Clone)]
pub struct Agents(Arc<Inner>);

struct Inner {
    store: Store,
    directory: Arc<Directory>,
    notices: Notices,
    client: AgentClient,
    requests_of_people: FairPermits<AuthId>,
}

impl Agents {
    pub fn new(parts: AgentsParts) -> Self {
        let AgentsParts { store, directory, notices, egress, model_egress, model, clock } = parts;
        let model = model
            .map(|settings| Arc::new(SharedModel::new(settings, store.clone(), clock.clone())));
        let limit_names = client::LimitNames::default();
        let client = AgentClient { egress, model_egress, model, clock, limit_names };
        let requests_of_people = FairPermits::new(REQUESTS_OF_PEOPLE_MAX, REQUESTS_OF_PEOPLE_SHARE);
        Self(Arc::new(Inner { store, directory, notices, client, requests_of_people }))
    }

    /// Waits until a trial or an insight may be requested.
    ///
    /// # Errors
    /// Fails if the account has too many in progress.
    async fn request_of_person(&self, account: &AuthId) -> Result<FairPermit<AuthId>, AgentError> {
        let permit = self.0.requests_of_people.acquire(account);
        tokio::time::timeout(REQUEST_OF_PEOPLE_WAIT, permit).await.map_err(|_| AgentError::Busy)
    }

    /// Returns whether the operator has configured a model (`[model]`).
    pub fn has_model(&self) -> bool {
        self.0.client.model.is_some()
    }

    /// The models that an agent without an endpoint may name, the default first. Empty without
    /// `[model]`.
    pub fn model_names(&self) -> Vec<&str> {
        self.0.client.model.iter().flat_map(|model| model.names()).collect()
    }

    fn store(&self) -> &Store {
        &self.0.store
    }

    fn directory(&self) -> &Directory {
        &self.0.directory
    }

    fn notices(&self) -> &Notices {
        &self.0.notices
    }

    fn clock(&self) -> &Clock {
        &self.0.client.clock
    }

    /// Requests one turn from an agent. `event` identifies the turn, and `on` receives the reply
    /// piece by piece.
    async fn ask(
        &self,
        agent: &Agent,
        event: Uuid,
        question: &contract::Question,
        on: &mut dyn client::ReplySink,
    ) -> Result<(), AgentError> {
        let tokens = {
            let tables = self.0.directory.tables();
            tables.account(&agent.account).map(|account| account.tokens.clone()).unwrap_or_default()
        };
        self.0.client.turn(agent, &tokens, (event, question), on).await
    }
}
