//! Where `offhook calls` reads: a store's file, or a node's API.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::super::node_api::NodeApi;
use super::super::{Exit, config};
use model::Secret;
use model::{CallUuid, last_four};
use store::Database;
use store::{Archive, CallRecord, StoreError};

/// Where to read; at most one.
#[derive(clap::Args, Clone, Debug)]
pub struct Where {
    /// The store of this configuration
    #[arg(long, value_name = "FILE", group = "where")]
    pub config: Option<PathBuf>,
    /// The store in this folder [default: ./offhook.toml's, else ./offhook-data, else the running `offhook dev`'s]
    #[arg(long, value_name = "DIR", group = "where")]
    pub data_dir: Option<PathBuf>,
    /// Ask this node over its API instead
    #[arg(long, value_name = "URL", group = "where")]
    pub node: Option<url::Url>,
    /// An API key of the node's [default for a node on loopback: that of `offhook dev`]
    #[arg(
        long,
        value_name = "KEY",
        env = "OFFHOOK_API_KEY",
        hide_env_values = true,
        requires = "node"
    )]
    pub api_key: Option<Secret>,
}

/// A call as `calls list` has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Listed {
    pub(super) call_uuid: CallUuid,
    pub(super) direction: String,
    /// The last four digits only.
    pub(super) from: String,
    pub(super) to: String,
    /// RFC 3339.
    pub(super) started_at: String,
    /// None: it goes on, or its node died.
    pub(super) ended_at: Option<String>,
    pub(super) duration_seconds: Option<u64>,
    pub(super) cause: Option<String>,
}

/// An opened one.
pub(super) enum Source {
    Store { at: Database, archive: Archive },
    Node(NodeApi),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store { at, .. } => write!(f, "{at}"),
            Self::Node(node) => f.write_str(node.base()),
        }
    }
}

const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// A call's log at most, as the node keeps it, with room for what came after the call.
const LOG_BYTES_MAX: usize = 16 << 20;

impl Source {
    pub(super) async fn open(at: &Where) -> Result<Self, Exit> {
        if let Some(node) = &at.node {
            return NodeApi::at(node, at.api_key.clone()).map(Self::Node);
        }
        let store = match (&at.config, &at.data_dir) {
            (Some(config), _) => config::load(config)?.store.database,
            (None, Some(folder)) => Database::File(folder.join(store::SQLITE_FILE_NAME)),
            (None, None) => by_default()?,
        };
        let archive = Archive::open(&store).await.map_err(|e| match e {
            StoreError::Open { .. } => Exit::failed(format_args!(
                "could not {e}\nname the folder with --data-dir, the configuration with --config, or a node with --node"
            )),
            other => could_not(other),
        })?;
        Ok(Self::Store { at: store, archive })
    }

    /// The latest calls, newest first.
    pub(super) async fn latest(&self, limit: u32) -> Result<Vec<Listed>, Exit> {
        match self {
            Self::Store { archive, .. } => {
                let calls = archive.latest(limit).await.map_err(could_not)?;
                Ok(calls.iter().map(Listed::of).collect())
            }
            Self::Node(node) => {
                #[derive(Deserialize)]
                struct Page {
                    items: Vec<Listed>,
                }
                let base = node.base();
                let path = format!("calls/?limit={}", limit.min(200));
                let body = node.get(&path, ANSWER_WITHIN, LOG_BYTES_MAX).await?;
                let body = body.ok_or_else(|| {
                    Exit::failed(format_args!("{base} has no list of calls: is it older?"))
                })?;
                let page: Page = serde_json::from_slice(&body).map_err(|e| {
                    Exit::failed(format_args!("{base} gave a list that can't be read: {e}"))
                })?;
                Ok(page
                    .items
                    .into_iter()
                    .map(|call| Listed { from: last_four(&call.from).to_owned(), ..call })
                    .collect())
            }
        }
    }

    /// A call's event log.
    pub(super) async fn log(&self, call: CallUuid) -> Result<Vec<u8>, Exit> {
        let unknown = || {
            Exit::failed(format_args!(
                "there is no call {call} in {self}; `offhook calls list` shows those there are"
            ))
        };
        match self {
            Self::Store { archive, .. } => {
                let lines = archive.events(call).await.map_err(could_not)?.ok_or_else(unknown)?;
                Ok(lines.iter().flat_map(|line| line.bytes().chain([b'\n'])).collect())
            }
            Self::Node(node) => {
                let body =
                    node.get(&format!("calls/{call}/events"), ANSWER_WITHIN, LOG_BYTES_MAX).await?;
                body.map(|body| body.to_vec()).ok_or_else(unknown)
            }
        }
    }
}

fn could_not(error: StoreError) -> Exit {
    Exit::failed(format_args!("could not {error}"))
}

impl Listed {
    fn of(record: &CallRecord) -> Self {
        let (start, end) = (&record.start, record.end.as_ref());
        Self {
            call_uuid: start.call,
            direction: start.direction.as_str().to_owned(),
            from: last_four(&start.from).to_owned(),
            to: start.to.clone(),
            started_at: start.started.rfc3339(),
            ended_at: end.map(|e| e.ended.rfc3339()),
            duration_seconds: end.map(|e| e.duration_secs),
            cause: end.map(|e| e.cause.clone()),
        }
    }
}

/// A production node's store where its configuration or its data is here; else that of the `offhook dev` that was
/// started last and runs.
fn by_default() -> Result<Database, Exit> {
    let configured = Path::new("offhook.toml");
    if configured.exists() {
        return Ok(config::load(configured)?.store.database);
    }
    let data = Path::new("offhook-data").join(store::SQLITE_FILE_NAME);
    if data.exists() {
        return Ok(Database::File(data));
    }
    running_dev().map(Database::File).ok_or_else(|| {
        Exit::failed(
            "there is no offhook.toml and no offhook-data here, and no `offhook dev` runs\nname the folder with \
             --data-dir, the configuration with --config, or a node with --node",
        )
    })
}

fn running_dev() -> Option<PathBuf> {
    let folders = std::fs::read_dir(std::env::temp_dir()).ok()?;
    let stores = folders.flatten().filter_map(|folder| {
        let pid = crate::node::dev::process_of(&folder.file_name().to_string_lossy())?;
        let store = folder.path().join(store::SQLITE_FILE_NAME);
        let made = folder.metadata().and_then(|m| m.created().or_else(|_| m.modified()));
        let runs = Path::new("/proc").join(pid.to_string()).exists();
        (runs && store.exists()).then(|| (made.unwrap_or(SystemTime::UNIX_EPOCH), store))
    });
    stores.max().map(|(_, store)| store)
}
