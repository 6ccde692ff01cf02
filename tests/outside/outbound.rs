//! Business-initiated calls through the whole binary with real media: the REST API places a call,
//! the simulated Meta rings its user, who hears the document and answers it with digits.

use sim::{
    CallEventKind, CallScript, CalleeAction, CalleeBehaviour, EventOrder, HangupRule, Sim,
    SimOptions, SimTimes, caller,
};

use crate::support::app::App;
use crate::support::http::{self, Answer};
use crate::support::node::{AUTH_ID, AUTH_TOKEN, NUMBER, Node, NodeConfig, nodes, sim_options};

pub const USER: &str = "919412341234";

pub struct World {
    pub node: Node,
    pub sim: Sim,
    pub app: App,
}

pub async fn world(change: impl FnOnce(&mut NodeConfig, &mut SimOptions)) -> World {
    let app = App::start().await;
    for path in ["/hangup", "/ring", "/unused"] {
        app.xml(path, "");
    }
    let mut options = sim_options();
    let mut node_config = NodeConfig::new("", &app.url("/unused"));
    node_config.extra = "[permissions]\nenforce = false\n".to_owned();
    change(&mut node_config, &mut options);
    let sim = Sim::start(options).await.expect("the simulated Meta");
    node_config.graph_url = sim.graph_url();
    let node = Node::start(&node_config).await;
    sim.set_node_url(node.public.clone());
    World { node, sim, app }
}

impl World {
    /// Sends `POST Call/` with a JSON body.
    pub async fn place(&self, body: &serde_json::Value) -> Answer {
        self.rest("POST", "Call/", &[("content-type", "application/json")], body.to_string()).await
    }

    pub async fn rest(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: String,
    ) -> Answer {
        use base64::Engine as _;
        let basic =
            base64::engine::general_purpose::STANDARD.encode(format!("{AUTH_ID}:{AUTH_TOKEN}"));
        let basic = format!("Basic {basic}");
        let headers: Vec<_> =
            headers.iter().copied().chain([("authorization", basic.as_str())]).collect();
        http::send(
            method,
            &format!("{}/v1/Account/{AUTH_ID}/{path}", self.node.public),
            &headers,
            body,
        )
        .await
    }

    /// Returns a request for a call to the user, with every callback URL.
    pub fn order(&self) -> serde_json::Value {
        serde_json::json!({
            "from": NUMBER, "to": format!("+{USER}"), "answer_url": self.app.url("/answer"),
            "ring_url": self.app.url("/ring"), "hangup_url": self.app.url("/hangup"),
        })
    }

    /// Places a call. Returns its UUID.
    pub async fn placed(&self, body: &serde_json::Value) -> String {
        let mut answer = self.place(body).await;
        let mut every = tokio::time::interval(std::time::Duration::from_millis(50));
        // In a fleet, a user is busy until all nodes know that the last call has ended.
        while answer.status == 409 && nodes() > 1 {
            every.tick().await;
            answer = self.place(body).await;
        }
        assert_eq!(answer.status, 201, "{}", answer.text());
        let answer = answer.json();
        assert_eq!(answer["message"], "call fired");
        answer["request_uuid"].as_str().expect("a UUID").to_owned()
    }
}

/// A user with a phone that rings for a moment before `action`.
pub fn user(action: CalleeAction, order: EventOrder) -> CallScript {
    let millis = std::time::Duration::from_millis;
    CallScript {
        callee: CalleeBehaviour { action, order, rings_after: millis(50), acts_after: millis(200) },
        hangup: HangupRule::Never,
        ..CallScript::default()
    }
}

const MENU: &str = r#"<Response>
  <GetInput action="ACTION" numDigits="1"><Speak>Your order is on its way. Press one to confirm.</Speak></GetInput>
