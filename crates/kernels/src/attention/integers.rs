//! One tile of 16-bit keys against some queries, multiplied in integers: an instruction has twice as many products as of f32.
//!
//! Queries are rounded to 16 bits as rows are ([`crate::latents`]), so that sums fit 32 bits whatever the numbers are. Weights
//! of a tile are rounded relative to their sum, for the same reason: 65,000 steps for all of them together. Sums of
//! integers are exact, so their order does not matter; what is computed in f32 goes key by key and tile by tile.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod scalar;

use std::ops::Range;

use crate::dot::{Aligned, flat, flat_mut};
use crate::isa::Isa;
use crate::latents::{narrow_i16, nearest};
use crate::prefetch::prefetch;

use super::Pages;
use super::tile::{Ahead, Partial, QUERIES, VALUES_TOGETHER, weigh};

/// Keys whose scores are turned into weights together.
const TILE: usize = 64;

/// Numbers of a row that are multiplied together.
pub(super) const GROUP: usize = 16;

/// Neighbouring numbers of a row.
pub(super) type Group = [i16; GROUP];

/// The groups of a cache line.
const PER_LINE: usize = 2;

/// Keys against which four queries have their sums in registers.
const KEYS: usize = 2;

/// The same where there are 32 registers.
const WIDE_KEYS: usize = 4;

/// Numbers with sums of their own when a tile's weights are added up.
const REGISTER: usize = 8;

/// Most of the sum of a tile's weights, in steps. With half a step more for each key, times the largest number of a row,
/// it is below 2^31.
const STEPS: f32 = 65_000.0;

/// Most steps of one weight.
const MOST_STEPS: f32 = 32_767.0;

/// Queries in 16 bits.
#[derive(Default)]
pub(super) struct Queries {
    /// Of each query whole lines of latents, then of the others. A group that has numbers of both comes twice, with zeros for
    /// those of the other scale.
    lines: Vec<Aligned<[Group; PER_LINE]>>,
    /// A query on its way there.
    numbers: Vec<i16>,
    /// Of each query's latent, and of its other numbers.
    scales: Vec<[f32; 2]>,
    /// Groups of the latent.
    latents: usize,
    /// Where the other numbers' groups begin in a row, and how many they are.
    others_first: usize,
    others: usize,
}

impl Queries {
    /// Rounds queries `[queries, width]` for rows that have so many latents.
    pub(super) fn set(&mut self, query: &[f32], width: usize, latent: usize) {
        (self.latents, self.others_first) = (latent.div_ceil(GROUP), latent / GROUP);
        self.others = width / GROUP - self.others_first;
        self.numbers.resize(width, 0);
        let (of_query, latent_lines) = (self.lines_of_query(), self.latents.div_ceil(PER_LINE));
        self.scales.clear();
        self.lines.clear();
        self.lines.resize(query.len() / width * of_query, Aligned([[0; GROUP]; PER_LINE]));
        for (query, lines) in query.chunks_exact(width).zip(self.lines.chunks_exact_mut(of_query)) {
            self.scales.push(narrow_i16(query, latent, &mut self.numbers));
            let groups = self.numbers.as_chunks().0;
            let (latents, others) = lines.split_at_mut(latent_lines);
            let (latents, others) = (flat_mut(latents), flat_mut(others));
            latents[..self.latents].copy_from_slice(&groups[..self.latents]);
            others[..self.others].copy_from_slice(&groups[self.others_first..]);
            if self.others_first < self.latents {
                // The last of the latents and the first of the others are one group.
                let both = latent % GROUP;
                latents[self.latents - 1][both..].fill(0);
                others[0][..both].fill(0);
            }
        }
    }

    fn lines_of_query(&self) -> usize {
        self.latents.div_ceil(PER_LINE) + self.others.div_ceil(PER_LINE)
    }

    /// The groups of `Q` queries from one on: of their latents, and of their other numbers.
    #[inline(always)]
    fn of<const Q: usize>(&self, query: usize) -> ([&[Group]; Q], [&[Group]; Q]) {
        let (of_query, latent_lines) = (self.lines_of_query(), self.latents.div_ceil(PER_LINE));
        let (mut latents, mut others): ([&[Group]; Q], [&[Group]; Q]) = ([&[]; Q], [&[]; Q]);
        for q in 0..Q {
            let (front, back) = self.lines[(query + q) * of_query..][..of_query].split_at(latent_lines);
            (latents[q], others[q]) = (&flat(front)[..self.latents], &flat(back)[..self.others]);
        }
        (latents, others)
    }
}

