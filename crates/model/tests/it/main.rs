//! Tests of the `model` crate as its users see it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // these are tests

mod bits;
mod cache_dtype;
mod config;
mod divergence;
mod fixtures;
mod gguf;
mod golden;
mod load;
mod sequences;
