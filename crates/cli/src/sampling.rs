//! The options of choosing tokens, for every command that generates.

use std::hash::{BuildHasher, RandomState};

use clap::Args;
use k2_engine::Sampling;

/// What Moonshot recommends for K2-Instruct.
pub(crate) const DEFAULT_TEMPERATURE: f32 = 0.6;

/// The whole distribution.
pub(crate) const DEFAULT_TOP_P: f32 = 1.0;

/// How tokens are chosen.
#[derive(Debug, Args)]
pub(crate) struct SamplingArgs {
    /// Logits are divided by it, 0 to 2; 0 is the same as --greedy.
    #[arg(long, value_name = "T", default_value_t = DEFAULT_TEMPERATURE, allow_negative_numbers = true)]
    temperature: f32,
    /// Draw only from the likeliest tokens that together have this probability.
    #[arg(long, value_name = "P", default_value_t = DEFAULT_TOP_P, allow_negative_numbers = true)]
    top_p: f32,
    /// Seed of the draws: the same seed gives the same answer [default: another one each time].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Take the likeliest token each time, whatever the other options say.
    #[arg(long)]
    greedy: bool,
}

impl SamplingArgs {
    /// With a seed in any case.
    pub(crate) fn sampling(&self) -> Sampling {
        let SamplingArgs { temperature, top_p, greedy, .. } = *self;
        let any = || RandomState::new().hash_one(0);
        Sampling { temperature, top_p, greedy, seed: self.seed.unwrap_or_else(any), ..Sampling::default() }
    }
}
