//! Reports which step of the set-up is missing if a leg has no audio some seconds after it was
//! opened.
//!
//! It only reports; timeouts end the call elsewhere. `call::sound` turns the report into advice for
//! the operator.

use std::time::{Duration, Instant};

use model::metric;

/// Times after opening at which a leg is checked.
const LOOKS: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(8)];

/// The first step that is missing on the way to audio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// No ICE check was answered.
    Check,
    /// The DTLS handshake is not complete.
    Handshake,
    /// No packet of audio or digits has arrived.
    Packet,
    /// The peer's DTLS certificate does not match its SDP. Reported immediately; the leg is lost.
    Fingerprint,
}

impl Missing {
    /// All steps, for registering metrics.
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
#[derive(Clone, Copy, Debug)]
pub(super) struct Watchdog {
    opened: Instant,
    looked: usize,
}

impl Watchdog {
    /// Creates the watchdog of a leg that was opened now.
    pub(super) fn new(opened: Instant) -> Self {
        Self { opened, looked: 0 }
    }

    /// Called at each tick with the step that is missing. Returns it with the time since opening,
    /// if it is time to report.
    pub(super) fn look(
        &mut self,
        now: Instant,
        missing: Option<Missing>,
    ) -> Option<(Missing, Duration)> {
        let waited = *LOOKS.get(self.looked)?;
        if now.saturating_duration_since(self.opened) < waited {
            return None;
        }
        self.looked += 1;
        missing.map(|missing| (missing, waited))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Clock;

    #[test]
    fn it_tells_twice_and_only_what_is_missing_then() {
        let start = Clock::real().now();
        let mut dog = Watchdog::new(start);
        let mut told = Vec::new();
        for ms in (0..20_000).step_by(20) {
            let missing = match ms {
                ..5_000 => Some(Missing::Check),
                5_000..9_000 => Some(Missing::Packet),
                _ => None,
            };
            told.extend(dog.look(start + Duration::from_millis(ms), missing));
        }
        assert_eq!(told, [(Missing::Check, LOOKS[0]), (Missing::Packet, LOOKS[1])]);
        let mut dog = Watchdog::new(start);
        assert_eq!(dog.look(start + Duration::from_secs(4), None), None, "all is there");
    }
}
