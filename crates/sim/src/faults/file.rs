//! The rule file: TOML, one `[[fault]]` a rule. Each fault in it is told with its line.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::body::{Batch, Reshape};
use super::callee::{Manner, ORDERS};
use super::net::{MediaFault, MediaHow};
use super::offer::OfferFault;
use super::{
    Act, Faults, FaultsError, GraphBody, GraphDeed, GraphHow, Hook, HookDeed, Rule, Sign, Storm,
};
use crate::caller::Answers;
use crate::meta::graph::Action;
use model::digits_of;

/// Longest of all times, in milliseconds: an hour.
const MS_MAX: i64 = 3_600_000;
/// Longest id that Meta's contract allows (`meta-calling.md` 1.3).
const ID_BYTES_MAX: i64 = 512;
/// Calls of one storm.
const STORM_MAX: i64 = 10_000;
/// What `do` can be.
const DEEDS: &[&str] = &[
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
const HOOKS: &[(&str, Hook)] = &[
    ("connect", Hook::Connect),
    ("ringing", Hook::Ringing),
    ("accepted", Hook::Accepted),
    ("rejected", Hook::Rejected),
    ("terminate", Hook::Terminate),
];
const ACTIONS: &[(&str, Action)] = &[
    ("connect", Action::Connect),
    ("pre_accept", Action::PreAccept),
    ("accept", Action::Accept),
    ("reject", Action::Reject),
    ("terminate", Action::Terminate),
];

pub(super) fn parse(file: &str, text: &str) -> Result<Faults, FaultsError> {
    faults(text).map_err(|fault| {
        let before = text.get(..fault.at.min(text.len())).unwrap_or(text);
        let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
        FaultsError::Rule { file: file.to_owned(), line, message: fault.message }
    })
}

/// Something wrong, at this byte.
struct Fault {
    at: usize,
    message: String,
}

fn fault<T>(at: usize, message: impl Into<String>) -> Result<T, Fault> {
    Err(Fault { at, message: message.into() })
}

fn faults(text: &str) -> Result<Faults, Fault> {
    let table = DeTable::parse(text).map_err(|e| Fault {
        at: e.span().map_or(0, |s| s.start),
        message: e.message().to_owned(),
    })?;
    let mut root = Row::of(0, table.into_inner());
    let seed = root.int("seed", 0..=i64::MAX)?.and_then(|n| u64::try_from(n).ok());
    let rules = match root.take("fault") {
        None => Vec::new(),
        Some((_, DeValue::Array(items))) => {
            let mut rules = Vec::new();
            for item in items {
                let at = item.span().start;
                match item.into_inner() {
                    DeValue::Table(table) => rules.push(rule(Row::of(at, table))?),
                    _ => return fault(at, "a rule is a table: write [[fault]] above it"),
                }
            }
            rules
        }
        Some((at, _)) => return fault(at, "rules are tables: write [[fault]] above each"),
    };
    root.nothing_else("the file")?;
    Ok(Faults { seed, rules: rules.into() })
}

fn rule(mut row: Row<'_>) -> Result<Rule, Fault> {
    let at = row.at;
    let Some((deed_at, deed)) = row.text("do")? else {
        return fault(at, format!("`do` is missing: one of {}", DEEDS.join(", ")));
    };
    let act = act(&mut row, deed_at, &deed)?;
    let count = |n: Option<i64>| n.and_then(|n| u32::try_from(n).ok());
    let number = row.text("number")?.map(|(_, t)| digits_of(&t));
    let user = row.text("user")?.map(|(_, t)| digits_of(&t));
    let call = count(row.int("call", 1..=i64::from(u32::MAX))?);
    let percent = row.percent("percent")?.unwrap_or(100.0);
    let (mut nth, mut times) = (None, None);
    // The others happen once a call.
    if matches!(act, Act::Webhook(..) | Act::Graph(..)) {
        nth = count(row.int("nth", 1..=i64::from(u32::MAX))?);
        times = count(row.int("times", 1..=i64::from(u32::MAX))?);
    }
    row.nothing_else(&format!("do = \"{deed}\""))?;
    Ok(Rule { number, user, call, nth, times, percent, act })
}

fn act(row: &mut Row<'_>, at: usize, deed: &str) -> Result<Act, Fault> {
    let deed = match deed {
        "duplicate" => HookDeed::Duplicate {
            copies: row.int("copies", 1..=1_000)?.and_then(|n| u32::try_from(n).ok()).unwrap_or(1),
            after: row.millis("after_ms")?.unwrap_or_default(),
        },
        "delay" => {
            let Some(least) = row.millis("ms")? else {
                return fault(row.at, "`ms` is missing: how late");
            };
            HookDeed::Delay { least, most: row.millis("most_ms")?.unwrap_or(least) }
        }
        "swap" => return Ok(Act::Webhook(Some(Hook::Connect), HookDeed::Swap)),
        "lose" => HookDeed::Lose,
        "sign" => HookDeed::Sign(match row.text("secret")? {
            Some((_, secret)) => Sign::Secret(secret),
            None => row.one_of(
                "how",
                &[
                    ("missing", Sign::Missing),
                    ("wrong", Sign::Wrong),
                    ("upper", Sign::Upper),
                    ("twice", Sign::Twice),
                    ("sha1", Sign::Sha1),
                ],
            )?,
        }),
        "skew" => match row.int("seconds", -100_000_000..=100_000_000)? {
            Some(seconds) => HookDeed::Skew(seconds),
            None => return fault(row.at, "`seconds` is missing: what is added to the timestamps"),
        },
        "reshape" => HookDeed::Reshape(row.one_of("how", Reshape::ALL)?),
        "batch" => HookDeed::Batch(Batch {
            items: row.int("items", 1..=1_000)?.and_then(|n| usize::try_from(n).ok()).unwrap_or(10),
            malformed: row.flag("malformed")?,
        }),
        "call_id" => return call_id(row),
        "offer" => return Ok(Act::Offer(row.one_of("how", OfferFault::ALL)?)),
        "answer" | "silence" | "reset" => return graph(row, deed),
        "media" => return media(row),
        "storm" => return storm(row),
        "order" => {
            let order = Some(row.one_of("how", ORDERS)?);
            return Ok(Act::Callee(Manner { order, ..Manner::default() }));
        }
        "pick_up" => return callee(row, Answers::Accept),
        "decline" => return callee(row, Answers::Reject),
        "unanswered" => return callee(row, Answers::Ignore),
        other => {
            return fault(at, format!("`{other}` is nothing to do: one of {}", DEEDS.join(", ")));
        }
    };
    Ok(Act::Webhook(row.maybe_one_of("on", HOOKS)?, deed))
}

fn call_id(row: &mut Row<'_>) -> Result<Act, Fault> {
    let bytes = row.int("bytes", 7..=ID_BYTES_MAX)?.and_then(|n| usize::try_from(n).ok());
    match (row.text("id")?, bytes) {
        (Some((_, id)), None) => Ok(Act::CallId(id)),
        (None, Some(bytes)) => Ok(Act::CallId(format!("wacid.{}", "A".repeat(bytes - 6)))),
        _ => fault(row.at, "either `id` or `bytes` is needed"),
    }
}

fn graph(row: &mut Row<'_>, deed: &str) -> Result<Act, Fault> {
    let on = row.maybe_one_of("on", ACTIONS)?;
    let done = row.flag("done")?;
    let how = match deed {
        "silence" => GraphHow::Silence(row.millis("ms")?.unwrap_or(Duration::from_secs(10))),
        "reset" => {
            let bytes = row.int("after_bytes", 0..=100_000)?.unwrap_or(0);
            GraphHow::Reset { after_bytes: usize::try_from(bytes).unwrap_or(0) }
        }
        _ => {
            let status = row.int("status", 200..=599)?.and_then(|n| u16::try_from(n).ok());
            let Some(status) = status else {
                return fault(row.at, "`status` is missing: 200 to 599");
            };
            let code = row.int("code", 0..=i64::MAX)?;
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
            let body = row.maybe_one_of("body", &bodies)?.unwrap_or(error);
            let retry_after =
                row.int("retry_after", 0..=86_400)?.and_then(|n| u32::try_from(n).ok());
            GraphHow::Answer { status, body, retry_after }
        }
    };
    Ok(Act::Graph(on, GraphDeed { done, how }))
}

fn media(row: &mut Row<'_>) -> Result<Act, Fault> {
    let after = row.millis("after_ms")?.unwrap_or_default();
    let fault = MediaFault {
        weather_after: None,
        loss: row.percent("loss")?.unwrap_or(0.0),
        reorder: row.percent("reorder")?.unwrap_or(0.0),
        duplicate: row.percent("duplicate")?.unwrap_or(0.0),
        corrupt: row.percent("corrupt")?.unwrap_or(0.0),
        jitter: row.millis("jitter_ms")?.unwrap_or_default(),
        gap: row.millis("gap_ms")?.map(|length| (after, length)),
        how: row.maybe_one_of("how", MediaHow::ALL)?.map(|how| (after, how)),
    };
    if fault == MediaFault::default() {
        return self::fault(
            row.at,
            "nothing to do to the media: loss, reorder, duplicate, corrupt, jitter_ms, gap_ms or how",
        );
    }
    Ok(Act::Media(MediaFault { weather_after: row.millis("weather_after_ms")?, ..fault }))
}

fn callee(row: &mut Row<'_>, how: Answers) -> Result<Act, Fault> {
    let rings_after = row.millis("rings_ms")?;
    let (mut acts_after, mut unanswered) = (None, None);
    match how {
        Answers::Accept | Answers::Reject => acts_after = row.millis("after_ms")?,
        Answers::Ignore => unanswered = row.millis("ms")?,
    }
    Ok(Act::Callee(Manner { how: Some(how), order: None, rings_after, acts_after, unanswered }))
}

fn storm(row: &mut Row<'_>) -> Result<Act, Fault> {
    let least = row.millis("hangup_ms")?.unwrap_or_default();
    Ok(Act::Storm(Storm {
        calls: row.int("calls", 1..=STORM_MAX)?.and_then(|n| u32::try_from(n).ok()).unwrap_or(100),
        over: row.millis("over_ms")?.unwrap_or(Duration::from_secs(1)),
        in_a_row: row.flag("in_a_row")?,
        hangup: (least, row.millis("hangup_most_ms")?.unwrap_or(Duration::from_secs(2)).max(least)),
        media: row.flag("media")?,
    }))
}

/// A table being read: each key once, what is left over is a fault.
struct Row<'a> {
    at: usize,
    keys: Vec<(String, Range<usize>, DeValue<'a>)>,
}

impl<'a> Row<'a> {
    fn of(at: usize, table: DeTable<'a>) -> Self {
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

    fn text(&mut self, name: &str) -> Result<Option<(usize, String)>, Fault> {
        match self.take(name) {
            None => Ok(None),
            Some((at, DeValue::String(text))) => Ok(Some((at, text.into_owned()))),
            Some((at, _)) => fault(at, format!("`{name}` must be text, in quotes")),
        }
    }

    fn int(&mut self, name: &str, range: RangeInclusive<i64>) -> Result<Option<i64>, Fault> {
        let Some((at, value)) = self.take(name) else { return Ok(None) };
        let number = match &value {
            DeValue::Integer(n) => i64::from_str_radix(n.as_str(), n.radix()).ok(),
            _ => None,
        };
        match number.filter(|n| range.contains(n)) {
            Some(number) => Ok(Some(number)),
            None => fault(
                at,
                format!("`{name}` must be a whole number of {} to {}", range.start(), range.end()),
            ),
        }
    }

    fn percent(&mut self, name: &str) -> Result<Option<f64>, Fault> {
        let Some((at, value)) = self.take(name) else { return Ok(None) };
        let number: Option<f64> = match &value {
            DeValue::Integer(n) => n.as_str().parse().ok(),
            DeValue::Float(f) => f.as_str().parse().ok(),
            _ => None,
        };
        match number.filter(|n| (0.0..=100.0).contains(n)) {
            Some(number) => Ok(Some(number)),
            None => fault(at, format!("`{name}` must be a percentage of 0 to 100")),
        }
    }

    fn millis(&mut self, name: &str) -> Result<Option<Duration>, Fault> {
        let millis = self.int(name, 0..=MS_MAX)?.and_then(|n| u64::try_from(n).ok());
        Ok(millis.map(Duration::from_millis))
    }

    fn flag(&mut self, name: &str) -> Result<bool, Fault> {
        match self.take(name) {
            None => Ok(false),
            Some((_, DeValue::Boolean(flag))) => Ok(flag),
            Some((at, _)) => fault(at, format!("`{name}` must be true or false")),
        }
    }

    fn maybe_one_of<T: Clone>(
        &mut self,
        name: &str,
        words: &[(&str, T)],
    ) -> Result<Option<T>, Fault> {
        let Some((at, word)) = self.text(name)? else { return Ok(None) };
        match words.iter().find(|(known, _)| *known == word) {
            Some((_, value)) => Ok(Some(value.clone())),
            None => fault(at, format!("`{name}` can't be \"{word}\": one of {}", spelled(words))),
        }
    }

    fn one_of<T: Clone>(&mut self, name: &str, words: &[(&str, T)]) -> Result<T, Fault> {
        match self.maybe_one_of(name, words)? {
            Some(value) => Ok(value),
            None => fault(self.at, format!("`{name}` is missing: one of {}", spelled(words))),
        }
    }

    fn nothing_else(&self, of: &str) -> Result<(), Fault> {
        match self.keys.iter().min_by_key(|(_, span, _)| span.start) {
            Some((key, span, _)) => fault(span.start, format!("`{key}` does not belong to {of}")),
            None => Ok(()),
        }
    }
}

fn spelled<T>(words: &[(&str, T)]) -> String {
    words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ")
}
