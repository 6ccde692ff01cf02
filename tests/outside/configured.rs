//! The effect of a number's settings on its messages, deliveries and calls.

use serde_json::{Value, json};
use sim::{CallScript, CalleeAction, EventOrder, HangupRule};

use crate::outbound::{World, user, world};
use crate::support::agent::{AgentServer, reply};
use crate::support::app::ReceivedRequest;
use crate::support::chat::{Chat, USER, crm};
use crate::support::http;
use crate::support::node::{API_KEY, NUMBER, NodeConfig};

const OTHER_USER: &str = "919412340001";
/// A second number of the same WABA.
const SECOND: &str = "918035737459";
const SECOND_ID: &str = "106540352242999";

/// Sets the number's webhook URL to the application's `/form`.
fn with_form(node_config: &mut NodeConfig) {
    node_config.number_extra =
        format!("webhook_url = \"{}\"\n", node_config.answer_url.replace("/answer", "/form"));
}

/// Changes a number through `PATCH` of the number API.
async fn set(world: &World, number: &str, body: Value) -> Value {
    let url = format!("{}/api/v1/phone-numbers/{number}/", world.node.public);
    let answer = http::send("PATCH", &url, &[("x-api-key", API_KEY)], body.to_string()).await;
    assert_eq!(answer.status, 200, "{body}: {}", answer.text());
    answer.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn s0_06_the_configuration_type_routes_messages_to_the_webhook_url_or_the_agent() {
    let server = AgentServer::start(|_| reply("I am the agent.", Value::Null)).await;
    let chat = Chat::start_with(crm, with_form).await;
    chat.send_text(USER, "Is anybody there?").await;
    let seen = chat.app.wait_where("/form", |seen| seen.param("Body") == "Is anybody there?").await;
    assert_eq!((seen.param("From"), seen.param("To")), (USER, NUMBER));
    assert!(server.turns().is_empty(), "in the first mode no agent is asked");
    let path = format!("phone-numbers/{NUMBER}/");
    let (status, shown) = chat.ask("PATCH", &path, json!({"configurationType": "agent"})).await;
    assert_eq!((status, &shown["configurationType"]), (200, &json!("agent")), "{shown}");
    let agent = chat.agent(&server.url).await;
    chat.connect(&agent).await;
    chat.send_text(OTHER_USER, "Is anybody there?").await;
    let id = chat.id_of(OTHER_USER).await;
    chat.until(&id, |items| items.iter().any(|item| item["text"] == "I am the agent.")).await;
    assert_eq!(server.turns().len(), 1);
    assert_eq!(
        chat.app.count("/form"),
        1,
        "in the second one nothing is posted there, statuses included"
    );
    // A user who wrote earlier is also answered by the agent, starting with the next message.
    chat.send_text(USER, "And now?").await;
    let first = chat.id_of(USER).await;
    chat.until(&first, |items| items.iter().any(|item| item["text"] == "I am the agent.")).await;
    // Back to a webhook: the agent stays connected, but the configuration type sends messages to
    // the URL.
    let again = json!({"configurationType": "webhook", "webhookUrl": chat.app.url("/form")});
    let (status, shown) = chat.ask("PATCH", &path, again).await;
    assert_eq!(
        (status, &shown["defaultRouting"], &shown["activeAgent"]),
        (200, &json!("webhook"), &json!(null)),
        "{shown}"
    );
    for user in [USER, OTHER_USER] {
        chat.send_text(user, "To a person, please").await;
        chat.app
            .wait_where("/form", |seen| {
                seen.param("From") == user && seen.param("Body").ends_with("please")
            })
            .await;
    }
    assert_eq!(server.turns().len(), 2);
    // In the opposite order: first the agent, then the type.
    chat.connect(&agent).await;
    chat.ask("PATCH", &path, json!({"configurationType": "agent"})).await;
    chat.send_text(USER, "Repeat password").await;
    chat.until(&first, |items| {
        items.iter().filter(|item| item["text"] == "I am the agent.").count() == 2
    })
    .await;
    // A new URL alone does not disconnect the agent.
    let (_, shown) =
        chat.ask("PATCH", &path, json!({"webhookUrl": chat.app.url("/elsewhere")})).await;
    assert_eq!(shown["activeAgent"], json!(agent), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s0_10_a_webhook_url_set_later_receives_the_next_messages_of_known_users() {
    let chat = Chat::start_with(|_| String::new(), |_| ()).await;
    chat.send_text(USER, "Nobody hears this").await;
    chat.id_of(USER).await;
    chat.ask(
        "PATCH",
        &format!("phone-numbers/{NUMBER}/"),
        json!({"webhookUrl": chat.app.url("/form")}),
    )
    .await;
    chat.send_text(USER, "But this").await;
    chat.app.wait_where("/form", |seen| seen.param("Body") == "But this").await;
}

/// A main account's webhook also serves its subaccounts' numbers.
#[tokio::test(flavor = "multi_thread")]
async fn s0_23_mapping_a_number_and_undoing_it_loses_no_message() {
    const SUB: &str = "SATESTOFFHOOK0000001";
    let chat = Chat::start_with(crm, |node_config| {
        with_form(node_config);
        let parent = crate::support::node::AUTH_ID;
        node_config.extra.push_str(&format!(
            "[[account]]\nauth_id = \"{SUB}\"\nauth_token = \"test-token-of-an-account\"\nparent = \"{parent}\"\n"
        ));
    })
    .await;
    let check_received = async |text: &str, by_webhook: bool| {
        chat.send_text(USER, text).await;
        chat.app.wait_where("/form", |seen| seen.param("Body") == text).await;
        if by_webhook {
            chat.message_at("/hook", text).await;
        }
    };
    let map = async |account: &str| {
        let (status, shown) =
            chat.ask("PATCH", "wabas/1029384756/", json!({ "account": account })).await;
        assert_eq!(status, 200, "{shown}");
    };
    check_received("by the URL alone", false).await;
    map(SUB).await;
    check_received("as the subaccount's", false).await;
    map(crate::support::node::AUTH_ID).await;
    check_received("as before", false).await;
    let (status, shown) = chat.subscribe(None, true).await;
    assert_eq!(status, 200, "{shown}");
    let number = chat.get(&format!("phone-numbers/{NUMBER}/")).await;
    assert_eq!(
        (&number["id"], &number["defaultWebhook"]),
        (&shown["id"], &shown["defaultWebhook"]),
        "s4.5"
    );
    check_received("by both", true).await;
    map(SUB).await;
    assert_eq!(
        chat.get(&format!("phone-numbers/{NUMBER}/")).await["defaultWebhook"],
        shown["defaultWebhook"]
    );
    check_received("by both, as the subaccount's", true).await;
    map(crate::support::node::AUTH_ID).await;
    check_received("by both, back again", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s0_10_text_media_replies_and_statuses_are_four_deliveries() {
    let chat = Chat::start_with(crm, with_form).await;
    chat.send_text(USER, "Good evening").await;
    let image =
        json!({"id": "7", "mime_type": "image/jpeg", "sha256": "AAAA", "caption": "The door"});
    chat.send_message(USER, json!({"type": "image", "image": image})).await;
    let button = json!({"type": "button_reply", "button_reply": {"id": "YES", "title": "Yes"}});
    let context = json!({"from": NUMBER, "id": "wamid.out"});
    let replied = json!({"type": "interactive", "interactive": button, "context": context});
    chat.send_message(USER, replied).await;
    let of = |kind: &'static str| move |seen: &ReceivedRequest| seen.param("ContentType") == kind;
    assert_eq!(chat.app.wait_where("/form", of("text")).await.param("Body"), "Good evening");
    let media = chat.app.wait_where("/form", of("media")).await;
    assert_eq!(
        (media.param("MediaCount"), media.param("Caption0")),
        ("1", "The door"),
        "{:?}",
        media.params
    );
    assert!(media.param("Media0").starts_with(&chat.node.public), "{:?}", media.params);
    let reply = chat.app.wait_where("/form", of("button")).await;
    assert_eq!(
        (reply.param("ButtonText"), reply.param("ContextWhatsappMessageID")),
        ("Yes", "wamid.out")
    );
    let id = chat.id_of(USER).await;
    let (status, sent) = chat
        .ask(
            "POST",
            &format!("conversations/{id}/messages/"),
            json!({"type": "text", "text": "Hello"}),
        )
        .await;
    assert_eq!(status, 202, "{sent}");
    let status = chat.app.wait_where("/form", |seen| seen.param("Status") == "delivered").await;
    assert_eq!(
        (status.param("MessageUUID"), status.param("To")),
        (sent["id"].as_str().unwrap(), USER),
        "{:?}",
        status.params
    );
    let timeline = chat.get(&format!("conversations/{id}/timeline/")).await;
    let items = timeline["items"].as_array().unwrap();
    let message = items.iter().find(|item| item["id"] == sent["id"]).unwrap();
    let sent_at = message["at"].as_str().unwrap().get(..19).unwrap().replace('T', " ");
    assert_eq!(status.param("SentTime"), sent_at, "{:?}", status.params);
    for seen in chat.app.requests().iter().filter(|seen| seen.path == "/form") {
        assert_eq!(seen.method, "POST");
        assert!(seen.headers.contains_key("x-plivo-signature-v3"), "{:?}", seen.headers);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s0_11_unacknowledged_deliveries_are_retried_and_shown_as_failing() {
    let chat = Chat::start_with(crm, with_form).await;
    assert_eq!(chat.subscribe(None, false).await.0, 200);
    for path in ["/form", "/hook"] {
        chat.app.route(path, |_| (500, String::new()));
    }
    chat.send_text(USER, "Hello?").await;
    chat.app.wait("/form").await;
    chat.app.wait("/hook").await;
    // Failures are counted and visible: the number's own URL in the metric, the webhook also in its
    // delivery log.
    let crm = chat.webhook("crm").await;
    let mut every = tokio::time::interval(std::time::Duration::from_millis(50));
    for n in 0..400 {
        every.tick().await;
        let labels = [("kind", "message"), ("outcome", "retry")];
        let counted = chat.node.metric("offhook_callback_total", &labels).await >= 1.0;
        let waiting = chat.get(&format!("webhooks/{crm}/deliveries/")).await["items"][0].clone();
        assert_ne!(waiting["state"], "delivered", "{waiting}");
        if counted && waiting["last"].as_str().is_some_and(|why| why.contains("500")) {
            break;
        }
        assert!(n < 399, "{waiting}; log:\n{}", chat.node.log());
    }
    for path in ["/form", "/hook"] {
        chat.app.route(path, |_| (200, String::new()));
    }
    let done = chat.delivery(&crm, "delivered").await;
    assert!(done["attempts"].as_u64().unwrap() >= 2, "{done}");
    // An event before the failures, and the message to the number's own URL and to the webhook.
    let labels = [("kind", "message"), ("outcome", "delivered")];
    chat.node.until_metric("offhook_callback_total", &labels, 3.0).await;
    // A retry keeps its id.
    let ids: Vec<String> = chat
        .app
        .requests()
        .iter()
        .filter(|s| s.path == "/form")
        .map(|s| s.param("MessageUUID").to_owned())
        .collect();
    assert!(ids.len() >= 2 && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s0_14_dial_needs_calling_enabled_for_the_caller_id() {
    let world = world(|node_config, _| {
        node_config.limits = "allow_wa_bridge = true".to_owned();
        node_config.accept_wait_ms = 0;
        node_config.extra.push_str(&format!(
            "[[number]]\nnumber = \"{SECOND}\"\nphone_number_id = \"{SECOND_ID}\"\nwaba = \"1029384756\"\n"
        ));
    })
    .await;
    let known = json!({"number": SECOND, "phone_number_id": SECOND_ID, "waba": "1029384756"});
    let url = format!("{}/_sim/numbers", world.sim.url());
    assert_eq!(http::send("POST", &url, &[], known.to_string()).await.status, 204);
    let document = format!(
        "<Response><Dial callType=\"whatsapp\" callerId=\"{SECOND}\" action=\"{}\"><User>{}</User></Dial></Response>",
        world.app.url("/dialled"),
        crate::outbound::USER
    );
    world.app.xml("/unused", document).xml("/dialled", "<Response><Hangup/></Response>");
    let caller = || CallScript {
        hangup: HangupRule::Never,
        from: OTHER_USER.to_owned(),
        ..CallScript::default()
    };
    world.sim.place_call(caller()).all().await;
    let refused = world.app.wait("/dialled").await;
    assert_eq!(
        (refused.param("DialStatus"), refused.param("DialError")),
        ("failed", "caller_id_not_enabled")
    );
    let labels = [("direction", "outbound"), ("result", "calling_disabled")];
    assert_eq!(world.node.metric("offhook_admission_total", &labels).await, 1.0);
    // Enabled: the same document rings the user.
    set(&world, SECOND, json!({"callingEnabled": true, "answerUrl": world.app.url("/unused")}))
        .await;
    let callee = CallScript {
        hangup: HangupRule::AfterAnswer(std::time::Duration::from_millis(500)),
        ..user(CalleeAction::Accept, EventOrder::ConnectFirst)
    };
    let rung = world.sim.expect_call(callee);
    let (_, there) = tokio::join!(world.sim.place_call(caller()).all(), rung.all());
    let done =
        world.app.wait_where("/dialled", |seen| seen.param("DialStatus") == "completed").await;
    assert_eq!(done.param("DialError"), "(absent)", "{there:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s0_18_s0_25_the_answer_url_is_requested_by_post_and_a_live_call_keeps_it() {
    let world = world(|node_config, _| node_config.accept_wait_ms = 0).await;
    for path in ["/first", "/second"] {
        let next = world.app.url(&format!("{path}/next"));
        let next = format!("<Response><Wait length=\"2\"/><Redirect>{next}</Redirect></Response>");
        world.app.xml(path, next).xml(&format!("{path}/next"), "<Response><Hangup/></Response>");
    }
    let to = |path: &str| json!({"answerUrl": world.app.url(path)});
    set(&world, NUMBER, to("/first")).await;
    let caller = || CallScript {
        hangup: HangupRule::Never,
        from: OTHER_USER.to_owned(),
        ..CallScript::default()
    };
    let call = world.sim.place_call(caller());
    let asked = world.app.wait("/first").await;
    assert_eq!(asked.method, "POST");
    assert!(
        asked.headers["content-type"]
            .to_str()
            .unwrap()
            .starts_with("application/x-www-form-urlencoded")
    );
    for (name, value) in [
        ("From", OTHER_USER),
        ("To", NUMBER),
        ("Direction", "inbound"),
        ("CallStatus", "ringing"),
        ("Event", "StartApp"),
    ] {
        assert_eq!(asked.param(name), value, "{name}: {:?}", asked.params);
    }
    let call_uuid = asked.param("CallUUID").to_owned();
    assert!(uuid::Uuid::parse_str(&call_uuid).is_ok());
    // Save the panel with another URL during the call.
    set(&world, NUMBER, to("/second")).await;
    call.all().await;
    let next = world.app.wait("/first/next").await;
    assert_eq!(next.param("CallUUID"), call_uuid);
    let end = world.app.wait_where("/first", |seen| seen.param("Event") == "Hangup").await;
    assert_eq!(end.param("CallUUID"), call_uuid, "its end is told where it began");
    assert_eq!(world.app.count("/second"), 0);
    // The next call uses only the new URL.
    world.sim.place_call(caller()).all().await;
    world.app.wait_where("/second", |seen| seen.param("Event") == "Hangup").await;
    assert_eq!(
        (
            world.app.count("/first"),
            world.app.count("/first/next"),
            world.app.count("/second/next")
        ),
        (2, 1, 1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn s0_19_an_invalid_document_ends_the_call_and_the_fault_is_shown() {
    let world = world(|node_config, _| node_config.accept_wait_ms = 0).await;
    let document = "<Response>\n  <Speak>never heard</Speak>\n  <Speek/>\n</Response>";
    world.app.xml("/unused", document);
    world
        .sim
        .place_call(CallScript { hangup: HangupRule::Never, ..CallScript::default() })
        .all()
        .await;
    let end = world.app.wait_where("/unused", |seen| seen.param("Event") == "Hangup").await;
    assert_eq!(end.param("HangupCauseCode"), "8011", "{:?}", end.params);
    let uuid = end.param("CallUUID");
    let head = [("x-api-key", API_KEY)];
    world.node.record(uuid).await;
    let call = http::send("GET", &format!("{}/api/v1/calls/{uuid}/", world.node.public), &head, "")
        .await
        .json();
    let check =
        http::send("POST", &format!("{}/api/v1/xml/check/", world.node.public), &head, document)
            .await
            .json();
    assert_eq!(call["findings"], check["findings"], "the call says what the linter says");
    let finding = &check["findings"][0];
    assert_eq!((&finding["severity"], &finding["line"]), (&json!("error"), &json!(3)), "{check}");
    let log =
        http::send("GET", &format!("{}/api/v1/calls/{uuid}/events", world.node.public), &head, "")
            .await
            .text();
    let place =
        format!("\"rule\":{},\"severity\":\"error\",\"line\":3,\"column\":3", finding["rule"]);
    assert!(log.contains(&place), "{place} in {log}");
    // `offhook xml check` reports the same.
    let file = world.node.dir.path().join("answer.xml");
    std::fs::write(&file, document).unwrap();
    let run = std::process::Command::new(env!("CARGO_BIN_EXE_offhook"))
        .args(["xml", "check", "--json"])
        .arg(&file)
        .output()
        .expect("the linter");
    let printed: Value = serde_json::from_slice(&run.stdout).expect("one object");
    assert_eq!((run.status.code(), &printed["findings"]), (Some(1), &check["findings"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn s0_23_calls_of_a_mapped_number_count_for_the_subaccount() {
    const SUB: &str = "SATESTOFFHOOK0000001";
    let parent = crate::support::node::AUTH_ID;
    let world = world(|node_config, _| {
        node_config.extra.push_str(&format!(
            "[[account]]\nauth_id = \"{SUB}\"\nauth_token = \"test-token-of-subaccount\"\nparent = \"{parent}\"\ncps = 1\n"
        ));
    })
    .await;
    world.app.xml("/unused", "<Response><Hangup reason=\"busy\"/></Response>");
    let url = format!("{}/api/v1/wabas/1029384756/", world.node.public);
    let given =
        http::send("PATCH", &url, &[("x-api-key", API_KEY)], json!({ "account": SUB }).to_string())
            .await;
    assert_eq!(given.status, 200, "{}", given.text());
    // The subaccount's limit of one call per second, although the main account has a hundred.
    let caller = |n: u8| CallScript { from: format!("9194123400{n:02}"), ..CallScript::default() };
    let calls: Vec<_> = (0..3).map(|n| world.sim.place_call(caller(n))).collect();
    for call in calls {
        call.all().await;
    }
    let refused = world.node.metric("offhook_admission_total", &[("result", "cps_exceeded")]).await;
    assert!(refused >= 1.0, "{refused}");
    let asked = world.app.wait_where("/unused", |seen| seen.param("Event") == "StartApp").await;
    assert_eq!(asked.param("ParentAuthID"), parent, "{:?}", asked.params);
    let path = format!("{}/v1/Account/{SUB}/Call/", world.node.public);
    let basic = {
        use base64::Engine as _;
        format!(
            "Basic {}",
            base64::engine::general_purpose::STANDARD
                .encode(format!("{SUB}:test-token-of-subaccount"))
        )
    };
    world.node.record(asked.param("CallUUID")).await;
    let listed = http::send("GET", &path, &[("authorization", &basic)], "").await.json();
    assert_eq!(
        listed["objects"].as_array().map(Vec::is_empty),
        Some(false),
        "in its own list: {listed}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn s0_27_a_disconnected_number_neither_delivers_nor_sends() {
    let chat = Chat::start_with(crm, with_form).await;
    assert_eq!(chat.subscribe(None, false).await.0, 200);
    chat.send_text(USER, "before").await;
    chat.message_at("/hook", "before").await;
    let id = chat.id_of(USER).await;
    let number = format!("phone-numbers/{NUMBER}/");
    let (status, gone) = chat.ask("POST", &format!("{number}disconnect/"), Value::Null).await;
    assert_eq!((status, &gone["connected"]), (200, &json!(false)), "{gone}");
    chat.send_text(USER, "while it was out").await;
    let text = json!({"type": "text", "text": "Hello"});
    let (status, refused) = chat.ask("POST", &format!("conversations/{id}/messages/"), text).await;
    assert!((400..500).contains(&status), "{status}: {refused}");
    let (status, refused) =
        chat.ask("POST", &format!("permissions/{NUMBER}/{USER}/request/"), json!({})).await;
    assert!((400..500).contains(&status), "{status}: {refused}");
    let order =
        json!({"from": NUMBER, "to": USER, "answer_url": chat.app.url("/answer")}).to_string();
    let basic = {
        use base64::Engine as _;
        let (id, token) = (crate::support::node::AUTH_ID, crate::support::node::AUTH_TOKEN);
        format!(
            "Basic {}",
            base64::engine::general_purpose::STANDARD.encode(format!("{id}:{token}"))
        )
    };
    let url = format!("{}/v1/Account/{}/Call/", chat.node.public, crate::support::node::AUTH_ID);
    let headers = [("authorization", basic.as_str()), ("content-type", "application/json")];
    let call = http::send("POST", &url, &headers, order).await;
    assert!((400..500).contains(&call.status), "{}", call.text());
    // After a reconnect with a new URL the next message is delivered, and nothing of the earlier
    // one was.
    assert_eq!(chat.ask("POST", &format!("{number}reconnect/"), Value::Null).await.0, 200);
    let again = json!({"configurationType": "webhook", "webhookUrl": chat.app.url("/form")});
    assert_eq!(chat.ask("PATCH", &number, again).await.0, 200);
    chat.send_text(USER, "after").await;
    chat.app.wait_where("/form", |seen| seen.param("Body") == "after").await;
    let is_late_message = |seen: &ReceivedRequest| {
        seen.body.contains("while+it+was+out") || seen.body.contains("while it was out")
    };
    assert!(!chat.app.requests().iter().any(is_late_message));
}
