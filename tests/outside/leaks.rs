//! Information leaks: secrets, callers' numbers, log volume and metric cardinality
//! (`docs/reference/reliability.md#r22`, `#r17`, `#r23`). Each secret is a canary, and every byte
//! of output is searched for them.

use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use sim::{CallEventKind, CallScript, HangupRule, Sim, SimOptions, caller};

use crate::support::app::App;
use crate::support::http::{self, raw};
use crate::support::meta::{Graph, connect_body, silent_offer, terminate, wacid};
use crate::support::node::{
    AUTH_ID, NUMBER, Node, NodeConfig, PHONE_NUMBER_ID, free_port, free_udp_ports,
};
use crate::support::sign;

/// Secrets that the node must not disclose.
struct Canaries {
    all: Vec<(&'static str, String)>,
}

impl Canaries {
    fn new() -> Self {
        let names = [
            "app_secret",
            "app_secret_previous",
            "verify_token",
            "access_token",
            "waba_token",
            "auth_token",
            "auth_token_previous",
            "api_key",
            "agent_key",
            "password",
            "secret_key",
            "speech_key",
        ];
        Self {
            all: names
                .map(|name| (name, format!("CANARY{}", uuid::Uuid::new_v4().simple())))
                .to_vec(),
        }
    }

    fn of(&self, name: &str) -> &str {
        &self.all.iter().find(|(known, _)| *known == name).expect("a canary").1
    }

    /// Fails if `bytes` contains a canary as plain text, base64 or hex.
    fn assert_absent(&self, what: &str, bytes: &[u8]) {
        use base64::Engine as _;
        let text = String::from_utf8_lossy(bytes);
        for (name, value) in &self.all {
            // Search for the middle part, because base64 depends on the alignment to three bytes.
            let inside = base64::engine::general_purpose::STANDARD
                .encode(value.get(2..32).expect("long enough"));
            for form in [value.clone(), hex::encode(value), inside] {
                let found = text.find(&form);
                assert!(
                    found.is_none(),
                    "{name} stands in {what}: {}",
                    around(&text, found.unwrap_or_default())
                );
            }
        }
    }

    fn toml(
        &self,
        graph: &str,
        app: &App,
        public: u16,
        admin: u16,
        media: u16,
        dir: &std::path::Path,
    ) -> String {
        let of = |name| self.of(name);
        format!(
            r#"
[listen]
public = "127.0.0.1:{public}"
admin = "127.0.0.1:{admin}"
media = "127.0.0.1:{media}"
media_ports = 4
[public]
base_url = "http://127.0.0.1:{public}"
media_ips = ["127.0.0.1"]
[meta]
graph_url = "{graph}"
app_secret = "{}"
app_secret_previous = "{}"
verify_token = "{}"
access_token = {{ env = "CANARY_ACCESS_TOKEN" }}
[store]
url = "sqlite://{dir}/offhook.db"
secret_key = "{}"
[answer]
allow_insecure = true
timeout_ms = 2000
[limits]
drain_seconds = 1
[speech.openai]
url = "http://127.0.0.1:9/v1"
api_key = "{}"
[[account]]
auth_id = "{AUTH_ID}"
auth_token = "{}"
auth_token_previous = "{}"
cps = 100
api_keys = ["{}", {{ key = "{}", role = "agent" }}]
[[user]]
name = "asha"
password = "{}"
account = "{AUTH_ID}"
role = "owner"
[[waba]]
id = "1029384756"
account = "{AUTH_ID}"
access_token = "{}"
[[number]]
number = "{NUMBER}"
phone_number_id = "{PHONE_NUMBER_ID}"
waba = "1029384756"
calling_enabled = true
answer_url = "{}"
fallback_url = "{}"
hangup_url = "{}"
"#,
            of("app_secret"),
            of("app_secret_previous"),
            of("verify_token"),
            of("secret_key"),
            of("speech_key"),
            of("auth_token"),
            of("auth_token_previous"),
            of("api_key"),
            of("agent_key"),
            of("password"),
            of("waba_token"),
            app.url("/answer"),
            app.url("/fallback"),
            app.url("/hangup"),
            dir = dir.display(),
        )
    }
}

/// Returns the text around a position.
fn around(text: &str, at: usize) -> String {
    let from = text.floor_char_boundary(at.saturating_sub(300));
    text.get(from..text.floor_char_boundary(at + 100)).unwrap_or_default().to_owned()
}

/// Method, path and headers.
type Request = (&'static str, String, Vec<(&'static str, String)>);