</Response>"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_called_hears_the_document_and_presses_a_key() {
    for order in [
        EventOrder::ConnectFirst,
        EventOrder::RingFirst,
        EventOrder::AcceptedFirst,
        EventOrder::BeforeReply,
    ] {
        let world = world(|_, _| ()).await;
        world.app.xml("/answer", MENU.replace("ACTION", &world.app.url("/menu")));
        world.app.xml("/menu", "<Response><Speak>Thank you.</Speak></Response>");
        let script = CallScript {
            keys: caller::parse_keys("1").expect("keys"),
            ..user(CalleeAction::Accept, order)
        };
        let user = world.sim.expect_call(script);
        let mut body = world.order();
        body["caller_name"] = "Offhook".into();
        body["sip_headers"] = "Order=42,PH-x=1".into();
        let uuid = world.placed(&body).await;
        let events = user.all().await;
        let Some(CallEventKind::Ended(end)) = events.last().map(|e| &e.kind) else {
            panic!("{order:?}: {events:#?}")
        };
        assert!(end.ok && end.cause == "end_of_instructions", "{order:?}: {events:#?}");
        assert!(end.heard_ms > 1_000, "{order:?}: {end:?}");
        assert_eq!(end.clipped_packets, 0, "{order:?}: nothing is sent before the user picks up");

        let ring = world.app.wait("/ring").await;
        let answer = world.app.wait("/answer").await;
        let menu = world.app.wait("/menu").await;
        let hangup = world.app.wait("/hangup").await;
        for (seen, event, status) in [
            (&ring, "Ring", "ringing"),
            (&answer, "StartApp", "in-progress"),
            (&menu, "Redirect", "in-progress"),
            (&hangup, "Hangup", "completed"),
        ] {
            for (name, value) in [
                ("From", NUMBER),
                ("To", USER),
                ("Direction", "outbound"),
                ("CallUUID", &uuid),
                ("ALegUUID", &uuid),
                ("RequestUUID", &uuid),
                ("ALegRequestUUID", &uuid),
                ("CallerName", "Offhook"),
                ("X-PH-Order", "42"),
                ("X-PH-PH-x", "(absent)"),
                ("CallStatus", status),
                ("Event", event),
            ] {
                assert_eq!(seen.param(name), value, "{order:?} {event} {name}");
            }
        }
        assert_eq!(menu.param("Digits"), "1");
        assert_eq!(
            (hangup.param("HangupCauseCode"), hangup.param("HangupSource")),
            ("4010", "Plivo")
        );
        assert_eq!((world.app.count("/ring"), world.app.count("/hangup")), (1, 1), "{order:?}");

        let record = world.node.record(&uuid).await;
        assert_eq!(
            (&record["call_state"], &record["call_direction"]),
            (&"ANSWER".into(), &"outbound".into())
        );
        assert!(
            record["whatsapp_call_id"].as_str().is_some_and(|id| id.starts_with("wacid.")),
            "{record}"
        );
        world.node.until_metric("offhook_number_slots_in_use", &[], 0.0).await;
        let outbound = ("direction", "outbound");
        assert_eq!(
            world.node.metric("offhook_calls_total", &[outbound, ("outcome", "completed")]).await,
            1.0
        );
        assert_eq!(
            world.node.metric("offhook_admission_total", &[outbound, ("result", "admitted")]).await,
            1.0
        );
        assert_eq!(world.node.metric("offhook_calls_active", &[outbound]).await, 0.0);
        assert_eq!(
            world
                .node
                .metric("offhook_graph_request_seconds_count", &[("action", "connect")])
                .await,
            1.0
        );
    }
}

