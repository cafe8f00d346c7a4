//! MuonClip training of K2-architecture models: hand-written forward and backward for one architecture.
//!
//! `forward` and `backward` mirror the `model` crate file by file; `step` runs them on threads, `optimizer`
//! changes the weights (Muon, AdamW, QK-Clip), `trainer` repeats that, with checkpoints it can be resumed
//! from to the same bits. Sources: the Kimi K2 report (arXiv 2507.20534), Moonlight (arXiv 2502.16982),
//! DeepSeek-V3 (arXiv 2412.19437).

pub mod adamw;
pub mod backward;
pub mod balance;
pub mod batch;
pub mod bpe;
pub mod checkpoint;
pub mod data;
pub mod dialogues;
pub mod error;
pub mod evaluate;
pub mod export;
pub mod forward;
pub mod gemm;
pub mod loss;
pub mod memory;
pub mod metrics;
pub mod muon;
pub mod optimizer;
pub mod params;
pub mod plot;
pub mod progress;
pub mod qk_clip;
pub mod quantize;
pub mod recipe;
pub mod rng;
pub mod run;
pub mod schedule;
pub mod step;
pub mod trainer;
mod vectors;
pub mod workspace;

pub use batch::Batch;
pub use error::TrainError;
pub use params::Params;
pub use recipe::Recipe;
pub use run::{Event, Source, run, run_on};
pub use trainer::Trainer;
