//! Reports which step of the set-up is missing if a leg has no audio some seconds after it was
//! opened.
//!
//! The watchdog only reports. Timeouts elsewhere end the call. `call::sound` converts the report to
//! advice for the operator.

use std::time::{Duration, Instant};

use model::metric;
use serde::{Deserialize, Serialize};

/// Times after opening at which a leg is checked.
const CHECK_TIMES: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(8)];

/// The first step that is missing on the way to audio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingStep {
    /// No ICE check was answered.
    Check,
    /// The DTLS handshake is not complete.
    Handshake,
    /// No packet of audio or digits has arrived.
    Packet,
    /// The peer's DTLS certificate does not match its SDP. Reported immediately; the leg is lost.
    Fingerprint,
}

impl MissingStep {
    /// All steps, for the registration of metrics.
    pub const ALL: [Self; 4] = [Self::Check, Self::Handshake, Self::Packet, Self::Fingerprint];

    /// The label in metrics and traces.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Check => metric::missing::CHECK,
            Self::Handshake => metric::missing::HANDSHAKE,
            Self::Packet => metric::missing::PACKET,
            Self::Fingerprint => metric::missing::FINGERPRINT,
        }
    }
}

/// Checks one leg.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct AudioWatchdog<T = Instant> {
    opened_at: T,
    checks_done: usize,
}

impl<T> AudioWatchdog<T> {
    pub(super) fn map_time<U>(self, time: impl Fn(T) -> U) -> AudioWatchdog<U> {
        AudioWatchdog { opened_at: time(self.opened_at), checks_done: self.checks_done }
    }
}

impl AudioWatchdog {
    /// Creates the watchdog of a leg that was opened now.
    pub(super) fn new(opened_at: Instant) -> Self {
        Self { opened_at, checks_done: 0 }
    }

    /// Checks a leg at each tick. If a report is due, returns the missing step with the time since
    /// opening, otherwise `None`.
    pub(super) fn check(
        &mut self,
        now: Instant,
        missing: Option<MissingStep>,
    ) -> Option<(MissingStep, Duration)> {
        let waited = *CHECK_TIMES.get(self.checks_done)?;
        if now.saturating_duration_since(self.opened_at) < waited {
            return None;
        }
        self.checks_done += 1;
        missing.map(|missing| (missing, waited))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Clock;

    #[test]
    fn reports_the_missing_step_twice() {
        let start = Clock::real().now();
        let mut watchdog = AudioWatchdog::new(start);
        let mut reports = Vec::new();
        for ms in (0..20_000).step_by(20) {
            let missing = match ms {
                ..5_000 => Some(MissingStep::Check),
                5_000..9_000 => Some(MissingStep::Packet),
                _ => None,
            };
            reports.extend(watchdog.check(start + Duration::from_millis(ms), missing));
        }
        assert_eq!(
            reports,
            [(MissingStep::Check, CHECK_TIMES[0]), (MissingStep::Packet, CHECK_TIMES[1])]
        );
        let mut watchdog = AudioWatchdog::new(start);
        assert_eq!(
            watchdog.check(start + Duration::from_secs(4), None),
            None,
            "nothing is missing"
        );
    }
}
