//! Requesting a user's permission to call: over the API, through the simulated Meta to the user's
//! phone and back, and across a crash.

use std::time::Duration;

use serde_json::{Value, json};
use sim::log::{LogEvent, LogLine};
use sim::{CallEventKind, CallScript, PermissionPolicy, Sim, SimOptions};

use model::Clock;
use offhook::node::dev::{Dev, DevOptions};

use crate::support::app::App;
use crate::support::http;
use crate::support::node::{
    ACCESS_TOKEN, API_KEY, NUMBER, Node, NodeConfig, PHONE_NUMBER_ID, sim_options,
};

const USER: &str = "919412341234";

struct World {
    sim: Sim,
    node: Node,
    _app: App,
}

impl World {
    async fn start(number_extra: &str) -> Self {
        let app = App::start().await;
        app.xml("/answer", "<Response><Speak>We will call you back.</Speak></Response>");
        let options = SimOptions { permission_policy: PermissionPolicy::AskFirst, ..sim_options() };
        let sim = Sim::start(options).await.expect("sim");
        let mut node_config = NodeConfig::new(&sim.graph_url(), &app.url("/answer"));
        node_config.number_extra = number_extra.to_owned();
        let node = Node::start(&node_config).await;
        sim.set_node_url(&node.public);
        Self { sim, node, _app: app }
    }

