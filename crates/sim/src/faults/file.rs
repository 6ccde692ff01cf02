//! Parser of rule files: TOML with one `[[fault]]` table per rule. Errors name the line.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::body::{Batch, BodyVariant};
use super::callee::{CalleeOverride, EVENT_ORDERS};
use super::net::{MediaFault, MediaFaultKind};
use super::offer::OfferFault;
use super::{
    FaultAction, Faults, FaultsError, GraphBody, GraphFault, GraphFaultKind, Rule, SignatureFault,
    Storm, WebhookFault, WebhookKind,
};
use crate::caller::CalleeAction;
use crate::meta::action::Action;
use model::digits_of;

/// Maximum of all durations, in milliseconds: one hour.
const MS_MAX: i64 = 3_600_000;
/// Maximum length of a call id, in bytes (`docs/reference/meta.md#bounds`).
const ID_BYTES_MAX: i64 = 512;
/// Maximum number of calls of a storm.
const STORM_CALLS_MAX: i64 = 10_000;
/// Values of `do`.
const ACTION_NAMES: &[&str] = &[
    "duplicate",
    "delay",
    "swap",
    "lose",
    "sign",
    "skew",
    "reshape",
    "batch",
    "call_id",
    "offer",
    "answer",
    "silence",
    "reset",
    "media",
    "storm",
    "pick_up",
    "decline",
    "unanswered",
    "order",
];
const WEBHOOK_KINDS: &[(&str, WebhookKind)] = &[
    ("connect", WebhookKind::Connect),
    ("ringing", WebhookKind::Ringing),
    ("accepted", WebhookKind::Accepted),
    ("rejected", WebhookKind::Rejected),
    ("terminate", WebhookKind::Terminate),
];
const GRAPH_ACTIONS: &[(&str, Action)] = &[
    ("connect", Action::Connect),
    ("pre_accept", Action::PreAccept),
    ("accept", Action::Accept),
    ("reject", Action::Reject),
    ("terminate", Action::Terminate),
];

pub(super) fn parse(file: &str, text: &str) -> Result<Faults, FaultsError> {
    parse_rules(text).map_err(|error| {
        let before = text.get(..error.at.min(text.len())).unwrap_or(text);
        let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
        FaultsError::Rule { file: file.to_owned(), line, message: error.message }
    })
}

/// An error at a byte offset of the file.
struct ParseError {
    at: usize,
    message: String,
}

fn error<T>(at: usize, message: impl Into<String>) -> Result<T, ParseError> {
    Err(ParseError { at, message: message.into() })
}

fn parse_rules(text: &str) -> Result<Faults, ParseError> {
    let table = DeTable::parse(text).map_err(|e| ParseError {
        at: e.span().map_or(0, |s| s.start),
        message: e.message().to_owned(),
    })?;
    let mut root = Table::new(0, table.into_inner());
    let seed = root.int("seed", 0..=i64::MAX)?.and_then(|n| u64::try_from(n).ok());
    let rules = match root.take("fault") {
        None => Vec::new(),
        Some((_, DeValue::Array(items))) => {
            let mut rules = Vec::new();
            for item in items {
                let at = item.span().start;
                match item.into_inner() {
                    DeValue::Table(table) => rules.push(rule(Table::new(at, table))?),
                    _ => return error(at, "a rule must be a table: write [[fault]] above it"),
                }
            }
            rules
        }
        Some((at, _)) => return error(at, "rules must be tables: write [[fault]] above each"),
    };
    root.reject_unknown_keys("the file: write [[fault]] above each rule, and `seed` before them")?;
    Ok(Faults { seed, rules: rules.into() })
}

