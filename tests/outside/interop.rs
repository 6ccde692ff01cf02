//! Interoperability with other WebRTC implementations: Chromium and aiortc call the node with their
//! own offers.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Html;
use axum::routing::{get, post};

use crate::support::app::App;
use crate::support::browser::{Browser, has_chromium};
use crate::support::meta::{Graph, connect};
use crate::support::node::{Node, NodeConfig};
use crate::support::{has_peer, python_with};

const MENU: &str = r#"<Response><GetInput action="ACTION" numDigits="1" executionTimeout="30">
<Speak>Welcome to Offhook. This is a test of the sound of a call. Please press five, or simply listen to this rather
long sentence until it comes to its end.</Speak></GetInput></Response>"#;

struct World {
    node: Node,
    graph: Graph,
    app: App,
}

async fn world() -> World {
    let app = App::start().await;
    app.xml("/answer", MENU.replace("ACTION", &app.url("/digits")));
    app.xml("/digits", "<Response><Hangup/></Response>");
    let graph = Graph::start().await;
    let node = Node::start(&NodeConfig::new(&graph.url, &app.url("/answer"))).await;
    World { node, graph, app }
}

/// Posts the offer as Meta would and waits for `accept`. Returns the SDP answer.
async fn answer_to(world: &World, offer: &str) -> String {
    let wacid = connect(&world.node, offer).await;
    let pre_accept = world.graph.wait(&wacid, "pre_accept").await;
    let accept = world.graph.wait(&wacid, "accept").await;
    assert_eq!(
        pre_accept["session"]["sdp"], accept["session"]["sdp"],
        "accept repeats the SDP byte for byte"
    );
    accept["session"]["sdp"].as_str().expect("an SDP").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn chromium_hears_the_prompt_and_its_digit_arrives() {
    if !has_chromium() {
        return;
    }
    let world = Arc::new(world().await);
    let page = include_str!("peers/caller.html");
    let router = Router::new()
        .route("/", get(move || async move { Html(page) }))
        .route(
            "/offer",
            post(|State(w): State<Arc<World>>, offer: String| async move {
                answer_to(&w, &offer).await
            }),
        )
        .with_state(world.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("its address"));
    tokio::spawn(async move { axum::serve(listener, router).await });

    let mut browser = Browser::open(&url).await;
    browser.until("window.result.state === 'connected'").await;
    browser.until("window.result.energy > 0.001").await;
    let digits = world.app.wait("/digits").await;
    assert_eq!(digits.param("Digits"), "5");
    assert_eq!(digits.param("InputType"), "dtmf");
}

#[tokio::test(flavor = "multi_thread")]
async fn aiortc_hears_the_prompt() {
    let python = python_with("aiortc");
    if !has_peer(
        "aiortc",
        python.is_some(),
        "pip install aiortc, or set OFFHOOK_TEST_PYTHON to a Python that has it",
    ) {
        return;
    }
    let world = world().await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/outside/peers/aiortc_caller.py");
    let mut child = Command::new(python.expect("asked above"))
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start aiortc");
    let mut stdin = child.stdin.take().expect("its input");
    let stdout = child.stdout.take().expect("its output");
    let (lines, mut messages) = tokio::sync::mpsc::channel::<serde_json::Value>(64);
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if let Ok(value) = serde_json::from_str(&line) {
                let _ = lines.blocking_send(value);
            }
        }
    });
    let offer = messages.recv().await.expect("an offer");
    let answer = answer_to(&world, offer["offer"].as_str().expect("an SDP")).await;
    writeln!(stdin, "{}", serde_json::json!({ "answer": answer })).expect("hand over the answer");
    let mut loud = None;
    while let Some(line) = messages.recv().await {
        loud = loud.or_else(|| line["loud_frames"].as_u64());
    }
    let _ = child.wait();
    let loud = loud.expect("aiortc told what it heard");
    assert!(loud > 100, "speech in {loud} of 250 frames");
}
