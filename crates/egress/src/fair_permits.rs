//! Permits that owners, such as accounts, share. A free permit goes to the waiting owner that holds the
//! fewest. Owners that hold equally many take turns. So the work of one delays the first work of another
//! one by one permit at most.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// A number of permits. Clones share them.
#[derive(Debug)]
pub struct FairPermits<K: Clone + Eq + Hash>(Arc<Mutex<State<K>>>);

#[derive(Debug)]
struct State<K: Clone + Eq + Hash> {
    free: usize,
    /// Maximum number of permits of one owner.
    share: usize,
    /// Number of permits that each owner holds. Owners without one have no entry.
    held: HashMap<K, usize>,
    /// In the order of their turns: an owner that gives a permit back goes to the end.
    waiting: VecDeque<Waiting<K>>,
}

#[derive(Debug)]
struct Waiting<K: Clone + Eq + Hash> {
    owner: K,
    count: usize,
    granted: oneshot::Sender<FairPermit<K>>,
}

/// One or several of [`FairPermits`]. Given back on drop.
#[derive(Debug)]
pub struct FairPermit<K: Clone + Eq + Hash> {
    permits: FairPermits<K>,
    owner: K,
    count: usize,
}

impl<K: Clone + Eq + Hash> Clone for FairPermits<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Clone + Eq + Hash> FairPermits<K> {
    /// Creates `count` permits, of which an owner may hold at most `share`.
    pub fn new(count: usize, share: usize) -> Self {
        let (held, waiting) = (HashMap::new(), VecDeque::new());
        Self(Arc::new(Mutex::new(State { free: count, share, held, waiting })))
    }

    /// Waits for a permit.
    pub async fn acquire(&self, owner: &K) -> FairPermit<K> {
        self.acquire_many(owner, 1).await
    }

    /// Waits for `count` permits, which are granted together. More than the share of an owner count
    /// as its share.
    pub async fn acquire_many(&self, owner: &K, count: usize) -> FairPermit<K> {
        loop {
            let granted = {
                let mut state = self.state();
                let count = count.min(state.share);
                if state.may_have(owner, count) {
                    state.take(owner, count);
                    return FairPermit { permits: self.clone(), owner: owner.clone(), count };
                }
                let (sender, granted) = oneshot::channel();
                state.waiting.push_back(Waiting { owner: owner.clone(), count, granted: sender });
                granted
            };
            if let Ok(permit) = granted.await {
                return permit;
            }
        }
    }

    /// Returns the number of free permits.
    pub fn free(&self) -> usize {
        self.state().free
    }

    fn state(&self) -> MutexGuard<'_, State<K>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    fn held_by(&self, owner: &K) -> usize {
        self.held.get(owner).copied().unwrap_or_default()
    }

    fn may_have(&self, owner: &K, count: usize) -> bool {
        count <= self.free && self.held_by(owner) + count <= self.share
    }

    fn take(&mut self, owner: &K, count: usize) {
        self.free -= count;
        *self.held.entry(owner.clone()).or_default() += count;
    }

    fn give_back(&mut self, owner: &K, count: usize) {
        self.free += count;
        // It is the others' turn. The sort is stable, so nothing else changes its place.
        self.waiting.make_contiguous().sort_by_key(|waiting| waiting.owner == *owner);
        if let Some(held) = self.held.get_mut(owner) {
            *held -= count;
            if *held == 0 {
                self.held.remove(owner);
            }
        }
    }

    /// Takes free permits for the owner that holds the fewest, of several for the one that comes
    /// first in `waiting`. `None` if no owner may have what it waits for.
    fn grant(&mut self) -> Option<Waiting<K>> {
        self.waiting.retain(|waiting| !waiting.granted.is_closed());
        let may_have =
            |(_, waiting): &(usize, &Waiting<K>)| self.may_have(&waiting.owner, waiting.count);
        let waiting = self.waiting.iter().enumerate().filter(may_have);
        let (at, _) = waiting.min_by_key(|(at, waiting)| (self.held_by(&waiting.owner), *at))?;
        let next = self.waiting.remove(at)?;
        self.take(&next.owner, next.count);
        Some(next)
    }
}

