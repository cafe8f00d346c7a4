//! GGUF metadata becomes the official config, absent keys included.

use k2_weights::gguf::{config, parse};
use serde_json::{Value, json};

/// A metadata value, written as the format has it.
#[derive(Clone)]
enum Meta {
    U32(u32),
    U64(u64),
    F32(f32),
    Bool(bool),
    Text(&'static str),
    Texts(&'static [&'static str]),
}

use Meta::{Bool, F32, Text, Texts, U32, U64};

/// The keys that a file must have; those of the model without `deepseek2.`.
fn required() -> Vec<(&'static str, Meta)> {
    vec![
        ("general.architecture", Text("deepseek2")),
        ("context_length", U32(131072)),
        ("embedding_length", U32(64)),
        ("block_count", U32(3)),
        ("feed_forward_length", U32(96)),
        ("attention.head_count", U32(4)),
        ("attention.kv_lora_rank", U32(512)),
        ("attention.key_length", U32(192)),
        ("attention.value_length", U32(128)),
        ("attention.layer_norm_rms_epsilon", F32(1e-6)),
        ("expert_count", U32(16)),
        ("expert_used_count", U32(4)),
        ("expert_shared_count", U32(1)),
        ("expert_feed_forward_length", U32(32)),
        ("rope.dimension_count", U32(64)),
        ("vocab_size", U32(1000)),
    ]
}

fn yarn() -> Vec<(&'static str, Meta)> {
    vec![
        ("rope.scaling.type", Text("yarn")),
        ("rope.scaling.factor", F32(32.0)),
        ("rope.scaling.yarn_log_multiplier", F32(0.1)),
    ]
}

