//! Activations as int8: blocks of 32 numbers with one scale.
//!
//! `scale = max |x| / 127`, codes rounded to nearest, ties to even. A block that holds an infinity or a NaN gets
//! the scale NaN, so that a broken row stays broken and is not silently made finite.

use crate::exp::ROUND;
use crate::isa::Isa;

/// Numbers that share a scale.
pub(crate) const BLOCK: usize = 32;

/// 32 activations: `x[i] ≈ codes[i] * scale`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C)]
pub(crate) struct Block {
    /// From -127 to 127.
    pub(crate) codes: [i8; BLOCK],
    pub(crate) scale: f32,
    /// `scale * Σ codes`: what a constant added to all weights contributes.
    pub(crate) scaled_sum: f32,
    /// `Σ codes` of each half.
    pub(crate) sums: [i16; 2],
}

/// In which order a block's codes lie: that in which a weight format's codes come out of their bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// That of the columns.
    Natural,
    /// Columns 0, 2, 4… then 1, 3, 5…: INT4 packs neighbours into one byte.
    EvenOdd,
}

/// Quantises 32 numbers.
#[inline(always)]
pub(crate) fn quantize(isa: Isa, x: &[f32; BLOCK], order: Order) -> Block {
    match isa {
        // SAFETY: these values of `Isa` come from `Isa::available`, which has seen AVX2.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 | Isa::Avx512 | Isa::Amx => unsafe { avx2::quantize(x, order) },
        _ => quantize_scalar(x, order),
    }
}

fn quantize_scalar(x: &[f32; BLOCK], order: Order) -> Block {
    // As whole numbers, magnitudes compare like the floats, and NaN is the largest.
    let largest = x.iter().fold(0, |largest, x| (x.to_bits() & 0x7fff_ffff).max(largest));
    let (scale, factor) = match scale_and_factor(largest) {
        Ok(both) => both,
        Err(block) => return block,
    };
    let natural: [i8; BLOCK] = std::array::from_fn(|i| (x[i] * factor + ROUND).to_bits() as i8);
    let codes = match order {
        Order::Natural => natural,
        Order::EvenOdd => std::array::from_fn(|i| natural[2 * i % BLOCK + 2 * i / BLOCK]),
    };
    let sum = |half: usize| codes[16 * half..16 * half + 16].iter().map(|code| i16::from(*code)).sum();
    Block::new(codes, scale, [sum(0), sum(1)])
}

/// The scale of a block and its reciprocal, from the bits of its largest magnitude; or the block, if it has no scale.
#[inline(always)]
fn scale_and_factor(largest: u32) -> Result<(f32, f32), Block> {
    let largest = f32::from_bits(largest);
    match largest {
        _ if !largest.is_finite() => Err(Block { scale: f32::NAN, scaled_sum: f32::NAN, ..Block::default() }),
        ..1e-30 => Err(Block::default()), // its reciprocal would not be finite
        _ => Ok((largest / 127.0, 127.0 / largest)),
    }
}

