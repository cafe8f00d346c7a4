//! The options of a model's cache: its format, what is kept on disk, and drafts from copies.

use std::error::Error;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use k2_engine::{CacheDtype, EngineOptions, PrefixStoreOptions};
use k2_model::Precision;
use k2_weights::{Checkpoint, IdentityDepth};

/// Bytes of a prefix store whose size nobody names: 16 GiB.
const STORE_BYTES: u64 = 16 << 30;

/// How sequences are cached.
#[derive(Clone, Debug, Args)]
pub(crate) struct CacheArgs {
    /// How the cache keeps latents: f32 as computed; i16 in half of the memory, rounded to integers that attention
    /// multiplies faster; bf16 in half of it; q8 in about a quarter [default: i16, f32 with --exact].
    #[arg(long, value_name = "FORMAT")]
    cache_dtype: Option<CacheDtype>,
    /// Keep beginnings of conversations in this directory, to be found again after a restart.
    #[arg(long, value_name = "DIR")]
    prefix_store: Option<PathBuf>,
    /// Bytes that they may take there; those unused for longest go first [default: 17179869184].
    #[arg(long, value_name = "BYTES", requires = "prefix_store")]
    prefix_store_bytes: Option<u64>,
    /// How much of the weights is read to tell them from others, so that no beginning is used with the wrong ones
    /// [default: sampled].
    #[arg(long, value_name = "DEPTH", requires = "prefix_store")]
    prefix_store_identity: Option<Depth>,
    /// Tokens drafted at most from earlier copies and checked in one step, or off; no answer depends on it.
    #[arg(long, value_name = "N|off", default_value = "off", value_parser = speculate)]
    speculate: usize,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Depth {
    /// Pages of many weights: about a second.
    Sampled,
    /// Every byte.
    Full,
}

impl CacheArgs {
    pub(crate) fn engine_options(&self, precision: Precision, options: EngineOptions) -> EngineOptions {
        let cache_dtype = self.cache_dtype.unwrap_or(cache_dtype(precision));
        EngineOptions { cache_dtype, speculate: self.speculate, ..options }
    }

    pub(crate) fn prefix_store(&self, checkpoint: &Checkpoint) -> Option<PrefixStoreOptions> {
        let depth = match self.prefix_store_identity {
            None | Some(Depth::Sampled) => IdentityDepth::Sampled,
            Some(Depth::Full) => IdentityDepth::Full,
        };
        self.prefix_store.as_ref().map(|directory| PrefixStoreOptions {
            directory: directory.clone(),
            bytes: self.prefix_store_bytes.unwrap_or(STORE_BYTES),
            weights: checkpoint.identity(depth),
        })
    }
}

/// The cache's format where none is named.
pub(crate) fn cache_dtype(precision: Precision) -> CacheDtype {
    match precision {
        Precision::Exact => CacheDtype::F32,
        Precision::Fast => CacheDtype::I16,
    }
}

fn speculate(text: &str) -> Result<usize, Box<dyn Error + Send + Sync>> {
    let wrong = || format!("{text:?} is neither off nor a number from 1 to {}", EngineOptions::MOST_DRAFTS);
    match text {
        "off" => Ok(0),
        number => match number.parse() {
            Ok(number @ 1..=EngineOptions::MOST_DRAFTS) => Ok(number),
            _ => Err(wrong().into()),
        },
    }
}
