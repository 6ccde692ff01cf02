//! Follows the event log of a call on the node, so that the phone can show the node's progress.
//! This public API is the only thing that the simulator requests from a node beyond Meta's own
//! requests.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use serde_json::Value;
use tokio::sync::mpsc;

use super::World;
use super::call_message::{CallMsg, NodeEvent};
use super::client::{self, Lines};
use model::{CallUuid, HangupCause};

/// Maximum length of a line. Lines may contain whole documents.
const LINE_BYTES_MAX: usize = 4 << 20;
/// Number of attempts: the log may not exist yet when `accept` arrives.
const TRIES: u32 = 5;
/// Maximum number of shown sounds of a playlist, and maximum length of a text in characters.
const SOUNDS_MAX: usize = 20;
const TEXT_MAX: usize = 2_000;
/// Maximum number of shown errors of a document.
const ERRORS_MAX: usize = 5;
const PAUSE: Duration = Duration::from_millis(200);
/// Number of recent calls of a caller that are searched for a call.
const CALLS_READ: usize = 5;

/// Extracts the call UUID from `biz_opaque_callback_data`, which has the form
/// `oh1.<CallUUID>.<node_id>`.
pub(crate) fn call_uuid_of(opaque: &str) -> Option<String> {
    let uuid = opaque.strip_prefix("oh1.")?.split('.').next()?;
    uuid.parse::<CallUuid>().ok().map(|u| u.to_string())
}

/// Client of a node's number API.
pub(crate) struct NodeClient {
    pub base: String,
    pub api_key: String,
}

/// How a call on the node is identified.
pub(crate) enum CallName {
    Uuid(String),
    /// Meta's id of an inbound call, and its caller. A call that ends before `accept` has no UUID
    /// in the node's requests.
    Meta {
        call_id: String,
        from: String,
    },
}

/// Follows the log of a call in a new task and sends its events to `to`. The task ends with the
/// log, the call or the simulator.
pub(crate) fn follow(
    world: &Arc<World>,
    node: NodeClient,
    name: CallName,
    to: mpsc::Sender<CallMsg>,
) {
    let world = world.clone();
    tokio::spawn(async move {
        let call = to.clone();
        tokio::select! {
            () = world.stop.cancelled() => {}
            () = call.closed() => {}
            () = find_and_read(&world, &node, name, &to) => {
                let _ = to.send(CallMsg::Node(NodeEvent::LogEnded)).await;
            }
        }
    });
}

async fn find_and_read(
    world: &World,
    node: &NodeClient,
    name: CallName,
    to: &mpsc::Sender<CallMsg>,
) {
    let uuid = match name {
        CallName::Uuid(uuid) => uuid,
        CallName::Meta { call_id, from } => {
            let Some(uuid) = node.find(world, &call_id, &from, to).await else { return };
            let _ = to.send(CallMsg::Node(NodeEvent::Found { call_uuid: uuid.clone() })).await;
            uuid
        }
    };
    for _ in 0..TRIES {
        match node.get(world, &format!("calls/{uuid}/events?follow=1")).await {
            Ok(mut lines) => {
                while let Some(line) = lines.next().await {
                    for event in events_in_line(&line) {
                        if to.send(CallMsg::Node(event)).await.is_err() {
                            return;
                        }
                    }
                }
                return;
            }
            Err(None | Some(404)) => tokio::time::sleep(PAUSE).await,
            Err(Some(status)) => {
                let _ = to.send(CallMsg::Node(NodeEvent::LogRefused { status })).await;
                return;
            }
        }
    }
}

impl NodeClient {
    /// Gets a path below `/api/v1/`. The error is the status, if there was a response.
    async fn get(&self, world: &World, path: &str) -> Result<Lines, Option<u16>> {
        let request = Request::get(format!("{}/api/v1/{path}", self.base))
            .header("x-api-key", &self.api_key)
            .body(Bytes::new())
            .map_err(|_| Some(400))?;
        let response = client::send(&world.http, request).await.map_err(|_| None)?;
        match response.status().as_u16() {
            200 => Ok(Lines::new(response.into_body(), LINE_BYTES_MAX)),
            status => Err(Some(status)),
        }
    }

