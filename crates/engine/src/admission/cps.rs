//! Limits the calls per second of one account, exactly, in every one-second window.
//!
//! A ring of `cps` places holds the times of the last `cps` admissions. A place is only overwritten
//! by a time at least one window later than the time in it, and only by compare-and-swap from the
//! value that was checked. Two admissions of one place are therefore never within one window, and
//! `cps` places hold at most `cps` admissions of any window, whatever the interleaving and even if
//! the clocks of threads differ slightly. The place to check first is only a hint; a refusal has
//! checked all places.

use std::num::NonZeroUsize;
use std::sync::OnceLock;

use crossbeam_utils::CachePadded;

use super::sync::{AtomicU64, AtomicUsize, Ordering};

/// The window in nanoseconds.
const WINDOW: u64 = 1_000_000_000;
/// Additional time that a place stays unused before it is given to another node, because the clocks
/// of nodes differ.
const MARGIN: u64 = 1_000_000;
/// Number of places in the first segment. Each further segment doubles the total.
const FIRST: usize = 16;
/// The value of a place that was given to another node. It is later than any time.
const RETIRED: u64 = u64::MAX;
/// Number of segments. Together they hold 16 · 2^15 places, more than any account's rate.
const SEGMENTS: usize = 16;

/// The admission times of one account within the last window.
///
/// Times are monotonic nanoseconds since an origin that all callers share. A lowered limit applies
/// to windows that begin after the change; a window that spans the change holds at most the higher
/// of both limits.
pub struct Ring {
    limit: AtomicUsize,
    /// The place to check first, which is the one after the last taken.
    hint: CachePadded<AtomicUsize>,
    /// Places hold a time + 1, or 0 if never used. Segments are added when the limit grows and are
    /// never moved.
    segments: [OnceLock<Box<[AtomicU64]>>; SEGMENTS],
}

/// A place that an admission may take. Another admission may be first.
///
/// It has two words, one of them never 0, so that it is passed in registers. Three words would be
/// written to memory and read back in another width, which costs an admission some nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Vacancy {
    /// The place after this one.
    next: NonZeroUsize,
    /// The value of the place.
    was: u64,
}

/// A spent permit. It can be returned until it is known whether the call starts.
#[must_use]
#[derive(Clone, Copy, Debug)]
pub struct Permit(Vacancy);

/// Segment and offset of a place. Segments hold 0–15, 16–31, 32–63, 64–127, …
fn locate(place: usize) -> (usize, usize) {
    let doublings = (place / FIRST).checked_ilog2().map_or(0, |log| log as usize + 1);
    let begin = if doublings == 0 { 0 } else { FIRST << (doublings - 1) };
    (doublings, place - begin)
}

impl Ring {
    /// Creates a ring that allows `limit` admissions per second.
    pub fn new(limit: u32) -> Self {
        let ring = Self {
            limit: AtomicUsize::new(0),
            hint: CachePadded::new(AtomicUsize::new(0)),
            segments: std::array::from_fn(|_| OnceLock::new()),
        };
        ring.set_limit(limit);
        ring
    }

