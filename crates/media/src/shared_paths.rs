//! Demultiplexing for legs that share one local port and one peer address
//! (docs/reference/media.md#shared-port).
//!
//! Legs share a path only if no further port could be opened. The source address does not identify
//! the leg then. RTP and RTCP are matched by a known SSRC. Otherwise the legs are tried until one
//! authenticates the packet. DTLS goes to the leg that is in its handshake. There is only one
//! handshake at a time, unless a peer answers its first check late. STUN messages identify their leg.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::LegId;
use super::ports::PortId;

/// Maximum time for which a leg waits for an earlier one that does not connect.
const TURN_MAX: Duration = Duration::from_secs(3);
/// Maximum number of legs that are tried for a packet with an unknown SSRC.
pub(super) const TRIES_MAX: usize = 16;

/// A local port and a peer address.
pub(super) type Path = (PortId, SocketAddr);

/// The paths with more than one leg, and the legs that wait for their turn.
#[derive(Debug, Default)]
pub(super) struct SharedPaths {
    legs_by_path: HashMap<Path, Vec<LegId>>,
    /// The waiting legs in order of arrival.
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    leg: LegId,
    since: Instant,
    /// The legs that must connect first.
    predecessors: Vec<LegId>,
}

impl SharedPaths {
    /// Records that both legs use this path.
    pub(super) fn join(&mut self, path: Path, one: LegId, other: LegId) {
        let legs = self.legs_by_path.entry(path).or_default();
        for leg in [one, other] {
            if !legs.contains(&leg) {
                legs.push(leg);
            }
        }
    }

    /// Removes a leg from this path. Returns one of the remaining legs. `None` if no leg remains or
    /// the path was not shared.
    pub(super) fn leave(&mut self, path: Path, leg: LegId) -> Option<LegId> {
        let legs = self.legs_by_path.get_mut(&path)?;
        legs.retain(|other| *other != leg);
        let left = legs.last().copied();
        if legs.len() < 2 {
            self.legs_by_path.remove(&path);
        }
        left
    }

    /// Returns the legs on a path, or `None` if it is not shared.
    pub(super) fn legs_on(&self, path: Path) -> Option<&[LegId]> {
        if self.legs_by_path.is_empty() {
            return None;
        }
        self.legs_by_path.get(&path).map(Vec::as_slice)
    }

    /// Queues a leg until the legs in `predecessors` have connected.
    pub(super) fn wait(&mut self, leg: LegId, predecessors: Vec<LegId>, since: Instant) {
        self.waiting.push(Waiting { leg, since, predecessors });
    }

    /// Returns whether a leg waits until it may connect.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Removes and returns the legs that may connect now: no predecessor is queued or connecting
    /// (`is_busy`), or the leg has waited long enough.
    pub(super) fn take_ready(
        &mut self,
        now: Instant,
        is_busy: impl Fn(LegId) -> bool,
    ) -> Vec<LegId> {
        let queued: HashSet<LegId> = self.waiting.iter().map(|waiting| waiting.leg).collect();
        let mut ready = Vec::new();
        self.waiting.retain(|waiting| {
            let in_time = now.saturating_duration_since(waiting.since) < TURN_MAX;
            let waits = in_time
                && waiting.predecessors.iter().any(|leg| is_busy(*leg) || queued.contains(leg));
            if !waits {
                ready.push(waiting.leg);
            }
            waits
        });
        ready
    }

    /// Removes a leg that has ended from the queue.
    pub(super) fn remove_queued(&mut self, leg: LegId) {
        self.waiting.retain(|waiting| waiting.leg != leg);
    }
}

/// Returns the sender's SSRC of a datagram that looks like RTP or RTCP (RFC 7983, RFC 5761). `None`
/// for other datagrams.
pub(super) fn sender_ssrc(datagram: &[u8]) -> Option<u32> {
    let [first, second, ..] = datagram else { return None };
    let ssrc_bytes = if (192..224).contains(second) { 4..8 } else { 8..12 };
    let ssrc = datagram.get(ssrc_bytes)?.try_into().ok()?;
    (128..192).contains(first).then(|| u32::from_be_bytes(ssrc))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Path, PortId, SharedPaths, sender_ssrc};
    use crate::LegId;
    use model::Clock;
    use model::Timestamp;

    #[test]
    fn tracks_paths_with_several_legs() {
        let path: Path = (PortId(0), ([198, 51, 100, 1], 3_478).into());
        let mut paths = SharedPaths::default();
        assert_eq!(paths.legs_on(path), None);
        assert_eq!(paths.leave(path, LegId(1)), None);
        paths.join(path, LegId(1), LegId(2));
        paths.join(path, LegId(2), LegId(1));
        paths.join(path, LegId(2), LegId(3));
        assert_eq!(paths.legs_on(path), Some(&[LegId(1), LegId(2), LegId(3)][..]));
        assert_eq!(paths.legs_on((PortId(1), path.1)), None);
        assert_eq!(paths.leave(path, LegId(3)), Some(LegId(2)));
        assert_eq!(paths.leave(path, LegId(1)), Some(LegId(2)), "the remaining leg");
        assert_eq!(paths.legs_on(path), None);
    }

    #[test]
    fn legs_start_in_turn_and_wait_a_limited_time() {
        let clock = Clock::stepped(Timestamp::from_secs(0));
        let mut paths = SharedPaths::default();
        paths.wait(LegId(2), vec![LegId(1)], clock.now());
        paths.wait(LegId(3), vec![LegId(1), LegId(2)], clock.now());
        paths.wait(LegId(4), vec![LegId(2), LegId(3)], clock.now());
        assert_eq!(paths.take_ready(clock.now(), |leg| leg == LegId(1)), []);
        assert_eq!(paths.take_ready(clock.now(), |_| false), [LegId(2)], "only one leg at a time");
        assert_eq!(paths.take_ready(clock.now(), |leg| leg == LegId(2)), []);
        paths.remove_queued(LegId(3));
        assert_eq!(paths.take_ready(clock.now(), |leg| leg == LegId(2)), []);
        clock.step(Duration::from_millis(2_999));
        assert_eq!(paths.take_ready(clock.now(), |leg| leg == LegId(2)), []);
        clock.step(Duration::from_millis(1));
        assert_eq!(
            paths.take_ready(clock.now(), |leg| leg == LegId(2)),
            [LegId(4)],
            "the maximum wait has passed"
        );
    }

    #[test]
    fn reads_the_sender_ssrc_of_rtp_and_rtcp() {
        let rtp = [0x80, 111, 0, 1, 0, 0, 0, 1, 1, 2, 3, 4, 0x48];
        let rtcp = [0x80, 200, 0, 6, 1, 2, 3, 4, 0, 0, 0, 0, 0];
        assert_eq!((sender_ssrc(&rtp), sender_ssrc(&rtcp)), (Some(0x0102_0304), Some(0x0102_0304)));
        for invalid in [&[22, 254, 253, 0][..], &[0x80, 111, 0, 1], &[], &[0x80]] {
            assert_eq!(sender_ssrc(invalid), None);
        }
    }
}
