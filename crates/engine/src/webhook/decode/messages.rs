//! Decodes inbound messages, message statuses and replies to permission requests
//! (`docs/reference/meta.md#messages`).

use super::super::items::{Content, Item, PermissionReply};
use super::super::kind::Kind;
use super::super::read::Value;
use super::{
    Arrays, ValueContext, digits, each_item, first_code, first_words, text, usable_id,
    value_context,
};
use crate::admission::permission::Reply;
use crate::inbox::{ReceivedStatus, Sender, UserMessage, words};
use model::{MessageStatus, Timestamp};

pub(super) fn messages(value: Option<Value<'_>>, take: &mut impl FnMut(Item)) {
    let names = ["metadata", "contacts", "messages", "statuses", "errors"];
    let Some([metadata, contacts, messages, statuses, errors]) =
        value.and_then(|value| value.members(names))
    else {
        return take(Item::malformed(Kind::MESSAGES));
    };
    let context = value_context(metadata, contacts, errors);
    let arrays: Arrays<'_, ValueContext> =
        [(messages, Kind::MESSAGES, message), (statuses, Kind::MESSAGE_STATUS, message_status)];
    each_item(arrays, context.as_ref(), errors.map(|_| Kind::of("messages.errors")), take);
}

/// Known message types except `interactive`. Any other type is stored as `unknown`.
const MESSAGE_TYPES: &[&str] = &[
    "text",
    "button",
    "image",
    "audio",
    "video",
    "document",
    "sticker",
    "location",
    "contacts",
    "reaction",
    "order",
    "system",
    "request_welcome",
    "unsupported",
];

fn message(item: Value<'_>, context: &ValueContext) -> Item {
    let [id, kind, interactive] = item.members(["id", "type", "interactive"]).unwrap_or_default();
    let id = usable_id(id);
    let kind = kind.and_then(Value::string).map(|kind| kind.to_ascii_lowercase());
    let kind = match kind.as_deref() {
        None => Kind::MESSAGES,
        Some("interactive") => {
            let [reply, permission] = interactive
                .and_then(|i| i.members(["type", "call_permission_reply"]))
                .unwrap_or_default();
            let reply = reply.and_then(Value::string).unwrap_or_default().to_ascii_lowercase();
            match reply.as_str() {
                "call_permission_reply" => return permission_reply(item, id, permission, context),
                "button_reply" | "list_reply" | "nfm_reply" => Kind::within("messages", &reply),
                _ => Kind::of("messages.unknown"),
            }
        }
        Some(kind) if MESSAGE_TYPES.contains(&kind) => Kind::within("messages", kind),
        Some(_) => Kind::of("messages.unknown"),
    };
    let content = match &id {
        Some(id) if kind != Kind::MESSAGES => match user_message(item, id, context) {
            message if message.sender.wa_id.is_none() && message.sender.bsuid.is_none() => {
                Content::Malformed
            }
            message => Content::Message {
                phone_number_id: context.phone_number_id.clone(),
                message: Box::new(message),
            },
        },
        _ => Content::Malformed,
    };
    Item { kind, id, content }
}

/// Maximum size of a message whose content is stored. Larger messages are stored without it.
const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// Decodes a user's message with the content of its type.
fn user_message(item: Value<'_>, id: &str, context: &ValueContext) -> UserMessage {
    let names = ["from", "from_user_id", "from_parent_user_id", "timestamp", "type"];
    let [from, user_id, parent, timestamp, kind] = item.members(names).unwrap_or_default();
    let (from, user_id, parent) = (digits(from), text(user_id), text(parent));
    let contact = context.contact(from.as_deref(), [user_id.as_deref(), parent.as_deref()]);
    let kind = kind.and_then(Value::string).unwrap_or_default().to_ascii_lowercase();
    let known = MESSAGE_TYPES.contains(&kind.as_str()) || kind == "interactive";
    let mut content = serde_json::Map::new();
    if item.raw().len() <= MESSAGE_BYTES_MAX
        && let Ok(serde_json::Value::Object(mut whole)) = serde_json::from_str(item.raw())
    {
        if known {
            for name in [kind.as_str(), "context", "referral", "errors"] {
                content.extend(
                    whole
                        .remove(name)
                        .filter(|v| !v.is_null())
                        .map(|v| (name.to_owned(), words::bounded(v))),
                );
            }
        } else {
            content.insert("unknown".to_owned(), words::bounded(whole.into()));
        }
    }
    UserMessage {
        wamid: id.to_owned(),
        sender: Sender {
            wa_id: from.or_else(|| contact.and_then(|contact| contact.wa_id.clone())),
            bsuid: user_id.or_else(|| contact.and_then(|contact| contact.bsuid.clone())).or(parent),
            name: contact.map(|contact| contact.name.clone()).unwrap_or_default(),
        },
        timestamp: timestamp.and_then(Value::integer),
        kind: if known { kind } else { "unknown".to_owned() },
        content: content.into(),
    }
}

