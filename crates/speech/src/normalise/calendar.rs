//! English words for dates, times, days and months.

use super::number::{self, NumberStyle, is_digits};

/// The names of months, and their unambiguous abbreviations.
const MONTHS: [(&str, &[&str]); 12] = [
    ("January", &["Jan"]),
    ("February", &["Feb"]),
    ("March", &["Mar"]),
    ("April", &["Apr"]),
    ("May", &[]),
    ("June", &["Jun"]),
    ("July", &["Jul"]),
    ("August", &["Aug"]),
    ("September", &["Sep", "Sept"]),
    ("October", &["Oct"]),
    ("November", &["Nov"]),
    ("December", &["Dec"]),
];
const DAYS: [(&str, &[&str]); 7] = [
    ("Monday", &["Mon"]),
    ("Tuesday", &["Tue", "Tues"]),
    ("Wednesday", &["Wed"]),
    ("Thursday", &["Thu", "Thur", "Thurs"]),
    ("Friday", &["Fri"]),
    ("Saturday", &["Sat"]),
    ("Sunday", &["Sun"]),
];

fn find_name(text: &str, names: &[(&'static str, &[&str])]) -> Option<&'static str> {
    let is_capitalised = text.starts_with(|c: char| c.is_ascii_uppercase());
    let matches = |name: &str| name.eq_ignore_ascii_case(text);
    names
        .iter()
        .find(|(name, short)| is_capitalised && (matches(name) || short.iter().any(|s| matches(s))))
        .map(|(name, _)| *name)
}

/// Returns the month with this name or abbreviation, or `None` if there is none.
pub(super) fn month(text: &str) -> Option<&'static str> {
    find_name(text, &MONTHS)
}

/// Returns the day of the week with this name or abbreviation, or `None` if there is none.
pub(super) fn day_of_week(text: &str) -> Option<&'static str> {
    find_name(text, &DAYS)
}

/// Returns the name of a month, counted from 1. `None` if there is no such month.
pub(super) fn month_name(n: u64) -> Option<&'static str> {
    let index = usize::try_from(n).ok()?.checked_sub(1)?;
    MONTHS.get(index).map(|(name, _)| *name)
}

/// Parses `24/12/2026`, `24.12.2026`, `24/12/26` and `2026-12-24` as day, month and year. If both
/// orders are possible, `month_first` decides. Returns `None` for other text.
pub(crate) fn date_numbers(text: &str, month_first: bool) -> Option<(u64, u64, u64)> {
    let separator = text.chars().find(|c| matches!(c, '/' | '.' | '-'))?;
    let parts: Vec<&str> = text.split(separator).collect();
    let &[a, b, c] = parts.as_slice() else { return None };
    if ![a, b, c].iter().all(|part| is_digits(part)) {
        return None;
    }
    let (year, first, second, year_first) = match (a.len(), b.len(), c.len()) {
        (4, 1..=2, 1..=2) => (a, b, c, true),
        (1..=2, 1..=2, 4) => (c, a, b, false),
        // `1.2.26` may be a version, and `10-12-15` a code.
        (1..=2, 1..=2, 2) if separator == '/' => (c, a, b, false),
        _ => return None,
    };
    let [year, first, second] = [year, first, second].map(|part| part.parse::<u64>().ok());
    let (year, first, second) = (year?, first?, second?);
    let year = if c.len() == 2 && !year_first { 2_000 + year } else { year };
    let (month, day) = match (year_first || month_first, first > 12, second > 12) {
        (_, true, false) => (second, first),
        (true, false, _) | (false, false, true) => (first, second),
        (false, false, false) => (second, first),
        (_, true, true) => return None,
    };
    let exists = (1..=31).contains(&day) && (1..=12).contains(&month);
    exists.then_some((day, month, year))
}

/// The parts of a date that the text contains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Date {
    pub(super) day: Option<u64>,
    pub(super) month: Option<&'static str>,
    pub(super) year: Option<u64>,
}

