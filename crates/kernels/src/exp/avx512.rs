//! Sixteen numbers at once, the operations of [`super::exp()`] in the same order.

use std::arch::x86_64::*;

use super::{COEFFICIENTS, HIGHEST, LN_2, LOWEST, ONE, ROUND};

/// [`super::exp()`] of each number.
///
/// # Safety
///
/// AVX-512 F.
#[inline(always)]
pub(crate) unsafe fn exp(x: __m512) -> __m512 {
    // SAFETY: promised by the caller.
    unsafe {
        let number = |number: f32| _mm512_set1_ps(number);
        // What is no number stays: beside one the second is given.
        let x = _mm512_min_ps(number(HIGHEST), _mm512_max_ps(number(LOWEST), x));
        let shifted = _mm512_fmadd_ps(x, number(std::f32::consts::LOG2_E), number(ROUND));
        let n = _mm512_sub_ps(shifted, number(ROUND));
        let r = _mm512_fmadd_ps(n, number(LN_2[1]), _mm512_fmadd_ps(n, number(LN_2[0]), x));
        let mut p = number(COEFFICIENTS[0]);
        for c in &COEFFICIENTS[1..] {
            p = _mm512_fmadd_ps(p, r, number(*c));
        }
        let fraction = _mm512_add_ps(_mm512_fmadd_ps(p, _mm512_mul_ps(r, r), r), number(1.0));
        let exponent = _mm512_slli_epi32::<23>(_mm512_castps_si512(shifted));
        let power = _mm512_add_epi32(exponent, _mm512_set1_epi32(ONE as i32));
        _mm512_mul_ps(fraction, _mm512_castsi512_ps(power))
    }
}
