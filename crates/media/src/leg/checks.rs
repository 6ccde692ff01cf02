//! Retransmission of unanswered ICE checks (RFC 8489 §6.2.1). str0m doubles its pauses from the
//! first check on. A peer that becomes reachable only after a while, such as Meta's relay, would
//! then be found up to that much later again.
//!
//! A copy has the transaction id of its check, so that one response is enough. No I/O; the leg
//! sends.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::stun::check_sent;

/// Minimum time between any two checks of a leg, and initially from a check to its copy.
const APART: Duration = Duration::from_millis(50);
/// A tick may be this late without shifting the next one.
const TICK: Duration = Duration::from_millis(20);
/// A copy is sent after an eighth of the time without a response. A peer is found at most that much
/// later than possible.
const SHARE: u32 = 8;
/// Maximum copies to one address that never answers. With str0m's own checks it gets at most 30
/// (docs/reference/media.md#ice).
const COPIES_MAX: u32 = 17;
/// Maximum copies before the call is accepted. The rest is kept for a relay that accepts nothing
/// until then, however late that is.
const COPIES_EARLY: u32 = 8;

/// The latest check to each of the peer's addresses, until it is answered.
#[derive(Debug, Default)]
pub(super) struct Checks {
    waiting: Vec<Check>,
    pace: Pace,
    /// Whether the call has been accepted.
    open: bool,
}

/// When the next copy may be sent. `None` before the first check.
#[derive(Debug, Default)]
struct Pace(Option<Instant>);

impl Pace {
    fn allows(&self, now: Instant) -> bool {
        self.0.is_some_and(|at| at <= now)
    }

    /// Records that a check is sent. Returns the time at which it was due.
    fn step(&mut self, now: Instant) -> Instant {
        let at = self.0.filter(|at| *at <= now && now < *at + TICK).unwrap_or(now);
        self.0 = Some(at + APART);
        at
    }
}

#[derive(Debug)]
struct Check {
    to: SocketAddr,
    datagram: Vec<u8>,
    /// When the first check to this address was due, and the latest one, copies included.
    first: Instant,
    latest: Instant,
    copies: u32,
}

impl Check {
    fn due(&self) -> Instant {
        let waited = self.latest.saturating_duration_since(self.first);
        self.latest + APART.max(waited / SHARE)
    }
}

impl Checks {
    /// Records a datagram that str0m sends, if it is a check.
    pub(super) fn sent(&mut self, now: Instant, to: SocketAddr, datagram: &[u8]) {
        if check_sent(datagram).is_none() {
            return;
        }
        let (datagram, latest) = (datagram.to_vec(), self.pace.step(now));
        match self.waiting.iter_mut().find(|check| check.to == to) {
            Some(check) => (check.datagram, check.latest) = (datagram, latest),
            None => self.waiting.push(Check { to, datagram, first: latest, latest, copies: 0 }),
        }
    }

    /// Records that the call was accepted: pending checks are repeated again, quickly at first.
    pub(super) fn open(&mut self, now: Instant) {
        if std::mem::replace(&mut self.open, true) {
            return;
        }
        for check in &mut self.waiting {
            // Due at the next tick, one after the other.
            (check.first, check.latest) = (now, now.checked_sub(APART).unwrap_or(now));
        }
    }

    /// Records an authentic response from this address. Its pending check is dropped.
    pub(super) fn answered(&mut self, from: SocketAddr) {
        self.waiting.retain(|check| check.to != from);
    }

