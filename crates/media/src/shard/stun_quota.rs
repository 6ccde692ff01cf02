//! Limits on the STUN requests to a leg. Each authentic one is handled by str0m, which keeps every
//! source for the life of the leg and searches them all, so a peer that floods from many ports would
//! take the time of the other legs of the thread.
//!
//! The peer's checks of the path in use have a limit of their own, so that a flood from elsewhere
//! does not end the call.

use std::time::{Duration, Instant};

/// Maximum number of authentic requests a second over the path in use, and from all other
/// addresses. A full agent sends one every 20 ms while it connects, and copies of some.
const REQUESTS_MAX: u32 = 100;
/// Maximum number of requests a second from new addresses that are not authentic. Strangers who have
/// seen the ufrag can send them, so there may be more of them than a peer may send.
const REFUSED_MAX: u32 = 1_000;
const SECOND: Duration = Duration::from_secs(1);

/// Number of addresses that a peer may use at once: the candidates of its networks.
const SOURCES_MAX: u32 = 32;
/// Time after which a peer may use another address, for a phone that moves between networks during a
/// long call.
const SOURCE_INTERVAL: Duration = Duration::from_secs(60);

/// The source of a request, as its leg knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestSource {
    /// The peer's end of the path in use.
    Path,
    /// Another address that has sent authenticated STUN.
    Known,
    New,
}

/// What may still be sent to a leg.
#[derive(Debug, Default)]
pub(super) struct StunQuota {
    /// Beginning of the second that is counted.
    second: Option<Instant>,
    on_path: u32,
    elsewhere: u32,
    refused: u32,
    /// The time at which the peer's addresses so far would be due, at one per interval.
    sources_due: Option<Instant>,
}

impl StunQuota {
    /// Returns whether another request from this source may be authenticated.
    pub(super) fn has_requests(&mut self, now: Instant, source: RequestSource) -> bool {
        let is_over = |begun: Instant| now.saturating_duration_since(begun) >= SECOND;
        if self.second.is_none_or(is_over) {
            (self.second, self.on_path, self.elsewhere, self.refused) = (Some(now), 0, 0, 0);
        }
        match source {
            RequestSource::Path => self.on_path < REQUESTS_MAX,
            RequestSource::Known => self.elsewhere < REQUESTS_MAX,
            RequestSource::New => {
                self.elsewhere < REQUESTS_MAX && self.refused < REFUSED_MAX && self.has_sources(now)
            }
        }
    }

    /// Counts a request that was authenticated, with the result. A request that is not authentic is
    /// not counted against the addresses of the peer, which strangers can forge.
    pub(super) fn count_request(&mut self, source: RequestSource, is_authentic: bool) {
        let count = match (source, is_authentic) {
            (RequestSource::Path, true) => &mut self.on_path,
            (RequestSource::Known | RequestSource::New, true) => &mut self.elsewhere,
            (RequestSource::New, false) => &mut self.refused,
            (RequestSource::Path | RequestSource::Known, false) => return,
        };
        *count = count.saturating_add(1);
    }

    /// Counts a new address of the peer.
    pub(super) fn count_source(&mut self, now: Instant) {
        self.sources_due = Some(self.sources_due(now) + SOURCE_INTERVAL);
    }

    fn has_sources(&self, now: Instant) -> bool {
        let ahead = self.sources_due(now).saturating_duration_since(now);
        ahead <= SOURCE_INTERVAL * (SOURCES_MAX - 1)
    }

    fn sources_due(&self, now: Instant) -> Instant {
        self.sources_due.map_or(now, |due| due.max(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Clock, Timestamp};

    fn start() -> Instant {
        Clock::stepped(Timestamp::from_secs(1_000)).now()
    }

    /// Sends requests from a source. Returns how many were let through.
    fn send(
        quota: &mut StunQuota,
        (now, count): (Instant, u32),
        source: RequestSource,
        is_authentic: bool,
    ) -> u32 {
        let mut through = 0;
        for _ in 0..count {
            if quota.has_requests(now, source) {
                through += 1;
                quota.count_request(source, is_authentic);
                if is_authentic && source == RequestSource::New {
                    quota.count_source(now);
                }
            }
        }
        through
    }

    #[test]
    fn a_flood_from_elsewhere_leaves_the_path_in_use_its_checks() {
        let (mut quota, now) = (StunQuota::default(), start());
        assert_eq!(send(&mut quota, (now, 500), RequestSource::Known, true), REQUESTS_MAX);
        assert_eq!(send(&mut quota, (now, 500), RequestSource::New, true), 0);
        assert_eq!(send(&mut quota, (now, 50), RequestSource::Path, true), 50);
        assert_eq!(send(&mut quota, (now, 500), RequestSource::Path, true), 50);
        let next = now + SECOND;
        assert_eq!(send(&mut quota, (next, 500), RequestSource::Known, true), REQUESTS_MAX);
    }

    #[test]
    fn strangers_with_the_ufrag_take_nothing_from_known_addresses() {
        let (mut quota, now) = (StunQuota::default(), start());
        assert_eq!(send(&mut quota, (now, 5_000), RequestSource::New, false), REFUSED_MAX);
        assert_eq!(send(&mut quota, (now, 5_000), RequestSource::Path, false), 5_000);
        for source in [RequestSource::Path, RequestSource::Known] {
            assert_eq!(send(&mut quota, (now, 20), source, true), 20);
        }
        let next = now + SECOND;
        assert_eq!(send(&mut quota, (next, 1), RequestSource::New, true), 1);
    }

    #[test]
    fn new_addresses_are_limited_over_the_life_of_a_leg() {
        let (mut quota, now) = (StunQuota::default(), start());
        assert_eq!(send(&mut quota, (now, 99), RequestSource::New, true), SOURCES_MAX);
        let later = now + SECOND;
        assert_eq!(send(&mut quota, (later, 99), RequestSource::New, true), 0);
        assert_eq!(send(&mut quota, (later, 99), RequestSource::Known, true), 99);
        let later = now + 10 * SOURCE_INTERVAL;
        assert_eq!(send(&mut quota, (later, 99), RequestSource::New, true), 10);
    }
}
