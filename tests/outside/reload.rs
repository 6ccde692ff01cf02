//! Configuration reload during calls, by SIGHUP and over the API
//! (`docs/reference/reliability.md#r9`).

use serde_json::{Value, json};

use crate::support::app::App;
use crate::support::http::{self, Answer};
use crate::support::meta::{Graph, connect, connect_body, silent_offer, terminate, wacid};
use crate::support::node::{
    API_KEY, APP_SECRET, AUTH_ID, AUTH_TOKEN, NUMBER, Node, NodeConfig, VERIFY_TOKEN,
};

struct World {
    node: Node,
    graph: Graph,
    app: App,
}

impl World {
    async fn start() -> Self {
        let app = App::start().await;
        let document = format!(
            "<Response><GetInput action=\"{}\" executionTimeout=\"60\"/></Response>",
            app.url("/menu")
        );
        app.xml("/answer", document.clone()).xml("/other", document).xml("/hangup", "");
        let graph = Graph::start().await;
        let mut node_config = NodeConfig::new(&graph.url, &app.url("/answer"));
        node_config.hangup_url = app.url("/hangup");
        node_config.is_single = true;
        node_config.accept_wait_ms = 0;
        Self { node: Node::start(&node_config).await, graph, app }
    }

    /// Replaces texts in the configuration file.
    fn edit(&self, changes: &[(&str, &str)]) {
        let file = self.node.dir.path().join("offhook.toml");
        let mut text = std::fs::read_to_string(&file).expect("the configuration");
        for (from, to) in changes {
            assert!(text.contains(from), "{from} in {text}");
            text = text.replace(from, to);
        }
        std::fs::write(&file, text).expect("written");
    }

    async fn reload(&self) -> Answer {
        http::send(
            "POST",
            &format!("{}/api/v1/reload/", self.node.public),
            &[("x-api-key", API_KEY)],
            "",
        )
        .await
    }

    /// Sends SIGHUP and waits until the log contains `until`.
    async fn sighup(&self, until: &str) {
        let before = self.node.log().matches(until).count();
        self.node.signal("HUP");
        let mut every = tokio::time::interval(std::time::Duration::from_millis(20));
        for _ in 0..1500 {
            every.tick().await;
            if self.node.log().matches(until).count() > before {
                return;
            }
        }
        panic!("no {until:?} after 30 s");
    }

    /// Starts a call that is accepted. Returns its id.
    async fn live_call(&self) -> String {
        let wacid = connect(&self.node, &silent_offer()).await;
        self.graph.wait(&wacid, "accept").await;
        wacid
    }

