//! Several nodes on one PostgreSQL database (`docs/fleet.md`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use model::Clock;
use serde_json::json;
use sim::{CallEventKind, CallScript, HangupRule, PhoneKind, Sim};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio_util::sync::CancellationToken;

use super::console::{EventStream, Session, form, user};
use super::crash::event_id;
use super::endpoints::PASSWORD;
use super::sign_in::set_up_link;
use super::support::app::{App, ReceivedRequest};
use super::support::cable::Cable;
use super::support::chat::{USER, message_body};
use super::support::database::{self, counts, execute, skipped_without_postgres};
use super::support::http;
use super::support::meta::{self, Graph, connect_body, silent_offer, terminate_body};
use super::support::node::{
    API_KEY, AUTH_ID, NUMBER, Node, NodeConfig, balance, basic, free_port, program, sim_options,
};
use super::support::phone::{OFFER, Phone};
use super::upgrade::Successors;

/// Answers immediately and holds the call.
const HELD: &str = "<Response><Speak>Please hold.</Speak><Wait length=\"120\"/></Response>";

/// A simulated Meta, a customer's server, and the folder that names the shared database.
pub struct World {
    pub graph: Graph,
    pub app: App,
    shared: tempfile::TempDir,
    limits: String,
    cps: u32,
}

impl World {
    pub async fn new(calls_per_number: u32, cps: u32) -> Self {
        let (graph, app) = (Graph::start().await, App::start().await);
        app.xml("/answer", HELD).route("/hangup", |_| (200, String::new()));
        let limits = format!("calls_per_number = {calls_per_number}");
        Self { graph, app, shared: tempfile::tempdir().unwrap(), limits, cps }
    }

    /// The folder that names the database.
    pub fn folder(&self) -> &std::path::Path {
        self.shared.path()
    }

    pub fn config(&self, name: &str) -> NodeConfig {
        NodeConfig {
            hangup_url: self.app.url("/hangup"),
            accept_wait_ms: 0,
            cps: self.cps,
            limits: self.limits.clone(),
            store_of: Some(self.shared.path().to_owned()),
            store: "secret_key = \"the-secret-key-of-the-fleet-in-tests\"\n".to_owned(),
            extra: format!(
                "[cluster]\nnode_id = \"{name}\"\npeer = \"127.0.0.1:{}\"\n",
                free_port()
            ),
            ..NodeConfig::new(&self.graph.url, &self.app.url("/answer"))
        }
    }

    /// Two nodes with a call each, which can't reach the database from now on, and the cables to it
    /// and to each other.
    async fn two_without_database(&self) -> (Vec<Node>, BTreeSet<String>, [Vec<Cable>; 2]) {
        let (mut nodes, mut cables, mut links) = (Vec::new(), Vec::new(), Vec::new());
        for name in ["n0", "n1"] {
            let cable = Cable::to(database::port()).await;
            let mut config = NodeConfig { store_port: Some(cable.port), ..self.config(name) };
            let link = Cable::to(peer_port(&config)).await;
            config.extra += &format!("advertise = \"127.0.0.1:{}\"\n", link.port);
            nodes.push(Node::start(&config).await);
            cables.push(cable);
            links.push(link);
        }
        // Each node has used the number, and so has units of it.
        let calls: BTreeSet<String> = join_all(nodes.iter().map(call)).await.into_iter().collect();
        for call in &calls {
            self.graph.wait(call, "accept").await;
        }
        cables.iter().for_each(Cable::cut);
        for node in &nodes {
            node.until_metric("offhook_cluster_degraded", &[], 1.0).await;
        }
        (nodes, calls, [cables, links])
    }

    async fn node(&self, name: &str) -> Node {
        Node::start(&self.config(name)).await
    }

    pub async fn nodes(&self, count: usize) -> Vec<Node> {
        let configs: Vec<_> = (0..count).map(|n| self.config(&format!("n{n}"))).collect();
        join_all(configs.iter().map(Node::start)).await
    }

    /// The last word that Meta has for each call, and whether it was ever accepted.
    fn asked(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut asked: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for request in self.graph.asked() {
            let word = |name: &str| request[name].as_str().unwrap_or_default().to_owned();
            asked.entry(word("call_id")).or_default().insert(word("action"));
        }
        asked
    }

    pub fn with_action(&self, action: &str) -> BTreeSet<String> {
        let asked = self.asked().into_iter();
        asked.filter(|(_, actions)| actions.contains(action)).map(|(call, _)| call).collect()
    }

    /// Waits until the calls have a hangup callback, and checks that none has two identities.
    async fn until_hung_up(&self, calls: &BTreeSet<String>) -> Duration {
        let clock = Clock::real();
        let begun = clock.now();
        let mut every = tokio::time::interval(Duration::from_millis(50));
        loop {
            every.tick().await;
            let mut of: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            for seen in self.app.requests().iter().filter(|seen| seen.path == "/hangup") {
                of.entry(seen.param("WhatsAppCallID").to_owned())
                    .or_default()
                    .insert(event_id(seen));
            }
            assert!(of.values().all(|ids| ids.len() == 1), "one identity a call: {of:?}");
            if calls.iter().all(|call| of.contains_key(call)) {
                return clock.now().duration_since(begun);
            }
            let waited = clock.now().duration_since(begun);
            assert!(waited < Duration::from_secs(40), "{} of {} calls", of.len(), calls.len());
        }
    }
}

/// The port at which other nodes reach a node.
fn peer_port(config: &NodeConfig) -> u16 {
    let port = config.extra.rsplit_once(':').unwrap().1.trim_end_matches("\"\n");
    port.parse().unwrap()
}

/// Posts a call to a node. Returns its id at Meta.
async fn call(node: &Node) -> String {
    let wacid = meta::wacid();
    let body = connect_body(&wacid, &silent_offer()).to_string();
    assert_eq!(node.post_webhook(&body).await.status, 200);
    wacid
}

/// Ends calls at a node. The nodes' connections to the database may come back one after the other, so
/// it is repeated as Meta does.
async fn end_all(node: &Node, calls: &BTreeSet<String>) {
    let mut every = tokio::time::interval(Duration::from_millis(20));
    for call in calls {
        let body = terminate_body(call).to_string();
        while node.post_webhook(&body).await.status != 200 {
            every.tick().await;
        }
    }
}

/// Runs a command of the binary.
async fn offhook(arguments: &[&str]) -> std::process::Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_offhook"));
    command.args(arguments).output().await.unwrap()
}

async fn in_use(nodes: &[Node]) -> f64 {
    let used =
        nodes.iter().map(|node| node.metric("offhook_number_slots_in_use", &[("number", NUMBER)]));
    join_all(used).await.into_iter().sum()
}

#[tokio::test]
async fn f10_three_nodes_share_the_slots_of_a_number() {
    if skipped_without_postgres() {
        return;
    }
    const CAP: usize = 7;
    let world = World::new(u32::try_from(CAP).unwrap(), 1_000).await;
    let nodes = world.nodes(3).await;
    for round in 0..3 {
        // More calls than slots, from all sides.
        let calls = join_all((0..4 * CAP).map(|n| call(&nodes[n % 3]))).await;
        let calls: BTreeSet<String> = calls.into_iter().collect();
        let mut every = tokio::time::interval(Duration::from_millis(20));
        let admitted = loop {
            every.tick().await;
            let (accepted, rejected) = (world.with_action("accept"), world.with_action("reject"));
            if calls.iter().all(|call| accepted.contains(call) || rejected.contains(call)) {
                break accepted.intersection(&calls).cloned().collect::<BTreeSet<_>>();
            }
        };
        // Slots that lie at an idle node are found, so all of them are in use.
        assert_eq!(admitted.len(), CAP, "round {round}");
        assert_eq!(in_use(&nodes).await, CAP as f64);
        for (n, call) in admitted.iter().enumerate() {
            // The webhook of the end comes to any node.
            let body = terminate_body(call).to_string();
            assert_eq!(nodes[n % 3].post_webhook(&body).await.status, 200);
        }
        world.until_hung_up(&admitted).await;
    }
    let both = world.asked().into_values().filter(|a| a.contains("accept") && a.contains("reject"));
    assert_eq!(both.count(), 0);
    // An event that is passed on to the node of its call is counted only where it arrived.
    let label = [("kind", "calls.terminate")];
    let ends = nodes.iter().map(|node| node.metric("offhook_webhook_events_total", &label));
    assert_eq!(join_all(ends).await.into_iter().sum::<f64>(), (3 * CAP) as f64);
}

#[tokio::test]
async fn f04_a_call_that_comes_to_all_nodes_begins_once() {
    if skipped_without_postgres() {
        return;
    }
    const CALLS: usize = 60;
    let world = World::new(1_000, 10_000).await;
    let nodes = world.nodes(3).await;
    let calls: Vec<String> = (0..CALLS).map(|_| meta::wacid()).collect();
    let copies = calls.iter().flat_map(|wacid| {
        let body = connect_body(wacid, &silent_offer()).to_string();
        (0..9).map(move |n| (n % 3, body.clone()))
    });
    let posts = copies.map(|(n, body)| {
        let node = &nodes[n];
        async move { node.post_webhook(&body).await.status }
    });
    assert!(join_all(posts).await.into_iter().all(|status| status == 200));
    let calls: BTreeSet<String> = calls.into_iter().collect();
    for call in &calls {
        world.graph.wait(call, "accept").await;
    }
    assert!(world.with_action("reject").is_empty());
    let mut results = BTreeMap::new();
    for node in &nodes {
        for result in ["admitted", "duplicate"] {
            let count = node.metric("offhook_webhook_events_total", &[("result", result)]).await;
            *results.entry(result).or_insert(0.0) += count;
        }
    }
    assert_eq!(results["admitted"], CALLS as f64, "{results:?}");
    assert_eq!(results["duplicate"], 8.0 * CALLS as f64, "{results:?}");
    assert_eq!(in_use(&nodes).await, CALLS as f64);
}

