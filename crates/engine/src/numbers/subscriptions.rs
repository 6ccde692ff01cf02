//! The subscription of the app to the webhooks of WABAs.

use std::sync::Arc;

use super::entries::Entries;
use super::errors::NumberError;
use super::registrations::reason;
use crate::admission::book::{Number, NumberSet};
use crate::meta::Graph;
use model::{E164, NotificationTopic, Secret, WabaId};

/// Subscribes the app to WABAs.
pub(super) struct Subscriptions {
    pub(super) entries: Arc<Entries>,
    pub(super) graph: Arc<Graph>,
}

impl Subscriptions {
    /// Subscribes the app to the WABA's webhooks. If Meta refuses, the reason is stored with its
    /// numbers and a notification is sent.
    pub(super) async fn subscribe(&self, waba: &WabaId, token: Option<&Secret>) {
        let subscribed = self.graph.waba(waba, token).subscribe_app().await;
        let why = subscribed.err().map(|outcome| reason(&outcome));
        let differs = |number: &&Number| number.set.at_meta.unsubscribed != why;
        let numbers: Vec<E164> = self
            .entries
            .book()
            .numbers_of(waba)
            .filter(differs)
            .map(|n| n.number.clone())
            .collect();
        if numbers.is_empty() {
            return;
        }
        let note = |set: &mut NumberSet| set.at_meta.unsubscribed.clone_from(&why);
        let now = self.entries.clock.wall();
        let stored = self.entries.keeper.change(now, |book| {
            let keys = numbers.iter().flat_map(|number| book.edit_number(number, note)).collect();
            Ok::<_, NumberError>(((), keys))
        });
        if let Err(error) = stored.await.map_err(NumberError::from) {
            tracing::warn!(%waba, %error, "state of a WABA subscription not stored");
        }
        if let (Some(why), Some(about)) = (&why, numbers.first()) {
            tracing::warn!(%waba, why, "WABA subscription failed; its webhooks may not arrive");
            let text = format!(
                "Meta did not subscribe the app to WABA {waba}, so webhooks of its numbers may not arrive: {why}. Sync the numbers to try again."
            );
            self.entries.notice(about, NotificationTopic::Number, text);
        }
        numbers.iter().for_each(|number| self.entries.publish(number));
    }

    /// Repeats the subscription if it failed before.
    pub(super) async fn repeat_failed(&self, waba: &WabaId, token: Option<&Secret>) {
        if self
            .entries
            .book()
            .numbers_of(waba)
            .any(|number| number.set.at_meta.unsubscribed.is_some())
        {
            self.subscribe(waba, token).await;
        }
    }
}
