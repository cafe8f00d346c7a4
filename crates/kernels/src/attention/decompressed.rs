//! Attention of rows that follow each other in a sequence, over keys and values of each head.
//!
//! The form of multi-head latent attention as the formula reads (DeepSeek-V2, arXiv 2405.04434, section 2.1.2):
//! `kv_b_proj` makes a head's keys and values from the latents. A key costs what absorbing a row costs, and from
//! then on each row that sees it pays for the head's own width, not for the latent's: for many rows that is a third.
//! A task is a head of a run of rows: it widens the head's weights, decompresses [`RANGE`] keys, shows them to all
//! of its rows, and forgets them, so that nothing of the sequence's length is kept.
//!
//! Sums have the order of the absorbed form's kernel: tiles, ranges, one after the other. A row's bits depend on
//! its query and on the rows before it alone.

use std::cell::RefCell;
use std::ops::Range;

use super::tile::{
    Ahead, Partial, QUERIES, RANGE, TILE, Weights, add_tile, finish, floats_mut, merge, multiply_tile,
};
use super::{Pages, group};
use crate::dot::{Aligned, LANES, Sum};
use crate::isa::{Isa, isa, per_isa};
use crate::matrix::{self, Matrix};
use crate::pool::{Disjoint, Pool};

/// What stays the same for all rows.
#[derive(Clone, Copy, Debug)]
pub struct DecompressedShape {
    /// Heads per row.
    pub heads: usize,
    /// Numbers of a latent, with which a cached row begins.
    pub latent: usize,
    /// Numbers of a head's own key, with which a query begins.
    pub key_len: usize,
    /// Numbers of the key that all heads share; in a cached row they follow the latent.
    pub shared_len: usize,
    /// Numbers of a head's value.
    pub value_len: usize,
    /// Scores are multiplied with it.
    pub scale: f32,
}

/// How each head's keys and values come from latents.
#[derive(Clone, Copy)]
pub struct Decompression<'a> {
    /// `key_len` rows a head.
    pub keys: HeadRows<'a>,
    /// `value_len` rows a head.
    pub values: HeadRows<'a>,
}

/// Some rows of each head in a matrix of all heads.
#[derive(Clone, Copy)]
pub struct HeadRows<'a> {
    /// `[heads * rows_per_head, latent]`, or transposed `[heads * latent, key_len or value_len]`.
    pub w: &'a Matrix,
    /// The first that is meant of each head's rows; 0 if they are transposed.
    pub first: usize,
    /// Whether a matrix row holds a latent's number for all rows of its head.
    pub is_transposed: bool,
}

/// Rows that follow each other in a sequence.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    /// The sequence.
    pub pages: &'a Pages<'a>,
    /// Position of the first row; it sees the keys up to its own.
    pub start: usize,
    /// Rows.
    pub count: usize,
    /// Number of the first row among the queries.
    pub first_row: usize,
}

