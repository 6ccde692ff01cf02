//! AI agents over HTTP: create, change and remove them, and calls that they answer, with stand-ins
//! for their server and for a model.

use std::sync::{Arc, Mutex};

use machine::{Input, MediaCommand, Output};
use serde_json::{Value, json};
use sim::{CallEvent, CallEventKind, CallScript, HangupRule, HangupSource, Sim, caller};
use tokio::sync::mpsc;

use crate::console::{Session, user};
use crate::endpoints::PASSWORD;
use crate::recognise::{Endpoint, say};
use crate::support::agent::{AgentResponse, AgentServer, chunk, chunks, reply};
use crate::support::app::{App, ReceivedRequest};
use crate::support::database::counts;
use crate::support::http;
use crate::support::node::{
    API_KEY, AUTH_ID, AUTH_TOKEN, NUMBER, Node, NodeConfig, PHONE_NUMBER_ID, basic, sim_options,
};
use crate::support::phone::Phone;
use crate::turn_taking::{encoded, silence};

struct World {
    node: Node,
    sim: Sim,
    app: App,
}

impl World {
    /// Starts a node with this configuration, in which `APP` is the URL of the application.
    async fn start(extra: &str) -> Self {
        let app = App::start().await;
        let sim = Sim::start(sim_options()).await.unwrap();
        let mut node_config = NodeConfig::new(&sim.graph_url(), &app.url("/answer"));
        node_config.extra = extra.replace("APP", &app.url(""));
        let node = Node::start(&node_config).await;
        sim.set_node_url(node.public.clone());
        Self { node, sim, app }
    }

    async fn ask(&self, method: &str, path: &str, body: Value) -> http::Answer {
        let url = format!("{}/api/v1/{path}", self.node.public);
        http::send(method, &url, &[("x-api-key", API_KEY)], body.to_string()).await
    }

    /// Connects the number's calls to a new agent. Returns its id.
    async fn with_agent(&self, agent: Value) -> String {
        let made = self.ask("POST", "agents/", agent).await;
        assert_eq!(made.status, 201, "{}", made.text());
        let id = made.json()["id"].as_str().unwrap().to_owned();
        let redirect =
            format!("<Response><Redirect>https://agent.invalid/{id}/answer</Redirect></Response>");
        self.app.xml("/answer", redirect);
        id
    }

    async fn call(&self, script: CallScript) -> Vec<CallEvent> {
        let script = CallScript { hangup: HangupRule::Never, ..script };
        let events = tokio::time::timeout(
            std::time::Duration::from_secs(60),
            self.sim.place_call(script).all(),
        )
        .await;
        events.expect("the call ends")
    }

    /// Waits until a document of the live call contains `what`.
    async fn until_document(&self, what: &str) {
        let mut every = tokio::time::interval(std::time::Duration::from_millis(50));
        for _ in 0..300 {
            every.tick().await;
            let calls = self.ask("GET", "calls/", Value::Null).await.json();
            let Some(call) = calls["items"][0]["callUuid"].as_str() else { continue };
            if self
                .ask("GET", &format!("calls/{call}/events"), Value::Null)
                .await
                .text()
                .contains(what)
            {
                return;
            }
        }
        panic!("no {what} in the call's log after 15 s; the node's:\n{}", self.node.log());
    }

    async fn notices(&self, topic: &str) -> Vec<Value> {
        let list =
            self.ask("GET", &format!("notifications/?type={topic}"), Value::Null).await.json();
        list["items"].as_array().unwrap().clone()
    }
}

fn heard_ms(events: &[CallEvent]) -> u64 {
    match events.last().map(|e| &e.kind) {
        Some(CallEventKind::Ended(ended)) => ended.heard_ms,
        _ => panic!("no end: {events:#?}"),
    }
}

