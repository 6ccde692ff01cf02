//! The retry schedule of callbacks (`docs/reference/callbacks.md#retry-schedule`). Pure.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header::RETRY_AFTER};

use super::random::RandomSource;
use egress::EgressError;
use model::Timestamp;

/// Pauses in seconds. The last one repeats.
const PAUSES: [u64; 7] = [1, 5, 30, 120, 600, 1_800, 3_600];
/// A callback is given up if its next attempt would be later than this after the first.
pub const GIVE_UP_AFTER: Duration = Duration::from_secs(24 * 3_600);
/// Longest `Retry-After` that is honoured.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

/// Upper bound of the pause between two attempts, including jitter.
pub const PAUSE_MAX: Duration = Duration::from_secs(2 * 3_600);

/// The pause before retry number `retry` (from 1) of a callback that is `age` old, with 20 %
/// jitter. `asked` is the value of `Retry-After`. Returns `None` to give the callback up.
pub fn next_pause(
    retry: u32,
    age: Duration,
    asked: Option<Duration>,
    random: &RandomSource,
) -> Option<Duration> {
    let place = usize::try_from(retry.saturating_sub(1)).unwrap_or(usize::MAX);
    let seconds = PAUSES.get(place).or(PAUSES.last())?;
    let pause = random
        .spread(Duration::from_secs(*seconds))
        .max(asked.unwrap_or_default().min(RETRY_AFTER_MAX));
    (age.saturating_add(pause) <= GIVE_UP_AFTER).then_some(pause)
}

/// The value of `Retry-After`: seconds or an HTTP date (RFC 9110 §10.2.3).
pub fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(Duration::from_micros(u64::try_from(at.as_microsecond() - now.micros()).unwrap_or(0)))
}

/// Whether a status is retried. Any other one except 2xx is final.
pub(super) fn is_temporary(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429) || status.is_server_error()
}

/// Whether an error is a network failure, which is retried.
pub(super) fn is_network(error: &EgressError) -> bool {
    match error {
        EgressError::Resolve { .. }
        | EgressError::Connect { .. }
        | EgressError::ConnectTimeout { .. }
        | EgressError::HandshakeTimeout { .. }
        | EgressError::ReadTimeout { .. }
        | EgressError::Broken { .. } => true,
        EgressError::Refused(_)
        | EgressError::TooLarge { .. }
        | EgressError::Coding(_)
        | EgressError::Undecodable(_)
        | EgressError::Status(_)
        | EgressError::NotUpgraded(_)
        | EgressError::Redirects => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderMap, StatusCode, header::RETRY_AFTER};

    use super::{GIVE_UP_AFTER, PAUSE_MAX, is_temporary, next_pause, retry_after};
    use crate::answer::RandomSource;
    use model::Timestamp;

    #[test]
    fn r04_the_schedule_runs_to_24_hours() {
        let even = RandomSource::from_fn(|| 200);
        let (mut age, mut pauses) = (Duration::ZERO, Vec::new());
        while let Some(pause) =
            next_pause(u32::try_from(pauses.len()).unwrap() + 1, age, None, &even)
        {
            age += pause;
            pauses.push(pause.as_secs());
        }
        assert_eq!(pauses.get(..8).unwrap(), [1, 5, 30, 120, 600, 1_800, 3_600, 3_600]);
        assert_eq!(pauses.len(), 6 + 23);
        assert!(age <= GIVE_UP_AFTER && age > GIVE_UP_AFTER - Duration::from_secs(3_600));
        let widest = [0, 400].map(|roll| {
            next_pause(2, Duration::ZERO, None, &RandomSource::from_fn(move || roll)).unwrap()
        });
        assert_eq!(widest, [Duration::from_secs(4), Duration::from_secs(6)]);
        let most = Some(Duration::from_secs(86_400));
        let longest = RandomSource::from_fn(|| 400);
        assert!(next_pause(7, Duration::ZERO, most, &longest).unwrap() <= PAUSE_MAX);
    }

    #[test]
    fn retry_after_is_honoured_up_to_an_hour() {
        let even = RandomSource::from_fn(|| 200);
        let now = Timestamp::from_secs(1_795_154_591); // Fri, 20 Nov 2026 06:03:11 GMT
        for (header, pause) in [
            ("120", 120),
            ("0", 1),
            ("100000", 3_600),
            ("Fri, 20 Nov 2026 06:05:11 GMT", 120),
            ("Fri, 20 Nov 2026 06:00:00 GMT", 1),
            ("soon", 1),
        ] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, header.parse().unwrap())]);
            let asked = retry_after(&headers, now);
            assert_eq!(
                next_pause(1, Duration::ZERO, asked, &even),
                Some(Duration::from_secs(pause)),
                "{header}"
            );
        }
    }

    #[test]
    fn classifies_temporary_statuses() {
        for (status, passing) in [
            (408, true),
            (425, true),
            (429, true),
            (500, true),
            (503, true),
            (404, false),
            (302, false),
        ] {
            assert_eq!(is_temporary(StatusCode::from_u16(status).unwrap()), passing, "{status}");
        }
    }
}