/// `out[r, h] = softmax(scale * query[r, h] · keys[h]) values[h]`: `query` is `[rows, heads, key_len + shared_len]`,
/// `out` is `[rows, heads, value_len]`. Rows of no run keep what they have.
pub fn attend_decompressed(
    pool: &Pool,
    shape: &DecompressedShape,
    weights: &Decompression<'_>,
    runs: &[Run<'_>],
    query: &[f32],
    out: &mut [f32],
) {
    let rows = query.len() / (shape.heads * shape.query_len());
    assert_eq!(query.len(), rows * shape.heads * shape.query_len(), "one query per row and head");
    assert_eq!(out.len(), rows * shape.heads * shape.value_len, "one value per row and head");
    for run in runs {
        assert!(run.pages.width >= shape.latent_stride().max(shape.latent + shape.shared_len), "{shape:?}");
        assert!(run.start + run.count <= run.pages.keys, "{} + {} keys", run.start, run.count);
        assert!(run.first_row + run.count <= rows, "{} + {} of {rows} rows", run.first_row, run.count);
    }
    let tasks = tasks(runs, shape.heads, pool.threads());
    let job = Job { isa: isa(), shape, weights, query, out: &Disjoint::new(out) };
    pool.run(tasks.len(), |number| {
        WORK.with_borrow_mut(|work| job.run(&runs[tasks[number].run], &tasks[number], work))
    });
}

impl DecompressedShape {
    fn query_len(&self) -> usize {
        self.key_len + self.shared_len
    }

    /// Numbers from one widened weight row to the next.
    fn latent_stride(&self) -> usize {
        self.latent.next_multiple_of(LANES)
    }

    /// Numbers from one decompressed key to the next.
    fn key_stride(&self) -> usize {
        self.query_len().next_multiple_of(LANES)
    }

    fn value_stride(&self) -> usize {
        self.value_len.next_multiple_of(LANES)
    }
}

/// A head of some rows of a run.
struct Task {
    run: usize,
    head: usize,
    rows: Range<usize>,
}

/// One for each head and run; where threads would be idle, rows are split too, though each part decompresses anew.
/// The costly ones, with the most keys, come first.
fn tasks(runs: &[Run<'_>], heads: usize, threads: usize) -> Vec<Task> {
    let parts = threads.div_ceil(heads * runs.len().max(1));
    let mut tasks = Vec::new();
    for (run, of_run) in runs.iter().enumerate() {
        let size = of_run.count.div_ceil(parts).max(1).next_multiple_of(QUERIES);
        for part in (0..of_run.count.div_ceil(size)).rev() {
            let rows = group(part, size, of_run.count);
            tasks.extend((0..heads).map(|head| Task { run, head, rows: rows.clone() }));
        }
    }
    tasks
}

/// A thread's buffers, where cache lines begin.
#[derive(Default)]
struct Work {
    /// A head's weights, `[key_len, latent_stride]` and `[value_len, latent_stride]`.
    key_weights: Buffer,
    value_weights: Buffer,
    /// A range's keys and values, `[RANGE, key_stride]` and `[RANGE, value_stride]`.
    keys: Buffer,
    values: Buffer,
    /// Some rows' queries, `[QUERIES, key_stride]`.
    query: Buffer,
    /// The results of all rows so far, and those of some over one range.
    totals: Buffer,
    next: Buffer,
}

#[derive(Default)]
struct Buffer(Vec<Aligned<Sum>>);

impl Buffer {
    /// Its first `len` numbers, whatever they are.
    fn numbers(&mut self, len: usize) -> &mut [f32] {
        let needed = len.div_ceil(LANES);
        if self.0.len() < needed {
            self.0.resize(needed, Aligned([0.0; LANES]));
        }
        &mut floats_mut(&mut self.0)[..len]
    }
}

thread_local! {
    static WORK: RefCell<Work> = RefCell::default();
}

struct Job<'a> {
    isa: Isa,
    shape: &'a DecompressedShape,
    weights: &'a Decompression<'a>,
    query: &'a [f32],
    out: &'a Disjoint<f32>,
}

impl Job<'_> {
    fn run(&self, run: &Run<'_>, task: &Task, work: &mut Work) {
        let shape = self.shape;
        let Work { key_weights, value_weights, keys, values, query, totals, next } = work;
        let weights = Widened {
            keys: self.weights.keys.widen(shape, shape.key_len, task.head, key_weights),
            values: self.weights.values.widen(shape, shape.value_len, task.head, value_weights),
        };
        let group_len = Partial::len(QUERIES, shape.value_len);
        let groups = task.rows.len().div_ceil(QUERIES);
        let (totals, next) = (totals.numbers(groups * group_len), next.numbers(group_len));
        let end = run.start + task.rows.end;
        for first in (0..end).step_by(RANGE) {
            let mut pairs = Pairs {
                first,
                count: RANGE.min(end - first),
                keys: keys.numbers(RANGE * shape.key_stride()),
                values: values.numbers(RANGE * shape.value_stride()),
            };
            decompress(self.isa, shape, run.pages, &weights, &mut pairs);
            for (rows, total) in task.groups().zip(totals.chunks_exact_mut(group_len)) {
                let query = query.numbers(rows.len() * shape.key_stride());
                self.copy_queries(run, task.head, &rows, query);
                self.show(run.start + rows.start, &pairs, query, total, next);
            }
        }
        for (rows, total) in task.groups().zip(totals.chunks_exact_mut(group_len)) {
            self.finish(run, task.head, &rows, total);
        }
    }

    /// A head's queries of some rows of a run, padded with zeros.
    fn copy_queries(&self, run: &Run<'_>, head: usize, rows: &Range<usize>, copies: &mut [f32]) {
        let (len, stride) = (self.shape.query_len(), self.shape.key_stride());
        for (row, copy) in rows.clone().zip(copies.chunks_exact_mut(stride)) {
            let query = &self.query[((run.first_row + row) * self.shape.heads + head) * len..][..len];
            copy[..len].copy_from_slice(query);
            copy[len..].fill(0.0);
        }
    }

    /// Adds a range of keys to the results of rows that follow each other from `position` on: those that see it.
    fn show(&self, position: usize, pairs: &Pairs<'_>, query: &[f32], total: &mut [f32], next: &mut [f32]) {
        let (stride, scale) = (self.shape.key_stride(), self.shape.scale);
        let count = query.len() / stride;
        let mut visible = [0; QUERIES];
        for (row, visible) in visible[..count].iter_mut().enumerate() {
            *visible = (position + row + 1).saturating_sub(pairs.first).min(pairs.count);
        }
        let blind = visible[..count].partition_point(|visible| *visible == 0);
        if pairs.first == 0 {
            attend_pairs(self.isa, pairs, &visible[..count], query, scale, &mut self.partial(total, count));
        } else if blind < count {
            let (query, visible) = (&query[blind * stride..], &visible[blind..count]);
            let mut next = self.partial(next, count - blind);
            attend_pairs(self.isa, pairs, visible, query, scale, &mut next);
            merge(self.isa, &mut self.partial(total, count).part(blind..count), &next);
        }
    }

    fn partial<'p>(&self, numbers: &'p mut [f32], queries: usize) -> Partial<'p> {
        Partial::of(numbers, queries, self.shape.value_len)
    }

    /// The weighted means from the weighted sums.
    fn finish(&self, run: &Run<'_>, head: usize, rows: &Range<usize>, total: &mut [f32]) {
        let (heads, len) = (self.shape.heads, self.shape.value_len);
        let mut total = self.partial(total, rows.len());
        for (number, row) in rows.clone().enumerate() {
            let at = ((run.first_row + row) * heads + head) * len;
            // SAFETY: each (row, head) is finished by one task; the output outlives the call.
            let out = unsafe { self.out.slice(at, len) };
            finish(self.isa, &mut total.part(number..number + 1), out, len);
        }
    }
}

