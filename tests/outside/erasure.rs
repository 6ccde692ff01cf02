//! Erasure of a person over HTTP and across a crash.

use std::time::Duration;

use serde_json::{Value, json};
use sim::{CallScript, HangupRule, Sim};

use crate::support::app::App;
use crate::support::chat::Chat;
use crate::support::database::skipped_on_postgres;
use crate::support::http;
use crate::support::node::{API_KEY, NUMBER, Node, NodeConfig, sim_options};

const USER: &str = "919412341234";

async fn ask(node: &Node, method: &str, path: &str) -> http::Answer {
    let url = format!("{}/api/v1/{path}", node.public);
    http::send(method, &url, &[("x-api-key", API_KEY)], "").await
}

async fn calls(node: &Node) -> Vec<Value> {
    ask(node, "GET", "calls/").await.json()["items"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_completes_even_if_the_node_is_killed() {
    let app = App::start().await;
    app.xml("/answer", "<Response><Hangup reason=\"busy\"/></Response>");
    let sim = Sim::start(sim_options()).await.unwrap();
    let mut node = Node::start(&NodeConfig::new(&sim.graph_url(), &app.url("/answer"))).await;
    sim.set_node_url(node.public.clone());
    let other = CallScript { from: "919876543210".into(), ..CallScript::default() };
    for script in [CallScript::default(), other, CallScript::default()] {
        sim.place_call(script).all().await;
    }
    node.until_metric("offhook_calls_total", &[("outcome", "busy")], 3.0).await;
    let before = calls(&node).await;
    assert_eq!(before.iter().filter(|call| call["from"] == USER).count(), 2, "{before:?}");
    assert_eq!(ask(&node, "DELETE", "users/nobody/").await.status, 404);
    let asked = ask(&node, "DELETE", &format!("users/{USER}/")).await;
    assert_eq!((asked.status, &asked.json()["waId"]), (202, &json!(USER)), "{}", asked.text());
    node.kill();
    node.start_again().await;

    let mut every = tokio::time::interval(Duration::from_millis(50));
    let mut left = 1;
    for _ in 0..400 {
        every.tick().await;
        left = calls(&node).await.iter().filter(|call| call["from"] == USER).count();
        if left == 0 {
            break;
        }
    }
    assert_eq!(left, 0, "{}", node.log());
    let after = calls(&node).await;
    assert_eq!(after.len(), 3, "calls keep their records");
    for (then, now) in before.iter().zip(&after) {
        let uuid = now["callUuid"].as_str().unwrap();
        let events = ask(&node, "GET", &format!("calls/{uuid}/events")).await.text();
        if then["from"] == USER {
            assert_eq!(
                (&now["from"], &now["callerName"], &now["callUuid"]),
                (&json!(""), &json!(""), &then["callUuid"])
            );
            assert_eq!(events, "");
        } else {
            assert_eq!(now, then);
            assert!(events.contains("919876543210"));
        }
    }
    let mut every = tokio::time::interval(Duration::from_millis(50));
    for n in 0..400 {
        every.tick().await;
        let notices = ask(&node, "GET", "notifications/").await.json();
        // Two missed calls were theirs, the third was from another user.
        if notices["items"].as_array().unwrap().len() == 1 {
            break;
        }
        assert!(n < 399, "{notices}");
    }
}

/// Pieces of the compressed event logs in a store.
fn pieces_of_logs(folder: &std::path::Path) -> Vec<Vec<u8>> {
    let store = rusqlite::Connection::open(folder.join("offhook.db")).expect("a store");
    let mut logs = store.prepare("SELECT substr(body, 60, 80) FROM call_logs").expect("a query");
    let pieces = logs.query_map((), |row| row.get(0)).expect("rows");
    let pieces: Vec<Vec<u8>> = pieces.map(|piece| piece.expect("bytes")).collect();
    pieces.into_iter().filter(|piece| piece.len() == 80).collect()
}

/// Lists the files in a folder that contain any of these words.
fn holding(folder: &std::path::Path, words: &[&[u8]]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(holding(&path, words));
            continue;
        }
        // A file may be deleted between listing and reading.
        let bytes = std::fs::read(&path).unwrap_or_default();
        for word in words.iter().filter(|word| memchr::memmem::find(&bytes, word).is_some()) {
            found.push(format!("{} in {}", String::from_utf8_lossy(word), path.display()));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_person_leaves_nothing_in_the_nodes_files() {
    if skipped_on_postgres() {
        return;
    }
    let chat = Chat::start().await;
    assert_eq!(chat.subscribe(None, false).await.0, 200);
    // Enough data that pages are split, freed and reused, interleaved with another user's messages.
    let other = "919876543210";
    let long = |word: &str, n: usize| format!("{word} {n} {}", word.repeat(1 + n % 300));
    for n in 0..120 {
        chat.send_text(USER, &long("canary-in", n)).await;
        chat.send_text(other, &long("keepsake", n)).await;
    }
    let id = chat.id_of(USER).await;
    let path = |what: &str| format!("{}/api/v1/{what}", chat.node.public);
    let head = [("x-api-key", API_KEY), ("idempotency-key", "canary-key")];
    let sent = json!({"type": "text", "text": "canary-out"}).to_string();
    let sent =
        http::send("POST", &path(&format!("conversations/{id}/messages/")), &head, sent).await;
    assert_eq!(sent.status, 202, "{}", sent.text());
    let made = http::send("POST", &path(&format!("conversations/{id}/insights/")), &head, "").await;
    assert_eq!(made.status, 200, "{}", made.text());
    let asked =
        http::send("POST", &path(&format!("permissions/{NUMBER}/{USER}/request/")), &head, "{}")
            .await;
    assert_eq!(asked.status, 202, "{}", asked.text());
    chat.sim.place_call(CallScript::default()).all().await;
    chat.event("/hook", "call.ended", |_| true).await;
    chat.node.until_metric("offhook_calls_active", &[("direction", "inbound")], 0.0).await;
    let folder = chat.node.dir.path();
    let prompts = || std::fs::read_dir(folder.join("prompts")).map_or(0, Iterator::count);
    assert!(prompts() > 0, "what the call has heard");
    // The event log contains the call's SDP without the ICE passwords.
    let call = calls(&chat.node).await[0]["callUuid"].as_str().expect("a UUID").to_owned();
    let log = ask(&chat.node, "GET", &format!("calls/{call}/events")).await.text();
    let times = |text: &str| log.matches(text).count();
    assert!(times("a=ice-pwd:…") > 0 && times("a=ice-pwd:…") == times("a=ice-pwd:"), "{log}");
    let pieces = pieces_of_logs(folder);
    assert!(!pieces.is_empty());
    let mut words = vec![USER.as_bytes(), b"canary-"];
    words.extend(pieces.iter().map(Vec::as_slice));
    for word in &words {
        let found = holding(folder, &[word]);
        assert!(!found.is_empty(), "{} can be found", String::from_utf8_lossy(word));
    }
    assert_eq!(chat.ask("DELETE", &format!("users/{USER}/"), Value::Null).await.0, 202);
    let mut every = tokio::time::interval(Duration::from_millis(100));
    let mut left = Vec::new();
    for _ in 0..300 {
        every.tick().await;
        left = holding(folder, &words);
        if left.is_empty() && prompts() == 0 {
            break;
        }
    }
    assert!(left.is_empty(), "{left:?}\n{}", chat.node.log());
    assert_eq!(prompts(), 0, "none of the call's");
    assert_eq!(chat.ask("GET", &format!("conversations/{id}/"), Value::Null).await.0, 404);
    let kept =
        chat.get(&format!("conversations/{}/timeline/?limit=200", chat.id_of(other).await)).await;
    assert_eq!(kept["items"].as_array().expect("a list").len(), 120, "somebody else's stay");
}

#[tokio::test(flavor = "multi_thread")]
async fn data_after_the_erasure_request_is_kept() {
    let chat = Chat::start().await;
    assert_eq!(chat.subscribe(None, false).await.0, 200);
    chat.send_text(USER, "an old word").await;
    let id = chat.id_of(USER).await;
    assert_eq!(
        chat.ask("POST", &format!("conversations/{id}/insights/"), Value::Null).await.0,
        200
    );
    chat.app.xml("/answer", "<Response><Speak>Hello.</Speak><Wait length=\"120\"/></Response>");
    // The request waits while a call is live.
    let phone =
        chat.sim.place_call(CallScript { hangup: HangupRule::Never, ..CallScript::default() });
    let (_, answered) = chat.event("/hook", "call.answered", |_| true).await;
    let call = answered["data"]["call"]["uuid"].as_str().expect("a call").to_owned();
    assert_eq!(chat.ask("DELETE", &format!("users/{USER}/"), Value::Null).await.0, 202);
    chat.send_text(USER, "a new word").await;
    let text = |item: &Value| item["text"].as_str().unwrap_or_default().to_owned();
    let only_new = |items: &[Value]| matches!(items, [one] if text(one) == "a new word");
    chat.until(&id, only_new).await;
    // The row is deleted after its messages.
    let mut every = tokio::time::interval(Duration::from_millis(20));
    let mut shown = Value::Null;
    for _ in 0..250 {
        every.tick().await;
        shown = chat.get(&format!("conversations/{id}/")).await;
        if shown["unread"] == 1 {
            break;
        }
    }
    assert_eq!(
        (&shown["lastMessage"]["text"], &shown["unread"]),
        (&json!("a new word"), &json!(1)),
        "{shown}"
    );
    assert_eq!((&shown["summary"], &shown["insightsAt"]), (&Value::Null, &Value::Null), "{shown}");

    // The call began before the request and ends after it, so it is erased. A later call stays.
    chat.app.xml("/answer", "<Response><Hangup reason=\"busy\"/></Response>");
    assert_eq!(chat.ask("POST", &format!("calls/{call}/hangup/"), Value::Null).await.0, 202);
    chat.node.until_metric("offhook_calls_active", &[("direction", "inbound")], 0.0).await;
    drop(phone);
    chat.sim.place_call(CallScript::default()).all().await;
    let mut every = tokio::time::interval(Duration::from_millis(50));
    for n in 0..400 {
        every.tick().await;
        if chat.get(&format!("calls/{call}/")).await["from"] == "" {
            break;
        }
        assert!(n < 399, "{}", chat.node.log());
    }
    // The request's row is deleted last, after the conversation.
    let calls = chat.get("calls/").await;
    let from: Vec<&Value> =
        calls["items"].as_array().expect("a list").iter().map(|call| &call["from"]).collect();
    assert_eq!(from, [&json!(USER), &json!("")], "the newest first");
    assert_eq!(calls["items"][1]["to"], json!(NUMBER), "the business number names no person");
    let kinds = |items: &[Value]| {
        items
            .iter()
            .map(|item| item["type"].as_str().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
    };
    let timeline = chat.until(&id, |items| kinds(items) == ["text", "call"]).await;
    assert_ne!(timeline[1]["call"]["uuid"], json!(call));
    let hook = chat.webhook("crm").await;
    let mut left = Vec::new();
    for _ in 0..400 {
        every.tick().await;
        let deliveries = chat.get(&format!("webhooks/{hook}/deliveries/")).await;
        let deliveries = deliveries["items"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|one| one["type"].to_string());
        // Notifications about the number concern no person.
        left = deliveries.filter(|kind| !kind.contains("number.")).collect::<Vec<_>>();
        if left.len() <= 4 {
            break;
        }
    }
    left.sort_unstable();
    assert_eq!(
        left,
        ["\"call.ended\"", "\"call.missed\"", "\"call.started\"", "\"message.received\""],
        "of what is left"
    );
}
