//! Each operation against a slow, obvious twin in f64 at odd sizes, and the promise of equal bits:
//! whatever the batch, the threads, the pages and the instruction set.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod attention;
mod bits;
mod coded_bf16;
mod decompressed;
mod fast;
mod fp8;
mod instruction_sets;
mod interleaved;
mod matrices;
mod pool;
mod products;
mod random;
mod rows;
mod storage;
mod stored;
mod swiglu;
