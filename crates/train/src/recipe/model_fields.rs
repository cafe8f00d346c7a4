//! The fields of `[model]`: those of the family's `config.json` files.
//!
//! A loader leaves fields that it does not know alone, and some may be left out: with a letter missing,
//! `q_lora_rank` would not be an error but another architecture. So a recipe's are compared with what there is.

use serde_json::{Map, Value, json};

use super::Recipe;
use crate::error::TrainError;

/// What a recipe says of its model.
const OF_A_MODEL: [&str; 23] = [
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "moe_intermediate_size",
    "num_hidden_layers",
    "first_k_dense_replace",
    "num_attention_heads",
    "num_key_value_heads",
    "kv_lora_rank",
    "qk_nope_head_dim",
    "qk_rope_head_dim",
    "v_head_dim",
    "n_routed_experts",
    "n_shared_experts",
    "num_experts_per_tok",
    "routed_scaling_factor",
    "rms_norm_eps",
    "rope_theta",
    "rope_parameters",
    "rope_interleave",
    "max_position_embeddings",
    "bos_token_id",
    "eos_token_id",
];

/// What published files have besides, for other programs. What some of it says of training has a key of its own in a recipe
/// ([`check_training`]); with `init` it is carried along.
const OF_OTHERS: [&str; 9] = [
    "pad_token_id",
    "initializer_range",
    "aux_loss_alpha",
    "seq_aux",
    "head_dim",
    "qk_head_dim",
    "dtype",
    "auto_map",
    "transformers_version",
];

/// What all models of the family have in common, where a recipe says nothing else.
pub(super) fn of_the_family() -> Value {
    json!({
        "architectures": ["DeepseekV3ForCausalLM"], "model_type": "kimi_k2", "hidden_act": "silu",
        "attention_bias": false, "attention_dropout": 0.0, "scoring_func": "sigmoid",
        "topk_method": "noaux_tc", "norm_topk_prob": true, "n_group": 1, "topk_group": 1,
        "moe_layer_freq": 1, "num_nextn_predict_layers": 0, "pretraining_tp": 1, "ep_size": 1,
        "rope_scaling": null, "q_lora_rank": null, "tie_word_embeddings": false,
        "torch_dtype": "bfloat16", "use_cache": true,
    })
}

/// Refuses values that would be passed over though they say how to train.
pub(super) fn check_training(recipe: &Recipe) -> Result<(), TrainError> {
    let number = |value: Option<f32>| value.map_or(Value::Null, |value| json!(value));
    let sequence_loss = number(Some(recipe.balance.sequence_loss));
    for (field, key, same, expected) in [
        ("attention_dropout", "model.attention_dropout", json!(0.0), "0: there is no dropout"),
        (
            "num_nextn_predict_layers",
            "model.num_nextn_predict_layers",
            json!(0),
            "0: there are no such layers",
        ),
        (
            "aux_loss_alpha",
            "model.aux_loss_alpha",
            sequence_loss,
            "that of `balance.sequence_loss`, which is what counts",
        ),
        ("seq_aux", "model.seq_aux", json!(true), "true: `balance.sequence_loss` is of each sequence"),
        (
            "initializer_range",
            "model.initializer_range",
            number(recipe.init_std),
            "that of `init_std`, which is what counts",
        ),
    ] {
        let found = recipe.model.get(field).filter(|found| !found.is_null() && !is_same(found, &same));
        if let Some(found) = found {
            let (found, expected) = (found.to_string(), expected.to_owned());
            return Err(TrainError::Value { field: key, found, expected });
        }
    }
    Ok(())
}

/// Numbers as the f32 that a recipe's own keys are.
fn is_same(found: &Value, wanted: &Value) -> bool {
    match (found.as_f64(), wanted.as_f64()) {
        (Some(found), Some(wanted)) => found as f32 == wanted as f32,
        _ => found == wanted,
    }
}

/// Refuses fields that no `config.json` has.
pub(super) fn check(model: &Map<String, Value>) -> Result<(), TrainError> {
    let family = of_the_family();
    let is_known = |field: &str| {
        family.get(field).is_some() || OF_A_MODEL.contains(&field) || OF_OTHERS.contains(&field)
    };
    match model.keys().find(|field| !is_known(field)) {
        None => Ok(()),
        Some(field) => {
            let expected = format!("{}, q_lora_rank, rope_scaling", OF_A_MODEL.join(", "));
            Err(TrainError::ModelField { field: field.clone(), expected })
        }
    }
}
