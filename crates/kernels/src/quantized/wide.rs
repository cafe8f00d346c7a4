//! Sixteen rows in 512-bit vectors of AVX-512 with VNNI, against many tokens.
//!
//! The codes of 32 columns are eight vectors and stay in registers, of which there are 32, while the tokens pass: four
//! activations are spread over a vector as they are multiplied (`vpdpbusd` with a broadcast operand), and a token's product takes eight
//! instructions for 16 rows. Sums are those of [`super::lanes::in_tiles`], to the bit.

use std::arch::x86_64::*;

use super::activations::Block;
use super::groups::{Linear, ScaledHalves};
use super::lanes::{Lanes, TOKENS};

/// An expression of intrinsics.
macro_rules! simd {
    ($expression:expr) => {{
        // SAFETY: called only from functions compiled for AVX-512 F, BW, DQ and VNNI, on machines that have them; what is loaded
        // is a reference.
        unsafe { $expression }
    }};
}

/// Two groups side by side.
pub(super) trait Pairs {
    /// Adds the products of some tokens at once, as one waits for its own.
    fn add<const T: usize>(&self, x: &[Block; T], sums: &mut [[__m256; 2]; T]);
}

/// Two groups against all tokens.
#[inline(always)]
pub(super) fn add_all(pair: &impl Pairs, x: &[Block], sums: &mut [[__m256; 2]]) {
    let ((fours, rest), (sums_of_fours, sums_of_rest)) =
        (x.as_chunks::<TOKENS>(), sums.as_chunks_mut::<TOKENS>());
    for (x, sums) in fours.iter().zip(sums_of_fours) {
        pair.add::<TOKENS>(x, sums);
    }
    for (x, sums) in rest.as_chunks::<1>().0.iter().zip(sums_of_rest.as_chunks_mut::<1>().0) {
        pair.add::<1>(x, sums);
    }
}

/// Two groups of the form `scale * (code - offset) + min`.
pub(super) struct Pair {
    codes: [__m512i; 8],
    offset: i32,
    scale: __m512,
    min: Option<__m512>,
}

impl Pair {
    /// Codes have so many bits; those of 8 are signed, and made unsigned.
    #[inline(always)]
    pub(super) fn new<L: Lanes<Int = __m256i, Float = __m256>>(
        bits: u32,
        [a, b]: [Linear<'_, L>; 2],
    ) -> Pair {
        let mut codes = codes(a.codes, b.codes);
        if bits == 8 {
            for codes in &mut codes {
                *codes = simd!(_mm512_xor_si512(*codes, _mm512_set1_epi8(-128)));
            }
        }
        let offset = a.offset as i32 + if bits == 8 { 128 } else { 0 };
        Pair { codes, offset, scale: floats(a.scale, b.scale), min: minima(a.min, b.min) }
    }
}

impl Pairs for Pair {
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
            add_step(&mut dots, self.codes[STEP], x, STEP);
        });
        for ((dot, x), sums) in dots.into_iter().zip(x).zip(sums) {
            let mut sum = with_scaled(load(sums), dot, self.scale, x);
            if let Some(min) = self.min {
                sum = simd!(_mm512_fmadd_ps(min, _mm512_set1_ps(x.scaled_sum), sum));
            }
            store(sums, sum);
        }
    }
}

/// Two groups whose halves have scales of their own.
pub(super) struct PairOfHalves {
    codes: [__m512i; 8],
    /// As 32 bits.
    half_scales: [__m512i; 2],
    /// Both as i16.
    factors: __m512i,
    scale: __m512,
    min: Option<__m512>,
}

