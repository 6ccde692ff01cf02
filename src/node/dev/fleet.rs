//! A fleet on loopback: nodes in processes of their own, a PostgreSQL server, a balancer, and the
//! simulated Meta with the demo application.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::Request;
use rustix::process::Signal;
use tokio::process::Command;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::balancer::Balancer;
use super::postgres::{Postgres, PostgresError};
use super::process::Process;
use super::{Application, DevError, Folder, LOOPBACK, permission_policy};
use super::{PORTS, free_address};
use crate::api::NodeStatus;
use model::metric;
use sim::client::{self, Client};
use sim::{Faults, Sim, SimNumber, SimOptions, world};

/// Interval at which nodes are checked for readiness.
const CHECK_EVERY: Duration = Duration::from_millis(200);
/// Timeout of one check.
const CHECK_TIMEOUT: Duration = Duration::from_millis(500);

/// Timeout for a node to start.
const START_TIME: Duration = Duration::from_secs(60);
/// Timeout for a node to end after SIGTERM.
const END_TIME: Duration = Duration::from_secs(2);

/// Timeout for a node to list the nodes. It includes that node's own timeout for one that hangs.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);
const STATUS_BYTES_MAX: usize = 1 << 20;

/// Number of UDP ports of a node. A node can have as many calls as the product of this number and
/// of the simulated Meta's media addresses.
const MEDIA_PORTS: u16 = 64;
/// Number of media addresses of the simulated Meta.
const RELAYS: u16 = 16;

/// Number of lines of a node's log that are shown if the node does not start.
const LOG_LINES: usize = 8;

/// Options of a development fleet.
#[derive(Clone, Debug, Default)]
pub struct FleetOptions {
    /// Number of nodes.
    pub nodes: u8,
    /// Port of the balancer on 127.0.0.1. 0 selects a free port.
    pub port: u16,
    /// The same as in [`super::DevOptions`].
    pub answer_url: Option<String>,
    /// The same as in [`super::DevOptions`].
    pub document: Option<PathBuf>,
    /// The same as in [`super::DevOptions`].
    pub faults: Faults,
    /// The same as in [`super::DevOptions`].
    pub ask_first: bool,
}

/// Why a development fleet, or a part of it, did not start.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    #[error(transparent)]
    World(#[from] DevError),
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    #[error("could not start the balancer on {listen}: {source}")]
    Balancer { listen: SocketAddr, source: io::Error },
    #[error("could not {what} of {name}: {source}")]
    Node { name: String, what: &'static str, source: io::Error },
    #[error("{name} did not start; its log, {}, ends with:\n{end}", log.display())]
    NotReady { name: String, log: PathBuf, end: String },
}

/// A running development fleet.
pub struct DevFleet {
    /// Base URL of the balancer.
    pub url: String,
    pub sim: Sim,
    /// Answer URL of the number.
    pub answer_url: String,
    nodes: Vec<DevNode>,
    postgres: Postgres,
    client: Client,
    _application: Application,
    _checks: DropGuard,
    _database_folder: Folder,
    folder: Folder,
}

/// The state of a node's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProcessState {
    Runs,
    /// The process was sent SIGTERM, and ends when its calls are over.
    Drains,
    /// The process was sent SIGSTOP.
    Paused,
    /// The process ended, with an exit code unless a signal ended it.
    Ended(Option<i32>),
}

/// A node of a development fleet.
struct DevNode {
    name: String,
    public: SocketAddr,
    admin: SocketAddr,
    config: PathBuf,
    log: PathBuf,
    /// The balancer through which the node reaches the database.
    database: Balancer,
    is_cut_off: bool,
    process: Option<Process>,
    state: ProcessState,
}

/// The displayed state of a node of a development fleet.
#[derive(Clone, Debug)]
pub struct DevNodeStatus {
    pub name: String,
    pub process: ProcessState,
    /// Whether the node is cut off from the database.
    pub is_cut_off: bool,
    /// Number of calls of dead nodes that the node has ended. `None` if it does not answer.
    pub adopted: Option<u64>,
    /// The node's status in the fleet. `None` if no node reports it.
    pub status: Option<NodeStatus>,
}

