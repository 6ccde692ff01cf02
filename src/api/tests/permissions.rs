//! Call permissions over the API: reading, requesting, limits with the time of the next request,
//! and isolation of accounts.

use super::*;

/// The numbers of `MAIN`, `SUB` and `OTHER`.
pub(super) const NUMBERS: [(&str, &str, &str); 3] = [
    ("918035737458", "1001", MAIN),
    ("918035737459", "1002", SUB),
    ("5511951230001", "1003", OTHER),
];
const USER: &str = "919412341234";

/// A fake Graph whose answer depends on the message's text.
pub(super) fn graph_answers(seen: &egress::testing::ReceivedRequest) -> Reply {
    let body = String::from_utf8_lossy(&seen.body).into_owned();
    let error = |status: u16, code: i64| {
        let error = json!({"error": {"code": code, "message": "(#1) no", "error_data": {"details": "Because."}}});
        Reply::Whole(status, Vec::new(), error.to_string().into())
    };
    let permissions = json!({
        "permission": {"status": "temporary", "expiration_time": 1_795_200_000},
        "actions": [
            {"action_name": "send_call_permission_request", "limits": [
                {"time_period": "PT24H", "max_allowed": 1, "current_usage": 1, "limit_expiration_time": 1_795_160_000}]},
            {"action_name": "start_call", "limits": [{"time_period": "PT24H", "max_allowed": 5, "current_usage": 2}]},
        ],
    });
    match seen.target.as_str() {
        "/1001/call_permissions?user_wa_id=613" => error(429, 613),
        get if get.contains("/call_permissions?") => Reply::ok(permissions.to_string()),
        _ if body.contains("used up") => error(429, 138_009),
        _ if body.contains("window") => error(400, 131_047),
        _ if body.contains("odd") => error(400, 131_009),
        _ if body.contains("down") => Reply::status(500),
        _ => Reply::ok(json!({"messages": [{"id": "wamid.1"}]}).to_string()),
    }
}

impl Running {
    fn event(&self, event: Event) {
        let key = PairKey::new(&"1001".into(), USER);
        self.consents.apply(&key, &Rules::default(), self.clock.steady(), event);
    }

    async fn permission(&self, query: &str) -> Value {
        let answer =
            self.ours(MAIN, "GET", &format!("permissions/918035737458/{USER}/{query}"), "").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()
    }

    async fn request(&self, body: &str) -> Answer {
        self.ours(MAIN, "POST", &format!("permissions/918035737458/{USER}/request/"), body).await
    }
}

#[tokio::test]
async fn retrieves_a_permission_with_its_remaining_limits() {
    let node = run().await;
    let stranger = json!({
        "status": "none", "expiresAt": null, "missed": 0, "warned": false, "callsLeft": 0, "nextCallAt": null,
        "requestsLeft": 1, "nextRequestAt": null, "source": "local", "checkedAt": null,
        "repliedAt": null
    });
    assert_eq!(node.permission("").await, stranger);
    assert!(node.graph.seen().is_empty(), "Graph is asked only where somebody wants it");
    let reply = Answered::Accept { permanent: false, expiration: None, automatic: false };
    node.event(Event::Replied { at: Some(node.clock.steady()), reply });
    node.event(Event::Connected);
    node.event(Event::Unanswered);
    node.event(Event::Unanswered);
    let granted = json!({
        "status": "temporary", "expiresAt": "2026-11-27T06:03:11.120Z", "missed": 2, "warned": true, "callsLeft": 4,
        "nextCallAt": null, "requestsLeft": 1, "nextRequestAt": null, "source": "meta", "checkedAt": null,
        "repliedAt": "2026-11-20T06:03:11.120Z"
    });
    assert_eq!(node.permission("").await, granted);
    (0..4).for_each(|_| node.event(Event::Connected));
    let used_up = node.permission("").await;
    assert_eq!(
        (&used_up["callsLeft"], &used_up["nextCallAt"]),
        (&json!(0), &json!("2026-11-21T06:03:11.120Z"))
    );
    // Refreshing asks Meta at most once a minute.
    let refreshed = node.permission("?refresh=true").await;
    assert_eq!((&refreshed["callsLeft"], &refreshed["status"]), (&json!(3), &json!("temporary")));
    assert_eq!(refreshed["expiresAt"], "2026-11-20T18:40:00.000Z");
    assert_eq!(refreshed["checkedAt"], "2026-11-20T06:03:11.120Z");
    assert_eq!(
        (&refreshed["requestsLeft"], &refreshed["nextRequestAt"]),
        (&json!(0), &json!("2026-11-20T07:33:20.000Z"))
    );
    node.permission("?refresh=true").await;
    assert_eq!(node.graph.seen().len(), 1);
    node.clock.step(std::time::Duration::from_secs(60));
    node.permission("?refresh=true").await;
    assert_eq!(node.graph.seen().len(), 2);
    // An invalid user is refused.
    let kept = node.ours(MAIN, "GET", "permissions/918035737458/613/?refresh=true", "").await;
    assert_eq!(kept.status, 400, "613 is no user");
    node.cancel.cancel();
}