fn rule(mut table: Table<'_>) -> Result<Rule, ParseError> {
    let at = table.at;
    let Some((action_at, action)) = table.text("do")? else {
        return error(at, format!("`do` is missing: use one of {}", ACTION_NAMES.join(", ")));
    };
    let fault_action = fault_action(&mut table, action_at, &action)?;
    let count = |n: Option<i64>| n.and_then(|n| u32::try_from(n).ok());
    let number = table.text("number")?.map(|(_, t)| digits_of(&t));
    let user = table.text("user")?.map(|(_, t)| digits_of(&t));
    let call = count(table.int("call", 1..=i64::from(u32::MAX))?);
    let percent = table.percent("percent")?.unwrap_or(100.0);
    let (mut nth, mut times) = (None, None);
    // All other actions happen at most once per call.
    if matches!(fault_action, FaultAction::Webhook(..) | FaultAction::Graph(..)) {
        nth = count(table.int("nth", 1..=i64::from(u32::MAX))?);
        times = count(table.int("times", 1..=i64::from(u32::MAX))?);
    }
    table.reject_unknown_keys(&format!("do = \"{action}\""))?;
    Ok(Rule { number, user, call, nth, times, percent, action: fault_action })
}

fn fault_action(table: &mut Table<'_>, at: usize, action: &str) -> Result<FaultAction, ParseError> {
    let action = match action {
        "duplicate" => WebhookFault::Duplicate {
            copies: table
                .int("copies", 1..=1_000)?
                .and_then(|n| u32::try_from(n).ok())
                .unwrap_or(1),
            after: table.millis("after_ms")?.unwrap_or_default(),
        },
        "delay" => {
            let Some(min) = table.millis("ms")? else {
                return error(table.at, "`ms` is missing: the delay in milliseconds");
            };
            WebhookFault::Delay { min, max: table.millis("most_ms")?.unwrap_or(min) }
        }
        "swap" => return Ok(FaultAction::Webhook(Some(WebhookKind::Connect), WebhookFault::Swap)),
        "lose" => WebhookFault::Lose,
        "sign" => WebhookFault::Sign(match table.text("secret")? {
            Some((_, secret)) => SignatureFault::Secret(secret),
            None => table.choice(
                "how",
                &[
                    ("missing", SignatureFault::Missing),
                    ("wrong", SignatureFault::Wrong),
                    ("upper", SignatureFault::Upper),
                    ("twice", SignatureFault::Twice),
                    ("sha1", SignatureFault::Sha1),
                ],
            )?,
        }),
        "skew" => match table.int("seconds", -100_000_000..=100_000_000)? {
            Some(seconds) => WebhookFault::Skew(seconds),
            None => {
                return error(
                    table.at,
                    "`seconds` is missing: the number of seconds to add to the timestamps",
                );
            }
        },
        "reshape" => WebhookFault::Reshape(table.choice("how", BodyVariant::ALL)?),
        "batch" => WebhookFault::Batch(Batch {
            items: table
                .int("items", 1..=1_000)?
                .and_then(|n| usize::try_from(n).ok())
                .unwrap_or(10),
            malformed: table.flag("malformed")?,
        }),
        "call_id" => return call_id(table),
        "offer" => return Ok(FaultAction::Offer(table.choice("how", OfferFault::ALL)?)),
        "answer" | "silence" | "reset" => return graph(table, action),
        "media" => return media(table),
        "storm" => return storm(table),
        "order" => {
            let order = Some(table.choice("how", EVENT_ORDERS)?);
            return Ok(FaultAction::Callee(CalleeOverride { order, ..CalleeOverride::default() }));
        }
        "pick_up" => return callee(table, CalleeAction::Accept),
        "decline" => return callee(table, CalleeAction::Reject),
        "unanswered" => return callee(table, CalleeAction::Ignore),
        other => {
            return error(
                at,
                format!("`{other}` is not a valid `do`: use one of {}", ACTION_NAMES.join(", ")),
            );
        }
    };
    Ok(FaultAction::Webhook(table.optional_choice("on", WEBHOOK_KINDS)?, action))
}

fn call_id(table: &mut Table<'_>) -> Result<FaultAction, ParseError> {
    let bytes = table.int("bytes", 7..=ID_BYTES_MAX)?.and_then(|n| usize::try_from(n).ok());
    match (table.text("id")?, bytes) {
        (Some((_, id)), None) => Ok(FaultAction::CallId(id)),
        (None, Some(bytes)) => Ok(FaultAction::CallId(format!("wacid.{}", "A".repeat(bytes - 6)))),
        _ => error(table.at, "give either `id` or `bytes`"),
    }
}

