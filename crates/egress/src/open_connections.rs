//! The open connections of each owner. The HTTP client limits idle connections per origin only, and a
//! server can have any number of origins: its ports.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use model::Clock;

/// Number of open connections of an owner from which on idle ones are closed.
const OWNER_CONNECTIONS_MAX: usize = 1_024;
/// Time without a byte after which a connection counts as idle.
const IDLE_AFTER: Duration = Duration::from_secs(5);

type ByOwner = HashMap<Arc<str>, BTreeMap<u64, Arc<State>>>;

/// The open connections. Clones share them.
#[derive(Clone)]
pub(super) struct OpenConnections {
    clock: Clock,
    epoch: Instant,
    of_owner: Arc<Mutex<ByOwner>>,
    next: Arc<AtomicU64>,
}

#[derive(Default)]
struct State {
    /// When a byte was last transferred, in milliseconds since the epoch.
    used_at: AtomicU64,
    is_closed: AtomicBool,
    /// The task that reads from the connection.
    reader: AtomicWaker,
}

/// An open connection, until it is dropped.
pub(super) struct OpenConnection {
    all: OpenConnections,
    owner: Arc<str>,
    id: u64,
    state: Arc<State>,
}

impl OpenConnections {
    pub(super) fn new(clock: Clock) -> Self {
        Self { epoch: clock.now(), clock, of_owner: Arc::default(), next: Arc::default() }
    }

    /// Registers a new connection of an owner. If the owner already has the maximum, the one of its
    /// connections that was not used for the longest time is closed. An empty `owner` stands for the
    /// node itself, whose connections are not limited.
    pub(super) fn register(&self, owner: Arc<str>) -> OpenConnection {
        let (id, now) = (self.next.fetch_add(1, Ordering::Relaxed), self.now());
        let state = Arc::new(State { used_at: now.into(), ..State::default() });
        let mut of_owner = self.of_owner();
        let connections = of_owner.entry(owner.clone()).or_default();
        if connections.len() >= OWNER_CONNECTIONS_MAX && !owner.is_empty() {
            let used_at = |state: &Arc<State>| state.used_at.load(Ordering::Relaxed);
            let open =
                connections.values().filter(|state| !state.is_closed.load(Ordering::Relaxed));
            let oldest = open.min_by_key(|state| used_at(state));
            let is_idle = |state: &&Arc<State>| used_at(state) + millis(IDLE_AFTER) <= now;
            if let Some(oldest) = oldest.filter(is_idle) {
                oldest.is_closed.store(true, Ordering::Release);
                oldest.reader.wake();
            }
        }
        connections.insert(id, state.clone());
        drop(of_owner);
        OpenConnection { all: self.clone(), owner, id, state }
    }

    fn of_owner(&self) -> MutexGuard<'_, ByOwner> {
        self.of_owner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        millis(self.clock.now().saturating_duration_since(self.epoch))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl OpenConnection {
    /// Records that bytes were transferred.
    pub(super) fn used(&self) {
        self.state.used_at.store(self.all.now(), Ordering::Relaxed);
    }

    /// Whether the connection is to be closed. If not, the task of `context` is woken when it is.
    pub(super) fn is_closed(&self, context: &std::task::Context<'_>) -> bool {
        self.state.reader.register(context.waker());
        self.state.is_closed.load(Ordering::Acquire)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let mut of_owner = self.all.of_owner();
        if let Some(connections) = of_owner.get_mut(&self.owner) {
            connections.remove(&self.id);
            if connections.is_empty() {
                of_owner.remove(&self.owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};
    use std::time::Duration;

    use model::{Clock, Timestamp};

    use super::{OWNER_CONNECTIONS_MAX, OpenConnections};

    #[test]
    fn the_connection_that_was_idle_for_the_longest_time_is_closed() {
        let clock = Clock::stepped(Timestamp::default());
        let all = OpenConnections::new(clock.clone());
        let context = Context::from_waker(Waker::noop());
        let mut open: Vec<_> =
            (0..OWNER_CONNECTIONS_MAX).map(|_| all.register("MA1".into())).collect();
        let closed = |open: &[super::OpenConnection]| {
            let closed = open.iter().enumerate().filter(|(_, one)| one.is_closed(&context));
            closed.map(|(n, _)| n).collect::<Vec<_>>()
        };
        open.push(all.register("MA1".into()));
        assert!(closed(&open).is_empty(), "all were used just now");
        clock.step(Duration::from_secs(5));
        open[0].used();
        open.push(all.register("MA1".into()));
        assert_eq!(closed(&open), [1]);
        open.push(all.register("MA1".into()));
        assert_eq!(closed(&open), [1, 2]);
        let others: Vec<_> =
            ["MA2"; 9].map(|owner| all.register(owner.into())).into_iter().collect();
        assert!(closed(&others).is_empty());
        drop((open, others));
        assert!(all.of_owner().is_empty());
    }
}