#[test]
fn fields_follow_from_keys_and_from_their_absence() {
    let absorbed = [
        ("attention.key_length", U32(576)),
        ("attention.value_length", U32(512)),
        ("attention.key_length_mla", U32(192)),
        ("attention.value_length_mla", U32(128)),
    ];
    let tokens = [("vocab_size", None), ("tokenizer.ggml.tokens", Some(Texts(&["a", "b", "c"])))];
    let some = |pairs: &[(&'static str, Meta)]| pairs.iter().map(|(k, v)| (*k, Some(v.clone()))).collect();
    let yarn_and = |more: &[(&'static str, Meta)]| some(&[&yarn(), more].concat());
    // Keys that are changed, added, or (None) left out; a field; what it must be.
    type Case<'a> = (Vec<(&'static str, Option<Meta>)>, &'a str, Value);
    let cases: Vec<Case<'_>> = vec![
        (vec![], "/model_type", json!("deepseek_v3")),
        (some(&[("tokenizer.ggml.pre", Text("kimi-k2"))]), "/model_type", json!("kimi_k2")),
        (vec![], "/qk_nope_head_dim", json!(128)),
        (vec![], "/v_head_dim", json!(128)),
        (some(&absorbed), "/qk_nope_head_dim", json!(128)),
        (some(&absorbed), "/v_head_dim", json!(128)),
        (vec![], "/q_lora_rank", Value::Null),
        (some(&[("attention.q_lora_rank", U64(1536))]), "/q_lora_rank", json!(1536)),
        (vec![], "/first_k_dense_replace", json!(0)),
        (some(&[("leading_dense_block_count", U32(1))]), "/first_k_dense_replace", json!(1)),
        (vec![], "/n_group", json!(1)),
        (some(&[("expert_group_count", U32(0))]), "/n_group", json!(1)),
        (some(&[("expert_group_count", U32(8))]), "/n_group", json!(8)),
        (some(&[("expert_group_used_count", U32(4))]), "/topk_group", json!(4)),
        (vec![], "/norm_topk_prob", json!(false)),
        (some(&[("expert_weights_norm", Bool(true))]), "/norm_topk_prob", json!(true)),
        (vec![], "/routed_scaling_factor", json!(1.0)),
        (some(&[("expert_weights_scale", F32(0.0))]), "/routed_scaling_factor", json!(1.0)),
        (some(&[("expert_weights_scale", F32(2.827))]), "/routed_scaling_factor", json!(2.827)),
        (vec![], "/rms_norm_eps", json!(1e-6)),
        (vec![], "/scoring_func", json!("softmax")),
        (some(&[("expert_gating_func", U32(1))]), "/scoring_func", json!("softmax")),
        (some(&[("expert_gating_func", U32(2))]), "/scoring_func", json!("sigmoid")),
        (vec![], "/topk_method", json!("greedy")),
        (vec![], "/rope_theta", json!(10000.0)),
        (some(&[("rope.freq_base", F32(50000.0))]), "/rope_theta", json!(50000.0)),
        (vec![], "/rope_scaling", Value::Null),
        (some(&[("rope.scaling.type", Text("none"))]), "/rope_scaling", Value::Null),
        (some(&[("rope.scaling.type", Text("linear"))]), "/rope_scaling", Value::Null),
        (yarn_and(&[]), "/rope_scaling/type", json!("yarn")),
        (yarn_and(&[]), "/rope_scaling/factor", json!(32.0)),
        (yarn_and(&[]), "/rope_scaling/beta_fast", json!(32.0)),
        (yarn_and(&[]), "/rope_scaling/beta_slow", json!(1.0)),
        (yarn_and(&[]), "/rope_scaling/mscale", json!(1.0)),
        (yarn_and(&[]), "/rope_scaling/mscale_all_dim", json!(1.0)),
        (yarn_and(&[]), "/rope_scaling/original_max_position_embeddings", json!(131072)),
        (yarn_and(&[("rope.scaling.yarn_beta_fast", F32(1.0))]), "/rope_scaling/beta_fast", json!(1.0)),
        (
            yarn_and(&[("rope.scaling.original_context_length", U32(4096))]),
            "/rope_scaling/original_max_position_embeddings",
            json!(4096),
        ),
        (vec![], "/vocab_size", json!(1000)),
        (tokens.to_vec(), "/vocab_size", json!(3)),
        (vec![], "/tie_word_embeddings", json!(true)),
        (some(&[("tokenizer.ggml.bos_token_id", U32(7))]), "/bos_token_id", json!(7)),
        (some(&[("tokenizer.ggml.eos_token_id", U32(8))]), "/eos_token_id", json!([8])),
    ];
    for (changes, field, want) in cases {
        check(&changes, field, &want);
    }
}

fn check(changes: &[(&'static str, Option<Meta>)], field: &str, want: &Value) {
    let mut pairs = required();
    pairs.retain(|(key, _)| changes.iter().all(|(changed, _)| changed != key));
    pairs.extend(changes.iter().filter_map(|(key, value)| Some((*key, value.clone()?))));
    let config = config(&[parse(&file(&pairs, 0).into()).unwrap()]).unwrap();
    let changed: Vec<_> = changes.iter().map(|(key, _)| key).collect();
    assert_eq!(config.pointer(field), Some(want), "{field} after changing {changed:?}");
}

/// The front of a file with the required keys and one tensor of that name, dimensions and type.
pub(crate) fn front(name: &str, dims: [u64; 3], kind: u32) -> Vec<u8> {
    front_of(&[(name.to_owned(), dims, kind, 0)])
}

/// The front of a file with the required keys and tensors of those names, dimensions, types and offsets.
pub(crate) fn front_of(tensors: &[(String, [u64; 3], u32, u64)]) -> Vec<u8> {
    let mut front = file(&required(), tensors.len() as u64);
    for (name, dims, kind, offset) in tensors {
        front.extend(text(name));
        front.extend(3u32.to_le_bytes());
        front.extend(dims.map(u64::to_le_bytes).concat());
        front.extend(kind.to_le_bytes());
        front.extend(offset.to_le_bytes());
    }
    front
}

/// A file's magic, counts and pairs.
fn file(pairs: &[(&str, Meta)], tensors: u64) -> Vec<u8> {
    let mut file = b"GGUF\x03\0\0\0".to_vec();
    file.extend(tensors.to_le_bytes());
    file.extend((pairs.len() as u64).to_le_bytes());
    for (key, value) in pairs {
        let whole = key.starts_with("general.") || key.starts_with("tokenizer.");
        file.extend(text(&if whole { (*key).to_owned() } else { format!("deepseek2.{key}") }));
        let (kind, bytes) = match value {
            U32(n) => (4u32, n.to_le_bytes().to_vec()),
            F32(n) => (6, n.to_le_bytes().to_vec()),
            Bool(value) => (7, vec![u8::from(*value)]),
            Text(value) => (8, text(value)),
            Texts(values) => {
                let head = [8u32.to_le_bytes().to_vec(), (values.len() as u64).to_le_bytes().to_vec()];
                (9, [head.concat(), values.iter().flat_map(|value| text(value)).collect()].concat())
            }
            U64(n) => (10, n.to_le_bytes().to_vec()),
        };
        file.extend(kind.to_le_bytes());
        file.extend(bytes);
    }
    file
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}
