//! Call control over REST: the responses, and the commands sent to live calls.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Answer, MAIN, OTHER, Running, SUB, run, uuid};
use machine::{Command, Legs, OverlayKind, Sound};
use model::Method;

impl Running {
    /// Posts a JSON body.
    async fn asks(&self, who: &str, path: &str, body: &Value) -> Answer {
        self.asks_as(who, path, "application/json", &body.to_string()).await
    }

    async fn asks_as(&self, who: &str, path: &str, kind: &str, body: &str) -> Answer {
        let basic = STANDARD.encode(format!("{who}:token"));
        let head = format!("authorization: Basic {basic}\r\ncontent-type: {kind}\r\n");
        self.ask("POST", &format!("/v1/Account/{who}/{path}"), &head, body).await
    }

    fn commands(&self) -> Vec<Command> {
        std::mem::take(&mut *self.calls.commands.lock().unwrap())
            .into_iter()
            .map(|(_, command)| command)
            .collect()
    }
}

const URL: &str = "https://app.example.com/next";

fn at(call: u128, what: &str) -> String {
    format!("Call/{}/{what}", uuid(call))
}

fn files(command: &Command) -> Vec<String> {
    let Command::Play { overlay: aside, .. } = command else { panic!("{command:?}") };
    aside
        .items
        .iter()
        .map(|item| match &item.sound {
            Sound::File { url } => url.0.to_string(),
            other => panic!("{other:?}"),
        })
        .collect()
}

#[tokio::test]
async fn passes_commands_to_a_live_call() {
    let node = run().await;
    let play = json!({"urls": ["https://a.example.com/1.mp3", "https://a.example.com/2.mp3"], "length": "30",
        "legs": "aleg", "loop": true, "mix": "false", "callback_url": "https://a.example.com/ignored"});
    let answer = node.asks(MAIN, &at(101, "Play/"), &play).await;
    assert_eq!(
        (answer.status, &answer.json()["message"]),
        (202, &json!("play started")),
        "{}",
        answer.body
    );
    assert!(answer.json()["api_id"].is_string());
    let commands = node.commands();
    assert_eq!(files(&commands[0]), ["https://a.example.com/1.mp3", "https://a.example.com/2.mp3"]);
    let Command::Play { legs: Legs::A, overlay: aside } = &commands[0] else {
        panic!("{commands:?}")
    };
    assert_eq!(
        (aside.kind, aside.repeat, aside.mix, aside.length_ms),
        (OverlayKind::Play, true, false, Some(30_000))
    );

    // A form body, as old clients send it, with the default mode.
    let answer = node
        .asks_as(
            MAIN,
            &at(101, "Play"),
            "application/x-www-form-urlencoded",
            "urls=https://a.example.com/1.mp3&legs=both",
        )
        .await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    let commands = node.commands();
    let Command::Play { legs: Legs::Both, overlay: aside } = &commands[0] else {
        panic!("{commands:?}")
    };
    assert_eq!((aside.repeat, aside.mix, aside.length_ms), (false, true, None));

    let speak = json!({"text": "Hello", "voice": "MAN", "language": "en-GB"});
    let answer = node.asks(MAIN, &at(101, "Speak/"), &speak).await;
    assert_eq!((answer.status, &answer.json()["message"]), (202, &json!("speak started")));
    let commands = node.commands();
    assert!(
        matches!(&commands[0], Command::Play { overlay: aside, .. } if aside.kind == OverlayKind::Speak),
        "{commands:?}"
    );
    let digits =
        node.asks(MAIN, &at(101, "DTMF/"), &json!({"digits": "1w2#", "leg": "aleg"})).await;
    assert_eq!((digits.status, &digits.json()["message"]), (202, &json!("digits sent")));
    assert_eq!(node.commands(), [Command::SendDigits { legs: Legs::A, digits: "1w2#".to_owned() }]);
    for (what, kind) in [("Play/", OverlayKind::Play), ("Speak/", OverlayKind::Speak)] {
        let stopped = node.plivo(MAIN, "DELETE", &at(101, what)).await;
        assert_eq!((stopped.status, stopped.body.as_str()), (204, ""));
        assert_eq!(node.commands(), [Command::StopPlay { kind }]);
    }

    let transfer = json!({"legs": "aleg", "aleg_url": URL, "aleg_method": "get", "bleg_url": ""});
    let mut answer = node.asks(MAIN, &at(101, ""), &transfer).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    let mut body = answer.json();
    body["api_id"].take();
    let expected = json!({"api_id": null, "message": "call transfered", "call_uuids": [uuid(101).to_string()]});
    assert_eq!(body, expected);
    let commands = node.commands();
    let Command::Transfer { aleg: Some(target), bleg: None } = &commands[0] else {
        panic!("{commands:?}")
    };
    assert_eq!((&*target.url.0, target.method), (URL, Method::Get));
    answer = node.asks(MAIN, &at(101, ""), &json!({"aleg_url": URL})).await;
    assert_eq!(answer.status, 202, "the first leg, unless it is said");
    node.cancel.cancel();
}

