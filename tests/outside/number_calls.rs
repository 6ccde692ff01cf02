//! Calls over the number API: place with its own fields under the usual rules, hang up, list by
//! page.

use serde_json::{Value, json};
use sim::{CallEventKind, CalleeAction, EventOrder};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};

use crate::outbound::{USER, World, user, world};
use crate::support::agent::{AgentServer, reply};
use crate::support::http::{self, Answer};
use crate::support::node::{API_KEY, NUMBER};
use crate::support::phone::Phone;

impl World {
    async fn number_api(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Value,
    ) -> Answer {
        let url = format!("{}/api/v1/{path}", self.node.public);
        let key = if headers.iter().any(|(name, _)| *name == "x-api-key") {
            None
        } else {
            Some(("x-api-key", API_KEY))
        };
        let headers: Vec<_> = headers.iter().copied().chain(key).collect();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        http::send(method, &url, &headers, body).await
    }

    /// Places a call over the number API. Returns its UUID.
    async fn calls(&self, mut body: Value) -> String {
        body["from"] = json!(NUMBER);
        body["to"] = json!(format!("+{USER}"));
        let placed = self.number_api("POST", "calls/", &[], body).await;
        assert_eq!(
            (placed.status, &placed.json()["outcome"]),
            (201, &json!("queued")),
            "{}",
            placed.text()
        );
        placed.json()["callUuid"].as_str().expect("a UUID").to_owned()
    }

    async fn call(&self, uuid: &str) -> Value {
        self.number_api("GET", &format!("calls/{uuid}/"), &[], Value::Null).await.json()
    }

    /// Places a call that must be refused. Returns status and error.
    async fn refused(&self, body: Value) -> (u16, Value) {
        let refused = self.number_api("POST", "calls/", &[], body).await;
        (refused.status, refused.json()["error"].clone())
    }
}

