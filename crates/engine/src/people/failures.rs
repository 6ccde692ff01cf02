//! Limits failed sign-ins, of people in the console and of phones.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use model::network_prefix;

/// Maximum number of failed attempts per address and name within [`WITHIN`].
const TRIES_MAX: u32 = 10;
const WITHIN: Duration = Duration::from_secs(600);
/// Maximum number of failed attempts per address with any names. Checking a password is too
/// expensive for more.
const NETWORK_MAX: u32 = 60;
const NETWORK_WITHIN: Duration = Duration::from_secs(60);
/// Maximum number of entries of each kind. Beyond it the oldest are dropped.
const REMEMBERED: usize = 20_000;

/// Start of the period and attempts in it.
type Count = (Instant, u32);

/// Recent attempts that failed or are in progress. An attempt counts from its beginning, so that
/// concurrent attempts are limited like sequential ones.
#[derive(Default)]
pub struct Failures(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    of_names: HashMap<(String, IpAddr), Count>,
    of_networks: HashMap<IpAddr, Count>,
}

/// An attempt in progress. It counts as failed unless its outcome is reported.
#[must_use = "a dropped attempt counts as failed"]
pub struct Attempt<'a> {
    failures: &'a Failures,
    name: String,
    network: IpAddr,
}

impl Failures {
    /// Begins an attempt.
    ///
    /// # Errors
    ///
    /// Returns how long the address has to wait before its next attempt.
    pub fn begin(&self, name: &str, from: IpAddr, now: Instant) -> Result<Attempt<'_>, Duration> {
        let (name, network) = (name.to_owned(), network_prefix(from));
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_network = count(&mut counts.of_networks, network, (now, NETWORK_WITHIN));
        left(of_network, NETWORK_MAX, (now, NETWORK_WITHIN))?;
        let of_name = count(&mut counts.of_names, (name.clone(), network), (now, WITHIN));
        left(of_name, TRIES_MAX, (now, WITHIN))?;
        of_name.1 += 1;
        count(&mut counts.of_networks, network, (now, NETWORK_WITHIN)).1 += 1;
        Ok(Attempt { failures: self, name, network })
    }
}

impl Attempt<'_> {
    /// Reports success, which resets the count of this name.
    pub fn succeed(self) {
        self.take_back(|of_name| *of_name = 0);
    }

    /// Cancels the attempt: the credentials were not checked, so it is not a failure.
    pub fn cancel(self) {
        self.take_back(|of_name| *of_name = of_name.saturating_sub(1));
    }

    fn take_back(self, of_name: impl FnOnce(&mut u32)) {
        let mut counts = self.failures.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, tries)) = counts.of_networks.get_mut(&self.network) {
            *tries = tries.saturating_sub(1);
        }
        let key = (self.name, self.network);
        if let Some((_, tries)) = counts.of_names.get_mut(&key) {
            of_name(tries);
            if *tries == 0 {
                counts.of_names.remove(&key);
            }
        }
    }
}

/// The count of a key, reset if its period is over.
fn count<K: Hash + Eq + Clone>(
    counts: &mut HashMap<K, Count>,
    key: K,
    (now, within): (Instant, Duration),
) -> &mut Count {
    let is_over = |since: Instant| now.saturating_duration_since(since) >= within;
    if counts.len() >= REMEMBERED && !counts.contains_key(&key) {
        counts.retain(|_, (since, _)| !is_over(*since));
        if counts.len() >= REMEMBERED
            && let Some(oldest) =
                counts.iter().min_by_key(|(_, (since, _))| *since).map(|(key, _)| key.clone())
        {
            counts.remove(&oldest);
        }
    }
    let count = counts.entry(key).or_insert((now, 0));
    if is_over(count.0) {
        *count = (now, 0);
    }
    count
}

fn left(count: &Count, most: u32, (now, within): (Instant, Duration)) -> Result<(), Duration> {
    match count.1 < most {
        true => Ok(()),
        false => Err(within.saturating_sub(now.saturating_duration_since(count.0))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Clock;

    fn addresses<const N: usize>(texts: [&str; N]) -> [IpAddr; N] {
        texts.map(|ip| ip.parse().unwrap())
    }

    #[test]
    fn r15_ten_failures_of_one_address_lock_the_name_for_ten_minutes() {
        let clock = Clock::stepped(model::Timestamp::default());
        let failures = Failures::default();
        let wait = |name: &str, from: IpAddr| match failures.begin(name, from, clock.now()) {
            Ok(begun) => {
                begun.cancel();
                None
            }
            Err(wait) => Some(wait),
        };
        let [asha, ravi] = ["asha", "ravi"];
        let [here, beside, there] = addresses(["2001:db8::1", "2001:db8::2", "2001:db8:1::1"]);
        for _ in 0..TRIES_MAX {
            assert_eq!(wait(asha, here), None);
            drop(failures.begin(asha, here, clock.now()));
        }
        assert_eq!(wait(asha, beside), Some(WITHIN), "the same network");
        assert_eq!(wait(asha, there), None);
        assert_eq!(wait(ravi, here), None);
        clock.step(WITHIN);
        assert_eq!(wait(asha, here), None, "the period is over");
        let wrong = failures.begin(asha, here, clock.now());
        drop(wrong);
        failures.begin(asha, here, clock.now()).map(Attempt::succeed).unwrap();
        assert!(failures.0.lock().unwrap().of_names.is_empty());
    }

    #[test]
    fn r15_concurrent_attempts_count_like_sequential_ones() {
        let clock = Clock::stepped(model::Timestamp::default());
        let failures = Failures::default();
        let [here, there] = addresses(["192.0.2.1", "198.51.100.1"]);
        let begun: Vec<_> =
            (0..64).filter_map(|_| failures.begin("asha", here, clock.now()).ok()).collect();
        assert_eq!(begun.len(), 10);
        assert!(
            failures.begin("asha", there, clock.now()).is_ok(),
            "other addresses are not affected"
        );
        begun.into_iter().for_each(Attempt::succeed);
        assert!(failures.begin("asha", here, clock.now()).is_ok());
    }

    #[test]
    fn r15_one_address_may_fail_sixty_times_a_minute() {
        let clock = Clock::stepped(model::Timestamp::default());
        let failures = Failures::default();
        let [here, there] = addresses(["192.0.2.1", "198.51.100.1"]);
        for n in 0..NETWORK_MAX {
            assert!(failures.begin(&format!("name {n}"), here, clock.now()).is_ok(), "{n}");
        }
        assert!(matches!(failures.begin("another", here, clock.now()), Err(NETWORK_WITHIN)));
        assert!(failures.begin("another", there, clock.now()).is_ok());
        clock.step(NETWORK_WITHIN);
        assert!(failures.begin("another", here, clock.now()).is_ok());
    }
}
