//! Texts of the console: one catalogue per language in `console/i18n`.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::api::ApiResponse;

/// A language of the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lang {
    En,
    De,
}

/// Fields of the number API, and the keys of their labels in the forms of the console.
const LABELS: &[(&str, &str)] = &[
    ("accessToken", "numbers.token"),
    ("answerUrl", "numbers.answer_url"),
    ("displayName", "numbers.display_name"),
    ("fallbackUrl", "numbers.fallback_url"),
    ("fullName", "people.full_name"),
    ("hangupUrl", "numbers.hangup_url"),
    ("name", "people.name"),
    ("webhookUrl", "numbers.webhook_url"),
    ("whatsappBusinessAccount", "numbers.waba"),
    ("whatsappPhoneNumberId", "numbers.phone_number_id"),
];

/// Other fields of the number API that records of the audit trail name.
const FIELDS: &[(&str, &str)] = &[
    ("account", "numbers.account"),
    ("activeAgent", "numbers.agent"),
    ("alias", "numbers.alias"),
    ("apiKey", "agents.api_key"),
    ("assignee", "inbox.assigned"),
    ("callingEnabled", "numbers.enable_calling"),
    ("channels", "agents.channels"),
    ("colour", "inbox.label_colour"),
    ("configurationType", "numbers.configuration"),
    ("enabled", "agents.enabled"),
    ("ending", "people.key_ending"),
    ("endpoint", "agents.endpoint"),
    ("greeting", "agents.greeting"),
    ("instructions", "agents.instructions"),
    ("kind", "agents.kind"),
    ("labels", "inbox.labels"),
    ("model", "agents.model"),
    ("outboundNumber", "agents.outbound"),
    ("platformType", "numbers.platform"),
    ("qualityRating", "numbers.quality"),
    ("role", "people.role"),
    ("shortcut", "inbox.reply_shortcut"),
    ("signingSecret", "agents.signing_secret"),
    ("text", "inbox.reply_text"),
    ("verifiedName", "numbers.verified"),
    ("voice", "agents.voice"),
];

type Words = HashMap<String, String>;

static EN: LazyLock<Words> = LazyLock::new(|| read(include_str!("../../console/i18n/en.json")));
static DE: LazyLock<Words> = LazyLock::new(|| read(include_str!("../../console/i18n/de.json")));

/// Parses an embedded catalogue. A test checks that it is valid.
fn read(text: &str) -> Words {
    serde_json::from_str(text).unwrap_or_default()
}

impl Lang {
    pub(super) const ALL: [Self; 2] = [Self::En, Self::De];

    /// The tag in HTML, cookies and forms.
    pub(super) fn tag(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::De => "de",
        }
    }

    /// Name of the language in that language.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::En => "English",
            Self::De => "Deutsch",
        }
    }

    pub(super) fn parse(tag: &str) -> Option<Self> {
        let main = tag.trim().split(['-', ';']).next().unwrap_or_default();
        Self::ALL.into_iter().find(|lang| lang.tag().eq_ignore_ascii_case(main))
    }

    /// The supported language with the greatest weight in an `Accept-Language` header, the first one
    /// of several (RFC 9110 §12.5.4). Entries with an invalid weight are ignored.
    pub(super) fn accepted(header: &str) -> Self {
        let mut preferred = (0.0, Self::En);
        for entry in header.split(',').take(20) {
            let (tag, weight) = match entry.split_once(';') {
                Some((tag, parameter)) => (tag, parameter.trim().strip_prefix("q=")),
                None => (entry, Some("1")),
            };
            let weight = weight.and_then(|q| q.parse().ok()).filter(|q| (0.0..=1.0).contains(q));
            if let (Some(lang), Some(weight)) = (Self::parse(tag), weight)
                && weight > preferred.0
            {
                preferred = (weight, lang);
            }
        }
        preferred.1
    }

    pub(super) fn words(self) -> &'static Words {
        match self {
            Self::En => &EN,
            Self::De => &DE,
        }
    }

    /// The text of a key. A missing text yields the key; a test finds missing texts.
    pub(super) fn t(self, key: &str) -> &str {
        self.find(key).unwrap_or(key)
    }

    /// The text of a key, if it exists.
    pub(super) fn find(self, key: &str) -> Option<&'static str> {
        self.words().get(key).or_else(|| EN.get(key)).map(String::as_str)
    }

    /// The message of a refused API request. The name of the field is replaced by its label in the
    /// console.
    pub(super) fn refusal(self, answer: &ApiResponse) -> String {
        let message = answer.message();
        let label = answer.field().and_then(|field| {
            let (_, key) = LABELS.iter().find(|(name, _)| *name == field)?;
            Some((message.strip_prefix(field)?, self.t(key)))
        });
        match label {
            Some((rest, label)) if rest.starts_with(' ') => format!("“{label}”{rest}"),
            _ => message.to_owned(),
        }
    }

    /// The label of a field of an API, or its name as words if the console has none.
    pub(super) fn field(self, name: &str) -> String {
        if let Some((_, key)) = LABELS.iter().chain(FIELDS).find(|(known, _)| *known == name) {
            return self.t(key).to_owned();
        }
        let mut words = String::with_capacity(name.len() + 4);
        for letter in name.chars() {
            match letter {
                '_' => words.push(' '),
                upper if upper.is_ascii_uppercase() => {
                    words.push(' ');
                    words.push(upper.to_ascii_lowercase());
                }
                other => words.push(other),
            }
        }
        words
    }

    /// A number with the language's decimal separator.
    pub(super) fn decimals(self, figure: String) -> String {
        match self {
            Self::En => figure,
            Self::De => figure.replace('.', ","),
        }
    }

    /// A count. From five digits on it has the thousands separator of the language.
    pub(super) fn count(self, count: impl ToString) -> String {
        let digits = count.to_string();
        if digits.len() < 5 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return digits;
        }
        let sign = match self {
            Self::En => ',',
            Self::De => '.',
        };
        let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
        for (n, digit) in digits.chars().enumerate() {
            if n > 0 && (digits.len() - n).is_multiple_of(3) {
                grouped.push(sign);
            }
            grouped.push(digit);
        }
        grouped
    }

    /// A text with its placeholders `{0}`, `{1}`, … replaced.
    pub(super) fn with(self, key: &str, values: &[&str]) -> String {
        let mut text = self.t(key).to_owned();
        for (n, value) in values.iter().enumerate() {
            text = text.replace(&format!("{{{n}}}"), value);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::Lang::{De, En};

    #[test]
    fn no_key_has_two_texts() {
        let catalogues = [
            (En, include_str!("../../console/i18n/en.json")),
            (De, include_str!("../../console/i18n/de.json")),
        ];
        for (lang, text) in catalogues {
            let mut keys: Vec<&str> =
                text.lines().filter_map(|line| line.trim_start().split("\": ").next()).collect();
            keys.retain(|key| key.starts_with('"'));
            assert_eq!(keys.len(), lang.words().len(), "{}", lang.name());
        }
    }

    #[test]
    fn numbers_use_the_separators_of_the_language() {
        assert_eq!([En.count(1_000), De.count(1_000)], ["1000", "1000"]);
        assert_eq!([En.count(12_345), De.count(1_234_567)], ["12,345", "1.234.567"]);
        assert_eq!([En.duration(1_240_000), De.duration(1_240_000)], ["1.24 s", "1,24 s"]);
    }
}
