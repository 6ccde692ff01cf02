//! Messages between simulated users and business numbers. A user's message is sent as a webhook; a
//! message of the business is stored and followed by its statuses. Tests can make messages fail.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use base64::Engine as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::body;
use super::error::GraphError;
use crate::world::SimNumber;
use crate::world::user_of;
use crate::{World, locked};

/// Maximum number of stored messages. The oldest are dropped.
const MESSAGES_MAX: usize = 10_000;
/// Maximum number of stored files.
const FILES_MAX: usize = 100;
/// Maximum size of a stored file.
const FILE_BYTES_MAX: usize = 16 << 20;
/// Maximum size of all stored files.
const ALL_FILES_BYTES_MAX: usize = 256 << 20;
/// Customer service window: how long after a user's last message or call the business may send more
/// than templates, in seconds.
const WINDOW_SECS: i64 = 86_400;
/// Maximum number of pairs (business number and user) with a known window.
const WINDOWS_MAX: usize = 100_000;
/// Maximum number of pending failures.
const FAILURES_MAX: usize = 1_000;
/// Statuses of a message, and the pause before each.
const STATUS_STEPS: [(&str, Duration); 3] = [
    ("sent", Duration::from_millis(20)),
    ("delivered", Duration::from_millis(20)),
    ("read", Duration::from_millis(40)),
];

/// Body of `POST /_sim/messages`. Number and user default to the predefined ones.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct MessageRequest {
    pub(crate) phone_number_id: Option<String>,
    pub(crate) from: Option<String>,
    pub(crate) name: Option<String>,
    /// Meta's message id. Sending the same id twice simulates a duplicate.
    pub(crate) id: Option<String>,
    /// A text, or an object with a `type` as in Meta's webhooks.
    pub(crate) message: Value,
    /// Content of a media file in Base64. Its id is put into the message.
    pub(crate) file: Option<String>,
}

/// Body of `POST /_sim/messages/failures`: makes later messages of the business fail.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MessageFailure {
    /// Only messages to this user. `None` means all.
    #[serde(default)]
    pub(crate) user: Option<String>,
    pub(crate) code: i64,
    #[serde(default)]
    pub(crate) details: String,
    /// Whether Graph accepts the message and its status becomes `failed` afterwards.
    #[serde(default)]
    pub(crate) later: bool,
    #[serde(default = "once")]
    pub(crate) times: u32,
}

fn once() -> u32 {
    1
}

/// A stored message.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ChatMessage {
    pub(crate) id: String,
    pub(crate) phone_number_id: String,
    pub(crate) user: String,
    /// Whether the business sent the message.
    #[serde(rename = "by_business")]
    pub(crate) from_business: bool,
    pub(crate) message: Value,
}

struct File {
    phone_number_id: String,
    mime: String,
    bytes: Bytes,
}

/// All messages, media files, pending failures and customer service windows.
#[derive(Default)]
pub(crate) struct Chat {
    messages: Mutex<VecDeque<ChatMessage>>,
    files: Mutex<BTreeMap<String, File>>,
    failures: Mutex<Vec<MessageFailure>>,
    /// Time of a user's last message or call, by phone number id and user.
    windows: Mutex<BTreeMap<(String, String), i64>>,
}

impl Chat {
    /// Opens or renews the customer service window after a message or call of the user.
    pub(crate) fn open_window(&self, number: &str, user: &str, now: i64) {
        let mut windows = locked(&self.windows);
        if windows.len() >= WINDOWS_MAX {
            windows.retain(|_, at| now - *at < WINDOW_SECS);
        }
        while windows.len() >= WINDOWS_MAX {
            windows.pop_first();
        }
        windows.insert((number.to_owned(), user.to_owned()), now);
    }

    /// Whether the customer service window is open.
    fn is_window_open(&self, number: &str, user: &str, now: i64) -> bool {
        let key = (number.to_owned(), user.to_owned());
        locked(&self.windows).get(&key).is_some_and(|at| now - at < WINDOW_SECS)
    }

    fn push(&self, message: ChatMessage) {
        let mut all = locked(&self.messages);
        if all.len() >= MESSAGES_MAX {
            all.pop_front();
        }
        all.push_back(message);
    }

    pub(crate) fn messages(&self) -> Vec<ChatMessage> {
        locked(&self.messages).iter().cloned().collect()
    }

    pub(crate) fn add_failure(&self, mut failure: MessageFailure) -> Result<(), String> {
        failure.user = failure.user.as_deref().map(user_of);
        let mut failures = locked(&self.failures);
        if failures.len() >= FAILURES_MAX {
            return Err("too many injected failures are pending".to_owned());
        }
        failures.push(failure);
        Ok(())
    }

    /// Takes the next pending failure that applies to this user.
    fn take_failure(&self, user: &str) -> Option<MessageFailure> {
        let mut failures = locked(&self.failures);
        let at = failures
            .iter()
            .position(|f| f.times > 0 && f.user.as_deref().is_none_or(|of| of == user))?;
        let found = failures[at].clone();
        failures[at].times -= 1;
        failures.retain(|f| f.times > 0);
        Some(found)
    }

    /// Graph's description of a media file. `None` if it belongs to another number than `of`.
    pub(crate) fn file_info(&self, id: &str, base: &str, of: Option<&str>) -> Option<Value> {
        let files = locked(&self.files);
        let file = files.get(id).filter(|file| of.is_none_or(|of| file.phone_number_id == of))?;
        Some(json!({
            "url": format!("{base}/_sim/media/{id}"),
            "mime_type": file.mime,
            "sha256": sha256_hex(&file.bytes),
            "file_size": file.bytes.len(),
            "id": id,
            "messaging_product": "whatsapp",
        }))
    }

