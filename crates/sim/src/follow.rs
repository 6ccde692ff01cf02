//! Reads a call's event log from the node as it grows, for whoever watches the phone: the only thing the simulator
//! asks a node beyond what Meta does, and over the same public API that everybody has.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use serde_json::Value;
use tokio::sync::mpsc;

use super::World;
use super::client::{self, Lines};
use super::meta::life::CallMsg;
use model::{CallUuid, HangupCause};

/// Longest line of an event log that is read; documents stand in it.
const LINE_BYTES_MAX: usize = 4 << 20;
/// The log may not be there yet when `accept` comes.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(200);

/// What the node's log told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NodeTold {
    Instruction {
        element: String,
        line: u32,
        outcome: String,
        note: String,
    },
    Concluded {
        cause: String,
    },
    /// Nothing more will come.
    Over,
}

/// The call's UUID in `biz_opaque_callback_data`: `oh1.<CallUUID>.<node_id>` (`meta-calling.md` 4.1.5).
pub(crate) fn call_uuid_of(opaque: &str) -> Option<String> {
    let uuid = opaque.strip_prefix("oh1.")?.split('.').next()?;
    uuid.parse::<CallUuid>().ok().map(|u| u.to_string())
}

/// Follows the log of a call in a task of its own; ends with the log, the call's mailbox or the simulator.
pub(crate) fn start(
    world: &Arc<World>,
    node_url: String,
    uuid: String,
    api_key: String,
    to: mpsc::Sender<CallMsg>,
) {
    let world = world.clone();
    tokio::spawn(async move {
        let closed = to.clone();
        tokio::select! {
            () = world.stop.cancelled() => {}
            () = closed.closed() => {}
            () = follow(&world, &node_url, &uuid, &api_key, &to) => {
                let _ = to.send(CallMsg::Node(NodeTold::Over)).await;
            }
        }
    });
}

async fn follow(
    world: &World,
    node_url: &str,
    uuid: &str,
    api_key: &str,
    to: &mpsc::Sender<CallMsg>,
) {
    let url = format!("{node_url}/api/v1/calls/{uuid}/events?follow=1");
    for _ in 0..TRIES {
        let request = Request::get(&url).header("x-api-key", api_key).body(Bytes::new());
        let Ok(request) = request else { return };
        match client::send(&world.http, request).await {
            Ok(response) if response.status() == 200 => {
                let mut lines = Lines::of(response.into_body(), LINE_BYTES_MAX);
                while let Some(line) = lines.next().await {
                    for told in told_by(&line) {
                        if to.send(CallMsg::Node(told)).await.is_err() {
                            return;
                        }
                    }
                }
                return;
            }
            Ok(response) if response.status() != 404 => {
                tracing::debug!(
                    status = response.status().as_u16(),
                    "the node's event log can't be read"
                );
                return;
            }
            Ok(_) | Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// What a line of an event log tells: `{"at":ms,"input":{…},"outputs":[…]}`.
fn told_by(line: &[u8]) -> Vec<NodeTold> {
    let Ok(line) = serde_json::from_slice::<Value>(line) else { return Vec::new() };
    let outputs = line["outputs"].as_array().map(Vec::as_slice).unwrap_or_default();
    outputs.iter().filter_map(told_of).collect()
}

fn told_of(output: &Value) -> Option<NodeTold> {
    let text = |name: &str| output[name].as_str().unwrap_or_default().to_owned();
    match output["wish"].as_str()? {
        "instruction" => Some(NodeTold::Instruction {
            element: text("element"),
            line: output["line"].as_u64().and_then(|l| u32::try_from(l).ok()).unwrap_or(0),
            outcome: text("outcome"),
            note: text("note"),
        }),
        "concluded" => {
            let cause = &output["summary"]["cause"];
            let known = serde_json::from_value::<HangupCause>(cause.clone())
                .ok()
                .map(|c| c.as_str().to_owned());
            // A newer node may know causes that we don't: its own text, then.
            Some(NodeTold::Concluded { cause: known.unwrap_or_else(|| cause.to_string()) })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{NodeTold, call_uuid_of, told_by};

    #[test]
    fn the_call_is_named_by_the_callback_data() {
        let uuid = "7f3c1c1e-5a52-4a0e-9a60-0d6f1f7d2a11";
        assert_eq!(call_uuid_of(&format!("oh1.{uuid}.node-a")).as_deref(), Some(uuid));
        assert_eq!(call_uuid_of("oh1.nothing.node-a"), None);
        assert_eq!(call_uuid_of("somebody else's"), None);
    }

    #[test]
    fn instructions_and_the_cause_are_read_from_lines() {
        let line = br#"{"at":5,"input":{"fact":"timer"},"outputs":[
            {"wish":"instruction","element":"Speak","line":2,"outcome":"started","note":""},
            {"wish":"over"},
            {"wish":"concluded","summary":{"cause":{"invalid_xml":"answer"}}}]}"#;
        let told = told_by(line);
        assert!(
            matches!(&told[..], [NodeTold::Instruction { element, line: 2, .. }, NodeTold::Concluded { cause }]
            if element == "Speak" && cause == "invalid_answer_xml"),
            "{told:?}"
        );
        assert!(told_by(b"garbage").is_empty());
    }
}