/// Returns code, source and status of an unanswered call.
pub async fn ends(world: &World, uuid: &str) -> [String; 3] {
    let hangup = world.app.wait_where("/hangup", |seen| seen.param("CallUUID") == uuid).await;
    ["HangupCauseCode", "HangupSource", "CallStatus"].map(|name| hangup.param(name).to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_declines_or_does_not_answer() {
    let unanswered = std::time::Duration::from_millis(900);
    let world = world(|_, sim| sim.times = SimTimes { unanswered, ..SimTimes::default() }).await;
    let declines = world.sim.expect_call(user(CalleeAction::Reject, EventOrder::ConnectFirst));
    let uuid = world.placed(&world.order()).await;
    assert_eq!(ends(&world, &uuid).await, ["3020", "Callee", "busy"]);
    declines.all().await;
    world.node.until_metric("offhook_number_slots_in_use", &[], 0.0).await;

    let absent = world.sim.expect_call(user(CalleeAction::Ignore, EventOrder::ConnectFirst));
    let uuid = world.placed(&world.order()).await;
    assert_eq!(ends(&world, &uuid).await, ["3000", "Carrier", "no-answer"], "Meta gives up");
    absent.all().await;
    world.node.until_metric("offhook_number_slots_in_use", &[], 0.0).await;
    let record = world.node.record(&uuid).await;
    assert_eq!((&record["call_state"], &record["bill_duration"]), (&"NOANSWER".into(), &0.into()));
    assert_eq!(world.app.count("/answer"), 0, "nobody answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn ring_timeout_and_time_limit_end_a_call() {
    let world = world(|_, _| ()).await;
    world.app.xml("/answer", "<Response><Wait length=\"60\"/></Response>");
    for (field, value) in [("ring_timeout", 1), ("hangup_on_ring", 1)] {
        let absent = world.sim.expect_call(user(CalleeAction::Ignore, EventOrder::ConnectFirst));
        let mut body = world.order();
        body[field] = value.into();
        let uuid = world.placed(&body).await;
        assert_eq!(ends(&world, &uuid).await, ["6010", "Plivo", "no-answer"], "{field}");
        absent.all().await;
        world.node.until_metric("offhook_number_slots_in_use", &[], 0.0).await;
    }
    let answers = world.sim.expect_call(user(CalleeAction::Accept, EventOrder::ConnectFirst));
    let mut body = world.order();
    body["time_limit"] = "1".into();
    let uuid = world.placed(&body).await;
    assert_eq!(ends(&world, &uuid).await, ["6000", "Plivo", "completed"]);
    answers.all().await;
    world.node.until_metric("offhook_number_slots_in_use", &[], 0.0).await;

    let absent = world.sim.expect_call(user(CalleeAction::Ignore, EventOrder::ConnectFirst));
    let uuid = world.placed(&world.order()).await;
    world.app.wait_where("/ring", |seen| seen.param("CallUUID") == uuid).await;
    let busy = world.place(&world.order()).await;
    assert_eq!(
        (
            busy.status,
            world.rest("DELETE", &format!("Request/{uuid}/"), &[], String::new()).await.status
        ),
        (409, 204)
    );
    assert_eq!(ends(&world, &uuid).await, ["1000", "API Request", "cancel"]);
    absent.all().await;
    world.node.until_metric("offhook_number_slots_in_use", &[], 0.0).await;
    world.node.until_metric("offhook_calls_active", &[("direction", "outbound")], 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_refused_by_graph_has_a_specific_cause() {
    let codes = [
        (400, 138_001, ["3000", "Carrier", "no-answer"]),
        (429, 138_002, ["5030", "Plivo", "failed"]),
        (400, 138_003, ["3010", "Carrier", "busy"]),
        (401, 138_006, ["3040", "Carrier", "failed"]),
        (429, 138_012, ["3040", "Carrier", "failed"]),
        (500, 138_007, ["3000", "Carrier", "no-answer"]),
        (401, 138_000, ["3030", "Plivo", "failed"]),
        (401, 190, ["3080", "Carrier", "failed"]),
    ];
    let user = |n: usize| format!("9194000000{n:02}");
    let rules: String = codes
        .iter()
        .enumerate()
        .map(|(n, (status, code, _))| {
            let user = user(n);
            format!(
                "[[fault]]\nuser = \"{user}\"\ndo = \"answer\"\non = \"connect\"\nstatus = {status}\ncode = {code}\n"
            )
        })
        .collect();
    let world = world(|_, sim| sim.faults = sim::Faults::parse(&rules).expect("rules")).await;
    for (n, (_, code, expected)) in codes.iter().enumerate() {
        let mut body = world.order();
        body["to"] = user(n).into();
        let uuid = world.placed(&body).await;
        assert_eq!(ends(&world, &uuid).await, *expected, "{code}");
        assert_eq!(world.app.count("/ring"), 0);
    }
    world.node.until_metric("offhook_number_slots_in_use", &[], 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_from_an_unanswered_connect_is_ended_when_it_appears() {
    // Graph processes the request and resets the connection. The phone rings a second later.
    let rules = "[[fault]]\ndo = \"reset\"\non = \"connect\"\ndone = true\nafter_bytes = 0\n";
    let world = world(|_, sim| sim.faults = sim::Faults::parse(rules).expect("rules")).await;
    let mut script = user(CalleeAction::Ignore, EventOrder::RingFirst);
    script.callee.rings_after = std::time::Duration::from_secs(1);
    let user = world.sim.expect_call(script);
    let uuid = world.placed(&world.order()).await;
    assert_eq!(ends(&world, &uuid).await, ["3080", "Carrier", "failed"]);
    let events = user.all().await;
    let by_us =
        |e: &sim::CallEvent| e.kind == CallEventKind::Hangup { by: sim::HangupSource::Business };
    assert!(events.iter().any(by_us), "{events:#?}");
    let record = world.node.record(&uuid).await;
    assert!(record["whatsapp_call_id"].is_string(), "the record has its name: {record}");
    world.node.until_metric("offhook_number_slots_in_use", &[], 0.0).await;
    assert_eq!(world.app.count("/hangup"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_wait_in_order_for_permits_and_can_be_cancelled() {
    const CPS: usize = 2;
    let callee = user(CalleeAction::Ignore, EventOrder::ConnectFirst);
    let world = world(|node, sim| {
        node.cps = u32::try_from(CPS).expect("small");
        sim.callee = callee;
    })
    .await;
    let users: Vec<String> = (0..9).map(|n| format!("9194000001{n:02}")).collect();
    let mut body = world.order();
    body["to"] = users.join("<").into();
    let answer = world.place(&body).await;
    assert_eq!(
        (answer.status, &answer.json()["message"]),
        (201, &"calls fired".into()),
        "{}",
        answer.text()
    );
    let uuids: Vec<String> =
        serde_json::from_value(answer.json()["request_uuid"].clone()).expect("a list");
    assert_eq!(uuids.len(), 9);

    // A node of a fleet may have to wait for the first permits.
    let mut every = tokio::time::interval(std::time::Duration::from_millis(20));
    let queued: Vec<String> = loop {
        every.tick().await;
        let queued = world.rest("GET", "Call/?status=queued", &[], String::new()).await.json();
        let queued: Vec<String> = serde_json::from_value(queued["calls"].clone()).expect("uuids");
        assert!(!queued.is_empty(), "the last calls wait for seconds");
        if queued.len() <= 9 - CPS {
            break queued;
        }
    };
    assert!(queued.contains(&uuids[8]), "{queued:?}");
    let last = world
        .rest("GET", &format!("Call/{}/?status=queued", uuids[8]), &[], String::new())
        .await
        .json();
    assert_eq!(
        (&last["call_status"], &last["request_uuid"]),
        (&"queued".into(), &uuids[8].as_str().into())
    );
    for (uuid, path) in
        [(&uuids[8], format!("Request/{}/", uuids[8])), (&uuids[7], format!("Call/{}/", uuids[7]))]
    {
        assert_eq!(world.rest("DELETE", &path, &[], String::new()).await.status, 204);
        assert_eq!(ends(&world, uuid).await, ["1000", "API Request", "cancel"]);
        let gone = world
            .app
            .requests()
            .into_iter()
            .find(|s| s.param("CallUUID") == uuid)
            .expect("its hangup");
        assert_eq!(gone.param("StartTime"), gone.param("EndTime"));
        let record = world.node.record(uuid).await;
        assert_eq!(record["call_state"], "CANCEL");
        assert_eq!(record["initiation_time"], record["end_time"], "it was never placed");
    }
    let mut again = world.order();
    again["to"] = users[6].as_str().into();
    assert_eq!(world.place(&again).await.status, 409, "it waits, or rings");

    for uuid in &uuids[..7] {
        world.app.wait_where("/ring", |seen| seen.param("CallUUID") == uuid).await;
    }
    let connects: Vec<i64> = world
        .sim
        .log()
        .into_iter()
        .filter(|line| matches!(&line.event, sim::log::LogEvent::Graph { action, .. } if action == "connect"))
        .map(|line| line.at.parse::<jiff::Timestamp>().expect("a time").as_millisecond())
        .collect();
    assert_eq!(connects.len(), 7);
    for window in connects.windows(CPS + 1) {
        // The log has the response times, which a busy machine spreads.
        assert!(window[CPS] - window[0] > 700, "{connects:?}");
    }
    let order: Vec<String> = world
        .app
        .requests()
        .iter()
        .filter(|s| s.path == "/ring")
        .map(|s| s.param("To").to_owned())
        .collect();
    assert_eq!(order.len(), 7);
    assert_eq!(world.rest("DELETE", "Call/", &[], String::new()).await.status, 204);
    for uuid in &uuids[..7] {
        assert_eq!(ends(&world, uuid).await, ["1000", "API Request", "cancel"]);
        let hangup = world.app.wait_where("/hangup", |seen| seen.param("CallUUID") == uuid).await;
        let record = world.node.record(uuid).await;
        let started = record["initiation_time"].as_str().unwrap();
        assert!(
            started.starts_with(hangup.param("StartTime")),
            "a call that waited starts when it is placed: {started}, {}",
            hangup.param("StartTime")
        );
    }
    let cancelled = [("direction", "outbound"), ("outcome", "cancelled")];
    assert_eq!(world.node.metric("offhook_calls_total", &cancelled).await, 9.0);
    world.node.until_metric("offhook_number_slots_in_use", &[], 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_has_a_retry_after() {
    let world = world(|node, sim| {
        node.cps = 1;
        sim.callee = user(CalleeAction::Ignore, EventOrder::ConnectFirst);
    })
    .await;
    let users = |from: u32, n: u32| {
        (from..from + n).map(|n| format!("9194{n:08}")).collect::<Vec<_>>().join("<")
    };
    let mut body = world.order();
    body["to"] = users(0, 1_000).into();
    assert_eq!(world.place(&body).await.status, 201);
    body["to"] = users(5_000, 100).into();
    let full = world.place(&body).await;
    assert_eq!(full.status, 429, "{}", full.text());
    assert!(full.headers.contains_key("retry-after"));
    assert_eq!(world.node.metric("offhook_queue_refused_total", &[("queue", "dialer")]).await, 1.0);
    assert_eq!(world.rest("DELETE", "Call/", &[], String::new()).await.status, 204);
    world.node.until_metric("offhook_number_slots_in_use", &[], 0.0).await;
    assert_eq!(
        world.rest("GET", "Call/?status=queued", &[], String::new()).await.json()["calls"],
        serde_json::json!([])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn r03_a_kill_ends_calls_that_ring_and_calls_that_wait() {
    let mut world = world(|node, sim| {
        node.cps = 1;
        node.extra += "[cluster]\nnode_id = \"outbound\"\n";
        sim.callee = user(CalleeAction::Ignore, EventOrder::ConnectFirst);
    })
    .await;
    let mut body = world.order();
    body["to"] = "919412341234<919412341235<919412341236<919412341237".into();
    let uuids: Vec<String> =
        serde_json::from_value(world.place(&body).await.json()["request_uuid"].clone())
            .expect("a list");
    world.app.wait_where("/ring", |seen| seen.param("CallUUID") == uuids[0]).await;
    world.node.kill();
    world.node.start_again().await;
    world.sim.set_node_url(world.node.public.clone());
    for uuid in &uuids {
        assert_eq!(ends(&world, uuid).await, ["5010", "Error", "failed"]);
        let record = world.node.record(uuid).await;
        assert_eq!(record["hangup_cause_code"], 5010);
        // The first one rang for less than a second, perhaps.
        let is_instant = record["initiation_time"] == record["end_time"];
        assert!(is_instant || uuid == &uuids[0], "it was never placed: {record}");
    }
    // The call that rang is ended at Meta.
    let ended = async {
        let is = |line: &sim::log::LogLine| matches!(&line.event, sim::log::LogEvent::Graph { action, .. } if action == "terminate");
        while !world.sim.log().iter().any(is) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), ended).await.expect("a terminate");
    assert_eq!(world.node.metric("offhook_number_slots_in_use", &[]).await, 0.0);
}

/// They were ordered by the old owner, and the callbacks are signed with its keys.
#[tokio::test(flavor = "multi_thread")]
async fn r16_waiting_calls_of_a_number_that_moves_to_another_account_are_not_placed() {
    let world = world(|node, sim| {
        node.cps = 1;
        sim.callee = user(CalleeAction::Ignore, EventOrder::ConnectFirst);
    })
    .await;
    let mut body = world.order();
    let users: Vec<String> = (0..40).map(|n| format!("9194123412{n:02}")).collect();
    body["to"] = users.join("<").into();
    let uuids: Vec<String> =
        serde_json::from_value(world.place(&body).await.json()["request_uuid"].clone())
            .expect("a list");
    world.app.wait_where("/ring", |seen| uuids.contains(&seen.param("CallUUID").to_owned())).await;
    let post = async |path: &str, body: serde_json::Value| {
        let json = [("content-type", "application/json")];
        let answer = world.rest("POST", path, &json, body.to_string()).await;
        assert!((200..300).contains(&answer.status), "{path}: {}", answer.text());
        answer.json()
    };
    let made = post("Subaccount/", serde_json::json!({"name": "Branch", "enabled": true})).await;
    let path = format!("Number/{NUMBER}/");
    post(&path, serde_json::json!({"subaccount": made["auth_id"]})).await;
    for uuid in uuids.iter().rev().take(5) {
        assert_eq!(ends(&world, uuid).await, ["3030", "Plivo", "failed"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r09_a_drain_ends_queued_calls() {
    let mut world = world(|node, sim| {
        node.is_single = true;
        node.cps = 1;
        node.drain_seconds = 1;
        sim.callee = user(CalleeAction::Ignore, EventOrder::ConnectFirst);
    })
    .await;
    let mut body = world.order();
    body["to"] = "919412341234<919412341235<919412341236".into();
    let uuids: Vec<String> =
        serde_json::from_value(world.place(&body).await.json()["request_uuid"].clone())
            .expect("a list");
    world.app.wait_where("/ring", |seen| seen.param("CallUUID") == uuids[0]).await;
    world.node.signal("TERM");
    for uuid in &uuids {
        assert_eq!(ends(&world, uuid).await[..2], ["5010".to_owned(), "Error".to_owned()]);
    }
    assert_eq!(world.node.wait(), Some(0));
}

/// After a `connect` with status 500, Meta may have the call. It does not count as live, so a drain
/// does not wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn r09_a_drain_does_not_wait_for_a_call_that_may_exist_at_meta() {
    let rules = "[[fault]]\ndo = \"answer\"\non = \"connect\"\nstatus = 500\ncode = 131000\n";
    let mut world = world(|node, sim| {
        node.is_single = true;
        node.drain_seconds = 3_000;
        sim.faults = sim::Faults::parse(rules).expect("rules");
    })
    .await;
    let uuid = world.placed(&world.order()).await;
    assert_eq!(ends(&world, &uuid).await, ["3080", "Carrier", "failed"]);
    world.node.until_metric("offhook_calls_active", &[("direction", "outbound")], 0.0).await;
    world.node.signal("TERM");
    assert_eq!(world.node.wait(), Some(0));
    assert!(!world.node.log().contains("draining"), "{}", world.node.log());
}

/// The inbox counts the calls that a person missed, and warns before Meta takes the permission away.
#[tokio::test(flavor = "multi_thread")]
async fn s1_31_missed_calls_and_the_warning_are_beside_the_chat() {
    let unanswered = std::time::Duration::from_millis(300);
    let world = world(|node, sim| {
        node.extra.push_str(&crate::console::people());
        sim.times = SimTimes { unanswered, ..SimTimes::default() };
    })
    .await;
    let api = |path: &str| format!("{}/api/v1/{path}", world.node.public);
    let key = [("x-api-key", crate::support::node::API_KEY)];
    let asha = crate::console::Session::of(&world, "asha").await;
    for missed in 1..=2 {
        let absent = world.sim.expect_call(user(CalleeAction::Ignore, EventOrder::ConnectFirst));
        let uuid = world.placed(&world.order()).await;
        ends(&world, &uuid).await;
        absent.all().await;
        let list = crate::support::http::send("GET", &api("conversations/"), &key, "").await.json();
        let id = list["items"][0]["id"].as_str().unwrap_or_else(|| panic!("{list}"));
        let page = asha.get(&format!("/console/inbox/{id}/")).await.text();
        let shown = format!("<dt>Unanswered calls in a row</dt><dd>{missed}</dd>");
        assert!(page.contains(&shown), "{page}");
        assert_eq!(page.contains("WhatsApp has asked this person"), missed == 2, "{page}");
    }
}
