//! The block formats of GGUF files: sizes and exact dequantisation.
//!
//! Block layouts, type numbers and names are those of ggml (`ggml.h`, `ggml-common.h`); the numbers that
//! come out equal those of the `gguf` Python package's `quants.dequantize`, bit for bit. A block is an
//! array of known length and its loops have constant bounds, so that the compiler can use the vector
//! instructions of the function it is inlined into.

mod codebook;
mod k_quants;
mod legacy;

use crate::dtype::f16_to_f32;
pub(crate) use codebook::{IQ4, half_of_e8m0};

/// A block format of a GGUF tensor. F32, F16 and BF16 tensors are [`crate::Storage`] variants of
/// their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, non_camel_case_types)] // ggml's own names
pub enum GgmlType {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    IQ4_NL,
    IQ4_XS,
    MXFP4,
}

/// One line per format, in the order of [`GgmlType`]: the type's number in a file, numbers and bytes per block.
const FORMATS: [(GgmlType, u32, usize, usize); 13] = [
    (GgmlType::Q4_0, 2, 32, 18),
    (GgmlType::Q4_1, 3, 32, 20),
    (GgmlType::Q5_0, 6, 32, 22),
    (GgmlType::Q5_1, 7, 32, 24),
    (GgmlType::Q8_0, 8, 32, 34),
    (GgmlType::Q2_K, 10, 256, 84),
    (GgmlType::Q3_K, 11, 256, 110),
    (GgmlType::Q4_K, 12, 256, 144),
    (GgmlType::Q5_K, 13, 256, 176),
    (GgmlType::Q6_K, 14, 256, 210),
    (GgmlType::IQ4_NL, 20, 32, 18),
    (GgmlType::IQ4_XS, 23, 256, 136),
    (GgmlType::MXFP4, 39, 32, 17),
];

/// The name of every type number that ggml has given out, by number; those of removed types included.
#[rustfmt::skip] // ten to a line, so that the number can be read off
const NAMES: [&str; 42] = [
    "F32", "F16", "Q4_0", "Q4_1", "Q4_2", "Q4_3", "Q5_0", "Q5_1", "Q8_0", "Q8_1",
    "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_K", "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S",
    "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS", "I8", "I16", "I32", "I64", "F64", "IQ1_M",
    "BF16", "Q4_0_4_4", "Q4_0_4_8", "Q4_0_8_8", "TQ1_0", "TQ2_0", "IQ4_NL_4_4", "IQ4_NL_4_8", "IQ4_NL_8_8", "MXFP4",
    "NVFP4", "Q1_0",
];

/// ggml's name of a type number, supported here or not; `None` if the number means nothing.
pub fn type_name(number: u32) -> Option<&'static str> {
    NAMES.get(number as usize).copied()
}

impl GgmlType {
    /// The format that a file means by a type number, if it is one of these.
    pub fn from_number(number: u32) -> Option<GgmlType> {
        FORMATS.iter().find(|(_, known, ..)| *known == number).map(|(kind, ..)| *kind)
    }

    /// Every format.
    pub fn all() -> impl Iterator<Item = GgmlType> {
        FORMATS.iter().map(|(kind, ..)| *kind)
    }

    /// The number that stands for it in a file.
    pub fn number(self) -> u32 {
        FORMATS[self as usize].1
    }

    /// ggml's name.
    pub fn name(self) -> &'static str {
        NAMES[self.number() as usize]
    }

    /// How many numbers one block holds.
    #[inline(always)]
    pub fn block_len(self) -> usize {
        FORMATS[self as usize].2
    }

    /// How many bytes one block takes.
    #[inline(always)]
    pub fn block_bytes(self) -> usize {
        FORMATS[self as usize].3
    }
}

/// Dequantises whole blocks: `out.len()` is the number of blocks times `kind.block_len()`.
#[inline(always)]
pub fn dequantize(kind: GgmlType, blocks: &[u8], out: &mut [f32]) {
    debug_assert_eq!(blocks.len() / kind.block_bytes() * kind.block_len(), out.len());
    // A macro, because a call through a generic `Fn` would be compiled apart, without the caller's vectors.
    macro_rules! each {
        ($block:path) => {
            for (bytes, out) in blocks.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
                $block(bytes, out);
            }
        };
    }
    match kind {
        GgmlType::Q4_0 => each!(legacy::q4_0),
        GgmlType::Q4_1 => each!(legacy::q4_1),
        GgmlType::Q5_0 => each!(legacy::q5_0),
        GgmlType::Q5_1 => each!(legacy::q5_1),
        GgmlType::Q8_0 => each!(legacy::q8_0),
        GgmlType::Q2_K => each!(k_quants::q2_k),
        GgmlType::Q3_K => each!(k_quants::q3_k),
        GgmlType::Q4_K => each!(k_quants::q4_k),
        GgmlType::Q5_K => each!(k_quants::q5_k),
        GgmlType::Q6_K => each!(k_quants::q6_k),
        GgmlType::IQ4_NL => each!(codebook::iq4_nl),
        GgmlType::IQ4_XS => each!(codebook::iq4_xs),
        GgmlType::MXFP4 => each!(codebook::mxfp4),
    }
}

/// The `N` bytes of a block from byte `at` on.
#[inline(always)]
fn field<const N: usize>(block: &[u8], at: usize) -> &[u8; N] {
    &block[at..at + N].as_chunks().0[0]
}

/// The f16 at byte `at`, widened.
#[inline(always)]
fn half(block: &[u8], at: usize) -> f32 {
    f16_to_f32(u16::from_le_bytes(*field(block, at)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{Isa, per_isa};
    use std::fs;

    #[test]
    fn the_table_is_in_the_order_of_the_enum() {
        for (position, kind) in GgmlType::all().enumerate() {
            assert_eq!(kind as usize, position);
            assert_eq!(format!("{kind:?}"), kind.name());
            assert_eq!(GgmlType::from_number(kind.number()), Some(kind));
        }
        assert_eq!((type_name(41), type_name(42), type_name(u32::MAX)), (Some("Q1_0"), None, None));
    }

    per_isa! {
        fn widen(kind: GgmlType, blocks: &[u8], out: &mut [f32]) = dequantize
    }

    /// `reference/ggml_blocks.py` made the files; a NaN may be any NaN, all else is compared by its bits.
    #[test]
    fn every_format_gives_the_bits_of_the_gguf_package() {
        for kind in GgmlType::all() {
            let path =
                |ending| format!("{}/tests/data/ggml/{}.{ending}", env!("CARGO_MANIFEST_DIR"), kind.name());
            let (blocks, want) = (fs::read(path("blocks")).unwrap(), fs::read(path("f32")).unwrap());
            let want: Vec<f32> = want.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            for isa in Isa::available() {
                let mut found = vec![0.0; blocks.len() / kind.block_bytes() * kind.block_len()];
                widen(isa, kind, &blocks, &mut found);
                assert_eq!(found.len(), want.len());
                for (i, (found, want)) in found.iter().zip(&want).enumerate() {
                    let same = found.to_bits() == want.to_bits() || (found.is_nan() && want.is_nan());
                    assert!(
                        same,
                        "{} on {}: number {i} is {found}, expected {want}",
                        kind.name(),
                        isa.name()
                    );
                }
            }
        }
    }
}