/// The operations of this path. Instances are made only inside functions compiled for their instruction set.
trait Products {
    /// Whether there are registers of 512 bits, and 32 of them: then more keys and queries go together.
    const WIDE: bool = false;

    /// `queries[q] · rows[k]`; all have the same number of groups.
    fn dots<const Q: usize, const K: usize>(queries: [&[Group]; Q], rows: [&[Group]; K]) -> [[i32; K]; Q];

    /// `Σ weights[q][key] rows[key][group]` for each number of `G` groups, one or two; rows and weights are an even number, no
    /// more than a tile has.
    ///
    /// # Safety
    ///
    /// Each row has the groups.
    unsafe fn columns<const Q: usize, const G: usize>(
        rows: &[&[Group]],
        group: usize,
        weights: &[[i16; TILE]; Q],
    ) -> [[[i32; GROUP]; G]; Q];

    /// Products to scores, scores to weights, weights to steps.
    #[inline(always)]
    fn weigh(tile: &mut Tile, keys: &Keys<'_>, queries: &Queries, scale: f32, partial: &mut Partial<'_>) {
        tile.weigh(keys, queries, scale, partial);
    }
}

/// Fills `partial` with the result over a range of keys.
pub(super) fn attend_range(
    isa: Isa,
    pages: &Pages<'_>,
    keys: Range<usize>,
    queries: &Queries,
    scale: f32,
    partial: &mut Partial<'_>,
) {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn on_avx2(
        pages: &Pages<'_>,
        keys: Range<usize>,
        queries: &Queries,
        scale: f32,
        partial: &mut Partial<'_>,
    ) {
        range_body::<avx2::Avx2>(pages, keys, queries, scale, partial);
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    fn on_vnni(
        pages: &Pages<'_>,
        keys: Range<usize>,
        queries: &Queries,
        scale: f32,
        partial: &mut Partial<'_>,
    ) {
        range_body::<avx512::Avx512>(pages, keys, queries, scale, partial);
    }
    match isa {
        // SAFETY: this value of `Isa` comes from `Isa::available`, which has seen the features; VNNI is looked for.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Amx if is_x86_feature_detected!("avx512vnni") => unsafe {
            on_vnni(pages, keys, queries, scale, partial);
        },
        // SAFETY: these values of `Isa` come from `Isa::available`, which has seen the features.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 | Isa::Avx512 | Isa::Amx => unsafe { on_avx2(pages, keys, queries, scale, partial) },
        _ => range_body::<scalar::Scalar>(pages, keys, queries, scale, partial),
    }
}

/// What a tile's products go through, query by query.
struct Tile {
    /// Products of latents, and of the other numbers.
    sums: [[[i32; TILE]; QUERIES]; 2],
    scores: [[f32; TILE]; QUERIES],
    /// Weights in steps, and how large a step is.
    weights: [[i16; TILE]; QUERIES],
    steps: [f32; QUERIES],
    /// For what was summed before.
    factors: [f32; QUERIES],
}

/// Rows of a tile and their scales.
struct Keys<'a> {
    rows: [&'a [Group]; TILE],
    scales: [[f32; TILE]; 2],
    count: usize,
}

impl<'a> Keys<'a> {
    #[inline(always)]
    fn of(pages: &'a Pages<'a>, keys: Range<usize>) -> Keys<'a> {
        let count = keys.len();
        let (mut rows, mut scales): ([&[Group]; TILE], _) = ([&[]; TILE], [[0.0; TILE]; 2]);
        for (i, key) in keys.enumerate() {
            let (row, [of_latents, of_others]) = pages.integers(key);
            rows[i] = row.as_chunks().0;
            (scales[0][i], scales[1][i]) = (of_latents, of_others);
        }
        if count % 2 == 1 {
            // Keys go in pairs; the weight of this one is zero.
            rows[count] = rows[count - 1];
        }
        Keys { rows, scales, count }
    }
}

#[inline(always)]
fn range_body<P: Products>(
    pages: &Pages<'_>,
    keys: Range<usize>,
    queries: &Queries,
    scale: f32,
    partial: &mut Partial<'_>,
) {
    partial.clear();
    let mut tile = Tile {
        sums: [[[0; TILE]; QUERIES]; 2],
        scores: [[0.0; TILE]; QUERIES],
        weights: [[0; TILE]; QUERIES],
        steps: [0.0; QUERIES],
        factors: [1.0; QUERIES],
    };
    for first in keys.clone().step_by(TILE) {
        let end = keys.end.min(first + TILE);
        // Behind the last tile of a range is the first of the next, which the same thread often does.
        let mut ahead =
            super::ahead::<TILE>(pages, end..pages.keys.min(end + TILE), keys_together::<P>(), partial);
        let keys = Keys::of(pages, first..end);
        tile.multiply::<P>(&keys, queries, &mut ahead);
        P::weigh(&mut tile, &keys, queries, scale, partial);
        tile.add_values::<P>(&keys, &mut ahead, partial);
    }
}

