//! Attention of query rows over paged latents, all heads of a row sharing each cached row.
//!
//! The absorbed form of multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1.2):
//! queries already live in the latent space, so keys and values are the cached rows themselves, and a row's
//! heads against the keys are a matrix product. It is computed in tiles of [`TILE`] keys, scores and weighted
//! sum one after the other while the tile is in the cache, under an online softmax (Milakov and Gimelshein,
//! arXiv 1805.02867; FlashAttention, arXiv 2205.14135).
//!
//! The order of every sum depends on the numbers of the keys alone: tiles in order inside a range of [`RANGE`]
//! keys, begun afresh, then ranges in order. So ranges may go to different threads, and neither they nor pages
//! nor other rows change a bit.

use std::cell::RefCell;
use std::ops::Range;

use crate::dot::{Aligned, LANES, Sum};
use crate::exp::exp;
use crate::isa::{Isa, isa, per_isa};
use crate::pool::{Disjoint, Pool};

/// Keys whose scores are turned into weights together.
const TILE: usize = 32;

/// Keys after which sums begin afresh.
const RANGE: usize = 256;

/// Most heads of a row that one task computes.
const HEADS: usize = 16;

/// Heads whose queries stay in the first-level cache while a tile's keys pass by.
const NEAR_HEADS: usize = 8;

/// Most numbers of partial results (256 MB) for which rows are split only to have the threads end together.
const SPLIT_NUMBERS: usize = 1 << 26;

/// Numbers in one register.
const REGISTER: usize = 8;

/// Cached rows of one layer, page by page.
pub struct Pages<'a> {
    /// The pages in the order of the sequence, each `[page_len, width]`; whole lanes wide.
    pub pages: Vec<&'a [f32]>,
    /// Rows per page.
    pub page_len: usize,
    /// Numbers from one row to the next, a multiple of 16.
    pub width: usize,
    /// Rows that may be attended to.
    pub keys: usize,
}

impl Pages<'_> {
    #[inline(always)]
    fn row(&self, key: usize) -> &[f32] {
        &self.pages[key / self.page_len][key % self.page_len * self.width..][..self.width]
    }
}

/// Who attends to what: a row of queries sees the first `keys` rows of `pages`.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    /// The sequence.
    pub pages: &'a Pages<'a>,
    /// How much of it: at least 1, at most `pages.keys`.
    pub keys: usize,
}

/// What stays the same for all rows.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Heads per row.
    pub heads: usize,
    /// Numbers of a query, the same as of a cached row.
    pub width: usize,
    /// The weighted sum is taken of the rows' first `value_len` numbers.
    pub value_len: usize,
    /// Scores are multiplied with it.
    pub scale: f32,
}

/// Buffers kept from one call to the next.
#[derive(Default)]
pub struct AttentionScratch {
    tasks: Vec<Task>,
    /// Those tasks whose results are merged, one after the other.
    merges: Vec<Range<usize>>,
    partial: Vec<Aligned<Sum>>,
}

/// `out[r, h] = softmax(scale * query[r, h] · keys) values`: `query` is `[rows, heads, width]`, padding zero,
/// `out` is `[rows, heads, value_len]`.
pub fn attend(
    pool: &Pool,
    shape: &Shape,
    rows: &[Row<'_>],
    query: &[f32],
    scratch: &mut AttentionScratch,
    out: &mut [f32],
) {
    assert_eq!(query.len(), rows.len() * shape.heads * shape.width, "one query per row and head");
    assert_eq!(out.len(), rows.len() * shape.heads * shape.value_len, "one value per row and head");
    assert!(shape.width.is_multiple_of(LANES) && shape.value_len <= shape.width, "{shape:?}");
    for row in rows {
        assert!(row.pages.width == shape.width, "{} numbers in a row, {shape:?}", row.pages.width);
        assert!((1..=row.pages.keys).contains(&row.keys), "{} keys of {}", row.keys, row.pages.keys);
    }
    let out = Disjoint::new(out);
    let job = Job { isa: isa(), shape, rows, query, out: &out };
    if job.rows_are_enough(pool.threads()) {
        let groups = shape.heads.div_ceil(HEADS);
        let tasks = rows.len() * groups;
        pool.run(tasks, |task| job.whole_row(task / groups, group(task % groups, HEADS, shape.heads)));
    } else {
        job.split(pool, scratch);
    }
}

/// The heads of a group.
fn group(number: usize, size: usize, heads: usize) -> Range<usize> {
    number * size..heads.min((number + 1) * size)
}

/// A part of a row's work, and where its result goes.
#[derive(Clone)]
struct Task {
    row: usize,
    heads: Range<usize>,
    range: usize,
    place: usize,
}

struct Job<'a> {
    isa: Isa,
    shape: &'a Shape,
    rows: &'a [Row<'a>],
    query: &'a [f32],
    out: &'a Disjoint<f32>,
}

