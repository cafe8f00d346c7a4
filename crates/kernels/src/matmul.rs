//! Products of activations with weights in their stored format: `y = x Wᵀ`.
//!
//! One order of summation per output whatever the number of rows of `x`, so a token's numbers do not depend
//! on its batch. Of floats (here), the order of [`crate::dot`]: a tile of 16 weight rows and [`TILE`] columns is
//! widened once into the first-level cache and multiplied with up to 64 rows of `x`. Of integer codes, on the
//! fast path, that of [`crate::quantized`].

use std::ops::Range;

use crate::dot::{Aligned, LANES, Sum, add_scaled, total};
use crate::floats;
use crate::inputs::{Form, Inputs, Precision};
use crate::isa::{Isa, isa, per_isa};
use crate::matrix::{Matrix, TILE};
use crate::pool::{Disjoint, Parts, Pool};
use crate::prefetch::RowStart;
use crate::quantized;
use std::cell::RefCell;

/// Weight rows of a block of outputs, if it has several tokens.
pub(crate) const ROWS: usize = quantized::MOST_ROWS;

/// Weight rows of a block of one token's outputs: more, as a call is felt there.
const ROWS_OF_ONE: usize = 4 * ROWS;

/// Weight rows widened together.
const TILE_ROWS: usize = 16;

/// So many rows of `x` have room for sums of their own: clearing that for all is felt with one.
const FEW: usize = 4;

/// Rows of `x` of a block of outputs.
pub(crate) const TOKENS: usize = quantized::MOST_TOKENS;

/// Outputs of a block, `[t][r]`.
pub(crate) type Outputs = [f32; ROWS * TOKENS];

/// Multiplications worth a task of their own.
const TASK: usize = 1 << 18;

/// Tasks for each thread, so that none waits long for the others at the end.
const TASKS_PER_THREAD: usize = 8;

/// One matrix and where its products go.
pub struct Product<'a> {
    /// Groups of rows, one for each segment of the inputs.
    pub w: &'a Matrix,
    /// The rows that are used of each group.
    pub rows: Range<usize>,
    /// `[T, segments, rows.len()]`.
    pub y: &'a mut [f32],
}

impl<'a> Product<'a> {
    /// All rows of a matrix, for inputs of one segment.
    pub fn new(w: &'a Matrix, y: &'a mut [f32]) -> Product<'a> {
        Product { w, rows: 0..w.rows(), y }
    }
}

/// `y[t, h, n] = Σ_k x[t, h, k] w[h, n, k]` for each product, all sharing their inputs. All segments of the inputs
/// have the same number of rows.
pub fn products<const N: usize>(pool: &Pool, inputs: &Inputs, products: [Product<'_>; N]) {
    let (heads, tokens) = (inputs.segments(), inputs.rows(0));
    let work: usize = products.iter().map(|product| product.rows.len() * heads).sum();
    let plans = products.map(|Product { w, rows, y }| {
        assert!(rows.end <= w.rows() / heads, "rows {rows:?} of {}", w.rows() / heads);
        assert_eq!(y.len(), tokens * heads * rows.len(), "outputs of a product");
        let step = rows_per_task(pool, inputs.cols(0) * tokens, work);
        Plan { w, rows, y: Disjoint::new(y), step }
    });
    let parts = plans.each_ref().map(|plan| heads * plan.rows.len().div_ceil(plan.step));
    let isa = isa();
    pool.run_parts(Parts::Each(&parts), |plan, part| plans[plan].run(isa, inputs, part));
}

/// A product cut into tasks.
struct Plan<'a> {
    w: &'a Matrix,
    rows: Range<usize>,
    y: Disjoint<f32>,
    step: usize,
}

