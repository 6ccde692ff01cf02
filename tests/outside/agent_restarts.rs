//! Turns of AI agents that survive a restart, and the transcript of their calls.

use std::sync::Mutex;

use serde_json::{Value, json};
use sim::{CallScript, HangupRule, caller};
use tokio::sync::mpsc;

use crate::agents::is_begin_of;
use crate::support::agent::{AgentResponse, AgentServer, reply};
use crate::support::chat::{Chat, USER};
use crate::support::database::execute;
use crate::support::node::{NUMBER, nodes};

fn sent(items: &[Value]) -> Vec<&str> {
    items
        .iter()
        .filter(|m| m["direction"] == "outbound")
        .filter_map(|m| m["text"].as_str())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pending_turn_resumes_after_a_restart_and_is_answered_once() {
    for kill in [true, false] {
        let (holding, held) = mpsc::channel(1);
        let held = Mutex::new(Some(held));
        let server = AgentServer::start(move |turn| match held.lock().unwrap().take() {
            // No event arrives before the node stops.
            Some(held) => AgentResponse::Events(held),
            None => reply(
                &format!("You wrote {}", turn.body["input"]["text"].as_str().unwrap()),
                Value::Null,
            ),
        })
        .await;
        let mut chat = Chat::start().await;
        let agent = chat.agent(&server.url).await;
        chat.connect(&agent).await;
        chat.send_text(USER, "one").await;
        let first = server.until_requests(1).await.remove(0);
        chat.send_text(USER, "two").await;
        let id = chat.id_of(USER).await;
        match kill {
            true => chat.node.kill(),
            false => {
                chat.node.signal("TERM");
                assert_eq!(chat.node.wait(), Some(0));
            }
        }
        drop(holding);
        chat.node.start_again().await;
        chat.sim.set_node_url(chat.node.public.clone());
        let items = chat.until(&id, |items| sent(items).len() == 2).await;
        assert_eq!(sent(&items), ["You wrote one", "You wrote two"], "in order: {items:#?}");
        let turns = server.turns();
        let texts: Vec<_> =
            turns.iter().map(|turn| turn.body["input"]["text"].as_str().unwrap()).collect();
        assert_eq!(texts, ["one", "one", "two"], "kill: {kill}");
        let event = |turn: &crate::support::agent::Turn| turn.headers["x-offhook-event-id"].clone();
        assert_eq!(
            (event(&first), event(&turns[1])),
            (event(&turns[1]), event(&first)),
            "the same event as before"
        );
        // An answered message needs no further reply.
        chat.send_text(USER, "three").await;
        chat.until(&id, |items| sent(items).len() == 3).await;
        chat.node.kill();
        chat.node.start_again().await;
        chat.sim.set_node_url(chat.node.public.clone());
        chat.send_text(USER, "four").await;
        let items = chat.until(&id, |items| sent(items).len() == 4).await;
        assert_eq!(sent(&items)[2..], ["You wrote three", "You wrote four"], "{items:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn people_hear_of_a_reply_that_the_user_may_not_have_got() {
    let server = AgentServer::start(|_| reply("We open at nine.", Value::Null)).await;
    let mut chat = Chat::start().await;
    let agent = chat.agent(&server.url).await;
    chat.connect(&agent).await;
    chat.send_text(USER, "When?").await;
    let id = chat.id_of(USER).await;
    // Otherwise the node sends it after its start, because it had not asked Graph yet.
    let was_asked = |m: &Value| m["direction"] == "outbound" && m["status"] != "queued";
    chat.until(&id, |items| items.iter().any(was_asked)).await;
    chat.node.kill();
    // As if the node had died before Meta's response.
    let unsent = "UPDATE messages SET wamid = NULL, status = 'queued' WHERE body = $1";
    execute(chat.node.dir.path(), unsent, "We open at nine.").await;
    chat.node.start_again().await;
    let mut every = tokio::time::interval(std::time::Duration::from_millis(50));
    let notice = loop {
        every.tick().await;
        let notices = chat.get("notifications/?type=escalation").await["items"].clone();
        if let Some(notice) = notices.get(0) {
            break notice.clone();
        }
    };
    assert_eq!(notice["conversation"], json!(id));
    assert!(notice["text"].as_str().unwrap().contains("may not have got"), "{notice}");
}

/// Connects the number to an agent that greets callers.
async fn answers_calls(chat: &Chat, server: &AgentServer) {
    let agent = json!({"name": "Asha", "kind": "http", "endpoint": server.url, "channels": ["voice", "whatsapp"],
        "greeting": "Welcome. How can I help you?"});
    let (status, agent) = chat.ask("POST", "agents/", agent).await;
    assert_eq!(status, 201, "{agent}");
    chat.connect(agent["id"].as_str().expect("an id")).await;
    let (status, shown) = chat
        .ask("PATCH", &format!("phone-numbers/{NUMBER}/"), json!({"configurationType": "agent"}))
        .await;
    assert_eq!(status, 200, "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_transcript_of_an_agents_call_is_in_the_conversation() {
    let chat = Chat::start().await;
    let server = AgentServer::start(|turn| match turn.body["turn"].as_u64() {
        Some(1) => reply("You pressed one and two. What else?", Value::Null),
        _ => reply("Goodbye.", json!("hangup")),
    })
    .await;
    answers_calls(&chat, &server).await;
    let keys = caller::parse_keys("12#w3w3w3w9#").expect("keys");
    let script = CallScript { keys, hangup: HangupRule::Never, ..CallScript::default() };
    tokio::time::timeout(std::time::Duration::from_secs(60), chat.sim.place_call(script).all())
        .await
        .expect("an end");
    let id = chat.id_of(USER).await;
    let items = chat.until(&id, |items| items.iter().any(|item| item["type"] == "call")).await;
    let call = &items[0]["call"];
    let transcript: Vec<_> = call["transcript"]
        .as_array()
        .unwrap_or_else(|| panic!("{items:#?}"))
        .iter()
        .map(|line| (line["role"].as_str().unwrap(), &line["text"]))
        .collect();
    let expected = [
        ("assistant", "Welcome. How can I help you?"),
        ("user", "12"),
        ("assistant", "You pressed one and two. What else?"),
    ];
    // A digit interrupts the agent's text; the transcript keeps the part that was played.
    assert!(transcript.len() >= 4, "{transcript:?}");
    for ((role, text), (by, whole)) in transcript[..3].iter().zip(expected) {
        assert!(*role == by && (*text == whole || is_begin_of(text, whole)), "{transcript:?}");
    }
    assert_eq!(transcript.last(), Some(&("assistant", &json!("Goodbye."))), "{transcript:?}");
    let turn = &server.turns()[0].body;
    assert_eq!((&turn["conversation"], &turn["call"]), (&json!(id), &call["uuid"]), "{turn}");
}

#[tokio::test(flavor = "multi_thread")]
async fn r03_the_transcript_before_a_kill_is_in_the_conversation_once() {
    let mut chat = Chat::start().await;
    let server = AgentServer::start(|turn| match turn.body["turn"].as_u64() {
        Some(1) => reply("You pressed one and two. What else?", Value::Null),
        _ => reply("Three it is. And what then?", Value::Null),
    })
    .await;
    answers_calls(&chat, &server).await;
    let keys = caller::parse_keys("12#wwww3#").expect("keys");
    let phone = chat.sim.place_call(CallScript {
        keys,
        hangup: HangupRule::Never,
        ..CallScript::default()
    });
    server.until_requests(2).await;
    // Reading the list of calls flushes writes queued before it. In a fleet, each node has its turn.
    for _ in 0..nodes() {
        let (status, _) = chat.ask("GET", "calls/", Value::Null).await;
        assert_eq!(status, 200);
    }

    for _ in 0..2 {
        chat.node.kill();
        chat.node.start_again().await;
        chat.sim.set_node_url(chat.node.public.clone());
        let id = chat.id_of(USER).await;
        let items = chat.until(&id, |items| items.iter().any(|item| item["type"] == "call")).await;
        let calls: Vec<_> = items.iter().filter(|item| item["type"] == "call").collect();
        assert_eq!(calls.len(), 1, "{items:#?}");
        let lines =
            calls[0]["call"]["transcript"].as_array().unwrap_or_else(|| panic!("{items:#?}"));
        let transcript: Vec<_> =
            lines.iter().map(|line| (line["role"].as_str().unwrap(), &line["text"])).collect();
        let expected = [
            ("assistant", "Welcome. How can I help you?"),
            ("user", "12"),
            ("assistant", "You pressed one and two. What else?"),
            ("user", "3"),
        ];
        // The reply may have been sent before the kill.
        assert!((4..=5).contains(&transcript.len()), "{transcript:?}");
        for ((role, text), (by, whole)) in transcript.iter().zip(expected) {
            assert!(*role == by && (*text == whole || is_begin_of(text, whole)), "{transcript:?}");
        }
    }
    drop(phone);
}
