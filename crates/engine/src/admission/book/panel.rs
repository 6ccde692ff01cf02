//! The settings of a number that can be changed at run time, and its last known state at Meta. Both
//! are stored in the number's row.

use serde::{Deserialize, Serialize};

use super::link::Link;
use crate::admission::settings::NumberSettings;
use model::{AppId, AuthId, PhoneNumberId, Timestamp, WabaId};
use xml::ast::DocUrl;

/// The stored form of a number. Fields missing in rows of older versions get their defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NumberSet {
    pub alias: String,
    pub app: Option<AppId>,
    pub added: Timestamp,
    pub configuration: Configuration,
    pub calling_enabled: bool,
    pub answer: Link,
    pub fallback: Link,
    pub hangup: Link,
    /// URL that receives messages and statuses under [`Configuration::Webhook`].
    pub webhook_url: Option<DocUrl>,
    /// The owner of the number when one of these URLs was last set through the API.
    pub urls_of: Option<AuthId>,
    /// Maximum number of simultaneous calls. `None` for `limits.calls_per_number`.
    pub calls_per_number: Option<u32>,
    /// Whether a user's call permits the business to call back. `None` leaves Meta's setting
    /// unchanged.
    pub callback_permission: Option<bool>,
    /// Whether the number's AI agent is switched off.
    pub inactive: bool,
    /// Whether the number takes and places no calls and messages. Meta is not informed.
    pub disconnected: bool,
    /// Whether lists omit the number. Only a disconnected number is hidden.
    pub hidden: bool,
    pub registration: Registration,
    #[serde(rename = "told")]
    pub at_meta: MetaState,
    /// Set if the number was connected at run time and is not in the configuration.
    pub made: Option<ConnectedNumber>,
    /// Meta's first id of the number, under which its conversations are stored. `None` if it is the
    /// current one.
    pub first_id: Option<PhoneNumberId>,
    /// The keys that the configuration set when it was last applied. `None` before that, and in
    /// rows of older versions.
    pub file: Option<FileKeys>,
}

/// The keys of `[[number]]` that the configuration sets in place of values of the API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FileKeys {
    alias: Option<Overlay<String>>,
    app: Option<Overlay<Option<AppId>>>,
    calling_enabled: Option<Overlay<bool>>,
    answer: Option<Overlay<Link>>,
    fallback: Option<Overlay<Link>>,
    hangup: Option<Overlay<Link>>,
    webhook_url: Option<Overlay<Option<DocUrl>>>,
    calls_per_number: Option<Overlay<Option<u32>>>,
}

impl FileKeys {
    /// Returns the fields of the number API that the configuration sets.
    pub fn fields(&self) -> Vec<&'static str> {
        let fields = [
            ("alias", self.alias.is_some()),
            ("callingEnabled", self.calling_enabled.is_some()),
            ("answerUrl", self.answer.is_some()),
            ("fallbackUrl", self.fallback.is_some()),
            ("hangupUrl", self.hangup.is_some()),
            ("webhookUrl", self.webhook_url.is_some()),
            ("callsPerNumber", self.calls_per_number.is_some()),
        ];
        fields.into_iter().filter_map(|(field, is_set)| is_set.then_some(field)).collect()
    }
}

/// The value that the configuration sets for a key, and that of the API, which takes effect again
/// when the key is removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Overlay<T> {
    file: T,
    api: T,
}

impl<T: Clone + Default + PartialEq> Overlay<T> {
    /// Replaces the value that the configuration set before by the one that it sets now, if any.
    /// `is_of_api` tells whether a value without an overlay was set through the API.
    fn renew(overlay: &mut Option<Self>, value: &mut T, file: Option<T>, is_of_api: bool) {
        match overlay.take() {
            Some(before) if *value == before.file => *value = before.api,
            // It was set through the API since.
            Some(_) => {}
            None if !is_of_api && file.as_ref() == Some(value) => *value = T::default(),
            None => {}
        }
        *overlay = file.map(|file| Self { api: std::mem::replace(value, file.clone()), file });
    }

    /// Removes the value that was set through the API.
    fn clear(overlay: &mut Option<Self>, value: &mut T) {
        *value = overlay.as_ref().map(|overlay| overlay.file.clone()).unwrap_or_default();
        if let Some(overlay) = overlay {
            overlay.api = T::default();
        }
    }
}

/// Who handles the calls and messages of a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Configuration {
    /// The customer's server.
    #[default]
    Webhook,
    /// An AI agent.
    Agent,
}

