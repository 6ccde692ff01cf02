//! The settings that admission and its [`Book`](super::book::Book) read from the configuration:
//! limits, calling permissions, accounts, WABAs and numbers.

use model::{AppId, AuthId, Country, E164, Method, PhoneNumberId, Role, Secret, WabaId};
use xml::ast::DocUrl;

/// The settings from the configuration that a [`Book`](super::book::Book) needs.
#[derive(Clone, Copy, Debug)]
pub struct AdmissionSettings<'c> {
    pub limits: &'c Limits,
    pub permissions: &'c Permissions,
    pub accounts: &'c [AccountSettings],
    pub wabas: &'c [WabaSettings],
    pub numbers: &'c [NumberSettings],
    /// `meta.app_id`.
    pub app_id: Option<&'c str>,
    /// `meta.app_secret`.
    pub app_secret: &'c Secret,
    /// `meta.access_token`, used for WABAs without their own token.
    pub access_token: Option<&'c Secret>,
    /// `answer.allow_insecure`.
    pub allow_insecure: bool,
}

/// An owned copy of [`AdmissionSettings`].
#[derive(Clone, Debug)]
pub(super) struct OwnedSettings {
    limits: Limits,
    permissions: Permissions,
    accounts: Vec<AccountSettings>,
    wabas: Vec<WabaSettings>,
    numbers: Vec<NumberSettings>,
    app_id: Option<String>,
    app_secret: Secret,
    access_token: Option<Secret>,
    allow_insecure: bool,
}

impl From<AdmissionSettings<'_>> for OwnedSettings {
    fn from(settings: AdmissionSettings<'_>) -> Self {
        Self {
            limits: settings.limits.clone(),
            permissions: settings.permissions.clone(),
            accounts: settings.accounts.to_vec(),
            wabas: settings.wabas.to_vec(),
            numbers: settings.numbers.to_vec(),
            app_id: settings.app_id.map(str::to_owned),
            app_secret: settings.app_secret.clone(),
            access_token: settings.access_token.cloned(),
            allow_insecure: settings.allow_insecure,
        }
    }
}

impl OwnedSettings {
    pub(super) fn borrow(&self) -> AdmissionSettings<'_> {
        AdmissionSettings {
            limits: &self.limits,
            permissions: &self.permissions,
            accounts: &self.accounts,
            wabas: &self.wabas,
            numbers: &self.numbers,
            app_id: self.app_id.as_deref(),
            app_secret: &self.app_secret,
            access_token: self.access_token.as_ref(),
            allow_insecure: self.allow_insecure,
        }
    }
}

/// `[limits]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Simultaneous calls of a number.
    pub calls_per_number: u32,
    /// Calls per second of an account without its own `cps`.
    pub default_cps: u32,
    pub max_call_seconds: u64,
    pub drain_seconds: u64,
    pub allow_wa_bridge: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            calls_per_number: 1000,
            default_cps: 10,
            max_call_seconds: 14_400,
            drain_seconds: 60,
            allow_wa_bridge: false,
        }
    }
}

/// `[permissions]`: WhatsApp's rules for calls that the business places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permissions {
    pub enforce: bool,
    pub requests_per_day: u32,
    pub requests_per_week: u32,
    pub calls_per_day: u32,
    pub temporary_seconds: u64,
    pub request_seconds: u64,
    pub prompt_after: u32,
    pub revoke_after: u32,
    /// Business numbers of these countries may not place calls.
    pub barred_countries: Vec<Country>,
}

impl Default for Permissions {
    fn default() -> Self {
        Self {
            enforce: true,
            requests_per_day: 1,
            requests_per_week: 2,
            calls_per_day: 5,
            temporary_seconds: 604_800,
            request_seconds: 604_800,
            prompt_after: 2,
            revoke_after: 4,
            barred_countries: ["US", "CA", "TR", "EG", "NG", "VN"]
                .into_iter()
                .flat_map(Country::parse)
                .collect(),
        }
    }
}

/// `[[account]]`.
#[derive(Clone, Debug)]
pub struct AccountSettings {
    pub auth_id: AuthId,
    pub auth_token: Secret,
    /// The previous token during a rotation. While it is set, both tokens authenticate and sign.
    pub auth_token_previous: Option<Secret>,
    /// Calls per second. `None` is `limits.default_cps` for a main account, and no limit beside the
    /// main account's for a subaccount.
    pub cps: Option<u32>,
    pub api_keys: Vec<ApiKey>,
    /// The main account of a subaccount.
    pub parent: Option<AuthId>,
}

/// An API key of an account, sent as `X-API-Key`.
#[derive(Clone, Debug)]
pub struct ApiKey {
    /// The key's name in the audit trail. `None` for its place in the list.
    pub name: Option<String>,
    pub key: Secret,
    pub role: Role,
}

/// `[[waba]]`.
#[derive(Clone, Debug)]
pub struct WabaSettings {
    pub id: WabaId,
    pub account: AuthId,
    /// The access token. `None` if `meta.access_token` serves the WABA.
    pub access_token: Option<Secret>,
}

/// `[[number]]`.
#[derive(Clone, Debug)]
pub struct NumberSettings {
    pub number: E164,
    pub phone_number_id: PhoneNumberId,
    pub waba: WabaId,
    pub alias: String,
    pub calling_enabled: bool,
    /// Whether the file contains the key `calling_enabled`. If not, the value that was set at run
    /// time stays in effect.
    pub calling_named: bool,
    /// The application to use if the number has no `answer_url`.
    pub app_id: Option<AppId>,
    /// The answer URL as written, because signatures cover the text. A number with calling enabled
    /// has this or `app_id`.
    pub answer_url: Option<DocUrl>,
    pub answer_method: Method,
    pub fallback_url: Option<DocUrl>,
    pub fallback_method: Method,
    /// The hangup URL. `None` if hangup callbacks go to the answer URL.
    pub hangup_url: Option<DocUrl>,
    pub hangup_method: Method,
    pub webhook_url: Option<DocUrl>,
    /// Maximum number of simultaneous calls. `None` for `limits.calls_per_number`.
    pub calls_per_number: Option<u32>,
    /// `[permissions]`, overridden by this number's own keys.
    pub permissions: Permissions,
}
