//! Webhook events about numbers, permissions and calls; a number's open conversations; disabling an
//! agent.

use serde_json::{Value, json};
use sim::{CallScript, HangupRule};

use crate::support::agent::{AgentServer, reply};
use crate::support::app::App;
use crate::support::chat::{Chat, USER, crm};
use crate::support::http;
use crate::support::node::{NUMBER, PHONE_NUMBER_ID};

fn number() -> String {
    format!("phone-numbers/{NUMBER}/")
}

impl Chat {
    async fn patched(&self, body: Value) -> Value {
        let (status, shown) = self.ask("PATCH", &number(), body).await;
        assert_eq!(status, 200, "{shown}");
        shown
    }

    /// Waits for the event that reports a change of this field to the number.
    async fn changed(&self, field: &str, is: Value) -> Value {
        let names = |data: &Value| {
            data["changed"].as_array().is_some_and(|names| names.contains(&json!(field)))
        };
        let event = self
            .event("/hook", "number.changed", |data| names(data) && data["number"][field] == is);
        let data = event.await.1["data"].clone();
        // The event contains the number in the same form as the API.
        let resource = self.get(&number()).await;
        let number = data["number"].as_object().expect("an object");
        assert_eq!(number.len(), 30, "{data}");
        for (name, value) in number {
            assert_eq!((name, value), (name, &resource[name]));
        }
        data
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_report_changes_of_a_number_by_people_and_meta() {
    let chat = Chat::start_with(crm, |config| config.is_single = true).await;
    // The first sync from Meta is not reported as a change. Wait until it is complete.
    let mut every = tokio::time::interval(std::time::Duration::from_millis(20));
    while chat.get(&number()).await["syncedAt"].is_null() {
        every.tick().await;
    }
    chat.patched(json!({"alias": "Desk", "hangupUrl": chat.app.url("/bye")})).await;
    let data = chat.changed("alias", json!("Desk")).await;
    assert_eq!(
        (&data["changed"], &data["number"]["number"]),
        (&json!(["alias", "hangupUrl"]), &json!(NUMBER)),
        "{data}"
    );
    assert_eq!(data["number"]["whatsappPhoneNumberId"], PHONE_NUMBER_ID);
    // An unchanged value is not reported.
    chat.patched(json!({"alias": "Desk"})).await;
    // Change over the Plivo-compatible API.
    let plivo = format!(
        "{}/v1/Account/{}/Number/{NUMBER}/",
        chat.node.public,
        crate::support::node::AUTH_ID
    );
    let basic = basic();
    let headers = [("authorization", basic.as_str()), ("content-type", "application/json")];
    let changed =
        http::send("POST", &plivo, &headers, json!({"alias": "Front desk"}).to_string()).await;
    assert_eq!(changed.status, 202, "{}", changed.text());
    chat.changed("alias", json!("Front desk")).await;
    // Change by Meta: a webhook announces it, and Graph has the value.
    let state = json!({"number": NUMBER, "phone_number_id": PHONE_NUMBER_ID, "waba": "1029384756", "name": "Asha's teas",
        "facts": {"quality_rating": "RED"}});
    let order = format!("{}/_sim/numbers", chat.sim.url());
    assert!(http::send("POST", &order, &[], state.to_string()).await.status < 300);
    let change = json!({"field": "phone_number_quality_update",
        "value": {"display_phone_number": NUMBER, "event": "FLAGGED", "current_limit": "TIER_1K"}});
    let body = json!({"object": "whatsapp_business_account", "entry": [{"id": "1029384756", "changes": [change]}]});
    assert_eq!(chat.node.post_webhook(&body.to_string()).await.status, 200);
    let data = chat.changed("qualityRating", json!("RED")).await;
    assert_eq!(data["number"]["verifiedName"], "Asha's teas", "{data}");
    // Change of the routing.
    let server = AgentServer::start(|_| reply("Hello", Value::Null)).await;
    let agent = chat.agent(&server.url).await;
    chat.connect(&agent).await;
    let data = chat.changed("activeAgent", json!(agent)).await;
    assert_eq!(
        (&data["changed"], &data["number"]["defaultRouting"]),
        (&json!(["active", "activeAgent", "defaultRouting"]), &json!("agent"))
    );
    let seen =
        chat.app.requests().into_iter().filter(|seen| seen.path == "/hook").map(|seen| seen.json());
    let of_desk = seen.filter(|event| event["data"]["number"]["alias"] == "Desk").count();
    assert_eq!(of_desk, 1, "a change that changes nothing tells nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn s2_14_a_number_added_at_meta_is_connected() {
    let chat = Chat::start_with(crm, |config| config.is_single = true).await;
    let new = "918035737460";
    let order = format!("{}/_sim/numbers", chat.sim.url());
    let added = json!({"number": new, "phone_number_id": "106540352242460", "waba": "1029384756", "name": "New shop"});
    assert!(http::send("POST", &order, &[], added.to_string()).await.status < 300);
    let listed = async || chat.get("phone-numbers/").await["items"].as_array().unwrap().clone();
    assert_eq!(listed().await.len(), 1);
    // A webhook about the new number makes the node list the numbers of the WABA.
    let change = json!({"field": "phone_number_name_update",
        "value": {"display_phone_number": new, "decision": "APPROVED", "requested_verified_name": "New shop"}});
    let body = json!({"object": "whatsapp_business_account", "entry": [{"id": "1029384756", "changes": [change]}]});
    assert_eq!(chat.node.post_webhook(&body.to_string()).await.status, 200);
    let mut every = tokio::time::interval(std::time::Duration::from_millis(20));
    while listed().await.len() == 1 {
        every.tick().await;
    }
    let number = chat.get(&format!("phone-numbers/{new}/")).await;
    assert_eq!(
        (&number["verifiedName"], &number["whatsappBusinessAccount"], &number["defaultRouting"]),
        (&json!("New shop"), &json!("1029384756"), &json!("none")),
        "{number}"
    );
    let notices = chat.get("notifications/").await;
    assert!(notices.to_string().contains("was added to WABA 1029384756"), "{notices}");
}

/// Returns the `Authorization` of the node's account.
pub fn basic() -> String {
    use base64::Engine as _;
    let who = format!("{}:{}", crate::support::node::AUTH_ID, crate::support::node::AUTH_TOKEN);
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(who))
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_report_permissions_and_calls() {
    let chat = Chat::start().await;
    let (status, sent) =
        chat.ask("POST", &format!("permissions/{NUMBER}/{USER}/request/"), Value::Null).await;
    assert_eq!(status, 202, "{sent}");
    let is = |word: &'static str| move |data: &Value| data["permission"]["status"] == word;
    let (_, asked) = chat.event("/hook", "permission.changed", is("requested")).await;
    assert_eq!(
        (&asked["data"]["user"]["waId"], &asked["number"]),
        (&json!(USER), &json!(NUMBER)),
        "{asked}"
    );
    let answer = format!("{}/_sim/permissions/answer", chat.sim.url());
    assert_eq!(
        http::send("POST", &answer, &[], json!({"answer": "accept"}).to_string()).await.status,
        204
    );
    let (_, allowed) = chat.event("/hook", "permission.changed", is("temporary")).await;
    assert!(allowed["data"]["permission"]["expiresAt"].is_string(), "{allowed}");
    assert_eq!(allowed["data"]["conversation"], chat.id_of(USER).await);
    assert_eq!(
        http::send("POST", &answer, &[], json!({"answer": "reject"}).to_string()).await.status,
        204
    );
    chat.event("/hook", "permission.changed", is("none")).await;

    // A call from a user that is answered, and one that is not.
    chat.sim.place_call(CallScript::default()).all().await;
    let uuid = |event: &Value| event["data"]["call"]["uuid"].as_str().expect("a UUID").to_owned();
    let (_, ended) =
        chat.event("/hook", "call.ended", |data| data["call"]["missed"] == false).await;
    for kind in ["call.started", "call.answered"] {
        let (_, event) = chat.event("/hook", kind, |_| true).await;
        assert_eq!(
            (uuid(&event), &event["data"]["call"]["direction"]),
            (uuid(&ended), &json!("inbound")),
            "{event}"
        );
    }
    let rings = CallScript {
        // After the node has the call: a terminate that comes before it ends nothing.
        hangup: HangupRule::WhileRinging(std::time::Duration::from_millis(500)),
        ..CallScript::default()
    };
    chat.app.route("/answer", |_| {
        (200, "<Response><PreAnswer><Wait length=\"20\"/></PreAnswer></Response>".to_owned())
    });
    chat.sim.place_call(rings).all().await;
    let (_, missed) = chat.event("/hook", "call.missed", |_| true).await;
    let (_, ended) = chat.event("/hook", "call.ended", |data| data["call"]["missed"] == true).await;
    assert_eq!(
        (uuid(&missed), &missed["data"]["call"]["answeredAt"]),
        (uuid(&ended), &Value::Null),
        "{missed}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queued_call_that_is_cancelled_is_reported_as_ended() {
    let chat = Chat::start_with(
        |app| format!("{}[permissions]\nenforce = false\n", crm(app)),
        |node_config| node_config.cps = 1,
    )
    .await;
    let order = |to: &str| json!({"from": NUMBER, "to": to, "answerUrl": chat.app.url("/answer")});
    let mut last = String::new();
    for to in ["919400000001", "919400000002", "919400000003"] {
        let (status, placed) = chat.ask("POST", "calls/", order(to)).await;
        assert_eq!(status, 201, "{placed}");
        last = placed["callUuid"].as_str().expect("a UUID").to_owned();
    }
    let queued = chat.get("calls/?status=queued").await;
    assert_eq!(queued["items"][0]["callUuid"], last, "{queued}");
    assert_eq!(chat.ask("POST", &format!("calls/{last}/hangup/"), Value::Null).await.0, 202);
    let (_, ended) = chat.event("/hook", "call.ended", |data| data["call"]["uuid"] == last).await;
    assert_eq!(
        (&ended["data"]["call"]["cause"], &ended["data"]["call"]["missed"]),
        (&json!("cancelled_by_api"), &json!(false))
    );
    let started =
        |event: &Value| event["type"] == "call.started" && event["data"]["call"]["uuid"] == last;
    assert!(
        !chat
            .app
            .requests()
            .iter()
            .filter(|seen| seen.path == "/hook")
            .any(|seen| started(&seen.json()))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_has_a_count_of_open_conversations() {
    let chat = Chat::start().await;
    for user in ["919400000001", "919400000002", "919400000003"] {
        chat.send_text(user, "Hello?").await;
    }
    assert_eq!(chat.get(&number()).await["openConversations"], 3);
    let closed = chat.id_of("919400000002").await;
    assert_eq!(
        chat.ask("POST", &format!("conversations/{closed}/close/"), Value::Null).await.0,
        200
    );
    let breaks = chat.get(&format!("{}disconnect/", number())).await;
    assert_eq!(
        (&breaks["openConversations"], &breaks["liveCalls"]),
        (&json!(2), &json!(0)),
        "{breaks}"
    );
    let list = chat.get("phone-numbers/").await;
    assert_eq!(
        (&list["items"][0]["number"], &list["items"][0]["openConversations"]),
        (&json!(NUMBER), &json!(2))
    );
    // Conversations of other accounts are not listed.
    assert_eq!(chat.get("phone-numbers/?q=nobody").await["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_13_an_inactive_number_stores_messages_and_its_agent_answers_nothing() {
    let crm_of = |app: &App| crm(app);
    let chat = Chat::start_with(crm_of, |_| {}).await;
    let server = AgentServer::start(|turn| {
        reply(&format!("You wrote {}", turn.body["input"]["text"].as_str().unwrap()), Value::Null)
    })
    .await;
    let both = json!({"name": "Asha", "kind": "http", "endpoint": server.url, "channels": ["whatsapp", "voice"]});
    let (status, agent) = chat.ask("POST", "agents/", both).await;
    assert_eq!(status, 201, "{agent}");
    let (status, refused) = chat.ask("PATCH", &number(), json!({"active": true})).await;
    assert_eq!((status, &refused["error"]["field"]), (400, &json!("active")), "without an agent");
    chat.connect(agent["id"].as_str().expect("an id")).await;
    assert_eq!(chat.get(&number()).await["active"], true);
    chat.send_text(USER, "one").await;
    let id = chat.id_of(USER).await;
    chat.until(&id, |items| items.len() == 2).await;
    assert_eq!(
        chat.patched(json!({"active": false, "configurationType": "agent"})).await["active"],
        false
    );
    chat.send_text(USER, "two").await;
    let items = chat.until(&id, |items| items.len() == 3).await;
    assert_eq!(items[2]["text"], "two", "{items:#?}");
    // No call is answered either if only the agent would answer it.
    chat.sim.place_call(CallScript::default()).all().await;
    let refused = [("direction", "inbound"), ("result", "calling_disabled")];
    assert_eq!(chat.node.metric("offhook_admission_total", &refused).await, 1.0);
    let (status, refused) = chat.ask("POST", "calls/", json!({"from": NUMBER, "to": USER})).await;
    assert_eq!((status, &refused["error"]["code"]), (409, &json!("no_answer_url")), "{refused}");
    assert_eq!(chat.patched(json!({"active": true})).await["active"], true);
    chat.send_text(USER, "three").await;
    chat.until(&id, |items| items.len() == 5).await;
    let asked: Vec<Value> =
        server.turns().iter().map(|turn| turn.body["input"]["text"].clone()).collect();
    assert_eq!(asked, ["one", "three"]);
}