thread_local! {
    /// Queries of a task and two partial results, where cache lines begin.
    static WORK: RefCell<Vec<Aligned<Sum>>> = const { RefCell::new(Vec::new()) };
}

impl Job<'_> {
    /// Some heads of a row over all of its keys.
    fn whole_row(&self, row: usize, heads: Range<usize>) {
        let (count, keys) = (heads.len(), self.rows[row].keys);
        let partial_len = self.partial_len(count);
        self.with_work(row, heads.clone(), 2 * partial_len, |query, work| {
            let (total, next) = work.split_at_mut(partial_len);
            self.range(row, 0, query, &mut Partial::of(total, count));
            for range in 1..keys.div_ceil(RANGE) {
                let mut next = Partial::of(next, count);
                self.range(row, range, query, &mut next);
                merge(self.isa, &mut Partial::of(total, count), &next);
            }
            self.finish(row, heads, &mut Partial::of(total, count));
        });
    }

    /// Whether whole rows keep the threads busy. Twice as many as threads share out well; fewer do if partial results
    /// would be too large.
    fn rows_are_enough(&self, threads: usize) -> bool {
        let tasks = self.rows.len() * self.shape.heads.div_ceil(HEADS);
        let partials = || -> usize {
            let size = self.split_heads();
            let ranges: usize = self.rows.iter().map(|row| row.keys.div_ceil(RANGE)).sum();
            ranges * self.shape.heads.div_ceil(size) * self.partial_len(size)
        };
        threads == 1 || tasks >= 2 * threads || (tasks >= threads && partials() > SPLIT_NUMBERS)
    }

    /// Most heads of a task of [`Job::split`].
    fn split_heads(&self) -> usize {
        if self.shape.heads > NEAR_HEADS { NEAR_HEADS } else { self.shape.heads.div_ceil(2) }
    }

    /// Few rows: their ranges of keys go to different threads, and are merged in order afterwards.
    fn split(&self, pool: &Pool, scratch: &mut AttentionScratch) {
        let partial_len = self.partial_len(self.split_heads());
        self.list_tasks(partial_len, scratch);
        let AttentionScratch { tasks, merges, partial } = scratch;
        let needed = tasks.len() * partial_len / LANES;
        if partial.len() < needed {
            partial.resize(needed, Aligned([0.0; LANES]));
        }
        let partials = Disjoint::new(floats_mut(partial));
        pool.run(tasks.len(), |number| {
            let Task { row, heads, range, place } = tasks[number].clone();
            // SAFETY: places of tasks do not overlap; `run` ends before `partial` does.
            let partial = unsafe { partials.slice(place, self.partial_len(heads.len())) };
            self.with_work(row, heads.clone(), 0, |query, _| {
                self.range(row, range, query, &mut Partial::of(partial, heads.len()));
            });
        });
        pool.run(merges.len(), |number| {
            let tasks = &tasks[merges[number].clone()];
            // SAFETY: merges are runs of tasks, each task in one; `run` ends before `partial` does.
            let partial = unsafe { partials.slice(tasks[0].place, tasks.len() * partial_len) };
            self.merge_ranges(tasks, partial, partial_len);
        });
    }

    /// A task for each row, group of heads and range, a merge for each row and group of heads.
    fn list_tasks(&self, partial_len: usize, AttentionScratch { tasks, merges, .. }: &mut AttentionScratch) {
        let size = self.split_heads();
        tasks.clear();
        merges.clear();
        for (row, of_row) in self.rows.iter().enumerate() {
            for number in 0..self.shape.heads.div_ceil(size) {
                let (heads, first) = (group(number, size, self.shape.heads), tasks.len());
                let task =
                    |range| Task { row, heads: heads.clone(), range, place: (first + range) * partial_len };
                tasks.extend((0..of_row.keys.div_ceil(RANGE)).map(task));
                merges.push(first..tasks.len());
            }
        }
    }

    /// Joins the ranges of some heads of a row, which lie one after the other.
    fn merge_ranges(&self, tasks: &[Task], partial: &mut [f32], partial_len: usize) {
        let Task { row, heads, .. } = &tasks[0];
        let (count, used) = (heads.len(), self.partial_len(heads.len()));
        let (total, others) = partial.split_at_mut(partial_len);
        let mut total = Partial::of(&mut total[..used], count);
        for next in others.chunks_exact_mut(partial_len) {
            merge(self.isa, &mut total, &Partial::of(&mut next[..used], count));
        }
        self.finish(*row, heads.clone(), &mut total);
    }

    /// Calls `body` with a copy of the queries and a buffer of `len` numbers, both beginning a cache line.
    fn with_work(&self, row: usize, heads: Range<usize>, len: usize, body: impl FnOnce(&[f32], &mut [f32])) {
        let (width, count) = (self.shape.width, heads.len());
        let query = &self.query[(row * self.shape.heads + heads.start) * width..][..count * width];
        WORK.with_borrow_mut(|work| {
            let needed = (query.len() + len).div_ceil(LANES);
            if work.len() < needed {
                work.resize(needed, Aligned([0.0; LANES]));
            }
            let (copy, rest) = floats_mut(work).split_at_mut(query.len());
            copy.copy_from_slice(query);
            body(copy, &mut rest[..len]);
        });
    }

    fn range(&self, row: usize, range: usize, query: &[f32], partial: &mut Partial<'_>) {
        let Row { pages, keys } = &self.rows[row];
        let keys = range * RANGE..(*keys).min((range + 1) * RANGE);
        attend_range(self.isa, pages, keys, query, self.shape.scale, partial);
    }

    /// The weighted mean from the weighted sum.
    fn finish(&self, row: usize, heads: Range<usize>, partial: &mut Partial<'_>) {
        let len = self.shape.value_len;
        // SAFETY: each (row, head) is finished by one task; the output outlives the call.
        let out = unsafe { self.out.slice((row * self.shape.heads + heads.start) * len, heads.len() * len) };
        finish(self.isa, partial, out, len);
    }

    /// Numbers of a partial result of so many heads, in whole cache lines.
    fn partial_len(&self, heads: usize) -> usize {
        (2 * heads).next_multiple_of(LANES) + heads * self.shape.value_len.next_multiple_of(LANES)
    }
}

