//! Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1), every head's keys and values
//! computed.

use super::attention::{self, AttentionScratch, Heads, Inputs};
use super::{Pass, rmsnorm};
use crate::gemm::{Into, View, ViewMut, linear};
use crate::params::{MlaSlots, QuerySlots};
use std::ops::Range;

/// What the backward pass needs of one layer's attention.
#[derive(Default)]
pub struct MlaActivations {
    /// `[T, q_lora_rank]`, before its norm and after; empty without q LoRA.
    pub(crate) q_a: Vec<f32>,
    pub(crate) q_a_normed: Vec<f32>,
    pub(crate) q_a_inv_rms: Vec<f32>,
    /// `[T, heads, qk_nope_head_dim + qk_rope_head_dim]`, rotated.
    pub(crate) q: Vec<f32>,
    /// `[T, kv_lora_rank + qk_rope_head_dim]`, the rope part rotated.
    pub(crate) kv_a: Vec<f32>,
    pub(crate) latent: Vec<f32>,
    pub(crate) latent_inv_rms: Vec<f32>,
    /// `[T, heads, qk_nope_head_dim + v_head_dim]`.
    pub(crate) kv: Vec<f32>,
    /// What the heads attend to, `[T, heads, v_head_dim]`.
    pub(crate) heads_out: Vec<f32>,
    pub(crate) log_sum_exp: Vec<f32>,
}

/// Where the rows stand.
#[derive(Clone, Copy)]
pub(crate) struct Places<'a> {
    pub documents: &'a [Range<usize>],
    pub positions: &'a [usize],
    /// Which rows are not padding.
    pub counting: &'a [bool],
}

/// Adds attention's output to `out` (`[T, hidden]`); `x` is the normalised residual.
pub(crate) fn forward(
    pass: &Pass<'_>,
    slots: &MlaSlots,
    x: &[f32],
    places: Places<'_>,
    kept: &mut MlaActivations,
    scratch: &mut AttentionScratch,
    max_logits: &mut [f32],
    out: &mut [f32],
) {
    let config = pass.layout.config();
    let (rows, heads, hidden) = (places.positions.len(), Heads::of(config), config.hidden_size);
    queries(pass, slots, x, places, kept);
    keys_and_values(pass, slots, x, places, kept);
    kept.heads_out.resize(rows * heads.count * heads.v, 0.0);
    kept.log_sum_exp.resize(rows * heads.count, 0.0);
    let inputs = Inputs {
        heads,
        scale: pass.angles.softmax_scale,
        q: &kept.q,
        kv: &kept.kv,
        kv_a: &kept.kv_a,
        latent_width: config.latent_width(),
    };
    attention::forward(
        &inputs,
        places.documents,
        places.counting,
        scratch,
        &mut kept.heads_out,
        &mut kept.log_sum_exp,
        max_logits,
    );
    linear(
        ViewMut::rows_of(out, hidden),
        Into::Add,
        View::rows_of(&kept.heads_out, heads.count * heads.v),
        slots.o_proj.view(pass.weights),
    );
}

fn queries(pass: &Pass<'_>, slots: &MlaSlots, x: &[f32], places: Places<'_>, kept: &mut MlaActivations) {
    let (rows, heads) = (places.positions.len(), Heads::of(pass.layout.config()));
    let (w, x) = (pass.weights, View::rows_of(x, pass.layout.config().hidden_size));
    let width = heads.count * heads.qk();
    kept.q.resize(rows * width, 0.0);
    match &slots.q {
        QuerySlots::Direct { q_proj } => {
            linear(ViewMut::rows_of(&mut kept.q, width), Into::Replace, x, q_proj.view(w));
        }
        QuerySlots::LowRank { q_a_proj, q_a_layernorm, q_b_proj } => {
            let rank = q_a_proj.rows;
            kept.q_a.resize(rows * rank, 0.0);
            kept.q_a_normed.resize(rows * rank, 0.0);
            kept.q_a_inv_rms.resize(rows, 0.0);
            linear(ViewMut::rows_of(&mut kept.q_a, rank), Into::Replace, x, q_a_proj.view(w));
            let (eps, gain) = (rmsnorm::LATENT_NORM_EPS, q_a_layernorm.of(w));
            rmsnorm::forward(&kept.q_a, rank, gain, eps, &mut kept.q_a_normed, &mut kept.q_a_inv_rms);
            let normed = View::rows_of(&kept.q_a_normed, rank);
            linear(ViewMut::rows_of(&mut kept.q, width), Into::Replace, normed, q_b_proj.view(w));
        }
    }
    for (q, position) in kept.q.chunks_exact_mut(width).zip(places.positions) {
        for head in q.chunks_exact_mut(heads.qk()) {
            pass.angles.rotate(*position, &mut head[heads.nope..]);
        }
    }
}

fn keys_and_values(
    pass: &Pass<'_>,
    slots: &MlaSlots,
    x: &[f32],
    places: Places<'_>,
    kept: &mut MlaActivations,
) {
    let (config, rows, w) = (pass.layout.config(), places.positions.len(), pass.weights);
    let (latent, width, joint) = (config.kv_lora_rank, config.latent_width(), slots.kv_b_proj.rows);
    kept.kv_a.resize(rows * width, 0.0);
    kept.latent.resize(rows * latent, 0.0);
    kept.latent_inv_rms.resize(rows, 0.0);
    kept.kv.resize(rows * joint, 0.0);
    let x = View::rows_of(x, config.hidden_size);
    linear(ViewMut::rows_of(&mut kept.kv_a, width), Into::Replace, x, slots.kv_a_proj_with_mqa.view(w));
    let (eps, gain) = (rmsnorm::LATENT_NORM_EPS, slots.kv_a_layernorm.of(w));
    rmsnorm::forward(&kept.kv_a, width, gain, eps, &mut kept.latent, &mut kept.latent_inv_rms);
    for (kv_a, position) in kept.kv_a.chunks_exact_mut(width).zip(places.positions) {
        pass.angles.rotate(*position, &mut kv_a[latent..]);
    }
    let normed = View::rows_of(&kept.latent, latent);
    linear(ViewMut::rows_of(&mut kept.kv, joint), Into::Replace, normed, slots.kv_b_proj.view(w));
}
