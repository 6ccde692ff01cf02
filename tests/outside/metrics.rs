//! The contents of `/metrics`: every documented metric is present from the start, and every label
//! has a value from its closed list (`docs/reference/metrics.md`). The lists are repeated here on
//! purpose, as the expected values.

use std::collections::BTreeSet;

use serde_json::json;

use crate::support::app::App;
use crate::support::http;
use crate::support::meta::{Graph, connect, connect_body, silent_offer, terminate, wacid};
use crate::support::node::{NUMBER, Node, NodeConfig};

const NAMES: [&str; 14] = [
    "calls_active",
    "calls_total",
    "admission_total",
    "number_slots_in_use",
    "setup_seconds",
    "answer_fetch_seconds",
    "graph_request_seconds",
    "callback_total",
    "webhook_events_total",
    "media_packets_total",
    "media_late_ticks_total",
    "instructions_total",
    "store_errors_total",
    "build_info",
];

/// Returns the allowed values of a label, or `None` if the metric is not documented.
fn words(metric: &str, label: &str) -> Option<&'static str> {
    Some(match (metric, label) {
        ("media_packets_total", "direction") => "in out",
        ("calls_active" | "calls_total" | "admission_total", "direction") => "inbound outbound",
        ("calls_total", "outcome") => "completed busy no_answer rejected cancelled timeout failed",
        ("admission_total", "result") => {
            "admitted number_full cps_exceeded unknown_number calling_disabled no_permission geo_blocked user_busy \
             bad_offer overloaded draining duplicate"
        }
        ("number_slots_in_use", "number") => NUMBER,
        ("answer_fetch_seconds", "kind") => "answer fallback action redirect transfer sound play",
        ("answer_fetch_seconds", "outcome") => {
            "ok timeout unreachable status refused too_large invalid"
        }
        ("graph_request_seconds", "action") => {
            "connect pre_accept accept reject terminate message permissions settings other"
        }
        ("graph_request_seconds", "status") => {
            "200 400 401 403 404 429 500 502 503 504 timeout error other gone"
        }
        ("callback_total", "kind") => {
            "hangup ring recording transcription message dial conference mpc stream interim action event"
        }
        ("callback_total", "outcome") => "delivered retry failed",
        ("instructions_total", "element") => {
            "Speak Play Wait GetInput GetDigits Record Dial Conference MultiPartyCall Stream DTMF Redirect Hangup \
             PreAnswer Message"
        }
        ("instructions_total", "outcome") => "done skipped failed cut",
        ("webhook_events_total", "kind") => {
            "calls calls.connect calls.terminate calls.status messages body object other"
        }
        ("webhook_events_total", "result") => {
            "admitted rejected duplicate stale ended late answer_applied answer_bad parked status_applied \
             permission_updated message_stored message_status_applied account_noted settings_noted unknown_number \
             ignored malformed bad_signature bad_json too_large busy"
        }
        _ => return None,
    })
}

/// Splits a line into the metric without prefix and suffix, and its labels.
fn series(line: &str) -> (&str, Vec<(&str, &str)>) {
    let (name, rest) = line.split_once(['{', ' ']).expect("a name");
    let name = name.strip_prefix("offhook_").expect("our prefix");
    let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
    let labels = rest.split_once('}').map_or("", |(labels, _)| labels);
    let label = |text: &'_ str| -> Option<(usize, usize)> {
        let at = text.find("=\"")?;
        Some((at, at + 2 + text[at + 2..].find('"')?))
    };
    let mut pairs = Vec::new();
    let mut left = labels;
    while let Some((equals, end)) = label(left) {
        pairs.push((&left[..equals], &left[equals + 2..end]));
        left = left[end + 1..].trim_start_matches(',');
    }
    (base.unwrap_or(name), pairs)
}

fn all(text: &str) -> impl Iterator<Item = (&str, Vec<(&str, &str)>)> {
    text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(series)
}

#[tokio::test(flavor = "multi_thread")]
async fn r23_every_metric_exists_from_the_start_and_labels_have_listed_values() {
    let app = App::start().await;
    let menu = app.url("/menu");
    app.xml(
        "/answer",
        format!(
            "<Response><Wait length=\"1\"/><GetDigits action=\"{menu}\" timeout=\"2\"/></Response>"
        ),
    );
    app.route("/hangup", |_| (503, String::new()));
    let graph = Graph::start().await;
    let expected = NodeConfig {
        hangup_url: app.url("/hangup"),
        ..NodeConfig::new(&graph.url, &app.url("/answer"))
    };
    let node = Node::start(&NodeConfig { accept_wait_ms: 0, ..expected }).await;

    let text = node.metrics().await;
    let there: BTreeSet<&str> = all(&text).map(|(name, _)| name).collect();
    for name in NAMES {
        assert!(there.contains(name), "offhook_{name} from the start: {there:?}");
    }

    // Calls with various outcomes, non-standard status codes from Graph, and webhooks of every
    // kind.
    graph.script(|asked| match asked["action"].as_str() {
        Some("pre_accept") => Some((777, "{}".to_owned())),
        Some("reject") => Some((400, r#"{"error":{"code":100,"message":"no"}}"#.to_owned())),
        _ => None,
    });
    let call = connect(&node, &silent_offer()).await;
    graph.wait(&call, "accept").await;
    terminate(&node, &call).await;
    app.wait("/hangup").await;
    let twice = connect_body(&wacid(), "v=0").to_string();
    for _ in 0..2 {
        node.post_webhook(&twice).await;
    }
    for (field, value) in [
        ("calls", json!({"calls": [{"event": "new"}]})),
        ("odd", json!({})),
        ("messages", json!([])),
    ] {
        let change = json!({"field": field, "value": value});
        let body = json!({"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": [change]}]});
        node.post_webhook(&body.to_string()).await;
    }
    node.post_webhook("{\"object\":\"page\"}").await;
    node.post_webhook("no JSON").await;
    http::send("POST", &format!("{}/webhooks/meta", node.public), &[], "{}").await;
    node.until_metric("offhook_callback_total", &[("outcome", "retry")], 1.0).await;

    let text = node.metrics().await;
    let mut seen = BTreeSet::new();
    for (name, labels) in all(&text) {
        for (label, word) in labels.into_iter().filter(|(label, _)| *label != "le") {
            let Some(list) = words(name, label) else {
                assert!(
                    !NAMES.contains(&name) || name == "build_info",
                    "{label} of offhook_{name}"
                );
                continue;
            };
            assert!(
                list.split_ascii_whitespace().any(|of| of == word),
                "{word:?} is no {label} of offhook_{name}"
            );
            seen.insert((name.to_owned(), word.to_owned()));
        }
    }
    for (name, word) in [("graph_request_seconds", "other"), ("webhook_events_total", "other")] {
        assert!(seen.contains(&(name.to_owned(), word.to_owned())), "{word} of {name}: {text}");
    }
}
