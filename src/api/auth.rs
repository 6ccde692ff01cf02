//! Who asks (R15): HTTP Basic for the Plivo-compatible API, `X-API-Key` for ours.
//!
//! Secrets are kept as SHA-256 digests and compared in constant time; an unknown id is compared too, so that it takes
//! as long as a wrong secret and gets the same answer. Failures are limited by address, successes by account (L21).

use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dashmap::DashMap;
use governor::clock::{Clock as _, DefaultClock};
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use http::{HeaderMap, header};
use subtle::{Choice, ConstantTimeEq as _};
use uuid::Uuid;

use crate::admission::Ring;
use crate::admission::settings::AccountSettings;
use crate::people::{KeyHolder, Person};
use model::{AuthId, network_prefix};
use model::{Role, Secret};
use store::Scope;

type Digest = [u8; 32];

fn sha256(text: &str) -> Digest {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    out
}

/// The accounts' credentials in force; clones share them.
#[derive(Clone)]
pub struct Accounts(Arc<ArcSwap<Credentials>>);

/// Credentials, as digests.
#[derive(Default)]
struct Credentials {
    tokens: Vec<(AuthId, Digest)>,
    keys: Vec<(Digest, AuthId, Role)>,
}

/// Somebody who proved who they are, with an API key or a session.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) scope: Scope,
    /// What they may do.
    pub(super) role: Role,
    /// The person, where it is one.
    pub(super) user: Option<Uuid>,
    /// Their own WhatsApp number, where it is known: whose sandbox it is.
    pub(super) wa_id: Option<String>,
}

impl Member {
    /// Somebody who is signed in.
    pub(super) fn person(person: &Person) -> Self {
        let user = &person.user;
        Self {
            scope: person.scope(),
            role: user.role,
            user: Some(user.id),
            wa_id: user.wa_id.clone(),
        }
    }

    /// Somebody with a key that was made here.
    pub(super) fn holder(key: KeyHolder) -> Self {
        Self { scope: Scope::of(key.account), role: key.role, user: None, wa_id: key.wa_id }
    }
}

impl Accounts {
    /// The configured ones.
    pub fn new(accounts: &[AccountSettings]) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(Credentials::of(accounts))))
    }

    /// Puts others in force, for the next request on.
    pub fn replace(&self, accounts: &[AccountSettings]) {
        self.0.store(Arc::new(Credentials::of(accounts)));
    }

    /// The account of an `Authorization: Basic` header.
    pub(super) fn basic(&self, headers: &HeaderMap) -> Option<AuthId> {
        self.0.load().basic(headers)
    }

    /// The account and role of an `X-API-Key` header.
    pub(super) fn key(&self, headers: &HeaderMap) -> Option<Member> {
        self.0.load().key(headers)
    }
}

impl Credentials {
    fn of(accounts: &[AccountSettings]) -> Self {
        let sum = |secret: &Secret| sha256(secret.reveal());
        let mut made = Self::default();
        for account in accounts {
            for token in std::iter::once(&account.auth_token).chain(&account.auth_token_previous) {
                made.tokens.push((account.auth_id.clone(), sum(token)));
            }
            made.keys.extend(
                account.api_keys.iter().map(|k| (sum(&k.key), account.auth_id.clone(), k.role)),
            );
        }
        made
    }

    fn basic(&self, headers: &HeaderMap) -> Option<AuthId> {
        let given = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, encoded) = given.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
        let (id, token) = decoded.split_once(':')?;
        let given = sha256(token);
        let nobody = [0; 32];
        let mut found = Choice::from(0);
        let own =
            self.tokens.iter().filter(|(known, _)| known.as_str() == id).map(|(_, digest)| digest);
        for digest in own.chain([&nobody]) {
            found |= digest.ct_eq(&given);
        }
        bool::from(found).then(|| id.into())
    }

    fn key(&self, headers: &HeaderMap) -> Option<Member> {
        let given = sha256(headers.get("x-api-key")?.to_str().ok()?);
        let mut found = None;
        for (digest, account, role) in &self.keys {
            if bool::from(digest.ct_eq(&given)) {
                found = Some(Member {
                    scope: Scope::of(account.clone()),
                    role: *role,
                    user: None,
                    wa_id: None,
                });
            }
        }
        found
    }
}

