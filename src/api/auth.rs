//! Authentication and rate limits: HTTP Basic for the Plivo-compatible API, `X-API-Key` for the
//! number API. See `docs/reference/reliability.md#r15`.
//!
//! Secrets are kept as SHA-256 digests and compared in constant time. An unknown id takes as long
//! as a wrong secret and gets the same response. Failed authentications are limited per network,
//! requests per account (`docs/reference/limits.md#l21`).

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
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
use serde::{Deserialize, Serialize};
use subtle::{Choice, ConstantTimeEq as _};
use uuid::Uuid;

use super::audit::Actor;
use engine::admission::Ring;
use engine::admission::book::AccountCredentials;
use engine::limiter::{Offenders, Resource};
use engine::people::{KeyHolder, Person};
use model::{AuthId, network_prefix};
use model::{Role, Secret};
use store::Scope;

type Digest = [u8; 32];

fn sha256(text: &str) -> Digest {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    out
}

/// The accepted credentials. Clones share them.
#[derive(Clone)]
pub struct Credentials(Arc<ArcSwap<Digests>>);

#[derive(Default)]
struct Digests {
    tokens: Vec<(AuthId, Digest)>,
    /// The keys. The last field is the name in the audit trail.
    keys: Vec<(Digest, AuthId, Role, String)>,
}

/// The sender of a request of the number API: the holder of an API key, or a person with a session.
#[derive(Clone, Debug)]
pub(super) struct Principal {
    pub(super) scope: Scope,
    pub(super) role: Role,
    /// The id of the person; `None` for an API key.
    pub(super) user: Option<Uuid>,
    /// The principal's own WhatsApp number, if it is known. Changes to sandbox numbers apply to it.
    pub(super) wa_id: Option<String>,
    /// The principal in the audit trail.
    pub(super) actor: Actor,
}

impl Principal {
    pub(super) fn from_person(person: &Person, from: IpAddr) -> Self {
        let user = &person.user;
        Self {
            scope: person.scope(),
            role: user.role,
            user: Some(user.id),
            wa_id: user.wa_id.clone(),
            actor: Actor::of_user(user, from),
        }
    }

    /// The holder of an API key that was created over the API.
    pub(super) fn from_key(key: KeyHolder, from: IpAddr) -> Self {
        let actor = Actor { name: format!("api-key:{}", key.id), from };
        Self { scope: Scope::of(key.account), role: key.role, user: None, wa_id: key.wa_id, actor }
    }
}

impl Credentials {
    pub fn new(accounts: &[AccountCredentials]) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(Digests::of(accounts))))
    }

    /// Replaces the credentials, from the next request on.
    pub fn replace(&self, accounts: &[AccountCredentials]) {
        self.0.store(Arc::new(Digests::of(accounts)));
    }

    /// The account of an `Authorization: Basic` header.
    pub(super) fn basic(&self, headers: &HeaderMap) -> Option<AuthId> {
        self.0.load().basic(headers)
    }

    /// The principal of an `X-API-Key` header.
    pub(super) fn api_key(&self, headers: &HeaderMap, from: IpAddr) -> Option<Principal> {
        self.0.load().api_key(headers, from)
    }
}

/// The API key of a request. `None` if there are several: a proxy in front of the node may have
/// checked another one than this node would.
pub(super) fn given_api_key(headers: &HeaderMap) -> Option<&str> {
    let mut keys = headers.get_all("x-api-key").iter();
    let (key, None) = (keys.next()?, keys.next()) else { return None };
    key.to_str().ok()
}

impl Digests {
    fn of(accounts: &[AccountCredentials]) -> Self {
        let sum = |secret: &Secret| sha256(secret.reveal());
        let mut digests = Self::default();
        for account in accounts {
            for token in &account.tokens {
                digests.tokens.push((account.auth_id.clone(), sum(token)));
            }
            for (key, place) in account.api_keys.iter().zip(1..) {
                let name = key.name.clone().unwrap_or_else(|| u32::to_string(&place));
                let name = format!("api-key:configuration/{name}");
                digests.keys.push((sum(&key.key), account.auth_id.clone(), key.role, name));
            }
        }
        digests
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
        // Compared even if the id is unknown.
        let no_digest = [0; 32];
        let mut found = Choice::from(0);
        let own =
            self.tokens.iter().filter(|(known, _)| known.as_str() == id).map(|(_, digest)| digest);
        for digest in own.chain([&no_digest]) {
            found |= digest.ct_eq(&given);
        }
        bool::from(found).then(|| id.into())
    }

