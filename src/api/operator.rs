//! What the APIs ask of the node itself; `node` answers.

use futures_util::future::BoxFuture;
use serde::Serialize;
use utoipa::ToSchema;

use model::Timestamp;

/// The node, as its owner commands it.
pub trait Operator: Send + Sync + 'static {
    /// Reads the configuration again and puts in force what can change while the node runs.
    fn reload(&self) -> BoxFuture<'static, Reload>;

    /// The nodes there are, this one first; `None`: several main accounts share them, and no one of them is told (R16).
    fn nodes(&self) -> Option<Vec<NodeStatus>>;

    /// Takes no new calls any more; live ones go on. There is no way back but a restart. False: there is no such node.
    fn drain(&self, node: &str) -> bool;
}

/// A node and how it does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// `cluster.node_id`.
    pub id: String,
    pub version: &'static str,
    /// When its process began; RFC 3339.
    #[serde(rename = "startedAt", serialize_with = "as_text")]
    #[schema(value_type = String, format = DateTime)]
    pub started: Timestamp,
    pub state: NodeState,
    /// Why it should get no new calls: what `/readyz` says.
    pub not_ready: Option<&'static str>,
    /// Calls that are up.
    pub live_calls: usize,
    /// Resident memory, in bytes; none: the system does not tell.
    pub memory_bytes: Option<u64>,
    /// Fetches of documents and sounds from customers' servers since it began.
    pub fetches: Vec<Exchange>,
    /// Requests to Meta's Graph API since it began.
    pub graph: Vec<Exchange>,
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
    /// It takes none for now.
    Unready,
}

/// What was asked of somebody else, and how often it came to what; words of the metrics (`interface.md` §4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Exchange {
    /// `kind` of a fetch, `action` of a Graph request.
    pub kind: String,
    /// `outcome` of a fetch, HTTP status of a Graph request, `timeout` or `error`.
    pub outcome: String,
    /// Whether that is what was wanted.
    pub ok: bool,
    pub count: u64,
}

/// How a reload ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reload {
    Done(Reloaded),
    /// Something is wrong with it; nothing has changed.
    Refused(Vec<Finding>),
    /// This node was started without a configuration file.
    NoFile,
    /// The file is about several main accounts: no one of them is told what stands in it (R16).
    Shared,
}

/// What is in force now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reloaded {
    pub accounts: usize,
    pub wabas: usize,
    pub numbers: usize,
    /// Keys that changed in the file and are as they were until the node is restarted.
    pub needs_restart: Vec<String>,
}

/// What is wrong with a configuration. The line itself is not shown: it may hold a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// From 1; none: it stands in the environment, or is missing.
    pub line: Option<usize>,
    pub column: Option<usize>,
    pub message: String,
    /// What to write instead; may be empty.
    pub hint: String,
}

impl Finding {
    pub fn new(position: Option<(usize, usize)>, message: impl Into<String>, hint: &str) -> Self {
        let (line, column) = (position.map(|p| p.0), position.map(|p| p.1));
        Self { line, column, message: message.into(), hint: hint.to_owned() }
    }
}
