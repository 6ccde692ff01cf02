//! Graph requests about business numbers and their WABAs: a number's details, its calling settings,
//! registration, and the subscriptions of the node's app. Payloads are written strictly and read
//! tolerantly.

use serde_json::{Map, Value, json};

use super::graph::{ANSWER_MAX, Graph, UNREADABLE};
use super::request::{Node, OTHER, read};
use super::templates::{self, Template};
use super::types::text_or_digits;
use machine::GraphOutcome;
use model::{PhoneNumberId, Secret, Timestamp, WabaId, digits_of};

/// The fields requested of a number.
const FIELDS: &str = "id,display_phone_number,verified_name,quality_rating,platform_type,status";
/// The page size. Up to 20 pages are read per WABA, which gives 2,000 numbers.
const PAGE: usize = 100;
/// The maximum length of a stored text, in characters.
const TEXT_MAX: usize = 200;
/// The webhook fields that the node's app needs.
pub const FIELDS_NEEDED: &[&str] = &[
    "calls",
    "messages",
    "account_update",
    "account_settings_update",
    "phone_number_quality_update",
];

/// A number, as Graph describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PhoneNumber {
    pub id: String,
    /// The phone number in digits.
    pub number: String,
    pub verified_name: String,
    /// Meta's value in capitals. Empty if absent.
    pub quality_rating: String,
    pub platform_type: String,
    pub status: String,
}

/// The calling settings of a number. `None` if Meta does not state a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallingSettings {
    pub enabled: Option<bool>,
    pub callback_permission: Option<bool>,
    pub sip: Option<bool>,
    /// Whether media keys are exchanged in the SDP (SDES). Offhook uses DTLS, so such calls would
    /// have no audio.
    pub sdes: Option<bool>,
    /// Whether Meta restricts calling at present.
    pub restricted: bool,
}

/// A change of calling settings. `None` keeps the current value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallingChange {
    pub enabled: Option<bool>,
    pub callback_permission: Option<bool>,
}

/// The webhook subscription of the node's app.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscription {
    /// The webhook URL. Empty without a subscription.
    pub url: String,
    pub fields: Vec<String>,
    /// Whether the subscription is switched off.
    pub inactive: bool,
}

/// Meta's description of an access token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenInfo {
    pub valid: bool,
    /// The expiry time. `None` if the token does not expire.
    pub expires: Option<Timestamp>,
    pub scopes: Vec<String>,
    /// The app that the token was issued for. `None` if Meta does not state it.
    pub app: Option<String>,
    /// The WhatsApp Business Accounts that the token grants access to.
    pub wabas: Vec<WabaId>,
}

/// A business number at Graph, with [`Graph::number`](super::Graph::number).
pub struct NumberNode<'a>(Node<'a>);

impl Graph {
    /// A number, with the token for requests about it, or `None` for the node's default token.
    pub fn number(&self, id: &PhoneNumberId, token: Option<&Secret>) -> NumberNode<'_> {
        NumberNode(Node::new(self, id.as_str(), token))
    }

    /// A WhatsApp Business Account.
    pub fn waba(&self, id: &WabaId, token: Option<&Secret>) -> WabaNode<'_> {
        WabaNode(Node::new(self, id.as_str(), token))
    }

    /// The node's app.
    pub fn app<'a>(&'a self, id: &'a str, secret: &'a Secret) -> AppNode<'a> {
        AppNode { graph: self, id, secret }
    }
}

