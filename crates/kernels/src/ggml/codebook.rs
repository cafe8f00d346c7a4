//! Formats whose 4-bit codes are looked up: ggml's non-linear IQ4 and the OCP microscaling MXFP4.
//!
//! In each group of 32 numbers, number `i` is the low half of byte `i` and number `i + 16` the high half.

use super::{field, half};

/// ggml's `kvalues_iq4nl`.
pub(crate) const IQ4: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Scale, 16 bytes of codes.
#[inline(always)]
pub(super) fn iq4_nl(block: &[u8; 18], out: &mut [f32; 32]) {
    look_up(&IQ4, half(block, 0), field(block, 2), out);
}

/// Scale, 16 bits and 4 bytes of 6-bit scales less 32, eight groups of codes.
#[inline(always)]
pub(super) fn iq4_xs(block: &[u8; 136], out: &mut [f32; 256]) {
    let (scale, upper) = (half(block, 0), u16::from_le_bytes(*field(block, 2)));
    for (group, out) in out.as_chunks_mut().0.iter_mut().enumerate() {
        let low = block[4 + group / 2] >> (group % 2 * 4) & 15;
        let code = low | ((upper >> (2 * group) & 3) as u8) << 4;
        look_up(&IQ4, scale * f32::from(code as i8 - 32), field(block, 8 + 16 * group), out);
    }
}

/// An E8M0 scale, 16 bytes of codes.
#[inline(always)]
pub(super) fn mxfp4(block: &[u8; 17], out: &mut [f32; 32]) {
    let (scale, codes) = (half_of_e8m0(block[0]), field::<16>(block, 1));
    for i in 0..16 {
        out[i] = scale * e2m1_doubled(codes[i] & 15);
        out[i + 16] = scale * e2m1_doubled(codes[i] >> 4);
    }
}

/// An E2M1 number of the OCP microscaling specification v1.0, doubled as ggml has it: 0 1 2 3 4 6 8 12.
/// Computed, because a table look-up is no vector.
#[inline(always)]
fn e2m1_doubled(code: u8) -> f32 {
    let (exponent, mantissa) = (u32::from(code >> 1 & 3), u32::from(code & 1));
    let normal = (exponent + 127) << 23 | mantissa << 22;
    let magnitude = if exponent == 0 { (mantissa as f32).to_bits() } else { normal };
    f32::from_bits(if magnitude == 0 { 0 } else { magnitude | u32::from(code & 8) << 28 })
}

#[inline(always)]
fn look_up(values: &[i8; 16], scale: f32, codes: &[u8; 16], out: &mut [f32; 32]) {
    for i in 0..16 {
        out[i] = scale * f32::from(values[usize::from(codes[i] & 15)]);
        out[i + 16] = scale * f32::from(values[usize::from(codes[i] >> 4)]);
    }
}

/// 2^(bits - 128): half the scale, for the doubled numbers. As in ggml, 255 is not NaN here.
#[inline(always)]
pub(crate) fn half_of_e8m0(bits: u8) -> f32 {
    f32::from_bits(match bits {
        0 | 1 => 0x0020_0000 << bits, // subnormal
        _ => (u32::from(bits) - 1) << 23,
    })
}
