//! Attention of rows that follow each other in a sequence, over keys and values of each head.
//!
//! The form of multi-head latent attention as the formula reads (DeepSeek-V2, arXiv 2405.04434, section 2.1.2):
//! `kv_b_proj` makes a head's keys and values from the latents. A key costs what absorbing a row costs, and from
//! then on each row that sees it pays for the head's own width, not for the latent's: for many rows that is a third.
//! A task is a head of a run of rows: it widens the head's weights, decompresses [`RANGE`] keys, shows them to all
//! of its rows, and forgets them, so that nothing of the sequence's length is kept. All of it is products of rows
//! with panels ([`super::panel`]): the task packs its weights, keys and values as it makes them.
//!
//! A product is one chain of sums; weights and values go by tiles and ranges, one after the other. A row's bits
//! depend on its query and on the rows before it alone.

use std::cell::RefCell;
use std::ops::Range;

use super::panel::{COLUMNS, Strip, multiply, multiply_add};
use super::tile::{Partial, RANGE, TILE, finish, merge, weigh};
use super::{Pages, group};
use crate::dot::{Aligned, LANES, Sum, flat_mut};
use crate::isa::{Isa, isa, per_isa};
use crate::matrix::{self, Matrix};
use crate::pool::{Disjoint, Pool};

/// Rows that see a tile of keys together.
const GROUP: usize = 24;

/// Numbers of the latents that are multiplied before the next: a panel of weights that deep stays in the first-level cache.
const DEPTH: usize = 256;

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
        assert!(run.pages.width >= shape.latent + shape.shared_len, "{shape:?}");
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
        let size = of_run.count.div_ceil(parts).max(1).next_multiple_of(GROUP);
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
    /// A head's weights in panels: of the rows of keys and of values, `latent` deep.
    key_weights: Buffer,
    value_weights: Buffer,
    /// A range's keys and values in panels: of keys, [`DecompressedShape::query_len`] deep, and of a value's numbers, [`RANGE`] deep.
    keys: Buffer,
    values: Buffer,
    /// A range's cached rows, if they have to be widened.
    latents: Buffer,
    /// Some of a range's keys before they are turned, `[RANGE, COLUMNS]`.
    unturned: Buffer,
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
        &mut flat_mut(&mut self.0)[..len]
    }

    fn strips(&mut self, len: usize) -> &mut [Strip] {
        self.numbers(len * COLUMNS).as_chunks_mut().0
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
        let Work { key_weights, value_weights, keys, values, latents, unturned, totals, next } = work;
        let weights = Packed {
            keys: self.weights.keys.pack(shape, shape.key_len, task.head, key_weights),
            values: self.weights.values.pack(shape, shape.value_len, task.head, value_weights),
        };
        let group_len = Partial::len(GROUP, shape.value_len);
        let groups = task.rows.len().div_ceil(GROUP);
        let (totals, next) = (totals.numbers(groups * group_len), next.numbers(group_len));
        let end = run.start + task.rows.end;
        for first in (0..end).step_by(RANGE) {
            let mut pairs = Pairs {
                first,
                count: RANGE.min(end - first),
                keys: keys.strips(RANGE / COLUMNS * shape.query_len()),
                values: values.strips(RANGE / COLUMNS * shape.value_stride()),
            };
            let buffers = (latents.numbers(run.pages.room(RANGE)), unturned.numbers(RANGE * COLUMNS));
            decompress(self.isa, shape, run.pages, &weights, buffers, &mut pairs);
            for (rows, total) in task.groups().zip(totals.chunks_exact_mut(group_len)) {
                self.show(run, task.head, &rows, &pairs, total, next);
            }
        }
        for (rows, total) in task.groups().zip(totals.chunks_exact_mut(group_len)) {
            self.finish(run, task.head, &rows, total);
        }
    }

    /// Adds a range of keys to the results of some rows: of those that see it.
    fn show(
        &self,
        run: &Run<'_>,
        head: usize,
        rows: &Range<usize>,
        pairs: &Pairs<'_>,
        total: &mut [f32],
        next: &mut [f32],
    ) {
        let (count, len, scale) = (rows.len(), self.shape.query_len(), self.shape.scale);
        let (mut visible, mut query): ([usize; GROUP], [&[f32]; GROUP]) = ([0; GROUP], [&[]; GROUP]);
        for (place, row) in rows.clone().enumerate() {
            visible[place] = (run.start + row + 1).saturating_sub(pairs.first).min(pairs.count);
            query[place] = &self.query[((run.first_row + row) * self.shape.heads + head) * len..][..len];
        }
        let (visible, query) = (&visible[..count], &query[..count]);
        let blind = visible.partition_point(|visible| *visible == 0);
        if pairs.first == 0 {
            attend_pairs(self.isa, pairs, visible, query, scale, &mut self.partial(total, count));
        } else if blind < count {
            let mut next = self.partial(next, count - blind);
            attend_pairs(self.isa, pairs, &visible[blind..], &query[blind..], scale, &mut next);
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
        self.rows.clone().step_by(GROUP).map(move |first| first..end.min(first + GROUP))
    }
}

