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
    fn lookup(&self, name: &str) -> Lookup {
        let name = name.to_owned();
        Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.map(|a| a.ip()).collect()) })
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
pub(super) mod tests {
    use std::collections::VecDeque;
    use std::io;
    use std::net::IpAddr;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use super::{Lookup, Resolve, Resolver};

    /// Gives these answers one after another, the last one for ever.
    #[derive(Default)]
    pub(in crate::egress) struct Fake {
        answers: Mutex<VecDeque<Vec<IpAddr>>>,
        pub(in crate::egress) asked: AtomicUsize,
    }

    impl Fake {
        pub(in crate::egress) fn of(answers: &[&[&str]]) -> Arc<Self> {
            let answers = answers.iter().map(|a| a.iter().map(|ip| ip.parse().unwrap()).collect()).collect();
            Arc::new(Self { answers: Mutex::new(answers), asked: AtomicUsize::new(0) })
        }
    }

    impl Resolve for Fake {
        fn lookup(&self, _name: &str) -> Lookup {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let mut answers = self.answers.lock().unwrap();
            let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
            Box::pin(async move {
                tokio::task::yield_now().await;
                answer.ok_or_else(|| io::Error::other("no such name"))
            })
        }
    }

    #[tokio::test]
    async fn many_askers_cost_one_look_up_and_failures_are_not_kept() {
        let fake = Fake::of(&[&["8.8.8.8"]]);
        let resolver = Resolver::new(fake.clone());
        let asks = (0..50).map(|n| {
            let resolver = resolver.clone();
            let name = if n % 2 == 0 { "app.example.com" } else { "App.Example.com" };
            async move { resolver.addresses(name).await.map(|a| a.len()) }
        });
        let mut set = tokio::task::JoinSet::new();
        asks.for_each(|ask| drop(set.spawn(ask)));
        for found in set.join_all().await {
            assert_eq!(found.unwrap(), 1);
        }
        assert_eq!(fake.asked.load(Ordering::SeqCst), 1);

        let none = Fake::of(&[]);
        let resolver = Resolver::new(none.clone());
        assert!(resolver.addresses("x.example").await.is_err());
        assert!(resolver.addresses("x.example").await.is_err());
        assert_eq!(none.asked.load(Ordering::SeqCst), 2);
        let empty = Resolver::new(Fake::of(&[&[]]));
        assert!(empty.addresses("x.example").await.is_err());
    }
}
