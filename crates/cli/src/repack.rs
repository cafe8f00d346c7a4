//! Whether a model's weights are rearranged for speed, which takes memory beside the mapped file.

use clap::Args;
use k2_kernels::limits::available_memory;
use k2_model::interleave::TooLarge;
use k2_model::{KimiK2, Precision};

use crate::loading_bar::LoadingBar;

/// Without a wish, weights are rearranged that take no more than this part of the memory that is free.
const SHARE: u64 = 4;

/// What the command line says of it.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct RepackArgs {
    /// Rearrange quantised weights in memory of their own: faster, with the same results
    /// [default: if they take up to a quarter of the free memory].
    #[arg(long, conflicts_with_all = ["no_repack", "exact"])]
    repack: bool,
    /// Leave all weights in the mapped file.
    #[arg(long)]
    no_repack: bool,
}

impl RepackArgs {
    /// Rearranges the weights, if that is wanted.
    pub(crate) fn apply(self, model: &mut KimiK2, bar: &LoadingBar) -> Result<(), String> {
        if self.no_repack || model.precision == Precision::Exact {
            return Ok(());
        }
        let free = available_memory();
        let most = if self.repack { free.unwrap_or(u64::MAX) } else { free.unwrap_or(0) / SHARE };
        match model.interleave(most, &mut |done, of| bar.repacked(done, of)) {
            Err(TooLarge { needed, most }) if self.repack => Err(format!(
                "--repack takes {:.1} GB, {:.1} GB are free; without it weights stay in the mapped file",
                needed as f64 / 1e9,
                most as f64 / 1e9
            )),
            Ok(0) if self.repack => {
                Err("--repack: no weights of this model have whole panels of INT4, Q4_K, Q5_K, Q6_K or Q8_0"
                    .into())
            }
            _ => Ok(()),
        }
    }
}