impl Plan<'_> {
    fn run(&self, isa: Isa, inputs: &Inputs, task: usize) {
        let (n, heads) = (self.rows.len(), inputs.segments());
        let tasks = n.div_ceil(self.step);
        let (head, first) = (task / tasks, task % tasks * self.step);
        let last = n.min(first + self.step);
        let group = head * (self.w.rows() / heads) + self.rows.start;
        with_outputs(|[sums, _]| {
            for block in output_blocks(inputs, self.w, head, group + first..group + last) {
                block_product(isa, self.w, &block, RowStart::of(self.w, block.end()), inputs, head, sums);
                for t in 0..block.tokens {
                    let at = ((block.token + t) * heads + head) * n + block.row - group;
                    // SAFETY: each (token, head, row) is written by one task; `run` ends before `y` does.
                    unsafe { self.y.slice(at, block.rows) }.copy_from_slice(block.of_token(t, sums));
                }
            }
        });
    }
}

thread_local! {
    static OUTPUTS: RefCell<Box<[Outputs; 2]>> = RefCell::new(Box::new([[0.0; ROWS * TOKENS]; 2]));
}

/// Room for two blocks of outputs, kept from task to task: to clear it for each is felt with one token. Whatever is
/// in it is of an earlier task.
pub(crate) fn with_outputs(body: impl FnOnce(&mut [Outputs; 2])) {
    OUTPUTS.with_borrow_mut(|outputs| body(outputs));
}

/// A block of outputs: some rows of the weights, some tokens of a segment.
pub(crate) struct OutputBlock {
    pub(crate) row: usize,
    pub(crate) rows: usize,
    pub(crate) token: usize,
    pub(crate) tokens: usize,
}

impl OutputBlock {
    /// The row behind its last.
    pub(crate) fn end(&self) -> usize {
        self.row + self.rows
    }

    /// The outputs of one of its tokens.
    pub(crate) fn of_token<'s>(&self, t: usize, sums: &'s Outputs) -> &'s [f32] {
        &sums[t * ROWS..][..self.rows]
    }
}

/// Some rows of a matrix against all tokens of a segment, block by block.
pub(crate) fn output_blocks(
    inputs: &Inputs,
    w: &Matrix,
    segment: usize,
    rows: Range<usize>,
) -> impl Iterator<Item = OutputBlock> {
    let (tokens, together) = (inputs.rows(segment), tokens_together(inputs.form(w, segment)));
    (0..tokens).step_by(together).flat_map(move |token| {
        let tokens = together.min(tokens - token);
        let (end, most) = (rows.end, if tokens == 1 { ROWS_OF_ONE } else { ROWS });
        rows.clone().step_by(most).map(move |row| OutputBlock {
            row,
            rows: most.min(end - row),
            token,
            tokens,
        })
    })
}

/// As many as keep their inputs in the second-level cache: floats are four times as long. Machines with AMX have twice as much.
fn tokens_together(form: Form) -> usize {
    match (form, isa()) {
        (Form::Floats, _) | (Form::Codes(_), Isa::Amx) => TOKENS,
        (Form::Codes(_), _) => TOKENS / 2,
    }
}

/// `sums[t * ROWS + r]`; `then` is what the thread will read next.
pub(crate) fn block_product(
    isa: Isa,
    w: &Matrix,
    block: &OutputBlock,
    then: RowStart,
    inputs: &Inputs,
    segment: usize,
    sums: &mut Outputs,
) {
    let OutputBlock { row, rows, token, tokens } = *block;
    match inputs.form(w, segment) {
        Form::Floats if tokens <= floats::MOST_TOKENS && floats::are_weights_of(w) => {
            let (x, stride) = (inputs.tiles(segment, token), inputs.rows(segment) * TILE);
            floats::product(isa, &floats::Piece { w, row, rows, x, stride, tokens }, sums, ROWS);
        }
        Form::Floats => {
            let (x, stride) = (inputs.tiles(segment, token), inputs.rows(segment) * TILE);
            for first in (0..rows).step_by(TILE_ROWS) {
                let rows = TILE_ROWS.min(rows - first);
                let piece = Piece { w, row: row + first, rows, first: 0, len: w.cols(), tokens };
                match tokens {
                    ..=FEW => few_tokens(isa, &piece, x, stride, &mut sums[first..]),
                    _ => many_tokens(isa, &piece, x, stride, &mut sums[first..]),
                }
            }
        }
        Form::Codes(order) => {
            let (x, stride) = (inputs.blocks(order, segment, token), inputs.rows(segment));
            quantized::product(isa, &quantized::Piece { w, row, rows, x, stride, tokens, then }, sums);
        }
    }
}

