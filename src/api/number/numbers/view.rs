//! The representation of phone numbers in the API.

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::super::Api;
use super::super::response::{Timestamp3339, etag};
use engine::admission::book::{Book, FileKeys, Link, Number, NumberSet, Registration};
use engine::numbers::{platform_of, quality_of};
use model::Origin;

/// A phone number.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PhoneNumber, examples(json!({"id": "1b7d4f0a-6f43-5a38-9a52-6d7f0c1f4d01", "number": "918035737458", "country": "IN", "countryName": "India", "capabilities": ["whatsapp"], "alias": "Desk", "whatsappPhoneNumberId": "106540352242922", "whatsappBusinessAccount": "1029384756", "account": "MAXXXXXXXXXXXXXXXXXX", "isSandbox": false, "provider": "meta", "verifiedName": "Shop", "platformType": "CLOUD_API", "qualityRating": "GREEN", "status": "CONNECTED", "syncedAt": "2026-11-21T22:50:00.000Z", "hasToken": true, "tokenInvalid": false, "subscriptionError": null, "tokenShut": false, "registration": {"state": "registered", "reason": null, "retryAfter": null}, "configurationType": "webhook", "webhookUrl": "https://app.example.com/messages", "callingEnabled": true, "callingDrift": null, "answerUrl": "https://app.example.com/answer", "answerMethod": "POST", "fallbackUrl": null, "fallbackMethod": "POST", "hangupUrl": null, "hangupMethod": "POST", "callsPerNumber": 1000, "callbackPermission": true, "activeAgent": null, "defaultRouting": "webhook", "defaultWebhook": "8f14e45f-ceea-467f-a8d5-4b8b8d9a1c20", "active": false, "connected": true, "liveCalls": 0, "openConversations": 3})))]
pub(super) struct NumberView {
    #[schema(value_type = String, format = Uuid)]
    id: Uuid,
    pub(super) number: String,
    /// ISO 3166 code. Empty if the country can't be derived from the digits.
    country: String,
    country_name: &'static str,
    capabilities: Vec<&'static str>,
    alias: String,
    whatsapp_phone_number_id: String,
    /// The WABA. Null if it is unknown, as for a sandbox number.
    whatsapp_business_account: Option<String>,
    /// The account that the number's calls belong to.
    account: String,
    is_sandbox: bool,
    provider: &'static str,
    verified_name: String,
    platform_type: String,
    quality_rating: String,
    /// Meta's status: `CONNECTED`, `PENDING`, …
    status: String,
    #[schema(value_type = Option<String>, format = DateTime)]
    synced_at: Option<Timestamp3339>,
    /// Whether there is an access token for Meta. The token is never shown.
    has_token: bool,
    /// Whether Meta refused the token when it was last used.
    token_invalid: bool,
    /// Why Meta did not subscribe the app to the WABA when the number was connected. Calls and
    /// messages may not arrive until a sync subscribes it.
    subscription_error: Option<String>,
    /// Whether the token can't be decrypted, because it was encrypted with another
    /// `store.secret_key`.
    token_shut: bool,
    registration: RegistrationView,
    configuration_type: &'static str,
    webhook_url: Option<String>,
    calling_enabled: bool,
    /// Settings that differ at Meta. Null if there are none.
    calling_drift: Option<CallingDrift>,
    answer_url: Option<String>,
    answer_method: &'static str,
    fallback_url: Option<String>,
    fallback_method: &'static str,
    hangup_url: Option<String>,
    hangup_method: &'static str,
    calls_per_number: u32,
    callback_permission: bool,
    #[schema(value_type = Option<String>, format = Uuid)]
    active_agent: Option<Uuid>,
    default_routing: &'static str,
    #[schema(value_type = Option<String>, format = Uuid)]
    default_webhook: Option<Uuid>,
    active: bool,
    connected: bool,
    /// Whether lists omit the number, because it was disconnected with `hide`.
    hidden: bool,
    /// The fields that the configuration file sets. Its values take effect again at the next start or
    /// reload of the node.
    set_in_configuration: Vec<&'static str>,
    pub(super) live_calls: u32,
    pub(super) open_conversations: u64,
}

