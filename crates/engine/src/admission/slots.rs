//! Counts the simultaneous calls of one business number against its limit, in one atomic word.
//!
//! Count and limit share the word so that every acquisition is checked against the limit of that
//! instant. A [`Slot`] is released by dropping it and in no other way.

use crossbeam_utils::CachePadded;

use super::sync::{AtomicU64, Ordering};

/// The slots of one number, shared by its directory entries and by the slots taken. They are never
/// freed: a number that is removed and added again finds its live calls counted, and a reference
/// count would cost each call two more writes.
pub struct Slots {
    /// The limit in the upper half, and the number of slots in use in the lower half.
    word: CachePadded<AtomicU64>,
    high_water: AtomicU64,
}

/// One slot, held for as long as the call.
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
    /// Creates `limit` free slots.
    pub fn new(limit: u32) -> &'static Self {
        Box::leak(Box::new(Self {
            word: CachePadded::new(AtomicU64::new(word_of(limit, 0))),
            high_water: AtomicU64::new(0),
        }))
    }

    /// Takes a slot, or returns `None` if the limit is reached.
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

    /// Takes a slot for a call that another process of this node has admitted, even if the limit is
    /// reached.
    pub fn acquire_admitted(&'static self) -> Slot {
        let mine = u64::from(used(self.word.fetch_add(1, Ordering::AcqRel))) + 1;
        self.high_water.fetch_max(mine, Ordering::Relaxed);
        Slot(self)
    }

    /// Whether a slot is free at this instant. Another thread may take it first.
    #[inline]
    pub fn has_room(&self) -> bool {
        let word = self.word.load(Ordering::Relaxed);
        used(word) < limit(word)
    }

    /// Changes the limit. A lower limit ends no call: no slot is given out until enough have been
    /// released.
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

    /// Lowers the limit to `to`, or to the number of slots in use if that is greater, and returns
    /// the new limit. The difference can be given to another node, since no call of this node uses
    /// it from then on. A lower limit stays unchanged.
    pub fn lower_to(&self, to: u32) -> u32 {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            let lowered = limit(word).min(to.max(used(word)));
            match self.word.compare_exchange_weak(
                word,
                word_of(lowered, used(word)),
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return lowered,
                Err(now) => word = now,
            }
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

    /// The highest number of slots that were in use at the same time.
    pub fn high_water(&self) -> u64 {
        self.high_water.load(Ordering::Acquire)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // This cannot borrow from the upper half: the acquisition of this guard is part of the
        // count.
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
