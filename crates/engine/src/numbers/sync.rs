//! Fetches the state of numbers from Meta (name, platform, quality, calling settings), and adds
//! numbers of a WABA that are not known yet.

use std::sync::Arc;

use super::NO_WABA;
use super::entries::{Entries, GraphTarget};
use super::errors::NumberError;
use super::locks::NumberLocks;
use super::subscriptions::Subscriptions;
use crate::admission::book::{
    Calling, ConnectRefusal, ConnectedNumber, MetaState, NumberSet, Registration,
};
use crate::meta::Graph;
use crate::meta::numbers::{CallingSettings, PhoneNumber};
use machine::GraphOutcome;
use model::{AuthId, E164, NotificationTopic, PhoneNumberId, Secret, Timestamp, WabaId};
use store::Scope;

/// The changes that a sync made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncReport {
    /// Numbers that were added.
    pub added: Vec<E164>,
    /// Numbers with the fields of their resource that changed.
    pub changed: Vec<(E164, Vec<&'static str>)>,
    /// Numbers that Meta lists but that could not be added.
    pub left_out: Vec<(E164, ConnectRefusal)>,
    /// Numbers whose calling settings could not be fetched. They keep the known ones.
    pub unread: Vec<E164>,
}

/// The state of a number as fetched from Graph.
pub(super) struct NumberReading {
    pub(super) number: PhoneNumber,
    pub(super) calling: Option<CallingSettings>,
    /// The count of writes at Meta before the settings were fetched.
    pub(super) as_of: u64,
}

impl NumberReading {
    /// Applies the state, and its calling settings only if `fresh`. Returns the fields that
    /// changed.
    pub(super) fn apply(
        &self,
        set: &mut NumberSet,
        now: Timestamp,
        fresh: bool,
    ) -> Vec<&'static str> {
        let Self { number, calling: settings, as_of: _ } = self;
        let settings = settings.filter(|_| fresh);
        let before = set.clone();
        let keep =
            |new: &str, old: &str| if new.is_empty() { old.to_owned() } else { new.to_owned() };
        set.at_meta = MetaState {
            verified_name: keep(&number.verified_name, &before.at_meta.verified_name),
            platform_type: keep(&number.platform_type, &before.at_meta.platform_type),
            quality_rating: keep(&number.quality_rating, &before.at_meta.quality_rating),
            status: keep(&number.status, &before.at_meta.status),
            synced: Some(now),
            token_invalid: false,
            unsubscribed: before.at_meta.unsubscribed.clone(),
            calling: settings.map_or(before.at_meta.calling, calling),
        };
        // The state may predate a failed attempt, so it only counts as success after the pause.
        let over = matches!(&set.registration, Registration::Failed { again, .. } if *again <= now);
        if set.is_cloud() && over {
            set.registration = Registration::Registered;
        }
        let (was, is) = (&before.at_meta, &set.at_meta);
        [
            ("verifiedName", was.verified_name != is.verified_name),
            ("platformType", was.platform_type != is.platform_type),
            ("qualityRating", was.quality_rating != is.quality_rating),
            ("status", was.status != is.status),
            ("callingDrift", before.drift() != set.drift()),
            ("registration", before.registration != set.registration),
        ]
        .into_iter()
        .filter_map(|(field, changed)| changed.then_some(field))
        .collect()
    }
}

/// Whether Graph rejected the token itself.
pub(super) fn is_token_refused(outcome: &GraphOutcome) -> bool {
    matches!(outcome, GraphOutcome::Refused { status, code, .. } if crate::meta::is_token_refused(*status, *code))
}

/// The order of ratings.
fn rank(rating: &str) -> u8 {
    match rating {
        "RED" => 1,
        "YELLOW" => 2,
        "GREEN" => 3,
        _ => 0,
    }
}

/// Meta's word for a quality rating, with its colour in the Graph API.
fn rating(colour: &str) -> String {
    match colour {
        "GREEN" => "High (GREEN)".to_owned(),
        "YELLOW" => "Medium (YELLOW)".to_owned(),
        "RED" => "Low (RED)".to_owned(),
        other => other.to_owned(),
    }
}

/// Whether the quality of a number has fallen.
pub(super) fn has_fallen(was: &str, is: &str) -> bool {
    rank(is) > 0 && rank(is) < rank(was)
}

/// Reads the state of numbers from Meta and stores it.
pub struct MetaSync {
    pub(super) entries: Arc<Entries>,
    pub(super) locks: Arc<NumberLocks>,
    pub(super) graph: Arc<Graph>,
    pub(super) subscriptions: Arc<Subscriptions>,
}

