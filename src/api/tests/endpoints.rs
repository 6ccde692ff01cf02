//! Endpoints over REST: formats that SDKs parse, isolation of accounts, name conflicts, and
//! validation.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{MAIN, OTHER, Running, SUB, run};

impl Running {
    /// Sends a request with a JSON body.
    async fn plivo_with(&self, who: &str, method: &str, path: &str, body: &str) -> super::Answer {
        let basic = STANDARD.encode(format!("{who}:token"));
        let head = format!("authorization: Basic {basic}\r\ncontent-type: application/json\r\n");
        self.ask(method, &format!("/v1/Account/{who}/{path}"), &head, body).await
    }

    async fn make(&self, account: &str, body: Value) -> (u16, Value) {
        let answer = self.plivo_with(account, "POST", "Endpoint/", &body.to_string()).await;
        (answer.status, answer.json())
    }
}

fn asha() -> Value {
    json!({"username": "asha", "password": "correct horse", "alias": "Asha's phone"})
}

#[tokio::test]
async fn endpoints_are_created_retrieved_changed_and_deleted() {
    let node = run().await;
    let (status, made) = node.make(MAIN, asha()).await;
    assert_eq!(
        (status, &made["username"], &made["message"]),
        (201, &"asha".into(), &"created".into()),
        "{made}"
    );
    let id = made["endpoint_id"].as_str().unwrap().to_owned();
    assert!(id.len() == 14 && id.bytes().all(|b| b.is_ascii_digit()), "{id}");
    let one = format!("Endpoint/{id}/");
    let shown = node.plivo(MAIN, "GET", &one).await.json();
    for (field, value) in [
        ("alias", json!("Asha's phone")),
        ("application", Value::Null),
        ("endpoint_id", json!(id)),
        ("password", json!("")),
        ("resource_uri", json!(format!("/v1/Account/{MAIN}/Endpoint/{id}/"))),
        ("sip_registered", json!("false")),
        ("sip_uri", json!("sip:asha@calls.example.com")),
        ("sub_account", Value::Null),
        ("username", json!("asha")),
    ] {
        assert_eq!(shown[field], value, "{field}");
    }
    let changed = node.plivo_with(MAIN, "POST", &one, r#"{"alias":"The desk"}"#).await;
    assert_eq!((changed.status, &changed.json()["message"]), (202, &"changed".into()));
    assert_eq!(node.plivo(MAIN, "GET", &one).await.json()["alias"], "The desk");
    // A name in use conflicts within the account, but reveals nothing to other accounts.
    let (status, again) = node.make(MAIN, asha()).await;
    assert_eq!(status, 409, "{again}");
    assert!(again["error"].as_str().unwrap().contains(&id), "{again}");
    let (status, others) = node.make(OTHER, asha()).await;
    let name = others["username"].as_str().unwrap();
    assert!(status == 201 && name.len() == 16 && name.starts_with("asha"), "{others}");
    // Other accounts, including a subaccount, do not find the endpoint.
    for account in [OTHER, SUB] {
        for (method, body) in [("GET", ""), ("POST", r#"{"alias":"x"}"#), ("DELETE", "")] {
            assert_eq!(
                node.plivo_with(account, method, &one, body).await.status,
                404,
                "{account} {method}"
            );
        }
    }
    let (status, of_sub) =
        node.make(SUB, json!({"username": "ravi", "password": "correct horse"})).await;
    assert_eq!((status, &of_sub["alias"]), (201, &"ravi".into()));
    let list = node.plivo(MAIN, "GET", "Endpoint/?limit=1").await.json();
    assert_eq!(
        (&list["meta"]["total_count"], &list["objects"][0]["username"]),
        (&2.into(), &"ravi".into()),
        "{list}"
    );
    assert_eq!(list["objects"][0]["sub_account"], format!("/v1/Account/{SUB}/"));
    assert_eq!(list["meta"]["next"], format!("/v1/Account/{MAIN}/Endpoint/?limit=1&offset=1"));
    assert_eq!(node.plivo(SUB, "GET", "Endpoint/").await.json()["meta"]["total_count"], 1);
    assert_eq!(node.plivo(MAIN, "DELETE", &one).await.status, 204);
    assert_eq!(node.plivo(MAIN, "DELETE", &one).await.status, 404);
    node.cancel.cancel();
}

#[tokio::test]
async fn rejects_invalid_endpoints() {
    let node = run().await;
    for (change, wrong) in [
        (json!({"username": null}), "username parameter is missing"),
        (json!({"username": "a b"}), "username must be"),
        (json!({"username": "zoë"}), "username must be"),
        (json!({"password": null}), "password parameter is missing"),
        (json!({"password": "1234"}), "password must be 5 to 128 characters"),
        (json!({"password": ["x"]}), "password must be"),
        (json!({"alias": "x".repeat(101)}), "alias must be"),
        (json!({"app_id": "99"}), "app_id is invalid"),
    ] {
        let mut body = asha();
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let (status, answer) = node.make(MAIN, body).await;
        assert!(
            status == 400 && answer["error"].as_str().unwrap().starts_with(wrong),
            "{wrong}: {answer}"
        );
    }
    let (_, made) = node.make(MAIN, asha()).await;
    let one = format!("Endpoint/{}/", made["endpoint_id"].as_str().unwrap());
    let renamed = node.plivo_with(MAIN, "POST", &one, r#"{"username":"ravi"}"#).await;
    assert_eq!(renamed.status, 400, "{}", renamed.body);
    node.cancel.cancel();
}
