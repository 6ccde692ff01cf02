//! The rate of requests from networks that show no valid credentials, and of the bytes that they send
//! and receive.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use model::{Clock, network_prefix};

use super::{Offenders, Resource};

/// The part of a second that a request takes up: each network has 1,000 requests per second.
const TIME_PER_REQUEST: Duration = Duration::from_millis(1);
/// The time that a network may be ahead of this rate: a burst of 2,000 requests.
const BURST: Duration = Duration::from_secs(2);
/// Minimum number of networks at which those that have sent nothing lately are forgotten.
const NETWORKS_KEPT: usize = 1_024;

/// Counts the requests of each network, and gives back those that turn out to be authenticated.
///
/// Requests are counted when they arrive, because parsing them already costs something. The count
/// is kept as the time up to which a network has used up its rate, so it needs no upkeep.
#[derive(Clone)]
pub struct RequestRates(Arc<Inner>);

struct Inner {
    clock: Clock,
    epoch: Instant,
    /// Where waits are counted.
    offenders: Offenders,
    /// Microseconds after `epoch` up to which each network has used up its rate.
    used_until: DashMap<IpAddr, Arc<AtomicU64>>,
    /// Number of networks at which some are forgotten next.
    forget_at: AtomicUsize,
}

/// The request rate of one network. All its connections share it.
#[derive(Clone)]
pub struct RequestRate {
    of: RequestRates,
    network: IpAddr,
    used_until: Arc<AtomicU64>,
}

impl RequestRates {
    pub fn new(clock: Clock, offenders: Offenders) -> Self {
        let epoch = clock.now();
        let (used_until, forget_at) = (DashMap::new(), AtomicUsize::new(NETWORKS_KEPT));
        Self(Arc::new(Inner { clock, epoch, offenders, used_until, forget_at }))
    }

    /// Returns the rate of the network of `from`.
    pub fn of(&self, from: IpAddr) -> RequestRate {
        let network = network_prefix(from);
        let (networks, forget_at) = (&self.0.used_until, &self.0.forget_at);
        if networks.len() >= forget_at.load(Ordering::Relaxed) {
            let now = self.now();
            // Those without a connection that have used up nothing are as good as unknown.
            networks.retain(|_, used| {
                Arc::strong_count(used) > 1 || used.load(Ordering::Relaxed) > now
            });
            forget_at.store((networks.len() * 2).max(NETWORKS_KEPT), Ordering::Relaxed);
        }
        let used_until = networks.entry(network).or_default().clone();
        RequestRate { of: self.clone(), network, used_until }
    }

    /// Microseconds since `epoch`.
    fn now(&self) -> u64 {
        micros(self.0.clock.now().saturating_duration_since(self.0.epoch))
    }
}

impl RequestRate {
    /// Counts a part of a request, in percent of it.
    pub fn take(&self, percent: usize) {
        let (now, cost) = (self.of.now(), cost(percent));
        let _ = self.used_until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            Some(used.max(now).saturating_add(cost))
        });
    }

    /// Gives back requests that turned out to be authenticated, in percent of one.
    pub fn give_back(&self, percent: usize) {
        let cost = cost(percent);
        let _ = self.used_until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            Some(used.saturating_sub(cost))
        });
    }

    /// Returns how long to wait before the next request is read. `None` if the network is within
    /// its rate.
    pub fn wait(&self) -> Option<Duration> {
        let ahead = self.used_until.load(Ordering::Relaxed).saturating_sub(self.of.now());
        let wait = Duration::from_micros(ahead).checked_sub(BURST)?;
        (!wait.is_zero()).then_some(wait)
    }

    /// Counts that a client has to wait.
    pub fn record_wait(&self) {
        self.of.0.offenders.record(Resource::Requests, self.network);
    }
}

fn cost(percent: usize) -> u64 {
    u64::try_from(percent).unwrap_or(u64::MAX).saturating_mul(micros(TIME_PER_REQUEST)) / 100
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r10_a_network_waits_after_a_burst_unless_its_requests_are_authenticated() {
        let clock = Clock::stepped(model::Timestamp::default());
        let rates = RequestRates::new(clock.clone(), Offenders::new(clock.clone()));
        let [one, same, other] = [[192, 0, 2, 1], [192, 0, 2, 1], [192, 0, 2, 2]]
            .map(|address| rates.of(IpAddr::from(address)));
        clock.step(Duration::from_secs(60));
        (0..2_000).for_each(|_| one.take(100));
        assert_eq!(one.wait(), None);
        (0..500).for_each(|_| same.take(100));
        assert_eq!(one.wait(), Some(Duration::from_millis(500)));
        assert_eq!(other.wait(), None);
        one.give_back(40_000);
        assert_eq!(same.wait(), Some(Duration::from_millis(100)));
        clock.step(Duration::from_millis(100));
        assert_eq!(same.wait(), None);
    }

    #[test]
    fn forgets_networks_that_have_sent_nothing_lately() {
        let clock = Clock::stepped(model::Timestamp::default());
        let rates = RequestRates::new(clock.clone(), Offenders::new(clock.clone()));
        let connected = rates.of([192, 0, 2, 1].into());
        let over = IpAddr::from([192, 0, 2, 2]);
        (0..4_000).for_each(|_| rates.of(over).take(100));
        for n in 0..5_000_u32 {
            rates.of(std::net::Ipv4Addr::from_bits(n).into());
        }
        assert!(rates.0.used_until.len() <= NETWORKS_KEPT, "{}", rates.0.used_until.len());
        connected.take(100);
        assert!(rates.of(over).wait().is_some());
        assert_eq!(rates.of(connected.network).used_until.load(Ordering::Relaxed), 1_000);
    }
}
