//! The entries of the book and their rows in the store.

use serde::{Deserialize, Serialize};

use super::link::Link;
use super::panel::NumberSet;
use crate::admission::settings::{ApiKey, Permissions};
use model::Secret;
use model::{AppId, AuthId, E164, PhoneNumberId, Timestamp, WabaId};
use store::{SettingKind, SettingWrite};

/// An account or a subaccount.
#[derive(Clone, Debug)]
pub struct Account {
    pub auth_id: AuthId,
    /// The main account, if this is a subaccount.
    pub parent: Option<AuthId>,
    /// The auth token, followed by the previous one during a rotation.
    pub tokens: Vec<Secret>,
    /// The rotation of the newest token, if that token was created at run time.
    pub rotated: Option<TokenRotation>,
    /// Whether a token was created at run time but is encrypted with another `store.secret_key`.
    /// The encrypted token is kept until another one is created or that key is restored. `tokens`
    /// are those of the configuration then, which sign but do not authenticate.
    pub is_token_unreadable: bool,
    pub cps: Option<u32>,
    pub api_keys: Vec<ApiKey>,
    /// Whether the configuration file defines the account. It is removed with its entry there.
    pub in_file: bool,
    pub details: Details,
}

/// A token that was created at run time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRotation {
    /// A digest of the configuration's token at the time of the rotation. `None` if the account is
    /// not in the configuration, or if the tokens are unreadable.
    pub(super) instead_of: Option<String>,
    /// The end of the overlap with the previous token. `None` if it has ended.
    pub until: Option<Timestamp>,
}

/// The secrets that authenticate an account.
#[derive(Clone, Debug)]
pub struct AccountCredentials {
    pub auth_id: AuthId,
    /// The auth tokens, newest first.
    pub tokens: Vec<Secret>,
    pub api_keys: Vec<ApiKey>,
}

/// Descriptive fields of an account. The configuration does not contain them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Details {
    pub name: String,
    pub city: String,
    pub address: String,
    pub timezone: String,
    /// Whether the account is enabled. If `false`, its token and keys are rejected, but calls of
    /// its numbers are still taken.
    pub enabled: bool,
    pub created: Timestamp,
    pub modified: Option<Timestamp>,
}

impl Details {
    /// The details of a new account, created at `now`.
    pub fn new(name: String, enabled: bool, now: Timestamp) -> Self {
        let (city, address, timezone) = (String::new(), String::new(), "UTC".to_owned());
        Self { name, city, address, timezone, enabled, created: now, modified: None }
    }
}

/// An application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Application {
    pub id: AppId,
    pub account: AuthId,
    pub name: String,
    pub answer: Link,
    pub fallback: Link,
    pub hangup: Link,
    pub message: Link,
    /// Whether it is the default for new numbers.
    pub default_for_numbers: bool,
    /// Whether it is the default for endpoints without an application.
    pub default_for_endpoints: bool,
    pub public_uri: bool,
    pub log_incoming_messages: bool,
    pub created: Timestamp,
}

/// A WhatsApp Business Account and the account that it belongs to.
#[derive(Clone, Debug)]
pub struct Waba {
    pub id: WabaId,
    /// The account in the configuration, or the account that connected the WABA.
    pub of: AuthId,
    /// The subaccount that the WABA was assigned to at run time. A subaccount in the configuration
    /// takes precedence.
    pub given_to: Option<AuthId>,
    /// The token in the configuration.
    pub file_token: Option<Secret>,
    /// A token from a sign-up or from connecting a number.
    pub set_token: Option<Secret>,
    /// Whether `set_token` exists but is encrypted with another `store.secret_key`.
    pub is_token_unreadable: bool,
    /// Whether the configuration file defines the WABA.
    pub in_file: bool,
}

impl Waba {
    /// The account or subaccount that owns its numbers.
    pub fn account(&self) -> &AuthId {
        self.given_to.as_ref().unwrap_or(&self.of)
    }

