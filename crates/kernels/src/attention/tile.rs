//! One tile of keys against some queries: scores, weights under an online softmax, weighted sum of values.
//!
//! The absorbed form's queries are heads of one row: here they are only rows of numbers. Each has an order of sums of
//! its own, so it does not matter which others go with it. Partial results and the softmax are those of the decompressed
//! form too, whose products are [`super::panel`]'s. The online softmax is Milakov and
//! Gimelshein's, arXiv 1805.02867.

#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;

use std::ops::Range;

use crate::dot::{Aligned, LANES};
use crate::exp::exp;
use crate::isa::per_isa;
use crate::pool::Disjoint;
use crate::prefetch::{prefetch, prefetch_second_level};

/// Keys whose scores are turned into weights together.
pub(super) const TILE: usize = 32;

/// Keys after which sums begin afresh.
pub(super) const RANGE: usize = 256;

/// Most queries of a tile.
pub(super) const QUERIES: usize = 16;

/// Queries that stay in the first-level cache while a tile's keys pass by.
pub(super) const NEAR_QUERIES: usize = 8;

/// Keys against which four queries have their sums in registers.
pub(super) const KEYS: usize = 3;

/// Queries whose values have their sums in registers.
pub(super) const VALUES_TOGETHER: usize = 6;

/// Numbers in one register.
const REGISTER: usize = 8;

/// Bytes of a cache line.
const LINE: usize = 64;

/// The result over some keys: each query's largest score, the sum of its weights relative to that, and the
/// weighted sum of values.
pub(super) struct Partial<'a> {
    pub(super) max: &'a mut [f32],
    pub(super) sum: &'a mut [f32],
    /// `[queries, padded value_len]`.
    pub(super) values: &'a mut [f32],
}

impl Partial<'_> {
    /// Numbers of a partial result of so many queries, in whole cache lines.
    pub(super) fn len(queries: usize, value_len: usize) -> usize {
        Partial::front(queries) + queries * value_len.next_multiple_of(LANES)
    }

    /// Numbers before the values.
    fn front(queries: usize) -> usize {
        (2 * queries).next_multiple_of(LANES)
    }

    /// In a buffer of at least [`Partial::len`] numbers.
    pub(super) fn of(numbers: &mut [f32], queries: usize, value_len: usize) -> Partial<'_> {
        let (front, values) = numbers.split_at_mut(Partial::front(queries));
        let (max, rest) = front.split_at_mut(queries);
        let values_len = queries * value_len.next_multiple_of(LANES);
        Partial { max, sum: &mut rest[..queries], values: &mut values[..values_len] }
    }

    /// One query's of a result that [`Partial::of`] would find at a place.
    ///
    /// # Safety
    /// As [`Disjoint::slice`], for the numbers of this query.
    pub(super) unsafe fn of_one<'a>(
        numbers: &'a Disjoint<f32>,
        place: usize,
        query: usize,
        queries: usize,
        value_len: usize,
    ) -> Partial<'a> {
        let len = value_len.next_multiple_of(LANES);
        let values = place + Partial::front(queries) + query * len;
        // SAFETY: promised by the caller.
        unsafe {
            Partial {
                max: numbers.slice(place + query, 1),
                sum: numbers.slice(place + queries + query, 1),
                values: numbers.slice(values, len),
            }
        }
    }

    /// Numbers of a query's values.
    #[inline(always)]
    pub(super) fn value_len(&self) -> usize {
        self.values.len() / self.max.len()
    }

    /// Some of the queries.
    #[inline(always)]
    pub(super) fn part(&mut self, queries: Range<usize>) -> Partial<'_> {
        let len = self.value_len();
        Partial {
            max: &mut self.max[queries.clone()],
            sum: &mut self.sum[queries.clone()],
            values: &mut self.values[queries.start * len..queries.end * len],
        }
    }

    /// The result over no key.
    #[inline(always)]
    pub(super) fn clear(&mut self) {
        self.max.fill(f32::NEG_INFINITY);
        self.sum.fill(0.0);
        self.values.fill(0.0);
    }
}

/// Weights of a tile, `[query][key]`.
pub(super) struct Weights(Aligned<[[f32; TILE]; QUERIES]>);

