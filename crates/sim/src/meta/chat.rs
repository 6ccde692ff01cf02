//! Messages between simulated users and business numbers (M22): what a user writes goes out as a webhook, what the
//! business sends is shown to the user and has its statuses. Refusals and failures can be ordered.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use base64::Engine as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::body;
use super::graph::GraphFault;
use super::messages::user_of;
use crate::world::SimNumber;
use crate::{World, locked};

/// Messages kept for who looks; the oldest go first.
const SHOWN_MAX: usize = 10_000;
/// Files kept, and the largest.
const FILES_MAX: usize = 100;
const FILE_BYTES_MAX: usize = 16 << 20;
const ALL_FILES_BYTES_MAX: usize = 256 << 20;
/// How long after a user's last word or call the business may write what it likes (§4.3), in seconds.
const WINDOW: i64 = 86_400;
/// Pairs of number and user whose windows are kept.
const WINDOWS_MAX: usize = 100_000;
/// Ordered failures that wait.
const ORDERED_MAX: usize = 1_000;
/// A message's steps, one after another.
const STEPS: [(&str, Duration); 3] = [
    ("sent", Duration::from_millis(20)),
    ("delivered", Duration::from_millis(20)),
    ("read", Duration::from_millis(40)),
];

/// `POST /_sim/messages`: what a user sends. Number and user are the usual ones where they are left out.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct MessageOrder {
    pub(crate) phone_number_id: Option<String>,
    pub(crate) from: Option<String>,
    pub(crate) name: Option<String>,
    /// Meta's id; the same one twice is a copy.
    pub(crate) id: Option<String>,
    /// `{"type", …}` as §3.5 has it; or a text.
    pub(crate) message: Value,
    /// The bytes of a file, in Base64: the message's type holds its id then.
    pub(crate) file: Option<String>,
}

/// `POST /_sim/messages/failures`: what becomes of the next messages to a user.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FailureOrder {
    /// Of this user's messages only.
    #[serde(default)]
    pub(crate) user: Option<String>,
    pub(crate) code: i64,
    #[serde(default)]
    pub(crate) details: String,
    /// Graph takes the message, and it fails later.
    #[serde(default)]
    pub(crate) later: bool,
    #[serde(default = "once")]
    pub(crate) times: u32,
}

fn once() -> u32 {
    1
}

/// A message as the user's phone shows it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Shown {
    pub(crate) id: String,
    pub(crate) phone_number_id: String,
    pub(crate) user: String,
    /// The business sent it.
    pub(crate) by_business: bool,
    pub(crate) message: Value,
}

struct File {
    mime: String,
    bytes: Bytes,
}

/// All of it.
#[derive(Default)]
pub(crate) struct Chat {
    shown: Mutex<VecDeque<Shown>>,
    files: Mutex<BTreeMap<String, File>>,
    failures: Mutex<Vec<FailureOrder>>,
    /// When a user last wrote to or called a number, by its id and theirs.
    heard: Mutex<BTreeMap<(String, String), i64>>,
}

impl Chat {
    /// A user wrote or called.
    pub(crate) fn hears(&self, number: &str, user: &str, now: i64) {
        let mut heard = locked(&self.heard);
        if heard.len() >= WINDOWS_MAX {
            heard.retain(|_, at| now - *at < WINDOW);
        }
        while heard.len() >= WINDOWS_MAX {
            heard.pop_first();
        }
        heard.insert((number.to_owned(), user.to_owned()), now);
    }

    /// Whether more than a template may be sent to a user.
    fn is_open(&self, number: &str, user: &str, now: i64) -> bool {
        let key = (number.to_owned(), user.to_owned());
        locked(&self.heard).get(&key).is_some_and(|at| now - at < WINDOW)
    }

    fn show(&self, shown: Shown) {
        let mut all = locked(&self.shown);
        if all.len() >= SHOWN_MAX {
            all.pop_front();
        }
        all.push_back(shown);
    }

