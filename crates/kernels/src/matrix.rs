//! A weight matrix in the format it was published in.
//!
//! [`Matrix`] is a cheap view (reference-counted bytes of a mapped file) of `[rows, cols]` numbers,
//! rows = outputs as in every checkpoint (`y = x Wᵀ`). It widens itself to f32 piece by piece, in
//! tiles of [`TILE`] columns; nothing ever holds the whole matrix in f32. Format words are those of
//! the checkpoints: `weight_scale_inv` (FP8), `weight_packed` and `weight_scale` (compressed-tensors
//! INT4), GGUF block types.

use bytes::Bytes;
use std::ops::Range;

use crate::coded_bf16::{self, Coded};
use crate::dtype::{E4M3_REST, bf16_to_f32, e4m3_shifted, e4m3_to_f32, e8m0_to_f32, f16_to_f32};
use crate::floats;
use crate::ggml::{self, GgmlType};
use crate::interleaved::{self, Interleaved};
use crate::isa::isa;

/// Columns are widened in tiles of this many; a multiple of every format's block length.
pub const TILE: usize = 256;

/// Rows and columns that share one FP8 scale.
pub const FP8_BLOCK: usize = 128;

/// Columns that share one INT4 scale.
pub const INT4_GROUP: usize = 32;

/// Where a matrix's numbers lie and how they are coded. Lengths are checked by [`Matrix::new`].
#[derive(Clone, Debug)]
pub enum Storage {
    /// Little-endian IEEE binary32, `[rows, cols]`.
    F32(Bytes),
    /// Little-endian IEEE binary16, `[rows, cols]`.
    F16(Bytes),
    /// Little-endian bfloat16, `[rows, cols]`.
    Bf16(Bytes),
    /// `F8_E4M3` bytes `[rows, cols]`, one scale per 128x128 block; edge blocks are cut.
    Fp8 {
        /// The `weight` tensor.
        weight: Bytes,
        /// The `weight_scale_inv` tensor, `[ceil(rows/128), ceil(cols/128)]`.
        scale_inv: ScaleInv,
        /// This view's first row inside its scale grid; 0 for a whole tensor.
        first_row: usize,
    },
    /// compressed-tensors `pack-quantized`: value = (nibble - 8) x scale.
    Int4 {
        /// `weight_packed`: `[rows, cols/8]` little-endian i32, lowest nibble first.
        packed: Bytes,
        /// `weight_scale`: `[rows, cols/32]` bfloat16.
        scale: Bytes,
    },
    /// Blocks of a GGUF tensor, row after row.
    Ggml {
        /// The block format.
        kind: GgmlType,
        /// The blocks.
        blocks: Bytes,
    },
    /// BF16 in twelve bits, as [`coded_bf16::code`] makes it.
    CodedBf16 {
        /// Signs, fractions and codes of exponents, `[rows, cols/128]` blocks of 192 bytes.
        blocks: Bytes,
        /// The exponents that the codes count from, `[rows, cols/128]`.
        bases: Bytes,
        /// Blocks that are kept whole, 256 bytes each.
        whole: Bytes,
    },
    /// Rows rearranged in panels, as [`interleaved::interleave`] makes them.
    Interleaved {
        /// What they were.
        format: Interleaved,
        /// Their blocks or codes.
        blocks: Bytes,
        /// INT4: their scales; else nothing.
        scale: Bytes,
    },
}

/// The scales of an FP8 matrix.
#[derive(Clone, Debug)]
pub enum ScaleInv {
    /// Little-endian f32.
    F32(Bytes),
    /// `F8_E8M0`: powers of two.
    Ue8m0(Bytes),
}