impl DevFleet {
    /// Starts PostgreSQL, the simulated Meta, the nodes and the balancer, and waits until all nodes
    /// take calls.
    ///
    /// # Errors
    /// Returns an error if PostgreSQL is not installed, the port is taken, or a node does not start.
    pub async fn boot(options: FleetOptions) -> Result<Self, FleetError> {
        let folder = Folder::new(None)?;
        // Its owner may be another user, who can't look into the other folder.
        let database_folder = Folder::new(None)?;
        let application =
            Application::start(options.answer_url, options.document, LOOPBACK, false).await?;
        let sim = SimOptions {
            numbers: vec![SimNumber::default()],
            faults: options.faults,
            permission_policy: permission_policy(options.ask_first),
            relays: RELAYS,
            // The balancer spreads connections.
            keeps_connections: false,
            ..SimOptions::default()
        };
        let sim = Sim::start(sim).await.map_err(DevError::from)?;
        let postgres = Postgres::start(database_folder.path()).await?;
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, options.port));
        let failed = |source| FleetError::Balancer { listen, source };
        let names = (1..=options.nodes).map(|n| format!("n{n}"));
        let mut addresses = Vec::new();
        for _ in 0..options.nodes {
            addresses.push((free_address().map_err(failed)?, free_address().map_err(failed)?));
        }
        let public = addresses.iter().map(|(public, _)| *public);
        let balancer = Balancer::start(listen, public, false).await.map_err(failed)?;
        let url = format!("http://{}", balancer.address());
        let mut nodes = Vec::new();
        for (name, (public, admin)) in names.zip(addresses) {
            let any = LOOPBACK;
            let database = Balancer::start(any, [postgres.address()], true).await;
            let database =
                database.map_err(|source| FleetError::Balancer { listen: any, source })?;
            let node = DevNode {
                config: folder.path().join(format!("{name}.toml")),
                log: folder.path().join(format!("{name}.log")),
                is_cut_off: false,
                process: None,
                state: ProcessState::Ended(None),
                name,
                public,
                admin,
                database,
            };
            let error = |what| {
                let name = node.name.clone();
                move |source| FleetError::Node { name, what, source }
            };
            let text = configuration(
                &node,
                &ConfigWorld {
                    url: &url,
                    graph_url: &sim.graph_url(),
                    database_url: &postgres.url_at(node.database.address()),
                    application: &application,
                    data_dir: &folder.path().join(&node.name),
                    ask_first: options.ask_first,
                },
            );
            let text = text.map_err(error("find ports"))?;
            std::fs::write(&node.config, text).map_err(error("write the configuration"))?;
            nodes.push(node);
        }
        let client = client::client().map_err(|e| DevError::from(sim::SimError::Client(e)))?;
        let admins: Vec<SocketAddr> = nodes.iter().map(|node| node.admin).collect();
        let stop = CancellationToken::new();
        let checks = check(client.clone(), Arc::new(balancer), admins);
        tokio::spawn(stop.clone().run_until_cancelled_owned(checks));
        sim.set_node_url(url.clone());
        let mut fleet = Self {
            url,
            sim,
            answer_url: application.answer_url.clone(),
            nodes,
            postgres,
            client,
            _application: application,
            _checks: stop.drop_guard(),
            _database_folder: database_folder,
            folder,
        };
        for index in 0..fleet.nodes.len() {
            fleet.start_node(index)?;
        }
        for index in 0..fleet.nodes.len() {
            fleet.until_ready(index).await?;
        }
        Ok(fleet)
    }

    /// Folder of the nodes' configurations (`n1.toml`) and logs (`n1.log`).
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// URL of the database, with its password.
    pub fn database_url(&self) -> String {
        self.postgres.url_at(self.postgres.address())
    }

    /// Number of nodes.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// Starts a node whose process has ended. Returns `false` if the process is still running.
    ///
    /// # Errors
    /// Returns an error if the process can't be started.
    pub fn start_node(&mut self, index: usize) -> Result<bool, FleetError> {
        let Some(node) = self.nodes.get_mut(index) else { return Ok(false) };
        if !matches!(node.refreshed(), ProcessState::Ended(_)) {
            return Ok(false);
        }
        node.start().map_err(|source| {
            let name = node.name.clone();
            FleetError::Node { name, what: "start the process", source }
        })?;
        Ok(true)
    }

    /// Waits until a node takes calls.
    ///
    /// # Errors
    /// Returns an error if its process ends, or takes more than a minute.
    pub async fn until_ready(&mut self, index: usize) -> Result<(), FleetError> {
        let Some(node) = self.nodes.get_mut(index) else { return Ok(()) };
        let mut every = tokio::time::interval(CHECK_EVERY);
        let ready = async {
            loop {
                every.tick().await;
                if is_ready(&self.client, node.admin).await {
                    return true;
                }
                if matches!(node.refreshed(), ProcessState::Ended(_)) {
                    return false;
                }
            }
        };
        match tokio::time::timeout(START_TIME, ready).await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(FleetError::NotReady {
                name: node.name.clone(),
                log: node.log.clone(),
                end: last_lines(&node.log),
            }),
        }
    }

    /// Kills a node. Returns `false` if its process has ended.
    pub fn kill(&mut self, index: usize) -> bool {
        self.signal(index, Signal::KILL, None)
    }

    /// Makes a node leave the fleet when its calls are over. Returns `false` if its process has
    /// ended.
    pub fn drain(&mut self, index: usize) -> bool {
        self.signal(index, Signal::TERM, Some(ProcessState::Drains))
    }

    /// Pauses or resumes a node. Returns whether it is paused now. `None` if its process has ended.
    pub fn pause(&mut self, index: usize) -> Option<bool> {
        let pauses = self.nodes.get_mut(index)?.refreshed() != ProcessState::Paused;
        let (signal, state) = match pauses {
            true => (Signal::STOP, ProcessState::Paused),
            false => (Signal::CONT, ProcessState::Runs),
        };
        self.signal(index, signal, Some(state)).then_some(pauses)
    }

    /// Cuts a node off from the database, or reconnects it. Returns whether it is cut off now.
    /// `None` if its process has ended.
    pub fn cut_off(&mut self, index: usize) -> Option<bool> {
        let node = self.nodes.get_mut(index)?;
        node.is_cut_off = !node.is_cut_off;
        node.database.set(0, !node.is_cut_off);
        Some(node.is_cut_off)
    }

    /// Restarts the database server.
    ///
    /// # Errors
    /// Returns an error if it does not start again.
    pub async fn restart_database(&mut self) -> Result<(), FleetError> {
        Ok(self.postgres.restart().await?)
    }

    /// Replaces the database server by a copy that lacks its last second.
    ///
    /// # Errors
    /// Returns an error if the copy fails, or does not start.
    pub async fn fail_over_database(&mut self) -> Result<(), FleetError> {
        Ok(self.postgres.fail_over().await?)
    }

    /// Returns the current status of all nodes.
    pub async fn status(&mut self) -> Vec<DevNodeStatus> {
        let lists = self.nodes.iter().map(|node| listed(&self.client, node.public));
        // Any node that answers knows all.
        let mut lists: Vec<Vec<NodeStatus>> = join_all(lists).await;
        let adopted = self.nodes.iter().map(|node| adopted_calls(&self.client, node.admin));
        let adopted = join_all(adopted).await;
        let known = |name: &str, lists: &mut Vec<Vec<NodeStatus>>| {
            let found = lists.iter_mut().flatten().filter(|status| status.id == name);
            found.min_by_key(|status| status.live_calls.is_none()).map(|status| status.clone())
        };
        let nodes = self.nodes.iter_mut().zip(adopted);
        let shown = nodes.map(|(node, adopted)| DevNodeStatus {
            name: node.name.clone(),
            process: node.refreshed(),
            is_cut_off: node.is_cut_off,
            adopted,
            status: known(&node.name, &mut lists),
        });
        shown.collect()
    }

    /// Ends all nodes and the database.
    pub async fn stop(mut self) {
        let ends = self.nodes.iter_mut().filter_map(|node| {
            let process = node.process.as_mut()?;
            Some(async {
                for signal in [Signal::CONT, Signal::TERM] {
                    process.signal(signal);
                }
                if tokio::time::timeout(END_TIME, process.wait()).await.is_err() {
                    process.signal(Signal::KILL);
                    let _ = process.wait().await;
                }
            })
        });
        join_all(ends).await;
        self.postgres.end().await;
    }

    /// Sends a signal. Returns `false` if the process has ended.
    fn signal(&mut self, index: usize, signal: Signal, then: Option<ProcessState>) -> bool {
        let Some(node) = self.nodes.get_mut(index) else { return false };
        if matches!(node.refreshed(), ProcessState::Ended(_)) {
            return false;
        }
        if let Some(process) = &mut node.process {
            process.signal(signal);
        }
        node.state = then.unwrap_or(node.state);
        true
    }
}

