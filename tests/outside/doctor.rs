//! `offhook doctor` against a running node and a simulated Meta, with each possible fault of Meta's
//! configuration.

use std::process::{Command, Stdio};

use rusqlite::Connection;
use serde_json::{Value, json};
use sim::Sim;

use crate::alerts::mail_server;
use crate::support::app::App;
use crate::support::bucket::{self, Bucket};
use crate::support::database::{is_postgres, skipped_on_postgres, url_of};
use crate::support::http;
use crate::support::node::{
    ACCESS_TOKEN, API_KEY, APP_SECRET, AUTH_ID, NUMBER, Node, NodeConfig, PHONE_NUMBER_ID,
    VERIFY_TOKEN, basic, free_port, sim_options,
};

const WABA: &str = "1029384756";

struct World {
    sim: Sim,
    node: Node,
    app: App,
}

impl World {
    async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    async fn start_with(change: impl FnOnce(&mut NodeConfig)) -> Self {
        let app = App::start().await;
        app.xml("/answer", "<Response><Speak>Hello.</Speak></Response>");
        let sim = Sim::start(sim_options()).await.expect("sim");
        let mut node_config = NodeConfig::new(&sim.graph_url(), &app.url("/answer"));
        node_config.meta = format!("app_id = \"{}\"", sim::world::APP_ID);
        change(&mut node_config);
        let node = Node::start(&node_config).await;
        sim.set_node_url(&node.public);
        Self { sim, node, app }
    }

    async fn orders(&self, door: &str, order: Value) {
        let answer =
            http::send("POST", &format!("{}/_sim/{door}", self.sim.url()), &[], order.to_string())
                .await;
        assert_eq!(answer.status, 204, "{}", answer.text());
    }

    /// Runs the doctor. Returns the exit code and the output lines.
    async fn examine(&self) -> (Option<i32>, Vec<Value>) {
        self.node.doctor().await
    }

    /// Returns name, state and message of the checks that are not ok. The exit code must match the
    /// worst state.
    async fn complaints(&self) -> Vec<(String, String, String)> {
        let (code, lines) = self.examine().await;
        let text = |line: &Value, name: &str| line[name].as_str().unwrap_or_default().to_owned();
        let bad: Vec<_> = lines
            .iter()
            .filter(|line| line["state"].is_string() && line["state"] != "ok")
            .collect();
        assert!(
            bad.iter().all(|line| line["fix"].is_string()),
            "every complaint has its fix: {bad:?}"
        );
        let failed = bad.iter().any(|line| line["state"] == "failed");
        assert_eq!(code, Some(i32::from(failed)), "{bad:?}");
        assert!(lines.last().unwrap()["verdict"].is_string());
        bad.iter()
            .map(|line| (text(line, "check"), text(line, "state"), text(line, "what")))
            .collect()
    }

    async fn complains(&self, check: &str, state: &str, words: &str) {
        let all = self.complaints().await;
        let found = all.iter().any(|(c, s, what)| c == check && s == state && what.contains(words));
        assert!(found, "{check} {state} {words:?} among {all:?}");
    }

