//! The audit trail: changes over both APIs and in the console, and refused sign-ins.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::console::{PASSWORD, Session, form, with_people};
use crate::outbound::World;
use crate::support::http::{self, Answer};
use crate::support::node::{API_KEY, AUTH_ID, AUTH_TOKEN, NUMBER, nodes};
use crate::support::phone::Phone;

async fn ask(world: &World, key: &str, method: &str, path: &str, body: Value) -> Answer {
    let url = format!("{}/api/v1/{path}", world.node.public);
    let body = if body.is_null() { String::new() } else { body.to_string() };
    http::send(method, &url, &[("x-api-key", key)], body).await
}

async fn records(world: &World, query: &str) -> Vec<Value> {
    let answer = ask(world, API_KEY, "GET", &format!("audit/?{query}"), Value::Null).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(!answer.text().contains("canary"), "no secrets: {}", answer.text());
    answer.json()["items"].as_array().unwrap().clone()
}

/// The records of this number of refused attempts. In a fleet, each node writes its own.
async fn refusals(world: &World, query: &str, expected: u64) -> Vec<Value> {
    let mut every = tokio::time::interval(std::time::Duration::from_millis(50));
    loop {
        every.tick().await;
        let found = records(world, query).await;
        let attempts = found.iter().map(|r| r["after"]["attempts"].as_u64().unwrap_or(1));
        let attempts: u64 = attempts.sum();
        if nodes() == 1 || attempts >= expected {
            assert_eq!(attempts, expected, "{found:?}");
            return found;
        }
    }
}