impl DevNode {
    fn start(&mut self) -> io::Result<()> {
        let log = std::fs::File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--log-format", "pretty", "--log-level", "info", "serve", "--config"]);
        command.arg(&self.config);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.process = Some(Process::start(&mut command, None)?);
        self.state = ProcessState::Runs;
        Ok(())
    }

    /// Returns the state of the process, after checking whether it has ended.
    fn refreshed(&mut self) -> ProcessState {
        if let Some(status) = self.process.as_mut().and_then(Process::ended) {
            self.process = None;
            self.state = ProcessState::Ended(status.code());
        }
        self.state
    }
}

/// Adds ready nodes to the balancer, and removes all others.
async fn check(client: Client, balancer: Arc<Balancer>, admins: Vec<SocketAddr>) {
    let mut every = tokio::time::interval(CHECK_EVERY);
    loop {
        every.tick().await;
        let checks = admins.iter().map(|admin| is_ready(&client, *admin));
        for (index, is_ready) in join_all(checks).await.into_iter().enumerate() {
            balancer.set(index, is_ready);
        }
    }
}

async fn is_ready(client: &Client, admin: SocketAddr) -> bool {
    get(client, admin, "/readyz", CHECK_TIMEOUT).await.is_some()
}

/// The answer of `GET /api/v1/nodes/`.
#[derive(serde::Deserialize)]
struct NodeList {
    items: Vec<NodeStatus>,
}

