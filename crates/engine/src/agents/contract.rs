//! What an agent is asked and what it replies: the JSON contract of `number-api.md` §3, pure. Whatever it replies is
//! bounded here; what is none of it is a fault of the agent's, in words.

use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

/// Items of a reply at most, and bytes of one.
pub const ITEMS_MAX: usize = 10;
const ITEM_BYTES_MAX: usize = 16 * 1024;
/// Characters of an endpoint's name.
const NAME_MAX: usize = 100;

/// One turn of a conversation, as the agent is asked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Question {
    pub conversation: Uuid,
    /// Of a call; none: it is a message.
    pub call: Option<Uuid>,
    pub number: String,
    pub user: User,
    pub channel: Channel,
    /// From 1.
    pub turn: u64,
    pub input: Said,
    /// Oldest first, without `input`.
    pub history: Vec<Line>,
}

/// Who speaks with the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    pub wa_id: String,
    /// Business-scoped.
    pub user_id: Option<String>,
    pub name: String,
}

/// How.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    Message,
    Call,
}

/// What the user wrote or said.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Said {
    /// The message's type; of a call `start`, `speech` or `digits`.
    #[serde(rename = "type")]
    pub kind: String,
    pub text: String,
    /// As a webhook gets it.
    pub media: Value,
    pub digits: Option<String>,
    pub speech: Option<String>,
}

/// A line of the conversation so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    pub role: Role,
    pub text: String,
    /// RFC 3339.
    pub at: String,
}

/// Whose line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    User,
    Assistant,
}

impl Role {
    /// The word in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// What is to be done beside what is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A person is wanted.
    Escalate,
    /// The conversation is closed.
    Close,
    Hangup,
    /// To an endpoint, by its name.
    Transfer(String),
}

/// A piece of a reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// Text as it comes: joined to what came before.
    Text(String),
    /// A message of its own, as `POST …/messages/` takes it.
    Item(Map<String, Value>),
    Act(Action),
}

/// A whole reply.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reply {
    /// Messages, as `POST …/messages/` takes them.
    pub items: Vec<Map<String, Value>>,
    pub action: Option<Action>,
}

impl Reply {
    /// Adds a piece; `max`: characters of all its text.
    ///
    /// # Errors
    /// More items than there may be.
    pub fn add(&mut self, piece: Piece, max: usize) -> Result<(), String> {
        match piece {
            Piece::Act(action) => self.action = Some(action),
            Piece::Text(text) => {
                match self.items.last_mut().and_then(|last| last.get_mut("text")) {
                    Some(Value::String(so_far)) => so_far.push_str(&text),
                    _ => self.items.push(text_item(text)),
                }
            }
            Piece::Item(item) if self.items.len() < ITEMS_MAX => self.items.push(item),
            Piece::Item(_) => return Err(format!("a reply has more than {ITEMS_MAX} items")),
        }
        self.shorten(max);
        Ok(())
    }

    /// What is said.
    pub fn text(&self) -> String {
        let texts = self.items.iter().filter_map(text_of).filter(|text| !text.trim().is_empty());
        texts.collect::<Vec<_>>().join("\n")
    }

    fn shorten(&mut self, max: usize) {
        let mut left = max;
        for item in &mut self.items {
            if let Some(Value::String(text)) = item.get_mut("text") {
                if let Some((end, _)) = text.char_indices().nth(left) {
                    text.truncate(end);
                }
                left = left.saturating_sub(text.chars().count());
            }
        }
        self.items.retain(|item| text_of(item).is_none_or(|text| !text.is_empty()));
    }
}

/// A text message.
pub fn text_item(text: impl Into<String>) -> Map<String, Value> {
    let mut item = Map::new();
    item.insert("type".to_owned(), "text".into());
    item.insert("text".to_owned(), text.into().into());
    item
}

/// The text of an item that is one.
pub fn text_of(item: &Map<String, Value>) -> Option<&str> {
    item.get("text")
        .and_then(Value::as_str)
        .filter(|_| item.get("type").is_some_and(|kind| kind == "text"))
}

/// Reads a reply, or one event's data of a stream: `{"reply":[…],"action":…}`, or an item alone.
///
/// # Errors
/// What is wrong with it.
pub fn read(bytes: &[u8]) -> Result<Vec<Piece>, String> {
    let value: Value =
        serde_json::from_slice(bytes).map_err(|e| format!("the reply is no JSON: {e}"))?;
    let Value::Object(mut object) = value else {
        return Err("the reply is no JSON object".to_owned());
    };
    if object.contains_key("type") {
        return Ok(vec![item(Value::Object(object))?]);
    }
    let mut pieces = Vec::new();
    match object.remove("reply") {
        None | Some(Value::Null) => {}
        Some(Value::Array(items)) if items.len() <= ITEMS_MAX => {
            for value in items {
                pieces.push(item(value)?);
            }
        }
        Some(Value::Array(_)) => return Err(format!("`reply` has more than {ITEMS_MAX} items")),
        Some(_) => return Err("`reply` is no list".to_owned()),
    }
    pieces.extend(action(object.remove("action").unwrap_or_default())?.map(Piece::Act));
    Ok(pieces)
}

fn item(value: Value) -> Result<Piece, String> {
    if value.to_string().len() > ITEM_BYTES_MAX {
        return Err(format!("an item of `reply` has more than {ITEM_BYTES_MAX} bytes"));
    }
    match value {
        Value::Object(item) => match item.get("type") {
            Some(Value::String(kind))
                if kind == "text" && !item.get("text").is_some_and(Value::is_string) =>
            {
                Err("an item of type text has no `text`".to_owned())
            }
            // As Meta has it: what it holds stands under the name of its type.
            Some(Value::String(kind))
                if kind != "text" && !item.get(kind).is_some_and(|held| holds(kind, held)) =>
            {
                Err(format!(
                    "an item of type {kind} can't be sent: it is none of Meta's types, or has no `{kind}`"
                ))
            }
            Some(Value::String(_)) => Ok(Piece::Item(item)),
            _ => Err("an item of `reply` has no `type`".to_owned()),
        },
        _ => Err("an item of `reply` is no object".to_owned()),
    }
}

