//! What phones say and hear, as JSON text (`docs/phone.md`): one object a message, its kind in `type`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use engine::call::phones::ToPhone;
use model::CallUuid;
use model::Secret;

/// What a phone says. Fields that are not known are passed over, so that a newer phone can speak with an older node.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum FromPhone {
    /// Who it is; with `resume` it wants its calls back. Without a password the socket's console session vouches for it,
    /// and without an endpoint it is the one that bears the person's name.
    Register {
        #[serde(default)]
        endpoint: Option<String>,
        #[serde(default)]
        password: Option<Password>,
        #[serde(default)]
        resume: Option<String>,
    },
    /// It goes, and its calls end.
    Unregister,
    /// It calls somebody.
    Call {
        to: String,
        sdp: String,
        /// The phone's own name of the call until it knows ours.
        #[serde(default, rename = "ref")]
        reference: Option<String>,
        /// The document that the call runs instead of its application's: one that the signed-in person has written.
        #[serde(default)]
        draft: Option<String>,
    },
    /// It takes a call that rings.
    Accept {
        call: CallUuid,
        sdp: String,
    },
    /// It does not want it.
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
    /// Another endpoint is to have the call.
    Transfer {
        call: CallUuid,
        to: String,
    },
    /// What is said is to be written, or no longer.
    Captions {
        call: CallUuid,
        on: bool,
        /// What is spoken; BCP 47.
        #[serde(default)]
        language: Option<String>,
    },
    /// Is anybody there?
    Ping,
}

/// A password, which nothing prints.
#[derive(Deserialize)]
#[serde(from = "String")]
pub(super) struct Password(pub(super) Secret);

impl From<String> for Password {
    fn from(text: String) -> Self {
        Self(Secret::new(text))
    }
}

impl FromPhone {
    /// Reads a message.
    ///
    /// # Errors
    /// What is wrong with it, without repeating any of it.
    pub(super) fn read(text: &str) -> Result<Self, Trouble> {
        serde_json::from_str(text).map_err(|e| match e.classify() {
            serde_json::error::Category::Data => {
                // A kind that nobody knows, or a field that is missing, or of another type: the reader names them.
                let text: String =
                    e.to_string().chars().filter(|c| !c.is_control()).take(160).collect();
                let code = if text.starts_with("unknown variant") {
                    "unknown_type"
                } else {
                    "bad_message"
                };
                Trouble::told(code, text)
            }
            _ => Trouble::new("bad_message", "a message is one JSON object"),
        })
    }
}

/// Why something that a phone wanted was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    /// A word for programs.
    pub(super) code: &'static str,
    pub(super) message: Cow<'static, str>,
    pub(super) call: Option<CallUuid>,
    pub(super) reference: Option<String>,
}

impl Trouble {
    pub(super) const fn new(code: &'static str, message: &'static str) -> Self {
        Self { code, message: Cow::Borrowed(message), call: None, reference: None }
    }

    pub(super) fn told(code: &'static str, message: String) -> Self {
        Self { code, message: message.into(), call: None, reference: None }
    }

    pub(super) fn about(self, call: CallUuid) -> Self {
        Self { call: Some(call), ..self }
    }

    pub(super) fn named(self, reference: Option<String>) -> Self {
        Self { reference, ..self }
    }
}

/// What a phone hears.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Said<'a> {
    Registered {
        endpoint: &'a str,
        sip_uri: String,
        /// For `resume`.
        session: &'a str,
        /// The calls that it has again.
        calls: &'a [CallUuid],
        resume_within_seconds: u64,
        /// What is said can be written here.
        captions: bool,
        /// The languages that a person may choose from for that, and the one that it is where none is named.
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
        /// The business number by which they came.
        #[serde(skip_serializing_if = "str::is_empty")]
        via: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        via_alias: &'a str,
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
    Error {
        code: &'a str,
        message: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        call: Option<CallUuid>,
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<&'a str>,
    },
}

impl Said<'_> {
    /// The message's text.
    pub(super) fn text(&self) -> String {
        // Words and numbers: there is nothing in it that JSON could not say.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl<'a> From<&'a ToPhone> for Said<'a> {
    fn from(told: &'a ToPhone) -> Self {
        match told {
            ToPhone::Ring { call, from, to, caller_name, via: [via, via_alias], headers } => {
                Self::Ring {
                    call: *call,
                    from,
                    to,
                    caller_name,
                    via,
                    via_alias,
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
                message: "this server is stopping: no further calls; live ones go on",
            },
            ToPhone::Unregistered { why } => Self::Unregistered { why },
        }
    }
}

impl<'a> From<&'a Trouble> for Said<'a> {
    fn from(trouble: &'a Trouble) -> Self {
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
    use engine::call::captions::{Caption, Speaker};

    #[test]
    fn messages_are_read_or_named_and_say_no_secret() {
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
    fn what_a_phone_hears_is_json_with_its_kind() {
        let call = CallUuid(uuid::Uuid::nil());
        let ring = ToPhone::Ring {
            call,
            from: "919812345678".to_owned(),
            to: "sip:asha@h".to_owned(),
            caller_name: "Ravi \"R\"".to_owned(),
            via: ["918035737458".to_owned(), String::new()],
            headers: vec![("A".to_owned(), "1".to_owned())],
        };
        assert_eq!(
            Said::from(&ring).text(),
            "{\"type\":\"ring\",\"call\":\"00000000-0000-0000-0000-000000000000\",\"from\":\"919812345678\",\
             \"to\":\"sip:asha@h\",\"caller_name\":\"Ravi \\\"R\\\"\",\"via\":\"918035737458\",\"headers\":{\"X-PH-A\":\"1\"}}"
        );
        let said = Caption {
            speaker: Speaker::Them,
            line: 3,
            text: "Good \"morning\"".to_owned(),
            last: false,
        };
        let told = ToPhone::Caption { call, caption: said };
        assert_eq!(
            Said::from(&told).text(),
            "{\"type\":\"caption\",\"call\":\"00000000-0000-0000-0000-000000000000\",\"speaker\":\"them\",\"line\":3,\
             \"text\":\"Good \\\"morning\\\"\",\"last\":false}"
        );
        assert!(!format!("{told:?}").contains("morning"), "R22");
        let trouble = Trouble::new("no_call", "gone").about(call).named(Some("7".to_owned()));
        assert_eq!(
            Said::from(&trouble).text(),
            "{\"type\":\"error\",\"code\":\"no_call\",\"message\":\"gone\",\
             \"call\":\"00000000-0000-0000-0000-000000000000\",\"ref\":\"7\"}"
        );
    }
}
