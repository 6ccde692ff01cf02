//! Reads what Meta knows of numbers: names, platform, quality, calling settings; and takes in a WABA's numbers that are not
//! known yet.

use super::panel::calling;
use super::{Known, NO_WABA, No, Numbers};
use crate::admission::book::{Elsewhere, Made, NumberSet, Registration, Told};
use crate::meta::numbers::{CallingSettings, PhoneNumber};
use machine::GraphOutcome;
use model::Secret;
use model::{AuthId, E164, NotificationTopic, PhoneNumberId, Timestamp, WabaId};
use store::Scope;

/// What a sync changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Synced {
    /// Numbers that were not known before.
    pub added: Vec<E164>,
    /// Fields of the number resource that are not as they were.
    pub changed: Vec<(E164, Vec<&'static str>)>,
    /// Numbers that Meta lists and that could not be added.
    pub left_out: Vec<(E164, Elsewhere)>,
    /// Numbers whose calling settings Meta did not give: they are as they were.
    pub unread: Vec<E164>,
}

/// What Graph said of a number.
pub(super) struct Said {
    pub(super) number: PhoneNumber,
    pub(super) calling: Option<CallingSettings>,
    /// Writes at Meta before the settings were read.
    pub(super) as_of: u64,
}

impl Said {
    /// Takes it over, its settings where they are `fresh`; gives the fields that changed.
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
        set.told = Told {
            verified_name: keep(&number.verified_name, &before.told.verified_name),
            platform_type: keep(&number.platform_type, &before.told.platform_type),
            quality_rating: keep(&number.quality_rating, &before.told.quality_rating),
            status: keep(&number.status, &before.told.status),
            synced: Some(now),
            token_invalid: false,
            unsubscribed: before.told.unsubscribed.clone(),
            calling: settings.map_or(before.told.calling, calling),
        };
        // What Meta shows may be of before the attempt that failed: its pause holds.
        let over = matches!(&set.registration, Registration::Failed { again, .. } if *again <= now);
        if set.is_cloud() && over {
            set.registration = Registration::Registered;
        }
        let (was, is) = (&before.told, &set.told);
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

/// Whether Graph refused the token itself.
pub(super) fn is_token_refused(outcome: &GraphOutcome) -> bool {
    matches!(outcome, GraphOutcome::Refused { status, code, .. } if crate::meta::is_token_refused(*status, *code))
}

/// How good a rating is.
fn rank(rating: &str) -> u8 {
    match rating {
        "RED" => 1,
        "YELLOW" => 2,
        "GREEN" => 3,
        _ => 0,
    }
}

/// Whether a number's quality has fallen.
pub(super) fn has_fallen(was: &str, is: &str) -> bool {
    rank(is) > 0 && rank(is) < rank(was)
}

impl Numbers {
    /// Reads what Meta knows of a number.
    ///
    /// # Errors
    /// No such number, or Meta's no.
    pub async fn sync_number(&self, scope: &Scope, number: &E164) -> Result<Synced, No> {
        let known = self.found(scope, number)?;
        let waba = self.book().any_number(number).and_then(|entry| entry.waba.clone());
        if let Some(waba) = waba {
            self.subscribe_again(&waba, known.token.as_ref()).await;
        }
        self.refresh(&known).await
    }

    /// The same, whoever has it.
    pub(super) async fn refresh(&self, known: &Known) -> Result<Synced, No> {
        match self.ask(known).await {
            Ok(said) => self.take_over(vec![(known.number.clone(), said)], None).await,
            Err(outcome) => {
                self.note_token(&known.number, is_token_refused(&outcome)).await;
                Err(No::Meta(outcome))
            }
        }
    }

    /// The number, and its settings where Meta gives them.
    pub(super) async fn ask(&self, known: &Known) -> Result<Said, GraphOutcome> {
        let (graph, id, token) = (&self.parts().graph, &known.id, known.token.as_ref());
        let as_of = self.writes(&known.number);
        let number = graph.phone_number(id, token).await?;
        let calling = graph.calling_settings(id, token).await.ok();
        Ok(Said { number, calling, as_of })
    }

    /// Reads a WABA's numbers, and takes in those that are not known.
    ///
    /// # Errors
    /// No such WABA, or Meta's no.
    pub async fn sync_waba(&self, scope: &Scope, waba: &WabaId) -> Result<Synced, No> {
        let (token, of) = {
            let book = self.book();
            let entry = book.waba(scope, waba).ok_or(No::Missing(NO_WABA))?;
            (book.token_of_waba(entry), entry.of.clone())
        };
        let numbers =
            self.parts().graph.numbers_of_waba(waba, token.as_ref()).await.map_err(No::Meta)?;
        self.subscribe_again(waba, token.as_ref()).await;
        self.take_in(waba, &of, token.as_ref(), numbers).await
    }

