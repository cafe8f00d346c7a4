//! Small models and batches with odd sizes, so that no test needs files.

use k2_model::Config;
use k2_train::rng::Rng;
use k2_train::{Batch, Params};
use serde_json::{Value, json};

/// A config of three layers; every variant of the architecture changes some of these fields.
pub(crate) fn config_json(changes: Value) -> Value {
    let mut config = json!({
        "model_type": "kimi_k2", "hidden_act": "silu", "scoring_func": "sigmoid", "topk_method": "noaux_tc",
        "vocab_size": 37, "hidden_size": 26, "intermediate_size": 22, "moe_intermediate_size": 10,
        "num_hidden_layers": 3, "first_k_dense_replace": 1, "num_attention_heads": 3,
        "q_lora_rank": 11, "kv_lora_rank": 9, "qk_nope_head_dim": 7, "qk_rope_head_dim": 4, "v_head_dim": 5,
        "n_routed_experts": 6, "n_shared_experts": 1, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1,
        "norm_topk_prob": true, "routed_scaling_factor": 1.7, "rms_norm_eps": 1e-5, "rope_theta": 1000.0,
        "rope_scaling": null, "max_position_embeddings": 512, "tie_word_embeddings": false,
    });
    for (field, value) in changes.as_object().unwrap() {
        config[field] = value.clone();
    }
    config
}

pub(crate) fn config(changes: Value) -> Config {
    Config::from_json(&config_json(changes)).unwrap()
}

/// Random weights, the gains and biases too.
pub(crate) fn params(config: &Config, seed: u64) -> Params {
    let mut params = Params::random(config, seed, Some(0.3));
    let mut rng = Rng::new(seed + 1);
    let layout = params.layout().clone();
    for tensor in layout.tensors() {
        let values = tensor.slot.of_mut(params.values_mut());
        if tensor.name.contains("norm") {
            values.fill_with(|| 1.0 + 0.3 * rng.normal() as f32);
        } else if tensor.name.ends_with("bias") {
            values.fill_with(|| 0.1 * rng.normal() as f32);
        }
    }
    params
}

/// Random tokens; several documents in each sequence, some positions without loss, some with half of it.
pub(crate) fn batch(config: &Config, sequences: usize, length: usize, seed: u64) -> Batch {
    let mut rng = Rng::new(seed);
    let positions = sequences * length;
    let mut ids = || -> Vec<u32> { (0..positions).map(|_| rng.below(config.vocab_size) as u32).collect() };
    let (tokens, targets) = (ids(), ids());
    let loss_mask = (0..positions).map(|i| [1.0, 1.0, 0.5, 0.0][i % 4]).collect();
    let mut document = 0;
    let document_ids = (0..positions).map(|_| {
        document += u32::from(rng.below(9) == 0);
        document
    });
    Batch { tokens, targets, loss_mask, document_ids: document_ids.collect(), sequences, length }
}
