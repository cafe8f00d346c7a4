//! The block formats of GGUF files: sizes and exact dequantisation.
//!
//! Block layouts and names are those of ggml (`ggml-common.h`, `ggml-quants.c`); the numbers that
//! come out equal those of the `gguf` Python package's `quants.dequantize`, bit for bit.

/// A block format of a GGUF tensor. F32, F16 and BF16 tensors are [`crate::Storage`] variants of
/// their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GgmlType {
    /// 32 numbers: f16 scale, 32 signed bytes.
    Q8_0,
}

impl GgmlType {
    /// ggml's name.
    pub fn name(self) -> &'static str {
        match self {
            GgmlType::Q8_0 => "Q8_0",
        }
    }

    /// How many numbers one block holds.
    pub fn block_len(self) -> usize {
        match self {
            GgmlType::Q8_0 => 32,
        }
    }

    /// How many bytes one block takes.
    pub fn block_bytes(self) -> usize {
        match self {
            GgmlType::Q8_0 => 34,
        }
    }
}

/// Dequantises whole blocks: `out.len()` is the number of blocks times `kind.block_len()`.
#[inline(always)]
pub fn dequantize(kind: GgmlType, blocks: &[u8], out: &mut [f32]) {
    debug_assert_eq!(blocks.len() / kind.block_bytes() * kind.block_len(), out.len());
    match kind {
        GgmlType::Q8_0 => {
            for (block, out) in blocks.chunks_exact(34).zip(out.chunks_exact_mut(32)) {
                let scale = crate::dtype::f16_to_f32(u16::from_le_bytes([block[0], block[1]]));
                for (out, &q) in out.iter_mut().zip(&block[2..]) {
                    *out = scale * (q as i8) as f32;
                }
            }
        }
    }
}