    async fn json(&self, world: &World, path: &str) -> Result<Value, Option<u16>> {
        let line = self.get(world, path).await?.next().await;
        Ok(line.and_then(|line| serde_json::from_slice(&line).ok()).unwrap_or_default())
    }

    /// Searches for the call among the most recent calls of its caller. The record may not exist
    /// yet.
    async fn find(
        &self,
        world: &World,
        call_id: &str,
        from: &str,
        to: &mpsc::Sender<CallMsg>,
    ) -> Option<String> {
        let from = model::digits_of(from);
        let path = format!("calls/?direction=inbound&from={from}&limit={CALLS_READ}");
        for _ in 0..TRIES {
            let list = match self.json(world, &path).await {
                Ok(list) => list,
                Err(Some(status)) => {
                    let _ = to.send(CallMsg::Node(NodeEvent::LogRefused { status })).await;
                    return None;
                }
                Err(None) => Value::Null,
            };
            let calls = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
            for uuid in calls.iter().filter_map(|call| call["callUuid"].as_str()) {
                let call = self.json(world, &format!("calls/{uuid}/")).await.unwrap_or_default();
                if call["whatsappCallId"] == call_id {
                    return Some(uuid.to_owned());
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        None
    }
}

/// The events in a line of the log: `{"at":ms,"input":{…},"outputs":[…]}`.
fn events_in_line(line: &[u8]) -> Vec<NodeEvent> {
    let Ok(line) = serde_json::from_slice::<Value>(line) else { return Vec::new() };
    let outputs = line["outputs"].as_array().map(Vec::as_slice).unwrap_or_default();
    let sounds = |output| sounds_of(output).into_iter().map(|text| NodeEvent::Sound { text });
    let events = |output| event_from_output(output).into_iter().chain(errors_of(output));
    outputs.iter().flat_map(|output| events(output).chain(sounds(output))).collect()
}

/// The errors that the node found in a document.
fn errors_of(output: &Value) -> Vec<NodeEvent> {
    let findings = match output["wish"].as_str() {
        Some("findings") => output["findings"].as_array().map(Vec::as_slice).unwrap_or_default(),
        _ => return Vec::new(),
    };
    let errors = findings.iter().filter(|finding| finding["severity"] == "error").take(ERRORS_MAX);
    let text = |value: &Value| value.as_str().unwrap_or_default().chars().take(TEXT_MAX).collect();
    errors
        .map(|error| NodeEvent::Finding {
            rule: text(&error["rule"]),
            line: line_of(error),
            message: text(&error["message"]),
        })
        .collect()
}

fn line_of(place: &Value) -> u32 {
    place["line"].as_u64().and_then(|line| u32::try_from(line).ok()).unwrap_or(0)
}

/// What an output plays to the caller.
fn sounds_of(output: &Value) -> Vec<String> {
    let order = &output["order"];
    let items = match (output["wish"].as_str(), order["order"].as_str()) {
        (Some("media"), Some("play")) => &order["items"],
        (Some("media"), Some("aside")) => &order["aside"]["items"],
        _ => return Vec::new(),
    };
    let items = items.as_array().map(Vec::as_slice).unwrap_or_default();
    let texts = items.iter().take(SOUNDS_MAX).filter_map(|item| {
        let sound = &item["sound"];
        let mut text = String::new();
        match sound["sound"].as_str()? {
            "speak" => append_speech(&sound["speech"], &mut text),
            "file" => text.push_str(sound["url"].as_str()?),
            _ => {}
        }
        let text: String = text.trim().chars().take(TEXT_MAX).collect();
        (!text.is_empty()).then_some(text)
    });
    texts.collect()
}

/// Appends the text of a speech without its markup.
fn append_speech(speech: &Value, text: &mut String) {
    for node in speech.as_array().map(Vec::as_slice).unwrap_or_default() {
        if let Some(words) = node["text"].as_str() {
            text.push_str(words);
        } else if node["tag"].is_object() {
            append_speech(&node["tag"]["content"], text);
        } else {
            text.push_str(" … ");
        }
    }
}

fn event_from_output(output: &Value) -> Option<NodeEvent> {
    let text = |name: &str| output[name].as_str().unwrap_or_default().to_owned();
    match output["wish"].as_str()? {
        "instruction" => Some(NodeEvent::Instruction {
            element: text("element"),
            line: line_of(output),
            outcome: text("outcome"),
            note: text("note"),
        }),
        "concluded" => {
            let cause = &output["summary"]["cause"];
            let known = serde_json::from_value::<HangupCause>(cause.clone())
                .ok()
                .map(|c| c.as_str().to_owned());
            // A newer node may have causes that are unknown here: use its own text.
            Some(NodeEvent::Concluded { cause: known.unwrap_or_else(|| cause.to_string()) })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{NodeEvent, call_uuid_of, events_in_line};

    #[test]
    fn extracts_the_call_uuid_from_the_opaque_data() {
        let uuid = "7f3c1c1e-5a52-4a0e-9a60-0d6f1f7d2a11";
        assert_eq!(call_uuid_of(&format!("oh1.{uuid}.node-a")).as_deref(), Some(uuid));
        assert_eq!(call_uuid_of("oh1.nothing.node-a"), None);
        assert_eq!(call_uuid_of("somebody else's"), None);
    }

    #[test]
    fn reads_instructions_and_cause_from_log_lines() {
        let line = br#"{"at":5,"input":{"fact":"timer"},"outputs":[
            {"wish":"instruction","element":"Speak","line":2,"outcome":"started","note":""},
            {"wish":"over"},
            {"wish":"concluded","summary":{"cause":{"invalid_xml":"answer"}}}]}"#;
        let events = events_in_line(line);
        assert!(
            matches!(&events[..], [NodeEvent::Instruction { element, line: 2, .. }, NodeEvent::Concluded { cause }]
            if element == "Speak" && cause == "invalid_answer_xml"),
            "{events:?}"
        );
        assert!(events_in_line(b"garbage").is_empty());
    }

    #[test]
    fn reads_the_errors_of_a_refused_document() {
        let line = br#"{"at":5,"input":{"fact":"timer"},"outputs":[{"wish":"findings","findings":[
            {"rule":"W304","severity":"warning","line":1,"column":3,"message":"a","hint":""},
            {"rule":"E202","severity":"error","line":2,"column":3,"message":"Spek is no element","hint":"write Speak"}]}]}"#;
        let error = NodeEvent::Finding {
            rule: "E202".to_owned(),
            line: 2,
            message: "Spek is no element".to_owned(),
        };
        assert_eq!(events_in_line(line), [error]);
    }

    #[test]
    fn reads_what_is_spoken_and_played() {
        let line = br#"{"at":5,"input":{"fact":"timer"},"outputs":[
            {"wish":"media","leg":"a","order":{"order":"play","play":1,"items":[
                {"sound":{"sound":"speak","speech":[{"text":"Press "},{"tag":{"name":"emphasis","attributes":[],
                    "content":[{"text":"one"}]}},{"break":{"millis":200}},{"text":"now."}]},"repeat":{"times":1}},
                {"sound":{"sound":"silence","ms":500}},
                {"sound":{"sound":"file","url":"https://example.com/a.wav"}}]}},
            {"wish":"media","leg":"a","order":{"order":"stop","play":1}}]}"#;
        let texts = ["Press one … now.", "https://example.com/a.wav"];
        let texts = texts.map(|text| NodeEvent::Sound { text: text.to_owned() });
        assert_eq!(events_in_line(line), texts);
    }
}