#[tokio::test]
async fn f04_a_call_that_two_nodes_began_without_the_database_is_kept_by_one() {
    if skipped_without_postgres() {
        return;
    }
    let world = World::new(20, 1_000).await;
    let (nodes, earlier, [cables, links]) = world.two_without_database().await;
    // Otherwise they would ask each other.
    links.iter().for_each(Cable::cut);
    let wacid = meta::wacid();
    let body = connect_body(&wacid, &silent_offer()).to_string();
    for node in &nodes {
        assert_eq!(node.post_webhook(&body).await.status, 200);
    }
    assert_eq!(in_use(&nodes).await, 4.0, "both have begun it");
    cables.iter().chain(&links).for_each(Cable::mend);
    let mut every = tokio::time::interval(Duration::from_millis(20));
    while in_use(&nodes).await > 3.0 {
        every.tick().await;
    }
    let withdrawn = nodes.iter().map(|node| node.metric("offhook_calls_withdrawn_total", &[]));
    assert_eq!(join_all(withdrawn).await.into_iter().sum::<f64>(), 1.0);
    // The one that is left is ended at any node, and reported once.
    let all: BTreeSet<String> = earlier.into_iter().chain([wacid.clone()]).collect();
    end_all(&nodes[0], &all).await;
    world.until_hung_up(&all).await;
    assert!(!world.with_action("terminate").contains(&wacid));
    let records = "SELECT count(*), count(DISTINCT wacid), count(ended_us), 0::bigint FROM calls";
    assert_eq!(counts(world.shared.path(), records).await, (3, 3, 3, 0));
}

#[tokio::test]
async fn f04_without_the_database_a_node_asks_the_others_for_a_call() {
    if skipped_without_postgres() {
        return;
    }
    let world = World::new(20, 1_000).await;
    let (nodes, earlier, [cables, _links]) = world.two_without_database().await;
    let wacid = meta::wacid();
    let body = connect_body(&wacid, &silent_offer()).to_string();
    // Meta sends it again, and the balancer passes it to the other node.
    for node in [&nodes[0], &nodes[1], &nodes[0]] {
        assert_eq!(node.post_webhook(&body).await.status, 200);
    }
    assert_eq!(in_use(&nodes).await, 3.0, "one node has begun it");
    // Strangers cost the database and the other nodes nothing.
    let unknown = format!("/v1/Account/{AUTH_ID}/Call/{}/", uuid::Uuid::new_v4());
    // "other:secret"
    let wrong = "Basic b3RoZXI6c2VjcmV0";
    for (headers, status) in
        [(&[][..], 401), (&[("authorization", wrong)], 401), (&[("authorization", &*basic())], 503)]
    {
        let url = format!("{}{unknown}", nodes[0].public);
        assert_eq!(http::send("GET", &url, headers, "").await.status, status, "{headers:?}");
    }
    let all: BTreeSet<String> = earlier.into_iter().chain([wacid]).collect();
    // All ends come to one node.
    for call in &all {
        let ended = terminate_body(call).to_string();
        assert_eq!(nodes[1].post_webhook(&ended).await.status, 200);
    }
    let mut every = tokio::time::interval(Duration::from_millis(20));
    while in_use(&nodes).await > 0.0 {
        every.tick().await;
    }
    cables.iter().for_each(Cable::mend);
    world.until_hung_up(&all).await;
    assert!(world.with_action("reject").is_empty());
}

#[tokio::test]
async fn f15_calls_go_on_while_the_database_refuses_writes() {
    if skipped_without_postgres() {
        return;
    }
    let world = World::new(20, 1_000).await;
    let nodes = world.nodes(2).await;
    let mut calls = BTreeSet::new();
    for node in &nodes {
        let begun = call(node).await;
        world.graph.wait(&begun, "accept").await;
        calls.insert(begun);
    }
    database::refuse_writes(world.folder(), &[]).await;
    for node in &nodes {
        node.until_metric("offhook_cluster_degraded", &[], 1.0).await;
    }
    // Longer than the 4.5 s for which an answered beat allows admissions.
    let clock = Clock::real();
    let begun = clock.now();
    let mut every = tokio::time::interval(Duration::from_millis(500));
    let mut turn = nodes.iter().cycle();
    while clock.now().duration_since(begun) < Duration::from_secs(10) {
        every.tick().await;
        let wacid = call(turn.next().unwrap()).await;
        world.graph.wait(&wacid, "accept").await;
        let ended = terminate_body(&wacid).to_string();
        assert_eq!(nodes[0].post_webhook(&ended).await.status, 200);
        calls.insert(wacid);
    }
    assert!(world.with_action("reject").is_empty());
    database::allow_writes(world.folder()).await;
    for node in &nodes {
        node.until_metric("offhook_cluster_degraded", &[], 0.0).await;
    }
    for wacid in &calls {
        let ended = terminate_body(wacid).to_string();
        assert_eq!(nodes[0].post_webhook(&ended).await.status, 200);
    }
    world.until_hung_up(&calls).await;
}

/// Without space, the database takes neither claims nor records, but still beats.
#[tokio::test]
async fn f06_the_end_of_a_call_that_a_full_database_does_not_know_reaches_its_node() {
    if skipped_without_postgres() {
        return;
    }
    let world = World::new(20, 1_000).await;
    let nodes = world.nodes(2).await;
    database::refuse_writes(world.folder(), &["claims", "calls"]).await;
    let wacid = call(&nodes[0]).await;
    let accept = world.graph.wait(&wacid, "accept").await;
    let mut ended = terminate_body(&wacid);
    let opaque = &accept["biz_opaque_callback_data"];
    assert!(opaque.is_string(), "{accept}");
    ended["entry"][0]["changes"][0]["value"]["calls"][0]["biz_opaque_callback_data"] =
        opaque.clone();
    assert_eq!(nodes[1].post_webhook(&ended.to_string()).await.status, 200);
    let late = [("kind", "calls.terminate"), ("result", "late")];
    assert_eq!(nodes[1].metric("offhook_webhook_events_total", &late).await, 0.0);
    let number = [("number", NUMBER)];
    nodes[0].until_metric("offhook_number_slots_in_use", &number, 0.0).await;
    database::allow_writes(world.folder()).await;
    world.until_hung_up(&BTreeSet::from([wacid])).await;
}

#[tokio::test]
async fn f15_without_the_database_a_node_without_units_passes_calls_on() {
    if skipped_without_postgres() {
        return;
    }
    // One slot for each node.
    let world = World::new(2, 1_000).await;
    let (mut nodes, mut cables) = (Vec::new(), Vec::new());
    for name in ["n0", "n1"] {
        let cable = Cable::to(database::port()).await;
        let config = NodeConfig { store_port: Some(cable.port), ..world.config(name) };
        nodes.push(Node::start(&config).await);
        cables.push(cable);
    }
    // Neither has had a call since its start.
    for node in &nodes {
        node.until_metric("offhook_units", &[("kind", "slot"), ("what", "held")], 1.0).await;
    }
    cables.iter().for_each(Cable::cut);
    for node in &nodes {
        node.until_metric("offhook_cluster_degraded", &[], 1.0).await;
    }
    let first = call(&nodes[1]).await;
    world.graph.wait(&first, "accept").await;
    assert_eq!(in_use(&nodes[1..]).await, 1.0);
    let second = call(&nodes[1]).await;
    world.graph.wait(&second, "accept").await;
    assert_eq!(in_use(&nodes[..1]).await, 1.0, "it was passed on to the node with a free slot");
    // None is free any more.
    let third = call(&nodes[1]).await;
    world.graph.wait(&third, "reject").await;
    cables.iter().for_each(Cable::mend);
    let calls = BTreeSet::from([first, second]);
    end_all(&nodes[0], &calls).await;
    world.until_hung_up(&calls).await;
}

#[tokio::test]
async fn f26_a_node_that_loses_the_database_alone_is_carried_by_another() {
    if skipped_without_postgres() {
        return;
    }
    let world = World::new(20, 1_000).await;
    let cable = Cable::to(database::port()).await;
    let mut config = NodeConfig { store_port: Some(cable.port), ..world.config("n0") };
    config.extra.push_str("strict = true\n");
    let nodes = [Node::start(&config).await, world.node("n1").await];
    let early = call(&nodes[0]).await;
    world.graph.wait(&early, "accept").await;
    let key = new_key(&nodes[1]).await;
    cable.cut();
    nodes[0].until_metric("offhook_cluster_degraded", &[], 1.0).await;
    // Longer than the 4.5 s for which an answered beat allows admissions, and the 10 s after which a
    // silent node is dead.
    let carried = [("outcome", "carried")];
    let mut every = tokio::time::interval(Duration::from_millis(100));
    while nodes[0].metric("offhook_beat_seconds_count", &carried).await < 22.0 {
        every.tick().await;
    }
    assert!(nodes[0].metric("offhook_beat_age_seconds", &[]).await < 5.0);
    assert_eq!(http::get(&format!("{}/readyz", nodes[0].admin)).await.status, 200);
    assert!(!nodes[1].log().contains("node declared dead"));
    // It can't claim calls, so the other node takes them.
    let calls = join_all((0..5).map(|_| call(&nodes[0]))).await;
    for call in &calls {
        world.graph.wait(call, "accept").await;
    }
    assert!(world.with_action("reject").is_empty());
    assert_eq!(in_use(&nodes[1..]).await, calls.len() as f64);
    // Its own call goes on, and is reported when its record is written.
    assert_eq!(in_use(&nodes[..1]).await, 1.0);
    manage_calls_at_a_carried_node(&nodes, &key).await;
    send_messages_to_both(&nodes).await;
    let ended = terminate_body(&early).to_string();
    assert_eq!(nodes[0].post_webhook(&ended).await.status, 200);
    cable.mend();
    nodes[0].until_metric("offhook_cluster_degraded", &[], 0.0).await;
    world.until_hung_up(&BTreeSet::from([early])).await;
}

/// Creates an API key. Returns its id and its secret.
async fn new_key(node: &Node) -> [String; 2] {
    let body = json!({"name": "temporary", "role": "owner"}).to_string();
    let url = format!("{}/api/v1/api-keys/", node.public);
    let made = http::send("POST", &url, &[("x-api-key", API_KEY)], body).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let made = made.json();
    ["id", "secret"].map(|member| made[member].as_str().unwrap().to_owned())
}

