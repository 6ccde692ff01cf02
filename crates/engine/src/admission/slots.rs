//! Simultaneous calls of one business number (L4, R1): a count and its limit in one atomic word.
//!
//! Both live in the same word so that an acquisition is checked against the limit of that very instant. A
//! [`Slot`] gives itself back when dropped; there is no other release.

use crossbeam_utils::CachePadded;

use super::sync::{AtomicU64, Ordering};

/// Slots of one number; shared by its directory entries, old and new, and by the slots taken. They are never freed: a
/// number that comes back finds its live calls counted, and to count who holds them would cost each call two more changes.
pub struct Slots {
    /// Upper half: the limit. Lower half: slots in use.
    word: CachePadded<AtomicU64>,
    high_water: AtomicU64,
}

/// One slot, held as long as the call.
#[must_use = "a slot dropped at once is given back at once"]
pub struct Slot(&'static Slots);

fn used(word: u64) -> u32 {
    (word & u64::from(u32::MAX)) as u32
}

fn limit(word: u64) -> u32 {
    (word >> 32) as u32
}

fn word_of(limit: u32, used: u32) -> u64 {
    u64::from(limit) << 32 | u64::from(used)
}

impl Slots {
    /// `limit` free slots, of a number that had none.
    pub fn new(limit: u32) -> &'static Self {
        Box::leak(Box::new(Self {
            word: CachePadded::new(AtomicU64::new(word_of(limit, 0))),
            high_water: AtomicU64::new(0),
        }))
    }

    /// Takes a slot; none if as many as the limit are in use.
    #[inline]
    pub fn acquire(&'static self) -> Option<Slot> {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            if used(word) >= limit(word) {
                return None;
            }
            match self.word.compare_exchange_weak(
                word,
                word + 1,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => break,
                Err(now) => word = now,
            }
        }
        let mine = u64::from(used(word)) + 1;
        if self.high_water.load(Ordering::Relaxed) < mine {
            self.high_water.fetch_max(mine, Ordering::Relaxed);
        }
        Some(Slot(self))
    }

    /// Whether a slot is free at this instant; another may take it first.
    #[inline]
    pub fn has_room(&self) -> bool {
        let word = self.word.load(Ordering::Relaxed);
        used(word) < limit(word)
    }

    /// Changes the limit. Lowering it ends no call: nothing is given out until enough slots have come back.
    pub fn set_limit(&self, limit: u32) {
        let mut word = self.word.load(Ordering::Relaxed);
        while let Err(now) = self.word.compare_exchange_weak(
            word,
            word_of(limit, used(word)),
            Ordering::AcqRel,
            Ordering::Relaxed,
        ) {
            word = now;
        }
    }

    /// Slots in use at this instant.
    pub fn in_use(&self) -> u32 {
        used(self.word.load(Ordering::Acquire))
    }

    /// The limit at this instant.
    pub fn limit(&self) -> u32 {
        limit(self.word.load(Ordering::Acquire))
    }

    /// The most slots that were ever in use together (R1's test).
    pub fn high_water(&self) -> u64 {
        self.high_water.load(Ordering::Acquire)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // Never borrows from the upper half: this guard's own acquisition is among those counted.
        self.0.word.fetch_sub(1, Ordering::AcqRel);
    }
}

impl std::fmt::Debug for Slots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Slots({} of {})", self.in_use(), self.limit())
    }
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Slot")
    }
}
