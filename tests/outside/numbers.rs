//! Business numbers over the number API, against the real binary and a simulated Meta: list,
//! configure, connect, register, disconnect, and changes by Meta.

use std::time::Duration;

use serde_json::{Value, json};
use sim::log::LogEvent;
use sim::{CallEventKind, CallScript, Sim};

use crate::support::app::App;
use crate::support::database;
use crate::support::http;
use crate::support::node::{
    ACCESS_TOKEN, API_KEY, AUTH_ID, NUMBER, Node, NodeConfig, PHONE_NUMBER_ID, sim_options,
};

pub const WABA: &str = "1029384756";
/// A subaccount of the node's account.
pub const SUB: &str = "SATESTOFFHOOK0000001";
const SUB_KEY: &str = "test-key-of-subaccount";
const AGENT_KEY: &str = "test-key-of-an-agent";
/// The API key of another main account.
pub const OTHER_KEY: &str = "test-key-of-the-other-account";

pub struct World {
    pub sim: Sim,
    pub node: Node,
    pub app: App,
}

impl World {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub async fn start_with(want: impl FnOnce(&mut NodeConfig)) -> Self {
        let app = App::start().await;
        app.xml("/answer", "<Response><Speak>Hello.</Speak></Response>");
        let sim = Sim::start(sim_options()).await.expect("sim");
        let mut node_config = NodeConfig::new(&sim.graph_url(), &app.url("/answer"));
        node_config.meta = format!("app_id = \"{}\"", sim::world::APP_ID);
        node_config.extra = format!(
            "[[account]]\nauth_id = \"{SUB}\"\nauth_token = \"test-token-of-subaccount\"\nparent = \"{AUTH_ID}\"\n\
             api_keys = [\"{SUB_KEY}\"]\n[[account]]\nauth_id = \"MAOTHEROFFHOOK000001\"\nauth_token = \"test-token-of-other-account\"\n\
             api_keys = [\"{OTHER_KEY}\", {{ key = \"{AGENT_KEY}\", role = \"agent\" }}]\n"
        );
        want(&mut node_config);
        let node = Node::start(&node_config).await;
        sim.set_node_url(&node.public);
        Self { sim, node, app }
    }

    pub async fn ask(&self, key: &str, method: &str, path: &str, body: Value) -> http::Answer {
        let url = format!("{}/api/v1/{path}", self.node.public);
        let body = if body.is_null() { String::new() } else { body.to_string() };
        http::send(method, &url, &[("x-api-key", key)], body).await
    }

    /// Sends a request as the account's owner and checks the status.
    pub async fn does(&self, method: &str, path: &str, body: Value, status: u16) -> Value {
        let answer = self.ask(API_KEY, method, path, body).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
        if answer.body.is_empty() { Value::Null } else { answer.json() }
    }

    /// Whether a list of numbers has the number.
    async fn lists(&self, list: &str) -> bool {
        let list = self.does("GET", list, Value::Null, 200).await;
        list["items"].as_array().unwrap().iter().any(|number| number["number"] == NUMBER)
    }

    pub async fn number(&self) -> Value {
        self.does("GET", &format!("phone-numbers/{NUMBER}/"), Value::Null, 200).await
    }

    pub async fn patch(&self, body: Value, status: u16) -> Value {
        self.does("PATCH", &format!("phone-numbers/{NUMBER}/"), body, status).await
    }

    /// Waits until the number satisfies `test`.
    pub async fn until(&self, number: &str, test: impl Fn(&Value) -> bool) -> Value {
        let mut every = tokio::time::interval(Duration::from_millis(20));
        let mut last = Value::Null;
        for _ in 0..1_000 {
            every.tick().await;
            last = self.does("GET", &format!("phone-numbers/{number}/"), Value::Null, 200).await;
            if test(&last) {
                return last;
            }
        }
        panic!("not so after 20 s: {last}");
    }

    pub async fn synced(&self) -> Value {
        self.until(NUMBER, |number| number["platformType"] == "CLOUD_API").await
    }

    pub async fn orders(&self, door: &str, order: Value) {
        let answer =
            http::send("POST", &format!("{}/_sim/{door}", self.sim.url()), &[], order.to_string())
                .await;
        assert_eq!(answer.status, 204, "{}", answer.text());
    }

