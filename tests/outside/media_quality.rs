//! The media quality in a call's record: how the media path was established, or why it failed.

use serde_json::Value;
use sim::{CallEventKind, CallScript, HangupRule, Sim};

use crate::support::app::App;
use crate::support::meta::{Graph, connect, silent_offer, terminate};
use crate::support::node::{API_KEY, Node, NodeConfig, sim_options};
use crate::support::{database, http};

async fn record(node: &Node, uuid: &str) -> Value {
    let url = format!("{}/api/v1/calls/{uuid}/", node.public);
    let text = http::send("GET", &url, &[("x-api-key", API_KEY)], "").await.text();
    serde_json::from_str(&text).expect("a record")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_describes_the_media_path() {
    let app = App::start().await;
    app.xml("/hangup", "");
    let menu = app.url("/menu");
    app.xml(
        "/answer",
        format!("<Response><GetDigits action=\"{menu}\" timeout=\"8\"/></Response>"),
    );
    let sim = Sim::start(sim_options()).await.expect("the simulated Meta");
    let mut node_config = NodeConfig::new(&sim.graph_url(), &app.url("/answer"));
    node_config.hangup_url = app.url("/hangup");
    let node = Node::start(&node_config).await;
    sim.set_node_url(node.public.clone());
    let say = vec![std::sync::Arc::from([0x48, 1, 2].as_slice()); 350];
    let script = CallScript { say, hangup: HangupRule::Never, ..CallScript::default() };
    let events = sim.place_call(script).all().await;
    assert!(events.iter().any(|e| e.kind == CallEventKind::MediaUp), "{events:#?}");
    let uuid = app.wait("/hangup").await.param("CallUUID").to_owned();
    node.record(&uuid).await;

    let record = record(&node, &uuid).await;
    let way = &record["quality"]["inbound"];
    assert!(way["packets"].as_u64() >= Some(300), "{record:#}");
    assert!(way["lossPercent"].as_f64() <= Some(2.0), "{record:#}");
    assert!(way["mos"].as_f64() >= Some(3.5), "{record:#}");
    let outbound = &record["quality"]["outbound"];
    assert!(outbound["packets"].as_u64() >= Some(50), "the phone's own reports: {record:#}");
    assert!(record["quality"]["roundTripMs"].as_f64().is_some_and(|ms| ms < 500.0), "{record:#}");
    node.until_metric("offhook_media_mos_count", &[("direction", "in")], 1.0).await;

    let show = std::process::Command::new(env!("CARGO_BIN_EXE_offhook"))
        .args(["calls", "show", &uuid])
        .args(database::place(node.dir.path()))
        .output()
        .expect("run offhook");
    let show = String::from_utf8_lossy(&show.stdout).into_owned();
    assert!(show.contains("estimated MOS") && show.contains("round trip"), "{show}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_media_names_the_fault_and_the_remedy() {
    let app = App::start().await;
    app.xml("/hangup", "");
    let menu = app.url("/menu");
    app.xml(
        "/answer",
        format!("<Response><GetDigits action=\"{menu}\" timeout=\"60\"/></Response>"),
    );
    let graph = Graph::start().await;
    let mut node_config = NodeConfig::new(&graph.url, &app.url("/answer"));
    node_config.hangup_url = app.url("/hangup");
    node_config.accept_wait_ms = 0;
    let node = Node::start(&node_config).await;
    let wacid = connect(&node, &silent_offer()).await;
    node.until_metric("offhook_media_missing_total", &[("what", "check")], 1.0).await;
    terminate(&node, &wacid).await;
    let uuid = app.wait("/hangup").await.param("CallUUID").to_owned();
    node.record(&uuid).await;
    let record = record(&node, &uuid).await;
    let remarks = record["remarks"].to_string();
    assert!(remarks.contains("3 s after") && remarks.contains("public.media_ips"), "{record:#}");
    assert_eq!(record["quality"], Value::Null, "nothing was measured");
    assert!(node.log().contains("call has no audio"), "{}", node.log());
}