impl Task {
    /// Its rows, as many together as go through the kernel.
    fn groups(&self) -> impl Iterator<Item = Range<usize>> {
        let end = self.rows.end;
        self.rows.clone().step_by(QUERIES).map(move |first| first..end.min(first + QUERIES))
    }
}

/// A head's weights, rows [`DecompressedShape::latent_stride`] apart, padded with zeros.
struct Widened<'a> {
    keys: &'a [f32],
    values: &'a [f32],
}

/// A head's keys, each its own part and the shared one, and values of some positions; padded with zeros.
struct Pairs<'a> {
    first: usize,
    count: usize,
    keys: &'a mut [f32],
    values: &'a mut [f32],
}

impl HeadRows<'_> {
    /// The `count` rows of a head.
    fn widen<'b>(
        &self,
        shape: &DecompressedShape,
        count: usize,
        head: usize,
        buffer: &'b mut Buffer,
    ) -> &'b [f32] {
        let (latent, stride) = (shape.latent, shape.latent_stride());
        let out = buffer.numbers(count * stride);
        out.fill(0.0);
        let group = self.w.rows() / shape.heads * head + self.first;
        if self.is_transposed {
            let mut row = vec![0.0; count];
            for l in 0..latent {
                widen_row(self.w, group + l, &mut row);
                row.iter().enumerate().for_each(|(r, number)| out[r * stride + l] = *number);
            }
        } else {
            let rows = out.chunks_exact_mut(stride).enumerate();
            rows.for_each(|(r, out)| widen_row(self.w, group + r, &mut out[..latent]));
        }
        out
    }
}

fn widen_row(w: &Matrix, row: usize, out: &mut [f32]) {
    for (i, piece) in out.chunks_mut(matrix::TILE).enumerate() {
        w.dequantize(row, i * matrix::TILE, piece);
    }
}

