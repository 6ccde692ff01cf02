//! Limits failed sign-ins, of people in the console and of phones.
//!
//! A password that may be guessed can't be checked without limit, so a name that was tried too
//! often has to wait. The wait applies to one name from one origin, so failures from elsewhere
//! delay no one. An origin is a network, or a browser that has signed in with this name before.
//! From such a browser the owner of a name can sign in even if all clients seem to have the same
//! address, as behind a proxy that is not in `listen.trusted_proxies`.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

use model::network_prefix;

use super::{Offenders, Resource};

/// Failed attempts that a name has in reserve, per origin.
const BURST: u32 = 10;
/// The time after which a failed attempt is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);
/// The reserve of a network for names that it has not tried, and the time after which one of its
/// failures is forgotten. Beyond them each name has one attempt, so that trying one password with
/// many names is no faster than many passwords with one name.
const NETWORK_BURST: u32 = 60;
const NETWORK_FORGOTTEN_AFTER: Duration = Duration::from_secs(1);
/// Maximum number of entries of each kind. Beyond it the oldest are dropped.
const REMEMBERED: usize = 20_000;

/// Where an attempt comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A network, by any of its addresses.
    Network(IpAddr),
    /// A browser that has signed in with this name before, and where it is now.
    Browser(Uuid, IpAddr),
}

impl Origin {
    fn address(self) -> IpAddr {
        let (Self::Network(address) | Self::Browser(_, address)) = self;
        network_prefix(address)
    }

    /// Equal for attempts that are limited together.
    fn key(self) -> Result<Uuid, IpAddr> {
        match self {
            Self::Network(_) => Err(self.address()),
            Self::Browser(id, _) => Ok(id),
        }
    }
}

type Key = (String, Result<Uuid, IpAddr>);

/// Recent attempts that failed or are in progress. An attempt counts from its beginning, so that
/// concurrent attempts are limited like sequential ones.
pub struct Failures {
    counts: Mutex<Counts>,
    offenders: Option<Offenders>,
}

/// When the last failure is forgotten, by key. With `n` failures that is `n` periods from now.
#[derive(Default)]
struct Counts {
    of_names: HashMap<Key, Instant>,
    of_networks: HashMap<IpAddr, Instant>,
}

/// An attempt in progress. It counts as failed unless its outcome is reported.
#[must_use = "a dropped attempt counts as failed"]
pub struct Attempt<'a> {
    failures: &'a Failures,
    key: Key,
    network: IpAddr,
}

impl Failures {
    /// `offenders` counts the attempts that are refused.
    pub fn new(offenders: Option<Offenders>) -> Self {
        Self { counts: Mutex::default(), offenders }
    }

    /// Begins an attempt.
    ///
    /// # Errors
    ///
    /// Returns how long to wait before the next attempt with this name.
    pub fn begin(&self, name: &str, from: Origin, now: Instant) -> Result<Attempt<'_>, Duration> {
        let network = from.address();
        let begun = self.try_begin((name.to_owned(), from.key()), network, now);
        if let (Err(_), Some(offenders)) = (&begun, &self.offenders) {
            offenders.record(Resource::SignIns, network);
        }
        begun
    }

    fn try_begin(&self, key: Key, network: IpAddr, now: Instant) -> Result<Attempt<'_>, Duration> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let of_network = *entry(&mut counts.of_networks, &network, now);
        // Loopback is a proxy on this machine that does not say for whom it asks.
        let is_busy = !network.is_loopback()
            && key.1.is_err()
            && of_network > now + NETWORK_FORGOTTEN_AFTER * (NETWORK_BURST - 1);
        let burst = if is_busy { 1 } else { BURST };
        let of_name = entry(&mut counts.of_names, &key, now);
        let latest = now + FORGOTTEN_AFTER * (burst - 1);
        if *of_name > latest {
            return Err(of_name.saturating_duration_since(latest));
        }
        *of_name += FORGOTTEN_AFTER;
        *entry(&mut counts.of_networks, &network, now) += NETWORK_FORGOTTEN_AFTER;
        Ok(Attempt { failures: self, key, network })
    }
}

impl Attempt<'_> {
    /// Reports success, which forgets the failures of this name and origin.
    pub fn succeed(self) {
        self.take_back(true);
    }

    /// Reports that the credentials were not checked.
    pub fn cancel(self) {
        self.take_back(false);
    }

    fn take_back(self, all: bool) {
        let mut counts = self.failures.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(until) = counts.of_networks.get_mut(&self.network) {
            *until = until.checked_sub(NETWORK_FORGOTTEN_AFTER).unwrap_or(*until);
        }
        if all {
            counts.of_names.remove(&self.key);
        } else if let Some(until) = counts.of_names.get_mut(&self.key) {
            *until = until.checked_sub(FORGOTTEN_AFTER).unwrap_or(*until);
        }
    }
}