fn accepts() -> sim::CallScript {
    user(CalleeAction::Accept, EventOrder::ConnectFirst)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_followed_event_log_ends_soon_after_its_key() {
    let world = world(|_, _| ()).await;
    world.app.xml("/unused", "<Response><Wait length=\"60\"/></Response>");
    let _callee = world.sim.expect_call(accepts());
    let uuid = world.calls(json!({})).await;
    world.app.wait("/unused").await;
    let key = json!({"name": "desk", "role": "agent"});
    let key = world.number_api("POST", "api-keys/", &[], key).await.json();
    let [id, secret] = ["id", "secret"].map(|field| key[field].as_str().expect("text").to_owned());

    #[allow(clippy::disallowed_methods, reason = "a test asks its own node")]
    let connected =
        tokio::net::TcpStream::connect(world.node.public.trim_start_matches("http://")).await;
    let mut socket = tokio::io::BufReader::new(connected.expect("connect"));
    let request = format!(
        "GET /api/v1/calls/{uuid}/events/?follow=1 HTTP/1.1\r\nhost: localhost\r\n\
         x-api-key: {secret}\r\nconnection: close\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.expect("sent");
    let mut status = String::new();
    socket.read_line(&mut status).await.expect("a response");
    assert!(status.contains(" 200 "), "{status}");

    let deleted = world.number_api("DELETE", &format!("api-keys/{id}/"), &[], Value::Null).await;
    assert_eq!(deleted.status, 204, "{}", deleted.text());
    let mut lines = String::new();
    let ended = socket.read_to_string(&mut lines);
    let ended = tokio::time::timeout(std::time::Duration::from_secs(10), ended).await;
    ended.expect("the log ends").expect("text");
    assert!(lines.contains("\"trace\":\"begun\"") && lines.ends_with("0\r\n\r\n"), "{lines}");
    let shown = world.call(&uuid).await;
    assert_ne!(shown["status"], "ended", "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_places_one_call_across_a_restart() {
    let mut world = world(|_, _| ()).await;
    world.app.xml("/mine", "<Response><Speak>Your parcel is here.</Speak></Response>");
    world.app.xml("/unused", "<Response><Speak>Hello from the number.</Speak></Response>");
    // The role `agent` may place calls.
    let making = ("idempotency-key", "desk-key");
    let key = world
        .number_api("POST", "api-keys/", &[making], json!({"name": "desk", "role": "agent"}))
        .await;
    assert_eq!(key.status, 201, "{}", key.text());
    let made = key.json();
    let key = key.json()["secret"].as_str().expect("a key").to_owned();
    let callee = world.sim.expect_call(accepts());
    let order = json!({"from": format!("whatsapp:+{NUMBER}"), "to": USER, "answerUrl": world.app.url("/mine")});
    let headers = [("x-api-key", key.as_str()), ("idempotency-key", "parcel-7")];
    let placed = world.number_api("POST", "calls/", &headers, order.clone()).await;
    assert_eq!(placed.status, 201, "{}", placed.text());
    let again = world.number_api("POST", "calls/", &headers, order.clone()).await;
    assert_eq!((again.status, again.json()), (201, placed.json()), "the same call");
    let uuid = placed.json()["callUuid"].as_str().expect("a UUID").to_owned();
    let events = callee.all().await;
    assert!(
        matches!(&events.last().expect("an end").kind, CallEventKind::Ended(end) if end.ok && end.heard_ms > 500),
        "{events:#?}"
    );
    let asked = world.app.wait("/mine").await;
    assert_eq!(
        [asked.param("CallUUID"), asked.param("Direction"), asked.param("To")],
        [&*uuid, "outbound", USER]
    );
    world.node.until_metric("offhook_calls_active", &[("direction", "outbound")], 0.0).await;
    let shown = world.call(&uuid).await;
    assert_eq!(
        [
            &shown["status"],
            &shown["direction"],
            &shown["cause"],
            &shown["from"],
            &shown["hangupSource"]
        ],
        ["ended", "outbound", "end_of_instructions", NUMBER, "Plivo"],
        "{shown}"
    );
    assert!(shown["answeredAt"].is_string() && shown["whatsappCallId"].is_string(), "{shown}");
    let sent = |line: &sim::log::LogLine| matches!(&line.event, sim::log::LogEvent::Graph { action, .. } if action == "connect");
    assert_eq!(world.sim.log().iter().filter(|line| sent(line)).count(), 1);

    // The keys survive a restart: the repeated request returns the same call and the same key with
    // its secret.
    world.node.kill();
    world.node.start_again().await;
    let again = world.number_api("POST", "calls/", &headers, order).await;
    assert_eq!((again.status, again.json()), (201, placed.json()));
    let again = world
        .number_api("POST", "api-keys/", &[making], json!({"name": "desk", "role": "agent"}))
        .await;
    assert_eq!((again.status, again.json()), (201, made));
    assert_eq!(
        world.number_api("GET", "api-keys/", &[], Value::Null).await.json()["items"]
            .as_array()
            .map(Vec::len),
        Some(1)
    );
    assert_eq!(world.sim.log().iter().filter(|line| sent(line)).count(), 1);

    let callee = world.sim.expect_call(accepts());
    let second = world.calls(json!({})).await;
    callee.all().await;
    assert_eq!(
        world.app.wait_where("/unused", |seen| seen.param("CallUUID") == second).await.param("To"),
        USER
    );

    // Lists: one item per page, and with filters.
    let world = &world;
    let list = |query: String| async move {
        world.number_api("GET", &format!("calls/?{query}"), &[], Value::Null).await.json()
    };
    world.node.until_metric("offhook_calls_active", &[("direction", "outbound")], 0.0).await;
    let page = list("limit=1".to_owned()).await;
    assert_eq!(page["items"][0]["callUuid"], second);
    let page = list(format!("limit=1&cursor={}", page["next"].as_str().expect("more"))).await;
    assert_eq!((&page["items"][0]["callUuid"], &page["next"]), (&json!(uuid), &Value::Null));
    let none = json!([]);
    for (query, count) in [
        (format!("to=%2B{USER}&direction=outbound&status=ended"), 2),
        ("direction=inbound".to_owned(), 0),
        ("status=live".to_owned(), 0),
        (format!("from={USER}"), 0),
        ("from=sip:asha%40phones.example.com".to_owned(), 0),
        ("from=IN.21300411725500934".to_owned(), 0),
        (format!("endedAfter={}", shown["startedAt"].as_str().expect("a time")), 2),
        (format!("endedBefore={}", shown["startedAt"].as_str().expect("a time")), 0),
        ("account=SAXXXXXXXXXXXXXXXXXX".to_owned(), 0),
    ] {
        let found = list(query.clone()).await;
        assert_eq!(found["items"].as_array().expect("a list").len(), count, "{query}: {found}");
        assert_eq!(count == 0, found["items"] == none);
    }
    for (query, field) in [
        ("status=up", "status"),
        ("endedAfter=today", "endedAfter"),
        ("direction=back", "direction"),
        ("from=abc", "from"),
        ("to=12", "to"),
        ("account=abc", "account"),
        ("limit=1&limit=2", "limit"),
    ] {
        let wrong = world.number_api("GET", &format!("calls/?{query}"), &[], Value::Null).await;
        assert_eq!((wrong.status, &wrong.json()["error"]["field"]), (400, &json!(field)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_connects_an_agent_or_an_endpoint_and_is_hung_up() {
    let world = world(|_, _| ()).await;
    let server = AgentServer::start(|_| reply("Goodbye.", json!("hangup"))).await;
    let agent =
        json!({"name": "Asha", "kind": "http", "endpoint": server.url, "channels": ["voice"]});
    let agent = world.number_api("POST", "agents/", &[], agent).await.json()["id"].clone();
    let mute =
        json!({"name": "Ravi", "kind": "http", "endpoint": server.url, "channels": ["whatsapp"]});
    let mute = world.number_api("POST", "agents/", &[], mute).await.json()["id"].clone();
    let callee = world.sim.expect_call(accepts());
    let uuid = world.calls(json!({"agent": agent})).await;
    let turn = server.until_requests(1).await.remove(0).body;
    assert_eq!(
        (&turn["user"]["waId"], &turn["input"]["type"]),
        (&json!(USER), &json!("start")),
        "{turn}"
    );
    callee.all().await;
    world.node.until_metric("offhook_number_slots_in_use", &[], 0.0).await;
    assert_eq!(world.call(&uuid).await["status"], "ended");

    let made = json!({"username": "asha", "password": "correct horse"}).to_string();
    let made = world.rest("POST", "Endpoint/", &[("content-type", "application/json")], made).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let order = |more: Value| {
        let mut order = json!({"from": NUMBER, "to": USER});
        order
            .as_object_mut()
            .expect("an object")
            .extend(more.as_object().expect("an object").clone());
        order
    };
    for (wrong, status, code, field) in [
        (json!({"endpoint": "asha"}), 409, "endpoint_away", Value::Null),
        (json!({"endpoint": "ravi"}), 400, "bad_value", json!("endpoint")),
        (json!({"endpoint": "a b"}), 400, "bad_value", json!("endpoint")),
        (json!({"agent": mute}), 409, "no_channel", Value::Null),
        (
            json!({"agent": "00000000-0000-0000-0000-000000000007"}),
            400,
            "bad_value",
            json!("agent"),
        ),
        (json!({"agent": agent, "endpoint": "asha"}), 400, "bad_value", json!("endpoint")),
        (json!({"answerUrl": "ftp://x/"}), 400, "bad_value", json!("answerUrl")),
        (
            json!({"answerUrl": "http://x.example/", "answerMethod": "PUT"}),
            400,
            "bad_value",
            json!("answerMethod"),
        ),
        (json!({"to": NUMBER}), 400, "bad_value", json!("to")),
        (json!({"to": "the user"}), 400, "bad_value", json!("to")),
        (json!({"from": "919999999999"}), 400, "bad_value", json!("from")),
    ] {
        let (got, error) = world.refused(order(wrong.clone())).await;
        assert_eq!(
            (got, &error["code"], &error["field"]),
            (status, &json!(code), &field),
            "{wrong}: {error}"
        );
    }
    let (mut phone, _) = Phone::registered(&world.node.public, "asha", "correct horse").await;
    let callee = world.sim.expect_call(accepts());
    let uuid = world.calls(json!({"endpoint": "sip:asha@phone.plivo.com"})).await;
    let ring = phone.receive("ring").await;
    assert_eq!(ring["from"], USER, "{ring}");
    let hung = world.number_api("POST", &format!("calls/{uuid}/hangup/"), &[], Value::Null).await;
    assert_eq!((hung.status, &hung.json()["callUuid"]), (202, &json!(uuid)), "{}", hung.text());
    callee.all().await;
    world.node.until_metric("offhook_number_slots_in_use", &[], 0.0).await;
    let over = world.number_api("POST", &format!("calls/{uuid}/hangup/"), &[], Value::Null).await;
    assert_eq!((over.status, &over.json()["error"]["code"]), (409, &json!("call_over")));
    let never = "calls/00000000-0000-4000-8000-000000000007/hangup/";
    assert_eq!(world.number_api("POST", never, &[], Value::Null).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_calls_name_the_reason() {
    const BARRED: &str = "12125550123";
    const OFF: &str = "918035737400";
    let world = world(|node_config, sim| {
        sim.callee = user(CalleeAction::Ignore, EventOrder::ConnectFirst);
        sim.permission_policy = sim::PermissionPolicy::AskFirst;
        // Rules that the simulated Meta checks in other tests.
        node_config.extra = format!(
            "[[number]]\nnumber = \"{BARRED}\"\nphone_number_id = \"7\"\nwaba = \"1029384756\"\ncalling_enabled = true\n\
             answer_url = \"{0}\"\n[[number]]\nnumber = \"{OFF}\"\nphone_number_id = \"8\"\nwaba = \"1029384756\"\n\
             calling_enabled = false\nanswer_url = \"{0}\"\n",
            node_config.answer_url
        );
        node_config.number_extra = "calls_per_number = 1\n".to_owned();
    })
    .await;
    let order = |from: &str, to: &str| json!({"from": from, "to": to});
    let placed_with = async |key: &str| {
        let order = json!({"from": NUMBER, "to": USER, "answerUrl": world.app.url("/answer"), "answerMethod": "GET"});
        world.number_api("POST", "calls/", &[("idempotency-key", key)], order).await
    };
    let refused = placed_with("order-17").await;
    let (status, error) = (refused.status, &refused.json()["error"]);
    assert_eq!(
        (status, &error["code"], &error["field"]),
        (422, &json!("no_permission"), &json!("to")),
        "{error}"
    );
    assert_eq!(
        error["message"],
        "Meta knows of no permission of this user: send the user a permission request first"
    );
    assert_eq!(error.get("nextCallAt"), Some(&Value::Null), "no time will help: {error}");
    let (status, error) = world.refused(order(BARRED, USER)).await;
    assert_eq!(
        (status, &error["code"], &error["field"]),
        (422, &json!("geo_blocked"), &json!("from")),
        "{error}"
    );
    let (status, error) = world.refused(order(OFF, USER)).await;
    assert_eq!((status, &error["code"]), (409, &json!("calling_disabled")), "{error}");

    // The user grants permission.
    let asked = world
        .number_api("POST", &format!("permissions/{NUMBER}/{USER}/request/"), &[], Value::Null)
        .await;
    assert_eq!(asked.status, 202, "{}", asked.text());
    let answer = format!("{}/_sim/permissions/answer", world.sim.url());
    assert_eq!(http::send("POST", &answer, &[], "{\"answer\":\"accept\"}").await.status, 204);
    let allowed = format!("permissions/{NUMBER}/{USER}/");
    let allows = async {
        let mut every = tokio::time::interval(std::time::Duration::from_millis(20));
        while world.number_api("GET", &allowed, &[], Value::Null).await.json()["status"]
            != "temporary"
        {
            every.tick().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), allows)
        .await
        .expect("the node hears of it");
    let placed = placed_with("order-17").await;
    assert_eq!(placed.status, 201, "the refusal is not kept: {}", placed.text());
    let uuid = placed.json()["callUuid"].as_str().expect("a UUID").to_owned();
    let (status, error) = world.refused(order(NUMBER, USER)).await;
    assert_eq!((status, &error["code"]), (409, &json!("user_busy")), "{error}");
    let live = world.number_api("GET", "calls/?status=live", &[], Value::Null).await.json();
    assert_eq!(
        (&live["items"][0]["callUuid"], &live["items"][0]["answeredAt"]),
        (&json!(uuid), &Value::Null),
        "{live}"
    );
    assert_eq!(
        world.number_api("POST", &format!("calls/{uuid}/hangup/"), &[], Value::Null).await.status,
        202
    );
    assert_eq!(world.call(&uuid).await["callUuid"], uuid);
    world.node.until_metric("offhook_number_slots_in_use", &[], 0.0).await;
}
