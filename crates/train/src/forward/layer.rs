//! One layer: `x += attention(norm(x))`, `x += mlp(norm(x))`.

use super::mla::{self, MlaActivations, Places};
use super::moe::{self, MoeActivations};
use super::{Pass, mlp, rmsnorm};
use crate::gemm::Into;
use crate::params::TransformSlots;
use crate::workspace::Workspace;

/// What the backward pass needs of one layer.
#[derive(Default)]
pub struct LayerActivations {
    /// The residual before attention and its norm, `[T, hidden]`.
    pub(crate) x: Vec<f32>,
    pub(crate) normed: Vec<f32>,
    pub(crate) inv_rms: Vec<f32>,
    pub(crate) mla: MlaActivations,
    /// The same between attention and the feed-forward part.
    pub(crate) mid: Vec<f32>,
    pub(crate) mid_normed: Vec<f32>,
    pub(crate) mid_inv_rms: Vec<f32>,
    /// A dense layer's `[T, 2 intermediate_size]`.
    pub(crate) gate_up: Vec<f32>,
    /// A mixture-of-experts layer's part.
    pub moe: MoeActivations,
}

/// Takes `workspace.x` through a layer.
pub(crate) fn forward(pass: &Pass<'_>, layer: usize, workspace: &mut Workspace) {
    let (slots, config) = (&pass.layout.layers[layer], pass.layout.config());
    let Workspace { x, layers, observed, documents, positions, counting, scratch, .. } = workspace;
    let (kept, rows) = (&mut layers[layer], positions.len());
    kept.fit(rows, config.hidden_size);

    kept.x.copy_from_slice(x);
    let gain = slots.input_layernorm.of(pass.weights);
    rmsnorm::forward(x, config.hidden_size, gain, config.rms_norm_eps, &mut kept.normed, &mut kept.inv_rms);
    let heads = config.num_attention_heads;
    let max_logits = &mut observed.max_logits[layer * heads..][..heads];
    let places = Places { documents, positions, counting };
    mla::forward(
        pass,
        &slots.self_attn,
        &kept.normed,
        places,
        &mut kept.mla,
        &mut scratch.attention,
        max_logits,
        x,
    );

    kept.mid.copy_from_slice(x);
    let gain = slots.post_attention_layernorm.of(pass.weights);
    let (normed, inv_rms) = (&mut kept.mid_normed, &mut kept.mid_inv_rms);
    rmsnorm::forward(x, config.hidden_size, gain, config.rms_norm_eps, normed, inv_rms);
    match &slots.mlp {
        TransformSlots::Dense(dense) => {
            kept.gate_up.resize(rows * dense.gate_up_proj.rows, 0.0);
            mlp::forward(pass.weights, dense, normed, &mut kept.gate_up, &mut scratch.h, x, Into::Add);
        }
        TransformSlots::Moe(slots) => {
            let loads = &mut observed.expert_loads[layer * config.n_routed_experts..];
            moe::forward(pass, slots, normed, &mut kept.moe, scratch, x);
            kept.moe.routing.count(counting, loads);
        }
    }
}

impl LayerActivations {
    fn fit(&mut self, rows: usize, hidden: usize) {
        for buffer in [&mut self.x, &mut self.normed, &mut self.mid, &mut self.mid_normed] {
            buffer.resize(rows * hidden, 0.0);
        }
        self.inv_rms.resize(rows, 0.0);
        self.mid_inv_rms.resize(rows, 0.0);
    }
}