#[tokio::test]
async fn names_the_invalid_field() {
    let node = run().await;
    let many: Vec<String> = (0..21).map(|n| format!("https://a.example.com/{n}.mp3")).collect();
    for (what, body, error) in [
        ("Play/", json!({}), "urls parameter is missing"),
        ("Play/", json!({"urls": many}), "urls must be at most 20 URLs"),
        ("Play/", json!({"urls": "ftp://a.example.com/x"}), "urls is invalid"),
        ("Play/", json!({"urls": "http://a.example.com/x"}), "urls is invalid"),
        ("Play/", json!({"urls": "https://127.0.0.1/x"}), "urls is invalid"),
        (
            "Play/",
            json!({"urls": URL, "length": 0}),
            "length must be an integer between 1 and 3600",
        ),
        (
            "Play/",
            json!({"urls": URL, "length": 3601}),
            "length must be an integer between 1 and 3600",
        ),
        ("Play/", json!({"urls": URL, "legs": "cleg"}), "legs must be aleg, bleg or both"),
        ("Play/", json!({"urls": URL, "loop": "often"}), "loop must be true or false"),
        ("Play/", json!({"urls": URL, "mix": 3}), "mix must be true or false"),
        ("Speak/", json!({}), "text parameter is missing"),
        (
            "Speak/",
            json!({"text": "a", "voice": "ROBOT"}),
            "voice must be WOMAN, MAN or Polly and a name",
        ),
        ("DTMF/", json!({}), "digits parameter is missing"),
        ("DTMF/", json!({"digits": "1,2"}), "digits must be 1 to 64 of 0-9, *, #, w and W"),
        ("DTMF/", json!({"digits": "1", "leg": "both"}), "leg must be aleg or bleg"),
        ("", json!({}), "aleg_url parameter is missing"),
        ("", json!({"legs": "bleg", "aleg_url": URL}), "bleg_url parameter is missing"),
        ("", json!({"legs": "both", "aleg_url": URL}), "bleg_url parameter is missing"),
        ("", json!({"aleg_url": "not a url"}), "aleg_url is invalid"),
        ("", json!({"aleg_url": URL, "aleg_method": "PUT"}), "aleg_method must be GET or POST"),
    ] {
        let answer = node.asks(MAIN, &at(101, what), &body).await;
        assert_eq!(answer.status, 400, "{what} {body}: {}", answer.body);
        assert!(
            answer.json()["error"].as_str().unwrap().starts_with(error),
            "{what} {body}: {}",
            answer.body
        );
    }
    // Without a B-leg, requests for it fail, and a request for both legs affects only the A-leg.
    for (what, body) in [
        ("Play/", json!({"urls": URL, "legs": "bleg"})),
        ("Speak/", json!({"text": "a", "legs": "bleg"})),
        ("DTMF/", json!({"digits": "1", "legs": "bleg"})),
        ("", json!({"legs": "bleg", "bleg_url": URL})),
        ("", json!({"legs": "both", "aleg_url": URL, "bleg_url": URL})),
    ] {
        let answer = node.asks(MAIN, &at(101, what), &body).await;
        assert_eq!(
            (answer.status, &answer.json()["error"]),
            (404, &json!("the call has no B leg")),
            "{what} {body}"
        );
    }
    assert_eq!(node.commands(), []);
    node.cancel.cancel();
}

