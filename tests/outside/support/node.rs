//! The real binary, `offhook serve`, as a child process with a test's configuration.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use sim::free_ports::FreePorts;
use sim::{PermissionPolicy, SimOptions};

use super::http;

pub const APP_SECRET: &str = "test-app-secret-of-node";
pub const VERIFY_TOKEN: &str = "test-verify-token-of-the-app";
pub const ACCESS_TOKEN: &str = "test-access-token-of-the-app";
pub const AUTH_ID: &str = "MATESTOFFHOOK0000001";
pub const AUTH_TOKEN: &str = "test-auth-token-of-node";
pub const API_KEY: &str = "test-api-key-of-the-node";
pub const NUMBER: &str = "918035737458";
pub const PHONE_NUMBER_ID: &str = "106540352242922";

/// Returns options of a simulated Meta that has the default node's secrets, with users who permit
/// everything.
pub fn sim_options() -> SimOptions {
    SimOptions {
        app_secret: APP_SECRET.to_owned(),
        verify_token: VERIFY_TOKEN.to_owned(),
        access_token: ACCESS_TOKEN.to_owned(),
        api_key: API_KEY.to_owned(),
        permission_policy: PermissionPolicy::Unenforced,
        ..SimOptions::default()
    }
}

/// Returns the program that tests run: the build under test, or that of `OFFHOOK_TEST_PROGRAM`.
pub fn program() -> String {
    let other = std::env::var("OFFHOOK_TEST_PROGRAM").ok();
    other.unwrap_or_else(|| env!("CARGO_BIN_EXE_offhook").to_owned())
}

/// Configuration of a node, starting from the defaults of the tests.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    pub graph_url: String,
    pub answer_url: String,
    pub fallback_url: String,
    pub hangup_url: String,
    /// Whether the node is one process, even if `OFFHOOK_TEST_NODES` asks for a fleet: because the
    /// test counts what the process does, edits its file, takes its port, or sends it signals.
    pub is_single: bool,
    /// The port of the plain listener. `None` for a free one.
    pub public_port: Option<u16>,
    /// More lines for `[listen]`.
    pub listen: String,
    /// `public.base_url`. `None` for the address of the plain listener.
    pub base_url: Option<String>,
    /// More lines for `[[number]]`.
    pub number_extra: String,
    /// More TOML at the end.
    pub extra: String,
    pub accept_wait_ms: u64,
    pub allow_insecure: bool,
    pub cps: u32,
    pub drain_seconds: u32,
    pub limits: String,
    pub answer: String,
    /// More lines for `[meta]`.
    pub meta: String,
    pub media_ports: u16,
    /// The folder whose database the node uses. `None` for its own.
    pub store_of: Option<std::path::PathBuf>,
    /// The port of a proxy to the database. `None` to connect to the database itself.
    pub store_port: Option<u16>,
    /// More lines for `[store]`.
    pub store: String,
    /// More environment variables.
    pub envs: Vec<(&'static str, String)>,
}

impl NodeConfig {
    pub fn new(graph_url: &str, answer_url: &str) -> Self {
        Self {
            graph_url: graph_url.to_owned(),
            answer_url: answer_url.to_owned(),
            fallback_url: String::new(),
            hangup_url: String::new(),
            is_single: false,
            public_port: None,
            listen: String::new(),
            base_url: None,
            number_extra: String::new(),
            extra: String::new(),
            accept_wait_ms: 3000,
            allow_insecure: true,
            cps: 100,
            drain_seconds: 5,
            limits: String::new(),
            answer: String::new(),
            meta: String::new(),
            media_ports: 8,
            store_of: None,
            store_port: None,
            store: String::new(),
            envs: Vec::new(),
        }
    }

    /// Whether the test says itself which process is part of which fleet.
    fn names_its_fleet(&self) -> bool {
        self.extra.contains("[cluster]") || self.store_of.is_some()
    }

