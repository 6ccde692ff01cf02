//! Changes to the settings of a number. A change is validated as a whole, made at Meta first where
//! it concerns Meta, then applied here for the next event.

use super::{NO_NUMBER, NumberError, Numbers};
use crate::admission::book::{Book, Calling, Configuration, Link, Number, NumberSet};
use crate::meta::numbers::{CallingChange, CallingSettings};
use egress::{CustomerUrl, Guard};
use model::{E164, Method};
use store::Scope;
use xml::ast::DocUrl;

/// Longest alias, in characters.
const ALIAS_CHARS_MAX: usize = 100;
/// Longest URL, in characters.
const URL_CHARS_MAX: usize = 2_048;
/// The same range as in the configuration.
const CALLS: std::ops::RangeInclusive<u32> = 1..=100_000;

/// A change of settings. `None` keeps a field; an inner `None` clears it.
#[derive(Clone, Debug, Default)]
pub struct Change {
    pub alias: Option<String>,
    pub configuration: Option<String>,
    pub webhook_url: Option<Option<String>>,
    pub calling_enabled: Option<bool>,
    pub answer_url: Option<Option<String>>,
    pub answer_method: Option<String>,
    pub fallback_url: Option<Option<String>>,
    pub fallback_method: Option<String>,
    pub hangup_url: Option<Option<String>>,
    pub hangup_method: Option<String>,
    pub calls_per_number: Option<Option<u32>>,
    pub callback_permission: Option<bool>,
    pub active: Option<bool>,
}

impl Change {
    /// Applies the change to the number's settings and validates the result.
    ///
    /// # Errors
    ///
    /// Returns the first invalid field or violated rule. Rules are checked only if the change
    /// concerns them.
    pub fn applied(
        &self,
        book: &Book,
        number: &Number,
        guard: &Guard,
    ) -> Result<NumberSet, NumberError> {
        let mut set = number.set.clone();
        if let Some(alias) = &self.alias {
            if alias.chars().count() > ALIAS_CHARS_MAX || alias.chars().any(char::is_control) {
                return Err(NumberError::bad(
                    "alias",
                    "alias must have at most 100 characters, and no control characters",
                ));
            }
            alias.trim().clone_into(&mut set.alias);
        }
        match self.configuration.as_deref() {
            None => {}
            Some("webhook") => set.configuration = Configuration::Webhook,
            Some("agent") => set.configuration = Configuration::Agent,
            Some(_) => {
                return Err(NumberError::bad(
                    "configurationType",
                    "configurationType must be webhook or agent",
                ));
            }
        }
        if let Some(given) = &self.webhook_url {
            set.webhook_url = url("webhookUrl", given.as_deref(), guard)?;
        }
        let links = [
            (&mut set.answer, &self.answer_url, &self.answer_method, ("answerUrl", "answerMethod")),
            (
                &mut set.fallback,
                &self.fallback_url,
                &self.fallback_method,
                ("fallbackUrl", "fallbackMethod"),
            ),
            (&mut set.hangup, &self.hangup_url, &self.hangup_method, ("hangupUrl", "hangupMethod")),
        ];
        for (link, given, how, names) in links {
            edit_link(link, given.as_ref(), how.as_deref(), names, guard)?;
        }
        if let Some(calls) = self.calls_per_number {
            if calls.is_some_and(|calls| !CALLS.contains(&calls)) {
                return Err(NumberError::bad(
                    "callsPerNumber",
                    "callsPerNumber must be from 1 to 100000, or null",
                ));
            }
            set.calls_per_number = calls;
        }
        set.callback_permission = self.callback_permission.or(set.callback_permission);
        set.calling_enabled = self.calling_enabled.unwrap_or(set.calling_enabled);
        if let Some(active) = self.active {
            set.inactive = !active;
        }
        self.validate(book, number, set)
    }

    fn validate(
        &self,
        book: &Book,
        number: &Number,
        set: NumberSet,
    ) -> Result<NumberSet, NumberError> {
        let of_webhook = self.configuration.is_some() || self.webhook_url.is_some();
        if of_webhook && set.configuration == Configuration::Webhook && set.webhook_url.is_none() {
            return Err(NumberError::bad(
                "webhookUrl",
                "webhookUrl is needed with configurationType webhook",
            ));
        }
        if self.calling_enabled == Some(true) && number.waba.is_none() {
            let message = "calling can't be enabled: the WABA of this number is unknown";
            return Err(NumberError::state("no_waba", message));
        }
        let of_calling = self.calling_enabled.is_some() || self.answer_url.is_some();
        let with = Number { set, ..number.clone() };
        let needs_answer = with.set.configuration == Configuration::Webhook;
        if of_calling
            && needs_answer
            && with.set.calling_enabled
            && book.answer_of(&with).url.is_none()
        {
            return Err(NumberError::bad(
                "answerUrl",
                "answerUrl is needed while calling is enabled",
            ));
        }
        Ok(with.set)
    }

