//! Demultiplexing for legs that share one local port and one peer address
//! (docs/reference/media.md#shared-port).
//!
//! This happens only if no further port could be opened. The source address does not identify the
//! leg then. RTP and RTCP are matched by a known SSRC, otherwise by the leg whose keys authenticate
//! the packet. DTLS goes to the leg that is in its handshake; handshakes take turns, so that there
//! is only one at a time. STUN identifies its leg by itself.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::LegId;
use super::ports::PortId;

/// How long a leg waits for an earlier one that does not connect.
const TURN_MAX: Duration = Duration::from_secs(3);
/// Maximum number of legs that are tried for a packet with an unknown SSRC.
pub(super) const TRIED_MAX: usize = 16;

/// A local port and a peer address.
pub(super) type Path = (PortId, SocketAddr);

/// The paths with more than one leg, and the legs that wait for their turn.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    at: HashMap<Path, Vec<LegId>>,
    /// In order of arrival.
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    leg: LegId,
    since: Instant,
    /// Legs that must connect first.
    behind: Vec<LegId>,
}

impl Crowd {
    /// Records that both legs use this path.
    pub(super) fn join(&mut self, path: Path, one: LegId, other: LegId) {
        let legs = self.at.entry(path).or_default();
        for leg in [one, other] {
            if !legs.contains(&leg) {
                legs.push(leg);
            }
        }
    }

    /// Removes a leg from this path. Returns one of the legs that remain on it.
    pub(super) fn leave(&mut self, path: Path, leg: LegId) -> Option<LegId> {
        let legs = self.at.get_mut(&path)?;
        legs.retain(|other| *other != leg);
        let left = legs.last().copied();
        if legs.len() < 2 {
            self.at.remove(&path);
        }
        left
    }

    /// The legs on a path, or `None` if it is not shared.
    pub(super) fn of(&self, path: Path) -> Option<&[LegId]> {
        if self.at.is_empty() {
            return None;
        }
        self.at.get(&path).map(Vec::as_slice)
    }

    /// Queues a leg until the legs in `predecessors` have connected.
    pub(super) fn wait(&mut self, leg: LegId, behind: Vec<LegId>, since: Instant) {
        self.waiting.push(Waiting { leg, since, behind });
    }

    /// Removes and returns the legs whose turn it is: no predecessor is queued or connecting
    /// (`is_busy`), or the leg has waited long enough.
    pub(super) fn turns(&mut self, now: Instant, is_busy: impl Fn(LegId) -> bool) -> Vec<LegId> {
        let in_line: HashSet<LegId> = self.waiting.iter().map(|waiting| waiting.leg).collect();
        let mut turns = Vec::new();
        self.waiting.retain(|waiting| {
            let in_time = now.saturating_duration_since(waiting.since) < TURN_MAX;
            let waits =
                in_time && waiting.behind.iter().any(|leg| is_busy(*leg) || in_line.contains(leg));
            if !waits {
                turns.push(waiting.leg);
            }
            waits
        });
        turns
    }

    /// Removes a leg that has ended from the queue.
    pub(super) fn forget(&mut self, leg: LegId) {
        self.waiting.retain(|waiting| waiting.leg != leg);
    }
}

/// The sender's SSRC of a datagram that looks like RTP or RTCP (RFC 7983, RFC 5761).
pub(super) fn sender(datagram: &[u8]) -> Option<u32> {
    let [first, second, ..] = datagram else { return None };
    let at = if (192..224).contains(second) { 4..8 } else { 8..12 };
    let ssrc = datagram.get(at)?.try_into().ok()?;
    (128..192).contains(first).then(|| u32::from_be_bytes(ssrc))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Crowd, Path, PortId, sender};
    use crate::LegId;
    use model::Clock;
    use model::Timestamp;

    #[test]
    fn a_path_is_a_crowds_while_it_has_several_legs() {
        let path: Path = (PortId(0), ([198, 51, 100, 1], 3_478).into());
        let mut crowd = Crowd::default();
        assert_eq!(crowd.of(path), None);
        assert_eq!(crowd.leave(path, LegId(1)), None);
        crowd.join(path, LegId(1), LegId(2));
        crowd.join(path, LegId(2), LegId(1));
        crowd.join(path, LegId(2), LegId(3));
        assert_eq!(crowd.of(path), Some(&[LegId(1), LegId(2), LegId(3)][..]));
        assert_eq!(crowd.of((PortId(1), path.1)), None);
        assert_eq!(crowd.leave(path, LegId(3)), Some(LegId(2)));
        assert_eq!(
            crowd.leave(path, LegId(1)),
            Some(LegId(2)),
            "the one that is left is found by its address"
        );
        assert_eq!(crowd.of(path), None);
    }

    #[test]
    fn legs_begin_one_after_another_and_not_for_ever() {
        let clock = Clock::stepped(Timestamp::from_secs(0));
        let mut crowd = Crowd::default();
        crowd.wait(LegId(2), vec![LegId(1)], clock.now());
        crowd.wait(LegId(3), vec![LegId(1), LegId(2)], clock.now());
        crowd.wait(LegId(4), vec![LegId(2), LegId(3)], clock.now());
        assert_eq!(crowd.turns(clock.now(), |leg| leg == LegId(1)), []);
        assert_eq!(crowd.turns(clock.now(), |_| false), [LegId(2)], "one, though nobody is busy");
        assert_eq!(crowd.turns(clock.now(), |leg| leg == LegId(2)), []);
        crowd.forget(LegId(3));
        assert_eq!(crowd.turns(clock.now(), |leg| leg == LegId(2)), []);
        clock.step(Duration::from_millis(2_999));
        assert_eq!(crowd.turns(clock.now(), |leg| leg == LegId(2)), []);
        clock.step(Duration::from_millis(1));
        assert_eq!(
            crowd.turns(clock.now(), |leg| leg == LegId(2)),
            [LegId(4)],
            "it has waited long enough"
        );
    }

    #[test]
    fn rtp_and_rtcp_say_who_sent_them() {
        let rtp = [0x80, 111, 0, 1, 0, 0, 0, 1, 1, 2, 3, 4, 0x48];
        let rtcp = [0x80, 200, 0, 6, 1, 2, 3, 4, 0, 0, 0, 0, 0];
        assert_eq!((sender(&rtp), sender(&rtcp)), (Some(0x0102_0304), Some(0x0102_0304)));
        for nobody in [&[22, 254, 253, 0][..], &[0x80, 111, 0, 1], &[], &[0x80]] {
            assert_eq!(sender(nobody), None);
        }
    }
}