    pub(crate) fn shown(&self) -> Vec<Shown> {
        locked(&self.shown).iter().cloned().collect()
    }

    pub(crate) fn order_failure(&self, mut order: FailureOrder) -> Result<(), String> {
        order.user = order.user.as_deref().map(user_of);
        let mut failures = locked(&self.failures);
        if failures.len() >= ORDERED_MAX {
            return Err("as many failures wait as may".to_owned());
        }
        failures.push(order);
        Ok(())
    }

    /// The failure that was ordered for this message, if one was.
    fn failure(&self, user: &str) -> Option<FailureOrder> {
        let mut failures = locked(&self.failures);
        let at = failures
            .iter()
            .position(|f| f.times > 0 && f.user.as_deref().is_none_or(|of| of == user))?;
        let found = failures[at].clone();
        failures[at].times -= 1;
        failures.retain(|f| f.times > 0);
        Some(found)
    }

    /// What Graph says of a file (§4.5).
    pub(crate) fn file(&self, id: &str, base: &str) -> Option<Value> {
        let files = locked(&self.files);
        let file = files.get(id)?;
        Some(json!({
            "url": format!("{base}/_sim/media/{id}"),
            "mime_type": file.mime,
            "sha256": sum(&file.bytes),
            "file_size": file.bytes.len(),
            "id": id,
            "messaging_product": "whatsapp",
        }))
    }

    /// Keeps a file, whoever it is from; gives its id.
    pub(super) fn keep(&self, rolled: u64, mime: String, bytes: Bytes) -> String {
        let id = (rolled % 9_000_000_000_000 + 1_000_000_000_000).to_string();
        let mut files = locked(&self.files);
        let held = |files: &BTreeMap<String, File>| {
            files.values().map(|file| file.bytes.len()).sum::<usize>()
        };
        while files.len() >= FILES_MAX
            || (!files.is_empty() && held(&files) + bytes.len() > ALL_FILES_BYTES_MAX)
        {
            files.pop_first();
        }
        files.insert(id.clone(), File { mime, bytes });
        id
    }

    pub(crate) fn bytes(&self, id: &str) -> Option<(String, Bytes)> {
        locked(&self.files).get(id).map(|file| (file.mime.clone(), file.bytes.clone()))
    }
}

fn sum(bytes: &[u8]) -> String {
    hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes))
}

impl World {
    /// Whether the business may send a user what is no template. Whose a business-scoped id is, is not known here.
    pub(super) fn may_write(&self, number: &str, user: &str) -> Result<(), GraphFault> {
        let named = user.bytes().all(|b| b.is_ascii_digit());
        let now = self.clock.wall().secs();
        if !named || self.permissions.allows_messages() || self.chat.is_open(number, user, now) {
            return Ok(());
        }
        let details = "Message failed to send because more than 24 hours have passed since the customer last replied to \
            this number.";
        Err(GraphFault { status: 400, code: 131_047, subcode: None, details: details.to_owned() })
    }

    /// A user sends a message; gives its id once it is on its way.
    pub(crate) async fn user_writes(
        self: &Arc<Self>,
        order: MessageOrder,
    ) -> Result<String, String> {
        let id = order.phone_number_id.as_deref().unwrap_or(crate::world::PHONE_NUMBER_ID);
        let number = self
            .number_of_id(id)
            .ok_or_else(|| format!("the simulated Meta has no number {id}"))?;
        let user = order.from.map_or_else(|| crate::world::USER.to_owned(), |from| user_of(&from));
        let name = order.name.unwrap_or_else(|| crate::world::USER_NAME.to_owned());
        let mut message = match order.message {
            Value::String(text) => json!({"type": "text", "text": {"body": text}}),
            message if message["type"].is_string() => message,
            _ => return Err("message must be a text, or an object with a type".to_owned()),
        };
        if let Some(file) = &order.file {
            self.keep_file(&mut message, file)?;
        }
        let wamid = order.id.unwrap_or_else(|| format!("wamid.{}", self.dice.text(40)));
        let door = self.usual_door().ok_or("the simulator was not told where the node is")?;
        self.webhooks.verify(&door).await?;
        let said = body::Message {
            number: &number,
            user: &user,
            user_name: &name,
            id: &wamid,
            at_secs: self.clock.wall().secs(),
        };
        self.chat.hears(id, &user, said.at_secs);
        let parcel = self.webhooks.parcel(
            &door,
            "message",
            "",
            &body::message(&said, message.clone()),
            None,
        );
        self.webhooks.deliver(&door, parcel, Duration::ZERO, |_| {});
        self.chat.show(Shown {
            id: wamid.clone(),
            phone_number_id: id.to_owned(),
            user,
            by_business: false,
            message,
        });
        Ok(wamid)
    }

