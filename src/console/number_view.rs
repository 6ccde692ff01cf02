//! A business number, as the number API describes it.

use serde::Deserialize;
use uuid::Uuid;

use super::page::Page;
use super::view;

/// A number in the number API.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Number {
    pub(super) number: String,
    /// ISO 3166 code. The browser shows the name in the language of the reader.
    pub(super) country: String,
    pub(super) country_name: String,
    pub(super) alias: String,
    /// The account or subaccount that the number belongs to.
    #[serde(default)]
    pub(super) account: String,
    pub(super) whatsapp_phone_number_id: String,
    pub(super) whatsapp_business_account: Option<String>,
    pub(super) verified_name: String,
    pub(super) platform_type: String,
    pub(super) quality_rating: String,
    pub(super) registration: Registration,
    pub(super) token_invalid: bool,
    pub(super) configuration_type: String,
    pub(super) webhook_url: Option<String>,
    pub(super) calling_enabled: bool,
    pub(super) answer_url: Option<String>,
    pub(super) answer_method: String,
    pub(super) fallback_url: Option<String>,
    pub(super) fallback_method: String,
    pub(super) hangup_url: Option<String>,
    pub(super) hangup_method: String,
    pub(super) active_agent: Option<String>,
    /// Who gets new conversations: `webhook`, `agent` or `none`.
    pub(super) default_routing: String,
    /// The webhook that messages are sent to.
    pub(super) default_webhook: Option<Uuid>,
    /// Whether the agent answers.
    pub(super) active: bool,
    pub(super) connected: bool,
    /// The fields that the configuration file sets.
    #[serde(default)]
    pub(super) set_in_configuration: Vec<String>,
    pub(super) hidden: bool,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Registration {
    pub(super) state: String,
    pub(super) reason: Option<String>,
    pub(super) retry_after: Option<String>,
}

impl Number {
    pub(super) fn formatted(&self) -> String {
        view::party(&self.number)
    }

    /// Whether new conversations do not go to the number's webhook URL, although it has one, because
    /// nothing has taken the place of an agent.
    pub(super) fn is_unrouted(&self) -> bool {
        let is_by_webhook = self.configuration_type == "webhook" && self.webhook_url.is_some();
        is_by_webhook && self.default_routing == "none"
    }

    /// The number after its alias, if it has one.
    pub(super) fn named(&self) -> String {
        view::with_alias(&self.alias, &self.number)
    }

    /// The labels of the fields that the configuration file sets.
    pub(super) fn labels_of_configuration(&self, page: &Page) -> String {
        let key = |field: &String| match field.as_str() {
            "alias" => Some("numbers.alias"),
            "callingEnabled" => Some("numbers.enable_calling"),
            "answerUrl" => Some("numbers.answer_url"),
            "fallbackUrl" => Some("numbers.fallback_url"),
            "hangupUrl" => Some("numbers.hangup_url"),
            "webhookUrl" => Some("numbers.webhook_url"),
            _ => None,
        };
        let labels = self.set_in_configuration.iter().filter_map(key);
        labels.map(|key| page.t(key)).collect::<Vec<_>>().join(", ")
    }

    pub(super) fn is_cloud(&self) -> bool {
        self.platform_type == "CLOUD_API"
    }

    pub(super) fn has_agent(&self, id: &str) -> bool {
        self.active_agent.as_deref() == Some(id)
    }

    /// Key of the advice for a number that is not rated high. Empty for others.
    pub(super) fn quality_advice(&self) -> &'static str {
        match self.tone() {
            "waiting" => "numbers.quality_medium",
            "bad" => "numbers.quality_low",
            _ => "",
        }
    }

    /// CSS class of the quality rating.
    pub(super) fn tone(&self) -> &'static str {
        match self.quality_rating.to_ascii_lowercase().as_str() {
            "green" | "high" => "good",
            "yellow" | "medium" => "waiting",
            "red" | "low" => "bad",
            _ => "",
        }
    }
}
