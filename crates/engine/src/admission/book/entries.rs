//! What stands in the book, and how each entry is kept in the store.

use serde::{Deserialize, Serialize};

use super::panel::NumberSet;
use super::tokens::Rotated;
use crate::admission::settings::{ApiKey, Permissions};
use model::Secret;
use model::{AppId, AuthId, E164, Method, PhoneNumberId, Timestamp, WabaId};
use store::{SettingKind, SettingWrite};
use xml::ast::DocUrl;

/// An account or a subaccount.
#[derive(Clone, Debug)]
pub struct Account {
    pub auth_id: AuthId,
    /// The main account of a subaccount.
    pub parent: Option<AuthId>,
    /// The auth token, then the previous one while it is being changed.
    pub tokens: Vec<Secret>,
    /// The newest token was made here.
    pub rotated: Option<Rotated>,
    pub cps: Option<u32>,
    pub api_keys: Vec<ApiKey>,
    /// It stands in the configuration, and goes when it goes there.
    pub in_file: bool,
    pub details: Details,
}

/// What an account says of itself; none of it is in the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Details {
    pub name: String,
    pub city: String,
    pub address: String,
    pub timezone: String,
    /// `false`: its token and keys are refused. Calls of its numbers go on.
    pub enabled: bool,
    pub created: Timestamp,
    pub modified: Option<Timestamp>,
}

impl Details {
    /// Of an account that is first seen at `now`.
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
    /// For numbers that come later.
    pub default_for_numbers: bool,
    /// For endpoints that name none.
    pub default_for_endpoints: bool,
    pub public_uri: bool,
    pub log_incoming_messages: bool,
    pub created: Timestamp,
}

/// A URL and how it is asked; the method is kept where there is no URL yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    pub url: Option<DocUrl>,
    pub method: Method,
}

impl Link {
    /// Where there is a URL.
    pub fn get(&self) -> Option<(DocUrl, Method)> {
        self.url.clone().map(|url| (url, self.method))
    }
}

/// A WhatsApp Business Account, and whose calls its numbers' are.
#[derive(Clone, Debug)]
pub struct Waba {
    pub id: WabaId,
    /// As the configuration has it, or who connected it.
    pub of: AuthId,
    /// The subaccount it was given to; the configuration, naming a subaccount itself, takes its place.
    pub given_to: Option<AuthId>,
    /// The configuration's own token of it.
    pub file_token: Option<Secret>,
    /// A token that came with a number or a sign-up.
    pub set_token: Option<Secret>,
    /// There is such a token, and another `store.secret_key` sealed it.
    pub shut: bool,
    /// It stands in the configuration.
    pub in_file: bool,
}

impl Waba {
    /// The account or subaccount that has its numbers.
    pub fn account(&self) -> &AuthId {
        self.given_to.as_ref().unwrap_or(&self.of)
    }

    /// The token of its own; none: the node's default.
    pub fn access_token(&self) -> Option<&Secret> {
        self.file_token.as_ref().or(self.set_token.as_ref())
    }
}

/// A business number.
#[derive(Clone, Debug)]
pub struct Number {
    pub number: E164,
    pub phone_number_id: PhoneNumberId,
    /// None: nobody has told.
    pub waba: Option<WabaId>,
    /// Whose it is while it has no WABA.
    pub of: AuthId,
    pub permissions: Permissions,
    /// A token for this number alone.
    pub set_token: Option<Secret>,
    /// There is such a token, and another `store.secret_key` sealed it: it stays until another one is set, or that key is back.
    pub shut: bool,
    /// It stands in the configuration.
    pub in_file: bool,
    pub set: NumberSet,
}

/// An account's row.
#[derive(Serialize, Deserialize)]
pub(super) struct AccountRow {
    pub(super) parent: Option<AuthId>,
    pub(super) details: Details,
    /// Its secret holds tokens that took one another's place (`tokens`), not just the one.
    #[serde(default)]
    pub(super) rotated: bool,
    #[serde(default)]
    pub(super) previous_until: Option<Timestamp>,
}

/// A WABA's row; its token is the row's secret.
#[derive(Serialize, Deserialize)]
pub(super) struct WabaRow {
    #[serde(default)]
    pub(super) given_to: Option<AuthId>,
    /// Who connected it, where the configuration did not.
    #[serde(default)]
    pub(super) of: Option<AuthId>,
}

/// Words and numbers: there is nothing in an entry that JSON could not say.
fn json<T: Serialize>(entry: &T) -> String {
    serde_json::to_string(entry).unwrap_or_default()
}

impl Account {
    pub(super) fn row(&self) -> SettingWrite {
        let row = AccountRow {
            parent: self.parent.clone(),
            details: self.details.clone(),
            rotated: self.rotated.is_some(),
            previous_until: self.rotated.as_ref().and_then(|rotated| rotated.until),
        };
        write(SettingKind::Account, self.auth_id.as_str(), Some((json(&row), self.sealed())))
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
        let says =
            row.given_to.is_some() || row.of.is_some() || self.set_token.is_some() || self.shut;
        let body = says.then(|| (json(&row), self.set_token.clone()));
        SettingWrite { keeps_sealed: self.shut, ..write(SettingKind::Waba, self.id.as_str(), body) }
    }
}

impl Number {
    /// Under which its conversations and its routing are kept.
    pub fn mail_id(&self) -> &PhoneNumberId {
        self.set.first_id.as_ref().unwrap_or(&self.phone_number_id)
    }

    pub(super) fn row(&self) -> SettingWrite {
        let body = Some((json(&self.set), self.set_token.clone()));
        SettingWrite {
            keeps_sealed: self.shut,
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
