//! The fast path against sums in f64 of the exact weights and of activations quantised by their definition.

use k2_kernels::matmul::{Product, products};
use k2_kernels::{Inputs, Matrix, Pool, Precision};
use proptest::{prelude::*, sample::select};
use std::ops::Range;

use crate::matrices::{Format, numbers};
use crate::random::Random;

/// Columns that share a scale.
const BLOCK: usize = 32;

/// `[T, heads, rows.len()]`.
pub(crate) fn product(
    pool: &Pool,
    precision: Precision,
    w: &Matrix,
    heads: usize,
    rows: Range<usize>,
    x: &[f32],
) -> Vec<f32> {
    let mut inputs = Inputs::default();
    inputs.set(pool, precision, [w].into_iter(), heads, x);
    let mut y = vec![f32::NAN; x.len() / w.cols() * rows.len()];
    products(pool, &inputs, [Product { w, rows, y: &mut y }]);
    y
}

/// `max |x| / 127` times the nearest whole numbers, ties to even.
fn quantised(x: &[f32]) -> Vec<f64> {
    let blocks = x.chunks(BLOCK).flat_map(|block| {
        let largest = block.iter().fold(0f32, |largest, x| largest.max(x.abs()));
        let factor = if largest == 0.0 { 0.0 } else { 127.0 / largest };
        block.iter().map(move |x| f64::from((x * factor).round_ties_even()) * f64::from(largest / 127.0))
    });
    blocks.collect()
}

/// A product in which one block of columns is not zero, so that an error in a small block shows.
fn check(format: Format, rows: usize, cols: usize, tokens: usize, seed: u64) {
    let mut random = Random(seed);
    let w = format.matrix(&mut random, rows, cols);
    let block = random.below(cols.div_ceil(BLOCK)) * BLOCK;
    let columns = block..cols.min(block + BLOCK);
    let mut x = vec![0.0; tokens * cols];
    x.chunks_exact_mut(cols).for_each(|x| x[columns.clone()].copy_from_slice(&random.floats(columns.len())));
    compare(format, &w, columns, &x);
}

/// The product of inputs that are zero outside of some columns.
fn compare(format: Format, w: &Matrix, columns: Range<usize>, x: &[f32]) -> Vec<f32> {
    let (rows, cols, weights) = (w.rows(), w.cols(), numbers(w));
    let seen =
        |x: &[f32]| if has_codes(format) { quantised(x) } else { x.iter().map(|x| f64::from(*x)).collect() };
    let y = product(&Pool::new(2), Precision::Fast, w, 1, 0..rows, x);
    for (t, x) in x.chunks_exact(cols).enumerate() {
        let x = seen(&x[columns.clone()]);
        for r in 0..rows {
            let weights = &weights[r * cols..][columns.clone()];
            let want: f64 = weights.iter().zip(&x).map(|(w, x)| w * x).sum();
            // Scale and minimum apart may be larger than the weights themselves.
            let largest = weights.iter().fold(0f64, |largest, w| largest.max(w.abs()));
            let size = 4.0 * largest * x.iter().map(|x| x.abs()).sum::<f64>();
            let bound = size * 4.0 * f64::from(f32::EPSILON) + 1e-37;
            let found = f64::from(y[t * rows + r]);
            assert!(
                (found - want).abs() <= bound,
                "{format:?} [{rows}, {cols}]: [{t}, {r}] is {found}, not {want}"
            );
        }
    }
    y
}

fn has_codes(format: Format) -> bool {
    matches!(format, Format::Int4 | Format::Ggml(_))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn a_fast_product_is_that_of_quantised_activations(
        format in select(Format::all()),
        (rows, cols, tokens) in (1..60usize, 1..900usize, 1..=40usize),
        seed: u64,
    ) {
        check(format, rows, format.whole_columns(cols), tokens, seed);
    }
}

/// One more and one less than a panel of rows and a block of tokens, for every format.
#[test]
fn every_format_at_the_edges_of_its_panels() {
    for format in Format::all() {
        for (rows, cols, tokens) in [(1, 1, 1), (7, 255, 3), (9, 257, 1), (17, 512, 33), (16, 300, 65)] {
            check(format, rows, format.whole_columns(cols), tokens, 7);
        }
    }
}

/// Codes of -128 or 127, of 0 or 15, against activations of 127 and -127: sums of products are at their largest.
#[test]
fn the_largest_codes_stay_in_range_on_every_path() {
    for format in Format::all().into_iter().filter(|format| has_codes(*format)) {
        let cols = format.whole_columns(BLOCK);
        for byte in [0x00, 0x7f, 0x80, 0xff] {
            let w = format.filled(byte, 19, cols);
            for signs in [[1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]] {
                let x: Vec<f32> = (0..cols).map(|k| signs[k % 2]).collect();
                let alone = compare(format, &w, 0..cols, &x);
                let together = compare(format, &w, 0..cols, &x.repeat(27));
                let same = |part: &[f32]| part.iter().zip(&alone).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(together.chunks_exact(19).all(same), "{format:?} of {byte:#x}");
            }
        }
    }
}

#[test]
fn a_row_that_is_not_finite_shows_and_spoils_no_other() {
    let w = Format::Int4.matrix(&mut Random(1), 20, 64);
    let mut x = Random(2).floats(2 * 64);
    x[70] = f32::INFINITY;
    let y = product(&Pool::new(1), Precision::Fast, &w, 1, 0..20, &x);
    assert!(y[..20].iter().all(|y| y.is_finite()) && y[20..].iter().all(|y| y.is_nan()));
}
