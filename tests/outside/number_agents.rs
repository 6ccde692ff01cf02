//! Numbers and the agents that answer their messages, over HTTP: registration, sync with Meta,
//! quality, and sandboxes.

use std::time::Duration;

use serde_json::{Value, json};

use crate::console::{Session, user};
use crate::support::agent::{AgentServer, reply};
use crate::support::app::App;
use crate::support::chat::{Chat, USER, crm};
use crate::support::http;
use crate::support::node::{ACCESS_TOKEN, API_KEY, AUTH_ID, NUMBER, PHONE_NUMBER_ID};

pub const WABA: &str = "1029384756";
const NEW: &str = "5511987654321";
const NEW_ID: &str = "206540352242922";
const OTHER_USER: &str = "919412340001";
/// The URL of an agent that is not there.
pub const NOWHERE: &str = "http://127.0.0.1:9009/";

/// Sets a number's state at the simulated Meta.
async fn meta_has(chat: &Chat, waba: &str, fields: Value) {
    let order = json!({"number": NEW, "phone_number_id": NEW_ID, "waba": waba, "name": "Loja", "facts": fields});
    let url = format!("{}/_sim/numbers", chat.sim.url());
    assert_eq!(http::send("POST", &url, &[], order.to_string()).await.status, 204);
}

/// Sends a request that must be answered with this status. Returns the body.
pub async fn expect_status(
    chat: &Chat,
    method: &str,
    path: &str,
    body: Value,
    status: u16,
) -> Value {
    let (got, answer) = chat.ask(method, path, body).await;
    assert_eq!(got, status, "{method} {path}: {answer}");
    answer
}

async fn sync(chat: &Chat) -> Value {
    expect_status(chat, "POST", &format!("wabas/{WABA}/sync/"), json!({}), 200).await
}

