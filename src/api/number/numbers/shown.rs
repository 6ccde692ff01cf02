//! A number as our API shows it: every field of `number-api.md` §2.

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::super::Api;
use super::super::Timestamp3339;
use super::super::ask;
use super::{time, word};
use crate::admission::book::{Book, Link, Number, NumberSet, Registration};
use crate::numbers::{platform_of, quality_of};
use model::Origin;

/// A number.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PhoneNumber, examples(json!({"id": "1b7d4f0a-6f43-5a38-9a52-6d7f0c1f4d01", "number": "918035737458", "country": "IN", "countryName": "India", "capabilities": ["whatsapp"], "alias": "Desk", "whatsappPhoneNumberId": "106540352242922", "whatsappBusinessAccount": "1029384756", "account": "MAXXXXXXXXXXXXXXXXXX", "isSandbox": false, "provider": "meta", "verifiedName": "Shop", "platformType": "CLOUD_API", "qualityRating": "GREEN", "status": "CONNECTED", "syncedAt": "2026-11-21T22:50:00.000Z", "hasToken": true, "tokenInvalid": false, "subscriptionError": null, "tokenShut": false, "registration": {"state": "registered", "reason": null, "retryAfter": null}, "configurationType": "webhook", "webhookUrl": "https://app.example.com/messages", "callingEnabled": true, "callingDrift": null, "answerUrl": "https://app.example.com/answer", "answerMethod": "POST", "fallbackUrl": null, "fallbackMethod": "POST", "hangupUrl": null, "hangupMethod": "POST", "callsPerNumber": 1000, "callbackPermission": true, "activeAgent": null, "defaultRouting": "webhook", "defaultWebhook": "8f14e45f-ceea-467f-a8d5-4b8b8d9a1c20", "active": false, "connected": true, "liveCalls": 0, "openConversations": 3})))]
pub(super) struct Shown {
    #[schema(value_type = String, format = Uuid)]
    id: Uuid,
    pub(super) number: String,
    /// ISO 3166; empty where the digits don't tell it.
    country: String,
    country_name: &'static str,
    capabilities: Vec<&'static str>,
    alias: String,
    whatsapp_phone_number_id: String,
    /// None: nobody has told, as of a sandbox.
    whatsapp_business_account: Option<String>,
    /// Whose calls its calls are.
    account: String,
    is_sandbox: bool,
    provider: &'static str,
    verified_name: String,
    platform_type: String,
    quality_rating: String,
    /// Meta's word: `CONNECTED`, `PENDING`, …
    status: String,
    #[schema(value_type = Option<String>, format = DateTime)]
    synced_at: Option<Timestamp3339>,
    /// There is a token to ask Meta with; it is never shown.
    has_token: bool,
    /// Meta refused that token when it was last asked.
    token_invalid: bool,
    /// Why Meta did not subscribe our app to its WABA when it was connected: nothing of it may come here. A sync tries once more.
    subscription_error: Option<String>,
    /// Its token can't be read: another `store.secret_key` sealed it. It is there again once that key is put back.
    token_shut: bool,
    registration: RegistrationShown,
    configuration_type: &'static str,
    webhook_url: Option<String>,
    calling_enabled: bool,
    /// What Meta has otherwise; none: nothing.
    calling_drift: Option<DriftShown>,
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
    pub(super) live_calls: u32,
    pub(super) open_conversations: u64,
}

/// How far registering is.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Registration)]
struct RegistrationShown {
    /// `none`, `running`, `registered` or `failed`.
    state: &'static str,
    reason: Option<String>,
    #[schema(value_type = Option<String>, format = DateTime)]
    retry_after: Option<Timestamp3339>,
}

/// What Meta has; fields that are as they were set here are left out.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CallingDrift)]
struct DriftShown {
    #[serde(skip_serializing_if = "Option::is_none")]
    calling_enabled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    callback_permission: Option<bool>,
    /// SIP is on at Meta: calls do not come here.
    #[serde(skip_serializing_if = "Option::is_none")]
    sip: Option<bool>,
    /// Media keys go by SDES at Meta (`srtp_key_exchange_protocol`): calls have no sound here, where DTLS is spoken.
    #[serde(skip_serializing_if = "Option::is_none")]
    sdes: Option<bool>,
}

/// The ETag of a number: of what people set, not of what happens by itself.
pub(in super::super) fn tag_of(number: &Number) -> String {
    ask::tag_of(&number.set.panel())
}

impl RegistrationShown {
    fn of(set: &NumberSet) -> Self {
        let (reason, again) = match &set.registration {
            Registration::Failed { reason, again } => (Some(reason.clone()), Some(*again)),
            Registration::None | Registration::Running | Registration::Registered => (None, None),
        };
        Self { state: set.registered(), reason, retry_after: time(again) }
    }
}

impl Shown {
    pub(super) fn of(api: &Api, book: &Book, number: &Number) -> Self {
        let set = &number.set;
        let country = match Origin::of(&number.number) {
            Origin::Country(country) => Some(country),
            Origin::NorthAmerica | Origin::Unassigned => None,
        };
        let url = |link: &Link| link.url.as_ref().map(|url| url.0.to_string());
        let answer = book.answer_of(number);
        let drift = set.drift();
        let drift = drift.is_some().then_some(DriftShown {
            calling_enabled: drift.calling_enabled,
            callback_permission: drift.callback_permission,
            sip: drift.sip,
            sdes: drift.sdes,
        });
        let live = api
            .gate
            .directory()
            .tables()
            .by_number(&number.number)
            .map(|entry| entry.slots.in_use());
        let routed = api.numbers.routed(&number.number);
        let told = &set.told;
        let at_meta = told.calling.callback_permission;
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
            verified_name: told.verified_name.clone(),
            platform_type: platform_of(set).to_owned(),
            quality_rating: quality_of(set).to_owned(),
            status: told.status.clone(),
            synced_at: time(told.synced),
            has_token: book.token_of(number).is_some(),
            token_invalid: told.token_invalid,
            subscription_error: told.unsubscribed.clone(),
            token_shut: book.is_shut(number),
            registration: RegistrationShown::of(set),
            configuration_type: set.configuration.as_str(),
            webhook_url: set.webhook_url.as_ref().map(|url| url.0.to_string()),
            calling_enabled: set.calling_enabled,
            calling_drift: drift,
            answer_url: url(&answer),
            answer_method: word(answer.method),
            fallback_url: url(&set.fallback),
            fallback_method: word(set.fallback.method),
            hangup_url: url(&set.hangup),
            hangup_method: word(set.hangup.method),
            calls_per_number: set.calls_per_number.unwrap_or_else(|| book.usual_slots()),
            callback_permission: set.callback_permission.or(at_meta).unwrap_or_default(),
            active: routed.agent.is_some() && !set.inactive,
            active_agent: routed.agent,
            default_routing: routed.word(),
            default_webhook: routed.webhook,
            connected: !set.disconnected,
            live_calls: live.unwrap_or_default(),
            // Counted behind this, of all that are shown at once.
            open_conversations: 0,
        }
    }
}