    fn api_key(&self, headers: &HeaderMap, from: IpAddr) -> Option<Principal> {
        let given = sha256(given_api_key(headers)?);
        let mut found = None;
        for (digest, account, role, name) in &self.keys {
            if bool::from(digest.ct_eq(&given)) {
                found = Some(Principal {
                    scope: Scope::of(account.clone()),
                    role: *role,
                    user: None,
                    wa_id: None,
                    actor: Actor { name: name.clone(), from },
                });
            }
        }
        found
    }
}

/// Maximum number of failed authentications per minute and network.
const FAILURES_PER_MINUTE: NonZeroU32 = NonZeroU32::new(60).expect("not 0");
/// Samples of voices per minute and actor.
const SAMPLES_PER_MINUTE: NonZeroU32 = NonZeroU32::new(20).expect("not 0");
/// Rate limits for forms and for pages of a user in the console, as for the requests of an account.
const FORMS_PER_SECOND: NonZeroU32 = NonZeroU32::new(REQUESTS / WINDOW_SECS).expect("not 0");
const FORMS_AT_ONCE: NonZeroU32 = NonZeroU32::new(REQUESTS).expect("not 0");
/// Maximum number of requests of an account in any [`WINDOW_SECS`].
const REQUESTS: u32 = 300;
const WINDOW_SECS: u32 = 5;
/// Rate limit for the requests of all subaccounts of a main account together, since an account can
/// create many.
const OF_SUBACCOUNTS_PER_SECOND: NonZeroU32 = NonZeroU32::new(300).expect("not 0");
const OF_SUBACCOUNTS_AT_ONCE: NonZeroU32 = NonZeroU32::new(1_500).expect("not 0");
/// Maximum number of networks that are remembered.
const KEYS_MAX: usize = 100_000;

/// Number of failures between sweeps for stale networks, once many are remembered. A sweep takes a
/// millisecond, and a client with a /48 can fail from 65,536 networks.
const SWEEP_EVERY: u32 = 1_024;

/// The rate limits of the APIs.
pub(super) struct RateLimits {
    /// Counts refused failures.
    offenders: Option<Offenders>,
    failures: KeyedLimiter<IpAddr>,
    /// Samples of voices by actor.
    samples: KeyedLimiter<String>,
    /// Forms of the console by user.
    forms: KeyedLimiter<Uuid>,
    /// Pages of the console by user.
    pages: KeyedLimiter<Uuid>,
    /// Requests of all subaccounts of a main account together.
    of_subaccounts: KeyedLimiter<AuthId>,
    /// The instant from which the times in `requests` count.
    origin: Instant,
    /// The latest requests of each account. A [`Ring`] limits events per second, so its times are
    /// divided by [`WINDOW_SECS`] here.
    requests: DashMap<AuthId, Ring>,
    /// Changes since they were last taken for the other nodes of the fleet. Unset outside a fleet.
    changes: OnceLock<Mutex<Counted>>,
}

#[derive(Default)]
struct Counted {
    requests: HashMap<AuthId, u32>,
    failures: HashMap<IpAddr, u32>,
}

/// Requests and failed authentications at one node, which count towards the limits of the other
/// nodes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RateChanges {
    requests: Vec<(AuthId, u32)>,
    failures: Vec<(IpAddr, u32)>,
}

impl RateChanges {
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.failures.is_empty()
    }
}

/// Maximum number of accounts and of networks in [`RateChanges`].
const CHANGES_MAX: usize = 5_000;

/// A rate limiter with a bounded number of keys.
struct KeyedLimiter<K: Hash + Eq + Clone> {
    limiter: RateLimiter<K, HashMapStateStore<K>, DefaultClock>,
    spent: AtomicU32,
}