/// Returns all nodes, as listed by one of them. Empty if it does not answer.
async fn listed(client: &Client, public: SocketAddr) -> Vec<NodeStatus> {
    let answer = get(client, public, "/api/v1/nodes/", STATUS_TIMEOUT).await;
    let list = answer.and_then(|body| serde_json::from_slice(&body).ok());
    list.map(|list: NodeList| list.items).unwrap_or_default()
}

/// Returns the number of calls of dead nodes that a node has ended.
async fn adopted_calls(client: &Client, admin: SocketAddr) -> Option<u64> {
    let metrics = get(client, admin, "/metrics", CHECK_TIMEOUT).await?;
    let calls = format!("{}{{what=\"{}\"}} ", metric::ADOPTED_TOTAL, metric::adopted::CALLS);
    let metrics = String::from_utf8_lossy(&metrics);
    metrics.lines().find_map(|line| line.strip_prefix(&calls)?.trim().parse().ok())
}

/// Requests a page. `None` if there is no answer in time, or its status is not 200.
async fn get(client: &Client, from: SocketAddr, path: &str, timeout: Duration) -> Option<Bytes> {
    let request = Request::get(format!("http://{from}{path}"));
    let request = request.header("x-api-key", world::API_KEY).body(Bytes::new()).ok()?;
    let answer = client::fetch(client, request, timeout, STATUS_BYTES_MAX).await.ok()?;
    (answer.status == 200).then_some(answer.body)
}

/// Returns the last lines of a log.
fn last_lines(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let first = lines.len().saturating_sub(LOG_LINES);
    lines.get(first..).unwrap_or_default().join("\n")
}

/// The environment of a node that its configuration refers to.
struct ConfigWorld<'a> {
    url: &'a str,
    graph_url: &'a str,
    database_url: &'a str,
    application: &'a Application,
    data_dir: &'a Path,
    ask_first: bool,
}

/// Builds the configuration file of a node.
fn configuration(node: &DevNode, world: &ConfigWorld<'_>) -> io::Result<String> {
    use sim::world::{
        ACCESS_TOKEN, ACCOUNT, API_KEY, APP_ID, APP_SECRET, AUTH_TOKEN, NUMBER, PASSWORD, PERSON,
        PHONE_NUMBER_ID, VERIFY_TOKEN, WABA,
    };
    let ConfigWorld { url, graph_url, database_url, application, data_dir, ask_first } = world;
    let (name, public, admin) = (&node.name, node.public, node.admin);
    let media = PORTS.udp(MEDIA_PORTS)?;
    let peer = free_address()?;
    // A string of JSON is one of TOML.
    let data_dir = serde_json::Value::from(data_dir.to_string_lossy()).to_string();
    let answer_url = serde_json::Value::from(application.answer_url.as_str()).to_string();
    let text = format!(
        r#"[listen]
public = "{public}"
admin = "{admin}"
media = "127.0.0.1:{media}"
media_ports = {MEDIA_PORTS}

[public]
base_url = "{url}"
media_ips = ["127.0.0.1"]

[meta]
graph_url = "{graph_url}"
simulated = true
app_id = "{APP_ID}"
app_secret = "{APP_SECRET}"
verify_token = "{VERIFY_TOKEN}"
access_token = "{ACCESS_TOKEN}"

[store]
url = "{database_url}"
data_dir = {data_dir}
secret_key = "offhook-dev-secret-key-of-all-nodes"

[cluster]
node_id = "{name}"
peer = "{peer}"

[answer]
allow_insecure = true

[limits]
default_cps = 100
drain_seconds = 60

[permissions]
enforce = {ask_first}

[[account]]
auth_id = "{ACCOUNT}"
auth_token = "{AUTH_TOKEN}"
api_keys = ["{API_KEY}"]

[[user]]
name = "{PERSON}"
password = "{PASSWORD}"
account = "{ACCOUNT}"
role = "owner"

[[waba]]
id = "{WABA}"
account = "{ACCOUNT}"

[[number]]
number = "{NUMBER}"
phone_number_id = "{PHONE_NUMBER_ID}"
waba = "{WABA}"
alias = "Demo"
calling_enabled = true
answer_url = {answer_url}
"#
    );
    Ok(text)
}
