//! Bodies of requests about phone numbers, and the validation that needs nothing but the body.

use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;
use utoipa::openapi::schema::Object;
use uuid::Uuid;

use super::super::super::error::ApiError;
use super::super::request::parse_number;
use super::super::schema::{nullable, one_of};
use engine::numbers::{Change, Credentials, SignUp};
use model::{PhoneNumberId, Secret, WabaId, is_line};

/// Maximum length of an id of Meta's, in characters.
const ID_CHARS_MAX: usize = 64;
const NAME_CHARS_MAX: usize = 100;
const TOKEN_CHARS_MAX: usize = 4_096;

/// The settings that a request changes. `null` clears a setting.
#[derive(Default, Deserialize, ToSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = PhoneNumberPanel, examples(json!({"alias": "Desk", "callsPerNumber": 20})))]
pub(super) struct SettingsBody {
    /// The alias, at most 100 characters.
    #[serde(deserialize_with = "text_or_empty")]
    alias: Option<String>,
    #[schema(schema_with = configuration)]
    configuration_type: Option<String>,
    #[serde(deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    webhook_url: Option<Option<String>>,
    /// Whether calling is enabled. Changed at Meta first, like `callbackPermission`.
    calling_enabled: Option<bool>,
    #[serde(deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    answer_url: Option<Option<String>>,
    #[schema(schema_with = super::super::schema::method)]
    answer_method: Option<String>,
    #[serde(deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    fallback_url: Option<Option<String>>,
    #[schema(schema_with = super::super::schema::method)]
    fallback_method: Option<String>,
    #[serde(deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    hangup_url: Option<Option<String>>,
    #[schema(schema_with = super::super::schema::method)]
    hangup_method: Option<String>,
    /// null: the default of the configuration.
    #[serde(deserialize_with = "nullable")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 100_000)]
    calls_per_number: Option<Option<u32>>,
    callback_permission: Option<bool>,
    /// Whether the agent answers. With false, it stays silent.
    active: Option<bool>,
}

fn configuration() -> Object {
    one_of(&["webhook", "agent"], "Who answers: the webhook URL of the number, or its agent")
}

fn provider() -> Object {
    one_of(&["meta"], "Numbers of other providers can't be connected")
}

/// Deserializes `null` as an empty text.
fn text_or_empty<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Option::<String>::deserialize(from).map(|text| Some(text.unwrap_or_default()))
}

impl SettingsBody {
    pub(super) fn change(self) -> Change {
        Change {
            alias: self.alias,
            configuration: self.configuration_type,
            webhook_url: self.webhook_url,
            calling_enabled: self.calling_enabled,
            answer_url: self.answer_url,
            answer_method: self.answer_method,
            fallback_url: self.fallback_url,
            fallback_method: self.fallback_method,
            hangup_url: self.hangup_url,
            hangup_method: self.hangup_method,
            calls_per_number: self.calls_per_number,
            callback_permission: self.callback_permission,
            active: self.active,
        }
    }
}

/// The credentials of a number to be connected.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = PhoneNumberConnect, examples(json!({"displayName": "Brasil", "whatsappPhoneNumberId": "106540352242923", "whatsappBusinessAccount": "2029384756", "accessToken": "EAAG"})))]
pub(super) struct ConnectBody {
    #[schema(min_length = 1, max_length = 100)]
    display_name: String,
    /// The phone number. By default, it is read from Meta.
    number: Option<String>,
    /// `meta`, the only provider.
    #[schema(schema_with = provider)]
    provider: Option<String>,
    whatsapp_phone_number_id: String,
    whatsapp_business_account: Option<String>,
    /// The access token. It is verified at Meta, stored encrypted, and not shown again.
    #[schema(min_length = 1, max_length = 4_096)]
    access_token: String,
    /// true requires `assignedAgent`.
    active: Option<bool>,
    pub(super) assigned_agent: Option<Uuid>,
}

