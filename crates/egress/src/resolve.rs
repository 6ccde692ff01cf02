//! DNS lookups: the system's resolver with a short cache, at most one lookup per name at a time and
//! a limited number in total.
//!
//! The addresses are not checked here; see `connect`.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use tokio::sync::Semaphore;

/// How long a result is cached. `lookup_host` does not report TTLs.
const CACHE_TTL: Duration = Duration::from_secs(10);
/// Largest number of cached names.
const NAMES_MAX: u64 = 10_000;
/// Largest number of concurrent lookups, so that unresponsive name servers cannot occupy every
/// blocking thread.
const IN_FLIGHT_MAX: usize = 64;

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

/// Adds the cache and the limits to a [`Resolve`].
#[derive(Clone)]
pub(super) struct Resolver {
    from: Arc<dyn Resolve>,
    cache: Cache<String, Arc<[IpAddr]>>,
    permits: Arc<Semaphore>,
}

impl Resolver {
    pub(super) fn new(from: Arc<dyn Resolve>) -> Self {
        let cache = Cache::builder().max_capacity(NAMES_MAX).time_to_live(CACHE_TTL).build();
        Self { from, cache, permits: Arc::new(Semaphore::new(IN_FLIGHT_MAX)) }
    }

    /// Returns the addresses of a name, at least one. Failures are not cached.
    pub(super) async fn addresses(&self, name: &str) -> Result<Arc<[IpAddr]>, Arc<io::Error>> {
        self.cache.try_get_with(name.to_ascii_lowercase(), self.look_up(name)).await
    }

    async fn look_up(&self, name: &str) -> io::Result<Arc<[IpAddr]>> {
        let permit = self.permits.clone().acquire_owned().await.map_err(io::Error::other)?;
        let lookup = self.from.lookup(name);
        // `getaddrinfo` cannot be cancelled. A separate task holds the permit until it returns,
        // even if the caller has been dropped.
        let addresses = tokio::spawn(async move {
            let _permit = permit;
            lookup.await
        })
        .await
        .map_err(io::Error::other)??;
        match addresses.is_empty() {
            true => Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address")),
            false => Ok(addresses.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Resolver;
    use crate::testing::FakeResolver;

    #[tokio::test]
    async fn concurrent_lookups_share_one_query_and_failures_are_not_cached() {
        let fake = FakeResolver::new(&[&["8.8.8.8"]]);
        let resolver = Resolver::new(fake.clone());
        let mut lookups = tokio::task::JoinSet::new();
        for n in 0..50 {
            let resolver = resolver.clone();
            let name = if n % 2 == 0 { "app.example.com" } else { "App.Example.com" };
            lookups.spawn(async move { resolver.addresses(name).await.map(|a| a.len()) });
        }
        for result in lookups.join_all().await {
            assert_eq!(result.unwrap(), 1);
        }
        assert_eq!(fake.lookups(), 1);

        let none = FakeResolver::new(&[]);
        let resolver = Resolver::new(none.clone());
        assert!(resolver.addresses("x.example").await.is_err());
        assert!(resolver.addresses("x.example").await.is_err());
        assert_eq!(none.lookups(), 2);
        let empty = Resolver::new(FakeResolver::new(&[&[]]));
        assert!(empty.addresses("x.example").await.is_err());
    }
}