fn graph(table: &mut Table<'_>, action: &str) -> Result<FaultAction, ParseError> {
    let on = table.optional_choice("on", GRAPH_ACTIONS)?;
    let carried_out = table.flag("done")?;
    let kind = match action {
        "silence" => {
            GraphFaultKind::Silence(table.millis("ms")?.unwrap_or(Duration::from_secs(10)))
        }
        "reset" => {
            let bytes = table.int("after_bytes", 0..=100_000)?.unwrap_or(0);
            GraphFaultKind::Reset { after_bytes: usize::try_from(bytes).unwrap_or(0) }
        }
        _ => {
            let status = table.int("status", 200..=599)?.and_then(|n| u16::try_from(n).ok());
            let Some(status) = status else {
                return error(table.at, "`status` is missing: an HTTP status from 200 to 599");
            };
            let code = table.int("code", 0..=i64::MAX)?;
            let error = GraphBody::Error(code.unwrap_or(match status {
                429 => 4,
                503 => 2,
                400..=499 => 100,
                _ => 1,
            }));
            let bodies = [
                ("error", error),
                ("html", GraphBody::Html),
                ("empty", GraphBody::Empty),
                ("cut", GraphBody::Cut),
            ];
            let body = table.optional_choice("body", &bodies)?.unwrap_or(error);
            let retry_after =
                table.int("retry_after", 0..=86_400)?.and_then(|n| u32::try_from(n).ok());
            GraphFaultKind::Answer { status, body, retry_after }
        }
    };
    Ok(FaultAction::Graph(on, GraphFault { carried_out, kind }))
}

fn media(table: &mut Table<'_>) -> Result<FaultAction, ParseError> {
    let after = table.millis("after_ms")?.unwrap_or_default();
    let fault = MediaFault {
        impairment_after: None,
        loss: table.percent("loss")?.unwrap_or(0.0),
        reorder: table.percent("reorder")?.unwrap_or(0.0),
        duplicate: table.percent("duplicate")?.unwrap_or(0.0),
        corrupt: table.percent("corrupt")?.unwrap_or(0.0),
        jitter: table.millis("jitter_ms")?.unwrap_or_default(),
        gap: table.millis("gap_ms")?.map(|length| (after, length)),
        kind: table.optional_choice("how", MediaFaultKind::ALL)?.map(|kind| (after, kind)),
    };
    if fault == MediaFault::default() {
        return error(
            table.at,
            "the rule has no media fault: add loss, reorder, duplicate, corrupt, jitter_ms, gap_ms or how",
        );
    }
    Ok(FaultAction::Media(MediaFault {
        impairment_after: table.millis("weather_after_ms")?,
        ..fault
    }))
}

fn callee(table: &mut Table<'_>, action: CalleeAction) -> Result<FaultAction, ParseError> {
    let rings_after = table.millis("rings_ms")?;
    let (mut acts_after, mut unanswered) = (None, None);
    match action {
        CalleeAction::Accept | CalleeAction::Reject => acts_after = table.millis("after_ms")?,
        CalleeAction::Ignore => unanswered = table.millis("ms")?,
    }
    Ok(FaultAction::Callee(CalleeOverride {
        action: Some(action),
        order: None,
        rings_after,
        acts_after,
        unanswered,
    }))
}

fn storm(table: &mut Table<'_>) -> Result<FaultAction, ParseError> {
    let min = table.millis("hangup_ms")?.unwrap_or_default();
    Ok(FaultAction::Storm(Storm {
        calls: table
            .int("calls", 1..=STORM_CALLS_MAX)?
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or(100),
        over: table.millis("over_ms")?.unwrap_or(Duration::from_secs(1)),
        sequential: table.flag("in_a_row")?,
        hangup: (min, table.millis("hangup_most_ms")?.unwrap_or(Duration::from_secs(2)).max(min)),
        media: table.flag("media")?,
    }))
}

