//! `y = x Wᵀ` with the weights widened to f32 tile by tile: the exact path.
//!
//! One order of summation per output (see [`crate::dot`]) whatever the number of rows of `x`, so a
//! token's numbers do not depend on its batch. A tile of 16 weight rows and [`TILE`] columns is widened
//! once into the first-level cache and multiplied with up to 64 rows of `x`.

use std::ops::Range;

use crate::dot::{Aligned, LANES, Sum, accumulate, add_scaled, floats, total};
use crate::isa::{Isa, isa, per_isa};
use crate::matrix::{Matrix, TILE};
use crate::pool::{Disjoint, Pool};

/// Weight rows widened together.
const ROWS: usize = 16;

/// Rows of `x` that share a widened tile.
const TOKENS: usize = 64;

/// Multiplications worth a task of their own.
const TASK: usize = 1 << 16;

/// `y[t, n] = Σ_k x[t, k] w[n, k]`: `x` is `[T, w.cols()]`, `y` `[T, w.rows()]`.
pub fn matmul(pool: &Pool, w: &Matrix, x: &[f32], y: &mut [f32]) {
    matmul_heads(pool, w, 1, 0..w.rows(), x, y);
}

/// One product per head. `w` holds `heads` groups of rows; of each group the rows `rows` are used.
/// `x` is `[T, heads, w.cols()]`, `y` is `[T, heads, rows.len()]`.
pub fn matmul_heads(pool: &Pool, w: &Matrix, heads: usize, rows: Range<usize>, x: &[f32], y: &mut [f32]) {
    matmul_heads_with(isa(), pool, w, heads, rows, x, y);
}

/// The transpose of [`matmul_heads`]: `y[t, h, k] = Σ_n x[t, h, n] w[h, rows.start + n, k]`, the sum in
/// the order of `n`. `x` is `[T, heads, rows.len()]`, `y` is `[T, heads, w.cols()]`.
pub fn matmul_heads_transposed(
    pool: &Pool,
    w: &Matrix,
    heads: usize,
    rows: Range<usize>,
    x: &[f32],
    y: &mut [f32],
) {
    let (n, k, group) = (rows.len(), w.cols(), w.rows() / heads);
    let tokens = x.len() / (heads * n);
    assert!(rows.end <= group, "rows {rows:?} of {group}");
    assert_eq!(
        (x.len(), y.len()),
        (tokens * heads * n, tokens * heads * k),
        "shapes of a transposed product"
    );
    let (tiles, isa, out) = (k.div_ceil(TILE), isa(), Disjoint::new(y));
    pool.run(heads * tiles, |task| {
        let (head, first) = (task / tiles, task % tiles * TILE);
        let len = TILE.min(k - first);
        let mut sums = vec![0.0; tokens * len];
        let piece = Piece { w, row: head * group + rows.start, rows: n, first, len, tokens };
        transposed_piece(isa, &piece, &x[head * n..], heads * n, &mut sums);
        for (t, sums) in sums.chunks_exact(len).enumerate() {
            // SAFETY: each (token, head, tile) is written by one task; `run` ends before `y` does.
            unsafe { out.slice((t * heads + head) * k + first, len) }.copy_from_slice(sums);
        }
    });
}

/// [`matmul_heads`] on a chosen instruction set.
pub fn matmul_heads_with(
    isa: Isa,
    pool: &Pool,
    w: &Matrix,
    heads: usize,
    rows: Range<usize>,
    x: &[f32],
    y: &mut [f32],
) {
    let (n, k, group) = (rows.len(), w.cols(), w.rows() / heads);
    let tokens = x.len() / (heads * k);
    assert!(rows.end <= group, "rows {rows:?} of {group}");
    assert_eq!((x.len(), y.len()), (tokens * heads * k, tokens * heads * n), "shapes of a product");
    let x = Tiles::new(x, heads, k);
    let (step, out) = (rows_per_task(k * tokens), Disjoint::new(y));
    let tasks = n.div_ceil(step);
    pool.run(heads * tasks, |task| {
        let (head, first) = (task / tasks, task % tasks * step);
        let last = n.min(first + step);
        for (row, block) in
            (first..last).step_by(ROWS).flat_map(|r| (0..tokens).step_by(TOKENS).map(move |t| (r, t)))
        {
            let (rows_here, tokens_here) = (ROWS.min(last - row), TOKENS.min(tokens - block));
            let mut sums = [0.0; ROWS * TOKENS];
            let piece = Piece {
                w,
                row: head * group + rows.start + row,
                rows: rows_here,
                first: 0,
                len: k,
                tokens: tokens_here,
            };
            product_piece(isa, &piece, x.of(head, block), x.tile_len(), &mut sums);
            for t in 0..tokens_here {
                // SAFETY: each (token, head, row) is written by one task; `run` ends before `y` does.
                unsafe { out.slice(((block + t) * heads + head) * n + row, rows_here) }
                    .copy_from_slice(&sums[t * ROWS..t * ROWS + rows_here]);
            }
        }
    });
}