/// The state of the registration with the Cloud API.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Registration)]
struct RegistrationView {
    /// `none`, `running`, `registered` or `failed`.
    state: &'static str,
    reason: Option<String>,
    #[schema(value_type = Option<String>, format = DateTime)]
    retry_after: Option<Timestamp3339>,
}

/// Meta's values of settings that differ from the values here.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct CallingDrift {
    #[serde(skip_serializing_if = "Option::is_none")]
    calling_enabled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    callback_permission: Option<bool>,
    /// Whether SIP is enabled at Meta, in which case calls do not arrive here.
    #[serde(skip_serializing_if = "Option::is_none")]
    sip: Option<bool>,
    /// Whether Meta exchanges media keys by SDES (`srtp_key_exchange_protocol`). If so, calls have
    /// no audio, because the node supports DTLS only.
    #[serde(skip_serializing_if = "Option::is_none")]
    sdes: Option<bool>,
}

/// The ETag of a number. It covers the settings, not values that change without a request.
pub(super) fn tag(number: &Number) -> String {
    etag(&number.set.panel())
}

impl RegistrationView {
    fn new(set: &NumberSet) -> Self {
        let (reason, again) = match &set.registration {
            Registration::Failed { reason, again } => (Some(reason.clone()), Some(*again)),
            Registration::None | Registration::Running | Registration::Registered => (None, None),
        };
        Self { state: set.registered(), reason, retry_after: again.map(Timestamp3339) }
    }
}

impl NumberView {
    pub(super) fn new(api: &Api, book: &Book, number: &Number) -> Self {
        let set = &number.set;
        let country = Origin::of(&number.number).country();
        let url = |link: &Link| link.url.as_ref().map(|url| url.0.to_string());
        let answer = book.answer_of(number);
        let drift = set.drift();
        let drift = drift.is_some().then_some(CallingDrift {
            calling_enabled: drift.calling_enabled,
            callback_permission: drift.callback_permission,
            sip: drift.sip,
            sdes: drift.sdes,
        });
        let routed = api.numbers.routing().of(&number.number);
        let meta = &set.at_meta;
        let at_meta = meta.calling.callback_permission;
        Self {
            id: number.number.resource_id(),
            number: number.number.to_string(),
            country: country.map(|country| country.to_string()).unwrap_or_default(),
            country_name: country.map_or("", |country| country.name()),
            capabilities: vec!["whatsapp"],
            alias: set.alias.clone(),
            whatsapp_phone_number_id: number.phone_number_id.to_string(),
            whatsapp_business_account: number.waba.as_ref().map(ToString::to_string),
            account: book.owner(number).to_string(),
            is_sandbox: number.waba.is_none(),
            provider: "meta",
            verified_name: meta.verified_name.clone(),
            platform_type: platform_of(set).to_owned(),
            quality_rating: quality_of(set).to_owned(),
            status: meta.status.clone(),
            synced_at: meta.synced.map(Timestamp3339),
            has_token: book.token_of(number).is_some(),
            token_invalid: meta.token_invalid,
            subscription_error: meta.unsubscribed.clone(),
            token_shut: book.has_unreadable_token(number),
            registration: RegistrationView::new(set),
            configuration_type: set.configuration.as_str(),
            webhook_url: set.webhook_url.as_ref().map(|url| url.0.to_string()),
            calling_enabled: set.calling_enabled,
            calling_drift: drift,
            answer_url: url(&answer),
            answer_method: answer.method.as_str(),
            fallback_url: url(&set.fallback),
            fallback_method: set.fallback.method.as_str(),
            hangup_url: url(&set.hangup),
            hangup_method: set.hangup.method.as_str(),
            calls_per_number: set.calls_per_number.unwrap_or_else(|| book.default_slots()),
            callback_permission: set.callback_permission.or(at_meta).unwrap_or_default(),
            active: routed.agent.is_some() && !set.inactive,
            active_agent: routed.agent,
            default_routing: routed.word(),
            default_webhook: routed.webhook,
            connected: !set.disconnected,
            hidden: set.hidden,
            set_in_configuration: set.file.as_ref().map(FileKeys::fields).unwrap_or_default(),
            // Filled in by the caller, with one query for a whole page.
            live_calls: 0,
            open_conversations: 0,
        }
    }
}
