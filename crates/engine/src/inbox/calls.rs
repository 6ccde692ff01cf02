//! Reports calls to conversations and webhooks: the events `call.started`, `call.answered`,
//! `call.ended` and `call.missed`, and one timeline entry per ended call with the transcript of its
//! AI agent.

use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use super::events::{WebhookEvents, event_ids};
use super::numbers::ServedNumbers;
use super::timeline::Timeline;
use crate::admission::{Directory, NumberEntry};
use crate::call::author::DialogueLine;
use crate::call::news::{CallNews, EndedCall};
use machine::{CallSetup, CallTime};
use model::{CallType, CallUuid, Direction, MessageStatus, Timestamp, stable_id};
use store::{CallStart, NewCallback, NewMessage, Pair, TimelineEntry, UserName};

/// The webhook events of a call. Their ids derive from the call's id.
const EVENTS: [&str; 4] = ["call.started", "call.answered", "call.missed", "call.ended"];

/// A call with a WhatsApp user, with its number and conversation.
struct UserCall {
    number: Arc<NumberEntry>,
    pair: Pair,
}

/// Reports the calls of this node.
pub struct CallReports {
    pub(super) directory: Arc<Directory>,
    pub(super) numbers: Arc<ServedNumbers>,
    pub(super) events: Arc<WebhookEvents>,
    pub(super) timeline: Arc<Timeline>,
}

impl CallReports {
    fn user_call(&self, setup: &CallSetup) -> Option<UserCall> {
        if setup.call_type != CallType::Whatsapp {
            return None;
        }
        // The number may have moved to another account during the call. Its new owner must not read
        // the earlier conversation.
        let number = self.directory.number(&setup.phone_number_id)?;
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
        known.then(|| UserCall { pair: self.numbers.pair(&number, user), number })
    }

    /// The id of a call's timeline entry.
    pub fn timeline_id(call: CallUuid) -> Uuid {
        stable_id("call", &[&call.to_string()])
    }

    /// The conversation of a user's call, and the ids of its webhook events. `None` if the number
    /// is no longer served.
    pub fn webhook_events(&self, call: &CallStart) -> Option<(Uuid, Vec<Uuid>)> {
        let user = match call.direction {
            Direction::Inbound => &call.from,
            Direction::Outbound => &call.to,
        };
        let tables = self.directory.tables();
        let number = tables
            .number(&call.phone_number_id)
            .or_else(|| tables.by_first_id(&call.phone_number_id))?;
        let conversation = self.numbers.conversation_of(number, user);
        let id = call.call.to_string();
        let event = |kind: &&str| event_ids(&number.spec.first_id, &[*kind, &id])[0];
        Some((conversation, EVENTS.iter().map(event).collect()))
    }

    fn event(
        &self,
        call: &UserCall,
        setup: &CallSetup,
        kind: &str,
        more: &Value,
    ) -> Option<NewCallback> {
        let data = || {
            let mut object = json!({
                "uuid": setup.call,
                "direction": setup.direction,
                "from": setup.from,
                "to": setup.to,
                "startedAt": setup.started.to_string(),
            });
            if let (Some(members), Value::Object(more)) = (object.as_object_mut(), more) {
                members.extend(more.clone());
            }
            json!({"conversation": call.pair.conversation, "call": object, "user": call.pair.user.shown()})
        };
        let id = setup.call.to_string();
        self.events.number_event(&call.number, kind, &[kind, &id], data, call.pair.conversation)
    }
}

impl CallNews for CallReports {
    fn conversation(&self, setup: &CallSetup) -> Option<Uuid> {
        Some(self.user_call(setup)?.pair.conversation)
    }

    fn started(&self, setup: &CallSetup) {
        let Some(call) = self.user_call(setup) else { return };
        if let Some(event) = self.event(&call, setup, "call.started", &Value::Null) {
            self.events.send_event(event);
        }
    }

    fn answered(&self, setup: &CallSetup, at: Timestamp) {
        let Some(call) = self.user_call(setup) else { return };
        if let Some(event) =
            self.event(&call, setup, "call.answered", &json!({"answeredAt": at.to_string()}))
        {
            self.events.send_event(event);
        }
    }

    fn ended(&self, ended: EndedCall<'_>) -> Vec<NewCallback> {
        let EndedCall { setup, summary, dialogue, phones_unanswered, needs_person, was_placed } =
            ended;
        let Some(call) = self.user_call(setup) else { return Vec::new() };
        let time = |at: CallTime| setup.started.plus(std::time::Duration::from_millis(at.0));
        let missed = setup.direction == Direction::Inbound && summary.answered.is_none();
        let phones_unanswered =
            phones_unanswered && !missed && setup.direction == Direction::Inbound;
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
            (_, Direction::Inbound, _) if phones_unanswered => {
                format!("Call from the user, {} s, phones not answered", summary.bill_secs)
            }
            (_, Direction::Inbound, _) => format!("Call from the user, {} s", summary.bill_secs),
            (_, Direction::Outbound, true) => format!("Call to the user, {} s", summary.bill_secs),
            (_, Direction::Outbound, false) => "Call to the user, not answered".to_owned(),
        };
        let text = if needs_person { format!("{text}, a person is needed") } else { text };
        let mut content = more.clone();
        if let Some(members) = content.as_object_mut() {
            members.insert("uuid".to_owned(), json!(setup.call));
            members.insert("text".to_owned(), json!(text));
            if phones_unanswered {
                members.insert("phonesUnanswered".to_owned(), json!(true));
            }
            if needs_person {
                members.insert("needsPerson".to_owned(), json!(true));
            }
            if !dialogue.is_empty() {
                let line = |line: &DialogueLine| json!({"role": line.role, "text": line.text, "at": line.at});
                members.insert("transcript".to_owned(), dialogue.iter().map(line).collect());
            }
        }
        let came = TimelineEntry {
            pair: call.pair.clone(),
            message: NewMessage {
                id: Self::timeline_id(setup.call),
                wamid: None,
                direction: setup.direction,
                kind: "call".to_owned(),
                text,
                content: json!({ "call": content }),
                status: MessageStatus::Received,
                sender: None,
                at: time(summary.ended),
            },
            // A call from the user opens Meta's 24-hour customer service window, as a message does.
            inbound_at: (setup.direction == Direction::Inbound).then_some(setup.started),
            counts: missed || phones_unanswered || needs_person,
            routing: self.numbers.routing_of(&call.number),
            draft: None,
            turn: None,
        };
        // The user does not know of a call that was never placed.
        if was_placed && self.timeline.add(&call.number, came).is_err() {
            tracing::warn!(call_uuid = %setup.call, "store queue full; call not added to its conversation");
        }
        let kinds = if missed { &["call.missed", "call.ended"][..] } else { &["call.ended"] };
        kinds.iter().filter_map(|kind| self.event(&call, setup, kind, &more)).collect()
    }
}
