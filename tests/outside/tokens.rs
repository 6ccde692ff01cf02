//! Rotation of an account's auth token: both tokens authenticate and sign for a while, also across
//! a restart, and the configuration takes precedence when it names another one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::outbound::{USER, World, user, world};
use crate::support::http;
use crate::support::node::{API_KEY, AUTH_ID, AUTH_TOKEN, NUMBER};

impl World {
    async fn token(&self, method: &str, path: &str, body: Value) -> http::Answer {
        let url = format!("{}/api/v1/account/{path}", self.node.public);
        let body = if body.is_null() { String::new() } else { body.to_string() };
        http::send(method, &url, &[("x-api-key", API_KEY)], body).await
    }

    /// Returns true if the Plivo-compatible API accepts this token.
    async fn opens(&self, token: &str) -> bool {
        let basic = format!("Basic {}", STANDARD.encode(format!("{AUTH_ID}:{token}")));
        let url = format!("{}/v1/Account/{AUTH_ID}/", self.node.public);
        http::send("GET", &url, &[("authorization", &basic)], "").await.status == 200
    }
}

/// Returns true if one of a request's V2 signatures was made with this token.
fn signed_by(seen: &crate::support::app::ReceivedRequest, url: &str, token: &str) -> bool {
    let header = |name: &str| seen.headers[name].to_str().expect("text").to_owned();
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, token.as_bytes());
    let text = format!("{url}{}", header("x-plivo-signature-v2-nonce"));
    let right = STANDARD.encode(aws_lc_rs::hmac::sign(&key, text.as_bytes()));
    header("x-plivo-signature-v2").split(',').any(|one| one == right)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_rotated_with_an_overlap_and_survives_a_restart() {
    use sim::{CalleeAction, EventOrder};
    let mut world = world(|node, _| node.is_single = true).await;
    world.app.xml("/unused", "<Response><Hangup/></Response>");
    let key = http::send(
        "POST",
        &format!("{}/api/v1/api-keys/", world.node.public),
        &[("x-api-key", API_KEY)],
        json!({"name": "desk", "role": "admin"}).to_string(),
    )
    .await
    .json()["secret"]
        .as_str()
        .expect("a key")
        .to_owned();
    let url = format!("{}/api/v1/account/token/", world.node.public);
    assert_eq!(
        http::send("POST", &url, &[("x-api-key", &key)], "").await.status,
        403,
        "for owners"
    );
    assert_eq!(world.token("POST", "token/", json!({"overlapHours": 0})).await.status, 400);
    assert_eq!(
        world.token("POST", "token/", json!({"account": "SAXXXXXXXXXXXXXXXXXX"})).await.status,
        400
    );
    assert_eq!(world.token("DELETE", "token/previous/", Value::Null).await.status, 409);

    let made = world.token("POST", "token/", json!({"overlapHours": 2})).await;
    assert_eq!((made.status, &made.json()["account"]), (201, &json!(AUTH_ID)), "{}", made.text());
    let new = made.json()["authToken"].as_str().expect("a token").to_owned();
    let shown = world.token("GET", "", Value::Null).await;
    assert_eq!(shown.json()["previousTokenUntil"], made.json()["previousUntil"]);
    assert!(!shown.text().contains(&new), "it is shown once");
    let again = world.token("POST", "token/", Value::Null).await;
    assert_eq!((again.status, &again.json()["error"]["code"]), (409, &json!("rotation_running")));
    world.node.kill();
    world.node.start_again().await;
    world.sim.set_node_url(world.node.public.clone());
    assert!(
        world.opens(&new).await && world.opens(AUTH_TOKEN).await && !world.opens("other").await
    );
    let call = |world: &World| {
        let callee = world.sim.expect_call(user(CalleeAction::Accept, EventOrder::ConnectFirst));
        let url = format!("{}/api/v1/calls/", world.node.public);
        let order = json!({"from": NUMBER, "to": USER}).to_string();
        async move {
            assert_eq!(
                http::send("POST", &url, &[("x-api-key", API_KEY)], order).await.status,
                201
            );
            callee.all().await;
        }
    };
    call(&world).await;
    let asked = world.app.wait("/unused").await;
    let at = world.app.url("/unused");
    assert!(signed_by(&asked, &at, &new) && signed_by(&asked, &at, AUTH_TOKEN));

    assert_eq!(world.token("DELETE", "token/previous/", Value::Null).await.status, 204);
    assert!(world.opens(&new).await && !world.opens(AUTH_TOKEN).await);
    assert_eq!(world.token("GET", "", Value::Null).await.json()["previousTokenUntil"], Value::Null);
    world.node.kill();
    world.node.start_again().await;
    assert!(
        world.opens(&new).await && !world.opens(AUTH_TOKEN).await,
        "the file names what it named then"
    );
    // With another key, the replaced token does not become valid again.
    let at = |name: &str| world.node.dir.path().join(name);
    let (own, away) = (at("store.key"), at("away.key"));
    world.node.kill();
    std::fs::rename(&own, &away).expect("moved");
    world.node.start_again().await;
    assert!(!world.opens(&new).await && !world.opens(AUTH_TOKEN).await);
    assert_eq!(world.token("GET", "", Value::Null).await.status, 200, "API keys sign in");
    world.node.kill();
    std::fs::rename(&away, &own).expect("moved back");
    world.node.start_again().await;
    assert!(world.opens(&new).await && !world.opens(AUTH_TOKEN).await);
    for entry in std::fs::read_dir(world.node.dir.path()).expect("the folder").flatten() {
        let bytes = std::fs::read(entry.path()).unwrap_or_default();
        assert!(
            !bytes.windows(new.len()).any(|part| part == new.as_bytes()),
            "{:?}: sealed",
            entry.path()
        );
    }
    // The operator configures another token.
    let config = world.node.dir.path().join("offhook.toml");
    let text = std::fs::read_to_string(&config).expect("the configuration");
    std::fs::write(&config, text.replace(AUTH_TOKEN, "another-token-of-account"))
        .expect("write it");
    let reload = format!("{}/api/v1/reload/", world.node.public);
    assert_eq!(http::send("POST", &reload, &[("x-api-key", API_KEY)], "").await.status, 200);
    assert!(
        world.opens("another-token-of-account").await
            && !world.opens(&new).await
            && !world.opens(AUTH_TOKEN).await
    );
}
