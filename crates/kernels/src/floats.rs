//! Few tokens times weights that are floats: widened in registers, on their way to the multiplication.
//!
//! The order of summation, and so every bit, is that of [`crate::dot`] and of the tiles in
//! [`crate::matmul`], which serve many tokens: element `k` of a row goes to lane `k mod 16`.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod scalar;

use crate::dot::{LANES, Sum, total};
use crate::isa::Isa;
use crate::matrix::{FP8_BLOCK, Matrix, Storage, TILE};
use crate::prefetch::prefetch;

/// Most tokens: their sums, for as many rows as are read at once, have to stay in registers.
pub(crate) const MOST_TOKENS: usize = 4;

/// Rows of a matrix against few tokens.
pub(crate) struct Piece<'a> {
    pub(crate) w: &'a Matrix,
    pub(crate) row: usize,
    pub(crate) rows: usize,
    /// Tiles of `x`, as [`crate::inputs::Inputs`] has them: of a tile, token by token.
    pub(crate) x: &'a [f32],
    /// From one tile to the next of the same token.
    pub(crate) stride: usize,
    pub(crate) tokens: usize,
}

/// Whether [`product`] knows the format.
pub(crate) fn are_weights_of(w: &Matrix) -> bool {
    matches!(w.storage(), Storage::F32(_) | Storage::F16(_) | Storage::Bf16(_) | Storage::Fp8 { .. })
}

/// `out[t * out_stride + r]`.
pub(crate) fn product(isa: Isa, piece: &Piece<'_>, out: &mut [f32], out_stride: usize) {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn on_avx2(piece: &Piece<'_>, out: &mut [f32], out_stride: usize) {
        by_tokens::<avx2::Avx2>(piece, out, out_stride);
    }
    match isa {
        // SAFETY: these values of `Isa` come from `Isa::available`, which has seen the features.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 | Isa::Avx512 => unsafe { on_avx2(piece, out, out_stride) },
        _ => by_tokens::<scalar::Scalar>(piece, out, out_stride),
    }
}

/// The vector operations of this path. Instances are made only inside functions compiled for their instruction set.
trait Vectors {
    /// 16 f32.
    type Lanes: Copy;

    fn zero() -> Self::Lanes;
    fn f32(numbers: &[u8; 64]) -> Self::Lanes;
    fn f16(numbers: &[u8; 32]) -> Self::Lanes;
    fn bf16(numbers: &[u8; 32]) -> Self::Lanes;
    /// Times 2^-8, which saves a step.
    fn e4m3(numbers: &[u8; 16]) -> Self::Lanes;
    fn load(x: &[f32; LANES]) -> Self::Lanes;
    fn scaled(a: Self::Lanes, factor: f32) -> Self::Lanes;
    fn fma(a: Self::Lanes, b: Self::Lanes, c: Self::Lanes) -> Self::Lanes;
    fn store(a: Self::Lanes) -> Sum;
}

/// One to four tokens; the fewer, the more rows at once.
#[inline(always)]
fn by_tokens<V: Vectors>(piece: &Piece<'_>, out: &mut [f32], out_stride: usize) {
    match piece.tokens {
        1 => by_format::<V, 4, 1>(piece, out, out_stride),
        2 => by_format::<V, 2, 2>(piece, out, out_stride),
        3 => by_format::<V, 1, 3>(piece, out, out_stride),
        _ => by_format::<V, 1, MOST_TOKENS>(piece, out, out_stride),
    }
}

#[inline(always)]
fn by_format<V: Vectors, const R: usize, const T: usize>(
    piece: &Piece<'_>,
    out: &mut [f32],
    out_stride: usize,
) {
    match piece.w.storage() {
        Storage::F32(bytes) => panels::<V, F32, R, T>(piece, bytes, out, out_stride),
        Storage::F16(bytes) => panels::<V, F16, R, T>(piece, bytes, out, out_stride),
        Storage::Bf16(bytes) => panels::<V, Bf16, R, T>(piece, bytes, out, out_stride),
        Storage::Fp8 { weight, .. } => panels::<V, E4m3, R, T>(piece, weight, out, out_stride),
        Storage::Int4 { .. } | Storage::Ggml { .. } => {
            unreachable!("{} is not a format of floats", piece.w.format())
        }
    }
}

/// One number format.
trait Format {
    /// Bytes of a number.
    const BYTES: usize;

    /// 16 numbers; `scale` is used by formats that have one.
    fn widen<V: Vectors>(bytes: &[u8], scale: Scale) -> V::Lanes;
}

struct F32;
struct F16;
struct Bf16;
struct E4m3;

/// The scale of an FP8 block, less what [`Vectors::e4m3`] leaves to it.
#[derive(Clone, Copy)]
struct Scale {
    factor: f32,
    /// 2^8, if it would make `factor` infinite.
    rest: Option<f32>,
}

impl Scale {
    const NONE: Scale = Scale { factor: 1.0, rest: None };

    /// Powers of two change no rounding, unless a number leaves the range.
    fn new(scale: f32) -> Scale {
        match scale * 256.0 {
            factor if factor.is_finite() => Scale { factor, rest: None },
            _ => Scale { factor: scale, rest: Some(256.0) },
        }
    }
}

/// The first bytes of a piece.
#[inline(always)]
fn bytes<const N: usize>(bytes: &[u8]) -> &[u8; N] {
    &bytes.as_chunks().0[0]
}