/// The reason why a request is refused before it is dispatched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AuthError {
    InvalidCredentials,
    /// The limit is exceeded. `retry_after` is in seconds.
    RateLimited {
        message: &'static str,
        retry_after: u64,
    },
}

impl RateLimits {
    /// Limits without any requests so far; `origin` is a time before the first request.
    pub(super) fn new(origin: Instant, offenders: Option<Offenders>) -> Self {
        #[allow(clippy::expect_used, reason = "the values are constants")]
        let per_minute = |count: NonZeroU32| {
            let quota = Quota::with_period(Duration::from_secs(60) / count.get());
            quota.expect("a period above 0").allow_burst(count)
        };
        let of_console = Quota::per_second(FORMS_PER_SECOND).allow_burst(FORMS_AT_ONCE);
        Self {
            offenders,
            failures: KeyedLimiter::new(per_minute(FAILURES_PER_MINUTE)),
            samples: KeyedLimiter::new(per_minute(SAMPLES_PER_MINUTE)),
            forms: KeyedLimiter::new(of_console),
            pages: KeyedLimiter::new(of_console),
            of_subaccounts: KeyedLimiter::new(
                Quota::per_second(OF_SUBACCOUNTS_PER_SECOND).allow_burst(OF_SUBACCOUNTS_AT_ONCE),
            ),
            origin,
            requests: DashMap::new(),
            changes: OnceLock::new(),
        }
    }

    /// Starts collecting the changes that are sent to the other nodes.
    pub(super) fn share(&self) {
        let _ = self.changes.set(Mutex::default());
    }

