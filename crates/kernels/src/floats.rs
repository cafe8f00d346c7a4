//! Few tokens times weights that are floats: widened in registers, on their way to the multiplication.
//!
//! The order of summation, and so every bit, is that of [`crate::dot`] and of the tiles in
//! [`crate::matmul`], which serve many tokens: element `k` of a row goes to lane `k mod 16`.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod coded;
mod e4m3;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
mod transposed;

use crate::coded_bf16::{self, Coded};
use crate::dot::{LANES, Sum, total};
use crate::dtype::E4M3_REST;
use crate::matrix::{FP8_BLOCK, Matrix, ScaleInv, Storage, TILE};
use crate::prefetch::prefetch_second_level;

pub(crate) use transposed::{Part, transposed};

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
    matches!(w.storage(), Storage::CodedBf16 { .. }) || can_be_transposed(w)
}

/// Whether [`transposed()`] knows the format.
pub(crate) fn can_be_transposed(w: &Matrix) -> bool {
    matches!(w.storage(), Storage::F32(_) | Storage::F16(_) | Storage::Bf16(_) | Storage::Fp8 { .. })
}

/// Defines `fn name(isa, args…)` that runs a body generic over [`Vectors`] with those of the instruction set, compiled for it.
macro_rules! per_vectors {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $($body:ident)::+) => {
        $(#[$meta])*
        $vis fn $name(isa: $crate::isa::Isa, $($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            fn on_avx2($($arg: $ty),*) {
                $($body)::+::<$crate::floats::avx2::Avx2>($($arg),*);
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
            fn on_avx512($($arg: $ty),*) {
                $($body)::+::<$crate::floats::avx512::Avx512>($($arg),*);
            }
            #[cfg(target_arch = "aarch64")]
            #[target_feature(enable = "neon")]
            fn on_neon($($arg: $ty),*) {
                $($body)::+::<$crate::floats::neon::Neon>($($arg),*);
            }
            match isa {
                // SAFETY: NEON is part of every aarch64.
                #[cfg(target_arch = "aarch64")]
                $crate::isa::Isa::Neon => unsafe { on_neon($($arg),*) },
                // SAFETY: these values of `Isa` come from `Isa::available`, which has seen the features.
                #[cfg(target_arch = "x86_64")]
                $crate::isa::Isa::Avx2 => unsafe { on_avx2($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::isa::Isa::Avx512 | $crate::isa::Isa::Amx => unsafe { on_avx512($($arg),*) },
                _ => $($body)::+::<$crate::floats::scalar::Scalar>($($arg),*),
            }
        }
    };
}
use per_vectors;

per_vectors! {
    /// `out[t * out_stride + r]`.
    pub(crate) fn product(piece: &Piece<'_>, out: &mut [f32], out_stride: usize) = by_tokens
}

per_vectors! {
    /// Numbers of a [`Coded`] matrix from number `first` of all on, any of them.
    pub(crate) fn widen_coded(weights: &Coded<'_>, first: usize, out: &mut [f32]) = coded::widen
}

/// The vector operations of this path. Instances are made only inside functions compiled for their instruction set.
trait Vectors {
    /// Whether 16 f32 are one register, of which there are 32.
    const IS_ONE_REGISTER: bool = false;

    /// 16 f32.
    type Lanes: Copy;
    /// The largest magnitudes of some E4M3, in several lanes.
    type Magnitudes: Copy;

    fn zero() -> Self::Lanes;
    fn splat(x: f32) -> Self::Lanes;
    fn f32(numbers: &[u8; 64]) -> Self::Lanes;
    fn f16(numbers: &[u8; 32]) -> Self::Lanes;
    fn bf16(numbers: &[u8; 32]) -> Self::Lanes;
    /// Four groups of BF16: signs and fractions where [`coded_bf16::place`] puts them, there the lower or upper four bits of their
    /// codes, and the row of [`coded_bf16::EXPONENTS`] for these.
    fn coded_bf16(
        fractions: &[u8; coded_bf16::HALF],
        codes: &[u8; coded_bf16::HALF],
        is_upper: bool,
        exponents: &[u8; 32],
    ) -> [Self::Lanes; 4];
    /// Times 2^-120, which saves steps; none of them is NaN.
    fn e4m3(numbers: &[u8; 16]) -> Self::Lanes;
    fn no_magnitudes() -> Self::Magnitudes;
    /// With those of so many numbers more, a multiple of 32.
    fn with_magnitudes<const N: usize>(most: Self::Magnitudes, numbers: &[u8; N]) -> Self::Magnitudes;
    /// Whether one of them was NaN.
    fn has_nan(most: Self::Magnitudes) -> bool;
    fn load(x: &[f32; LANES]) -> Self::Lanes;
    fn scaled(a: Self::Lanes, factor: f32) -> Self::Lanes;
    fn fma(a: Self::Lanes, b: Self::Lanes, c: Self::Lanes) -> Self::Lanes;
    fn store(a: Self::Lanes) -> Sum;
}

/// One to four tokens; the fewer, the more rows at once. FP8, whose widening needs registers too, has one row of several
/// tokens and those of [`e4m3`] of one.
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
        Storage::F32(bytes) => panels::<V, F32, R, T>(piece, &F32, bytes, out, out_stride),
        Storage::F16(bytes) => panels::<V, F16, R, T>(piece, &F16, bytes, out, out_stride),
        Storage::Bf16(bytes) => panels::<V, Bf16, R, T>(piece, &Bf16, bytes, out, out_stride),
        Storage::Fp8 { weight, scale_inv, first_row } => {
            let format = E4m3 { scale_inv, first_row: *first_row, cols: piece.w.cols() };
            match T {
                1 if e4m3::is_whole(piece) => e4m3::rows::<V>(piece, &format, weight, out),
                _ => panels::<V, E4m3<'_>, 1, T>(piece, &format, weight, out, out_stride),
            }
        }
        Storage::CodedBf16 { blocks, bases, whole } => {
            let weights = Coded::new(blocks, bases, whole);
            match R {
                4 if !V::IS_ONE_REGISTER => coded::rows::<V, 2, T>(piece, &weights, out, out_stride),
                _ => coded::rows::<V, R, T>(piece, &weights, out, out_stride),
            }
        }
        Storage::Int4 { .. } | Storage::Ggml { .. } | Storage::Interleaved { .. } => {
            unreachable!("{} is not a format of floats", piece.w.format())
        }
    }
}

/// One number format.
trait Format {
    /// 16 numbers as stored.
    type Group: 'static;
    /// Bytes of a number.
    const BYTES: usize;

    fn groups(bytes: &[u8]) -> &[Self::Group];

    /// The scale of a number, if the format has one.
    #[inline(always)]
    fn scale(&self, _row: usize, _col: usize) -> f32 {
        1.0
    }

    /// Widens a group that lies under one scale.
    fn widen<V: Vectors>(group: &Self::Group, scale: f32) -> V::Lanes;

    /// Whether these are `N` numbers that [`Format::widen`] may be called for.
    #[inline(always)]
    fn can_widen<V: Vectors, const N: usize>(_: &[u8], _: f32) -> bool {
        true
    }
}

struct F32;
struct F16;
struct Bf16;
struct E4m3<'a> {
    scale_inv: &'a ScaleInv,
    first_row: usize,
    cols: usize,
}

impl Format for F32 {
    type Group = [u8; 4 * LANES];
    const BYTES: usize = 4;

    #[inline(always)]
    fn groups(bytes: &[u8]) -> &[Self::Group] {
        bytes.as_chunks().0
    }

    #[inline(always)]
    fn widen<V: Vectors>(group: &Self::Group, _: f32) -> V::Lanes {
        V::f32(group)
    }
}

impl Format for F16 {
    type Group = [u8; 2 * LANES];
    const BYTES: usize = 2;

    #[inline(always)]
    fn groups(bytes: &[u8]) -> &[Self::Group] {
        bytes.as_chunks().0
    }

    #[inline(always)]
    fn widen<V: Vectors>(group: &Self::Group, _: f32) -> V::Lanes {
        V::f16(group)
    }
}

impl Format for Bf16 {
    type Group = [u8; 2 * LANES];
    const BYTES: usize = 2;

    #[inline(always)]
    fn groups(bytes: &[u8]) -> &[Self::Group] {
        bytes.as_chunks().0
    }

    #[inline(always)]
    fn widen<V: Vectors>(group: &Self::Group, _: f32) -> V::Lanes {
        V::bf16(group)
    }
}

impl Format for E4m3<'_> {
    type Group = [u8; LANES];
    const BYTES: usize = 1;

    #[inline(always)]
    fn scale(&self, row: usize, col: usize) -> f32 {
        let per_row = self.cols.div_ceil(FP8_BLOCK);
        self.scale_inv.get((self.first_row + row) / FP8_BLOCK * per_row + col / FP8_BLOCK)
    }

    #[inline(always)]
    fn groups(bytes: &[u8]) -> &[Self::Group] {
        bytes.as_chunks().0
    }

    /// A power of two goes from the numbers to the scale, which changes no rounding if that stays finite.
    #[inline(always)]
    fn widen<V: Vectors>(group: &Self::Group, scale: f32) -> V::Lanes {
        V::scaled(V::e4m3(group), scale * E4M3_REST)
    }

    #[inline(always)]
    fn can_widen<V: Vectors, const N: usize>(bytes: &[u8], scale: f32) -> bool {
        match <&[u8; N]>::try_from(bytes) {
            Ok(numbers) => {
                (scale * E4M3_REST).is_finite()
                    && !V::has_nan(V::with_magnitudes(V::no_magnitudes(), numbers))
            }
            Err(_) => false,
        }
    }
}

/// `R` rows at a time against `T` tokens; rows that are left over one at a time.
#[inline(always)]
fn panels<V: Vectors, F: Format, const R: usize, const T: usize>(
    piece: &Piece<'_>,
    format: &F,
    weights: &[u8],
    out: &mut [f32],
    out_stride: usize,
) {
    each_panel::<V, R, T>(
        piece,
        out,
        out_stride,
        #[inline(always)]
        |row| panel::<V, F, R, T>(piece, format, weights, row),
        #[inline(always)]
        |row| panel::<V, F, 1, T>(piece, format, weights, row),
    );
}

/// Stores what `panel` gives for `R` rows from one on, and what `row` gives for those that are left over.
#[inline(always)]
fn each_panel<V: Vectors, const R: usize, const T: usize>(
    piece: &Piece<'_>,
    out: &mut [f32],
    out_stride: usize,
    panel: impl Fn(usize) -> [[V::Lanes; R]; T],
    row: impl Fn(usize) -> [[V::Lanes; 1]; T],
) {
    let whole = piece.rows / R * R;
    for r in (0..whole).step_by(R) {
        let sums = panel(piece.row + r);
        for t in 0..T {
            for i in 0..R {
                out[t * out_stride + r + i] = total(V::store(sums[t][i]));
            }
        }
    }
    for r in whole..piece.rows {
        let sums = row(piece.row + r);
        for t in 0..T {
            out[t * out_stride + r] = total(V::store(sums[t][0]));
        }
    }
}

#[inline(always)]
fn panel<V: Vectors, F: Format, const R: usize, const T: usize>(
    piece: &Piece<'_>,
    format: &F,
    weights: &[u8],
    row: usize,
) -> [[V::Lanes; R]; T] {
    let cols = piece.w.cols();
    let mut sums = [[V::zero(); R]; T];
    for first in (0..cols).step_by(FP8_BLOCK) {
        let len = FP8_BLOCK.min(cols - first);
        let behind = ((row + R) * cols + R * first) * F::BYTES;
        prefetch_second_level(weights.as_ptr().wrapping_add(behind), R * FP8_BLOCK * F::BYTES);
        let mut block = Block::<R, T> { rows: [&[]; R], scales: [1.0; R], x: [&[]; T] };
        let mut direct = true;
        for r in 0..R {
            let here = &weights[((row + r) * cols + first) * F::BYTES..][..len * F::BYTES];
            (block.rows[r], block.scales[r]) = (here, format.scale(row + r, first));
            direct &= F::can_widen::<V, FP8_BLOCK>(here, block.scales[r]);
        }
        for (t, x) in block.x.iter_mut().enumerate() {
            let x_tile = &piece.x[first / TILE * piece.stride + t * TILE + first % TILE..];
            *x = x_tile[..len.next_multiple_of(LANES)].as_chunks().0;
        }
        match block.whole::<F>() {
            Some((rows, x)) if direct => block.add_whole::<V, F>(&rows, &x, &mut sums),
            _ => block.add_any::<V>(piece.w, row, first, &mut sums),
        }
    }
    sums
}

/// Groups in a whole block.
const GROUPS: usize = FP8_BLOCK / LANES;

/// What [`Block::whole`] gives.
type Whole<'a, G, const R: usize, const T: usize> = ([&'a [G; GROUPS]; R], [&'a [[f32; LANES]; GROUPS]; T]);

/// Up to 128 columns of some rows and tokens.
struct Block<'a, const R: usize, const T: usize> {
    rows: [&'a [u8]; R],
    scales: [f32; R],
    /// Padded with zeros.
    x: [&'a [[f32; LANES]]; T],
}

impl<const R: usize, const T: usize> Block<'_, R, T> {
    /// Rows and tokens of a block that has all its columns, their lengths known to the compiler: nothing is checked in
    /// the loop over them.
    #[inline(always)]
    fn whole<F: Format>(&self) -> Option<Whole<'_, F::Group, R, T>> {
        let first = (F::groups(self.rows[0]).first_chunk()?, self.x[0].first_chunk()?);
        let (mut rows, mut x) = ([first.0; R], [first.1; T]);
        for r in 0..R {
            rows[r] = F::groups(self.rows[r]).first_chunk()?;
        }
        for t in 0..T {
            x[t] = self.x[t].first_chunk()?;
        }
        Some((rows, x))
    }

    #[inline(always)]
    fn add_whole<V: Vectors, F: Format>(
        &self,
        rows: &[&[F::Group; GROUPS]; R],
        x: &[&[[f32; LANES]; GROUPS]; T],
        sums: &mut [[V::Lanes; R]; T],
    ) {
        for k in 0..GROUPS {
            for r in 0..R {
                let w = F::widen::<V>(&rows[r][k], self.scales[r]);
                for t in 0..T {
                    sums[t][r] = V::fma(V::load(&x[t][k]), w, sums[t][r]);
                }
            }
        }
    }

    /// Any numbers and any columns, widened one by one; the last group may be short.
    #[inline(always)]
    fn add_any<V: Vectors>(&self, w: &Matrix, row: usize, first: usize, sums: &mut [[V::Lanes; R]; T]) {
        for r in 0..R {
            let wide = widened::<GROUPS>(w, row + r, first);
            for k in 0..self.x[0].len() {
                for t in 0..T {
                    sums[t][r] = V::fma(V::load(&self.x[t][k]), V::load(&wide[k]), sums[t][r]);
                }
            }
        }
    }
}

/// Numbers of a row from column `first` on, whatever they are; zeros behind its end. Not inlined: the loop beside it needs
/// the registers.
#[inline(never)]
fn widened<const G: usize>(w: &Matrix, row: usize, first: usize) -> [[f32; LANES]; G] {
    let mut wide = [[0.0; LANES]; G];
    let len = (G * LANES).min(w.cols() - first);
    w.dequantize(row, first, &mut wide.as_flattened_mut()[..len]);
    wide
}
