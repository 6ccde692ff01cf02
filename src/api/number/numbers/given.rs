//! What comes in about a number: read by the names of `number-api.md` §2, nothing judged yet.

use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;
use utoipa::openapi::schema::Object;
use uuid::Uuid;

use super::super::ask::{self, Fault, given};
use super::super::bodies::one_of;
use crate::numbers::{Change, Credentials, SignUp};
use model::Secret;
use model::{E164, PhoneNumberId, WabaId};

/// Longest id of Meta's, name and token, in characters.
const ID_MAX: usize = 64;
const NAME_MAX: usize = 100;
const TOKEN_MAX: usize = 4_096;

/// `PATCH`: only what changes; `null` empties what can be empty.
#[derive(Default, Deserialize, ToSchema)]
#[serde(default, rename_all = "camelCase")]
#[schema(as = PhoneNumberPanel, examples(json!({"alias": "Desk", "callsPerNumber": 20})))]
pub(super) struct Panel {
    /// At most 100 characters.
    #[serde(deserialize_with = "text_or_empty")]
    alias: Option<String>,
    #[schema(schema_with = configuration)]
    configuration_type: Option<String>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    webhook_url: Option<Option<String>>,
    /// Written at Meta first, as is `callbackPermission`.
    calling_enabled: Option<bool>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    answer_url: Option<Option<String>>,
    #[schema(schema_with = super::super::bodies::method)]
    answer_method: Option<String>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    fallback_url: Option<Option<String>>,
    #[schema(schema_with = super::super::bodies::method)]
    fallback_method: Option<String>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    hangup_url: Option<Option<String>>,
    #[schema(schema_with = super::super::bodies::method)]
    hangup_method: Option<String>,
    #[serde(deserialize_with = "given")]
    /// null: what the configuration has.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 100_000)]
    calls_per_number: Option<Option<u32>>,
    callback_permission: Option<bool>,
    /// false: its agent stays silent.
    active: Option<bool>,
}

fn configuration() -> Object {
    one_of(&["webhook", "agent"], "Who answers: the number's webhook URL, or its agent")
}

/// `null` is an empty text.
fn text_or_empty<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Option::<String>::deserialize(from).map(|text| Some(text.unwrap_or_default()))
}

impl Panel {
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

/// `POST /phone-numbers/`.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PhoneNumberConnect, examples(json!({"displayName": "Brasil", "whatsappPhoneNumberId": "106540352242923", "whatsappBusinessAccount": "2029384756", "accessToken": "EAAG"})))]
pub(super) struct Connect {
    #[schema(min_length = 1, max_length = 100)]
    display_name: String,
    /// Read at Meta where it is absent.
    number: Option<String>,
    whatsapp_phone_number_id: String,
    whatsapp_business_account: Option<String>,
    /// Proven at Meta, sealed, and not shown again.
    #[schema(min_length = 1, max_length = 4_096)]
    access_token: String,
    /// true needs `assignedAgent`.
    active: Option<bool>,
    pub(super) assigned_agent: Option<Uuid>,
}

impl Connect {
    pub(super) fn read(self) -> Result<Credentials, Fault> {
        let display_name = self.display_name.trim().to_owned();
        if display_name.is_empty()
            || display_name.chars().count() > NAME_MAX
            || display_name.chars().any(char::is_control)
        {
            return Err(ask::bad("displayName", "displayName must have 1 to 100 characters"));
        }
        let number = match self.number.as_deref().map(str::trim).filter(|text| !text.is_empty()) {
            None => None,
            Some(text) => Some(digits(text)?),
        };
        let token = self.access_token.trim();
        if token.is_empty()
            || token.len() > TOKEN_MAX
            || token.bytes().any(|b| !b.is_ascii_graphic())
        {
            return Err(ask::bad(
                "accessToken",
                "accessToken must be Meta's token: 1 to 4,096 characters without spaces",
            ));
        }
        let id = id("whatsappPhoneNumberId", &self.whatsapp_phone_number_id)?;
        let waba =
            optional_id("whatsappBusinessAccount", self.whatsapp_business_account.as_deref())?;
        match (self.active, self.assigned_agent) {
            (Some(true), None) => {
                Err(ask::bad("assignedAgent", "assignedAgent is needed where active is true"))
            }
            // Whether it is there is looked up by who connects.
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

/// `POST /phone-numbers/signup/`.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PhoneNumberSignUp, examples(json!({"code": "AQB8", "whatsappBusinessAccount": "2029384756"})))]
pub(super) struct Signed {
    /// What the window gave.
    #[schema(min_length = 1, max_length = 4_096)]
    code: String,
    /// Where the window came back to, if it did.
    redirect_uri: Option<String>,
    whatsapp_business_account: Option<String>,
    whatsapp_phone_number_id: Option<String>,
}

impl Signed {
    pub(super) fn read(self) -> Result<SignUp, Fault> {
        let code = self.code.trim().to_owned();
        if code.is_empty() || code.len() > TOKEN_MAX || code.bytes().any(|b| !b.is_ascii_graphic())
        {
            return Err(ask::bad("code", "code must be what Meta's sign-up window gave"));
        }
        let redirect_uri = self.redirect_uri.filter(|uri| !uri.is_empty());
        if redirect_uri
            .as_ref()
            .is_some_and(|uri| uri.len() > TOKEN_MAX || uri.bytes().any(|b| !b.is_ascii_graphic()))
        {
            return Err(ask::bad(
                "redirectUri",
                "redirectUri must be the URL that Meta's window came back to",
            ));
        }
        let waba =
            optional_id("whatsappBusinessAccount", self.whatsapp_business_account.as_deref())?;
        let number =
            optional_id("whatsappPhoneNumberId", self.whatsapp_phone_number_id.as_deref())?;
        Ok(SignUp {
            code,
            redirect_uri,
            waba: waba.map(WabaId::from),
            id: number.map(PhoneNumberId::from),
        })
    }
}

/// `POST …/register/`.
#[derive(Deserialize, ToSchema)]
#[schema(as = PhoneNumberPin, examples(json!({"pin": "123456"})))]
pub(super) struct Pin {
    #[schema(pattern = "^[0-9]{6}$")]
    pub(super) pin: String,
}

fn digits(text: &str) -> Result<E164, Fault> {
    ask::digits(text).ok_or_else(|| ask::bad("number", "number must be digits with country code"))
}

fn id(field: &str, text: &str) -> Result<String, Fault> {
    let text = text.trim();
    let fits = (1..=ID_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if fits {
        Ok(text.to_owned())
    } else {
        Err(ask::bad(field, &format!("{field} must be Meta's id: digits")))
    }
}

fn optional_id(field: &str, text: Option<&str>) -> Result<Option<String>, Fault> {
    text.filter(|text| !text.trim().is_empty()).map(|text| id(field, text)).transpose()
}
