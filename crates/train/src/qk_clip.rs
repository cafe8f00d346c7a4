//! QK-Clip (Kimi K2, arXiv 2507.20534, section 2.1): a head whose attention logits went above `tau` has its
//! query and key weights scaled down, so that the same inputs would give `tau`.
//!
//! Per head: with `γ = tau / S_max`, the rows of `q_b_proj` (or `q_proj`) without rope and the key rows of
//! `kv_b_proj` by `sqrt(γ)`, the rope rows of `q_b_proj` by `γ`; the rope key is shared by all heads and
//! stays. It comes after the optimizer's step, with the maximum seen in that step's own forward pass.

use k2_model::Config;

use crate::params::Layout;

/// Clips every head of every layer; `max_logits` is `[layers, heads]`. Returns how many heads were clipped.
pub fn clip(layout: &Layout, values: &mut [f32], max_logits: &[f32], tau: f32) -> usize {
    let config = layout.config();
    let heads = config.num_attention_heads;
    let mut clipped = 0;
    for (slots, max_logits) in layout.layers.iter().zip(max_logits.chunks_exact(heads)) {
        let attention = &slots.self_attn;
        clip_queries(config, attention.q.heads().of_mut(values), max_logits, tau);
        clip_keys(config, attention.kv_b_proj.of_mut(values), max_logits, tau);
        clipped += max_logits.iter().filter(|max| **max > tau).count();
    }
    clipped
}

/// Scales `q_b_proj` or `q_proj`.
pub fn clip_queries(config: &Config, q_proj: &mut [f32], max_logits: &[f32], tau: f32) {
    let per_head = q_proj.len() / max_logits.len();
    for (head, max) in q_proj.chunks_exact_mut(per_head).zip(max_logits) {
        if let Some(gamma) = gamma(*max, tau) {
            let nope = per_head / config.qk_head_dim() * config.qk_nope_head_dim;
            let (nope, rope) = head.split_at_mut(nope);
            nope.iter_mut().for_each(|w| *w *= gamma.sqrt());
            rope.iter_mut().for_each(|w| *w *= gamma);
        }
    }
}

/// Scales the key rows of `kv_b_proj`.
pub fn clip_keys(config: &Config, kv_b_proj: &mut [f32], max_logits: &[f32], tau: f32) {
    let per_head = kv_b_proj.len() / max_logits.len();
    for (head, max) in kv_b_proj.chunks_exact_mut(per_head).zip(max_logits) {
        if let Some(gamma) = gamma(*max, tau) {
            let width = config.qk_nope_head_dim + config.v_head_dim;
            let keys = per_head / width * config.qk_nope_head_dim;
            head[..keys].iter_mut().for_each(|w| *w *= gamma.sqrt());
        }
    }
}

fn gamma(max: f32, tau: f32) -> Option<f32> {
    (max > tau).then(|| tau / max)
}