    /// The configuration of one process. `base` is the port of `public.base_url`.
    fn toml(
        &self,
        [public, admin, media]: [u16; 3],
        base: u16,
        data: &std::path::Path,
        dir: &std::path::Path,
    ) -> String {
        let mut number = String::new();
        if !self.fallback_url.is_empty() {
            number += &format!("fallback_url = \"{}\"\n", self.fallback_url);
        }
        if !self.hangup_url.is_empty() {
            number += &format!("hangup_url = \"{}\"\n", self.hangup_url);
        }
        number += &self.number_extra;
        format!(
            r#"
[listen]
public = "127.0.0.1:{public}"
admin = "127.0.0.1:{admin}"
media = "127.0.0.1:{media}"
media_ports = {media_ports}
{listen}
[public]
base_url = "{base_url}"
media_ips = ["127.0.0.1"]
[media]
accept_wait_ms = {accept_wait}
[meta]
graph_url = "{graph}"
app_secret = "{APP_SECRET}"
verify_token = "{VERIFY_TOKEN}"
access_token = "{ACCESS_TOKEN}"
{meta}
[store]
url = "{store}"
data_dir = "{dir}"
{store_extra}
[answer]
allow_insecure = {insecure}
{answer}
[limits]
default_cps = 100
drain_seconds = {drain}
{limits}
[[account]]
auth_id = "{AUTH_ID}"
auth_token = "{AUTH_TOKEN}"
cps = {cps}
api_keys = ["{API_KEY}"]
[[waba]]
id = "1029384756"
account = "{AUTH_ID}"
[[number]]
number = "{NUMBER}"
phone_number_id = "{PHONE_NUMBER_ID}"
waba = "1029384756"
calling_enabled = true
answer_url = "{answer_url}"
{number}
{extra}
"#,
            listen = self.listen,
            base_url = self.base_url.clone().unwrap_or_else(|| format!("http://127.0.0.1:{base}")),
            accept_wait = self.accept_wait_ms,
            graph = self.graph_url,
            store =
                super::database::url_at(self.store_of.as_deref().unwrap_or(dir), self.store_port,),
            store_extra = self.store,
            dir = data.display(),
            insecure = self.allow_insecure,
            answer = self.answer,
            meta = self.meta,
            media_ports = self.media_ports,
            limits = self.limits,
            cps = self.cps,
            drain = self.drain_seconds,
            answer_url = self.answer_url,
            extra = self.extra,
        )
    }
}

/// The account's credentials, for the header `Authorization`.
pub fn basic() -> String {
    use base64::Engine as _;
    let credentials = format!("{AUTH_ID}:{AUTH_TOKEN}");
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(credentials))
}

/// A running node that is killed when dropped.
///
/// With `OFFHOOK_TEST_NODES=3`, it is a fleet of so many nodes on PostgreSQL behind a balancer, whose
/// address is `public`. Metrics are sums over the nodes, logs are mixed, and all processes are killed
/// and started together. What concerns a process itself concerns the first.
pub struct Node {
    child: Child,
    others: Vec<Member>,
    pub public: String,
    pub admin: String,
    pub config: std::path::PathBuf,
    log: Arc<Mutex<Vec<String>>>,
    pub dir: tempfile::TempDir,
    _limit: TimeLimit,
}

/// Ports of nodes, below the system's ephemeral range and apart from those of `offhook dev --nodes`.
static PORTS: FreePorts = FreePorts::new(20_000..32_000);

/// Returns a free TCP port of the loopback.
pub fn free_port() -> u16 {
    PORTS.tcp().expect("a free port")
}

/// Returns the first of `count` consecutive free UDP ports of the loopback.
pub fn free_udp_ports(count: u16) -> u16 {
    PORTS.udp(count).expect("free ports")
}

impl Node {
    pub async fn start(node_config: &NodeConfig) -> Self {
        Self::start_in(tempfile::tempdir().expect("a directory"), node_config).await
    }

    /// Starts a node with its data in `dir`, which may contain data of an earlier node.
    pub async fn start_in(dir: tempfile::TempDir, node_config: &NodeConfig) -> Self {
        let node = Self::spawn_in(dir, node_config);
        node.until_ready().await;
        node
    }

