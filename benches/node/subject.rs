//! Runs Offhook as in production: `serve`, with JSON logs at INFO written to a file.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use sim::client::{Client, fetch};
use sim::world;

use super::process::Process;

/// A running node.
pub(crate) struct Offhook {
    pub(crate) process: Process,
    /// Base URL of the public listener.
    pub(crate) url: String,
    /// Base URL of the admin listener.
    pub(crate) admin: String,
}

/// Start options of a node.
pub(crate) struct Setup<'a> {
    /// Holds the configuration, store and log.
    pub(crate) folder: &'a Path,
    pub(crate) graph: &'a str,
    pub(crate) answer: &'a str,
    pub(crate) hangup: &'a str,
    pub(crate) accept_wait_ms: u64,
}

/// Returns a free loopback port below the range that the system assigns to outgoing connections.
fn free(bound: impl Fn((std::net::Ipv4Addr, u16)) -> bool) -> u16 {
    let mut tries = (0..1_000).map(|_| rand::random_range(20_000..32_000_u16));
    tries.find(|port| bound((std::net::Ipv4Addr::LOCALHOST, *port))).unwrap_or(0)
}

impl Offhook {
    /// Starts the node and waits until it is ready.
    pub(crate) async fn start(client: &Client, setup: &Setup<'_>) -> Result<Self, String> {
        let [public, admin] = [(); 2].map(|()| free(|at| std::net::TcpListener::bind(at).is_ok()));
        let media = free(|at| std::net::UdpSocket::bind(at).is_ok());
        let config = setup.config(public, admin, media)?;
        let log = std::fs::File::options().append(true).create(true).open(setup.folder.join("log"));
        // Allows comparing two builds alternately.
        let program = std::env::var_os("OFFHOOK_BENCH_PROGRAM");
        let mut command =
            Command::new(program.unwrap_or_else(|| env!("CARGO_BIN_EXE_offhook").into()));
        command
            .args(["serve", "--config"])
            .arg(config)
            .env_remove("RUST_LOG")
            .stderr(log.map_err(|e| e.to_string())?);
        let (process, _) = Process::start(&mut command, false).map_err(|e| e.to_string())?;
        let node = Self { process, url: local(public), admin: local(admin) };
        let mut every = tokio::time::interval(Duration::from_millis(1));
        for _ in 0..60_000 {
            every.tick().await;
            let ready = Request::get(format!("{}/readyz", node.admin))
                .body(Bytes::new())
                .map_err(|e| e.to_string())?;
            if fetch(client, ready, Duration::from_secs(1), 1 << 20)
                .await
                .is_ok_and(|answer| answer.status == 200)
            {
                return Ok(node);
            }
        }
        Err(format!("the node is not ready; see {}", setup.folder.display()))
    }
}

fn local(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

impl Setup<'_> {
    fn config(&self, public: u16, admin: u16, media: u16) -> Result<PathBuf, String> {
        let Self { folder, graph, answer, hangup, accept_wait_ms } = self;
        let store = folder.join("offhook.db");
        let text = format!(
            r#"
[listen]
public = "127.0.0.1:{public}"
admin = "127.0.0.1:{admin}"
media = "127.0.0.1:{media}"
[public]
media_ips = ["127.0.0.1"]
[media]
accept_wait_ms = {accept_wait_ms}
[meta]
graph_url = "{graph}"
app_secret = "{secret}"
verify_token = "{verify}"
access_token = "{token}"
[store]
url = "sqlite://{store}"
[answer]
allow_insecure = true
[limits]
calls_per_number = 100000
default_cps = 10000
[permissions]
enforce = false
[[account]]
auth_id = "{account}"
auth_token = "{auth_token}"
[[waba]]
id = "{waba}"
account = "{account}"
[[number]]
number = "{number}"
phone_number_id = "{number_id}"
waba = "{waba}"
calling_enabled = true
answer_url = "{answer}"
hangup_url = "{hangup}"
webhook_url = "{messages}"
"#,
            messages = answer.replace("/answer", "/messages"),
            secret = world::APP_SECRET,
            verify = world::VERIFY_TOKEN,
            token = world::ACCESS_TOKEN,
            store = store.display(),
            account = world::ACCOUNT,
            auth_token = world::AUTH_TOKEN,
            waba = world::WABA,
            number = world::NUMBER,
            number_id = world::PHONE_NUMBER_ID,
        );
        let file = folder.join("offhook.toml");
        std::fs::write(&file, text).map_err(|e| e.to_string())?;
        Ok(file)
    }
}