/// The entry of a key, at least `now`.
fn entry<'a, K: Hash + Eq + Clone>(
    counts: &'a mut HashMap<K, Instant>,
    key: &K,
    now: Instant,
) -> &'a mut Instant {
    if counts.len() >= REMEMBERED && !counts.contains_key(key) {
        counts.retain(|_, until| *until > now);
        if counts.len() >= REMEMBERED
            && let Some(oldest) =
                counts.iter().min_by_key(|(_, until)| **until).map(|(key, _)| key.clone())
        {
            counts.remove(&oldest);
        }
    }
    let until = counts.entry(key.clone()).or_insert(now);
    *until = (*until).max(now);
    until
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Clock;

    fn origins<const N: usize>(texts: [&str; N]) -> [Origin; N] {
        texts.map(|ip| Origin::Network(ip.parse().unwrap()))
    }

    /// How long an attempt would have to wait.
    fn wait(failures: &Failures, name: &str, from: Origin, clock: &Clock) -> Option<Duration> {
        match failures.begin(name, from, clock.now()) {
            Ok(begun) => {
                begun.cancel();
                None
            }
            Err(wait) => Some(wait),
        }
    }

    #[test]
    fn r15_ten_failures_of_one_origin_delay_the_next_by_a_minute() {
        let clock = Clock::stepped(model::Timestamp::default());
        let failures = Failures::new(None);
        let [asha, ravi] = ["asha", "ravi"];
        let [here, beside, there] = origins(["2001:db8::1", "2001:db8::2", "2001:db8:1::1"]);
        let browser = Origin::Browser(Uuid::from_u128(1), [192, 0, 2, 1].into());
        for _ in 0..BURST {
            assert_eq!(wait(&failures, asha, here, &clock), None);
            drop(failures.begin(asha, here, clock.now()));
        }
        assert_eq!(wait(&failures, asha, beside, &clock), Some(FORGOTTEN_AFTER), "same network");
        assert_eq!(wait(&failures, asha, there, &clock), None);
        assert_eq!(wait(&failures, ravi, here, &clock), None);
        assert_eq!(wait(&failures, asha, browser, &clock), None);
        clock.step(FORGOTTEN_AFTER);
        drop(failures.begin(asha, here, clock.now()));
        assert!(wait(&failures, asha, here, &clock).is_some(), "one attempt a minute");
        clock.step(FORGOTTEN_AFTER);
        failures.begin(asha, here, clock.now()).map(Attempt::succeed).unwrap();
        assert!(failures.counts.lock().unwrap().of_names.len() < 4);
        for _ in 0..BURST {
            drop(failures.begin(asha, here, clock.now()));
        }
        assert!(wait(&failures, asha, here, &clock).is_some());
    }

    #[test]
    fn r15_concurrent_attempts_count_like_sequential_ones() {
        let clock = Clock::stepped(model::Timestamp::default());
        let failures = Failures::new(None);
        let [here, there] = origins(["192.0.2.1", "198.51.100.1"]);
        let begun: Vec<_> =
            (0..64).filter_map(|_| failures.begin("asha", here, clock.now()).ok()).collect();
        assert_eq!(begun.len(), 10);
        assert!(wait(&failures, "asha", there, &clock).is_none());
        begun.into_iter().for_each(Attempt::succeed);
        assert!(wait(&failures, "asha", here, &clock).is_none());
    }

    #[test]
    fn r15_a_network_with_many_failures_has_one_attempt_per_name() {
        let clock = Clock::stepped(model::Timestamp::default());
        let failures = Failures::new(None);
        let [here, there, proxy] = origins(["192.0.2.1", "198.51.100.1", "127.0.0.1"]);
        for n in 0..500 {
            for from in [here, proxy] {
                assert!(failures.begin(&format!("name {n}"), from, clock.now()).is_ok(), "{n}");
            }
        }
        assert!(wait(&failures, "name 3", here, &clock).is_some(), "the second attempt");
        assert!(wait(&failures, "name 3", proxy, &clock).is_none());
        assert!(wait(&failures, "name 3", there, &clock).is_none());
        assert!(wait(&failures, "asha", here, &clock).is_none(), "right at the first attempt");
    }
}