impl Weights {
    #[inline(always)]
    pub(super) fn new() -> Weights {
        Weights(Aligned([[0.0; TILE]; QUERIES]))
    }
}

/// The next tile's rows, asked for a few cache lines at a time while this one's are multiplied: they come from memory,
/// and a core waits for a queue that it has filled.
pub(super) struct Ahead<const TILE: usize> {
    starts: [*const u8; TILE],
    rows: usize,
    row_bytes: usize,
    /// The row that is asked for, and how much of it was.
    row: usize,
    asked: usize,
    /// Bytes that go with a block of scores and with a block of values: half of all with each kind.
    pub(super) per_scores: usize,
    pub(super) per_values: usize,
}

impl<const TILE: usize> Ahead<TILE> {
    /// `rows` rows while a whole tile is added to `partial`, its scores those of four queries and so many keys at a time.
    #[inline(always)]
    pub(super) fn new(
        starts: [*const u8; TILE],
        rows: usize,
        row_bytes: usize,
        keys: usize,
        partial: &Partial<'_>,
    ) -> Ahead<TILE> {
        let (queries, half) = (partial.max.len(), rows * row_bytes / 2);
        let scores = queries.div_ceil(4) * TILE.div_ceil(keys);
        let values = queries.div_ceil(VALUES_TOGETHER) * partial.value_len().div_ceil(2 * REGISTER);
        let share = |blocks| half.div_ceil(blocks).next_multiple_of(LINE);
        let (per_scores, per_values) = (share(scores), share(values));
        Ahead { starts, rows, row_bytes, row: 0, asked: 0, per_scores, per_values }
    }

    /// Asks for so many more bytes.
    #[inline(always)]
    pub(super) fn step(&mut self, mut bytes: usize) {
        while bytes > 0 && self.row < self.rows {
            let now = bytes.min(self.row_bytes - self.asked);
            prefetch_second_level(self.starts[self.row].wrapping_add(self.asked), now);
            bytes -= now;
            self.asked += now;
            if self.asked == self.row_bytes {
                (self.row, self.asked) = (self.row + 1, 0);
            }
        }
    }
}

per_isa! {
    /// `total` becomes the result over the keys of both.
    pub(super) fn merge(total: &mut Partial<'_>, next: &Partial<'_>) = merge_body
}

