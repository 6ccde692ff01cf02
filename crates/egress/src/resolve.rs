//! Names to addresses: the system's resolver behind a short cache, one look-up a name at a time, few in all.
//!
//! Nothing is judged here; `client` checks every address of an answer.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use tokio::sync::Semaphore;

/// How long an answer is kept (`lookup_host` tells no TTL).
const KEPT: Duration = Duration::from_secs(10);
/// Names kept at most.
const NAMES_MAX: u64 = 10_000;
/// Look-ups in flight at most, so that dead name servers cannot take all blocking threads.
const IN_FLIGHT_MAX: usize = 64;

/// A look-up under way.
pub type Lookup = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// Where addresses come from.
pub trait Resolve: Send + Sync + 'static {
    /// All addresses of a name, in the order they should be tried.
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

/// [`Resolve`] with the cache and the bounds.
#[derive(Clone)]
pub(super) struct Resolver {
    from: Arc<dyn Resolve>,
    cache: Cache<String, Arc<[IpAddr]>>,
    permits: Arc<Semaphore>,
}

impl Resolver {
    pub(super) fn new(from: Arc<dyn Resolve>) -> Self {
        let cache = Cache::builder().max_capacity(NAMES_MAX).time_to_live(KEPT).build();
        Self { from, cache, permits: Arc::new(Semaphore::new(IN_FLIGHT_MAX)) }
    }

    /// The addresses of a name; at least one. A failure is not kept.
    pub(super) async fn addresses(&self, name: &str) -> Result<Arc<[IpAddr]>, Arc<io::Error>> {
        self.cache.try_get_with(name.to_ascii_lowercase(), self.look_up(name)).await
    }

    async fn look_up(&self, name: &str) -> io::Result<Arc<[IpAddr]>> {
        let permit = self.permits.clone().acquire_owned().await.map_err(io::Error::other)?;
        let lookup = self.from.lookup(name);
        // A task of its own: `getaddrinfo` cannot be broken off, so its permit must outlive an asker who left.
        let found = tokio::spawn(async move {
            let _permit = permit;
            lookup.await
        })
        .await
        .map_err(io::Error::other)??;
        match found.is_empty() {
            true => Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address")),
            false => Ok(found.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Resolver;
    use crate::testing::FakeResolver;

    #[tokio::test]
    async fn many_askers_cost_one_look_up_and_failures_are_not_kept() {
        let fake = FakeResolver::of(&[&["8.8.8.8"]]);
        let resolver = Resolver::new(fake.clone());
        let mut asks = tokio::task::JoinSet::new();
        for n in 0..50 {
            let resolver = resolver.clone();
            let name = if n % 2 == 0 { "app.example.com" } else { "App.Example.com" };
            asks.spawn(async move { resolver.addresses(name).await.map(|a| a.len()) });
        }
        for found in asks.join_all().await {
            assert_eq!(found.unwrap(), 1);
        }
        assert_eq!(fake.asked(), 1);

        let none = FakeResolver::of(&[]);
        let resolver = Resolver::new(none.clone());
        assert!(resolver.addresses("x.example").await.is_err());
        assert!(resolver.addresses("x.example").await.is_err());
        assert_eq!(none.asked(), 2);
        let empty = Resolver::new(FakeResolver::of(&[&[]]));
        assert!(empty.addresses("x.example").await.is_err());
    }
}
