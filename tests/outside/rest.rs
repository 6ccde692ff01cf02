//! The rules for all requests of the Plivo-compatible API (`docs/reference/rest.md#requests`), one
//! by one against a running node.

use base64::Engine as _;

use crate::support::app::App;
use crate::support::database;
use crate::support::http::{Answer, send};
use crate::support::node::{AUTH_ID, AUTH_TOKEN, NUMBER, Node, NodeConfig};

const OTHER: &str = "MAOTHEROFFHOOK000001";

async fn node() -> Node {
    let app = App::start().await;
    let mut node_config = NodeConfig::new("http://127.0.0.1:9/v23.0", &app.url("/answer"));
    node_config.extra = format!(
        "[[account]]\nauth_id = \"{OTHER}\"\nauth_token = \"test-token-of-other-account\"\n[permissions]\nenforce = false\n"
    );
    Node::start(&node_config).await
}

fn basic(id: &str, token: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{id}:{token}")))
}

/// Sends a request to a path of the listener with the account's credentials.
async fn ask(
    node: &Node,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<bytes::Bytes>,
) -> Answer {
    let own = basic(AUTH_ID, AUTH_TOKEN);
    let headers: Vec<_> =
        headers.iter().copied().chain([("authorization", own.as_str())]).collect();
    send(method, &format!("{}{path}", node.public), &headers, body).await
}

