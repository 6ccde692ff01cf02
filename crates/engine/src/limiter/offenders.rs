//! Counts what the limits refuse, in a metric and in the log.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use metrics::Counter;

use model::{Clock, metric, network_prefix};

/// The shortest time between two log lines about a resource.
const LOG_EVERY: Duration = Duration::from_secs(60);
/// The most networks that are counted between two log lines. Further ones are only in the metric.
const NETWORKS_MAX: usize = 1_000;

/// What a limit protects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    Connections,
    /// Bytes of request bodies that are being read.
    Bodies,
    /// WebSockets of phones.
    Sockets,
    /// Sign-ins with a password.
    SignIns,
    /// Requests with wrong API credentials.
    Credentials,
}

impl Resource {
    const ALL: [Self; 5] =
        [Self::Connections, Self::Bodies, Self::Sockets, Self::SignIns, Self::Credentials];

    fn as_str(self) -> &'static str {
        match self {
            Self::Connections => metric::limited::CONNECTIONS,
            Self::Bodies => metric::limited::BODIES,
            Self::Sockets => metric::limited::SOCKETS,
            Self::SignIns => metric::limited::SIGN_INS,
            Self::Credentials => metric::limited::CREDENTIALS,
        }
    }
}

/// The networks that reached a limit. Clones share the counts.
///
/// The first refusal of a resource is logged at once, the following ones once a minute, each time
/// with the network that caused most of them.
#[derive(Clone)]
pub struct Offenders(Arc<Inner>);

struct Inner {
    clock: Clock,
    counts: Vec<(Resource, Counter, Mutex<Counts>)>,
}

#[derive(Default)]
struct Counts {
    logged: Option<Instant>,
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
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((network, refused)) = counts.add(network_prefix(from), self.0.clock.now()) {
            let resource = resource.as_str();
            tracing::warn!(resource, %network, refused, "limit reached");
        }
    }
}

impl Counts {
    /// Counts a refusal. Returns the network to log and its count, once every [`LOG_EVERY`].
    fn add(&mut self, network: IpAddr, now: Instant) -> Option<(IpAddr, u64)> {
        if self.by_network.len() < NETWORKS_MAX || self.by_network.contains_key(&network) {
            *self.by_network.entry(network).or_default() += 1;
        }
        if self.logged.is_some_and(|at| now.saturating_duration_since(at) < LOG_EVERY) {
            return None;
        }
        self.logged = Some(now);
        let counts = std::mem::take(&mut self.by_network);
        counts.into_iter().max_by_key(|(_, refused)| *refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_the_worst_network_once_a_minute() {
        let clock = Clock::stepped(model::Timestamp::default());
        let mut counts = Counts::default();
        let [one, other] = [IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2])];
        assert_eq!(counts.add(one, clock.now()), Some((one, 1)));
        for network in [one, other, other] {
            assert_eq!(counts.add(network, clock.now()), None);
        }
        clock.step(LOG_EVERY);
        assert_eq!(counts.add(other, clock.now()), Some((other, 3)));
        assert_eq!(counts.add(one, clock.now()), None, "counts again from 0");
        for n in 0..2_000_u32 {
            counts.add(std::net::Ipv4Addr::from_bits(n).into(), clock.now());
        }
        assert!(counts.by_network.len() <= NETWORKS_MAX);
    }
}