    pub async fn graph(&self, method: &str, path: &str, body: Value) -> Value {
        let bearer = format!("Bearer {ACCESS_TOKEN}");
        let url = format!("{}/{path}", self.sim.graph_url());
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = http::send(method, &url, &[("authorization", &bearer)], body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// Returns how often Graph received such a request.
    pub fn asked(&self, method: &str, end: &str) -> usize {
        let is = |what: &LogEvent| matches!(what, LogEvent::Graph { method: m, path, .. } if m == method && path.ends_with(end));
        self.sim.log().iter().filter(|line| is(&line.event)).count()
    }

    /// A user calls. Returns true if the call was answered.
    async fn call(&self) -> bool {
        let mut events = self.sim.place_call(CallScript::default());
        while let Some(event) = events.next().await {
            if let CallEventKind::Ended(ended) = event.kind {
                return ended.ok;
            }
        }
        false
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s0_02_s0_03_s2_01_s2_03_numbers_are_listed_with_their_state_at_meta() {
    let world = World::start().await;
    world
        .orders(
            "numbers",
            json!({"number": NUMBER, "phone_number_id": PHONE_NUMBER_ID, "waba": WABA, "name": "Shop & Co"}),
        )
        .await;
    let number = world.synced().await;
    for (field, value) in [
        ("number", json!(NUMBER)),
        ("country", json!("IN")),
        ("countryName", json!("India")),
        ("capabilities", json!(["whatsapp"])),
        ("whatsappPhoneNumberId", json!(PHONE_NUMBER_ID)),
        ("whatsappBusinessAccount", json!(WABA)),
        ("account", json!(AUTH_ID)),
        ("isSandbox", json!(false)),
        ("provider", json!("meta")),
        ("platformType", json!("CLOUD_API")),
        ("qualityRating", json!("GREEN")),
        ("status", json!("CONNECTED")),
        ("hasToken", json!(true)),
        ("configurationType", json!("webhook")),
        ("callingEnabled", json!(true)),
        ("callingDrift", json!(null)),
        ("answerUrl", json!(world.app.url("/answer"))),
        ("answerMethod", json!("POST")),
        ("callsPerNumber", json!(1000)),
        ("activeAgent", json!(null)),
        ("defaultRouting", json!("none")),
        ("defaultWebhook", json!(null)),
        ("connected", json!(true)),
        ("liveCalls", json!(0)),
        ("openConversations", json!(0)),
    ] {
        assert_eq!(number[field], value, "{field}");
    }
    assert!(
        uuid::Uuid::parse_str(number["id"].as_str().unwrap()).is_ok()
            && number["syncedAt"].is_string(),
        "{number}"
    );
    assert_eq!(
        number["registration"],
        json!({"state": "registered", "reason": null, "retryAfter": null})
    );
    assert!(!number.to_string().contains(ACCESS_TOKEN), "s3.11");
    // A sync fetches a change from Meta.
    let fields = json!({"quality_rating": "YELLOW"});
    world.orders("numbers", json!({"number": NUMBER, "phone_number_id": PHONE_NUMBER_ID, "waba": WABA, "name": "New name", "facts": fields})).await;
    let synced =
        world.does("POST", &format!("phone-numbers/{NUMBER}/sync/"), Value::Null, 200).await;
    assert_eq!(
        synced["changed"],
        json!([{"number": NUMBER, "fields": ["verifiedName", "qualityRating"]}]),
        "{synced}"
    );
    // It also adds numbers that were added to the WABA at Meta.
    world.orders("numbers", json!({"number": NEW, "phone_number_id": NEW_ID, "waba": WABA})).await;
    let synced =
        world.does("POST", &format!("phone-numbers/{NUMBER}/sync/"), Value::Null, 200).await;
    assert_eq!(synced["added"], json!([NEW]), "s2.15: {synced}");
    let list = world.does("GET", "phone-numbers/?q=new%20NA", Value::Null, 200).await;
    assert_eq!(
        (&list["items"][0]["verifiedName"], &list["next"]),
        (&json!("New name"), &json!(null)),
        "{list}"
    );
    for (wrong, field) in [
        ("?waba=shop", "waba"),
        ("?platformType=CLOUD", "platformType"),
        ("?hidden=yes", "hidden"),
        ("918035737458/templates/?name=Order", "name"),
        ("918035737458/templates/?language=en-US", "language"),
    ] {
        let path = format!("phone-numbers/{wrong}").replace("918035737458", NUMBER);
        let answer = world.does("GET", &path, Value::Null, 400).await;
        assert_eq!(answer["error"]["field"], field, "{path}: {answer}");
    }
    // The length of the text is limited only by that of the request target.
    let long = format!("?q={}", "x".repeat(2_049));
    for none in ["?q=nobody", &long, "?waba=7", "?platformType=ON_PREMISE"] {
        assert_eq!(
            world.does("GET", &format!("phone-numbers/{none}"), Value::Null, 200).await["items"],
            json!([]),
            "{none}"
        );
    }
    // Other accounts don't see it.
    for key in [OTHER_KEY, AGENT_KEY, SUB_KEY] {
        let theirs = world.ask(key, "GET", &format!("phone-numbers/{NUMBER}/"), Value::Null).await;
        assert_eq!(theirs.status, 404, "{key}");
        assert_eq!(
            world.ask(key, "GET", "phone-numbers/", Value::Null).await.json()["items"],
            json!([])
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s0_04_s0_05_s0_07_s0_08_s0_09_s0_16_the_settings_are_validated_together_and_persist() {
    let mut world = World::start_with(|node_config| {
        node_config.allow_insecure = false;
        node_config.answer_url = "https://app.example.com/answer".to_owned();
    })
    .await;
    for (body, field) in [
        (json!({"configurationType": "robot"}), "configurationType"),
        (json!({"webhookUrl": "http://a.example.com/"}), "webhookUrl"),
        (json!({"answerUrl": "junk"}), "answerUrl"),
        (json!({"answerUrl": null}), "answerUrl"),
        (json!({"answerMethod": "PUT"}), "answerMethod"),
        (json!({"callsPerNumber": 0}), "callsPerNumber"),
        (json!({"callingEnabled": "yes"}), "callingEnabled"),
        (json!({"active": true}), "active"),
    ] {
        let refused = world.patch(body.clone(), 400).await;
        assert_eq!(
            (&refused["error"]["field"], &refused["error"]["code"]),
            (&json!(field), &json!("bad_value")),
            "{body}: {refused}"
        );
    }
    let alias = "Support — APAC";
    let changed = world.patch(json!({"alias": alias, "configurationType": "webhook", "webhookUrl": "https://a.example.com/hook",
        "hangupUrl": "https://a.example.com/bye", "hangupMethod": "get", "callsPerNumber": 7, "number": "1", "liveCalls": 9}), 200).await;
    for (field, value) in [
        ("alias", json!(alias)),
        ("webhookUrl", json!("https://a.example.com/hook")),
        ("hangupMethod", json!("GET")),
        ("callsPerNumber", json!(7)),
        ("number", json!(NUMBER)),
        ("liveCalls", json!(0)),
    ] {
        assert_eq!(changed[field], value, "{field}");
    }
    world.node.kill();
    world.node.start_again().await;
    let after = world.number().await;
    assert_eq!(
        (&after["alias"], &after["hangupUrl"], &after["callsPerNumber"]),
        (&json!(alias), &json!("https://a.example.com/bye"), &json!(7))
    );
    let cleared =
        world.patch(json!({"alias": "", "callsPerNumber": null, "hangupUrl": null}), 200).await;
    assert_eq!(
        (&cleared["alias"], &cleared["callsPerNumber"], &cleared["hangupUrl"]),
        (&json!(""), &json!(1000), &json!(null))
    );
    let lost = world.patch(json!({"webhookUrl": null}), 400).await;
    assert_eq!(lost["error"]["field"], "webhookUrl", "{lost}");
    // An agent needs no webhook URL.
    assert_eq!(
        world.patch(json!({"configurationType": "agent", "webhookUrl": null}), 200).await["configurationType"],
        "agent"
    );
}

/// A number without a webhook URL, as `offhook init` makes it.
#[tokio::test(flavor = "multi_thread")]
async fn a_number_can_be_sent_back_as_it_was_read_and_keeps_its_calls_without_an_agent() {
    let world = World::start().await;
    let read = world.synced().await;
    assert_eq!(
        (&read["configurationType"], &read["webhookUrl"]),
        (&json!("webhook"), &Value::Null)
    );
    let same = |shown: &Value| {
        // Written at Meta, and read back.
        let mut shown = shown.clone();
        shown["syncedAt"] = read["syncedAt"].clone();
        shown == read
    };
    let sent_back = world.patch(read.clone(), 200).await;
    assert!(same(&sent_back), "{sent_back}\n{read}");
    world.patch(json!({"configurationType": "webhook"}), 200).await;
    // Without an agent, the answer URL goes on to answer calls.
    world.patch(json!({"configurationType": "agent"}), 200).await;
    assert!(world.call().await, "log:\n{}", world.node.log());
    let bare = world.patch(json!({"answerUrl": null}), 400).await;
    assert_eq!(bare["error"]["field"], "answerUrl", "{bare}");
    // The agent answers messages alone.
    let agent = json!({"name": "Asha", "kind": "http", "endpoint": "http://127.0.0.1:9009/agent"});
    let agent = world.does("POST", "agents/", agent, 201).await["id"].clone();
    let connect = format!("phone-numbers/{NUMBER}/connect-agent/");
    world.does("POST", &connect, json!({ "agent": agent }), 200).await;
    assert_eq!(world.number().await["configurationType"], "agent");
    assert!(world.call().await, "log:\n{}", world.node.log());
    let back = world.patch(json!({"configurationType": "webhook"}), 200).await;
    assert_eq!(
        (&back["configurationType"], &back["activeAgent"]),
        (&json!("webhook"), &Value::Null)
    );
    assert!(world.call().await, "log:\n{}", world.node.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_imported_again_after_an_agent_was_connected() {
    let world = World::start().await;
    world.synced().await;
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    let run = async |args: &[&str]| {
        tokio::process::Command::new(env!("CARGO_BIN_EXE_offhook"))
            .args(["numbers", args[0], "--node", &world.node.public])
            .args(&args[1..])
            .arg(file.path())
            .env("OFFHOOK_API_KEY", API_KEY)
            .output()
            .await
            .unwrap()
    };
    let numbers = async |args: &[&str]| {
        let out = run(args).await;
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    // The file exists.
    let kept = run(&["export"]).await;
    let why = String::from_utf8_lossy(&kept.stderr);
    assert!(kept.status.code() == Some(1) && why.contains("use --force to replace it"), "{why}");
    assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "");
    numbers(&["export", "--force"]).await;
    let agent = json!({"name": "Asha", "kind": "http", "endpoint": "http://127.0.0.1:9009/agent",
        "channels": ["whatsapp", "voice"]});
    let agent = world.does("POST", "agents/", agent, 201).await["id"].clone();
    let connect = format!("phone-numbers/{NUMBER}/connect-agent/");
    world.does("POST", &connect, json!({ "agent": agent }), 200).await;
    let with_agent = world.number().await;
    assert_eq!(with_agent["configurationType"], "agent", "{with_agent}");
    let output = numbers(&["import"]).await;
    assert!(output.contains("configurationType") && output.contains("changed"), "{output}");
    let after = world.number().await;
    assert_eq!(
        (&after["configurationType"], &after["activeAgent"]),
        (&json!("webhook"), &Value::Null)
    );
    assert!(numbers(&["import"]).await.contains("unchanged"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_misspelled_query_parameter_is_refused_with_a_suggestion() {
    let world = World::start().await;
    let refused = world.does("GET", "phone-numbers/?lmit=1", Value::Null, 400).await;
    let message = refused["error"]["message"].as_str().unwrap();
    assert_eq!(refused["error"]["field"], "lmit");
    assert!(message.contains("unknown query parameter lmit: did you mean `limit`"), "{message}");
    world.does("GET", "phone-numbers/?limit=1", Value::Null, 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_edits_of_a_number_are_detected_by_etag() {
    let world = World::start().await;
    world.synced().await;
    let url = format!("{}/api/v1/phone-numbers/{NUMBER}/", world.node.public);
    let seen = http::send("GET", &url, &[("x-api-key", API_KEY)], "").await;
    let tag = seen.headers["etag"].to_str().unwrap().to_owned();
    let edit = async |tag: &str, alias: &str| {
        let headers = [("x-api-key", API_KEY), ("if-match", tag)];
        http::send("PATCH", &url, &headers, json!({ "alias": alias }).to_string()).await
    };
    let first = edit(&tag, "mine").await;
    assert_eq!(first.status, 200, "{}", first.text());
    assert_eq!(edit(&tag, "theirs").await.status, 412);
    // Automatic changes don't affect the entity tag.
    world
        .orders("numbers", json!({"number": NUMBER, "phone_number_id": PHONE_NUMBER_ID, "waba": WABA, "name": "Other"}))
        .await;
    world.does("POST", &format!("phone-numbers/{NUMBER}/sync/"), Value::Null, 200).await;
    assert_eq!(edit(first.headers["etag"].to_str().unwrap(), "again").await.status, 200);
    // A request with an outdated tag changes nothing at Meta either.
    let written = world.asked("POST", "settings");
    let headers = [("x-api-key", API_KEY), ("if-match", tag.as_str())];
    let late =
        http::send("PATCH", &url, &headers, json!({"callingEnabled": false}).to_string()).await;
    assert_eq!((late.status, world.asked("POST", "settings")), (412, written));
}

#[tokio::test(flavor = "multi_thread")]
async fn s0_12_s0_13_s0_15_calling_is_switched_at_meta_first_and_applies_to_the_next_call() {
    let world = World::start().await;
    world.synced().await;
    let off = world.patch(json!({"callingEnabled": false}), 200).await;
    assert_eq!((&off["callingEnabled"], &off["callingDrift"]), (&json!(false), &json!(null)));
    let settings = world.graph("GET", &format!("{PHONE_NUMBER_ID}/settings"), Value::Null).await;
    assert_eq!(settings["calling"]["status"], "DISABLED");
    // Calling is enabled at Meta only: calls are rejected here, and the difference is shown.
    world
        .graph(
            "POST",
            &format!("{PHONE_NUMBER_ID}/settings"),
            json!({"calling": {"status": "ENABLED"}}),
        )
        .await;
    let drifted = world.until(NUMBER, |number| !number["callingDrift"].is_null()).await;
    assert_eq!(drifted["callingDrift"], json!({"callingEnabled": true}));
    assert!(!world.call().await, "nobody answers");
    world
        .node
        .until_metric("offhook_admission_total", &[("result", "calling_disabled")], 1.0)
        .await;
    assert_eq!(world.app.count("/answer"), 0, "its answer URL is not fetched");
    // If Meta refuses, the error is reported and nothing changes here.
    world.patch(json!({"callingEnabled": false}), 200).await;
    world
        .orders(
            "failures",
            json!([{"what": "change_settings", "status": 400, "code": 138018, "details": "Messaging limit too low"}]),
        )
        .await;
    let refused = world.patch(json!({"callingEnabled": true}), 502).await;
    assert_eq!(
        (&refused["error"]["code"], &refused["error"]["meta"]["code"]),
        (&json!("meta_refused"), &json!(138_018)),
        "{refused}"
    );
    assert_eq!(world.number().await["callingEnabled"], false);
    let on = world.patch(json!({"callingEnabled": true, "callbackPermission": true}), 200).await;
    assert_eq!(
        (&on["callingEnabled"], &on["callbackPermission"], &on["callingDrift"]),
        (&json!(true), &json!(true), &json!(null))
    );
    let settings = world.graph("GET", &format!("{PHONE_NUMBER_ID}/settings"), Value::Null).await;
    assert_eq!(settings["calling"]["callback_permission_status"], "ENABLED");
    assert!(world.call().await, "the very next call is taken");
    // Meta's last known setting may be outdated, so the request is sent anyway.
    let written = world.asked("POST", "settings");
    world.patch(json!({"callingEnabled": true}), 200).await;
    assert_eq!(world.asked("POST", "settings"), written + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn s0_24_a_new_answer_url_applies_to_the_next_call() {
    let world = World::start().await;
    world.app.xml("/other", "<Response><Speak>Good day.</Speak></Response>");
    assert!(world.call().await);
    world.patch(json!({"answerUrl": world.app.url("/other"), "answerMethod": "GET"}), 200).await;
    assert!(world.call().await);
    // Hangup callbacks use the new URL too.
    let seen = world.app.requests();
    let begun: Vec<_> = seen.iter().filter(|seen| seen.param("Event") == "StartApp").collect();
    let asked: Vec<_> =
        begun.iter().map(|seen| (seen.path.as_str(), seen.method.as_str())).collect();
    assert_eq!(asked, [("/answer", "POST"), ("/other", "GET")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn s0_20_s0_21_s0_22_s0_23_a_mapping_applies_to_all_numbers_of_the_waba() {
    let world = World::start().await;
    world
        .orders(
            "numbers",
            json!({"number": "918035737459", "phone_number_id": "106540352242999", "waba": WABA}),
        )
        .await;
    let synced = world.does("POST", &format!("wabas/{WABA}/sync/"), Value::Null, 200).await;
    assert_eq!(synced["added"], json!(["918035737459"]), "s2.14: {synced}");
    assert!(world.call().await);
    let before = world.does("GET", &format!("wabas/{WABA}/"), Value::Null, 200).await;
    assert_eq!(before["affectedNumbers"], json!([NUMBER, "918035737459"]));
    let unknown = world
        .does("PATCH", &format!("wabas/{WABA}/"), json!({"account": "SANOBODY000000000000"}), 400)
        .await;
    assert_eq!(unknown["error"]["field"], "account");
    let given = world.does("PATCH", &format!("wabas/{WABA}/"), json!({"account": SUB}), 200).await;
    assert_eq!(
        (&given["account"], &given["affectedNumbers"]),
        (&json!(SUB), &before["affectedNumbers"])
    );
    for number in [NUMBER, "918035737459"] {
        let shown = world.does("GET", &format!("phone-numbers/{number}/"), Value::Null, 200).await;
        assert_eq!(shown["account"], SUB);
        assert_eq!(
            world
                .ask(SUB_KEY, "GET", &format!("phone-numbers/{number}/"), Value::Null)
                .await
                .status,
            200
        );
    }
    assert!(world.call().await);
    let calls = async |key: &str| {
        world.ask(key, "GET", "calls/", Value::Null).await.json()["items"].as_array().unwrap().len()
    };
    let mut every = tokio::time::interval(Duration::from_millis(20));
    while calls(SUB_KEY).await == 0 {
        every.tick().await;
    }
    assert_eq!(
        (calls(SUB_KEY).await, calls(API_KEY).await),
        (1, 2),
        "old calls stay where they were"
    );
    let refused =
        world.ask(SUB_KEY, "PATCH", &format!("wabas/{WABA}/"), json!({"account": AUTH_ID})).await;
    assert_eq!(refused.status, 400, "{}", refused.text());
    assert_eq!(
        world.ask(OTHER_KEY, "GET", &format!("wabas/{WABA}/"), Value::Null).await.status,
        404
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn s0_26_s0_27_s0_28_s0_29_s2_22_a_reconnected_number_has_no_settings() {
    let mut world = World::start().await;
    world.synced().await;
    world.does("PATCH", &format!("wabas/{WABA}/"), json!({"account": SUB}), 200).await;
    world.patch(json!({"webhookUrl": world.app.url("/hook")}), 200).await;
    let path = format!("phone-numbers/{NUMBER}/disconnect/");
    let breaks = world.does("GET", &path, Value::Null, 200).await;
    assert_eq!(
        (&breaks["liveCalls"], &breaks["openConversations"]),
        (&json!(0), &json!(0)),
        "{breaks}"
    );
    let asked = (world.asked("POST", "settings"), world.asked("POST", "deregister"));
    let gone = world.does("POST", &path, Value::Null, 200).await;
    assert_eq!(
        (&gone["connected"], &gone["webhookUrl"], &gone["answerUrl"], &gone["account"]),
        (&json!(false), &json!(null), &json!(null), &json!(AUTH_ID))
    );
    assert_eq!(
        (world.asked("POST", "settings"), world.asked("POST", "deregister")),
        asked,
        "Meta is not touched"
    );
    assert_eq!(world.does("POST", &path, Value::Null, 409).await["error"]["code"], "disconnected");
    let permission = world
        .ask(API_KEY, "GET", &format!("permissions/{NUMBER}/919412341234/"), Value::Null)
        .await;
    assert_eq!(permission.status, 409, "nothing goes out from it");
    // It persists across a restart, regardless of the file.
    world.node.kill();
    world.node.start_again().await;
    assert_eq!(world.number().await["connected"], false);
    let ringing = world.sim.place_call(CallScript::default());
    world.node.until_metric("offhook_admission_total", &[("result", "unknown_number")], 1.0).await;
    world.node.until_log("call ignored: its number is not connected here").await;
    assert_eq!(world.app.count("/answer"), 0);
    drop(ringing);
    let deleted =
        world.ask(API_KEY, "DELETE", &format!("phone-numbers/{NUMBER}/"), Value::Null).await;
    assert_eq!(deleted.status, 405);
    assert!(deleted.text().contains("disconnect"), "s2.22: {}", deleted.text());
    let back =
        world.does("POST", &format!("phone-numbers/{NUMBER}/reconnect/"), Value::Null, 200).await;
    assert_eq!(back["connected"], true);
    assert_eq!(
        world.does("POST", &format!("phone-numbers/{NUMBER}/reconnect/"), Value::Null, 409).await["error"]
            ["code"],
        "connected"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_15_a_hidden_number_is_disconnected_and_left_out_of_lists_until_it_is_connected() {
    let world = World::start().await;
    world.synced().await;
    let disconnect = format!("phone-numbers/{NUMBER}/disconnect/");
    let unknown = world.does("POST", &disconnect, json!({"hid": true}), 400).await;
    assert!(unknown.to_string().contains("hide"), "{unknown}");
    assert!(
        world.lists("phone-numbers/").await && !world.lists("phone-numbers/?hidden=true").await
    );
    let hidden = world.does("POST", &disconnect, json!({"hide": true}), 200).await;
    assert_eq!((&hidden["connected"], &hidden["hidden"]), (&json!(false), &json!(true)));
    assert!(
        !world.lists("phone-numbers/").await && world.lists("phone-numbers/?hidden=true").await
    );
    world.does("POST", &disconnect, json!({"hide": true}), 200).await;
    // A sync with Meta, which still lists the number, does not bring it back.
    world.does("POST", &format!("wabas/{WABA}/sync/"), Value::Null, 200).await;
    assert!(!world.lists("phone-numbers/").await);
    let back =
        world.does("POST", &format!("phone-numbers/{NUMBER}/reconnect/"), Value::Null, 200).await;
    assert_eq!((&back["connected"], &back["hidden"]), (&json!(true), &json!(false)));
    assert!(world.lists("phone-numbers/").await);
}

/// A call that is up when its number is disconnected goes on, and is still counted.
#[tokio::test(flavor = "multi_thread")]
async fn a_live_call_outlasts_the_disconnection_of_its_number() {
    let world = World::start().await;
    world.app.xml("/answer", "<Response><Wait length=\"60\"/></Response>");
    let mut events = world
        .sim
        .place_call(CallScript { hangup: sim::HangupRule::Never, ..CallScript::default() });
    while events.next().await.expect("the call").kind != CallEventKind::Answered {}
    world.until(NUMBER, |number| number["liveCalls"] == 1).await;
    let path = format!("phone-numbers/{NUMBER}/disconnect/");
    let gone = world.does("POST", &path, Value::Null, 200).await;
    assert_eq!((&gone["connected"], &gone["liveCalls"]), (&json!(false), &json!(1)), "{gone}");
    let live = world.does("GET", "calls/?status=live", Value::Null, 200).await;
    let call = live["items"][0]["callUuid"].as_str().unwrap_or_else(|| panic!("{live}")).to_owned();
    let url = format!("{}/v1/Account/{AUTH_ID}/Call/{call}/", world.node.public);
    let basic = crate::number_events::basic();
    let ended = http::send("DELETE", &url, &[("authorization", &basic)], "").await;
    assert_eq!(ended.status, 204, "{}", ended.text());
    world.until(NUMBER, |number| number["liveCalls"] == 0).await;
}

pub const NEW: &str = "5511951230001";
pub const NEW_ID: &str = "106540352242923";

pub fn credentials(token: &str) -> Value {
    json!({"displayName": "Brasil", "number": format!("whatsapp:+{NEW}"), "whatsappPhoneNumberId": NEW_ID,
        "whatsappBusinessAccount": "2029384756", "accessToken": token})
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_06_s3_10_s3_11_s3_12_a_number_is_connected_with_verified_credentials() {
    let mut world = World::start().await;
    let fields = json!({"platform_type": "ON_PREMISE"});
    world
        .orders(
            "numbers",
            json!({"number": NEW, "phone_number_id": NEW_ID, "waba": "2029384756", "name": "Loja", "facts": fields}),
        )
        .await;
    let wrong = world.does("POST", "phone-numbers/", credentials("not-the-token"), 422).await;
    let error = &wrong["error"];
    assert_eq!(
        (&error["code"], &error["field"], &error["meta"]["code"]),
        (&json!("token_refused"), &json!("accessToken"), &json!(190)),
        "{wrong}"
    );
    for (field, value) in [
        ("displayName", json!(" ")),
        ("whatsappPhoneNumberId", json!("x")),
        ("number", json!("918035737458")),
        ("accessToken", json!("")),
        ("whatsappBusinessAccount", json!("w")),
        ("provider", json!("twilio")),
    ] {
        let mut bad = credentials(ACCESS_TOKEN);
        bad[field] = value;
        assert_eq!(world.does("POST", "phone-numbers/", bad, 400).await["error"]["field"], field);
    }
    let mut active = credentials(ACCESS_TOKEN);
    active["active"] = json!(true);
    assert_eq!(
        world.does("POST", "phone-numbers/", active, 400).await["error"]["field"],
        "assignedAgent",
        "s3.07"
    );
    let mut elsewhere = credentials(ACCESS_TOKEN);
    elsewhere["whatsappBusinessAccount"] = json!(WABA);
    assert_eq!(
        world.does("POST", "phone-numbers/", elsewhere, 422).await["error"]["code"],
        "not_in_waba"
    );
    assert_eq!(
        world.ask(API_KEY, "GET", &format!("phone-numbers/{NEW}/"), Value::Null).await.status,
        404,
        "nothing was kept"
    );

    let made = world.does("POST", "phone-numbers/", credentials(ACCESS_TOKEN), 201).await;
    for (field, value) in [
        ("alias", json!("Brasil")),
        ("verifiedName", json!("Loja")),
        ("platformType", json!("ON_PREMISE")),
        ("hasToken", json!(true)),
        ("whatsappBusinessAccount", json!("2029384756")),
        ("country", json!("BR")),
        ("callingEnabled", json!(false)),
        ("active", json!(false)),
    ] {
        assert_eq!(made[field], value, "{field}: {made}");
    }
    assert!(!made.to_string().contains(ACCESS_TOKEN));
    assert_eq!(world.asked("POST", "2029384756/subscribed_apps"), 1, "its webhooks come here");
    let theirs = world.ask(OTHER_KEY, "POST", "phone-numbers/", credentials(ACCESS_TOKEN)).await;
    assert_eq!(
        (theirs.status, &theirs.json()["error"]["code"]),
        (409, &json!("taken")),
        "{}",
        theirs.text()
    );
    assert_eq!(
        world.ask(AGENT_KEY, "POST", "phone-numbers/", credentials(ACCESS_TOKEN)).await.status,
        403
    );
    let mut bare = credentials(ACCESS_TOKEN);
    bare["whatsappBusinessAccount"] = Value::Null;
    for body in [credentials(ACCESS_TOKEN), bare] {
        let below = world.ask(SUB_KEY, "POST", "phone-numbers/", body).await;
        assert_eq!(
            (below.status, &below.json()["error"]["code"]),
            (409, &json!("taken")),
            "its parent's: {}",
            below.text()
        );
    }
    // It accepts calls after its set-up, also after a restart.
    let url = format!("phone-numbers/{NEW}/");
    world
        .does(
            "PATCH",
            &url,
            json!({"callingEnabled": true, "answerUrl": world.app.url("/answer")}),
            200,
        )
        .await;
    world.node.kill();
    world.node.start_again().await;
    let shown = world.does("GET", &url, Value::Null, 200).await;
    assert_eq!((&shown["callingEnabled"], &shown["alias"]), (&json!(true), &json!("Brasil")));
    let to = sim::SimNumber {
        number: NEW.into(),
        phone_number_id: NEW_ID.into(),
        waba: "2029384756".into(),
        name: String::new(),
    };
    let mut events = world.sim.place_call(CallScript { to, ..CallScript::default() });
    while let Some(event) = events.next().await {
        if let CallEventKind::Ended(ended) = event.kind {
            assert!(ended.ok, "{ended:?}");
        }
    }
    let log = world.node.log();
    let store = std::fs::read(world.node.dir.path().join("offhook.db")).unwrap_or_default();
    assert!(database::skipped_on_postgres() || !store.is_empty(), "the store");
    assert!(
        !log.contains(ACCESS_TOKEN)
            && !store.windows(ACCESS_TOKEN.len()).any(|w| w == ACCESS_TOKEN.as_bytes()),
        "r22"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn s2_09_s2_10_s2_11_s2_25_a_failed_registration_is_repeated_after_a_delay() {
    let world = World::start().await;
    let fields = json!({"platform_type": "NOT_APPLICABLE", "pin": "271828"});
    world
        .orders(
            "numbers",
            json!({"number": NEW, "phone_number_id": NEW_ID, "waba": WABA, "name": "Loja", "facts": fields}),
        )
        .await;
    world.does("POST", &format!("wabas/{WABA}/sync/"), Value::Null, 200).await;
    let url = format!("phone-numbers/{NEW}/register/");
    assert_eq!(world.does("POST", &url, json!({"pin": "12"}), 400).await["error"]["field"], "pin");
    assert_eq!(world.does("POST", &url, json!({}), 400).await["error"]["field"], "pin");
    let running = world.does("POST", &url, json!({"pin": "000000"}), 202).await;
    assert_eq!(running["registration"]["state"], "running", "{running}");
    let failed = world.until(NEW, |number| number["registration"]["state"] == "failed").await;
    assert!(failed["registration"]["reason"].as_str().unwrap().contains("133005"), "{failed}");
    assert_eq!(failed["platformType"], "NOT_APPLICABLE");
    let again = world.ask(API_KEY, "POST", &url, json!({"pin": "271828"})).await;
    assert_eq!(again.status, 429, "{}", again.text());
    let seconds: u64 = again.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds) && failed["registration"]["retryAfter"].is_string());
    // The configured number is already on the Cloud API. Registering it again is harmless.
    let url = format!("phone-numbers/{NUMBER}/register/");
    world.does("POST", &url, json!({"pin": "123456"}), 202).await;
    let done = world.until(NUMBER, |number| number["registration"]["state"] == "registered").await;
    assert_eq!(done["platformType"], "CLOUD_API");
}

#[tokio::test(flavor = "multi_thread")]
async fn s2_13_numbers_are_added_by_embedded_sign_up() {
    let world = World::start().await;
    world
        .orders(
            "numbers",
            json!({"number": NEW, "phone_number_id": NEW_ID, "waba": "3029384756", "name": "Loja"}),
        )
        .await;
    let refused = world
        .does(
            "POST",
            "phone-numbers/signup/",
            json!({"code": "wrong", "whatsappBusinessAccount": "3029384756"}),
            422,
        )
        .await;
    assert_eq!(
        (&refused["error"]["code"], &refused["error"]["field"]),
        (&json!("code_refused"), &json!("code")),
        "{refused}"
    );
    let made = world
        .does(
            "POST",
            "phone-numbers/signup/",
            json!({"code": "code-7", "whatsappBusinessAccount": "3029384756"}),
            201,
        )
        .await;
    assert_eq!(
        (&made["items"][0]["number"], &made["items"][0]["verifiedName"]),
        (&json!(NEW), &json!("Loja")),
        "{made}"
    );
    assert_eq!(made["items"].as_array().unwrap().len(), 1);
    // Without a WABA id in the request, the token lists the available ones.
    let all = world
        .does(
            "POST",
            "phone-numbers/signup/",
            json!({"code": "code-8", "whatsappPhoneNumberId": NEW_ID}),
            201,
        )
        .await;
    assert_eq!(
        (all["items"].as_array().unwrap().len(), &all["items"][0]["number"]),
        (1, &json!(NEW)),
        "{all}"
    );
    assert!(!world.node.log().contains("token-for-code"), "r22");
    // A WABA that the code does not cover is refused.
    let named = json!({"code": "code-9", "whatsappBusinessAccount": "4029384756"});
    let refused = world.does("POST", "phone-numbers/signup/", named, 422).await;
    assert_eq!(refused["error"]["code"], "waba_not_granted", "{refused}");
    assert_eq!(world.ask(API_KEY, "GET", "wabas/4029384756/", Value::Null).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn urls_are_checked_like_those_of_a_call() {
    let world = World::start().await;
    world
        .app
        .xml("/answer", "<Response><Speek>Hello</Speek></Response>")
        .route("/bye", |_| (500, String::new()));
    world
        .patch(
            json!({"hangupUrl": world.app.url("/bye"), "webhookUrl": world.app.url("/hook")}),
            200,
        )
        .await;
    world.app.route("/hook", |_| (200, String::new()));
    let checks =
        world.does("POST", &format!("phone-numbers/{NUMBER}/check-urls/"), Value::Null, 200).await;
    let of = |field: &str| {
        checks["items"].as_array().unwrap().iter().find(|c| c["field"] == field).unwrap().clone()
    };
    let answer = of("answerUrl");
    assert_eq!((&answer["status"], &answer["ok"]), (&json!(200), &json!(false)), "{answer}");
    assert!(
        !answer["findings"].as_array().unwrap().is_empty() && answer["latencyMs"].is_u64(),
        "{answer}"
    );
    let bye = of("hangupUrl");
    assert_eq!((&bye["status"], &bye["ok"]), (&json!(500), &json!(false)), "{bye}");
    assert_eq!(of("webhookUrl")["ok"], true);
    let asked = world.app.wait("/answer").await;
    assert_eq!((asked.param("OffhookCheck"), asked.param("To")), ("true", NUMBER));
    assert!(asked.headers.contains_key("x-plivo-signature-v3"), "{:?}", asked.headers);
}
