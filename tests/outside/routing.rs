//! Routing of users' messages over HTTP, against the real binary.

use serde_json::{Value, json};

use crate::support::chat::{Chat, USER};
use crate::support::node::{API_KEY, AUTH_ID, NUMBER, PHONE_NUMBER_ID};

const AGENT: &str = "3f0c2f1a-6a1e-4f0e-9a2b-5d7f3f0a9b11";
const OTHER_USER: &str = "919412340001";

fn good() -> Value {
    json!({"number": NUMBER, "whatsappPhoneNumberId": PHONE_NUMBER_ID})
}

fn path() -> String {
    format!("phone-numbers/{NUMBER}/subscribe/")
}

/// Returns the number's routing, through a request that does not change it.
async fn routing(chat: &Chat) -> Value {
    let (_, shown) = chat
        .ask("POST", &path(), json!({"number": NUMBER, "whatsappPhoneNumberId": PHONE_NUMBER_ID}))
        .await;
    shown
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_01_s4_02_s4_03_s4_05_s4_20_path_key_fields_and_response() {
    let chat = Chat::start().await;
    for path in [
        path(),
        format!("phone-numbers/{NUMBER}/subscribe"),
        format!("phone-numbers/%2B{NUMBER}/subscribe/"),
    ] {
        let (status, body) = chat.ask("POST", &path, good()).await;
        assert_eq!(status, 200, "{path}: {body}");
    }
    for key in ["", "wrong"] {
        assert_eq!(chat.ask_as(key, "POST", &path(), good()).await.0, 401);
    }
    let (_, shown) = chat.ask("POST", &path(), good()).await;
    let mut names: Vec<&str> = shown.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    let eight = [
        "activeAgent",
        "defaultRouting",
        "defaultWebhook",
        "id",
        "isSandbox",
        "number",
        "whatsappBusinessAccount",
        "whatsappPhoneNumberId",
    ];
    assert_eq!(names, eight);
    assert_eq!(
        shown["id"],
        chat.get(&format!("phone-numbers/{NUMBER}/")).await["id"],
        "the number's own"
    );
    assert_eq!(
        (&shown["whatsappBusinessAccount"], &shown["isSandbox"]),
        (&json!("1029384756"), &json!(false))
    );
    // Read-only fields in a request are ignored.
    let mut more = good();
    more["isSandbox"] = json!(true);
    more["activeAgent"] = json!(AGENT);
    more["defaultRouting"] = json!("agent");
    assert_eq!(chat.ask("POST", &path(), more).await, (200, shown));
    let wrong = [
        (json!({"whatsappPhoneNumberId": PHONE_NUMBER_ID}), "number"),
        (json!({"number": NUMBER}), "whatsappPhoneNumberId"),
        (json!({"number": "9180357374580000", "whatsappPhoneNumberId": PHONE_NUMBER_ID}), "number"),
        (json!({"number": 7, "whatsappPhoneNumberId": PHONE_NUMBER_ID}), "number"),
        (
            json!({"number": NUMBER, "whatsappPhoneNumberId": PHONE_NUMBER_ID, "applyToExisting": "yes"}),
            "applyToExisting",
        ),
    ];
    for (body, field) in wrong {
        let (status, answer) = chat.ask("POST", &path(), body.clone()).await;
        assert_eq!((status, &answer["error"]["field"]), (400, &json!(field)), "{body}: {answer}");
        assert!(answer["error"]["message"].as_str().is_some_and(|why| !why.is_empty()), "{answer}");
        assert!(
            answer["error"]["requestId"].is_string() && answer["error"]["code"].is_string(),
            "{answer}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_04_s4_06_s4_07_s4_08_webhook_and_agent_replace_each_other() {
    let chat = Chat::with_two().await;
    let (crm, desk) = (chat.webhook("crm").await, chat.webhook("desk").await);
    let connect = format!("phone-numbers/{NUMBER}/connect-agent/");
    let agent = chat.agent("http://127.0.0.1:9009/").await;
    let (status, shown) = chat.ask("POST", &connect, json!({ "agent": agent })).await;
    assert_eq!(status, 200, "{shown}");
    assert_eq!(
        (&shown["defaultRouting"], &shown["activeAgent"], &shown["defaultWebhook"]),
        (&json!("agent"), &json!(agent), &Value::Null)
    );
    chat.send_text(USER, "to the agent").await;
    let shown = chat.conversation(USER).await;
    assert_eq!((&shown["routing"], &shown["activeAgent"]), (&json!("agent"), &json!(agent)));
    // With two webhooks the request must name one.
    let (status, refused) = chat.subscribe(None, false).await;
    assert_eq!((status, &refused["error"]["field"]), (400, &json!("webhook")));
    let (status, shown) = chat.subscribe(Some(&desk), false).await;
    assert_eq!(status, 200, "{shown}");
    assert_eq!(
        (&shown["defaultRouting"], &shown["activeAgent"], &shown["defaultWebhook"]),
        (&json!("webhook"), &Value::Null, &json!(desk))
    );
    chat.send_text(OTHER_USER, "to the desk").await;
    let event = chat.message_at("/desk", "to the desk").await;
    assert_eq!((&event["account"], &event["number"]), (&json!(AUTH_ID), &json!(NUMBER)));
    assert_eq!(chat.conversation(OTHER_USER).await["webhook"], json!(desk));
    assert_ne!(crm, desk);
    let disconnect = format!("phone-numbers/{NUMBER}/disconnect-agent/");
    let (status, shown) = chat.ask("POST", &disconnect, json!({})).await;
    assert_eq!((status, &shown["defaultRouting"]), (200, &json!("none")));
}

/// Without it, messages would go nowhere although the number has a URL for them.
#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_url_that_is_set_gets_the_messages_after_the_agent_has_left() {
    let chat = Chat::start().await;
    let number = format!("phone-numbers/{NUMBER}/");
    let url = |name: &str| json!({"webhookUrl": chat.app.url(name)});
    let (status, shown) = chat.ask("PATCH", &number, url("/own")).await;
    assert_eq!((status, &shown["configurationType"]), (200, &json!("webhook")), "{shown}");
    let (status, shown) = chat.ask("POST", &format!("{number}disconnect-agent/"), json!({})).await;
    assert_eq!((status, &shown["defaultRouting"]), (200, &json!("none")));
    // Other changes leave it so.
    let (_, shown) = chat.ask("PATCH", &number, json!({"alias": "Shop"})).await;
    assert_eq!(shown["defaultRouting"], "none", "{shown}");
    let (_, shown) = chat.ask("PATCH", &number, url("/other")).await;
    assert_eq!(
        (&shown["defaultRouting"], &shown["defaultWebhook"]),
        (&json!("webhook"), &Value::Null)
    );
    chat.app.xml("/other", "");
    chat.send_text(USER, "hello").await;
    assert_eq!(chat.app.wait("/other").await.param("Body"), "hello");
    let (status, refused) = chat.ask("PATCH", &number, json!({"webhookUrl": null})).await;
    let message = refused["error"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(status == 400 && message.contains("set configurationType to agent"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_09_apply_to_existing_changes_all_conversations() {
    let mut chat = Chat::start().await;
    let connect = format!("phone-numbers/{NUMBER}/connect-agent/");
    let agent = chat.agent("http://127.0.0.1:9009/").await;
    assert_eq!(chat.ask("POST", &connect, json!({ "agent": agent })).await.0, 200);
    let users: Vec<String> = (0..3).map(|n| format!("91941234000{n}")).collect();
    for user in &users {
        chat.send_text(user, "before").await;
        assert_eq!(chat.conversation(user).await["routing"], "agent");
    }
    assert_eq!(chat.subscribe(None, true).await.0, 200);
    let crm = chat.webhook("crm").await;
    for user in &users {
        let shown = chat.conversation(user).await;
        assert_eq!(
            (&shown["routing"], &shown["activeAgent"], &shown["webhook"]),
            (&json!("webhook"), &Value::Null, &json!(crm))
        );
        chat.send_text(user, "after").await;
        let of = |data: &Value| {
            data["user"]["waId"] == user.as_str() && data["message"]["text"] == "after"
        };
        chat.event("/hook", "message.received", of).await;
    }
    // It persists across a crash.
    chat.node.kill();
    chat.node.start_again().await;
    chat.send_text(&users[0], "later").await;
    chat.message_at("/hook", "later").await;
    chat.send_text("919412349999", "a new one").await;
    chat.message_at("/hook", "a new one").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_10_s4_11_existing_conversations_are_unchanged_and_no_events_are_sent() {
    let chat = Chat::with_two().await;
    let (crm, desk) = (chat.webhook("crm").await, chat.webhook("desk").await);
    assert_eq!(chat.subscribe(Some(&crm), false).await.0, 200);
    chat.send_text(USER, "one").await;
    assert_eq!(chat.subscribe(Some(&desk), false).await.0, 200);
    chat.send_text(USER, "two").await;
    chat.send_text(OTHER_USER, "three").await;
    chat.message_at("/hook", "two").await;
    chat.message_at("/desk", "three").await;
    assert_eq!(chat.conversation(USER).await["webhook"], json!(crm));
    assert_eq!(chat.subscribe(Some(&desk), true).await.0, 200);
    chat.send_text(USER, "four").await;
    chat.message_at("/desk", "four").await;
    for at in ["/hook", "/desk"] {
        assert!(
            chat.types_at(at).iter().all(|kind| !kind.starts_with("subscription.")),
            "{:?}",
            chat.types_at(at)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_12_a_single_conversation_is_subscribed_and_its_webhooks_are_notified() {
    let chat = Chat::with_two().await;
    let (crm, desk) = (chat.webhook("crm").await, chat.webhook("desk").await);
    assert_eq!(chat.subscribe(Some(&crm), false).await.0, 200);
    chat.send_text(USER, "one").await;
    chat.send_text(OTHER_USER, "one").await;
    let id = chat.id_of(USER).await;
    let (status, shown) =
        chat.ask("POST", &format!("conversations/{id}/subscribe/"), json!({"webhook": desk})).await;
    assert_eq!((status, &shown["webhook"]), (200, &json!(desk)), "{shown}");
    let mine = |data: &Value| data["conversation"] == id.as_str();
    chat.event("/desk", "subscription.activated", mine).await;
    chat.event("/hook", "subscription.revoked", mine).await;
    chat.send_text(USER, "two").await;
    chat.message_at("/desk", "two").await;
    assert_eq!(chat.conversation(OTHER_USER).await["webhook"], json!(crm), "the others stay");
    let unsubscribe = format!("conversations/{id}/unsubscribe/");
    let (status, shown) = chat.ask("POST", &unsubscribe, json!({})).await;
    assert_eq!((status, &shown["webhook"]), (200, &json!(crm)), "where its number's go: {shown}");
    chat.event("/desk", "subscription.revoked", mine).await;
    let (status, shown) = chat.ask("POST", &unsubscribe, json!({})).await;
    assert_eq!((status, &shown["routing"]), (200, &json!("none")), "{shown}");
    let (status, refused) = chat.ask("POST", &unsubscribe, json!({})).await;
    assert_eq!((status, &refused["error"]["code"]), (409, &json!("wrong_state")), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_13_s4_14_webhooks_are_created_in_the_console_and_an_unknown_one_changes_nothing() {
    let chat = Chat::start_with(
        |app| {
            let other =
                "[[account]]\nauth_id = \"MAOTHEROFFHOOK000001\"\nauth_token = \"test-token-of-an-account\"\napi_keys = [\"test-key-of-other-account\"]\n";
            let foreign =
                crate::support::chat::webhook(app, "foreign", "/desk", crate::support::chat::OTHER_SECRET).replace(AUTH_ID, "MAOTHEROFFHOOK000001");
            format!("{}{other}{foreign}", crate::support::chat::crm(app))
        },
        |_| {},
    )
    .await;
    for method in ["POST", "PATCH", "DELETE"] {
        let (status, _) =
            chat.ask(method, "webhooks/", json!({"name": "x", "url": "https://example.com"})).await;
        assert_eq!(status, 405, "{method}");
    }
    let all = chat.get("webhooks/").await;
    assert_eq!(all["items"].as_array().unwrap().len(), 1, "nobody else's: {all}");
    assert!(!all.to_string().contains(crate::support::chat::SECRET), "{all}");
    assert_eq!(chat.subscribe(None, false).await.0, 200);
    let before = routing(&chat).await;
    let (status, others) =
        chat.ask_as("test-key-of-other-account", "GET", "webhooks/", Value::Null).await;
    assert_eq!(status, 200);
    let foreign = others["items"][0]["id"].as_str().unwrap().to_owned();
    for webhook in [foreign.as_str(), AGENT, "no-id"] {
        let (status, refused) = chat.subscribe(Some(webhook), true).await;
        assert_eq!(
            (status, &refused["error"]["field"]),
            (400, &json!("webhook")),
            "{webhook}: {refused}"
        );
        let (status, _) =
            chat.ask("GET", &format!("webhooks/{webhook}/deliveries/"), Value::Null).await;
        assert_eq!(status, 404, "{webhook}");
    }
    assert_eq!(routing(&chat).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_17_s4_18_path_body_and_meta_id_must_name_one_number_of_the_account() {
    let chat = Chat::start_with(
        |app| {
            let other =
                "[[account]]\nauth_id = \"MAOTHEROFFHOOK000001\"\nauth_token = \"test-token-of-an-account\"\napi_keys = [\"test-key-of-other-account\"]\n";
            format!("{}{other}", crate::support::chat::crm(app))
        },
        |_| {},
    )
    .await;
    for (body, field) in [
        (json!({"number": "918035737459", "whatsappPhoneNumberId": PHONE_NUMBER_ID}), "number"),
        (json!({"number": NUMBER, "whatsappPhoneNumberId": "1"}), "whatsappPhoneNumberId"),
    ] {
        let (status, refused) = chat.ask("POST", &path(), body).await;
        assert_eq!((status, &refused["error"]["field"]), (400, &json!(field)), "{refused}");
    }
    let unknown = chat.ask("POST", "phone-numbers/918035730000/subscribe/", good()).await;
    let foreign = chat.ask_as("test-key-of-other-account", "POST", &path(), good()).await;
    let but_the_id = |mut answer: (u16, Value)| {
        answer.1["error"]["requestId"] = Value::Null;
        answer
    };
    let (unknown, foreign) = (but_the_id(unknown), but_the_id(foreign));
    assert_eq!(unknown.0, 404);
    assert_eq!(unknown, foreign);
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_19_repeating_is_idempotent_and_one_of_two_concurrent_requests_wins() {
    let chat = Chat::start().await;
    let crm = chat.webhook("crm").await;
    let first = chat.subscribe(None, true).await;
    assert_eq!(first.0, 200);
    assert_eq!(chat.subscribe(None, true).await, first);
    let connect = format!("phone-numbers/{NUMBER}/connect-agent/");
    let id = chat.agent("http://127.0.0.1:9009/").await;
    for round in 0..10 {
        let user = format!("9194123450{round:02}");
        chat.send_text(&user, "hello").await;
        let both = tokio::join!(
            chat.subscribe(None, true),
            chat.ask("POST", &connect, json!({"agent": id, "applyToExisting": true})),
        );
        assert_eq!((both.0.0, both.1.0), (200, 200));
        let shown = chat.conversation(&user).await;
        let webhook = (json!("webhook"), json!(crm), Value::Null);
        let agent = (json!("agent"), Value::Null, json!(id));
        let now =
            (shown["routing"].clone(), shown["webhook"].clone(), shown["activeAgent"].clone());
        assert!(now == webhook || now == agent, "{now:?}");
        // The number and its conversations agree.
        let new = format!("9194123460{round:02}");
        chat.send_text(&new, "hello").await;
        assert_eq!(chat.conversation(&new).await["routing"], now.0);
    }
    let listed = chat
        .ask_as(
            API_KEY,
            "GET",
            "conversations/?agent=3f0c2f1a-6a1e-4f0e-9a2b-5d7f3f0a9b11",
            Value::Null,
        )
        .await;
    assert_eq!(listed.0, 200);
}