/// Rows worth a task, `rows` being those of all products together.
pub(crate) fn rows_per_task(pool: &Pool, multiplications_per_row: usize, rows: usize) -> usize {
    let by_work = TASK / multiplications_per_row.max(1);
    let by_threads = rows / (pool.threads() * TASKS_PER_THREAD);
    // Many tokens: rows enough to use the tokens' inputs several times while they are in the cache.
    let least = if by_work < ROWS { 4 * ROWS } else { ROWS };
    by_work.min(by_threads).next_multiple_of(ROWS).max(least.min(by_threads.next_multiple_of(ROWS))).max(ROWS)
}

/// One product on the exact path: `x` is `[T, w.cols()]`, `y` `[T, w.rows()]`.
pub fn matmul(pool: &Pool, w: &Matrix, x: &[f32], y: &mut [f32]) {
    matmul_heads(pool, w, 1, 0..w.rows(), x, y);
}

/// One product per head on the exact path. `w` holds `heads` groups of rows; of each group the rows `rows` are
/// used. `x` is `[T, heads, w.cols()]`, `y` is `[T, heads, rows.len()]`.
pub fn matmul_heads(pool: &Pool, w: &Matrix, heads: usize, rows: Range<usize>, x: &[f32], y: &mut [f32]) {
    let mut inputs = Inputs::default();
    inputs.set(pool, Precision::Exact, [w].into_iter(), heads, x);
    products(pool, &inputs, [Product { w, rows, y }]);
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
        transposed_task(isa, piece, &x[head * n..], heads * n, &mut sums);
        for (t, sums) in sums.chunks_exact(len).enumerate() {
            // SAFETY: each (token, head, tile) is written by one task; `run` ends before `y` does.
            unsafe { out.slice((t * heads + head) * k + first, len) }.copy_from_slice(sums);
        }
    });
}

