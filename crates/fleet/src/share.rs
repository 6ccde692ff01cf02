//! Computes the number of units of a limit that a run requests.

use crate::beat::LimitKind;

/// The usage of a limit by one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The units in use. A permit counts for one second after its use.
    pub used: u32,
    /// The admissions that wait for a unit.
    pub waiting: u32,
    /// The calls started within the last second.
    pub starts: u32,
}

/// The input from which the share of a run is computed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    pub(crate) kind: LimitKind,
    pub(crate) cap: u32,
    /// Number of runs in the fleet.
    pub(crate) members: u32,
    pub(crate) usage: Usage,
    /// The units that this run holds now.
    pub(crate) limit: u32,
    /// The units that other runs hold, and those that they have requested and not received.
    pub(crate) others: u32,
    pub(crate) requested: u32,
    /// Whether the limit was used within the last day.
    pub(crate) recent: bool,
}

impl Share {
    /// Returns the number of units to hold.
    ///
    /// A run keeps a reserve above its use, so that a call rarely waits for the database, and a
    /// standing share while it is idle, so that it can admit calls while the database is
    /// unreachable. If other runs lack units, it keeps only those in use. The reserve never
    /// requests units that other runs are known to hold, because otherwise two idle runs would take
    /// them from each other.
    pub(crate) fn want(&self) -> u32 {
        let busy = self.usage.used.saturating_add(self.usage.waiting);
        if self.requested > 0 || !(self.recent || busy > 0) {
            return busy.min(self.cap);
        }
        let members = self.members.max(1);
        let parts = match self.kind {
            LimitKind::Slots => members.saturating_mul(4),
            LimitKind::Permits => members.saturating_mul(2),
        };
        let (standing, largest) = (self.cap / parts, self.cap.div_ceil(parts));
        let target = match self.kind {
            LimitKind::Slots => {
                let reserve = self.usage.starts.max(1).min(largest);
                let low = busy.saturating_add(reserve).max(standing);
                let high = busy.saturating_add(reserve.saturating_mul(2)).saturating_add(standing);
                match self.limit {
                    limit if limit < low => low,
                    limit if limit > high => busy.saturating_add(reserve).max(standing),
                    limit => limit,
                }
            }
            LimitKind::Permits if busy > 0 => busy.saturating_add(largest).max(standing),
            LimitKind::Permits => standing,
        };
        let reachable = self.cap.saturating_sub(self.others);
        target.min(reachable).max(busy).min(self.cap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(used: u32, limit: u32) -> Share {
        Share {
            kind: LimitKind::Slots,
            cap: 100,
            members: 3,
            usage: Usage { used, waiting: 0, starts: 0 },
            limit,
            others: 0,
            requested: 0,
            recent: true,
        }
    }

    #[test]
    fn f13_an_idle_run_keeps_its_standing_share() {
        assert_eq!(slots(0, 0).want(), 8);
        assert_eq!(Share { recent: false, ..slots(0, 0) }.want(), 0);
        let permits = Share { kind: LimitKind::Permits, cap: 10, ..slots(0, 4) };
        assert_eq!(permits.want(), 1);
        assert_eq!(Share { cap: 5, ..permits }.want(), 0);
    }

    #[test]
    fn f13_the_reserve_follows_the_rate_of_calls() {
        assert_eq!(slots(20, 0).want(), 21);
        let busy = |starts| Share { usage: Usage { used: 20, waiting: 0, starts }, ..slots(0, 0) };
        assert_eq!(busy(5).want(), 25);
        assert_eq!(busy(50).want(), 29, "at most a share of the cap");
        assert_eq!(slots(20, 30).want(), 30, "kept");
        assert_eq!(slots(20, 31).want(), 21, "given back");
        let permits = Share { kind: LimitKind::Permits, cap: 10, ..slots(3, 3) };
        assert_eq!(permits.want(), 5);
    }

    #[test]
    fn f14_nothing_idle_is_kept_from_runs_that_want_it() {
        assert_eq!(Share { requested: 1, ..slots(20, 30) }.want(), 20);
        assert_eq!(Share { requested: 1, ..slots(0, 8) }.want(), 0);
        let waiting = Usage { used: 20, waiting: 2, starts: 0 };
        assert_eq!(Share { requested: 1, usage: waiting, ..slots(20, 20) }.want(), 22);
    }

    #[test]
    fn a_reserve_is_not_asked_from_others() {
        let full = Share { others: 80, ..slots(20, 20) };
        assert_eq!(full.want(), 20);
        let waiting = Usage { used: 20, waiting: 1, starts: 0 };
        assert_eq!(Share { usage: waiting, ..full }.want(), 21);
    }

    #[test]
    fn no_run_wants_more_than_the_cap() {
        for cap in 0..20 {
            for used in 0..25 {
                for limit in 0..25 {
                    for kind in [LimitKind::Slots, LimitKind::Permits] {
                        let want = Share { kind, cap, ..slots(used, limit) }.want();
                        assert!(want <= cap && (want >= used || used > cap), "{cap} {used} {want}");
                    }
                }
            }
        }
    }
}