/// Waits until a number satisfies `test`.
async fn until(chat: &Chat, number: &str, test: impl Fn(&Value) -> bool) -> Value {
    let mut every = tokio::time::interval(Duration::from_millis(20));
    let mut last = Value::Null;
    for _ in 0..500 {
        every.tick().await;
        last = chat.get(&format!("phone-numbers/{number}/")).await;
        if test(&last) {
            return last;
        }
    }
    panic!("not so after 10 s: {last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s2_06_s2_10_s2_12_s2_17_agents_need_registered_numbers() {
    let chat = Chat::start().await;
    meta_has(&chat, WABA, json!({"platform_type": "NOT_APPLICABLE", "pin": "271828"})).await;
    sync(&chat).await;
    let shown = chat.get(&format!("phone-numbers/{NEW}/")).await;
    assert_eq!(shown["platformType"], "NOT_APPLICABLE", "{shown}");
    let agent = chat.agent(NOWHERE).await;
    let connect = format!("phone-numbers/{NEW}/connect-agent/");
    let refused = expect_status(&chat, "POST", &connect, json!({ "agent": agent }), 409).await;
    assert_eq!(refused["error"]["code"], "not_cloud_api");
    assert!(refused["error"]["message"].as_str().unwrap().contains("register"), "{refused}");
    let path = format!("agents/{agent}/");
    let refused = expect_status(&chat, "PATCH", &path, json!({"outboundNumber": NEW}), 400).await;
    assert_eq!(refused["error"]["field"], "outboundNumber", "{refused}");
    // A number on another platform is treated the same.
    meta_has(&chat, WABA, json!({"platform_type": "ON_PREMISE", "pin": "271828"})).await;
    sync(&chat).await;
    expect_status(&chat, "POST", &connect, json!({ "agent": agent }), 409).await;
    // After registration it can do both.
    meta_has(&chat, WABA, json!({"platform_type": "NOT_APPLICABLE", "pin": "271828"})).await;
    sync(&chat).await;
    expect_status(
        &chat,
        "POST",
        &format!("phone-numbers/{NEW}/register/"),
        json!({"pin": "271828"}),
        202,
    )
    .await;
    let done = until(&chat, NEW, |number| number["registration"]["state"] == "registered").await;
    assert_eq!(done["platformType"], "CLOUD_API", "{done}");
    let routed = expect_status(&chat, "POST", &connect, json!({ "agent": agent }), 200).await;
    assert_eq!(
        (&routed["activeAgent"], &routed["defaultRouting"]),
        (&json!(agent), &json!("agent"))
    );
    let shown = chat.get(&format!("phone-numbers/{NEW}/")).await;
    assert_eq!(
        (&shown["configurationType"], &shown["activeAgent"]),
        (&json!("agent"), &json!(agent)),
        "s0.05: {shown}"
    );
    let shown =
        expect_status(&chat, "PATCH", &path, json!({"outboundNumber": format!("+{NEW}")}), 200)
            .await;
    assert_eq!((&shown["outboundNumber"], &shown["inboundNumbers"]), (&json!(NEW), &json!([NEW])));
}

#[tokio::test(flavor = "multi_thread")]
async fn s2_05_s2_18_s2_19_a_number_has_one_inbound_agent_and_serves_many_outbound() {
    let chat = Chat::start().await;
    let make = async |name: &str| {
        let body =
            json!({"name": name, "kind": "http", "endpoint": NOWHERE, "outboundNumber": NUMBER});
        expect_status(&chat, "POST", "agents/", body, 201).await
    };
    let (first, second) = (make("First").await, make("Second").await);
    for agent in [&first, &second] {
        assert_eq!(agent["outboundNumber"], NUMBER, "s2.19: {agent}");
    }
    let connect = format!("phone-numbers/{NUMBER}/connect-agent/");
    for agent in [&first, &second] {
        expect_status(&chat, "POST", &connect, json!({"agent": agent["id"]}), 200).await;
        let shown = chat.get(&format!("phone-numbers/{NUMBER}/")).await;
        assert_eq!(shown["activeAgent"], agent["id"], "{shown}");
        // A document answers its calls. This agent does not answer calls.
        assert_eq!(shown["configurationType"], "webhook", "{shown}");
    }
    let inbound = async |agent: &Value| {
        chat.get(&format!("agents/{}/", agent["id"].as_str().unwrap())).await["inboundNumbers"]
            .clone()
    };
    assert_eq!(
        (inbound(&first).await, inbound(&second).await),
        (json!([]), json!([NUMBER])),
        "s2.18"
    );
    let none = expect_status(
        &chat,
        "POST",
        &format!("phone-numbers/{NUMBER}/disconnect-agent/"),
        json!({}),
        200,
    )
    .await;
    assert_eq!((&none["activeAgent"], &none["defaultRouting"]), (&Value::Null, &json!("none")));
    assert_eq!(inbound(&second).await, json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn s2_08_without_an_agent_a_message_is_stored_and_not_answered() {
    let server = AgentServer::start(|_| reply("I am the agent.", Value::Null)).await;
    let chat = Chat::start_with(|_| String::new(), |_| {}).await;
    chat.send_text(USER, "Hello?").await;
    let shown = chat.conversation(USER).await;
    assert_eq!(
        (&shown["routing"], &shown["lastMessage"]["text"]),
        (&json!("none"), &json!("Hello?")),
        "{shown}"
    );
    // Another user's later message is answered; the first one would have been answered before.
    let agent = chat.agent(&server.url).await;
    chat.connect(&agent).await;
    chat.send_text(OTHER_USER, "And me?").await;
    let other = chat.id_of(OTHER_USER).await;
    let is_out = |item: &Value| item["direction"] == "outbound" && item["status"] != "queued";
    chat.until(&other, |items| items.iter().any(is_out)).await;
    let sent = http::get(&format!("{}/_sim/messages", chat.sim.url())).await.json();
    assert_eq!(sent.as_array().unwrap().len(), 1, "{sent}");
    let id = shown["id"].as_str().unwrap();
    assert_eq!(chat.until(id, |items| !items.is_empty()).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn s2_14_s2_15_s2_22_a_sync_adds_numbers_and_deletes_none() {
    let chat = Chat::start().await;
    let numbers = async || {
        let list = chat.get("phone-numbers/").await;
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n["number"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(numbers().await, [NUMBER]);
    meta_has(&chat, WABA, json!({})).await;
    let synced = sync(&chat).await;
    assert_eq!(synced["added"], json!([NEW]), "{synced}");
    assert!(numbers().await.contains(&NEW.to_owned()));
    assert_eq!(sync(&chat).await["added"], json!([]), "once");
    let refused =
        expect_status(&chat, "DELETE", &format!("phone-numbers/{NEW}/"), Value::Null, 405).await;
    assert!(refused["error"]["message"].as_str().unwrap().contains("disconnect"), "{refused}");
    assert!(numbers().await.contains(&NEW.to_owned()));
    // Disconnected: out of service here, unchanged at Meta, and restored in the same way.
    expect_status(&chat, "POST", &format!("phone-numbers/{NEW}/disconnect/"), json!({}), 200).await;
    assert_eq!(chat.get(&format!("phone-numbers/{NEW}/")).await["connected"], false);
    sync(&chat).await;
    assert_eq!(
        chat.get(&format!("phone-numbers/{NEW}/")).await["connected"],
        false,
        "a sync connects nobody's number"
    );
    expect_status(&chat, "POST", &format!("phone-numbers/{NEW}/reconnect/"), json!({}), 200).await;
    assert_eq!(chat.get(&format!("phone-numbers/{NEW}/")).await["connected"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn s2_03_s2_21_metas_webhook_updates_the_quality_and_a_low_one_notifies() {
    let chat = Chat::start().await;
    until(&chat, NUMBER, |number| number["qualityRating"] == "GREEN").await;
    let fields = json!({"quality_rating": "RED"});
    let order = json!({"number": NUMBER, "phone_number_id": PHONE_NUMBER_ID, "waba": WABA, "name": "Shop", "facts": fields});
    let url = format!("{}/_sim/numbers", chat.sim.url());
    assert_eq!(http::send("POST", &url, &[], order.to_string()).await.status, 204);
    let value =
        json!({"display_phone_number": NUMBER, "event": "FLAGGED", "current_limit": "TIER_1K"});
    let change = json!({"field": "phone_number_quality_update", "value": value});
    let body = json!({"object": "whatsapp_business_account", "entry": [{"id": WABA, "changes": [change]}]});
    assert_eq!(chat.node.post_webhook(&body.to_string()).await.status, 200);
    let shown = until(&chat, NUMBER, |number| number["qualityRating"] == "RED").await;
    assert_eq!(shown["verifiedName"], "Shop", "{shown}");
    let mut every = tokio::time::interval(Duration::from_millis(20));
    for n in 0..250 {
        every.tick().await;
        let notifications = chat.get("notifications/?type=quality").await;
        if notifications["items"][0]["text"].as_str().is_some_and(|text| text.contains(NUMBER)) {
            return;
        }
        assert!(n < 249, "no notification of the quality: {notifications}");
    }
}

fn credentials(more: Value) -> Value {
    let mut body = json!({"displayName": "Brasil", "number": format!("whatsapp:+{NEW}"), "whatsappPhoneNumberId": NEW_ID,
        "whatsappBusinessAccount": WABA, "accessToken": ACCESS_TOKEN});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_07_s3_08_s3_09_s3_13_s3_15_an_active_number_needs_an_agent_for_messages() {
    let chat = Chat::start().await;
    meta_has(&chat, WABA, json!({})).await;
    let voice =
        json!({"name": "Voice", "kind": "http", "endpoint": NOWHERE, "channels": ["voice"]});
    let voice = expect_status(&chat, "POST", "agents/", voice, 201).await["id"].clone();
    let agent = chat.agent(NOWHERE).await;
    let nobody = "00000000-0000-0000-0000-000000000007";
    for (more, status, field) in [
        (json!({"active": true}), 400, "assignedAgent"),
        (json!({"active": true, "assignedAgent": nobody}), 400, "assignedAgent"),
        (json!({"active": true, "assignedAgent": voice}), 400, "assignedAgent"),
        (json!({"number": "whatsapp:5511"}), 400, "number"),
        (json!({"number": "whatsapp:+not-a-number"}), 400, "number"),
    ] {
        let refused =
            expect_status(&chat, "POST", "phone-numbers/", credentials(more.clone()), status).await;
        assert_eq!(refused["error"]["field"], field, "{more}: {refused}");
    }
    assert_eq!(
        chat.ask("GET", &format!("phone-numbers/{NEW}/"), Value::Null).await.0,
        404,
        "nothing was kept"
    );
    // `whatsapp:+…` is accepted as a number.
    let made = expect_status(&chat, "POST", "phone-numbers/", credentials(json!({})), 201).await;
    assert_eq!(
        (&made["number"], &made["active"], &made["activeAgent"]),
        (&json!(NEW), &json!(false), &Value::Null)
    );
    let path = format!("phone-numbers/{NEW}/");
    let refused = expect_status(&chat, "PATCH", &path, json!({"active": true}), 400).await;
    assert_eq!(refused["error"]["field"], "active", "without an agent: {refused}");
    // It is not active already.
    expect_status(&chat, "PATCH", &path, json!({"active": false}), 200).await;
    expect_status(&chat, "POST", &format!("{path}connect-agent/"), json!({ "agent": agent }), 200)
        .await;
    for active in [true, false, true] {
        let shown = expect_status(&chat, "PATCH", &path, json!({ "active": active }), 200).await;
        assert_eq!(
            (&shown["active"], &shown["activeAgent"]),
            (&json!(active), &json!(agent)),
            "{shown}"
        );
    }
    expect_status(&chat, "DELETE", &path, Value::Null, 405).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_15_s4_16_a_sandbox_number_is_routed_per_person() {
    let chat = Chat::with_two().await;
    // A number at Meta in a WABA that is not configured.
    meta_has(&chat, "9999", json!({})).await;
    let made = expect_status(
        &chat,
        "POST",
        "phone-numbers/",
        credentials(json!({"whatsappBusinessAccount": null})),
        201,
    )
    .await;
    assert_eq!(
        (&made["whatsappBusinessAccount"], &made["isSandbox"]),
        (&Value::Null, &json!(true)),
        "{made}"
    );
    let key = async |wa: &str| {
        let made = expect_status(
            &chat,
            "POST",
            "api-keys/",
            json!({"name": wa, "role": "owner", "waId": wa}),
            201,
        )
        .await;
        made["secret"].as_str().expect("a secret").to_owned()
    };
    let (asha, ravi) = (key(USER).await, key(OTHER_USER).await);
    let (crm, desk) = (chat.webhook("crm").await, chat.webhook("desk").await);
    let writes = async |user: &str, text: &str| {
        let now = jiff::Timestamp::now().as_second().to_string();
        let message = json!({"from": user, "id": format!("wamid.{user}.{text}"), "timestamp": now, "type": "text", "text": {"body": text}});
        let value = json!({"messaging_product": "whatsapp", "messages": [message],
            "metadata": {"display_phone_number": NEW, "phone_number_id": NEW_ID},
            "contacts": [{"profile": {"name": "Somebody"}, "wa_id": user}]});
        let body = json!({"object": "whatsapp_business_account", "entry": [{"id": "9999", "changes": [{"field": "messages", "value": value}]}]});
        assert_eq!(chat.node.post_webhook(&body.to_string()).await.status, 200);
    };
    writes(OTHER_USER, "before").await;
    let subscribe = async |key: &str, webhook: &str| {
        let body = json!({"number": NEW, "whatsappPhoneNumberId": NEW_ID, "webhook": webhook, "applyToExisting": true});
        chat.ask_as(key, "POST", &format!("phone-numbers/{NEW}/subscribe/"), body).await
    };
    let (status, shown) = subscribe(&asha, &crm).await;
    assert_eq!(status, 200, "{shown}");
    assert_eq!(
        (&shown["isSandbox"], &shown["whatsappBusinessAccount"], &shown["defaultWebhook"]),
        (&json!(true), &Value::Null, &json!(crm))
    );
    let (status, refused) = subscribe(API_KEY, &crm).await;
    assert_eq!(
        (status, &refused["error"]["code"]),
        (409, &json!("no_user")),
        "whose would it be: {refused}"
    );
    writes(USER, "mine").await;
    writes(OTHER_USER, "theirs").await;
    chat.message_at("/hook", "mine").await;
    // The other user's conversation and the number's default are unchanged.
    let theirs = chat.conversation(OTHER_USER).await;
    assert_eq!(
        (&theirs["routing"], &theirs["webhook"]),
        (&json!("none"), &Value::Null),
        "{theirs}"
    );
    let number = chat.get(&format!("phone-numbers/{NEW}/")).await;
    assert_eq!(
        (&number["defaultRouting"], &number["defaultWebhook"]),
        (&json!("none"), &Value::Null),
        "{number}"
    );
    // Each person has a separate subscription.
    assert_eq!(subscribe(&ravi, &desk).await.0, 200);
    writes(USER, "mine again").await;
    writes(OTHER_USER, "theirs now").await;
    chat.message_at("/desk", "theirs now").await;
    chat.message_at("/hook", "mine again").await;
    let at = |path: &'static str| {
        let seen = chat.app.requests();
        let texts = seen
            .iter()
            .filter(move |seen| seen.path == path)
            .map(|seen| seen.json()["data"]["message"]["text"].clone());
        texts.filter(|text| text.is_string()).collect::<Vec<_>>()
    };
    assert_eq!(
        (at("/hook"), at("/desk")),
        (vec![json!("mine"), json!("mine again")], vec![json!("theirs now")])
    );
    // An ordinary number is not a sandbox.
    let usual = chat.get(&format!("phone-numbers/{NUMBER}/")).await;
    assert_eq!(
        (&usual["isSandbox"], &usual["whatsappPhoneNumberId"]),
        (&json!(false), &json!(PHONE_NUMBER_ID))
    );
}

/// A page that does not list the number's agent among its choices would disconnect it when it is saved.
#[tokio::test(flavor = "multi_thread")]
async fn a_number_keeps_an_agent_that_answers_no_messages_any_more_when_its_page_is_saved() {
    let people = |app: &App| crm(app) + &user("asha", AUTH_ID, "owner");
    let chat = Chat::start_with(people, |_| {}).await;
    let body = json!({"name": "Desk", "kind": "http", "endpoint": NOWHERE});
    let agent = expect_status(&chat, "POST", "agents/", body, 201).await;
    let id = agent["id"].as_str().unwrap();
    let connect = format!("phone-numbers/{NUMBER}/connect-agent/");
    expect_status(&chat, "POST", &connect, json!({"agent": id}), 200).await;
    let calls_only = json!({"channels": ["voice"]});
    expect_status(&chat, "PATCH", &format!("agents/{id}/"), calls_only, 200).await;
    let asha = Session::at(&chat.node.public, "asha").await;
    let page = asha.get(&format!("/console/numbers/{NUMBER}/")).await.text();
    assert!(page.contains(&format!("value=\"{id}\" selected>Desk</option>")), "{page}");
    let dialog = asha.get(&format!("/console/numbers/{NUMBER}/agent/")).await.text();
    assert!(dialog.contains(&format!("value=\"{id}\" checked")), "{dialog}");
}