impl Tile {
    /// All products of queries and keys.
    #[inline(always)]
    fn multiply<P: Products>(&mut self, keys: &Keys<'_>, queries: &Queries, ahead: &mut Ahead<TILE>) {
        let mut key = 0;
        while key < keys.count {
            match keys.count - key {
                WIDE_KEYS.. if P::WIDE => self.multiply_keys::<P, WIDE_KEYS>(keys, &mut key, queries, ahead),
                KEYS.. => self.multiply_keys::<P, KEYS>(keys, &mut key, queries, ahead),
                _ => self.multiply_keys::<P, 1>(keys, &mut key, queries, ahead),
            }
        }
    }

    /// All products of queries with `K` keys, behind which `key` stands then.
    #[inline(always)]
    fn multiply_keys<P: Products, const K: usize>(
        &mut self,
        keys: &Keys<'_>,
        key: &mut usize,
        queries: &Queries,
        ahead: &mut Ahead<TILE>,
    ) {
        let (count, mut q) = (queries.scales.len(), 0);
        while q < count {
            if count - q >= 4 {
                self.block::<P, 4, K>(keys, *key, queries, q);
                q += 4;
            } else {
                self.block::<P, 1, K>(keys, *key, queries, q);
                q += 1;
            }
            ahead.step(ahead.per_scores);
        }
        *key += K;
    }

    #[inline(always)]
    fn block<P: Products, const Q: usize, const K: usize>(
        &mut self,
        keys: &Keys<'_>,
        key: usize,
        queries: &Queries,
        q: usize,
    ) {
        let (latents, others) = queries.of::<Q>(q);
        let (mut row_latents, mut row_others): ([&[Group]; K], [&[Group]; K]) = ([&[]; K], [&[]; K]);
        for k in 0..K {
            row_latents[k] = &keys.rows[key + k][..queries.latents];
            row_others[k] = &keys.rows[key + k][queries.others_first..];
        }
        let (of_latents, of_others) = (P::dots(latents, row_latents), P::dots(others, row_others));
        for i in 0..Q {
            self.sums[0][q + i][key..key + K].copy_from_slice(&of_latents[i]);
            self.sums[1][q + i][key..key + K].copy_from_slice(&of_others[i]);
        }
    }

    /// Products to scores, scores to weights, weights to steps.
    #[inline(always)]
    fn weigh(&mut self, keys: &Keys<'_>, queries: &Queries, scale: f32, partial: &mut Partial<'_>) {
        for (q, [of_latents, of_others]) in queries.scales.iter().enumerate() {
            let scores = &mut self.scores[q];
            for key in 0..TILE {
                let latents = self.sums[0][q][key] as f32 * (of_latents * keys.scales[0][key]);
                scores[key] = (self.sums[1][q][key] as f32).mul_add(of_others * keys.scales[1][key], latents);
            }
            let weights = &mut scores[..keys.count];
            self.factors[q] = weigh::<false, TILE>(weights, scale, &mut partial.max[q], &mut partial.sum[q]);
            self.steps[q] = in_steps(scores, keys, &mut self.weights[q]);
        }
    }

    /// `values[q] = factors[q] * values[q] + steps[q] * Σ weights[q][key] rows[key]`.
    #[inline(always)]
    fn add_values<P: Products>(&self, keys: &Keys<'_>, ahead: &mut Ahead<TILE>, partial: &mut Partial<'_>) {
        let len = partial.value_len();
        let rows = &keys.rows[..keys.count.next_multiple_of(2)];
        assert!(
            len.is_multiple_of(GROUP) && rows.iter().all(|row| row.len() >= len / GROUP),
            "{len} numbers"
        );
        let (groups, mut group) = (len / GROUP, 0);
        while group < groups {
            group += match groups - group {
                2.. if P::WIDE => self.add_groups::<P, 2>(rows, group, ahead, partial),
                _ => self.add_groups::<P, 1>(rows, group, ahead, partial),
            };
        }
    }

