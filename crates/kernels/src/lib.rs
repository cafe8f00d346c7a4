//! Number formats of Kimi K2 weights and the operations on them.
//!
//! The only crate that knows instruction sets, and (with the file that maps checkpoints) the only
//! one with `unsafe`. Every operation has one fixed order of summation per output element, so a
//! result never depends on the batch, on how a prompt was cut into chunks or on the thread count.

#![allow(unsafe_code)] // leaves under safe, checked entries; each block says why it is sound

pub mod attention;
pub mod coded_bf16;
mod dot;
pub mod dtype;
pub mod exp;
mod floats;
pub mod ggml;
pub mod huge_pages;
pub mod inputs;
pub mod interleaved;
pub mod isa;
pub mod latents;
pub mod limits;
pub mod matmul;
pub mod matrix;
pub mod memory;
#[cfg(target_arch = "aarch64")]
mod neon;
pub mod nodes;
pub mod pool;
mod prefetch;
mod quantized;
pub mod rmsnorm;
pub mod rope;
pub mod swiglu;
pub mod topk;

pub use ggml::GgmlType;
pub use inputs::{Inputs, Precision};
pub use matrix::{Matrix, MatrixError, ScaleInv, Storage};
pub use pool::Pool;
