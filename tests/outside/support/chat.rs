//! A node with a customer's webhooks and users who write to it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use sim::Sim;

use super::app::{App, ReceivedRequest};
use super::http;
use super::node::{API_KEY, AUTH_ID, NUMBER, Node, NodeConfig, PHONE_NUMBER_ID, sim_options};

pub const SECRET: &str = "test-secret-of-webhook";
pub const OTHER_SECRET: &str = "test-secret-of-other-webhook";
pub const USER: &str = "919412341234";

/// A node with its simulated Meta and application.
pub struct Chat {
    pub sim: Sim,
    pub node: Node,
    pub app: App,
    written: AtomicUsize,
}

impl Chat {
    /// Starts with one webhook, `crm`, at `/hook`.
    pub async fn start() -> Self {
        Self::start_with(crm, |_| {}).await
    }

    /// Starts with a second webhook, `desk`, at `/desk`.
    pub async fn with_two() -> Self {
        Self::start_with(crm_and_desk, |_| {}).await
    }

    pub async fn start_with(
        extra: impl Fn(&App) -> String,
        more: impl FnOnce(&mut NodeConfig),
    ) -> Self {
        let app = App::start().await;
        app.xml("/answer", "<Response><Speak>Hello.</Speak></Response>");
        for path in ["/hook", "/desk", "/form"] {
            app.route(path, |_| (200, String::new()));
        }
        let sim = Sim::start(sim_options()).await.expect("sim");
        let mut node_config = NodeConfig::new(&sim.graph_url(), &app.url("/answer"));
        node_config.extra = extra(&app);
        more(&mut node_config);
        let node = Node::start(&node_config).await;
        sim.set_node_url(&node.public);
        Self { sim, node, app, written: AtomicUsize::new(0) }
    }

    /// Sends a request to the number API with the default key.
    pub async fn ask(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        self.ask_as(API_KEY, method, path, body).await
    }

    pub async fn ask_as(&self, key: &str, method: &str, path: &str, body: Value) -> (u16, Value) {
        let url = format!("{}/api/v1/{path}", self.node.public);
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = http::send(method, &url, &[("x-api-key", key)], body).await;
        (answer.status, serde_json::from_slice(&answer.body).unwrap_or_default())
    }

    pub async fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask("GET", path, Value::Null).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// Sends a text from a user. Returns Meta's message id after the node has accepted it.
    pub async fn send_text(&self, user: &str, text: &str) -> String {
        self.send_message(user, json!({"type": "text", "text": {"body": text}})).await
    }

    /// Sends a message of any kind from a user.
    pub async fn send_message(&self, user: &str, message: Value) -> String {
        let wamid = format!("wamid.{}.{}", user, self.written.fetch_add(1, Ordering::Relaxed));
        assert_eq!(self.send_message_as(user, &wamid, message).await, 200);
        wamid
    }

    pub async fn send_message_as(&self, user: &str, wamid: &str, message: Value) -> u16 {
        self.node.post_webhook(&message_body(user, wamid, message)).await.status
    }

    /// Reports a message status from Meta.
    pub async fn status(&self, wamid: &str, word: &str, more: Value) {
        let mut status =
            json!({"id": wamid, "status": word, "timestamp": "1790000000", "recipient_id": USER});
        if let (Some(members), Value::Object(more)) = (status.as_object_mut(), more) {
            members.extend(more);
        }
        let value = json!({
            "messaging_product": "whatsapp",
            "metadata": {"display_phone_number": NUMBER, "phone_number_id": PHONE_NUMBER_ID},
            "statuses": [status],
        });
        assert_eq!(self.node.post_webhook(&body_of(value)).await.status, 200);
    }

    /// Returns the conversation with a user.
    pub async fn conversation(&self, user: &str) -> Value {
        // Events without a waiting client (an ended call, a permission request) are written a
        // moment later.
        let mut every = tokio::time::interval(Duration::from_millis(20));
        for _ in 0..250 {
            every.tick().await;
            let found = self.get(&format!("conversations/?q={user}")).await;
            if let [one] = found["items"].as_array().expect("a list").as_slice() {
                return one.clone();
            }
        }
        panic!("no conversation with {user} after 5 s; log:\n{}", self.node.log());
    }

    pub async fn id_of(&self, user: &str) -> String {
        self.conversation(user).await["id"].as_str().expect("an id").to_owned()
    }

    /// Waits until a conversation's timeline satisfies `test`.
    pub async fn until(&self, id: &str, test: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let mut every = tokio::time::interval(Duration::from_millis(20));
        let mut last = Vec::new();
        for _ in 0..500 {
            every.tick().await;
            last = self.get(&format!("conversations/{id}/timeline/")).await["items"]
                .as_array()
                .expect("a list")
                .clone();
            if test(&last) {
                return last;
            }
        }
        panic!("not after 10 s: {last:#?}; log:\n{}", self.node.log());
    }

