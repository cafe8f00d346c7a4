//! A row of a panel is one vector of 512 bits: half the instructions, and twelve rows at a time.

use std::arch::x86_64::*;

use super::{COLUMNS, Strip};

/// Rows of the panel that are in registers together: where a row of numbers begins is then looked up once for all of them.
const STRIPS: usize = 4;

/// An expression of intrinsics.
macro_rules! simd {
    ($expression:expr) => {{
        // SAFETY: called only from functions compiled for AVX-512 F, on machines that have it; what is loaded is a reference, or
        // within what has been cut to its length.
        unsafe { $expression }
    }};
}

/// As [`super::block`], the same chains of sums.
#[inline(always)]
pub(super) fn block<const ADD: bool, const ROWS: usize>(
    a: &[&[f32]],
    panel: &[Strip],
    factors: &[f32],
    out: &mut [f32],
    stride: usize,
) -> usize {
    let depth = panel.len();
    let mut rows: [&[f32]; ROWS] = [&[]; ROWS];
    let mut sums = [simd!(_mm512_setzero_ps()); ROWS];
    for r in 0..ROWS {
        rows[r] = &a[r][..depth];
        if ADD {
            let before = &out[r * stride..][..COLUMNS];
            sums[r] = simd!(_mm512_mul_ps(_mm512_set1_ps(factors[r]), _mm512_loadu_ps(before.as_ptr())));
        }
    }
    let (fours, rest) = panel.as_chunks::<STRIPS>();
    for (k, four) in fours.iter().enumerate() {
        add::<ROWS, STRIPS>(&mut sums, &rows, STRIPS * k, four);
    }
    for (k, one) in rest.as_chunks::<1>().0.iter().enumerate() {
        add::<ROWS, 1>(&mut sums, &rows, STRIPS * fours.len() + k, one);
    }
    for r in 0..ROWS {
        let out = &mut out[r * stride..][..COLUMNS];
        simd!(_mm512_storeu_ps(out.as_mut_ptr(), sums[r]));
    }
    ROWS
}

/// The products of some of the panel's rows, which begin at number `k` of each row of `a`; all have them.
#[inline(always)]
fn add<const ROWS: usize, const N: usize>(
    sums: &mut [__m512; ROWS],
    a: &[&[f32]; ROWS],
    k: usize,
    strips: &[Strip; N],
) {
    let mut vectors = [simd!(_mm512_setzero_ps()); N];
    for i in 0..N {
        vectors[i] = simd!(_mm512_loadu_ps(strips[i].as_ptr()));
    }
    for r in 0..ROWS {
        for i in 0..N {
            let number = simd!(_mm512_set1_ps(*a[r].get_unchecked(k + i)));
            sums[r] = simd!(_mm512_fmadd_ps(number, vectors[i], sums[r]));
        }
    }
}
