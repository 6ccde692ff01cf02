//! Tests of the demo application over HTTP: signatures, menu, sound.

use super::{Params, chime, signed_string, start};
use base64::Engine as _;
use bytes::Bytes;
use http::Request;
use std::time::Duration;

const TOKEN: &str = "a-token-for-tests";

fn params(pairs: &[(&str, &str)]) -> Params {
    let mut params = Params::new();
    for (name, value) in pairs {
        params.entry((*name).to_owned()).or_default().push((*value).to_owned());
    }
    params
}

#[test]
fn signed_strings_match_the_vectors() {
    let path = format!("{}/../../fixtures/signature-vectors.json", env!("CARGO_MANIFEST_DIR"));
    let vectors: serde_json::Value =
        serde_json::from_slice(&std::fs::read(path).expect("fixture")).expect("JSON");
    let mut checked = 0;
    for vector in vectors["vectors"].as_array().expect("vectors") {
        // Vectors for other methods and queries do not apply to the demo application.
        let url = vector["url"].as_str().expect("url");
        if !["v3-post-no-query", "v3-post-empty-body"].contains(&vector["id"].as_str().expect("id"))
        {
            continue;
        }
        let params: Params = vector["params"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, value)| (name.clone(), vec![value.as_str().expect("text").to_owned()]))
            .collect();
        let uri = url.trim_start_matches("https://app.example.com").parse().expect("path");
        let nonce = vector["nonce"].as_str().expect("nonce");
        let ours = signed_string("https://app.example.com", &uri, &params, nonce);
        assert_eq!(ours, vector["signed_string"].as_str().expect("string"));
        checked += 1;
    }
    assert_eq!(checked, 2);
}

async fn ask(base: &str, path: &str, digits: &str, token: &str) -> (u16, String) {
    let pairs = [("CallUUID", "3f0c2f1a-6a1e-4f0e-9a2b-5d7f3f0a9b11"), ("Digits", digits)];
    let uri = path.parse().expect("path");
    let signed = signed_string(base, &uri, &params(&pairs), "12345678901234567890");
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, token.as_bytes());
    let signature = base64::engine::general_purpose::STANDARD
        .encode(aws_lc_rs::hmac::sign(&key, signed.as_bytes()));
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    let request = Request::post(format!("{base}{path}"))
        .header("content-type", "application/x-www-form-urlencoded")
        .header("x-plivo-signature-v3", signature)
        .header("x-plivo-signature-v3-nonce", "12345678901234567890")
        .body(Bytes::from(body))
        .expect("request");
    let client = crate::client::client().expect("client");
    let answer = crate::client::fetch(&client, request, Duration::from_secs(5), 65_536)
        .await
        .expect("answer");
    (answer.status, String::from_utf8_lossy(&answer.body).into_owned())
}

#[tokio::test]
async fn answers_each_key_and_refuses_a_wrong_signature() {
    let demo = start(([127, 0, 0, 1], 0).into(), TOKEN).await.expect("demo");
    let answer_url = demo.answer_url();
    let base = answer_url.trim_end_matches("/answer");
    for (path, digits, says) in [
        ("/answer", "", "Welcome to Offhook"),
        ("/menu", "1", "nine in the morning"),
        ("/menu", "2", "/chime.wav</Play>"),
        ("/menu", "3", "<GetDigits"),
        ("/menu", "9", "/answer</Redirect>"),
        ("/menu", "0", "<Hangup/>"),
        ("/menu", "*", "not one of the choices"),
        ("/code", "4711", "<say-as interpret-as=\"digits\">4711</say-as>"),
        ("/code", "<&>", "digits\"></say-as>"),
    ] {
        let (status, body) = ask(base, path, digits, TOKEN).await;
        assert_eq!(status, 200, "{path} {digits}");
        assert!(body.contains(says), "{path} {digits}: {body}");
    }
    assert_eq!(ask(base, "/answer", "", "another token").await.0, 403);
}

#[test]
fn the_chime_is_a_wav_file() {
    assert_eq!(crate::sound::frames_of_wav(&chime()).map(|f| f.len()), Ok(75));
}