/// Failures a minute from one address (R15).
const FAILURES: NonZeroU32 = NonZeroU32::new(60).expect("not 0");
/// Requests of one account in any window of [`WINDOW`] (L21).
const REQUESTS: u32 = 300;
/// As many of a ring's seconds.
const WINDOW: u32 = 5;
/// Addresses remembered at most.
const KEYS_MAX: usize = 100_000;

/// Where many addresses are remembered, they are looked through for stale ones at each so many failures: that takes
/// a millisecond, and somebody with a /48 has 65,536 of them.
const SWEEP_EVERY: u32 = 1_024;

/// Limits what may be tried.
pub(super) struct Guard {
    failures: Keyed<IpAddr>,
    /// Zero of the rings' times.
    origin: Instant,
    /// Of accounts that there are: as many as those at most. A ring counts calls of a second; its times are fifths here.
    requests: DashMap<AuthId, Ring>,
}

/// A limiter by key, of a bounded number of keys.
struct Keyed<K: Hash + Eq + Clone> {
    limiter: RateLimiter<K, HashMapStateStore<K>, DefaultClock>,
    asked: AtomicU32,
}

/// Why somebody is not answered; each API says it in its own shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// 401.
    Unknown,
    /// 429, with seconds for `Retry-After`.
    Wait { why: &'static str, seconds: u64 },
}

impl Guard {
    /// Nobody has asked yet; `origin` is any moment before the first request.
    pub(super) fn new(origin: Instant) -> Self {
        #[allow(clippy::expect_used, reason = "of constants")]
        let failures =
            Quota::with_period(Duration::from_secs(60) / FAILURES.get()).expect("a period above 0");
        let failures = failures.allow_burst(FAILURES);
        Self { failures: Keyed::new(failures), origin, requests: DashMap::new() }
    }

    /// Notes a failed authentication, and what to answer.
    pub(super) fn failed(&self, from: IpAddr) -> Denied {
        let wait = self.failures.spend(network_prefix(from));
        wait.map_or(Denied::Unknown, |wait| Denied::wait("too many failed authentications", wait))
    }

    /// Notes an account's request.
    ///
    /// # Errors
    /// It asks too often.
    pub(super) fn asked(&self, now: Instant, account: &AuthId) -> Result<(), Denied> {
        let since = now.saturating_duration_since(self.origin) / WINDOW;
        let since = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        let ask = |ring: &Ring| {
            let wait = || Duration::from_nanos(ring.room_at(since).saturating_sub(since)) * WINDOW;
            ring.take(since)
                .map(drop)
                .ok_or_else(|| Denied::wait("more than 300 requests in 5 seconds", wait()))
        };
        if let Some(ring) = self.requests.get(account) {
            return ask(&ring);
        }
        ask(&self.requests.entry(account.clone()).or_insert_with(|| Ring::new(REQUESTS)))
    }
}

impl Denied {
    fn wait(why: &'static str, wait: Duration) -> Self {
        Self::Wait { why, seconds: wait.as_secs() + 1 }
    }
}

impl<K: Hash + Eq + Clone> Keyed<K> {
    fn new(quota: Quota) -> Self {
        Self { limiter: RateLimiter::hashmap(quota), asked: AtomicU32::new(0) }
    }

