//! Number formats of Kimi K2 weights and the operations on them.
//!
//! The only crate that knows instruction sets, and (with the file that maps checkpoints) the only
//! one with `unsafe`. Every operation has one fixed order of summation per output element, so a
//! result never depends on the batch, on how a prompt was cut into chunks or on the thread count.

pub mod dtype;
pub mod ggml;
pub mod matrix;

pub use ggml::GgmlType;
pub use matrix::{Matrix, MatrixError, ScaleInv, Storage};