impl<K: Clone + Eq + Hash> Drop for FairPermit<K> {
    fn drop(&mut self) {
        let next: Vec<_> = {
            let mut state = self.permits.state();
            state.give_back(&self.owner, self.count);
            std::iter::from_fn(|| state.grant()).collect()
        };
        for Waiting { owner, count, granted } in next {
            // If the receiver is gone, the permit is dropped here, which grants it to the next one.
            let _ = granted.send(FairPermit { permits: self.permits.clone(), owner, count });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::{FutureExt as _, poll};

    use super::FairPermits;

    #[tokio::test]
    async fn a_permit_goes_to_the_owner_that_holds_the_fewest() {
        let permits = FairPermits::new(2, 2);
        let (a, b) = ("a", "b");
        let first = permits.acquire(&a).await;
        let _second = permits.acquire(&a).await;
        let (mut third, mut fourth) = (pin!(permits.acquire(&a)), pin!(permits.acquire(&a)));
        assert!(poll!(third.as_mut()).is_pending() && poll!(fourth.as_mut()).is_pending());
        let mut other = pin!(permits.acquire(&b));
        assert!(poll!(other.as_mut()).is_pending());
        drop(first);
        assert!(poll!(third.as_mut()).is_pending(), "its owner holds one");
        let other = other.now_or_never().expect("the other owner comes first");
        drop(other);
        drop(third.now_or_never().expect("then the one that waited longest"));
        drop(fourth.now_or_never().expect("then the next one"));
    }

    #[tokio::test]
    async fn owners_take_turns_at_a_single_permit() {
        let permits = FairPermits::new(1, 1);
        let (a, b) = ("a", "b");
        let first = permits.acquire(&a).await;
        let (mut second, mut third) = (pin!(permits.acquire(&a)), pin!(permits.acquire(&a)));
        assert!(poll!(second.as_mut()).is_pending() && poll!(third.as_mut()).is_pending());
        let mut other = pin!(permits.acquire(&b));
        let mut another = pin!(permits.acquire(&b));
        assert!(poll!(other.as_mut()).is_pending() && poll!(another.as_mut()).is_pending());
        drop(first);
        assert!(poll!(second.as_mut()).is_pending(), "its owner was the last one");
        drop(other.now_or_never().expect("the other owner's turn"));
        assert!(poll!(another.as_mut()).is_pending());
        drop(second.now_or_never().expect("the first owner's turn"));
        drop(another.now_or_never().expect("the other owner's turn"));
        assert!(third.now_or_never().is_some());
    }

    #[tokio::test]
    async fn an_owner_has_no_more_than_its_share() {
        let permits = FairPermits::new(3, 2);
        let (a, b) = ("a", "b");
        let _first = permits.acquire(&a).await;
        let second = permits.acquire(&a).await;
        let mut third = pin!(permits.acquire(&a));
        assert!(poll!(third.as_mut()).is_pending());
        let _other = permits.acquire(&b).now_or_never().expect("one is left for others");
        drop(second);
        assert!(third.now_or_never().is_some());
    }

    #[tokio::test]
    async fn several_permits_are_granted_together_and_given_back_to_several() {
        let permits = FairPermits::new(10, 8);
        let (a, b) = ("a", "b");
        let first = permits.acquire_many(&a, 20).await;
        let mut large = pin!(permits.acquire_many(&a, 5));
        let mut other = pin!(permits.acquire_many(&b, 3));
        assert!(poll!(large.as_mut()).is_pending() && poll!(other.as_mut()).is_pending());
        let small = permits.acquire_many(&b, 2).now_or_never().expect("two are left for others");
        drop(first);
        let (large, other) = (large.now_or_never(), other.now_or_never());
        assert!(large.is_some() && other.is_some(), "one return serves both");
        drop((small, large, other));
        let state = permits.state();
        assert_eq!((state.free, state.held.len()), (10, 0));
    }

    #[tokio::test]
    async fn a_permit_of_one_who_waits_no_longer_is_not_lost() {
        let permits = FairPermits::new(1, 1);
        let held = permits.acquire(&None).await;
        {
            let mut gone = pin!(permits.acquire(&None));
            assert!(poll!(gone.as_mut()).is_pending());
        }
        let a = Some("a");
        let mut next = Box::pin(permits.acquire(&a));
        assert!(poll!(next.as_mut()).is_pending());
        drop(held);
        // It was granted the permit, but has not taken it.
        drop(next);
        assert!(permits.acquire(&None).now_or_never().is_some());
        assert!(permits.state().held.is_empty() && permits.state().waiting.is_empty());
    }
}
