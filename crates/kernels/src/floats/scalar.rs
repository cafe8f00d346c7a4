//! The 16 lanes as an array: what every machine runs, and the twin that the others are tested against.

use super::Vectors;
use crate::coded_bf16::place;
use crate::dot::{LANES, Sum};
use crate::dtype::{E4M3_REST, bf16_to_f32, e4m3_to_f32, f16_to_f32};

/// Plain arrays.
pub(super) struct Scalar;

impl Vectors for Scalar {
    type Lanes = Sum;
    type Magnitudes = u8;

    fn zero() -> Sum {
        [0.0; LANES]
    }

    fn splat(x: f32) -> Sum {
        [x; LANES]
    }

    fn f32(numbers: &[u8; 64]) -> Sum {
        std::array::from_fn(|l| f32::from_le_bytes(numbers.as_chunks().0[l]))
    }

    fn f16(numbers: &[u8; 32]) -> Sum {
        std::array::from_fn(|l| f16_to_f32(u16::from_le_bytes(numbers.as_chunks().0[l])))
    }

    fn bf16(numbers: &[u8; 32]) -> Sum {
        std::array::from_fn(|l| bf16_to_f32(u16::from_le_bytes(numbers.as_chunks().0[l])))
    }

    fn coded_bf16(fractions: &[u8; 64], codes: &[u8; 64], is_upper: bool, exponents: &[u8; 32]) -> [Sum; 4] {
        let number = |k: usize| {
            let at = place(k);
            let code = usize::from(if is_upper { codes[at] >> 4 } else { codes[at] & 15 });
            let (upper, lower) =
                (fractions[at] & 0x80 | exponents[code], fractions[at] & 0x7f | exponents[16 + code]);
            bf16_to_f32(u16::from_le_bytes([lower, upper]))
        };
        std::array::from_fn(|group| std::array::from_fn(|lane| number(LANES * group + lane)))
    }

    fn e4m3(numbers: &[u8; 16]) -> Sum {
        numbers.map(|number| e4m3_to_f32(number) / E4M3_REST)
    }

    fn no_magnitudes() -> u8 {
        0
    }

    fn with_magnitudes<const N: usize>(most: u8, numbers: &[u8; N]) -> u8 {
        numbers.iter().fold(most, |most, number| most.max(number & 0x7f))
    }

    fn has_nan(most: u8) -> bool {
        most == 0x7f
    }

    fn load(x: &[f32; LANES]) -> Sum {
        *x
    }

    fn scaled(a: Sum, factor: f32) -> Sum {
        a.map(|a| a * factor)
    }

    fn fma(a: Sum, b: Sum, c: Sum) -> Sum {
        std::array::from_fn(|l| a[l].mul_add(b[l], c[l]))
    }

    fn store(a: Sum) -> Sum {
        a
    }
}
