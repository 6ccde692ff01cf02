//! What an item is: the words of `meta-calling.md` §2.8, and the bounded label made of them (R23).

use std::borrow::Cow;
use std::fmt;

/// Field and event or type of an item, as Meta spells them: `calls.connect`, `messages.text`, `account_update`, …
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind(Cow<'static, str>);

/// Longest kind that is kept, in characters; ours are far shorter.
const KIND_MAX: usize = 64;

/// The kinds of `meta-calling.md` §3; any other is `other` as a label.
const KNOWN: &[&str] = &[
    "body",
    "object",
    "calls",
    "calls.connect",
    "calls.terminate",
    "calls.status",
    "calls.errors",
    "messages",
    "messages.status",
    "messages.errors",
    "messages.text",
    "messages.button",
    "messages.button_reply",
    "messages.list_reply",
    "messages.nfm_reply",
    "messages.call_permission_reply",
    "messages.image",
    "messages.audio",
    "messages.video",
    "messages.document",
    "messages.sticker",
    "messages.location",
    "messages.contacts",
    "messages.reaction",
    "messages.order",
    "messages.system",
    "messages.request_welcome",
    "messages.unsupported",
    "messages.unknown",
    "account_update",
    "account_settings_update",
    "phone_number_quality_update",
    "phone_number_name_update",
    "account_alerts",
    "account_review_update",
    "business_capability_update",
    "message_template_status_update",
    "message_template_quality_update",
    "message_template_components_update",
    "security",
    "flows",
    "user_preferences",
    "history",
    "smb_message_echoes",
    "smb_app_state_sync",
];

impl Kind {
    pub const BODY: Self = Self(Cow::Borrowed("body"));
    pub(super) const OBJECT: Self = Self(Cow::Borrowed("object"));
    pub(super) const CALLS: Self = Self(Cow::Borrowed("calls"));
    pub(super) const CALL_STATUS: Self = Self(Cow::Borrowed("calls.status"));
    pub(super) const MESSAGES: Self = Self(Cow::Borrowed("messages"));
    pub(super) const MESSAGE_STATUS: Self = Self(Cow::Borrowed("messages.status"));

    /// A kind by its spelling; too long a one is cut.
    pub(super) fn of(spelling: &str) -> Self {
        match KNOWN.iter().find(|known| **known == spelling) {
            Some(known) => Self(Cow::Borrowed(known)),
            None => Self(Cow::Owned(spelling.chars().take(KIND_MAX).collect())),
        }
    }

    /// `field.word`, in lower case.
    pub(super) fn within(field: &str, word: &str) -> Self {
        Self::of(&format!("{field}.{}", word.to_ascii_lowercase()))
    }

    /// The spelling.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The metric label: the spelling where it is one we know, else `other`.
    pub fn label(&self) -> &'static str {
        match &self.0 {
            Cow::Borrowed(known) => known,
            Cow::Owned(_) => "other",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
