//! How much memory a run needs, said before it starts and before anything is allocated for it.

use k2_kernels::memory::available_memory;
use k2_model::Config;
use std::path::Path;

use crate::data::DataSettings;
use crate::error::TrainError;
use crate::optimizer::MatrixRule;
use crate::recipe::Recipe;
use crate::step::micro_tokens;

/// Bytes of a position in a batch: a token, a target, a weight and a document's number.
const POSITION: u128 = 16;

/// Refuses a run that needs more than the system has free, where the system says so, or absurdly much. `records` are the
/// bytes of data that is not read yet.
pub fn check(recipe: &Recipe, config: &Config, threads: usize, records: u64) -> Result<(), TrainError> {
    let needed = needed(recipe, config, threads) + u128::from(records);
    let available = available_memory().unwrap_or(1 << 46);
    match needed <= u128::from(available) {
        true => Ok(()),
        false => Err(TrainError::Memory { needed: (needed >> 20) as u64, available: available >> 20 }),
    }
}

/// Bytes that the files of a recipe's data take when they are encoded, roughly: a token is about four bytes of text, and
/// eight in memory (its id and its weight).
pub fn records(settings: &DataSettings) -> u64 {
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
    let paths = settings.sources.iter().filter_map(|source| source.path.as_deref());
    paths.map(|path| size(path).saturating_mul(2)).fold(0, u64::saturating_add)
}

/// Bytes that a run will hold at its peak, roughly: weights, moments, each thread's gradient and buffers, the
/// moments once more as the bytes of a checkpoint, and the batches of a step and of the held-out loss.
fn needed(recipe: &Recipe, config: &Config, threads: usize) -> u128 {
    let (matrices, tables) = parameters(config);
    let second = if recipe.optimizer.matrices == MatrixRule::AdamW { matrices + tables } else { tables };
    let copies = 2 + threads as u128 + u128::from(recipe.quantization.is_some());
    let buffers = threads as u128 * buffers(config, recipe.batch.length);
    let saving = matrices + tables + second;
    let batches = (recipe.batch.accumulation as u128) + recipe.evaluation.batches as u128;
    let positions = batches * (recipe.batch.sequences as u128) * (recipe.batch.length as u128);
    4 * ((matrices + tables) * copies + second + buffers + saving) + POSITION * positions
}

/// Numbers in the matrices of all layers, and in embeddings and head.
fn parameters(c: &Config) -> (u128, u128) {
    let n = |count: usize| count as u128;
    let (hidden, heads, qk) = (n(c.hidden_size), n(c.num_attention_heads), n(c.qk_head_dim()));
    let queries = match c.q_lora_rank {
        None => heads * qk * hidden,
        Some(rank) => n(rank) * (hidden + heads * qk),
    };
    let keys_and_values = n(c.kv_lora_rank) * heads * n(c.qk_nope_head_dim + c.v_head_dim);
    let attention =
        queries + n(c.latent_width()) * hidden + keys_and_values + hidden * heads * n(c.v_head_dim);
    let experts = n(c.n_routed_experts) * n(c.moe_intermediate_size) + n(c.shared_intermediate_size());
    let layer = |layer: usize| match c.is_moe(layer) {
        true => 3 * hidden * experts + n(c.n_routed_experts) * hidden,
        false => 3 * hidden * n(c.intermediate_size),
    };
    let layers = (0..c.num_hidden_layers).map(|i| attention + layer(i)).sum();
    (layers, 2 * n(c.vocab_size) * hidden)
}

/// Numbers in one thread's buffers.
fn buffers(c: &Config, length: usize) -> u128 {
    let attention = 2 * c.q_lora_rank.unwrap_or(0)
        + c.num_attention_heads * (c.qk_head_dim() + c.qk_nope_head_dim + 2 * c.v_head_dim)
        + c.latent_width()
        + c.kv_lora_rank;
    let layer = |layer: usize| match c.is_moe(layer) {
        false => 2 * c.intermediate_size,
        true => {
            2 * c.moe_intermediate_size * c.num_experts_per_tok
                + 2 * c.shared_intermediate_size()
                + c.n_routed_experts
        }
    };
    let kept: usize = (0..c.num_hidden_layers).map(|i| 4 * c.hidden_size + attention + layer(i)).sum();
    let scratch =
        10 * c.hidden_size + 2 * attention + 4 * c.intermediate_size.max(c.shared_intermediate_size());
    micro_tokens(length) as u128 * (kept + scratch) as u128
}
