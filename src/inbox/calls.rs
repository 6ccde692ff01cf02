//! Calls, as far as conversations and webhooks hear of them: `call.started`, `call.answered`, `call.ended`,
//! `call.missed`, and a line in the user's timeline when one is over,
//! with what an agent and the user said in it.

use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use super::Inbox;
use super::incoming::report_ids;
use crate::admission::NumberEntry;
use crate::call::author::SaidLine;
use crate::call::news::CallNews;
use machine::{CallSetup, CallTime, Summary};
use model::{CallType, CallUuid, Direction, MessageStatus, Timestamp, stable_id};
use store::{CallStart, NewCallback, NewMessage, Pair, TimelineEntry, UserName};

/// What webhooks hear of a call; the ids of these events are made of the call's.
const EVENTS: [&str; 4] = ["call.started", "call.answered", "call.missed", "call.ended"];

/// A call of a WhatsApp user.
struct Of {
    number: Arc<NumberEntry>,
    pair: Pair,
}

impl Inbox {
    fn of(&self, setup: &CallSetup) -> Option<Of> {
        if setup.call_type != CallType::Whatsapp {
            return None;
        }
        // What was said while it was another's is not the next owner's to read.
        let number = self.parts().directory.number(&setup.phone_number_id)?;
        if number.account.auth_id != setup.account {
            return None;
        }
        let user = match setup.direction {
            Direction::Inbound => &setup.from,
            Direction::Outbound => &setup.to,
        };
        let known = user.bytes().all(|b| b.is_ascii_digit()) || user.contains('.');
        let name = if setup.direction == Direction::Inbound {
            setup.caller_name.clone()
        } else {
            String::new()
        };
        let user = UserName { id: user.clone(), bsuid: None, name };
        known.then(|| Of { pair: self.pair(&number, user), number })
    }

    /// The id of a call's line in the timeline.
    pub fn line_of(call: CallUuid) -> Uuid {
        stable_id("call", &[&call.to_string()])
    }

    /// The conversation that a user's call was in, and the ids of what webhooks hear of it. `None`: its number is not served.
    pub fn told_of_call(&self, call: &CallStart) -> Option<(Uuid, Vec<Uuid>)> {
        let user = match call.direction {
            Direction::Inbound => &call.from,
            Direction::Outbound => &call.to,
        };
        let tables = self.parts().directory.tables();
        let number = tables
            .number(&call.phone_number_id)
            .or_else(|| tables.by_mail_id(&call.phone_number_id))?;
        let conversation = self.conversation_of(number, user);
        let id = call.call.to_string();
        let event = |kind: &&str| report_ids(&number.spec.mail_id, &[*kind, &id])[0];
        Some((conversation, EVENTS.iter().map(event).collect()))
    }

    fn event(&self, of: &Of, setup: &CallSetup, kind: &str, more: &Value) -> Option<NewCallback> {
        let data = || {
            let mut call = json!({
                "uuid": setup.call,
                "direction": setup.direction,
                "from": setup.from,
                "to": setup.to,
                "startedAt": setup.started.to_string(),
            });
            if let (Some(members), Value::Object(more)) = (call.as_object_mut(), more) {
                members.extend(more.clone());
            }
            json!({"conversation": of.pair.conversation, "call": call, "user": of.pair.user.shown()})
        };
        let id = setup.call.to_string();
        self.number_event(&of.number, kind, &[kind, &id], data, of.pair.conversation)
    }
}

impl CallNews for Inbox {
    fn started(&self, setup: &CallSetup) {
        let Some(of) = self.of(setup) else { return };
        if let Some(event) = self.event(&of, setup, "call.started", &Value::Null) {
            self.tell_soon(event);
        }
    }

    fn answered(&self, setup: &CallSetup, at: Timestamp) {
        let Some(of) = self.of(setup) else { return };
        if let Some(event) =
            self.event(&of, setup, "call.answered", &json!({"answeredAt": at.to_string()}))
        {
            self.tell_soon(event);
        }
    }

    fn ended(&self, setup: &CallSetup, summary: &Summary, said: &[SaidLine]) -> Vec<NewCallback> {
        let Some(of) = self.of(setup) else { return Vec::new() };
        let time = |at: CallTime| setup.started.plus(std::time::Duration::from_millis(at.0));
        let missed = setup.direction == Direction::Inbound && summary.answered.is_none();
        let more = json!({
            "answeredAt": summary.answered.map(|at| time(at).to_string()),
            "endedAt": time(summary.ended).to_string(),
            "durationSeconds": summary.duration_secs,
            "billSeconds": summary.bill_secs,
            "cause": summary.cause.as_str(),
            "missed": missed,
        });
        let text = match (missed, setup.direction, summary.answered.is_some()) {
            (true, ..) => "Missed call".to_owned(),
            (_, Direction::Inbound, _) => format!("Call from the user, {} s", summary.bill_secs),
            (_, Direction::Outbound, true) => format!("Call to the user, {} s", summary.bill_secs),
            (_, Direction::Outbound, false) => "Call to the user, not answered".to_owned(),
        };
        let mut content = more.clone();
        if let Some(members) = content.as_object_mut() {
            members.insert("uuid".to_owned(), json!(setup.call));
            members.insert("text".to_owned(), json!(text));
            if !said.is_empty() {
                let line =
                    |line: &SaidLine| json!({"role": line.role, "text": line.text, "at": line.at});
                members.insert("transcript".to_owned(), said.iter().map(line).collect());
            }
        }
        let came = TimelineEntry {
            pair: of.pair.clone(),
            message: NewMessage {
                id: Self::line_of(setup.call),
                wamid: None,
                direction: setup.direction,
                kind: "call".to_owned(),
                text,
                content: json!({ "call": content }),
                status: MessageStatus::Received,
                sender: None,
                at: time(summary.ended),
            },
            // A user's call opens the 24 hours as a message does (`meta-calling.md` §4.3).
            heard: (setup.direction == Direction::Inbound).then_some(setup.started),
            counts: missed,
            routing: self.routing_of(&of.number),
            draft: None,
            turn: None,
        };
        if self.take(&of.number, came).is_err() {
            tracing::warn!(call_uuid = %setup.call, "there is no room for a call's line in its conversation");
        }
        let kinds = if missed { &["call.missed", "call.ended"][..] } else { &["call.ended"] };
        kinds.iter().filter_map(|kind| self.event(&of, setup, kind, &more)).collect()
    }
}
