//! A change of the settings of a number, and its validation. Pure.

use super::errors::NumberError;
use crate::admission::book::{Book, Configuration, Link, Number, NumberSet};
use crate::meta::numbers::CallingChange;
use egress::{CustomerUrl, Guard};
use model::Method;
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
    pub(super) fn at_meta(&self) -> CallingChange {
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
