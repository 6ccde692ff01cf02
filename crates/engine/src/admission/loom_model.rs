//! Runs `slots.rs` and `cps.rs` with loom's atomics, over every interleaving of two or three
//! threads.

mod sync {
    pub(super) use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
}

#[allow(dead_code, unreachable_pub, clippy::duplicate_mod)]
#[path = "cps.rs"]
mod cps;
#[allow(dead_code, unreachable_pub, clippy::duplicate_mod)]
#[path = "slots.rs"]
mod slots;

/// A deliberately racy implementation that checks before it takes. The model must detect the race.
mod racy {
    use super::sync::{AtomicU64, Ordering};

    pub(super) struct Slots {
        used: AtomicU64,
        limit: u64,
    }

    impl Slots {
        pub(super) fn new(limit: u64) -> Self {
            Self { used: AtomicU64::new(0), limit }
        }

        pub(super) fn acquire(&self) -> bool {
            let free = self.used.load(Ordering::SeqCst) < self.limit;
            if free {
                self.used.fetch_add(1, Ordering::SeqCst);
            }
            free
        }

        pub(super) fn in_use(&self) -> u64 {
            self.used.load(Ordering::SeqCst)
        }
    }
}

use std::sync::Arc;

use cps::Ring;
use loom::thread;
use slots::Slots;

const SECOND: u64 = 1_000_000_000;

#[test]
fn r01_three_threads_never_hold_more_slots_than_the_limit() {
    loom::model(|| {
        let slots = Slots::new(1);
        let threads: Vec<_> = (0..2)
            .map(|_| {
                thread::spawn(move || {
                    let slot = slots.acquire();
                    assert!(slots.in_use() <= 1);
                    slot.is_some()
                })
            })
            .collect();
        let mine = slots.acquire().is_some();
        let others = threads.into_iter().map(|t| t.join().unwrap()).filter(|got| *got).count();
        assert!(mine || others > 0, "one of them must get it");
        assert_eq!(slots.high_water(), 1);
        assert_eq!(slots.in_use(), 0, "all are back");
    });
}

#[test]
fn r01_a_lowered_limit_holds_immediately() {
    loom::model(|| {
        let slots = Slots::new(2);
        let held = slots.acquire().unwrap();
        let lower = thread::spawn(move || {
            slots.set_limit(1);
            // `held` is the one call that the limit allows, so any other slot was taken before.
            let before = slots.in_use();
            let late = slots.acquire();
            assert!(late.is_none());
            before
        });
        let second = slots.acquire();
        let before = lower.join().unwrap();
        assert_eq!(before, 1 + u32::from(second.is_some()), "nothing was let in after the change");
        drop(second);
        drop(held);
        assert_eq!((slots.in_use(), slots.limit()), (0, 1));
        assert!(slots.acquire().is_some());
    });
}

#[test]
fn r01_three_threads_and_a_limit_that_changes() {
    // All interleavings take half a minute. At most three preemptions take a moment.
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(|| {
        let slots = Slots::new(1);
        let taker = || thread::spawn(move || drop(slots.acquire()));
        let (one, two) = (taker(), taker());
        slots.set_limit(2);
        assert!(slots.in_use() <= 2);
        one.join().unwrap();
        two.join().unwrap();
        assert_eq!((slots.in_use(), slots.limit()), (0, 2), "a release never touches the limit");
        assert!(slots.high_water() <= 2);
    });
}

#[test]
#[should_panic(expected = "the twin let in two")]
fn r01_the_model_catches_the_racy_twin() {
    loom::model(|| {
        let slots = Arc::new(racy::Slots::new(1));
        let other = slots.clone();
        let thread = thread::spawn(move || other.acquire());
        slots.acquire();
        thread.join().unwrap();
        assert!(slots.in_use() <= 1, "the twin let in two");
    });
}

/// Checks first and takes last, as the gate does.
fn is_admitted(ring: &Ring, now: u64) -> bool {
    ring.find(now).and_then(|found| ring.take_found(found, now)).is_some()
}

#[test]
fn r01_two_threads_share_one_permit_a_second() {
    loom::model(|| {
        let ring = Arc::new(Ring::new(1));
        let other = ring.clone();
        let thread = thread::spawn(move || is_admitted(&other, 5));
        let mine = is_admitted(&ring, 7);
        assert!(mine ^ thread.join().unwrap(), "exactly one is let in");
        assert!(ring.take(SECOND + 4).is_none());
        assert!(ring.take(SECOND + 7).is_some());
    });
}

#[test]
fn r01_the_ring_holds_across_windows() {
    loom::model(|| {
        let ring = Arc::new(Ring::new(2));
        assert!(ring.take(0).is_some());
        let other = ring.clone();
        // At 1 s the first place is free again; at 0.5 s only the second is.
        let thread = thread::spawn(move || is_admitted(&other, SECOND));
        let mine = is_admitted(&ring, SECOND / 2);
        let late = ring.take(SECOND + 1).is_some();
        let admitted = [Some(0), mine.then_some(SECOND / 2), late.then_some(SECOND + 1)];
        let mut times: Vec<u64> = admitted.into_iter().flatten().collect();
        if thread.join().unwrap() {
            times.push(SECOND);
        }
        times.sort_unstable();
        assert!(times.windows(3).all(|w| w[2] - w[0] >= SECOND), "{times:?}");
    });
}

#[test]
fn r01_a_returned_permit_is_available_again() {
    loom::model(|| {
        let ring = Arc::new(Ring::new(1));
        let other = ring.clone();
        let thread = thread::spawn(move || {
            if let Some(permit) = other.take(3) {
                other.give_back(permit, 3);
            }
        });
        let mine = ring.take(4).is_some();
        thread.join().unwrap();
        assert_eq!(ring.take(5).is_some(), !mine);
    });
}

#[test]
fn f53_slots_given_to_another_node_are_not_in_use_here() {
    loom::model(|| {
        let here = Slots::new(2);
        let elsewhere = Slots::new(0);
        let calls = thread::spawn(move || here.acquire());
        let mine = here.acquire();
        // Lower the share first, then report it: the other node gets what is left of the cap.
        elsewhere.set_limit(2 - here.lower_to(0));
        let there = [elsewhere.acquire(), elsewhere.acquire()];
        let other = calls.join().unwrap();
        let live = [&mine, &other].into_iter().chain(&there).filter(|slot| slot.is_some()).count();
        assert!(live <= 2, "{live} calls of 2");
        assert_eq!(here.limit() + elsewhere.limit(), 2);
    });
}

#[test]
fn f53_permits_given_to_another_node_are_not_used_here() {
    loom::model(|| {
        let here = Arc::new(Ring::new(1));
        let taker = here.clone();
        let call = thread::spawn(move || is_admitted(&taker, 5 * SECOND));
        let left = here.lower_to(0, 5 * SECOND);
        let elsewhere = Ring::new(u32::try_from(1 - left).unwrap());
        let there = elsewhere.take(5 * SECOND).is_some();
        assert!(!(call.join().unwrap() && there), "2 calls of 1");
    });
}
