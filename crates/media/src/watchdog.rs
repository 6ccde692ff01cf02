//! What a leg still lacks some seconds after it may be heard: the field's most common complaint is "no sound".
//!
//! Pure. It only tells; what ends a call is T_media and T_media_dead. What to do about it is said in `call::sound`.

use std::time::{Duration, Instant};

use model::metric;

/// How long after its opening a leg is looked at.
const LOOKS: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(8)];

/// The first thing that is missing on a leg's way to sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// No ICE check has got through.
    Check,
    /// DTLS has not come to its end.
    Handshake,
    /// No packet of sound or keys has come.
    Packet,
    /// The peer's DTLS certificate is not the one of its SDP: told when it comes, and the leg is lost.
    Fingerprint,
}

impl Missing {
    pub const ALL: [Self; 4] = [Self::Check, Self::Handshake, Self::Packet, Self::Fingerprint];

    /// The word in metrics and traces.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Check => metric::missing::CHECK,
            Self::Handshake => metric::missing::HANDSHAKE,
            Self::Packet => metric::missing::PACKET,
            Self::Fingerprint => metric::missing::FINGERPRINT,
        }
    }
}

/// Looks at one leg.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watchdog {
    opened: Instant,
    looked: usize,
}

impl Watchdog {
    /// Of a leg that was opened now.
    pub(super) fn new(opened: Instant) -> Self {
        Self { opened, looked: 0 }
    }

    /// At each tick: what is `missing`, with how long it has been waited for, where it is time to say so.
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