impl Configuration {
    /// The word in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Agent => "agent",
        }
    }
}

/// A number that was connected at run time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectedNumber {
    pub phone_number_id: PhoneNumberId,
    pub waba: Option<WabaId>,
    pub of: AuthId,
}

/// The state of the registration with Meta's Cloud API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Registration {
    /// Never requested on this node.
    #[default]
    None,
    Running,
    Registered,
    Failed {
        reason: String,
        /// The earliest time of the next attempt.
        again: Timestamp,
    },
}

/// The state of a number at Meta.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MetaState {
    pub verified_name: String,
    /// `CLOUD_API`, `ON_PREMISE` or `NOT_APPLICABLE`. Empty if not yet fetched.
    pub platform_type: String,
    /// `GREEN`, `YELLOW`, `RED` or `UNKNOWN`. Empty if not yet fetched.
    pub quality_rating: String,
    pub status: String,
    /// When it was last fetched.
    pub synced: Option<Timestamp>,
    /// Whether Meta rejected the token at the last fetch.
    pub token_invalid: bool,
    /// Why the app could not be subscribed to the WABA. Its webhooks may not arrive.
    pub unsubscribed: Option<String>,
    pub calling: Calling,
}

/// Known [calling settings](docs/reference/meta.md#calling-settings) at Meta.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Calling {
    pub enabled: Option<bool>,
    pub callback_permission: Option<bool>,
    /// Whether calls go to a SIP server instead of this node.
    pub sip: Option<bool>,
    /// Whether SDES is on. If so, calls have no audio on this node.
    pub sdes: Option<bool>,
    pub restricted: Option<bool>,
}

/// Differences between Meta's settings and those set here. Each field holds Meta's value if it
/// differs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drift {
    pub calling_enabled: Option<bool>,
    pub callback_permission: Option<bool>,
    pub sip: Option<bool>,
    pub sdes: Option<bool>,
}

impl Drift {
    /// Whether any setting differs.
    pub fn is_some(&self) -> bool {
        *self != Self::default()
    }

    /// The names of the settings that differ.
    pub fn settings(&self) -> Vec<&'static str> {
        let Self { calling_enabled, callback_permission, sip, sdes } = self;
        [
            ("calling", calling_enabled),
            ("callback_permission", callback_permission),
            ("sip", sip),
            ("sdes", sdes),
        ]
        .into_iter()
        .filter_map(|(name, differs)| differs.is_some().then_some(name))
        .collect()
    }
}

impl NumberSet {
    /// Applies the keys that the configuration sets. A key that it no longer sets gets the value of
    /// the API again.
    pub(super) fn overlay(&mut self, file: &NumberSettings) {
        // Without a record of its keys, a value that equals that of the configuration is taken to
        // be from there, unless the number was connected at run time.
        let is_of_api = self.file.is_some() || self.made.is_some();
        let keys = self.file.get_or_insert_default();
        let alias = Some(file.alias.clone()).filter(|alias| !alias.is_empty());
        Overlay::renew(&mut keys.alias, &mut self.alias, alias, is_of_api);
        let app = file.app_id.clone().map(Some);
        Overlay::renew(&mut keys.app, &mut self.app, app, is_of_api);
        let calling_enabled = file.calling_named.then_some(file.calling_enabled);
        let calling = (&mut keys.calling_enabled, &mut self.calling_enabled);
        Overlay::renew(calling.0, calling.1, calling_enabled, is_of_api);
        let links = [
            (&mut keys.answer, &mut self.answer, &file.answer_url, file.answer_method),
            (&mut keys.fallback, &mut self.fallback, &file.fallback_url, file.fallback_method),
            (&mut keys.hangup, &mut self.hangup, &file.hangup_url, file.hangup_method),
        ];
        for (overlay, link, url, method) in links {
            let set = url.is_some().then(|| Link { url: url.clone(), method });
            Overlay::renew(overlay, link, set, is_of_api);
        }
        let webhook_url = file.webhook_url.clone().map(Some);
        Overlay::renew(&mut keys.webhook_url, &mut self.webhook_url, webhook_url, is_of_api);
        let calls = file.calls_per_number.map(Some);
        Overlay::renew(&mut keys.calls_per_number, &mut self.calls_per_number, calls, is_of_api);
    }

    /// The URLs of the number's own.
    pub(super) fn urls(&self) -> [Option<DocUrl>; 4] {
        let links = [&self.answer, &self.fallback, &self.hangup];
        let [answer, fallback, hangup] = links.map(|link| link.url.clone());
        [answer, fallback, hangup, self.webhook_url.clone()]
    }

