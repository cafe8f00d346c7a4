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

    #[inline(always)]
    fn zero() -> [__m256; 2] {
        simd!([_mm256_setzero_ps(), _mm256_setzero_ps()])
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

    /// Seven bits moved up by seven are an f16 of 2^-8 the size, subnormal ones too; only NaN has to be made.
    #[inline(always)]
    fn e4m3(numbers: &[u8; 16]) -> [__m256; 2] {
        simd!({
            let wide = _mm256_cvtepi8_epi16(_mm_loadu_si128(numbers.as_ptr().cast()));
            let halves = _mm256_and_si256(_mm256_slli_epi16::<7>(wide), _mm256_set1_epi16(0xbf80_u16 as i16));
            let magnitude = _mm256_and_si256(halves, _mm256_set1_epi16(0x3f80));
            let nan = _mm256_cmpeq_epi16(magnitude, _mm256_set1_epi16(0x3f80));
            let halves = _mm256_or_si256(halves, _mm256_and_si256(nan, _mm256_set1_epi16(0x7e00)));
            [
                _mm256_cvtph_ps(_mm256_castsi256_si128(halves)),
                _mm256_cvtph_ps(_mm256_extracti128_si256::<1>(halves)),
            ]
        })
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
