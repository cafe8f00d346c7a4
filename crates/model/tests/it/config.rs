//! A config that this engine would get wrong is refused, by the field's name and what would be right.

use k2_model::Config;
use serde_json::{Value, json};

use crate::fixtures::{given, own};

fn base() -> Value {
    let text = std::fs::read_to_string(own("yarn_beta32").join("config.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Sets the field at a JSON pointer (null: removes it) and expects the error to contain `wanted`.
fn check(pointer: &str, value: Value, wanted: &str) {
    let mut config = base();
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    let object = config.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    match value.is_null() {
        true => object.remove(field),
        false => object.insert(field.into(), value),
    };
    let error = Config::from_json(&config).expect_err(pointer).to_string();
    assert!(error.contains(wanted), "{pointer}: {error}");
}

#[test]
fn wrong_fields_are_named() {
    for (pointer, value, wanted) in [
        ("/hidden_size", Value::Null, "`hidden_size` is missing"),
        ("/q_lora_rank", Value::Null, "`q_lora_rank` is missing"),
        ("/rms_norm_eps", Value::Null, "`rms_norm_eps` is missing"),
        ("/rope_scaling/beta_fast", Value::Null, "`rope_scaling.beta_fast` is missing"),
        ("/hidden_size", json!("64"), "`hidden_size` is \"64\", expected a whole number"),
        ("/hidden_size", json!(-1), "`hidden_size` is -1, expected a whole number"),
        ("/hidden_size", json!(0), "`hidden_size` is 0, expected 1 to"),
        ("/vocab_size", json!(u64::MAX), "`vocab_size` is 18446744073709551615, expected 1 to"),
        ("/qk_rope_head_dim", json!(7), "`qk_rope_head_dim` is 7, expected an even number"),
        ("/n_group", json!(1009), "expected a multiple of n_group"),
        ("/topk_group", json!(2), "`topk_group` is 2, expected at most 1"),
        ("/num_experts_per_tok", json!(4000), "`num_experts_per_tok` is 4000, expected at most"),
        ("/first_k_dense_replace", json!(99), "`first_k_dense_replace` is 99, expected at most"),
        ("/rope_theta", json!(-1.0), "`rope_theta` is -1, expected a positive number"),
        ("/norm_topk_prob", json!("yes"), "`norm_topk_prob` is \"yes\", expected true or false"),
        ("/eos_token_id", json!(["x"]), "`eos_token_id` is \"x\", expected a token id"),
        ("/model_type", json!("llama"), "`model_type` is llama; supported: kimi_k2"),
        ("/hidden_act", json!("gelu"), "`hidden_act` is gelu; supported: silu"),
        ("/scoring_func", json!("softmax"), "`scoring_func` is softmax; supported: sigmoid"),
        ("/topk_method", json!("greedy"), "`topk_method` is greedy; supported: noaux_tc"),
        ("/attention_bias", json!(true), "`attention_bias` is true; supported: false"),
        ("/rope_interleave", json!(false), "`rope_interleave` is false; supported: true"),
        ("/rope_scaling/type", json!("linear"), "`rope_scaling.type` is linear; supported: yarn"),
    ] {
        check(pointer, value, wanted);
    }
    let error = Config::from_json(&json!([])).expect_err("a list").to_string();
    assert!(error.contains("expected a JSON object"), "{error}");
}

/// The numbers of the release's card, from its own `config.json`.
#[test]
fn the_real_config_is_the_cards() {
    let path = given().join("../kimi-tokenizer/config.k2.5.json");
    if !path.exists() {
        return println!("skipped: no {}", path.display());
    }
    let config = Config::from_json(&k2_weights::read_config(&path).unwrap()).unwrap();
    assert_eq!((config.num_hidden_layers, config.first_k_dense_replace, config.hidden_size), (61, 1, 7168));
    assert_eq!((config.n_routed_experts, config.num_experts_per_tok, config.n_shared_experts), (384, 8, 1));
    assert_eq!(
        (config.num_attention_heads, config.moe_intermediate_size, config.vocab_size),
        (64, 2048, 163_840)
    );
}