/// Whether that is what a message of a type holds (the Cloud API's message object).
fn holds(kind: &str, held: &Value) -> bool {
    match kind {
        "contacts" => held.is_array(),
        "image" | "audio" | "video" | "document" | "sticker" | "location" | "interactive"
        | "template" | "reaction" => held.is_object(),
        _ => false,
    }
}

fn action(value: Value) -> Result<Option<Action>, String> {
    match value {
        Value::Null => Ok(None),
        Value::String(word) => match word.as_str() {
            "escalate" => Ok(Some(Action::Escalate)),
            "close" => Ok(Some(Action::Close)),
            "hangup" => Ok(Some(Action::Hangup)),
            _ => Err("`action` is none of escalate, close, hangup, {\"transfer\":\"sip:NAME\"}"
                .to_owned()),
        },
        Value::Object(object) => {
            let to = object
                .get("transfer")
                .and_then(Value::as_str)
                .and_then(|to| to.strip_prefix("sip:"));
            let name = to.map(|to| to.split('@').next().unwrap_or_default());
            let usable = |name: &&str| {
                (1..=NAME_MAX).contains(&name.len())
                    && name
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
            };
            let name =
                name.filter(usable).ok_or("`action.transfer` is no \"sip:NAME\" of an endpoint")?;
            Ok(Some(Action::Transfer(name.to_owned())))
        }
        _ => Err("`action` is no word and no object".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reply(pieces: Vec<Piece>) -> Reply {
        let mut reply = Reply::default();
        pieces.into_iter().for_each(|piece| reply.add(piece, 20).unwrap());
        reply
    }

    #[test]
    fn a_question_is_as_it_is_documented() {
        let question = Question {
            conversation: Uuid::nil(),
            call: Some(Uuid::max()),
            number: "918035737458".to_owned(),
            user: User { wa_id: "919412341234".to_owned(), user_id: None, name: "Asha".to_owned() },
            channel: Channel::Call,
            turn: 2,
            input: Said {
                kind: "digits".to_owned(),
                digits: Some("12".to_owned()),
                ..Said::default()
            },
            history: vec![Line {
                role: Role::Assistant,
                text: "Hello".to_owned(),
                at: "2026-01-01T00:00:00.000Z".to_owned(),
            }],
        };
        let want = json!({
            "conversation": Uuid::nil(), "call": Uuid::max(), "number": "918035737458",
            "user": {"waId": "919412341234", "userId": null, "name": "Asha"}, "channel": "call", "turn": 2,
            "input": {"type": "digits", "text": "", "media": null, "digits": "12", "speech": null},
            "history": [{"role": "assistant", "text": "Hello", "at": "2026-01-01T00:00:00.000Z"}],
        });
        assert_eq!(serde_json::to_value(question).unwrap(), want);
    }

    #[test]
    fn replies_are_read_within_their_bounds() {
        let read = |value: Value| super::read(value.to_string().as_bytes());
        let two = json!({"reply": [{"type": "text", "text": "One"}, {"type": "image", "image": {"link": "x"}}], "action": "close"});
        let two = reply(read(two).unwrap());
        assert_eq!(
            (two.items.len(), two.text().as_str(), two.action),
            (2, "One", Some(Action::Close))
        );
        assert_eq!(read(json!({})).unwrap(), []);
        assert_eq!(read(json!({"reply": null, "action": null})).unwrap(), []);
        let transfer = |to: &str| read(json!({"action": {"transfer": to}}));
        assert_eq!(
            transfer("sip:asha@host").unwrap(),
            [Piece::Act(Action::Transfer("asha".to_owned()))]
        );
        assert_eq!(
            read(json!({"type": "text", "text": "x"})).unwrap(),
            [Piece::Item(text_item("x"))]
        );
        for wrong in ["sip:", "asha", "sip:a b", "sip:a<b"] {
            assert!(transfer(wrong).is_err(), "{wrong}");
        }
        let many: Vec<Value> =
            (0..=ITEMS_MAX).map(|_| json!({"type": "text", "text": "x"})).collect();
        for wrong in [
            json!([]),
            json!({"reply": "Hello"}),
            json!({"reply": ["Hello"]}),
            json!({"reply": [{"text": "Hello"}]}),
            json!({"reply": [{"type": "text"}]}),
            json!({"reply": [{"type": "image", "link": "https://a.example.com/x.png"}]}),
            json!({"reply": [{"type": "dance", "dance": {}}]}),
            json!({"reply": [{"type": "text", "text": "x".repeat(ITEM_BYTES_MAX)}]}),
            json!({ "reply": many }),
            json!({"action": "dance"}),
            json!({"action": 7}),
        ] {
            assert!(read(wrong.clone()).is_err(), "{wrong}");
        }
        assert!(super::read(b"<html>").is_err());
    }

    #[test]
    fn text_is_joined_and_cut() {
        let pieces = ["Hel", "lo. ", "How are you today?"].map(|text| Piece::Text(text.to_owned()));
        assert_eq!(reply(pieces.into()).text(), "Hello. How are you t");
        let items = ["x".repeat(15), "y".repeat(15), "z".to_owned()]
            .map(|text| Piece::Item(text_item(text)));
        let cut = reply(items.into());
        assert_eq!(
            (cut.items.len(), cut.text()),
            (2, format!("{}\n{}", "x".repeat(15), "y".repeat(5)))
        );
    }
}
