//! Computes the times of certificate orders and renewals.

use std::time::Duration;

use crate::x509::Validity;
use model::Timestamp;

/// Delay of the next order after the first failure. Let's Encrypt allows five failed validations of
/// a name per hour. The delay doubles with each further failure.
const BACKOFF_MIN: Duration = Duration::from_secs(5 * 60);
const BACKOFF_MAX: Duration = Duration::from_secs(6 * 3600);
/// Maximum delay that is accepted from an authority.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(7 * 86_400);

/// Returns when a certificate is renewed: when one third of its lifetime remains.
pub(crate) fn renewal(Validity { not_before, not_after }: Validity) -> Timestamp {
    not_after.minus(not_after.since(not_before) / 3)
}

/// Returns the delay after a number of consecutive failures. `spread`, from 0 to 1, makes the
/// delays of nodes differ.
pub(crate) fn backoff(failures: u32, retry_after: Option<Duration>, spread: f64) -> Duration {
    // A date of an authority is in the past for a clock that is ahead, and is no delay then.
    if let Some(after) = retry_after.filter(|after| !after.is_zero()) {
        return after.min(RETRY_AFTER_MAX);
    }
    let doubled = BACKOFF_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(BACKOFF_MAX).mul_f64(1.0 + spread.clamp(0.0, 1.0) / 10.0)
}

/// Parses the value of `Retry-After` (RFC 9110 section 10.2.3). Returns `None` if it is malformed.
pub(crate) fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(value).ok()?;
    Some(Timestamp::from_micros(at.as_microsecond()).since(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    #[test]
    fn a_certificate_is_renewed_when_a_third_of_its_lifetime_is_left() {
        let at = |day: u64| Timestamp::default().plus(Duration::from_secs(day * DAY));
        let validity = Validity { not_before: at(0), not_after: at(90) };
        assert_eq!(renewal(validity), at(60));
        let inverted = Validity { not_before: at(90), not_after: at(0) };
        assert_eq!(renewal(inverted), at(0));
    }

    #[test]
    fn delays_double_and_the_authority_has_the_last_word() {
        let minutes = |n: u64| Duration::from_secs(n * 60);
        let delays: Vec<_> = [1, 2, 3, 100].map(|n| backoff(n, None, 0.0)).into();
        assert_eq!(delays, [minutes(5), minutes(10), minutes(20), BACKOFF_MAX]);
        assert_eq!(backoff(1, None, 1.0), Duration::from_secs(330));
        assert_eq!(backoff(9, Some(minutes(1)), 1.0), minutes(1));
        assert_eq!(backoff(2, Some(Duration::ZERO), 0.0), minutes(10));
        assert_eq!(backoff(1, Some(Duration::MAX), 0.0), RETRY_AFTER_MAX);
        let now = Timestamp::from_secs(1_795_219_200);
        assert_eq!(retry_after(" 120 ", now), Some(minutes(2)));
        assert_eq!(retry_after("Sat, 21 Nov 2026 00:10:00 GMT", now), Some(minutes(10)));
        assert_eq!(retry_after("Fri, 20 Nov 2026 00:10:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after("soon", now), None);
    }
}