    fn keep_file(&self, message: &mut Value, file: &str) -> Result<(), String> {
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(file)
            .map_err(|e| format!("file: {e}"))?;
        if bytes.len() > FILE_BYTES_MAX {
            return Err("the file is larger than 16 MiB".to_owned());
        }
        let kind = message["type"].as_str().unwrap_or_default().to_owned();
        let mime =
            message[&kind]["mime_type"].as_str().unwrap_or("application/octet-stream").to_owned();
        if !message[&kind].is_object() {
            message[&kind] = json!({});
        }
        message[&kind]["mime_type"] = json!(mime);
        message[&kind]["sha256"] = json!(sum(&bytes));
        message[&kind]["id"] = json!(self.chat.keep(self.dice.number(), mime, bytes.into()));
        Ok(())
    }

    /// The business sends a message that Graph takes, unless a refusal was ordered. Its statuses follow.
    pub(super) fn business_writes(
        &self,
        number: &str,
        user: &str,
        id: &str,
        message: &Value,
    ) -> Result<(), GraphFault> {
        let failure = self.chat.failure(user);
        if let Some(failure) = failure.as_ref().filter(|failure| !failure.later) {
            return Err(GraphFault {
                status: 400,
                code: failure.code,
                subcode: None,
                details: failure.details.clone(),
            });
        }
        let shown = Shown {
            id: id.to_owned(),
            phone_number_id: number.to_owned(),
            user: user.to_owned(),
            by_business: true,
            message: message.clone(),
        };
        self.chat.show(shown);
        let (Some(door), Some(number)) = (self.usual_door(), self.number_of_id(number)) else {
            return Ok(());
        };
        let opaque = message["biz_opaque_callback_data"].as_str();
        let mut delay = Duration::ZERO;
        let steps: &[(&str, Duration)] = match failure {
            Some(_) => &[("sent", STEPS[0].1), ("failed", STEPS[1].1)],
            None => &STEPS,
        };
        for (word, pause) in steps {
            delay += *pause;
            let failed = failure
                .as_ref()
                .filter(|_| *word == "failed")
                .map(|f| (f.code, f.details.as_str()));
            let at = self.clock.wall().secs();
            let body = status(&number, user, id, word, at, opaque, failed);
            let parcel = self.webhooks.parcel(&door, "message_status", "", &body, None);
            self.webhooks.deliver(&door, parcel, delay, |_| {});
        }
        Ok(())
    }
}

/// A message's status (§3.5).
fn status(
    number: &SimNumber,
    user: &str,
    id: &str,
    word: &str,
    at: i64,
    opaque: Option<&str>,
    failed: Option<(i64, &str)>,
) -> Value {
    let mut status =
        json!({"id": id, "status": word, "timestamp": at.to_string(), "recipient_id": user});
    if let Some(opaque) = opaque {
        status["biz_opaque_callback_data"] = json!(opaque);
    }
    if let Some((code, details)) = failed {
        let error = json!({"code": code, "title": details, "message": details, "error_data": {"details": details}});
        status["errors"] = json!([error]);
    }
    body::message_status(number, status)
}
