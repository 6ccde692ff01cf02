//! Messages of the phone protocol in JSON (`docs/phone.md`): one object per message with its kind
//! in `type`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use engine::call::phones::{Ring, ToPhone};
use engine::call::web::PhoneCommandError;
use model::CallUuid;
use model::Secret;

/// A message from a phone. Unknown fields are ignored, so that a newer phone works with an older
/// node.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum FromPhone {
    /// Registers the phone. `resume` reclaims its calls. Without a password, the socket's console
    /// session authenticates the phone. If the endpoint is missing as well, the endpoint with the
    /// person's name is used.
    Register {
        #[serde(default)]
        endpoint: Option<String>,
        #[serde(default)]
        password: Option<Password>,
        #[serde(default)]
        resume: Option<String>,
    },
    /// Unregisters the phone and ends its calls.
    Unregister,
    /// Makes a call.
    Call {
        to: String,
        sdp: String,
        /// The phone's reference for the call until it receives the call id.
        #[serde(default, rename = "ref")]
        reference: Option<String>,
        /// A draft by the signed-in person, which runs instead of the application's document.
        #[serde(default)]
        draft: Option<String>,
    },
    /// Accepts a ringing call.
    Accept {
        call: CallUuid,
        sdp: String,
    },
    /// Declines a ringing call.
    Reject {
        call: CallUuid,
    },
    Hangup {
        call: CallUuid,
    },
    Mute {
        call: CallUuid,
    },
    Unmute {
        call: CallUuid,
    },
    Hold {
        call: CallUuid,
    },
    Unhold {
        call: CallUuid,
    },
    Digits {
        call: CallUuid,
        digits: String,
    },
    /// Transfers the call to another endpoint.
    Transfer {
        call: CallUuid,
        to: String,
    },
    /// Starts or stops captions.
    Captions {
        call: CallUuid,
        on: bool,
        /// The spoken language as a BCP 47 tag.
        #[serde(default)]
        language: Option<String>,
    },
    /// Asks for a `pong`.
    Ping,
}

/// A password with a redacted `Debug`.
#[derive(Deserialize)]
#[serde(from = "String")]
pub(super) struct Password(pub(super) Secret);

impl From<String> for Password {
    fn from(text: String) -> Self {
        Self(Secret::new(text))
    }
}

/// Maximum length of a parse error, in characters. The names of all messages fit.
const MESSAGE_CHARS_MAX: usize = 320;

impl FromPhone {
    /// The existing call that the message is about.
    pub(super) fn call(&self) -> Option<CallUuid> {
        match self {
            Self::Accept { call, .. }
            | Self::Reject { call }
            | Self::Hangup { call }
            | Self::Mute { call }
            | Self::Unmute { call }
            | Self::Hold { call }
            | Self::Unhold { call }
            | Self::Digits { call, .. }
            | Self::Transfer { call, .. }
            | Self::Captions { call, .. } => Some(*call),
            Self::Register { .. } | Self::Unregister | Self::Call { .. } | Self::Ping => None,
        }
    }

    /// Parses a message.
    ///
    /// # Errors
    /// Returns the fault of the message without quoting its values.
    pub(super) fn read(text: &str) -> Result<Self, RequestError> {
        serde_json::from_str(text).map_err(|e| match e.classify() {
            serde_json::error::Category::Data => {
                // Unknown kind, missing field or wrong type. The message of serde names it.
                let text: String = e
                    .to_string()
                    .chars()
                    .filter(|c| !c.is_control())
                    .take(MESSAGE_CHARS_MAX)
                    .collect();
                let code = if text.starts_with("unknown variant") {
                    "unknown_type"
                } else {
                    "bad_message"
                };
                RequestError::with_text(code, text)
            }
            _ => RequestError::new("bad_message", "a message is one JSON object"),
        })
    }
}

/// Why a request of a phone failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RequestError {
    /// A word for programs.
    pub(super) code: &'static str,
    pub(super) message: Cow<'static, str>,
    pub(super) call: Option<CallUuid>,
    pub(super) reference: Option<String>,
}

impl RequestError {
    pub(super) const fn new(code: &'static str, message: &'static str) -> Self {
        Self { code, message: Cow::Borrowed(message), call: None, reference: None }
    }

