//! Formats times, durations and phone numbers.

use std::time::Duration;

use super::i18n::Lang;
use model::{Country, Direction, E164, Origin, Timestamp};

/// A time in ISO 8601, and as text in UTC. The script shows it in local time.
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

    /// Converts a timestamp of the API.
    pub(super) fn read(iso: &str) -> Self {
        Self {
            iso: iso.to_owned(),
            text: format!("{} UTC", iso.get(..16).unwrap_or_default().replace('T', " ")),
        }
    }
}

/// Formats a duration as `1:07` or `1:02:03`.
pub(super) fn clock(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds / 3600 {
        0 => format!("{}:{:02}", seconds / 60, seconds % 60),
        hours => format!("{hours}:{:02}:{:02}", seconds / 60 % 60, seconds % 60),
    }
}

/// Formats the length of a recording. Rounds up, as `RecordingDuration` in callbacks.
pub(super) fn recording_length(ms: u64) -> String {
    clock(Duration::from_secs(ms.div_ceil(1_000)))
}

/// Formats a duration in microseconds: `840 µs`, `12 ms`, `1.24 s`.
pub(super) fn duration(us: i64) -> String {
    let us = us.max(0);
    match us {
        0..=999 => format!("{us} µs"),
        1_000..=999_499 => format!("{} ms", (us + 500) / 1_000),
        999_500..=99_994_999 => {
            let hundredths = (us + 5_000) / 10_000;
            format!("{}.{:02} s", hundredths / 100, hundredths % 100)
        }
        _ => clock(Duration::from_micros(u64::try_from(us).unwrap_or_default())),
    }
}

impl Lang {
    /// Formats a duration in microseconds.
    pub(super) fn duration(self, us: i64) -> String {
        self.decimals(duration(us))
    }
}

/// A phone number with a plus. Other texts are unchanged.
pub(super) fn party(text: &str) -> String {
    match !text.is_empty() && text.len() <= 15 && text.bytes().all(|b| b.is_ascii_digit()) {
        true => format!("+{text}"),
        false => text.to_owned(),
    }
}

/// The country of a phone number. `None` for other texts and for numbers without one country.
pub(super) fn country(party: &str) -> Option<Country> {
    E164::parse(party).ok().and_then(|number| Origin::of(&number).country())
}

/// Formats a phone number after its alias, if it has one.
pub(super) fn with_alias(alias: &str, number: &str) -> String {
    match alias.is_empty() {
        true => party(number),
        // Bidi isolation: a right-to-left alias must not reorder the digits.
        false => format!("\u{2068}{alias}\u{2069} · {}", party(number)),
    }
}

pub(super) fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Inbound => "call.inbound",
        Direction::Outbound => "call.outbound",
    }
}

/// CSS class of an ended call: `good`, `missed` or `bad`.
pub(super) fn tone(cause: &str, answered: bool) -> &'static str {
    const FAILURES: &[&str] = &[
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
    let broken = FAILURES.contains(&cause)
        || cause.starts_with("invalid_")
        || cause.ends_with("_unreachable");
    match (broken, answered) {
        (true, _) => "bad",
        (false, true) => "good",
        (false, false) => "missed",
    }
}

/// CSS class of a mean opinion score.
pub(super) fn mos_tone(mos: f64) -> &'static str {
    match mos {
        mos if mos >= 4.0 => "good",
        mos if mos >= 3.3 => "waiting",
        _ => "bad",
    }
}

/// The text of a hangup cause, and advice if there is any.
pub(super) fn cause(lang: Lang, cause: &str) -> (String, String) {
    let text = lang.find(&format!("cause.{cause}"));
    let text = text.map_or_else(|| cause.replace('_', " "), str::to_owned);
    (text, lang.find(&format!("cause.{cause}.do")).unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_durations_and_numbers() {
        assert_eq!(
            [clock(Duration::from_secs(67)), clock(Duration::from_secs(3_723))],
            ["1:07", "1:02:03"]
        );
        assert_eq!([0, 3_000, 3_001].map(recording_length), ["0:00", "0:03", "0:04"]);
        assert_eq!(
            [-5, 840, 12_345, 3_800, 999_499, 999_500, 1_236_000, 99_994_999].map(duration),
            ["0 µs", "840 µs", "12 ms", "4 ms", "999 ms", "1.00 s", "1.24 s", "99.99 s"]
        );
        assert_eq!(
            [party("919812345678"), party("sip:asha@x"), party("")],
            ["+919812345678", "sip:asha@x", ""]
        );
        let countries = ["14165550123", "+13175550123", "18005550123", "sip:14165550123@x", ""];
        assert_eq!(
            countries.map(country),
            [Some(Country::CA), Some(Country::US), None, None, None]
        );
    }
}
