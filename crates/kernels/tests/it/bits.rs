//! The same bits for a token whoever shares its batch, whatever the threads, however the rows were cut.

use k2_kernels::matmul::{matmul, matmul_heads, matmul_heads_transposed};
use k2_kernels::nodes::Nodes;
use k2_kernels::{Matrix, Pool, Precision};
use proptest::{prelude::*, sample::select};
use std::thread;

use crate::fast::product as fast;
use crate::matrices::Format;
use crate::random::Random;

type Product = fn(&Pool, &Matrix, &[f32]) -> Vec<f32>;

/// How many heads the rows of a matrix are in these tests.
const HEADS: usize = 2;

/// The products, and what one token of their inputs measures.
fn products(w: &Matrix) -> [(&'static str, usize, Product); 5] {
    [
        ("plain", w.cols(), |pool, w, x| {
            let mut y = vec![f32::NAN; x.len() / w.cols() * w.rows()];
            matmul(pool, w, x, &mut y);
            y
        }),
        ("heads", HEADS * w.cols(), |pool, w, x| {
            let rows = w.rows() / HEADS / 3..w.rows() / HEADS;
            let mut y = vec![f32::NAN; x.len() / w.cols() * rows.len()];
            matmul_heads(pool, w, HEADS, rows, x, &mut y);
            y
        }),
        ("fast", w.cols(), |pool, w, x| fast(pool, Precision::Fast, w, 1, 0..w.rows(), x)),
        ("fast heads", HEADS * w.cols(), |pool, w, x| {
            fast(pool, Precision::Fast, w, HEADS, w.rows() / HEADS / 3..w.rows() / HEADS, x)
        }),
        ("transposed", w.rows(), |pool, w, x| {
            let mut y = vec![f32::NAN; x.len() / w.rows() * HEADS * w.cols()];
            matmul_heads_transposed(pool, w, HEADS, 0..w.rows() / HEADS, x, &mut y);
            y
        }),
    ]
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|number| number.to_bits()).collect()
}

/// Each token alone, then in a batch in another order, between strangers that are not even numbers.
fn check_batches(w: &Matrix, tokens: usize, random: &mut Random) {
    let pool = Pool::new(2);
    for (name, width, product) in products(w) {
        let x = random.floats(tokens * width);
        let alone: Vec<Vec<u32>> = x.chunks_exact(width).map(|x| bits(&product(&pool, w, x))).collect();
        let order = random.permutation(tokens);
        let (mut batch, mut places) = (Vec::new(), Vec::new());
        for token in order {
            if random.below(4) == 0 {
                batch.extend((0..width).map(|_| [f32::NAN, f32::INFINITY, 1e38][random.below(3)]));
            }
            places.push((token, batch.len() / width));
            batch.extend(&x[token * width..][..width]);
        }
        let together = bits(&product(&pool, w, &batch));
        for (token, place) in places {
            let len = alone[token].len();
            assert!(alone[token] == together[place * len..][..len], "{name}: token {token} at {place}");
        }
    }
}

fn check_threads(w: &Matrix, tokens: usize, random: &mut Random) {
    for (name, width, product) in products(w) {
        let x = random.floats(tokens * width);
        let one = bits(&product(&Pool::new(1), w, &x));
        for threads in [2, 3, 7] {
            assert!(one == bits(&product(&Pool::new(threads), w, &x)), "{name}, {threads} threads");
        }
        for nodes in [2, 3] {
            let pool = Pool::on(&Nodes::pretended(nodes), 5);
            assert!(one == bits(&product(&pool, w, &x)), "{name}, {nodes} nodes");
        }
    }
}

/// Slices begin inside a block of FP8 scales, too; a slice of a slice is one of the whole.
fn check_slices(w: &Matrix, tokens: usize, random: &mut Random) {
    let pool = Pool::new(1);
    let [exact, _, fast, ..] = products(w);
    let (_, width, product) = [exact, fast][random.below(2)];
    let x = random.floats(tokens * width);
    let whole = bits(&product(&pool, w, &x));
    let first = random.below(w.rows());
    let last = first + 1 + random.below(w.rows() - first);
    let outer = random.below(first + 1);
    let slice = w.slice_rows(outer..w.rows()).slice_rows(first - outer..last - outer);
    let part = bits(&product(&pool, &slice, &x));
    for (token, part) in part.chunks_exact(last - first).enumerate() {
        assert!(*part == whole[token * w.rows()..][first..last], "rows {first}..{last} of {}", w.rows());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn products_of_a_token_do_not_depend_on_company(
        format in select(Format::all()),
        (rows, cols, tokens) in (1..100usize, 1..600usize, 1..=40usize),
        seed: u64,
    ) {
        let mut random = Random(seed);
        let w = format.matrix(&mut random, HEADS * rows, format.whole_columns(cols));
        check_batches(&w, tokens, &mut random);
        check_threads(&w, tokens, &mut random);
        check_slices(&w, tokens, &mut random);
    }
}

#[test]
fn a_pool_may_be_used_by_several_threads() {
    let (pool, mut random) = (Pool::new(3), Random(5));
    let w = Format::Bf16.matrix(&mut random, 200, 300);
    let [(_, width, product), ..] = products(&w);
    let x = random.floats(8 * width);
    let want = bits(&product(&pool, &w, &x));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..20).for_each(|_| assert!(want == bits(&product(&pool, &w, &x)))));
        }
    });
}
