//! What a case asks of the machine: bytes that have to be read, operations that have to be done.
//!
//! Bytes are those of the weights as stored, each matrix once per step, and of the cached latents. Of the routed
//! experts, so many as independent uniform routing touches. An operation is a multiplication or an addition;
//! attention is counted in the form that it has, and each latent's way through `kv_b_proj` once, though later steps of
//! a decompressed prompt go it again.

use k2_kernels::Matrix;
use k2_model::attention_form::decompressed_rows;
use k2_model::layer::FeedForward;
use k2_model::mla::{KeyValueProjection, QueryProjection};
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
        let heads = match case.phase {
            Phase::Prefill => 1.0, // the last row only
            Phase::Decode => steps as f64,
        };
        let weights = Weights::of(model);
        let keys = case.depth as f64 + (case.len + 1) as f64 / 2.0;
        // A step of a prefill reads the latents once for all of its rows.
        let latents_read = if case.phase == Phase::Prefill { keys / tokens_per_step } else { keys };
        let per_token = |per_step: f64| per_step / tokens_per_step;
        let head = weights.head.times(heads / case.tokens() as f64);
        let head_operations = match case.phase {
            Phase::Prefill => head.numbers,
            Phase::Decode => weights.head.numbers,
        };
        let experts = c.num_experts_per_tok as f64;
        Work {
            bytes: per_token(weights.always.bytes)
                + per_token(weights.expert.bytes * distinct_experts(c, tokens_per_step))
                + head.bytes
                + latents_read * KvCache::bytes_per_token(c, settings.cache_dtype) as f64,
            operations: 2.0 * (weights.always.numbers + experts * weights.expert.numbers + head_operations)
                + attention_operations(c, case, keys),
        }
    }
}

/// Of one layer's routed experts, how many so many tokens go through if they choose independently.
fn distinct_experts(config: &Config, tokens: f64) -> f64 {
    let experts = config.n_routed_experts as f64;
    experts * (1.0 - (1.0 - config.num_experts_per_tok as f64 / experts).powf(tokens))
}

/// Scores and weighted sums of one token in all layers.
fn attention_operations(config: &Config, case: Case, keys: f64) -> f64 {
    let turn = case.depth..case.depth + case.len;
    let is_decompressed = case.phase == Phase::Prefill && !decompressed_rows(config, turn).is_empty();
    let per_key = match is_decompressed {
        true => config.qk_head_dim() + config.v_head_dim,
        false => config.latent_width() + config.kv_lora_rank,
    };
    2.0 * keys * (config.num_hidden_layers * config.num_attention_heads * per_key) as f64
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

    fn times(self, factor: f64) -> Size {
        Size { bytes: self.bytes * factor, numbers: self.numbers * factor }
    }
}

/// The weights by how often they are used.
#[derive(Default)]
struct Weights {
    /// By every token of a step.
    always: Size,
    /// One routed expert of every layer that has them; experts are alike.
    expert: Size,
    /// By the rows with logits.
    head: Size,
}

impl Weights {
    fn of(model: &KimiK2) -> Weights {
        let mut weights = Weights::default();
        weights.head.add(&[&model.lm_head]);
        for layer in &model.layers {
            let mla = &layer.self_attn;
            weights.always.add(&[&mla.kv_a_proj_with_mqa, &mla.o_proj]);
            match &mla.q {
                QueryProjection::Direct { q_proj } => weights.always.add(&[q_proj]),
                QueryProjection::LowRank { q_a_proj, q_b_proj, .. } => {
                    weights.always.add(&[q_a_proj, q_b_proj]);
                }
            }
            match &mla.kv_b {
                KeyValueProjection::Joint { kv_b_proj } => weights.always.add(&[kv_b_proj]),
                KeyValueProjection::Split { k_b_proj, v_b_proj } => {
                    weights.always.add(&[k_b_proj, v_b_proj]);
                }
            }
            match &layer.mlp {
                FeedForward::Dense(mlp) => weights.always.add(&parts(mlp)),
                FeedForward::Moe(moe) => {
                    weights.always.add(&[&moe.gate.gate]);
                    moe.shared_experts.iter().for_each(|shared| weights.always.add(&parts(shared)));
                    moe.experts.first().iter().for_each(|expert| weights.expert.add(&parts(expert)));
                }
            }
        }
        weights
    }
}

fn parts(mlp: &Mlp) -> [&Matrix; 3] {
    [&mlp.gate_proj, &mlp.up_proj, &mlp.down_proj]
}
