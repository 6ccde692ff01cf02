//! Retransmits unanswered ICE checks (RFC 8489 §6.2.1). str0m doubles the interval after each
//! check. A peer that becomes reachable only after some time, such as Meta's relay, would therefore
//! be found with a further delay of up to the same length.
//!
//! A copy has the transaction id of its check, so that one response is enough. The module has no
//! I/O, and the leg sends the copies.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::stun::check_id;

/// Minimum time between any two checks of a leg, and initially from a check to its copy.
const SPACING: Duration = Duration::from_millis(50);
/// Time by which a tick may be late without delaying the next copy.
const TICK: Duration = Duration::from_millis(20);
/// A copy is sent after an eighth of the time without a response, so a peer is found with at most
/// this relative delay.
const BACKOFF_DIVISOR: u32 = 8;
/// Maximum number of copies to one address that never answers. Together with str0m's own checks, at
/// most 30 are sent (docs/reference/media.md#ice).
const COPIES_MAX: u32 = 17;
/// Maximum number of copies before the call is accepted. The others are reserved for a relay that
/// accepts nothing until then.
const COPIES_BEFORE_ACCEPT: u32 = 8;

/// The latest check to each of the peer's addresses, until it is answered.
#[derive(Debug, Default)]
pub(super) struct CheckRetransmitter {
    pending: Vec<Check>,
    spacing: Spacing,
    /// Whether the call has been accepted.
    open: bool,
}

/// The earliest time of the next copy. `None` before the first check.
#[derive(Debug, Default)]
struct Spacing(Option<Instant>);

impl Spacing {
    fn allows(&self, now: Instant) -> bool {
        self.0.is_some_and(|at| at <= now)
    }

    /// Records that a check is being sent. Returns the time at which it was due.
    fn step(&mut self, now: Instant) -> Instant {
        let at = self.0.filter(|at| *at <= now && now < *at + TICK).unwrap_or(now);
        self.0 = Some(at + SPACING);
        at
    }
}

#[derive(Debug)]
struct Check {
    to: SocketAddr,
    datagram: Vec<u8>,
    /// The time at which the first check to this address was due, followed by that of the latest
    /// one, copies included.
    first: Instant,
    latest: Instant,
    copies: u32,
}

impl Check {
    fn due(&self) -> Instant {
        let waited = self.latest.saturating_duration_since(self.first);
        self.latest + SPACING.max(waited / BACKOFF_DIVISOR)
    }
}

impl CheckRetransmitter {
    /// Records a datagram that str0m sends, if it is a check.
    pub(super) fn note_sent(&mut self, now: Instant, to: SocketAddr, datagram: &[u8]) {
        if check_id(datagram).is_none() {
            return;
        }
        let (datagram, latest) = (datagram.to_vec(), self.spacing.step(now));
        match self.pending.iter_mut().find(|check| check.to == to) {
            Some(check) => (check.datagram, check.latest) = (datagram, latest),
            None => self.pending.push(Check { to, datagram, first: latest, latest, copies: 0 }),
        }
    }

    /// Records that the call was accepted. Pending checks are repeated again, at short intervals
    /// first.
    pub(super) fn open(&mut self, now: Instant) {
        if std::mem::replace(&mut self.open, true) {
            return;
        }
        for check in &mut self.pending {
            // All pending checks are due from the next tick on, one after the other.
            (check.first, check.latest) = (now, now.checked_sub(SPACING).unwrap_or(now));
        }
    }

    /// Records an authentic response from this address. Its pending check is dropped.
    pub(super) fn note_response(&mut self, from: SocketAddr) {
        self.pending.retain(|check| check.to != from);
    }

