//! Weights whose rows lie eight by eight side by side, as the kernels of [`crate::quantized`] read them.
//!
//! A stored block is loaded in pieces of 16, 4 or 2 bytes. In a panel of eight rows each piece of a block is followed by
//! the same piece of the next row, pieces of 16 in four rounds of 4 bytes: so what a kernel wants in one vector is
//! neighbours in memory, where rows as they are published have to be transposed on the way. A block's pieces come in the
//! order in which they are needed. The numbers stay the same, and so do all sums. Others call it repacking (llama.cpp, ik_llama.cpp `-rtr`).

use bytes::Bytes;

use crate::ggml::{self, GgmlType};
use crate::huge_pages::advise_huge_pages;
use crate::matrix::{Matrix, Storage, widen_int4};
use crate::pool::{Disjoint, Parts, Pool};

/// Rows of a panel.
pub(crate) const ROWS: usize = 8;

/// Bytes between the rows of a round.
const WORD: usize = 4;

/// Where a piece begins in a stored block, and its bytes.
pub(crate) type Piece = (usize, usize);

/// Pieces of 16 bytes as they are stored.
const IN_ORDER: [Piece; 11] = {
    let mut pieces = [(0, 16); 11];
    let mut i = 0;
    while i < pieces.len() {
        pieces[i].0 = 16 * i;
        i += 1;
    }
    pieces
};

/// Scales first, then of each half of the columns the upper bits and the lower: as stored, upper bits and scales lie behind
/// all lower ones, and memory read back and forth like that is not foreseen by hardware.
const Q6K: [Piece; 14] = [
    (192, 16),
    (208, 2),
    (128, 16),
    (144, 16),
    (0, 16),
    (16, 16),
    (32, 16),
    (48, 16),
    (160, 16),
    (176, 16),
    (64, 16),
    (80, 16),
    (96, 16),
    (112, 16),
];

/// The formats that are rearranged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interleaved {
    /// compressed-tensors INT4 in runs of 256 columns.
    Int4,
    /// GGUF's Q4_K, and so on.
    Q4K,
    /// Q5_K.
    Q5K,
    /// Q6_K.
    Q6K,
    /// Q8_0.
    Q8_0,
}

impl Interleaved {
    /// The format of a matrix that can be rearranged: a common one, with whole panels of rows.
    fn of(w: &Matrix) -> Option<Interleaved> {
        let format = match w.storage() {
            Storage::Int4 { .. } if w.cols().is_multiple_of(256) => Interleaved::Int4,
            Storage::Ggml { kind: GgmlType::Q4_K, .. } => Interleaved::Q4K,
            Storage::Ggml { kind: GgmlType::Q5_K, .. } => Interleaved::Q5K,
            Storage::Ggml { kind: GgmlType::Q6_K, .. } => Interleaved::Q6K,
            Storage::Ggml { kind: GgmlType::Q8_0, .. } => Interleaved::Q8_0,
            _ => return None,
        };
        (w.rows() > 0 && w.rows().is_multiple_of(ROWS)).then_some(format)
    }

    /// Numbers of a block, and its pieces in the order in which the kernels read them.
    pub(crate) fn block(self) -> (usize, &'static [Piece]) {
        match self {
            Interleaved::Int4 => (256, &IN_ORDER[..8]),
            Interleaved::Q4K => (256, &IN_ORDER[..9]),
            Interleaved::Q5K => (256, &IN_ORDER[..11]),
            Interleaved::Q6K => (256, &Q6K),
            Interleaved::Q8_0 => (32, &[(0, 2), (2, 16), (18, 16)]),
        }
    }

    /// The GGUF type that it was; none for INT4.
    pub(crate) fn ggml(self) -> Option<GgmlType> {
        match self {
            Interleaved::Int4 => None,
            Interleaved::Q4K => Some(GgmlType::Q4_K),
            Interleaved::Q5K => Some(GgmlType::Q5_K),
            Interleaved::Q6K => Some(GgmlType::Q6_K),
            Interleaved::Q8_0 => Some(GgmlType::Q8_0),
        }
    }
}

/// Whether [`interleave`] rearranges this matrix.
pub fn can_interleave(w: &Matrix) -> bool {
    Interleaved::of(w).is_some()
}

/// Parts that a matrix is cut into, so that all threads work on a large one, and nearly all rows get into the memory of the
/// node that will multiply them.
pub(crate) const PARTS: usize = 16;

/// Rearranges the matrices that can be, into one new buffer in huge pages; the others stay as they are.
pub fn interleave(pool: &Pool, matrices: &mut [&mut Matrix]) {
    let formats: Vec<Option<Interleaved>> = matrices.iter().map(|w| Interleaved::of(w)).collect();
    let mut end = 0;
    let mut starts = Vec::with_capacity(matrices.len());
    for (w, format) in matrices.iter().zip(&formats) {
        starts.push(end);
        end += format.map_or(0, |_| w.stored_bytes());
    }
    let mut buffer = vec![0; end]; // zeros come from the system, page by page where they are first written
    advise_huge_pages(&mut buffer);
    let out = Disjoint::new(&mut buffer);
    let sources: &[&mut Matrix] = matrices;
    pool.run_parts(Parts::Alike { matrices: sources.len(), parts: PARTS }, |number, part| {
        if let Some(format) = formats[number] {
            write(sources[number], format, part, &out, starts[number]);
        }
    });
    let buffer = Bytes::from(buffer);
    for ((w, format), start) in matrices.iter_mut().zip(formats).zip(starts) {
        if let Some(format) = format {
            **w = w.rearranged(format, buffer.slice(start..start + w.stored_bytes()));
        }
    }
}

