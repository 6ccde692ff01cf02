//! Traces: a build with the feature `otel` and a collector on loopback that reads OTLP as JSON.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::support::app::App;
use crate::support::meta::{Graph, connect, silent_offer, terminate};
use crate::support::node::{Node, NodeConfig};

/// The received bodies of `POST /v1/traces`.
#[derive(Clone)]
struct Collector {
    bodies: Arc<Mutex<Vec<Value>>>,
    count: watch::Sender<usize>,
    url: String,
}

impl Collector {
    async fn start() -> Self {
        let listener =
            tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port for the collector");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let collector = Self { bodies: Arc::default(), count: watch::Sender::new(0), url };
        let take = async |State(collector): State<Self>, body: Bytes| {
            collector
                .bodies
                .lock()
                .expect("bodies")
                .push(serde_json::from_slice(&body).expect("OTLP as JSON"));
            collector.count.send_modify(|n| *n += 1);
            axum::Json(json!({}))
        };
        let router = Router::new()
            .route("/v1/traces", axum::routing::post(take))
            .with_state(collector.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        collector
    }

    fn spans(&self) -> Vec<Value> {
        let bodies = self.bodies.lock().expect("bodies");
        let each = |of: &Value, what: &str| of[what].as_array().cloned().unwrap_or_default();
        let resources = bodies.iter().flat_map(|b| each(b, "resourceSpans"));
        resources.flat_map(|r| each(&r, "scopeSpans")).flat_map(|s| each(&s, "spans")).collect()
    }

    /// Waits until spans of all these names have arrived. Returns them by name.
    async fn until(&self, names: &[&str]) -> BTreeMap<String, Value> {
        let mut count = self.count.subscribe();
        let come = async {
            loop {
                let spans: BTreeMap<String, Value> = self
                    .spans()
                    .into_iter()
                    .map(|span| (span["name"].as_str().expect("a name").to_owned(), span))
                    .collect();
                if names.iter().all(|name| spans.contains_key(*name)) {
                    return spans;
                }
                count.changed().await.expect("the collector lives");
            }
        };
        match tokio::time::timeout(Duration::from_secs(30), come).await {
            Ok(spans) => spans,
            Err(_) => panic!("not all of {names:?} after 30 s: {:#?}", self.spans()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_a_trace_at_the_collector() {
    let app = App::start().await;
    let menu = app.url("/menu");
    app.xml(
        "/answer",
        format!("<Response><GetInput action=\"{menu}\" executionTimeout=\"60\"/></Response>"),
    );
    app.xml("/hangup", "");
    let (graph, collector) = (Graph::start().await, Collector::start().await);
    let mut node_config = NodeConfig::new(&graph.url, &app.url("/answer"));
    node_config.hangup_url = app.url("/hangup");
    node_config.accept_wait_ms = 0;
    node_config.envs = vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.clone()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json".to_owned()),
        ("OTEL_BSP_SCHEDULE_DELAY", "50".to_owned()),
    ];
    let node = Node::start(&node_config).await;
    let wacid = connect(&node, &silent_offer()).await;
    graph.wait(&wacid, "accept").await;
    terminate(&node, &wacid).await;
    let hangup = app.wait("/hangup").await;

    let spans = collector
        .until(&[
            "call",
            "webhook",
            "admission",
            "graph pre_accept",
            "fetch answer",
            "graph accept",
            "callback hangup",
        ])
        .await;
    let trace = hangup.param("CallUUID").replace('-', "");
    assert!(spans.values().all(|s| s["traceId"] == trace.as_str()), "{spans:#?}");
    let root = &spans["call"]["spanId"];
    for name in ["webhook", "graph accept", "fetch answer", "callback hangup"] {
        assert_eq!(&spans[name]["parentSpanId"], root, "{name}");
    }
    // The request's span matches the `traceparent` that the customer's server received.
    let answer = app.wait("/answer").await;
    let span = answer.headers["traceparent"]
        .to_str()
        .expect("text")
        .split('-')
        .nth(2)
        .expect("a span")
        .to_owned();
    assert_eq!(spans["fetch answer"]["spanId"], span.as_str());
    let span = hangup.headers["traceparent"]
        .to_str()
        .expect("text")
        .split('-')
        .nth(2)
        .expect("a span")
        .to_owned();
    assert_eq!(spans["callback hangup"]["spanId"], span.as_str());
    let time = |span: &Value, which: &str| {
        span[which].as_str().and_then(|t| t.parse::<u64>().ok()).expect("a time")
    };
    for span in spans.values() {
        assert!(time(span, "startTimeUnixNano") <= time(span, "endTimeUnixNano"), "{span}");
    }
    let text =
        collector.bodies.lock().expect("bodies").iter().map(Value::to_string).collect::<String>();
    assert!(
        text.contains("\"offhook\"") && !text.contains("919412341234"),
        "the caller's last digits only"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn r09_a_call_that_is_still_closing_at_a_second_signal_is_exported() {
    let app = App::start().await;
    app.xml("/answer", "<Response><Wait length=\"60\"/></Response>").xml("/hangup", "");
    let (graph, collector) = (Graph::start().await, Collector::start().await);
    let mut node_config = NodeConfig::new(&graph.url, &app.url("/answer"));
    node_config.hangup_url = app.url("/hangup");
    node_config.accept_wait_ms = 0;
    node_config.is_single = true;
    node_config.drain_seconds = 60;
    node_config.envs = vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.clone()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json".to_owned()),
    ];
    let mut node = Node::start(&node_config).await;
    let wacid = connect(&node, &silent_offer()).await;
    graph.wait(&wacid, "accept").await;
    node.signal("TERM");
    node.until_metric("offhook_draining", &[], 1.0).await;
    let signalled = model::Clock::real().now();
    node.signal("TERM");
    // Meta accepts the end but never sends the terminate.
    graph.wait(&wacid, "terminate").await;
    assert_eq!(node.wait(), Some(0));
    assert!(signalled.elapsed() < Duration::from_millis(2_500), "{:?}", signalled.elapsed());
    let spans = collector.until(&["call", "graph accept", "fetch answer"]).await;
    let cause = spans["call"]["attributes"]
        .as_array()
        .expect("attributes")
        .iter()
        .find(|a| a["key"] == "offhook.cause");
    assert!(cause.is_some_and(|cause| cause.to_string().contains("drained")), "{spans:#?}");
}