    /// Starts a node that may not become ready.
    pub fn spawn_in(dir: tempfile::TempDir, node_config: &NodeConfig) -> Self {
        let is_single = node_config.is_single || node_config.names_its_fleet();
        let nodes = if is_single { 1 } else { nodes() };
        let ports: Vec<[u16; 3]> = (0..nodes)
            .map(|n| {
                let public = node_config.public_port.filter(|_| n == 0);
                [
                    public.unwrap_or_else(free_port),
                    free_port(),
                    free_udp_ports(node_config.media_ports),
                ]
            })
            .collect();
        let base = if nodes == 1 { ports[0][0] } else { free_port() };
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut members = Vec::new();
        for (n, ports) in ports.iter().enumerate() {
            let data = match n {
                0 => dir.path().to_owned(),
                n => dir.path().join(format!("n{n}")),
            };
            std::fs::create_dir_all(&data).expect("a directory");
            let mut node_config = node_config.clone();
            if nodes > 1 {
                let peer = free_port();
                node_config.extra +=
                    &format!("\n[cluster]\nnode_id = \"n{n}\"\npeer = \"127.0.0.1:{peer}\"\n");
                if !node_config.store.contains("secret_key") {
                    node_config.store += "\nsecret_key = \"the-secret-key-of-the-fleet-in-tests\"";
                }
            }
            let config = data.join("offhook.toml");
            std::fs::write(&config, node_config.toml(*ports, base, &data, dir.path()))
                .expect("write the configuration");
            members.push(Member {
                child: spawn(&program(), &config, &log, &node_config.envs),
                admin: format!("http://127.0.0.1:{}", ports[1]),
                config,
            });
        }
        if nodes > 1 {
            balance(base, ports.iter().map(|ports| ports[0]).collect());
        }
        let Member { child, admin, config } = members.remove(0);
        let public = format!("http://127.0.0.1:{base}");
        let limit = TimeLimit::start(log.clone());
        Self { child, others: members, public, admin, config, log, dir, _limit: limit }
    }

    /// Starts a node with a file that another program wrote into `dir`.
    pub async fn start_file(
        dir: tempfile::TempDir,
        config: &std::path::Path,
        public: &str,
        admin: &str,
        envs: Vec<(&'static str, String)>,
    ) -> Self {
        let log = Arc::new(Mutex::new(Vec::new()));
        let node = Self {
            _limit: TimeLimit::start(log.clone()),
            child: spawn(&program(), config, &log, &envs),
            others: Vec::new(),
            public: public.to_owned(),
            admin: admin.to_owned(),
            config: config.to_owned(),
            log,
            dir,
        };
        node.until_ready().await;
        node
    }

    /// Kills the process with SIGKILL.
    pub fn kill(&mut self) {
        for child in self.children() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn children(&mut self) -> impl Iterator<Item = &mut Child> {
        let others = self.others.iter_mut().map(|member| &mut member.child);
        std::iter::once(&mut self.child).chain(others)
    }

    /// Restarts the stopped node with the same configuration, data and ports.
    pub async fn start_again(&mut self) {
        self.start_again_as(&program()).await;
    }

    /// The same with another build of the program.
    pub async fn start_again_as(&mut self, program: &str) {
        self.child = spawn(program, &self.config, &self.log, &[]);
        for member in &mut self.others {
            member.child = spawn(program, &member.config, &self.log, &[]);
        }
        self.until_ready().await;
    }

    async fn until_ready(&self) {
        let others = self.others.iter().map(|member| member.admin.as_str());
        for admin in std::iter::once(self.admin.as_str()).chain(others) {
            self.until_ready_at(admin).await;
        }
    }

    async fn until_ready_at(&self, admin: &str) {
        let mut every = tokio::time::interval(Duration::from_millis(20));
        for _ in 0..1500 {
            every.tick().await;
            if http::try_send("GET", &format!("{admin}/readyz"), &[], "")
                .await
                .is_ok_and(|a| a.status == 200)
            {
                return;
            }
        }
        panic!("the node is not ready after 30 s; its log:\n{}", self.log());
    }

    /// Runs `offhook doctor` on the configuration. Returns the exit code and the output lines.
    pub async fn doctor(&self) -> (Option<i32>, Vec<serde_json::Value>) {
        let mut doctor = Command::new(program());
        doctor
            .args(["doctor", "--json", "--config"])
            .arg(&self.config)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || doctor.output().expect("it runs"))
            .await
            .expect("it ends");
        let text = String::from_utf8(output.stdout).expect("text");
        assert!(!text.contains(ACCESS_TOKEN) && !text.contains(APP_SECRET), "r22: {text}");
        let lines = text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
        (output.status.code(), lines)
    }

    /// Returns the log so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("log").join("\n")
    }

    pub async fn metrics(&self) -> String {
        let mut text = http::get(&format!("{}/metrics", self.admin)).await.text();
        for member in &self.others {
            // It may have drained before the first.
            let url = format!("{}/metrics", member.admin);
            if let Ok(answer) = http::try_send("GET", &url, &[], "").await {
                text += &answer.text();
            }
        }
        text
    }

