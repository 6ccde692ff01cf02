//! A panic inside one call of a whole node must end that call only and leak no secret. A released
//! binary cannot be made to panic, so the test runs its own build as a child process, which also
//! makes all of its output visible.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use super::{Node, Signals, until_stopped};
use crate::observe::logs::{LogFormat, LogLevel, LogSettings, install};
use egress::testing::{Reply, Server};
use engine::call::PANICS;
use engine::config::Config;
use model::Clock;

const NUMBER: &str = "918035737458";
const PHONE_NUMBER_ID: &str = "106540352242922";
const CALLER: &str = "919412341234";
const CONFIG: &str = "OFFHOOK_TEST_CONFIG";
const SECRETS: [&str; 6] = ["APP_SECRET", "VERIFY", "ACCESS", "STORE_KEY", "AUTH", "API_KEY"];

fn canary(of: &str) -> String {
    format!("CANARY-{of}-8c1f2b7e44d9")
}

fn toml(graph: &Server, app: &Server, dir: &std::path::Path) -> String {
    let [secret, verify, access, key, auth, api] = SECRETS.map(canary);
    let (graph, answer, hangup, dir) =
        (graph.url("/v23.0"), app.url("/answer"), app.url("/hangup"), dir.display());
    format!(
        r#"
[listen]
public = "127.0.0.1:1"
admin = "127.0.0.1:2"
media = "127.0.0.1:1"
media_ports = 1
[public]
base_url = "http://127.0.0.1:1"
[meta]
graph_url = "{graph}"
app_secret = "{secret}"
verify_token = "{verify}"
access_token = "{access}"
[store]
url = "sqlite://{dir}/offhook.db"
secret_key = "{key}"
[answer]
allow_insecure = true
[[account]]
auth_id = "MAAAAAAAAAAAAAAAAAAA"
auth_token = "{auth}"
api_keys = ["{api}"]
[[waba]]
id = "1029384756"
account = "MAAAAAAAAAAAAAAAAAAA"
[[number]]
number = "{NUMBER}"
phone_number_id = "{PHONE_NUMBER_ID}"
waba = "1029384756"
calling_enabled = true
answer_url = "{answer}"
hangup_url = "{hangup}"
"#
    )
}

/// Not a test: the entry point of the child process that the test below starts.
#[test]
#[ignore = "child process of another test"]
fn child_node() {
    let Ok(file) = std::env::var(CONFIG) else { return };
    install(LogSettings {
        format: LogFormat::Json,
        level: Some(LogLevel::Trace),
        default: LogLevel::Info,
    });
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut config = Config::load(file.as_ref(), &|_| Ok(())).unwrap();
        let anywhere = "127.0.0.1:0".parse().unwrap();
        (config.listen.public, config.listen.admin, config.listen.media) =
            (anywhere, anywhere, anywhere);
        let node = Node::start(config, Clock::real()).await.unwrap();
        tracing::info!(public = %node.public, admin = %node.admin, "ready");
        until_stopped(node, Signals::new().unwrap()).await;
    });
}

/// The child process and its output (standard output and error).
struct Process {
    child: Child,
    output: Arc<(Mutex<Vec<String>>, Condvar)>,
    readers: Vec<std::thread::JoinHandle<()>>,
}

