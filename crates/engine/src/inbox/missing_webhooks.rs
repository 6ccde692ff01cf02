//! Webhooks that a changed configuration no longer contains while numbers or conversations still
//! use them. Their events would be lost: a reload refuses such a configuration, just as the console
//! refuses to delete such a webhook. A start only logs a warning, and `doctor` reports the problem.

use std::collections::{BTreeMap, BTreeSet};

use super::{Inbox, WebhookSettings};
use model::E164;
use store::StoreError;

/// A webhook missing from the new configuration, and its uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MissingWebhook {
    pub name: String,
    /// Numbers whose new conversations go to it.
    pub numbers: BTreeSet<String>,
    /// Numbers with existing conversations that go to it.
    pub conversations: BTreeSet<String>,
}

impl MissingWebhook {
    /// Describes the uses, for error messages.
    pub fn uses(&self) -> String {
        let some = |what: &str, numbers: &BTreeSet<String>| {
            let named: Vec<&str> = numbers.iter().map(String::as_str).take(10).collect();
            let more = if numbers.len() > named.len() { ", …" } else { "" };
            (!named.is_empty()).then(|| format!("{what} {}{more}", named.join(", ")))
        };
        let all = [
            some("new conversations of", &self.numbers),
            some("conversations of", &self.conversations),
        ];
        all.into_iter().flatten().collect::<Vec<_>>().join(" and ")
    }
}

impl Inbox {
    /// The webhooks that are in use and that the configuration `file` no longer contains. Numbers
    /// for which `stays` returns `false` are not counted as users.
    ///
    /// # Errors
    /// Returns an error if the store fails.
    pub async fn missing_webhooks(
        &self,
        file: &[WebhookSettings],
        stays: impl Fn(&E164) -> bool,
    ) -> Result<Vec<MissingWebhook>, StoreError> {
        let kept: BTreeSet<_> = file.iter().map(WebhookSettings::id).collect();
        let now = self.parts().directory.mail().webhooks();
        let goes = now.values().filter(|webhook| webhook.in_file && !kept.contains(&webhook.id));
        let goes: BTreeMap<_, _> = goes.map(|webhook| (webhook.id, webhook.name.clone())).collect();
        if goes.is_empty() {
            return Ok(Vec::new());
        }
        let mut missing: BTreeMap<_, MissingWebhook> = BTreeMap::new();
        for used in self.parts().store.webhooks().uses().await? {
            let number = self.parts().directory.tables().by_mail_id(&used.number).cloned();
            let number = number.filter(|number| stays(&number.spec.number));
            let (Some(number), Some(name)) = (number, goes.get(&used.webhook)) else { continue };
            let entry = missing.entry(used.webhook).or_default();
            entry.name.clone_from(name);
            let of = if used.default { &mut entry.numbers } else { &mut entry.conversations };
            of.insert(number.spec.number.to_string());
        }
        Ok(missing.into_values().collect())
    }

    /// Warns at start-up. A start is not refused: the node must take calls even if some events are
    /// lost.
    pub(super) fn warn_of_missing_webhooks(&self) {
        let mail = self.parts().directory.mail();
        for (id, routing) in mail.routings().iter() {
            let gone = routing.webhook().is_some_and(|webhook| mail.webhook(webhook).is_none());
            if gone && let Some(number) = self.parts().directory.tables().by_mail_id(id) {
                tracing::warn!(
                    number = %number.spec.number,
                    "number routed to a webhook that is no longer in the configuration; its events are lost until \
                     it is subscribed to another webhook or the webhook is restored"
                );
            }
        }
    }
}