/// A TOML table. Reading a key removes it, so that the keys left over are the unknown ones.
struct Table<'a> {
    at: usize,
    keys: Vec<(String, Range<usize>, DeValue<'a>)>,
}

impl<'a> Table<'a> {
    fn new(at: usize, table: DeTable<'a>) -> Self {
        let keys = table.into_iter().map(|(key, value)| {
            let span = key.span();
            (key.into_inner().into_owned(), span, value.into_inner())
        });
        Self { at, keys: keys.collect() }
    }

    fn take(&mut self, name: &str) -> Option<(usize, DeValue<'a>)> {
        let at = self.keys.iter().position(|(key, ..)| key == name)?;
        let (_, span, value) = self.keys.remove(at);
        Some((span.start, value))
    }

    fn text(&mut self, name: &str) -> Result<Option<(usize, String)>, ParseError> {
        match self.take(name) {
            None => Ok(None),
            Some((at, DeValue::String(text))) => Ok(Some((at, text.into_owned()))),
            Some((at, _)) => error(at, format!("`{name}` must be a string in quotes")),
        }
    }

    fn int(&mut self, name: &str, range: RangeInclusive<i64>) -> Result<Option<i64>, ParseError> {
        let Some((at, value)) = self.take(name) else { return Ok(None) };
        let number = match &value {
            DeValue::Integer(n) => i64::from_str_radix(n.as_str(), n.radix()).ok(),
            _ => None,
        };
        match number.filter(|n| range.contains(n)) {
            Some(number) => Ok(Some(number)),
            None => error(
                at,
                format!(
                    "`{name}` must be a whole number from {} to {}",
                    range.start(),
                    range.end()
                ),
            ),
        }
    }

    fn percent(&mut self, name: &str) -> Result<Option<f64>, ParseError> {
        let Some((at, value)) = self.take(name) else { return Ok(None) };
        let number: Option<f64> = match &value {
            DeValue::Integer(n) => n.as_str().parse().ok(),
            DeValue::Float(f) => f.as_str().parse().ok(),
            _ => None,
        };
        match number.filter(|n| (0.0..=100.0).contains(n)) {
            Some(number) => Ok(Some(number)),
            None => error(at, format!("`{name}` must be a percentage from 0 to 100")),
        }
    }

    fn millis(&mut self, name: &str) -> Result<Option<Duration>, ParseError> {
        let millis = self.int(name, 0..=MS_MAX)?.and_then(|n| u64::try_from(n).ok());
        Ok(millis.map(Duration::from_millis))
    }

    fn flag(&mut self, name: &str) -> Result<bool, ParseError> {
        match self.take(name) {
            None => Ok(false),
            Some((_, DeValue::Boolean(flag))) => Ok(flag),
            Some((at, _)) => error(at, format!("`{name}` must be true or false")),
        }
    }

    fn optional_choice<T: Clone>(
        &mut self,
        name: &str,
        words: &[(&str, T)],
    ) -> Result<Option<T>, ParseError> {
        let Some((at, word)) = self.text(name)? else { return Ok(None) };
        match words.iter().find(|(known, _)| *known == word) {
            Some((_, value)) => Ok(Some(value.clone())),
            None => {
                error(at, format!("`{name}` cannot be \"{word}\": use one of {}", joined(words)))
            }
        }
    }

    fn choice<T: Clone>(&mut self, name: &str, words: &[(&str, T)]) -> Result<T, ParseError> {
        match self.optional_choice(name, words)? {
            Some(value) => Ok(value),
            None => error(self.at, format!("`{name}` is missing: use one of {}", joined(words))),
        }
    }

    fn reject_unknown_keys(&self, of: &str) -> Result<(), ParseError> {
        match self.keys.iter().min_by_key(|(_, span, _)| span.start) {
            Some((key, span, _)) => error(span.start, format!("`{key}` does not belong to {of}")),
            None => Ok(()),
        }
    }
}

fn joined<T>(words: &[(&str, T)]) -> String {
    words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ")
}
