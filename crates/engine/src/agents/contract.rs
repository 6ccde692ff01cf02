//! The JSON contract between this node and an agent: the question, and the reply with its limits
//! (`docs/agents.md`). Pure.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::inbox::words;

/// The maximum number of items in a reply.
pub const ITEMS_MAX: usize = 10;
/// The maximum size of one item in bytes.
const ITEM_BYTES_MAX: usize = 16 * 1024;
/// The maximum length of an endpoint's name.
const NAME_MAX: usize = 100;

/// The question of a turn, in the form that an agent gets.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Question {
    pub conversation: Uuid,
    /// The call's id. `None` if the turn is about a message.
    pub call: Option<Uuid>,
    pub number: String,
    pub user: User,
    pub channel: Channel,
    /// The number of the turn, from 1.
    pub turn: u64,
    pub input: UserInput,
    /// Earlier lines of the conversation, oldest first, without `input`.
    pub history: Vec<Line>,
}

/// The user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    pub wa_id: String,
    /// The business-scoped user id.
    pub user_id: Option<String>,
    pub name: String,
}

/// The channel of a turn of an AI agent: a call or a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    Message,
    Call,
}

/// The user's input.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct UserInput {
    /// The message type; for a call `start`, `speech` or `digits`.
    #[serde(rename = "type")]
    pub kind: String,
    pub text: String,
    /// The file, in the same form as in webhooks.
    pub media: Value,
    pub digits: Option<String>,
    pub speech: Option<String>,
}

/// A line of the conversation's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    pub role: Role,
    pub text: String,
    /// The time in RFC 3339.
    pub at: String,
}

/// The speaker of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    User,
    Assistant,
}

impl Role {
    /// Returns the JSON value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// An action that an agent requests besides its reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Hand the conversation over to people.
    Escalate,
    /// Close the conversation.
    Close,
    Hangup,
    /// Transfer the call to the endpoint of this name.
    Transfer(String),
}

/// A piece of a reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// A fragment of streamed text, which is appended to the text before it.
    Text(String),
    /// A message in the format of `POST …/messages/`.
    Item(Map<String, Value>),
    Act(Action),
}

/// A complete reply.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// Messages in the format of `POST …/messages/`.
    pub items: Vec<Map<String, Value>>,
    pub action: Option<Action>,
}

impl Reply {
    /// Adds a piece. `max` limits the characters of all text together; excess text is cut off.
    ///
    /// # Errors
    /// Fails if there are too many items.
    pub fn add(&mut self, piece: Piece, max: usize) -> Result<(), String> {
        let texts = self.items.iter().filter_map(text_of);
        // Only the new text is cut, because a stream may have thousands of pieces.
        let room = max.saturating_sub(texts.map(|text| text.chars().count()).sum());
        match piece {
            Piece::Act(action) => self.action = Some(action),
            Piece::Text(mut text) => {
                shorten(&mut text, room);
                match self.items.last_mut().and_then(|last| last.get_mut("text")) {
                    Some(Value::String(so_far)) => so_far.push_str(&text),
                    _ if text.is_empty() => {}
                    _ => self.items.push(text_item(text)),
                }
            }
            Piece::Item(mut item) if self.items.len() < ITEMS_MAX => {
                if let Some(Value::String(text)) = item.get_mut("text") {
                    shorten(text, room);
                }
                if text_of(&item).is_none_or(|text| !text.is_empty()) {
                    self.items.push(item);
                }
            }
            Piece::Item(_) => return Err(format!("a reply has more than {ITEMS_MAX} items")),
        }
        Ok(())
    }

    /// The text of all items.
    pub fn text(&self) -> String {
        let texts = self.items.iter().filter_map(text_of).filter(|text| !text.trim().is_empty());
        texts.collect::<Vec<_>>().join("\n")
    }
}

/// Cuts a text after `max` characters.
fn shorten(text: &mut String, max: usize) {
    if let Some((end, _)) = text.char_indices().nth(max) {
        text.truncate(end);
    }
}

/// A text item.
pub fn text_item(text: impl Into<String>) -> Map<String, Value> {
    let mut item = Map::new();
    item.insert("type".to_owned(), "text".into());
    item.insert("text".to_owned(), text.into().into());
    item
}

/// The text of a text item. `None` for other types.
pub fn text_of(item: &Map<String, Value>) -> Option<&str> {
    item.get("text")
        .and_then(Value::as_str)
        .filter(|_| item.get("type").is_some_and(|kind| kind == "text"))
}

