//! Accounts of one node, over HTTP: what belongs to one looks unknown to the others, and what a
//! removed subaccount leaves.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::number_agents::{NOWHERE, WABA, expect_status};
use crate::support::chat::{Chat, USER, crm};
use crate::support::http;
use crate::support::node::{AUTH_ID, AUTH_TOKEN, NUMBER};
/// Replaces the fields of a response that differ every time.
fn without_variable_fields((status, mut body): (u16, Value)) -> (u16, Value) {
    if let Some(error) = body.get_mut("error").and_then(Value::as_object_mut) {
        error.remove("requestId");
    }
    (status, body)
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_30_ids_of_other_accounts_look_unknown() {
    let chat = Chat::start_with(
        |app| {
            let other =
                "[[account]]\nauth_id = \"MAOTHEROFFHOOK000001\"\nauth_token = \"test-token-of-an-account\"\napi_keys = [\"test-key-of-other-account\"]\n";
            format!("{}{other}", crm(app))
        },
        |_| {},
    )
    .await;
    assert_eq!(chat.subscribe(None, false).await.0, 200);
    chat.send_text(USER, "Hello?").await;
    let crm = chat.webhook("crm").await;
    let delivered = chat.delivery(&crm, "delivered").await;
    chat.sim
        .place_call(sim::CallScript { from: USER.to_owned(), ..Default::default() })
        .all()
        .await;
    let uuid = chat
        .app
        .wait_where("/answer", |seen| seen.param("Event") == "Hangup")
        .await
        .param("CallUUID")
        .to_owned();
    chat.node.record(&uuid).await;
    let user =
        expect_status(&chat, "POST", "users/", json!({"name": "asha", "role": "agent"}), 201).await;
    let key =
        expect_status(&chat, "POST", "api-keys/", json!({"name": "k", "role": "agent"}), 201).await;
    let (label, reply) =
        (json!({"name": "Refund", "colour": "red"}), json!({"shortcut": "hi", "text": "Hi"}));
    let label = expect_status(&chat, "POST", "labels/", label, 201).await;
    let reply = expect_status(&chat, "POST", "canned-replies/", reply, 201).await;
    let notes = format!("conversations/{}/notes/", chat.id_of(USER).await);
    let note = expect_status(&chat, "POST", &notes, json!({"text": "private"}), 201).await;
    let text = |value: &Value| value.as_str().expect("an id").to_owned();
    let never = "00000000-0000-4000-8000-000000000099";
    let theirs = [
        ("agent_id", chat.agent(NOWHERE).await, never),
        ("key_id", text(&key["id"]), never),
        ("call_uuid", uuid, never),
        ("conversation_id", chat.id_of(USER).await, never),
        ("user_id", text(&user["id"]), never),
        ("webhook_id", crm, never),
        ("event_id", text(&delivered["id"]), never),
        ("label_id", text(&label["id"]), never),
        ("reply_id", text(&reply["id"]), never),
        ("note_id", text(&note["id"]), never),
        ("notification_id", never.to_owned(), never),
        ("number", NUMBER.to_owned(), "918035730000"),
        ("waba_id", WABA.to_owned(), "77"),
        // The node id is hidden if several accounts share the node.
        ("node_id", "this-node".to_owned(), "elsewhere"),
        ("wa_id", USER.to_owned(), USER),
        // The models of the node are hidden, too.
        ("name", "smart-turn".to_owned(), "nothing"),
    ];
    let document = http::get(&format!("{}/openapi.json", chat.node.public)).await.json();
    let mut seen = 0;
    for (path, item) in document["paths"].as_object().expect("paths") {
        let Some(rest) = path.strip_prefix("/api/v1/").filter(|rest| rest.contains('{')) else {
            continue;
        };
        let filled = |known: bool| {
            theirs.iter().fold(rest.to_owned(), |path, (name, id, never)| {
                path.replace(&format!("{{{name}}}"), if known { id } else { never })
            })
        };
        assert!(!filled(true).contains('{'), "{path}: a name of this kind is new here");
        for method in ["GET", "POST", "PATCH", "DELETE"] {
            if item.get(method.to_lowercase()).is_none() {
                continue;
            }
            let body = if method == "GET" { Value::Null } else { json!({}) };
            let known = without_variable_fields(
                chat.ask_as("test-key-of-other-account", method, &filled(true), body.clone()).await,
            );
            let unknown = without_variable_fields(
                chat.ask_as("test-key-of-other-account", method, &filled(false), body).await,
            );
            assert!(known.0 >= 400, "{method} {path}: {known:?}");
            assert_eq!(known, unknown, "{method} {path}");
            seen += 1;
        }
    }
    assert!(seen > 25, "{seen}");
    for list in [
        "conversations/",
        "calls/",
        "webhooks/",
        "agents/",
        "phone-numbers/",
        "notifications/",
        "users/",
        "api-keys/",
        "labels/",
        "canned-replies/",
    ] {
        let (status, listed) =
            chat.ask_as("test-key-of-other-account", "GET", list, Value::Null).await;
        let none = listed["items"].as_array().is_some_and(Vec::is_empty);
        assert!(status == 200 && none, "{list}: {listed}");
    }
    // Nothing has changed.
    assert_eq!(chat.conversation(USER).await["status"], "open");
    assert_eq!(chat.get("users/").await["items"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn s0_20_s0_23_a_removed_subaccounts_number_belongs_to_the_main_account() {
    let chat = Chat::start().await;
    let own = format!("Basic {}", STANDARD.encode(format!("{AUTH_ID}:{AUTH_TOKEN}")));
    let plivo = async |method: &str, path: &str, body: Value| {
        let url = format!("{}/v1/Account/{AUTH_ID}/{path}", chat.node.public);
        let headers = [("authorization", own.as_str()), ("content-type", "application/json")];
        http::send(method, &url, &headers, body.to_string()).await
    };
    let made = plivo("POST", "Subaccount/", json!({"name": "Night"})).await.json();
    let sub = made["auth_id"].as_str().unwrap().to_owned();
    assert_eq!(
        plivo("POST", &format!("Number/{NUMBER}/"), json!({ "subaccount": sub })).await.status,
        202
    );
    let url = json!({"webhookUrl": chat.app.url("/form")});
    expect_status(&chat, "PATCH", &format!("phone-numbers/{NUMBER}/"), url, 200).await;
    chat.send_text(USER, "to the subaccount").await;
    let at = |text: &'static str| {
        chat.app.wait_where("/form", move |seen| seen.params.values().any(|v| v == text))
    };
    at("to the subaccount").await;
    assert_eq!(plivo("DELETE", &format!("Subaccount/{sub}/"), json!({})).await.status, 204);
    chat.send_text(USER, "to the main account").await;
    at("to the main account").await;
    let page = chat.get("conversations/").await;
    let last: Vec<_> =
        page["items"].as_array().unwrap().iter().map(|c| &c["lastMessage"]["text"]).collect();
    assert!(last.contains(&&json!("to the main account")), "{page}");
}