/// The first node has lost the database. It shows the calls of both, and refuses a key that is
/// deleted at the other one. A new key is not known to it, but to the other node.
async fn manage_calls_at_a_carried_node(nodes: &[Node; 2], [id, secret]: &[String; 2]) {
    let own = [("x-api-key", API_KEY)];
    let key = [("x-api-key", secret.as_str())];
    let get = async |node: &Node, path: &str, key: &[(&str, &str)]| {
        http::send("GET", &format!("{}/api/v1/{path}", node.public), key, String::new()).await
    };
    let mut calls = Vec::new();
    for node in nodes {
        let live = get(node, "calls/?status=live&limit=200", &own).await.json();
        calls = live["items"].as_array().unwrap().iter().map(call_uuid).collect();
    }
    assert_eq!(calls.len(), 6, "of both nodes");
    for call in &calls {
        let shown = get(&nodes[0], &format!("calls/{call}/"), &key).await;
        assert_eq!(shown.status, 200, "{}", shown.text());
    }
    let [_, new] = new_key(&nodes[1]).await;
    assert_eq!(get(&nodes[0], "account/", &[("x-api-key", &new)]).await.status, 200);
    let of_new_key = join_all(calls.iter().map(async |call| {
        get(&nodes[0], &format!("calls/{call}/"), &[("x-api-key", &new)]).await.status
    }));
    assert_eq!(of_new_key.await.into_iter().collect::<BTreeSet<_>>(), BTreeSet::from([200, 503]));
    let url = format!("{}/api/v1/api-keys/{id}/", nodes[1].public);
    assert_eq!(http::send("DELETE", &url, &own, String::new()).await.status, 204);
    for path in ["account/".to_owned(), "calls/?status=live".to_owned()]
        .into_iter()
        .chain(calls.iter().map(|call| format!("calls/{call}/")))
    {
        for node in nodes {
            assert_eq!(get(node, &path, &key).await.status, 401, "{path}");
        }
    }
}

/// The first node has lost the database. The messages that arrive at it are stored by the other one,
/// among those that arrive there.
async fn send_messages_to_both(nodes: &[Node; 2]) {
    let texts: Vec<String> = (0..6).map(|n| format!("Message {n}")).collect();
    for (n, text) in texts.iter().enumerate() {
        let message = json!({"type": "text", "text": {"body": text}});
        let body = message_body(USER, &format!("wamid.both.{n}"), message);
        assert_eq!(nodes[n % 2].post_webhook(&body).await.status, 200);
    }
    let get = async |path: &str| {
        let url = format!("{}/api/v1/conversations/{path}", nodes[1].public);
        http::send("GET", &url, &[("x-api-key", API_KEY)], String::new()).await.json()
    };
    let found = get(&format!("?q={USER}")).await;
    let id = found["items"][0]["id"].as_str().unwrap_or_else(|| panic!("{found}"));
    let timeline = get(&format!("{id}/timeline/")).await;
    let shown = timeline["items"].as_array().unwrap().iter();
    let mut shown: Vec<&str> = shown.filter_map(|item| item["text"].as_str()).collect();
    shown.sort_unstable();
    assert_eq!(shown, texts, "{timeline}");
    let stored = [("kind", "messages.text"), ("result", "message_stored")];
    assert!((nodes[1].metric("offhook_webhook_events_total", &stored).await - 6.0).abs() < 0.1);
}

