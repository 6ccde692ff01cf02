//! The interface between the APIs and the node itself, implemented by `node`.

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use store::{ForgetOutcome, StoreError};
use utoipa::ToSchema;

/// Control over the node.
pub trait Operator: Send + Sync + 'static {
    /// Reads the configuration again and applies the keys that can change at run time.
    fn reload(&self) -> BoxFuture<'static, ReloadOutcome>;

    /// Whether several main accounts share the node. Their owners may not operate it.
    fn is_shared(&self) -> bool;

    /// Returns the nodes, this one first. `None` if several main accounts share the node, because
    /// none of them may see the activity of the others.
    fn nodes(&self) -> BoxFuture<'static, Option<Vec<NodeStatus>>>;

    /// Drains a node: it takes no new calls, and live calls continue. Only a restart ends the
    /// drain. Returns `false` if the node does not exist.
    fn drain(&self, node: &str) -> bool;

    /// Forgets a node of the fleet that is lost forever.
    fn forget(&self, node: &str) -> BoxFuture<'static, Result<ForgetOutcome, StoreError>>;

    /// `cluster.node_id` of this node.
    fn node_id(&self) -> &str;
}

/// The status of a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// `cluster.node_id`.
    pub id: String,
    pub version: String,
    /// When the process started (RFC 3339); null if the node does not answer.
    #[schema(format = DateTime)]
    pub started_at: Option<String>,
    pub state: NodeState,
    /// Why the node should get no new calls, as in the response of `/readyz`. Null if it is ready.
    pub not_ready: Option<String>,
    /// Number of live calls. Null if the node does not answer.
    pub live_calls: Option<usize>,
    /// How much of its capacity the node uses, from 0 to 1: the largest share of live calls,
    /// waiting set-ups, time of media threads and memory. Null if the node does not answer.
    #[serde(default)]
    pub load: Option<f64>,
    /// The state of the fleet as known to the node. Null if the node is not part of a fleet, or
    /// does not answer.
    pub fleet: Option<FleetStatus>,
    /// Resident memory in bytes; null if the system does not report it.
    pub memory_bytes: Option<u64>,
    /// Requests to customers' servers for documents and sounds since the start.
    pub fetches: Vec<RequestCount>,
    /// Requests to Meta's Graph API since the start.
    pub graph: Vec<RequestCount>,
}

impl NodeStatus {
    /// Creates the status of a node that does not answer, or has died.
    pub fn silent(id: &str, version: &str, state: NodeState) -> Self {
        Self {
            id: id.to_owned(),
            version: version.to_owned(),
            started_at: None,
            state,
            not_ready: None,
            live_calls: None,
            load: None,
            fleet: None,
            memory_bytes: None,
            fetches: Vec::new(),
            graph: Vec::new(),
        }
    }
}

/// The state of a fleet as known to a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = NodeInFleet)]
pub struct FleetStatus {
    /// Id of the process.
    #[schema(format = Uuid)]
    pub run: String,
    /// Whether the database answers the node.
    pub connected: bool,
    /// Milliseconds since the node's last beat that the database has answered. Null before the
    /// first one.
    pub beat_age_ms: Option<u64>,
    /// Round trip of that beat to the database, in milliseconds.
    pub beat_ms: u64,
    /// Whether nodes can get more slots and permits than they hold. They can't for 10 s after a
    /// restart of the database, and not before each node has reported the units that it holds.
    pub open: bool,
    /// Nodes that have not reported their units yet. Empty if `open`.
    pub waiting_for: Vec<String>,
    pub units: Units,
    /// Nodes that this node can reach.
    pub hears: Vec<String>,
}

/// The units of all limits that a node holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = NodeUnits)]
pub struct Units {
    /// Slots of numbers: calls at the same time.
    pub slots_held: u64,
    pub slots_used: u64,
    /// Permits of accounts: calls per second.
    pub permits_held: u64,
    /// Calls started within the last second.
    pub permits_used: u64,
}

/// Whether a node takes calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    Ready,
    /// New calls are rejected, and live ones continue.
    Draining,
    /// The node takes no calls at present.
    Unready,
    /// The node does not answer this one. Its calls may be live.
    Unreachable,
    /// The other nodes have declared the process dead and end its calls.
    Dead,
}

/// The number of requests of one kind with one outcome. The words are the same as in the metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Exchange)]
pub struct RequestCount {
    /// The `kind` of a fetch, or the `action` of a Graph request.
    pub kind: String,
    /// The `outcome` of a fetch; of a Graph request the HTTP status, `timeout` or `error`.
    pub outcome: String,
    /// Whether the outcome is a success.
    pub ok: bool,
    pub count: u64,
}

/// The outcome of a reload of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReloadOutcome {
    /// The new configuration has been applied.
    Applied(ReloadSummary),
    /// The configuration has errors; nothing has changed.
    Invalid(Vec<ConfigFinding>),
    /// The node was started without a configuration file.
    NoFile,
    /// Several main accounts share the node, and none of them may see the errors in the file.
    SharedNode,
}

/// The summary of a configuration that was applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Reloaded)]
pub struct ReloadSummary {
    pub accounts: usize,
    pub wabas: usize,
    pub numbers: usize,
    /// Keys that changed in the file and take effect at the next restart.
    pub needs_restart: Vec<String>,
    /// Warnings about valid settings that are probably mistakes, such as an optional secret whose file
    /// does not exist.
    pub warnings: Vec<String>,
}

/// An error in a configuration. The line itself is omitted, because it may contain a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigFinding {
    /// Counted from 1; `None` if the error is in the environment, or a key is missing.
    pub line: Option<usize>,
    pub column: Option<usize>,
    pub message: String,
    /// A correction; may be empty.
    pub hint: String,
}

impl ConfigFinding {
    pub fn new(position: Option<(usize, usize)>, message: impl Into<String>, hint: &str) -> Self {
        let (line, column) = (position.map(|p| p.0), position.map(|p| p.1));
        Self { line, column, message: message.into(), hint: hint.to_owned() }
    }
}
