//! The transposed product of one token, its sums in registers.
//!
//! The order of summation, and so every bit, is that of the tiles in [`crate::matmul`], which serve several tokens: a
//! sum takes its terms row by row.

use super::{Bf16, E4m3, F16, F32, Format, Vectors, per_vectors, widened};
use crate::dot::LANES;
use crate::isa::Isa;
use crate::matrix::{Matrix, Storage};
use crate::prefetch::prefetch;

/// Columns whose sums stay in registers: eight vectors of AVX2, as many as hide the latency of a multiply-add. Divides
/// an FP8 block.
const COLUMNS: usize = 64;

/// How many rows before their use weights are asked for.
const AHEAD: usize = 8;

/// Rows and columns of a matrix against one token.
pub(crate) struct Part<'a> {
    pub(crate) w: &'a Matrix,
    pub(crate) row: usize,
    /// First column, a multiple of an FP8 block.
    pub(crate) first: usize,
    /// A number for each row.
    pub(crate) x: &'a [f32],
}

/// `sums[k] = Σ_n x[n] w[row + n, first + k]` in whole groups of columns; how many columns those are.
pub(crate) fn transposed(isa: Isa, part: &Part<'_>, sums: &mut [f32]) -> usize {
    let groups = sums.as_chunks_mut().0;
    whole_groups(isa, part, groups);
    groups.len() * COLUMNS
}

per_vectors! {
    fn whole_groups(part: &Part<'_>, sums: &mut [[f32; COLUMNS]]) = by_format
}

#[inline(always)]
fn by_format<V: Vectors>(part: &Part<'_>, sums: &mut [[f32; COLUMNS]]) {
    match part.w.storage() {
        Storage::F32(bytes) => columns::<V, F32>(part, &F32, bytes, sums),
        Storage::F16(bytes) => columns::<V, F16>(part, &F16, bytes, sums),
        Storage::Bf16(bytes) => columns::<V, Bf16>(part, &Bf16, bytes, sums),
        Storage::Fp8 { weight, scale_inv, first_row } => {
            let format = E4m3 { scale_inv, first_row: *first_row, cols: part.w.cols() };
            columns::<V, E4m3<'_>>(part, &format, weight, sums)
        }
        Storage::CodedBf16 { .. }
        | Storage::Int4 { .. }
        | Storage::Ggml { .. }
        | Storage::Interleaved { .. } => {
            unreachable!("{} is not a format of floats", part.w.format())
        }
    }
}

#[inline(always)]
fn columns<V: Vectors, F: Format>(
    part: &Part<'_>,
    format: &F,
    weights: &[u8],
    groups: &mut [[f32; COLUMNS]],
) {
    let cols = part.w.cols();
    for (group, out) in groups.iter_mut().enumerate() {
        let first = part.first + group * COLUMNS;
        let mut sums = [V::zero(); COLUMNS / LANES];
        for (n, x) in part.x.iter().enumerate() {
            let row = part.row + n;
            let here = &weights[(row * cols + first) * F::BYTES..][..COLUMNS * F::BYTES];
            prefetch(here.as_ptr().wrapping_add(AHEAD * cols * F::BYTES), COLUMNS * F::BYTES);
            let scale = format.scale(row, first);
            match F::can_widen::<V, COLUMNS>(here, scale) {
                true => add_row::<V, F>(&mut sums, *x, here, scale),
                false => add_any_row::<V>(&mut sums, *x, &widened(part.w, row, first)),
            }
        }
        for (out, sum) in out.as_chunks_mut().0.iter_mut().zip(sums) {
            *out = V::store(sum);
        }
    }
}

/// The sums of a group of columns.
type Sums<V> = [<V as Vectors>::Lanes; COLUMNS / LANES];

#[inline(always)]
fn add_row<V: Vectors, F: Format>(sums: &mut Sums<V>, x: f32, weights: &[u8], scale: f32) {
    let groups = &F::groups(weights)[..COLUMNS / LANES];
    for (sum, group) in sums.iter_mut().zip(groups) {
        *sum = V::fma(V::splat(x), F::widen::<V>(group, scale), *sum);
    }
}

/// [`add_row`] of any numbers.
#[inline(always)]
fn add_any_row<V: Vectors>(sums: &mut Sums<V>, x: f32, weights: &[[f32; LANES]; COLUMNS / LANES]) {
    for (sum, group) in sums.iter_mut().zip(weights) {
        *sum = V::fma(V::splat(x), V::load(group), *sum);
    }
}
