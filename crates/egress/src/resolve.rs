//! DNS lookups: the system's resolver with a short cache, at most one lookup per name at a time and
//! a limited number in total. An account has a share of it, and one zone a share of that.
//!
//! If an answer is late, the addresses of the last hour are used, as RFC 8767 allows.
//!
//! The addresses are not checked here; see `connect`.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use tokio::time::timeout;

use super::fair_permits::FairPermits;

/// How long a result is cached. `lookup_host` does not report TTLs.
const CACHE_TTL: Duration = Duration::from_secs(10);
/// Largest number of cached names.
const NAMES_MAX: u64 = 10_000;
/// Largest number of concurrent lookups, so that unresponsive name servers cannot occupy every
/// blocking thread.
const IN_FLIGHT_MAX: usize = 64;
/// Largest number of concurrent lookups for one owner, so that its names do not delay those of
/// others.
const OWNER_IN_FLIGHT_MAX: usize = 32;
/// Largest number of an owner's concurrent lookups of names in one zone, so that its unresponsive
/// name servers do not delay the owner's other names.
const ZONE_IN_FLIGHT_MAX: usize = 16;
/// How long a lookup may take, including the wait for its turn. Its answer is still cached later.
const LOOKUP_TIME: Duration = Duration::from_secs(5);
/// How long an answer is waited for before earlier addresses are used.
const STALE_AFTER: Duration = Duration::from_secs(1);
/// How long earlier addresses are kept.
const STALE_TTL: Duration = Duration::from_secs(3_600);

/// A pending lookup.
pub type Lookup = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// Resolves host names.
pub trait Resolve: Send + Sync + 'static {
    /// Returns all addresses of a name, in the order in which they should be tried.
    fn lookup(&self, name: &str) -> Lookup;
}

/// The system's resolver (`getaddrinfo`).
#[derive(Debug, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    #[allow(clippy::disallowed_methods, reason = "this is egress: its addresses are checked")]
    fn lookup(&self, name: &str) -> Lookup {
        let name = name.to_owned();
        Box::pin(
            async move { Ok(tokio::net::lookup_host((name, 0)).await?.map(|a| a.ip()).collect()) },
        )
    }
}

/// Adds the caches and the limits to a [`Resolve`].
#[derive(Clone)]
pub(super) struct Resolver {
    from: Arc<dyn Resolve>,
    cache: Cache<String, Arc<[IpAddr]>>,
    /// The last addresses of each name.
    known: Cache<String, Arc<[IpAddr]>>,
    permits: FairPermits<Arc<str>>,
    /// Permits for the names of an owner in one zone. Only their share is limited.
    of_zone: FairPermits<(Arc<str>, String)>,
    /// [`LOOKUP_TIME`] and [`STALE_AFTER`], except in tests.
    times: (Duration, Duration),
}

impl Resolver {
    pub(super) fn new(from: Arc<dyn Resolve>) -> Self {
        Self::with_times(from, (LOOKUP_TIME, STALE_AFTER))
    }

    fn with_times(from: Arc<dyn Resolve>, times: (Duration, Duration)) -> Self {
        let cache = |ttl| Cache::builder().max_capacity(NAMES_MAX).time_to_live(ttl).build();
        let permits = FairPermits::new(IN_FLIGHT_MAX, OWNER_IN_FLIGHT_MAX);
        let of_zone = FairPermits::new(usize::MAX, ZONE_IN_FLIGHT_MAX);
        Self { from, cache: cache(CACHE_TTL), known: cache(STALE_TTL), permits, of_zone, times }
    }

    /// Returns the addresses of a name, at least one. Failures are not cached. Owners, such as
    /// accounts, take turns.
    pub(super) async fn addresses(
        &self,
        owner: &Arc<str>,
        name: &str,
    ) -> Result<Arc<[IpAddr]>, Arc<io::Error>> {
        let name = name.to_ascii_lowercase();
        if let Some(addresses) = self.cache.get(&name).await {
            return Ok(addresses);
        }
        let (within, stale_after) = self.times;
        // A task of its own, so that a late answer is cached for the next request.
        let (resolver, owner, wanted) = (self.clone(), owner.clone(), name.clone());
        let answer = tokio::spawn(async move {
            let addresses = resolver.look_up(owner, &wanted, within).await?;
            resolver.known.insert(wanted, addresses.clone()).await;
            Ok::<_, Arc<io::Error>>(addresses)
        });
        let earlier = self.known.get(&name).await;
        let patience = if earlier.is_some() { stale_after } else { within };
        match timeout(patience, answer).await {
            Ok(answer) => answer.map_err(|error| Arc::new(io::Error::other(error)))?,
            Err(_) => earlier.ok_or_else(|| Arc::new(late())),
        }
    }

    /// Looks a name up, unless it is not the owner's turn within this time. Everybody waits for a
    /// turn of their own, also for a name that is being looked up: that of another owner may be
    /// late.
    async fn look_up(
        &self,
        owner: Arc<str>,
        name: &str,
        within: Duration,
    ) -> Result<Arc<[IpAddr]>, Arc<io::Error>> {
        let zone = (owner.clone(), zone_of(name));
        let turn =
            async { (self.of_zone.acquire(&zone).await, self.permits.acquire(&owner).await) };
        // Shorter than the caller waits, which then learns the reason.
        let turn = timeout(within * 9 / 10, turn).await.map_err(|_| Arc::new(no_turn()))?;
        let looking_up = async {
            let lookup = self.from.lookup(name);
            // `getaddrinfo` cannot be cancelled. A separate task holds the permits until it returns,
            // even if the caller has been dropped.
            let addresses = tokio::spawn(async move {
                let _turn = turn;
                lookup.await
            })
            .await
            .map_err(io::Error::other)??;
            match addresses.is_empty() {
                true => Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address")),
                false => Ok(addresses.into()),
            }
        };
        self.cache.try_get_with(name.to_owned(), looking_up).await
    }
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the name servers do not answer in time")
}

