//! The routing of numbers. The inbox knows it; the node connects the look-up when it starts.

use std::sync::OnceLock;

use uuid::Uuid;

use model::{E164, Routing};

/// Who answers a number, as shown in the number's resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NumberRouting {
    /// The AI agent that answers.
    pub agent: Option<Uuid>,
    /// `webhook`, `agent` or `none`. Empty if not set.
    pub routing: &'static str,
    pub webhook: Option<Uuid>,
}

impl NumberRouting {
    /// The word in the resource.
    pub fn word(&self) -> &'static str {
        if self.routing.is_empty() { "none" } else { self.routing }
    }
}

impl From<Routing> for NumberRouting {
    fn from(routing: Routing) -> Self {
        Self { agent: routing.agent(), routing: routing.as_str(), webhook: routing.webhook() }
    }
}

/// Looks up the routing of a number in memory.
pub type RoutingOf = Box<dyn Fn(&E164) -> NumberRouting + Send + Sync>;

/// The look-up. A number has no routing until it is set.
#[derive(Default)]
pub struct RoutingLookup(OnceLock<RoutingOf>);

impl RoutingLookup {
    /// Sets the look-up of routing. Only the first is kept.
    pub fn set(&self, routing: RoutingOf) {
        let _ = self.0.set(routing);
    }

    /// The routing of a number.
    pub fn of(&self, number: &E164) -> NumberRouting {
        self.0.get().map(|routing| routing(number)).unwrap_or_default()
    }
}
