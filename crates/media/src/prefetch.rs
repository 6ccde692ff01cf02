//! Prefetching of memory, so that several loads are in progress at a time.
//!
//! A hint to the processor: nothing is read, nothing can fail, and on other architectures it does
//! nothing.

/// Bytes per cache line.
const LINE: usize = 64;

/// Prefetches the first `most` bytes of `value` itself, not what it points to.
#[inline]
pub(crate) fn fetch<T: ?Sized>(value: &T, most: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let (from, bytes) = (std::ptr::from_ref(value).cast::<i8>(), size_of_val(value).min(most));
        for at in (0..bytes).step_by(LINE) {
            // SAFETY: a prefetch is a hint and valid for any address; this one lies within `value`.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(from.add(at)) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (value, most, LINE);
}

#[cfg(test)]
mod tests {
    use super::fetch;

    #[test]
    fn whatever_is_fetched_stays_what_it_is() {
        let bytes = [7_u8; 1_000];
        fetch(&bytes, usize::MAX);
        fetch(bytes.as_slice(), 10);
        fetch(&(), 64);
        fetch::<[u8]>(&[], 64);
        assert_eq!(bytes, [7; 1_000]);
    }
}