/// [`transposed_piece`]; one token's sums stay in registers where there are enough of them.
fn transposed_task(isa: Isa, mut piece: Piece<'_>, x: &[f32], x_stride: usize, sums: &mut [f32]) {
    let mut done = 0;
    if piece.tokens == 1 && floats::can_be_transposed(piece.w) {
        let Piece { w, row, rows, first, .. } = piece;
        done = floats::transposed(isa, &floats::Part { w, row, first, x: &x[..rows] }, sums);
        (piece.first, piece.len) = (first + done, piece.len - done);
    }
    if piece.len > 0 {
        transposed_piece(isa, &piece, x, x_stride, &mut sums[done..]);
    }
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
    /// `out[t * ROWS + r]` for up to [`TILE_ROWS`] rows and [`FEW`] tokens.
    fn few_tokens(piece: &Piece<'_>, x: &[f32], x_tile: usize, out: &mut [f32]) = product_body::<FEW, 8>
}

per_isa! {
    /// `out[t * ROWS + r]` for up to [`TILE_ROWS`] rows and [`TOKENS`] tokens.
    fn many_tokens(piece: &Piece<'_>, x: &[f32], x_tile: usize, out: &mut [f32]) = product_body::<TOKENS, 8>, avx512 = product_body::<TOKENS, 16>
}

per_isa! {
    /// `sums[t * len + k] = Σ_n x[t, n] w[row + n, first + k]`.
    fn transposed_piece(piece: &Piece<'_>, x: &[f32], x_stride: usize, sums: &mut [f32]) = transposed_body
}

#[inline(always)]
fn product_body<const MOST: usize, const W: usize>(
    piece: &Piece<'_>,
    x: &[f32],
    x_tile: usize,
    out: &mut [f32],
) {
    let mut sums = Aligned([[[0.0; LANES]; TILE_ROWS]; MOST]);
    let sums = &mut sums.0[..piece.tokens];
    let mut tile = Aligned([[0.0; TILE]; TILE_ROWS]);
    let tile = &mut tile.0;
    for first in (0..piece.len).step_by(TILE) {
        let len = TILE.min(piece.len - first);
        let padded_len = len.next_multiple_of(LANES);
        for (r, row) in tile.iter_mut().take(piece.rows).enumerate() {
            row[len..padded_len].fill(0.0);
            piece.w.dequantize(piece.row + r, first, &mut row[..len]);
        }
        let (x, groups) = (&x[first / TILE * x_tile..].as_chunks().0[..piece.tokens], padded_len / LANES);
        let done = blocks::<6, 2, W>(sums, tile, x, 0, groups);
        let done = blocks::<2, 4, W>(sums, tile, x, done, groups);
        // Eight rows of 16 lanes the compiler makes into vectors across rows, which gather and scatter.
        match W {
            LANES => blocks::<1, 4, W>(sums, tile, x, done, groups),
            _ => blocks::<1, 8, W>(sums, tile, x, done, groups),
        };
    }
    for (out, sums) in out.chunks_mut(ROWS).zip(sums.iter()) {
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = total(*sum);
        }
    }
}

/// All rows of a tile against tokens from `done` on, `T` tokens, `R` rows and `W` lanes at a time: as many sums as there
/// are registers for. Lanes are sums apart, so it does not matter to the order how many go together. Returns how
/// many tokens are done.
#[inline(always)]
fn blocks<const T: usize, const R: usize, const W: usize>(
    sums: &mut [[Sum; TILE_ROWS]],
    tile: &[[f32; TILE]; TILE_ROWS],
    x: &[[f32; TILE]],
    done: usize,
    groups: usize,
) -> usize {
    let (sums, x) = (sums[done..].as_chunks_mut::<T>().0, x[done..].as_chunks::<T>().0);
    for (sums, x) in sums.iter_mut().zip(x) {
        for (r, w) in tile.as_chunks::<R>().0.iter().enumerate() {
            for part in 0..LANES / W {
                some_lanes::<T, R, W>(sums, w, x, groups, r * R, part);
            }
        }
    }
    done + x.len() * T
}

/// Adds to the sums of rows from `r` on, in part `part` of the lanes. Lengths are known to the compiler, so that nothing is
/// checked in the loop.
#[inline(always)]
fn some_lanes<const T: usize, const R: usize, const W: usize>(
    sums: &mut [[Sum; TILE_ROWS]; T],
    w: &[[f32; TILE]; R],
    x: &[[f32; TILE]; T],
    groups: usize,
    r: usize,
    part: usize,
) {
    let mut local = [[[0.0; W]; R]; T];
    for t in 0..T {
        for i in 0..R {
            local[t][i] = *lanes(&sums[t][r + i], part);
        }
    }
    for k in 0..groups.min(TILE / LANES) {
        let at = k * (LANES / W) + part;
        let w: [[f32; W]; R] = std::array::from_fn(|i| *lanes(&w[i], at));
        for t in 0..T {
            let x: &[f32; W] = lanes(&x[t], at);
            for i in 0..R {
                for l in 0..W {
                    local[t][i][l] = x[l].mul_add(w[i][l], local[t][i][l]);
                }
            }
        }
    }
    for t in 0..T {
        for i in 0..R {
            sums[t][r + i][part * W..][..W].copy_from_slice(&local[t][i]);
        }
    }
}

/// The `i`-th `W` numbers.
#[inline(always)]
fn lanes<const W: usize>(numbers: &[f32], i: usize) -> &[f32; W] {
    &numbers.as_chunks().0[i]
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
