//! The kind of an item and its metric label, which has a bounded set of values
//! (`docs/reference/reliability.md#r23`).

use std::borrow::Cow;
use std::fmt;

/// Field and event or type of an item as spelled by Meta, such as `calls.connect`, `messages.text`
/// or `account_update`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind(Cow<'static, str>);

/// Maximum length of a kind in characters. Known kinds are far shorter.
const KIND_MAX: usize = 64;

/// The known kinds. The label of all others is `other`.
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

    /// Creates a kind from its spelling, which is cut at the maximum length.
    pub(super) fn of(spelling: &str) -> Self {
        match KNOWN.iter().find(|known| **known == spelling) {
            Some(known) => Self(Cow::Borrowed(known)),
            None => Self(Cow::Owned(spelling.chars().take(KIND_MAX).collect())),
        }
    }

    /// Creates the kind `field.word` in lower case.
    pub(super) fn within(field: &str, word: &str) -> Self {
        Self::of(&format!("{field}.{}", word.to_ascii_lowercase()))
    }

    /// The spelling.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The metric label: the spelling of a known kind, otherwise `other`.
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