/// Decodes a reply to a permission request. The reply is usable if its response is known and its
/// user can be determined.
fn permission_reply(
    item: Value<'_>,
    id: Option<String>,
    reply: Option<Value<'_>>,
    context: &ValueContext,
) -> Item {
    let names = ["response", "is_permanent", "expiration_timestamp", "response_source"];
    let [response, permanent, expiration, source] =
        reply.and_then(|reply| reply.members(names)).unwrap_or_default();
    let is_true = |value: Value<'_>| {
        value.raw() == "true" || value.string().is_some_and(|text| text == "true")
    };
    let reply =
        match response.and_then(Value::string).unwrap_or_default().to_ascii_lowercase().as_str() {
            "accept" => Some(Reply::Accept {
                permanent: permanent.is_some_and(is_true),
                expiration: expiration.and_then(Value::integer).map(Timestamp::from_secs),
                automatic: source
                    .and_then(Value::string)
                    .is_some_and(|source| source.eq_ignore_ascii_case("automatic")),
            }),
            "reject" => Some(Reply::Reject),
            _ => None,
        };
    let names = ["from", "from_user_id", "from_parent_user_id", "timestamp"];
    let [from, user_id, parent, timestamp] = item.members(names).unwrap_or_default();
    let (from, user_id, parent) = (digits(from), text(user_id), text(parent));
    let contact = context.contact(from.as_deref(), [user_id.as_deref(), parent.as_deref()]);
    let user = from
        .or_else(|| contact.and_then(|contact| contact.wa_id.clone()))
        .or(user_id)
        .or_else(|| contact.and_then(|contact| contact.bsuid.clone()))
        .or(parent);
    let content = match (&id, reply, user) {
        (Some(id), Some(reply), Some(user)) => Content::Permission(Box::new(PermissionReply {
            phone_number_id: context.phone_number_id.clone(),
            id: id.clone(),
            user,
            timestamp: timestamp.and_then(Value::integer),
            reply,
            message: user_message(item, id, context),
        })),
        _ => Content::Malformed,
    };
    Item { kind: Kind::of("messages.call_permission_reply"), id, content }
}

fn message_status(item: Value<'_>, context: &ValueContext) -> Item {
    let names = ["id", "status", "errors", "timestamp", "biz_opaque_callback_data"];
    let [id, status, errors, timestamp, opaque] = item.members(names).unwrap_or_default();
    let id = usable_id(id);
    let content = match (&id, status.and_then(Value::string)) {
        (Some(id), Some(word)) => match MessageStatus::parse(&word.to_ascii_lowercase()) {
            None | Some(MessageStatus::Received | MessageStatus::Queued) => Content::Ignored,
            Some(status) => Content::MessageStatus {
                phone_number_id: context.phone_number_id.clone(),
                status: Box::new(ReceivedStatus {
                    wamid: id.clone(),
                    status,
                    error: first_code(errors).map(|code| (code, first_words(errors))),
                    opaque: text(opaque),
                    timestamp: timestamp.and_then(Value::integer),
                }),
            },
        },
        _ => Content::Malformed,
    };
    Item { kind: Kind::MESSAGE_STATUS, id, content }
}