/// Why bytes do not make a matrix.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MatrixError {
    /// The bytes are not as many as shape and format ask for.
    #[error("{what} of a {rows}x{cols} {format} matrix has {found} bytes, expected {expected}")]
    Length {
        /// Which part.
        what: &'static str,
        /// Format label.
        format: &'static str,
        /// Rows.
        rows: usize,
        /// Columns.
        cols: usize,
        /// Bytes that were given.
        found: usize,
        /// Bytes that would be right.
        expected: usize,
    },
    /// A row does not hold whole blocks.
    #[error("{cols} columns are not a multiple of the {block} numbers of a {format} block")]
    Ragged {
        /// Format label.
        format: &'static str,
        /// Columns.
        cols: usize,
        /// Numbers per block.
        block: usize,
    },
    /// Rows that do not fill whole panels.
    #[error("{rows} interleaved rows are not a multiple of 8")]
    Panels {
        /// Rows.
        rows: usize,
    },
    /// rows x cols does not fit the address space.
    #[error("a {rows}x{cols} matrix is too large")]
    TooLarge {
        /// Rows.
        rows: usize,
        /// Columns.
        cols: usize,
    },
}

/// A `[rows, cols]` weight matrix in its stored format.
#[derive(Clone, Debug)]
pub struct Matrix {
    rows: usize,
    cols: usize,
    storage: Storage,
}

impl Matrix {
    /// Checks that the bytes are exactly what shape and format ask for.
    pub fn new(rows: usize, cols: usize, storage: Storage) -> Result<Matrix, MatrixError> {
        let matrix = Matrix { rows, cols, storage };
        matrix.check()?;
        Ok(matrix)
    }

