//! How close `y = x Wᵀ` comes to the machine, on the exact and on the fast path: bytes of weights per second for one
//! row, from memory and from the cache, operations per second for several, for every format, beside the read bandwidth of
//! this run. For floats also the transposed product of one row, as attention has it.
//!
//!     cargo run --release -p k2-kernels --example products [threads [ROWSxCOLS] [format...]]
//!
//! One thread is timed by the time it has a processor to itself, where the system tells (Linux): so a busy machine
//! takes little from the figures.

#![allow(clippy::expect_used)] // the shapes stand here

mod clock;

use bytes::Bytes;
use clock::seconds_per_round;
use k2_kernels::coded_bf16::code;
use k2_kernels::dtype::f32_to_bf16;
use k2_kernels::interleaved::interleave;
use k2_kernels::matmul::{Product, matmul_heads_transposed, products};
use k2_kernels::matrix::{FP8_BLOCK, ScaleInv, Storage};
use k2_kernels::{GgmlType, Inputs, Matrix, Pool, Precision};
use std::hint::black_box;

/// An expert of Kimi K2: where no shape is named.
const SHAPE: (usize, usize) = (2048, 7168);

/// `kv_b_proj` has heads of 256 rows, the first half of which go transposed to queries.
const HEAD: (usize, usize) = (256, 512);

/// Matrices are used in turn until they are larger than any cache.
const WORKING_SET: usize = 400 << 20;

/// Rows of activations, beside one.
const ROWS: [usize; 6] = [2, 4, 8, 16, 128, 512];

fn main() {
    let threads = std::env::args().nth(1).and_then(|n| n.parse().ok());
    let pool = threads.map_or_else(Pool::for_this_machine, Pool::new);
    println!("{} threads, {:?}", pool.threads(), k2_kernels::isa::isa());
    println!(
        "{:15} {:>6} {:>6} {:>6} {:>6}{}",
        "",
        "1 row",
        "reads",
        "share",
        "cached",
        ROWS.map(|n| format!("{n:>8}")).concat()
    );
    let operations = "   GOP/s".repeat(ROWS.len());
    println!("{:15} {:>6} {:>6} {:>6} {:>6}{operations}", "", "GB/s", "GB/s", "", "GB/s");
    let mut wanted: Vec<String> = std::env::args().skip(2).collect();
    let named = wanted.first().and_then(|first| first.split_once('x'));
    let named = named.and_then(|(rows, cols)| Some((rows.parse().ok()?, cols.parse().ok()?)));
    let shape = named.unwrap_or(SHAPE);
    wanted.drain(..usize::from(named.is_some()));
    for (name, storage) in formats() {
        if !wanted.is_empty() && !wanted.iter().any(|wanted| wanted == name) {
            continue;
        }
        let mut whole = matrices(storage, shape);
        for precision in [Precision::Exact, Precision::Fast] {
            print_row(&pool, &format!("{name:8} {precision:?}"), precision, &whole);
        }
        interleave(&pool, &mut whole.iter_mut().collect::<Vec<_>>());
        code(&pool, &mut whole.iter_mut().collect::<Vec<_>>());
        match whole[0].storage() {
            Storage::Interleaved { .. } => {
                print_row(&pool, &format!("{name:8} panels"), Precision::Fast, &whole);
            }
            Storage::CodedBf16 { .. } => {
                print_row(&pool, &format!("{name:8} coded"), Precision::Fast, &whole);
            }
            _ => {}
        }
        if ["F32", "BF16", "FP8"].contains(&name) {
            drop(whole);
            print_transposed(&pool, name, &matrices(storage, (shape.0 * shape.1 / HEAD.1, HEAD.1)));
        }
    }
}

fn print_transposed(pool: &Pool, name: &str, matrices: &[Matrix]) {
    let heads = matrices[0].rows() / HEAD.0;
    let (x, mut y) = (vec![0.5; heads * HEAD.0 / 2], vec![0.0; heads * HEAD.1]);
    let mut once = |round: usize| {
        let w = &matrices[round % matrices.len()];
        matmul_heads_transposed(pool, w, heads, 0..HEAD.0 / 2, &x, &mut y);
    };
    let seconds = best_of(3, || seconds_per_round(pool, &mut once));
    black_box(y);
    println!("{name:8} turned {:6.1}", matrices[0].stored_bytes() as f64 / 2.0 / seconds / 1e9);
}

/// Product and plain reading in turns, because neighbours on the machine move both.
fn print_row(pool: &Pool, label: &str, precision: Precision, matrices: &[Matrix]) {
    let (mut one, mut reads) = (f64::INFINITY, 0f64);
    for _ in 0..3 {
        reads = reads.max(read_bandwidth(pool));
        one = one.min(run(pool, precision, matrices, 1));
    }
    let bytes = matrices[0].stored_bytes() as f64 / one;
    print!("{label:15} {:6.1} {:6.1} {:5.0}%", bytes / 1e9, reads / 1e9, bytes / reads * 100.0);
    let cached = best_of(3, || run(pool, precision, &matrices[..1], 1));
    print!(" {:6.1}", matrices[0].stored_bytes() as f64 / cached / 1e9);
    let numbers = matrices[0].rows() * matrices[0].cols();
    for rows in ROWS {
        let seconds = best_of(3, || run(pool, precision, matrices, rows));
        print!("{:8.0}", 2.0 * (numbers * rows) as f64 / seconds / 1e9);
    }
    println!();
}

