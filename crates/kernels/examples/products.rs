//! How close `y = x Wᵀ` comes to the machine: bytes of weights per second for one row, operations per
//! second for many, for every format, beside the read bandwidth and the multiply-add rate of this run.
//!
//!     cargo run --release -p k2-kernels --example products [threads [format]]

#![allow(clippy::expect_used)] // the shapes stand here

use k2_kernels::matmul::matmul;
use k2_kernels::matrix::{FP8_BLOCK, ScaleInv, Storage};
use k2_kernels::{GgmlType, Matrix, Pool};
use std::hint::black_box;
use std::time::Instant;

/// An expert of Kimi K2 is `[2048, 7168]`.
const SHAPE: (usize, usize) = (2048, 7168);

/// Matrices are used in turn until they are larger than any cache.
const WORKING_SET: usize = 400 << 20;

fn main() {
    let threads = std::env::args().nth(1).and_then(|n| n.parse().ok());
    let pool = threads.map_or_else(Pool::for_this_machine, Pool::new);
    let bandwidth = read_bandwidth(&pool);
    println!(
        "{} threads, read bandwidth {:.1} GB/s, {:?}",
        pool.threads(),
        bandwidth / 1e9,
        k2_kernels::isa::isa()
    );
    println!(
        "{:8} {:>10} {:>8} {:>9} {:>9} {:>9}",
        "format", "1 row", "share", "4 rows", "16 rows", "256 rows"
    );
    println!("{:8} {:>10} {:>8} {:>9} {:>9} {:>9}", "", "GB/s", "", "GOP/s", "GOP/s", "GOP/s");
    let wanted = std::env::args().nth(2);
    for (name, storage) in formats() {
        if wanted.as_deref().is_some_and(|wanted| wanted != name) {
            continue;
        }
        let matrices = matrices(storage);
        let one = best_of(3, || run(&pool, &matrices, 1, WORKING_SET / matrices[0].stored_bytes()));
        let bytes = matrices[0].stored_bytes() as f64 / one;
        print!("{name:8} {:10.1} {:7.0}%", bytes / 1e9, bytes / bandwidth * 100.0);
        for rows in [4, 16, 256] {
            let seconds = best_of(3, || run(&pool, &matrices, rows, (256 / rows).clamp(2, 16)));
            print!(" {:9.0}", 2.0 * (SHAPE.0 * SHAPE.1 * rows) as f64 / seconds / 1e9);
        }
        println!();
    }
}

/// Seconds per product.
fn run(pool: &Pool, matrices: &[Matrix], rows: usize, products: usize) -> f64 {
    let x: Vec<f32> = (0..rows * SHAPE.1).map(|i| (i % 17) as f32 * 0.1 - 0.8).collect();
    let mut y = vec![0.0; rows * SHAPE.0];
    let start = Instant::now();
    for i in 0..products {
        matmul(pool, &matrices[i % matrices.len()], &x, &mut y);
    }
    black_box(y);
    start.elapsed().as_secs_f64() / products as f64
}

fn best_of(times: usize, mut run: impl FnMut() -> f64) -> f64 {
    (0..times).map(|_| run()).fold(f64::INFINITY, f64::min)
}

/// Bytes per second of summing a large array with all threads.
fn read_bandwidth(pool: &Pool) -> f64 {
    let words = vec![1u64; WORKING_SET / 8];
    let piece = words.len() / 256;
    let seconds = best_of(5, || {
        let start = Instant::now();
        pool.run(256, |task| {
            black_box(words[task * piece..][..piece].iter().fold(0u64, |sum, word| sum.wrapping_add(*word)));
        });
        start.elapsed().as_secs_f64()
    });
    (piece * 256 * 8) as f64 / seconds
}

/// Makes so many numbers in one format.
type Make = fn(usize) -> Storage;

fn formats() -> Vec<(&'static str, Make)> {
    fn ggml(kind: GgmlType, numbers: usize) -> Storage {
        // Zero scales: the numbers do not matter to the time, and NaN would be slow on some machines.
        Storage::Ggml { kind, blocks: vec![0; numbers / kind.block_len() * kind.block_bytes()].into() }
    }
    vec![
        ("F32", |n| Storage::F32(vec![0; 4 * n].into())),
        ("BF16", |n| Storage::Bf16(vec![0; 2 * n].into())),
        ("FP8", |n| {
            let scale_inv = ScaleInv::F32(vec![0; n / FP8_BLOCK / FP8_BLOCK * 4].into());
            Storage::Fp8 { weight: vec![0; n].into(), scale_inv, first_row: 0 }
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

fn matrices(storage: Make) -> Vec<Matrix> {
    let make = || Matrix::new(SHAPE.0, SHAPE.1, storage(SHAPE.0 * SHAPE.1)).expect("whole blocks");
    let first = make();
    let count = WORKING_SET / first.stored_bytes();
    std::iter::once(first).chain((1..count).map(|_| make())).collect()
}
