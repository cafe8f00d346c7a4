//! Weights of a whole tile, sixteen in a vector of 512 bits: the operations of [`super::weigh`], each number's in the same order,
//! and sums in its eight lanes.

use std::arch::x86_64::*;

use super::{REGISTER, total};
use crate::exp::{self, exp};

/// Numbers in a vector.
pub(in crate::attention) const WIDTH: usize = 16;

/// An expression of intrinsics.
macro_rules! simd {
    ($expression:expr) => {{
        // SAFETY: called only from functions compiled for AVX-512 F and DQ, on machines that have them; what is loaded and stored
        // are references.
        unsafe { $expression }
    }};
}

/// As [`super::weigh`]; `TILE` is whole vectors.
#[inline(always)]
pub(in crate::attention) fn weigh<const TILE: usize>(
    scores: &mut [f32; TILE],
    scale: f32,
    max: &mut f32,
    sum: &mut f32,
) -> f32 {
    let vectors = scores.as_chunks_mut::<WIDTH>().0;
    // Beside what is no number the second is given, as by `if score > lane { score } else { lane }`.
    let mut lanes = simd!(_mm512_set1_ps(*max));
    for numbers in &mut *vectors {
        simd!({
            let scores = _mm512_mul_ps(_mm512_loadu_ps(numbers.as_ptr()), _mm512_set1_ps(scale));
            _mm512_storeu_ps(numbers.as_mut_ptr(), scores);
            lanes = _mm512_max_ps(scores, lanes);
        });
    }
    let largest = simd!(_mm512_reduce_max_ps(lanes));
    for numbers in &mut *vectors {
        simd!({
            let relative = _mm512_sub_ps(_mm512_loadu_ps(numbers.as_ptr()), _mm512_set1_ps(largest));
            _mm512_storeu_ps(numbers.as_mut_ptr(), exp::avx512::exp(relative));
        });
    }
    let factor = exp(*max - largest);
    *max = largest;
    *sum = factor.mul_add(*sum, total(sums(scores)));
    factor
}

/// The sums of every eighth number, in order.
#[inline(always)]
pub(in crate::attention) fn sums(numbers: &[f32]) -> [f32; REGISTER] {
    let mut sums = [0.0; REGISTER];
    for group in numbers.as_chunks::<REGISTER>().0 {
        for l in 0..REGISTER {
            sums[l] += group[l];
        }
    }
    sums
}