/// A part of a matrix: codes, and behind those of all parts INT4's scales.
fn write(w: &Matrix, format: Interleaved, part: usize, out: &Disjoint<u8>, start: usize) {
    let (_, pieces) = format.block();
    match w.storage() {
        Storage::Int4 { packed, scale } => {
            write_part(packed, w.rows(), part, pieces, out, start);
            write_part(scale, w.rows(), part, &IN_ORDER[..1], out, start + packed.len());
        }
        Storage::Ggml { blocks, .. } => write_part(blocks, w.rows(), part, pieces, out, start),
        _ => {}
    }
}

fn write_part(bytes: &[u8], rows: usize, part: usize, pieces: &[Piece], out: &Disjoint<u8>, start: usize) {
    let (panels, row_len) = (rows / ROWS, bytes.len() / rows);
    let cut = |part: usize| panels * part / PARTS * ROWS * row_len;
    let here = cut(part)..cut(part + 1);
    // SAFETY: the places of matrices and of their parts do not overlap; the buffer outlives the loop over them.
    let out = unsafe { out.slice(start + here.start, here.len()) };
    write_panels(&bytes[here], row_len, pieces, out);
}

fn write_panels(rows: &[u8], row_len: usize, pieces: &[Piece], out: &mut [u8]) {
    let block_len = bytes_of(pieces);
    for (panel, out) in rows.chunks_exact(ROWS * row_len).zip(out.chunks_exact_mut(ROWS * row_len)) {
        for (number, out) in out.chunks_exact_mut(ROWS * block_len).enumerate() {
            let mut rest = out;
            for (at, len) in pieces {
                let (out, behind) = rest.split_at_mut(ROWS * len);
                write_piece(panel, row_len, number * block_len + at, *len, out);
                rest = behind;
            }
        }
    }
}

/// Bytes of a stored block.
pub(crate) fn bytes_of(pieces: &[Piece]) -> usize {
    pieces.iter().map(|(_, len)| len).sum()
}

/// The piece of all eight rows that begins at byte `at` of each.
fn write_piece(panel: &[u8], row_len: usize, at: usize, piece: usize, out: &mut [u8]) {
    if let Some(out) = out.first_chunk_mut() {
        return write_16(panel, row_len, at, out);
    }
    let word = piece.min(WORD);
    for (round, out) in out.chunks_exact_mut(ROWS * word).enumerate() {
        for (row, out) in out.chunks_exact_mut(word).enumerate() {
            out.copy_from_slice(&panel[row * row_len + at + round * word..][..word]);
        }
    }
}

/// A piece of 16 bytes, which nearly all are, at the speed of memory.
fn write_16(panel: &[u8], row_len: usize, at: usize, out: &mut [u8; 16 * ROWS]) {
    for (row, bytes) in panel.chunks_exact(row_len).enumerate() {
        if let Some(piece) = bytes[at..].first_chunk::<16>() {
            for (round, word) in piece.as_chunks::<WORD>().0.iter().enumerate() {
                out[(round * ROWS + row) * WORD..][..WORD].copy_from_slice(word);
            }
        }
    }
}

/// A row's block that begins at byte `first`, as it was stored.
fn read_block(panels: &[u8], row_len: usize, row: usize, first: usize, pieces: &[Piece], out: &mut [u8]) {
    let panel = &panels[row / ROWS * ROWS * row_len..][..ROWS * row_len];
    let mut from = ROWS * first;
    for (at, len) in pieces {
        let word = (*len).min(WORD);
        for (round, out) in out[*at..at + len].chunks_exact_mut(word).enumerate() {
            let place = from + (ROWS * round + row % ROWS) * word;
            out.copy_from_slice(&panel[place..place + word]);
        }
        from += ROWS * len;
    }
}

/// Widens `out.len()` numbers of a row from column `first` on, both whole blocks: as [`Matrix::dequantize`] does, for
/// what is not in a hurry.
pub(crate) fn dequantize(w: &Matrix, format: Interleaved, row: usize, first: usize, out: &mut [f32]) {
    const MOST_BYTES: usize = 256;
    let Storage::Interleaved { blocks, scale, .. } = w.storage() else { return };
    let (numbers, pieces) = format.block();
    let bytes = bytes_of(pieces);
    let (row_len, scale_len) = (blocks.len() / w.rows(), scale.len() / w.rows());
    let (mut block, mut scales) = ([0; MOST_BYTES], [0; 16]);
    for (number, out) in (first / numbers..).zip(out.chunks_mut(numbers)) {
        read_block(blocks, row_len, row, number * bytes, pieces, &mut block[..bytes]);
        match format.ggml() {
            Some(kind) => ggml::dequantize(kind, &block[..bytes], out),
            None => {
                read_block(scale, scale_len, row, number * 16, &IN_ORDER[..1], &mut scales);
                widen_int4(&block[..bytes], &scales, out);
            }
        }
    }
}
