//! How close attention comes to the machine's f32 arithmetic: over latents in f32 and in 16-bit integers, one token deep in a
//! sequence and the rows of a prompt, with the heads of a small model and of Kimi K2; and the last rows of a prompt in the
//! decompressed form.
//!
//!     cargo run --release -p k2-kernels --example attention [threads [keys]]

#![allow(clippy::expect_used)] // the shapes stand here

mod clock;

use clock::seconds_per_round;
use k2_kernels::attention::{
    AttentionScratch, DecompressedShape, Decompression, HeadRows, Pages, Row, Run, Shape, attend,
    attend_decompressed,
};
use k2_kernels::huge_pages::Lines;
use k2_kernels::latents::{I16Rows, Latents, narrow_i16};
use k2_kernels::limits::Limits;
use k2_kernels::matrix::Storage;
use k2_kernels::{Matrix, Pool};
use std::hint::black_box;

const PAGE: usize = 32;

/// Numbers of a row that are its latent.
const LATENT: usize = 512;

fn main() {
    let argument = |n| std::env::args().nth(n).and_then(|text| text.parse().ok());
    let pool = argument(1).map_or_else(Pool::for_this_machine, Pool::new);
    let keys = argument(2).unwrap_or(4096);
    let limits = Limits::measure(&pool);
    println!("{} threads, {keys} keys; f32 {:.0} GOP/s", pool.threads(), limits.f32_operations / 1e9);
    for (heads, rows) in [(16, 1), (64, 1), (16, 64), (64, 16)] {
        let shape = Shape { heads, width: 576, value_len: LATENT, scale: 0.1 };
        // Several layers in turn, as in a model: more than the caches hold.
        let layers: Vec<Layer> = (0..8).map(|layer| Layer::new(layer, keys, shape.width)).collect();
        for in_integers in [false, true] {
            let pages: Vec<Pages<'_>> = layers.iter().map(|layer| layer.pages(in_integers)).collect();
            let seconds = (0..5).map(|_| once(&pool, &shape, rows, &pages)).fold(f64::INFINITY, f64::min);
            let operations = (2 * rows * heads * keys * (shape.width + shape.value_len)) as f64;
            let share = operations / seconds / limits.f32_operations;
            println!(
                "{heads:3} heads, {rows:3} rows, {}: {:7.1} GOP/s, {:3.0} %",
                if in_integers { "i16" } else { "f32" },
                operations / seconds / 1e9,
                share * 100.0
            );
        }
    }
    for (heads, rows) in [(16, 256), (16, 1024.min(keys))] {
        let (seconds, operations) = decompressed(&pool, heads, rows, keys);
        let share = operations / seconds / limits.f32_operations;
        println!(
            "{heads:3} heads, {rows:4} last rows decompressed: {:7.1} GOP/s, {:3.0} %",
            operations / seconds / 1e9,
            share * 100.0
        );
    }
}

/// Seconds and operations of the last rows of a sequence, best of five.
fn decompressed(pool: &Pool, heads: usize, count: usize, keys: usize) -> (f64, f64) {
    let shape =
        DecompressedShape { heads, latent: 512, key_len: 128, shared_len: 64, value_len: 128, scale: 0.1 };
    let weights: Vec<f32> = (0..heads * 256 * 512).map(|i| (i % 7) as f32 * 0.01).collect();
    let bytes: Vec<u8> = weights.iter().flat_map(|weight| weight.to_le_bytes()).collect();
    let kv_b_proj =
        Matrix::new(heads * 256, 512, Storage::F32(bytes.into())).expect("the shape of the numbers");
    let rows = |first| HeadRows { w: &kv_b_proj, first, is_transposed: false };
    let cached = vec![0.01; keys * 576];
    let pages = cached.chunks(PAGE * 576).map(Latents::F32).collect();
    let pages = Pages { pages, page_len: PAGE, width: 576, keys };
    let run = Run { pages: &pages, start: keys - count, count, first_row: 0 };
    let (query, mut out) = (vec![0.5; count * heads * 192], vec![0.0; count * heads * 128]);
    let mut once = |_| {
        let weights = Decompression { keys: rows(0), values: rows(128) };
        attend_decompressed(pool, &shape, &weights, &[run], &query, &mut out);
    };
    let seconds = (0..5).map(|_| seconds_per_round(pool, &mut once)).fold(f64::INFINITY, f64::min);
    black_box(&out);
    let pairs = (count * keys - count * (count - 1) / 2) * (192 + 128);
    (seconds, 2.0 * (heads * (pairs + keys * 256 * 512)) as f64)
}

/// A layer's cached rows in both formats, in huge pages as the model's cache.
struct Layer {
    floats: Lines<f32>,
    integers: Lines<i16>,
    scales: Vec<[f32; 2]>,
    width: usize,
}

impl Layer {
    fn new(layer: usize, keys: usize, width: usize) -> Layer {
        let (mut floats, mut integers) = (Lines::zeros(keys * width), Lines::zeros(keys * width));
        floats.fill(0.01 * (layer + 1) as f32);
        let rows = floats.chunks_exact(width).zip(integers.chunks_exact_mut(width));
        let scales = rows.map(|(row, out)| narrow_i16(row, LATENT, out)).collect();
        Layer { floats, integers, scales, width }
    }

    fn pages(&self, in_integers: bool) -> Pages<'_> {
        let width = self.width;
        let rows = self.integers.chunks(PAGE * width).zip(self.scales.chunks(PAGE));
        let integers =
            rows.map(|(numbers, scales)| Latents::I16(I16Rows { numbers, scales, width, latent: LATENT }));
        let pages = match in_integers {
            true => integers.collect(),
            false => self.floats.chunks(PAGE * width).map(Latents::F32).collect(),
        };
        Pages { pages, page_len: PAGE, width, keys: self.scales.len() }
    }
}

/// Seconds of one layer.
fn once(pool: &Pool, shape: &Shape, rows: usize, layers: &[Pages<'_>]) -> f64 {
    let query = vec![0.5; rows * shape.heads * shape.width];
    let mut out = vec![0.0; rows * shape.heads * shape.value_len];
    let mut scratch = AttentionScratch::default();
    let seconds = seconds_per_round(pool, |round| {
        let pages = &layers[round % layers.len()];
        attend(pool, shape, &vec![Row { pages, keys: pages.keys }; rows], &query, &mut scratch, &mut out);
    });
    black_box(&out);
    seconds
}
