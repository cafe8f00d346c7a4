//! The Kimi K2 forward pass, readable from top to bottom.
//!
//! `kimi_k2` → `layer` → `mla` and `moe` / `mlp`, with concrete types and the checkpoint's own
//! names. Mixture-of-experts routing and multi-head latent attention follow DeepSeek-V3
//! (arXiv 2412.19437), which Kimi K2 (arXiv 2507.20534) shares.

pub mod config;

pub use config::{Config, ConfigError, Yarn};
