//! Counts refusals by the limits, in a metric and in the log.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use metrics::Counter;
use tokio_util::sync::CancellationToken;

use model::{Clock, metric, network_prefix};

/// Period over which the refusals of a resource are counted before they are logged.
const LOG_EVERY: Duration = Duration::from_secs(60);
/// Interval between checks whether counts are due to be logged.
const CHECK_EVERY: Duration = Duration::from_secs(5);
/// Maximum number of networks that are counted between two log lines. Refusals of further networks
/// appear only in the metric.
const NETWORKS_MAX: usize = 1_000;
/// Maximum number of networks that are logged individually after a period: those with the most
/// refusals.
const NAMED_MAX: usize = 20;

/// The resource that a limit protects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    Connections,
    /// Requests without valid credentials.
    Requests,
    /// Bytes of request bodies that are being read.
    Bodies,
    /// WebSockets of phones.
    Sockets,
    /// Downloads of files by their links.
    Downloads,
    /// Bytes of large responses that authenticated clients have not read.
    Responses,
    /// Sign-ins with a password.
    SignIns,
    /// Requests with wrong API credentials.
    Credentials,
}

impl Resource {
    const ALL: [Self; 8] = [
        Self::Connections,
        Self::Requests,
        Self::Bodies,
        Self::Sockets,
        Self::Downloads,
        Self::Responses,
        Self::SignIns,
        Self::Credentials,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Connections => metric::limited::CONNECTIONS,
            Self::Requests => metric::limited::REQUESTS,
            Self::Bodies => metric::limited::BODIES,
            Self::Sockets => metric::limited::SOCKETS,
            Self::Downloads => metric::limited::DOWNLOADS,
            Self::Responses => metric::limited::RESPONSES,
            Self::SignIns => metric::limited::SIGN_INS,
            Self::Credentials => metric::limited::CREDENTIALS,
        }
    }
}

/// The networks that reached a limit. Clones share the counts.
///
/// The first refusal of a resource is logged at once, and a minute later each network with the
/// number of its refusals in this minute.
#[derive(Clone)]
pub struct Offenders(Arc<Inner>);

struct Inner {
    clock: Clock,
    counts: Vec<(Resource, Counter, Mutex<Counts>)>,
}

/// The refusals of a resource that are not logged yet.
#[derive(Default)]
struct Counts {
    since: Option<Instant>,
    by_network: HashMap<IpAddr, u64>,
}

impl Offenders {
    pub fn new(clock: Clock) -> Self {
        let counter = |resource: Resource| metrics::counter!(metric::LIMITED_TOTAL, "resource" => resource.as_str());
        let counts = Resource::ALL.map(|resource| (resource, counter(resource), Mutex::default()));
        Self(Arc::new(Inner { clock, counts: counts.into() }))
    }

    /// Counts a refusal.
    pub fn record(&self, resource: Resource, from: IpAddr) {
        let Some((_, counter, counts)) = self.0.counts.iter().find(|(of, ..)| *of == resource)
        else {
            return;
        };
        counter.increment(1);
        let (network, now) = (network_prefix(from), self.0.clock.now());
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        log(resource, &counts.take_due(now));
        if counts.add(network, now) {
            log(resource, &[(network, 1)]);
        }
    }

    /// Logs the counts when they are due, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(CHECK_EVERY)).await.is_some() {
            for (resource, _, counts) in &self.0.counts {
                let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
                log(*resource, &counts.take_due(self.0.clock.now()));
            }
        }
    }
}

/// Logs networks with their counts.
fn log(resource: Resource, networks: &[(IpAddr, u64)]) {
    let (named, others) = networks.split_at(networks.len().min(NAMED_MAX));
    let resource = resource.as_str();
    for (network, refused) in named {
        tracing::warn!(resource, %network, refused, "limit reached");
    }
    if !others.is_empty() {
        let refused: u64 = others.iter().map(|(_, refused)| refused).sum();
        tracing::warn!(
            resource,
            networks = others.len(),
            refused,
            "limit reached by further networks"
        );
    }
}

impl Counts {
    /// Counts a refusal. Returns whether it is the first one, which is logged at once.
    fn add(&mut self, network: IpAddr, now: Instant) -> bool {
        if self.by_network.len() < NETWORKS_MAX || self.by_network.contains_key(&network) {
            *self.by_network.entry(network).or_default() += 1;
        }
        self.since.replace(self.since.unwrap_or(now)).is_none()
    }

    /// Takes the counts if they are due, the largest first. A single refusal is left out, because
    /// it was logged at once.
    fn take_due(&mut self, now: Instant) -> Vec<(IpAddr, u64)> {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) < LOG_EVERY) {
            return Vec::new();
        }
        self.since = None;
        let mut counts: Vec<_> = std::mem::take(&mut self.by_network).into_iter().collect();
        if matches!(counts[..], [(_, 1)]) {
            return Vec::new();
        }
        counts.sort_by_key(|(_, refused)| std::cmp::Reverse(*refused));
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_network_of_a_minute_is_logged_with_its_count() {
        let clock = Clock::stepped(model::Timestamp::default());
        let mut counts = Counts::default();
        let [one, other] = [IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2])];
        assert!(counts.add(one, clock.now()), "the first one is logged at once");
        for network in [one, other, other] {
            assert!(!counts.add(network, clock.now()));
        }
        let other_refusals = 3;
        assert!(!counts.add(other, clock.now()));
        assert!(counts.take_due(clock.now()).is_empty(), "not yet");
        clock.step(LOG_EVERY);
        assert_eq!(counts.take_due(clock.now()), [(other, other_refusals), (one, 2)]);
        assert!(counts.take_due(clock.now()).is_empty(), "once");

        // A later burst of another network is not mixed with the earlier ones.
        assert!(counts.add(other, clock.now()));
        clock.step(LOG_EVERY);
        assert!(counts.take_due(clock.now()).is_empty(), "a single refusal has been logged");
        for n in 0..2_000_u32 {
            counts.add(std::net::Ipv4Addr::from_bits(n).into(), clock.now());
        }
        assert!(counts.by_network.len() <= NETWORKS_MAX);
    }
}
