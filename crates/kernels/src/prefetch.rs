//! Telling the cache what will be read soon.
//!
//! Kernels read several rows of weights at once, and short rows end before the processor has seen a pattern in that.
//! What comes next lies behind them in memory, so it is asked for piece by piece while they are multiplied.

use crate::matrix::{Matrix, Storage};

/// What the cache loads at once, in bytes.
const CACHE_LINE: usize = 64;

/// Where the stored numbers of a matrix begin from some row on: what a task reads next. A hint, never read through.
#[derive(Clone, Copy)]
pub(crate) struct RowStart {
    pub(crate) codes: *const u8,
    /// INT4: its scales, which lie elsewhere.
    pub(crate) scales: *const u8,
}

impl RowStart {
    /// Nothing is read next, or nobody knows what.
    pub(crate) const NOWHERE: RowStart = RowStart { codes: std::ptr::null(), scales: std::ptr::null() };

    /// So many bytes later, codes and scales.
    #[inline(always)]
    pub(crate) fn offset(self, [codes, scales]: [usize; 2]) -> RowStart {
        RowStart { codes: self.codes.wrapping_add(codes), scales: self.scales.wrapping_add(scales) }
    }

    /// A row of a matrix, of panels the first of a panel; behind the last row is nothing.
    pub(crate) fn of(w: &Matrix, row: usize) -> RowStart {
        if row >= w.rows() {
            return RowStart::NOWHERE;
        }
        let start = |bytes: &[u8]| bytes.as_ptr().wrapping_add(bytes.len() / w.rows() * row);
        match w.storage() {
            Storage::F32(b) | Storage::F16(b) | Storage::Bf16(b) | Storage::Fp8 { weight: b, .. } => {
                RowStart { codes: start(b), ..RowStart::NOWHERE }
            }
            Storage::Ggml { blocks, .. } | Storage::CodedBf16 { blocks, .. } => {
                RowStart { codes: start(blocks), ..RowStart::NOWHERE }
            }
            Storage::Int4 { packed: b, scale } | Storage::Interleaved { blocks: b, scale, .. } => {
                RowStart { codes: start(b), scales: start(scale) }
            }
        }
    }
}

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
    #[cfg(target_arch = "aarch64")]
    for line in 0..bytes.div_ceil(CACHE_LINE) {
        let line = start.wrapping_add(line * CACHE_LINE);
        // SAFETY: a hint, which never faults; part of every aarch64.
        unsafe {
            match HINT {
                FIRST_LEVEL => {
                    std::arch::asm!("prfm pldl1keep, [{}]", in(reg) line, options(nostack, preserves_flags, readonly))
                }
                _ => {
                    std::arch::asm!("prfm pldl2keep, [{}]", in(reg) line, options(nostack, preserves_flags, readonly))
                }
            }
        }
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = (start, bytes, CACHE_LINE);
}
