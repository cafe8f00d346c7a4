//! Mixture of experts: each expert computes the rows of its tokens together.

use super::router::{self, Routing};
use super::{Pass, mlp};
use crate::gemm::Into;
use crate::params::MoeSlots;
use crate::vectors::{add_scaled, sized, vectorized};
use crate::workspace::Scratch;

/// What the backward pass needs of one layer's experts.
#[derive(Default)]
pub struct MoeActivations {
    /// Choices and weights.
    pub routing: Routing,
    /// `[T * num_experts_per_tok, 2 moe_intermediate_size]`, in the order of `routing.by_expert`.
    pub(crate) gate_up: Vec<f32>,
    /// `[T, 2 * shared width]`.
    pub(crate) shared_gate_up: Vec<f32>,
}

/// Adds the experts' output to `out` (`[T, hidden]`); `x` is the normalised residual.
pub(crate) fn forward(
    pass: &Pass<'_>,
    slots: &MoeSlots,
    x: &[f32],
    kept: &mut MoeActivations,
    scratch: &mut Scratch,
    out: &mut [f32],
) {
    let config = pass.layout.config();
    let (hidden, width) = (config.hidden_size, config.moe_intermediate_size);
    let tokens = x.len() / hidden;
    router::forward(pass, slots, x, &mut kept.routing, scratch);
    kept.gate_up.resize(tokens * config.num_experts_per_tok * 2 * width, 0.0);
    for (expert, weights) in slots.experts.iter().enumerate() {
        let rows = kept.routing.starts[expert]..kept.routing.starts[expert + 1];
        if rows.is_empty() {
            continue;
        }
        let places = &kept.routing.by_expert[rows.clone()];
        let expert_x = sized(&mut scratch.expert_x, rows.len() * hidden);
        gather(x, hidden, places, config.num_experts_per_tok, expert_x);
        let gate_up = &mut kept.gate_up[rows.start * 2 * width..rows.end * 2 * width];
        let expert_out = sized(&mut scratch.expert_out, rows.len() * hidden);
        mlp::forward(pass.weights, weights, expert_x, gate_up, &mut scratch.h, expert_out, Into::Replace);
        scatter(expert_out, hidden, places, &kept.routing.weights, config.num_experts_per_tok, out);
    }
    if let Some(shared) = &slots.shared_experts {
        kept.shared_gate_up.resize(tokens * shared.gate_up_proj.rows, 0.0);
        mlp::forward(pass.weights, shared, x, &mut kept.shared_gate_up, &mut scratch.h, out, Into::Add);
    }
}

/// Copies the rows of the tokens at `places` (positions in `[T, k]`).
pub(crate) fn gather(from: &[f32], width: usize, places: &[u32], k: usize, to: &mut [f32]) {
    for (to, place) in to.chunks_exact_mut(width).zip(places) {
        to.copy_from_slice(&from[*place as usize / k * width..][..width]);
    }
}

/// Adds rows, each times its weight, to those of their tokens.
fn scatter(from: &[f32], width: usize, places: &[u32], weights: &[f32], k: usize, to: &mut [f32]) {
    vectorized(
        #[inline(always)]
        || {
            for (from, place) in from.chunks_exact(width).zip(places) {
                let place = *place as usize;
                add_scaled(&mut to[place / k * width..][..width], weights[place], from);
            }
        },
    );
}