impl Date {
    /// Parses the dates of [`date_numbers`]. Returns `None` for other text.
    pub(super) fn parse(text: &str, month_first: bool) -> Option<Self> {
        let (day, month, year) = date_numbers(text, month_first)?;
        Some(Self { day: Some(day), month: Some(month_name(month)?), year: Some(year) })
    }

    /// Reads the date: "December twenty-fourth, twenty twenty-six" or "twenty-fourth of December,
    /// twenty twenty-six".
    pub(super) fn words(&self, month_first: bool, style: NumberStyle) -> String {
        let day = self.day.map(|day| number::ordinal(day, style));
        let mut words = match (day, self.month) {
            (Some(day), Some(month)) if month_first => format!("{month} {day}"),
            (Some(day), Some(month)) => format!("{day} of {month}"),
            (day, month) => day.or(month.map(str::to_owned)).unwrap_or_default(),
        };
        if let Some(year) = self.year {
            if !words.is_empty() {
                words.push_str(if self.day.is_some() { ", " } else { " " });
            }
            words.push_str(&number::year(year, style));
        }
        words
    }
}

/// A half of a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Half {
    Morning,
    Afternoon,
}

impl Half {
    /// Parses `am`, `PM`, `a.m` and similar forms. Returns `None` for other text.
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "am" | "a.m" | "a.m." => Some(Self::Morning),
            "pm" | "p.m" | "p.m." => Some(Self::Afternoon),
            _ => None,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Morning => " A M",
            Self::Afternoon => " P M",
        }
    }
}

/// A time of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Time {
    pub(crate) hour: u64,
    pub(crate) minute: u64,
    pub(crate) second: Option<u64>,
    pub(crate) half: Option<Half>,
}

impl Time {
    /// Parses `18:05`, `6:05:30`, `6:05pm` and `6pm`. Returns `None` for other text.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let end = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
        let (clock, suffix) = text.split_at_checked(end)?;
        let half = if suffix.is_empty() { None } else { Some(Half::parse(suffix)?) };
        let parts: Vec<&str> = clock.split(':').collect();
        let (hour, minute, second) = match *parts.as_slice() {
            [hour] if half.is_some() => (hour, "00", None),
            [hour, minute] => (hour, minute, None),
            [hour, minute, second] => (hour, minute, Some(second)),
            _ => return None,
        };
        let two_digits = |text: &str| -> Option<u64> {
            (text.len() == 2 && is_digits(text)).then(|| text.parse().ok()).flatten()
        };
        let hour = (hour.len() <= 2 && is_digits(hour)).then(|| hour.parse().ok()).flatten()?;
        let minute = two_digits(minute)?;
        let second = second.map(two_digits);
        if second == Some(None) {
            return None;
        }
        let second = second.flatten();
        let hour_max = if half.is_some() { 12 } else { 24 };
        (hour <= hour_max && minute < 60 && second.is_none_or(|s| s < 60)).then_some(Self {
            hour,
            minute,
            second,
            half,
        })
    }

    /// Reads the time: "eighteen oh five", "six o'clock", "six thirty P M".
    pub(super) fn words(&self, style: NumberStyle) -> String {
        let hour = number::cardinal(self.hour, style);
        if self.half.is_none() && matches!((self.hour, self.minute, self.second), (0 | 24, 0, None))
        {
            return "midnight".to_owned();
        }
        let mut words = match (self.minute, self.second) {
            (0, Some(_)) => format!("{hour} zero zero"),
            (0, None) if self.half.is_some() => hour,
            (0, None) if (1..=12).contains(&self.hour) => format!("{hour} o'clock"),
            (0, None) => format!("{hour} hundred"),
            (minute @ 1..=9, _) => format!("{hour} oh {}", number::cardinal(minute, style)),
            (minute, _) => format!("{hour} {}", number::cardinal(minute, style)),
        };
        if let Some(second) = self.second {
            let name = if second == 1 { "second" } else { "seconds" };
            words.push_str(&format!(" and {} {name}", number::cardinal(second, style)));
        }
        words.push_str(self.half.map(Half::words).unwrap_or_default());
        words
    }
}
