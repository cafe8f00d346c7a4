//! The experts' gradients, and those of the weights they were mixed with.
//!
//! An expert's output is not kept: with `g = dyᵀ W_down`, the gradient for a token's weight is `g·h`, and
//! the one for `h` is `weight * g`.

use super::mlp::{self, silu_mul_backward};
use super::router;
use crate::forward::Pass;
use crate::forward::mlp::silu_mul;
use crate::forward::moe::{MoeActivations, gather};
use crate::gemm::{Into, View, ViewMut, linear_input_gradient, linear_weight_gradient};
use crate::params::{MlpSlots, MoeSlots};
use crate::vectors::{add_scaled, dot, sized, vectorized};
use crate::workspace::Scratch;

/// Adds to `dx` (`[T, hidden]`), given the output's gradient `dy`; returns the balance loss.
pub(crate) fn backward(
    pass: &Pass<'_>,
    slots: &MoeSlots,
    x: &[f32],
    kept: &MoeActivations,
    dy: &[f32],
    balance: f32,
    scratch: &mut Scratch,
    gradient: &mut [f32],
    dx: &mut [f32],
) -> f64 {
    scratch.d_weights.resize(kept.routing.weights.len(), 0.0);
    for (expert, weights) in slots.experts.iter().enumerate() {
        let rows = kept.routing.starts[expert]..kept.routing.starts[expert + 1];
        if !rows.is_empty() {
            expert_backward(pass, weights, x, kept, rows, dy, scratch, gradient, dx);
        }
    }
    if let Some(shared) = &slots.shared_experts {
        mlp::backward(pass.weights, shared, x, &kept.shared_gate_up, dy, scratch, gradient, dx);
    }
    router::backward(pass, slots, x, &kept.routing, balance, scratch, gradient, dx)
}

/// One expert's tokens: `rows` of the order by expert.
fn expert_backward(
    pass: &Pass<'_>,
    slots: &MlpSlots,
    x: &[f32],
    kept: &MoeActivations,
    rows: std::ops::Range<usize>,
    dy: &[f32],
    scratch: &mut Scratch,
    gradient: &mut [f32],
    dx: &mut [f32],
) {
    let (hidden, width) = (slots.down_proj.rows, slots.down_proj.cols);
    let (count, k) = (rows.len(), pass.layout.config().num_experts_per_tok);
    let places = &kept.routing.by_expert[rows.clone()];
    let gate_up = &kept.gate_up[rows.start * 2 * width..rows.end * 2 * width];
    let expert_x = sized(&mut scratch.expert_x, count * hidden);
    let expert_dy = sized(&mut scratch.expert_out, count * hidden);
    gather(x, hidden, places, k, expert_x);
    gather(dy, hidden, places, k, expert_dy);

    let (h, dh) = (sized(&mut scratch.h, count * width), sized(&mut scratch.dh, count * width));
    silu_mul(gate_up, width, h);
    let down = slots.down_proj.view(pass.weights);
    let expert_dy = View::rows_of(expert_dy, hidden);
    linear_input_gradient(ViewMut::rows_of(dh, width), Into::Replace, expert_dy, down);
    weigh(places, &kept.routing.weights, width, h, dh, &mut scratch.d_weights);
    linear_weight_gradient(slots.down_proj.view_mut(gradient), expert_dy, View::rows_of(h, width));

    let d_gate_up = sized(&mut scratch.d_gate_up, gate_up.len());
    silu_mul_backward(gate_up, width, dh, d_gate_up);
    let d_gate_up = View::rows_of(d_gate_up, 2 * width);
    let expert_x = View::rows_of(expert_x, hidden);
    linear_weight_gradient(slots.gate_up_proj.view_mut(gradient), d_gate_up, expert_x);
    let expert_dx = sized(&mut scratch.expert_dx, count * hidden);
    let (to, gate_up_proj) = (ViewMut::rows_of(expert_dx, hidden), slots.gate_up_proj.view(pass.weights));
    linear_input_gradient(to, Into::Replace, d_gate_up, gate_up_proj);
    vectorized(
        #[inline(always)]
        || {
            for (from, place) in expert_dx.chunks_exact(hidden).zip(places) {
                add_scaled(&mut dx[*place as usize / k * hidden..][..hidden], 1.0, from);
            }
        },
    );
}

/// Takes `g·h` as the gradient of each row's weight, then multiplies `h` and `g` by the weight.
fn weigh(places: &[u32], weights: &[f32], width: usize, h: &mut [f32], g: &mut [f32], d_weights: &mut [f32]) {
    vectorized(
        #[inline(always)]
        || {
            for ((place, h), g) in places.iter().zip(h.chunks_exact_mut(width)).zip(g.chunks_exact_mut(width))
            {
                let weight = weights[*place as usize];
                d_weights[*place as usize] = dot(g, h);
                h.iter_mut().for_each(|h| *h *= weight);
                g.iter_mut().for_each(|g| *g *= weight);
            }
        },
    );
}