/// The path of a user with this name.
async fn created_user(world: &World, name: &str) -> String {
    let users = ask(world, API_KEY, "GET", "users/?limit=200", Value::Null).await.json();
    let user = users["items"].as_array().unwrap().iter().find(|user| user["name"] == name);
    format!("users/{}/", user.unwrap()["id"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_recorded_with_actor_address_and_fields() {
    let world = with_people().await;
    let agent = json!({"name": "Asha", "kind": "http", "endpoint": "http://127.0.0.1:9009/",
        "apiKey": "canary-key"});
    let made = ask(&world, API_KEY, "POST", "agents/", agent).await.json();
    let item = format!("agents/{}", made["id"].as_str().unwrap());
    let change = json!({"greeting": "Hello", "signingSecret": "canary-secret"});
    let path = format!("{item}/");
    assert_eq!(ask(&world, API_KEY, "PATCH", &path, change).await.status, 200);
    for nothing in [json!({}), json!({"greeting": "Hello"}), Value::Null] {
        let changed = ask(&world, API_KEY, "PATCH", &path, nothing).await;
        assert_eq!(changed.status, 200, "changes nothing, so it has no record");
    }
    let refused = ask(&world, API_KEY, "PATCH", &path, json!({"timeoutMs": 1})).await;
    assert_eq!(refused.status, 400, "a refused change is none");
    assert_eq!(ask(&world, API_KEY, "DELETE", &path, Value::Null).await.status, 204);
    let found = records(&world, &format!("object={item}")).await;
    let actions: Vec<&str> = found.iter().map(|r| r["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["deleteAgent", "changeAgent", "createAgent"]);
    let changed = &found[1];
    assert_eq!(
        (&changed["before"], &changed["after"]),
        (
            &json!({"greeting": "", "hasSigningSecret": false}),
            &json!({"greeting": "Hello", "hasSigningSecret": true})
        )
    );
    for record in &found {
        assert_eq!(
            (&record["actor"], &record["source"], &record["account"]),
            (&json!("api-key:configuration/1"), &json!("127.0.0.1"), &json!(AUTH_ID))
        );
    }
    assert_eq!(found[0]["before"]["name"], json!("Asha"));
    assert_eq!(found[0]["after"], Value::Null);
    assert!(world.node.log().contains("\"action\":\"changeAgent\""), "{}", world.node.log());
    // Values that no record can have are refused, because they may be misspelled.
    for (wrong, words) in [
        ("action=chnageAgent", "did you mean `changeAgent`?"),
        ("action=agents", "`signInRefused`"),
        ("actor=asha", "actor must be user:NAME"),
        ("actor=user:", "actor must be user:NAME"),
        ("object=agent/7", "did you mean `agents`?"),
    ] {
        for list in ["audit/?", "audit/export/?"] {
            let answer = ask(&world, API_KEY, "GET", &format!("{list}{wrong}"), Value::Null).await;
            let field = wrong.split('=').next().unwrap();
            let (error, text) = (&answer.json()["error"], answer.text());
            assert_eq!((answer.status, &error["field"]), (400, &json!(field)), "{text}");
            assert!(error["message"].as_str().unwrap().contains(words), "{text}");
        }
    }
    for none in ["action=setUp", "actor=endpoint:desk", "object=Number/1", "object=password"] {
        assert!(records(&world, none).await.is_empty(), "{none}");
    }
    // A page at a time, and in a time range.
    let page = ask(&world, API_KEY, "GET", "audit/?limit=1", Value::Null).await.json();
    let next = page["next"].as_str().unwrap().to_owned();
    let second = records(&world, &format!("limit=1&cursor={next}")).await;
    assert_ne!(page["items"][0]["id"], second[0]["id"]);
    assert!(records(&world, "since=2100-01-01T00:00:00Z").await.is_empty());

    // The Plivo-compatible API.
    let basic = format!("Basic {}", STANDARD.encode(format!("{AUTH_ID}:{AUTH_TOKEN}")));
    let headers = [("authorization", basic.as_str()), ("content-type", "application/json")];
    let url = format!("{}/v1/Account/{AUTH_ID}/Application/", world.node.public);
    let application = json!({"app_name": "desk", "answer_url": "http://127.0.0.1:9009/a"});
    let made = http::send("POST", &url, &headers, application.to_string()).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let id = made.json()["app_id"].as_str().unwrap().to_owned();
    let change = json!({"answer_url": "http://127.0.0.1:9009/b"}).to_string();
    for _same in 0..2 {
        let changed = http::send("POST", &format!("{url}{id}/"), &headers, change.clone()).await;
        assert!(changed.status < 300, "{}", changed.text());
    }
    let found = records(&world, &format!("object=Application/{id}&actor=auth-token")).await;
    assert_eq!(found.len(), 2, "{found:#?}");
    assert_eq!(found[0]["before"]["answer_url"], json!("http://127.0.0.1:9009/a"));
    assert_eq!(found[0]["after"]["answer_url"], json!("http://127.0.0.1:9009/b"));
    assert_eq!(found[1]["after"]["app_name"], json!("desk"), "{found:#?}");
    assert_eq!(found[1]["after"]["answer_url"], json!("http://127.0.0.1:9009/a"));
    assert!(
        found[1]["after"].get("api_id").is_none()
            && found[1].get("before").is_none_or(Value::is_null)
    );

    // The console, with and without the APIs.
    let asha = Session::of(&world, "asha").await;
    let created = asha
        .post(
            "/console/people/users",
            &[("name", "mira"), ("full_name", "Mira"), ("role", "agent")],
        )
        .await;
    assert_eq!(created.status, 303, "{}", created.text());
    let webhook = [("name", "crm"), ("url", "https://crm.example.com/hook")];
    let made = asha.post("/console/webhooks/", &webhook).await;
    assert_eq!(made.status, 303, "{}", made.text());
    let path = made.headers["location"].to_str().unwrap().to_owned();
    let same = [("do", "save"), webhook[0], webhook[1]];
    assert_eq!(asha.post(&path, &same).await.status, 303);
    let found = records(&world, "actor=user:asha").await;
    let actions: Vec<&str> = found.iter().map(|r| r["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["createWebhook", "createUser"]);
    assert_eq!(found[0]["after"]["url"], json!("https://crm.example.com/hook"));
    assert_eq!(found[1]["after"]["invitation"], json!("(redacted)"));
    let page = asha.get("/console/people/audit/?actor=user:asha").await.text();
    assert!(page.contains("createWebhook") && !page.contains("changeAgent"), "{page}");
    let misspelt = asha.get("/console/people/audit/?action=createWebhok").await;
    let text = misspelt.text();
    assert_eq!(misspelt.status, 400);
    assert!(text.contains("createWebhook") && text.contains("value=\"createWebhok\""), "{text}");

    // A key is shown with its name, and its entry leads to its changes.
    let body = json!({"name": "crm", "role": "admin"});
    let key = ask(&world, API_KEY, "POST", "api-keys/", body).await.json();
    let (id, secret) = (key["id"].as_str().unwrap(), key["secret"].as_str().unwrap());
    let label = json!({"name": "Refund", "colour": "orange"});
    assert_eq!(ask(&world, secret, "POST", "labels/", label).await.status, 201);
    let query = format!("/console/people/audit/?actor=api-key:{id}");
    assert!(asha.get("/console/people/").await.text().contains(&query));
    let page = asha.get(&query).await.text();
    assert!(page.contains("createLabel") && page.contains(">crm</small>"), "{page}");

    // A person of the console is deleted, and no WhatsApp user erased.
    let mira = created_user(&world, "mira").await;
    assert_eq!(ask(&world, API_KEY, "DELETE", &mira, Value::Null).await.status, 204);
    assert_eq!(records(&world, "action=deleteUser").await.len(), 1);
    assert!(records(&world, "action=forgetUser").await.is_empty());

    // An action has the fields that it changed.
    let number = format!("phone-numbers/{NUMBER}");
    for action in ["disconnect", "reconnect"] {
        let path = format!("{number}/{action}/");
        let done = ask(&world, API_KEY, "POST", &path, Value::Null).await;
        assert!(done.status < 300, "{action}: {}", done.text());
    }
    for (action, before) in [("disconnect", true), ("reconnect", false)] {
        let found = records(&world, &format!("object={number}/{action}")).await;
        let [record] = &found[..] else { panic!("{found:#?}") };
        let field = |state: &str| record[state]["connected"].clone();
        assert_eq!((field("before"), field("after")), (json!(before), json!(!before)), "{record}");
        assert!(record["after"].get("number").is_none(), "only what changed: {record}");
    }

    // Files.
    let export = |format: &str| format!("audit/export/?format={format}&action=changeAgent");
    let csv = ask(&world, API_KEY, "GET", &export("csv"), Value::Null).await;
    assert_eq!(csv.headers["content-type"], "text/csv; charset=utf-8");
    assert_eq!(csv.text().lines().count(), 2, "{}", csv.text());
    assert!(csv.text().contains(&format!("\"{item}\"")), "{}", csv.text());
    let lines = ask(&world, API_KEY, "GET", &export("jsonl"), Value::Null).await.text();
    assert_eq!(serde_json::from_str::<Value>(lines.trim_end()).unwrap()["object"], json!(item));
    assert_eq!(ask(&world, API_KEY, "GET", &export("xml"), Value::Null).await.status, 400);

    // Other accounts and lesser roles see nothing of it.
    let other = ask(&world, "test-key-of-other-account", "GET", "audit/", Value::Null).await.json();
    assert_eq!(other["items"], json!([]));
    let ravi = Session::of(&world, "ravi").await;
    assert_eq!(ravi.get("/console/people/audit/").await.status, 403);
    assert_eq!(ravi.get("/api/v1/audit/").await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_sign_ins_are_recorded_and_logged_with_the_address() {
    let world = with_people().await;
    let public = &world.node.public;
    for name in ["asha", "canary-unknown"] {
        let pairs = [("name", name), ("password", "canary-password")];
        assert_eq!(form(public, "/console/sign-in", &[], &pairs).await.status, 401);
    }
    assert_eq!(ask(&world, "canary-wrong", "GET", "agents/", Value::Null).await.status, 401);
    let basic = format!("Basic {}", STANDARD.encode(format!("{AUTH_ID}:canary-wrong")));
    let url = format!("{public}/v1/Account/{AUTH_ID}/Application/");
    assert_eq!(http::send("GET", &url, &[("authorization", &basic)], "").await.status, 401);
    world.endpoint("desk").await;
    let mut phone = Phone::open(public).await;
    for name in ["desk", "canary-unknown"] {
        phone.say(json!({"type": "register", "endpoint": name, "password": "canary-wrong"})).await;
        assert_eq!(phone.receive("error").await["code"], "unauthorized");
    }
    let found = refusals(&world, "action=signInRefused", 3).await;
    let by: Vec<_> = found.iter().map(|r| (&r["actor"], &r["object"], &r["source"])).collect();
    let from = &json!("127.0.0.1");
    assert_eq!(
        by,
        [
            (&json!("endpoint:desk"), &json!("endpoint-password"), from),
            (&json!("auth-token"), &json!("auth-token"), from),
            (&json!("user:asha"), &json!("password"), from)
        ]
    );
    // The expression of the fail2ban filter in docs/operations.md.
    let log = world.node.log();
    let refused = log.lines().filter(|line| {
        line.split_once("\"action\":\"signInRefused\"")
            .is_some_and(|(_, rest)| rest.contains("\"source\":\"127.0.0.1\""))
    });
    assert_eq!(refused.count(), 6, "{log}");
    assert!(!log.contains("canary"), "names that don't exist may be passwords: {log}");
    let signed_in = [("name", "asha"), ("password", PASSWORD)];
    assert_eq!(form(public, "/console/sign-in", &[], &signed_in).await.status, 303);
    assert_eq!(records(&world, "action=signInRefused").await.len(), 3);

    // Each attempt is in the trail, also those that are refused without a check.
    for _ in 0..60 {
        let pairs = [("name", "ravi"), ("password", "canary-password")];
        let status = form(public, "/console/sign-in", &[], &pairs).await.status;
        assert!(matches!(status, 401 | 429), "{status}");
    }
    let found = refusals(&world, "action=signInRefused&actor=user:ravi", 60).await;
    assert!(found.len() < 60, "equal attempts are one record");
}
