//! In which form a row attends: a property of its sequence, never of the step that computes it.
//!
//! Forms give the same sums in other orders, so other bits; and a row's bits go into those of all rows behind it.
//! Hence what is generated is absorbed, as tokens that come one at a time must be, and stays absorbed when it is
//! computed again later; a turn of the prompt has the form that is cheaper for all of it at once. Both can be told
//! from the sequence, and whoever keeps rows keeps their form with them.

use crate::config::Config;

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

impl AttentionForm {
    /// The form of `tokens` rows of a prompt that stand behind `start` others: the one with fewer multiplications,
    /// were they computed together.
    pub fn of_turn(config: &Config, start: usize, tokens: usize) -> AttentionForm {
        let (latent, rope) = (config.kv_lora_rank, config.qk_rope_head_dim);
        let (nope, v) = (config.qk_nope_head_dim, config.v_head_dim);
        let rows = tokens as f64;
        // Each row sees those before the turn and half of the turn.
        let seen = rows * (start as f64 + rows / 2.0);
        // The way from a latent to a head's key and value, or of a query and a sum through the same weights.
        let through_kv_b = ((nope + v) * latent) as f64;
        let absorbed = rows * through_kv_b + seen * (2 * latent + rope) as f64;
        let decompressed = (start as f64 + rows) * through_kv_b + seen * (nope + rope + v) as f64;
        if MARGIN * decompressed < absorbed { AttentionForm::Decompressed } else { AttentionForm::Absorbed }
    }
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
            let form = |tokens| AttentionForm::of_turn(&config, start, tokens);
            assert_eq!(form(least - 1), AttentionForm::Absorbed, "{start} + {}", least - 1);
            assert_eq!(form(least), AttentionForm::Decompressed, "{start} + {least}");
        }
    }
}
