//! A global allocator that counts the allocations of each thread and forwards to the system's.
#![allow(unsafe_code, reason = "a global allocator and a thread's processor time; tests only")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
    static TOTAL: Cell<usize> = const { Cell::new(0) };
    static LARGEST: Cell<usize> = const { Cell::new(0) };
    /// Bytes held now and the peak. Memory freed by another thread is subtracted there, so the
    /// count may become negative.
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// Forwards to [`System`] and counts.
pub struct CountingAllocator;

/// The allocations of one thread during an operation, reallocations included.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Number of allocations.
    pub count: usize,
    /// Bytes of all allocations together, whether freed or not.
    pub total: usize,
    /// Bytes of the largest allocation.
    pub largest: usize,
    /// Largest number of bytes held at the same time, beyond those held before.
    pub peak: usize,
}

fn note(size: usize) {
    // The thread-local is gone while a thread exits.
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
    let _ = TOTAL.try_with(|total| total.set(total.get().wrapping_add(size)));
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(size)));
    hold(size.cast_signed());
}

fn hold(size: isize) {
    let _ = HELD.try_with(|held| {
        held.set(held.get().saturating_add(size));
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: every call is forwarded to `System` unchanged. The cells hold plain data and do not
// allocate.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: upheld by the caller.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: upheld by the caller.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        hold(-layout.size().cast_signed());
        // SAFETY: upheld by the caller.
        unsafe { System.realloc(old, layout, size) }
    }
    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        hold(-layout.size().cast_signed());
        // SAFETY: upheld by the caller.
        unsafe { System.dealloc(old, layout) }
    }
}

/// Runs `work` and returns its result with what this thread allocated.
pub fn measure<T>(work: impl FnOnce() -> T) -> (T, Usage) {
    COUNT.set(0);
    TOTAL.set(0);
    LARGEST.set(0);
    let before = HELD.get();
    PEAK.set(before);
    let result = work();
    let usage = Usage {
        count: COUNT.get(),
        total: TOTAL.get(),
        largest: LARGEST.get(),
        peak: usize::try_from(PEAK.get() - before).unwrap_or_default(),
    };
    (result, usage)
}

/// Returns the processor time that this thread has used so far.
pub fn thread_time() -> std::time::Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes the struct, which outlives it.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(status, 0, "the system reports thread times");
    std::time::Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}
