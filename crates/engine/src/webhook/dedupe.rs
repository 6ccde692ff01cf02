//! Deduplication of events (`docs/reference/meta.md#duplicates`), bounded in time and memory.
//!
//! A key is 128 bits of a SHA-256 and the same in every process. Tables keep 64 bits of it; with
//! half a million keys, a collision happens about once in ten trillion events. All keys of a table
//! have the same lifetime, so they expire in the order of insertion without a clean-up task. A full
//! table drops its oldest keys.
//!
//! A call leaves two or three keys for a week. All but the latest are stored in sorted pages of a
//! thousand keys, with 8 bytes per key and one expiry time per page, which is that of its latest
//! key. `moka` is unsuitable: it has its own clock, while this table needs a controllable one,
//! synchronous access, and an atomic claim.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{Context, SHA256};

/// Returns the key of a list of words.
pub(super) fn key_of(words: &[&[u8]]) -> u128 {
    let mut digest = Context::new(&SHA256);
    for word in words {
        // The length prefix keeps lists distinct whose concatenations are equal.
        digest.update(&u32::try_from(word.len()).unwrap_or(u32::MAX).to_be_bytes());
        digest.update(word);
    }
    let digest = digest.finish();
    digest.as_ref().iter().take(16).fold(0, |key, byte| key << 8 | u128::from(*byte))
}

/// Number of shards, so that concurrent webhooks rarely share a lock.
const SHARDS: usize = 16;

/// Number of keys per page, and minimum number of latest keys with their own expiry time.
const PAGE: usize = 1_024;

/// A set of keys that expire.
pub(super) struct KeyTable {
    shards: [Mutex<Shard>; SHARDS],
    /// The first time passed in. All other times are relative to it.
    origin: OnceLock<Instant>,
    ttl: Duration,
    /// Maximum number of keys per shard.
    capacity: usize,
}

/// Nanoseconds since the table's origin.
type Nanos = u64;

#[derive(Default)]
struct Shard {
    until: HashMap<u64, Nanos>,
    order: VecDeque<(u64, Nanos)>,
    /// Older keys, ordered by expiry time.
    pages: VecDeque<Page>,
    /// Number of keys in the pages.
    paged: usize,
}

/// Consecutive keys.
struct Page {
    /// Expiry time of the last key.
    until: Nanos,
    /// The keys, sorted.
    keys: Vec<u64>,
}

impl KeyTable {
    /// Creates a table that keeps each key for `ttl`, and about `capacity` keys in total.
    pub(super) fn new(ttl: Duration, capacity: usize) -> Self {
        let capacity = capacity.div_ceil(SHARDS).max(1);
        Self { shards: Default::default(), origin: OnceLock::new(), ttl, capacity }
    }

    /// Inserts the key. Returns `true` if it was not present; of concurrent callers exactly one
    /// gets `true`.
    pub(super) fn claim(&self, key: u128, now: Instant) -> bool {
        let (mut shard, key) = self.shard(key);
        shard.expire(self.nanos(now));
        if shard.holds(key) {
            return false;
        }
        if shard.len() >= self.capacity {
            shard.make_room();
        }
        let until = self.nanos(now + self.ttl);
        shard.until.insert(key, until);
        shard.order.push_back((key, until));
        shard.put_away();
        true
    }

    /// Whether the key is present.
    pub(super) fn contains(&self, key: u128, now: Instant) -> bool {
        let (mut shard, key) = self.shard(key);
        shard.expire(self.nanos(now));
        shard.holds(key)
    }

    /// Removes a key because its event could not be processed and will be redelivered.
    pub(super) fn forget(&self, key: u128) {
        let (mut shard, key) = self.shard(key);
        if shard.until.remove(&key).is_none() {
            shard.forget_paged(key);
        }
    }

    /// Inserts a key of an earlier process that was first seen `age` ago. Keys must be passed
    /// newest first. Returns `false` if this and older keys have no space.
    pub(super) fn remember(&self, key: u128, age: Duration, now: Instant) -> bool {
        let (mut shard, key) = self.shard(key);
        if shard.len() >= self.capacity {
            return false;
        }
        self.nanos(now);
        if !shard.is_paged(key)
            && let Some(left) = self.ttl.checked_sub(age)
            && let std::collections::hash_map::Entry::Vacant(free) = shard.until.entry(key)
        {
            let until = self.nanos(now + left);
            free.insert(until);
            shard.order.push_front((key, until));
            shard.put_away();
        }
        true
    }