/// Seconds per product, the preparation of the activations included: as many as take longer than the clock is coarse.
fn run(pool: &Pool, precision: Precision, matrices: &[Matrix], rows: usize) -> f64 {
    let (outputs, cols) = (matrices[0].rows(), matrices[0].cols());
    let x: Vec<f32> = (0..rows * cols).map(|i| (i % 17) as f32 * 0.1 - 0.8).collect();
    let (mut y, mut inputs) = (vec![0.0; rows * outputs], Inputs::default());
    let seconds = seconds_per_round(pool, |round| {
        let w = &matrices[round % matrices.len()];
        inputs.set(pool, precision, [w].into_iter(), 1, &x);
        products(pool, &inputs, [Product::new(w, &mut y)]);
    });
    black_box(y);
    seconds
}

fn best_of(times: usize, mut run: impl FnMut() -> f64) -> f64 {
    (0..times).map(|_| run()).fold(f64::INFINITY, f64::min)
}

/// Bytes per second of summing a large array with all threads.
fn read_bandwidth(pool: &Pool) -> f64 {
    let words = vec![1u64; WORKING_SET / 8];
    let piece = words.len() / 256;
    let seconds = seconds_per_round(pool, |_| {
        pool.run(256, |task| {
            let words = &words[task * piece..][..piece];
            black_box(words.iter().fold(0u64, |sum, word| sum.wrapping_add(*word)));
        });
    });
    (piece * 256 * 8) as f64 / seconds
}

/// What weights are filled with: of zeros, the system would give the same page again and again. In every format it
/// makes small numbers and scales, none of them subnormal.
const FILL: u8 = 0x11;

/// Makes so many numbers in one format.
type Make = fn(usize) -> Storage;

fn formats() -> Vec<(&'static str, Make)> {
    fn ggml(kind: GgmlType, numbers: usize) -> Storage {
        Storage::Ggml { kind, blocks: vec![FILL; numbers / kind.block_len() * kind.block_bytes()].into() }
    }
    vec![
        ("F32", |n| Storage::F32(vec![FILL; 4 * n].into())),
        ("BF16", |n| Storage::Bf16(weights(n))),
        ("FP8", |n| {
            // All codes but those of NaN, and the subnormal ones, which are slower: a model has one in thousands.
            let rare = |code: u8| code & 0x7f == 0x7f || code & 0x78 == 0;
            let codes = (0..n).map(|i| (97 * i) as u8).map(|code| if rare(code) { FILL } else { code });
            let scale_inv = ScaleInv::F32(vec![FILL; n / FP8_BLOCK / FP8_BLOCK * 4].into());
            Storage::Fp8 { weight: codes.collect(), scale_inv, first_row: 0 }
        }),
        ("INT4", |n| Storage::Int4 { packed: vec![0x5a; n / 2].into(), scale: vec![0x3c; n / 16].into() }),
        ("Q8_0", |n| ggml(GgmlType::Q8_0, n)),
        ("Q4_0", |n| ggml(GgmlType::Q4_0, n)),
        ("Q2_K", |n| ggml(GgmlType::Q2_K, n)),
        ("Q3_K", |n| ggml(GgmlType::Q3_K, n)),
        ("Q5_0", |n| ggml(GgmlType::Q5_0, n)),
        ("Q5_K", |n| ggml(GgmlType::Q5_K, n)),
        ("IQ4_XS", |n| ggml(GgmlType::IQ4_XS, n)),
        ("MXFP4", |n| ggml(GgmlType::MXFP4, n)),
        ("Q4_K", |n| ggml(GgmlType::Q4_K, n)),
        ("Q6_K", |n| ggml(GgmlType::Q6_K, n)),
    ]
}

/// Numbers in BF16 that spread as those of a trained matrix do: sums of twelve evenly distributed ones, nearly normal.
fn weights(count: usize) -> Bytes {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(0x915f_77f5).wrapping_add(1); // Steele and Vigna, arXiv 2001.05304
        (state >> 8) as f32 / (1 << 24) as f32
    };
    let number = |_| f32_to_bf16(0.02 * ((0..12).map(|_| next()).sum::<f32>() - 6.0)).to_le_bytes();
    (0..count).flat_map(number).collect()
}

fn matrices(storage: Make, (rows, cols): (usize, usize)) -> Vec<Matrix> {
    let make = || Matrix::new(rows, cols, storage(rows * cols)).expect("whole blocks");
    let first = make();
    let count = WORKING_SET / first.stored_bytes();
    std::iter::once(first).chain((1..count).map(|_| make())).collect()
}