    async fn settings(&self, calling: Value) {
        let bearer = format!("Bearer {ACCESS_TOKEN}");
        let url = format!("{}/{PHONE_NUMBER_ID}/settings", self.sim.graph_url());
        let body = json!({ "calling": calling }).to_string();
        assert_eq!(http::send("POST", &url, &[("authorization", &bearer)], body).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_correct_installation_has_no_findings() {
    let world = World::start().await;
    assert_eq!(world.complaints().await, []);
    let (_, lines) = world.examine().await;
    for check in [
        "configuration",
        "clock",
        "store",
        "media",
        "public_url",
        "webhook",
        "waba",
        "token",
        "number",
        "url",
    ] {
        assert!(
            lines.iter().any(|line| line["check"] == check && line["state"] == "ok"),
            "{check}: {lines:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_at_meta_is_reported_with_its_fix() {
    let world = World::start().await;
    let number = |fields: Value| json!({"number": NUMBER, "phone_number_id": PHONE_NUMBER_ID, "waba": WABA, "name": "x", "facts": fields});
    world.orders("numbers", number(json!({"platform_type": "NOT_APPLICABLE"}))).await;
    world.complains("number", "failed", "CLOUD_API").await;
    world.orders("numbers", number(json!({"status": "BANNED", "quality_rating": "RED"}))).await;
    world.complains("number", "failed", "BANNED").await;
    world.complains("number", "warning", "RED").await;
    world.orders("numbers", number(json!({"is_on_biz_app": true}))).await;
    world.complains("number", "warning", "coexistence").await;
    world.orders("numbers", number(json!({}))).await;

    world.orders("app", json!({"unsubscribed": [WABA]})).await;
    world.complains("waba", "failed", "not subscribed").await;
    world.orders("app", json!({"fields_off": ["calls"]})).await;
    world.complains("webhook", "failed", "calls").await;
    world.orders("app", json!({"fields_off": ["account_update"]})).await;
    world.complains("webhook", "warning", "account_update").await;
    world.orders("app", json!({"tokens_end": 1_000_000_000})).await;
    world.complains("token", "failed", "no longer valid").await;
    world.orders("app", json!({})).await;
    world.sim.set_node_url("http://127.0.0.1:9");
    world.complains("webhook", "failed", "http://127.0.0.1:9").await;
    world.sim.set_node_url(&world.node.public);

    world.settings(json!({"status": "DISABLED"})).await;
    world.complains("number", "failed", "not at Meta").await;
    world.settings(json!({"status": "ENABLED", "sip": {"status": "ENABLED"}})).await;
    world.complains("number", "failed", "SIP").await;
    world.settings(json!({"sip": {"status": "DISABLED"}})).await;

    world.app.xml("/answer", "<Response><Speek/></Response>");
    world.complains("url", "failed", "not a valid document").await;
    world.app.route("/answer", |_| (503, String::new()));
    world.complains("url", "failed", "503").await;
    world.app.xml("/answer", "<Response><Speak>Hello.</Speak></Response>");
    assert_eq!(world.complaints().await, [], "and all is well again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_node_and_a_wrong_configuration_are_reported() {
    let mut world = World::start().await;
    world.node.kill();
    world.complains("public_url", "failed", "can't be requested").await;
    let config = world.node.dir.path().join("offhook.toml");
    let text = std::fs::read_to_string(&config).expect("the configuration");
    std::fs::write(&config, text.replace("cps = 100", "cps = \"many\"")).expect("it is written");
    assert_eq!(world.examine().await.0, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_moved_under_a_running_node_is_reported() {
    if skipped_on_postgres() {
        return;
    }
    let world = World::start().await;
    let (file, away) =
        ["offhook.db", "away.db"].map(|name| world.node.dir.path().join(name)).into();
    std::fs::rename(&file, &away).expect("moved");
    world.complains("store", "failed", "offhook.db was moved or deleted while the node runs").await;
    let write = json!({"name": "Late", "colour": "red"}).to_string();
    let url = format!("{}/api/v1/labels/", world.node.public);
    let headers = [("x-api-key", API_KEY), ("content-type", "application/json")];
    assert_eq!(http::send("POST", &url, &headers, write.clone()).await.status, 503);
    let warning =
        format!("{} was moved or deleted while the node runs: move it back", file.display());
    world.node.until_log(&warning).await;
    std::fs::rename(&away, &file).expect("moved back");
    let mut every = tokio::time::interval(std::time::Duration::from_millis(50));
    for _ in 0..200 {
        every.tick().await;
        if http::send("POST", &url, &headers, write.clone()).await.status == 201 {
            break;
        }
    }
    assert_eq!(world.complaints().await, []);
    let folder = world.node.dir.path().with_extension("away");
    std::fs::create_dir(&folder).expect("a folder");
    for name in ["offhook.db", "offhook.db.births"] {
        std::fs::rename(world.node.dir.path().join(name), folder.join(name)).expect("moved");
    }
    world.complains("node", "failed", "or this one, whose folder was moved or deleted").await;
    for name in ["offhook.db", "offhook.db.births"] {
        std::fs::rename(folder.join(name), world.node.dir.path().join(name)).expect("moved back");
    }
    std::fs::remove_dir(&folder).expect("removed");
}

/// A new database of a PostgreSQL server, before the first start of a node.
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_database_is_no_fault() {
    let mut world = World::start().await;
    world.node.kill();
    let config = world.node.dir.path().join("offhook.toml");
    let text = std::fs::read_to_string(&config).expect("the configuration");
    let other = tempfile::tempdir().expect("a directory");
    let (ours, theirs) = (url_of(world.node.dir.path()), url_of(other.path()));
    assert!(text.contains(&ours), "{text}");
    std::fs::write(&config, text.replace(&ours, &theirs)).expect("it is written");
    if !is_postgres() {
        // As a start leaves it that ends before the tables are made.
        std::fs::write(other.path().join("offhook.db"), "").expect("an empty file");
    }
    let (_, lines) = world.examine().await;
    let of = |check: &str| lines.iter().find(|line| line["check"] == check);
    let store = of("store").expect("a finding");
    let what = store["what"].as_str().expect("words");
    assert!(store["state"] == "ok" && what.ends_with("at its first start"), "{lines:?}");
    let database = of("database").map(|line| line["state"].clone());
    assert_eq!(database, is_postgres().then(|| json!("ok")), "the server is checked: {lines:?}");
    let mut list = Command::new(env!("CARGO_BIN_EXE_offhook"));
    list.args(["callbacks", "list", "--config"]).arg(&config).env_remove("RUST_LOG");
    let output = tokio::task::spawn_blocking(move || list.output().expect("it runs"));
    let output = output.await.expect("it ends");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("it has no tables yet"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_a_newer_version_is_reported() {
    if skipped_on_postgres() {
        return;
    }
    let world = World::start().await;
    let store = Connection::open(world.node.dir.path().join("offhook.db")).expect("the store");
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
        VALUES (77, 'later', 1, X'00', 1); INSERT INTO store_versions VALUES (77, '4.2.0')";
    store.execute_batch(newer).expect("the note of a newer version");
    world.complains("store", "failed", "made by Offhook 4.2.0").await;
}

/// Two nodes of a machine with the same ports: the other one runs.
#[tokio::test(flavor = "multi_thread")]
async fn another_nodes_ports_are_not_taken_for_the_own() {
    let world = World::start().await;
    let (_, lines) = world.examine().await;
    let is_ready = |line: &Value| line["check"] == "node" && line["state"] == "ok";
    assert!(lines.iter().any(is_ready), "{lines:?}");
    let config = world.node.dir.path().join("offhook.toml");
    let text = std::fs::read_to_string(&config).expect("the configuration");
    let ours = world.node.dir.path().display().to_string();
    assert!(text.contains(&ours), "{text}");
    let theirs = text.replace(&ours, &format!("{ours}/second"));
    std::fs::write(&config, theirs).expect("it is written");
    world.complains("node", "failed", "another node has this port").await;
    world.complains("media", "failed", "in use by another process").await;
    for key in ["public", "admin"] {
        let what = format!("(listen.{key}) is in use by another process");
        world.complains("node", "failed", &what).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_takes_no_copies_is_reported() {
    let world = World::start().await;
    let config = world.node.dir.path().join("offhook.toml");
    let text = std::fs::read_to_string(&config).expect("the configuration");
    let bucket = Bucket::start().await;
    let with = |toml: String| std::fs::write(&config, format!("{text}{toml}")).expect("written");
    with(bucket.toml(""));
    assert_eq!(world.complaints().await, []);
    let methods = bucket.requests().into_iter().map(|(method, ..)| method);
    assert_eq!(methods.collect::<Vec<_>>(), ["PUT", "GET", "DELETE"]);
    assert!(bucket.objects().is_empty());
    bucket.fail(&[403]);
    world.complains("recordings", "warning", "can't be written").await;
    with(bucket.toml("").replace(bucket::SECRET, "another"));
    world.complains("recordings", "warning", "SignatureDoesNotMatch").await;
    with(bucket.toml("").replace(&bucket.base, &format!("http://127.0.0.1:{}", free_port())));
    world.complains("recordings", "warning", "could not reach the bucket").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_optional_secret_without_its_file_is_reported() {
    let world = World::start().await;
    let config = world.node.dir.path().join("offhook.toml");
    let text = std::fs::read_to_string(&config).expect("the configuration");
    let keys = "api_keys = [{ file = \"/nowhere/api_kye\" }, ";
    std::fs::write(&config, text.replace("api_keys = [", keys)).expect("it is written");
    world
        .complains(
            "configuration",
            "warning",
            "`account[0].api_keys[0]` needs the file /nowhere/api_kye",
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_secret_key_and_receivers_of_alerts_that_are_away_are_reported() {
    let world = World::start_with(|config| config.is_single = true).await;
    let url = format!("{}/v1/Account/{AUTH_ID}/Subaccount/", world.node.public);
    let basic = basic();
    let headers = [("authorization", &*basic), ("content-type", "application/json")];
    let made = http::send("POST", &url, &headers, json!({"name": "Asha"}).to_string()).await;
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!(world.complaints().await, []);
    let config = world.node.dir.path().join("offhook.toml");
    let text = std::fs::read_to_string(&config).expect("the configuration");
    let text = text.replace("[store]", &format!("[store]\nsecret_key = \"{}\"", "k".repeat(64)));
    let closed = free_port();
    let alerts = |host: &str, mail: u16| {
        format!(
            "{text}\n[alerts]\nurl = \"{host}/alerts\"\nsecret = \"{}\"\n[alerts.mail]\n\
             server = \"smtp://127.0.0.1:{mail}\"\nfrom = \"a@example.com\"\nto = [\"b@example.com\"]\n",
            "s".repeat(40)
        )
    };
    let away = alerts(&format!("http://127.0.0.1:{closed}"), closed);
    std::fs::write(&config, away).expect("it is written");
    world.complains("secret_key", "failed", "1 of 1 tokens of accounts").await;
    let all = world.complaints().await;
    let silent = all.iter().filter(|(check, state, _)| check == "alerts" && state == "warning");
    assert_eq!(silent.count(), 2, "{all:?}");
    let (mail, _mails) = mail_server().await;
    std::fs::write(&config, alerts(&world.app.url(""), mail)).expect("it is written");
    let all = world.complaints().await;
    assert!(all.iter().all(|(check, _, _)| check != "alerts"), "{all:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn speech_and_a_model_that_do_not_work_are_reported() {
    let mut world = World::start().await;
    let config = world.node.dir.path().join("offhook.toml");
    let text = std::fs::read_to_string(&config).expect("the configuration");
    let closed = format!("http://127.0.0.1:{}/v1", free_port());
    let dead = format!(
        "{text}\n[speech]\nespeak = \"/nowhere/espeak\"\n[speech.transcribe]\nurl = \"{closed}\"\n\
         [speech.openai]\nurl = \"{closed}\"\n[model]\nurl = \"{closed}\"\nname = \"small\"\n"
    );
    std::fs::write(&config, dead).expect("it is written");
    let all = world.complaints().await;
    for (check, words) in [
        ("configuration", "espeak is /nowhere/espeak, which does not exist".to_owned()),
        ("speech", format!("{closed} does not recognise speech")),
        ("speech", format!("{closed} does not speak")),
        ("model", "small at 127.0.0.1 does not answer".to_owned()),
    ] {
        let is_it = |(of, state, what): &(String, String, String)| {
            of == check && state == "warning" && what.contains(&words)
        };
        assert!(all.iter().any(is_it), "{check} {words} in {all:?}");
    }

    // A recogniser without which the node does not start.
    world.node.kill();
    std::fs::write(&config, format!("{text}\n[speech]\nrecogniser = \"whisper\"\n"))
        .expect("it is written");
    world.complains("speech", "failed", "offhook models fetch whisper").await;
    for command in [&["config", "check"][..], &["serve"]] {
        let mut command_line = Command::new(env!("CARGO_BIN_EXE_offhook"));
        command_line.args(command).arg("--config").arg(&config).env_remove("RUST_LOG");
        let output = tokio::task::spawn_blocking(move || command_line.output().expect("it runs"));
        let output = output.await.expect("it ends");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{command:?}: {text}");
        if command != ["serve"] {
            assert!(text.contains("offhook models fetch whisper"), "{command:?}: {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_node_is_reported() {
    let world = World::start_with(|config| config.is_single = true).await;
    let node = &world.node;
    assert_eq!(world.complaints().await, []);
    let key = [("x-api-key", API_KEY)];
    let nodes = format!("{}/api/v1/nodes/", node.public);
    let id = http::send("GET", &nodes, &key, "").await.json()["items"][0]["id"].clone();
    let id = id.as_str().expect("a name");
    let drained = http::send("POST", &format!("{nodes}{id}/drain/"), &key, "").await;
    assert_eq!(drained.status, 202, "{}", drained.text());
    world.complains("node", "failed", "draining").await;

    let mut call = Command::new(env!("CARGO_BIN_EXE_offhook"));
    call.args(["call", "--node", &node.public, "--api-key", API_KEY])
        .envs([("META_APP_SECRET", APP_SECRET), ("META_VERIFY_TOKEN", VERIFY_TOKEN)])
        .env_remove("RUST_LOG")
        .stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || call.output().expect("it runs"));
    let output = output.await.expect("it ends");
    let text = String::from_utf8_lossy(&output.stdout);
    let drained = format!("; node {id} admits no calls: draining; only a restart ends a drain");
    assert!(text.contains(&drained) && !text.contains("--api-key"), "{text}");
    assert_eq!(output.status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_public_urls_certificate_expiry_is_reported() {
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    use std::sync::Arc;
    let world = World::start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let now = model::Clock::real().wall().secs();
    let ends = jiff::Timestamp::from_second(now + 5 * 86_400 + 3_600)
        .expect("a time")
        .to_zoned(jiff::tz::TimeZone::UTC);
    let (year, month, day) = (ends.year(), ends.month(), ends.day());
    params.not_after = rcgen::date_time_ymd(year.into(), month.unsigned_abs(), day.unsigned_abs());
    let key = rcgen::KeyPair::generate().expect("a key");
    let made = params.self_signed(&key).expect("a certificate");
    let pem = world.node.dir.path().join("ca.pem");
    let text = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, made.der());
    let text = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
    std::fs::write(&pem, text).expect("write it");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.der().clone()], private)
        .expect("a server");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // The check only needs the TLS handshake.
            drop(acceptor.accept(stream).await);
        }
    });
    let config = world.node.dir.path().join("offhook.toml");
    let text = std::fs::read_to_string(&config).expect("the configuration");
    let base = text.lines().find(|line| line.starts_with("base_url")).expect("a base URL");
    let other = world.node.dir.path().join("https.toml");
    std::fs::write(&other, text.replace(base, &format!("base_url = \"https://localhost:{port}\"")))
        .expect("write it");
    let mut doctor = Command::new(env!("CARGO_BIN_EXE_offhook"));
    doctor.args(["doctor", "--json", "--config"]).arg(&other).env("SSL_CERT_FILE", &pem);
    doctor.env_remove("RUST_LOG").stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || doctor.output().expect("it runs"))
        .await
        .expect("it ends");
    let text = String::from_utf8(output.stdout).expect("text");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect(line));
    let line = lines
        .into_iter()
        .find(|line| line["check"] == "certificate")
        .unwrap_or_else(|| panic!("{text}"));
    assert_eq!(
        (&line["state"], &line["subject"]),
        (&json!("warning"), &json!("localhost")),
        "{line}"
    );
    let what = line["what"].as_str().expect("words");
    assert!(
        what.contains("valid for 4 more days") || what.contains("valid for 5 more days"),
        "{what}"
    );
}