    /// Returns the sum of the series with these labels, e.g.
    /// `offhook_calls_total{direction="inbound",outcome="completed"}`, or 0 if none exists.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let text = self.metrics().await;
        text.lines()
            .filter(|l| !l.starts_with('#'))
            .filter(|l| l.split(['{', ' ']).next() == Some(name))
            .filter(|l| labels.iter().all(|(k, v)| l.contains(&format!("{k}=\"{v}\""))))
            .filter_map(|l| l.rsplit(' ').next().and_then(|v| v.parse::<f64>().ok()))
            .sum()
    }

    /// Waits until a series has this value.
    pub async fn until_metric(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        let mut every = tokio::time::interval(Duration::from_millis(50));
        let mut last = f64::NAN;
        for _ in 0..600 {
            every.tick().await;
            last = self.metric(name, labels).await;
            if (last - value).abs() < f64::EPSILON {
                return;
            }
        }
        panic!("{name}{labels:?} is {last}, not {value}, after 30 s");
    }

    /// Sends a GET to the REST API with the account's credentials.
    pub async fn api(&self, path: &str) -> http::Answer {
        let url = format!("{}/v1/Account/{AUTH_ID}/{path}", self.public);
        http::send("GET", &url, &[("authorization", &basic())], "").await
    }

    /// Asks for a live call.
    pub async fn record_live(&self, call_uuid: &str) -> http::Answer {
        self.api(&format!("Call/{call_uuid}/?status=live")).await
    }

    /// Returns the record of a call after it has been written.
    pub async fn record(&self, call_uuid: &str) -> serde_json::Value {
        let mut every = tokio::time::interval(Duration::from_millis(50));
        for _ in 0..200 {
            every.tick().await;
            let answer = self.api(&format!("Call/{call_uuid}/")).await;
            if answer.status == 200 {
                return answer.json();
            }
        }
        panic!("no record of {call_uuid} after 10 s; log:\n{}", self.log());
    }

    /// Posts a webhook. Returns `None` if the node is down.
    pub async fn try_webhook(&self, body: &str) -> Option<http::Answer> {
        let signature = super::sign(APP_SECRET, body.as_bytes());
        let url = format!("{}/webhooks/meta", self.public);
        http::try_send("POST", &url, &[("x-hub-signature-256", &signature)], body.to_owned())
            .await
            .ok()
    }

    pub async fn post_webhook(&self, body: &str) -> http::Answer {
        let signature = super::sign(APP_SECRET, body.as_bytes());
        let url = format!("{}/webhooks/meta", self.public);
        http::send("POST", &url, &[("x-hub-signature-256", &signature)], body.to_owned()).await
    }

    /// Returns the number of ended calls in the store, and of calls with a hangup callback,
    /// delivered or not. Panics if a call is open or has two. The node must be stopped.
    pub async fn ended(&self) -> (i64, i64) {
        let count = "SELECT (SELECT count(*) FROM calls WHERE ended_us IS NULL), (SELECT count(*) FROM calls WHERE \
            ended_us IS NOT NULL), (SELECT count(DISTINCT call_uuid) FROM callbacks WHERE kind = 'hangup'), \
            (SELECT count(*) FROM callbacks WHERE kind = 'hangup')";
        let (open, ended, reported, callbacks) =
            super::database::counts(self.dir.path(), count).await;
        assert_eq!((open, callbacks), (0, reported), "none is open, none has two");
        (ended, reported)
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the current and the peak resident memory in KiB.
    pub fn memory_kib(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let figure = |name: &str| {
            let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap();
            line.trim().trim_end_matches(" kB").parse().unwrap()
        };
        (figure("VmRSS:"), figure("VmHWM:"))
    }

    /// Waits until the log has a line with this text.
    pub async fn until_log(&self, text: &str) {
        self.until_in_log(text, 1).await;
    }

    /// Waits until the log has at least `lines` lines with this text.
    pub async fn until_in_log(&self, text: &str, lines: usize) {
        let mut every = tokio::time::interval(Duration::from_millis(20));
        for _ in 0..3000 {
            every.tick().await;
            if self.count_in_log(text) >= lines {
                return;
            }
        }
        panic!("not {lines} times {text:?} in the log after a minute:\n{}", self.log());
    }

    /// The number of lines of the log with this text.
    pub fn count_in_log(&self, text: &str) -> usize {
        self.log.lock().expect("log").iter().filter(|line| line.contains(text)).count()
    }

    /// Waits until the process has ended, and checks that it has printed this text.
    pub async fn until_end_with(&mut self, text: &str) -> Option<i32> {
        let mut every = tokio::time::interval(Duration::from_millis(20));
        let ended = loop {
            every.tick().await;
            if let Some(ended) = self.child.try_wait().expect("its state") {
                break ended;
            }
        };
        // The thread that reads standard error may be behind.
        self.until_log(text).await;
        ended.code()
    }

    /// Sends a signal. Returns after `STOP` when the process has stopped, which takes a while on a
    /// busy machine.
    pub fn signal(&self, name: &str) {
        let others = self.others.iter().map(|member| member.child.id());
        for pid in std::iter::once(self.pid()).chain(others) {
            let id = pid.to_string();
            Command::new("kill").args([&format!("-{name}"), &id]).status().expect("kill");
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            if let (Some(pid), "STOP") = (pid, name) {
                // Fails if the process is no child.
                let _ = waitid(WaitId::Pid(pid), WaitIdOptions::STOPPED);
            }
        }
    }

    /// Waits until the process exits. Returns the exit code.
    pub fn wait(&mut self) -> Option<i32> {
        for member in &mut self.others {
            let _ = member.child.wait();
        }
        self.child.wait().expect("its end").code()
    }
}

