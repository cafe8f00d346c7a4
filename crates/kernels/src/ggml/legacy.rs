//! ggml's first formats: 32 numbers, a scale, perhaps a minimum, codes of one width.
//!
//! 4-bit codes lie two to a byte, number `i` low and number `i + 16` high; the fifth bits of a block are
//! one little-endian word.

use super::{field, half};

/// Scale, 16 bytes of codes less 8.
#[inline(always)]
pub(super) fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let (scale, codes) = (half(block, 0), field::<16>(block, 2));
    for i in 0..16 {
        out[i] = scale * (i32::from(codes[i] & 15) - 8) as f32;
        out[i + 16] = scale * (i32::from(codes[i] >> 4) - 8) as f32;
    }
}

/// Scale, minimum, 16 bytes of codes.
#[inline(always)]
pub(super) fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (scale, min, codes) = (half(block, 0), half(block, 2), field::<16>(block, 4));
    for i in 0..16 {
        out[i] = scale * f32::from(codes[i] & 15) + min;
        out[i + 16] = scale * f32::from(codes[i] >> 4) + min;
    }
}

/// Scale, fifth bits, 16 bytes of codes; less 16.
#[inline(always)]
pub(super) fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let scale = half(block, 0);
    let codes = five_bits(field(block, 2), field(block, 6));
    for i in 0..32 {
        out[i] = scale * (codes[i] as i32 - 16) as f32;
    }
}

/// Scale, minimum, fifth bits, 16 bytes of codes.
#[inline(always)]
pub(super) fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (scale, min) = (half(block, 0), half(block, 2));
    let codes = five_bits(field(block, 4), field(block, 8));
    for i in 0..32 {
        out[i] = scale * codes[i] as f32 + min;
    }
}

/// Scale, 32 signed bytes.
#[inline(always)]
pub(super) fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let (scale, codes) = (half(block, 0), field::<32>(block, 2));
    for i in 0..32 {
        out[i] = scale * f32::from(codes[i] as i8);
    }
}

#[inline(always)]
fn five_bits(high: &[u8; 4], low: &[u8; 16]) -> [u32; 32] {
    let high = u32::from_le_bytes(*high);
    let mut codes = [0; 32];
    for i in 0..16 {
        codes[i] = u32::from(low[i] & 15) | (high >> i & 1) << 4;
        codes[i + 16] = u32::from(low[i] >> 4) | (high >> (i + 16) & 1) << 4;
    }
    codes
}
