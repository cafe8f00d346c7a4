//! A Kimi K2 checkpoint on disk becomes typed tensors without copying.
//!
//! [`Checkpoint::open`] maps the files of a published folder (safetensors, sharded or not) or of a GGUF
//! set, reads nothing but their headers, and hands out [`k2_kernels::Matrix`] views by official tensor
//! name. Everything in a file is hostile until checked: lengths are compared with the file before
//! anything is allocated for them, and each way of being wrong has its own error.

mod catalog;
mod checkpoint;
mod convert;
mod error;
mod files;
mod folder;
pub mod gguf;
mod identity;
mod mmap;
mod names;
pub mod quantization;
pub mod safetensors;
mod save;
pub mod shards;
mod text;

pub use catalog::Skipped;
pub use checkpoint::{Checkpoint, Progress, TensorEntry, read_config};
pub use error::WeightsError;
pub use gguf::GgufVocabulary;
pub use identity::IdentityDepth;
pub use mmap::release_mapped_pages;
pub use save::{NewTensor, replace_file, save_safetensors};
