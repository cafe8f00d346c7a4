//! The 16 lanes in two 256-bit vectors of AVX2, with FMA and F16C.

use std::arch::x86_64::*;

use super::Vectors;
use crate::dot::{LANES, Sum};

/// Made only in functions compiled for AVX2, FMA and F16C.
pub(super) struct Avx2;

/// An expression of intrinsics.
macro_rules! simd {
    ($expression:expr) => {{
        // SAFETY: `Avx2` is used only inside functions compiled for the features, on machines that have them; what
        // is loaded is a reference to that many bytes.
        unsafe { $expression }
    }};
}

impl Vectors for Avx2 {
    type Lanes = [__m256; 2];
    type Magnitudes = __m256i;

    #[inline(always)]
    fn zero() -> [__m256; 2] {
        simd!([_mm256_setzero_ps(), _mm256_setzero_ps()])
    }

    #[inline(always)]
    fn splat(x: f32) -> [__m256; 2] {
        simd!([_mm256_set1_ps(x), _mm256_set1_ps(x)])
    }

    #[inline(always)]
    fn f32(numbers: &[u8; 64]) -> [__m256; 2] {
        simd!({
            let start = numbers.as_ptr().cast::<f32>();
            [_mm256_loadu_ps(start), _mm256_loadu_ps(start.add(8))]
        })
    }

    #[inline(always)]
    fn f16(numbers: &[u8; 32]) -> [__m256; 2] {
        simd!({
            let start = numbers.as_ptr().cast::<__m128i>();
            [_mm256_cvtph_ps(_mm_loadu_si128(start)), _mm256_cvtph_ps(_mm_loadu_si128(start.add(1)))]
        })
    }

    #[inline(always)]
    fn bf16(numbers: &[u8; 32]) -> [__m256; 2] {
        simd!({
            let start = numbers.as_ptr().cast::<__m128i>();
            let low = _mm256_cvtepu16_epi32(_mm_loadu_si128(start));
            let high = _mm256_cvtepu16_epi32(_mm_loadu_si128(start.add(1)));
            [
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(low)),
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high)),
            ]
        })
    }

    #[inline(always)]
    fn coded_bf16(
        fractions: &[u8; 64],
        codes: &[u8; 64],
        is_upper: bool,
        exponents: &[u8; 32],
    ) -> [[__m256; 2]; 4] {
        let low =
            half_of_coded_bf16(&fractions.as_chunks().0[0], &codes.as_chunks().0[0], is_upper, exponents);
        let high =
            half_of_coded_bf16(&fractions.as_chunks().0[1], &codes.as_chunks().0[1], is_upper, exponents);
        [[low[0], high[0]], [low[1], high[1]], [low[2], high[2]], [low[3], high[3]]]
    }

    /// Each byte to the top of its f32, then down with its sign: exponent and fraction are where they belong.
    #[inline(always)]
    fn e4m3(numbers: &[u8; 16]) -> [__m256; 2] {
        simd!({
            let both = _mm256_broadcastsi128_si256(_mm_loadu_si128(numbers.as_ptr().cast()));
            let mask = _mm256_set1_epi32(0x87f0_0000_u32 as i32);
            let low = _mm256_srai_epi32::<4>(_mm256_shuffle_epi8(both, tops_of(0)));
            let high = _mm256_srai_epi32::<4>(_mm256_shuffle_epi8(both, tops_of(8)));
            [
                _mm256_castsi256_ps(_mm256_and_si256(low, mask)),
                _mm256_castsi256_ps(_mm256_and_si256(high, mask)),
            ]
        })
    }

    #[inline(always)]
    fn no_magnitudes() -> __m256i {
        simd!(_mm256_setzero_si256())
    }

    #[inline(always)]
    fn with_magnitudes<const N: usize>(mut most: __m256i, numbers: &[u8; N]) -> __m256i {
        simd!({
            for numbers in numbers.as_chunks::<32>().0 {
                let numbers = _mm256_loadu_si256(numbers.as_ptr().cast());
                most = _mm256_max_epu8(most, _mm256_and_si256(numbers, _mm256_set1_epi8(0x7f)));
            }
            most
        })
    }

    #[inline(always)]
    fn has_nan(most: __m256i) -> bool {
        simd!(_mm256_movemask_epi8(_mm256_cmpeq_epi8(most, _mm256_set1_epi8(0x7f))) != 0)
    }

    #[inline(always)]
    fn load(x: &[f32; LANES]) -> [__m256; 2] {
        simd!([_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x.as_ptr().add(8))])
    }

    #[inline(always)]
    fn scaled(a: [__m256; 2], factor: f32) -> [__m256; 2] {
        simd!({
            let factor = _mm256_set1_ps(factor);
            [_mm256_mul_ps(a[0], factor), _mm256_mul_ps(a[1], factor)]
        })
    }

    #[inline(always)]
    fn fma(a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
        simd!([_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])])
    }

    #[inline(always)]
    fn store(a: [__m256; 2]) -> Sum {
        let mut out = [0.0; LANES];
        simd!({
            _mm256_storeu_ps(out.as_mut_ptr(), a[0]);
            _mm256_storeu_ps(out.as_mut_ptr().add(8), a[1]);
        });
        out
    }
}

/// For a shuffle: eight bytes from `first` on as the top bytes of 32 bits each, zeros below.
#[inline(always)]
fn tops_of(first: i32) -> __m256i {
    let mut places = [0; 8];
    for (i, place) in places.iter_mut().enumerate() {
        *place = (first + i as i32) << 24 | 0x0080_8080;
    }
    simd!(_mm256_loadu_si256(places.as_ptr().cast()))
}

/// The lower or upper eight lanes of four groups.
#[inline(always)]
fn half_of_coded_bf16(
    fractions: &[u8; 32],
    codes: &[u8; 32],
    is_upper: bool,
    exponents: &[u8; 32],
) -> [__m256; 4] {
    simd!({
        let table = |at: usize| _mm256_broadcastsi128_si256(_mm_loadu_si128(exponents[at..].as_ptr().cast()));
        let codes = _mm256_loadu_si256(codes.as_ptr().cast());
        let codes = if is_upper { _mm256_srli_epi16::<4>(codes) } else { codes };
        let codes = _mm256_and_si256(codes, _mm256_set1_epi8(15));
        let fractions = _mm256_loadu_si256(fractions.as_ptr().cast());
        let sign = _mm256_and_si256(fractions, _mm256_set1_epi8(-128));
        let rest = _mm256_andnot_si256(_mm256_set1_epi8(-128), fractions);
        let upper = _mm256_or_si256(sign, _mm256_shuffle_epi8(table(0), codes));
        let lower = _mm256_or_si256(rest, _mm256_shuffle_epi8(table(16), codes));
        let (first, second) = (_mm256_unpacklo_epi8(lower, upper), _mm256_unpackhi_epi8(lower, upper));
        let odd = _mm256_set1_epi32(0xffff_0000_u32 as i32);
        [
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(first)),
            _mm256_castsi256_ps(_mm256_and_si256(first, odd)),
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(second)),
            _mm256_castsi256_ps(_mm256_and_si256(second, odd)),
        ]
    })
}