    /// Returns the status of a connect that is signed with `secret`.
    async fn status_signed_by(&self, secret: &str) -> u16 {
        let body = connect_body(&wacid(), &silent_offer()).to_string();
        let signature = crate::support::sign(secret, body.as_bytes());
        let url = format!("{}/webhooks/meta", self.node.public);
        http::send("POST", &url, &[("x-hub-signature-256", &signature)], body).await.status
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r09_reload_drops_nothing() {
    let world = World::start().await;
    let slots = [("number", NUMBER)];
    let mut live = Vec::new();
    for _ in 0..5 {
        live.push(world.live_call().await);
    }
    // A lower limit ends no call. It refuses new ones until the count is below it.
    let lower = format!("answer_url = \"{}\"\ncalls_per_number = 2", world.app.url("/other"));
    let answer_url = format!("answer_url = \"{}\"", world.app.url("/answer"));
    world.edit(&[
        (&answer_url, &lower),
        ("default_cps = 100", "default_cps = 50"),
        ("accept_wait_ms = 0", "accept_wait_ms = 10"),
    ]);
    world.sighup("configuration reloaded").await;
    world.node.until_metric("offhook_number_slots_in_use", &slots, 5.0).await;
    let full = connect(&world.node, &silent_offer()).await;
    world.graph.wait(&full, "reject").await;
    for wacid in live.split_off(1) {
        terminate(&world.node, &wacid).await;
    }
    world.node.until_metric("offhook_number_slots_in_use", &slots, 1.0).await;
    // The next call uses the new file. The live one keeps the old settings.
    let next = world.live_call().await;
    world.app.wait("/other").await;
    assert_eq!(
        world.graph.actions(&live[0]),
        ["pre_accept", "accept"],
        "the first call was not touched"
    );
    // The number is removed from the file: its calls continue and still end on Meta's webhooks.
    world.edit(&[("calling_enabled = true", "calling_enabled = false")]);
    world.sighup("configuration reloaded").await;
    let off = connect(&world.node, &silent_offer()).await;
    world.graph.wait(&off, "reject").await;
    for wacid in [&live[0], &next] {
        terminate(&world.node, wacid).await;
    }
    world.node.until_metric("offhook_number_slots_in_use", &slots, 0.0).await;
    world.node.until_metric("offhook_calls_total", &[("outcome", "completed")], 6.0).await;
    world
        .node
        .until_metric(
            "offhook_callback_total",
            &[("kind", "hangup"), ("outcome", "delivered")],
            6.0,
        )
        .await;
    assert_eq!(world.app.count("/hangup"), 6);
}

/// Key, field of the API, value of the API, value of the file, for each optional key that the API
/// also sets. Without a value of the API, the field has the default.
fn optional_keys(app: &App) -> Vec<(&'static str, &'static str, Value, Value)> {
    let url = |path: &str| json!(app.url(path));
    vec![
        ("alias", "alias", json!("Of the API"), json!("Of the file")),
        ("answer_url", "answerUrl", url("/other"), url("/answer")),
        ("fallback_url", "fallbackUrl", Value::Null, url("/fallback")),
        ("hangup_url", "hangupUrl", Value::Null, url("/hangup")),
        ("webhook_url", "webhookUrl", url("/api"), url("/file")),
        ("calls_per_number", "callsPerNumber", Value::Null, json!(7)),
        ("answer_method", "answerMethod", Value::Null, json!("GET")),
        ("calling_enabled", "callingEnabled", Value::Null, json!(true)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_removed_from_the_file_get_the_value_of_the_api_or_the_default() {
    let mut world = World::start().await;
    let url = format!("{}/api/v1/phone-numbers/{NUMBER}/", world.node.public);
    let number = async || http::send("GET", &url, &[("x-api-key", API_KEY)], "").await.json();
    let keys = optional_keys(&world.app);
    let file = world.node.dir.path().join("offhook.toml");
    let text = std::fs::read_to_string(&file).expect("the configuration");
    let is_of_key =
        |line: &&str| keys.iter().any(|(key, ..)| line.starts_with(&format!("{key} =")));
    let without = text.lines().filter(|line| !is_of_key(line)).collect::<Vec<_>>().join("\n");
    let named: String = keys.iter().map(|(key, .., file)| format!("{key} = {file}\n")).collect();
    let with = format!("{without}\n{named}");
    let write = |text: &str| std::fs::write(&file, text).expect("written");

    write(&without);
    world.sighup("configuration reloaded").await;
    let set = keys.iter().filter(|(_, _, api, _)| !api.is_null());
    let body: Value = set.map(|(_, field, api, _)| ((*field).to_owned(), api.clone())).collect();
    let of_api = http::send("PATCH", &url, &[("x-api-key", API_KEY)], body.to_string()).await;
    assert_eq!(of_api.status, 200, "{}", of_api.text());
    let of_api = of_api.json();
    for (_, field, api, _) in keys.iter().filter(|(_, _, api, _)| !api.is_null()) {
        assert_eq!(of_api[*field], *api);
    }
    let defaults = ["callsPerNumber", "callingEnabled", "answerMethod"].map(|key| &of_api[key]);
    assert_eq!(defaults, [&json!(1000), &json!(false), &json!("POST")]);
    assert_eq!([&of_api["fallbackUrl"], &of_api["hangupUrl"]], [&Value::Null; 2]);

    for is_restarted in [false, true] {
        for (text, is_named) in [(&with, true), (&without, false)] {
            write(text);
            if is_restarted {
                world.node.kill();
                world.node.start_again().await;
            } else {
                world.sighup("configuration reloaded").await;
            }
            let now = number().await;
            for (key, field, _, file) in &keys {
                let expected = if is_named { file } else { &of_api[*field] };
                assert_eq!(now[*field], *expected, "{key}, restarted: {is_restarted}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r09_an_invalid_file_changes_nothing_and_is_reported() {
    let world = World::start().await;
    let live = world.live_call().await;
    world.edit(&[
        ("calling_enabled", "caling_enabled"),
        ("default_cps = 100", "default_cps = \"canary\""),
    ]);
    let answer = world.reload().await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    let refusal = answer.json();
    assert_eq!(refusal["error"]["code"], "bad_configuration");
    let findings = refusal["error"]["findings"].as_array().expect("findings").clone();
    let unknown = findings
        .iter()
        .find(|f| f["message"].as_str().is_some_and(|m| m.contains("caling_enabled")));
    let unknown = unknown.unwrap_or_else(|| panic!("{refusal}"));
    assert_eq!(unknown["hint"], "did you mean `calling_enabled`?");
    assert!(unknown["line"].as_u64().is_some_and(|line| line > 10), "{unknown}");
    assert!(!answer.text().contains("canary") && !answer.text().contains(APP_SECRET));
    world.sighup("nothing changed").await;
    let log = world.node.log();
    assert!(
        log.contains("offhook.toml:") && log.contains("did you mean `calling_enabled`?"),
        "{log}"
    );
    // Unchanged: calls are accepted, and the live one continues.
    world.live_call().await;
    assert_eq!(world.graph.actions(&live), ["pre_accept", "accept"]);

    world.edit(&[
        ("caling_enabled", "calling_enabled"),
        ("default_cps = \"canary\"", "default_cps = 100"),
        ("media_ports = 8", "media_ports = 9"),
        ("allow_insecure = true", "allow_insecure = true\nmax_body_bytes = 2000"),
    ]);
    let answer = world.reload().await;
    let expected = json!({
        "accounts": 1, "wabas": 1, "numbers": 1, "needsRestart": ["listen.media_ports"],
        "warnings": [],
    });
    assert_eq!((answer.status, answer.json()), (200, expected));
    // A thread of the test reads the log, so the line may appear later.
    let mut every = tokio::time::interval(std::time::Duration::from_millis(20));
    while !world.node.log().contains("listen.media_ports") {
        every.tick().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_warns_of_optional_secrets_without_their_files() {
    let world = World::start().await;
    let gone = format!("[\"{API_KEY}\", {{ file = \"/nowhere/api_kye\" }}]");
    world.edit(&[(&format!("[\"{API_KEY}\"]"), &gone)]);
    let answer = world.reload().await;
    let warning = "`account[0].api_keys[1]` needs the file /nowhere/api_kye, which does not exist or \
                   is empty: the account has no such API key";
    assert_eq!((answer.status, &answer.json()["warnings"]), (200, &json!([warning])));
    world.sighup(warning).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_rotate_without_a_gap() {
    let world = World::start().await;
    let node = &world.node;
    let basic = async |token: &str| {
        use base64::Engine as _;
        let basic = base64::engine::general_purpose::STANDARD.encode(format!("{AUTH_ID}:{token}"));
        let url = format!("{}/v1/Account/{AUTH_ID}/Call/", node.public);
        http::send("GET", &url, &[("authorization", &format!("Basic {basic}"))], "").await.status
    };
    let verify = async |token: &str| {
        let query = format!("hub.mode=subscribe&hub.verify_token={token}&hub.challenge=7");
        http::get(&format!("{}/webhooks/meta?{query}", node.public)).await.status
    };
    let key = async |key: &str| {
        http::send("GET", &format!("{}/api/v1/calls/", node.public), &[("x-api-key", key)], "")
            .await
            .status
    };
    assert_eq!(
        [
            world.status_signed_by(APP_SECRET).await,
            world.status_signed_by("new-app-secret-of-node").await
        ],
        [200, 401]
    );

    // Both secrets are valid while the previous one is configured.
    world.edit(&[
        (
            &format!("app_secret = \"{APP_SECRET}\""),
            &format!(
                "app_secret = \"new-app-secret-of-node\"\napp_secret_previous = \"{APP_SECRET}\""
            ),
        ),
        (
            &format!("auth_token = \"{AUTH_TOKEN}\""),
            &format!(
                "auth_token = \"new-auth-token-of-node\"\nauth_token_previous = \"{AUTH_TOKEN}\""
            ),
        ),
        (VERIFY_TOKEN, "new-verify"),
        (&format!("[\"{API_KEY}\"]"), &format!("[\"{API_KEY}\", \"new-api-key-of-the-node\"]")),
    ]);
    assert_eq!(world.reload().await.status, 200);
    assert_eq!(
        [
            world.status_signed_by(APP_SECRET).await,
            world.status_signed_by("new-app-secret-of-node").await
        ],
        [200, 200]
    );
    assert_eq!([basic(AUTH_TOKEN).await, basic("new-auth-token-of-node").await], [200, 200]);
    assert_eq!([verify(VERIFY_TOKEN).await, verify("new-verify").await], [403, 200]);
    assert_eq!([key(API_KEY).await, key("new-api-key-of-the-node").await], [200, 200]);

    // A call that starts during the overlap signs with both until its end.
    let wacid = world.live_call().await;
    world.edit(&[
        (&format!("app_secret_previous = \"{APP_SECRET}\""), ""),
        (&format!("auth_token_previous = \"{AUTH_TOKEN}\""), ""),
        (&format!("[\"{API_KEY}\", \"new-api-key-of-the-node\"]"), "[\"new-api-key-of-the-node\"]"),
    ]);
    assert_eq!(world.reload().await.status, 200);
    assert_eq!(
        [
            world.status_signed_by(APP_SECRET).await,
            world.status_signed_by("new-app-secret-of-node").await
        ],
        [401, 200]
    );
    assert_eq!([basic(AUTH_TOKEN).await, basic("new-auth-token-of-node").await], [401, 200]);
    assert_eq!([key(API_KEY).await, key("new-api-key-of-the-node").await], [401, 200]);
    let body = crate::support::meta::terminate_body(&wacid).to_string();
    let signature = crate::support::sign("new-app-secret-of-node", body.as_bytes());
    let url = format!("{}/webhooks/meta", node.public);
    assert_eq!(
        http::send("POST", &url, &[("x-hub-signature-256", &signature)], body).await.status,
        200
    );
    let hangup = world.app.wait_where("/hangup", |s| s.param("WhatsAppCallID") == wacid).await;
    let signatures = hangup.headers["x-plivo-signature-v3"].to_str().expect("text");
    assert_eq!(signatures.split(',').count(), 2, "the call began while both tokens stood");
}
