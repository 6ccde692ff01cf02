//! Checks of addresses that the peer has nominated during the call. Media goes to one only after it
//! has answered a check of ours: the nomination may be a copy that somebody else sends from their
//! own address, and only the peer has the password that its response needs (RFC 8445 §7.3.1.4).
//!
//! The module has no I/O, and the leg sends the checks.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::stun::TransactionId;

/// Maximum number of addresses that are checked at a time.
const PENDING_MAX: usize = 4;
/// Time from a check to its first copy. It doubles with each copy.
const FIRST_COPY: Duration = Duration::from_millis(100);
/// Maximum number of copies. Few, because a copied nomination can have a forged source.
const COPIES_MAX: u32 = 3;
/// Time for which a check can be answered.
const LIFETIME: Duration = Duration::from_secs(2);

/// The unanswered checks, oldest first.
#[derive(Debug, Default)]
pub(super) struct PathChecks(VecDeque<PathCheck>);

#[derive(Debug)]
struct PathCheck {
    to: SocketAddr,
    id: TransactionId,
    datagram: Vec<u8>,
    sent: Instant,
    copies: u32,
}

impl PathCheck {
    /// Returns when the next copy is due. `None` if there is none left.
    fn due(&self) -> Option<Instant> {
        let time = FIRST_COPY * ((1 << (self.copies + 1)) - 1);
        (self.copies < COPIES_MAX).then(|| self.sent + time)
    }
}

impl PathChecks {
    /// Returns whether this address is being checked.
    pub(super) fn is_pending(&self, now: Instant, to: SocketAddr) -> bool {
        self.0.iter().any(|check| check.to == to && now < check.sent + LIFETIME)
    }

    /// Records a check that is being sent.
    pub(super) fn begin(
        &mut self,
        now: Instant,
        to: SocketAddr,
        id: TransactionId,
        datagram: Vec<u8>,
    ) {
        self.0.retain(|check| check.to != to && now < check.sent + LIFETIME);
        if self.0.len() == PENDING_MAX {
            self.0.pop_front();
        }
        self.0.push_back(PathCheck { to, id, datagram, sent: now, copies: 0 });
    }

    /// Removes the check that a response belongs to. Returns `false` if there is none.
    pub(super) fn take(&mut self, from: SocketAddr, id: TransactionId) -> bool {
        let before = self.0.len();
        self.0.retain(|check| (check.to, check.id) != (from, id));
        self.0.len() < before
    }

    /// Returns when the next copy is due. `None` if there is none.
    pub(super) fn due(&self) -> Option<Instant> {
        self.0.iter().filter_map(PathCheck::due).min()
    }

    /// Returns the copy to send now, or `None` if none is due.
    pub(super) fn next_copy(&mut self, now: Instant) -> Option<(SocketAddr, &[u8])> {
        let check = self.0.iter_mut().find(|check| check.due().is_some_and(|due| due <= now))?;
        check.copies += 1;
        Some((check.to, &check.datagram))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Clock;

    const MS: Duration = Duration::from_millis(1);

    fn address(n: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, n], 9))
    }

    #[test]
    fn a_check_is_repeated_three_times_and_answered_once_from_its_address() {
        let (mut checks, now) = (PathChecks::default(), Clock::real().now());
        checks.begin(now, address(1), [1; 12], vec![7]);
        let mut sent = Vec::new();
        for at in (0..1_990).step_by(10) {
            let then = now + at * MS;
            sent.extend(checks.next_copy(then).map(|(to, datagram)| (at, to, datagram.to_vec())));
            assert!(checks.is_pending(then, address(1)));
        }
        let copy = |at| (at, address(1), vec![7]);
        assert_eq!(sent, [copy(100), copy(300), copy(700)]);
        assert_eq!(checks.due(), None);
        assert!(!checks.is_pending(now + LIFETIME, address(1)));
        assert!(!checks.take(address(2), [1; 12]) && !checks.take(address(1), [2; 12]));
        assert!(checks.take(address(1), [1; 12]) && !checks.take(address(1), [1; 12]));
    }

    #[test]
    fn the_newest_addresses_are_checked() {
        let (mut checks, now) = (PathChecks::default(), Clock::real().now());
        for n in 1..=6 {
            checks.begin(now, address(n), [n; 12], Vec::new());
        }
        let pending: Vec<u8> = (1..=6).filter(|n| checks.is_pending(now, address(*n))).collect();
        assert_eq!(pending, [3, 4, 5, 6]);
    }
}
