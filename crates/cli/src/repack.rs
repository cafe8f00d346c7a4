//! Whether a model's weights are rearranged for speed, which takes memory beside the mapped file.

use clap::Args;
use k2_kernels::memory::available_memory;
use k2_model::repack::TooLarge;
use k2_model::{KimiK2, Precision};

use crate::loading_bar::LoadingBar;

/// Without a wish, weights are rearranged while a model loads that take no more than this part of the free memory: a
/// start stays a matter of seconds.
const AT_ONCE: u64 = 4;

/// The most that they may take without a wish, in tenths of the memory that is free beside the cache.
const MOST: u64 = 7;

/// What the command line says of it.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct RepackArgs {
    /// Rearrange quantised weights and pack BF16 without loss, in memory of their own before anything else: faster, with the same results
    /// [default: if they take up to 0.7 of the memory that is free beside the cache; of more than a quarter of it while no request is computed,
    /// and for a tenth of the time otherwise; `k2 bench` does so at once].
    #[arg(long, conflicts_with_all = ["no_repack", "exact"])]
    repack: bool,
    /// Leave all weights in the mapped file.
    #[arg(long)]
    no_repack: bool,
}

/// When it is done, where the command line does not say so.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Large {
    /// Before anything else.
    AtOnce,
    /// By the engine, while it has nothing else to do.
    Later,
}

impl RepackArgs {
    /// Rearranges the weights, if that is wanted and leaves `cache_bytes`; whether it is left to the engine.
    pub(crate) fn apply(
        self,
        model: &mut KimiK2,
        cache_bytes: u64,
        large: Large,
        bar: &LoadingBar,
    ) -> Result<bool, String> {
        if self.no_repack || model.precision == Precision::Exact {
            return Ok(false);
        }
        let free = available_memory().map(|free| free.saturating_sub(cache_bytes));
        let most = if self.repack { free.unwrap_or(u64::MAX) } else { free.unwrap_or(0) / 10 * MOST };
        let needed = model.repacked_bytes();
        if !self.repack && large == Large::Later && needed > free.unwrap_or(0) / AT_ONCE {
            return Ok(needed <= most);
        }
        match model.repack(most, &mut |done, of| bar.repacked(done, of)) {
            Err(TooLarge { needed, most }) if self.repack => Err(format!(
                "--repack takes {:.1} GB, {:.1} GB are free beside the cache; without it weights stay in the mapped file",
                needed as f64 / 1e9,
                most as f64 / 1e9
            )),
            Ok(0) if self.repack => {
                Err("--repack: no weights of this model have whole panels of INT4, Q4_K, Q5_K, Q6_K or Q8_0, or rows of BF16 in whole blocks of 128"
                    .into())
            }
            _ => Ok(false),
        }
    }
}
