//! The Kimi K2 forward pass, readable from top to bottom.
//!
//! `kimi_k2` → `layer` → `mla` and `moe` / `mlp`, with concrete types and the checkpoint's own
//! names. Mixture-of-experts routing and multi-head latent attention follow DeepSeek-V3
//! (arXiv 2412.19437), which Kimi K2 (arXiv 2507.20534) shares.

pub mod attention_form;
pub mod batch;
pub mod config;
pub mod kimi_k2;
pub mod kv_cache;
pub mod layer;
pub mod load;
pub mod mla;
pub mod mlp;
pub mod moe;
pub mod repack;
pub mod rope;
pub mod router;
pub mod scratch;
pub mod synthetic;
pub mod trace;

pub use k2_kernels::Precision;

pub use attention_form::AttentionForm;
pub use batch::{BatchError, Chunk, LogitRows};
pub use config::{Config, ConfigError, Yarn};
pub use kimi_k2::KimiK2;
pub use kv_cache::{CacheDtype, KvCache};
pub use load::LoadError;
pub use scratch::Scratch;
pub use synthetic::Synthetic;
pub use trace::Trace;
