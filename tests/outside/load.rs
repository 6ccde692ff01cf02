//! `offhook load` through the whole binary: its report is consistent, with and without media, alone
//! and against another process.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::app::App;
use crate::support::node::{ACCESS_TOKEN, APP_SECRET, Node, NodeConfig, VERIFY_TOKEN, free_port};

fn load(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_offhook"));
    command.arg("load").args(args).stdin(Stdio::null());
    command
}

/// Runs the command. Returns the exit code and the summary, the last line, after checking that its
/// figures add up.
fn summary(command: &mut Command) -> (Option<i32>, Value) {
    let out = command.output().expect("run a load");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let output = format!("{text}{}", String::from_utf8_lossy(&out.stderr));
    let mut events: Vec<Value> =
        text.lines().map(|l| serde_json::from_str(l).expect("JSON lines")).collect();
    let last = events.pop().unwrap_or_else(|| panic!("no summary: {output}"));
    assert_eq!(last["event"], "summary", "{output}");
    assert!(events.iter().all(|e| e["event"] == "progress"), "{output}");
    adds_up(&last);
    (out.status.code(), last)
}

fn count(summary: &Value, name: &str) -> u64 {
    summary[name].as_u64().unwrap_or_else(|| panic!("{name} in {summary}"))
}

fn adds_up(summary: &Value) {
    let parts = ["answered", "rejected", "failed"].map(|name| count(summary, name));
    assert_eq!(count(summary, "attempted"), parts.iter().sum::<u64>(), "{summary}");
    count(summary, "audio_gaps");
    assert!(summary["wall_s"].as_f64().is_some_and(|s| s > 0.0), "{summary}");
}

/// Returns the percentiles of a latency after checking their order.
fn in_order(summary: &Value, name: &str) -> Vec<f64> {
    let figures: Vec<f64> = ["p50", "p90", "p99", "max"]
        .iter()
        .map(|p| summary[name][*p].as_f64().unwrap_or_else(|| panic!("{name}.{p} in {summary}")))
        .collect();
    assert!(figures.is_sorted() && figures.iter().all(|ms| *ms >= 0.0), "{name}: {summary}");
    figures
}

#[test]
fn loads_with_and_without_media_succeed_and_add_up() {
    for media in [false, true] {
        let mut command = load(&["--rate", "20", "--calls", "40", "--json"]);
        if media {
            command.arg("--media");
        }
        let (code, summary) = summary(&mut command);
        assert_eq!((code, count(&summary, "attempted")), (Some(0), 40), "media {media}: {summary}");
        assert_eq!(
            (count(&summary, "answered"), count(&summary, "rejected")),
            (40, 0),
            "{summary}"
        );
        let setup = in_order(&summary, "setup_ms");
        assert!(setup.iter().all(|ms| *ms > 0.0), "{summary}");
        if media {
            in_order(&summary, "first_audio_ms");
        } else {
            assert!(summary["first_audio_ms"]["p50"].is_null(), "{summary}");
        }
        // 40 calls at 20 per second, and the last is held for a second.
        assert!(summary["wall_s"].as_f64().is_some_and(|s| s > 2.9), "{summary}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_a_node_in_another_process_count_as_rejected() {
    let app = App::start().await;
    app.xml("/answer", "<Response><Wait length=\"60\"/></Response>").xml("/hangup", "");
    let meta = format!("127.0.0.1:{}", free_port());
    let mut node_config = NodeConfig::new(&format!("http://{meta}/v23.0"), &app.url("/answer"));
    node_config.hangup_url = app.url("/hangup");
    node_config.cps = 5;
    node_config.accept_wait_ms = 0;
    let node = Node::start(&node_config).await;
    let args = ["--rate", "50", "--calls", "30", "--hold", "0.5", "--json", "--node", &node.public];
    let mut command = load(&args);
    command.args(["--meta-listen", &meta]);
    command.env("META_APP_SECRET", APP_SECRET).env("META_VERIFY_TOKEN", VERIFY_TOKEN);
    command.env("META_ACCESS_TOKEN", ACCESS_TOKEN);
    let (code, summary) =
        tokio::task::spawn_blocking(move || summary(&mut command)).await.expect("a summary");
    assert_eq!((code, count(&summary, "failed")), (Some(0), 0), "a limit is no failure: {summary}");
    assert!(count(&summary, "answered") >= 5 && count(&summary, "rejected") > 0, "{summary}");
    for (result, counted) in [("cps_exceeded", "rejected"), ("admitted", "answered")] {
        let at_the_node = node.metric("offhook_admission_total", &[("result", result)]).await;
        assert_eq!(at_the_node, count(&summary, counted) as f64, "{result}: {summary}");
    }
}

#[test]
fn a_failing_application_fails_the_load() {
    let args =
        ["--rate", "20", "--calls", "4", "--json", "--answer-url", "http://127.0.0.1:1/answer"];
    let (code, summary) = summary(&mut load(&args));
    assert_eq!((code, count(&summary, "failed")), (Some(1), 4), "{summary}");
}

#[test]
fn ctrl_c_ends_a_load_early_with_its_summary() {
    let mut child = load(&["--rate", "10", "--calls", "100000", "--hold", "30", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("start a load");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let first = lines.next().expect("progress").expect("text");
    assert!(first.contains("\"progress\""), "{first}");
    let _ = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    let last = lines.map_while(Result::ok).last().expect("a summary");
    let last: Value = serde_json::from_str(&last).expect("JSON");
    assert_eq!(last["event"], "summary");
    adds_up(&last);
    assert!(
        (1..100_000).contains(&count(&last, "attempted")) && count(&last, "failed") == 0,
        "{last}"
    );
    assert_eq!(child.wait().expect("its end").code(), Some(130), "interrupted");
}

#[test]
fn ctrl_c_hangs_up_a_call() {
    let folder = tempfile::tempdir().expect("folder");
    let document = folder.path().join("document.xml");
    std::fs::write(&document, "<Response><Wait length=\"120\"/></Response>").expect("write");
    let mut command = Command::new(env!("CARGO_BIN_EXE_offhook"));
    command.args(["call", "--json", "--hold", "100", "--document"]).arg(&document);
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("start a call");
    let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let mut lines = lines.map(|line| line.expect("text"));
    lines.find(|line| line.contains("\"answered\"")).expect("answered");
    let _ = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    let last = lines.last().expect("an end");
    assert!(last.contains("\"ended\""), "{last}");
    assert_eq!(child.wait().expect("its end").code(), Some(130), "interrupted");
}