impl NumberNode<'_> {
    /// Reads the number with `GET /{phone_number_id}`.
    ///
    /// # Errors
    /// Returns the outcome of the last attempt.
    pub async fn details(&self) -> Result<PhoneNumber, GraphOutcome> {
        let answer = self.0.get(&format!("?fields={FIELDS}"), OTHER).await?;
        PhoneNumber::read(&answer).ok_or(UNREADABLE)
    }

    /// Reads the calling settings with `GET /{phone_number_id}/settings`.
    ///
    /// # Errors
    /// Returns the outcome of the last attempt.
    pub async fn calling_settings(&self) -> Result<CallingSettings, GraphOutcome> {
        let answer = self.0.get("settings", "settings").await?;
        answer.get("calling").map(CallingSettings::read).ok_or(UNREADABLE)
    }

    /// Changes the calling settings with `POST /{phone_number_id}/settings`. Leaves SIP and SDES
    /// unchanged.
    ///
    /// # Errors
    /// Returns the outcome of the last attempt.
    pub async fn change_calling(&self, change: CallingChange) -> Result<(), GraphOutcome> {
        let body = json!({"calling": change.members()});
        self.0.post("settings", "settings", &body).await.map(drop)
    }

    /// Registers the number with `POST /{phone_number_id}/register`.
    ///
    /// # Errors
    /// Returns the outcome of the last attempt.
    pub async fn register(&self, pin: &Secret) -> Result<(), GraphOutcome> {
        let body = json!({"messaging_product": "whatsapp", "pin": pin.reveal()});
        self.0.post("register", OTHER, &body).await.map(drop)
    }

    /// Returns whether the number is also used in the WhatsApp Business app (coexistence). This is
    /// a separate request because not every Graph version has the field.
    ///
    /// # Errors
    /// Returns the outcome of the last attempt.
    pub async fn is_on_phone(&self) -> Result<bool, GraphOutcome> {
        let answer = self.0.get("?fields=is_on_biz_app", OTHER).await?;
        Ok(answer.get("is_on_biz_app").and_then(Value::as_bool).unwrap_or_default())
    }
}

/// A WhatsApp Business Account at Graph, with [`Graph::waba`](super::Graph::waba).
pub struct WabaNode<'a>(Node<'a>);

impl WabaNode<'_> {
    /// Reads all pages of `GET /{waba_id}/phone_numbers`.
    ///
    /// # Errors
    /// Returns the outcome of the last attempt.
    pub async fn numbers(&self) -> Result<Vec<PhoneNumber>, GraphOutcome> {
        let query = [("fields", FIELDS), ("limit", &PAGE.to_string())];
        let of = ("phone_numbers", &query[..], PAGE);
        self.0.list(of, ANSWER_MAX, OTHER, PhoneNumber::read).await
    }

    /// Reads the approved templates with `GET /{waba_id}/message_templates`, ordered by name and
    /// language.
    ///
    /// # Errors
    /// Returns the outcome of the last attempt.
    pub async fn templates(&self) -> Result<Vec<Template>, GraphOutcome> {
        templates::list(&self.0).await
    }

    /// Subscribes the node's app to the WABA's webhooks with `POST /{waba_id}/subscribed_apps`.
    ///
    /// # Errors
    /// Returns the outcome of the last attempt.
    pub async fn subscribe_app(&self) -> Result<(), GraphOutcome> {
        self.0.post("subscribed_apps", OTHER, &json!({})).await.map(drop)
    }

    /// The ids of the apps that get the WABA's webhooks, from `GET /{waba_id}/subscribed_apps`.
    ///
    /// # Errors
    /// Returns the outcome of the last attempt.
    pub async fn subscribed_apps(&self) -> Result<Vec<String>, GraphOutcome> {
        let answer = self.0.get("subscribed_apps", OTHER).await?;
        let apps = answer.get("data").and_then(Value::as_array).ok_or(UNREADABLE)?;
        Ok(apps.iter().filter_map(|app| text_at(app, "/whatsapp_business_api_data/id")).collect())
    }
}

/// The node's app at Graph, with [`Graph::app`](super::Graph::app).
pub struct AppNode<'a> {
    graph: &'a Graph,
    id: &'a str,
    secret: &'a Secret,
}

