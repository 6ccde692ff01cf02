//! A minimal Meta for peers with their own media (Chromium, aiortc) and for webhook tests: posts
//! signed webhooks, keeps the Graph requests, and responds with success or as scripted.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::http::Answer;
use super::node::{NUMBER, Node, PHONE_NUMBER_ID};

type Script = Arc<dyn Fn(&Value) -> Option<(u16, String)> + Send + Sync>;

/// A Graph server that keeps its requests in order.
#[derive(Clone)]
pub struct Graph {
    asked: Arc<Mutex<Vec<Value>>>,
    script: Arc<Mutex<Option<Script>>>,
    count: watch::Sender<usize>,
    pub url: String,
}

impl Graph {
    pub async fn start() -> Self {
        let listener =
            tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port for Graph");
        let url = format!("http://{}/v23.0", listener.local_addr().expect("its address"));
        let graph = Self {
            asked: Arc::default(),
            script: Arc::default(),
            count: watch::Sender::new(0),
            url,
        };
        let router = Router::new().fallback(handle).with_state(graph.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        graph
    }

    /// Sets the responses. Requests for which `f` returns `None` succeed.
    pub fn script(&self, f: impl Fn(&Value) -> Option<(u16, String)> + Send + Sync + 'static) {
        *self.script.lock().expect("script") = Some(Arc::new(f));
    }

    pub fn asked(&self) -> Vec<Value> {
        self.asked.lock().expect("asked").clone()
    }

    /// Forgets the requests so far, so that a long test doesn't keep all of them.
    pub fn forget(&self) {
        self.asked.lock().expect("asked").clear();
    }

    /// Returns the actions requested for a call, in order.
    pub fn actions(&self, wacid: &str) -> Vec<String> {
        self.asked()
            .iter()
            .filter(|a| a["call_id"] == wacid)
            .filter_map(|a| a["action"].as_str().map(str::to_owned))
            .collect()
    }

    /// Waits for an action on a call.
    pub async fn wait(&self, wacid: &str, action: &str) -> Value {
        self.wait_where(wacid, |asked| asked["action"] == action).await.unwrap_or_else(|| {
            panic!("no {action} for {wacid} within 30 s; asked: {:?}", self.actions(wacid));
        })
    }

    /// Waits for the first action on a call. Returns its name.
    pub async fn first(&self, wacid: &str) -> String {
        let asked = self.wait_where(wacid, |asked| asked["action"].is_string()).await;
        let asked = asked.unwrap_or_else(|| panic!("nothing was asked for {wacid} within 30 s"));
        asked["action"].as_str().unwrap_or_default().to_owned()
    }

    async fn wait_where(&self, wacid: &str, test: impl Fn(&Value) -> bool) -> Option<Value> {
        let mut count = self.count.subscribe();
        let found = async {
            loop {
                if let Some(v) = self.asked().into_iter().find(|v| v["call_id"] == wacid && test(v))
                {
                    return v;
                }
                count.changed().await.expect("Graph lives");
            }
        };
        tokio::time::timeout(Duration::from_secs(30), found).await.ok()
    }
}

async fn handle(State(graph): State<Graph>, uri: Uri, body: Bytes) -> Response {
    let mut asked: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    // Requests that only read Meta's settings are not recorded.
    if asked.is_object() {
        asked["_path"] = json!(uri.path());
        graph.asked.lock().expect("asked").push(asked.clone());
        graph.count.send_modify(|n| *n += 1);
    }
    let script = graph.script.lock().expect("script").clone();
    let (status, text) = script
        .and_then(|s| s(&asked))
        .unwrap_or_else(|| (200, r#"{"messaging_product":"whatsapp","success":true}"#.to_owned()));
    (StatusCode::from_u16(status).expect("a status"), [("content-type", "application/json")], text)
        .into_response()
}

/// Returns a new call id.
pub fn wacid() -> String {
    format!("wacid.{}", uuid::Uuid::new_v4().simple())
}

/// Returns the body of a connect webhook with this offer.
pub fn connect_body(wacid: &str, sdp: &str) -> Value {
    let now = model::Clock::real().wall().secs().to_string();
    call_item(json!({
        "id": wacid, "from": "919412341234", "to": NUMBER, "event": "connect", "timestamp": now,
        "direction": "USER_INITIATED", "session": {"sdp_type": "offer", "sdp": sdp},
    }))
}

/// Returns the body of a terminate webhook.
pub fn terminate_body(wacid: &str) -> Value {
    let now = model::Clock::real().wall().secs().to_string();
    call_item(json!({
        "id": wacid, "from": "919412341234", "to": NUMBER, "event": "terminate", "timestamp": now,
        "direction": "USER_INITIATED", "status": "COMPLETED",
    }))
}

fn call_item(item: Value) -> Value {
    json!({"object": "whatsapp_business_account", "entry": [{"id": "1029384756", "changes": [{"field": "calls", "value": {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": NUMBER, "phone_number_id": PHONE_NUMBER_ID},
        "contacts": [{"profile": {"name": "Asha Verma"}, "wa_id": "919412341234"}],
        "calls": [item],
    }}]}]})
}

/// Calls the node with this offer. Returns the call id.
pub async fn connect(node: &Node, sdp: &str) -> String {
    let id = wacid();
    let answer: Answer = node.post_webhook(&connect_body(&id, sdp).to_string()).await;
    assert_eq!(answer.status, 200, "the webhook is taken");
    id
}

/// Hangs up as the user.
pub async fn terminate(node: &Node, wacid: &str) {
    let answer = node.post_webhook(&terminate_body(wacid).to_string()).await;
    assert_eq!(answer.status, 200, "the webhook is taken");
}

/// Returns an offer in Meta's format with a relay address that does not respond, for tests of
/// signalling only.
pub fn silent_offer() -> String {
    include_str!("../../../fixtures/meta/sdp/offer_relay_full.sdp")
        .replace("198.51.100.62", "127.0.0.1")
        .replace(" 3482 ", " 9 ")
}