fn error(answer: &Answer) -> (u16, String) {
    (
        answer.status,
        answer.json()["error"]
            .as_str()
            .unwrap_or_else(|| panic!("no text: {}", answer.text()))
            .to_owned(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rules_common_to_all_requests() {
    let node = node().await;
    let at = |rest: &str| format!("/v1/Account/{AUTH_ID}/{rest}");
    let json = [("content-type", "application/json")];
    let form = [("content-type", "application/x-www-form-urlencoded")];

    // Authentication: missing, wrong, another account's credentials, and another account's path all
    // get the same response.
    for authorization in [
        "",
        "Basic !!!",
        &basic(AUTH_ID, "wrong"),
        &basic(OTHER, "test-token-of-other-account"),
        &basic(AUTH_ID, ""),
        "Bearer x",
    ] {
        let url = format!("{}{}", node.public, at("Call/"));
        let answer = send("GET", &url, &[("authorization", authorization)], "").await;
        assert_eq!(error(&answer), (401, "authentication failed".to_owned()), "{authorization}");
        assert!(answer.headers["www-authenticate"].to_str().unwrap().starts_with("Basic"));
    }
    let stranger = ask(&node, "GET", &format!("/v1/Account/{OTHER}/Call/"), &[], "").await;
    assert_eq!(stranger.status, 401);

    // Paths: with and without the last slash, and with doubled slashes.
    for path in [
        "Number/",
        "Number",
        "/Number//",
        "//Number",
        &format!("Number/{NUMBER}"),
        &format!("Number//+{NUMBER}//"),
    ] {
        assert_eq!(ask(&node, "GET", &at(path), &[], "").await.status, 200, "{path}");
    }
    assert_eq!(
        ask(&node, "GET", &format!("//v1//Account//{AUTH_ID}//"), &[], "").await.status,
        200
    );
    assert_eq!(ask(&node, "GET", &format!("/v1/Account/{AUTH_ID}"), &[], "").await.status, 200);

    // Bodies: objects, forms, empty bodies; text for numbers and booleans; null means absent;
    // unknown fields are refused.
    let names = |name: &str| format!(r#"{{"name":"{name}","enabled":"true","callback_url":null}}"#);
    let unknown = ask(&node, "POST", &at("Subaccount/"), &json, r#"{"nme":"one"}"#).await;
    assert!(unknown.status == 400 && unknown.text().contains("did you mean `name`"));
    assert_eq!(ask(&node, "POST", &at("Subaccount/"), &json, names("one")).await.status, 201);
    assert_eq!(ask(&node, "POST", &at("Subaccount/"), &[], names("two")).await.status, 201);
    assert_eq!(
        ask(&node, "POST", &at("Subaccount/"), &form, "name=three+x&enabled=False").await.status,
        201
    );
    let listed = ask(&node, "GET", &at("Subaccount/"), &[], "").await.json();
    let enabled: Vec<_> =
        listed["objects"].as_array().unwrap().iter().map(|s| (&s["name"], &s["enabled"])).collect();
    assert!(
        enabled.contains(&(&"three x".into(), &false.into()))
            && enabled.contains(&(&"one".into(), &true.into()))
    );
    for (what, headers, body, status) in [
        ("empty", &json[..], "", 400),
        ("null", &json, r#"{"name":null}"#, 400),
        ("no JSON", &json, "{\"name\"", 400),
        ("a list", &json, "[]", 400),
        ("twice", &json, r#"{"name":"a","name":"b"}"#, 400),
        ("twice inside", &json, r#"{"name":"a","x":{"y":1,"y":1}}"#, 400),
        ("twice in a form", &form, "name=a&name=b", 400),
        ("compressed", &[("content-encoding", "gzip")], "x", 415),
        ("not compressed", &[("content-encoding", "identity")], r#"{"name":"four"}"#, 201),
    ] {
        let answer = ask(&node, "POST", &at("Subaccount/"), headers, body).await;
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
        assert!(status == 201 || answer.json()["error"].is_string(), "{what}");
    }
    let large = |bytes: usize| format!("{{\"name\":\"five\"{}}}", " ".repeat(bytes - 15));
    assert_eq!(ask(&node, "POST", &at("Subaccount/"), &json, large(256 << 10)).await.status, 201);
    assert_eq!(
        ask(&node, "POST", &at("Subaccount/"), &json, large((256 << 10) + 1)).await.status,
        413
    );
    for (method, path) in [("GET", "Call/"), ("DELETE", "Call/")] {
        let answer = ask(&node, method, &at(path), &json, r#"{"call_uuid":"{{{"#).await;
        assert!(answer.status == 200 || answer.status == 204, "{method}: {}", answer.status);
    }

    // Responses: the same id in body and header, also without a body.
    let answer = ask(&node, "GET", &at("Call/"), &[], "").await;
    assert_eq!(answer.headers["content-type"], "application/json; charset=utf-8");
    assert_eq!(
        answer.json()["api_id"].as_str().unwrap(),
        answer.headers["x-api-id"].to_str().unwrap()
    );
    let answer = ask(&node, "DELETE", &at("Conference/"), &[], "").await;
    assert!(
        (answer.status, answer.body.is_empty()) == (204, true)
            && answer.headers.contains_key("x-api-id")
    );

    // `callback_url` is accepted, but the request stays synchronous.
    let body =
        r#"{"name":"six","callback_url":"https://app.example.com/x","callback_method":"GET"}"#;
    assert_eq!(
        ask(&node, "POST", &at("Subaccount/"), &json, body).await.json()["message"],
        "created"
    );

    // Unknown paths and methods.
    for path in [
        "Message/",
        "PhoneNumber/",
        "Pricing/",
        "Powerpack/",
        "Lookup/Number/1/",
        "Nonsense/",
        "Call/a/b/c/",
    ] {
        let answer = ask(&node, "GET", &at(path), &[], "").await;
        assert_eq!(error(&answer), (404, "not available on this server".to_owned()), "{path}");
    }
    for (method, path, allow) in [
        ("PUT", "Call/", "GET, POST, DELETE"),
        ("PATCH", "", "GET, POST"),
        ("POST", "Recording/", "GET"),
        ("DELETE", "Number/1/", "GET, POST"),
        ("HEAD", "Call/", "GET, POST, DELETE"),
        ("OPTIONS", "Call/", "GET, POST, DELETE"),
    ] {
        let answer =
            ask(&node, method, &at(path), &[("origin", "https://app.example.com")], "").await;
        assert_eq!(
            (answer.status, answer.headers["allow"].to_str().unwrap()),
            (405, allow),
            "{method} {path}"
        );
        assert!(
            !answer.headers.keys().any(|name| name.as_str().starts_with("access-control")),
            "no CORS"
        );
    }

    // Paging.
    let page =
        ask(&node, "GET", &at("Subaccount/?limit=2&offset=2&unknown=x"), &[], "").await.json();
    let link = |offset: u32| {
        format!("/v1/Account/{AUTH_ID}/Subaccount/?limit=2&offset={offset}&unknown=x")
    };
    assert_eq!(
        (&page["meta"]["next"], &page["meta"]["previous"]),
        (&link(4).into(), &link(0).into())
    );
    assert_eq!(
        (page["meta"]["total_count"].as_u64(), page["objects"].as_array().unwrap().len()),
        (Some(6), 2)
    );
    for query in ["limit=21", "limit=0", "limit=x", "offset=-1"] {
        let answer = ask(&node, "GET", &at(&format!("Subaccount/?{query}")), &[], "").await;
        assert!(
            error(&answer).1.starts_with(query.split('=').next().unwrap()),
            "{query}: {}",
            answer.text()
        );
    }
}

/// Changes made over the API persist across a kill, including tokens. The configuration file is not
/// modified.
#[tokio::test(flavor = "multi_thread")]
async fn changes_survive_a_kill() {
    let mut node = node().await;
    let at = |rest: &str| format!("/v1/Account/{AUTH_ID}/{rest}");
    let json = [("content-type", "application/json")];
    let made = ask(&node, "POST", &at("Subaccount/"), &json, r#"{"name":"One"}"#).await.json();
    let (id, token) = (made["auth_id"].as_str().unwrap(), made["auth_token"].as_str().unwrap());
    let app = r#"{"app_name":"Menu","answer_url":"https://app.example.com/menu"}"#;
    let app = ask(&node, "POST", &at("Application/"), &json, app).await.json()["app_id"].clone();
    let set = serde_json::json!({"alias": "Night", "app_id": app, "subaccount": id}).to_string();
    assert_eq!(ask(&node, "POST", &at(&format!("Number/{NUMBER}/")), &json, set).await.status, 202);
    node.kill();
    let file = std::fs::read(node.dir.path().join("offhook.db")).unwrap_or_default();
    assert!(database::skipped_on_postgres() || !file.is_empty(), "the store");
    let beside = std::fs::read(node.dir.path().join("offhook.db-wal")).unwrap_or_default();
    for bytes in [&file, &beside] {
        assert!(
            !bytes.windows(token.len()).any(|window| window == token.as_bytes()),
            "tokens are sealed"
        );
    }
    node.start_again().await;
    let own = basic(id, token);
    let url = format!("{}/v1/Account/{id}/Number/{NUMBER}/", node.public);
    let number = send("GET", &url, &[("authorization", &own)], "").await.json();
    assert_eq!(
        (&number["alias"], number["sub_account"].as_str()),
        (&"Night".into(), Some(&*format!("/v1/Account/{id}/")))
    );
    assert!(
        number["application"].as_str().is_some_and(|uri| uri.contains(app.as_str().unwrap())),
        "{number}"
    );
    // A reload reads the file and keeps objects that it does not contain.
    node.signal("HUP");
    node.until_log("configuration reloaded").await;
    assert_eq!(send("GET", &url, &[("authorization", &own)], "").await.json()["alias"], "Night");
}