    /// The token of the WABA. `None` if the node's default token is used.
    pub fn access_token(&self) -> Option<&Secret> {
        self.file_token.as_ref().or(self.set_token.as_ref())
    }
}

/// A business number.
#[derive(Clone, Debug)]
pub struct Number {
    pub number: E164,
    pub phone_number_id: PhoneNumberId,
    /// The WABA of the number. `None` if it is unknown.
    pub waba: Option<WabaId>,
    /// The owner while the number has no WABA.
    pub of: AuthId,
    pub permissions: Permissions,
    /// A token for this number alone.
    pub set_token: Option<Secret>,
    /// Whether `set_token` exists but is encrypted with another `store.secret_key`. The encrypted
    /// token is kept until another one is set or that key is restored.
    pub is_token_unreadable: bool,
    /// Whether the configuration file defines the number.
    pub in_file: bool,
    pub set: NumberSet,
}

/// The stored form of an account.
#[derive(Serialize, Deserialize)]
pub(super) struct AccountRow {
    pub(super) parent: Option<AuthId>,
    pub(super) details: Details,
    /// Whether the encrypted secret is a list of rotated tokens (`tokens`) instead of a single
    /// token.
    #[serde(default)]
    pub(super) rotated: bool,
    #[serde(default)]
    pub(super) previous_until: Option<Timestamp>,
}

/// The stored form of a WABA. Its token is the row's secret.
#[derive(Serialize, Deserialize)]
pub(super) struct WabaRow {
    #[serde(default)]
    pub(super) given_to: Option<AuthId>,
    /// The account that connected it, if it is not in the configuration.
    #[serde(default)]
    pub(super) of: Option<AuthId>,
}

/// Serializes an entry. This can't fail, because entries contain only strings and numbers.
fn json<T: Serialize>(entry: &T) -> String {
    serde_json::to_string(entry).unwrap_or_default()
}

impl Account {
    /// The tokens that authenticate, newest first.
    pub fn accepted_tokens(&self) -> &[Secret] {
        if self.is_token_unreadable { &[] } else { &self.tokens }
    }

    pub(super) fn row(&self) -> SettingWrite {
        let row = AccountRow {
            parent: self.parent.clone(),
            details: self.details.clone(),
            rotated: self.rotated.is_some(),
            previous_until: self.rotated.as_ref().and_then(|rotated| rotated.until),
        };
        SettingWrite {
            keeps_sealed: self.is_token_unreadable,
            ..write(SettingKind::Account, self.auth_id.as_str(), Some((json(&row), self.sealed())))
        }
    }
}

impl Application {
    pub(super) fn row(&self) -> SettingWrite {
        write(SettingKind::Application, self.id.as_str(), Some((json(self), None)))
    }
}

impl Waba {
    pub(super) fn row(&self) -> SettingWrite {
        let row = WabaRow {
            given_to: self.given_to.clone(),
            of: (!self.in_file).then(|| self.of.clone()),
        };
        let says = row.given_to.is_some()
            || row.of.is_some()
            || self.set_token.is_some()
            || self.is_token_unreadable;
        let body = says.then(|| (json(&row), self.set_token.clone()));
        SettingWrite {
            keeps_sealed: self.is_token_unreadable,
            ..write(SettingKind::Waba, self.id.as_str(), body)
        }
    }
}

impl Number {
    /// The id under which conversations and routing are stored.
    pub fn first_id(&self) -> &PhoneNumberId {
        self.set.first_id.as_ref().unwrap_or(&self.phone_number_id)
    }

    pub(super) fn row(&self) -> SettingWrite {
        let body = Some((json(&self.set), self.set_token.clone()));
        SettingWrite {
            keeps_sealed: self.is_token_unreadable,
            ..write(SettingKind::Number, self.number.as_str(), body)
        }
    }
}

pub(super) fn write(
    kind: SettingKind,
    id: &str,
    body: Option<(String, Option<Secret>)>,
) -> SettingWrite {
    SettingWrite { kind, id: id.to_owned(), body, keeps_sealed: false }
}