/// Parses a reply or the data of one server-sent event: either `{"reply":[…],"action":…}` or a
/// single item.
///
/// # Errors
/// Returns a description of the fault.
pub fn read(bytes: &[u8]) -> Result<Vec<Piece>, String> {
    let value: Value =
        serde_json::from_slice(bytes).map_err(|e| format!("the reply is not valid JSON: {e}"))?;
    let Value::Object(mut object) = value else {
        return Err("the reply is not a JSON object".to_owned());
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
        Some(_) => return Err("`reply` is not a list".to_owned()),
    }
    pieces.extend(action(object.remove("action").unwrap_or_default())?.map(Piece::Act));
    Ok(pieces)
}

/// Returns a key of a reply that has none of the known ones, such as a misspelt `reply`. The reply
/// counts as an empty one.
pub fn unknown_key(bytes: &[u8]) -> Option<String> {
    let object: Map<String, Value> = serde_json::from_slice(bytes).ok()?;
    let is_known = ["type", "reply", "action"].iter().any(|key| object.contains_key(*key));
    let key = object.keys().next().filter(|_| !is_known)?;
    Some(key.chars().filter(|c| !c.is_control()).take(64).collect())
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
            // As in Meta's API, the content stands under the name of the type.
            Some(Value::String(kind))
                if kind != "text" && !item.get(kind).is_some_and(|held| holds(kind, held)) =>
            {
                Err(format!(
                    "an item of type {kind} can't be sent: the type is unknown to Meta, or `{kind}` is missing"
                ))
            }
            Some(Value::String(kind)) if !has_web_link(&item, kind) => {
                Err(format!("`link` of an item of type {kind} is not an http or https URL"))
            }
            Some(Value::String(_)) => Ok(Piece::Item(item)),
            _ => Err("an item of `reply` has no `type`".to_owned()),
        },
        _ => Err("an item of `reply` is not an object".to_owned()),
    }
}

/// Returns whether `held` has the JSON type that Meta's Cloud API requires for this message type.
fn holds(kind: &str, held: &Value) -> bool {
    match kind {
        "contacts" => held.is_array(),
        "image" | "audio" | "video" | "document" | "sticker" | "location" | "interactive"
        | "template" | "reaction" => held.is_object(),
        _ => false,
    }
}

/// Whether the link to the item's file, if there is one, can be fetched by Meta.
fn has_web_link(item: &Map<String, Value>, kind: &str) -> bool {
    let link = item.get(kind).and_then(|file| file.get("link")).and_then(Value::as_str);
    !words::MEDIA.contains(&kind) || link.is_none_or(words::is_web_link)
}

fn action(value: Value) -> Result<Option<Action>, String> {
    match value {
        Value::Null => Ok(None),
        Value::String(word) => match word.as_str() {
            "escalate" => Ok(Some(Action::Escalate)),
            "close" => Ok(Some(Action::Close)),
            "hangup" => Ok(Some(Action::Hangup)),
            _ => Err(
                "`action` is not one of escalate, close, hangup and {\"transfer\":\"sip:NAME\"}"
                    .to_owned(),
            ),
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
            let name = name
                .filter(usable)
                .ok_or("`action.transfer` is not \"sip:NAME\" with an endpoint's name")?;
            Ok(Some(Action::Transfer(name.to_owned())))
        }
        _ => Err("`action` is neither a string nor an object".to_owned()),
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
    fn a_misspelt_reply_is_named() {
        for (json, key) in [
            (r#"{"replies": [{"type": "text", "text": "Hi"}]}"#, Some("replies")),
            ("{}", None),
            (r#"{"reply": [], "more": 1}"#, None),
            (r#"{"action": null, "more": 1}"#, None),
            (r#"{"type": "text", "text": ""}"#, None),
        ] {
            assert_eq!(unknown_key(json.as_bytes()).as_deref(), key, "{json}");
        }
    }

    #[test]
    fn serializes_the_documented_question() {
        let question = Question {
            conversation: Uuid::nil(),
            call: Some(Uuid::max()),
            number: "918035737458".to_owned(),
            user: User { wa_id: "919412341234".to_owned(), user_id: None, name: "Asha".to_owned() },
            channel: Channel::Call,
            turn: 2,
            input: UserInput {
                kind: "digits".to_owned(),
                digits: Some("12".to_owned()),
                ..UserInput::default()
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
    fn parses_replies_within_limits() {
        let read = |value: Value| super::read(value.to_string().as_bytes());
        let two = json!({"reply": [{"type": "text", "text": "One"}, {"type": "image", "image": {"link": "https://a.example.com/x.png"}}], "action": "close"});
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
            json!({"reply": [{"type": "image", "image": {"link": "javascript:alert(1)"}}]}),
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