    /// Returns the copy to send now, if one is due. `wake` is the time at which str0m may send
    /// something itself.
    pub(super) fn copy(&mut self, now: Instant, wake: Instant) -> Option<(SocketAddr, &[u8])> {
        if !self.pace.allows(now) || wake <= now + TICK {
            return None;
        }
        let most = if self.open { COPIES_MAX } else { COPIES_EARLY };
        let due = |check: &&mut Check| check.copies < most && now >= check.due();
        let check = self.waiting.iter_mut().filter(due).min_by_key(|check| check.latest)?;
        (check.latest, check.copies) = (self.pace.step(now), check.copies + 1);
        Some((check.to, &check.datagram))
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::{Duration, Instant};

    use super::{APART, COPIES_EARLY, COPIES_MAX, Checks};
    use model::Clock;

    const MS: Duration = Duration::from_millis(1);

    fn check(id: u8) -> Vec<u8> {
        [&[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42][..], &[id; 12]].concat()
    }

    /// Sends no further checks for `seconds`; returns the times in milliseconds and addresses of
    /// the copies.
    fn copies(checks: &mut Checks, from: Instant, seconds: u32) -> Vec<(u128, SocketAddr)> {
        let far = from + Duration::from_secs(3_600);
        let mut sent = Vec::new();
        for tick in 1..seconds * 50 {
            let now = from + 20 * tick * MS;
            sent.extend(
                checks.copy(now, far).map(|(to, _)| (now.duration_since(from).as_millis(), to)),
            );
        }
        sent
    }

    #[test]
    fn copies_go_every_50_ms_at_first_and_end() {
        let (mut checks, now, to) =
            (Checks::default(), Clock::real().now(), SocketAddr::from(([10, 0, 0, 1], 9)));
        assert!(copies(&mut checks, now, 1).is_empty(), "nothing was sent");
        checks.sent(now, to, b"no check");
        assert!(copies(&mut checks, now, 1).is_empty());
        checks.sent(now, to, &check(1));
        checks.open(now);
        let at: Vec<u128> = copies(&mut checks, now, 60).into_iter().map(|(at, _)| at).collect();
        assert_eq!(at.get(..8).unwrap(), [60, 100, 160, 200, 260, 300, 360, 400]);
        assert_eq!(at.len(), usize::try_from(COPIES_MAX).unwrap());
        assert!(at.windows(2).all(|two| two[1] - two[0] <= 60.max(20 + two[0] / 8 + 20)), "{at:?}");

        checks.sent(now + 60_000 * MS, to, &check(2));
        assert!(
            copies(&mut checks, now + 60_000 * MS, 9).is_empty(),
            "it has had all of its copies"
        );
        checks.answered(to);
        checks.sent(now + 70_000 * MS, to, &check(3));
        let far = now + Duration::from_secs(3_600);
        assert_eq!(
            checks.copy(now + 70_060 * MS, far),
            Some((to, check(3).as_slice())),
            "after an answer it begins anew"
        );
        checks.answered(to);
        assert!(copies(&mut checks, now + 70_060 * MS, 9).is_empty());
    }

    #[test]
    fn they_begin_anew_when_the_call_is_accepted() {
        let (mut checks, now) = (Checks::default(), Clock::real().now());
        let [to, other] = [1, 2].map(|n| SocketAddr::from(([10, 0, 0, n], 9)));
        checks.sent(now, to, &check(1));
        checks.sent(now + 50 * MS, other, &check(2));
        let early = copies(&mut checks, now + 50 * MS, 7).len();
        assert_eq!(early, 2 * usize::try_from(COPIES_EARLY).unwrap());
        let accepted = now + 7_050 * MS;
        checks.open(accepted);
        let at = copies(&mut checks, accepted, 10);
        assert_eq!(at.first(), Some(&(20, to)), "on the next tick");
        assert!(
            at.get(1).is_some_and(|(at, to)| *to == other && *at <= 100),
            "and the other's turn: {at:?}"
        );
        assert_eq!(at.len(), 2 * usize::try_from(COPIES_MAX - COPIES_EARLY).unwrap());
        assert!(at.last().unwrap().0 < 2_500, "{at:?}");
        checks.open(accepted + 20_000 * MS);
        assert!(copies(&mut checks, accepted + 20_000 * MS, 9).is_empty(), "once");
    }

    #[test]
    fn all_of_a_legs_checks_are_50_ms_apart() {
        let (mut checks, now) = (Checks::default(), Clock::real().now());
        checks.open(now);
        for n in 1..=4 {
            checks.sent(
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
        assert_eq!(first, [1, 2, 3, 4], "who has waited longest");
        assert_eq!(
            checks.copy(from + 10_000 * MS, from + 10_010 * MS),
            None,
            "the agent is about to send"
        );
        assert!(checks.copy(from + 10_000 * MS, from + 10_000 * MS + APART).is_some());
    }
}
