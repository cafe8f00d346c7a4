//! llama.cpp's tensor names of architecture `deepseek2` and the official ones: one table.
//!
//! Two things have no official name. The experts of a layer are one stacked tensor per projection. And
//! newer files hold `kv_b_proj` as two tensors, made for attention over latents: `attn_k_b`
//! (per head the key rows of `kv_b_proj`, transposed: `[heads, kv_lora_rank, qk_nope_head_dim]`) and
//! `attn_v_b` (the value rows: `[heads, v_head_dim, kv_lora_rank]`). They appear here as `k_b_proj` and
//! `v_b_proj`, heads and rows joined.

/// What a llama.cpp tensor is called officially.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Official {
    /// One weight.
    One(String),
    /// One weight whose first dimensions are joined to rows.
    Joined(String),
    /// One weight per expert: the name is `before`, the expert's number, `after`.
    Stacked { before: String, after: String },
}

/// Names outside of the layers.
const MODEL: [(&str, &str); 3] = [
    ("token_embd.weight", "model.embed_tokens.weight"),
    ("output_norm.weight", "model.norm.weight"),
    ("output.weight", "lm_head.weight"),
];

/// Names after `blk.N.` and after `model.layers.N.`. A `*` stands for the expert's number.
const LAYER: [(&str, &str); 23] = [
    ("attn_norm.weight", "input_layernorm.weight"),
    ("attn_q.weight", "self_attn.q_proj.weight"),
    ("attn_q_a.weight", "self_attn.q_a_proj.weight"),
    ("attn_q_a_norm.weight", "self_attn.q_a_layernorm.weight"),
    ("attn_q_b.weight", "self_attn.q_b_proj.weight"),
    ("attn_kv_a_mqa.weight", "self_attn.kv_a_proj_with_mqa.weight"),
    ("attn_kv_a_norm.weight", "self_attn.kv_a_layernorm.weight"),
    ("attn_kv_b.weight", "self_attn.kv_b_proj.weight"),
    ("attn_k_b.weight", "self_attn.k_b_proj.weight"),
    ("attn_v_b.weight", "self_attn.v_b_proj.weight"),
    ("attn_output.weight", "self_attn.o_proj.weight"),
    ("ffn_norm.weight", "post_attention_layernorm.weight"),
    ("ffn_gate.weight", "mlp.gate_proj.weight"),
    ("ffn_up.weight", "mlp.up_proj.weight"),
    ("ffn_down.weight", "mlp.down_proj.weight"),
    ("ffn_gate_inp.weight", "mlp.gate.weight"),
    ("exp_probs_b.bias", "mlp.gate.e_score_correction_bias"),
    ("ffn_gate_exps.weight", "mlp.experts.*.gate_proj.weight"),
    ("ffn_up_exps.weight", "mlp.experts.*.up_proj.weight"),
    ("ffn_down_exps.weight", "mlp.experts.*.down_proj.weight"),
    ("ffn_gate_shexp.weight", "mlp.shared_experts.gate_proj.weight"),
    ("ffn_up_shexp.weight", "mlp.shared_experts.up_proj.weight"),
    ("ffn_down_shexp.weight", "mlp.shared_experts.down_proj.weight"),
];

/// The official name of a llama.cpp tensor; `None` if the architecture has no such tensor.
pub(crate) fn official(name: &str) -> Option<Official> {
    if let Some((_, official)) = MODEL.iter().find(|(known, _)| *known == name) {
        return Some(Official::One((*official).to_owned()));
    }
    let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let number: u32 = layer.parse().ok().filter(|number: &u32| number.to_string() == layer)?;
    let (_, official) = LAYER.iter().find(|(known, _)| *known == rest)?;
    let name = |part: &str| format!("model.layers.{number}.{part}");
    Some(match official.split_once('*') {
        Some((before, after)) => Official::Stacked { before: name(before), after: after.to_owned() },
        None if official.ends_with(".k_b_proj.weight") || official.ends_with(".v_b_proj.weight") => {
            Official::Joined(name(official))
        }
        None => Official::One(name(official)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_translate() {
        let one = |name: &str| Some(Official::One(name.to_owned()));
        let stacked = Official::Stacked {
            before: "model.layers.60.mlp.experts.".to_owned(),
            after: ".down_proj.weight".to_owned(),
        };
        let cases = [
            ("output.weight", one("lm_head.weight")),
            ("blk.0.attn_kv_b.weight", one("model.layers.0.self_attn.kv_b_proj.weight")),
            (
                "blk.7.attn_k_b.weight",
                Some(Official::Joined("model.layers.7.self_attn.k_b_proj.weight".to_owned())),
            ),
            ("blk.60.ffn_down_exps.weight", Some(stacked)),
            ("blk.3.exp_probs_b.bias", one("model.layers.3.mlp.gate.e_score_correction_bias")),
            ("blk.03.attn_norm.weight", None),
            ("blk.3.attn_norm.bias", None),
            ("blk.4294967296.attn_norm.weight", None),
            ("rope_freqs.weight", None),
        ];
        for (name, want) in cases {
            assert_eq!(official(name), want, "{name}");
        }
    }
}