impl Block {
    #[inline(always)]
    fn new(codes: [i8; BLOCK], scale: f32, sums: [i16; 2]) -> Block {
        Block { codes, scale, scaled_sum: scale * f32::from(sums[0] + sums[1]), sums }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{BLOCK, Block, Order, scale_and_factor};
    use std::arch::x86_64::*;

    /// As `quantize_scalar`: a conversion to whole numbers rounds as adding 1.5 x 2^23 does. Loops over arrays, because
    /// a closure would be compiled apart, without the vectors.
    #[target_feature(enable = "avx2")]
    pub(super) fn quantize(x: &[f32; BLOCK], order: Order) -> Block {
        let mut vectors = [_mm256_setzero_ps(); BLOCK / 8];
        let mut largest = _mm256_setzero_si256();
        for (i, vector) in vectors.iter_mut().enumerate() {
            // SAFETY: four vectors of eight numbers are 32.
            *vector = unsafe { _mm256_loadu_ps(x.as_ptr().add(8 * i)) };
            let magnitude = _mm256_and_si256(_mm256_castps_si256(*vector), _mm256_set1_epi32(i32::MAX));
            largest = _mm256_max_epi32(largest, magnitude);
        }
        let four = _mm_max_epi32(_mm256_castsi256_si128(largest), _mm256_extracti128_si256::<1>(largest));
        let two = _mm_max_epi32(four, _mm_shuffle_epi32::<0b1110>(four));
        let one = _mm_max_epi32(two, _mm_shuffle_epi32::<0b01>(two));
        let (scale, factor) = match scale_and_factor(_mm_cvtsi128_si32(one) as u32) {
            Ok(both) => both,
            Err(block) => return block,
        };
        let mut whole = [_mm256_setzero_si256(); BLOCK / 8];
        for (whole, vector) in whole.iter_mut().zip(vectors) {
            *whole = _mm256_cvtps_epi32(_mm256_mul_ps(vector, _mm256_set1_ps(factor)));
        }
        let (low, high) = (_mm256_packs_epi32(whole[0], whole[1]), _mm256_packs_epi32(whole[2], whole[3]));
        // Packing goes half by half of the vectors: the second four codes come fifth, and so on.
        let fours = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        let natural = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), fours);
        let codes = match order {
            Order::Natural => natural,
            Order::EvenOdd => _mm256_permute4x64_epi64::<0b1101_1000>(_mm256_shuffle_epi8(natural, apart())),
        };
        let pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), codes);
        let sums = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
        let (low, high) = (_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
        let mut out = [0; BLOCK];
        // SAFETY: 32 bytes.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), codes) };
        Block::new(out, scale, [sum(low), sum(high)])
    }

    /// Of four numbers.
    #[target_feature(enable = "avx2")]
    fn sum(numbers: __m128i) -> i16 {
        let two = _mm_add_epi32(numbers, _mm_shuffle_epi32::<0b1110>(numbers));
        _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b01>(two))) as i16
    }

    /// For a shuffle: bytes 0, 2, 4… of each half of a vector, then 1, 3, 5….
    #[target_feature(enable = "avx2")]
    fn apart() -> __m256i {
        let half = _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
        _mm256_broadcastsi128_si256(half)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(x: [f32; BLOCK]) {
        let [block, turned] = [Order::Natural, Order::EvenOdd].map(|order| quantize_scalar(&x, order));
        for isa in Isa::available() {
            assert_eq!(
                [Order::Natural, Order::EvenOdd].map(|order| quantize(isa, &x, order)),
                [block, turned]
            );
        }
        for (x, code) in x.iter().zip(block.codes) {
            assert!((x - f32::from(code) * block.scale).abs() <= block.scale * 0.5001, "{x} in {block:?}");
        }
        for i in 0..BLOCK {
            assert_eq!(turned.codes[i / 2 + i % 2 * 16], block.codes[i]);
        }
        assert_eq!(turned.scaled_sum, block.scaled_sum);
    }

    #[test]
    fn codes_are_within_half_a_step() {
        check(std::array::from_fn(|i| (i as f32 * 0.37).sin() * 5.0));
        check(std::array::from_fn(|i| if i == 7 { -1e20 } else { 1.0 }));
        check([0.0; BLOCK]);
        assert_eq!(quantize_scalar(&[-3.0; BLOCK], Order::Natural).codes, [-127; BLOCK]);
        let mut bits = 1u32; // halves among them, which round to even
        for scale in [1e-25, 1e-9, 1.0, 63.5, 1e30] {
            check(std::array::from_fn(|_| {
                bits = bits.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
                ((bits >> 23) as f32 - 256.0) / 512.0 * scale
            }));
        }
    }

    #[test]
    fn broken_numbers_stay_broken() {
        for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = [1.0; BLOCK];
            x[30] = broken;
            for isa in Isa::available() {
                assert!(quantize(isa, &x, Order::Natural).scale.is_nan());
            }
        }
    }
}
