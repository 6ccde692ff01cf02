//! The settings panel of a number. A change is validated as a whole, made at Meta first where it
//! concerns Meta, then applied here for the next event.

use std::sync::Arc;

use super::NO_NUMBER;
use super::change::{Change, needs_agent};
use super::entries::Entries;
use super::errors::NumberError;
use super::locks::NumberLocks;
use super::routing::RoutingLookup;
use super::sync::calling;
use crate::admission::book::{Calling, Configuration, NumberSet};
use crate::meta::Graph;
use crate::meta::numbers::CallingChange;
use egress::Guard;
use model::E164;
use store::Scope;

/// Changes settings.
pub struct Panel {
    pub(super) entries: Arc<Entries>,
    pub(super) locks: Arc<NumberLocks>,
    pub(super) graph: Arc<Graph>,
    pub(super) guard: Guard,
    pub(super) routing: Arc<RoutingLookup>,
}

impl Panel {
    /// Checks whether a change is valid, without a request to Meta and without changing anything.
    /// Returns whether calls depend on the number's agent because of it.
    ///
    /// # Errors
    ///
    /// Returns the first fault of the change.
    pub fn judge(
        &self,
        scope: &Scope,
        number: &E164,
        change: &Change,
        seen: Option<&NumberSet>,
    ) -> Result<bool, NumberError> {
        if change.active == Some(true) && self.routing.of(number).agent.is_none() {
            return Err(NumberError::bad("active", "active needs an agent; connect one first"));
        }
        let book = self.entries.book();
        let entry = book.number(scope, number).ok_or(NumberError::Missing(NO_NUMBER))?;
        unchanged(seen, &entry.set)?;
        let set = change.applied(&book, entry, &self.guard)?;
        Ok(needs_agent(&book, entry, set))
    }

    /// Changes the settings of a number. With `seen` the change is made only if the settings still
    /// equal these.
    ///
    /// # Errors
    ///
    /// Returns the first fault of the change, or Meta's refusal. Then nothing has changed here.
    pub async fn change(
        &self,
        scope: &Scope,
        number: &E164,
        change: &Change,
        seen: Option<&NumberSet>,
    ) -> Result<(), NumberError> {
        let _turn = self.locks.lock(number).await;
        self.judge(scope, number, change, seen)?;
        let (known, at_meta) = (self.entries.target(scope, number)?, change.at_meta());
        let mut settings = None;
        if at_meta.is_some() {
            let node = self.graph.number(&known.id, known.token.as_ref());
            let changed = node.change_calling(at_meta).await;
            self.locks.record_write(number);
            changed.map_err(NumberError::Meta)?;
            // Read the settings back. If that fails, assume the values that were sent.
            let read = node.calling_settings().await;
            settings = Some(read.ok().map(calling).unwrap_or_else(|| assumed(at_meta)));
        }
        let now = self.entries.clock.wall();
        let stored = self.entries.keeper.change(now, |book| {
            let entry = book.number(scope, number).ok_or(NumberError::Missing(NO_NUMBER))?;
            unchanged(seen, &entry.set)?;
            let mut set = change.applied(book, entry, &self.guard)?;
            if let Some(settings) = settings {
                set.at_meta.calling = settings;
            }
            Ok(((), book.edit_number(number, |now| *now = set)))
        });
        let stored = stored.await;
        if let (Err(_), Some(settings)) = (&stored, settings) {
            // The configuration was reloaded in between. Store Meta's state, so that the drift is
            // visible.
            let keep = |set: &mut NumberSet| set.at_meta.calling = settings;
            let kept = self
                .entries
                .keeper
                .change(now, |book| Ok::<_, NumberError>(((), book.edit_number(number, keep))));
            if let Err(why) = kept.await {
                tracing::warn!(
                    %number,
                    error = %why,
                    "calling settings from Meta not stored"
                );
            }
        }
        self.entries.publish(number);
        Ok(stored?)
    }
}

fn unchanged(seen: Option<&NumberSet>, set: &NumberSet) -> Result<(), NumberError> {
    match seen {
        Some(seen) if seen.panel() != set.panel() => Err(NumberError::Changed),
        _ => Ok(()),
    }
}

impl Panel {
    /// Prepares a number for an AI agent. `wakes` activates the number. Its configuration becomes
    /// [`Configuration::Agent`], unless `url_serves` (its own URL has open conversations), or a
    /// document answers its calls and the agent does not.
    ///
    /// # Errors
    ///
    /// Returns an error if the number does not exist or the store fails.
    pub async fn prepare_for_agent(
        &self,
        scope: &Scope,
        number: &E164,
        wakes: bool,
        takes_calls: bool,
        url_serves: bool,
    ) -> Result<(), NumberError> {
        let with_agent = |set: &NumberSet| NumberSet {
            inactive: set.inactive && !wakes,
            configuration: match url_serves || (set.calling_enabled && !takes_calls) {
                true => set.configuration,
                false => Configuration::Agent,
            },
            ..set.clone()
        };
        let differs = |set: &NumberSet| {
            let with = with_agent(set);
            (with.inactive, with.configuration) != (set.inactive, set.configuration)
        };
        match self.entries.book().number(scope, number).map(|entry| differs(&entry.set)) {
            None => return Err(NumberError::Missing(NO_NUMBER)),
            Some(false) => return Ok(()),
            Some(true) => {}
        }
        let now = self.entries.clock.wall();
        let stored = self.entries.keeper.change(now, |book| {
            book.number(scope, number).ok_or(NumberError::Missing(NO_NUMBER))?;
            Ok::<_, NumberError>(((), book.edit_number(number, |set| *set = with_agent(set))))
        });
        stored.await?;
        Ok(())
    }

    /// Has the own URLs of a number that has lost its agent serve it again: the configuration becomes
    /// [`Configuration::Webhook`] if there is an answer document or a webhook URL. Without them, the
    /// number waits for another agent.
    ///
    /// # Errors
    ///
    /// Returns an error if the number does not exist or the store fails.
    pub async fn release_from_agent(
        &self,
        scope: &Scope,
        number: &E164,
    ) -> Result<(), NumberError> {
        let stored = self.entries.keeper.change(self.entries.clock.wall(), |book| {
            let entry = book.number(scope, number).ok_or(NumberError::Missing(NO_NUMBER))?;
            let set = &entry.set;
            let has_url = set.webhook_url.is_some() || book.answer_of(entry).get().is_some();
            let keys = match set.configuration == Configuration::Agent && has_url {
                true => book.edit_number(number, |set| set.configuration = Configuration::Webhook),
                false => Vec::new(),
            };
            Ok::<_, NumberError>(((), keys))
        });
        stored.await?;
        Ok(())
    }
}

fn assumed(change: CallingChange) -> Calling {
    Calling {
        enabled: change.enabled,
        callback_permission: change.callback_permission,
        ..Calling::default()
    }
}