/// The result over some keys: each head's largest score, the sum of its weights relative to that, and the
/// weighted sum of values.
struct Partial<'a> {
    max: &'a mut [f32],
    sum: &'a mut [f32],
    /// `[heads, padded value_len]`.
    values: &'a mut [f32],
}

impl Partial<'_> {
    fn of(numbers: &mut [f32], heads: usize) -> Partial<'_> {
        let (front, values) = numbers.split_at_mut((2 * heads).next_multiple_of(LANES));
        let (max, rest) = front.split_at_mut(heads);
        let values_len = values.len() / heads * heads;
        Partial { max, sum: &mut rest[..heads], values: &mut values[..values_len] }
    }
}

/// Aligned lanes as one row of numbers.
fn floats_mut(lanes: &mut [Aligned<Sum>]) -> &mut [f32] {
    // SAFETY: an aligned sum is 64 bytes long: its 16 numbers and no padding.
    unsafe { std::slice::from_raw_parts_mut(lanes.as_mut_ptr().cast(), lanes.len() * LANES) }
}

per_isa! {
    /// Fills `partial` with the result over a range of keys.
    fn attend_range(pages: &Pages<'_>, keys: Range<usize>, query: &[f32], scale: f32, partial: &mut Partial<'_>) = range_body
}

per_isa! {
    /// `total` becomes the result over the keys of both.
    fn merge(total: &mut Partial<'_>, next: &Partial<'_>) = merge_body
}

