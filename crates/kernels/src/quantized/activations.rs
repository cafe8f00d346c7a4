//! Activations as int8: blocks of 32 numbers with one scale.
//!
//! `scale = max |x| / 127`, codes rounded to nearest, ties to even. A block that holds an infinity or a NaN gets
//! the scale NaN, so that a broken row stays broken and is not silently made finite.

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
pub(crate) fn quantize(x: &[f32; BLOCK], order: Order) -> Block {
    // As whole numbers, magnitudes compare like the floats, and NaN is the largest.
    let largest = x.iter().fold(0, |largest, x| (x.to_bits() & 0x7fff_ffff).max(largest));
    let (largest, scale) = (f32::from_bits(largest), f32::from_bits(largest) / 127.0);
    if !largest.is_finite() {
        return Block { scale: f32::NAN, scaled_sum: f32::NAN, ..Block::default() };
    }
    if largest < 1e-30 {
        return Block::default(); // its reciprocal would not be finite
    }
    /// 1.5 x 2^23: adding it rounds to a whole number, which then sits in the low mantissa bits.
    const ROUND: f32 = 12_582_912.0;
    let factor = 127.0 / largest;
    // Whole numbers of 32 bits and plain loops: those become vectors.
    let (mut rounded, mut codes) = ([0i32; BLOCK], [0i8; BLOCK]);
    for i in 0..BLOCK {
        rounded[i] = ((x[i] * factor + ROUND).to_bits() << 24) as i32 >> 24;
    }
    if order == Order::EvenOdd {
        let natural = rounded;
        for i in 0..BLOCK / 2 {
            (rounded[i], rounded[i + BLOCK / 2]) = (natural[2 * i], natural[2 * i + 1]);
        }
    }
    for i in 0..BLOCK {
        codes[i] = rounded[i] as i8;
    }
    let sum = |half: usize| rounded[16 * half..16 * half + 16].iter().sum::<i32>() as i16;
    let sums: [i16; 2] = [sum(0), sum(1)];
    Block { codes, scale, scaled_sum: scale * f32::from(sums[0] + sums[1]), sums }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(x: [f32; BLOCK]) {
        let block = quantize(&x, Order::Natural);
        for (x, code) in x.iter().zip(block.codes) {
            assert!((x - f32::from(code) * block.scale).abs() <= block.scale * 0.5001, "{x} in {block:?}");
        }
        let turned = quantize(&x, Order::EvenOdd);
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
        assert_eq!(quantize(&[-3.0; BLOCK], Order::Natural).codes, [-127; BLOCK]);
    }

    #[test]
    fn broken_numbers_stay_broken() {
        for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = [1.0; BLOCK];
            x[30] = broken;
            assert!(quantize(&x, Order::Natural).scale.is_nan());
        }
    }
}
