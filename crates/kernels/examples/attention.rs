//! How close attention over latents comes to the machine's f32 arithmetic: one token deep in a sequence, and the
//! rows of a prompt, with the heads of a small model and of Kimi K2.
//!
//!     cargo run --release -p k2-kernels --example attention [threads [keys]]

use k2_kernels::Pool;
use k2_kernels::attention::{AttentionScratch, Pages, Row, Shape, attend};
use k2_kernels::limits::Limits;
use std::hint::black_box;
use std::time::Instant;

const PAGE: usize = 32;

fn main() {
    let argument = |n| std::env::args().nth(n).and_then(|text| text.parse().ok());
    let pool = argument(1).map_or_else(Pool::for_this_machine, Pool::new);
    let keys = argument(2).unwrap_or(4096);
    let limits = Limits::measure(&pool);
    println!("{} threads, {keys} keys; f32 {:.0} GOP/s", pool.threads(), limits.f32_operations / 1e9);
    for (heads, rows) in [(16, 1), (64, 1), (16, 64), (64, 16)] {
        let shape = Shape { heads, width: 576, value_len: 512, scale: 0.1 };
        // Several layers in turn, as in a model: more than the caches hold.
        let layers: Vec<Vec<f32>> =
            (0..8).map(|layer| vec![0.01 * layer as f32; keys * shape.width]).collect();
        let seconds = (0..5).map(|_| once(&pool, &shape, rows, keys, &layers)).fold(f64::INFINITY, f64::min);
        let operations = (2 * rows * heads * keys * (shape.width + shape.value_len)) as f64;
        let share = operations / seconds / limits.f32_operations;
        println!(
            "{heads:3} heads, {rows:3} rows: {:7.1} GOP/s, {:3.0} %",
            operations / seconds / 1e9,
            share * 100.0
        );
    }
}

/// Seconds of one layer.
fn once(pool: &Pool, shape: &Shape, rows: usize, keys: usize, layers: &[Vec<f32>]) -> f64 {
    let query = vec![0.5; rows * shape.heads * shape.width];
    let mut out = vec![0.0; rows * shape.heads * shape.value_len];
    let mut scratch = AttentionScratch::default();
    let start = Instant::now();
    for layer in layers {
        let pages = layer.chunks(PAGE * shape.width).collect();
        let pages = Pages { pages, page_len: PAGE, width: shape.width, keys };
        attend(pool, shape, &vec![Row { pages: &pages, keys }; rows], &query, &mut scratch, &mut out);
    }
    black_box(&out);
    start.elapsed().as_secs_f64() / layers.len() as f64
}
