//! One token times FP8 (E4M3 in blocks of 128x128 under a scale), nearer to the pace of memory than the general code.
//!
//! What is rare waits until a panel's end: whether one of its numbers is NaN or a scale too large is only noted on the
//! way, and such a panel is computed once more by that of [`super`]. The sums are the same.

use super::{E4m3, GROUPS, Piece, Vectors, panel as any_panel};
use crate::dot::{LANES, total};
use crate::dtype::E4M3_REST;
use crate::matrix::{FP8_BLOCK, TILE};
use crate::prefetch::prefetch_second_level;

/// Rows at once: their sums, a scale and what widening needs fill 16 registers.
const ROWS: usize = 3;

/// Whether [`rows`] can be called: every block has all its columns.
pub(super) fn is_whole(piece: &Piece<'_>) -> bool {
    piece.w.cols().is_multiple_of(FP8_BLOCK)
}

/// `out[r]` of a piece of one token.
#[inline(always)]
pub(super) fn rows<V: Vectors>(piece: &Piece<'_>, format: &E4m3<'_>, weights: &[u8], out: &mut [f32]) {
    let mut r = 0;
    while r < piece.rows {
        let row = piece.row + r;
        let under_one_scale = FP8_BLOCK - (format.first_row + row) % FP8_BLOCK;
        if ROWS <= under_one_scale.min(piece.rows - r)
            && let Some(sums) = panel::<V, ROWS>(piece, format, weights, row)
        {
            for (out, sum) in out[r..].iter_mut().zip(sums) {
                *out = total(V::store(sum));
            }
            r += ROWS;
        } else {
            let sum = match panel::<V, 1>(piece, format, weights, row) {
                Some([sum]) => sum,
                None => any_panel::<V, E4m3<'_>, 1, 1>(piece, format, weights, row)[0][0],
            };
            out[r] = total(V::store(sum));
            r += 1;
        }
    }
}

/// Rows that lie under one scale. None if a number is NaN or a scale too large for [`Vectors::e4m3`].
#[inline(always)]
fn panel<V: Vectors, const R: usize>(
    piece: &Piece<'_>,
    format: &E4m3<'_>,
    weights: &[u8],
    row: usize,
) -> Option<[V::Lanes; R]> {
    let cols = piece.w.cols();
    let rows: [&[[u8; FP8_BLOCK]]; R] =
        std::array::from_fn(|r| weights[(row + r) * cols..][..cols].as_chunks().0);
    let scales = (format.first_row + row) / FP8_BLOCK * (cols / FP8_BLOCK);
    let (mut sums, mut most, mut fits) = ([V::zero(); R], V::no_magnitudes(), true);
    for block in 0..cols / FP8_BLOCK {
        let behind = (row + R) * cols + R * block * FP8_BLOCK;
        prefetch_second_level(weights.as_ptr().wrapping_add(behind), R * FP8_BLOCK);
        let numbers: [&[u8; FP8_BLOCK]; R] = std::array::from_fn(|r| &rows[r][block]);
        most = numbers.iter().fold(most, |most, numbers| V::with_magnitudes(most, numbers));
        let scale = format.scale_inv.get(scales + block) * E4M3_REST;
        fits &= scale.is_finite();
        let first = block * FP8_BLOCK;
        let x = piece.x[first / TILE * piece.stride + first % TILE..].as_chunks::<LANES>().0;
        for (k, x) in x.first_chunk::<GROUPS>()?.iter().enumerate() {
            let x = V::load(x);
            for r in 0..R {
                let w = V::scaled(V::e4m3(&numbers[r].as_chunks().0[k]), scale);
                sums[r] = V::fma(x, w, sums[r]);
            }
        }
    }
    (fits && !V::has_nan(most)).then_some(sums)
}