fn call_uuid(call: &serde_json::Value) -> String {
    call["callUuid"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn f29_kill_nine_the_calls_of_a_killed_node_are_ended_by_another() {
    if skipped_without_postgres() {
        return;
    }
    let world = World::new(40, 1_000).await;
    let mut nodes = world.nodes(3).await;
    let calls = join_all((0..30).map(|_| call(&nodes[2]))).await;
    let calls: BTreeSet<String> = calls.into_iter().collect();
    for call in &calls {
        world.graph.wait(call, "accept").await;
    }
    let mut killed = nodes.pop().unwrap();
    killed.kill();
    let took = world.until_hung_up(&calls).await;
    // Its port refuses connections, so nobody waits for 10 s.
    assert!(took < Duration::from_secs(9), "{took:?}");
    for call in &calls {
        world.graph.wait(call, "terminate").await;
    }
    let causes = world.app.requests();
    let hangup = causes.iter().find(|seen| seen.path == "/hangup").unwrap();
    assert_eq!(hangup.param("HangupCauseCode"), "5010", "node_failure");
    // Its slots come back.
    let given_back = "units of a dead node given back";
    tokio::select! {
        () = nodes[0].until_log(given_back) => {}
        () = nodes[1].until_log(given_back) => {}
    }
    let more = join_all((0..40).map(|n| call(&nodes[n % 2]))).await;
    for call in &more {
        assert_eq!(world.graph.first(call).await, "pre_accept");
    }
    // A restart of the dead node finds nothing to do.
    killed.start_again().await;
    assert_eq!(in_use(std::slice::from_ref(&killed)).await, 0.0);
    world.until_hung_up(&calls).await;
}

#[tokio::test]
async fn f29_a_call_that_a_killed_node_was_rejecting_is_rejected_by_another() {
    if skipped_without_postgres() {
        return;
    }
    let world = World::new(1, 1_000).await;
    let mut nodes = world.nodes(2).await;
    let up = call(&nodes[1]).await;
    world.graph.wait(&up, "accept").await;
    let is_reject = |asked: &serde_json::Value| asked["action"] == "reject";
    let unavailable = (503, "{}".to_owned());
    world.graph.script(move |asked| is_reject(asked).then(|| unavailable.clone()));
    let rejected = call(&nodes[1]).await;
    world.graph.wait(&rejected, "reject").await;
    nodes[1].kill();
    let before = world.graph.actions(&rejected).len();
    world.graph.script(|_| None);
    nodes[0].until_log("rejecting calls for a dead process").await;
    let mut every = tokio::time::interval(Duration::from_millis(20));
    while world.graph.actions(&rejected).len() == before {
        every.tick().await;
    }
    assert_eq!(world.graph.actions(&rejected).pop().unwrap(), "reject");
    // Meta sends the call again, since it had no answer. It is over.
    let again = connect_body(&rejected, &silent_offer()).to_string();
    assert_eq!(nodes[0].post_webhook(&again).await.status, 200);
    assert_eq!(world.graph.actions(&rejected).len(), before + 1);
}

#[tokio::test]
async fn f06_the_end_of_a_dead_nodes_call_is_taken_by_another() {
    if skipped_without_postgres() {
        return;
    }
    let world = World::new(40, 1_000).await;
    let mut nodes = world.nodes(2).await;
    let wacid = call(&nodes[1]).await;
    world.graph.wait(&wacid, "accept").await;
    nodes[1].kill();
    world.until_hung_up(&BTreeSet::from([wacid.clone()])).await;
    // The other node has asked Meta to end it, and Meta says that it has.
    world.graph.wait(&wacid, "terminate").await;
    let ended = terminate_body(&wacid).to_string();
    assert_eq!(nodes[0].post_webhook(&ended).await.status, 200);
    // Its claim is still there.
    assert!(!nodes[0].log().contains("units of a dead node given back"));
}

#[tokio::test]
async fn f25_a_killed_node_that_starts_again_ends_its_calls() {
    if skipped_without_postgres() {
        return;
    }
    let world = World::new(100, 1_000).await;
    let mut node = world.node("again").await;
    let calls = join_all((0..10).map(|_| call(&node))).await;
    for call in &calls {
        world.graph.wait(call, "accept").await;
    }
    node.kill();
    node.start_again().await;
    world.until_hung_up(&calls.iter().cloned().collect()).await;
    for call in &calls {
        world.graph.wait(call, "terminate").await;
    }
}

/// A number has one slot. Its call is up when the node is killed, so the killed process holds it.
#[tokio::test]
async fn f25_a_killed_node_that_starts_again_has_its_units_back() {
    if skipped_without_postgres() {
        return;
    }
    let world = World::new(1, 1).await;
    let mut node = world.node("again").await;
    for _ in 0..2 {
        let wacid = call(&node).await;
        assert_eq!(world.graph.first(&wacid).await, "pre_accept");
        node.kill();
        node.start_again().await;
    }
    assert_eq!(world.graph.first(&call(&node).await).await, "pre_accept");
}

#[tokio::test]
async fn f28_a_paused_node_that_was_declared_dead_exits_and_tells_nobody() {
    if skipped_without_postgres() {
        return;
    }
    let world = World::new(20, 1_000).await;
    let mut nodes = world.nodes(2).await;
    let calls: BTreeSet<String> =
        join_all((0..5).map(|_| call(&nodes[1]))).await.into_iter().collect();
    for call in &calls {
        world.graph.wait(call, "accept").await;
    }
    let mut paused = nodes.pop().unwrap();
    paused.signal("STOP");
    world.until_hung_up(&calls).await;
    nodes[0].until_log("node declared dead").await;
    let (callbacks, asked) = (world.app.count("/hangup"), world.graph.asked().len());
    paused.signal("CONT");
    assert_eq!(paused.wait(), Some(1));
    assert_eq!(world.app.count("/hangup"), callbacks);
    let since = world.graph.asked().split_off(asked);
    assert!(since.iter().all(|asked| asked["action"] == "terminate"), "{since:?}");
}

#[tokio::test]
async fn f39_a_node_that_leaves_hands_its_callbacks_over() {
    if skipped_without_postgres() {
        return;
    }
    let world = World::new(20, 1_000).await;
    // The customer's server is down while the node stops.
    world.app.route("/hangup", |_| (503, String::new()));
    let mut nodes = world.nodes(2).await;
    let calls: BTreeSet<String> =
        join_all((0..3).map(|_| call(&nodes[1]))).await.into_iter().collect();
    for call in &calls {
        world.graph.wait(call, "accept").await;
        let body = terminate_body(call).to_string();
        assert_eq!(nodes[1].post_webhook(&body).await.status, 200);
    }
    world.until_hung_up(&calls).await;
    let mut leaving = nodes.pop().unwrap();
    leaving.signal("TERM");
    assert_eq!(leaving.wait(), Some(0));
    let before = world.app.count("/hangup");
    world.app.route("/hangup", |_| (200, String::new()));
    let mut every = tokio::time::interval(Duration::from_millis(50));
    while world.app.count("/hangup") < before + calls.len() {
        every.tick().await;
    }
    world.until_hung_up(&calls).await;
}

/// Messages of a conversation wait for the one that Graph does not answer, when their node ends.
#[tokio::test(flavor = "multi_thread")]
async fn f29_f39_messages_that_wait_at_a_node_that_ends_are_sent_by_another() {
    if skipped_without_postgres() {
        return;
    }
    for signal in ["KILL", "TERM"] {
        let world = World::new(20, 1_000).await;
        world.graph.script(|asked| {
            let body = json!({"messages": [{"id": format!("wamid.{}", uuid::Uuid::new_v4())}]});
            asked["type"].is_string().then(|| (200, body.to_string()))
        });
        let heir = world.node("n0").await;
        let port = world.graph.url.rsplit(':').next().unwrap().split('/').next().unwrap();
        let cable = Cable::to(port.parse().unwrap()).await;
        let graph_url = world.graph.url.replace(port, &cable.port.to_string());
        let mut ending = Node::start(&NodeConfig { graph_url, ..world.config("n1") }).await;
        let hello = json!({"type": "text", "text": {"body": "hello"}});
        let hello = message_body(USER, "wamid.hello", hello);
        assert_eq!(ending.post_webhook(&hello).await.status, 200);
        let key = [("x-api-key", API_KEY)];
        let found = format!("{}/api/v1/conversations/?q={USER}", ending.public);
        let found = http::send("GET", &found, &key, "").await.json();
        let id = found["items"][0]["id"].as_str().unwrap().to_owned();
        cable.cut();
        for text in ["one", "two", "three"] {
            let body = json!({"type": "text", "text": {"body": text}}).to_string();
            let url = format!("{}/api/v1/conversations/{id}/messages/", ending.public);
            assert_eq!(http::send("POST", &url, &key, body).await.status, 202);
        }
        let mut every = tokio::time::interval(Duration::from_millis(50));
        let asked = "SELECT count(asked_us), count(*), 0::bigint, 0::bigint FROM messages \
            WHERE direction = 'outbound'";
        while counts(world.folder(), asked).await != (1, 3, 0, 0) {
            every.tick().await;
        }
        ending.signal(signal);
        ending.wait();
        let sent = || {
            let asked = world.graph.asked();
            let text =
                |asked: &serde_json::Value| asked["text"]["body"].as_str().map(str::to_owned);
            asked.iter().filter_map(text).collect::<Vec<_>>()
        };
        let failed = "SELECT count(wamid), count(*) FILTER (WHERE status = 'failed'), 0::bigint, 0::bigint \
            FROM messages WHERE direction = 'outbound'";
        while counts(world.folder(), failed).await != (2, 1, 0, 0) {
            every.tick().await;
        }
        assert_eq!(sent(), ["two", "three"], "{signal}: {}", heir.log());
    }
}

/// Without the nodes telling each other, each event would wait until its node reads the store again,
/// after up to two seconds.
#[tokio::test(flavor = "multi_thread")]
async fn f34_events_of_a_conversation_at_several_nodes_are_delivered_in_order_without_waiting() {
    const MESSAGES: usize = 30;
    if skipped_without_postgres() {
        return;
    }
    let world = World::new(20, 1_000).await;
    let nodes = world.nodes(2).await;
    let url = format!("{}/api/v1/phone-numbers/{NUMBER}/", nodes[0].public);
    let change = json!({"webhookUrl": world.app.url("/events")}).to_string();
    let changed = http::send("PATCH", &url, &[("x-api-key", API_KEY)], change).await;
    assert_eq!(changed.status, 200, "{}", changed.text());
    for n in 0..MESSAGES {
        let text = json!({"type": "text", "text": {"body": format!("message {n}")}});
        let body = message_body(USER, &format!("wamid.{n}"), text);
        assert_eq!(nodes[n % 2].post_webhook(&body).await.status, 200);
    }
    let mut every = tokio::time::interval(Duration::from_millis(20));
    let delivered = async {
        while world.app.count("/events") < MESSAGES {
            every.tick().await;
        }
    };
    // Waiting for each would take half a minute at least.
    let delivered = tokio::time::timeout(Duration::from_secs(15), delivered).await;
    assert!(delivered.is_ok(), "{} events", world.app.count("/events"));
    let requests = world.app.requests();
    let events = requests.iter().filter(|seen| seen.path == "/events");
    let texts: Vec<&str> = events.map(|seen| seen.param("Body")).collect();
    let expected: Vec<String> = (0..MESSAGES).map(|n| format!("message {n}")).collect();
    assert_eq!(texts, expected);
}

/// Otherwise the others would end its calls as failed: the records of their ends are in its journal.
#[tokio::test(flavor = "multi_thread")]
async fn f39_a_node_that_is_stopped_without_the_database_waits_for_it() {
    if skipped_without_postgres() {
        return;
    }
    let world = World::new(20, 1_000).await;
    let other = world.node("n0").await;
    let cable = Cable::to(database::port()).await;
    // A write to a connection that has gone silent is given up after 10 s.
    let config =
        NodeConfig { store_port: Some(cable.port), drain_seconds: 60, ..world.config("n1") };
    let mut node = Node::start(&config).await;
    let wacid = call(&node).await;
    world.graph.wait(&wacid, "accept").await;
    cable.cut();
    let ended = terminate_body(&wacid).to_string();
    assert_eq!(node.post_webhook(&ended).await.status, 200);
    while node.metric("offhook_store_journal_bytes", &[]).await == 0.0 {
        tokio::task::yield_now().await;
    }
    node.signal("TERM");
    node.until_log("waiting for the database").await;
    cable.mend();
    assert_eq!(node.wait(), Some(0));
    world.until_hung_up(&BTreeSet::from([wacid])).await;
    let requests = world.app.requests();
    let hangup = requests.iter().find(|seen| seen.path == "/hangup").unwrap();
    assert_ne!(hangup.param("HangupCauseCode"), "5010", "node_failure");
    assert!(!other.log().contains("node declared dead"));
}

#[tokio::test]
async fn nodes_that_exclude_each_other_do_not_start() {
    if skipped_without_postgres() {
        return;
    }
    let world = World::new(20, 1_000).await;
    let _first = world.node("first").await;
    let refused = async |config: &NodeConfig, text: &str| {
        let mut node = Node::spawn_in(tempfile::tempdir().unwrap(), config);
        assert_eq!(node.until_end_with(text).await, Some(2));
    };
    refused(&world.config("first"), "another process runs as node first").await;
    let alone = NodeConfig { extra: String::new(), ..world.config("alone") };
    refused(&alone, "`[cluster] peer").await;
    let store = "secret_key = \"another-secret-key-than-that-of-the-others\"\n".to_owned();
    let other_key = NodeConfig { store, ..world.config("third") };
    refused(&other_key, "another store.secret_key").await;
}

#[tokio::test]
async fn f48_doctor_checks_the_database_and_the_members() {
    if skipped_without_postgres() {
        return;
    }
    let world = World::new(20, 1_000).await;
    let mut nodes = world.nodes(2).await;
    let config = nodes[0].dir.path().join("offhook.toml");
    let config = config.to_str().unwrap();
    let examine = async || {
        let output = offhook(&["doctor", "--json", "--config", config]).await;
        let lines = String::from_utf8(output.stdout).unwrap();
        let lines = lines.lines().map(|line| serde_json::from_str(line).expect(line));
        let lines: Vec<serde_json::Value> = lines.collect();
        let of = |check: &str, subject: Option<&str>| {
            let is = |line: &&serde_json::Value| {
                line["check"] == check && line["subject"].as_str() == subject
            };
            lines
                .iter()
                .find(is)
                .unwrap_or_else(|| panic!("{check} {subject:?}: {lines:?}"))
                .clone()
        };
        (of("database", None), of("fleet", Some("n1")))
    };
    let (database, member) = examine().await;
    // The tests' server runs without fsync.
    assert!(database["what"].as_str().unwrap().contains("fsync"), "{database}");
    assert_eq!(member["state"], "ok", "{member}");
    // A file is changed on one node after the other.
    let rename = |node: &Node| {
        let file = node.dir.path().join("offhook.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        let named = text.replacen("[[number]]\n", "[[number]]\nalias = \"Support\"\n", 1);
        std::fs::write(&file, named).unwrap();
    };
    rename(&nodes[0]);
    let (_, member) = examine().await;
    assert_eq!(member["state"], "warning", "{member}");
    assert!(member["what"].as_str().unwrap().contains("[[number]]"), "{member}");
    rename(&nodes[1]);
    nodes[1].signal("HUP");
    // Each try starts a process.
    let mut tries = 0;
    while examine().await.1["state"] != "ok" {
        tries += 1;
        assert!(tries < 100);
    }
    nodes[1].kill();
    let (_, member) = examine().await;
    assert_eq!(member["state"], "failed", "{member}");
    assert!(member["fix"].as_str().unwrap().contains("cluster.peer"), "{member}");
}

#[tokio::test]
async fn f07_any_node_takes_a_request_about_a_call() {
    if skipped_without_postgres() {
        return;
    }
    let world = World::new(20, 1_000).await;
    let mut nodes = world.nodes(3).await;
    let wacid = call(&nodes[0]).await;
    world.graph.wait(&wacid, "accept").await;
    let id = world.app.wait("/answer").await.param("CallUUID").to_owned();
    // Graph has been asked, and its answer is on the way.
    let mut every = tokio::time::interval(Duration::from_millis(20));
    while nodes[0].record_live(&id).await.json()["call_status"] != "in-progress" {
        every.tick().await;
    }
    for node in &nodes {
        let live = node.record_live(&id).await;
        assert_eq!((live.status, &live.json()["call_status"]), (200, &"in-progress".into()));
    }
    // The lists of all nodes have it.
    let key = [("x-api-key", API_KEY)];
    for node in &nodes {
        let live = node.api("Call/?status=live").await;
        assert_eq!(live.json()["calls"], serde_json::json!([id]), "{}", live.text());
        let listed = http::send("GET", &format!("{}/api/v1/calls/", node.public), &key, "").await;
        let items = listed.json()["items"].as_array().unwrap().clone();
        let calls: Vec<_> = items.iter().map(|item| (&item["callUuid"], &item["status"])).collect();
        assert_eq!(calls, [(&id.as_str().into(), &"in-progress".into())], "{}", listed.text());
        assert!(!live.headers.contains_key("x-offhook-partial"));
        let url = format!("{}/api/v1/phone-numbers/{NUMBER}/", node.public);
        assert_eq!(http::send("GET", &url, &key, "").await.json()["liveCalls"], 1);
        let account = format!("{}/api/v1/account/", node.public);
        let account = http::send("GET", &account, &key, "").await.json();
        assert_eq!(
            (&account["liveCalls"], &account["numbers"][0]["slotsUsed"]),
            (&1.into(), &1.into())
        );
    }
    // The credentials are checked at the node of the call.
    let url = |node: &Node| format!("{}/v1/Account/{AUTH_ID}/Call/{id}/", node.public);
    let refused = [("authorization", "Basic bm86Ym9keQ==")];
    let stranger = http::send("DELETE", &url(&nodes[1]), &refused, "").await;
    assert_eq!(stranger.status, 401);
    // If the node of the call hangs, nobody says that there is no such call.
    nodes[0].signal("STOP");
    assert_eq!(nodes[2].record_live(&id).await.status, 503);
    // A list says whose calls it lacks.
    let partial = nodes[2].api("Call/?status=live").await;
    assert_eq!((partial.status, &partial.json()["calls"]), (200, &serde_json::json!([])));
    assert_eq!(partial.headers["x-offhook-partial"], "n0");
    nodes[0].signal("CONT");
    let mut every = tokio::time::interval(Duration::from_millis(50));
    let ended = loop {
        every.tick().await;
        let ended = http::send("DELETE", &url(&nodes[2]), &[("authorization", &basic())], "").await;
        // The connection between the nodes has to come back.
        if ended.status != 503 {
            break ended;
        }
    };
    assert_eq!(ended.status, 204, "{}", ended.text());
    world.until_hung_up(&BTreeSet::from([wacid])).await;
    // The owner is gone, and its call over: the record is everybody's.
    nodes[0].kill();
    assert_eq!(nodes[1].record(&id).await["call_uuid"], id.as_str());
}

#[tokio::test]
async fn f23_a_user_has_one_call_with_the_fleet() {
    if skipped_without_postgres() {
        return;
    }
    const USER: &str = "919812345678";
    let world = World::new(100, 1_000).await;
    world.graph.script(|asked| {
        let placed = serde_json::json!({"calls": [{"id": meta::wacid()}], "success": true});
        (asked["action"] == "connect").then(|| (200, placed.to_string()))
    });
    let config = |n| {
        let mut config = world.config(&format!("n{n}"));
        config.extra.push_str("[permissions]\nenforce = false\n");
        config.limits.push_str("\nallow_wa_bridge = true");
        config
    };
    let configs: Vec<_> = (0..3).map(config).collect();
    let nodes = join_all(configs.iter().map(Node::start)).await;
    let basic = basic();
    let headers = [("authorization", basic.as_str()), ("content-type", "application/json")];
    let order = serde_json::json!({
        "from": NUMBER, "to": USER, "answer_url": world.app.url("/answer"),
        "hangup_url": world.app.url("/hangup"),
    });
    let order = order.to_string();
    let place = async |node: &Node| {
        let url = format!("{}/v1/Account/{AUTH_ID}/Call/", node.public);
        http::send("POST", &url, &headers, order.clone()).await
    };
    for _ in 0..2 {
        // The reservation ends after the hangup callback.
        let mut every = tokio::time::interval(Duration::from_millis(20));
        let placed = loop {
            every.tick().await;
            let answers = join_all((0..30).map(|n| place(&nodes[n % 3]))).await;
            let (placed, refused): (Vec<_>, Vec<_>) =
                answers.iter().partition(|answer| answer.status == 201);
            assert!(refused.iter().all(|answer| answer.status == 409), "{}", refused[0].text());
            assert!(placed.len() <= 1, "{} calls to one user", placed.len());
            if let Some(placed) = placed.first() {
                break placed.json()["request_uuid"].as_str().unwrap().to_owned();
            }
        };
        // A call that comes to another node can't dial the user, either.
        let dial = format!(
            "<Response><Dial callType=\"whatsapp\" callerId=\"{NUMBER}\" action=\"{}\"><User>{USER}</User></Dial></Response>",
            world.app.url("/dialled")
        );
        world.app.xml("/answer", &dial).xml("/dialled", "<Response><Hangup/></Response>");
        let dialling = call(&nodes[1]).await;
        let is_its = |seen: &ReceivedRequest| seen.param("WhatsAppCallID") == dialling;
        let dialled = world.app.wait_where("/dialled", is_its).await;
        assert_eq!((dialled.param("DialStatus"), dialled.param("DialError")), ("busy", "(absent)"));
        let url = format!("{}/v1/Account/{AUTH_ID}/Call/{placed}/", nodes[2].public);
        assert_eq!(http::send("DELETE", &url, &headers, "").await.status, 204);
    }
}

/// Has Graph accept calls that are placed.
fn accept_placed_calls(graph: &Graph) {
    graph.script(|asked| {
        let placed = serde_json::json!({"calls": [{"id": meta::wacid()}], "success": true});
        (asked["action"] == "connect").then(|| (200, placed.to_string()))
    });
}

/// Places a call to a user at a node.
async fn place(world: &World, node: &Node, user: &str) -> http::Answer {
    let order = serde_json::json!({
        "from": NUMBER, "to": user, "answer_url": world.app.url("/answer"),
        "hangup_url": world.app.url("/hangup"),
    });
    let headers = [("authorization", &*basic()), ("content-type", "application/json")];
    let url = format!("{}/v1/Account/{AUTH_ID}/Call/", node.public);
    http::send("POST", &url, &headers, order.to_string()).await
}

/// Starts a fleet of `count` nodes. The account can place four calls per second, and the permissions of
/// users are not checked.
async fn placing_nodes(count: usize) -> (World, Vec<Node>) {
    let world = World::new(1_000, 4).await;
    accept_placed_calls(&world.graph);
    let config = |n| {
        let mut config = world.config(&format!("n{n}"));
        config.extra.push_str("[permissions]\nenforce = false\n");
        config
    };
    let configs: Vec<_> = (0..count).map(config).collect();
    let nodes = join_all(configs.iter().map(Node::start)).await;
    (world, nodes)
}

/// Places that many calls at these nodes in turn. Returns their users and the responses.
async fn place_all(
    world: &World,
    nodes: &[Node],
    calls: usize,
) -> (Vec<String>, Vec<http::Answer>) {
    let users: Vec<String> = (0..calls).map(|n| format!("9198{n:08}")).collect();
    let at = nodes.iter().cycle();
    let placed = join_all(users.iter().zip(at).map(|(user, node)| place(world, node, user))).await;
    assert!(placed.iter().all(|answer| answer.status == 201), "{}", placed[0].text());
    (users, placed)
}

/// The users that Graph was asked to call, in order.
fn called(graph: &Graph) -> Vec<String> {
    let asked = graph.asked().into_iter().filter(|asked| asked["action"] == "connect");
    asked.map(|asked| asked["to"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn f21_calls_that_wait_at_a_killed_node_are_placed_once_or_ended_once() {
    if skipped_without_postgres() {
        return;
    }
    const CALLS: usize = 90;
    let (world, mut nodes) = placing_nodes(3).await;
    let (mut users, _) = place_all(&world, &nodes, CALLS).await;
    // Calls that are placed at the same time wait in any order, so this one is the last.
    users.push("919899999999".to_owned());
    let last = place(&world, &nodes[2], &users[CALLS]).await;
    let before = called(&world.graph).len();
    assert!(before < CALLS / 2, "most calls wait: {before}");
    // Any node knows a call that waits at another one, and that its user is busy.
    let last = last.json()["request_uuid"].as_str().unwrap().to_owned();
    assert_eq!(place(&world, &nodes[0], &users[CALLS]).await.status, 409);
    let queued = nodes[0].api(&format!("Call/{last}/?status=queued")).await;
    assert_eq!(queued.status, 200, "{}", queued.text());
    let mut killed = nodes.pop().unwrap();
    killed.kill();
    let mut every = tokio::time::interval(Duration::from_millis(50));
    let mut ended = BTreeSet::new();
    loop {
        every.tick().await;
        let called = called(&world.graph);
        let once: BTreeSet<&String> = called.iter().collect();
        assert_eq!(once.len(), called.len(), "no user is called twice");
        for seen in world.app.requests().iter().filter(|seen| seen.path == "/hangup") {
            assert_eq!(seen.param("HangupCauseCode"), "5010", "node_failure");
            ended.insert(seen.param("To").trim_start_matches('+').to_owned());
        }
        if users.iter().all(|user| once.contains(user) || ended.contains(user)) {
            break;
        }
    }
    // Most of its calls were only in its queue.
    let called: BTreeSet<String> = called(&world.graph).into_iter().collect();
    let lost = users.iter().filter(|user| !called.contains(*user)).count();
    assert!(lost <= 8, "{lost} calls ended without being placed");
    let adopted = "adopted waiting calls";
    assert!(nodes.iter().any(|node| node.log().contains(adopted)));
}

#[tokio::test]
async fn f21_calls_that_wait_at_a_draining_node_are_placed_by_another() {
    if skipped_without_postgres() {
        return;
    }
    const CALLS: usize = 30;
    let (world, nodes) = placing_nodes(2).await;
    place_all(&world, &nodes[1..], CALLS).await;
    nodes[1].signal("TERM");
    nodes[1].until_log("handed over waiting calls").await;
    let mut every = tokio::time::interval(Duration::from_millis(50));
    loop {
        every.tick().await;
        let called = called(&world.graph);
        let once: BTreeSet<&String> = called.iter().collect();
        assert_eq!(once.len(), called.len(), "no user is called twice");
        if once.len() == CALLS {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f21_calls_that_wait_at_an_upgraded_node_are_placed_once() {
    if skipped_without_postgres() {
        return;
    }
    const CALLS: usize = 30;
    let (world, mut nodes) = placing_nodes(2).await;
    let (users, _) = place_all(&world, &nodes[1..], CALLS).await;
    let mut successors = Successors::default();
    let check_reserved = async || {
        for user in [&users[0], &users[CALLS - 1]] {
            assert_eq!(place(&world, &nodes[0], user).await.status, 409, "{user}");
        }
    };
    // Users are reserved all the time, also that of a call that rings and moves.
    let reserved = async {
        loop {
            check_reserved().await;
        }
    };
    let upgrade = successors.upgrade(nodes[1].dir.path(), &["--wait", "10"]);
    let upgraded: std::process::Output = tokio::select! {
        upgraded = upgrade => upgraded,
        () = reserved => unreachable!("it never ends"),
    };
    assert!(upgraded.status.success(), "{}", String::from_utf8_lossy(&upgraded.stderr));
    let before = called(&world.graph).len();
    assert!(before < CALLS, "some calls still wait: {before}");
    check_reserved().await;
    let mut every = tokio::time::interval(Duration::from_millis(50));
    while called(&world.graph).len() < CALLS {
        every.tick().await;
    }
    let all = called(&world.graph);
    let once: BTreeSet<&String> = all.iter().collect();
    assert_eq!((all.len(), once.len()), (CALLS, CALLS), "each user is called once");
    // If the process dies, no other node calls the users again.
    let pid = successors.0.last().unwrap().to_string();
    let killed = std::process::Command::new("kill").args(["-9", &pid]).status().unwrap();
    assert!(killed.success());
    nodes.pop().unwrap().kill();
    nodes[0].until_log("node declared dead").await;
    let rows = "SELECT count(*), 0::bigint, 0::bigint, 0::bigint FROM waiting_calls";
    while counts(world.folder(), rows).await.0 > 0 {
        every.tick().await;
    }
    assert_eq!(called(&world.graph).len(), CALLS);
}

#[tokio::test]
async fn f36_a_setting_is_in_force_at_all_nodes() {
    if skipped_without_postgres() {
        return;
    }
    let world = World::new(20, 1_000).await;
    let nodes = world.nodes(2).await;
    let json = [("authorization", &*basic()), ("content-type", "application/json")];
    let at = |node: &Node, path: &str| format!("{}/v1/Account/{AUTH_ID}/{path}", node.public);
    let clock = Clock::real();
    let mut slowest = Duration::ZERO;
    for round in 0..5 {
        let (from, to) = (&nodes[round % 2], &nodes[(round + 1) % 2]);
        let body = format!(
            "{{\"app_name\": \"menu{round}\", \"answer_url\": \"{}\"}}",
            world.app.url("/a")
        );
        let created = http::send("POST", &at(from, "Application/"), &json, body).await;
        assert_eq!(created.status, 201, "{}", created.text());
        let begun = clock.now();
        let id = created.json()["app_id"].as_str().unwrap().to_owned();
        let mut every = tokio::time::interval(Duration::from_millis(10));
        while to.api(&format!("Application/{id}/")).await.status != 200 {
            every.tick().await;
        }
        slowest = slowest.max(clock.now().duration_since(begun));
        // It is deleted at the other node.
        let deleted = http::send("DELETE", &at(to, &format!("Application/{id}/")), &json, "").await;
        assert_eq!(deleted.status, 204, "{}", deleted.text());
        while from.api(&format!("Application/{id}/")).await.status != 404 {
            every.tick().await;
        }
    }
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
}

#[tokio::test]
async fn f08_a_draining_node_hands_calls_over() {
    if skipped_without_postgres() {
        return;
    }
    let world = World::new(20, 1_000).await;
    let mut nodes = world.nodes(2).await;
    let staying = call(&nodes[1]).await;
    world.graph.wait(&staying, "accept").await;
    nodes[1].signal("TERM");
    nodes[1].until_log("draining").await;
    // The balancer has not noticed yet.
    let calls = join_all((0..5).map(|_| call(&nodes[1]))).await;
    for call in &calls {
        world.graph.wait(call, "accept").await;
    }
    assert!(world.with_action("reject").is_empty());
    assert_eq!(in_use(&nodes[..1]).await, calls.len() as f64);
    // The call of the draining node goes on, and the node ends with it.
    let body = terminate_body(&staying).to_string();
    assert_eq!(nodes[0].post_webhook(&body).await.status, 200);
    assert_eq!(nodes[1].wait(), Some(0));
    world.until_hung_up(&BTreeSet::from([staying])).await;
}

#[tokio::test]
async fn f46_the_nodes_are_listed_and_drained_at_any_of_them() {
    if skipped_without_postgres() {
        return;
    }
    let world = World::new(20, 1_000).await;
    let config = |n| {
        let mut config = world.config(&format!("n{n}"));
        config.extra.push_str(&user("asha", AUTH_ID, "owner"));
        config
    };
    let configs: Vec<_> = (0..3).map(config).collect();
    let mut nodes = join_all(configs.iter().map(Node::start)).await;
    let key = [("x-api-key", API_KEY)];
    let list = async |node: &Node| {
        http::send("GET", &format!("{}/api/v1/nodes/", node.public), &key, "").await
    };
    let states = |answer: &http::Answer| {
        let items = answer.json()["items"].as_array().unwrap().clone();
        let text = |item: &serde_json::Value, name: &str| item[name].as_str().unwrap().to_owned();
        let states = items.iter().map(|item| (text(item, "id"), text(item, "state")));
        states.collect::<BTreeMap<_, _>>()
    };
    // A node can ask another as soon as it has read of it in the database.
    let ready: BTreeMap<_, _> = (0..3).map(|n| (format!("n{n}"), "ready".to_owned())).collect();
    let mut every = tokio::time::interval(Duration::from_millis(50));
    let mut all = list(&nodes[0]).await;
    for _ in 0..200 {
        if states(&all) == ready {
            break;
        }
        every.tick().await;
        all = list(&nodes[0]).await;
    }
    assert_eq!(states(&all), ready, "{}", all.text());
    let drain = format!("{}/api/v1/nodes/n2/drain/", nodes[0].public);
    let drained = http::send("POST", &drain, &key, "").await;
    assert_eq!(drained.status, 202, "{}", drained.text());
    assert_eq!(states(&list(&nodes[1]).await)["n2"], "draining");
    // As the metrics of another node, and as the command line shows them.
    nodes[0].until_metric("offhook_nodes", &[("state", "draining")], 1.0).await;
    nodes[0].until_metric("offhook_nodes", &[("state", "up")], 2.0).await;
    assert!(nodes[0].metric("offhook_beat_seconds_count", &[("outcome", "answered")]).await > 1.0);
    assert!(nodes[0].metric("offhook_beat_age_seconds", &[]).await < 5.0);
    let own = all.json()["items"][0]["fleet"].clone();
    assert_eq!((&own["connected"], &own["open"]), (&true.into(), &true.into()), "{own}");
    assert_eq!(own["hears"], serde_json::json!(["n1", "n2"]));
    let listed = offhook(&["nodes", "--node", &nodes[1].public, "--api-key", API_KEY]).await;
    assert!(listed.status.success(), "{listed:?}");
    let listed = String::from_utf8(listed.stdout).unwrap();
    let rows: Vec<Vec<&str>> =
        listed.lines().map(|line| line.split_whitespace().take(2).collect()).collect();
    let (head, own) = (vec!["node", "state"], vec!["n1", "ready"]);
    let others = [vec!["n0", "ready"], vec!["n2", "draining"]];
    assert_eq!(rows, [vec![head, own], others.to_vec()].concat(), "{listed}");
    let unknown = format!("{}/api/v1/nodes/n7/drain/", nodes[0].public);
    assert_eq!(http::send("POST", &unknown, &key, "").await.status, 404);
    // The console of one node shows and drains the others, too.
    let asha = Session::at(&nodes[0].public, "asha").await;
    let page = asha.get("/console/operations/").await.text();
    for name in ["n0", "n1", "n2"] {
        assert!(page.contains(&format!("<strong class=\"mono\">{name}</strong>")), "{page}");
    }
    let drained = asha.post("/console/operations/nodes/n0/drain", &[]).await;
    assert_eq!(drained.status, 303);
    let elsewhere = Session::at(&nodes[1].public, "asha").await;
    let other = asha.post("/console/operations/nodes/n1/drain", &[]).await;
    assert_eq!(other.status, 303, "{}", other.text());
    let page = elsewhere.get("/console/operations/").await.text();
    assert_eq!(page.matches("<span class=\"pill missed\">Draining").count(), 3, "{page}");
    // A node that hangs is named.
    nodes[1].signal("STOP");
    let partial = list(&nodes[0]).await;
    assert_eq!(states(&partial)["n1"], "unreachable");
    assert_eq!(partial.headers["x-offhook-partial"], "n1");
    nodes[1].signal("CONT");
    drop(nodes.pop());
}

#[tokio::test]
async fn f34_pages_of_one_node_show_what_happens_at_another() {
    if skipped_without_postgres() {
        return;
    }
    let world = World::new(20, 1_000).await;
    let config = |n| {
        let mut config = world.config(&format!("n{n}"));
        config.extra.push_str(&user("asha", AUTH_ID, "owner"));
        config
    };
    let configs: Vec<_> = (0..2).map(config).collect();
    let nodes = join_all(configs.iter().map(Node::start)).await;
    let asha = Session::at(&nodes[1].public, "asha").await;
    let mut events = EventStream::open(&nodes[1].public, &asha.cookie).await;
    let changes = |text: &str| text.matches("event: change").count();
    let wacid = call(&nodes[0]).await;
    events.until(|text| changes(text) > 0).await;
    assert!(events.text.contains("data: call\n"), "{}", events.text);
    world.graph.wait(&wacid, "accept").await;
    let id = world.app.wait("/answer").await.param("CallUUID").to_owned();
    for page in ["/console/", "/console/calls/"] {
        let shown = asha.get(page).await.text();
        assert!(shown.contains(&id), "{page}: {shown}");
    }
    let ended = terminate_body(&wacid).to_string();
    assert_eq!(nodes[0].post_webhook(&ended).await.status, 200);
    world.app.wait("/hangup").await;
    loop {
        let seen = changes(&events.text);
        let live = nodes[1].api("Call/?status=live").await;
        if live.json()["calls"] == serde_json::json!([]) {
            break;
        }
        events.until(|text| changes(text) > seen).await;
    }
}

/// Creates the endpoint `asha`, which the calls of the world ring.
async fn make_asha(world: &World, node: &Node) {
    let json = [("authorization", &*basic()), ("content-type", "application/json")];
    let endpoint = serde_json::json!({"username": "asha", "password": PASSWORD, "alias": "Asha"});
    let url = format!("{}/v1/Account/{AUTH_ID}/Endpoint/", node.public);
    let made = http::send("POST", &url, &json, endpoint.to_string()).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let dial = format!(
        "<Response><Dial action=\"{}\"><User>sip:asha@127.0.0.1</User></Dial></Response>",
        world.app.url("/dialled")
    );
    world.app.xml("/answer", &dial).xml("/dialled", "<Response><Hangup/></Response>");
}

/// Lets a phone accept the next call that rings. Returns the call's id.
async fn accept(phone: &mut Phone) -> serde_json::Value {
    let id = phone.receive("ring").await["call"].clone();
    phone.say(json!({"type": "accept", "call": id, "sdp": OFFER})).await;
    assert_eq!(phone.receive("answer").await["call"], id);
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn f32_a_phone_keeps_its_call_while_its_node_cannot_be_reached() {
    if skipped_without_postgres() {
        return;
    }
    let world = World::new(20, 1_000).await;
    let mut config = world.config("n1");
    let link = Cable::to(peer_port(&config)).await;
    config.extra += &format!("advertise = \"127.0.0.1:{}\"\n", link.port);
    let (one, other) = (world.node("n0").await, Node::start(&config).await);
    make_asha(&world, &one).await;
    let (mut phone, _) = Phone::registered(&other.public, "asha", PASSWORD).await;
    call(&one).await;
    let id = accept(&mut phone).await;
    link.cut();
    let second = call(&one).await;
    one.until_log("messages to a phone at another node wait").await;
    // The other direction works.
    let say = |kind: &str| json!({"type": kind, "call": id});
    phone.say(say("mute")).await;
    assert_eq!(phone.receive("muted").await["call"], id);
    let third = call(&one).await;
    let body = terminate_body(&second).to_string();
    assert_eq!(one.post_webhook(&body).await.status, 200);
    world.until_hung_up(&BTreeSet::from([second])).await;
    link.mend();
    let rung = phone.receive("ring").await["call"].clone();
    assert_ne!(rung, id);
    phone.say(say("hangup")).await;
    assert_eq!(phone.receive("ended").await["call"], id);
    let body = terminate_body(&third).to_string();
    assert_eq!(one.post_webhook(&body).await.status, 200);
    loop {
        let cancelled = phone.receive("cancelled").await;
        if cancelled["call"] == rung {
            break;
        }
    }
    assert_eq!(one.count_in_log("phone socket lost"), 0, "{}", one.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn f32_a_phone_whose_node_is_upgraded_keeps_its_call_at_another_node() {
    if skipped_without_postgres() {
        return;
    }
    let world = World::new(20, 1_000).await;
    let (one, other) = (world.node("n0").await, world.node("n1").await);
    make_asha(&world, &one).await;
    let (mut phone, secret) = Phone::registered(&other.public, "asha", PASSWORD).await;
    call(&one).await;
    let id = accept(&mut phone).await;
    let mut successors = Successors::default();
    let output = successors.upgrade(other.dir.path(), &[]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(phone.closed().await, Some(1001));
    let (mut phone, _) = resume(&other, &secret, &id).await;
    phone.say(json!({"type": "hangup", "call": id})).await;
    assert_eq!(phone.receive("ended").await["call"], id);
}

/// Registers asha's phone at a node, where it reclaims this call. Also returns the session's secret.
async fn resume(node: &Node, secret: &str, call: &serde_json::Value) -> (Phone, String) {
    let mut phone = Phone::open(&node.public).await;
    let login = json!({
        "type": "register", "endpoint": "asha", "password": PASSWORD, "resume": secret,
    });
    phone.say(login).await;
    let registered = phone.receive("registered").await;
    assert_eq!(registered["calls"], json!([call]));
    (phone, registered["session"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn f32_phones_ring_at_every_node_and_resume_at_any() {
    if skipped_without_postgres() {
        return;
    }
    let world = World::new(20, 1_000).await;
    let mut nodes = world.nodes(3).await;
    make_asha(&world, &nodes[0]).await;
    let (mut here, _) = Phone::registered(&nodes[0].public, "asha", PASSWORD).await;
    let (mut there, secret) = Phone::registered(&nodes[1].public, "asha", PASSWORD).await;
    let (mut far, _) = Phone::registered(&nodes[2].public, "asha", PASSWORD).await;
    call(&nodes[0]).await;
    let id = there.receive("ring").await["call"].clone();
    for phone in [&mut here, &mut far] {
        assert_eq!(phone.receive("ring").await["call"], id);
    }
    let say = |kind: &str| serde_json::json!({"type": kind, "call": id, "sdp": OFFER});
    there.say(say("accept")).await;
    assert_eq!(there.receive("answer").await["call"], id);
    for phone in [&mut here, &mut far] {
        assert_eq!(phone.receive("cancelled").await["why"], "answered_elsewhere");
        phone.say(say("hangup")).await;
        assert_eq!(phone.receive("error").await["code"], "no_call");
    }
    there.say(say("mute")).await;
    assert_eq!(there.receive("muted").await["call"], id);
    // The phone loses its socket, and comes back at another node.
    there.disconnect();
    let (mut phone, secret) = resume(&nodes[2], &secret, &id).await;
    phone.say(say("unmute")).await;
    assert_eq!(phone.receive("unmuted").await["call"], id);
    // That node dies, and the call goes on at its own.
    nodes[2].kill();
    let (mut phone, _) = resume(&nodes[1], &secret, &id).await;
    phone.say(say("hangup")).await;
    assert_eq!(phone.receive("ended").await["call"], id);
    assert_eq!(world.app.wait("/dialled").await.param("DialStatus"), "completed");
    // The end of a registration is known everywhere.
    far.closed().await;
    phone.say(serde_json::json!({"type": "unregister"})).await;
    phone.receive("unregistered").await;
    here.leave().await;
    let list = async || nodes[1].api("Endpoint/").await.json()["objects"][0].clone();
    let mut every = tokio::time::interval(Duration::from_millis(20));
    while list().await["sip_registered"] != "false" {
        every.tick().await;
    }
}

#[tokio::test]
async fn f24_f30_a_recording_is_read_and_deleted_at_any_node() {
    if skipped_without_postgres() {
        return;
    }
    let world = World::new(20, 1_000).await;
    let mut nodes = world.nodes(2).await;
    // Recordings of an earlier process of the first node.
    let folder = nodes[0].dir.path().join("recordings");
    let (first, second) = (uuid::Uuid::new_v4(), uuid::Uuid::new_v4());
    for id in [first, second] {
        let row = "INSERT INTO recordings (recording_id, auth_id, main_auth_id, call_uuid, format, stereo, node_id, \
            started_us, ended_us, duration_ms, end_reason) VALUES ($1, 'MATESTOFFHOOK0000001', 'MATESTOFFHOOK0000001', \
            gen_random_uuid()::text, 'wav', 0, 'n0/00000000-0000-0000-0000-000000000000', \
            (extract(epoch FROM now()) * 1000000)::bigint, (extract(epoch FROM now()) * 1000000)::bigint, 1000, 'HungUp')";
        execute(world.shared.path(), row, &id.to_string()).await;
        std::fs::write(folder.join(format!("{id}.wav")), b"RIFF and more").unwrap();
    }
    let at = |node: &Node, id| format!("{}/recordings/{id}.wav", node.public);
    let own = http::get(&at(&nodes[0], first)).await;
    let other = http::get(&at(&nodes[1], first)).await;
    assert_eq!((own.status, other.status), (200, 200), "{}", other.text());
    assert_eq!((&own.body[..], &other.body), (&b"RIFF and more"[..], &own.body));
    assert_eq!(other.headers["content-type"], own.headers["content-type"]);
    let part = http::send("GET", &at(&nodes[1], first), &[("range", "bytes=0-3")], "").await;
    assert_eq!((part.status, &part.body[..]), (206, &b"RIFF"[..]));
    assert_eq!(http::get(&at(&nodes[1], uuid::Uuid::new_v4())).await.status, 404);
    // It is deleted at the other node, and its file vanishes from the disk.
    let url = format!("{}/v1/Account/{AUTH_ID}/Recording/{first}/", nodes[1].public);
    let deleted = http::send("DELETE", &url, &[("authorization", &*basic())], "").await;
    assert_eq!(deleted.status, 204, "{}", deleted.text());
    let mut every = tokio::time::interval(Duration::from_millis(50));
    while folder.join(format!("{first}.wav")).exists() {
        every.tick().await;
    }
    assert_eq!(http::get(&at(&nodes[1], first)).await.status, 404);
    // Its node is down: nobody says that there is no such recording.
    nodes[0].kill();
    let away = http::get(&at(&nodes[1], second)).await;
    assert_eq!(away.status, 503, "{}", away.text());
    nodes[0].start_again().await;
    while http::get(&at(&nodes[1], second)).await.status != 200 {
        every.tick().await;
    }
}

#[tokio::test]
async fn f42_f46_a_call_is_found_and_a_lost_node_is_forgotten() {
    if skipped_without_postgres() {
        return;
    }
    let world = World::new(20, 1_000).await;
    let mut nodes = world.nodes(2).await;
    let wacid = call(&nodes[1]).await;
    let uuid = world.app.wait("/answer").await.param("CallUUID").to_owned();
    let at = |node: &Node| ["--node", &node.public, "--api-key", API_KEY].map(str::to_owned);
    let run = async |command: &[&str], node: &Node| {
        let at = at(node);
        let arguments: Vec<&str> = command.iter().copied().chain(at.iter().map(|a| &**a)).collect();
        let output = offhook(&arguments).await;
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let found = run(&["calls", "where", &uuid], &nodes[0]).await;
    assert_eq!(found, (Some(0), format!("{uuid} is at n1\n")));
    let load = nodes[0].metric("offhook_node_load", &[]).await;
    assert!(load > 0.0 && load < 1.0, "{load}");
    // Its disk has the only copies of a complete recording and an unfinished one.
    let (complete, open) = (uuid::Uuid::new_v4(), uuid::Uuid::new_v4());
    for (id, ended) in [(complete, "1"), (open, "NULL")] {
        let row = match ended {
            "1" => {
                "INSERT INTO recordings (recording_id, auth_id, main_auth_id, call_uuid, format, stereo, node_id, \
                started_us, ended_us, duration_ms, end_reason) VALUES ($1, 'MATESTOFFHOOK0000001', 'MATESTOFFHOOK0000001', \
                gen_random_uuid()::text, 'wav', 0, 'n1/00000000-0000-0000-0000-000000000000', 0, 1, 1000, 'HungUp')"
            }
            _ => {
                "INSERT INTO recordings (recording_id, auth_id, main_auth_id, call_uuid, format, stereo, node_id, \
                started_us) VALUES ($1, 'MATESTOFFHOOK0000001', 'MATESTOFFHOOK0000001', \
                gen_random_uuid()::text, 'wav', 0, 'n1/00000000-0000-0000-0000-000000000000', 0)"
            }
        };
        execute(world.shared.path(), row, &id.to_string()).await;
    }
    let file = format!("{}/recordings/{complete}.wav", nodes[0].public);
    let forget = ["nodes", "forget", "n1"];
    assert_eq!(run(&forget, &nodes[0]).await.0, Some(1), "it runs");
    nodes[1].kill();
    assert_eq!(http::get(&file).await.status, 503);
    world.until_hung_up(&BTreeSet::from([wacid])).await;
    let mut every = tokio::time::interval(Duration::from_millis(500));
    while run(&forget, &nodes[0]).await.0 != Some(0) {
        every.tick().await;
    }
    assert_eq!(http::get(&file).await.status, 404);
    let left = "SELECT count(*), 0::bigint, 0::bigint, 0::bigint FROM recordings";
    while counts(world.shared.path(), left).await.0 > 0 {
        every.tick().await;
    }
    let found = run(&["calls", "where", &uuid], &nodes[0]).await;
    assert_eq!(found, (Some(0), format!("{uuid} has ended; it was at n1\n")));
    assert_eq!(run(&["nodes", "forget", "n7"], &nodes[0]).await.0, Some(1), "no such node");
    // It may start again.
    nodes[1].start_again().await;
    nodes[0].until_metric("offhook_nodes", &[("state", "up")], 2.0).await;
}

#[tokio::test]
async fn f35_failed_log_ins_at_all_nodes_count_together() {
    if skipped_without_postgres() {
        return;
    }
    let world = World::new(20, 1_000).await;
    let nodes = world.nodes(3).await;
    let wrong = async |node: &Node| {
        let mut phone = Phone::open(&node.public).await;
        let password = uuid::Uuid::new_v4().to_string();
        let login =
            serde_json::json!({"type": "register", "endpoint": "asha", "password": password});
        phone.say(login).await;
        phone.receive("error").await["code"].as_str().unwrap().to_owned()
    };
    // Ten failures of a name are free at one node, and at all of them.
    let mut tries = 0;
    let mut every = tokio::time::interval(Duration::from_millis(300));
    while wrong(&nodes[tries % 3]).await != "too_many_failures" {
        tries += 1;
        assert!(tries < 20, "each node counts for itself");
        every.tick().await;
    }
    for node in &nodes {
        while wrong(node).await != "too_many_failures" {
            every.tick().await;
        }
    }
}

/// Runs `offhook dev --nodes 3` with a script. Its temporary files are in `folder`.
/// Behind a balancer, the link of one node's log comes to another node.
#[tokio::test]
async fn the_set_up_link_of_a_node_works_at_all_nodes_until_an_owner_exists() {
    if skipped_without_postgres() {
        return;
    }
    let world = World::new(10, 100).await;
    let mut nodes = world.nodes(2).await;
    let token = async |node: &Node, nth| {
        set_up_link(node, nth).await.rsplit('/').next().unwrap().to_owned()
    };
    let at = |node: &Node, token: &str| format!("{}/console/set-up/{token}", node.public);
    let status = async |url: String| http::get(&url).await.status;
    let replaced = token(&nodes[0], 0).await;
    nodes[0].kill();
    nodes[0].start_again().await;
    let of = [token(&nodes[0], 1).await, token(&nodes[1], 0).await];
    for node in &nodes {
        let sign_in = http::get(&format!("{}/console/sign-in", node.public)).await.text();
        assert!(sign_in.contains("No owner exists yet"));
        assert_eq!(status(at(node, &of[0])).await, 200);
        assert_eq!(status(at(node, &of[1])).await, 200);
        assert_eq!(status(at(node, &replaced)).await, 404);
    }
    let password = super::console::PASSWORD;
    let pairs = [("name", "asha"), ("password", password), ("again", password)];
    let path = format!("/console/set-up/{}", of[0]);
    let signed_up = form(&nodes[1].public, &path, &[], &pairs).await;
    assert_eq!(signed_up.status, 303, "{}", signed_up.text());
    for node in &nodes {
        assert_eq!(status(at(node, &of[0])).await, 404);
        assert_eq!(status(at(node, &of[1])).await, 404);
        Session::at(&node.public, "asha").await;
    }
}

fn dev_fleet(folder: &std::path::Path, script: &str) -> tokio::process::Command {
    let file = folder.join("script");
    std::fs::write(&file, script).unwrap();
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_offhook"));
    command.args(["dev", "--nodes", "3", "--port", "0", "--json", "--script"]).arg(file);
    command.env("TMPDIR", folder).kill_on_drop(true);
    command
}

/// The processes whose command line names a folder.
fn processes_of(folder: &std::path::Path) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    let folder = folder.to_string_lossy();
    lines.filter(|line| String::from_utf8_lossy(line).contains(&*folder)).count()
}

/// A folder for temporary files into which any user can look, as the system's is.
fn shared_folder() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let any = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(folder.path(), any).unwrap();
    folder
}

#[tokio::test]
async fn f45_a_development_fleet_shows_how_a_killed_node_is_replaced() {
    if skipped_without_postgres() {
        return;
    }
    let folder = shared_folder();
    let script = "l 10\nwait 2\nk 2\nuntil 2 dead\nwait 1\nl 0\nu 2\nuntil 2 ready\n\
                  c 1\nwait 1\nc 1\ns 3\ns 3\np\nl 10\nwait 2\nf\nwait 3\nl 0\nd 1\nuntil 1 ended\n";
    let ran = dev_fleet(folder.path(), script).output().await.unwrap();
    let error = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{error}");
    let lines: Vec<serde_json::Value> = String::from_utf8(ran.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let texts: Vec<&str> = lines.iter().filter_map(|line| line["text"].as_str()).collect();
    let tells =
        |text: &str| assert!(texts.iter().any(|printed| printed.contains(text)), "{texts:?}");
    for text in [
        "n2 is killed",
        "n2: killed, dead",
        "calls of a dead node",
        "the load is over",
        "n2: runs, ready",
        "n1 is cut off from PostgreSQL",
        "n1 reaches PostgreSQL again",
        "n3 is paused",
        "n3 goes on",
        "PostgreSQL was restarted",
        "a standby without the last second of PostgreSQL was promoted",
        "n1: ended (0)",
    ] {
        tells(text);
    }
    // The load went to all nodes.
    let calls = |name: &str| {
        let nodes = lines.iter().filter_map(|line| line["nodes"].as_array()).flatten();
        let of = nodes.filter(|node| node["name"] == name);
        of.filter_map(|node| node["status"]["liveCalls"].as_u64()).max()
    };
    assert!(["n1", "n2", "n3"].iter().all(|name| calls(name) > Some(0)), "{lines:?}");
    assert_eq!(processes_of(folder.path()), 0);
    // Nothing is left but the script.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn f45_the_nodes_of_a_killed_development_fleet_end() {
    if skipped_without_postgres() {
        return;
    }
    let folder = shared_folder();
    let mut command = dev_fleet(folder.path(), "until 3 ready\nwait 600\n");
    let mut fleet = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(fleet.stdout.take().unwrap()).lines();
    // The first line comes when all nodes are ready.
    assert!(lines.next_line().await.unwrap().is_some());
    assert!(processes_of(folder.path()) > 4, "three nodes, PostgreSQL, and the world");
    fleet.kill().await.unwrap();
    let mut every = tokio::time::interval(Duration::from_millis(20));
    while processes_of(folder.path()) > 0 {
        every.tick().await;
    }
}

#[tokio::test]
async fn f45_a_wrong_script_is_refused() {
    let folder = shared_folder();
    let ran = dev_fleet(folder.path(), "l 10\nk 4\n").output().await.unwrap();
    assert_eq!(ran.status.code(), Some(2));
    let error = String::from_utf8_lossy(&ran.stderr);
    assert!(error.contains("script: line 2: \"k\" needs a node, 1 to 3"), "{error}");
}

/// Number of UDP ports of a node: more than it has calls.
const MEDIA_PORTS: u16 = 320;

/// How long a call with media is up.
const TALKED: Duration = Duration::from_secs(4);

/// Places calls with media until `stop`, at this rate. Returns how many there were, and what became of
/// those that did not end well.
async fn talk(sim: Arc<Sim>, per_second: u32, stop: CancellationToken) -> (usize, Vec<String>) {
    let mut every = tokio::time::interval(Duration::from_secs(1) / per_second);
    let mut calls = tokio::task::JoinSet::new();
    while stop.run_until_cancelled(every.tick()).await.is_some() {
        let nr = calls.len();
        let mut events = sim.place_call(CallScript {
            from: format!("9198{nr:08}"),
            phone: PhoneKind::Counting,
            hangup: HangupRule::AfterAnswer(TALKED),
            ..CallScript::default()
        });
        calls.spawn(async move {
            let mut last = None;
            while let Some(event) = events.next().await {
                if let CallEventKind::Ended(outcome) = event.kind {
                    last = Some(outcome);
                }
            }
            last.filter(|outcome| !outcome.ok).map(|outcome| format!("{nr}: {outcome:?}"))
        });
    }
    let all = calls.join_all().await;
    (all.len(), all.into_iter().flatten().collect())
}

/// How nodes are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replacement {
    /// They drain and are started again.
    Drain,
    /// By `offhook upgrade`.
    Upgrade,
}

/// Replaces the nodes of a fleet one after another under so many calls with media a second, by the
/// build that `OFFHOOK_TEST_OTHER_PROGRAM` names. Checks that no call is lost.
pub async fn replace_nodes(calls_per_second: u32, by: Replacement) {
    let other = std::env::var("OFFHOOK_TEST_OTHER_PROGRAM").unwrap_or_else(|_| program());
    let world = World::new(1_000, 1_000).await;
    let sim = Arc::new(Sim::start(sim_options()).await.expect("the simulated Meta"));
    let config = |n| NodeConfig {
        graph_url: sim.graph_url(),
        public_port: Some(free_port()),
        // The simulated users have one address, so that each call needs a port.
        media_ports: MEDIA_PORTS,
        ..world.config(&format!("n{n}"))
    };
    let configs: Vec<_> = (0..3).map(config).collect();
    let mut nodes = Vec::new();
    for config in &configs {
        nodes.push(Node::start(config).await);
    }
    let balancer = free_port();
    balance(balancer, configs.iter().filter_map(|config| config.public_port).collect());
    sim.set_node_url(format!("http://127.0.0.1:{balancer}"));
    let stop = CancellationToken::new();
    let talked = tokio::spawn(talk(sim, calls_per_second, stop.clone()));
    let mut successors = Successors::default();
    for node in &mut nodes {
        tokio::time::sleep(TALKED).await;
        if by == Replacement::Upgrade {
            let options = ["--binary", &other, "--wait", "30"];
            let output = successors.upgrade(node.dir.path(), &options).await;
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            continue;
        }
        node.signal("TERM");
        assert_eq!(tokio::task::block_in_place(|| node.wait()), Some(0), "its calls end in time");
        node.start_again_as(&other).await;
    }
    stop.cancel();
    let (calls, bad) = talked.await.unwrap();
    let hangups = || {
        let ended = world.app.requests().into_iter().filter(|seen| seen.path == "/hangup");
        ended
            .map(|seen| (seen.param("WhatsAppCallID").to_owned(), seen))
            .collect::<BTreeMap<_, _>>()
    };
    let mut every = tokio::time::interval(Duration::from_millis(50));
    for _ in 0..600 {
        if hangups().len() >= calls {
            break;
        }
        every.tick().await;
    }
    let cut = hangups().values().filter(|seen| seen.param("HangupCauseCode") != "4000").count();
    super::upgrade_load::report(&format!(
        "{calls} calls with media while three nodes were replaced ({by:?}): {} not ended by their callers, {cut} with another cause",
        bad.len()
    ));
    assert!(bad.is_empty() && cut == 0, "{bad:#?}");
    assert_eq!((hangups().len(), world.app.count("/hangup")), (calls, calls), "one callback each");
}

#[tokio::test(flavor = "multi_thread")]
async fn f40_nodes_are_replaced_one_after_another_under_calls_with_media() {
    if !skipped_without_postgres() {
        replace_nodes(5, Replacement::Drain).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f40_nodes_are_upgraded_one_after_another_under_calls_with_media() {
    if !skipped_without_postgres() {
        replace_nodes(5, Replacement::Upgrade).await;
    }
}
