//! How often somebody may be wrong about a name and its password (R15): of the console's people and of phones.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use model::network_prefix;

/// Wrong tries of one address at one name: past it none is taken for the rest of the time.
const TRIES_MAX: u32 = 10;
const WITHIN: Duration = Duration::from_secs(600);
/// Wrong tries of one address at any names (R15): a password costs too much to look at for more.
const NETWORK_MAX: u32 = 60;
const NETWORK_WITHIN: Duration = Duration::from_secs(60);
/// Entries remembered of each kind; past it the oldest are forgotten.
const REMEMBERED: usize = 20_000;

/// Since when, and how many.
type Count = (Instant, u32);

/// Tries of late that were wrong, or may be yet: one counts from its beginning, so that many at a time are no more than one
/// after the other.
#[derive(Default)]
pub struct Failures(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    of_names: HashMap<(String, IpAddr), Count>,
    of_networks: HashMap<IpAddr, Count>,
}

/// A try that has begun, and is a wrong one unless it is told otherwise.
#[must_use = "it counts as a wrong one"]
pub struct Try<'a> {
    failures: &'a Failures,
    name: String,
    network: IpAddr,
}

impl Failures {
    /// Begins a try.
    ///
    /// # Errors
    /// How long the address is to wait before it tries that name, or any, again.
    pub fn begin(&self, name: &str, from: IpAddr, now: Instant) -> Result<Try<'_>, Duration> {
        let (name, network) = (name.to_owned(), network_prefix(from));
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_network = count(&mut counts.of_networks, network, (now, NETWORK_WITHIN));
        left(of_network, NETWORK_MAX, (now, NETWORK_WITHIN))?;
        let of_name = count(&mut counts.of_names, (name.clone(), network), (now, WITHIN));
        left(of_name, TRIES_MAX, (now, WITHIN))?;
        of_name.1 += 1;
        count(&mut counts.of_networks, network, (now, NETWORK_WITHIN)).1 += 1;
        Ok(Try { failures: self, name, network })
    }
}

impl Try<'_> {
    /// They were right: what was wrong of them before counts no more.
    pub fn right(self) {
        self.take_back(|of_name| *of_name = 0);
    }

    /// Nobody looked whether they were.
    pub fn untried(self) {
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

/// A key's count; anew where it is from too long ago.
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
    fn r15_ten_wrong_tries_of_one_address_at_one_name_shut_it_for_ten_minutes() {
        let clock = Clock::stepped(model::Timestamp::default());
        let failures = Failures::default();
        let wait = |name: &str, from: IpAddr| match failures.begin(name, from, clock.now()) {
            Ok(begun) => {
                begun.untried();
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
        assert_eq!(wait(asha, here), None, "counted anew");
        let wrong = failures.begin(asha, here, clock.now());
        drop(wrong);
        failures.begin(asha, here, clock.now()).map(Try::right).unwrap();
        assert!(failures.0.lock().unwrap().of_names.is_empty());
    }

    #[test]
    fn r15_tries_at_a_time_count_like_tries_one_after_the_other() {
        let clock = Clock::stepped(model::Timestamp::default());
        let failures = Failures::default();
        let [here, there] = addresses(["192.0.2.1", "198.51.100.1"]);
        let begun: Vec<_> =
            (0..64).filter_map(|_| failures.begin("asha", here, clock.now()).ok()).collect();
        assert_eq!(begun.len(), 10);
        assert!(
            failures.begin("asha", there, clock.now()).is_ok(),
            "nobody waits for a stranger's mistakes"
        );
        begun.into_iter().for_each(Try::right);
        assert!(failures.begin("asha", here, clock.now()).is_ok());
    }

    #[test]
    fn r15_one_address_is_wrong_sixty_times_a_minute_at_whatever_names() {
        let clock = Clock::stepped(model::Timestamp::default());
        let failures = Failures::default();
        let [here, there] = addresses(["192.0.2.1", "198.51.100.1"]);
        for n in 0..NETWORK_MAX {
            assert!(failures.begin(&format!("name {n}"), here, clock.now()).is_ok(), "{n}");
        }
        assert!(matches!(failures.begin("one more", here, clock.now()), Err(NETWORK_WITHIN)));
        assert!(failures.begin("one more", there, clock.now()).is_ok());
        clock.step(NETWORK_WITHIN);
        assert!(failures.begin("one more", here, clock.now()).is_ok());
    }
}