#[tokio::test]
async fn l13_refuses_a_second_request_with_the_time_of_the_next() {
    let node = run().await;
    let sent = node.request(r#"{"text":"May we call you about your order?"}"#).await;
    assert_eq!((sent.status, &sent.json()["messageId"]), (202, &json!("wamid.1")), "{}", sent.body);
    assert_eq!(
        (&sent.json()["status"], &sent.json()["requestsLeft"]),
        (&json!("requested"), &json!(0))
    );
    let [message] = node.graph.seen().try_into().unwrap_or_else(|_| panic!("one request"));
    assert_eq!((message.method.as_str(), message.target.as_str()), ("POST", "/1001/messages"));
    let body: Value = serde_json::from_slice(&message.body).unwrap();
    assert_eq!(body["interactive"]["body"]["text"], "May we call you about your order?");
    assert_eq!(
        (&body["to"], &body["interactive"]["type"]),
        (&json!(USER), &json!("call_permission_request"))
    );
    let again = node.request("{}").await;
    assert_eq!(again.status, 422);
    let error = &again.json()["error"];
    assert_eq!(error["code"], "permission_request_too_soon");
    assert_eq!(error["nextRequestAt"], "2026-11-21T06:03:11.120Z", "{error}");
    assert_eq!(node.graph.seen().len(), 1, "Meta never saw it");
    // The second request is allowed a day later, the third only after the week.
    node.clock.step(std::time::Duration::from_secs(86_400));
    assert_eq!(node.request("").await.status, 202);
    node.clock.step(std::time::Duration::from_secs(86_400));
    assert_eq!(node.request("").await.json()["error"]["nextRequestAt"], "2026-11-27T06:03:11.120Z");
    assert_eq!(node.permission("").await["nextRequestAt"], "2026-11-27T06:03:11.120Z");
    node.cancel.cancel();
}

#[tokio::test]
async fn reports_metas_refusal_of_a_request() {
    let node = run().await;
    let rows = [
        (
            r#"{"text":"window"}"#,
            422,
            "window_closed",
            json!({"code": 131_047, "message": "Because."}),
        ),
        (r#"{"text":"odd"}"#, 502, "meta_refused", json!({"code": 131_009, "message": "Because."})),
        (r#"{"text":"down"}"#, 502, "meta_failed", Value::Null),
        (
            r#"{"text":"used up"}"#,
            422,
            "permission_request_too_soon",
            json!({"code": 138_009, "message": "Because."}),
        ),
    ];
    for (body, status, code, meta) in rows {
        let answer = node.request(body).await;
        let error = &answer.json()["error"];
        assert_eq!(
            (answer.status, error["code"].as_str(), &error["meta"]),
            (status, Some(code), &meta),
            "{body}"
        );
        // Meta's refusal triggers a request for `call_permissions`, whose answer has the time.
        let next = if code == "permission_request_too_soon" {
            json!("2026-11-20T07:33:20.000Z")
        } else {
            Value::Null
        };
        assert_eq!(error["nextRequestAt"], next, "{body}");
    }
    let template = r#"{"template":{"name":"may_we_call","language":{"code":"en"}}}"#;
    node.event(Event::UserConnected);
    assert_eq!(node.request(template).await.status, 202);
    let last: Value = serde_json::from_slice(&node.graph.seen().last().unwrap().body).unwrap();
    assert_eq!(
        (&last["type"], &last["template"]["name"]),
        (&json!("template"), &json!("may_we_call"))
    );
    node.cancel.cancel();
}

#[tokio::test]
async fn refuses_bad_requests_without_asking_meta() {
    let node = run().await;
    let long = json!({"text": "x".repeat(1_025)}).to_string();
    let bad = [
        ("[]", Value::Null),
        ("{", Value::Null),
        (r#"{"text":""}"#, json!("text")),
        (r#"{"text":7}"#, json!("text")),
        (long.as_str(), json!("text")),
        (r#"{"template":"may_we_call"}"#, json!("template")),
        (r#"{"template":{"name":"x"}}"#, json!("template")),
        (r#"{"text":"x","template":{"name":"x","language":{"code":"en"}}}"#, json!("template")),
    ];
    for (body, field) in bad {
        let answer = node.request(body).await;
        assert_eq!((answer.status, &answer.json()["error"]["field"]), (400, &field), "{body}");
    }
    for (method, path, status) in [
        ("GET", "permissions/918035737458/nobody/", 400),
        ("GET", "permissions/918035737458/", 404),
        ("GET", "permissions/911111111111/919412341234/", 404),
        ("DELETE", "permissions/918035737458/919412341234/", 405),
        ("GET", "permissions/918035737458/919412341234/request/", 405),
        ("GET", "permissions/%2B91%208035737458/+919412341234", 200),
    ] {
        assert_eq!(node.ours(MAIN, method, path, "").await.status, status, "{method} {path}");
    }
    assert!(node.graph.seen().is_empty());
    node.cancel.cancel();
}

#[tokio::test]
async fn r16_hides_the_users_of_other_accounts() {
    let node = run().await;
    for (digits, _, owner) in NUMBERS {
        for who in [MAIN, SUB, OTHER] {
            // A main account also has its subaccounts' numbers.
            let may = who == owner || (who == MAIN && owner == SUB);
            let read = node.ours(who, "GET", &format!("permissions/{digits}/{USER}/"), "").await;
            assert_eq!(read.status, if may { 200 } else { 404 }, "{who} reads {owner}'s");
            if !may {
                let asked = node
                    .ours(who, "POST", &format!("permissions/{digits}/{USER}/request/"), "{}")
                    .await;
                assert_eq!(asked.status, 404, "{who} asks {owner}'s");
                assert_eq!(read.json()["error"]["message"], asked.json()["error"]["message"]);
            }
        }
    }
    assert!(node.graph.seen().is_empty());
    node.cancel.cancel();
}

#[tokio::test]
async fn a_request_with_a_key_is_sent_once() {
    let node = run().await;
    let head = format!("x-api-key: key-{MAIN}\r\nidempotency-key: order-17\r\n");
    let path = format!("/api/v1/permissions/918035737458/{USER}/request/");
    let first = node.ask("POST", &path, &head, "{}").await;
    let again = node.ask("POST", &path, &head, "{}").await;
    assert_eq!((first.status, again.status, &first.body), (202, 202, &again.body));
    assert_eq!(node.graph.seen().len(), 1);
    node.cancel.cancel();
}
