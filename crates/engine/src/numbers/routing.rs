//! Who answers a number, as the services of conversations know it.

use uuid::Uuid;

use super::Numbers;
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

impl Numbers {
    /// Sets the look-up of routing. Only the first is kept.
    pub fn routing_from(&self, routing: RoutingOf) {
        let _ = self.0.routing.set(routing);
    }

    /// The routing of a number.
    pub fn routed(&self, number: &E164) -> NumberRouting {
        self.0.routing.get().map(|routing| routing(number)).unwrap_or_default()
    }
}