/// A node with captured output.
struct CapturedNode {
    child: Child,
    output: Arc<Mutex<Vec<u8>>>,
    public: String,
    admin: String,
    dir: tempfile::TempDir,
    /// Connections to the proxy named in the environment.
    proxied: Arc<AtomicUsize>,
}

impl CapturedNode {
    async fn start(
        canaries: &Canaries,
        graph: &str,
        app: &App,
        logging: &[&str],
        rust_log: Option<&str>,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (public, admin) = (free_port(), free_port());
        let config = dir.path().join("offhook.toml");
        let toml = canaries.toml(graph, app, public, admin, free_udp_ports(4), dir.path());
        std::fs::write(&config, toml).unwrap();
        let (proxied, proxy) = proxy().await;
        let mut command = Command::new(env!("CARGO_BIN_EXE_offhook"));
        command.args(logging).args(["serve", "--config"]).arg(&config).stdin(Stdio::null());
        command.env_remove("RUST_LOG").env("CANARY_ACCESS_TOKEN", canaries.of("access_token"));
        for name in
            ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
        {
            command.env(name, &proxy);
        }
        if let Some(filter) = rust_log {
            command.env("RUST_LOG", filter);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = Arc::new(Mutex::new(Vec::new()));
        let streams: [Box<dyn std::io::Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for mut stream in streams {
            let output = output.clone();
            std::thread::spawn(move || {
                let mut room = [0; 8_192];
                while let Ok(n @ 1..) = stream.read(&mut room) {
                    output.lock().unwrap().extend_from_slice(&room[..n]);
                }
            });
        }
        let (public, admin) =
            (format!("http://127.0.0.1:{public}"), format!("http://127.0.0.1:{admin}"));
        let node = Self { child, output, public, admin, dir, proxied };
        let mut every = tokio::time::interval(Duration::from_millis(20));
        for _ in 0..1_500 {
            every.tick().await;
            let ready = http::try_send("GET", &format!("{}/readyz", node.admin), &[], "").await;
            if ready.is_ok_and(|a| a.status == 200) {
                return node;
            }
        }
        panic!("not ready after 30 s: {}", String::from_utf8_lossy(&node.output()));
    }

    fn output(&self) -> Vec<u8> {
        self.output.lock().unwrap().clone()
    }

    /// Stops the node. Returns all of its output.
    fn stop(&mut self) -> String {
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        String::from_utf8_lossy(&self.output()).into_owned()
    }

    /// Sends these requests to all listeners. Returns the responses.
    async fn answers(&self, requests: &[Request]) -> Vec<u8> {
        let mut all = Vec::new();
        for (method, path, headers) in requests {
            let headers: Vec<(&str, &str)> =
                headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let answer = http::send(
                method,
                &format!("{}{path}", self.public),
                &headers,
                "<Response><Speek/>",
            )
            .await;
            all.extend_from_slice(format!("{:?}", answer.headers).as_bytes());
            all.extend_from_slice(&answer.body);
        }
        all
    }

    async fn metrics(&self) -> String {
        http::get(&format!("{}/metrics", self.admin)).await.text()
    }
}

impl Drop for CapturedNode {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a proxy that must receive no connection.
async fn proxy() -> (Arc<AtomicUsize>, String) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let came = Arc::new(AtomicUsize::new(0));
    let count = came.clone();
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    (came, url)
}

/// The digits entered where the document has `log="false"`.
const PIN: &str = "4711081593";

/// A contact name that tries to add log lines, colours and right-to-left text.
const HOSTILE_NAME: &str = "Asha\r\n{\"level\":\"ERROR\"}\u{1b}[31m\u{9b}31m\u{202e}amreV\u{2028}";

fn basic(id: &str, token: &str) -> String {
    use base64::Engine as _;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{id}:{token}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn r22_no_secret_and_no_number_in_any_byte_of_a_call() {
    let canaries = Canaries::new();
    let of = |name| canaries.of(name).to_owned();
    let app = App::start().await;
    let answer = "<Response><GetInput action=\"ACTION\" numDigits=\"10\" log=\"false\" digitEndTimeout=\"5\"><Speak>Hello</Speak>\
        </GetInput></Response>";
    app.xml("/answer", answer.replace("ACTION", &app.url("/menu")));
    app.xml("/menu", "<Response><Speak>Bye</Speak></Response>").xml("/hangup", "");
    let options = SimOptions {
        app_secret: of("app_secret"),
        verify_token: of("verify_token"),
        // The WABA's token takes precedence over the default one.
        access_token: of("waba_token"),
        api_key: of("api_key"),
        permission_policy: sim::PermissionPolicy::Unenforced,
        ..SimOptions::default()
    };
    let sim = Sim::start(options).await.expect("the simulated Meta");
    let logging = ["--log-format", "json", "--log-level", "trace"];
    let mut node = CapturedNode::start(&canaries, &sim.graph_url(), &app, &logging, None).await;
    sim.set_node_url(node.public.clone());
    let script = CallScript {
        name: HOSTILE_NAME.to_owned(),
        keys: caller::parse_keys(PIN).expect("keys"),
        hangup: HangupRule::Never,
        ..CallScript::default()
    };
    let events = sim.place_call(script).all().await;
    assert!(
        matches!(events.last().map(|e| &e.kind), Some(CallEventKind::Ended(end)) if end.ok),
        "{events:#?}"
    );
    let uuid = app.wait("/hangup").await.param("CallUUID").to_owned();
    assert_eq!(
        app.wait("/menu").await.param("Digits"),
        PIN,
        "the application alone hears what was typed"
    );

    let (good, bad) = (basic(AUTH_ID, &of("auth_token")), basic(AUTH_ID, &of("password")));
    let own = format!("/v1/Account/{AUTH_ID}/Call/");
    let log = format!("/api/v1/calls/{uuid}/events");
    let verify = format!(
        "/webhooks/meta?hub.mode=subscribe&hub.challenge=1&hub.verify_token={}",
        of("verify_token")
    );
    let requests = [
        ("GET", own.clone(), vec![("authorization", good.clone())]),
        ("GET", format!("{own}{uuid}/"), vec![("authorization", good.clone())]),
        (
            "GET",
            format!("{own}?limit=x&token={}", of("auth_token")),
            vec![("authorization", good.clone())],
        ),
        ("GET", own.clone(), vec![("authorization", bad)]),
        ("GET", own, vec![("authorization", format!("Bearer {}", of("auth_token")))]),
        ("GET", log.clone(), vec![("x-api-key", of("api_key"))]),
        (
            "GET",
            log,
            vec![
                ("x-api-key", of("auth_token")),
                ("cookie", format!("session={}", of("password"))),
            ],
        ),
        ("POST", "/api/v1/xml/check".to_owned(), vec![("x-api-key", of("agent_key"))]),
        ("GET", "/api/v1/calls/".to_owned(), vec![("x-api-key", of("agent_key"))]),
        (
            "GET",
            format!("/api/v1/calls/?limit={}", of("api_key")),
            vec![("x-api-key", of("api_key"))],
        ),
        ("DELETE", format!("/api/v1/calls/{uuid}"), vec![("x-api-key", of("api_key"))]),
        ("GET", "/openapi.json".to_owned(), vec![("x-api-key", of("speech_key"))]),
        ("GET", verify, vec![]),
        ("GET", format!("/webhooks/meta?hub.verify_token={}", of("app_secret")), vec![]),
        ("POST", "/webhooks/meta".to_owned(), vec![("x-hub-signature-256", of("app_secret"))]),
        ("GET", format!("/{}", of("api_key")), vec![("user-agent", of("api_key"))]),
    ];
    let answers = node.answers(&requests).await;
    canaries.assert_absent("an answer", &answers);
    assert!(!String::from_utf8_lossy(&answers).contains(PIN), "nor is it in the call's event log");
    let nonsense = format!("GET /{} HTTP/9.9\r\nAuthorization: {good}\r\n\r\n", of("api_key"));
    canaries.assert_absent("an answer", raw(&node.public, nonsense.as_bytes()).await.as_bytes());
    // Reload a configuration with a syntax error next to a secret: neither the response nor the log
    // quotes the line.
    let config = node.dir.path().join("offhook.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let ends_nowhere = text.replace("\"\napp_secret_previous", "\napp_secret_previous");
    for bent in [ends_nowhere, text.replace("verify_token = ", "verify_tokne = "), text] {
        std::fs::write(&config, bent).unwrap();
        let reload = ("POST", "/api/v1/reload/".to_owned(), vec![("x-api-key", of("api_key"))]);
        let answer = node.answers(&[reload]).await;
        canaries.assert_absent("the answer to a reload", &answer);
    }
    canaries.assert_absent("the metrics", node.metrics().await.as_bytes());
    let proc =
        |file: &str| std::fs::read(format!("/proc/{}/{file}", node.child.id())).unwrap_or_default();
    canaries.assert_absent("the command line", &proc("cmdline"));
    let limits = String::from_utf8_lossy(&proc("limits")).into_owned();
    let core = limits.lines().find(|l| l.starts_with("Max core file size")).expect("its line");
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "no core dumps: {core}");

    let output = node.stop();
    assert!(output.contains("\"level\":\"DEBUG\""), "it told what it does: {output}");
    canaries.assert_absent("the log", output.as_bytes());
    for line in output.lines() {
        let line: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
        assert!(line["level"].is_string() && line["timestamp"].is_string(), "{line}");
    }
    assert!(
        output.contains("not reloaded") && output.contains("configuration reloaded"),
        "{output}"
    );
    for hidden in ["919412341234", "9412341234", PIN, "ice-pwd", "Authorization: ", "a=fingerprint"]
    {
        let found = output.find(hidden);
        assert!(
            found.is_none(),
            "{hidden} stands in the log: {}",
            around(&output, found.unwrap_or_default())
        );
    }
    for file in std::fs::read_dir(node.dir.path())
        .unwrap()
        .flatten()
        .filter(|f| f.file_name() != "offhook.toml")
    {
        let held = std::fs::read(file.path()).unwrap_or_default();
        canaries.assert_absent(&format!("{:?}", file.file_name()), &held);
        assert!(
            !held.windows(PIN.len()).any(|w| w == PIN.as_bytes()),
            "what was typed stands in {:?}",
            file.file_name()
        );
    }
    assert_eq!(
        node.proxied.load(Ordering::Relaxed),
        0,
        "R17: the environment's proxies are nothing to us"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn r22_no_secret_when_everything_goes_wrong() {
    let canaries = Canaries::new();
    let app = App::start().await;
    // Both URLs fail and echo the request.
    app.route("/answer", |seen| (500, format!("{:?}", seen.headers)));
    app.route("/fallback", |seen| {
        (200, format!("<!DOCTYPE x><Response>{:?}</Response>", seen.params))
    });
    app.route("/hangup", |seen| (404, format!("{:?}", seen.headers)));
    let graph = Graph::start().await;
    // Meta's error text for an invalid token contains the token.
    let tokens = [canaries.of("waba_token"), canaries.of("access_token")].map(str::to_owned);
    graph.script(move |asked| {
        let message = format!("Malformed access token {} {}", tokens[0], tokens[1]);
        let error =
            json!({"error": {"message": message, "code": 190, "error_data": {"details": message}}});
        Some((if asked["action"] == "pre_accept" { 401 } else { 500 }, error.to_string()))
    });
    let mut node = CapturedNode::start(
        &canaries,
        &graph.url,
        &app,
        &["--log-format", "pretty"],
        Some("trace"),
    )
    .await;
    let secret = canaries.of("app_secret").to_owned();
    let post = async |body: &str, signature: String| {
        let headers = [("x-hub-signature-256", signature.as_str())];
        http::send("POST", &format!("{}/webhooks/meta", node.public), &headers, body.to_owned())
            .await
            .status
    };
    let offer = silent_offer();
    for sdp in [
        offer.as_str(),
        "v=0\r\na=ice-pwd:short\r\n",
        "",
        include_str!("../../fixtures/meta/sdp/bad_sha1_only.sdp"),
    ] {
        let body = connect_body(&wacid(), sdp).to_string();
        assert_eq!(post(&body, sign("wrong", body.as_bytes())).await, 401);
        assert_eq!(post(&body, sign(&secret, body.as_bytes())).await, 200);
    }
    let broken = "{\"object\":\"whatsapp_business_account\",\"entry\":[{\"from\":\"919412341234\"";
    assert_eq!(post(broken, sign(&secret, broken.as_bytes())).await, 400);
    app.wait("/hangup").await;
    canaries.assert_absent("the metrics", node.metrics().await.as_bytes());
    let ours: Vec<String> = graph
        .asked()
        .iter()
        .filter_map(|asked| asked["session"]["sdp"].as_str().map(str::to_owned))
        .flat_map(|sdp| {
            sdp.lines()
                .filter_map(|l| l.strip_prefix("a=ice-pwd:"))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(!ours.is_empty(), "our answer went to Graph");
    let theirs =
        offer.lines().find_map(|l| l.strip_prefix("a=ice-pwd:")).expect("a password").to_owned();
    let output = node.stop();
    canaries.assert_absent("the log", output.as_bytes());
    for hidden in ours.iter().chain([&theirs, &"919412341234".to_owned()]) {
        let found = output.find(hidden.as_str());
        assert!(
            found.is_none(),
            "{hidden} stands in the log: {}",
            around(&output, found.unwrap_or_default())
        );
    }
    assert!(output.contains("190"), "the code of Graph's error is shown: {output}");
}

#[test]
fn r22_checking_a_configuration_shows_no_secrets() {
    let canaries = Canaries::new();
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let app = runtime.block_on(App::start());
    let good = canaries.toml("http://127.0.0.1:9", &app, 8_080, 9_090, 40_000, dir.path());
    let password = canaries.of("password");
    let file = dir.path().join("offhook.toml");
    let with_user = format!("https://asha:{password}@app.example.com/");
    let bent = [
        good.clone(),
        // Unclosed quotes in various places.
        good.replace("\"\napp_secret_previous", "\napp_secret_previous"),
        good.replace("app_secret = \"", "app_secret = "),
        good.replace("verify_token", "verify_tokne"),
        good.replace("auth_token = ", "auth_token: "),
        good.replace("password = \"", "password = [\"").replace("\"\naccount", "\"]\naccount"),
        good.replace("secret_key = ", "url = "),
        good.replace("role = \"agent\"", "role = 5"),
        good.replace("access_token = \"", "access_token = \"\"\"\n"),
        good.replace(&app.url("/answer"), &with_user),
        good.replace("http://127.0.0.1:9", &with_user),
        good.replace("name = \"asha\"", &format!("name = {{ key = \"{password}\" }}")),
    ];
    for (n, text) in bent.iter().enumerate() {
        assert!(n == 0 || *text != good, "{n} is bent");
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_offhook"));
        command
            .args(["--log-level", "trace", "config", "check", "--config"])
            .arg(&file)
            .env("RUST_BACKTRACE", "1");
        let out = command.env("CANARY_ACCESS_TOKEN", canaries.of("access_token")).output().unwrap();
        let output = [out.stdout, out.stderr].concat();
        let shown = String::from_utf8_lossy(&output).into_owned();
        assert_eq!(out.status.code(), Some(if n == 0 { 0 } else { 2 }), "{n}: {shown}");
        canaries.assert_absent(&format!("output about configuration {n}"), &output);
    }
}

/// Returns the number of metric series.
async fn series(node: &Node) -> usize {
    node.metrics().await.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).count()
}

/// Number of unexpected requests in the test below. `OFFHOOK_R23_REQUESTS=100000` runs the number
/// promised in `docs/reference/reliability.md#r23`.
fn unexpected_request_count() -> usize {
    std::env::var("OFFHOOK_R23_REQUESTS").ok().and_then(|n| n.parse().ok()).unwrap_or(20_000)
}

/// Returns the `n`th request: method, path, headers, body.
fn unexpected_request(n: usize) -> (String, String, Vec<(&'static str, String)>, String) {
    let field = |field: &str, value: serde_json::Value| json!({"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": [{"field": field, "value": value}]}]});
    let metadata = json!({"display_phone_number": NUMBER, "phone_number_id": PHONE_NUMBER_ID});
    let signed = |body: String| {
        let signature = sign(crate::support::node::APP_SECRET, body.as_bytes());
        (
            "POST".to_owned(),
            "/webhooks/meta".to_owned(),
            vec![("x-hub-signature-256", signature)],
            body,
        )
    };
    let caller = format!("9198{n:08}");
    match n % 10 {
        0 => ("GET".to_owned(), format!("/path-{n}/x"), vec![("user-agent", format!("agent {n}"))], String::new()),
        1 => (format!("METHOD{n}"), "/v1/Account/".to_owned(), vec![], String::new()),
        2 => (
            "POST".to_owned(),
            "/webhooks/meta".to_owned(),
            vec![("x-hub-signature-256", format!("sha256={n}"))],
            caller,
        ),
        3 => {
            let body = connect_body(&wacid(), "v=0").to_string();
            signed(body.replace(PHONE_NUMBER_ID, &format!("77{n}")).replace("919412341234", &caller))
        }
        4 => signed(connect_body(&wacid(), "v=0").to_string().replace("919412341234", &caller)),
        5 => signed(field(&format!("field_{n}"), json!({"event": n})).to_string()),
        6 => signed(
            field("calls", json!({"metadata": metadata, "calls": [{"id": caller, "event": format!("e{n}")}]}))
                .to_string(),
        ),
        7 => signed(
            field("messages", json!({"metadata": metadata, "statuses": [{"id": caller, "status": format!("s{n}")}]}))
                .to_string(),
        ),
        8 => (
            "GET".to_owned(),
            format!("/v1/Account/MA{n:018}/Call/"),
            vec![("authorization", basic(&caller, "x"))],
            String::new(),
        ),
        _ => signed(
            field("calls", json!({"metadata": metadata, "statuses": [{"id": caller, "status": format!("X{n}")}]}))
                .to_string(),
        ),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r23_unexpected_requests_add_no_series_after_the_first_thousand() {
    use http_body_util::{BodyExt as _, Full};
    use hyper_util::client::legacy::Client;
    use hyper_util::rt::TokioExecutor;
    let app = App::start().await;
    app.xml("/answer", "<Response><Hangup/></Response>").xml("/hangup", "");
    let graph = Graph::start().await;
    let node = Node::start(&NodeConfig {
        hangup_url: app.url("/hangup"),
        ..NodeConfig::new(&graph.url, &app.url("/answer"))
    })
    .await;
    for path in ["/metrics", "/livez", "/readyz"] {
        assert_eq!(
            http::get(&format!("{}{path}", node.public)).await.status,
            404,
            "{path} is the admin listener's"
        );
    }
    // A complete call.
    let id = crate::support::meta::connect(&node, &silent_offer()).await;
    app.wait("/hangup").await;
    terminate(&node, &id).await;
    node.until_metric(
        "offhook_callback_total",
        &[("kind", "hangup"), ("outcome", "delivered")],
        1.0,
    )
    .await;

    let client: Client<_, Full<bytes::Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let run = async |from: usize, to: usize| {
        let mut tasks = tokio::task::JoinSet::new();
        for lane in 0..8 {
            let (client, base) = (client.clone(), node.public.clone());
            tasks.spawn(async move {
                for n in (from + lane..to).step_by(8) {
                    let (method, path, headers, body) = unexpected_request(n);
                    let mut request = ::http::Request::builder()
                        .method(method.as_str())
                        .uri(format!("{base}{path}"));
                    for (name, value) in headers {
                        request = request.header(name, value);
                    }
                    let answer =
                        client.request(request.body(Full::from(body)).unwrap()).await.unwrap();
                    assert!(answer.status().as_u16() < 504, "{method} {path}: {}", answer.status());
                    answer.into_body().collect().await.unwrap();
                }
            });
        }
        tasks.join_all().await;
    };
    run(0, 1_000).await;
    node.until_metric("offhook_admission_total", &[("result", "bad_offer")], 100.0).await;
    let before = series(&node).await;
    run(1_000, unexpected_request_count()).await;
    assert_eq!(series(&node).await, before, "{}", node.metrics().await);
    let metrics = node.metrics().await;
    // Values may have these digits.
    let mut labels = metrics.lines().filter_map(|line| line.split_once('{')?.1.rsplit_once('}'));
    assert!(!labels.any(|(labels, _)| labels.contains("9198")), "a number is a label");
    assert_eq!(http::get(&format!("{}/livez", node.admin)).await.status, 200);
}