/// A head's weights in panels of their rows, `latent` deep; behind the last row zeros.
struct Packed<'a> {
    keys: &'a [Strip],
    values: &'a [Strip],
}

/// A head's keys, each its own part and the shared one, and values of some positions, packed.
struct Pairs<'a> {
    first: usize,
    count: usize,
    /// Panels of keys, [`DecompressedShape::query_len`] deep.
    keys: &'a mut [Strip],
    /// Panels of a value's numbers, [`RANGE`] positions deep.
    values: &'a mut [Strip],
}

impl HeadRows<'_> {
    /// The `count` rows of a head in panels.
    fn pack<'b>(
        &self,
        shape: &DecompressedShape,
        count: usize,
        head: usize,
        buffer: &'b mut Buffer,
    ) -> &'b [Strip] {
        let latent = shape.latent;
        let panels = buffer.strips(count.div_ceil(COLUMNS) * latent);
        panels.fill([0.0; COLUMNS]);
        let group = self.w.rows() / shape.heads * head + self.first;
        let mut row = vec![0.0; if self.is_transposed { count } else { latent }];
        if self.is_transposed {
            for l in 0..latent {
                widen_row(self.w, group + l, &mut row);
                for (panel, numbers) in row.chunks(COLUMNS).enumerate() {
                    panels[panel * latent + l][..numbers.len()].copy_from_slice(numbers);
                }
            }
        } else {
            for r in 0..count {
                widen_row(self.w, group + r, &mut row);
                let panel = &mut panels[r / COLUMNS * latent..][..latent];
                panel.iter_mut().zip(&row).for_each(|(strip, number)| strip[r % COLUMNS] = *number);
            }
        }
        panels
    }
}

fn widen_row(w: &Matrix, row: usize, out: &mut [f32]) {
    for (i, piece) in out.chunks_mut(matrix::TILE).enumerate() {
        w.dequantize(row, i * matrix::TILE, piece);
    }
}

