//! The APIs' interface to the node itself; `node` implements it.

use futures_util::future::BoxFuture;
use serde::Serialize;
use utoipa::ToSchema;

use model::Timestamp;

/// Control over the node.
pub trait Operator: Send + Sync + 'static {
    /// Reads the configuration again and applies the keys that can change at run time.
    fn reload(&self) -> BoxFuture<'static, ReloadOutcome>;

    /// The nodes, this one first. `None` if several main accounts share the node, because none of
    /// them may see the activity of the others.
    fn nodes(&self) -> Option<Vec<NodeStatus>>;

    /// Drains a node: it takes no new calls, and live calls go on. Only a restart ends the drain.
    /// Returns `false` if the node does not exist.
    fn drain(&self, node: &str) -> bool;
}

/// The status of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// `cluster.node_id`.
    pub id: String,
    pub version: &'static str,
    /// When the process started (RFC 3339).
    #[serde(rename = "startedAt", serialize_with = "as_text")]
    #[schema(value_type = String, format = DateTime)]
    pub started: Timestamp,
    pub state: NodeState,
    /// Why the node should get no new calls, in the words of `/readyz`; null if it is ready.
    pub not_ready: Option<&'static str>,
    pub live_calls: usize,
    /// Resident memory in bytes; null if the system does not report it.
    pub memory_bytes: Option<u64>,
    /// Requests to customers' servers for documents and sounds since the start.
    pub fetches: Vec<RequestCount>,
    /// Requests to Meta's Graph API since the start.
    pub graph: Vec<RequestCount>,
}

fn as_text<S: serde::Serializer>(at: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(at)
}

/// Whether a node takes calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    Ready,
    /// New calls are rejected, live ones go on.
    Draining,
    /// The node takes no calls for now.
    Unready,
}

/// The number of requests of one kind with one outcome. The words are those of the metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
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
    /// The new configuration is in force.
    Applied(ReloadSummary),
    /// The configuration has errors; nothing has changed.
    Invalid(Vec<ConfigFinding>),
    /// The node was started without a configuration file.
    NoFile,
    /// Several main accounts share the node, and none of them may see the errors in the file.
    SharedNode,
}

/// The configuration that is now in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Reloaded)]
pub struct ReloadSummary {
    pub accounts: usize,
    pub wabas: usize,
    pub numbers: usize,
    /// Keys that changed in the file and take effect at the next restart.
    pub needs_restart: Vec<String>,
}

/// An error in a configuration. The line itself is left out, because it may hold a secret.
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