    pub(super) fn with_text(code: &'static str, message: String) -> Self {
        Self { code, message: message.into(), call: None, reference: None }
    }

    pub(super) fn about(self, call: CallUuid) -> Self {
        Self { call: Some(call), ..self }
    }

    pub(super) fn named(self, reference: Option<String>) -> Self {
        Self { reference, ..self }
    }
}

/// A message to a phone.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum NodeMessage<'a> {
    Registered {
        endpoint: &'a str,
        sip_uri: String,
        /// The secret for `resume`.
        session: &'a str,
        /// The calls that were reclaimed.
        calls: &'a [CallUuid],
        resume_within_seconds: u64,
        /// Whether captions are available.
        captions: bool,
        /// The languages that captions offer, and the default.
        caption_languages: &'a [&'a str],
        caption_language: &'a str,
    },
    Calling {
        call: CallUuid,
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<&'a str>,
    },
    Ring {
        call: CallUuid,
        from: &'a str,
        to: &'a str,
        caller_name: &'a str,
        /// The business number that was called.
        #[serde(skip_serializing_if = "str::is_empty")]
        via: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        via_alias: &'a str,
        /// Whether the business has called the user, who has answered.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        outbound: bool,
        headers: BTreeMap<String, &'a str>,
    },
    Cancelled {
        call: CallUuid,
        why: &'a str,
    },
    Answer {
        call: CallUuid,
        sdp: &'a str,
    },
    Answered {
        call: CallUuid,
    },
    Muted {
        call: CallUuid,
    },
    Unmuted {
        call: CallUuid,
    },
    Held {
        call: CallUuid,
    },
    Unheld {
        call: CallUuid,
    },
    Transferred {
        call: CallUuid,
    },
    Captions {
        call: CallUuid,
        on: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        why: Option<&'a str>,
    },
    Caption {
        call: CallUuid,
        speaker: &'a str,
        line: u32,
        text: &'a str,
        last: bool,
    },
    Ended {
        call: CallUuid,
        code: u16,
        name: &'a str,
        source: &'a str,
        cause: &'a str,
        bill_seconds: u64,
    },
    Draining {
        message: &'a str,
    },
    Unregistered {
        why: &'a str,
    },
    Pong,
    /// The text of another node's message.
    #[serde(skip)]
    Relayed(&'a str),
    Error {
        code: &'a str,
        message: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        call: Option<CallUuid>,
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<&'a str>,
    },
}

impl NodeMessage<'_> {
    /// Returns the JSON text of the message.
    pub(super) fn text(&self) -> String {
        if let Self::Relayed(text) = self {
            return (*text).to_owned();
        }
        // Serializing strings and numbers cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl<'a> From<&'a ToPhone> for NodeMessage<'a> {
    fn from(message: &'a ToPhone) -> Self {
        match message {
            ToPhone::Ring(ring) => {
                let Ring { call, from, to, caller_name, via, outbound, headers } = ring;
                let [via, via_alias] = via;
                Self::Ring {
                    call: *call,
                    from,
                    to,
                    caller_name,
                    via,
                    via_alias,
                    outbound: *outbound,
                    headers: headers
                        .iter()
                        .map(|(name, value)| (format!("X-PH-{name}"), value.as_str()))
                        .collect(),
                }
            }
            ToPhone::Cancelled { call, why } => Self::Cancelled { call: *call, why },
            ToPhone::Answer { call, sdp } => Self::Answer { call: *call, sdp },
            ToPhone::Answered { call } => Self::Answered { call: *call },
            ToPhone::Caption { call, caption } => Self::Caption {
                call: *call,
                speaker: caption.speaker.as_str(),
                line: caption.line,
                text: &caption.text,
                last: caption.last,
            },
            ToPhone::NoCaptions { call } => {
                Self::Captions { call: *call, on: false, why: Some("failed") }
            }
            ToPhone::Ended { call, ended } => Self::Ended {
                call: *call,
                code: ended.code,
                name: ended.name,
                source: ended.source,
                cause: ended.cause,
                bill_seconds: ended.bill_secs,
            },
            ToPhone::Draining => Self::Draining {
                message: "this server is stopping: no new calls; live calls continue",
            },
            ToPhone::Unregistered { why } => Self::Unregistered { why },
            ToPhone::Relayed { text, .. } => Self::Relayed(text),
        }
    }
}