impl PairOfHalves {
    #[inline(always)]
    pub(super) fn new<L: Lanes<Int = __m256i, Float = __m256>>(
        [a, b]: [ScaledHalves<'_, L>; 2],
    ) -> PairOfHalves {
        let mut half_scales = [simd!(_mm512_setzero_si512()); 2];
        for (half_scale, (a, b)) in half_scales.iter_mut().zip(a.half_scales.into_iter().zip(b.half_scales)) {
            *half_scale = simd!(_mm512_srai_epi32::<16>(ints(a, b)));
        }
        let (factors, scale) = (ints(a.factors, b.factors), floats(a.scale, b.scale));
        PairOfHalves {
            codes: codes(a.codes, b.codes),
            half_scales,
            factors,
            scale,
            min: minima(a.min, b.min),
        }
    }
}

impl Pairs for PairOfHalves {
    #[inline(always)]
    fn add<const T: usize>(&self, x: &[Block; T], sums: &mut [[__m256; 2]; T]) {
        let mut halves = [[simd!(_mm512_setzero_si512()); T]; 2];
        unrolled!(STEP in 0, 1, 2, 3 => {
            add_step(&mut halves[0], self.codes[STEP], x, STEP);
            add_step(&mut halves[1], self.codes[STEP + 4], x, STEP + 4);
        });
        let [first, second] = halves;
        for (((first, second), x), sums) in first.into_iter().zip(second).zip(x).zip(sums) {
            let both = simd!(x.sums.as_ptr().cast::<i32>().read_unaligned());
            let dot_sums = simd!(_mm512_madd_epi16(self.factors, _mm512_set1_epi32(both)));
            let dot = simd!(_mm512_add_epi32(
                _mm512_mullo_epi32(first, self.half_scales[0]),
                _mm512_mullo_epi32(second, self.half_scales[1]),
            ));
            let before = load(sums);
            let sum = match self.min {
                None => with_scaled(before, simd!(_mm512_sub_epi32(dot, dot_sums)), self.scale, x),
                Some(min) => with_scaled(with_scaled(before, dot, self.scale, x), dot_sums, min, x),
            };
            store(sums, sum);
        }
    }
}

/// Products of four columns of each token.
#[inline(always)]
fn add_step<const T: usize>(dots: &mut [__m512i; T], codes: __m512i, x: &[Block; T], step: usize) {
    for (dot, x) in dots.iter_mut().zip(x) {
        let four = simd!(_mm512_set1_epi32(x.codes.as_ptr().cast::<i32>().add(step).read_unaligned()));
        *dot = simd!(_mm512_dpbusd_epi32(*dot, codes, four));
    }
}

/// With whole numbers times a scale and a token's.
#[inline(always)]
fn with_scaled(sum: __m512, dot: __m512i, scale: __m512, x: &Block) -> __m512 {
    let scale = simd!(_mm512_mul_ps(scale, _mm512_set1_ps(x.scale)));
    simd!(_mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, sum))
}

#[inline(always)]
fn load(sums: &[__m256; 2]) -> __m512 {
    simd!(_mm512_loadu_ps(sums.as_ptr().cast()))
}

#[inline(always)]
fn store(sums: &mut [__m256; 2], sum: __m512) {
    simd!(_mm512_storeu_ps(sums.as_mut_ptr().cast(), sum));
}

#[inline(always)]
fn minima(a: Option<__m256>, b: Option<__m256>) -> Option<__m512> {
    match (a, b) {
        (Some(a), Some(b)) => Some(floats(a, b)),
        _ => None,
    }
}

#[inline(always)]
fn codes(a: &[__m256i; 8], b: &[__m256i; 8]) -> [__m512i; 8] {
    let mut codes = [simd!(_mm512_setzero_si512()); 8];
    for (codes, (a, b)) in codes.iter_mut().zip(a.iter().zip(b)) {
        *codes = ints(*a, *b);
    }
    codes
}

#[inline(always)]
fn ints(a: __m256i, b: __m256i) -> __m512i {
    simd!(_mm512_inserti64x4::<1>(_mm512_castsi256_si512(a), b))
}

#[inline(always)]
fn floats(a: __m256, b: __m256) -> __m512 {
    simd!(_mm512_insertf32x8::<1>(_mm512_castps256_ps512(a), b))
}