impl AppNode<'_> {
    /// An object that the app reads with its own access token.
    fn node(&self, id: &str) -> Node<'_> {
        let token = Secret::new(format!("{}|{}", self.id, self.secret.reveal()));
        Node::new(self.graph, id, Some(&token))
    }

    /// The webhook fields and URL of the node's app, from `GET /{app_id}/subscriptions`.
    ///
    /// # Errors
    /// Returns the outcome of the last attempt.
    pub async fn subscription(&self) -> Result<Subscription, GraphOutcome> {
        let answer = self.node(self.id).get("subscriptions", OTHER).await?;
        let all = answer.get("data").and_then(Value::as_array).ok_or(UNREADABLE)?;
        let ours = all
            .iter()
            .find(|one| text_at(one, "/object").as_deref() == Some("whatsapp_business_account"));
        let Some(ours) = ours else { return Ok(Subscription::default()) };
        let fields =
            ours.get("fields").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let name =
            |field: &Value| field.as_str().map(str::to_owned).or_else(|| text_at(field, "/name"));
        Ok(Subscription {
            url: text_at(ours, "/callback_url").unwrap_or_default(),
            fields: fields.iter().filter_map(name).collect(),
            inactive: ours.get("active").and_then(Value::as_bool) == Some(false),
        })
    }

    /// Exchanges the code of an embedded sign-up for an access token with `POST
    /// /oauth/access_token`.
    ///
    /// # Errors
    /// Returns the outcome of the request. A code can be used only once.
    pub async fn exchange_code(
        &self,
        code: &str,
        redirect_uri: Option<&str>,
    ) -> Result<Secret, GraphOutcome> {
        let mut body = json!({"client_id": self.id, "client_secret": self.secret.reveal(),
            "code": code, "grant_type": "authorization_code"});
        if let (Some(members), Some(uri)) = (body.as_object_mut(), redirect_uri) {
            members.insert("redirect_uri".to_owned(), uri.into());
        }
        let answer = self.node("oauth").post("access_token", OTHER, &body).await?;
        text_at(&read(&answer)?, "/access_token")
            .filter(|t| !t.is_empty())
            .map(Secret::new)
            .ok_or(UNREADABLE)
    }

    /// Describes an access token. Sends `debug_token` as a POST with `method=get`, so that no token
    /// appears in a URL.
    ///
    /// # Errors
    /// Returns the outcome of the last attempt.
    pub async fn token_info(&self, token: &Secret) -> Result<TokenInfo, GraphOutcome> {
        let body = json!({"method": "get", "input_token": token.reveal()});
        let answer = self.node("debug_token").post("", OTHER, &body).await?;
        read(&answer)?.get("data").map(TokenInfo::read).ok_or(UNREADABLE)
    }
}

/// The text at a JSON pointer, truncated. Integers are accepted
/// (`docs/reference/meta.md#tolerant-reading`). An access token is never truncated.
fn text_at(value: &Value, at: &str) -> Option<String> {
    let text = text_or_digits(value.pointer(at)?)?;
    Some(match at {
        "/access_token" => text.into_owned(),
        _ => text.chars().take(TEXT_MAX).collect(),
    })
}

impl PhoneNumber {
    /// Parses a phone number object. `None` without an id and digits.
    pub fn read(object: &Value) -> Option<Self> {
        let text = |at: &str| text_at(object, at).unwrap_or_default();
        let word = |at: &str| text(at).to_ascii_uppercase();
        let (id, number) = (text("/id"), digits_of(&text("/display_phone_number")));
        let verified_name = text("/verified_name").chars().filter(|c| !c.is_control()).collect();
        let read = Self {
            id,
            number,
            verified_name,
            quality_rating: word("/quality_rating"),
            platform_type: word("/platform_type"),
            status: word("/status"),
        };
        (!read.id.is_empty() && !read.number.is_empty()).then_some(read)
    }
}

impl CallingSettings {
    /// Parses the `calling` object.
    pub fn read(calling: &Value) -> Self {
        let switch = |at: &str| match text_at(calling, at)?.to_ascii_uppercase().as_str() {
            "ENABLED" => Some(true),
            "DISABLED" => Some(false),
            _ => None,
        };
        let restrictions =
            calling.pointer("/restrictions/restrictions_list").and_then(Value::as_array);
        Self {
            enabled: switch("/status"),
            callback_permission: switch("/callback_permission_status"),
            sip: switch("/sip/status"),
            sdes: text_at(calling, "/srtp_key_exchange_protocol")
                .map(|word| word.eq_ignore_ascii_case("SDES")),
            restricted: restrictions.is_some_and(|list| !list.is_empty()),
        }
    }
}

impl CallingChange {
    /// Returns whether the change sets any value.
    pub fn is_some(&self) -> bool {
        *self != Self::default()
    }