impl From<PhoneCommandError> for RequestError {
    fn from(error: PhoneCommandError) -> Self {
        match error {
            PhoneCommandError::NoCall => Self::new("no_call", "this phone has no such call"),
            PhoneCommandError::NotRinging => {
                Self::new("not_ringing", "the call no longer rings here")
            }
        }
    }
}

impl<'a> From<&'a RequestError> for NodeMessage<'a> {
    fn from(trouble: &'a RequestError) -> Self {
        Self::Error {
            code: trouble.code,
            message: &trouble.message,
            call: trouble.call,
            reference: trouble.reference.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::call::caption::{Caption, Speaker};

    #[test]
    fn messages_are_parsed_or_refused_without_leaking_secrets() {
        let read = |text: &str| FromPhone::read(text);
        let uuid = "3f0c2f1a-6a1e-4f0e-9a2b-5d7f3f0a9b11";
        assert!(matches!(read(r#"{"type":"ping","later":1}"#), Ok(FromPhone::Ping)));
        assert!(matches!(
            read(r#"{"type":"register","endpoint":"asha","password":"p"}"#),
            Ok(FromPhone::Register { resume: None, .. })
        ));
        assert!(matches!(
            read(&format!(r#"{{"call":"{uuid}","type":"hangup"}}"#)),
            Ok(FromPhone::Hangup { .. })
        ));
        let cases = [
            ("", "bad_message"),
            ("[]", "bad_message"),
            ("{\"type\":\"hangup\"}", "bad_message"),
            ("{\"type\":\"hangup\",\"call\":\"7\"}", "bad_message"),
            ("{\"type\":\"dance\"}", "unknown_type"),
            (
                "{\"type\":\"register\",\"endpoint\":\"a\",\"password\":\"canary\",\"password\":\"x\"}",
                "bad_message",
            ),
            ("{\"type\":\"register\",\"endpoint\":\"a\",\"password\":[\"canary\"]}", "bad_message"),
        ];
        for (text, code) in cases {
            let trouble = read(text).err().expect(text);
            assert_eq!(trouble.code, code, "{text}");
            assert!(!trouble.message.contains("canary"), "{}", trouble.message);
        }
    }

    #[test]
    fn messages_to_phones_are_json_with_a_type() {
        let call = CallUuid(uuid::Uuid::nil());
        let ring = ToPhone::Ring(Ring {
            call,
            from: "919812345678".to_owned(),
            to: "sip:asha@h".to_owned(),
            caller_name: "Ravi \"R\"".to_owned(),
            via: ["918035737458".to_owned(), String::new()],
            outbound: false,
            headers: vec![("A".to_owned(), "1".to_owned())],
        });
        assert_eq!(
            NodeMessage::from(&ring).text(),
            "{\"type\":\"ring\",\"call\":\"00000000-0000-0000-0000-000000000000\",\"from\":\"919812345678\",\
             \"to\":\"sip:asha@h\",\"caller_name\":\"Ravi \\\"R\\\"\",\"via\":\"918035737458\",\"headers\":{\"X-PH-A\":\"1\"}}"
        );
        let caption = Caption {
            speaker: Speaker::Them,
            line: 3,
            text: "Good \"morning\"".to_owned(),
            last: false,
        };
        let message = ToPhone::Caption { call, caption };
        assert_eq!(
            NodeMessage::from(&message).text(),
            "{\"type\":\"caption\",\"call\":\"00000000-0000-0000-0000-000000000000\",\"speaker\":\"them\",\"line\":3,\
             \"text\":\"Good \\\"morning\\\"\",\"last\":false}"
        );
        assert!(!format!("{message:?}").contains("morning"), "Debug redacts captions");
        let trouble = RequestError::new("no_call", "gone").about(call).named(Some("7".to_owned()));
        assert_eq!(
            NodeMessage::from(&trouble).text(),
            "{\"type\":\"error\",\"code\":\"no_call\",\"message\":\"gone\",\
             \"call\":\"00000000-0000-0000-0000-000000000000\",\"ref\":\"7\"}"
        );
    }
}
