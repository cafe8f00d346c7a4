//! ggml's k-quants: super-blocks of 256 numbers in groups of 16 or 32, whose scales are themselves codes.
//!
//! Codes of `b` bits lie in runs of 32 bytes that are read `8 / b` times, each time the next higher bits:
//! one such pass is one group of 32 numbers. A group's scale is the block's f16 scale times the group's
//! own code; formats with a minimum subtract the block's second f16 times a second code. Passes that share
//! bytes are written side by side, with constant shifts: so the compiler makes vectors of them.

use super::{field, half};

/// 16 bytes of scale (low) and minimum (high), 64 of 2-bit codes, scale, minimum.
#[inline(always)]
pub(super) fn q2_k(block: &[u8; 84], out: &mut [f32; 256]) {
    let (scales, scale, min) = (field::<16>(block, 0), half(block, 80), half(block, 82));
    for (side, out) in out.as_chunks_mut::<128>().0.iter_mut().enumerate() {
        let codes = field::<32>(block, 16 + 32 * side);
        for part in 0..2 {
            let group = |pass: usize| scales[8 * side + 2 * pass + part];
            let scales: [f32; 4] = std::array::from_fn(|pass| scale * f32::from(group(pass) & 15));
            let mins: [f32; 4] = std::array::from_fn(|pass| min * f32::from(group(pass) >> 4));
            for i in 16 * part..16 * part + 16 {
                out[i] = scales[0] * f32::from(codes[i] & 3) - mins[0];
                out[i + 32] = scales[1] * f32::from(codes[i] >> 2 & 3) - mins[1];
                out[i + 64] = scales[2] * f32::from(codes[i] >> 4 & 3) - mins[2];
                out[i + 96] = scales[3] * f32::from(codes[i] >> 6) - mins[3];
            }
        }
    }
}

/// 32 bytes of third bits, 64 of 2-bit codes, 12 of 6-bit scales less 32, scale. A number whose third bit
/// is clear is 4 less.
#[inline(always)]
pub(super) fn q3_k(block: &[u8; 110], out: &mut [f32; 256]) {
    let (third, scales, scale) = (field::<32>(block, 0), scales_of_16(field(block, 96)), half(block, 108));
    for (side, out) in out.as_chunks_mut::<128>().0.iter_mut().enumerate() {
        let codes = field::<32>(block, 32 + 32 * side);
        for part in 0..2 {
            let scales: [f32; 4] =
                std::array::from_fn(|pass| scale * f32::from(scales[8 * side + 2 * pass + part]));
            let number = |code: u8, bit: u8| f32::from((code & 3 | (bit & 1) << 2) as i8 - 4);
            for i in 16 * part..16 * part + 16 {
                let bits = third[i] >> (4 * side);
                out[i] = scales[0] * number(codes[i], bits);
                out[i + 32] = scales[1] * number(codes[i] >> 2, bits >> 1);
                out[i + 64] = scales[2] * number(codes[i] >> 4, bits >> 2);
                out[i + 96] = scales[3] * number(codes[i] >> 6, bits >> 3);
            }
        }
    }
}

/// Scale, minimum, 12 bytes of 6-bit scales and minima, 128 of 4-bit codes.
#[inline(always)]
pub(super) fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let (scale, min) = (half(block, 0), half(block, 2));
    let (scales, mins) = scales_and_mins(field(block, 4));
    let factors = |pass: usize| (scale * f32::from(scales[pass]), min * f32::from(mins[pass]));
    for (run, out) in out.as_chunks_mut::<64>().0.iter_mut().enumerate() {
        let codes = field::<32>(block, 16 + run * 32);
        let ((low_scale, low_min), (high_scale, high_min)) = (factors(2 * run), factors(2 * run + 1));
        for i in 0..32 {
            out[i] = low_scale * f32::from(codes[i] & 15) - low_min;
            out[i + 32] = high_scale * f32::from(codes[i] >> 4) - high_min;
        }
    }
}

/// Scale, minimum, 12 bytes of 6-bit scales and minima, 32 of fifth bits, 128 of 4-bit codes.
#[inline(always)]
pub(super) fn q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
    let (scale, min, fifth) = (half(block, 0), half(block, 2), field::<32>(block, 16));
    let (scales, mins) = scales_and_mins(field(block, 4));
    for (pass, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let codes = field::<32>(block, 48 + pass / 2 * 32);
        let (scale, min) = (scale * f32::from(scales[pass]), min * f32::from(mins[pass]));
        for i in 0..32 {
            let (low, high) = (i32::from(codes[i]) >> (pass % 2 * 4) & 15, i32::from(fifth[i]) >> pass & 1);
            out[i] = scale * (low | high << 4) as f32 - min;
        }
    }
}

/// 128 bytes of low 4 bits, 64 of high 2 bits, 16 signed bytes of scales, scale; codes less 32. Here the
/// low bits run over 64 bytes, so passes 0 and 1 of each half are low nibbles, 2 and 3 high ones.
#[inline(always)]
pub(super) fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let (scales, scale) = (field::<16>(block, 192), half(block, 208));
    for (side, out) in out.as_chunks_mut::<128>().0.iter_mut().enumerate() {
        let (low, high) = (field::<64>(block, side * 64), field::<32>(block, 128 + side * 32));
        for part in 0..2 {
            let scale = |pass: usize| scale * f32::from(scales[8 * side + 2 * pass + part] as i8);
            let scales: [f32; 4] = [scale(0), scale(1), scale(2), scale(3)];
            for i in 16 * part..16 * part + 16 {
                let number = |low: u8, high: u8| f32::from((low | (high & 3) << 4) as i8 - 32);
                out[i] = scales[0] * number(low[i] & 15, high[i]);
                out[i + 32] = scales[1] * number(low[i + 32] & 15, high[i] >> 2);
                out[i + 64] = scales[2] * number(low[i] >> 4, high[i] >> 4);
                out[i + 96] = scales[3] * number(low[i + 32] >> 4, high[i] >> 6);
            }
        }
    }
}

/// The 16 scales of Q3_K: low nibbles, high nibbles, then pairs of upper bits.
#[inline(always)]
fn scales_of_16(packed: &[u8; 12]) -> [i8; 16] {
    std::array::from_fn(|i| {
        let (low, high) = (packed[i % 8] >> (i / 8 * 4) & 15, packed[8 + i % 4] >> (i / 4 * 2) & 3);
        (low | high << 4) as i8 - 32
    })
}

/// The eight scales and minima of Q4_K and Q5_K. The first four of each are the low six bits of bytes
/// 0-3 and 4-7; the others have their low four bits in bytes 8-11 and their upper two above the first four.
#[inline(always)]
fn scales_and_mins(packed: &[u8; 12]) -> ([u8; 8], [u8; 8]) {
    let (mut scales, mut mins) = ([0; 8], [0; 8]);
    for i in 0..4 {
        let (scale, min, rest) = (packed[i], packed[4 + i], packed[8 + i]);
        (scales[i], mins[i]) = (scale & 63, min & 63);
        scales[4 + i] = rest & 15 | scale >> 6 << 4;
        mins[4 + i] = rest >> 4 | min >> 6 << 4;
    }
    (scales, mins)
}
