//! The cache of provider metadata, with a test provider and a stepped clock.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::testing::settings;
use super::{OpenIdError, Provider};
use model::Clock;
use model::Timestamp;

/// A provider with a number of keys and changes to its metadata.
struct TestProvider {
    issuer: String,
    keys: Arc<AtomicU32>,
    change: Arc<Mutex<Value>>,
}

impl TestProvider {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let (keys, change) = (Arc::new(AtomicU32::new(1)), Arc::new(Mutex::new(json!({}))));
        let (many, at, other) = (keys.clone(), issuer.clone(), change.clone());
        let configuration = move || {
            let mut metadata = json!({"issuer": at, "authorization_endpoint": format!("{at}/a"),
                "token_endpoint": format!("{at}/t"), "jwks_uri": format!("{at}/keys")});
            for (name, value) in other.lock().unwrap().as_object().unwrap() {
                metadata[name] = value.clone();
            }
            async move { Json(metadata) }
        };
        let published = move || {
            let key = |n| json!({"kty": "OKP", "crv": "Ed25519", "kid": n, "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
            let all: Vec<Value> =
                (0..many.load(Ordering::SeqCst)).map(|n| key(n.to_string())).collect();
            async move { Json(json!({"keys": all})) }
        };
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(configuration))
            .route("/keys", get(published));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { issuer, keys, change }
    }

    fn provider(&self, clock: &Clock) -> Provider {
        let settings = settings(&self.issuer);
        Provider::new(settings, "https://calls.example.com/", clock.clone()).unwrap()
    }
}

#[tokio::test]
async fn keys_are_refreshed_hourly_and_for_unknown_ids() {
    let server = TestProvider::start().await;
    let clock = Clock::stepped(Timestamp::from_secs(1_800_000_000));
    let provider = server.provider(&clock);
    assert_eq!(provider.redirect(), "https://calls.example.com/console/sign-in/openid/back");
    assert_eq!(provider.examine().await.unwrap(), 1);
    server.keys.store(2, Ordering::SeqCst);
    // A token with an unknown key triggers a refresh at once, but not too often.
    clock.step(Duration::from_secs(1));
    let first = provider.0.metadata().await.unwrap();
    let second = provider.0.metadata_after(&first).await.unwrap();
    assert_eq!((first.keys.len(), second.keys.len()), (1, 2));
    server.keys.store(3, Ordering::SeqCst);
    let refreshed = async |seen| provider.0.metadata_after(seen).await.unwrap().keys.len();
    clock.step(Duration::from_secs(4));
    assert_eq!((refreshed(&first).await, refreshed(&second).await), (2, 2));
    assert_eq!(provider.examine().await.unwrap(), 2);
    clock.step(Duration::from_secs(1));
    assert_eq!((refreshed(&first).await, refreshed(&second).await), (2, 3));
    assert_eq!(provider.examine().await.unwrap(), 3);
    server.keys.store(4, Ordering::SeqCst);
    clock.step(Duration::from_secs(3_599));
    assert_eq!(provider.examine().await.unwrap(), 3);
    clock.step(Duration::from_secs(2));
    assert_eq!(provider.examine().await.unwrap(), 4);
}

#[tokio::test]
async fn faulty_metadata_is_explained() {
    let server = TestProvider::start().await;
    let clock = Clock::stepped(Timestamp::from_secs(1_800_000_000));
    for (change, words) in [
        (json!({"issuer": format!("{}/", server.issuer)}), "they must be the same"),
        (json!({"token_endpoint": "http://login.example.com/t"}), "is not https"),
        (json!({"authorization_endpoint": "javascript:alert(1)"}), "is not https"),
        (json!({"jwks_uri": "keys"}), "is no URL"),
        (json!({"jwks_uri": null}), "it can't be parsed"),
        (json!({"padding": "x".repeat(300_000)}), "length limit exceeded"),
    ] {
        *server.change.lock().unwrap() = change;
        let error = server.provider(&clock).examine().await.unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
    *server.change.lock().unwrap() = json!({});
    server.keys.store(0, Ordering::SeqCst);
    let error = server.provider(&clock).examine().await.unwrap_err();
    assert!(matches!(error, OpenIdError::Document { what: "the keys", .. }), "{error}");
    let gone = TestProvider { issuer: "http://127.0.0.1:1".to_owned(), ..server };
    assert!(matches!(gone.provider(&clock).examine().await, Err(OpenIdError::Unreachable { .. })));
}

#[tokio::test]
async fn an_unreachable_provider_is_retried_after_a_pause_and_metadata_stays() {
    let server = TestProvider::start().await;
    let clock = Clock::stepped(Timestamp::from_secs(1_800_000_000));
    *server.change.lock().unwrap() = json!({"jwks_uri": null});
    let provider = server.provider(&clock);
    assert!(matches!(provider.examine().await, Err(OpenIdError::Document { .. })));
    // The provider has recovered but is not asked yet.
    *server.change.lock().unwrap() = json!({});
    assert!(matches!(provider.examine().await, Err(OpenIdError::Away(_))));
    clock.step(Duration::from_secs(6));
    assert_eq!(provider.examine().await.unwrap(), 1);
    *server.change.lock().unwrap() = json!({"jwks_uri": null});
    clock.step(Duration::from_secs(3_601));
    assert_eq!(provider.examine().await.unwrap(), 1, "as it was read an hour ago");
}
