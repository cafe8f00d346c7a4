//! The 16 lanes in four 128-bit vectors of NEON. Names are those of Arm's *Neon Intrinsics Reference*.

use std::arch::aarch64::*;

use super::Vectors;
use crate::dot::{LANES, Sum};
use crate::neon::f16_bits_to_f32;

/// Made only in functions compiled for NEON.
pub(super) struct Neon;

/// Numbers of a vector.
const WIDTH: usize = 4;

/// An expression of intrinsics.
macro_rules! simd {
    ($expression:expr) => {{
        // SAFETY: `Neon` is used only inside functions compiled for NEON, on machines that have it; what is loaded is a
        // reference to that many bytes.
        unsafe { $expression }
    }};
}

/// Calls for each of the four vectors.
macro_rules! each {
    (|$i:ident| $expression:expr) => {
        simd!([0, 1, 2, 3].map(
            #[inline(always)]
            |$i: usize| $expression
        ))
    };
}

/// Four u16 from number `4 i` on, as 32 bits.
#[inline(always)]
fn words(numbers: &[u8; 32], i: usize) -> uint32x4_t {
    simd!(vmovl_u16(vreinterpret_u16_u8(vld1_u8(numbers[2 * WIDTH * i..].as_ptr()))))
}

impl Vectors for Neon {
    type Lanes = [float32x4_t; LANES / WIDTH];
    type Magnitudes = uint8x16_t;

    #[inline(always)]
    fn zero() -> Self::Lanes {
        each!(|_i| vdupq_n_f32(0.0))
    }

    #[inline(always)]
    fn splat(x: f32) -> Self::Lanes {
        each!(|_i| vdupq_n_f32(x))
    }

    #[inline(always)]
    fn f32(numbers: &[u8; 64]) -> Self::Lanes {
        each!(|i| vreinterpretq_f32_u8(vld1q_u8(numbers[4 * WIDTH * i..].as_ptr())))
    }

    #[inline(always)]
    fn f16(numbers: &[u8; 32]) -> Self::Lanes {
        each!(|i| f16_bits_to_f32(words(numbers, i)))
    }

    #[inline(always)]
    fn bf16(numbers: &[u8; 32]) -> Self::Lanes {
        each!(|i| vreinterpretq_f32_u32(vshlq_n_u32::<16>(words(numbers, i))))
    }

    #[inline(always)]
    fn coded_bf16(
        fractions: &[u8; 64],
        codes: &[u8; 64],
        is_upper: bool,
        exponents: &[u8; 32],
    ) -> [Self::Lanes; 4] {
        let vectors: [[float32x4_t; 4]; 4] = std::array::from_fn(
            #[inline(always)]
            |i| {
                quarter_of_coded_bf16(
                    &fractions.as_chunks().0[i],
                    &codes.as_chunks().0[i],
                    is_upper,
                    exponents,
                )
            },
        );
        std::array::from_fn(
            #[inline(always)]
            |group| [vectors[0][group], vectors[1][group], vectors[2][group], vectors[3][group]],
        )
    }

    /// Each byte to the top of its f32, then down with its sign: exponent and fraction are where they belong.
    #[inline(always)]
    fn e4m3(numbers: &[u8; 16]) -> Self::Lanes {
        /// Bytes outside the table are zero.
        const TOPS: [u32; WIDTH] = [0x00ff_ffff, 0x01ff_ffff, 0x02ff_ffff, 0x03ff_ffff];
        each!(|i| {
            let places = vaddq_u32(vld1q_u32(TOPS.as_ptr()), vdupq_n_u32((WIDTH * i) as u32 * 0x0100_0000));
            let tops = vqtbl1q_u8(vld1q_u8(numbers.as_ptr()), vreinterpretq_u8_u32(places));
            let bits = vreinterpretq_u32_s32(vshrq_n_s32::<4>(vreinterpretq_s32_u8(tops)));
            vreinterpretq_f32_u32(vandq_u32(bits, vdupq_n_u32(0x87f0_0000)))
        })
    }

    #[inline(always)]
    fn no_magnitudes() -> uint8x16_t {
        simd!(vdupq_n_u8(0))
    }

    #[inline(always)]
    fn with_magnitudes<const N: usize>(mut most: uint8x16_t, numbers: &[u8; N]) -> uint8x16_t {
        simd!({
            for numbers in numbers.as_chunks::<16>().0 {
                most = vmaxq_u8(most, vandq_u8(vld1q_u8(numbers.as_ptr()), vdupq_n_u8(0x7f)));
            }
            most
        })
    }

    #[inline(always)]
    fn has_nan(most: uint8x16_t) -> bool {
        simd!(vmaxvq_u8(most) == 0x7f)
    }

    #[inline(always)]
    fn load(x: &[f32; LANES]) -> Self::Lanes {
        each!(|i| vld1q_f32(x[WIDTH * i..].as_ptr()))
    }

    #[inline(always)]
    fn scaled(a: Self::Lanes, factor: f32) -> Self::Lanes {
        each!(|i| vmulq_n_f32(a[i], factor))
    }

    #[inline(always)]
    fn fma(a: Self::Lanes, b: Self::Lanes, c: Self::Lanes) -> Self::Lanes {
        each!(|i| vfmaq_f32(c[i], a[i], b[i]))
    }

    #[inline(always)]
    fn store(a: Self::Lanes) -> Sum {
        let mut out = [0.0; LANES];
        for (out, a) in out.chunks_exact_mut(WIDTH).zip(a) {
            simd!(vst1q_f32(out.as_mut_ptr(), a));
        }
        out
    }
}

/// Four lanes of four groups.
#[inline(always)]
fn quarter_of_coded_bf16(
    fractions: &[u8; 16],
    codes: &[u8; 16],
    is_upper: bool,
    exponents: &[u8; 32],
) -> [float32x4_t; 4] {
    simd!({
        let table = |at: usize| vld1q_u8(exponents[at..].as_ptr());
        let codes = vld1q_u8(codes.as_ptr());
        let codes = if is_upper { vshrq_n_u8::<4>(codes) } else { vandq_u8(codes, vdupq_n_u8(15)) };
        let fractions = vld1q_u8(fractions.as_ptr());
        let sign = vandq_u8(fractions, vdupq_n_u8(0x80));
        let rest = vandq_u8(fractions, vdupq_n_u8(0x7f));
        let upper = vorrq_u8(sign, vqtbl1q_u8(table(0), codes));
        let lower = vorrq_u8(rest, vqtbl1q_u8(table(16), codes));
        let first = vreinterpretq_u32_u8(vzip1q_u8(lower, upper));
        let second = vreinterpretq_u32_u8(vzip2q_u8(lower, upper));
        let odd = vdupq_n_u32(0xffff_0000);
        [
            vreinterpretq_f32_u32(vshlq_n_u32::<16>(first)),
            vreinterpretq_f32_u32(vandq_u32(first, odd)),
            vreinterpretq_f32_u32(vshlq_n_u32::<16>(second)),
            vreinterpretq_f32_u32(vandq_u32(second, odd)),
        ]
    })
}
