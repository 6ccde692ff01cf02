//! Numbers by Meta's id, cached per thread, so that a look-up writes no memory that threads share.
//!
//! A snapshot of the tables costs two shared writes, and an admission does hardly more than that.
//! The cache of a thread holds entries weakly: a replaced entry, with its tokens, is freed when the
//! last call that started with it has ended, even if the thread sleeps. Only the ids and the bare
//! allocations of the entries stay.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;

use super::entry::NumberEntry;
use model::PhoneNumberId;

/// The number of the latest edition of any index. Numbers are unique across indexes, so they also
/// distinguish the indexes in a thread's cache.
static LAST: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The edition that this thread used last.
    static SEEN: RefCell<Option<Arc<Edition>>> = const { RefCell::new(None) };
}

/// The numbers of one state of the tables.
#[derive(Debug, Default)]
struct Edition {
    /// The number of the edition. 0 if it is empty.
    nr: u64,
    /// Looked up for every webhook. The ids come from the node's own configuration, so an attacker
    /// cannot choose colliding keys.
    by_id: HashMap<PhoneNumberId, Weak<NumberEntry>, foldhash::fast::RandomState>,
}

/// The current edition.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Written after `edition`, so that a thread which reads this number finds that edition or a
    /// newer one.
    nr: AtomicU64,
    edition: ArcSwap<Edition>,
}

/// The result of a look-up.
pub(super) enum Lookup {
    Entry(Arc<NumberEntry>),
    /// The entry was just replaced. Look it up in the tables.
    Replaced,
    Unknown,
}

impl Index {
    /// Replaces all numbers. Calls must not overlap.
    pub(super) fn replace<'n>(&self, numbers: impl Iterator<Item = &'n Arc<NumberEntry>>) {
        let nr = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        let by_id = numbers
            .map(|entry| (entry.spec.phone_number_id.clone(), Arc::downgrade(entry)))
            .collect();
        self.edition.store(Arc::new(Edition { nr, by_id }));
        self.nr.store(nr, Ordering::Release);
    }

    /// Looks up the entry of an id.
    #[inline]
    pub(super) fn find(&self, id: &PhoneNumberId) -> Lookup {
        SEEN.with_borrow_mut(|seen| {
            let nr = self.nr.load(Ordering::Acquire);
            let edition = match seen {
                Some(edition) if edition.nr == nr => edition,
                _ => seen.insert(self.edition.load_full()),
            };
            match edition.by_id.get(id).map(Weak::upgrade) {
                Some(Some(entry)) => Lookup::Entry(entry),
                Some(None) => Lookup::Replaced,
                None => Lookup::Unknown,
            }
        })
    }
}
