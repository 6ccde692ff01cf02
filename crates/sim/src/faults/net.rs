//! The bad network between Meta and the node (H6): what becomes of a leg's datagrams. Pure: chance is seeded, time is
//! handed in; the relay sends what comes out.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::media::peer::Datagram;

/// Datagrams on their way at most; more are lost, as in any buffer.
const UNDER_WAY_MAX: usize = 4_096;
/// How far behind a packet comes that is overtaken.
const OVERTAKEN_BY: Duration = Duration::from_millis(60);
/// How old a packet is that is replayed: further back than any replay window would need to reach.
const REPLAY_BEHIND: usize = 50;
/// A jump of the RTP clock: 100 s.
const JUMP_SAMPLES: u32 = 100 * 48_000;

/// What a rule does to the media of a call. Shares are percentages.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct MediaFault {
    /// Loss to jitter begin so long after the answer; none: with the first datagram.
    pub(crate) weather_after: Option<Duration>,
    /// Of all datagrams, both ways.
    pub(crate) loss: f64,
    /// Those that follow come first; towards the node, as all below.
    pub(crate) reorder: f64,
    pub(crate) duplicate: f64,
    /// SRTP and SRTCP with a flipped bit.
    pub(crate) corrupt: f64,
    /// Each is up to so late.
    pub(crate) jitter: Duration,
    /// Begin after the answer, and length: no datagram passes.
    pub(crate) gap: Option<(Duration, Duration)>,
    /// Since when after the answer, and what.
    pub(crate) how: Option<(Duration, MediaHow)>,
}

/// What is wrong with the media as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MediaHow {
    /// The phone sends no RTP.
    NoRtp,
    /// DTLS never comes to its end.
    NoDtls,
    /// Each SRTP packet is followed by one of a second ago.
    Replay,
    /// Garbage that looks like RTCP.
    BadRtcp,
    /// The phone's stream goes on under another SSRC.
    NewSsrc,
    /// Its audio goes on under a payload type that was not agreed upon.
    OtherPt,
    /// Its timestamps jump ahead.
    ClockJump,
    /// Silence is not sent.
    Dtx,
    /// Meta's side is gone: nothing passes any more, either way.
    Vanish,
}

impl MediaHow {
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

/// One leg's network.
pub(crate) struct Net {
    faults: Vec<MediaFault>,
    dice: StdRng,
    accepted: Option<Instant>,
    under_way: VecDeque<(Instant, Datagram)>,
    /// SRTP as sent, the newest last.
    sent: VecDeque<Vec<u8>>,
    jumped: bool,
    ssrc_changed: bool,
}

impl Net {
    /// The network of a call; without faults there is none in between.
    pub(crate) fn of(faults: Vec<MediaFault>, seed: impl FnOnce() -> u64) -> Option<Self> {
        (!faults.is_empty()).then(|| Self::new(faults, seed()))
    }

    pub(super) fn new(faults: Vec<MediaFault>, seed: u64) -> Self {
        let dice = StdRng::seed_from_u64(seed);
        let (under_way, sent) = Default::default();
        Self { faults, dice, accepted: None, under_way, sent, jumped: false, ssrc_changed: false }
    }

    /// The call was answered: times count from here.
    pub(crate) fn accepted(&mut self, now: Instant) {
        self.accepted.get_or_insert(now);
    }

    /// Whether this is so now.
    pub(crate) fn is(&self, now: Instant, wanted: MediaHow) -> bool {
        self.faults
            .iter()
            .any(|f| f.how.is_some_and(|(after, how)| how == wanted && self.since(now, after)))
    }

    fn since(&self, now: Instant, after: Duration) -> bool {
        // Without a time of its own a fault is there from the first datagram on.
        after.is_zero() || self.accepted.is_some_and(|at| now >= at + after)
    }

    /// The new SSRC's turn has come, once.
    pub(crate) fn changes_ssrc(&mut self, now: Instant) -> bool {
        self.is(now, MediaHow::NewSsrc) && !std::mem::replace(&mut self.ssrc_changed, true)
    }

    /// So far the phone's clock jumps now; once.
    pub(crate) fn jump(&mut self, now: Instant) -> Option<u32> {
        (self.is(now, MediaHow::ClockJump) && !std::mem::replace(&mut self.jumped, true))
            .then_some(JUMP_SAMPLES)
    }

    /// Nothing passes now.
    fn is_shut(&self, now: Instant) -> bool {
        let gaps = self.faults.iter().filter_map(|f| f.gap);
        let mut gaps = gaps.filter_map(|(after, length)| {
            self.accepted.map(|at| (at + after, at + after + length))
        });
        gaps.any(|(from, to)| (from..to).contains(&now)) || self.is(now, MediaHow::Vanish)
    }

