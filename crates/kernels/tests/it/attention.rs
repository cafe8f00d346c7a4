//! Attention over random pages against the formula in f64, and its bits against other pages, heads, company and
//! threads.

use k2_kernels::Pool;
use k2_kernels::attention::{AttentionScratch, Pages, Row, Shape, attend};
use proptest::prelude::*;

use crate::random::Random;
use crate::stored::CacheFormat;

/// The rows of a sequence and what asks for them.
struct Case {
    heads: usize,
    width: usize,
    keys: usize,
    value_len: usize,
    scale: f32,
    rows: Vec<f32>,
    query: Vec<f32>,
}

impl Case {
    fn new(heads: usize, lanes: usize, keys: usize, scale: f32, random: &mut Random) -> Case {
        let width = 16 * lanes;
        let (rows, query) = (random.floats(keys * width), random.floats(heads * width));
        Case { heads, width, keys, value_len: 1 + random.below(width), scale, rows, query }
    }

    /// Attends over the rows laid out in pages of a cache that holds NaN wherever it may not be read.
    fn attend(&self, format: CacheFormat, page_len: usize, query: &[f32], random: &mut Random) -> Vec<f32> {
        let pages = self.keys.div_ceil(page_len);
        let block_table = random.permutation(pages + 3);
        let mut cache = vec![f32::NAN; block_table.len() * page_len * self.width];
        for (key, row) in self.rows.chunks_exact(self.width).enumerate() {
            let at = (block_table[key / page_len] * page_len + key % page_len) * self.width;
            cache[at..at + self.width].copy_from_slice(row);
        }
        let (cache, page_numbers) = (format.store(&cache), page_len * self.width);
        let page = |block: &usize| cache.page(block * page_numbers, page_numbers);
        let pages = Pages {
            pages: block_table[..pages].iter().map(page).collect(),
            page_len,
            width: self.width,
            keys: self.keys,
        };
        // The row in company: others of the same sequence see less of it.
        let company: Vec<usize> = (0..random.below(4)).map(|_| 1 + random.below(self.keys)).collect();
        let place = random.below(company.len() + 1);
        let (heads, mut rows) = (query.len() / self.width, Vec::new());
        for keys in company[..place].iter().chain([&self.keys]).chain(&company[place..]) {
            rows.push(Row { pages: &pages, keys: *keys });
        }
        let mut queries = random.floats(rows.len() * query.len());
        queries[place * query.len()..][..query.len()].copy_from_slice(query);
        let shape = Shape { heads, width: self.width, value_len: self.value_len, scale: self.scale };
        let mut out = vec![f32::NAN; rows.len() * heads * self.value_len];
        let pool = Pool::new(1 + random.below(3));
        attend(&pool, &shape, &rows, &queries, &mut AttentionScratch::default(), &mut out);
        out[place * heads * self.value_len..][..heads * self.value_len].to_vec()
    }

    /// The rows as they are once they have been stored.
    fn rounded(&self, format: CacheFormat) -> Case {
        Case { rows: format.round(&self.rows), query: self.query.clone(), ..*self }
    }

    /// softmax(scale q kᵀ) v, and by how much the largest score may be rounded.
    fn naive(&self, head: usize) -> (Vec<f64>, f64) {
        let query = &self.query[head * self.width..][..self.width];
        let terms = |row: &[f32]| -> Vec<f64> {
            row.iter()
                .zip(query)
                .map(|(k, q)| f64::from(self.scale) * f64::from(*k) * f64::from(*q))
                .collect()
        };
        let rows = || self.rows.chunks_exact(self.width);
        let scores: Vec<f64> = rows().map(|row| terms(row).iter().sum()).collect();
        let size = rows().map(|row| terms(row).iter().map(|term| term.abs()).sum()).fold(0.0, f64::max);
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = scores.iter().map(|score| (score - max).exp()).sum();
        let mut out = vec![0.0; self.value_len];
        for (row, score) in rows().zip(&scores) {
            out.iter_mut().zip(row).for_each(|(out, v)| *out += (score - max).exp() / total * f64::from(*v));
        }
        (out, size * (self.width / 8 + 8) as f64 * f64::from(f32::EPSILON))
    }
}

fn check(case: &Case, page_len: usize, random: &mut Random) {
    let found = case.attend(CacheFormat::F32, page_len, &case.query, random);
    for (head, found) in found.chunks_exact(case.value_len).enumerate() {
        let (want, rounding) = case.naive(head);
        // Values are below one: a weight that is off by a share moves the result by no more than that. One
        // rounding for each key that is added, some for the exponential and the division.
        let bound = 2.0 * rounding + (case.keys + 16) as f64 * f64::from(f32::EPSILON);
        for (i, (found, want)) in found.iter().zip(want).enumerate() {
            let off = (f64::from(*found) - want).abs();
            assert!(off <= bound, "head {head}, number {i}: {found}, expected {want} +- {bound:e}");
        }
    }
    let bits = |numbers: &[f32]| numbers.iter().map(|n| n.to_bits()).collect::<Vec<_>>();
    let other_pages = case.attend(CacheFormat::F32, 1 + random.below(40), &case.query, random);
    assert!(bits(&found) == bits(&other_pages), "pages of {page_len} and others");
    let head = random.below(case.heads);
    let alone =
        case.attend(CacheFormat::F32, page_len, &case.query[head * case.width..][..case.width], random);
    assert!(bits(&found[head * case.value_len..][..case.value_len]) == bits(&alone), "head {head} alone");
    for format in CacheFormat::widened(case.width) {
        let widened_before = case.rounded(*format).attend(CacheFormat::F32, page_len, &case.query, random);
        let widened_as_read = case.attend(*format, page_len, &case.query, random);
        assert!(bits(&widened_before) == bits(&widened_as_read), "{format:?}");
    }
}

