//! Sixteen rows in 512-bit vectors of AVX-512 with VNNI, against many tokens.
//!
//! The codes of 32 columns are eight vectors and stay in registers, of which there are 32, while the tokens pass: four
//! activations are spread over a vector as they are multiplied (`vpdpbusd` with a broadcast operand), and a token's product takes eight
//! instructions for 16 rows. Sums are those of [`super::lanes::in_tiles`], to the bit.

use std::arch::x86_64::*;

use super::activations::Block;
use super::groups::Linear;
use super::lanes::{Lanes, TOKENS};

/// An expression of intrinsics.
macro_rules! simd {
    ($expression:expr) => {{
        // SAFETY: called only from functions compiled for AVX-512 F, DQ and VNNI, on machines that have them; what is loaded
        // is a reference.
        unsafe { $expression }
    }};
}

/// Two groups side by side.
struct Pair {
    codes: [__m512i; 8],
    /// What is subtracted from each code.
    offset: i32,
    scale: __m512,
    min: Option<__m512>,
}

/// Two groups of codes with so many bits (8: signed) against all tokens.
#[inline(always)]
pub(super) fn add_products<L: Lanes<Int = __m256i, Float = __m256>>(
    bits: u32,
    groups: [Linear<'_, L>; 2],
    x: &[Block],
    sums: &mut [[__m256; 2]],
) {
    let pair = Pair::new(bits, groups);
    let ((fours, rest), (sums_of_fours, sums_of_rest)) =
        (x.as_chunks::<TOKENS>(), sums.as_chunks_mut::<TOKENS>());
    for (x, sums) in fours.iter().zip(sums_of_fours) {
        pair.add::<TOKENS>(x, sums);
    }
    for (x, sums) in rest.as_chunks::<1>().0.iter().zip(sums_of_rest.as_chunks_mut::<1>().0) {
        pair.add::<1>(x, sums);
    }
}

impl Pair {
    #[inline(always)]
    fn new<L: Lanes<Int = __m256i, Float = __m256>>(bits: u32, [a, b]: [Linear<'_, L>; 2]) -> Pair {
        let mut codes = [simd!(_mm512_setzero_si512()); 8];
        for (codes, (a, b)) in codes.iter_mut().zip(a.codes.iter().zip(b.codes)) {
            let both = simd!(_mm512_inserti64x4::<1>(_mm512_castsi256_si512(*a), *b));
            *codes = if bits == 8 { simd!(_mm512_xor_si512(both, _mm512_set1_epi8(-128))) } else { both };
        }
        let min = match (a.min, b.min) {
            (Some(a), Some(b)) => Some(side_by_side(a, b)),
            _ => None,
        };
        let offset = a.offset as i32 + if bits == 8 { 128 } else { 0 };
        Pair { codes, offset, scale: side_by_side(a.scale, b.scale), min }
    }

    /// Some tokens at once, as one waits for its own products.
    #[inline(always)]
    fn add<const T: usize>(&self, x: &[Block; T], sums: &mut [[__m256; 2]; T]) {
        let mut dots = [simd!(_mm512_setzero_si512()); T];
        if self.offset != 0 {
            for (dot, x) in dots.iter_mut().zip(x) {
                let sum = i32::from(x.sums[0]) + i32::from(x.sums[1]);
                *dot = simd!(_mm512_set1_epi32(-self.offset * sum));
            }
        }
        unrolled!(STEP in 0, 1, 2, 3, 4, 5, 6, 7 => {
            for (dot, x) in dots.iter_mut().zip(x) {
                let four = simd!(_mm512_set1_epi32(x.codes.as_ptr().cast::<i32>().add(STEP).read_unaligned()));
                *dot = simd!(_mm512_dpbusd_epi32(*dot, self.codes[STEP], four));
            }
        });
        for ((dot, x), sums) in dots.into_iter().zip(x).zip(sums) {
            let before = simd!(_mm512_loadu_ps(sums.as_ptr().cast()));
            let scale = simd!(_mm512_mul_ps(self.scale, _mm512_set1_ps(x.scale)));
            let mut sum = simd!(_mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, before));
            if let Some(min) = self.min {
                sum = simd!(_mm512_fmadd_ps(min, _mm512_set1_ps(x.scaled_sum), sum));
            }
            simd!(_mm512_storeu_ps(sums.as_mut_ptr().cast(), sum));
        }
    }
}

#[inline(always)]
fn side_by_side(a: __m256, b: __m256) -> __m512 {
    simd!(_mm512_insertf32x8::<1>(_mm512_castps256_ps512(a), b))
}