    /// Changes the limit. Values above 524,288 are reduced to it.
    pub fn set_limit(&self, limit: u32) {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(FIRST << (SEGMENTS - 1));
        let needed = if limit == 0 { 0 } else { locate(limit - 1).0 + 1 };
        for (index, segment) in self.segments.iter().enumerate().take(needed) {
            let places = if index == 0 { FIRST } else { FIRST << (index - 1) };
            segment.get_or_init(|| (0..places).map(|_| AtomicU64::new(0)).collect());
        }
        let before = self.limit.swap(limit, Ordering::AcqRel);
        for cell in (before..limit).filter_map(|place| self.cell(place)) {
            let _ = cell.compare_exchange(RETIRED, 0, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// Lowers the limit to `to` at `now`, but not below the places taken in the last second, and
    /// returns the new limit. The difference can be given to another node: no window that ends
    /// later holds an admission of those places. [`Ring::set_limit`] brings them back. Only one
    /// thread at a time may change the limit.
    pub fn lower_to(&self, to: u32, now: u64) -> usize {
        let to = usize::try_from(to).unwrap_or(usize::MAX);
        let mut limit = self.limit();
        while limit > to {
            let Some(cell) = self.cell(limit - 1) else { break };
            let was = cell.load(Ordering::Acquire);
            // Fails if an admission takes the place at this instant.
            if !is_rested(was, now.saturating_sub(MARGIN))
                || cell.compare_exchange(was, RETIRED, Ordering::AcqRel, Ordering::Relaxed).is_err()
            {
                break;
            }
            limit -= 1;
        }
        self.limit.store(limit, Ordering::Release);
        limit
    }

    /// The limit at this instant.
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Acquire)
    }

    /// Finds a place for an admission at `now`. Returns `None` if `limit` calls were admitted in
    /// the second before.
    pub fn find(&self, now: u64) -> Option<Vacancy> {
        self.vacancies(now).next()
    }

    /// Admissions in the second before `now`.
    pub fn spent(&self, now: u64) -> usize {
        self.limit().saturating_sub(self.vacancies(now).count())
    }

    /// The earliest time, `now` or later, at which an admission would be allowed. `u64::MAX` if the
    /// limit is 0.
    pub fn room_at(&self, now: u64) -> u64 {
        let places =
            (0..self.limit()).filter_map(|place| Some(self.cell(place)?.load(Ordering::Acquire)));
        let free = places
            .filter(|was| *was != RETIRED)
            .map(|was| if was == 0 { now } else { was.saturating_add(WINDOW).saturating_sub(1) });
        free.min().unwrap_or(u64::MAX).max(now)
    }

    /// Admits a call at `now`. Returns `None` if `limit` calls were admitted in the second before.
    pub fn take(&self, now: u64) -> Option<Permit> {
        self.vacancies(now).find_map(|found| self.try_take(found, now))
    }

    /// Like [`Ring::take`], with the result of a [`Ring::find`] at the same time.
    pub fn take_found(&self, found: Vacancy, now: u64) -> Option<Permit> {
        self.try_take(found, now).or_else(|| self.take(now))
    }

    fn try_take(&self, found: Vacancy, now: u64) -> Option<Permit> {
        let cell = self.cell(found.next.get() - 1)?;
        let is = now.saturating_add(1);
        // On failure another admission has taken this place, which is then used up for this second.
        cell.compare_exchange(found.was, is, Ordering::AcqRel, Ordering::Relaxed).ok()?;
        self.hint.store(found.next.get(), Ordering::Relaxed);
        Some(Permit(found))
    }

    /// Undoes a [`Ring::take`] at `now`, for a call that was refused later.
    pub fn give_back(&self, Permit(taken): Permit, now: u64) {
        let place = taken.next.get() - 1;
        if let Some(cell) = self.cell(place) {
            let is = now.saturating_add(1);
            // Fails only if the place was taken again a window later. Then there is nothing to
            // undo.
            if cell.compare_exchange(is, taken.was, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                self.hint.store(place, Ordering::Relaxed);
            }
        }
    }

    fn cell(&self, place: usize) -> Option<&AtomicU64> {
        let (segment, offset) = locate(place);
        self.segments.get(segment)?.get()?.get(offset)
    }

    /// Places that an admission at `now` may take, once around from the hint.
    fn vacancies(&self, now: u64) -> impl Iterator<Item = Vacancy> {
        let limit = self.limit();
        let hint = self.hint.load(Ordering::Relaxed);
        // After the last place, and when the limit was lowered, the hint is too high.
        let from = if hint < limit { hint } else { 0 };
        (from..limit).chain(0..from).filter_map(move |place| {
            let was = self.cell(place)?.load(Ordering::Acquire);
            let next = NonZeroUsize::MIN.saturating_add(place);
            is_rested(was, now).then_some(Vacancy { next, was })
        })
    }
}

/// Whether a place was not taken in the second before `now`.
fn is_rested(was: u64, now: u64) -> bool {
    was == 0 || now.saturating_add(1) >= was.saturating_add(WINDOW)
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ring({} a second)", self.limit())
    }
}
