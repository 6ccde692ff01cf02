//! Webhooks of the configuration that somebody takes out of it: what goes to one would go nowhere. A reload that would have it
//! so is refused, as the console refuses to remove such a webhook; a node that is started like that says so, and `doctor` does.

use std::collections::{BTreeMap, BTreeSet};

use super::{Inbox, WebhookSettings};
use model::E164;
use store::StoreError;

/// A webhook that is not to be there any more, and what goes to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    pub name: String,
    /// Numbers whose conversations to come do.
    pub numbers: BTreeSet<String>,
    /// Numbers of which conversations that there are do.
    pub conversations: BTreeSet<String>,
}

impl Dropped {
    /// What goes to it, for people.
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
    /// The webhooks that are in use and would not be there with these ones in the configuration; `stays` tells of numbers that
    /// are served then.
    ///
    /// # Errors
    /// The store's.
    pub async fn dropped(
        &self,
        file: &[WebhookSettings],
        stays: impl Fn(&E164) -> bool,
    ) -> Result<Vec<Dropped>, StoreError> {
        let kept: BTreeSet<_> = file.iter().map(WebhookSettings::id).collect();
        let now = self.parts().directory.mail().webhooks();
        let goes = now.values().filter(|webhook| webhook.in_file && !kept.contains(&webhook.id));
        let goes: BTreeMap<_, _> = goes.map(|webhook| (webhook.id, webhook.name.clone())).collect();
        if goes.is_empty() {
            return Ok(Vec::new());
        }
        let mut dropped: BTreeMap<_, Dropped> = BTreeMap::new();
        for used in self.parts().store.webhooks().uses().await? {
            let number = self.parts().directory.tables().by_mail_id(&used.number).cloned();
            let number = number.filter(|number| stays(&number.spec.number));
            let (Some(number), Some(name)) = (number, goes.get(&used.webhook)) else { continue };
            let entry = dropped.entry(used.webhook).or_default();
            entry.name.clone_from(name);
            let of = if used.default { &mut entry.numbers } else { &mut entry.conversations };
            of.insert(number.spec.number.to_string());
        }
        Ok(dropped.into_values().collect())
    }

    /// At a start nothing is refused: calls are to be taken, whatever becomes of events.
    pub(super) fn warn_of_dropped(&self) {
        let mail = self.parts().directory.mail();
        for (id, routing) in mail.routings().iter() {
            let gone = routing.webhook().is_some_and(|webhook| mail.webhook(webhook).is_none());
            if gone && let Some(number) = self.parts().directory.tables().by_mail_id(id) {
                tracing::warn!(
                    number = %number.spec.number,
                    "this number goes to a webhook that is not in the configuration any more: its events go nowhere; subscribe it to \
                     another one, or put the webhook back"
                );
            }
        }
    }
}