impl MetaSync {
    /// Fetches the state of a number from Meta, and adds unknown numbers of its WABA.
    ///
    /// # Errors
    ///
    /// Returns an error if the number does not exist or the request to Meta fails.
    pub async fn sync_number(
        &self,
        scope: &Scope,
        number: &E164,
    ) -> Result<SyncReport, NumberError> {
        let known = self.entries.target(scope, number)?;
        let waba = self.entries.book().any_number(number).and_then(|entry| entry.waba.clone());
        let mut report = self.refresh(&known).await?;
        if let Some(waba) = waba {
            self.subscriptions.repeat_failed(&waba, known.token.as_ref()).await;
            let new = self.add_new_numbers(&waba).await;
            report.added.extend(new.added);
            report.changed.extend(new.changed);
            report.left_out.extend(new.left_out);
            report.unread.extend(new.unread);
        }
        Ok(report)
    }

    /// Like [`Self::sync_number`], for a number of any account.
    pub(super) async fn refresh(&self, known: &GraphTarget) -> Result<SyncReport, NumberError> {
        match self.ask(known).await {
            Ok(reading) => self.take_over(vec![(known.number.clone(), reading)], None).await,
            Err(outcome) => {
                self.note_token(&known.number, is_token_refused(&outcome)).await;
                Err(NumberError::Meta(outcome))
            }
        }
    }

    /// Fetches a number, and its calling settings if Meta provides them.
    pub(super) async fn ask(&self, known: &GraphTarget) -> Result<NumberReading, GraphOutcome> {
        let (graph, id, token) = (&self.graph, &known.id, known.token.as_ref());
        let as_of = self.locks.writes(&known.number);
        let node = graph.number(id, token);
        let number = node.details().await?;
        let calling = node.calling_settings().await.ok();
        Ok(NumberReading { number, calling, as_of })
    }

    /// Fetches the numbers of a WABA and adds unknown ones.
    ///
    /// # Errors
    ///
    /// Returns an error if the WABA does not exist or the request to Meta fails.
    pub async fn sync_waba(&self, scope: &Scope, waba: &WabaId) -> Result<SyncReport, NumberError> {
        let (token, of) = {
            let book = self.entries.book();
            let entry = book.waba(scope, waba).ok_or(NumberError::Missing(NO_WABA))?;
            (book.token_of_waba(entry), entry.of.clone())
        };
        let numbers =
            self.graph.waba(waba, token.as_ref()).numbers().await.map_err(NumberError::Meta)?;
        self.subscriptions.repeat_failed(waba, token.as_ref()).await;
        self.add_numbers(waba, &of, token.as_ref(), numbers).await
    }

    /// Adds the numbers of a known WABA that were added at Meta since they were last listed. The
    /// report is empty if they can't be listed.
    pub(super) async fn add_new_numbers(&self, waba: &WabaId) -> SyncReport {
        match self.find_new_numbers(waba).await {
            Ok(report) => report,
            Err(error) => {
                tracing::info!(%waba, %error, "numbers of a WABA not listed");
                SyncReport::default()
            }
        }
    }

    async fn find_new_numbers(&self, waba: &WabaId) -> Result<SyncReport, NumberError> {
        let (token, of) = {
            let book = self.entries.book();
            let known = book.any_waba(waba).map(|entry| (book.token_of_waba(entry), &entry.of));
            // Graph cannot be asked without a token.
            let Some((Some(token), of)) = known else { return Ok(SyncReport::default()) };
            (token, of.clone())
        };
        let listed = self.graph.waba(waba, Some(&token)).numbers().await;
        let mut numbers = listed.map_err(NumberError::Meta)?;
        {
            let book = self.entries.book();
            numbers.retain(|listed| {
                book.number_by_id(&listed.id.as_str().into()).is_none()
                    && E164::parse(&listed.number).is_ok_and(|n| book.any_number(&n).is_none())
            });
        }
        if numbers.is_empty() {
            return Ok(SyncReport::default());
        }
        let report = self.add_numbers(waba, &of, Some(&token), numbers).await?;
        for number in &report.added {
            tracing::info!(%waba, %number, "number added at Meta is connected");
            let text = format!("{number} was added to WABA {waba} at Meta and is connected.");
            self.entries.notice(number, NotificationTopic::Number, text);
            self.entries.publish(number);
        }
        for (number, why) in &report.left_out {
            let error = NumberError::from(why.clone());
            tracing::warn!(%waba, %number, %error, "number added at Meta is not connected");
        }
        Ok(report)
    }

    /// Adds the unknown numbers of a WABA and applies the state of all, in one change.
    pub(super) async fn add_numbers(
        &self,
        waba: &WabaId,
        of: &AuthId,
        token: Option<&Secret>,
        numbers: Vec<PhoneNumber>,
    ) -> Result<SyncReport, NumberError> {
        let mut reading = Vec::new();
        for number in numbers {
            let Ok(digits) = E164::parse(&number.number) else { continue };
            let id = PhoneNumberId::from(number.id.as_str());
            let known_as =
                self.entries.book().number_by_id(&id).map_or(digits, |entry| entry.number.clone());
            let as_of = self.locks.writes(&known_as);
            let calling = self.graph.number(&id, token).calling_settings().await.ok();
            reading.push((known_as, NumberReading { number, calling, as_of }));
        }
        let made = |reading: &NumberReading| ConnectedNumber {
            phone_number_id: reading.number.id.as_str().into(),
            waba: Some(waba.clone()),
            of: of.clone(),
        };
        self.take_over(reading, Some(&made)).await
    }