impl Format for F32 {
    const BYTES: usize = 4;

    #[inline(always)]
    fn widen<V: Vectors>(numbers: &[u8], _: Scale) -> V::Lanes {
        V::f32(bytes(numbers))
    }
}

impl Format for F16 {
    const BYTES: usize = 2;

    #[inline(always)]
    fn widen<V: Vectors>(numbers: &[u8], _: Scale) -> V::Lanes {
        V::f16(bytes(numbers))
    }
}

impl Format for Bf16 {
    const BYTES: usize = 2;

    #[inline(always)]
    fn widen<V: Vectors>(numbers: &[u8], _: Scale) -> V::Lanes {
        V::bf16(bytes(numbers))
    }
}

impl Format for E4m3 {
    const BYTES: usize = 1;

    #[inline(always)]
    fn widen<V: Vectors>(numbers: &[u8], scale: Scale) -> V::Lanes {
        let lanes = V::e4m3(bytes(numbers));
        match scale.rest {
            None => V::scaled(lanes, scale.factor),
            Some(rest) => V::scaled(V::scaled(lanes, rest), scale.factor),
        }
    }
}

/// `R` rows at a time against `T` tokens; rows that are left over one at a time.
#[inline(always)]
fn panels<V: Vectors, F: Format, const R: usize, const T: usize>(
    piece: &Piece<'_>,
    weights: &[u8],
    out: &mut [f32],
    out_stride: usize,
) {
    let whole = piece.rows / R * R;
    for r in (0..whole).step_by(R) {
        let sums = panel::<V, F, R, T>(piece, weights, piece.row + r);
        for t in 0..T {
            for i in 0..R {
                out[t * out_stride + r + i] = total(V::store(sums[t][i]));
            }
        }
    }
    for r in whole..piece.rows {
        let sums = panel::<V, F, 1, T>(piece, weights, piece.row + r);
        for t in 0..T {
            out[t * out_stride + r] = total(V::store(sums[t][0]));
        }
    }
}

#[inline(always)]
fn panel<V: Vectors, F: Format, const R: usize, const T: usize>(
    piece: &Piece<'_>,
    weights: &[u8],
    row: usize,
) -> [[V::Lanes; R]; T] {
    let cols = piece.w.cols();
    let mut sums = [[V::zero(); R]; T];
    for first in (0..cols).step_by(FP8_BLOCK) {
        let len = FP8_BLOCK.min(cols - first);
        let behind = ((row + R) * cols + R * first) * F::BYTES;
        prefetch(weights.as_ptr().wrapping_add(behind), R * FP8_BLOCK * F::BYTES);
        let (mut rows, mut scales): ([&[u8]; R], [Scale; R]) = ([&[]; R], [Scale::NONE; R]);
        for r in 0..R {
            rows[r] = &weights[((row + r) * cols + first) * F::BYTES..][..len * F::BYTES];
            scales[r] = scale_of(piece.w, row + r, first);
        }
        let mut x: [&[f32]; T] = [&[]; T];
        for (t, x) in x.iter_mut().enumerate() {
            *x = &piece.x[first / TILE * piece.stride + t * TILE + first % TILE..]
                [..len.next_multiple_of(LANES)];
        }
        let whole = len / LANES * LANES;
        for k in (0..whole).step_by(LANES) {
            let mut here = rows;
            for here in &mut here {
                *here = &here[k * F::BYTES..][..LANES * F::BYTES];
            }
            step::<V, F, R, T>(&mut sums, here, scales, x, k);
        }
        if whole < len {
            for r in 0..R {
                let w = V::load(&short::<V, F>(&rows[r][whole * F::BYTES..], scales[r]));
                for t in 0..T {
                    sums[t][r] = V::fma(V::load(&x[t][whole..].as_chunks().0[0]), w, sums[t][r]);
                }
            }
        }
    }
    sums
}

/// Fewer than 16 numbers, and zeros behind them, whatever the scale.
#[inline(always)]
fn short<V: Vectors, F: Format>(numbers: &[u8], scale: Scale) -> Sum {
    let mut padded = [0; 4 * LANES];
    padded[..numbers.len()].copy_from_slice(numbers);
    let mut wide = V::store(F::widen::<V>(&padded, scale));
    wide[numbers.len() / F::BYTES..].fill(0.0);
    wide
}

/// 16 columns from column `k` of the block on.
#[inline(always)]
fn step<V: Vectors, F: Format, const R: usize, const T: usize>(
    sums: &mut [[V::Lanes; R]; T],
    rows: [&[u8]; R],
    scales: [Scale; R],
    x: [&[f32]; T],
    k: usize,
) {
    for r in 0..R {
        let w = F::widen::<V>(rows[r], scales[r]);
        for t in 0..T {
            let x: &[f32; LANES] = &x[t][k..k + LANES].as_chunks().0[0];
            sums[t][r] = V::fma(V::load(x), w, sums[t][r]);
        }
    }
}

#[inline(always)]
fn scale_of(w: &Matrix, row: usize, col: usize) -> Scale {
    match w.storage() {
        Storage::Fp8 { scale_inv, first_row, .. } => {
            let per_row = w.cols().div_ceil(FP8_BLOCK);
            Scale::new(scale_inv.get((first_row + row) / FP8_BLOCK * per_row + col / FP8_BLOCK))
        }
        _ => Scale::NONE,
    }
}
