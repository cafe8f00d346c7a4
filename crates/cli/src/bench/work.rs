//! What a case asks of the machine: bytes that have to be read, operations that have to be done.
//!
//! Bytes are those of the weights as stored, each matrix once per step, and of the cached latents. Of the routed
//! experts, so many as independent uniform routing touches. An operation is a multiplication or an addition;
//! attention is counted in the form that it has, and each latent's way through `kv_b_proj` once, though later steps of
//! a decompressed prompt go it again. Rows without logits only leave their latents in the last layer: all of a prompt but
//! its last, unless all logits are asked for.

use k2_kernels::Matrix;
use k2_model::attention_form::decompressed_rows;
use k2_model::layer::FeedForward;
use k2_model::mla::{KeyValueProjection, Mla, QueryProjection};
use k2_model::mlp::Mlp;
use k2_model::{Config, KimiK2, KvCache};

use super::case::{Case, Phase};
use super::session::Settings;

/// Work per token, the mean over a case.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    pub(super) bytes: f64,
    pub(super) operations: f64,
}

impl Work {
    pub(super) fn of(model: &KimiK2, case: Case, settings: Settings) -> Work {
        let c = &model.config;
        let steps = match case.phase {
            Phase::Prefill => case.len.div_ceil(settings.prefill_chunk),
            Phase::Decode => case.len,
        };
        let tokens_per_step = case.tokens() as f64 / steps as f64;
        let weights = Weights::of(model);
        let keys = case.depth as f64 + (case.len + 1) as f64 / 2.0;
        // A step of a prefill reads the latents once for all of its rows.
        let latents_read = if case.phase == Phase::Prefill { keys / tokens_per_step } else { keys };
        let per_token = |per_step: f64| per_step / tokens_per_step;
        let logits = match case.phase == Phase::Prefill && !settings.prompt_logits {
            true => Logits { steps: 1.0, rows: 1.0, keys: (case.depth + case.len) as f64 },
            false => Logits { steps: steps as f64, rows: tokens_per_step, keys },
        };
        let share = logits.steps * logits.rows / case.tokens() as f64;
        let last_bytes =
            weights.with_logits.bytes + weights.last_expert.bytes * distinct_experts(c, logits.rows);
        let experts = c.num_experts_per_tok as f64;
        let for_all = weights.always.numbers + experts * weights.expert.numbers;
        let with_logits = weights.with_logits.numbers + experts * weights.last_expert.numbers;
        let keys_of_layers = keys * (c.num_hidden_layers as f64 - 1.0) + logits.keys * share;
        Work {
            bytes: per_token(weights.always.bytes)
                + per_token(weights.expert.bytes * distinct_experts(c, tokens_per_step))
                + last_bytes * logits.steps / case.tokens() as f64
                + latents_read * KvCache::bytes_per_token(c, settings.cache_dtype) as f64,
            operations: 2.0 * (for_all + with_logits * share) + attention_operations(c, case, keys_of_layers),
        }
    }
}

/// Which rows get logits.
struct Logits {
    /// Steps that have any.
    steps: f64,
    /// How many each of those has.
    rows: f64,
    /// How many keys they see, the mean.
    keys: f64,
}

/// Of one layer's routed experts, how many so many tokens go through if they choose independently.
fn distinct_experts(config: &Config, tokens: f64) -> f64 {
    let experts = config.n_routed_experts as f64;
    experts * (1.0 - (1.0 - config.num_experts_per_tok as f64 / experts).powf(tokens))
}

/// Scores and weighted sums of one token that sees so many keys in all layers together.
fn attention_operations(config: &Config, case: Case, keys: f64) -> f64 {
    let turn = case.depth..case.depth + case.len;
    let is_decompressed = case.phase == Phase::Prefill && !decompressed_rows(config, turn).is_empty();
    let per_key = match is_decompressed {
        true => config.qk_head_dim() + config.v_head_dim,
        false => config.latent_width() + config.kv_lora_rank,
    };
    2.0 * keys * (config.num_attention_heads * per_key) as f64
}

/// Stored bytes and numbers of some matrices.
#[derive(Clone, Copy, Default)]
struct Size {
    bytes: f64,
    numbers: f64,
}

impl Size {
    fn add(&mut self, matrices: &[&Matrix]) {
        for matrix in matrices {
            self.bytes += matrix.stored_bytes() as f64;
            self.numbers += (matrix.rows() * matrix.cols()) as f64;
        }
    }
}

/// The weights by how often they are used.
#[derive(Default)]
struct Weights {
    /// By every token of a step.
    always: Size,
    /// One routed expert of every layer that has them, but of the last layer; experts are alike.
    expert: Size,
    /// By the rows with logits: the head, and of the last layer what latents do not need.
    with_logits: Size,
    /// One routed expert of the last layer.
    last_expert: Size,
}

impl Weights {
    fn of(model: &KimiK2) -> Weights {
        let mut weights = Weights::default();
        weights.with_logits.add(&[&model.lm_head]);
        for (number, layer) in model.layers.iter().enumerate() {
            weights.always.add(&latent_weights(&layer.self_attn));
            let (of_rows, expert) = match number + 1 == model.layers.len() {
                true => (&mut weights.with_logits, &mut weights.last_expert),
                false => (&mut weights.always, &mut weights.expert),
            };
            of_rows.add(&query_weights(&layer.self_attn));
            match &layer.mlp {
                FeedForward::Dense(mlp) => of_rows.add(&parts(mlp)),
                FeedForward::Moe(moe) => {
                    of_rows.add(&[&moe.gate.gate]);
                    moe.shared_experts.iter().for_each(|shared| of_rows.add(&parts(shared)));
                    moe.experts.first().iter().for_each(|first| expert.add(&parts(first)));
                }
            }
        }
        weights
    }
}

/// What latents are made by, and keys and values from them.
fn latent_weights(mla: &Mla) -> Vec<&Matrix> {
    match &mla.kv_b {
        KeyValueProjection::Joint { kv_b_proj } => vec![&mla.kv_a_proj_with_mqa, kv_b_proj],
        KeyValueProjection::Split { k_b_proj, v_b_proj } => {
            vec![&mla.kv_a_proj_with_mqa, k_b_proj, v_b_proj]
        }
    }
}

/// What only rows that attend go through.
fn query_weights(mla: &Mla) -> Vec<&Matrix> {
    match &mla.q {
        QueryProjection::Direct { q_proj } => vec![q_proj, &mla.o_proj],
        QueryProjection::LowRank { q_a_proj, q_b_proj, .. } => vec![q_a_proj, q_b_proj, &mla.o_proj],
    }
}

fn parts(mlp: &Mlp) -> [&Matrix; 3] {
    [&mlp.gate_proj, &mlp.up_proj, &mlp.down_proj]
}