    /// Returns the copy to send now, or `None` if none is due. `wake` is the time at which str0m
    /// may send something itself.
    pub(super) fn next_copy(&mut self, now: Instant, wake: Instant) -> Option<(SocketAddr, &[u8])> {
        if !self.spacing.allows(now) || wake <= now + TICK {
            return None;
        }
        let limit = if self.open { COPIES_MAX } else { COPIES_BEFORE_ACCEPT };
        let due = |check: &&mut Check| check.copies < limit && now >= check.due();
        let check = self.pending.iter_mut().filter(due).min_by_key(|check| check.latest)?;
        (check.latest, check.copies) = (self.spacing.step(now), check.copies + 1);
        Some((check.to, &check.datagram))
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::{Duration, Instant};

    use super::{COPIES_BEFORE_ACCEPT, COPIES_MAX, CheckRetransmitter, SPACING};
    use model::Clock;

    const MS: Duration = Duration::from_millis(1);

    fn check(id: u8) -> Vec<u8> {
        [&[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42][..], &[id; 12]].concat()
    }

    /// Sends no further checks for `seconds`; returns the times in milliseconds and addresses of
    /// the copies.
    fn copies(
        checks: &mut CheckRetransmitter,
        from: Instant,
        seconds: u32,
    ) -> Vec<(u128, SocketAddr)> {
        let far = from + Duration::from_secs(3_600);
        let mut sent = Vec::new();
        for tick in 1..seconds * 50 {
            let now = from + 20 * tick * MS;
            sent.extend(
                checks
                    .next_copy(now, far)
                    .map(|(to, _)| (now.duration_since(from).as_millis(), to)),
            );
        }
        sent
    }

    #[test]
    fn sends_copies_every_50_ms_at_first_and_stops() {
        let (mut checks, now, to) = (
            CheckRetransmitter::default(),
            Clock::real().now(),
            SocketAddr::from(([10, 0, 0, 1], 9)),
        );
        assert!(copies(&mut checks, now, 1).is_empty(), "nothing was sent");
        checks.note_sent(now, to, b"no check");
        assert!(copies(&mut checks, now, 1).is_empty());
        checks.note_sent(now, to, &check(1));
        checks.open(now);
        let at: Vec<u128> = copies(&mut checks, now, 60).into_iter().map(|(at, _)| at).collect();
        assert_eq!(at.get(..8).unwrap(), [60, 100, 160, 200, 260, 300, 360, 400]);
        assert_eq!(at.len(), usize::try_from(COPIES_MAX).unwrap());
        assert!(at.windows(2).all(|two| two[1] - two[0] <= 60.max(20 + two[0] / 8 + 20)), "{at:?}");

        checks.note_sent(now + 60_000 * MS, to, &check(2));
        assert!(copies(&mut checks, now + 60_000 * MS, 9).is_empty(), "no copies left");
        checks.note_response(to);
        checks.note_sent(now + 70_000 * MS, to, &check(3));
        let far = now + Duration::from_secs(3_600);
        assert_eq!(
            checks.next_copy(now + 70_060 * MS, far),
            Some((to, check(3).as_slice())),
            "restarted after a response"
        );
        checks.note_response(to);
        assert!(copies(&mut checks, now + 70_060 * MS, 9).is_empty());
    }

    #[test]
    fn restarts_when_the_call_is_accepted() {
        let (mut checks, now) = (CheckRetransmitter::default(), Clock::real().now());
        let [to, other] = [1, 2].map(|n| SocketAddr::from(([10, 0, 0, n], 9)));
        checks.note_sent(now, to, &check(1));
        checks.note_sent(now + 50 * MS, other, &check(2));
        let before_accept = copies(&mut checks, now + 50 * MS, 7).len();
        assert_eq!(before_accept, 2 * usize::try_from(COPIES_BEFORE_ACCEPT).unwrap());
        let accepted = now + 7_050 * MS;
        checks.open(accepted);
        let at = copies(&mut checks, accepted, 10);
        assert_eq!(at.first(), Some(&(20, to)), "on the next tick");
        assert!(
            at.get(1).is_some_and(|(at, to)| *to == other && *at <= 100),
            "then the other address: {at:?}"
        );
        assert_eq!(at.len(), 2 * usize::try_from(COPIES_MAX - COPIES_BEFORE_ACCEPT).unwrap());
        assert!(at.last().unwrap().0 < 2_500, "{at:?}");
        checks.open(accepted + 20_000 * MS);
        assert!(copies(&mut checks, accepted + 20_000 * MS, 9).is_empty(), "once");
    }

    #[test]
    fn spaces_all_checks_of_a_leg_by_50_ms() {
        let (mut checks, now) = (CheckRetransmitter::default(), Clock::real().now());
        checks.open(now);
        for n in 1..=4 {
            checks.note_sent(
                now + u32::from(n) * 60 * MS,
                SocketAddr::from(([10, 0, 0, n], 9)),
                &check(n),
            );
        }
        let from = now + 240 * MS;
        let sent = copies(&mut checks, from, 2);
        assert!(sent.windows(2).all(|two| two[1].0 - two[0].0 >= 40), "{sent:?}");
        let first: Vec<u8> =
            sent.iter().take(4).map(|(_, to)| to.to_string().as_bytes()[7] - b'0').collect();
        assert_eq!(first, [1, 2, 3, 4], "the longest wait first");
        assert_eq!(
            checks.next_copy(from + 10_000 * MS, from + 10_010 * MS),
            None,
            "str0m is about to send"
        );
        assert!(checks.next_copy(from + 10_000 * MS, from + 10_000 * MS + SPACING).is_some());
    }
}