    fn members(self) -> Map<String, Value> {
        let switch = |on: bool| json!(if on { "ENABLED" } else { "DISABLED" });
        let members =
            [("status", self.enabled), ("callback_permission_status", self.callback_permission)];
        members.into_iter().filter_map(|(name, on)| Some((name.to_owned(), switch(on?)))).collect()
    }
}

impl TokenInfo {
    /// Parses the `data` object.
    pub fn read(data: &Value) -> Self {
        let list = |at: &str| {
            data.pointer(at).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
        };
        let expires = data.get("expires_at").and_then(Value::as_i64).filter(|secs| *secs > 0);
        let granted = list("/granular_scopes").iter().filter(|scope| {
            text_at(scope, "/scope").is_some_and(|scope| scope.starts_with("whatsapp_business"))
        });
        let ids = granted.filter_map(|scope| scope.get("target_ids")?.as_array()).flatten();
        let mut wabas: Vec<WabaId> =
            ids.filter_map(|id| text_at(id, "")).map(WabaId::from).collect();
        wabas.sort();
        wabas.dedup();
        wabas.truncate(100);
        Self {
            valid: data.get("is_valid").and_then(Value::as_bool).unwrap_or_default(),
            expires: expires.map(Timestamp::from_secs),
            app: text_at(data, "/app_id").filter(|id| !id.is_empty()),
            scopes: list("/scopes").iter().filter_map(|scope| text_at(scope, "")).collect(),
            wabas,
        }
    }
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
        let page = fixture("phone_numbers");
        let all: Vec<_> =
            page["response"]["data"].as_array().unwrap().iter().map(PhoneNumber::read).collect();
        assert!(!all.is_empty() && all.iter().all(Option::is_some), "{all:?}");
        let first = all[0].clone().unwrap();
        assert!(first.number.bytes().all(|b| b.is_ascii_digit()), "{first:?}");
        let enable = fixture("settings_enable");
        let read = CallingSettings::read(&enable["request"]["calling"]);
        let change =
            CallingChange { enabled: read.enabled, callback_permission: read.callback_permission };
        let ours = Value::Object(change.members());
        assert_eq!(ours["status"], enable["request"]["calling"]["status"]);
    }

    #[test]
    fn reads_unusual_values() {
        let number = PhoneNumber::read(
            &json!({"id": 7, "display_phone_number": "+1 631-555-3601", "status": null,
            "verified_name": "A\u{7}b", "quality_rating": "green"}),
        );
        let number = number.unwrap();
        assert_eq!(
            (number.id.as_str(), number.number.as_str(), number.verified_name.as_str()),
            ("7", "16315553601", "Ab")
        );
        assert_eq!((number.quality_rating.as_str(), number.status.as_str()), ("GREEN", ""));
        for none in [
            json!({}),
            json!([]),
            json!({"id": "7"}),
            json!({"display_phone_number": "7"}),
            json!(null),
        ] {
            assert_eq!(PhoneNumber::read(&none), None, "{none}");
        }
        let settings =
            CallingSettings::read(&json!({"status": "enabled", "sip": {"status": "MAYBE"},
            "restrictions": {"restrictions_list": [{}]}}));
        assert_eq!((settings.enabled, settings.sip, settings.restricted), (Some(true), None, true));
        let sdes =
            |word: &str| CallingSettings::read(&json!({"srtp_key_exchange_protocol": word})).sdes;
        assert_eq!((sdes("SDES"), sdes("DTLS"), settings.sdes), (Some(true), Some(false), None));
        assert_eq!(CallingSettings::read(&json!(null)), CallingSettings::default());
        let token = TokenInfo::read(
            &json!({"is_valid": true, "expires_at": 0, "granular_scopes": [
            {"scope": "whatsapp_business_management", "target_ids": ["2", 1]}, {"scope": "email", "target_ids": ["3"]}, 5]}),
        );
        assert_eq!((token.valid, token.expires), (true, None));
        assert_eq!(token.wabas, [WabaId::from("1"), WabaId::from("2")]);
        assert!(!CallingChange::default().is_some());
    }
}
