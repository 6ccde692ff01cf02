//! Webhooks about numbers and WABAs (`docs/reference/meta.md#account-updates`). Calling settings
//! are taken from the webhook; everything else is fetched from Graph. Processing never delays the
//! response to a webhook.

use serde_json::Value;
use tokio::sync::mpsc;

use super::panel::calling;
use super::{GraphTarget, NumberError, Numbers};
use crate::admission::book::Calling;
use crate::meta::numbers::CallingSettings;
use model::Secret;
use model::{E164, NotificationTopic, PhoneNumberId, WabaId};

/// Maximum length of a word from a webhook, in characters; the rest is cut off.
const WORD_MAX: usize = 100;
/// Maximum number of phone numbers that are refreshed because of one webhook about their WABA.
const ASKED_MAX: usize = 100;

/// An event in a webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetaEvent {
    /// The calling settings of a number, possibly incomplete.
    Settings { waba: WabaId, id: PhoneNumberId, calling: CallingSettings },
    /// A changed quality, limit or name of a number.
    Number { waba: WabaId, number: E164, event: String },
    /// Graph rejected the token of a number.
    TokenRefused { number: E164 },
    /// An event of a WABA, or of one of its numbers.
    Waba { waba: WabaId, number: Option<E164>, event: String, details: String },
}

/// Parses a `change` of a webhook. Returns `None` if its field is not about numbers or its value is
/// malformed.
pub fn parse_change(waba: &str, field: &str, value: &Value) -> Option<MetaEvent> {
    let word = |at: &str| value.pointer(at).and_then(Value::as_str).map(bounded);
    let number = |at: &str| E164::parse(value.pointer(at)?.as_str()?).ok();
    let waba = WabaId::from(bounded(waba));
    match field {
        "account_settings_update" => {
            if !word("/type")?.eq_ignore_ascii_case("phone_number_settings") {
                return None;
            }
            let settings = value.get("phone_number_settings")?;
            let id = PhoneNumberId::from(bounded(settings.get("phone_number_id")?.as_str()?));
            // A missing or null `calling` has no settings.
            let nothing = Value::Null;
            let calling = settings.get("calling").unwrap_or(&nothing);
            (calling.is_object() || calling.is_null()).then(|| MetaEvent::Settings {
                waba,
                id,
                calling: CallingSettings::read(calling),
            })
        }
        "phone_number_quality_update" | "phone_number_name_update" => {
            let event = word("/event").or_else(|| word("/decision")).unwrap_or_default();
            Some(MetaEvent::Number { waba, number: number("/display_phone_number")?, event })
        }
        "account_update" | "account_review_update" | "account_alerts" => {
            let event =
                word("/event").or_else(|| word("/decision")).or_else(|| word("/alert_type"))?;
            let kinds = [
                "/violation_info/violation_type",
                "/restriction_info/0/restriction_type",
                "/ban_info/waba_ban_state",
            ];
            let details = kinds.into_iter().find_map(word).unwrap_or_default();
            Some(MetaEvent::Waba { waba, number: number("/phone_number"), event, details })
        }
        _ => None,
    }
}

fn bounded(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(WORD_MAX).collect()
}

impl Numbers {
    /// Queues an event. If the queue is full it is dropped, and the next reconciliation finds the
    /// change.
    pub fn enqueue(&self, event: MetaEvent) {
        if self.0.events.try_send(event).is_err() {
            tracing::warn!(
                "event about a number dropped, since the queue is full; the next sync will fetch the state"
            );
        }
    }

    /// Reports that Graph rejected a token. `token` is the rejected one, or `None` for the node's
    /// default. A rejected attempt to connect a number with another token does not count.
    pub fn token_refused(&self, id: &PhoneNumberId, token: Option<&Secret>) {
        let book = self.book();
        let Some(entry) = book.number_by_id(id).filter(|entry| !entry.set.at_meta.token_invalid)
        else {
            return;
        };
        let own = book.token_of(entry).map(Secret::reveal);
        if token.is_none_or(|token| own == Some(token.reveal())) {
            self.enqueue(MetaEvent::TokenRefused { number: entry.number.clone() });
        }
    }

    pub(super) async fn listen(&self, mut waiting: mpsc::Receiver<MetaEvent>) {
        while let Some(event) = waiting.recv().await {
            self.handle(event).await;
        }
    }

    async fn handle(&self, event: MetaEvent) {
        match event {
            MetaEvent::Settings { waba, id, calling } => {
                self.apply_settings(&waba, &id, calling).await
            }
            MetaEvent::TokenRefused { number } => self.note_token(&number, true).await,
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
        let of_waba = || self.book().numbers_of(waba).next().map(|entry| entry.number.clone());
        if let Some(about) = number.cloned().or_else(of_waba) {
            let whom = if number.is_some() { about.to_string() } else { format!("WABA {waba}") };
            self.notice(
                &about,
                NotificationTopic::Number,
                format!("Meta reports for {whom}: {reported}."),
            );
        }
    }

    async fn apply_settings(&self, waba: &WabaId, id: &PhoneNumberId, reported: CallingSettings) {
        let known = self.book().number_by_id(id).map(|entry| entry.number.clone());
        let Some(number) = known else {
            self.add_new_numbers(waba).await;
            return;
        };
        let now = self.parts().clock.wall();
        let stored = self.parts().keeper.change(now, |book| {
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
            self.publish(&number);
        }
    }

    /// Refreshes a number. An unknown number is one that was added at Meta, and is connected.
    async fn refresh_number(&self, waba: &WabaId, number: &E164) {
        if self.book().any_number(number).is_none() {
            self.add_new_numbers(waba).await;
            return;
        }
        self.refresh_all(|known| known.number == *number).await;
    }

    async fn refresh_waba(&self, waba: &WabaId) {
        self.add_new_numbers(waba).await;
        let numbers: Vec<E164> =
            self.book().numbers_of(waba).take(ASKED_MAX).map(|n| n.number.clone()).collect();
        self.refresh_all(|known| numbers.contains(&known.number)).await;
    }

    /// Refreshes the matching numbers from Graph, one after another.
    async fn refresh_all(&self, wanted: impl Fn(&GraphTarget) -> bool) {
        let known: Vec<GraphTarget> = {
            let book = self.book();
            book.all_numbers().map(|entry| GraphTarget::of(&book, entry)).filter(wanted).collect()
        };
        for one in known {
            if let Err(no) = self.refresh(&one).await {
                tracing::info!(number = %one.number, error = %no, "could not refresh a number");
            }
        }
    }
}