impl ConnectBody {
    pub(super) fn validate(self) -> Result<Credentials, ApiError> {
        let display_name = self.display_name.trim().to_owned();
        if !is_line(&display_name, 1..=NAME_CHARS_MAX) {
            return Err(ApiError::bad_value(
                "displayName",
                "displayName must be 1 to 100 characters",
            ));
        }
        if self.provider.is_some_and(|provider| provider != "meta") {
            return Err(ApiError::bad_value(
                "provider",
                "provider must be meta: numbers of other providers, such as Twilio, can't be \
                 connected; move the number to Meta's Cloud API first",
            ));
        }
        let number = match self.number.as_deref().map(str::trim).filter(|text| !text.is_empty()) {
            None => None,
            Some(text) => {
                let error =
                    || ApiError::bad_value("number", "number must be digits with the country code");
                Some(parse_number(text).ok_or_else(error)?)
            }
        };
        let token = self.access_token.trim();
        if token.is_empty()
            || token.len() > TOKEN_CHARS_MAX
            || token.bytes().any(|b| !b.is_ascii_graphic())
        {
            return Err(ApiError::bad_value(
                "accessToken",
                "accessToken must be Meta's token: 1 to 4,096 characters without spaces",
            ));
        }
        let id = parse_id("whatsappPhoneNumberId", &self.whatsapp_phone_number_id)?;
        let waba = parse_optional_id(
            "whatsappBusinessAccount",
            self.whatsapp_business_account.as_deref(),
        )?;
        match (self.active, self.assigned_agent) {
            (Some(true), None) => Err(ApiError::bad_value(
                "assignedAgent",
                "assignedAgent is required if active is true",
            )),
            // The handler looks the agent up.
            (active, _) => Ok(Credentials {
                display_name,
                number,
                id: PhoneNumberId::from(id),
                waba: waba.map(WabaId::from),
                token: Secret::new(token),
                active,
            }),
        }
    }
}

/// The result of Meta's embedded sign-up.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = PhoneNumberSignUp, examples(json!({"code": "AQB8", "whatsappBusinessAccount": "2029384756"})))]
pub(super) struct SignUpBody {
    /// The code that the sign-up window returned.
    #[schema(min_length = 1, max_length = 4_096)]
    code: String,
    /// The URL to which the sign-up window returned, if it did.
    redirect_uri: Option<String>,
    whatsapp_business_account: Option<String>,
    whatsapp_phone_number_id: Option<String>,
}

impl SignUpBody {
    pub(super) fn validate(self) -> Result<SignUp, ApiError> {
        let code = self.code.trim().to_owned();
        if code.is_empty()
            || code.len() > TOKEN_CHARS_MAX
            || code.bytes().any(|b| !b.is_ascii_graphic())
        {
            return Err(ApiError::bad_value(
                "code",
                "code must be the code that Meta's sign-up window returned",
            ));
        }
        let redirect_uri = self.redirect_uri.filter(|uri| !uri.is_empty());
        if redirect_uri.as_ref().is_some_and(|uri| {
            uri.len() > TOKEN_CHARS_MAX || uri.bytes().any(|b| !b.is_ascii_graphic())
        }) {
            return Err(ApiError::bad_value(
                "redirectUri",
                "redirectUri must be the URL that Meta's sign-up window returned to",
            ));
        }
        let waba = parse_optional_id(
            "whatsappBusinessAccount",
            self.whatsapp_business_account.as_deref(),
        )?;
        let number =
            parse_optional_id("whatsappPhoneNumberId", self.whatsapp_phone_number_id.as_deref())?;
        Ok(SignUp {
            code,
            redirect_uri,
            waba: waba.map(WabaId::from),
            id: number.map(PhoneNumberId::from),
        })
    }
}

/// Options for taking a number out of service.
#[derive(Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(as = PhoneNumberDisconnect, examples(json!({"hide": true})))]
pub(super) struct DisconnectBody {
    /// Also omit the number from lists until it is connected again (default false). A number may
    /// already be disconnected for this.
    pub(super) hide: bool,
}

/// The two-step verification PIN for a registration.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PhoneNumberPin, examples(json!({"pin": "123456"})))]
pub(super) struct PinBody {
    #[schema(pattern = "^[0-9]{6}$")]
    pub(super) pin: String,
}

fn parse_id(field: &'static str, text: &str) -> Result<String, ApiError> {
    let text = text.trim();
    let fits = (1..=ID_CHARS_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if fits {
        Ok(text.to_owned())
    } else {
        Err(ApiError::bad_value(field, format!("{field} must be an id of Meta's: digits")))
    }
}

fn parse_optional_id(field: &'static str, text: Option<&str>) -> Result<Option<String>, ApiError> {
    text.filter(|text| !text.trim().is_empty()).map(|text| parse_id(field, text)).transpose()
}