fn no_turn() -> io::Error {
    let why =
        "too many names are being looked up for this account, and their name servers do not answer";
    io::Error::new(io::ErrorKind::TimedOut, why)
}

/// Returns the last two labels of a host name. Names that share them usually have the same name
/// servers.
fn zone_of(name: &str) -> String {
    let mut labels = name.trim_end_matches('.').rsplitn(3, '.');
    match (labels.next(), labels.next()) {
        (Some(last), Some(before)) => format!("{before}.{last}"),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::{IN_FLIGHT_MAX, Lookup, Resolve, Resolver, zone_of};
    use crate::testing::FakeResolver;

    const OWN: &str = "MA1";

    /// Answers for no name in `slow.example` and `dead`, nor for any other while it is stuck.
    #[derive(Default)]
    struct Stuck(AtomicBool);

    impl Resolve for Stuck {
        fn lookup(&self, name: &str) -> Lookup {
            let is_dead = name.ends_with("slow.example") || name.ends_with(".dead");
            if is_dead || self.0.load(Ordering::Relaxed) {
                return Box::pin(std::future::pending());
            }
            Box::pin(async { Ok(vec![[8, 8, 8, 8].into()]) })
        }
    }

    #[tokio::test]
    async fn a_zone_without_answers_delays_no_other() {
        let times = (Duration::from_secs(1), Duration::from_millis(10));
        let resolver = Resolver::with_times(Arc::new(Stuck::default()), times);
        let mut slow = tokio::task::JoinSet::new();
        for n in 0..4 * IN_FLIGHT_MAX {
            let resolver = resolver.clone();
            slow.spawn(async move {
                resolver.addresses(&OWN.into(), &format!("u{n}.slow.example")).await
            });
        }
        tokio::task::yield_now().await;
        assert_eq!(resolver.addresses(&OWN.into(), "app.example").await.unwrap().len(), 1);
        assert!(slow.try_join_next().is_none(), "it was answered before the others gave up");
        for failed in slow.join_all().await {
            let error = failed.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "{error}");
        }
        assert_eq!(zone_of("a.b.example.com."), "example.com");
        assert_eq!(zone_of("localhost"), "localhost");
    }

    #[tokio::test]
    async fn an_account_with_dead_names_delays_no_other() {
        let times = (Duration::from_secs(1), Duration::from_millis(10));
        let resolver = Resolver::with_times(Arc::new(Stuck::default()), times);
        let mut slow = tokio::task::JoinSet::new();
        // As many zones as names, and the name of the other account among them.
        for n in 0..4 * IN_FLIGHT_MAX {
            let resolver = resolver.clone();
            let name = match n % 8 {
                0 => "app.example".to_owned(),
                _ => format!("slow{n}.dead"),
            };
            slow.spawn(async move { resolver.addresses(&OWN.into(), &name).await });
        }
        tokio::task::yield_now().await;
        assert_eq!(resolver.addresses(&"MA2".into(), "app.example").await.unwrap().len(), 1);
        assert_eq!(resolver.addresses(&"MA3".into(), "other.example").await.unwrap().len(), 1);
        let failed = slow.join_all().await.into_iter().filter_map(Result::err);
        let waited = failed.filter(|error| error.to_string().contains("for this account")).count();
        assert!(waited > 0, "some names had no turn");
    }

    #[tokio::test]
    async fn earlier_addresses_are_used_while_an_answer_is_late() {
        let source = Arc::new(Stuck::default());
        let times = (Duration::from_millis(100), Duration::from_millis(10));
        let resolver = Resolver::with_times(source.clone(), times);
        let addresses = resolver.addresses(&OWN.into(), "app.example").await.unwrap();
        source.0.store(true, Ordering::Relaxed);
        resolver.cache.invalidate("app.example").await;
        assert_eq!(resolver.addresses(&OWN.into(), "app.example").await.unwrap(), addresses);
        resolver.addresses(&OWN.into(), "new.example").await.unwrap_err();
    }

    #[tokio::test]
    async fn concurrent_lookups_share_one_query_and_failures_are_not_cached() {
        let fake = FakeResolver::new(&[&["8.8.8.8"]]);
        let resolver = Resolver::new(fake.clone());
        let mut lookups = tokio::task::JoinSet::new();
        for n in 0..50 {
            let resolver = resolver.clone();
            let name = if n % 2 == 0 { "app.example.com" } else { "App.Example.com" };
            lookups
                .spawn(async move { resolver.addresses(&OWN.into(), name).await.map(|a| a.len()) });
        }
        for result in lookups.join_all().await {
            assert_eq!(result.unwrap(), 1);
        }
        assert_eq!(fake.lookups(), 1);

        let none = FakeResolver::new(&[]);
        let resolver = Resolver::new(none.clone());
        assert!(resolver.addresses(&OWN.into(), "x.example").await.is_err());
        assert!(resolver.addresses(&OWN.into(), "x.example").await.is_err());
        assert_eq!(none.lookups(), 2);
        let empty = Resolver::new(FakeResolver::new(&[&[]]));
        assert!(empty.addresses(&OWN.into(), "x.example").await.is_err());
    }
}