    /// Number of outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// How the numbers are stored.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// The format's name as people know it: `BF16`, `FP8`, `INT4`, `Q4_K`...
    pub fn format(&self) -> &'static str {
        match &self.storage {
            Storage::F32(_) => "F32",
            Storage::F16(_) => "F16",
            Storage::Bf16(_) | Storage::CodedBf16 { .. } => "BF16",
            Storage::Fp8 { .. } => "FP8",
            Storage::Int4 { .. } => "INT4",
            Storage::Ggml { kind, .. } => kind.name(),
            Storage::Interleaved { format, .. } => format.ggml().map_or("INT4", GgmlType::name),
        }
    }

    /// Bytes the matrix takes as stored, scales included.
    pub fn stored_bytes(&self) -> usize {
        match &self.storage {
            Storage::F32(b) | Storage::F16(b) | Storage::Bf16(b) | Storage::Ggml { blocks: b, .. } => b.len(),
            Storage::Fp8 { weight, scale_inv, .. } => weight.len() + scale_inv.bytes().len(),
            Storage::CodedBf16 { blocks, bases, whole } => blocks.len() + bases.len() + whole.len(),
            Storage::Int4 { packed: b, scale } | Storage::Interleaved { blocks: b, scale, .. } => {
                b.len() + scale.len()
            }
        }
    }

    /// A view of some of the rows. Panics if the range is outside the matrix, or does not hold whole panels of
    /// interleaved rows.
    pub fn slice_rows(&self, rows: Range<usize>) -> Matrix {
        assert!(rows.start <= rows.end && rows.end <= self.rows, "rows {rows:?} of {}", self.rows);
        let cut = |bytes: &Bytes| {
            let per_row = bytes.len().checked_div(self.rows).unwrap_or(0);
            bytes.slice(rows.start * per_row..rows.end * per_row)
        };
        let storage = match &self.storage {
            Storage::F32(b) => Storage::F32(cut(b)),
            Storage::F16(b) => Storage::F16(cut(b)),
            Storage::Bf16(b) => Storage::Bf16(cut(b)),
            Storage::Fp8 { weight, scale_inv, first_row } => Storage::Fp8 {
                weight: cut(weight),
                scale_inv: scale_inv.clone(),
                first_row: first_row + rows.start,
            },
            Storage::Int4 { packed, scale } => Storage::Int4 { packed: cut(packed), scale: cut(scale) },
            Storage::Ggml { kind, blocks } => Storage::Ggml { kind: *kind, blocks: cut(blocks) },
            Storage::CodedBf16 { blocks, bases, whole } => {
                Storage::CodedBf16 { blocks: cut(blocks), bases: cut(bases), whole: whole.clone() }
            }
            Storage::Interleaved { format, blocks, scale } => {
                let whole = |row: usize| row.is_multiple_of(interleaved::ROWS);
                assert!(whole(rows.start) && whole(rows.end), "rows {rows:?} of panels");
                Storage::Interleaved { format: *format, blocks: cut(blocks), scale: cut(scale) }
            }
        };
        Matrix { rows: rows.len(), cols: self.cols, storage }
    }

    /// The same numbers in panels: `bytes` has as many as this matrix stores.
    pub(crate) fn rearranged(&self, format: Interleaved, bytes: Bytes) -> Matrix {
        let codes = match &self.storage {
            Storage::Int4 { packed, .. } => packed.len(),
            _ => bytes.len(),
        };
        let (blocks, scale) = (bytes.slice(..codes), bytes.slice(codes..));
        self.stored_as(Storage::Interleaved { format, blocks, scale })
    }

    /// The same numbers in another form.
    pub(crate) fn stored_as(&self, storage: Storage) -> Matrix {
        Matrix { storage, ..*self }
    }

    /// Widens `out.len()` numbers of one row, from column `first` on. `first` is a multiple of
    /// [`TILE`]; the piece ends at a multiple of the format's block length or at the row's end.
    /// Floats may also be any piece inside one FP8 block.
    #[inline(always)]
    pub fn dequantize(&self, row: usize, first: usize, out: &mut [f32]) {
        let (start, len) = (row * self.cols + first, out.len());
        match &self.storage {
            Storage::F32(bytes) => {
                for (out, b) in out.iter_mut().zip(bytes[4 * start..4 * (start + len)].chunks_exact(4)) {
                    *out = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                }
            }
            Storage::F16(bytes) => {
                for (out, b) in out.iter_mut().zip(bytes[2 * start..2 * (start + len)].chunks_exact(2)) {
                    *out = f16_to_f32(u16::from_le_bytes([b[0], b[1]]));
                }
            }
            Storage::Bf16(bytes) => {
                for (out, b) in out.iter_mut().zip(bytes[2 * start..2 * (start + len)].chunks_exact(2)) {
                    *out = bf16_to_f32(u16::from_le_bytes([b[0], b[1]]));
                }
            }
            Storage::Fp8 { weight, scale_inv, first_row } => {
                let scale_row = (first_row + row) / FP8_BLOCK * self.cols.div_ceil(FP8_BLOCK);
                let codes = &weight[start..start + len];
                for (i, (out, codes)) in out.chunks_mut(FP8_BLOCK).zip(codes.chunks(FP8_BLOCK)).enumerate() {
                    widen_e4m3(codes, scale_inv.get(scale_row + first / FP8_BLOCK + i), out);
                }
            }
            Storage::Int4 { packed, scale } => {
                let packed = &packed[start / 2..(start + len) / 2];
                let scales = &scale[start / INT4_GROUP * 2..(start + len) / INT4_GROUP * 2];
                widen_int4(packed, scales, out);
            }
            Storage::Ggml { kind, blocks } => {
                let (numbers, bytes) = (kind.block_len(), kind.block_bytes());
                ggml::dequantize(
                    *kind,
                    &blocks[start / numbers * bytes..(start + len) / numbers * bytes],
                    out,
                );
            }
            Storage::CodedBf16 { blocks, bases, whole } => {
                floats::widen_coded(isa(), &Coded::new(blocks, bases, whole), start, out);
            }
            Storage::Interleaved { format, .. } => interleaved::dequantize(self, *format, row, first, out),
        }
    }

    fn check(&self) -> Result<(), MatrixError> {
        let (rows, cols, format) = (self.rows, self.cols, self.format());
        let numbers = rows
            .checked_mul(cols)
            .filter(|n| n.checked_mul(4).is_some())
            .ok_or(MatrixError::TooLarge { rows, cols })?;
        let length = |what, bytes: &Bytes, expected: usize| match bytes.len() == expected {
            true => Ok(()),
            false => Err(MatrixError::Length { what, format, rows, cols, found: bytes.len(), expected }),
        };
        let whole_blocks = |block: usize| match cols.is_multiple_of(block) {
            true => Ok(()),
            false => Err(MatrixError::Ragged { format, cols, block }),
        };
        match &self.storage {
            Storage::F32(b) => length("weight", b, 4 * numbers),
            Storage::F16(b) | Storage::Bf16(b) => length("weight", b, 2 * numbers),
            Storage::Fp8 { weight, scale_inv, first_row } => {
                length("weight", weight, numbers)?;
                let grid = (first_row + rows).div_ceil(FP8_BLOCK) * cols.div_ceil(FP8_BLOCK);
                length("weight_scale_inv", scale_inv.bytes(), grid * scale_inv.width())
            }
            Storage::Int4 { packed, scale } => {
                whole_blocks(INT4_GROUP)?;
                length("weight_packed", packed, numbers / 2)?;
                length("weight_scale", scale, numbers / INT4_GROUP * 2)
            }
            Storage::Ggml { kind, blocks } => {
                whole_blocks(kind.block_len())?;
                length("blocks", blocks, numbers / kind.block_len() * kind.block_bytes())
            }
            Storage::CodedBf16 { blocks, bases, whole } => {
                whole_blocks(coded_bf16::BLOCK)?;
                length("blocks", blocks, numbers / coded_bf16::BLOCK * coded_bf16::BLOCK_BYTES)?;
                length("bases", bases, numbers / coded_bf16::BLOCK)?;
                let kept = Coded::new(blocks, bases, whole).needed_whole() * coded_bf16::WHOLE_BYTES;
                length("whole blocks", whole, kept)
            }
            Storage::Interleaved { format: of, blocks, scale } => {
                let (block, pieces) = of.block();
                whole_blocks(block)?;
                length("blocks", blocks, numbers / block * interleaved::bytes_of(pieces))?;
                let scales = if *of == Interleaved::Int4 { numbers / INT4_GROUP * 2 } else { 0 };
                length("scale", scale, scales)?;
                match rows.is_multiple_of(interleaved::ROWS) {
                    true => Ok(()),
                    false => Err(MatrixError::Panels { rows }),
                }
            }
        }
    }
}

