//! Telling the cache what will be read soon.
//!
//! Kernels read several rows of weights at once, and short rows end before the processor has seen a pattern in that.
//! What comes next lies behind them in memory, so it is asked for piece by piece while they are multiplied.

/// What the cache loads at once, in bytes.
const CACHE_LINE: usize = 64;

/// Asks for `bytes` bytes from `start` on, to be near. Nothing is read, so any address will do.
#[inline(always)]
pub(crate) fn prefetch(start: *const u8, bytes: usize) {
    ask::<FIRST_LEVEL>(start, bytes);
}

/// The same for the second-level cache, where it drives nothing out of the first.
#[inline(always)]
pub(crate) fn prefetch_second_level(start: *const u8, bytes: usize) {
    ask::<SECOND_LEVEL>(start, bytes);
}

/// The hints as x86-64 has them: `_MM_HINT_T0`, `_MM_HINT_T1`.
const FIRST_LEVEL: i32 = 3;
const SECOND_LEVEL: i32 = 2;

#[inline(always)]
fn ask<const HINT: i32>(start: *const u8, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in 0..bytes.div_ceil(CACHE_LINE) {
        use std::arch::x86_64::_mm_prefetch;
        // SAFETY: a hint, which never faults; SSE is part of every x86-64.
        unsafe { _mm_prefetch::<HINT>(start.wrapping_add(line * CACHE_LINE).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (start, bytes, CACHE_LINE);
}
