//! Media sent by a business over HTTP: uploaded to Meta by the node, referenced in a message, and
//! shown in the timeline.

use serde_json::{Value, json};

use crate::console::OTHER;
use crate::support::app::App;
use crate::support::chat::{Chat, USER, crm};
use crate::support::http::{self, Answer};
use crate::support::node::{ACCESS_TOKEN, API_KEY, NUMBER, PHONE_NUMBER_ID};

/// A PNG of one pixel.
pub const PIXEL: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

fn pixel() -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(PIXEL).unwrap()
}

async fn upload(chat: &Chat, key: &str, path: &str, kind: &str, file: Vec<u8>) -> Answer {
    let url = format!("{}/api/v1/conversations/{path}", chat.node.public);
    http::send("POST", &url, &[("x-api-key", key), ("content-type", kind)], file).await
}

/// Starts a chat in which a user asked for a picture, and another account with its own key.
async fn asked_for_a_picture() -> Chat {
    let other = format!(
        "[[account]]\nauth_id = \"{OTHER}\"\nauth_token = \"test-token-of-other-account\"\napi_keys = [\"test-key-of-other-account\"]\n"
    );
    let chat = Chat::start_with(|app| format!("{}\n{other}", crm(app)), |_| {}).await;
    chat.send_text(USER, "A picture, please").await;
    chat
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_uploaded_sent_and_shown_in_the_timeline() {
    let chat = asked_for_a_picture().await;
    let id = chat.id_of(USER).await;
    let media = format!("{id}/media/");
    let uploaded =
        upload(&chat, API_KEY, &format!("{media}?filename=par%C3%A7el.png"), "image/png", pixel())
            .await;
    assert_eq!(uploaded.status, 201, "{}", uploaded.text());
    let resource = uploaded.json();
    assert_eq!(
        (&resource["type"], &resource["mimeType"], &resource["filename"], &resource["bytes"]),
        (&json!("image"), &json!("image/png"), &json!("parçel.png"), &json!(pixel().len()))
    );
    let message = json!({"type": "image", "image": {"id": resource["id"], "caption": "Here"}});
    let (status, sent) = chat.ask("POST", &format!("conversations/{id}/messages/"), message).await;
    assert_eq!(status, 202, "{sent}");
    let items = chat.until(&id, |items| items.iter().any(|item| item["status"] == "read")).await;
    let line = items.iter().find(|item| item["type"] == "image").expect("the message");
    assert_eq!(
        (&line["media"]["caption"], &line["media"]["mimeType"]),
        (&json!("Here"), &json!("image/png"))
    );
    // Meta received the file without our internal data.
    let shown = http::get(&format!("{}/_sim/messages", chat.sim.url())).await.json();
    let got = shown
        .as_array()
        .unwrap()
        .iter()
        .find(|m| m["message"]["type"] == "image")
        .expect("at Meta")
        .clone();
    assert_eq!(got["message"]["image"], json!({"id": resource["id"], "caption": "Here"}), "{got}");
    assert_eq!(got["phone_number_id"], PHONE_NUMBER_ID);
    let seen = http::get(line["media"]["url"].as_str().unwrap()).await;
    assert_eq!((seen.status, seen.headers["content-type"].to_str().unwrap()), (200, "image/png"));
    assert_eq!(seen.body, pixel(), "byte for byte");

    // A longer file in many pieces.
    let long: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let uploaded =
        upload(&chat, API_KEY, &media, "application/pdf; charset=binary", long.clone()).await;
    assert_eq!(uploaded.status, 201, "{}", uploaded.text());
    assert_eq!(
        (&uploaded.json()["type"], &uploaded.json()["filename"]),
        (&json!("document"), &json!("file"))
    );
    let url = format!("{}/_sim/media/{}", chat.sim.url(), uploaded.json()["id"].as_str().unwrap());
    let bearer = format!("Bearer {}", crate::support::node::ACCESS_TOKEN);
    assert_eq!(
        http::send("GET", &url, &[("authorization", &bearer)], "").await.body,
        long,
        "byte for byte"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn r11_below_the_reserve_of_the_disk_no_file_is_taken_and_messages_go_on() {
    // No disk has this much free space.
    let full = |app: &App| format!("{}\n[recordings]\nreserve_mib = 1073741824\n", crm(app));
    let chat = Chat::start_with(full, |_| {}).await;
    chat.send_text(USER, "A picture, please").await;
    let media = format!("{}/media/", chat.id_of(USER).await);
    let refused = upload(&chat, API_KEY, &media, "image/png", pixel()).await;
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (503, &json!("not_stored")));
    let why = [("why", "disk_full")];
    assert_eq!(chat.node.metric("offhook_user_files_refused_total", &why).await, 1.0);
    // A long message would also fill the disk, a text does not.
    let messages = format!("conversations/{}/messages/", chat.id_of(USER).await);
    let long = json!({"type": "interactive", "interactive": {"type": "list", "body": {"text": "x".repeat(5_000)}}});
    let (status, refused) = chat.ask("POST", &messages, long).await;
    assert_eq!((status, &refused["error"]["code"]), (503, &json!("not_stored")));
    assert_eq!(chat.node.metric("offhook_messages_refused_total", &why).await, 1.0);
    let text = json!({"type": "text", "text": "x".repeat(3_000)});
    assert_eq!(chat.ask("POST", &messages, text).await.0, 202);
}

/// A tenant chooses the media id of a message, and accounts may share an access token.
#[tokio::test(flavor = "multi_thread")]
async fn r16_a_message_does_not_lead_to_a_file_of_another_number() {
    let chat = asked_for_a_picture().await;
    let conversation = chat.id_of(USER).await;
    let number = "5511987654321";
    let phone_number_id = "206540352242922";
    let order =
        json!({"number": number, "phone_number_id": phone_number_id, "waba": "99", "name": "Loja"});
    let url = format!("{}/_sim/numbers", chat.sim.url());
    assert_eq!(http::send("POST", &url, &[], order.to_string()).await.status, 204);
    let form = "--b\r\nContent-Disposition: form-data; name=\"messaging_product\"\r\n\r\nwhatsapp\r\n--b\r\n\
        Content-Disposition: form-data; name=\"file\"; filename=\"a.png\"\r\nContent-Type: image/png\r\n\r\ncanary\r\n--b--\r\n";
    let bearer = format!("Bearer {ACCESS_TOKEN}");
    let headers =
        [("authorization", &*bearer), ("content-type", "multipart/form-data; boundary=b")];
    let url = format!("{}/{phone_number_id}/media", chat.sim.graph_url());
    let foreign = http::send("POST", &url, &headers, form).await;
    assert_eq!(foreign.status, 200, "{}", foreign.text());
    let file = foreign.json()["id"].clone();
    let message = json!({"type": "image", "image": {"id": file}});
    let path = format!("conversations/{conversation}/messages/");
    assert_eq!(chat.ask("POST", &path, message).await.0, 202);
    let items = chat.until(&conversation, |items| items.iter().any(|item| item["type"] == "image"));
    let items = items.await;
    let line = items.iter().find(|item| item["type"] == "image").expect("the message");
    let seen = http::get(line["media"]["url"].as_str().unwrap()).await;
    assert_ne!(seen.status, 200, "{}", seen.text());
    assert!(!seen.text().contains("canary"), "{}", seen.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn r14_a_file_that_whatsapp_does_not_support_is_refused() {
    let chat = asked_for_a_picture().await;
    let media = format!("{}/media/", chat.id_of(USER).await);
    let large = vec![0; (5 << 20) + 1];
    for (path, kind, file, status, code, field) in [
        (media.as_str(), "image/gif", pixel(), 415, "unsupported_type", json!("Content-Type")),
        (media.as_str(), "", pixel(), 415, "unsupported_type", json!("Content-Type")),
        (media.as_str(), "text/html", pixel(), 415, "unsupported_type", json!("Content-Type")),
        (media.as_str(), "image/jpeg", Vec::new(), 400, "bad_value", Value::Null),
        (
            &format!("{media}?filename=..%2Fetc"),
            "image/png",
            pixel(),
            400,
            "bad_value",
            json!("filename"),
        ),
        (
            "3f0c2f1a-6a1e-4f0e-9a2b-5d7f3f0a9b11/media/",
            "image/png",
            pixel(),
            404,
            "not_found",
            Value::Null,
        ),
    ] {
        let answer = upload(&chat, API_KEY, path, kind, file).await;
        let error = &answer.json()["error"];
        assert_eq!(
            (answer.status, &error["code"], &error["field"]),
            (status, &json!(code), &field),
            "{kind} {path}"
        );
    }
    assert_eq!(
        upload(&chat, "test-key-of-other-account", &media, "image/png", pixel()).await.status,
        404,
        "another account's"
    );
    // A Content-Length above the limit is refused before the body; without one the bytes are
    // counted.
    let url = format!("{}/api/v1/conversations/{media}", chat.node.public);
    let headers = [("x-api-key", API_KEY), ("content-type", "image/png")];
    let result = http::try_send("POST", &url, &headers, large.clone()).await;
    assert!(result.is_err() || result.is_ok_and(|answer| answer.status == 413));
    let path = format!("/api/v1/conversations/{media}");
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nx-api-key: {API_KEY}\r\ncontent-type: image/png\r\ntransfer-encoding: chunked\r\n\
         connection: close\r\n\r\n{:x}\r\n",
        large.len()
    )
    .into_bytes();
    request.extend_from_slice(&large);
    request.extend_from_slice(b"\r\n0\r\n\r\n");
    let answer = http::raw(&chat.node.public, &request).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("at most 5120 KiB"), "{answer}");
    // A disconnected number is reported as such, as everywhere.
    let out = chat.ask("POST", &format!("phone-numbers/{NUMBER}/disconnect/"), Value::Null).await;
    assert_eq!(out.0, 200, "{}", out.1);
    let refused = upload(&chat, API_KEY, &media, "image/png", pixel()).await;
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (409, &json!("disconnected")));
    assert_eq!(
        chat.ask("POST", &format!("phone-numbers/{NUMBER}/reconnect/"), Value::Null).await.0,
        200
    );
    // Meta's refusal with its error text.
    let order =
        json!([{"what": "media", "status": 400, "code": 131_053, "details": "Media upload error"}]);
    let ordered =
        http::send("POST", &format!("{}/_sim/failures", chat.sim.url()), &[], order.to_string())
            .await;
    assert_eq!(ordered.status, 204, "{}", ordered.text());
    let refused = upload(&chat, API_KEY, &media, "image/png", pixel()).await;
    assert_eq!(
        (refused.status, &refused.json()["error"]["meta"]["code"]),
        (502, &json!(131_053)),
        "{}",
        refused.text()
    );
    assert_eq!(
        upload(&chat, API_KEY, &media, "image/png", pixel()).await.status,
        201,
        "and nothing is left of that"
    );
}