    fn nanos(&self, at: Instant) -> Nanos {
        let since = at.saturating_duration_since(*self.origin.get_or_init(|| at));
        Nanos::try_from(since.as_nanos()).unwrap_or(Nanos::MAX)
    }

    /// Returns the shard of a key and the half of the key that is stored.
    #[allow(clippy::indexing_slicing, reason = "the remainder is below the number of places")]
    fn shard(&self, key: u128) -> (MutexGuard<'_, Shard>, u64) {
        let place = usize::from(key.to_le_bytes()[0]) % SHARDS;
        let [a, b, c, d, e, f, g, h, ..] = key.to_le_bytes();
        (
            self.shards[place].lock().unwrap_or_else(PoisonError::into_inner),
            u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        )
    }
}

impl Shard {
    fn len(&self) -> usize {
        self.order.len() + self.paged
    }

    fn holds(&self, key: u64) -> bool {
        self.until.contains_key(&key) || self.is_paged(key)
    }

    fn is_paged(&self, key: u64) -> bool {
        self.pages.iter().any(|page| page.keys.binary_search(&key).is_ok())
    }

    /// Removes a key from the pages. Rarely needed, since keys are usually removed right after
    /// their insertion.
    fn forget_paged(&mut self, key: u64) {
        for page in &mut self.pages {
            if let Ok(at) = page.keys.binary_search(&key) {
                page.keys.remove(at);
                self.paged -= 1;
            }
        }
    }

    /// Moves the oldest keys to a page once there are two pages' worth of single keys.
    fn put_away(&mut self) {
        if self.order.len() < 2 * PAGE {
            return;
        }
        let mut page = Page { until: 0, keys: Vec::with_capacity(PAGE) };
        for (key, until) in self.order.drain(..PAGE) {
            // Skips keys that were removed, or removed and inserted again: those have a later
            // entry.
            if self.until.get(&key) == Some(&until) {
                self.until.remove(&key);
                page.keys.push(key);
                page.until = page.until.max(until);
            }
        }
        page.keys.sort_unstable();
        page.keys.shrink_to_fit();
        self.paged += page.keys.len();
        // Usually the last position. Keys of an earlier process can be older.
        let place = self.pages.partition_point(|other| other.until <= page.until);
        self.pages.insert(place, page);
    }

    fn make_room(&mut self) {
        match self.pages.pop_front() {
            Some(page) => self.paged -= page.keys.len(),
            None => self.drop_oldest(),
        }
    }

