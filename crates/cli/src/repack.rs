//! Whether a model's weights are rearranged for speed, which takes memory beside the mapped file.

use clap::Args;
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
        let available = available_memory();
        let most = match (self.repack, available) {
            (true, available) => available.unwrap_or(u64::MAX),
            (false, available) => available.unwrap_or(0) / SHARE,
        };
        match model.interleave(most, &mut |done, of| bar.repacked(done, of)) {
            Err(TooLarge { needed, most }) if self.repack => Err(format!(
                "--repack takes {:.1} GB, {:.1} GB are free; without it weights stay in the mapped file",
                needed as f64 / 1e9,
                most as f64 / 1e9
            )),
            _ => Ok(()),
        }
    }
}

/// Bytes that can be taken without swapping, where the system says so.
pub(crate) fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}
