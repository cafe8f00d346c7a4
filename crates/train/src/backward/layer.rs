//! One layer's gradients: the feed-forward part first, then attention; each adds to the residual's.

use super::rmsnorm::{self, Rows};
use super::{mla, mlp, moe};
use crate::forward::Pass;
use crate::forward::mla::Places;
use crate::params::TransformSlots;
use crate::vectors::sized;
use crate::workspace::Workspace;

/// Takes `workspace.dx` back through a layer; returns the balance loss.
pub(crate) fn backward(
    pass: &Pass<'_>,
    layer: usize,
    workspace: &mut Workspace,
    balance: f32,
    gradient: &mut [f32],
) -> f64 {
    let (slots, hidden) = (&pass.layout.layers[layer], pass.layout.config().hidden_size);
    let Workspace { dx, layers, documents, positions, counting, scratch, .. } = workspace;
    let kept = &layers[layer];

    // Out of the scratch, so that what it is handed to can use the rest.
    let mut d_normed = std::mem::take(&mut scratch.d_normed);
    let d_mid = sized(&mut d_normed, dx.len());
    d_mid.fill(0.0);
    let x = &kept.mid_normed;
    let loss = match &slots.mlp {
        TransformSlots::Dense(dense) => {
            mlp::backward(pass.weights, dense, x, &kept.gate_up, dx, scratch, gradient, d_mid);
            0.0
        }
        TransformSlots::Moe(slots) => {
            moe::backward(pass, slots, x, &kept.moe, dx, balance, scratch, gradient, d_mid)
        }
    };
    let (slot, rows) = (slots.post_attention_layernorm, Rows { data: &kept.mid, stride: hidden });
    let (gain, d_gain) = (slot.of(pass.weights), slot.of_mut(gradient));
    rmsnorm::backward(rows, gain, &kept.mid_inv_rms, d_mid, dx, hidden, d_gain);
    scratch.d_normed = d_normed;

    let places = Places { documents, positions, counting };
    mla::backward(pass, &slots.self_attn, &kept.normed, places, &kept.mla, dx, scratch, gradient);
    let (slot, rows) = (slots.input_layernorm, Rows { data: &kept.x, stride: hidden });
    let (gain, d_gain) = (slot.of(pass.weights), slot.of_mut(gradient));
    rmsnorm::backward(rows, gain, &kept.inv_rms, &scratch.d_normed, dx, hidden, d_gain);
    loss
}