    /// Takes one of a key's; how long to wait if there is none.
    fn spend(&self, key: K) -> Option<Duration> {
        let sweep = self.asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(SWEEP_EVERY);
        if sweep && self.limiter.len() > KEYS_MAX / 2 {
            self.limiter.retain_recent();
        }
        if self.limiter.len() > KEYS_MAX {
            return Some(Duration::from_secs(1));
        }
        self.limiter
            .check_key(&key)
            .err()
            .map(|until| until.wait_time_from(DefaultClock::default().now()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderMap, HeaderValue};

    use super::{Accounts, Denied, Guard, Role, STANDARD, network_prefix};
    use crate::admission::settings::{AccountSettings, ApiKey};
    use base64::Engine as _;
    use model::Secret;

    const ID: &str = "MAXXXXXXXXXXXXXXXXXX";

    fn accounts() -> Accounts {
        let key = |key: &str, role| ApiKey { key: Secret::new(key), role };
        Accounts::new(&[AccountSettings {
            auth_id: ID.into(),
            auth_token: Secret::new("now:with colon"),
            auth_token_previous: Some(Secret::new("before")),
            cps: None,
            api_keys: vec![key("one", Role::Owner), key("two", Role::Agent)],
            parent: None,
        }])
    }

    fn header(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_str(value).unwrap());
        headers
    }

    #[test]
    fn r15_basic_takes_both_tokens_and_nothing_else() {
        let accounts = accounts();
        let encoded = |text: &str| STANDARD.encode(text);
        let cases = [
            (format!("Basic {}", encoded("MAXXXXXXXXXXXXXXXXXX:now:with colon")), true),
            (format!("bAsIc {}", encoded("MAXXXXXXXXXXXXXXXXXX:before")), true),
            (format!("Basic {}", encoded("MAXXXXXXXXXXXXXXXXXX:wrong")), false),
            (format!("Basic {}", encoded("MAXXXXXXXXXXXXXXXXXX:")), false),
            (format!("Basic {}", encoded("MAYYYYYYYYYYYYYYYYYY:before")), false),
            (format!("Basic {}", encoded("maxxxxxxxxxxxxxxxxxx:before")), false),
            (format!("Basic {}", encoded("no colon")), false),
            (format!("Bearer {}", encoded("MAXXXXXXXXXXXXXXXXXX:before")), false),
            ("Basic ???".to_owned(), false),
            ("Basic".to_owned(), false),
        ];
        for (value, taken) in cases {
            assert_eq!(
                accounts.basic(&header("authorization", &value)).is_some(),
                taken,
                "{value}"
            );
        }
        assert!(accounts.basic(&HeaderMap::new()).is_none());
    }

    #[test]
    fn r15_keys_have_an_account_and_a_role() {
        let accounts = accounts();
        let role = |key: &str| {
            accounts.key(&header("x-api-key", key)).map(|m| (m.scope.auth_id().to_string(), m.role))
        };
        assert_eq!(role("one"), Some((ID.to_owned(), Role::Owner)));
        assert_eq!(role("two"), Some((ID.to_owned(), Role::Agent)));
        assert_eq!((role("three"), role("")), (None, None));
    }

    #[test]
    fn l21_an_account_asks_300_times_in_5_seconds() {
        let clock = model::Clock::stepped(Default::default());
        let guard = Guard::new(clock.now());
        let asked = || guard.asked(clock.now(), &ID.into());
        for n in 0..300 {
            assert_eq!(asked(), Ok(()), "{n}");
            clock.step(Duration::from_millis(16));
        }
        assert_eq!(
            asked(),
            Err(Denied::Wait { why: "more than 300 requests in 5 seconds", seconds: 1 })
        );
        assert!(guard.asked(clock.now(), &"MAYYYYYYYYYYYYYYYYYY".into()).is_ok());
        clock.step(Duration::from_millis(200));
        assert_eq!(asked(), Ok(()), "the first is five seconds old");
        assert!(asked().is_err(), "the second is not");
    }

    #[test]
    fn r15_failures_are_limited_by_address() {
        let guard = Guard::new(model::Clock::real().now());
        let ip = |text: &str| text.parse::<std::net::IpAddr>().unwrap();
        let refused =
            (0..70).filter(|_| guard.failed(ip("203.0.113.1")) != Denied::Unknown).count();
        assert!((9..=10).contains(&refused), "{refused}");
        assert_eq!(guard.failed(ip("203.0.113.2")), Denied::Unknown, "another address is another");
        // A flood from many networks costs each of them little, and remembers a bounded number.
        let begun = model::Clock::real();
        let at = begun.now();
        for n in 0..150_000u128 {
            guard.failed(std::net::Ipv6Addr::from_bits((0x2001_0db9 << 96) + (n << 64)).into());
        }
        assert!(
            guard.failures.limiter.len() <= super::KEYS_MAX + 1,
            "{}",
            guard.failures.limiter.len()
        );
        assert!(begun.now() - at < std::time::Duration::from_secs(20));
        assert_eq!(network_prefix(ip("2001:db8::1:2")), network_prefix(ip("2001:db8::ffff:1")));
        assert_ne!(network_prefix(ip("2001:db8:0:1::1")), network_prefix(ip("2001:db8::1")));
        assert_eq!(network_prefix(ip("::ffff:203.0.113.1")), ip("203.0.113.1"));
    }
}
