//! The products against sums in f64, for every format.

use k2_kernels::Pool;
use k2_kernels::matmul::{matmul, matmul_heads, matmul_heads_transposed};
use proptest::{prelude::*, sample::select};
use std::ops::Range;

use crate::matrices::{Format, numbers};
use crate::random::Random;

/// One product with a matrix of `heads` groups of rows, of each group those in `rows`.
#[derive(Debug)]
struct Case {
    format: Format,
    heads: usize,
    group: usize,
    rows: Range<usize>,
    cols: usize,
    tokens: usize,
    seed: u64,
}

fn case() -> impl Strategy<Value = Case> {
    let sizes = (1..5usize, 1..60usize, 1..700usize, 1..=40usize);
    (select(Format::all()), sizes, any::<u64>()).prop_map(|(format, (heads, group, cols, tokens), seed)| {
        let mut random = Random(seed);
        let start = random.below(group);
        let rows = start..start + 1 + random.below(group - start);
        Case { format, heads, group, rows, cols: format.whole_columns(cols), tokens, seed }
    })
}

/// A sum in f64 with the sum of its terms' sizes: what rounding errors are measured by.
#[derive(Clone, Copy, Default)]
struct Sum {
    value: f64,
    size: f64,
}

impl Sum {
    fn add(&mut self, a: f32, b: f64) {
        self.value += f64::from(a) * b;
        self.size += (f64::from(a) * b).abs();
    }
}

/// Every output within the worst that `roundings` roundings in a row can do to each term.
fn check(found: &[f32], want: &[Sum], roundings: usize, what: impl std::fmt::Debug) {
    assert_eq!(found.len(), want.len());
    for (i, (found, want)) in found.iter().zip(want).enumerate() {
        let bound =
            want.size * roundings as f64 * f64::from(f32::EPSILON) / 2.0 + f64::from(f32::MIN_POSITIVE);
        let off = (f64::from(*found) - want.value).abs();
        assert!(off <= bound, "{what:?}: output {i} is {found}, expected {} +- {bound:e}", want.value);
    }
}

/// Widening, two roundings; a lane, one per element; joining the lanes, four.
fn check_product(case: &Case) {
    let Case { format, heads, group, ref rows, cols, tokens, seed } = *case;
    let mut random = Random(seed);
    let w = format.matrix(&mut random, heads * group, cols);
    let (weights, x) = (numbers(&w), random.floats(tokens * heads * cols));
    let mut want = vec![Sum::default(); tokens * heads * rows.len()];
    for (i, want) in want.iter_mut().enumerate() {
        let (token_and_head, row) = (i / rows.len(), rows.start + i % rows.len());
        let weights = &weights[(token_and_head % heads * group + row) * cols..];
        x[token_and_head * cols..][..cols].iter().zip(weights).for_each(|(x, w)| want.add(*x, *w));
    }
    let mut y = vec![f32::NAN; want.len()];
    matmul_heads(&Pool::new(2), &w, heads, rows.clone(), &x, &mut y);
    check(&y, &want, cols / 16 + 8, case);
}

/// Widening, two roundings; the sum, one per row.
fn check_transposed(case: &Case) {
    let Case { format, heads, group, ref rows, cols, tokens, seed } = *case;
    let mut random = Random(seed);
    let w = format.matrix(&mut random, heads * group, cols);
    let (weights, x) = (numbers(&w), random.floats(tokens * heads * rows.len()));
    let mut want = vec![Sum::default(); tokens * heads * cols];
    for (i, want) in want.iter_mut().enumerate() {
        let (token_and_head, col) = (i / cols, i % cols);
        for (n, row) in rows.clone().enumerate() {
            let weight = weights[(token_and_head % heads * group + row) * cols + col];
            want.add(x[token_and_head * rows.len() + n], weight);
        }
    }
    let mut y = vec![f32::NAN; want.len()];
    matmul_heads_transposed(&Pool::new(2), &w, heads, rows.clone(), &x, &mut y);
    check(&y, &want, rows.len() + 3, case);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn a_product_is_that_of_f64(case in case()) {
        check_product(&case);
    }

    #[test]
    fn a_transposed_product_is_that_of_f64(case in case()) {
        check_transposed(&case);
    }
}

/// One more and one less than a tile of columns, a block of FP8 scales, a tile of rows, a block of tokens.
#[test]
fn every_format_at_the_edges_of_its_tiles() {
    for format in Format::all() {
        for (group, cols, tokens) in [(1, 1, 1), (15, 255, 3), (17, 257, 5), (129, 129, 2), (33, 513, 65)] {
            let cols = format.whole_columns(cols);
            let case = Case { format, heads: 1, group, rows: 0..group, cols, tokens, seed: 7 };
            check_product(&case);
            check_transposed(&case);
        }
    }
}

#[test]
fn no_tokens_are_no_product() {
    let w = Format::Bf16.matrix(&mut Random(1), 3, 5);
    matmul(&Pool::new(2), &w, &[], &mut []);
    matmul_heads_transposed(&Pool::new(2), &w, 1, 0..3, &[], &mut []);
}