    /// `G` groups of all queries' values; `G`. Every row has them.
    #[inline(always)]
    fn add_groups<P: Products, const G: usize>(
        &self,
        rows: &[&[Group]],
        group: usize,
        ahead: &mut Ahead<TILE>,
        partial: &mut Partial<'_>,
    ) -> usize {
        let (queries, len, mut q) = (partial.max.len(), partial.value_len(), 0);
        while q < queries {
            let values = &mut partial.values[q * len + group * GROUP..];
            // SAFETY: every row has the groups, as `add_values` has asserted.
            let done = unsafe {
                match queries - q {
                    8.. if P::WIDE => self.value_block::<P, 8, G>(rows, group, q, values, len),
                    8 | 4 | 5 => self.value_block::<P, 4, G>(rows, group, q, values, len),
                    6.. => self.value_block::<P, 6, G>(rows, group, q, values, len),
                    2 | 3 => self.value_block::<P, 2, G>(rows, group, q, values, len),
                    _ => self.value_block::<P, 1, G>(rows, group, q, values, len),
                }
            };
            // With fewer instructions for each row, the next ones are looked at in time.
            if !P::WIDE {
                ask_for_groups(&rows[rows.len() * q / queries..rows.len() * (q + done) / queries], group);
            }
            ahead.step(ahead.per_values * G * done.div_ceil(VALUES_TOGETHER));
            q += done;
        }
        G
    }

    /// Some queries, all sums in registers; how many.
    ///
    /// # Safety
    /// Each row has the groups.
    #[inline(always)]
    unsafe fn value_block<P: Products, const Q: usize, const G: usize>(
        &self,
        rows: &[&[Group]],
        group: usize,
        q: usize,
        values: &mut [f32],
        stride: usize,
    ) -> usize {
        let Some(weights) = self.weights[q..].first_chunk::<Q>() else { return Q };
        // SAFETY: promised by the caller.
        let sums = unsafe { P::columns::<Q, G>(rows, group, weights) };
        for i in 0..Q {
            let (step, factor) = (self.steps[q + i], self.factors[q + i]);
            let values = &mut values[i * stride..][..G * GROUP];
            for (values, sums) in values.as_chunks_mut::<GROUP>().0.iter_mut().zip(&sums[i]) {
                for l in 0..GROUP {
                    values[l] = (sums[l] as f32).mul_add(step, factor * values[l]);
                }
            }
        }
        Q
    }
}

/// Most keys whose products are in registers together.
const fn keys_together<P: Products>() -> usize {
    if P::WIDE { WIDE_KEYS } else { KEYS }
}

/// Weights times the scales of their keys' latents, in steps; how large a step is. What is not a number makes the step none.
#[inline(always)]
fn in_steps(weights: &[f32; TILE], keys: &Keys<'_>, steps: &mut [i16; TILE]) -> f32 {
    let mut scaled = [0.0; TILE];
    for key in 0..keys.count {
        scaled[key] = weights[key] * keys.scales[0][key];
    }
    let (mut largest, mut sums) = ([0.0f32; REGISTER], [0.0f32; REGISTER]);
    for group in scaled.as_chunks::<REGISTER>().0 {
        for l in 0..REGISTER {
            largest[l] = if group[l] > largest[l] { group[l] } else { largest[l] };
            sums[l] += group[l];
        }
    }
    // Not `f32::max`: rustc 1.95 makes of it, here, the maximum of five lanes (LOG.md).
    let largest = largest.into_iter().reduce(|a, b| if b > a { b } else { a }).unwrap_or(0.0);
    let (step, inverse) = step_of(largest, sums);
    for (steps, scaled) in steps.iter_mut().zip(scaled) {
        *steps = nearest(scaled * inverse) as i16;
    }
    step
}

/// How large a step is for scaled weights of which this is the largest, and these the sums by lanes; its inverse.
#[inline(always)]
fn step_of(largest: f32, sums: [f32; REGISTER]) -> (f32, f32) {
    let sum = sums.into_iter().reduce(|a, b| a + b).unwrap_or(0.0);
    let step = (largest / MOST_STEPS).max(sum / STEPS) + sum * 0.0;
    (step, if step >= f32::MIN_POSITIVE { 1.0 / step } else { 0.0 })
}

/// Asks for the cache line behind a group's, where the group is the last of its own: group by group numbers are a row apart,
/// which hardware does not foresee.
#[inline(always)]
fn ask_for_groups(rows: &[&[Group]], group: usize) {
    if group.is_multiple_of(2) {
        for row in rows {
            prefetch(row.as_ptr().wrapping_add(group + 2).cast(), size_of::<[Group; 2]>());
        }
    }
}