    /// The part of the change that is sent to Meta, even if Meta seems to have it already: the
    /// known state may be outdated.
    fn at_meta(&self) -> CallingChange {
        CallingChange {
            enabled: self.calling_enabled,
            callback_permission: self.callback_permission,
        }
    }
}

fn edit_link(
    link: &mut Link,
    given: Option<&Option<String>>,
    how: Option<&str>,
    (url_name, method_name): (&'static str, &'static str),
    guard: &Guard,
) -> Result<(), NumberError> {
    if let Some(given) = given {
        link.url = url(url_name, given.as_deref(), guard)?;
    }
    match how.map(str::to_ascii_uppercase).as_deref() {
        None => {}
        Some("GET") => link.method = Method::Get,
        Some("POST") => link.method = Method::Post,
        Some(_) => {
            return Err(NumberError::bad(
                method_name,
                format!("{method_name} must be GET or POST"),
            ));
        }
    }
    Ok(())
}

/// Parses a URL field. An empty one is cleared.
fn url(
    field: &'static str,
    given: Option<&str>,
    guard: &Guard,
) -> Result<Option<DocUrl>, NumberError> {
    let Some(text) = given.map(str::trim).filter(|text| !text.is_empty()) else { return Ok(None) };
    if text.chars().count() > URL_CHARS_MAX {
        return Err(NumberError::bad(
            field,
            format!("{field} is longer than {URL_CHARS_MAX} characters"),
        ));
    }
    match CustomerUrl::parse(text, guard) {
        Ok(_) => Ok(Some(DocUrl(text.into()))),
        Err(why) => Err(NumberError::bad(field, format!("{field} can't be used: {why}"))),
    }
}

impl Numbers {
    /// Checks whether a change is valid, without a request to Meta and without changing anything.
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
    ) -> Result<(), NumberError> {
        if change.active == Some(true) && self.routed(number).agent.is_none() {
            return Err(NumberError::bad("active", "active needs an agent; connect one first"));
        }
        let book = self.book();
        let entry = book.number(scope, number).ok_or(NumberError::Missing(NO_NUMBER))?;
        unchanged(seen, &entry.set)?;
        change.applied(&book, entry, &self.parts().guard).map(drop)
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
        let _turn = self.turn(number).await;
        self.judge(scope, number, change, seen)?;
        let (known, at_meta) = (self.found(scope, number)?, change.at_meta());
        let mut settings = None;
        if at_meta.is_some() {
            let node = self.parts().graph.number(&known.id, known.token.as_ref());
            let changed = node.change_calling(at_meta).await;
            self.record_write(number);
            changed.map_err(NumberError::Meta)?;
            // Read the settings back. If that fails, assume the values that were sent.
            let read = node.calling_settings().await;
            settings = Some(read.ok().map(calling).unwrap_or_else(|| assumed(at_meta)));
        }
        let now = self.parts().clock.wall();
        let stored = self.parts().keeper.change(now, |book| {
            let entry = book.number(scope, number).ok_or(NumberError::Missing(NO_NUMBER))?;
            unchanged(seen, &entry.set)?;
            let mut set = change.applied(book, entry, &self.parts().guard)?;
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
                .parts()
                .keeper
                .change(now, |book| Ok::<_, NumberError>(((), book.edit_number(number, keep))));
            if let Err(why) = kept.await {
                tracing::warn!(
                    %number,
                    error = %why,
                    "could not store the calling settings read from Meta"
                );
            }
        }
        self.publish(number);
        Ok(stored?)
    }
}

fn unchanged(seen: Option<&NumberSet>, set: &NumberSet) -> Result<(), NumberError> {
    match seen {
        Some(seen) if seen.panel() != set.panel() => Err(NumberError::Changed),
        _ => Ok(()),
    }
}

impl Numbers {
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
        match self.book().number(scope, number).map(|entry| differs(&entry.set)) {
            None => return Err(NumberError::Missing(NO_NUMBER)),
            Some(false) => return Ok(()),
            Some(true) => {}
        }
        let now = self.parts().clock.wall();
        let stored = self.parts().keeper.change(now, |book| {
            book.number(scope, number).ok_or(NumberError::Missing(NO_NUMBER))?;
            Ok::<_, NumberError>(((), book.edit_number(number, |set| *set = with_agent(set))))
        });
        stored.await?;
        Ok(())
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

fn assumed(change: CallingChange) -> Calling {
    Calling {
        enabled: change.enabled,
        callback_permission: change.callback_permission,
        ..Calling::default()
    }
}
