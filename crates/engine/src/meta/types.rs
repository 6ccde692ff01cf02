//! Payloads of `POST /{phone_number_id}/calls` and of Graph's errors. The client here and the
//! simulated Meta both use them.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize};

use machine::GraphAction;
use model::{CallUuid, Wacid};

/// The body of a request about a call.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallRequest {
    pub messaging_product: String,
    /// The user's phone number in digits. Only for `connect`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// The user's business-scoped id, instead of `to`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient: Option<String>,
    /// The call's id. For all actions except `connect`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_id: Option<Wacid>,
    pub action: GraphAction,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Session>,
    /// The opaque data, at most 512 characters. Meta repeats it in later webhooks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub biz_opaque_callback_data: Option<String>,
}

impl CallRequest {
    /// Creates a request about an existing call.
    pub fn about(call_id: Wacid, action: GraphAction) -> Self {
        Self {
            messaging_product: "whatsapp".to_owned(),
            to: None,
            recipient: None,
            call_id: Some(call_id),
            action,
            session: None,
            biz_opaque_callback_data: None,
        }
    }
}

impl CallRequest {
    /// Creates a request to call the user with these digits.
    pub fn connect(user: &str, sdp_offer: String) -> Self {
        Self {
            messaging_product: "whatsapp".to_owned(),
            to: Some(user.to_owned()),
            recipient: None,
            call_id: None,
            action: GraphAction::Connect,
            session: Some(Session { sdp_type: SdpType::Offer, sdp: sdp_offer }),
            biz_opaque_callback_data: None,
        }
    }
}

/// Redacts phone numbers and SDP.
impl std::fmt::Debug for CallRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CallRequest({} {:?})", self.action.as_str(), self.call_id)
    }
}

/// A session description.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    pub sdp_type: SdpType,
    pub sdp: String,
}

/// The type of a session description.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SdpType {
    Offer,
    Answer,
}

/// The body of a 200.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallAnswer {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messaging_product: Option<String>,
    /// The id of the new call, in the answer to `connect`. Otherwise empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<CallId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success: Option<bool>,
}

/// The id of a new call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallId {
    #[serde(deserialize_with = "id")]
    pub id: Wacid,
}

/// Returns a text, or the digits of a non-negative integer, which mean the same
/// (`docs/reference/meta.md#tolerant-reading`).
pub fn text_or_digits(value: &serde_json::Value) -> Option<Cow<'_, str>> {
    match value.as_u64() {
        Some(number) => Some(number.to_string().into()),
        None => value.as_str().map(Cow::Borrowed),
    }
}

/// Reads an integer or its decimal digits. Anything else is 0.
fn integer<'de, D: Deserializer<'de>>(from: D) -> Result<i64, D::Error> {
    let value = serde_json::Value::deserialize(from)?;
    let digits = text_or_digits(&value);
    Ok(digits.and_then(|digits| digits.trim().parse().ok()).unwrap_or_default())
}

/// Reads an id that is a text or an integer.
fn id<'de, D: Deserializer<'de>>(from: D) -> Result<Wacid, D::Error> {
    let value = serde_json::Value::deserialize(from)?;
    let text = text_or_digits(&value);
    let text = text.ok_or_else(|| serde::de::Error::custom("an id is a text or an integer"))?;
    Ok(text.as_ref().into())
}

/// The envelope of an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    pub error: ErrorDetail,
}

/// An error of Graph. Decide by `code`, never by `message`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDetail {
    #[serde(default)]
    pub message: String,
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// 0 if the response has none.
    #[serde(default, deserialize_with = "integer")]
    pub code: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_subcode: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_transient: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_user_title: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_user_msg: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_data: Option<ErrorData>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fbtrace_id: Option<String>,
}

/// Details of an error. Sometimes they are a bare string.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ErrorData {
    Object {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        messaging_product: Option<String>,
        #[serde(default)]
        details: String,
    },
    Text(String),
}

impl ErrorDetail {
    /// The most specific text of the error.
    pub fn details(&self) -> &str {
        match &self.error_data {
            Some(ErrorData::Object { details, .. } | ErrorData::Text(details))
                if !details.is_empty() =>
            {
                details
            }
            _ => &self.message,
        }
    }
}

/// The `biz_opaque_callback_data` of a call's `connect` or `accept`. It connects Meta's events with
/// the call and its node.
pub fn callback_data(call: CallUuid, node_id: &str) -> String {
    format!("oh1.{call}.{node_id}")
}

/// Returns the call in the opaque data made by [`callback_data`]. `None` if another program wrote
/// it.
pub fn call_named(opaque: &str) -> Option<CallUuid> {
    opaque.strip_prefix("oh1.")?.split('.').next()?.parse().ok()
}
