//! Requests about call permissions: `messages` with a `call_permission_request`, and
//! `call_permissions`. Payloads are written strictly and read tolerantly. When to send them is
//! decided elsewhere.

use serde_json::{Value, json};

use super::graph::{Graph, UNREADABLE};
use super::request::{Node, message_id};
use machine::GraphOutcome;
use model::{PermissionStatus, PhoneNumberId, Secret, Timestamp};

/// The form of a permission request.
#[derive(Clone, PartialEq)]
pub enum Request {
    /// A free-form message, allowed within 24 hours of the user's last one.
    Text(Option<String>),
    /// A template with a permission component. Contains the `template` object of the message.
    Template(Value),
}

/// The call permission of a pair of business number and user, as Graph states it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallPermissions {
    pub status: PermissionStatus,
    pub start_call: Vec<Limit>,
    pub send_request: Vec<Limit>,
}

/// An entry of `limits[]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub period_secs: u64,
    pub used: u32,
    /// Time at which a used-up limit allows a request again. `None` if the limit is not used up.
    pub expires: Option<Timestamp>,
}

/// The call permissions of a number, with [`Graph::permissions`](super::Graph::permissions).
pub struct Permissions<'a>(Node<'a>);

impl Graph {
    /// The call permissions that users have given a number.
    pub fn permissions(&self, number: &PhoneNumberId, token: Option<&Secret>) -> Permissions<'_> {
        Permissions(Node::new(self, number.as_str(), token))
    }
}

impl Permissions<'_> {
    /// Reads a user's permission with `GET /{phone_number_id}/call_permissions`. `user` is a phone
    /// number in digits or a business-scoped id.
    ///
    /// # Errors
    /// Returns the outcome of the last attempt.
    pub async fn of_user(&self, user: &str) -> Result<CallPermissions, GraphOutcome> {
        let name = if is_digits(user) { "user_wa_id" } else { "recipient" };
        let query =
            url::form_urlencoded::Serializer::new(String::new()).append_pair(name, user).finish();
        let answer = self.0.get(&format!("call_permissions?{query}"), "permissions").await?;
        // A 200 that can't be read counts as a server error.
        CallPermissions::read(&answer).ok_or(UNREADABLE)
    }

    /// Sends a permission request with `POST /{phone_number_id}/messages`. Returns the message's
    /// id.
    ///
    /// # Errors
    /// Returns the outcome of the last attempt. After a timeout, the request may have been sent.
    pub async fn request(&self, user: &str, request: &Request) -> Result<String, GraphOutcome> {
        let answer = self.0.post("messages", "message", &request.message(user)).await?;
        Ok(message_id(&answer))
    }
}

fn is_digits(user: &str) -> bool {
    user.bytes().all(|b| b.is_ascii_digit())
}

impl Request {
    /// The body of the message.
    pub fn message(&self, user: &str) -> Value {
        let to = if is_digits(user) { "to" } else { "recipient" };
        let mut message =
            json!({"messaging_product": "whatsapp", "recipient_type": "individual", to: user});
        let (kind, content) = match self {
            Self::Template(template) => ("template", template.clone()),
            Self::Text(text) => {
                let mut content = json!({"type": "call_permission_request", "action": {"name": "call_permission_request"}});
                if let (Some(text), Some(members)) = (text, content.as_object_mut()) {
                    members.insert("body".to_owned(), json!({"text": text}));
                }
                ("interactive", content)
            }
        };
        if let Some(members) = message.as_object_mut() {
            members.insert("type".to_owned(), kind.into());
            members.insert(kind.to_owned(), content);
        }
        message
    }
}

/// Redacts the text.
impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Text(_) => "Text",
            Self::Template(_) => "Template",
        })
    }
}

impl CallPermissions {
    /// Parses Graph's answer. `None` if its status is missing or unknown.
    pub fn read(body: &Value) -> Option<Self> {
        let permission = body.get("permission")?;
        let status = match permission.get("status")?.as_str()?.to_ascii_lowercase().as_str() {
            "no_permission" => PermissionStatus::NoPermission,
            "temporary" => PermissionStatus::Temporary {
                until: permission.get("expiration_time").and_then(time),
            },
            "permanent" => PermissionStatus::Permanent,
            _ => return None,
        };
        let actions =
            body.get("actions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let limits = |name: &str| {
            let action = actions
                .iter()
                .find(|action| action.get("action_name").and_then(Value::as_str) == Some(name));
            let limits = action.and_then(|action| action.get("limits")).and_then(Value::as_array);
            limits.into_iter().flatten().filter_map(Limit::read).collect()
        };
        Some(Self {
            status,
            start_call: limits("start_call"),
            send_request: limits("send_call_permission_request"),
        })
    }

    /// The limit with this period.
    pub fn of_period(limits: &[Limit], period_secs: u64) -> Option<Limit> {
        limits.iter().copied().find(|limit| limit.period_secs == period_secs)
    }
}

impl Limit {
    fn read(limit: &Value) -> Option<Self> {
        Some(Self {
            period_secs: period(limit.get("time_period")?.as_str()?)?,
            used: u32::try_from(integer(limit.get("current_usage")?)?).unwrap_or(u32::MAX),
            expires: limit.get("limit_expiration_time").and_then(time),
        })
    }
}

