//! Wall-clock timestamps, for printing and for comparison with Meta's timestamps. Timers use
//! monotonic time instead (docs/reference/reliability.md#r8).

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point in time, in microseconds since the Unix epoch.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The largest timestamp, for an open upper bound.
    pub const MAX: Self = Self(i64::MAX);

    /// Creates a timestamp from microseconds since the epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Creates a timestamp from seconds since the epoch, the unit of Meta's timestamps.
    pub fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1_000_000))
    }

    /// Microseconds since the epoch.
    pub fn micros(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down.
    pub fn secs(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// Adds a duration. Saturates at the numeric bounds.
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)))
    }

    /// Subtracts a duration. Saturates at the numeric bounds.
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)))
    }

    /// The time elapsed since `earlier`. Zero if `earlier` is later than this.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or_default())
    }

    /// Formats as `2026-11-20 06:03:11.120394`, the form of `SessionStart` in callbacks.
    pub fn plivo_micros(self) -> String {
        self.format(b' ', 6)
    }

    /// Formats as `2026-11-20 06:03:11`, the form of `StartTime`, `AnswerTime` and `EndTime` in
    /// callbacks.
    pub fn plivo_secs(self) -> String {
        self.format(b' ', 0)
    }

    /// Formats as `2026-11-20 06:03:11+00:00`, the form of call records in the Plivo-compatible API
    /// (docs/reference/rest.md#times).
    pub fn plivo_cdr(self) -> String {
        self.format(b' ', 0) + "+00:00"
    }

    /// Formats as `2026-11-20`, the form of dates in the Plivo-compatible API.
    pub fn plivo_day(self) -> String {
        let mut text = self.plivo_secs();
        text.truncate(10);
        text
    }

    /// Formats as RFC 3339 in UTC with milliseconds, the form of Offhook's own APIs.
    pub fn rfc3339(self) -> String {
        self.format(b'T', 3) + "Z"
    }

    /// Formats date and time with `decimals` (0 to 6) digits after the second.
    ///
    /// Written by hand because a callback contains several times, and `strftime` would take longer
    /// than everything else in building the request.
    fn format(self, between: u8, decimals: usize) -> String {
        let at = jiff::Timestamp::from_microsecond(self.0).unwrap_or_default();
        let at = jiff::tz::Offset::UTC.to_datetime(at);
        let year = at.year().unsigned_abs();
        let micros = at.subsec_nanosecond().unsigned_abs() / 1_000;
        let [[c1, c2], [y1, y2]] = [year / 100, year % 100].map(|n| two(n.into()));
        let [[m1, m2], [d1, d2]] = [at.month(), at.day()].map(|n| two(n.unsigned_abs().into()));
        let [[h1, h2], [n1, n2], [s1, s2]] =
            [at.hour(), at.minute(), at.second()].map(|n| two(n.unsigned_abs().into()));
        let [[f1, f2], [f3, f4], [f5, f6]] =
            [micros / 10_000, micros / 100 % 100, micros % 100].map(two);
        let text = [
            c1, c2, y1, y2, b'-', m1, m2, b'-', d1, d2, between, h1, h2, b':', n1, n2, b':', s1,
            s2, b'.', f1, f2, f3, f4, f5, f6,
        ];
        let shown = text.get(..if decimals > 0 { 20 + decimals } else { 19 }).unwrap_or(&text);
        std::str::from_utf8(shown).unwrap_or_default().to_owned()
    }
}

/// Formats a number below 100 as two digits.
fn two(number: u32) -> [u8; 2] {
    [number / 10, number % 10]
        .map(|digit| u8::try_from(digit).map_or(b'0', |digit| b'0' + digit % 10))
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rfc3339())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Timestamp;

    #[test]
    fn formats_times_in_each_form() {
        let t = Timestamp::from_micros(1_795_154_591_120_394);
        assert_eq!(t.plivo_micros(), "2026-11-20 06:03:11.120394");
        assert_eq!(t.plivo_secs(), "2026-11-20 06:03:11");
        assert_eq!(t.plivo_cdr(), "2026-11-20 06:03:11+00:00");
        assert_eq!(t.plivo_day(), "2026-11-20");
        assert_eq!(t.rfc3339(), "2026-11-20T06:03:11.120Z");
        assert_eq!(Timestamp::from_micros(-1).rfc3339(), "1969-12-31T23:59:59.999Z");
    }

    proptest! {
        #[test]
        fn formats_the_same_as_strftime(micros in -62_000_000_000_000_000..253_000_000_000_000_000_i64) {
            let at = jiff::Timestamp::from_microsecond(micros).unwrap();
            prop_assert_eq!(Timestamp::from_micros(micros).plivo_micros(), at.strftime("%Y-%m-%d %H:%M:%S.%6f").to_string());
        }
    }
}
