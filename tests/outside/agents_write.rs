//! AI agents that answer messages, and conversation insights, over HTTP with stand-ins for the
//! agent's server and for a model.

use std::sync::Mutex;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::support::agent::{AgentResponse, AgentServer, chunks, reply};
use crate::support::chat::{Chat, USER, crm, message_body};
use crate::support::http;
use crate::support::node::NUMBER;

fn sent(items: &[Value]) -> Vec<&str> {
    items
        .iter()
        .filter(|m| m["direction"] == "outbound")
        .filter_map(|m| m["text"].as_str())
        .collect()
}

async fn escalations(chat: &Chat) -> Vec<Value> {
    chat.get("notifications/?type=escalation").await["items"].as_array().unwrap().clone()
}

async fn until_escalated(chat: &Chat, count: usize) -> Vec<Value> {
    let mut every = tokio::time::interval(std::time::Duration::from_millis(20));
    for _ in 0..500 {
        every.tick().await;
        let found = escalations(chat).await;
        if found.len() == count {
            return found;
        }
    }
    panic!("not {count} after 10 s; log:\n{}", chat.node.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn s2_07_a_message_to_a_number_with_an_agent_is_answered_in_order() {
    let (sender, events) = mpsc::channel(64);
    let held = Mutex::new(Some(events));
    let server = AgentServer::start(move |turn| match held.lock().unwrap().take() {
        Some(events) => AgentResponse::Events(events),
        None => reply(
            &format!("You wrote {}", turn.body["input"]["text"].as_str().unwrap()),
            json!("close"),
        ),
    })
    .await;
    let chat = Chat::start().await;
    let agent = chat.agent(&server.url).await;
    chat.connect(&agent).await;
    let shown = chat.get(&format!("agents/{agent}/")).await;
    assert_eq!(shown["inboundNumbers"], json!([NUMBER]));
    chat.send_text(USER, "one").await;
    server.until_requests(1).await;
    chat.send_text(USER, "two").await;
    let id = chat.id_of(USER).await;
    chat.until(&id, |items| items.len() == 2).await;
    assert_eq!(server.turns().len(), 1, "one at a time");
    sender.try_send(json!({"type": "text", "text": "First."}).to_string()).unwrap();
    drop(sender);
    let turns = server.until_requests(2).await;
    let items = chat.until(&id, |items| sent(items).len() == 2).await;
    assert_eq!(sent(&items), ["First.", "You wrote two"]);
    let first = &turns[0].body;
    assert_eq!(
        (&first["channel"], &first["number"], &first["conversation"]),
        (&json!("message"), &json!(NUMBER), &json!(id))
    );
    assert_eq!(first["user"], json!({"waId": USER, "userId": null, "name": "Asha Verma"}));
    assert_eq!(
        first["input"],
        json!({"type": "text", "text": "one", "media": null, "digits": null, "speech": null})
    );
    assert!(turns[1].headers["x-offhook-signature"].to_str().unwrap().starts_with("t="));
    let history = turns[1].body["history"].as_array().unwrap();
    let texts: Vec<&Value> = history.iter().map(|line| &line["text"]).collect();
    assert_eq!(texts, ["one", "First."], "with what it replied since the second came");
    assert_eq!((&turns[0].body["turn"], &turns[1].body["turn"]), (&json!(1), &json!(2)));
    let mut every = tokio::time::interval(std::time::Duration::from_millis(20));
    for n in 0..500 {
        every.tick().await;
        if chat.conversation(USER).await["status"] == "closed" {
            break;
        }
        assert!(n < 499, "the agent closed it");
    }
}

/// Meta puts the messages of a moment into one webhook, and they are stored at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn messages_of_one_webhook_and_parts_of_one_reply_keep_their_order() {
    let parts: Vec<String> = (0..10).map(|n| format!("part {n}")).collect();
    let said: Vec<Value> = parts.iter().map(|part| json!({"type": "text", "text": part})).collect();
    let server =
        AgentServer::start(move |turn| match turn.body["input"]["text"] == json!("line 0") {
            true => AgentResponse::Json(json!({"reply": said})),
            false => AgentResponse::Json(json!({"reply": []})),
        })
        .await;
    let chat = Chat::start().await;
    let agent = chat.agent(&server.url).await;
    chat.connect(&agent).await;
    let lines: Vec<String> = (0..8).map(|n| format!("line {n}")).collect();
    let body = message_body(USER, "wamid.0", json!({"type": "text", "text": {"body": lines[0]}}));
    let mut body: Value = serde_json::from_str(&body).unwrap();
    let messages = body.pointer_mut("/entry/0/changes/0/value/messages").unwrap();
    let first = messages[0].clone();
    let messages = messages.as_array_mut().unwrap();
    for (n, line) in lines.iter().enumerate().skip(1) {
        let mut message = first.clone();
        message["id"] = json!(format!("wamid.{n}"));
        message["text"]["body"] = json!(line);
        messages.push(message);
    }
    assert_eq!(chat.node.post_webhook(&body.to_string()).await.status, 200);
    let turns = server.until_requests(8).await;
    let asked: Vec<&str> =
        turns.iter().map(|turn| turn.body["input"]["text"].as_str().unwrap()).collect();
    assert_eq!(asked, lines);
    let id = chat.id_of(USER).await;
    let items = chat.until(&id, |items| sent(items).len() == parts.len()).await;
    assert_eq!(sent(&items), parts);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_not_told_of_replies_that_failed() {
    let server = AgentServer::start(|turn| {
        reply(&format!("You wrote {}", turn.body["input"]["text"].as_str().unwrap()), Value::Null)
    })
    .await;
    let chat = Chat::start().await;
    let agent = chat.agent(&server.url).await;
    chat.connect(&agent).await;
    let failures = format!("{}/_sim/messages/failures", chat.sim.url());
    let order = json!({"code": 131_026, "details": "Message undeliverable"}).to_string();
    assert_eq!(http::send("POST", &failures, &[], order).await.status, 204);
    chat.send_text(USER, "one").await;
    let id = chat.id_of(USER).await;
    let has = |status: &str, items: &[Value]| items.iter().any(|item| item["status"] == status);
    chat.until(&id, |items| has("failed", items)).await;
    chat.send_text(USER, "two").await;
    chat.until(&id, |items| has("read", items)).await;
    chat.send_text(USER, "three").await;
    let turns = server.until_requests(3).await;
    let history = turns[2].body["history"].as_array().unwrap();
    let texts: Vec<&Value> = history.iter().map(|line| &line["text"]).collect();
    assert_eq!(texts, ["one", "two", "You wrote two"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn r03_a_pending_answer_is_sent_once_after_a_crash() {
    let (hold, mut held) = mpsc::channel(64);
    let server = AgentServer::start(move |_| {
        let (sender, events) = mpsc::channel(64);
        hold.try_send(sender).unwrap();
        AgentResponse::Events(events)
    })
    .await;
    let mut chat = Chat::start().await;
    let agent = chat.agent(&server.url).await;
    chat.connect(&agent).await;
    chat.send_text(USER, "hello").await;
    let lost: mpsc::Sender<String> = held.recv().await.unwrap();
    chat.node.kill();
    drop(lost);
    chat.node.start_again().await;
    let thinking: mpsc::Sender<String> = held.recv().await.unwrap();
    for text in ["Here", "I am."] {
        thinking.try_send(json!({"type": "text", "text": text}).to_string()).unwrap();
    }
    thinking.try_send(json!({"action": "escalate"}).to_string()).unwrap();
    drop(thinking);
    let id = chat.id_of(USER).await;
    let items = chat
        .until(&id, |items| sent(items).len() == 2 && items.iter().all(|m| m["status"] != "queued"))
        .await;
    assert_eq!(sent(&items), ["Here", "I am."]);
    assert!(
        items.iter().all(|m| m["status"] != "failed"),
        "it called for a person once all was out: {items:?}"
    );
    until_escalated(&chat, 1).await;
    assert_eq!(server.turns().len(), 2, "before the crash, and after it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_agent_escalates_once() {
    let server = AgentServer::start(|_| reply("Never", Value::Null)).await;
    let chat = Chat::start().await;
    let agent = chat.agent(&server.url).await;
    chat.connect(&agent).await;
    assert_eq!(
        chat.ask("PATCH", &format!("agents/{agent}/"), json!({"enabled": false})).await.0,
        200
    );
    chat.send_text(USER, "hello?").await;
    until_escalated(&chat, 1).await;
    let id = chat.id_of(USER).await;
    let mut every = tokio::time::interval(std::time::Duration::from_millis(20));
    for n in 0..500 {
        every.tick().await;
        if chat.get(&format!("conversations/{id}/")).await["aiEnabled"] == json!(false) {
            break;
        }
        assert!(n < 499, "people have it now");
    }
    assert_eq!(server.turns().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_21_s4_09_a_pending_turn_is_cancelled_when_people_take_over() {
    let (hold, mut held) = mpsc::channel(64);
    let server = AgentServer::start(move |_| {
        let (sender, events) = mpsc::channel(64);
        hold.try_send(sender).unwrap();
        AgentResponse::Events(events)
    })
    .await;
    let chat = Chat::start().await;
    let agent = chat.agent(&server.url).await;
    chat.connect(&agent).await;
    chat.send_text(USER, "hello").await;
    let thinking: mpsc::Sender<String> = held.recv().await.unwrap();
    let id = chat.id_of(USER).await;
    let silent =
        chat.ask("PATCH", &format!("conversations/{id}/"), json!({"aiEnabled": false})).await;
    assert_eq!(silent.0, 200, "{}", silent.1);
    thinking.try_send(json!({"type": "text", "text": "Too late."}).to_string()).unwrap();
    drop(thinking);
    // Messages received while the agent is disabled are not sent to it. The next one after
    // re-enabling is.
    chat.send_text(USER, "for a person").await;
    chat.ask("PATCH", &format!("conversations/{id}/"), json!({"aiEnabled": true})).await;
    chat.send_text(USER, "for the agent").await;
    let thinking: mpsc::Sender<String> = held.recv().await.unwrap();
    let asked = server.turns();
    assert_eq!((asked.len(), &asked[1].body["input"]["text"]), (2, &json!("for the agent")));
    // Changing the number's routing together with its conversations also cancels the pending turn.
    let disconnect = format!("phone-numbers/{NUMBER}/disconnect-agent/");
    assert_eq!(chat.ask("POST", &disconnect, json!({"applyToExisting": true})).await.0, 200);
    thinking.try_send(json!({"type": "text", "text": "Too late."}).to_string()).unwrap();
    drop(thinking);
    chat.connect(&agent).await;
    let other = "919412340001";
    chat.send_text(other, "hello").await;
    let thinking: mpsc::Sender<String> = held.recv().await.unwrap();
    thinking.try_send(json!({"type": "text", "text": "In time."}).to_string()).unwrap();
    drop(thinking);
    let theirs = chat.id_of(other).await;
    chat.until(&theirs, |items| sent(items) == ["In time."]).await;
    let items = chat.until(&id, |items| items.len() >= 3).await;
    assert_eq!(sent(&items), [""; 0], "nothing was sent late");
    assert_eq!(escalations(&chat).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_agent_escalates_and_automated_messages_get_no_answer() {
    let server = AgentServer::start(|turn| match turn.body["input"]["text"].as_str() {
        Some("human") => reply("I call somebody.", json!("escalate")),
        Some("fail") => AgentResponse::Status(503),
        _ => reply("Yes.", Value::Null),
    })
    .await;
    let chat = Chat::start_with(crm, |_| {}).await;
    let agent = chat.agent(&server.url).await;
    chat.connect(&agent).await;
    chat.send_text(USER, "fail").await;
    let notices = until_escalated(&chat, 1).await;
    let id = chat.id_of(USER).await;
    assert_eq!((&notices[0]["conversation"], &notices[0]["number"]), (&json!(id), &json!(NUMBER)));
    assert_eq!(server.turns().len(), 3, "two more tries");
    let (_, event) = chat
        .event("/hook", "conversation.escalated", |data| data["conversation"] == id.as_str())
        .await;
    assert_eq!(
        (&event["data"]["reason"], &event["data"]["agent"]),
        (&json!("agent_failed"), &json!(agent))
    );
    // The agent's server has recovered.
    chat.send_text(USER, "hello").await;
    chat.until(&id, |items| sent(items) == ["Yes."]).await;
    chat.send_text(USER, "human").await;
    until_escalated(&chat, 2).await;
    let items = chat.until(&id, |items| sent(items).len() == 2).await;
    assert_eq!(sent(&items), ["Yes.", "I call somebody."]);
    let mut every = tokio::time::interval(std::time::Duration::from_millis(20));
    for n in 0..500 {
        every.tick().await;
        if chat.conversation(USER).await["aiEnabled"] == false {
            break;
        }
        assert!(n < 499, "people have taken over");
    }
    // A message from one of our own numbers is assumed to be automated, and no person writes eleven
    // times in a minute.
    let before = server.turns().len();
    chat.send_text(NUMBER, "hello").await;
    until_escalated(&chat, 3).await;
    assert_eq!(server.turns().len(), before, "it was not even asked");
    let fast = "919412340002";
    for n in 0..11 {
        chat.send_text(fast, &format!("number {n}")).await;
    }
    until_escalated(&chat, 4).await;
    let theirs = chat.id_of(fast).await;
    let items = chat.until(&theirs, |items| items.len() >= 21).await;
    assert_eq!(sent(&items).len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn s2_20_an_agent_in_use_is_deleted_only_by_force() {
    let chat = Chat::start().await;
    let agent = chat.agent("http://127.0.0.1:9009/").await;
    let voice = json!({"name": "Ravi", "kind": "http", "endpoint": "http://127.0.0.1:9009/", "channels": ["voice"]});
    let voice = chat.ask("POST", "agents/", voice).await.1["id"].as_str().unwrap().to_owned();
    let connect = format!("phone-numbers/{NUMBER}/connect-agent/");
    assert_eq!(
        chat.ask("POST", &connect, json!({ "agent": voice })).await.0,
        409,
        "it has no channel for it"
    );
    let nobody = "00000000-0000-0000-0000-000000000007";
    assert_eq!(chat.ask("POST", &connect, json!({ "agent": nobody })).await.0, 400);
    chat.connect(&agent).await;
    let path = format!("agents/{agent}/");
    let (status, refused) = chat.ask("DELETE", &path, Value::Null).await;
    assert_eq!((status, &refused["error"]["code"]), (409, &json!("in_use")), "{refused}");
    assert_eq!(chat.ask("DELETE", &format!("{path}?force=true"), Value::Null).await.0, 204);
    chat.send_text(USER, "hello").await;
    assert_eq!(chat.conversation(USER).await["routing"], "none");
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_23_insights_come_from_the_model_or_are_calculated() {
    let chat = Chat::start().await;
    chat.send_text(USER, "Where is my order?").await;
    chat.send_text(USER, "Thanks, great!").await;
    let path = format!("conversations/{}/insights/", chat.id_of(USER).await);
    let (status, local) = chat.ask("POST", &path, Value::Null).await;
    assert_eq!(
        (status, &local["sentiment"], &local["by"]),
        (200, &json!("positive"), &json!("local")),
        "{local}"
    );
    let shown = chat.conversation(USER).await;
    for (shown, made) in [
        ("sentiment", "sentiment"),
        ("score", "score"),
        ("summary", "summary"),
        ("insightsBy", "by"),
    ]
    .map(|(s, m)| (&shown[s], &local[m]))
    {
        assert_eq!((shown, shown.is_null()), (made, false));
    }
    assert!(shown["insightsAt"].is_string());

    let server = AgentServer::start(|_| {
        chunks(&[
            "{\"sentiment\": \"negative\", \"score\": -0.5, ",
            "\"summary\": \"They wait for their order.\"}",
        ])
    })
    .await;
    let model =
        format!("[model]\nurl = \"{}/v1\"\nname = \"small\"\nrequests_per_day = 1\n", server.url);
    let chat = Chat::start_with(|app| format!("{model}{}", crm(app)), |_| {}).await;
    chat.send_text(USER, "Where is my order?").await;
    let path = format!("conversations/{}/insights/", chat.id_of(USER).await);
    let made = chat.ask("POST", &path, Value::Null).await.1;
    let want = json!({"sentiment": "negative", "score": -0.5, "summary": "They wait for their order.", "by": "small"});
    assert_eq!(made, want);
    assert!(
        server.turns()[0].body["messages"][1]["content"]
            .as_str()
            .unwrap()
            .contains("user: Where is my order?")
    );
    // The account has no request left: the words are counted instead.
    let counted = chat.ask("POST", &path, Value::Null).await.1;
    assert_eq!((&counted["by"], server.turns().len()), (&json!("local"), 1), "{counted}");
    let agent = json!({"name": "Ria", "kind": "llm", "channels": ["whatsapp"], "model": "huge"});
    let (status, refused) = chat.ask("POST", "agents/", agent).await;
    let says = refused["error"]["message"].as_str().unwrap();
    assert!(status == 400 && says.contains("model must be one of"), "{refused}");
    let agent = json!({"name": "Ria", "kind": "llm", "channels": ["whatsapp"]});
    let (status, agent) = chat.ask("POST", "agents/", agent).await;
    assert_eq!(status, 201, "{agent}");
    chat.connect(agent["id"].as_str().unwrap()).await;
    chat.send_text("919412340003", "Hello?").await;
    let notices = until_escalated(&chat, 1).await;
    assert!(notices[0]["text"].as_str().unwrap().contains("requests_per_day"), "{notices:?}");
}