/// Nibbles, lowest first, less 8, times the scale of their group.
#[inline(always)]
pub(crate) fn widen_int4(packed: &[u8], scales: &[u8], out: &mut [f32]) {
    let packed = packed.as_chunks::<{ INT4_GROUP / 2 }>().0;
    let groups = out.as_chunks_mut::<INT4_GROUP>().0.iter_mut().zip(packed);
    for ((out, packed), scale) in groups.zip(scales.chunks_exact(2)) {
        let scale = bf16_to_f32(u16::from_le_bytes([scale[0], scale[1]]));
        let mut codes = [0; INT4_GROUP];
        for (i, byte) in packed.iter().enumerate() {
            codes[2 * i] = byte & 15;
            codes[2 * i + 1] = byte >> 4;
        }
        for (out, code) in out.iter_mut().zip(codes) {
            *out = (i32::from(code) - 8) as f32 * scale;
        }
    }
}

/// Codes that share a scale, times it. Where nothing leaves the range, a power of two goes from the codes to the
/// scale, which changes no rounding and takes a third of the steps.
#[inline(always)]
pub(crate) fn widen_e4m3(codes: &[u8], scale: f32, out: &mut [f32]) {
    let factor = scale * E4M3_REST;
    let most = codes.iter().fold(0, |most, code| (code & 0x7f).max(most));
    if most < 0x7f && factor.is_finite() {
        for (out, &code) in out.iter_mut().zip(codes) {
            *out = e4m3_shifted(code) * factor;
        }
    } else {
        for (out, &code) in out.iter_mut().zip(codes) {
            *out = e4m3_to_f32(code) * scale;
        }
    }
}

impl ScaleInv {
    fn bytes(&self) -> &Bytes {
        match self {
            ScaleInv::F32(b) | ScaleInv::Ue8m0(b) => b,
        }
    }

    fn width(&self) -> usize {
        match self {
            ScaleInv::F32(_) => 4,
            ScaleInv::Ue8m0(_) => 1,
        }
    }

    #[inline(always)]
    pub(crate) fn get(&self, i: usize) -> f32 {
        match self {
            ScaleInv::F32(b) => f32::from_le_bytes(b.as_chunks().0[i]),
            ScaleInv::Ue8m0(b) => e8m0_to_f32(b[i]),
        }
    }
}
