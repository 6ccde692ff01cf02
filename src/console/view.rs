//! How times, durations and people look on a page.

use std::time::Duration;

use super::i18n::Lang;
use model::{Direction, Timestamp};

/// A moment: for programs, and in UTC for readers without the script, which makes it local.
#[derive(Clone, Debug)]
pub(super) struct When {
    pub(super) iso: String,
    pub(super) text: String,
}

impl When {
    pub(super) fn of(at: Timestamp) -> Self {
        let iso = at.rfc3339();
        let text = format!("{} UTC", iso.get(..16).unwrap_or_default().replace('T', " "));
        Self { iso, text }
    }

    /// Of what the API says.
    pub(super) fn read(iso: &str) -> Self {
        Self {
            iso: iso.to_owned(),
            text: format!("{} UTC", iso.get(..16).unwrap_or_default().replace('T', " ")),
        }
    }
}

/// `1:07`, `1:02:03`.
pub(super) fn clock(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds / 3600 {
        0 => format!("{}:{:02}", seconds / 60, seconds % 60),
        hours => format!("{hours}:{:02}:{:02}", seconds / 60 % 60, seconds % 60),
    }
}

/// Microseconds as people read them: `840 µs`, `12 ms`, `1.24 s`.
pub(super) fn took(us: i64) -> String {
    let us = us.max(0);
    match us {
        0..=999 => format!("{us} µs"),
        1_000..=999_999 => format!("{} ms", us / 1_000),
        1_000_000..=99_999_999 => format!("{}.{:02} s", us / 1_000_000, us / 10_000 % 100),
        _ => clock(Duration::from_micros(u64::try_from(us).unwrap_or_default())),
    }
}

/// A number with its plus; whatever is none as it is.
pub(super) fn party(text: &str) -> String {
    match !text.is_empty() && text.len() <= 15 && text.bytes().all(|b| b.is_ascii_digit()) {
        true => format!("+{text}"),
        false => text.to_owned(),
    }
}

/// A number behind its alias, if it has one.
pub(super) fn aliased(alias: &str, number: &str) -> String {
    match alias.is_empty() {
        true => party(number),
        // Isolated: an alias of the other direction of writing moves no digit.
        false => format!("\u{2068}{alias}\u{2069} · {}", party(number)),
    }
}

pub(super) fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Inbound => "call.inbound",
        Direction::Outbound => "call.outbound",
    }
}

/// How an ended call went: `good`, `missed` or `bad`, for its mark; words stand beside it.
pub(super) fn tone(cause: &str, answered: bool) -> &'static str {
    const NOT_WELL: &[&str] = &[
        "graph_error",
        "graph_rate_limited",
        "graph_timeout",
        "media_setup_timeout",
        "media_timeout",
        "internal_error",
        "node_failure",
        "instruction_loop",
        "number_full",
        "cps_exceeded",
    ];
    let broken = NOT_WELL.contains(&cause)
        || cause.starts_with("invalid_")
        || cause.ends_with("_unreachable");
    match (broken, answered) {
        (true, _) => "bad",
        (false, true) => "good",
        (false, false) => "missed",
    }
}

/// Why a call ended in words, and what to do about it.
pub(super) fn cause(lang: Lang, cause: &str) -> (String, String) {
    let text = lang.find(&format!("cause.{cause}"));
    let text = text.map_or_else(|| cause.replace('_', " "), str::to_owned);
    (text, lang.find(&format!("cause.{cause}.do")).unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_say_them() {
        assert_eq!(
            [clock(Duration::from_secs(67)), clock(Duration::from_secs(3_723))],
            ["1:07", "1:02:03"]
        );
        assert_eq!(
            [took(-5), took(840), took(12_345), took(1_240_000)],
            ["0 µs", "840 µs", "12 ms", "1.24 s"]
        );
        assert_eq!(
            [party("919812345678"), party("sip:asha@x"), party("")],
            ["+919812345678", "sip:asha@x", ""]
        );
    }
}
