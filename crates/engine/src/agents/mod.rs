//! Agents: who answers without a person (`number-api.md` §3). A server of the customer's by our own contract
//! (`contract`), or a model (`llm`); both are asked by `asking`, one turn at a time, and reply piece by piece.
//!
//! `desk` answers messages with them, `voice` takes calls for them. What is stored of an agent is the store's, and what people edit of one is `api`'s.

mod asking;
pub mod contract;
mod desk;
mod events;
mod insights;
mod llm;
mod pace;
mod places;
mod sentences;
mod settings;
mod voice;

use std::sync::Arc;

pub use asking::{AgentError, Asking};
pub use desk::answer_messages;
pub use insights::Insight;
pub use settings::ModelSettings;
pub use voice::VoiceAgents;

use uuid::Uuid;

use crate::admission::Directory;
use crate::notices::Notices;
use egress::Egress;
use model::Clock;
use store::{Agent, Store};

/// What agents are asked with.
pub struct AgentsParts {
    pub store: Store,
    pub directory: Arc<Directory>,
    pub notices: Notices,
    /// To customers' servers, and to the operator's own model.
    pub egress: Egress,
    pub house: Egress,
    pub model: Option<ModelSettings>,
    pub clock: Clock,
}

/// Everybody's agents; cheap to clone.
#[derive(Clone)]
pub struct Agents(Arc<Inner>);

struct Inner {
    store: Store,
    directory: Arc<Directory>,
    notices: Notices,
    asking: Asking,
}

impl Agents {
    pub fn new(parts: AgentsParts) -> Self {
        let AgentsParts { store, directory, notices, egress, house, model, clock } = parts;
        let asking = Asking { egress, house, model, clock };
        Self(Arc::new(Inner { store, directory, notices, asking }))
    }

    /// Whether this node has a model of its own (`[model]`).
    pub fn has_model(&self) -> bool {
        self.0.asking.model.is_some()
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
        &self.0.asking.clock
    }

    /// Asks an agent one turn, by this id of it; `on` hears its reply as it comes.
    async fn ask(
        &self,
        agent: &Agent,
        event: Uuid,
        question: &contract::Question,
        on: &mut dyn asking::Hearer,
    ) -> Result<(), AgentError> {
        let tokens = {
            let tables = self.0.directory.tables();
            tables.account(&agent.account).map(|account| account.tokens.clone()).unwrap_or_default()
        };
        self.0.asking.turn(agent, &tokens, (event, question), on).await
    }
}