#[tokio::test]
async fn passes_commands_only_to_answered_calls_of_the_account() {
    let node = run().await;
    // 102 rings and belongs to the subaccount, 103 belongs to another account, 104 is queued, 3 has
    // ended, and 999 does not exist.
    for (who, call) in
        [(MAIN, 102), (MAIN, 103), (MAIN, 104), (MAIN, 3), (MAIN, 999), (SUB, 101), (OTHER, 101)]
    {
        for (what, body) in [
            ("Play/", json!({"urls": URL})),
            ("Speak/", json!({"text": "a"})),
            ("DTMF/", json!({"digits": "1"})),
            ("", json!({"aleg_url": URL})),
        ] {
            let answer = node.asks(who, &at(call, what), &body).await;
            assert_eq!(
                (answer.status, &answer.json()["error"]),
                (404, &json!("call not found")),
                "{who} {call} {what}"
            );
        }
        for what in ["Play/", "Speak/"] {
            assert_eq!(
                node.plivo(who, "DELETE", &at(call, what)).await.status,
                404,
                "{who} {call} {what}"
            );
        }
    }
    assert_eq!(node.asks(MAIN, "Call/nonsense/Play/", &json!({"urls": URL})).await.status, 404);
    let get = node.plivo(MAIN, "GET", &at(101, "Play/")).await;
    assert_eq!((get.status, get.head.contains("allow: post, delete")), (405, true));
    assert_eq!(node.commands(), []);
    node.cancel.cancel();
}

#[tokio::test]
async fn live_lists_are_filtered_and_paged() {
    let node = run().await;
    let list = async |who: &str, query: &str| -> Value {
        node.plivo(who, "GET", &format!("Call/?{query}")).await.json()["calls"].clone()
    };
    let of = |calls: &[u128]| json!(calls.iter().map(|n| uuid(*n).to_string()).collect::<Vec<_>>());
    for (who, query, calls) in [
        (MAIN, "status=live", &[102, 101][..]),
        (
            MAIN,
            "status=live&call_direction=inbound&from_number=%2B919812345678&to_number=918035737458",
            &[102, 101],
        ),
        (MAIN, "status=live&call_direction=outbound", &[]),
        (MAIN, "status=live&from_number=911", &[]),
        (MAIN, "status=live&limit=1", &[102]),
        (MAIN, "status=live&limit=1&offset=1", &[101]),
        (MAIN, "status=live&offset=2", &[]),
        (MAIN, &format!("status=live&subaccount={SUB}"), &[102]),
        (MAIN, &format!("status=live&subaccount={OTHER}"), &[]),
        (MAIN, "status=queued", &[104]),
        (MAIN, "status=queued&to_number=911", &[]),
        (SUB, "status=live", &[102]),
        (SUB, "status=queued", &[]),
        (OTHER, "status=live", &[103]),
    ] {
        assert_eq!(list(who, query).await, of(calls), "{who} {query}");
    }
    for query in [
        "status=live&call_direction=up",
        "status=live&limit=21",
        "status=live&offset=-1",
        "status=over",
    ] {
        assert_eq!(node.plivo(MAIN, "GET", &format!("Call/?{query}")).await.status, 400, "{query}");
    }
    node.cancel.cancel();
}

