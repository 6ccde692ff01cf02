//! A change of the settings of a number, and its validation. Pure.

use super::errors::NumberError;
use crate::admission::book::{Book, Configuration, Link, Number, NumberSet};
use crate::meta::numbers::CallingChange;
use egress::{CustomerUrl, Guard};
use model::{Method, is_line};
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
    /// Returns the first invalid field or violated rule. What the change leaves as it is is never
    /// refused, so that the number can be sent back as it was read.
    pub fn applied(
        &self,
        book: &Book,
        number: &Number,
        guard: &Guard,
    ) -> Result<NumberSet, NumberError> {
        let mut set = number.set.clone();
        if let Some(alias) = &self.alias {
            if !is_line(alias, 0..=ALIAS_CHARS_MAX) {
                return Err(NumberError::bad(
                    "alias",
                    "alias must have at most 100 characters on one line",
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
            let was = number.set.webhook_url.as_ref();
            set.webhook_url = url("webhookUrl", given.as_deref(), was, guard)?;
        }
        let answer = book.answer_of(number).url;
        let is_of_application = number.set.answer.url.is_none()
            && self.answer_url.as_ref().is_some_and(|given| is_same(given.as_deref(), &answer));
        let answer_url = self.answer_url.as_ref().filter(|_| !is_of_application);
        let links = [
            (&mut set.answer, answer_url, &self.answer_method, ("answerUrl", "answerMethod")),
            (
                &mut set.fallback,
                self.fallback_url.as_ref(),
                &self.fallback_method,
                ("fallbackUrl", "fallbackMethod"),
            ),
            (
                &mut set.hangup,
                self.hangup_url.as_ref(),
                &self.hangup_method,
                ("hangupUrl", "hangupMethod"),
            ),
        ];
        for (link, given, how, names) in links {
            edit_link(link, given, how.as_deref(), names, guard)?;
        }
        // A number without a limit of its own shows the default.
        let is_default = set.calls_per_number.is_none()
            && self.calls_per_number == Some(Some(book.default_slots()));
        if let Some(calls) = self.calls_per_number.filter(|_| !is_default) {
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
        let with = Number { set, ..number.clone() };
        let (was, is) = (&number.set, &with.set);
        let of_webhook = is.configuration == Configuration::Webhook;
        let lacks_url = match was.configuration {
            Configuration::Webhook => was.webhook_url.is_some(),
            // An answer document serves a number that leaves its agent, too.
            Configuration::Agent => {
                was.webhook_url.is_some() || book.answer_of(&with).url.is_none()
            }
        };
        if of_webhook && is.webhook_url.is_none() && lacks_url {
            return Err(NumberError::bad(
                "webhookUrl",
                "webhookUrl is needed with configurationType webhook: to have no URL, set \
                 configurationType to agent, with or without an agent",
            ));
        }
        if is.calling_enabled && !was.calling_enabled && number.waba.is_none() {
            let message = "calling can't be enabled: the WABA of this number is unknown";
            return Err(NumberError::state("no_waba", message));
        }
        if of_webhook && takes_answer(book, number, &with) {
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

/// Whether these settings make calls depend on the agent: the number is of that type, calling is
/// enabled, and there is no answer URL.
pub(super) fn needs_agent(book: &Book, number: &Number, set: NumberSet) -> bool {
    let with = Number { set, ..number.clone() };
    with.set.configuration == Configuration::Agent && takes_answer(book, number, &with)
}

/// Whether a number with calling enabled has no answer URL after a change, and was not so before with
/// the same configuration type.
fn takes_answer(book: &Book, was: &Number, is: &Number) -> bool {
    let lacks = |one: &Number| one.set.calling_enabled && book.answer_of(one).url.is_none();
    lacks(is) && !(lacks(was) && was.set.configuration == is.set.configuration)
}

/// Whether a given URL is the present one.
fn is_same(given: Option<&str>, was: &Option<DocUrl>) -> bool {
    given.map(str::trim).filter(|text| !text.is_empty()) == was.as_ref().map(|url| &*url.0)
}

fn edit_link(
    link: &mut Link,
    given: Option<&Option<String>>,
    how: Option<&str>,
    (url_name, method_name): (&'static str, &'static str),
    guard: &Guard,
) -> Result<(), NumberError> {
    if let Some(given) = given {
        link.url = url(url_name, given.as_deref(), link.url.as_ref(), guard)?;
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
    was: Option<&DocUrl>,
    guard: &Guard,
) -> Result<Option<DocUrl>, NumberError> {
    let Some(text) = given.map(str::trim).filter(|text| !text.is_empty()) else { return Ok(None) };
    if let Some(was) = was.filter(|was| *was.0 == *text) {
        return Ok(Some(was.clone()));
    }
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