    /// Stores a media file of a number and returns its id.
    pub(super) fn store_file(
        &self,
        random: u64,
        phone_number_id: &str,
        mime: String,
        bytes: Bytes,
    ) -> String {
        let id = (random % 9_000_000_000_000 + 1_000_000_000_000).to_string();
        let mut files = locked(&self.files);
        let held = |files: &BTreeMap<String, File>| {
            files.values().map(|file| file.bytes.len()).sum::<usize>()
        };
        while files.len() >= FILES_MAX
            || (!files.is_empty() && held(&files) + bytes.len() > ALL_FILES_BYTES_MAX)
        {
            files.pop_first();
        }
        let phone_number_id = phone_number_id.to_owned();
        files.insert(id.clone(), File { phone_number_id, mime, bytes });
        id
    }

    pub(crate) fn file(&self, id: &str) -> Option<(String, Bytes)> {
        locked(&self.files).get(id).map(|file| (file.mime.clone(), file.bytes.clone()))
    }
}

fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes))
}

impl World {
    /// Refuses a message that is not a template outside of the customer service window.
    /// Business-scoped user ids always pass, because the simulator cannot tell which user they
    /// belong to.
    pub(super) fn check_window(&self, number: &str, user: &str) -> Result<(), GraphError> {
        let named = user.bytes().all(|b| b.is_ascii_digit());
        let now = self.clock.wall().secs();
        if !named
            || self.permissions.ignores_message_window()
            || self.chat.is_window_open(number, user, now)
        {
            return Ok(());
        }
        let details = "Message failed to send because more than 24 hours have passed since the customer last replied to \
            this number.";
        Err(GraphError { status: 400, code: 131_047, subcode: None, details: details.to_owned() })
    }

    /// Sends a user's message to the node and returns its id.
    pub(crate) async fn send_user_message(
        self: &Arc<Self>,
        request: MessageRequest,
    ) -> Result<String, String> {
        let id = request.phone_number_id.as_deref().unwrap_or(crate::world::PHONE_NUMBER_ID);
        let number =
            self.number_by_id(id).ok_or_else(|| format!("unknown phone_number_id {id}"))?;
        let user =
            request.from.map_or_else(|| crate::world::USER.to_owned(), |from| user_of(&from));
        let name = request.name.unwrap_or_else(|| crate::world::USER_NAME.to_owned());
        let mut message = match request.message {
            Value::String(text) => json!({"type": "text", "text": {"body": text}}),
            message if message["type"].is_string() => message,
            _ => return Err("message must be a string or an object with a type".to_owned()),
        };
        if let Some(file) = &request.file {
            self.attach_file(id, &mut message, file)?;
        }
        let wamid = request.id.unwrap_or_else(|| format!("wamid.{}", self.rng.text(40)));
        let target = self.default_target().ok_or("no node is configured: set the node URL")?;
        self.webhooks.verify(&target).await?;
        let info = body::MessageInfo {
            number: &number,
            user: &user,
            user_name: &name,
            id: &wamid,
            at_secs: self.clock.wall().secs(),
        };
        self.chat.open_window(id, &user, info.at_secs);
        let webhook = self.webhooks.sign(
            &target,
            "message",
            "",
            &body::message(&info, message.clone()),
            None,
        );
        self.webhooks.deliver(&target, webhook, Duration::ZERO, |_| {});
        self.chat.push(ChatMessage {
            id: wamid.clone(),
            phone_number_id: id.to_owned(),
            user,
            from_business: false,
            message,
        });
        Ok(wamid)
    }

    fn attach_file(
        &self,
        phone_number_id: &str,
        message: &mut Value,
        file: &str,
    ) -> Result<(), String> {
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
        message[&kind]["sha256"] = json!(sha256_hex(&bytes));
        let random = self.rng.next_u64();
        message[&kind]["id"] =
            json!(self.chat.store_file(random, phone_number_id, mime, bytes.into()));
        Ok(())
    }

    /// Stores a message of the business and sends its statuses, unless a failure refuses it.
    pub(super) fn send_business_message(
        &self,
        number: &str,
        user: &str,
        id: &str,
        message: &Value,
    ) -> Result<(), GraphError> {
        let failure = self.chat.take_failure(user);
        if let Some(failure) = failure.as_ref().filter(|failure| !failure.later) {
            return Err(GraphError {
                status: 400,
                code: failure.code,
                subcode: None,
                details: failure.details.clone(),
            });
        }
        let sent = ChatMessage {
            id: id.to_owned(),
            phone_number_id: number.to_owned(),
            user: user.to_owned(),
            from_business: true,
            message: message.clone(),
        };
        self.chat.push(sent);
        let (Some(target), Some(number)) = (self.default_target(), self.number_by_id(number))
        else {
            return Ok(());
        };
        let opaque = message["biz_opaque_callback_data"].as_str();
        let mut delay = Duration::ZERO;
        let steps: &[(&str, Duration)] = match failure {
            Some(_) => &[("sent", STATUS_STEPS[0].1), ("failed", STATUS_STEPS[1].1)],
            None => &STATUS_STEPS,
        };
        for (word, pause) in steps {
            delay += *pause;
            let failed = failure
                .as_ref()
                .filter(|_| *word == "failed")
                .map(|f| (f.code, f.details.as_str()));
            let at = self.clock.wall().secs();
            let body = status(&number, user, id, word, at, opaque, failed);
            let webhook = self.webhooks.sign(&target, "message_status", "", &body, None);
            self.webhooks.deliver(&target, webhook, delay, |_| {});
        }
        Ok(())
    }
}

/// A status of a message.
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