per_isa! {
    /// Keys and values of some positions.
    fn decompress(shape: &DecompressedShape, pages: &Pages<'_>, weights: &Widened<'_>, pairs: &mut Pairs<'_>) = decompress_body
}

per_isa! {
    /// Fills `partial` with the results over the pairs, of which each query sees the first so many: none fewer than
    /// the query before it.
    fn attend_pairs(pairs: &Pairs<'_>, visible: &[usize], query: &[f32], scale: f32, partial: &mut Partial<'_>) = pairs_body
}

#[inline(always)]
fn decompress_body(
    shape: &DecompressedShape,
    pages: &Pages<'_>,
    weights: &Widened<'_>,
    pairs: &mut Pairs<'_>,
) {
    let mut products = Weights::new();
    let own = [(weights.keys, shape.key_len), (weights.values, shape.value_len)];
    let strides = [shape.key_stride(), shape.value_stride()];
    for tile in (0..pairs.count).step_by(TILE) {
        let count = TILE.min(pairs.count - tile);
        let rows: [&[f32]; TILE] = std::array::from_fn(|i| pages.row(pairs.first + tile + i.min(count - 1)));
        let latents: [&[f32]; TILE] = std::array::from_fn(|i| &rows[i][..shape.latent_stride()]);
        let shared: [&[f32]; TILE] = std::array::from_fn(|i| &rows[i][shape.latent..][..shape.shared_len]);
        let outs = [&mut pairs.keys[tile * strides[0]..], &mut pairs.values[tile * strides[1]..]];
        for (((weights, len), stride), out) in own.into_iter().zip(strides).zip(outs) {
            multiply(&latents[..count], weights, len, stride, &mut products, out);
        }
        for (key, shared) in
            pairs.keys[tile * strides[0]..].chunks_exact_mut(strides[0]).zip(&shared[..count])
        {
            key[shape.key_len..shape.query_len()].copy_from_slice(shared);
            key[shape.query_len()..].fill(0.0);
        }
    }
}

/// `out[key, r] = weights[r] · latents[key]`, `stride` numbers from key to key, those behind `len` zero.
#[inline(always)]
fn multiply(
    latents: &[&[f32]],
    weights: &[f32],
    len: usize,
    stride: usize,
    products: &mut Weights,
    out: &mut [f32],
) {
    let width = latents[0].len();
    for first in (0..len).step_by(QUERIES) {
        let rows = QUERIES.min(len - first);
        multiply_tile(latents, &weights[first * width..(first + rows) * width], products);
        for (key, out) in out.chunks_exact_mut(stride).take(latents.len()).enumerate() {
            for (r, out) in out[first..first + rows].iter_mut().enumerate() {
                *out = products.at(r, key);
            }
        }
    }
    out.chunks_exact_mut(stride).take(latents.len()).for_each(|out| out[len..].fill(0.0));
}

#[inline(always)]
fn pairs_body(pairs: &Pairs<'_>, visible: &[usize], query: &[f32], scale: f32, partial: &mut Partial<'_>) {
    let queries = visible.len();
    let (width, value_width) = (query.len() / queries, partial.value_len());
    let mut weights = Weights::new();
    partial.clear();
    for first in (0..pairs.count).step_by(TILE) {
        let count = TILE.min(pairs.count - first);
        let at = |i: usize| first + i.min(count - 1);
        let keys: [&[f32]; TILE] = std::array::from_fn(|i| &pairs.keys[at(i) * width..][..width]);
        let values: [&[f32]; TILE] =
            std::array::from_fn(|i| &pairs.values[at(i) * value_width..][..value_width]);
        let blind = visible.partition_point(|visible| *visible <= first);
        let all = visible.partition_point(|visible| *visible < first + count);
        for q in blind..all {
            let (count, query) = (visible[q] - first, &query[q * width..][..width]);
            add_tile(
                &keys[..count],
                &values[..count],
                query,
                scale,
                &mut Ahead::nothing(),
                &mut weights,
                &mut partial.part(q..q + 1),
            );
        }
        if all < queries {
            let (query, mut partial) = (&query[all * width..], partial.part(all..queries));
            let (keys, values) = (&keys[..count], &values[..count]);
            add_tile(keys, values, query, scale, &mut Ahead::nothing(), &mut weights, &mut partial);
        }
    }
}