    fn note(&self, note: impl FnOnce(&mut Counted)) {
        if let Some(changes) = self.changes.get() {
            note(&mut changes.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Takes the changes since the last call.
    pub(super) fn take_changes(&self) -> RateChanges {
        let mut changes = RateChanges::default();
        self.note(|counted| {
            changes.requests = counted.requests.drain().collect();
            changes.failures = counted.failures.drain().collect();
        });
        changes
    }

    /// Adds the counts that another node has sent.
    pub(super) fn merge(&self, now: Instant, changes: RateChanges) {
        let since = self.since(now);
        for (account, count) in changes.requests.into_iter().take(CHANGES_MAX) {
            let ring = self.requests.entry(account).or_insert_with(|| Ring::new(REQUESTS));
            // A full ring is full, however many more there were.
            (0..count.min(REQUESTS)).map_while(|_| ring.take(since)).for_each(drop);
        }
        for (network, count) in changes.failures.into_iter().take(CHANGES_MAX) {
            let count = count.min(FAILURES_PER_MINUTE.get());
            for _ in 0..count {
                let _ = self.failures.spend(network);
            }
        }
    }

    /// Returns the time since `origin` in the unit of a [`Ring`]: nanoseconds, divided by
    /// [`WINDOW_SECS`] because the window of a ring is one second.
    fn since(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.origin) / WINDOW_SECS;
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Counts a failed authentication, and returns the error for it.
    pub(super) fn record_failure(&self, from: IpAddr) -> AuthError {
        let network = network_prefix(from);
        self.note(|counted| {
            if counted.failures.len() < CHANGES_MAX {
                *counted.failures.entry(network).or_default() += 1;
            }
        });
        match self.failures.spend(network) {
            None => AuthError::InvalidCredentials,
            Some(wait) => {
                if let Some(offenders) = &self.offenders {
                    offenders.record(Resource::Credentials, from);
                }
                AuthError::rate_limited("too many failed authentications", wait)
            }
        }
    }

    /// Counts a sample of a voice.
    ///
    /// # Errors
    /// Returns `RateLimited` if the actor has requested too many samples.
    pub(super) fn record_sample(&self, actor: &str) -> Result<(), AuthError> {
        let wait = self.samples.spend(actor.to_owned());
        wait.map_or(Ok(()), |wait| {
            Err(AuthError::rate_limited("more than 20 samples a minute", wait))
        })
    }

    /// Counts a form of the console. Returns the time to wait if the user has submitted too many.
    pub(super) fn record_form(&self, user: Uuid) -> Option<Duration> {
        self.forms.spend(user)
    }

    /// Counts a page of the console. Returns the time to wait if the user has requested too many.
    pub(super) fn record_page(&self, user: Uuid) -> Option<Duration> {
        self.pages.spend(user)
    }

    /// Counts a request of a subaccount of this account.
    ///
    /// # Errors
    /// Returns `RateLimited` if the subaccounts together have made too many requests.
    pub(super) fn record_of_subaccount(&self, main_account: &AuthId) -> Result<(), AuthError> {
        let wait = self.of_subaccounts.spend(main_account.clone());
        wait.map_or(Ok(()), |wait| {
            Err(AuthError::rate_limited(
                "the account's subaccounts have made more than 300 requests a second together",
                wait,
            ))
        })
    }

    /// Counts a request of an account.
    ///
    /// # Errors
    /// Returns `RateLimited` if the account has made too many requests.
    pub(super) fn record_request(&self, now: Instant, account: &AuthId) -> Result<(), AuthError> {
        let since = self.since(now);
        let take = |ring: &Ring| {
            let wait =
                || Duration::from_nanos(ring.room_at(since).saturating_sub(since)) * WINDOW_SECS;
            ring.take(since).map(drop).ok_or_else(|| {
                AuthError::rate_limited("more than 300 requests in 5 seconds", wait())
            })
        };
        match self.requests.get(account) {
            Some(ring) => take(&ring)?,
            None => {
                take(&self.requests.entry(account.clone()).or_insert_with(|| Ring::new(REQUESTS)))?
            }
        }
        self.note(|counted| {
            if counted.requests.len() < CHANGES_MAX {
                *counted.requests.entry(account.clone()).or_default() += 1;
            }
        });
        Ok(())
    }
}

impl AuthError {
    fn rate_limited(message: &'static str, wait: Duration) -> Self {
        Self::RateLimited { message, retry_after: wait.as_secs() + 1 }
    }
}

impl<K: Hash + Eq + Clone> KeyedLimiter<K> {
    fn new(quota: Quota) -> Self {
        Self { limiter: RateLimiter::hashmap(quota), spent: AtomicU32::new(0) }
    }

    /// Counts a request of a key. Returns the time to wait if the key has reached its limit.
    fn spend(&self, key: K) -> Option<Duration> {
        let sweep = self.spent.fetch_add(1, Ordering::Relaxed).is_multiple_of(SWEEP_EVERY);
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

    use super::{AuthError, Credentials, RateLimits, Role, STANDARD, Uuid, network_prefix};
    use base64::Engine as _;
    use engine::admission::book::AccountCredentials;
    use engine::admission::settings::ApiKey;
    use model::Secret;

    const ID: &str = "MAXXXXXXXXXXXXXXXXXX";

    fn credentials() -> Credentials {
        let key = |key: &str, role| ApiKey {
            name: (key == "two").then(|| "website".to_owned()),
            key: Secret::new(key),
            role,
        };
        Credentials::new(&[AccountCredentials {
            auth_id: ID.into(),
            tokens: vec![Secret::new("now:with colon"), Secret::new("before")],
            api_keys: vec![key("one", Role::Owner), key("two", Role::Agent)],
        }])
    }

    fn header(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_str(value).unwrap());
        headers
    }

    #[test]
    fn r15_basic_takes_both_tokens_and_nothing_else() {
        let credentials = credentials();
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
                credentials.basic(&header("authorization", &value)).is_some(),
                taken,
                "{value}"
            );
        }
        assert!(credentials.basic(&HeaderMap::new()).is_none());
    }

    #[test]
    fn f35_requests_at_other_nodes_count() {
        let clock = model::Clock::stepped(model::Timestamp::default());
        let (here, there) =
            (RateLimits::new(clock.now(), None), RateLimits::new(clock.now(), None));
        here.share();
        let account = ID.into();
        for _ in 0..200 {
            assert_eq!(here.record_request(clock.now(), &account), Ok(()));
        }
        there.merge(clock.now(), here.take_changes());
        assert!(here.take_changes().is_empty());
        let more = (0..300).filter(|_| there.record_request(clock.now(), &account).is_ok());
        assert_eq!(more.count(), 100);
    }

    #[test]
    fn r15_keys_have_an_account_and_a_role() {
        let credentials = credentials();
        let role = |key: &str| {
            credentials
                .api_key(&header("x-api-key", key), std::net::Ipv4Addr::LOCALHOST.into())
                .map(|m| (m.scope.auth_id().to_string(), m.role))
        };
        let from = std::net::Ipv4Addr::LOCALHOST.into();
        let actor = |key| credentials.api_key(&header("x-api-key", key), from).unwrap().actor.name;
        assert_eq!(actor("one"), "api-key:configuration/1");
        assert_eq!(actor("two"), "api-key:configuration/website");
        assert_eq!(role("one"), Some((ID.to_owned(), Role::Owner)));
        assert_eq!(role("two"), Some((ID.to_owned(), Role::Agent)));
        assert_eq!((role("three"), role("")), (None, None));
    }

    #[test]
    fn l21_an_account_makes_300_requests_in_5_seconds() {
        let clock = model::Clock::stepped(Default::default());
        let limits = RateLimits::new(clock.now(), None);
        let request = || limits.record_request(clock.now(), &ID.into());
        for n in 0..300 {
            assert_eq!(request(), Ok(()), "{n}");
            clock.step(Duration::from_millis(16));
        }
        assert_eq!(
            request(),
            Err(AuthError::RateLimited {
                message: "more than 300 requests in 5 seconds",
                retry_after: 1
            })
        );
        assert!(limits.record_request(clock.now(), &"MAYYYYYYYYYYYYYYYYYY".into()).is_ok());
        clock.step(Duration::from_millis(200));
        assert_eq!(request(), Ok(()), "the first request is five seconds old");
        assert!(request().is_err(), "the second is younger");
    }

    #[test]
    fn subaccounts_share_300_requests_a_second() {
        let limits = RateLimits::new(model::Clock::real().now(), None);
        let [one, other] = ["MA1", "MA2"].map(model::AuthId::from);
        let refused = (0..1_650).filter(|_| limits.record_of_subaccount(&one).is_err()).count();
        assert!((1..=150).contains(&refused), "{refused}");
        assert_eq!(limits.record_of_subaccount(&other), Ok(()));
    }

    #[test]
    fn a_person_submits_300_forms_and_requests_300_pages_at_once() {
        let limits = RateLimits::new(model::Clock::real().now(), None);
        let [one, other] = [1, 2].map(Uuid::from_u128);
        for record in [RateLimits::record_form, RateLimits::record_page] {
            let refused = (0..330).filter(|_| record(&limits, one).is_some()).count();
            assert!((1..=30).contains(&refused), "{refused}");
            assert_eq!(record(&limits, other), None);
        }
    }

    #[test]
    fn r15_limits_failures_per_network() {
        let limits = RateLimits::new(model::Clock::real().now(), None);
        let ip = |text: &str| text.parse::<std::net::IpAddr>().unwrap();
        let refused = (0..70)
            .filter(|_| limits.record_failure(ip("203.0.113.1")) != AuthError::InvalidCredentials)
            .count();
        assert!((9..=10).contains(&refused), "{refused}");
        assert_eq!(
            limits.record_failure(ip("203.0.113.2")),
            AuthError::InvalidCredentials,
            "addresses are limited separately"
        );
        // A flood from many networks is fast to refuse, and a bounded number is remembered.
        let begun = model::Clock::real();
        let at = begun.now();
        for n in 0..150_000u128 {
            limits.record_failure(
                std::net::Ipv6Addr::from_bits((0x2001_0db9 << 96) + (n << 64)).into(),
            );
        }
        assert!(
            limits.failures.limiter.len() <= super::KEYS_MAX + 1,
            "{}",
            limits.failures.limiter.len()
        );
        assert!(begun.now() - at < std::time::Duration::from_secs(20));
        assert_eq!(network_prefix(ip("2001:db8::1:2")), network_prefix(ip("2001:db8::ffff:1")));
        assert_ne!(network_prefix(ip("2001:db8:0:1::1")), network_prefix(ip("2001:db8::1")));
        assert_eq!(network_prefix(ip("::ffff:203.0.113.1")), ip("203.0.113.1"));
    }
}
