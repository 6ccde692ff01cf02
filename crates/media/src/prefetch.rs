//! Prefetching of memory, so that several loads are in progress at a time.
//!
//! A prefetch is only a hint to the processor: nothing is read, and nothing can fail. On
//! architectures other than x86-64 it has no effect.

/// Bytes per cache line.
const CACHE_LINE: usize = 64;

/// Prefetches the first `max_bytes` bytes of `value` itself, without following pointers.
#[inline]
pub(crate) fn prefetch<T: ?Sized>(value: &T, max_bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let (start, bytes) =
            (std::ptr::from_ref(value).cast::<i8>(), size_of_val(value).min(max_bytes));
        for offset in (0..bytes).step_by(CACHE_LINE) {
            // SAFETY: a prefetch is a hint and valid for any address; this one lies within `value`.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.add(offset)) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (value, max_bytes, CACHE_LINE);
}

#[cfg(test)]
mod tests {
    use super::prefetch;

    #[test]
    fn leaves_the_value_unchanged() {
        let bytes = [7_u8; 1_000];
        prefetch(&bytes, usize::MAX);
        prefetch(bytes.as_slice(), 10);
        prefetch(&(), 64);
        prefetch::<[u8]>(&[], 64);
        assert_eq!(bytes, [7; 1_000]);
    }
}