    fn expire(&mut self, now: Nanos) {
        while let Some(page) = self.pages.pop_front_if(|page| page.until <= now) {
            self.paged -= page.keys.len();
        }
        while self.order.front().is_some_and(|(_, until)| *until <= now) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((key, until)) = self.order.pop_front()
            // A key that was removed and inserted again has a later entry with a later expiry time.
            && self.until.get(&key) == Some(&until)
        {
            self.until.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Clock;
    use model::Timestamp;

    fn spread(n: u32) -> u128 {
        key_of(&[&n.to_be_bytes()])
    }

    #[test]
    fn keys_are_unambiguous_and_stable() {
        assert_ne!(key_of(&[b"ab", b"c"]), key_of(&[b"a", b"bc"]));
        assert_ne!(key_of(&[b"a"]), key_of(&[b"a", b""]));
        assert_eq!(key_of(&[b"connect", b"1", b"wacid.x"]), 0x15de64dc_df2dffcc_aefe950d_c8e082ed);
    }

    #[test]
    fn r05_keys_of_an_earlier_process_keep_their_remaining_lifetime() {
        let clock = Clock::stepped(Timestamp::from_secs(0));
        let seen = KeyTable::new(Duration::from_secs(600), 1_600);
        assert!(seen.claim(1, clock.now()));
        for (key, age) in [(2, 100), (3, 599), (4, 601)] {
            assert!(seen.remember(key, Duration::from_secs(age), clock.now()));
        }
        assert_eq!(
            [1, 2, 3, 4].map(|key| seen.contains(key, clock.now())),
            [true, true, true, false]
        );
        clock.step(Duration::from_secs(1));
        assert_eq!([1, 2, 3].map(|key| seen.contains(key, clock.now())), [true, true, false]);
        clock.step(Duration::from_secs(499));
        assert_eq!([1, 2].map(|key| seen.contains(key, clock.now())), [true, false]);
    }

    #[test]
    fn keys_expire_after_their_lifetime() {
        let clock = Clock::stepped(Timestamp::from_secs(0));
        let seen = KeyTable::new(Duration::from_secs(600), 100);
        assert!(seen.claim(1, clock.now()));
        assert!(!seen.claim(1, clock.now()));
        assert!(seen.claim(2, clock.now()));
        clock.step(Duration::from_millis(599_999));
        assert!(seen.contains(1, clock.now()));
        clock.step(Duration::from_millis(1));
        assert!(!seen.contains(1, clock.now()));
        assert!(seen.claim(1, clock.now()));
    }

    #[test]
    fn a_forgotten_key_can_be_claimed_again_with_a_new_lifetime() {
        let clock = Clock::stepped(Timestamp::from_secs(0));
        let seen = KeyTable::new(Duration::from_secs(10), 100);
        assert!(seen.claim(1, clock.now()));
        seen.forget(1);
        clock.step(Duration::from_secs(5));
        assert!(seen.claim(1, clock.now()));
        clock.step(Duration::from_secs(6));
        assert!(!seen.claim(1, clock.now()), "the first claim's end is not the second's");
    }

    #[test]
    fn r05_memory_is_bounded_and_the_oldest_go_first() {
        let clock = Clock::stepped(Timestamp::from_secs(0));
        let seen = KeyTable::new(Duration::from_secs(600), 1_600);
        for n in 0..100_000_u32 {
            assert!(seen.claim(spread(n), clock.now()));
        }
        let held: usize = seen.shards.iter().map(|s| s.lock().unwrap().order.len()).sum();
        assert!(held <= 1_600, "{held}");
        assert!(!seen.claim(spread(99_999), clock.now()));
        assert!(seen.claim(spread(0), clock.now()));
    }

    #[test]
    fn r05_paged_keys_are_found_forgotten_and_expired() {
        let clock = Clock::stepped(Timestamp::from_secs(0));
        let seen = KeyTable::new(Duration::from_secs(600), 500_000);
        let all = 100_000_u32;
        for n in 0..all {
            assert!(seen.claim(spread(n), clock.now()));
        }
        let (own, paged) =
            seen.shards.iter().map(|s| s.lock().unwrap()).fold((0, 0), |(own, paged), shard| {
                assert_eq!(shard.until.len(), shard.order.len());
                assert!(
                    shard
                        .pages
                        .iter()
                        .all(|page| page.keys.is_sorted() && page.keys.capacity() <= PAGE)
                );
                (own + shard.order.len(), paged + shard.paged)
            });
        assert_eq!(own + paged, 100_000);
        assert!(own < 2 * PAGE * SHARDS, "{own}");
        assert!((0..all).all(|n| !seen.claim(spread(n), clock.now())));
        seen.forget(spread(5));
        assert!(!seen.contains(spread(5), clock.now()));
        assert!(seen.claim(spread(5), clock.now()));
        assert!(!seen.claim(spread(5), clock.now()));
        clock.step(Duration::from_secs(600));
        assert!((0..all).all(|n| !seen.contains(spread(n), clock.now())));
        assert!(seen.shards.iter().all(|s| s.lock().unwrap().len() == 0));
    }

    #[test]
    fn r05_keys_of_an_earlier_process_are_paged_with_the_rest() {
        let clock = Clock::stepped(Timestamp::from_secs(0));
        let seen = KeyTable::new(Duration::from_secs(600), 500_000);
        for n in 0..60_000_u32 {
            assert!(seen.claim(spread(n), clock.now()));
        }
        // Newest first, as they are read from the store.
        for n in 0..100_000_u32 {
            assert!(seen.remember(spread(n), Duration::from_secs(n.into()) / 200, clock.now()));
        }
        assert!((0..100_000).all(|n| seen.contains(spread(n), clock.now())));
        let held: usize = seen.shards.iter().map(|s| s.lock().unwrap().len()).sum();
        assert_eq!(held, 100_000, "one that was there already is there once");
        clock.step(Duration::from_secs(599));
        assert!((0..60_000).all(|n| seen.contains(spread(n), clock.now())));
        clock.step(Duration::from_secs(1));
        assert!((0..100_000).all(|n| !seen.contains(spread(n), clock.now())));
    }

    #[test]
    fn r05_of_ten_concurrent_claims_one_succeeds() {
        let now = Clock::real().now();
        let seen = KeyTable::new(Duration::from_secs(600), 1_000);
        for key in 0..200 {
            let first = std::thread::scope(|scope| {
                let threads: Vec<_> =
                    (0..10).map(|_| scope.spawn(|| seen.claim(key, now))).collect();
                threads.into_iter().map(|t| t.join().unwrap()).filter(|first| *first).count()
            });
            assert_eq!(first, 1);
        }
    }
}
