//! What the APIs ask of the node itself; `node` answers.

use futures_util::future::BoxFuture;
use serde::Serialize;
use utoipa::ToSchema;

/// The node, as its owner commands it.
pub trait Operator: Send + Sync + 'static {
    /// Reads the configuration again and puts in force what can change while the node runs.
    fn reload(&self) -> BoxFuture<'static, Reload>;
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
    pub needs_restart: Vec<&'static str>,
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