per_isa! {
    /// `out[q] = values[q] / sum[q]`, the first `len` numbers of each.
    pub(super) fn finish(partial: &mut Partial<'_>, out: &mut [f32], len: usize) = finish_body
}

/// Adds a tile of rows, keys and values in one, to the result so far; `query` is `[queries, width]`, as wide as they.
#[inline(always)]
pub(super) fn add_tile<const WIDE: bool>(
    rows: &[&[f32]],
    query: &[f32],
    scale: f32,
    ahead: &mut Ahead<TILE>,
    weights: &mut Weights,
    partial: &mut Partial<'_>,
) {
    let (queries, weights) = (partial.max.len(), &mut weights.0.0);
    let mut factors = [1.0; QUERIES];
    score_tile(rows, query, ahead, weights);
    for q in 0..queries {
        let weights = &mut weights[q][..rows.len()];
        factors[q] = weigh::<WIDE, TILE>(weights, scale, &mut partial.max[q], &mut partial.sum[q]);
    }
    add_values(rows, weights, &factors, queries, ahead, partial.values);
}

/// `scores[q][key] = query[q] · rows[key]`; three keys against four queries in registers.
#[inline(always)]
fn score_tile(rows: &[&[f32]], query: &[f32], ahead: &mut Ahead<TILE>, scores: &mut [[f32; TILE]; QUERIES]) {
    let width = rows[0].len();
    let queries = query.len() / width;
    for near in (0..queries).step_by(NEAR_QUERIES) {
        let end = queries.min(near + NEAR_QUERIES);
        let mut key = 0;
        while key < rows.len() {
            let keys = KEYS.min(rows.len() - key);
            let mut q = near;
            while q < end {
                let (query, scores) = (&query[q * width..], &mut scores[q..]);
                match (end - q >= 4, keys) {
                    (true, 3) => dots::<4, 3>(query, &rows[key..], scores, key),
                    (true, 2) => dots::<4, 2>(query, &rows[key..], scores, key),
                    (true, _) => dots::<4, 1>(query, &rows[key..], scores, key),
                    (false, 3) => dots::<1, 3>(query, &rows[key..], scores, key),
                    (false, 2) => dots::<1, 2>(query, &rows[key..], scores, key),
                    (false, _) => dots::<1, 1>(query, &rows[key..], scores, key),
                }
                ahead.step(ahead.per_scores);
                q += if end - q >= 4 { 4 } else { 1 };
            }
            key += keys;
        }
    }
}

/// `Q` queries against `K` keys: element `i` of a product goes to lane `i mod 8`, so that one pass over the rows
/// keeps all sums in registers.
#[inline(always)]
fn dots<const Q: usize, const K: usize>(
    query: &[f32],
    rows: &[&[f32]],
    scores: &mut [[f32; TILE]],
    key: usize,
) {
    let width = rows[0].len();
    let groups = width / REGISTER;
    let query: [&[[f32; REGISTER]]; Q] =
        std::array::from_fn(|q| &query[q * width..][..width].as_chunks().0[..groups]);
    let rows: [&[[f32; REGISTER]]; K] = std::array::from_fn(|k| &rows[k].as_chunks().0[..groups]);
    let mut sums = [[[0.0; REGISTER]; K]; Q];
    for group in 0..groups {
        let mut keys = [[0.0; REGISTER]; K];
        for k in 0..K {
            keys[k] = lanes(rows[k], group);
        }
        for q in 0..Q {
            let query = lanes(query[q], group);
            for k in 0..K {
                for l in 0..REGISTER {
                    sums[q][k][l] = query[l].mul_add(keys[k][l], sums[q][k][l]);
                }
            }
        }
    }
    for q in 0..Q {
        for k in 0..K {
            scores[q][key + k] = total(sums[q][k]);
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
pub(super) fn total(sum: [f32; REGISTER]) -> f32 {
    let four: [f32; 4] = std::array::from_fn(|l| sum[l] + sum[l + 4]);
    (four[0] + four[2]) + (four[1] + four[3])
}

/// Turns a tile's products, no more than `TILE`, into weights relative to the largest score so far; returns the factor for what was
/// summed relative to the one before. `WIDE` only in functions compiled for AVX-512.
#[inline(always)]
pub(super) fn weigh<const WIDE: bool, const TILE: usize>(
    scores: &mut [f32],
    scale: f32,
    max: &mut f32,
    sum: &mut f32,
) -> f32 {
    // Where the length is known, whole registers need no mask.
    match scores.first_chunk_mut::<TILE>() {
        #[cfg(target_arch = "x86_64")]
        Some(scores) if WIDE => avx512::weigh(scores, scale, max, sum),
        Some(scores) => weigh_some(scores, scale, max, sum),
        None => weigh_some(scores, scale, max, sum),
    }
}

#[inline(always)]
fn weigh_some(scores: &mut [f32], scale: f32, max: &mut f32, sum: &mut f32) -> f32 {
    let mut lanes = [*max; REGISTER];
    for group in scores.chunks_mut(REGISTER) {
        for (lane, score) in lanes.iter_mut().zip(group) {
            *score *= scale;
            *lane = if *score > *lane { *score } else { *lane };
        }
    }
    let largest = lanes.into_iter().reduce(|a, b| if b > a { b } else { a }).unwrap_or(*max);
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

/// `values[q] = factors[q] * values[q] + Σ weights[q][key] rows[key]`, in the order of the keys; some queries and
/// two registers of values at a time.
#[inline(always)]
fn add_values(
    rows: &[&[f32]],
    weights: &[[f32; TILE]; QUERIES],
    factors: &[f32; QUERIES],
    queries: usize,
    ahead: &mut Ahead<TILE>,
    values: &mut [f32],
) {
    let len = values.len() / queries;
    assert!(
        len.is_multiple_of(REGISTER) && rows.iter().all(|row| row.len() >= len),
        "values of {len} numbers"
    );
    let mut column = 0;
    while column < len {
        let columns = if len - column >= 2 * REGISTER { 2 * REGISTER } else { REGISTER };
        let mut q = 0;
        while q < queries {
            let (weights, factors) = (&weights[q..], &factors[q..]);
            let values = &mut values[q * len + column..];
            let left = queries - q;
            let done = match columns {
                REGISTER => value_blocks::<1>(rows, column, weights, factors, left, values, len),
                _ => value_blocks::<2>(rows, column, weights, factors, left, values, len),
            };
            ask_for_column(
                &rows[rows.len() * q / queries..rows.len() * (q + done) / queries],
                column + columns,
            );
            ahead.step(ahead.per_values);
            q += done;
        }
        column += columns;
    }
}

/// Column by column numbers are a row apart, which hardware does not foresee; rows are in the second-level cache.
#[inline(always)]
fn ask_for_column(rows: &[&[f32]], column: usize) {
    for row in rows {
        prefetch(row.as_ptr().wrapping_add(column).cast(), LINE);
    }
}

/// Some of the queries that are left; how many. Six have twelve sums in registers, which hides what an addition takes;
/// eight are better halved.
#[inline(always)]
fn value_blocks<const V: usize>(
    rows: &[&[f32]],
    column: usize,
    weights: &[[f32; TILE]],
    factors: &[f32],
    left: usize,
    values: &mut [f32],
    stride: usize,
) -> usize {
    match left {
        8 | 4 | 5 => value_block::<4, V>(rows, column, weights, factors, values, stride),
        6.. => value_block::<6, V>(rows, column, weights, factors, values, stride),
        2 | 3 => value_block::<2, V>(rows, column, weights, factors, values, stride),
        _ => value_block::<1, V>(rows, column, weights, factors, values, stride),
    }
}

#[inline(always)]
fn value_block<const Q: usize, const V: usize>(
    rows: &[&[f32]],
    column: usize,
    weights: &[[f32; TILE]],
    factors: &[f32],
    values: &mut [f32],
    stride: usize,
) -> usize {
    assert!(rows.len() <= TILE && weights.len() >= Q && factors.len() >= Q);
    let mut sums = [[[0.0; REGISTER]; V]; Q];
    for q in 0..Q {
        let before = registers::<V>(&values[q * stride..][..V * REGISTER]);
        for v in 0..V {
            for l in 0..REGISTER {
                sums[q][v][l] = factors[q] * before[v][l];
            }
        }
    }
    for (key, row) in rows.iter().enumerate() {
        // SAFETY: `add_values` has asserted that rows go on to the last column. A checked access would have the
        // sums written to memory in each round.
        let row = registers::<V>(unsafe { row.get_unchecked(column..column + V * REGISTER) });
        for q in 0..Q {
            // SAFETY: no more rows than a tile has, no fewer queries than `Q`, as asserted.
            let weight = unsafe { *weights.get_unchecked(q).get_unchecked(key) };
            for v in 0..V {
                for l in 0..REGISTER {
                    sums[q][v][l] = weight.mul_add(row[v][l], sums[q][v][l]);
                }
            }
        }
    }
    for q in 0..Q {
        let after = &mut values[q * stride..][..V * REGISTER];
        for v in 0..V {
            after[v * REGISTER..][..REGISTER].copy_from_slice(&sums[q][v]);
        }
    }
    Q
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
    let queries = total.max.len();
    let len = total.values.len() / queries;
    for q in 0..queries {
        let max = total.max[q].max(next.max[q]);
        let (ours, theirs) = (exp(total.max[q] - max), exp(next.max[q] - max));
        total.max[q] = max;
        total.sum[q] = theirs.mul_add(next.sum[q], ours * total.sum[q]);
        let pairs = total.values[q * len..][..len].iter_mut().zip(&next.values[q * len..][..len]);
        for (total, next) in pairs {
            *total = theirs.mul_add(*next, ours * *total);
        }
    }
}

#[inline(always)]
fn finish_body(partial: &mut Partial<'_>, out: &mut [f32], len: usize) {
    let queries = partial.sum.len();
    let padded = partial.values.len() / queries;
    for (q, out) in out.chunks_exact_mut(len).enumerate() {
        let factor = 1.0 / partial.sum[q];
        for (out, value) in out.iter_mut().zip(&partial.values[q * padded..]) {
            *out = factor * value;
        }
    }
}
