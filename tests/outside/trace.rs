//! Tracing of a call: the event log, `offhook calls`, and `traceparent` to the customer's server.

use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use crate::support::app::App;
use crate::support::meta::{Graph, connect, silent_offer, terminate};
use crate::support::node::{API_KEY, Node, NodeConfig};
use crate::support::{database, http};

async fn offhook(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_offhook"));
    command
        .args(args)
        .env_remove("RUST_LOG")
        .env_remove("OFFHOOK_API_KEY")
        .stdin(std::process::Stdio::null());
    tokio::task::spawn_blocking(move || command.output().expect("run offhook"))
        .await
        .expect("its output")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Returns the call's log when it contains the hangup callback, which follows the call's end.
async fn until_callback(node: &Node, uuid: &str, mut log: String) -> String {
    let mut every = tokio::time::interval(Duration::from_millis(20));
    for _ in 0..500 {
        if log.contains("{\"trace\":\"callback\"") {
            return log;
        }
        every.tick().await;
        let url = format!("{}/api/v1/calls/{uuid}/events", node.public);
        log = http::send("GET", &url, &[("x-api-key", API_KEY)], "").await.text();
    }
    panic!("no callback after 10 s in {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trace_of_a_slow_call_shows_the_slow_part() {
    let app = App::start().await;
    let menu = app.url("/menu");
    app.xml(
        "/answer",
        format!("<Response><GetInput action=\"{menu}\" executionTimeout=\"60\" colour=\"red\"/></Response>"),
    );
    app.xml("/hangup", "");
    app.slow("/answer", Duration::from_millis(400));
    let graph = Graph::start().await;
    let failed = std::sync::atomic::AtomicBool::new(false);
    graph.script(move |asked| {
        let first =
            asked["action"] == "accept" && !failed.swap(true, std::sync::atomic::Ordering::SeqCst);
        first.then(|| (503, "{}".to_owned()))
    });
    let mut node_config = NodeConfig::new(&graph.url, &app.url("/answer"));
    node_config.hangup_url = app.url("/hangup");
    node_config.accept_wait_ms = 0;
    let node = Node::start(&node_config).await;
    let wacid = connect(&node, &silent_offer()).await;
    node.until_metric(
        "offhook_graph_request_seconds_count",
        &[("action", "accept"), ("status", "200")],
        1.0,
    )
    .await;
    terminate(&node, &wacid).await;
    let hangup = app.wait("/hangup").await;
    let uuid = hangup.param("CallUUID").to_owned();
    node.record(&uuid).await;

    // One trace with a span per request: in the requests, in the head of the event log, and in the
    // node's log.
    let trace_id = uuid.replace('-', "");
    let parents: Vec<String> = app
        .requests()
        .iter()
        .map(|s| s.headers["traceparent"].to_str().expect("text").to_owned())
        .collect();
    assert!(
        parents.iter().all(|p| p.starts_with(&format!("00-{trace_id}-")) && p.ends_with("-01")),
        "{parents:?}"
    );
    assert!(parents.len() >= 2 && parents[0] != parents[1]);
    assert!(node.log().contains(&format!("\"trace_id\":\"{trace_id}\"")));
    let log = http::send(
        "GET",
        &format!("{}/api/v1/calls/{uuid}/events", node.public),
        &[("x-api-key", API_KEY)],
        "",
    )
    .await
    .text();
    let log = until_callback(&node, &uuid, log).await;
    let head: Value = serde_json::from_str(log.lines().next().expect("a head")).expect("JSON");
    assert_eq!(head["trace_id"], trace_id.as_str());
    let span = parents[0].split('-').nth(2).expect("a span");
    assert!(
        log.lines().any(|l| l.starts_with("{\"trace\":\"fetch\"") && l.contains(span)),
        "{log}"
    );

    // The log has words, not Rust's debug output.
    assert!(node.log().contains("\"outcome\":\"done\""), "{}", node.log());
    // The log can still be replayed.
    let file = node.dir.path().join("call.jsonl");
    std::fs::write(&file, &log).expect("written");
    let replayed = offhook(&["replay", file.to_str().expect("a path")]).await;
    assert_eq!(replayed.status.code(), Some(0), "{}", text(&replayed.stderr));

    // The same call by folder, by configuration and over the API.
    let dir = node.dir.path().to_str().expect("a path").to_owned();
    let [how, place] = database::place(node.dir.path());
    let config = node.dir.path().join("offhook.toml").display().to_string();
    let ways = [
        vec![&*how, &*place],
        vec!["--config", &config],
        vec!["--node", &node.public, "--api-key", API_KEY],
    ];
    for way in &ways {
        let shown = offhook(&[&["calls", "show", &uuid], way.as_slice()].concat()).await;
        let out = text(&shown.stdout);
        assert_eq!(shown.status.code(), Some(0), "{way:?}: {}", text(&shown.stderr));
        for part in [
            "webhook",
            "admission",
            "graph pre_accept",
            "fetch answer",
            "first byte",
            "graph accept",
            "try 1",
        ] {
            assert!(out.contains(part), "{part} of {way:?}:\n{out}");
        }
        assert!(out.contains("went into first byte of fetch answer"), "{out}");
        assert!(out.contains("✗ 503") && out.contains("caller_hangup"), "{out}");
        assert!(out.contains("callback hangup") && out.contains("200 delivered"), "{out}");
        assert!(
            out.contains("findings in its documents\n") && out.contains("warning W301 at line 1"),
            "{out}"
        );
        assert!(!out.contains('\u{1b}') && !out.contains("919412341234"), "{out}");

        let listed = offhook(&[&["calls", "list", "--json"], way.as_slice()].concat()).await;
        let call: Value = serde_json::from_slice(&listed.stdout).expect("one call");
        assert_eq!(
            (&call["callUuid"], &call["from"], &call["cause"]),
            (&uuid.as_str().into(), &"…1234".into(), &"caller_hangup".into())
        );
        let table = text(&offhook(&[&["calls", "list"], way.as_slice()].concat()).await.stdout);
        assert!(table.contains(&uuid) && table.contains("…1234"), "{table}");
    }
    let json = offhook(&["calls", "show", &uuid, &how, &place, "--json"]).await;
    let objects: Vec<Value> = text(&json.stdout)
        .lines()
        .map(|l| serde_json::from_str(l).expect("an object a line"))
        .collect();
    let first_byte = objects
        .iter()
        .find(|o| o["name"] == "first byte" && o["of"] == "fetch answer")
        .expect("a bar");
    let took =
        first_byte["to_us"].as_i64().expect("us") - first_byte["from_us"].as_i64().expect("us");
    assert!((390_000..5_000_000).contains(&took), "{took}");

    // The linter's finding about its document appears here, in the record and in the log.
    let finding = objects.iter().find(|o| o["event"] == "finding").expect("a finding");
    assert_eq!((&finding["rule"], &finding["line"]), (&"W301".into(), &1.into()));
    let record = format!("{}/api/v1/calls/{uuid}/", node.public);
    let record: Value = serde_json::from_str(
        &http::send("GET", &record, &[("x-api-key", API_KEY)], "").await.text(),
    )
    .expect("a record");
    assert_eq!(
        (&record["findings"][0]["rule"], &record["cause"]),
        (&"W301".into(), &"caller_hangup".into())
    );
    assert!(
        node.log().contains("document has findings") && node.log().contains("W301:1"),
        "{}",
        node.log()
    );

    // Errors are reported.
    let unknown = "00000000-0000-4000-8000-000000000000";
    for (args, code, part) in [
        (vec!["calls", "show", unknown, &how, &place], 1, "no call "),
        (
            vec!["calls", "show", unknown, "--node", &node.public, "--api-key", API_KEY],
            1,
            "no call ",
        ),
        (
            vec!["calls", "show", &uuid, "--node", &node.public, "--api-key", "wrong"],
            1,
            "does not accept this API key",
        ),
        (vec!["calls", "show", &uuid, "--data-dir", "/nowhere"], 1, "could not open the store"),
        (vec!["calls", "show", "not-a-uuid", &how, &place], 2, "not-a-uuid"),
        (
            vec!["calls", "show", &uuid, "--data-dir", &dir, "--node", &node.public],
            2,
            "cannot be used with",
        ),
        (vec!["calls", "show", &uuid, "--node", "https://calls.example.com"], 2, "--api-key"),
        (vec!["calls", "list", "--limit", "0", "--data-dir", &dir], 2, "--limit"),
    ] {
        let out = offhook(&args).await;
        assert_eq!(out.status.code(), Some(code), "{args:?}: {}", text(&out.stderr));
        assert!(text(&out.stderr).contains(part), "{args:?}: {}", text(&out.stderr));
    }
}
