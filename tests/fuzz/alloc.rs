//! A global allocator that records the allocations of each thread and forwards to the system's.
#![allow(unsafe_code, reason = "neither can be watched otherwise; only tests are built with it")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
    /// Bytes held now and the peak. Memory freed by another thread is subtracted there, so the
    /// count may become negative.
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

/// Forwards to [`System`] and counts.
pub struct Watched;

fn note(size: usize) {
    // The thread-local is gone while a thread exits.
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(size)));
    hold(size.cast_signed());
}

fn hold(size: isize) {
    let _ = HELD.try_with(|held| {
        held.set(held.get().saturating_add(size));
        let _ = MOST.try_with(|most| most.set(most.get().max(held.get())));
    });
}

// SAFETY: every call is forwarded to `System` unchanged. The cells hold plain data and do not
// allocate.
unsafe impl GlobalAlloc for Watched {
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

/// The largest piece that this thread asks for in `work`.
pub fn largest_in(work: impl FnOnce()) -> usize {
    LARGEST.set(0);
    work();
    LARGEST.get()
}

/// The most that this thread holds at a time in `work`, beyond what it held before.
pub fn most_in(work: impl FnOnce()) -> usize {
    let before = HELD.get();
    MOST.set(before);
    work();
    usize::try_from(MOST.get() - before).unwrap_or_default()
}

/// Processor time that this thread has taken so far.
pub fn worked() -> std::time::Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it writes the struct, which outlives the call.
    let told = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(told, 0, "this system tells a thread's time");
    std::time::Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}
