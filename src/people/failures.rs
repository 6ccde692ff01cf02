//! How often somebody may be wrong about a name and its password (R15): of the console's people and of phones.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::model::network_of;

/// Wrong tries of one address at one name: past it none is taken for the rest of the time.
const TRIES_MAX: u32 = 10;
const WITHIN: Duration = Duration::from_secs(600);
/// Pairs remembered; past it the oldest are forgotten.
const REMEMBERED: usize = 20_000;

/// Wrong tries of late, by name and network.
#[derive(Default)]
pub struct Failures(Mutex<HashMap<(String, IpAddr), (Instant, u32)>>);

impl Failures {
    /// How long an address is to wait before it tries that name again, if it is.
    pub fn wait(&self, name: &str, from: IpAddr, now: Instant) -> Option<Duration> {
        let tries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, count) = tries.get(&(name.to_owned(), network_of(from)))?;
        let left = WITHIN.checked_sub(now.saturating_duration_since(*since))?;
        (*count >= TRIES_MAX).then_some(left)
    }

    /// Notes a wrong one.
    pub fn note(&self, name: &str, from: IpAddr, now: Instant) {
        let mut tries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tries.len() >= REMEMBERED {
            tries.retain(|_, (since, _)| now.saturating_duration_since(*since) < WITHIN);
        }
        if tries.len() >= REMEMBERED
            && let Some(oldest) = tries.iter().min_by_key(|(_, (since, _))| *since).map(|(key, _)| key.clone())
        {
            tries.remove(&oldest);
        }
        let try_of = tries.entry((name.to_owned(), network_of(from))).or_insert((now, 0));
        if now.saturating_duration_since(try_of.0) >= WITHIN {
            *try_of = (now, 0);
        }
        try_of.1 = try_of.1.saturating_add(1);
    }

    /// They were right: what was wrong before counts no more.
    pub fn forget(&self, name: &str, from: IpAddr) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&(name.to_owned(), network_of(from)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn r15_ten_wrong_tries_of_one_address_at_one_name_shut_it_for_ten_minutes() {
        let clock = Clock::stepped(crate::model::Timestamp::default());
        let failures = Failures::default();
        let [asha, ravi] = ["asha", "ravi"];
        let [here, there]: [IpAddr; 2] = ["2001:db8::1", "2001:db8:1::1"].map(|ip| ip.parse().unwrap());
        for _ in 0..TRIES_MAX {
            assert_eq!(failures.wait(asha, here, clock.now()), None);
            failures.note(asha, here, clock.now());
        }
        let beside: IpAddr = "2001:db8::2".parse().unwrap();
        assert_eq!(failures.wait(asha, beside, clock.now()), Some(WITHIN), "the same network");
        assert_eq!(failures.wait(asha, there, clock.now()), None);
        assert_eq!(failures.wait(ravi, here, clock.now()), None);
        clock.step(WITHIN);
        assert!(failures.wait(asha, here, clock.now()).is_none_or(|left| left.is_zero()));
        failures.note(asha, here, clock.now());
        assert_eq!(failures.wait(asha, here, clock.now()), None, "counted anew");
        failures.forget(asha, here);
        assert!(failures.0.lock().unwrap().is_empty());
    }
}