per_isa! {
    /// `out[h] = values[h] / sum[h]`, the first `len` numbers of each.
    fn finish(partial: &mut Partial<'_>, out: &mut [f32], len: usize) = finish_body
}

#[inline(always)]
fn range_body(pages: &Pages<'_>, keys: Range<usize>, query: &[f32], scale: f32, partial: &mut Partial<'_>) {
    let heads = partial.max.len();
    partial.max.fill(f32::NEG_INFINITY);
    partial.sum.fill(0.0);
    partial.values.fill(0.0);
    let mut weights = Aligned([[0.0; TILE]; HEADS]);
    let weights = &mut weights.0;
    let mut factors = [1.0; HEADS];
    for first in keys.clone().step_by(TILE) {
        let count = TILE.min(keys.end - first);
        let rows: [&[f32]; TILE] = std::array::from_fn(|i| pages.row(first + i.min(count - 1)));
        let rows = &rows[..count];
        score_tile(rows, query, weights);
        for head in 0..heads {
            let weights = &mut weights[head][..count];
            factors[head] = weigh(weights, scale, &mut partial.max[head], &mut partial.sum[head]);
        }
        add_values(rows, weights, &factors, heads, partial.values);
    }
}

/// `scores[h][key] = query[h] · rows[key]`; three keys against four heads in registers.
#[inline(always)]
fn score_tile(rows: &[&[f32]], query: &[f32], scores: &mut [[f32; TILE]; HEADS]) {
    let width = rows[0].len();
    let heads = query.len() / width;
    for near in (0..heads).step_by(NEAR_HEADS) {
        let end = heads.min(near + NEAR_HEADS);
        let mut key = 0;
        while key < rows.len() {
            let keys = 3.min(rows.len() - key);
            let mut head = near;
            while head < end {
                let (query, scores) = (&query[head * width..], &mut scores[head..]);
                match (end - head >= 4, keys) {
                    (true, 3) => dots::<4, 3>(query, &rows[key..], scores, key),
                    (true, 2) => dots::<4, 2>(query, &rows[key..], scores, key),
                    (true, _) => dots::<4, 1>(query, &rows[key..], scores, key),
                    (false, 3) => dots::<1, 3>(query, &rows[key..], scores, key),
                    (false, 2) => dots::<1, 2>(query, &rows[key..], scores, key),
                    (false, _) => dots::<1, 1>(query, &rows[key..], scores, key),
                }
                head += if end - head >= 4 { 4 } else { 1 };
            }
            key += keys;
        }
    }
}

/// `H` heads against `K` keys: element `i` of a product goes to lane `i mod 8`, so that one pass over the rows
/// keeps all sums in registers.
#[inline(always)]
fn dots<const H: usize, const K: usize>(
    query: &[f32],
    rows: &[&[f32]],
    scores: &mut [[f32; TILE]],
    key: usize,
) {
    let width = rows[0].len();
    let groups = width / REGISTER;
    let query: [&[[f32; REGISTER]]; H] =
        std::array::from_fn(|h| &query[h * width..][..width].as_chunks().0[..groups]);
    let rows: [&[[f32; REGISTER]]; K] = std::array::from_fn(|k| &rows[k].as_chunks().0[..groups]);
    let mut sums = [[[0.0; REGISTER]; K]; H];
    for group in 0..groups {
        let mut keys = [[0.0; REGISTER]; K];
        for k in 0..K {
            keys[k] = lanes(rows[k], group);
        }
        for h in 0..H {
            let query = lanes(query[h], group);
            for k in 0..K {
                for l in 0..REGISTER {
                    sums[h][k][l] = query[l].mul_add(keys[k][l], sums[h][k][l]);
                }
            }
        }
    }
    for h in 0..H {
        for k in 0..K {
            scores[h][key + k] = total(sums[h][k]);
        }
    }
}

/// A group of lanes. A checked access would have the sums written to memory in each round.
#[inline(always)]
fn lanes(row: &[[f32; REGISTER]], group: usize) -> [f32; REGISTER] {
    debug_assert!(group < row.len());
    // SAFETY: `dots` has cut each row to the groups that are counted here.
    unsafe { *row.get_unchecked(group) }
}

/// Joins lanes by halves: 8, 4, 2, 1.
#[inline(always)]
fn total(sum: [f32; REGISTER]) -> f32 {
    let four: [f32; 4] = std::array::from_fn(|l| sum[l] + sum[l + 4]);
    (four[0] + four[2]) + (four[1] + four[3])
}

/// Turns a tile's products into weights relative to the largest score so far; returns the factor for what was
/// summed relative to the one before.
#[inline(always)]
fn weigh(scores: &mut [f32], scale: f32, max: &mut f32, sum: &mut f32) -> f32 {
    let mut largest = *max;
    for score in scores.iter_mut() {
        *score *= scale;
        largest = if *score > largest { *score } else { largest };
    }
    let factor = exp(*max - largest);
    let mut lanes = [0.0; REGISTER];
    for group in scores.chunks_mut(REGISTER) {
        for (lane, score) in lanes.iter_mut().zip(group) {
            *score = exp(*score - largest);
            *lane += *score;
        }
    }
    *max = largest;
    *sum = factor.mul_add(*sum, total(lanes));
    factor
}

/// `values[h] = factors[h] * values[h] + Σ weights[h][key] rows[key]`, in the order of the keys; four heads and
/// two registers of values at a time (of three, one would go through memory in each round).
#[inline(always)]
fn add_values(
    rows: &[&[f32]],
    weights: &[[f32; TILE]; HEADS],
    factors: &[f32; HEADS],
    heads: usize,
    values: &mut [f32],
) {
    let len = values.len() / heads;
    assert!(
        len.is_multiple_of(REGISTER) && rows.iter().all(|row| row.len() >= len),
        "values of {len} numbers"
    );
    let mut column = 0;
    while column < len {
        let columns = if len - column >= 2 * REGISTER { 2 * REGISTER } else { REGISTER };
        let mut head = 0;
        while head < heads {
            let (weights, factors) = (&weights[head..], &factors[head..]);
            let values = &mut values[head * len + column..];
            match (heads - head >= 4, columns > REGISTER) {
                (true, true) => value_block::<4, 2>(rows, column, weights, factors, values, len),
                (true, false) => value_block::<4, 1>(rows, column, weights, factors, values, len),
                (false, true) => value_block::<1, 2>(rows, column, weights, factors, values, len),
                (false, false) => value_block::<1, 1>(rows, column, weights, factors, values, len),
            }
            head += if heads - head >= 4 { 4 } else { 1 };
        }
        column += columns;
    }
}

#[inline(always)]
fn value_block<const H: usize, const V: usize>(
    rows: &[&[f32]],
    column: usize,
    weights: &[[f32; TILE]],
    factors: &[f32],
    values: &mut [f32],
    stride: usize,
) {
    assert!(rows.len() <= TILE && weights.len() >= H && factors.len() >= H);
    let mut sums = [[[0.0; REGISTER]; V]; H];
    for h in 0..H {
        let before = registers::<V>(&values[h * stride..][..V * REGISTER]);
        for v in 0..V {
            for l in 0..REGISTER {
                sums[h][v][l] = factors[h] * before[v][l];
            }
        }
    }
    for (key, row) in rows.iter().enumerate() {
        // SAFETY: `add_values` has asserted that rows go on to the last column. A checked access would have the
        // sums written to memory in each round.
        let row = registers::<V>(unsafe { row.get_unchecked(column..column + V * REGISTER) });
        for h in 0..H {
            // SAFETY: no more rows than a tile has, no fewer heads than `H`, as asserted.
            let weight = unsafe { *weights.get_unchecked(h).get_unchecked(key) };
            for v in 0..V {
                for l in 0..REGISTER {
                    sums[h][v][l] = weight.mul_add(row[v][l], sums[h][v][l]);
                }
            }
        }
    }
    for h in 0..H {
        let after = &mut values[h * stride..][..V * REGISTER];
        for v in 0..V {
            after[v * REGISTER..][..REGISTER].copy_from_slice(&sums[h][v]);
        }
    }
}

/// A row's numbers in `V` registers.
#[inline(always)]
fn registers<const V: usize>(row: &[f32]) -> [[f32; REGISTER]; V] {
    let mut registers = [[0.0; REGISTER]; V];
    for v in 0..V {
        registers[v].copy_from_slice(&row[v * REGISTER..][..REGISTER]);
    }
    registers
}

#[inline(always)]
fn merge_body(total: &mut Partial<'_>, next: &Partial<'_>) {
    let heads = total.max.len();
    let len = total.values.len() / heads;
    for head in 0..heads {
        let max = total.max[head].max(next.max[head]);
        let (ours, theirs) = (exp(total.max[head] - max), exp(next.max[head] - max));
        total.max[head] = max;
        total.sum[head] = theirs.mul_add(next.sum[head], ours * total.sum[head]);
        let pairs = total.values[head * len..][..len].iter_mut().zip(&next.values[head * len..][..len]);
        for (total, next) in pairs {
            *total = theirs.mul_add(*next, ours * *total);
        }
    }
}

#[inline(always)]
fn finish_body(partial: &mut Partial<'_>, out: &mut [f32], len: usize) {
    let heads = partial.sum.len();
    let padded = partial.values.len() / heads;
    for (head, out) in out.chunks_exact_mut(len).enumerate() {
        let factor = 1.0 / partial.sum[head];
        for (out, value) in out.iter_mut().zip(&partial.values[head * padded..]) {
            *out = factor * value;
        }
    }
}