    async fn permission(&self, query: &str) -> Value {
        let url = format!("{}/api/v1/permissions/{NUMBER}/{USER}/{query}", self.node.public);
        let answer = http::send("GET", &url, &[("x-api-key", API_KEY)], "").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    async fn request(&self) -> http::Answer {
        let url = format!("{}/api/v1/permissions/{NUMBER}/{USER}/request/", self.node.public);
        http::send("POST", &url, &[("x-api-key", API_KEY)], r#"{"text":"May we call you back?"}"#)
            .await
    }

    async fn until(&self, status: &str) -> Value {
        let mut every = tokio::time::interval(Duration::from_millis(20));
        for _ in 0..500 {
            every.tick().await;
            let shown = self.permission("").await;
            if shown["status"] == status {
                return shown;
            }
        }
        panic!("not {status} after 10 s; log:\n{}", self.node.log());
    }

    /// Returns the request on the user's phone.
    async fn phone_request(&self) -> Value {
        http::get(&format!("{}/_sim/permissions", self.sim.url())).await.json()["pairs"][0].clone()
    }

    async fn answers(&self, answer: &str) -> u16 {
        let url = format!("{}/_sim/permissions/answer", self.sim.url());
        http::send("POST", &url, &[], json!({ "answer": answer }).to_string()).await.status
    }

    /// Waits until the webhook with the user's answer got its 200.
    async fn until_answered(&self) {
        let taken = |line: &LogLine| matches!(&line.event, LogEvent::Webhook { event, status: 200, .. } if event == "call_permission_reply");
        let mut every = tokio::time::interval(Duration::from_millis(20));
        for _ in 0..500 {
            every.tick().await;
            if self.sim.log().iter().any(taken) {
                return;
            }
        }
        panic!("no 200 after 10 s; log:\n{}", self.node.log());
    }

    async fn calls(&self) {
        let mut events = self.sim.place_call(CallScript::default());
        while let Some(event) = events.next().await {
            if let CallEventKind::Ended(ended) = event.kind {
                assert!(ended.ok, "{ended:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn m18_a_users_answer_to_a_permission_request_survives_a_crash() {
    let mut world = World::start("").await;
    assert_eq!(world.permission("").await["status"], "none");
    let sent = world.request().await;
    assert_eq!(
        (sent.status, &sent.json()["status"]),
        (202, &json!("requested")),
        "{}",
        sent.text()
    );
    let shown = world.phone_request().await;
    assert_eq!(
        (&shown["user"], &shown["requests"][0]["text"]),
        (&json!(USER), &json!("May we call you back?"))
    );
    assert_eq!(shown["requests"][0]["id"], sent.json()["messageId"]);
    // A second request within 24 hours is refused without asking Meta, with the time at which it is
    // allowed.
    let again = world.request().await;
    let error = again.json()["error"].clone();
    assert_eq!(
        (again.status, &error["code"]),
        (422, &json!("permission_request_too_soon")),
        "{}",
        again.text()
    );
    assert_eq!(error["nextRequestAt"], world.permission("").await["nextRequestAt"]);

    assert_eq!(world.answers("accept").await, 204);
    let granted = world.until("temporary").await;
    assert_eq!(
        (&granted["callsLeft"], &granted["source"], &granted["missed"]),
        (&json!(5), &json!("meta"), &json!(0))
    );
    assert_eq!(world.answers("accept").await, 409, "nothing is open any more");
    world.until_answered().await;
    // An answer acknowledged with 200 survives a crash.
    world.node.kill();
    world.node.start_again().await;
    assert_eq!(world.permission("").await, granted);
    assert_eq!(world.request().await.status, 422, "what was sent still counts");

    assert_eq!(world.answers("reject").await, 204);
    world.until("none").await;
    // Meta's state wins.
    let permission = world.permission("?refresh=true").await;
    assert_eq!((&permission["status"], &permission["source"]), (&json!("none"), &json!("meta")));
    assert!(permission["checkedAt"].is_string(), "{permission}");
    let metric = [("kind", "messages.call_permission_reply"), ("result", "permission_updated")];
    // The counter is incremented after the write has been stored.
    world.node.until_metric("offhook_webhook_events_total", &metric, 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m17_l20_an_inbound_call_grants_permission_if_enabled_and_resets_the_requests() {
    let world = World::start("").await;
    assert_eq!(world.request().await.status, 202);
    world.calls().await;
    let cleared = world.permission("").await;
    assert_eq!(
        (&cleared["status"], &cleared["requestsLeft"]),
        (&json!("requested"), &json!(1)),
        "a call, and no more"
    );
    let settings = format!("{}/{PHONE_NUMBER_ID}/settings", world.sim.graph_url());
    let on = json!({"calling": {"callback_permission_status": "ENABLED"}}).to_string();
    let bearer = format!("Bearer {ACCESS_TOKEN}");
    assert_eq!(http::send("POST", &settings, &[("authorization", &bearer)], on).await.status, 200);
    world.calls().await;
    let granted = world.until("temporary").await;
    assert!(granted["expiresAt"].is_string());
    // The node and the simulator agree.
    let permission = world.permission("?refresh=true").await;
    assert_eq!(
        (&permission["status"], &permission["expiresAt"]),
        (&granted["status"], &granted["expiresAt"])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn m19_permissions_are_refreshed_once_a_minute_with_limits_per_number() {
    let world =
        World::start("permissions = { requests_per_day = 25, requests_per_week = 100 }").await;
    for _ in 0..3 {
        world.permission("?refresh=true").await;
    }
    let reads = world
        .sim
        .log()
        .iter()
        .filter(|line| format!("{line:?}").contains("call_permissions"))
        .count();
    assert_eq!(reads, 1);
    assert_eq!(world.permission("").await["requestsLeft"], 25);
    // Our rules would allow a second request, but Meta refuses it.
    assert_eq!(world.request().await.status, 202);
    let refused = world.request().await;
    assert_eq!(
        (refused.status, &refused.json()["error"]["code"]),
        (422, &json!("permission_request_too_soon"))
    );
}

/// As on `offhook serve`, the rules refuse a call before it is queued.
#[tokio::test(flavor = "multi_thread")]
async fn dev_ask_first_refuses_calls_without_permission() {
    let dev = Dev::boot(DevOptions { ask_first: true, ..DevOptions::default() });
    let dev = dev.await.expect("a node in this process");
    let url = format!("{}/api/v1/calls/", dev.node_url);
    let key = [("x-api-key", dev.api_key.as_str())];
    let call = async |to: &str| {
        http::send("POST", &url, &key, json!({"from": dev.number, "to": to}).to_string()).await
    };
    let refused = call("919900000077").await;
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (422, &json!("no_permission")));
    for national in ["0919900000077", "00919900000077"] {
        let refused = call(national).await;
        assert_eq!((refused.status, &refused.json()["error"]["field"]), (400, &json!("to")));
    }
    // This user has permitted calls before the node knew of that. A request does not hide it.
    let path = format!("{}/api/v1/permissions/{}/{USER}/request/", dev.node_url, dev.number);
    let asked = http::send("POST", &path, &key, json!({"text": "May we call?"}).to_string()).await;
    assert_eq!(asked.status, 202, "{}", asked.text());
    let known = call(USER).await;
    assert_eq!(known.status, 201, "{}", known.text());
    dev.stop().await;
}

/// Runs in this process, because the test moves the wall clock.
#[tokio::test(flavor = "multi_thread")]
async fn a_permission_and_its_limits_end_by_the_wall_clock() {
    let clock = Clock::jumping();
    let options = DevOptions { clock: clock.clone(), ask_first: true, ..DevOptions::default() };
    let dev = Dev::boot(options).await.expect("a node in this process");
    let user = "919412340042";
    let url = format!("{}/api/v1/permissions/{}/{user}/", dev.node_url, dev.number);
    let key = [("x-api-key", dev.api_key.as_str())];
    let permission = async || http::send("GET", &url, &key, "").await.json();
    let request = async || http::send("POST", &format!("{url}request/"), &key, "{}").await;
    assert_eq!(request().await.status, 202);
    let answer = json!({"answer": "accept", "user": user}).to_string();
    let answers = format!("{}/_sim/permissions/answer", dev.sim.url());
    assert_eq!(http::send("POST", &answers, &[], answer).await.status, 204);
    let mut every = tokio::time::interval(Duration::from_millis(20));
    while permission().await["status"] != "temporary" {
        every.tick().await;
    }
    let too_soon = request().await;
    assert_eq!(too_soon.status, 422, "a second request within a day");
    let permission_now = permission().await;
    assert!(permission_now["nextRequestAt"].is_string(), "{permission_now}");
    assert_eq!(too_soon.json()["error"]["nextRequestAt"], permission_now["nextRequestAt"]);
    clock.jump(8 * 86_400);
    let expired = permission().await;
    assert_eq!((&expired["status"], &expired["expiresAt"]), (&json!("none"), &Value::Null));
    assert_eq!(expired["requestsLeft"], json!(1), "{expired}");
    dev.stop().await;
}