    /// Waits for an event of a type at a path with data that satisfy `test`.
    pub async fn event(
        &self,
        path: &str,
        kind: &str,
        test: impl Fn(&Value) -> bool,
    ) -> (ReceivedRequest, Value) {
        let seen = self.app.wait_where(path, |seen| {
            let event = seen.json();
            event["type"] == kind && test(&event["data"])
        });
        let seen = seen.await;
        let event = seen.json();
        (seen, event)
    }

    /// Waits for the message event with this text at a path.
    pub async fn message_at(&self, path: &str, text: &str) -> Value {
        self.event(path, "message.received", |data| data["message"]["text"] == text).await.1
    }

    /// Waits until the latest delivery of a webhook has this state.
    pub async fn delivery(&self, webhook: &str, state: &str) -> Value {
        self.delivery_of(&format!("webhooks/{webhook}/"), state).await
    }

    /// Waits until the latest delivery to a webhook or number, a path below `/api/v1/`, has a
    /// state.
    pub async fn delivery_of(&self, receiver: &str, state: &str) -> Value {
        self.until_item(&format!("{receiver}deliveries/?limit=1"), |it| it["state"] == state).await
    }

    /// Waits until a list of the number API, a path below `/api/v1/`, has an item.
    pub async fn until_item(&self, list: &str, mut is_it: impl FnMut(&Value) -> bool) -> Value {
        let mut every = tokio::time::interval(Duration::from_millis(20));
        for _ in 0..500 {
            every.tick().await;
            let found = self.get(list).await;
            let items = found["items"].as_array().expect("a list");
            if let Some(item) = items.iter().find(|item| is_it(item)) {
                return item.clone();
            }
        }
        panic!("no such item in {list} after 10 s; log:\n{}", self.node.log());
    }

    /// Returns the types of all events received at a path.
    pub fn types_at(&self, path: &str) -> Vec<String> {
        let seen = self.app.requests();
        let at = seen.iter().filter(|seen| seen.path == path);
        at.map(|seen| seen.json()["type"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Returns the id of a webhook.
    pub async fn webhook(&self, name: &str) -> String {
        let all = self.get("webhooks/").await;
        let found =
            all["items"].as_array().expect("a list").iter().find(|webhook| webhook["name"] == name);
        found.unwrap_or_else(|| panic!("no {name} in {all}"))["id"]
            .as_str()
            .expect("an id")
            .to_owned()
    }

    /// Creates an agent of kind `http`. Returns its id.
    pub async fn agent(&self, endpoint: &str) -> String {
        let agent = json!({"name": "Asha", "kind": "http", "endpoint": endpoint, "signingSecret": "agent-secret"});
        let (status, made) = self.ask("POST", "agents/", agent).await;
        assert_eq!(status, 201, "{made}");
        made["id"].as_str().expect("an id").to_owned()
    }

    /// Connects the number's messages to an agent.
    pub async fn connect(&self, agent: &str) {
        let path = format!("phone-numbers/{NUMBER}/connect-agent/");
        let (status, shown) = self.ask("POST", &path, json!({ "agent": agent })).await;
        assert_eq!(status, 200, "{shown}");
    }

    /// Subscribes the number.
    pub async fn subscribe(&self, webhook: Option<&str>, all: bool) -> (u16, Value) {
        let mut body = json!({"number": NUMBER, "whatsappPhoneNumberId": PHONE_NUMBER_ID, "applyToExisting": all});
        if let Some(webhook) = webhook {
            body["webhook"] = json!(webhook);
        }
        self.ask("POST", &format!("phone-numbers/{NUMBER}/subscribe/"), body).await
    }
}

/// Returns the body of a webhook with a message of a user.
pub fn message_body(user: &str, wamid: &str, mut message: Value) -> String {
    message["from"] = json!(user);
    message["id"] = json!(wamid);
    let now = model::Clock::real().wall().secs();
    message["timestamp"] = json!(now.to_string());
    body_of(json!({
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": NUMBER, "phone_number_id": PHONE_NUMBER_ID},
        "contacts": [{"profile": {"name": "Asha Verma"}, "wa_id": user}],
        "messages": [message],
    }))
}

fn body_of(value: Value) -> String {
    let change = json!({"field": "messages", "value": value});
    json!({"object": "whatsapp_business_account", "entry": [{"id": "1029384756", "changes": [change]}]}).to_string()
}

/// Returns a `[[webhook]]` table named `crm`.
pub fn crm(app: &App) -> String {
    webhook(app, "crm", "/hook", SECRET)
}

/// Returns [`crm`], and a second one named `desk`.
pub fn crm_and_desk(app: &App) -> String {
    format!("{}{}", crm(app), webhook(app, "desk", "/desk", OTHER_SECRET))
}

pub fn webhook(app: &App, name: &str, path: &str, secret: &str) -> String {
    let url = app.url(path);
    format!(
        "[[webhook]]\nname = \"{name}\"\nurl = \"{url}\"\nsecret = \"{secret}\"\naccount = \"{AUTH_ID}\"\n"
    )
}