    /// Takes those of a WABA's numbers in that are not known, and what Meta says of each; in one change, so that nothing of it is
    /// half there.
    pub(super) async fn take_in(
        &self,
        waba: &WabaId,
        of: &AuthId,
        token: Option<&Secret>,
        numbers: Vec<PhoneNumber>,
    ) -> Result<Synced, No> {
        let mut said = Vec::new();
        for number in numbers {
            let Ok(digits) = E164::parse(&number.number) else { continue };
            let id = PhoneNumberId::from(number.id.as_str());
            let known_as =
                self.book().number_by_id(&id).map_or(digits, |entry| entry.number.clone());
            let as_of = self.writes(&known_as);
            let calling = self.parts().graph.calling_settings(&id, token).await.ok();
            said.push((known_as, Said { number, calling, as_of }));
        }
        let made = |said: &Said| Made {
            phone_number_id: said.number.id.as_str().into(),
            waba: Some(waba.clone()),
            of: of.clone(),
        };
        self.take_over(said, Some(&made)).await
    }

    /// Takes over what Graph said of some numbers: all of it or, where the store takes nothing, none. One that is not known is
    /// connected by what `made` gives; without that it is passed over.
    pub(super) async fn take_over(
        &self,
        said: Vec<(E164, Said)>,
        made: Option<&(dyn Fn(&Said) -> Made + Sync)>,
    ) -> Result<Synced, No> {
        let now = self.parts().clock.wall();
        let before: Vec<(E164, String)> = {
            let book = self.book();
            let rating =
                |number: &E164| book.any_number(number).map(|n| n.set.told.quality_rating.clone());
            said.iter()
                .map(|(number, _)| (number.clone(), rating(number).unwrap_or_default()))
                .collect()
        };
        let stored = self.parts().keeper.change(now, |book| {
            let (mut synced, mut keys) = (Synced::default(), Vec::new());
            for (number, said) in &said {
                let (mut fields, was_here) = (Vec::new(), book.any_number(number).is_some());
                let id = PhoneNumberId::from(said.number.id.as_str());
                let entered = made.map(|made| match book.number_by_id(&id) {
                    Some(there) if book.is_theirs(there, &made(said)) => Err(Elsewhere::Taken),
                    Some(_) => Ok(Vec::new()),
                    None => book.connect_number((number, made(said)), None, now),
                });
                match entered.transpose() {
                    Ok(connected) => {
                        let connected = connected.unwrap_or_default();
                        // One that Meta has under another id now is the number that it was.
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
                let fresh = said.as_of == self.writes(number);
                keys.extend(
                    book.edit_number(number, |set| fields.extend(said.apply(set, now, fresh))),
                );
                let adopted = made
                    .and_then(|made| made(said).waba)
                    .map(|waba| book.adopt_number(number, &waba));
                if let Some(adopted) = adopted.filter(|adopted| !adopted.is_empty()) {
                    keys.extend(adopted);
                    fields.push("whatsappBusinessAccount");
                }
                if !fields.is_empty() {
                    synced.changed.push((number.clone(), fields));
                }
                if said.calling.is_none() {
                    synced.unread.push(number.clone());
                }
            }
            Ok::<_, No>((synced, keys))
        });
        let synced = stored.await?;
        for (number, _) in &synced.changed {
            self.tell(number);
        }
        for (number, was) in before {
            self.warn_of_quality(&number, &was);
        }
        Ok(synced)
    }

    fn warn_of_quality(&self, number: &E164, was: &str) {
        let book = self.book();
        let Some(entry) = book.any_number(number) else { return };
        let is = &entry.set.told.quality_rating;
        if has_fallen(was, is) {
            tracing::warn!(
                ?number,
                was,
                is,
                "a number's quality has fallen at Meta: users block or report it"
            );
            let text = format!(
                "The quality of {number} has fallen from {was} to {is} at Meta: users block or report it."
            );
            self.notice(number, NotificationTopic::Quality, text);
        }
    }

    pub(super) async fn note_token(&self, number: &E164, invalid: bool) {
        let noted = |set: &NumberSet| set.told.token_invalid == invalid;
        if !invalid || self.book().any_number(number).is_none_or(|entry| noted(&entry.set)) {
            return;
        }
        let now = self.parts().clock.wall();
        let stored = self.parts().keeper.change(now, |book| {
            // Several requests may hear it at the same moment: people are told once.
            let first = book.any_number(number).is_some_and(|entry| !noted(&entry.set));
            Ok::<_, No>((first, book.edit_number(number, |set| set.told.token_invalid = invalid)))
        });
        if matches!(stored.await, Ok(true)) {
            self.tell(number);
            let text = format!(
                "Meta does not take the access token of {number} any more: calls and messages fail until it is connected with another one."
            );
            self.notice(number, NotificationTopic::Number, text);
        }
    }
}