fn business_hung_up(events: &[CallEvent]) -> bool {
    events.iter().any(|e| e.kind == CallEventKind::Hangup { by: HangupSource::Business })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_has_lost_its_agent_is_answered_by_its_document_again() {
    let webhook = format!(
        "[[webhook]]\nname = \"crm\"\naccount = \"{AUTH_ID}\"\nurl = \"http://127.0.0.1:9009/crm\"\nsecret = \"test-secret-of-a-webhook\"\n"
    );
    let world = World::start(&webhook).await;
    world.app.xml("/answer", "<Response><Wait length=\"1\"/></Response>");
    let configuration = async || {
        let shown = world.ask("GET", &format!("phone-numbers/{NUMBER}/"), Value::Null).await;
        shown.json()["configurationType"].clone()
    };
    for loss in ["disconnected", "deleted", "subscribed"] {
        let agent = json!({"name": loss, "kind": "http", "endpoint": "http://127.0.0.1:9009/agent",
            "channels": ["voice", "whatsapp"]});
        let agent = world.ask("POST", "agents/", agent).await.json()["id"].clone();
        let agent = agent.as_str().unwrap();
        let connect = format!("phone-numbers/{NUMBER}/connect-agent/");
        assert_eq!(world.ask("POST", &connect, json!({ "agent": agent })).await.status, 200);
        assert_eq!(configuration().await, "agent");
        let answer = match loss {
            "disconnected" => {
                let path = format!("phone-numbers/{NUMBER}/disconnect-agent/");
                world.ask("POST", &path, json!({})).await
            }
            "deleted" => {
                world.ask("DELETE", &format!("agents/{agent}/?force=true"), json!({})).await
            }
            _ => {
                let path = format!("phone-numbers/{NUMBER}/subscribe/");
                let id = json!({"number": NUMBER, "whatsappPhoneNumberId": PHONE_NUMBER_ID});
                world.ask("POST", &path, id).await
            }
        };
        assert!([200, 204].contains(&answer.status), "{}", answer.text());
        assert_eq!(configuration().await, "webhook", "{loss}");
        let events = world.call(CallScript::default()).await;
        let Some(CallEventKind::Ended(ended)) = events.last().map(|event| &event.kind) else {
            panic!("no end: {events:#?}")
        };
        assert_eq!(ended.cause, "end_of_instructions", "{events:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_are_created_changed_and_removed() {
    let world = World::start("").await;
    let endpoint = "http://127.0.0.1:9009/agent";
    let made = world
        .ask(
            "POST",
            "agents/",
            json!({
                "name": "Asha", "kind": "http", "endpoint": endpoint, "channels": ["voice", "whatsapp"],
                "outboundNumber": format!("+{NUMBER}"), "apiKey": "canary-key", "signingSecret": "canary-secret",
                "id": "ignored", "inboundNumbers": ["1"],
            }),
        )
        .await;
    assert_eq!(made.status, 201, "{}", made.text());
    let agent = made.json();
    assert_eq!(
        (&agent["channels"], &agent["outboundNumber"], &agent["historyTurns"], &agent["hasApiKey"]),
        (&json!(["whatsapp", "voice"]), &json!(NUMBER), &json!(20), &json!(true))
    );
    assert_eq!((&agent["inboundNumbers"], &agent["enabled"]), (&json!([]), &json!(true)));
    assert!(!made.text().contains("canary"), "secrets go in and never out");
    for (wrong, field) in [
        (json!({"kind": "http", "endpoint": endpoint}), "name"),
        (json!({"name": "x", "endpoint": endpoint}), "kind"),
        (json!({"name": "x", "kind": "http"}), "endpoint"),
        (json!({"name": "x", "kind": "llm"}), "endpoint"),
        (json!({"name": "x", "kind": "http", "endpoint": "ftp://x/"}), "endpoint"),
        (json!({"name": "x", "kind": "http", "endpoint": endpoint, "channels": []}), "channels"),
        (
            json!({"name": "x", "kind": "http", "endpoint": endpoint, "channels": ["fax"]}),
            "channels[0]",
        ),
        (json!({"name": "x", "kind": "http", "endpoint": endpoint, "timeoutMs": 1}), "timeoutMs"),
        (
            json!({"name": "x", "kind": "http", "endpoint": endpoint, "historyTurns": 1000}),
            "historyTurns",
        ),
        (
            json!({"name": "x", "kind": "http", "endpoint": endpoint, "outboundNumber": "919999999999"}),
            "outboundNumber",
        ),
        (
            json!({"name": "x", "kind": "http", "endpoint": endpoint, "language": "english!"}),
            "language",
        ),
        (json!({"name": "x", "kind": "http", "endpoint": endpoint, "voice": "Donald"}), "voice"),
    ] {
        let answer = world.ask("POST", "agents/", wrong.clone()).await;
        assert_eq!(
            (answer.status, &answer.json()["error"]["field"]),
            (400, &json!(field)),
            "{wrong} {}",
            answer.text()
        );
    }
    // A name is one line, without blanks around it.
    let lines = json!({"name": "Two\nlines", "kind": "http", "endpoint": endpoint});
    let refused = world.ask("POST", "agents/", lines).await;
    assert_eq!((refused.status, &refused.json()["error"]["field"]), (400, &json!("name")));
    // Several agents may share an outbound number.
    let second =
        json!({"name": " Ravi ", "kind": "http", "endpoint": endpoint, "outboundNumber": NUMBER});
    let second = world.ask("POST", "agents/", second).await;
    assert_eq!((second.status, &second.json()["name"]), (201, &json!("Ravi")));
    // Names are unique within an account.
    let again = json!({"name": "Ravi", "kind": "http", "endpoint": endpoint});
    let rename = format!("agents/{}/", agent["id"].as_str().unwrap());
    for (method, path, body) in
        [("POST", "agents/", again), ("PATCH", rename.as_str(), json!({"name": "Ravi"}))]
    {
        let taken = world.ask(method, path, body).await;
        assert_eq!(
            (taken.status, &taken.json()["error"]["code"]),
            (409, &json!("name_taken")),
            "{}",
            taken.text()
        );
    }
    assert_eq!(world.ask("PATCH", &rename, json!({"name": "Asha"})).await.status, 200);
    let list = world.ask("GET", "agents/", Value::Null).await.json();
    let names: Vec<_> =
        list["items"].as_array().unwrap().iter().map(|a| a["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["Ravi", "Asha"]);

    let path = format!("agents/{}/", agent["id"].as_str().unwrap());
    let got = world.ask("GET", &path, Value::Null).await;
    assert_eq!(got.json(), agent);
    let tag = got.headers["etag"].to_str().unwrap().to_owned();
    let url = format!("{}/api/v1/{path}", world.node.public);
    let change = |tag: String, body: Value| {
        let url = url.clone();
        async move {
            http::send(
                "PATCH",
                &url,
                &[("x-api-key", API_KEY), ("if-match", &tag)],
                body.to_string(),
            )
            .await
        }
    };
    let changed =
        change(tag.clone(), json!({"enabled": false, "apiKey": null, "greeting": "Hello."})).await;
    assert_eq!(changed.status, 200, "{}", changed.text());
    let now = changed.json();
    assert_eq!(
        (&now["enabled"], &now["hasApiKey"], &now["hasSigningSecret"], &now["name"]),
        (&json!(false), &json!(false), &json!(true), &json!("Asha"))
    );
    assert_eq!(change(tag, json!({"name": "Late"})).await.status, 412);
    // A secret is sent only to the server that it was given for.
    for (endpoint, secret, want) in [
        ("http://127.0.0.1:9009/other", Value::Null, false),
        ("http://127.0.0.1:9009/again", json!("canary-new"), true),
        ("http://127.0.0.1:9009/third", json!(true), true),
        ("http://127.0.0.1:9010/third", json!(true), false),
        ("http://127.0.0.1:9009/third", json!("canary-given"), true),
        ("http://localhost:9009/third", json!(true), false),
    ] {
        let mut body = json!({"endpoint": endpoint});
        if !secret.is_boolean() {
            body["apiKey"] = secret.clone();
            body["signingSecret"] = secret;
        }
        let now = world.ask("PATCH", &path, body).await.json();
        let kept = (&now["hasApiKey"], &now["hasSigningSecret"]);
        assert_eq!(kept, (&json!(want), &json!(want)), "{endpoint}");
    }
    assert_eq!(world.ask("DELETE", &path, Value::Null).await.status, 204);
    assert_eq!(world.ask("GET", &path, Value::Null).await.status, 404);
    assert_eq!(world.ask("DELETE", &path, Value::Null).await.status, 404);
}

/// Returns true if `text` is `whole` or the part of it that was played before an interruption.
pub fn is_begin_of(text: &Value, whole: &str) -> bool {
    let text = text.as_str().unwrap_or_default();
    text == whole
        || text
            .strip_suffix('\u{2026}')
            .is_some_and(|begin| !begin.is_empty() && whole.starts_with(begin))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_answers_a_call_receives_digits_and_hangs_up() {
    let world = World::start("").await;
    let server = AgentServer::start(|turn| match turn.body["turn"].as_u64() {
        Some(1) => reply("You pressed one and two. What else?", Value::Null),
        _ => reply("Goodbye.", json!("hangup")),
    })
    .await;
    world
        .with_agent(json!({
            "name": "Asha", "kind": "http", "endpoint": format!("{}/agent", server.url), "channels": ["voice"],
            "greeting": "Welcome. How can I help you?",
        }))
        .await;
    let keys = caller::parse_keys("12#w3w3w3w9#").expect("keys");
    let events = world.call(CallScript { keys, ..CallScript::default() }).await;
    assert!(business_hung_up(&events), "{events:#?}");
    assert!(heard_ms(&events) > 1_500, "{events:#?}");
    let turns = server.turns();
    let first = &turns[0];
    assert_eq!(first.path, "/agent");
    let want =
        json!({"type": "digits", "text": "12", "media": null, "digits": "12", "speech": null});
    assert_eq!(
        (&first.body["input"], &first.body["channel"]),
        (&want, &json!("call")),
        "{}",
        first.body
    );
    assert_eq!(
        first.body["user"],
        json!({"waId": "919412341234", "userId": null, "name": "Asha Verma"})
    );
    assert_eq!(first.body["number"], NUMBER);
    // A digit interrupted the prompt, so only the played part is in the history.
    assert!(
        is_begin_of(&first.body["history"][0]["text"], "Welcome. How can I help you?"),
        "{}",
        first.body
    );
    // Signed with the account's token, because the agent has no secret.
    let header = |name: &str| first.headers[name].to_str().unwrap().to_owned();
    assert_eq!(header("x-offhook-attempt"), "1");
    let signature = header("x-offhook-signature");
    let (time, hex) = signature.split_once(",v1=").unwrap();
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, AUTH_TOKEN.as_bytes());
    let text = [time.trim_start_matches("t=").as_bytes(), b".", &first.bytes].concat();
    assert_eq!(hex, hex::encode(aws_lc_rs::hmac::sign(&key, &text)));
    let second = &turns[1].body;
    let roles: Vec<_> =
        second["history"].as_array().unwrap().iter().map(|l| l["role"].as_str().unwrap()).collect();
    assert_eq!(
        (second["turn"].as_u64(), roles),
        (Some(2), vec!["assistant", "user", "assistant"]),
        "{second}"
    );
}

/// One message, one request, no conversation: the reply or the first error is shown.
/// A cough and an "mm-hm" of the caller, of at most 500 ms and without words, only pause a greeting.
#[tokio::test(flavor = "multi_thread")]
async fn a_cough_over_an_agents_greeting_does_not_end_it() {
    let (_, recogniser) = Endpoint::start(r#"{"text":"","segments":[]}"#).await;
    let world = World::start(&format!("[speech.transcribe]\nurl = \"{recogniser}\"\n")).await;
    let server = AgentServer::start(|_| reply("Goodbye.", json!("hangup"))).await;
    world
        .with_agent(json!({
            "name": "Asha", "kind": "http", "endpoint": server.url, "channels": ["voice"],
            "greeting": "Welcome to the restaurant. We are open every day from eleven in the morning to eleven at \
                night. Please tell us what we can do for you today, and we will see to it at once, or as soon as we can.",
        }))
        .await;
    let tone = |n: usize, hz: usize| ((n * hz % 16_000) as f32 / 16_000.0 - 0.5) * 9_000.0;
    let hum: Vec<i16> = (0..7_200).map(|n| tone(n, 125) as i16).collect();
    // Noise without a pitch, which decays.
    let mut noise = 1u32;
    let cough: Vec<i16> = (0..6_400)
        .map(|n| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((noise >> 16) as f32 / 65_536.0 * 14_000.0 - 7_000.0) * (1.0 - n as f32 / 9_000.0)
        })
        .map(|sample| sample as i16)
        .collect();
    let say = encoded(&[&silence(1_500), &hum, &silence(2_500), &cough, &silence(500)]);
    let hangup = HangupRule::AfterAnswer(std::time::Duration::from_secs(22));
    let script = CallScript { say, hangup, ..CallScript::default() };
    let events = world.sim.place_call(script).all().await;
    let uuid = events.iter().find_map(|event| match &event.kind {
        CallEventKind::CallKnown { call_uuid } => Some(call_uuid.clone()),
        _ => None,
    });
    let log =
        world.ask("GET", &format!("calls/{}/events", uuid.unwrap()), Value::Null).await.text();
    let (mut commands, mut played) = (Vec::new(), Vec::new());
    machine::replay::replay(log.as_bytes(), |step| {
        if let Input::Played { play, .. } = step.input {
            played.push(*play);
        }
        commands.extend(step.outputs.iter().filter_map(|output| match output {
            Output::Media { command: MediaCommand::PlayPause { play, on }, .. } => {
                Some((*play, *on))
            }
            Output::Media { command: MediaCommand::Stop { play }, .. } => {
                panic!("{play:?} was stopped: {log}")
            }
            _ => None,
        }));
    })
    .unwrap();
    let [(greeting, true), (_, false), (_, true), (_, false)] = commands[..] else {
        panic!("each is a pause: {commands:?} {log}")
    };
    assert!(played.contains(&greeting), "the greeting was played to its end: {log}");
    assert!(server.turns().is_empty(), "the agent was not asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_tried_with_one_message() {
    let world = World::start(&user("asha", AUTH_ID, "admin")).await;
    let server = AgentServer::start(|turn| match turn.body["input"]["text"].as_str() {
        Some("break") => AgentResponse::Status(500),
        Some("misspell") => AgentResponse::Json(json!({"replies": []})),
        _ => AgentResponse::Json(json!({
            "reply": [{"type": "text", "text": "Hello & welcome"}], "action": "escalate",
        })),
    })
    .await;
    let id =
        world.with_agent(json!({"name": "Asha", "kind": "http", "endpoint": server.url})).await;
    let path = format!("agents/{id}/try/");
    let tried = world.ask("POST", &path, json!({"text": "Hi"})).await.json();
    assert_eq!(
        (&tried["reply"], &tried["action"], &tried["error"]),
        (&json!([{"type": "text", "text": "Hello & welcome"}]), &json!("escalate"), &Value::Null)
    );
    let failed = world.ask("POST", &path, json!({"text": "break"})).await.json();
    assert_eq!(
        (&failed["reply"], failed["error"].as_str()),
        (&json!([]), Some("the agent answered with status 500"))
    );
    assert_eq!(server.turns().len(), 2, "no retry");
    let misspelt = world.ask("POST", &path, json!({"text": "misspell"})).await.json();
    let why = "the agent's answer is invalid: it has no `reply`, but the unknown key `replies`";
    assert_eq!(misspelt["error"], why);
    world.node.until_log("\"key\":\"replies\"").await;
    for (body, status) in [(json!({"text": " "}), 400), (json!({"txt": "Hi"}), 400)] {
        assert_eq!(world.ask("POST", &path, body).await.status, status);
    }
    let chats = world.ask("GET", "conversations/", Value::Null).await.json();
    assert_eq!(chats["items"], json!([]));
    assert!(world.notices("escalation").await.is_empty());
    let asha = Session::at(&world.node.public, "asha").await;
    let page = format!("/console/agents/{id}/");
    let shown = asha.post(&page, &[("do", "try"), ("text", "Hi")]).await.text();
    assert!(shown.contains("Hello &#38; welcome") && shown.contains("escalate"), "{shown}");
    let shown = asha.post(&page, &[("do", "try"), ("text", "break")]).await.text();
    assert!(shown.contains("the agent answered with status 500"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn four_trials_of_an_account_run_at_a_time() {
    let world = World::start("").await;
    let open = Arc::new(Mutex::new(Vec::new()));
    let kept = open.clone();
    let server = AgentServer::start(move |_| {
        let (sender, events) = tokio::sync::mpsc::channel(1);
        kept.lock().expect("senders").push(sender);
        AgentResponse::Events(events)
    })
    .await;
    let id =
        world.with_agent(json!({"name": "Asha", "kind": "http", "endpoint": server.url})).await;
    let path = format!("agents/{id}/try/");
    let tries = || async { world.ask("POST", &path, json!({"text": "Hi"})).await.json() };
    let fifth = async {
        server.until_requests(4).await;
        let refused = tries().await;
        open.lock().expect("senders").clear();
        refused
    };
    let (four, refused) =
        tokio::join!(futures_util::future::join_all((0..4).map(|_| tries())), fifth);
    let why = "too many trials and insights of the account are in progress; try again later";
    assert_eq!(refused["error"], why, "{refused}");
    assert!(four.iter().all(|tried| tried["error"] != why), "{four:?}");
    assert_eq!(server.turns().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_agent_is_retried_twice_and_escalates() {
    let webhook = format!(
        "[[webhook]]\nname = \"crm\"\naccount = \"{AUTH_ID}\"\nurl = \"APP/hook\"\nsecret = \"test-secret-of-a-webhook\"\n"
    );
    let world = World::start(&webhook).await;
    let server = AgentServer::start(|_| AgentResponse::Status(500)).await;
    world.app.xml("/hook", "");
    world
        .with_agent(json!({
            "name": "Asha", "kind": "http", "endpoint": server.url, "channels": ["voice"], "greeting": "Hello.",
        }))
        .await;
    let keys = caller::parse_keys("1#").expect("keys");
    let events = world.call(CallScript { keys, ..CallScript::default() }).await;
    assert!(business_hung_up(&events) && heard_ms(&events) > 1_500, "it says sorry: {events:#?}");
    let turns = server.turns();
    let attempts: Vec<_> =
        turns.iter().map(|t| t.headers["x-offhook-attempt"].to_str().unwrap()).collect();
    assert_eq!(attempts, ["1", "2", "3"]);
    let ids: Vec<_> = turns.iter().map(|t| &t.headers["x-offhook-event-id"]).collect();
    assert!(ids.iter().all(|id| *id == ids[0]));
    let notices = world.notices("escalation").await;
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert_eq!((&notices[0]["number"], notices[0]["callUuid"].is_string()), (&json!(NUMBER), true));
    let is_escalation = |seen: &ReceivedRequest| seen.json()["type"] == "conversation.escalated";
    let event = world.app.wait_where("/hook", is_escalation).await.json()["data"].clone();
    assert_eq!(
        (&event["reason"], &event["call"], &event["conversation"]),
        (&json!("agent_failed"), &notices[0]["callUuid"], &notices[0]["conversation"]),
        "{event}"
    );
    assert!(event["conversation"].is_string() && event["user"]["waId"].is_string(), "{event}");
    let is_end = |seen: &ReceivedRequest| seen.json()["type"] == "call.ended";
    world.app.wait_where("/hook", is_end).await;
    let conversation = format!("conversations/{}/", event["conversation"].as_str().unwrap());
    let conversation = world.ask("GET", &conversation, json!(null)).await.json();
    let text = conversation["lastMessage"]["text"].as_str().unwrap();
    assert!(text.ends_with(" s, a person is needed"), "{text}");
    assert_eq!(conversation["unread"], 1);
}

/// The prompt pauses while the caller speaks. That time does not count as heard.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_knows_what_a_caller_heard_before_speaking() {
    const GREETING: &str = "We open at nine. We close at six. A table costs nothing. Our menu is long. \
        Children eat for half. Dogs may come in, too.";
    let server = AgentServer::start(|_| reply("Goodbye.", json!("hangup"))).await;
    let (_hearing, transcribe) = Endpoint::start(r#"{"text":"A table for four."}"#).await;
    let world = World::start(&format!("[speech.transcribe]\nurl = \"{transcribe}\"\n")).await;
    world
        .with_agent(json!({
            "name": "Asha", "kind": "http", "endpoint": format!("{}/agent", server.url),
            "channels": ["voice"], "greeting": GREETING,
        }))
        .await;
    let speech =
        say(1_000, "I would like to book a table for four people at seven on Friday, please.");
    let script =
        CallScript { say: speech.await, hangup: HangupRule::Never, ..CallScript::default() };
    let events = world.call(script).await;
    assert!(business_hung_up(&events), "{events:#?}");
    let history = server.turns()[0].body["history"].clone();
    let greeting = history[0]["text"].as_str().expect("the greeting");
    // Two seconds at most: some 30 letters.
    assert!(is_begin_of(&history[0]["text"], GREETING) && greeting.len() < 50, "{history}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_models_answer_plays_from_its_first_sentence() {
    let (sender, events) = mpsc::channel(64);
    let held = std::sync::Mutex::new(Some(events));
    let server = AgentServer::start(move |_| match held.lock().unwrap().take() {
        Some(events) => AgentResponse::Events(events),
        None => chunks(&["Good", "bye.", "\n[hang", "up]"]),
    })
    .await;
    let (hearing, transcribe) = Endpoint::start(r#"{"text":"What is it?"}"#).await;
    let extra = format!(
        "[speech.transcribe]\nurl = \"{transcribe}\"\n[model]\nurl = \"{}/v1\"\nname = \"small\"\napi_key = \"model-key\"\n",
        server.url
    );
    let world = World::start(&extra).await;
    world
        .with_agent(json!({
            "name": "Asha", "kind": "llm", "channels": ["voice"], "greeting": "Hello.", "instructions": "You sell tea.",
        }))
        .await;
    let speech = say(1_500, "What is it?").await;
    let calling = tokio::spawn({
        let script = CallScript { say: speech, hangup: HangupRule::Never, ..CallScript::default() };
        let call = world.sim.place_call(script);
        async move { call.all().await }
    });
    let asked = server.until_requests(1).await.remove(0);
    assert_eq!(asked.path, "/v1/chat/completions");
    assert_eq!((&asked.body["model"], &asked.body["stream"]), (&json!("small"), &json!(true)));
    assert_eq!(asked.headers["authorization"], "Bearer model-key");
    let messages = asked.body["messages"].as_array().unwrap();
    assert!(messages[0]["content"].as_str().unwrap().starts_with("You sell tea."), "{messages:?}");
    assert_eq!(messages.last().unwrap(), &json!({"role": "user", "content": "What is it?"}));
    assert_eq!(messages[1], json!({"role": "assistant", "content": "Hello."}));
    sender.try_send(chunk("It is a very fine green tea. ")).unwrap();
    // The document with the audio URL is available while the model still generates.
    world.until_document("/sound/").await;
    sender.try_send(chunk("It comes from the mountains.")).unwrap();
    sender.try_send(chunk("\n[hangup]")).unwrap();
    drop(sender);
    let events = tokio::time::timeout(std::time::Duration::from_secs(60), calling)
        .await
        .expect("an end")
        .unwrap();
    assert!(business_hung_up(&events), "{events:#?}");
    assert!(heard_ms(&events) > 3_000, "both sentences: {events:#?}");
    assert!(!hearing.received().is_empty());
}

/// The caller may hang up, or go on, while the reply is played that announces a colleague.
#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_escalation_is_reported_before_it_is_spoken_and_without_an_apology() {
    let (sender, events) = mpsc::channel(64);
    let held = std::sync::Mutex::new(Some(events));
    let server = AgentServer::start(move |_| match held.lock().unwrap().take() {
        Some(events) => AgentResponse::Events(events),
        None => AgentResponse::Status(500),
    })
    .await;
    let model = format!("[model]\nurl = \"{}/v1\"\nname = \"small\"\n", server.url);
    let world = World::start(&model).await;
    world
        .with_agent(json!({
            "name": "Asha", "kind": "llm", "channels": ["voice"], "greeting": "Hello.", "instructions": "You sell tea.",
        }))
        .await;
    let calling = tokio::spawn({
        let keys = caller::parse_keys("1#").expect("keys");
        let script = CallScript { keys, hangup: HangupRule::Never, ..CallScript::default() };
        let call = world.sim.place_call(script);
        async move { call.all().await }
    });
    server.until_requests(1).await;
    sender.try_send(chunk("I understand. ")).unwrap();
    world.until_document("/sound/").await;
    // It takes seconds to speak.
    let promise = "I will ask one of my colleagues to look at this with you as soon as they can.";
    sender.try_send(chunk(promise)).unwrap();
    sender.try_send(chunk("\n[escalate]")).unwrap();
    sender.try_send("[DONE]".to_owned()).unwrap();
    drop(sender);
    let mut every = tokio::time::interval(std::time::Duration::from_millis(50));
    let call = loop {
        every.tick().await;
        if let [notice] = &world.notices("escalation").await[..] {
            break notice["callUuid"].as_str().unwrap().to_owned();
        }
    };
    let live = world.ask("GET", &format!("calls/{call}/"), Value::Null).await.json();
    assert_eq!(live["status"], "in-progress", "{live}");
    let events = tokio::time::timeout(std::time::Duration::from_secs(60), calling)
        .await
        .expect("an end")
        .unwrap();
    assert!(business_hung_up(&events), "{events:#?}");
    let log = world.ask("GET", &format!("calls/{call}/events"), Value::Null).await.text();
    assert!(!log.contains("Sorry"), "{log}");
    assert_eq!(world.notices("escalation").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_transfer_is_carried_out_if_the_caller_goes_on() {
    let (sender, events) = mpsc::channel(64);
    let held = std::sync::Mutex::new(Some(events));
    let server = AgentServer::start(move |_| match held.lock().unwrap().take() {
        Some(events) => AgentResponse::Events(events),
        None => AgentResponse::Status(500),
    })
    .await;
    let world = World::start("").await;
    world
        .with_agent(json!({
            "name": "Asha", "kind": "http", "endpoint": server.url, "channels": ["voice"], "greeting": "Hello.",
        }))
        .await;
    let keys = || caller::parse_keys("1#").expect("keys");
    let script = CallScript { keys: keys(), hangup: HangupRule::Never, ..CallScript::default() };
    let call = world.sim.place_call(script);
    server.until_requests(1).await;
    let text = |text: &str| json!({"reply": [{"type": "text", "text": text}]}).to_string();
    sender.try_send(text("I understand. ")).unwrap();
    world.until_document("/sound/").await;
    let promise = "I will connect you with one of my colleagues, who will look at this with you. \
        That takes some seconds, in which you may hear music or silence, so please hold the line.";
    sender.try_send(text(promise)).unwrap();
    sender.try_send(json!({"action": {"transfer": "sip:desk"}}).to_string()).unwrap();
    drop(sender);
    // The text is stored when the reply is complete.
    let complete = "SELECT count(*), CAST(0 AS BIGINT), CAST(0 AS BIGINT), CAST(0 AS BIGINT) FROM call_said WHERE body LIKE '%hold the line.'";
    let mut every = tokio::time::interval(std::time::Duration::from_millis(20));
    while counts(world.node.dir.path(), complete).await.0 == 0 {
        every.tick().await;
    }
    call.control().press(keys()).await;
    world.until_document("sip:desk@").await;
    assert_eq!(server.turns().len(), 1, "the agent is not asked again");
}

/// The ringing that the caller hears is not the agent's reply.
#[tokio::test(flavor = "multi_thread")]
async fn the_transcript_has_the_whole_reply_before_a_transfer() {
    const PROMISE: &str = "I will connect you with a colleague who knows everything about orders.";
    let server = AgentServer::start(|_| reply(PROMISE, json!({"transfer": "sip:desk"}))).await;
    let world = World::start("").await;
    let endpoint = json!({"username": "desk", "password": PASSWORD, "alias": "Desk"}).to_string();
    let url = format!("{}/v1/Account/{AUTH_ID}/Endpoint/", world.node.public);
    let headers = [("authorization", &*basic()), ("content-type", "application/json")];
    assert_eq!(http::send("POST", &url, &headers, endpoint).await.status, 201);
    let (mut phone, _) = Phone::registered(&world.node.public, "desk", PASSWORD).await;
    world
        .with_agent(json!({
            "name": "Asha", "kind": "http", "endpoint": server.url, "channels": ["voice"], "greeting": "Hello.",
        }))
        .await;
    let keys = caller::parse_keys("1#").expect("keys");
    let script = CallScript { keys, hangup: HangupRule::Never, ..CallScript::default() };
    let call = world.sim.place_call(script);
    let ring = phone.receive("ring").await;
    phone.say(json!({"type": "reject", "call": ring["call"]})).await;
    let events = tokio::time::timeout(std::time::Duration::from_secs(60), call.all()).await;
    assert!(business_hung_up(&events.expect("an end")));
    let conversations = world.ask("GET", "conversations/", Value::Null).await.json();
    let id = conversations["items"][0]["id"].as_str().unwrap();
    let path = format!("conversations/{id}/timeline/");
    let mut every = tokio::time::interval(std::time::Duration::from_millis(50));
    let transcript = loop {
        every.tick().await;
        let timeline = world.ask("GET", &path, Value::Null).await.json();
        let call = timeline["items"][0]["call"].clone();
        if call["transcript"].is_array() {
            break call["transcript"].clone();
        }
    };
    let has_promise = |line: &Value| line["text"] == PROMISE;
    assert!(transcript.as_array().unwrap().iter().any(has_promise), "{transcript}");
}