/// 16-bit rows are multiplied as integers. Rows and queries that have been rounded before, in f64, give the same but for
/// what f32 rounds and for half a step of each weight, of which a tile's have at least 32,767 together.
fn check_integers(case: &Case, page_len: usize, random: &mut Random) {
    let latent = case.value_len + random.below(case.width - case.value_len + 1);
    let format = CacheFormat::I16 { width: case.width, latent };
    let found = case.attend(format, page_len, &case.query, random);
    let rounded = Case { query: format.round(&case.query), ..case.rounded(format) };
    let largest = case.rows.iter().fold(0.0f32, |largest, number| largest.max(number.abs()));
    for (head, found) in found.chunks_exact(case.value_len).enumerate() {
        let (want, rounding) = rounded.naive(head);
        let roundings = 2.0 * rounding + (case.keys + 16) as f64 * f64::from(f32::EPSILON);
        let bound = f64::from(largest) * (roundings + 64.0 / 2.0 / 32_767.0);
        for (i, (found, want)) in found.iter().zip(want).enumerate() {
            let off = (f64::from(*found) - want).abs();
            assert!(off <= bound, "head {head}, number {i}: {found}, expected {want} +- {bound:e}");
        }
    }
    let bits = |numbers: &[f32]| numbers.iter().map(|n| n.to_bits()).collect::<Vec<_>>();
    let other_pages = case.attend(format, 1 + random.below(40), &case.query, random);
    assert!(bits(&found) == bits(&other_pages), "pages of {page_len} and others");
    let head = random.below(case.heads);
    let alone = case.attend(format, page_len, &case.query[head * case.width..][..case.width], random);
    assert!(bits(&found[head * case.value_len..][..case.value_len]) == bits(&alone), "head {head} alone");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn attention_is_that_of_f64(
        (heads, lanes, page_len) in (1..=35usize, 1..=8usize, 1..=33usize),
        keys in prop_oneof![1..40usize, 1..300usize, 200..1100usize],
        scale in prop_oneof![0.01f32..1.0, 1.0f32..60.0],
        seed: u64,
    ) {
        let mut random = Random(seed);
        check(&Case::new(heads, lanes, keys, scale, &mut random), page_len, &mut random);
    }
    #[test]
    fn attention_over_integers_is_that_of_f64(
        (heads, lanes, page_len) in (1..=35usize, 1..=8usize, 1..=33usize),
        keys in prop_oneof![1..40usize, 1..300usize, 200..1100usize],
        (scale, exponent) in (prop_oneof![0.01f32..1.0, 1.0f32..60.0], -60..=60),
        numbers in 0..3,
        seed: u64,
    ) {
        let mut random = Random(seed);
        let mut case = Case::new(heads, lanes, keys, scale, &mut random);
        // All numbers of a row equally large, or all but one nothing: products, and weighted sums, come as near to 32
        // bits as they ever do.
        let width = case.width;
        for (i, number) in case.rows.iter_mut().chain(&mut case.query).enumerate() {
            *number = match numbers {
                0 => *number,
                1 => number.signum(),
                _ => f32::from(i % width == 0),
            };
        }
        case.rows.iter_mut().for_each(|number| *number *= 2f32.powi(exponent));
        case.query.iter_mut().for_each(|number| *number *= 2f32.powi(-exponent));
        check_integers(&case, page_len, &mut random);
    }
}

/// What is not a number is seen by who attends to it, and by nobody else.
#[test]
fn broken_rows_of_integers_are_seen() {
    let mut random = Random(1);
    let mut case = Case::new(3, 4, 140, 0.5, &mut random);
    let format = CacheFormat::I16 { width: 64, latent: case.value_len };
    for wrong in [f32::NAN, f32::INFINITY] {
        for number in [0, 63] {
            case.rows[70 * 64 + number] = wrong;
            // The tile of 64 rows that it lies in is whole, is not, or is not seen.
            for (keys, is_finite) in [(140, false), (100, false), (70, true)] {
                let rows = case.rows[..keys * 64].to_vec();
                let found = Case { keys, rows, query: case.query.clone(), ..case }.attend(
                    format,
                    7,
                    &case.query,
                    &mut random,
                );
                assert!(
                    found.iter().all(|number| number.is_finite() == is_finite),
                    "{wrong} at {number}, {keys} keys"
                );
            }
            case.rows[70 * 64 + number] = 1.0;
        }
    }
}
