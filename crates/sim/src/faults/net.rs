//! Emulates a bad network between Meta and the node for the datagrams of one leg. It does no I/O:
//! time is passed in, chance is seeded, and the relay sends the resulting datagrams.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::media::peer::Datagram;

/// Maximum number of datagrams in flight. More are dropped, as in any buffer.
const IN_FLIGHT_MAX: usize = 4_096;
/// Delay of a reordered packet.
const REORDER_DELAY: Duration = Duration::from_millis(60);
/// Distance in packets between a packet and the earlier one that is replayed after it.
const REPLAY_DISTANCE: usize = 50;
/// Size of a jump of the RTP clock: 100 s.
const JUMP_SAMPLES: u32 = 100 * 48_000;

/// The media faults of a rule. `loss`, `reorder`, `duplicate` and `corrupt` are percentages.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct MediaFault {
    /// Time after the answer at which loss, reordering, duplication, corruption and jitter begin.
    /// `None` means with the first datagram.
    pub(crate) impairment_after: Option<Duration>,
    /// Percentage of all datagrams, in both directions, that are lost. All other faults affect only
    /// datagrams to the node.
    pub(crate) loss: f64,
    /// Datagrams that are delayed so that later ones overtake them.
    pub(crate) reorder: f64,
    pub(crate) duplicate: f64,
    /// SRTP and SRTCP packets with a flipped bit.
    pub(crate) corrupt: f64,
    /// Maximum random delay of a datagram.
    pub(crate) jitter: Duration,
    /// Start after the answer and length of a gap in which no datagram passes.
    pub(crate) gap: Option<(Duration, Duration)>,
    /// A fault of the whole stream, and when it begins after the answer.
    pub(crate) kind: Option<(Duration, MediaFaultKind)>,
}

/// Faults of a whole media stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MediaFaultKind {
    /// The phone sends no RTP.
    NoRtp,
    /// The DTLS handshake never completes.
    NoDtls,
    /// Each SRTP packet is followed by a copy of one from a second before.
    Replay,
    /// Random bytes with an RTCP header are sent.
    BadRtcp,
    /// The phone's stream changes its SSRC.
    NewSsrc,
    /// The phone's audio changes to a payload type that was not negotiated.
    OtherPt,
    /// The phone's RTP timestamps jump ahead.
    ClockJump,
    /// The phone sends no packets during silence.
    Dtx,
    /// Meta's side disappears: nothing passes in either direction.
    Vanish,
}

impl MediaFaultKind {
    pub(super) const ALL: &[(&str, Self)] = &[
        ("no_rtp", Self::NoRtp),
        ("no_dtls", Self::NoDtls),
        ("replay", Self::Replay),
        ("bad_rtcp", Self::BadRtcp),
        ("new_ssrc", Self::NewSsrc),
        ("other_pt", Self::OtherPt),
        ("clock_jump", Self::ClockJump),
        ("dtx", Self::Dtx),
        ("vanish", Self::Vanish),
    ];
}

/// The emulated network of one leg.
pub(crate) struct NetworkEmulator {
    faults: Vec<MediaFault>,
    rng: StdRng,
    accepted: Option<Instant>,
    in_flight: VecDeque<(Instant, Datagram)>,
    /// The latest SRTP packets, newest last, for replays.
    sent: VecDeque<Vec<u8>>,
    jumped: bool,
    ssrc_changed: bool,
}

impl NetworkEmulator {
    /// Creates the network of a call, or `None` if there are no faults.
    pub(crate) fn from_faults(faults: Vec<MediaFault>, seed: impl FnOnce() -> u64) -> Option<Self> {
        (!faults.is_empty()).then(|| Self::new(faults, seed()))
    }