per_isa! {
    /// Keys and values of some positions; the buffers have room for a range's latents and for some of its keys.
    fn decompress(shape: &DecompressedShape, pages: &Pages<'_>, weights: &Packed<'_>, buffers: (&mut [f32], &mut [f32]), pairs: &mut Pairs<'_>) = decompress_body::<false>, avx512 = decompress_body::<true>
}

per_isa! {
    /// Fills `partial` with the results over the pairs, of which each query sees the first so many: none fewer than
    /// the query before it.
    fn attend_pairs(pairs: &Pairs<'_>, visible: &[usize], query: &[&[f32]], scale: f32, partial: &mut Partial<'_>) = pairs_body::<false>, avx512 = pairs_body::<true>
}

#[inline(always)]
fn decompress_body<const WIDE: bool>(
    shape: &DecompressedShape,
    pages: &Pages<'_>,
    weights: &Packed<'_>,
    (room, unturned): (&mut [f32], &mut [f32]),
    pairs: &mut Pairs<'_>,
) {
    let (count, latent, width) = (pairs.count, shape.latent, shape.query_len());
    let rows: [&[f32]; RANGE] = pages.rows(pairs.first..pairs.first + count, room);
    for (panel, weights) in weights.keys.chunks_exact(latent).enumerate() {
        multiply_latents::<WIDE>(&rows[..count], weights, unturned);
        let first = panel * COLUMNS;
        turn(unturned, first..shape.key_len.min(first + COLUMNS), width, pairs.keys);
    }
    for (key, row) in rows[..count].iter().enumerate() {
        let strips = &mut pairs.keys[key / COLUMNS * width..][shape.key_len..width];
        let shared = &row[latent..];
        strips.iter_mut().zip(shared).for_each(|(strip, number)| strip[key % COLUMNS] = *number);
    }
    for (values, weights) in pairs.values.chunks_exact_mut(RANGE).zip(weights.values.chunks_exact(latent)) {
        multiply_latents::<WIDE>(&rows[..count], weights, values.as_flattened_mut());
    }
}

/// `out[key] = latents[key] · panel`.
#[inline(always)]
fn multiply_latents<const WIDE: bool>(rows: &[&[f32]], panel: &[Strip], out: &mut [f32]) {
    for (piece, panel) in panel.chunks(DEPTH).enumerate() {
        let mut parts: [&[f32]; RANGE] = [&[]; RANGE];
        for (part, row) in parts.iter_mut().zip(rows) {
            *part = &row[piece * DEPTH..][..panel.len()];
        }
        match piece {
            0 => multiply::<WIDE>(&parts[..rows.len()], panel, out, COLUMNS),
            _ => multiply_add::<WIDE>(&parts[..rows.len()], panel, &[1.0; RANGE][..rows.len()], out, COLUMNS),
        }
    }
}

/// Some numbers of all keys, `[RANGE, COLUMNS]`, to their places in the panels of keys.
#[inline(always)]
fn turn(unturned: &[f32], numbers: Range<usize>, width: usize, keys: &mut [Strip]) {
    let panels = unturned.chunks_exact(COLUMNS * COLUMNS).zip(keys.chunks_exact_mut(width));
    for (unturned, strips) in panels {
        for (r, strip) in strips[numbers.clone()].iter_mut().enumerate() {
            for (key, number) in strip.iter_mut().enumerate() {
                *number = unturned[key * COLUMNS + r];
            }
        }
    }
}

#[inline(always)]
fn pairs_body<const WIDE: bool>(
    pairs: &Pairs<'_>,
    visible: &[usize],
    query: &[&[f32]],
    scale: f32,
    partial: &mut Partial<'_>,
) {
    let (mut weights, mut factors) = (Aligned([[0.0; TILE]; GROUP]), [1.0; GROUP]);
    partial.clear();
    for first in (0..pairs.count).step_by(TILE) {
        let seen = |q: usize| visible[q].saturating_sub(first).min(TILE);
        let blind = visible.partition_point(|visible| *visible <= first);
        score::<WIDE>(pairs, first, &query[blind..], &mut weights.0[blind..]);
        for q in blind..query.len() {
            let weights = &mut weights.0[q][..seen(q)];
            factors[q] = weigh::<WIDE, TILE>(weights, scale, &mut partial.max[q], &mut partial.sum[q]);
        }
        let mut rows: [&[f32]; GROUP] = [&[]; GROUP];
        for q in blind..query.len() {
            rows[q] = &weights.0[q][..seen(q)];
        }
        add_values::<WIDE>(pairs, first, &rows[..query.len()], &factors, partial);
    }
}

/// `scores[q][key] = query[q] · key`, of a tile of keys.
#[inline(always)]
fn score<const WIDE: bool>(pairs: &Pairs<'_>, first: usize, query: &[&[f32]], scores: &mut [[f32; TILE]]) {
    let Some(width) = query.first().map(|query| query.len()) else { return };
    let panels = pairs.keys[first / COLUMNS * width..].chunks_exact(width).take(TILE / COLUMNS);
    for (panel, keys) in panels.enumerate() {
        multiply::<WIDE>(query, keys, &mut scores.as_flattened_mut()[panel * COLUMNS..], TILE);
    }
}

/// `values[q] = factors[q] * values[q] + weights[q] · values`, in the order of the keys. Queries that see equally
/// many of the tile go together; those that see none keep what they have.
#[inline(always)]
fn add_values<const WIDE: bool>(
    pairs: &Pairs<'_>,
    first: usize,
    weights: &[&[f32]],
    factors: &[f32],
    partial: &mut Partial<'_>,
) {
    let len = partial.value_len();
    let mut begin = 0;
    for alike in weights.chunk_by(|a, b| a.len() == b.len()) {
        let (q, seen) = (begin, alike[0].len());
        begin += alike.len();
        if seen == 0 {
            continue;
        }
        for (panel, values) in pairs.values.chunks_exact(RANGE).enumerate() {
            let out = &mut partial.values[q * len + panel * COLUMNS..];
            multiply_add::<WIDE>(alike, &values[first..first + seen], &factors[q..q + alike.len()], out, len);
        }
    }
}
