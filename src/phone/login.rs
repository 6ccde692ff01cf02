//! Who a phone is: its endpoint's name and password, and how often somebody may be wrong about them (R15).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Inner;
use super::message::Trouble;
use crate::config::Secret;
use crate::model::{EndpointName, network_of};
use crate::store::Endpoint;

/// Wrong tries of one address at one name: past it none is taken for the rest of the time.
const TRIES_MAX: u32 = 10;
const WITHIN: Duration = Duration::from_secs(600);
/// Pairs remembered; past it the oldest are forgotten.
const REMEMBERED: usize = 20_000;

/// Wrong tries of late.
#[derive(Default)]
pub(super) struct Failures(Mutex<HashMap<(EndpointName, IpAddr), (Instant, u32)>>);

impl Failures {
    /// How long an address is to wait before it tries that name again, if it is.
    fn wait(&self, name: &EndpointName, from: IpAddr, now: Instant) -> Option<Duration> {
        let tries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, count) = tries.get(&(name.clone(), network_of(from)))?;
        let left = WITHIN.checked_sub(now.saturating_duration_since(*since))?;
        (*count >= TRIES_MAX).then_some(left)
    }

    fn note(&self, name: &EndpointName, from: IpAddr, now: Instant) {
        let mut tries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tries.len() >= REMEMBERED {
            tries.retain(|_, (since, _)| now.saturating_duration_since(*since) < WITHIN);
        }
        if tries.len() >= REMEMBERED
            && let Some(oldest) = tries.iter().min_by_key(|(_, (since, _))| *since).map(|(key, _)| key.clone())
        {
            tries.remove(&oldest);
        }
        let try_of = tries.entry((name.clone(), network_of(from))).or_insert((now, 0));
        if now.saturating_duration_since(try_of.0) >= WITHIN {
            *try_of = (now, 0);
        }
        try_of.1 = try_of.1.saturating_add(1);
    }

    fn forget(&self, name: &EndpointName, from: IpAddr) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&(name.clone(), network_of(from)));
    }
}

/// The endpoint of a name and password. A name that nobody has takes as long as a wrong password, and is one answer with it.
pub(super) async fn endpoint(inner: &Inner, name: &str, password: Secret, from: IpAddr) -> Result<Endpoint, Trouble> {
    const UNAUTHORIZED: Trouble = Trouble::new("unauthorized", "there is no such endpoint, or its password is another");
    // Its address will do as well.
    let name = name.trim();
    let name = name.strip_prefix("sip:").and_then(|address| address.split('@').next()).unwrap_or(name);
    let Ok(name) = EndpointName::parse(name) else { return Err(UNAUTHORIZED) };
    let now = inner.clock.now();
    if let Some(wait) = inner.failures.wait(&name, from, now) {
        let text = format!("too many wrong passwords; try again in {} seconds", wait.as_secs() + 1);
        return Err(Trouble::told("too_many_failures", text));
    }
    let ours = |error: &dyn std::fmt::Display| {
        tracing::warn!(%error, "a phone could not be logged in");
        Trouble::new("unavailable", "something is wrong on this server; try again")
    };
    let found = inner.store.endpoint_named(&name).await.map_err(|e| ours(&e))?;
    let hash = found.as_ref().map(|endpoint| endpoint.password.as_str());
    match inner.passwords.is(password, hash).await {
        Ok(true) => {}
        Ok(false) => {
            inner.failures.note(&name, from, now);
            tracing::info!(endpoint = %name, "a phone came with a wrong name or password");
            return Err(UNAUTHORIZED);
        }
        Err(crate::store::PasswordError::Busy) => {
            return Err(Trouble::new("busy", "too many phones log in at this moment; try again in a second"));
        }
        Err(e @ crate::store::PasswordError::Hash) => return Err(ours(&e)),
    }
    inner.failures.forget(&name, from);
    found.ok_or(UNAUTHORIZED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn r15_ten_wrong_tries_of_one_address_at_one_name_shut_it_for_ten_minutes() {
        let clock = Clock::stepped(crate::model::Timestamp::default());
        let failures = Failures::default();
        let [asha, ravi] = ["asha", "ravi"].map(|name| EndpointName::parse(name).unwrap());
        let [here, there]: [IpAddr; 2] = ["2001:db8::1", "2001:db8:1::1"].map(|ip| ip.parse().unwrap());
        for _ in 0..TRIES_MAX {
            assert_eq!(failures.wait(&asha, here, clock.now()), None);
            failures.note(&asha, here, clock.now());
        }
        let beside: IpAddr = "2001:db8::2".parse().unwrap();
        assert_eq!(failures.wait(&asha, beside, clock.now()), Some(WITHIN), "the same network");
        assert_eq!(failures.wait(&asha, there, clock.now()), None);
        assert_eq!(failures.wait(&ravi, here, clock.now()), None);
        clock.step(WITHIN);
        assert!(failures.wait(&asha, here, clock.now()).is_none_or(|left| left.is_zero()));
        failures.note(&asha, here, clock.now());
        assert_eq!(failures.wait(&asha, here, clock.now()), None, "counted anew");
        failures.forget(&asha, here);
        assert!(failures.0.lock().unwrap().is_empty());
    }
}
