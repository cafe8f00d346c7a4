//! Attention in the decompressed form against the formula in f64, and its bits against other pages, runs, company and
//! threads.

use k2_kernels::attention::{DecompressedShape, Decompression, HeadRows, Pages, Run, attend_decompressed};
use k2_kernels::{Matrix, Pool};
use proptest::{prelude::*, sample::select};

use crate::matrices::{Format, numbers};
use crate::random::Random;
use crate::stored::CacheFormat;

/// A sequence's cached rows, and the queries of its last rows.
struct Case {
    shape: DecompressedShape,
    width: usize,
    /// Rows as computed, and as they are once they have been stored.
    computed: Vec<f32>,
    cached: Vec<f32>,
    /// Joint: each head's key rows, then its value rows. Split: key rows transposed.
    keys: Matrix,
    values: Option<Matrix>,
    start: usize,
    count: usize,
    query: Vec<f32>,
}

impl Case {
    fn weights(&self) -> Decompression<'_> {
        let rows = |w, first, is_transposed| HeadRows { w, first, is_transposed };
        match &self.values {
            None => Decompression {
                keys: rows(&self.keys, 0, false),
                values: rows(&self.keys, self.shape.key_len, false),
            },
            Some(values) => Decompression { keys: rows(&self.keys, 0, true), values: rows(values, 0, false) },
        }
    }

    /// The rows of the sequence in runs of up to `size`, with a run of somebody else's before them.
    fn attend(&self, format: CacheFormat, size: usize, random: &mut Random) -> Vec<f32> {
        let (page_len, keys) = (1 + random.below(40), self.start + self.count);
        let count = keys.div_ceil(page_len);
        let block_table = random.permutation(count + 2);
        let mut cache = vec![f32::NAN; block_table.len() * page_len * self.width];
        let rows = if format == CacheFormat::F32 { &self.cached } else { &self.computed };
        for (key, row) in rows.chunks_exact(self.width).enumerate() {
            let at = (block_table[key / page_len] * page_len + key % page_len) * self.width;
            cache[at..at + self.width].copy_from_slice(row);
        }
        let (cache, page_numbers) = (format.store(&cache), page_len * self.width);
        let page = |block: &usize| cache.page(block * page_numbers, page_numbers);
        let pages = |keys: usize| Pages {
            pages: block_table[..keys.div_ceil(page_len)].iter().map(page).collect(),
            page_len,
            width: self.width,
            keys,
        };
        let others = random.below(self.count + 1);
        let ends = (0..self.count).step_by(size).map(|first| self.count.min(first + size));
        // Behind a run's own rows nothing may be read yet.
        let seen: Vec<Pages<'_>> = ends.map(|end| pages(self.start + end)).collect();
        let mut runs = vec![Run { pages: &seen[0], start: 0, count: others.min(size), first_row: 0 }];
        for (first, pages) in (0..self.count).step_by(size).zip(&seen) {
            let count = size.min(self.count - first);
            runs.push(Run { pages, start: self.start + first, count, first_row: others + first });
        }
        let per_row = self.query.len() / self.count;
        let mut query = random.floats(others * per_row);
        query.extend_from_slice(&self.query);
        let value_row = self.shape.heads * self.shape.value_len;
        let mut out = vec![f32::NAN; (others + self.count) * value_row];
        let pool = Pool::new(1 + random.below(3));
        attend_decompressed(&pool, &self.shape, &self.weights(), &runs, &query, &mut out);
        out.split_off(others * value_row)
    }

    /// Of a head in f64: `[keys]` of key and value, and by how much a score may be rounded.
    fn naive(&self, row: usize, head: usize) -> (Vec<f64>, f64) {
        let DecompressedShape { heads, latent, key_len, shared_len, value_len, scale } = self.shape;
        let (per_key, per_value) = (numbers(&self.keys), self.values.as_ref().map(numbers));
        let joint = head * (key_len + value_len);
        let weight = |is_value: bool, r: usize, l: usize| match (&per_value, is_value) {
            (None, false) => per_key[(joint + r) * latent + l],
            (None, true) => per_key[(joint + key_len + r) * latent + l],
            (Some(_), false) => per_key[(head * latent + l) * key_len + r],
            (Some(values), true) => values[(head * value_len + r) * latent + l],
        };
        let query = &self.query[(row * heads + head) * (key_len + shared_len)..][..key_len + shared_len];
        let (mut scores, mut values, mut size) = (Vec::new(), Vec::new(), 0f64);
        for cached in self.cached.chunks_exact(self.width).take(self.start + row + 1) {
            let through =
                |is_value, r| (0..latent).map(|l| weight(is_value, r, l) * f64::from(cached[l])).sum::<f64>();
            let shared = &cached[latent..latent + shared_len];
            let key = (0..key_len).map(|r| through(false, r)).chain(shared.iter().map(|k| f64::from(*k)));
            let terms: Vec<f64> = key.zip(query).map(|(k, q)| k * f64::from(*q) * f64::from(scale)).collect();
            scores.push(terms.iter().sum::<f64>());
            size = size.max(terms.iter().map(|term| term.abs()).sum());
            values.push((0..value_len).map(|r| through(true, r)).collect::<Vec<f64>>());
        }
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = scores.iter().map(|score| (score - max).exp()).sum();
        let mut out = vec![0.0; value_len];
        for (score, value) in scores.iter().zip(&values) {
            out.iter_mut().zip(value).for_each(|(out, v)| *out += (score - max).exp() / total * v);
        }
        (out, size)
    }
}

