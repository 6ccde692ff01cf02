//! Numbers by Meta's id, as each thread has seen them last: a look-up that changes no memory which threads share.
//!
//! A snapshot of the tables costs two such changes, and an admission is hardly more than what it changes. A thread's copy
//! holds the entries weakly: what was replaced goes, tokens included, when the last call that began with it has ended,
//! however long a thread sleeps on its copy. What such a copy keeps are the ids, and the bare memory of their entries.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;

use super::directory::NumberEntry;
use model::PhoneNumberId;

/// The last edition of any index: no two share one, so that a thread's copy says by it whose it is, too.
static LAST: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The edition that this thread has looked in last.
    static SEEN: RefCell<Option<Arc<Edition>>> = const { RefCell::new(None) };
}

/// The numbers of one state of the tables.
#[derive(Debug, Default)]
struct Edition {
    /// 0 is empty.
    nr: u64,
    /// Asked for every webhook. The ids in it are our own configuration's: no stranger can make them collide.
    by_id: HashMap<PhoneNumberId, Weak<NumberEntry>, foldhash::fast::RandomState>,
}

/// The edition in force.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Set behind `edition`: a thread that reads it finds this edition or a newer one there.
    nr: AtomicU64,
    edition: ArcSwap<Edition>,
}

/// What is known of an id.
pub(super) enum Found {
    Entry(Arc<NumberEntry>),
    /// Its entry was replaced at this very moment: the tables know more.
    Replaced,
    Unknown,
}

impl Index {
    /// Puts these numbers in force; by one at a time.
    pub(super) fn replace<'n>(&self, numbers: impl Iterator<Item = &'n Arc<NumberEntry>>) {
        let nr = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        let by_id = numbers
            .map(|entry| (entry.spec.phone_number_id.clone(), Arc::downgrade(entry)))
            .collect();
        self.edition.store(Arc::new(Edition { nr, by_id }));
        self.nr.store(nr, Ordering::Release);
    }

    /// The entry of an id, to keep.
    #[inline]
    pub(super) fn find(&self, id: &PhoneNumberId) -> Found {
        SEEN.with_borrow_mut(|seen| {
            let nr = self.nr.load(Ordering::Acquire);
            let edition = match seen {
                Some(edition) if edition.nr == nr => edition,
                _ => seen.insert(self.edition.load_full()),
            };
            match edition.by_id.get(id).map(Weak::upgrade) {
                Some(Some(entry)) => Found::Entry(entry),
                Some(None) => Found::Replaced,
                None => Found::Unknown,
            }
        })
    }
}