#[tokio::test]
async fn streams_are_started_listed_and_stopped() {
    let node = run().await;
    let body = json!({"service_url": "wss://bot.example.com/socket", "bidirectional": "true", "audio_track": "inbound",
        "stream_timeout": 60, "content_type": "audio/x-mulaw;rate=8000", "extra_headers": "user=42,lang=hi",
        "status_callback_url": URL, "status_callback_method": "get", "noise_cancellation": true});
    let begun = node.asks(MAIN, &at(101, "Stream/"), &body).await;
    assert_eq!(
        (begun.status, &begun.json()["message"]),
        (202, &json!("audio streaming started")),
        "{}",
        begun.body
    );
    let id = begun.json()["stream_id"].as_str().expect("an id").to_owned();
    let again = node.asks(MAIN, &at(101, "Stream/"), &body).await;
    assert_eq!(again.status, 409, "{}", again.body);

    let order = node.calls.streams.lock().unwrap()[0].order.clone();
    assert_eq!((order.format.as_str(), order.timeout_s), ("audio/x-mulaw;rate=8000", 60));
    assert_eq!(
        (order.bidirectional, order.extra_headers_text().as_str()),
        (true, "user=42,lang=hi")
    );
    assert_eq!(
        order.status.map(|(url, method)| (url.0.to_string(), method)),
        Some((URL.to_owned(), Method::Get))
    );

    let list = node.plivo(MAIN, "GET", &at(101, "Stream/")).await;
    let list = list.json();
    assert_eq!(
        (&list["meta"]["count"], &list["meta"]["total_count"]),
        (&json!(1), &json!(1)),
        "{list}"
    );
    let one = node.plivo(MAIN, "GET", &at(101, &format!("Stream/{id}/"))).await.json();
    for (name, value) in [
        ("audio_track", json!("inbound")),
        ("bidirectional", json!(true)),
        ("call_uuid", json!(uuid(101).to_string())),
        ("plivo_auth_id", json!(MAIN)),
        ("resource_uri", json!(format!("/v1/Account/{MAIN}/Call/{}/Stream/{id}/", uuid(101)))),
        ("service_url", json!("wss://bot.example.com/socket")),
        ("start_time", json!("2026-11-20 06:03:12+00:00")),
        ("end_time", json!(null)),
        ("status", json!("in-progress")),
        ("status_callback_url", json!(URL)),
        ("stream_id", json!(id)),
    ] {
        assert_eq!((&one[name], &list["objects"][0][name]), (&value, &value), "{name}");
    }
    assert!(one["bill_duration"].is_u64() && one["rounded_bill_duration"].is_string(), "{one}");
    for path in [format!("Stream/{id}/"), "Stream/".to_owned()] {
        assert_eq!(node.plivo(MAIN, "DELETE", &at(101, &path)).await.status, 204);
    }
    let ended = node.commands();
    assert!(
        matches!(ended[0], Command::StopStream { stream: Some(stream) } if stream.to_string() == id),
        "{ended:?}"
    );
    assert!(matches!(ended[1], Command::StopStream { stream: None }), "{ended:?}");
    for unknown in [uuid(7).to_string(), "x".to_owned()] {
        for method in ["GET", "DELETE"] {
            let answer = node.plivo(MAIN, method, &at(101, &format!("Stream/{unknown}/"))).await;
            assert_eq!((answer.status, &answer.json()["error"]), (404, &json!("stream not found")));
        }
    }
    node.cancel.cancel();
}

#[tokio::test]
async fn rejects_invalid_streams() {
    let node = run().await;
    for (body, why) in [
        (json!({}), "service_url parameter is missing"),
        (json!({"service_url": "https://bot.example.com/"}), "service_url is invalid"),
        (json!({"service_url": "ws://bot.example.com/"}), "service_url is invalid"),
        (json!({"service_url": "wss://127.0.0.1/"}), "service_url is invalid"),
        (
            json!({"service_url": format!("wss://bot.example.com/{}", "x".repeat(2_048))}),
            "service_url must",
        ),
        (json!({"service_url": "wss://b.example.com/", "audio_track": "left"}), "audio_track must"),
        (
            json!({"service_url": "wss://b.example.com/", "audio_track": "both", "bidirectional": true}),
            "audio_track must",
        ),
        (
            json!({"service_url": "wss://b.example.com/", "stream_timeout": 0}),
            "stream_timeout must",
        ),
        (
            json!({"service_url": "wss://b.example.com/", "stream_timeout": 86_401}),
            "stream_timeout must",
        ),
        (
            json!({"service_url": "wss://b.example.com/", "content_type": "audio/wav"}),
            "content_type must",
        ),
        (
            json!({"service_url": "wss://b.example.com/", "extra_headers": "a"}),
            "extra_headers must",
        ),
        (
            json!({"service_url": "wss://b.example.com/", "noise_cancellation_level": 5}),
            "noise_cancellation_level must",
        ),
        (
            json!({"service_url": "wss://b.example.com/", "status_callback_url": "ftp://x/"}),
            "status_callback_url",
        ),
        (
            json!({"service_url": "wss://b.example.com/", "status_callback_method": "PUT", "status_callback_url": URL}),
            "status_callback_method",
        ),
    ] {
        let answer = node.asks(MAIN, &at(101, "Stream/"), &body).await;
        let error = answer.json()["error"].as_str().unwrap_or_default().to_owned();
        assert!(
            answer.status == 400 && error.starts_with(why),
            "{body}: {} {error}",
            answer.status
        );
    }
    let body = json!({"service_url": "wss://b.example.com/"});
    for (who, call) in [(OTHER, 101), (MAIN, 9_999)] {
        let answer = node.asks(who, &at(call, "Stream/"), &body).await;
        assert_eq!(
            (answer.status, &answer.json()["error"]),
            (404, &json!("call not found")),
            "{who} {call}"
        );
    }
    node.cancel.cancel();
}