/// The cached rows have been rounded to `stored`.
fn check(case: &Case, stored: CacheFormat, random: &mut Random) {
    let DecompressedShape { heads, latent, value_len, .. } = case.shape;
    let found = case.attend(CacheFormat::F32, case.count, random);
    // A few rows: each costs as much as all that it sees.
    for row in [0, case.count / 2, case.count - 1] {
        let head = random.below(heads);
        let (want, size) = case.naive(row, head);
        // Weights and latents are below four: roundings of a score, of a value, and of their sums.
        let rounding = size * (latent + 64) as f64 * 2.0 * f64::from(f32::EPSILON);
        let largest = 4.0 * latent as f64;
        let keys = (case.start + row + 1 + latent) as f64;
        let bound = largest * (2.0 * rounding + (keys + 16.0) * f64::from(f32::EPSILON));
        let found = &found[(row * heads + head) * value_len..][..value_len];
        for (i, (found, want)) in found.iter().zip(want).enumerate() {
            let off = (f64::from(*found) - want).abs();
            assert!(
                off <= bound,
                "row {row}, head {head}, number {i}: {found}, expected {want} +- {bound:e}"
            );
        }
    }
    let bits = |numbers: &[f32]| numbers.iter().map(|n| n.to_bits()).collect::<Vec<_>>();
    for size in [1, 1 + random.below(case.count), case.count] {
        let other = case.attend(stored, size, random);
        assert!(
            bits(&found) == bits(&other),
            "{stored:?} in runs of {size} of {} rows after {}",
            case.count,
            case.start
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn decompressed_attention_is_that_of_f64(
        (heads, key_len, shared_len, value_len) in (1..4usize, 1..40usize, 0..20usize, 1..40usize),
        latent in prop_oneof![6 => 1..70usize, 1 => 240..530usize],
        start in prop_oneof![0..3usize, 0..40usize, 200..600usize],
        count in prop_oneof![1..4usize, 1..50usize, 30..300usize],
        format in select(vec![Format::F32, Format::Bf16, Format::Int4]),
        stored in 0..4usize,
        is_split: bool,
        seed: u64,
    ) {
        let mut random = Random(seed);
        let (latent, key_len) = (format.whole_columns(latent), if is_split { format.whole_columns(key_len) } else { key_len });
        let shape = DecompressedShape { heads, latent, key_len, shared_len, value_len, scale: 0.3 / latent as f32 };
        let (keys, values) = match is_split {
            false => (format.matrix(&mut random, heads * (key_len + value_len), latent), None),
            true => (
                format.matrix(&mut random, heads * latent, key_len),
                Some(format.matrix(&mut random, heads * value_len, latent)),
            ),
        };
        let width = (latent + shared_len).next_multiple_of(32);
        let i16 = CacheFormat::I16 { width, latent };
        let stored = [CacheFormat::F32, i16, CacheFormat::Bf16, CacheFormat::Q8][stored];
        let computed = random.floats((start + count) * width);
        let cached = stored.round(&computed);
        let query = random.floats(count * heads * (key_len + shared_len));
        check(&Case { shape, width, computed, cached, keys, values, start, count, query }, stored, &mut random);
    }
}