    pub(super) fn new(faults: Vec<MediaFault>, seed: u64) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        let (in_flight, sent) = Default::default();
        Self { faults, rng, accepted: None, in_flight, sent, jumped: false, ssrc_changed: false }
    }

    /// Starts the clock of the faults, because the call was answered.
    pub(crate) fn accepted(&mut self, now: Instant) {
        self.accepted.get_or_insert(now);
    }

    /// Whether a fault of the whole stream is active.
    pub(crate) fn is_active(&self, now: Instant, expected: MediaFaultKind) -> bool {
        self.faults.iter().any(|f| {
            f.kind.is_some_and(|(after, kind)| kind == expected && self.has_started(now, after))
        })
    }

    fn has_started(&self, now: Instant, after: Duration) -> bool {
        // A fault without a start time is active before the answer as well.
        after.is_zero() || self.accepted.is_some_and(|at| now >= at + after)
    }

    /// Returns true once, when the SSRC has to change.
    pub(crate) fn take_ssrc_change(&mut self, now: Instant) -> bool {
        self.is_active(now, MediaFaultKind::NewSsrc)
            && !std::mem::replace(&mut self.ssrc_changed, true)
    }

    /// Returns the size of the clock jump once, when it is due.
    pub(crate) fn take_clock_jump(&mut self, now: Instant) -> Option<u32> {
        (self.is_active(now, MediaFaultKind::ClockJump)
            && !std::mem::replace(&mut self.jumped, true))
        .then_some(JUMP_SAMPLES)
    }

    /// Whether no datagram passes at all.
    fn is_blocked(&self, now: Instant) -> bool {
        let gaps = self.faults.iter().filter_map(|f| f.gap);
        let mut gaps = gaps.filter_map(|(after, length)| {
            self.accepted.map(|at| (at + after, at + after + length))
        });
        gaps.any(|(from, to)| (from..to).contains(&now))
            || self.is_active(now, MediaFaultKind::Vanish)
    }

    /// The faults with active loss, reordering, duplication, corruption and jitter.
    fn impairments(&self, now: Instant) -> impl Iterator<Item = &MediaFault> {
        self.faults
            .iter()
            .filter(move |f| f.impairment_after.is_none_or(|after| self.has_started(now, after)))
    }

    fn draws(&mut self, now: Instant, share: impl Fn(&MediaFault) -> f64) -> bool {
        let percent = self.impairments(now).map(share).fold(0.0, f64::max);
        percent > 0.0 && self.rng.random_range(0.0..100.0) < percent
    }

    /// Whether a datagram from the node arrives.
    pub(crate) fn admits(&mut self, now: Instant) -> bool {
        !self.is_blocked(now) && !self.draws(now, |f| f.loss)
    }

    /// Accepts a datagram for the node. [`NetworkEmulator::due`] returns it and everything that it
    /// triggers.
    pub(crate) fn send(&mut self, now: Instant, mut datagram: Datagram) {
        let kind = DatagramKind::of(&datagram.bytes);
        if self.is_blocked(now)
            || (kind == DatagramKind::Dtls && self.is_active(now, MediaFaultKind::NoDtls))
            || self.draws(now, |f| f.loss)
        {
            return;
        }
        if kind == DatagramKind::Srtp && self.is_active(now, MediaFaultKind::Replay) {
            self.sent.push_back(datagram.bytes.clone());
            if self.sent.len() > REPLAY_DISTANCE
                && let Some(bytes) = self.sent.pop_front()
            {
                self.enqueue(now, Datagram { to: datagram.to, bytes });
            }
        }
        if self.is_active(now, MediaFaultKind::BadRtcp) && kind == DatagramKind::Srtp {
            let bytes = self.bad_rtcp();
            self.enqueue(now, Datagram { to: datagram.to, bytes });
        }
        if self.draws(now, |f| f.duplicate) {
            let copy = Datagram { to: datagram.to, bytes: datagram.bytes.clone() };
            self.enqueue(now, copy);
        }
        if matches!(kind, DatagramKind::Srtp | DatagramKind::Srtcp)
            && self.draws(now, |f| f.corrupt)
        {
            let at = self.rng.random_range(0..datagram.bytes.len().max(1));
            if let Some(byte) = datagram.bytes.get_mut(at) {
                *byte ^= 1 << self.rng.random_range(0..8);
            }
        }
        self.enqueue(now, datagram);
    }

    fn enqueue(&mut self, now: Instant, datagram: Datagram) {
        let jitter = self.impairments(now).map(|f| f.jitter).max().unwrap_or_default();
        let mut delay = match u64::try_from(jitter.as_micros()).unwrap_or(u64::MAX) {
            0 => Duration::ZERO,
            max => Duration::from_micros(self.rng.random_range(0..=max)),
        };
        if self.draws(now, |f| f.reorder) {
            delay += REORDER_DELAY;
        }
        if self.in_flight.len() < IN_FLIGHT_MAX {
            self.in_flight.push_back((now + delay, datagram));
        }
    }

    /// The next datagram that is due.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Datagram> {
        let first = self
            .in_flight
            .iter()
            .enumerate()
            .filter(|(_, (at, _))| *at <= now)
            .min_by_key(|(n, (at, _))| (*at, *n));
        let nr = first.map(|(nr, _)| nr)?;
        self.in_flight.remove(nr).map(|(_, datagram)| datagram)
    }

    /// An RTCP header, usually with a wrong length, and random bytes.
    fn bad_rtcp(&mut self) -> Vec<u8> {
        let mut bytes = vec![0u8; self.rng.random_range(2..80)];
        self.rng.fill(&mut bytes[..]);
        let head = [0x80 | self.rng.random_range(0..32u8), self.rng.random_range(200..208u8)];
        bytes.iter_mut().zip(head).for_each(|(byte, new)| *byte = new);
        bytes
    }
}

/// The protocol of a datagram by its first bytes (RFC 7983, RFC 5761).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DatagramKind {
    Stun,
    Dtls,
    Srtp,
    Srtcp,
    Other,
}

impl DatagramKind {
    fn of(bytes: &[u8]) -> Self {
        match bytes {
            [0..=3, ..] => Self::Stun,
            [20..=63, ..] => Self::Dtls,
            [128..=191, 192..=223, ..] => Self::Srtcp,
            [128..=191, ..] => Self::Srtp,
            _ => Self::Other,
        }
    }
}

impl std::fmt::Debug for NetworkEmulator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "NetworkEmulator({} faults, {} in flight)",
            self.faults.len(),
            self.in_flight.len()
        )
    }
}
