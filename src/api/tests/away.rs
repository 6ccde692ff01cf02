//! Every operation of both APIs while the store is unavailable. Those that need it answer 503 with
//! `Retry-After`.

use axum::response::IntoResponse as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;

use super::{MAIN, run, uuid};
use crate::api::error::ApiError;
use crate::api::routes::Operation;
use crate::api::{number, plivo};
use store::StoreError;

#[tokio::test]
async fn r11_every_route_answers_503_with_retry_after_while_the_store_is_unavailable() {
    let node = run().await;
    node.store.close().await;
    let id = uuid(3).to_string();
    let mut away = Vec::new();
    let plivo = plivo::TABLES.iter().copied().flatten().map(AsRef::as_ref);
    let number = number::TABLES.iter().copied().flatten().map(AsRef::as_ref);
    for operation in plivo.chain(number) {
        let operation: &Operation = operation;
        let part = |part: &str| match part {
            "{auth_id}" => MAIN.to_owned(),
            "{number}" => "918035737458".to_owned(),
            "{wa_id}" => "919412341234".to_owned(),
            named if named.starts_with('{') => id.clone(),
            named => named.to_owned(),
        };
        let path = operation.path.split('/').map(part).collect::<Vec<_>>().join("/");
        let body = match operation.id {
            "makeApplication" => r#"{"app_name": "a"}"#,
            "makeSubaccount" => r#"{"name": "a"}"#,
            "createAgent" => {
                r#"{"name": "a", "kind": "http", "endpoint": "https://a.example.com/"}"#
            }
            _ => "{}",
        };
        let answer = match path.strip_prefix("/api/v1/") {
            Some(rest) => node.ours(MAIN, operation.method, rest, body).await,
            None => {
                let basic = STANDARD.encode(format!("{MAIN}:token"));
                let head =
                    format!("authorization: Basic {basic}\r\ncontent-type: application/json\r\n");
                node.ask(operation.method, &path, &head, body).await
            }
        };
        assert_ne!(answer.status, 500, "{} {path}: {}", operation.method, answer.body);
        if answer.status == 503 {
            assert!(
                answer.head.contains("retry-after: 5"),
                "{} {path}: {}",
                operation.method,
                answer.head
            );
            let error = &answer.json()["error"];
            let text = error["message"].as_str().or_else(|| error.as_str()).unwrap_or_default();
            assert!(text.contains("try again"), "{} {path}: {}", operation.method, answer.body);
            away.push(operation.id);
        }
    }
    for wanted in [
        "listCalls",
        "calls",
        "listConversations",
        "conversation",
        "notifications",
        "forgetUser",
        "listRecordings",
        "makeApplication",
        "createAgent",
    ] {
        assert!(away.contains(&wanted), "{wanted} needs the store: {away:?}");
    }
    node.cancel.cancel();
}

#[tokio::test]
async fn r11_an_internal_error_stays_500() {
    let ours = StoreError::Unreadable { what: "read a call", detail: "no UUID".to_owned() };
    let response = ApiError::from_store(&ours).into_response();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    for away in [StoreError::NotTaken, StoreError::Closed] {
        let answer = ApiError::from_store(&away).into_response();
        assert_eq!(
            (answer.status(), &answer.headers()["retry-after"]),
            (StatusCode::SERVICE_UNAVAILABLE, &"5".parse().unwrap())
        );
    }
}
