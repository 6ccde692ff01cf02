//! What can be set of a number while the node runs, and what Meta last told of it: the number's row in the store.

use serde::{Deserialize, Serialize};

use super::entries::Link;
use crate::admission::settings::NumberSettings;
use model::{AppId, AuthId, PhoneNumberId, Timestamp, WabaId};
use xml::ast::DocUrl;

/// A number's row. What an older version did not write has its default.
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
    /// Where messages and their statuses go, with [`Configuration::Webhook`].
    pub webhook_url: Option<DocUrl>,
    /// None: `limits.calls_per_number`.
    pub calls_per_number: Option<u32>,
    /// A user's call lets the business call back, as it was set here; none: as Meta has it.
    pub callback_permission: Option<bool>,
    /// Its agent answers nobody just now.
    pub inactive: bool,
    /// Nothing comes in and nothing goes out; Meta knows nothing of it.
    pub disconnected: bool,
    pub registration: Registration,
    pub told: Told,
    /// Where it was connected here and does not stand in the configuration.
    pub made: Option<Made>,
    /// Meta's first id of it, under which its conversations are kept; none: the one that it has.
    pub first_id: Option<PhoneNumberId>,
}

/// Who handles what comes to a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Configuration {
    /// The customer's backend.
    #[default]
    Webhook,
    /// An agent.
    Agent,
}

impl Configuration {
    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Agent => "agent",
        }
    }
}

/// A number that was connected here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    pub phone_number_id: PhoneNumberId,
    pub waba: Option<WabaId>,
    pub of: AuthId,
}

/// How far registering with Meta's Cloud API is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Registration {
    /// Nobody has tried here.
    #[default]
    None,
    Running,
    Registered,
    Failed {
        reason: String,
        /// Sooner it is not tried again.
        again: Timestamp,
    },
}

/// What Meta says of a number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Told {
    pub verified_name: String,
    /// `CLOUD_API`, `ON_PREMISE`, `NOT_APPLICABLE`; empty: not asked yet.
    pub platform_type: String,
    /// `GREEN`, `YELLOW`, `RED`, `UNKNOWN`; empty: not asked yet.
    pub quality_rating: String,
    pub status: String,
    /// When it was last asked.
    pub synced: Option<Timestamp>,
    /// Its token was refused when it was last asked.
    pub token_invalid: bool,
    /// Why our app could not be subscribed to its WABA: nothing of it may come here.
    pub unsubscribed: Option<String>,
    pub calling: Calling,
}

/// Calling settings at Meta (`meta-calling.md` §4.4), as far as they are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Calling {
    pub enabled: Option<bool>,
    pub callback_permission: Option<bool>,
    /// With it on, calls go elsewhere.
    pub sip: Option<bool>,
    /// With it calls have no sound here.
    pub sdes: Option<bool>,
    pub restricted: Option<bool>,
}

/// What Meta has otherwise than it was set here; fields are there where they differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drift {
    pub calling_enabled: Option<bool>,
    pub callback_permission: Option<bool>,
    pub sip: Option<bool>,
    pub sdes: Option<bool>,
}

impl Drift {
    /// Whether Meta has something else at all.
    pub fn is_some(&self) -> bool {
        *self != Self::default()
    }
}

impl NumberSet {
    /// Lays over it what the configuration names.
    pub(super) fn overlay(&mut self, file: &NumberSettings) {
        if !file.alias.is_empty() {
            self.alias.clone_from(&file.alias);
        }
        if file.app_id.is_some() {
            self.app.clone_from(&file.app_id);
        }
        if file.calling_named {
            self.calling_enabled = file.calling_enabled;
        }
        let links = [
            (&mut self.answer, &file.answer_url, file.answer_method),
            (&mut self.fallback, &file.fallback_url, file.fallback_method),
            (&mut self.hangup, &file.hangup_url, file.hangup_method),
        ];
        for (link, url, method) in links {
            if url.is_some() {
                *link = Link { url: url.clone(), method };
            }
        }
        if file.webhook_url.is_some() {
            self.webhook_url.clone_from(&file.webhook_url);
        }
        if file.calls_per_number.is_some() {
            self.calls_per_number = file.calls_per_number;
        }
    }

    /// What Meta has otherwise, as far as it has told.
    pub fn drift(&self) -> Drift {
        let calling = &self.told.calling;
        let wanted = self.callback_permission.or(calling.callback_permission);
        Drift {
            calling_enabled: calling.enabled.filter(|is| *is != self.calling_enabled),
            callback_permission: calling.callback_permission.filter(|is| Some(*is) != wanted),
            sip: calling.sip.filter(|on| *on && self.calling_enabled),
            sdes: calling.sdes.filter(|on| *on && self.calling_enabled),
        }
    }

    /// Whether it can have an agent, and answers through Meta's Cloud API.
    pub fn is_cloud(&self) -> bool {
        self.told.platform_type == "CLOUD_API"
    }

    /// What people set, without what Meta says and what happens by itself: by it two states are told apart.
    pub fn panel(&self) -> Self {
        Self { told: Told::default(), registration: Registration::default(), ..self.clone() }
    }

    /// How far registering is: `none`, `running`, `registered` or `failed`.
    pub fn registered(&self) -> &'static str {
        match &self.registration {
            // By somebody else, or before.
            Registration::None if self.is_cloud() => "registered",
            Registration::None => "none",
            Registration::Running => "running",
            Registration::Registered => "registered",
            Registration::Failed { .. } => "failed",
        }
    }

    /// Forgets what has to be set anew after a disconnect (S0.28).
    pub(super) fn disconnect(&mut self) {
        self.disconnected = true;
        self.calling_enabled = false;
        (self.webhook_url, self.answer.url) = (None, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_an_older_version_is_read_and_drift_is_what_differs() {
        let mut set: NumberSet =
            serde_json::from_str(r#"{"alias":"Desk","app":null,"added":7}"#).unwrap();
        assert_eq!(
            (set.alias.as_str(), set.configuration, set.disconnected),
            ("Desk", Configuration::Webhook, false)
        );
        assert!(!set.drift().is_some(), "Meta has said nothing yet");
        let on = Some(true);
        set.told.calling =
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