    /// Applies the state of some numbers, all or none. A number that is not connected yet is
    /// connected with the settings that `made` returns, or skipped if it returns `None`.
    pub(super) async fn take_over(
        &self,
        reading: Vec<(E164, NumberReading)>,
        made: Option<&(dyn Fn(&NumberReading) -> ConnectedNumber + Sync)>,
    ) -> Result<SyncReport, NumberError> {
        let now = self.entries.clock.wall();
        let before: Vec<(E164, String)> = {
            let book = self.entries.book();
            let rating = |number: &E164| {
                book.any_number(number).map(|n| n.set.at_meta.quality_rating.clone())
            };
            reading
                .iter()
                .map(|(number, _)| (number.clone(), rating(number).unwrap_or_default()))
                .collect()
        };
        let stored = self.entries.keeper.change(now, |book| {
            let (mut synced, mut keys) = (SyncReport::default(), Vec::new());
            for (number, reading) in &reading {
                let (mut fields, was_here) = (Vec::new(), book.any_number(number).is_some());
                let id = PhoneNumberId::from(reading.number.id.as_str());
                let entered = made.map(|made| match book.number_by_id(&id) {
                    Some(there) if book.is_foreign(there, &made(reading)) => {
                        Err(ConnectRefusal::Taken)
                    }
                    Some(_) => Ok(Vec::new()),
                    None => book.connect_number((number, made(reading)), None, now),
                });
                match entered.transpose() {
                    Ok(connected) => {
                        let connected = connected.unwrap_or_default();
                        // A known number with a new id at Meta.
                        match (connected.is_empty(), was_here) {
                            (true, _) => {}
                            (false, true) => fields.push("whatsappPhoneNumberId"),
                            (false, false) => synced.added.push(number.clone()),
                        }
                        keys.extend(connected);
                    }
                    Err(why) => {
                        synced.left_out.push((number.clone(), why));
                        continue;
                    }
                }
                let fresh = reading.as_of == self.locks.writes(number);
                keys.extend(
                    book.edit_number(number, |set| fields.extend(reading.apply(set, now, fresh))),
                );
                let adopted = made
                    .and_then(|made| made(reading).waba)
                    .map(|waba| book.adopt_number(number, &waba));
                if let Some(adopted) = adopted.filter(|adopted| !adopted.is_empty()) {
                    keys.extend(adopted);
                    fields.push("whatsappBusinessAccount");
                }
                if !fields.is_empty() {
                    synced.changed.push((number.clone(), fields));
                }
                if reading.calling.is_none() {
                    synced.unread.push(number.clone());
                }
            }
            Ok::<_, NumberError>((synced, keys))
        });
        let synced = stored.await?;
        for (number, _) in &synced.changed {
            self.entries.publish(number);
        }
        for (number, was) in before {
            self.warn_of_quality(&number, &was);
        }
        Ok(synced)
    }

    fn warn_of_quality(&self, number: &E164, was: &str) {
        let book = self.entries.book();
        let Some(entry) = book.any_number(number) else { return };
        let is = &entry.set.at_meta.quality_rating;
        if has_fallen(was, is) {
            tracing::warn!(%number, was, is, "quality rating of a number has fallen");
            let text = format!(
                "Meta's quality rating of {number} has fallen from {} to {}, because users block or report it.",
                rating(was),
                rating(is)
            );
            self.entries.notice(number, NotificationTopic::Quality, text);
        }
    }

    pub(super) async fn note_token(&self, number: &E164, invalid: bool) {
        let noted = |set: &NumberSet| set.at_meta.token_invalid == invalid;
        if !invalid || self.entries.book().any_number(number).is_none_or(|entry| noted(&entry.set))
        {
            return;
        }
        let now = self.entries.clock.wall();
        let stored = self.entries.keeper.change(now, |book| {
            // Several requests may report it at the same time, but only one notification is sent.
            let first = book.any_number(number).is_some_and(|entry| !noted(&entry.set));
            Ok::<_, NumberError>((
                first,
                book.edit_number(number, |set| set.at_meta.token_invalid = invalid),
            ))
        });
        if matches!(stored.await, Ok(true)) {
            self.entries.publish(number);
            let text = format!(
                "Meta no longer accepts the access token of {number}. Calls and messages fail until it is connected with a new one."
            );
            self.entries.notice(number, NotificationTopic::Number, text);
        }
    }
}

/// Converts settings read from Meta.
pub(super) fn calling(read: CallingSettings) -> Calling {
    Calling {
        enabled: read.enabled,
        callback_permission: read.callback_permission,
        sip: read.sip,
        sdes: read.sdes,
        restricted: Some(read.restricted),
    }
}