impl Process {
    fn start(config: &std::path::Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "node::fault_tests::child_node", "--ignored", "--nocapture"])
            .env(CONFIG, config)
            .env("RUST_BACKTRACE", "1")
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output: Arc<(Mutex<Vec<String>>, Condvar)> = Arc::default();
        let streams: [Box<dyn std::io::Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        let read = |stream: Box<dyn std::io::Read + Send>| {
            let output = output.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    output.0.lock().unwrap().push(line);
                    output.1.notify_all();
                }
            })
        };
        let readers = streams.into_iter().map(read).collect();
        Self { child, output, readers }
    }

    /// Waits for the log line with this message and returns it.
    fn until(&self, message: &str) -> Value {
        let (lines, more) = &*self.output;
        let mut lines = lines.lock().unwrap();
        loop {
            let entries = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let is_it =
                |line: &Value| line["message"].as_str().is_some_and(|m| m.starts_with(message));
            if let Some(line) = entries.into_iter().find(is_it) {
                return line;
            }
            let (further, late) = more.wait_timeout(lines, Duration::from_secs(60)).unwrap();
            assert!(!late.timed_out(), "no {message:?} within a minute: {further:?}");
            lines = further;
        }
    }

    /// Stops the process with two signals and returns its output.
    fn stop(mut self) -> Vec<String> {
        let pid = self.child.id().to_string();
        let terminate =
            || assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        terminate();
        // Two signals that arrive together are one.
        self.until("draining");
        terminate();
        assert!(self.child.wait().unwrap().success());
        self.readers.drain(..).for_each(|reader| reader.join().unwrap());
        self.output.0.lock().unwrap().clone()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn send(request: http::request::Builder, body: String) -> (u16, String) {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let answer = client.request(request.body(Full::new(Bytes::from(body))).unwrap()).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

async fn connect(node: &Value, wacid: &str, caller_name: &str) {
    let sdp = include_str!("../../fixtures/meta/sdp/offer_relay_full.sdp")
        .replace("198.51.100.62", "127.0.0.1");
    let call = json!({
        "id": wacid, "from": CALLER, "to": NUMBER, "event": "connect", "direction": "USER_INITIATED",
        "timestamp": Clock::real().wall().secs().to_string(), "session": {"sdp_type": "offer", "sdp": sdp},
    });
    let value = json!({
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": NUMBER, "phone_number_id": PHONE_NUMBER_ID},
        "contacts": [{"profile": {"name": caller_name}, "wa_id": CALLER}],
        "calls": [call],
    });
    let entry = json!([{"id": "1029384756", "changes": [{"field": "calls", "value": value}]}]);
    let body = json!({"object": "whatsapp_business_account", "entry": entry}).to_string();
    let key =
        aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, canary("APP_SECRET").as_bytes());
    let signature = hex::encode(aws_lc_rs::hmac::sign(&key, body.as_bytes()));
    let request =
        http::Request::post(format!("http://{}/webhooks/meta", node["public"].as_str().unwrap()))
            .header("x-hub-signature-256", format!("sha256={signature}"));
    assert_eq!(send(request, body).await.0, 200);
}

async fn metrics(node: &Value) -> String {
    send(
        http::Request::get(format!("http://{}/metrics", node["admin"].as_str().unwrap())),
        String::new(),
    )
    .await
    .1
}

#[tokio::test(flavor = "multi_thread")]
async fn r22_a_panic_in_a_call_leaks_no_secret_and_ends_only_that_call() {
    let success = br#"{"messaging_product":"whatsapp","success":true}"#;
    let graph = Server::start(move |_| Reply::ok(&success[..])).await;
    let app = Server::start(|seen| match seen.target.as_str() {
        "/answer" => Reply::ok(&b"<Response><Wait length=\"60\"/></Response>"[..]),
        _ => Reply::status(200),
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("offhook.toml");
    std::fs::write(&config, toml(&graph, &app, dir.path())).unwrap();
    let process = Process::start(&config);
    let node = process.until("ready");
    connect(&node, "wacid.other", "Asha").await;
    app.until_seen(1).await;
    connect(&node, "wacid.broken", PANICS).await;

    // The answer request and the hangup callback of the broken call. The other call gets none yet.
    app.until_seen(3).await;
    let hangup = app.seen().into_iter().find(|seen| seen.target == "/hangup").unwrap();
    let body = String::from_utf8_lossy(&hangup.body).into_owned();
    assert!(body.contains("HangupCauseCode=5010") && body.contains("HangupSource=Error"), "{body}");
    let mut shown = metrics(&node).await;
    while !shown.contains(&format!("offhook_number_slots_in_use{{number=\"{NUMBER}\"}} 1\n")) {
        shown = metrics(&node).await;
    }
    assert!(shown.contains("offhook_calls_active{direction=\"inbound\"} 1\n"), "{shown}");
    // A further call works as before.
    connect(&node, "wacid.third", "Asha").await;
    app.until_seen(4).await;

    let cmdline = std::fs::read(format!("/proc/{}/cmdline", process.child.id())).unwrap();
    let output = process.stop();
    let faults = output.iter().filter(|line| line.contains("internal error: ")).count();
    assert_eq!(faults, 1, "logged once: {output:#?}");
    assert!(
        output.iter().any(|line| line.contains("as a test wants it")),
        "with the panic message"
    );
    let mut all = output.join("\n").into_bytes();
    all.extend([cmdline, shown.into_bytes(), body.into_bytes()].concat());
    let files = std::fs::read_dir(dir.path()).unwrap().flatten();
    for file in files.filter(|file| file.path() != config && file.path().is_file()) {
        std::fs::File::open(file.path()).unwrap().read_to_end(&mut all).unwrap();
    }
    let holds = |text: &str| all.windows(text.len()).any(|w| w == text.as_bytes());
    for secret in SECRETS.map(canary) {
        assert!(!holds(&secret), "{secret} leaked");
    }
    for line in output.iter().filter(|line| line.starts_with('{')) {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "{line}");
        assert!(!line.contains(CALLER), "the caller's number: {line}");
    }
}