    /// Removes the URLs that were set through the API.
    pub(super) fn clear_urls(&mut self) {
        let keys = self.file.get_or_insert_default();
        for (overlay, link) in [
            (&mut keys.answer, &mut self.answer),
            (&mut keys.fallback, &mut self.fallback),
            (&mut keys.hangup, &mut self.hangup),
        ] {
            Overlay::clear(overlay, link);
        }
        Overlay::clear(&mut keys.webhook_url, &mut self.webhook_url);
        self.urls_of = None;
    }

    /// Returns the fields of the number API that the configuration sets to other values than those
    /// in `other`. `self` is the number as the next start or reload leaves it.
    pub fn overwrites(&self, other: &Self) -> Vec<&'static str> {
        let differs = |field: &&str| match *field {
            "alias" => self.alias != other.alias,
            "callingEnabled" => self.calling_enabled != other.calling_enabled,
            "answerUrl" => self.answer != other.answer,
            "fallbackUrl" => self.fallback != other.fallback,
            "hangupUrl" => self.hangup != other.hangup,
            "webhookUrl" => self.webhook_url != other.webhook_url,
            _ => self.calls_per_number != other.calls_per_number,
        };
        let set = self.file.as_ref().map(FileKeys::fields).unwrap_or_default();
        set.into_iter().filter(differs).collect()
    }

    /// Compares Meta's known settings with those set here.
    pub fn drift(&self) -> Drift {
        let calling = &self.at_meta.calling;
        let wanted = self.callback_permission.or(calling.callback_permission);
        Drift {
            calling_enabled: calling.enabled.filter(|is| *is != self.calling_enabled),
            callback_permission: calling.callback_permission.filter(|is| Some(*is) != wanted),
            sip: calling.sip.filter(|on| *on && self.calling_enabled),
            sdes: calling.sdes.filter(|on| *on && self.calling_enabled),
        }
    }

    /// Whether the number is on Meta's Cloud API, which an AI agent requires.
    pub fn is_cloud(&self) -> bool {
        self.at_meta.platform_type == "CLOUD_API"
    }

    /// The settings that people change, without Meta's state and the registration. Used to detect
    /// concurrent edits.
    pub fn panel(&self) -> Self {
        Self {
            at_meta: MetaState::default(),
            registration: Registration::default(),
            file: None,
            ..self.clone()
        }
    }

    /// The word for the registration: `none`, `running`, `registered` or `failed`.
    pub fn registered(&self) -> &'static str {
        match &self.registration {
            // Registered elsewhere or earlier.
            Registration::None if self.is_cloud() => "registered",
            Registration::None => "none",
            Registration::Running => "running",
            Registration::Registered => "registered",
            Registration::Failed { .. } => "failed",
        }
    }

    /// Puts the number back into service.
    pub(crate) fn reconnect(&mut self) {
        (self.disconnected, self.hidden) = (false, false);
    }

    /// Clears the settings that do not survive a disconnect.
    pub(super) fn disconnect(&mut self) {
        self.disconnected = true;
        self.calling_enabled = false;
        (self.webhook_url, self.app) = (None, None);
        for link in [&mut self.answer, &mut self.fallback, &mut self.hangup] {
            link.url = None;
        }
        if let Some(keys) = &mut self.file {
            keys.calling_enabled = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_rows_of_older_versions_and_reports_drift() {
        let mut set: NumberSet =
            serde_json::from_str(r#"{"alias":"Desk","app":null,"added":7}"#).unwrap();
        assert_eq!(
            (set.alias.as_str(), set.configuration, set.disconnected),
            ("Desk", Configuration::Webhook, false)
        );
        assert!(!set.drift().is_some(), "Meta has said nothing yet");
        let on = Some(true);
        set.at_meta.calling =
            Calling { enabled: on, callback_permission: on, sip: on, sdes: on, restricted: None };
        assert_eq!(set.drift(), Drift { calling_enabled: Some(true), ..Drift::default() });
        (set.calling_enabled, set.callback_permission) = (true, Some(false));
        let drift = set.drift();
        assert_eq!(
            drift,
            Drift { calling_enabled: None, callback_permission: on, sip: on, sdes: on }
        );
        let text = serde_json::to_string(&set).unwrap();
        assert_eq!(serde_json::from_str::<NumberSet>(&text).unwrap(), set);
    }
}