/// A part of a product: some rows and columns of the weights against some tokens.
struct Piece<'a> {
    w: &'a Matrix,
    row: usize,
    rows: usize,
    first: usize,
    len: usize,
    tokens: usize,
}

per_isa! {
    /// `out[t * ROWS + r]` for up to [`ROWS`] rows and [`TOKENS`] tokens.
    fn product_piece(piece: &Piece<'_>, x: &[f32], x_tile: usize, out: &mut [f32; ROWS * TOKENS]) = product_body
}

per_isa! {
    /// `sums[t * len + k] = Σ_n x[t, n] w[row + n, first + k]`.
    fn transposed_piece(piece: &Piece<'_>, x: &[f32], x_stride: usize, sums: &mut [f32]) = transposed_body
}

#[inline(always)]
fn product_body(piece: &Piece<'_>, x: &[f32], x_tile: usize, out: &mut [f32; ROWS * TOKENS]) {
    let mut sums = Aligned([[[0.0; LANES]; ROWS]; TOKENS]);
    let sums = &mut sums.0;
    let mut tile = Aligned([0.0; ROWS * TILE]);
    let tile = &mut tile.0;
    for first in (0..piece.len).step_by(TILE) {
        let len = TILE.min(piece.len - first);
        let padded_len = len.next_multiple_of(LANES);
        for (r, row) in tile.chunks_exact_mut(TILE).take(piece.rows).enumerate() {
            row[len..padded_len].fill(0.0);
            piece.w.dequantize(piece.row + r, first, &mut row[..len]);
        }
        let x = &x[first / TILE * x_tile..];
        let mut t = 0;
        while t + 4 <= piece.tokens {
            block::<4>(&mut sums[t..t + 4], tile, &x[t * TILE..], padded_len);
            t += 4;
        }
        while t < piece.tokens {
            block::<1>(&mut sums[t..t + 1], tile, &x[t * TILE..], padded_len);
            t += 1;
        }
    }
    for (out, sums) in out.chunks_exact_mut(ROWS).zip(sums.iter()).take(piece.tokens) {
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = total(*sum);
        }
    }
}

/// All rows of a tile against `T` tokens, four rows at a time.
#[inline(always)]
fn block<const T: usize>(sums: &mut [[Sum; ROWS]], tile: &[f32], x: &[f32], len: usize) {
    for r in (0..ROWS).step_by(4) {
        let mut four: [[Sum; 4]; T] = std::array::from_fn(|t| std::array::from_fn(|i| sums[t][r + i]));
        accumulate(&mut four, x, TILE, &tile[r * TILE..], TILE, len);
        for t in 0..T {
            sums[t][r..r + 4].copy_from_slice(&four[t]);
        }
    }
}

#[inline(always)]
fn transposed_body(piece: &Piece<'_>, x: &[f32], x_stride: usize, sums: &mut [f32]) {
    let mut tile = [0.0; TILE];
    for n in 0..piece.rows {
        let row = &mut tile[..piece.len];
        piece.w.dequantize(piece.row + n, piece.first, row);
        for (t, sums) in sums.chunks_exact_mut(piece.len).enumerate() {
            add_scaled(sums, x[t * x_stride + n], row);
        }
    }
}

/// `x` cut into tiles of columns, the rows of a tile one after the other: rows a power of two apart would
/// all fall into the same few sets of the cache. The last tile is padded with zeros.
struct Tiles {
    lanes: Vec<Aligned<Sum>>,
    tokens: usize,
    tiles: usize,
}

impl Tiles {
    fn new(x: &[f32], heads: usize, k: usize) -> Tiles {
        let (tokens, tiles) = (x.len() / (heads * k), k.div_ceil(TILE));
        let mut lanes = vec![Aligned([0.0; LANES]); heads * tokens * tiles * TILE / LANES];
        for (i, row) in x.chunks_exact(k).enumerate() {
            let (token, head) = (i / heads, i % heads);
            for (tile, piece) in row.chunks(TILE).enumerate() {
                let at = ((head * tiles + tile) * tokens + token) * TILE / LANES;
                for (lanes, piece) in lanes[at..].iter_mut().zip(piece.chunks(LANES)) {
                    lanes.0[..piece.len()].copy_from_slice(piece);
                }
            }
        }
        Tiles { lanes, tokens, tiles }
    }

    /// The first tile of a head, from a token on; the next tile begins [`Tiles::tile_len`] later.
    fn of(&self, head: usize, token: usize) -> &[f32] {
        &floats(&self.lanes)[(head * self.tiles * self.tokens + token) * TILE..]
    }

    fn tile_len(&self) -> usize {
        self.tokens * TILE
    }
}

fn rows_per_task(multiplications_per_row: usize) -> usize {
    (TASK / multiplications_per_row.max(1)).next_multiple_of(ROWS).max(ROWS)
}
