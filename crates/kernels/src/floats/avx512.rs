//! The 16 lanes in one 512-bit vector of AVX-512: half of the instructions of [`super::avx2`] for the same numbers.

use std::arch::x86_64::*;

use super::Vectors;
use super::avx2::Avx2;
use crate::dot::{LANES, Sum};

/// Made only in functions compiled for AVX2 and AVX-512 F, BW, DQ and VL.
pub(super) struct Avx512;

/// An expression of intrinsics.
macro_rules! simd {
    ($expression:expr) => {{
        // SAFETY: `Avx512` is used only inside functions compiled for the features, on machines that have them; what
        // is loaded is a reference to that many bytes.
        unsafe { $expression }
    }};
}

impl Vectors for Avx512 {
    const IS_ONE_REGISTER: bool = true;

    type Lanes = __m512;
    type Magnitudes = __m256i;

    #[inline(always)]
    fn zero() -> __m512 {
        simd!(_mm512_setzero_ps())
    }

    #[inline(always)]
    fn splat(x: f32) -> __m512 {
        simd!(_mm512_set1_ps(x))
    }

    #[inline(always)]
    fn f32(numbers: &[u8; 64]) -> __m512 {
        simd!(_mm512_loadu_ps(numbers.as_ptr().cast()))
    }

    #[inline(always)]
    fn f16(numbers: &[u8; 32]) -> __m512 {
        simd!(_mm512_cvtph_ps(_mm256_loadu_si256(numbers.as_ptr().cast())))
    }

    #[inline(always)]
    fn bf16(numbers: &[u8; 32]) -> __m512 {
        simd!({
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(numbers.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        })
    }

    #[inline(always)]
    fn coded_bf16(
        fractions: &[u8; 64],
        codes: &[u8; 64],
        is_upper: bool,
        exponents: &[u8; 32],
    ) -> [__m512; 4] {
        simd!({
            let table = |at: usize| _mm512_broadcast_i32x4(_mm_loadu_si128(exponents[at..].as_ptr().cast()));
            let codes = _mm512_loadu_si512(codes.as_ptr().cast());
            let codes = if is_upper { _mm512_srli_epi16::<4>(codes) } else { codes };
            let codes = _mm512_and_si512(codes, _mm512_set1_epi8(15));
            let fractions = _mm512_loadu_si512(fractions.as_ptr().cast());
            let sign = _mm512_and_si512(fractions, _mm512_set1_epi8(-128));
            let rest = _mm512_andnot_si512(_mm512_set1_epi8(-128), fractions);
            let upper = _mm512_or_si512(sign, _mm512_shuffle_epi8(table(0), codes));
            let lower = _mm512_or_si512(rest, _mm512_shuffle_epi8(table(16), codes));
            let pairs = [_mm512_unpacklo_epi8(lower, upper), _mm512_unpackhi_epi8(lower, upper)];
            let [first, second] = pairs.map(
                #[inline(always)]
                |pairs| {
                    let odd = _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff_0000_u32 as i32));
                    [_mm512_slli_epi32::<16>(pairs), odd].map(
                        #[inline(always)]
                        |bits| _mm512_castsi512_ps(bits),
                    )
                },
            );
            [first[0], first[1], second[0], second[1]]
        })
    }

    /// Each byte with its sign as 32 bits, then up: exponent and fraction are where they belong.
    #[inline(always)]
    fn e4m3(numbers: &[u8; 16]) -> __m512 {
        simd!({
            let wide = _mm512_cvtepi8_epi32(_mm_loadu_si128(numbers.as_ptr().cast()));
            let mask = _mm512_set1_epi32(0x87f0_0000_u32 as i32);
            _mm512_castsi512_ps(_mm512_and_si512(_mm512_slli_epi32::<20>(wide), mask))
        })
    }

    #[inline(always)]
    fn no_magnitudes() -> __m256i {
        Avx2::no_magnitudes()
    }

    #[inline(always)]
    fn with_magnitudes<const N: usize>(most: __m256i, numbers: &[u8; N]) -> __m256i {
        Avx2::with_magnitudes(most, numbers)
    }

    #[inline(always)]
    fn has_nan(most: __m256i) -> bool {
        Avx2::has_nan(most)
    }

    #[inline(always)]
    fn load(x: &[f32; LANES]) -> __m512 {
        simd!(_mm512_loadu_ps(x.as_ptr()))
    }

    #[inline(always)]
    fn scaled(a: __m512, factor: f32) -> __m512 {
        simd!(_mm512_mul_ps(a, _mm512_set1_ps(factor)))
    }

    #[inline(always)]
    fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        simd!(_mm512_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn store(a: __m512) -> Sum {
        let mut out = [0.0; LANES];
        simd!(_mm512_storeu_ps(out.as_mut_ptr(), a));
        out
    }
}
