//! The exponential function, the same bits on every machine, and what is built from it.
//!
//! Range reduction to `[-ln2/2, ln2/2]` and a polynomial, after Cephes `expf`; below one unit in the
//! last place of error. The C library's own differs between systems, and does not vectorise.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;

use crate::isa::{isa, per_isa};

/// What it is given lies between these, so that the result is a normal f32.
const LOWEST: f32 = -87.0;
const HIGHEST: f32 = 88.0;

/// 1.5 x 2^23: adding it rounds to a whole number, which then sits in the low mantissa bits.
pub(crate) const ROUND: f32 = 12_582_912.0;

/// -ln 2 in two parts, the first with few enough bits for any exponent times it to be exact.
const LN_2: [f32; 2] = [-0.693_359_4, 2.121_944_4e-4];

/// The polynomial's, of the highest power first.
const COEFFICIENTS: [f32; 6] =
    [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];

/// The bits of 1.0.
const ONE: u32 = 0x3f80_0000;

/// e to the power of `x`, `x` clamped to where the result is a normal f32.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let x = x.clamp(LOWEST, HIGHEST);
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(LN_2[1], n.mul_add(LN_2[0], x));
    let mut p = COEFFICIENTS[0];
    for c in &COEFFICIENTS[1..] {
        p = p.mul_add(r, *c);
    }
    let fraction = p.mul_add(r * r, r) + 1.0;
    fraction * f32::from_bits((shifted.to_bits() << 23).wrapping_add(ONE))
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Replaces each number by its [`exp()`]. Outside of kernels a call for each would not be compiled for the machine's
/// multiply-add, and goes through the C library nine times.
pub fn exp_each(numbers: &mut [f32]) {
    exp_each_isa(isa(), numbers);
}

/// Replaces each number by its [`sigmoid`].
pub fn sigmoid_each(numbers: &mut [f32]) {
    sigmoid_each_isa(isa(), numbers);
}

/// SwiGLU's gate: `gate = silu(gate) * up`, `silu(x) = x sigmoid(x)`.
pub fn silu_mul(gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len(), "gate and up have one shape");
    silu_mul_isa(isa(), gate, up);
}

per_isa! {
    fn exp_each_isa(numbers: &mut [f32]) = exp_each_body
}

per_isa! {
    fn sigmoid_each_isa(numbers: &mut [f32]) = sigmoid_each_body
}

per_isa! {
    fn silu_mul_isa(gate: &mut [f32], up: &[f32]) = silu_mul_body
}

#[inline(always)]
fn exp_each_body(numbers: &mut [f32]) {
    for number in numbers {
        *number = exp(*number);
    }
}

#[inline(always)]
fn sigmoid_each_body(numbers: &mut [f32]) {
    for number in numbers {
        *number = sigmoid(*number);
    }
}

#[inline(always)]
fn silu_mul_body(gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = *gate * sigmoid(*gate) * up;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;

    #[test]
    fn exp_is_within_two_units_of_f64() {
        let mut worst = 0f64;
        for i in -870_000..=880_000 {
            let x = i as f32 / 10_000.0;
            let want = (x as f64).exp();
            worst = worst.max((exp(x) as f64 - want).abs() / want);
        }
        assert!(worst < 1.2e-7, "{worst}");
        assert_eq!((exp(0.0), exp(-1000.0)), (1.0, exp(-87.0)));
    }

    #[test]
    fn slices_have_the_bits_of_single_numbers() {
        let numbers: Vec<f32> = (-900..=900).map(|i| i as f32 / 9.7).collect();
        let check = |each: fn(Isa, &mut [f32]), single: fn(f32) -> f32| {
            for isa in Isa::available() {
                let mut found = numbers.clone();
                each(isa, &mut found);
                for (x, found) in numbers.iter().zip(&found) {
                    assert_eq!(found.to_bits(), single(*x).to_bits(), "{} {x}", isa.name());
                }
            }
        };
        check(exp_each_isa, exp);
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx512f") {
            check(|_, numbers| in_vectors(numbers), exp);
        }
        check(sigmoid_each_isa, sigmoid);
    }

    /// Vector by vector; the last is filled up.
    #[cfg(target_arch = "x86_64")]
    fn in_vectors(numbers: &mut [f32]) {
        use std::arch::x86_64::*;
        #[target_feature(enable = "avx512f")]
        fn one(numbers: &mut [f32; 16]) {
            // SAFETY: AVX-512 F; a whole vector.
            unsafe { _mm512_storeu_ps(numbers.as_mut_ptr(), avx512::exp(_mm512_loadu_ps(numbers.as_ptr()))) };
        }
        for group in numbers.chunks_mut(16) {
            let mut vector = [0.0; 16];
            vector[..group.len()].copy_from_slice(group);
            // SAFETY: the test has looked for AVX-512 F.
            unsafe { one(&mut vector) };
            group.copy_from_slice(&vector[..group.len()]);
        }
    }

    #[test]
    fn sigmoid_reaches_its_limits() {
        for (x, want) in [(0.0, 0.5), (100.0, 1.0)] {
            assert_eq!(sigmoid(x), want);
        }
        assert!(sigmoid(-100.0) < 1e-37);
    }
}
