//! Handles events that Meta reports about numbers and WABAs. Calling settings are taken from the
//! event; everything else is fetched from Graph. Events are queued, so that handling them never
//! delays the response to a webhook.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::entries::{Entries, GraphTarget};
use super::errors::NumberError;
use super::sync::{MetaSync, calling};
use super::webhooks::MetaEvent;
use crate::admission::book::Calling;
use crate::meta::numbers::CallingSettings;
use model::{E164, NotificationTopic, PhoneNumberId, Secret, WabaId};

/// Capacity of the queue of events about numbers. The next reconciliation makes up for dropped
/// ones.
pub(super) const EVENTS_MAX: usize = 1_024;
/// Maximum number of phone numbers that are refreshed because of one webhook about their WABA.
const ASKED_MAX: usize = 100;

/// The queue of events.
pub struct MetaEvents {
    pub(super) sender: mpsc::Sender<MetaEvent>,
    pub(super) entries: Arc<Entries>,
}

impl MetaEvents {
    /// Queues an event. If the queue is full it is dropped, and the next reconciliation finds the
    /// change.
    pub fn enqueue(&self, event: MetaEvent) {
        if self.sender.try_send(event).is_err() {
            tracing::warn!(
                "event about a number dropped, since the queue is full; the next sync will fetch the state"
            );
        }
    }

    /// Reports that Graph rejected a token. `token` is the rejected one, or `None` for the node's
    /// default. A rejected attempt to connect a number with another token does not count.
    pub fn token_refused(&self, id: &PhoneNumberId, token: Option<&Secret>) {
        let book = self.entries.book();
        let Some(entry) = book.number_by_id(id).filter(|entry| !entry.set.at_meta.token_invalid)
        else {
            return;
        };
        let own = book.token_of(entry).map(Secret::reveal);
        if token.is_none_or(|token| own == Some(token.reveal())) {
            self.enqueue(MetaEvent::TokenRefused { number: entry.number.clone() });
        }
    }
}

/// Handles queued events, one after the other.
pub(super) struct EventHandler {
    pub(super) entries: Arc<Entries>,
    pub(super) sync: Arc<MetaSync>,
}

impl EventHandler {
    pub(super) async fn run(self, mut waiting: mpsc::Receiver<MetaEvent>) {
        while let Some(event) = waiting.recv().await {
            self.handle(event).await;
        }
    }

    async fn handle(&self, event: MetaEvent) {
        match event {
            MetaEvent::Settings { waba, id, calling } => {
                self.apply_settings(&waba, &id, calling).await
            }
            MetaEvent::TokenRefused { number } => self.sync.note_token(&number, true).await,
            MetaEvent::Number { waba, number, event } => {
                tracing::info!(%number, event, "number event received from Meta");
                self.refresh_number(&waba, &number).await;
            }
            MetaEvent::Waba { waba, number, event, details } => {
                tracing::warn!(%waba, number = number.as_ref().map(tracing::field::display), event, details, "WABA event received from Meta");
                self.warn_of(&waba, number.as_ref(), &event, &details);
                match number {
                    Some(number) => self.refresh_number(&waba, &number).await,
                    None => self.refresh_waba(&waba).await,
                }
            }
        }
    }

    /// Sends a notification about an event at Meta.
    fn warn_of(&self, waba: &WabaId, number: Option<&E164>, event: &str, details: &str) {
        let reported = match details {
            "" => event.to_owned(),
            details => format!("{event}, {details}"),
        };
        let of_waba =
            || self.entries.book().numbers_of(waba).next().map(|entry| entry.number.clone());
        if let Some(about) = number.cloned().or_else(of_waba) {
            let whom = if number.is_some() { about.to_string() } else { format!("WABA {waba}") };
            self.entries.notice(
                &about,
                NotificationTopic::Number,
                format!("Meta reports for {whom}: {reported}."),
            );
        }
    }

    async fn apply_settings(&self, waba: &WabaId, id: &PhoneNumberId, reported: CallingSettings) {
        let known = self.entries.book().number_by_id(id).map(|entry| entry.number.clone());
        let Some(number) = known else {
            self.sync.add_new_numbers(waba).await;
            return;
        };
        let now = self.entries.clock.wall();
        let stored = self.entries.keeper.change(now, |book| {
            let keys = book.edit_number(&number, |set| {
                let (is, new) = (&mut set.at_meta.calling, calling(reported));
                // Missing settings keep their values.
                *is = Calling {
                    enabled: new.enabled.or(is.enabled),
                    callback_permission: new.callback_permission.or(is.callback_permission),
                    sip: new.sip.or(is.sip),
                    sdes: new.sdes.or(is.sdes),
                    restricted: is.restricted,
                };
            });
            Ok::<_, NumberError>(((), keys))
        });
        if stored.await.is_ok() {
            self.entries.publish(&number);
        }
    }

    /// Refreshes a number. An unknown number is one that was added at Meta, and is connected.
    async fn refresh_number(&self, waba: &WabaId, number: &E164) {
        if self.entries.book().any_number(number).is_none() {
            self.sync.add_new_numbers(waba).await;
            return;
        }
        self.refresh_all(|known| known.number == *number).await;
    }

    async fn refresh_waba(&self, waba: &WabaId) {
        self.sync.add_new_numbers(waba).await;
        let numbers: Vec<E164> = self
            .entries
            .book()
            .numbers_of(waba)
            .take(ASKED_MAX)
            .map(|n| n.number.clone())
            .collect();
        self.refresh_all(|known| numbers.contains(&known.number)).await;
    }

    /// Refreshes the matching numbers from Graph, one after another.
    async fn refresh_all(&self, wanted: impl Fn(&GraphTarget) -> bool) {
        let known: Vec<GraphTarget> = {
            let book = self.entries.book();
            book.all_numbers().map(|entry| GraphTarget::of(&book, entry)).filter(wanted).collect()
        };
        for one in known {
            if let Err(error) = self.sync.refresh(&one).await {
                tracing::info!(number = %one.number, %error, "state of a number not fetched from Meta");
            }
        }
    }
}
