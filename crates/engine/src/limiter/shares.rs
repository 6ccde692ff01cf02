//! Shares of a resource that accounts or users hold for a while, such as uploads and event streams.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts the shares of each holder, so that one holder can't take all of them. Clones share the
/// counts.
#[derive(Clone, Debug)]
pub struct Shares<K: Eq + Hash + Clone>(Arc<Inner<K>>);

#[derive(Debug)]
struct Inner<K> {
    each_max: usize,
    all_max: usize,
    held: Mutex<HashMap<K, usize>>,
}

/// A share, given back when it is dropped.
#[derive(Debug)]
pub struct Share<K: Eq + Hash + Clone> {
    of: Shares<K>,
    holder: K,
}

impl<K: Eq + Hash + Clone> Shares<K> {
    /// Allows `each_max` shares to each holder, and `all_max` to all together.
    pub fn new(each_max: usize, all_max: usize) -> Self {
        Self(Arc::new(Inner { each_max, all_max, held: Mutex::default() }))
    }

    /// Takes a share. Returns `None` if the holder has its maximum, or all together have theirs.
    pub fn take(&self, holder: K) -> Option<Share<K>> {
        self.take_fairly(holder, 1)
    }

    /// Returns whether the holder has a share.
    pub fn has_any(&self, holder: &K) -> bool {
        self.held().contains_key(holder)
    }

    /// Returns the holders that have their maximum.
    pub fn full_holders(&self) -> Vec<K> {
        let held = self.held();
        let full = held.iter().filter(|(_, count)| **count >= self.0.each_max);
        full.map(|(holder, _)| holder.clone()).collect()
    }

    /// Takes a share if enough remain for the others: each of `holders` can always have its part of
    /// one half of all shares. The other half is for whoever comes first. Returns `None` otherwise.
    pub fn take_fairly(&self, holder: K, holders: usize) -> Option<Share<K>> {
        let guaranteed = self.0.all_max / 2 / holders.max(1);
        let mut held = self.held();
        let (mut taken, mut kept_free) = (1, guaranteed.saturating_mul(holders.saturating_sub(1)));
        for (other, count) in held.iter() {
            taken += count;
            if *other != holder {
                kept_free = kept_free.saturating_sub((*count).min(guaranteed));
            }
        }
        let own = held.get(&holder).copied().unwrap_or_default();
        if own >= self.0.each_max || taken + kept_free > self.0.all_max {
            return None;
        }
        held.insert(holder.clone(), own + 1);
        Some(Share { of: self.clone(), holder })
    }

    fn held(&self) -> MutexGuard<'_, HashMap<K, usize>> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash + Clone> Drop for Share<K> {
    fn drop(&mut self) {
        let mut held = self.of.held();
        if let Some(own) = held.get_mut(&self.holder) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                held.remove(&self.holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_holder_takes_everything_and_shares_come_back() {
        let shares = Shares::new(2, 3);
        let mut hers = vec![shares.take("a").unwrap(), shares.take("a").unwrap()];
        assert!(shares.take("a").is_none(), "the maximum of one");
        assert_eq!(shares.full_holders(), ["a"]);
        let his = shares.take("b").unwrap();
        assert!(shares.take("c").is_none(), "the maximum of all");
        drop(his);
        assert!(shares.take("c").is_some());
        hers.pop();
        assert!(shares.take("a").is_some());
        drop(hers);
        assert!(shares.held().is_empty());
    }

    #[test]
    fn each_holder_is_guaranteed_its_part_of_one_half() {
        let shares = Shares::new(12, 12);
        let alone: Vec<_> = (0..20).map_while(|_| shares.take_fairly("a", 1)).collect();
        assert_eq!(alone.len(), 12, "a single holder may have all");
        drop(alone);
        // Two of three others have nothing yet: two shares are kept free for each.
        let c = shares.take_fairly("c", 3).unwrap();
        let a: Vec<_> = (0..20).map_while(|_| shares.take_fairly("a", 3)).collect();
        assert_eq!(a.len(), 12 - 1 - 1 - 2, "one more for c, two for b");
        let b: Vec<_> = (0..20).map_while(|_| shares.take_fairly("b", 3)).collect();
        assert_eq!(b.len(), 2);
        let more = shares.take_fairly("c", 3).unwrap();
        assert!(shares.take_fairly("c", 3).is_none(), "all are taken");
        drop((a, b, c, more));
        assert!(shares.held().is_empty());
    }
}
