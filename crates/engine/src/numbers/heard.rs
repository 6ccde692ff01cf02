//! What Meta's webhooks say of numbers and WABAs (`meta-calling.md` §3.6, §3.7): settings are taken over, of all else Graph
//! is asked, which knows it better. Nothing here keeps a webhook waiting.

use serde_json::Value;
use tokio::sync::mpsc;

use super::panel::calling;
use super::{Known, No, Numbers};
use crate::admission::book::Calling;
use crate::meta::numbers::CallingSettings;
use model::Secret;
use model::{E164, NotificationTopic, PhoneNumberId, WabaId};

/// Longest word that is kept of a webhook, in characters.
const WORD_MAX: usize = 100;
/// Numbers of a WABA that one webhook has Graph asked about.
const ASKED_MAX: usize = 100;

/// One thing that a webhook says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewsOfMeta {
    /// A number's calling settings, as far as they are told.
    Settings { id: PhoneNumberId, calling: CallingSettings },
    /// Something of a number is not as it was: its quality, limit or name.
    Number { number: E164, event: String },
    /// Graph refused a number's token, whatever it was asked.
    TokenRefused { number: E164 },
    /// Something of a WABA, or of one number of it.
    Waba { waba: WabaId, number: Option<E164>, event: String, details: String },
}

/// What a change of this field says; none where it is not about numbers, or can't be read.
pub fn heard_in(waba: &str, field: &str, value: &Value) -> Option<NewsOfMeta> {
    let word = |at: &str| value.pointer(at).and_then(Value::as_str).map(bounded);
    let number = |at: &str| E164::parse(value.pointer(at)?.as_str()?).ok();
    match field {
        "account_settings_update" => {
            if !word("/type")?.eq_ignore_ascii_case("phone_number_settings") {
                return None;
            }
            let settings = value.get("phone_number_settings")?;
            let id = PhoneNumberId::from(bounded(settings.get("phone_number_id")?.as_str()?));
            // None of its parts is there where it is null, or absent.
            let nothing = Value::Null;
            let calling = settings.get("calling").unwrap_or(&nothing);
            (calling.is_object() || calling.is_null())
                .then(|| NewsOfMeta::Settings { id, calling: CallingSettings::read(calling) })
        }
        "phone_number_quality_update" | "phone_number_name_update" => {
            let event = word("/event").or_else(|| word("/decision")).unwrap_or_default();
            Some(NewsOfMeta::Number { number: number("/display_phone_number")?, event })
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
            let waba = WabaId::from(bounded(waba));
            Some(NewsOfMeta::Waba { waba, number: number("/phone_number"), event, details })
        }
        _ => None,
    }
}

fn bounded(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(WORD_MAX).collect()
}

impl Numbers {
    /// Takes it on, to be looked into later; dropped where too much waits, for the next reconcile to find.
    pub fn hear(&self, heard: NewsOfMeta) {
        if self.0.heard.try_send(heard).is_err() {
            tracing::warn!(
                "too many webhooks about numbers wait: one is dropped, and found at the next look"
            );
        }
    }

    /// Graph refused a token that something of this id was asked with; none: the node's default. Somebody's attempt to connect
    /// a number with a token that is none says nothing of the number's own.
    pub fn token_refused(&self, id: &PhoneNumberId, token: Option<&Secret>) {
        let book = self.book();
        let Some(entry) = book.number_by_id(id).filter(|entry| !entry.set.told.token_invalid)
        else {
            return;
        };
        let own = book.token_of(entry).map(Secret::reveal);
        if token.is_none_or(|token| own == Some(token.reveal())) {
            self.hear(NewsOfMeta::TokenRefused { number: entry.number.clone() });
        }
    }

    pub(super) async fn listen(&self, mut waiting: mpsc::Receiver<NewsOfMeta>) {
        while let Some(heard) = waiting.recv().await {
            self.look_into(heard).await;
        }
    }

    async fn look_into(&self, heard: NewsOfMeta) {
        match heard {
            NewsOfMeta::Settings { id, calling } => self.settings_heard(&id, calling).await,
            NewsOfMeta::TokenRefused { number } => self.note_token(&number, true).await,
            NewsOfMeta::Number { number, event } => {
                tracing::info!(?number, event, "Meta tells of a number");
                self.ask_again(|known| known.number == number).await;
            }
            NewsOfMeta::Waba { waba, number, event, details } => {
                tracing::warn!(%waba, ?number, event, details, "Meta tells of a WABA");
                self.warn_of(&waba, number.as_ref(), &event, &details);
                match number {
                    Some(number) => self.ask_again(|known| known.number == number).await,
                    None => self.ask_again_of(&waba).await,
                }
            }
        }
    }

    /// People should know of what Meta does to an account of theirs.
    fn warn_of(&self, waba: &WabaId, number: Option<&E164>, event: &str, details: &str) {
        let told = match details {
            "" => event.to_owned(),
            details => format!("{event}, {details}"),
        };
        let of_waba = || self.book().numbers_of(waba).next().map(|entry| entry.number.clone());
        if let Some(about) = number.cloned().or_else(of_waba) {
            let whom = if number.is_some() { about.to_string() } else { format!("WABA {waba}") };
            self.notice(&about, NotificationTopic::Number, format!("Meta says of {whom}: {told}."));
        }
    }

    async fn settings_heard(&self, id: &PhoneNumberId, told: CallingSettings) {
        let Some(number) = self.book().number_by_id(id).map(|entry| entry.number.clone()) else {
            return;
        };
        let now = self.parts().clock.wall();
        let stored = self.parts().keeper.change(now, |book| {
            let keys = book.edit_number(&number, |set| {
                let (is, said) = (&mut set.told.calling, calling(told));
                // What is not told stays.
                *is = Calling {
                    enabled: said.enabled.or(is.enabled),
                    callback_permission: said.callback_permission.or(is.callback_permission),
                    sip: said.sip.or(is.sip),
                    sdes: said.sdes.or(is.sdes),
                    restricted: is.restricted,
                };
            });
            Ok::<_, No>(((), keys))
        });
        if stored.await.is_ok() {
            self.tell(&number);
        }
    }

    async fn ask_again_of(&self, waba: &WabaId) {
        let numbers: Vec<E164> =
            self.book().numbers_of(waba).take(ASKED_MAX).map(|n| n.number.clone()).collect();
        self.ask_again(|known| numbers.contains(&known.number)).await;
    }

    /// Has Graph asked about some numbers, one after the other.
    async fn ask_again(&self, wanted: impl Fn(&Known) -> bool) {
        let known: Vec<Known> = {
            let book = self.book();
            book.all_numbers().map(|entry| Known::of(&book, entry)).filter(wanted).collect()
        };
        for one in known {
            if let Err(no) = self.refresh(&one).await {
                tracing::info!(number = ?one.number, ?no, "Graph does not say what became of a number");
            }
        }
    }
}
