//! What NEON code of several kernels needs.

use std::arch::aarch64::*;

/// The f32 of f16 bits, zeros above them, as F16C's `vcvtph2ps` has them. The way by whole numbers, because Rust's f16
/// vectors are not stable: shifted to their place the bits are an f32 that is 2^112 too small, subnormal or not.
///
/// # Safety
/// NEON.
#[inline(always)]
pub(crate) unsafe fn f16_bits_to_f32(bits: uint32x4_t) -> float32x4_t {
    // SAFETY: by the caller's promise.
    unsafe {
        let sign = vshlq_n_u32::<16>(vandq_u32(bits, vdupq_n_u32(0x8000)));
        let magnitude = vshlq_n_u32::<13>(vandq_u32(bits, vdupq_n_u32(0x7fff)));
        let two_to_112 = vreinterpretq_f32_u32(vdupq_n_u32((127 + 112) << 23));
        let finite = vreinterpretq_u32_f32(vmulq_f32(vreinterpretq_f32_u32(magnitude), two_to_112));
        // Infinity and NaN have all bits of the exponent.
        let exponent = vdupq_n_u32(0x7f80_0000);
        let is_finite = vcltq_u32(magnitude, vdupq_n_u32(0x7c00 << 13));
        let number = vbslq_u32(is_finite, finite, vorrq_u32(magnitude, exponent));
        vreinterpretq_f32_u32(vorrq_u32(number, sign))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::f16_to_f32;

    #[test]
    fn every_f16_is_widened_as_in_plain_code() {
        for bits in 0..=u16::MAX {
            let mut found = [0.0; 4];
            // SAFETY: NEON is part of every aarch64; four numbers are stored where four are.
            unsafe { vst1q_f32(found.as_mut_ptr(), f16_bits_to_f32(vdupq_n_u32(bits.into()))) };
            assert_eq!(found.map(f32::to_bits), [f16_to_f32(bits).to_bits(); 4], "{bits:#x}");
        }
    }
}