/// Ends the test program if a node lives much longer than any test takes: a test that waits for
/// something that never comes would otherwise go on until all checks are given up, without a word
/// about which one it was.
struct TimeLimit {
    /// Closed when dropped.
    _is_over: std::sync::mpsc::SyncSender<()>,
}

impl TimeLimit {
    const LIMIT: Duration = Duration::from_secs(15 * 60);
    /// Lines of the node's log that are printed.
    const LINES: usize = 60;

    fn start(log: Arc<Mutex<Vec<String>>>) -> Self {
        use std::io::Write as _;
        let (is_over, over) = std::sync::mpsc::sync_channel(1);
        // A measurement takes as long as it is asked to.
        if std::env::args().any(|arg| arg == "--ignored") {
            return Self { _is_over: is_over };
        }
        let test = std::thread::current().name().unwrap_or("of another thread").to_owned();
        std::thread::spawn(move || {
            if over.recv_timeout(Self::LIMIT) != Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                return;
            }
            let log = log.lock().expect("log");
            let end = log[log.len().saturating_sub(Self::LINES)..].join("\n");
            // The harness captures what `eprintln` prints.
            let _ = writeln!(
                std::io::stderr(),
                "the test {test} has not ended {} minutes after it started a node; the end of its log:\n{end}",
                Self::LIMIT.as_secs() / 60
            );
            std::process::exit(101);
        });
        Self { _is_over: is_over }
    }
}

/// A further process of a fleet.
struct Member {
    child: Child,
    admin: String,
    config: std::path::PathBuf,
}

/// Number of processes that stand for one node (`OFFHOOK_TEST_NODES`).
pub fn nodes() -> usize {
    let nodes = std::env::var("OFFHOOK_TEST_NODES").ok().and_then(|nodes| nodes.parse().ok());
    if super::database::is_postgres() { nodes.unwrap_or(1) } else { 1 }
}

/// Spreads the connections to a port over other ports, one after the other. Ends with the test.
pub fn balance(port: u16, to: Vec<u16>) {
    let listener = std::net::TcpListener::bind(("127.0.0.1", port)).expect("the balancer's port");
    listener.set_nonblocking(true).expect("non-blocking");
    let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
    tokio::spawn(async move {
        let mut turn = 0_usize;
        while let Ok((mut client, _)) = listener.accept().await {
            let ports: Vec<u16> = (0..to.len()).map(|n| to[(turn + n) % to.len()]).collect();
            turn += 1;
            tokio::spawn(async move {
                for port in ports {
                    // A balancer takes another node if one does not answer.
                    #[allow(clippy::disallowed_methods, reason = "a test's own peer")]
                    let node = tokio::net::TcpStream::connect(("127.0.0.1", port)).await;
                    if let Ok(mut node) = node {
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut node).await;
                        return;
                    }
                }
            });
        }
    });
}

fn spawn(
    program: &str,
    config: &std::path::Path,
    log: &Arc<Mutex<Vec<String>>>,
    envs: &[(&'static str, String)],
) -> Child {
    // Figures are measured at the level of production.
    let level = std::env::var("OFFHOOK_TEST_LOG_LEVEL").unwrap_or_else(|_| "debug".to_owned());
    let mut child = Command::new(program)
        .args(["--log-format", "json", "--log-level", &level, "serve", "--config"])
        .arg(config)
        .env_remove("RUST_LOG")
        .envs(envs.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start the node");
    let stderr = child.stderr.take().expect("its standard error");
    let sink = log.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            sink.lock().expect("log").push(line);
        }
    });
    child
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            #[allow(clippy::print_stderr, reason = "the log of a node whose test failed")]
            {
                eprintln!("--- log of the node ---\n{}", self.log());
            }
        }
    }
}