/// A non-negative integer, as a number or a decimal string
/// (`docs/reference/meta.md#tolerant-reading`).
fn integer(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

fn time(value: &Value) -> Option<Timestamp> {
    integer(value).and_then(|secs| i64::try_from(secs).ok()).map(Timestamp::from_secs)
}

/// The seconds of an ISO 8601 duration of weeks, days, hours, minutes and seconds, such as `PT24H`
/// or `P7D`.
fn period(text: &str) -> Option<u64> {
    let rest = text.strip_prefix('P')?;
    let (mut total, mut digits, mut of_time) = (0u64, String::new(), false);
    for c in rest.chars() {
        let unit = match (c, of_time) {
            ('0'..='9', _) => {
                digits.push(c);
                continue;
            }
            ('T', false) if digits.is_empty() => {
                of_time = true;
                continue;
            }
            ('W', false) => 604_800,
            ('D', false) => 86_400,
            ('H', true) => 3_600,
            ('M', true) => 60,
            ('S', true) => 1,
            _ => return None,
        };
        total = total
            .checked_add(std::mem::take(&mut digits).parse::<u64>().ok()?.checked_mul(unit)?)?;
    }
    (digits.is_empty() && total > 0).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(name: &str) -> Value {
        let path = format!("{}/../../fixtures/meta/graph/{name}.json", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn reads_the_fixtures() {
        let none = CallPermissions::read(&fixture("call_permissions_none")["response"]).unwrap();
        assert_eq!(none, CallPermissions::default());
        let some =
            CallPermissions::read(&fixture("call_permissions_temporary")["response"]).unwrap();
        assert_eq!(
            some.status,
            PermissionStatus::Temporary { until: Some(Timestamp::from_secs(1_790_604_800)) }
        );
        let calls = CallPermissions::of_period(&some.start_call, 86_400).unwrap();
        assert_eq!((calls.used, calls.expires), (5, Some(Timestamp::from_secs(1_790_003_600))));
        assert_eq!(CallPermissions::of_period(&some.send_request, 86_400).unwrap().used, 0);
        assert_eq!(CallPermissions::of_period(&some.send_request, 604_800).unwrap().used, 1);
        let request = fixture("permission_request");
        let text = request["request"]["interactive"]["body"]["text"].as_str().unwrap();
        let ours = Request::Text(Some(text.to_owned()))
            .message(request["request"]["to"].as_str().unwrap());
        assert_eq!(ours, request["request"]);
    }

    #[test]
    fn reads_unusual_values() {
        let answer = |permission: Value, limit: Value| {
            CallPermissions::read(&json!({"permission": permission, "actions": [
                {"action_name": "start_call", "limits": [limit, 7, {}]}, {"action_name": "dance"}, null], "new": {}}))
        };
        let temporary = json!({"status": "TEMPORARY", "expiration_time": "1790604800"});
        let permissions =
            answer(temporary, json!({"time_period": "P1D", "current_usage": "3"})).unwrap();
        assert_eq!(
            permissions.status,
            PermissionStatus::Temporary { until: Some(Timestamp::from_secs(1_790_604_800)) }
        );
        assert_eq!(permissions.start_call, [Limit { period_secs: 86_400, used: 3, expires: None }]);
        let permissions = answer(
            json!({"status": "temporary", "expiration_time": -4}),
            json!({"time_period": "a day"}),
        );
        let without_limits = CallPermissions {
            status: PermissionStatus::Temporary { until: None },
            ..Default::default()
        };
        assert_eq!(permissions, Some(without_limits));
        let unknown = json!({"permission": {"status": "maybe"}});
        for unreadable in [json!(null), json!([]), json!({}), json!({"permission": 7}), unknown] {
            assert_eq!(CallPermissions::read(&unreadable), None, "{unreadable}");
        }
        let bare = json!({"permission": {"status": "permanent"}});
        assert_eq!(CallPermissions::read(&bare).unwrap().status, PermissionStatus::Permanent);
    }

    #[test]
    fn periods() {
        let rows = [
            ("PT24H", Some(86_400)),
            ("P1D", Some(86_400)),
            ("P7D", Some(604_800)),
            ("P1W", Some(604_800)),
            ("PT168H", Some(604_800)),
            ("P1DT12H30M5S", Some(131_405)),
            ("P", None),
            ("PT", None),
            ("P7", None),
            ("24H", None),
            ("PT24D", None),
            ("P99999999999999999999D", None),
        ];
        for (text, seconds) in rows {
            assert_eq!(period(text), seconds, "{text}");
        }
    }

    #[test]
    fn users_without_a_number_and_templates() {
        let message = Request::Text(None).message("IN.30155408211934477");
        assert_eq!(message["recipient"], "IN.30155408211934477");
        assert!(message.get("to").is_none() && message["interactive"].get("body").is_none());
        let template = json!({"name": "may_we_call", "language": {"code": "en"}});
        let message = Request::Template(template.clone()).message("919412341234");
        assert_eq!((&message["type"], &message["template"]), (&json!("template"), &template));
    }
}
