//! Messages in both directions, conversations and timelines, webhooks and deliveries, over HTTP
//! against the real binary and the simulated Meta.

use aws_lc_rs::hmac;
use base64::Engine as _;
use serde_json::{Value, json};
use sim::{CallEventKind, CallScript};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::chat::{Chat, SECRET, USER, crm};
use crate::support::database::skipped_on_postgres;
use crate::support::http;
use crate::support::node::{API_KEY, AUTH_ID, NUMBER, VERIFY_TOKEN};

fn v1(signature: &str) -> (i64, Vec<String>) {
    let parts: Vec<&str> = signature.split(',').collect();
    let at = parts[0].strip_prefix("t=").expect("a time").parse().expect("a number");
    (at, parts[1..].iter().map(|part| part.strip_prefix("v1=").expect("v1").to_owned()).collect())
}

fn signed(secret: &str, at: i64, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    hex::encode(hmac::sign(&key, format!("{at}.{body}").as_bytes()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_sent_although_its_client_has_gone() {
    if skipped_on_postgres() {
        return;
    }
    let chat = Chat::start().await;
    chat.send_text(USER, "Hello").await;
    let id = chat.id_of(USER).await;
    let clock = model::Clock::real();
    let other = rusqlite::Connection::open(chat.node.dir.path().join("offhook.db")).unwrap();
    other.busy_timeout(std::time::Duration::from_secs(20)).unwrap();
    let host = chat.node.public.strip_prefix("http://").unwrap();
    let body = json!({"type": "text", "text": "At nine."}).to_string();
    let request = format!(
        "POST /api/v1/conversations/{id}/messages/ HTTP/1.1\r\nhost: {host}\r\nx-api-key: {API_KEY}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\nexpect: 100-continue\r\n\r\n",
        body.len()
    );
    loop {
        // The message waits for the store while the client goes.
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let locked = clock.now();
        #[allow(clippy::disallowed_methods, reason = "a test's own client")]
        let mut client = tokio::net::TcpStream::connect(host).await.unwrap();
        client.write_all(request.as_bytes()).await.unwrap();
        // The node asks for the body when it begins the work.
        let mut goes_on = [0; 25];
        client.read_exact(&mut goes_on).await.unwrap();
        assert_eq!(&goes_on, b"HTTP/1.1 100 Continue\r\n\r\n");
        client.write_all(body.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        other.execute_batch("ROLLBACK").unwrap();
        // On a busy machine, the node may have given up: SQLite's busy timeout is five seconds.
        if clock.now() - locked < std::time::Duration::from_secs(4) {
            assert_eq!(answer, "", "the connection was closed before the answer");
            break;
        }
    }
    let is_sent = |item: &Value| item["text"] == "At nine." && item["status"] == "read";
    chat.until(&id, |items| items.iter().any(is_sent)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r04_messages_are_delivered_once_signed_in_order_and_across_a_crash() {
    let mut chat = Chat::start().await;
    assert_eq!(chat.subscribe(None, false).await.0, 200);
    let wamid = chat.send_text(USER, "first").await;
    assert_eq!(
        chat.send_message_as(USER, &wamid, json!({"type": "text", "text": {"body": "first"}}))
            .await,
        200,
        "a copy"
    );
    let (seen, event) =
        chat.event("/hook", "message.received", |data| data["message"]["text"] == "first").await;
    assert_eq!(seen.headers["x-offhook-event-id"].to_str().unwrap(), event["id"].as_str().unwrap());
    assert_eq!(seen.headers["x-offhook-attempt"], "1");
    let (at, signatures) = v1(seen.headers["x-offhook-signature"].to_str().unwrap());
    assert_eq!(signatures, [signed(SECRET, at, &seen.body)]);
    assert_eq!((&event["account"], &event["number"]), (&json!(AUTH_ID), &json!(NUMBER)));
    let data = &event["data"];
    assert_eq!(
        (&data["message"]["wamid"], &data["user"]["name"]),
        (&json!(wamid), &json!("Asha Verma"))
    );
    assert_eq!(data["conversation"], json!(chat.id_of(USER).await));
    // The customer's server is down: events wait in order, also across a crash.
    chat.app.route("/hook", |_| (503, String::new()));
    for text in ["second", "third", "fourth"] {
        chat.send_text(USER, text).await;
    }
    chat.event("/hook", "message.received", |data| data["message"]["text"] == "second").await;
    chat.node.kill();
    chat.app.route("/hook", |_| (200, String::new()));
    chat.node.start_again().await;
    chat.message_at("/hook", "fourth").await;
    let mut order: Vec<String> = Vec::new();
    for seen in chat.app.requests().iter().filter(|seen| seen.path == "/hook") {
        // Events of the number don't belong to a conversation.
        let Some(text) = seen.json()["data"]["message"]["text"].as_str().map(str::to_owned) else {
            continue;
        };
        if order.last() != Some(&text) {
            order.push(text);
        }
    }
    assert_eq!(order, ["first", "second", "third", "fourth"]);
    let timeline = chat.until(&chat.id_of(USER).await, |items| items.len() == 4).await;
    let texts: Vec<&Value> = timeline.iter().map(|item| &item["text"]).collect();
    assert_eq!(texts, ["first", "second", "third", "fourth"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn r04_deliveries_are_listed_and_redelivered_and_a_dead_webhook_delays_no_other() {
    let chat = Chat::with_two().await;
    let (crm, desk) = (chat.webhook("crm").await, chat.webhook("desk").await);
    chat.app.route("/hook", |_| (404, String::new()));
    assert_eq!(chat.subscribe(Some(&crm), false).await.0, 200);
    chat.send_text(USER, "refused").await;
    let list = format!("webhooks/{crm}/deliveries/");
    let failed = chat.delivery(&crm, "failed").await;
    assert_eq!(
        (&failed["type"], &failed["attempts"]),
        (&json!("message.received"), &json!(1)),
        "{failed}"
    );
    assert!(failed["last"].as_str().unwrap().contains("404"), "{failed}");
    assert_eq!(chat.subscribe(Some(&desk), false).await.0, 200);
    chat.send_text("919412340001", "elsewhere").await;
    chat.message_at("/desk", "elsewhere").await;
    chat.app.route("/hook", |_| (200, String::new()));
    let id = failed["id"].as_str().unwrap();
    let (status, again) = chat.ask("POST", &format!("{list}{id}/redeliver/"), Value::Null).await;
    assert_eq!((status, &again["id"]), (202, &json!(id)), "{again}");
    let (_, event) =
        chat.event("/hook", "message.received", |data| data["message"]["text"] == "refused").await;
    assert_eq!(event["id"], json!(id), "the same event");
    assert_eq!(chat.delivery(&crm, "delivered").await["attempts"], 2);
    let (status, _) =
        chat.ask("POST", &format!("webhooks/{desk}/deliveries/{id}/redeliver/"), Value::Null).await;
    assert_eq!(status, 404, "another webhook's");
}

#[tokio::test(flavor = "multi_thread")]
async fn s0_11_deliveries_to_a_numbers_own_url_are_listed_and_redelivered_to_its_current_url() {
    let own_url = |node_config: &mut crate::support::node::NodeConfig| {
        node_config.number_extra =
            format!("webhook_url = \"{}\"\n", node_config.answer_url.replace("/answer", "/form"));
    };
    let chat = Chat::start_with(crm, own_url).await;
    chat.app.route("/form", |_| (404, String::new()));
    chat.send_text(USER, "refused").await;
    let (of_number, log) =
        (format!("phone-numbers/{NUMBER}/"), format!("phone-numbers/{NUMBER}/deliveries/"));
    let failed = chat.delivery_of(&of_number, "failed").await;
    assert_eq!(
        (&failed["type"], &failed["attempts"]),
        (&json!("message.received"), &json!(1)),
        "{failed}"
    );
    assert!(failed["last"].as_str().unwrap().contains("404"), "{failed}");
    let notice = chat.until_item("notifications/", |notice| notice["type"] == "delivery").await;
    assert_eq!(notice["number"], json!(NUMBER), "{notice}");
    // The URL is corrected before the event is sent again.
    chat.app.route("/corrected", |_| (200, String::new()));
    let corrected = json!({"webhookUrl": chat.app.url("/corrected")});
    let (status, changed) = chat.ask("PATCH", &format!("phone-numbers/{NUMBER}/"), corrected).await;
    assert_eq!(status, 200, "{changed}");
    let id = failed["id"].as_str().unwrap();
    let (status, again) = chat.ask("POST", &format!("{log}{id}/redeliver/"), Value::Null).await;
    assert_eq!((status, &again["id"]), (202, &json!(id)), "{again}");
    let seen = chat.app.wait_where("/corrected", |seen| seen.param("Body") == "refused").await;
    assert_eq!(seen.headers["x-offhook-event-id"], id, "the same event");
    assert_eq!(chat.delivery_of(&of_number, "delivered").await["attempts"], 2);
    let other = format!("phone-numbers/15550009999/deliveries/{id}/redeliver/");
    assert_eq!(chat.ask("POST", &other, Value::Null).await.0, 404, "another number's");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_simulated_meta_can_be_told_which_node_gets_its_webhooks() {
    let chat = Chat::start().await;
    assert_eq!(chat.subscribe(None, false).await.0, 200);
    chat.sim.set_node_url("http://127.0.0.1:9");
    let app = json!({"node": format!("{}/", chat.node.public)}).to_string();
    let answer = http::send("POST", &format!("{}/_sim/app", chat.sim.url()), &[], app).await;
    assert!(answer.status < 300, "{}", answer.text());
    chat.send_text(USER, "moved").await;
    chat.message_at("/hook", "moved").await;
    // With the verify token of another node, none arrive.
    for (token, status) in [("another-verify-token", 400), (VERIFY_TOKEN, 200)] {
        let app = json!({"verify_token": token}).to_string();
        let url = format!("{}/_sim/app", chat.sim.url());
        assert_eq!(http::send("POST", &url, &[], app).await.status, 204);
        let order = json!({"message": "verified", "from": USER}).to_string();
        let url = format!("{}/_sim/messages", chat.sim.url());
        let sent = http::send("POST", &url, &[], order).await;
        assert_eq!(sent.status, status, "{}", sent.text());
    }
    chat.message_at("/hook", "verified").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_message_reaches_the_webhook_and_the_plivo_form() {
    let app_form = |node_config: &mut crate::support::node::NodeConfig| {
        node_config.number_extra =
            format!("webhook_url = \"{}\"\n", node_config.answer_url.replace("/answer", "/form"));
    };
    let chat = Chat::start_with(crm, app_form).await;
    assert_eq!(chat.subscribe(None, false).await.0, 200);
    // The message, the content type of the form, and its parameters.
    type Row<'a> = (Value, &'a str, &'a [(&'a str, &'a str)]);
    let rows: Vec<Row<'_>> = vec![
        (
            json!({"type": "text", "text": {"body": "Hi"}}),
            "text",
            &[("Body", "Hi"), ("From", USER), ("To", NUMBER)],
        ),
        (
            json!({"type": "button", "button": {"payload": "YES", "text": "Yes"}, "context": {"from": NUMBER, "id": "wamid.out"}}),
            "button",
            &[
                ("ButtonText", "Yes"),
                ("ButtonPayload", "YES"),
                ("ContextWhatsappMessageID", "wamid.out"),
            ],
        ),
        (
            json!({"type": "interactive", "interactive": {"type": "list_reply", "list_reply": {"id": "r1", "title": "Row", "description": "First"}}}),
            "button",
            &[("ListTitle", "Row"), ("ListDescription", "First")],
        ),
        (
            json!({"type": "location", "location": {"latitude": 12.5, "longitude": 77.25, "name": "Office"}}),
            "location",
            &[("Latitude", "12.5"), ("Longitude", "77.25"), ("LocationName", "Office")],
        ),
        (
            json!({"type": "contacts", "contacts": [{"name": {"formatted_name": "Ravi"}}]}),
            "contact",
            &[],
        ),
        (
            json!({"type": "reaction", "reaction": {"message_id": "wamid.out", "emoji": "👍"}}),
            "reaction",
            &[("Reaction", "👍")],
        ),
        (
            json!({"type": "unsupported", "errors": [{"code": 131051, "title": "Unsupported"}]}),
            "unsupported",
            &[],
        ),
        (json!({"type": "hologram", "hologram": {"size": 3}}), "unsupported", &[]),
    ];
    for (message, content_type, params) in rows {
        let wamid = chat.send_message(USER, message.clone()).await;
        let seen =
            chat.app.wait_where("/form", |seen| seen.param("WhatsappMessageID") == wamid).await;
        assert_eq!(seen.param("ContentType"), content_type, "{message}");
        for (name, value) in params {
            assert_eq!(seen.param(name), *value, "{message}");
        }
        assert!(seen.headers.contains_key("x-plivo-signature-v3"), "{:?}", seen.headers);
        let (_, event) = chat
            .event("/hook", "message.received", |data| data["message"]["wamid"] == wamid.as_str())
            .await;
        assert_eq!(
            event["data"]["message"]["id"],
            json!(seen.param("MessageUUID")),
            "one id for both"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_file_is_downloaded_and_served_by_a_signed_link() {
    let chat = Chat::start().await;
    assert_eq!(chat.subscribe(None, false).await.0, 200);
    let bytes = b"not really a picture".repeat(1_000);
    let file = base64::engine::general_purpose::STANDARD.encode(&bytes);
    let order = json!({"message": {"type": "image", "image": {"mime_type": "image/png", "caption": "Look"}}, "file": file});
    let sent =
        http::send("POST", &format!("{}/_sim/messages", chat.sim.url()), &[], order.to_string())
            .await;
    assert_eq!(sent.status, 200, "{}", sent.text());
    let event = chat.message_at("/hook", "Look").await;
    let media = &event["data"]["message"]["media"];
    assert_eq!((&media["mimeType"], &media["caption"]), (&json!("image/png"), &json!("Look")));
    let url = media["url"].as_str().unwrap();
    assert!(url.starts_with(&chat.node.public), "ours: {url}");
    let got = http::get(url).await;
    assert_eq!((got.status, got.body.as_ref()), (200, bytes.as_slice()), "{}", got.text());
    assert_eq!(got.headers["content-type"], "image/png");
    assert_eq!(got.headers["x-content-type-options"], "nosniff");
    assert_eq!(
        media["sha256"],
        json!(hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes)))
    );
    let tampered = url.replace("until=1", "until=2");
    let without = url.split('?').next().unwrap();
    for wrong in [tampered.as_str(), without, &format!("{without}?until=9999999999&tag=00")] {
        assert_eq!(http::get(wrong).await.status, 404, "{wrong}");
    }
    // Deleting the conversation deletes the file.
    let id = chat.id_of(USER).await;
    assert_eq!(chat.ask("DELETE", &format!("conversations/{id}/"), Value::Null).await.0, 204);
    assert_eq!(http::get(url).await.status, 404);
    let left = std::fs::read_dir(chat.node.dir.path().join("messages")).map_or(0, Iterator::count);
    assert_eq!(left, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_conversation_is_not_quoted_in_notifications() {
    let chat = Chat::start().await;
    chat.send_text(USER, "My card has 4242").await;
    let quotes = |item: &Value| item.to_string().contains("4242");
    chat.until_item("notifications/", quotes).await;
    let id = chat.id_of(USER).await;
    assert_eq!(chat.ask("DELETE", &format!("conversations/{id}/"), Value::Null).await.0, 204);
    let (status, left) = chat.ask("GET", "notifications/", Value::Null).await;
    assert!(status == 200 && !quotes(&left), "{left}");
}

/// People are notified of messages that wait for them, not of those that an agent answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_an_agent_answers_notifies_nobody() {
    let chat = Chat::start().await;
    let server = crate::support::agent::AgentServer::start(|_| {
        let reply = json!([{"type": "text", "text": "Hello"}]);
        crate::support::agent::AgentResponse::Json(json!({"reply": reply}))
    })
    .await;
    let agent = chat.agent(&server.url).await;
    chat.connect(&agent).await;
    chat.send_text(USER, "Anybody there?").await;
    let id = chat.id_of(USER).await;
    chat.until(&id, |items| items.last().is_some_and(|item| item["text"] == "Hello")).await;
    let notified = chat.get("notifications/?type=message").await;
    assert_eq!(notified["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_sent_by_its_link_is_shown_as_that_link() {
    let chat = Chat::start().await;
    chat.send_text(USER, "Hello?").await;
    let id = chat.id_of(USER).await;
    let link = "https://cdn.example.com/menu.png";
    let body = json!({"type": "image", "image": {"link": link}});
    assert_eq!(chat.ask("POST", &format!("conversations/{id}/messages/"), body).await.0, 202);
    let timeline = chat.until(&id, |items| items.len() == 2).await;
    assert_eq!(timeline.last().unwrap()["media"]["url"], link, "{timeline:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_18_s3_19_messages_are_sent_with_statuses_and_only_within_the_window() {
    let chat = Chat::start().await;
    assert_eq!(chat.subscribe(None, false).await.0, 200);
    chat.send_text(USER, "Hello?").await;
    let id = chat.id_of(USER).await;
    let path = format!("conversations/{id}/messages/");
    let (status, sent) =
        chat.ask("POST", &path, json!({"type": "text", "text": "Good morning"})).await;
    assert_eq!((status, &sent["status"]), (202, &json!("queued")), "{sent}");
    let is = |word: &'static str| {
        move |items: &[Value]| items.last().is_some_and(|item| item["status"] == word)
    };
    let timeline = chat.until(&id, is("read")).await;
    assert_eq!(timeline.last().unwrap()["id"], sent["id"]);
    assert_eq!(timeline.last().unwrap()["direction"], "outbound");
    // Meta's webhooks arrive concurrently. A status that was overtaken is not reported, and the
    // others keep their order.
    let of =
        |data: &Value| data["message"]["status"] == "read" && data["message"]["id"] == sent["id"];
    let (_, event) = chat.event("/hook", "message.status", of).await;
    assert_eq!(event["data"]["conversation"], json!(id));
    assert_eq!(
        event["data"]["user"],
        json!({"waId": USER, "userId": null, "name": "Asha Verma"}),
        "{event}"
    );
    let statuses = || -> Vec<String> {
        let seen = chat
            .app
            .requests()
            .into_iter()
            .filter(|seen| seen.path == "/hook")
            .map(|seen| seen.json()["data"]["message"].clone());
        let of =
            seen.filter(|message| message["id"] == sent["id"] && message["status"].is_string());
        of.filter_map(|message| message["status"].as_str().map(str::to_owned)).collect()
    };
    let mut forward = statuses();
    let order = ["sent", "delivered", "read"];
    let places: Vec<_> = forward
        .iter()
        .map(|word| order.iter().position(|known| known == word).expect("a status"))
        .collect();
    assert!(places.is_sorted(), "{forward:?}");
    // A late status changes nothing and is not reported.
    let wamid = chat.until(&id, is("read")).await.last().unwrap()["wamid"]
        .as_str()
        .expect("Meta's id")
        .to_owned();
    for late in ["sent", "delivered"] {
        chat.status(&wamid, late, json!({"timestamp": "1"})).await;
    }
    assert_eq!(chat.until(&id, |items| !items.is_empty()).await.last().unwrap()["status"], "read");
    // The message as shown on the user's phone.
    let shown = http::get(&format!("{}/_sim/messages", chat.sim.url())).await.json();
    assert_eq!(shown[0]["message"]["text"]["body"], "Good morning");
    // Meta refuses one message and reports the failure of another later, both with a reason.
    let order = |code: i64, later: bool| {
        json!({"code": code, "details": "Message undeliverable", "later": later}).to_string()
    };
    let failures = format!("{}/_sim/messages/failures", chat.sim.url());
    for later in [false, true] {
        assert_eq!(http::send("POST", &failures, &[], order(131_026, later)).await.status, 204);
        let (_, sent) = chat.ask("POST", &path, json!({"type": "text", "text": "?"})).await;
        let timeline = chat.until(&id, is("failed")).await;
        let last = timeline.last().unwrap();
        assert_eq!((&last["id"], &last["error"]["code"]), (&sent["id"], &json!(131_026)), "{last}");
        assert_eq!(last["error"]["message"], "Message undeliverable");
        chat.event("/hook", "message.status", |data| {
            data["message"]["id"] == sent["id"] && data["message"]["status"] == "failed"
        })
        .await;
    }
    // The failures were reported after it in order, so late statuses would have been reported by
    // now.
    forward.dedup();
    let mut now = statuses();
    now.dedup();
    assert_eq!(now, forward);
    // Repeating a request with the same idempotency key sends one message.
    let url = format!("{}/api/v1/{path}", chat.node.public);
    let head = [("x-api-key", API_KEY), ("idempotency-key", "once")];
    let body = json!({"type": "text", "text": "Once"}).to_string();
    let first = http::send("POST", &url, &head, body.clone()).await;
    let again = http::send("POST", &url, &head, body).await;
    assert_eq!((first.status, first.text()), (again.status, again.text()));
    let timeline = chat.until(&id, is("read")).await;
    assert_eq!(timeline.iter().filter(|item| item["text"] == "Once").count(), 1);
    // A user who never wrote; the business only requested permission to call.
    let (status, _) =
        chat.ask("POST", &format!("permissions/{NUMBER}/919412340009/request/"), json!({})).await;
    assert_eq!(status, 202);
    let silent = chat.id_of("919412340009").await;
    let path = format!("conversations/{silent}/messages/");
    let (status, refused) = chat.ask("POST", &path, json!({"type": "text", "text": "Hello"})).await;
    assert_eq!((status, &refused["error"]["code"]), (422, &json!("window_closed")), "{refused}");
    assert!(refused["error"]["message"].as_str().unwrap().contains("template"), "{refused}");
    let template =
        json!({"type": "template", "template": {"name": "hello", "language": {"code": "en"}}});
    assert_eq!(chat.ask("POST", &path, template).await.0, 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_02_s3_03_s3_20_s3_21_s3_22_states_roles_and_deletion() {
    let keys = "{ key = \"test-key-of-an-agent\", role = \"agent\" }";
    let chat = Chat::start_with(crm, |node_config| {
        node_config.extra += &format!(
            "[[account]]\nauth_id = \"SATESTOFFHOOK0000001\"\nparent = \"{AUTH_ID}\"\nauth_token = \"test-token-of-an-account\"\napi_keys = [{keys}]\n\
             [[account]]\nauth_id = \"MAOTHEROFFHOOK000001\"\nauth_token = \"test-token-of-an-account\"\napi_keys = [\"test-key-of-other-account\", {{ key = \"test-agent-of-other-account\", role = \"agent\" }}]\n"
        );
    })
    .await;
    assert_eq!(chat.subscribe(None, false).await.0, 200);
    chat.send_text(USER, "one").await;
    let id = chat.id_of(USER).await;
    let post = |what: &str| format!("conversations/{id}/{what}/");
    let steps = [
        ("archive", 409, "open"),
        ("reopen", 409, "open"),
        ("close", 200, "closed"),
        ("close", 409, "closed"),
        ("archive", 200, "archived"),
        ("close", 409, "archived"),
        ("reopen", 200, "open"),
        ("close", 200, "closed"),
        ("reopen", 200, "open"),
    ];
    for (what, status, now) in steps {
        let (got, body) = chat.ask("POST", &post(what), Value::Null).await;
        assert_eq!(got, status, "{what}: {body}");
        assert_eq!(chat.conversation(USER).await["status"], now, "{what}");
    }
    let shown = chat.conversation(USER).await;
    assert_eq!((&shown["unread"], &shown["aiEnabled"]), (&json!(1), &json!(true)));
    let (status, shown) = chat.ask("POST", &post("read"), Value::Null).await;
    assert_eq!((status, &shown["unread"]), (200, &json!(0)));
    let one = format!("conversations/{id}/");
    let (status, shown) = chat.ask("PATCH", &one, json!({"aiEnabled": false})).await;
    assert_eq!((status, &shown["aiEnabled"]), (200, &json!(false)));
    for (method, path) in [
        ("GET", one.clone()),
        ("GET", post("timeline")),
        ("DELETE", one.clone()),
        ("POST", post("close")),
    ] {
        assert_eq!(
            chat.ask_as("test-key-of-other-account", method, &path, Value::Null).await.0,
            404,
            "{method} {path}: S3.30"
        );
        assert_eq!(
            chat.ask_as("test-key-of-an-agent", "DELETE", &one, Value::Null).await.0,
            403,
            "S3.3"
        );
    }
    assert_eq!(
        chat.ask_as("test-key-of-other-account", "GET", "conversations/", Value::Null).await.1["items"],
        json!([])
    );
    assert_eq!(chat.ask("DELETE", &one, Value::Null).await.0, 204);
    assert_eq!(chat.ask("GET", &one, Value::Null).await.0, 404);
    assert_eq!(chat.get("conversations/").await["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_16_conversations_are_listed_filtered_searched_and_paged() {
    let chat = Chat::start().await;
    for n in 0..5 {
        chat.send_text(&format!("91941234100{n}"), &format!("message {n}")).await;
    }
    let users = |page: &Value| -> Vec<String> {
        page["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c["user"]["waId"].as_str().unwrap().to_owned())
            .collect()
    };
    let all = chat.get("conversations/").await;
    let latest: Vec<String> = (0..5).rev().map(|n| format!("91941234100{n}")).collect();
    assert_eq!(users(&all), latest);
    let first = chat.get("conversations/?limit=2").await;
    let cursor = first["next"].as_str().unwrap();
    let second = chat.get(&format!("conversations/?limit=2&cursor={cursor}")).await;
    assert_eq!([users(&first), users(&second)].concat(), latest[..4]);
    assert_eq!(users(&chat.get("conversations/?q=message%203").await), ["919412341003"]);
    assert_eq!(users(&chat.get("conversations/?q=9194123410").await).len(), 5);
    assert_eq!(
        users(&chat.get("conversations/?q=100%25").await),
        Vec::<String>::new(),
        "no pattern"
    );
    let id = chat.id_of("919412341002").await;
    chat.ask("POST", &format!("conversations/{id}/close/"), Value::Null).await;
    chat.ask("POST", &format!("conversations/{id}/read/"), Value::Null).await;
    assert_eq!(users(&chat.get("conversations/?status=closed").await), ["919412341002"]);
    assert_eq!(users(&chat.get("conversations/?status=open").await).len(), 4);
    assert_eq!(users(&chat.get("conversations/?unread=true").await).len(), 4);
    assert_eq!(users(&chat.get(&format!("conversations/?number=%2B{NUMBER}")).await).len(), 5);
    assert_eq!(chat.ask("GET", "conversations/?status=lost", Value::Null).await.0, 400);
    // A message from the user reopens it.
    chat.send_text("919412341002", "still there?").await;
    assert_eq!(chat.conversation("919412341002").await["status"], "open");
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_28_calls_are_in_the_timeline_and_reported_to_webhooks() {
    let chat = Chat::start().await;
    assert_eq!(chat.subscribe(None, false).await.0, 200);
    let mut events = chat.sim.place_call(CallScript::default());
    while let Some(event) = events.next().await {
        if let CallEventKind::Ended(ended) = event.kind {
            assert!(ended.ok, "{ended:?}");
        }
    }
    let (_, ended) = chat.event("/hook", "call.ended", |_| true).await;
    let call = &ended["data"]["call"];
    assert_eq!(
        (&call["direction"], &call["missed"]),
        (&json!("inbound"), &json!(false)),
        "{ended}"
    );
    for kind in ["call.started", "call.answered"] {
        chat.event("/hook", kind, |data| data["call"]["uuid"] == call["uuid"]).await;
    }
    let id = chat.id_of(USER).await;
    assert_eq!(ended["data"]["conversation"], json!(id));
    let timeline = chat.until(&id, |items| items.iter().any(|item| item["type"] == "call")).await;
    assert_eq!(timeline[0]["call"]["uuid"], call["uuid"]);
    // A call opens the messaging window.
    let (status, sent) = chat
        .ask(
            "POST",
            &format!("conversations/{id}/messages/"),
            json!({"type": "text", "text": "Thanks"}),
        )
        .await;
    assert_eq!(status, 202, "{sent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn approved_templates_are_listed_and_shown_as_the_text_that_the_user_sees() {
    let chat = Chat::start().await;
    let path = format!("phone-numbers/{NUMBER}/templates/");
    let first = chat.get(&format!("{path}?limit=4")).await;
    let names = |page: &Value| -> Vec<String> {
        let items = page["items"].as_array().expect("a list").iter();
        items.map(|one| format!("{} {}", one["name"], one["language"]).replace('"', "")).collect()
    };
    assert_eq!(names(&first), ["appointment_reminder en", "hello de", "hello en", "invoice en"]);
    let next = first["next"].as_str().expect("a cursor");
    let rest = chat.get(&format!("{path}?limit=4&cursor={next}")).await;
    assert_eq!(names(&rest), ["order_update en", "our_shop en"], "free_money was rejected");
    assert_eq!(rest["next"], Value::Null);
    assert_eq!(names(&chat.get(&format!("{path}?q=invoice")).await), ["invoice en"]);
    let order = &rest["items"][0];
    assert_eq!(order["parameters"].as_array().map(Vec::len), Some(4), "{order}");
    assert_eq!(order["parameters"][1]["example"], "Asha");
    assert_eq!(
        (&order["otherParts"], &rest["items"][1]["otherParts"]),
        (&json!([]), &json!(["location"]))
    );

    // The user never wrote.
    let user = "919412340077";
    let (status, _) =
        chat.ask("POST", &format!("permissions/{NUMBER}/{user}/request/"), json!({})).await;
    assert_eq!(status, 202);
    let id = chat.id_of(user).await;
    let text = |text: &str| json!({"type": "text", "text": text});
    let components = json!([
        {"type": "header", "parameters": [text("4711")]},
        {"type": "body", "parameters": [text("Asha"), text("Tuesday")]},
        {"type": "button", "sub_type": "url", "index": "1", "parameters": [text("4711")]},
    ]);
    let template =
        json!({"name": "order_update", "language": {"code": "en"}, "components": components});
    let messages = format!("conversations/{id}/messages/");
    let message = json!({"type": "template", "template": template});
    assert_eq!(chat.ask("POST", &messages, message).await.0, 202);
    let seen = "Order 4711\n\nHello Asha, your order arrives on Tuesday.\n\nAcme Stationery";
    let timeline = chat
        .until(&id, |items| {
            items.iter().any(|item| item["text"] == seen && item["status"] == "read")
        })
        .await;
    let sent = timeline.iter().find(|item| item["text"] == seen).expect("the message");
    assert_eq!(sent["template"], template, "as it was sent");
    assert_eq!(chat.conversation(user).await["lastMessage"]["text"], seen);
    // Meta got the template without our text.
    let at_meta = http::send("GET", &format!("{}/_sim/messages", chat.sim.url()), &[], "").await;
    assert!(!at_meta.text().contains("rendered"), "{}", at_meta.text());
    assert!(at_meta.text().contains("order_update"), "{}", at_meta.text());

    // A template that Meta does not list is sent, and shown by its name.
    let unknown = json!({"name": "old_one", "language": {"code": "en"}});
    assert_eq!(
        chat.ask("POST", &messages, json!({"type": "template", "template": unknown})).await.0,
        202
    );
    chat.until(&id, |items| items.iter().any(|item| item["text"] == "old_one")).await;
    let none = chat.ask("GET", "phone-numbers/918035730000/templates/", Value::Null).await;
    assert_eq!(none.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn templates_that_cannot_be_read_are_reported_and_still_sent() {
    let chat = Chat::start().await;
    let fails = json!([{"what": "message_templates", "times": 1, "status": 403, "code": 200,
        "details": "whatsapp_business_management is missing"}]);
    let url = format!("{}/_sim/failures", chat.sim.url());
    assert_eq!(http::send("POST", &url, &[], fails.to_string()).await.status, 204);
    let path = format!("phone-numbers/{NUMBER}/templates/");
    let (status, refused) = chat.ask("GET", &path, Value::Null).await;
    assert_eq!((status, &refused["error"]["code"]), (502, &json!("meta_refused")), "{refused}");
    assert!(refused["error"]["message"].as_str().unwrap().contains("whatsapp_business_management"));
    chat.send_text(USER, "Hello").await;
    let id = chat.id_of(USER).await;
    let hello =
        json!({"type": "template", "template": {"name": "hello", "language": {"code": "en"}}});
    assert_eq!(chat.ask("POST", &format!("conversations/{id}/messages/"), hello).await.0, 202);
    chat.until(&id, |items| {
        items.iter().any(|item| item["text"] == "hello" && item["status"] == "read")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn private_notes_are_in_the_timeline_and_go_nowhere() {
    let chat = Chat::start_with(crm, |node_config| {
        node_config.extra += &format!(
            "[[account]]\nauth_id = \"SATESTOFFHOOK0000001\"\nparent = \"{AUTH_ID}\"\nauth_token = \"test-token-of-an-account\"\napi_keys = [\"test-key-of-a-subaccount\"]\n"
        );
    })
    .await;
    assert_eq!(chat.subscribe(None, false).await.0, 200);
    chat.send_text(USER, "Where is my order?").await;
    let id = chat.id_of(USER).await;
    let notes = format!("conversations/{id}/notes/");
    for wrong in [json!({}), json!({"text": " "}), json!({"text": "x".repeat(4_097)})] {
        assert_eq!(chat.ask("POST", &notes, wrong.clone()).await.0, 400, "{wrong}");
    }
    let secret = "Wants a refund, be careful";
    let theirs =
        chat.ask_as("test-key-of-a-subaccount", "POST", &notes, json!({"text": "x"})).await;
    assert_eq!(theirs.0, 404, "the conversation is not theirs");
    let (status, note) = chat.ask("POST", &notes, json!({"text": secret})).await;
    assert_eq!((status, &note["text"]), (201, &json!(secret)), "{note}");
    // The next message is written after the note, so what the note caused has happened as well.
    let (status, _) = chat
        .ask(
            "POST",
            &format!("conversations/{id}/messages/"),
            json!({"type": "text", "text": "One moment"}),
        )
        .await;
    assert_eq!(status, 202);
    let timeline = chat
        .until(&id, |items| {
            items.iter().any(|item| item["text"] == "One moment" && item["status"] == "read")
        })
        .await;
    let found = timeline.iter().find(|item| item["id"] == note["id"]).expect("the note");
    assert_eq!((&found["type"], &found["text"]), (&json!("note"), &json!(secret)), "{found}");
    assert_eq!((found.get("status"), found.get("direction")), (None, None), "{found}");
    let reply = timeline.iter().find(|item| item["text"] == "One moment").expect("the reply");
    let (writer, last) = (&reply["sender"], &chat.conversation(USER).await["lastMessage"]);
    assert!(writer.as_str().is_some_and(|writer| writer.starts_with("api-key:")), "{reply}");
    assert_eq!(reply["senderName"], Value::Null, "a key is no person");
    let shown = json!({
        "text": "One moment", "type": "text", "direction": "outbound", "at": reply["at"],
        "sender": writer, "senderName": null,
    });
    assert_eq!(last, &shown);
    let at_meta = http::send("GET", &format!("{}/_sim/messages", chat.sim.url()), &[], "").await;
    assert!(at_meta.text().contains("One moment") && !at_meta.text().contains(secret));
    let hook = format!("{:?}", chat.app.requests());
    assert!(!hook.contains(secret), "no webhook has it");
    // Insights leave out private notes.
    let insights = format!("conversations/{id}/insights/");
    let (_, insights) = chat.ask("POST", &insights, Value::Null).await;
    assert!(!insights.to_string().contains("refund"), "{insights}");

    let one = format!("{notes}{}/", note["id"].as_str().unwrap());
    let elsewhere = chat.ask_as("test-key-of-a-subaccount", "DELETE", &one, Value::Null).await;
    assert_eq!(elsewhere.0, 404);
    assert_eq!(chat.ask("DELETE", &one, Value::Null).await.0, 204);
    assert_eq!(chat.ask("DELETE", &one, Value::Null).await.0, 404);
    // A message can't be deleted as a note.
    let message = timeline.iter().find(|item| item["text"] == "One moment").unwrap();
    let message = format!("{notes}{}/", message["id"].as_str().unwrap());
    assert_eq!(chat.ask("DELETE", &message, Value::Null).await.0, 404);

    // An erasure of the person erases the notes.
    assert_eq!(chat.ask("POST", &notes, json!({"text": secret})).await.0, 201);
    assert_eq!(chat.ask("DELETE", &format!("users/{USER}/"), Value::Null).await.0, 202);
    let mut every = tokio::time::interval(std::time::Duration::from_millis(50));
    for n in 0..200 {
        every.tick().await;
        if chat.ask("GET", &format!("conversations/{id}/"), Value::Null).await.0 == 404 {
            break;
        }
        assert!(n < 199, "{}", chat.node.log());
    }
    // The same person writes again: a new conversation under the same id.
    chat.send_text(USER, "Hello again").await;
    let again = chat.until(&id, |items| !items.is_empty()).await;
    assert_eq!(again.len(), 1, "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn conversations_are_assigned_to_people() {
    let chat = Chat::start().await;
    for user in [USER, "919412340002"] {
        chat.send_text(user, "Hello").await;
    }
    let (id, other) = (chat.id_of(USER).await, chat.id_of("919412340002").await);
    let ravi = json!({"name": "ravi", "fullName": "Ravi Iyer", "role": "agent", "password": "a long password"});
    let (status, ravi) = chat.ask("POST", "users/", ravi).await;
    assert_eq!(status, 201, "{ravi}");
    let ravi = ravi["id"].as_str().unwrap().to_owned();
    let one = format!("conversations/{id}/");
    let people = chat.get(&format!("{one}assignees/")).await;
    let person = json!({"id": ravi, "name": "ravi", "fullName": "Ravi Iyer"});
    assert!(people["items"].as_array().unwrap().contains(&person), "{people}");

    let url = format!("{}/api/v1/{one}", chat.node.public);
    let before = http::send("GET", &url, &[("x-api-key", API_KEY)], "").await;
    let tag = before.headers["etag"].to_str().expect("a tag").to_owned();
    let unknown = json!({"assignee": "3e0f5c6a-7c55-4c0b-8d7e-2f1a9b8c7d60"});
    assert_eq!(chat.ask("PATCH", &one, unknown).await.0, 400);
    let (status, assigned) = chat.ask("PATCH", &one, json!({"assignee": ravi})).await;
    assert_eq!((status, &assigned["assignee"]), (200, &person), "{assigned}");
    assert_eq!(assigned["aiEnabled"], true);
    let head = [("x-api-key", API_KEY), ("if-match", tag.as_str())];
    let late = http::send("PATCH", &url, &head, json!({"assignee": null}).to_string()).await;
    assert_eq!(late.status, 412, "{}", late.text());
    // Other changes keep it.
    chat.ask("PATCH", &one, json!({"aiEnabled": false})).await;
    let list = async |assignee: &str| -> Vec<Value> {
        let found = chat.get(&format!("conversations/?assignee={assignee}")).await;
        found["items"].as_array().unwrap().iter().map(|one| one["id"].clone()).collect()
    };
    assert_eq!(list(&ravi).await, [json!(id)]);
    assert_eq!(list("none").await, [json!(other)]);
    assert_eq!(chat.ask("GET", "conversations/?assignee=me", Value::Null).await.0, 400);
    let closed = chat.get(&format!("conversations/?assignee={ravi}&status=closed")).await;
    assert_eq!(closed["items"], json!([]));

    let trail = chat.get("audit/?action=changeConversation").await;
    assert!(trail.to_string().contains("Ravi Iyer"), "{trail}");
    assert!(!trail.to_string().contains(USER), "no data of the user: {trail}");

    assert_eq!(chat.ask("DELETE", &format!("users/{ravi}/"), Value::Null).await.0, 204);
    assert_eq!(chat.get(&one).await["assignee"], Value::Null);
    assert_eq!(list("none").await.len(), 2);
    assert_eq!(chat.ask("PATCH", &one, json!({"assignee": ravi})).await.0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn conversations_have_labels_of_their_account() {
    const SUB: &str = "SATESTOFFHOOK0000001";
    let chat = Chat::start_with(crm, |node_config| {
        node_config.extra += &format!(
            "[[account]]\nauth_id = \"{SUB}\"\nparent = \"{AUTH_ID}\"\nauth_token = \"test-token-of-an-account\"\napi_keys = [\"test-key-of-a-subaccount\"]\n"
        );
    })
    .await;
    for user in [USER, "919412340002"] {
        chat.send_text(user, "Hello").await;
    }
    let one = format!("conversations/{}/", chat.id_of(USER).await);
    for wrong in [
        json!({"name": "", "colour": "red"}),
        json!({"name": "x".repeat(33), "colour": "red"}),
        json!({"name": "Refund", "colour": "pink"}),
    ] {
        assert_eq!(chat.ask("POST", "labels/", wrong.clone()).await.0, 400, "{wrong}");
    }
    let (status, refund) =
        chat.ask("POST", "labels/", json!({"name": "Refund", "colour": "orange"})).await;
    assert_eq!(status, 201, "{refund}");
    let (status, taken) =
        chat.ask("POST", "labels/", json!({"name": "refund", "colour": "red"})).await;
    assert_eq!((status, &taken["error"]["code"]), (409, &json!("name_taken")), "{taken}");
    let theirs = json!({"name": "Refund", "colour": "red", "account": SUB});
    let (status, theirs) = chat.ask("POST", "labels/", theirs).await;
    assert_eq!(status, 201, "another account may use the name: {theirs}");
    let seen = chat.ask_as("test-key-of-a-subaccount", "GET", "labels/", Value::Null).await.1;
    assert_eq!(seen["items"], json!([theirs]), "a subaccount sees its own");
    assert_eq!(chat.get("labels/").await["items"].as_array().map(Vec::len), Some(2));

    let id = refund["id"].as_str().unwrap();
    let (status, labelled) = chat.ask("PATCH", &one, json!({"labels": [id, id]})).await;
    assert_eq!((status, &labelled["labels"]), (200, &json!([refund])), "{labelled}");
    let wrong = json!({"labels": [theirs["id"]]});
    assert_eq!(chat.ask("PATCH", &one, wrong).await.0, 400, "it is of another account");
    let (_, vip) = chat.ask("POST", "labels/", json!({"name": "VIP", "colour": "red"})).await;
    let change = async |add: &[&Value], remove: &[&Value]| {
        let body = json!({"addLabels": add, "removeLabels": remove});
        let (status, changed) = chat.ask("PATCH", &one, body).await;
        assert_eq!(status, 200, "{changed}");
        changed["labels"].clone()
    };
    assert_eq!(change(&[&vip["id"]], &[&theirs["id"]]).await, json!([refund, vip]));
    assert_eq!(change(&[&vip["id"]], &[&refund["id"]]).await, json!([vip]));
    assert_eq!(change(&[], &[&refund["id"], &vip["id"]]).await, json!([]));
    assert_eq!(change(&[&refund["id"]], &[]).await, json!([refund]));
    for wrong in
        [json!({"addLabels": [theirs["id"]]}), json!({"labels": [id], "removeLabels": [vip["id"]]})]
    {
        assert_eq!(chat.ask("PATCH", &one, wrong.clone()).await.0, 400, "{wrong}");
    }
    let mut many = Vec::new();
    for n in 0..12 {
        let (status, made) =
            chat.ask("POST", "labels/", json!({"name": format!("L{n}"), "colour": "gray"})).await;
        assert_eq!(status, 201, "{made}");
        many.push(made["id"].clone());
    }
    // Of people who do so at once, as many succeed as there is room for.
    let adding = many.iter().map(|id| chat.ask("PATCH", &one, json!({"addLabels": [id]})));
    let statuses = futures_util::future::join_all(adding).await;
    let count = |of| statuses.iter().filter(|(status, _)| *status == of).count();
    assert_eq!((count(200), count(400)), (9, 3), "{statuses:?}");
    let kept = chat.get(&one).await["labels"].as_array().map(Vec::len);
    assert_eq!(kept, Some(10), "with the one it had");
    for label in &many {
        let path = format!("labels/{}/", label.as_str().unwrap());
        assert_eq!(chat.ask("DELETE", &path, Value::Null).await.0, 204);
    }
    let found = chat.get(&format!("conversations/?label={id}")).await;
    assert_eq!(found["items"].as_array().map(Vec::len), Some(1), "{found}");
    let closed = chat.get(&format!("conversations/?label={id}&status=closed")).await;
    assert_eq!(closed["items"], json!([]));

    let label = format!("labels/{id}/");
    let url = format!("{}/api/v1/{label}", chat.node.public);
    let stale = [("x-api-key", API_KEY), ("if-match", "\"other\"")];
    let change = json!({"colour": "blue"}).to_string();
    assert_eq!(http::send("PATCH", &url, &stale, change).await.status, 412);
    let (status, changed) = chat.ask("PATCH", &label, json!({"name": "Money back"})).await;
    assert_eq!((status, &changed["colour"]), (200, &json!("orange")), "{changed}");
    assert_eq!(chat.get(&one).await["labels"][0]["name"], "Money back");
    assert_eq!(chat.ask("DELETE", &label, Value::Null).await.0, 204);
    assert_eq!(chat.ask("DELETE", &label, Value::Null).await.0, 404);
    assert_eq!(chat.get(&one).await["labels"], json!([]));
    assert_eq!(chat.ask("PATCH", &one, json!({"labels": [id]})).await.0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn canned_replies_belong_to_an_account() {
    const SUB: &str = "SATESTOFFHOOK0000001";
    let chat = Chat::start_with(crm, |node_config| {
        node_config.extra += &format!(
            "[[account]]\nauth_id = \"{SUB}\"\nparent = \"{AUTH_ID}\"\nauth_token = \"test-token-of-an-account\"\napi_keys = [{{ key = \"test-key-of-an-agent\", role = \"agent\" }}]\n"
        );
    })
    .await;
    let path = "canned-replies/";
    for wrong in [
        json!({"shortcut": "", "text": "x"}),
        json!({"shortcut": "two words", "text": "x"}),
        json!({"shortcut": "hello", "text": " "}),
        json!({"shortcut": "hello", "text": "x".repeat(4_097)}),
    ] {
        assert_eq!(chat.ask("POST", path, wrong.clone()).await.0, 400, "{wrong}");
    }
    let hello = json!({"shortcut": "/Hello", "text": "Hello! How can we help you?"});
    let (status, reply) = chat.ask("POST", path, hello.clone()).await;
    assert_eq!((status, &reply["shortcut"]), (201, &json!("hello")), "{reply}");
    let (status, taken) = chat.ask("POST", path, hello.clone()).await;
    assert_eq!((status, &taken["error"]["code"]), (409, &json!("name_taken")), "{taken}");
    let agent = "test-key-of-an-agent";
    assert_eq!(chat.ask_as(agent, "POST", path, hello).await.0, 403);
    assert_eq!(chat.ask_as(agent, "GET", path, Value::Null).await.1["items"], json!([]));
    let one = format!("{path}{}/", reply["id"].as_str().unwrap());
    assert_eq!(chat.ask_as(agent, "GET", &one, Value::Null).await.0, 404);
    let (status, changed) = chat.ask("PATCH", &one, json!({"text": "Hi!"})).await;
    assert_eq!((status, &changed["text"]), (200, &json!("Hi!")), "{changed}");
    assert_eq!(chat.get(path).await["items"], json!([changed]));
    assert_eq!(chat.ask("DELETE", &one, Value::Null).await.0, 204);
    assert_eq!(chat.get(path).await["items"], json!([]));
}