    /// Whose weather it is now.
    fn weather(&self, now: Instant) -> impl Iterator<Item = &MediaFault> {
        self.faults
            .iter()
            .filter(move |f| f.weather_after.is_none_or(|after| self.since(now, after)))
    }

    fn happens(&mut self, now: Instant, share: impl Fn(&MediaFault) -> f64) -> bool {
        let percent = self.weather(now).map(share).fold(0.0, f64::max);
        percent > 0.0 && self.dice.random_range(0.0..100.0) < percent
    }

    /// Whether a datagram from the node arrives.
    pub(crate) fn lets_in(&mut self, now: Instant) -> bool {
        !self.is_shut(now) && !self.happens(now, |f| f.loss)
    }

    /// A datagram sets out for the node. It, and what it brings about, comes out of [`Net::due`].
    pub(crate) fn send(&mut self, now: Instant, mut datagram: Datagram) {
        let kind = Kind::of(&datagram.bytes);
        if self.is_shut(now)
            || (kind == Kind::Dtls && self.is(now, MediaHow::NoDtls))
            || self.happens(now, |f| f.loss)
        {
            return;
        }
        if kind == Kind::Srtp && self.is(now, MediaHow::Replay) {
            self.sent.push_back(datagram.bytes.clone());
            if self.sent.len() > REPLAY_BEHIND
                && let Some(bytes) = self.sent.pop_front()
            {
                self.set_out(now, Datagram { to: datagram.to, bytes });
            }
        }
        if self.is(now, MediaHow::BadRtcp) && kind == Kind::Srtp {
            let bytes = self.bad_rtcp();
            self.set_out(now, Datagram { to: datagram.to, bytes });
        }
        if self.happens(now, |f| f.duplicate) {
            let copy = Datagram { to: datagram.to, bytes: datagram.bytes.clone() };
            self.set_out(now, copy);
        }
        if matches!(kind, Kind::Srtp | Kind::Srtcp) && self.happens(now, |f| f.corrupt) {
            let at = self.dice.random_range(0..datagram.bytes.len().max(1));
            if let Some(byte) = datagram.bytes.get_mut(at) {
                *byte ^= 1 << self.dice.random_range(0..8);
            }
        }
        self.set_out(now, datagram);
    }

    fn set_out(&mut self, now: Instant, datagram: Datagram) {
        let jitter = self.weather(now).map(|f| f.jitter).max().unwrap_or_default();
        let mut late = match u64::try_from(jitter.as_micros()).unwrap_or(u64::MAX) {
            0 => Duration::ZERO,
            most => Duration::from_micros(self.dice.random_range(0..=most)),
        };
        if self.happens(now, |f| f.reorder) {
            late += OVERTAKEN_BY;
        }
        if self.under_way.len() < UNDER_WAY_MAX {
            self.under_way.push_back((now + late, datagram));
        }
    }

    /// The next datagram whose time has come.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Datagram> {
        let first = self
            .under_way
            .iter()
            .enumerate()
            .filter(|(_, (at, _))| *at <= now)
            .min_by_key(|(n, (at, _))| (*at, *n));
        let nr = first.map(|(nr, _)| nr)?;
        self.under_way.remove(nr).map(|(_, datagram)| datagram)
    }

    /// An RTCP header, mostly a lie about its length, and noise.
    fn bad_rtcp(&mut self) -> Vec<u8> {
        let mut bytes = vec![0u8; self.dice.random_range(2..80)];
        self.dice.fill(&mut bytes[..]);
        let head = [0x80 | self.dice.random_range(0..32u8), self.dice.random_range(200..208u8)];
        bytes.iter_mut().zip(head).for_each(|(byte, new)| *byte = new);
        bytes
    }
}

/// What a datagram is, by its first bytes (RFC 7983, RFC 5761).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Stun,
    Dtls,
    Srtp,
    Srtcp,
    Else,
}

impl Kind {
    fn of(bytes: &[u8]) -> Self {
        match bytes {
            [0..=3, ..] => Self::Stun,
            [20..=63, ..] => Self::Dtls,
            [128..=191, 192..=223, ..] => Self::Srtcp,
            [128..=191, ..] => Self::Srtp,
            _ => Self::Else,
        }
    }
}

/// For the relay's debugging.
impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Net({} faults, {} under way)", self.faults.len(), self.under_way.len())
    }
}
