//! The router's gradients: through the normalised scores of the chosen experts. The choice itself and its
//! bias have none.
//!
//! With `w_i = c s_i / S`, `S = Σ s_j + 1e-20` over the chosen: `ds_i = c/S (dw_i - Σ_j dw_j s_j / S)`.

use crate::balance;
use crate::forward::Pass;
use crate::forward::router::Routing;
use crate::gemm::{Into, View, ViewMut, linear_input_gradient, linear_weight_gradient};
use crate::params::MoeSlots;
use crate::vectors::{sized, vectorized};
use crate::workspace::Scratch;
use k2_model::Config;

/// Adds to `dx`, given `scratch.d_weights`; returns the balance loss.
pub(crate) fn backward(
    pass: &Pass<'_>,
    slots: &MoeSlots,
    x: &[f32],
    routing: &Routing,
    balance: f32,
    scratch: &mut Scratch,
    gradient: &mut [f32],
    dx: &mut [f32],
) -> f64 {
    let config = pass.layout.config();
    let d_scores = sized(&mut scratch.d_router, routing.scores.len());
    d_scores.fill(0.0);
    weights_backward(config, routing, &scratch.d_weights, d_scores);
    let loss = match balance {
        0.0 => 0.0,
        factor => balance::sequence_loss(config, routing, pass.batch.length, factor, Some(d_scores)),
    };
    vectorized(
        #[inline(always)]
        || d_scores.iter_mut().zip(&routing.scores).for_each(|(d, s)| *d *= s * (1.0 - s)),
    );
    let d_logits = View::rows_of(d_scores, config.n_routed_experts);
    let x = View::rows_of(x, config.hidden_size);
    linear_weight_gradient(slots.gate.view_mut(gradient), d_logits, x);
    let dx = ViewMut::rows_of(dx, config.hidden_size);
    linear_input_gradient(dx, Into::Add, d_logits, slots.gate.view(pass.weights));
    loss
}

fn weights_backward(config: &Config, routing: &Routing, d_weights: &[f32], d_scores: &mut [f32]) {
    let (experts, k, factor) =
        (config.n_routed_experts, config.num_experts_per_tok, config.routed_scaling_factor);
    let tokens = routing.scores.chunks_exact(experts).zip(routing.experts.chunks_exact(k));
    for (((scores, chosen), d_weights), d_scores) in
        tokens.zip(d_weights.chunks_exact(k)).zip(d_scores.chunks_exact_mut(experts))
    {
        let score = |expert: &u32| scores[*expert as usize];
        let (sum, mean) = match config.norm_topk_prob {
            false => (1.0, 0.0),
            true => {
                let sum = chosen.iter().map(score).sum::<f32>() + 1e-20;
                let weighted: f32 = chosen.iter().zip(d_weights).map(|(expert, dw)| dw * score(expert)).sum();
                (sum, weighted / sum)
            }
        };
        for (expert, dw) in chosen.iter().zip(d_weights) {
            d_scores[*expert as usize] += factor / sum * (dw - mean);
        }
    }
}
