//! Scalar number formats narrower than f32 and their exact widening.
//!
//! Names follow the safetensors and OCP specifications: `BF16`, `F16` (IEEE binary16), `F8_E4M3`
//! (the "fn" form: no infinity, one NaN per sign) and `F8_E8M0` (a power of two, bias 127).

/// Widens a bfloat16, given by its bits. Exact.
#[inline(always)]
pub fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits((bits as u32) << 16)
}

/// Rounds to the nearest bfloat16, ties to even; NaN stays NaN.
#[inline(always)]
pub fn f32_to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        return ((bits >> 16) as u16) | 0x40;
    }
    ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

/// Widens an IEEE binary16, given by its bits. Exact, subnormals included.
#[inline(always)]
pub fn f16_to_f32(bits: u16) -> f32 {
    let sign = ((bits & 0x8000) as u32) << 16;
    let magnitude = (bits & 0x7fff) as u32;
    if magnitude >= 0x7c00 {
        return f32::from_bits(sign | 0x7f80_0000 | ((magnitude & 0x3ff) << 13));
    }
    // Exponent and mantissa moved into place, then rebased from 2^-112: subnormals come out exact.
    let scaled = f32::from_bits(magnitude << 13) * f32::from_bits((254 - 15) << 23);
    f32::from_bits(scaled.to_bits() | sign)
}

/// Widens an `F8_E4M3` (fn) number. 0x7f and 0xff are NaN; there is no infinity. Three cases computed and
/// one chosen, so that loops over it become vectors.
#[inline(always)]
pub fn e4m3_to_f32(bits: u8) -> f32 {
    let magnitude = u32::from(bits & 0x7f);
    let normal = (magnitude << 20) + ((127 - 7) << 23);
    let subnormal = (magnitude as f32 * (1.0 / 512.0)).to_bits();
    let number = if magnitude < 8 { subnormal } else { normal };
    let number = if magnitude == 0x7f { 0x7fc0_0000 } else { number };
    f32::from_bits(number | u32::from(bits & 0x80) << 24)
}

/// What [`e4m3_shifted`] leaves to be multiplied: 2^120.
pub(crate) const E4M3_REST: f32 = f32::from_bits((127 + 120) << 23);

/// An `F8_E4M3` number that is not NaN, times 2^-120: its bits where f32 has them, subnormal ones too.
#[inline(always)]
pub(crate) fn e4m3_shifted(bits: u8) -> f32 {
    f32::from_bits((i32::from(bits as i8) << 20) as u32 & 0x87f0_0000)
}

/// Widens an `F8_E8M0` scale: 2^(bits - 127); 255 is NaN.
#[inline(always)]
pub fn e8m0_to_f32(bits: u8) -> f32 {
    match bits {
        255 => f32::NAN,
        0 => f32::from_bits(0x0040_0000),
        _ => f32::from_bits((bits as u32) << 23),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_rounds_to_even_and_keeps_nan() {
        for (value, bits) in [(1.0, 0x3f80), (1.003_906_3, 0x3f80), (1.011_718_8, 0x3f82), (-0.0, 0x8000)] {
            assert_eq!(f32_to_bf16(value), bits, "{value}");
        }
        assert!(bf16_to_f32(f32_to_bf16(f32::NAN)).is_nan());
    }

    #[test]
    fn every_f16_code_matches_its_definition() {
        for bits in 0..=u16::MAX {
            let (exponent, fraction) = (((bits >> 10) & 31) as i32, (bits & 1023) as f64);
            let magnitude = match exponent {
                0 => fraction * 2f64.powi(-24),
                31 if fraction == 0.0 => f64::INFINITY,
                31 => f64::NAN,
                _ => (1.0 + fraction / 1024.0) * 2f64.powi(exponent - 15),
            };
            let want = if bits & 0x8000 == 0 { magnitude } else { -magnitude } as f32;
            let got = f16_to_f32(bits);
            assert!(got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()), "{bits:#06x}");
        }
    }

    #[test]
    fn every_e4m3_code_matches_its_definition() {
        for bits in 0..=u8::MAX {
            let (exponent, fraction) = (((bits >> 3) & 15) as i32, (bits & 7) as f32);
            let magnitude = match (bits & 0x7f, exponent) {
                (0x7f, _) => f32::NAN,
                (_, 0) => fraction / 8.0 * 2f32.powi(-6),
                _ => (1.0 + fraction / 8.0) * 2f32.powi(exponent - 7),
            };
            let want = if bits & 0x80 == 0 { magnitude } else { -magnitude };
            let got = e4m3_to_f32(bits);
            assert!(got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()), "{bits:#04x}");
            let shifted = e4m3_shifted(bits) * E4M3_REST;
            assert!(shifted.to_bits() == want.to_bits() || want.is_nan(), "{bits:#04x} shifted");
        }
    }

    #[test]
    fn e8m0_is_a_power_of_two() {
        for (bits, want) in [(127, 1.0), (128, 2.0), (126, 0.5), (0, 2f32.powi(-127)), (254, 2f32.powi(127))]
        {
            assert_eq!(e8m0_to_f32(bits), want);
        }
        assert!(e8m0_to_f32(255).is_nan());
    }
}
