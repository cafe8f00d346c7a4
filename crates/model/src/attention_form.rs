//! In which form a row attends: a property of its sequence, never of the step that computes it.
//!
//! Forms give the same sums in other orders, so other bits; and a row's bits go into those of all rows behind it.
//! Hence what is generated is absorbed, as tokens that come one at a time must be, and stays absorbed when it is
//! computed again later; a turn of the prompt has the form that is cheaper for all of it at once. Both can be told
//! from the sequence, and whoever keeps rows keeps their form with them.

use std::ops::Range;

use crate::config::Config;
use crate::kv_cache::BLOCK_TOKENS;

/// How attention over the latents is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttentionForm {
    /// Queries and outputs go through `kv_b_proj`; keys and values stay latents.
    #[default]
    Absorbed,
    /// Keys and values of every head are computed from the latents, for many rows at a time.
    Decompressed,
    /// The same as the formula reads, with everything in memory: slow and obvious, the oracle of the others.
    Naive,
}

/// The decompressed form widens weights and copies queries too: it has to save more than a fifth.
const MARGIN: f64 = 1.25;

/// The rows of a prompt's turn that are decompressed, from its first on; those behind them are absorbed. None if that
/// takes more multiplications, were the turn computed at once. The end that fills no block of the cache is absorbed in
/// any case: it is what a next turn, or the same prompt again, has to compute anew, and a few decompressed rows cost as
/// much as all before them.
pub fn decompressed_rows(config: &Config, turn: Range<usize>) -> Range<usize> {
    let whole_blocks = turn.end.saturating_sub(1) / BLOCK_TOKENS * BLOCK_TOKENS;
    let pays = whole_blocks > turn.start && decompressed_is_cheaper(config, turn.start, turn.len());
    turn.start..if pays { whole_blocks } else { turn.start }
}

/// Of `tokens` rows that stand behind `start` others.
fn decompressed_is_cheaper(config: &Config, start: usize, tokens: usize) -> bool {
    let (latent, rope) = (config.kv_lora_rank, config.qk_rope_head_dim);
    let (nope, v) = (config.qk_nope_head_dim, config.v_head_dim);
    let rows = tokens as f64;
    // Each row sees those before the turn and half of the turn.
    let seen = rows * (start as f64 + rows / 2.0);
    // The way from a latent to a head's key and value, or of a query and a sum through the same weights.
    let through_kv_b = ((nope + v) * latent) as f64;
    let absorbed = rows * through_kv_b + seen * (2 * latent + rope) as f64;
    let decompressed = (start as f64 + rows) * through_kv_b + seen * (nope + rope + v) as f64;
    MARGIN * decompressed < absorbed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic::{Shape, Synthetic, SyntheticFormat};

    /// From so many tokens on a turn of Kimi K2 is decompressed, behind so many others.
    #[test]
    fn long_turns_are_decompressed() {
        let (shape, format) = (Shape::FullOneLayer, SyntheticFormat::Bf16);
        let config = Synthetic { shape, format, n_routed_experts: None }.config();
        for (start, least) in [(0, 96), (100, 173), (1000, 224), (16_000, 238), (100_000, 238)] {
            let form = |tokens| decompressed_is_cheaper(&config, start, tokens);
            assert!(!form(least - 1), "{start} + {}", least - 1);
            assert!(form(least), "{start} + {least}");
        }
        for (turn, end) in [(0..95, 0), (0..97, 96), (0..96, 64), (10..1000, 992), (10..1001, 992), (0..0, 0)]
        {
            let expected = turn.start..end.max(turn.start);
            assert_eq!(decompressed_rows(&config, turn.clone()), expected, "{turn:?}");
        }
    }
}
